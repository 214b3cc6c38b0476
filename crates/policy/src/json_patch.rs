//! JSON patches (RFC 6902) as `patchesJson6902` has them, with the options that Kyverno applies them with:
//! indices from the end, parents that `add` makes, and a `remove` of what is not there.

use std::fmt;

use serde_json::{Map, Value};

/// Operations of one patch.
pub const MAX_OPERATIONS: usize = 1_000;
/// Values that one patch may add and copy.
pub const MAX_ADDED: usize = 1_000_000;
/// How deep a patch may nest what it changes.
pub const MAX_PATCHED_DEPTH: usize = 128;
/// The farthest that a list is filled up with nulls for an index beyond its end.
const MAX_FILLED: usize = 1_024;

/// Why a patch cannot be read or applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JsonPatchError {
    /// Neither JSON nor YAML, or no list of operations.
    #[error("{0}")]
    Text(String),
    /// One operation is wrong, or does not apply.
    #[error("operation {index} ({operation}): {message}")]
    Operation {
        /// Which, counted from 0.
        index: usize,
        /// What it was to do, and where.
        operation: String,
        /// Why not.
        message: String,
    },
}

/// A patch that can be applied.
#[derive(Clone, Debug, PartialEq)]
pub struct JsonPatch {
    operations: Vec<Operation>,
}

#[derive(Clone, Debug, PartialEq)]
struct Operation {
    path: Vec<String>,
    change: Change,
}

#[derive(Clone, Debug, PartialEq)]
enum Change {
    Add(Value),
    Replace(Value),
    Remove,
    Move(Vec<String>),
    Copy(Vec<String>),
    Test(Value),
}

impl JsonPatch {
    /// Reads a patch: JSON if the text begins with `[`, otherwise YAML.
    pub fn parse(text: &str) -> Result<Self, JsonPatchError> {
        let value = if text.starts_with('[') {
            serde_json::from_str(text).map_err(|error| JsonPatchError::Text(error.to_string()))?
        } else {
            countersign_yaml::document(text).map_err(|error| JsonPatchError::Text(error.to_string()))?
        };
        Self::of(&value)
    }

    /// Reads a patch that is a value already.
    pub fn of(value: &Value) -> Result<Self, JsonPatchError> {
        let Value::Array(list) = value else {
            return Err(JsonPatchError::Text("expected a list of operations".to_owned()));
        };
        if list.len() > MAX_OPERATIONS {
            return Err(JsonPatchError::Text(format!("more than {MAX_OPERATIONS} operations")));
        }
        let operations = list.iter().enumerate().map(|(index, value)| {
            Operation::of(value).map_err(|message| {
                let word = |name: &str| value[name].as_str().unwrap_or("?").to_owned();
                let operation = format!("{} {}", word("op"), word("path"));
                JsonPatchError::Operation { index, operation, message }
            })
        });
        Ok(Self { operations: operations.collect::<Result<_, _>>()? })
    }

    /// Applies the operations one after another; where one does not apply, nothing is changed.
    pub fn apply(&self, target: &mut Value) -> Result<(), JsonPatchError> {
        let mut patched = target.clone();
        let mut added = MAX_ADDED;
        for (index, operation) in self.operations.iter().enumerate() {
            operation.apply(&mut patched, &mut added).map_err(|message| JsonPatchError::Operation {
                index,
                operation: operation.to_string(),
                message,
            })?;
        }
        *target = patched;
        Ok(())
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.change {
            Change::Add(_) => "add",
            Change::Replace(_) => "replace",
            Change::Remove => "remove",
            Change::Move(_) => "move",
            Change::Copy(_) => "copy",
            Change::Test(_) => "test",
        };
        write!(f, "{name} {}", shown(&self.path))
    }
}

impl Operation {
    fn of(value: &Value) -> Result<Self, String> {
        let pointer = |name: &str| match value.get(name) {
            Some(Value::String(text)) => pointer(text).map_err(|error| format!("`{name}`: {error}")),
            _ => Err(format!("`{name}` is missing")),
        };
        let given = || value.get("value").cloned().ok_or_else(|| "`value` is missing".to_owned());
        let change = match value["op"].as_str().unwrap_or_default() {
            "add" => Change::Add(given()?),
            "replace" => Change::Replace(given()?),
            "remove" => Change::Remove,
            "move" => Change::Move(pointer("from")?),
            "copy" => Change::Copy(pointer("from")?),
            // Without a value: nothing is to be there.
            "test" => Change::Test(value.get("value").cloned().unwrap_or_default()),
            other => return Err(format!("`{other}` is no operation")),
        };
        Ok(Self { path: pointer("path")?, change })
    }

