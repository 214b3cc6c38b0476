//! Patterns for kinds: group, version, kind and subresource (Kyverno `ParseKindSelector`).

use countersign_reference::wildcard_match;
use serde_json::Value;

/// The kinds of objects that have parts of other kinds, by their resource.
const WHOLES: [(&str, &str); 8] = [
    ("pods", "Pod"),
    ("nodes", "Node"),
    ("services", "Service"),
    ("serviceaccounts", "ServiceAccount"),
    ("deployments", "Deployment"),
    ("replicasets", "ReplicaSet"),
    ("statefulsets", "StatefulSet"),
    ("replicationcontrollers", "ReplicationController"),
];

/// A pattern such as `Pod`, `apps/v1/Deployment`, `Pod/exec`, `*`, `*/*`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct KindPattern {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) kind: String,
    /// Empty for the object itself.
    pub(crate) subresource: String,
}

impl KindPattern {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let of = |group: &str, version: &str, kind: &str, subresource: &str| {
            let some = !kind.is_empty() && !kind.contains(char::is_whitespace);
            some.then(|| Self {
                group: group.to_owned(),
                version: version.to_owned(),
                kind: kind.to_owned(),
                subresource: subresource.to_owned(),
            })
        };
        match text.split('/').collect::<Vec<_>>().as_slice() {
            [kind] => match kind.split_once('.') {
                Some((kind, subresource)) => of("*", "*", kind, subresource),
                None => of("*", "*", kind, ""),
            },
            [version, kind] if is_version(version) && !is_subresource(kind) => match kind.split_once('.') {
                Some((kind, subresource)) => of("*", version, kind, subresource),
                None => of("*", version, kind, ""),
            },
            [kind, subresource] => of("*", "*", kind, subresource),
            [group, version, kind] if is_version(version) => match kind.split_once('.') {
                Some((kind, subresource)) => of(group, version, kind, subresource),
                None => of(group, version, kind, ""),
            },
            [version, kind, subresource] if is_version(version) => of("*", version, kind, subresource),
            [group, version, kind, subresource] => of(group, version, kind, subresource),
            _ => None,
        }
    }

    /// Whether it speaks of the kind of a request and of the part of it that is asked for.
    pub(crate) fn matches(&self, request: &Value) -> bool {
        let text = |pointer: &str| request.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let subresource = text("/subResource");
        let added_later =
            self.kind == "Pod" && self.subresource.is_empty() && subresource == "ephemeralcontainers";
        let is = |group: &str, version: &str, kind: &str| {
            wildcard_match(&self.group, group)
                && wildcard_match(&self.version, version)
                && wildcard_match(&self.kind, kind)
        };
        // A part may be asked for as an object of another kind: `Pod/exec` comes as PodExecOptions.
        let is_part = !subresource.is_empty();
        let of_whole = is_part
            && wildcard_match(&self.group, text("/resource/group"))
            && wildcard_match(&self.version, text("/resource/version"))
            && (wildcard_match(&self.kind, whole(text("/resource/resource")).unwrap_or_default())
                || is_resource_of(text("/resource/resource"), &self.kind));
        (is(text("/kind/group"), text("/kind/version"), text("/kind/kind")) || of_whole)
            && (added_later || wildcard_match(&self.subresource, subresource))
    }

    /// Whether it speaks of a kind, whatever its group.
    pub(crate) fn names(&self, kind: &str) -> bool {
        wildcard_match(&self.kind, kind)
            && (self.subresource.is_empty() || self.subresource == "ephemeralcontainers")
    }
}

/// The kind that has parts of other kinds.
fn whole(resource: &str) -> Option<&'static str> {
    WHOLES.iter().find(|(of, _)| *of == resource).map(|(_, kind)| *kind)
}

/// Whether a resource has the name that kinds of custom resources usually give it.
fn is_resource_of(resource: &str, kind: &str) -> bool {
    let kind = kind.to_ascii_lowercase();
    let is = |begin: &str, end: &str| resource.strip_prefix(begin).is_some_and(|rest| rest == end);
    !kind.is_empty()
        && (is(&kind, "s") || is(&kind, "es") || kind.strip_suffix('y').is_some_and(|kind| is(kind, "ies")))
}

/// `v1`, `v1beta2` or `*`.
fn is_version(text: &str) -> bool {
    if text == "*" {
        return true;
    }
    let Some(rest) = text.strip_prefix('v') else { return false };
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let (number, rest) = rest.split_at(digits);
    let stage = rest.strip_prefix("alpha").or_else(|| rest.strip_prefix("beta")).unwrap_or(rest);
    !number.is_empty() && (rest.is_empty() || (stage != rest && stage.bytes().all(|b| b.is_ascii_digit())))
}

/// Subresources are written small; a second `*` is one as well, after the first.
fn is_subresource(text: &str) -> bool {
    text.chars().next().is_some_and(char::is_lowercase) || text == "*"
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn kinds_are_told_apart_by_all_their_parts() {
        let request = |group: &str, version: &str, kind: &str, subresource: &str| json!({ "kind": { "group": group, "version": version, "kind": kind }, "subResource": subresource });
        let of = |(group, resource): (&str, &str), mut request: Value| {
            request["resource"] = json!({ "group": group, "version": "v1", "resource": resource });
            request
        };
        let pod = request("", "v1", "Pod", "");
        let exec = of(("", "pods"), request("", "v1", "PodExecOptions", "exec"));
        let rollout = of(("argoproj.io", "rollouts"), request("autoscaling", "v1", "Scale", "scale"));
        let deployment = request("apps", "v1", "Deployment", "");
        let scale = of(("apps", "deployments"), request("autoscaling", "v1", "Scale", "scale"));
        let later = request("", "v1", "Pod", "ephemeralcontainers");
        for (pattern, of, expected) in [
            ("Pod", &pod, true),
            ("Pod", &later, true),
            ("Pod", &exec, false),
            ("v1/Pod", &pod, true),
            ("v2/Pod", &pod, false),
            ("apps/v1/Deployment", &deployment, true),
            ("apps/*/Deploy*", &deployment, true),
            ("batch/v1/Deployment", &deployment, false),
            ("*", &pod, true),
            ("*", &exec, false),
            ("*/*", &exec, true),
            ("*/exec", &exec, true),
            ("*/scale", &scale, true),
            ("*/scale", &deployment, false),
            ("Pod/exec", &exec, true),
            ("Pod/attach", &exec, false),
            ("PodExecOptions/exec", &exec, true),
            ("apps/v1/Deployment/scale", &scale, true),
            ("StatefulSet/scale", &scale, false),
            ("Rollout/scale", &rollout, true),
            ("Roll/scale", &rollout, false),
            ("*/scale", &rollout, true),
            ("Deployment", &scale, false),
            ("*/Pod", &pod, true),
            ("Pod/ephemeralcontainers", &later, true),
            ("Pod.ephemeralcontainers", &later, true),
            ("v1/Pod/ephemeralcontainers", &later, true),
            ("autoscaling/v1/Scale/scale", &scale, true),
        ] {
            let pattern_of = KindPattern::parse(pattern).unwrap();
            assert_eq!(pattern_of.matches(of), expected, "{pattern}: {of} {pattern_of:?}");
        }
        assert!(KindPattern::parse("").is_none() && KindPattern::parse("a/b/c/d/e").is_none());
    }
}
