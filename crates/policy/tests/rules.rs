//! Rules that judge and change objects, and controllers.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "rules/world.rs"]
mod world;

use countersign_policy::{Engine, Kind, Phase, Response, Status};
use serde_json::{Value, json};
use world::*;

#[test]
fn what_judges_says_so_in_the_words_that_people_know() {
    let container = |image: &str| pod(json!({ "containers": [{ "name": "c", "image": image }] }));
    let rule = |validate: &str| {
        policy(
            "p",
            ENFORCE,
            &format!(
                "  - name: r\n    match: {{ any: [{{ resources: {{ kinds: [Pod] }} }}] }}\n    validate:\n{validate}"
            ),
        )
    };
    let (good, bad) = (container("registry.local/a:1"), container("a:latest"));
    for (body, words) in [
        (
            "      message: no latest\n      pattern: { spec: { containers: [{ image: '!*:latest' }] } }\n",
            "validation error: no latest. rule r failed at path /spec/containers/0/image/",
        ),
        (
            "      message: some\n      anyPattern: [{ spec: { containers: [{ image: 'registry.local/*' }] } }, { spec: { x: 1 } }]\n",
            "validation error: some. rule r[0] failed at path /spec/containers/0/image/ rule r[1] failed at path /spec/x/",
        ),
        (
            "      message: 'denied {{ request.object.metadata.name }}'\n      deny: { conditions: { any: [{ key: '{{ request.object.spec.containers[0].image }}', operator: AnyIn, value: ['*:latest'] }] } }\n",
            "denied db",
        ),
        (
            "      message: no latest\n      foreach: [{ list: request.object.spec.containers, pattern: { image: '!*:latest' } }]\n",
            "validation failure: validation error: no latest. rule r failed at path /image/",
        ),
        (
            "      message: 'not {{ element.image }}'\n      foreach: [{ list: request.object.spec.containers, preconditions: { all: [{ key: '{{ element.name }}', operator: Equals, value: c }] }, deny: { conditions: { all: [{ key: '{{ element.image }}', operator: Equals, value: '*:latest' }] } } }]\n",
            "validation failure: not a:latest",
        ),
    ] {
        let engine = engine(&[rule(body)]);
        let passed = validate(&engine, &good);
        assert_eq!((one(&passed).0, passed.denials.len()), (Status::Pass, 0), "{body} {passed:#?}");
        let failed = validate(&engine, &bad);
        assert_eq!(one(&failed), (Status::Fail, words), "{body}");
        let said = format!(
            "\n\nresource Pod/apps/db was blocked due to the following policies \n\np:\n  r: '{words}'\n"
        );
        assert_eq!(failed.denials, [said]);
        assert!(engine.could_enforce(&review("CREATE", &pod(json!({})), None)));
        // Audit denies nothing, and says nothing unless it is to.
        let audit = |more: &str| validate(&self::engine(&[rule(body).replace(ENFORCE, more)]), &bad);
        let (quiet, loud) = (audit("background: true"), audit("emitWarning: true"));
        assert!(quiet.denials.is_empty() && quiet.warnings.is_empty(), "{quiet:#?}");
        assert_eq!(loud.warnings, [format!("policy p.r: {words}")]);
    }
}

#[test]
fn who_enforces_where() {
    let rules = "  - name: r\n    match: { any: [{ resources: { kinds: [Pod] } }] }\n    validate: { pattern: { spec: { x: 1 } } }\n";
    let denied = |spec: &str, rules: &str| {
        !validate(&engine(&[policy("p", spec, rules)]), &pod(json!({}))).denials.is_empty()
    };
    assert!(
        denied(ENFORCE, rules)
            && !denied("validationFailureAction: audit", rules)
            && !denied("background: true", rules)
    );
    let overrides = |namespaces: &str| {
        format!(
            "validationFailureAction: Audit\n  validationFailureActionOverrides: [{{ action: enforce, namespaces: {namespaces} }}]"
        )
    };
    assert!(
        denied(&overrides("['ap*']"), rules)
            && !denied(&overrides("[other]"), rules)
            && denied(&overrides("[]"), rules)
    );
    let own = rules.replace("validate: {", "validate: { failureAction: Enforce,");
    assert!(denied("validationFailureAction: Audit", &own));
    let own = rules.replace("validate: {", "validate: { failureAction: Audit,");
    assert!(!denied(ENFORCE, &own));
}

