//! Pods that try to get by, each test named after the attack of `docs/attacks.md`.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::collections::BTreeSet;

use countersign_policy::{Engine, Evaluation, Fact, Facts, Outcome, Phase, Review};
use countersign_reference::{Digest, Reference};
use countersign_verdict::{Code, Outcome as Found, Tier, Verdict};
use serde_json::{Value, json};

use common::{CHECK, PREPEND, digest, engine, verified_image};

fn review(operation: &str, namespace: &str, object: &Value, old: Option<&Value>) -> Review {
    Review::of(json!({ "uid": "1", "operation": operation, "namespace": namespace, "kind": { "kind": "Pod" },
        "object": object, "oldObject": old }))
}

fn verdict(image: &Reference, outcome: Found) -> Verdict {
    Verdict::because(image.clone(), outcome, Code::NoSignature, "by hand")
}

/// Unsigned if the name says so.
fn by_name(image: &Reference) -> Verdict {
    if image.path().contains("unsigned") { verdict(image, Found::Unsigned) } else { verified_image(image) }
}

/// The answer to a review, and the images that were asked about on the way.
fn run(
    engine: &Engine,
    review: &Review,
    phase: Phase,
    answer: impl Fn(&Reference) -> Verdict,
) -> (Outcome, Vec<Reference>) {
    let (mut facts, mut asked) = (Facts::default(), Vec::new());
    loop {
        match engine.evaluate(review, phase, Tier::Fail, &facts) {
            Evaluation::Done(outcome) => return (*outcome, asked),
            Evaluation::Needs(wants) => {
                for want in wants {
                    let image = want.question().unwrap().0.image.clone();
                    asked.push(image.clone());
                    facts.add(want, Fact::Verdict(Some(answer(&image))));
                }
            }
        }
    }
}

/// A pod with one image in each place that there is for one.
fn pod(images: [&str; 4]) -> Value {
    json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "p" }, "spec": {
        "containers": [{ "name": "c", "image": images[0] }],
        "initContainers": [{ "name": "i", "image": images[1] }],
        "ephemeralContainers": [{ "name": "e", "image": images[2] }],
        "volumes": [{ "name": "v", "image": { "reference": images[3] } }] } })
}

fn images(pod: &Value) -> [&str; 4] {
    [
        "containers/0/image",
        "initContainers/0/image",
        "ephemeralContainers/0/image",
        "volumes/0/image/reference",
    ]
    .map(|place| pod.pointer(&format!("/spec/{place}")).and_then(Value::as_str).unwrap())
}

#[test]
fn t_05_a_tag_beside_a_digest_skips_nothing() {
    let denied = |skip: &str, image: &str| {
        let lines = format!("          skipImageReferences: [\"{skip}\"]\n          attestors:\n");
        let engine = engine(&[&CHECK.replace("          attestors:\n", &lines)], "");
        let create = review("CREATE", "default", &pod([image; 4]), None);
        !run(&engine, &create, Phase::Mutate, by_name).0.denials.is_empty()
    };
    let tagged = "registry.local/unsigned:3.9";
    let pinned = format!("{tagged}@{}", digest());
    let by_digest = format!("registry.local/unsigned@{}", digest());
    for (skip, image, is_denied) in [
        (tagged, tagged, false),
        (tagged, &pinned, true),
        ("*:3.9", &pinned, true),
        (&by_digest, &pinned, false),
        (&by_digest, tagged, true),
        ("registry.local/unsigned*", &pinned, false),
    ] {
        assert_eq!(denied(skip, image), is_denied, "{image} where {skip} is skipped");
    }
}

