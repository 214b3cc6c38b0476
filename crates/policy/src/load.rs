//! `kyverno.io` documents → compiled policies.
//!
//! Every field is known by name: supported, refused with its path and a reason, or accepted
//! with a warning where it has no effect here. A rule that cannot be loaded is kept as what it
//! is, because under Enforce it denies what it selects.

use std::collections::{BTreeMap, BTreeSet};

use countersign_signature::Trust;
use countersign_verdict::{Attestor, AttestorSet, Attestors, FailurePolicy, SignatureRepository};
use serde_json::{Value, json};

use crate::Review;
use crate::action::{Action, Place, word_of, would_enforce};
use crate::conditions::Conditions;
use crate::context::Entry;
use crate::fields::{Fields, Notes, Refusal};
use crate::keys::Keys;
use crate::mutate::Step;
use crate::selector::Selector;
use crate::validate::Validate;
use crate::{autogen, mutate};

impl Policy {
    /// Whether it speaks of what a request is about: one of a namespace of what is in it, and that is not
    /// the Namespace itself, although the API server names it as such.
    pub(crate) fn speaks_of(&self, review: &Review) -> bool {
        let is_in = |own: &String| *own == review.namespace && review.kind != "Namespace";
        self.namespace.as_ref().is_none_or(is_in)
    }

    /// Whether the labels of a namespace have a say in whether its rules enforce.
    pub(crate) fn asks_for_labels(&self) -> bool {
        let of_rule = |rule: &Rule| match &rule.body {
            Body::Validate(own) => own.action.asks_for_labels(),
            Body::Mutate(_) | Body::Verify(_) | Body::Refused { .. } => false,
        };
        self.action.asks_for_labels() || self.rules.iter().any(of_rule)
    }
}

/// A policy that can be evaluated, in whole or in part.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Its name; `namespace/name` for a namespaced one.
    pub name: String,
    /// Set for a namespaced one: what it speaks of.
    pub(crate) namespace: Option<String>,
    pub(crate) failure_policy: FailurePolicy,
    /// Whether its rules enforce, where they do not say themselves.
    pub(crate) action: Action,
    /// Whether the first rule that has something to say is the last.
    pub(crate) one: bool,
    /// Whether it counts at admission.
    pub(crate) admission: bool,
    /// Whether violations that are not denied are told.
    pub(crate) emit_warning: bool,
    pub(crate) rules: Vec<Rule>,
    /// The controllers that its rules for pods speak of as well.
    pub(crate) covers: BTreeSet<&'static str>,
    /// What could not be loaded.
    pub refusals: Vec<Refusal>,
    /// What has no effect here.
    pub warnings: Vec<Refusal>,
}

#[derive(Clone, Debug)]
pub(crate) struct Rule {
    pub(crate) name: String,
    pub(crate) select: Selector,
    pub(crate) exclude: Selector,
    pub(crate) context: Vec<Entry>,
    pub(crate) preconditions: Conditions,
    pub(crate) body: Body,
}

#[derive(Clone, Debug)]
pub(crate) enum Body {
    Mutate(Vec<Step>),
    Validate(Box<Validate>),
    Verify(Vec<Verify>),
    /// Cannot be loaded; denies if it would have enforced.
    Refused {
        enforce: bool,
        /// It speaks of images alone, so an UPDATE that changes none is none of its business.
        images_only: bool,
        refusal: Refusal,
    },
}

#[derive(Clone, Debug)]
pub(crate) struct Verify {
    pub(crate) references: Vec<String>,
    pub(crate) skip: Vec<String>,
    pub(crate) attestors: Attestors,
    pub(crate) repository: Option<SignatureRepository>,
    pub(crate) pin: bool,
    /// Its own word on whether it enforces.
    action: Option<bool>,
}

impl Verify {
    /// Whether it enforces in this namespace.
    pub(crate) fn enforces(&self, policy: &Policy, place: Place<'_>) -> bool {
        self.action.or(policy.action.of(place)).unwrap_or(false)
    }
}

/// Compiles a ClusterPolicy or Policy with the keys that it may name.
///
/// `None` if the document is of another kind.
pub fn load(document: &Value, keys: &Keys) -> Option<Policy> {
    read(document, keys, false).map(|(policy, _)| policy)
}

/// The same for where somebody gives what is not asked for at admission: answers to API calls, the roles of
/// users ([`Given`](crate::Given)).
pub fn load_given(document: &Value, keys: &Keys) -> Option<Policy> {
    read(document, keys, true).map(|(policy, _)| policy)
}

