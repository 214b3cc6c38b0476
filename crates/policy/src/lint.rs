//! What is wrong with policies and exceptions before anybody applies them.

use std::collections::BTreeSet;

use countersign_reference::wildcard_match;
use jiff::Timestamp;
use serde_json::Value;

use crate::anchor::{Anchor, Kind};
use crate::selector::blocks;
use crate::template_pod::TEMPLATES;
use crate::{Exception, Keys, Policy, autogen, load};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// It is not what is written: refused, or without any effect.
    Error,
    /// It is, and may not be what was meant.
    Warning,
}

impl Level {
    /// The word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// One thing about one document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lint {
    /// Which document, by its place in what was given.
    pub document: usize,
    /// How bad it is.
    pub level: Level,
    /// Where, as `spec.rules[0].match`.
    pub path: String,
    /// What, and what to do about it.
    pub message: String,
}

/// What is known of where they will count.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings<'a> {
    /// The keys that policies may name.
    pub keys: &'a Keys,
    /// From where exceptions count; `None` if nobody says.
    pub exception_namespaces: Option<&'a BTreeSet<String>>,
    /// The time, by which exceptions end.
    pub now: Timestamp,
}

/// Looks through documents together: exceptions are held against the policies beside them.
///
/// A document that is neither a policy nor an exception has nothing said about it.
pub fn lint(documents: &[Value], around: Surroundings<'_>) -> Vec<Lint> {
    let policies: Vec<Policy> = documents.iter().filter_map(|document| load(document, around.keys)).collect();
    let mut found = Vec::new();
    for (index, document) in documents.iter().enumerate() {
        let mut notes = Notes { document: index, found: &mut found };
        if let Some(policy) = load(document, around.keys) {
            notes.of_policy(document, &policy);
        } else if let Some(exception) = Exception::load(document) {
            notes.of_exception(document, &exception, &policies, around);
        }
    }
    found
}

struct Notes<'a> {
    document: usize,
    found: &'a mut Vec<Lint>,
}

