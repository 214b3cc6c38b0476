//! A webhook that goes by what a cluster says at the moment.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use anyhow::{Context as _, Result};
use countersign_admission::{Limits, Service};
use countersign_clock::{Clock as _, SystemClock};
use countersign_cluster::{Dns, Objects, Snapshot, Texts, WatchEnded};
use countersign_evidence::Store;
use countersign_https::{Body, full};
use countersign_policy::{Engine, Policy};
use countersign_signature::Trust;
use countersign_site::{Site, Source};
use countersign_verdict::Attestors;
use countersign_verifier::{Rules, SourceLoader, Verifier};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Request, Response, StatusCode};
use serde_json::Value;
use tokio::sync::watch;

use crate::{policies, site};

/// Changes that come together are taken up together.
const SETTLE: Duration = Duration::from_millis(100);

/// How long the cluster may be unread before it is said what is missing.
const UNREAD: Duration = Duration::from_secs(5);

type Webhook = Service<Arc<Verifier>>;

/// The webhook of this moment.
pub(crate) struct Live(RwLock<State>);

#[derive(Clone)]
enum State {
    Serving(Arc<Webhook>),
    /// Not yet: why.
    Waiting(String),
}

impl Live {
    pub(crate) fn new() -> Self {
        Self(RwLock::new(State::Waiting("the cluster has not been read yet".to_owned())))
    }

    /// Answers as the webhook of this moment does.
    pub(crate) async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        let now = self.0.read().unwrap_or_else(PoisonError::into_inner).clone();
        match now {
            State::Serving(service) => service.answer(request).await,
            State::Waiting(_) if request.uri().path() == "/livez" => plain(StatusCode::OK, "ok\n".to_owned()),
            // A webhook failure: each configuration says what follows from it.
            State::Waiting(why) => plain(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n")),
        }
    }

    fn set(&self, state: State) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = state;
    }
}

fn plain(status: StatusCode, text: String) -> Response<Body> {
    let mut response = Response::new(full(text));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}

/// Follows a cluster; it ends only with an error.
pub(crate) async fn follow(mut objects: Objects, store: Arc<dyn Store>, live: Arc<Live>) -> WatchEnded {
    loop {
        match tokio::time::timeout(UNREAD, objects.ready()).await {
            Ok(Ok(())) => break,
            Ok(Err(ended)) => return ended,
            Err(_) => {}
        }
        let kinds = objects.unread().join(", ");
        let why =
            format!("not read yet: {kinds} (`countersign crds apply` brings them; or there is no right to)");
        tracing::warn!("{why}");
        live.set(State::Waiting(why));
    }
    let mut maker = Maker::new(store, countersign_policy::load);
    loop {
        let snapshot = objects.snapshot();
        // Whatever an object makes of it, those that were good stay in force.
        match std::panic::catch_unwind(AssertUnwindSafe(|| maker.make(&snapshot))) {
            Ok(Made::Service(service)) => live.set(State::Serving(service)),
            Ok(Made::Nothing(why)) => live.set(State::Waiting(why)),
            Ok(Made::Same) => {}
            Err(_) => {
                tracing::error!("an object of the cluster cannot be taken up: what was good stays in force");
            }
        }
        if let Err(ended) = objects.changed().await {
            return ended;
        }
        tokio::time::sleep(SETTLE).await;
    }
}

/// How often the leader looks whether an override has ended.
const EXPIRY: Duration = Duration::from_secs(10);

/// What one of all replicas does, for as long as it is polled.
pub(crate) async fn lead(dns: Dns, mut leading: watch::Receiver<bool>) {
    let clock = SystemClock::default();
    let mut said = String::new();
    while leading.wait_for(|leading| *leading).await.is_ok() {
        let error = match dns.expire(clock.wall()).await {
            Ok(names) => {
                for name in names {
                    tracing::info!(
                        name,
                        "the override of the name in the cluster's DNS has ended, and is taken out"
                    );
                }
                String::new()
            }
            Err(error) => error.to_string(),
        };
        // Not every ten seconds.
        if error != said && !error.is_empty() {
            tracing::warn!(error, "it cannot be seen whether an override in the cluster's DNS has ended");
        }
        said = error;
        tokio::time::sleep(EXPIRY).await;
    }
}

