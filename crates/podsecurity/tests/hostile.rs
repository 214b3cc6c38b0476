//! Pods that are none: each is unreadable, and that is no pass.
#![allow(clippy::unwrap_used, reason = "tests")]

use countersign_podsecurity::{Level, MAX_CONTAINERS, PodSecurity, Verdict, parse};
use serde_json::{Value, json};

fn rule(level: Level) -> PodSecurity {
    parse(&json!({ "level": level.name() }), "podSecurity").unwrap().value
}

/// The path at which a pod is unreadable, at every level.
fn unreadable(metadata: &Value, spec: &Value) -> String {
    let verdict = |level| match rule(level).evaluate(metadata, spec, []) {
        Verdict::Unreadable(problem) => problem.path,
        other => panic!("{metadata} {spec}: {other:?}"),
    };
    let [first, second, third] = Level::ALL.map(verdict);
    assert!(first == second && second == third);
    first
}

#[test]
fn wrong_types_are_named_by_their_paths() {
    for (path, value) in [
        ("spec", json!([])),
        ("spec.hostPID", json!("true")),
        ("spec.hostUsers", json!(0)),
        ("spec.os", json!("windows")),
        ("spec.os.name", json!({})),
        ("spec.securityContext", json!([])),
        ("spec.securityContext.runAsUser", json!("0")),
        ("spec.securityContext.runAsUser", json!(0.0)),
        ("spec.securityContext.runAsUser", json!(u64::MAX)),
        ("spec.securityContext.runAsNonRoot", json!(1)),
        ("spec.securityContext.seccompProfile", json!("RuntimeDefault")),
        ("spec.securityContext.seccompProfile.type", json!(1)),
        ("spec.securityContext.seLinuxOptions", json!(true)),
        ("spec.securityContext.seLinuxOptions.role", json!([])),
        ("spec.securityContext.windowsOptions.hostProcess", json!("no")),
        ("spec.securityContext.sysctls", json!({ "name": "x" })),
        ("spec.volumes", json!({})),
        ("spec.volumes[0]", json!("v")),
        ("spec.volumes[0].hostPath", json!("/etc")),
        ("spec.volumes[0].hostPath.path", json!(1)),
        ("spec.volumes[0].emptyDir", json!(true)),
        ("spec.containers", json!({ "0": {} })),
        ("spec.containers[0]", json!(["a"])),
        ("spec.containers[0].name", json!(1)),
        ("spec.containers[0].image", json!(["i"])),
        ("spec.containers[0].ports", json!("80")),
        ("spec.containers[0].ports[0].hostPort", json!("80")),
        ("spec.containers[0].ports[0].hostPort", json!(1_i64 << 32)),
        ("spec.containers[0].securityContext", json!([true])),
        ("spec.containers[0].securityContext.privileged", json!("true")),
        ("spec.containers[0].securityContext.allowPrivilegeEscalation", json!(0)),
        ("spec.containers[0].securityContext.capabilities", json!(["ALL"])),
        ("spec.containers[0].securityContext.capabilities.drop", json!("ALL")),
        ("spec.containers[0].securityContext.capabilities.add[0]", json!(1)),
        ("spec.containers[0].securityContext.procMount", json!(false)),
        ("spec.containers[0].livenessProbe.httpGet.host", json!(1)),
        ("spec.containers[0].lifecycle", json!("x")),
        ("spec.initContainers[0].lifecycle.preStop.tcpSocket", json!("x")),
        ("spec.ephemeralContainers[0].securityContext", json!(1)),
        ("metadata", json!([])),
        ("metadata.annotations", json!([])),
        ("metadata.annotations.a", json!(1)),
    ] {
        let object = at(path, value);
        assert_eq!(unreadable(&object["metadata"], &object["spec"]), path);
    }
}

/// An object with one value at a path.
fn at(path: &str, value: Value) -> Value {
    path.rsplit('.').fold(value, |value, step| match step.strip_suffix("[0]") {
        Some(step) => json!({ step: [value] }),
        None => json!({ step: value }),
    })
}

#[test]
fn nulls_are_absent_fields() {
    let spec = json!({
        "hostPID": null,
        "securityContext": null,
        "volumes": null,
        "initContainers": null,
        "containers": [null, { "name": null, "ports": [null], "securityContext": { "capabilities": null } }],
    });
    let metadata = json!({ "annotations": { "container.apparmor.security.beta.kubernetes.io/c": null } });
    assert_eq!(rule(Level::Baseline).evaluate(&metadata, &spec, []), Verdict::Passed);
    assert!(matches!(rule(Level::Restricted).evaluate(&metadata, &spec, []), Verdict::Violated(_)));
    assert_eq!(rule(Level::Restricted).evaluate(&Value::Null, &Value::Null, []), Verdict::Passed);
}

