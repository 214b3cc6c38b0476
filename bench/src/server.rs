//! Servers as processes of their own, so that their memory is theirs alone.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

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
        let port = free_port()?;
        let ca = directory.join(format!("ca-{port}.pem"));
        command.arg("--listen").arg(format!("127.0.0.1:{port}")).arg("--ca-out").arg(&ca);
        let mut server = Self::listening(command, port)?;
        server.ca_pem = std::fs::read_to_string(&ca)?;
        Ok(server)
    }

    /// Starts a command that listens on this port, and waits until it does.
    pub fn listening(command: &mut Command, port: u16) -> Result<Self> {
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().with_context(|| format!("{command:?}"))?;
        let server = Self { process, port, ca_pem: String::new() };
        for _ in 0..PATIENCE.as_millis() / PAUSE.as_millis() {
            if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Ok(server);
            }
            std::thread::sleep(PAUSE);
        }
        bail!("{command:?} does not listen within {} s", PATIENCE.as_secs())
    }

    /// Seconds of processor time so far (`utime` and `stime` of proc(5), in ticks of 10 ms).
    pub fn cpu(&self) -> Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.id()))?;
        // The name, in brackets, may hold spaces.
        let fields: Vec<&str> = stat.rsplit_once(')').context("no name")?.1.split_whitespace().collect();
        let ticks = |index: usize| fields.get(index).and_then(|text| text.parse::<f64>().ok());
        Ok((ticks(11).context("no utime")? + ticks(12).context("no stime")?) / 100.0)
    }

    /// Resident memory now, in MB (`VmRSS` of proc(5)).
    pub fn memory_now(&self) -> Result<f64> {
        self.status("VmRSS:")
    }

    /// Resident memory, the most there was, in MB (`VmHWM` of proc(5)).
    pub fn memory(&self) -> Result<f64> {
        self.status("VmHWM:")
    }

    fn status(&self, field: &str) -> Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix(field)).context("no such field")?;
        let kilobytes: f64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kilobytes * 1024.0 / 1e6)
    }
}

/// A port that nobody listens on at the moment.
pub fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// A program in the directory of this one.
pub fn beside(name: &str) -> Result<std::path::PathBuf> {
    let path = std::env::current_exe()?.with_file_name(name);
    anyhow::ensure!(path.exists(), "{} is not there: `cargo xtask bench` builds it", path.display());
    Ok(path)
}

impl Drop for Server {
    fn drop(&mut self) {
        _ = self.process.kill();
        _ = self.process.wait();
    }
}

/// A real program that `cargo xtask tools` builds.
pub fn tool(name: &str) -> Result<PathBuf> {
    let built = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/tools")).join(name);
    let variable = format!("COUNTERSIGN_TOOL_{}", name.to_uppercase());
    let program = std::env::var_os(variable).map_or(built, PathBuf::from);
    ensure!(program.exists(), "{} is not there: `cargo xtask tools` builds it", program.display());
    Ok(program)
}

/// The registry of CNCF distribution, plain HTTP, with its files below a directory.
pub fn distribution(directory: &Path, port: u16) -> Result<Server> {
    let config = directory.join("config.yaml");
    let text = format!(
        "version: 0.1\nlog: {{ level: error, accesslog: {{ disabled: true }} }}\n\
         storage: {{ filesystem: {{ rootdirectory: \"{}\" }} }}\nhttp: {{ addr: \"127.0.0.1:{port}\", secret: bench }}\n",
        directory.join("data").display()
    );
    std::fs::write(&config, text)?;
    let mut command = Command::new(tool("registry")?);
    Server::listening(command.arg("serve").arg(&config).env("OTEL_TRACES_EXPORTER", "none"), port)
}
