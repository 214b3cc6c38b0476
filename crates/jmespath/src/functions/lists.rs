//! JMESPath's own functions on values, lists and objects, and Kyverno's.

use std::borrow::Cow;
use std::cmp::Ordering;

use serde_json::{Map, Value};

use super::Kind::{Any, List, Number, Numbers, Object, Reference, Text, Texts};
use super::{Arguments, Function, number};
use crate::Error;
use crate::evaluate::{Answer, element, equal};
use crate::numbers::to_json;

pub(super) const FUNCTIONS: &[Function] = &[
    Function::build("abs", &[&[Number]], |a| number(a.name, a.number(0)?.abs())),
    Function::build("avg", &[&[Numbers]], average),
    Function::build("ceil", &[&[Number]], |a| number(a.name, a.number(0)?.ceil())),
    Function::build("contains", &[&[List, Text], &[Any]], contains),
    Function::build("ends_with", &[&[Text], &[Text]], |a| Ok(a.text(0)?.ends_with(a.text(1)?).into())),
    Function::build("floor", &[&[Number]], |a| number(a.name, a.number(0)?.floor())),
    Function::build("items", &[&[Object, List], &[Text], &[Text]], items),
    Function::build("join", &[&[Text], &[Texts]], join),
    Function::build("keys", &[&[Object]], |a| Ok(a.object(0)?.keys().cloned().collect())),
    Function::build("length", &[&[Text, List, Object]], length),
    Function::pass("lookup", &[&[Object, List], &[Text, Number]], lookup),
    Function::build("map", &[&[Reference], &[List]], map),
    Function::pass("max", &[&[Numbers, Texts]], |a| Ok(best(a, Ordering::Greater))),
    Function::pass("max_by", &[&[List], &[Reference]], |a| best_by(a, Ordering::Greater)),
    Function::build("merge", &[&[Object]], merge).variadic(),
    Function::pass("min", &[&[Numbers, Texts]], |a| Ok(best(a, Ordering::Less))),
    Function::pass("min_by", &[&[List], &[Reference]], |a| best_by(a, Ordering::Less)),
    Function::pass("not_null", &[&[Any]], |a| Ok(not_null(a))).variadic(),
    Function::build("object_from_lists", &[&[List], &[List]], object_from_lists),
    Function::build("reverse", &[&[List, Text]], reverse),
    Function::build("sort", &[&[Texts, Numbers]], sort),
    Function::pass("sort_by", &[&[List], &[Reference]], sort_by),
    Function::build("starts_with", &[&[Text], &[Text]], |a| Ok(a.text(0)?.starts_with(a.text(1)?).into())),
    Function::pass("to_array", &[&[Any]], to_array),
    Function::build("to_number", &[&[Any]], |a| Ok(to_number(a.value(0)))),
    Function::pass("to_string", &[&[Any]], to_string),
    Function::build("type", &[&[Any]], |a| Ok(type_of(a.value(0)).into())),
    Function::build("values", &[&[Object]], |a| Ok(a.object(0)?.values().cloned().collect())),
];

fn order(a: &Value, b: &Value) -> Ordering {
    match (a, b) {
        (Value::String(a), Value::String(b)) => a.cmp(b),
        (Value::Number(a), Value::Number(b)) => match (a.as_i64(), b.as_i64()) {
            (Some(a), Some(b)) => a.cmp(&b),
            _ => a.as_f64().partial_cmp(&b.as_f64()).unwrap_or(Ordering::Equal),
        },
        _ => Ordering::Equal,
    }
}

fn average(a: &mut Arguments<'_, '_, '_>) -> Result<Value, Error> {
    let numbers: Vec<f64> = a.list(0)?.iter().filter_map(Value::as_f64).collect();
    if numbers.is_empty() {
        return Ok(Value::Null);
    }
    #[expect(clippy::cast_precision_loss, reason = "lists are short")]
    number(a.name, numbers.iter().sum::<f64>() / numbers.len() as f64)
}