#[test]
fn an_object_that_was_as_wrong_before_may_stay_so() {
    let rules = |more: &str| {
        policy(
            "p",
            ENFORCE,
            &format!(
                "  - name: r\n    match: {{ any: [{{ resources: {{ kinds: [Pod] }} }}] }}\n    validate: {{ {more} pattern: {{ metadata: {{ labels: {{ a: '?*' }} }} }} }}\n"
            ),
        )
    };
    let (bad, mut good) = (pod(json!({})), pod(json!({})));
    good["metadata"]["labels"] = json!({ "a": "b" });
    let updated =
        |engine: &Engine, old: &Value| run(engine, &review("UPDATE", &bad, Some(old)), Phase::Validate);
    let lenient = engine(&[rules("")]);
    assert_eq!(one(&updated(&lenient, &bad)).0, Status::Skip);
    assert!(!updated(&lenient, &good).denials.is_empty(), "it was not as wrong");
    assert!(!updated(&engine(&[rules("allowExistingViolations: false,")]), &bad).denials.is_empty());
    let audit = engine(&[rules("").replace(ENFORCE, "background: true")]);
    assert_eq!(one(&updated(&audit, &bad)).0, Status::Fail, "it is nobody's loss to be told of it");
    // Nothing was wrong with it when it was created: the rule speaks of updates.
    let to_updates =
        "preconditions: { all: [{ key: '{{ request.operation }}', operator: Equals, value: UPDATE }] }";
    let later = rules("").replace("    validate:", &format!("    {to_updates}\n    validate:"));
    assert!(!updated(&engine(&[later]), &bad).denials.is_empty());
    let later = rules("").replace("kinds: [Pod]", "kinds: [Pod], operations: [UPDATE]");
    assert!(!updated(&engine(&[later]), &bad).denials.is_empty());
}

#[test]
fn rules_bring_what_they_need_into_scope() {
    let rules = |context: &str| {
        policy(
            "p",
            ENFORCE,
            &format!(
                "  - name: r\n    match: {{ any: [{{ resources: {{ kinds: [Pod] }} }}] }}\n    context: [{context}]\n    preconditions: {{ all: [{{ key: '{{{{ request.operation }}}}', operator: NotEquals, value: DELETE }}] }}\n    validate: {{ deny: {{ conditions: {{ all: [{{ key: '{{{{ wanted }}}}', operator: NotEquals, value: registry.local }}] }} }} }}\n"
            ),
        )
    };
    for (context, status) in [
        ("{ name: wanted, variable: { value: registry.local } }", Status::Pass),
        ("{ name: wanted, variable: { value: other } }", Status::Fail),
        ("{ name: wanted, variable: { value: { a: registry.local }, jmesPath: a } }", Status::Pass),
        (
            "{ name: wanted, variable: { jmesPath: request.object.metadata.nowhere, default: registry.local } }",
            Status::Pass,
        ),
        ("{ name: wanted, variable: { jmesPath: request.object.metadata.nowhere } }", Status::Error),
        (
            "{ name: m, configMap: { name: allowed, namespace: '{{ request.namespace }}' } }, { name: wanted, variable: { jmesPath: m.data.registry } }",
            Status::Pass,
        ),
        (
            "{ name: m, configMap: { name: none, namespace: apps } }, { name: wanted, variable: { jmesPath: m.data.registry } }",
            Status::Error,
        ),
    ] {
        let outcome = validate(&engine(&[rules(context)]), &pod(json!({})));
        assert_eq!(one(&outcome).0, status, "{context}: {outcome:#?}");
        // What cannot be evaluated denies where failurePolicy is Fail.
        assert_eq!(outcome.denials.is_empty(), status == Status::Pass, "{context}");
    }
}

