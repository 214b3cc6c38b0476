//! Good images alone, and beside pods whose images lie on repositories that are poisoned (T-39).
//!
//! `poisoned`: the times of warm and cold good images, alone and beside 8 such pods, in turn; once
//! with lies that keep somebody waiting, once with every lie that there is. See BENCHMARKS.md.

use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Result;
use countersign_bench::client::Connection;
use countersign_bench::post::{Expected, pinned, pod, posted};
use countersign_bench::server::Server;
use countersign_bench::site::Site;
use countersign_bench::statistics::Times;
use countersign_sample::{Hostile, Lie};
use tokio::task::JoinHandle;
use tokio::time::Instant;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const PODS: usize = 8;
/// How long a pod waits before it is made again.
const AGAIN: Duration = Duration::from_millis(100);
/// How often both halves are measured.
const ROUNDS: usize = 3;
/// Of each half: cold images, and how long warm ones are posted.
const COLD: usize = 200;
const WARM: Duration = Duration::from_secs(2);
/// How long after the pods have gone nothing is under way for them any more: the slowest lie is
/// listened to as long as a request may take.
const QUIET: Duration = Duration::from_secs(5);
const SLOW: &[Lie] = &[Lie::SlowDrip, Lie::EndlessRedirects];

/// The times of good images.
struct Good {
    warm: Times,
    cold: Times,
}

#[tokio::main]
async fn main() -> Result<()> {
    let hostile = Hostile::default();
    let liar = hostile.clone();
    let site = Site::answering(move |path| liar.answer(path)).await?;
    heading();
    for (words, lies) in [("slow lies", SLOW), ("every lie", &Lie::ALL)] {
        let server = site.serve(1)?;
        let mut seen = [Vec::new(), Vec::new()];
        hostile.requests.store(0, Ordering::Relaxed);
        // One that is not counted finds out what the endpoint offers.
        good(&site, &server, &format!("{}-first", lies.len()), Duration::from_millis(200), 10).await?;
        for round in 0..ROUNDS {
            for (half, beside) in [false, true].into_iter().enumerate() {
                let pods = if beside { pods(&server, lies, round) } else { Vec::new() };
                tokio::time::sleep(Duration::from_millis(500)).await;
                let name = format!("{}-{round}-{half}", lies.len());
                seen[half].push(good(&site, &server, &name, WARM, COLD).await?);
                ended(pods).await?;
            }
            tokio::time::sleep(QUIET).await;
        }
        let [alone, beside] = seen.map(together);
        row(&format!("warm, {words}"), &alone.warm, &beside.warm);
        row(&format!("cold, {words}"), &alone.cold, &beside.cold);
        said(hostile.requests.load(Ordering::Relaxed), &server)?;
    }
    Ok(())
}

/// Pods whose images lie, each as often as somebody makes it again, and each time in another repository.
fn pods(server: &Server, lies: &'static [Lie], round: usize) -> Vec<JoinHandle<Result<()>>> {
    let pod_of = |number: usize| {
        let (port, ca_pem) = (server.port, server.ca_pem.clone());
        tokio::spawn(async move {
            let mut connection = Connection::open(port, &ca_pem).await?;
            for (again, lie) in lies.iter().cycle().skip(number).enumerate() {
                let image = format!("registry.local/{}/{round}-{number}-{again}:1", lie.repository());
                posted(&mut connection, &pod(&image), Expected::Denied).await?;
                tokio::time::sleep(AGAIN).await;
            }
            Ok(())
        })
    };
    (0..PODS).map(pod_of).collect()
}

/// Ends pods; one that has ended by itself says why.
async fn ended(pods: Vec<JoinHandle<Result<()>>>) -> Result<()> {
    for pod in pods {
        pod.abort();
        if let Ok(result) = pod.await {
            result?;
        }
    }
    Ok(())
}

/// Good images: one over and over, and then so many that were never seen.
async fn good(site: &Site, server: &Server, name: &str, warm_for: Duration, images: usize) -> Result<Good> {
    let names: Vec<String> = (0..=images).map(|number| format!("quay.io/good/{name}-{number}:1")).collect();
    site.push_all(&names)?;
    site.settle().await?;
    let mut connection = Connection::open(server.port, &server.ca_pem).await?;
    let again = pod(&names[0]);
    pinned(&mut connection, &again, 1).await?;
    let (mut warm, mut cold) = (Vec::new(), Vec::new());
    let end = Instant::now() + warm_for;
    while Instant::now() < end {
        warm.push(posted(&mut connection, &again, Expected::Admitted).await?);
    }
    for name in &names[1..] {
        cold.push(pinned(&mut connection, &pod(name), 1).await?);
    }
    Ok(Good { warm: Times::of(warm), cold: Times::of(cold) })
}

fn together(rounds: Vec<Good>) -> Good {
    let none = || Times::of(Vec::new());
    rounds.into_iter().fold(Good { warm: none(), cold: none() }, |all, round| Good {
        warm: all.warm.and(round.warm),
        cold: all.cold.and(round.cold),
    })
}

#[expect(clippy::print_stdout, reason = "this is a command line")]
fn heading() {
    println!(
        "poisoned: good images alone and beside {PODS} pods on poisoned repositories, one connection, {ROUNDS} rounds"
    );
    println!(
        "{:<18} {:>9} {:>8}  {:>9} {:>8}  {:>8}",
        "", "alone p50", "p99 ms", "beside p50", "p99 ms", "p99 by"
    );
}

#[expect(clippy::print_stdout, reason = "this is a command line")]
fn row(words: &str, alone: &Times, beside: &Times) {
    println!(
        "{words:<18} {:>9.3} {:>8.3}  {:>10.3} {:>8.3}  {:>7.2}x",
        alone.percentile(500),
        alone.percentile(990),
        beside.percentile(500),
        beside.percentile(990),
        beside.percentile(990) / alone.percentile(990),
    );
}

#[expect(clippy::print_stdout, reason = "this is a command line")]
fn said(requests: u64, server: &Server) -> Result<()> {
    println!("{:<18} {requests} requests were lied to, RSS {:.1} MB", "", server.memory()?);
    Ok(())
}
