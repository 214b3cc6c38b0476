//! Kubernetes quantities (`apimachinery/pkg/api/resource`): `500m`, `1.5Gi`, `1e3`.
//!
//! Held exactly, in billionths: what is finer is rounded away from zero, as the API server does it.

use std::cmp::Ordering;

/// Digits of a quantity that are looked at; more of them is no quantity.
const MAX_DIGITS: usize = 256;
/// Where the API server caps quantities with a binary suffix.
const BINARY_CAP: i128 = i64::MAX as i128 * NANO;
/// Billionths of one.
const NANO: i128 = 1_000_000_000;

/// A quantity in billionths. What is beyond the range of an `i128` is held as its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Quantity(i128);

/// What the digits are multiplied with.
enum Suffix {
    /// A power of ten.
    Decimal(i64),
    /// A power of two.
    Binary(u32),
}

impl Quantity {
    /// Reads one; `None` if the text is none. A sign or suffix without digits is zero, as there.
    pub fn parse(text: &str) -> Option<Self> {
        let (negative, rest) = match text.as_bytes().first()? {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, suffix) = rest.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.len() + fraction.len() > MAX_DIGITS || fraction.contains('.') {
            return None;
        }
        let magnitude = match suffix_of(suffix)? {
            Suffix::Decimal(power) => decimal(whole, fraction, power),
            Suffix::Binary(bits) => binary(whole, fraction, bits).min(BINARY_CAP),
        };
        Some(Self(if negative { -magnitude } else { magnitude }))
    }

    /// The quantity of a number as JSON writes it.
    pub fn of_number(number: &serde_json::Number) -> Option<Self> {
        Self::parse(&number.to_string())
    }

    /// The order of two texts, where both are quantities.
    pub fn order(left: &str, right: &str) -> Option<Ordering> {
        Some(Self::parse(left)?.cmp(&Self::parse(right)?))
    }
}

fn suffix_of(suffix: &str) -> Option<Suffix> {
    Some(match suffix {
        "n" => Suffix::Decimal(-9),
        "u" => Suffix::Decimal(-6),
        "m" => Suffix::Decimal(-3),
        "" => Suffix::Decimal(0),
        "k" => Suffix::Decimal(3),
        "M" => Suffix::Decimal(6),
        "G" => Suffix::Decimal(9),
        "T" => Suffix::Decimal(12),
        "P" => Suffix::Decimal(15),
        "E" => Suffix::Decimal(18),
        "Ki" => Suffix::Binary(10),
        "Mi" => Suffix::Binary(20),
        "Gi" => Suffix::Binary(30),
        "Ti" => Suffix::Binary(40),
        "Pi" => Suffix::Binary(50),
        "Ei" => Suffix::Binary(60),
        _ => Suffix::Decimal(suffix.strip_prefix(['e', 'E'])?.parse().ok()?),
    })
}

/// The digits times a power of ten, in billionths, rounded up.
fn decimal(whole: &str, fraction: &str, power: i64) -> i128 {
    // Digits before the place of one billionth.
    let kept = i64::try_from(whole.len()).unwrap_or(i64::MAX).saturating_add(power).saturating_add(9);
    let digits = || whole.bytes().chain(fraction.bytes()).map(|digit| i128::from(digit - b'0'));
    let all_zero = digits().all(|digit| digit == 0);
    if all_zero {
        return 0;
    }
    let Ok(kept) = usize::try_from(kept) else { return 1 };
    let mut value: i128 = 0;
    for digit in digits().chain(std::iter::repeat(0)).take(kept) {
        let next = value.checked_mul(10).and_then(|value| value.checked_add(digit));
        // Nothing comes back from beyond the range.
        let Some(next) = next else { return i128::MAX };
        value = next;
    }
    if digits().skip(kept).any(|digit| digit != 0) { value.saturating_add(1) } else { value }
}

/// The digits times a power of two, in billionths, rounded up.
fn binary(whole: &str, fraction: &str, bits: u32) -> i128 {
    let units = decimal(whole, "", -9);
    let value = units.saturating_mul(NANO).saturating_mul(1 << bits);
    // Each digit after the point by itself: its share is exact, but for what is carried on.
    let mut carried: i128 = 0;
    for digit in fraction.bytes().rev() {
        let share = i128::from(digit - b'0') * (NANO << bits) + carried;
        // Rounding up at each step is rounding up once: a remainder never reaches a whole.
        carried = share / 10 + i128::from(share % 10 != 0);
    }
    value.saturating_add(carried)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compares_as_kubernetes_does() {
        use Ordering::{Equal, Greater, Less};
        for (left, right, expected) in [
            ("1", "1000m", Equal),
            ("0.5", "500m", Equal),
            ("1.5Gi", "1536Mi", Equal),
            ("1Gi", "1G", Greater),
            ("1k", "1e3", Equal),
            ("1E", "1e18", Equal),
            ("1E3", "1k", Equal),
            ("-1", "1n", Less),
            ("+1", "1", Equal),
            ("0", "0m", Equal),
            ("-0", "0", Equal),
            (".5", "0.5", Equal),
            ("5.", "5", Equal),
            ("m", "0", Equal),
            ("+", "E", Equal),
            // Too fine to be held: rounded away from zero.
            ("0.1n", "1n", Equal),
            ("1e-30", "1n", Equal),
            ("-1e-30", "-1n", Equal),
            ("0e-30", "0", Equal),
            ("0.000000001Ki", "1024n", Equal),
            ("0.0000000001Ki", "103n", Equal),
            // The cap of binary suffixes.
            ("9Ei", "9223372036854775807", Equal),
            ("9E", "9e18", Equal),
            ("10E", "9Ei", Greater),
            ("1e40", "1e400", Equal),
            ("12345678901234567890123", "12345678901234567890122", Greater),
            ("000000000000000000000000000000000000000000000001", "1", Equal),
        ] {
            assert_eq!(Quantity::order(left, right), Some(expected), "{left} ~ {right}");
        }
    }

    #[test]
    fn what_is_no_quantity() {
        for text in
            ["", "1.2.3", "+-1", "1kb", "ki", "1K", "1KI", "1 Gi", " 1", "1e", "1e1.5", "0x10", "1h", "*"]
        {
            assert_eq!(Quantity::parse(text), None, "{text}");
        }
        assert_eq!(Quantity::parse(&"1".repeat(MAX_DIGITS + 1)), None);
        assert!(Quantity::parse(&format!("1{}", "0".repeat(MAX_DIGITS - 1))).is_some());
        assert_eq!(Quantity::parse("1e9223372036854775807"), Some(Quantity(i128::MAX)));
        assert_eq!(Quantity::parse("1e-9223372036854775808"), Some(Quantity(1)));
    }
}
