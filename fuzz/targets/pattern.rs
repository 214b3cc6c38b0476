//! A resource and a pattern: an answer within the steps, and anchors that mean what they say; texts that operators
//! compare, beside them.
#![no_main]

use countersign_jmespath::quantity::Quantity;
use countersign_policy::{Matched, Operator, match_pattern};
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};

/// What is said about a match is short, with room for a path.
const SHORT: usize = 16 * 1024;

fuzz_target!(|bytes: &[u8]| {
    let Ok(Value::Array(values)) = serde_json::from_slice(bytes) else { return };
    let [resource, pattern, rest @ ..] = values.as_slice() else { return };
    anchors(resource, pattern);
    for value in rest {
        operators(resource, value);
    }
});

fn anchors(resource: &Value, pattern: &Value) {
    let plain = match_pattern(resource, pattern);
    let around = |anchor: &str| match_pattern(&json!({ "a": resource }), &json!({ anchor: pattern }));
    let (equality, condition) = (around("=(a)"), around("(a)"));
    if [&plain, &equality, &condition].into_iter().any(is_beyond) {
        return;
    }
    match &plain {
        Matched::Pass => assert!(equality == Matched::Pass && condition == Matched::Pass),
        Matched::Skip(message) => {
            assert!(message.len() < SHORT);
            assert!(matches!(equality, Matched::Skip(_)) && matches!(condition, Matched::Skip(_)));
        }
        Matched::Fail { path, reason } => {
            assert!(path.starts_with('/') && path.ends_with('/'), "{path}");
            assert!(reason.len() < SHORT);
            let below = format!("/a{path}");
            assert!(
                matches!(&equality, Matched::Fail { path, .. } if *path == below),
                "{equality:?} at {below}"
            );
            assert!(matches!(condition, Matched::Skip(_)));
        }
        Matched::Error(_) => {
            assert!(matches!(equality, Matched::Error(_) | Matched::Fail { .. }), "{equality:?}");
            assert!(matches!(condition, Matched::Skip(_)));
        }
    }
    let absent = match_pattern(&json!({}), &json!({ "=(a)": pattern }));
    assert_eq!(absent, Matched::Pass);
}

fn is_beyond(matched: &Matched) -> bool {
    matches!(matched, Matched::Error(reason) if reason.contains("beyond its limits"))
}

fn operators(key: &Value, value: &Value) {
    let holds = |name: &str| Operator::parse(name).is_some_and(|operator| operator.holds(key, value));
    assert!(!(holds("Equals") && holds("NotEquals")));
    for (less, more) in [("LessThan", "GreaterThanOrEquals"), ("LessThanOrEquals", "GreaterThan")] {
        assert!(!(holds(less) && holds(more)), "{key} and {value}");
    }
    for (inside, outside) in [("AllIn", "AnyNotIn"), ("AnyIn", "AllNotIn"), ("In", "NotIn")] {
        assert!(!(holds(inside) && holds(outside)), "{key} and {value}");
    }
    if let (Some(key), Some(value)) = (key.as_str(), value.as_str())
        && let (Some(left), Some(right)) = (Quantity::parse(key), Quantity::parse(value))
    {
        let negative = |text: &str| match text.strip_prefix('-') {
            Some(text) => Quantity::parse(text),
            None => Quantity::parse(&format!("-{}", text.strip_prefix('+').unwrap_or(text))),
        };
        let (mirrored, other) = (negative(value), negative(key));
        assert!(mirrored.is_some() && mirrored.cmp(&other) == left.cmp(&right), "{key} and {value}");
    }
}
