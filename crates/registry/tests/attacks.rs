//! A registry whose content is not what it says, named after the attack of `docs/attacks.md`.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::{Arc, Mutex};

use countersign_clock::SystemClock;
use countersign_https::{ClientTls, ServeLimits, full};
use countersign_mirrors::Mirror;
use countersign_reference::{Algorithm, Digest};
use countersign_registry::{Endpoint, EndpointSettings, Error, Limits, Places, Timing};
use countersign_site::RegistryUrl;
use hyper::body::Incoming;
use hyper::header::CONTENT_TYPE;
use hyper::{Method, Request, Response};
use tokio::net::TcpListener;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const HEADER: &str = "docker-content-digest";

/// A registry that has one content whatever it is asked for, and puts another digest into its
/// headers; what is asked with HEAD gets yet another one. Also the methods that it was asked with.
async fn liar(content: &'static str, in_header: &Digest) -> (Endpoint, Arc<Mutex<Vec<Method>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (asked, noted) = (Arc::new(Mutex::new(Vec::new())), in_header.to_string());
    let seen = Arc::clone(&asked);
    let handler = move |request: Request<Incoming>| {
        seen.lock().unwrap().push(request.method().clone());
        let header = match *request.method() {
            Method::HEAD => Digest::sha256_of(b"for those who only look").to_string(),
            _ => noted.clone(),
        };
        let response = Response::builder().header(CONTENT_TYPE, MANIFEST).header(HEADER, header);
        async move { response.body(full(content)).unwrap() }
    };
    let end = std::future::pending();
    tokio::spawn(countersign_https::serve(listener, None, ServeLimits::DEFAULT, handler, end));
    let mirror = Mirror::new("liar", RegistryUrl::parse(&format!("http://127.0.0.1:{port}")).unwrap());
    let settings = EndpointSettings {
        tls: ClientTls::default(),
        limits: Limits::DEFAULT,
        timing: Timing::DEFAULT,
        credentials: None,
        places: Places::new(&Limits::DEFAULT),
    };
    (Endpoint::new(&mirror, settings, Arc::new(SystemClock::default())).unwrap(), asked)
}

#[tokio::test]
async fn t_02_a_digest_that_the_content_does_not_have() {
    let content = r#"{"schemaVersion":2,"layers":[]}"#;
    let (own, promised) = (Digest::sha256_of(content.as_bytes()), Digest::sha256_of(b"promised"));
    let (endpoint, asked) = liar(content, &promised).await;

    let manifest = endpoint.manifest_of_tag("a/b", "1").await.unwrap();
    assert_eq!(manifest.digest, own, "what a tag is of is computed here");
    assert_eq!(manifest.bytes, content.as_bytes());

    // The header says that it is what was asked for.
    let others = [promised.clone(), Digest::of(Algorithm::Sha512, b"promised")];
    for wanted in &others {
        let (endpoint, _) = liar(content, wanted).await;
        let error = endpoint.manifest_of_digest("a/b", wanted).await.unwrap_err();
        assert!(matches!(&error, Error::Mismatch { found, .. } if *found == own), "{error}");
        let error = endpoint.blob("a/b", wanted, 100).await.unwrap_err();
        assert!(matches!(&error, Error::Mismatch { wanted: asked, .. } if asked == wanted), "{error}");
    }

    // What is asked for by its digest is of it, whatever headers say.
    for wanted in [own.clone(), Digest::of(Algorithm::Sha512, content.as_bytes())] {
        assert_eq!(endpoint.manifest_of_digest("a/b", &wanted).await.unwrap().digest, wanted);
        assert_eq!(endpoint.blob("a/b", &wanted, 100).await.unwrap(), content.as_bytes());
    }
    let asked = asked.lock().unwrap();
    assert!(asked.iter().all(|method| *method == Method::GET), "nothing is only looked at: {asked:?}");
}
