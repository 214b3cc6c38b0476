//! Given bytes and trust: is this digest signed?
//!
//! ```text
//! Material (bytes from anywhere) ── read ──► Candidate: what was signed, and for which digest
//!                                                │
//! Attestors (a policy's) ── Trust::new ──► Trust │
//!                                            └── Judge::add ──► Verified<Signatures> | checks
//! ```
//!
//! Two shapes are in the field, and both are read, each by its own rules:
//!
//! | shape | where | signed bytes | bound to the image by |
//! |---|---|---|---|
//! | [`Material::CosignSig`] | layers of the tag `sha256-<hex>.sig` | the payload | `critical.image.docker-manifest-digest` |
//! | [`Material::Bundle`] | sigstore bundle v0.3, a referrer | DSSE pre-authentication encoding | a subject of the in-toto statement |
//!
//! What is known of attacks on verifiers, and what stops each here:
//!
//! * *A signature of another image* (T-11): the digest inside the signed bytes must be the image's.
//! * *An attestation of another type counts as signature* (T-09): a bundle's statement must have the
//!   predicate type of `cosign sign`; a payload must have cosign's `critical.type`.
//! * *Re-encoded bytes are verified* (T-19b): signatures are checked over the bytes as received, and
//!   those bytes are the ones parsed.
//! * *One key under two names meets a threshold* (T-17): keys are counted by their public key.
//! * *One document, two meanings* (T-10): a list is not an object, and no name stands twice in what is read.
//! * *The bundle picks the method* (T-13): only the policy does. A certificate in a bundle is not read.
//! * *A signed image under another name* (T-19): where the site asks for it, the name that the signer
//!   wrote has to lead to the same place as the image's ([`Naming`]).
//! * *A key whose time is over* (T-18): the site's dates are held against the time given ([`Time`]).
//! * *Endless work* (T-37, T-40): sizes and signature operations are bounded by [`Limits`].
//!
//! Nothing here does I/O or asks for the time. There is no transparency log in this crate.

mod bundle;
mod judge;
mod key;
mod material;
mod object;
mod payload;
mod seal;
#[cfg(feature = "sign")]
pub mod sign;
mod terms;
mod trust;

pub use judge::{Judge, Located, Signatures, Verified};
pub use key::{KeyError, KeyKind, PublicKey};
pub use material::{
    BUNDLE_MEDIA_TYPE, BUNDLE_MEDIA_TYPE_PREFIX, Limits, Material, SIGNATURE_ANNOTATION,
    SIMPLE_SIGNING_MEDIA_TYPE,
};
pub use seal::{SealError, sealed_by};
pub use terms::{Identity, Naming, TOLD_AHEAD, Terms, Time};
pub use trust::{Trust, TrustError};