#[test]
fn t_20_nothing_that_a_pod_says_of_itself_counts() {
    let engine = engine(&[PREPEND, CHECK], "");
    let stored = format!("registry.local/unsigned:1@{}", digest());
    let before = format!("registry.local/good:1@{}", digest());
    let claims = json!({
        "kyverno.io/verify-images": format!("{{\"{stored}\":\"pass\",\"unsigned:1\":\"pass\"}}"),
        "policies.kyverno.io/last-applied-patches": "prepend-registry.check-image: replaced /spec/containers/0/image\n",
        "countersign.dev/verified": digest().to_string(),
        "countersign.dev/skip": "true",
        "zarf-agent": "patched",
        "zarf.dev/agent": "ignore",
        "prepend-registry": "disable",
        "pod-policies.kyverno.io/autogen-controllers": "none",
    });
    let mut markers = vec![Value::Null];
    for place in ["annotations", "labels"] {
        markers.push(json!({ "name": "p", place: claims }));
    }
    markers.push(json!({ "name": "kube-apiserver-n1", "annotations": {
        "kubernetes.io/config.mirror": "x", "kubernetes.io/config.source": "file" } }));
    markers.push(json!({ "name": "p", "ownerReferences": [
        { "apiVersion": "apps/v1", "kind": "DaemonSet", "name": "cilium", "uid": "1", "controller": true }] }));
    markers
        .push(json!({ "name": "p", "managedFields": [{ "manager": "countersign", "operation": "Update" }] }));
    markers.push(json!({ "name": "p", "deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["a/b"] }));
    markers.push(json!({ "generateName": "p-", "namespace": "kube-system" }));
    for metadata in markers {
        for image in ["unsigned:1", stored.as_str()] {
            let with = |image: &str| {
                let mut pod = pod([image; 4]);
                pod["metadata"] = metadata.clone();
                pod
            };
            let (object, old) = (with(image), with(&before));
            for (operation, old) in [("CREATE", None), ("UPDATE", Some(&old))] {
                for phase in [Phase::Mutate, Phase::Validate] {
                    let review = review(operation, "default", &object, old);
                    let (outcome, _) = run(&engine, &review, phase, by_name);
                    assert!(!outcome.denials.is_empty(), "{operation} {phase:?} {image} {metadata}");
                }
            }
        }
    }
}

#[test]
fn t_23_the_reference_verified_is_the_one_stored() {
    let written = [
        ["nginx", "quay.io/a/b:1", "docker.io/library/alpine:3", "index.docker.io/x/y"],
        ["Registry.Local/a:1", "registry.local:443/b", "host:5000/c:2", "[::1]:5000/d:3"],
        ["localhost/a", "registry.local.evil/b:1", "a.b/c:1@<d>", "a.b/c@<d>"],
    ];
    for site in ["", "  pinning: off\n", "  pinForm: digest\n"] {
        let engine = engine(&[PREPEND, CHECK], site);
        for texts in &written {
            let texts = texts.map(|text| text.replace("<d>", &digest().to_string()));
            let object = pod([0, 1, 2, 3].map(|index| texts[index].as_str()));
            let create = review("CREATE", "default", &object, None);
            let (outcome, asked) = run(&engine, &create, Phase::Mutate, by_name);
            assert!(outcome.denials.is_empty(), "{:?}", outcome.denials);
            for (stored, written) in images(&outcome.object).into_iter().zip(images(&object)) {
                // As it was asked about, with the digest that was found.
                let forms = |image: &Reference| {
                    let pinned = image.clone().with_digest(digest());
                    [image.clone(), pinned.clone(), pinned.without_tag()].map(|form| form.to_string())
                };
                let verified = asked.iter().any(|image| forms(image).iter().any(|form| form == stored));
                assert!(verified, "{site}: {written} is stored as {stored}: {asked:?}");
                assert!(stored.starts_with("registry.local/"), "{stored}");
                assert_eq!(stored.contains('@'), !site.contains("off") || written.contains('@'), "{stored}");
            }
            // The other side asks about what is stored, byte by byte, and about nothing else.
            let again = review("CREATE", "default", &outcome.object, None);
            let (outcome, asked) = run(&engine, &again, Phase::Validate, by_name);
            assert!(outcome.denials.is_empty(), "{:?}", outcome.denials);
            let asked: BTreeSet<String> = asked.iter().map(ToString::to_string).collect();
            let stored = images(again.object()).map(ToOwned::to_owned);
            assert_eq!(asked, BTreeSet::from(stored), "{site}");
        }
    }
    // Whatever comes in between is seen on the other side.
    let engine = engine(&[PREPEND, CHECK], "");
    let own = format!("registry.local/good:1@{}", digest());
    for (image, why) in [
        ("registry.local/good:1", "was not pinned"),
        ("registry.local/good", "was not pinned"),
        ("good:1", "was not pinned"),
        (&format!("registry.local/unsigned:1@{}", digest()), "Unsigned"),
        (&format!("unsigned@{}", Digest::sha256_of(b"another")), "Unsigned"),
    ] {
        for place in 0..4 {
            let mut images = [own.as_str(); 4];
            images[place] = image;
            let (outcome, _) =
                run(&engine, &review("CREATE", "default", &pod(images), None), Phase::Validate, by_name);
            assert!(outcome.denials.concat().contains(why), "{image} at {place}: {:?}", outcome.denials);
        }
    }
}

#[test]
fn t_24_a_mutation_that_failed_admits_no_tag() {
    let engine = engine(&[PREPEND, CHECK], "");
    let undecided = |image: &Reference| verdict(image, Found::Undecided);
    let object = pod(["good:1", "good:2", "registry.local/good:3", "registry.local/good"]);
    let create = review("CREATE", "default", &object, None);
    // The registry is down: the first side says no.
    let (outcome, _) = run(&engine, &create, Phase::Mutate, undecided);
    assert_eq!(outcome.denials.len(), 4, "{:?}", outcome.denials);
    assert!(outcome.denials.concat().contains("Undecided"));
    // Its no was lost, as that of a webhook that fails or is not asked: the other side has the pod as
    // it was written, and says no whatever the registry does by then.
    for answer in [&undecided as &dyn Fn(&Reference) -> Verdict, &verified_image, &by_name] {
        let (outcome, _) = run(&engine, &create, Phase::Validate, answer);
        assert_eq!(outcome.denials.len(), 4, "{:?}", outcome.denials);
        assert!(
            outcome.denials.iter().all(|denial| denial.contains("was not pinned")),
            "{:?}",
            outcome.denials
        );
    }
    // Where the policy admits what cannot be decided, what can be is still held against the pod.
    let lenient = CHECK.replace("failurePolicy: Fail", "failurePolicy: Ignore");
    let lenient = self::engine(&[PREPEND, &lenient], "");
    for (answer, denied) in
        [(&undecided as &dyn Fn(&Reference) -> Verdict, 0), (&verified_image, 4), (&by_name, 4)]
    {
        let (outcome, _) = run(&lenient, &create, Phase::Validate, answer);
        assert_eq!(outcome.denials.len(), denied, "{:?}", outcome.denials);
    }
    // A rule that fails on one image changes none: what the pod has is judged as it stands, or denied
    // at once where the rule's policy says so.
    let long = format!("quay.io/{:x<255}", "unsigned");
    let create = review("CREATE", "default", &pod(["good:1", "good:2", "good:3", &long]), None);
    let strict = PREPEND.replace("failurePolicy: Ignore", "failurePolicy: Fail");
    for (prepend, why) in [(PREPEND, "Unsigned"), (&strict, "failed to apply policy prepend-registry")] {
        let engine = self::engine(&[prepend, CHECK], "");
        let (outcome, asked) = run(&engine, &create, Phase::Mutate, by_name);
        assert!(outcome.denials.concat().contains(why), "{:?}", outcome.denials);
        assert!(asked.iter().any(|image| image.domain() == "quay.io"), "{asked:?}");
    }
}
