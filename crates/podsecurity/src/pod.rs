//! The fields of a pod that the controls read, decoded once.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::problem::Problem;
use crate::read::At;

/// The most containers that a pod may have, of all kinds together: one with more is unreadable.
pub const MAX_CONTAINERS: usize = 512;

/// The lists of containers, in the order in which controls look at them.
pub(crate) const LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];
/// The list that every pod has.
pub(crate) const ORDINARY: &str = LISTS[1];
/// The sources of volumes that every level allows.
pub(crate) const ALLOWED_VOLUMES: [&str; 9] = [
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
];
/// Those that `restricted` forbids; of a volume with several, the first is named.
pub(crate) const RESTRICTED_VOLUMES: [&str; 21] = [
    "hostPath",
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
];
/// What may name a host to be asked for.
const HANDLERS: [[&str; 2]; 5] = [
    ["", "livenessProbe"],
    ["", "readinessProbe"],
    ["", "startupProbe"],
    ["lifecycle", "postStart"],
    ["lifecycle", "preStop"],
];

pub(crate) struct Pod<'a> {
    pub(crate) annotations: BTreeMap<&'a str, &'a str>,
    pub(crate) windows: bool,
    pub(crate) host_network: bool,
    pub(crate) host_pid: bool,
    pub(crate) host_ipc: bool,
    /// `hostUsers: false`: root in the pod is nobody on the node.
    pub(crate) own_users: bool,
    pub(crate) security: Security<'a>,
    pub(crate) sysctls: Vec<&'a str>,
    pub(crate) volumes: Vec<Volume<'a>>,
    /// Of all lists, in the order of [`LISTS`].
    pub(crate) containers: Vec<Container<'a>>,
}

/// What the security contexts of pods and containers have in common.
#[derive(Default)]
pub(crate) struct Security<'a> {
    pub(crate) run_as_non_root: Option<bool>,
    pub(crate) run_as_user: Option<i64>,
    pub(crate) host_process: bool,
    /// The types of the profiles; empty where a profile has none.
    pub(crate) seccomp: Option<&'a str>,
    pub(crate) app_armor: Option<&'a str>,
    pub(crate) se_linux: Option<SeLinux<'a>>,
}

pub(crate) struct SeLinux<'a> {
    pub(crate) kind: &'a str,
    pub(crate) user: &'a str,
    pub(crate) role: &'a str,
}

pub(crate) struct Volume<'a> {
    pub(crate) name: &'a str,
    /// The path of a `hostPath`.
    pub(crate) host_path: Option<&'a str>,
    /// The first of [`ALLOWED_VOLUMES`] and then of [`RESTRICTED_VOLUMES`] that it has.
    pub(crate) source: Option<&'static str>,
}

pub(crate) struct Container<'a> {
    pub(crate) list: &'static str,
    pub(crate) index: usize,
    pub(crate) name: &'a str,
    pub(crate) image: &'a str,
    /// Whether there is a `securityContext`.
    pub(crate) has_context: bool,
    pub(crate) security: Security<'a>,
    pub(crate) privileged: bool,
    pub(crate) escalation: Option<bool>,
    pub(crate) capabilities: Option<Capabilities<'a>>,
    pub(crate) proc_mount: Option<&'a str>,
    /// Those that are not 0, with the indexes of their ports.
    pub(crate) host_ports: Vec<(usize, i32)>,
    /// Those that are not empty, with the paths of their fields below the container.
    pub(crate) hosts: Vec<(String, &'a str)>,
}

pub(crate) struct Capabilities<'a> {
    pub(crate) add: Vec<&'a str>,
    pub(crate) drop: Vec<&'a str>,
}

impl<'a> Pod<'a> {
    pub(crate) fn read(metadata: &'a Value, spec: &'a Value) -> Result<Self, Problem> {
        let metadata = At::root("metadata", metadata);
        let annotations = metadata.field("annotations")?;
        let mut texts = BTreeMap::new();
        for (key, _) in annotations.object()?.into_iter().flatten() {
            texts.insert(key.as_str(), annotations.field(key)?.text()?.unwrap_or_default());
        }
        let spec = At::root("spec", spec);
        let security = spec.field("securityContext")?;
        let mut sysctls = Vec::new();
        for sysctl in security.field("sysctls")?.items()? {
            sysctls.push(sysctl.field("name")?.text()?.unwrap_or_default());
        }
        let mut volumes = Vec::new();
        for volume in spec.field("volumes")?.items()? {
            volumes.push(Volume::read(&volume)?);
        }
        let mut containers = Vec::new();
        for list in LISTS {
            for (index, container) in spec.field(list)?.items()?.enumerate() {
                if containers.len() == MAX_CONTAINERS {
                    return Err(
                        container.problem(&format!("a pod may have {MAX_CONTAINERS} containers here"))
                    );
                }
                containers.push(Container::read(list, index, &container)?);
            }
        }
        let flag = |name| Ok::<_, Problem>(spec.field(name)?.flag()?.unwrap_or_default());
        Ok(Self {
            annotations: texts,
            windows: spec.field("os")?.field("name")?.text()? == Some("windows"),
            host_network: flag("hostNetwork")?,
            host_pid: flag("hostPID")?,
            host_ipc: flag("hostIPC")?,
            own_users: spec.field("hostUsers")?.flag()? == Some(false),
            security: Security::read(&security)?,
            sysctls,
            volumes,
            containers,
        })
    }
}

