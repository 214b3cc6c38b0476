//! The functions: JMESPath's own, and those of Kyverno's that need neither time nor network.

use std::cmp::Ordering;

use regex::Regex;
use serde_json::Value;

use crate::Error;
use crate::evaluate::number;

/// Name and how many arguments, least and most.
const FUNCTIONS: &[(&str, usize, usize)] = &[
    ("abs", 1, 1),
    ("avg", 1, 1),
    ("ceil", 1, 1),
    ("contains", 2, 2),
    ("ends_with", 2, 2),
    ("equal_fold", 2, 2),
    ("floor", 1, 1),
    ("join", 2, 2),
    ("keys", 1, 1),
    ("length", 1, 1),
    ("map", 2, 2),
    ("max", 1, 1),
    ("max_by", 2, 2),
    ("merge", 1, usize::MAX),
    ("min", 1, 1),
    ("min_by", 2, 2),
    ("not_null", 1, usize::MAX),
    ("regex_match", 2, 2),
    ("regex_replace_all", 3, 3),
    ("regex_replace_all_literal", 3, 3),
    ("replace", 4, 4),
    ("replace_all", 3, 3),
    ("reverse", 1, 1),
    ("sort", 1, 1),
    ("sort_by", 2, 2),
    ("split", 2, 2),
    ("starts_with", 2, 2),
    ("sum", 1, 1),
    ("to_array", 1, 1),
    ("to_lower", 1, 1),
    ("to_number", 1, 1),
    ("to_string", 1, 1),
    ("to_upper", 1, 1),
    ("trim", 2, 2),
    ("trim_prefix", 2, 2),
    ("truncate", 2, 2),
    ("type", 1, 1),
    ("values", 1, 1),
];

/// Whether there is such a function with so many arguments.
pub(crate) fn check_arity(name: &str, count: usize) -> Result<(), Error> {
    let found = FUNCTIONS.iter().find(|(known, _, _)| *known == name);
    let (_, least, most) = found.ok_or_else(|| Error::UnknownFunction(name.to_owned()))?;
    if count < *least || count > *most {
        return Err(Error::call(name, format!("takes {least} arguments, not {count}")));
    }
    Ok(())
}

/// `sort_by`, `min_by`, `max_by` over keys that are computed.
pub(crate) fn by(name: &str, mut keyed: Vec<(Value, Value)>) -> Result<Value, Error> {
    check_arity(name, 2)?;
    let numbers = keyed.iter().all(|(key, _)| key.is_number());
    if !numbers && !keyed.iter().all(|(key, _)| key.is_string()) {
        return Err(Error::call(name, "expects keys that are all numbers or all strings"));
    }
    keyed.sort_by(|(a, _), (b, _)| order(a, b));
    let mut values = keyed.into_iter().map(|(_, value)| value);
    match name {
        "sort_by" => Ok(Value::Array(values.collect())),
        "min_by" => Ok(values.next().unwrap_or_default()),
        "max_by" => Ok(values.next_back().unwrap_or_default()),
        _ => Err(Error::call(name, "takes no expression reference")),
    }
}

fn order(a: &Value, b: &Value) -> Ordering {
    match (a, b) {
        (Value::String(a), Value::String(b)) => a.cmp(b),
        _ => a.as_f64().partial_cmp(&b.as_f64()).unwrap_or(Ordering::Equal),
    }
}

/// Typed access to arguments.
struct Arguments<'a> {
    name: &'a str,
    values: Vec<Value>,
}

