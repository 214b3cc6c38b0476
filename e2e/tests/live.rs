//! The webhook by what a cluster says at the moment: a real API server, real registries and cosign.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::process::{Command, Stdio};
use std::time::Duration;

use countersign_e2e::{
    ControlPlane, Cosign, KeyPair, KeyType, Process, Registry, RegistryKind, assert_isolated, countersign,
    free_port, pod, push_image, run,
};
use hyper::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::Instant;

/// How soon a change acts.
const SOON: Duration = Duration::from_secs(10);
const SITE: &str = "/apis/countersign.dev/v1alpha1/sites";
const POLICIES: &str = "/apis/kyverno.io/v1/clusterpolicies";
const NAMESPACED: &str = "/apis/kyverno.io/v1/namespaces/default/policies";
const KEYS: &str = "/api/v1/namespaces/countersign/secrets";

/// What becomes of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Pinned,
    Admitted,
    Denied,
}

struct Cluster {
    plane: ControlPlane,
    directory: TempDir,
    key: KeyPair,
    registry: Registry,
    _serve: Process,
}

impl Cluster {
    async fn start() -> Self {
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
        let (port, ca) = (free_port(), directory.path().join("ca.pem"));
        let mut serve = Command::new(countersign());
        serve.args(["serve", "--kubeconfig"]).arg(&kubeconfig);
        serve.arg("--listen").arg(format!("127.0.0.1:{port}")).arg("--ca-out").arg(&ca);
        let log = std::fs::File::create(directory.path().join("log")).unwrap();
        let serve = Process::listening(serve.stdout(log).stderr(Stdio::null()), port);
        let mut crds = Command::new(countersign());
        let crds = run(crds.args(["crds", "apply", "--kubeconfig"]).arg(&kubeconfig));
        assert_eq!(crds.0, 0, "{}", crds.2);
        let cluster = Self { plane, directory, key, registry, _serve: serve };
        cluster.post("/api/v1/namespaces", &json!({ "metadata": { "name": "countersign" } })).await;
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
        cluster.post(SITE, &site).await;
        for policy in ["prepend-registry", "check-image"] {
            let path = format!("{}/../policies/{policy}.yaml", env!("CARGO_MANIFEST_DIR"));
            let text = std::fs::read_to_string(path).unwrap();
            cluster.post(POLICIES, &countersign_yaml::document(&text).unwrap()).await;
        }
        // The last of all is what the Site names: until then no Site is good.
        cluster.post(KEYS, &Cluster::keys(&cluster.public())).await;
        cluster.plane.register(port, &std::fs::read_to_string(&ca).unwrap()).await;
        cluster
    }

    fn public(&self) -> String {
        std::fs::read_to_string(&self.key.public).unwrap()
    }

    fn keys(pem: &str) -> Value {
        json!({ "metadata": { "name": "keys" }, "stringData": { "vendor.pub": pem } })
    }

    async fn post(&self, path: &str, object: &Value) {
        // A kind that is new, or a namespace, is there after a moment.
        let posted = async || self.plane.call(Method::POST, path, Some(object)).await.0 == 201;
        self.plane.until(path, posted).await;
    }

    async fn patch(&self, path: &str, change: &Value) {
        let (status, body) = self.plane.call(Method::PATCH, path, Some(change)).await;
        assert_eq!(status, 200, "{body:#}");
    }

    async fn fate(&self, image: &str) -> Fate {
        let pod = pod("asked", &[&format!("quay.io/acme/{image}:1")]);
        let path = "/api/v1/namespaces/default/pods?dryRun=All";
        match self.plane.call(Method::POST, path, Some(&pod)).await {
            (201, stored) if stored["spec"]["containers"][0]["image"].as_str().unwrap().contains('@') => {
                Fate::Pinned
            }
            (201, _) => Fate::Admitted,
            (403, _) => Fate::Denied,
            (status, body) => panic!("{status}: {body:#}"),
        }
    }

