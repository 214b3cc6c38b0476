//! How lists of the Kubernetes types merge: `data/merge-keys.json`, which `cargo xtask gen` makes of the
//! published OpenAPI.
//!
//! Lists of which nothing is known are replaced, those of custom resources among them: so does kustomize.

use std::collections::{BTreeMap, HashMap};
use std::sync::LazyLock;

use serde_json::Value;

const DATA: &str = include_str!("../data/merge-keys.json");

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    // Generated and checked in: a test reads it.
    Table::read(&serde_json::from_str(DATA).unwrap_or_default())
});

/// What is known of the value in one place.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Shape {
    of: Option<usize>,
    keys: Option<&'static [String]>,
}

#[derive(Debug, Default)]
struct Table {
    kinds: HashMap<String, usize>,
    types: Vec<BTreeMap<String, Field>>,
}

#[derive(Debug)]
struct Field {
    of: Option<usize>,
    by: Option<Vec<String>>,
}

impl Shape {
    /// The shape of the objects of a kind as a request names it, `{group, version, kind}`; without a
    /// version it is v1.
    pub(crate) fn of_kind(kind: &Value) -> Self {
        let word = |name: &str| kind[name].as_str().filter(|word| !word.is_empty());
        let version = word("version").unwrap_or("v1");
        let version = word("group").map_or_else(|| version.to_owned(), |group| format!("{group}/{version}"));
        Self::named(&version, word("kind").unwrap_or_default())
    }

    fn named(version: &str, kind: &str) -> Self {
        Self { of: TABLE.kinds.get(&format!("{version}/{kind}")).copied(), keys: None }
    }

    /// The shape of an object that says what it is; otherwise the one that is known already.
    pub(crate) fn at(self, object: &Value) -> Self {
        if self.of.is_some() {
            return self;
        }
        let (Some(version), Some(kind)) = (object["apiVersion"].as_str(), object["kind"].as_str()) else {
            return self;
        };
        Self { keys: self.keys, ..Self::named(version, kind) }
    }

    /// The shape of a field.
    pub(crate) fn field(self, name: &str) -> Self {
        let fields = self.of.and_then(|of| TABLE.types.get(of));
        let field = fields.and_then(|fields| fields.get(name).or_else(|| fields.get("*")));
        field.map_or_else(Self::default, |field| Self { of: field.of, keys: field.by.as_deref() })
    }

    /// The shape of an element of a list.
    pub(crate) fn element(self) -> Self {
        Self { of: self.of, keys: None }
    }

    /// The keys that a list merges by, none for a set of scalars; `None` where it is replaced.
    pub(crate) fn keys(self) -> Option<&'static [String]> {
        self.keys
    }
}

impl Table {
    fn read(data: &Value) -> Self {
        let named: Vec<_> = data["types"].as_object().into_iter().flatten().collect();
        let places: HashMap<&str, usize> =
            named.iter().enumerate().map(|(place, (name, _))| (name.as_str(), place)).collect();
        let place = |name: &Value| name.as_str().and_then(|name| places.get(name)).copied();
        let field = |field: &Value| Field {
            of: place(&field["of"]),
            by: field["by"]
                .as_array()
                .map(|keys| keys.iter().filter_map(Value::as_str).map(ToOwned::to_owned).collect()),
        };
        let types = named.iter().map(|(_, fields)| {
            let fields = fields.as_object().into_iter().flatten();
            fields.map(|(name, value)| (name.clone(), field(value))).collect()
        });
        let kinds = data["kinds"].as_object().into_iter().flatten();
        let kinds = kinds.filter_map(|(kind, name)| Some((kind.clone(), place(name)?))).collect();
        Self { kinds, types: types.collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn keys_of_kubernetes_types() {
        for (kind, path, expected) in [
            ("v1/Pod", "spec.containers", Some("name")),
            ("v1/Pod", "spec.containers.[].ports", Some("containerPort protocol")),
            ("v1/Pod", "spec.containers.[].volumeMounts", Some("mountPath")),
            ("v1/Pod", "spec.containers.[].env", Some("name")),
            ("v1/Pod", "spec.containers.[].args", None),
            ("v1/Pod", "spec.tolerations", None),
            ("v1/Pod", "spec.hostAliases", Some("ip")),
            ("v1/Pod", "spec.topologySpreadConstraints", Some("topologyKey whenUnsatisfiable")),
            ("v1/Pod", "metadata.finalizers", Some("")),
            ("v1/Pod", "metadata.ownerReferences", Some("uid")),
            ("v1/Service", "spec.ports", Some("port protocol")),
            ("apps/v1/Deployment", "spec.template.spec.volumes", Some("name")),
            ("batch/v1/CronJob", "spec.jobTemplate.spec.template.spec.initContainers", Some("name")),
            ("v1/ServiceAccount", "imagePullSecrets", None),
            ("v1/ServiceAccount", "secrets", Some("name")),
            ("example.com/v1/Pod", "spec.containers", None),
        ] {
            let (version, kind_of) = kind.rsplit_once('/').unwrap();
            let mut shape = Shape::default().at(&json!({ "apiVersion": version, "kind": kind_of }));
            for name in path.split('.') {
                shape = if name == "[]" { shape.element() } else { shape.field(name) };
            }
            let keys = shape.keys().map(|keys| keys.join(" "));
            assert_eq!(keys.as_deref(), expected, "{kind} {path}");
        }
        for kind in [
            json!({ "group": "", "version": "v1", "kind": "Pod" }),
            json!({ "group": "apps", "version": "v1", "kind": "Deployment" }),
            json!({ "kind": "Pod" }),
        ] {
            assert!(Shape::of_kind(&kind).field("metadata").field("finalizers").keys().is_some(), "{kind}");
        }
        assert!(Shape::of_kind(&json!(null)).of.is_none());
    }
}
