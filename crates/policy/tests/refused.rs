//! What is refused at load, and what it denies all the same.
#![allow(clippy::unwrap_used, clippy::needless_pass_by_value, clippy::unnecessary_wraps, reason = "tests")]

mod common;

use common::*;
use countersign_policy::{Engine, Keys, Phase, SecretKeys, load};
use countersign_signature::sign::{Scheme, Signer};
use countersign_verdict::Tier;
use serde_json::json;

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
        assert_eq!(engine.could_enforce(&review), denies, "{rule}");

        // In Audit it denies nothing, whatever is wrong with it.
        let audit = text(rule).replace("Enforce", "Audit");
        let engine = Engine::new(self::policies(&[&audit]), site(""));
        let (outcome, _) = run(&engine, &review, Phase::Validate, Tier::Fail, &by_name);
        assert!(outcome.denials.is_empty(), "{rule}: {:?}", outcome.denials);
    }
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
        overridden("{ action: Audit, namespaceSelector: {} }"),
        overridden("{ action: Audit, namespaces: [1] }"),
        // A rule that cannot be loaded, and enforces in one namespace.
        DENY.replace("Enforce\n", "Audit\n").replace(
            "validate: { message: no host PID,",
            "validate: { failureAction: Audit, failureActionOverrides: [{ action: Enforce, namespaces: [default] }], cel: {},",
        ),
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
fn a_rule_is_loaded_whole_or_not_at_all() {
    let refused = |body: &str| {
        let text = format!(
            "apiVersion: kyverno.io/v1\nkind: ClusterPolicy\nmetadata: {{ name: p }}\nspec:\n  validationFailureAction: Enforce\n  rules:\n    - name: r\n      match: {{ any: [{{ resources: {{ kinds: [Pod] }} }}] }}\n      {body}\n"
        );
        let policies = policies(&[&text]);
        let reasons: Vec<String> = policies[0].refusals.iter().map(ToString::to_string).collect();
        // What is not loaded denies what it would have judged.
        let review = review("CREATE", "default", pod(&["unsigned:1"]), None);
        let engine = Engine::new(policies, site(""));
        let (outcome, _) = run(&engine, &review, Phase::Validate, Tier::Fail, &by_name);
        (reasons.join("; "), !outcome.denials.is_empty())
    };
    let deny = "validate: { deny: {} }";
    for (body, reason) in [
        (format!("{deny}\n      verifyImages: []"), "has validate and verifyImages"),
        (format!("{deny}\n      mutate: {{ patchStrategicMerge: {{ a: b }} }}"), "has mutate and validate"),
        ("verifyImages: []".to_owned(), "verifyImages: expected a list"),
        ("validate: { foreach: { list: a, deny: {} } }".to_owned(), "foreach: expected a list"),
        ("validate: { anyPattern: { a: b } }".to_owned(), "anyPattern: expected a list"),
        ("validate: { foreach: [] }".to_owned(), "foreach: expected a list"),
    ] {
        let (reasons, denied) = refused(&body);
        assert!(reasons.contains(reason) && denied, "{body}: {reasons}");
    }
    let nothing = DENY.replace("kinds: [Pod]", "namespaces: [default]");
    assert!(policies(&[&nothing])[0].refusals[0].reason.contains("names no kind"));
}

#[test]
fn signatures_are_looked_for_in_one_place() {
    let refused = |entries: &str, more: &str| {
        let text = CHECK.replace("- keys: { publicKeys: \"site://*\" }", entries);
        let text = text.replace("          attestors:\n", &format!("{more}          attestors:\n"));
        assert!(text.contains(entries) && text.contains(more));
        policies(&[&text])[0].refusals.iter().any(|refusal| refusal.reason.contains("several repositories"))
    };
    let entry = |more: &str| format!("- {{ keys: {{ publicKeys: \"site://*\" }}{more} }}");
    let own = entry(", repository: registry.local/sigs");
    assert!(!refused(&own, "") && !refused(&entry(""), "          repository: registry.local/sigs\n"));
    let both = format!("{own}\n                {}", entry(""));
    assert!(refused(&both, ""));
    assert!(!refused(&both, "          repository: registry.local/sigs\n"));
    assert!(refused(&both, "          repository: registry.local/other\n"));
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
