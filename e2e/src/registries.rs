//! Real registries.

use std::process::{Command, Stdio};

use countersign_https::{Authority, Identity};
use tempfile::TempDir;

use crate::{Process, free_port, tool};

/// Which one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegistryKind {
    /// CNCF distribution 3: no referrers API, so bundles are found by the fallback tag.
    Distribution,
    /// go-containerregistry's: with the referrers API.
    WithReferrers,
}

/// A running registry, plain HTTP on loopback.
pub struct Registry {
    process: Option<Process>,
    /// Where it listens.
    pub port: u16,
    storage: TempDir,
}

impl Registry {
    /// Starts one.
    pub fn start(kind: RegistryKind) -> Self {
        Self::start_with(kind, "127.0.0.1", free_port(), "")
    }

    /// Starts one that keeps nothing on disk: for many small things, which disks are slow with.
    pub fn in_memory(kind: RegistryKind) -> Self {
        Self::launch(kind, "127.0.0.1", free_port(), TempDir::new().unwrap(), "inmemory: {}", "")
    }

    /// Starts one at this address; `more` is added to the configuration of distribution's.
    pub fn start_with(kind: RegistryKind, address: &str, port: u16, more: &str) -> Self {
        let storage = TempDir::new().unwrap();
        let driver =
            format!("filesystem: {{ rootdirectory: \"{}\" }}", storage.path().join("data").display());
        Self::launch(kind, address, port, storage, &driver, more)
    }

    /// Starts one over what another one keeps.
    pub fn start_over(kind: RegistryKind, other: &Self, address: &str, port: u16, more: &str) -> Self {
        let driver =
            format!("filesystem: {{ rootdirectory: \"{}\" }}", other.storage.path().join("data").display());
        Self::launch(kind, address, port, TempDir::new().unwrap(), &driver, more)
    }

    fn launch(
        kind: RegistryKind,
        address: &str,
        port: u16,
        storage: TempDir,
        driver: &str,
        more: &str,
    ) -> Self {
        let mut command = match kind {
            RegistryKind::WithReferrers => {
                let mut command = Command::new(tool("ggcr-registry"));
                command.arg(format!("{address}:{port}"));
                command
            }
            RegistryKind::Distribution => {
                let config = storage.path().join("config.yaml");
                let text = format!(
                    "version: 0.1\nlog: {{ level: error, accesslog: {{ disabled: true }} }}\n\
                     storage: {{ {driver}, delete: {{ enabled: true }} }}\n\
                     http: {{ addr: \"{address}:{port}\", secret: test }}\n{more}"
                );
                std::fs::write(&config, text).unwrap();
                let mut command = Command::new(tool("registry"));
                command.arg("serve").arg(&config).env("OTEL_TRACES_EXPORTER", "none");
                command
            }
        };
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let process = Process::listening_at(&mut command, address, port);
        Self { process: Some(process), port, storage }
    }

    /// Where distribution's keeps its files.
    pub fn storage(&self) -> std::path::PathBuf {
        self.storage.path().join("data/docker/registry/v2")
    }

    /// Another process of distribution's with the same files, over TLS on this port: clients push to
    /// the one in the clear, and whoever checks certificates asks this one.
    pub fn over_tls(&self, port: u16, authority: &Authority) -> Process {
        let Identity { chain_pem, key_pem } = authority.issue(&["127.0.0.1"]).unwrap();
        let path = |ending: &str| self.storage.path().join(format!("tls-{port}.{ending}"));
        std::fs::write(path("pem"), chain_pem).unwrap();
        std::fs::write(path("key"), key_pem).unwrap();
        let text = format!(
            "version: 0.1\nlog: {{ level: error, accesslog: {{ disabled: true }} }}\n\
             storage: {{ filesystem: {{ rootdirectory: \"{}\" }} }}\n\
             http: {{ addr: \"127.0.0.1:{port}\", secret: test, tls: {{ certificate: \"{}\", key: \"{}\" }} }}\n",
            self.storage.path().join("data").display(),
            path("pem").display(),
            path("key").display(),
        );
        std::fs::write(path("yaml"), text).unwrap();
        let mut command = Command::new(tool("registry"));
        command.arg("serve").arg(path("yaml")).env("OTEL_TRACES_EXPORTER", "none");
        Process::listening(command.stdout(Stdio::null()).stderr(Stdio::null()), port)
    }

    /// Host and port, as in a reference.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Kills it for good.
    pub fn stop(&mut self) {
        self.process = None;
    }
}
