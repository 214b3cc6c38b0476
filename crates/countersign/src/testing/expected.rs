//! A `kyverno-test.yaml` (`cli.kyverno.io/v1alpha1`, kind `Test`), field by field.

use std::path::PathBuf;

use anyhow::{Result, bail};
use serde_json::Value;

use crate::trial::{Values, known, list, text};

/// What is tried, and what should come of it; paths are as they are written.
pub(super) struct Test {
    pub(super) name: String,
    pub(super) policies: Vec<PathBuf>,
    pub(super) objects: Vec<PathBuf>,
    pub(super) exceptions: Vec<PathBuf>,
    pub(super) variables: Option<PathBuf>,
    pub(super) values: Option<Values>,
    pub(super) user: Option<PathBuf>,
    pub(super) results: Vec<Expected>,
}

/// What a rule should say of some objects.
pub(super) struct Expected {
    pub(super) policy: String,
    /// Empty: whatever rule has something to say.
    pub(super) rule: String,
    pub(super) kind: String,
    /// None: every object of the kind.
    pub(super) objects: Vec<Object>,
    pub(super) word: String,
    pub(super) patched: Option<PathBuf>,
    pub(super) operation: Option<String>,
    /// What it expects that is never made here.
    pub(super) generated: bool,
}

/// Which object is meant.
pub(super) struct Object {
    pub(super) name: String,
    pub(super) namespace: Option<String>,
}

impl Object {
    /// Reads `name` or `namespace/name`.
    fn parse(text: &str) -> Self {
        match text.split_once('/') {
            Some((namespace, name)) => Self { name: name.to_owned(), namespace: Some(namespace.to_owned()) },
            None => Self { name: text.to_owned(), namespace: None },
        }
    }

    pub(super) fn shown(&self) -> String {
        match &self.namespace {
            Some(namespace) => format!("{namespace}/{}", self.name),
            None => self.name.clone(),
        }
    }
}

impl Test {
    pub(super) fn read(document: &Value) -> Result<Self> {
        let group = document["apiVersion"].as_str();
        if !matches!(group, None | Some("cli.kyverno.io/v1alpha1")) {
            bail!("apiVersion: expected cli.kyverno.io/v1alpha1");
        }
        if !matches!(document["kind"].as_str(), None | Some("Test")) {
            bail!("kind: expected Test");
        }
        let fields = ["policies", "resources", "exceptions", "variables", "values", "userinfo", "results"];
        known(document, "the test", &[&["apiVersion", "kind", "metadata", "name"], &fields[..]].concat())?;
        let name = text(&document["metadata"], "name");
        let name = if name.is_empty() { text(document, "name") } else { name };
        let values = Some(&document["values"]).filter(|values| !values.is_null());
        let mut results = Vec::new();
        for (index, result) in list(&document["results"]).iter().enumerate() {
            results.push(Expected::read(result, index)?);
        }
        Ok(Self {
            name,
            policies: paths(&document["policies"]),
            objects: paths(&document["resources"]),
            exceptions: paths(&document["exceptions"]),
            variables: path(&document["variables"]),
            values: values.map(|values| Values::of(values, "values")).transpose()?,
            user: path(&document["userinfo"]),
            results,
        })
    }
}

impl Expected {
    fn read(value: &Value, index: usize) -> Result<Self> {
        let from = format!("results[{index}]");
        let fields = ["policy", "rule", "kind", "resource", "resources", "resourceSpecs", "result", "status"];
        let more = [
            "patchedResource",
            "patchedResources",
            "operation",
            "generatedResource",
            "generatedResources",
            "cloneSourceResource",
            "namespace",
        ];
        known(value, &from, &[&fields[..], &more[..]].concat())?;
        let word = value["result"].as_str().or(value["status"].as_str()).unwrap_or_default();
        if !matches!(word, "pass" | "fail" | "skip" | "error" | "warn") {
            bail!("{from}.result: `{word}` is not `pass`, `fail`, `skip`, `error` or `warn`");
        }
        let names = list(&value["resources"]).iter().filter_map(Value::as_str);
        let mut objects: Vec<Object> = names.chain(value["resource"].as_str()).map(Object::parse).collect();
        for spec in list(&value["resourceSpecs"]) {
            let namespace = spec["namespace"].as_str().map(str::to_owned);
            objects.push(Object { name: text(spec, "name"), namespace });
        }
        if let Some(namespace) = value["namespace"].as_str() {
            for object in &mut objects {
                object.namespace.get_or_insert_with(|| namespace.to_owned());
            }
        }
        let kind = text(value, "kind");
        let patched = path(&value["patchedResources"]).or_else(|| path(&value["patchedResource"]));
        Ok(Self {
            policy: text(value, "policy"),
            rule: text(value, "rule"),
            kind: kind.rsplit('/').next().unwrap_or_default().to_owned(),
            objects,
            word: word.to_owned(),
            patched,
            operation: value["operation"].as_str().map(str::to_owned),
            generated: ["generatedResource", "generatedResources", "cloneSourceResource"]
                .iter()
                .any(|field| !value[field].is_null()),
        })
    }
}

fn paths(value: &Value) -> Vec<PathBuf> {
    list(value).iter().filter_map(path).collect()
}

fn path(value: &Value) -> Option<PathBuf> {
    value.as_str().map(PathBuf::from)
}
