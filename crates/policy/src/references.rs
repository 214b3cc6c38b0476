//! What a pattern or a patch says of its own places (Kyverno `pkg/engine/variables`): `{{ @ }}` is the
//! object's value in the same place, and `$(./../path)` what the document says in another one.

use std::sync::LazyLock;

use regex::{Captures, Regex};
use serde_json::Value;

use crate::anchor::Anchor;

/// `{{ @ }}`.
static HERE: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"\{\{-?\s*@\s*\}\}").ok());
/// `$(<=./../path)`, unless there is a backslash before it. Others, such as `$(POD_IP)`, are texts.
static REFERENCE: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"(\\)?\$\((<=|>=|<|>|!)?(\.{1,2}/[^ )]*)\)").ok());
/// Documents are not nested deeper.
const MAX_DEPTH: usize = 128;

/// The document with its references filled in; `root` is what `{{ @ }}` begins with.
///
/// # Errors
///
/// Says which reference leads nowhere, and why.
pub(crate) fn resolved(document: &Value, root: &str) -> Result<Value, String> {
    let mut path = Vec::new();
    walk(document, document, root, &mut path)
}

fn walk(value: &Value, document: &Value, root: &str, path: &mut Vec<String>) -> Result<Value, String> {
    if path.len() > MAX_DEPTH {
        return Err("it is nested too deep".to_owned());
    }
    Ok(match value {
        Value::String(text) => Value::String(filled(text, document, root, path)?),
        Value::Array(list) => {
            let mut filled = Vec::with_capacity(list.len());
            for (index, item) in list.iter().enumerate() {
                path.push(index.to_string());
                filled.push(walk(item, document, root, path)?);
                path.pop();
            }
            Value::Array(filled)
        }
        Value::Object(fields) => {
            let mut filled = serde_json::Map::new();
            for (name, value) in fields {
                path.push(key(name).to_owned());
                filled.insert(name.clone(), walk(value, document, root, path)?);
                path.pop();
            }
            Value::Object(filled)
        }
        other => other.clone(),
    })
}

/// A key without the anchor around it.
fn key(name: &str) -> &str {
    Anchor::parse(name).map_or(name, |anchor| anchor.key)
}

fn filled(text: &str, document: &Value, root: &str, path: &[String]) -> Result<String, String> {
    let mut text = text.to_owned();
    if let Some(here) = HERE.as_ref().filter(|here| here.is_match(&text)) {
        let place = format!("{{{{ {root}{} }}}}", expression(path));
        text = here.replace_all(&text, regex::NoExpand(&place)).into_owned();
    }
    let Some(reference) = REFERENCE.as_ref().filter(|reference| reference.is_match(&text)) else {
        return Ok(text);
    };
    let mut wrong = None;
    let fill = |found: &Captures<'_>| -> String {
        let part = |number| found.get(number).map_or("", |part| part.as_str());
        if !part(1).is_empty() {
            return found[0].trim_start_matches('\\').to_owned();
        }
        match referred(document, path, part(3)) {
            Some(Value::String(value)) => format!("{}{value}", part(2)),
            Some(value @ (Value::Number(_) | Value::Bool(_))) => format!("{}{value}", part(2)),
            _ => {
                wrong.get_or_insert(format!("`{}` leads to no text or number in it", &found[0]));
                String::new()
            }
        }
    };
    let text = reference.replace_all(&text, fill).into_owned();
    wrong.map_or(Ok(text), Err)
}

/// A path as an expression, each name in quotes.
fn expression(path: &[String]) -> String {
    let part = |name: &String| {
        if name.bytes().all(|byte| byte.is_ascii_digit()) && !name.is_empty() {
            format!("[{name}]")
        } else {
            format!(".{}", Value::from(name.as_str()))
        }
    };
    path.iter().map(part).collect()
}

/// What stands at a path that is relative to this one.
fn referred<'a>(document: &'a Value, here: &[String], reference: &str) -> Option<&'a Value> {
    let mut path: Vec<&str> = here.iter().map(String::as_str).collect();
    for part in reference.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                path.pop()?;
            }
            name => path.push(name),
        }
    }
    path.into_iter().try_fold(document, |value, name| match value {
        Value::Object(fields) => fields.iter().find(|(own, _)| key(own) == name).map(|(_, value)| value),
        Value::Array(list) => list.get(name.parse::<usize>().ok()?),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn references_are_filled_in_where_they_lead_somewhere() {
        let limits = |text: &str| json!({ "spec": { "=(list)": [{ "requests": { "memory": text }, "limits": { "(memory)": "2Gi", "cpu": 2 } }] } });
        for (written, expected) in [
            ("$(<=./../../limits/memory)", Ok("<=2Gi")),
            ("$(./../../limits/cpu)", Ok("2")),
            ("$(/spec/list/0/limits/memory)", Ok("$(/spec/list/0/limits/memory)")),
            ("x-$(./../../limits/cpu)-y", Ok("x-2-y")),
            (r"\$(./../x)", Ok("$(./../x)")),
            ("$(POD_IP)", Ok("$(POD_IP)")),
            ("{{ @ }}", Ok("{{ request.object.\"spec\".\"list\"[0].\"requests\".\"memory\" }}")),
            ("a-{{@}}", Ok("a-{{ request.object.\"spec\".\"list\"[0].\"requests\".\"memory\" }}")),
            ("$(./../../none)", Err(())),
            ("$(./../../limits)", Err(())),
            ("$(./../../../../../../x)", Err(())),
        ] {
            let found = resolved(&limits(written), "request.object");
            let found = found.map(|found| found["spec"]["=(list)"][0]["requests"]["memory"].clone());
            match (found, expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, json!(expected), "{written}"),
                (Err(why), Err(())) => assert!(why.contains(written), "{why}"),
                (found, _) => panic!("{written}: {found:?}"),
            }
        }
    }
}
