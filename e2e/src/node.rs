//! A cluster with one real node: controllers, scheduler, kube-proxy, kubelet, containerd and runc.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use countersign_https::Authority;
use hyper::Method;
use serde_json::{Value, json};

use crate::containerd::addresses;
use crate::machine::{DNS, NODE};
use crate::{ControlPlane, PATIENCE, Process, free_port, run, succeed, tool};

/// containerd's configuration before anybody has touched it.
const CONTAINERD: &str = r#"version = 3
# The namespaces of the test may not lower it.
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
[plugins."io.containerd.cri.v1.runtime".cni]
  bin_dirs = ["/usr/lib/cni"]
  conf_dir = "/etc/cni/net.d"
[plugins."io.containerd.nri.v1.nri"]
  disable = true
"#;

const CNI: &str = r#"{
  "cniVersion": "1.0.0", "name": "pods",
  "plugins": [{
    "type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false,
    "ipam": { "type": "host-local", "ranges": [[{ "subnet": "10.244.0.0/24" }]], "routes": [{ "dst": "0.0.0.0/0" }] }
  }]
}"#;

/// A process with a log, which ends with its owner.
pub struct Daemon {
    child: Child,
    /// What it has said.
    pub log: PathBuf,
}

impl Daemon {
    /// Starts it; what it says goes to a file.
    pub fn start(command: &mut Command, log: &Path) -> Self {
        let file = std::fs::File::options().create(true).append(true).open(log).unwrap();
        command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file);
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Self { child, log: log.to_owned() }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to end, and waits for that.
    pub fn stop(mut self) {
        _ = Command::new("kill").arg(self.child.id().to_string()).status();
        _ = self.child.wait();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// A cluster with one node.
pub struct NodeCluster {
    /// Its control plane.
    pub plane: ControlPlane,
    /// For files of the test; `kubeconfig` is one.
    pub directory: PathBuf,
    /// containerd, if it runs.
    pub containerd: Option<Daemon>,
    /// The kubelet, if it runs.
    pub kubelet: Option<Daemon>,
    _parts: Vec<Daemon>,
    _dns: Process,
}

impl NodeCluster {
    /// Starts everything but the kubelet, which wants its node's files first. `names` are what the
    /// site's DNS server knows; every other name leads to whoever plays the rest of the world.
    pub async fn start(directory: &Path, names: &[(&str, &str)], upstream: &str) -> Self {
        let authority = Authority::generate("cluster").unwrap();
        let known: String = names
            .iter()
            .map(|(name, address)| {
                format!("{name}:53 {{\n    bind {DNS}\n    errors\n    log\n    hosts {{\n        {address} {name}\n    }}\n}}\n")
            })
            .collect();
        let corefile = directory.join("Corefile");
        let text = format!(
            "{known}.:53 {{\n    bind {DNS}\n    errors\n    log\n    template IN A {{\n        \
             answer \"{{{{ .Name }}}} 60 IN A {upstream}\"\n    }}\n}}\n"
        );
        std::fs::write(&corefile, text).unwrap();
        let log = std::fs::File::create(directory.join("coredns.log")).unwrap();
        let mut coredns = Command::new(tool("coredns"));
        coredns.arg("-conf").arg(&corefile).stdout(log.try_clone().unwrap()).stderr(log);
        let dns = Process::listening_at(&mut coredns, DNS, 53);

        let plane = ControlPlane::start_for_node(NODE, &authority).await;
        let kubeconfig = directory.join("kubeconfig");
        std::fs::write(&kubeconfig, plane.kubeconfig()).unwrap();
        let mut parts = Vec::new();
        let mut part = |name: &str, more: &[String]| {
            let mut command = Command::new(tool("kubernetes"));
            command.arg(name).args(more);
            parts.push(Daemon::start(&mut command, &directory.join(format!("{name}.log"))));
        };
        let kube = format!("--kubeconfig={}", kubeconfig.display());
        part(
            "kube-controller-manager",
            &[
                kube.clone(),
                "--leader-elect=false".to_owned(),
                "--bind-address=127.0.0.1".to_owned(),
                format!("--secure-port={}", free_port()),
                "--use-service-account-credentials=true".to_owned(),
                format!("--root-ca-file={}", plane.path("ca.pem").display()),
                format!("--service-account-private-key-file={}", plane.path("sa.key").display()),
                format!("--flex-volume-plugin-dir={}", directory.join("volumes").display()),
                format!("--cert-dir={}", directory.join("kcm").display()),
            ],
        );
        part(
            "kube-scheduler",
            &[
                kube.clone(),
                "--leader-elect=false".to_owned(),
                "--bind-address=127.0.0.1".to_owned(),
                format!("--secure-port={}", free_port()),
                format!("--cert-dir={}", directory.join("scheduler").display()),
            ],
        );
        let proxy = json!({
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration",
            "mode": "nftables", "hostnameOverride": "node-1", "bindAddress": NODE, "clusterCIDR": "10.244.0.0/16",
            "clientConnection": { "kubeconfig": kubeconfig }, "conntrack": { "maxPerCore": 0, "min": 0 },
            "metricsBindAddress": "127.0.0.1:10249", "healthzBindAddress": "127.0.0.1:10256",
        });
        std::fs::write(directory.join("proxy.json"), proxy.to_string()).unwrap();
        part("kube-proxy", &[format!("--config={}", directory.join("proxy.json").display())]);

        std::fs::create_dir_all("/etc/containerd").unwrap();
        std::fs::create_dir_all("/etc/cni/net.d").unwrap();
        std::fs::write("/etc/containerd/config.toml", CONTAINERD).unwrap();
        std::fs::write("/etc/cni/net.d/10-pods.conflist", CNI).unwrap();
        let mut cluster = Self {
            plane,
            directory: directory.to_owned(),
            containerd: None,
            kubelet: None,
            _parts: parts,
            _dns: dns,
        };
        cluster.start_containerd();
        cluster
    }

    /// Starts containerd, watched from its first instruction on: with all that it starts.
    pub fn start_containerd(&mut self) {
        let mut command = Command::new("strace");
        // Beside it and not above it: what is started is containerd itself.
        command.args(["-D", "-f", "-qq", "--seccomp-bpf", "-e", "trace=connect", "-A", "-o"]);
        command.arg(self.directory.join("trace"));
        command.arg(tool("containerd2"));
        let tools = tool("containerd2").parent().unwrap().to_owned();
        let path = format!("{}:{}", tools.display(), std::env::var("PATH").unwrap());
        command.env("PATH", path);
        self.containerd = Some(Daemon::start(&mut command, &self.directory.join("containerd.log")));
        let answers = || self.cri(&["list"]).0 == 0;
        self.within("containerd answers", answers);
    }

    /// The same once more: for what counts only after a restart.
    pub fn start_containerd_again(&mut self) {
        if let Some(containerd) = self.containerd.take() {
            // The tracer hands it on.
            containerd.stop();
        }
        self.start_containerd();
    }

    /// Ends the kubelet, containerd and everything that they have started, at once.
    pub fn power_off(&mut self) {
        self.kubelet = None;
        // Whoever belongs to a container, and the shim that looks after it.
        let script = "for f in $(find /sys/fs/cgroup -path '*kubepods*' -name cgroup.procs); do cat $f; done | sort -u";
        let processes = run(Command::new("sh").args(["-c", script])).1;
        self.containerd = None;
        let shims = run(Command::new("pgrep").arg("containerd-shim")).1;
        for id in processes.lines().chain(shims.lines()).filter(|id| *id != "0") {
            _ = Command::new("kill").args(["-KILL", id]).stderr(Stdio::null()).status();
        }
        // A restart finds no mounts, and nothing below /run.
        let script = "grep -o ' /run/containerd[^ ]*' /proc/mounts | sort -r | xargs -r umount -l; rm -rf /run/containerd";
        succeed(Command::new("sh").args(["-c", script]));
    }

    /// Starts the kubelet, and waits until its node is ready.
    pub async fn start_kubelet(&mut self) {
        let config = json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
            "failCgroupV1": false, "cgroupDriver": "cgroupfs",
            "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
            "authentication": { "anonymous": { "enabled": true }, "webhook": { "enabled": false } },
            "authorization": { "mode": "AlwaysAllow" },
            "clusterDNS": [DNS], "clusterDomain": "cluster.local", "resolvConf": "/etc/resolv.conf",
            "syncFrequency": "1s", "configMapAndSecretChangeDetectionStrategy": "Watch",
            "evictionHard": { "memory.available": "0%", "nodefs.available": "0%", "imagefs.available": "0%" },
            "imageGCHighThresholdPercent": 100, "failSwapOn": false,
            "nodeStatusUpdateFrequency": "2s", "localStorageCapacityIsolation": false,
            "staticPodPath": "/etc/kubernetes/manifests",
        });
        std::fs::create_dir_all("/etc/kubernetes/manifests").unwrap();
        std::fs::write(self.directory.join("kubelet.json"), config.to_string()).unwrap();
        let mut command = Command::new(tool("kubernetes"));
        command.arg("kubelet").arg(format!("--config={}", self.directory.join("kubelet.json").display()));
        command.arg(format!("--kubeconfig={}", self.directory.join("kubeconfig").display()));
        command.args(["--hostname-override=node-1", &format!("--node-ip={NODE}")]);
        self.kubelet = Some(Daemon::start(&mut command, &self.directory.join("kubelet.log")));
        let label = json!({ "metadata": { "labels": { "node-role.kubernetes.io/control-plane": "" } } });
        let labelled =
            async || self.plane.call(Method::PATCH, "/api/v1/nodes/node-1", Some(&label)).await.0 == 200;
        self.until("there is a node", labelled).await;
        let ready = async || {
            let node = self.plane.call(Method::GET, "/api/v1/nodes/node-1", None).await.1;
            let conditions = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
            conditions.iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
        };
        self.until("the node is ready", ready).await;
    }

