//! `countersign test` and `countersign apply`, from the outside: tables and exit codes.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

fn tree(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/trial").join(name)
}

/// Runs the program in the tree of tests: its exit code, stdout and stderr.
fn run(arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_countersign"));
    let output = command.args(arguments).current_dir(tree("")).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn what_is_as_expected_passes() {
    let (code, out, errors) = run(&["test", "good"]);
    assert_eq!((code, errors.as_str()), (0, ""), "{out}");
    assert!(out.starts_with("good/kyverno-test.yaml\nID  POLICY"), "{out}");
    assert!(out.contains("Excluded") || !out.contains("Fail"), "{out}");
    assert!(out.ends_with("Test Summary: 14 tests passed and 0 tests failed\n"), "{out}");
}

#[test]
fn policies_of_users_do_what_they_did() {
    let (code, out, errors) = run(&["test", "../../../../examples/kyverno"]);
    assert_eq!((code, errors.as_str()), (0, ""), "{out}");
    assert!(out.ends_with("Test Summary: 19 tests passed and 0 tests failed\n"), "{out}");
}

#[test]
fn what_is_not_is_told_with_its_reason() {
    let (code, out, _) = run(&["test", "bad"]);
    assert_eq!(code, 1);
    for reason in [
        "Resource diff: differs from patched.yaml at /metadata/labels/team: want \"green\", got \"red\"",
        "Pod/latest         Fail    Want pass, got fail: validation error: A tag that is not `latest`",
        "Pod/absent         Fail    Not found",
        "ConfigMap/settings  Fail    Excluded",
        "Not found: there is no such policy",
    ] {
        let spaced = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(spaced(&out).contains(&spaced(reason)), "{reason}\n{out}");
    }
    assert!(out.ends_with("Test Summary: 1 tests passed and 5 tests failed\n"), "{out}");
    let (code, out, _) = run(&["test", "bad", "--fail-only", "-t", "resource=go*,rule=no-*"]);
    assert_eq!(code, 1);
    assert!(out.contains("unheard-of") && !out.contains("add-team") && !out.contains("Pass"), "{out}");
    let (code, out, _) = run(&["test", ".", "-o", "json"]);
    let data: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &data["passed"], &data["failed"]), (1, &15.into(), &5.into()));
    assert_eq!(data["tests"][1]["results"][0]["ruleKind"], "mutate");
}

#[test]
fn what_cannot_be_read_is_wrong_usage() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("kyverno-test.yaml");
    let path = directory.path().to_str().unwrap();
    assert_eq!(run(&["test", path]).0, 0, "there is nothing to fail");
    assert_eq!(run(&["test", path, "--require-tests"]).0, 2);
    for (text, reason) in [
        ("kind: Test\npolicies: [absent.yaml]", "absent.yaml"),
        ("kind: Test\nresults: [{ policy: a, result: maybe }]", "`maybe` is not"),
        ("kind: Test\napiCallResponses: []", "`apiCallResponses` is not supported"),
    ] {
        std::fs::write(&file, text).unwrap();
        let (code, out, _) = run(&["test", path]);
        assert!(code == 2 && out.contains(reason), "{code} {out}");
    }
    let policy = "apiVersion: policies.kyverno.io/v1\nkind: ValidatingPolicy\nmetadata: { name: cel }";
    std::fs::write(directory.path().join("policy.yaml"), policy).unwrap();
    std::fs::write(&file, "kind: Test\npolicies: [policy.yaml]").unwrap();
    let (code, out, _) = run(&["test", path]);
    assert!(
        code == 2 && out.contains("ValidatingPolicy `cel` (policies.kyverno.io/v1) is not supported"),
        "{out}"
    );
    assert_eq!(run(&["test"]).0, 2);
    assert_eq!(run(&["apply", "policies.yaml"]).0, 2, "there is no object");
    assert_eq!(run(&["apply", "absent.yaml", "-r", "objects.yaml"]).0, 2);
}

#[test]
fn policies_are_applied_to_objects() {
    let (code, out, errors) =
        run(&["apply", "policies.yaml", "-r", "objects.yaml", "-e", "exception.yaml", "-s", "team=red"]);
    assert_eq!((code, errors.as_str()), (1, ""), "{out}");
    assert!(out.starts_with("Applying 4 policies to 6 resources...\n"), "{out}");
    assert!(
        out.contains("policy images -> resource default/Pod/latest failed:\n1 - no-latest (fail)"),
        "{out}"
    );
    assert!(out.contains("2 - our-registry (fail) validation failure: "), "{out}");
    assert!(!out.contains("monitoring/Pod/agent failed"), "an exception lifts it: {out}");
    assert!(out.contains("policy baseline -> resource apps/Pod/intruder failed"), "{out}");
    assert!(out.contains("\n---\napiVersion: v1\nkind: Pod\n") && out.contains("team: red"), "{out}");
    assert!(out.ends_with("warn: 0, error: 0, skip: 2\n"), "{out}");
}