    fn apply(&self, target: &mut Value, added: &mut usize) -> Result<(), String> {
        let path = &self.path;
        match &self.change {
            Change::Add(value) => {
                let value = self.placed(value, added)?;
                make_parents(target, path, added)?;
                add(target, path, value)
            }
            Change::Replace(value) => {
                let value = self.placed(value, added)?;
                whole(path, &value)?;
                *find_mut(target, path).ok_or_else(|| missing(path))? = value;
                Ok(())
            }
            Change::Remove => match remove(target, path) {
                Ok(_) | Err(Gone::Missing) => Ok(()),
                Err(Gone::Wrong(message)) => Err(message),
            },
            Change::Move(from) => {
                if from.len() < path.len() && path.starts_with(from) {
                    return Err("a value cannot be moved into itself".to_owned());
                }
                let value = remove(target, from).map_err(|gone| match gone {
                    Gone::Missing => missing(from),
                    Gone::Wrong(message) => message,
                })?;
                let value = self.placed(&value, added)?;
                add(target, path, value)
            }
            Change::Copy(from) => {
                let value = find(target, from).ok_or_else(|| missing(from))?;
                let value = self.placed(value, added)?;
                add(target, path, value)
            }
            Change::Test(value) => match find(target, path) {
                Some(found) if found == value => Ok(()),
                None if value.is_null() && is_absent(target, path) => Ok(()),
                Some(_) => Err("the value differs".to_owned()),
                None => Err(missing(path)),
            },
        }
    }

    /// A value on its way into the target, within what may be added and how deep it may come to lie.
    fn placed(&self, value: &Value, added: &mut usize) -> Result<Value, String> {
        let mut todo = vec![(value, self.path.len())];
        while let Some((value, depth)) = todo.pop() {
            *added = added.saturating_sub(1);
            if *added == 0 {
                return Err("the patch adds too much".to_owned());
            }
            if depth > MAX_PATCHED_DEPTH {
                return Err("what the patch makes is nested too deep".to_owned());
            }
            match value {
                Value::Object(fields) => todo.extend(fields.values().map(|value| (value, depth + 1))),
                Value::Array(list) => todo.extend(list.iter().map(|value| (value, depth + 1))),
                _ => {}
            }
        }
        Ok(value.clone())
    }
}

/// Why there is nothing to remove.
enum Gone {
    Missing,
    Wrong(String),
}

/// Whether an object has no such field.
fn is_absent(target: &Value, path: &[String]) -> bool {
    path.split_last().and_then(|(_, up)| find(target, up)).is_some_and(Value::is_object)
}

fn missing(path: &[String]) -> String {
    format!("there is no `{}`", shown(path))
}

fn shown(path: &[String]) -> String {
    path.iter().map(|part| format!("/{}", part.replace('~', "~0").replace('/', "~1"))).collect()
}

fn pointer(text: &str) -> Result<Vec<String>, String> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let Some(rest) = text.strip_prefix('/') else { return Err(format!("`{text}` does not begin with `/`")) };
    let parts: Vec<String> = rest.split('/').map(|part| part.replace("~1", "/").replace("~0", "~")).collect();
    if parts.len() > MAX_PATCHED_DEPTH { Err("nested too deep".to_owned()) } else { Ok(parts) }
}

/// The place that a part of a path names in a list: from the front, or from one past the end backwards.
fn place(part: &str, length: usize) -> Option<usize> {
    let index: i64 = part.parse().ok()?;
    let length = i64::try_from(length).ok()?;
    usize::try_from(if index < 0 { length + index } else { index }).ok()
}

fn find<'a>(target: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(target, |value, part| match value {
        Value::Object(fields) => fields.get(part),
        Value::Array(list) => list.get(place(part, list.len())?),
        _ => None,
    })
}

