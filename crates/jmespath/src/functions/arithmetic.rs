//! Arithmetic over numbers, quantities and durations.

use serde_json::Value;

use super::Kind::{Any, List, Number};
use super::{Arguments, Function, number};
use crate::Error;
use crate::duration::Duration;
use crate::evaluate::shown;
use crate::quantity::Quantity;

pub(super) const FUNCTIONS: &[Function] = &[
    Function::build("add", &[&[Any], &[Any]], |a| binary(a, add)),
    Function::build("divide", &[&[Any], &[Any]], |a| binary(a, divide)),
    Function::build("modulo", &[&[Any], &[Any]], |a| binary(a, modulo)),
    Function::build("multiply", &[&[Any], &[Any]], |a| binary(a, multiply)),
    Function::build("round", &[&[Number], &[Number]], round),
    Function::build("subtract", &[&[Any], &[Any]], |a| binary(a, subtract)),
    Function::build("sum", &[&[List]], sum),
];

#[derive(Clone, Copy)]
enum Operand {
    Scalar(f64),
    Quantity(Quantity),
    Duration(Duration),
}
use Operand::{Duration as Span, Quantity as Amount, Scalar};

impl Operand {
    /// A text is a quantity if it reads as one (`1m` is a thousandth), else a duration.
    fn read(value: &Value) -> Result<Self, String> {
        let found = match value {
            Value::Number(value) => value.as_f64().map(Scalar),
            Value::String(text) => {
                Quantity::parse(text).map(Amount).or_else(|| Duration::parse(text).map(Span))
            }
            _ => None,
        };
        found.ok_or_else(|| format!("{} is no number, quantity or duration", shown(value)))
    }

    fn into_value(self, name: &str) -> Result<Value, Error> {
        match self {
            Scalar(value) => number(name, value),
            Amount(value) => Ok(value.to_string().into()),
            Span(value) => Ok(value.to_string().into()),
        }
    }
}

/// `Err` says what is wrong.
type Operation = fn(Operand, Operand) -> Result<Operand, &'static str>;

const MISMATCH: &str = "the arguments do not go together";
const RANGE: &str = "the result is out of range";
const ZERO: &str = "the divisor is zero";
const NOT_WHOLE: &str = "the arguments are not whole";

fn binary(a: &mut Arguments<'_, '_, '_>, operation: Operation) -> Result<Value, Error> {
    let left = Operand::read(a.value(0)).map_err(|error| a.fail(error))?;
    let right = Operand::read(a.value(1)).map_err(|error| a.fail(error))?;
    operation(left, right).map_err(|error| a.fail(error))?.into_value(a.name)
}

fn add(left: Operand, right: Operand) -> Result<Operand, &'static str> {
    match (left, right) {
        (Scalar(a), Scalar(b)) => Ok(Scalar(a + b)),
        (Amount(a), Amount(b)) => a.plus(b).map(Amount).ok_or(RANGE),
        (Span(a), Span(b)) => a.0.checked_add(b.0).map(|sum| Span(Duration(sum))).ok_or(RANGE),
        _ => Err(MISMATCH),
    }
}

fn subtract(left: Operand, right: Operand) -> Result<Operand, &'static str> {
    match (left, right) {
        (Scalar(a), Scalar(b)) => Ok(Scalar(a - b)),
        (Amount(a), Amount(b)) => a.minus(b).map(Amount).ok_or(RANGE),
        (Span(a), Span(b)) => a.0.checked_sub(b.0).map(|rest| Span(Duration(rest))).ok_or(RANGE),
        _ => Err(MISMATCH),
    }
}

fn multiply(left: Operand, right: Operand) -> Result<Operand, &'static str> {
    match (left, right) {
        (Scalar(a), Scalar(b)) => Ok(Scalar(a * b)),
        (Amount(a), Scalar(b)) | (Scalar(b), Amount(a)) => a.times(b).map(Amount).ok_or(RANGE),
        (Span(a), Scalar(b)) | (Scalar(b), Span(a)) => {
            Duration::from_seconds(a.seconds() * b).map(Span).ok_or(RANGE)
        }
        _ => Err(MISMATCH),
    }
}

fn divide(left: Operand, right: Operand) -> Result<Operand, &'static str> {
    let zero = match right {
        Scalar(value) => value == 0.0,
        Amount(value) => value.approximate() == 0.0,
        Span(value) => value.0 == 0,
    };
    match (left, right) {
        (Scalar(_), Amount(_) | Span(_)) | (Amount(_), Span(_)) | (Span(_), Amount(_)) => Err(MISMATCH),
        _ if zero => Err(ZERO),
        (Scalar(a), Scalar(b)) => Ok(Scalar(a / b)),
        (Amount(a), Amount(b)) => Ok(Scalar(a.approximate() / b.approximate())),
        (Amount(a), Scalar(b)) => a.over(b).map(Amount).ok_or(RANGE),
        (Span(a), Span(b)) => Ok(Scalar(a.seconds() / b.seconds())),
        (Span(a), Scalar(b)) => Duration::from_seconds(a.seconds() / b).map(Span).ok_or(RANGE),
    }
}

fn modulo(left: Operand, right: Operand) -> Result<Operand, &'static str> {
    match (left, right) {
        (Scalar(a), Scalar(b)) => {
            let whole = |value: f64| value.fract() == 0.0 && value.abs() < 9_223_372_036_854_775_808.0;
            if !whole(a) || !whole(b) {
                return Err(NOT_WHOLE);
            }
            if b == 0.0 { Err(ZERO) } else { Ok(Scalar(a % b)) }
        }
        (Amount(a), Amount(b)) => {
            a.modulo(b).map(Amount).ok_or("the arguments are not whole, or the second is zero")
        }
        (Span(a), Span(b)) => a.0.checked_rem(b.0).map(|rest| Span(Duration(rest))).ok_or(ZERO),
        _ => Err(MISMATCH),
    }
}

/// Rounds to so many decimals, halves away from zero.
fn round(a: &mut Arguments<'_, '_, '_>) -> Result<Value, Error> {
    let (value, digits) = (a.number(0)?, a.number(1)?);
    if digits.fract() != 0.0 || digits < 0.0 {
        return Err(a.wrong(1, "a whole number of digits"));
    }
    let shift: f64 = format!("1e{digits}").parse().unwrap_or(f64::INFINITY);
    number(a.name, (value * shift).round() / shift)
}

/// The sum of what goes together; one element is its own sum.
fn sum(a: &mut Arguments<'_, '_, '_>) -> Result<Value, Error> {
    let list = a.take(0);
    let items = list.as_array().map(Vec::as_slice).unwrap_or_default();
    let Some((first, rest)) = items.split_first() else {
        return Err(a.fail("at least one element in the array is required"));
    };
    a.budget().work(items.len())?;
    if rest.is_empty() {
        return a.budget().own(std::borrow::Cow::Borrowed(first));
    }
    let mut total = Operand::read(first).map_err(|error| a.fail(error))?;
    for item in rest {
        let next = Operand::read(item).map_err(|error| a.fail(error))?;
        total = add(total, next).map_err(|error| a.fail(error))?;
    }
    total.into_value(a.name)
}
