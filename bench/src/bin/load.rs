//! Posts AdmissionReviews over keep-alive TLS, and prints what came of it.
//!
//! `load [--seconds N]`: at 1, 8 and 32 connections, the null handler and `countersign serve`
//! in turn, one container and one init container, four signed images in rotation; then cold
//! images, with one key and with five. See BENCHMARKS.md.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign_bench::client::{Connection, request};
use countersign_bench::review::review;
use countersign_bench::server::{Server, beside};
use countersign_bench::statistics::Times;
use countersign_https::Authority;
use countersign_sample::{SampleRegistry, Shape};
use countersign_signature::sign::{Scheme, Signer};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::Instant;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Signed images in rotation.
const IMAGES: usize = 4;
/// Images that are asked for once.
const COLD: usize = 40;
const CONNECTIONS: [usize; 3] = [1, 8, 32];
const PATH: &str = "/mutate/fail?timeout=10s";

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let seconds = match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => 5,
        ["--seconds", seconds] => seconds.parse().context("--seconds")?,
        _ => anyhow::bail!("usage: load [--seconds N]"),
    };
    let site = Site::start().await?;
    warm(&site, Duration::from_secs(seconds)).await?;
    for keys in [1, 5] {
        cold(&site, keys).await?;
    }
    Ok(())
}

/// A registry with signed images, and whom to trust.
struct Site {
    directory: TempDir,
    authority: Authority,
    signer: Signer,
    registry: SampleRegistry,
    requests: Arc<AtomicUsize>,
}

impl Site {
    async fn start() -> Result<Self> {
        let (authority, requests) = (Authority::generate("bench")?, Arc::new(AtomicUsize::new(0)));
        let counted = Arc::clone(&requests);
        let count = move |_: &str| {
            counted.fetch_add(1, Ordering::Relaxed);
            None
        };
        let registry = SampleRegistry::start(&authority, count).await?;
        let signer = Signer::generate(Scheme::EcdsaP256)?;
        Ok(Self { directory: TempDir::new()?, authority, signer, registry, requests })
    }

    /// Pushes a signed image; half of them have a `.sig` tag, half a bundle.
    fn push(&self, name: &str, number: usize) -> Result<()> {
        let shape = if number.is_multiple_of(2) { Shape::Tag } else { Shape::Bundle };
        self.registry.push_signed(name, name, &self.signer, shape)?;
        Ok(())
    }

    /// `countersign serve` with the shipped policies and this many keys, the signer's the last.
    fn serve(&self, keys: usize) -> Result<Server> {
        let mut pem = String::new();
        for _ in 1..keys {
            pem += &Signer::generate(Scheme::EcdsaP256)?.public_pem();
        }
        pem += &self.signer.public_pem();
        let endpoint = json!({
            "name": "bench", "url": format!("https://127.0.0.1:{}", self.registry.port),
            "ca": { "pem": self.authority.pem() },
        });
        let site = json!({
            "apiVersion": "countersign.dev/v1alpha1", "kind": "Site",
            "spec": {
                "registry": { "name": "registry.local", "endpoints": [endpoint] },
                "trust": { "keys": { "vendor": { "pem": pem } } },
            },
        });
        let file = self.directory.path().join("site.yaml");
        std::fs::write(&file, site.to_string())?;
        let policies = concat!(env!("CARGO_MANIFEST_DIR"), "/../policies");
        let mut command = Command::new(beside("countersign")?);
        command.args(["serve", "--standalone", "--policies", policies, "--site"]).arg(&file);
        Server::start(&mut command, self.directory.path())
    }
}

#[expect(clippy::print_stdout, reason = "this is a command line")]
async fn warm(site: &Site, time: Duration) -> Result<()> {
    let names: Vec<String> = (0..IMAGES).map(|number| format!("quay.io/acme/app-{number}:1")).collect();
    for (number, name) in names.iter().enumerate() {
        site.push(name, number)?;
    }
    let requests: Vec<Vec<u8>> = (0..IMAGES)
        .map(|number| request(PATH, &review(&[&names[(number + 1) % IMAGES]], &[&names[number]])))
        .collect();
    let requests = Arc::new(requests);
    let size = requests[0].len();
    let (null, served) = (null(site.directory.path())?, site.serve(1)?);
    for request in requests.iter() {
        pinned(&served, request, 2).await?;
    }
    println!("warm: reviews of {size} bytes with 2 images each, {} s a row", time.as_secs());
    println!(
        "{:>11}  {:<11} {:>8}  {:>8} {:>8} {:>8}  {:>8}",
        "connections", "", "req/s", "p50 ms", "p95 ms", "p99 ms", "RSS MB"
    );
    for connections in CONNECTIONS {
        let mut base = f64::NAN;
        for (name, server) in [("null", &null), ("countersign", &served)] {
            let (times, took) = load(server, &requests, connections, time).await?;
            let rate = count(times.count()) / took.as_secs_f64();
            let share =
                if base.is_nan() { String::new() } else { format!("  {:.0} % of null", rate / base * 100.0) };
            base = rate;
            println!(
                "{connections:>11}  {name:<11} {rate:>8.0}  {:>8.3} {:>8.3} {:>8.3}  {:>8.1}{share}",
                times.percentile(500),
                times.percentile(950),
                times.percentile(990),
                server.memory()?,
            );
        }
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "counts of a benchmark are far below 2^52")]
fn count(count: usize) -> f64 {
    count as f64
}

