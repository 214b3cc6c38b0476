//! Reading a time by Go's layouts, which write the time 2006-01-02 15:04:05 as it would look.

use crate::time::{Parts, RFC3339, Time};

/// Reads a time as Go's `time.Parse` does where the local zone is UTC.
pub(crate) fn parse(layout: &str, text: &str) -> Result<Time, String> {
    let wrong = |at: &str| format!("`{text}` does not read as `{layout}`: at `{at}`");
    let mut read = Read::default();
    let (mut layout_rest, mut rest) = (layout, text);
    loop {
        let (literal, element, after) = next(layout_rest);
        rest = skip(rest, literal).ok_or_else(|| wrong(rest))?;
        let Some(element) = element else { break };
        let at = rest;
        rest = read.element(element, rest).ok_or_else(|| wrong(at))?;
        // A fraction is read after the seconds even if the layout has none.
        let fraction = rest.starts_with(['.', ',']) && rest[1..].starts_with(|c: char| c.is_ascii_digit());
        let expected = matches!(next(after), ("", Some(Element::Fraction { .. }), _));
        if matches!(element, Element::Second { .. }) && fraction && !expected {
            let end = 1 + rest[1..].bytes().take_while(u8::is_ascii_digit).count();
            read.nano = nanos(&rest[1..end]).ok_or_else(|| wrong(rest))?;
            rest = &rest[end..];
        }
        layout_rest = after;
    }
    if !rest.is_empty() {
        return Err(format!("`{text}` does not read as `{layout}`: extra text `{rest}`"));
    }
    read.time().ok_or_else(|| format!("`{text}` is no time that there is"))
}

/// Reads a time in RFC 3339.
pub(crate) fn parse_rfc3339(text: &str) -> Result<Time, String> {
    parse(RFC3339, text)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Element {
    LongMonth,
    Month,
    /// Whether it has two digits in any case.
    MonthNumber {
        two: bool,
    },
    LongWeekday,
    Weekday,
    /// Whether a space may stand for the first digit; whether there are two digits in any case.
    Day {
        space: bool,
        two: bool,
    },
    YearDay {
        space: bool,
    },
    Hour,
    Hour12 {
        two: bool,
    },
    Minute {
        two: bool,
    },
    Second {
        two: bool,
    },
    LongYear,
    Year,
    HalfDay {
        upper: bool,
    },
    Zone,
    /// Digits after the sign (2, 4 or 6), whether colons part them, whether `Z` is zero.
    Offset {
        digits: usize,
        colons: bool,
        zulu: bool,
    },
    /// Digits after the point; whether there may be fewer.
    Fraction {
        digits: usize,
        trimmed: bool,
    },
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const WEEKDAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// Longest first where one begins another. The words `Jan` and `Mon` stand below.
const ELEMENTS: &[(&str, Element)] = &[
    ("January", Element::LongMonth),
    ("Monday", Element::LongWeekday),
    ("MST", Element::Zone),
    ("2006", Element::LongYear),
    ("002", Element::YearDay { space: false }),
    ("__2", Element::YearDay { space: true }),
    ("01", Element::MonthNumber { two: true }),
    ("02", Element::Day { space: false, two: true }),
    ("03", Element::Hour12 { two: true }),
    ("04", Element::Minute { two: true }),
    ("05", Element::Second { two: true }),
    ("06", Element::Year),
    ("15", Element::Hour),
    ("_2", Element::Day { space: true, two: false }),
    ("PM", Element::HalfDay { upper: true }),
    ("pm", Element::HalfDay { upper: false }),
    ("-07:00:00", Element::Offset { digits: 6, colons: true, zulu: false }),
    ("-070000", Element::Offset { digits: 6, colons: false, zulu: false }),
    ("-07:00", Element::Offset { digits: 4, colons: true, zulu: false }),
    ("-0700", Element::Offset { digits: 4, colons: false, zulu: false }),
    ("-07", Element::Offset { digits: 2, colons: false, zulu: false }),
    ("Z07:00:00", Element::Offset { digits: 6, colons: true, zulu: true }),
    ("Z070000", Element::Offset { digits: 6, colons: false, zulu: true }),
    ("Z07:00", Element::Offset { digits: 4, colons: true, zulu: true }),
    ("Z0700", Element::Offset { digits: 4, colons: false, zulu: true }),
    ("Z07", Element::Offset { digits: 2, colons: false, zulu: true }),
    ("1", Element::MonthNumber { two: false }),
    ("2", Element::Day { space: false, two: false }),
    ("3", Element::Hour12 { two: false }),
    ("4", Element::Minute { two: false }),
    ("5", Element::Second { two: false }),
];

/// The text up to the next element of a layout, the element, and what follows.
fn next(layout: &str) -> (&str, Option<Element>, &str) {
    for (at, _) in layout.char_indices() {
        let rest = &layout[at..];
        // `_2006` is an underscore and a year.
        if let Some(after) = rest.strip_prefix("_2006") {
            return (&layout[..=at], Some(Element::LongYear), after);
        }
        if let Some((word, element)) = ELEMENTS.iter().find(|(word, _)| rest.starts_with(word)) {
            return (&layout[..at], Some(*element), &rest[word.len()..]);
        }
        let lower = |at: usize| rest.as_bytes().get(at).is_some_and(u8::is_ascii_lowercase);
        for (word, element) in [("Jan", Element::Month), ("Mon", Element::Weekday)] {
            if rest.starts_with(word) && !lower(3) {
                return (&layout[..at], Some(element), &rest[3..]);
            }
        }
        if let Some(digits) = rest.strip_prefix(['.', ',']) {
            let first = digits.bytes().next().filter(|b| matches!(b, b'0' | b'9'));
            let count = digits.bytes().take_while(|b| Some(*b) == first).count();
            let ends = !digits[count..].starts_with(|c: char| c.is_ascii_digit());
            if count > 0 && ends {
                let element = Element::Fraction { digits: count, trimmed: first == Some(b'9') };
                return (&layout[..at], Some(element), &digits[count..]);
            }
        }
    }
    (layout, None, "")
}

/// What follows the literal; spaces in it stand for any number of spaces.
fn skip<'a>(mut text: &'a str, mut literal: &str) -> Option<&'a str> {
    while let Some(c) = literal.chars().next() {
        if c == ' ' {
            if !text.is_empty() && !text.starts_with(' ') {
                return None;
            }
            literal = literal.trim_start_matches(' ');
            text = text.trim_start_matches(' ');
        } else {
            literal = &literal[c.len_utf8()..];
            text = text.strip_prefix(c)?;
        }
    }
    Some(text)
}

