//! Real registries, real cosign, and the program's own answer.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use countersign_clock::{Clock, ManualClock};
use countersign_e2e::{
    Cosign, CountingProxy, KeyPair, KeyType, Pushed, Registry, RegistryKind, assert_isolated, countersign,
    push_image, push_index,
};
use countersign_evidence::Memory;
use countersign_reference::Reference;
use countersign_signature::sign::{Scheme, Signer};
use countersign_site::Site;
use countersign_verdict::{Attestors, Outcome, Question, Verdict};
use countersign_verifier::{Purpose, Rules, Settings, Verifier};
use tempfile::TempDir;
use tokio::time::Instant;

const KINDS: [RegistryKind; 2] = [RegistryKind::Distribution, RegistryKind::WithReferrers];

fn site(ports: &[u16]) -> String {
    let mut text = "apiVersion: countersign.dev/v1alpha1\nkind: Site\nspec:\n  registry:\n    name: registry.local\n    endpoints:\n".to_owned();
    for port in ports {
        text += &format!("      - {{ name: e{port}, url: http://127.0.0.1:{port} }}\n");
    }
    text
}

/// Runs `countersign verify` and answers with its exit code and its JSON.
fn verify(directory: &Path, ports: &[u16], key: &KeyPair, images: &[&str]) -> (i32, serde_json::Value) {
    let file = directory.join("site.yaml");
    std::fs::write(&file, site(ports)).unwrap();
    let mut command = Command::new(countersign());
    command
        .args(["verify", "--output", "json", "--site"])
        .arg(&file)
        .arg("--key")
        .arg(&key.public)
        .args(images);
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    let data = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {stderr}"));
    (output.status.code().unwrap(), data)
}

/// A verifier in this process, with a clock of the test's own.
fn verifier(ports: &[u16], settings: Settings) -> (Arc<Verifier>, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::at("2026-01-01T00:00:00Z".parse().unwrap()));
    let site = Arc::new(Site::parse(&site(ports)).unwrap());
    let load = Arc::new(|_: &countersign_site::Source| Err("nothing to load".to_owned()));
    let shared: Arc<dyn Clock> = clock.clone();
    (Verifier::new(Rules::Site(site), settings, load, Arc::new(Memory::default()), shared), clock)
}

async fn ask(verifier: &Arc<Verifier>, attestors: &Attestors, image: &str) -> Verdict {
    let image = Reference::parse(image).unwrap();
    let question = Question::new(image, attestors.clone());
    verifier.verify(&question, Instant::now() + Duration::from_secs(5), Purpose::Decision).await
}

fn local(image: &Pushed) -> String {
    let (_, path) = image.name.split_once('/').unwrap();
    format!("registry.local/{path}:{}", image.tag)
}

