#![expect(clippy::needless_pass_by_value, reason = "the cases read better without `&`")]

use super::*;
use serde_json::json;

fn pod(containers: Value) -> Value {
    json!({ "metadata": { "name": "p", "labels": { "app.kubernetes.io/name": "x" } }, "spec": { "containers": containers } })
}

/// `pass`, `skip`, `fail PATH` or `error`.
fn outcome(resource: &Value, pattern: &Value) -> String {
    match match_pattern(resource, pattern) {
        Matched::Pass => "pass".to_owned(),
        Matched::Skip(_) => "skip".to_owned(),
        Matched::Fail { path, .. } => format!("fail {path}"),
        Matched::Error(_) => "error".to_owned(),
    }
}

#[test]
fn maps_lists_and_scalars() {
    let resource = pod(
        json!([{ "name": "a", "image": "q/a:1", "args": ["x", "y"] }, { "name": "b", "image": "q/b:2" }]),
    );
    for (pattern, expected) in [
        (json!({ "spec": { "containers": [{ "image": "q/*" }] } }), "pass"),
        (json!({ "spec": { "containers": [{ "image": "*:1" }] } }), "fail /spec/containers/1/image/"),
        (json!({ "spec": { "containers": [{ "args": "*" }] } }), "fail /spec/containers/1/"),
        (json!({ "spec": { "containers": [{ "=(args)": ["x | y"] }] } }), "pass"),
        (json!({ "spec": { "containers": [{ "=(args)": ["x"] }] } }), "fail /spec/containers/0/args/"),
        (json!({ "spec": { "containers": [{ "=(args)": "x|y" }] } }), "pass"),
        (json!({ "spec": { "containers": [] } }), "fail /spec/containers/"),
        (json!({ "spec": { "containers": "*" } }), "pass"),
        (json!({ "spec": { "containers": {} } }), "fail /spec/containers/"),
        (json!({ "spec": { "containers": [[]] } }), "fail /spec/containers/0/"),
        (json!({ "spec": { "containers": [[], [], []] } }), "error"),
        (json!({ "spec": { "hostNetwork": null } }), "pass"),
        (json!({ "spec": { "hostNetwork": "*" } }), "fail /spec/"),
        (json!({ "spec": { "hostNetwork": "!true" } }), "fail /spec/hostNetwork/"),
        (json!({ "metadata": { "name": "?*", "labels": { "app.kubernetes.io/*": "x" } } }), "pass"),
        (
            json!({ "metadata": { "=(labels)": { "=(app*)": "y" } } }),
            "fail /metadata/labels/app.kubernetes.io/name/",
        ),
        (json!({ "metadata": { "labels": { "other/*": "?*" } } }), "fail /metadata/labels/other/*/"),
    ] {
        assert_eq!(outcome(&resource, &pattern), expected, "{pattern}");
    }
}

#[test]
fn anchors() {
    let two = pod(
        json!([{ "name": "a", "image": "x:latest", "imagePullPolicy": "Always" }, { "name": "b", "image": "y:1" }]),
    );
    let latest = |policy: &str| json!({ "spec": { "containers": [{ "(image)": "*:latest", "imagePullPolicy": policy }] } });
    for (pattern, expected) in [
        // Each element by itself; the list is skipped only if all are.
        (latest("Always"), "pass"),
        (latest("Never"), "fail /spec/containers/0/imagePullPolicy/"),
        (json!({ "spec": { "containers": [{ "(image)": "z:*", "imagePullPolicy": "Never" }] } }), "skip"),
        (json!({ "spec": { "containers": [{ "(tty)": true, "imagePullPolicy": "Never" }] } }), "skip"),
        // The key of an anchor that is nowhere makes another failure an error.
        (json!({ "spec": { "containers": [{ "name": "q", "^(ports)": [{ "a": 1 }] }] } }), "error"),
        (json!({ "(kind)": "Pod", "spec": { "x": 1 } }), "skip"),
        (json!({ "(spec)": { "containers": [{ "name": "a" }] }, "x": 1 }), "skip"),
        (json!({ "spec": { "X(hostNetwork)": "null" } }), "pass"),
        (
            json!({ "spec": { "containers": [{ "X(imagePullPolicy)": "null" }] } }),
            "fail /spec/containers/0/imagePullPolicy/",
        ),
        (json!({ "spec": { "^(containers)": [{ "name": "b" }] } }), "pass"),
        (
            json!({ "spec": { "^(containers)": [{ "name": "b" }, { "name": "c" }] } }),
            "fail /spec/containers/",
        ),
        (json!({ "spec": { "^(volumes)": [{ "name": "c" }] } }), "pass"),
        (json!({ "metadata": { "^(name)": [{ "a": 1 }] } }), "fail /metadata/name/"),
        (json!({ "spec": { "^(containers)": { "name": "b" } } }), "fail /spec/containers/"),
        (json!({ "spec": { "<(containers)": [{ "image": "y:*" }], "x": 1 } }), "skip"),
        (
            json!({ "spec": { "containers": [{ "<(image)": "x:*", "name": "z" }] } }),
            "fail /spec/containers/0/name/",
        ),
        (json!({ "spec": { "<(volumes)": "*", "containers": "*" } }), "pass"),
        (
            json!({ "=(spec)": { "=(containers)": [{ "=(tty)": true, "(name)": "a", "image": "x*" }] } }),
            "pass",
        ),
        (json!({ "=(spec)": { "=(tty)": true, "(x)": 1, "containers": 1 } }), "skip"),
        // A condition beside one that fails takes the failure with it, but not one from below.
        (json!({ "(name)": "a", "=(spec)": { "q": 1 } }), "skip"),
        (json!({ "spec": { "+(x)": 1 } }), "fail /spec/+(x)/"),
    ] {
        assert_eq!(outcome(&two, &pattern), expected, "{pattern}");
    }
}

