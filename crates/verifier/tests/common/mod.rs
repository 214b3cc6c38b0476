//! What the tests of the verifier share: keys, Sites, and how it is asked.
#![allow(dead_code, reason = "each test file uses some of it")]

#[allow(unreachable_pub, reason = "a file of another crate")]
#[path = "../../../../e2e/src/black_hole.rs"]
pub(crate) mod black_hole;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use countersign_clock::ManualClock;
use countersign_evidence::{Memory, Store};
use countersign_https::{Body, full};
use countersign_reference::Reference;
use countersign_signature::sign::{Scheme, Signer};
use countersign_site::{Site, Source};
use countersign_verdict::{Attestors, Code, Question, Verdict};
use countersign_verifier::{Purpose, Rules, Settings, Verifier};
use hyper::Response;
use hyper::header::CONTENT_TYPE;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

/// What the verifiers' clock shows.
pub(crate) const NOW: &str = "2026-12-01T00:00:00Z";

pub(crate) fn signer() -> (Signer, Attestors) {
    let signer = Signer::generate(Scheme::EcdsaP256).unwrap();
    let attestors = Attestors::any_of_keys(&signer.public_pem());
    (signer, attestors)
}

/// An endpoint of a Site, over TLS.
pub(crate) fn endpoint(name: &str, url: &str, ca: &str) -> String {
    let ca = ca.replace('\n', "\\n");
    format!("{{ name: {name}, url: \"{url}\", addresses: [127.0.0.1], ca: {{ pem: \"{ca}\" }} }}")
}

/// An endpoint on loopback, in the clear.
pub(crate) fn plain(name: &str, port: u16) -> String {
    format!("{{ name: {name}, url: \"http://127.0.0.1:{port}\" }}")
}

pub(crate) fn site(endpoints: &[String]) -> Arc<Site> {
    let text = format!(
        "apiVersion: countersign.dev/v1alpha1\nkind: Site\nspec:\n  registry: {{ name: registry.local, endpoints: [{}] }}\n",
        endpoints.join(", ")
    );
    Arc::new(Site::parse(&text).unwrap())
}

pub(crate) fn verifier(endpoints: &[String], settings: Settings, store: Arc<dyn Store>) -> Arc<Verifier> {
    let clock = Arc::new(ManualClock::at(NOW.parse().unwrap()));
    verifier_at(endpoints, settings, store, clock)
}

pub(crate) fn verifier_at(
    endpoints: &[String],
    settings: Settings,
    store: Arc<dyn Store>,
    clock: Arc<ManualClock>,
) -> Arc<Verifier> {
    let load = Arc::new(|source: &Source| match source {
        Source::Inline(text) => Ok(text.clone()),
        other => Err(format!("{other:?}")),
    });
    Verifier::new(Rules::Site(site(endpoints)), settings, load, store, clock)
}

pub(crate) fn memory() -> Arc<dyn Store> {
    Arc::new(Memory::default())
}

/// Every tag is asked for anew.
pub(crate) fn never_fresh() -> Settings {
    Settings { tag_freshness: Duration::ZERO, ..Settings::default() }
}

pub(crate) async fn ask_within(
    verifier: &Arc<Verifier>,
    attestors: &Attestors,
    image: &str,
    time: Duration,
) -> (Verdict, Duration) {
    let question = Question::new(Reference::parse(image).unwrap(), attestors.clone());
    let start = Instant::now();
    let verdict = verifier.verify(&question, start + time, Purpose::Decision).await;
    (verdict, start.elapsed())
}

pub(crate) async fn ask(verifier: &Arc<Verifier>, attestors: &Attestors, image: &str) -> Verdict {
    ask_within(verifier, attestors, image, Duration::from_secs(5)).await.0
}

pub(crate) fn codes(verdict: &Verdict) -> Vec<Code> {
    verdict.checks.iter().map(|check| check.code).collect()
}

pub(crate) fn answer(media_type: &str, content: &str) -> Response<Body> {
    Response::builder().header(CONTENT_TYPE, media_type).body(full(content.to_owned())).unwrap()
}

/// A port that leads to another one, and how many connections were made to it.
pub(crate) async fn counted(port: u16) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (at, count) = (listener.local_addr().unwrap().port(), Arc::new(AtomicUsize::new(0)));
    let connections = Arc::clone(&count);
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            connections.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move {
                let mut server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    (at, count)
}
