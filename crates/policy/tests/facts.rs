//! What rules ask about, the time, and what all of it may cost.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "rules/world.rs"]
mod world;

use countersign_policy::{Evaluation, Fact, Facts, Moment, Phase, Response, Status, Want};
use countersign_verdict::Tier;
use serde_json::{Value, json};
use world::*;

#[test]
fn who_cannot_be_known_is_judged_and_not_excluded() {
    let verdict = |part: &str| {
        let rules = format!(
            "  - name: r\n    match: {{ any: [{{ resources: {{ kinds: [Pod] }} {part}\n    validate: {{ message: no, deny: {{}} }}\n"
        );
        let mut review = review("CREATE", &pod(json!({})), None);
        review.request["userInfo"]["username"] = json!("joe");
        !run(&engine(&[policy("p", ENFORCE, &rules)]), &review, Phase::Validate).denials.is_empty()
    };
    assert!(verdict(", clusterRoles: [edit] }] }"));
    assert!(verdict("}] }\n    exclude: { any: [{ clusterRoles: [edit] }] }"));
    assert!(!verdict(", subjects: [{ kind: User, name: jane }] }] }"));
}

#[test]
fn labels_that_nobody_knows_let_nothing_go() {
    let denies = |list: &str, fact: Result<Value, String>| {
        let spec = format!("validationFailureAction: Audit\n  validationFailureActionOverrides: [{list}]");
        let rules = "  - name: r\n    match: { any: [{ resources: { kinds: [Pod] } }] }\n    validate: { deny: {} }\n";
        let engine = engine(&[policy("p", &spec, rules)]);
        let mut facts = Facts::default();
        facts.add(Want::Namespace { name: "apps".to_owned() }, Fact::Value(fact));
        let review = review("CREATE", &pod(json!({})), None);
        match engine.evaluate(&review, Phase::Validate, Tier::Fail, &facts) {
            Evaluation::Done(outcome) => !outcome.denials.is_empty(),
            Evaluation::Needs(wants) => panic!("{wants:?}"),
        }
    };
    let (gold, unknown) = (|| Ok(json!({ "tier": "gold" })), || Err("nobody knows".to_owned()));
    let selector = "namespaceSelector: { matchLabels: { tier: gold } }";
    let enforce = format!("{{ action: Enforce, {selector} }}");
    let audit = format!("{{ action: Audit, {selector} }}, {{ action: Enforce }}");
    assert!(denies(&enforce, gold()) && denies(&enforce, unknown()) && !denies(&enforce, Ok(json!({}))));
    assert!(!denies(&audit, gold()) && denies(&audit, unknown()) && denies(&audit, Ok(json!({}))));
}

