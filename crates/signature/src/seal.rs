//! Seals: a signature over the index of a bundle.
//!
//! The form is that of a sigstore bundle with a statement of a type of its own. An index is a
//! document that somebody might get signed as an image: such a signature must not pass as a seal,
//! nor a seal as the signature of an image.

use countersign_reference::Digest;
use countersign_verdict::MAX_DETAIL;

use crate::bundle;
use crate::material::{Flaw, Limits};
use crate::trust::Trust;

/// The predicate type of a seal.
pub(crate) const SEAL_PREDICATE: &str = "https://countersign.dev/bundle-index/v1";

/// Why a seal does not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SealError(String);

/// The fingerprint of the key that sealed this index.
///
/// # Errors
///
/// The seal cannot be read, is of another index, or was made by none of the keys.
pub fn sealed_by(trust: &Trust, index: &Digest, seal: &[u8]) -> Result<String, SealError> {
    let limits = Limits::DEFAULT;
    if seal.len() > limits.material_bytes {
        return Err(SealError(format!("the seal is larger than {} bytes", limits.material_bytes)));
    }
    let read = bundle::read(seal, index, SEAL_PREDICATE, &limits);
    let short = |detail: String| detail.chars().take(MAX_DETAIL).collect();
    let candidate = read.map_err(|Flaw { detail, .. }| SealError(short(detail)))?;
    let maker = trust.keys.iter().find(|key| key.key.verifies(&candidate.signed, &candidate.signature));
    match maker {
        Some(key) => Ok(key.key.fingerprint().to_string()),
        None => Err(SealError(format!("not made by any of {} keys", trust.key_count()))),
    }
}
