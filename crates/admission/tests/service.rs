//! The webhook over HTTP, with answers by hand.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use countersign_admission::{Answers, Around, Limits, Observer, Report, Service, Subject};
use countersign_https::ServeLimits;
use countersign_policy::{Engine, Keys, Phase};
use countersign_signature::sign::{Scheme, Signer};
use countersign_site::Site;
use countersign_verdict::{Code, Decision, Outcome, Question, Tier, Verdict};
use countersign_verifier::Purpose;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::Instant;

/// Panics, hangs or answers, by the image's name.
struct ByName;

impl Answers for ByName {
    fn verify(&self, question: Question, deadline: Instant, _: Purpose) -> BoxFuture<'static, Verdict> {
        async move {
            let path = question.image.path().to_owned();
            assert!(!path.contains("panic"), "on purpose");
            if path.contains("slow") {
                tokio::time::sleep_until(deadline).await;
            }
            Verdict::because(
                question.image,
                Outcome::Unsigned,
                Code::NoSignature,
                "no signature in any format",
            )
        }
        .boxed()
    }

    fn at_hand(&self, _: &Question) -> Option<Verdict> {
        None
    }
}

/// A webhook on a free port of loopback; `action` is the policy's.
async fn serve(action: &str, limits: Limits) -> u16 {
    let site = "apiVersion: countersign.dev/v1alpha1\nkind: Site\nspec:\n  registry: { name: registry.local, \
                endpoints: [{ name: a, url: 'http://127.0.0.1:1' }] }\n  bootstrapNamespaces: [kube-system]\n";
    let site = Arc::new(Site::parse(site).unwrap());
    let text = include_str!("../../../policies/check-image.yaml").replace("Enforce", action);
    let key = Signer::generate(Scheme::EcdsaP256).unwrap().public_pem();
    let keys = Keys::of_site([("vendor".to_owned(), key)]);
    let policy = countersign_policy::load(&countersign_yaml::document(&text).unwrap(), &keys).unwrap();
    let engine = Engine::new(vec![policy], site);
    let service = Service::new(engine, ByName, limits);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let handler = move |request| Arc::clone(&service).answer(request);
    tokio::spawn(countersign_https::serve(
        listener,
        None,
        ServeLimits::DEFAULT,
        handler,
        std::future::pending(),
    ));
    port
}

async fn post(port: u16, path: &str, body: Vec<u8>) -> (u16, Value) {
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let uri = format!("http://127.0.0.1:{port}{path}");
    let request = Request::builder().method("POST").uri(uri).body(Full::new(body.into())).unwrap();
    let response = client.request(request).await.unwrap();
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap_or_default())
}

async fn review(port: u16, path: &str, namespace: &str, image: &str) -> Value {
    let review = json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": "u-1", "operation": "CREATE", "namespace": namespace, "kind": { "kind": "Pod" },
        "object": { "kind": "Pod", "spec": { "containers": [{ "name": "c", "image": image }] } } } });
    let (status, answer) = post(port, path, review.to_string().into_bytes()).await;
    assert_eq!((status, &answer["response"]["uid"]), (200, &json!("u-1")), "{answer}");
    answer["response"].clone()
}

#[tokio::test]
async fn a_panic_denies_that_request_alone() {
    let port = serve("Enforce", Limits::DEFAULT).await;
    let response = review(port, "/mutate/fail", "default", "registry.local/panic:1").await;
    assert_eq!(response["allowed"], false);
    assert!(response["status"]["message"].as_str().unwrap().contains("could not judge this request"));
    let response = review(port, "/mutate/fail", "default", "registry.local/a:1").await;
    assert!(response["status"]["message"].as_str().unwrap().contains("Unsigned"), "the next is judged");
}

#[tokio::test]
async fn in_the_ignore_tier_our_own_failure_admits_and_other_namespaces_do_not_get_in() {
    let port = serve("Enforce", Limits::DEFAULT).await;
    let response = review(port, "/mutate/ignore", "kube-system", "registry.local/panic:1").await;
    assert_eq!((&response["allowed"], response["warnings"].as_array().unwrap().len()), (&json!(true), 1));
    let response = review(port, "/mutate/ignore", "default", "registry.local/panic:1").await;
    assert_eq!(response["allowed"], false, "handled as /fail");
}

