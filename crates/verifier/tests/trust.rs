//! What a signature is worth: its key's time, the name in it, the index that it is of, what the site
//! has revoked.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::time::Duration;

use common::{ask, codes, endpoint, memory, never_fresh, signer, verifier, verifier_at};
use countersign_clock::ManualClock;
use countersign_evidence::{Memory, Store};
use countersign_https::{Authority, full};
use countersign_reference::{Digest, Reference, Rewriter};
use countersign_sample::{SampleRegistry, Shape};
use countersign_signature::sign::Signer;
use countersign_signature::{Identity, Judge, Limits as SignatureLimits, Located, Terms, Trust};
use countersign_verdict::{
    Attestor, AttestorSet, Attestors, Code, KeyAttestor, Outcome, Period, Question, Verdict,
};
use countersign_verifier::{Purpose, Settings, Verifier};
use hyper::Response;
use tokio::time::Instant;

/// A registry, and the endpoint that leads to it.
async fn registry() -> (SampleRegistry, [String; 1]) {
    let authority = Authority::generate("site").unwrap();
    let registry = SampleRegistry::start(&authority, |_| None).await.unwrap();
    let url = format!("https://127.0.0.1:{}", registry.port);
    (registry, [endpoint("a", &url, authority.pem())])
}

/// A key of the Site that is trusted for so long.
fn timed(signer: &Signer, from: Option<&str>, until: Option<&str>) -> Attestors {
    let moment = |text: &str| text.parse().unwrap();
    let period = Period { from: from.map(moment), until: until.map(moment) };
    let key = KeyAttestor { name: Some("vendor".to_owned()), period, ..KeyAttestor::of(signer.public_pem()) };
    Attestors::new(vec![AttestorSet { count: None, entries: vec![Attestor::Keys(key)] }])
}

