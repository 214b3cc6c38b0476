//! One evaluation: mutate rules, then a case for each image and rule that covers it.
//!
//! What depends on no fact is done once: rounds that wait for facts look only at the cases.

use std::collections::BTreeMap;

use countersign_jmespath::Error;
use countersign_reference::Reference;
use countersign_site::{PinForm, Pinning};
use countersign_verdict::{
    Code, Decision, FailurePolicy, Outcome as Found, PullSecrets, Question, Tier, Verdict, text,
};
use serde_json::{Value, json};

use crate::engine::covers;
use crate::images::{self, Image};
use crate::load::{Body, Policy, Rule, Step, Verify};
use crate::merge::{MergeError, merge_in_place};
use crate::merge_keys::Shape;
use crate::names::Names;
use crate::{Engine, Evaluation, Facts, Finding, MAX_IMAGES, Outcome, Phase, Review, RuleResult, Want};

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
    cases: Vec<Case<'a>>,
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

impl<'a> Run<'a> {
    pub(crate) fn new(engine: &'a Engine, review: &'a Review, phase: Phase, tier: Tier) -> Self {
        let names = Names::new(engine, review);
        let (denials, warnings, cases) = (Vec::new(), Vec::new(), Vec::new());
        let mut run = Self { engine, review, phase, tier, names, denials, warnings, cases };
        if review.operation != "DELETE" && !review.object().is_null() {
            // What is far too much is not worked on: every rule that covers an image denies it.
            let too_many = images::of_pod(review.object()).len() > MAX_WORKED_ON;
            if phase == Phase::Mutate && !too_many {
                run.mutate();
                run.put_back();
            }
            run.names.mutated();
            run.judge();
        }
        run
    }

