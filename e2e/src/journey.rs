//! An air-gapped install on a machine of its own, step by step.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use countersign_evidence::Origin;
use countersign_https::Authority;
use countersign_reference::Digest;
use countersign_signature::sign::{Scheme, Signer};
use hyper::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::containerd::addresses;
use crate::machine::{BOOTSTRAP, CLUSTER, DNS, NODE, UPSTREAM};
use crate::{
    Cosign, Daemon, KeyPair, KeyType, NodeCluster, Pushed, Registry, RegistryKind, SITES, countersign,
    push_program, run, succeed, tag_record, tool,
};

const VERSION: &str = env!("CARGO_PKG_VERSION");
const EVIDENCE: &str = "/apis/countersign.dev/v1alpha1/imageevidences";

/// What crosses the gap besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// Nothing.
    Nothing,
    /// An image that nobody has signed.
    Unsigned,
}

/// What crosses the gap, and who stands behind it.
pub struct Carried {
    /// The bundle.
    pub bundle: PathBuf,
    /// Who has signed the images.
    pub vendor: KeyPair,
    /// Who has sealed it.
    pub seal: PathBuf,
    /// Our own image.
    pub own: Pushed,
    /// An application.
    pub db: Pushed,
    /// The registry's image.
    pub registry: Pushed,
}

/// The connected side: it is gone when this is over.
async fn carried(directory: &Path, planted: Planted) -> Carried {
    let registry = Registry::start(RegistryKind::WithReferrers);
    let host = registry.host();
    let vendor = Cosign::V3.key_pair(directory, "vendor", KeyType::EcdsaP256);
    // The program's own image is pushed and signed like any other.
    let layout = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/image/layout");
    let mut push = Command::new(countersign());
    push.args(["mirror", "push"]).arg(&layout).arg("--to").arg(format!("http://{host}"));
    succeed(&mut push);
    let index = std::fs::read_to_string(layout.join("index.json")).unwrap();
    let index: Value = serde_json::from_str(&index).unwrap();
    let there = |repository: &str, tag: &str| {
        let name = format!("{repository}:{tag}");
        let entries = index["manifests"].as_array().unwrap();
        let named =
            |entry: &&Value| entry["annotations"]["org.opencontainers.image.ref.name"] == name.as_str();
        let digest = entries.iter().find(named).unwrap()["digest"].as_str().unwrap();
        Pushed::there(&host, repository, tag, digest)
    };
    let own = there("countersign/countersign", VERSION);
    let canaries = ["bootstrap", "cluster"].map(|tag| there("countersign/canary", tag));
    let app = tool("app");
    let program = async |repository: &str, tag: &str, arguments: &[&str]| {
        push_program(&host, repository, tag, &app, arguments).await
    };
    let pause = program("acme/pause", "1", &["pause"]).await;
    let db = program("acme/db", "1.4", &["serve", ":8080", "db"]).await;
    let web = program("acme/web", "2", &["serve", ":8080", "web"]).await;
    let evil = program("acme/evil", "1", &["serve", ":8080", "evil"]).await;
    let nexus =
        push_program(&host, "acme/registry", "3", &tool("registry"), &["serve", "/etc/registry/config.yaml"])
            .await;
    for image in [&own, &pause, &db, &web, &nexus].into_iter().chain(&canaries) {
        Cosign::V3.sign(directory, &vendor, &image.by_digest());
    }
    let signer = Signer::generate(Scheme::Ed25519).unwrap();
    let (private, seal) = (directory.join("seal.pem"), directory.join("seal.pub"));
    std::fs::write(&private, signer.private_pem().unwrap()).unwrap();
    std::fs::write(&seal, signer.public_pem()).unwrap();
    let bundle = directory.join("bundle.tar");
    let mut create = Command::new(countersign());
    create.args(["bundle", "create", "--to"]).arg(&bundle).arg("--key").arg(&vendor.public);
    for name in ["registry.local", "quay.io", "ghcr.io"] {
        create.arg("--registry").arg(format!("{name}=http://{host}"));
    }
    create.arg("--sign-key").arg(&private);
    for image in [&pause, &db, &nexus] {
        create.arg(image.named("quay.io"));
    }
    if planted == Planted::Unsigned {
        create.arg(evil.named("quay.io"));
    }
    create.arg(web.named("ghcr.io"));
    for image in [&own].into_iter().chain(&canaries) {
        create.arg(image.named("registry.local"));
    }
    let (code, _, err) = run(&mut create);
    assert_eq!(code, i32::from(planted == Planted::Unsigned), "{err}");
    assert_eq!(err.contains("acme/evil:1 has no signature"), planted == Planted::Unsigned, "{err}");
    Carried { bundle, vendor, seal, own, db, registry: nexus }
}

