//! One value against one scalar of a pattern (Kyverno `pkg/engine/pattern`).
//!
//! A text is alternatives (`|`) of conjunctions (`&`) of terms: an operator and an operand, a range
//! `a-b` or `a!-b`, or a text with wildcards. An operand is compared as a duration where both sides
//! are one, then as a quantity, then as a text.

use std::cmp::Ordering;

use countersign_jmespath::duration::Duration;
use countersign_jmespath::quantity::Quantity;
use countersign_reference::wildcard_match;
use serde_json::{Number, Value};

/// Characters of a value that a message quotes.
const MAX_SHOWN: usize = 256;

/// How an operand is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Equal,
    NotEqual,
    More,
    MoreEqual,
    Less,
    LessEqual,
}

/// Whether a value matches a scalar. Lists are no scalars and match nothing; of an object it is only
/// asked that the value is one.
pub(crate) fn matches(value: &Value, pattern: &Value) -> bool {
    match pattern {
        Value::Null => is_zero(value),
        Value::Bool(_) => value == pattern,
        Value::Number(pattern) => match value {
            Value::Number(value) => same_number(value, pattern),
            Value::String(text) => text.parse().ok() == pattern.as_f64(),
            _ => false,
        },
        Value::String(pattern) => matches_text(value, pattern),
        Value::Object(_) => value.is_object(),
        Value::Array(_) => false,
    }
}

/// Whether a value matches the text of a pattern.
pub(crate) fn matches_text(value: &Value, pattern: &str) -> bool {
    value.as_str() == Some(pattern)
        || pattern.split('|').any(|terms| terms.trim_matches(' ').split('&').all(|term| holds(value, term)))
}

/// What a range `a-b` leaves out, `a!-b`; `None` if the text is no range.
pub(crate) fn outside(pattern: &str) -> Option<String> {
    range(pattern, "-").map(|(low, high)| format!("{low}!-{high}"))
}

/// Whether two numbers are the same, whichever way they are written.
pub(crate) fn same_number(left: &Number, right: &Number) -> bool {
    match (left.as_i64().zip(right.as_i64()), left.as_u64().zip(right.as_u64())) {
        (Some((left, right)), _) => left == right,
        (_, Some((left, right))) => left == right,
        _ => left.as_f64() == right.as_f64(),
    }
}

/// A value as upstream's messages and lists have it: Go's `%v`.
pub(crate) fn show(value: &Value) -> String {
    let mut text = String::new();
    write(value, &mut text, false);
    text
}

/// The same, short enough for a message.
pub(crate) fn show_short(value: &Value) -> String {
    let mut text = String::new();
    write(value, &mut text, true);
    shorten(text, MAX_SHOWN)
}

/// A list, short enough for a message.
pub(crate) fn show_list(items: &[Value]) -> String {
    let mut text = String::new();
    write_list(items, &mut text, true);
    shorten(text, MAX_SHOWN)
}

/// Cuts a text after so many characters.
pub(crate) fn shorten(mut text: String, most: usize) -> String {
    if let Some((end, _)) = text.char_indices().nth(most) {
        text.truncate(end);
        text.push('…');
    }
    text
}

/// What Go calls the type of a value.
pub(crate) fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

fn write(value: &Value, text: &mut String, short: bool) {
    if short && text.len() > 4 * MAX_SHOWN {
        return;
    }
    match value {
        Value::Null => text.push_str("<nil>"),
        Value::String(string) => text.push_str(string),
        Value::Array(list) => write_list(list, text, short),
        Value::Object(fields) => {
            text.push_str("map[");
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_unstable_by_key(|(name, _)| *name);
            for (index, (name, value)) in fields.into_iter().enumerate() {
                if index > 0 {
                    text.push(' ');
                }
                text.push_str(name);
                text.push(':');
                write(value, text, short);
            }
            text.push(']');
        }
        Value::Bool(_) | Value::Number(_) => text.push_str(&value.to_string()),
    }
}