/// What was read so far.
#[derive(Default)]
struct Read {
    year: i64,
    month: Option<u32>,
    day: Option<u32>,
    year_day: Option<u32>,
    hour: u32,
    minute: u32,
    second: u32,
    nano: u32,
    after_noon: Option<bool>,
    /// `Z` counts before an offset, and that before the name of a zone.
    zulu: bool,
    offset: Option<i32>,
    zone: Option<i32>,
}

impl Read {
    /// Reads one element and gives what follows it.
    fn element<'a>(&mut self, element: Element, text: &'a str) -> Option<&'a str> {
        let mut rest = text;
        match element {
            Element::LongMonth => self.month = Some(word(&mut rest, &MONTHS, false)? + 1),
            Element::Month => self.month = Some(word(&mut rest, &MONTHS, true)? + 1),
            Element::LongWeekday => _ = word(&mut rest, &WEEKDAYS, false)?,
            Element::Weekday => _ = word(&mut rest, &WEEKDAYS, true)?,
            Element::MonthNumber { two } => {
                self.month = Some(number(&mut rest, two).filter(|month| (1..=12).contains(month))?);
            }
            Element::Day { space, two } => {
                if space {
                    rest = rest.strip_prefix(' ').unwrap_or(rest);
                }
                self.day = Some(number(&mut rest, two)?);
            }
            Element::YearDay { space } => {
                let padded = rest.len() - if space { rest.trim_start_matches(' ').len() } else { rest.len() };
                let digits = rest.get(padded.min(2)..3)?;
                rest = &rest[3..];
                self.year_day = Some(digits.parse().ok().filter(|_| all_digits(digits))?);
            }
            Element::Hour => self.hour = number(&mut rest, false).filter(|hour| *hour < 24)?,
            Element::Hour12 { two } => self.hour = number(&mut rest, two).filter(|hour| *hour <= 12)?,
            Element::Minute { two } => self.minute = number(&mut rest, two).filter(|minute| *minute < 60)?,
            Element::Second { two } => self.second = number(&mut rest, two).filter(|second| *second < 60)?,
            Element::LongYear => self.year = fixed(&mut rest, 4)?.into(),
            Element::Year => {
                let year = fixed(&mut rest, 2)?;
                self.year = i64::from(year) + if year >= 69 { 1900 } else { 2000 };
            }
            Element::HalfDay { upper } => {
                let (am, pm) = if upper { ("AM", "PM") } else { ("am", "pm") };
                let half = rest.get(..2)?;
                self.after_noon = Some(half == pm);
                rest = rest.strip_prefix(if half == pm { pm } else { am })?;
            }
            Element::Zone => {
                self.zulu |= rest.starts_with("UTC");
                self.zone = Some(zone(&mut rest)?);
            }
            Element::Offset { zulu: true, .. } if rest.starts_with('Z') => {
                self.zulu = true;
                rest = &rest[1..];
            }
            Element::Offset { digits, colons, .. } => self.offset = Some(offset(&mut rest, digits, colons)?),
            Element::Fraction { digits, trimmed } => {
                let point = rest.starts_with(['.', ',']);
                let found = rest.bytes().skip(1).take_while(u8::is_ascii_digit).count();
                if trimmed && !(point && found > 0) {
                    return Some(rest);
                }
                let taken = if trimmed { found } else { digits };
                if !point || found < taken {
                    return None;
                }
                self.nano = nanos(&rest[1..=taken])?;
                rest = &rest[taken + 1..];
            }
        }
        Some(rest)
    }

    fn time(self) -> Option<Time> {
        let hour = match self.after_noon {
            Some(true) if self.hour < 12 => self.hour + 12,
            Some(false) if self.hour == 12 => 0,
            _ => self.hour,
        };
        let (mut month, mut day) = (self.month, self.day);
        if let Some(of_year) = self.year_day {
            let (mut left, mut found) = (of_year, 1);
            while left > crate::time::days_in(self.year, found) {
                left -= crate::time::days_in(self.year, found);
                found += 1;
                if found > 12 {
                    return None;
                }
            }
            if month.is_some_and(|month| month != found) || day.is_some_and(|day| day != left) {
                return None;
            }
            (month, day) = (Some(found), Some(left));
        }
        let parts = Parts {
            year: self.year,
            month: month.unwrap_or(1),
            day: day.unwrap_or(1),
            hour,
            minute: self.minute,
            second: self.second,
            nano: self.nano,
        };
        match (self.offset, self.zone) {
            (Some(offset), _) if !self.zulu => Time::from_parts(parts, offset),
            // As in Go, the hours after `GMT` change what is shown, and the clock is read as UTC's.
            (_, Some(zone)) if !self.zulu => Some(Time::from_parts(parts, 0)?.at_offset(zone)),
            _ => Time::from_parts(parts, 0),
        }
    }
}

