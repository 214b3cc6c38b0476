//! The verifier against registries over TLS, some of which lie in one stated way.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{NOW, answer, ask, ask_within, codes, endpoint, never_fresh, signer, verifier};
use countersign_evidence::{Memory, Origin, Store, TagRecord};
use countersign_https::{Authority, full};
use countersign_reference::Reference;
use countersign_sample::{SampleRegistry, Shape};
use countersign_verdict::{Code, Outcome, Question};
use countersign_verifier::{Purpose, Settings};
use hyper::Response;
use tokio::net::TcpListener;
use tokio::time::Instant;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_is_dialled_at_its_address_and_has_to_be_who_its_ca_says() {
    let (authority, (signer, attestors)) = (Authority::generate("site").unwrap(), signer());
    let registry = SampleRegistry::start(&authority, |_| None).await.unwrap();
    registry.push_signed("a/b:1", "b", &signer, Shape::Bundle).unwrap();
    // The name resolves nowhere: only the Site's address leads there.
    let url = format!("https://registry.local:{}", registry.port);
    let good =
        verifier(&[endpoint("a", &url, authority.pem())], Settings::default(), Arc::new(Memory::default()));
    assert!(ask(&good, &attestors, "registry.local/a/b:1").await.proof().is_some());

    for (ca, url) in [
        (Authority::generate("another").unwrap().pem().to_owned(), url),
        (authority.pem().to_owned(), format!("https://other.local:{}", registry.port)),
    ] {
        let wrong = verifier(&[endpoint("a", &url, &ca)], Settings::default(), Arc::new(Memory::default()));
        for _ in 0..2 {
            let verdict = ask(&wrong, &attestors, "registry.local/a/b:1").await;
            assert_eq!(verdict.outcome, Outcome::Undecided, "no violation: nothing is known of the image");
            assert_eq!(codes(&verdict), [Code::TlsFailed], "held off as well: {verdict:#?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_says_nothing_is_undecided_within_the_deadline() {
    let (authority, (signer, attestors)) = (Authority::generate("site").unwrap(), signer());
    // Connections are made by the kernel, and nobody takes them up.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://127.0.0.1:{}", silent.local_addr().unwrap().port());
    let endpoints = [endpoint("silent", &url, authority.pem())];
    let silent_only = verifier(&endpoints, Settings::default(), Arc::new(Memory::default()));
    let limit = Duration::from_millis(600);
    let (verdict, time) = ask_within(&silent_only, &attestors, "registry.local/a/b:1", limit).await;
    assert_eq!(verdict.outcome, Outcome::Undecided, "{verdict:#?}");
    assert!(time < limit + Duration::from_millis(200), "{time:?}");

    // With another behind it the image is found there.
    let registry = SampleRegistry::start(&authority, |_| None).await.unwrap();
    registry.push_signed("a/b:1", "b", &signer, Shape::Tag).unwrap();
    let next = endpoint("next", &format!("https://127.0.0.1:{}", registry.port), authority.pem());
    let both = verifier(&[endpoints[0].clone(), next], Settings::default(), Arc::new(Memory::default()));
    let (verdict, _) = ask_within(&both, &attestors, "registry.local/a/b:1", Duration::from_secs(20)).await;
    assert!(verdict.proof().is_some(), "{verdict:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn unsigned_and_rejected_are_said_after_every_source_was_asked() {
    let (authority, (signer, attestors)) = (Authority::generate("site").unwrap(), signer());
    let asked = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&asked);
    let note = move |path: &str| {
        noted.lock().unwrap().push(path.to_owned());
        None
    };
    let registry = SampleRegistry::start(&authority, note).await.unwrap();
    let (stranger, _) = common::signer();
    registry.push("a/unsigned:1", "unsigned").unwrap();
    registry.push_signed("a/tag:1", "tag", &stranger, Shape::Tag).unwrap();
    registry.push_signed("a/bundle:1", "bundle", &stranger, Shape::Bundle).unwrap();
    registry.push_signed("a/good:1", "good", &signer, Shape::Tag).unwrap();
    let url = format!("https://127.0.0.1:{}", registry.port);
    let endpoints = [endpoint("a", &url, authority.pem())];
    let verifier = verifier(&endpoints, Settings::default(), Arc::new(Memory::default()));
    for (image, outcome) in
        [("unsigned", Outcome::Unsigned), ("tag", Outcome::Rejected), ("bundle", Outcome::Rejected)]
    {
        asked.lock().unwrap().clear();
        let verdict = ask(&verifier, &attestors, &format!("registry.local/a/{image}:1")).await;
        assert_eq!(verdict.outcome, outcome, "{verdict:#?}");
        let asked = asked.lock().unwrap().clone();
        for source in [".sig", "/referrers/sha256:", "/manifests/sha256-"] {
            assert!(asked.iter().any(|path| path.contains(source)), "{image}: {source}: {asked:#?}");
        }
    }
    asked.lock().unwrap().clear();
    assert!(ask(&verifier, &attestors, "registry.local/a/good:1").await.proof().is_some());
    let asked = asked.lock().unwrap().clone();
    assert_eq!(asked.len(), 3, "asking stops when the attestors are satisfied: {asked:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_leaves_nothing_behind() {
    let (authority, (signer, attestors)) = (Authority::generate("site").unwrap(), signer());
    let mut registry = SampleRegistry::start(&authority, |_| None).await.unwrap();
    let digest = registry.push_signed("a/b:1", "b", &signer, Shape::Tag).unwrap();
    let url = format!("https://127.0.0.1:{}", registry.port);
    let store = Arc::new(Memory::default());
    let endpoints = [endpoint("a", &url, authority.pem())];
    let verifier = verifier(&endpoints, Settings::default(), Arc::clone(&store) as Arc<dyn Store>);
    let image = Reference::parse("registry.local/a/b:1").unwrap();
    let question = Question::new(image.clone(), attestors);
    let ask =
        async |purpose| verifier.verify(&question, Instant::now() + Duration::from_secs(5), purpose).await;
    assert!(ask(Purpose::DryRun).await.proof().is_some());
    assert!(store.signatures(&digest).is_empty() && store.tag(&image, jiff::Timestamp::MAX).is_none());
    assert!(verifier.at_hand(&question).is_none());

    assert!(ask(Purpose::Decision).await.proof().is_some());
    assert_eq!(
        (store.signatures(&digest).len(), store.tag(&image, jiff::Timestamp::MAX).unwrap().digest),
        (1, digest)
    );
    registry.stop().await;
    assert!(ask(Purpose::DryRun).await.proof().is_some(), "what is known is used");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_record_counts_only_by_a_bundle_or_where_nothing_may_wait() {
    let (authority, (signer, attestors)) = (Authority::generate("site").unwrap(), signer());
    let mut registry = SampleRegistry::start(&authority, |_| None).await.unwrap();
    let digest = registry.push_signed("a/b:1", "b", &signer, Shape::Tag).unwrap();
    let url = format!("https://127.0.0.1:{}", registry.port);
    let store = Arc::new(Memory::default());
    let image = Reference::parse("registry.local/a/b:1").unwrap();
    let ask = async |any_age| {
        // As after a restart.
        let store = Arc::clone(&store) as Arc<dyn Store>;
        let endpoints = [endpoint("a", &url, authority.pem())];
        let verifier = verifier(&endpoints, Settings::default(), store);
        let question = Question { any_age, ..Question::new(image.clone(), attestors.clone()) };
        let deadline = Instant::now() + Duration::from_secs(5);
        verifier.verify(&question, deadline, Purpose::Decision).await.outcome
    };
    assert!(matches!(ask(false).await, Outcome::Verified(_)));
    registry.stop().await;
    let record = |days: i64, origin| {
        let age = jiff::SignedDuration::from_hours(24 * days);
        TagRecord { digest: digest.clone(), confirmed: NOW.parse::<jiff::Timestamp>().unwrap() - age, origin }
    };
    for (days, origin, any_age, good) in [
        (6, Origin::Registry, false, true),
        (60, Origin::Registry, false, false),
        (60, Origin::Registry, true, true),
        (60, Origin::Bundle, false, true),
    ] {
        store.record_tag(&image, record(days, origin));
        let outcome = ask(any_age).await;
        assert_eq!(matches!(outcome, Outcome::Verified(_)), good, "{days} {origin:?} {any_age}: {outcome:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_repositorys_404_says_nothing_of_an_endpoints_referrers_api() {
    let (authority, (signer, attestors)) = (Authority::generate("site").unwrap(), signer());
    // Its referrers API answers 404 for a repository that it does not have, as some do.
    let lie = |path: &str| {
        let unknown = path.contains("/only-first/referrers/");
        unknown.then(|| Response::builder().status(404).body(full("")).unwrap())
    };
    let first = SampleRegistry::start(&authority, |_| None).await.unwrap();
    let second = SampleRegistry::start(&authority, lie).await.unwrap();
    first.push("a/only-first:1", "unsigned").unwrap();
    second.push_signed("a/only-second:1", "signed", &signer, Shape::Bundle).unwrap();
    let endpoints = [("first", first.port), ("second", second.port)]
        .map(|(name, port)| endpoint(name, &format!("https://127.0.0.1:{port}"), authority.pem()));
    let verifier = verifier(&endpoints, Settings::default(), Arc::new(Memory::default()));
    assert_eq!(ask(&verifier, &attestors, "registry.local/a/only-first:1").await.outcome, Outcome::Unsigned);
    let verdict = ask(&verifier, &attestors, "registry.local/a/only-second:1").await;
    assert!(verdict.proof().is_some(), "{verdict:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_that_denies_the_referrers_api_hides_no_bundle_of_others() {
    let (authority, (signer, attestors)) = (Authority::generate("site").unwrap(), signer());
    let lie = |path: &str| {
        let denied = path.contains("/poisoned/referrers/");
        denied.then(|| Response::builder().status(404).body(full("")).unwrap())
    };
    let registry = SampleRegistry::start(&authority, lie).await.unwrap();
    registry.push("a/poisoned:1", "unsigned").unwrap();
    registry.push_signed("a/tag:1", "tag", &signer, Shape::Tag).unwrap();
    registry.push_signed("a/bundle:1", "bundle", &signer, Shape::Bundle).unwrap();
    let endpoints = [endpoint("a", &format!("https://127.0.0.1:{}", registry.port), authority.pem())];
    let verifier = verifier(&endpoints, Settings::default(), Arc::new(Memory::default()));
    assert_eq!(ask(&verifier, &attestors, "registry.local/a/poisoned:1").await.outcome, Outcome::Unsigned);
    for image in ["registry.local/a/tag:1", "registry.local/a/bundle:1"] {
        let verdict = ask(&verifier, &attestors, image).await;
        assert!(verdict.proof().is_some(), "{verdict:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_odd_referrer_hides_no_other() {
    let (authority, (signer, attestors)) = (Authority::generate("site").unwrap(), signer());
    let listed = Arc::new(Mutex::new(String::new()));
    let list = Arc::clone(&listed);
    let odd = "0".repeat(64);
    let broken = odd.clone();
    let lie = move |path: &str| {
        if path.ends_with(&broken) {
            return Some(answer(MANIFEST, "<html>"));
        }
        let list = list.lock().unwrap().clone();
        (path.contains("/referrers/") && !list.is_empty())
            .then(|| answer("application/vnd.oci.image.index.v1+json", &list))
    };
    let registry = SampleRegistry::start(&authority, lie).await.unwrap();
    let image = registry.push_signed("a/b:1", "b", &signer, Shape::Bundle).unwrap();
    let good = registry.referrer_of("a/b", &image).unwrap().unwrap();
    *listed.lock().unwrap() = format!(
        r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"{MANIFEST}","digest":"sha256:{odd}","size":1}},{{"mediaType":"{MANIFEST}","digest":"{good}","size":1}}]}}"#
    );
    let url = format!("https://127.0.0.1:{}", registry.port);
    let endpoints = [endpoint("a", &url, authority.pem())];
    let verifier = verifier(&endpoints, Settings::default(), Arc::new(Memory::default()));
    let verdict = ask(&verifier, &attestors, "registry.local/a/b:1").await;
    assert!(verdict.proof().is_some(), "{verdict:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_is_not_used_while_a_registry_answers() {
    let (authority, (signer, attestors)) = (Authority::generate("site").unwrap(), signer());
    // Once told to, everything but the tag takes longer than anybody waits.
    let slow = Arc::new(AtomicUsize::new(0));
    let told = Arc::clone(&slow);
    let lie = move |path: &str| {
        if told.load(Ordering::SeqCst) > 0 && !path.ends_with("/manifests/1") {
            std::thread::sleep(Duration::from_millis(1500));
        }
        None
    };
    let registry = SampleRegistry::start(&authority, lie).await.unwrap();
    registry.push_signed("a/b:1", "before", &signer, Shape::Tag).unwrap();
    let url = format!("https://127.0.0.1:{}", registry.port);
    let endpoints = [endpoint("a", &url, authority.pem())];
    let verifier = verifier(&endpoints, never_fresh(), Arc::new(Memory::default()));
    assert!(ask(&verifier, &attestors, "registry.local/a/b:1").await.proof().is_some());
    registry.push("a/b:1", "after").unwrap();
    slow.store(1, Ordering::SeqCst);
    let limit = Duration::from_millis(500);
    let (verdict, _) = ask_within(&verifier, &attestors, "registry.local/a/b:1", limit).await;
    assert_eq!(verdict.outcome, Outcome::Undecided, "not the image of before: {verdict:#?}");
}
