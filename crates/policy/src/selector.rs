//! `match` and `exclude` (Kyverno `pkg/engine/utils/match.go`).

use countersign_reference::wildcard_match;
use serde_json::Value;

use crate::Review;
use crate::fields::{Fields, Notes};

/// Which requests a rule speaks of.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Selector {
    any: Vec<Block>,
    all: Vec<Block>,
}

/// AND over its attributes, OR within each list.
#[derive(Clone, Debug, Default, PartialEq)]
struct Block {
    kinds: Vec<String>,
    names: Vec<String>,
    namespaces: Vec<String>,
    operations: Vec<String>,
    labels: Vec<(String, String)>,
}

impl Selector {
    pub(crate) fn read(value: Option<&Value>, path: &str, notes: &mut Notes) -> Self {
        let Some(value) = value else { return Self::default() };
        let mut fields = Fields::of(value, path, notes);
        let mut selector = Self::default();
        for (name, blocks) in [("any", &mut selector.any), ("all", &mut selector.all)] {
            for (index, block) in fields.list(name, notes).iter().enumerate() {
                let path = format!("{path}.{name}[{index}]");
                let mut filter = Fields::of(block, &path, notes);
                filter.not_yet(&["subjects", "roles", "clusterRoles"], notes);
                blocks.push(Block::read(filter.take("resources"), &format!("{path}.resources"), notes));
                filter.finish(notes);
            }
        }
        if let Some(resources) = fields.take("resources") {
            selector.all.push(Block::read(Some(resources), &format!("{path}.resources"), notes));
        }
        fields.not_yet(&["subjects", "roles", "clusterRoles"], notes);
        fields.finish(notes);
        selector
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.any.is_empty() && self.all.is_empty()
    }

    pub(crate) fn selects(&self, review: &Review) -> bool {
        !self.is_empty()
            && (self.any.is_empty() || self.any.iter().any(|block| block.selects(review)))
            && self.all.iter().all(|block| block.selects(review))
    }

    /// Whether a request of this kind in this namespace could be selected, whatever its content.
    pub(crate) fn could_select(&self, kind: &str, namespace: &str) -> bool {
        let could = |block: &Block| block.could(kind, namespace);
        !self.is_empty() && (self.any.is_empty() || self.any.iter().any(could)) && self.all.iter().all(could)
    }
}

impl Block {
    fn read(value: Option<&Value>, path: &str, notes: &mut Notes) -> Self {
        let Some(value) = value else {
            notes.refuse(path, "expected a resource description");
            return Self::default();
        };
        let mut fields = Fields::of(value, path, notes);
        let mut names = fields.texts("names", notes);
        names.extend(fields.text("name", notes).map(ToOwned::to_owned));
        let mut block = Self {
            kinds: fields.texts("kinds", notes),
            names,
            namespaces: fields.texts("namespaces", notes),
            operations: fields.texts("operations", notes),
            labels: Vec::new(),
        };
        if let Some(selector) = fields.take("selector") {
            let mut selector = Fields::of(selector, &format!("{path}.selector"), notes);
            if let Some(labels) = selector.take("matchLabels").and_then(Value::as_object) {
                let labels =
                    labels.iter().map(|(k, v)| (k.clone(), v.as_str().unwrap_or_default().to_owned()));
                block.labels = labels.collect();
            }
            selector.not_yet(&["matchExpressions"], notes);
            selector.finish(notes);
        }
        fields.not_yet(&["annotations", "namespaceSelector"], notes);
        fields.finish(notes);
        block
    }

    fn selects(&self, review: &Review) -> bool {
        let name = review.object_name();
        let labels = review.current()["metadata"]["labels"].as_object();
        let labelled = |(key, value): &(String, String)| {
            labels.is_some_and(|labels| {
                labels.iter().any(|(k, v)| {
                    wildcard_match(key, k) && v.as_str().is_some_and(|v| wildcard_match(value, v))
                })
            })
        };
        self.could(&review.kind, &review.namespace)
            && (self.names.is_empty() || self.names.iter().any(|pattern| wildcard_match(pattern, name)))
            && (self.operations.is_empty() || self.operations.contains(&review.operation))
            && self.labels.iter().all(labelled)
    }

    fn could(&self, kind: &str, namespace: &str) -> bool {
        (self.kinds.is_empty() || self.kinds.iter().any(|pattern| kind_matches(pattern, kind)))
            && (self.namespaces.is_empty()
                || self.namespaces.iter().any(|pattern| wildcard_match(pattern, namespace)))
    }
}

/// `Pod`, `v1/Pod`, `*`, `*/*`; `Pod` also stands for `pods/ephemeralcontainers`.
fn kind_matches(pattern: &str, kind: &str) -> bool {
    let last = pattern.split('/').rfind(|part| !part.chars().next().is_some_and(char::is_lowercase));
    last.is_some_and(|last| wildcard_match(last, kind))
}
