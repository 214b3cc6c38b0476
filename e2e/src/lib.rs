//! The harness of the end-to-end tests: real programs as processes on loopback.
//!
//! Every program is bounded in time, listens on a free port and is killed by its own id. The
//! tests refuse to run where anything but loopback could be reached: `cargo xtask test` makes
//! the network namespace.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "a failed step is a failed test"
)]

mod attached;
mod black_hole;
mod cluster;
mod containerd;
mod cosign;
pub mod dns;
mod image;
mod injector;
mod installed;
mod journey;
pub mod machine;
mod node;
mod outside;
mod page;
mod proxy;
mod records;
mod registries;
mod webhook;

pub use attached::{Layer, Referrer, push_referrers, push_signature_tag};
pub use black_hole::BlackHole;
pub use cluster::{ControlPlane, pod};
pub use containerd::{Containerd, ContainerdRelease};
pub use cosign::{Cosign, KeyPair, KeyType};
pub use image::{Pushed, layer, push_image, push_image_for, push_index, push_program};
pub use injector::Injector;
pub use installed::{Fate, Installed, NAMESPACED, POLICIES, SECRETS, SITES};
pub use journey::{Carried, Install, Planted, Upstream};
pub use node::{Daemon, NodeCluster};
pub use outside::{Outside, chance, run};
pub use page::{Block, blocks, named, shell};
pub use proxy::CountingProxy;
pub use records::tag_record;
pub use registries::{Registry, RegistryKind};
pub use webhook::{Answer, Caller, Probe, Webhook};

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Output};
use std::time::Duration;

/// The most that any one step may take.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// Fails unless loopback is the only interface there is.
pub fn assert_isolated() {
    let table = std::fs::read_to_string("/proc/net/dev").expect("/proc/net/dev");
    let others: Vec<_> = table
        .lines()
        .skip(2)
        .filter_map(|line| Some(line.split_once(':')?.0.trim()))
        .filter(|name| *name != "lo")
        .collect();
    assert!(
        others.is_empty(),
        "these tests run without a network, and {others:?} is up: use `cargo xtask test`"
    );
}

/// The real program of this name.
pub fn tool(name: &str) -> PathBuf {
    let variable = format!("COUNTERSIGN_TOOL_{}", name.to_uppercase().replace('-', "_"));
    let built = || std::env::var_os("COUNTERSIGN_TOOLS").map(|directory| PathBuf::from(directory).join(name));
    let path = std::env::var_os(variable).map(PathBuf::from).or_else(built).unwrap_or_default();
    assert!(path.exists(), "the program `{name}` is not built: use `cargo xtask test`");
    path
}

/// The program under test, built beside the tests.
pub fn countersign() -> PathBuf {
    let tests = std::env::current_exe().expect("the test's own path");
    let path = tests.ancestors().nth(2).expect("target/debug").join("countersign");
    assert!(path.exists(), "{} is not built: use `cargo xtask test`", path.display());
    path
}

/// A port that nobody listens on at the moment.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("its number").port()
}

/// A process that ends with its owner.
pub struct Process(Child);

impl Process {
    /// Starts a program and waits until its port is open.
    pub fn listening(command: &mut Command, port: u16) -> Self {
        Self::listening_at(command, "127.0.0.1", port)
    }

    /// The same at another address of loopback.
    pub fn listening_at(command: &mut Command, address: &str, port: u16) -> Self {
        let process = Self(command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")));
        let mut tries = PATIENCE.as_millis() / 20;
        while std::net::TcpStream::connect((address, port)).is_err() {
            tries -= 1;
            assert!(tries > 0, "{command:?} does not listen on port {port}");
            std::thread::sleep(Duration::from_millis(20));
        }
        process
    }

    /// Its id.
    pub fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

/// Runs a command to its end and answers with its output; it has to succeed.
pub fn succeed(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?} failed:\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}