#[tokio::test(flavor = "multi_thread")]
async fn t_07_a_platform_is_verified_by_the_index_that_lists_it() {
    let ((registry, endpoints), (signer, attestors)) = (registry().await, signer());
    let children = ["amd64", "arm64"].map(|arch| registry.push_image(&format!("a/b:{arch}"), arch).unwrap());
    let index = registry.push_index("a/b:1", &children).unwrap();
    let none = BTreeMap::new();
    registry.attach("a/b", &index, signer.bundle(&index.digest, &none).unwrap()).unwrap();
    let foreign = registry.push_image("a/b:other", "foreign").unwrap().digest;
    let [amd64, arm64] = children.map(|child| child.digest);
    let fresh = || verifier(&endpoints, never_fresh(), memory());
    let by = |reference: String| {
        let verifier = fresh();
        let attestors = attestors.clone();
        async move { ask(&verifier, &attestors, &format!("registry.local/a/b{reference}")).await }
    };

    // The index by its tag, its child by the tag beside it, and pinned to what was asked for.
    let verdict = by(":1".to_owned()).await;
    assert_eq!(verdict.proof().map(|proof| &proof.digest), Some(&index.digest));
    let verdict = by(format!(":1@{amd64}")).await;
    let proof = verdict.proof().unwrap();
    assert_eq!((&proof.digest, proof.index.as_ref()), (&amd64, Some(&index.digest)));
    assert!(codes(&verdict).contains(&Code::ListedByIndex), "{verdict:#?}");

    // Without the tag nobody knows the index; a digest that it does not list is none of it.
    assert_eq!(by(format!("@{amd64}")).await.outcome, Outcome::Unsigned);
    let verdict = by(format!(":1@{foreign}")).await;
    assert_eq!(verdict.outcome, Outcome::Unsigned);
    assert!(codes(&verdict).contains(&Code::ForeignManifest), "{verdict:#?}");
    // Nor does a signed child say anything of the index.
    let child = registry.push_image("a/bare:x", "x").unwrap();
    registry.attach("a/bare", &child, signer.bundle(&child.digest, &none).unwrap()).unwrap();
    let bare = registry.push_index("a/bare:1", std::slice::from_ref(&child)).unwrap();
    let verdict = ask(&fresh(), &attestors, "registry.local/a/bare:1").await;
    assert_eq!((verdict.outcome, verdict.digest), (Outcome::Unsigned, Some(bare.digest)));

    // What has been verified once is known by the evidence, without a tag and without a registry.
    let store: Arc<dyn Store> = Arc::new(Memory::default());
    let first = verifier(&endpoints, never_fresh(), Arc::clone(&store));
    assert!(ask(&first, &attestors, "registry.local/a/b:1").await.proof().is_some());
    drop(registry);
    let second = verifier(&endpoints, never_fresh(), Arc::clone(&store));
    for (digest, known) in [(&arm64, true), (&foreign, false)] {
        let verdict = ask(&second, &attestors, &format!("registry.local/a/b@{digest}")).await;
        assert_eq!(verdict.proof().is_some(), known, "{verdict:#?}");
    }
    let another = common::signer().1;
    let verdict = ask(&second, &another, &format!("registry.local/a/b@{arm64}")).await;
    assert!(verdict.proof().is_none(), "by keys in force: {verdict:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn t_18_what_is_revoked_or_over_is_not_verified() {
    let ((registry, endpoints), (signer, attestors)) = (registry().await, signer());
    let digest = registry.push_signed("a/b:1", "b", &signer, Shape::Bundle).unwrap();
    let child = registry.push_image("a/c:amd64", "c").unwrap();
    let index = registry.push_index("a/c:1", std::slice::from_ref(&child)).unwrap();
    registry.attach("a/c", &index, signer.bundle(&index.digest, &BTreeMap::new()).unwrap()).unwrap();
    let store: Arc<dyn Store> = Arc::new(Memory::default());
    let of = |revoked: &[&Digest]| {
        let revoked = revoked.iter().map(|digest| (*digest).clone()).collect();
        verifier(&endpoints, Settings { revoked, ..never_fresh() }, Arc::clone(&store))
    };
    let before = of(&[]);
    for image in ["a/b:1", "a/c:1"] {
        assert!(ask(&before, &attestors, &format!("registry.local/{image}")).await.proof().is_some());
    }
    // By tag, by digest, by the index that lists it, and although there is a proof.
    let after = of(&[&digest, &child.digest]);
    for image in ["b:1".to_owned(), format!("b@{digest}"), "c:1".to_owned(), format!("c:1@{}", index.digest)]
    {
        let image = format!("registry.local/a/{image}");
        let verdict = ask(&after, &attestors, &image).await;
        assert_eq!((&verdict.outcome, codes(&verdict)), (&Outcome::Refused, vec![Code::Revoked]), "{image}");
        let question = Question::new(Reference::parse(&image).unwrap(), attestors.clone());
        assert!(
            after.at_hand(&question).is_none_or(|verdict| verdict.outcome == Outcome::Refused),
            "{image}"
        );
    }
    // An index is not worth less for its signature, and its child is not verified by it.
    let verdict =
        ask(&of(&[&index.digest]), &attestors, &format!("registry.local/a/c:1@{}", child.digest)).await;
    assert_eq!(verdict.outcome, Outcome::Refused, "{verdict:#?}");

    // An index of which only the proof is kept is looked at once for what it lists.
    let bare: Arc<dyn Store> = Arc::new(Memory::default());
    let pinned = format!("registry.local/a/c@{}", index.digest);
    let small = verifier(&endpoints, never_fresh(), Arc::clone(&store));
    let question = Question::new(Reference::parse(&pinned).unwrap(), attestors.clone());
    let trust = Trust::new(&attestors).unwrap();
    for material in store.signatures(&index.digest) {
        let located = Located { at: String::new(), artifact: String::new(), material };
        let mut judge = Judge::new(&trust, &index.digest, Terms::within(SignatureLimits::DEFAULT));
        bare.keep(&judge.add(&located).unwrap(), None);
    }
    assert!(small.at_hand(&question).is_some(), "with nothing revoked nobody is asked");
    let revoked = [child.digest.clone()].into();
    let after = verifier(&endpoints, Settings { revoked, ..never_fresh() }, Arc::clone(&bare));
    assert!(after.at_hand(&question).is_none());
    assert_eq!(ask(&after, &attestors, &pinned).await.outcome, Outcome::Refused);
    assert_eq!(after.at_hand(&question).map(|verdict| verdict.outcome), Some(Outcome::Refused));

    // A key whose time is over.
    let over = timed(&signer, None, Some("2026-11-30T00:00:00Z"));
    let verdict = ask(&before, &over, "registry.local/a/b:1").await;
    assert_eq!(verdict.outcome, Outcome::Rejected);
    assert!(codes(&verdict).contains(&Code::KeyExpired), "{verdict:#?}");

    // Where nobody has the index to show, its proof stands.
    drop(registry);
    let revoked = [child.digest.clone()].into();
    let after = verifier(&endpoints, Settings { revoked, ..never_fresh() }, bare);
    assert!(ask(&after, &attestors, &pinned).await.proof().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn t_18_a_registry_that_hides_an_index_gets_nothing_revoked_in() {
    let ((signer, attestors), authority) = (signer(), Authority::generate("site").unwrap());
    let status = Arc::new(AtomicU16::new(0));
    let said = Arc::clone(&status);
    let lie = move |path: &str| match said.load(Ordering::SeqCst) {
        status @ 1.. if path.contains("/manifests/") => {
            let there = status == 307;
            let answer = Response::builder().status(status);
            let answer = if there { answer.header("location", "https://192.0.2.1/x") } else { answer };
            Some(answer.body(full("")).unwrap())
        }
        _ => None,
    };
    let registry = SampleRegistry::start(&authority, lie).await.unwrap();
    let url = format!("https://127.0.0.1:{}", registry.port);
    let endpoints = [endpoint("a", &url, authority.pem())];
    let children = ["amd64", "arm64"].map(|arch| registry.push_image(&format!("a/c:{arch}"), arch).unwrap());
    let index = registry.push_index("a/c:1", &children).unwrap();
    let material = signer.bundle(&index.digest, &BTreeMap::new()).unwrap();
    registry.attach("a/c", &index, material.clone()).unwrap();
    let [amd64, arm64] = children.map(|child| child.digest);
    let trust = Trust::new(&attestors).unwrap();
    let (at, artifact) = (String::new(), String::new());
    let mut judge = Judge::new(&trust, &index.digest, Terms::within(SignatureLimits::DEFAULT));
    let proof = judge.add(&Located { at, artifact, material }).unwrap();
    // Only the proof is known, as of an index that is too large to be kept.
    let after = || {
        let (store, revoked): (Arc<dyn Store>, _) = (Arc::new(Memory::default()), [amd64.clone()].into());
        store.keep(&proof, None);
        verifier(&endpoints, Settings { revoked, ..never_fresh() }, store)
    };
    let pinned = format!("registry.local/a/c@{}", index.digest);
    for (said, outcome) in [(401, Outcome::Forbidden), (307, Outcome::Refused)] {
        status.store(said, Ordering::SeqCst);
        assert_eq!(ask(&after(), &attestors, &pinned).await.outcome, outcome, "{said}");
    }
    // Who has nothing, or says nothing, hides nothing from a node either; and is not asked each time.
    for said in [404, 503] {
        status.store(said, Ordering::SeqCst);
        let after = after();
        assert!(ask(&after, &attestors, &pinned).await.proof().is_some(), "{said}");
        let question = Question::new(Reference::parse(&pinned).unwrap(), attestors.clone());
        assert!(after.at_hand(&question).is_some(), "{said}");
    }
    let nowhere = format!("nowhere.example/a/c@{}", index.digest);
    assert!(ask(&after(), &attestors, &nowhere).await.proof().is_some());
    // A sibling of what is revoked is none of it.
    status.store(0, Ordering::SeqCst);
    let verdict = ask(&after(), &attestors, &format!("registry.local/a/c:1@{arm64}")).await;
    assert!(verdict.proof().is_some(), "{verdict:#?}");
    let verdict = ask(&after(), &attestors, &format!("registry.local/a/c:1@{amd64}")).await;
    assert_eq!(codes(&verdict), [Code::Revoked]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_ends_while_its_proofs_are_remembered() {
    let ((registry, endpoints), (signer, _)) = (registry().await, signer());
    registry.push_signed("a/b:1", "b", &signer, Shape::Bundle).unwrap();
    let clock = Arc::new(ManualClock::at("2026-12-01T00:00:00Z".parse().unwrap()));
    let store: Arc<dyn Store> = Arc::new(Memory::default());
    let verifier = verifier_at(&endpoints, never_fresh(), Arc::clone(&store), Arc::clone(&clock));
    let attestors = timed(&signer, Some("2026-12-02T00:00:00Z"), Some("2027-02-01T00:00:00Z"));
    let day = |days: u64| Duration::from_secs(24 * 3600 * days);
    let asked = async |any_age| {
        let image = Reference::parse("registry.local/a/b:1").unwrap();
        let question = Question { any_age, ..Question::new(image, attestors.clone()) };
        let deadline = Instant::now() + Duration::from_secs(5);
        verifier.verify(&question, deadline, Purpose::Decision).await
    };
    let told = |verdict: &Verdict| verdict.warnings().map(|check| check.code).collect::<Vec<_>>();

    assert!(codes(&asked(false).await).contains(&Code::KeyNotYet));
    clock.advance(day(10));
    let verdict = asked(false).await;
    assert!(verdict.proof().is_some() && told(&verdict).is_empty(), "{verdict:#?}");
    clock.advance(day(30));
    for _ in 0..2 {
        let verdict = asked(false).await;
        assert!(verdict.proof().is_some() && told(&verdict) == [Code::KeyEndsSoon], "{verdict:#?}");
    }
    clock.advance(day(30));
    assert_eq!(asked(false).await.outcome, Outcome::Rejected);
    // Where nothing may wait it is told.
    for _ in 0..2 {
        let verdict = asked(true).await;
        assert!(verdict.proof().is_some() && told(&verdict) == [Code::KeyExpired], "{verdict:#?}");
        assert_eq!(asked(false).await.outcome, Outcome::Rejected, "and nobody else goes by that");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_behind_excuses_keys_of_today() {
    let ((registry, endpoints), (signer, _)) = (registry().await, signer());
    registry.push_signed("a/b:1", "b", &signer, Shape::Bundle).unwrap();
    let attestors = timed(&signer, Some("2026-12-01T00:00:00Z"), Some("2028-01-01T00:00:00Z"));
    let at = |time: &str, store: &Arc<dyn Store>| {
        let clock = Arc::new(ManualClock::at(time.parse().unwrap()));
        verifier_at(&endpoints, never_fresh(), Arc::clone(store), clock)
    };
    let store: Arc<dyn Store> = Arc::new(Memory::default());
    // Before any release of this program.
    let verdict = ask(&at("1970-01-01T00:00:00Z", &store), &attestors, "registry.local/a/b:1").await;
    assert!(verdict.proof().is_some(), "{verdict:#?}");
    assert_eq!(verdict.warnings().map(|check| check.code).collect::<Vec<_>>(), [Code::ClockBehind]);
    // Before what some clock has shown already.
    let store: Arc<dyn Store> = Arc::new(Memory::default());
    assert!(
        ask(&at("2027-01-01T00:00:00Z", &store), &attestors, "registry.local/a/b:1").await.proof().is_some()
    );
    let verdict = ask(&at("2026-11-28T00:00:00Z", &store), &attestors, "registry.local/a/b:1").await;
    assert!(verdict.proof().is_some() && codes(&verdict).contains(&Code::ClockBehind), "{verdict:#?}");
    // What is over by it is over.
    let over = timed(&signer, None, Some("1969-01-01T00:00:00Z"));
    let verdict = ask(&at("1970-01-01T00:00:00Z", &store), &over, "registry.local/a/b:1").await;
    assert!(codes(&verdict).contains(&Code::KeyExpired) && verdict.proof().is_none(), "{verdict:#?}");
    // And behind nothing it is believed.
    let verdict = ask(&at("2026-11-28T00:00:00Z", &memory()), &attestors, "registry.local/a/b:1").await;
    assert!(codes(&verdict).contains(&Code::KeyNotYet), "{verdict:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn t_19_a_signed_image_under_another_name_is_not_that_image() {
    let ((registry, endpoints), (signer, attestors)) = (registry().await, signer());
    let shell = registry.push_image("quay.io/team/debug-shell:1", "shell").unwrap();
    let none = BTreeMap::new();
    // As its signer called it, before it came here.
    let material = signer.cosign_sig(&shell.digest, "build.example.com/out/debug-shell", &none).unwrap();
    registry.attach("quay.io/team/debug-shell", &shell, material.clone()).unwrap();
    // The very same image and signature, published as something else.
    let proxy = registry.push_image("quay.io/core/kube-proxy:1", "shell").unwrap();
    assert_eq!(proxy.digest, shell.digest);
    registry.attach("quay.io/core/kube-proxy", &proxy, material).unwrap();
    // And one that names nothing.
    let unnamed = registry.push_signed("quay.io/team/unnamed:1", "unnamed", &signer, Shape::Bundle).unwrap();
    let of = |required: Option<bool>| -> Arc<Verifier> {
        let identity = required.map(|required| Identity {
            required,
            remap: [("build.example.com/out".to_owned(), "quay.io/team".to_owned())].into(),
            rewriter: Some(Rewriter::new("registry.local", &BTreeMap::new()).unwrap()),
        });
        verifier(&endpoints, Settings { identity, ..never_fresh() }, memory())
    };
    let (off, named, required) = (of(None), of(Some(false)), of(Some(true)));
    let image = |name: &str| format!("registry.local/quay.io/{name}:1");
    for verifier in [&off, &named, &required] {
        let verdict = ask(verifier, &attestors, &image("team/debug-shell")).await;
        assert!(verdict.proof().is_some(), "{verdict:#?}");
    }
    assert!(ask(&off, &attestors, &image("core/kube-proxy")).await.proof().is_some(), "the digest alone");
    for verifier in [&named, &required] {
        // What was proven under its own name a moment ago is no proof under this one.
        for reference in [image("core/kube-proxy"), format!("{}@{}", image("core/kube-proxy"), shell.digest)]
        {
            let verdict = ask(verifier, &attestors, &reference).await;
            assert_eq!(verdict.outcome, Outcome::Rejected, "{verdict:#?}");
            assert!(codes(&verdict).contains(&Code::NameMismatch), "{verdict:#?}");
        }
    }
    let verdict = ask(&named, &attestors, &image("team/unnamed")).await;
    assert_eq!(verdict.proof().map(|proof| &proof.digest), Some(&unnamed));
    assert!(codes(&verdict).contains(&Code::NoName), "the verdict says so: {verdict:#?}");
    let verdict = ask(&required, &attestors, &image("team/unnamed")).await;
    assert_eq!(verdict.outcome, Outcome::Rejected);
    assert!(codes(&verdict).contains(&Code::NoName), "{verdict:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_of_an_index_leaves_nothing_behind() {
    let ((registry, endpoints), (signer, attestors)) = (registry().await, signer());
    let child = registry.push_image("a/b:amd64", "b").unwrap();
    let index = registry.push_index("a/b:1", std::slice::from_ref(&child)).unwrap();
    registry.attach("a/b", &index, signer.bundle(&index.digest, &BTreeMap::new()).unwrap()).unwrap();
    let store: Arc<dyn Store> = Arc::new(Memory::default());
    let verifier = verifier(&endpoints, never_fresh(), Arc::clone(&store));
    let image = Reference::parse(&format!("registry.local/a/b:1@{}", child.digest)).unwrap();
    let question = Question::new(image, attestors);
    let asked = AtomicBool::new(false);
    for purpose in [Purpose::DryRun, Purpose::Decision] {
        let deadline = Instant::now() + Duration::from_secs(5);
        assert!(verifier.verify(&question, deadline, purpose).await.proof().is_some());
        let kept = !store.indexes_of(&child.digest).is_empty();
        assert_eq!(kept, asked.swap(true, Ordering::SeqCst), "{purpose:?}");
        assert_eq!(verifier.at_hand(&question).is_some(), kept, "{purpose:?}");
    }
}
