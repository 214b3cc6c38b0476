//! Joins the rooms below into a [`Verdict`](countersign_verdict::Verdict).
//!
//! ```text
//! image ─► mirror rules ─► endpoints ─► tag → digest, at the first endpoint that has it
//!                                            │
//!          proof at hand? evidence? ─► `.sig` ∪ referrers API ∪ fallback tag, at any endpoint
//!                                            │
//!                                        Judge ─► Verdict
//! ```
//!
//! * One flight at a time for the same question: a storm of pods asks a registry once.
//! * A positive answer may come from any endpoint, since a signature proves itself. Absence is
//!   judged where the manifest came from.
//! * What depends on the moment (`Undecided`) is never remembered. A definite negative answer is
//!   held for [`HELD_NEGATIVE`].
//! * A proof is remembered by digest, attestors and trust generation, never by name: a tag that
//!   moves finds no proof (T-04).
//! * The signature of an index is one of what it lists, once the index is known: from the tag beside
//!   the digest, or from the evidence.
//! * What one image may cost is bounded, over all endpoints and retries ([`Settings`]).
//! * No lock is held across an await.

mod find;
mod flight;
mod proofs;
mod resolve;
mod revocation;
mod route;
mod settings;
mod verdicts;
mod verifier;
mod who;

pub use flight::Flights;
pub use route::{Rules, SetupError, SourceLoader};
pub use settings::{SecretReader, Settings};
pub use verifier::{HELD_NEGATIVE, Purpose, Verifier};

/// Whether attestors can be judged by, for whoever takes them from a person.
pub fn check_attestors(
    attestors: &countersign_verdict::Attestors,
) -> Result<(), countersign_signature::TrustError> {
    countersign_signature::Trust::new(attestors).map(|_| ())
}
