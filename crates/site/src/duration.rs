//! Durations as operators write them.

use std::time::Duration;

/// Reads `10s`, `1m30s`, `7d`: whole numbers with the units `ms`, `s`, `m`, `h` and `d`.
pub fn parse_duration(text: &str) -> Result<Duration, DurationError> {
    let error = || DurationError(text.chars().take(40).collect());
    let mut rest = text;
    let mut total = Duration::ZERO;
    if rest.is_empty() {
        return Err(error());
    }
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = rest[..digits].parse().map_err(|_| error())?;
        rest = &rest[digits..];
        let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        let milliseconds = match &rest[..letters] {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(error()),
        };
        let part = number.checked_mul(milliseconds).map(Duration::from_millis).ok_or_else(error)?;
        total = total.checked_add(part).ok_or_else(error)?;
        rest = &rest[letters..];
    }
    Ok(total)
}

/// Not a duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a duration: expected whole numbers with units, as in `10s`, `1h30m` or `7d`")]
pub struct DurationError(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_units() {
        assert_eq!(parse_duration("1m30s").unwrap(), Duration::from_secs(90));
        assert_eq!(parse_duration("7d").unwrap(), Duration::from_hours(168));
        for bad in ["", "10", "s", "1.5s", "-1s", "1w", "99999999999999999999d", "1s é"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }
}
