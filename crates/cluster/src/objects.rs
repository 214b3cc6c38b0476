//! The objects that the program reads, as they are at the moment.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;

use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _};
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

/// Texts by name of the object and key; `None` where it is no text.
pub type Texts = BTreeMap<String, BTreeMap<String, Option<String>>>;

/// How long a watch lasts before it is begun anew, in seconds: less than a line may be silent.
const WATCH: u32 = 30;

/// What there is, at one moment. It holds secrets, and is nothing to be printed.
#[derive(Clone, Default, PartialEq)]
pub struct Snapshot {
    /// The Site; `None` where there is none.
    pub site: Option<Stored>,
    /// Policies, cluster-wide and namespaced, in the order of their names.
    pub policies: Vec<Stored>,
    /// Texts of Secrets in the program's namespace, by name and key.
    pub secrets: Texts,
    /// Texts of ConfigMaps in the program's namespace, by name and key.
    pub config_maps: Texts,
}

/// An object as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    /// As somebody would write it: what the API server keeps for itself, and the status, are left out.
    pub document: Value,
    /// Which object of this name it is: another one after it was deleted and made again.
    pub uid: String,
    /// Counted up with each change of the `spec`.
    pub generation: i64,
    /// `status.conditions`.
    pub conditions: Value,
}

impl Stored {
    /// Its kind, namespace and name; nothing for a namespace where it has none.
    pub fn id(&self) -> ObjectId {
        ObjectId::of(&self.document)
    }
}

/// Kind, namespace and name of an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjectId {
    /// Its kind.
    pub kind: String,
    /// Its namespace, or nothing.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl ObjectId {
    /// Of an object as it is written.
    pub fn of(document: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let metadata = &document["metadata"];
        Self {
            kind: text(&document["kind"]),
            namespace: text(&metadata["namespace"]),
            name: text(&metadata["name"]),
        }
    }
}

/// Watches them until it is dropped.
pub struct Objects {
    sites: Store<DynamicObject>,
    policies: [Store<DynamicObject>; 2],
    secrets: Store<Secret>,
    config_maps: Store<ConfigMap>,
    changes: watch::Receiver<u64>,
    tasks: JoinSet<()>,
}

/// Somebody who watched has ended, which nobody should.
#[derive(Debug, thiserror::Error)]
#[error("a watch of the cluster has ended")]
pub struct WatchEnded;

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
        Self { sites, policies, secrets, config_maps, changes, tasks }
    }

    /// Waits until all of them have been read once.
    ///
    /// # Errors
    ///
    /// Somebody who watched has ended before.
    pub async fn ready(&self) -> Result<(), WatchEnded> {
        self.sites.wait_until_ready().await.map_err(|_| WatchEnded)?;
        for policies in &self.policies {
            policies.wait_until_ready().await.map_err(|_| WatchEnded)?;
        }
        self.secrets.wait_until_ready().await.map_err(|_| WatchEnded)?;
        self.config_maps.wait_until_ready().await.map_err(|_| WatchEnded)
    }

    /// The kinds that have not been read yet.
    pub fn unread(&self) -> Vec<&'static str> {
        let [cluster, namespaced] = &self.policies;
        let read = [
            ("sites", self.sites.wait_until_ready().now_or_never().is_some()),
            ("clusterpolicies", cluster.wait_until_ready().now_or_never().is_some()),
            ("policies", namespaced.wait_until_ready().now_or_never().is_some()),
            ("secrets", self.secrets.wait_until_ready().now_or_never().is_some()),
            ("configmaps", self.config_maps.wait_until_ready().now_or_never().is_some()),
        ];
        read.into_iter().filter(|(_, read)| !read).map(|(kind, _)| kind).collect()
    }

    /// Waits until something has changed since the last time.
    pub async fn changed(&mut self) -> Result<(), WatchEnded> {
        tokio::select! {
            changed = self.changes.changed() => changed.map_err(|_| WatchEnded),
            _ = self.tasks.join_next() => Err(WatchEnded),
        }
    }

    /// What there is.
    pub fn snapshot(&self) -> Snapshot {
        let named = |object: &Arc<DynamicObject>| object.metadata.name.as_deref() == Some(SITE);
        let site = self
            .sites
            .state()
            .iter()
            .find(|object| named(object))
            .and_then(|object| stored(object, "countersign.dev/v1alpha1", "Site"));
        let mut policies: Vec<Stored> = Vec::new();
        for (store, kind) in self.policies.iter().zip(["ClusterPolicy", "Policy"]) {
            policies.extend(store.state().iter().filter_map(|object| stored(object, "kyverno.io/v1", kind)));
        }
        policies.sort_by_key(|policy| {
            let id = policy.id();
            (id.namespace, id.name)
        });
        let secrets = self.secrets.state().into_iter().filter_map(|secret| {
            let texts = secret.data.iter().flatten();
            let texts = texts.map(|(key, bytes)| (key.clone(), String::from_utf8(bytes.0.clone()).ok()));
            Some((secret.metadata.name.clone()?, texts.collect()))
        });
        let config_maps = self.config_maps.state().into_iter().filter_map(|map| {
            let texts = map.data.iter().flatten().map(|(key, text)| (key.clone(), Some(text.clone())));
            let others = map.binary_data.iter().flatten().map(|(key, _)| (key.clone(), None));
            Some((map.metadata.name.clone()?, texts.chain(others).collect()))
        });
        Snapshot { site, policies, secrets: secrets.collect(), config_maps: config_maps.collect() }
    }
}

fn stored(object: &DynamicObject, version: &str, kind: &str) -> Option<Stored> {
    let mut document = serde_json::to_value(object).ok()?;
    document["apiVersion"] = version.into();
    document["kind"] = kind.into();
    for field in ["managedFields", "resourceVersion", "generation", "uid", "creationTimestamp"] {
        document["metadata"].as_object_mut()?.remove(field);
    }
    document.as_object_mut()?.remove("status");
    let uid = object.metadata.uid.clone().unwrap_or_default();
    let generation = object.metadata.generation.unwrap_or_default();
    let conditions = object.data.pointer("/status/conditions").cloned().unwrap_or_default();
    Some(Stored { document, uid, generation, conditions })
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
        let events =
            watcher(api, watcher::Config::default().timeout(WATCH)).default_backoff().reflect(writer);
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