impl Notes<'_> {
    fn error(&mut self, path: &str, message: impl Into<String>) {
        self.say(Level::Error, path, message.into());
    }

    fn warning(&mut self, path: &str, message: impl Into<String>) {
        self.say(Level::Warning, path, message.into());
    }

    fn say(&mut self, level: Level, path: &str, message: String) {
        let lint = Lint { document: self.document, level, path: path.to_owned(), message };
        if !self.found.contains(&lint) {
            self.found.push(lint);
        }
    }

    fn of_policy(&mut self, document: &Value, policy: &Policy) {
        for refusal in &policy.refusals {
            self.error(&refusal.path, format!("refused: {}", refusal.reason));
        }
        for warning in &policy.warnings {
            self.warning(&warning.path, &warning.reason);
        }
        let covered = autogen::covered(document);
        let rules = document["spec"]["rules"].as_array().into_iter().flatten();
        for (index, rule) in rules.enumerate() {
            let path = format!("spec.rules[{index}]");
            for part in ["match", "exclude"] {
                self.of_selector(&rule[part], &format!("{path}.{part}"), policy.namespace.as_deref());
            }
            self.of_operations(rule, &path);
            self.of_images(rule, &path);
            if changes_images(&rule["mutate"]) {
                let direct: BTreeSet<&str> = TEMPLATES.iter().map(|(_, kind, _)| *kind).collect();
                let speaks = autogen::kinds(rule, "match");
                let templates: BTreeSet<&str> =
                    if speaks.contains("Pod") { covered.clone() } else { BTreeSet::new() };
                let templates: Vec<&str> = speaks.intersection(&direct).copied().chain(templates).collect();
                if !templates.is_empty() {
                    self.warning(
                        &format!("{path}.mutate"),
                        format!(
                            "changes images in templates ({}): tools that compare what is applied with what is stored \
                             change them back for ever; set the annotation `{}: none`",
                            templates.join(", "),
                            autogen::ANNOTATION,
                        ),
                    );
                }
            }
        }
    }

    /// What in `match` and `exclude` can select nothing.
    fn of_selector(&mut self, selector: &Value, path: &str, own: Option<&str>) {
        for (block, at) in blocks(selector, path) {
            let (resources, at) = (&block["resources"], format!("{at}.resources"));
            let texts = |name: &str| -> Vec<(String, &str)> {
                let list = resources[name].as_array().into_iter().flatten().enumerate();
                list.filter_map(|(index, value)| Some((format!("{at}.{name}[{index}]"), value.as_str()?)))
                    .collect()
            };
            let kinds = texts("kinds");
            for (path, kind) in &kinds {
                if !kind.contains(['/', '.']) && kind.starts_with(char::is_lowercase) {
                    self.error(
                        path,
                        format!("selects nothing: kinds are written as `Pod`, and not as `{kind}`"),
                    );
                }
            }
            for (path, operation) in texts("operations") {
                if !["CREATE", "UPDATE", "DELETE", "CONNECT"].contains(&operation) {
                    self.error(
                        &path,
                        format!(
                            "selects nothing: `{operation}` is not `CREATE`, `UPDATE`, `DELETE` or `CONNECT`"
                        ),
                    );
                }
            }
            let namespaces = texts("namespaces");
            for (path, namespace) in &namespaces {
                if !could_be_name(namespace, "-") {
                    self.error(path, format!("selects nothing: no namespace has a name like `{namespace}`"));
                }
            }
            if let Some(own) = own
                && !namespaces.is_empty()
                && !namespaces.iter().any(|(_, pattern)| wildcard_match(pattern, own))
            {
                self.error(
                    &format!("{at}.namespaces"),
                    format!("selects nothing: the policy speaks of `{own}` alone"),
                );
            }
            let of_pods = !kinds.is_empty() && kinds.iter().all(|(_, kind)| *kind == "Pod");
            for (path, name) in texts("names").iter().filter(|_| of_pods) {
                if !could_be_name(name, "-.") {
                    self.error(path, format!("selects nothing: no pod has a name like `{name}`"));
                }
            }
            for (key, value) in resources["selector"]["matchLabels"].as_object().into_iter().flatten() {
                if value.as_str().is_some_and(|value| !could_be_label(value)) {
                    let path = format!("{at}.selector.matchLabels.{key}");
                    self.error(&path, format!("selects nothing: no label has a value like {value}"));
                }
            }
        }
    }

    /// Rules that answer no operation that they select.
    fn of_operations(&mut self, rule: &Value, path: &str) {
        let is_of_object = !rule["mutate"].is_null()
            || !rule["verifyImages"].is_null()
            || !rule["validate"]["pattern"].is_null()
            || !rule["validate"]["anyPattern"].is_null()
            || !rule["validate"]["podSecurity"].is_null();
        if !is_of_object {
            return;
        }
        for (block, at) in blocks(&rule["match"], &format!("{path}.match")) {
            let operations: Vec<&str> = block["resources"]["operations"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .collect();
            if !operations.is_empty() && operations.iter().all(|operation| *operation == "DELETE") {
                self.error(
                    &format!("{at}.resources.operations"),
                    "has no effect: of what is deleted, only `validate.deny` says anything",
                );
            }
        }
    }

    /// Patterns for images that match none.
    fn of_images(&mut self, rule: &Value, path: &str) {
        let entries = rule["verifyImages"].as_array().into_iter().flatten().enumerate();
        for (index, entry) in entries {
            for field in ["imageReferences", "skipImageReferences"] {
                let patterns = entry[field].as_array().into_iter().flatten().enumerate();
                for (number, pattern) in patterns {
                    let Some(pattern) = pattern.as_str() else { continue };
                    if let Some(why) = never_an_image(pattern) {
                        let path = format!("{path}.verifyImages[{index}].{field}[{number}]");
                        self.error(&path, format!("`{pattern}` matches no image: {why}"));
                    }
                }
            }
        }
    }

    fn of_exception(
        &mut self,
        document: &Value,
        exception: &Exception,
        policies: &[Policy],
        around: Surroundings<'_>,
    ) {
        for refusal in &exception.refusals {
            self.error(&refusal.path, format!("the exception does not apply: {}", refusal.reason));
        }
        for warning in &exception.warnings {
            self.warning(&warning.path, &warning.reason);
        }
        self.of_selector(&document["spec"]["match"], "spec.match", None);
        let expires = "metadata.annotations.countersign.dev/expires";
        match exception.expires {
            Some(end) if end <= around.now => {
                self.warning(expires, format!("it is over since {end}: remove it"));
            }
            None if exception.refusals.iter().all(|refusal| refusal.path != expires) => {
                self.warning(expires, "it has no end: say until when, as `2027-01-01`");
            }
            _ => {}
        }
        if !exception.is_bound() {
            self.warning(
                "spec.match",
                "whoever writes a pod can give it to himself, by names or labels of his choice: name the namespaces it is \
                 for. Under `exceptions: strict` it lifts no image verification",
            );
        }
        if around.exception_namespaces.is_some_and(|namespaces| !namespaces.contains(&exception.namespace)) {
            self.error(
                "metadata.namespace",
                format!(
                    "it does not count: the Site's exceptionNamespaces do not name `{}`",
                    exception.namespace
                ),
            );
        }
        if policies.is_empty() {
            return;
        }
        for (index, entry) in document["spec"]["exceptions"].as_array().into_iter().flatten().enumerate() {
            let name = entry["policyName"].as_str().unwrap_or_default();
            let path = format!("spec.exceptions[{index}]");
            let Some(policy) = policies.iter().find(|policy| policy.name == name) else {
                self.warning(&format!("{path}.policyName"), format!("there is no policy `{name}` beside it"));
                continue;
            };
            for (number, pattern) in entry["ruleNames"].as_array().into_iter().flatten().enumerate() {
                let Some(pattern) = pattern.as_str() else { continue };
                if !policy.rules.iter().any(|rule| wildcard_match(pattern, &rule.name)) {
                    let path = format!("{path}.ruleNames[{number}]");
                    self.error(&path, format!("lifts nothing: `{name}` has no rule `{pattern}`"));
                }
            }
        }
    }
}

