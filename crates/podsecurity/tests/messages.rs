//! The words: reasons and details as Kubernetes has them, field errors and messages as Kyverno.
#![allow(clippy::unwrap_used, clippy::needless_pass_by_value, reason = "tests")]

use countersign_podsecurity::{
    BadValue, ErrorKind, MAX_DETAIL, MAX_MESSAGE, Place, PodSecurity, Verdict, Violation, parse, passed,
    summary,
};
use serde_json::{Value, json};

fn rule(level: &str, version: Option<&str>) -> PodSecurity {
    parse(&json!({ "level": level, "version": version }), "podSecurity").unwrap().value
}

fn violated(rule: &PodSecurity, metadata: &Value, spec: &Value) -> Vec<Violation> {
    match rule.evaluate(metadata, spec, []) {
        Verdict::Violated(violations) => violations,
        other => panic!("{other:?}"),
    }
}

/// The detail and the list of field errors of one control.
fn check(level: &str, version: &str, id: &str, pod: &Value, reason: &str, detail: &str, errors: &[&str]) {
    let rule = rule(level, Some(version));
    let violations = violated(&rule, &pod["metadata"], &pod["spec"]);
    let found = violations.iter().find(|violation| violation.control.id == id).unwrap();
    assert_eq!((found.reason.as_str(), found.detail.as_str()), (reason, detail));
    let shown: Vec<_> = found.errors.iter().map(|error| error.message(Place::Pod)).collect();
    assert_eq!(shown, errors);
}

/// A pod with two containers of these security contexts.
fn two(a: Value, b: Value) -> Value {
    json!({ "spec": {
        "initContainers": [{ "name": "a", "image": "a", "securityContext": a }],
        "containers": [{ "name": "b", "image": "b", "securityContext": b }],
    }})
}

#[test]
fn controls_of_containers() {
    check(
        "baseline",
        "latest",
        "privileged",
        &two(json!({ "privileged": true }), json!({})),
        "privileged",
        r#"container "a" must not set securityContext.privileged=true"#,
        &["spec.initContainers[0].securityContext.privileged is forbidden, forbidden values found: true"],
    );
    check(
        "restricted",
        "latest",
        "allowPrivilegeEscalation",
        &json!({ "spec": { "containers": [
            { "name": "a" },
            { "name": "b", "securityContext": {} },
            { "name": "c", "securityContext": { "allowPrivilegeEscalation": true } },
        ]}}),
        "allowPrivilegeEscalation != false",
        r#"containers "a", "b", "c" must set securityContext.allowPrivilegeEscalation=false"#,
        &[
            "spec.containers[0].securityContext.allowPrivilegeEscalation: Required value",
            "spec.containers[1].securityContext.allowPrivilegeEscalation is forbidden, \
             forbidden values found: nil",
            "spec.containers[2].securityContext.allowPrivilegeEscalation is forbidden, \
             forbidden values found: true",
        ],
    );
    check(
        "baseline",
        "latest",
        "capabilities_baseline",
        &two(
            json!({ "capabilities": { "add": ["SYS_TIME", "NET_RAW", "CHOWN", "NET_RAW"] } }),
            json!({ "capabilities": { "add": ["BPF"] } }),
        ),
        "non-default capabilities",
        r#"containers "a", "b" must not include "BPF", "NET_RAW", "SYS_TIME" in securityContext.capabilities.add"#,
        &[
            "spec.initContainers[0].securityContext.capabilities.add is forbidden, \
             forbidden values found: [NET_RAW SYS_TIME]",
            "spec.containers[0].securityContext.capabilities.add is forbidden, \
             forbidden values found: [BPF]",
        ],
    );
    check(
        "restricted",
        "latest",
        "capabilities_restricted",
        &two(json!({ "capabilities": { "drop": ["KILL", "CHOWN"], "add": ["CHOWN"] } }), json!({})),
        "unrestricted capabilities",
        "containers \"a\", \"b\" must set securityContext.capabilities.drop=[\"ALL\"]; \
         container \"a\" must not include \"CHOWN\" in securityContext.capabilities.add",
        &[
            "spec.initContainers[0].securityContext.capabilities.drop is forbidden, \
             forbidden values found: [CHOWN KILL]",
            "spec.containers[0].securityContext.capabilities.drop: Required value",
            "spec.initContainers[0].securityContext.capabilities.add is forbidden, \
             forbidden values found: [CHOWN]",
        ],
    );
    check(
        "baseline",
        "latest",
        "hostPorts",
        &json!({ "spec": { "containers": [
            { "name": "a", "ports": [{ "hostPort": 80 }, { "hostPort": 0 }, { "hostPort": 443 }] },
            { "name": "b", "ports": [{ "hostPort": 80 }] },
        ]}}),
        "hostPort",
        r#"containers "a", "b" use hostPorts 443, 80"#,
        &[
            "spec.containers[0].ports[0].hostPort is forbidden, forbidden values found: 80",
            "spec.containers[0].ports[2].hostPort is forbidden, forbidden values found: 443",
            "spec.containers[1].ports[0].hostPort is forbidden, forbidden values found: 80",
        ],
    );
    check(
        "baseline",
        "latest",
        "hostProbesAndHostLifecycle",
        &json!({ "spec": { "containers": [
            { "name": "a", "livenessProbe": { "httpGet": { "host": "h" } },
              "lifecycle": { "preStop": { "tcpSocket": { "host": "h" } } } },
        ]}}),
        "probe or lifecycle host",
        r#"container "a" uses probe or lifecycle host "h""#,
        &[
            "spec.containers[0].livenessProbe.httpGet.host is forbidden, forbidden values found: h",
            "spec.containers[0].lifecycle.preStop.tcpSocket.host is forbidden, forbidden values found: h",
        ],
    );
    check(
        "baseline",
        "latest",
        "procMount",
        &two(json!({ "procMount": "Unmasked" }), json!({ "procMount": "" })),
        "procMount",
        r#"containers "a", "b" must not set securityContext.procMount to "", "Unmasked""#,
        &[
            "spec.initContainers[0].securityContext.procMount is forbidden, forbidden values found: Unmasked",
            "spec.containers[0].securityContext.procMount: Forbidden",
        ],
    );
}

