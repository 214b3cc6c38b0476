//! The kinds of objects that the program reads.

use std::time::Duration;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::Value;

/// Who applies them.
const MANAGER: &str = "countersign";
/// How long the API server may take to serve a new kind.
const PATIENCE: Duration = Duration::from_secs(30);
const ROUND: Duration = Duration::from_millis(200);
/// The group whose kinds another program may have brought, too.
const SHARED: &str = "kyverno.io";

/// The same files as in the chart.
const DEFINITIONS: [&str; 3] = [
    include_str!("../../../charts/countersign/crds/countersign.dev_sites.yaml"),
    include_str!("../../../charts/countersign/crds/kyverno.io_clusterpolicies.yaml"),
    include_str!("../../../charts/countersign/crds/kyverno.io_policies.yaml"),
];

/// What was done about one of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applied {
    /// There was none.
    Made,
    /// It was another one.
    Changed,
    /// It was there.
    Same,
    /// It is somebody else's, and serves.
    Left,
}

/// Why they are not there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CrdError {
    /// The API server says no, or nothing.
    #[error("{name}: {error}")]
    Api {
        /// Which one.
        name: String,
        /// What went wrong.
        error: Box<kube::Error>,
    },
    /// It is not served in time.
    #[error("{0} is not served yet: see its conditions")]
    NotServed(String),
    /// A file of this program is not what it should be.
    #[error("a definition cannot be read: {0}")]
    Malformed(String),
}

impl CrdError {
    /// Whether nobody answered, or somebody who could not.
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Api { error, .. } if crate::is_unreachable(error))
    }
}

/// Applies every definition (server-side apply), and waits until it is served. No version that
/// objects may be stored in is ever taken away. A kind of Kyverno's that somebody else has brought
/// is left as it is, or taken over by `force`.
///
/// # Errors
///
/// The first that cannot be applied; those before it are.
pub async fn apply(client: &Client, force: bool) -> Result<Vec<(String, Applied)>, CrdError> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let mut done = Vec::new();
    for text in DEFINITIONS {
        let definition =
            countersign_yaml::document(text).map_err(|error| CrdError::Malformed(error.to_string()))?;
        let name = definition["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let applied = one(&api, &name, definition, force).await?;
        done.push((name, applied));
    }
    Ok(done)
}

async fn one(
    api: &Api<CustomResourceDefinition>,
    name: &str,
    mut definition: Value,
    force: bool,
) -> Result<Applied, CrdError> {
    let failed = |error| CrdError::Api { name: name.to_owned(), error: Box::new(error) };
    let before = api.get_opt(name).await.map_err(failed)?;
    if let Some(before) = &before {
        let managers = before.metadata.managed_fields.iter().flatten();
        let ours = managers.filter_map(|fields| fields.manager.as_deref()).any(|manager| manager == MANAGER);
        if before.spec.group == SHARED && !ours && !force {
            return Ok(Applied::Left);
        }
        keep_versions(&mut definition, before).map_err(CrdError::Malformed)?;
    }
    let parameters = PatchParams::apply(MANAGER).force();
    let after = api.patch(name, &parameters, &Patch::Apply(&definition)).await.map_err(failed)?;
    served(api, name).await?;
    Ok(match before {
        None => Applied::Made,
        Some(before) if before.metadata.generation == after.metadata.generation => Applied::Same,
        Some(_) => Applied::Changed,
    })
}

/// Versions that are there and that we do not know stay, for objects may be stored in them.
fn keep_versions(definition: &mut Value, before: &CustomResourceDefinition) -> Result<(), String> {
    let wrong = || "`spec.versions` is not a list".to_owned();
    let versions = definition["spec"]["versions"].as_array_mut().ok_or_else(wrong)?;
    for version in &before.spec.versions {
        if versions.iter().any(|own| own["name"] == version.name.as_str()) {
            continue;
        }
        let mut version = serde_json::to_value(version).map_err(|error| error.to_string())?;
        // There is one in which objects are stored from now on.
        version["storage"] = Value::Bool(false);
        versions.push(version);
    }
    Ok(())
}

async fn served(api: &Api<CustomResourceDefinition>, name: &str) -> Result<(), CrdError> {
    for _ in 0..PATIENCE.as_millis() / ROUND.as_millis() {
        let found = api.get(name).await;
        let found = found.map_err(|error| CrdError::Api { name: name.to_owned(), error: Box::new(error) })?;
        let conditions = found.status.and_then(|status| status.conditions).unwrap_or_default();
        if conditions.iter().any(|condition| condition.type_ == "Established" && condition.status == "True") {
            return Ok(());
        }
        tokio::time::sleep(ROUND).await;
    }
    Err(CrdError::NotServed(name.to_owned()))
}
