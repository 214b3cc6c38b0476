//! The engine with facts by hand: the shipped policies, and those that users wrote.
#![allow(clippy::unwrap_used, clippy::needless_pass_by_value, clippy::unnecessary_wraps, reason = "tests")]

use std::sync::Arc;

use countersign_policy::{
    Engine, Evaluation, Fact, Facts, Keys, Outcome, Phase, Policy, Review, SecretKeys, Want, load,
};
use countersign_reference::Digest;
use countersign_signature::sign::{Scheme, Signer};
use countersign_site::Site;
use countersign_verdict::{Code, Decision, Format, Outcome as Found, Proof, Question, Tier, Verdict};
use serde_json::{Value, json};

const PREPEND: &str = include_str!("../../../policies/prepend-registry.yaml");
const CHECK: &str = include_str!("../../../policies/check-image.yaml");

fn digest() -> Digest {
    Digest::sha256_of(b"an image")
}

fn site(extra: &str) -> Arc<Site> {
    let text = format!(
        "apiVersion: countersign.dev/v1alpha1\nkind: Site\nspec:\n  \
         registry: {{ name: registry.local, endpoints: [{{ name: a, url: 'http://127.0.0.1:5000' }}] }}\n  \
         bootstrapNamespaces: [kube-system]\n{extra}"
    );
    Arc::new(Site::parse(&text).unwrap())
}

fn policies(texts: &[&str]) -> Vec<Policy> {
    let key = Signer::generate(Scheme::EcdsaP256).unwrap().public_pem();
    let keys = Keys::of_site([("vendor".to_owned(), key)]);
    let documents = texts.iter().flat_map(|text| countersign_yaml::documents(text).unwrap());
    documents.filter_map(|document| load(&document, &keys)).collect()
}

fn engine(texts: &[&str], extra: &str) -> Engine {
    let policies = policies(texts);
    for policy in &policies {
        assert_eq!(policy.refusals, [], "{}", policy.name);
    }
    Engine::new(policies, site(extra))
}

fn pod(images: &[&str]) -> Value {
    let containers: Vec<_> = images
        .iter()
        .enumerate()
        .map(|(i, image)| json!({ "name": format!("c{i}"), "image": image }))
        .collect();
    json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "p" }, "spec": { "containers": containers } })
}

fn review(operation: &str, namespace: &str, object: Value, old: Option<Value>) -> Review {
    Review::of(json!({ "uid": "1", "operation": operation, "namespace": namespace, "kind": { "kind": "Pod" },
        "object": object, "oldObject": old }))
}

fn question(want: &Want) -> &Question {
    want.question().unwrap().0
}

fn verified(want: &Want) -> Verdict {
    let proof = Proof {
        digest: question(want).image.digest().cloned().unwrap_or_else(digest),
        keys: vec![],
        format: Format::CosignSig,
        source: "test".to_owned(),
        name: None,
        index: None,
        stale_since: None,
    };
    Verdict {
        image: question(want).image.clone(),
        digest: Some(proof.digest.clone()),
        outcome: Found::Verified(proof),
        endpoint: None,
        checks: vec![],
    }
}

