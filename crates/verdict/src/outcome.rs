//! The answer, and what follows from it.

use std::fmt;

use countersign_reference::{Digest, Reference};
use jiff::Timestamp;
use serde::Serialize;

use crate::Code;

/// The answer to a question about one image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The image that was asked about.
    pub image: Reference,
    /// What was found.
    pub outcome: Outcome,
    /// The digest that the reference stands for, once known: always one that was computed here.
    pub digest: Option<Digest>,
    /// The endpoint that served the manifest.
    pub endpoint: Option<String>,
    /// What was looked at, in order.
    pub checks: Vec<Check>,
}

impl Verdict {
    /// A verdict that rests on one reason.
    pub fn because(image: Reference, outcome: Outcome, code: Code, detail: impl Into<String>) -> Self {
        let checks = vec![Check::new("", "", code, detail)];
        Self { digest: image.digest().cloned(), image, outcome, endpoint: None, checks }
    }

    /// The proof, where there is one.
    pub fn proof(&self) -> Option<&Proof> {
        match &self.outcome {
            Outcome::Verified(proof) => Some(proof),
            _ => None,
        }
    }

    /// What whoever asked should know although it is verified.
    pub fn warnings(&self) -> impl Iterator<Item = &Check> {
        let verified = self.proof().is_some();
        self.checks.iter().filter(move |check| verified && check.code.is_warning())
    }

    /// The reason that decided: the last check with a code that calls for action.
    pub fn deciding(&self) -> Option<&Check> {
        let of_outcome = |check: &&Check| check.code.hint().is_some();
        self.checks.iter().rev().find(of_outcome).or(self.checks.last())
    }
}

/// What was found about an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The attestors are satisfied.
    Verified(Proof),
    /// The digest exists, and no signature in any format at the endpoint that serves it.
    Unsigned,
    /// Signatures exist, none satisfies.
    Rejected,
    /// Every endpoint answered, none has the image.
    NotFound,
    /// A limit, malformed or contradictory data, no keys, a host that the site does not name.
    Refused,
    /// Dial, DNS, TLS, 429, 5xx, deadline.
    Undecided,
    /// Undecided by 401 or 403: the registry does not let us look, though it may let the node.
    Forbidden,
    /// No rule selects the image.
    NotCovered,
    /// An exception does.
    Excepted,
}

impl Outcome {
    /// The word for people and metrics.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Verified(_) => "Verified",
            Self::Unsigned => "Unsigned",
            Self::Rejected => "Rejected",
            Self::NotFound => "NotFound",
            Self::Refused => "Refused",
            Self::Undecided | Self::Forbidden => "Undecided",
            Self::NotCovered => "NotCovered",
            Self::Excepted => "Excepted",
        }
    }

    /// What an Enforce rule does with it.
    ///
    /// The table of the whole product. `Refused` denies whatever the failure policy says;
    /// nothing that is not verified, not covered or excepted ever admits in [`Tier::Fail`]
    /// except by `failurePolicy: Ignore` when the registry could not be asked.
    pub const fn decide(&self, failure_policy: FailurePolicy, tier: Tier) -> Decision {
        match (self, tier, failure_policy) {
            (Self::Verified(_) | Self::NotCovered | Self::Excepted, _, _)
            | (Self::Undecided | Self::Forbidden, Tier::Ignore, _)
            | (Self::Undecided, Tier::Fail, FailurePolicy::Ignore) => Decision::Admit,
            (
                Self::Unsigned
                | Self::Rejected
                | Self::NotFound
                | Self::Refused
                | Self::Undecided
                | Self::Forbidden,
                _,
                _,
            ) => Decision::Deny,
        }
    }

    /// Whether it depends on the moment rather than on the image, so that it is never
    /// remembered as an answer.
    pub const fn is_undecided(&self) -> bool {
        matches!(self, Self::Undecided | Self::Forbidden)
    }
}

/// What happens to a pod on account of one image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It may be stored.
    Admit,
    /// It may not.
    Deny,
}

