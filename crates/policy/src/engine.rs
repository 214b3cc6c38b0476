//! Evaluation: a pure function that says what it lacks.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use countersign_jmespath::{Error, Scope};
use countersign_reference::kyverno::ImageInfo;
use countersign_reference::{Reference, wildcard_match};
use countersign_site::{Mode, PinForm, Pinning, Site};
use countersign_verdict::{Code, Decision, Outcome as Found, Question, Tier, Verdict, text};
use serde_json::{Value, json};

use crate::images::{self, Found as Image};
use crate::load::{Body, Policy, Rule, Step, Verify};
use crate::{Review, patch};

/// Images of one pod that are looked at.
pub const MAX_IMAGES: usize = 64;

/// Which of the two webhooks asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Rewrite, verify, pin.
    Mutate,
    /// Decide on the object that will be stored.
    Validate,
}

/// A fact that a rule needs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Want {
    /// What has to be known.
    pub question: Question,
    /// Whether the answer is worth waiting for: Audit takes only what is at hand.
    pub wait: bool,
}

/// The facts of one request; they never change within it.
#[derive(Clone, Debug, Default)]
pub struct Facts(HashMap<Want, Option<Verdict>>);

impl Facts {
    /// Notes an answer; `None` says that there is none at hand.
    pub fn add(&mut self, want: Want, answer: Option<Verdict>) {
        self.0.entry(want).or_insert(answer);
    }
}

/// What came of an evaluation.
#[derive(Clone, Debug)]
pub enum Evaluation {
    /// These facts are needed first: all that are known to be, at once.
    Needs(Vec<Want>),
    /// The answer.
    Done(Box<Outcome>),
}

/// The answer to a review.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The object as it should be stored.
    pub object: Value,
    /// Why it may not be; empty if it may.
    pub denials: Vec<String>,
    /// What whoever made the request should know.
    pub warnings: Vec<String>,
    /// One for each image and rule that covers it.
    pub results: Vec<RuleResult>,
}

/// What a rule found about an image.
#[derive(Clone, Debug)]
pub struct RuleResult {
    /// The policy.
    pub policy: String,
    /// The rule.
    pub rule: String,
    /// The image as the request has it.
    pub written: String,
    /// What was found.
    pub finding: Finding,
    /// Whether the rule enforces.
    pub enforce: bool,
    /// What follows.
    pub decision: Decision,
}

/// A verdict, or the question that one is still due for: Audit does not wait.
#[derive(Clone, Debug)]
pub enum Finding {
    /// What was found.
    Known(Verdict),
    /// Nothing is at hand.
    Pending(Question),
}

impl Finding {
    /// The verdict, if there is one.
    pub fn verdict(&self) -> Option<&Verdict> {
        match self {
            Self::Known(verdict) => Some(verdict),
            Self::Pending(_) => None,
        }
    }
}

/// Compiled policies and the Site they work in.
#[derive(Clone, Debug)]
pub struct Engine {
    policies: Vec<Policy>,
    site: Arc<Site>,
}

impl Engine {
    /// Policies are evaluated in the order of their names.
    pub fn new(mut policies: Vec<Policy>, site: Arc<Site>) -> Self {
        policies.sort_by(|a, b| a.name.cmp(&b.name));
        Self { policies, site }
    }

    /// The policies, in order.
    pub fn policies(&self) -> &[Policy] {
        &self.policies
    }

    /// Whether an Enforce rule could select a request of this kind, whatever its content.
    pub fn could_enforce(&self, kind: &str, namespace: &str) -> bool {
        self.site.mode == Mode::Enforce
            && self.policies.iter().any(|policy| {
                policy.namespace.as_ref().is_none_or(|own| own == namespace)
                    && policy.rules.iter().any(|rule| {
                        let enforces = match &rule.body {
                            Body::Mutate(_) => false,
                            Body::Verify(entries) => entries.iter().any(|entry| entry.enforce),
                            Body::Refused { enforce, .. } => *enforce,
                        };
                        enforces && rule.select.could_select(kind, namespace)
                    })
            })
    }

    /// Evaluates a review with the facts there are.
    pub fn evaluate(&self, review: &Review, phase: Phase, tier: Tier, facts: &Facts) -> Evaluation {
        let mut run = Run {
            engine: self,
            review,
            tier,
            facts,
            wants: Vec::new(),
            outcome: Outcome {
                object: review.object.clone(),
                denials: vec![],
                warnings: vec![],
                results: vec![],
            },
        };
        if review.operation == "DELETE" || review.object.is_null() {
            return Evaluation::Done(Box::new(run.outcome));
        }
        if phase == Phase::Mutate {
            run.mutate();
            run.put_back();
        }
        run.verify(phase);
        if run.wants.is_empty() {
            Evaluation::Done(Box::new(run.outcome))
        } else {
            Evaluation::Needs(run.wants)
        }
    }