impl Arguments<'_> {
    fn wrong(&self, index: usize, expected: &str) -> Error {
        let found = self.values.get(index).map_or("nothing", type_of);
        Error::call(self.name, format!("argument {}: expected {expected}, found {found}", index + 1))
    }

    fn text(&self, index: usize) -> Result<&str, Error> {
        self.values.get(index).and_then(Value::as_str).ok_or_else(|| self.wrong(index, "a string"))
    }

    fn number(&self, index: usize) -> Result<f64, Error> {
        self.values.get(index).and_then(Value::as_f64).ok_or_else(|| self.wrong(index, "a number"))
    }

    fn list(&self, index: usize) -> Result<&[Value], Error> {
        let list = self.values.get(index).and_then(Value::as_array);
        list.map(Vec::as_slice).ok_or_else(|| self.wrong(index, "a list"))
    }

    fn numbers(&self, index: usize) -> Result<Vec<f64>, Error> {
        self.list(index)?
            .iter()
            .map(|v| v.as_f64().ok_or_else(|| self.wrong(index, "a list of numbers")))
            .collect()
    }

    fn regex(&self, index: usize) -> Result<Regex, Error> {
        let text = self.text(index)?;
        // Go's classes are ASCII and Rust's are Unicode; what else differs is refused by name.
        for differs in [r"\Q", "&&", "--", "~~", "[[", "(?x", r"\<", r"\>", "{,"] {
            if text.contains(differs) {
                return Err(Error::call(
                    self.name,
                    format!("`{differs}` in a regular expression is not supported yet"),
                ));
            }
        }
        let ascii =
            text.replace(r"\d", "[0-9]").replace(r"\w", "[0-9A-Za-z_]").replace(r"\s", r"[\t\n\x0C\r ]");
        if text.contains('[') && ascii != *text && classes_inside_brackets(text) {
            return Err(Error::call(
                self.name,
                "`\\d`, `\\w` and `\\s` inside brackets are not supported yet",
            ));
        }
        Regex::new(&ascii)
            .map_err(|error| Error::call(self.name, format!("not a regular expression: {error}")))
    }
}

