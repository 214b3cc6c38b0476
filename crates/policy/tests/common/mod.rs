//! The engine with facts by hand, for the tests of this crate.
#![allow(dead_code, reason = "no test needs all of it")]
#![allow(
    clippy::needless_pass_by_value,
    clippy::unnecessary_wraps,
    reason = "reads better where it is called"
)]

use std::sync::Arc;

use countersign_policy::{Engine, Evaluation, Fact, Facts, Keys, Outcome, Phase, Policy, Review, Want, load};
use countersign_reference::{Digest, Reference};
use countersign_signature::sign::{Scheme, Signer};
use countersign_site::Site;
use countersign_verdict::{Code, Format, Outcome as Found, Proof, Question, Tier, Verdict};
use serde_json::{Value, json};

pub(crate) const PREPEND: &str = include_str!("../../../../policies/prepend-registry.yaml");
pub(crate) const CHECK: &str = include_str!("../../../../policies/check-image.yaml");

pub(crate) fn digest() -> Digest {
    Digest::sha256_of(b"an image")
}

pub(crate) fn site(extra: &str) -> Arc<Site> {
    let text = format!(
        "apiVersion: countersign.dev/v1alpha1\nkind: Site\nspec:\n  \
         registry: {{ name: registry.local, endpoints: [{{ name: a, url: 'http://127.0.0.1:5000' }}] }}\n  \
         bootstrapNamespaces: [kube-system]\n{extra}"
    );
    Arc::new(Site::parse(&text).unwrap())
}

pub(crate) fn policies(texts: &[&str]) -> Vec<Policy> {
    let key = Signer::generate(Scheme::EcdsaP256).unwrap().public_pem();
    let keys = Keys::of_site([("vendor".to_owned(), key)]);
    let documents = texts.iter().flat_map(|text| countersign_yaml::documents(text).unwrap());
    documents.filter_map(|document| load(&document, &keys)).collect()
}

pub(crate) fn engine(texts: &[&str], extra: &str) -> Engine {
    let policies = policies(texts);
    for policy in &policies {
        assert_eq!(policy.refusals, [], "{}", policy.name);
    }
    Engine::new(policies, site(extra))
}

pub(crate) fn pod(images: &[&str]) -> Value {
    let containers: Vec<_> = images
        .iter()
        .enumerate()
        .map(|(i, image)| json!({ "name": format!("c{i}"), "image": image }))
        .collect();
    json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "p" }, "spec": { "containers": containers } })
}

pub(crate) fn review(operation: &str, namespace: &str, object: Value, old: Option<Value>) -> Review {
    Review::of(json!({ "uid": "1", "operation": operation, "namespace": namespace, "kind": { "kind": "Pod" },
        "object": object, "oldObject": old }))
}

pub(crate) fn question(want: &Want) -> &Question {
    want.question().unwrap().0
}

pub(crate) fn verified(want: &Want) -> Verdict {
    verified_image(&question(want).image)
}

pub(crate) fn verified_image(image: &Reference) -> Verdict {
    let proof = Proof {
        digest: image.digest().cloned().unwrap_or_else(digest),
        keys: vec![],
        format: Format::CosignSig,
        source: "test".to_owned(),
        name: None,
        index: None,
        stale_since: None,
    };
    Verdict {
        image: image.clone(),
        digest: Some(proof.digest.clone()),
        outcome: Found::Verified(proof),
        endpoint: None,
        checks: vec![],
    }
}

/// Unsigned if the name says so.
pub(crate) fn by_name(want: &Want) -> Option<Verdict> {
    if question(want).image.path().contains("unsigned") {
        let image = question(want).image.clone();
        return Some(Verdict::because(
            image,
            Found::Unsigned,
            Code::NoSignature,
            "no signature in any format",
        ));
    }
    Some(verified(want))
}

/// Evaluates to the end, answering wants; also how many rounds and wants it took.
pub(crate) fn run(
    engine: &Engine,
    review: &Review,
    phase: Phase,
    tier: Tier,
    answer: &dyn Fn(&Want) -> Option<Verdict>,
) -> (Outcome, Vec<Want>) {
    let (mut facts, mut asked) = (Facts::default(), Vec::new());
    for _ in 0..16 {
        match engine.evaluate(review, phase, tier, &facts) {
            Evaluation::Done(outcome) => return (*outcome, asked),
            Evaluation::Needs(wants) => {
                for want in wants {
                    assert!(!asked.contains(&want), "asked twice");
                    facts.add(want.clone(), Fact::Verdict(answer(&want)));
                    asked.push(want);
                }
            }
        }
    }
    panic!("no end")
}

pub(crate) fn images(object: &Value) -> Vec<&str> {
    let lists = ["containers", "initContainers", "ephemeralContainers"];
    lists
        .iter()
        .flat_map(|list| object["spec"][list].as_array().into_iter().flatten())
        .filter_map(|container| container["image"].as_str())
        .collect()
}

pub(crate) const DENY: &str = "apiVersion: kyverno.io/v1\nkind: ClusterPolicy\nmetadata: { name: deny }\nspec:\n  validationFailureAction: Enforce\n  rules:\n    - name: r\n      match: { any: [{ resources: { kinds: [Pod] } }] }\n      validate: { message: no host PID, pattern: { spec: { =(hostPID): false } } }\n";

/// A check-image rule with these lines in it.
pub(crate) fn rule_with(lines: &str) -> String {
    CHECK.replace("      verifyImages:\n", &format!("{lines}      verifyImages:\n"))
}
