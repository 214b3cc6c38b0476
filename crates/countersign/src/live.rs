//! A webhook that goes by what a cluster says at the moment.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use anyhow::{Context as _, Result};
use countersign_admission::{Limits, Observer, Service};
use countersign_clock::SystemClock;
use countersign_cluster::{
    Evidence, ObjectId, Objects, SERVING_SECRET, Serving, Snapshot, Stored, Texts, WatchEnded,
};
use countersign_evidence::Store;
use countersign_https::{Body, CurrentIdentity, full};
use countersign_policy::{Engine, Policy};
use countersign_signature::Trust;
use countersign_site::{Site, Source};
use countersign_verdict::Attestors;
use countersign_verifier::{Rules, SourceLoader, Verifier};
use hyper::body::Incoming;
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderValue};
use hyper::{Request, Response, StatusCode};
use prometheus_client::registry::Registry;
use serde_json::Value;
use tokio::sync::watch;

use crate::kept::{self, Kept};
use crate::{policies, replica, site};

/// Changes that come together are taken up together.
const SETTLE: Duration = Duration::from_millis(100);

/// How long the cluster may be unread before it is said what is missing.
const UNREAD: Duration = Duration::from_secs(5);

type Webhook = Service<Arc<Verifier>>;

/// The webhook of this moment.
pub(crate) struct Live {
    state: RwLock<State>,
    /// What new connections are served with.
    pub(crate) identity: Arc<CurrentIdentity>,
    /// Whether that is a leaf of the installation's own authority.
    certified: AtomicBool,
    /// What was taken up at last.
    pub(crate) taken: watch::Sender<Arc<Taken>>,
    observer: Arc<dyn Observer>,
    metrics: OnceLock<Registry>,
    /// Whether it was asked to end.
    ending: AtomicBool,
}

#[derive(Clone)]
enum State {
    Serving(Arc<Webhook>),
    /// Not yet: why.
    Waiting(String),
}

impl Live {
    /// Begins with an identity that nobody has to trust: probes do not look.
    pub(crate) fn new(identity: Arc<CurrentIdentity>, observer: Arc<dyn Observer>) -> Self {
        Self {
            state: RwLock::new(State::Waiting("the cluster has not been read yet".to_owned())),
            identity,
            certified: AtomicBool::new(false),
            taken: watch::Sender::default(),
            observer,
            metrics: OnceLock::new(),
            ending: AtomicBool::new(false),
        }
    }

    /// Shows these metrics from now on.
    pub(crate) fn show(&self, registry: Registry) {
        _ = self.metrics.set(registry);
    }

    /// It is not ready any more, and serves what comes.
    pub(crate) fn end(&self) {
        self.ending.store(true, Ordering::Relaxed);
    }

    /// It is not ready yet, where it was not before: why.
    pub(crate) fn wait_for(&self, why: &str) {
        self.set(State::Waiting(why.to_owned()));
    }

