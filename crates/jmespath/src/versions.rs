//! Ranges of semantic versions, as blang's `semver` reads them: `>=1.0.0 <2.0.0 || >3.0.0`, `1.2.x`.

use semver::Version;

use crate::parser::Comparator;

/// A set of versions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// One of them has to hold whole.
    any: Vec<Vec<Bound>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Bound {
    operator: Comparator,
    version: Version,
}

/// A version with all of its three numbers; `v1.2.3` and `1.2` are none.
#[must_use]
pub fn version(text: &str) -> Option<Version> {
    Version::parse(text).ok()
}

impl Range {
    /// Reads a range; `None` if it is none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let any: Option<Vec<_>> = text.split("||").map(all).collect();
        Some(Self { any: any? })
    }

    /// Whether the version is in it. A pre-release is a version like others: `1.0.0-rc.1` is in `<1.0.0`.
    #[must_use]
    pub fn contains(&self, version: &Version) -> bool {
        self.any.iter().any(|all| all.iter().all(|bound| bound.holds(version)))
    }
}

impl Bound {
    fn holds(&self, version: &Version) -> bool {
        self.operator.holds(version.cmp_precedence(&self.version))
    }
}

/// Bounds that all have to hold; there may be spaces between an operator and its version.
fn all(text: &str) -> Option<Vec<Bound>> {
    let mut bounds = Vec::new();
    let mut rest = text.trim_matches(' ');
    while !rest.is_empty() {
        let operator = rest.find(|c: char| c.is_ascii_digit())?;
        let (written, after) = rest.split_at(operator);
        let (version, after) = after.split_at(after.find(' ').unwrap_or(after.len()));
        bound(written.trim_end_matches(' '), version, &mut bounds)?;
        rest = after.trim_start_matches(' ');
    }
    (!bounds.is_empty()).then_some(bounds)
}

fn bound(operator: &str, text: &str, bounds: &mut Vec<Bound>) -> Option<()> {
    use Comparator::{Equal, Greater, GreaterOrEqual, Less, LessOrEqual, NotEqual};
    let operator = match operator {
        "" | "=" | "==" => Equal,
        "!" | "!=" => NotEqual,
        "<" => Less,
        "<=" => LessOrEqual,
        ">" => Greater,
        ">=" => GreaterOrEqual,
        _ => return None,
    };
    let mut push = |operator, version| bounds.push(Bound { operator, version });
    let Some((first, next)) = wildcard(text) else {
        push(operator, version(text)?);
        return Some(());
    };
    match operator {
        Equal => {
            push(GreaterOrEqual, first);
            push(Less, next);
        }
        // Upstream asks for a version that is below and above, which none is.
        NotEqual => {
            push(Less, first);
            push(GreaterOrEqual, next);
        }
        Less => push(Less, first),
        LessOrEqual => push(Less, next),
        Greater => push(GreaterOrEqual, next),
        GreaterOrEqual => push(GreaterOrEqual, first),
    }
    Some(())
}

/// The first version of `1.x`, `1.2.x` or `1.x.x`, and the first that is beyond it. `1.x.x` ends
/// with the minor version, as upstream.
fn wildcard(text: &str) -> Option<(Version, Version)> {
    let number = |text: &str| text.parse::<u64>().ok().filter(|n| n.to_string() == text);
    match *text.split('.').collect::<Vec<_>>() {
        [major, "x"] => {
            let major = number(major)?;
            Some((Version::new(major, 0, 0), Version::new(major.checked_add(1)?, 0, 0)))
        }
        [major, minor, "x"] => {
            let (major, minor) = (number(major)?, if minor == "x" { 0 } else { number(minor)? });
            Some((Version::new(major, minor, 0), Version::new(major, minor.checked_add(1)?, 0)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        for (range, inside, outside) in [
            ("1.2.3", "1.2.3", "1.2.4"),
            ("==1.2.3", "1.2.3+build", "1.2.3-rc.1"),
            ("!=1.2.3", "1.2.4", "1.2.3"),
            ("!1.2.3", "1.2.4", "1.2.3"),
            (">1.0.0 <2.0.0", "1.5.0", "2.0.0"),
            ("> 1.0.0  <= 2.0.0 ", "2.0.0", "1.0.0"),
            (">1.0.0 <2.0.0 || >3.0.0 !4.2.1", "3.1.1", "4.2.1"),
            ("<1.0.0", "1.0.0-rc.1", "1.0.0"),
            (">1.0.0-alpha.2", "1.0.0-alpha.10", "1.0.0-alpha.1"),
            ("1.x", "1.9.9", "2.0.0"),
            ("1.2.x", "1.2.9", "1.3.0"),
            ("1.x.x", "1.0.9", "1.1.0"),
            (">1.x", "2.0.0", "1.9.9"),
            (">=1.2.x", "1.2.0", "1.1.9"),
            ("<1.2.x", "1.1.9", "1.2.0"),
            ("<=1.2.x", "1.2.9", "1.3.0"),
        ] {
            let parsed = Range::parse(range).unwrap_or_else(|| panic!("{range}"));
            assert!(parsed.contains(&version(inside).unwrap()), "{inside} in {range}");
            assert!(!parsed.contains(&version(outside).unwrap()), "{outside} not in {range}");
        }
        assert!(!Range::parse("!=1.2.x").unwrap().contains(&version("1.3.0").unwrap()));
    }

    #[test]
    fn what_is_no_range() {
        for text in [
            "",
            " ",
            "||",
            "1.0.0 ||",
            "|| 1.0.0",
            "1.0.0 || || 2.0.0",
            "1.0",
            "v1.0.0",
            "^1.0.0",
            "~1.0.0",
            "x",
            ">",
            "01.0.0",
            "1.x.0",
            "> < 1.0.0",
            "1.0.0<2.0.0",
        ] {
            assert_eq!(Range::parse(text), None, "{text}");
        }
        for text in ["", "1", "1.2", "v1.2.3", "1.2.3.4", "01.2.3", "1.2.3-", "1.2.3-01"] {
            assert_eq!(version(text), None, "{text}");
        }
    }
}
