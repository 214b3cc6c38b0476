//! Sigstore bundle v0.3 with a key (cosign `BUNDLE_SPEC.md`, protobuf-specs `sigstore_bundle.proto`).
//!
//! The JSON is protojson: lowerCamelCase or the original snake_case, nulls stand for absence,
//! bytes are base64 of either alphabet. Transparency-log entries and timestamps may be present;
//! a policy for keys does not ask for them, and nothing is concluded from them.

use countersign_reference::{Digest, Reference};
use countersign_verdict::Code;
use serde::Deserialize;

use crate::material::{BUNDLE_MEDIA_TYPE, Candidate, Flaw, Limits, base64};
use crate::object::{Fields, Object};

/// The media type as older writers spell it.
const BUNDLE_MEDIA_TYPE_OLD: &str = "application/vnd.dev.sigstore.bundle+json;version=0.3";
/// What a DSSE envelope of a statement carries.
pub(crate) const STATEMENT_MEDIA_TYPE: &str = "application/vnd.in-toto+json";
/// The predicate type of `cosign sign`: the one statement that is a signature.
pub(crate) const SIGN_PREDICATE: &str = "https://sigstore.dev/cosign/sign/v1";
/// The in-toto statement types there are.
pub(crate) const STATEMENT_TYPES: [&str; 2] =
    ["https://in-toto.io/Statement/v1", "https://in-toto.io/Statement/v0.1"];

#[derive(Deserialize)]
struct Bundle {
    #[serde(rename = "mediaType", alias = "media_type")]
    media_type: String,
    #[serde(rename = "verificationMaterial", alias = "verification_material")]
    material: Object<VerificationMaterial>,
    #[serde(rename = "dsseEnvelope", alias = "dsse_envelope")]
    envelope: Option<Object<Envelope>>,
}

#[derive(Deserialize)]
struct VerificationMaterial {
    #[serde(rename = "publicKey", alias = "public_key")]
    public_key: Option<Object<PublicKeyIdentifier>>,
}

#[derive(Deserialize)]
struct PublicKeyIdentifier {
    #[serde(default)]
    hint: Option<String>,
}

#[derive(Deserialize)]
struct Envelope {
    payload: String,
    // The one name of the schema that is not in snake case there, too.
    #[serde(rename = "payloadType")]
    payload_type: String,
    signatures: Vec<Object<EnvelopeSignature>>,
}

#[derive(Deserialize)]
struct EnvelopeSignature {
    sig: String,
}

#[derive(Deserialize)]
struct Statement {
    #[serde(rename = "_type")]
    kind: String,
    subject: Vec<Object<Subject>>,
    #[serde(rename = "predicateType")]
    predicate_type: String,
    #[serde(default)]
    predicate: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Subject {
    #[serde(default)]
    name: Option<String>,
    digest: Fields<String>,
    #[serde(default)]
    annotations: Option<Fields<serde_json::Value>>,
}

/// Reads a bundle whose statement is of this predicate type.
pub(crate) fn read(json: &[u8], image: &Digest, predicate: &str, limits: &Limits) -> Result<Candidate, Flaw> {
    let Object::<Bundle>(bundle) = serde_json::from_slice(json)
        .map_err(|error| Flaw::malformed(format!("not a sigstore bundle: {error}")))?;
    if bundle.media_type != BUNDLE_MEDIA_TYPE && bundle.media_type != BUNDLE_MEDIA_TYPE_OLD {
        let version: String = bundle.media_type.chars().take(80).collect();
        return Err(Flaw::new(Code::UnsupportedFormat, format!("bundle of type `{version}`")));
    }
    let Some(Object(key)) = bundle.material.0.public_key else {
        return Err(Flaw::new(Code::UnsupportedFormat, "the bundle is for a certificate, not for a key"));
    };
    let Some(Object(envelope)) = bundle.envelope else {
        return Err(Flaw::new(Code::UnsupportedFormat, "the bundle holds no DSSE envelope"));
    };
    if envelope.payload_type != STATEMENT_MEDIA_TYPE {
        let found: String = envelope.payload_type.chars().take(80).collect();
        return Err(Flaw::new(Code::WrongType, format!("the envelope's payload is `{found}`")));
    }
    let [Object(signature)] = envelope.signatures.as_slice() else {
        let count = envelope.signatures.len();
        return Err(Flaw::malformed(format!("the envelope has {count} signatures, not one")));
    };
    let decode = |what: &str, text: &str| {
        let bytes = base64(text).filter(|bytes| !bytes.is_empty());
        bytes.ok_or_else(|| Flaw::malformed(format!("the envelope's {what} is not base64")))
    };
    let signature = decode("signature", &signature.sig)?;
    let body = decode("payload", &envelope.payload)?;
    let subject = statement(&body, image, predicate, limits)?;
    let annotations = subject.annotations.map(|fields| fields.0).unwrap_or_default();
    let annotations = annotations.into_iter().filter_map(|(k, v)| v.as_str().map(|v| (k, v.to_owned())));
    Ok(Candidate {
        signed: pae(&envelope.payload_type, &body),
        signature,
        annotations: annotations.collect(),
        // What is no reference names something else than an image: a file, a package.
        name: subject.name.filter(|name| name.contains('/') && Reference::parse(name).is_ok()),
        hint: key.hint,
    })
}

/// The subject that is this image, if the statement is a signature of it.
fn statement(body: &[u8], image: &Digest, predicate: &str, limits: &Limits) -> Result<Subject, Flaw> {
    let Object::<Statement>(statement) = serde_json::from_slice(body)
        .map_err(|error| Flaw::malformed(format!("the payload is not an in-toto statement: {error}")))?;
    if !STATEMENT_TYPES.contains(&statement.kind.as_str()) {
        return Err(Flaw::new(Code::WrongType, "the payload is not an in-toto statement v0.1 or v1"));
    }
    if statement.predicate_type != predicate {
        let found: String = statement.predicate_type.chars().take(80).collect();
        return Err(Flaw::new(Code::WrongPredicate, format!("an attestation of type `{found}`")));
    }
    match &statement.predicate {
        None | Some(serde_json::Value::Null) => {}
        Some(serde_json::Value::Object(fields)) if fields.is_empty() => {}
        Some(_) => return Err(Flaw::new(Code::UnsupportedFormat, "the signature's predicate is not empty")),
    }
    if statement.subject.len() > limits.subjects {
        return Err(Flaw::new(Code::LimitReached, format!("more than {} subjects", limits.subjects)));
    }
    let name = image.algorithm().name();
    statement
        .subject
        .into_iter()
        .find(|Object(subject)| subject.digest.0.get(name).is_some_and(|hex| hex == image.hex()))
        .map(|Object(subject)| subject)
        .ok_or_else(|| Flaw::new(Code::DigestMismatch, "no subject of the statement is this digest"))
}

/// DSSE v1 pre-authentication encoding: decimal byte lengths, the decoded body.
pub(crate) fn pae(payload_type: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), body.len()).into_bytes();
    bytes.extend_from_slice(body);
    bytes
}
