//! What one evaluation may cost: steps, and bytes of what it builds.

use std::borrow::Cow;

use serde_json::Value;

use crate::{Error, MAX_BUILT, MAX_FUEL, MAX_NESTING};

/// What a value costs beside its text.
const NODE: usize = 16;
/// Bytes that are read in one step.
const BYTES_A_STEP: usize = 64;

/// What is left.
pub(crate) struct Budget {
    steps: usize,
    bytes: usize,
}

impl Budget {
    /// At most so many steps, and never more than one expression may take.
    pub(crate) fn of(steps: usize) -> Self {
        Self { steps: steps.min(MAX_FUEL), bytes: MAX_BUILT }
    }

    /// The steps that are left, and those that went into what was built.
    pub(crate) fn left(&self) -> usize {
        self.steps.saturating_sub((MAX_BUILT - self.bytes) / BYTES_A_STEP)
    }

    /// Takes steps.
    pub(crate) fn work(&mut self, steps: usize) -> Result<(), Error> {
        let left = self.steps.checked_sub(steps);
        // Who wants more than there is has had all of it.
        self.steps = left.unwrap_or_default();
        left.map(|_| ()).ok_or(Error::Limit("too much work"))
    }

    /// Takes the steps of reading so many bytes.
    pub(crate) fn read(&mut self, bytes: usize) -> Result<(), Error> {
        self.work(bytes / BYTES_A_STEP)
    }

    /// Takes the steps of reading a value to its end.
    pub(crate) fn read_all(&mut self, value: &Value) -> Result<(), Error> {
        let most = self.steps.saturating_mul(BYTES_A_STEP);
        let bytes = weight(value, most).map_err(|error| error.unwrap_or(Error::Limit("too much work")))?;
        self.read(bytes)
    }

    /// Takes bytes that are about to be built.
    pub(crate) fn build(&mut self, bytes: usize) -> Result<(), Error> {
        self.bytes = self.bytes.checked_sub(bytes).ok_or(Error::Limit("too much is built"))?;
        Ok(())
    }

    /// Whether so many bytes may be built; they are taken when they are.
    pub(crate) fn room(&self, bytes: usize) -> Result<(), Error> {
        if bytes > self.bytes { Err(Error::Limit("too much is built")) } else { Ok(()) }
    }

    /// Takes the bytes of a value that was built.
    pub(crate) fn built(&mut self, value: &Value) -> Result<(), Error> {
        let bytes = weight(value, self.bytes);
        self.build(bytes.map_err(|error| error.unwrap_or(Error::Limit("too much is built")))?)
    }

    /// The value itself: a copy, if it is borrowed.
    pub(crate) fn own(&mut self, value: Cow<'_, Value>) -> Result<Value, Error> {
        match value {
            Cow::Owned(value) => Ok(value),
            Cow::Borrowed(value) => {
                self.built(value)?;
                Ok(value.clone())
            }
        }
    }
}

/// The steps of reading, or copying, a value.
pub(crate) fn steps_of(value: &Value) -> usize {
    weight(value, usize::MAX).unwrap_or(usize::MAX) / BYTES_A_STEP + 1
}

/// The bytes of a value; `Err(None)` if they are more than that.
fn weight(value: &Value, most: usize) -> Result<usize, Option<Error>> {
    let mut total = 0;
    add_weight(value, most, MAX_NESTING, &mut total)?;
    Ok(total)
}

fn add_weight(value: &Value, most: usize, depth: usize, total: &mut usize) -> Result<(), Option<Error>> {
    if depth == 0 {
        return Err(Some(Error::Limit("a value is nested too deep")));
    }
    *total += NODE;
    match value {
        Value::String(text) => *total += text.len(),
        Value::Array(list) => {
            for item in list {
                add_weight(item, most, depth - 1, total)?;
            }
        }
        Value::Object(fields) => {
            for (name, value) in fields {
                *total += name.len();
                add_weight(value, most, depth - 1, total)?;
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
    if *total > most { Err(None) } else { Ok(()) }
}
