//! `podSecurity` blocks: what is read, what is refused and with which cure.
#![allow(clippy::unwrap_used, clippy::needless_pass_by_value, reason = "tests")]

use countersign_podsecurity::{
    Level, MAX_EXCLUSIONS, NEWEST, Problem, Version, controls, parse, parse_exclusions,
};
use serde_json::{Value, json};

fn refused(block: &Value) -> Vec<Problem> {
    parse(block, "rule.podSecurity").unwrap_err()
}

/// The one problem has this path and these words.
#[track_caller]
fn check(block: &Value, path: &str, words: &[&str]) {
    let problems = refused(block);
    let [problem] = &problems[..] else { panic!("{block}: {problems:#?}") };
    assert_eq!(problem.path, format!("rule.podSecurity{path}"), "{problem}");
    for word in words {
        assert!(problem.reason.contains(word), "`{word}` is not in `{}`", problem.reason);
    }
}

fn excluding(entry: Value) -> Value {
    json!({ "level": "restricted", "exclude": [entry] })
}

#[test]
fn levels_and_versions_are_read() {
    for (version, expected) in [
        (Value::Null, Version::LATEST),
        (json!(""), Version::LATEST),
        (json!("latest"), Version::LATEST),
        (json!("v1.0"), Version::minor(0)),
        (json!("v1.37"), NEWEST),
    ] {
        for level in Level::ALL {
            let block = json!({ "level": level.name(), "version": version });
            let parsed = parse(&block, "p").unwrap();
            assert_eq!((parsed.value.level(), parsed.value.version()), (level, expected));
            assert_eq!(parsed.value.written_version(), version.as_str().unwrap_or_default());
            assert!(parsed.warnings.is_empty() && parsed.value.exclusions().is_empty());
        }
    }
}

#[test]
fn levels_and_versions_are_refused() {
    let words = ["`privileged`, `baseline` or `restricted`"];
    check(&json!({}), ".level", &words);
    check(&json!({ "level": "Baseline" }), ".level", &words);
    check(&json!({ "level": "" }), ".level", &words);
    check(&json!({ "level": 1 }), ".level", &["expected a string"]);
    check(&json!({ "level": "baseline", "version": "1.24" }), ".version", &["`v1.0` to `v1.37`"]);
    check(&json!({ "level": "baseline", "version": "v1.38" }), ".version", &["not known", "at most `v1.37`"]);
    check(&json!({ "level": "baseline", "version": 1.24 }), ".version", &["`\"v1.24\"`"]);
    check(&json!({ "level": "baseline", "version": true }), ".version", &["expected a string"]);
    check(&json!({ "level": "baseline", "controls": [] }), ".controls", &["unknown field"]);
    assert_eq!(refused(&json!("baseline"))[0].path, "rule.podSecurity");
    assert!(refused(&Value::Null)[0].reason.contains("expected an object"));
}

#[test]
fn every_control_can_be_excluded_by_each_of_its_fields() {
    for control in controls() {
        let images = if control.pod_fields.is_empty() { json!(["*"]) } else { json!([]) };
        let plain = json!({ "controlName": control.name, "images": images });
        let parsed = parse(&excluding(plain), "p").unwrap();
        assert_eq!(parsed.value.exclusions()[0].control(), control.name);
        for field in control.restricted_fields() {
            let field = field.replace("<container>", "db");
            let of_container = field.contains("ontainers[");
            let images = if of_container { json!(["*"]) } else { json!([]) };
            let entry = json!({
                "controlName": control.name,
                "images": images,
                "restrictedField": field,
                "values": ["*"],
            });
            let parsed = parse(&excluding(entry), "p").unwrap_or_else(|found| panic!("{field}: {found:?}"));
            assert_eq!(parsed.warnings, [], "{field}");
        }
    }
}

#[test]
fn control_names_are_refused_with_a_cure() {
    let at = ".exclude[0].controlName";
    check(&excluding(json!({})), at, &["missing", "\"Host Namespaces\"", "\"Seccomp\""]);
    check(&excluding(json!({ "controlName": "Hosts" })), at, &["`Hosts` is no control", "\"HostProcess\""]);
    check(&excluding(json!({ "controlName": "host namespaces" })), at, &["write `Host Namespaces`"]);
    check(&excluding(json!({ "controlName": "hostPorts" })), at, &["write `Host Ports`"]);
    check(&excluding(json!({ "controlName": 7 })), at, &["expected a string"]);
    let baseline = |name: &str, images: Value| json!({ "level": "baseline", "exclude": [{ "controlName": name, "images": images }] });
    for (name, images) in [
        ("Volume Types", json!([])),
        ("Privilege Escalation", json!(["*"])),
        ("Running as Non-root", json!([])),
        ("Running as Non-root user", json!(["*"])),
    ] {
        check(&baseline(name, images), at, &["take it out", "no control of `baseline`"]);
    }
    assert!(parse(&baseline("Seccomp", json!([])), "p").is_ok());
    assert!(parse(&baseline("Capabilities", json!(["*"])), "p").is_ok());
}

