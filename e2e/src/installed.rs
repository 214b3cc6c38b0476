//! The program beside a real API server, with a Site, the shipped policies and two images.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use hyper::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::Instant;

use crate::{
    ControlPlane, Cosign, KeyPair, KeyType, Process, Pushed, Registry, RegistryKind, countersign, free_port,
    pod, push_image, run,
};

/// How soon a change acts.
const SOON: Duration = Duration::from_secs(10);
/// Sites in the API.
pub const SITES: &str = "/apis/countersign.dev/v1alpha1/sites";
/// Policies for the cluster.
pub const POLICIES: &str = "/apis/kyverno.io/v1/clusterpolicies";
/// Policies for one namespace.
pub const NAMESPACED: &str = "/apis/kyverno.io/v1/namespaces/default/policies";
/// Secrets of the program's namespace.
pub const SECRETS: &str = "/api/v1/namespaces/countersign/secrets";

/// What becomes of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is stored with the digest.
    Pinned,
    /// It is stored without.
    Admitted,
    /// It is denied.
    Denied,
    /// The webhook could not be called, and that denies it.
    Closed,
}

/// The program beside an API server.
pub struct Installed {
    /// The cluster.
    pub plane: ControlPlane,
    /// For files of the test: `kubeconfig` and `log` are there.
    pub directory: TempDir,
    /// Who signs.
    pub key: KeyPair,
    /// The registry, with `quay.io/acme/signed:1` and `quay.io/acme/unsigned:1`.
    pub registry: Registry,
    /// The signed image.
    pub signed: Pushed,
    /// Processes of the program.
    pub replicas: Vec<Process>,
    port: u16,
}

impl Installed {
    /// Starts all of it with one replica, which has no Site yet.
    pub async fn without_site() -> Self {
        let directory = TempDir::new().unwrap();
        let registry = Registry::start(RegistryKind::Distribution);
        let key = Cosign::V3.key_pair(directory.path(), "vendor", KeyType::EcdsaP256);
        let signed = push_image(&registry.host(), "quay.io/acme/signed", "1", "signed").await;
        Cosign::V3.sign(directory.path(), &key, &signed.by_digest());
        push_image(&registry.host(), "quay.io/acme/unsigned", "1", "unsigned").await;
        let plane = ControlPlane::start().await;
        let kubeconfig = directory.path().join("kubeconfig");
        std::fs::write(&kubeconfig, plane.kubeconfig()).unwrap();

        // Nothing is there yet: the program waits, and says that it is not ready.
        let port = free_port();
        let replicas = vec![serve(directory.path(), port)];
        let mut crds = Command::new(countersign());
        let crds = run(crds.args(["crds", "apply", "--kubeconfig"]).arg(&kubeconfig));
        assert_eq!(crds.0, 0, "{}", crds.2);
        let cluster = Self { plane, directory, key, registry, signed, replicas, port };
        cluster.post("/api/v1/namespaces", &json!({ "metadata": { "name": "countersign" } })).await;
        cluster.plane.install("countersign").await;
        cluster
    }

    /// The same with a Site, its key and the shipped policies; waits until the webhooks are called.
    pub async fn start() -> Self {
        let cluster = Self::without_site().await;
        let site = json!({
            "apiVersion": "countersign.dev/v1alpha1", "kind": "Site", "metadata": { "name": "default" },
            "spec": {
                "registry": { "name": "registry.local", "endpoints": [
                    { "name": "cluster", "url": format!("http://{}", cluster.registry.host()) },
                ] },
                "trust": { "keys": { "vendor": { "secret": { "name": "keys", "key": "vendor.pub" } } } },
                "tagFreshness": "1s",
            },
        });
        cluster.post(SITES, &site).await;
        for policy in ["prepend-registry", "check-image"] {
            let path = format!("{}/../policies/{policy}.yaml", env!("CARGO_MANIFEST_DIR"));
            let text = std::fs::read_to_string(path).unwrap();
            cluster.post(POLICIES, &countersign_yaml::document(&text).unwrap()).await;
        }
        // The last of all is what the Site names: until then no Site is good.
        cluster.post(SECRETS, &Self::keys(&cluster.public())).await;
        cluster.plane.until_called().await;
        cluster
    }

    /// One more replica.
    pub fn more(&mut self) {
        self.replicas.push(serve(self.directory.path(), free_port()));
    }

    /// Another process in its place, which knows nothing but what the cluster keeps.
    pub async fn restart(&mut self) {
        self.replicas.clear();
        self.replicas.push(serve(self.directory.path(), self.port));
        self.plane.until_called().await;
    }

    /// The vendor's public key.
    pub fn public(&self) -> String {
        std::fs::read_to_string(&self.key.public).unwrap()
    }