    fn enforces(&self, enforce: bool) -> bool {
        enforce && self.site.mode == Mode::Enforce
    }

    /// Whether a namespace is of the tier that must not deadlock.
    pub fn is_bootstrap(&self, namespace: &str) -> bool {
        self.site.bootstrap_namespaces.contains(namespace)
    }
}

struct Run<'a> {
    engine: &'a Engine,
    review: &'a Review,
    tier: Tier,
    facts: &'a Facts,
    wants: Vec<Want>,
    outcome: Outcome,
}

/// The names that expressions may use.
struct Names<'a> {
    values: BTreeMap<&'static str, Value>,
    engine: &'a Engine,
    namespace: &'a str,
}

impl Scope for Names<'_> {
    fn lookup(&self, name: &str) -> Result<Option<&Value>, Error> {
        Ok(self.values.get(name))
    }

    fn call(&self, name: &str, arguments: &[Value]) -> Option<Result<Value, Error>> {
        (name == "registry_rewrite").then(|| {
            let failed = |message: String| Error::Call { function: name.to_owned(), message };
            let [Value::String(image)] = arguments else {
                return Err(failed("takes one image".to_owned()));
            };
            let rewrite = &self.engine.site.rewrite;
            if !rewrite.enabled || (self.engine.is_bootstrap(self.namespace) && !rewrite.bootstrap) {
                return Ok(json!(image));
            }
            let reference = Reference::parse(image).map_err(|error| failed(error.to_string()))?;
            let rewritten =
                rewrite.rewriter.rewrite(&reference).map_err(|error| failed(error.to_string()))?;
            Ok(json!(rewritten.to_string()))
        })
    }
}

