//! Anchors: what a key in brackets asks for (Kyverno `pkg/engine/anchor`).

/// What an anchor asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `(key)`: what stands beside it counts only where this matches.
    Condition,
    /// `<(key)`: the whole pattern counts only where this matches.
    Global,
    /// `X(key)`: the key must not be there.
    Negation,
    /// `+(key)`: set where it is absent.
    IfAbsent,
    /// `=(key)`: matches where the key is there.
    Equality,
    /// `^(key)`: some element of the list matches.
    Existence,
}

/// A key with an anchor around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Anchor<'a> {
    pub(crate) kind: Kind,
    pub(crate) key: &'a str,
}

impl<'a> Anchor<'a> {
    /// Reads a key; `None` if it has no anchor.
    pub(crate) fn parse(text: &'a str) -> Option<Self> {
        let text = text.trim();
        let (kind, rest) = match text.as_bytes().first()? {
            b'(' => (Kind::Condition, text),
            b'<' => (Kind::Global, &text[1..]),
            b'X' => (Kind::Negation, &text[1..]),
            b'+' => (Kind::IfAbsent, &text[1..]),
            b'=' => (Kind::Equality, &text[1..]),
            b'^' => (Kind::Existence, &text[1..]),
            _ => return None,
        };
        let key = rest.strip_prefix('(')?.strip_suffix(')')?;
        (!key.is_empty() && !key.contains('\n')).then_some(Self { kind, key })
    }

    /// The text of the anchor around another key.
    pub(crate) fn around(self, key: &str) -> String {
        let mark = match self.kind {
            Kind::Condition => "",
            Kind::Global => "<",
            Kind::Negation => "X",
            Kind::IfAbsent => "+",
            Kind::Equality => "=",
            Kind::Existence => "^",
        };
        format!("{mark}({key})")
    }
}

/// The anchor of a key, if it is of that kind.
pub(crate) fn of_kind(key: &str, kind: Kind) -> Option<&str> {
    Anchor::parse(key).filter(|anchor| anchor.kind == kind).map(|anchor| anchor.key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_in_brackets() {
        for (text, expected) in [
            ("(a)", Some((Kind::Condition, "a"))),
            (" <(a) ", Some((Kind::Global, "a"))),
            ("X(a)", Some((Kind::Negation, "a"))),
            ("+(a)", Some((Kind::IfAbsent, "a"))),
            ("=(a/b*)", Some((Kind::Equality, "a/b*"))),
            ("^(a)", Some((Kind::Existence, "a"))),
            ("((a))", Some((Kind::Condition, "(a)"))),
            ("()", None),
            ("a", None),
            ("x(a)", None),
            ("(a", None),
            ("+a)", None),
            ("", None),
        ] {
            let anchor = Anchor::parse(text).map(|anchor| (anchor.kind, anchor.key));
            assert_eq!(anchor, expected, "{text}");
        }
        assert_eq!(Anchor { kind: Kind::Existence, key: "a" }.around("b"), "^(b)");
        assert_eq!(of_kind("+(a)", Kind::IfAbsent), Some("a"));
        assert_eq!(of_kind("(a)", Kind::IfAbsent), None);
    }
}
