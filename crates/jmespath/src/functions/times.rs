//! Functions on times and durations.

use serde_json::Value;

use super::Kind::Text;
use super::{Arguments, Function};
use crate::Error;
use crate::duration::Duration;
use crate::layout;
use crate::moment::Moment;
use crate::time::{RFC3339, Time};

pub(super) const FUNCTIONS: &[Function] = &[
    Function::build("time_add", &[&[Text], &[Text]], |a| {
        Ok(time(a, 0)?.plus(duration(a, 1)?).to_string().into())
    }),
    Function::build("time_after", &[&[Text], &[Text]], |a| Ok(time(a, 1)?.is_before(time(a, 0)?).into())),
    Function::build("time_before", &[&[Text], &[Text]], |a| Ok(time(a, 0)?.is_before(time(a, 1)?).into())),
    Function::build("time_between", &[&[Text], &[Text], &[Text]], |a| {
        let (found, start, end) = (time(a, 0)?, time(a, 1)?, time(a, 2)?);
        Ok((start.is_before(found) && found.is_before(end)).into())
    }),
    Function::build("time_diff", &[&[Text], &[Text]], |a| {
        Ok(time(a, 1)?.since(time(a, 0)?).to_string().into())
    }),
    Function::build("time_now", &[], |a| Ok(now(a)?.to_string().into())).with_moment(),
    Function::build("time_now_utc", &[], |a| Ok(now(a)?.to_string().into())).with_moment(),
    Function::build("time_parse", &[&[Text], &[Text]], parse),
    Function::build("time_since", &[&[Text], &[Text], &[Text]], since).with_moment(),
    Function::build("time_to_cron", &[&[Text]], |a| {
        let time = time(a, 0)?;
        let parts = time.parts();
        let (minute, hour, day, month) = (parts.minute, parts.hour, parts.day, parts.month);
        Ok(format!("{minute} {hour} {day} {month} {}", time.weekday()).into())
    }),
    Function::build("time_truncate", &[&[Text], &[Text]], |a| {
        Ok(time(a, 0)?.truncate(duration(a, 1)?).to_string().into())
    }),
    Function::build("time_utc", &[&[Text]], |a| Ok(time(a, 0)?.at_offset(0).to_string().into())),
];

fn time(a: &Arguments<'_, '_, '_>, index: usize) -> Result<Time, Error> {
    layout::parse_rfc3339(a.text(index)?).map_err(|error| a.fail(error))
}

fn duration(a: &Arguments<'_, '_, '_>, index: usize) -> Result<Duration, Error> {
    Duration::parse(a.text(index)?).ok_or_else(|| a.wrong(index, "a duration"))
}

fn now(a: &Arguments<'_, '_, '_>) -> Result<Time, Error> {
    a.interpreter.moment.map(Moment::time).ok_or_else(|| a.fail("there is no time here"))
}

/// A layout that is a number stands for seconds since 1970.
fn parse(a: &mut Arguments<'_, '_, '_>) -> Result<Value, Error> {
    let (layout, text) = (a.text(0)?, a.text(1)?);
    if layout.parse::<i64>().is_ok() {
        let seconds: i64 = text.parse().map_err(|_| a.wrong(1, "seconds since 1970"))?;
        return Ok(Time::unix(i128::from(seconds) * 1_000_000_000).to_string().into());
    }
    layout::parse(layout, text).map(|time| time.to_string().into()).map_err(|error| a.fail(error))
}

fn since(a: &mut Arguments<'_, '_, '_>) -> Result<Value, Error> {
    let layout = a.text(0)?;
    let layout = if layout.is_empty() { RFC3339 } else { layout };
    let read = |text: &str| layout::parse(layout, text).map_err(|error| a.fail(error));
    let start = read(a.text(1)?)?;
    let end = match a.text(2)? {
        "" => now(a)?,
        text => read(text)?,
    };
    Ok(end.since(start).to_string().into())
}
