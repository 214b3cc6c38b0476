//! What is asked of the engine.

use std::collections::BTreeMap;

use countersign_jmespath::Moment;
use serde_json::{Map, Value};

/// The request of an AdmissionReview.
#[derive(Clone, Debug, Default)]
pub struct Review {
    /// `CREATE`, `UPDATE`, `DELETE` or `CONNECT`.
    pub operation: String,
    /// The object's kind.
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
    /// All of it, as policies see it under `request`.
    pub request: Value,
    /// What somebody says that names stand for: nothing at admission.
    pub given: Option<Given>,
    /// The kind whose template would make the pod, where that is judged early.
    pub template_of: Option<&'static str>,
    /// When it is judged. Without it no exception applies that has an end, and expressions that ask for
    /// the time or for random texts have no value.
    pub moment: Option<Moment>,
}

/// Values for names that expressions use, where nothing else says what they are: for tests of policies.
#[derive(Clone, Debug, Default)]
pub struct Given {
    /// For every rule.
    pub global: Map<String, Value>,
    /// For every rule of a policy.
    pub policies: BTreeMap<String, Map<String, Value>>,
    /// For a rule, by policy and rule.
    pub rules: BTreeMap<(String, String), Map<String, Value>>,
}

impl Given {
    /// What a rule is given, the more particular last.
    pub(crate) fn of(&self, policy: &str, rule: &str) -> Vec<(String, Value)> {
        // Values are written for the rule that somebody has written.
        let written = rule.trim_start_matches("autogen-").trim_start_matches("cronjob-");
        let of_rule = |rule: &str| self.rules.get(&(policy.to_owned(), rule.to_owned()));
        let maps = [
            Some(&self.global),
            self.policies.get(policy),
            of_rule(written).filter(|_| written != rule),
            of_rule(rule),
        ];
        maps.into_iter().flatten().flatten().map(|(name, value)| (name.clone(), value.clone())).collect()
    }
}

impl Review {
    /// Reads the `request` of an AdmissionReview.
    pub fn of(request: Value) -> Self {
        let text =
            |pointer: &str| request.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        Self {
            operation: text("/operation"),
            kind: text("/kind/kind"),
            namespace: text("/namespace"),
            request,
            given: None,
            template_of: None,
            moment: None,
        }
    }

    /// The object as the request has it; null where there is none.
    pub fn object(&self) -> &Value {
        &self.request["object"]
    }

    /// The object as it is stored.
    pub fn old(&self) -> Option<&Value> {
        Some(&self.request["oldObject"]).filter(|old| !old.is_null())
    }

    /// The object that is there, or the one that was.
    pub(crate) fn current(&self) -> &Value {
        match self.old() {
            Some(old) if self.object().is_null() => old,
            _ => self.object(),
        }
    }

    /// The object's name, or the beginning of a name yet to be made.
    pub(crate) fn object_name(&self) -> &str {
        let metadata = &self.current()["metadata"];
        // A part of an object may have no name of its own.
        let names = [&metadata["name"], &metadata["generateName"], &self.request["name"]];
        names.into_iter().find_map(Value::as_str).unwrap_or_default()
    }

    /// `Kind/namespace/name`, as messages name it.
    pub(crate) fn shown(&self) -> String {
        let name = self.object_name();
        if self.namespace.is_empty() {
            format!("{}/{name}", self.kind)
        } else {
            format!("{}/{}/{name}", self.kind, self.namespace)
        }
    }
}
