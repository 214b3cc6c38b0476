//! Judges signatures one by one until the attestors are satisfied.

use std::collections::BTreeSet;
use std::sync::Arc;

use countersign_reference::Digest;
use countersign_verdict::{Check, Code, Format, Period};

use crate::material::{Candidate, Flaw, Material};
use crate::terms::{TOLD_AHEAD, Terms, Time};
use crate::trust::{Entry, Set, Trust, TrustedKey};

/// A value that a check of this crate stands behind. Nothing else can make one. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified<T>(Arc<T>);

impl<T> Verified<T> {
    /// The value.
    pub fn get(&self) -> &T {
        &self.0
    }
}

/// A signature and where it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    /// An endpoint, or `evidence`.
    pub at: String,
    /// Which artifact, in words for people.
    pub artifact: String,
    /// The bytes.
    pub material: Material,
}

/// What satisfied the attestors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signatures {
    /// The digest that was signed.
    pub digest: Digest,
    /// Fingerprints of the keys that signed.
    pub keys: Vec<String>,
    /// The format of the signature that completed the proof.
    pub format: Format,
    /// Where that one was read.
    pub source: String,
    /// The image that it names, where its signer put a name in.
    pub name: Option<String>,
    /// When the keys that signed are all trusted: at other times this has to be judged again.
    pub period: Period,
    /// The signatures themselves, to be kept: they can be judged again at any time.
    pub materials: Vec<Material>,
}

/// Judges signatures of one image by one trust.
pub struct Judge<'a> {
    trust: &'a Trust,
    image: &'a Digest,
    terms: Terms<'a>,
    operations: usize,
    seen: usize,
    /// Whether a limit of the image, and not of one signature, was reached.
    exhausted: bool,
    /// Content that was judged: endpoints hold copies of one another.
    judged: BTreeSet<Digest>,
    /// Which of the trust's keys have signed.
    signed: BTreeSet<usize>,
    useful: Vec<Material>,
    checks: Vec<Check>,
}

/// A good signature.
struct Good {
    /// Which of the trust's keys it counts for.
    keys: Vec<usize>,
    name: Option<String>,
    /// What should be known of it.
    remarks: Vec<Flaw>,
}

impl<'a> Judge<'a> {
    /// A judge who has seen nothing yet.
    pub fn new(trust: &'a Trust, image: &'a Digest, terms: Terms<'a>) -> Self {
        Self {
            trust,
            image,
            terms,
            operations: 0,
            seen: 0,
            exhausted: false,
            judged: BTreeSet::new(),
            signed: BTreeSet::new(),
            useful: Vec::new(),
            checks: Vec::new(),
        }
    }

    /// Judges one more signature; the answer once the attestors are satisfied.
    pub fn add(&mut self, located: &Located) -> Option<Verified<Signatures>> {
        self.seen += 1;
        if !self.judged.insert(located.material.id()) && self.seen <= self.terms.limits.signatures {
            self.note(located, Code::SeenBefore, "the same as one before".to_owned());
            return None;
        }
        let mut name = None;
        match self.weigh(&located.material) {
            Ok(good) => {
                let names: Vec<_> = good.keys.iter().map(|key| self.fingerprint(*key)).collect();
                let of = good.name.as_ref().map(|name| format!(", of `{name}`")).unwrap_or_default();
                self.note(located, Code::SignatureValid, format!("made by key {}{of}", names.join(", ")));
                for remark in good.remarks {
                    self.note(located, remark.code, remark.detail);
                }
                self.signed.extend(good.keys);
                self.useful.push(located.material.clone());
                name = good.name;
            }
            Err(flaw) => self.note(located, flaw.code, flaw.detail),
        }
        if !self.trust.sets.iter().all(|set| self.satisfied(set)) {
            return None;
        }
        let keys: BTreeSet<String> = self.signed.iter().map(|key| self.fingerprint(*key)).collect();
        let periods = self.signed.iter().map(|key| self.trust.keys[*key].period);
        Some(Verified(Arc::new(Signatures {
            digest: self.image.clone(),
            keys: keys.into_iter().collect(),
            format: located.material.format(),
            source: located.at.clone(),
            name,
            period: periods.fold(Period::default(), Period::and),
            materials: self.useful.clone(),
        })))
    }

    /// What was found so far, one check for each signature.
    pub fn checks(&self) -> &[Check] {
        &self.checks
    }

    /// How many signatures were seen.
    pub fn seen(&self) -> usize {
        self.seen
    }

    /// Whether the limit of signatures or of operations was reached: then nothing more is looked at, and
    /// nothing can be said of the image. One signature that is too large to be read hides no other.
    pub fn exhausted(&self) -> bool {
        self.exhausted
    }

    /// Whether some signatures were good, and not enough of them.
    pub fn too_few(&self) -> bool {
        !self.signed.is_empty()
    }