#[test]
fn controls_of_pods() {
    check(
        "baseline",
        "latest",
        "hostNamespaces",
        &json!({ "spec": { "hostIPC": true, "hostNetwork": true, "hostPID": true } }),
        "host namespaces",
        "hostNetwork=true, hostPID=true, hostIPC=true",
        &[
            "spec.hostNetwork is forbidden, forbidden values found: true",
            "spec.hostPID is forbidden, forbidden values found: true",
            "spec.hostIPC is forbidden, forbidden values found: true",
        ],
    );
    let volumes = json!({ "spec": { "volumes": [
        { "name": "a", "hostPath": { "path": "/var" } },
        { "name": "b", "nfs": {} },
        { "name": "c" },
    ]}});
    check(
        "baseline",
        "latest",
        "hostPathVolumes",
        &volumes,
        "hostPath volumes",
        r#"volume "a""#,
        &["spec.volumes[0].hostPath is forbidden, forbidden values found: /var"],
    );
    check(
        "restricted",
        "latest",
        "restrictedVolumes",
        &volumes,
        "restricted volume types",
        r#"volumes "a", "b", "c" use restricted volume types "hostPath", "nfs", "unknown""#,
        &[
            "spec.volumes[0].hostPath: Forbidden",
            "spec.volumes[1].nfs: Forbidden",
            "spec.volumes[2].unknown: Forbidden",
        ],
    );
    check(
        "baseline",
        "latest",
        "sysctls",
        &json!({ "spec": { "securityContext": { "sysctls": [{ "name": "b" }, { "name": "a" }] } } }),
        "forbidden sysctls",
        "b, a",
        &[
            "spec.securityContext.sysctls[0].name is forbidden, forbidden values found: b",
            "spec.securityContext.sysctls[1].name is forbidden, forbidden values found: a",
        ],
    );
}

