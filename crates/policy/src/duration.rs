//! Go's durations (`time.ParseDuration`): `1h30m`, `-1.5h`, `300ms`.

use std::cmp::Ordering;

/// A duration in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Duration(i64);

impl Duration {
    /// Reads one; `None` if the text is none, or beyond 292 years. A bare `0` is one.
    pub fn parse(text: &str) -> Option<Self> {
        let (negative, mut rest) = match text.as_bytes().first()? {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        if rest == "0" {
            return Some(Self(0));
        }
        if rest.is_empty() {
            return None;
        }
        let mut total: i128 = 0;
        while !rest.is_empty() {
            let (whole, after) = digits(rest);
            let (fraction, after) = match after.strip_prefix('.') {
                Some(after) => digits(after),
                None => ("", after),
            };
            if whole.is_empty() && fraction.is_empty() {
                return None;
            }
            let end = after.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after.len());
            let (unit, next) = after.split_at(end);
            let unit = nanoseconds(unit)?;
            let whole: i128 = if whole.is_empty() { 0 } else { whole.parse::<u64>().ok()?.into() };
            total = total.checked_add(whole.checked_mul(unit)?)?.checked_add(share(fraction, unit))?;
            rest = next;
        }
        i64::try_from(if negative { -total } else { total }).ok().map(Self)
    }

    /// So many whole seconds; `None` if there are too many.
    pub fn of_seconds(seconds: i64) -> Option<Self> {
        seconds.checked_mul(1_000_000_000).map(Self)
    }

    /// The order of two texts, where both are durations.
    pub fn order(left: &str, right: &str) -> Option<Ordering> {
        Some(Self::parse(left)?.cmp(&Self::parse(right)?))
    }
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

fn nanoseconds(unit: &str) -> Option<i128> {
    Some(match unit {
        "ns" => 1,
        // The micro sign and the Greek letter.
        "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    })
}

/// The part of a unit that the digits after a point stand for; what is finer than a nanosecond is dropped.
fn share(fraction: &str, unit: i128) -> i128 {
    let (mut sum, mut scale) = (0_i128, 1_i128);
    for digit in fraction.bytes().take(18) {
        sum = sum * 10 + i128::from(digit - b'0');
        scale *= 10;
    }
    sum * unit / scale
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_as_go_does() {
        for (text, expected) in [
            ("0", Some(0)),
            ("-0", Some(0)),
            ("1h30m", Some(5_400_000_000_000)),
            ("1.5h", Some(5_400_000_000_000)),
            ("-1.5s", Some(-1_500_000_000)),
            ("+5s", Some(5_000_000_000)),
            ("300ms", Some(300_000_000)),
            (".5s", Some(500_000_000)),
            ("5.s", Some(5_000_000_000)),
            ("1us", Some(1_000)),
            ("1\u{b5}s", Some(1_000)),
            ("1\u{3bc}s", Some(1_000)),
            ("0.3333333333333333333h", Some(1_200_000_000_000 - 1)),
            ("9223372036854775807ns", Some(i64::MAX)),
            ("-9223372036854775808ns", Some(i64::MIN)),
            ("9223372036854775808ns", None),
            ("2562048h", None),
            ("", None),
            ("-", None),
            ("3", None),
            ("s", None),
            (".s", None),
            ("1d", None),
            ("1h 30m", None),
            ("1e3s", None),
            ("1.2.3s", None),
        ] {
            assert_eq!(Duration::parse(text), expected.map(Duration), "{text}");
        }
        assert_eq!(Duration::order("90m", "1h"), Some(Ordering::Greater));
        assert_eq!(Duration::of_seconds(60), Duration::parse("1m"));
        assert_eq!(Duration::of_seconds(i64::MAX), None);
    }
}
