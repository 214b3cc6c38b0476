//! What exclusions lift, and what they leave.
#![allow(clippy::unwrap_used, reason = "tests")]

use countersign_podsecurity::{Verdict, parse, parse_exclusions};
use serde_json::{Value, json};

/// The paths of what is left of a pod's errors, in `restricted` without regard to what the pod of
/// these tests leaves unset.
fn left(level: &str, exclude: &Value, spec: &Value) -> Vec<String> {
    left_of(level, exclude, &Value::Null, spec)
}

fn left_of(level: &str, exclude: &Value, metadata: &Value, spec: &Value) -> Vec<String> {
    let rule = json!({ "level": level, "version": "v1.34", "exclude": exclude });
    let rule = parse(&rule, "podSecurity").unwrap_or_else(|problems| panic!("{problems:?}")).value;
    let paths = paths(rule.evaluate(metadata, spec, []));
    // An exception with the same exclusions lifts the same.
    let plain = parse(&json!({ "level": level, "version": "v1.34" }), "podSecurity").unwrap().value;
    let exception = parse_exclusions(exclude, "spec.podSecurity").unwrap().value;
    let excepted = plain.evaluate(metadata, spec, &exception);
    if paths.is_empty() {
        assert_eq!(excepted, Verdict::Excepted);
    } else {
        assert_eq!(self::paths(excepted), paths);
    }
    paths
}

fn paths(verdict: Verdict) -> Vec<String> {
    match verdict {
        Verdict::Passed => Vec::new(),
        Verdict::Violated(violations) => {
            violations.into_iter().flat_map(|violation| violation.errors).map(|error| error.path).collect()
        }
        other => panic!("{other:?}"),
    }
}

fn privileged(list: &[(&str, &str)]) -> Value {
    let container = |(name, image): &(&str, &str)| json!({ "name": name, "image": image, "securityContext": { "privileged": true } });
    Value::Array(list.iter().map(container).collect())
}

const AT: &str = "securityContext.privileged";

#[test]
fn by_control_alone() {
    let spec = json!({ "hostPID": true, "hostIPC": true, "volumes": [{ "name": "v", "hostPath": {} }] });
    let exclude = json!([{ "controlName": "Host Namespaces" }]);
    assert_eq!(left("baseline", &exclude, &spec), ["spec.volumes[0].hostPath"]);
    let exclude = json!([{ "controlName": "Host Namespaces" }, { "controlName": "HostPath Volumes" }]);
    assert!(left("baseline", &exclude, &spec).is_empty());
    // What is also forbidden by another control stays forbidden.
    let spec = json!({ "volumes": [{ "name": "v", "hostPath": {} }, { "name": "w", "nfs": {} }] });
    let exclude = json!([{ "controlName": "Volume Types" }]);
    assert_eq!(left("restricted", &exclude, &spec), ["spec.volumes[0].hostPath"]);
}

#[test]
fn by_image() {
    let spec = json!({
        "initContainers": privileged(&[("a", "quay.io/acme/init:1")]),
        "containers": privileged(&[("b", "quay.io/acme/db:1"), ("c", "docker.io/redis")]),
        "ephemeralContainers": privileged(&[("d", "busybox")]),
    });
    let all = [
        format!("spec.initContainers[0].{AT}"),
        format!("spec.containers[0].{AT}"),
        format!("spec.containers[1].{AT}"),
        format!("spec.ephemeralContainers[0].{AT}"),
    ];
    for (images, left_over) in [
        (json!(["*"]), &[][..]),
        (json!(["quay.io/*"]), &[2, 3]),
        (json!(["quay.io/acme/??:1"]), &[0, 2, 3]),
        (json!(["redis", "busybox"]), &[0, 1, 2]),
        (json!(["busybox", "quay.io/acme/*", "docker.io/redis"]), &[]),
        (json!(["QUAY.IO/*"]), &[0, 1, 2, 3]),
        (json!([""]), &[0, 1, 2, 3]),
    ] {
        let exclude = json!([{ "controlName": "Privileged Containers", "images": images }]);
        let expected: Vec<_> = left_over.iter().map(|at| all[*at].clone()).collect();
        assert_eq!(left("baseline", &exclude, &spec), expected, "{exclude}");
    }
}

