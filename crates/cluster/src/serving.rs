//! The serving certificate: an authority of the installation's own, and the leaf that every
//! replica serves, in one Secret.
//!
//! ```text
//! ca.crt     the authority, and the one before while leaves of it may still be served
//! ca.key     its private key
//! tls.crt    the leaf and the authority that has issued it
//! tls.key    the leaf's private key
//! rotated    when `ca.crt` was changed last
//! names      what the leaf is for
//! ```
//!
//! Everything begins a day before it is made, for nodes whose clocks have not been set yet. A new
//! authority first goes into `ca.crt`, from where webhook configurations take it, and issues the
//! leaf a while later: at no moment is a leaf served that the API server does not trust.

use std::collections::BTreeMap;
use std::sync::Arc;

use countersign_clock::Clock;
use countersign_https::{Authority, CurrentIdentity, Identity, IdentityError, Validity};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};

use crate::api::{make_if_absent, texts_of};

/// The Secret.
pub const SERVING_SECRET: &str = "countersign-serving";

const DAY: SignedDuration = SignedDuration::from_hours(24);
/// How far before its making a certificate begins.
const BACK_DATED: SignedDuration = DAY;
/// How long the authority counts, and how long before its end another one is made.
const AUTHORITY: (SignedDuration, SignedDuration) =
    (SignedDuration::from_hours(24 * 3650), SignedDuration::from_hours(24 * 730));
/// The same of the leaf.
const LEAF: (SignedDuration, SignedDuration) =
    (SignedDuration::from_hours(24 * 365), SignedDuration::from_hours(24 * 120));
/// How long a new authority is in `ca.crt` before it issues the leaf.
const INTRODUCED: SignedDuration = SignedDuration::from_secs(60);

/// What a replica serves with, and whom the API server has to trust.
#[derive(Clone, PartialEq, Eq)]
pub struct Serving {
    /// `caBundle`: PEM.
    pub authorities: String,
    /// The leaf's chain, PEM.
    pub chain: String,
    /// Its private key, PEM.
    pub key: String,
    authority_key: String,
    rotated: Timestamp,
    names: String,
}

impl Serving {
    /// From the texts of the Secret; `None` where something is missing.
    pub fn read(texts: &BTreeMap<String, Option<String>>) -> Option<Self> {
        let text = |key: &str| texts.get(key).cloned().flatten();
        Some(Self {
            authorities: text("ca.crt")?,
            authority_key: text("ca.key")?,
            chain: text("tls.crt")?,
            key: text("tls.key")?,
            rotated: text("rotated").and_then(|time| time.parse().ok()).unwrap_or_default(),
            names: text("names").unwrap_or_default(),
        })
    }

    /// As a server takes it.
    pub fn identity(&self) -> Identity {
        Identity { chain_pem: self.chain.clone(), key_pem: self.key.clone() }
    }

    /// When the leaf ends; `None` where it cannot be read.
    pub fn ends(&self) -> Option<Timestamp> {
        Validity::of(&self.chain).ok().map(|validity| validity.until)
    }

    fn new(names: &[&str], now: Timestamp) -> Result<Self, IdentityError> {
        let authority = Authority::generate_for("countersign", validity(now, AUTHORITY.0))?;
        let leaf = authority.issue_for(names, validity(now, LEAF.0))?;
        Ok(Self {
            authorities: authority.pem().to_owned(),
            authority_key: authority.key_pem(),
            chain: leaf.chain_pem,
            key: leaf.key_pem,
            rotated: now,
            names: names.join(" "),
        })
    }

    /// What follows on it by now; `None` where it is good as it is, or where nobody can say: a clock
    /// that is behind the moment at which the API server has made the Secret is the one that is wrong.
    fn due(
        &self,
        made: Option<Timestamp>,
        names: &[&str],
        now: Timestamp,
    ) -> Result<Option<Self>, IdentityError> {
        if made.is_some_and(|made| now < made) { Ok(None) } else { self.renewed(names, now) }
    }

