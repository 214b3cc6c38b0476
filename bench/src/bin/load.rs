//! Posts AdmissionReviews over keep-alive TLS, and prints what came of it.
//!
//! `load [--seconds N]`: at 1, 8 and 32 connections, the null handler and `countersign serve`
//! in turn, one container and one init container, four signed images in rotation; the same with 20 policies more, as
//! both webhooks are asked; then storms:
//! 1,000 pods of 20 signed images at once, and pods of 20 unsigned ones over and over. See BENCHMARKS.md.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use countersign_bench::client::{Connection, request};
use countersign_bench::pod_security;
use countersign_bench::post::{Expected, PATH, burst, pinned, pod, steadily};
use countersign_bench::review::review;
use countersign_bench::server::Server;
use countersign_bench::site::Site;
use countersign_bench::statistics::Times;
use countersign_sample::Shape;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Signed images in rotation.
const IMAGES: usize = 4;
const CONNECTIONS: [usize; 3] = [1, 8, 32];
/// A storm: so many pods, of so many images, at so many connections.
const PODS: usize = 1000;
const STORM_IMAGES: usize = 20;
const STORM_CONNECTIONS: usize = 32;
/// How often a storm comes, each time with images that were never seen.
const STORMS: usize = 5;

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let seconds = match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => 5,
        ["--seconds", seconds] => seconds.parse().context("--seconds")?,
        _ => anyhow::bail!("usage: load [--seconds N]"),
    };
    let (site, time) = (Site::start().await?, Duration::from_secs(seconds));
    warm(&site, time).await?;
    policies(&site, time).await?;
    storm(&site).await?;
    unsigned(&site, time).await?;
    Ok(())
}

#[expect(clippy::print_stdout, reason = "this is a command line")]
async fn warm(site: &Site, time: Duration) -> Result<()> {
    let names: Vec<String> = (0..IMAGES).map(|number| format!("quay.io/acme/app-{number}:1")).collect();
    site.push_all(&names)?;
    let requests: Vec<Vec<u8>> = (0..IMAGES)
        .map(|number| request(PATH, &review(&[&names[(number + 1) % IMAGES]], &[&names[number]])))
        .collect();
    let (null, served) = (site.null()?, site.serve(1)?);
    for request in &requests {
        pinned(&mut Connection::open(served.port, &served.ca_pem).await?, request, 2).await?;
    }
    let size = requests[0].len();
    println!("warm: reviews of {size} bytes with 2 images each, {} s a row", time.as_secs());
    let requests = Arc::new(requests);
    heading("connections");
    for connections in CONNECTIONS {
        let base = steadily(&null, &requests, connections, time, Expected::Admitted).await?;
        row(&connections.to_string(), ("null", &null), &base, base.rate(time), None)?;
        let times = steadily(&served, &requests, connections, time, Expected::Admitted).await?;
        let own = ("countersign", &served);
        row(&connections.to_string(), own, &times, times.rate(time), Some(base.rate(time)))?;
    }
    Ok(())
}

/// Both webhooks, one after the other, with many policies beside those about images.
#[expect(clippy::print_stdout, reason = "this is a command line")]
async fn policies(site: &Site, time: Duration) -> Result<()> {
    let names: Vec<String> = (0..IMAGES).map(|number| format!("quay.io/acme/many-{number}:1")).collect();
    let digests = names.iter().map(|name| site.push(name, Shape::Bundle)).collect::<Result<Vec<_>>>()?;
    let more = pod_security::policies(pod_security::KINDS);
    let (null, served) = (site.null()?, site.serve_with(&[site.registry.port], 1, &more)?);
    let of = |path: &str, image: &dyn Fn(usize) -> String| -> Arc<Vec<Vec<u8>>> {
        let pods = (0..IMAGES).map(|number| (image((number + 1) % IMAGES), image(number)));
        Arc::new(pods.map(|(init, app)| request(path, &review(&[&init], &[&app]))).collect())
    };
    let mutate = of(PATH, &|number| names[number].clone());
    let validate =
        of("/validate/fail", &|number| format!("registry.local/{}@{}", names[number], digests[number]));
    for request in mutate.iter() {
        pinned(&mut Connection::open(served.port, &served.ca_pem).await?, request, 2).await?;
    }
    println!("\npolicies: {} more, which judge when the object is validated", more.len());
    heading("connections");
    for connections in CONNECTIONS {
        let base = steadily(&null, &mutate, connections, time, Expected::Admitted).await?;
        row(&connections.to_string(), ("null", &null), &base, base.rate(time), None)?;
        for (words, requests) in [("mutate", &mutate), ("validate", &validate)] {
            let times = steadily(&served, requests, connections, time, Expected::Admitted).await?;
            row(&connections.to_string(), (words, &served), &times, times.rate(time), Some(base.rate(time)))?;
        }
    }
    Ok(())
}

