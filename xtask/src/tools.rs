//! The real programs: pinned Go modules under `e2e/tools/`, built once into `target/tools/`.

use std::path::PathBuf;
use std::process::Command;
use std::time::SystemTime;

use anyhow::{Context as _, Result, bail};

use crate::{cargo, root, run};

/// The version of cargo-deny that `lint` installs for itself.
const CARGO_DENY: &str = "0.20.2";

/// A program: its name, its Go package (`.` for a `main` of our own), and linker flags.
struct Tool {
    name: &'static str,
    package: &'static str,
    flags: &'static str,
}

const TOOLS: &[Tool] = &[
    Tool { name: "netns", package: ".", flags: "" },
    Tool { name: "ggcr-registry", package: ".", flags: "" },
    Tool { name: "registry", package: "github.com/distribution/distribution/v3/cmd/registry", flags: "" },
    Tool { name: "cosign3", package: "github.com/sigstore/cosign/v3/cmd/cosign", flags: "" },
    Tool {
        name: "kubernetes",
        package: ".",
        // Without these `/version` says v0.0.0.
        flags: " -X k8s.io/component-base/version.gitVersion=v1.35.4 \
                 -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=35 \
                 -X k8s.io/component-base/version.gitTreeState=clean",
    },
    Tool { name: "cosign2", package: "github.com/sigstore/cosign/v2/cmd/cosign", flags: "" },
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
        let (source, target) = (root().join("e2e/tools").join(tool.name), directory().join(tool.name));
        if modified(&target).is_some_and(|built| newest(&source).is_some_and(|changed| built > changed)) {
            continue;
        }
        eprintln!("building {} (once; minutes when nothing is cached)", tool.name);
        let mut command = Command::new("go");
        command.args(["build", "-mod=readonly", "-trimpath", "-buildvcs=false", "-ldflags"]);
        command.arg(format!("-s -w{}", tool.flags)).arg("-o").arg(&target).arg(tool.package);
        run(command.current_dir(&source).env("CGO_ENABLED", "0").env("GOWORK", "off"))
            .context("Go 1.26 builds the programs that tests run: install it, or name a binary with COUNTERSIGN_TOOL_<NAME>")?;
    }
    Ok(())
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