fn classes_inside_brackets(text: &str) -> bool {
    let (mut inside, mut escaped) = (false, false);
    for c in text.chars() {
        if escaped {
            if inside && matches!(c, 'd' | 'w' | 's') {
                return true;
            }
            escaped = false;
            continue;
        }
        match c {
            '\\' => escaped = true,
            '[' => inside = true,
            ']' => inside = false,
            _ => {}
        }
    }
    false
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Calls a function with its arguments.
pub(crate) fn call(name: &str, values: Vec<Value>) -> Result<Value, Error> {
    check_arity(name, values.len())?;
    let a = Arguments { name, values };
    Ok(match name {
        "abs" => number(a.number(0)?.abs()),
        "ceil" => number(a.number(0)?.ceil()),
        "floor" => number(a.number(0)?.floor()),
        "sum" => number(a.numbers(0)?.iter().sum()),
        "avg" => {
            let numbers = a.numbers(0)?;
            #[expect(clippy::cast_precision_loss, reason = "lists are short")]
            let count = numbers.len() as f64;
            if numbers.is_empty() { Value::Null } else { number(numbers.iter().sum::<f64>() / count) }
        }
        "max" => a.list(0)?.iter().max_by(|x, y| order(x, y)).cloned().unwrap_or_default(),
        "min" => a.list(0)?.iter().min_by(|x, y| order(x, y)).cloned().unwrap_or_default(),
        "sort" => {
            let mut list = a.list(0)?.to_vec();
            list.sort_by(order);
            Value::Array(list)
        }
        "contains" => match &a.values[0] {
            Value::String(text) => Value::Bool(a.values[1].as_str().is_some_and(|part| text.contains(part))),
            Value::Array(list) => Value::Bool(list.contains(&a.values[1])),
            _ => return Err(a.wrong(0, "a string or a list")),
        },
        "starts_with" => Value::Bool(a.text(0)?.starts_with(a.text(1)?)),
        "ends_with" => Value::Bool(a.text(0)?.ends_with(a.text(1)?)),
        "equal_fold" => Value::Bool(a.text(0)?.to_lowercase() == a.text(1)?.to_lowercase()),
        "join" => {
            let parts: Option<Vec<&str>> = a.list(1)?.iter().map(Value::as_str).collect();
            Value::String(parts.ok_or_else(|| a.wrong(1, "a list of strings"))?.join(a.text(0)?))
        }
        "length" => match &a.values[0] {
            Value::String(text) => Value::from(text.chars().count()),
            Value::Array(list) => Value::from(list.len()),
            Value::Object(fields) => Value::from(fields.len()),
            _ => return Err(a.wrong(0, "a string, a list or an object")),
        },
        "keys" => match &a.values[0] {
            Value::Object(fields) => Value::Array(fields.keys().cloned().map(Value::String).collect()),
            _ => return Err(a.wrong(0, "an object")),
        },
        "values" => match &a.values[0] {
            Value::Object(fields) => Value::Array(fields.values().cloned().collect()),
            _ => return Err(a.wrong(0, "an object")),
        },
        "merge" => {
            let mut merged = serde_json::Map::new();
            for (index, value) in a.values.iter().enumerate() {
                merged.extend(value.as_object().cloned().ok_or_else(|| a.wrong(index, "an object"))?);
            }
            Value::Object(merged)
        }
        "not_null" => a.values.iter().find(|value| !value.is_null()).cloned().unwrap_or_default(),
        "reverse" => match &a.values[0] {
            Value::String(text) => Value::String(text.chars().rev().collect()),
            Value::Array(list) => Value::Array(list.iter().rev().cloned().collect()),
            _ => return Err(a.wrong(0, "a string or a list")),
        },
        "to_array" => match &a.values[0] {
            Value::Array(list) => Value::Array(list.clone()),
            other => Value::Array(vec![other.clone()]),
        },
        "to_string" => match &a.values[0] {
            Value::String(text) => Value::String(text.clone()),
            other => Value::String(other.to_string()),
        },
        "to_number" => match &a.values[0] {
            Value::Number(value) => Value::Number(value.clone()),
            Value::String(text) => text.parse::<f64>().map_or(Value::Null, number),
            _ => Value::Null,
        },
        "type" => Value::from(type_of(&a.values[0])),
        "to_upper" => Value::String(a.text(0)?.to_uppercase()),
        "to_lower" => Value::String(a.text(0)?.to_lowercase()),
        "trim" => {
            let cutset = a.text(1)?;
            Value::from(a.text(0)?.trim_matches(|c| cutset.contains(c)))
        }
        "trim_prefix" => Value::from(a.text(0)?.strip_prefix(a.text(1)?).unwrap_or(a.text(0)?)),
        "truncate" => {
            let length = a.number(1)?.max(0.0);
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "not negative, and large is all"
            )]
            Value::String(a.text(0)?.chars().take(length as usize).collect())
        }
        "split" => Value::Array(a.text(0)?.split(a.text(1)?).map(Value::from).collect()),
        "replace" => {
            let count = a.number(3)?;
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "negative means all")]
            let count = if count < 0.0 { usize::MAX } else { count as usize };
            Value::String(a.text(0)?.replacen(a.text(1)?, a.text(2)?, count))
        }
        "replace_all" => Value::String(a.text(0)?.replace(a.text(1)?, a.text(2)?)),
        "regex_match" => {
            let subject = match &a.values[1] {
                Value::Number(value) => value.to_string(),
                _ => a.text(1)?.to_owned(),
            };
            Value::Bool(a.regex(0)?.is_match(&subject))
        }
        "regex_replace_all" => Value::String(a.regex(0)?.replace_all(a.text(1)?, a.text(2)?).into_owned()),
        "regex_replace_all_literal" => {
            let replacement = regex::NoExpand(a.text(2)?);
            Value::String(a.regex(0)?.replace_all(a.text(1)?, replacement).into_owned())
        }
        // `map`, `sort_by` and their kind take an expression and are answered before.
        _ => return Err(Error::call(name, "expects an expression reference")),
    })
}
