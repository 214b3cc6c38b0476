//! The override of a name: a real API server, and the real CoreDNS on two addresses.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use countersign_cluster::{Answer, Dns, Place, ask, client};
use countersign_corefile::{Override, clear, set};
use countersign_e2e::{ControlPlane, PATIENCE, assert_isolated, countersign, free_port, run, tool};
use hyper::Method;
use jiff::Timestamp;
use serde_json::{Value, json};

const CONFIG_MAP: &str = "/api/v1/namespaces/kube-system/configmaps/coredns";
const NAMES: [&str; 2] = ["ntp.site", "db.registry.local"];
const SITE: &str = "192.0.2.77";

/// A CoreDNS that ends with its owner.
struct CoreDns(Child);

impl CoreDns {
    fn start(corefile: &Path, bind: &str) -> Self {
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

/// Waits until a server says this of a name.
async fn until(server: SocketAddr, name: &str, address: Option<&str>) {
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
struct Cluster {
    plane: Arc<ControlPlane>,
    directory: tempfile::TempDir,
    corefile: String,
    _servers: [CoreDns; 2],
    sync: tokio::task::JoinHandle<()>,
}

impl Cluster {
    async fn start() -> Self {
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
        Self { plane, directory, corefile, _servers: servers, sync }
    }

    fn servers() -> [SocketAddr; 2] {
        ["192.0.2.1:53", "192.0.2.2:53"].map(|server| server.parse().unwrap())
    }

    async fn map(&self) -> Value {
        self.plane.call(Method::GET, CONFIG_MAP, None).await.1
    }

    async fn text(&self) -> String {
        self.map().await["data"]["Corefile"].as_str().unwrap().to_owned()
    }

    fn kubeconfig(&self) -> PathBuf {
        self.directory.path().join("kubeconfig")
    }

    /// `countersign dns override …`, off the thread that plays the kubelet.
    async fn command(&self, command: &str, more: &[&str]) -> (i32, String, String) {
        let mut dns = Command::new(countersign());
        dns.args(["dns", "override", command, "--name", "registry.local", "--wait", "60", "--kubeconfig"]);
        dns.arg(self.kubeconfig()).args(more);
        tokio::task::spawn_blocking(move || run(&mut dns)).await.unwrap()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.sync.abort();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_server_answers_with_it_and_the_site_is_as_before() {
    assert_isolated();
    let cluster = Cluster::start().await;
    let site = async || {
        for (server, name) in
            Cluster::servers().into_iter().flat_map(|server| NAMES.map(|name| (server, name)))
        {
            until(server, name, Some(SITE)).await;
        }
    };
    site().await;
    let (code, out, err) = cluster.command("status", &[]).await;
    assert_eq!(code, 0, "{err}");
    assert!(out.starts_with("registry.local is not overridden\n") && out.lines().count() == 3, "{out}");

    let (code, out, _) = cluster.command("set", &["--address", "192.0.2.1", "--dry-run"]).await;
    assert!(code == 0 && out.contains("+        192.0.2.1 registry.local\n"), "{out}");
    assert_eq!(cluster.text().await, cluster.corefile);
    for address in ["192.0.2.1", "192.0.2.99"] {
        let (code, _, err) = cluster.command("set", &["--address", address, "--owner", "install-7"]).await;
        assert_eq!(code, 0, "{err}");
        for server in Cluster::servers() {
            assert_eq!(
                ask(server, "registry.local", false).await,
                Answer::Addresses(vec![address.parse().unwrap()])
            );
        }
        site().await;
    }
    let (code, _, err) = cluster.command("set", &["--address", "192.0.2.1", "--owner", "another"]).await;
    assert!(code == 2 && err.contains("`install-7` has overridden the name"), "{code}: {err}");
    let (code, out, _) = cluster.command("status", &[]).await;
    assert!(code == 0 && out.contains("192.0.2.99, set by install-7, until "), "{out}");
    let map = cluster.map().await;
    assert_eq!((&map["data"]["other"], &map["metadata"]["labels"]["site"]), (&json!("kept"), &json!("kept")));

    let (code, _, err) = cluster.command("clear", &[]).await;
    assert_eq!(code, 0, "{err}");
    assert_eq!(cluster.text().await, cluster.corefile, "byte for byte");
    for server in Cluster::servers() {
        until(server, "registry.local", None).await;
    }
    site().await;
    let (code, _, err) = cluster.command("clear", &[]).await;
    assert!(code == 0 && err.contains("is not overridden"), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn others_who_edit_at_the_same_time_lose_nothing() {
    assert_isolated();
    let cluster = Cluster::start().await;
    let dns = Dns::new(client(Some(&cluster.kubeconfig()), None).await.unwrap(), Place::default());
    let now: Timestamp = "2026-11-25T12:00:00Z".parse().unwrap();
    let wanted = Override {
        name: "registry.local".to_owned(),
        addresses: vec!["192.0.2.1".parse().unwrap()],
        owner: "install-7".to_owned(),
        until: "2026-11-25T13:00:00Z".parse().unwrap(),
    };
    // An editor who reads all of it, adds a zone, and writes all of it on its condition.
    let editor = async {
        for number in 0..20 {
            loop {
                let mut map = cluster.map().await;
                let text = map["data"]["Corefile"].as_str().unwrap();
                map["data"]["Corefile"] = json!(format!("{text}zone{number}.site:53 {{\n    errors\n}}\n"));
                if cluster.plane.call(Method::PUT, CONFIG_MAP, Some(&map)).await.0 == 200 {
                    break;
                }
            }
        }
    };
    let overrider = async {
        for number in 0..20_u8 {
            let wanted = Override { addresses: vec![IpAddr::from([192, 0, 2, number])], ..wanted.clone() };
            dns.set(&wanted, now, false).await.unwrap();
            if number % 3 == 0 {
                dns.clear("registry.local").await.unwrap();
            }
        }
    };
    tokio::join!(editor, overrider);
    let text = cluster.text().await;
    for number in 0..20 {
        assert_eq!(text.matches(&format!("zone{number}.site:53 {{")).count(), 1, "zone{number}: {text}");
    }
    assert_eq!(dns.find("registry.local").await.unwrap().unwrap().addresses, [IpAddr::from([192, 0, 2, 19])]);

    // It ends by the clock of whoever executes that.
    assert_eq!(dns.expire(now).await.unwrap(), [""; 0]);
    assert_eq!(dns.expire(wanted.until).await.unwrap(), ["registry.local"]);
    assert_eq!(dns.find("registry.local").await.unwrap(), None);
    assert!(cluster.text().await.starts_with(&cluster.corefile));

    // What keeps it from having an effect is said.
    let meta = json!({ "app": "x" });
    let daemon = json!({
        "metadata": { "name": "node-local-dns" },
        "spec": { "selector": { "matchLabels": meta }, "template": { "metadata": { "labels": meta },
            "spec": { "containers": [{ "name": "c", "image": "x" }] } } },
    });
    let sets = "/apis/apps/v1/namespaces/kube-system/daemonsets";
    assert_eq!(cluster.plane.call(Method::POST, sets, Some(&daemon)).await.0, 201);
    let kubelet = json!({ "metadata": { "name": "kubelet-config" }, "data": { "kubelet": "clusterDNS:\n- 169.254.20.10\n" } });
    let maps = "/api/v1/namespaces/kube-system/configmaps";
    assert_eq!(cluster.plane.call(Method::POST, maps, Some(&kubelet)).await.0, 201);
    let (_, _, err) = cluster.command("status", &[]).await;
    for words in ["NodeLocal DNSCache runs", "pods to ask 169.254.20.10"] {
        assert!(err.contains(words), "{words}: {err}");
    }
    // Nobody there.
    let mut nobody = Command::new(countersign());
    let config = cluster.plane.kubeconfig().replace("https://127.0.0.1:", "https://127.0.0.1:1");
    std::fs::write(cluster.directory.path().join("nobody"), config).unwrap();
    nobody.args(["dns", "override", "status", "--name", "registry.local", "--kubeconfig"]);
    nobody.arg(cluster.directory.path().join("nobody"));
    assert!([2, 3].contains(&run(&mut nobody).0));
}

#[tokio::test(flavor = "multi_thread")]
async fn s11_real_coredns_reads_what_was_made_of_any_site() {
    assert_isolated();
    let hosts = format!("hosts {{\n  {SITE} {}\n  fallthrough\n }}", NAMES.join(" "));
    let forms = [
        (
            "several zones",
            format!(
                ".:PORT cluster.local:PORT {{\n {hosts}\n reload 2s 0s\n}}\ncorp.example:PORT {{\n errors\n}}\n"
            ),
        ),
        ("zones by comma", format!(".:PORT,\n corp.example:PORT {{\n {hosts}\n reload 2s 0s\n}}\n")),
        ("a brace on its own line", format!(".:PORT\n{{\n {hosts}\n reload 2s 0s\n}}\n")),
        (
            "a one-line form",
            format!(".:PORT {{\n hosts {{ {SITE} {} fallthrough }}\n reload 2s 0s\n}}\n", NAMES.join(" ")),
        ),
        (
            "line ends of another system",
            format!(".:PORT {{\n {hosts}\n reload 2s 0s\n}}\n").replace('\n', "\r\n"),
        ),
        (
            "no end of line, and a comment",
            format!("# hosts {{\n.:PORT {{ # }} hosts {{\n {hosts}\n reload 2s 0s # }}\n}} # the end"),
        ),
        ("snippets", format!("(common) {{\n {hosts}\n reload 2s 0s\n}}\n.:PORT {{\n import common\n}}\n")),
        (
            "quotes",
            format!(
                ".:PORT {{\n template IN A t.site {{ \n answer \"{{{{ .Name }}}} 60 IN A 10.0.0.1 # }}\"\n }}\n {hosts}\n reload 2s 0s\n}}\n"
            ),
        ),
        (
            "imports",
            format!("import DIR/*.server\n.:PORT {{\n {hosts}\n import DIR/*.override\n reload 2s 0s\n}}\n"),
        ),
    ];
    let now: Timestamp = "2026-11-25T12:00:00Z".parse().unwrap();
    let wanted = Override {
        name: "registry.local".to_owned(),
        addresses: vec!["192.0.2.1".parse().unwrap()],
        owner: "install-7".to_owned(),
        until: "2026-11-26T12:00:00Z".parse().unwrap(),
    };
    let checks = forms.map(|(what, form)| {
        let wanted = wanted.clone();
        tokio::spawn(async move {
            let directory = tempfile::tempdir().unwrap();
            let port = free_port();
            let text = form
                .replace("PORT", &port.to_string())
                .replace("DIR", &directory.path().display().to_string());
            std::fs::write(directory.path().join("a.server"), format!("b.example:{port} {{\n errors\n}}\n"))
                .unwrap();
            let (file, server) =
                (directory.path().join("Corefile"), SocketAddr::from(([127, 0, 0, 1], port)));
            std::fs::write(&file, &text).unwrap();
            let _server = CoreDns::start(&file, "");
            let site = async || {
                for name in NAMES {
                    until(server, name, Some(SITE)).await;
                }
            };
            tokio::time::sleep(Duration::from_secs(1)).await;
            let log = std::fs::read_to_string(file.with_extension("log")).unwrap();
            assert!(log.contains("CoreDNS-"), "{what}: {log}");
            site().await;
            until(server, "registry.local", None).await;
            let edit = set(&text, &wanted, now, false).unwrap_or_else(|error| panic!("{what}: {error}"));
            std::fs::write(&file, &edit.text).unwrap();
            until(server, "registry.local", Some("192.0.2.1")).await;
            site().await;
            let back = clear(&edit.text, "registry.local").unwrap().unwrap();
            assert_eq!(back, text, "{what}");
            std::fs::write(&file, back).unwrap();
            until(server, "registry.local", None).await;
            site().await;
        })
    });
    for check in checks {
        check.await.unwrap();
    }
}
