//! PolicyExceptions (`kyverno.io/v2`, `v2beta1`): which rules they lift, and for whom.
//!
//! Each counts by itself: two that overlap never lift together what neither lifts alone.

use countersign_jmespath::Moment;
use countersign_reference::wildcard_match;
use jiff::Timestamp;
use jiff::civil::Date;
use serde_json::Value;

use crate::conditions::Conditions;
use crate::fields::{Fields, Notes, Refusal};
use crate::selector::Selector;

/// When an exception ends, of the one or the other form: `2027-01-01`, `2027-01-01T00:00:00Z`.
const EXPIRES: &str = "countersign.dev/expires";

/// An exception from rules.
#[derive(Clone, Debug)]
pub struct Exception {
    /// `namespace/name`.
    pub name: String,
    /// Its namespace: it counts from some alone.
    pub namespace: String,
    /// Why it does not apply at all, if it does not.
    pub refusals: Vec<Refusal>,
    /// What is worth a word.
    pub warnings: Vec<Refusal>,
    /// When it ends, if it does.
    pub expires: Option<Timestamp>,
    rules: Vec<(String, Vec<String>)>,
    pub(crate) select: Selector,
    pub(crate) conditions: Conditions,
    /// Controls that it lifts, and nothing else; none: it lifts the whole rule.
    pub(crate) pod_security: Vec<countersign_podsecurity::Exclusion>,
}

impl Exception {
    /// Reads a PolicyException; `None` if the document is of another kind.
    pub fn load(document: &Value) -> Option<Self> {
        let group = document["apiVersion"].as_str()?;
        if document["kind"] != "PolicyException" || !group.starts_with("kyverno.io/") {
            return None;
        }
        let mut notes = Notes::default();
        if !matches!(group, "kyverno.io/v2" | "kyverno.io/v2beta1") {
            notes.refuse(
                "apiVersion",
                format!("`{group}` is not supported: expected kyverno.io/v2 or v2beta1"),
            );
        }
        let metadata = &document["metadata"];
        let namespace = metadata["namespace"].as_str().unwrap_or("default").to_owned();
        let name = format!("{namespace}/{}", metadata["name"].as_str().unwrap_or("(unnamed)"));
        let expires = expiry(&metadata["annotations"][EXPIRES], &mut notes);
        let mut top = Fields::of(document, "", &mut notes);
        top.known(&["apiVersion", "kind", "metadata", "status"]);
        let mut spec = Fields::of(top.take("spec").unwrap_or(&Value::Null), "spec", &mut notes);
        top.finish(&mut notes);
        spec.no_effect(&["background"], "has no effect here: there is no background scan yet", &mut notes);
        let select = Selector::read(spec.take("match"), "spec.match", &mut notes);
        if select.is_empty() {
            notes.refuse("spec.match", "selects nothing");
        }
        let conditions = Conditions::read(spec.take("conditions"), "spec.conditions", &mut notes);
        let mut rules = Vec::new();
        for (index, entry) in spec.list("exceptions", &mut notes).iter().enumerate() {
            let path = format!("spec.exceptions[{index}]");
            let mut entry = Fields::of(entry, &path, &mut notes);
            let policy = entry.text("policyName", &mut notes).unwrap_or_default().to_owned();
            let names = entry.texts("ruleNames", &mut notes);
            entry.finish(&mut notes);
            rules.push((policy, names));
        }
        let mut pod_security = Vec::new();
        if let Some(list) = spec.take("podSecurity") {
            match countersign_podsecurity::parse_exclusions(list, "spec.podSecurity") {
                Ok(parsed) => pod_security = parsed.value,
                Err(problems) => {
                    for problem in problems {
                        notes.refuse(&problem.path, problem.reason);
                    }
                }
            }
        }
        spec.finish(&mut notes);
        let Notes { refusals, warnings, .. } = notes;
        Some(Self { name, namespace, refusals, warnings, expires, rules, select, conditions, pod_security })
    }

    /// Whether it speaks of a rule, by its own name: those that autogen writes have names of their own.
    pub(crate) fn speaks_of(&self, policy: &str, rule: &str) -> bool {
        self.rules
            .iter()
            .any(|(of, names)| of == policy && names.iter().any(|pattern| wildcard_match(pattern, rule)))
    }

    /// Whether it applies at all at this moment: what cannot be read, or is over, does not.
    pub(crate) fn applies(&self, moment: Option<Moment>) -> bool {
        self.refusals.is_empty()
            && self.expires.is_none_or(|expires| moment.is_some_and(|moment| moment.now < expires))
    }

    /// Whether somebody who writes pods could not give it to himself.
    pub(crate) fn is_bound(&self) -> bool {
        self.select.is_bound()
    }
}

fn expiry(value: &Value, notes: &mut Notes) -> Option<Timestamp> {
    let text = match value {
        Value::Null => return None,
        Value::String(text) => text.as_str(),
        _ => "",
    };
    let date = || text.parse::<Date>().ok()?.to_zoned(jiff::tz::TimeZone::UTC).ok();
    let moment = text.parse().ok().or_else(|| Some(date()?.timestamp()));
    if moment.is_none() {
        let path = format!("metadata.annotations.{EXPIRES}");
        notes.refuse(
            &path,
            format!("`{text}` is not a date such as `2027-01-01`: the exception does not apply"),
        );
    }
    moment
}