#[test]
fn fields_that_no_control_reads_may_be_anything() {
    let spec = json!({
        "nodeName": 7,
        "volumes": [{ "name": "v", "other": 1, "emptyDir": { "medium": 3 } }],
        "containers": [{ "name": "c", "command": {}, "livenessProbe": { "exec": 1 } }],
    });
    let metadata = json!({ "labels": [] });
    assert_eq!(rule(Level::Baseline).evaluate(&metadata, &spec, []), Verdict::Passed);
}

#[test]
fn containers_are_counted_over_all_lists() {
    let containers = |count| Value::Array(vec![json!({ "name": "c" }); count]);
    let spec = |count| json!({ "initContainers": containers(10), "containers": containers(count - 10) });
    let rule = rule(Level::Baseline);
    assert_eq!(rule.evaluate(&Value::Null, &spec(MAX_CONTAINERS), []), Verdict::Passed);
    let path = unreadable(&Value::Null, &spec(MAX_CONTAINERS + 1));
    assert_eq!(path, format!("spec.containers[{}]", MAX_CONTAINERS - 10));
}

#[test]
fn paths_in_problems_are_bounded() {
    let key = "k".repeat(1_000_000);
    assert!(unreadable(&json!({ "annotations": { key: 1 } }), &Value::Null).len() < 1000);
    let block = json!({ "level": "x".repeat(1_000_000), "version": "y".repeat(1_000_000), "é".repeat(500_000): 1,
        "exclude": [{ "controlName": "z".repeat(1_000_000) }] });
    let problems = parse(&block, "p").unwrap_err();
    assert_eq!(problems.len(), 4);
    assert!(problems.iter().all(|problem| problem.to_string().len() < 4000));
}

/// Whatever stands in place of any value of a pod: an answer, and never a panic.
#[test]
fn any_value_anywhere_has_an_answer() {
    let context = json!({
        "runAsNonRoot": true, "runAsUser": 1, "privileged": false, "allowPrivilegeEscalation": false,
        "procMount": "Default", "capabilities": { "add": ["KILL"], "drop": ["ALL"] },
        "seccompProfile": { "type": "Localhost" }, "appArmorProfile": { "type": "Localhost" },
        "seLinuxOptions": { "type": "", "user": "", "role": "" },
        "windowsOptions": { "hostProcess": false }, "sysctls": [{ "name": "x" }],
    });
    let container = json!({
        "name": "c", "image": "i", "securityContext": context, "ports": [{ "hostPort": 1 }],
        "livenessProbe": { "httpGet": { "host": "h" }, "tcpSocket": { "host": "h" } },
        "lifecycle": { "preStop": { "httpGet": { "host": "h" } } },
    });
    let pod = json!({
        "metadata": { "annotations": { "container.apparmor.security.beta.kubernetes.io/c": "x" } },
        "spec": {
            "hostPID": true, "hostUsers": false, "os": { "name": "linux" }, "securityContext": context,
            "volumes": [{ "name": "v", "hostPath": { "path": "/" } }, { "name": "w", "secret": {} }],
            "initContainers": [container], "containers": [container], "ephemeralContainers": [container],
        },
    });
    let exclude = json!([
        { "controlName": "Seccomp" }, { "controlName": "Seccomp", "images": ["*"] },
        { "controlName": "Capabilities", "images": ["i"] }, { "controlName": "Sysctls" },
    ]);
    let rule = json!({ "level": "restricted", "exclude": exclude });
    let rule = parse(&rule, "podSecurity").unwrap().value;
    let mut pointers = Vec::new();
    pointers_of(&pod, String::new(), &mut pointers);
    assert!(pointers.len() > 100);
    for pointer in &pointers {
        for value in
            [json!(null), json!(true), json!(-1), json!(1e300), json!("x"), json!([]), json!([[]]), json!({})]
        {
            let mut changed = pod.clone();
            *changed.pointer_mut(pointer).unwrap() = value.clone();
            let verdict = rule.evaluate(&changed["metadata"], &changed["spec"], []);
            let is_empty = changed["spec"].is_null() || changed["spec"] == json!({});
            let allowed = matches!(verdict, Verdict::Passed | Verdict::Excepted);
            let annotated = changed
                .pointer("/metadata/annotations")
                .is_some_and(|found| found != &json!({}) && !found.is_null());
            assert!(!allowed || (is_empty && !annotated), "{pointer} = {value}: {verdict:?}");
        }
    }
}

fn pointers_of(value: &Value, at: String, into: &mut Vec<String>) {
    match value {
        Value::Object(object) => {
            for (key, value) in object {
                pointers_of(value, format!("{at}/{}", key.replace('/', "~1")), into);
            }
        }
        Value::Array(list) => {
            for (index, value) in list.iter().enumerate() {
                pointers_of(value, format!("{at}/{index}"), into);
            }
        }
        _ => {}
    }
    if !at.is_empty() {
        into.push(at);
    }
}
