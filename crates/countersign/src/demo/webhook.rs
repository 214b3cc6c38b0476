//! The real webhook server, and a client that speaks to it as an API server does.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use countersign_evidence::Memory;
use countersign_https::{Authority, ClientTls, ServeLimits};
use countersign_site::Site;
use countersign_verifier::SourceLoader;
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::Instant;

use crate::{policies, serve, sources};

/// `tagFreshness` of the demonstration's Site: short, so that it ends soon.
pub(crate) const FRESHNESS: Duration = Duration::from_millis(500);
const POLICIES: [&str; 2] = [
    include_str!("../../../../policies/prepend-registry.yaml"),
    include_str!("../../../../policies/check-image.yaml"),
];

/// A webhook server in this process.
pub(crate) struct Webhook {
    port: u16,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

/// What the server answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) allowed: bool,
    pub(crate) message: String,
    pub(crate) warnings: String,
    /// The image that would be stored.
    pub(crate) image: Option<String>,
    pub(crate) time: Duration,
}

impl Answer {
    /// The line of a denial that says what was found.
    pub(crate) fn verdict(&self) -> Option<&str> {
        self.message.lines().find_map(|line| line.trim_start().strip_prefix("verdict")).map(str::trim)
    }
}

impl Webhook {
    pub(crate) async fn start(
        authority: &Authority,
        keys: &str,
        ports: [u16; 2],
        mode: &str,
    ) -> Result<Self> {
        let endpoint = |name: &str, port: u16| json!({ "name": name, "url": format!("https://127.0.0.1:{port}"), "ca": { "pem": authority.pem() } });
        let site = json!({
            "apiVersion": "countersign.dev/v1alpha1", "kind": "Site",
            "spec": {
                "mode": mode, "tagFreshness": format!("{}ms", FRESHNESS.as_millis()),
                "registry": {
                    "name": "registry.local",
                    "endpoints": [endpoint("bootstrap", ports[0]), endpoint("cluster", ports[1])],
                },
                "trust": { "keys": { "vendor": { "pem": keys } } },
            },
        });
        let site = Arc::new(Site::parse(&site.to_string())?);
        let load: Arc<SourceLoader> = Arc::new(sources::loader(PathBuf::new()));
        let keys = policies::keys(&site, &*load)?;
        let mut policies = Vec::new();
        for text in POLICIES {
            policies.extend(countersign_policy::load(&countersign_yaml::document(text)?, &keys));
        }
        let service = serve::webhook(&site, policies, load, Arc::new(Memory::default()))?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let tls = Arc::new(countersign_https::server(&authority.issue(&["127.0.0.1"])?)?);
        let handler = move |request| Arc::clone(&service).answer(request);
        let end = std::future::pending();
        tokio::spawn(countersign_https::serve(listener, Some(tls), ServeLimits::DEFAULT, handler, end));

        let tls = ClientTls { ca_pem: vec![authority.pem().to_owned()], ..ClientTls::default() };
        let https = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(countersign_https::client(&tls)?)
            .https_only()
            .enable_http1()
            .build();
        Ok(Self { port, client: Client::builder(TokioExecutor::new()).build(https) })
    }

    /// What becomes of a new pod with this image: both webhooks, one after the other, as an API
    /// server calls them.
    pub(crate) async fn create(&self, image: &str) -> Result<Answer> {
        let mutated = self.call("mutate", image).await?;
        let Some(stored) = mutated.image.as_deref().filter(|_| mutated.allowed) else { return Ok(mutated) };
        let validated = self.validate(stored).await?;
        let time = mutated.time + validated.time;
        Ok(if validated.allowed { Answer { time, ..mutated } } else { Answer { time, ..validated } })
    }

    /// Whether a pod with this image may be stored.
    pub(crate) async fn validate(&self, image: &str) -> Result<Answer> {
        self.call("validate", image).await
    }

    async fn call(&self, phase: &str, image: &str) -> Result<Answer> {
        let mut pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "demo", "namespace": "default" },
            "spec": { "containers": [{ "name": "app", "image": image }] },
        });
        let review = json!({
            "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
            "request": {
                "uid": "demo", "operation": "CREATE", "namespace": "default",
                "kind": { "group": "", "version": "v1", "kind": "Pod" }, "object": pod,
            },
        });
        let start = Instant::now();
        let uri = format!("https://127.0.0.1:{}/{phase}/fail?timeout=10s", self.port);
        let request = Request::post(uri).header("content-type", "application/json");
        let response = self.client.request(request.body(Full::new(review.to_string().into()))?).await?;
        let body = response.into_body().collect().await?.to_bytes();
        let time = start.elapsed();
        let answer: Value = serde_json::from_slice(&body).context("the webhook's answer")?;
        let response = &answer["response"];
        if let Some(patch) = response["patch"].as_str() {
            let patch: json_patch::Patch = serde_json::from_slice(&STANDARD.decode(patch)?)?;
            json_patch::patch(&mut pod, &patch)?;
        }
        let warnings = response["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str);
        Ok(Answer {
            allowed: response["allowed"] == true,
            message: response["status"]["message"].as_str().unwrap_or_default().trim().to_owned(),
            warnings: warnings.collect::<Vec<_>>().join("\n"),
            image: pod.pointer("/spec/containers/0/image").and_then(Value::as_str).map(ToOwned::to_owned),
            time,
        })
    }
}
