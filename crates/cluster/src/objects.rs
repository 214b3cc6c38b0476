//! The objects that the program reads, as they are at the moment.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;

use futures_util::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{ApiResource, DynamicObject, GroupVersionKind};
use kube::runtime::reflector::{Lookup, Store, store};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// The name of the Site that counts.
const SITE: &str = "default";

/// What there is, at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// The Site, as it is stored; `None` where there is none.
    pub site: Option<Value>,
    /// Policies, cluster-wide and namespaced, in the order of their names.
    pub policies: Vec<Value>,
    /// Texts of Secrets in the program's namespace, by name and key.
    pub secrets: BTreeMap<String, BTreeMap<String, String>>,
    /// Texts of ConfigMaps in the program's namespace, by name and key.
    pub config_maps: BTreeMap<String, BTreeMap<String, String>>,
}

/// Watches them until it is dropped.
pub struct Objects {
    sites: Store<DynamicObject>,
    policies: [Store<DynamicObject>; 2],
    secrets: Store<Secret>,
    config_maps: Store<ConfigMap>,
    changes: watch::Receiver<u64>,
    _tasks: JoinSet<()>,
}

impl Objects {
    /// Begins to watch; `namespace` is where Secrets and ConfigMaps are read.
    pub fn watch(client: &Client, namespace: &str) -> Self {
        let (changed, changes) = watch::channel(0);
        let changed = Arc::new(changed);
        let mut tasks = JoinSet::new();
        let mut dynamic = |group: &str, version: &str, kind: &str, plural: &str| {
            let kind =
                ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural);
            let api = Api::all_with(client.clone(), &kind);
            follow(api, kind, plural, &changed, &mut tasks)
        };
        let sites = dynamic("countersign.dev", "v1alpha1", "Site", "sites");
        let policies = [
            dynamic("kyverno.io", "v1", "ClusterPolicy", "clusterpolicies"),
            dynamic("kyverno.io", "v1", "Policy", "policies"),
        ];
        let secrets = Api::namespaced(client.clone(), namespace);
        let secrets = follow(secrets, (), "secrets", &changed, &mut tasks);
        let config_maps = Api::namespaced(client.clone(), namespace);
        let config_maps = follow(config_maps, (), "configmaps", &changed, &mut tasks);
        Self { sites, policies, secrets, config_maps, changes, _tasks: tasks }
    }

    /// Waits until all of them have been read once.
    pub async fn ready(&self) {
        // None of the tasks ends before this is dropped.
        _ = self.sites.wait_until_ready().await;
        for policies in &self.policies {
            _ = policies.wait_until_ready().await;
        }
        _ = self.secrets.wait_until_ready().await;
        _ = self.config_maps.wait_until_ready().await;
    }

    /// Waits until something has changed since the last time.
    pub async fn changed(&mut self) {
        _ = self.changes.changed().await;
    }

    /// What there is.
    pub fn snapshot(&self) -> Snapshot {
        let named = |object: &Arc<DynamicObject>| object.metadata.name.as_deref() == Some(SITE);
        let site = self
            .sites
            .state()
            .iter()
            .find(|object| named(object))
            .and_then(|object| document(object, "countersign.dev/v1alpha1", "Site"));
        let mut policies: Vec<Value> = Vec::new();
        for (store, kind) in self.policies.iter().zip(["ClusterPolicy", "Policy"]) {
            policies
                .extend(store.state().iter().filter_map(|object| document(object, "kyverno.io/v1", kind)));
        }
        let name = |policy: &Value| {
            let of = |field: &str| policy["metadata"][field].as_str().unwrap_or_default().to_owned();
            (of("namespace"), of("name"))
        };
        policies.sort_by_key(name);
        let secrets = self.secrets.state().into_iter().filter_map(|secret| {
            let texts = secret.data.iter().flatten();
            let texts = texts
                .filter_map(|(key, bytes)| Some((key.clone(), String::from_utf8(bytes.0.clone()).ok()?)));
            Some((secret.metadata.name.clone()?, texts.collect()))
        });
        let config_maps = self
            .config_maps
            .state()
            .into_iter()
            .filter_map(|map| Some((map.metadata.name.clone()?, map.data.clone().unwrap_or_default())));
        Snapshot { site, policies, secrets: secrets.collect(), config_maps: config_maps.collect() }
    }
}

/// An object as somebody would write it: what the API server keeps for itself is left out.
fn document(object: &DynamicObject, version: &str, kind: &str) -> Option<Value> {
    let mut document = serde_json::to_value(object).ok()?;
    document["apiVersion"] = version.into();
    document["kind"] = kind.into();
    for field in ["managedFields", "resourceVersion", "generation", "uid", "creationTimestamp"] {
        document["metadata"].as_object_mut()?.remove(field);
    }
    document.as_object_mut()?.remove("status");
    Some(document)
}

/// Keeps a copy of one kind, for as long as the tasks live.
fn follow<K>(
    api: Api<K>,
    kind: <K as Resource>::DynamicType,
    what: &str,
    changed: &Arc<watch::Sender<u64>>,
    tasks: &mut JoinSet<()>,
) -> Store<K>
where
    K: Resource
        + Lookup<DynamicType = <K as Resource>::DynamicType>
        + Clone
        + Debug
        + DeserializeOwned
        + Send
        + Sync
        + 'static,
    <K as Resource>::DynamicType: Clone + Debug + Eq + Hash + Unpin + Send + Sync + 'static,
{
    let writer = store::Writer::<K>::new(kind);
    let reader = writer.as_reader();
    let (changed, what) = (Arc::clone(changed), what.to_owned());
    tasks.spawn(async move {
        let events = watcher(api, watcher::Config::default()).default_backoff().reflect(writer);
        let mut events = std::pin::pin!(events.map_err(|error| error.to_string()));
        while let Some(event) = events.next().await {
            match event {
                Ok(_) => changed.send_modify(|count| *count += 1),
                // It is tried again, ever more seldom; what was read stays.
                Err(error) => tracing::warn!(kind = what, %error, "cannot be watched"),
            }
        }
    });
    reader
}
