//! Whom a Site trusts: keys, for how long, and what the names in signatures have to be.

use std::collections::BTreeMap;

use countersign_verdict::Period;
use jiff::Timestamp;
use jiff::civil::Date;

use crate::document::{KeyDocument, TrustDocument};
use crate::model::{check_source, one_of};
use crate::{Problem, Problems, Source};

/// Keys by name, and what is asked of signatures besides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trust {
    /// The keys.
    pub keys: BTreeMap<String, Key>,
    /// Which of them may sign a bundle's index.
    pub bundle_keys: Vec<String>,
    /// Whether a signature has to be for an image of this name.
    pub identity: IdentityCheck,
    /// Prefixes of names as signers write them, and what each stands for.
    pub remap: BTreeMap<String, String>,
}

/// A key of the Site; several where its text has several blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// Where it is read from.
    pub source: Source,
    /// When it is trusted.
    pub period: Period,
}

/// Whether a signature has to be for an image of this name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IdentityCheck {
    /// The digest alone counts, as for cosign.
    #[default]
    Off,
    /// A name in a signature has to be the image's; one without a name counts.
    Named,
    /// The same, and one without a name does not count.
    Required,
}

impl Trust {
    pub(crate) fn check(document: &TrustDocument, problems: &mut Problems, warnings: &mut Problems) -> Self {
        let mut keys = BTreeMap::new();
        for (name, key) in &document.keys {
            let path = format!("spec.trust.keys.{name}");
            let source = check_source(&key.source(), &path, problems);
            let period = period(key, &path, problems);
            keys.extend(source.map(|source| (name.clone(), Key { source, period })));
        }
        for (index, name) in document.bundle_keys.iter().enumerate() {
            if !document.keys.contains_key(name) {
                problems.add(
                    format!("spec.trust.bundleKeys[{index}]"),
                    format!("there is no key `{name}` in spec.trust.keys"),
                );
            }
        }
        if !keys.is_empty() && keys.keys().all(|name| document.bundle_keys.contains(name)) {
            warnings.add(
                "spec.trust.bundleKeys",
                "every key is one for bundles, which sign no images: add the signer's under a name of its own",
            );
        }
        let identity = one_of(
            problems,
            "spec.trust.identity.check",
            document.identity.check.as_deref(),
            &[
                ("off", IdentityCheck::Off),
                ("named", IdentityCheck::Named),
                ("required", IdentityCheck::Required),
            ],
        );
        let remap = &document.identity.remap;
        if let Some(from) = remap.keys().find(|from| from.trim_matches('/').is_empty()) {
            problems.add(format!("spec.trust.identity.remap.`{from}`"), "a prefix of a name is needed");
        }
        if !remap.is_empty() && identity == IdentityCheck::Off {
            warnings.add("spec.trust.identity.remap", "has no effect while `check` is `off`");
        }
        Self { keys, bundle_keys: document.bundle_keys.clone(), identity, remap: remap.clone() }
    }
}

fn period(key: &KeyDocument, path: &str, problems: &mut Problems) -> Period {
    let mut moment = |field: &str, text: &Option<String>| {
        let path = format!("{path}.{field}");
        text.as_ref().and_then(|text| problems.take(&path, parse_moment(text)))
    };
    let from = moment("trustedFrom", &key.trusted_from);
    let until = moment("trustedUntil", &key.trusted_until);
    if let (Some(from), Some(until)) = (from, until)
        && until <= from
    {
        let message = "is not after `trustedFrom`: the key would never be trusted".to_owned();
        problems.0.push(Problem { path: format!("{path}.trustedUntil"), message });
    }
    Period { from, until }
}

/// A date, which stands for its first moment in UTC, or a moment as RFC 3339 has it.
fn parse_moment(text: &str) -> Result<Timestamp, String> {
    if let Ok(moment) = text.parse() {
        return Ok(moment);
    }
    let date: Option<Date> = text.parse().ok().filter(|_| text.len() == "2026-01-01".len());
    let moment = date.and_then(|date| date.to_zoned(jiff::tz::TimeZone::UTC).ok());
    let moment = moment.map(|moment| moment.timestamp());
    moment.ok_or_else(|| format!("`{text}` is not a date such as `2026-01-01` or `2026-01-01T12:00:00Z`"))
}

#[cfg(test)]
mod tests {
    use super::{Timestamp, parse_moment};

    #[test]
    fn a_date_is_its_first_moment() {
        let seconds = |text: &str| parse_moment(text).map(Timestamp::as_second).ok();
        assert_eq!(seconds("1970-01-02"), Some(86_400));
        assert_eq!(seconds("1970-01-01T00:00:07Z"), Some(7));
        for text in ["", "soon", "2026-13-01", "2026-01-01 ", "2026-01-01T12:00:00"] {
            assert_eq!(seconds(text), None, "{text}");
        }
    }
}
