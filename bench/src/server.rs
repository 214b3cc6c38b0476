//! Servers as processes of their own, so that their memory is theirs alone.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

/// How long a server may take to listen.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(20);

/// A server that ends with its owner.
pub struct Server {
    process: Child,
    /// Where it listens on 127.0.0.1.
    pub port: u16,
    /// The CA of its certificate.
    pub ca_pem: String,
}

impl Server {
    /// Starts a command that takes `--listen` and `--ca-out`, and waits until it listens.
    pub fn start(command: &mut Command, directory: &Path) -> Result<Self> {
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let ca = directory.join(format!("ca-{port}.pem"));
        command.arg("--listen").arg(format!("127.0.0.1:{port}")).arg("--ca-out").arg(&ca);
        command.stdout(Stdio::null()).stderr(Stdio::inherit());
        let process = command.spawn().with_context(|| format!("{command:?}"))?;
        let mut server = Self { process, port, ca_pem: String::new() };
        for _ in 0..PATIENCE.as_millis() / PAUSE.as_millis() {
            if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
                server.ca_pem = std::fs::read_to_string(&ca)?;
                return Ok(server);
            }
            std::thread::sleep(PAUSE);
        }
        bail!("{command:?} does not listen within {} s", PATIENCE.as_secs())
    }

    /// Resident memory, the most there was, in MB (`VmHWM` of proc(5)).
    pub fn memory(&self) -> Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
        let kilobytes: f64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kilobytes * 1024.0 / 1e6)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        _ = self.process.kill();
        _ = self.process.wait();
    }
}
