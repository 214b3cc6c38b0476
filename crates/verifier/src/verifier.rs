//! The verifier.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use countersign_clock::Clock;
use countersign_evidence::{Origin, Store, TagRecord};
use countersign_reference::{Digest, Reference};
use countersign_registry::{Health, Limits as RegistryLimits, Timing};
use countersign_signature::{Judge, Limits, Located, Signatures, Trust, TrustError, Verified};
use countersign_verdict::{Attestors, Check, Code, Outcome, Proof, Question, Verdict};
use tokio::time::Instant;

use crate::find::{Found, find};
use crate::flight::Flights;
use crate::resolve::{Resolved, resolve};
use crate::route::{Route, Routes, Rules, SetupError, SourceLoader};

/// How long a definite negative answer is held.
pub const HELD_NEGATIVE: Duration = Duration::from_secs(10);
/// How long a flight may take, whoever waits for it or does not.
const FLIGHT: Duration = Duration::from_secs(30);
/// Proofs and parsed trusts that are remembered.
const MOST_REMEMBERED: usize = 10_000;

/// What a verifier goes by, besides mirror rules.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How long the digest of a tag is reused before the registry is asked again.
    pub tag_freshness: Duration,
    /// How old a tag record may be when no endpoint answers.
    pub stale: Duration,
    /// Whether every endpoint has to agree about a tag, as nothing will be pinned.
    pub compare_endpoints: bool,
    /// Digests that are never verified.
    pub revoked: BTreeSet<Digest>,
    /// Raised when trust changes: what was remembered before counts no more.
    pub trust_generation: u64,
    /// How much of signatures is looked at.
    pub limits: Limits,
    /// How much of a registry's answers is taken in.
    pub registry_limits: RegistryLimits,
    /// How long requests may take.
    pub timing: Timing,
}

impl Default for Settings {
    /// The defaults of a Site; they trust nobody, since trust is in the question.
    fn default() -> Self {
        Self {
            tag_freshness: Duration::from_secs(10),
            stale: Duration::from_hours(168),
            compare_endpoints: false,
            revoked: BTreeSet::new(),
            trust_generation: 0,
            limits: Limits::DEFAULT,
            registry_limits: RegistryLimits::DEFAULT,
            timing: Timing::DEFAULT,
        }
    }
}

/// What a flight for signatures is about. Signatures live in repositories: the same digest may
/// be unsigned in another one, so a negative answer is only for this one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct SearchKey {
    host: String,

    repository: String,
    signatures: Option<Reference>,
    digest: Digest,
    attestors: Digest,
    generation: u64,
}

/// What a verdict is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// It counts: what was verified is kept.
    Decision,
    /// A dry run, of which nothing is kept: no proof, no tag.
    DryRun,
}

type ProofKey = (Digest, Digest, u64);

/// The digest of an image, and the endpoint that has it.
struct Resolution {
    digest: Digest,
    at: usize,
    checks: Vec<Check>,
}

/// Answers questions about images.
pub struct Verifier {
    settings: Settings,
    routes: Routes,
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    trusts: Mutex<HashMap<Digest, Result<Arc<Trust>, TrustError>>>,
    proofs: Mutex<HashMap<ProofKey, Verified<Signatures>>>,
    /// By the host as written, since rules are found by it.
    tags: Flights<Reference, Resolved>,
    searches: Flights<SearchKey, Found>,
    hits: AtomicU64,
}

impl Verifier {
    /// A verifier that follows these rules.
    pub fn new(
        rules: Rules,
        settings: Settings,
        load: Arc<SourceLoader>,
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
    ) -> Arc<Self> {
        let routes = Routes::new(rules, load, settings.registry_limits, settings.timing, Arc::clone(&clock));
        Arc::new(Self {
            settings,
            routes,
            store,
            clock,
            trusts: Mutex::default(),
            proofs: Mutex::default(),
            tags: Flights::default(),
            searches: Flights::default(),
            hits: AtomicU64::new(0),
        })
    }

    /// Makes the endpoints of a Site, so that what is wrong with a CA is known at the start.
    ///
    /// # Errors
    ///
    /// A CA or a rule cannot be read or used.
    pub fn prepare(&self, registry: &str) -> Result<(), SetupError> {
        match Reference::from_parts(registry, "x", None, None) {
            Ok(image) => self.routes.of(&image).map(|_| ()),
            Err(_) => Ok(()),
        }
    }

