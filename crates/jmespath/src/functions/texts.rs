//! Kyverno's functions on texts.

use serde_json::Value;

use super::Kind::{Number, Text};
use super::{Arguments, Function};
use crate::Error;
use crate::numbers::to_json;

pub(super) const FUNCTIONS: &[Function] = &[
    Function::build("compare", &[&[Text], &[Text]], |a| Ok((a.text(0)?.cmp(a.text(1)?) as i8).into())),
    Function::build("equal_fold", &[&[Text], &[Text]], |a| Ok(fold(a.text(0)?).eq(fold(a.text(1)?)).into())),
    Function::build("path_canonicalize", &[&[Text]], |a| Ok(clean_path(a.text(0)?).into())),
    Function::build("replace", &[&[Text], &[Text], &[Text], &[Number]], |a| {
        let count = a.number(3)?;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "less than nothing means all"
        )]
        replace(a, if count < 0.0 { usize::MAX } else { count as usize })
    }),
    Function::build("replace_all", &[&[Text], &[Text], &[Text]], |a| replace(a, usize::MAX)),
    Function::build("split", &[&[Text], &[Text]], split),
    Function::build("to_boolean", &[&[Text]], to_boolean),
    Function::build("to_lower", &[&[Text]], |a| Ok(a.text(0)?.chars().map(lower).collect::<String>().into())),
    Function::build("to_upper", &[&[Text]], |a| Ok(a.text(0)?.chars().map(upper).collect::<String>().into())),
    Function::build("trim", &[&[Text], &[Text]], |a| {
        let cut = a.text(1)?;
        Ok(a.text(0)?.trim_matches(|c| cut.contains(c)).into())
    }),
    Function::build("trim_prefix", &[&[Text], &[Text]], |a| {
        let text = a.text(0)?;
        Ok(text.strip_prefix(a.text(1)?).unwrap_or(text).into())
    }),
    Function::build("truncate", &[&[Text], &[Number]], |a| {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "less than nothing is nothing"
        )]
        let length = a.number(1)? as usize;
        Ok(a.text(0)?.chars().take(length).collect::<String>().into())
    }),
];

/// A value as a text of its own: a string without quotes.
pub(super) fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(value) if value.is_f64() => {
            value.as_f64().map(|value| value.to_string()).unwrap_or_default()
        }
        value => to_json(value),
    }
}

/// One character for one, as Go has it: `ß` stays.
fn upper(c: char) -> char {
    let mut upper = c.to_uppercase();
    match (upper.next(), upper.next()) {
        (Some(only), None) => only,
        _ => c,
    }
}

fn lower(c: char) -> char {
    let mut lower = c.to_lowercase();
    match (lower.next(), lower.next()) {
        (Some(only), None) => only,
        // `İ` is the one letter that has more than one.
        _ => 'i',
    }
}

/// Letters that differ in case alone become one; the dotted and the dotless `i` are their own.
fn fold(text: &str) -> impl Iterator<Item = char> + '_ {
    text.chars().map(|c| if matches!(c, 'İ' | 'ı') { c } else { lower(upper(c)) })
}

fn replace(a: &mut Arguments<'_, '_, '_>, count: usize) -> Result<Value, Error> {
    let (text, old, new) = (a.text(0)?, a.text(1)?, a.text(2)?);
    let found = text.matches(old).take(count).count();
    a.interpreter.budget.room(found.saturating_mul(new.len()))?;
    Ok(text.replacen(old, new, count).into())
}

fn split(a: &mut Arguments<'_, '_, '_>) -> Result<Value, Error> {
    // As many values as there are bytes cost more than the text.
    let parts = a.text(0)?.matches(a.text(1)?).count();
    a.budget().work(parts)?;
    let (text, between) = (a.text(0)?, a.text(1)?);
    Ok(if between.is_empty() {
        text.chars().map(|c| Value::from(c.to_string())).collect()
    } else {
        text.split(between).map(Value::from).collect()
    })
}

fn to_boolean(a: &mut Arguments<'_, '_, '_>) -> Result<Value, Error> {
    match a.text(0)?.to_ascii_lowercase().as_str() {
        "true" => Ok(Value::Bool(true)),
        "false" => Ok(Value::Bool(false)),
        _ => Err(a.wrong(0, "'true' or 'false'")),
    }
}

/// As Go's `filepath.Join` of one path: `.` and `..` resolved as far as there is something to resolve.
fn clean_path(path: &str) -> String {
    if path.is_empty() {
        return String::new();
    }
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => _ = parts.pop(),
            ".." if rooted => {}
            part => parts.push(part),
        }
    }
    let joined = parts.join("/");
    match (rooted, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_owned(),
        (false, false) => joined,
    }
}