/// What came of a snapshot.
enum Made {
    Service(Arc<Webhook>),
    /// There is no good Site yet: why.
    Nothing(String),
    /// Nothing that counts has changed.
    Same,
}

/// Compiles a policy with the Site's keys; `None` for a document of another kind.
type Reader = fn(&Value, &BTreeMap<String, String>) -> Option<Policy>;

/// Makes webhooks, each from what is good of the present and, where it is not, of the past.
struct Maker {
    reader: Reader,
    store: Arc<dyn Store>,
    /// The last good Site.
    site: Option<Good>,
    /// The last version of each policy that was good as a whole, as it was written: it is read with
    /// the keys of the present.
    policies: BTreeMap<String, Value>,
    /// The policies of last time; `None` where that did not come to its end.
    documents: Option<Vec<Value>>,
}

/// A Site with all that it names, and who verifies by it.
#[derive(Clone)]
struct Good {
    document: Value,
    texts: BTreeMap<Source, String>,
    site: Arc<Site>,
    keys: BTreeMap<String, String>,
    verifier: Arc<Verifier>,
}

impl Maker {
    fn new(store: Arc<dyn Store>, reader: Reader) -> Self {
        Self { reader, store, site: None, policies: BTreeMap::new(), documents: None }
    }

    fn make(&mut self, snapshot: &Snapshot) -> Made {
        let mut why = String::new();
        // Put back only where all of it was taken up.
        let before = self.documents.take();
        let changed = match self.good(snapshot) {
            Ok(None) => false,
            Ok(Some(good)) => {
                self.site = Some(good);
                true
            }
            Err(error) => {
                why = format!("{error:#}");
                let stays = if self.site.is_some() {
                    "the last one that was stays in force"
                } else {
                    "there is none yet"
                };
                tracing::error!(error = why, "the Site is not good: {stays}");
                false
            }
        };
        let Some(Good { site, keys, verifier, .. }) = self.site.clone() else { return Made::Nothing(why) };
        if !changed && before.as_ref() == Some(&snapshot.policies) {
            self.documents = before;
            return Made::Same;
        }
        let policies = self.policies(&snapshot.policies, &keys);
        tracing::info!(policies = policies.len(), mode = ?site.mode, "policies and Site are in force");
        let service = Service::new(Engine::new(policies, site), verifier, Limits::DEFAULT);
        self.documents = Some(snapshot.policies.clone());
        Made::Service(service)
    }

    /// The Site of this moment, if it and all that it names is good; `None` if it is the last one.
    fn good(&self, snapshot: &Snapshot) -> Result<Option<Good>> {
        let document = snapshot.site.as_ref().context("there is no Site `default`")?;
        let site = Arc::new(Site::parse(&document.to_string()).context("Site `default`")?);
        // Nothing but what it names counts, and nothing else is kept.
        let named = site.registry.endpoints.iter().filter_map(|endpoint| endpoint.ca.as_ref());
        let mut texts = BTreeMap::new();
        for source in named.chain(site.trust.keys.values()) {
            texts.insert(source.clone(), load(snapshot, source).map_err(anyhow::Error::msg)?);
        }
        if self.site.as_ref().is_some_and(|good| good.document == *document && good.texts == texts) {
            return Ok(None);
        }
        for warning in &site.warnings.0 {
            tracing::warn!(path = warning.path, "Site: {}", warning.message);
        }
        let known = texts.clone();
        let load: Arc<SourceLoader> = Arc::new(move |source: &Source| {
            known.get(source).cloned().ok_or_else(|| "it is not named by the Site".to_owned())
        });
        let keys = policies::site_keys(&site, &*load)?;
        for (name, pem) in &keys {
            Trust::new(&Attestors::any_of_keys(pem)).with_context(|| format!("spec.trust.keys.{name}"))?;
        }
        let (rules, clock) = (Rules::Site(Arc::clone(&site)), Arc::new(SystemClock::default()));
        let verifier = Verifier::new(rules, site::settings(&site), load, Arc::clone(&self.store), clock);
        verifier.prepare(&site.registry.name).context("the Site's endpoints")?;
        Ok(Some(Good { document: document.clone(), texts, site, keys, verifier }))
    }

