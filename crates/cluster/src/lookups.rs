//! What policies ask about in a cluster: ConfigMaps, the labels of namespaces, and who is bound to
//! which roles.
//!
//! Namespaces and bindings are followed from the first question on: a review that had the API server
//! answer another request of its own would wait behind those that wait for it. ConfigMaps are asked
//! for by name, and held for a moment.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8s_openapi::api::rbac::v1::{ClusterRoleBinding, RoleBinding, RoleRef, Subject};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::objects::follow;

/// How long what a ConfigMap says is used before it is read again.
const HELD: Duration = Duration::from_secs(5);
/// Bytes of ConfigMaps that are held.
const MOST_HELD: usize = 8 << 20;

/// Answers them. Errors are words for whoever made the request.
pub struct Lookups {
    client: Client,
    namespaces: OnceLock<Followed<Namespace>>,
    bindings: OnceLock<(Followed<RoleBinding>, Followed<ClusterRoleBinding>)>,
    held: Mutex<Held>,
}

/// ConfigMaps by namespace and name, each with its size and when it was read.
#[derive(Default)]
struct Held {
    maps: HashMap<(String, String), (Instant, usize, Value)>,
    bytes: usize,
}

impl Held {
    fn get(&self, key: &(String, String)) -> Option<Value> {
        let (read, _, value) = self.maps.get(key)?;
        (read.elapsed() < HELD).then(|| value.clone())
    }

    /// Holds one more, where there is room: what is over goes first.
    fn hold(&mut self, key: (String, String), value: Value) {
        self.maps.retain(|_, (read, _, _)| read.elapsed() < HELD);
        self.bytes = self.maps.values().map(|(_, bytes, _)| bytes).sum();
        let bytes = value.to_string().len();
        if self.bytes + bytes <= MOST_HELD {
            self.bytes += bytes;
            self.maps.insert(key, (Instant::now(), bytes, value));
        }
    }
}

/// A kind that is followed for as long as this lives.
struct Followed<K: 'static + kube::runtime::reflector::Lookup>
where
    K::DynamicType: std::hash::Hash + Eq,
{
    store: Store<K>,
    tasks: JoinSet<()>,
}

impl Lookups {
    /// Nothing is read before somebody asks.
    pub fn new(client: &Client) -> Self {
        Self {
            client: client.clone(),
            namespaces: OnceLock::new(),
            bindings: OnceLock::new(),
            held: Mutex::default(),
        }
    }

    /// A ConfigMap: its `data` and `metadata`.
    ///
    /// # Errors
    ///
    /// There is none, or the API server says no, or nothing.
    pub async fn config_map(&self, namespace: &str, name: &str) -> Result<Value, String> {
        let key = (namespace.to_owned(), name.to_owned());
        let lock = || self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = lock().get(&key) {
            return Ok(found);
        }
        let what = format!("ConfigMap `{namespace}/{name}`");
        let found = Api::<ConfigMap>::namespaced(self.client.clone(), namespace).get_opt(name).await;
        let found = found.map_err(|error| format!("{what}: {error}"))?;
        let mut found = found.ok_or_else(|| format!("there is no {what}"))?;
        found.metadata.managed_fields = None;
        let value = json!({ "data": found.data.unwrap_or_default(), "metadata": found.metadata });
        lock().hold(key, value.clone());
        Ok(value)
    }

    /// The labels of a namespace.
    ///
    /// # Errors
    ///
    /// There is none, or the API server says no, or nothing.
    pub async fn namespace_labels(&self, name: &str) -> Result<Value, String> {
        let followed = self.namespaces.get_or_init(|| {
            let mut tasks = JoinSet::new();
            let store = follow(Api::all(self.client.clone()), (), "namespaces", &nobody(), &mut tasks);
            Followed { store, tasks }
        });
        let labels = |namespace: &Namespace| json!(namespace.metadata.labels.clone().unwrap_or_default());
        // One that is as new as the request may not have been heard of.
        if followed.is_read()
            && let Some(found) = followed.store.get(&ObjectRef::new(name))
        {
            return Ok(labels(&found));
        }
        let found = Api::<Namespace>::all(self.client.clone()).get_opt(name).await;
        let found = found.map_err(|error| format!("namespace `{name}`: {error}"))?;
        found.map(|found| labels(&found)).ok_or_else(|| format!("there is no namespace `{name}`"))
    }

