//! Who is told who asks.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{codes, memory, never_fresh, plain, signer, verifier};
use countersign_https::{Body, ServeLimits, full};
use countersign_reference::{Digest, Reference};
use countersign_verdict::{Attestors, Code, Outcome, PullSecrets, Question, Verdict};
use countersign_verifier::{Purpose, SecretReader, Settings};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use hyper::Response;
use tokio::net::TcpListener;
use tokio::time::Instant;

/// `user:secret` as a header has it.
const BASIC: &str = "Basic dXNlcjpzZWNyZXQ=";

/// Requests as they came: path and `Authorization`.
type Seen = Arc<Mutex<Vec<(String, String)>>>;

/// Serves what a function says of a path and of what somebody says of himself.
async fn serve(answer: impl Fn(&str, &str) -> Response<Body> + Clone + Send + Sync + 'static) -> (u16, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, seen) = (listener.local_addr().unwrap().port(), Seen::default());
    let noted = Arc::clone(&seen);
    let handler = move |request: hyper::Request<hyper::body::Incoming>| {
        let who = request.headers().get("authorization");
        let who = who.map(|who| who.to_str().unwrap().to_owned()).unwrap_or_default();
        let path = request.uri().path().to_owned();
        let response = answer(&path, &who);
        noted.lock().unwrap().push((path, who));
        async move { response }
    };
    tokio::spawn(countersign_https::serve(
        listener,
        None,
        ServeLimits::DEFAULT,
        handler,
        std::future::pending(),
    ));
    (port, seen)
}

fn reply(status: u16, headers: &[(&str, &str)], body: &str) -> Response<Body> {
    let response = headers
        .iter()
        .fold(Response::builder().status(status), |response, (name, value)| response.header(*name, *value));
    response.body(full(body.to_owned())).unwrap()
}

