//! Preconditions and the conditions of `deny` (Kyverno `pkg/engine/variables/evaluate.go`).

use countersign_jmespath::{Error, Scope};
use serde_json::Value;

use crate::fields::{Fields, Notes};
use crate::operators::Operator;
use crate::template::Template;

/// `{any: […], all: […]}`, both of which have to hold; a plain list is `all`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Conditions {
    any: Vec<Condition>,
    all: Vec<Condition>,
}

#[derive(Clone, Debug)]
struct Condition {
    key: Template,
    operator: Operator,
    value: Template,
    message: String,
}

impl Conditions {
    pub(crate) fn read(value: Option<&Value>, path: &str, notes: &mut Notes) -> Self {
        Self::read_of(value, path, true, notes)
    }

    /// The same for an element of a loop, where nobody is told why it was left out.
    pub(crate) fn read_untold(value: Option<&Value>, path: &str, notes: &mut Notes) -> Self {
        Self::read_of(value, path, false, notes)
    }

    fn read_of(value: Option<&Value>, path: &str, told: bool, notes: &mut Notes) -> Self {
        match value {
            None => Self::default(),
            Some(Value::Array(list)) => Self { any: Vec::new(), all: read_list(list, path, told, notes) },
            Some(value) => {
                let mut fields = Fields::of(value, path, notes);
                let any = read_list(fields.list("any", notes), &format!("{path}.any"), told, notes);
                let all = read_list(fields.list("all", notes), &format!("{path}.all"), told, notes);
                fields.finish(notes);
                Self { any, all }
            }
        }
    }

    pub(crate) fn hold(&self, scope: &dyn Scope) -> Result<bool, Error> {
        Ok(self.judge(scope)?.0)
    }

    /// Whether they hold, with the messages of those that decide it.
    pub(crate) fn judge(&self, scope: &dyn Scope) -> Result<(bool, String), Error> {
        // Everything is evaluated before anything is concluded, so that all that is missing is
        // asked for at once.
        let (any, all) = (evaluate(&self.any, scope)?, evaluate(&self.all, scope)?);
        let first = any.iter().position(|(_, holds)| *holds);
        let failed = all.iter().position(|(_, holds)| !holds);
        let holds = (any.is_empty() || first.is_some()) && failed.is_none();
        // As upstream, which stops at the first that decides a block.
        let mut decisive = any;
        decisive.truncate(first.map_or(usize::MAX, |first| first + 1));
        decisive.extend(all.into_iter().take(failed.map_or(usize::MAX, |failed| failed + 1)));
        Ok((holds, messages(&decisive, holds)))
    }
}

fn evaluate<'a>(list: &'a [Condition], scope: &dyn Scope) -> Result<Vec<(&'a Condition, bool)>, Error> {
    let results: Vec<_> =
        list.iter().map(|condition| condition.holds(scope).map(|holds| (condition, holds))).collect();
    results.into_iter().collect()
}

fn read_list(list: &[Value], path: &str, told: bool, notes: &mut Notes) -> Vec<Condition> {
    let mut conditions = Vec::new();
    for (index, value) in list.iter().enumerate() {
        let path = format!("{path}[{index}]");
        let mut fields = Fields::of(value, &path, notes);
        let operator = fields.text("operator", notes).unwrap_or_default().to_owned();
        let mut template = |name| {
            let value = fields.take(name).cloned().unwrap_or_default();
            Template::of(&value)
                .map_err(|error| notes.refuse(&format!("{path}.{name}"), error.to_string()))
                .ok()
        };
        let (key, value) = (template("key"), template("value"));
        let message = if told { fields.text("message", notes) } else { None };
        if !told {
            let reason = "has no effect here: an element whose conditions are not met is left out";
            fields.no_effect(&["message"], reason, notes);
        }
        let message = message.unwrap_or_default().to_owned();
        fields.finish(notes);
        let Some(operator) = Operator::parse(&operator) else {
            notes.refuse(&format!("{path}.operator"), format!("`{operator}` is no operator"));
            continue;
        };
        if let (Some(key), Some(value)) = (key, value) {
            conditions.push(Condition { key, operator, value, message });
        }
    }
    conditions
}

impl Condition {
    fn holds(&self, scope: &dyn Scope) -> Result<bool, Error> {
        // What is not there is null here, as upstream.
        let fill = |template: &Template| match template.fill(scope) {
            Err(Error::NotFound(_)) => Ok(Value::Null),
            other => other,
        };
        let (key, value) = (fill(&self.key)?, fill(&self.value)?);
        if let Some(fuel) = scope.fuel() {
            fuel.spend(cost(&key, &value))?;
        }
        Ok(self.operator.holds(&key, &value))
    }
}

/// The steps of holding each of the one against each of the other, letter by letter: a wildcard may make
/// it do so.
fn cost(key: &Value, value: &Value) -> usize {
    let items = |value: &Value| value.as_array().map_or(1, Vec::len);
    let letters = |value: &Value| match value {
        Value::Array(list) => list.iter().filter_map(Value::as_str).map(str::len).sum(),
        Value::String(text) => text.len(),
        _ => 0_usize,
    };
    let pairs = items(key).saturating_mul(items(value));
    pairs.saturating_add(letters(key).saturating_mul(letters(value)) / 64)
}

/// The messages of those that did, or did not, hold.
fn messages(conditions: &[(&Condition, bool)], held: bool) -> String {
    let those =
        conditions.iter().filter(|(condition, holds)| *holds == held && !condition.message.is_empty());
    those.map(|(condition, _)| condition.message.as_str()).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    struct Nothing;

    impl Scope for Nothing {
        fn lookup(&self, _: &str) -> Result<Option<&Value>, Error> {
            Ok(None)
        }
    }

    #[test]
    fn blocks_and_their_messages() {
        let condition = |key: i32, message: &str| json!({ "key": key, "operator": "equals", "value": 1, "message": message });
        let (yes, no) = (|message| condition(1, message), |message| condition(2, message));
        for (conditions, holds, message) in [
            (json!([yes("a"), yes(""), yes("b")]), true, "a; b"),
            (json!([yes("a"), no("b"), no("c")]), false, "b"),
            (json!({ "any": [no("a"), yes("b"), yes("c")] }), true, "b"),
            (json!({ "any": [no("a"), no("b")] }), false, "a; b"),
            (json!({ "any": [yes("a")], "all": [yes("b"), no("c")] }), false, "c"),
            (json!({ "any": [yes("a")], "all": [yes("b")] }), true, "a; b"),
            (json!({}), true, ""),
        ] {
            let mut notes = Notes::default();
            let read = Conditions::read(Some(&conditions), "x", &mut notes);
            assert!(notes.refusals.is_empty(), "{:?}", notes.refusals);
            assert_eq!(read.judge(&Nothing), Ok((holds, message.to_owned())), "{conditions}");
        }
        let mut notes = Notes::default();
        Conditions::read(Some(&json!([{ "key": 1, "operator": "like", "value": 1 }])), "x", &mut notes);
        assert_eq!(notes.refusals[0].to_string(), "x[0].operator: `like` is no operator");
    }
}