fn write_list(items: &[Value], text: &mut String, short: bool) {
    text.push('[');
    for (index, item) in items.iter().enumerate() {
        if short && text.len() > 4 * MAX_SHOWN {
            break;
        }
        if index > 0 {
            text.push(' ');
        }
        write(item, text, short);
    }
    text.push(']');
}

/// What a pattern of null accepts: nothing at all, and what Go calls the zero value.
fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(flag) => !flag,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(_) | Value::Object(_) => false,
    }
}

fn holds(value: &Value, term: &str) -> bool {
    let term = term.trim_matches(' ');
    let (operator, operand) = match term {
        // A single character is itself, whatever it is.
        _ if term.len() < 2 => (Operator::Equal, term),
        _ => operator(term),
    };
    if operator == Operator::Equal && term.len() >= 2 {
        if let Some((low, high)) = range(term, "!-") {
            return compare(value, low, Operator::Less) || compare(value, high, Operator::More);
        }
        if let Some((low, high)) = range(term, "-") {
            return compare(value, low, Operator::MoreEqual) && compare(value, high, Operator::LessEqual);
        }
    }
    compare(value, operand.trim(), operator)
}

fn operator(term: &str) -> (Operator, &str) {
    for (mark, operator) in [
        (">=", Operator::MoreEqual),
        ("<=", Operator::LessEqual),
        (">", Operator::More),
        ("<", Operator::Less),
        ("!", Operator::NotEqual),
    ] {
        if let Some(operand) = term.strip_prefix(mark) {
            return (operator, operand);
        }
    }
    (Operator::Equal, term)
}

/// The two ends of a range: each a number with letters after it.
fn range<'a>(term: &'a str, between: &str) -> Option<(&'a str, &'a str)> {
    let low = end_of(term)?;
    let high = term[low.len()..].strip_prefix(between)?;
    (end_of(high)?.len() == high.len()).then_some((low, high))
}

fn end_of(text: &str) -> Option<&str> {
    let run = |from: usize, of: fn(&u8) -> bool| {
        from + text.as_bytes()[from..].iter().take_while(|byte| of(byte)).count()
    };
    let start = usize::from(text.starts_with(['-', '+']));
    let mut at = run(start, u8::is_ascii_digit);
    if at == start {
        return None;
    }
    if text.as_bytes().get(at) == Some(&b'.') {
        let after = run(at + 1, u8::is_ascii_digit);
        at = if after > at + 1 { after } else { at };
    }
    Some(&text[..run(at, u8::is_ascii_alphabetic)])
}

/// The order of two texts, where both can be read as that.
pub(crate) fn order<T: Ord>(read: impl Fn(&str) -> Option<T>, left: &str, right: &str) -> Option<Ordering> {
    Some(read(left)?.cmp(&read(right)?))
}