    /// How each endpoint does that was asked or is named by the Site; several hosts may lead to one.
    pub fn endpoints(&self) -> Vec<Health> {
        self.routes.health()
    }

    /// How often a proof was found in the evidence.
    pub fn evidence_hits(&self) -> u64 {
        self.hits.load(Ordering::Relaxed)
    }

    /// The verdict, at the latest at the deadline.
    pub async fn verify(
        self: &Arc<Self>,
        question: &Question,
        deadline: Instant,
        purpose: Purpose,
    ) -> Verdict {
        let answered = AtomicBool::new(false);
        match tokio::time::timeout_at(deadline, self.decide(question, purpose, &answered)).await {
            Ok(verdict) => verdict,
            Err(_) => {
                let check = Check::new("", "", Code::Deadline, "the time for this request was over");
                // A registry that has said what the tag is of is not away.
                if answered.load(Ordering::Relaxed) {
                    return self.failed(question, Outcome::Undecided, vec![check]);
                }
                self.stale(question, vec![check], Outcome::Undecided)
            }
        }
    }

    /// The verdict if it can be given without the network.
    pub fn at_hand(&self, question: &Question) -> Option<Verdict> {
        let trust = match self.trust(&question.attestors) {
            Ok(trust) => trust,
            Err(verdict) => return Some(refused_trust(question, &verdict)),
        };
        let now = self.clock.monotonic();
        let (digest, at) = match question.image.digest() {
            Some(digest) => (digest.clone(), None),
            None => match self.tags.held(&question.image, now)? {
                Resolved::Found { digest, at, .. } => (digest, Some(at)),
                Resolved::Failed { outcome, checks } => return Some(self.failed(question, outcome, checks)),
            },
        };
        if let Some(verdict) = self.revoked(question, &digest) {
            return Some(verdict);
        }
        if let Some(proof) = self.known(question, &digest, &trust) {
            return Some(verified(question, &proof, None, self.endpoint_name(question, at), Vec::new()));
        }
        match self.searches.held(&self.search_key(question, &digest), now)? {
            Found::Verified { proof, checks } => {
                Some(verified(question, &proof, None, self.endpoint_name(question, at), checks))
            }
            Found::Not { outcome, checks } => {
                Some(Verdict { digest: Some(digest), ..self.failed(question, outcome, checks) })
            }
        }
    }

    async fn decide(
        self: &Arc<Self>,
        question: &Question,
        purpose: Purpose,
        answered: &AtomicBool,
    ) -> Verdict {
        let trust = match self.trust(&question.attestors) {
            Ok(trust) => trust,
            Err(error) => return refused_trust(question, &error),
        };
        if let Some(digest) = question.image.digest() {
            if let Some(verdict) = self.revoked(question, digest) {
                return verdict;
            }
            if let Some(proof) = self.known(question, digest, &trust) {
                return verified(question, &proof, None, None, Vec::new());
            }
        }
        let route = match self.routes.of(&question.image) {
            Ok(route) if !route.endpoints.is_empty() => route,
            Ok(_) => {
                let detail = format!("nothing names an endpoint for `{}`", question.image.domain());
                return Verdict::because(
                    question.image.clone(),
                    Outcome::Refused,
                    Code::HostNotListed,
                    detail,
                );
            }
            Err(error) => {
                return Verdict::because(
                    question.image.clone(),
                    Outcome::Refused,
                    Code::Malformed,
                    error.to_string(),
                );
            }
        };
        match self.resolved(question, &route, purpose).await {
            Resolved::Failed { outcome, checks } if outcome == Outcome::Undecided => {
                self.stale(question, checks, outcome)
            }
            Resolved::Failed { outcome, checks } => self.failed(question, outcome, checks),
            Resolved::Found { digest, at, checks } => {
                answered.store(true, Ordering::Relaxed);
                let found = Resolution { digest, at, checks };
                let verdict = self.with_digest(question, &route, found, trust, purpose).await;
                if let (Some(proof), None, Some(_)) =
                    (verdict.proof(), question.image.digest(), question.image.effective_tag())
                    && purpose == Purpose::Decision
                {
                    let record = TagRecord {
                        digest: proof.digest.clone(),
                        confirmed: self.clock.wall(),
                        origin: Origin::Registry,
                    };
                    self.store.record_tag(&question.image, record);
                }
                verdict
            }
        }
    }

