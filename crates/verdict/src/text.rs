//! How verdicts read.

use std::fmt::Write as _;

use countersign_reference::Digest;
use serde_json::json;

use crate::{Check, Outcome, Verdict};

/// The most checks that a denial lists; `--explain` shows all.
const SHOWN_CHECKS: usize = 6;

/// The denial of one image: image as written and as rewritten, policy and rule, what was
/// found, and what to do.
pub fn denial(verdict: &Verdict, written: &str, policy: &str, rule: &str) -> String {
    let image = verdict.image.to_string();
    let mut text = format!("image {image} was denied by {policy}/{rule}\n");
    if !written.is_empty() && written != image {
        _ = writeln!(text, "  written    {written}");
    }
    body(&mut text, verdict, SHOWN_CHECKS);
    if let Some(hint) = verdict.deciding().and_then(|check| check.code.hint()) {
        _ = writeln!(text, "  hint: {hint};");
        _ = write!(text, "        `countersign verify --explain {image}` shows each check");
    }
    text
}

/// One verdict in full: every check as a tree, by the place where it was made and what it is about.
pub fn explanation(verdict: &Verdict) -> String {
    let mut text = format!("image {}\n", verdict.image);
    head(&mut text, verdict);
    let mut places: Vec<(&str, Vec<&Check>)> = Vec::new();
    for check in &verdict.checks {
        match places.iter_mut().find(|(at, _)| *at == check.at) {
            Some((_, checks)) => checks.push(check),
            None => places.push((&check.at, vec![check])),
        }
    }
    for (at, checks) in places {
        _ = writeln!(text, "  {}", if at.is_empty() { "(in all)" } else { at });
        for (index, check) in checks.iter().enumerate() {
            let branch = if index + 1 == checks.len() { "└─" } else { "├─" };
            let artifact =
                if check.artifact.is_empty() { String::new() } else { format!("{}: ", check.artifact) };
            _ = writeln!(text, "  {branch} {artifact}{} [{}]", check.detail, check.code);
        }
    }
    if let Some(hint) = verdict.deciding().and_then(|check| check.code.hint()) {
        _ = writeln!(text, "  hint: {hint}");
    }
    text
}

fn head(text: &mut String, verdict: &Verdict) {
    if let Some(digest) = &verdict.digest {
        let from = verdict.endpoint.as_deref().map(|at| format!("  (from {at})")).unwrap_or_default();
        _ = writeln!(text, "  digest     {}{from}", shortened(digest));
    }
    _ = writeln!(text, "  verdict    {}: {}", verdict.outcome.word(), summary(verdict));
}

fn body(text: &mut String, verdict: &Verdict, most: usize) {
    head(text, verdict);
    for check in verdict.checks.iter().take(most) {
        let at = if check.at.is_empty() { String::new() } else { format!("{}: ", check.at) };
        let artifact =
            if check.artifact.is_empty() { String::new() } else { format!("{}: ", check.artifact) };
        _ = writeln!(text, "             - {at}{artifact}{} [{}]", check.detail, check.code);
    }
    if verdict.checks.len() > most {
        _ = writeln!(text, "             … and {} more", verdict.checks.len() - most);
    }
}

/// One line on what was found.
pub fn summary(verdict: &Verdict) -> String {
    let signatures = verdict.checks.iter().filter(|check| check.code.is_of_signature()).count();
    let first = || verdict.deciding().map(|check| check.detail.clone()).unwrap_or_default();
    match &verdict.outcome {
        Outcome::Verified(proof) => {
            let stale = proof
                .stale_since
                .map(|since| format!(", tag not confirmed by a registry since {since}"))
                .unwrap_or_default();
            let index = proof.index.as_ref();
            let index = index.map(|index| format!(" of the index {}", shortened(index))).unwrap_or_default();
            format!("{}{index} by key {}{stale}", proof.format, proof.keys.join(", "))
        }
        Outcome::Unsigned => "no signature in any format".to_owned(),
        Outcome::Rejected => match signatures {
            0 => first(),
            1 => "1 signature, not one that this policy accepts".to_owned(),
            n => format!("{n} signatures, none that this policy accepts"),
        },
        Outcome::NotFound => "every endpoint answered, none has it".to_owned(),
        Outcome::NotCovered => "no rule selects it".to_owned(),
        Outcome::Excepted => "an exception selects it".to_owned(),
        Outcome::Refused | Outcome::Undecided | Outcome::Forbidden => first(),
    }
}

