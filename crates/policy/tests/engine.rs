//! The shipped policies, and those that users wrote.
#![allow(clippy::unwrap_used, clippy::needless_pass_by_value, clippy::unnecessary_wraps, reason = "tests")]

mod common;

use common::*;
use countersign_policy::{Engine, Interest, Phase, Review, Want};
use countersign_verdict::{Code, Decision, Outcome as Found, Tier, Verdict};
use serde_json::{Value, json};

#[test]
fn every_carrier_is_rewritten_verified_and_pinned() {
    let engine = engine(&[PREPEND, CHECK], "");
    let mut object = pod(&["nginx", &format!("a.b/c@{}", digest())]);
    object["spec"]["initContainers"] = json!([{ "name": "i", "image": "quay.io/i:1" }]);
    object["spec"]["ephemeralContainers"] = json!([{ "name": "e", "image": "host:5000/e:1" }]);
    object["spec"]["volumes"] =
        json!([{ "name": "v", "image": { "reference": "quay.io/v:1" } }, { "name": "w", "emptyDir": {} }]);
    let review = review("CREATE", "default", object, None);
    let (outcome, asked) = run(&engine, &review, Phase::Mutate, Tier::Fail, &by_name);
    let d = digest();
    assert_eq!(
        images(&outcome.object),
        [
            format!("registry.local/docker.io/library/nginx:latest@{d}"),
            format!("registry.local/a.b/c@{d}"),
            format!("registry.local/quay.io/i:1@{d}"),
            format!("registry.local/host_5000/e:1@{d}"),
        ]
    );
    assert_eq!(
        outcome.object["spec"]["volumes"][0]["image"]["reference"],
        format!("registry.local/quay.io/v:1@{d}")
    );
    assert_eq!(outcome.object["spec"]["volumes"][1], json!({ "name": "w", "emptyDir": {} }));
    assert!(outcome.denials.is_empty() && outcome.warnings.is_empty(), "{outcome:?}");
    assert_eq!(asked.len(), 5, "all wants in one round");
}

#[test]
fn t33_one_bad_image_denies_wherever_it_stands() {
    let engine = engine(&[PREPEND, CHECK], "");
    for images in [["good:1", "unsigned:1"], ["unsigned:1", "good:1"]] {
        let review = review("CREATE", "default", pod(&images), None);
        for phase in [Phase::Mutate, Phase::Validate] {
            let (outcome, _) = run(&engine, &review, phase, Tier::Fail, &by_name);
            assert!(!outcome.denials.is_empty(), "{phase:?}");
        }
        let (outcome, _) = run(&engine, &review, Phase::Mutate, Tier::Fail, &by_name);
        let [denial] = outcome.denials.as_slice() else { panic!("{:?}", outcome.denials) };
        assert!(
            denial
                .contains("registry.local/docker.io/library/unsigned:1 was denied by check-image/site-keys")
        );
        assert!(denial.contains("written    unsigned:1") && denial.contains("hint: "), "{denial}");
    }
}

#[test]
fn an_update_leaves_alone_what_it_does_not_change() {
    let engine = engine(&[PREPEND, CHECK], "");
    let stored = format!("registry.local/docker.io/library/unsigned:1@{}", digest());
    for (incoming, old, expected) in [
        // Labels of a pod whose image is not verifiable any more.
        (stored.as_str(), stored.as_str(), stored.as_str()),
        // A pod of before the policy.
        ("unsigned:1", "unsigned:1", "unsigned:1"),
        // A bare pod applied again.
        ("unsigned:1", stored.as_str(), stored.as_str()),
    ] {
        let mut changed = pod(&[incoming]);
        changed["metadata"]["labels"] = json!({ "role": "master" });
        let review = review("UPDATE", "default", changed, Some(pod(&[old])));
        let (outcome, asked) = run(&engine, &review, Phase::Mutate, Tier::Fail, &by_name);
        assert_eq!((images(&outcome.object), asked.len()), (vec![expected], 0));
        assert!(outcome.denials.is_empty());
    }
    let review = review("UPDATE", "default", pod(&["unsigned:2"]), Some(pod(&["unsigned:1"])));
    assert!(
        !run(&engine, &review, Phase::Mutate, Tier::Fail, &by_name).0.denials.is_empty(),
        "a changed one is judged"
    );
}