/// A site on its way.
pub struct Install {
    /// For files of the test.
    pub directory: TempDir,
    /// Whether Enforce enforces.
    pub enforce: bool,
    /// What has crossed the gap.
    pub carried: Carried,
    /// The cluster, with one node.
    pub cluster: NodeCluster,
    /// The bootstrap registry, if it runs.
    pub bootstrap: Option<Daemon>,
    /// The platform's CA.
    pub platform: Authority,
    /// Whoever plays the rest of the world.
    pub upstream: Upstream,
}

impl Install {
    /// A machine with a control plane and containerd, and what has crossed the gap: nothing of ours is
    /// installed.
    pub async fn prepare(mode: &str, planted: Planted) -> Self {
        let directory = TempDir::new().unwrap();
        let path = directory.path();
        let carried = carried(path, planted).await;
        let upstream = Upstream::listen();

        // The bootstrap machine.
        let platform = Authority::generate("platform").unwrap();
        std::fs::write(path.join("ca.pem"), platform.pem()).unwrap();
        std::fs::write(path.join("ca.key"), platform.key_pem()).unwrap();

        // For whoever asks the site's DNS, the logical name leads to the bootstrap machine, as an override does.
        let names = [("pit.nmn", BOOTSTRAP), ("registry.local", BOOTSTRAP)];
        let cluster = NodeCluster::start(path, &names, UPSTREAM).await;
        let enforce = mode == "enforce";
        // What an installer's machine has.
        let bin = directory.path().join("bin");
        std::fs::create_dir(&bin).unwrap();
        for (name, program) in [("containerd", "containerd2"), ("ctr", "ctr2"), ("helm", "helm")] {
            std::os::unix::fs::symlink(tool(program), bin.join(name)).unwrap();
        }
        let kubectl = format!("#!/bin/sh\nexec {} kubectl \"$@\"\n", tool("kubernetes").display());
        std::fs::write(bin.join("kubectl"), kubectl).unwrap();
        succeed(Command::new("chmod").arg("755").arg(bin.join("kubectl")));
        let site = Self { directory, enforce, carried, cluster, bootstrap: None, platform, upstream };
        let document = site.document(mode);
        std::fs::write(site.path("site.yaml"), document.to_string()).unwrap();
        site
    }

    /// Everything up to the point at which other charts are installed.
    pub async fn begin(mode: &str) -> Self {
        let mut site = Self::prepare(mode, Planted::Unsigned).await;
        site.serve();
        site.node().await;
        site.ours().await;
        site
    }

    /// The bootstrap machine's registry.
    pub fn serve(&mut self) {
        let mut bootstrap = Command::new(countersign());
        bootstrap
            .args(["registry", "serve"])
            .arg(&self.carried.bundle)
            .args(["--listen", &format!("{BOOTSTRAP}:443")]);
        bootstrap
            .args(["--name", "pit.nmn", "--name", "registry.local", "--ca-cert"])
            .arg(self.path("ca.pem"));
        bootstrap.arg("--ca-key").arg(self.path("ca.key"));
        self.bootstrap = Some(Daemon::start(&mut bootstrap, &self.path("bootstrap.log")));
    }

