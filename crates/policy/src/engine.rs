//! Evaluation: a pure function that says what it lacks.

use std::collections::HashMap;
use std::sync::Arc;

use countersign_reference::kyverno::ImageInfo;
use countersign_reference::{Reference, wildcard_match};
use countersign_site::{Mode, Site};
use countersign_verdict::{Decision, Question, Tier, Verdict};
use serde_json::Value;

use crate::action::Place;
use crate::load::{Body, Policy, Rule, Verify};
use crate::respond::Response;
use crate::run::Run;
use crate::{Exception, Review};

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
pub enum Want {
    /// Whether an image is signed as a rule asks.
    Verdict {
        /// What has to be known.
        question: Question,
        /// Whether the answer is worth waiting for: Audit takes only what is at hand.
        wait: bool,
    },
    /// A ConfigMap.
    ConfigMap {
        /// Where.
        namespace: String,
        /// Which.
        name: String,
    },
    /// The labels of a namespace.
    Namespace {
        /// Which.
        name: String,
    },
    /// The roles that somebody is bound to: `roles`, each as `NAMESPACE:NAME`, and `clusterRoles`.
    Roles {
        /// Who.
        username: String,
        /// The groups that he is in.
        groups: Vec<String>,
    },
}

impl Want {
    /// What is asked about an image, and whether the answer is worth waiting for.
    pub fn question(&self) -> Option<(&Question, bool)> {
        match self {
            Self::Verdict { question, wait } => Some((question, *wait)),
            Self::ConfigMap { .. } | Self::Namespace { .. } | Self::Roles { .. } => None,
        }
    }
}

/// What somebody found out. That it could not be found out is a fact, too.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "there are a handful for each request")]
pub enum Fact {
    /// The verdict; `None` says that there is none at hand.
    Verdict(Option<Verdict>),
    /// A ConfigMap, the labels of a namespace, or the roles of somebody; or why there are none.
    Value(Result<Value, String>),
}

/// The facts of one request; they never change within it.
#[derive(Clone, Debug, Default)]
pub struct Facts(HashMap<Want, Fact>);

impl Facts {
    pub(crate) fn get(&self, want: &Want) -> Option<&Fact> {
        self.0.get(want)
    }

    /// Notes an answer.
    pub fn add(&mut self, want: Want, answer: Fact) {
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
    /// One for each rule that selects the request and has run to its end.
    pub responses: Vec<Response>,
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
    exceptions: Vec<Exception>,
    site: Arc<Site>,
}

impl Engine {
    /// Policies are evaluated in the order of their names, those of the cluster first: what one of a
    /// namespace takes of the steps for a request is taken from none of them.
    pub fn new(mut policies: Vec<Policy>, site: Arc<Site>) -> Self {
        policies.sort_by(|a, b| (a.namespace.is_some(), &a.name).cmp(&(b.namespace.is_some(), &b.name)));
        Self { policies, exceptions: Vec::new(), site }
    }

    /// The same with exceptions, which count from the namespaces that the Site names.
    #[must_use]
    pub fn with_exceptions(self, mut exceptions: Vec<Exception>) -> Self {
        exceptions.retain(|exception| self.site.exception_namespaces.contains(&exception.namespace));
        exceptions.sort_by(|a, b| a.name.cmp(&b.name));
        Self { exceptions, ..self }
    }

    pub(crate) fn exceptions(&self) -> &[Exception] {
        &self.exceptions
    }

    /// The policies, in order.
    pub fn policies(&self) -> &[Policy] {
        &self.policies
    }

