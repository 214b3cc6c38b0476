//! Preconditions (Kyverno `pkg/engine/variables/operator`).

use countersign_jmespath::{Error, Scope};
use countersign_reference::wildcard_match;
use serde_json::Value;

use crate::fields::{Fields, Notes};
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
}

#[derive(Clone, Copy, Debug)]
enum Operator {
    Equals,
    NotEquals,
    AnyIn,
    AllIn,
    AnyNotIn,
    AllNotIn,
    Order(fn(f64, f64) -> bool),
}

impl Conditions {
    pub(crate) fn read(value: Option<&Value>, path: &str, notes: &mut Notes) -> Self {
        match value {
            None => Self::default(),
            Some(Value::Array(list)) => Self { any: Vec::new(), all: read_list(list, path, notes) },
            Some(value) => {
                let mut fields = Fields::of(value, path, notes);
                let any = read_list(fields.list("any", notes), &format!("{path}.any"), notes);
                let all = read_list(fields.list("all", notes), &format!("{path}.all"), notes);
                fields.finish(notes);
                Self { any, all }
            }
        }
    }

    pub(crate) fn hold(&self, scope: &dyn Scope) -> Result<bool, Error> {
        // Everything is evaluated before anything is concluded, so that all that is missing is
        // asked for at once.
        let evaluate = |list: &[Condition]| -> Result<Vec<bool>, Error> {
            let results: Vec<_> = list.iter().map(|condition| condition.holds(scope)).collect();
            results.into_iter().collect()
        };
        let (any, all) = (evaluate(&self.any)?, evaluate(&self.all)?);
        Ok((any.is_empty() || any.contains(&true)) && !all.contains(&false))
    }
}

fn read_list(list: &[Value], path: &str, notes: &mut Notes) -> Vec<Condition> {
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
        fields.no_effect(&["message"], "messages of preconditions are not shown", notes);
        fields.finish(notes);
        let Some(operator) = Operator::read(&operator) else {
            notes.refuse(&format!("{path}.operator"), format!("operator `{operator}` is not supported yet"));
            continue;
        };
        if let (Some(key), Some(value)) = (key, value) {
            conditions.push(Condition { key, operator, value });
        }
    }
    conditions
}

impl Operator {
    fn read(text: &str) -> Option<Self> {
        Some(match text.to_ascii_lowercase().as_str() {
            "equal" | "equals" => Self::Equals,
            "notequal" | "notequals" => Self::NotEquals,
            "in" | "allin" => Self::AllIn,
            "anyin" => Self::AnyIn,
            "notin" | "allnotin" => Self::AllNotIn,
            "anynotin" => Self::AnyNotIn,
            "greaterthan" => Self::Order(|a, b| a > b),
            "greaterthanorequals" => Self::Order(|a, b| a >= b),
            "lessthan" => Self::Order(|a, b| a < b),
            "lessthanorequals" => Self::Order(|a, b| a <= b),
            _ => return None,
        })
    }
}

impl Condition {
    fn holds(&self, scope: &dyn Scope) -> Result<bool, Error> {
        // A key that is not there is null here, as upstream.
        let key = match self.key.fill(scope) {
            Err(Error::NotFound(_)) => Value::Null,
            other => other?,
        };
        let value = self.value.fill(scope)?;
        let inside = |key: &Value| items(&value).iter().any(|item| same_text(key, item));
        let keys = items(&key);
        Ok(match self.operator {
            Operator::Equals => equal(&key, &value).unwrap_or(false),
            Operator::NotEquals => !key.is_null() && !equal(&key, &value).unwrap_or(false),
            Operator::AnyIn => keys.iter().any(inside),
            Operator::AllIn => keys.iter().all(inside),
            Operator::AnyNotIn => keys.iter().any(|key| !inside(key)),
            Operator::AllNotIn => keys.iter().all(|key| !inside(key)),
            Operator::Order(order) => match (as_number(&key), as_number(&value)) {
                (Some(key), Some(value)) => order(key, value),
                _ => {
                    return Err(Error::Call {
                        function: "precondition".to_owned(),
                        message: format!(
                            "`{key}` and `{value}` are not both numbers, which is all that is compared yet"
                        ),
                    });
                }
            },
        })
    }
}

fn items(value: &Value) -> Vec<Value> {
    match value {
        Value::Array(list) => list.clone(),
        Value::String(text) if text.starts_with('[') => {
            serde_json::from_str(text).unwrap_or_else(|_| vec![value.clone()])
        }
        other => vec![other.clone()],
    }
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned)
}

/// Wildcards on either side.
fn same_text(key: &Value, item: &Value) -> bool {
    let (key, item) = (text(key), text(item));
    wildcard_match(&item, &key) || wildcard_match(&key, &item)
}

/// `None` where the two cannot be compared.
fn equal(key: &Value, value: &Value) -> Option<bool> {
    match (key, value) {
        (Value::String(key), Value::String(value)) => Some(wildcard_match(value, key)),
        (Value::Number(_), _) | (_, Value::Number(_)) => {
            Some(as_number(key)?.total_cmp(&as_number(value)?).is_eq())
        }
        (Value::Null, _) => None,
        _ => Some(key == value),
    }
}

fn as_number(value: &Value) -> Option<f64> {
    value.as_f64().or_else(|| value.as_str()?.parse().ok())
}
