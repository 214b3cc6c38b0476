//! Whom the webhook works with, besides those who answer about images.

use std::sync::Arc;

use countersign_clock::{Clock, SystemClock};
use countersign_policy::Want;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use serde_json::Value;

use crate::observer::{Observer, Unobserved};

/// Whoever knows what is in the cluster.
pub trait Cluster: Send + Sync {
    /// A ConfigMap, the labels of a namespace or the roles of somebody; or why they are not to be had.
    /// It is not asked about images.
    fn look_up(&self, want: Want) -> BoxFuture<'static, Result<Value, String>>;
}

/// There is none: the webhook goes by files.
#[derive(Clone, Copy, Debug)]
pub struct NoCluster;

impl Cluster for NoCluster {
    fn look_up(&self, _: Want) -> BoxFuture<'static, Result<Value, String>> {
        async { Err("there is no cluster to ask".to_owned()) }.boxed()
    }
}

/// All of them.
#[derive(Clone)]
pub struct Around {
    /// Who wants to know what is decided.
    pub observer: Arc<dyn Observer>,
    /// Who knows what is in the cluster.
    pub cluster: Arc<dyn Cluster>,
    /// Who tells the time.
    pub clock: Arc<dyn Clock>,
}

impl Default for Around {
    /// Nobody wants to know, there is no cluster, and the time is the machine's.
    fn default() -> Self {
        Self {
            observer: Arc::new(Unobserved),
            cluster: Arc::new(NoCluster),
            clock: Arc::new(SystemClock::default()),
        }
    }
}
