//! Kubernetes' quantities: `100m`, `1.5Gi`, `12e6`.

use std::cmp::Ordering;
use std::fmt;

/// A number with the suffix that it is printed with, exact to the billionth.
///
/// Two quantities are equal if their numbers are: `1024` and `1Ki` are.
#[derive(Clone, Copy, Debug)]
pub struct Quantity {
    /// Billionths.
    nanos: i128,
    format: Format,
    /// Digits after the point that a division keeps: as written, less than none for `k` and up. Of
    /// what is long or large, upstream keeps all nine.
    decimals: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    /// `Ki`, `Mi`, …
    Binary,
    /// `n`, `u`, `m`, `k`, `M`, …
    Decimal,
    /// `e3`
    Exponent,
}

const ONE: i128 = 1_000_000_000;
const NANO_DIGITS: i32 = 9;
/// More than that stands for that, with a binary suffix.
const MOST_BINARY: i128 = i64::MAX as i128 * ONE;
const DECIMAL: [(&str, i32); 10] =
    [("n", -9), ("u", -6), ("m", -3), ("", 0), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];
const BINARY: [&str; 6] = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

impl Quantity {
    /// Reads what `resource.ParseQuantity` reads; `None` if it is no quantity, has no digit, or is
    /// too large (10²⁹ and more).
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (negative, rest) = match text.as_bytes().first()? {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        let (whole, rest) = digits(rest);
        let (fraction, suffix) = rest.strip_prefix('.').map_or(("", rest), digits);
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let whole = whole.trim_start_matches('0');
        let decimals = i32::try_from(fraction.len()).ok()?;
        let number = format!("{whole}{fraction}");
        let (format, nanos, decimals) = if let Some(power) = BINARY.iter().position(|known| *known == suffix)
        {
            let exponent = 10 * (u32::try_from(power).ok()? + 1);
            let nanos = shifted(&number, NANO_DIGITS - decimals, 1_i128 << exponent)?.min(MOST_BINARY);
            let format = if nanos < ONE { Format::Decimal } else { Format::Binary };
            let short = fraction.is_empty() && whole.len().max(1) + 3 * power < 12;
            (format, nanos, if short { 0 } else { NANO_DIGITS })
        } else {
            let (format, exponent) = match DECIMAL.iter().find(|(known, _)| *known == suffix) {
                Some((_, exponent)) => (Format::Decimal, *exponent),
                None => (Format::Exponent, suffix.strip_prefix(['e', 'E'])?.parse::<i32>().ok()?),
            };
            let scale = decimals.checked_sub(exponent)?;
            let nanos = shifted(&number, NANO_DIGITS.checked_sub(scale)?, 1)?;
            let long = scale > NANO_DIGITS || whole.len().max(1) + fraction.len() > 18;
            (format, nanos, if long { NANO_DIGITS } else { scale })
        };
        Some(Self { nanos: if negative { -nanos } else { nanos }, format, decimals })
    }

    /// A whole number that is printed alike.
    fn with(self, nanos: i128) -> Self {
        Self { nanos, ..self }
    }

    /// The sum, printed like the first that is not zero; `None` if it is too large.
    #[must_use]
    pub fn plus(self, other: Self) -> Option<Self> {
        let like = if self.nanos == 0 { other } else { self };
        Some(like.with(self.nanos.checked_add(other.nanos)?))
    }

    /// The difference, likewise.
    #[must_use]
    pub fn minus(self, other: Self) -> Option<Self> {
        self.plus(other.with(-other.nanos))
    }

    /// The product with a number; what is less than a billionth is rounded up.
    #[must_use]
    pub fn times(self, factor: f64) -> Option<Self> {
        let factor = Self::of(factor)?;
        let (whole, part) = (self.nanos / ONE, self.nanos % ONE);
        let nanos = whole.checked_mul(factor.nanos)?;
        let product = part.checked_mul(factor.nanos)?;
        let rounded = product / ONE + (product % ONE).signum();
        Some(self.with(nanos.checked_add(rounded)?))
    }

