//! The real containerd, asked as the kubelet asks it, and watched.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::{PATIENCE, run, succeed, tool};

/// Which containerd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContainerdRelease {
    /// 1.7.28
    One,
    /// 2.4.2
    Two,
}

impl ContainerdRelease {
    /// The daemon.
    pub fn program(self) -> PathBuf {
        tool(if self == Self::One { "containerd1" } else { "containerd2" })
    }

    /// Its own client.
    pub fn client(self) -> PathBuf {
        tool(if self == Self::One { "ctr1" } else { "ctr2" })
    }

    /// What such a node has before anybody has touched it: files of its own below a directory,
    /// the site's keys, and the mistakes of its time.
    pub fn config(self, directory: &Path) -> String {
        let d = directory.display();
        let common = format!(
            "root = \"{d}/root\"\nstate = \"{d}/state\" # not the usual place\n\n[grpc]\n  address = \"{d}/containerd.sock\"\n\n\
             [plugins.\"io.containerd.internal.v1.opt\"]\n  path = \"{d}/opt\"\n\
             [plugins.\"io.containerd.nri.v1.nri\"]\n  disable = true\n"
        );
        match self {
            Self::One => format!(
                "version = 2\n{common}\n\
                 [plugins.\"io.containerd.grpc.v1.cri\".cni]\n  bin_dir = \"{d}/cni/bin\"\n  conf_dir = \"{d}/cni/net.d\"\n\
                 [plugins.\"io.containerd.grpc.v1.cri\".containerd]\n  snapshotter = \"native\"\n\
                 [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc]\n  runtime_type = \"io.containerd.runc.v2\"\n\
                 [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc.options]\n  SystemdCgroup = true\n\
                 # As the last release of the product left it.\n\
                 [plugins.\"io.containerd.grpc.v1.cri\".registry.mirrors.\"docker.example\"]\n  \
                 endpoint = [\"http://pit.nmn:5000\", \"dummy://docker.example\"]\n"
            ),
            Self::Two => format!(
                "version = 3\n{common}\n\
                 [plugins.\"io.containerd.cri.v1.images\"]\n  snapshotter = \"native\"\n\
                 [plugins.\"io.containerd.cri.v1.images\".registry]\n  \
                 config_path = \"/etc/containerd/certs.d:/etc/docker/certs.d\"\n\
                 [[plugins.\"io.containerd.transfer.v1.local\".unpack_config]]\n  \
                 platform = \"linux/amd64\"\n  snapshotter = \"native\"\n\
                 [plugins.\"io.containerd.cri.v1.runtime\".cni]\n  bin_dirs = [\"{d}/cni/bin\"]\n  conf_dir = \"{d}/cni/net.d\"\n"
            ),
        }
    }
}

/// A running containerd.
pub struct Containerd {
    daemon: Child,
    socket: PathBuf,
    trace: PathBuf,
    tracer: Option<Child>,
}

impl Containerd {
    /// Starts it with a configuration, and waits until it answers the kubelet's questions.
    pub fn start(release: ContainerdRelease, directory: &Path, config: &Path) -> Self {
        let log = std::fs::File::create(directory.join("containerd.log")).unwrap();
        let mut command = Command::new(release.program());
        command.arg("--config").arg(config).stdout(Stdio::null()).stderr(log);
        let daemon = command.spawn().unwrap();
        let trace = directory.join("trace");
        let node = Self { daemon, socket: directory.join("containerd.sock"), trace, tracer: None };
        let mut tries = PATIENCE.as_millis() / 50;
        while node.cri(&["list"]).0 != 0 {
            tries -= 1;
            let log = || std::fs::read_to_string(directory.join("containerd.log")).unwrap_or_default();
            assert!(tries > 0, "containerd does not answer: {}", log());
            std::thread::sleep(Duration::from_millis(50));
        }
        node
    }

    /// Its socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Asks through the Container Runtime Interface: exit code, stdout, stderr.
    pub fn cri(&self, arguments: &[&str]) -> (i32, String, String) {
        run(Command::new(tool("cri")).arg(&self.socket).args(arguments))
    }

    /// Removes every image.
    pub fn empty(&self) {
        for line in self.cri(&["list"]).1.lines() {
            let id = line.split(' ').next().unwrap();
            let (code, _, err) = self.cri(&["remove", id]);
            assert_eq!(code, 0, "{line}: {err}");
        }
        assert_eq!(self.cri(&["list"]).1, "");
    }

    /// From here on, every address that it talks to is written down.
    pub fn watch(&mut self) {
        self.unwatch();
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-e", "trace=connect,sendto,sendmsg,sendmmsg", "-o"]).arg(&self.trace);
        command.arg("-p").arg(self.daemon.id().to_string());
        let tracer = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        self.tracer = Some(tracer.expect("strace, which `cargo xtask test` installs"));
        // It is there once the kernel says so.
        let status = format!("/proc/{}/status", self.daemon.id());
        let traced = || {
            std::fs::read_to_string(&status)
                .unwrap()
                .lines()
                .any(|line| line.strip_prefix("TracerPid:").is_some_and(|id| id.trim() != "0"))
        };
        let mut tries = PATIENCE.as_millis() / 20;
        while !traced() {
            tries -= 1;
            assert!(tries > 0, "strace does not come up");
            std::thread::sleep(Duration::from_millis(20));
        }
        std::thread::sleep(Duration::from_millis(200));
    }

    /// Every `address port` that it talked to since.
    pub fn seen(&mut self) -> Vec<(String, u16)> {
        self.unwatch();
        let text = std::fs::read_to_string(&self.trace).unwrap_or_default();
        addresses(&text)
    }

    fn unwatch(&mut self) {
        if let Some(mut tracer) = self.tracer.take() {
            // It lets go of what it traces.
            succeed(Command::new("kill").args(["-INT", &tracer.id().to_string()]));
            _ = tracer.wait();
        }
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        _ = self.daemon.kill();
        _ = self.daemon.wait();
        if let Some(mut tracer) = self.tracer.take() {
            _ = tracer.kill();
            _ = tracer.wait();
        }
    }
}

/// Every `address port` in what strace has written.
pub(crate) fn addresses(trace: &str) -> Vec<(String, u16)> {
    let between = |line: &str, before: &str, after: char| -> Option<String> {
        let rest = &line[line.find(before)? + before.len()..];
        Some(rest.split(after).next()?.to_owned())
    };
    let mut seen: Vec<_> = trace
        .lines()
        .filter(|line| line.contains("AF_INET"))
        .filter_map(|line| {
            let port = between(line, "_port=htons(", ')')?.parse().ok()?;
            let address = between(line, "inet_addr(\"", '"')
                .or_else(|| between(line, "inet_pton(AF_INET6, \"", '"'))?;
            Some((address, port))
        })
        .collect();
    seen.sort();
    seen.dedup();
    seen
}