#[test]
fn images_stand_where_they_belong() {
    let at = ".exclude[0].images";
    for name in ["Host Namespaces", "HostPath Volumes", "Sysctls", "Volume Types"] {
        let entry = json!({ "controlName": name, "images": ["*"] });
        check(&excluding(entry), at, &["take them out", name, "of the pod"]);
    }
    for name in [
        "Capabilities",
        "Privileged Containers",
        "Host Ports",
        "/proc Mount Type",
        "Privilege Escalation",
        "Host Probes / Lifecycle Hooks",
    ] {
        check(&excluding(json!({ "controlName": name })), at, &["missing", name, "of containers"]);
        check(&excluding(json!({ "controlName": name, "images": [] })), at, &["missing"]);
    }
    check(&excluding(json!({ "controlName": "Seccomp", "images": "*" })), at, &["a list of strings"]);
    check(
        &excluding(json!({ "controlName": "Seccomp", "images": ["a", 1] })),
        ".exclude[0].images[1]",
        &["expected a string"],
    );
}

#[test]
fn fields_and_values_go_together() {
    let entry = |field: &str, values: Value| {
        excluding(json!({ "controlName": "Host Namespaces", "restrictedField": field, "values": values }))
    };
    let (field, values) = (".exclude[0].restrictedField", ".exclude[0].values");
    check(&entry("spec.hostPID", json!([])), values, &["missing", "`\"*\"` for all"]);
    check(&entry("spec.hostPID", Value::Null), values, &["missing"]);
    check(
        &entry("", json!(["true"])),
        field,
        &["missing", "`spec.hostIPC`, `spec.hostNetwork`, `spec.hostPID`"],
    );
    check(
        &entry("spec.volumes[*].hostPath", json!(["*"])),
        field,
        &["no field of `Host Namespaces` but of `HostPath Volumes`", "`spec.hostPID`"],
    );
    check(&entry("spec.hostpid", json!(["*"])), field, &["`spec.hostpid` is no field of `Host Namespaces`:"]);
    check(
        &entry("spec.hostPID", json!([true])),
        ".exclude[0].values[0]",
        &["expected a string: put it in quotes"],
    );
    for wrong in [
        "spec.containers[0].securityContext.appArmorProfile.type",
        "metadata.annotations",
        "metadata.annotations[container.apparmor.security.beta.kubernetes.io/*]",
        "metadata.annotations[else]",
    ] {
        let entry = json!({ "controlName": "AppArmor", "restrictedField": wrong, "values": ["*"] });
        check(&excluding(entry), field, &["no field of `AppArmor`", "io/<container>]`"]);
    }
}

#[test]
fn fields_that_lift_nothing_are_warned_of() {
    let entry = |images: Value, field: &str| {
        let entry =
            json!({ "controlName": "SELinux", "images": images, "restrictedField": field, "values": ["*"] });
        parse(&excluding(entry), "p").unwrap().warnings
    };
    let own = "spec.securityContext.seLinuxOptions.type";
    let container = "spec.initContainers[*].securityContext.seLinuxOptions.type";
    assert_eq!(entry(json!([]), own), []);
    assert_eq!(entry(json!(["*"]), container), []);
    for (images, field, words) in
        [(json!(["*"]), own, "field of the pod"), (json!([]), container, "write the `images`")]
    {
        let warnings = entry(images, field);
        assert_eq!(warnings.len(), 1);
        assert_eq!(warnings[0].path, "p.exclude[0].restrictedField");
        assert!(warnings[0].reason.contains(words), "{}", warnings[0]);
    }
}

#[test]
fn every_problem_is_named() {
    let block = json!({
        "level": "lax",
        "version": "1",
        "exclude": [{ "controlName": "x", "more": 1 }, { "controlName": "Sysctls", "images": ["a"] }, 3],
    });
    let paths: Vec<_> = refused(&block).into_iter().map(|problem| problem.path).collect();
    assert_eq!(
        paths,
        [
            "rule.podSecurity.level",
            "rule.podSecurity.version",
            "rule.podSecurity.exclude[0].more",
            "rule.podSecurity.exclude[0].controlName",
            "rule.podSecurity.exclude[1].images",
            "rule.podSecurity.exclude[2]",
            "rule.podSecurity.exclude[2].controlName",
        ]
    );
}

#[test]
fn exceptions_are_lists_of_exclusions() {
    let parsed = parse_exclusions(&json!([{ "controlName": "Volume Types" }]), "spec.podSecurity").unwrap();
    assert_eq!(parsed.value[0].control(), "Volume Types");
    assert!(parse_exclusions(&Value::Null, "spec.podSecurity").unwrap().value.is_empty());
    let problems = parse_exclusions(&json!([{ "controlName": "x" }]), "spec.podSecurity").unwrap_err();
    assert_eq!(problems[0].path, "spec.podSecurity[0].controlName");
    let problems = parse_exclusions(&json!({ "controlName": "Sysctls" }), "spec.podSecurity").unwrap_err();
    assert!(problems[0].to_string().starts_with("spec.podSecurity: expected a list"));
    let entries = |count| Value::Array(vec![json!({ "controlName": "Sysctls" }); count]);
    assert!(parse_exclusions(&entries(MAX_EXCLUSIONS), "p").is_ok());
    assert_eq!(parse_exclusions(&entries(MAX_EXCLUSIONS + 1), "p").unwrap_err()[0].path, "p");
}