fn null(directory: &Path) -> Result<Server> {
    Server::start(&mut Command::new(beside("null")?), directory)
}

/// The answer pins this many images.
async fn pinned(server: &Server, request: &[u8], images: usize) -> Result<Duration> {
    let mut connection = Connection::open(server.port, &server.ca_pem).await?;
    pinned_over(&mut connection, request, images).await
}

async fn pinned_over(connection: &mut Connection, request: &[u8], images: usize) -> Result<Duration> {
    let start = Instant::now();
    let answer: Value = serde_json::from_slice(connection.exchange(request).await?)?;
    let time = start.elapsed();
    let patch = STANDARD.decode(answer["response"]["patch"].as_str().with_context(|| answer.to_string())?)?;
    let pins = String::from_utf8_lossy(&patch).matches("@sha256:").count();
    ensure!(pins == images, "not every image was pinned: {}", String::from_utf8_lossy(&patch));
    Ok(time)
}

/// Posts over this many connections for so long: every time, and how long it was in all.
async fn load(
    server: &Server,
    requests: &Arc<Vec<Vec<u8>>>,
    connections: usize,
    time: Duration,
) -> Result<(Times, Duration)> {
    let mut opened = Vec::new();
    for _ in 0..connections {
        opened.push(Connection::open(server.port, &server.ca_pem).await?);
    }
    let start = Instant::now();
    // The first tenth warms caches and branch predictors, and is not counted.
    let (counted_from, end) = (start + time / 10, start + time + time / 10);
    let tasks = opened.into_iter().enumerate().map(|(number, mut connection)| {
        let requests = Arc::clone(requests);
        tokio::spawn(async move {
            let mut times = Vec::new();
            for request in requests.iter().cycle().skip(number) {
                let sent = Instant::now();
                if sent >= end {
                    break;
                }
                let answer = connection.exchange(request).await?;
                let done = Instant::now();
                ensure!(
                    answer.windows(14).any(|part| part == b"\"allowed\":true"),
                    "denied: {}",
                    String::from_utf8_lossy(answer)
                );
                if sent >= counted_from {
                    times.push(done - sent);
                }
            }
            Ok(times)
        })
    });
    let mut times = Vec::new();
    for task in tasks.collect::<Vec<_>>() {
        times.extend(task.await??);
    }
    Ok((Times::of(times), time))
}

/// Every image for the first time: the tag, and where its signature is.
#[expect(clippy::print_stdout, reason = "this is a command line")]
async fn cold(site: &Site, keys: usize) -> Result<()> {
    let server = site.serve(keys)?;
    let mut connection = Connection::open(server.port, &server.ca_pem).await?;
    for (shape, parity) in [("`.sig`", 0), ("bundle", 1)] {
        let names: Vec<String> =
            (0..=COLD).map(|number| format!("quay.io/cold/{parity}-{keys}-{number}:1")).collect();
        for name in &names {
            site.push(name, parity)?;
        }
        let mut times = Vec::new();
        let mut requests = 0;
        for (number, name) in names.iter().enumerate() {
            let before = site.requests.load(Ordering::Relaxed);
            let time = pinned_over(&mut connection, &request(PATH, &review(&[], &[name])), 1).await?;
            // The first image finds out what the endpoint offers, and connects.
            if number > 0 {
                times.push(time);
                requests = requests.max(site.requests.load(Ordering::Relaxed) - before);
            }
        }
        let times = Times::of(times);
        println!(
            "cold, {keys} keys, {shape}: p50 {:.2} ms, p95 {:.2} ms, at most {requests} requests to the registry",
            times.percentile(500),
            times.percentile(950)
        );
    }
    Ok(())
}
