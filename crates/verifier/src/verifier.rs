//! The verifier.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use countersign_clock::Clock;
use countersign_evidence::{Index, Origin, Store, TagRecord};
use countersign_reference::{Digest, Reference};
use countersign_registry::{Budget, Health};
use countersign_signature::{Trust, TrustError};
use countersign_verdict::{Check, Code, Outcome, Question, Verdict};
use tokio::time::Instant;

use crate::find::{Found, find};
use crate::flight::Flights;
use crate::proofs::{Asked, Proofs, Proven, remarks};
use crate::resolve::{Resolved, resolve};
use crate::revocation::Revocation;
use crate::route::{Route, Routes, Rules, SetupError, SourceLoader, Who};
use crate::verdicts::{failed, internal, refused_trust, too_long, verified};
use crate::{Settings, who};

/// How long a definite negative answer is held.
pub const HELD_NEGATIVE: Duration = Duration::from_secs(10);

/// What a flight for signatures is about. Signatures live in repositories: the same digest may
/// be unsigned in another one, so a negative answer is only for this one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct SearchKey {
    image: Reference,
    tag: Option<String>,
    signatures: Option<Reference>,
    digest: Digest,
    attestors: Digest,
    generation: u64,
    /// Whether keys whose time is over count.
    any_age: bool,
    who: Option<Digest>,
}

/// What a verdict is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// It counts: what was verified is kept.
    Decision,
    /// A dry run, of which nothing is kept: no proof, no tag.
    DryRun,
}

/// The digest of an image, and the endpoint that has it.
struct Resolution {
    digest: Digest,
    at: usize,
    index: Option<Arc<Index>>,
    checks: Vec<Check>,
}

/// One question under way.
struct Inquiry<'a> {
    question: &'a Question,
    trust: Arc<Trust>,
    asked: Asked,
    route: Arc<Route>,
    /// In whose name endpoints are asked.
    who: Option<Digest>,
    purpose: Purpose,
}

