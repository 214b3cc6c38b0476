//! What a verifier goes by, besides mirror rules.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use countersign_reference::Digest;
use countersign_registry::{Limits as RegistryLimits, Timing};
use countersign_signature::{Identity, Limits};
use futures_util::future::BoxFuture;

/// What a verifier goes by, besides mirror rules.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How long the digest of a tag is reused before the registry is asked again.
    pub tag_freshness: Duration,
    /// How old a tag record may be when no endpoint answers.
    pub stale: Duration,
    /// Whether every endpoint has to agree about a tag, as nothing will be pinned.
    pub compare_endpoints: bool,
    /// Digests that are never verified, nor an index that lists one.
    pub revoked: BTreeSet<Digest>,
    /// How names in signatures are held against the names of images; the digest alone counts where
    /// there is nothing.
    pub identity: Option<Identity>,
    /// Who reads the Secrets that pods are pulled with, where they may be used.
    pub pull_secrets: Option<Arc<dyn SecretReader>>,
    /// Raised when trust changes: what was remembered before counts no more.
    pub trust_generation: u64,
    /// How much of signatures is looked at.
    pub limits: Limits,
    /// How much of a registry's answers is taken in.
    pub registry_limits: RegistryLimits,
    /// How long requests may take.
    pub timing: Timing,
    /// How long an image may take, whoever waits for it or does not. Default 30 s.
    pub image_time: Duration,
}

impl Default for Settings {
    /// The defaults of a Site; they trust nobody, since trust is in the question.
    fn default() -> Self {
        Self {
            tag_freshness: Duration::from_secs(10),
            stale: Duration::from_hours(168),
            compare_endpoints: false,
            revoked: BTreeSet::new(),
            identity: None,
            pull_secrets: None,
            trust_generation: 0,
            limits: Limits::DEFAULT,
            registry_limits: RegistryLimits::DEFAULT,
            timing: Timing::DEFAULT,
            image_time: Duration::from_secs(30),
        }
    }
}

/// Whoever can read the Secrets that pods are pulled with.
pub trait SecretReader: Debug + Send + Sync {
    /// The Docker `config.json` in a Secret; `None` where there is none.
    fn docker_config(
        &self,
        namespace: &str,
        name: &str,
    ) -> BoxFuture<'static, Result<Option<String>, String>>;
}
