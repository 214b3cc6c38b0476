//! Times as Go's `time.Time` keeps them: an instant and the offset that it is printed with.

use std::fmt;

use crate::duration::Duration;

/// An instant, and an offset from UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Time {
    /// Nanoseconds since the first of January of the year 1, UTC.
    nanos: i128,
    /// Seconds east of UTC.
    offset: i32,
}

/// The parts of a time, as a calendar and a clock show them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Parts {
    pub(crate) year: i64,
    pub(crate) month: u32,
    pub(crate) day: u32,
    pub(crate) hour: u32,
    pub(crate) minute: u32,
    pub(crate) second: u32,
    pub(crate) nano: u32,
}

pub(crate) const RFC3339: &str = "2006-01-02T15:04:05Z07:00";
const SECOND: i128 = 1_000_000_000;
const DAY: i64 = 86_400;
/// From the first of January of the year 1 to that of 1970.
const UNIX_EPOCH: i64 = 719_162 * DAY;

impl Time {
    pub(crate) fn unix(nanos: i128) -> Self {
        Self { nanos: nanos + i128::from(UNIX_EPOCH) * SECOND, offset: 0 }
    }

    /// A time that a clock with this offset shows; `None` if there is no such day.
    pub(crate) fn from_parts(parts: Parts, offset: i32) -> Option<Self> {
        if parts.day == 0 || parts.day > days_in(parts.year, parts.month) {
            return None;
        }
        let days = days_before(parts.year, parts.month) + i64::from(parts.day) - 1;
        let clock = i64::from(parts.hour) * 3600 + i64::from(parts.minute) * 60 + i64::from(parts.second);
        let seconds = days * DAY + clock - i64::from(offset);
        Some(Self { nanos: i128::from(seconds) * SECOND + i128::from(parts.nano), offset })
    }

    pub(crate) fn parts(self) -> Parts {
        let local = self.nanos + i128::from(self.offset) * SECOND;
        let seconds = i64::try_from(local.div_euclid(SECOND)).unwrap_or_default();
        let (mut days, clock) = (seconds.div_euclid(DAY), seconds.rem_euclid(DAY));
        // 400 years have 146,097 days.
        let mut year = 1 + 400 * days.div_euclid(146_097);
        days = days.rem_euclid(146_097);
        while days >= days_of(year) {
            days -= days_of(year);
            year += 1;
        }
        let mut month = 1;
        while days >= i64::from(days_in(year, month)) {
            days -= i64::from(days_in(year, month));
            month += 1;
        }
        let small = |value: i64| u32::try_from(value).unwrap_or_default();
        Parts {
            year,
            month,
            day: small(days + 1),
            hour: small(clock / 3600),
            minute: small(clock / 60 % 60),
            second: small(clock % 60),
            nano: u32::try_from(local.rem_euclid(SECOND)).unwrap_or_default(),
        }
    }

    /// Sunday is 0.
    pub(crate) fn weekday(self) -> i64 {
        let local = self.nanos + i128::from(self.offset) * SECOND;
        let days = local.div_euclid(SECOND * i128::from(DAY));
        // The first day of the year 1 was a Monday.
        i64::try_from((days + 1).rem_euclid(7)).unwrap_or_default()
    }

    pub(crate) fn plus(self, duration: Duration) -> Self {
        Self { nanos: self.nanos + i128::from(duration.0), ..self }
    }

    /// The same instant, as a clock with this offset shows it.
    pub(crate) fn at_offset(self, offset: i32) -> Self {
        Self { offset, ..self }
    }

    /// From the other time to this one; what does not fit is the longest that does.
    pub(crate) fn since(self, other: Self) -> Duration {
        let nanos = self.nanos - other.nanos;
        Duration(i64::try_from(nanos).unwrap_or(if nanos < 0 { i64::MIN } else { i64::MAX }))
    }

    pub(crate) fn is_before(self, other: Self) -> bool {
        self.nanos < other.nanos
    }

    /// Rounds down to a multiple of the duration since the year 1.
    pub(crate) fn truncate(self, duration: Duration) -> Self {
        if duration.0 <= 0 {
            return self;
        }
        Self { nanos: self.nanos - self.nanos.rem_euclid(i128::from(duration.0)), ..self }
    }
}

/// In RFC 3339, to the second.
impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Parts { year, month, day, hour, minute, second, .. } = self.parts();
        let sign = if year < 0 { "-" } else { "" };
        let year = year.unsigned_abs();
        write!(f, "{sign}{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")?;
        if self.offset == 0 {
            return f.write_str("Z");
        }
        let minutes = self.offset / 60;
        let sign = if minutes < 0 { '-' } else { '+' };
        write!(f, "{sign}{:02}:{:02}", minutes.abs() / 60, minutes.abs() % 60)
    }
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_of(year: i64) -> i64 {
    if is_leap(year) { 366 } else { 365 }
}

pub(crate) fn days_in(year: i64, month: u32) -> u32 {
    match month {
        2 => 28 + u32::from(is_leap(year)),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => 0,
    }
}

/// Days from the first of January of the year 1 to the first of this month.
fn days_before(year: i64, month: u32) -> i64 {
    let years = year - 1;
    let days = years * 365 + years.div_euclid(4) - years.div_euclid(100) + years.div_euclid(400);
    days + (1..month).map(|month| i64::from(days_in(year, month))).sum::<i64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calendar_and_clock() {
        for (unix, printed, weekday) in [
            (0_i64, "1970-01-01T00:00:00Z", 4),
            (951_782_400, "2000-02-29T00:00:00Z", 2),
            (1_705_320_000, "2024-01-15T12:00:00Z", 1),
            (-1, "1969-12-31T23:59:59Z", 3),
            (-62_135_596_800, "0001-01-01T00:00:00Z", 1),
            (-62_167_219_200, "0000-01-01T00:00:00Z", 6),
            (253_402_300_800, "10000-01-01T00:00:00Z", 6),
        ] {
            let time = Time::unix(i128::from(unix) * SECOND);
            assert_eq!((time.to_string().as_str(), time.weekday()), (printed, weekday));
            assert_eq!(Time::from_parts(time.parts(), 0), Some(time));
        }
    }

    #[test]
    fn offsets_move_what_is_shown_only() {
        let time = Time { offset: 19_800, ..Time::unix(0) };
        assert_eq!(time.to_string(), "1970-01-01T05:30:00+05:30");
        assert_eq!(time.at_offset(0).to_string(), "1970-01-01T00:00:00Z");
        assert_eq!(Time { offset: -3_600, ..time }.to_string(), "1969-12-31T23:00:00-01:00");
        assert_eq!(Time::from_parts(time.parts(), 19_800), Some(time));
    }

    #[test]
    fn differences_have_an_end() {
        let (first, last) = (Time::unix(i128::MIN / 4), Time::unix(i128::MAX / 4));
        assert_eq!(last.since(first), Duration(i64::MAX));
        assert_eq!(first.since(last), Duration(i64::MIN));
        assert!(first.is_before(last));
    }
}
