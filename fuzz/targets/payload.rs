//! A cosign `.sig` layer: the first line is the signature of its annotation, the rest is the payload.
#![no_main]

use countersign_signature::{Material, SIGNATURE_ANNOTATION};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut parts = bytes.splitn(2, |byte| *byte == b'\n');
    let (signature, payload) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let Ok(signature) = std::str::from_utf8(signature) else { return };
    countersign_fuzz::never_verified(Material::CosignSig {
        payload: payload.to_vec(),
        annotations: [(SIGNATURE_ANNOTATION.to_owned(), signature.to_owned())].into(),
    });
});
