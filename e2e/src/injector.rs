//! Somebody else's webhook, which adds sidecars after ours.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign_https::{Authority, Body, ServeLimits, full};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::{Method, Request, Response};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::ControlPlane;

/// Adds one container with each call, up to so many.
pub struct Injector {
    calls: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

impl Injector {
    /// Serves, and registers itself under a name that comes after ours; containers get this image.
    pub async fn register(plane: &ControlPlane, image: &str) -> Self {
        let authority = Authority::generate("injector").unwrap();
        let tls = Arc::new(countersign_https::server(&authority.issue(&["127.0.0.1"]).unwrap()).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}/inject", listener.local_addr().unwrap());
        let injector = Self { calls: Arc::default(), most: Arc::default() };
        let (calls, most, image) =
            (Arc::clone(&injector.calls), Arc::clone(&injector.most), image.to_owned());
        let handler = move |request: Request<Incoming>| {
            let (calls, most, image) = (Arc::clone(&calls), Arc::clone(&most), image.clone());
            async move { answer(request, &calls, &most, &image).await }
        };
        tokio::spawn(async move {
            countersign_https::serve(
                listener,
                Some(tls),
                ServeLimits::DEFAULT,
                handler,
                std::future::pending::<()>(),
            )
            .await;
        });
        let configuration = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
            "metadata": { "name": "zzz-injector" },
            "webhooks": [{
                "name": "inject.mesh.example", "admissionReviewVersions": ["v1"], "sideEffects": "None",
                "reinvocationPolicy": "IfNeeded", "failurePolicy": "Fail",
                "clientConfig": { "url": url, "caBundle": STANDARD.encode(authority.pem()) },
                "rules": [{ "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"] }],
            }],
        });
        let path = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
        assert_eq!(plane.call(Method::POST, path, Some(&configuration)).await.0, 201);
        injector
    }

    /// Adds so many containers to each pod from now on: the second with a second call.
    pub fn add(&self, most: usize) {
        self.calls.store(0, Ordering::SeqCst);
        self.most.store(most, Ordering::SeqCst);
    }
}

async fn answer(
    request: Request<Incoming>,
    calls: &AtomicUsize,
    most: &AtomicUsize,
    image: &str,
) -> Response<Body> {
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let review: Value = serde_json::from_slice(&body).unwrap();
    let mut response = json!({ "uid": review["request"]["uid"], "allowed": true });
    let call = calls.fetch_add(1, Ordering::SeqCst);
    if call < most.load(Ordering::SeqCst) {
        let sidecar = json!({ "name": format!("sidecar-{call}"), "image": image });
        let patch = json!([{ "op": "add", "path": "/spec/containers/-", "value": sidecar }]);
        response["patchType"] = json!("JSONPatch");
        response["patch"] = json!(STANDARD.encode(patch.to_string()));
    }
    let review =
        json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response });
    Response::new(full(review.to_string()))
}