#[test]
fn rules_for_pods_judge_what_makes_pods() {
    let rules = "  - name: r\n    match: { any: [{ resources: { kinds: [Pod] } }] }\n    validate: { message: m, pattern: { spec: { hostPID: 'false' } } }\n";
    let engine = engine(&[policy("p", ENFORCE, rules)]);
    let of = |kind: &str, api: &str, spec: Value| json!({ "apiVersion": api, "kind": kind, "metadata": { "name": "db" }, "spec": spec });
    let template = json!({ "template": { "spec": { "hostPID": true } } });
    for (object, rule) in [
        (of("Deployment", "apps/v1", template.clone()), "autogen-r"),
        (of("CronJob", "batch/v1", json!({ "jobTemplate": { "spec": template } })), "autogen-cronjob-r"),
    ] {
        let outcome = validate(&engine, &object);
        let [Response { rule: found, status: Status::Fail, kind: Kind::Validation, denies: true, .. }] =
            outcome.responses.as_slice()
        else {
            panic!("{outcome:#?}")
        };
        assert_eq!(found, rule);
    }
}

#[test]
fn patches_of_both_kinds_and_loops_within_loops() {
    let rules = r#"
  - name: merge
    match: { any: [{ resources: { kinds: [Pod] } }] }
    mutate:
      foreach:
      - list: request.object.spec.containers
        preconditions: { all: [{ key: "{{ element.name }}", operator: NotEquals, value: skip }] }
        foreach:
        - list: element.ports || `[]`
          patchesJson6902: |-
            - { op: add, path: "/spec/containers/{{ elementIndex0 }}/ports/{{ elementIndex1 }}/name", value: "p{{ element1.port }}" }
  - name: operations
    match: { any: [{ resources: { kinds: [Pod] } }] }
    mutate:
      patchesJson6902: '[{"op":"add","path":"/metadata/labels/team","value":"x"}]'
  - name: anchored
    match: { any: [{ resources: { kinds: [Pod] } }] }
    mutate: { patchStrategicMerge: { spec: { "+(hostPID)": false, containers: [{ "(name)": "*", "+(tty)": true }] } } }
"#;
    let object = pod(json!({ "containers": [
        { "name": "a", "ports": [{ "port": 1 }, { "port": 2 }] }, { "name": "skip", "tty": false, "ports": [{ "port": 3 }] },
    ] }));
    let outcome = run(
        &engine(&[policy("p", "background: true", rules)]),
        &review("CREATE", &object, None),
        Phase::Mutate,
    );
    assert_eq!(
        outcome.responses.iter().map(|response| response.status).collect::<Vec<_>>(),
        [Status::Pass; 3],
        "{outcome:#?}"
    );
    assert_eq!(
        outcome.object["spec"],
        json!({ "hostPID": false, "containers": [
            { "name": "a", "tty": true, "ports": [{ "port": 1, "name": "p1" }, { "port": 2, "name": "p2" }] },
            { "name": "skip", "tty": false, "ports": [{ "port": 3 }] },
        ] })
    );
    assert_eq!(outcome.object["metadata"]["labels"]["team"], "x");
}

#[test]
fn one_rule_of_a_policy_may_be_enough() {
    let rule = |name: &str| {
        format!(
            "  - name: {name}\n    match: {{ any: [{{ resources: {{ kinds: [Pod] }} }}] }}\n    validate: {{ pattern: {{ kind: Pod }} }}\n"
        )
    };
    let rules = rule("a") + &rule("b");
    let count = |spec: &str| validate(&engine(&[policy("p", spec, &rules)]), &pod(json!({}))).responses.len();
    assert_eq!((count("applyRules: All"), count("applyRules: One")), (2, 1));
}

