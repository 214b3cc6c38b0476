//! `kyverno.io` documents → compiled policies.
//!
//! Every field is known by name: supported, refused with its path and a reason, or accepted
//! with a warning where it has no effect here. A rule that cannot be loaded is kept as what it
//! is, because under Enforce it denies what it selects.

use std::collections::BTreeMap;

use countersign_signature::Trust;
use countersign_verdict::{Attestor, AttestorSet, Attestors, FailurePolicy, SignatureRepository};
use serde_json::Value;

use crate::anchor::{Anchor, Kind};
use crate::conditions::Conditions;
use crate::fields::{Fields, Notes, Refusal};
use crate::keys::Keys;
use crate::selector::Selector;
use crate::template::Template;
use countersign_jmespath::Expression;

/// The fields of an entry of `verifyImages` that decide, by their paths; each has a test that shows that
/// it can deny. The others have no effect here, or refuse their rule.
pub const VERIFY_FIELDS: [&str; 13] = [
    "imageReferences",
    "skipImageReferences",
    "failureAction",
    "repository",
    "attestors",
    "attestors.count",
    "attestors.entries",
    "attestors.entries.annotations",
    "attestors.entries.attestor",
    "attestors.entries.keys",
    "attestors.entries.keys.publicKeys",
    "attestors.entries.keys.secret",
    "attestors.entries.keys.signatureAlgorithm",
];

/// A policy that can be evaluated, in whole or in part.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Its name; `namespace/name` for a namespaced one.
    pub name: String,
    /// Set for a namespaced one: what it speaks of.
    pub(crate) namespace: Option<String>,
    pub(crate) failure_policy: FailurePolicy,
    pub(crate) rules: Vec<Rule>,
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
    pub(crate) preconditions: Conditions,
    pub(crate) body: Body,
}

#[derive(Clone, Debug)]
pub(crate) enum Body {
    Mutate(Vec<Step>),
    Verify(Vec<Verify>),
    /// Cannot be loaded; denies if it would have enforced.
    Refused {
        enforce: bool,
        /// It speaks of images alone, so an UPDATE that changes none is none of its business.
        images_only: bool,
        refusal: Refusal,
    },
}

/// A strategic merge, once or for each element of a list.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) list: Option<Expression>,
    pub(crate) preconditions: Conditions,
    pub(crate) patch: Template,
}

#[derive(Clone, Debug)]
pub(crate) struct Verify {
    pub(crate) references: Vec<String>,
    pub(crate) skip: Vec<String>,
    pub(crate) attestors: Attestors,
    pub(crate) repository: Option<SignatureRepository>,
    pub(crate) pin: bool,
    pub(crate) enforce: bool,
}

/// Compiles a ClusterPolicy or Policy with the keys that it may name.
///
/// `None` if the document is of another kind.
pub fn load(document: &Value, keys: &Keys) -> Option<Policy> {
    let group = document["apiVersion"].as_str()?;
    let kind = document["kind"].as_str()?;
    if !group.starts_with("kyverno.io/") || !matches!(kind, "ClusterPolicy" | "Policy") {
        return None;
    }
    let mut notes = Notes::default();
    if !matches!(group, "kyverno.io/v1" | "kyverno.io/v2beta1") {
        notes.refuse("apiVersion", format!("`{group}` is not supported: expected kyverno.io/v1 or v2beta1"));
    }
    let metadata = &document["metadata"];
    let own = metadata["name"].as_str().unwrap_or("(unnamed)");
    let namespace =
        (kind == "Policy").then(|| metadata["namespace"].as_str().unwrap_or("default").to_owned());
    let name = namespace.as_ref().map_or_else(|| own.to_owned(), |namespace| format!("{namespace}/{own}"));
    let autogen = &metadata["annotations"]["pod-policies.kyverno.io/autogen-controllers"];
    if autogen != "none" {
        notes.warn(
            "metadata.annotations",
            "rules are not generated for workload templates yet: the pods they make are judged",
        );
    }
    let mut top = Fields::of(document, "", &mut notes);
    for known in ["apiVersion", "kind", "metadata", "status"] {
        top.take(known);
    }
    let mut spec = Fields::of(top.take("spec").unwrap_or(&Value::Null), "spec", &mut notes);
    top.finish(&mut notes);
    let enforce =
        action(spec.text("validationFailureAction", &mut notes), "spec.validationFailureAction", &mut notes);
    let failure_policy = match spec.text("failurePolicy", &mut notes) {
        None | Some("Fail") => FailurePolicy::Fail,
        Some("Ignore") => FailurePolicy::Ignore,
        Some(other) => {
            notes.refuse("spec.failurePolicy", format!("`{other}` is not `Fail` or `Ignore`"));
            FailurePolicy::Fail
        }
    };
    let reason = "has no effect here: verification has its own deadline, and runs when asked";
    spec.no_effect(
        &[
            "background",
            "admission",
            "emitWarning",
            "webhookTimeoutSeconds",
            "schemaValidation",
            "skipBackgroundRequests",
            "useServerSideApply",
        ],
        reason,
        &mut notes,
    );
    // Who would enforce somewhere is taken to enforce everywhere: no rule of it is weakened.
    let overrides = spec.list("validationFailureActionOverrides", &mut notes);
    let mut enforce = enforce;
    if !overrides.is_empty() {
        notes.refuse("spec.validationFailureActionOverrides", "not supported yet: every rule enforces");
        enforce = Some(true);
    }
    spec.not_yet(
        &[
            "applyRules",
            "webhookConfiguration",
            "mutateExistingOnPolicyUpdate",
            "generateExisting",
            "generateExistingOnPolicyUpdate",
        ],
        &mut notes,
    );
    let mut rules = Vec::new();
    for (index, rule) in spec.list("rules", &mut notes).iter().enumerate() {
        rules.push(read_rule(rule, index, enforce.unwrap_or(false), keys, &mut notes));
    }
    spec.finish(&mut notes);
    Some(Policy {
        name,
        namespace,
        failure_policy,
        rules,
        refusals: notes.refusals,
        warnings: notes.warnings,
    })
}

