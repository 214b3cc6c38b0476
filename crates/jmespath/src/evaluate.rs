//! The interpreter.

use std::borrow::Cow;

use serde_json::{Map, Number, Value};

use crate::parser::{Comparator, Node};
use crate::{Error, Expression, MAX_FUEL, functions};

/// Gives the values that root names stand for.
pub trait Scope {
    /// The value of a name; `Ok(None)` if there is no such name, [`Error::Missing`] if its value
    /// is not known yet.
    fn lookup(&self, name: &str) -> Result<Option<&Value>, Error>;

    /// Calls a function beyond the dialect's own; `None` if there is none of this name.
    fn call(&self, name: &str, arguments: &[Value]) -> Option<Result<Value, Error>> {
        let _ = (name, arguments);
        None
    }
}

impl Expression {
    /// The value over this scope.
    pub fn evaluate<'a>(&'a self, scope: &'a dyn Scope) -> Result<Cow<'a, Value>, Error> {
        let mut interpreter = Interpreter { scope, fuel: MAX_FUEL };
        interpreter.node(&self.root, &At::Root)
    }
}

pub(crate) static NULL: Value = Value::Null;

/// Where an evaluation stands: at the root, where names are looked up, or at a value.
pub(crate) enum At<'a> {
    Root,
    Value(Cow<'a, Value>),
}

pub(crate) struct Interpreter<'a> {
    scope: &'a dyn Scope,
    fuel: usize,
}

/// Null instead of a missing field; every other error stays.
fn forgiven(result: Result<Cow<'_, Value>, Error>) -> Result<Cow<'_, Value>, Error> {
    match result {
        Err(Error::NotFound(_)) => Ok(Cow::Borrowed(&NULL)),
        other => other,
    }
}

pub(crate) fn truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
        Value::Number(_) => true,
    }
}

impl<'a> Interpreter<'a> {
    fn spend(&mut self, steps: usize) -> Result<(), Error> {
        self.fuel = self.fuel.checked_sub(steps).ok_or(Error::Limit("too much work"))?;
        Ok(())
    }