fn find_mut<'a>(target: &'a mut Value, path: &[String]) -> Option<&'a mut Value> {
    path.iter().try_fold(target, |value, part| match value {
        Value::Object(fields) => fields.get_mut(part),
        Value::Array(list) => {
            let place = place(part, list.len())?;
            list.get_mut(place)
        }
        _ => None,
    })
}

/// In place of the whole there can be an object or a list.
fn whole(path: &[String], value: &Value) -> Result<(), String> {
    if path.is_empty() && !value.is_object() && !value.is_array() {
        return Err("the whole object cannot be replaced by a scalar".to_owned());
    }
    Ok(())
}

fn add(target: &mut Value, path: &[String], value: Value) -> Result<(), String> {
    whole(path, &value)?;
    let Some((last, up)) = path.split_last() else {
        *target = value;
        return Ok(());
    };
    match find_mut(target, up) {
        Some(Value::Object(fields)) => {
            fields.insert(last.clone(), value);
            Ok(())
        }
        Some(Value::Array(list)) => {
            let end = list.len();
            let at = if last == "-" { Some(end) } else { place(last, end + 1) };
            let at = at
                .filter(|at| *at <= end)
                .ok_or_else(|| format!("`{last}` is no place in a list of {end}"))?;
            list.insert(at, value);
            Ok(())
        }
        Some(_) => Err(format!("`{}` is neither an object nor a list", shown(up))),
        None => Err(missing(up)),
    }
}

fn remove(target: &mut Value, path: &[String]) -> Result<Value, Gone> {
    let Some((last, up)) = path.split_last() else {
        return Err(Gone::Wrong("the whole object cannot be removed".to_owned()));
    };
    match find_mut(target, up) {
        Some(Value::Object(fields)) => fields.remove(last).ok_or(Gone::Missing),
        Some(Value::Array(list)) => {
            if last.parse::<i64>().is_err() {
                return Err(Gone::Wrong(format!("`{last}` is no place in a list")));
            }
            let at = place(last, list.len()).filter(|at| *at < list.len()).ok_or(Gone::Missing)?;
            Ok(list.remove(at))
        }
        _ => Err(Gone::Missing),
    }
}

/// Makes what is missing above a path: a list where the next part is an index or `-`, otherwise an object.
/// What is null counts as missing.
fn make_parents(target: &mut Value, path: &[String], added: &mut usize) -> Result<(), String> {
    let mut value = target;
    for (part, next) in path.iter().zip(path.iter().skip(1)) {
        let index = next.parse::<i64>().ok();
        let new = || -> Result<Value, String> {
            match index {
                None if next == "-" => Ok(Value::Array(Vec::new())),
                None => Ok(Value::Object(Map::new())),
                Some(-1) => Ok(Value::Array(Vec::new())),
                Some(index) => Ok(Value::Array(vec![Value::Null; filled(index)?])),
            }
        };
        let below = match value {
            Value::Object(fields) => fields.entry(part.as_str()).or_insert(Value::Null),
            Value::Array(list) => {
                let end = list.len();
                let at = match place(part, end) {
                    Some(at) => at,
                    // What there is not yet, counted from the end, is made as `add` would.
                    None => {
                        let at = place(part, end + 1);
                        let at = at.ok_or_else(|| format!("`{part}` is no place in a list of {end}"))?;
                        list.insert(at, Value::Null);
                        at
                    }
                };
                if at >= list.len() {
                    filled(i64::try_from(at).unwrap_or(i64::MAX))?;
                    list.resize(at + 1, Value::Null);
                }
                &mut list[at]
            }
            _ => return Err(format!("`{part}` stands below what is neither an object nor a list")),
        };
        if below.is_null() {
            *below = new()?;
            let made = 1 + below.as_array().map_or(0, Vec::len);
            *added = added.saturating_sub(made);
        }
        value = below;
    }
    Ok(())
}