impl<'a> Security<'a> {
    fn read(context: &At<'a, '_>) -> Result<Self, Problem> {
        let se_linux = context.field("seLinuxOptions")?;
        let text = |name| Ok::<_, Problem>(se_linux.field(name)?.text()?.unwrap_or_default());
        let se_linux = if se_linux.present() {
            Some(SeLinux { kind: text("type")?, user: text("user")?, role: text("role")? })
        } else {
            None
        };
        let windows = context.field("windowsOptions")?;
        Ok(Self {
            run_as_non_root: context.field("runAsNonRoot")?.flag()?,
            run_as_user: context.field("runAsUser")?.integer()?,
            host_process: windows.field("hostProcess")?.flag()?.unwrap_or_default(),
            seccomp: profile(&context.field("seccompProfile")?)?,
            app_armor: profile(&context.field("appArmorProfile")?)?,
            se_linux,
        })
    }
}

/// The type of a profile, if there is one.
fn profile<'a>(profile: &At<'a, '_>) -> Result<Option<&'a str>, Problem> {
    let kind = profile.field("type")?.text()?;
    Ok(profile.present().then(|| kind.unwrap_or_default()))
}

impl<'a> Volume<'a> {
    fn read(volume: &At<'a, '_>) -> Result<Self, Problem> {
        let host_path = volume.field("hostPath")?;
        let path = host_path.field("path")?.text()?;
        let mut source = None;
        for name in ALLOWED_VOLUMES.into_iter().chain(RESTRICTED_VOLUMES) {
            if volume.field(name)?.object()?.is_some() {
                source = source.or(Some(name));
            }
        }
        Ok(Self {
            name: volume.field("name")?.text()?.unwrap_or_default(),
            host_path: host_path.present().then(|| path.unwrap_or_default()),
            source,
        })
    }
}

impl<'a> Container<'a> {
    fn read(list: &'static str, index: usize, container: &At<'a, '_>) -> Result<Self, Problem> {
        let context = container.field("securityContext")?;
        let capabilities = context.field("capabilities")?;
        let capabilities = if capabilities.present() {
            Some(Capabilities {
                add: texts(&capabilities.field("add")?)?,
                drop: texts(&capabilities.field("drop")?)?,
            })
        } else {
            None
        };
        let mut host_ports = Vec::new();
        for (index, port) in container.field("ports")?.items()?.enumerate() {
            let port = port.field("hostPort")?.port()?.unwrap_or_default();
            if port != 0 {
                host_ports.push((index, port));
            }
        }
        Ok(Self {
            list,
            index,
            name: container.field("name")?.text()?.unwrap_or_default(),
            image: container.field("image")?.text()?.unwrap_or_default(),
            has_context: context.present(),
            security: Security::read(&context)?,
            privileged: context.field("privileged")?.flag()?.unwrap_or_default(),
            escalation: context.field("allowPrivilegeEscalation")?.flag()?,
            capabilities,
            proc_mount: context.field("procMount")?.text()?,
            host_ports,
            hosts: hosts(container)?,
        })
    }

    /// The path of one of its fields.
    pub(crate) fn path(&self, field: &str) -> String {
        format!("spec.{}[{}].{field}", self.list, self.index)
    }
}

fn texts<'a>(list: &At<'a, '_>) -> Result<Vec<&'a str>, Problem> {
    let mut texts = Vec::new();
    for item in list.items()? {
        texts.push(item.text()?.unwrap_or_default());
    }
    Ok(texts)
}

fn hosts<'a>(container: &At<'a, '_>) -> Result<Vec<(String, &'a str)>, Problem> {
    let mut hosts = Vec::new();
    for [above, name] in HANDLERS {
        let above_at = if above.is_empty() { *container } else { container.field(above)? };
        let handler = above_at.field(name)?;
        for action in ["httpGet", "tcpSocket"] {
            let host = handler.field(action)?.field("host")?.text()?.unwrap_or_default();
            if !host.is_empty() {
                let dot = if above.is_empty() { "" } else { "." };
                hosts.push((format!("{above}{dot}{name}.{action}.host"), host));
            }
        }
    }
    Ok(hosts)
}
