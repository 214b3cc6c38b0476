//! Go's durations: `1h30m`, `1.5s`, `100ms`.

use std::fmt;

/// A span of time in nanoseconds, as Go's `time.Duration`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Duration(
    /// Nanoseconds.
    pub i64,
);

const SECOND: i64 = 1_000_000_000;
const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];
/// The size of the least duration; one more than the greatest has.
const LEAST: u64 = 1 << 63;

impl Duration {
    /// Reads what Go's `time.ParseDuration` reads; `None` if it is no duration or none that fits.
    #[must_use]
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
        let mut total: u64 = 0;
        while !rest.is_empty() {
            let (whole, after) = digits(rest);
            let (fraction, after) = after.strip_prefix('.').map_or(("", after), digits);
            if whole.is_empty() && fraction.is_empty() {
                return None;
            }
            let end = after.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after.len());
            let (_, unit) = UNITS.iter().find(|(name, _)| *name == &after[..end])?;
            let value = if whole.is_empty() { 0 } else { whole.parse::<u64>().ok()? };
            let value = value.checked_mul(*unit)?.checked_add(part(fraction, *unit))?;
            total = total.checked_add(value).filter(|total| *total <= LEAST)?;
            rest = &after[end..];
        }
        if negative {
            Some(Self(0_i64.wrapping_sub_unsigned(total)))
        } else {
            i64::try_from(total).ok().map(Self)
        }
    }

    /// Seconds, with their fraction.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "as Go does it")]
    pub fn seconds(self) -> f64 {
        (self.0 / SECOND) as f64 + (self.0 % SECOND) as f64 / 1e9
    }

    /// So many seconds; `None` if that is no duration that fits.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "checked to be in range")]
    pub fn from_seconds(seconds: f64) -> Option<Self> {
        let nanos = seconds * 1e9;
        (nanos.abs() < 9_223_372_036_854_775_808.0).then_some(Self(nanos as i64))
    }
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.bytes().take_while(u8::is_ascii_digit).count())
}

/// The nanoseconds of a fraction of a unit: digits that do not fit are left out, the rest is cut.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "as Go does it: less than one unit"
)]
fn part(fraction: &str, unit: u64) -> u64 {
    let (mut value, mut scale) = (0_u64, 1.0_f64);
    for digit in fraction.bytes().map(|b| u64::from(b - b'0')) {
        let Some(next) = value.checked_mul(10).and_then(|v| v.checked_add(digit)).filter(|v| *v < LEAST)
        else {
            break;
        };
        value = next;
        scale *= 10.0;
    }
    (value as f64 * (unit as f64 / scale)) as u64
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.unsigned_abs();
        if nanos == 0 {
            return f.write_str("0s");
        }
        if self.0 < 0 {
            f.write_str("-")?;
        }
        if nanos < 1_000_000_000 {
            let (unit, name) = match nanos {
                0..1_000 => (1, "ns"),
                1_000..1_000_000 => (1_000, "µs"),
                _ => (1_000_000, "ms"),
            };
            return write!(f, "{}{name}", Fraction(nanos, unit));
        }
        let (minutes, rest) = (nanos / 60_000_000_000, nanos % 60_000_000_000);
        if minutes >= 60 {
            write!(f, "{}h", minutes / 60)?;
        }
        if minutes > 0 {
            write!(f, "{}m", minutes % 60)?;
        }
        write!(f, "{}s", Fraction(rest, 1_000_000_000))
    }
}

/// A number of units with as many digits after the point as it needs.
struct Fraction(u64, u64);

impl fmt::Display for Fraction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(value, unit) = *self;
        write!(f, "{}", value / unit)?;
        if value % unit > 0 {
            let width = unit.ilog10() as usize;
            let digits = format!("{:0width$}", value % unit);
            write!(f, ".{}", digits.trim_end_matches('0'))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_and_print_as_gos() {
        for (text, printed) in [
            ("0", "0s"),
            ("+5s", "5s"),
            ("-1.5h", "-1h30m0s"),
            ("1h", "1h0m0s"),
            ("90s", "1m30s"),
            ("1h15m30.918s", "1h15m30.918s"),
            ("100ms", "100ms"),
            ("1.5ms", "1.5ms"),
            ("10us", "10µs"),
            ("10µs1ns", "10.001µs"),
            ("1ns", "1ns"),
            (".5s", "500ms"),
            ("5.s", "5s"),
            ("2562047h47m16.854775807s", "2562047h47m16.854775807s"),
            ("-9223372036854775808ns", "-2562047h47m16.854775808s"),
            ("0.100000000000000000000h", "6m0s"),
            ("0.3333333333333333333h", "20m0s"),
        ] {
            assert_eq!(Duration::parse(text).map(|d| d.to_string()).as_deref(), Some(printed), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration() {
        for text in [
            "",
            "-",
            "+",
            "1",
            "1x",
            "s",
            ".s",
            "1 s",
            "1h 2m",
            "1d",
            "-.s",
            "1e3s",
            "9223372036854775808ns",
            "3000000h",
            "1s-",
            "--1s",
        ] {
            assert_eq!(Duration::parse(text), None, "{text}");
        }
        assert_eq!(Duration::from_seconds(f64::NAN), None);
        assert_eq!(Duration::from_seconds(1e10), None);
        assert_eq!(Duration::from_seconds(1.5), Some(Duration(1_500_000_000)));
    }
}