    /// The quotient by a number, cut after as many digits as either has; `None` if that is zero.
    #[must_use]
    pub fn over(self, divisor: f64) -> Option<Self> {
        let divisor = Self::of(divisor).filter(|divisor| divisor.nanos != 0)?;
        let digits = self.decimals.max(divisor.decimals).max(0);
        let scaled = self.nanos.checked_mul(power(digits)?)?.checked_div(divisor.nanos)?;
        Some(self.with(scaled.checked_mul(power(NANO_DIGITS - digits)?)?))
    }

    /// The remainder of two whole numbers; `None` if one is not whole, or the second is zero.
    #[must_use]
    pub fn modulo(self, other: Self) -> Option<Self> {
        let whole = self.nanos % ONE == 0 && other.nanos % ONE == 0 && other.nanos != 0;
        whole.then(|| self.with(self.nanos % other.nanos))
    }

    /// The number, as near as floating point comes.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "as near as it comes")]
    pub fn approximate(self) -> f64 {
        let digits = self.decimals.clamp(0, NANO_DIGITS);
        let unscaled = power(NANO_DIGITS - digits).map_or(0, |power| self.nanos / power);
        let unit = format!("1e-{digits}").parse().unwrap_or(1.0);
        if digits == 0 { unscaled as f64 } else { unscaled as f64 * unit }
    }

    fn of(number: f64) -> Option<Self> {
        number.is_finite().then(|| Self::parse(&number.to_string()))?
    }
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.bytes().take_while(u8::is_ascii_digit).count())
}

fn power(exponent: i32) -> Option<i128> {
    10_i128.checked_pow(u32::try_from(exponent).ok()?)
}

