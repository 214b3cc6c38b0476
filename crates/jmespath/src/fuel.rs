//! What everything that is evaluated for one request may cost together.

use std::cell::Cell;

use serde_json::Value;

use crate::Error;
use crate::budget;

/// Steps that are left. Whoever evaluates many expressions gives all of them the same one.
#[derive(Debug)]
pub struct Fuel(Cell<usize>);

impl Fuel {
    /// So many steps.
    pub const fn new(steps: usize) -> Self {
        Self(Cell::new(steps))
    }

    /// What is left.
    pub fn left(&self) -> usize {
        self.0.get()
    }

    /// Takes steps.
    ///
    /// # Errors
    ///
    /// There are not so many: [`Error::Limit`].
    pub fn spend(&self, steps: usize) -> Result<(), Error> {
        self.0.set(self.left().saturating_sub(steps));
        if self.left() == 0 { Err(Error::Limit("too much work for one request")) } else { Ok(()) }
    }

    /// Takes the steps of copying a value.
    ///
    /// # Errors
    ///
    /// As [`Fuel::spend`].
    pub fn copy(&self, value: &Value) -> Result<(), Error> {
        self.spend(budget::steps_of(value))
    }

    /// Does work that counts steps down, at most so many.
    pub fn within<T>(&self, most: usize, work: impl FnOnce(&mut usize) -> T) -> T {
        let given = most.min(self.left());
        let mut steps = given;
        let done = work(&mut steps);
        self.0.set(self.left().saturating_sub(given - steps));
        done
    }
}
