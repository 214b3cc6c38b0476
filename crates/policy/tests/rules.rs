//! Rules that judge and change objects, with contexts, exceptions and controllers.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use countersign_policy::{
    Engine, Evaluation, Exception, Fact, Facts, Keys, Kind, Moment, Outcome, Phase, Response, Review, Status,
    Want, load_given,
};
use countersign_reference::Reference;
use countersign_site::Site;
use countersign_verdict::{Code, Outcome as Found, Tier, Verdict};
use serde_json::{Value, json};

/// A policy with these rules.
fn policy(name: &str, spec: &str, rules: &str) -> String {
    format!(
        "apiVersion: kyverno.io/v1\nkind: ClusterPolicy\nmetadata: {{ name: {name} }}\nspec:\n  {spec}\n  rules:\n{rules}"
    )
}

const ENFORCE: &str = "validationFailureAction: Enforce";

fn site(more: &str) -> Arc<Site> {
    let text = format!(
        "apiVersion: countersign.dev/v1alpha1\nkind: Site\nspec:\n  registry: {{ name: registry.local, \
         endpoints: [{{ name: a, url: 'http://127.0.0.1:5000' }}] }}\n  exceptionNamespaces: [safe]\n{more}"
    );
    Arc::new(Site::parse(&text).unwrap())
}

fn engine_in(site: Arc<Site>, policies: &[String], exceptions: &[&str]) -> Engine {
    let read = |text: &String| {
        let policy = load_given(&countersign_yaml::document(text).unwrap(), &Keys::default()).unwrap();
        assert_eq!(policy.refusals, [], "{text}");
        policy
    };
    let exceptions = exceptions.iter().map(|text| {
        let exception = Exception::load(&countersign_yaml::document(text).unwrap()).unwrap();
        assert_eq!(exception.refusals, [], "{text}");
        exception
    });
    Engine::new(policies.iter().map(read).collect(), site).with_exceptions(exceptions.collect())
}

fn engine(policies: &[String]) -> Engine {
    engine_in(site(""), policies, &[])
}

#[expect(clippy::needless_pass_by_value, reason = "reads better where it is called")]
fn pod(spec: Value) -> Value {
    json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "db", "namespace": "apps" }, "spec": spec })
}

fn review(operation: &str, object: &Value, old: Option<&Value>) -> Review {
    let api = object["apiVersion"].as_str().unwrap();
    let (group, version) = api.split_once('/').unwrap_or(("", api));
    Review::of(json!({
        "operation": operation, "namespace": "apps",
        "kind": { "group": group, "version": version, "kind": object["kind"] },
        "object": object, "oldObject": old, "userInfo": { "username": "jane", "groups": ["dev"] },
    }))
}

/// Evaluates to the end; of facts there are a ConfigMap and labels of the namespace.
fn run(engine: &Engine, review: &Review, phase: Phase) -> Outcome {
    let mut facts = Facts::default();
    for _ in 0..8 {
        match engine.evaluate(review, phase, Tier::Fail, &facts) {
            Evaluation::Done(outcome) => return *outcome,
            Evaluation::Needs(wants) => {
                for want in wants {
                    let fact = match &want {
                        Want::ConfigMap { namespace, name }
                            if (&**namespace, &**name) == ("apps", "allowed") =>
                        {
                            Fact::Value(Ok(
                                json!({ "data": { "registry": "registry.local" }, "metadata": {} }),
                            ))
                        }
                        Want::ConfigMap { .. } => Fact::Value(Err("there is none".to_owned())),
                        Want::Namespace { .. } => Fact::Value(Ok(json!({ "tier": "gold" }))),
                        Want::Roles { username, .. } => Fact::Value(match username.as_str() {
                            "jane" => Ok(json!({ "roles": ["apps:edit"], "clusterRoles": ["view"] })),
                            _ => Err("nobody can say".to_owned()),
                        }),
                        Want::Verdict { question, .. } => {
                            let image = question.image.clone();
                            Fact::Verdict(Some(Verdict::because(
                                image,
                                Found::Unsigned,
                                Code::NoSignature,
                                "none",
                            )))
                        }
                    };
                    facts.add(want, fact);
                }
            }
        }
    }
    panic!("no end")
}

fn validate(engine: &Engine, object: &Value) -> Outcome {
    run(engine, &review("CREATE", object, None), Phase::Validate)
}

/// Status and message of the one rule that has something to say.
fn one(outcome: &Outcome) -> (Status, &str) {
    let [response] = outcome.responses.as_slice() else { panic!("{:#?}", outcome.responses) };
    (response.status, &response.message)
}

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
        assert!(engine.could_enforce("Pod", "apps"));
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
    for (kind, name) in [("Group", "system:authenticated"), ("User", "*"), ("User", "j*")] {
        assert!(!admits("strict", &by(kind, name)), "{kind} {name}");
    }
    assert!(Reference::parse("registry.local/a:1").is_ok());
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