    async fn with_digest(
        self: &Arc<Self>,
        question: &Question,
        route: &Arc<Route>,
        Resolution { digest, at, mut checks }: Resolution,
        trust: Arc<Trust>,
        purpose: Purpose,
    ) -> Verdict {
        let endpoint = Some(route.endpoints[at].endpoint.url().to_owned());
        if let Some(verdict) = self.revoked(question, &digest) {
            return Verdict { endpoint, ..verdict };
        }
        if let Some(proof) = self.known(question, &digest, &trust) {
            return verified(question, &proof, None, endpoint, checks);
        }
        // A policy's own repository has endpoints of its own, and the first of them speaks for it.
        let (search_route, serving, repository) = match &question.repository {
            None => (Arc::clone(route), at, question.image.path().to_owned()),
            Some(repository) => match self.routes.of(repository.reference()) {
                Ok(route) if !route.endpoints.is_empty() => {
                    (route, 0, repository.reference().path().to_owned())
                }
                _ => {
                    let detail = format!(
                        "nothing names an endpoint for the signature repository `{}`",
                        repository.reference()
                    );
                    return Verdict::because(
                        question.image.clone(),
                        Outcome::Refused,
                        Code::HostNotListed,
                        detail,
                    );
                }
            },
        };
        let (limits, now) = (self.settings.limits, self.clock.monotonic());
        let wanted = digest.clone();
        let work = async move {
            let search = find(&search_route, serving, &repository, &wanted, &trust, limits, now);
            let over = || Found::Not { outcome: Outcome::Undecided, checks: vec![too_long()] };
            tokio::time::timeout(FLIGHT, search).await.unwrap_or_else(|_| over())
        };
        let hold = move |found: &Found| match found {
            Found::Not { outcome, .. } if !outcome.is_undecided() => Some(now + HELD_NEGATIVE),
            _ => None,
        };
        match self.searches.run(self.search_key(question, &digest), now, work, hold).await {
            Some(Found::Verified { proof, checks: more }) => {
                if purpose == Purpose::Decision {
                    self.store.keep(&proof);
                    self.remember(question, &proof);
                }
                checks.extend(more);
                verified(question, &proof, None, endpoint, checks)
            }
            Some(Found::Not { outcome, checks: more }) => {
                checks.extend(more);
                Verdict { digest: Some(digest), endpoint, ..self.failed(question, outcome, checks) }
            }
            None => internal(question),
        }
    }

    /// The tag's digest: a fresh one, that of a flight under way, or the endpoints' answer.
    async fn resolved(&self, question: &Question, route: &Arc<Route>, purpose: Purpose) -> Resolved {
        let (now, freshness) = (self.clock.monotonic(), self.settings.tag_freshness);
        let (image, route, compare) =
            (question.image.clone(), Arc::clone(route), self.settings.compare_endpoints);
        let work = async move {
            let over = || Resolved::Failed { outcome: Outcome::Undecided, checks: vec![too_long()] };
            tokio::time::timeout(FLIGHT, resolve(&route, &image, compare)).await.unwrap_or_else(|_| over())
        };
        let hold = move |resolved: &Resolved| match resolved {
            _ if purpose == Purpose::DryRun => None,
            Resolved::Found { .. } => Some(now + freshness),
            Resolved::Failed { outcome, .. } if !outcome.is_undecided() => {
                Some(now + HELD_NEGATIVE.min(freshness))
            }
            Resolved::Failed { .. } => None,
        };
        let found = self.tags.run(question.image.clone(), now, work, hold).await;
        found.unwrap_or_else(|| Resolved::Failed {
            outcome: Outcome::Refused,
            checks: internal(question).checks,
        })
    }

    /// During an outage: the digest last verified for this very name and tag, if it is not too
    /// old and still verifies by the keys in force.
    fn stale(&self, question: &Question, mut checks: Vec<Check>, outcome: Outcome) -> Verdict {
        let now = self.clock.wall();
        let record =
            question.image.digest().is_none().then(|| self.store.tag(&question.image, now)).flatten();
        if let (Some(record), Ok(trust)) = (record, self.trust(&question.attestors)) {
            let age = now.duration_since(record.confirmed);
            let age = Duration::try_from(age).unwrap_or_default();
            let ageless = question.any_age || record.origin == Origin::Bundle;
            let good =
                (ageless || age <= self.settings.stale) && !self.settings.revoked.contains(&record.digest);
            if let Some(proof) = good.then(|| self.known(question, &record.digest, &trust)).flatten() {
                let detail =
                    format!("no endpoint answers: the tag was last confirmed at {}", record.confirmed);
                checks.push(Check::new("evidence", "tag record", Code::Stale, detail));
                return verified(question, &proof, Some(record.confirmed), None, checks);
            }
        }
        self.failed(question, outcome, checks)
    }

