//! Signatures that must not pass, each test named after the attack of `docs/attacks.md`.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign_reference::Digest;
use countersign_signature::sign::{Scheme, Signer};
use countersign_signature::{
    BUNDLE_MEDIA_TYPE, Judge, Limits, Located, Material, SIGNATURE_ANNOTATION, Terms, Trust, TrustError,
};
use countersign_verdict::{Attestor, AttestorSet, Attestors, Code, KeyAttestor};
use serde_json::{Value, json};

const STATEMENT: &str = "application/vnd.in-toto+json";
const SIGN: &str = "https://sigstore.dev/cosign/sign/v1";

fn image() -> Digest {
    Digest::sha256_of(b"an image")
}

fn signer() -> Signer {
    Signer::generate(Scheme::EcdsaP256).unwrap()
}

fn by(signer: &Signer) -> Attestors {
    Attestors::any_of_keys(&signer.public_pem())
}

fn keys(pem: &str) -> Attestor {
    Attestor::Keys(KeyAttestor::of(pem))
}

fn set(count: usize, entries: Vec<Attestor>) -> Attestors {
    Attestors::new(vec![AttestorSet { count: Some(count), entries }])
}

/// Whether the attestors are satisfied in the end, and what was said of each signature.
fn judge(attestors: &Attestors, materials: &[Material]) -> (bool, Vec<Code>) {
    let (trust, image) = (Trust::new(attestors).unwrap(), image());
    let mut judge = Judge::new(&trust, &image, Terms::within(Limits::DEFAULT));
    let mut satisfied = false;
    for material in materials {
        let located = Located { at: "test".into(), artifact: "signature".into(), material: material.clone() };
        satisfied = judge.add(&located).is_some();
    }
    (satisfied, judge.checks().iter().map(|check| check.code).collect())
}

/// A statement about the image, of this type.
fn statement(predicate_type: &str) -> Value {
    json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{ "digest": { "sha256": image().hex() } }],
        "predicateType": predicate_type,
        "predicate": {},
    })
}

/// A bundle over any bytes of any type, with a signature that is good.
fn envelope(signer: &Signer, payload_type: &str, body: &[u8]) -> Value {
    let head = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), body.len());
    let signature = signer.sign(&[head.as_bytes(), body].concat()).unwrap();
    json!({
        "mediaType": BUNDLE_MEDIA_TYPE,
        "verificationMaterial": { "publicKey": { "hint": "" } },
        "dsseEnvelope": {
            "payload": STANDARD.encode(body),
            "payloadType": payload_type,
            "signatures": [{ "sig": STANDARD.encode(signature) }],
        },
    })
}

fn material(bundle: &Value) -> Material {
    Material::Bundle { json: bundle.to_string().into_bytes() }
}

/// A payload with the signature of other bytes.
fn payload_signed_as(signer: &Signer, payload: &[u8], signed: &[u8]) -> Material {
    let signature = STANDARD.encode(signer.sign(signed).unwrap());
    let annotations = BTreeMap::from([(SIGNATURE_ANNOTATION.to_owned(), signature)]);
    Material::CosignSig { payload: payload.to_vec(), annotations }
}

fn payload() -> Value {
    json!({ "critical": {
        "identity": { "docker-reference": "a.b/c" },
        "image": { "docker-manifest-digest": image().to_string() },
        "type": "cosign container image signature",
    }, "optional": null })
}

#[test]
fn t_09_an_attestation_is_not_a_signature() {
    let signer = signer();
    let of = |predicate_type: &str| signer.bundle_of(&statement(predicate_type)).unwrap();
    let others = [
        "https://spdx.dev/Document",
        "https://slsa.dev/provenance/v1",
        "https://countersign.dev/bundle-index/v1",
        "https://sigstore.dev/cosign/sign/v1x",
        "HTTPS://sigstore.dev/cosign/sign/v1",
        "",
    ];
    for other in others {
        assert_eq!(judge(&by(&signer), &[of(other)]), (false, vec![Code::WrongPredicate]), "{other}");
    }
    assert!(!judge(&by(&signer), &others.map(of)).0, "nor are many of them");
    assert!(judge(&by(&signer), &[of(SIGN)]).0);
    // What is attested in a predicate is not what `cosign sign` says.
    let mut with_content = statement(SIGN);
    with_content["predicate"] = json!({ "x": 1 });
    let found = judge(&by(&signer), &[signer.bundle_of(&with_content).unwrap()]);
    assert_eq!(found, (false, vec![Code::UnsupportedFormat]));
    // The other way about: a payload of another type that the same key has signed.
    let mut other = payload();
    other["critical"]["type"] = json!("atomic container signature");
    let other = signer.cosign_sig_of(other.to_string().into_bytes()).unwrap();
    assert_eq!(judge(&by(&signer), &[other]), (false, vec![Code::WrongType]));
}