/// So many nulls that a list begins with.
fn filled(index: i64) -> Result<usize, String> {
    let index = usize::try_from(index).map_err(|_| format!("a new list has no element {index}"))?;
    if index > MAX_FILLED {
        Err(format!("index {index} is too far beyond the end of a list"))
    } else {
        Ok(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[track_caller]
    #[expect(clippy::needless_pass_by_value, reason = "the cases read better without `&`")]
    fn check(target: Value, patch: Value, expected: Result<Value, &str>) {
        let mut patched = target.clone();
        let applied = JsonPatch::of(&patch).and_then(|patch| patch.apply(&mut patched));
        match expected {
            Ok(expected) => assert_eq!((applied, patched), (Ok(()), expected), "{patch}"),
            Err(expected) => {
                assert_eq!(applied.unwrap_err().to_string(), expected, "{patch}");
                assert_eq!(patched, target, "nothing changes");
            }
        }
    }

    #[test]
    fn operations() {
        let op = |op: &str, path: &str, value: Value| json!([{ "op": op, "path": path, "value": value }]);
        check(json!({}), op("add", "/a", json!(1)), Ok(json!({ "a": 1 })));
        check(json!({ "a": [1, 2] }), op("add", "/a/1", json!(9)), Ok(json!({ "a": [1, 9, 2] })));
        check(json!({ "a": [1] }), op("add", "/a/-", json!(2)), Ok(json!({ "a": [1, 2] })));
        check(json!({ "a": [1, 2] }), op("add", "/a/-1", json!(3)), Ok(json!({ "a": [1, 2, 3] })));
        check(json!({ "a": [1, 2] }), op("replace", "/a/-1", json!(3)), Ok(json!({ "a": [1, 3] })));
        check(json!({}), op("add", "/a~1b/c~0d", json!(1)), Ok(json!({ "a/b": { "c~d": 1 } })));
        check(json!({}), op("add", "/a/2", json!(1)), Ok(json!({ "a": [null, null, 1] })));
        check(json!({ "a": [] }), op("add", "/a/1/b", json!(1)), Ok(json!({ "a": [null, { "b": 1 }] })));
        check(json!({}), op("add", "/a/-1/b/-1", json!(1)), Ok(json!({ "a": [{ "b": [1] }] })));
        check(json!({ "a": [{}] }), op("add", "/a/-1/b", json!(1)), Ok(json!({ "a": [{ "b": 1 }] })));
        check(json!({ "a": null }), op("add", "/a/b", json!(1)), Ok(json!({ "a": { "b": 1 } })));
        check(json!({ "a": 1 }), op("add", "", json!({ "b": 2 })), Ok(json!({ "b": 2 })));
        check(json!({ "a": 1 }), op("remove", "/a", json!(null)), Ok(json!({})));
        check(json!({ "a": [1] }), op("remove", "/b/c", json!(null)), Ok(json!({ "a": [1] })));
        check(json!({ "a": [1] }), op("remove", "/a/7", json!(null)), Ok(json!({ "a": [1] })));
        check(json!({ "a": [1, 2] }), op("remove", "/a/-1", json!(null)), Ok(json!({ "a": [1] })));
        check(json!({ "a": 1 }), op("test", "/a", json!(1)), Ok(json!({ "a": 1 })));
        check(json!({ "a": 1 }), op("test", "/b", json!(null)), Ok(json!({ "a": 1 })));
        let from = |op: &str, from: &str, path: &str| json!([{ "op": op, "from": from, "path": path }]);
        check(json!({ "a": 1 }), from("move", "/a", "/b"), Ok(json!({ "b": 1 })));
        check(json!({ "a": 1 }), from("copy", "/a", "/b"), Ok(json!({ "a": 1, "b": 1 })));
        check(json!({ "a": [1, 2] }), from("move", "/a/0", "/a/1"), Ok(json!({ "a": [2, 1] })));

        check(json!({}), op("replace", "/a", json!(1)), Err("operation 0 (replace /a): there is no `/a`"));
        check(
            json!({ "a": 1 }),
            op("add", "/a/b", json!(1)),
            Err("operation 0 (add /a/b): `/a` is neither an object nor a list"),
        );
        check(
            json!({ "a": [] }),
            op("add", "/a/1", json!(1)),
            Err("operation 0 (add /a/1): `1` is no place in a list of 0"),
        );
        check(
            json!({ "a": [] }),
            op("add", "/a/x", json!(1)),
            Err("operation 0 (add /a/x): `x` is no place in a list of 0"),
        );
        check(
            json!({ "a": [] }),
            op("remove", "/a/x", json!(1)),
            Err("operation 0 (remove /a/x): `x` is no place in a list"),
        );
        check(json!({ "a": 1 }), op("test", "/a", json!(2)), Err("operation 0 (test /a): the value differs"));
        check(json!({}), op("test", "/a/b", json!(null)), Err("operation 0 (test /a/b): there is no `/a/b`"));
        check(
            json!({}),
            op("add", "/a/-2", json!(1)),
            Err("operation 0 (add /a/-2): a new list has no element -2"),
        );
        check(
            json!({}),
            op("add", "/a/99999/b", json!(1)),
            Err("operation 0 (add /a/99999/b): index 99999 is too far beyond the end of a list"),
        );
        check(json!({}), op("put", "/a", json!(1)), Err("operation 0 (put /a): `put` is no operation"));
        check(
            json!({}),
            op("add", "a", json!(1)),
            Err("operation 0 (add a): `path`: `a` does not begin with `/`"),
        );
        check(
            json!({}),
            json!([{ "op": "add", "path": "/a" }]),
            Err("operation 0 (add /a): `value` is missing"),
        );
        check(
            json!({}),
            json!([{ "op": "copy", "path": "/a" }]),
            Err("operation 0 (copy /a): `from` is missing"),
        );
        check(json!({}), json!({}), Err("expected a list of operations"));
        check(
            json!({ "a": {} }),
            from("move", "/a", "/a/b"),
            Err("operation 0 (move /a/b): a value cannot be moved into itself"),
        );
        check(
            json!({}),
            from("move", "", "/b"),
            Err("operation 0 (move /b): a value cannot be moved into itself"),
        );
        check(json!({}), from("copy", "/x", "/b"), Err("operation 0 (copy /b): there is no `/x`"));
        check(
            json!({ "a": 1 }),
            json!([{ "op": "add", "path": "/b", "value": 1 }, { "op": "replace", "path": "/c", "value": 1 }]),
            Err("operation 1 (replace /c): there is no `/c`"),
        );
        check(
            json!({}),
            op("add", "/a/-/b", json!(1)),
            Err("operation 0 (add /a/-/b): `-` is no place in a list of 0"),
        );
        check(
            json!({}),
            op("replace", "", json!(1)),
            Err("operation 0 (replace ): the whole object cannot be replaced by a scalar"),
        );
        check(
            json!({ "a": [] }),
            op("test", "/a/5", json!(null)),
            Err("operation 0 (test /a/5): there is no `/a/5`"),
        );
    }

    #[test]
    fn as_yaml_and_as_json() {
        for text in [
            "- op: add\n  path: /a\n  value: {b: [1]}\n",
            "[{\"op\": \"add\", \"path\": \"/a\", \"value\": {\"b\": [1]}}]",
            "- path: \"/a\"\n  op: add\n  value:\n    b:\n    - 1",
        ] {
            let mut target = json!({});
            JsonPatch::parse(text).unwrap().apply(&mut target).unwrap();
            assert_eq!(target, json!({ "a": { "b": [1] } }), "{text}");
        }
        assert!(matches!(JsonPatch::parse(""), Err(JsonPatchError::Text(_))));
        assert!(matches!(JsonPatch::parse("[{]"), Err(JsonPatchError::Text(_))));
        assert!(matches!(JsonPatch::parse("a: b"), Err(JsonPatchError::Text(_))));
    }

    #[test]
    fn a_patch_does_not_grow_without_end() {
        let doubles: Vec<Value> =
            (0..40).map(|_| json!({ "op": "copy", "from": "/a", "path": "/a/-" })).collect();
        let failed = JsonPatch::of(&json!(doubles)).unwrap().apply(&mut json!({ "a": [1] })).unwrap_err();
        assert!(
            failed.to_string().ends_with("the patch adds too much")
                || failed.to_string().ends_with("nested too deep")
        );
        let deeper: Vec<Value> =
            (0..200).map(|_| json!({ "op": "copy", "from": "/a", "path": "/a/b" })).collect();
        let mut target = json!({ "a": { "c": 1 } });
        let failed = JsonPatch::of(&json!(deeper)).unwrap().apply(&mut target).unwrap_err();
        assert!(failed.to_string().ends_with("nested too deep"), "{failed}");
        let many = json!(vec![json!({ "op": "remove", "path": "/a" }); MAX_OPERATIONS + 1]);
        assert!(JsonPatch::of(&many).is_err());
        let long = json!([{ "op": "remove", "path": "/a".repeat(MAX_PATCHED_DEPTH + 1) }]);
        assert!(JsonPatch::of(&long).is_err());
    }
}