    #[expect(clippy::unused_self, reason = "reads like the other ways out")]
    fn failed(&self, question: &Question, outcome: Outcome, checks: Vec<Check>) -> Verdict {
        let digest = question.image.digest().cloned();
        Verdict { image: question.image.clone(), outcome, digest, endpoint: None, checks }
    }

    fn revoked(&self, question: &Question, digest: &Digest) -> Option<Verdict> {
        self.settings.revoked.contains(digest).then(|| {
            let verdict = Verdict::because(
                question.image.clone(),
                Outcome::Refused,
                Code::Revoked,
                format!("{digest} is revoked by the site"),
            );
            Verdict { digest: Some(digest.clone()), ..verdict }
        })
    }

    /// A proof that is remembered, or that the evidence gives when judged by the keys in force.
    fn known(&self, question: &Question, digest: &Digest, trust: &Trust) -> Option<Verified<Signatures>> {
        if let Some(proof) = lock(&self.proofs).get(&self.proof_key(question, digest)) {
            return Some(proof.clone());
        }
        let mut judge = Judge::new(trust, digest, self.settings.limits);
        for material in self.store.signatures(digest) {
            let located = Located { at: "evidence".to_owned(), artifact: "signature".to_owned(), material };
            if let Some(proof) = judge.add(&located) {
                self.hits.fetch_add(1, Ordering::Relaxed);
                self.remember(question, &proof);
                return Some(proof);
            }
        }
        None
    }

    fn remember(&self, question: &Question, proof: &Verified<Signatures>) {
        let mut proofs = lock(&self.proofs);
        if proofs.len() >= MOST_REMEMBERED {
            proofs.clear();
        }
        proofs.insert(self.proof_key(question, &proof.get().digest), proof.clone());
    }

    fn proof_key(&self, question: &Question, digest: &Digest) -> ProofKey {
        (digest.clone(), question.attestors.id().clone(), self.settings.trust_generation)
    }

    fn search_key(&self, question: &Question, digest: &Digest) -> SearchKey {
        SearchKey {
            host: question.image.domain().to_owned(),
            repository: question.image.path().to_owned(),
            signatures: question.repository.as_ref().map(|repository| repository.reference().clone()),
            digest: digest.clone(),
            attestors: question.attestors.id().clone(),
            generation: self.settings.trust_generation,
        }
    }

    fn trust(&self, attestors: &Attestors) -> Result<Arc<Trust>, TrustError> {
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

    fn endpoint_name(&self, question: &Question, at: Option<usize>) -> Option<String> {
        let route = self.routes.of(&question.image).ok()?;
        Some(route.endpoints.get(at?)?.endpoint.url().to_owned())
    }
}

fn refused_trust(question: &Question, error: &TrustError) -> Verdict {
    let code = if *error == TrustError::NoKeys { Code::NoKeys } else { Code::Malformed };
    Verdict::because(question.image.clone(), Outcome::Refused, code, error.to_string())
}

fn too_long() -> Check {
    Check::new("", "", Code::Deadline, format!("no end within {} s", FLIGHT.as_secs()))
}

fn internal(question: &Question) -> Verdict {
    Verdict::because(
        question.image.clone(),
        Outcome::Refused,
        Code::Internal,
        "verification failed unexpectedly",
    )
}

fn verified(
    question: &Question,
    proof: &Verified<Signatures>,
    stale_since: Option<jiff::Timestamp>,
    endpoint: Option<String>,
    checks: Vec<Check>,
) -> Verdict {
    let signatures = proof.get();
    let proof = Proof {
        digest: signatures.digest.clone(),
        keys: signatures.keys.clone(),
        format: signatures.format,
        source: signatures.source.clone(),
        stale_since,
    };
    Verdict {
        image: question.image.clone(),
        digest: Some(signatures.digest.clone()),
        outcome: Outcome::Verified(proof),
        endpoint,
        checks,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
