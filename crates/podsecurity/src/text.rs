//! Words of messages, bounded.

use std::fmt::Write as _;

/// The longest text of a pod or policy that is quoted whole, in bytes.
pub(crate) const MAX_QUOTED: usize = 512;

/// A text that is at most [`MAX_QUOTED`] bytes long, with an ellipsis where it was cut.
pub(crate) fn clip(text: &str) -> String {
    clip_to(text, MAX_QUOTED)
}

/// A text that is at most `max` bytes long, with an ellipsis where it was cut.
pub(crate) fn clip_to(text: &str, max: usize) -> String {
    if text.len() <= max {
        return text.to_owned();
    }
    let end = (0..=max).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    format!("{}…", &text[..end])
}

/// `"a", "b"`: what is between the quotes is as it stands.
pub(crate) fn quoted<'a>(items: impl IntoIterator<Item = &'a str>) -> String {
    let items: Vec<_> = items.into_iter().map(|item| format!("\"{}\"", clip(item))).collect();
    items.join(", ")
}

/// One or many.
pub(crate) fn plural(one: &'static str, many: &'static str, count: usize) -> &'static str {
    if count == 1 { one } else { many }
}

/// `container "a"`, or `containers "a", "b"`.
pub(crate) fn containers(names: &[&str]) -> String {
    format!("{} {}", plural("container", "containers", names.len()), quoted(names.iter().copied()))
}

/// A text in quotes, escaped as Go's `%q` does for what may stand in an annotation.
pub(crate) fn go_quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in clip(text).chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\u{7}' => quoted.push_str("\\a"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{b}' => quoted.push_str("\\v"),
            '\u{c}' => quoted.push_str("\\f"),
            '\0'..='\u{1f}' | '\u{7f}' => {
                let _ = write!(quoted, "\\x{:02x}", u32::from(c));
            }
            c if c.is_control() => {
                let _ = write!(quoted, "\\u{:04x}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::{clip_to, go_quoted};

    #[test]
    fn cuts_between_characters() {
        assert_eq!(clip_to("abc", 3), "abc");
        assert_eq!(clip_to("abcd", 3), "abc…");
        assert_eq!(clip_to("aéé", 2), "a…");
        assert_eq!(clip_to("é", 0), "…");
    }

    #[test]
    fn escapes_as_go_does() {
        assert_eq!(go_quoted("a\"b\\c\nd\u{1}é\u{85}"), r#""a\"b\\c\nd\x01é\u0085""#);
    }
}
