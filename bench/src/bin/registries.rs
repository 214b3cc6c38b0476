//! `countersign registry serve` beside CNCF distribution's registry, in one run.
//!
//! `registries [--seconds N]`: both serve the same images over plain HTTP on loopback; 8
//! clients ask for manifests, then pull layers of 128 MiB. See BENCHMARKS.md. The real registry
//! is `target/tools/registry` (`cargo xtask tools`), or what `COUNTERSIGN_TOOL_REGISTRY` names.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use countersign_bench::client::Connection;
use countersign_bench::server::{Server, beside, distribution, free_port};
use countersign_layout::{Descriptor, Layout};
use countersign_manifest::MANIFEST;
use serde_json::json;
use tempfile::TempDir;
use tokio::time::Instant;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const CLIENTS: usize = 8;
/// Bytes of a layer; each client pulls one, so that all of them pull 1 GiB.
const LAYER: usize = 128 << 20;
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const TAR: &str = "application/vnd.oci.image.layer.v1.tar";

#[tokio::main]
#[expect(clippy::print_stdout, reason = "this is a command line")]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let seconds = match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => 5,
        ["--seconds", seconds] => seconds.parse().context("--seconds")?,
        _ => anyhow::bail!("usage: registries [--seconds N]"),
    };
    let directory = TempDir::new()?;
    let bundle = directory.path().join("bundle");
    let layers = fill(&bundle)?;
    let real = distribution(directory.path(), free_port()?)?;
    let pushed = Command::new(beside("countersign")?)
        .args(["mirror", "push"])
        .arg(&bundle)
        .args(["--to", &format!("http://127.0.0.1:{}", real.port)])
        .status()?;
    ensure!(pushed.success(), "the bundle could not be pushed to the real registry");
    let own = own(&bundle)?;
    println!(
        "{CLIENTS} clients, plain HTTP, {seconds} s of manifests, then {} layers of 128 MiB",
        layers.len()
    );
    println!(
        "{:<12} {:>12} {:>16} {:>10} {:>14} {:>8} {:>8}",
        "", "manifests/s", "per CPU second", "MB/s", "per CPU second", "RSS MB", "grew by"
    );
    for (name, server) in [("registry", &real), ("countersign", &own)] {
        let (rate, cpu) = manifests(server, Duration::from_secs(seconds)).await?;
        let before = server.memory_now()?;
        let (bytes, time, pull_cpu) = pull(server, &layers).await?;
        println!(
            "{name:<12} {rate:>12.0} {:>16.0} {:>10.0} {:>14.0} {:>8.1} {:>8.1}",
            rate / cpu,
            bytes / 1e6 / time,
            bytes / 1e6 / pull_cpu,
            server.memory()?,
            server.memory()? - before,
        );
    }
    Ok(())
}

/// Images of one layer each; the paths under which the layers are pulled.
fn fill(bundle: &Path) -> Result<Vec<String>> {
    let layout = Layout::create(bundle)?;
    let config = layout.put(b"{}")?;
    let mut layers = Vec::new();
    for number in 0..CLIENTS {
        let mut content = vec![0_u8; LAYER];
        // Another content for each, and none that a file system could leave out.
        for (at, byte) in content.iter_mut().enumerate() {
            *byte = u8::try_from((at / 7 + at / 4096 * (number + 3)) % 251)?;
        }
        let layer = layout.put(&content)?;
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": Descriptor::new(CONFIG, config.clone(), 2),
            "layers": [Descriptor::new(TAR, layer.clone(), LAYER as u64)],
        })
        .to_string();
        let digest = layout.put(manifest.as_bytes())?;
        layout.name(
            &format!("acme/app-{number}:1"),
            Descriptor::new(MANIFEST, digest, manifest.len() as u64),
        )?;
        layers.push(format!("/v2/acme/app-{number}/blobs/{layer}"));
    }
    Ok(layers)
}

fn own(bundle: &Path) -> Result<Server> {
    let port = free_port()?;
    let mut command = Command::new(beside("countersign")?);
    command.args(["registry", "serve", "--http", "--listen", &format!("127.0.0.1:{port}")]).arg(bundle);
    Server::listening(&mut command, port)
}

fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\naccept: {MANIFEST}\r\n\r\n").into_bytes()
}

/// Manifests a second, and processor time of the server a second.
#[expect(clippy::cast_precision_loss, reason = "counts of a benchmark are far below 2^52")]
async fn manifests(server: &Server, time: Duration) -> Result<(f64, f64)> {
    let (start, cpu) = (Instant::now(), server.cpu()?);
    let tasks = (0..CLIENTS).map(|number| {
        let port = server.port;
        tokio::spawn(async move {
            let request = get(&format!("/v2/acme/app-{number}/manifests/1"));
            let mut connection = Connection::open_plain(port).await?;
            let mut count = 0_usize;
            while start.elapsed() < time {
                connection.exchange(&request).await?;
                count += 1;
            }
            Ok::<_, anyhow::Error>(count)
        })
    });
    let mut count = 0;
    for task in tasks.collect::<Vec<_>>() {
        count += task.await??;
    }
    let seconds = start.elapsed().as_secs_f64();
    Ok((count as f64 / seconds, (server.cpu()? - cpu) / seconds))
}

/// Bytes, seconds, and seconds of processor time of the server.
#[expect(clippy::cast_precision_loss, reason = "counts of a benchmark are far below 2^52")]
async fn pull(server: &Server, layers: &[String]) -> Result<(f64, f64, f64)> {
    let (start, cpu) = (Instant::now(), server.cpu()?);
    let tasks = layers.iter().map(|layer| {
        let (port, request) = (server.port, get(layer));
        tokio::spawn(async move { Connection::open_plain(port).await?.drain(&request).await })
    });
    let mut bytes = 0;
    for task in tasks.collect::<Vec<_>>() {
        bytes += task.await??;
    }
    Ok((bytes as f64, start.elapsed().as_secs_f64(), server.cpu()? - cpu))
}
