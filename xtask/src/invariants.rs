//! Invariants 1 and 2 of ARCHITECTURE.md, held over `cargo metadata` and the sources, and whatever else
//! has to be the same in several places.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::image::VERSION;
use crate::{cargo, defences, root};

/// Crates that do no I/O and know no clock.
const PURE: &[&str] = &[
    "reference",
    "manifest",
    "verdict",
    "signature",
    "site",
    "mirrors",
    "yaml",
    "jmespath",
    "policy",
    "podsecurity",
    "corefile",
];
/// What none of them may depend on, directly or through others.
const FORBIDDEN: &[&str] = &["tokio", "hyper", "kube", "mio", "socket2"];
/// What may open a connection: `registry` to registries, `cluster` to DNS endpoints (and the API
/// server, by its library), and the demonstration, which plays the API server, to the webhook that
/// it has started itself.
const MAY_CONNECT: &[&str] = &["crates/registry/", "crates/cluster/", "crates/countersign/src/demo/"];
/// The one platform that is built for; packages of others need not be on the machine.
const PLATFORM: &str = "x86_64-unknown-linux-gnu";
/// Lines that open one.
const CONNECTS: &[&str] =
    &["TcpStream::connect", "TcpSocket::", "UdpSocket::", "lookup_host", "HttpConnector"];
/// The longest file that needs no reason at its top.
const LONG: usize = 600;

/// Checks all of them and names every breach.
pub(crate) fn check() -> Result<()> {
    let mut breaches = pure_dependencies()?;
    breaches.extend(pure_clippy()?);
    breaches.extend(sources()?);
    breaches.extend(copies()?);
    breaches.extend(defences::breaches()?);
    if breaches.is_empty() { Ok(()) } else { bail!("invariants are broken:\n  {}", breaches.join("\n  ")) }
}

fn existing(names: &[&'static str]) -> impl Iterator<Item = &'static str> {
    names.iter().copied().filter(|name| root().join("crates").join(name).join("Cargo.toml").exists())
}

/// Nothing that does I/O is in the graph of a pure crate.
fn pure_dependencies() -> Result<Vec<String>> {
    let mut command = cargo();
    command.args([
        "metadata",
        "--format-version",
        "1",
        "--offline",
        "--all-features",
        "--filter-platform",
        PLATFORM,
    ]);
    let output = command.output()?;
    let metadata: Value = serde_json::from_slice(&output.stdout).context("cargo metadata")?;
    let name_of = |id: &str| -> Option<String> {
        let packages = metadata["packages"].as_array()?;
        Some(packages.iter().find(|p| p["id"] == id)?["name"].as_str()?.to_owned())
    };
    let mut graph: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for node in metadata["resolve"]["nodes"].as_array().into_iter().flatten() {
        let normal = node["deps"].as_array().into_iter().flatten().filter(|dependency| {
            dependency["dep_kinds"]
                .as_array()
                .is_some_and(|kinds| kinds.iter().any(|kind| kind["kind"].is_null()))
        });
        let normal = normal.filter_map(|dependency| name_of(dependency["pkg"].as_str()?));
        if let Some(name) = node["id"].as_str().and_then(name_of) {
            graph.entry(name).or_default().extend(normal);
        }
    }
    let mut breaches = Vec::new();
    for pure in existing(PURE) {
        let mut seen = BTreeSet::new();
        let mut todo = vec![format!("countersign-{pure}")];
        while let Some(name) = todo.pop() {
            if FORBIDDEN.contains(&name.as_str()) {
                breaches.push(format!("{pure} is pure and depends on {name}"));
            }
            if seen.insert(name.clone()) {
                todo.extend(graph.get(&name).cloned().unwrap_or_default());
            }
        }
    }
    Ok(breaches)
}

/// Every pure crate has the same `clippy.toml`, the one that forbids I/O and clocks.
fn pure_clippy() -> Result<Vec<String>> {
    let text = |name: &str| std::fs::read_to_string(root().join("crates").join(name).join("clippy.toml"));
    let first = text("reference")?;
    Ok(existing(PURE)
        .filter(|name| text(name).ok().as_ref() != Some(&first))
        .map(|name| format!("crates/{name}/clippy.toml differs from crates/reference/clippy.toml"))
        .collect())
}

/// What stands in several files says the same in each.
fn copies() -> Result<Vec<String>> {
    let text = |path: &str| std::fs::read_to_string(root().join(path)).with_context(|| path.to_owned());
    let mut breaches = Vec::new();
    let (policy, copy) =
        ("policies/prepend-registry.yaml", "charts/countersign-policies/policies/prepend-registry.yaml");
    if text(policy)? != text(copy)? {
        breaches.push(format!("{copy} is not {policy}"));
    }
    for (path, line, times) in [
        ("charts/countersign/Chart.yaml", format!("version: {VERSION}"), 1),
        ("charts/countersign/Chart.yaml", format!("appVersion: {VERSION}"), 1),
        ("charts/countersign-policies/Chart.yaml", format!("version: {VERSION}"), 1),
        ("deploy/manifests/countersign.yaml", format!("      version: {VERSION}"), 2),
    ] {
        if text(path)?.lines().filter(|found| **found == *line).count() != times {
            breaches.push(format!("{path} does not say `{}` for each chart", line.trim()));
        }
    }
    Ok(breaches)
}

/// Sockets are opened in one place; long files say why.
fn sources() -> Result<Vec<String>> {
    let mut breaches = Vec::new();
    let mut todo =
        vec![root().join("crates"), root().join("xtask"), root().join("e2e"), root().join("bench")];
    while let Some(directory) = todo.pop() {
        for entry in std::fs::read_dir(&directory).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                todo.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                breaches.extend(source(&path)?);
            }
        }
    }
    Ok(breaches)
}

fn source(path: &Path) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(path)?;
    let shown = path.strip_prefix(root()).unwrap_or(path).display().to_string();
    let mut breaches = Vec::new();
    let length = text.lines().count();
    if length > LONG && !text.contains("//! Longer than usual:") {
        breaches.push(format!("{shown} has {length} lines and no `//! Longer than usual:` at its top"));
    }
    let product = shown.starts_with("crates/") && !shown.contains("/tests/") && !shown.ends_with("tests.rs");
    let allowed = MAY_CONNECT.iter().any(|place| shown.starts_with(place));
    if product && !allowed {
        let connects = CONNECTS.iter().filter(|line| text.contains(**line));
        breaches.extend(connects.map(|line| format!("{shown}: `{line}`: only `registry` opens a socket")));
    }
    Ok(breaches)
}
