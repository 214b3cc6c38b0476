//! Single steps, in process. See BENCHMARKS.md.
#![allow(clippy::unwrap_used, missing_docs, reason = "a step that fails is a benchmark that fails")]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use countersign_admission::{Limits, Service};
use countersign_bench::pod_security;
use countersign_bench::review::review;
use countersign_clock::SystemClock;
use countersign_evidence::Memory;
use countersign_https::Authority;
use countersign_policy::{Engine, Evaluation, Fact, Facts, Keys, Phase, Policy, Review};
use countersign_reference::{Digest, Reference};
use countersign_sample::{SampleRegistry, Shape};
use countersign_signature::sign::{Scheme, Signer};
use countersign_signature::{Judge, Limits as SignatureLimits, Located, Material, Terms, Trust};
use countersign_site::{Site, Source};
use countersign_verdict::{Attestors, Code, Format, Outcome, Proof, Tier, Verdict};
use countersign_verifier::{Rules, Settings, Verifier};
use criterion::{Criterion, criterion_group, criterion_main};
use serde_json::{Value, json};
use tokio::time::Instant;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const PREPEND: &str = include_str!("../../policies/prepend-registry.yaml");
const CHECK: &str = include_str!("../../policies/check-image.yaml");

fn site(port: u16, authority: &Authority, pem: &str) -> Arc<Site> {
    let endpoint = json!({
        "name": "bench", "url": format!("https://127.0.0.1:{port}"), "ca": { "pem": authority.pem() },
    });
    let site = json!({
        "apiVersion": "countersign.dev/v1alpha1", "kind": "Site",
        "spec": {
            "registry": { "name": "registry.local", "endpoints": [endpoint] },
            "trust": { "keys": { "vendor": { "pem": pem } } },
        },
    });
    Arc::new(Site::parse(&site.to_string()).unwrap())
}

fn policies(texts: &[&str], pem: &str) -> Vec<Policy> {
    let keys = Keys::of_site([("vendor".to_owned(), pem.to_owned())]);
    let load = |text: &&str| countersign_policy::load(&countersign_yaml::document(text).unwrap(), &keys);
    texts.iter().filter_map(load).collect()
}

fn references(c: &mut Criterion) {
    let digest = Digest::sha256_of(b"x");
    let mut group = c.benchmark_group("reference/parse");
    for (name, text) in [
        ("short", "nginx".to_owned()),
        ("tag", "registry.local/quay.io/acme/db:1.4".to_owned()),
        ("tag and digest", format!("registry.local/quay.io/acme/db:1.4@{digest}")),
    ] {
        group.bench_function(name, |b| b.iter(|| Reference::parse(black_box(&text)).unwrap()));
    }
}

fn prepend(c: &mut Criterion) {
    let authority = Authority::generate("bench").unwrap();
    let pem = Signer::generate(Scheme::EcdsaP256).unwrap().public_pem();
    let engine = Engine::new(policies(&[PREPEND], &pem), site(1, &authority, &pem));
    let body: Value = serde_json::from_slice(&review(&["quay.io/a/b:1"], &["quay.io/a/c:1"])).unwrap();
    let review = Review::of(body["request"].clone());
    c.bench_function("policy/prepend-registry on a pod", |b| {
        b.iter(|| engine.evaluate(black_box(&review), Phase::Mutate, Tier::Fail, &Facts::default()));
    });
}

/// Both phases of a pod with two containers, with verdicts at hand and no I/O.
fn many_policies(c: &mut Criterion) {
    let authority = Authority::generate("bench").unwrap();
    let pem = Signer::generate(Scheme::EcdsaP256).unwrap().public_pem();
    let hundred: Vec<Value> =
        pod_security::policies(100).iter().map(|text| countersign_yaml::document(text).unwrap()).collect();
    let keys = Keys::of_site([("vendor".to_owned(), pem.clone())]);
    c.bench_function("policy/compile 100 policies", |b| {
        b.iter(|| {
            black_box(&hundred)
                .iter()
                .filter_map(|document| countersign_policy::load(document, &keys))
                .collect::<Vec<_>>()
        });
    });
    let texts = pod_security::policies(pod_security::KINDS);
    let texts: Vec<&str> = [PREPEND, CHECK].into_iter().chain(texts.iter().map(String::as_str)).collect();
    let engine = Engine::new(policies(&texts, &pem), site(1, &authority, &pem));
    assert!(engine.policies().iter().all(|policy| policy.refusals.is_empty()));
    let body: Value = serde_json::from_slice(&review(&[], &["quay.io/a/b:1", "quay.io/a/c:1"])).unwrap();
    let mutate = Review::of(body["request"].clone());
    let (object, facts) = decide(&engine, &mutate, Phase::Mutate);
    let mut request = body["request"].clone();
    request["object"] = object;
    let validate = Review::of(request);
    let (_, later) = decide(&engine, &validate, Phase::Validate);
    c.bench_function("policy/pod of 2 through prepend, check and 20 policies", |b| {
        b.iter(|| {
            let mutated = engine.evaluate(black_box(&mutate), Phase::Mutate, Tier::Fail, &facts);
            (mutated, engine.evaluate(black_box(&validate), Phase::Validate, Tier::Fail, &later))
        });
    });
}

