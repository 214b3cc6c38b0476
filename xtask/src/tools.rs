//! The real programs: pinned Go modules under `e2e/tools/`, built once into `target/tools/`.

use std::path::PathBuf;
use std::process::Command;
use std::time::SystemTime;

use anyhow::{Context as _, Result, bail};

use crate::{cargo, root, run};

/// The version of cargo-deny that `lint` installs for itself.
const CARGO_DENY: &str = "0.20.2";

/// A program: its name, the module below `e2e/tools/` that pins it, its Go package (`.` for a `main` of our own),
/// linker flags and build tags.
struct Tool {
    name: &'static str,
    module: &'static str,
    package: &'static str,
    flags: &'static str,
    tags: &'static str,
}

impl Tool {
    /// A program whose module has its name.
    const fn new(name: &'static str, package: &'static str) -> Self {
        Self { name, module: name, package, flags: "", tags: "" }
    }
}

/// What needs headers of file systems that a node's containerd may have and the tests do not use.
const NO_SNAPSHOTTERS: &str = "no_btrfs no_devmapper no_zfs";

const TOOLS: &[Tool] = &[
    Tool::new("netns", "."),
    Tool::new("ggcr-registry", "."),
    Tool {
        module: "ggcr-registry",
        ..Tool::new("crane", "github.com/google/go-containerregistry/cmd/crane")
    },
    Tool::new("cri", "."),
    Tool::new("app", "."),
    Tool::new("registry", "github.com/distribution/distribution/v3/cmd/registry"),
    Tool::new("cosign3", "github.com/sigstore/cosign/v3/cmd/cosign"),
    Tool {
        // Without these `/version` says v0.0.0.
        flags: " -X k8s.io/component-base/version.gitVersion=v1.35.4 \
                 -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=35 \
                 -X k8s.io/component-base/version.gitTreeState=clean",
        ..Tool::new("kubernetes", ".")
    },
    Tool {
        // Without these it believes in Kubernetes 1.20.
        flags: " -X helm.sh/helm/v3/pkg/chartutil.k8sVersionMajor=1 \
                 -X helm.sh/helm/v3/pkg/chartutil.k8sVersionMinor=35",
        ..Tool::new("helm", "helm.sh/helm/v3/cmd/helm")
    },
    Tool::new("cosign2", "github.com/sigstore/cosign/v2/cmd/cosign"),
    Tool::new("coredns", "github.com/coredns/coredns"),
    Tool {
        tags: NO_SNAPSHOTTERS,
        ..Tool::new("containerd1", "github.com/containerd/containerd/cmd/containerd")
    },
    Tool {
        module: "containerd1",
        tags: NO_SNAPSHOTTERS,
        ..Tool::new("ctr1", "github.com/containerd/containerd/cmd/ctr")
    },
    Tool {
        tags: NO_SNAPSHOTTERS,
        ..Tool::new("containerd2", "github.com/containerd/containerd/v2/cmd/containerd")
    },
    Tool {
        module: "containerd2",
        tags: NO_SNAPSHOTTERS,
        ..Tool::new("ctr2", "github.com/containerd/containerd/v2/cmd/ctr")
    },
    Tool {
        // Found by its name, through containerd's PATH.
        module: "containerd2",
        ..Tool::new(
            "containerd-shim-runc-v2",
            "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
        )
    },
];

/// Where built programs are.
pub(crate) fn directory() -> PathBuf {
    root().join("target/tools")
}

/// The program of this name: built here, or named by `COUNTERSIGN_TOOL_<NAME>`.
pub(crate) fn path(name: &str) -> PathBuf {
    std::env::var_os(variable(name)).map_or_else(|| directory().join(name), PathBuf::from)
}

/// The variable that names a binary to use instead of the one built here.
fn variable(name: &str) -> String {
    format!("COUNTERSIGN_TOOL_{}", name.to_uppercase().replace('-', "_"))
}

/// Builds what is missing or older than its files.
#[expect(clippy::print_stderr, reason = "this is a command line")]
pub(crate) fn build_all() -> Result<()> {
    std::fs::create_dir_all(directory())?;
    for tool in TOOLS {
        if std::env::var_os(variable(tool.name)).is_some() {
            continue;
        }
        let (source, target) = (root().join("e2e/tools").join(tool.module), directory().join(tool.name));
        if modified(&target).is_some_and(|built| newest(&source).is_some_and(|changed| built > changed)) {
            continue;
        }
        eprintln!("building {} (once; minutes when nothing is cached)", tool.name);
        let mut command = Command::new("go");
        command.args([
            "build",
            "-mod=readonly",
            "-trimpath",
            "-buildvcs=false",
            "-tags",
            tool.tags,
            "-ldflags",
        ]);
        command.arg(format!("-s -w{}", tool.flags)).arg("-o").arg(&target).arg(tool.package);
        run(command.current_dir(&source).env("CGO_ENABLED", "0").env("GOWORK", "off"))
            .context("Go 1.26 builds the programs that tests run: install it, or name a binary with COUNTERSIGN_TOOL_<NAME>")?;
    }
    Ok(())
}

/// What only the distribution has: programs that show whom a runtime talks to, and that a node
/// consists of beside what is built here, each with its package.
const OF_THE_SYSTEM: [(&str, &str); 6] = [
    ("strace", "strace"),
    ("runc", "runc"),
    ("/usr/lib/cni/bridge", "containernetworking-plugins"),
    ("nft", "nftables"),
    ("ip", "iproute2"),
    ("pgrep", "procps"),
];

/// Installs them where that may be done.
#[expect(clippy::print_stderr, reason = "this is a command line")]
pub(crate) fn of_the_system() -> Result<()> {
    let there = |program: &str| {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut places = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
        // A path from `/` on stands for itself.
        places.any(|directory| directory.join(program).is_file())
    };
    let missing = || -> Vec<&str> {
        let missing = OF_THE_SYSTEM.iter().filter(|(program, _)| !there(program));
        missing.map(|(_, package)| *package).collect()
    };
    if missing().is_empty() {
        return Ok(());
    }
    let install =
        [&["apt-get", "install", "--yes", "--no-install-recommends"], missing().as_slice()].concat();
    // `/root` is readable for root alone.
    if there("apt-get") && std::fs::read_dir("/root").is_ok() {
        eprintln!("installing what tests of nodes need: {}", install.join(" "));
        _ = Command::new("apt-get").arg("update").status();
        run(Command::new(install[0]).args(&install[1..]).env("DEBIAN_FRONTEND", "noninteractive"))?;
    }
    if missing().is_empty() {
        return Ok(());
    }
    bail!("tests of nodes need: `{}` as root, or the same of another distribution", install.join(" "))
}

/// cargo-deny, installed below `target/` on first use.
pub(crate) fn cargo_deny() -> Result<PathBuf> {
    let home = directory().join(format!("cargo-deny-{CARGO_DENY}"));
    let binary = home.join("bin/cargo-deny");
    if !binary.exists() {
        run(cargo()
            .args(["install", "--locked", "--version", CARGO_DENY, "--root"])
            .arg(&home)
            .arg("cargo-deny"))?;
    }
    if binary.exists() { Ok(binary) } else { bail!("cargo-deny was not installed at {}", binary.display()) }
}

fn modified(path: &std::path::Path) -> Option<SystemTime> {
    path.metadata().and_then(|data| data.modified()).ok()
}

fn newest(directory: &std::path::Path) -> Option<SystemTime> {
    std::fs::read_dir(directory).ok()?.flatten().filter_map(|entry| modified(&entry.path())).max()
}
