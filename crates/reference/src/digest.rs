//! Content digests as the OCI image specification writes them.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest as hash;
use serde::{Deserialize, Serialize};

/// A hash function that registries and runtimes agree on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// SHA-256, 64 hexadecimal characters.
    Sha256,
    /// SHA-512, 128 hexadecimal characters.
    Sha512,
}

impl Algorithm {
    /// The name before the colon.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    /// How many hexadecimal characters a digest of this algorithm has.
    pub const fn hex_length(self) -> usize {
        match self {
            Self::Sha256 => 64,
            Self::Sha512 => 128,
        }
    }

    fn hash(self) -> &'static hash::Algorithm {
        match self {
            Self::Sha256 => &hash::SHA256,
            Self::Sha512 => &hash::SHA512,
        }
    }
}

/// A digest whose algorithm is known and whose encoding is exact.
///
/// Equality of two values is equality of the content they name. `sha384`, upper-case
/// hexadecimal and wrong lengths are errors (go-digest, `algorithm.go`); so is anything
/// with a path separator, which is what keeps a digest usable as a file name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest {
    algorithm: Algorithm,
    hex: Box<str>,
}

impl Digest {
    /// Parses `algorithm:hex`.
    pub fn parse(text: &str) -> Result<Self, DigestError> {
        let (name, hex) = text.split_once(':').ok_or_else(|| DigestError::NoAlgorithm(shown(text)))?;
        let algorithm = match name {
            "sha256" => Algorithm::Sha256,
            "sha512" => Algorithm::Sha512,
            _ => return Err(DigestError::Algorithm(shown(name))),
        };
        if hex.len() != algorithm.hex_length() {
            let (expected, found) = (algorithm.hex_length(), hex.len());
            return Err(DigestError::Length { algorithm: algorithm.name(), expected, found });
        }
        if !hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(DigestError::NotLowerHex(shown(hex)));
        }
        Ok(Self { algorithm, hex: hex.into() })
    }

    /// The SHA-256 digest of these bytes.
    pub fn sha256_of(bytes: &[u8]) -> Self {
        Self::of(Algorithm::Sha256, bytes)
    }

    /// The digest of these bytes.
    pub fn of(algorithm: Algorithm, bytes: &[u8]) -> Self {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(bytes);
        hasher.finish()
    }

    /// Whether these bytes are the content that the digest names.
    pub fn is_of(&self, bytes: &[u8]) -> bool {
        Self::of(self.algorithm, bytes) == *self
    }

    /// The hash function.
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The lower-case hexadecimal part.
    pub fn hex(&self) -> &str {
        &self.hex
    }

    /// The tag under which registries without a referrers API keep the list of referrers
    /// (OCI distribution-spec 1.1, Referrers Tag Schema: the encoded part is cut to 64
    /// characters, so a `sha512` tag may be shared and `subject` has to be compared).
    pub fn referrers_tag(&self) -> String {
        format!("{}-{}", self.algorithm.name(), &self.hex[..64])
    }

    /// The tag under which cosign keeps simple-signing signatures: `sha256-<hex>.sig`.
    pub fn signature_tag(&self) -> String {
        format!("{}-{}.sig", self.algorithm.name(), self.hex)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm.name(), self.hex)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = DigestError;
    fn from_str(text: &str) -> Result<Self, DigestError> {
        Self::parse(text)
    }
}

impl TryFrom<String> for Digest {
    type Error = DigestError;
    fn try_from(text: String) -> Result<Self, DigestError> {
        Self::parse(&text)
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

/// Hashes content that arrives in pieces.
pub struct Hasher {
    algorithm: Algorithm,
    context: hash::Context,
}

impl Hasher {
    /// A hasher that has seen nothing yet.
    pub fn new(algorithm: Algorithm) -> Self {
        Self { algorithm, context: hash::Context::new(algorithm.hash()) }
    }

    /// Adds the next piece.
    pub fn update(&mut self, bytes: &[u8]) {
        self.context.update(bytes);
    }

    /// The digest of everything seen.
    pub fn finish(self) -> Digest {
        let hex = hex::encode(self.context.finish());
        Digest { algorithm: self.algorithm, hex: hex.into() }
    }
}

/// Why a text is not a digest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DigestError {
    /// There is no `:`.
    #[error("`{0}` is not a digest: expected `sha256:` and 64 hexadecimal characters")]
    NoAlgorithm(String),
    /// The algorithm cannot be verified here.
    #[error("digest algorithm `{0}` is not supported: expected sha256 or sha512")]
    Algorithm(String),
    /// Too short or too long.
    #[error("a {algorithm} digest has {expected} hexadecimal characters, this one has {found}")]
    Length {
        /// The algorithm as written.
        algorithm: &'static str,
        /// Characters it must have.
        expected: usize,
        /// Characters it has.
        found: usize,
    },
    /// Upper case or not hexadecimal at all.
    #[error("digest `{0}` is not lower-case hexadecimal")]
    NotLowerHex(String),
}

/// At most 80 characters of outside text for a message.
pub(crate) fn shown(text: &str) -> String {
    let mut end = text.len().min(80);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let cut = if end < text.len() { "…" } else { "" };
    format!("{}{cut}", text[..end].escape_debug())
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn hashes_what_it_names() {
        assert_eq!(Digest::sha256_of(b"").to_string(), EMPTY);
        let digest = Digest::parse(EMPTY).unwrap();
        assert!(digest.is_of(b"") && !digest.is_of(b"x"));
        let mut pieces = Hasher::new(Algorithm::Sha512);
        pieces.update(b"a");
        pieces.update(b"b");
        assert_eq!(pieces.finish(), Digest::of(Algorithm::Sha512, b"ab"));
    }

    #[test]
    fn tags_of_a_digest() {
        let digest = Digest::of(Algorithm::Sha512, b"");
        assert_eq!(digest.referrers_tag().len(), "sha512-".len() + 64);
        assert!(Digest::sha256_of(b"").signature_tag().ends_with("b855.sig"));
    }
}
