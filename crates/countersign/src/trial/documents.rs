//! Policies, exceptions and objects from files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail};
use countersign_policy::{Exception, Keys, Policy};
use serde_json::{Value, json};

use crate::{policies, sources};

/// The fields of a rule that say what it does, and those of `validate` that say how.
const BODIES: [&str; 4] = ["mutate", "validate", "verifyImages", "generate"];
const CHECKS: [&str; 8] =
    ["pattern", "anyPattern", "deny", "foreach", "podSecurity", "cel", "manifests", "assert"];

/// Kinds of Kubernetes that have no namespace.
const WITHOUT_NAMESPACE: [&str; 20] = [
    "APIService",
    "CSIDriver",
    "CSINode",
    "CertificateSigningRequest",
    "ClusterPolicy",
    "ClusterRole",
    "ClusterRoleBinding",
    "CustomResourceDefinition",
    "IngressClass",
    "MutatingWebhookConfiguration",
    "Namespace",
    "Node",
    "PersistentVolume",
    "PriorityClass",
    "RuntimeClass",
    "StorageClass",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
    "ValidatingWebhookConfiguration",
    "VolumeAttachment",
];

/// What was read.
#[derive(Default)]
pub(crate) struct Documents {
    pub(crate) policies: Vec<PolicySource>,
    pub(crate) exceptions: Vec<Exception>,
    pub(crate) objects: Vec<Value>,
}

/// A policy, and what its document says besides.
pub(crate) struct PolicySource {
    pub(crate) policy: Policy,
    /// Whether a failure counts as one: `policies.kyverno.io/scored` is not `false`.
    pub(crate) scored: bool,
    /// What each of its rules does, as `validate.deny`.
    pub(crate) kinds: BTreeMap<String, String>,
}

impl PolicySource {
    fn of(document: &Value, policy: Policy) -> Self {
        let rules = document["spec"]["rules"].as_array().into_iter().flatten();
        let kinds = rules.map(|rule| (rule["name"].as_str().unwrap_or_default().to_owned(), kind_of(rule)));
        let scored = document["metadata"]["annotations"]["policies.kyverno.io/scored"] != "false";
        Self { policy, scored, kinds: kinds.collect() }
    }

    /// Its name without a namespace.
    pub(crate) fn own_name(&self) -> &str {
        self.policy.name.rsplit('/').next().unwrap_or_default()
    }

    /// Whether it goes by a name: `name`, or `namespace/name`.
    pub(crate) fn is_called(&self, name: &str) -> bool {
        name == self.policy.name || name == self.own_name()
    }
}

fn kind_of(rule: &Value) -> String {
    let bodies = BODIES.into_iter().filter(|body| !rule[body].is_null());
    let shown = bodies.map(|body| {
        let how = CHECKS.into_iter().find(|check| body == "validate" && !rule[body][check].is_null());
        how.map_or_else(|| body.to_owned(), |how| format!("{body}.{how}"))
    });
    shown.collect::<Vec<_>>().join("+")
}

impl Documents {
    /// Reads policies from a file, or from every `*.yaml` and `*.yml` of a directory.
    pub(crate) fn read_policies(&mut self, path: &Path, keys: &Keys) -> Result<()> {
        for file in files(path)? {
            for document in read(&file)? {
                let shown =
                    format!("{}: {} `{}`", file.display(), word(&document["kind"]), name_of(&document));
                let group = document["apiVersion"].as_str().unwrap_or_default();
                if let Some(policy) = countersign_policy::load_given(&document, keys) {
                    if self.policies.iter().any(|other| other.policy.name == policy.name) {
                        bail!("{shown}: a policy of this name stands twice");
                    }
                    self.policies.push(PolicySource::of(&document, policy));
                } else if is_policy_group(group) {
                    bail!(
                        "{shown} ({group}) is not supported: expected ClusterPolicy or Policy of kyverno.io"
                    );
                } else {
                    crate::site::warn(&format!("{shown} is no policy, and is left out"));
                }
            }
        }
        Ok(())
    }

    /// Reads PolicyExceptions.
    pub(crate) fn read_exceptions(&mut self, path: &Path) -> Result<()> {
        for file in files(path)? {
            for document in read(&file)? {
                let shown =
                    format!("{}: {} `{}`", file.display(), word(&document["kind"]), name_of(&document));
                let exception = Exception::load(&document);
                let exception = exception.with_context(|| format!("{shown} is no PolicyException"))?;
                if let Some(refusal) = exception.refusals.first() {
                    bail!("{shown}: {refusal}");
                }
                self.exceptions.push(exception);
            }
        }
        Ok(())
    }

    /// Reads objects, those in Lists one by one.
    pub(crate) fn read_objects(&mut self, path: &Path) -> Result<()> {
        for file in files(path)? {
            let documents = read(&file)?;
            self.add_objects(documents, &file.display().to_string())?;
        }
        Ok(())
    }

    /// Reads objects from a text.
    pub(crate) fn add_objects(&mut self, documents: Vec<Value>, from: &str) -> Result<()> {
        for document in documents {
            for object in apart(document) {
                if object["kind"].as_str().is_none() || object["apiVersion"].as_str().is_none() {
                    bail!("{from}: a document without `apiVersion` or `kind` is no object");
                }
                self.objects.push(object);
            }
        }
        Ok(())
    }
}

/// The objects of a document as the API server has them: those of a List by themselves, each in a
/// namespace, if it is of a kind that has one.
pub(crate) fn apart(mut document: Value) -> Vec<Value> {
    let is_list = document["kind"].as_str().is_some_and(|kind| kind.ends_with("List"));
    match document.get_mut("items").map(Value::take) {
        Some(Value::Array(items)) if is_list => items.into_iter().flat_map(apart).collect(),
        Some(items) => {
            document["items"] = items;
            vec![placed(document)]
        }
        None => vec![placed(document)],
    }
}

fn placed(mut object: Value) -> Value {
    let kind = object["kind"].as_str().unwrap_or_default();
    let metadata = &object["metadata"];
    let nowhere = metadata["namespace"].as_str().unwrap_or_default().is_empty();
    if nowhere && metadata.is_object() && !WITHOUT_NAMESPACE.contains(&kind) {
        object["metadata"]["namespace"] = json!("default");
    }
    object
}

/// An object's name, or the beginning of one that is yet to be made.
pub(crate) fn name_of(object: &Value) -> &str {
    let metadata = &object["metadata"];
    metadata["name"].as_str().or(metadata["generateName"].as_str()).unwrap_or_default()
}

/// Its namespace; empty for one that has none.
pub(crate) fn namespace_of(object: &Value) -> &str {
    object["metadata"]["namespace"].as_str().unwrap_or_default()
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or("(no kind)")
}

fn is_policy_group(group: &str) -> bool {
    ["kyverno.io/", "policies.kyverno.io/", "admissionregistration.k8s.io/"]
        .iter()
        .any(|known| group.starts_with(known))
}

/// The documents of a file.
pub(crate) fn read(path: &Path) -> Result<Vec<Value>> {
    let text = sources::text(path).map_err(|why| anyhow!(why))?;
    countersign_yaml::documents(&text).with_context(|| path.display().to_string())
}

/// The file, or those of a directory in the order of their names.
pub(crate) fn files(path: &Path) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    policies::in_directory(path).with_context(|| path.display().to_string())
}
