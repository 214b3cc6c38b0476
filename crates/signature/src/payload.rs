//! cosign's simple-signing payload (cosign `SIGNATURE_SPEC.md`, sigstore `payload.go`).

use std::collections::BTreeMap;

use countersign_reference::Digest;
use countersign_verdict::Code;
use serde::Deserialize;

use crate::material::{Candidate, Flaw, SIGNATURE_ANNOTATION, base64};
use crate::object::{Fields, Object};

/// `critical.type` of an image signature. Without this check any JSON that the same key has
/// signed and that happens to have these fields would pass.
pub(crate) const TYPE: &str = "cosign container image signature";

#[derive(Deserialize)]
struct Payload {
    critical: Object<Critical>,
    #[serde(default)]
    optional: Option<Fields<serde_json::Value>>,
}

#[derive(Deserialize)]
struct Critical {
    #[serde(default)]
    identity: Option<Object<Identity>>,
    image: Object<Image>,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
struct Identity {
    #[serde(rename = "docker-reference", default)]
    reference: Option<String>,
}

#[derive(Deserialize)]
struct Image {
    #[serde(rename = "docker-manifest-digest")]
    digest: String,
}

/// Reads a `.sig` layer. Field order and white space are not canonical, so the signature is
/// over the bytes as they are.
pub(crate) fn read(
    payload: &[u8],
    annotations: &BTreeMap<String, String>,
    image: &Digest,
) -> Result<Candidate, Flaw> {
    let signature = annotations
        .get(SIGNATURE_ANNOTATION)
        .ok_or_else(|| Flaw::malformed(format!("the layer has no annotation `{SIGNATURE_ANNOTATION}`")))?;
    let signature = base64(signature).filter(|raw| !raw.is_empty());
    let signature = signature.ok_or_else(|| Flaw::malformed("the signature is not base64"))?;
    let Object(Payload { critical: Object(critical), optional }) = serde_json::from_slice(payload)
        .map_err(|error| Flaw::malformed(format!("the payload is not a signature payload: {error}")))?;
    if critical.kind != TYPE {
        let kind: String = critical.kind.chars().take(60).collect();
        return Err(Flaw::new(Code::WrongType, format!("the payload is of type `{kind}`")));
    }
    let digest = Digest::parse(&critical.image.0.digest)
        .map_err(|error| Flaw::malformed(format!("the payload's digest: {error}")))?;
    if digest != *image {
        return Err(Flaw::new(Code::DigestMismatch, format!("it signs {digest}")));
    }
    let annotations = optional.map(|fields| fields.0).unwrap_or_default();
    let annotations = annotations.into_iter().filter_map(|(key, value)| match value {
        serde_json::Value::String(text) => Some((key, text)),
        _ => None,
    });
    let name = critical.identity.and_then(|Object(identity)| identity.reference);
    Ok(Candidate {
        signed: payload.to_vec(),
        signature,
        annotations: annotations.collect(),
        name: name.filter(|name| !name.is_empty()),
        hint: None,
    })
}