#[test]
fn by_field_of_one_kind_of_container() {
    let spec = json!({
        "initContainers": privileged(&[("a", "i")]),
        "containers": privileged(&[("b", "i")]),
        "ephemeralContainers": privileged(&[("c", "i")]),
    });
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        let exclude = json!([{
            "controlName": "Privileged Containers",
            "images": ["*"],
            "restrictedField": format!("spec.{list}[*].{AT}"),
            "values": ["true"],
        }]);
        let found = left("baseline", &exclude, &spec);
        assert_eq!(found.len(), 2);
        assert!(!found.contains(&format!("spec.{list}[0].{AT}")));
    }
}

#[test]
fn by_value() {
    let spec = json!({ "volumes": [
        { "name": "a", "hostPath": { "path": "/etc" } },
        { "name": "b", "hostPath": { "path": "/var/log/pods" } },
        { "name": "c", "hostPath": { "path": "/var/log" } },
    ]});
    for (values, expected) in [
        (json!(["/var/log"]), &[0, 1][..]),
        (json!(["/var/log*"]), &[0]),
        (json!(["/var/log/*", "/etc"]), &[2]),
        (json!(["*"]), &[]),
        (json!(["/VAR/LOG"]), &[0, 1, 2]),
        (json!([""]), &[0, 1, 2]),
    ] {
        let exclude = json!([{
            "controlName": "HostPath Volumes",
            "restrictedField": "spec.volumes[*].hostPath",
            "values": values,
        }]);
        let expected: Vec<_> = expected.iter().map(|at| format!("spec.volumes[{at}].hostPath")).collect();
        assert_eq!(left("baseline", &exclude, &spec), expected, "{exclude}");
    }
}

#[test]
fn a_list_is_lifted_as_a_whole_or_not_at_all() {
    let add = |names: Value| {
        json!({ "containers": [{
            "name": "a",
            "image": "i",
            "securityContext": { "capabilities": { "add": names } },
        }]})
    };
    let exclude = |values: Value| {
        json!([{
            "controlName": "Capabilities",
            "images": ["*"],
            "restrictedField": "spec.containers[*].securityContext.capabilities.add",
            "values": values,
        }])
    };
    let lifted = |names, values| left("baseline", &exclude(values), &add(names)).is_empty();
    assert!(lifted(json!(["NET_ADMIN", "CHOWN"]), json!(["NET_ADMIN"])));
    assert!(lifted(json!(["NET_ADMIN", "NET_RAW"]), json!(["NET_*"])));
    assert!(!lifted(json!(["NET_ADMIN", "SYS_ADMIN"]), json!(["NET_ADMIN"])));
    assert!(lifted(json!(["NET_ADMIN", "SYS_ADMIN"]), json!(["NET_ADMIN", "SYS_ADMIN"])));
    // Two exclusions with a value each do not add up.
    let mut two = exclude(json!(["NET_ADMIN"]));
    two.as_array_mut().unwrap().push(exclude(json!(["SYS_ADMIN"]))[0].clone());
    assert_eq!(left("baseline", &two, &add(json!(["NET_ADMIN", "SYS_ADMIN"]))).len(), 1);
}

#[test]
fn numbers_and_flags_are_values() {
    let spec = json!({ "hostPID": true, "containers": [
        { "name": "a", "image": "i", "ports": [{ "hostPort": 80 }, { "hostPort": 9100 }] },
    ]});
    let ports = |values: Value| {
        json!([
            { "controlName": "Host Namespaces", "restrictedField": "spec.hostPID", "values": ["true"] },
            {
                "controlName": "Host Ports",
                "images": ["*"],
                "restrictedField": "spec.containers[*].ports[*].hostPort",
                "values": values,
            },
        ])
    };
    assert_eq!(left("baseline", &ports(json!(["80"])), &spec), ["spec.containers[0].ports[1].hostPort"]);
    assert_eq!(left("baseline", &ports(json!(["9*"])), &spec), ["spec.containers[0].ports[0].hostPort"]);
    assert!(left("baseline", &ports(json!(["80", "9100"])), &spec).is_empty());
    let other = json!([
        { "controlName": "Host Namespaces", "restrictedField": "spec.hostIPC", "values": ["*"] },
        { "controlName": "Host Ports", "images": ["*"] },
    ]);
    assert_eq!(left("baseline", &other, &spec), ["spec.hostPID"]);
}

