//! Exceptions: what they lift, for whom, and for how long.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "rules/world.rs"]
mod world;

use countersign_policy::{Exception, Moment, Phase, Status};
use serde_json::{Value, json};
use world::*;

const POD_SECURITY: &str = "  - name: baseline\n    match: { any: [{ resources: { kinds: [Pod] } }] }\n    validate: { podSecurity: { level: baseline, version: latest } }\n";

fn exception(name: &str, namespace: &str, matching: &str, more: &str) -> String {
    format!(
        "apiVersion: kyverno.io/v2\nkind: PolicyException\nmetadata: {{ name: {name}, namespace: {namespace} }}\nspec:\n  \
         exceptions: [{{ policyName: p, ruleNames: [baseline, r] }}]\n  match: {{ any: [{matching}] }}\n{more}"
    )
}

const APPS: &str = "{ resources: { kinds: [Pod], namespaces: [apps] } }";

#[test]
fn t_32_two_exceptions_lift_nothing_that_neither_lifts() {
    let lifts = |control: &str, field: &str| {
        format!("  podSecurity: [{{ controlName: {control}, restrictedField: {field}, values: ['true'] }}]\n")
    };
    let pid = exception("pid", "safe", APPS, &lifts("Host Namespaces", "spec.hostPID"));
    let ipc = exception("ipc", "safe", APPS, &lifts("Host Namespaces", "spec.hostIPC"));
    let status = |exceptions: &[&str], spec: Value| {
        let engine = engine_in(site(""), &[policy("p", ENFORCE, POD_SECURITY)], exceptions);
        let outcome = validate(&engine, &pod(spec));
        (one(&outcome).0, outcome.denials.is_empty())
    };
    let (one_of, both) = (json!({ "hostPID": true }), json!({ "hostPID": true, "hostIPC": true }));
    assert_eq!(status(&[], one_of.clone()), (Status::Fail, false));
    assert_eq!(status(&[&pid], one_of.clone()), (Status::Skip, true));
    assert_eq!(status(&[&ipc], one_of.clone()), (Status::Fail, false));
    assert_eq!(status(&[&pid, &ipc], both), (Status::Fail, false), "neither lifts both");
    // Only from the namespaces that the Site names, and only for whom it is.
    let elsewhere = exception("pid", "tenant", APPS, "");
    assert_eq!(status(&[&elsewhere], one_of.clone()), (Status::Fail, false));
    let other = exception("pid", "safe", "{ resources: { kinds: [Pod], namespaces: [other] } }", "");
    assert_eq!(status(&[&other], one_of), (Status::Fail, false));
}

#[test]
fn an_exception_ends() {
    let text = exception("e", "safe", APPS, "").replace(
        "namespace: safe }",
        "namespace: safe, annotations: { countersign.dev/expires: '2027-01-01' } }",
    );
    let engine = engine_in(site(""), &[policy("p", ENFORCE, POD_SECURITY)], &[&text]);
    let at = |now: Option<&str>| {
        let mut review = review("CREATE", &pod(json!({ "hostPID": true })), None);
        review.moment = now.map(|now| Moment { now: now.parse().unwrap(), seed: 1 });
        run(&engine, &review, Phase::Validate).denials.is_empty()
    };
    assert!(at(Some("2026-12-31T00:00:00Z")));
    assert!(!at(Some("2027-01-01T00:00:00Z")) && !at(None), "what has an end needs a time");
    let malformed = text.replace("2027-01-01", "soon");
    let exception = Exception::load(&countersign_yaml::document(&malformed).unwrap()).unwrap();
    assert!(exception.refusals[0].to_string().contains("`soon` is not a date"), "{:?}", exception.refusals);
}

#[test]
fn an_exception_that_authors_of_pods_could_give_themselves_lifts_no_verification() {
    let rules = "  - name: r\n    match: { any: [{ resources: { kinds: [Pod] } }] }\n    verifyImages: [{ imageReferences: ['*'], attestors: [{ entries: [{ keys: { publicKeys: \"KEY\" } }] }] }]\n";
    let key = countersign_signature::sign::Signer::generate(countersign_signature::sign::Scheme::EcdsaP256)
        .unwrap();
    let rules = rules.replace("KEY", &key.public_pem().trim().replace('\n', "\\n"));
    let object = pod(json!({ "containers": [{ "name": "c", "image": "registry.local/a:1" }] }));
    let admits = |mode: &str, matching: &str| {
        let site = site(&format!("  exceptions: {mode}\n  pinning: off\n"));
        let engine =
            engine_in(site, &[policy("p", ENFORCE, &rules)], &[&exception("e", "safe", matching, "")]);
        run(&engine, &review("CREATE", &object, None), Phase::Mutate).denials.is_empty()
    };
    let by_name = "{ resources: { kinds: [Pod], names: ['*db*'] } }";
    assert!(admits("compatible", by_name) && !admits("strict", by_name));
    assert!(!admits("strict", "{ resources: { kinds: [Pod], namespaces: ['*'] } }"));
    assert!(admits("strict", "{ resources: { kinds: [Pod], names: ['*db*'], namespaces: [apps] } }"));
    // Who makes the pod bounds it, unless that is anybody.
    let by = |kind: &str, name: &str| {
        format!("{{ resources: {{ kinds: [Pod] }}, subjects: [{{ kind: {kind}, name: '{name}' }}] }}")
    };
    assert!(admits("strict", &by("Group", "dev")));
    // Whoever may bind a role gives it away.
    assert!(!admits("strict", "{ resources: { kinds: [Pod] }, clusterRoles: [view] }"));
    for (kind, name) in [("Group", "system:authenticated"), ("User", "*"), ("User", "j*")] {
        assert!(!admits("strict", &by(kind, name)), "{kind} {name}");
    }
}
