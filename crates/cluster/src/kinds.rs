//! Which resources the API server has to ask about, for the kinds that policies speak of.
//!
//! Pods are asked about in any case, and a webhook for them that cannot be reached denies. For all
//! else, an outage of this program must take nobody's hands off the cluster: it denies only where a
//! policy says so, in ordinary namespaces, and never what is of no namespace, deletions or connections.

use std::collections::{BTreeMap, BTreeSet};

use countersign_policy::{CONNECTIONS, Interest};
use kube::Client;
use kube::discovery::{ApiCapabilities, ApiResource, Discovery, Scope};
use serde_json::{Value, json};

/// What no policy is asked about: the configuration of who decides, who is asked who somebody is and
/// what he may do, what leads and what tells; an answer may take what it asks about.
const NEVER: [&str; 7] = [
    "admissionregistration.k8s.io",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "coordination.k8s.io",
    "countersign.dev",
    "events.k8s.io",
    "kyverno.io",
];
/// The same within the core group.
const NEVER_OF_CORE: [&str; 3] = ["bindings", "componentstatuses", "events"];
/// What is written all the time: it is asked about where a policy names it, and by no wildcard.
const BUSY: [(&str, &str); 2] = [("", "endpoints"), ("discovery.k8s.io", "endpointslices")];
/// The same of parts: nodes say how they are, are drained, and give pods their tokens.
const BUSY_PARTS: [&str; 4] = ["eviction", "finalize", "status", "token"];
/// Verbs of resources that can be written.
const WRITES: [&str; 4] = ["create", "update", "patch", "delete"];

/// A resource, or a part of one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Resource {
    group: String,
    version: String,
    /// `deployments`, `deployments/scale`.
    name: String,
    kind: String,
    /// The kind that a part is asked for as, which may be another than that of the whole.
    part: Option<String>,
    namespaced: bool,
    /// Whether this is the version of it that clients are led to.
    preferred: bool,
}

/// The kinds that an API server serves.
#[derive(Clone, Debug, Default)]
pub struct Kinds(Vec<Resource>);

/// What webhooks are asked about besides pods.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rules {
    pub(crate) mutating: Tiers,
    pub(crate) validating: Tiers,
    /// Kinds that no resource is known for.
    pub unknown: BTreeSet<String>,
}

impl Rules {
    pub(crate) fn of(&self, mutating: bool) -> &Tiers {
        if mutating { &self.mutating } else { &self.validating }
    }
}

/// Rules of webhook configurations.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Tiers {
    /// Those of webhooks that deny where nobody answers.
    pub(crate) strict: Vec<Value>,
    /// Those of webhooks that do not.
    pub(crate) lenient: Vec<Value>,
}

impl Kinds {
    /// Asks what is served.
    ///
    /// # Errors
    ///
    /// The API server says no, or nothing.
    pub async fn discover(client: &Client) -> Result<Self, kube::Error> {
        let discovery = match Discovery::new(client.clone()).run_aggregated().await {
            Ok(found) => found,
            // An API server from before 1.30.
            Err(_) => Discovery::new(client.clone()).run().await?,
        };
        let mut found = Vec::new();
        for group in discovery.groups_alphabetical() {
            // A resource is not in every version of its group: the first that has it is the one.
            let first = group.preferred_version_or_latest();
            let versions = std::iter::once(first).chain(group.versions().filter(|version| *version != first));
            let mut seen = BTreeSet::new();
            for version in versions {
                for (resource, capabilities) in group.versioned_resources(version) {
                    let preferred = seen.insert(resource.plural.clone());
                    found.extend(of_resource(&resource, &capabilities, preferred));
                }
            }
        }
        Ok(Self(found))
    }

