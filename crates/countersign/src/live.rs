//! A webhook that goes by what a cluster says at the moment.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use anyhow::{Context as _, Result};
use countersign_admission::{Limits, Service};
use countersign_clock::SystemClock;
use countersign_cluster::{Objects, Snapshot};
use countersign_evidence::Store;
use countersign_https::{Body, full};
use countersign_policy::{Engine, Policy};
use countersign_site::{Site, Source};
use countersign_verifier::{Rules, SourceLoader, Verifier};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Request, Response, StatusCode};
use serde_json::Value;

use crate::{policies, site};

/// Changes that come together are taken up together.
const SETTLE: Duration = Duration::from_millis(100);

type Webhook = Service<Arc<Verifier>>;

/// The webhook of this moment; none before there was a good Site.
#[derive(Default)]
pub(crate) struct Live(RwLock<Option<Arc<Webhook>>>);

impl Live {
    /// Answers as the webhook of this moment does.
    pub(crate) async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        let now = self.0.read().unwrap_or_else(PoisonError::into_inner).clone();
        match now {
            Some(service) => service.answer(request).await,
            None if request.uri().path() == "/livez" => plain(StatusCode::OK, "ok\n"),
            // A webhook failure: each configuration says what follows from it.
            None => plain(StatusCode::SERVICE_UNAVAILABLE, "there is no Site yet\n"),
        }
    }

    fn set(&self, service: Arc<Webhook>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(service);
    }
}

fn plain(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = Response::new(full(text));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}

/// Follows a cluster for as long as it is polled.
pub(crate) async fn follow(mut objects: Objects, store: Arc<dyn Store>, live: Arc<Live>) {
    objects.ready().await;
    let mut maker = Maker { store, site: None, policies: BTreeMap::new(), seen: Snapshot::default() };
    loop {
        let snapshot = objects.snapshot();
        if snapshot != maker.seen {
            if let Some(service) = maker.make(&snapshot) {
                live.set(service);
            }
            maker.seen = snapshot;
        }
        objects.changed().await;
        tokio::time::sleep(SETTLE).await;
    }
}

/// Makes webhooks, each from what is good of the present and, where it is not, of the past.
struct Maker {
    store: Arc<dyn Store>,
    /// The last good Site.
    site: Option<Good>,
    /// The last version of each policy that was good as a whole.
    policies: BTreeMap<String, Policy>,
    seen: Snapshot,
}

/// A Site with all that it names, and who verifies by it.
#[derive(Clone)]
struct Good {
    site: Arc<Site>,
    keys: BTreeMap<String, String>,
    verifier: Arc<Verifier>,
}

impl Maker {
    fn make(&mut self, snapshot: &Snapshot) -> Option<Arc<Webhook>> {
        let same = snapshot.site == self.seen.site
            && snapshot.secrets == self.seen.secrets
            && snapshot.config_maps == self.seen.config_maps;
        if !(same && self.site.is_some()) {
            match self.good(snapshot) {
                Ok(good) => self.site = Some(good),
                Err(error) if self.site.is_some() => {
                    tracing::error!(
                        error = format!("{error:#}"),
                        "the Site is not good: the last one that was stays in force"
                    );
                }
                Err(error) => tracing::error!(error = format!("{error:#}"), "there is no good Site"),
            }
        }
        let Good { site, keys, verifier } = self.site.clone()?;
        let policies = self.policies(&snapshot.policies, &keys);
        tracing::info!(policies = policies.len(), mode = ?site.mode, "policies and Site are in force");
        Some(Service::new(Engine::new(policies, site), verifier, Limits::DEFAULT))
    }