/// A registry that lets nobody in but `user`.
fn private(path: &str, who: &str) -> Response<Body> {
    if who != BASIC {
        return reply(401, &[("www-authenticate", "Basic realm=\"x\"")], "");
    }
    if path.ends_with("/manifests/1") {
        let manifest = "application/vnd.oci.image.manifest.v1+json";
        return reply(200, &[("content-type", manifest)], r#"{"schemaVersion":2,"layers":[]}"#);
    }
    reply(404, &[], "")
}

/// What is in the Secrets of a cluster, and which were read.
#[derive(Debug, Default)]
struct Secrets {
    texts: BTreeMap<String, String>,
    read: Mutex<Vec<String>>,
}

impl Secrets {
    fn of(host: &str) -> Arc<Self> {
        let text = format!(r#"{{"auths":{{"{host}":{{"username":"user","password":"secret"}}}}}}"#);
        Arc::new(Self { texts: [("apps/pull".to_owned(), text)].into(), read: Mutex::default() })
    }
}

impl SecretReader for Secrets {
    fn docker_config(
        &self,
        namespace: &str,
        name: &str,
    ) -> BoxFuture<'static, Result<Option<String>, String>> {
        let key = format!("{namespace}/{name}");
        let text = self.texts.get(&key).cloned();
        self.read.lock().unwrap().push(key);
        async move { Ok(text) }.boxed()
    }
}

/// Asks about the image at this endpoint, for a pod with pull secrets.
async fn ask(endpoint: String, secrets: Option<Arc<Secrets>>, attestors: &Attestors) -> Verdict {
    let reader = secrets.map(|secrets| secrets as Arc<dyn SecretReader>);
    let verifier = verifier(&[endpoint], Settings { pull_secrets: reader, ..never_fresh() }, memory());
    let image = Reference::parse("registry.local/a/b:1").unwrap();
    let names = vec!["absent".to_owned(), "pull".to_owned()];
    let pull_secrets = Some(PullSecrets { namespace: "apps".to_owned(), names });
    let question = Question { pull_secrets, ..Question::new(image, attestors.clone()) };
    verifier.verify(&question, Instant::now() + Duration::from_secs(5), Purpose::Decision).await
}

fn told(seen: &Seen) -> usize {
    seen.lock().unwrap().iter().filter(|(_, who)| !who.is_empty()).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pods_secrets_are_used_where_nobody_else_may_look() {
    let (port, seen) = serve(private).await;
    let attestors = signer().1;
    // The site does not let them be used.
    let verdict = ask(plain("a", port), None, &attestors).await;
    assert_eq!((verdict.outcome, told(&seen)), (Outcome::Forbidden, 0));
    let secrets = Secrets::of(&format!("127.0.0.1:{port}"));
    let verdict = ask(plain("a", port), Some(Arc::clone(&secrets)), &attestors).await;
    assert_eq!(verdict.outcome, Outcome::Unsigned, "it is there, and nobody has signed it: {verdict:#?}");
    assert_eq!(*secrets.read.lock().unwrap(), ["apps/absent", "apps/pull"], "by name, in its own namespace");
    // Where everybody may look, nobody is asked who he is.
    let (open, seen) = serve(|path, _| private(path, BASIC)).await;
    let secrets = Secrets::of(&format!("127.0.0.1:{open}"));
    assert_eq!(
        ask(plain("a", open), Some(Arc::clone(&secrets)), &attestors).await.outcome,
        Outcome::Unsigned
    );
    assert_eq!((told(&seen), secrets.read.lock().unwrap().len()), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn t_41_credentials_go_nowhere_else() {
    let attestors = signer().1;
    // Somebody who collects what he is sent.
    let (thief, stolen) = serve(|_, _| reply(200, &[], r#"{"token":"x"}"#)).await;
    let elsewhere = format!("http://127.0.0.1:{thief}/take");
    let realm = format!("Bearer realm=\"{elsewhere}\"");
    // A Secret for another host says nothing here, and for this one it says nothing elsewhere.
    let (port, seen) = serve(private).await;
    for host in ["127.0.0.1", "127.0.0.1:1", "localhost", "example.com"] {
        let verdict = ask(plain("a", port), Some(Secrets::of(host)), &attestors).await;
        assert_eq!(verdict.outcome, Outcome::Forbidden, "{host}: {verdict:#?}");
    }
    assert_eq!(told(&seen), 0, "bound to host and port");

    let blob = Digest::sha256_of(b"x");
    for (what, location, challenge) in [
        ("a realm of another host", "", realm.as_str()),
        ("a redirect to another host", elsewhere.as_str(), ""),
        ("the cloud's metadata", "http://169.254.169.254/latest/meta-data/", ""),
        ("the API server", "https://kubernetes.default.svc/api/v1/secrets", ""),
        ("another scheme", "file:///etc/shadow", ""),
        ("a user in a URL", "http://user:secret@127.0.0.1/", ""),
    ] {
        let (location, challenge) = (location.to_owned(), challenge.to_owned());
        let (port, _) = serve(move |_, who| match (who, challenge.is_empty()) {
            (_, false) => reply(401, &[("www-authenticate", &challenge)], ""),
            (BASIC, true) => reply(307, &[("location", &location)], ""),
            (_, true) => reply(401, &[("www-authenticate", "Basic realm=\"x\"")], ""),
        })
        .await;
        let secrets = Secrets::of(&format!("127.0.0.1:{port}"));
        let verdict = ask(plain("a", port), Some(secrets), &attestors).await;
        assert_eq!(verdict.outcome, Outcome::Refused, "{what}: {verdict:#?}");
        let code = codes(&verdict)[0];
        assert!([Code::RedirectRefused, Code::Malformed].contains(&code), "{what}: {verdict:#?}");
    }
    assert_eq!(*stolen.lock().unwrap(), [], "nobody was asked whom nothing names: {blob}");
}

#[tokio::test(flavor = "multi_thread")]
async fn t_41_nothing_goes_over_a_line_that_others_read() {
    // A password of the Site itself, for an endpoint that sends on to a line in the clear: `allowHosts`
    // names the host, and a downgrade is none the better for that.
    let (port, seen) = serve(private).await;
    let (authority, attestors) = (countersign_https::Authority::generate("site").unwrap(), signer().1);
    let target = format!("http://127.0.0.1:{port}/v2/a/b/manifests/1");
    let lie = move |_: &str| Some(reply(307, &[("location", &target)], ""));
    let registry = countersign_sample::SampleRegistry::start(&authority, lie).await.unwrap();
    let endpoint = common::endpoint("a", &format!("https://127.0.0.1:{}", registry.port), authority.pem());
    let endpoint = endpoint.strip_suffix(" }").unwrap();
    let endpoint = format!("{endpoint}, allowHosts: [\"127.0.0.1:{port}\"] }}");
    let verdict = ask(endpoint, None, &attestors).await;
    assert_eq!(verdict.outcome, Outcome::Refused, "{verdict:#?}");
    assert_eq!(seen.lock().unwrap().len(), 0);
}