#[test]
fn t25_only_added_ephemeral_containers_are_judged() {
    let engine = engine(&[PREPEND, CHECK], "");
    let old = pod(&["unsigned:1"]);
    let mut new = old.clone();
    new["spec"]["ephemeralContainers"] = json!([{ "name": "debug", "image": "tool:1" }]);
    let review = review("UPDATE", "default", new, Some(old));
    let (outcome, asked) = run(&engine, &review, Phase::Mutate, Tier::Fail, &by_name);
    assert_eq!(asked.len(), 1);
    assert_eq!(images(&outcome.object)[1], format!("registry.local/docker.io/library/tool:1@{}", digest()));
}

#[test]
fn audit_never_denies_never_waits_and_pins_what_is_at_hand() {
    for engine in [
        engine(&[PREPEND, &CHECK.replace("Enforce", "Audit")], ""),
        engine(&[PREPEND, CHECK], "  mode: audit\n"),
    ] {
        let review = review("CREATE", "default", pod(&["unsigned:1", "good:1", "new:1"]), None);
        let answer = |want: &Want| {
            assert!(!want.question().unwrap().1);
            if question(want).image.path().ends_with("new") { None } else { by_name(want) }
        };
        let (outcome, _) = run(&engine, &review, Phase::Mutate, Tier::Fail, &answer);
        assert!(outcome.denials.is_empty());
        assert_eq!(
            images(&outcome.object),
            [
                "registry.local/docker.io/library/unsigned:1".to_owned(),
                format!("registry.local/docker.io/library/good:1@{}", digest()),
                "registry.local/docker.io/library/new:1".to_owned(),
            ]
        );
        assert_eq!(outcome.results.iter().filter(|result| result.finding.verdict().is_none()).count(), 1);
        assert!(outcome.results.iter().all(|result| result.decision == Decision::Admit));
    }
}

#[test]
fn bootstrap_namespaces_keep_their_names_and_are_asked_for_where_the_node_looks() {
    let engine = engine(&[PREPEND, CHECK], "");
    let review = review("CREATE", "kube-system", pod(&["registry.k8s.io/coredns:1"]), None);
    let (outcome, asked) = run(&engine, &review, Phase::Mutate, Tier::Ignore, &by_name);
    assert_eq!(images(&outcome.object), [format!("registry.k8s.io/coredns:1@{}", digest())]);
    assert_eq!(question(&asked[0]).image.to_string(), "registry.local/registry.k8s.io/coredns:1");
}

#[test]
fn rewriting_takes_no_coverage_away() {
    let check = CHECK.replace("imageReferences: [\"*\"]", "imageReferences: [\"ghcr.io/acme/*\"]");
    let engine = engine(&[PREPEND, &check], "");
    for (image, covered) in [
        ("ghcr.io/acme/db:1", true),
        ("registry.local/ghcr.io/acme/db:1", true),
        ("ghcr.io.evil/acme/db:1", false),
    ] {
        let review = review("CREATE", "default", pod(&[image]), None);
        let (_, asked) = run(&engine, &review, Phase::Mutate, Tier::Fail, &by_name);
        assert_eq!(asked.len(), usize::from(covered), "{image}");
    }
}

