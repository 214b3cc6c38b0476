//! The interpreter.

use std::borrow::Cow;

use serde_json::{Map, Value};

use crate::budget::Budget;
use crate::functions::{self, Arguments};
use crate::numbers::to_json;
use crate::parser::{Call, Comparator, Node};
use crate::{Error, Expression, Fuel, MAX_FUEL, Moment};

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

    /// What the expressions of a request may cost together, each of them no more than
    /// [`MAX_FUEL`](crate::MAX_FUEL).
    fn fuel(&self) -> Option<&Fuel> {
        None
    }

    /// The time and the randomness of the request. Without them, functions that ask for either fail.
    fn moment(&self) -> Option<Moment> {
        None
    }
}

impl Expression {
    /// The value over this scope.
    pub fn evaluate<'a>(&'a self, scope: &'a dyn Scope) -> Result<Cow<'a, Value>, Error> {
        let moment = scope.moment().map(|moment| moment.of_text(self.text()));
        let evaluate = |steps: &mut usize| {
            let mut interpreter = Interpreter { scope, budget: Budget::of(*steps), moment };
            let found = interpreter.node(&self.root, At::Root);
            *steps = interpreter.budget.left().min(*steps);
            found
        };
        match scope.fuel() {
            Some(fuel) => fuel.within(MAX_FUEL, evaluate),
            None => evaluate(&mut MAX_FUEL.clone()),
        }
    }
}

pub(crate) type Answer<'v> = Result<Cow<'v, Value>, Error>;

pub(crate) static NULL: Value = Value::Null;
const NOTHING: Cow<'static, Value> = Cow::Borrowed(&NULL);

/// Where an evaluation stands: at the root, where names are looked up, or at a value.
#[derive(Clone, Copy)]
pub(crate) enum At<'v> {
    Root,
    Value(&'v Value),
}

pub(crate) struct Interpreter<'a> {
    pub(crate) scope: &'a dyn Scope,
    pub(crate) budget: Budget,
    pub(crate) moment: Option<Moment>,
}

