//! What satisfies a policy and what must not, named after the attack where there is one.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;

use countersign_reference::{Digest, Reference};
use countersign_signature::sign::{Scheme, Signer};
use countersign_signature::{
    Identity, Judge, Limits, Located, Material, Naming, Terms, Time, Trust, TrustError, sealed_by,
};
use countersign_verdict::{Attestor, AttestorSet, Attestors, Code, KeyAttestor, MAX_DETAIL, Period};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

fn image() -> Digest {
    Digest::sha256_of(b"an image")
}

fn signer() -> Signer {
    Signer::generate(Scheme::EcdsaP256).unwrap()
}

fn keys(pem: &str, annotations: &[(&str, &str)]) -> Attestor {
    let annotations = annotations.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    Attestor::Keys(KeyAttestor { annotations, ..KeyAttestor::of(pem) })
}

fn set(count: Option<usize>, entries: Vec<Attestor>) -> Attestors {
    Attestors::new(vec![AttestorSet { count, entries }])
}

/// The code of each signature, and whether the attestors were satisfied in the end.
fn judge(attestors: &Attestors, materials: &[Material]) -> (bool, Vec<Code>) {
    judge_within(attestors, materials, Limits::DEFAULT)
}

fn judge_within(attestors: &Attestors, materials: &[Material], limits: Limits) -> (bool, Vec<Code>) {
    judge_by(attestors, materials, Terms::within(limits))
}

fn judge_by(attestors: &Attestors, materials: &[Material], terms: Terms<'_>) -> (bool, Vec<Code>) {
    let (trust, image) = (Trust::new(attestors).unwrap(), image());
    let mut judge = Judge::new(&trust, &image, terms);
    let mut satisfied = false;
    for material in materials {
        let located = Located { at: "test".into(), artifact: "signature".into(), material: material.clone() };
        satisfied = judge.add(&located).is_some();
    }
    (satisfied, judge.checks().iter().map(|check| check.code).collect())
}

fn none() -> BTreeMap<String, String> {
    BTreeMap::new()
}

#[test]
fn every_kind_of_key_signs_in_both_shapes() {
    let schemes = [
        Scheme::EcdsaP256,
        Scheme::EcdsaP384,
        Scheme::EcdsaP521,
        Scheme::Rsa2048,
        Scheme::Rsa4096,
        Scheme::Rsa3072Pss,
        Scheme::Ed25519,
    ];
    for scheme in schemes {
        let signer = Signer::generate(scheme).unwrap();
        let trusted = Attestors::any_of_keys(&signer.public_pem());
        for material in [signer.cosign_sig(&image(), "a.b/c", &none()), signer.bundle(&image(), &none())] {
            let material = material.unwrap();
            let found = judge(&trusted, std::slice::from_ref(&material));
            assert_eq!(found, (true, vec![Code::SignatureValid]), "{scheme:?} {}", material.format());
            let other = Attestors::any_of_keys(&Signer::generate(Scheme::EcdsaP256).unwrap().public_pem());
            assert_eq!(judge(&other, &[material]), (false, vec![Code::KeyMismatch]), "{scheme:?}");
        }
    }
}

#[test]
fn one_key_of_twenty_is_enough() {
    let signers: Vec<_> = (0..20).map(|_| signer()).collect();
    let pem: String = signers.iter().map(Signer::public_pem).collect();
    let bundle = signers[19].bundle(&image(), &none()).unwrap();
    assert!(judge(&Attestors::any_of_keys(&pem), &[bundle]).0);
}

#[test]
fn t11_a_signature_of_another_image() {
    let (signer, other) = (signer(), Digest::sha256_of(b"another image"));
    let trusted = Attestors::any_of_keys(&signer.public_pem());
    let materials =
        [signer.cosign_sig(&other, "a.b/c", &none()).unwrap(), signer.bundle(&other, &none()).unwrap()];
    assert_eq!(judge(&trusted, &materials), (false, vec![Code::DigestMismatch; 2]));
}

#[test]
fn older_signers_leave_the_predicate_out() {
    let signer = signer();
    let bundle = signer.bundle_of(&json!({
        "_type": "https://in-toto.io/Statement/v0.1",
        "subject": [{ "digest": { "sha256": image().hex() } }],
        "predicateType": "https://sigstore.dev/cosign/sign/v1",
    }));
    assert!(judge(&Attestors::any_of_keys(&signer.public_pem()), &[bundle.unwrap()]).0);
}

