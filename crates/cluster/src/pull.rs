//! The Secrets that pods are pulled with.

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};

use crate::api::texts_of;

/// The key in such a Secret (type `kubernetes.io/dockerconfigjson`).
const KEY: &str = ".dockerconfigjson";

/// The Docker `config.json` in a Secret, which is asked for by its name; `None` where there is none.
///
/// # Errors
///
/// The API server says no, or nothing.
pub async fn docker_config(
    client: &Client,
    namespace: &str,
    name: &str,
) -> Result<Option<String>, kube::Error> {
    let secret = Api::<Secret>::namespaced(client.clone(), namespace).get_opt(name).await?;
    Ok(secret.and_then(|secret| texts_of(&secret).remove(KEY).flatten()))
}
