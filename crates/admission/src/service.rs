//! Answers reviews.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use countersign_https::{Body, full};
use countersign_policy::{
    Engine, Fact, Finding, Kind, Moment, Outcome, Phase, Response, Review, Status, Want,
};
use countersign_verdict::{Decision, Question, Tier, Verdict, text};
use countersign_verifier::{Purpose, Verifier};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, StatusCode};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::around::Around;
use crate::observer::{Report, Subject};
use crate::wire::{Answer, Envelope};

/// What is kept of the API server's own time for its side.
const MARGIN: Duration = Duration::from_secs(2);

/// Bytes of what the decision log says of one rule.
const MAX_SUMMARY: usize = 2048;

/// How long a verdict may take that nobody waits for.
const BACKGROUND_DEADLINE: Duration = Duration::from_secs(30);

/// How much the webhook takes on.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of a review. Default 8 MiB: two objects of 3 MiB and their envelope, unless their
    /// text is of what JSON escapes.
    pub body_bytes: usize,
    /// Reviews at a time; more are overload. Default 256.
    pub reviews: usize,
    /// The longest that one review may take. Default 5 s.
    pub deadline: Duration,
    /// Audit questions under way in the background. Default 1000; more are dropped, and asked
    /// again by the next pod.
    pub background: usize,
}

impl Limits {
    /// The defaults.
    pub const DEFAULT: Self =
        Self { body_bytes: 8 << 20, reviews: 256, deadline: Duration::from_secs(5), background: 1000 };
}

/// Whoever answers questions about images.
pub trait Answers: Send + Sync + 'static {
    /// The verdict, at the latest at the deadline.
    fn verify(&self, question: Question, deadline: Instant, purpose: Purpose) -> BoxFuture<'static, Verdict>;
    /// The verdict if it needs no network.
    fn at_hand(&self, question: &Question) -> Option<Verdict>;
}

impl Answers for Arc<Verifier> {
    fn verify(&self, question: Question, deadline: Instant, purpose: Purpose) -> BoxFuture<'static, Verdict> {
        let verifier = Self::clone(self);
        async move { Verifier::verify(&verifier, &question, deadline, purpose).await }.boxed()
    }

    fn at_hand(&self, question: &Question) -> Option<Verdict> {
        Verifier::at_hand(self, question)
    }
}

/// The webhook.
pub struct Service<A> {
    engine: Engine,
    answers: A,
    limits: Limits,
    slots: Semaphore,
    background: Mutex<HashSet<Question>>,
    around: Around,
    /// Nobody who asks can say what random texts a request draws.
    random: RandomState,
}

impl<A: Answers> Service<A> {
    /// A webhook that evaluates with this engine.
    pub fn new(engine: Engine, answers: A, limits: Limits) -> Arc<Self> {
        Self::within(engine, answers, limits, Around::default())
    }

    /// The same, among these.
    pub fn within(engine: Engine, answers: A, limits: Limits, around: Around) -> Arc<Self> {
        Arc::new(Self {
            engine,
            answers,
            slots: Semaphore::new(limits.reviews),
            limits,
            background: Mutex::default(),
            around,
            random: RandomState::new(),
        })
    }

    /// Whoever answers questions about images.
    pub fn answers(&self) -> &A {
        &self.answers
    }

    /// Asks again what a new pod like this one would be asked: what was verified is confirmed, and
    /// nothing else follows from it.
    pub async fn confirm(&self, review: Review, deadline: Instant) {
        let tier = if self.engine.is_bootstrap(&review.namespace) { Tier::Ignore } else { Tier::Fail };
        let find_out = |want: Want| async move {
            match want {
                Want::Verdict { question, .. } => {
                    Fact::Verdict(Some(self.answers.verify(question, deadline, Purpose::Decision).await))
                }
                other => self.look_up(other, deadline).await,
            }
        };
        _ = self.engine.decide(&review, Phase::Mutate, tier, find_out).await;
    }

