//! One evaluation: mutate rules, then a case for each image and rule that covers it.
//!
//! What depends on no fact is done once: rounds that wait for facts look only at the cases.

mod answer;
mod before;
mod cases;

use countersign_jmespath::{Error, Fuel};
use countersign_podsecurity::Exclusion;
use countersign_reference::Reference;
use countersign_site::ExceptionMode;
use countersign_verdict::{Code, FailurePolicy, Outcome as Found, Tier, Verdict};
use serde_json::{Value, json};

use crate::action::Place;
use crate::context;
use crate::engine::Fact;
use crate::images::{self};
use crate::load::{Body, Policy, Rule, Verify};
use crate::mutate::{self, Step};
use crate::names::Names;
use crate::respond::{self, Kind, Response, Status};
use crate::selector::{Against, Selector};
use crate::validate::{Lacking, MAX_ELEMENTS, Scene, Validate};
use crate::{Engine, Evaluation, Exception, Facts, Finding, MAX_IMAGES, Phase, Review, Want};

/// Images of a pod that rules are evaluated for, so that a pod with one image too many is denied
/// with its images named as they would be stored.
const MAX_WORKED_ON: usize = 4 * MAX_IMAGES;
/// Steps that all expressions, patterns and patches for one request may take together: about a second.
const MAX_REQUEST_STEPS: usize = 20_000_000;
/// Pull secrets of a pod that are looked at.
const MAX_PULL_SECRETS: usize = 8;
const NOT_PINNED: &str = "was not pinned: added or changed after Countersign's mutation";

/// An evaluation under way.
pub(crate) struct Run<'a> {
    engine: &'a Engine,
    review: &'a Review,
    phase: Phase,
    tier: Tier,
    names: Names<'a>,
    denials: Vec<String>,
    warnings: Vec<String>,
    responses: Vec<Response>,
    cases: Vec<Case<'a>>,
    /// Whether all but the cases is done: rounds that wait for verdicts look only at those.
    ready: bool,
    /// The labels of the request's namespace, where a policy's action depends on them and they are known.
    labels: Option<Value>,
}

/// One image under one entry of one rule.
struct Case<'a> {
    policy: &'a Policy,
    rule: &'a Rule,
    entry: &'a Verify,
    enforce: bool,
    /// JSON pointer to the image's text.
    pointer: String,
    /// The image as the request has it.
    written: String,
    /// The image as it will be stored, save for the pin.
    reference: Reference,
    want: Want,
    /// A verdict that needs no fact.
    settled: Option<Verdict>,
    /// It should carry a digest, and does not.
    unpinned: bool,
}

/// What is to be done with a rule that selects the request.
enum Begun {
    /// Its own part begins.
    Ready,
    /// There is an answer already.
    Answered(Status, String),
    /// It does not speak of the request.
    Not,
    /// Something has to be known first.
    Lacking,
}

impl<'a> Run<'a> {
    pub(crate) fn new(engine: &'a Engine, review: &'a Review, phase: Phase, tier: Tier) -> Self {
        Self::with(engine, review, phase, tier, MAX_REQUEST_STEPS)
    }

    fn with(engine: &'a Engine, review: &'a Review, phase: Phase, tier: Tier, steps: usize) -> Self {
        let names = Names::new(engine, review, Fuel::new(steps));
        let (denials, warnings, responses, cases) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self {
            engine,
            review,
            phase,
            tier,
            names,
            denials,
            warnings,
            responses,
            cases,
            ready: false,
            labels: None,
        }
    }

    /// What is lacking, or the answer; after the answer there is no other.
    pub(crate) fn evaluate(&mut self, facts: &Facts) -> Evaluation {
        if !self.ready {
            // From the beginning: what has become known may change everything after it.
            let steps = self.names.fuel().left();
            *self = Self::with(self.engine, self.review, self.phase, self.tier, steps);
            let wants = self.begin(facts);
            if !wants.is_empty() {
                return Evaluation::Needs(wants);
            }
            self.ready = true;
        }
        let mut wants: Vec<Want> = Vec::new();
        let mut findings = Vec::new();
        for case in &self.cases {
            let answer = match facts.get(&case.want) {
                Some(Fact::Verdict(answer)) => Some(answer),
                _ => None,
            };
            match (&case.settled, answer) {
                (None, Some(Some(verdict))) if case.unpinned && !verdict.outcome.is_undecided() => {
                    let image = verdict.image.clone();
                    let refused = Verdict::because(image, Found::Refused, Code::NotPinned, NOT_PINNED);
                    findings.push(Finding::Known(refused));
                }
                (Some(verdict), _) | (None, Some(Some(verdict))) => {
                    findings.push(Finding::Known(verdict.clone()));
                }
                (None, Some(None)) => findings
                    .extend(case.want.question().map(|(question, _)| Finding::Pending(question.clone()))),
                (None, None) if wants.contains(&case.want) => {}
                (None, None) => wants.push(case.want.clone()),
            }
        }
        if wants.is_empty() {
            Evaluation::Done(Box::new(self.conclude(findings)))
        } else {
            Evaluation::Needs(wants)
        }
    }

