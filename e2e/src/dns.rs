//! A cluster's DNS: a real API server, and the real CoreDNS on two addresses.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::Duration;

use countersign_cluster::{Answer, ask};
use hyper::Method;
use serde_json::{Value, json};

use crate::{ControlPlane, PATIENCE, countersign, run, tool};

/// Where the ConfigMap is.
pub const CONFIG_MAP: &str = "/api/v1/namespaces/kube-system/configmaps/coredns";
/// Names that the site answers for itself.
pub const NAMES: [&str; 2] = ["ntp.site", "db.registry.local"];
/// Where they lead.
pub const SITE: &str = "192.0.2.77";

/// A CoreDNS that ends with its owner.
pub struct CoreDns(Child);

impl CoreDns {
    /// Starts it with a Corefile, in which `{$BIND}` is this address.
    pub fn start(corefile: &Path, bind: &str) -> Self {
        let mut command = Command::new(tool("coredns"));
        command.arg("-conf").arg(corefile).env("BIND", bind);
        let log = std::fs::File::create(corefile.with_extension(format!("log{bind}"))).unwrap();
        Self(command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap())
    }
}

impl Drop for CoreDns {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

/// Waits until a server says this of a name; no address where `None`.
pub async fn until_answers(server: SocketAddr, name: &str, address: Option<&str>) {
    let wanted = address.map(|address| Answer::Addresses(vec![address.parse().unwrap()]));
    let mut tries = PATIENCE.as_millis() / 100;
    loop {
        let answer = ask(server, name, false).await;
        let good = match &wanted {
            Some(wanted) => answer == *wanted,
            None => {
                !matches!(&answer, Answer::Addresses(found) if !found.is_empty())
                    && !matches!(answer, Answer::None(_))
            }
        };
        if good {
            return;
        }
        tries -= 1;
        assert!(tries > 0, "{server} says of {name}: {answer}, and not {address:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// A cluster with the site's own Corefile, whose edits arrive at two servers.
pub struct DnsCluster {
    /// Its API server.
    pub plane: Arc<ControlPlane>,
    /// For files of the test; `kubeconfig` is one.
    pub directory: tempfile::TempDir,
    /// The site's own Corefile.
    pub corefile: String,
    _servers: [CoreDns; 2],
    sync: tokio::task::JoinHandle<()>,
    /// The addresses are there once.
    _turn: tokio::sync::MutexGuard<'static, ()>,
}

static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

impl DnsCluster {
    /// Starts all of it.
    pub async fn start() -> Self {
        let turn = TURN.lock().await;
        let plane = Arc::new(ControlPlane::start().await);
        let directory = tempfile::tempdir().unwrap();
        let corefile = format!(
            "# The site's own.\n.:53 {{\n    bind {{$BIND}}\n    errors\n    hosts {{\n        {SITE} {}\n        fallthrough\n    }}\n    reload 2s 0s\n}}\ncluster.local:53 {{\n    bind {{$BIND}}\n    errors\n}}\n",
            NAMES.join(" ")
        );
        let map = json!({
            "metadata": { "name": "coredns", "labels": { "site": "kept" } },
            "data": { "Corefile": corefile, "other": "kept" },
        });
        let service = json!({
            "metadata": { "name": "kube-dns" },
            "spec": { "clusterIP": "10.96.0.10", "ports": [{ "name": "dns", "port": 53, "protocol": "UDP" }] },
        });
        let slice = json!({
            "metadata": { "name": "kube-dns-1", "labels": { "kubernetes.io/service-name": "kube-dns" } },
            "addressType": "IPv4",
            "ports": [{ "name": "dns", "port": 53, "protocol": "UDP" }, { "name": "dns-tcp", "port": 53, "protocol": "TCP" }],
            "endpoints": [{ "addresses": ["192.0.2.1"] }, { "addresses": ["192.0.2.2"] }],
        });
        for (path, object) in [
            ("/api/v1/namespaces/kube-system/configmaps", &map),
            ("/api/v1/namespaces/kube-system/services", &service),
            ("/apis/discovery.k8s.io/v1/namespaces/kube-system/endpointslices", &slice),
        ] {
            let made = async || matches!(plane.call(Method::POST, path, Some(object)).await.0, 201 | 409);
            plane.until("kube-system is there", made).await;
        }
        std::fs::write(directory.path().join("kubeconfig"), plane.kubeconfig()).unwrap();
        // What a kubelet does with a ConfigMap that is mounted.
        let file = directory.path().join("Corefile");
        std::fs::write(&file, &corefile).unwrap();
        let servers = ["192.0.2.1", "192.0.2.2"].map(|bind| CoreDns::start(&file, bind));
        let from = Arc::clone(&plane);
        let sync = tokio::spawn(async move {
            let beside = file.with_extension("new");
            loop {
                let text = from.call(Method::GET, CONFIG_MAP, None).await.1;
                if let Some(text) = text["data"]["Corefile"].as_str() {
                    std::fs::write(&beside, text).unwrap();
                    std::fs::rename(&beside, &file).unwrap();
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        });
        Self { plane, directory, corefile, _servers: servers, sync, _turn: turn }
    }

    /// Where its two servers answer.
    pub fn servers() -> [SocketAddr; 2] {
        ["192.0.2.1:53", "192.0.2.2:53"].map(|server| server.parse().unwrap())
    }

    /// The ConfigMap.
    pub async fn map(&self) -> Value {
        self.plane.call(Method::GET, CONFIG_MAP, None).await.1
    }

    /// The Corefile in it.
    pub async fn text(&self) -> String {
        self.map().await["data"]["Corefile"].as_str().unwrap().to_owned()
    }

    /// Who may do everything in it.
    pub fn kubeconfig(&self) -> PathBuf {
        self.directory.path().join("kubeconfig")
    }

    /// `countersign dns override …`, off the thread that plays the kubelet.
    pub async fn command(&self, command: &str, more: &[&str]) -> (i32, String, String) {
        let mut dns = Command::new(countersign());
        dns.args(["dns", "override", command, "--name", "registry.local", "--kubeconfig"]);
        dns.arg(self.kubeconfig()).args(more);
        if !more.contains(&"--wait") {
            dns.args(["--wait", "60"]);
        }
        tokio::task::spawn_blocking(move || run(&mut dns)).await.unwrap()
    }
}

impl Drop for DnsCluster {
    fn drop(&mut self) {
        self.sync.abort();
    }
}
