//! A webhook that goes by what a cluster says at the moment.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use countersign_admission::{Around, Service};
use countersign_cluster::evidence::EVIDENCE_SECRET;
use countersign_cluster::{Evidence, ObjectId, Objects, SERVING_SECRET, Serving, Snapshot, WatchEnded};
use countersign_evidence::Store;
use countersign_https::{Body, CurrentIdentity, full};
use countersign_policy::Interest;
use countersign_site::Site;
use countersign_verifier::{SecretReader, Verifier};
use hyper::body::Incoming;
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderValue};
use hyper::{Request, Response, StatusCode};
use prometheus_client::registry::Registry;
use serde_json::Value;
use tokio::sync::watch;

use super::maker::{Made, Maker};
use super::replica;

/// Changes that come together are taken up together.
const SETTLE: Duration = Duration::from_millis(100);

/// How long the cluster may be unread before it is said what is missing.
const UNREAD: Duration = Duration::from_secs(5);

pub(crate) type Webhook = Service<Arc<Verifier>>;

/// The webhook of this moment.
pub(crate) struct Live {
    state: RwLock<State>,
    /// What new connections are served with.
    identity: Arc<CurrentIdentity>,
    /// Whether that is a leaf of the installation's own authority.
    certified: AtomicBool,
    /// What was taken up at last.
    pub(crate) taken: watch::Sender<Arc<Taken>>,
    around: Around,
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
    pub(crate) fn new(identity: Arc<CurrentIdentity>, around: Around) -> Self {
        Self {
            state: RwLock::new(State::Waiting("the cluster has not been read yet".to_owned())),
            identity,
            certified: AtomicBool::new(false),
            taken: watch::Sender::default(),
            around,
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
    /// What the policies in force have an interest in.
    pub(crate) interests: BTreeSet<Interest>,
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
    (namespace, pull_secrets): (&str, Arc<dyn SecretReader>),
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
    let around = live.around.clone();
    let mut maker = Maker::new(namespace, store, countersign_policy::load, around, Some(pull_secrets));
    let mut serving = None;
    loop {
        let snapshot = objects.snapshot();
        live.serve_with(&snapshot, &mut serving);
        if let Some(texts) = snapshot.secrets.get(EVIDENCE_SECRET) {
            evidence.read_key(texts);
        }
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