    /// Everything that needs no verdict; what is lacking for it.
    fn begin(&mut self, facts: &Facts) -> Vec<Want> {
        let mut wants = Vec::new();
        self.find_labels(facts, &mut wants);
        let deleted = self.review.operation == "DELETE" || self.review.object().is_null();
        if self.phase == Phase::Mutate && !deleted {
            self.mutate(facts, &mut wants);
            self.put_back();
        }
        self.names.mutated();
        if self.phase == Phase::Validate {
            self.validate(facts, &mut wants);
        }
        if !deleted {
            self.judge(facts, &mut wants);
        }
        let mut seen: Vec<Want> = Vec::with_capacity(wants.len());
        for want in wants {
            if !seen.contains(&want) {
                seen.push(want);
            }
        }
        seen
    }

    /// The labels of the namespace, if a policy's action depends on them.
    fn find_labels(&mut self, facts: &Facts, wants: &mut Vec<Want>) {
        let name = &self.review.namespace;
        if name.is_empty() || !self.engine.policies().iter().any(Policy::asks_for_labels) {
            return;
        }
        let want = Want::Namespace { name: name.clone() };
        match facts.get(&want) {
            None => wants.push(want),
            Some(Fact::Value(Ok(labels))) => self.labels = Some(labels.clone()),
            Some(_) => {}
        }
    }

