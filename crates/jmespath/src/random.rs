//! Texts that match a pattern, drawn from a seed.

use regex_syntax::ParserBuilder;
use regex_syntax::hir::{Class, Hir, HirKind};

use crate::pattern::translate;

/// How often `*`, `+` and `{2,}` repeat at most, beyond what they have to.
const MAX_UNBOUNDED: u32 = 64;
/// Bytes of one text.
const MAX_TEXT: usize = 4 * 1024;
/// Where a class has printable ASCII characters, one of those is drawn.
const PRINTABLE: std::ops::RangeInclusive<u32> = 0x20..=0x7e;

/// A generator of numbers (SplitMix64).
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below this one, which is not zero.
    fn below(&mut self, end: u32) -> u32 {
        u32::try_from((u128::from(self.next()) * u128::from(end)) >> 64).unwrap_or(0)
    }
}

/// A text that the pattern describes.
pub(crate) fn text(pattern: &str, numbers: &mut Numbers) -> Result<String, String> {
    if pattern.is_empty() {
        return Err("there is no pattern".to_owned());
    }
    let translated = translate(pattern)?.pattern;
    let parsed = ParserBuilder::new().nest_limit(64).build().parse(&translated);
    let hir = parsed.map_err(|_| format!("`{pattern}` is no pattern"))?;
    let mut out = String::new();
    draw(&hir, numbers, &mut out)?;
    Ok(out)
}

fn draw(hir: &Hir, numbers: &mut Numbers, out: &mut String) -> Result<(), String> {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => {}
        HirKind::Literal(literal) => out.push_str(&String::from_utf8_lossy(&literal.0)),
        HirKind::Class(class) => out.push(character(class, numbers).ok_or("a class is empty")?),
        HirKind::Capture(capture) => draw(&capture.sub, numbers, out)?,
        HirKind::Concat(parts) => {
            for part in parts {
                draw(part, numbers, out)?;
            }
        }
        HirKind::Alternation(parts) => {
            let count = u32::try_from(parts.len()).unwrap_or(1);
            draw(&parts[numbers.below(count) as usize], numbers, out)?;
        }
        HirKind::Repetition(repetition) => {
            let most = repetition.max.unwrap_or(repetition.min.saturating_add(MAX_UNBOUNDED));
            let count = repetition.min + numbers.below(most.saturating_sub(repetition.min) + 1);
            // What is empty is not repeated.
            let length = out.len();
            for _ in 0..count {
                draw(&repetition.sub, numbers, out)?;
                if out.len() == length {
                    break;
                }
            }
        }
    }
    if out.len() > MAX_TEXT { Err(format!("the text has more than {MAX_TEXT} bytes")) } else { Ok(()) }
}

fn character(class: &Class, numbers: &mut Numbers) -> Option<char> {
    let ranges: Vec<(u32, u32)> = match class {
        Class::Unicode(class) => {
            class.iter().map(|range| (range.start().into(), range.end().into())).collect()
        }
        Class::Bytes(class) => class.iter().map(|range| (range.start().into(), range.end().into())).collect(),
    };
    let printable =
        ranges.iter().map(|(start, end)| ((*start).max(*PRINTABLE.start()), (*end).min(*PRINTABLE.end())));
    let printable: Vec<_> = printable.filter(|(start, end)| start <= end).collect();
    let ranges = if printable.is_empty() { ranges } else { printable };
    let total: u32 = ranges.iter().map(|(start, end)| end - start + 1).sum();
    let mut left = if total == 0 { return None } else { numbers.below(total) };
    for (start, end) in ranges {
        let size = end - start + 1;
        if left < size {
            // Surrogates are no characters.
            return char::from_u32(start + left).or_else(|| char::from_u32(start));
        }
        left -= size;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pattern::Pattern;

    #[test]
    fn texts_match_and_are_the_same_for_a_seed() {
        for pattern in [
            "[a-z]{8}",
            "[^a]",
            ".",
            "a*b+",
            "(x|y){3}",
            r"^\d{3}-\w{2,}$",
            "[0-9a-f]{32}",
            "α|β",
            "[α-ω]",
            "(?i)abc",
            "()*",
            r"\S\D",
            "(a|){5}",
            r"\bfoo\b",
        ] {
            for seed in 0..50 {
                let drawn = text(pattern, &mut Numbers(seed)).unwrap();
                let whole = Pattern::compile(&format!("^(?:{pattern})$")).unwrap();
                assert!(whole.is_match(&drawn), "{pattern}: {drawn}");
                assert_eq!(text(pattern, &mut Numbers(seed)).unwrap(), drawn);
            }
        }
        assert_ne!(text("[a-z]{16}", &mut Numbers(1)), text("[a-z]{16}", &mut Numbers(2)));
    }

    #[test]
    fn what_is_not_drawn() {
        for pattern in ["", "(", "x{1000}{1000}", "(?:x{1000}){1000}", r"[^\x00-\x{10FFFF}]"] {
            assert!(text(pattern, &mut Numbers(0)).is_err(), "{pattern}");
        }
    }
}