/// Digits times ten to the shift times the factor; what is cut off rounds up.
fn shifted(digits: &str, shift: i32, factor: i128) -> Option<i128> {
    let digits = digits.trim_start_matches('0');
    if digits.is_empty() {
        return Some(0);
    }
    if shift >= 0 {
        return digits.parse::<i128>().ok()?.checked_mul(factor)?.checked_mul(power(shift)?);
    }
    if factor == 1 {
        let kept = digits.len().saturating_sub(shift.unsigned_abs() as usize);
        let (kept, cut) = digits.split_at(kept);
        let kept = if kept.is_empty() { 0 } else { kept.parse::<i128>().ok()? };
        return kept.checked_add(i128::from(cut.bytes().any(|b| b != b'0')));
    }
    let divisor = power(-shift)?;
    let product = digits.parse::<i128>().ok()?.checked_mul(factor)?;
    Some(product / divisor + i128::from(product % divisor > 0))
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        let small = self.nanos.abs() < 1024 * ONE;
        if self.format == Format::Binary && !small && self.nanos % ONE == 0 {
            let mut number = self.nanos / ONE;
            let mut suffix = "";
            for next in BINARY {
                if number % 1024 != 0 {
                    break;
                }
                (number, suffix) = (number / 1024, next);
            }
            return write!(f, "{number}{suffix}");
        }
        // The largest multiple of three that leaves no fraction.
        let (mut number, mut exponent) = (self.nanos, -NANO_DIGITS);
        let most = if self.format == Format::Exponent { i32::MAX } else { 18 };
        while number % 1000 == 0 && exponent < most {
            number /= 1000;
            exponent += 3;
        }
        write!(f, "{number}")?;
        if self.format == Format::Exponent {
            return if exponent == 0 { Ok(()) } else { write!(f, "e{exponent}") };
        }
        f.write_str(DECIMAL.iter().find(|(_, known)| *known == exponent).map_or("", |(suffix, _)| suffix))
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Quantity {
        Quantity::parse(text).unwrap_or_else(|| panic!("`{text}` is a quantity"))
    }

    #[test]
    fn quantities_print_canonically() {
        for (text, printed) in [
            ("0", "0"),
            ("-0", "0"),
            ("1", "1"),
            ("0001", "1"),
            ("1.", "1"),
            (".5", "500m"),
            ("+1.50", "1500m"),
            ("1000", "1k"),
            ("1500m", "1500m"),
            ("2000m", "2"),
            ("1024Ki", "1Mi"),
            ("1.5Gi", "1536Mi"),
            ("1Ei", "1Ei"),
            ("100Ei", "9223372036854775807"),
            ("512", "512"),
            ("0.5Ki", "512"),
            ("0.0001Ki", "102400u"),
            ("1.0001Ki", "1024102400u"),
            ("1e3", "1e3"),
            ("12E6", "12e6"),
            ("1E", "1E"),
            ("1e-3", "1e-3"),
            ("100e-2", "1"),
            ("0.1n", "1n"),
            ("-0.1n", "-1n"),
            ("1.0000000001", "1000000001n"),
            ("1000E", "1000E"),
            ("-1500", "-1500"),
        ] {
            assert_eq!(read(text).to_string(), printed, "{text}");
        }
    }

    #[test]
    fn what_is_no_quantity() {
        for text in [
            "",
            "-",
            "+",
            ".",
            "Ki",
            "m",
            "1x",
            "1 Ki",
            "1ki",
            "1e",
            "1e1.5",
            "e3",
            "1mm",
            "1h",
            "1.2.3",
            "--1",
            "1e99",
            "1e9999999999",
            "1e-9999999999",
            "0x1",
            "١",
        ] {
            assert_eq!(Quantity::parse(text), None, "{text}");
        }
        assert_eq!(Quantity::parse(&"9".repeat(40)), None);
    }

    #[test]
    fn arithmetic_keeps_the_format_of_the_first() {
        let sum = |a, b| read(a).plus(read(b)).unwrap().to_string();
        assert_eq!(sum("1Gi", "1Mi"), "1025Mi");
        assert_eq!(sum("0", "1Gi"), "1Gi");
        assert_eq!(sum("0.1", "0.2"), "300m");
        assert_eq!(sum("1Ki", "1m"), "1024001m");
        assert_eq!(read("1Gi").minus(read("1Gi")).unwrap().to_string(), "0");
        assert_eq!(read("1").minus(read("1500m")).unwrap().to_string(), "-500m");
        assert_eq!(read("1Gi").times(1.5).unwrap().to_string(), "1536Mi");
        assert_eq!(read("1000000P").times(0.5).unwrap().to_string(), "500E");
        assert_eq!(read("-1.5").times(2.5).unwrap().to_string(), "-3750m");
        assert_eq!(read("1n").times(0.5).unwrap().to_string(), "1n");
        assert_eq!(read("10").over(3.0).unwrap().to_string(), "3");
        assert_eq!(read("1k").over(3.0).unwrap().to_string(), "333");
        assert_eq!(read("1.5").over(0.4).unwrap().to_string(), "3700m");
        assert_eq!(read("1Gi").over(3.0).unwrap().to_string(), "357913941");
        assert_eq!(read("985Ti").over(3.0).unwrap().to_string(), "361006317786453333333333n");
        assert_eq!(read("10Gi").over(3.0).unwrap().to_string(), "3579139413");
        assert_eq!(read("1").over(0.0), None);
        assert_eq!(read("10").modulo(read("3")), Some(read("1")));
        assert_eq!(read("1.5").modulo(read("1")), None);
        assert_eq!(read("1").modulo(read("0")), None);
        assert_eq!(read("1E").times(1e12), None, "too large");
        assert_eq!(read("1E").times(f64::NAN), None);
    }

    #[test]
    fn order_is_of_numbers() {
        assert_eq!(read("1Ki"), read("1024"));
        assert!(read("999m") < read("1") && read("1Mi") > read("1M"));
        for (left, right) in [
            ("1k", "1e3"),
            ("1E", "1e18"),
            ("5.", "5"),
            ("-0", "0m"),
            // Too fine to be held: rounded away from zero.
            ("1e-30", "1n"),
            ("-1e-30", "-1n"),
            ("0e-30", "0"),
            ("0.000000001Ki", "1024n"),
            ("0.0000000001Ki", "103n"),
            // The cap of binary suffixes.
            ("9Ei", "9223372036854775807"),
            ("000000000000000000000000000000000000000000000001", "1"),
        ] {
            assert_eq!(read(left), read(right), "{left} and {right}");
        }
        assert!(read("10E") > read("9Ei") && read("-1") < read("1n"));
        assert!(read("12345678901234567890123") > read("12345678901234567890122"));
        assert!((read("1500m").approximate() - 1.5).abs() < f64::EPSILON);
        assert!((read("2k").approximate() - 2000.0).abs() < f64::EPSILON);
    }
}