#[test]
fn a_list_is_not_an_object_and_no_name_stands_twice() {
    let signer = signer();
    let trusted = Attestors::any_of_keys(&signer.public_pem());
    let (digest, hex, kind) =
        (image().to_string(), image().hex().to_owned(), "cosign container image signature");
    let critical = json!({ "image": { "docker-manifest-digest": digest }, "type": kind });
    assert!(judge(&trusted, &[payload(&signer, &json!({ "critical": critical }).to_string())]).0);
    let mut unread = Vec::new();
    for text in [
        json!([critical, null]).to_string(),
        json!({ "critical": [critical["image"], kind] }).to_string(),
        json!({ "critical": { "image": [digest], "type": kind } }).to_string(),
        json!({ "critical": critical, "optional": {"a": "1"} })
            .to_string()
            .replace("\"1\"", "\"1\",\"a\":\"2\""),
    ] {
        unread.push(payload(&signer, &text));
    }

    let statement = json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{ "digest": { "sha256": hex }, "annotations": { "a": "1" } }],
        "predicateType": "https://sigstore.dev/cosign/sign/v1",
    });
    let good = signer.bundle_of(&statement).unwrap();
    assert!(judge(&trusted, std::slice::from_ref(&good)).0);
    let text = statement.to_string();
    for text in [
        json!([statement["_type"], statement["subject"], statement["predicateType"]]).to_string(),
        text.replace(&statement["subject"].to_string(), &json!([[{ "sha256": hex }]]).to_string()),
        text.replace("\"sha256\"", "\"sha256\":\"\",\"sha256\""),
        text.replace("\"1\"", "\"1\",\"a\":\"2\""),
    ] {
        unread.push(signer.bundle_over("application/vnd.in-toto+json", text.as_bytes()).unwrap());
    }
    let Material::Bundle { json } = good else { unreachable!() };
    let bundle: serde_json::Value = serde_json::from_slice(&json).unwrap();
    let (material, envelope) = (&bundle["verificationMaterial"], &bundle["dsseEnvelope"]);
    let signatures = json!([[envelope["signatures"][0]["sig"]]]);
    for (material, envelope) in [
        (material.clone(), json!([envelope["payload"], envelope["payloadType"], envelope["signatures"]])),
        (json!([material["publicKey"]]), envelope.clone()),
        (
            material.clone(),
            json!({ "payload": envelope["payload"], "payloadType": envelope["payloadType"], "signatures": signatures }),
        ),
    ] {
        let object = json!({
            "mediaType": bundle["mediaType"], "verificationMaterial": material, "dsseEnvelope": envelope,
        });
        unread.push(Material::Bundle { json: object.to_string().into_bytes() });
    }
    let list = json!([bundle["mediaType"], material, envelope]);
    unread.push(Material::Bundle { json: list.to_string().into_bytes() });
    for material in unread {
        let found = judge(&trusted, std::slice::from_ref(&material));
        assert_eq!(found, (false, vec![Code::Malformed]), "{material:?}");
    }
}

fn payload(signer: &Signer, text: &str) -> Material {
    signer.cosign_sig_of(text.as_bytes().to_vec()).unwrap()
}

#[test]
fn protojson_may_be_snake_case() {
    let signer = signer();
    let Material::Bundle { json } = signer.bundle(&image(), &none()).unwrap() else { unreachable!() };
    let text = String::from_utf8(json).unwrap();
    let snake = text
        .replace("mediaType", "media_type")
        .replace("verificationMaterial", "verification_material")
        .replace("publicKey", "public_key")
        .replace("dsseEnvelope", "dsse_envelope");
    let trusted = Attestors::any_of_keys(&signer.public_pem());
    let other = snake.replace("payloadType", "payload_type");
    assert!(judge(&trusted, &[Material::Bundle { json: snake.into_bytes() }]).0);
    assert!(!judge(&trusted, &[Material::Bundle { json: other.into_bytes() }]).0);
}

#[test]
fn base64_may_be_in_lines() {
    let signer = signer();
    let trusted = Attestors::any_of_keys(&signer.public_pem());
    let lines = |text: &str| format!("{}\r\n{}\n", &text[..76], &text[76..]);
    let Material::CosignSig { payload, annotations } = signer.cosign_sig(&image(), "a.b/c", &none()).unwrap()
    else {
        unreachable!()
    };
    let annotations = annotations.into_iter().map(|(name, text)| (name, lines(&text))).collect();
    assert!(judge(&trusted, &[Material::CosignSig { payload, annotations }]).0);
    let Material::Bundle { json } = signer.bundle(&image(), &none()).unwrap() else { unreachable!() };
    let mut bundle: serde_json::Value = serde_json::from_slice(&json).unwrap();
    for text in ["/dsseEnvelope/payload", "/dsseEnvelope/signatures/0/sig"] {
        let text = bundle.pointer_mut(text).unwrap();
        *text = json!(lines(text.as_str().unwrap()));
    }
    assert!(judge(&trusted, &[Material::Bundle { json: bundle.to_string().into_bytes() }]).0);
}

