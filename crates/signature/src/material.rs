//! Signatures as they are kept, and as they are judged.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use countersign_reference::Digest;
use countersign_verdict::{Code, Format};
use serde::{Deserialize, Serialize};

use crate::{bundle, payload};

/// Media type of a layer that is a simple-signing payload.
pub const SIMPLE_SIGNING_MEDIA_TYPE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// Annotation of such a layer: base64 of the signature over the payload.
pub const SIGNATURE_ANNOTATION: &str = "dev.cosignproject.cosign/signature";
/// Media type of a bundle, and artifact type of the manifest that carries it.
pub const BUNDLE_MEDIA_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
/// What every media type of a bundle starts with.
pub const BUNDLE_MEDIA_TYPE_PREFIX: &str = "application/vnd.dev.sigstore.bundle";

/// How much is looked at for one image. Reaching a limit refuses that image alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a payload or bundle. Default 1 MiB.
    pub material_bytes: usize,
    /// Signatures of one image, over all sources. Default 64.
    pub signatures: usize,
    /// Public-key operations for one image. Default 512, some 26 ms with P-256.
    pub operations: usize,
    /// Subjects of one statement. Default 1024, as sigstore-go.
    pub subjects: usize,
}

impl Limits {
    /// The defaults, which leave room for every image that is signed in practice.
    pub const DEFAULT: Self =
        Self { material_bytes: 1 << 20, signatures: 64, operations: 512, subjects: 1024 };
}

/// A signature as a registry, a layout or a bundle keeps it: bytes that nobody has judged yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Material {
    /// A layer of a `.sig` manifest.
    CosignSig {
        /// The blob.
        payload: Vec<u8>,
        /// The layer's annotations.
        annotations: BTreeMap<String, String>,
    },
    /// A sigstore bundle.
    Bundle {
        /// The blob.
        json: Vec<u8>,
    },
}

impl Material {
    /// The shape.
    pub fn format(&self) -> Format {
        match self {
            Self::CosignSig { .. } => Format::CosignSig,
            Self::Bundle { .. } => Format::SigstoreBundle,
        }
    }

    /// Whether it claims to be a signature of this image; whether it is a good one is for a
    /// [`Judge`](crate::Judge).
    ///
    /// # Errors
    ///
    /// Says what it is instead.
    pub fn speaks_of(&self, image: &Digest) -> Result<(), String> {
        self.read(image, &Limits::DEFAULT).map(|_| ()).map_err(|flaw| flaw.detail)
    }

    /// Tells contents apart: everything that is judged goes into it.
    pub(crate) fn id(&self) -> Digest {
        match self {
            Self::Bundle { json } => Digest::sha256_of(json),
            Self::CosignSig { payload, annotations } => {
                let signature = annotations.get(SIGNATURE_ANNOTATION).map(String::as_bytes);
                Digest::sha256_of(&[payload, b"\0".as_slice(), signature.unwrap_or_default()].concat())
            }
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::CosignSig { payload, .. } => payload,
            Self::Bundle { json } => json,
        }
    }

    /// What is signed here and how, provided that it speaks of this image.
    pub(crate) fn read(&self, image: &Digest, limits: &Limits) -> Result<Candidate, Flaw> {
        if self.bytes().len() > limits.material_bytes {
            let detail = format!("larger than {} bytes", limits.material_bytes);
            return Err(Flaw::new(Code::LimitReached, detail));
        }
        match self {
            Self::CosignSig { payload, annotations } => payload::read(payload, annotations, image),
            Self::Bundle { json } => bundle::read(json, image, bundle::SIGN_PREDICATE, limits),
        }
    }
}

/// A signature that speaks of the image in question; whether it is a good one is not known yet.
#[derive(Debug)]
pub(crate) struct Candidate {
    /// The bytes that were signed.
    pub(crate) signed: Vec<u8>,
    /// The raw signature.
    pub(crate) signature: Vec<u8>,
    /// What the signed bytes say besides.
    pub(crate) annotations: BTreeMap<String, String>,
    /// Which image the signer says that it is, where a name was put in.
    pub(crate) name: Option<String>,
    /// Which key is said to have made it: tried first, believed never.
    pub(crate) hint: Option<String>,
}

/// Why a material is no candidate.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Flaw {
    pub(crate) code: Code,
    pub(crate) detail: String,
}

impl Flaw {
    pub(crate) fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into() }
    }

    pub(crate) fn malformed(detail: impl Into<String>) -> Self {
        Self::new(Code::Malformed, detail)
    }
}

/// Standard or URL-safe base64, padded or not: the DSSE and protojson rules allow all four. Line breaks
/// are passed over, as by Go: `base64` writes them, and `cosign attach signature` leaves them.
pub(crate) fn base64(text: &str) -> Option<Vec<u8>> {
    const CONFIG: GeneralPurposeConfig =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let text = text.trim().replace(['\r', '\n'], "");
    let alphabet = if text.contains(['-', '_']) { &URL_SAFE } else { &STANDARD };
    GeneralPurpose::new(alphabet, CONFIG).decode(&text).ok()
}