#[test]
fn the_pod_and_its_containers_are_excluded_each_by_itself() {
    let options = json!({ "seLinuxOptions": { "type": "spc_t" } });
    let spec = json!({
        "securityContext": options,
        "containers": [{ "name": "a", "image": "i", "securityContext": options }],
    });
    let own = "spec.securityContext.seLinuxOptions.type";
    let container = "spec.containers[0].securityContext.seLinuxOptions.type";
    let pod_only = json!([{ "controlName": "SELinux" }]);
    assert_eq!(left("baseline", &pod_only, &spec), [container]);
    let containers_only = json!([{ "controlName": "SELinux", "images": ["*"] }]);
    assert_eq!(left("baseline", &containers_only, &spec), [own]);
    let both = json!([{ "controlName": "SELinux" }, { "controlName": "SELinux", "images": ["i"] }]);
    assert!(left("baseline", &both, &spec).is_empty());
    let fields = json!([
        { "controlName": "SELinux", "restrictedField": own, "values": ["spc_t"] },
        {
            "controlName": "SELinux",
            "images": ["i"],
            "restrictedField": "spec.containers[*].securityContext.seLinuxOptions.type",
            "values": ["spc_?"],
        },
    ]);
    assert!(left("baseline", &fields, &spec).is_empty());
}

#[test]
fn annotations_are_the_pods() {
    let key = |name: &str| format!("container.apparmor.security.beta.kubernetes.io/{name}");
    let metadata = json!({ "annotations": { key("a"): "unconfined", key("b1"): "unconfined" } });
    let spec = json!({ "containers": [{ "name": "a", "image": "i" }] });
    let path = |name| format!("metadata.annotations[{}]", key(name));
    let one = |field: String| json!([{ "controlName": "AppArmor", "restrictedField": field, "values": ["unconfined"] }]);
    assert_eq!(left_of("baseline", &one(path("a")), &metadata, &spec), [path("b1")]);
    for b in ["b*", "b1"] {
        assert_eq!(left_of("baseline", &one(path(b)), &metadata, &spec), [path("a")]);
    }
    let images = json!([{ "controlName": "AppArmor", "images": ["*"] }]);
    assert_eq!(left_of("baseline", &images, &metadata, &spec).len(), 2);
    let all = json!([{ "controlName": "AppArmor" }]);
    assert!(left_of("baseline", &all, &metadata, &spec).is_empty());
}

/// A pod that is good but for what of seccomp its containers set.
fn seccomp(own: Option<&str>, containers: &[Option<&str>]) -> Value {
    let profile = |kind: Option<&str>| kind.map(|kind| json!({ "type": kind }));
    let container = |(at, kind): (usize, Option<&str>)| {
        json!({
            "name": format!("c{at}"),
            "image": format!("i{at}"),
            "securityContext": {
                "allowPrivilegeEscalation": false,
                "capabilities": { "drop": ["ALL"] },
                "seccompProfile": profile(kind),
            },
        })
    };
    json!({
        "securityContext": { "runAsNonRoot": true, "seccompProfile": profile(own) },
        "containers": containers.iter().copied().enumerate().map(container).collect::<Vec<_>>(),
    })
}

#[test]
fn what_nobody_sets_is_lifted_for_one_container_of_the_pod() {
    let path = |at: usize| format!("spec.containers[{at}].securityContext.seccompProfile.type");
    let own = json!([{ "controlName": "Seccomp" }]);
    assert!(left("restricted", &own, &seccomp(None, &[None])).is_empty());
    assert_eq!(left("restricted", &own, &seccomp(None, &[None, None])), [path(1)]);
    let both = json!([{ "controlName": "Seccomp" }, { "controlName": "Seccomp", "images": ["*"] }]);
    assert!(left("restricted", &both, &seccomp(None, &[None, None])).is_empty());
    // What a container has set is its own.
    let unconfined = seccomp(None, &[Some("Unconfined")]);
    assert_eq!(left("restricted", &own, &unconfined), [path(0), path(0)]);
    let mut init = seccomp(None, &[None, Some("Localhost")]);
    init["initContainers"] = json!([init["containers"][0]]);
    init["containers"].as_array_mut().unwrap().remove(0);
    let path = "spec.initContainers[0].securityContext.seccompProfile.type";
    assert_eq!(left("restricted", &own, &init), [path]);
}