/// The fields that decide something, of every object that a policy has: `spec.rules.match.any`. Those that
/// are refused, or have no effect, are none of them.
pub fn decisive_fields(document: &Value) -> BTreeSet<String> {
    read(document, &Keys::default(), true).map(|(_, notes)| notes.decisive).unwrap_or_default()
}

fn read(document: &Value, keys: &Keys, given: bool) -> Option<(Policy, Notes)> {
    let group = document["apiVersion"].as_str()?;
    let kind = document["kind"].as_str()?;
    if !group.starts_with("kyverno.io/") || !matches!(kind, "ClusterPolicy" | "Policy") {
        return None;
    }
    let mut notes = Notes { given, ..Notes::default() };
    if !matches!(group, "kyverno.io/v1" | "kyverno.io/v2beta1") {
        notes.refuse("apiVersion", format!("`{group}` is not supported: expected kyverno.io/v1 or v2beta1"));
    }
    let metadata = &document["metadata"];
    let own = metadata["name"].as_str().unwrap_or("(unnamed)");
    let namespace =
        (kind == "Policy").then(|| metadata["namespace"].as_str().unwrap_or("default").to_owned());
    let name = namespace.as_ref().map_or_else(|| own.to_owned(), |namespace| format!("{namespace}/{own}"));
    let mut top = Fields::of(document, "", &mut notes);
    top.known(&["apiVersion", "kind", "metadata", "status"]);
    let mut spec = Fields::of(top.take("spec").unwrap_or(&Value::Null), "spec", &mut notes);
    top.finish(&mut notes);
    let action =
        Action::read(&mut spec, ("validationFailureAction", "validationFailureActionOverrides"), &mut notes);
    let failure_policy = match spec.text("failurePolicy", &mut notes) {
        None | Some("Fail") => FailurePolicy::Fail,
        Some("Ignore") => FailurePolicy::Ignore,
        Some(other) => {
            notes.refuse("spec.failurePolicy", format!("`{other}` is not `Fail` or `Ignore`"));
            FailurePolicy::Fail
        }
    };
    let one = match spec.text("applyRules", &mut notes) {
        None | Some("All") => false,
        Some("One") => true,
        Some(other) => {
            notes.refuse("spec.applyRules", format!("`{other}` is not `All` or `One`"));
            false
        }
    };
    let admission = spec.flag("admission", &mut notes).unwrap_or(true);
    let emit_warning = spec.flag("emitWarning", &mut notes).unwrap_or(false);
    let reason = "has no effect here: evaluation has its own deadline, and there is no background scan yet";
    spec.no_effect(
        &[
            "background",
            "webhookTimeoutSeconds",
            "schemaValidation",
            "skipBackgroundRequests",
            "useServerSideApply",
        ],
        reason,
        &mut notes,
    );
    for field in ["mutateExistingOnPolicyUpdate", "generateExisting", "generateExistingOnPolicyUpdate"] {
        spec.never(field, "objects that are there already are not changed or made", &mut notes);
    }
    spec.not_yet(&["webhookConfiguration"], &mut notes);
    spec.list("rules", &mut notes);
    let enforce = action.somewhere().unwrap_or(false);
    let mut rules = Vec::new();
    let mut read = BTreeSet::new();
    for (rule, index) in autogen::rules(document) {
        // What was said of a rule is not said again of those that were written from it.
        let mut quiet = Notes { given, ..Notes::default() };
        let told = if read.insert(index) { &mut notes } else { &mut quiet };
        rules.push(read_rule(&rule, index, enforce, keys, told));
        // But for what is wrong with those alone.
        for refusal in quiet.refusals {
            if !notes.refusals.iter().any(|known| known.path == refusal.path) {
                notes.refusals.push(refusal);
            }
        }
    }
    spec.finish(&mut notes);
    let policy = Policy {
        name,
        namespace,
        failure_policy,
        action,
        one,
        admission,
        emit_warning,
        rules,
        covers: autogen::covered(document),
        refusals: std::mem::take(&mut notes.refusals),
        warnings: std::mem::take(&mut notes.warnings),
    };
    Some((policy, notes))
}