    /// What is lacking, or the answer; after the answer there is no other.
    pub(crate) fn evaluate(&mut self, facts: &Facts) -> Evaluation {
        let mut wants: Vec<Want> = Vec::new();
        let mut findings = Vec::new();
        for case in &self.cases {
            match (&case.settled, facts.get(&case.want)) {
                (None, Some(Some(verdict))) if case.unpinned && !verdict.outcome.is_undecided() => {
                    let image = case.want.question.image.clone();
                    let refused = Verdict::because(image, Found::Refused, Code::NotPinned, NOT_PINNED);
                    findings.push(Finding::Known(refused));
                }
                (Some(verdict), _) | (None, Some(Some(verdict))) => {
                    findings.push(Finding::Known(verdict.clone()));
                }
                (None, Some(None)) => findings.push(Finding::Pending(case.want.question.clone())),
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

    /// The rules that select the request as it came.
    fn rules(&self) -> impl Iterator<Item = (&'a Policy, &'a Rule)> + use<'a> {
        let (engine, review) = (self.engine, self.review);
        let speaks =
            move |policy: &&Policy| policy.namespace.as_ref().is_none_or(|own| *own == review.namespace);
        let rules = engine
            .policies()
            .iter()
            .filter(speaks)
            .flat_map(|policy| policy.rules.iter().map(move |rule| (policy, rule)));
        rules.filter(move |(_, rule)| rule.select.selects(review) && !rule.exclude.selects(review))
    }

    fn mutate(&mut self) {
        for (policy, rule) in self.rules() {
            let Body::Mutate(steps) = &rule.body else { continue };
            match patches(&mut self.names, rule, steps) {
                Ok(patches) => {
                    if let Err(error) = self.merge(&patches) {
                        self.mutation_failed(policy, rule, &error);
                    }
                }
                Err(error) => self.mutation_failed(policy, rule, &error),
            }
            self.names.set_element(None);
        }
    }

    /// Merges the patches of one rule: all of them or none.
    fn merge(&mut self, patches: &[Value]) -> Result<(), MergeError> {
        let mut merged = self.names.object().clone();
        let shape = Shape::of_kind(&self.review.request["kind"]);
        for patch in patches {
            merge_in_place(&mut merged, patch, shape)?;
        }
        *self.names.object_mut() = merged;
        Ok(())
    }

    /// A mutate rule is never Enforce or Audit: the policy's failurePolicy says what an error means.
    fn mutation_failed(&mut self, policy: &Policy, rule: &Rule, error: &dyn std::fmt::Display) {
        let message = format!(
            "mutation policy {} error: failed to apply policy {} rules [{}: {error}]",
            policy.name, policy.name, rule.name
        );
        let lenient = policy.failure_policy == FailurePolicy::Ignore
            || self.tier == Tier::Ignore
            || !self.engine.enforces(true);
        if lenient { self.warnings.push(message) } else { self.denials.push(message) }
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
    fn judge(&mut self) {
        let stored = self.review.old().map(images::of_pod).unwrap_or_default();
        let written = images::of_pod(self.review.object());
        let images = if self.review.kind == "Pod" { images::of_pod(self.names.object()) } else { vec![] };
        let too_many = images.len() > MAX_IMAGES;
        let images: Vec<Image<'_>> = images.into_iter().take(MAX_WORKED_ON).collect();
        let written: Vec<Image<'_>> = written.into_iter().take(MAX_WORKED_ON).collect();
        let unchanged =
            |image: &Image<'_>| stored.iter().any(|old| old.is_at(image) && old.image == image.image);
        let new: Vec<Image<'_>> = images.into_iter().filter(|image| !unchanged(image)).collect();
        // Each parsed once, whatever the number of rules.
        let parsed: Vec<_> = new
            .iter()
            .map(|image| {
                let origin = written.iter().find(|written| written.is_at(image));
                let written = origin.map_or(image.image, |origin| origin.image);
                (image, written, Reference::parse(image.image).map(Reference::with_default_tag))
            })
            .collect();
        let (mut denials, mut warnings, mut cases) = (Vec::new(), Vec::new(), Vec::new());
        for (policy, rule) in self.rules() {
            match &rule.body {
                Body::Mutate(_) => {}
                Body::Refused { enforce, images_only, refusal } => {
                    if *images_only && new.is_empty() && self.review.operation == "UPDATE" {
                        continue;
                    }
                    let message =
                        format!("rule {}/{} could not be loaded: {refusal}", policy.name, rule.name);
                    if self.engine.enforces(*enforce) && self.tier == Tier::Fail {
                        denials.push(message);
                    } else if *enforce {
                        warnings.push(message);
                    }
                }
                // An UPDATE that changes no image is never denied by image rules.
                Body::Verify(_) if new.is_empty() => {}
                Body::Verify(entries) => {
                    match rule.preconditions.hold(&self.names) {
                        Ok(true) => {}
                        Ok(false) => continue,
                        Err(error) => {
                            let (policy, rule) = (&policy.name, &rule.name);
                            let enforces = entries.iter().any(|entry| self.engine.enforces(entry.enforce));
                            let deny = enforces && self.tier == Tier::Fail;
                            let told = if deny { &mut denials } else { &mut warnings };
                            told.push(format!("{policy}/{rule}: failed to evaluate preconditions: {error}"));
                            continue;
                        }
                    }
                    for (image, written, reference) in &parsed {
                        for entry in entries {
                            let enforce = self.engine.enforces(entry.enforce);
                            match reference {
                                Ok(reference) if !self.covers(entry, image.image, reference) => {}
                                Ok(reference) => cases.push(self.case(
                                    (policy, rule, entry),
                                    image.pointer(),
                                    written,
                                    reference,
                                    too_many,
                                )),
                                // Nobody can say which pattern it would match: any that is there covers it.
                                Err(error) => {
                                    let shown: String = image.image.chars().take(200).collect();
                                    let (policy, rule) = (&policy.name, &rule.name);
                                    let told = if enforce { &mut denials } else { &mut warnings };
                                    told.push(format!(
                                        "image `{shown}` was denied by {policy}/{rule}: {error} [{}]",
                                        Code::BadReference
                                    ));
                                }
                            }
                        }
                    }
                }
            }
        }
        self.denials.extend(denials);
        self.warnings.extend(warnings);
        self.cases = cases;
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
        pointer: String,
        written: &str,
        reference: &Reference,
        too_many: bool,
    ) -> Case<'a> {
        let site = self.engine.site();
        let enforce = self.engine.enforces(entry.enforce);
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
        let want = Want { question, wait: enforce };
        let (reference, written) = (reference.clone(), written.to_owned());
        Case { policy, rule, entry, enforce, pointer, written, reference, want, settled, unpinned }
    }

    fn conclude(&mut self, findings: Vec<Finding>) -> Outcome {
        let mut outcome = Outcome {
            object: Value::Null,
            denials: std::mem::take(&mut self.denials),
            warnings: std::mem::take(&mut self.warnings),
            results: Vec::with_capacity(findings.len()),
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
                    pins.insert(case.pointer, pin);
                }
            }
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

    /// What whoever made the request is told.
    #[expect(clippy::unused_self, reason = "reads like its neighbours")]
    fn tell(&self, case: &Case<'_>, verdict: &Verdict, decision: Decision, outcome: &mut Outcome) {
        let (policy, rule, image) = (&case.policy.name, &case.rule.name, &case.want.question.image);
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

/// The patches of a mutate rule, all of them before any is applied: a rule that fails changes nothing.
fn patches(names: &mut Names<'_>, rule: &Rule, steps: &[Step]) -> Result<Vec<Value>, Error> {
    let mut patches = Vec::new();
    if !rule.preconditions.hold(names)? {
        return Ok(patches);
    }
    for step in steps {
        let Some(list) = &step.list else {
            if step.preconditions.hold(names)? {
                patches.push(step.patch.fill(names)?);
            }
            continue;
        };
        let elements = match list.evaluate(names)?.into_owned() {
            Value::Array(elements) => elements,
            Value::Null => Vec::new(),
            other => vec![other],
        };
        // Descending, as upstream does it for strategic merges.
        for (index, element) in
            elements.into_iter().enumerate().rev().filter(|(_, element)| !element.is_null())
        {
            names.set_element(Some((element, index)));
            if step.preconditions.hold(names)? {
                patches.push(step.patch.fill(names)?);
            }
        }
        names.set_element(None);
    }
    Ok(patches)
}