#[test]
fn what_stands_behind_another_error_is_not_lifted_with_it() {
    let path = |at: usize| format!("spec.containers[{at}].securityContext.seccompProfile.type");
    let of = |image: &str| json!([{ "controlName": "Seccomp", "images": [image] }]);
    let mixed = seccomp(None, &[Some("Unconfined"), None]);
    assert_eq!(left("restricted", &json!([]), &mixed), [path(0), path(0)]);
    assert_eq!(left("restricted", &of("i0"), &mixed), [path(1)]);
    assert_eq!(left("restricted", &of("i1"), &mixed), [path(0), path(0)]);
    assert!(left("restricted", &of("*"), &mixed).is_empty());
    // Containers that leave it to the pod are as good as the pod.
    let inherited = seccomp(Some("Unconfined"), &[None, None]);
    let own = json!([{ "controlName": "Seccomp" }]);
    assert!(left("restricted", &own, &inherited).is_empty());
}

#[test]
fn an_absent_value_is_lifted_whatever_the_values_are() {
    let spec = json!({
        "securityContext": { "runAsNonRoot": true, "seccompProfile": { "type": "Localhost" } },
        "containers": [{ "name": "a", "image": "i", "securityContext": { "capabilities": { "drop": ["ALL"] } } },
            { "name": "b", "image": "i" }],
    });
    let exclude = json!([
        {
            "controlName": "Privilege Escalation",
            "images": ["*"],
            "restrictedField": "spec.containers[*].securityContext.allowPrivilegeEscalation",
            "values": ["true"],
        },
        {
            "controlName": "Capabilities",
            "images": ["*"],
            "restrictedField": "spec.containers[*].securityContext.capabilities.drop",
            "values": ["CHOWN"],
        },
    ]);
    // An unset field of a context that is there has the value `nil`, as upstream.
    let nil = "spec.containers[0].securityContext.allowPrivilegeEscalation";
    assert_eq!(left("restricted", &exclude, &spec), [nil]);
}

#[test]
fn policies_and_exceptions_add_up() {
    let spec = json!({ "hostPID": true, "containers": privileged(&[("a", "i"), ("b", "j")]) });
    let rule = json!({
        "level": "baseline",
        "exclude": [{ "controlName": "Privileged Containers", "images": ["i"] }],
    });
    let rule = parse(&rule, "podSecurity").unwrap().value;
    let read = |value| parse_exclusions(&value, "spec.podSecurity").unwrap().value;
    let first = read(json!([{ "controlName": "Host Namespaces" }]));
    let second = read(json!([{ "controlName": "Privileged Containers", "images": ["j"] }]));
    let judge =
        |exceptions: &[&[_]]| rule.evaluate(&Value::Null, &spec, exceptions.iter().copied().flatten());
    assert_eq!(paths(judge(&[])), ["spec.hostPID".to_owned(), format!("spec.containers[1].{AT}")]);
    assert_eq!(paths(judge(&[&first])), [format!("spec.containers[1].{AT}")]);
    assert_eq!(judge(&[&first, &second]), Verdict::Excepted);
    let clean = json!({ "containers": privileged(&[("a", "i")]) });
    assert_eq!(rule.evaluate(&Value::Null, &clean, &first), Verdict::Passed);
}

#[test]
fn an_exclusion_of_one_control_is_of_no_other() {
    let spec = json!({ "hostPID": true, "containers": privileged(&[("a", "i")]) });
    for (name, images) in [
        ("HostProcess", json!(["*"])),
        ("HostProcess", json!([])),
        ("Capabilities", json!(["*"])),
        ("Host Ports", json!(["*"])),
        ("Sysctls", json!([])),
    ] {
        let exclude = json!([{ "controlName": name, "images": images }]);
        assert_eq!(left("baseline", &exclude, &spec).len(), 2, "{name}");
    }
}
