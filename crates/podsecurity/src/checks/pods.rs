//! Controls of what is the pod's alone.

use std::collections::BTreeSet;

use crate::control::Check;
use crate::pod::ALLOWED_VOLUMES;
use crate::text::{clip, plural, quoted};
use crate::violation::{BadValue, FieldError, Violation};

use super::text;

/// Sysctls that are safe, each since its version.
const SAFE_SYSCTLS: [(&str, u32); 14] = [
    ("kernel.shm_rmid_forced", 0),
    ("net.ipv4.ip_local_port_range", 0),
    ("net.ipv4.tcp_syncookies", 0),
    ("net.ipv4.ping_group_range", 0),
    ("net.ipv4.ip_unprivileged_port_start", 0),
    ("net.ipv4.ip_local_reserved_ports", 27),
    ("net.ipv4.tcp_keepalive_time", 29),
    ("net.ipv4.tcp_fin_timeout", 29),
    ("net.ipv4.tcp_keepalive_intvl", 29),
    ("net.ipv4.tcp_keepalive_probes", 29),
    ("net.ipv4.tcp_rmem", 32),
    ("net.ipv4.tcp_wmem", 32),
    ("net.ipv4.tcp_slow_start_after_idle", 37),
    ("net.ipv4.tcp_notsent_lowat", 37),
];

pub(crate) fn host_namespaces(check: &Check<'_, '_>) -> Option<Violation> {
    let pod = check.pod;
    let namespaces =
        [("hostNetwork", pod.host_network), ("hostPID", pod.host_pid), ("hostIPC", pod.host_ipc)];
    let shared: Vec<_> = namespaces.iter().filter(|(_, shared)| *shared).map(|(name, _)| *name).collect();
    let detail: Vec<_> = shared.iter().map(|name| format!("{name}=true")).collect();
    let errors = shared
        .iter()
        .map(|name| FieldError::forbidden(format!("spec.{name}"), BadValue::Flag(true)))
        .collect();
    check.violation("host namespaces", &detail.join(", "), errors)
}

pub(crate) fn host_paths(check: &Check<'_, '_>) -> Option<Violation> {
    let (mut names, mut errors) = (Vec::new(), Vec::new());
    for (index, volume) in check.pod.volumes.iter().enumerate() {
        if let Some(path) = volume.host_path {
            names.push(volume.name);
            errors.push(FieldError::forbidden(format!("spec.volumes[{index}].hostPath"), text(path)));
        }
    }
    let detail = format!("{} {}", plural("volume", "volumes", names.len()), quoted(names));
    check.violation("hostPath volumes", &detail, errors)
}

pub(crate) fn sysctls(check: &Check<'_, '_>) -> Option<Violation> {
    let (mut names, mut errors) = (Vec::new(), Vec::new());
    for (index, name) in check.pod.sysctls.iter().enumerate() {
        if !SAFE_SYSCTLS.iter().any(|(safe, since)| safe == name && check.since(*since)) {
            names.push(clip(name));
            let path = format!("spec.securityContext.sysctls[{index}].name");
            errors.push(FieldError::forbidden(path, text(name)));
        }
    }
    check.violation("forbidden sysctls", &names.join(", "), errors)
}

pub(crate) fn volumes(check: &Check<'_, '_>) -> Option<Violation> {
    let (mut names, mut kinds, mut errors) = (Vec::new(), BTreeSet::new(), Vec::new());
    for (index, volume) in check.pod.volumes.iter().enumerate() {
        let kind = volume.source.unwrap_or("unknown");
        if !ALLOWED_VOLUMES.contains(&kind) {
            names.push(volume.name);
            kinds.insert(kind);
            errors.push(FieldError::forbidden(format!("spec.volumes[{index}].{kind}"), None));
        }
    }
    let detail = format!(
        "{} {} {} {} {}",
        plural("volume", "volumes", names.len()),
        quoted(names.iter().copied()),
        plural("uses", "use", names.len()),
        plural("restricted volume type", "restricted volume types", kinds.len()),
        quoted(kinds),
    );
    check.violation("restricted volume types", &detail, errors)
}