    /// Whether an Enforce rule could select this request, whatever the object says. Of a review its
    /// `request` without objects is enough.
    pub fn could_enforce(&self, review: &Review) -> bool {
        let place = Place { namespace: &review.namespace, labels: None };
        let enforces = |policy: &Policy, rule: &Rule| match &rule.body {
            Body::Mutate(_) => false,
            Body::Validate(own) => own.action.of(place).or(policy.action.of(place)).unwrap_or(false),
            Body::Verify(entries) => entries.iter().any(|entry| entry.enforces(policy, place)),
            Body::Refused { enforce, .. } => *enforce,
        };
        let selects =
            |policy: &Policy, rule: &Rule| enforces(policy, rule) && rule.select.could_select(review);
        self.site.mode == Mode::Enforce
            && self
                .policies
                .iter()
                .filter(|policy| policy.speaks_of(review))
                .any(|policy| policy.rules.iter().any(|rule| selects(policy, rule)))
    }

    /// Evaluates a review with the facts there are.
    pub fn evaluate(&self, review: &Review, phase: Phase, tier: Tier, facts: &Facts) -> Evaluation {
        self.begin(review, phase, tier).evaluate(facts)
    }

    /// An evaluation that is asked again when there are more facts.
    pub(crate) fn begin<'a>(&'a self, review: &'a Review, phase: Phase, tier: Tier) -> Run<'a> {
        Run::new(self, review, phase, tier)
    }

    pub(crate) fn site(&self) -> &Site {
        &self.site
    }

    pub(crate) fn enforces(&self, enforce: bool) -> bool {
        enforce && self.site.mode == Mode::Enforce
    }

    /// Whether a namespace is of the tier that must not deadlock.
    pub fn is_bootstrap(&self, namespace: &str) -> bool {
        self.site.bootstrap_namespaces.contains(namespace)
    }
}

/// `imageReferences` match the stored reference or its origin, so rewriting takes no coverage away.
pub(crate) fn covers(engine: &Engine, entry: &Verify, image: &str, reference: &Reference) -> bool {
    // Most policies say no more than this.
    if entry.skip.is_empty() && entry.references.iter().any(|pattern| pattern == "*") {
        return true;
    }
    // Each name that the image may go by: the one that is stored, and those that it may have had
    // before it was rewritten. Each in the spellings that policies were written for.
    let rewriter = &engine.site.rewrite.rewriter;
    let of = |origins: Vec<Reference>| -> Vec<Vec<String>> {
        origins.iter().map(|origin| spellings(origin, &origin.to_string())).collect()
    };
    let matches = |patterns: &[String], forms: &[String]| {
        patterns.iter().any(|pattern| forms.iter().any(|form| wildcard_match(pattern, form)))
    };
    let stored = spellings(reference, image);
    let covered = matches(&entry.references, &stored)
        || of(rewriter.origins(reference)).iter().any(|forms| matches(&entry.references, forms));
    // A digest decides what runs, so a tag beside it lifts nothing. Where several hosts share a
    // path, nobody knows which one it was: all of them have to be skipped.
    let skipped = |forms: &Vec<String>| {
        let exact: Vec<String> =
            forms.iter().filter(|form| reference.digest().is_none() || is_by_digest(form)).cloned().collect();
        matches(&entry.skip, &exact)
    };
    let likeliest = of(rewriter.likeliest_origins(reference));
    covered && !skipped(&stored) && (likeliest.is_empty() || !likeliest.iter().all(skipped))
}

/// `name@digest`, without a tag.
fn is_by_digest(form: &str) -> bool {
    form.split_once('@').is_some_and(|(name, _)| !name.rsplit('/').next().unwrap_or(name).contains(':'))
}

fn spellings(reference: &Reference, raw: &str) -> Vec<String> {
    let mut forms = vec![reference.to_string(), reference.clone().with_host().to_string()];
    if let Ok(info) = ImageInfo::parse(raw) {
        forms.extend([info.reference(), info.reference_with_tag()]);
    }
    // The hub's own images go without `library/`, too.
    if let Some(short) = reference.path().strip_prefix("library/").filter(|_| reference.host() == "docker.io")
        && let Ok(info) = ImageInfo::parse(&reference.to_string().replacen("library/", "", 1))
    {
        debug_assert_eq!(info.path, short);
        forms.extend([info.reference(), info.reference_with_tag()]);
    }
    forms
}
