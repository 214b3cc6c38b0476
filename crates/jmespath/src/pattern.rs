//! Go's regular expressions (RE2's syntax), on the `regex` crate.
//!
//! Both match in linear time and prefer the same match; the syntaxes differ. A pattern is read
//! here as Go reads it and written anew: literals as code points, Perl's classes as ASCII, groups
//! without their names, so that nothing reaches the other parser that it would read differently.

use std::borrow::Cow;

use regex::{Regex, RegexBuilder};

use crate::pattern::translate::Translation;

mod translate;

/// Bytes of one pattern.
pub const MAX_PATTERN: usize = 4 * 1024;
/// Bytes of a compiled pattern.
const MAX_COMPILED: usize = 1 << 20;
const MAX_DEPTH: u32 = 64;

/// A compiled pattern.
#[derive(Clone, Debug)]
pub(crate) struct Pattern {
    regex: Regex,
    /// The names of the groups; the whole match is the first.
    names: Vec<Option<String>>,
}

impl Pattern {
    pub(crate) fn compile(text: &str) -> Result<Self, String> {
        let Translation { pattern, names } = translate(text)?;
        let regex = RegexBuilder::new(&pattern)
            .size_limit(MAX_COMPILED)
            .dfa_size_limit(MAX_COMPILED)
            .nest_limit(MAX_DEPTH)
            .build();
        match regex {
            Ok(regex) => Ok(Self { regex, names }),
            Err(regex::Error::CompiledTooBig(_)) => Err(format!("the pattern `{text}` is too large")),
            Err(_) => Err(format!("`{text}` is no pattern")),
        }
    }

    pub(crate) fn is_match(&self, text: &str) -> bool {
        self.regex.is_match(text)
    }

    /// Every match replaced; `expand` if `$1` and `${name}` stand for groups. `None` if the text
    /// grows beyond that many bytes.
    pub(crate) fn replace<'t>(
        &self,
        text: &'t str,
        by: &str,
        expand: bool,
        most: usize,
    ) -> Option<Cow<'t, str>> {
        let mut out = String::new();
        let mut last = 0;
        let mut found_any = false;
        for found in self.regex.captures_iter(text) {
            let Some(whole) = found.get(0) else { continue };
            found_any = true;
            out.push_str(&text[last..whole.start()]);
            last = whole.end();
            if expand {
                self.expand(by, &found, &mut out);
            } else {
                out.push_str(by);
            }
            if out.len() > most {
                return None;
            }
        }
        if !found_any {
            return Some(Cow::Borrowed(text));
        }
        out.push_str(&text[last..]);
        Some(Cow::Owned(out))
    }

    /// As `regexp.Expand`: a `$` that is followed by no name stands for itself.
    fn expand(&self, template: &str, found: &regex::Captures<'_>, out: &mut String) {
        let mut rest = template;
        while let Some(at) = rest.find('$') {
            out.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix('$') {
                out.push('$');
                rest = after;
                continue;
            }
            let braces = rest.starts_with('{');
            let inner = if braces { &rest[1..] } else { rest };
            let length = inner.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(inner.len());
            let closed = !braces || inner[length..].starts_with('}');
            if length == 0 || !closed {
                out.push('$');
                continue;
            }
            out.push_str(self.group(&inner[..length], found));
            rest = &inner[length + usize::from(braces)..];
        }
        out.push_str(rest);
    }

    /// What a group matched; nothing if there is no such group.
    fn group<'t>(&self, name: &str, found: &regex::Captures<'t>) -> &'t str {
        let number = name.bytes().all(|b| b.is_ascii_digit()) && (name.len() == 1 || !name.starts_with('0'));
        let index = if number {
            name.parse().ok()
        } else {
            self.names.iter().position(|known| known.as_deref() == Some(name))
        };
        index.and_then(|index: usize| found.get(index)).map_or("", |group| group.as_str())
    }
}