#[tokio::test]
async fn audit_never_waits_and_never_denies() {
    let port = serve("Audit", Limits::DEFAULT).await;
    let answer = tokio::time::timeout(
        Duration::from_secs(2),
        review(port, "/mutate/fail", "default", "registry.local/slow:1"),
    );
    let response = answer.await.unwrap();
    assert_eq!((&response["allowed"], &response["patch"]), (&json!(true), &Value::Null));
    let response = review(port, "/validate/fail", "default", "registry.local/panic:1").await;
    assert_eq!(response["allowed"], true);
}

#[tokio::test]
async fn overload_is_answered_with_the_uid() {
    let port = serve("Enforce", Limits { reviews: 1, ..Limits::DEFAULT }).await;
    let slow = tokio::spawn(async move {
        review(port, "/mutate/fail?timeout=3s", "default", "registry.local/slow:1").await
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    let response = review(port, "/mutate/fail", "default", "registry.local/a:1").await;
    assert!(response["status"]["message"].as_str().unwrap().contains("too many reviews"));
    assert_eq!(slow.await.unwrap()["allowed"], false);
}

#[tokio::test]
async fn what_is_no_review_is_an_http_error() {
    let port = serve("Enforce", Limits { body_bytes: 1000, ..Limits::DEFAULT }).await;
    assert_eq!(post(port, "/mutate/fail", b"<html>".to_vec()).await.0, 400);
    assert_eq!(
        post(port, "/mutate/fail", b"{\"apiVersion\":\"v1\",\"kind\":\"Pod\",\"request\":{}}".to_vec())
            .await
            .0,
        400
    );
    assert_eq!(post(port, "/mutate/fail", vec![b' '; 1001]).await.0, 413);
    assert_eq!(post(port, "/elsewhere", vec![]).await.0, 404);
}

/// Keeps what it is told.
#[derive(Default)]
struct Told(std::sync::Mutex<Vec<(Report, String)>>);

impl Observer for Told {
    fn answered(&self, _: Phase, _: Tier, _: bool, _: Duration) {}
    fn verdict(&self, _: &Verdict, _: bool, _: Decision) {}
    fn report(&self, _: &Subject, report: Report, message: &str) {
        self.0.lock().unwrap().push((report, message.to_owned()));
    }
}

#[tokio::test]
async fn what_a_secret_holds_is_told_to_whoever_made_the_request_alone() {
    let site = "apiVersion: countersign.dev/v1alpha1\nkind: Site\nspec:\n  registry: { name: registry.local, \
                endpoints: [{ name: a, url: 'http://127.0.0.1:1' }] }\n";
    let site = Arc::new(Site::parse(site).unwrap());
    for (action, kind, expected) in [
        ("Enforce", "Secret", Report::PolicyDenied),
        ("Audit", "Secret", Report::PolicyViolation),
        ("Enforce", "ConfigMap", Report::PolicyDenied),
    ] {
        let text = format!(
            "apiVersion: kyverno.io/v1\nkind: ClusterPolicy\nmetadata: {{ name: p }}\nspec:\n  validationFailureAction: {action}\n  \
             rules:\n    - name: r\n      match: {{ any: [{{ resources: {{ kinds: [{kind}] }} }}] }}\n      \
             validate: {{ message: 'it says {{{{ request.object.data.x }}}}', deny: {{}} }}\n"
        );
        let document = countersign_yaml::document(&text).unwrap();
        let policy = countersign_policy::load(&document, &Keys::default()).unwrap();
        assert_eq!(policy.refusals, []);
        let told = Arc::new(Told::default());
        let around = Around { observer: told.clone(), ..Around::default() };
        let engine = Engine::new(vec![policy], Arc::clone(&site));
        let service = Service::within(engine, ByName, Limits::DEFAULT, around);
        let review = json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
            "uid": "u-1", "operation": "CREATE", "namespace": "apps", "kind": { "group": "", "version": "v1", "kind": kind },
            "object": { "kind": kind, "metadata": { "name": "s" }, "data": { "x": "c2VjcmV0" } } } });
        let deadline = Instant::now() + Duration::from_secs(5);
        let body = review.to_string().into_bytes();
        let answer = service.review(&body, Phase::Validate, Tier::Fail, deadline).await.unwrap();
        let answer = String::from_utf8(answer).unwrap();
        assert_eq!(answer.contains("it says c2VjcmV0"), action == "Enforce", "{answer}");
        let told = told.0.lock().unwrap().clone();
        assert_eq!((told.len(), told[0].0), (1, expected), "{told:?}");
        assert_eq!(told[0].1.contains("c2VjcmV0"), kind == "ConfigMap", "{told:?}");
    }
}