#[test]
fn a_flipped_byte_in_the_signed_bytes_is_noticed() {
    let signer = signer();
    let trusted = Attestors::any_of_keys(&signer.public_pem());
    let Material::CosignSig { payload, annotations } = signer.cosign_sig(&image(), "a.b/c", &none()).unwrap()
    else {
        unreachable!()
    };
    let renamed = String::from_utf8(payload).unwrap().replace("a.b/c", "a.b/d").into_bytes();
    let material = Material::CosignSig { payload: renamed, annotations };
    assert_eq!(judge(&trusted, &[material]), (false, vec![Code::KeyMismatch]));
}

#[test]
fn without_a_count_all_have_to_sign() {
    let (a, b) = (signer(), signer());
    let all = set(None, vec![keys(&format!("{}{}", a.public_pem(), b.public_pem()), &[])]);
    let by = |signer: &Signer| signer.bundle(&image(), &none()).unwrap();
    assert!(!judge(&all, &[by(&a)]).0);
    assert!(judge(&all, &[by(&a), by(&b)]).0);
}

#[test]
fn a_copy_of_a_signature_is_one_signature() {
    let (own, other) = (signer(), signer());
    let by_other = other.bundle(&image(), &none()).unwrap();
    let attestors = Attestors::any_of_keys(&own.public_pem());
    let (ok, codes) = judge(&attestors, &[by_other.clone(), by_other.clone()]);
    assert_eq!((ok, codes), (false, vec![Code::KeyMismatch, Code::SeenBefore]));
    let good = own.bundle(&image(), &none()).unwrap();
    assert!(judge(&attestors, &[by_other.clone(), by_other, good]).0);
    // The same payload with another signature is another one.
    let (bad, good) = (
        other.cosign_sig(&image(), "a/b", &none()).unwrap(),
        own.cosign_sig(&image(), "a/b", &none()).unwrap(),
    );
    assert!(judge(&attestors, &[bad, good]).0);
}

#[test]
fn all_sets_have_to_hold_and_sets_nest() {
    let (a, b, c) = (signer(), signer(), signer());
    let vendor = AttestorSet { count: Some(1), entries: vec![keys(&a.public_pem(), &[])] };
    let site = AttestorSet {
        count: Some(1),
        entries: vec![Attestor::Set(AttestorSet {
            count: Some(1),
            entries: vec![keys(&b.public_pem(), &[]), keys(&c.public_pem(), &[])],
        })],
    };
    let attestors = Attestors::new(vec![vendor, site]);
    let by = |signer: &Signer| signer.bundle(&image(), &none()).unwrap();
    assert!(!judge(&attestors, &[by(&a)]).0);
    assert!(!judge(&attestors, &[by(&b), by(&c)]).0);
    assert!(judge(&attestors, &[by(&a), by(&c)]).0);
}

#[test]
fn annotations_have_to_be_in_one_payload() {
    let signer = signer();
    let demand = set(Some(1), vec![keys(&signer.public_pem(), &[("env", "prod"), ("team", "db")])]);
    let with = |pairs: &[(&str, &str)]| {
        let pairs = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        [signer.cosign_sig(&image(), "a.b/c", &pairs).unwrap(), signer.bundle(&image(), &pairs).unwrap()]
    };
    for shape in [0, 1] {
        let separate = [with(&[("env", "prod")])[shape].clone(), with(&[("team", "db")])[shape].clone()];
        assert_eq!(judge(&demand, &separate), (false, vec![Code::AnnotationMismatch; 2]));
        assert!(judge(&demand, &with(&[("env", "prod"), ("team", "db")])[shape..=shape]).0);
    }
}