#[test]
fn what_is_no_reference_or_too_much_is_denied() {
    let engine = engine(&[PREPEND, CHECK], "");
    for (image, code) in
        [("registry.local/Foo", "[bad-reference]"), ("registry_local.x/foo", "[bad-reference]")]
    {
        let review = review("CREATE", "default", pod(&[image]), None);
        let (outcome, _) = run(&engine, &review, Phase::Mutate, Tier::Fail, &by_name);
        assert!(outcome.denials[0].contains(code), "{:?}", outcome.denials);
    }
    let many: Vec<String> = (0..65).map(|number| format!("a:{number}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    for (count, denied) in [(64, false), (65, true)] {
        let review = review("CREATE", "default", pod(&many[..count]), None);
        let (outcome, _) = run(&engine, &review, Phase::Mutate, Tier::Fail, &by_name);
        assert_eq!(!outcome.denials.is_empty(), denied, "{count}");
    }
}

/// The policies as their users wrote them, nested variables and all.
const USERS: [&str; 2] = [
    include_str!("../../../examples/kyverno/prepend-registry/policy.yaml"),
    include_str!("../../../examples/kyverno/check-image/policy.yaml"),
];

#[test]
fn policies_run_as_their_users_wrote_them() {
    let engine = engine(&USERS, "");
    let mut object = pod(&["docker.io/csm/foo:1", "registry.local/x:1", "dtr.dev.cray.com/y:1"]);
    let create = |object: &Value| review("CREATE", "default", object.clone(), None);
    let (outcome, _) = run(&engine, &create(&object), Phase::Mutate, Tier::Fail, &by_name);
    let d = digest();
    let expected = ["registry.local/csm/foo:1", "registry.local/x:1", "registry.local/y:1"]
        .map(|image| format!("{image}@{d}"));
    assert_eq!(images(&outcome.object), expected);
    object["spec"]["initContainers"] = json!([{ "name": "setup-1", "image": "quay.io/a/b:1" }]);
    let (outcome, _) = run(&engine, &create(&object), Phase::Mutate, Tier::Fail, &by_name);
    assert_eq!(images(&outcome.object)[3], format!("registry.local/quay.io/a/b:1@{d}"));
    let excluded = json!({ "kind": "Pod", "metadata": { "name": "nexus-0" }, "spec": { "containers": [{ "name": "c", "image": "unsigned:1" }] } });
    let (outcome, asked) =
        run(&engine, &review("CREATE", "nexus", excluded, None), Phase::Mutate, Tier::Fail, &by_name);
    assert!(outcome.denials.is_empty() && asked.is_empty());
    // A value of the pod is never evaluated.
    let evil = pod(&["{{ request.operation }}"]);
    let (outcome, _) = run(&engine, &create(&evil), Phase::Mutate, Tier::Fail, &by_name);
    assert!(!outcome.denials.is_empty());
}

#[test]
fn every_name_that_an_image_may_have_had_is_covered() {
    let aliases = "  rewrite: { aliases: { dtr.dev.cray.com: '', a.example: v, b.example: v } }\n";
    for (pattern, image) in [
        ("dtr.dev.cray.com/*", "dtr.dev.cray.com/x/y:1"),
        ("docker.io/nginx:*", "nginx:1"),
        ("a.example/*", "a.example/x:1"),
        ("b.example/*", "b.example/x:1"),
        ("registry.local/*", "ghcr.io/x:1"),
    ] {
        let check = CHECK.replace("[\"*\"]", &format!("[\"{pattern}\"]"));
        let engine = engine(&[PREPEND, &check], aliases);
        for namespace in ["default", "kube-system"] {
            let review = review("CREATE", namespace, pod(&[image]), None);
            let (_, asked) = run(&engine, &review, Phase::Mutate, Tier::Fail, &by_name);
            assert_eq!(asked.len(), 1, "{pattern} {image} in {namespace}");
        }
    }
}

#[test]
fn where_the_undecided_is_admitted_both_sides_admit_it() {
    let undecided = |want: &Want| {
        let image = question(want).image.clone();
        Some(Verdict::because(image, Found::Undecided, Code::Unreachable, "no registry answers"))
    };
    let lenient = CHECK.replace("failurePolicy: Fail", "failurePolicy: Ignore");
    for (check, namespace, tier) in
        [(CHECK, "kube-system", Tier::Ignore), (lenient.as_str(), "default", Tier::Fail)]
    {
        let engine = engine(&[PREPEND, check], "");
        for phase in [Phase::Mutate, Phase::Validate] {
            let review = review("CREATE", namespace, pod(&["registry.local/a:1"]), None);
            let (outcome, _) = run(&engine, &review, phase, tier, &undecided);
            assert_eq!(outcome.denials, Vec::<String>::new(), "{namespace} {phase:?}");
            assert_eq!(outcome.warnings.len(), 1, "{namespace} {phase:?}");
        }
        // What is known is still pinned or denied.
        let review = review("CREATE", namespace, pod(&["registry.local/a:1"]), None);
        let (outcome, _) = run(&engine, &review, Phase::Validate, tier, &by_name);
        assert!(outcome.denials.concat().contains("was not pinned"), "{namespace}");
    }
}

#[test]
fn a_pod_of_far_too_many_images_is_not_worked_on() {
    let engine = engine(&[PREPEND, CHECK], "");
    let images = vec!["a:1"; 50_000];
    let review = review("CREATE", "default", pod(&images), None);
    let (outcome, asked) = run(&engine, &review, Phase::Mutate, Tier::Fail, &by_name);
    assert!(outcome.denials.len() <= 256 && !outcome.denials.is_empty() && asked.is_empty());
    assert_eq!(outcome.object, *review.object());
    let told: Vec<&String> = outcome.denials.iter().chain(&outcome.warnings).collect();
    assert!(told.iter().any(|text| text.contains("more than 256 images")), "{:?}", outcome.warnings);
    // Nor does it go on unchanged where nothing else denies it.
    let change = DENY.replace(
        "validate: { message: no host PID, pattern: { spec: { =(hostPID): false } } }",
        "mutate: { patchStrategicMerge: { spec: { hostPID: false } } }",
    );
    let (outcome, _) = run(&self::engine(&[&change], ""), &review, Phase::Mutate, Tier::Fail, &by_name);
    assert!(outcome.denials.concat().contains("more than 256 images"), "{outcome:?}");
}

#[test]
fn many_images_keep_no_other_rule_from_judging() {
    let engine = self::engine(&[DENY], "");
    let mut object = pod(&["a:1"; 300]);
    object["spec"]["hostPID"] = json!(true);
    let review = review("CREATE", "default", object, None);
    let (outcome, _) = run(&engine, &review, Phase::Validate, Tier::Fail, &by_name);
    assert!(outcome.denials.concat().contains("no host PID"), "{:?}", outcome.denials);
}

#[test]
fn an_update_without_new_images_meets_no_image_rule() {
    let lines = "      preconditions: { all: [{ key: \"{{ divide(length(request.object.kind), `0`) }}\", operator: Equals, value: x }] }\n";
    let engine = engine(&[&rule_with(lines)], "");
    let object = pod(&["registry.local/unsigned:1"]);
    let update = review("UPDATE", "default", object.clone(), Some(object.clone()));
    assert!(run(&engine, &update, Phase::Validate, Tier::Fail, &by_name).0.denials.is_empty());
    let create = review("CREATE", "default", object, None);
    assert!(!run(&engine, &create, Phase::Validate, Tier::Fail, &by_name).0.denials.is_empty());
}

#[test]
fn a_template_is_denied_where_autogen_speaks_of_it_and_else_warned_of() {
    let deployment = |image: &str| {
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "db" },
            "spec": { "template": { "spec": { "containers": [{ "name": "c", "image": image }] } } },
        })
    };
    let early = |engine: &Engine, image: &str| {
        let review = Review::of(json!({
            "operation": "CREATE", "namespace": "default",
            "kind": { "group": "apps", "version": "v1", "kind": "Deployment" }, "object": deployment(image),
        }));
        let answer = |want: &Want| {
            let image = &question(want).image;
            if image.path().contains("away") {
                return Some(Verdict::because(image.clone(), Found::Undecided, Code::Unreachable, "away"));
            }
            by_name(want)
        };
        let pod = review.of_template_pod().unwrap();
        let (outcome, _) = run(engine, &pod, Phase::Mutate, Tier::Fail, &answer);
        (outcome.denials.len(), outcome.warnings.len())
    };
    // The shipped policies change and judge pods alone: whoever applies a template is warned.
    let shipped = engine(&[PREPEND, CHECK], "");
    assert_eq!(early(&shipped, "quay.io/acme/db:1"), (0, 0));
    assert_eq!(early(&shipped, "quay.io/acme/unsigned:1"), (0, 1));
    let covering = engine(&[PREPEND, &CHECK.replace("controllers: none", "controllers: Deployment,Job")], "");
    assert_eq!(early(&covering, "quay.io/acme/db:1"), (0, 0));
    assert_eq!(early(&covering, "quay.io/acme/unsigned:1"), (1, 0));
    assert_eq!(early(&covering, "quay.io/acme/away:1"), (0, 1), "it may be back by then");
    // Besides, the rule that rewrites cannot read it.
    assert_eq!(early(&covering, "Not A Reference"), (1, 1));
    assert_eq!(early(&shipped, "Not A Reference"), (0, 2));
    let others = engine(&[PREPEND, &CHECK.replace("controllers: none", "controllers: Job")], "");
    assert_eq!(early(&others, "quay.io/acme/unsigned:1"), (0, 1));
}