    pub(crate) fn node(&mut self, node: &'a Node, at: &At<'a>) -> Result<Cow<'a, Value>, Error> {
        self.spend(1)?;
        match node {
            Node::Current => match at {
                At::Root => Err(Error::call("@", "the root has no value of its own")),
                At::Value(value) => Ok(value.clone()),
            },
            Node::Field(name) => match at {
                At::Root => {
                    Ok(Cow::Borrowed(self.scope.lookup(name)?.ok_or_else(|| Error::NotFound(name.clone()))?))
                }
                At::Value(value) => field(value, name),
            },
            Node::Literal(value) => Ok(Cow::Borrowed(value)),
            Node::Sub(left, right) => {
                let left = self.node(left, at)?;
                self.node(right, &At::Value(left))
            }
            Node::Pipe(left, right) => {
                let left = forgiven(self.node(left, at))?;
                forgiven(self.node(right, &At::Value(left)))
            }
            Node::Or(left, right) => {
                let left = forgiven(self.node(left, at))?;
                if truthy(&left) { Ok(left) } else { forgiven(self.node(right, at)) }
            }
            Node::And(left, right) => {
                let left = forgiven(self.node(left, at))?;
                if truthy(&left) { self.node(right, at) } else { Ok(left) }
            }
            Node::Not(inner) => Ok(owned(!truthy(&*forgiven(self.node(inner, at))?))),
            Node::Compare(comparator, left, right) => {
                let left = forgiven(self.node(left, at))?;
                let right = forgiven(self.node(right, at))?;
                Ok(compare(*comparator, &left, &right))
            }
            Node::Index(list, index) => {
                let list = self.node(list, at)?;
                Ok(element(list, *index))
            }
            Node::Slice(list, parts) => {
                let list = self.node(list, at)?;
                self.slice(&list, parts)
            }
            Node::Flatten(list) => {
                let list = forgiven(self.node(list, at))?;
                let Value::Array(items) = &*list else { return Ok(Cow::Borrowed(&NULL)) };
                let mut flat = Vec::new();
                for item in items {
                    match item {
                        Value::Array(inner) => flat.extend(inner.iter().cloned()),
                        other => flat.push(other.clone()),
                    }
                }
                self.spend(flat.len())?;
                Ok(Cow::Owned(Value::Array(flat)))
            }
            Node::Project(list, right) => {
                let list = forgiven(self.node(list, at))?;
                let Value::Array(items) = list.into_owned() else { return Ok(Cow::Borrowed(&NULL)) };
                self.project(items, None, right)
            }
            Node::ProjectValues(object, right) => {
                let object = match (&**object, at) {
                    (Node::Current, At::Root) => {
                        return Err(Error::call("*", "the root has no values of its own"));
                    }
                    _ => forgiven(self.node(object, at))?,
                };
                let Value::Object(fields) = object.into_owned() else { return Ok(Cow::Borrowed(&NULL)) };
                self.project(fields.into_iter().map(|(_, value)| value).collect(), None, right)
            }
            Node::Filter(list, condition, right) => {
                let list = forgiven(self.node(list, at))?;
                let Value::Array(items) = list.into_owned() else { return Ok(Cow::Borrowed(&NULL)) };
                self.project(items, Some(condition), right)
            }
            Node::List(nodes) => {
                if matches!(at, At::Value(value) if value.is_null()) {
                    return Ok(Cow::Borrowed(&NULL));
                }
                let mut list = Vec::new();
                for node in nodes {
                    list.push(forgiven(self.node(node, at))?.into_owned());
                }
                Ok(Cow::Owned(Value::Array(list)))
            }
            Node::Object(nodes) => {
                if matches!(at, At::Value(value) if value.is_null()) {
                    return Ok(Cow::Borrowed(&NULL));
                }
                let mut fields = Map::new();
                for (name, node) in nodes {
                    fields.insert(name.clone(), forgiven(self.node(node, at))?.into_owned());
                }
                Ok(Cow::Owned(Value::Object(fields)))
            }
            Node::Call(name, arguments) => self.call(name, arguments, at),
            Node::Reference(_) => Err(Error::call("&", "an expression reference is only an argument")),
        }
    }

    fn project(
        &mut self,
        items: Vec<Value>,
        condition: Option<&'a Node>,
        right: &'a Node,
    ) -> Result<Cow<'a, Value>, Error> {
        self.spend(items.len())?;
        let mut found = Vec::new();
        for item in items {
            let at = At::Value(Cow::Owned(item));
            if let Some(condition) = condition
                && !truthy(&*forgiven(self.node(condition, &at))?)
            {
                continue;
            }
            let value = forgiven(self.node(right, &at))?;
            if !value.is_null() {
                found.push(value.into_owned());
            }
        }
        Ok(Cow::Owned(Value::Array(found)))
    }

    fn slice(&mut self, list: &Value, parts: &[Option<i64>; 3]) -> Result<Cow<'a, Value>, Error> {
        let Value::Array(items) = list else { return Ok(Cow::Borrowed(&NULL)) };
        let step = parts[2].unwrap_or(1);
        if step == 0 {
            return Err(Error::call("slice", "the step is 0"));
        }
        let length = i64::try_from(items.len()).unwrap_or(i64::MAX);
        let bound = |part: Option<i64>, default: i64| match part {
            None => default,
            Some(index) if index < 0 => (index + length).max(if step < 0 { -1 } else { 0 }),
            Some(index) => index.min(if step < 0 { length - 1 } else { length }),
        };
        let (mut at, end) = if step > 0 {
            (bound(parts[0], 0), bound(parts[1], length))
        } else {
            (bound(parts[0], length - 1), bound(parts[1], -1))
        };
        let mut found = Vec::new();
        while if step > 0 { at < end } else { at > end } {
            if let Some(item) = usize::try_from(at).ok().and_then(|index| items.get(index)) {
                found.push(item.clone());
            }
            self.spend(1)?;
            at += step;
        }
        Ok(Cow::Owned(Value::Array(found)))
    }

    fn call(&mut self, name: &str, arguments: &'a [Node], at: &At<'a>) -> Result<Cow<'a, Value>, Error> {
        if let [list, Node::Reference(expression)] = arguments {
            let list = forgiven(self.node(list, at))?.into_owned();
            return self.by(name, list, expression);
        }
        if let [Node::Reference(expression), list] = arguments
            && name == "map"
        {
            let Value::Array(items) = forgiven(self.node(list, at))?.into_owned() else {
                return Err(Error::call(name, "expects a list"));
            };
            let values: Result<Vec<_>, _> = items
                .into_iter()
                .map(|item| Ok(forgiven(self.node(expression, &At::Value(Cow::Owned(item))))?.into_owned()))
                .collect();
            return Ok(Cow::Owned(Value::Array(values?)));
        }
        let mut values = Vec::with_capacity(arguments.len());
        for argument in arguments {
            values.push(forgiven(self.node(argument, at))?.into_owned());
        }
        if let Some(result) = self.scope.call(name, &values) {
            return result.map(Cow::Owned);
        }
        functions::call(name, values).map(Cow::Owned)
    }

    /// `sort_by`, `min_by`, `max_by`.
    fn by(&mut self, name: &str, list: Value, expression: &'a Node) -> Result<Cow<'a, Value>, Error> {
        let Value::Array(items) = list else { return Err(Error::call(name, "expects a list")) };
        let mut keyed = Vec::new();
        for item in items {
            let key = self.node(expression, &At::Value(Cow::Owned(item.clone())))?.into_owned();
            keyed.push((key, item));
        }
        functions::by(name, keyed).map(Cow::Owned)
    }
}

