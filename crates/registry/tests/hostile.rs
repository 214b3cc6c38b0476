//! A registry that lies in one stated way for each test.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use countersign_clock::SystemClock;
use countersign_https::{Body, ClientTls, ServeLimits, full};
use countersign_mirrors::Mirror;
use countersign_reference::Digest;
use countersign_registry::{
    Class, Credentials, Endpoint, EndpointSettings, Error, Limits, Payload, Places, Timing,
};
use countersign_site::{HostPort, RegistryUrl};
use hyper::body::Incoming;
use hyper::{Request, Response};
use tokio::net::TcpListener;

/// Serves what a function says, and counts who asks.
async fn lie(
    answer: impl Fn(&str) -> Response<Body> + Clone + Send + Sync + 'static,
) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, count) = (listener.local_addr().unwrap().port(), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&count);
    let handler = move |request: Request<Incoming>| {
        counted.fetch_add(1, Ordering::SeqCst);
        let response = answer(request.uri().path());
        async move { response }
    };
    serve(listener, handler);
    (port, count)
}

fn serve<F: Future<Output = Response<Body>> + Send + 'static>(
    listener: TcpListener,
    handler: impl Fn(Request<Incoming>) -> F + Clone + Send + 'static,
) {
    tokio::spawn(countersign_https::serve(
        listener,
        None,
        ServeLimits::DEFAULT,
        handler,
        std::future::pending(),
    ));
}

/// Every request in a line: method, path, `Content-Length` and whether it says who asks.
type Seen = Arc<Mutex<Vec<String>>>;

/// Serves what a function says of a path and of whether somebody says who asks.
async fn watch(answer: impl Fn(&str, bool) -> Response<Body> + Clone + Send + Sync + 'static) -> (u16, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, seen) = (listener.local_addr().unwrap().port(), Seen::default());
    let noted = Arc::clone(&seen);
    serve(listener, move |request: Request<Incoming>| {
        let header = |name: &str| request.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        let (who, length) = (header("authorization"), header("content-length"));
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let length = length.unwrap_or_default();
        noted.lock().unwrap().push(format!("{method} {path} {length} {}", who.is_some()));
        let response = answer(&path, who.is_some());
        async move { response }
    });
    (port, seen)
}

fn endpoint(port: u16, allowed: &[u16]) -> Endpoint {
    endpoint_of(port, allowed, None, Duration::ZERO)
}

fn endpoint_of(port: u16, allowed: &[u16], who: Option<Credentials>, patience: Duration) -> Endpoint {
    let host = |port: &u16| HostPort { host: "127.0.0.1".to_owned(), port: *port };
    let url = RegistryUrl::parse(&format!("http://127.0.0.1:{port}")).unwrap();
    let mirror = Mirror { allow_hosts: allowed.iter().map(host).collect(), ..Mirror::new("liar", url) };
    let request = Duration::from_millis(500).max(patience * 2);
    let timing = Timing { request, patience, ..Timing::DEFAULT };
    let (limits, places) = (Limits::DEFAULT, Places::new(&Limits::DEFAULT));
    let settings = EndpointSettings { tls: ClientTls::default(), limits, timing, credentials: who, places };
    Endpoint::new(&mirror, settings, Arc::new(SystemClock::default())).unwrap()
}

fn status(code: u16, headers: &[(&str, String)], body: &str) -> Response<Body> {
    let mut response = Response::builder().status(code);
    for (name, value) in headers {
        response = response.header(*name, value);
    }
    response.body(full(body.to_owned())).unwrap()
}

#[tokio::test]
async fn a_redirect_to_a_host_that_nothing_names_is_not_followed() {
    let (elsewhere, asked) = lie(|_| status(200, &[], "content")).await;
    let target = format!("http://127.0.0.1:{elsewhere}/blob");
    let (port, _) = lie(move |_| status(307, &[("location", target.clone())], "")).await;
    let digest = Digest::sha256_of(b"content");
    let error = endpoint(port, &[]).blob("a/b", &digest, 100).await.unwrap_err();
    assert_eq!((error.class(), asked.load(Ordering::SeqCst)), (Class::Refused, 0), "{error}");
    assert!(matches!(error, Error::HostNotListed(host) if host.port == elsewhere));
    assert!(endpoint(port, &[elsewhere]).blob("a/b", &digest, 100).await.is_ok(), "where it is named, it is");
}