#[test]
fn controls_of_both() {
    let both = |own: Value, a: Value, b: Value| {
        let mut pod = two(a, b);
        pod["spec"]["securityContext"] = own;
        pod
    };
    let seccomp = |kind: &str| json!({ "seccompProfile": { "type": kind } });
    check(
        "baseline",
        "latest",
        "windowsHostProcess",
        &both(
            json!({ "windowsOptions": { "hostProcess": true } }),
            json!({ "windowsOptions": { "hostProcess": true } }),
            json!({}),
        ),
        "hostProcess",
        r#"pod and container "a" must not set securityContext.windowsOptions.hostProcess=true"#,
        &[
            "spec.securityContext.windowsOptions.hostProcess is forbidden, forbidden values found: true",
            "spec.initContainers[0].securityContext.windowsOptions.hostProcess is forbidden, \
             forbidden values found: true",
        ],
    );
    check(
        "restricted",
        "latest",
        "runAsUser",
        &both(json!({ "runAsUser": 0 }), json!({ "runAsUser": 0 }), json!({ "runAsUser": 1 })),
        "runAsUser=0",
        r#"pod and container "a" must not set runAsUser=0"#,
        &[
            "spec.securityContext.runAsUser is forbidden, forbidden values found: 0",
            "spec.initContainers[0].securityContext.runAsUser is forbidden, forbidden values found: 0",
        ],
    );
    check(
        "restricted",
        "latest",
        "runAsNonRoot",
        &both(json!({ "runAsNonRoot": false }), json!({ "runAsNonRoot": false }), json!({})),
        "runAsNonRoot != true",
        "pod and container \"a\" must not set securityContext.runAsNonRoot=false\n\
         pod or container \"b\" must set securityContext.runAsNonRoot=true",
        &[
            "spec.securityContext.runAsNonRoot is forbidden, forbidden values found: false",
            "spec.initContainers[0].securityContext.runAsNonRoot is forbidden, \
             forbidden values found: false",
            "spec.containers[0].securityContext.runAsNonRoot: Required value",
        ],
    );
    let unconfined = both(seccomp("Unconfined"), seccomp("Unconfined"), json!({}));
    for id in ["seccompProfile_baseline", "seccompProfile_restricted"] {
        check(
            "restricted",
            "latest",
            id,
            &unconfined,
            "seccompProfile",
            r#"pod and container "a" must not set securityContext.seccompProfile.type to "Unconfined""#,
            &[
                "spec.securityContext.seccompProfile.type is forbidden, forbidden values found: Unconfined",
                "spec.initContainers[0].securityContext.seccompProfile.type is forbidden, \
                 forbidden values found: Unconfined",
            ],
        );
    }
    check(
        "restricted",
        "latest",
        "seccompProfile_restricted",
        &two(json!({}), json!({})),
        "seccompProfile",
        "pod or containers \"a\", \"b\" must set securityContext.seccompProfile.type to \
         \"RuntimeDefault\" or \"Localhost\"",
        &[
            "spec.initContainers[0].securityContext.seccompProfile.type: Required value",
            "spec.containers[0].securityContext.seccompProfile.type: Required value",
        ],
    );
    check(
        "baseline",
        "latest",
        "seLinuxOptions",
        &both(
            json!({ "seLinuxOptions": { "type": "x_t", "user": "u" } }),
            json!({ "seLinuxOptions": { "type": "y_t", "role": "r" } }),
            json!({ "seLinuxOptions": { "type": "container_t" } }),
        ),
        "seLinuxOptions",
        "pod and container \"a\" set forbidden securityContext.seLinuxOptions: \
         types \"x_t\", \"y_t\"; user may not be set; role may not be set",
        &[
            "spec.securityContext.seLinuxOptions.type is forbidden, forbidden values found: x_t",
            "spec.securityContext.seLinuxOptions.user is forbidden, forbidden values found: u",
            "spec.initContainers[0].securityContext.seLinuxOptions.type is forbidden, \
             forbidden values found: y_t",
            "spec.initContainers[0].securityContext.seLinuxOptions.role is forbidden, \
             forbidden values found: r",
        ],
    );
}

#[test]
fn annotations() {
    let pod = json!({
        "metadata": { "annotations": {
            "container.apparmor.security.beta.kubernetes.io/b": "a\"b",
            "container.apparmor.security.beta.kubernetes.io/a": "unconfined",
            "container.seccomp.security.alpha.kubernetes.io/c": "unconfined",
            "seccomp.security.alpha.kubernetes.io/pod": "x",
        }},
        "spec": { "containers": [{ "name": "c", "image": "i", "securityContext": {
            "appArmorProfile": { "type": "Unconfined" },
        }}]},
    });
    check(
        "baseline",
        "v1.18",
        "appArmorProfile",
        &pod,
        "forbidden AppArmor profiles",
        "container \"c\" and annotations must not set AppArmor profile type to \"Unconfined\", \
         \"container.apparmor.security.beta.kubernetes.io/a=\"unconfined\"\", \
         \"container.apparmor.security.beta.kubernetes.io/b=\"a\\\"b\"\"",
        &[
            "spec.containers[0].securityContext.appArmorProfile.type is forbidden, \
             forbidden values found: Unconfined",
            "spec.template.metadata.annotations[container.apparmor.security.beta.kubernetes.io/a] \
             is forbidden, forbidden values found: unconfined",
            "spec.template.metadata.annotations[container.apparmor.security.beta.kubernetes.io/b] \
             is forbidden, forbidden values found: a\"b",
        ],
    );
    check(
        "baseline",
        "v1.18",
        "seccompProfile_baseline",
        &pod,
        "seccompProfile",
        "forbidden annotations container.seccomp.security.alpha.kubernetes.io/c=\"unconfined\", \
         seccomp.security.alpha.kubernetes.io/pod=\"x\"",
        &[
            "spec.template.metadata.annotations[container.seccomp.security.alpha.kubernetes.io/c] \
             is forbidden, forbidden values found: unconfined",
            "spec.template.metadata.annotations[seccomp.security.alpha.kubernetes.io/pod] \
             is forbidden, forbidden values found: x",
        ],
    );
    let one = json!({
        "metadata": { "annotations": { "container.apparmor.security.beta.kubernetes.io/a": "x" } },
        "spec": {},
    });
    check(
        "baseline",
        "latest",
        "appArmorProfile",
        &one,
        "forbidden AppArmor profile",
        "annotation must not set AppArmor profile type to \
         \"container.apparmor.security.beta.kubernetes.io/a=\"x\"\"",
        &["spec.template.metadata.annotations[container.apparmor.security.beta.kubernetes.io/a] \
           is forbidden, forbidden values found: x"],
    );
}

