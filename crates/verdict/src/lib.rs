//! The question (image, attestors) and the answer (verdict, reasons, hints), and how they read.
//!
//! A [`Question`] says which image has to be signed by whom. A [`Verdict`] is the answer to
//! it, and every part of the program that answers one (verifier, scanner, tests) answers in
//! this form; every part that acts on one asks [`Outcome::decide`] and nothing else, so the
//! table of what admits and what denies stands in one place.
//!
//! A verdict carries the list of its [`Check`]s: where something was looked for, what was
//! found and with which [`Code`]. The words that a person reads are made from that list
//! (module [`text`]), the same for a denial, for `verify --explain` and for `--output json`.

mod code;
mod outcome;
mod question;
pub mod text;

pub use code::{Code, Hint};
pub use outcome::{Check, Decision, FailurePolicy, Format, MAX_DETAIL, Outcome, Proof, Tier, Verdict};
pub use question::{
    Attestor, AttestorSet, Attestors, HashAlgorithm, KeyAttestor, Period, PullSecrets, Question,
    SignatureRepository,
};