    fn renewed(&self, names: &[&str], now: Timestamp) -> Result<Option<Self>, IdentityError> {
        let good = first(&self.authorities).filter(|current| {
            // One that has not begun was made by a clock that was wrong; one without its key makes nothing.
            !is_to_come(current, now) && Authority::from_pem(current, &self.authority_key).is_ok()
        });
        let Some(current) = good else { return Self::new(names, now).map(Some) };
        if is_due(current, now, AUTHORITY.1) {
            let authority = Authority::generate_for("countersign", validity(now, AUTHORITY.0))?;
            return Ok(Some(Self {
                authorities: format!("{}{current}", authority.pem()),
                authority_key: authority.key_pem(),
                rotated: now,
                ..self.clone()
            }));
        }
        let of_current = self.chain.ends_with(current);
        let introduced = now.duration_since(self.rotated).abs() >= INTRODUCED;
        // What nobody can be served with is replaced at once, and everything else when it is time.
        let unusable = is_due(&self.chain, now, SignedDuration::ZERO)
            || is_to_come(&self.chain, now)
            || self.names != names.join(" ")
            || CurrentIdentity::new(&self.identity()).is_err();
        let due = is_due(&self.chain, now, LEAF.1) || !of_current;
        if unusable || (due && introduced) {
            let authority = Authority::from_pem(current, &self.authority_key)?;
            let leaf = authority.issue_for(names, validity(now, LEAF.0))?;
            let names = names.join(" ");
            return Ok(Some(Self { chain: leaf.chain_pem, key: leaf.key_pem, names, ..self.clone() }));
        }
        Ok(None)
    }

    fn data(&self) -> BTreeMap<String, ByteString> {
        let rotated = self.rotated.to_string();
        [
            ("ca.crt", &self.authorities),
            ("ca.key", &self.authority_key),
            ("tls.crt", &self.chain),
            ("tls.key", &self.key),
            ("rotated", &rotated),
            ("names", &self.names),
        ]
        .into_iter()
        .map(|(key, text)| (key.to_owned(), ByteString(text.clone().into_bytes())))
        .collect()
    }
}

fn validity(now: Timestamp, lasts: SignedDuration) -> Validity {
    let at = |time: Result<Timestamp, jiff::Error>| time.unwrap_or(now);
    Validity { from: at(now.checked_sub(BACK_DATED)), until: at(now.checked_add(lasts)) }
}

/// Whether a certificate ends soon, or cannot be read.
fn is_due(pem: &str, now: Timestamp, before: SignedDuration) -> bool {
    Validity::of(pem).map_or(true, |validity| validity.until.duration_since(now) < before)
}

/// Whether a certificate has not begun yet.
fn is_to_come(pem: &str, now: Timestamp) -> bool {
    Validity::of(pem).is_ok_and(|validity| validity.from > now)
}