fn contains(a: &mut Arguments<'_, '_, '_>) -> Result<Value, Error> {
    let (searched, wanted) = (a.take(0), a.take(1));
    Ok(Value::Bool(match &*searched {
        Value::String(text) => wanted.as_str().is_some_and(|part| text.contains(part)),
        Value::Array(list) => {
            a.budget().work(list.len())?;
            for item in list {
                if equal(item, &wanted, a.budget())? {
                    return Ok(Value::Bool(true));
                }
            }
            false
        }
        _ => false,
    }))
}

fn items(a: &mut Arguments<'_, '_, '_>) -> Result<Value, Error> {
    let pairs: Vec<(Value, &Value)> = match a.value(0) {
        Value::Object(fields) => {
            let mut sorted: Vec<_> = fields.iter().collect();
            sorted.sort_unstable_by_key(|(name, _)| *name);
            sorted.into_iter().map(|(name, value)| (Value::from(name.as_str()), value)).collect()
        }
        Value::Array(list) => list.iter().enumerate().map(|(index, value)| (index.into(), value)).collect(),
        _ => return Err(a.wrong(0, "object or array")),
    };
    let (key, value) = (a.text(1)?, a.text(2)?);
    a.interpreter.budget.room(pairs.len().saturating_mul(key.len() + value.len()))?;
    let item = |(found, under): (Value, &Value)| {
        let fields = [(key.to_owned(), found), (value.to_owned(), under.clone())];
        Value::Object(fields.into_iter().collect())
    };
    Ok(pairs.into_iter().map(item).collect())
}

fn join(a: &mut Arguments<'_, '_, '_>) -> Result<Value, Error> {
    let (between, list) = (a.text(0)?, a.list(1)?);
    let parts: Vec<&str> = list.iter().filter_map(Value::as_str).collect();
    a.interpreter.budget.room(parts.len().saturating_mul(between.len()))?;
    Ok(parts.join(between).into())
}

fn length(a: &mut Arguments<'_, '_, '_>) -> Result<Value, Error> {
    Ok(Value::from(match a.value(0) {
        Value::String(text) => text.chars().count(),
        Value::Array(list) => list.len(),
        Value::Object(fields) => fields.len(),
        _ => return Err(a.wrong(0, "string, array or object")),
    }))
}

fn lookup<'v>(a: &mut Arguments<'_, '_, 'v>) -> Answer<'v> {
    if a.value(0).is_object() {
        let name = a.text(1)?.to_owned();
        return Ok(match a.take(0) {
            Cow::Borrowed(object) => object.get(&name).map_or(Cow::default(), Cow::Borrowed),
            Cow::Owned(mut object) => Cow::Owned(object[&name].take()),
        });
    }
    let index = a.number(1)?;
    if index.fract() != 0.0 {
        return Err(a.fail("argument 2: expected a whole number"));
    }
    #[expect(clippy::cast_possible_truncation, reason = "beyond the range there is no element, either")]
    let index = index as i64;
    // An index does not count from the end here.
    Ok(if index < 0 { Cow::default() } else { element(a.take(0), index) })
}

fn map(a: &mut Arguments<'_, '_, '_>) -> Result<Value, Error> {
    let list = a.take(1);
    let mut mapped = Vec::new();
    for item in list.as_array().into_iter().flatten() {
        let value = a.refer(item)?;
        mapped.push(a.budget().own(value)?);
    }
    Ok(Value::Array(mapped))
}

/// The first of the greatest or least.
fn best<'v>(a: &mut Arguments<'_, '_, 'v>, wanted: Ordering) -> Cow<'v, Value> {
    let list = a.take(0);
    let values = list.as_array().map(Vec::as_slice).unwrap_or_default();
    let mut best = 0;
    for (index, value) in values.iter().enumerate() {
        if order(value, &values[best]) == wanted {
            best = index;
        }
    }
    element(list, i64::try_from(best).unwrap_or(i64::MAX))
}

fn best_by<'v>(a: &mut Arguments<'_, '_, 'v>, wanted: Ordering) -> Answer<'v> {
    let list = a.take(0);
    let keys = keys(a, &list)?;
    let mut best = 0;
    for (index, key) in keys.iter().enumerate() {
        if order(key, &keys[best]) == wanted {
            best = index;
        }
    }
    Ok(element(list, i64::try_from(best).unwrap_or(i64::MAX)))
}

