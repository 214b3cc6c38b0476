//! Which registry a node asks first: a tag that stands for another image in each registry.
//!
//! A bundle has two images of one repository, `bootstrap` and `cluster`, each signed. The bootstrap
//! registry serves the first under a further tag, which is in no bundle; the registry that a
//! cluster is switched over to gets the second one under it. A pod that names the tag says by
//! the digest of what it runs which of them its node has asked.

use std::collections::BTreeMap;
use std::time::Duration;

use countersign_cluster::{Client, is_unreachable};
use countersign_layout::canary;
use countersign_reference::Digest;
use countersign_registry::{Endpoint, Error, Manifest};
use k8s_openapi::api::core::v1::{Node as NodeObject, Pod};
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams};
use serde_json::json;
use tokio::time::Instant;

/// How often nodes are looked at.
const ROUND: Duration = Duration::from_secs(1);
/// The label of canary pods.
const LABEL: &str = "countersign.dev/canary";

/// Why it cannot be seen where nodes pull from.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CanaryError {
    /// The API server says no, or nothing.
    #[error("canary pods: {0}")]
    Api(Box<kube::Error>),
    /// The registry does not have it, or does not take it.
    #[error(
        "`{}:{tag}` at {url}: {error}. The images `{}` with the tags `{}` and `{}` have to be in the bundle and in \
         the registry, which has to take a further tag from whoever says this",
        canary::REPOSITORY,
        canary::REPOSITORY,
        canary::BOOTSTRAP,
        canary::CLUSTER
    )]
    Registry {
        /// The tag.
        tag: &'static str,
        /// Where.
        url: String,
        /// What went wrong.
        error: Error,
    },
    /// It shows another registry's image.
    #[error(
        "`{}:{}` at {url} is {found}, which is not its own: does it pass on what another registry says?",
        canary::REPOSITORY,
        canary::HERE
    )]
    Another {
        /// Where.
        url: String,
        /// What it is there.
        found: Digest,
    },
}

impl CanaryError {
    /// Whether nobody answered, or somebody who could not.
    pub fn is_unreachable(&self) -> bool {
        match self {
            Self::Api(error) => is_unreachable(error),
            Self::Registry { error, .. } => error.class() == countersign_registry::Class::Unreachable,
            Self::Another { .. } => false,
        }
    }
}

impl From<kube::Error> for CanaryError {
    fn from(error: kube::Error) -> Self {
        Self::Api(Box::new(error))
    }
}

/// What a registry is to a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The bootstrap machine's, which shows its own image by itself.
    Bootstrap,
    /// Any other one.
    Cluster,
}

/// The digest that the tag stands for in a registry of this role.
///
/// # Errors
///
/// It stands for something else there, or for nothing.
pub async fn marked(endpoint: &Endpoint, role: Role) -> Result<Digest, CanaryError> {
    let wanted = match role {
        Role::Bootstrap => canary::BOOTSTRAP,
        Role::Cluster => canary::CLUSTER,
    };
    let (wanted, here) =
        (tagged(endpoint, wanted).await?.digest, tagged(endpoint, canary::HERE).await?.digest);
    if wanted == here {
        Ok(here)
    } else {
        Err(CanaryError::Another { url: endpoint.url().to_owned(), found: here })
    }
}

/// What a tag stands for.
async fn tagged(endpoint: &Endpoint, tag: &'static str) -> Result<Manifest, CanaryError> {
    let found = endpoint.manifest_of_tag(canary::REPOSITORY, tag).await;
    found.map_err(|error| CanaryError::Registry { tag, url: endpoint.url().to_owned(), error })
}

/// Makes the tag stand for the cluster's image in this registry, where it does not yet, and answers
/// with its digest.
///
/// # Errors
///
/// The registry does not have it, does not take the tag, or passes on what the bootstrap registry
/// says: then nobody could tell the two apart.
pub async fn mark(endpoint: &Endpoint) -> Result<Digest, CanaryError> {
    let cluster = tagged(endpoint, canary::CLUSTER).await?;
    match tagged(endpoint, canary::HERE).await {
        Ok(found) if found.digest == cluster.digest => return Ok(found.digest),
        Ok(_) | Err(CanaryError::Registry { error: Error::Absent, .. }) => {}
        Err(error) => return Err(error),
    }
    let (media_type, bytes) = (&cluster.media_type, &cluster.bytes);
    let put = endpoint.push_manifest(canary::REPOSITORY, canary::HERE, media_type, bytes).await;
    put.map_err(|error| CanaryError::Registry { tag: canary::HERE, url: endpoint.url().to_owned(), error })?;
    marked(endpoint, Role::Cluster).await
}

/// A node, and where it was seen to pull from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// What was seen.
    pub seen: Seen,
}

/// What was seen of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It asks the registry that is meant first.
    There,
    /// It has pulled another image: from another registry.
    Elsewhere(Digest),
    /// It has not pulled yet: what its pod says.
    Nothing(String),
}