#[test]
fn requests_are_told_apart_by_all_that_is_known_of_them() {
    let selects = |matching: &str| {
        let rules = format!(
            "  - name: r\n    match: {{ any: [{matching}] }}\n    validate: {{ pattern: {{ kind: Pod }} }}\n"
        );
        let mut object = pod(json!({}));
        object["metadata"]["labels"] = json!({ "app": "db", "env": "prod" });
        object["metadata"]["annotations"] = json!({ "owner": "jane" });
        !validate(&engine(&[policy("p", "background: true", &rules)]), &object).responses.is_empty()
    };
    for (matching, expected) in [
        (
            "{ resources: { kinds: [v1/Pod], names: ['d*'], namespaces: ['a??s'], operations: [CREATE] } }",
            true,
        ),
        ("{ resources: { kinds: [Pod], operations: [UPDATE] } }", false),
        (
            "{ resources: { kinds: [Pod], selector: { matchLabels: { 'a*': 'd?' }, matchExpressions: [{ key: env, operator: In, values: [prod] }] } } }",
            true,
        ),
        (
            "{ resources: { kinds: [Pod], selector: { matchExpressions: [{ key: env, operator: NotIn, values: [prod] }] } } }",
            false,
        ),
        ("{ resources: { kinds: [Pod], annotations: { owner: 'j*' } } }", true),
        ("{ resources: { kinds: [Pod], namespaceSelector: { matchLabels: { tier: gold } } } }", true),
        (
            "{ resources: { kinds: [Pod], namespaceSelector: { matchExpressions: [{ key: tier, operator: DoesNotExist }] } } }",
            false,
        ),
        ("{ resources: { kinds: [Pod] }, subjects: [{ kind: User, name: jane }] }", true),
        ("{ resources: { kinds: [Pod] }, subjects: [{ kind: Group, name: ops }] }", false),
        ("{ resources: { kinds: [Pod] }, roles: ['apps:ed*'] }", true),
        ("{ resources: { kinds: [Pod] }, roles: ['other:edit'] }", false),
        ("{ resources: { kinds: [Pod] }, clusterRoles: [admin, view] }", true),
        ("{ resources: { kinds: [Pod] }, clusterRoles: [edit] }", false),
    ] {
        assert_eq!(selects(matching), expected, "{matching}");
    }
}

#[test]
fn an_element_that_cannot_be_asked_about_is_not_left_out() {
    let rules = "  - name: r\n    match: { any: [{ resources: { kinds: [Pod] } }] }\n    validate:\n      message: no\n      foreach:\n        - list: request.object.spec.containers\n          preconditions: { all: [{ key: \"{{ element.args[0] || '' }}\", operator: NotEquals, value: x }] }\n          pattern: { securityContext: { privileged: false } }\n";
    let engine = engine(&[policy("p", ENFORCE, rules)]);
    let of = |argument: &str| {
        let container = json!({ "name": "c", "args": [argument], "securityContext": { "privileged": true } });
        validate(&engine, &pod(json!({ "containers": [container] })))
    };
    assert_eq!(one(&of("x")).0, Status::Skip);
    assert_eq!(one(&of("y")).0, Status::Fail);
    // What a pod's author writes there takes no rule away.
    let outcome = of("{{");
    assert!(one(&outcome).0 == Status::Error && !outcome.denials.is_empty(), "{outcome:#?}");
}

#[test]
fn an_error_is_not_the_last_word_of_a_policy() {
    let spec = "validationFailureAction: Enforce\n  failurePolicy: Ignore\n  applyRules: One";
    let rule = |name: &str, key: &str| {
        format!(
            "  - name: {name}\n    match: {{ any: [{{ resources: {{ kinds: [Pod] }} }}] }}\n    validate: {{ message: no, deny: {{ conditions: {{ all: [{{ key: \"{key}\", operator: Equals, value: true }}] }} }} }}\n"
        )
    };
    let rules = rule("odd", "{{ request.object.metadata.labels.odd }}")
        + &rule("good", "{{ request.object.spec.hostPID }}");
    let engine = engine(&[policy("p", spec, &rules)]);
    let mut object = pod(json!({ "hostPID": true }));
    object["metadata"]["labels"] = json!({ "odd": "{{" });
    let outcome = validate(&engine, &object);
    let statuses: Vec<Status> = outcome.responses.iter().map(|response| response.status).collect();
    assert_eq!(statuses, [Status::Error, Status::Fail]);
    assert!(!outcome.denials.is_empty());
}
