//! A sigstore bundle, or the statement in one: base64 would hide it from the fuzzer.
#![no_main]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign_fuzz::{never_sealed, never_verified};
use countersign_signature::{BUNDLE_MEDIA_TYPE, Material};
use libfuzzer_sys::fuzz_target;
use serde_json::json;

fuzz_target!(|bytes: &[u8]| {
    never_verified(Material::Bundle { json: bytes.to_vec() });
    never_sealed(bytes);
    let around = json!({
        "mediaType": BUNDLE_MEDIA_TYPE,
        "verificationMaterial": { "publicKey": { "hint": "aGludA==" } },
        "dsseEnvelope": {
            "payload": STANDARD.encode(bytes),
            "payloadType": "application/vnd.in-toto+json",
            "signatures": [{ "sig": "MEUCIQ==" }],
        },
    });
    let around = around.to_string().into_bytes();
    never_sealed(&around);
    never_verified(Material::Bundle { json: around });
});