#[test]
fn what_rules_speak_of_is_what_the_api_server_is_to_ask_about() {
    let rule = |spec: &str, kinds: &str, body: &str| {
        format!(
            "apiVersion: kyverno.io/v1\nkind: ClusterPolicy\nmetadata: {{ name: p }}\nspec:\n  {spec}\n  rules:\n    - name: r\n      match: {{ any: [{{ resources: {{ {kinds} }} }}] }}\n      {body}\n"
        )
    };
    let interests = |policy: &str, site: &str| -> Vec<String> {
        let found = engine(&[policy], site).interests();
        let shown = |interest: Interest| {
            let Interest { group, version, kind, subresource, operation, mutates, lenient, .. } = interest;
            let phase = if mutates { "mutate" } else { "validate" };
            let lenient = if lenient { " lenient" } else { "" };
            format!("{group}/{version}/{kind}/{subresource} {operation} {phase}{lenient}")
        };
        found.into_iter().map(shown).collect()
    };
    let enforce = "validationFailureAction: Enforce";
    let mutate = "mutate: { patchStrategicMerge: { metadata: { labels: { a: b } } } }";
    let pattern = "validate: { pattern: { metadata: { labels: { a: b } } } }";
    let deny = "validate: { deny: {} }";
    for (policy, site, expected) in [
        (rule(enforce, "kinds: [Job]", mutate), "", vec!["*/*/Job/ CREATE mutate", "*/*/Job/ UPDATE mutate"]),
        (
            rule(enforce, "kinds: [batch/v1/Job]", pattern),
            "",
            vec!["batch/v1/Job/ CREATE validate", "batch/v1/Job/ UPDATE validate"],
        ),
        (rule(enforce, "kinds: [Job], operations: [DELETE]", deny), "", vec!["*/*/Job/ DELETE validate"]),
        (rule(enforce, "kinds: [Pod/exec]", deny), "", vec!["*/*/Pod/exec CONNECT validate"]),
        (
            rule(enforce, "kinds: [Job]", deny),
            "  mode: audit\n",
            vec![
                "*/*/Job/ CREATE validate lenient",
                "*/*/Job/ DELETE validate lenient",
                "*/*/Job/ UPDATE validate lenient",
            ],
        ),
        (
            rule("failurePolicy: Ignore", "kinds: [Job], operations: [CREATE]", pattern),
            "",
            vec!["*/*/Job/ CREATE validate lenient"],
        ),
        (rule("admission: false", "kinds: [Job]", pattern), "", vec![]),
        // A rule's overrides add to what the policy says.
        (
            rule(
                enforce,
                "kinds: [Job], operations: [CREATE]",
                "validate: { failureActionOverrides: [{ action: Audit, namespaces: [dev] }], pattern: { kind: Job } }",
            ),
            "",
            vec!["*/*/Job/ CREATE validate"],
        ),
        (
            rule(
                enforce,
                "kinds: [Job], operations: [CREATE]",
                "validate: { failureAction: Audit, pattern: { kind: Job } }",
            ),
            "",
            vec!["*/*/Job/ CREATE validate lenient"],
        ),
        (
            rule(enforce, "kinds: [Pod/*]", pattern),
            "",
            vec!["*/*/Pod/* CONNECT validate", "*/*/Pod/* CREATE validate", "*/*/Pod/* UPDATE validate"],
        ),
    ] {
        assert_eq!(interests(&policy, site), expected, "{policy}");
    }
    // A rule for pods is one for what makes pods; and with images, templates are judged early.
    let pods = rule(enforce, "kinds: [Pod], operations: [CREATE]", pattern);
    assert!(interests(&pods, "").contains(&"*/*/CronJob/ CREATE validate".to_owned()));
    assert!(interests(CHECK, "").contains(&"apps/v1/Deployment/ UPDATE validate lenient".to_owned()));
}

