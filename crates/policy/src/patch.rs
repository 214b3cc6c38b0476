//! Strategic merge with conditional and add-if-absent anchors
//! (Kyverno `pkg/engine/mutate/patch`, kustomize).
//!
//! Lists of objects merge by `name`; other lists are replaced. `(key): pattern` is a condition on
//! the object it stands in; `+(key): value` sets a key that is absent.

use countersign_reference::wildcard_match;
use serde_json::{Map, Value};

/// The key by which lists of objects merge.
const MERGE_KEY: &str = "name";

/// Merges a patch into a target; `false` if a condition does not hold and nothing was changed.
pub(crate) fn merge(target: &mut Value, patch: &Value) -> bool {
    if !holds(target, patch) {
        return false;
    }
    apply(target, patch);
    true
}

/// Whether all conditions of an object and of the objects below it hold. Elements of lists are
/// conditions of their own: each decides for itself.
fn holds(target: &Value, patch: &Value) -> bool {
    let Value::Object(fields) = patch else { return true };
    fields.iter().all(|(key, value)| match condition(key) {
        Some(name) => matches(target.get(name), value),
        None => !value.is_object() || holds(target.get(plain(key)).unwrap_or(&Value::Null), value),
    })
}

fn matches(target: Option<&Value>, pattern: &Value) -> bool {
    match (target, pattern) {
        (Some(Value::String(text)), Value::String(pattern)) => wildcard_match(pattern, text),
        (Some(target), Value::Object(fields)) => {
            fields.iter().all(|(key, pattern)| matches(target.get(key), pattern))
        }
        (Some(target), pattern) => target == pattern,
        (None, _) => false,
    }
}

fn condition(key: &str) -> Option<&str> {
    key.strip_prefix('(')?.strip_suffix(')')
}

fn if_absent(key: &str) -> Option<&str> {
    key.strip_prefix("+(")?.strip_suffix(')')
}

fn plain(key: &str) -> &str {
    if_absent(key).unwrap_or(key)
}

fn apply(target: &mut Value, patch: &Value) {
    match (target, patch) {
        (target, Value::Object(fields)) => {
            if !target.is_object() {
                *target = Value::Object(Map::new());
            }
            let Value::Object(object) = target else { return };
            for (key, value) in fields {
                if condition(key).is_some() {
                    continue;
                }
                if if_absent(key).is_some_and(|name| object.contains_key(name)) {
                    continue;
                }
                if value.is_null() {
                    object.remove(plain(key));
                } else {
                    apply(object.entry(plain(key)).or_insert(Value::Null), value);
                }
            }
        }
        (Value::Array(items), Value::Array(patches))
            if patches.iter().all(|patch| merge_key(patch).is_some()) =>
        {
            for patch in patches {
                apply_element(items, patch);
            }
        }
        (target, patch) => *target = patch.clone(),
    }
}

/// The name that an element merges by, and whether it is a condition.
fn merge_key(patch: &Value) -> Option<(&str, bool)> {
    let anchored = patch.get("(name)").and_then(Value::as_str).map(|name| (name, true));
    anchored.or_else(|| Some((patch.get(MERGE_KEY)?.as_str()?, false)))
}

fn apply_element(items: &mut Vec<Value>, patch: &Value) {
    let Some((name, conditional)) = merge_key(patch) else { return };
    let mut found = false;
    for item in items.iter_mut() {
        let own = item.get(MERGE_KEY).and_then(Value::as_str).unwrap_or_default();
        if if conditional { wildcard_match(name, own) } else { own == name } {
            found = true;
            if holds(item, patch) {
                apply(item, patch);
            }
        }
    }
    if !found && !conditional {
        let mut item = Value::Null;
        apply(&mut item, patch);
        items.push(item);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(mut target: Value, patch: &Value, expected: &Value) {
        merge(&mut target, patch);
        assert_eq!(target, *expected);
    }

    #[test]
    fn merges_by_name_and_by_anchor() {
        let pod = || json!({ "spec": { "containers": [{ "name": "a", "image": "x" }, { "name": "b", "image": "y" }] } });
        check(
            pod(),
            &json!({ "spec": { "containers": [{ "name": "b", "image": "z" }] } }),
            &json!({ "spec": { "containers": [{ "name": "a", "image": "x" }, { "name": "b", "image": "z" }] } }),
        );
        check(
            pod(),
            &json!({ "spec": { "containers": [{ "(name)": "*", "+(tty)": true, "+(image)": "q" }] } }),
            &json!({ "spec": { "containers": [
                { "name": "a", "image": "x", "tty": true }, { "name": "b", "image": "y", "tty": true }] } }),
        );
        check(pod(), &json!({ "(kind)": "Pod", "spec": { "x": 1 } }), &pod());
        check(
            json!({ "a": 1, "b": 2 }),
            &json!({ "a": null, "+(b)": 3, "+(c)": 4 }),
            &json!({ "b": 2, "c": 4 }),
        );
    }
}