fn read_rule(value: &Value, index: usize, enforce: bool, keys: &Keys, all: &mut Notes) -> Rule {
    let path = format!("spec.rules[{index}]");
    let mut notes = Notes { given: all.given, ..Notes::default() };
    let mut fields = Fields::of(value, &path, &mut notes);
    let name = fields.text("name", &mut notes).unwrap_or("(unnamed)").to_owned();
    let select = Selector::read(fields.take("match"), &format!("{path}.match"), &mut notes);
    if select.is_empty() {
        notes.refuse(&format!("{path}.match"), "selects nothing");
    } else if !select.names_kinds() {
        notes.refuse(
            &format!("{path}.match"),
            "names no kind: `kinds` is needed in every block of `any`, or in `all`",
        );
    }
    let before = notes.refusals.len();
    let mut exclude = Selector::read(fields.take("exclude"), &format!("{path}.exclude"), &mut notes);
    if notes.refusals.len() > before {
        // What cannot be read excludes nothing.
        exclude = Selector::default();
    }
    let preconditions =
        Conditions::read(fields.take("preconditions"), &format!("{path}.preconditions"), &mut notes);
    fields.no_effect(
        &["skipBackgroundRequests"],
        "has no effect here: there are no background requests",
        &mut notes,
    );
    let context = Entry::read_all(fields.list("context", &mut notes), &format!("{path}.context"), &mut notes);
    fields.no_effect(&["reportProperties"], "has no effect here: there are no reports yet", &mut notes);
    fields.not_yet(&["imageExtractors", "celPreconditions"], &mut notes);
    fields.never("generate", "objects are not made", &mut notes);
    let mut body = None;
    if let Some(mutate) = fields.take("mutate") {
        body = Some(Body::Mutate(mutate::read(mutate, &format!("{path}.mutate"), &mut notes)));
    }
    // What judges, and whether it would have enforced: anything but a clear `Audit` does.
    let mut judges = None;
    if let Some(validate) = fields.take("validate") {
        judges = Some((would_enforce(validate, enforce), false));
        let read = Validate::read(validate, &format!("{path}.validate"), &mut notes);
        body = read.map(|read| Body::Validate(Box::new(read)));
    }
    let verify = fields.list("verifyImages", &mut notes);
    let bodies = ["mutate", "validate", "verifyImages", "generate"];
    let bodies: Vec<&str> = bodies.into_iter().filter(|body| !value[body].is_null()).collect();
    if bodies.len() > 1 {
        notes.refuse(
            &path,
            format!("has {}: a rule does one thing, write one for each", bodies.join(" and ")),
        );
    }
    if value.get("verifyImages").is_some_and(|verify| verify.as_array().is_some_and(Vec::is_empty)) {
        notes.refuse(&format!("{path}.verifyImages"), "expected a list with something in it");
    }
    if value.get("verifyImages").is_some_and(|verify| !verify.is_null()) {
        let any = verify.iter().any(|entry| would_enforce(entry, enforce)) || (verify.is_empty() && enforce);
        judges = Some((any || judges.is_some_and(|(enforce, _)| enforce), judges.is_none()));
        if !select.speaks_of_pods() {
            notes.refuse(&format!("{path}.match"), "images are verified in pods, and this selects none");
        }
        let mut entries = Vec::new();
        for (index, entry) in verify.iter().enumerate() {
            let path = format!("{path}.verifyImages[{index}]");
            entries.extend(read_verify(entry, &path, keys, &mut notes));
        }
        body = Some(Body::Verify(entries));
    }
    fields.finish(&mut notes);
    if body.is_none() && notes.refusals.is_empty() {
        notes.refuse(&path, "has none of `mutate`, `validate` and `verifyImages`");
    }
    // A rule with a part that cannot be loaded is not evaluated in part.
    if let Some(refusal) = notes.refusals.first().cloned() {
        let (enforce, images_only) = judges.unwrap_or((false, false));
        body = Some(Body::Refused { enforce, images_only, refusal });
    }
    all.extend(notes);
    Rule { name, select, exclude, context, preconditions, body: body.unwrap_or(Body::Mutate(Vec::new())) }
}