    fn place(&self) -> Place<'_> {
        Place { namespace: &self.review.namespace, labels: self.labels.as_ref() }
    }

    /// Every rule of every policy that speaks of the namespace, in order.
    fn rules(&self) -> Vec<(&'a Policy, &'a Rule)> {
        let (engine, review) = (self.engine, self.review);
        let policies = engine.policies().iter().filter(move |policy| policy.speaks_of(review));
        policies.flat_map(|policy| policy.rules.iter().map(move |rule| (policy, rule))).collect()
    }

    /// Whether a rule selects the request; what is lacking to say so.
    fn selects(&self, rule: &Rule, facts: &Facts, wants: &mut Vec<Want>) -> bool {
        let review = self.review;
        let mut selects = |selector: &Selector, excludes| {
            selector.selects(&Against { review, facts, excludes }).unwrap_or_else(|want| {
                wants.push(want);
                false
            })
        };
        selects(&rule.select, false) && !selects(&rule.exclude, true)
    }

    /// Brings the context of a rule into scope and holds its preconditions and the exceptions.
    fn enter(&mut self, policy: &Policy, rule: &Rule, facts: &Facts, wants: &mut Vec<Want>) -> Begun {
        if !self.selects(rule, facts, wants) {
            return if wants.is_empty() { Begun::Not } else { Begun::Lacking };
        }
        self.names.begin(&policy.name, &rule.name);
        match context::load(&rule.context, &mut self.names, facts, wants, policy.namespace.as_deref()) {
            Ok(()) => {}
            Err(Error::Missing(_)) => return Begun::Lacking,
            Err(error) => return Begun::Answered(Status::Error, format!("failed to load context: {error}")),
        }
        match rule.preconditions.judge(&self.names) {
            Ok((true, _)) => Begun::Ready,
            Ok((false, why)) => {
                let why = if why.is_empty() { why } else { format!("; {why}") };
                Begun::Answered(Status::Skip, format!("preconditions not met{why}"))
            }
            Err(Error::Missing(_)) => Begun::Lacking,
            Err(error) => {
                Begun::Answered(Status::Error, format!("failed to evaluate preconditions: {error}"))
            }
        }
    }

    /// The exceptions that speak of a rule and of this request.
    fn exceptions(
        &self,
        policy: &Policy,
        rule: &Rule,
        facts: &Facts,
        wants: &mut Vec<Want>,
    ) -> Vec<&'a Exception> {
        let mut found = Vec::new();
        for exception in self.engine.exceptions() {
            if !exception.speaks_of(&policy.name, &rule.name) || !exception.applies(self.review.moment) {
                continue;
            }
            let against = Against { review: self.review, facts, excludes: true };
            match exception.select.selects(&against) {
                Ok(true) if exception.conditions.hold(&self.names).unwrap_or(false) => found.push(exception),
                Ok(_) => {}
                Err(want) => wants.push(want),
            }
        }
        found
    }

    fn respond(
        &mut self,
        (policy, rule, kind): (&Policy, &Rule, Kind),
        (status, message): (Status, String),
        enforce: bool,
        denies: bool,
    ) {
        self.responses.push(Response {
            policy: policy.name.clone(),
            rule: rule.name.clone(),
            kind,
            status,
            message,
            enforce,
            denies,
        });
    }

    fn mutate(&mut self, facts: &Facts, wants: &mut Vec<Want>) {
        // What is far too much is not worked on, and does not go on as it is.
        let too_many = images::of_pod(self.review.object()).len() > MAX_WORKED_ON;
        let mut over: Vec<&str> = Vec::new();
        for (policy, rule) in self.rules() {
            let Body::Mutate(steps) = &rule.body else { continue };
            if policy.one && over.contains(&policy.name.as_str()) {
                continue;
            }
            let about = (policy, rule, Kind::Mutation);
            let answer = match self.enter(policy, rule, facts, wants) {
                Begun::Not | Begun::Lacking => continue,
                Begun::Ready if too_many => Err(format!("a pod has more than {MAX_WORKED_ON} images")),
                Begun::Answered(Status::Error, why) => Err(why),
                Begun::Answered(status, why) => Ok((status, why)),
                Begun::Ready => match self.exceptions(policy, rule, facts, wants).as_slice() {
                    [] => match self.patch(steps, policy, facts, wants) {
                        Err(Lacking) => continue,
                        Ok(answer) => answer,
                    },
                    lifted => Ok((Status::Skip, lifted_by(lifted))),
                },
            };
            match answer {
                Ok((status, message)) => {
                    if status != Status::Skip {
                        over.push(&policy.name);
                    }
                    self.respond(about, (status, message), false, false);
                }
                Err(why) => self.mutation_failed(policy, rule, &why),
            }
        }
    }

    /// What a rule makes of the object, which it leaves as it is now.
    fn patch(
        &mut self,
        steps: &[Step],
        policy: &Policy,
        facts: &Facts,
        wants: &mut Vec<Want>,
    ) -> Result<Result<(Status, String), String>, Lacking> {
        let own = policy.namespace.as_deref();
        let mut scene = Scene { names: &mut self.names, facts, wants, own, left: MAX_ELEMENTS };
        Ok(match mutate::apply(steps, &mut scene)? {
            Ok(Some(object)) => {
                *self.names.object_mut() = object;
                let place = &self.review.namespace;
                let place = if place.is_empty() { String::new() } else { format!(" in namespace {place}") };
                let shown = format!("{}/{}", self.review.kind, self.review.object_name());
                Ok((Status::Pass, format!("mutated {shown}{place}")))
            }
            Ok(None) => Ok((Status::Skip, "no patches applied".to_owned())),
            Err(error) => Err(error.to_string()),
        })
    }

    /// A mutate rule is never Enforce or Audit: the policy's failurePolicy says what an error means.
    fn mutation_failed(&mut self, policy: &Policy, rule: &Rule, why: &str) {
        let message = format!(
            "mutation policy {} error: failed to apply policy {} rules [{}: {why}]",
            policy.name, policy.name, rule.name
        );
        let lenient = (policy.failure_policy == FailurePolicy::Ignore && !self.is_spent())
            || self.tier == Tier::Ignore
            || self.review.template_of.is_some()
            || !self.engine.enforces(true);
        self.respond((policy, rule, Kind::Mutation), (Status::Error, why.to_owned()), false, !lenient);
        if lenient { self.warnings.push(message) } else { self.denials.push(message) }
    }

    fn validate(&mut self, facts: &Facts, wants: &mut Vec<Want>) {
        let mut over: Vec<&str> = Vec::new();
        let before = self.responses.len();
        for (policy, rule) in self.rules() {
            let Body::Validate(own) = &rule.body else { continue };
            let deleted = self.review.operation == "DELETE";
            if !policy.admission && self.review.given.is_none()
                || (policy.one && over.contains(&policy.name.as_str()))
                || (deleted && own.is_of_object())
            {
                continue;
            }
            let action = own.action.of(self.place()).or(policy.action.of(self.place()));
            let enforce = self.engine.enforces(action.unwrap_or(false));
            let answer = match self.enter(policy, rule, facts, wants) {
                Begun::Not | Begun::Lacking => continue,
                Begun::Answered(status, why) => Ok((status, why)),
                Begun::Ready => self.hold(own, (policy, rule, enforce), facts, wants),
            };
            let Ok((status, message)) = answer else { continue };
            // What could not be judged keeps no other rule from judging.
            if matches!(status, Status::Pass | Status::Fail) {
                over.push(&policy.name);
            }
            let denies = self.tier == Tier::Fail
                && match status {
                    Status::Fail => enforce,
                    Status::Error => {
                        enforce && (policy.failure_policy == FailurePolicy::Fail || self.is_spent())
                    }
                    Status::Pass | Status::Skip => false,
                };
            if !denies && (policy.emit_warning || enforce) && matches!(status, Status::Fail | Status::Error) {
                self.warnings.push(format!("policy {}.{}: {message}", policy.name, rule.name));
            }
            self.respond((policy, rule, Kind::Validation), (status, message), enforce, denies);
        }
        let denied: Vec<&Response> =
            self.responses[before..].iter().filter(|response| response.denies).collect();
        if !denied.is_empty() {
            self.denials.push(respond::blocked(&self.review.shown(), &denied));
        }
    }

    /// Holds the object against a rule; where the rule enforces, one that was as wrong before may stay so.
    fn hold(
        &mut self,
        own: &Validate,
        (policy, rule, enforce): (&Policy, &Rule, bool),
        facts: &Facts,
        wants: &mut Vec<Want>,
    ) -> Result<(Status, String), Lacking> {
        let lifted = self.exceptions(policy, rule, facts, wants);
        if let Some(whole) = lifted.iter().find(|exception| exception.pod_security.is_empty()) {
            return Ok((Status::Skip, lifted_by(&[*whole])));
        }
        let place = policy.namespace.as_deref();
        let names = &mut self.names;
        let mut answer = |names: &mut Names<'a>, controls: &[Exclusion]| {
            let mut scene = Scene { names, facts, wants, own: place, left: MAX_ELEMENTS };
            own.answer(&rule.name, &mut scene, controls)
        };
        let found = answer(names, &[])?;
        if found.0 != Status::Fail {
            return Ok(found);
        }
        // Each exception by itself: two do not lift together what neither lifts.
        for exception in &lifted {
            if answer(names, &exception.pod_security)?.0 == Status::Pass {
                return Ok((Status::Skip, lifted_by(&[*exception])));
            }
        }
        if own.allow_existing
            && enforce
            && self.review.operation == "UPDATE"
            && self.failed_before(own, (policy, rule), facts, wants)?
        {
            let why = "skipping the rule evaluation as pre-existing violations are allowed";
            return Ok((Status::Skip, why.to_owned()));
        }
        Ok(found)
    }

    /// On UPDATE, what the request did not change is not changed here either, and a name and tag
    /// that are stored already keep the digest they are stored with.
    fn put_back(&mut self) {
        let Some(old) = self.review.old() else { return };
        let (stored, incoming) = (images::of_pod(old), images::of_pod(self.review.object()));
        let mut kept = Vec::new();
        for image in images::of_pod(self.names.object()) {
            let Some(before) = stored.iter().find(|old| old.is_at(&image)) else { continue };
            let written = incoming.iter().find(|new| new.is_at(&image));
            let unchanged = written.is_some_and(|written| written.image == before.image);
            let same = match (Reference::parse(image.image), Reference::parse(before.image)) {
                // A digest alone names no tag that could be the same.
                (Ok(_), Ok(old)) if old.tag().is_none() && old.digest().is_some() => false,
                (Ok(new), Ok(old)) => new.digest().is_none() && new.same_name_and_tag(&old),
                _ => false,
            };
            if unchanged || same {
                kept.push((image.pointer(), before.image.to_owned()));
            }
        }
        for (pointer, image) in kept {
            if let Some(slot) = self.names.object_mut().pointer_mut(&pointer) {
                *slot = json!(image);
            }
        }
    }

    /// Finds the cases.
    fn judge(&mut self, facts: &Facts, wants: &mut Vec<Want>) {
        let images = self.new_images();
        let too_many = self.review.kind == "Pod" && images::of_pod(self.names.object()).len() > MAX_IMAGES;
        for (policy, rule) in self.rules() {
            match &rule.body {
                Body::Mutate(_) | Body::Validate(_) => {}
                Body::Refused { images_only, .. }
                    if *images_only && images.is_empty() && self.review.operation == "UPDATE" => {}
                // Of templates, a rule of its own speaks.
                Body::Refused { images_only: false, .. } if self.review.template_of.is_some() => {}
                Body::Refused { enforce, refusal, .. } => {
                    if !self.selects(rule, facts, wants) {
                        continue;
                    }
                    let message =
                        format!("rule {}/{} could not be loaded: {refusal}", policy.name, rule.name);
                    let denies =
                        self.engine.enforces(*enforce) && self.tier == Tier::Fail && !self.only_warns(policy);
                    let about = (policy, rule, Kind::Validation);
                    self.respond(about, (Status::Error, refusal.to_string()), *enforce, denies);
                    if denies {
                        self.denials.push(message);
                    } else if *enforce {
                        self.warnings.push(message);
                    }
                }
                // An UPDATE that changes no image is never denied by image rules.
                Body::Verify(_) if images.is_empty() => {}
                Body::Verify(entries) => {
                    let enforces = entries.iter().any(|entry| self.enforces(policy, entry));
                    let about = (policy, rule, Kind::ImageVerify);
                    match self.enter(policy, rule, facts, wants) {
                        Begun::Not | Begun::Lacking => continue,
                        Begun::Answered(Status::Error, why) => {
                            let deny = enforces && self.tier == Tier::Fail && !self.only_warns(policy);
                            let told = if deny { &mut self.denials } else { &mut self.warnings };
                            told.push(format!("{}/{}: {why}", policy.name, rule.name));
                            self.respond(about, (Status::Error, why), enforces, deny);
                            continue;
                        }
                        Begun::Answered(status, why) => {
                            self.respond(about, (status, why), enforces, false);
                            continue;
                        }
                        Begun::Ready => {}
                    }
                    let lifted = self.lifting_exceptions(policy, rule, facts, wants);
                    if !lifted.is_empty() {
                        let why = lifted_by(&lifted);
                        self.respond(about, (Status::Skip, why), enforces, false);
                        continue;
                    }
                    self.cases_of((policy, rule), entries, &images, too_many);
                }
            }
        }
    }

    /// The exceptions that lift image verification: where the site is strict, not one that a pod's
    /// author could give to himself.
    fn lifting_exceptions(
        &self,
        policy: &Policy,
        rule: &Rule,
        facts: &Facts,
        wants: &mut Vec<Want>,
    ) -> Vec<&'a Exception> {
        let mut lifted = self.exceptions(policy, rule, facts, wants);
        let strict = self.engine.site().exceptions == ExceptionMode::Strict;
        lifted.retain(|exception| exception.pod_security.is_empty() && (!strict || exception.is_bound()));
        lifted
    }

    /// Whether the request has taken all the steps there are for it: whoever wrote it may have seen to
    /// that, and what `failurePolicy` says of errors does not count.
    fn is_spent(&self) -> bool {
        self.names.fuel().left() == 0
    }

    /// Whether it is a template that is judged, and the policy does not speak of what has it.
    fn only_warns(&self, policy: &Policy) -> bool {
        self.review.template_of.is_some_and(|kind| !policy.covers.contains(kind))
    }

    fn enforces(&self, policy: &Policy, entry: &Verify) -> bool {
        self.engine.enforces(entry.enforces(policy, self.place()))
    }
}

/// The words for exceptions that lift a rule, as Kyverno has them, without a space.
fn lifted_by(exceptions: &[&Exception]) -> String {
    let names: Vec<&str> = exceptions.iter().map(|exception| exception.name.as_str()).collect();
    format!("rule is skipped due to policy exceptions{}", names.join(", "))
}