/// The first certificate of a PEM text.
fn first(pem: &str) -> Option<&str> {
    const END: &str = "-----END CERTIFICATE-----";
    let end = pem.find(END)? + END.len();
    let rest = &pem[end..];
    Some(&pem[..end + rest.len() - rest.trim_start().len()])
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServingError {
    /// The API server says no, or nothing.
    #[error("Secret `{SERVING_SECRET}`: {0}")]
    Api(Box<kube::Error>),
    /// It could not be made.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

impl From<kube::Error> for ServingError {
    fn from(error: kube::Error) -> Self {
        Self::Api(Box::new(error))
    }
}

/// Makes and renews it.
pub struct Certificates {
    api: Api<Secret>,
    names: Vec<String>,
    clock: Arc<dyn Clock>,
}

impl Certificates {
    /// In this namespace, for these host names and addresses.
    pub fn new(client: &Client, namespace: &str, names: Vec<String>, clock: Arc<dyn Clock>) -> Self {
        Self { api: Api::namespaced(client.clone(), namespace), names, clock }
    }

    /// Makes it where there is none: any replica may, and the first one wins.
    ///
    /// # Errors
    ///
    /// The API server says no, or nothing.
    pub async fn make(&self) -> Result<(), ServingError> {
        let secret = || {
            Ok(Secret {
                metadata: ObjectMeta { name: Some(SERVING_SECRET.to_owned()), ..ObjectMeta::default() },
                data: Some(Serving::new(&self.names(), self.clock.wall())?.data()),
                ..Secret::default()
            })
        };
        make_if_absent(&self.api, SERVING_SECRET, secret).await
    }

    /// Renews what ends soon, and answers with what is to be served: for the one who leads.
    ///
    /// # Errors
    ///
    /// The API server says no, or nothing, or somebody else was faster.
    pub async fn keep(&self) -> Result<Serving, ServingError> {
        self.make().await?;
        let mut secret = self.api.get(SERVING_SECRET).await?;
        let made = secret.metadata.creation_timestamp.as_ref().map(|made| made.0);
        let now = self.clock.wall();
        let next = match Serving::read(&texts_of(&secret)) {
            Some(serving) => match serving.due(made, &self.names(), now)? {
                None => return Ok(serving),
                Some(next) => next,
            },
            // Somebody has taken something out of it.
            None => Serving::new(&self.names(), now)?,
        };
        secret.data = Some(next.data());
        self.api.replace(SERVING_SECRET, &PostParams::default(), &secret).await?;
        Ok(next)
    }

    fn names(&self) -> Vec<&str> {
        self.names.iter().map(String::as_str).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_authority_is_introduced_before_it_issues_anything() {
        let start: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let after = |days: i64| start + SignedDuration::from_hours(24 * days);
        let names = ["countersign.countersign.svc"];
        let first_one = Serving::new(&names, start).unwrap();
        let validity = Validity::of(&first_one.chain).unwrap();
        assert_eq!((validity.from, validity.until), (after(-1), after(365)));
        assert!(first_one.renewed(&names, after(200)).unwrap().is_none());

        let leaf = first_one.renewed(&names, after(250)).unwrap().unwrap();
        assert_eq!(leaf.authorities, first_one.authorities);
        assert_eq!(leaf.ends(), Some(after(250 + 365)));
        assert!(leaf.renewed(&names, after(250)).unwrap().is_none());

        // The last years of an authority.
        let late = after(3000);
        let introduced = first_one.renewed(&names, late).unwrap().unwrap();
        assert!(introduced.authorities.ends_with(&first_one.authorities));
        assert_eq!(introduced.chain, first_one.chain);
        let leaf = introduced.renewed(&names, late + INTRODUCED).unwrap().unwrap();
        assert_eq!(leaf.authorities, introduced.authorities);
        assert!(leaf.chain.ends_with(first(&introduced.authorities).unwrap()));
        assert!(leaf.renewed(&names, late + INTRODUCED).unwrap().is_none());
    }

    #[test]
    fn a_clock_that_is_behind_renews_nothing() {
        let made: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let names = ["countersign.countersign.svc"];
        let good = Serving::new(&names, made).unwrap();
        let unset = Timestamp::UNIX_EPOCH;
        assert!(good.due(Some(made), &names, unset).unwrap().is_none());
        assert!(good.due(None, &names, unset).unwrap().is_some(), "it would");
        // One that was made by a clock that was ahead is still mended.
        let ahead = Serving::new(&names, made + SignedDuration::from_hours(24 * 1000)).unwrap();
        assert!(ahead.due(Some(made), &names, made).unwrap().is_some());
    }

    #[test]
    fn what_nobody_can_be_served_with_is_made_anew() {
        let start: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let names = ["countersign.countersign.svc"];
        let good = Serving::new(&names, start).unwrap();
        assert!(good.renewed(&names, start).unwrap().is_none());
        // A clock that was years ahead, keys of another pair, other names.
        let ahead = Serving::new(&names, start + SignedDuration::from_hours(24 * 1000)).unwrap();
        let other = Serving::new(&names, start).unwrap();
        let leaf_key = Serving { key: other.key.clone(), ..good.clone() };
        let authority_key = Serving { authority_key: "no key".to_owned(), ..good.clone() };
        for (what, broken) in [("ahead", ahead), ("leaf", leaf_key), ("authority", authority_key)] {
            let next = broken.renewed(&names, start).unwrap().expect(what);
            assert!(next.renewed(&names, start).unwrap().is_none(), "{what}");
        }
        let renamed = good.renewed(&["10.0.0.1"], start).unwrap().unwrap();
        assert_eq!(renamed.authorities, good.authorities);
        assert!(renamed.chain != good.chain);
    }

    #[test]
    fn one_that_is_not_introduced_yet_issues_nothing() {
        let start: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let names = ["a"];
        let serving = Serving::new(&names, start).unwrap();
        let late = start + SignedDuration::from_hours(24 * 3000);
        // A leaf that is good for long, so that nothing but the authority is due.
        let authority = Authority::from_pem(&serving.authorities, &serving.authority_key).unwrap();
        let leaf = authority.issue_for(&names, validity(late, LEAF.0)).unwrap();
        let serving = Serving { chain: leaf.chain_pem, key: leaf.key_pem, ..serving };
        let introduced = serving.renewed(&names, late).unwrap().unwrap();
        assert!(introduced.renewed(&names, late + SignedDuration::from_secs(59)).unwrap().is_none());
        assert!(introduced.renewed(&names, late + INTRODUCED).unwrap().is_some());
    }
}
