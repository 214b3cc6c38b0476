//! The controls: how they are called, whom they bind, since when, and which fields they restrict.

use std::fmt;

use crate::checks::{containers, contexts, pods};
use crate::level::{Level, Version};
use crate::pod::{LISTS, Pod};
use crate::violation::Violation;

/// A control of the Pod Security Standards, or one of the two that share a name.
pub struct Control {
    /// As Kubernetes names it: `hostPorts`.
    pub id: &'static str,
    /// As the standards and Kyverno's `controlName` name it: `Host Ports`.
    pub name: &'static str,
    /// The level from which on it binds.
    pub level: Level,
    /// The versions from which on it binds, and binds otherwise than before.
    pub versions: &'static [Version],
    /// The fields that it restricts in a pod. What is between `<` and `>` stands for any text.
    pub pod_fields: &'static [&'static str],
    /// The fields that it restricts in each container, below `spec.containers[*]` and the like.
    pub container_fields: &'static [&'static str],
    check: fn(&Check<'_, '_>) -> Option<Violation>,
}

/// Of what a control speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Of the pod: an exclusion has no images.
    Pod,
    /// Of containers: an exclusion has images.
    Container,
    /// Of both: an exclusion with images is of containers, one without is of the pod.
    Both,
}

/// A control's question.
pub(crate) struct Check<'p, 'a> {
    pub(crate) control: &'static Control,
    pub(crate) version: Version,
    pub(crate) pod: &'p Pod<'a>,
}

impl Control {
    /// Of what it speaks.
    pub fn scope(&self) -> Scope {
        match (self.pod_fields.is_empty(), self.container_fields.is_empty()) {
            (false, true) => Scope::Pod,
            (true, _) => Scope::Container,
            (false, false) => Scope::Both,
        }
    }

    /// What an exclusion's `restrictedField` may be: the pod's fields, then those of each kind of
    /// container.
    pub fn restricted_fields(&self) -> impl Iterator<Item = String> {
        let of_pod = self.pod_fields.iter().map(|field| (*field).to_owned());
        let of_containers = LISTS.iter().flat_map(|list| {
            self.container_fields.iter().map(move |field| format!("spec.{list}[*].{field}"))
        });
        of_pod.chain(of_containers)
    }

    /// Whether it restricts a field.
    pub(crate) fn restricts(&self, field: &str) -> bool {
        self.restricted_fields().any(|known| match (known.split_once('<'), known.split_once('>')) {
            (Some((before, _)), Some((_, after))) => {
                field.strip_prefix(before).is_some_and(|rest| rest.ends_with(after) && !rest.starts_with('*'))
            }
            _ => known == field,
        })
    }

    /// Whether it binds at a level and a version.
    pub fn binds(&self, level: Level, version: Version) -> bool {
        self.level <= level && self.versions.first().is_some_and(|since| *since <= version)
    }

    pub(crate) fn violation(&'static self, version: Version, pod: &Pod<'_>) -> Option<Violation> {
        (self.check)(&Check { control: self, version, pod })
    }
}

impl PartialEq for Control {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for Control {}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Control").field(&self.id).finish()
    }
}

/// Every control, in the order in which Kyverno names those that are violated.
pub fn controls() -> &'static [Control] {
    &CONTROLS
}

/// The controls of a name; none if it is no control's.
pub(crate) fn named(name: &str) -> impl Iterator<Item = &'static Control> {
    CONTROLS.iter().filter(move |control| control.name == name)
}

const fn v(minor: u32) -> Version {
    Version::minor(minor)
}