#[tokio::test]
async fn t41_a_token_realm_that_nothing_names_is_not_asked() {
    let (elsewhere, asked) = lie(|_| status(200, &[], "{\"token\":\"x\"}")).await;
    let challenge = format!("Bearer realm=\"http://127.0.0.1:{elsewhere}/token\",service=\"x\"");
    let (port, _) = lie(move |_| status(401, &[("www-authenticate", challenge.clone())], "")).await;
    let error = endpoint(port, &[]).manifest_of_tag("a/b", "1").await.unwrap_err();
    assert_eq!((error.class(), asked.load(Ordering::SeqCst)), (Class::Refused, 0), "{error}");
    // Named, it is asked, and the registry that wants no token either way denies.
    let error = endpoint(port, &[elsewhere]).manifest_of_tag("a/b", "1").await.unwrap_err();
    assert_eq!((error, asked.load(Ordering::SeqCst)), (Error::Denied(401), 1));
}

struct Text;

impl Payload for Text {
    fn length(&self) -> u64 {
        7
    }

    fn part(&self, _: u64, _: u64) -> std::io::Result<Bytes> {
        Ok("content".into())
    }
}

#[tokio::test]
async fn a_password_stays_where_it_belongs() {
    let ask = || status(401, &[("www-authenticate", "Basic realm=\"x\"".to_owned())], "");
    // Where layers are kept: another host, which is named, and which asks who is there.
    let (store, at_store) = watch(move |_, _| ask()).await;
    let target = format!("http://127.0.0.1:{store}/upload");
    let (port, seen) =
        watch(move |_, told| if told { status(202, &[("location", target.clone())], "") } else { ask() })
            .await;
    let who = Some(Credentials::new("user", "secret"));
    let endpoint = endpoint_of(port, &[store], who, Duration::ZERO);
    let error = endpoint.push_blob("a/b", &Digest::sha256_of(b"content"), &Text, None).await.unwrap_err();
    assert_eq!(error, Error::Denied(401));
    let upload = "POST /v2/a/b/blobs/uploads/ 0";
    assert_eq!(*seen.lock().unwrap(), [format!("{upload} false"), format!("{upload} true")]);
    assert_eq!(*at_store.lock().unwrap(), ["PUT /upload 7 false"]);
}

