//! The operators of preconditions and of `deny` (Kyverno `pkg/engine/variables/operator`).
//!
//! | | key | value |
//! |---|---|---|
//! | `Equals`, `NotEquals` | anything but null, which neither holds for | of the key's kind; of another kind it differs |
//! | `AnyIn`, `AllIn`, `AnyNotIn`, `AllNotIn`, `In`, `NotIn` | a scalar or a list | a list, the JSON text of one, a text, a range |
//! | `GreaterThan`, …, `DurationGreaterThan`, … | a number or text | a number or text |
//!
//! Texts that are durations or quantities are compared as such; a number beside a duration is seconds.
//! What cannot be compared is false, whatever is asked.

use std::cmp::Ordering;

use countersign_jmespath::duration::Duration;
use countersign_jmespath::quantity::Quantity;
use countersign_reference::wildcard_match;
use semver::Version;
use serde_json::Value;

use crate::scalar::{self, matches_text, outside, same_number, show};

/// What a condition asks of its key and value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the field's own words; the module says what they ask")]
pub enum Operator {
    Equals,
    NotEquals,
    In,
    NotIn,
    AnyIn,
    AllIn,
    AnyNotIn,
    AllNotIn,
    GreaterThan,
    GreaterThanOrEquals,
    LessThan,
    LessThanOrEquals,
    DurationGreaterThan,
    DurationGreaterThanOrEquals,
    DurationLessThan,
    DurationLessThanOrEquals,
}

impl Operator {
    /// Reads a name, in whichever case.
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name.to_ascii_lowercase().as_str() {
            "equal" | "equals" => Self::Equals,
            "notequal" | "notequals" => Self::NotEquals,
            "in" => Self::In,
            "notin" => Self::NotIn,
            "anyin" => Self::AnyIn,
            "allin" => Self::AllIn,
            "anynotin" => Self::AnyNotIn,
            "allnotin" => Self::AllNotIn,
            "greaterthan" => Self::GreaterThan,
            "greaterthanorequals" => Self::GreaterThanOrEquals,
            "lessthan" => Self::LessThan,
            "lessthanorequals" => Self::LessThanOrEquals,
            "durationgreaterthan" => Self::DurationGreaterThan,
            "durationgreaterthanorequals" => Self::DurationGreaterThanOrEquals,
            "durationlessthan" => Self::DurationLessThan,
            "durationlessthanorequals" => Self::DurationLessThanOrEquals,
            _ => return None,
        })
    }

    /// Whether it holds for a key and a value in which all variables are filled in.
    pub fn holds(self, key: &Value, value: &Value) -> bool {
        match self {
            Self::Equals => equal(key, value),
            Self::NotEquals => !key.is_null() && !equal(key, value),
            Self::In | Self::NotIn => listed(key, value, self == Self::NotIn),
            Self::AnyIn | Self::AllIn | Self::AnyNotIn | Self::AllNotIn => self.within(key, value),
            Self::GreaterThan => order(key, value).is_some_and(Ordering::is_gt),
            Self::GreaterThanOrEquals => order(key, value).is_some_and(Ordering::is_ge),
            Self::LessThan => order(key, value).is_some_and(Ordering::is_lt),
            Self::LessThanOrEquals => order(key, value).is_some_and(Ordering::is_le),
            Self::DurationGreaterThan => duration_order(key, value).is_some_and(Ordering::is_gt),
            Self::DurationGreaterThanOrEquals => duration_order(key, value).is_some_and(Ordering::is_ge),
            Self::DurationLessThan => duration_order(key, value).is_some_and(Ordering::is_lt),
            Self::DurationLessThanOrEquals => duration_order(key, value).is_some_and(Ordering::is_le),
        }
    }

    /// Whether the key, or each or any of its elements, is in the value or not in it.
    fn within(self, key: &Value, value: &Value) -> bool {
        let keys: Vec<String> = match key {
            Value::Array(keys) => keys.iter().map(show).collect(),
            Value::Null | Value::Object(_) => return false,
            key => {
                let negates = matches!(self, Self::AnyNotIn | Self::AllNotIn);
                return scalar_within(&show(key), value).is_some_and(|found| found != negates);
            }
        };
        let any = matches!(self, Self::AnyIn | Self::AnyNotIn);
        let values: Vec<String> = match value {
            Value::Array(values) => values.iter().map(show).collect(),
            Value::Number(_) | Value::Bool(_) if any => vec![show(value)],
            Value::String(text) if keys == [text.as_str()] => vec![text.clone()],
            Value::String(text) => match (outside(text), texts(text)) {
                // What is no number is neither inside nor outside.
                (Some(outside), _) if self == Self::AnyNotIn => {
                    return keys.iter().any(|key| ranges(key, &outside));
                }
                (Some(_), _) => return self.of(keys.iter().map(|key| ranges(key, text))),
                (None, Some(texts)) => texts,
                (None, None) => return false,
            },
            _ => return false,
        };
        self.of(keys.iter().map(|key| values.iter().any(|value| alike(key, value))))
    }

    /// The answer for a list, of what was found for each of its elements.
    fn of(self, mut found: impl Iterator<Item = bool>) -> bool {
        match self {
            Self::AnyIn => found.any(|found| found),
            Self::AllIn => found.all(|found| found),
            Self::AnyNotIn => found.any(|found| !found),
            _ => !found.any(|found| found),
        }
    }
}

/// Whether a scalar is in a value; `None` if the value is none that anything is in.
fn scalar_within(key: &str, value: &Value) -> Option<bool> {
    match value {
        Value::Array(values) => Some(values.iter().any(|value| alike(key, &show(value)))),
        Value::String(text) if wildcard_match(text, key) => Some(true),
        Value::String(text) if outside(text).is_some() => Some(ranges(key, text)),
        Value::String(text) => Some(texts(text)?.iter().any(|value| value == key)),
        _ => None,
    }
}

