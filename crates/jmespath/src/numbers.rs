//! Numbers and JSON as Go prints them.

use std::fmt::Write as _;

use serde_json::{Number, Value};

/// Up to here, every whole number is a floating-point number of its own.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// A number, whole where it is one for certain; `None` if it is infinite or none.
pub(crate) fn number(value: f64) -> Option<Value> {
    #[expect(clippy::cast_possible_truncation, reason = "checked to be whole and in range")]
    if value.fract() == 0.0 && value.abs() <= EXACT {
        return Some(Value::from(value as i64));
    }
    Number::from_f64(value).map(Value::Number)
}

/// Whole numbers that were written as fractions (`1.0`) become whole.
pub(crate) fn whole(value: Value) -> Value {
    match value {
        Value::Number(found) if found.is_f64() => {
            found.as_f64().and_then(number).unwrap_or(Value::Number(found))
        }
        Value::Array(list) => Value::Array(list.into_iter().map(whole).collect()),
        Value::Object(fields) => {
            Value::Object(fields.into_iter().map(|(name, value)| (name, whole(value))).collect())
        }
        other => other,
    }
}

/// A value as Go's `encoding/json` prints it: names in order, `<`, `>` and `&` escaped, numbers
/// without an exponent up to 10²¹.
#[must_use]
pub fn to_json(value: &Value) -> String {
    let mut out = String::new();
    print(value, &mut out);
    out
}

fn print(value: &Value, out: &mut String) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Value::Number(value) => print_number(value, out),
        Value::String(text) => print_text(text, out),
        Value::Array(list) => {
            out.push('[');
            for (index, item) in list.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                print(item, out);
            }
            out.push(']');
        }
        Value::Object(fields) => {
            let mut sorted: Vec<_> = fields.iter().collect();
            sorted.sort_unstable_by_key(|(name, _)| *name);
            out.push('{');
            for (index, (name, value)) in sorted.into_iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                print_text(name, out);
                out.push(':');
                print(value, out);
            }
            out.push('}');
        }
    }
}

fn print_number(value: &Number, out: &mut String) {
    let Some(float) = value.as_f64().filter(|_| value.is_f64()) else {
        _ = write!(out, "{value}");
        return;
    };
    let size = float.abs();
    if size != 0.0 && !(1e-6..1e21).contains(&size) {
        // Rust has no sign on a positive exponent.
        let text = format!("{float:e}");
        let signed = !text.contains("e-");
        out.push_str(&if signed { text.replace('e', "e+") } else { text });
    } else {
        _ = write!(out, "{float}");
    }
}

fn print_text(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\0'..='\u{1f}' => {
                _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn json_reads_as_gos() {
        for (value, expected) in [
            (json!(1.0), "1"),
            (json!(-0.5), "-0.5"),
            (json!(1e20), "100000000000000000000"),
            (json!(6_829_533_116_178_067_456.0), "6829533116178067000"),
            (json!(1e21), "1e+21"),
            (json!(-1.5e300), "-1.5e+300"),
            (json!(0.000_001), "0.000001"),
            (json!(0.000_000_1), "1e-7"),
            (json!(u64::MAX), "18446744073709551615"),
            (
                json!({ "b": [null, true], "a": "<&>\u{2028}\n\u{1}é\"\\" }),
                r#"{"a":"\u003c\u0026\u003e\u2028\n\u0001é\"\\","b":[null,true]}"#,
            ),
        ] {
            assert_eq!(to_json(&value), expected);
        }
    }

    #[test]
    fn whole_numbers_are_whole() {
        assert_eq!(number(3.0), Some(json!(3)));
        assert_eq!(number(-3.5), Some(json!(-3.5)));
        assert_eq!(number(1e19), Some(json!(1e19)));
        assert_eq!(number(1e30), Some(json!(1e30)));
        assert_eq!(number(f64::NAN), None);
        assert_eq!(number(f64::INFINITY), None);
        assert_eq!(whole(json!([1.0, { "a": 2.0 }, 2.5])), json!([1, { "a": 2 }, 2.5]));
    }
}
