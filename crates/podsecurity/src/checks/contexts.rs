//! Controls of what may stand in the security context of the pod and in those of its containers.

use std::collections::BTreeSet;

use crate::control::Check;
use crate::pod::{Container, Security};
use crate::text::{containers as named, go_quoted, plural, quoted};
use crate::violation::{BadValue, FieldError, MAX_DETAIL, Violation};

use super::{setters, text};

const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";
const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";

/// What was found in the pod's context and in those of containers.
#[derive(Default)]
struct Setters<'a> {
    pod: bool,
    containers: Vec<&'a str>,
    /// Of the values of texts.
    values: BTreeSet<&'a str>,
    errors: Vec<FieldError>,
}

impl<'a> Setters<'a> {
    /// Looks for a bad value of one field, the pod's first.
    fn find<'p>(
        check: &Check<'p, 'a>,
        field: &str,
        bad: impl Fn(&'p Security<'a>) -> Option<BadValue>,
    ) -> Self {
        let field = format!("securityContext.{field}");
        let mut found = Self::default();
        if let Some(value) = bad(&check.pod.security) {
            found.pod = true;
            found.errors.push(FieldError::forbidden(format!("spec.{field}"), Some(value)));
        }
        for (at, container) in check.containers() {
            if let Some(value) = bad(&container.security) {
                found.containers.push(container.name);
                found.errors.push(FieldError::forbidden(container.path(&field), Some(value)).of(at));
            }
        }
        found
    }

    /// The same for the type of a profile, whose bad values are kept.
    fn profile<'p>(
        check: &Check<'p, 'a>,
        field: &str,
        kind: impl Fn(&'p Security<'a>) -> Option<&'a str>,
    ) -> Self {
        let bad = |context| kind(context).filter(|kind| !matches!(*kind, "RuntimeDefault" | "Localhost"));
        let mut found = Self::find(check, field, |context| bad(context).map(text));
        let contexts = check.containers().map(|(_, container)| &container.security);
        found.values = std::iter::once(&check.pod.security).chain(contexts).filter_map(bad).collect();
        found
    }

    fn names(&self) -> String {
        setters(self.pod, &self.containers)
    }
}

pub(crate) fn host_process(check: &Check<'_, '_>) -> Option<Violation> {
    let found = Setters::find(check, "windowsOptions.hostProcess", |context| {
        context.host_process.then_some(BadValue::Flag(true))
    });
    let detail = format!("{} must not set securityContext.windowsOptions.hostProcess=true", found.names());
    check.violation("hostProcess", &detail, found.errors)
}

pub(crate) fn user(check: &Check<'_, '_>) -> Option<Violation> {
    if check.exempts_own_users() {
        return None;
    }
    let found = Setters::find(check, "runAsUser", |context| {
        context.run_as_user.filter(|user| *user == 0).map(BadValue::Number)
    });
    let detail = format!("{} must not set runAsUser=0", found.names());
    check.violation("runAsUser=0", &detail, found.errors)
}

pub(crate) fn non_root(check: &Check<'_, '_>) -> Option<Violation> {
    if check.exempts_own_users() {
        return None;
    }
    let mut found = Setters::find(check, "runAsNonRoot", |context| {
        context.run_as_non_root.filter(|non_root| !non_root).map(BadValue::Flag)
    });
    let mut details = Vec::new();
    if !found.errors.is_empty() {
        details.push(format!("{} must not set securityContext.runAsNonRoot=false", found.names()));
    }
    if check.pod.security.run_as_non_root != Some(true) {
        let (names, errors) =
            silent(check, "runAsNonRoot", |container| container.security.run_as_non_root.is_some());
        if !names.is_empty() {
            details.push(format!("pod or {} must set securityContext.runAsNonRoot=true", named(&names)));
            found.errors.extend(errors);
        }
    }
    check.violation("runAsNonRoot != true", &details.join("\n"), found.errors)
}

/// The containers that leave a field to the pod.
fn silent<'a>(
    check: &Check<'_, 'a>,
    field: &str,
    speaks: impl Fn(&Container<'a>) -> bool,
) -> (Vec<&'a str>, Vec<FieldError>) {
    check
        .containers()
        .filter(|(_, container)| !speaks(container))
        .map(|(at, container)| {
            let path = container.path(&format!("securityContext.{field}"));
            (container.name, FieldError::required(path).of(at))
        })
        .unzip()
}

pub(crate) fn seccomp_baseline(check: &Check<'_, '_>) -> Option<Violation> {
    if !check.since(19) {
        return seccomp_annotations(check);
    }
    let found = Setters::profile(check, "seccompProfile.type", |context| context.seccomp);
    check.violation("seccompProfile", &seccomp_detail(&found), found.errors)
}