    /// Every policy; of one that is not good as a whole the last version that was, read with the keys
    /// of the present: a key that is gone is gone.
    fn policies(&mut self, documents: &[Value], keys: &BTreeMap<String, String>) -> Vec<Policy> {
        let mut found = Vec::new();
        for document in documents {
            let policy = match self.read(document, keys) {
                Ok(Some(policy)) => policy,
                Ok(None) => continue,
                Err(Broken) => {
                    let name = document["metadata"]["name"].as_str().unwrap_or_default();
                    let last = self.policies.values().find(|good| is_of_same(good, document));
                    let last = last.and_then(|good| self.read(good, keys).ok().flatten());
                    let stays = if last.is_some() {
                        "the last version that was good stays in force"
                    } else {
                        "it is left out: change it, and report it"
                    };
                    tracing::error!(policy = name, "the reader of policies breaks on it: {stays}");
                    found.extend(last);
                    continue;
                }
            };
            for warning in &policy.warnings {
                tracing::warn!(policy = policy.name, "{warning}");
            }
            for refusal in &policy.refusals {
                tracing::error!(policy = policy.name, "refused: {refusal}");
            }
            if policy.refusals.is_empty() {
                self.policies.insert(policy.name.clone(), document.clone());
                found.push(policy);
                continue;
            }
            let before =
                self.policies.get(&policy.name).and_then(|good| self.read(good, keys).ok().flatten());
            found.push(match before {
                // Where a key of it is gone by now, it denies what it selects.
                Some(before) => {
                    tracing::error!(policy = policy.name, "the last version that was good stays in force");
                    before
                }
                None => policy,
            });
        }
        let names: BTreeSet<&String> = found.iter().map(|policy| &policy.name).collect();
        self.policies.retain(|name, _| names.contains(name));
        found
    }

    /// Reads a policy; the others go on where the reader breaks on one.
    fn read(&self, document: &Value, keys: &BTreeMap<String, String>) -> Result<Option<Policy>, Broken> {
        let reader = self.reader;
        std::panic::catch_unwind(|| reader(document, keys)).map_err(|_| Broken)
    }
}

/// The reader came to no end.
struct Broken;

/// Whether two documents are versions of one object.
fn is_of_same(one: &Value, other: &Value) -> bool {
    one["kind"] == other["kind"]
        && ["name", "namespace"].iter().all(|key| one["metadata"][key] == other["metadata"][key])
}

/// Reads what a source names, of this moment.
fn load(snapshot: &Snapshot, source: &Source) -> Result<String, String> {
    match source {
        Source::Inline(text) => Ok(text.clone()),
        Source::File(path) => {
            Err(format!("`file: {path}` is for a Site in a file: use a Secret, a ConfigMap or `pem`"))
        }
        Source::Secret { name, key } => text_of("Secret", &snapshot.secrets, name, key.as_deref()),
        Source::ConfigMap { name, key } => text_of("ConfigMap", &snapshot.config_maps, name, key.as_deref()),
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

#[cfg(test)]
mod tests {
    use super::*;
    use countersign_evidence::Memory;
    use serde_json::json;

    #[test]
    fn a_policy_that_the_reader_breaks_on_leaves_its_last_good_version_in_force() {
        let reader: Reader = |document, keys| {
            assert!(document["spec"]["odd"].is_null(), "the reader breaks");
            countersign_policy::load(document, keys)
        };
        let document = |name: &str| {
            json!({
                "apiVersion": "kyverno.io/v1",
                "kind": "ClusterPolicy",
                "metadata": { "name": name },
                "spec": { "rules": [] },
            })
        };
        let broken = |name: &str| {
            let mut document = document(name);
            document["spec"]["odd"] = json!(true);
            document
        };
        let mut maker = Maker::new(Arc::new(Memory::default()), reader);
        let mut names = |documents: &[Value]| -> Vec<String> {
            let found = maker.policies(documents, &BTreeMap::new());
            found.into_iter().map(|policy| policy.name).collect()
        };
        assert_eq!(names(&[document("a"), document("b")]), ["a", "b"]);
        for _ in 0..2 {
            assert_eq!(names(&[broken("a"), document("b")]), ["a", "b"]);
        }
        // Another object has no part in it, and what is gone is gone.
        assert_eq!(names(&[broken("c"), document("b")]), ["b"]);
        assert_eq!(names(&[broken("a"), document("b")]), ["b"]);
    }

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