/// Answers questions about images.
pub struct Verifier {
    settings: Arc<Settings>,
    routes: Routes,
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    proofs: Proofs,
    /// By the host as written, since rules are found by it.
    tags: Flights<(Reference, Option<Digest>), Resolved>,
    searches: Flights<SearchKey, Found>,
    revocation: Revocation,
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
        let settings = Arc::new(settings);
        let revocation = Revocation::new(Arc::clone(&settings), Arc::clone(&store), Arc::clone(&clock));
        Arc::new(Self {
            settings,
            routes,
            proofs: Proofs::new(Arc::clone(&store), Arc::clone(&clock)),
            store,
            clock,
            tags: Flights::default(),
            searches: Flights::default(),
            revocation,
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
        self.proofs.evidence_hits()
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
                    return failed(question, Outcome::Undecided, vec![check]);
                }
                self.stale(question, vec![check])
            }
        }
    }

    /// The verdict if it can be given without the network.
    pub fn at_hand(&self, question: &Question) -> Option<Verdict> {
        let (trust, asked) = match self.terms(question) {
            Ok(terms) => terms,
            Err(error) => return Some(refused_trust(question, &error)),
        };
        let now = self.clock.monotonic();
        let (digest, at, index) = match question.image.digest() {
            Some(digest) => (digest.clone(), None, None),
            None => match self.tags.held(&(question.image.clone(), None), now)? {
                Resolved::Found { digest, at, index, .. } => (digest, Some(at), index),
                Resolved::Failed { outcome, checks } => return Some(failed(question, outcome, checks)),
            },
        };
        if let Some(verdict) = self.revocation.refuses(question, &digest, index.as_deref()) {
            return Some(verdict);
        }
        if let Ok(proven) = self.known(question, &digest, &trust, &asked) {
            if at.is_none() && !self.revocation.knows(&digest) {
                return None;
            }
            return Some(verified(question, &digest, &proven, self.endpoint_name(question, at), Vec::new()));
        }
        // The index of its tag may list a digest that is not signed itself.
        if question.image.digest().is_some() && question.image.tag().is_some() {
            return None;
        }
        match self.searches.held(&self.search_key(question, &digest, None), now)? {
            Found::Not { outcome, checks } => {
                Some(Verdict { digest: Some(digest), ..failed(question, outcome, checks) })
            }
            Found::Verified { .. } => None,
        }
    }

    /// Keys that are judged by, and what is asked besides.
    fn terms(&self, question: &Question) -> Result<(Arc<Trust>, Asked), TrustError> {
        let trust = self.proofs.trust(&question.attestors)?;
        let asked = self.proofs.asked(question, &trust, &self.settings);
        Ok((trust, asked))
    }

    fn known(
        &self,
        question: &Question,
        digest: &Digest,
        trust: &Trust,
        asked: &Asked,
    ) -> Result<Proven, Vec<Check>> {
        self.proofs.known(question, digest, trust, asked, &self.settings)
    }

    async fn decide(
        self: &Arc<Self>,
        question: &Question,
        purpose: Purpose,
        answered: &AtomicBool,
    ) -> Verdict {
        let (trust, asked) = match self.terms(question) {
            Ok(terms) => terms,
            Err(error) => return refused_trust(question, &error),
        };
        let mut known = None;
        if let Some(digest) = question.image.digest() {
            if let Some(verdict) = self.revocation.refuses(question, digest, None) {
                return verdict;
            }
            known = self.known(question, digest, &trust, &asked).ok().map(|proven| (digest, proven));
            if let Some((digest, proven)) = known.as_ref().filter(|(digest, _)| self.revocation.knows(digest))
            {
                return verified(question, digest, proven, None, Vec::new());
            }
        }
        let refused = |code, detail| Verdict::because(question.image.clone(), Outcome::Refused, code, detail);
        let route = match self.routes.of(&question.image) {
            Ok(route) if !route.endpoints.is_empty() => route,
            // Who is asked by nobody, or cannot be, has nothing to show: the proof stands.
            Ok(_) | Err(_) if known.is_some() => {
                let Some((digest, proven)) = known else { return internal(question) };
                return verified(question, digest, &proven, None, Vec::new());
            }
            Ok(_) => {
                let detail = format!("nothing names an endpoint for `{}`", question.image.domain());
                return refused(Code::HostNotListed, detail);
            }
            Err(error) => return refused(Code::Malformed, error.to_string()),
        };
        let mut inquiry = Inquiry { question, trust, asked, route, who: None, purpose };
        let known = known.as_ref().map(|(digest, proven)| (*digest, proven));
        let verdict = self.answer(&inquiry, known, answered).await;
        let denied = |check: &Check| check.code == Code::Unauthorized;
        if verdict.proof().is_some() || !verdict.checks.iter().any(denied) {
            return verdict;
        }
        // An endpoint lets nobody look, and the node comes with something.
        match self.on_behalf(question).await {
            Ok(None) => verdict,
            Ok(Some((who, route))) => {
                inquiry.who = Some(who.id);
                inquiry.route = route;
                self.answer(&inquiry, known, answered).await
            }
            Err(check) => {
                let mut verdict = verdict;
                verdict.checks.insert(0, check);
                verdict
            }
        }
    }

    /// From the endpoints. What is proven and may be an index is only looked at, once, for what it
    /// lists; where nobody has it to show, or nobody answers, the proof stands.
    async fn answer(
        self: &Arc<Self>,
        inquiry: &Inquiry<'_>,
        known: Option<(&Digest, &Proven)>,
        answered: &AtomicBool,
    ) -> Verdict {
        let question = inquiry.question;
        let Some((digest, proven)) = known else { return self.inquire(inquiry, answered).await };
        match self.resolved(inquiry, &question.image).await {
            Resolved::Found { index, checks, .. } => {
                if let Some(verdict) = self.revocation.refuses(question, digest, index.as_deref()) {
                    return verdict;
                }
                let small = index.as_ref().filter(|index| index.is_small());
                if inquiry.purpose == Purpose::Decision && proven.index.is_none() && small.is_some() {
                    self.store.keep(&proven.proof, small);
                }
                verified(question, digest, proven, None, checks)
            }
            Resolved::Failed { outcome: Outcome::Undecided | Outcome::NotFound, checks } => {
                self.revocation.is_unseen(digest);
                verified(question, digest, proven, None, checks)
            }
            Resolved::Failed { outcome, checks } => failed(question, outcome, checks),
        }
    }

    /// The route for whoever the pod's node would pull as.
    async fn on_behalf(&self, question: &Question) -> Result<Option<(Who, Arc<Route>)>, Check> {
        let (Some(reader), Some(secrets)) = (&self.settings.pull_secrets, &question.pull_secrets) else {
            return Ok(None);
        };
        let Some(who) = who::read(&**reader, secrets).await? else { return Ok(None) };
        let route = self.routes.on_behalf(&question.image, &who);
        let route = route.map_err(|error| Check::new("", "", Code::Malformed, error.to_string()))?;
        Ok(route.map(|route| (who, route)))
    }

    async fn inquire(self: &Arc<Self>, inquiry: &Inquiry<'_>, answered: &AtomicBool) -> Verdict {
        let question = inquiry.question;
        match self.resolved(inquiry, &question.image).await {
            Resolved::Failed { outcome: Outcome::Undecided, checks } => self.stale(question, checks),
            Resolved::Failed { outcome, checks } => failed(question, outcome, checks),
            Resolved::Found { digest, at, index, checks } => {
                answered.store(true, Ordering::Relaxed);
                let verdict = self.with_digest(inquiry, Resolution { digest, at, index, checks }).await;
                if let (Some(proof), None, Some(_)) =
                    (verdict.proof(), question.image.digest(), question.image.effective_tag())
                    && inquiry.purpose == Purpose::Decision
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

    async fn with_digest(self: &Arc<Self>, inquiry: &Inquiry<'_>, resolution: Resolution) -> Verdict {
        let Resolution { digest, at, index, mut checks } = resolution;
        let question = inquiry.question;
        let endpoint = Some(inquiry.route.endpoints[at].endpoint.url().to_owned());
        if let Some(verdict) = self.revocation.refuses(question, &digest, index.as_deref()) {
            return Verdict { endpoint, ..verdict };
        }
        if let Ok(proven) = self.known(question, &digest, &inquiry.trust, &inquiry.asked) {
            return verified(question, &digest, &proven, endpoint, checks);
        }
        let not = match self.search(inquiry, &digest, at, index.as_ref()).await {
            Ok((proven, more)) => {
                self.remember(inquiry, &digest, &proven);
                checks.extend(more);
                return verified(question, &digest, &proven, endpoint, checks);
            }
            Err(verdict) => verdict,
        };
        let not = match self.listed(inquiry, &digest, not).await {
            Ok((proven, more)) => {
                self.remember(inquiry, &digest, &proven);
                checks.extend(more);
                return verified(question, &digest, &proven, endpoint, checks);
            }
            Err(verdict) => verdict,
        };
        checks.extend(not.checks);
        Verdict { digest: Some(digest), endpoint, checks, ..not }
    }

    /// What makes a digest verified that is not signed itself: the index that its tag stands for is,
    /// and lists it.
    async fn listed(
        self: &Arc<Self>,
        inquiry: &Inquiry<'_>,
        digest: &Digest,
        mut not: Verdict,
    ) -> Result<(Proven, Vec<Check>), Verdict> {
        let image = &inquiry.question.image;
        if image.digest().is_none()
            || image.tag().is_none()
            || !matches!(not.outcome, Outcome::Unsigned | Outcome::Rejected)
        {
            return Err(not);
        }
        let (index, at) = match self.resolved(inquiry, &image.clone().without_digest()).await {
            Resolved::Found { index: Some(index), at, .. } if index.digest != *digest => (index, at),
            Resolved::Found { .. } => return Err(not),
            Resolved::Failed { outcome, checks } => {
                // Whether the tag's index lists it is not known then.
                if outcome.is_undecided() {
                    not.outcome = outcome;
                }
                not.checks.extend(checks);
                return Err(not);
            }
        };
        let at_endpoint = inquiry.route.endpoints[at].endpoint.url();
        let artifact = format!("index {}", countersign_verdict::text::shortened(&index.digest));
        if !index.lists.contains(digest) {
            let detail = format!("the tag is of {}, which does not list {digest}", index.digest);
            not.checks.push(Check::new(at_endpoint, artifact, Code::ForeignManifest, detail));
            return Err(not);
        }
        // What else it lists, a node does not take.
        if let Some(verdict) = self.revocation.refuses_itself(inquiry.question, &index.digest) {
            return Err(verdict);
        }
        let of_index = match self.known(inquiry.question, &index.digest, &inquiry.trust, &inquiry.asked) {
            Ok(proven) => Ok((proven, Vec::new())),
            Err(_) => self.search(inquiry, &index.digest, at, Some(&index)).await,
        };
        match of_index {
            Ok((proven, mut checks)) => {
                let detail = format!("it lists {digest}");
                checks.push(Check::new(at_endpoint, artifact, Code::ListedByIndex, detail));
                Ok((Proven { index: Some(index.digest.clone()), ..proven }, checks))
            }
            Err(verdict) => {
                not.checks.extend(verdict.checks);
                if verdict.outcome != Outcome::Unsigned {
                    not.outcome = verdict.outcome;
                }
                Err(not)
            }
        }
    }

    /// Signatures of a digest, and the verdict where none is enough.
    async fn search(
        self: &Arc<Self>,
        inquiry: &Inquiry<'_>,
        digest: &Digest,
        at: usize,
        index: Option<&Arc<Index>>,
    ) -> Result<(Proven, Vec<Check>), Verdict> {
        let question = inquiry.question;
        // A policy's own repository has endpoints of its own, and the first of them speaks for it.
        let (route, serving, repository) = match &question.repository {
            None => (Arc::clone(&inquiry.route), at, question.image.path().to_owned()),
            Some(repository) => match self.routes.of(repository.reference()) {
                Ok(route) if !route.endpoints.is_empty() => {
                    (route, 0, repository.reference().path().to_owned())
                }
                _ => {
                    let detail = format!(
                        "nothing names an endpoint for the signature repository `{}`",
                        repository.reference()
                    );
                    let image = question.image.clone();
                    return Err(Verdict::because(image, Outcome::Refused, Code::HostNotListed, detail));
                }
            },
        };
        let now = self.clock.monotonic();
        let key = self.search_key(question, digest, inquiry.who.clone());
        let (trust, settings, wanted) =
            (Arc::clone(&inquiry.trust), Arc::clone(&self.settings), digest.clone());
        let asked = self.proofs.asked(question, &trust, &settings);
        // A flight's own, as others may wait for it who have asked for less until now.
        let budget = Budget::new(settings.registry_limits);
        let work = Box::pin(async move {
            let terms = asked.terms(&settings);
            let search = find(&route, serving, &repository, &wanted, &trust, terms, now);
            let over =
                || Found::Not { outcome: Outcome::Undecided, checks: vec![too_long(settings.image_time)] };
            tokio::time::timeout(settings.image_time, budget.within(search)).await.unwrap_or_else(|_| over())
        });
        let hold = move |found: &Found| match found {
            Found::Not { outcome, .. } if !outcome.is_undecided() => Some(now + HELD_NEGATIVE),
            _ => None,
        };
        match self.searches.run(key, now, work, hold).await {
            Some(Found::Verified { proof, checks }) => {
                if inquiry.purpose == Purpose::Decision {
                    self.store.keep(&proof, index.filter(|index| index.is_small()));
                }
                let remarks = remarks(&checks, &inquiry.asked);
                let checks = checks.into_iter().filter(|check| !remarks.contains(check)).collect();
                Ok((Proven { proof, index: None, remarks }, checks))
            }
            Some(Found::Not { outcome, checks }) => Err(failed(question, outcome, checks)),
            None => Err(internal(question)),
        }
    }

    fn remember(&self, inquiry: &Inquiry<'_>, digest: &Digest, proven: &Proven) {
        if inquiry.purpose == Purpose::Decision {
            self.proofs.remember(inquiry.question, digest, proven, &inquiry.asked, &self.settings);
        }
    }

    /// The tag's digest: a fresh one, that of a flight under way, or the endpoints' answer.
    async fn resolved(&self, inquiry: &Inquiry<'_>, image: &Reference) -> Resolved {
        let (now, freshness) = (self.clock.monotonic(), self.settings.tag_freshness);
        let (route, compare) = (Arc::clone(&inquiry.route), self.settings.compare_endpoints);
        let budget = Budget::new(self.settings.registry_limits);
        let (most, wanted) = (self.settings.image_time, image.clone());
        let work = Box::pin(async move {
            let over = || Resolved::Failed { outcome: Outcome::Undecided, checks: vec![too_long(most)] };
            let resolve = budget.within(resolve(&route, &wanted, compare));
            tokio::time::timeout(most, resolve).await.unwrap_or_else(|_| over())
        });
        let purpose = inquiry.purpose;
        let hold = move |resolved: &Resolved| match resolved {
            _ if purpose == Purpose::DryRun => None,
            Resolved::Found { .. } => Some(now + freshness),
            Resolved::Failed { outcome, .. } if !outcome.is_undecided() => {
                Some(now + HELD_NEGATIVE.min(freshness))
            }
            Resolved::Failed { .. } => None,
        };
        let found = self.tags.run((image.clone(), inquiry.who.clone()), now, work, hold).await;
        let found = found.unwrap_or_else(|| Resolved::Failed {
            outcome: Outcome::Refused,
            checks: internal(inquiry.question).checks,
        });
        if let Resolved::Found { digest, index, .. } = &found {
            self.revocation.saw(digest, index.as_deref());
        }
        found
    }

    /// During an outage: the digest last verified for this very name and tag, if it is not too
    /// old and still verifies by the keys in force; else what is known of a digest that was asked for.
    fn stale(&self, question: &Question, mut checks: Vec<Check>) -> Verdict {
        let now = self.clock.wall();
        let undecided = |checks| failed(question, Outcome::Undecided, checks);
        let Ok((trust, asked)) = self.terms(question) else { return undecided(checks) };
        if let Some(digest) = question.image.digest() {
            // That nothing of it counts is worth a word: a key may have gone, or its time be over.
            return match self.known(question, digest, &trust, &asked) {
                Ok(proven) => {
                    self.revocation.is_unseen(digest);
                    verified(question, digest, &proven, None, checks)
                }
                Err(more) => {
                    checks.extend(more);
                    undecided(checks)
                }
            };
        }
        let Some(record) = self.store.tag(&question.image, now) else { return undecided(checks) };
        let age = Duration::try_from(now.duration_since(record.confirmed)).unwrap_or_default();
        let ageless = question.any_age || record.origin == Origin::Bundle;
        if !ageless && age > self.settings.stale {
            let detail =
                format!("the tag was last confirmed at {}, longer ago than counts", record.confirmed);
            checks.insert(0, Check::new("evidence", "tag record", Code::NotPresent, detail));
            return undecided(checks);
        }
        if let Some(verdict) = self.revocation.refuses(question, &record.digest, None) {
            return verdict;
        }
        match self.known(question, &record.digest, &trust, &asked) {
            Ok(proven) => {
                let detail =
                    format!("no endpoint answers: the tag was last confirmed at {}", record.confirmed);
                checks.push(Check::new("evidence", "tag record", Code::Stale, detail));
                let mut verdict = verified(question, &record.digest, &proven, None, checks);
                if let Outcome::Verified(proof) = &mut verdict.outcome {
                    proof.stale_since = Some(record.confirmed);
                }
                verdict
            }
            Err(more) => {
                checks.extend(more);
                undecided(checks)
            }
        }
    }

    fn search_key(&self, question: &Question, digest: &Digest, who: Option<Digest>) -> SearchKey {
        // Tags say something of a signature only where names do.
        let tag = question.image.effective_tag().filter(|_| self.settings.identity.is_some());
        SearchKey {
            image: question.image.clone().without_digest().without_tag(),
            tag: tag.map(str::to_owned),
            signatures: question.repository.as_ref().map(|repository| repository.reference().clone()),
            digest: digest.clone(),
            attestors: question.attestors.id().clone(),
            generation: self.settings.trust_generation,
            any_age: question.any_age,
            who,
        }
    }

    fn endpoint_name(&self, question: &Question, at: Option<usize>) -> Option<String> {
        let route = self.routes.of(&question.image).ok()?;
        Some(route.endpoints.get(at?)?.endpoint.url().to_owned())
    }
}
