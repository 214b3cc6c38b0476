//! A real etcd and kube-apiserver on loopback.

use std::process::{Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use countersign_https::{Authority, ClientTls};
use http_body_util::{BodyExt as _, Full};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE};
use hyper::{Method, Request};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{PATIENCE, Process, free_port, tool};

const TOKEN: &str = "e2e-admin";

/// etcd and kube-apiserver, and a client that may do everything.
pub struct ControlPlane {
    port: u16,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    /// For what the parts of it share: keys and logs.
    directory: TempDir,
    _apiserver: Process,
    _etcd: Process,
}

/// Where the API server is, and who vouches for it.
struct Address<'a> {
    bind: &'a str,
    advertise: &'a str,
    port: u16,
    authority: Option<(&'a Authority, &'a [&'a str])>,
}

impl ControlPlane {
    /// Starts both and waits until the API server is ready and has a service account to make pods with.
    pub async fn start() -> Self {
        let here = "127.0.0.1";
        Self::start_at(Address { bind: here, advertise: here, port: free_port(), authority: None }).await
    }

    /// The same for a node: on every address of a machine, where pods can reach it.
    pub async fn start_for_node(address: &str, authority: &Authority) -> Self {
        let names = [address, "127.0.0.1", "10.96.0.1", "kubernetes.default.svc"];
        let authority = Some((authority, names.as_slice()));
        Self::start_at(Address { bind: "0.0.0.0", advertise: address, port: 6443, authority }).await
    }

    async fn start_at(at: Address<'_>) -> Self {
        let directory = TempDir::new().unwrap();
        let path = |name: &str| directory.path().join(name);
        let (client_port, peer_port, port) = (free_port(), free_port(), at.port);
        let (etcd_url, peer_url) =
            (format!("http://127.0.0.1:{client_port}"), format!("http://127.0.0.1:{peer_port}"));
        let log = |name: &str| Stdio::from(std::fs::File::create(path(name)).unwrap());
        let mut etcd = Command::new(tool("kubernetes"));
        etcd.args(["etcd", "--unsafe-no-fsync", "--name=e2e", "--data-dir"]).arg(path("etcd"));
        for (flag, url) in [
            ("--listen-client-urls", &etcd_url),
            ("--advertise-client-urls", &etcd_url),
            ("--listen-peer-urls", &peer_url),
            ("--initial-advertise-peer-urls", &peer_url),
        ] {
            etcd.arg(format!("{flag}={url}"));
        }
        etcd.arg(format!("--initial-cluster=e2e={peer_url}")).stdout(Stdio::null()).stderr(log("etcd.log"));
        let etcd = Process::listening(&mut etcd, client_port);

        std::fs::write(path("tokens.csv"), format!("{TOKEN},admin,admin,system:masters\n")).unwrap();
        // The public half is read out of a certificate.
        let identity = Authority::generate("service accounts").unwrap().issue(&["sa"]).unwrap();
        std::fs::write(path("sa.key"), identity.key_pem).unwrap();
        std::fs::write(path("sa.pem"), identity.chain_pem).unwrap();
        let mut apiserver = Command::new(tool("kubernetes"));
        apiserver.arg("kube-apiserver").args([
            format!("--etcd-servers={etcd_url}"),
            format!("--secure-port={port}"),
            format!("--token-auth-file={}", path("tokens.csv").display()),
            format!("--service-account-key-file={}", path("sa.pem").display()),
            format!("--service-account-signing-key-file={}", path("sa.key").display()),
            format!("--cert-dir={}", path("certificates").display()),
        ]);
        if let Some((authority, names)) = at.authority {
            let identity = authority.issue(names).unwrap();
            std::fs::write(path("ca.pem"), authority.pem()).unwrap();
            std::fs::write(path("tls.pem"), identity.chain_pem).unwrap();
            std::fs::write(path("tls.key"), identity.key_pem).unwrap();
            apiserver.arg(format!("--tls-cert-file={}", path("tls.pem").display()));
            apiserver.arg(format!("--tls-private-key-file={}", path("tls.key").display()));
            apiserver.arg("--endpoint-reconciler-type=lease");
        } else {
            // An address of loopback is no endpoint.
            apiserver.arg("--endpoint-reconciler-type=none");
        }
        apiserver.arg(format!("--bind-address={}", at.bind));
        apiserver.arg(format!("--advertise-address={}", at.advertise));
        apiserver.args([
            "--authorization-mode=Node,RBAC",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--service-cluster-ip-range=10.96.0.0/16",
            "--allow-privileged=true",
        ]);
        apiserver.stdout(Stdio::null()).stderr(log("apiserver.log"));
        let apiserver = Process::listening(&mut apiserver, port);

        let tls = ClientTls { skip_verify: true, ..ClientTls::default() };
        let https = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(countersign_https::client(&tls).unwrap())
            .https_only()
            .enable_http1()
            .build();
        let client = Client::builder(TokioExecutor::new()).build(https);
        let plane = Self { port, client, directory, _apiserver: apiserver, _etcd: etcd };
        plane
            .until("the API server is ready", async || {
                plane.call(Method::GET, "/readyz", None).await.0 == 200
            })
            .await;
        if at.authority.is_some() {
            return plane;
        }
        // There is no controller that would make it.
        plane
            .until("a service account can be made", async || {
                let account = json!({ "metadata": { "name": "default" } });
                let path = "/api/v1/namespaces/default/serviceaccounts";
                matches!(plane.call(Method::POST, path, Some(&account)).await.0, 201 | 409)
            })
            .await;
        plane
    }

    /// Where the API server listens on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// A file that the parts of it share.
    pub fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    /// A kubeconfig for whoever may do everything.
    pub fn kubeconfig(&self) -> String {
        self.kubeconfig_at(self.port)
    }

    /// The same for a server on another port.
    pub fn kubeconfig_at(&self, port: u16) -> String {
        let server = format!("https://127.0.0.1:{port}");
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "e2e",
            "clusters": [{ "name": "e2e", "cluster": { "server": server, "insecure-skip-tls-verify": true } }],
            "users": [{ "name": "admin", "user": { "token": TOKEN } }],
            "contexts": [{ "name": "e2e", "context": { "cluster": "e2e", "user": "admin" } }],
        })
        .to_string()
    }

    /// Waits until something holds.
    pub async fn until(&self, what: &str, mut holds: impl AsyncFnMut() -> bool) {
        let mut tries = PATIENCE.as_millis() / 100;
        while !holds().await {
            tries -= 1;
            assert!(tries > 0, "not within {} s: {what}", PATIENCE.as_secs());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// One request: status and body.
    pub async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> (u16, Value) {
        let (status, body, _) = self.warned(method, path, body).await;
        (status, body)
    }

    /// One request: status, body, and warnings.
    pub async fn warned(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> (u16, Value, Vec<String>) {
        let content_type =
            if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
        let body = body.map(|body| body.to_string().into_bytes()).unwrap_or_default();
        let request = Request::builder()
            .method(method)
            .uri(format!("https://127.0.0.1:{}{path}", self.port))
            .header(AUTHORIZATION, format!("Bearer {TOKEN}"))
            .header(CONTENT_TYPE, content_type)
            .body(Full::new(body.into()))
            .unwrap();
        self.send(request).await
    }

    /// Reads any URL of this machine: status and body.
    pub async fn get(&self, url: &str) -> (u16, Value) {
        let (status, body, _) = self.send(Request::get(url).body(Full::default()).unwrap()).await;
        (status, body)
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> (u16, Value, Vec<String>) {
        let Ok(response) = self.client.request(request).await else { return (0, Value::Null, vec![]) };
        let status = response.status().as_u16();
        let warnings = response.headers().get_all("warning").iter();
        let warnings = warnings.map(|text| text.to_str().unwrap().to_owned()).collect();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let body = serde_json::from_slice(&body).unwrap_or_else(|_| json!(String::from_utf8_lossy(&body)));
        (status, body, warnings)
    }

    /// Registers both webhooks by URL, and waits until they are in force.
    pub async fn register(&self, port: u16, ca_pem: &str) {
        use base64::Engine as _;
        let bundle = base64::engine::general_purpose::STANDARD.encode(ca_pem);
        for (kind, phase) in [("Mutating", "mutate"), ("Validating", "validate")] {
            let mut webhook = json!({
                "name": format!("{phase}.countersign.dev"),
                "clientConfig": { "url": format!("https://127.0.0.1:{port}/{phase}/fail"), "caBundle": bundle },
                "rules": [{
                    "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"],
                    "resources": ["pods", "pods/ephemeralcontainers"],
                }],
                "failurePolicy": "Fail", "sideEffects": "NoneOnDryRun", "matchPolicy": "Equivalent",
                "timeoutSeconds": 10, "admissionReviewVersions": ["v1"],
            });
            if kind == "Mutating" {
                webhook["reinvocationPolicy"] = json!("IfNeeded");
            }
            let configuration = json!({
                "apiVersion": "admissionregistration.k8s.io/v1", "kind": format!("{kind}WebhookConfiguration"),
                "metadata": { "name": "countersign" }, "webhooks": [webhook],
            });
            let path =
                format!("/apis/admissionregistration.k8s.io/v1/{}webhookconfigurations", kind.to_lowercase());
            let (status, body) = self.call(Method::POST, &path, Some(&configuration)).await;
            assert_eq!(status, 201, "{body:#}");
        }
        self.until_called().await;
    }

    /// Waits until both webhooks are in force in the default namespace.
    pub async fn until_called(&self) {
        self.until("both webhooks are called", async || {
            let mut pod = pod("probe", &["registry.local/Not-A-Reference"]);
            let create = "/api/v1/namespaces/default/pods?dryRun=All";
            let denied = self.call(Method::POST, create, Some(&pod)).await.0 == 403;
            pod["spec"]["containers"][0]["image"] = json!("registry.local/none:1");
            denied && self.call(Method::POST, create, Some(&pod)).await.0 == 403
        })
        .await;
    }

    /// Makes the Deployment that an installation of the program is, for replicas outside the cluster.
    pub async fn install(&self, namespace: &str) {
        let labels = json!({ "app": "countersign" });
        let deployment = json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "countersign" },
            "spec": {
                "selector": { "matchLabels": labels },
                "template": {
                    "metadata": { "labels": labels },
                    "spec": { "containers": [{ "name": "countersign", "image": "registry.local/countersign:1" }] },
                },
            },
        });
        let path = format!("/apis/apps/v1/namespaces/{namespace}/deployments");
        let (status, body) = self.call(Method::POST, &path, Some(&deployment)).await;
        assert_eq!(status, 201, "{body:#}");
    }

    /// Creates a pod in the default namespace.
    pub async fn create_pod(&self, pod: &Value) -> (u16, Value) {
        self.call(Method::POST, "/api/v1/namespaces/default/pods", Some(pod)).await
    }
}

/// A pod with a container for each image.
pub fn pod(name: &str, images: &[&str]) -> Value {
    let containers: Vec<_> = images
        .iter()
        .enumerate()
        .map(|(i, image)| json!({ "name": format!("c{i}"), "image": image }))
        .collect();
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name },
        "spec": { "containers": containers, "automountServiceAccountToken": false },
    })
}