fn read_verify(value: &Value, path: &str, keys: &Keys, notes: &mut Notes) -> Option<Verify> {
    let mut fields = Fields::of(value, path, notes);
    let own = fields.text("failureAction", notes);
    let own = word_of(own, &format!("{path}.failureAction"), notes);
    match fields.text("type", notes) {
        None | Some("Cosign" | "SigstoreBundle") => {}
        Some(other) => notes.refuse(&format!("{path}.type"), format!("`{other}` is not supported yet")),
    }
    // Both are looked for.
    fields.known(&["type"]);
    let mut references = fields.texts("imageReferences", notes);
    // The form of before 1.6, which upstream still reads.
    references.extend(fields.text("image", notes).map(ToOwned::to_owned));
    if references.is_empty() {
        notes.refuse(&format!("{path}.imageReferences"), "an image reference is required");
    }
    let skip = fields.texts("skipImageReferences", notes);
    let repository = repository_of(&mut fields, notes);
    let pin = fields.flag("mutateDigest", notes).unwrap_or(true);
    fields.no_effect(
        &["verifyDigest", "required"],
        "the Site's `pinning` decides, and every verdict is required",
        notes,
    );
    fields.no_effect(
        &["useCache", "cosignOCI11"],
        "has no effect here: every source of signatures is asked",
        notes,
    );
    fields.no_effect(
        &["imageRegistryCredentials"],
        "has no effect here: endpoints and their credentials are the Site's",
        notes,
    );
    fields
        .not_yet(&["roots", "subject", "issuer", "additionalExtensions", "attestations", "validate"], notes);
    let mut of_entries = Vec::new();
    let mut sets = Vec::new();
    for (index, set) in fields.list("attestors", notes).iter().enumerate() {
        let path = format!("{path}.attestors[{index}]");
        sets.push(read_set(set, &path, keys, &mut of_entries, notes));
    }
    // `key` and `annotations` beside `image` are an attestor set of their own.
    let annotations: BTreeMap<_, _> = fields.strings("annotations", notes).into_iter().collect();
    if let Some(key) = fields.text("key", notes) {
        let written = json!({ "publicKeys": key });
        let found = keys.read(&written, &format!("{path}.key"), &annotations, None, notes);
        let entries = found.into_iter().map(Attestor::Keys).collect();
        of_entries.push(None);
        sets.push(AttestorSet { count: None, entries });
    } else if !annotations.is_empty() {
        notes.refuse(
            &format!("{path}.annotations"),
            "these are of `key`: those of an attestor stand in its entry",
        );
    }
    fields.finish(notes);
    // Each entry's own, or that of the whole: there is one place to look in.
    let places: Vec<_> = of_entries.into_iter().map(|own| own.or_else(|| repository.clone())).collect();
    if places.iter().any(|place| *place != places[0]) {
        notes.refuse(path, "signatures in several repositories: write an entry of `verifyImages` for each");
    }
    let repository = places.into_iter().next().unwrap_or(repository);
    let attestors = Attestors::new(sets);
    if let Err(error) = Trust::new(&attestors) {
        notes.refuse(path, error.to_string());
        return None;
    }
    Some(Verify { references, skip, attestors, repository, pin, action: own })
}

/// A repository that has the signatures of images of others.
fn repository_of(fields: &mut Fields<'_>, notes: &mut Notes) -> Option<SignatureRepository> {
    let (text, path) = (fields.text("repository", notes)?, fields.path_of("repository"));
    match SignatureRepository::parse(text) {
        Ok(None) => {
            let reason = "is a host, not a repository: signatures are looked for beside each image";
            notes.warn(&path, format!("`{text}` {reason}"));
            None
        }
        Ok(found) => found,
        Err(error) => {
            notes.refuse(&path, error.to_string());
            None
        }
    }
}

fn read_set(
    value: &Value,
    path: &str,
    keys: &Keys,
    repositories: &mut Vec<Option<SignatureRepository>>,
    notes: &mut Notes,
) -> AttestorSet {
    let mut fields = Fields::of(value, path, notes);
    let count = fields.take("count").and_then(|count| {
        let count = count.as_u64().and_then(|count| usize::try_from(count).ok());
        if count.is_none() {
            notes.refuse(&format!("{path}.count"), "expected a whole number");
        }
        count
    });
    let mut entries = Vec::new();
    for (index, entry) in fields.list("entries", notes).iter().enumerate() {
        let path = format!("{path}.entries[{index}]");
        let mut entry = Fields::of(entry, &path, notes);
        let annotations: BTreeMap<_, _> = entry.strings("annotations", notes).into_iter().collect();
        entry.not_yet(&["certificates", "keyless"], notes);
        let own = repository_of(&mut entry, notes);
        let hash = entry.text("signatureAlgorithm", notes);
        if let Some(keys_value) = entry.take("keys") {
            let found = keys.read(keys_value, &format!("{path}.keys"), &annotations, hash, notes);
            entries.extend(found.into_iter().map(Attestor::Keys));
            repositories.push(own);
        } else if let Some(nested) = entry.take("attestor") {
            let path = format!("{path}.attestor");
            entries.push(Attestor::Set(read_set(nested, &path, keys, repositories, notes)));
        } else {
            notes.refuse(&path, "expected `keys`");
        }
        entry.finish(notes);
    }
    fields.finish(notes);
    AttestorSet { count, entries }
}