/// Whether a patch writes an `image` anywhere.
fn changes_images(mutate: &Value) -> bool {
    match mutate {
        Value::Object(map) => map.iter().any(|(key, value)| {
            let anchor = Anchor::parse(key);
            let is_written = anchor.is_none_or(|anchor| anchor.kind == Kind::IfAbsent);
            match anchor.map_or(key.as_str(), |anchor| anchor.key) {
                "context" | "preconditions" => false,
                "image" => is_written,
                "path" => value.as_str().is_some_and(|path| path.ends_with("/image")),
                "patchesJson6902" => value.as_str().is_some_and(|text| text.contains("/image")),
                _ => changes_images(value),
            }
        }),
        Value::Array(list) => list.iter().any(changes_images),
        _ => false,
    }
}

/// Whether a pattern could be one for names of these characters, small letters and digits.
fn could_be_name(pattern: &str, more: &str) -> bool {
    let known =
        |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || more.contains(c) || "*?".contains(c);
    // What variables make of it is known later.
    pattern.contains("{{") || pattern.chars().all(known)
}

fn could_be_label(pattern: &str) -> bool {
    let known = |c: char| c.is_ascii_alphanumeric() || "-_.*?".contains(c);
    pattern.contains("{{") || pattern.chars().all(known)
}

/// Why a pattern matches no image; they are matched with their registry, and with a tag or digest.
fn never_an_image(pattern: &str) -> Option<&'static str> {
    if pattern.contains("{{") {
        return None;
    }
    let name = pattern.split(['@']).next().unwrap_or_default();
    let (path, last) = name.rsplit_once('/').unwrap_or(("", name));
    let repository = last.split(':').next().unwrap_or_default();
    if pattern.contains("://") {
        Some("leave the scheme out")
    } else if pattern.contains(char::is_whitespace) {
        Some("there is white space in it")
    } else if path.contains(|c: char| c.is_ascii_uppercase())
        || repository.contains(|c: char| c.is_ascii_uppercase())
    {
        Some("names of images are written small")
    } else if !pattern.contains('@') && !last.contains(['*', ':']) {
        Some("an image has a tag or a digest: end it in `:*`, or in `*`")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn patterns_that_match_no_image_are_known() {
        for (pattern, never) in [
            ("*", false),
            ("ghcr.io/acme/*", false),
            ("ghcr.io/acme/db:1", false),
            ("ghcr.io/acme/db@sha256:*", false),
            ("localhost:5000/db:*", false),
            ("nginx*", false),
            ("ghcr.io/acme/db", true),
            ("localhost:5000/db", true),
            ("*/db", true),
            ("https://ghcr.io/acme/*", true),
            ("ghcr.io/Acme/*", true),
            ("ghcr.io/acme/db:V1", false),
            ("ghcr.io/acme/ *", true),
        ] {
            assert_eq!(never_an_image(pattern).is_some(), never, "{pattern}");
        }
    }

    #[test]
    fn a_patch_that_writes_an_image_is_known() {
        for (mutate, expected) in [
            (
                json!({ "patchStrategicMerge": { "spec": { "containers": [{ "(name)": "*", "image": "x" }] } } }),
                true,
            ),
            (
                json!({ "patchStrategicMerge": { "spec": { "containers": [{ "(name)": "*", "+(image)": "x" }] } } }),
                true,
            ),
            (
                json!({ "foreach": [{ "list": "x", "patchesJson6902": "- { op: replace, path: /spec/containers/0/image, value: x }" }] }),
                true,
            ),
            (
                json!({ "patchStrategicMerge": { "spec": { "containers": [{ "(image)": "*:latest", "imagePullPolicy": "Always" }] } } }),
                false,
            ),
            (json!({ "patchesJson6902": "- { op: add, path: /metadata/labels/a, value: x }" }), false),
            (json!({ "patchStrategicMerge": { "metadata": { "labels": { "a": "image" } } } }), false),
        ] {
            assert_eq!(changes_images(&mutate), expected, "{mutate}");
        }
    }
}
