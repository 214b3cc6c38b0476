//! Secrets that pods are pulled with, read when an endpoint lets nobody else look.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use countersign_cluster::{Client, docker_config};
use countersign_verifier::SecretReader;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::time::Instant;

/// How long what a Secret says is used before it is read again.
const HELD: Duration = Duration::from_secs(10);
/// Secrets that are held.
const MOST_HELD: usize = 1024;

type Held = HashMap<(String, String), (Instant, Option<String>)>;

/// Reads Secrets of pods' own namespaces, by name.
pub(crate) struct PodSecrets {
    client: Client,
    held: Arc<Mutex<Held>>,
}

impl PodSecrets {
    pub(crate) fn new(client: Client) -> Arc<Self> {
        Arc::new(Self { client, held: Arc::default() })
    }
}

impl fmt::Debug for PodSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PodSecrets")
    }
}

impl SecretReader for PodSecrets {
    fn docker_config(
        &self,
        namespace: &str,
        name: &str,
    ) -> BoxFuture<'static, Result<Option<String>, String>> {
        let (client, held) = (self.client.clone(), Arc::clone(&self.held));
        let key = (namespace.to_owned(), name.to_owned());
        async move {
            let lock = || held.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((_, text)) = lock().get(&key).filter(|(read, _)| read.elapsed() < HELD) {
                return Ok(text.clone());
            }
            let text = docker_config(&client, &key.0, &key.1).await.map_err(|error| error.to_string())?;
            let mut held = lock();
            if held.len() >= MOST_HELD {
                held.clear();
            }
            held.insert(key, (Instant::now(), text.clone()));
            Ok(text)
        }
        .boxed()
    }
}