/// What is stored, and all facts that it took.
fn decide(engine: &Engine, review: &Review, phase: Phase) -> (Value, Facts) {
    let mut facts = Facts::default();
    loop {
        match engine.evaluate(review, phase, Tier::Fail, &facts) {
            Evaluation::Done(outcome) => {
                assert_eq!(outcome.denials, Vec::<String>::new());
                let judged =
                    outcome.responses.iter().filter(|response| response.policy.ends_with(char::is_numeric));
                let expected = if phase == Phase::Validate { pod_security::KINDS } else { 0 };
                assert_eq!(judged.count(), expected);
                return (outcome.object, facts);
            }
            Evaluation::Needs(wants) => {
                for want in wants {
                    let image = want.question().unwrap().0.image.clone();
                    let digest = Digest::sha256_of(image.path().as_bytes());
                    let proof = Proof {
                        digest: digest.clone(),
                        keys: vec![],
                        format: Format::CosignSig,
                        source: "bench".to_owned(),
                        name: None,
                        index: None,
                        stale_since: None,
                    };
                    let verdict = Verdict::because(image, Outcome::Verified(proof), Code::NoSignature, "");
                    let verdict = Verdict { digest: Some(digest), checks: Vec::new(), ..verdict };
                    facts.add(want, Fact::Verdict(Some(verdict)));
                }
            }
        }
    }
}

fn signatures(c: &mut Criterion) {
    let (image, none) = (Digest::sha256_of(b"an image"), BTreeMap::new());
    let mut group = c.benchmark_group("signature/check");
    for scheme in [
        Scheme::EcdsaP256,
        Scheme::EcdsaP384,
        Scheme::EcdsaP521,
        Scheme::Rsa2048,
        Scheme::Rsa3072Pss,
        Scheme::Rsa4096,
        Scheme::Ed25519,
    ] {
        let signer = Signer::generate(scheme).unwrap();
        let trust = Trust::new(&Attestors::any_of_keys(&signer.public_pem())).unwrap();
        for (shape, material) in [
            (".sig", signer.cosign_sig(&image, "registry.local/a/b", &none).unwrap()),
            ("bundle", signer.bundle(&image, &none).unwrap()),
        ] {
            let located = located(material);
            group.bench_function(format!("{scheme:?} {shape}"), |b| {
                b.iter(|| {
                    Judge::new(&trust, &image, Terms::within(SignatureLimits::DEFAULT))
                        .add(black_box(&located))
                        .unwrap()
                });
            });
        }
    }
}

fn located(material: Material) -> Located {
    Located { at: "bench".to_owned(), artifact: "signature".to_owned(), material }
}

/// A review as bytes in, an answer as bytes out: everything but the connection.
fn decisions(c: &mut Criterion) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let images = ["quay.io/acme/app-0:1", "quay.io/acme/app-1:1"];
    let (service, _registry) = runtime.block_on(async {
        let authority = Authority::generate("bench").unwrap();
        let registry = SampleRegistry::start(&authority, |_| None).await.unwrap();
        let signer = Signer::generate(Scheme::EcdsaP256).unwrap();
        for image in images {
            registry.push_signed(image, image, &signer, Shape::Tag).unwrap();
        }
        let pem = signer.public_pem();
        let site = site(registry.port, &authority, &pem);
        let load = Arc::new(|source: &Source| match source {
            Source::Inline(text) => Ok(text.clone()),
            other => Err(format!("{other:?}")),
        });
        let (rules, settings) = (Rules::Site(Arc::clone(&site)), Settings::default());
        let (store, clock) = (Arc::new(Memory::default()), Arc::new(SystemClock::default()));
        let verifier = Verifier::new(rules, settings, load, store, clock);
        let engine = Engine::new(policies(&[PREPEND, CHECK], &pem), site);
        (Service::new(engine, verifier, Limits::DEFAULT), registry)
    });
    let body = review(&images[..1], &images[1..]);
    let decide = || {
        let deadline = Instant::now() + Duration::from_secs(5);
        runtime.block_on(service.review(black_box(&body), Phase::Mutate, Tier::Fail, deadline)).unwrap()
    };
    let answer: Value = serde_json::from_slice(&decide()).unwrap();
    assert!(answer["response"]["patch"].is_string(), "{answer}");
    c.bench_function("decision/warm, 2 images", |b| b.iter(decide));
    c.bench_function("decision/null: parsed and admitted", |b| {
        b.iter(|| {
            let review: Value = serde_json::from_slice(black_box(&body)).unwrap();
            json!({ "response": { "uid": review["request"]["uid"], "allowed": true } }).to_string()
        });
    });
}

criterion_group!(benches, references, prepend, many_policies, signatures, decisions);
criterion_main!(benches);
