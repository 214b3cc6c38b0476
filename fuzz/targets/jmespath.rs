//! An expression of a policy over data: the first line is the expression, the rest is JSON, or else a text.
#![no_main]

use countersign_jmespath::duration::Duration;
use countersign_jmespath::quantity::Quantity;
use countersign_jmespath::versions::{Range, version};
use countersign_jmespath::{Error, Expression, MAX_BUILT, Moment, Scope, to_json};
use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

/// `data` and its twin, and `fact`, which may not be known yet.
struct Names<'a> {
    data: &'a Value,
    fact: Option<&'a Value>,
}

impl Scope for Names<'_> {
    fn lookup(&self, name: &str) -> Result<Option<&Value>, Error> {
        match name {
            "data" | "twin" => Ok(Some(self.data)),
            "fact" => self.fact.map(Some).ok_or_else(|| Error::Missing(name.to_owned())),
            _ => Ok(None),
        }
    }

    fn moment(&self) -> Option<Moment> {
        Some(Moment { now: Timestamp::UNIX_EPOCH, seed: 1 })
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (expression, data) = text.split_once('\n').unwrap_or((text, ""));
    parts(expression);
    let data = serde_json::from_str(data).unwrap_or_else(|_| Value::from(data));
    let expression = match Expression::parse(expression, &[]) {
        Ok(expression) => expression,
        Err(error) => {
            assert!(error.to_string().len() <= expression.len() + 400, "{error}");
            return;
        }
    };
    assert_eq!(Expression::parse(expression.text(), &[]).as_ref(), Ok(&expression));

    let without = Names { data: &data, fact: None };
    let value = expression.evaluate(&without);
    for fact in [&Value::Null, &data] {
        let with = Names { data: &data, fact: Some(fact) };
        let known = expression.evaluate(&with);
        if let Ok(value) = &value {
            assert_eq!(known.as_ref(), Ok(value), "a fact that was not needed makes a difference");
        } else if let (Err(error), Err(known)) = (&value, &known) {
            assert!(matches!(error, Error::Missing(_)) || error == known, "{error}: {known}");
        }
        assert!(known.is_err() || value.is_ok() || matches!(value, Err(Error::Missing(_))));
    }
    let Ok(value) = value else { return };
    let printed = to_json(&value);
    assert!(printed.len() <= 6 * (MAX_BUILT + text.len()), "{} bytes", printed.len());
    let Ok(read) = serde_json::from_str::<Value>(&printed) else {
        // The reader refuses what is nested deeper than it likes.
        assert!(printed.len() > 200, "`{printed}` is JSON");
        return;
    };
    // It reads fractions to the last digit but one; and what no integer has room for is a fraction to it.
    let is_long = |digits: &str| digits.len() > 19;
    let whole = !["e-", "e+", "."].iter().any(|part| printed.contains(part))
        && !printed.split(|c: char| !c.is_ascii_digit()).any(is_long);
    assert!(!whole || to_json(&read) == printed, "`{printed}` reads back");
});

/// The parts that are of use by themselves.
fn parts(text: &str) {
    if let Some(quantity) = Quantity::parse(text) {
        let printed = quantity.to_string();
        assert_eq!(Quantity::parse(&printed), Some(quantity), "{printed}");
        assert!(quantity.minus(quantity).is_none_or(|zero| zero.to_string() == "0"));
    }
    if let Some(duration) = Duration::parse(text) {
        assert_eq!(Duration::parse(&duration.to_string()), Some(duration), "{duration}");
    }
    if let (Some(range), Some(version)) = (Range::parse(text), version("1.2.3")) {
        _ = range.contains(&version);
    }
}