#[test]
fn t37_limits_are_reached_at_their_edge() {
    let signer = signer();
    let trusted = Attestors::any_of_keys(&signer.public_pem());
    let good = signer.bundle(&image(), &none()).unwrap();
    let stranger = Signer::generate(Scheme::EcdsaP256).unwrap();
    let bad = || stranger.bundle(&image(), &none()).unwrap();
    let limits = Limits { signatures: 3, ..Limits::DEFAULT };
    let many = |n: usize| (0..n).map(|_| bad()).chain([good.clone()]).collect::<Vec<_>>();
    let copies = [vec![bad(); 3], vec![good.clone()]].concat();
    assert_eq!(judge_within(&trusted, &copies, limits).1.last(), Some(&Code::LimitReached), "copies count");
    assert!(judge_within(&trusted, &many(2), limits).0);
    assert_eq!(judge_within(&trusted, &many(3), limits).1.last(), Some(&Code::LimitReached));
    let limits = Limits { operations: 3, ..Limits::DEFAULT };
    assert!(judge_within(&trusted, &many(2), limits).0);
    assert_eq!(judge_within(&trusted, &many(3), limits).1.last(), Some(&Code::LimitReached));
    let Material::Bundle { json } = &good else { unreachable!() };
    let limits = Limits { material_bytes: json.len(), ..Limits::DEFAULT };
    assert!(judge_within(&trusted, std::slice::from_ref(&good), limits).0);
    let limits = Limits { material_bytes: json.len() - 1, ..Limits::DEFAULT };
    assert_eq!(judge_within(&trusted, std::slice::from_ref(&good), limits).1, [Code::LimitReached]);
}

#[test]
fn t37_one_that_is_too_large_hides_no_other() {
    let signer = signer();
    let trusted = Attestors::any_of_keys(&signer.public_pem());
    let subject = json!({ "digest": { "sha256": image().hex() } });
    let large = signer.bundle_of(&json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": vec![subject; Limits::DEFAULT.subjects + 1],
        "predicateType": "https://sigstore.dev/cosign/sign/v1",
    }));
    let (large, good) = (large.unwrap(), signer.bundle(&image(), &none()).unwrap());
    let (trust, image) = (Trust::new(&trusted).unwrap(), image());
    let add = |judge: &mut Judge<'_>, material: &Material| {
        let located = Located { at: "test".into(), artifact: "signature".into(), material: material.clone() };
        judge.add(&located).is_some()
    };
    let mut judge = Judge::new(&trust, &image, Terms::within(Limits::DEFAULT));
    assert!(!add(&mut judge, &large) && !judge.exhausted());
    assert_eq!(judge.checks()[0].code, Code::LimitReached);
    assert!(add(&mut judge, &good));
    let mut judge = Judge::new(&trust, &image, Terms::within(Limits { signatures: 1, ..Limits::DEFAULT }));
    assert!(!add(&mut judge, &large) && !add(&mut judge, &good) && judge.exhausted());
}

#[test]
fn a_private_key_that_was_written_signs_as_before() {
    for scheme in [Scheme::EcdsaP256, Scheme::EcdsaP384, Scheme::EcdsaP521, Scheme::Rsa2048, Scheme::Ed25519]
    {
        let signer = Signer::generate(scheme).unwrap();
        let again = Signer::from_pem(&signer.private_pem().unwrap()).unwrap();
        assert_eq!(again.public_pem(), signer.public_pem(), "{scheme:?}");
        let trusted = Attestors::any_of_keys(&signer.public_pem());
        assert!(judge(&trusted, &[again.bundle(&image(), &none()).unwrap()]).0, "{scheme:?}");
    }
    for bad in [
        "",
        "-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED SIGSTORE PRIVATE KEY-----",
    ] {
        assert!(Signer::from_pem(bad).is_err());
    }
}

#[test]
fn a_seal_is_no_signature_and_a_signature_no_seal() {
    let signer = signer();
    let trusted = Attestors::any_of_keys(&signer.public_pem());
    let trust = Trust::new(&trusted).unwrap();
    let seal = signer.seal(&image()).unwrap();
    assert!(sealed_by(&trust, &image(), &seal).is_ok());
    assert!(sealed_by(&trust, &Digest::sha256_of(b"another"), &seal).is_err());
    let other = Trust::new(&Attestors::any_of_keys(&self::signer().public_pem())).unwrap();
    assert!(
        sealed_by(&other, &image(), &seal).unwrap_err().to_string().contains("not made by any of 1 keys")
    );
    assert_eq!(judge(&trusted, &[Material::Bundle { json: seal }]).1, [Code::WrongPredicate]);
    let Material::Bundle { json } = signer.bundle(&image(), &none()).unwrap() else { unreachable!() };
    assert!(sealed_by(&trust, &image(), &json).is_err());
    // What is quoted has an end.
    let long = format!(r#"{{"mediaType":"x","verificationMaterial":"{}"}}"#, "ü".repeat(1000));
    let said = sealed_by(&trust, &image(), long.as_bytes()).unwrap_err().to_string();
    assert!(said.chars().count() <= MAX_DETAIL, "{said}");
}

#[test]
fn keys_that_are_none() {
    for (pem, why) in [
        ("", "no PEM block"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "CERTIFICATE"),
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "not RSA of at least 2048"),
    ] {
        let error = Trust::new(&Attestors::any_of_keys(pem)).unwrap_err().to_string();
        assert!(error.contains(why) && error.contains("attestors[0].entries[0].keys"), "{error}");
    }
    assert!(matches!(Trust::new(&Attestors::new(vec![])), Err(TrustError::NoKeys)));
}

