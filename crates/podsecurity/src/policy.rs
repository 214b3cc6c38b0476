//! The question and the answer: does this pod keep to the standard?

use serde_json::Value;

use crate::control::controls;
use crate::exclusion::Exclusion;
use crate::level::{Level, Version};
use crate::place::Place;
use crate::pod::Pod;
use crate::problem::Problem;
use crate::text::{clip_to, quoted};
use crate::violation::Violation;

/// The longest message, in bytes.
pub const MAX_MESSAGE: usize = 16 * 1024;

/// The `podSecurity` of a rule; made by [`parse`](crate::parse).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodSecurity {
    pub(crate) level: Level,
    pub(crate) version: Version,
    /// As it was written: empty if it was not.
    pub(crate) written: String,
    pub(crate) exclusions: Vec<Exclusion>,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// The pod keeps to the standard, or to what the policy leaves of it.
    Passed,
    /// It does not, but to what exceptions leave of it.
    Excepted,
    /// It does not; never empty.
    Violated(Vec<Violation>),
    /// It is no pod that could be looked at. Upstream calls this an error of the rule: it is no
    /// pass.
    Unreadable(Problem),
}

impl PodSecurity {
    /// The level.
    pub fn level(&self) -> Level {
        self.level
    }

    /// The version.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The version as it was written, for reports: empty if it was not, which means `latest`.
    pub fn written_version(&self) -> &str {
        &self.written
    }

    /// What the policy itself takes out.
    pub fn exclusions(&self) -> &[Exclusion] {
        &self.exclusions
    }

    /// Judges a pod by its metadata and spec; `exceptions` are the exclusions of the
    /// PolicyExceptions that match it.
    pub fn evaluate<'e>(
        &self,
        metadata: &Value,
        spec: &Value,
        exceptions: impl IntoIterator<Item = &'e Exclusion>,
    ) -> Verdict {
        let pod = match Pod::read(metadata, spec) {
            Ok(pod) => pod,
            Err(problem) => return Verdict::Unreadable(problem),
        };
        if self.level == Level::Privileged {
            return Verdict::Passed;
        }
        let binding = controls().iter().filter(|control| control.binds(self.level, self.version));
        let found: Vec<_> = binding.filter_map(|control| control.violation(self.version, &pod)).collect();
        let lift = |found, exclusion: &Exclusion| exclusion.lift(found, &pod);
        let found = self.exclusions.iter().fold(found, lift);
        if found.is_empty() {
            return Verdict::Passed;
        }
        let found = exceptions.into_iter().fold(found, lift);
        if found.is_empty() { Verdict::Excepted } else { Verdict::Violated(found) }
    }

    /// The message of a rule that failed, as Kyverno has it, at most [`MAX_MESSAGE`] bytes long.
    pub fn failed(&self, rule: &str, violations: &[Violation], place: Place) -> String {
        let mut message = format!(
            "Validation rule '{rule}' failed. It violates PodSecurity \"{}:{}\": ",
            self.level, self.written
        );
        for violation in violations {
            message.push_str(&format!("(Forbidden reason: {}, field error list: [", violation.reason));
            for (index, error) in violation.errors.iter().enumerate() {
                if message.len() > MAX_MESSAGE {
                    break;
                }
                if index > 0 {
                    message.push_str(", ");
                }
                message.push_str(&error.message(place));
            }
            message.push_str("])");
        }
        clip_to(&message, MAX_MESSAGE)
    }
}

/// The message of a rule that passed, as Kyverno has it.
pub fn passed(rule: &str) -> String {
    format!("Validation rule '{rule}' passed.")
}

/// What Kubernetes' own admission says of a pod: each reason with its detail.
pub fn summary(violations: &[Violation]) -> String {
    let mut parts = Vec::new();
    for violation in violations {
        parts.push(format!("{} ({})", violation.reason, violation.detail));
    }
    clip_to(&parts.join(", "), MAX_MESSAGE)
}

/// The names of the controls, for messages.
pub(crate) fn all_names() -> String {
    let mut names: Vec<_> = controls().iter().map(|control| control.name).collect();
    names.dedup();
    quoted(names)
}