/// `sha256:6c1f…e02a`: enough to recognise, and it fits a line.
pub fn shortened(digest: &Digest) -> String {
    let hex = digest.hex();
    format!("{}:{}…{}", digest.algorithm().name(), &hex[..8], &hex[hex.len() - 4..])
}

/// The verdict as data, for `--output json` and the decision log.
pub fn data(verdict: &Verdict) -> serde_json::Value {
    json!({
        "image": verdict.image.to_string(),
        "verdict": verdict.outcome.word(),
        "summary": summary(verdict),
        "digest": verdict.digest.as_ref().map(ToString::to_string),
        "endpoint": verdict.endpoint,
        "proof": verdict.proof(),
        "checks": verdict.checks,
        "hint": verdict.deciding().and_then(|check| check.code.hint()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Code;
    use countersign_reference::Reference;

    fn rejected() -> Verdict {
        let image = Reference::parse("registry.local/quay.io/acme/db:1.4").unwrap();
        let at = "https://registry.local";
        Verdict {
            digest: Some(Digest::sha256_of(b"x")),
            endpoint: Some(at.to_owned()),
            outcome: Outcome::Rejected,
            checks: vec![
                Check::new(at, "cosign .sig 1", Code::KeyMismatch, "not made by any of 5 keys"),
                Check::new(at, "referrers", Code::NotPresent, "none"),
            ],
            image,
        }
    }

    #[test]
    fn a_denial_says_what_where_and_what_to_do() {
        insta::assert_snapshot!(denial(&rejected(), "quay.io/acme/db:1.4", "check-image", "vendor"), @r"
        image registry.local/quay.io/acme/db:1.4 was denied by check-image/vendor
          written    quay.io/acme/db:1.4
          digest     sha256:2d711642…4881  (from https://registry.local)
          verdict    Rejected: 1 signature, not one that this policy accepts
                     - https://registry.local: cosign .sig 1: not made by any of 5 keys [key-mismatch]
                     - https://registry.local: referrers: none [not-present]
          hint: a re-signed image needs its new key in the policy first;
                `countersign verify --explain registry.local/quay.io/acme/db:1.4` shows each check
        ");
    }

    #[test]
    fn an_explanation_is_a_tree_of_places() {
        let mut verdict = rejected();
        verdict.checks.push(Check::new("evidence", "signature", Code::KeyExpired, "key `a` is over"));
        verdict.checks.push(Check::new("", "", Code::NoSignature, "none"));
        insta::assert_snapshot!(explanation(&verdict), @r"
        image registry.local/quay.io/acme/db:1.4
          digest     sha256:2d711642…4881  (from https://registry.local)
          verdict    Rejected: 2 signatures, none that this policy accepts
          https://registry.local
          ├─ cosign .sig 1: not made by any of 5 keys [key-mismatch]
          └─ referrers: none [not-present]
          evidence
          └─ signature: key `a` is over [key-expired]
          (in all)
          └─ none [no-signature]
          hint: sign the digest with `cosign sign --key …`, or copy its signatures along: plain image copies drop them
        ");
    }

    #[test]
    fn data_has_the_codes() {
        let data = data(&rejected());
        assert_eq!(data["verdict"], "Rejected");
        assert_eq!(data["checks"][0]["code"], "key-mismatch");
    }
}