fn all_digits(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit())
}

/// One of these words or, if short, the first three letters of one, in any case.
fn word(rest: &mut &str, words: &[&str], short: bool) -> Option<u32> {
    for (index, word) in words.iter().enumerate() {
        let length = if short { 3 } else { word.len() };
        if rest.get(..length).is_some_and(|found| found.eq_ignore_ascii_case(&word[..length])) {
            *rest = &rest[length..];
            return u32::try_from(index).ok();
        }
    }
    None
}

/// Two digits, or one where the layout has one.
fn number(rest: &mut &str, two: bool) -> Option<u32> {
    let digits = rest.bytes().take(2).take_while(u8::is_ascii_digit).count();
    if digits == 0 || (two && digits < 2) {
        return None;
    }
    fixed(rest, digits)
}

fn fixed(rest: &mut &str, digits: usize) -> Option<u32> {
    let found = rest.get(..digits).filter(|found| all_digits(found))?;
    *rest = &rest[digits..];
    found.parse().ok()
}

/// Nanoseconds of the digits after a point; what is less is cut.
fn nanos(digits: &str) -> Option<u32> {
    let digits = &digits[..digits.len().min(9)];
    format!("{digits:0<9}").parse().ok()
}

fn offset(rest: &mut &str, digits: usize, colons: bool) -> Option<i32> {
    let sign = match rest.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    *rest = &rest[1..];
    let mut total = 0;
    for (index, (unit, most)) in [(3600, 24), (60, 60), (1, 60)].into_iter().take(digits / 2).enumerate() {
        if colons && index > 0 {
            *rest = rest.strip_prefix(':')?;
        }
        total += unit * i32::try_from(fixed(rest, 2).filter(|value| *value <= most)?).ok()?;
    }
    Some(sign * total)
}