    /// Answers as the webhook of this moment does.
    pub(crate) async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        let ending = self.ending.load(Ordering::Relaxed);
        let mut response = self.answer_now(request, ending).await;
        if ending {
            // So that the next request goes to somebody else.
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    async fn answer_now(&self, request: Request<Incoming>, ending: bool) -> Response<Body> {
        match (self.webhook(), request.uri().path()) {
            (_, "/livez") => plain(StatusCode::OK, "ok\n".to_owned()),
            (_, "/metrics") => match self.metrics.get() {
                Some(registry) => replica::shown(registry),
                None => plain(StatusCode::SERVICE_UNAVAILABLE, "not yet\n".to_owned()),
            },
            (_, "/readyz") if ending => {
                plain(StatusCode::SERVICE_UNAVAILABLE, "it was asked to end\n".to_owned())
            }
            (Ok(_), "/readyz") if !self.certified.load(Ordering::Relaxed) => {
                let why = format!("not ready: Secret `{SERVING_SECRET}` has not been read yet\n");
                plain(StatusCode::SERVICE_UNAVAILABLE, why)
            }
            (Ok(service), _) => service.answer(request).await,
            // A webhook failure: each configuration says what follows from it.
            (Err(why), _) => plain(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n")),
        }
    }

    /// The webhook in force, or why there is none.
    pub(crate) fn webhook(&self) -> Result<Arc<Webhook>, String> {
        match &*self.state.read().unwrap_or_else(PoisonError::into_inner) {
            State::Serving(service) => Ok(Arc::clone(service)),
            State::Waiting(why) => Err(why.clone()),
        }
    }

    fn set(&self, state: State) {
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = state;
    }

    /// Serves with what the Secret holds; what cannot be used changes nothing.
    fn serve_with(&self, snapshot: &Snapshot, before: &mut Option<Serving>) {
        let Some(serving) = snapshot.secrets.get(SERVING_SECRET).and_then(Serving::read) else { return };
        if before.as_ref() == Some(&serving) {
            return;
        }
        match self.identity.replace(&serving.identity()) {
            Ok(()) => self.certified.store(true, Ordering::Relaxed),
            Err(error) => tracing::error!(%error, "Secret `{SERVING_SECRET}` cannot be served with"),
        }
        *before = Some(serving);
    }
}

fn plain(status: StatusCode, text: String) -> Response<Body> {
    let mut response = Response::new(full(text));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}

/// What was taken up of the cluster at last.
#[derive(Clone, Debug, Default)]
pub(crate) struct Taken {
    /// The Site in force.
    pub(crate) site: Option<Arc<Site>>,
    /// What was found about each object of this moment.
    pub(crate) found: Vec<Found>,
    /// The last good versions, by the name of the Secret that they are kept in.
    pub(crate) good: BTreeMap<String, String>,
    /// What is kept there now.
    pub(crate) kept: BTreeMap<String, String>,
}

/// What was found about an object.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Found {
    pub(crate) id: ObjectId,
    pub(crate) generation: i64,
    /// As they stand in its status.
    pub(crate) conditions: Value,
    /// Whether it is in force as it is written; else what is wrong with it.
    pub(crate) ready: Result<(), String>,
    /// Whether an earlier version is in force in its place.
    pub(crate) replaced: bool,
}

/// Follows a cluster; it ends only with an error.
pub(crate) async fn follow(
    mut objects: Objects,
    evidence: Arc<Evidence>,
    mut read: watch::Receiver<bool>,
    live: Arc<Live>,
) -> WatchEnded {
    loop {
        let all = async {
            objects.ready().await?;
            read.wait_for(|read| *read).await.map(|_| ()).map_err(|_| WatchEnded)
        };
        match tokio::time::timeout(UNREAD, all).await {
            Ok(Ok(())) => break,
            Ok(Err(ended)) => return ended,
            Err(_) => {}
        }
        let mut kinds = objects.unread();
        if !*read.borrow() {
            kinds.push("imageevidences");
        }
        let kinds = kinds.join(", ");
        let why =
            format!("not read yet: {kinds} (`countersign crds apply` brings them; or there is no right to)");
        tracing::warn!("{why}");
        live.set(State::Waiting(why));
    }
    let store = Arc::clone(&evidence) as Arc<dyn Store>;
    let mut maker = Maker::new(store, countersign_policy::load, Arc::clone(&live.observer));
    let mut serving = None;
    loop {
        let snapshot = objects.snapshot();
        live.serve_with(&snapshot, &mut serving);
        // Whatever an object makes of it, those that were good stay in force.
        match std::panic::catch_unwind(AssertUnwindSafe(|| maker.make(&snapshot))) {
            Ok(made) => {
                match made {
                    Made::Service(service) => live.set(State::Serving(service)),
                    Made::Nothing(why) => live.set(State::Waiting(why)),
                    Made::Same => {}
                }
                let taken = maker.taken(&snapshot);
                if let Some(site) = &taken.site {
                    evidence.refresh_after(refresh(site.stale));
                }
                live.taken.send_replace(Arc::new(taken));
            }
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

/// How old a tag record may be before it is confirmed again: several times within what counts as
/// an outage, and not with every pod.
pub(crate) fn refresh(stale: Duration) -> Duration {
    (stale / 8).clamp(Duration::from_mins(1), Duration::from_hours(12))
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
    observer: Arc<dyn Observer>,
    /// The last good Site.
    site: Option<Good>,
    /// What is wrong with the one of this moment.
    site_is: Result<(), String>,
    /// The last version of each policy that was good as a whole, as it was written: it is read with
    /// the keys of the present.
    policies: BTreeMap<ObjectId, Value>,
    /// What was found about the policies of this moment.
    policies_are: BTreeMap<ObjectId, (Result<(), String>, bool)>,
    /// The policies of last time; `None` where that did not come to its end.
    documents: Option<Vec<Value>>,
    /// Whether what the cluster keeps of the past was looked at.
    remembered: bool,
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
    fn new(store: Arc<dyn Store>, reader: Reader, observer: Arc<dyn Observer>) -> Self {
        Self {
            reader,
            store,
            observer,
            site: None,
            site_is: Ok(()),
            policies: BTreeMap::new(),
            policies_are: BTreeMap::new(),
            documents: None,
            remembered: false,
        }
    }

    fn make(&mut self, snapshot: &Snapshot) -> Made {
        self.remember(snapshot);
        let mut why = String::new();
        // Put back only where all of it was taken up.
        let before = self.documents.take();
        let changed = match self.good(snapshot) {
            Ok(None) => {
                self.site_is = Ok(());
                false
            }
            Ok(Some(good)) => {
                self.site = Some(good);
                self.site_is = Ok(());
                true
            }
            Err(error) => {
                why = format!("{error:#}");
                let stays = if self.site.is_some() {
                    "the last one that was stays in force"
                } else {
                    "there is none yet"
                };
                // Once is enough.
                if self.site_is.as_ref().err() != Some(&why) {
                    tracing::error!(error = why, "the Site is not good: {stays}");
                }
                self.site_is = Err(why.clone());
                false
            }
        };
        let Some(Good { site, keys, verifier, .. }) = self.site.clone() else { return Made::Nothing(why) };
        let documents: Vec<Value> = snapshot.policies.iter().map(|stored| stored.document.clone()).collect();
        if !changed && before.as_ref() == Some(&documents) {
            self.documents = before;
            return Made::Same;
        }
        let policies = self.policies(&documents, &keys);
        tracing::info!(policies = policies.len(), mode = ?site.mode, "policies and Site are in force");
        let engine = Engine::new(policies, site);
        let service = Service::observed(engine, verifier, Limits::DEFAULT, Arc::clone(&self.observer));
        self.documents = Some(documents);
        Made::Service(service)
    }

    /// What the cluster keeps of the past, once: for a process that has begun after it.
    fn remember(&mut self, snapshot: &Snapshot) {
        if std::mem::replace(&mut self.remembered, true) {
            return;
        }
        for (name, text) in kept::of(&snapshot.secrets) {
            let Some(kept) = Kept::parse(&text) else {
                tracing::warn!(secret = name, "what is kept in it cannot be read");
                continue;
            };
            let id = ObjectId::of(&kept.document);
            if id.kind != "Site" {
                self.policies.insert(id, kept.document);
                continue;
            }
            match self.build(&kept.document, |source| kept.load(source)) {
                Ok(good) => self.site = Some(good),
                Err(error) => tracing::warn!("the last good Site cannot be used: {error:#}"),
            }
        }
    }

    /// The Site of this moment, if it and all that it names is good; `None` if it is the last one.
    fn good(&self, snapshot: &Snapshot) -> Result<Option<Good>> {
        let stored = snapshot.site.as_ref().context("there is no Site `default`")?;
        let good = self.build(&stored.document, |source| load(snapshot, source))?;
        let same = |last: &Good| last.document == good.document && last.texts == good.texts;
        if self.site.as_ref().is_some_and(same) {
            return Ok(None);
        }
        for warning in &good.site.warnings.0 {
            tracing::warn!(path = warning.path, "Site: {}", warning.message);
        }
        Ok(Some(good))
    }

    /// A Site with all that it names.
    fn build(&self, document: &Value, load: impl Fn(&Source) -> Result<String, String>) -> Result<Good> {
        let site = Arc::new(Site::parse(&document.to_string()).context("Site `default`")?);
        // Nothing but what it names counts, and nothing else is kept.
        let named = site.registry.endpoints.iter().filter_map(|endpoint| endpoint.ca.as_ref());
        let mut texts = BTreeMap::new();
        for source in named.chain(site.trust.keys.values()) {
            texts.insert(source.clone(), load(source).map_err(anyhow::Error::msg)?);
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
        Ok(Good { document: document.clone(), texts, site, keys, verifier })
    }

    /// Every policy; of one that is not good as a whole the last version that was, read with the keys
    /// of the present: a key that is gone is gone.
    fn policies(&mut self, documents: &[Value], keys: &BTreeMap<String, String>) -> Vec<Policy> {
        let mut found = Vec::new();
        self.policies_are.clear();
        for document in documents {
            let id = ObjectId::of(document);
            let policy = match self.read(document, keys) {
                Ok(Some(policy)) => Some(policy),
                Ok(None) => continue,
                Err(Broken) => None,
            };
            for warning in policy.iter().flat_map(|policy| &policy.warnings) {
                tracing::warn!(policy = id.name, "{warning}");
            }
            let wrong = match &policy {
                None => "the reader of policies breaks on it: change it, and report it".to_owned(),
                Some(policy) => {
                    policy.refusals.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
                }
            };
            if wrong.is_empty() {
                self.policies_are.insert(id.clone(), (Ok(()), false));
                self.policies.insert(id, document.clone());
                found.extend(policy);
                continue;
            }
            // Where a key of it is gone by now, it denies what it selects.
            let before = self.policies.get(&id).and_then(|good| self.read(good, keys).ok().flatten());
            let stays = match (&before, &policy) {
                (Some(_), _) => "the last version that was good stays in force",
                (None, Some(_)) => "it denies what it selects, where it enforces",
                (None, None) => "it is left out",
            };
            tracing::error!(policy = id.name, "refused: {wrong}: {stays}");
            self.policies_are.insert(id, (Err(wrong), before.is_some()));
            found.extend(before.or(policy));
        }
        self.policies.retain(|id, _| self.policies_are.contains_key(id));
        found
    }

    /// Reads a policy; the others go on where the reader breaks on one.
    fn read(&self, document: &Value, keys: &BTreeMap<String, String>) -> Result<Option<Policy>, Broken> {
        let reader = self.reader;
        std::panic::catch_unwind(|| reader(document, keys)).map_err(|_| Broken)
    }

    /// What is in force, and what was found about the objects of this moment.
    fn taken(&self, snapshot: &Snapshot) -> Taken {
        let found = |stored: &Stored, ready: Result<(), String>, replaced| Found {
            id: stored.id(),
            generation: stored.generation,
            conditions: stored.conditions.clone(),
            ready,
            replaced,
        };
        let replaced = self.site_is.is_err() && self.site.is_some();
        let site = snapshot.site.iter().map(|stored| found(stored, self.site_is.clone(), replaced));
        let policies = snapshot.policies.iter().filter_map(|stored| {
            let (ready, replaced) = self.policies_are.get(&stored.id())?.clone();
            Some(found(stored, ready, replaced))
        });
        let mut good: BTreeMap<String, String> = BTreeMap::new();
        let mut keep = |document: &Value, texts| {
            good.insert(kept::secret(&ObjectId::of(document)), Kept::text(document, texts));
        };
        if let Some(Good { document, texts, .. }) = &self.site {
            let texts = texts.iter().filter(|(source, _)| !matches!(source, Source::Inline(_)));
            keep(document, texts.map(|(source, text)| (kept::name_of(source), text.clone())).collect());
        }
        self.policies.values().for_each(|document| keep(document, BTreeMap::new()));
        Taken {
            site: self.site.as_ref().map(|good| Arc::clone(&good.site)),
            found: site.chain(policies).collect(),
            good,
            kept: kept::of(&snapshot.secrets),
        }
    }
}

/// The reader came to no end.
struct Broken;

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
    use countersign_admission::Unobserved;
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
        let mut maker = Maker::new(Arc::new(Memory::default()), reader, Arc::new(Unobserved));
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