    /// The Site of this moment, if it and all that it names is good.
    fn good(&self, snapshot: &Snapshot) -> Result<Good> {
        let document = snapshot.site.as_ref().context("there is no Site `default`")?;
        let site = Arc::new(Site::parse(&document.to_string()).context("Site `default`")?);
        for warning in &site.warnings.0 {
            tracing::warn!(path = warning.path, "Site: {}", warning.message);
        }
        let load = loader(snapshot);
        let keys = policies::site_keys(&site, &*load)?;
        let (rules, clock) = (Rules::Site(Arc::clone(&site)), Arc::new(SystemClock::default()));
        let verifier = Verifier::new(rules, site::settings(&site), load, Arc::clone(&self.store), clock);
        verifier.prepare(&site.registry.name).context("the Site's endpoints")?;
        Ok(Good { site, keys, verifier })
    }

    /// Every policy; of one that is not good as a whole the last version that was.
    fn policies(&mut self, documents: &[Value], keys: &BTreeMap<String, String>) -> Vec<Policy> {
        let mut found = Vec::new();
        for document in documents {
            let Some(policy) = countersign_policy::load(document, keys) else { continue };
            for warning in &policy.warnings {
                tracing::warn!(policy = policy.name, "{warning}");
            }
            for refusal in &policy.refusals {
                tracing::error!(policy = policy.name, "refused: {refusal}");
            }
            if policy.refusals.is_empty() {
                self.policies.insert(policy.name.clone(), policy.clone());
                found.push(policy);
                continue;
            }
            match self.policies.get(&policy.name) {
                Some(good) => {
                    tracing::error!(policy = policy.name, "the last version that was good stays in force");
                    found.push(good.clone());
                }
                None => found.push(policy),
            }
        }
        let names: BTreeSet<&String> = found.iter().map(|policy| &policy.name).collect();
        self.policies.retain(|name, _| names.contains(name));
        found
    }
}

/// Reads what a Site's sources name, of this moment.
fn loader(snapshot: &Snapshot) -> Arc<SourceLoader> {
    let (secrets, config_maps) = (snapshot.secrets.clone(), snapshot.config_maps.clone());
    Arc::new(move |source: &Source| match source {
        Source::Inline(text) => Ok(text.clone()),
        Source::File(path) => {
            Err(format!("`file: {path}` is for a Site in a file: use a Secret, a ConfigMap or `pem`"))
        }
        Source::Secret { name, key } => text_of("Secret", &secrets, name, key.as_deref()),
        Source::ConfigMap { name, key } => text_of("ConfigMap", &config_maps, name, key.as_deref()),
    })
}

/// The text under a key; the only one there is where none is named.
fn text_of(
    kind: &str,
    objects: &BTreeMap<String, BTreeMap<String, String>>,
    name: &str,
    key: Option<&str>,
) -> Result<String, String> {
    let object =
        objects.get(name).ok_or_else(|| format!("there is no {kind} `{name}` in the program's namespace"))?;
    let all = || object.keys().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ");
    match (key, object.len()) {
        (Some(key), _) => object
            .get(key)
            .cloned()
            .ok_or_else(|| format!("{kind} `{name}` has no key `{key}`, but {}", all())),
        (None, 1) => Ok(object.values().next().cloned().unwrap_or_default()),
        (None, 0) => Err(format!("{kind} `{name}` has no text in it")),
        (None, _) => Err(format!("{kind} `{name}` has several keys: say which of {}", all())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_names_one_text() {
        let one =
            |keys: &[&str]| keys.iter().map(|key| ((*key).to_owned(), format!("text of {key}"))).collect();
        let objects = [
            ("one".to_owned(), one(&["a"])),
            ("two".to_owned(), one(&["a", "b"])),
            ("none".to_owned(), one(&[])),
        ];
        let objects: BTreeMap<_, _> = objects.into();
        for (name, key, expected) in [
            ("one", None, Ok("text of a")),
            ("one", Some("a"), Ok("text of a")),
            ("one", Some("b"), Err("has no key `b`, but `a`")),
            ("two", Some("b"), Ok("text of b")),
            ("two", None, Err("say which of `a`, `b`")),
            ("none", None, Err("has no text")),
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