static CONTROLS: [Control; 19] = [
    Control {
        id: "allowPrivilegeEscalation",
        name: "Privilege Escalation",
        level: Level::Restricted,
        versions: &[v(8), v(25)],
        pod_fields: &[],
        container_fields: &["securityContext.allowPrivilegeEscalation"],
        check: containers::escalation,
    },
    Control {
        id: "appArmorProfile",
        name: "AppArmor",
        level: Level::Baseline,
        versions: &[v(0)],
        pod_fields: &[
            "metadata.annotations[container.apparmor.security.beta.kubernetes.io/<container>]",
            "spec.securityContext.appArmorProfile.type",
        ],
        container_fields: &["securityContext.appArmorProfile.type"],
        check: contexts::app_armor,
    },
    Control {
        id: "capabilities_baseline",
        name: "Capabilities",
        level: Level::Baseline,
        versions: &[v(0)],
        pod_fields: &[],
        container_fields: &["securityContext.capabilities.add"],
        check: containers::capabilities_baseline,
    },
    Control {
        id: "capabilities_restricted",
        name: "Capabilities",
        level: Level::Restricted,
        versions: &[v(22), v(25)],
        pod_fields: &[],
        container_fields: &["securityContext.capabilities.drop", "securityContext.capabilities.add"],
        check: containers::capabilities_restricted,
    },
    Control {
        id: "hostNamespaces",
        name: "Host Namespaces",
        level: Level::Baseline,
        versions: &[v(0)],
        pod_fields: &["spec.hostNetwork", "spec.hostPID", "spec.hostIPC"],
        container_fields: &[],
        check: pods::host_namespaces,
    },
    Control {
        id: "hostPathVolumes",
        name: "HostPath Volumes",
        level: Level::Baseline,
        versions: &[v(0)],
        pod_fields: &["spec.volumes[*].hostPath"],
        container_fields: &[],
        check: pods::host_paths,
    },
    Control {
        id: "hostPorts",
        name: "Host Ports",
        level: Level::Baseline,
        versions: &[v(0)],
        pod_fields: &[],
        container_fields: &["ports[*].hostPort"],
        check: containers::host_ports,
    },
    Control {
        id: "hostProbesAndHostLifecycle",
        name: "Host Probes / Lifecycle Hooks",
        level: Level::Baseline,
        versions: &[v(34)],
        pod_fields: &[],
        container_fields: &[
            "livenessProbe.httpGet.host",
            "livenessProbe.tcpSocket.host",
            "readinessProbe.httpGet.host",
            "readinessProbe.tcpSocket.host",
            "startupProbe.httpGet.host",
            "startupProbe.tcpSocket.host",
            "lifecycle.postStart.httpGet.host",
            "lifecycle.postStart.tcpSocket.host",
            "lifecycle.preStop.httpGet.host",
            "lifecycle.preStop.tcpSocket.host",
        ],
        check: containers::hosts,
    },
    Control {
        id: "privileged",
        name: "Privileged Containers",
        level: Level::Baseline,
        versions: &[v(0)],
        pod_fields: &[],
        container_fields: &["securityContext.privileged"],
        check: containers::privileged,
    },
    Control {
        id: "procMount",
        name: "/proc Mount Type",
        level: Level::Baseline,
        versions: &[v(0), v(35)],
        pod_fields: &[],
        container_fields: &["securityContext.procMount"],
        check: containers::proc_mount_baseline,
    },
    Control {
        id: "procMount_restricted",
        name: "/proc Mount Type",
        level: Level::Restricted,
        versions: &[v(35)],
        pod_fields: &[],
        container_fields: &["securityContext.procMount"],
        check: containers::proc_mount,
    },
    Control {
        id: "restrictedVolumes",
        name: "Volume Types",
        level: Level::Restricted,
        versions: &[v(0)],
        pod_fields: &[
            "spec.volumes[*].hostPath",
            "spec.volumes[*].gcePersistentDisk",
            "spec.volumes[*].awsElasticBlockStore",
            "spec.volumes[*].gitRepo",
            "spec.volumes[*].nfs",
            "spec.volumes[*].iscsi",
            "spec.volumes[*].glusterfs",
            "spec.volumes[*].rbd",
            "spec.volumes[*].flexVolume",
            "spec.volumes[*].cinder",
            "spec.volumes[*].cephfs",
            "spec.volumes[*].flocker",
            "spec.volumes[*].fc",
            "spec.volumes[*].azureFile",
            "spec.volumes[*].vsphereVolume",
            "spec.volumes[*].quobyte",
            "spec.volumes[*].azureDisk",
            "spec.volumes[*].photonPersistentDisk",
            "spec.volumes[*].portworxVolume",
            "spec.volumes[*].scaleIO",
            "spec.volumes[*].storageos",
            "spec.volumes[*].unknown",
        ],
        container_fields: &[],
        check: pods::volumes,
    },
    Control {
        id: "runAsNonRoot",
        name: "Running as Non-root",
        level: Level::Restricted,
        versions: &[v(0), v(35)],
        pod_fields: &["spec.securityContext.runAsNonRoot"],
        container_fields: &["securityContext.runAsNonRoot"],
        check: contexts::non_root,
    },
    Control {
        id: "runAsUser",
        name: "Running as Non-root user",
        level: Level::Restricted,
        versions: &[v(23), v(35)],
        pod_fields: &["spec.securityContext.runAsUser"],
        container_fields: &["securityContext.runAsUser"],
        check: contexts::user,
    },
    Control {
        id: "seLinuxOptions",
        name: "SELinux",
        level: Level::Baseline,
        versions: &[v(0), v(31)],
        pod_fields: &[
            "spec.securityContext.seLinuxOptions.type",
            "spec.securityContext.seLinuxOptions.user",
            "spec.securityContext.seLinuxOptions.role",
        ],
        container_fields: &[
            "securityContext.seLinuxOptions.type",
            "securityContext.seLinuxOptions.user",
            "securityContext.seLinuxOptions.role",
        ],
        check: contexts::se_linux,
    },
    Control {
        id: "seccompProfile_baseline",
        name: "Seccomp",
        level: Level::Baseline,
        versions: &[v(0), v(19)],
        pod_fields: &[
            "metadata.annotations[seccomp.security.alpha.kubernetes.io/pod]",
            "metadata.annotations[container.seccomp.security.alpha.kubernetes.io/<container>]",
            "spec.securityContext.seccompProfile.type",
        ],
        container_fields: &["securityContext.seccompProfile.type"],
        check: contexts::seccomp_baseline,
    },
    Control {
        id: "seccompProfile_restricted",
        name: "Seccomp",
        level: Level::Restricted,
        versions: &[v(19), v(25)],
        pod_fields: &["spec.securityContext.seccompProfile.type"],
        container_fields: &["securityContext.seccompProfile.type"],
        check: contexts::seccomp_restricted,
    },
    Control {
        id: "sysctls",
        name: "Sysctls",
        level: Level::Baseline,
        versions: &[v(0), v(27), v(29), v(32), v(37)],
        pod_fields: &["spec.securityContext.sysctls[*].name"],
        container_fields: &[],
        check: pods::sysctls,
    },
    Control {
        id: "windowsHostProcess",
        name: "HostProcess",
        level: Level::Baseline,
        versions: &[v(0)],
        pod_fields: &["spec.securityContext.windowsOptions.hostProcess"],
        container_fields: &["securityContext.windowsOptions.hostProcess"],
        check: contexts::host_process,
    },
];