#[tokio::test]
async fn a_busy_endpoint_is_asked_again_by_who_has_time() {
    let busy = Arc::new(AtomicUsize::new(2));
    let (port, count) = lie(move |_| {
        if busy.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
            return status(429, &[("retry-after", "0".to_owned())], "");
        }
        status(200, &[], "content")
    })
    .await;
    let digest = Digest::sha256_of(b"content");
    let error = endpoint(port, &[]).blob("a/b", &digest, 100).await.unwrap_err();
    assert_eq!((error, count.load(Ordering::SeqCst)), (Error::Status(429), 1));
    let patient = endpoint_of(port, &[], None, Duration::from_secs(2));
    assert!(patient.blob("a/b", &digest, 100).await.is_ok());
    assert_eq!(count.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn what_is_not_taken_comes_with_the_reason() {
    let body = r#"{"errors":[{"code":"MANIFEST_INVALID","message":"no"}]}"#;
    let (port, _) = lie(move |_| status(400, &[], body)).await;
    let error = endpoint(port, &[]).push_manifest("a/b", "1", "x/y", &"{}".into()).await.unwrap_err();
    assert_eq!(error.to_string(), "it does not take it (400 MANIFEST_INVALID): no");
    assert_eq!(error.class(), Class::Denied);
    for (code, class) in [(403, Class::Denied), (429, Class::Unreachable), (503, Class::Unreachable)] {
        let (port, _) = lie(move |_| status(code, &[], body)).await;
        let error = endpoint(port, &[]).push_manifest("a/b", "1", "x/y", &"{}".into()).await.unwrap_err();
        assert_eq!((error.class(), error.to_string().contains("MANIFEST_INVALID")), (class, code == 403));
    }
}

#[tokio::test]
async fn what_a_password_buys_stays_there_too() {
    let (issuer, at_issuer) = watch(|_, _| status(200, &[], r#"{"token":"x"}"#)).await;
    let (store, at_store) = watch(|_, _| status(200, &[], "content")).await;
    let target = format!("http://127.0.0.1:{store}/layer");
    let (port, _) = watch(move |_, told| {
        let realm = format!("Bearer realm=\"http://127.0.0.1:{issuer}/token\"");
        if told {
            status(307, &[("location", target.clone())], "")
        } else {
            status(401, &[("www-authenticate", realm)], "")
        }
    })
    .await;
    let who = Some(Credentials::new("user", "secret"));
    let endpoint = endpoint_of(port, &[store, issuer], who, Duration::ZERO);
    endpoint.blob("a/b", &Digest::sha256_of(b"content"), 100).await.unwrap();
    assert_eq!(*at_issuer.lock().unwrap(), ["GET /token  true"]);
    assert_eq!(*at_store.lock().unwrap(), ["GET /layer  false"]);
}

#[tokio::test]
async fn t38_a_body_beyond_its_limit() {
    let (port, _) = lie(|_| status(200, &[], &"x".repeat(101))).await;
    let digest = Digest::sha256_of("x".repeat(101).as_bytes());
    let error = endpoint(port, &[]).blob("a/b", &digest, 100).await.unwrap_err();
    assert!(matches!(error, Error::Limit(_)), "{error}");
    assert!(endpoint(port, &[]).blob("a/b", &digest, 101).await.is_ok());
}

#[tokio::test]
async fn t37_referrers_without_end() {
    let index = "application/vnd.oci.image.index.v1+json".to_owned();
    let (port, count) = lie(move |path| {
        let next = format!("<{path}>; rel=\"next\"");
        status(
            200,
            &[("content-type", index.clone()), ("link", next)],
            "{\"schemaVersion\":2,\"manifests\":[]}",
        )
    })
    .await;
    let error = endpoint(port, &[]).referrers("a/b", &Digest::sha256_of(b"")).await.unwrap_err();
    assert!(matches!(error, Error::Limit(_)), "{error}");
    assert_eq!(count.load(Ordering::SeqCst), Limits::DEFAULT.referrers_pages);
}

#[tokio::test]
async fn only_404_is_absent() {
    for (code, class) in [
        (404, Class::Absent),
        (401, Class::Denied),
        (403, Class::Denied),
        (429, Class::Unreachable),
        (500, Class::Unreachable),
        (503, Class::Unreachable),
        (204, Class::Unreachable),
    ] {
        let (port, _) = lie(move |_| status(code, &[], "")).await;
        let error = endpoint(port, &[]).manifest_of_tag("a/b", "1").await.unwrap_err();
        assert_eq!(error.class(), class, "{code}: {error}");
    }
}

#[tokio::test]
async fn an_endpoint_that_cannot_be_dialled_is_held_off() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let endpoint = endpoint(port, &[]);
    let why = endpoint.manifest_of_tag("a/b", "1").await.unwrap_err();
    assert!(matches!(why, Error::Dial(_)), "{why}");
    assert_eq!(endpoint.manifest_of_tag("a/b", "1").await, Err(Error::HeldOff(Box::new(why))));
}

#[tokio::test]
async fn a_host_that_the_registry_sends_to_is_not_the_registry() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dead = free.local_addr().unwrap().port();
    drop(free);
    let (port, _) = lie(move |path| match path.split('/').nth(2) {
        Some("sent") => status(307, &[("location", format!("http://127.0.0.1:{dead}/x"))], ""),
        Some("asked") => {
            let challenge = format!(r#"Bearer realm="http://127.0.0.1:{dead}/token""#);
            status(401, &[("www-authenticate", challenge)], "")
        }
        _ => status(404, &[], ""),
    })
    .await;
    let endpoint = endpoint(port, &[dead]);
    for repository in ["sent/b", "asked/b"] {
        let why = endpoint.manifest_of_tag(repository, "1").await.unwrap_err();
        assert!(why.class() == Class::Unreachable && why.to_string().contains(&dead.to_string()), "{why}");
        assert!(!endpoint.health().held_off, "{repository}: {why}");
        assert_eq!(endpoint.manifest_of_tag("good/b", "1").await, Err(Error::Absent));
    }
}

#[tokio::test]
async fn a_registry_that_is_slow_is_there() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    serve(listener, |_| async {
        // Longer than a connection may take to be made, and the probe's own answer takes as long.
        tokio::time::sleep(Timing::DEFAULT.dial * 3).await;
        status(404, &[], "")
    });
    let endpoint = endpoint_of(port, &[], None, Duration::from_secs(3));
    assert_eq!(endpoint.manifest_of_tag("a/b", "1").await, Err(Error::Absent));
    assert!(!endpoint.health().held_off);
}