/// Whether a text is in a range.
fn ranges(key: &str, range: &str) -> bool {
    matches_text(&Value::String(key.to_owned()), range)
}

/// `In` and `NotIn`: a list is looked for as it is, without wildcards.
fn listed(key: &Value, value: &Value, negates: bool) -> bool {
    let keys: Vec<&str> = match key {
        Value::Array(keys) => match keys.iter().map(Value::as_str).collect() {
            Some(keys) => keys,
            None => return false,
        },
        Value::Null | Value::Object(_) => return false,
        key => {
            let key = show(key);
            let found = match value {
                Value::Array(values) => values.iter().any(|value| alike(&key, &show(value))),
                Value::String(text) if wildcard_match(text, &key) => true,
                Value::String(text) => match serde_json::from_str::<Vec<String>>(text) {
                    Ok(values) => values.contains(&key),
                    Err(_) => return false,
                },
                _ => return false,
            };
            return found != negates;
        }
    };
    let values: Vec<String> = match value {
        Value::Array(values) => {
            match values.iter().map(|value| value.as_str().map(ToOwned::to_owned)).collect() {
                Some(values) => values,
                None => return false,
            }
        }
        Value::String(text) if keys == [text.as_str()] => vec![text.clone()],
        Value::String(text) => match serde_json::from_str(text) {
            Ok(values) => values,
            Err(_) => return false,
        },
        _ => return false,
    };
    let all = keys.iter().all(|key| values.iter().any(|value| value == key));
    all != negates
}

/// The texts that a text stands for: those of a JSON list, or itself; `None` if it is other JSON.
fn texts(text: &str) -> Option<Vec<String>> {
    match serde_json::from_str::<Value>(text) {
        Err(_) => Some(vec![text.to_owned()]),
        Ok(Value::Null) => Some(Vec::new()),
        Ok(Value::Array(list)) => list.iter().map(|item| item.as_str().map(ToOwned::to_owned)).collect(),
        Ok(_) => None,
    }
}

/// Wildcards on either side.
fn alike(left: &str, right: &str) -> bool {
    wildcard_match(left, right) || wildcard_match(right, left)
}

fn equal(key: &Value, value: &Value) -> bool {
    match (key, value) {
        (Value::Number(key), Value::Number(value)) => same_number(key, value),
        (Value::Number(key), Value::String(value)) => {
            number(value).is_some() && number(value) == key.as_f64()
        }
        (Value::String(text), _) => {
            if let Some((key, value)) = durations(key, value) {
                return key == value;
            }
            let Value::String(value) = value else { return false };
            // A key that is a quantity equals no text that is none, but for the empty one.
            match (Quantity::parse(text), Quantity::parse(value)) {
                (Some(key), Some(value)) => key == value,
                (Some(_), None) => false,
                (None, _) => wildcard_match(value, text),
            }
        }
        (Value::Null, _) => false,
        (key, value) => same(key, value),
    }
}

/// Whether two values are the same, their numbers however they are written.
fn same(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => same_number(left, right),
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(left, right)| same(left, right))
        }
        (Value::Object(left), Value::Object(right)) => {
            let same =
                |(name, value): (&String, &Value)| right.get(name).is_some_and(|other| same(value, other));
            left.len() == right.len() && left.iter().all(same)
        }
        (left, right) => left == right,
    }
}

/// Both as durations, where one of them is one and the other is, too, or is a number of seconds.
fn durations(key: &Value, value: &Value) -> Option<(Duration, Duration)> {
    let own = |value: &Value| value.as_str().filter(|text| *text != "0").and_then(Duration::parse);
    match (own(key), own(value)) {
        (None, None) => None,
        (key_is, value_is) => Some((key_is.or_else(|| seconds(key))?, value_is.or_else(|| seconds(value))?)),
    }
}

/// A number of seconds; what is less than one is dropped.
fn seconds(value: &Value) -> Option<Duration> {
    #[expect(clippy::cast_possible_truncation, reason = "saturates, and is then no duration")]
    let whole = value.as_i64().or_else(|| value.as_f64().map(|number| number as i64))?;
    whole.checked_mul(1_000_000_000).map(Duration)
}

fn duration_order(key: &Value, value: &Value) -> Option<Ordering> {
    let read = |value: &Value| match value {
        Value::String(text) => Duration::parse(text),
        other => seconds(other),
    };
    Some(read(key)?.cmp(&read(value)?))
}

fn order(key: &Value, value: &Value) -> Option<Ordering> {
    if !matches!(key, Value::String(_) | Value::Number(_)) {
        return None;
    }
    if let Some((key, value)) = durations(key, value) {
        return Some(key.cmp(&value));
    }
    if let (Value::String(key), Value::String(value)) = (key, value)
        && let Some(order) = scalar::order(Quantity::parse, key, value)
    {
        return Some(order);
    }
    let as_number = |value: &Value| match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => number(text),
        _ => None,
    };
    match as_number(key) {
        // A text with a number beside a duration is seconds, too.
        Some(number) => match durations(&Value::from(number), value) {
            Some((key, value)) => Some(key.cmp(&value)),
            None => number.partial_cmp(&as_number(value)?),
        },
        None => {
            Some(Version::parse(key.as_str()?).ok()?.cmp_precedence(&Version::parse(value.as_str()?).ok()?))
        }
    }
}

fn number(text: &str) -> Option<f64> {
    text.parse().ok()
}

#[cfg(test)]
mod tests;