#[test]
fn all_rules_together_do_so_much_work_for_one_request() {
    let rule = |name: &str, what: &str| {
        format!("  - name: {name}\n    match: {{ any: [{{ resources: {{ kinds: [Pod] }} }}] }}\n    {what}\n")
    };
    let heavy = "validate: { foreach: [{ list: 'request.object.spec.containers[0].env', deny: { conditions: { any: [{ key: \"{{ length(request.object.spec.containers[0].env[?name == 'x']) }}\", operator: GreaterThan, value: 0 }] } } }] }";
    let lists = "validate: { foreach: [{ list: 'request.object.spec.containers[0].env', deny: { conditions: { any: [{ key: '{{ request.object.spec.containers[0].env[].name }}', operator: AnyIn, value: '{{ request.object.spec.containers[0].env[].value }}' }] } } }] }";
    let patterns = "validate: { foreach: [{ list: 'request.object.spec.containers[0].env', elementScope: false, pattern: { spec: { containers: [{ env: [{ name: '?*' }] }] } } }] }";
    let patches = "mutate: { foreach: [{ list: 'request.object.spec.containers[0].env', patchesJson6902: '- { op: add, path: /metadata/a, value: b }' }] }";
    let env: Vec<Value> = (0..5_000)
        .map(|number| json!({ "name": format!("n{number}"), "value": format!("v{number}") }))
        .collect();
    let object = pod(json!({ "containers": [{ "name": "c", "image": "a", "env": env }] }));
    for what in [heavy, lists, patterns, patches] {
        let rules = rule("heavy", what) + &rule("after", "validate: { pattern: { kind: Pod } }");
        let phase = if what.starts_with("mutate") { Phase::Mutate } else { Phase::Validate };
        let outcome = run(&engine(&[policy("p", ENFORCE, &rules)]), &review("CREATE", &object, None), phase);
        let Response { status, message, .. } = &outcome.responses[0];
        assert!(*status == Status::Error && message.contains("too "), "{what}: {status:?} {message}");
        assert!(!outcome.denials.is_empty(), "{what}");
    }
    // Whoever makes a rule fail by that is not let go for it.
    let lenient = format!("{ENFORCE}\n  failurePolicy: Ignore");
    let outcome = validate(&engine(&[policy("p", &lenient, &rule("heavy", heavy))]), &object);
    assert!(!outcome.denials.is_empty());
    let zero = "validate: { deny: { conditions: { any: [{ key: \"{{ divide(`1`, `0`) }}\", operator: Equals, value: 1 }] } } }";
    let outcome = validate(&engine(&[policy("p", &lenient, &rule("zero", zero))]), &object);
    assert!(outcome.denials.is_empty(), "an error of another kind is what failurePolicy says");
    // A policy of the namespace comes after those of the cluster, whatever it is called.
    let tenant = policy("aaa", ENFORCE, &rule("heavy", heavy))
        .replace("ClusterPolicy", "Policy")
        .replace("name: aaa", "name: aaa, namespace: apps");
    let cluster = policy("zzz", ENFORCE, &rule("after", "validate: { pattern: { kind: Pod } }"));
    let outcome = validate(&engine(&[tenant, cluster]), &object);
    let status = |policy: &str| {
        outcome.responses.iter().find(|response| response.policy == policy).map(|found| found.status)
    };
    assert_eq!((status("zzz"), status("apps/aaa")), (Some(Status::Pass), Some(Status::Error)));
    // Letters count where there are wildcards.
    let compare = "validate: { deny: { conditions: { any: [{ key: '{{ request.object.metadata.annotations.a }}', operator: Equals, value: '{{ request.object.metadata.annotations.b }}' }] } } }";
    let mut long = object;
    long["metadata"]["annotations"] =
        json!({ "a": "a".repeat(60_000), "b": format!("*{}b", "a".repeat(50_000)) });
    let outcome = validate(&engine(&[policy("p", ENFORCE, &rule("long", compare))]), &long);
    assert_eq!(
        one(&outcome),
        (Status::Error, "the expression is beyond its limits: too much work for one request")
    );
}