    /// Answers one HTTP request.
    pub async fn answer(self: Arc<Self>, request: Request<Incoming>) -> hyper::Response<Body> {
        let path = request.uri().path().to_owned();
        let (phase, tier) = match (request.method(), path.as_str()) {
            (&Method::GET, "/livez" | "/readyz") => return plain(StatusCode::OK, "ok\n"),
            (&Method::POST, "/mutate/fail") => (Phase::Mutate, Tier::Fail),
            (&Method::POST, "/mutate/ignore") => (Phase::Mutate, Tier::Ignore),
            (&Method::POST, "/validate/fail") => (Phase::Validate, Tier::Fail),
            (&Method::POST, "/validate/ignore") => (Phase::Validate, Tier::Ignore),
            _ => {
                return plain(
                    StatusCode::NOT_FOUND,
                    "there is /mutate and /validate, each with /fail and /ignore\n",
                );
            }
        };
        let deadline = Instant::now() + time_of(request.uri().query(), self.limits.deadline);
        let body = Limited::new(request.into_body(), self.limits.body_bytes).collect();
        let body = match tokio::time::timeout_at(deadline, body).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(error)) if error.is::<LengthLimitError>() => {
                return plain(StatusCode::PAYLOAD_TOO_LARGE, "the review is too large\n");
            }
            Ok(Err(_)) => return plain(StatusCode::BAD_REQUEST, "the review broke off\n"),
            Err(_) => return plain(StatusCode::REQUEST_TIMEOUT, "the review did not come in time\n"),
        };
        match self.review(&body, phase, tier, deadline).await {
            Err(why) => plain(StatusCode::BAD_REQUEST, &format!("{why}\n")),
            Ok(answer) => {
                let mut response = hyper::Response::new(full(answer));
                response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                response
            }
        }
    }

    /// Answers one review: both as they are on the wire.
    ///
    /// # Errors
    ///
    /// Says why the bytes are no review that could be answered.
    pub async fn review(
        self: &Arc<Self>,
        body: &[u8],
        phase: Phase,
        tier: Tier,
        deadline: Instant,
    ) -> Result<Vec<u8>, String> {
        let envelope: Envelope =
            serde_json::from_slice(body).map_err(|error| format!("not an AdmissionReview: {error}"))?;
        if envelope.api_version != "admission.k8s.io/v1" || envelope.kind != "AdmissionReview" {
            return Err("expected an AdmissionReview of admission.k8s.io/v1".to_owned());
        }
        let uid = envelope.request["uid"].as_str().unwrap_or_default().to_owned();
        let dry_run = envelope.request["dryRun"].as_bool().unwrap_or(false);
        let mut review = Review::of(envelope.request);
        // One call's id is nobody else's: what is evaluated again comes to the same.
        let seed = self.random.hash_one(&uid);
        review.moment = Some(Moment { now: self.around.clock.wall(), seed });
        let begun = Instant::now();
        // The tier is the caller's word; that the namespace belongs to it is ours to check.
        let tier = if self.engine.is_bootstrap(&review.namespace) { tier } else { Tier::Fail };
        let fallback = without_objects(&review);
        let answer = match self.slots.try_acquire() {
            Err(_) => self.unable("too many reviews at a time", &fallback, tier),
            Ok(_slot) => {
                let work = self.decide(review, phase, tier, deadline, dry_run);
                match AssertUnwindSafe(work).catch_unwind().await {
                    Ok(answer) => answer,
                    Err(_) => {
                        tracing::error!(uid, "a review ended in a panic");
                        self.unable("the review failed unexpectedly", &fallback, tier)
                    }
                }
            }
        };
        self.around.observer.answered(phase, tier, answer.denials.is_empty(), begun.elapsed());
        Ok(answer.bytes(&uid))
    }

    /// What happens when a review could not be evaluated.
    fn unable(&self, why: &str, review: &Review, tier: Tier) -> Answer {
        let message = format!("Countersign could not judge this request: {why}");
        let deny = tier == Tier::Fail && self.engine.could_enforce(review);
        let (denials, warnings) = if deny { (vec![message], vec![]) } else { (vec![], vec![message]) };
        Answer { denials, warnings, patch: None }
    }

    async fn decide(
        self: &Arc<Self>,
        review: Review,
        phase: Phase,
        tier: Tier,
        deadline: Instant,
        dry_run: bool,
    ) -> Answer {
        let purpose = if dry_run { Purpose::DryRun } else { Purpose::Decision };
        let find_out = |want| self.find_out(want, deadline, purpose);
        let mut outcome = match self.engine.decide(&review, phase, tier, &find_out).await {
            Ok(outcome) => outcome,
            // `Refused`: the tier makes no difference.
            Err(error) => {
                return self.unable(&error.to_string(), &review, Tier::Fail);
            }
        };
        let subject = Arc::new(Subject::of(&review));
        // What pods would be told, before there are any.
        let pod = (phase == Phase::Validate).then(|| review.of_template_pod()).flatten();
        if let Some(pod) = pod {
            match self.engine.decide(&pod, Phase::Mutate, tier, &find_out).await {
                Ok(early) => {
                    outcome.denials.extend(early.denials);
                    outcome.warnings.extend(early.warnings);
                }
                // The pods are judged in any case.
                Err(error) => outcome.warnings.push(format!("its pods could not be judged early: {error}")),
            }
        }
        if !dry_run {
            self.report(&subject, &outcome, phase);
        }
        for result in outcome.results {
            let about = About { policy: result.policy, rule: result.rule, subject: Arc::clone(&subject) };
            match result.finding {
                // The validating side reports, so that what passes both is reported once.
                Finding::Known(verdict) if phase == Phase::Validate || result.decision == Decision::Deny => {
                    self.log(&about, &verdict, result.enforce, result.decision, dry_run);
                }
                Finding::Pending(question) if phase == Phase::Validate && !dry_run => {
                    self.find_out_later(about, question);
                }
                _ => {}
            }
        }
        let patch = (phase == Phase::Mutate && outcome.object != *review.object())
            .then(|| serde_json::to_vec(&json_patch::diff(review.object(), &outcome.object)).ok())
            .flatten();
        Answer { denials: outcome.denials, warnings: outcome.warnings, patch }
    }

    /// What became of an object, and why.
    fn report(&self, subject: &Subject, outcome: &Outcome, phase: Phase) {
        let observer = &self.around.observer;
        if !outcome.denials.is_empty() {
            let of_object = outcome
                .responses
                .iter()
                .any(|response| response.denies && response.kind != Kind::ImageVerify);
            let report = if of_object { Report::PolicyDenied } else { Report::ImageDenied };
            let why = outcome.denials.join("\n");
            observer.report(subject, report, subject.to_tell(&why));
        }
        let broken = outcome.responses.iter().filter(|response| {
            let of_object = response.kind == Kind::Validation && phase == Phase::Validate;
            of_object && matches!(response.status, Status::Fail | Status::Error)
        });
        for Response { policy, rule, status, message, enforce, denies, .. } in broken {
            let message = subject.to_tell(message);
            let message = &message[..message.floor_char_boundary(MAX_SUMMARY)];
            tracing::info!(
                target: "decision",
                policy,
                rule,
                kind = subject.kind,
                namespace = subject.namespace,
                name = subject.name,
                enforce,
                denied = denies,
                status = status.word(),
                summary = message,
            );
            if !denies {
                observer.report(subject, Report::PolicyViolation, &format!("{policy}/{rule}: {message}"));
            }
        }
    }

    async fn find_out(&self, want: Want, deadline: Instant, purpose: Purpose) -> Fact {
        let Want::Verdict { question, wait } = want else { return self.look_up(want, deadline).await };
        let at_hand = self.answers.at_hand(&question);
        if at_hand.is_none() && wait {
            return Fact::Verdict(Some(self.answers.verify(question, deadline, purpose).await));
        }
        Fact::Verdict(at_hand)
    }

    /// What is in the cluster, if it is known in time.
    async fn look_up(&self, want: Want, deadline: Instant) -> Fact {
        let found = tokio::time::timeout_at(deadline, self.around.cluster.look_up(want)).await;
        Fact::Value(found.unwrap_or_else(|_| Err("the API server did not answer in time".to_owned())))
    }

    /// One verdict: a line of the decision log, and whoever else wants to know.
    fn log(&self, about: &About, verdict: &Verdict, enforce: bool, decision: Decision, dry_run: bool) {
        tracing::info!(
            target: "decision",
            policy = about.policy,
            rule = about.rule,
            namespace = about.subject.namespace,
            enforce,
            denied = decision == Decision::Deny,
            verdict = verdict.outcome.word(),
            image = %verdict.image,
            digest = verdict.digest.as_ref().map(ToString::to_string),
            endpoint = verdict.endpoint,
            code = verdict.deciding().map(|check| check.code.as_str()),
            summary = text::summary(verdict),
        );
        self.around.observer.verdict(verdict, enforce, decision);
        if decision == Decision::Admit && verdict.proof().is_none() && !dry_run {
            let message = format!(
                "{} would be denied by {}/{}: {}",
                verdict.image,
                about.policy,
                about.rule,
                text::summary(verdict)
            );
            self.around.observer.report(&about.subject, Report::ImageViolation, &message);
        }
    }

    /// Audit: verified in the background, and reported.
    fn find_out_later(self: &Arc<Self>, about: About, question: Question) {
        {
            let mut under_way = self.background.lock().unwrap_or_else(PoisonError::into_inner);
            if under_way.len() >= self.limits.background || !under_way.insert(question.clone()) {
                return;
            }
        }
        let service = Arc::clone(self);
        tokio::spawn(async move {
            let deadline = Instant::now() + BACKGROUND_DEADLINE;
            let verify = service.answers.verify(question.clone(), deadline, Purpose::Decision);
            match AssertUnwindSafe(verify).catch_unwind().await {
                Ok(verdict) => service.log(&about, &verdict, false, Decision::Admit, false),
                Err(_) => tracing::error!(image = %question.image, "a verification ended in a panic"),
            }
            service.background.lock().unwrap_or_else(PoisonError::into_inner).remove(&question);
        });
    }
}

