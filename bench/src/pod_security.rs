//! Policies like those that clusters have beside the ones about images: what the Pod Security Standards ask, and good
//! habits, each as a policy of its own.

/// What each asks of a pod; the one that is reviewed here does all of it.
const RULES: [(&str, &str); 20] = [
    (
        "capabilities",
        "foreach: [{ list: 'request.object.spec.[ephemeralContainers, initContainers, containers][]', deny: { conditions: { any: [{ key: '{{ element.securityContext.capabilities.add[] || `[]` }}', operator: AnyNotIn, value: [AUDIT_WRITE, CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, MKNOD, NET_BIND_SERVICE, SETFCAP, SETGID, SETPCAP, SETUID, SYS_CHROOT] }] } } }]",
    ),
    (
        "host-namespaces",
        "pattern: { spec: { =(hostPID): 'false', =(hostIPC): 'false', =(hostNetwork): 'false' } }",
    ),
    ("host-path", "pattern: { spec: { =(volumes): [{ X(hostPath): 'null' }] } }"),
    (
        "host-ports",
        "pattern: { spec: { =(ephemeralContainers): [{ =(ports): [{ =(hostPort): 0 }] }], =(initContainers): [{ =(ports): [{ =(hostPort): 0 }] }], containers: [{ =(ports): [{ =(hostPort): 0 }] }] } }",
    ),
    (
        "host-process",
        "pattern: { spec: { =(initContainers): [{ =(securityContext): { =(windowsOptions): { =(hostProcess): 'false' } } }], containers: [{ =(securityContext): { =(windowsOptions): { =(hostProcess): 'false' } } }] } }",
    ),
    (
        "privileged",
        "pattern: { spec: { =(ephemeralContainers): [{ =(securityContext): { =(privileged): 'false' } }], =(initContainers): [{ =(securityContext): { =(privileged): 'false' } }], containers: [{ =(securityContext): { =(privileged): 'false' } }] } }",
    ),
    (
        "proc-mount",
        "pattern: { spec: { =(initContainers): [{ =(securityContext): { =(procMount): Default } }], containers: [{ =(securityContext): { =(procMount): Default } }] } }",
    ),
    (
        "selinux",
        "pattern: { spec: { =(securityContext): { =(seLinuxOptions): { =(type): 'container_t | container_init_t | container_kvm_t' } }, containers: [{ =(securityContext): { =(seLinuxOptions): { =(type): 'container_t | container_init_t | container_kvm_t' } } }] } }",
    ),
    (
        "apparmor",
        "pattern: { =(metadata): { =(annotations): { =(container.apparmor.security.beta.kubernetes.io/*): 'runtime/default | localhost/*' } } }",
    ),
    (
        "seccomp",
        "pattern: { spec: { =(securityContext): { =(seccompProfile): { =(type): 'RuntimeDefault | Localhost' } }, containers: [{ =(securityContext): { =(seccompProfile): { =(type): 'RuntimeDefault | Localhost' } } }] } }",
    ),
    (
        "sysctls",
        "pattern: { spec: { =(securityContext): { =(sysctls): [{ =(name): 'kernel.shm_rmid_forced | net.ipv4.ip_local_port_range | net.ipv4.tcp_syncookies' }] } } }",
    ),
    (
        "limits",
        "pattern: { spec: { containers: [{ resources: { requests: { memory: '?*', cpu: '?*' }, limits: { memory: '<=4Gi' } } }] } }",
    ),
    ("tags", "pattern: { spec: { containers: [{ image: '*:* & !*:latest' }] } }"),
    ("labels", "pattern: { metadata: { labels: { app.kubernetes.io/name: '?*' } } }"),
    ("namespace", "pattern: { metadata: { namespace: '!default' } }"),
    (
        "registries",
        "pattern: { spec: { =(initContainers): [{ image: 'registry.local/* | quay.io/*' }], containers: [{ image: 'registry.local/* | quay.io/*' }] } }",
    ),
    (
        "volumes",
        "deny: { conditions: { all: [{ key: '{{ request.object.spec.volumes[].keys(@)[] || `[]` }}', operator: AnyNotIn, value: [name, configMap, csi, downwardAPI, emptyDir, ephemeral, persistentVolumeClaim, projected, secret] }] } }",
    ),
    (
        "account",
        "deny: { conditions: { any: [{ key: '{{ request.object.spec.serviceAccountName || ''default'' }}', operator: Equals, value: default }] } }",
    ),
    (
        "count",
        "deny: { conditions: { any: [{ key: '{{ length(request.object.spec.containers) }}', operator: GreaterThan, value: 10 }] } }",
    ),
    ("baseline", "podSecurity: { level: baseline, version: latest }"),
];

/// How many there are, each about something else.
pub const KINDS: usize = RULES.len();

/// So many policies; more than there are kinds of are the same again under other names.
pub fn policies(count: usize) -> Vec<String> {
    let policy = |(index, (name, rule)): (usize, &(&str, &str))| {
        format!(
            "apiVersion: kyverno.io/v1\nkind: ClusterPolicy\nmetadata: {{ name: {name}-{index} }}\nspec:\n  \
             validationFailureAction: Enforce\n  background: true\n  rules:\n    - name: {name}\n      \
             match: {{ any: [{{ resources: {{ kinds: [Pod] }} }}] }}\n      \
             validate:\n        message: a pod of this site keeps to {name}\n        {rule}\n"
        )
    };
    RULES.iter().cycle().take(count).enumerate().map(policy).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_policy_is_good_as_a_whole() {
        for text in policies(KINDS) {
            let document =
                countersign_yaml::document(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
            let policy = countersign_policy::load(&document, &countersign_policy::Keys::default());
            assert!(policy.is_some_and(|policy| policy.refusals.is_empty()), "{text}");
        }
    }
}