/// Canary pods on every node.
pub struct Canaries {
    nodes: Api<NodeObject>,
    pods: Api<Pod>,
    image: String,
}

impl Canaries {
    /// In the program's own namespace, which no webhook rewrites; `registry` is the logical one.
    pub fn new(client: &Client, namespace: &str, registry: &str) -> Self {
        Self {
            nodes: Api::all(client.clone()),
            pods: Api::namespaced(client.clone(), namespace),
            image: format!("{registry}/{}:{}", canary::REPOSITORY, canary::HERE),
        }
    }

    /// The names of the nodes.
    ///
    /// # Errors
    ///
    /// The API server says no, or nothing.
    pub async fn nodes(&self) -> Result<Vec<String>, CanaryError> {
        let nodes = self.nodes.list(&ListParams::default()).await?.items.into_iter();
        let mut names: Vec<String> = nodes.filter_map(|node| node.metadata.name).collect();
        names.sort();
        Ok(names)
    }

    /// Waits until every node pulls this digest; what was seen of each in the end.
    ///
    /// # Errors
    ///
    /// The API server says no, or nothing.
    pub async fn until(&self, wanted: &Digest, patience: Duration) -> Result<Vec<Node>, CanaryError> {
        let start = Instant::now();
        let mut seen: BTreeMap<String, Seen> = BTreeMap::new();
        self.clear().await?;
        let end = loop {
            for name in self.nodes().await? {
                if seen.get(&name) != Some(&Seen::There) {
                    let now = self.look(&name, wanted).await?;
                    seen.insert(name, now);
                }
            }
            let all = seen.values().all(|seen| *seen == Seen::There);
            if all || start.elapsed() > patience {
                break seen.into_iter().map(|(name, seen)| Node { name, seen }).collect();
            }
            tokio::time::sleep(ROUND).await;
        };
        self.clear().await?;
        Ok(end)
    }

    /// What the pod of a node says; one that has pulled elsewhere is made anew.
    async fn look(&self, node: &str, wanted: &Digest) -> Result<Seen, CanaryError> {
        let name = format!("canary-{}", &Digest::sha256_of(node.as_bytes()).to_string()[7..17]);
        let Some(pod) = self.pods.get_opt(&name).await? else {
            match self.pods.create(&PostParams::default(), &self.pod(&name, node)).await {
                Ok(_) => {}
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                Err(error) => return Err(error.into()),
            }
            return Ok(Seen::Nothing("its pod was made just now".to_owned()));
        };
        if pod.metadata.deletion_timestamp.is_some() {
            return Ok(Seen::Nothing("its last pod is still going".to_owned()));
        }
        let containers = pod.status.and_then(|status| status.container_statuses).unwrap_or_default();
        let Some(container) = containers.into_iter().next() else {
            return Ok(Seen::Nothing("no kubelet has taken its pod yet".to_owned()));
        };
        let digest = container.image_id.rsplit_once('@').and_then(|(_, digest)| Digest::parse(digest).ok());
        match digest {
            Some(digest) if digest == *wanted => Ok(Seen::There),
            Some(digest) => {
                self.delete(&name).await?;
                Ok(Seen::Elsewhere(digest))
            }
            None => {
                let waiting = container.state.and_then(|state| state.waiting).unwrap_or_default();
                let said =
                    [waiting.reason, waiting.message].into_iter().flatten().collect::<Vec<_>>().join(": ");
                // What failed is tried again at once, and not when the kubelet thinks so.
                if said.starts_with("ErrImagePull") || said.starts_with("ImagePullBackOff") {
                    self.delete(&name).await?;
                }
                Ok(Seen::Nothing(said))
            }
        }
    }

    fn pod(&self, name: &str, node: &str) -> Pod {
        let pod = json!({
            "metadata": { "name": name, "labels": { LABEL: "true" } },
            "spec": {
                "nodeName": node, "hostNetwork": true, "restartPolicy": "Never",
                "terminationGracePeriodSeconds": 0, "automountServiceAccountToken": false,
                "tolerations": [{ "operator": "Exists" }],
                "securityContext": {
                    "runAsNonRoot": true, "runAsUser": 65532, "runAsGroup": 65532,
                    "seccompProfile": { "type": "RuntimeDefault" },
                },
                "containers": [{
                    "name": "canary", "image": self.image, "imagePullPolicy": "Always", "args": ["--version"],
                    "securityContext": {
                        "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
                        "capabilities": { "drop": ["ALL"] },
                    },
                }],
            },
        });
        serde_json::from_value(pod).unwrap_or_default()
    }

    async fn delete(&self, name: &str) -> Result<(), CanaryError> {
        match self.pods.delete(name, &DeleteParams::default().grace_period(0)).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes all of them away.
    async fn clear(&self) -> Result<(), CanaryError> {
        let own = ListParams::default().labels(LABEL);
        for pod in self.pods.list(&own).await?.items {
            self.delete(&pod.metadata.name.unwrap_or_default()).await?;
        }
        Ok(())
    }
}
