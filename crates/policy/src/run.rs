//! One evaluation: mutate rules, then a case for each image and rule that covers it.
//!
//! What depends on no fact is done once: rounds that wait for facts look only at the cases.

mod before;

use std::collections::BTreeMap;

use countersign_jmespath::Error;
use countersign_podsecurity::Exclusion;
use countersign_reference::{ParseError, Reference};
use countersign_site::{ExceptionMode, PinForm, Pinning};
use countersign_verdict::{
    Code, Decision, FailurePolicy, Outcome as Found, PullSecrets, Question, Tier, Verdict, text,
};
use serde_json::{Value, json};

use crate::engine::{Fact, covers};
use crate::images::{self, Image};
use crate::load::{Body, Policy, Rule, Verify};
use crate::mutate::{self, Step};
use crate::names::Names;
use crate::respond::{self, Kind, Response, Status};
use crate::selector::{Against, Selector};
use crate::validate::{Lacking, MAX_ELEMENTS, Scene, Validate};
use crate::{
    Engine, Evaluation, Exception, Facts, Finding, MAX_IMAGES, Outcome, Phase, Review, RuleResult, Want,
};

/// Images of a pod that rules are evaluated for, so that a pod with one image too many is denied
/// with its images named as they would be stored.
const MAX_WORKED_ON: usize = 4 * MAX_IMAGES;
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
        let names = Names::new(engine, review);
        let (denials, warnings, responses, cases) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { engine, review, phase, tier, names, denials, warnings, responses, cases, ready: false }
    }

    /// What is lacking, or the answer; after the answer there is no other.
    pub(crate) fn evaluate(&mut self, facts: &Facts) -> Evaluation {
        if !self.ready {
            // From the beginning: what has become known may change everything after it.
            *self = Self::new(self.engine, self.review, self.phase, self.tier);
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
        let deleted = self.review.operation == "DELETE" || self.review.object().is_null();
        // What is far too much is not worked on: every rule that covers an image denies it.
        let too_many = images::of_pod(self.review.object()).len() > MAX_WORKED_ON;
        if self.phase == Phase::Mutate && !deleted && !too_many {
            self.mutate(facts, &mut wants);
            self.put_back();
        }
        self.names.mutated();
        if self.phase == Phase::Validate && !too_many {
            self.validate(facts, &mut wants);
        }
        if !deleted {
            self.judge(facts, &mut wants);
        }
        wants.dedup();
        wants
    }

    /// Every rule of every policy that speaks of the namespace, in order.
    fn rules(&self) -> Vec<(&'a Policy, &'a Rule)> {
        let (engine, review) = (self.engine, self.review);
        let speaks =
            move |policy: &&Policy| policy.namespace.as_ref().is_none_or(|own| *own == review.namespace);
        let policies = engine.policies().iter().filter(speaks);
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
        for entry in &rule.context {
            match entry.load(&mut self.names, facts, wants, policy.namespace.as_deref()) {
                Ok(()) => {}
                Err(Error::Missing(_)) => return Begun::Lacking,
                Err(error) => {
                    return Begun::Answered(Status::Error, format!("failed to load context: {error}"));
                }
            }
        }
        match rule.preconditions.hold(&self.names) {
            Ok(true) => Begun::Ready,
            Ok(false) => Begun::Answered(Status::Skip, "preconditions not met".to_owned()),
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
            if !exception.speaks_of(&policy.name, &rule.name) || !exception.applies(self.review.now) {
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
            exceptions: Vec::new(),
        });
    }

    fn mutate(&mut self, facts: &Facts, wants: &mut Vec<Want>) {
        let mut over: Vec<&str> = Vec::new();
        for (policy, rule) in self.rules() {
            let Body::Mutate(steps) = &rule.body else { continue };
            if policy.one && over.contains(&policy.name.as_str()) {
                continue;
            }
            let about = (policy, rule, Kind::Mutation);
            let answer = match self.enter(policy, rule, facts, wants) {
                Begun::Not | Begun::Lacking => continue,
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
                Err(why) => {
                    over.push(&policy.name);
                    self.mutation_failed(policy, rule, &why);
                }
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
        let lenient = policy.failure_policy == FailurePolicy::Ignore
            || self.tier == Tier::Ignore
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
            let action = own.action.of(&self.review.namespace).or(policy.action.of(&self.review.namespace));
            let enforce = self.engine.enforces(action.unwrap_or(false));
            let answer = match self.enter(policy, rule, facts, wants) {
                Begun::Not | Begun::Lacking => continue,
                Begun::Answered(status, why) => Ok((status, why)),
                Begun::Ready => self.hold(own, (policy, rule, enforce), facts, wants),
            };
            let Ok((status, message)) = answer else { continue };
            if status != Status::Skip {
                over.push(&policy.name);
            }
            let denies = self.tier == Tier::Fail
                && match status {
                    Status::Fail => enforce,
                    Status::Error => enforce && policy.failure_policy == FailurePolicy::Fail,
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
                Body::Refused { enforce, refusal, .. } => {
                    if !self.selects(rule, facts, wants) {
                        continue;
                    }
                    let message =
                        format!("rule {}/{} could not be loaded: {refusal}", policy.name, rule.name);
                    let denies = self.engine.enforces(*enforce) && self.tier == Tier::Fail;
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
                            let deny = enforces && self.tier == Tier::Fail;
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

    /// The images that the request brings, as they will be stored; each parsed once.
    fn new_images(&self) -> Vec<New> {
        let stored = self.review.old().map(images::of_pod).unwrap_or_default();
        let written: Vec<Image<'_>> =
            images::of_pod(self.review.object()).into_iter().take(MAX_WORKED_ON).collect();
        let images = if self.review.kind == "Pod" { images::of_pod(self.names.object()) } else { vec![] };
        let unchanged =
            |image: &Image<'_>| stored.iter().any(|old| old.is_at(image) && old.image == image.image);
        let new = images.into_iter().take(MAX_WORKED_ON).filter(|image| !unchanged(image));
        new.map(|image| {
            let origin = written.iter().find(|written| written.is_at(&image));
            New {
                pointer: image.pointer(),
                written: origin.map_or(image.image, |origin| origin.image).to_owned(),
                reference: Reference::parse(image.image).map(Reference::with_default_tag),
                image: image.image.to_owned(),
            }
        })
        .collect()
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

    fn enforces(&self, policy: &Policy, entry: &Verify) -> bool {
        self.engine.enforces(entry.enforces(policy, &self.review.namespace))
    }

    fn cases_of(
        &mut self,
        (policy, rule): (&'a Policy, &'a Rule),
        entries: &'a [Verify],
        images: &[New],
        too_many: bool,
    ) {
        for image in images {
            for entry in entries {
                match &image.reference {
                    Ok(reference) if !self.covers(entry, &image.image, reference) => {}
                    Ok(reference) => {
                        let case = self.case((policy, rule, entry), image, reference, too_many);
                        self.cases.push(case);
                    }
                    // Nobody can say which pattern it would match: any that is there covers it.
                    Err(error) => {
                        let shown: String = image.image.chars().take(200).collect();
                        let message = format!(
                            "image `{shown}` was denied by {}/{}: {error} [{}]",
                            policy.name,
                            rule.name,
                            Code::BadReference
                        );
                        let enforce = self.enforces(policy, entry);
                        let told = if enforce { &mut self.denials } else { &mut self.warnings };
                        told.push(message.clone());
                        self.respond(
                            (policy, rule, Kind::ImageVerify),
                            (Status::Error, message),
                            enforce,
                            enforce,
                        );
                    }
                }
            }
        }
    }

    /// The image as its node asks for it: a node's scoped rules send one that keeps its name to
    /// the site's endpoints.
    fn asked(&self, reference: &Reference) -> Reference {
        let rewrite = &self.engine.site().rewrite;
        if self.engine.is_bootstrap(&self.review.namespace) && rewrite.enabled {
            return rewrite.rewriter.rewrite(reference).unwrap_or_else(|_| reference.clone());
        }
        reference.clone()
    }

    /// The Secrets that a node would pull the pod's images with, where the site lets them be used.
    fn pull_secrets(&self) -> Option<PullSecrets> {
        if !self.engine.site().registry.pull_secrets {
            return None;
        }
        let secrets = self.review.object()["spec"]["imagePullSecrets"].as_array()?;
        let names = secrets.iter().take(MAX_PULL_SECRETS).filter_map(|secret| secret["name"].as_str());
        let names: Vec<String> = names.map(str::to_owned).collect();
        let namespace = self.review.namespace.clone();
        (!names.is_empty()).then_some(PullSecrets { namespace, names })
    }

    fn covers(&self, entry: &Verify, image: &str, reference: &Reference) -> bool {
        let asked = self.asked(reference);
        covers(self.engine, entry, image, reference)
            || (asked != *reference && covers(self.engine, entry, &asked.to_string(), &asked))
    }

    fn case(
        &self,
        (policy, rule, entry): (&'a Policy, &'a Rule, &'a Verify),
        image: &New,
        reference: &Reference,
        too_many: bool,
    ) -> Case<'a> {
        let site = self.engine.site();
        let enforce = self.enforces(policy, entry);
        let asked = self.asked(reference);
        let refused = |code, why: &str| Some(Verdict::because(asked.clone(), Found::Refused, code, why));
        let unpinned = self.phase == Phase::Validate
            && enforce
            && site.pinning == Pinning::Always
            && reference.digest().is_none();
        // Where what cannot be decided is admitted, it was admitted without a digest before.
        let strict = self.tier == Tier::Fail && policy.failure_policy == FailurePolicy::Fail;
        let settled = if too_many {
            refused(Code::TooManyImages, "a pod has more than 64 images")
        } else if unpinned && strict {
            refused(Code::NotPinned, NOT_PINNED)
        } else {
            None
        };
        let question = Question {
            image: asked,
            attestors: entry.attestors.clone(),
            repository: entry.repository.clone(),
            any_age: self.tier == Tier::Ignore,
            pull_secrets: self.pull_secrets(),
        };
        let want = Want::Verdict { question, wait: enforce };
        let (reference, written, pointer) = (reference.clone(), image.written.clone(), image.pointer.clone());
        Case { policy, rule, entry, enforce, pointer, written, reference, want, settled, unpinned }
    }

    fn conclude(&mut self, findings: Vec<Finding>) -> Outcome {
        let mut outcome = Outcome {
            object: Value::Null,
            denials: std::mem::take(&mut self.denials),
            warnings: std::mem::take(&mut self.warnings),
            results: Vec::with_capacity(findings.len()),
            responses: std::mem::take(&mut self.responses),
        };
        let mut pins: BTreeMap<String, String> = BTreeMap::new();
        for (case, finding) in std::mem::take(&mut self.cases).into_iter().zip(findings) {
            let mut decision = Decision::Admit;
            if let Some(verdict) = finding.verdict() {
                if case.enforce {
                    decision = verdict.outcome.decide(case.policy.failure_policy, self.tier);
                }
                self.tell(&case, verdict, decision, &mut outcome);
                if let Some(pin) = self.pin(&case, verdict) {
                    pins.insert(case.pointer.clone(), pin);
                }
            }
            outcome.responses.extend(self.response(&case, &finding, decision));
            outcome.results.push(RuleResult {
                policy: case.policy.name.clone(),
                rule: case.rule.name.clone(),
                written: case.written,
                finding,
                enforce: case.enforce,
                decision,
            });
        }
        outcome.object = self.names.object_mut().take();
        if self.phase == Phase::Mutate {
            for (pointer, pinned) in pins {
                if let Some(slot) = outcome.object.pointer_mut(&pointer) {
                    *slot = Value::String(pinned);
                }
            }
        }
        outcome
    }

    /// What the rule says of the image.
    #[expect(clippy::unused_self, reason = "reads like its neighbours")]
    fn response(&self, case: &Case<'_>, finding: &Finding, decision: Decision) -> Option<Response> {
        let verdict = finding.verdict()?;
        let image = &verdict.image;
        let (status, message) = match &verdict.outcome {
            Found::Verified(_) => (Status::Pass, format!("verified image signatures for {image}")),
            Found::NotCovered | Found::Excepted => (Status::Skip, text::summary(verdict)),
            Found::Refused | Found::Undecided | Found::Forbidden => {
                (Status::Error, format!("failed to verify image {image}: {}", text::summary(verdict)))
            }
            _ => (Status::Fail, format!("failed to verify image {image}: {}", text::summary(verdict))),
        };
        Some(Response {
            policy: case.policy.name.clone(),
            rule: case.rule.name.clone(),
            kind: Kind::ImageVerify,
            status,
            message,
            enforce: case.enforce,
            denies: decision == Decision::Deny,
            exceptions: Vec::new(),
        })
    }

    /// What whoever made the request is told.
    #[expect(clippy::unused_self, reason = "reads like its neighbours")]
    fn tell(&self, case: &Case<'_>, verdict: &Verdict, decision: Decision, outcome: &mut Outcome) {
        let (policy, rule, image) = (&case.policy.name, &case.rule.name, &verdict.image);
        if decision == Decision::Deny {
            outcome.denials.push(text::denial(verdict, &case.written, policy, rule));
        } else if case.enforce && verdict.proof().is_none() {
            outcome.warnings.push(format!("{policy}/{rule}: {image}: {}", text::summary(verdict)));
        }
        let told = verdict
            .warnings()
            .map(|check| format!("{policy}/{rule}: {image}: {} [{}]", check.detail, check.code));
        outcome.warnings.extend(told);
        if let Some(since) = verdict.proof().and_then(|proof| proof.stale_since) {
            let stale = format!("no registry answers: the tag was last confirmed at {since}");
            outcome.warnings.push(format!("{policy}/{rule}: {image}: {stale}"));
        }
    }

    /// The image with its verified digest, where it is to be pinned.
    fn pin(&self, case: &Case<'_>, verdict: &Verdict) -> Option<String> {
        let site = self.engine.site();
        let pinning = match site.pinning {
            Pinning::Always => true,
            Pinning::Policy => case.entry.pin,
            Pinning::Off => false,
        };
        // Audit pins only from a mapping that is fresh.
        let proof = verdict.proof().filter(|proof| case.enforce || proof.stale_since.is_none())?;
        let pinned = pinning.then(|| case.reference.clone().with_digest(proof.digest.clone()))?;
        let pinned = if site.pin_form == PinForm::Digest { pinned.without_tag() } else { pinned };
        Some(pinned.to_string())
    }
}

/// An image that a request brings.
struct New {
    pointer: String,
    /// As the request has it.
    written: String,
    /// As it will be stored, save for the pin.
    image: String,
    reference: Result<Reference, ParseError>,
}

/// The words for exceptions that lift a rule.
fn lifted_by(exceptions: &[&Exception]) -> String {
    let names: Vec<&str> = exceptions.iter().map(|exception| exception.name.as_str()).collect();
    format!("rule is skipped due to policy exceptions{}", names.join(", "))
}