/// Null instead of a missing field; every other error stays.
pub(crate) fn forgiven(result: Answer<'_>) -> Answer<'_> {
    match result {
        Err(Error::NotFound(_)) => Ok(NOTHING),
        other => other,
    }
}

/// Null instead of a missing field or a call that failed, where the fork looks at neither: on the
/// left of `[]`, `[?…]` and `.*`.
fn unseen(result: Answer<'_>) -> Answer<'_> {
    match result {
        Err(Error::NotFound(_) | Error::Call { .. }) => Ok(NOTHING),
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
    pub(crate) fn node<'v>(&mut self, node: &'v Node, at: At<'v>) -> Answer<'v>
    where
        'a: 'v,
    {
        self.budget.work(1)?;
        match node {
            Node::Current => match at {
                At::Root => Err(Error::Root("@")),
                At::Value(value) => Ok(Cow::Borrowed(value)),
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
                self.within(left, right)
            }
            Node::Pipe(left, right) => {
                let left = forgiven(self.node(left, at))?;
                forgiven(self.within(left, right))
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
                Ok(Cow::Owned(compare(*comparator, &left, &right, &mut self.budget)?))
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
                let list = unseen(self.node(list, at))?;
                self.flatten(list)
            }
            Node::Project(list, right) => {
                let list = forgiven(self.node(list, at))?;
                self.project(list, None, right)
            }
            Node::ProjectValues(object, right) => {
                let object = match (&**object, at) {
                    (Node::Current, At::Root) => {
                        return Err(Error::Root("*"));
                    }
                    _ => unseen(self.node(object, at))?,
                };
                let Value::Object(fields) = &*object else { return Ok(NOTHING) };
                self.budget.work(fields.len())?;
                let mut found = Vec::new();
                for value in fields.values() {
                    let value = forgiven(self.node(right, At::Value(value)))?;
                    if !value.is_null() {
                        found.push(self.budget.own(value)?);
                    }
                }
                Ok(Cow::Owned(Value::Array(found)))
            }
            Node::Filter(list, condition, right) => {
                let list = unseen(self.node(list, at))?;
                self.project(list, Some(condition), right)
            }
            Node::List(nodes) => {
                if matches!(at, At::Value(Value::Null)) {
                    return Ok(NOTHING);
                }
                let mut list = Vec::with_capacity(nodes.len());
                for node in nodes {
                    let value = forgiven(self.node(node, at))?;
                    list.push(self.budget.own(value)?);
                }
                Ok(Cow::Owned(Value::Array(list)))
            }
            Node::Object(nodes) => {
                if matches!(at, At::Value(Value::Null)) {
                    return Ok(NOTHING);
                }
                let mut fields = Map::new();
                for (name, node) in nodes {
                    let value = forgiven(self.node(node, at))?;
                    fields.insert(name.clone(), self.budget.own(value)?);
                }
                Ok(Cow::Owned(Value::Object(fields)))
            }
            Node::Call(call) => self.call(call, at),
        }
    }

    /// A node over a value that may be nobody else's: what is passed through is moved.
    fn within<'v>(&mut self, value: Cow<'v, Value>, node: &'v Node) -> Answer<'v>
    where
        'a: 'v,
    {
        match (value, node) {
            (Cow::Borrowed(value), _) => self.node(node, At::Value(value)),
            (value, Node::Current) => Ok(value),
            (Cow::Owned(Value::Object(mut fields)), Node::Field(name)) => {
                self.budget.work(1)?;
                fields.remove(name).map(Cow::Owned).ok_or_else(|| Error::NotFound(name.clone()))
            }
            (Cow::Owned(value), _) => {
                let found = self.node(node, At::Value(&value))?;
                Ok(Cow::Owned(self.budget.own(found)?))
            }
        }
    }

    fn flatten<'v>(&mut self, list: Cow<'v, Value>) -> Answer<'v> {
        let Value::Array(items) = &*list else { return Ok(NOTHING) };
        let inner = |item: &Value| item.as_array().map_or(1, Vec::len);
        self.budget.work(items.iter().map(inner).sum())?;
        if !items.iter().any(Value::is_array) {
            return Ok(list);
        }
        let mut flat = Vec::new();
        match list {
            Cow::Owned(Value::Array(items)) => {
                for item in items {
                    match item {
                        Value::Array(inner) => flat.extend(inner),
                        other => flat.push(other),
                    }
                }
            }
            list => {
                self.budget.built(&list)?;
                for item in list.as_array().into_iter().flatten() {
                    match item {
                        Value::Array(inner) => flat.extend(inner.iter().cloned()),
                        other => flat.push(other.clone()),
                    }
                }
            }
        }
        Ok(Cow::Owned(Value::Array(flat)))
    }

    fn project<'v>(
        &mut self,
        list: Cow<'v, Value>,
        condition: Option<&'v Node>,
        right: &'v Node,
    ) -> Answer<'v>
    where
        'a: 'v,
    {
        let Value::Array(items) = &*list else { return Ok(NOTHING) };
        self.budget.work(items.len())?;
        let as_they_are = matches!(right, Node::Current);
        if as_they_are && condition.is_none() && !items.iter().any(Value::is_null) {
            return Ok(list);
        }
        let mut found = Vec::new();
        match list {
            Cow::Borrowed(_) => {
                for item in list.as_array().into_iter().flatten() {
                    if let Some(value) = self.element(item, condition, right)? {
                        found.push(value);
                    }
                }
            }
            Cow::Owned(list) => {
                let Value::Array(items) = list else { return Ok(NOTHING) };
                for item in items {
                    if !as_they_are {
                        found.extend(self.element(&item, condition, right)?);
                    } else if !item.is_null() && self.holds(&item, condition)? {
                        found.push(item);
                    }
                }
            }
        }
        Ok(Cow::Owned(Value::Array(found)))
    }

    /// What an element of a projection comes to; `None` if it is left out.
    fn element<'v>(
        &mut self,
        item: &'v Value,
        condition: Option<&'v Node>,
        right: &'v Node,
    ) -> Result<Option<Value>, Error>
    where
        'a: 'v,
    {
        if !self.holds(item, condition)? {
            return Ok(None);
        }
        let value = forgiven(self.node(right, At::Value(item)))?;
        if value.is_null() { Ok(None) } else { self.budget.own(value).map(Some) }
    }

    fn holds<'v>(&mut self, item: &'v Value, condition: Option<&'v Node>) -> Result<bool, Error>
    where
        'a: 'v,
    {
        let Some(condition) = condition else { return Ok(true) };
        Ok(truthy(&*forgiven(self.node(condition, At::Value(item)))?))
    }

    fn slice<'v>(&mut self, list: &Value, parts: &[Option<i64>; 3]) -> Answer<'v> {
        let Value::Array(items) = list else { return Ok(NOTHING) };
        let step = parts[2].unwrap_or(1);
        if step == 0 {
            return Err(Error::call("slice", "the step is 0"));
        }
        let length = i64::try_from(items.len()).unwrap_or(i64::MAX);
        let bound = |part: Option<i64>, default: i64| match part {
            None => default,
            Some(index) if index < 0 => index.saturating_add(length).max(if step < 0 { -1 } else { 0 }),
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
                found.push(self.budget.own(Cow::Borrowed(item))?);
            }
            self.budget.work(1)?;
            at = at.saturating_add(step);
        }
        Ok(Cow::Owned(Value::Array(found)))
    }

    fn call<'v>(&mut self, call: &'v Call, at: At<'v>) -> Answer<'v>
    where
        'a: 'v,
    {
        let mut values = Vec::with_capacity(call.arguments.len());
        for (index, argument) in call.arguments.iter().enumerate() {
            let referred =
                call.function.is_some_and(|function| function.takes(index, functions::Kind::Reference));
            values.push(if referred { NOTHING } else { forgiven(self.node(argument, at))? });
        }
        let Some(function) = call.function else {
            let values: Result<Vec<_>, _> = values.into_iter().map(|value| self.budget.own(value)).collect();
            let answer = self.scope.call(&call.name, &values?);
            let answer = answer.unwrap_or_else(|| Err(Error::UnknownFunction(call.name.clone())))?;
            self.budget.built(&answer)?;
            return Ok(Cow::Owned(answer));
        };
        let arguments = Arguments {
            name: function.name,
            values,
            reference: call.reference.as_deref(),
            pattern: call.pattern.as_deref(),
            interpreter: self,
        };
        function.call(arguments)
    }
}

