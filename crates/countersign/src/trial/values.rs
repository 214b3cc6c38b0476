//! What somebody says that names stand for: `kind: Values`, `kind: UserInfo` (cli.kyverno.io/v1alpha1).

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Result, bail};
use countersign_policy::Given;
use serde_json::{Map, Value};

use super::documents::read;

/// Values, by what they are for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Values {
    global: Map<String, Value>,
    /// By policy and rule.
    rules: BTreeMap<(String, String), Map<String, Value>>,
    /// By policy and the name of an object.
    objects: BTreeMap<(String, String), Map<String, Value>>,
    /// The labels of namespaces.
    namespaces: BTreeMap<String, Value>,
}

impl Values {
    /// Reads a file of values.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let documents = read(path)?;
        let [document] = documents.as_slice() else {
            bail!("{}: expected one document", path.display());
        };
        Self::of(document, &path.display().to_string())
    }

    /// Reads the fields of values, wherever they stand.
    pub(crate) fn of(value: &Value, from: &str) -> Result<Self> {
        let mut values = Self::default();
        known(
            value,
            from,
            &["apiVersion", "kind", "metadata", "globalValues", "policies", "namespaceSelector"],
        )?;
        values.global = map(&value["globalValues"], &format!("{from}: globalValues"))?;
        for policy in list(&value["policies"]) {
            let name = text(policy, "name");
            let from = format!("{from}: values of policy `{name}`");
            known(policy, &from, &["name", "rules", "resources"])?;
            for rule in list(&policy["rules"]) {
                known(rule, &from, &["name", "values"])?;
                values.rules.insert((name.clone(), text(rule, "name")), map(&rule["values"], &from)?);
            }
            for object in list(&policy["resources"]) {
                known(object, &from, &["name", "values"])?;
                values.objects.insert((name.clone(), text(object, "name")), map(&object["values"], &from)?);
            }
        }
        for namespace in list(&value["namespaceSelector"]) {
            known(namespace, from, &["name", "labels"])?;
            values.namespaces.insert(text(namespace, "name"), namespace["labels"].clone());
        }
        Ok(values)
    }

    /// Adds one for every policy.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.global.insert(name.to_owned(), Value::String(value.to_owned()));
    }

    /// Those of one policy, for one object; the policy is named in files without its namespace.
    pub(super) fn given(&self, own_name: &str, policy: &str, object: &str) -> Given {
        let of_policy = |name: &str| name == own_name || name == policy;
        let mut given = Given { global: self.global.clone(), ..Given::default() };
        for ((name, rule), values) in &self.rules {
            if of_policy(name) {
                given.rules.insert((policy.to_owned(), rule.clone()), values.clone());
            }
        }
        for ((name, of), values) in &self.objects {
            if of_policy(name) && of == object {
                given.policies.insert(policy.to_owned(), values.clone());
            }
        }
        given
    }

    pub(super) fn namespace_labels(&self, name: &str) -> Option<&Value> {
        self.namespaces.get(name)
    }
}

/// Who makes the requests.
#[derive(Clone, Debug)]
pub(crate) struct User(Value);

impl User {
    /// Reads a file that says it.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let documents = read(path)?;
        let [document] = documents.as_slice() else {
            bail!("{}: expected one document", path.display());
        };
        let from = path.display().to_string();
        known(document, &from, &["apiVersion", "kind", "metadata", "userInfo", "roles", "clusterRoles"])?;
        Ok(Self(document.clone()))
    }

    pub(super) fn put_into(&self, request: &mut Value) {
        for field in ["userInfo", "roles", "clusterRoles"] {
            if !self.0[field].is_null() {
                request[field] = self.0[field].clone();
            }
        }
    }
}

/// Refuses fields that would be passed over in silence.
pub(crate) fn known(value: &Value, from: &str, fields: &[&str]) -> Result<()> {
    let Some(object) = value.as_object() else { bail!("{from}: expected an object") };
    for name in object.keys() {
        if !fields.contains(&name.as_str()) && !object[name].is_null() {
            bail!("{from}: `{name}` is not supported");
        }
    }
    Ok(())
}

/// The elements of a list; none where there is no list.
pub(crate) fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

pub(crate) fn text(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap_or_default().to_owned()
}

fn map(value: &Value, from: &str) -> Result<Map<String, Value>> {
    match value {
        Value::Null => Ok(Map::new()),
        Value::Object(map) => Ok(map.clone()),
        _ => bail!("{from}: expected a map"),
    }
}