    /// The roles that somebody is bound to: `roles`, each as `NAMESPACE:NAME`, and `clusterRoles`.
    ///
    /// # Errors
    ///
    /// The API server says no, or nothing.
    pub async fn roles(&self, username: &str, groups: &[String]) -> Result<Value, String> {
        let (namespaced, cluster) = self.bindings.get_or_init(|| {
            let mut tasks = [JoinSet::new(), JoinSet::new()];
            let [own, all] = &mut tasks;
            let namespaced = follow(Api::all(self.client.clone()), (), "rolebindings", &nobody(), own);
            let cluster = follow(Api::all(self.client.clone()), (), "clusterrolebindings", &nobody(), all);
            let [own, all] = tasks;
            (Followed { store: namespaced, tasks: own }, Followed { store: cluster, tasks: all })
        });
        let ended = "bindings of roles are followed no more";
        namespaced.store.wait_until_ready().await.map_err(|_| ended)?;
        cluster.store.wait_until_ready().await.map_err(|_| ended)?;
        if namespaced.has_ended() || cluster.has_ended() {
            return Err(ended.to_owned());
        }
        let mut found = Bound::default();
        for binding in namespaced.store.state() {
            let namespace = binding.metadata.namespace.as_deref().unwrap_or_default();
            found.add(&binding.role_ref, binding.subjects.as_deref(), namespace, username, groups);
        }
        for binding in cluster.store.state() {
            found.add(&binding.role_ref, binding.subjects.as_deref(), "", username, groups);
        }
        Ok(json!({ "roles": found.roles, "clusterRoles": found.cluster_roles }))
    }
}

impl<K: 'static + kube::runtime::reflector::Lookup + Clone> Followed<K>
where
    K::DynamicType: std::hash::Hash + Eq + Clone,
{
    fn is_read(&self) -> bool {
        !self.has_ended() && self.store.wait_until_ready().now_or_never().is_some_and(|ready| ready.is_ok())
    }

    fn has_ended(&self) -> bool {
        self.tasks.is_empty()
    }
}

#[derive(Default)]
struct Bound {
    roles: Vec<String>,
    cluster_roles: Vec<String>,
}

impl Bound {
    /// Notes the role of a binding, if it speaks of this user.
    fn add(
        &mut self,
        role: &RoleRef,
        subjects: Option<&[Subject]>,
        namespace: &str,
        username: &str,
        groups: &[String],
    ) {
        let speaks = subjects.into_iter().flatten().any(|subject| match subject.kind.as_str() {
            "ServiceAccount" => {
                let own = subject.namespace.as_deref().unwrap_or(namespace);
                username == format!("system:serviceaccount:{own}:{}", subject.name)
            }
            "User" => subject.name == username,
            "Group" => groups.contains(&subject.name),
            _ => false,
        });
        if !speaks {
            return;
        }
        let (list, name) = if role.kind == "Role" {
            (&mut self.roles, format!("{namespace}:{}", role.name))
        } else {
            (&mut self.cluster_roles, role.name.clone())
        };
        if !list.contains(&name) {
            list.push(name);
        }
    }
}

/// Nobody waits for a change.
fn nobody() -> Arc<watch::Sender<u64>> {
    Arc::new(watch::channel(0).0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn config_maps_are_held_for_a_moment_and_within_a_bound() {
        let key = |number: usize| ("apps".to_owned(), format!("map-{number}"));
        let mut held = Held::default();
        let large = json!({ "data": { "x": "x".repeat(1 << 20) } });
        for number in 0..20 {
            held.hold(key(number), large.clone());
        }
        let known = |held: &Held| (0..20).filter(|number| held.get(&key(*number)).is_some()).count();
        assert_eq!(known(&held), 7);
        tokio::time::advance(HELD).await;
        assert_eq!(known(&held), 0);
        held.hold(key(0), large);
        assert_eq!((known(&held), held.maps.len()), (1, 1));
    }

    #[test]
    fn a_user_has_the_roles_of_bindings_that_speak_of_him() {
        let subject = |kind: &str, name: &str, namespace: Option<&str>| Subject {
            kind: kind.to_owned(),
            name: name.to_owned(),
            namespace: namespace.map(str::to_owned),
            ..Subject::default()
        };
        let role = |kind: &str, name: &str| RoleRef {
            kind: kind.to_owned(),
            name: name.to_owned(),
            ..RoleRef::default()
        };
        let bound = |username: &str, groups: &[&str]| {
            let groups: Vec<String> = groups.iter().map(|group| (*group).to_owned()).collect();
            let mut found = Bound::default();
            for (role, subject, namespace) in [
                (role("Role", "edit"), subject("User", "jane", None), "apps"),
                (role("ClusterRole", "view"), subject("Group", "dev", None), "apps"),
                (role("ClusterRole", "view"), subject("Group", "dev", None), ""),
                (role("Role", "own"), subject("ServiceAccount", "bot", None), "apps"),
                (role("ClusterRole", "admin"), subject("ServiceAccount", "bot", Some("ops")), ""),
            ] {
                found.add(&role, Some(&[subject]), namespace, username, &groups);
            }
            (found.roles.join(" "), found.cluster_roles.join(" "))
        };
        let found = |roles: &str, cluster: &str| (roles.to_owned(), cluster.to_owned());
        assert_eq!(bound("jane", &["dev"]), found("apps:edit", "view"));
        assert_eq!(bound("joe", &[]), found("", ""));
        assert_eq!(bound("system:serviceaccount:apps:bot", &[]), found("apps:own", ""));
        assert_eq!(bound("system:serviceaccount:ops:bot", &[]), found("", "admin"));
    }
}
