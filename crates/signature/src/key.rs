//! Public keys: which there are, and what a signature by each looks like.

use std::fmt;

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::signature::{self as alg, ParsedPublicKey, VerificationAlgorithm};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign_reference::Digest;
use countersign_verdict::HashAlgorithm;

/// Bytes of PEM text that are looked at.
const MAX_PEM_BYTES: usize = 256 * 1024;
/// Keys in one PEM text.
const MAX_KEYS: usize = 64;

/// What kind of key it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// ECDSA on P-256.
    EcdsaP256,
    /// ECDSA on P-384.
    EcdsaP384,
    /// ECDSA on P-521.
    EcdsaP521,
    /// RSA of 2048 to 8192 bits, PKCS #1 v1.5 or PSS.
    Rsa,
    /// Ed25519, pure.
    Ed25519,
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EcdsaP256 => "ECDSA P-256",
            Self::EcdsaP384 => "ECDSA P-384",
            Self::EcdsaP521 => "ECDSA P-521",
            Self::Rsa => "RSA",
            Self::Ed25519 => "Ed25519",
        })
    }
}

impl KeyKind {
    /// The schemes a signature may have been made in, likeliest first.
    ///
    /// cosign signs with SHA-256 whatever the curve, other signers with the hash that belongs
    /// to the curve: both exist for P-384 and P-521, so both are tried.
    fn schemes(self, hash: HashAlgorithm) -> Vec<&'static dyn VerificationAlgorithm> {
        use HashAlgorithm::{Sha256, Sha384, Sha512};
        let p384 = |hash| -> &'static dyn VerificationAlgorithm {
            match hash {
                Sha256 => &alg::ECDSA_P384_SHA256_ASN1,
                Sha384 => &alg::ECDSA_P384_SHA384_ASN1,
                Sha512 => &alg::ECDSA_P384_SHA512_ASN1,
            }
        };
        let p521 = |hash| -> &'static dyn VerificationAlgorithm {
            match hash {
                Sha256 => &alg::ECDSA_P521_SHA256_ASN1,
                Sha384 => &alg::ECDSA_P521_SHA384_ASN1,
                Sha512 => &alg::ECDSA_P521_SHA512_ASN1,
            }
        };
        match (self, hash) {
            (Self::EcdsaP256, Sha256) => vec![&alg::ECDSA_P256_SHA256_ASN1],
            (Self::EcdsaP256, Sha384) => vec![&alg::ECDSA_P256_SHA384_ASN1],
            (Self::EcdsaP256, Sha512) => vec![&alg::ECDSA_P256_SHA512_ASN1],
            (Self::EcdsaP384, Sha384) => vec![p384(Sha384)],
            (Self::EcdsaP384, other) => vec![p384(other), p384(Sha384)],
            (Self::EcdsaP521, Sha512) => vec![p521(Sha512)],
            (Self::EcdsaP521, other) => vec![p521(other), p521(Sha512)],
            (Self::Rsa, Sha256) => vec![&alg::RSA_PKCS1_2048_8192_SHA256, &alg::RSA_PSS_2048_8192_SHA256],
            (Self::Rsa, Sha384) => vec![&alg::RSA_PKCS1_2048_8192_SHA384, &alg::RSA_PSS_2048_8192_SHA384],
            (Self::Rsa, Sha512) => vec![&alg::RSA_PKCS1_2048_8192_SHA512, &alg::RSA_PSS_2048_8192_SHA512],
            (Self::Ed25519, _) => vec![&alg::ED25519],
        }
    }
}

/// A parsed public key.
#[derive(Clone)]
pub struct PublicKey {
    kind: KeyKind,
    parsed: Vec<ParsedPublicKey>,
    fingerprint: Digest,
}

impl PublicKey {
    /// The keys of a PEM text with one or more blocks, for signatures over this hash.
    pub fn all_from_pem(text: &str, hash: HashAlgorithm) -> Result<Vec<Self>, KeyError> {
        if text.len() > MAX_PEM_BYTES {
            return Err(KeyError::TooLarge(MAX_PEM_BYTES));
        }
        let blocks = pem::parse_many(text).map_err(|error| KeyError::Pem(error.to_string()))?;
        if blocks.is_empty() {
            return Err(KeyError::NoBlock);
        }
        if blocks.len() > MAX_KEYS {
            return Err(KeyError::TooMany(MAX_KEYS));
        }
        blocks
            .iter()
            .map(|block| match block.tag() {
                "PUBLIC KEY" | "RSA PUBLIC KEY" => Self::from_der(block.contents(), hash),
                other => Err(KeyError::Label(other.chars().take(40).collect())),
            })
            .collect()
    }

    /// A key from its SubjectPublicKeyInfo (or, for RSA, PKCS #1) encoding.
    pub fn from_der(der: &[u8], hash: HashAlgorithm) -> Result<Self, KeyError> {
        let kinds =
            [KeyKind::EcdsaP256, KeyKind::Rsa, KeyKind::EcdsaP384, KeyKind::EcdsaP521, KeyKind::Ed25519];
        for kind in kinds {
            let parsed: Result<Vec<_>, _> =
                kind.schemes(hash).into_iter().map(|scheme| ParsedPublicKey::new(scheme, der)).collect();
            let Ok(parsed) = parsed else { continue };
            let Some(spki) = parsed.first().and_then(|key| AsDer::<PublicKeyX509Der<'_>>::as_der(key).ok())
            else {
                continue;
            };
            // Raw points and raw Ed25519 keys parse, too; only encodings that name their kind are taken.
            if kind != KeyKind::Rsa && spki.as_ref() != der {
                continue;
            }
            return Ok(Self { kind, fingerprint: Digest::sha256_of(spki.as_ref()), parsed });
        }
        Err(KeyError::Kind)
    }

    /// The kind of key.
    pub fn kind(&self) -> KeyKind {
        self.kind
    }

    /// SHA-256 of the SubjectPublicKeyInfo: what tells keys apart.
    pub fn fingerprint(&self) -> &Digest {
        &self.fingerprint
    }

    /// The fingerprint as sigstore bundles write it in `publicKey.hint`. A hint selects, it proves nothing.
    pub fn hint(&self) -> String {
        hex::decode(self.fingerprint.hex()).map(|raw| STANDARD.encode(raw)).unwrap_or_default()
    }

    /// How many signature operations [`PublicKey::verifies`] may take.
    pub(crate) fn operations(&self) -> usize {
        self.parsed.len()
    }

    /// Whether this key made this signature over this message.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        self.parsed.iter().any(|key| key.verify_sig(message, signature).is_ok())
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.fingerprint)
    }
}

/// Why a text gives no keys.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// Not PEM.
    #[error("the key is not PEM: {0}")]
    Pem(String),
    /// There is no block in the text.
    #[error("there is no PEM block: expected `-----BEGIN PUBLIC KEY-----`")]
    NoBlock,
    /// Another kind of block.
    #[error(
        "a PEM block is `{0}`: expected `PUBLIC KEY` (`openssl x509 -pubkey` takes one out of a certificate)"
    )]
    Label(String),
    /// A key of a kind or size that is not accepted.
    #[error("the key is not RSA of at least 2048 bits, ECDSA on P-256, P-384 or P-521, or Ed25519")]
    Kind,
    /// Too much text.
    #[error("keys are larger than {0} bytes")]
    TooLarge(usize),
    /// Too many keys.
    #[error("there are more than {0} keys in one entry")]
    TooMany(usize),
}