#[test]
fn a_policy_of_a_namespace_speaks_of_what_is_in_it_and_not_of_the_namespace() {
    let own = |kind: &str| {
        format!(
            "apiVersion: kyverno.io/v1\nkind: Policy\nmetadata: {{ name: own, namespace: apps }}\nspec:\n  validationFailureAction: Enforce\n  rules:\n    - name: r\n      match: {{ any: [{{ resources: {{ kinds: ['{kind}'] }} }}] }}\n      validate: {{ message: no, deny: {{}} }}\n"
        )
    };
    let denied = |kind: &str, namespace: &str| {
        let request = json!({ "operation": "CREATE", "namespace": namespace, "kind": { "group": "", "version": "v1", "kind": kind },
            "object": { "kind": kind, "metadata": { "name": "apps" } } });
        let engine = engine(&[&own("*")], "");
        !run(&engine, &Review::of(request), Phase::Validate, Tier::Fail, &by_name).0.denials.is_empty()
    };
    assert!(denied("ConfigMap", "apps") && !denied("ConfigMap", "other"));
    // The API server names a Namespace as the namespace of itself.
    assert!(!denied("Namespace", "apps") && !denied("ClusterRole", ""));
    assert!(engine(&[&own("Namespace")], "").interests().is_empty());
    // What a tenant wants denies nobody anything where no replica answers.
    assert!(engine(&[&own("ConfigMap")], "").interests().iter().all(|interest| interest.lenient));
}