/// Unsigned if the name says so.
fn by_name(want: &Want) -> Option<Verdict> {
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
fn run(
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

fn images(object: &Value) -> Vec<&str> {
    let lists = ["containers", "initContainers", "ephemeralContainers"];
    lists
        .iter()
        .flat_map(|list| object["spec"][list].as_array().into_iter().flatten())
        .filter_map(|container| container["image"].as_str())
        .collect()
}

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

/// The prepend rule as its users wrote it, nested variables and all.
const USERS: &str = r#"
apiVersion: kyverno.io/v1
kind: ClusterPolicy
metadata:
  name: prepend-registry
  annotations: { pod-policies.kyverno.io/autogen-controllers: none }
spec:
  admission: true
  background: true
  emitWarning: false
  rules:
    - name: prepend-registry-containers
      skipBackgroundRequests: true
      match: { any: [{ resources: { kinds: [Pod] } }] }
      preconditions:
        all:
          - { key: "{{ request.operation || 'BACKGROUND' }}", operator: AnyIn, value: [CREATE, UPDATE] }
      mutate:
        foreach:
          - list: request.object.spec.containers
            patchStrategicMerge:
              spec:
                containers:
                  - name: "{{ element.name }}"
                    image: "{{ images.containers.\"{{ element.name }}\".registry != 'registry.local' && 'registry.local/' || '' }}{{ regex_replace_all('^dtr.dev.cray.com/', '{{ regex_replace_all('^docker.io/', '{{element.image}}', '') }}', '') }}"
    - name: prepend-registry-initcontainers
      match: { any: [{ resources: { kinds: [Pod] } }] }
      preconditions:
        all:
          - { key: "{{ request.operation || 'BACKGROUND' }}", operator: AnyIn, value: [CREATE, UPDATE] }
          - { key: "{{ request.object.spec.initContainers[] || '' | length(@) }}", operator: GreaterThanOrEquals, value: 1 }
      mutate:
        foreach:
          - list: request.object.spec.initContainers
            patchStrategicMerge:
              spec:
                initContainers:
                  - name: "{{ element.name }}"
                    image: "{{ images.initContainers.\"{{ element.name }}\".registry != 'registry.local' && 'registry.local/' || '' }}{{ regex_replace_all('^docker.io/', '{{element.image}}', '') }}"
---
apiVersion: kyverno.io/v1
kind: ClusterPolicy
metadata:
  name: check-image
  annotations: { pod-policies.kyverno.io/autogen-controllers: none }
spec:
  validationFailureAction: Enforce
  background: true
  webhookTimeoutSeconds: 30
  failurePolicy: Fail
  rules:
    - name: check-image
      match: { any: [{ resources: { kinds: [Pod], namespaces: ["*"] } }] }
      exclude: { any: [{ resources: { namespaces: [nexus], names: ["nexus-*"] } }] }
      verifyImages:
        - imageReferences: ["*"]
          repository: registry.local
          mutateDigest: false
          verifyDigest: false
          required: true
          attestors:
            - count: 1
              entries:
                - keys: { publicKeys: "site://vendor", signatureAlgorithm: sha256, rekor: { ignoreTlog: true }, ctlog: { ignoreSCT: true } }
"#;

#[test]
fn policies_run_as_their_users_wrote_them() {
    let engine = engine(&[USERS], "");
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
fn what_is_not_supported_is_refused_by_its_path_and_denies_what_it_would_have_judged() {
    let text = |rule: &str| {
        format!(
            "apiVersion: kyverno.io/v1\nkind: ClusterPolicy\nmetadata: {{ name: p }}\nspec:\n  validationFailureAction: Enforce\n  rules:\n    - name: r\n      match: {{ any: [{{ resources: {{ kinds: [Pod] }} }}] }}\n{rule}"
        )
    };
    for (rule, path, denies) in [
        ("      validate: { cel: {} }\n", "spec.rules[0].validate.cel", true),
        ("      generate: {}\n", "spec.rules[0].generate", false),
        ("      colour: red\n", "spec.rules[0].colour", false),
        ("      mutate: { patchesJson6902: x }\n", "spec.rules[0].mutate.patchesJson6902", false),
        (
            "      mutate: { patchStrategicMerge: { x: \"{{ nosuch(a) }}\" } }\n",
            "spec.rules[0].mutate.patchStrategicMerge",
            false,
        ),
        (
            "      verifyImages: [{ imageReferences: [\"*\"], attestors: [{ entries: [{ keyless: {} }] }] }]\n",
            "spec.rules[0].verifyImages[0].attestors[0].entries[0].keyless",
            true,
        ),
        (
            "      verifyImages: [{ imageReferences: [\"*\"], attestors: [{ entries: [{ keys: { publicKeys: \"site://none\" } }] }] }]\n",
            "spec.rules[0].verifyImages[0].attestors[0].entries[0].keys.publicKeys",
            true,
        ),
        ("      verifyImages: [{ imageReferences: [\"*\"] }]\n", "spec.rules[0].verifyImages[0]", true),
    ] {
        let policies = policies(&[&text(rule)]);
        assert!(
            policies[0].refusals.iter().any(|refusal| refusal.path == path),
            "{rule}: {:?}",
            policies[0].refusals
        );
        let engine = Engine::new(policies, site(""));
        let review = review("CREATE", "default", pod(&["a:1"]), None);
        let (outcome, _) = run(&engine, &review, Phase::Validate, Tier::Fail, &by_name);
        assert_eq!(!outcome.denials.is_empty(), denies, "{rule}: {:?}", outcome.denials);
        assert_eq!(engine.could_enforce("Pod", "default"), denies, "{rule}");

        // In Audit it denies nothing, whatever is wrong with it.
        let audit = text(rule).replace("Enforce", "Audit");
        let engine = Engine::new(self::policies(&[&audit]), site(""));
        let (outcome, _) = run(&engine, &review, Phase::Validate, Tier::Fail, &by_name);
        assert!(outcome.denials.is_empty(), "{rule}: {:?}", outcome.denials);
    }
}

/// A check-image rule with these lines in it.
fn rule_with(lines: &str) -> String {
    CHECK.replace("      verifyImages:\n", &format!("{lines}      verifyImages:\n"))
}

fn denied(engine: &Engine, image: &str) -> bool {
    let review = review("CREATE", "default", pod(&[image]), None);
    !run(engine, &review, Phase::Mutate, Tier::Fail, &by_name).0.denials.is_empty()
}

#[test]
fn t33_an_exclude_that_cannot_be_read_excludes_nothing() {
    for exclude in [
        "{ any: [{ clusterRoles: cluster-admin }] }",
        "{ any: [{ subjects: [{ kind: User, name: 7 }] }] }",
        "{ any: [{ resources: {} }] }",
        "{ any: [{ resources: { selector: {} } }] }",
        "{ resources: { selector: { matchLabels: [] } } }",
        "{ any: [{ resources: { namespaceSelector: {} } }] }",
        "{ any: [{ resources: { namespaces: default } }] }",
        "{ any: [{ resources: { kinds: [''] } }] }",
        "{ any: [{ resources: { selector: { matchLabels: { x: true } } } }] }",
    ] {
        let policies = policies(&[&rule_with(&format!("      exclude: {exclude}\n"))]);
        assert!(!policies[0].refusals.is_empty(), "{exclude}");
        assert!(denied(&Engine::new(policies, site("")), "unsigned:1"), "{exclude}");
    }
}

#[test]
fn what_enforced_before_it_broke_still_denies() {
    for check in [
        CHECK.replace("        - imageReferences: [\"*\"]\n", "        - failureAction: Enforced\n          imageReferences: [\"*\"]\n"),
        CHECK.replace("verifyImages:\n        - imageReferences", "verifyImages:\n          imageReferences"),
        CHECK.replace(
            "validationFailureAction: Enforce",
            "validationFailureAction: Audit\n  validationFailureActionOverrides: [{ action: Enforce, namespaceSelector: {} }]",
        ),
        CHECK.replace("                - keys: { publicKeys: \"site://*\" }", "                - { annotations: [x], keys: { publicKeys: \"site://*\" } }"),
    ] {
        let policies = policies(&[&check]);
        assert!(!policies[0].refusals.is_empty(), "{check}");
        let engine = Engine::new(policies, site(""));
        assert!(denied(&engine, "unsigned:1"), "{check}");
    }
    // Images of workloads are verified in their pods: a rule for a Deployment alone says nothing.
    let other = policies(&[&CHECK.replace("kinds: [Pod]", "kinds: [Deployment]")]);
    assert!(other[0].refusals.iter().any(|refusal| refusal.path == "spec.rules[0].match"));
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

const DENY: &str = "apiVersion: kyverno.io/v1\nkind: ClusterPolicy\nmetadata: { name: deny }\nspec:\n  validationFailureAction: Enforce\n  rules:\n    - name: r\n      match: { any: [{ resources: { kinds: [Pod] } }] }\n      validate: { message: no host PID, pattern: { spec: { =(hostPID): false } } }\n";

#[test]
fn what_cannot_be_read_of_an_action_lets_nothing_go() {
    let pid = || {
        let mut object = pod(&["a:1"]);
        object["spec"]["hostPID"] = json!(true);
        review("CREATE", "default", object, None)
    };
    let overridden = |list: &str| {
        DENY.replace("Enforce\n", &format!("Enforce\n  validationFailureActionOverrides: [{list}]\n"))
    };
    for policy in [
        overridden("{ action: Audit, namespaceSelector: { matchLabels: { env: dev } } }"),
        overridden("{ action: Audit, namespaces: [1] }"),
        // A rule that cannot be loaded, and enforces in one namespace.
        DENY.replace("Enforce\n", "Audit\n").replace(
            "validate: { message: no host PID,",
            "validate: { failureAction: Audit, failureActionOverrides: [{ action: Enforce, namespaces: [default] }], cel: {},",
        ),
        // Nobody says at admission which roles somebody has.
        DENY.replace("kinds: [Pod] }", "kinds: [Pod] }, clusterRoles: [edit]"),
    ] {
        let read = policies(&[&policy]);
        assert!(!read[0].refusals.is_empty(), "{policy}");
        let (outcome, _) = run(&Engine::new(read, site("")), &pid(), Phase::Validate, Tier::Fail, &by_name);
        assert!(!outcome.denials.is_empty(), "{policy}");
    }
    let audited = overridden("{ action: Audit, namespaces: [default] }");
    let (outcome, _) = run(&self::engine(&[&audited], ""), &pid(), Phase::Validate, Tier::Fail, &by_name);
    assert_eq!(outcome.denials, Vec::<String>::new());
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
fn keys_come_from_secrets_of_the_programs_own_namespace() {
    let key = Signer::generate(Scheme::EcdsaP256).unwrap().public_pem();
    let secrets =
        SecretKeys { namespace: "countersign".to_owned(), keys: [("vendor".to_owned(), key)].into() };
    let keys = Keys { secrets: Some(secrets), ..Keys::default() };
    let refusals = |keys: &Keys, written: &str| {
        let text = CHECK.replace("{ publicKeys: \"site://*\" }", written);
        assert!(text.contains(written), "{written}");
        let refusals = load(&countersign_yaml::document(&text).unwrap(), keys).unwrap().refusals;
        refusals.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    };
    for (written, refused) in [
        ("{ publicKeys: \"k8s://countersign/vendor\" }", ""),
        ("{ secret: { name: vendor, namespace: countersign } }", ""),
        ("{ secret: { name: vendor } }", ""),
        (
            "{ publicKeys: \"k8s://countersign/other\" }",
            "keys.publicKeys: there is no Secret `other` with `cosign.pub`",
        ),
        ("{ publicKeys: \"k8s://tenant/vendor\" }", "Secrets of `tenant` are not read for policies"),
        ("{ publicKeys: \"k8s://vendor\" }", "expected `k8s://NAMESPACE/NAME`"),
        ("{ secret: { namespace: countersign } }", "keys.secret: the name of a Secret is required"),
        ("{ publicKeys: \"site://*\" }", "there is no key to verify with"),
        ("{ rekor: { ignoreTlog: true } }", "keys: keys are required"),
    ] {
        let found = refusals(&keys, written);
        assert!(found.contains(refused) && found.is_empty() == refused.is_empty(), "{written}: {found}");
    }
    let outside = refusals(&Keys::default(), "{ publicKeys: \"k8s://countersign/vendor\" }");
    assert!(outside.contains("can only be read in a cluster"), "{outside}");
}
