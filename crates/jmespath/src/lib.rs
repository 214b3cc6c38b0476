//! Kyverno's JMESPath dialect over borrowed JSON, with depth and fuel limits.
//!
//! [`Expression::parse`] once, [`Expression::evaluate`] often, over a [`Scope`] that gives the
//! value of each root name. The dialect differs from JMESPath in one thing that policies rely
//! on: a field that is missing from an object is the error [`Error::NotFound`], not null, and
//! is turned into null only where the fork of go-jmespath does so (comparators, function
//! arguments, both sides of `||`, the left of `&&`, `!`, pipes, projections, multiselects).
//!
//! A root value that is not known *yet* is [`Error::Missing`], which nothing turns into null:
//! a rule that lacks a fact has no answer, whatever `||` or `!` stand around it.

pub mod duration;
pub mod quantity;
pub mod versions;

mod evaluate;
mod functions;
mod lexer;
mod parser;

pub use evaluate::Scope;
pub use parser::Expression;

/// How deep an expression may be nested.
pub const MAX_DEPTH: usize = 64;
/// Bytes of one expression.
pub const MAX_LENGTH: usize = 16 * 1024;
/// Steps of one evaluation: a step is a node visited or an element produced.
pub const MAX_FUEL: usize = 200_000;

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
    /// Too long, too deep, or too much work.
    #[error("the expression is beyond its limits: {0}")]
    Limit(&'static str),
}

impl Error {
    pub(crate) fn call(function: &str, message: impl Into<String>) -> Self {
        Self::Call { function: function.to_owned(), message: message.into() }
    }
}

#[cfg(test)]
mod tests;
