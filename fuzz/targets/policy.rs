//! Policies and exceptions, as a list of documents, held against a pod: each is read to its end, nothing of it is
//! passed over in silence, and what it says of the pod is an answer.
#![no_main]

use std::sync::{Arc, LazyLock};

use countersign_policy::{
    Engine, Evaluation, Exception, Fact, Facts, Keys, Moment, Phase, Policy, Review, Surroundings, Want,
    lint, load, load_given,
};
use countersign_site::Site;
use countersign_verdict::Tier;
use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};

const SITE: &str = "apiVersion: countersign.dev/v1alpha1\nkind: Site\nspec:\n  registry: { name: registry.local, endpoints: [{ name: a, url: 'http://127.0.0.1:5000' }] }\n  exceptionNamespaces: [safe]\n";
static PLACE: LazyLock<Option<Arc<Site>>> = LazyLock::new(|| Site::parse(SITE).ok().map(Arc::new));
static KEYS: LazyLock<Keys> = LazyLock::new(|| Keys {
    stand_in: Some(include_str!("../keys/trusted.pub").to_owned()),
    ..Keys::default()
});

fuzz_target!(|bytes: &[u8]| {
    let Ok(documents) = serde_json::from_slice::<Vec<Value>>(bytes) else { return };
    let (mut policies, mut exceptions) = (Vec::new(), Vec::new());
    for document in &documents {
        if let Some(policy) = load(document, &KEYS) {
            is_told(document, &policy);
            policies.push(policy);
        }
        _ = load_given(document, &Keys::default());
        exceptions.extend(Exception::load(document));
    }
    let surroundings = Surroundings { keys: &KEYS, exception_namespaces: None, now: Timestamp::UNIX_EPOCH };
    for found in lint(&documents, surroundings) {
        assert!(found.document < documents.len() && !found.path.is_empty() && !found.message.is_empty());
    }
    let Some(site) = PLACE.as_ref() else { return };
    let engine = Engine::new(policies, Arc::clone(site)).with_exceptions(exceptions);
    _ = engine.interests();
    for operation in ["CREATE", "UPDATE", "DELETE"] {
        let review = review(operation);
        for phase in [Phase::Mutate, Phase::Validate] {
            evaluate(&engine, &review, phase);
        }
        if let Some(pod) = of_deployment(operation).of_template_pod() {
            evaluate(&engine, &pod, Phase::Mutate);
        }
    }
});

/// Whatever is refused or ignored has a place, and a field that nobody knows is refused.
fn is_told(document: &Value, policy: &Policy) {
    for told in policy.refusals.iter().chain(&policy.warnings) {
        assert!(!told.path.is_empty() && !told.reason.is_empty(), "{told:?}");
    }
    let mut more = document.clone();
    if more["spec"].is_object() {
        more["spec"]["zz-unheard-of"] = json!(1);
        let refused = load(&more, &KEYS)
            .is_some_and(|policy| policy.refusals.iter().any(|refusal| refusal.path == "spec.zz-unheard-of"));
        assert!(refused, "a field that nobody knows is passed over");
    }
}

fn pod() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": "db", "namespace": "apps", "labels": { "app": "db" }, "annotations": { "owner": "jane" } },
        "spec": {
            "hostPID": true, "volumes": [{ "name": "v", "hostPath": { "path": "/var/log" } }],
            "initContainers": [{ "name": "i", "image": "quay.io/acme/init:1" }],
            "containers": [
                { "name": "a", "image": "ghcr.io/acme/db:1", "resources": { "limits": { "memory": "1Gi" } } },
                { "name": "b", "image": "nginx", "securityContext": { "privileged": true } },
            ],
        },
    })
}

fn review(operation: &str) -> Review {
    let (object, old) = match operation {
        "CREATE" => (pod(), Value::Null),
        "UPDATE" => (pod(), pod()),
        _ => (Value::Null, pod()),
    };
    of(json!({
        "uid": "1", "operation": operation, "namespace": "apps", "name": "db",
        "kind": { "group": "", "version": "v1", "kind": "Pod" }, "object": object, "oldObject": old,
        "userInfo": { "username": "system:serviceaccount:apps:bot", "groups": ["dev"] },
    }))
}

fn of_deployment(operation: &str) -> Review {
    let object = json!({ "metadata": { "name": "db" }, "spec": { "template": { "spec": pod()["spec"] } } });
    of(json!({
        "operation": operation, "namespace": "apps", "object": object,
        "kind": { "group": "apps", "version": "v1", "kind": "Deployment" },
    }))
}

fn of(request: Value) -> Review {
    let mut review = Review::of(request);
    review.moment = Some(Moment { now: Timestamp::UNIX_EPOCH, seed: 1 });
    review
}

/// To its end: nothing is found out, which is an answer, too.
fn evaluate(engine: &Engine, review: &Review, phase: Phase) {
    let mut facts = Facts::default();
    for _ in 0..16 {
        match engine.evaluate(review, phase, Tier::Fail, &facts) {
            Evaluation::Done(outcome) => {
                assert!(outcome.denials.iter().all(|denial| !denial.is_empty()));
                return;
            }
            Evaluation::Needs(wants) => {
                assert!(!wants.is_empty(), "it waits for nothing");
                for want in wants {
                    let nothing = match &want {
                        Want::Verdict { .. } => Fact::Verdict(None),
                        _ => Fact::Value(Err("nobody knows".to_owned())),
                    };
                    facts.add(want, nothing);
                }
            }
        }
    }
}
