//! A replica that starts in a cluster with much evidence.
//!
//! `evidence [--digests N]`: a real kube-apiserver holds an `ImageEvidence` with one signature and
//! one tag record for each of 10,000 digests; `countersign serve` starts, and is timed until it is
//! ready. Beside it: the same with none. See BENCHMARKS.md.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign_bench::server::{beside, free_port};
use countersign_e2e::ControlPlane;
use countersign_reference::Digest;
use countersign_signature::Material;
use countersign_signature::sign::{Scheme, Signer};
use hyper::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::Instant;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const EVIDENCE: &str = "/apis/countersign.dev/v1alpha1/imageevidences";
/// Objects that are made at a time.
const AT_A_TIME: usize = 32;
const PATIENCE: Duration = Duration::from_mins(2);

#[tokio::main]
#[expect(clippy::print_stdout, reason = "this is a command line")]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let digests = match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => 10_000,
        ["--digests", digests] => digests.parse().context("--digests")?,
        _ => anyhow::bail!("usage: evidence [--digests N]"),
    };
    let plane = Arc::new(ControlPlane::start().await);
    let directory = tempfile::tempdir()?;
    let kubeconfig = directory.path().join("kubeconfig");
    std::fs::write(&kubeconfig, plane.kubeconfig())?;
    let status = Command::new(beside("countersign")?)
        .args(["crds", "apply", "--kubeconfig"])
        .arg(&kubeconfig)
        .stderr(Stdio::null())
        .status()?;
    ensure!(status.success(), "crds apply");
    let signer = Signer::generate(Scheme::EcdsaP256)?;
    post(&plane, "/api/v1/namespaces", &json!({ "metadata": { "name": "countersign" } })).await?;
    let site = json!({
        "apiVersion": "countersign.dev/v1alpha1", "kind": "Site", "metadata": { "name": "default" },
        "spec": {
            "registry": { "name": "registry.local", "endpoints": [{ "name": "a", "url": "http://127.0.0.1:1" }] },
            "trust": { "keys": { "vendor": { "pem": signer.public_pem() } } },
        },
    });
    post(&plane, "/apis/countersign.dev/v1alpha1/sites", &site).await?;

    println!("{:<24} {:>10} {:>8}", "", "ready, s", "RSS MB");
    let (seconds, rss) = start(&plane, &kubeconfig).await?;
    println!("{:<24} {seconds:>10.2} {rss:>8.1}", "no evidence");
    fill(&plane, &signer, digests).await?;
    let (seconds, rss) = start(&plane, &kubeconfig).await?;
    println!("{:<24} {seconds:>10.2} {rss:>8.1}", format!("{digests} digests"));
    Ok(())
}

async fn post(plane: &ControlPlane, path: &str, object: &Value) -> Result<()> {
    let (status, body) = plane.call(Method::POST, path, Some(object)).await;
    ensure!(status == 201, "{path}: {status} {body}");
    Ok(())
}

async fn fill(plane: &Arc<ControlPlane>, signer: &Signer, digests: usize) -> Result<()> {
    let mut tasks = JoinSet::new();
    for number in 0..digests {
        let digest = Digest::sha256_of(format!("image {number}").as_bytes());
        let Material::Bundle { json } = signer.bundle(&digest, &std::collections::BTreeMap::new())? else {
            anyhow::bail!("not a bundle")
        };
        let object = json!({
            "apiVersion": "countersign.dev/v1alpha1", "kind": "ImageEvidence",
            "metadata": { "name": digest.to_string().replacen(':', "-", 1) },
            "spec": {
                "digest": digest.to_string(), "signatures": [{ "bundle": STANDARD.encode(json) }],
                "tags": [{
                    "image": format!("registry.local/quay.io/acme/app-{number}:1"), "origin": "registry",
                    "confirmed": "2026-01-01T00:00:00Z", "mac": "00".repeat(32),
                }],
            },
        });
        while tasks.len() >= AT_A_TIME {
            tasks.join_next().await.transpose()?.transpose()?;
        }
        let plane = Arc::clone(plane);
        tasks.spawn(async move { post(&plane, EVIDENCE, &object).await });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(())
}

/// Starts a replica, and says after how many seconds it is ready, and with how many megabytes.
async fn start(plane: &ControlPlane, kubeconfig: &std::path::Path) -> Result<(f64, f64)> {
    let port = free_port()?;
    let begun = Instant::now();
    let mut serve = Command::new(beside("countersign")?)
        .args(["serve", "--kubeconfig"])
        .arg(kubeconfig)
        .args([
            "--listen",
            &format!("127.0.0.1:{port}"),
            "--webhook-url",
            &format!("https://127.0.0.1:{port}"),
        ])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let ready = async {
        while plane.get(&format!("https://127.0.0.1:{port}/readyz")).await.0 != 200 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let result = tokio::time::timeout(PATIENCE, ready).await;
    let seconds = begun.elapsed().as_secs_f64();
    let status = std::fs::read_to_string(format!("/proc/{}/status", serve.id()));
    serve.kill()?;
    serve.wait()?;
    result.context("it is not ready in time")?;
    let status = status?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    let kilobytes: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok((seconds, kilobytes / 1000.0))
}
