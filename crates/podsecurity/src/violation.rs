//! What a control found, field by field.

use std::fmt;

use crate::control::Control;
use crate::place::Place;
use crate::text::{clip, clip_to};

/// The longest detail of a violation, in bytes.
pub const MAX_DETAIL: usize = 4096;

/// A control that a pod violates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The control.
    pub control: &'static Control,
    /// What is forbidden, in few words: `ForbiddenReason` upstream.
    pub reason: String,
    /// Who does it, and what: `ForbiddenDetail` upstream, of all that was found before anything
    /// was lifted, and at most [`MAX_DETAIL`] bytes long.
    pub detail: String,
    /// The fields; never empty.
    pub errors: Vec<FieldError>,
    /// What upstream says nothing of while there is something in `errors`, and its detail.
    pub(crate) behind: Option<(String, Vec<FieldError>)>,
}

impl Violation {
    /// Takes away the errors that are lifted; `None` if nothing is left.
    pub(crate) fn without(mut self, mut lifted: impl FnMut(&FieldError) -> bool) -> Option<Self> {
        self.errors.retain(|error| !lifted(error));
        if let Some((detail, mut behind)) = self.behind.take() {
            behind.retain(|error| !lifted(error));
            if self.errors.is_empty() {
                self.errors = behind;
                self.detail = detail;
            } else if !behind.is_empty() {
                self.behind = Some((detail, behind));
            }
        }
        (!self.errors.is_empty()).then_some(self)
    }
}

/// A field that is not as a control wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// The field in the pod, as `spec.containers[0].securityContext.privileged`.
    pub path: String,
    /// What is wrong with it.
    pub kind: ErrorKind,
    /// What stands there; nothing where no value is at fault.
    pub bad: Option<BadValue>,
    /// The container that it is of.
    pub(crate) container: Option<usize>,
}

/// What is wrong with a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// It is not allowed, or its value is not.
    Forbidden,
    /// It is absent and may not be.
    Required,
}

/// A value that is not allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadValue {
    /// A string.
    Text(String),
    /// A boolean.
    Flag(bool),
    /// A number.
    Number(i64),
    /// Strings, sorted.
    List(Vec<String>),
}

impl FieldError {
    pub(crate) fn forbidden(path: impl Into<String>, bad: impl Into<Option<BadValue>>) -> Self {
        Self { path: path.into(), kind: ErrorKind::Forbidden, bad: bad.into(), container: None }
    }

    pub(crate) fn required(path: impl Into<String>) -> Self {
        Self { path: path.into(), kind: ErrorKind::Required, bad: None, container: None }
    }

    pub(crate) fn of(mut self, container: usize) -> Self {
        self.container = Some(container);
        self
    }

    /// The path with a star in place of each number: `spec.containers[*].ports[*].hostPort`.
    pub(crate) fn pattern(&self) -> String {
        let mut pattern = String::with_capacity(self.path.len());
        let mut in_number = false;
        for c in self.path.chars() {
            let digit = c.is_ascii_digit();
            if !digit {
                pattern.push(c);
            } else if !in_number {
                pattern.push('*');
            }
            in_number = digit;
        }
        pattern
    }

    /// Its values, each by itself; empty strings are none.
    pub(crate) fn values(&self) -> Vec<String> {
        match &self.bad {
            None => Vec::new(),
            Some(BadValue::Text(text)) if text.is_empty() => Vec::new(),
            Some(BadValue::Text(text)) => vec![text.clone()],
            Some(BadValue::Flag(flag)) => vec![flag.to_string()],
            Some(BadValue::Number(number)) => vec![number.to_string()],
            Some(BadValue::List(list)) => list.clone(),
        }
    }

    /// As Kyverno says it, in an object that holds the pod at `place`.
    pub fn message(&self, place: Place) -> String {
        let path = clip_to(&place.path(&self.path), MAX_DETAIL);
        match (self.kind, &self.bad) {
            (ErrorKind::Required, _) => format!("{path}: Required value"),
            (ErrorKind::Forbidden, Some(bad)) if *bad != BadValue::Text(String::new()) => {
                format!("{path} is forbidden, forbidden values found: {bad}")
            }
            (ErrorKind::Forbidden, _) => format!("{path}: Forbidden"),
        }
    }
}

impl fmt::Display for BadValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(&clip(text)),
            Self::Flag(flag) => flag.fmt(f),
            Self::Number(number) => number.fmt(f),
            Self::List(list) => {
                let list: Vec<_> = list.iter().map(|text| clip(text)).collect();
                write!(f, "[{}]", clip_to(&list.join(" "), MAX_DETAIL))
            }
        }
    }
}