    /// The keys that made this signature, with the annotations that go with each.
    fn weigh(&mut self, material: &Material) -> Result<Good, Flaw> {
        let limits = self.terms.limits;
        if self.seen > limits.signatures {
            return Err(self.end(format!("more than {} signatures", limits.signatures)));
        }
        let candidate = material.read(self.image, &limits)?;
        let hinted = |index: &usize| {
            let key = &self.trust.keys[*index].key;
            usize::from(candidate.hint.as_ref().is_none_or(|hint| *hint != key.hint()))
        };
        let mut order: Vec<usize> = (0..self.trust.keys.len()).collect();
        if candidate.hint.is_some() {
            order.sort_by_key(hinted);
        }
        let mut lacking = None;
        let mut remarks = Vec::new();
        let mut found: Vec<usize> = Vec::new();
        let mut maker: Option<&Digest> = None;
        for index in order {
            let trusted = &self.trust.keys[index];
            let same_key = maker == Some(trusted.key.fingerprint());
            if maker.is_some() && !same_key {
                continue;
            }
            if !same_key {
                self.operations += trusted.key.operations();
                if self.operations > limits.operations {
                    return Err(self.end(format!("more than {} signature operations", limits.operations)));
                }
                if !trusted.key.verifies(&candidate.signed, &candidate.signature) {
                    continue;
                }
                maker = Some(trusted.key.fingerprint());
            }
            match self.accepted(trusted, &candidate) {
                Ok(told) => {
                    found.push(index);
                    remarks.extend(told);
                }
                Err(flaw) => lacking = Some(flaw),
            }
        }
        match (found.is_empty(), lacking) {
            (false, _) => Ok(Good { keys: found, name: candidate.name, remarks }),
            (true, Some(flaw)) => Err(flaw),
            (true, None) => {
                let count = self.trust.key_count();
                let whose =
                    if count == 1 { "the policy's key".to_owned() } else { format!("any of {count} keys") };
                Err(Flaw::new(Code::KeyMismatch, format!("not made by {whose}")))
            }
        }
    }

    /// Whether what a key has signed counts: its annotations, its time, its name. Where it does,
    /// what should be known of it.
    fn accepted(&self, trusted: &TrustedKey, candidate: &Candidate) -> Result<Vec<Flaw>, Flaw> {
        let lacking = trusted.annotations.iter().find(|(k, v)| candidate.annotations.get(*k) != Some(*v));
        if let Some((key, value)) = lacking {
            let detail = format!("the signed payload has no `{key}: {value}`");
            return Err(Flaw::new(Code::AnnotationMismatch, detail));
        }
        match (self.terms.name, &candidate.name) {
            (Some(naming), Some(name)) => {
                naming.allows(name, self.image).map_err(|why| Flaw::new(Code::NameMismatch, why))?;
            }
            (Some(naming), None) if naming.is_required() => {
                return Err(Flaw::new(Code::NoName, "it names no image"));
            }
            _ => {}
        }
        let unnamed = self.terms.name.is_some() && candidate.name.is_none();
        // That a clock which is behind calls a key too young says nothing of the key.
        let said = |flaw: &Flaw| !matches!(self.terms.time, Time::Behind(_)) || flaw.code != Code::KeyNotYet;
        let mut told: Vec<Flaw> = timely(trusted, self.terms.time).into_iter().filter(said).collect();
        if let Some(at) = told.iter().position(|flaw| self.terms.time.excludes(flaw.code)) {
            return Err(told.swap_remove(at));
        }
        told.extend(unnamed.then(|| Flaw::new(Code::NoName, "it names no image")));
        Ok(told)
    }

    fn end(&mut self, detail: String) -> Flaw {
        self.exhausted = true;
        Flaw::new(Code::LimitReached, detail)
    }

    /// Keys are counted by what they are, not by how often they are named or have signed.
    fn satisfied(&self, set: &Set) -> bool {
        let mut keys = BTreeSet::new();
        let mut sets = 0;
        for entry in &set.entries {
            match entry {
                Entry::Key(index) if self.signed.contains(index) => {
                    keys.insert(self.trust.keys[*index].key.fingerprint());
                }
                Entry::Set(inner) if self.satisfied(inner) => sets += 1,
                _ => {}
            }
        }
        keys.len() + sets >= set.count
    }

    fn fingerprint(&self, key: usize) -> String {
        self.trust.keys[key].key.fingerprint().to_string()
    }

    fn note(&mut self, located: &Located, code: Code, detail: String) {
        let artifact = format!("{} ({})", located.artifact, located.material.format());
        self.checks.push(Check::new(&located.at, artifact, code, detail));
    }
}

/// What there is to say of a key at this time.
fn timely(trusted: &TrustedKey, time: Time) -> Option<Flaw> {
    let (moment, period) = (time.moment()?, trusted.period);
    let key = trusted.shown();
    match (period.from, period.until) {
        (_, Some(until)) if moment >= until => {
            Some(Flaw::new(Code::KeyExpired, format!("key {key} was trusted until {until}")))
        }
        (Some(from), _) if moment < from => {
            Some(Flaw::new(Code::KeyNotYet, format!("key {key} is trusted from {from} on")))
        }
        (_, Some(until)) if until.duration_since(moment) <= TOLD_AHEAD => {
            Some(Flaw::new(Code::KeyEndsSoon, format!("key {key} is trusted until {until}")))
        }
        _ => None,
    }
}