    /// A node, whose files come first.
    pub async fn node(&mut self) {
        // The node's files, before it is one.
        let apply = format!(
            "countersign node apply --site site.yaml --bundle bundle.tar --ctr {} --containerd {}",
            tool("ctr2").display(),
            tool("containerd2").display()
        );
        self.sh(&apply).await;
        self.cluster.start_containerd_again();
        self.cluster.start_kubelet().await;
    }

    /// Our chart once more, after it was uninstalled.
    pub async fn ours_again(&self) {
        let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/countersign");
        let chart = chart.display();
        self.sh(&format!(
            "helm install countersign {chart} --namespace countersign --set replicas=1 --wait --timeout 100s"
        ))
        .await;
        let path = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/countersign";
        let registered = async || self.cluster.plane.call(Method::GET, path, None).await.0 == 200;
        self.cluster.until("a new install registers", registered).await;
    }

    /// Asks what would become of a pod of one image.
    pub async fn post_pod_dry(&self, namespace: &str, name: &str, image: &str) -> u16 {
        let pod = json!({
            "metadata": { "name": name },
            "spec": { "automountServiceAccountToken": false, "containers": [{ "name": "only", "image": image }] },
        });
        let path = format!("/api/v1/namespaces/{namespace}/pods?dryRun=All");
        self.cluster.plane.call(Method::POST, &path, Some(&pod)).await.0
    }

    /// Our charts, before every other one.
    pub async fn ours(&self) {
        // Ours, before every other chart.
        self.sh("countersign crds apply").await;
        let document = self.document(if self.enforce { "enforce" } else { "audit" });
        let (status, body) = self.cluster.plane.call(Method::POST, SITES, Some(&document)).await;
        assert_eq!(status, 201, "{body:#}");
        let (_, _, err) = self.try_sh("countersign evidence import bundle.tar --site site.yaml");
        assert!(err.contains("evidence of 7 images"), "{err}");
        let charts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts");
        for (chart, more) in
            [("countersign", "--set replicas=1 --wait --timeout 100s"), ("countersign-policies", "")]
        {
            let chart_path = charts.join(chart).display().to_string();
            let install = format!(
                "helm install {chart} {chart_path} --namespace countersign --create-namespace {more}"
            );
            let (code, out, err) = self.try_sh(&install);
            assert_eq!(code, 0, "{out}{err}{}{}", self.cluster.told().await, self.cluster.said());
        }
        let [own] = &self.cluster.pods("countersign").await[..] else { panic!("one replica") };
        let image = own["status"]["containerStatuses"][0]["imageID"].as_str().unwrap();
        let expected = self.carried.own.digest.to_string();
        assert!(image.ends_with(&expected), "it runs from its own signed image: {image}");
        let in_force = async || {
            let object = self.cluster.plane.call(Method::GET, &format!("{SITES}/default"), None).await.1;
            let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let holds = |kind: &&str| {
                conditions.iter().any(|found| found["type"] == **kind && found["status"] == "True")
            };
            ["Ready", "WebhooksRegistered", "OnlyVerifier"].iter().all(holds)
        };
        self.cluster.until("the Site says that all is well", in_force).await;
        self.namespace("apps").await;
    }

    /// A file of the test.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Runs a command as an installer would.
    pub fn try_sh(&self, command: &str) -> (i32, String, String) {
        let mut shell = self.shell(&[], command);
        run(&mut shell)
    }

    /// A command of a page, with the page's names set, as an installer would say it.
    pub fn shell(&self, settings: &[(&str, String)], command: &str) -> Command {
        let programs = countersign().parent().unwrap().display().to_string();
        let path = format!("{}:{programs}:{}", self.path("bin").display(), std::env::var("PATH").unwrap());
        // Whom it talks to is written down, from its first instruction on.
        let mut shell = Command::new("strace");
        shell.args(["-D", "-f", "-qq", "--seccomp-bpf", "-e", "trace=connect", "-A", "-o"]);
        shell.arg(self.path("trace-installer")).args(["sh", "-euc", command]);
        shell.current_dir(self.directory.path()).env("PATH", path);
        shell.env("KUBECONFIG", self.path("kubeconfig")).env("HOME", self.directory.path());
        shell.envs(settings.iter().map(|(name, value)| (*name, value)));
        shell
    }