    /// Asks containerd as a kubelet does: exit code, stdout, stderr.
    pub fn cri(&self, arguments: &[&str]) -> (i32, String, String) {
        run(Command::new(tool("cri")).arg("/run/containerd/containerd.sock").args(arguments))
    }

    /// Every pod of a namespace.
    pub async fn pods(&self, namespace: &str) -> Vec<Value> {
        let path = format!("/api/v1/namespaces/{namespace}/pods");
        self.plane.call(Method::GET, &path, None).await.1["items"].as_array().cloned().unwrap_or_default()
    }

    /// Waits until something holds; says what the parts have to say where it does not.
    pub async fn until(&self, what: &str, mut holds: impl AsyncFnMut() -> bool) {
        let mut tries = 2 * PATIENCE.as_millis() / 200;
        while !holds().await {
            tries -= 1;
            if tries == 0 {
                let told = self.told().await;
                panic!("not within {} s: {what}\n{told}{}", 2 * PATIENCE.as_secs(), self.said());
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    fn within(&self, what: &str, holds: impl Fn() -> bool) {
        let mut tries = PATIENCE.as_millis() / 50;
        while !holds() {
            tries -= 1;
            assert!(tries > 0, "not in time: {what}\n{}", tail(&self.directory.join("containerd.log")));
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Whatever helps to see what went wrong.
    pub async fn told(&self) -> String {
        let mut told = String::new();
        for log in ["kubelet.log", "containerd.log", "kube-controller-manager.log", "kube-proxy.log"] {
            told += &format!("=== {log}\n{}\n", tail(&self.directory.join(log)));
        }
        let pods = self.plane.call(Method::GET, "/api/v1/pods", None).await.1;
        for pod in pods["items"].as_array().into_iter().flatten() {
            let (metadata, status) = (&pod["metadata"], &pod["status"]);
            told += &format!("=== {}/{}: {status}\n", metadata["namespace"], metadata["name"]);
        }
        let events = self.plane.call(Method::GET, "/api/v1/events", None).await.1;
        for event in events["items"].as_array().into_iter().flatten() {
            let (about, reason) = (&event["involvedObject"]["name"], &event["reason"]);
            told += &format!("{about} {reason}: {}\n", event["message"]);
        }
        told
    }

    /// What the containers of a node have said: the end of each log.
    pub fn said(&self) -> String {
        let script =
            "find /var/log/pods -name '*.log' | while read f; do echo \"== $f\"; tail -n 20 \"$f\"; done";
        run(Command::new("sh").args(["-c", script])).1
    }

    /// All that the containers of these pods have said, by the beginning of `namespace_name`.
    pub fn said_by(&self, pods: &str) -> String {
        run(Command::new("sh").args(["-c", &format!("cat /var/log/pods/{pods}*/*/*.log")])).1
    }

    /// Every `address port` that containerd, its containers and all their processes have talked to.
    pub fn destinations(&self) -> Vec<(String, u16)> {
        addresses(&std::fs::read_to_string(self.directory.join("trace")).unwrap_or_default())
    }

    /// Removes every image that no sandbox needs and nobody has pinned.
    pub fn empty(&self) {
        for line in self.cri(&["list"]).1.lines() {
            let mut words = line.split(' ');
            let (id, pinned) = (words.next().unwrap(), words.next().unwrap());
            if pinned != "pinned" {
                let (code, _, err) = self.cri(&["remove", id]);
                assert_eq!(code, 0, "{line}: {err}");
            }
        }
    }
}

fn tail(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(8)..].join("\n")
}