#[test]
fn who_cannot_be_judged_is_denied_where_a_rule_could_have_said_so() {
    let deny = |kinds: &str| {
        format!(
            "apiVersion: kyverno.io/v1\nkind: ClusterPolicy\nmetadata: {{ name: p }}\nspec:\n  validationFailureAction: Enforce\n  rules:\n    - name: r\n      match: {{ any: [{{ resources: {{ kinds: ['{kinds}'] }} }}] }}\n      validate: {{ deny: {{}} }}\n"
        )
    };
    let exec = Review::of(json!({ "operation": "CONNECT", "namespace": "default", "subResource": "exec",
        "kind": { "group": "", "version": "v1", "kind": "PodExecOptions" }, "resource": { "group": "", "version": "v1", "resource": "pods" } }));
    let create = review("CREATE", "default", pod(&["a:1"]), None);
    for (kinds, of_exec, of_pods) in [
        ("Pod", false, true),
        ("Pod/exec", true, false),
        ("Pod/*", true, true),
        ("*/*", true, true),
        ("Job", false, false),
    ] {
        let engine = engine(&[&deny(kinds)], "");
        assert_eq!(
            (engine.could_enforce(&exec), engine.could_enforce(&create)),
            (of_exec, of_pods),
            "{kinds}"
        );
    }
}