    /// The same; it has to succeed.
    pub async fn sh(&self, command: &str) -> String {
        let (code, out, err) = self.try_sh(command);
        if code != 0 {
            let told = self.cluster.told().await;
            panic!("{command}: {code}\n{out}{err}\n{told}{}", self.cluster.said());
        }
        out + &err
    }

    /// The Site, in which nothing is left to read elsewhere.
    pub fn document(&self, mode: &str) -> Value {
        let pem = |file: &Path| std::fs::read_to_string(file).unwrap();
        let ca = json!({ "pem": self.platform.pem() });
        json!({
            "apiVersion": "countersign.dev/v1alpha1", "kind": "Site", "metadata": { "name": "default" },
            "spec": {
                "mode": mode,
                "registry": { "name": "registry.local", "endpoints": [
                    // Found by the DNS server that is configured.
                    { "name": "bootstrap", "url": "https://pit.nmn", "ca": ca },
                    { "name": "cluster", "url": "https://registry.local", "addresses": [CLUSTER], "ca": ca },
                ] },
                "trust": {
                    "keys": {
                        "vendor": { "pem": pem(&self.carried.vendor.public) },
                        "seal": { "pem": pem(&self.carried.seal) },
                    },
                    "bundleKeys": ["seal"],
                },
                "tagFreshness": "1s",
                "bootstrapNamespaces": ["kube-system", "nexus"],
                "nodes": {
                    "sandboxImage": "registry.local/quay.io/acme/pause:1",
                    "images": [
                        format!("registry.local/countersign/countersign:{VERSION}"),
                        self.carried.registry.named("quay.io"),
                    ],
                    "hosts": ["quay.io"],
                },
            },
        })
    }

    /// Makes a namespace.
    pub async fn namespace(&self, name: &str) {
        let plane = &self.cluster.plane;
        let namespace = json!({ "metadata": { "name": name } });
        assert!(matches!(
            plane.call(Method::POST, "/api/v1/namespaces", Some(&namespace)).await.0,
            201 | 409
        ));
        let account = format!("/api/v1/namespaces/{name}/serviceaccounts/default");
        self.cluster.until(name, async || plane.call(Method::GET, &account, None).await.0 == 200).await;
    }

    /// A chart with one template.
    pub fn chart(&self, name: &str, template: &Value) {
        let chart = self.path(name);
        std::fs::create_dir_all(chart.join("templates")).unwrap();
        std::fs::write(chart.join("Chart.yaml"), format!("apiVersion: v2\nname: {name}\nversion: 1.0.0\n"))
            .unwrap();
        std::fs::write(chart.join("templates/all.yaml"), template.to_string()).unwrap();
    }

