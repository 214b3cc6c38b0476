//! Bundles: images **and their signatures** in one OCI image layout, signed as a whole.
//!
//! ```text
//! registries ──create──► layout (directory or tar) ──crosses the gap──► verify, list, serve, push
//!                          index.json                  names as the site will serve them
//!                          index.json.sigstore.json    the seal: who put this together
//! ```
//!
//! A name in the index is `repository:tag` in the site's registry, or `repository@digest` for
//! what has no tag. With an image come its platforms, its `.sig`, `.att` and `.sbom` tags and
//! whatever refers to it, and what refers to that.
//!
//! Nothing in a bundle is believed: content is hashed, signatures are judged by the keys that
//! are given, and the seal says only who collected it.

mod create;
mod filled;
mod judge;
mod push;
mod turns;
mod verify;
mod walk;

pub use create::{CreateError, Creator, Hosts, Progress, Settings};
pub use filled::{Filled, Missing, check};
pub use judge::Signed;
pub use push::{PushError, PushSettings, Pusher};
pub use verify::{Evidence, Image, Problem, Report, Single, contents, evidence, single, verify};

use countersign_layout::{Layout, LayoutError};
use countersign_signature::sign::{SignError, Signer};
use countersign_signature::{Trust, sealed_by};

/// The file beside `index.json` that holds the seal.
pub const SEAL_FILE: &str = "index.json.sigstore.json";
/// The annotation of an entry that says for which platforms it was collected, where not for all.
pub const PLATFORMS: &str = "dev.countersign.platforms";
/// Bytes of a seal.
const MAX_SEAL: u64 = 1 << 20;

/// A bundle that could not be sealed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SealFailure {
    /// The layout does not take it.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The key does not make it.
    #[error(transparent)]
    Sign(#[from] SignError),
}

/// Signs the index as it is now.
pub fn seal(layout: &Layout, signer: &Signer) -> Result<(), SealFailure> {
    let seal = signer.seal(&layout.index()?.digest)?;
    Ok(layout.put_file(SEAL_FILE, &seal)?)
}

/// Who sealed a bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seal {
    /// A key that is trusted for it, by its fingerprint.
    Holds(String),
    /// There is a seal, and it is not good: why.
    Broken(String),
    /// There is none.
    Absent,
}

/// Checks the seal of a bundle.
pub fn check_seal(layout: &Layout, trust: &Trust) -> Result<Seal, LayoutError> {
    use std::io::Read as _;
    let Some(file) = layout.file(SEAL_FILE)? else { return Ok(Seal::Absent) };
    if file.length() > MAX_SEAL {
        return Ok(Seal::Broken(format!("the seal is larger than {MAX_SEAL} bytes")));
    }
    let mut seal = Vec::new();
    if let Err(error) = file.range(0, MAX_SEAL).read_to_end(&mut seal) {
        let path = layout.path().join(SEAL_FILE).display().to_string();
        return Err(LayoutError::Io { path, error });
    }
    Ok(match sealed_by(trust, &layout.index()?.digest, &seal) {
        Ok(key) => Seal::Holds(key),
        Err(error) => Seal::Broken(error.to_string()),
    })
}