/// Many pods at once. The images of each storm are new to the verifier the first time that it comes.
#[expect(clippy::print_stdout, reason = "this is a command line")]
async fn storm(site: &Site) -> Result<()> {
    let (null, served) = (site.null()?, site.serve(1)?);
    // What the endpoint offers is found out by the first image.
    site.push_all(&["quay.io/storm/first:1".to_owned()])?;
    let mut connection = Connection::open(served.port, &served.ca_pem).await?;
    pinned(&mut connection, &pod("quay.io/storm/first:1"), 1).await?;
    let mut rows = [("null", &null, vec![]), ("new images", &served, vec![]), ("again", &served, vec![])];
    let mut asked = 0;
    for storm in 0..STORMS {
        let names: Vec<String> =
            (0..STORM_IMAGES).map(|number| format!("quay.io/storm/{storm}-{number}:1")).collect();
        site.push_all(&names)?;
        let requests: Vec<Vec<u8>> = names.iter().cycle().take(PODS).map(|name| pod(name)).collect();
        let requests = Arc::new(requests);
        site.settle().await?;
        for (name, server, bursts) in &mut rows {
            bursts.push(burst(server, &requests, STORM_CONNECTIONS, Expected::Admitted).await?);
            if *name == "new images" {
                asked = asked.max(site.asked().len());
            }
        }
    }
    println!(
        "\nstorm: {PODS} pods of {STORM_IMAGES} signed images at {STORM_CONNECTIONS} connections, {STORMS} times; \
         at most {asked} requests to the registry each time"
    );
    heading("all, ms");
    let mut base = None;
    for (name, server, bursts) in rows {
        let (times, took): (Vec<Times>, Vec<Duration>) = bursts.into_iter().unzip();
        let all: Duration = took.iter().sum();
        let times = times.into_iter().fold(Times::of(Vec::new()), Times::and);
        let (middle, rate) = (Times::of(took).percentile(500), times.rate(all));
        row(&format!("{middle:.1}"), (name, server), &times, rate, base)?;
        base.get_or_insert(rate);
    }
    Ok(())
}

/// Pods of images that nobody has signed, again and again: a controller does not give up.
#[expect(clippy::print_stdout, reason = "this is a command line")]
async fn unsigned(site: &Site, time: Duration) -> Result<()> {
    let (null, served) = (site.null()?, site.serve(1)?);
    let mut by_tag = Vec::new();
    let mut by_digest = Vec::new();
    for number in 0..STORM_IMAGES {
        let repository = format!("quay.io/unsigned/app-{number}");
        let digest = site.push_unsigned(&format!("{repository}:1"))?;
        by_tag.push(pod(&format!("{repository}:1")));
        by_digest.push(pod(&format!("{repository}@{digest}")));
    }
    site.settle().await?;
    let mut connection = Connection::open(served.port, &served.ca_pem).await?;
    let answer = String::from_utf8_lossy(connection.exchange(&by_tag[0]).await?).into_owned();
    ensure!(answer.contains("no signature in any format"), "another reason: {answer}");
    println!(
        "\nunsigned: pods of {STORM_IMAGES} images over and over at {STORM_CONNECTIONS} connections, {} s a row",
        time.as_secs()
    );
    heading("named by");
    for (words, requests) in [("tag", Arc::new(by_tag)), ("digest", Arc::new(by_digest))] {
        let base = steadily(&null, &requests, STORM_CONNECTIONS, time, Expected::Admitted).await?;
        row(words, ("null", &null), &base, base.rate(time), None)?;
        site.asked();
        let times = steadily(&served, &requests, STORM_CONNECTIONS, time, Expected::Denied).await?;
        row(words, ("countersign", &served), &times, times.rate(time), Some(base.rate(time)))?;
        println!("{:>11}  {} requests to the registry", "", site.asked().len());
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "this is a command line")]
fn heading(first: &str) {
    println!(
        "{first:>11}  {:<11} {:>8}  {:>8} {:>8} {:>8}  {:>8}",
        "", "req/s", "p50 ms", "p95 ms", "p99 ms", "RSS MB"
    );
}

/// One row; `base` is the null handler's rate in the same run.
#[expect(clippy::print_stdout, reason = "this is a command line")]
fn row(
    first: &str,
    (name, server): (&str, &Server),
    times: &Times,
    rate: f64,
    base: Option<f64>,
) -> Result<()> {
    let share = base.map(|base| format!("  {:.0} % of null", rate / base * 100.0)).unwrap_or_default();
    println!(
        "{first:>11}  {name:<11} {rate:>8.0}  {:>8.3} {:>8.3} {:>8.3}  {:>8.1}{share}",
        times.percentile(500),
        times.percentile(950),
        times.percentile(990),
        server.memory()?,
    );
    Ok(())
}