    /// A chart of one small Deployment.
    pub async fn install(&self, name: &str, namespace: &str, image: &str) {
        let labels = json!({ "app": name });
        let deployment = json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": name },
            "spec": {
                "selector": { "matchLabels": labels },
                "template": {
                    "metadata": { "labels": labels },
                    "spec": {
                        "terminationGracePeriodSeconds": 1, "automountServiceAccountToken": false,
                        "containers": [{ "name": name, "image": image }],
                    },
                },
            },
        });
        self.chart(name, &deployment);
        self.sh(&format!("helm install {name} ./{name} --namespace {namespace} --wait --timeout 60s")).await;
    }

    /// Makes a pod of one image.
    pub async fn post_pod(&self, namespace: &str, name: &str, image: &str) -> (u16, Value) {
        let pod = json!({
            "metadata": { "name": name, "labels": { "app": name } },
            "spec": {
                "terminationGracePeriodSeconds": 1, "automountServiceAccountToken": false,
                "containers": [{ "name": "only", "image": image }],
            },
        });
        let path = format!("/api/v1/namespaces/{namespace}/pods");
        self.cluster.plane.call(Method::POST, &path, Some(&pod)).await
    }

    /// The image of every running pod of a namespace, by the label of its app.
    pub async fn running(&self, namespace: &str) -> BTreeMap<String, String> {
        let pods = self.cluster.pods(namespace).await.into_iter();
        pods.filter(|pod| pod["metadata"]["deletionTimestamp"].is_null())
            .filter(|pod| {
                let states = pod["status"]["containerStatuses"].as_array().cloned().unwrap_or_default();
                !states.is_empty() && states.iter().all(|state| state["ready"] == true)
            })
            .map(|pod| {
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                let labels = &pod["metadata"]["labels"];
                (text(&labels["app"]), text(&pod["spec"]["containers"][0]["image"]))
            })
            .collect()
    }

    /// Waits until these run.
    pub async fn until_running(&self, namespace: &str, apps: &[&str]) -> BTreeMap<String, String> {
        let all = async || {
            let running = self.running(namespace).await;
            apps.iter().all(|app| running.contains_key(*app))
        };
        self.cluster.until(&format!("{apps:?} run in {namespace}"), all).await;
        self.running(namespace).await
    }

    /// Brings a node its files, where there is only one node and it is this machine.
    pub const NODE_COMMAND: &str = "test \"$NODE\" = node-1 && countersign node apply --site /dev/stdin";

    /// The cluster's own registry, as a chart with a pod.
    pub async fn registry_chart(&self) {
        self.namespace("nexus").await;
        let identity = self.platform.issue(&["registry.local", CLUSTER]).unwrap();
        let config = format!(
            "version: 0.1\nlog: {{ level: error, accesslog: {{ disabled: true }} }}\n\
             storage: {{ filesystem: {{ rootdirectory: /var/lib/nexus }}, delete: {{ enabled: true }} }}\n\
             http: {{ addr: \"{CLUSTER}:443\", secret: test, tls: {{ certificate: /etc/registry/tls.crt, key: /etc/registry/tls.key }} }}\n"
        );
        let map = json!({
            "metadata": { "name": "registry" },
            "data": { "config.yaml": config, "tls.crt": identity.chain_pem, "tls.key": identity.key_pem },
        });
        let path = "/api/v1/namespaces/nexus/configmaps";
        assert_eq!(self.cluster.plane.call(Method::POST, path, Some(&map)).await.0, 201);
        let labels = json!({ "app": "registry" });
        let deployment = json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "registry" },
            "spec": {
                "selector": { "matchLabels": labels }, "strategy": { "type": "Recreate" },
                "template": {
                    "metadata": { "labels": labels },
                    "spec": {
                        "hostNetwork": true, "terminationGracePeriodSeconds": 1,
                        "automountServiceAccountToken": false,
                        "containers": [{
                            "name": "registry", "image": self.carried.registry.named("quay.io"),
                            "env": [{ "name": "OTEL_TRACES_EXPORTER", "value": "none" }],
                            "volumeMounts": [
                                { "name": "config", "mountPath": "/etc/registry" },
                                { "name": "data", "mountPath": "/var/lib/nexus" },
                            ],
                        }],
                        "volumes": [
                            { "name": "config", "configMap": { "name": "registry" } },
                            { "name": "data", "hostPath": { "path": "/var/lib/nexus", "type": "DirectoryOrCreate" } },
                        ],
                    },
                },
            },
        });
        self.chart("nexus", &deployment);
        self.sh("helm install nexus ./nexus --namespace nexus --wait --timeout 60s").await;
        let answers = async || TcpStream::connect((CLUSTER, 443)).await.is_ok();
        self.cluster.until("the cluster's registry answers", answers).await;
    }

    /// Deletes every pod of a namespace, at once.
    pub async fn delete_all(&self, namespace: &str) {
        for pod in self.cluster.pods(namespace).await {
            let name = pod["metadata"]["name"].as_str().unwrap();
            let path = format!("/api/v1/namespaces/{namespace}/pods/{name}?gracePeriodSeconds=0");
            self.cluster.plane.call(Method::DELETE, &path, None).await;
        }
    }

    /// Changes how many pods there are.
    pub async fn scale(&self, namespace: &str, deployments: &[&str], replicas: usize) {
        for name in deployments {
            let path = format!("/apis/apps/v1/namespaces/{namespace}/deployments/{name}");
            let change = json!({ "spec": { "replicas": replicas } });
            assert_eq!(self.cluster.plane.call(Method::PATCH, &path, Some(&change)).await.0, 200);
        }
    }

    /// Makes every record so many days old: those that a registry has confirmed, and the bundle's.
    pub async fn age_records(&self, days: i64) {
        let plane = &self.cluster.plane;
        let all = plane.call(Method::GET, EVIDENCE, None).await.1;
        for object in all["items"].as_array().unwrap() {
            let digest = Digest::parse(object["spec"]["digest"].as_str().unwrap()).unwrap();
            let mut tags = Vec::new();
            for tag in object["spec"]["tags"].as_array().unwrap() {
                let origin = Origin::of(tag["origin"].as_str().unwrap()).unwrap();
                let image = tag["image"].as_str().unwrap();
                tags.push(tag_record(plane, image, &digest, days, origin).await);
            }
            let path = format!("{EVIDENCE}/{}", object["metadata"]["name"].as_str().unwrap());
            let change = json!({ "spec": { "tags": tags } });
            assert_eq!(plane.call(Method::PATCH, &path, Some(&change)).await.0, 200);
        }
    }

    /// Nothing but the API server, the two registries and the DNS server that is configured was talked
    /// to, by containerd, by our pods or by anybody's.
    pub fn nobody_else_was_asked(&self) {
        let allowed = [("10.96.0.1", 443), (NODE, 6443), (BOOTSTRAP, 443), (CLUSTER, 443), (DNS, 53)];
        let installer = std::fs::read_to_string(self.path("trace-installer")).unwrap();
        let installer = addresses(&installer);
        assert!(installer.contains(&(CLUSTER.to_owned(), 443)), "the installer is watched: {installer:?}");
        let mut seen = self.cluster.destinations();
        seen.extend(installer);
        for place in [(BOOTSTRAP, 443), (CLUSTER, 443), ("10.96.0.1", 443)] {
            assert!(
                seen.iter().any(|(address, port)| (address.as_str(), *port) == place),
                "{place:?}: {seen:?}"
            );
        }
        let others: Vec<_> = seen
            .iter()
            // Port 0 asks the kernel for a route, and sends nothing.
            .filter(|(address, port)| *port != 0 && !address.starts_with("127.") && address != "::1")
            .filter(|(address, port)| !allowed.contains(&(address.as_str(), *port)))
            .collect();
        assert!(others.is_empty(), "{others:?}");
        assert_eq!(self.upstream.connections(), 0, "the rest of the world");
        // By name, from a static binary: nothing else resolves it.
        let said = self.cluster.said_by("countersign_countersign");
        let asked = |line: &str| {
            ["\"verdict\":\"Unsigned\"", "\"endpoint\":\"https://pit.nmn\"", "acme/evil:1"]
                .iter()
                .all(|words| line.contains(words))
        };
        assert!(said.lines().any(asked), "{said}");
        let resolved = std::fs::read_to_string(self.path("coredns.log")).unwrap();
        for host in ["quay.io", "ghcr.io", "docker.io", "registry.k8s.io", "rekor", "sigstore"] {
            assert!(!resolved.contains(host), "{host}: {resolved}");
        }
    }
}

/// Whoever plays the rest of the world: counts who comes.
pub struct Upstream(Arc<AtomicUsize>);

impl Upstream {
    fn listen() -> Self {
        let count = Arc::new(AtomicUsize::new(0));
        for port in [80, 443, 5000] {
            let listener = std::net::TcpListener::bind((UPSTREAM, port)).unwrap();
            let count = Arc::clone(&count);
            std::thread::spawn(move || {
                for connection in listener.incoming() {
                    count.fetch_add(1, Ordering::Relaxed);
                    drop(connection);
                }
            });
        }
        Self(count)
    }

    fn connections(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}