    /// Waits until both images have these fates, and no longer than a change may take.
    async fn soon(&self, what: &str, signed: Fate, unsigned: Fate) {
        let start = Instant::now();
        loop {
            let found = (self.fate("signed").await, self.fate("unsigned").await);
            if found == (signed, unsigned) {
                return;
            }
            let log = || std::fs::read_to_string(self.directory.path().join("log")).unwrap();
            assert!(start.elapsed() < SOON, "{what}: {found:?}, and not {signed:?}, {unsigned:?}\n{}", log());
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Holds for a while.
    async fn stays(&self, what: &str, signed: Fate, unsigned: Fate) {
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!((self.fate("signed").await, self.fate("unsigned").await), (signed, unsigned), "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_cluster_says_acts_within_seconds_and_what_is_not_good_does_not() {
    use Fate::{Admitted, Denied, Pinned};
    assert_isolated();
    let cluster = Cluster::start().await;
    let site = format!("{SITE}/default");
    let check = format!("{POLICIES}/check-image");
    cluster.soon("as the files have it", Pinned, Denied).await;

    // The way out at 3 a.m., and back.
    cluster.patch(&site, &json!({ "spec": { "mode": "audit" } })).await;
    // A dry run is answered from what is at hand, and leaves nothing behind.
    cluster.soon("audit", Admitted, Admitted).await;
    cluster.patch(&site, &json!({ "spec": { "mode": "enforce" } })).await;
    cluster.soon("enforce", Pinned, Denied).await;

    // Another key, and the old one again.
    let other = Cosign::V3.key_pair(cluster.directory.path(), "other", KeyType::EcdsaP256);
    let other = std::fs::read_to_string(&other.public).unwrap();
    cluster.patch(&format!("{KEYS}/keys"), &Cluster::keys(&other)).await;
    cluster.soon("another key", Denied, Denied).await;
    cluster.patch(&format!("{KEYS}/keys"), &Cluster::keys(&cluster.public())).await;
    cluster.soon("the key again", Pinned, Denied).await;

    // What is not good leaves what was good in force.
    cluster.patch(&site, &json!({ "spec": { "tagFreshness": "1h", "mode": "audit" } })).await;
    cluster.stays("a Site that is not good", Pinned, Denied).await;
    cluster.patch(&site, &json!({ "spec": { "tagFreshness": "1s", "mode": "enforce" } })).await;
    let rules = cluster.plane.call(Method::GET, &check, None).await.1["spec"]["rules"].clone();
    cluster
        .patch(&check, &json!({ "spec": { "rules": [{ "name": "site-keys", "verifyImages": 7 }] } }))
        .await;
    cluster.stays("a policy that is not good", Pinned, Denied).await;
    cluster.patch(&format!("{KEYS}/keys"), &Cluster::keys("no key")).await;
    cluster.stays("a key that is none", Pinned, Denied).await;
    cluster.patch(&format!("{KEYS}/keys"), &Cluster::keys(&cluster.public())).await;
    let (status, _) = cluster.plane.call(Method::DELETE, &format!("{KEYS}/keys"), None).await;
    assert_eq!(status, 200);
    cluster.stays("no key", Pinned, Denied).await;
    cluster.post(KEYS, &Cluster::keys(&cluster.public())).await;
    cluster.patch(&check, &json!({ "spec": { "rules": rules.clone() } })).await;
    cluster.soon("all is well again", Pinned, Denied).await;

    // A key that is taken out of the Site is gone, whatever a policy was before.
    cluster
        .patch(&check, &json!({ "spec": { "rules": [{ "name": "site-keys", "verifyImages": 7 }] } }))
        .await;
    cluster.stays("a policy that is not good", Pinned, Denied).await;
    cluster.patch(&site, &json!({ "spec": { "trust": null } })).await;
    cluster.soon("no key in the Site", Denied, Denied).await;
    let keys = json!({ "keys": { "vendor": { "secret": { "name": "keys", "key": "vendor.pub" } } } });
    cluster.patch(&site, &json!({ "spec": { "trust": keys } })).await;
    cluster.patch(&check, &json!({ "spec": { "rules": rules } })).await;
    cluster.soon("the key again", Pinned, Denied).await;

    // A policy that goes is gone; one of a namespace counts there.
    let checked = cluster.plane.call(Method::GET, &check, None).await.1;
    assert_eq!(cluster.plane.call(Method::DELETE, &check, None).await.0, 200);
    cluster.soon("no policy", Admitted, Admitted).await;
    let mut own = checked;
    own["kind"] = json!("Policy");
    own["metadata"] = json!({ "name": "own", "namespace": "default" });
    cluster.post(NAMESPACED, &own).await;
    cluster.soon("a policy of the namespace", Pinned, Denied).await;

    let log = std::fs::read_to_string(cluster.directory.path().join("log")).unwrap();
    for words in ["the last one that was stays in force", "the last version that was good stays in force"] {
        assert!(log.contains(words), "{words}: {log}");
    }
    let text = cluster.public();
    assert!(!log.contains(text.lines().nth(1).unwrap()), "what a Secret holds is in no log");
}