#[test]
fn exit_codes_say_what_was_found() {
    let with = |more: &[&str]| {
        let given = ["apply", "policies.yaml", "-r", "objects.yaml", "-f", "values.yaml"];
        run(&[&given, more].concat())
    };
    let one = |text: &str, more: &[&str]| {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("object.yaml");
        std::fs::write(&path, text).unwrap();
        run(&[&["apply", "policies.yaml", "-f", "values.yaml", "-r", path.to_str().unwrap()], more].concat())
    };
    assert_eq!(with(&[]).0, 1);
    let map = "{ apiVersion: v1, kind: ConfigMap, metadata: { name: settings } }";
    assert_eq!(one(map, &[]).0, 1, "the values say that it is deleted");
    let (code, out, _) = one(map, &["--audit-warn"]);
    assert!(code == 0 && out.ends_with("pass: 0, fail: 0, warn: 1, error: 0, skip: 0\n"), "{out}");
    assert_eq!(one(map, &["--audit-warn", "--warn-exit-code", "3"]).0, 3);
    let (code, out, _) = one(map, &["--table", "--audit-warn"]);
    assert!(code == 0 && out.contains("1   removal  keep  default/ConfigMap/settings  warn"), "{out}");
    let user = "{ apiVersion: v1, kind: UserInfo, userInfo: { username: root } }";
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("user.yaml");
    std::fs::write(&path, user).unwrap();
    assert_eq!(one(map, &["-u", path.to_str().unwrap()]).0, 0, "root may");
    let (_, out, _) = with(&["--policy-report", "--output-format", "json"]);
    let first: Value = serde_json::Deserializer::from_str(&out).into_iter().next().unwrap().unwrap();
    assert_eq!((&first["kind"], &first["metadata"]["namespace"]), (&"PolicyReport".into(), &"apps".into()));
    assert_eq!(first["summary"]["fail"], 1, "{first:#}");
}

#[test]
fn what_a_policy_does_not_do_is_told_before_it_is_applied() {
    let (code, out, errors) = run(&["policy", "lint", "lint.yaml"]);
    assert_eq!((code, errors.as_str()), (1, ""), "{out}");
    let found: Vec<&str> = out.lines().collect();
    let expected = [
        "ClusterPolicy wrong: error: spec.rules[2].validate.cel: refused: CEL is not evaluated yet",
        "ClusterPolicy wrong: warning: spec.webhookTimeoutSeconds: has no effect here",
        "ClusterPolicy wrong: error: spec.rules[0].match.any[0].resources.operations[0]: selects nothing: `CREATED`",
        "ClusterPolicy wrong: error: spec.rules[0].match.any[0].resources.namespaces[0]: selects nothing",
        "ClusterPolicy wrong: error: spec.rules[0].exclude.any[0].resources.names[0]: selects nothing",
        "ClusterPolicy wrong: error: spec.rules[0].exclude.any[0].resources.selector.matchLabels.a: selects nothing",
        "ClusterPolicy wrong: error: spec.rules[0].verifyImages[0].imageReferences[0]: `ghcr.io/acme/db` matches no",
        "ClusterPolicy wrong: error: spec.rules[0].verifyImages[0].imageReferences[1]: `https://ghcr.io/*` matches no",
        "ClusterPolicy wrong: error: spec.rules[1].match.any[0].resources.kinds[0]: selects nothing",
        "ClusterPolicy wrong: error: spec.rules[1].match.any[0].resources.operations: has no effect",
        "ClusterPolicy rewrites: warning: spec.rules[0].mutate: changes images in templates (CronJob, ",
        "Policy apps/own: error: spec.rules[0].match.any[0].resources.namespaces: selects nothing: the policy speaks of",
        "PolicyException apps/open: warning: metadata.annotations.countersign.dev/expires: it has no end",
        "PolicyException apps/open: warning: spec.match: whoever writes a pod can give it to himself",
        "PolicyException apps/open: error: spec.exceptions[0].ruleNames[1]: lifts nothing: `wrong` has no rule `absent`",
        "PolicyException apps/open: warning: spec.exceptions[1].policyName: there is no policy `unheard-of` beside it",
        "PolicyException apps/over: warning: metadata.annotations.countersign.dev/expires: it is over since 2020-01-01",
    ];
    for (line, expected) in found.iter().zip(expected) {
        assert!(line.starts_with(&format!("lint.yaml: {expected}")), "{expected}\n{out}");
    }
    assert_eq!(found.len(), expected.len() + 1, "{out}");
    assert_eq!(found.last(), Some(&"5 documents, 11 errors, 6 warnings"));

    let (code, out, _) =
        run(&["policy", "lint", "../../../../examples/kyverno/prepend-registry", "-o", "json"]);
    let data: Value = serde_json::from_str(&out).unwrap();
    assert!(
        code == 0 && data["findings"].as_array().unwrap().iter().all(|lint| lint["level"] == "warning"),
        "{out}"
    );
    assert_eq!(run(&["policy", "lint", "../../../../examples/kyverno/prepend-registry", "--strict"]).0, 1);
    assert_eq!(run(&["policy", "lint", "../../../../policies", "--strict"]).0, 0);
    assert_eq!(run(&["policy", "lint", "absent.yaml"]).0, 2);
}
