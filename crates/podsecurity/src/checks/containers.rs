//! Controls of what is each container's own.

use std::collections::BTreeSet;

use crate::control::Check;
use crate::text::{containers as named, plural, quoted};
use crate::violation::{BadValue, FieldError, Violation};

use super::text;

/// What a container may add in `baseline`: what runtimes give by default.
const DEFAULT_CAPABILITIES: [&str; 13] = [
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
];

const ADD: &str = "securityContext.capabilities.add";
const DROP: &str = "securityContext.capabilities.drop";

pub(crate) fn privileged(check: &Check<'_, '_>) -> Option<Violation> {
    let (mut names, mut errors) = (Vec::new(), Vec::new());
    for (at, container) in check.containers().filter(|(_, container)| container.privileged) {
        names.push(container.name);
        let path = container.path("securityContext.privileged");
        errors.push(FieldError::forbidden(path, BadValue::Flag(true)).of(at));
    }
    let detail = format!("{} must not set securityContext.privileged=true", named(&names));
    check.violation("privileged", &detail, errors)
}

pub(crate) fn escalation(check: &Check<'_, '_>) -> Option<Violation> {
    if check.exempts_windows() {
        return None;
    }
    let (mut names, mut errors) = (Vec::new(), Vec::new());
    for (at, container) in check.containers().filter(|(_, container)| container.escalation != Some(false)) {
        names.push(container.name);
        let path = container.path("securityContext.allowPrivilegeEscalation");
        let error = match container.escalation {
            _ if !container.has_context => FieldError::required(path),
            None => FieldError::forbidden(path, text("nil")),
            Some(flag) => FieldError::forbidden(path, BadValue::Flag(flag)),
        };
        errors.push(error.of(at));
    }
    let detail = format!("{} must set securityContext.allowPrivilegeEscalation=false", named(&names));
    check.violation("allowPrivilegeEscalation != false", &detail, errors)
}

pub(crate) fn capabilities_baseline(check: &Check<'_, '_>) -> Option<Violation> {
    let (names, found, errors) = added(check, |name| DEFAULT_CAPABILITIES.contains(&name));
    let detail = format!("{} must not include {} in {ADD}", named(&names), quoted(found));
    check.violation("non-default capabilities", &detail, errors)
}

pub(crate) fn capabilities_restricted(check: &Check<'_, '_>) -> Option<Violation> {
    if check.exempts_windows() {
        return None;
    }
    let (mut keeping, mut errors) = (Vec::new(), Vec::new());
    for (at, container) in check.containers() {
        let drop = container.capabilities.as_ref().map_or(&[][..], |capabilities| &capabilities.drop);
        if drop.contains(&"ALL") {
            continue;
        }
        keeping.push(container.name);
        let path = container.path(DROP);
        let error = if drop.is_empty() {
            FieldError::required(path)
        } else {
            FieldError::forbidden(path, list(&drop.iter().copied().collect()))
        };
        errors.push(error.of(at));
    }
    let (adding, found, more) = added(check, |name| name == "NET_BIND_SERVICE");
    errors.extend(more);
    let mut details = Vec::new();
    if !keeping.is_empty() {
        details.push(format!("{} must set {DROP}=[\"ALL\"]", named(&keeping)));
    }
    if !adding.is_empty() {
        details.push(format!("{} must not include {} in {ADD}", named(&adding), quoted(found)));
    }
    check.violation("unrestricted capabilities", &details.join("; "), errors)
}

/// The containers that add what they may not, all that they add, and the errors.
fn added<'a>(
    check: &Check<'_, 'a>,
    allowed: impl Fn(&str) -> bool,
) -> (Vec<&'a str>, BTreeSet<&'a str>, Vec<FieldError>) {
    let (mut names, mut found, mut errors) = (Vec::new(), BTreeSet::new(), Vec::new());
    for (at, container) in check.containers() {
        let add = container.capabilities.as_ref().map_or(&[][..], |capabilities| &capabilities.add);
        let bad: BTreeSet<_> = add.iter().copied().filter(|name| !allowed(name)).collect();
        if !bad.is_empty() {
            names.push(container.name);
            errors.push(FieldError::forbidden(container.path(ADD), list(&bad)).of(at));
            found.extend(bad);
        }
    }
    (names, found, errors)
}

fn list(texts: &BTreeSet<&str>) -> BadValue {
    BadValue::List(texts.iter().map(|text| (*text).to_owned()).collect())
}

pub(crate) fn host_ports(check: &Check<'_, '_>) -> Option<Violation> {
    let (mut names, mut ports, mut errors) = (Vec::new(), BTreeSet::new(), Vec::new());
    for (at, container) in check.containers().filter(|(_, container)| !container.host_ports.is_empty()) {
        names.push(container.name);
        for (index, port) in &container.host_ports {
            ports.insert(port.to_string());
            let path = container.path(&format!("ports[{index}].hostPort"));
            errors.push(FieldError::forbidden(path, BadValue::Number((*port).into())).of(at));
        }
    }
    let detail = format!(
        "{} {} {} {}",
        named(&names),
        plural("uses", "use", names.len()),
        plural("hostPort", "hostPorts", ports.len()),
        ports.into_iter().collect::<Vec<_>>().join(", "),
    );
    check.violation("hostPort", &detail, errors)
}

pub(crate) fn hosts(check: &Check<'_, '_>) -> Option<Violation> {
    let (mut names, mut hosts, mut errors) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
    for (at, container) in check.containers() {
        for (field, host) in &container.hosts {
            names.insert(container.name);
            hosts.insert(*host);
            errors.push(FieldError::forbidden(container.path(field), text(host)).of(at));
        }
    }
    let names: Vec<_> = names.into_iter().collect();
    let detail = format!(
        "{} {} {} {}",
        named(&names),
        plural("uses", "use", names.len()),
        plural("probe or lifecycle host", "probe or lifecycle hosts", hosts.len()),
        quoted(hosts),
    );
    check.violation("probe or lifecycle host", &detail, errors)
}

pub(crate) fn proc_mount_baseline(check: &Check<'_, '_>) -> Option<Violation> {
    if check.exempts_own_users() { None } else { proc_mount(check) }
}

pub(crate) fn proc_mount(check: &Check<'_, '_>) -> Option<Violation> {
    let (mut names, mut kinds, mut errors) = (Vec::new(), BTreeSet::new(), Vec::new());
    for (at, container) in check.containers() {
        if let Some(kind) = container.proc_mount.filter(|kind| *kind != "Default") {
            names.push(container.name);
            kinds.insert(kind);
            let path = container.path("securityContext.procMount");
            errors.push(FieldError::forbidden(path, text(kind)).of(at));
        }
    }
    let detail = format!("{} must not set securityContext.procMount to {}", named(&names), quoted(kinds));
    check.violation("procMount", &detail, errors)
}