/// The abbreviation of a zone. Only `UTC` and `GMT` with hours say how far it is; others count as
/// UTC, as they do in Go where nothing is known of them.
fn zone(rest: &mut &str) -> Option<i32> {
    if let Some(after) = rest.strip_prefix("GMT") {
        let signed = after.starts_with(['+', '-']);
        let digits = after.bytes().skip(1).take_while(u8::is_ascii_digit).count();
        let hours =
            after.get(..=digits).filter(|_| signed && digits > 0).and_then(|text| text.parse::<i32>().ok());
        if let Some(hours) = hours.filter(|hours| (-23..=23).contains(hours)) {
            *rest = &after[digits + 1..];
            return Some(hours * 3600);
        }
        *rest = after;
        return Some(0);
    }
    let upper = rest.bytes().take_while(u8::is_ascii_uppercase).count();
    let length = match upper {
        3 => 3,
        4 if rest.as_bytes()[3] == b'T' || rest.starts_with("WITA") => 4,
        5 if rest.as_bytes()[4] == b'T' => 5,
        _ => {
            for name in ["ChST", "MeST"] {
                if rest.starts_with(name) {
                    *rest = &rest[4..];
                    return Some(0);
                }
            }
            // A sign and hours, such as `+03`.
            let digits = rest.bytes().skip(1).take_while(u8::is_ascii_digit).count();
            let hours: i32 =
                rest.get(..=digits).filter(|_| rest.starts_with(['+', '-']) && digits > 0)?.parse().ok()?;
            *rest = &rest[digits + 1..];
            return (-23..=23).contains(&hours).then_some(0);
        }
    };
    *rest = &rest[length..];
    Some(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_by_layouts() {
        for (layout, text, printed) in [
            (RFC3339, "2023-01-12T12:37:56Z", "2023-01-12T12:37:56Z"),
            (RFC3339, "2023-01-12T12:37:56.123456789+05:30", "2023-01-12T12:37:56+05:30"),
            (RFC3339, "2023-01-12T1:37:56,5-00:00", "2023-01-12T01:37:56Z"),
            ("Mon Jan _2 15:04:05 2006", "Thu Jan  5 10:20:30 2023", "2023-01-05T10:20:30Z"),
            ("Mon Jan 2 2006 15:04:05 -0700", "Fri Jun 22 2022 17:45:00 +0100", "2022-06-22T17:45:00+01:00"),
            ("02 Jan 06 15:04 MST", "22 Jun 22 17:45 CET", "2022-06-22T17:45:00Z"),
            (
                "Monday, 02-Jan-06 15:04:05 MST",
                "monday, 02-JAN-69 15:04:05 GMT+2",
                "1969-01-02T17:04:05+02:00",
            ),
            ("January 2, 2006 at 3:04pm", "March 1, 2024 at 12:00am", "2024-03-01T00:00:00Z"),
            ("3PM", "11PM", "0000-01-01T23:00:00Z"),
            ("2006-002", "2024-060", "2024-02-29T00:00:00Z"),
            ("2006:__2", "2023: 60", "2023-03-01T00:00:00Z"),
            ("15:04:05.000", "10:20:30.123", "0000-01-01T10:20:30Z"),
            ("15:04:05.999 Z0700", "10:20:30 -0330", "0000-01-01T10:20:30-03:30"),
            ("_2006", "_2020", "2020-01-01T00:00:00Z"),
            ("2006-01-02", "2024-02-29", "2024-02-29T00:00:00Z"),
            ("1/2/06", "12/31/70", "1970-12-31T00:00:00Z"),
            ("-0700 Z07 MST", "-0330 Z CET", "0000-01-01T00:00:00Z"),
            ("MST -0700", "CET +0100", "0000-01-01T00:00:00+01:00"),
            ("", "", "0000-01-01T00:00:00Z"),
        ] {
            assert_eq!(
                parse(layout, text).map(|time| time.to_string()).as_deref(),
                Ok(printed),
                "{layout}: {text}"
            );
        }
    }

    #[test]
    fn what_does_not_read() {
        for (layout, text) in [
            (RFC3339, ""),
            (RFC3339, "2023-01-12"),
            (RFC3339, "2023-01-12 12:37:56Z"),
            (RFC3339, "2023-01-12T12:37:56"),
            (RFC3339, "2023-01-12T12:37:56z"),
            (RFC3339, "2023-02-29T12:37:56Z"),
            (RFC3339, "2023-13-01T12:37:56Z"),
            (RFC3339, "2023-01-12T24:00:00Z"),
            (RFC3339, "2023-01-12T12:37:56+25:00"),
            (RFC3339, "2023-01-12T12:37:56Z "),
            ("2006-002", "2023-366"),
            ("2006-002 01", "2023-001 02"),
            ("Jan", "Foo"),
            ("15:04:05.000", "10:20:30.12"),
            ("2006", "２０２３"),
            ("PM", "éM"),
            ("MST", "ab"),
        ] {
            assert!(parse(layout, text).is_err(), "{layout}: {text}");
        }
    }
}
