//! Walks JSON as the API server's decoding does: a null is an absent field, a value of another
//! type is an error that names its path.

use std::fmt;

use serde_json::{Map, Value};

use crate::problem::Problem;
use crate::text::clip;

static NULL: Value = Value::Null;

/// A value and where it stands.
#[derive(Clone, Copy)]
pub(crate) struct At<'a, 'p> {
    value: &'a Value,
    above: Option<&'p At<'a, 'p>>,
    step: Step<'a>,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Name(&'a str),
    Index(usize),
}

impl<'a> At<'a, '_> {
    pub(crate) fn root(name: &'a str, value: &'a Value) -> Self {
        Self { value, above: None, step: Step::Name(name) }
    }

    /// A field of the object; absent in one that is null.
    pub(crate) fn field<'q>(&'q self, name: &'a str) -> Result<At<'a, 'q>, Problem> {
        let value = self.object()?.and_then(|object| object.get(name)).unwrap_or(&NULL);
        Ok(At { value, above: Some(self), step: Step::Name(name) })
    }

    /// Whether it is anything but null.
    pub(crate) fn present(&self) -> bool {
        !self.value.is_null()
    }

    pub(crate) fn object(&self) -> Result<Option<&'a Map<String, Value>>, Problem> {
        self.typed("an object", |value| value.as_object())
    }

    pub(crate) fn text(&self) -> Result<Option<&'a str>, Problem> {
        self.typed("a string", Value::as_str)
    }

    pub(crate) fn flag(&self) -> Result<Option<bool>, Problem> {
        self.typed("true or false", Value::as_bool)
    }

    pub(crate) fn integer(&self) -> Result<Option<i64>, Problem> {
        self.typed("a whole number of 64 bits", Value::as_i64)
    }

    pub(crate) fn port(&self) -> Result<Option<i32>, Problem> {
        self.typed("a whole number of 32 bits", |value| value.as_i64().and_then(|port| port.try_into().ok()))
    }

    /// The items of a list; none if it is null.
    pub(crate) fn items<'q>(&'q self) -> Result<impl Iterator<Item = At<'a, 'q>>, Problem> {
        let items = self.typed("a list", Value::as_array)?.map_or(&[][..], Vec::as_slice);
        let at = move |(index, value)| At { value, above: Some(self), step: Step::Index(index) };
        Ok(items.iter().enumerate().map(at))
    }

    fn typed<T>(&self, expected: &str, read: impl Fn(&'a Value) -> Option<T>) -> Result<Option<T>, Problem> {
        if self.value.is_null() {
            return Ok(None);
        }
        read(self.value).map(Some).ok_or_else(|| self.problem(&format!("expected {expected}")))
    }

    pub(crate) fn problem(&self, reason: &str) -> Problem {
        Problem::new(self.to_string(), reason)
    }
}

impl fmt::Display for At<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(above) = self.above {
            above.fmt(f)?;
        }
        match self.step {
            Step::Name(name) if self.above.is_some() => write!(f, ".{}", clip(name)),
            Step::Name(name) => f.write_str(&clip(name)),
            Step::Index(index) => write!(f, "[{index}]"),
        }
    }
}