impl Run<'_> {
    fn names(&self) -> Names<'_> {
        let mut request = self.review.request.clone();
        request["object"] = self.outcome.object.clone();
        let values =
            BTreeMap::from([("request", request), ("images", images::variable(&self.outcome.object))]);
        Names { values, engine: self.engine, namespace: &self.review.namespace }
    }

    fn mutate(&mut self) {
        // One `images` for all mutate rules, as upstream: they see what was written.
        let mut names = self.names().values;
        let engine = self.engine;
        let review = self.review;
        for policy in &engine.policies {
            for rule in &policy.rules {
                let speaks = policy.namespace.as_ref().is_none_or(|own| *own == review.namespace);
                let Body::Mutate(steps) = &rule.body else { continue };
                if !speaks || !rule.select.selects(review) || rule.exclude.selects(review) {
                    continue;
                }
                let mut scope = Names { values: names, engine, namespace: &review.namespace };
                let mut object = self.outcome.object.clone();
                match apply(&mut scope, rule, steps, &mut object) {
                    Ok(()) => {
                        if let Some(request) = scope.values.get_mut("request") {
                            request["object"] = object.clone();
                        }
                        self.outcome.object = object;
                    }
                    Err(error) => self.mutation_failed(policy, rule, &error),
                }
                names = scope.values;
            }
        }
    }

    /// A mutate rule is never Enforce or Audit: the policy's failurePolicy says what an error means.
    fn mutation_failed(&mut self, policy: &Policy, rule: &Rule, error: &Error) {
        let message = format!(
            "mutation policy {} error: failed to apply policy {} rules [{}: {error}]",
            policy.name, policy.name, rule.name
        );
        let lenient = policy.failure_policy == countersign_verdict::FailurePolicy::Ignore
            || self.tier == Tier::Ignore
            || self.engine.site.mode == Mode::Audit;
        if lenient { self.outcome.warnings.push(message) } else { self.outcome.denials.push(message) }
    }

    /// On UPDATE, what the request did not change is not changed here either, and a name and tag
    /// that are stored already keep the digest they are stored with.
    fn put_back(&mut self) {
        let Some(old) = self.review.old.as_ref() else { return };
        let stored = images::of_pod(old);
        let incoming = images::of_pod(&self.review.object);
        for image in images::of_pod(&self.outcome.object) {
            let Some(before) = stored.iter().find(|old| old.list == image.list && old.name == image.name)
            else {
                continue;
            };
            let written = incoming.iter().find(|new| new.list == image.list && new.name == image.name);
            let unchanged = written.is_some_and(|written| written.image == before.image);
            let same = match (Reference::parse(&image.image), Reference::parse(&before.image)) {
                (Ok(new), Ok(old)) => new.digest().is_none() && new.same_name_and_tag(&old),
                _ => false,
            };
            if (unchanged || same)
                && let Some(slot) = self.outcome.object.pointer_mut(&image.pointer)
            {
                *slot = json!(before.image);
            }
        }
    }

    fn verify(&mut self, phase: Phase) {
        if self.review.kind != "Pod" {
            return;
        }
        let stored: Vec<Image> = self.review.old.as_ref().map(images::of_pod).unwrap_or_default();
        let all = images::of_pod(&self.outcome.object);
        let too_many = all.len() > MAX_IMAGES;
        let written = images::of_pod(&self.review.object);
        let new: Vec<Image> = all
            .into_iter()
            .filter(|image| {
                !stored
                    .iter()
                    .any(|old| old.list == image.list && old.name == image.name && old.image == image.image)
            })
            .collect();
        let engine = self.engine;
        let mut pins: BTreeMap<String, Value> = BTreeMap::new();
        let rules: Vec<(&Policy, &Rule)> = {
            let review = self.review;
            let speaks =
                move |policy: &&Policy| policy.namespace.as_ref().is_none_or(|own| *own == review.namespace);
            let rules = engine
                .policies
                .iter()
                .filter(speaks)
                .flat_map(|policy| policy.rules.iter().map(move |rule| (policy, rule)));
            rules.filter(|(_, rule)| rule.select.selects(review) && !rule.exclude.selects(review)).collect()
        };
        for (policy, rule) in rules {
            match &rule.body {
                Body::Mutate(_) => {}
                Body::Refused { enforce, refusal } => {
                    let message =
                        format!("rule {}/{} could not be loaded: {refusal}", policy.name, rule.name);
                    if new.is_empty() && self.review.operation == "UPDATE" {
                        continue;
                    }
                    if engine.enforces(*enforce) && self.tier == Tier::Fail {
                        self.outcome.denials.push(message);
                    } else if *enforce {
                        self.outcome.warnings.push(message);
                    }
                }
                Body::Verify(entries) => {
                    let scope = self.names();
                    match rule.preconditions.hold(&scope) {
                        Ok(true) => {}
                        Ok(false) => continue,
                        Err(error) => {
                            let message = format!(
                                "{}/{}: failed to evaluate preconditions: {error}",
                                policy.name, rule.name
                            );
                            if entries.iter().any(|entry| engine.enforces(entry.enforce)) {
                                self.outcome.denials.push(message);
                            } else {
                                self.outcome.warnings.push(message);
                            }
                            continue;
                        }
                    }
                    for image in &new {
                        let origin = written.iter().find(|w| w.list == image.list && w.name == image.name);
                        let origin = origin.map_or(image.image.clone(), |origin| origin.image.clone());
                        for entry in entries {
                            self.judge(policy, rule, entry, image, &origin, too_many, phase, &mut pins);
                        }
                    }
                }
            }
        }
        if phase == Phase::Mutate && self.wants.is_empty() {
            for (pointer, pinned) in pins {
                if let Some(slot) = self.outcome.object.pointer_mut(&pointer) {
                    *slot = pinned;
                }
            }
        }
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "one image under one entry of one rule: these are its parts"
    )]
    fn judge(
        &mut self,
        policy: &Policy,
        rule: &Rule,
        entry: &Verify,
        image: &Image,
        written: &str,
        too_many: bool,
        phase: Phase,
        pins: &mut BTreeMap<String, Value>,
    ) {
        let site = &self.engine.site;
        let enforce = self.engine.enforces(entry.enforce);
        let reference = match Reference::parse(&image.image) {
            Ok(reference) => reference.with_default_tag(),
            Err(error) => {
                // Nobody can say which pattern it would match: any that is there covers it.
                let shown: String = image.image.chars().take(200).collect();
                let message = format!(
                    "image `{shown}` was denied by {}/{}: {error} [{}]",
                    policy.name,
                    rule.name,
                    Code::BadReference
                );
                if enforce {
                    self.outcome.denials.push(message);
                } else {
                    self.outcome.warnings.push(message);
                }
                return;
            }
        };
        if !self.covers(entry, &image.image, &reference) {
            return;
        }
        // A node's scoped rules send an image that keeps its name to the same endpoints.
        let asked = if self.engine.is_bootstrap(&self.review.namespace) && site.rewrite.enabled {
            site.rewrite.rewriter.rewrite(&reference).unwrap_or_else(|_| reference.clone())
        } else {
            reference.clone()
        };
        let refused = |code, why: &str| Verdict::because(asked.clone(), Found::Refused, code, why);
        let finding = if too_many {
            Finding::Known(refused(Code::TooManyImages, "a pod has more than 64 images"))
        } else if phase == Phase::Validate
            && enforce
            && site.pinning == Pinning::Always
            && reference.digest().is_none()
        {
            let why = "was not pinned: added or changed after Countersign's mutation";
            Finding::Known(refused(Code::NotPinned, why))
        } else {
            let question = Question {
                image: asked.clone(),
                attestors: entry.attestors.clone(),
                repository: entry.repository.clone(),
            };
            let want = Want { question, wait: enforce };
            match self.facts.0.get(&want) {
                Some(Some(verdict)) => Finding::Known(verdict.clone()),
                Some(None) => Finding::Pending(want.question),
                None => {
                    if !self.wants.contains(&want) {
                        self.wants.push(want);
                    }
                    return;
                }
            }
        };
        let decision = match finding.verdict() {
            Some(verdict) if enforce => verdict.outcome.decide(policy.failure_policy, self.tier),
            _ => Decision::Admit,
        };
        if let Some(verdict) = finding.verdict() {
            if decision == Decision::Deny {
                self.outcome.denials.push(text::denial(verdict, written, &policy.name, &rule.name));
            } else if enforce && verdict.proof().is_none() {
                self.outcome.warnings.push(format!(
                    "{}/{}: {}: {}",
                    policy.name,
                    rule.name,
                    asked,
                    text::summary(verdict)
                ));
            }
            if let Some(since) = verdict.proof().and_then(|proof| proof.stale_since) {
                let stale = format!("no registry answers: the tag was last confirmed at {since}");
                self.outcome.warnings.push(format!("{}/{}: {asked}: {stale}", policy.name, rule.name));
            }
            let pinning = match site.pinning {
                Pinning::Always => true,
                Pinning::Policy => entry.pin,
                Pinning::Off => false,
            };
            // Audit pins only from a mapping that is fresh.
            let usable = verdict.proof().filter(|proof| enforce || proof.stale_since.is_none());
            if let Some(proof) = usable.filter(|_| pinning) {
                let pinned = reference.clone().with_digest(proof.digest.clone());
                let pinned = if site.pin_form == PinForm::Digest { pinned.without_tag() } else { pinned };
                pins.insert(image.pointer.clone(), json!(pinned.to_string()));
            }
        }
        self.outcome.results.push(RuleResult {
            policy: policy.name.clone(),
            rule: rule.name.clone(),
            written: written.to_owned(),
            finding,
            enforce,
            decision,
        });
    }

    /// `imageReferences` match the stored reference or its origin, so rewriting takes no coverage away.
    fn covers(&self, entry: &Verify, image: &str, reference: &Reference) -> bool {
        let spellings = |reference: &Reference, raw: &str| {
            let mut forms = vec![reference.to_string(), reference.clone().with_host().to_string()];
            if let Ok(info) = ImageInfo::parse(raw) {
                forms.extend([info.reference(), info.reference_with_tag()]);
            }
            forms
        };
        let mut forms = spellings(reference, image);
        if let Some(origin) = self.engine.site.rewrite.rewriter.origin(reference) {
            forms.extend(spellings(&origin, &origin.to_string()));
        }
        let matches = |patterns: &[String]| {
            patterns.iter().any(|pattern| forms.iter().any(|form| wildcard_match(pattern, form)))
        };
        matches(&entry.references) && !matches(&entry.skip)
    }
}

/// Applies the steps of a mutate rule to an object.
fn apply(scope: &mut Names<'_>, rule: &Rule, steps: &[Step], object: &mut Value) -> Result<(), Error> {
    if !rule.preconditions.hold(scope)? {
        return Ok(());
    }
    for step in steps {
        let Some(list) = &step.list else {
            if step.preconditions.hold(scope)? {
                patch::merge(object, &step.patch.fill(scope)?);
            }
            continue;
        };
        let elements = match list.evaluate(scope)?.into_owned() {
            Value::Array(elements) => elements,
            Value::Null => Vec::new(),
            other => vec![other],
        };
        // Descending, as upstream does it for strategic merges.
        for (index, element) in
            elements.into_iter().enumerate().rev().filter(|(_, element)| !element.is_null())
        {
            scope.values.insert("element", element);
            scope.values.insert("elementIndex", json!(index));
            if step.preconditions.hold(scope)? {
                patch::merge(object, &step.patch.fill(scope)?);
            }
        }
        scope.values.remove("element");
        scope.values.remove("elementIndex");
    }
    Ok(())
}