fn compare(value: &Value, operand: &str, operator: Operator) -> bool {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        // Nothing is compared as none.
        Value::Null => "0".to_owned(),
        Value::Bool(flag) => flag.to_string(),
        Value::Array(_) | Value::Object(_) => return false,
    };
    let order = match value {
        Value::Bool(_) => None,
        _ => order(Duration::parse, &text, operand).or_else(|| order(Quantity::parse, &text, operand)),
    };
    match (order, operator) {
        (Some(order), Operator::Equal) => order.is_eq(),
        (Some(order), Operator::NotEqual) => order.is_ne(),
        (Some(order), Operator::More) => order == Ordering::Greater,
        (Some(order), Operator::MoreEqual) => order.is_ge(),
        (Some(order), Operator::Less) => order == Ordering::Less,
        (Some(order), Operator::LessEqual) => order.is_le(),
        // What is not there is no text, so that it differs from none either.
        (None, Operator::Equal) => !value.is_null() && wildcard_match(operand, &text),
        (None, Operator::NotEqual) => !value.is_null() && !wildcard_match(operand, &text),
        (None, _) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_against_scalars() {
        for (pattern, good, bad) in [
            (json!("*"), json!(["", "x", 0, true, 1.5]), json!([null, {}, []])),
            (json!("?*"), json!(["x", 0, false]), json!(["", null, {}])),
            (json!(""), json!([""]), json!(["x", null, 0])),
            (json!("nginx:?*"), json!(["nginx:1"]), json!(["nginx:", "nginx"])),
            (json!("!*:latest"), json!(["a:1", "a"]), json!(["a:latest", null])),
            (json!("!latest"), json!(["", true]), json!(["latest", null])),
            (json!("a | b"), json!(["a", "b", "a | b"]), json!(["c", "a|b"])),
            (json!("*/* & !evil/*"), json!(["x/y"]), json!(["evil/y", "x"])),
            (json!("!a & !b | c"), json!(["c", "d"]), json!(["a", "b"])),
            (json!(">0"), json!([1, "1", "1m", "5s", 0.5]), json!([0, -1, null, "x", "", true])),
            (json!("<=1Gi"), json!(["1Gi", "512Mi", 5, null]), json!(["1.1Gi", "1Ti"])),
            (json!(">= 1h"), json!(["60m", "1h"]), json!(["59m", 3600, "1"])),
            (json!("<5"), json!([null, "4", 4.9]), json!([5, "5", "5m5"])),
            (json!("500m"), json!([0.5, "0.5", "500m"]), json!(["0.501", 1])),
            (json!("10-20"), json!([10, "15", 20.0, "20"]), json!([9, 21, "x", null])),
            (json!("-5-5"), json!([-5, 0, null]), json!([-6, 6])),
            (json!("10!-20"), json!([9, "21", null]), json!([10, 15, "20"])),
            (json!("1h-2h"), json!(["90m"]), json!(["3h", "30m", 5])),
            (json!("1Mi-1Gi"), json!(["5Mi", 1_048_576]), json!(["1", "2Gi"])),
            (json!("1.18-alpha"), json!(["1.18-alpha"]), json!(["1.18"])),
            (json!("!5.10.84-1 & !5.15.2-1"), json!(["5.16.5-arch1-1"]), json!(["5.10.84-1", "5.15.2-1"])),
            (json!("true"), json!([true, "true"]), json!([false, "TRUE"])),
            (json!("!true"), json!([false, "x"]), json!([true, null])),
            // A sign alone is no quantity, and so is not zero.
            (json!("-"), json!(["-"]), json!(["", 0, 1])),
            (json!("!"), json!(["!"]), json!(["", "x"])),
            (json!(true), json!([true]), json!([false, "true", null])),
            (json!(5), json!([5, 5.0, "5", "5.0"]), json!([6, "x", null, true, "5x"])),
            (json!(1.5), json!([1.5, "1.5"]), json!([1, "1.50x"])),
            (json!(null), json!([null, 0, 0.0, "", false]), json!([1, "x", true, {}, []])),
            (json!({}), json!([{ "a": 1 }]), json!([null, "x", []])),
            (json!([]), json!([]), json!([[], null])),
        ] {
            for value in good.as_array().unwrap() {
                assert!(matches(value, &pattern), "{value} ~ {pattern}");
            }
            for value in bad.as_array().unwrap() {
                assert!(!matches(value, &pattern), "{value} !~ {pattern}");
            }
        }
    }

    #[test]
    fn values_as_go_shows_them() {
        let value = json!({ "b": [1, null, true], "a": { "x": 0.5 } });
        assert_eq!(show(&value), "map[a:map[x:0.5] b:[1 <nil> true]]");
        assert_eq!(show_short(&json!("é".repeat(300))), format!("{}…", "é".repeat(256)));
        assert!(show_short(&json!(vec!["x"; 5000])).len() < 300);
    }
}
