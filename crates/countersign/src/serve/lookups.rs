//! What policies ask about is looked up in the cluster.

use std::sync::Arc;

use countersign_admission::Cluster;
use countersign_cluster::{Client, Lookups};
use countersign_policy::Want;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use serde_json::Value;

/// The cluster that the program runs in.
pub(crate) struct InCluster(Arc<Lookups>);

impl InCluster {
    pub(crate) fn new(client: &Client) -> Self {
        Self(Arc::new(Lookups::new(client)))
    }
}

impl Cluster for InCluster {
    fn look_up(&self, want: Want) -> BoxFuture<'static, Result<Value, String>> {
        let lookups = Arc::clone(&self.0);
        async move {
            match want {
                Want::ConfigMap { namespace, name } => lookups.config_map(&namespace, &name).await,
                Want::Namespace { name } => lookups.namespace_labels(&name).await,
                Want::Roles { username, groups } => lookups.roles(&username, &groups).await,
                Want::Verdict { .. } => Err("images are asked of registries".to_owned()),
            }
        }
        .boxed()
    }
}