    /// A Secret with a key.
    pub fn keys(pem: &str) -> Value {
        json!({ "metadata": { "name": "keys" }, "stringData": { "vendor.pub": pem } })
    }

    /// Makes an object, as soon as its kind is known.
    pub async fn post(&self, path: &str, object: &Value) {
        // A kind that is new, or a namespace, is there after a moment.
        let posted = async || self.plane.call(Method::POST, path, Some(object)).await.0 == 201;
        self.plane.until(path, posted).await;
    }

    /// Changes an object.
    pub async fn patch(&self, path: &str, change: &Value) {
        let (status, body) = self.plane.call(Method::PATCH, path, Some(change)).await;
        assert_eq!(status, 200, "{body:#}");
    }

    /// What becomes of a pod with this image.
    pub async fn fate(&self, image: &str) -> Fate {
        self.fate_in("default", image).await
    }

    /// The same in a namespace.
    pub async fn fate_in(&self, namespace: &str, image: &str) -> Fate {
        let pod = pod("asked", &[&format!("quay.io/acme/{image}:1")]);
        let path = format!("/api/v1/namespaces/{namespace}/pods?dryRun=All");
        match self.plane.call(Method::POST, &path, Some(&pod)).await {
            (201, stored) if stored["spec"]["containers"][0]["image"].as_str().unwrap().contains('@') => {
                Fate::Pinned
            }
            (201, _) => Fate::Admitted,
            (403, _) => Fate::Denied,
            (500, body)
                if body["message"].as_str().is_some_and(|said| said.contains("failed calling webhook")) =>
            {
                Fate::Closed
            }
            (status, body) => panic!("{status}: {body:#}"),
        }
    }

    /// Waits until both images have these fates, and no longer than a change may take.
    pub async fn soon(&self, what: &str, signed: Fate, unsigned: Fate) {
        let start = Instant::now();
        loop {
            let found = (self.fate("signed").await, self.fate("unsigned").await);
            if found == (signed, unsigned) {
                return;
            }
            let log = || self.log();
            assert!(start.elapsed() < SOON, "{what}: {found:?}, and not {signed:?}, {unsigned:?}\n{}", log());
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Waits until the status of an object says whether it is in force.
    pub async fn says(&self, path: &str, reason: &str, words: &str) {
        self.says_of(path, "Ready", reason, words).await;
    }

    /// Waits until a condition of an object says so.
    pub async fn says_of(&self, path: &str, condition: &str, reason: &str, words: &str) {
        let (what, kind) = (format!("{path} says {condition}, {reason}, {words}"), condition);
        self.plane
            .until(&what, async || {
                let object = self.plane.call(Method::GET, path, None).await.1;
                let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
                conditions.iter().any(|condition| {
                    condition["type"] == kind
                        && condition["reason"] == reason
                        && condition["observedGeneration"] == object["metadata"]["generation"]
                        && condition["message"].as_str().unwrap().contains(words)
                })
            })
            .await;
    }

    /// Runs the program on this cluster: exit code, stdout, stderr.
    pub async fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        let mut command = Command::new(countersign());
        command.args(arguments).arg("--kubeconfig").arg(self.directory.path().join("kubeconfig"));
        tokio::task::spawn_blocking(move || run(&mut command)).await.unwrap()
    }

    /// What the replicas have said.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap()
    }

    /// What the first replica shows under `/metrics`.
    pub async fn metrics(&self) -> String {
        let path = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/countersign";
        let own = self.plane.call(Method::GET, path, None).await.1;
        let url =
            own["webhooks"][0]["clientConfig"]["url"].as_str().unwrap().replace("/mutate/fail", "/metrics");
        let answer = self.plane.get(&url).await;
        assert_eq!(answer.0, 200, "{}", answer.1);
        answer.1.as_str().unwrap().to_owned()
    }

    /// Holds for a while.
    pub async fn stays(&self, what: &str, signed: Fate, unsigned: Fate) {
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!((self.fate("signed").await, self.fate("unsigned").await), (signed, unsigned), "{what}");
    }
}

/// A replica outside the cluster.
fn serve(directory: &Path, port: u16) -> Process {
    let mut serve = Command::new(countersign());
    serve.args(["serve", "--kubeconfig"]).arg(directory.join("kubeconfig"));
    serve.arg("--listen").arg(format!("127.0.0.1:{port}"));
    serve.arg("--webhook-url").arg(format!("https://127.0.0.1:{port}"));
    let log = std::fs::File::options().create(true).append(true).open(directory.join("log")).unwrap();
    Process::listening(serve.stdout(log).stderr(Stdio::null()), port)
}