/// The pattern in the syntax of the `regex` crate.
pub(crate) fn translate(text: &str) -> Result<Translation, String> {
    if text.len() > MAX_PATTERN {
        return Err(format!("a pattern has at most {MAX_PATTERN} bytes"));
    }
    translate::translate(text).map_err(|why| format!("`{text}` is no pattern: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, text: &str) -> bool {
        Pattern::compile(pattern).unwrap_or_else(|error| panic!("{error}")).is_match(text)
    }

    fn replaced(pattern: &str, text: &str, by: &str) -> String {
        Pattern::compile(pattern).unwrap().replace(text, by, true, 1000).unwrap().into_owned()
    }

    #[test]
    fn patterns_match_as_in_go() {
        for (pattern, yes, no) in [
            ("^[1-7]$", "3", "8"),
            (r"^\d+$", "12", "١"),
            (r"^\w$", "a", "é"),
            (r"^\W$", "é", "_"),
            (r"^\s$", "\u{c}", "\u{b}"),
            (r"^[\d\s-]+$", "1 -2", "a"),
            (r"^[^\d]$", "é", "1"),
            (r"^[\D]$", "x", "1"),
            (r"\bx\b", "éx", "ax"),
            (r"^\Qa.b*\E+$", "a.b**", "axb"),
            (r"^\Q.", ".", "a"),
            ("^x{,2}$", "x{,2}", "xx"),
            ("^x{$", "x{", "x"),
            ("^x{2,3}?$", "xxx", "x"),
            ("^x{0}$", "", "x"),
            ("^[[a]$", "[", "b"),
            ("^[a&&b]$", "&", "c"),
            (r"^\<$", "<", ""),
            ("^[]a]$", "]", "b"),
            ("^[^]a]$", "b", "]"),
            ("^[a-]$", "-", "b"),
            ("^[~~#]$", "#", "a"),
            ("^[[:alpha:][:^digit:]]$", "é", "1"),
            ("^[[:word:]]$", "_", "-"),
            (r"^\pN\p{Greek}\P{Greek}\p{^Greek}$", "1αaa", "aαaa"),
            (r"^[\p{Lu}\PL]$", "É", "é"),
            ("^(?P<x>a)(?<y>b)(?:c)$", "abc", "abd"),
            ("^(?i)k(?-i)K$", "\u{212a}K", "kk"),
            ("(?i:a)b", "Ab", "AB"),
            ("^a.c$", "aéc", "a\nc"),
            ("(?s)^a.c$", "a\nc", "ac"),
            ("(?m)^b$", "a\nb", "ab"),
            ("^a$", "a", "a\n"),
            (r"\Aa\z", "a", "a\n"),
            (r"^\x41\x{1F600}\101\n\a$", "A😀A\n\u{7}", "A"),
            (r"^\.\-\_\/$", ".-_/", "x"),
            ("#", "#", "x"),
            ("^(|a)+$", "aa", "b"),
            ("(?)^a$", "a", "b"),
            (r"^a\Bb$", "ab", "a b"),
            ("^[\\x{61}-\\x{63}]$", "b", "d"),
            ("^[+--]$", ",", "a"),
            ("}", "}", "{"),
        ] {
            assert!(matches(pattern, yes), "{pattern} ~ {yes}");
            assert!(!matches(pattern, no), "{pattern} !~ {no}");
        }
    }

    #[test]
    fn what_go_refuses_is_refused() {
        for pattern in [
            "(",
            ")",
            "[",
            "[a",
            "[b-a]",
            "*",
            "a**",
            "a+*",
            "a{2}{3}",
            "a{1001}",
            "a{3,2}",
            "(*)",
            "|*",
            "(?x)a",
            "(?",
            "(?i",
            "(?=a)",
            "(?!a)",
            "(?<=a)",
            "(?P=a)",
            "(?P<a>x)(?P<a>y)",
            "(?P<>x)",
            "(?P<a-b>x)",
            r"\C",
            r"\Z",
            r"\1",
            r"\8",
            r"\é",
            r"\E",
            r"\",
            r"\h",
            r"\p",
            r"\p{",
            r"\p{Nope}",
            r"\x",
            r"\x{110000}",
            r"\x{",
            r"\u0041",
            "[a--b]",
            r"[\b]",
            "[[:nope:]]",
            r"[a-\d]",
            "(?-)",
            "(?i-)",
        ] {
            assert!(Pattern::compile(pattern).is_err(), "{pattern}");
        }
    }

    #[test]
    fn limits() {
        assert!(Pattern::compile(&"a".repeat(MAX_PATTERN)).is_ok());
        assert!(Pattern::compile(&"a".repeat(MAX_PATTERN + 1)).is_err());
        assert!(Pattern::compile(&format!("{}a{}", "(".repeat(2000), ")".repeat(2000))).is_err());
        let large = Pattern::compile(r"(\pL{1000}){1000}");
        assert_eq!(large.unwrap_err(), r"the pattern `(\pL{1000}){1000}` is too large");
        let growing = Pattern::compile("").unwrap();
        assert_eq!(growing.replace(&"a".repeat(100), "0123456789", true, 500), None);
    }

    #[test]
    fn replacements() {
        for (pattern, text, by, expected) in [
            ("a*", "baac", "x", "xbxcx"),
            ("", "é", "-", "-é-"),
            (
                "(a)(?P<n>b)?",
                "ab a",
                "[$1-${n}-$2-$3-$01-$1x-$$-$-${1]",
                "[a-b-b----$-$-${1] [a------$-$-${1]",
            ),
            ("(?P<1a>x)", "x", "${1a}!", "x!"),
            ("^docker.io/", "docker.io/a", "", "a"),
            ("z", "abc", "y", "abc"),
        ] {
            assert_eq!(replaced(pattern, text, by), expected, "{pattern}");
        }
        let literal = Pattern::compile("a").unwrap().replace("aa", "$0", false, 10).unwrap();
        assert_eq!(literal, "$0$0");
    }
}
