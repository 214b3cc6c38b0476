//! How an endpoint does, and what came of the requests to it.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::{Class, Error};

/// Requests by what came of them.
#[derive(Debug, Default)]
pub(crate) struct Counts([AtomicU64; OUTCOMES.len()]);

/// The words for what may come of a request.
const OUTCOMES: [&str; 6] = ["ok", "absent", "denied", "unreachable", "malformed", "refused"];

impl Counts {
    /// How many there were, by the word for each end.
    pub(crate) fn by_word(&self) -> Vec<(&'static str, u64)> {
        let count = |(word, count): (&&'static str, &AtomicU64)| (*word, count.load(Ordering::Relaxed));
        OUTCOMES.iter().zip(&self.0).map(count).collect()
    }

    /// One more with this end.
    pub(crate) fn count<T>(&self, answer: &Result<T, Error>) {
        let index = match answer.as_ref().map_err(Error::class) {
            Ok(_) => 0,
            Err(Class::Absent) => 1,
            Err(Class::Denied) => 2,
            Err(Class::Unreachable) => 3,
            Err(Class::Malformed) => 4,
            Err(Class::Refused) => 5,
        };
        self.0[index].fetch_add(1, Ordering::Relaxed);
    }
}

/// How an endpoint does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// What people call it.
    pub name: String,
    /// Requests by what came of them: `ok`, `absent`, `denied`, `unreachable`, `malformed`, `refused`.
    pub requests: Vec<(&'static str, u64)>,
    /// Whether it is not asked for a moment, as it could not be reached.
    pub held_off: bool,
}
