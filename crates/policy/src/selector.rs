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

    /// Whether a pod could be selected, in some namespace.
    pub(crate) fn speaks_of_pods(&self) -> bool {
        let pods = |block: &Block| {
            block.kinds.is_empty() || block.kinds.iter().any(|pattern| kind_matches(pattern, "Pod"))
        };
        (self.any.is_empty() || self.any.iter().any(pods)) && self.all.iter().all(pods)
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
            block.labels = selector.strings("matchLabels", notes);
            selector.not_yet(&["matchExpressions"], notes);
            selector.finish(notes);
        }
        fields.not_yet(&["annotations", "namespaceSelector"], notes);
        fields.finish(notes);
        for kind in block.kinds.iter().filter(|kind| !is_whole_kind(kind)) {
            notes.refuse(&format!("{path}.kinds"), format!("`{kind}`: subresources are not told apart yet"));
        }
        if block == Self::default() {
            notes.refuse(path, "selects nothing in particular: name kinds, names, namespaces or labels");
        }
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

/// Whether a pattern speaks of a kind rather than of one of its subresources; what is added to a
/// pod later comes with the pod.
fn is_whole_kind(pattern: &str) -> bool {
    let parts: Vec<&str> = pattern.split('/').collect();
    let upper = |part: &str| part.chars().next().is_some_and(char::is_uppercase);
    match parts.as_slice() {
        [.., "Pod", "ephemeralcontainers"] => true,
        [.., kind, "*"] if upper(kind) => false,
        [.., last] => !last.contains('.') && (upper(last) || last.starts_with('*')),
        [] => false,
    }
}

/// `Pod`, `v1/Pod`, `*`, `*/*`; `Pod` also stands for `pods/ephemeralcontainers`.
fn kind_matches(pattern: &str, kind: &str) -> bool {
    let last = pattern.split('/').rfind(|part| !part.chars().next().is_some_and(char::is_lowercase));
    last.is_some_and(|last| wildcard_match(last, kind))
}