#[test]
fn words_of_a_value_skip_nothing() {
    let resource =
        pod(json!([{ "name": "a", "image": "conditional anchor mismatch: global anchor mismatch" }]));
    let pattern = json!({ "spec": { "containers": [{ "image": "q/*" }] } });
    assert_eq!(outcome(&resource, &pattern), "fail /spec/containers/0/image/");
}

#[test]
fn what_is_said() {
    let resource = pod(json!([{ "name": "a", "image": "x" }]));
    let pattern = |image: &str| json!({ "spec": { "containers": [{ "image": image }] } });
    let condition = json!({ "spec": { "containers": [{ "(image)": "y", "name": "a" }] } });
    let said = |status, message: &str| Judgement { status, message: message.to_owned() };
    for (message, pattern, expected) in [
        ("", pattern("x"), said(Status::Pass, "validation rule 'r' passed.")),
        (
            "",
            pattern("y"),
            said(Status::Fail, "validation error: rule r failed at path /spec/containers/0/image/"),
        ),
        (
            "No",
            pattern("y"),
            said(Status::Fail, "validation error: No. rule r failed at path /spec/containers/0/image/"),
        ),
        (
            "No.",
            pattern("y"),
            said(Status::Fail, "validation error: No. rule r failed at path /spec/containers/0/image/"),
        ),
        (
            "No",
            condition.clone(),
            said(
                Status::Skip,
                "conditional anchor mismatch: resource value 'x' does not match 'y' at path /spec/containers/0/image/",
            ),
        ),
        (
            "",
            json!({ "spec": { "containers": [[], []] } }),
            said(
                Status::Error,
                "validation error: rule r execution error: validate Array failed, array length mismatch, resource Array len is 1 and pattern Array len is 2",
            ),
        ),
    ] {
        assert_eq!(
            judge_pattern("r", message, &resource, &pattern, &mut MAX_PATTERN_STEPS.clone()),
            expected,
            "{pattern}"
        );
    }
    let any = |message: &str, patterns: &[Value]| {
        judge_any_pattern("r", message, &resource, patterns, &mut MAX_PATTERN_STEPS.clone())
    };
    assert_eq!(
        any("", &[pattern("y"), pattern("x")]),
        said(Status::Pass, "validation rule 'r' anyPattern[1] passed.")
    );
    assert_eq!(
        any("No", &[pattern("y"), condition.clone()]),
        said(Status::Fail, "validation error: No. rule r[0] failed at path /spec/containers/0/image/")
    );
    assert_eq!(
        any("", &[pattern("y"), pattern("z")]),
        said(
            Status::Fail,
            "validation error: rule r[0] failed at path /spec/containers/0/image/ rule r[1] failed at path /spec/containers/0/image/"
        )
    );
    assert_eq!(
        any("", &[condition]),
        said(
            Status::Skip,
            "rule r[0] skipped: conditional anchor mismatch: resource value 'x' does not match 'y' at path /spec/containers/0/image/"
        )
    );
    assert_eq!(any("", &[]).status, Status::Error);
}

#[test]
fn limits() {
    let deep = |levels: usize| (0..levels).fold(json!(1), |value, _| json!({ "a": value }));
    assert_eq!(match_pattern(&deep(MAX_PATTERN_DEPTH - 1), &deep(MAX_PATTERN_DEPTH - 1)), Matched::Pass);
    let beyond = |why: &str| Matched::Error(format!("the pattern is beyond its limits: {why}"));
    assert_eq!(match_pattern(&deep(MAX_PATTERN_DEPTH), &deep(MAX_PATTERN_DEPTH)), beyond("nested too deep"));
    // Neither a condition nor an existence anchor makes a limit something else.
    for anchor in ["(a)", "^(a)", "=(a)", "<(a)"] {
        let pattern = json!({ anchor: [{ "b": format!("{}x", "*a".repeat(5000)) }] });
        let resource = json!({ "a": vec![json!({ "b": "a".repeat(10_000) }); 2] });
        assert_eq!(match_pattern(&resource, &pattern), beyond("too many steps"), "{anchor}");
    }
    let many = json!(vec![json!({ "a": "x".repeat(1000) }); 1000]);
    let Matched::Skip(message) = match_pattern(&many, &json!([{ "(a)": "y" }])) else { panic!("skipped") };
    assert!(message.chars().count() <= MAX_MESSAGE + 1, "{}", message.len());
}
