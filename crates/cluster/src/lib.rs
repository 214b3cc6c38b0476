//! Kubernetes plumbing: what is read from and written to a cluster through its API server.
//!
//! There are the kinds of objects that the program reads ([`crds`]), those objects as they are at
//! the moment ([`Objects`]), what outlives outages ([`Evidence`]), who of several replicas leads
//! ([`Candidate`]), the serving certificate ([`Certificates`]), the webhook configurations
//! ([`Webhooks`]), and cluster DNS: the override of one name in CoreDNS's Corefile ([`Dns`]). The
//! one thing here that does not go through the API server is the question to each DNS endpoint,
//! whether it answers as it should.

mod api;
pub mod crds;
mod dns;
mod events;
pub mod evidence;
mod kinds;
mod lease;
mod lookups;
mod objects;
mod pull;
mod question;
mod serving;
pub mod status;
mod used;
mod webhooks;

pub use dns::{Dns, DnsError, Place, Waited};
pub use events::{About, Events};
pub use evidence::Evidence;
pub use kinds::{Kinds, Rules};
pub use kube::{Client, Config};
pub use lease::{Candidate, LeaseTiming};
pub use lookups::Lookups;
pub use objects::{ObjectId, Objects, Snapshot, Stored, Texts, WatchEnded, named};
pub use pull::docker_config;
pub use question::{Answer, ask};
pub use serving::{Certificates, SERVING_SECRET, Serving, ServingError};
pub use used::{InUse, in_use};
pub use webhooks::{
    CONFIGURATION, Configured, Installation, Registered, RemoveError, Removed, Target, Webhooks,
    webhooks_registered,
};

/// How long the API server may say nothing.
const READ_TIMEOUT: std::time::Duration = std::time::Duration::from_mins(1);

/// A client by a kubeconfig file and one of its contexts; where neither is given, as `kubectl`
/// finds them, and inside a cluster by its service account.
///
/// # Errors
///
/// There is no such file or context, or it cannot be used.
pub async fn client(
    kubeconfig: Option<&std::path::Path>,
    context: Option<&str>,
) -> Result<Client, ClientError> {
    let options =
        kube::config::KubeConfigOptions { context: context.map(ToOwned::to_owned), ..Default::default() };
    let mut config = match (kubeconfig, context) {
        (Some(path), _) => {
            let file = kube::config::Kubeconfig::read_from(path).map_err(error)?;
            Config::from_custom_kubeconfig(file, &options).await.map_err(error)?
        }
        (None, Some(_)) => Config::from_kubeconfig(&options).await.map_err(error)?,
        (None, None) => Config::infer().await.map_err(error)?,
    };
    // A line that is dead does not say so: watches end by themselves before that.
    config.read_timeout = Some(READ_TIMEOUT);
    config.reset_reader_on_write = true;
    // Whoever asks again knows best when.
    config.default_retry = false;
    Client::try_from(config).map_err(error)
}

/// Makes a namespace, where there is none.
///
/// # Errors
///
/// The API server says no, or nothing.
pub async fn make_namespace(client: &Client, name: &str) -> Result<(), kube::Error> {
    use k8s_openapi::api::core::v1::Namespace;
    let api: kube::Api<Namespace> = kube::Api::all(client.clone());
    let metadata = kube::api::ObjectMeta { name: Some(name.to_owned()), ..Default::default() };
    api::make_if_absent(&api, name, || Ok(Namespace { metadata, ..Namespace::default() })).await
}

/// Whether an error says that nobody answered, or somebody who could not.
pub fn is_unreachable(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => status.code >= 500 || status.code == 429,
        kube::Error::HyperError(_) | kube::Error::Service(_) => true,
        _ => false,
    }
}

/// A cluster that cannot be reached by what is given.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ClientError(String);

fn error(found: impl std::error::Error) -> ClientError {
    let mut text = found.to_string();
    let mut cause = found.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    ClientError(text)
}