#[test]
fn the_time_and_random_texts_are_frozen_for_a_request() {
    let rules = "  - name: r
    match: { any: [{ resources: { kinds: [Pod] } }] }
    context:
      - { name: now, variable: { jmesPath: time_now_utc() } }
      - { name: word, variable: { value: \"{{ random('[a-z]{8}') }}\" } }
    mutate: { patchStrategicMerge: { metadata: { annotations: { now: '{{ now }}', word: '{{ word }}' } } } }
";
    let engine = engine(&[policy("p", "background: false", rules)]);
    let at = |seed: Option<u64>| {
        let mut review = review("CREATE", &pod(json!({})), None);
        review.moment = seed.map(|seed| Moment { now: "2026-06-01T00:00:00Z".parse().unwrap(), seed });
        run(&engine, &review, Phase::Mutate)
    };
    let [first, again, other] =
        [1, 1, 2].map(|seed| at(Some(seed)).object["metadata"]["annotations"].clone());
    assert_eq!((&first["now"], &first), (&json!("2026-06-01T00:00:00Z"), &again));
    assert_ne!(first["word"], other["word"]);
    assert_eq!(at(None).responses[0].status, Status::Error, "nobody says when it is");
}

#[test]
fn a_config_map_is_asked_for_by_a_name_and_nothing_else() {
    for (name, namespace, reason) in [
        ("{{ request.object.metadata.labels.map }}", "apps", "`../../secrets/x` is no name of an object"),
        (
            "allowed",
            "{{ request.object.metadata.labels.map }}",
            "`../../secrets/x` is no namespace of an object",
        ),
        ("Allowed", "apps", "is no name"),
    ] {
        let rules = format!(
            "  - name: r\n    match: {{ any: [{{ resources: {{ kinds: [Pod] }} }}] }}\n    context: [{{ name: map, configMap: {{ name: '{name}', namespace: '{namespace}' }} }}]\n    validate: {{ deny: {{ conditions: {{ any: [{{ key: '{{{{ map.data.registry }}}}', operator: Equals, value: x }}] }} }} }}\n"
        );
        let mut object = pod(json!({}));
        object["metadata"]["labels"] = json!({ "map": "../../secrets/x" });
        let outcome = validate(&engine(&[policy("p", ENFORCE, &rules)]), &object);
        let (status, message) = one(&outcome);
        assert!(status == Status::Error && message.contains(reason), "{status:?} {message}");
        assert!(!outcome.denials.is_empty());
    }
}

#[test]
fn elements_that_need_facts_are_asked_about_together() {
    let body = |entry: &str| {
        format!("  - name: r\n    match: {{ any: [{{ resources: {{ kinds: [Pod] }} }}] }}\n    {entry}\n")
    };
    let map = "context: [{ name: map, configMap: { name: '{{ element.name }}', namespace: apps } }]";
    let judged = body(&format!(
        "validate: {{ foreach: [{{ list: request.object.spec.containers, {map}, deny: {{}} }}] }}"
    ));
    let changed = body(&format!(
        "mutate: {{ foreach: [{{ list: request.object.spec.containers, {map}, patchStrategicMerge: {{ a: b }} }}] }}"
    ));
    let entries: Vec<String> = (0..20)
        .map(|number| format!("{{ name: m{number}, configMap: {{ name: c{number}, namespace: apps }} }}"))
        .collect();
    let context = body(&format!("context: [{}]\n    validate: {{ deny: {{}} }}", entries.join(", ")));
    let containers: Vec<Value> =
        (0..20).map(|number| json!({ "name": format!("c{number}"), "image": "a" })).collect();
    let object = pod(json!({ "containers": containers }));
    for (rules, phase) in [(judged, Phase::Validate), (changed, Phase::Mutate), (context, Phase::Validate)] {
        let engine = engine(&[policy("p", ENFORCE, &rules)]);
        match engine.evaluate(&review("CREATE", &object, None), phase, Tier::Fail, &Facts::default()) {
            Evaluation::Needs(wants) => assert_eq!(wants.len(), 20, "{rules}"),
            Evaluation::Done(outcome) => panic!("{outcome:?}"),
        }
    }
}

#[test]
fn facts_are_asked_for_once_however_many_rules_want_them() {
    let context = |name: &str| {
        format!(
            "  - name: {name}\n    match: {{ any: [{{ resources: {{ kinds: [Pod] }} }}] }}\n    context: [{{ name: m, configMap: {{ name: {name}, namespace: apps }} }}]\n    validate: {{ message: no, deny: {{}} }}\n"
        )
    };
    let rules: String = ["a", "b", "a"].map(context).concat();
    let engine = engine(&[policy("p", ENFORCE, &rules)]);
    let review = review("CREATE", &pod(json!({})), None);
    let Evaluation::Needs(wants) = engine.evaluate(&review, Phase::Validate, Tier::Fail, &Facts::default())
    else {
        panic!("nothing is lacking")
    };
    assert_eq!(wants.len(), 2, "{wants:?}");
}
