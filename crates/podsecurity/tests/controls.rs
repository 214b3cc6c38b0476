//! Every control at the edges of its versions: what violates it, what does not, and in which words.
#![allow(clippy::unwrap_used, clippy::needless_pass_by_value, reason = "tests")]

use std::collections::BTreeSet;

use countersign_podsecurity::{Level, NEWEST, Scope, Verdict, Version, controls, parse};
use serde_json::{Value, json};

/// A pod that keeps to `restricted` at every version, with a patch on its first container and one
/// on its spec.
fn pod(container: &Value, spec: &Value) -> Value {
    let mut pod = json!({
        "securityContext": { "runAsNonRoot": true, "seccompProfile": { "type": "RuntimeDefault" } },
        "containers": [{
            "name": "c",
            "image": "i",
            "securityContext": { "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } },
        }],
    });
    merge(&mut pod["containers"][0], container);
    merge(&mut pod, spec);
    pod
}

fn merge(into: &mut Value, patch: &Value) {
    match (into, patch) {
        (Value::Object(into), Value::Object(patch)) => {
            for (key, value) in patch {
                merge(into.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (into, patch) => *into = patch.clone(),
    }
}

/// The ids of what is violated.
fn ids(level: &str, version: &str, annotations: &Value, spec: &Value) -> Vec<&'static str> {
    let rule = parse(&json!({ "level": level, "version": version }), "podSecurity").unwrap().value;
    match rule.evaluate(&json!({ "annotations": annotations }), spec, []) {
        Verdict::Passed => Vec::new(),
        Verdict::Violated(violations) => {
            assert!(violations.iter().all(|violation| !violation.errors.is_empty()));
            violations.iter().map(|violation| violation.control.id).collect()
        }
        other => panic!("{other:?}"),
    }
}

/// A pod, the control that it is about, and the first version and the level at which it is
/// violated; the version from which on it is not again.
struct Row {
    id: &'static str,
    level: Level,
    since: u32,
    until: Option<u32>,
    annotations: Value,
    spec: Value,
}

fn row(id: &'static str, level: Level, since: u32, until: Option<u32>, container: Value, spec: Value) -> Row {
    let annotations = Value::Null;
    Row { id, level, since, until, annotations, spec: pod(&container, &spec) }
}

fn context(context: Value) -> Value {
    json!({ "securityContext": context })
}

fn rows() -> Vec<Row> {
    let none = || json!({});
    let base = |id, container, spec| row(id, Level::Baseline, 0, None, container, spec);
    let hard = |id, since, container, spec| row(id, Level::Restricted, since, None, container, spec);
    let sysctl = |name: &str| context(json!({ "sysctls": [{ "name": name, "value": "1" }] }));
    let volume = |source: Value| {
        let mut volume = json!({ "name": "v" });
        merge(&mut volume, &source);
        json!({ "volumes": [volume] })
    };
    let annotated = |id, until, key: &str, value: &str| Row {
        annotations: json!({ key: value }),
        ..row(id, Level::Baseline, 0, until, none(), none())
    };
    let probe = |at: &str, action: &str| json!({ at: { action: { "host": "10.0.0.1", "port": 80 } } });
    let mut rows = vec![
        base("windowsHostProcess", context(json!({ "windowsOptions": { "hostProcess": true } })), none()),
        base("windowsHostProcess", none(), context(json!({ "windowsOptions": { "hostProcess": true } }))),
        base("hostNamespaces", none(), json!({ "hostNetwork": true })),
        base("hostNamespaces", none(), json!({ "hostPID": true })),
        base("hostNamespaces", none(), json!({ "hostIPC": true })),
        base("privileged", context(json!({ "privileged": true })), none()),
        base("capabilities_baseline", context(json!({ "capabilities": { "add": ["SYS_ADMIN"] } })), none()),
        base("capabilities_baseline", context(json!({ "capabilities": { "add": ["sys_admin"] } })), none()),
        base("capabilities_baseline", context(json!({ "capabilities": { "add": ["ALL"] } })), none()),
        base("hostPathVolumes", none(), volume(json!({ "hostPath": { "path": "/etc" } }))),
        base("hostPathVolumes", none(), volume(json!({ "hostPath": {} }))),
        base("hostPorts", json!({ "ports": [{ "containerPort": 1 }, { "hostPort": 80 }] }), none()),
        base("appArmorProfile", context(json!({ "appArmorProfile": { "type": "Unconfined" } })), none()),
        base("appArmorProfile", none(), context(json!({ "appArmorProfile": {} }))),
        annotated("appArmorProfile", None, "container.apparmor.security.beta.kubernetes.io/c", "unconfined"),
        base("seLinuxOptions", context(json!({ "seLinuxOptions": { "type": "spc_t" } })), none()),
        base("seLinuxOptions", context(json!({ "seLinuxOptions": { "user": "u" } })), none()),
        base("seLinuxOptions", none(), context(json!({ "seLinuxOptions": { "role": "r" } }))),
        row(
            "seLinuxOptions",
            Level::Baseline,
            0,
            Some(31),
            context(json!({ "seLinuxOptions": { "type": "container_engine_t" } })),
            none(),
        ),
        base("procMount", context(json!({ "procMount": "Unmasked" })), none()),
        row(
            "procMount",
            Level::Baseline,
            0,
            Some(35),
            context(json!({ "procMount": "Unmasked" })),
            json!({ "hostUsers": false }),
        ),
        hard("procMount_restricted", 35, context(json!({ "procMount": "Unmasked" })), none()),
        hard(
            "procMount_restricted",
            35,
            context(json!({ "procMount": "Unmasked" })),
            json!({ "hostUsers": false }),
        ),
        annotated(
            "seccompProfile_baseline",
            Some(19),
            "seccomp.security.alpha.kubernetes.io/pod",
            "unconfined",
        ),
        annotated(
            "seccompProfile_baseline",
            Some(19),
            "container.seccomp.security.alpha.kubernetes.io/c",
            "",
        ),
        row(
            "seccompProfile_baseline",
            Level::Baseline,
            19,
            None,
            context(json!({ "seccompProfile": { "type": "Unconfined" } })),
            none(),
        ),
        row(
            "seccompProfile_baseline",
            Level::Baseline,
            19,
            None,
            none(),
            context(json!({ "seccompProfile": { "type": "Unconfined" } })),
        ),
        hard("seccompProfile_restricted", 19, none(), context(json!({ "seccompProfile": null }))),
        hard("seccompProfile_restricted", 19, none(), context(json!({ "seccompProfile": { "type": null } }))),
        hard(
            "seccompProfile_restricted",
            19,
            context(json!({ "seccompProfile": { "type": "Unconfined" } })),
            none(),
        ),
        hard("restrictedVolumes", 0, none(), volume(json!({}))),
        hard("restrictedVolumes", 0, none(), volume(json!({ "hostPath": { "path": "/" } }))),
        hard("allowPrivilegeEscalation", 8, context(json!({ "allowPrivilegeEscalation": null })), none()),
        hard("allowPrivilegeEscalation", 8, context(json!({ "allowPrivilegeEscalation": true })), none()),
        hard("allowPrivilegeEscalation", 8, context(Value::Null), none()),
        hard("runAsNonRoot", 0, none(), context(json!({ "runAsNonRoot": null }))),
        hard("runAsNonRoot", 0, none(), context(json!({ "runAsNonRoot": false }))),
        hard("runAsNonRoot", 0, context(json!({ "runAsNonRoot": false })), none()),
        hard("runAsUser", 23, none(), context(json!({ "runAsUser": 0 }))),
        hard("runAsUser", 23, context(json!({ "runAsUser": 0 })), none()),
        hard("capabilities_restricted", 22, context(json!({ "capabilities": null })), none()),
        hard(
            "capabilities_restricted",
            22,
            context(json!({ "capabilities": { "drop": ["CHOWN"] } })),
            none(),
        ),
        hard("capabilities_restricted", 22, context(json!({ "capabilities": { "drop": ["all"] } })), none()),
        hard("capabilities_restricted", 22, context(json!({ "capabilities": { "add": ["CHOWN"] } })), none()),
        base("sysctls", none(), sysctl("kernel.msgmax")),
        row("sysctls", Level::Baseline, 0, Some(27), none(), sysctl("net.ipv4.ip_local_reserved_ports")),
        row("sysctls", Level::Baseline, 0, Some(29), none(), sysctl("net.ipv4.tcp_keepalive_time")),
        row("sysctls", Level::Baseline, 0, Some(29), none(), sysctl("net.ipv4.tcp_fin_timeout")),
        row("sysctls", Level::Baseline, 0, Some(29), none(), sysctl("net.ipv4.tcp_keepalive_intvl")),
        row("sysctls", Level::Baseline, 0, Some(29), none(), sysctl("net.ipv4.tcp_keepalive_probes")),
        row("sysctls", Level::Baseline, 0, Some(32), none(), sysctl("net.ipv4.tcp_rmem")),
        row("sysctls", Level::Baseline, 0, Some(32), none(), sysctl("net.ipv4.tcp_wmem")),
        row("sysctls", Level::Baseline, 0, Some(37), none(), sysctl("net.ipv4.tcp_slow_start_after_idle")),
        row("sysctls", Level::Baseline, 0, Some(37), none(), sysctl("net.ipv4.tcp_notsent_lowat")),
    ];
    for (id, since, patch) in
        [("runAsNonRoot", 0, json!({ "runAsNonRoot": false })), ("runAsUser", 23, json!({ "runAsUser": 0 }))]
    {
        let users = json!({ "hostUsers": false });
        rows.push(row(id, Level::Restricted, since, Some(35), context(patch), users));
    }
    for (id, since, patch) in [
        ("allowPrivilegeEscalation", 8, json!({ "allowPrivilegeEscalation": null })),
        ("capabilities_restricted", 22, json!({ "capabilities": null })),
    ] {
        let windows = json!({ "os": { "name": "windows" } });
        rows.push(row(id, Level::Restricted, since, Some(25), context(patch), windows));
    }
    let windows = json!({ "os": { "name": "windows" }, "securityContext": { "seccompProfile": null } });
    rows.push(row("seccompProfile_restricted", Level::Restricted, 19, Some(25), none(), windows));
    for at in ["livenessProbe", "readinessProbe", "startupProbe"] {
        for action in ["httpGet", "tcpSocket"] {
            let id = "hostProbesAndHostLifecycle";
            rows.push(row(id, Level::Baseline, 34, None, probe(at, action), none()));
            let at = if at == "startupProbe" { "preStop" } else { "postStart" };
            let hook = json!({ "lifecycle": probe(at, action) });
            rows.push(row(id, Level::Baseline, 34, None, hook, none()));
        }
    }
    for kind in [
        "gcePersistentDisk",
        "awsElasticBlockStore",
        "gitRepo",
        "nfs",
        "iscsi",
        "glusterfs",
        "rbd",
        "flexVolume",
        "cinder",
        "cephfs",
        "flocker",
        "fc",
        "azureFile",
        "vsphereVolume",
        "quobyte",
        "azureDisk",
        "photonPersistentDisk",
        "portworxVolume",
        "scaleIO",
        "storageos",
        "other",
    ] {
        rows.push(hard("restrictedVolumes", 0, none(), volume(json!({ kind: {} }))));
    }
    rows
}

#[test]
fn each_is_violated_at_its_level_and_versions_alone() {
    let versions: Vec<_> = (0..=37).map(|minor| (minor, format!("v1.{minor}"))).collect();
    for row in rows() {
        let Row { id, level, since, until, annotations, spec } = &row;
        for (minor, version) in versions.iter().map(|(minor, version)| (*minor, version.as_str())) {
            let bound = minor >= *since && until.is_none_or(|until| minor < until);
            for judged in Level::ALL {
                let found = ids(judged.name(), version, annotations, spec);
                let expected = bound && judged >= *level;
                assert_eq!(found.contains(id), expected, "{id} {judged}:{version} {spec} {annotations}");
            }
        }
        let latest = ids(level.name(), "latest", annotations, spec);
        assert_eq!(latest.contains(id), until.is_none(), "{id} latest {spec}");
    }
}

#[test]
fn the_table_has_a_row_for_each_control() {
    let tried: BTreeSet<_> = rows().iter().map(|row| row.id).collect();
    let known: BTreeSet<_> = controls().iter().map(|control| control.id).collect();
    assert_eq!(tried, known);
}

#[test]
fn containers_of_every_kind_are_looked_at() {
    let good = pod(&json!({}), &json!({}))["containers"][0].clone();
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for row in rows() {
            let bad = row.spec["containers"][0].clone();
            if bad == good {
                continue;
            }
            let mut spec = row.spec.clone();
            spec["containers"] = json!([good]);
            spec[list] = json!([good, bad]);
            let version = row.until.unwrap_or(38) - 1;
            let found = ids(row.level.name(), &format!("v1.{version}"), &row.annotations, &spec);
            assert!(found.contains(&row.id), "{} in {list}", row.id);
        }
    }
}

#[test]
fn what_is_allowed_passes() {
    let full = json!({
        "annotations": {
            "container.apparmor.security.beta.kubernetes.io/a": "runtime/default",
            "container.apparmor.security.beta.kubernetes.io/b": "localhost/own",
            "container.apparmor.security.beta.kubernetes.io/c": "",
            "seccomp.security.alpha.kubernetes.io/pod": "docker/default",
            "container.seccomp.security.alpha.kubernetes.io/a": "localhost/own",
            "container.seccomp.security.alpha.kubernetes.io/stranger": "unconfined",
        },
    });
    let container = json!({
        "ports": [{ "containerPort": 80, "hostPort": 0 }],
        "livenessProbe": { "httpGet": { "port": 80, "host": "" }, "tcpSocket": null },
        "lifecycle": { "preStop": { "exec": { "command": ["true"] } } },
        "securityContext": {
            "privileged": false,
            "procMount": "Default",
            "runAsUser": 1000,
            "capabilities": { "drop": ["CHOWN", "ALL"], "add": ["NET_BIND_SERVICE"] },
            "seLinuxOptions": { "type": "container_t", "level": "s0:c1" },
            "appArmorProfile": { "type": "Localhost" },
            "seccompProfile": { "type": "Localhost" },
            "windowsOptions": { "hostProcess": false },
        },
    });
    let volumes: Vec<_> = [
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "image",
        "persistentVolumeClaim",
        "projected",
        "secret",
    ]
    .iter()
    .map(|kind| json!({ "name": kind, *kind: {} }))
    .collect();
    let spec = json!({
        "hostNetwork": false,
        "hostPID": null,
        "volumes": volumes,
        "securityContext": { "sysctls": [{ "name": "kernel.shm_rmid_forced", "value": "1" }] },
    });
    for version in (0..=37).map(|minor| format!("v1.{minor}")).chain(["latest".to_owned()]) {
        for level in Level::ALL {
            let found = ids(level.name(), &version, &full["annotations"], &pod(&container, &spec));
            assert_eq!(found, Vec::<&str>::new(), "{level}:{version}");
        }
    }
}

#[test]
fn default_capabilities_are_no_matter_of_baseline() {
    for name in [
        "AUDIT_WRITE",
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "FSETID",
        "KILL",
        "MKNOD",
        "NET_BIND_SERVICE",
        "SETFCAP",
        "SETGID",
        "SETPCAP",
        "SETUID",
        "SYS_CHROOT",
    ] {
        let spec = pod(&context(json!({ "capabilities": { "add": [name] } })), &json!({}));
        assert_eq!(ids("baseline", "latest", &Value::Null, &spec), Vec::<&str>::new(), "{name}");
    }
}

#[test]
fn a_container_may_set_what_the_pod_leaves_open() {
    let own = context(json!({ "runAsNonRoot": true, "seccompProfile": { "type": "Localhost" } }));
    let spec = pod(&own, &json!({ "securityContext": null }));
    assert_eq!(ids("restricted", "latest", &Value::Null, &spec), Vec::<&str>::new());
    let wrong_pod = context(json!({ "runAsNonRoot": false, "seccompProfile": { "type": "Unconfined" } }));
    let spec = pod(&own, &wrong_pod);
    let expected = ["runAsNonRoot", "seccompProfile_baseline", "seccompProfile_restricted"];
    assert_eq!(ids("restricted", "latest", &Value::Null, &spec), expected);
}

#[test]
fn the_list_is_complete_and_in_order() {
    let ids: Vec<_> = controls().iter().map(|control| control.id).collect();
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), 19);
    for control in controls() {
        assert!(control.versions.is_sorted() && control.versions.last() <= Some(&NEWEST), "{}", control.id);
        assert!(control.level != Level::Privileged && control.restricted_fields().next().is_some());
        assert!(control.binds(Level::Restricted, Version::LATEST), "{}", control.id);
    }
    let of = |scope| {
        let of_scope = controls().iter().filter(move |control| control.scope() == scope);
        of_scope.map(|control| control.name).collect::<BTreeSet<_>>()
    };
    assert_eq!(of(Scope::Pod), ["Host Namespaces", "HostPath Volumes", "Sysctls", "Volume Types"].into());
    assert_eq!(
        of(Scope::Container),
        [
            "/proc Mount Type",
            "Capabilities",
            "Host Ports",
            "Host Probes / Lifecycle Hooks",
            "Privilege Escalation",
            "Privileged Containers",
        ]
        .into()
    );
    assert_eq!(
        of(Scope::Both),
        ["AppArmor", "HostProcess", "Running as Non-root", "Running as Non-root user", "SELinux", "Seccomp"]
            .into()
    );
}