fn action(text: Option<&str>, path: &str, notes: &mut Notes) -> Option<bool> {
    match text?.to_ascii_lowercase().as_str() {
        "enforce" => Some(true),
        "audit" => Some(false),
        other => {
            notes.refuse(path, format!("`{other}` is not `Enforce` or `Audit`"));
            // What cannot be read is not a reason to let go.
            Some(true)
        }
    }
}

fn read_rule(value: &Value, index: usize, enforce: bool, keys: &Keys, all: &mut Notes) -> Rule {
    let path = format!("spec.rules[{index}]");
    let mut notes = Notes::default();
    let mut fields = Fields::of(value, &path, &mut notes);
    let name = fields.text("name", &mut notes).unwrap_or("(unnamed)").to_owned();
    let select = Selector::read(fields.take("match"), &format!("{path}.match"), &mut notes);
    if select.is_empty() {
        notes.refuse(&format!("{path}.match"), "selects nothing");
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
    fields.not_yet(
        &["context", "generate", "imageExtractors", "celPreconditions", "reportProperties"],
        &mut notes,
    );
    let mut body = None;
    if let Some(mutate) = fields.take("mutate") {
        body = Some(Body::Mutate(read_mutate(mutate, &format!("{path}.mutate"), &mut notes)));
    }
    // What judges, and whether it would have enforced: anything but a clear `Audit` does.
    let mut judges = None;
    let enforces = |value: &Value| match value.get("failureAction") {
        None => enforce,
        Some(own) => !own.as_str().is_some_and(|text| text.eq_ignore_ascii_case("audit")),
    };
    if let Some(validate) = fields.take("validate") {
        notes.refuse(&format!("{path}.validate"), "not supported yet");
        judges = Some((enforces(validate), false));
    }
    let verify = fields.list("verifyImages", &mut notes);
    if value.get("verifyImages").is_some_and(|verify| !verify.is_null()) {
        let any = verify.iter().any(enforces) || (verify.is_empty() && enforce);
        judges = Some((any || judges.is_some_and(|(enforce, _)| enforce), judges.is_none()));
        if !select.speaks_of_pods() {
            notes.refuse(&format!("{path}.match"), "images are verified in pods, and this selects none");
        }
        let mut entries = Vec::new();
        for (index, entry) in verify.iter().enumerate() {
            let path = format!("{path}.verifyImages[{index}]");
            entries.extend(read_verify(entry, &path, enforce, keys, &mut notes));
        }
        body = Some(Body::Verify(entries));
    }
    fields.finish(&mut notes);
    if body.is_none() && notes.refusals.is_empty() {
        notes.refuse(&path, "has neither `mutate` nor `verifyImages`");
    }
    // A rule with a part that cannot be loaded is not evaluated in part.
    if let Some(refusal) = notes.refusals.first().cloned() {
        let (enforce, images_only) = judges.unwrap_or((false, false));
        body = Some(Body::Refused { enforce, images_only, refusal });
    }
    all.refusals.extend(notes.refusals);
    all.warnings.extend(notes.warnings);
    Rule { name, select, exclude, preconditions, body: body.unwrap_or(Body::Mutate(Vec::new())) }
}

fn read_mutate(value: &Value, path: &str, notes: &mut Notes) -> Vec<Step> {
    let mut fields = Fields::of(value, path, notes);
    let mut steps = Vec::new();
    if let Some(patch) = fields.take("patchStrategicMerge") {
        let patch = template(patch, &format!("{path}.patchStrategicMerge"), notes);
        steps.extend(patch.map(|patch| Step { list: None, preconditions: Conditions::default(), patch }));
    }
    for (index, step) in fields.list("foreach", notes).iter().enumerate() {
        let path = format!("{path}.foreach[{index}]");
        let mut fields = Fields::of(step, &path, notes);
        let text = fields.text("list", notes).unwrap_or_default();
        let list = crate::expression(text);
        let list = list.map_err(|error| notes.refuse(&format!("{path}.list"), error.to_string())).ok();
        let preconditions =
            Conditions::read(fields.take("preconditions"), &format!("{path}.preconditions"), notes);
        let patch = fields.take("patchStrategicMerge").cloned().unwrap_or_default();
        let patch = template(&patch, &format!("{path}.patchStrategicMerge"), notes);
        fields.not_yet(&["context", "foreach", "order", "patchesJson6902"], notes);
        fields.finish(notes);
        if let (Some(list), Some(patch)) = (list, patch) {
            steps.push(Step { list: Some(list), preconditions, patch });
        }
    }
    fields.not_yet(&["patchesJson6902", "targets", "mutateExistingOnPolicyUpdate"], notes);
    fields.finish(notes);
    steps
}

/// A patch as a template, its anchors among those that are supported.
fn template(value: &Value, path: &str, notes: &mut Notes) -> Option<Template> {
    let mut ok = value.is_object();
    if !ok {
        notes.refuse(path, "expected an object");
    }
    let mut todo = vec![value];
    while let Some(value) = todo.pop() {
        match value {
            Value::Array(list) => todo.extend(list),
            Value::Object(fields) => {
                for (name, value) in fields {
                    let kind = Anchor::parse(name).map(|anchor| anchor.kind);
                    if matches!(kind, Some(Kind::Negation | Kind::Equality | Kind::Existence)) {
                        notes.refuse(path, format!("anchor `{name}` is none of a patch"));
                        ok = false;
                    }
                    todo.push(value);
                }
            }
            _ => {}
        }
    }
    let template = Template::of(value).map_err(|error| notes.refuse(path, error.to_string())).ok()?;
    ok.then_some(template)
}

fn read_verify(value: &Value, path: &str, enforce: bool, keys: &Keys, notes: &mut Notes) -> Option<Verify> {
    let mut fields = Fields::of(value, path, notes);
    let own = fields.text("failureAction", notes);
    let own = action(own, &format!("{path}.failureAction"), notes);
    match fields.text("type", notes) {
        None | Some("Cosign" | "SigstoreBundle") => {}
        Some(other) => notes.refuse(&format!("{path}.type"), format!("`{other}` is not supported yet")),
    }
    let references = fields.texts("imageReferences", notes);
    if references.is_empty() {
        notes.refuse(&format!("{path}.imageReferences"), "an image reference is required");
    }
    let skip = fields.texts("skipImageReferences", notes);
    let repository =
        fields.text("repository", notes).and_then(|text| match SignatureRepository::parse(text) {
            Ok(None) => {
                notes.warn(
                    &format!("{path}.repository"),
                    format!(
                        "`{text}` is a host, not a repository: signatures are looked for beside each image"
                    ),
                );
                None
            }
            Ok(found) => found,
            Err(error) => {
                notes.refuse(&format!("{path}.repository"), error.to_string());
                None
            }
        });
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
    fields.not_yet(
        &[
            "image",
            "key",
            "roots",
            "subject",
            "issuer",
            "annotations",
            "additionalExtensions",
            "attestations",
            "validate",
            "imageRegistryCredentials",
        ],
        notes,
    );
    let mut sets = Vec::new();
    for (index, set) in fields.list("attestors", notes).iter().enumerate() {
        sets.push(read_set(set, &format!("{path}.attestors[{index}]"), keys, notes));
    }
    fields.finish(notes);
    let attestors = Attestors::new(sets);
    if let Err(error) = Trust::new(&attestors) {
        notes.refuse(path, error.to_string());
        return None;
    }
    Some(Verify { references, skip, attestors, repository, pin, enforce: own.unwrap_or(enforce) })
}

fn read_set(value: &Value, path: &str, keys: &Keys, notes: &mut Notes) -> AttestorSet {
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
        entry.not_yet(&["certificates", "keyless", "repository", "signatureAlgorithm"], notes);
        if let Some(keys_value) = entry.take("keys") {
            let found = keys.read(keys_value, &format!("{path}.keys"), &annotations, notes);
            entries.extend(found.into_iter().map(Attestor::Keys));
        } else if let Some(nested) = entry.take("attestor") {
            entries.push(Attestor::Set(read_set(nested, &format!("{path}.attestor"), keys, notes)));
        } else {
            notes.refuse(&path, "expected `keys`");
        }
        entry.finish(notes);
    }
    fields.finish(notes);
    AttestorSet { count, entries }
}
