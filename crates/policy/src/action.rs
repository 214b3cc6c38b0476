//! Whether a rule enforces: its own word, the policy's overrides, the policy's word.

use countersign_reference::wildcard_match;
use serde_json::Value;

use crate::fields::{Fields, Notes};
use crate::selector::LabelSelector;

/// `failureAction` with its overrides, each for some namespaces.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Action {
    /// `None`: somebody else's word counts.
    own: Option<bool>,
    overrides: Vec<Override>,
}

#[derive(Clone, Debug, PartialEq)]
struct Override {
    enforce: bool,
    /// All, where there is none.
    namespaces: Vec<String>,
    labels: Option<LabelSelector>,
}

/// Where a request is made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    pub(crate) namespace: &'a str,
    /// The namespace's labels; `None` where nobody can say.
    pub(crate) labels: Option<&'a Value>,
}

impl Action {
    /// Reads the two fields of a policy or a rule.
    pub(crate) fn read(
        fields: &mut Fields<'_>,
        (word, overrides): (&'static str, &'static str),
        notes: &mut Notes,
    ) -> Self {
        let path = fields.path_of(word);
        let own = word_of(fields.text(word, notes), &path, notes);
        let mut found = Vec::new();
        let path = fields.path_of(overrides);
        for (index, value) in fields.list(overrides, notes).iter().enumerate() {
            let path = format!("{path}[{index}]");
            let before = notes.refusals.len();
            let mut entry = Fields::of(value, &path, notes);
            let action = word_of(entry.text("action", notes), &format!("{path}.action"), notes);
            let namespaces = entry.texts("namespaces", notes);
            let selector = format!("{path}.namespaceSelector");
            let labels = LabelSelector::read(entry.take("namespaceSelector"), &selector, notes);
            entry.finish(notes);
            // One that cannot be read as a whole lets nothing go.
            let unread = notes.refusals.len() > before;
            let action = action.filter(|enforce| *enforce || !unread);
            let labels = labels.filter(|_| !unread);
            found.extend(action.map(|enforce| Override { enforce, namespaces, labels }));
        }
        Self { own, overrides: found }
    }

    /// What it says for this namespace; the first override that speaks of it counts. One that asks for
    /// labels that nobody knows counts where it enforces.
    pub(crate) fn of(&self, place: Place<'_>) -> Option<bool> {
        let speaks = |entry: &&Override| {
            let named = entry.namespaces.is_empty()
                || entry.namespaces.iter().any(|pattern| wildcard_match(pattern, place.namespace));
            let labelled = |selector: &LabelSelector| {
                place.labels.map_or(entry.enforce, |labels| selector.selects(labels))
            };
            named && entry.labels.as_ref().is_none_or(labelled)
        };
        self.overrides.iter().find(speaks).map(|entry| entry.enforce).or(self.own)
    }

    /// Whether it asks for the labels of namespaces.
    pub(crate) fn asks_for_labels(&self) -> bool {
        self.overrides.iter().any(|entry| entry.labels.is_some())
    }

    /// Whether a rule that says this enforces in some namespace, in a policy that says the other.
    pub(crate) fn may_enforce(&self, policy: &Self) -> bool {
        let own = self.own.unwrap_or_else(|| policy.somewhere() == Some(true));
        own || self.overrides.iter().any(|entry| entry.enforce)
    }

    /// Whether it enforces in some namespace.
    pub(crate) fn somewhere(&self) -> Option<bool> {
        let any = self.overrides.iter().any(|entry| entry.enforce);
        if any { Some(true) } else { self.own.or((!self.overrides.is_empty()).then_some(false)) }
    }
}

/// `Enforce` or `Audit`; what cannot be read is not a reason to let go.
pub(crate) fn word_of(text: Option<&str>, path: &str, notes: &mut Notes) -> Option<bool> {
    match text?.to_ascii_lowercase().as_str() {
        "enforce" => Some(true),
        "audit" => Some(false),
        other => {
            notes.refuse(path, format!("`{other}` is not `Enforce` or `Audit`"));
            Some(true)
        }
    }
}

/// Whether a value under `failureAction` would enforce, whatever else is wrong with it.
pub(crate) fn would_enforce(value: &Value, otherwise: bool) -> bool {
    let audits = |own: &Value| own.as_str().is_some_and(|text| text.eq_ignore_ascii_case("audit"));
    let overrides = value.get("failureActionOverrides").and_then(Value::as_array).into_iter().flatten();
    overrides.into_iter().any(|entry| !audits(&entry["action"]))
        || value.get("failureAction").map_or(otherwise, |own| !audits(own))
}
