//! Kyverno's JMESPath dialect over borrowed JSON, with limits.
//!
//! [`Expression::parse`] once, [`Expression::evaluate`] often, over a [`Scope`] that gives the
//! value of each root name. The dialect differs from JMESPath in one thing that policies rely
//! on: a field that is missing from an object is the error [`Error::NotFound`], not null, and
//! is turned into null only where the fork of go-jmespath does so (comparators, function
//! arguments, both sides of `||`, the left of `&&`, `!`, pipes, projections, multiselects).
//!
//! A root value that is not known *yet* is [`Error::Missing`], which nothing turns into null:
//! a rule that lacks a fact has no answer, whatever `||` or `!` stand around it.
//!
//! Functions that ask for the time or for randomness get them from the scope's [`Moment`]: the
//! same expression over the same scope has the same value, however often it is evaluated.
//! `docs/jmespath.md` lists the functions and in what they differ from Kyverno's.

pub mod duration;
pub mod quantity;
pub mod versions;

mod budget;
mod evaluate;
mod fuel;
mod functions;
mod layout;
mod lexer;
mod md5;
mod moment;
mod numbers;
mod parser;
mod pattern;
mod random;
mod time;

pub use countersign_reference::wildcard_match;
pub use evaluate::Scope;
pub use fuel::Fuel;
pub use functions::signatures;
pub use moment::Moment;
pub use numbers::to_json;
pub use parser::Expression;
pub use pattern::MAX_PATTERN;

/// How deep an expression may be nested, and how many steps it may have one after another.
pub const MAX_DEPTH: usize = 100;
/// Bytes of one expression.
pub const MAX_LENGTH: usize = 16 * 1024;
/// Steps of one evaluation: a step is a node visited, an element produced or some bytes read.
pub const MAX_FUEL: usize = 200_000;
/// Bytes that one evaluation may build: copies of parts of the data, and the results of functions.
pub const MAX_BUILT: usize = 8 << 20;
/// How deep a value may be nested that is copied.
pub const MAX_NESTING: usize = 512;
/// Bytes of YAML that `parse_yaml` reads: aliases make more of them.
pub const MAX_YAML: usize = 64 * 1024;

/// Bytes of what is said of a call that failed.
const MAX_MESSAGE: usize = 300;

/// Why an expression has no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Not an expression; the number is a byte offset.
    #[error("syntax error at {at}: {message}")]
    Syntax {
        /// Where.
        at: usize,
        /// What is wrong.
        message: String,
    },
    /// A field is not there.
    #[error("Unknown key \"{0}\" in path")]
    NotFound(String),
    /// A root value is not known yet: the rule has to be evaluated again when it is.
    #[error("`{0}` is not known yet")]
    Missing(String),
    /// There is no such function.
    #[error("Unknown function: {0}()")]
    UnknownFunction(String),
    /// A function was called with the wrong arguments, or failed.
    #[error("{function}(): {message}")]
    Call {
        /// Which.
        function: String,
        /// What is wrong.
        message: String,
    },
    /// The whole of the root is asked for, which has names and no value.
    #[error("`{0}` stands where it would be all that there is")]
    Root(&'static str),
    /// Too long, too deep, or too much work.
    #[error("the expression is beyond its limits: {0}")]
    Limit(&'static str),
}

impl Error {
    /// What was given may stand in the message, so it is cut.
    pub(crate) fn call(function: &str, message: impl Into<String>) -> Self {
        let mut message = message.into();
        if message.len() > MAX_MESSAGE {
            message.truncate(message.floor_char_boundary(MAX_MESSAGE));
            message.push('…');
        }
        Self::Call { function: function.to_owned(), message }
    }
}

#[cfg(test)]
mod tests;
