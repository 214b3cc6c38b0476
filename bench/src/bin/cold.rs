//! Images that the verifier has never seen, one in a pod, over a connection that is open.
//!
//! `cold`: with 1 key and with 20, by the shape of the signature, beside the bare fetch of what the
//! verifier has asked for and the null handler; then with a first endpoint that is away, beside the
//! second one alone. See BENCHMARKS.md.

use std::time::Duration;

use anyhow::{Result, ensure};
use countersign_bench::black_hole::BlackHole;
use countersign_bench::client::Connection;
use countersign_bench::fetch::Fetch;
use countersign_bench::post::{Expected, pinned, pod, posted};
use countersign_bench::server::free_port;
use countersign_bench::site::Site;
use countersign_bench::statistics::Times;
use countersign_sample::Shape;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Images that are asked for once, after one that finds out what the endpoint offers.
const IMAGES: usize = 100;
const KEYS: [usize; 2] = [1, 20];
const SHAPES: [(&str, Shape); 2] = [("`.sig`", Shape::Tag), ("bundle", Shape::Bundle)];
/// Images with a dead endpoint before theirs, so many that it is probed several times meanwhile.
const DEAD_IMAGES: usize = 60;
const PAUSE: Duration = Duration::from_millis(80);

#[tokio::main]
async fn main() -> Result<()> {
    let site = Site::start().await?;
    beside_the_fetch(&site).await?;
    dead_endpoint(&site).await
}

#[expect(clippy::print_stdout, reason = "this is a command line")]
async fn beside_the_fetch(site: &Site) -> Result<()> {
    println!(
        "cold: {IMAGES} images a row; each is verified, fetched and admitted by the null handler in turn"
    );
    println!(
        "{:>4} {:<7} {:>8} {:>8}  {:>8} {:>8}  {:>8} {:>8}  {:>8}",
        "keys", "", "p50 ms", "p95 ms", "fetch", "p95 ms", "of fetch", "null", "requests"
    );
    let null = site.null()?;
    let mut to_null = Connection::open(null.port, &null.ca_pem).await?;
    let fetch = Fetch::new(site.registry.port, site.authority.pem())?;
    for keys in KEYS {
        let server = site.serve(keys)?;
        let mut connection = Connection::open(server.port, &server.ca_pem).await?;
        for (words, shape) in SHAPES {
            let names: Vec<String> = (0..=IMAGES)
                .map(|number| format!("quay.io/cold/{keys}-{shape:?}-{number}:1").to_lowercase())
                .collect();
            for name in &names {
                site.push(name, shape)?;
            }
            site.settle().await?;
            let (mut own, mut bare, mut least, mut requests) = (vec![], vec![], vec![], 0);
            for (number, name) in names.iter().enumerate() {
                let request = pod(name);
                site.asked();
                let verified = pinned(&mut connection, &request, 1).await?;
                let paths = site.asked();
                if number == 0 {
                    continue;
                }
                requests = requests.max(paths.len());
                own.push(verified);
                bare.push(fetch.get_all(&paths).await?);
                least.push(posted(&mut to_null, &request, Expected::Admitted).await?);
            }
            let (own, bare) = (Times::of(own), Times::of(bare));
            println!(
                "{keys:>4} {words:<7} {:>8.2} {:>8.2}  {:>8.2} {:>8.2}  {:>8.2} {:>8.2}  {requests:>8}",
                own.percentile(500),
                own.percentile(950),
                bare.percentile(500),
                bare.percentile(950),
                own.percentile(500) / bare.percentile(500),
                Times::of(least).percentile(500),
            );
        }
    }
    Ok(())
}

/// The second endpoint has the images, and the first one is away.
#[expect(clippy::print_stdout, reason = "this is a command line")]
async fn dead_endpoint(site: &Site) -> Result<()> {
    let (black_hole, refusing, good) = (BlackHole::open().await?, free_port()?, site.registry.port);
    let names: Vec<String> = (0..=DEAD_IMAGES).map(|number| format!("quay.io/dead/app-{number}:1")).collect();
    site.push_all(&names)?;
    site.settle().await?;
    let mut rows = Vec::new();
    for (words, ports) in [
        ("none: the second alone", vec![good]),
        ("refusing", vec![refusing, good]),
        ("black-holed", vec![black_hole.port, good]),
    ] {
        let server = site.serve_at(&ports, 1)?;
        let mut connection = Connection::open(server.port, &server.ca_pem).await?;
        let first = pinned(&mut connection, &pod(&names[0]), 1).await?;
        rows.push((words, server, connection, first, Vec::new()));
    }
    for (number, name) in names.iter().enumerate().skip(1) {
        // Who comes first is another one each time.
        let turn = number % rows.len();
        rows.rotate_left(turn);
        for (_, _, connection, _, times) in &mut rows {
            times.push(pinned(connection, &pod(name), 1).await?);
        }
        rows.rotate_right(turn);
        tokio::time::sleep(PAUSE).await;
    }
    println!("\ndead endpoint before the good one: the first image, and {DEAD_IMAGES} after it");
    println!("{:<24} {:>9}  {:>8} {:>8} {:>8}", "", "first, ms", "p50 ms", "p95 ms", "most");
    for (words, _, _, first, times) in rows {
        ensure!(times.len() == DEAD_IMAGES, "a row is not whole");
        let times = Times::of(times);
        println!(
            "{words:<24} {:>9.1}  {:>8.2} {:>8.2} {:>8.2}",
            first.as_secs_f64() * 1e3,
            times.percentile(500),
            times.percentile(950),
            times.percentile(1000),
        );
    }
    Ok(())
}
