//! What is verified already: proofs that are remembered, and those that the evidence gives.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use countersign_clock::Clock;
use countersign_evidence::Store;
use countersign_reference::Digest;
use countersign_signature::{
    Judge, Located, Naming, Signatures, TOLD_AHEAD, Terms, Time, Trust, TrustError, Verified,
};
use countersign_verdict::{Attestors, Check, Code, Period, Question};
use jiff::{SignedDuration, Timestamp};

use crate::Settings;

/// No clock of a machine that runs this is right and shows less.
const RELEASED: &str = "2026-11-25T00:00:00Z";
/// How far the clocks of two machines may be apart.
const CLOCKS_APART: SignedDuration = SignedDuration::from_mins(5);
/// Proofs and parsed trusts that are remembered.
const MOST_REMEMBERED: usize = 10_000;

/// A digest that is verified, and by what.
#[derive(Clone, Debug)]
pub(crate) struct Proven {
    pub(crate) proof: Verified<Signatures>,
    /// The index whose signature it is, where that is not the digest's own.
    pub(crate) index: Option<Digest>,
    /// What should be known of it.
    pub(crate) remarks: Vec<Check>,
}

/// A proof by name would be found after the tag has moved, so it is by digest; who signed, and
/// under which name where names count, are part of what was proven.
type Key = (Digest, Digest, u64, Option<String>);

struct Remembered {
    proven: Proven,
    judged: Time,
    /// Whether the clock was behind.
    behind: bool,
}

/// What is verified already.
pub(crate) struct Proofs {
    trusts: Mutex<HashMap<Digest, Result<Arc<Trust>, TrustError>>>,
    remembered: Mutex<HashMap<Key, Remembered>>,
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    hits: AtomicU64,
}

/// What a question asks of signatures besides keys.
pub(crate) struct Asked {
    pub(crate) time: Time,
    /// What should be known of the clock.
    pub(crate) remark: Option<Check>,
    pub(crate) naming: Option<Naming>,
}

impl Asked {
    pub(crate) fn terms(&self, settings: &Settings) -> Terms<'_> {
        Terms { limits: settings.limits, time: self.time, name: self.naming.as_ref() }
    }
}

impl Proofs {
    pub(crate) fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>) -> Self {
        Self { trusts: Mutex::default(), remembered: Mutex::default(), store, clock, hits: AtomicU64::new(0) }
    }

    /// How often a proof was found in the evidence.
    pub(crate) fn evidence_hits(&self) -> u64 {
        self.hits.load(Ordering::Relaxed)
    }

    /// Attestors with their keys parsed.
    pub(crate) fn trust(&self, attestors: &Attestors) -> Result<Arc<Trust>, TrustError> {
        let mut trusts = lock(&self.trusts);
        if let Some(trust) = trusts.get(attestors.id()) {
            return trust.clone();
        }
        let trust = Trust::new(attestors).map(Arc::new);
        if trusts.len() >= MOST_REMEMBERED {
            trusts.clear();
        }
        trusts.insert(attestors.id().clone(), trust.clone());
        trust
    }

    /// What is asked of signatures at this moment. By a clock that is behind what some clock has
    /// shown, before NTP, a key of today would not be trusted yet: that is excused, and nothing else.
    pub(crate) fn asked(&self, question: &Question, trust: &Trust, settings: &Settings) -> Asked {
        let naming = settings.identity.clone();
        let naming = naming.map(|identity| Naming::new(question.image.clone(), identity));
        if !trust.is_timed() {
            return Asked { time: Time::Unjudged, remark: None, naming };
        }
        let now = self.clock.wall();
        let least = RELEASED.parse().ok().max(self.store.newest());
        if let Some(least) = least.filter(|least| now.checked_add(CLOCKS_APART).is_ok_and(|now| now < *least))
        {
            let detail = format!("the clock shows {now}, and {least} is past");
            let remark = Some(Check::new("", "clock", Code::ClockBehind, detail));
            let time = if question.any_age { Time::Told(now) } else { Time::Behind(now) };
            return Asked { time, remark, naming };
        }
        let time = if question.any_age { Time::Told(now) } else { Time::Judged(now) };
        Asked { time, remark: None, naming }
    }

    /// A proof that is remembered, or that the evidence gives when judged by the keys in force; for
    /// a digest that an index lists, the index's. Else what was found wrong with the evidence.
    pub(crate) fn known(
        &self,
        question: &Question,
        digest: &Digest,
        trust: &Trust,
        asked: &Asked,
        settings: &Settings,
    ) -> Result<Proven, Vec<Check>> {
        let key = key(question, digest, settings);
        if let Some(remembered) = lock(&self.remembered).get(&key)
            // What a clock that is behind has excused is not excused any more when it is set.
            && remembered.behind == asked.remark.is_some()
            && remembered.still_holds(asked.time)
        {
            return Ok(remembered.proven.clone());
        }
        let mut checks = Vec::new();
        let of_index = self.store.indexes_of(digest).into_iter().map(Some);
        for index in std::iter::once(None).chain(of_index) {
            let signed = index.as_ref().unwrap_or(digest);
            if index.is_some() && settings.revoked.contains(signed) {
                continue;
            }
            let mut judge = Judge::new(trust, signed, asked.terms(settings));
            for material in self.store.signatures(signed) {
                let (at, artifact) = ("evidence".to_owned(), "signature".to_owned());
                if let Some(proof) = judge.add(&Located { at, artifact, material }) {
                    self.hits.fetch_add(1, Ordering::Relaxed);
                    let remarks = remarks(judge.checks(), asked);
                    let proven = Proven { proof, index: index.clone(), remarks };
                    self.remember(question, digest, &proven, asked, settings);
                    return Ok(proven);
                }
            }
            checks.extend(judge.checks().iter().cloned());
        }
        Err(checks)
    }

    pub(crate) fn remember(
        &self,
        question: &Question,
        digest: &Digest,
        proven: &Proven,
        asked: &Asked,
        settings: &Settings,
    ) {
        let mut remembered = lock(&self.remembered);
        if remembered.len() >= MOST_REMEMBERED {
            remembered.clear();
        }
        let behind = asked.remark.is_some();
        let remember = Remembered { proven: proven.clone(), judged: asked.time, behind };
        remembered.insert(key(question, digest, settings), remember);
    }
}

impl Remembered {
    /// Whether judging anew would come to the same, with the same remarks.
    fn still_holds(&self, now: Time) -> bool {
        let period = self.proven.proof.get().period;
        if period == Period::default() {
            return true;
        }
        let (Some(now), Some(judged)) = (now.moment(), self.judged.moment()) else {
            return now == self.judged;
        };
        let told =
            |moment: Timestamp| period.until.is_some_and(|until| until.duration_since(moment) <= TOLD_AHEAD);
        period.has(now) && period.has(judged) && told(now) == told(judged)
    }
}

/// What should be known of a proof.
pub(crate) fn remarks(checks: &[Check], asked: &Asked) -> Vec<Check> {
    let worth = |check: &&Check| check.code.is_warning() || check.code == Code::NoName;
    checks.iter().filter(worth).chain(&asked.remark).cloned().collect()
}

fn key(question: &Question, digest: &Digest, settings: &Settings) -> Key {
    let name = settings.identity.is_some().then(|| {
        let image = &question.image;
        format!("{}/{}:{}", image.host(), image.path(), image.effective_tag().unwrap_or_default())
    });
    (digest.clone(), question.attestors.id().clone(), settings.trust_generation, name)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