#[test]
fn a_key_counts_within_its_time() {
    let signer = signer();
    let moment = |day: i64| Timestamp::UNIX_EPOCH + SignedDuration::from_hours(24 * day);
    let period = Period { from: Some(moment(10)), until: Some(moment(100)) };
    let name = Some("vendor".to_owned());
    let trusted =
        set(None, vec![Attestor::Keys(KeyAttestor { name, period, ..KeyAttestor::of(signer.public_pem()) })]);
    let signature = [signer.bundle(&image(), &none()).unwrap()];
    let by = |time| judge_by(&trusted, &signature, Terms { time, ..Terms::within(Limits::DEFAULT) });
    use Code::{KeyEndsSoon, KeyExpired, KeyNotYet, SignatureValid};
    assert_eq!(by(Time::Judged(moment(9))), (false, vec![KeyNotYet]));
    assert_eq!(by(Time::Judged(moment(10))), (true, vec![SignatureValid]));
    assert_eq!(by(Time::Judged(moment(69))), (true, vec![SignatureValid]));
    assert_eq!(by(Time::Judged(moment(70))), (true, vec![SignatureValid, KeyEndsSoon]), "30 days ahead");
    assert_eq!(by(Time::Judged(moment(100))), (false, vec![KeyExpired]));
    assert_eq!(
        by(Time::Told(moment(100))),
        (true, vec![SignatureValid, KeyExpired]),
        "where nothing may wait"
    );
    assert_eq!(by(Time::Unjudged), (true, vec![SignatureValid]));

    // A successor beside it takes over: what it has not signed is of no use to it.
    let next = self::signer();
    let both = set(Some(1), vec![trusted_entry(&trusted), keys(&next.public_pem(), &[])]);
    let judged = |signatures: &[Material]| {
        judge_by(
            &both,
            signatures,
            Terms { time: Time::Judged(moment(100)), ..Terms::within(Limits::DEFAULT) },
        )
    };
    assert_eq!(judged(&signature), (false, vec![KeyExpired]));
    let two = [signature[0].clone(), next.bundle(&image(), &none()).unwrap()];
    assert_eq!(judged(&two), (true, vec![KeyExpired, SignatureValid]));
}

fn trusted_entry(attestors: &Attestors) -> Attestor {
    attestors.sets()[0].entries[0].clone()
}

#[test]
fn a_signature_is_for_the_image_that_it_names() {
    let signer = signer();
    let trusted = Attestors::any_of_keys(&signer.public_pem());
    let of = |name: &str, required| {
        let identity = Identity { required, remap: BTreeMap::new(), rewriter: None };
        let naming = Naming::new(Reference::parse(name).unwrap(), identity);
        let tag = signer.cosign_sig(&image(), "a.b/core/kube-proxy", &none()).unwrap();
        let by = |material| {
            judge_by(&trusted, &[material], Terms { name: Some(&naming), ..Terms::within(Limits::DEFAULT) })
        };
        let statement = json!({
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [{ "name": "a.b/core/kube-proxy", "digest": { "sha256": image().hex() } }],
            "predicateType": "https://sigstore.dev/cosign/sign/v1",
        });
        [tag, signer.bundle_of(&statement).unwrap(), signer.bundle(&image(), &none()).unwrap()].map(by)
    };
    use Code::{NameMismatch, NoName, SignatureValid};
    let (good, other) = ((true, vec![SignatureValid]), (false, vec![NameMismatch]));
    assert_eq!(of("a.b/core/kube-proxy:1", true), [good.clone(), good.clone(), (false, vec![NoName])]);
    let unnamed = (true, vec![SignatureValid, NoName]);
    assert_eq!(of("a.b/core/kube-proxy:1", false), [good.clone(), good, unnamed.clone()]);
    assert_eq!(of("a.b/team/debug-shell:1", false), [other.clone(), other, unnamed]);
}