/// A review, as far as it says what is asked about.
fn without_objects(review: &Review) -> Review {
    let fields = ["uid", "kind", "resource", "subResource", "operation", "namespace", "name"];
    let said = fields.map(|field| (field.to_owned(), review.request[field].clone()));
    Review::of(said.into_iter().collect::<serde_json::Map<_, _>>().into())
}

/// What it is about.
struct About {
    policy: String,
    rule: String,
    subject: Arc<Subject>,
}

/// The time there is for a review: the API server's `?timeout=`, less a margin, or our own.
fn time_of(query: Option<&str>, most: Duration) -> Duration {
    let seconds = query
        .into_iter()
        .flat_map(|query| query.split('&'))
        .find_map(|part| part.strip_prefix("timeout=")?.strip_suffix('s')?.parse::<u64>().ok());
    let called = seconds
        .map(|seconds| Duration::from_secs(seconds).saturating_sub(MARGIN).max(Duration::from_millis(200)));
    called.map_or(most, |called| called.min(most))
}

fn plain(status: StatusCode, text: &str) -> hyper::Response<Body> {
    let mut response = hyper::Response::new(full(text.to_owned()));
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_leaves_the_api_server_two_seconds() {
        for (query, milliseconds) in [
            (None, 5_000),
            (Some("timeout=10s"), 5_000),
            (Some("a=b&timeout=4s"), 2_000),
            (Some("timeout=1s"), 200),
            (Some("timeout=x"), 5_000),
        ] {
            assert_eq!(
                time_of(query, Duration::from_secs(5)),
                Duration::from_millis(milliseconds),
                "{query:?}"
            );
        }
    }
}
