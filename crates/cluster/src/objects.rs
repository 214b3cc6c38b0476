//! The objects that the program reads, as they are at the moment.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;

use countersign_site::Source;
use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::DynamicObject;
use kube::runtime::reflector::{Lookup, Store, store};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::api::texts_of;
use crate::crds::Kind;

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
    /// Exceptions from them, in the order of their names.
    pub exceptions: Vec<Stored>,
    /// Texts of Secrets in the program's namespace, by name and key.
    pub secrets: Texts,
    /// Texts of ConfigMaps in the program's namespace, by name and key.
    pub config_maps: Texts,
}

impl Snapshot {
    /// What a source names; where there is no such text, words that say what there is.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn text(&self, source: &Source) -> Result<String, String> {
        match source {
            Source::Inline(text) => Ok(text.clone()),
            Source::File(path) => {
                Err(format!("`file: {path}` is for a Site in a file: use a Secret, a ConfigMap or `pem`"))
            }
            Source::Secret { name, key } => text_of("Secret", &self.secrets, name, key.as_deref()),
            Source::ConfigMap { name, key } => text_of("ConfigMap", &self.config_maps, name, key.as_deref()),
        }
    }
}

/// The text under a key; the only one there is where none is named.
fn text_of(kind: &str, objects: &Texts, name: &str, key: Option<&str>) -> Result<String, String> {
    let object =
        objects.get(name).ok_or_else(|| format!("there is no {kind} `{name}` in the program's namespace"))?;
    let all = || object.keys().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ");
    let found = match (key, object.len()) {
        (Some(key), _) => object
            .get_key_value(key)
            .ok_or_else(|| format!("{kind} `{name}` has no key `{key}`, but {}", all()))?,
        (None, 0 | 1) => {
            object.first_key_value().ok_or_else(|| format!("{kind} `{name}` has nothing in it"))?
        }
        (None, _) => return Err(format!("{kind} `{name}` has several keys: say which of {}", all())),
    };
    match found {
        (_, Some(text)) => Ok(text.clone()),
        (key, None) => Err(format!("{kind} `{name}`: what is under `{key}` is no text (UTF-8)")),
    }
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
    exceptions: Store<DynamicObject>,
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
        let mut dynamic = |kind: Kind| {
            let resource = kind.resource();
            let (api, plural) = (Api::all_with(client.clone(), &resource), resource.plural.clone());
            follow(api, resource, &plural, &changed, &mut tasks)
        };
        let sites = dynamic(Kind::Site);
        let policies = [Kind::ClusterPolicy, Kind::Policy].map(&mut dynamic);
        let exceptions = dynamic(Kind::PolicyException);
        let secrets = Api::namespaced(client.clone(), namespace);
        let secrets = follow(secrets, (), "secrets", &changed, &mut tasks);
        let config_maps = Api::namespaced(client.clone(), namespace);
        let config_maps = follow(config_maps, (), "configmaps", &changed, &mut tasks);
        Self { sites, policies, exceptions, secrets, config_maps, changes, tasks }
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
        self.exceptions.wait_until_ready().await.map_err(|_| WatchEnded)?;
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
            ("policyexceptions", self.exceptions.wait_until_ready().now_or_never().is_some()),
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
            .and_then(|object| stored(object, Kind::Site));
        let in_order = |stores: &[(&Store<DynamicObject>, Kind)]| {
            let mut found: Vec<Stored> = Vec::new();
            for (store, kind) in stores {
                found.extend(store.state().iter().filter_map(|object| stored(object, *kind)));
            }
            found.sort_by_key(|stored| {
                let id = stored.id();
                (id.namespace, id.name)
            });
            found
        };
        let [cluster, namespaced] = &self.policies;
        let policies = in_order(&[(cluster, Kind::ClusterPolicy), (namespaced, Kind::Policy)]);
        let exceptions = in_order(&[(&self.exceptions, Kind::PolicyException)]);
        let secrets = self.secrets.state().into_iter();
        let secrets = secrets.filter_map(|secret| Some((secret.metadata.name.clone()?, texts_of(&secret))));
        let config_maps = self.config_maps.state().into_iter();
        let config_maps = config_maps.filter_map(|map| Some((map.metadata.name.clone()?, texts_in(&map))));
        Snapshot {
            site,
            policies,
            exceptions,
            secrets: secrets.collect(),
            config_maps: config_maps.collect(),
        }
    }
}

/// What a ConfigMap holds, by key; `None` where it is no text.
fn texts_in(map: &ConfigMap) -> BTreeMap<String, Option<String>> {
    let texts = map.data.iter().flatten().map(|(key, text)| (key.clone(), Some(text.clone())));
    texts.chain(map.binary_data.iter().flatten().map(|(key, _)| (key.clone(), None))).collect()
}

/// The Secrets and ConfigMaps of a namespace that these sources name, and nothing else.
///
/// # Errors
///
/// The API server says no, or nothing.
pub async fn named<'a>(
    client: &Client,
    namespace: &str,
    sources: impl Iterator<Item = &'a Source>,
) -> Result<Snapshot, kube::Error> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let config_maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let mut snapshot = Snapshot::default();
    for source in sources {
        match source {
            Source::Secret { name, .. } => {
                let found = secrets.get_opt(name).await?;
                snapshot.secrets.extend(found.map(|secret| (name.clone(), texts_of(&secret))));
            }
            Source::ConfigMap { name, .. } => {
                let found = config_maps.get_opt(name).await?;
                snapshot.config_maps.extend(found.map(|map| (name.clone(), texts_in(&map))));
            }
            Source::Inline(_) | Source::File(_) => {}
        }
    }
    Ok(snapshot)
}

fn stored(object: &DynamicObject, kind: Kind) -> Option<Stored> {
    let resource = kind.resource();
    let mut document = serde_json::to_value(object).ok()?;
    document["apiVersion"] = resource.api_version.into();
    document["kind"] = resource.kind.into();
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
pub(crate) fn follow<K>(
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_names_one_text() {
        let object = |keys: &[&str]| -> BTreeMap<String, Option<String>> {
            let text = |key: &str| (key != "c").then(|| format!("text of {key}"));
            keys.iter().map(|key| ((*key).to_owned(), text(key))).collect()
        };
        let objects: Texts =
            [("one", vec!["a"]), ("two", vec!["a", "b"]), ("none", vec![]), ("odd", vec!["c"])]
                .into_iter()
                .map(|(name, keys)| (name.to_owned(), object(&keys)))
                .collect();
        for (name, key, expected) in [
            ("one", None, Ok("text of a")),
            ("one", Some("a"), Ok("text of a")),
            ("one", Some("b"), Err("has no key `b`, but `a`")),
            ("two", Some("b"), Ok("text of b")),
            ("two", None, Err("say which of `a`, `b`")),
            ("none", None, Err("has nothing in it")),
            ("odd", None, Err("what is under `c` is no text")),
            ("other", None, Err("there is no Secret `other`")),
        ] {
            match (text_of("Secret", &objects, name, key), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected),
                (Err(found), Err(expected)) => assert!(found.contains(expected), "{found}"),
                (found, expected) => panic!("{name} {key:?}: {found:?}, and not {expected:?}"),
            }
        }
    }
}