    /// The rules for these interests.
    pub fn rules(&self, interests: &BTreeSet<Interest>) -> Rules {
        let mut rules = Rules::default();
        // Of each tier: what, and for which operations.
        let mut strict: [Wanted<'_>; 2] = Default::default();
        let mut lenient: [Wanted<'_>; 2] = Default::default();
        for interest in interests {
            let resources = self.of(interest, interests);
            if resources.is_empty() {
                rules.unknown.insert(shown(interest));
            }
            for resource in resources {
                // A connection is no creation, and nothing else is a connection.
                let connects = CONNECTIONS.contains(&resource.part_name());
                if is_of_pods(resource, interest.operation) || connects != (interest.operation == "CONNECT") {
                    continue;
                }
                let is_lenient = interest.lenient
                    || !resource.namespaced
                    || matches!(interest.operation, "DELETE" | "CONNECT");
                let tier = if is_lenient { &mut lenient } else { &mut strict };
                let wanted = &mut tier[usize::from(interest.mutates)];
                wanted.entry(resource).or_default().insert(interest.operation);
            }
        }
        for (strict, lenient) in strict.iter().zip(&mut lenient) {
            // Nobody is asked twice.
            for (resource, operations) in lenient.iter_mut() {
                if let Some(asked) = strict.get(resource) {
                    operations.retain(|operation| !asked.contains(operation));
                }
            }
        }
        let [validating, mutating] =
            [0, 1].map(|phase| Tiers { strict: written(&strict[phase]), lenient: written(&lenient[phase]) });
        Rules { mutating, validating, ..rules }
    }

    /// The resources that an interest is in, each in the versions that policies of the cluster name for it,
    /// which the API server brings others to; where none does, in the one that clients are led to.
    fn of(&self, interest: &Interest, all: &BTreeSet<Interest>) -> Vec<&Resource> {
        let by_wildcard = interest.kind.contains(['*', '?']) || interest.subresource.contains(['*', '?']);
        let is_named = |resource: &Resource| all.iter().any(|by| pins(by) && is_by(by, resource));
        let in_force = |resource: &Resource| {
            let same = |other: &&Resource| other.group == resource.group && other.name == resource.name;
            let some_is_named = self.0.iter().filter(same).any(is_named);
            if some_is_named { is_named(resource) } else { resource.preferred }
        };
        let is_meant = |resource: &&Resource| {
            is_by(interest, resource) && !(by_wildcard && resource.is_busy()) && in_force(resource)
        };
        self.0.iter().filter(is_meant).collect()
    }
}

/// Whether an interest says which version it is in, for all.
fn pins(interest: &Interest) -> bool {
    !interest.namespaced && !interest.version.contains('*')
}

impl Resource {
    /// The name of a part, or nothing.
    fn part_name(&self) -> &str {
        self.name.split_once('/').map_or("", |(_, part)| part)
    }

    /// Whether it is written all the time, or must be, whoever is away.
    fn is_busy(&self) -> bool {
        BUSY.contains(&(self.group.as_str(), self.name.as_str())) || BUSY_PARTS.contains(&self.part_name())
    }
}

/// Whether an interest is in a resource, whichever version clients are led to.
fn is_by(interest: &Interest, resource: &Resource) -> bool {
    let part = resource.part_name();
    let as_part = |kind: &String| interest.is_in_part(kind, part);
    interest.is_in(&resource.group, &resource.version, &resource.kind, part)
        || resource.part.as_ref().is_some_and(as_part)
}

type Wanted<'a> = BTreeMap<&'a Resource, BTreeSet<&'static str>>;

fn of_resource(resource: &ApiResource, capabilities: &ApiCapabilities, preferred: bool) -> Vec<Resource> {
    let core = resource.group.is_empty();
    let never = NEVER.contains(&resource.group.as_str())
        || (core && NEVER_OF_CORE.contains(&resource.plural.as_str()));
    let is_written = WRITES.iter().any(|verb| capabilities.supports_operation(verb));
    if never || !is_written {
        return Vec::new();
    }
    let of = |name: String, part| Resource {
        group: resource.group.clone(),
        version: resource.version.clone(),
        name,
        kind: resource.kind.clone(),
        part,
        namespaced: capabilities.scope == Scope::Namespaced,
        preferred,
    };
    let whole = of(resource.plural.clone(), None);
    let parts = capabilities.subresources.iter().filter(|(part, _)| part.plural != "binding");
    let parts =
        parts.map(|(part, _)| of(format!("{}/{}", resource.plural, part.plural), Some(part.kind.clone())));
    std::iter::once(whole).chain(parts).collect()
}

/// Whether it is what both webhooks are asked about in any case.
fn is_of_pods(resource: &Resource, operation: &str) -> bool {
    resource.group.is_empty()
        && matches!(
            (resource.name.as_str(), operation),
            ("pods", "CREATE" | "UPDATE") | ("pods/ephemeralcontainers", _)
        )
}

fn shown(interest: &Interest) -> String {
    let Interest { group, version, kind, subresource, .. } = interest;
    let kind = if subresource.is_empty() { kind.clone() } else { format!("{kind}/{subresource}") };
    match (group.as_str(), version.as_str()) {
        ("*", "*") => kind,
        ("*", version) => format!("{version}/{kind}"),
        (group, version) => format!("{group}/{version}/{kind}"),
    }
}

/// One rule for all resources of a group, a version and a scope that are asked about for the same.
fn written(wanted: &Wanted<'_>) -> Vec<Value> {
    let mut rules: BTreeMap<(&str, &str, bool, Vec<&str>), Vec<&str>> = BTreeMap::new();
    for (resource, operations) in wanted.iter().filter(|(_, operations)| !operations.is_empty()) {
        let operations: Vec<&str> = operations.iter().copied().collect();
        let key = (resource.group.as_str(), resource.version.as_str(), resource.namespaced, operations);
        rules.entry(key).or_default().push(&resource.name);
    }
    let rule = |((group, version, namespaced, operations), resources): (_, Vec<&str>)| {
        json!({
            "apiGroups": [group], "apiVersions": [version], "operations": operations,
            "resources": resources, "scope": if namespaced { "Namespaced" } else { "Cluster" },
        })
    };
    rules.into_iter().map(rule).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds() -> Kinds {
        let resource = |group: &str, version: &str, name: &str, kind: &str, namespaced, preferred| Resource {
            group: group.to_owned(),
            version: version.to_owned(),
            name: name.to_owned(),
            kind: kind.to_owned(),
            part: None,
            namespaced,
            preferred,
        };
        let of = |kind: &str, resource: Resource| Resource { part: Some(kind.to_owned()), ..resource };
        Kinds(vec![
            resource("", "v1", "pods", "Pod", true, true),
            of("PodExecOptions", resource("", "v1", "pods/exec", "Pod", true, true)),
            of("Pod", resource("", "v1", "pods/status", "Pod", true, true)),
            resource("", "v1", "endpoints", "Endpoints", true, true),
            resource("", "v1", "namespaces", "Namespace", false, true),
            resource("apps", "v1", "deployments", "Deployment", true, true),
            of("Scale", resource("apps", "v1", "deployments/scale", "Deployment", true, true)),
            resource("example.org", "v1", "widgets", "Widget", true, true),
            resource("example.org", "v1beta1", "widgets", "Widget", true, false),
        ])
    }

    fn interest(kind: &str, operation: &'static str, mutates: bool, lenient: bool) -> Interest {
        let (group, version, kind) = match kind.split('/').collect::<Vec<_>>().as_slice() {
            [group, version, kind] => ((*group).to_owned(), (*version).to_owned(), (*kind).to_owned()),
            _ => ("*".to_owned(), "*".to_owned(), kind.to_owned()),
        };
        let (kind, subresource) = kind.split_once('.').unwrap_or((&kind, ""));
        let (kind, subresource) = (kind.to_owned(), subresource.to_owned());
        Interest { group, version, kind, subresource, operation, mutates, namespaced: false, lenient }
    }

    fn names(rules: &[Value]) -> Vec<String> {
        let one = |rule: &Value| {
            let resources = rule["resources"].as_array().unwrap().iter();
            let resources: Vec<_> = resources.map(|name| name.as_str().unwrap()).collect();
            format!(
                "{} {} {}",
                rule["apiVersions"][0].as_str().unwrap(),
                resources.join(","),
                rule["operations"]
            )
        };
        rules.iter().map(one).collect()
    }

    #[test]
    fn what_is_asked_about_is_what_policies_speak_of() {
        let of = |interests: &[Interest]| kinds().rules(&interests.iter().cloned().collect());
        let rules = of(&[
            interest("Pod", "CREATE", true, false),
            interest("Pod", "DELETE", false, false),
            interest("Pod.exec", "CONNECT", false, false),
            interest("Deployment", "CREATE", true, false),
            interest("Deployment", "CREATE", true, true),
            interest("Deployment", "UPDATE", true, true),
            interest("Deployment", "CREATE", false, false),
            interest("Widget", "CREATE", false, false),
            interest("example.org/v1beta1/Widget", "CREATE", false, false),
            interest("Namespace", "CREATE", false, false),
            interest("Gadget", "CREATE", false, false),
        ]);
        assert_eq!(names(&rules.mutating.strict), ["v1 deployments [\"CREATE\"]"]);
        assert_eq!(names(&rules.mutating.lenient), ["v1 deployments [\"UPDATE\"]"]);
        assert_eq!(
            names(&rules.validating.strict),
            // A version that a policy names is the one that all are brought to.
            ["v1 deployments [\"CREATE\"]", "v1beta1 widgets [\"CREATE\"]"]
        );
        assert_eq!(
            names(&rules.validating.lenient),
            ["v1 namespaces [\"CREATE\"]", "v1 pods/exec [\"CONNECT\"]", "v1 pods [\"DELETE\"]"]
        );
        assert_eq!(rules.validating.lenient[0]["scope"], "Cluster");
        assert_eq!(rules.unknown, ["Gadget".to_owned()].into());
    }

    #[test]
    fn a_wildcard_means_no_parts_and_nothing_busy() {
        let of = |kind: &str| kinds().rules(&[interest(kind, "CREATE", false, false)].into());
        assert_eq!(
            names(&of("*").validating.strict),
            ["v1 deployments [\"CREATE\"]", "v1 widgets [\"CREATE\"]"]
        );
        assert_eq!(names(&of("*.scale").validating.strict), ["v1 deployments/scale [\"CREATE\"]"]);
        assert_eq!(names(&of("Scale.scale").validating.strict), ["v1 deployments/scale [\"CREATE\"]"]);
        assert_eq!(
            names(&of("autoscaling/v1/Scale.scale").validating.strict),
            ["v1 deployments/scale [\"CREATE\"]"]
        );
        // What a tenant names brings nobody else's objects to another version.
        let tenant =
            Interest { namespaced: true, ..interest("example.org/v1beta1/Widget", "CREATE", false, true) };
        let rules = kinds().rules(&[interest("Widget", "CREATE", false, false), tenant].into());
        assert_eq!(names(&rules.validating.strict), ["v1 widgets [\"CREATE\"]"]);
        assert_eq!(names(&rules.validating.lenient), Vec::<String>::new());
        let connections = kinds().rules(
            &[interest("Pod.*", "CONNECT", false, false), interest("Pod.*", "CREATE", false, false)].into(),
        );
        assert_eq!(names(&connections.validating.lenient), ["v1 pods/exec [\"CONNECT\"]"]);
        assert_eq!(names(&connections.validating.strict), Vec::<String>::new());
        assert_eq!(names(&of("Endpoints").validating.strict), ["v1 endpoints [\"CREATE\"]"]);
    }
}
