//! In whose name an endpoint is asked that lets nobody else look: the pod's.

use countersign_reference::Digest;
use countersign_registry::DockerConfig;
use countersign_verdict::{Check, Code, PullSecrets};

use crate::SecretReader;
use crate::route::Who;

/// What a pod's Secrets hold; `None` where there is nothing in them.
///
/// Whoever names the Secrets is whoever the node pulls for, and each is read in the pod's own
/// namespace: nobody comes to more than the node would be given.
pub(crate) async fn read(reader: &dyn SecretReader, secrets: &PullSecrets) -> Result<Option<Who>, Check> {
    let (mut configs, mut texts) = (Vec::new(), Vec::new());
    for name in &secrets.names {
        let failed = |why: String| {
            let secret = format!("Secret {}/{name}", secrets.namespace);
            Check::new("", secret, Code::Unauthorized, why)
        };
        // A node passes over what is not there, too.
        let Some(text) = reader.docker_config(&secrets.namespace, name).await.map_err(failed)? else {
            continue;
        };
        configs.push(DockerConfig::parse(&text).map_err(|error| failed(error.to_string()))?);
        texts.push(text);
    }
    let id = Digest::sha256_of(texts.join("\0").as_bytes());
    Ok((!configs.is_empty()).then(|| Who { id, configs: configs.into() }))
}
