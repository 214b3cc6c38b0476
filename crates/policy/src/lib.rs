//! `kyverno.io` policies, compiled and evaluated without I/O.
//!
//! ```text
//! engine.evaluate(review, facts) ─► Needs(wants)   the edge finds them out, concurrently
//!                        ▲                │
//!                        └── facts.add ◄──┘
//!                                   ─► Done(outcome): object, denials, warnings, results
//! ```
//!
//! Rewriting and verifying are one decision on the reference that will be stored: mutate rules
//! run first, then the images they leave are what is asked about, and what is verified is what
//! gets pinned. The validating phase decides again on the final object, by itself: nothing in
//! the object is read as proof.

mod action;
mod anchor;
mod autogen;
mod conditions;
mod context;
mod drive;
mod engine;
mod exceptions;
mod fields;
mod images;
mod interest;
mod json_patch;
mod keys;
mod kinds;
mod lint;
mod load;
mod merge;
mod merge_keys;
mod mutate;
mod names;
mod operators;
mod pattern;
mod references;
mod respond;
mod review;
mod run;
mod scalar;
mod selector;
mod template;
mod template_pod;
mod validate;

use countersign_jmespath::{Error, Expression};

pub use countersign_jmespath::Moment;
pub use drive::{Endless, MAX_ROUNDS};
pub use engine::{Engine, Evaluation, Fact, Facts, Finding, MAX_IMAGES, Outcome, Phase, RuleResult, Want};
pub use exceptions::Exception;
pub use fields::Refusal;
pub use images::IMAGE_PLACES;
pub use interest::{CONNECTIONS, Interest};
pub use json_patch::{JsonPatch, JsonPatchError, MAX_ADDED, MAX_OPERATIONS, MAX_PATCHED_DEPTH};
pub use keys::{Keys, SECRET_KEY, SecretKeys, SiteKey};
pub use lint::{Level, Lint, Surroundings, lint};
pub use load::{Policy, decisive_fields, load, load_given};
pub use merge::{MAX_MERGE_DEPTH, MAX_MERGE_STEPS, MergeError, merge_patch};
pub use operators::Operator;
pub use pattern::{
    Judgement, MAX_PATTERN_DEPTH, MAX_PATTERN_STEPS, Matched, judge_any_pattern, judge_pattern, match_pattern,
};
pub use respond::{Kind, Response, Status};
pub use review::{Given, Review};
pub use template_pod::TEMPLATES;

/// Functions beyond the dialect's own: `registry_rewrite(image)` is the one rewriter.
const FUNCTIONS: &[&str] = &["registry_rewrite"];

/// An expression of a policy.
pub(crate) fn expression(text: &str) -> Result<Expression, Error> {
    Expression::parse(text, FUNCTIONS)
}