pub(crate) fn owned<'v>(value: impl Into<Value>) -> Cow<'v, Value> {
    Cow::Owned(value.into())
}

/// Missing from an object is an error of its own; on anything else a field is null.
fn field<'v>(value: &'v Value, name: &str) -> Answer<'v> {
    let Value::Object(fields) = value else { return Ok(NOTHING) };
    fields.get(name).map(Cow::Borrowed).ok_or_else(|| Error::NotFound(name.to_owned()))
}

pub(crate) fn element(list: Cow<'_, Value>, index: i64) -> Cow<'_, Value> {
    let Value::Array(items) = &*list else { return NOTHING };
    let length = i64::try_from(items.len()).unwrap_or(i64::MAX);
    let index =
        usize::try_from(if index < 0 { index.saturating_add(length) } else { index }).unwrap_or(usize::MAX);
    match list {
        Cow::Borrowed(Value::Array(items)) => items.get(index).map_or(NOTHING, Cow::Borrowed),
        Cow::Owned(Value::Array(mut items)) if index < items.len() => Cow::Owned(items.swap_remove(index)),
        _ => NOTHING,
    }
}

fn compare(comparator: Comparator, left: &Value, right: &Value, budget: &mut Budget) -> Result<Value, Error> {
    let numbers = || Some((left.as_f64()?, right.as_f64()?));
    Ok(match comparator {
        Comparator::Equal => Value::Bool(equal(left, right, budget)?),
        Comparator::NotEqual => Value::Bool(!equal(left, right, budget)?),
        order => numbers()
            .and_then(|(a, b)| a.partial_cmp(&b))
            .map_or(Value::Null, |found| Value::Bool(order.holds(found))),
    })
}

/// `1` and `1.0` are one number.
pub(crate) fn equal(left: &Value, right: &Value, budget: &mut Budget) -> Result<bool, Error> {
    Ok(match (left, right) {
        (Value::Number(a), Value::Number(b)) => {
            // Whole numbers are exact, as far as they are whole.
            if a.is_f64() || b.is_f64() { a.as_f64() == b.as_f64() } else { a == b }
        }
        (Value::String(a), Value::String(b)) => {
            budget.read(a.len().min(b.len()))?;
            a == b
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            budget.work(a.len())?;
            for (a, b) in a.iter().zip(b) {
                if !equal(a, b, budget)? {
                    return Ok(false);
                }
            }
            true
        }
        (Value::Object(a), Value::Object(b)) if a.len() == b.len() => {
            budget.work(a.len())?;
            for (name, a) in a {
                let Some(b) = b.get(name) else { return Ok(false) };
                if !equal(a, b, budget)? {
                    return Ok(false);
                }
            }
            true
        }
        (Value::Null, Value::Null) => true,
        (Value::Bool(a), Value::Bool(b)) => a == b,
        _ => false,
    })
}

/// What a value is called in a message; long ones are cut.
pub(crate) fn shown(value: &Value) -> String {
    match value {
        Value::Array(_) => "an array".to_owned(),
        Value::Object(_) => "an object".to_owned(),
        Value::String(text) if text.chars().count() > 40 => {
            format!("\"{}…\"", text.chars().take(40).collect::<String>())
        }
        value => to_json(value),
    }
}