#[test]
fn t_10_what_cannot_be_read_is_a_no() {
    let signer = signer();
    let body = statement(SIGN).to_string();
    let good = envelope(&signer, STATEMENT, body.as_bytes());
    assert!(judge(&by(&signer), &[material(&good)]).0, "the rest differs in one thing");

    // Each with a signature that is good over what it carries.
    let list = json!(["https://in-toto.io/Statement/v1", [[{ "sha256": image().hex() }]], SIGN, {}]);
    let twice = body.replacen('{', r#"{"predicateType":"https://spdx.dev/Document","#, 1);
    let mut other_type = statement(SIGN);
    other_type["_type"] = json!("https://in-toto.io/Statement/v2");
    let mut no_subject = statement(SIGN);
    no_subject["subject"] = json!([]);
    for (payload_type, body, code) in [
        ("text/plain", body.clone().into_bytes(), Code::WrongType),
        ("application/vnd.in-toto+json ", body.clone().into_bytes(), Code::WrongType),
        ("", body.clone().into_bytes(), Code::WrongType),
        (STATEMENT, body.as_bytes()[..body.len() - 1].to_vec(), Code::Malformed),
        (STATEMENT, [body.as_bytes(), b"{}"].concat(), Code::Malformed),
        (STATEMENT, [b"\xff\xfe", body.as_bytes()].concat(), Code::Malformed),
        (STATEMENT, body.replace("sign/v1", "sign/v1\\ud800").into_bytes(), Code::Malformed),
        (STATEMENT, list.to_string().into_bytes(), Code::Malformed),
        (STATEMENT, twice.into_bytes(), Code::Malformed),
        (STATEMENT, other_type.to_string().into_bytes(), Code::WrongType),
        (STATEMENT, no_subject.to_string().into_bytes(), Code::DigestMismatch),
        (STATEMENT, Vec::new(), Code::Malformed),
    ] {
        let shown = String::from_utf8_lossy(&body).into_owned();
        let bundle = material(&envelope(&signer, payload_type, &body));
        assert_eq!(judge(&by(&signer), &[bundle]), (false, vec![code]), "{payload_type} {shown}");
    }

    let parts = [&good["mediaType"], &good["verificationMaterial"], &good["dsseEnvelope"]];
    assert_eq!(judge(&by(&signer), &[material(&json!(parts))]).1, [Code::Malformed], "a list");
    let mut newer = good.clone();
    newer["mediaType"] = json!("application/vnd.dev.sigstore.bundle.v0.4+json");
    assert_eq!(judge(&by(&signer), &[material(&newer)]).1, [Code::UnsupportedFormat]);

    // Cut off anywhere.
    let Material::CosignSig { payload, annotations } =
        signer.cosign_sig(&image(), "a.b/c", &BTreeMap::new()).unwrap()
    else {
        unreachable!()
    };
    let bundle = good.to_string();
    for length in 0..bundle.len() {
        let cut = Material::Bundle { json: bundle.as_bytes()[..length].to_vec() };
        assert_eq!(judge(&by(&signer), &[cut]), (false, vec![Code::Malformed]), "{length}");
    }
    for length in 0..payload.len() {
        let cut = payload_signed_as(&signer, &payload[..length], &payload[..length]);
        assert_eq!(judge(&by(&signer), &[cut]), (false, vec![Code::Malformed]), "{length}");
    }
    assert!(judge(&by(&signer), &[Material::CosignSig { payload, annotations }]).0);
}

#[test]
fn t_13_the_policy_picks_the_method() {
    let (own, stranger) = (signer(), signer());
    let body = statement(SIGN).to_string();
    let bundle = |signer: &Signer, verification: Value| {
        let mut bundle = envelope(signer, STATEMENT, body.as_bytes());
        bundle["verificationMaterial"] = verification;
        material(&bundle)
    };
    let der = |signer: &Signer| pem::parse(signer.public_pem()).unwrap().into_contents();
    let hint = |signer: &Signer| STANDARD.encode(hex::decode(Digest::sha256_of(&der(signer)).hex()).unwrap());
    // A key that a bundle brings, or names as the policy's, makes no signature good.
    for verification in [
        json!({ "publicKey": { "hint": hint(&own) } }),
        json!({ "publicKey": { "hint": hint(&stranger) } }),
        json!({ "publicKey": { "hint": stranger.public_pem() } }),
        json!({ "publicKey": { "hint": "", "rawBytes": STANDARD.encode(der(&stranger)) } }),
        json!({ "publicKey": {}, "certificate": { "rawBytes": STANDARD.encode(der(&stranger)) } }),
    ] {
        let found = judge(&by(&own), &[bundle(&stranger, verification.clone())]);
        assert_eq!(found, (false, vec![Code::KeyMismatch]), "{verification}");
    }
    // What is for a certificate is not for a key, whoever has signed it.
    for verification in [
        json!({ "certificate": { "rawBytes": STANDARD.encode(der(&own)) } }),
        json!({ "x509CertificateChain": { "certificates": [] } }),
        json!({}),
    ] {
        for signer in [&own, &stranger] {
            let found = judge(&by(&own), &[bundle(signer, verification.clone())]);
            assert_eq!(found, (false, vec![Code::UnsupportedFormat]), "{verification}");
        }
    }
    // Nor is the certificate read that stands beside a payload.
    let Material::CosignSig { payload, mut annotations } =
        stranger.cosign_sig(&image(), "a.b/c", &BTreeMap::new()).unwrap()
    else {
        unreachable!()
    };
    for name in ["dev.sigstore.cosign/certificate", "dev.sigstore.cosign/chain"] {
        annotations.insert(name.to_owned(), stranger.public_pem());
    }
    let found = judge(&by(&own), &[Material::CosignSig { payload, annotations }]);
    assert_eq!(found, (false, vec![Code::KeyMismatch]));
    // The policy's key is found whatever the hint says.
    for wrong in [hint(&stranger), "?".to_owned()] {
        assert!(judge(&by(&own), &[bundle(&own, json!({ "publicKey": { "hint": wrong } }))]).0);
    }
}

#[test]
fn t_17_one_key_is_one_however_often_it_is_named_or_signs() {
    let (a, b) = (signer(), signer());
    let bundle = |signer: &Signer| signer.bundle(&image(), &BTreeMap::new()).unwrap();
    let sig = |signer: &Signer| signer.cosign_sig(&image(), "a.b/c", &BTreeMap::new()).unwrap();
    let (pem_a, pem_b) = (a.public_pem(), b.public_pem());

    // Two of a key that is named twice, and another one.
    for entries in [
        vec![keys(&pem_a), keys(&pem_a), keys(&pem_b)],
        vec![keys(&format!("{pem_a}{pem_a}{pem_b}"))],
        vec![keys(&format!("{pem_a}{pem_b}")), keys(&pem_a)],
    ] {
        let two = set(2, entries);
        assert!(!judge(&two, &[bundle(&a), sig(&a), bundle(&a), sig(&a)]).0, "one key, four signatures");
        assert!(judge(&two, &[bundle(&a), sig(&b)]).0);
    }
    // One RSA key in its two encodings.
    let rsa = Signer::generate(Scheme::Rsa2048).unwrap();
    let spki = pem::parse(rsa.public_pem()).unwrap().into_contents();
    // The header of a SubjectPublicKeyInfo of this size, before the PKCS #1 key.
    let old = pem::encode(&pem::Pem::new("RSA PUBLIC KEY", spki[24..].to_vec()));
    let both = set(2, vec![keys(&rsa.public_pem()), keys(&old), keys(&pem_b)]);
    assert!(!judge(&both, &[bundle(&rsa), sig(&rsa)]).0);
    assert!(judge(&both, &[bundle(&rsa), bundle(&b)]).0);

    // Thresholds that cannot be met, or that nothing has to meet.
    for (count, entries) in [(0, vec![keys(&pem_a)]), (2, vec![keys(&pem_a), keys(&pem_a)])] {
        assert!(matches!(Trust::new(&set(count, entries)), Err(TrustError::Count { .. })), "{count}");
    }
    assert!(matches!(Trust::new(&set(0, vec![])), Err(TrustError::NoKeys)));
    assert!(matches!(Trust::new(&Attestors::new(vec![])), Err(TrustError::NoKeys)));
    // Nor may one key count by way of two sets.
    let nested = |pem: &str| Attestor::Set(AttestorSet { count: Some(1), entries: vec![keys(pem)] });
    for entries in [vec![nested(&pem_a), nested(&pem_a)], vec![keys(&pem_a), nested(&pem_a)]] {
        assert!(matches!(Trust::new(&set(2, entries)), Err(TrustError::Overlap { .. })));
    }
    let each = set(2, vec![nested(&pem_a), nested(&pem_b)]);
    assert!(!judge(&each, &[bundle(&a), sig(&a)]).0);
    assert!(judge(&each, &[bundle(&a), bundle(&b)]).0);
}

#[test]
fn t_19b_the_bytes_verified_are_the_bytes_received() {
    let signer = signer();
    // As no writer of JSON would write it again: order, spaces, escapes, a field that is not ours.
    let text = payload().to_string();
    let odd = format!("\n {} \t", text.replace("cosign container", "\\u0063osign container"))
        .replace("\"optional\":null", "\"z\" : 1 ,\r\n \"optional\" : null,\"b\":[ ]");
    assert_ne!(text, odd);
    let (plain, odd) = (text.as_bytes(), odd.as_bytes());
    for (payload, signed, good) in
        [(plain, plain, true), (odd, odd, true), (odd, plain, false), (plain, odd, false)]
    {
        let found = judge(&by(&signer), &[payload_signed_as(&signer, payload, signed)]);
        assert_eq!(found.0, good, "{:?}", String::from_utf8_lossy(payload));
    }
    // What one writes out of the other is not what was signed.
    let again: Value = serde_json::from_slice(odd).unwrap();
    let again = again.to_string();
    let found = judge(&by(&signer), &[payload_signed_as(&signer, odd, again.as_bytes())]);
    assert_eq!(found, (false, vec![Code::KeyMismatch]));

    let body = format!(" {} ", statement(SIGN));
    assert!(judge(&by(&signer), &[material(&envelope(&signer, STATEMENT, body.as_bytes()))]).0);
    let mut bundle = envelope(&signer, STATEMENT, body.as_bytes());
    bundle["dsseEnvelope"]["payload"] = json!(STANDARD.encode(body.trim()));
    assert_eq!(judge(&by(&signer), &[material(&bundle)]), (false, vec![Code::KeyMismatch]));

    // Nothing in a list of signatures is no signature.
    let good = envelope(&signer, STATEMENT, body.as_bytes());
    let sig = &good["dsseEnvelope"]["signatures"][0];
    for signatures in [
        json!([]),
        json!([sig, sig]),
        json!([{ "sig": "" }]),
        json!([{ "sig": "!" }]),
        json!([{}]),
        json!(null),
    ] {
        let mut bundle = good.clone();
        bundle["dsseEnvelope"]["signatures"] = signatures.clone();
        assert_eq!(judge(&by(&signer), &[material(&bundle)]), (false, vec![Code::Malformed]), "{signatures}");
    }
    for (name, value, code) in [
        (
            "verificationMaterial",
            json!({ "x509CertificateChain": { "certificates": [] } }),
            Code::UnsupportedFormat,
        ),
        ("verificationMaterial", json!({ "certificate": { "rawBytes": "" } }), Code::UnsupportedFormat),
        ("verificationMaterial", json!(null), Code::Malformed),
        ("dsseEnvelope", json!(null), Code::UnsupportedFormat),
    ] {
        let mut bundle = good.clone();
        bundle[name] = value;
        assert_eq!(judge(&by(&signer), &[material(&bundle)]), (false, vec![code]), "{bundle}");
    }
}

#[test]
fn t_40_sizes_are_looked_at_before_content() {
    let signer = signer();
    let most = Limits::DEFAULT.material_bytes;
    let good = envelope(&signer, STATEMENT, statement(SIGN).to_string().as_bytes());
    let padded = |length: usize| {
        let json = good.to_string();
        Material::Bundle { json: format!("{json}{}", " ".repeat(length - json.len())).into_bytes() }
    };
    assert!(judge(&by(&signer), &[padded(most)]).0, "at the limit");
    let limit = (false, vec![Code::LimitReached]);
    assert_eq!(judge(&by(&signer), &[padded(most + 1)]), limit);
    let long = vec![b' '; most + 1];
    assert_eq!(judge(&by(&signer), &[payload_signed_as(&signer, &long, b"")]), limit);

    // Within it: what is nested deeper than any writer does, and lists as long as there is room for.
    let deep = |open: &str, close: &str| {
        let count = most / 4 / open.len();
        format!("{}{}", open.repeat(count), close.repeat(count))
    };
    for (open, close) in [("[", "]"), ("{\"a\":", "}"), ("[", "")] {
        let nested = deep(open, close);
        let predicate =
            statement(SIGN).to_string().replace("\"predicate\":{}", &format!("\"predicate\":{nested}"));
        for material in [
            Material::Bundle { json: nested.clone().into_bytes() },
            material(&envelope(&signer, STATEMENT, predicate.as_bytes())),
            payload_signed_as(&signer, nested.as_bytes(), b""),
        ] {
            assert_eq!(judge(&by(&signer), &[material]), (false, vec![Code::Malformed]), "{open}");
        }
    }
    let mut chain = good.clone();
    chain["verificationMaterial"]["x509CertificateChain"] =
        json!({ "certificates": vec![json!({ "rawBytes": "MAA=" }); 20_000] });
    assert!(judge(&by(&signer), &[material(&chain)]).0, "no certificate is read");
    let mut subjects = statement(SIGN);
    let other = json!({ "digest": { "sha256": "0".repeat(64) } });
    let own = subjects["subject"][0].clone();
    for (others, code) in [(1023, Code::SignatureValid), (1024, Code::LimitReached)] {
        subjects["subject"] = json!([vec![other.clone(); others], vec![own.clone()]].concat());
        let found = judge(&by(&signer), &[signer.bundle_of(&subjects).unwrap()]);
        assert_eq!(found.1, [code], "{others}");
    }
}