/// What the reference comes to for each element; nothing where there is nothing to compare.
fn keys(a: &mut Arguments<'_, '_, '_>, list: &Value) -> Result<Vec<Value>, Error> {
    let items = list.as_array().map(Vec::as_slice).unwrap_or_default();
    if items.len() < 2 {
        return Ok(Vec::new());
    }
    let mut keys = Vec::with_capacity(items.len());
    for item in items {
        let key = a.refer(item)?;
        keys.push(a.budget().own(key)?);
    }
    if keys.iter().all(Value::is_number) || keys.iter().all(Value::is_string) {
        Ok(keys)
    } else {
        Err(a.fail("the expression has to come to numbers alone or to strings alone"))
    }
}

fn merge(a: &mut Arguments<'_, '_, '_>) -> Result<Value, Error> {
    let mut merged = Map::new();
    for index in 0..a.values.len() {
        let value = a.take(index);
        let Value::Object(fields) = a.budget().own(value)? else { return Err(a.wrong(index, "object")) };
        merged.extend(fields);
    }
    Ok(Value::Object(merged))
}

fn not_null<'v>(a: &mut Arguments<'_, '_, 'v>) -> Cow<'v, Value> {
    let found = a.values.iter().position(|value| !value.is_null());
    found.map(|index| a.take(index)).unwrap_or_default()
}

fn object_from_lists(a: &mut Arguments<'_, '_, '_>) -> Result<Value, Error> {
    let (names, values) = (a.list(0)?, a.list(1)?);
    let mut object = Map::new();
    for (index, name) in names.iter().enumerate() {
        let name = match name {
            Value::String(_) | Value::Number(_) | Value::Bool(_) => super::texts::plain(name),
            _ => return Err(a.wrong(0, "an array of names")),
        };
        object.insert(name, values.get(index).cloned().unwrap_or_default());
    }
    Ok(Value::Object(object))
}

fn reverse(a: &mut Arguments<'_, '_, '_>) -> Result<Value, Error> {
    if let Value::String(text) = a.value(0) {
        return Ok(text.chars().rev().collect::<String>().into());
    }
    let list = a.take(0);
    let Value::Array(mut list) = a.budget().own(list)? else { return Err(a.wrong(0, "array or string")) };
    list.reverse();
    Ok(Value::Array(list))
}

fn sort(a: &mut Arguments<'_, '_, '_>) -> Result<Value, Error> {
    let list = a.take(0);
    let Value::Array(mut list) = a.budget().own(list)? else { return Err(a.wrong(0, "array")) };
    list.sort_by(order);
    Ok(Value::Array(list))
}

fn sort_by<'v>(a: &mut Arguments<'_, '_, 'v>) -> Answer<'v> {
    let list = a.take(0);
    let keys = keys(a, &list)?;
    if keys.is_empty() {
        return Ok(list);
    }
    let Value::Array(items) = a.budget().own(list)? else { return Err(a.wrong(0, "array")) };
    let mut keyed: Vec<_> = keys.into_iter().zip(items).collect();
    keyed.sort_by(|(a, _), (b, _)| order(a, b));
    Ok(Cow::Owned(keyed.into_iter().map(|(_, item)| item).collect()))
}

fn to_array<'v>(a: &mut Arguments<'_, '_, 'v>) -> Answer<'v> {
    let value = a.take(0);
    if value.is_array() {
        return Ok(value);
    }
    Ok(Cow::Owned(Value::Array(vec![a.budget().own(value)?])))
}

fn to_number(value: &Value) -> Value {
    match value {
        Value::Number(value) => Value::Number(value.clone()),
        Value::String(text) => match text.parse::<i64>() {
            Ok(whole) => Value::from(whole),
            Err(_) => text.parse().ok().and_then(crate::numbers::number).unwrap_or_default(),
        },
        _ => Value::Null,
    }
}

fn to_string<'v>(a: &mut Arguments<'_, '_, 'v>) -> Answer<'v> {
    let value = a.take(0);
    if value.is_string() {
        return Ok(value);
    }
    a.budget().read_all(&value)?;
    // A character takes up to six bytes when it is escaped.
    let text = Value::String(to_json(&value));
    a.budget().built(&text)?;
    Ok(Cow::Owned(text))
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}