pub(crate) fn seccomp_restricted(check: &Check<'_, '_>) -> Option<Violation> {
    const FIELD: &str = "seccompProfile.type";
    if check.exempts_windows() {
        return None;
    }
    let found = Setters::profile(check, FIELD, |context| context.seccomp);
    let silent = if check.pod.security.seccomp.is_some() && !found.pod {
        <(Vec<_>, Vec<_>)>::default()
    } else {
        silent(check, FIELD, |container| container.security.seccomp.is_some())
    };
    let (names, errors) = silent;
    let absent = format!(
        "pod or {} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"",
        named(&names)
    );
    if found.errors.is_empty() {
        return check.violation("seccompProfile", &absent, errors);
    }
    let mut violation = check.violation("seccompProfile", &seccomp_detail(&found), found.errors)?;
    // Upstream says nothing of containers without a profile beside one with a bad profile. Those
    // that have the pod's are as good as the pod; others stay wrong when the bad one is lifted.
    if !found.pod && !errors.is_empty() {
        violation.behind = Some((crate::text::clip_to(&absent, MAX_DETAIL), errors));
    }
    Some(violation)
}

fn seccomp_detail(found: &Setters<'_>) -> String {
    let values = quoted(found.values.iter().copied());
    format!("{} must not set securityContext.seccompProfile.type to {values}", found.names())
}

/// Before v1.19, profiles were annotations.
fn seccomp_annotations(check: &Check<'_, '_>) -> Option<Violation> {
    let mut keys = BTreeSet::from([SECCOMP_POD.to_owned()]);
    keys.extend(check.containers().map(|(_, container)| format!("{SECCOMP_CONTAINER}{}", container.name)));
    let (mut shown, mut errors) = (Vec::new(), Vec::new());
    for key in keys {
        let Some(value) = check.pod.annotations.get(key.as_str()) else { continue };
        if !matches!(*value, "runtime/default" | "docker/default") && !value.starts_with("localhost/") {
            shown.push(format!("{key}={}", go_quoted(value)));
            errors.push(annotation(&key, value));
        }
    }
    shown.sort();
    let detail =
        format!("forbidden {} {}", plural("annotation", "annotations", shown.len()), shown.join(", "));
    check.violation("seccompProfile", &detail, errors)
}

fn annotation(key: &str, value: &str) -> FieldError {
    FieldError::forbidden(format!("metadata.annotations[{key}]"), text(value))
}

pub(crate) fn app_armor(check: &Check<'_, '_>) -> Option<Violation> {
    let mut found = Setters::profile(check, "appArmorProfile.type", |context| context.app_armor);
    let mut shown = Vec::new();
    for (key, value) in &check.pod.annotations {
        let allowed = matches!(*value, "" | "runtime/default") || value.starts_with("localhost/");
        if key.starts_with(APP_ARMOR) && !allowed {
            shown.push(format!("{key}={}", go_quoted(value)));
            found.errors.push(annotation(key, value));
        }
    }
    shown.sort();
    let mut who = Vec::new();
    if found.pod || !found.containers.is_empty() {
        who.push(found.names());
    }
    if !shown.is_empty() {
        who.push(plural("annotation", "annotations", shown.len()).to_owned());
    }
    let values = found.values.iter().copied().chain(shown.iter().map(String::as_str));
    let detail = format!("{} must not set AppArmor profile type to {}", who.join(" and "), quoted(values));
    let count = found.values.len() + shown.len();
    let reason = plural("forbidden AppArmor profile", "forbidden AppArmor profiles", count);
    check.violation(reason, &detail, found.errors)
}

pub(crate) fn se_linux(check: &Check<'_, '_>) -> Option<Violation> {
    let (mut containers, mut kinds, mut errors) = (Vec::new(), BTreeSet::new(), Vec::new());
    let (mut user, mut role) = (false, false);
    let mut look = |context: &Security<'_>, path: &dyn Fn(&str) -> String| -> Vec<FieldError> {
        let Some(options) = &context.se_linux else { return Vec::new() };
        let mut bad = Vec::new();
        if !allowed_kind(check, options.kind) {
            kinds.insert(options.kind.to_owned());
            bad.push(("type", options.kind));
        }
        if !options.user.is_empty() {
            user = true;
            bad.push(("user", options.user));
        }
        if !options.role.is_empty() {
            role = true;
            bad.push(("role", options.role));
        }
        let path = |field| path(&format!("securityContext.seLinuxOptions.{field}"));
        bad.into_iter().map(|(field, value)| FieldError::forbidden(path(field), text(value))).collect()
    };
    errors.extend(look(&check.pod.security, &|field| format!("spec.{field}")));
    let pod = !errors.is_empty();
    for (at, container) in check.containers() {
        let bad = look(&container.security, &|field| container.path(field));
        if !bad.is_empty() {
            containers.push(container.name);
            errors.extend(bad.into_iter().map(|error| error.of(at)));
        }
    }
    let mut what = Vec::new();
    if !kinds.is_empty() {
        let names = quoted(kinds.iter().map(String::as_str));
        what.push(format!("{} {names}", plural("type", "types", kinds.len())));
    }
    what.extend(user.then(|| "user may not be set".to_owned()));
    what.extend(role.then(|| "role may not be set".to_owned()));
    let who = setters(pod, &containers);
    let detail = format!("{who} set forbidden securityContext.seLinuxOptions: {}", what.join("; "));
    check.violation("seLinuxOptions", &detail, errors)
}

fn allowed_kind(check: &Check<'_, '_>, kind: &str) -> bool {
    match kind {
        "" | "container_t" | "container_init_t" | "container_kvm_t" => true,
        "container_engine_t" => check.since(31),
        _ => false,
    }
}