/// A policy's `failurePolicy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FailurePolicy {
    /// What cannot be decided is denied.
    #[default]
    Fail,
    /// What cannot be decided is admitted.
    Ignore,
}

/// Which of the two webhooks was called: namespaces that must not deadlock have their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// Ordinary namespaces.
    Fail,
    /// Bootstrap-critical namespaces.
    Ignore,
}

/// Why an image is verified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Proof {
    /// What was verified: pinning uses this and nothing else.
    pub digest: Digest,
    /// The keys whose signatures satisfied the attestors, as `SHA-256` of their public key.
    pub keys: Vec<String>,
    /// The format of the signature that completed the proof.
    pub format: Format,
    /// Where that signature was read: an endpoint, or `evidence`.
    pub source: String,
    /// The image that the signature names, where its signer put a name in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The index that was signed, where it is not the digest itself but lists it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index: Option<Digest>,
    /// Set when the digest of the tag came from memory during an outage: when it was last
    /// confirmed by a registry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stale_since: Option<Timestamp>,
}

/// The shape in which a signature is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// A layer of the tag `sha256-<hex>.sig`, cosign up to 2.x.
    CosignSig,
    /// A sigstore bundle as a referrer, cosign from 3.0 on.
    SigstoreBundle,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CosignSig => "cosign .sig",
            Self::SigstoreBundle => "sigstore bundle",
        })
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Where: an endpoint's URL, `evidence`, or nothing.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub at: String,
    /// What: a manifest, a tag, a signature.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub artifact: String,
    /// How it came out.
    pub code: Code,
    /// The particulars, in one line.
    pub detail: String,
}

/// Characters of a check's particulars: what is quoted in them comes from outside, and they go into logs,
/// events and answers.
pub const MAX_DETAIL: usize = 400;

impl Check {
    /// A check at a place.
    pub fn new(
        at: impl Into<String>,
        artifact: impl Into<String>,
        code: Code,
        detail: impl Into<String>,
    ) -> Self {
        let mut detail = detail.into();
        if let Some((end, _)) = detail.char_indices().nth(MAX_DETAIL) {
            detail.truncate(end);
            detail.push('…');
        }
        Self { at: at.into(), artifact: artifact.into(), code, detail }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn particulars_are_short() {
        let detail = |text: &str| Check::new("", "", Code::Malformed, text).detail;
        assert_eq!(detail(&"ü".repeat(MAX_DETAIL)), "ü".repeat(MAX_DETAIL));
        assert_eq!(detail(&"ü".repeat(MAX_DETAIL + 1)), format!("{}…", "ü".repeat(MAX_DETAIL)));
    }

    /// The table of design, row by row: Enforce in `fail` with failurePolicy Fail and Ignore, and in `ignore`.
    #[test]
    fn every_outcome_decides_as_documented() {
        use Decision::{Admit, Deny};
        let proof = Proof {
            digest: Digest::sha256_of(b""),
            keys: vec![],
            format: Format::CosignSig,
            source: String::new(),
            name: None,
            index: None,
            stale_since: None,
        };
        for (outcome, fail, fail_ignore, ignore) in [
            (Outcome::Verified(proof), Admit, Admit, Admit),
            (Outcome::Unsigned, Deny, Deny, Deny),
            (Outcome::Rejected, Deny, Deny, Deny),
            (Outcome::NotFound, Deny, Deny, Deny),
            (Outcome::Refused, Deny, Deny, Deny),
            (Outcome::Undecided, Deny, Admit, Admit),
            (Outcome::Forbidden, Deny, Deny, Admit),
            (Outcome::NotCovered, Admit, Admit, Admit),
            (Outcome::Excepted, Admit, Admit, Admit),
        ] {
            assert_eq!(outcome.decide(FailurePolicy::Fail, Tier::Fail), fail, "{outcome:?}");
            assert_eq!(outcome.decide(FailurePolicy::Ignore, Tier::Fail), fail_ignore, "{outcome:?}");
            for policy in [FailurePolicy::Fail, FailurePolicy::Ignore] {
                assert_eq!(outcome.decide(policy, Tier::Ignore), ignore, "{outcome:?}");
            }
        }
    }
}
