//! The kinds of objects that the program reads.

use std::time::Duration;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::Value;

/// Who applies them.
const MANAGER: &str = "countersign";
/// How long the API server may take to serve a new kind.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long for a kind that somebody else has brought, which should be there.
const OTHERS: Duration = Duration::from_secs(5);
const ROUND: Duration = Duration::from_millis(200);
/// The group whose kinds another program may have brought, too.
const SHARED: &str = "kyverno.io";

/// A kind of objects that the program reads or writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Where images live and whom to trust.
    Site,
    /// What is known of a digest.
    ImageEvidence,
    /// A policy for the cluster.
    ClusterPolicy,
    /// A policy for a namespace.
    Policy,
    /// An exception from policies.
    PolicyException,
}

impl Kind {
    /// As the API server knows it.
    pub fn resource(self) -> ApiResource {
        let (group, version, kind, plural) = match self {
            Self::Site => ("countersign.dev", "v1alpha1", "Site", "sites"),
            Self::ImageEvidence => ("countersign.dev", "v1alpha1", "ImageEvidence", "imageevidences"),
            Self::ClusterPolicy => (SHARED, "v1", "ClusterPolicy", "clusterpolicies"),
            Self::Policy => (SHARED, "v1", "Policy", "policies"),
            Self::PolicyException => (SHARED, "v2", "PolicyException", "policyexceptions"),
        };
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural)
    }
}

/// The same files as in the chart.
const DEFINITIONS: [&str; 5] = [
    include_str!("../../../charts/countersign/crds/countersign.dev_imageevidences.yaml"),
    include_str!("../../../charts/countersign/crds/countersign.dev_sites.yaml"),
    include_str!("../../../charts/countersign/crds/kyverno.io_clusterpolicies.yaml"),
    include_str!("../../../charts/countersign/crds/kyverno.io_policies.yaml"),
    include_str!("../../../charts/countersign/crds/kyverno.io_policyexceptions.yaml"),
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
    /// It is somebody else's, and serves what is read.
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
    #[error("{0} is not served: see the conditions of the definition, or take it over with --force")]
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
    let mut done = Vec::new();
    for text in DEFINITIONS {
        let definition =
            countersign_yaml::document(text).map_err(|error| CrdError::Malformed(error.to_string()))?;
        let name = definition["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let one = One { client, name: &name, kind: ApiResource::erase::<CustomResourceDefinition>(&()) };
        let applied = one.apply(definition, force).await?;
        done.push((name, applied));
    }
    Ok(done)
}

/// One definition, as it is written: nothing that this program does not know is lost.
struct One<'a> {
    client: &'a Client,
    name: &'a str,
    kind: ApiResource,
}

impl One<'_> {
    fn failed(&self, error: kube::Error) -> CrdError {
        CrdError::Api { name: self.name.to_owned(), error: Box::new(error) }
    }

    fn api(&self) -> Api<DynamicObject> {
        Api::all_with(self.client.clone(), &self.kind)
    }

    async fn apply(&self, mut definition: Value, force: bool) -> Result<Applied, CrdError> {
        let api = self.api();
        let before = api.get_opt(self.name).await.map_err(|error| self.failed(error))?;
        if let Some(before) = &before {
            let spec = &before.data["spec"];
            // The first is the one that is read.
            let read = definition["spec"]["versions"][0]["name"].as_str().unwrap_or_default().to_owned();
            if spec["group"] == SHARED && !is_open(spec, &read) && !force {
                // It has to serve what is read all the same.
                self.served(&definition, &[read], OTHERS).await?;
                return Ok(Applied::Left);
            }
            keep_versions(&mut definition, spec).map_err(CrdError::Malformed)?;
        }
        let parameters = PatchParams::apply(MANAGER).force();
        let after = api.patch(self.name, &parameters, &Patch::Apply(&definition)).await;
        let after = after.map_err(|error| self.failed(error))?;
        let versions = definition["spec"]["versions"].as_array().into_iter().flatten();
        let served = versions.filter(|version| version["served"] == true);
        let served: Vec<String> =
            served.filter_map(|version| version["name"].as_str().map(ToOwned::to_owned)).collect();
        self.served(&definition, &served, PATIENCE).await?;
        Ok(match before {
            None => Applied::Made,
            Some(before) if before.metadata.generation == after.metadata.generation => Applied::Same,
            Some(_) => Applied::Changed,
        })
    }

    /// Waits until the API server says that it serves these versions.
    async fn served(
        &self,
        definition: &Value,
        versions: &[String],
        patience: Duration,
    ) -> Result<(), CrdError> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let spec = &definition["spec"];
        let (group, plural) = (text(&spec["group"]), text(&spec["names"]["plural"]));
        for version in versions {
            // Discovery is for everybody who may log in.
            let known = async {
                loop {
                    match self.client.list_api_group_resources(&format!("{group}/{version}")).await {
                        Ok(list) if list.resources.iter().any(|resource| resource.name == plural) => {
                            return Ok(());
                        }
                        Ok(_) => {}
                        Err(kube::Error::Api(status)) if status.code == 404 => {}
                        Err(error) => return Err(self.failed(error)),
                    }
                    tokio::time::sleep(ROUND).await;
                }
            };
            let late = || CrdError::NotServed(format!("{}, version {version},", self.name));
            tokio::time::timeout(patience, known).await.map_err(|_| late())??;
        }
        Ok(())
    }
}

/// Whether a definition takes any `spec`, as ours do: then it is one of ours, or as good as one.
fn is_open(spec: &Value, version: &str) -> bool {
    let versions = spec["versions"].as_array().into_iter().flatten();
    versions.filter(|of| of["name"] == version).any(|version| {
        let schema = &version["schema"]["openAPIV3Schema"]["properties"]["spec"];
        schema["x-kubernetes-preserve-unknown-fields"] == true && schema["properties"].is_null()
    })
}

/// Versions that are there and that we do not know stay, for objects may be stored in them.
fn keep_versions(definition: &mut Value, before: &Value) -> Result<(), String> {
    let wrong = || "`spec.versions` is not a list".to_owned();
    let versions = definition["spec"]["versions"].as_array_mut().ok_or_else(wrong)?;
    for version in before["versions"].as_array().ok_or_else(wrong)? {
        if versions.iter().any(|own| own["name"] == version["name"]) {
            continue;
        }
        let mut version = version.clone();
        // There is one in which objects are stored from now on.
        version["storage"] = Value::Bool(false);
        versions.push(version);
    }
    Ok(())
}