#[test]
fn whole_messages() {
    let spec = json!({
        "hostPID": true,
        "volumes": [{ "name": "v", "hostPath": { "path": "/" } }],
        "containers": [{ "name": "c", "image": "i" }],
    });
    let baseline = rule("baseline", Some("v1.29"));
    let violations = violated(&baseline, &Value::Null, &spec);
    for (kind, prefix) in [
        ("Pod", "spec"),
        ("Deployment", "spec.template.spec"),
        ("CronJob", "spec.jobTemplate.spec.template.spec"),
    ] {
        let place = Place::of_kind(kind).unwrap();
        assert_eq!(
            baseline.failed("baseline", &violations, place),
            format!(
                "Validation rule 'baseline' failed. It violates PodSecurity \"baseline:v1.29\": \
                 (Forbidden reason: host namespaces, field error list: \
                 [{prefix}.hostPID is forbidden, forbidden values found: true])\
                 (Forbidden reason: hostPath volumes, field error list: \
                 [{prefix}.volumes[0].hostPath is forbidden, forbidden values found: /])"
            )
        );
        assert_eq!(format!("/{}", prefix.replace('.', "/")), place.pointers()[1]);
    }
    assert_eq!(Place::of_kind("Service"), None);
    let unversioned = rule("baseline", None);
    assert!(unversioned.failed("r", &violations, Place::Pod).contains("PodSecurity \"baseline:\": (Forb"));
    assert_eq!(summary(&violations), "host namespaces (hostPID=true), hostPath volumes (volume \"v\")");
    assert_eq!(passed("r"), "Validation rule 'r' passed.");
}

#[test]
fn errors_are_data() {
    let spec = json!({ "containers": [{ "name": "c", "ports": [{ "hostPort": -1 }] }] });
    let violations = violated(&rule("baseline", None), &Value::Null, &spec);
    let error = &violations[0].errors[0];
    assert_eq!((error.kind, error.bad.as_ref()), (ErrorKind::Forbidden, Some(&BadValue::Number(-1))));
    assert_eq!(error.path, "spec.containers[0].ports[0].hostPort");
}

#[test]
fn messages_are_bounded() {
    let long = "é".repeat(100_000);
    let ports: Vec<_> = (0..3000).map(|_| json!({ "hostPort": 1 })).collect();
    let spec = json!({
        "securityContext": { "sysctls": [{ "name": long }, { "name": long }] },
        "volumes": vec![json!({ "name": long, "hostPath": { "path": long } }); 40],
        "containers": [{
            "name": long,
            "ports": ports,
            "livenessProbe": { "httpGet": { "host": long } },
            "securityContext": {
                "privileged": true,
                "procMount": long,
                "capabilities": { "add": vec![&long; 40], "drop": [long] },
                "seLinuxOptions": { "type": long, "user": long },
                "appArmorProfile": { "type": long },
                "seccompProfile": { "type": long },
            },
        }],
    });
    let metadata = json!({ "annotations": {
        format!("container.apparmor.security.beta.kubernetes.io/{long}"): long,
    }});
    for version in ["latest", "v1.18"] {
        let rule = rule("restricted", Some(version));
        let violations = violated(&rule, &metadata, &spec);
        assert!(rule.failed("r", &violations, Place::Pod).len() <= MAX_MESSAGE + "…".len());
        assert!(summary(&violations).len() <= MAX_MESSAGE + "…".len());
        for violation in &violations {
            assert!(violation.detail.len() <= MAX_DETAIL + "…".len(), "{:?}", violation.control);
            for error in &violation.errors {
                assert!(error.message(Place::CronJob).len() < 3 * MAX_DETAIL, "{:?}", violation.control);
            }
        }
    }
}