#[tokio::test(flavor = "multi_thread")]
async fn real_cosign_signatures_verify_and_others_do_not() {
    assert_isolated();
    for kind in KINDS {
        let (registry, directory) = (Registry::start(kind), TempDir::new().unwrap());
        let other = Cosign::V2.key_pair(directory.path(), "other", KeyType::EcdsaP256);
        for key_type in [KeyType::EcdsaP256, KeyType::Rsa4096] {
            let key = Cosign::V2.key_pair(directory.path(), &format!("{key_type:?}"), key_type);
            for cosign in [Cosign::V2, Cosign::V3] {
                let name = format!("team/{cosign:?}-{key_type:?}").to_lowercase();
                let image = push_image(&registry.host(), &name, "1", &name).await;
                cosign.sign(directory.path(), &key, &image.by_digest());
                assert!(cosign.verifies(directory.path(), &key, &image.by_digest()), "{kind:?} {name}");
                let format = if cosign == Cosign::V2 { "cosign-sig" } else { "sigstore-bundle" };

                let (code, data) = verify(directory.path(), &[registry.port], &key, &[&local(&image)]);
                assert_eq!((code, &data[0]["verdict"]), (0, &"Verified".into()), "{kind:?} {name}: {data:#}");
                assert_eq!(data[0]["proof"]["format"], format, "{kind:?}");
                assert_eq!(data[0]["digest"], image.digest.to_string());

                let (code, data) = verify(directory.path(), &[registry.port], &other, &[&local(&image)]);
                assert_eq!((code, &data[0]["verdict"]), (1, &"Rejected".into()), "{kind:?} {name}: {data:#}");
                assert!(!cosign.verifies(directory.path(), &other, &image.by_digest()));
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_other_verdict_of_the_command() {
    assert_isolated();
    let (mut registry, directory) = (Registry::start(RegistryKind::Distribution), TempDir::new().unwrap());
    let key = Cosign::V2.key_pair(directory.path(), "key", KeyType::EcdsaP256);
    let unsigned = push_image(&registry.host(), "quay.io/team/unsigned", "1", "unsigned").await;
    let check = |image: &str, ports: &[u16], code: i32, verdict: &str, reason: &str| {
        let (found, data) = verify(directory.path(), ports, &key, &[image]);
        assert_eq!((found, data[0]["verdict"].as_str().unwrap()), (code, verdict), "{image}: {data:#}");
        assert!(data[0].to_string().contains(reason), "{image}: {data:#}");
    };
    let ports = [registry.port];
    check(&local(&unsigned), &ports, 1, "Unsigned", "no-signature");
    // The upstream name is rewritten first, as it is for a pod.
    check("quay.io/team/unsigned:1", &ports, 1, "Unsigned", "registry.local/quay.io/team/unsigned:1");
    check("registry.local/team/none:1", &ports, 1, "NotFound", "image-not-found");
    check("registry.local/Team/x", &ports, 1, "Refused", "bad-reference");
    registry.stop();
    check(&local(&unsigned), &ports, 3, "Undecided", "unreachable");
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_say_who_must_have_signed() {
    assert_isolated();
    let (registry, directory) = (Registry::start(RegistryKind::Distribution), TempDir::new().unwrap());
    let key = Cosign::V3.key_pair(directory.path(), "vendor", KeyType::EcdsaP256);
    let signed = push_image(&registry.host(), "quay.io/team/signed", "1", "signed").await;
    Cosign::V3.sign(directory.path(), &key, &signed.by_digest());
    push_image(&registry.host(), "quay.io/team/unsigned", "1", "unsigned").await;
    let file = directory.path().join("site.yaml");
    let keys = "  trust: { keys: { vendor: { file: vendor.pub } } }\n  bootstrapNamespaces: [kube-system]\n";
    std::fs::write(&file, site(&[registry.port]) + keys).unwrap();
    let policies = concat!(env!("CARGO_MANIFEST_DIR"), "/../policies");
    let broken = directory.path().join("broken.yaml");
    let check = std::fs::read_to_string(format!("{policies}/check-image.yaml")).unwrap();
    std::fs::write(&broken, check.replace("site://*", "site://none")).unwrap();
    let scoped = directory.path().join("scoped.yaml");
    let text = check.replace("imageReferences: [\"*\"]", "imageReferences: [\"ghcr.io/*\"]");
    std::fs::write(&scoped, text).unwrap();
    let (prepend, check) =
        (format!("{policies}/prepend-registry.yaml"), format!("{policies}/check-image.yaml"));
    let run = |files: &[&str], more: &[&str], image: &str| {
        let mut command = Command::new(countersign());
        command.args(["verify", "--output", "json", image, "--site"]).arg(&file).args(more);
        for file in files {
            command.arg("--policy").arg(file);
        }
        let output = command.output().unwrap();
        let data: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let line = format!(
            "{} {} {}",
            data[0]["verdict"].as_str().unwrap(),
            data[0]["rule"].as_str().unwrap_or("-"),
            data[0]["image"].as_str().unwrap()
        );
        (output.status.code().unwrap(), line)
    };
    let (broken, scoped) = (broken.to_str().unwrap(), scoped.to_str().unwrap());
    let local = "registry.local/quay.io/team";
    for (files, more, image, code, line) in [
        (
            vec![prepend.as_str(), &check],
            vec![],
            "signed:1",
            0,
            format!("Verified check-image/site-keys {local}/signed:1"),
        ),
        (
            vec![&prepend, &check],
            vec![],
            "unsigned:1",
            1,
            format!("Unsigned check-image/site-keys {local}/unsigned:1"),
        ),
        // Its node's scoped rules lead to the same endpoints.
        (
            vec![&check],
            vec!["--namespace", "kube-system"],
            "signed:1",
            0,
            format!("Verified check-image/site-keys {local}/signed:1"),
        ),
        (vec![&prepend, scoped], vec![], "unsigned:1", 0, format!("NotCovered - {local}/unsigned:1")),
        (vec![&prepend, broken], vec![], "signed:1", 1, "Refused - quay.io/team/signed:1".to_owned()),
        (vec![&prepend, &check], vec![], "Bad:1", 1, "Refused - quay.io/team/Bad:1".to_owned()),
    ] {
        assert_eq!(run(&files, &more, &format!("quay.io/team/{image}")), (code, line), "{files:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_signature_covers_the_index_digest() {
    assert_isolated();
    let (registry, directory) = (Registry::start(RegistryKind::Distribution), TempDir::new().unwrap());
    let key = Cosign::V3.key_pair(directory.path(), "key", KeyType::EcdsaP256);
    let host = registry.host();
    let amd64 = push_image(&host, "team/multi", "amd64", "amd64").await;
    let arm64 = push_image(&host, "team/multi", "arm64", "arm64").await;
    let index = push_index(&host, "team/multi", "1", &[("amd64", &amd64), ("arm64", &arm64)]).await;
    Cosign::V3.sign(directory.path(), &key, &index.by_digest());
    let (code, data) = verify(directory.path(), &[registry.port], &key, &[&local(&index)]);
    assert_eq!((code, &data[0]["digest"]), (0, &index.digest.to_string().into()), "{data:#}");
    assert_eq!(verify(directory.path(), &[registry.port], &key, &[&local(&amd64)]).0, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_few_and_do_not_depend_on_the_number_of_keys_and_endpoints() {
    assert_isolated();
    let empty = Registry::start(RegistryKind::Distribution);
    for kind in KINDS {
        let (registry, directory) = (Registry::start(kind), TempDir::new().unwrap());
        let key = Cosign::V2.key_pair(directory.path(), "key", KeyType::EcdsaP256);
        let pem = std::fs::read_to_string(&key.public).unwrap();
        let others: String =
            (0..19).map(|_| Signer::generate(Scheme::EcdsaP256).unwrap().public_pem()).collect();
        for (cosign, first, after) in [(Cosign::V2, 4, 4), (Cosign::V3, 6, 4)] {
            let mut images = Vec::new();
            for number in 0..2 {
                let name = format!("{cosign:?}/image-{number}").to_lowercase();
                let image = push_image(&registry.host(), &name, "1", &format!("{name} {kind:?}")).await;
                cosign.sign(directory.path(), &key, &image.by_digest());
                images.push(image);
            }
            let mut counts = Vec::new();
            for (keys, endpoints) in
                [(pem.clone(), 1), (format!("{others}{pem}"), 1), (format!("{others}{pem}"), 3)]
            {
                let proxy = CountingProxy::before(registry.port).await;
                let behind =
                    [CountingProxy::before(empty.port).await, CountingProxy::before(empty.port).await];
                let ports = [proxy.port, behind[0].port, behind[1].port];
                let (verifier, _) = verifier(&ports[..endpoints], Settings::default());
                let attestors = Attestors::any_of_keys(&keys);
                for (image, most) in images.iter().zip([first, after]) {
                    let verdict = ask(&verifier, &attestors, &local(image)).await;
                    assert!(verdict.proof().is_some(), "{verdict:#?}");
                    let lines = proxy.take();
                    assert!(lines.len() <= most, "{kind:?} {cosign:?}: more than {most}: {lines:#?}");
                    counts.push(lines.len());
                    ask(&verifier, &attestors, &local(image)).await;
                    assert_eq!(proxy.take(), Vec::<String>::new(), "a warm image");
                }
                for other in &behind {
                    assert_eq!(other.take(), Vec::<String>::new(), "the first endpoint has everything");
                }
            }
            assert_eq!((&counts[..2], &counts[..2]), (&counts[2..4], &counts[4..]), "{kind:?} {cosign:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_asked_before_costs_one_request() {
    assert_isolated();
    let directory = TempDir::new().unwrap();
    let (empty, registry) =
        (Registry::start(RegistryKind::Distribution), Registry::start(RegistryKind::Distribution));
    let key = Cosign::V2.key_pair(directory.path(), "key", KeyType::EcdsaP256);
    let attestors = Attestors::any_of_keys(&std::fs::read_to_string(&key.public).unwrap());
    let image = push_image(&registry.host(), "team/a", "1", "only in the second").await;
    Cosign::V2.sign(directory.path(), &key, &image.by_digest());
    let (before, proxy) =
        (CountingProxy::before(empty.port).await, CountingProxy::before(registry.port).await);
    let (verifier, _) = verifier(&[before.port, proxy.port], Settings::default());
    let verdict = ask(&verifier, &attestors, &local(&image)).await;
    assert!(verdict.proof().is_some(), "{verdict:#?}");
    let (before, lines) = (before.take(), proxy.take());
    assert!(before.len() == 1 && lines.len() <= 4, "{before:#?} {lines:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_endpoint_that_has_the_image_decides_and_a_dead_one_is_passed_over() {
    assert_isolated();
    let directory = TempDir::new().unwrap();
    let (mut first, second) =
        (Registry::start(RegistryKind::Distribution), Registry::start(RegistryKind::Distribution));
    let key = Cosign::V2.key_pair(directory.path(), "key", KeyType::EcdsaP256);
    let attestors = Attestors::any_of_keys(&std::fs::read_to_string(&key.public).unwrap());
    let here = push_image(&first.host(), "team/a", "1", "in the first").await;
    let there = push_image(&second.host(), "team/a", "1", "in the second").await;
    let only_there = push_image(&second.host(), "team/b", "1", "only in the second").await;
    for image in [&here, &there, &only_there] {
        Cosign::V2.sign(directory.path(), &key, &image.by_digest());
    }
    let (verifier, clock) = verifier(&[first.port, second.port], Settings::default());
    let verdict = ask(&verifier, &attestors, "registry.local/team/a:1").await;
    assert_eq!(verdict.digest.as_ref(), Some(&here.digest));
    let verdict = ask(&verifier, &attestors, "registry.local/team/b:1").await;
    assert_eq!(verdict.proof().unwrap().digest, only_there.digest);

    first.stop();
    clock.advance(Duration::from_secs(11));
    let verdict = ask(&verifier, &attestors, "registry.local/team/a:1").await;
    assert_eq!(verdict.digest.as_ref(), Some(&there.digest), "{verdict:#?}");

    let settings = Settings { compare_endpoints: true, ..Settings::default() };
    let third = Registry::start(RegistryKind::Distribution);
    push_image(&third.host(), "team/a", "1", "yet another").await;
    let (comparing, _) = self::verifier(&[second.port, third.port], settings);
    let verdict = ask(&comparing, &attestors, "registry.local/team/a:1").await;
    assert_eq!(verdict.outcome, Outcome::Refused, "T-06: {verdict:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_verified_outlives_an_outage_and_no_longer() {
    assert_isolated();
    let directory = TempDir::new().unwrap();
    let mut registry = Registry::start(RegistryKind::Distribution);
    let key = Cosign::V2.key_pair(directory.path(), "key", KeyType::EcdsaP256);
    let attestors = Attestors::any_of_keys(&std::fs::read_to_string(&key.public).unwrap());
    let image = push_image(&registry.host(), "team/a", "1", "known").await;
    Cosign::V2.sign(directory.path(), &key, &image.by_digest());
    let (verifier, clock) = verifier(&[registry.port], Settings::default());
    assert!(ask(&verifier, &attestors, "registry.local/team/a:1").await.proof().is_some());

    registry.stop();
    clock.advance(Duration::from_hours(1));
    let verdict = ask(&verifier, &attestors, "registry.local/team/a:1").await;
    let proof = verdict.proof().unwrap();
    assert_eq!((&proof.digest, proof.stale_since.is_some()), (&image.digest, true));
    assert_eq!(ask(&verifier, &attestors, "registry.local/team/a:2").await.outcome, Outcome::Undecided);
    let by_digest = format!("registry.local/team/a@{}", image.digest);
    assert!(ask(&verifier, &attestors, &by_digest).await.proof().unwrap().stale_since.is_none());

    let other = Attestors::any_of_keys(&Signer::generate(Scheme::EcdsaP256).unwrap().public_pem());
    assert_eq!(
        ask(&verifier, &other, "registry.local/team/a:1").await.outcome,
        Outcome::Undecided,
        "a removed key"
    );
    clock.advance(Duration::from_hours(192));
    assert_eq!(
        ask(&verifier, &attestors, "registry.local/team/a:1").await.outcome,
        Outcome::Undecided,
        "too old"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn t04_a_moved_tag_finds_no_proof() {
    assert_isolated();
    let directory = TempDir::new().unwrap();
    let registry = Registry::start(RegistryKind::Distribution);
    let key = Cosign::V2.key_pair(directory.path(), "key", KeyType::EcdsaP256);
    let attestors = Attestors::any_of_keys(&std::fs::read_to_string(&key.public).unwrap());
    let image = push_image(&registry.host(), "team/a", "1", "signed").await;
    Cosign::V2.sign(directory.path(), &key, &image.by_digest());
    let (verifier, clock) = verifier(&[registry.port], Settings::default());
    assert!(ask(&verifier, &attestors, "registry.local/team/a:1").await.proof().is_some());
    let moved = push_image(&registry.host(), "team/a", "1", "unsigned").await;
    let verdict = ask(&verifier, &attestors, "registry.local/team/a:1").await;
    assert_eq!(verdict.proof().unwrap().digest, image.digest, "fresh: still the digest that was verified");
    clock.advance(Duration::from_secs(11));
    let verdict = ask(&verifier, &attestors, "registry.local/team/a:1").await;
    assert_eq!((verdict.outcome, verdict.digest), (Outcome::Unsigned, Some(moved.digest)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_nothing_names_is_refused_at_once() {
    assert_isolated();
    let (verifier, _) = verifier(&[countersign_e2e::free_port()], Settings::default());
    let attestors = Attestors::any_of_keys(&Signer::generate(Scheme::EcdsaP256).unwrap().public_pem());
    let verdict = ask(&verifier, &attestors, "quay.io/team/a:1").await;
    assert_eq!((verdict.outcome, verdict.checks[0].code.as_str()), (Outcome::Refused, "host-not-listed"));
}