fn owned<'a>(value: impl Into<Value>) -> Cow<'a, Value> {
    Cow::Owned(value.into())
}

/// Missing from an object is an error of its own; on anything else a field is null.
fn field<'a>(value: &Cow<'a, Value>, name: &str) -> Result<Cow<'a, Value>, Error> {
    let missing = || Error::NotFound(name.to_owned());
    match value {
        Cow::Borrowed(Value::Object(fields)) => fields.get(name).map(Cow::Borrowed).ok_or_else(missing),
        Cow::Owned(Value::Object(fields)) => fields.get(name).cloned().map(Cow::Owned).ok_or_else(missing),
        _ => Ok(Cow::Borrowed(&NULL)),
    }
}

fn element(list: Cow<'_, Value>, index: i64) -> Cow<'_, Value> {
    let Value::Array(items) = &*list else { return Cow::Borrowed(&NULL) };
    let length = i64::try_from(items.len()).unwrap_or(i64::MAX);
    let index = usize::try_from(if index < 0 { index + length } else { index }).unwrap_or(usize::MAX);
    match list {
        Cow::Borrowed(Value::Array(items)) => items.get(index).map_or(Cow::Borrowed(&NULL), Cow::Borrowed),
        Cow::Owned(Value::Array(mut items)) if index < items.len() => Cow::Owned(items.swap_remove(index)),
        _ => Cow::Borrowed(&NULL),
    }
}

fn compare<'a>(comparator: Comparator, left: &Value, right: &Value) -> Cow<'a, Value> {
    let numbers = || Some((left.as_f64()?, right.as_f64()?));
    let order = |test: fn(f64, f64) -> bool| numbers().map_or(Value::Null, |(a, b)| Value::Bool(test(a, b)));
    Cow::Owned(match comparator {
        Comparator::Equal => Value::Bool(equal(left, right)),
        Comparator::NotEqual => Value::Bool(!equal(left, right)),
        Comparator::Less => order(|a, b| a < b),
        Comparator::LessOrEqual => order(|a, b| a <= b),
        Comparator::Greater => order(|a, b| a > b),
        Comparator::GreaterOrEqual => order(|a, b| a >= b),
    })
}

/// `1` and `1.0` are one number.
fn equal(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| equal(a, b)))
        }
        _ => left == right,
    }
}

/// A number, whole where it can be.
pub(crate) fn number(value: f64) -> Value {
    #[expect(clippy::cast_possible_truncation, reason = "checked to be whole and small")]
    if value.fract() == 0.0 && value.abs() < 9e15 {
        return Value::from(value as i64);
    }
    Number::from_f64(value).map_or(Value::Null, Value::Number)
}
