//! What has to be true of an image.

use std::collections::BTreeMap;
use std::sync::Arc;

use countersign_reference::{Digest, ParseError, Reference};
use jiff::Timestamp;
use serde::Serialize;

/// Which image has to be signed by whom, and where its signatures are kept.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Question {
    /// The image as the node will ask for it.
    pub image: Reference,
    /// Who must have signed it.
    pub attestors: Attestors,
    /// Where signatures are kept, if not beside the image.
    pub repository: Option<SignatureRepository>,
    /// Whether a record of the tag may be of any age while no endpoint answers, and a key whose time
    /// is over counts and is told: in namespaces that must not wait.
    pub any_age: bool,
    /// Whose credentials may be used where an endpoint lets nobody else look.
    pub pull_secrets: Option<PullSecrets>,
}

/// The Secrets that a pod's node would pull with.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PullSecrets {
    /// The pod's namespace.
    pub namespace: String,
    /// Their names, in the pod's order.
    pub names: Vec<String>,
}

impl Question {
    /// A question about an image with its signatures beside it.
    pub fn new(image: Reference, attestors: Attestors) -> Self {
        Self { image, attestors, repository: None, any_age: false, pull_secrets: None }
    }
}

/// A repository that holds signatures of images of other repositories.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SignatureRepository(Reference);

impl SignatureRepository {
    /// Parses `host/path`. A bare host (`registry.local`) names no repository: `Ok(None)`.
    ///
    /// Upstream reads a bare host as `index.docker.io/library/<host>`, which nobody can have meant.
    pub fn parse(text: &str) -> Result<Option<Self>, ParseError> {
        if !text.contains('/') {
            return Ok(None);
        }
        let reference = Reference::parse(text)?;
        if reference.tag().is_some() || reference.digest().is_some() {
            return Err(ParseError::Path(text.to_owned()));
        }
        Ok(Some(Self(reference.with_host())))
    }

    /// The repository as a reference without tag and digest.
    pub fn reference(&self) -> &Reference {
        &self.0
    }
}

/// Who must have signed: every set has to be satisfied.
///
/// Cheap to clone. Two values are equal if the same signatures satisfy them: comparison is by
/// [`Attestors::id`], a digest of their content.
#[derive(Clone, Debug)]
pub struct Attestors(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    sets: Vec<AttestorSet>,
    id: Digest,
}

impl Attestors {
    /// These sets, all of which have to be satisfied.
    pub fn new(sets: Vec<AttestorSet>) -> Self {
        // Only strings, numbers and maps with string keys: this cannot fail to serialise.
        let canonical = serde_json::to_vec(&sets).unwrap_or_default();
        Self(Arc::new(Inner { id: Digest::sha256_of(&canonical), sets }))
    }

    /// One set, satisfied by a signature of any of these keys (one or more PEM blocks).
    pub fn any_of_keys(pem: &str) -> Self {
        Self::new(vec![AttestorSet { count: Some(1), entries: vec![Attestor::Keys(KeyAttestor::of(pem))] }])
    }

    /// The sets.
    pub fn sets(&self) -> &[AttestorSet] {
        &self.0.sets
    }

    /// A digest of the content: what a proof is remembered under.
    pub fn id(&self) -> &Digest {
        &self.0.id
    }
}

impl PartialEq for Attestors {
    fn eq(&self, other: &Self) -> bool {
        self.id() == other.id()
    }
}
impl Eq for Attestors {}
impl PartialOrd for Attestors {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Attestors {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.id().cmp(other.id())
    }
}
impl std::hash::Hash for Attestors {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.id().hash(state);
    }
}

/// A set of attestors of which some number has to be satisfied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AttestorSet {
    /// How many entries have to be satisfied; all of them where absent. An entry with several
    /// keys counts as that many entries (Kyverno splits it before counting).
    pub count: Option<usize>,
    /// The entries.
    pub entries: Vec<Attestor>,
}

/// One entry of a set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Attestor {
    /// A signature by one of these keys.
    Keys(KeyAttestor),
    /// Another set.
    Set(AttestorSet),
}

/// Public keys and what a signature by one of them has to say besides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KeyAttestor {
    /// One or more PEM blocks.
    pub pem: String,
    /// The hash that the signatures were made over.
    pub hash: HashAlgorithm,
    /// Annotations that the signed payload has to carry, all of them in one payload.
    pub annotations: BTreeMap<String, String>,
    /// What the Site calls the keys, where it is the Site that names them.
    pub name: Option<String>,
    /// When the keys are trusted.
    pub period: Period,
}

impl KeyAttestor {
    /// These keys (one or more PEM blocks) at any time, whatever else is signed.
    pub fn of(pem: impl Into<String>) -> Self {
        Self {
            pem: pem.into(),
            hash: HashAlgorithm::default(),
            annotations: BTreeMap::new(),
            name: None,
            period: Period::default(),
        }
    }
}

/// A stretch of time, without an end where none is given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Period {
    /// Its first moment.
    pub from: Option<Timestamp>,
    /// The first moment after it.
    pub until: Option<Timestamp>,
}

impl Period {
    /// Whether a moment is in it.
    pub fn has(&self, moment: Timestamp) -> bool {
        self.from.is_none_or(|from| from <= moment) && self.until.is_none_or(|until| moment < until)
    }

    /// What is in both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { from: self.from.max(other.from), until: [self.until, other.until].into_iter().flatten().min() }
    }
}

/// A policy's `signatureAlgorithm`. `sha224` is refused when a policy is loaded: no signer of
/// images uses it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum HashAlgorithm {
    /// SHA-256, cosign's default for keys of every kind.
    #[default]
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_host_is_no_repository() {
        assert_eq!(SignatureRepository::parse("registry.local").unwrap(), None);
        let sigs = SignatureRepository::parse("Registry.local/sigs").unwrap().unwrap();
        assert_eq!(sigs.reference().to_string(), "registry.local/sigs");
        assert!(SignatureRepository::parse("registry.local/sigs:1").is_err());
    }

    #[test]
    fn a_period_ends_before_its_end() {
        let moment = |second| Timestamp::from_second(second).unwrap();
        let period = |from: Option<i64>, until: Option<i64>| Period {
            from: from.map(moment),
            until: until.map(moment),
        };
        let both = period(Some(1), None).and(period(None, Some(3)));
        assert_eq!(both, period(Some(1), Some(3)));
        assert_eq!(both.and(period(Some(2), Some(9))), period(Some(2), Some(3)));
        let inside: Vec<i64> = (0..5).filter(|second| both.has(moment(*second))).collect();
        assert_eq!(inside, [1, 2]);
        assert!(Period::default().has(Timestamp::MIN) && Period::default().has(Timestamp::MAX));
    }

    #[test]
    fn attestors_are_their_content() {
        assert_eq!(Attestors::any_of_keys("a"), Attestors::any_of_keys("a"));
        assert_ne!(Attestors::any_of_keys("a"), Attestors::any_of_keys("b"));
        let all = AttestorSet { count: None, ..Attestors::any_of_keys("a").sets()[0].clone() };
        assert_ne!(Attestors::new(vec![all]), Attestors::any_of_keys("a"));
    }
}
