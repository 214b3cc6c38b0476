//! Reviews that are posted, and the times of their answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::client::{Connection, request};
use crate::review::review;
use crate::server::Server;
use crate::statistics::Times;

/// Where reviews are posted to.
pub const PATH: &str = "/mutate/fail?timeout=10s";

/// What an answer has to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// The pod may be created.
    Admitted,
    /// It may not.
    Denied,
}

impl Expected {
    fn check(self, answer: &[u8]) -> Result<()> {
        let words: &[u8] = match self {
            Self::Admitted => b"\"allowed\":true",
            Self::Denied => b"\"allowed\":false",
        };
        let said = answer.windows(words.len()).any(|part| part == words);
        ensure!(said, "it is not {self:?}: {}", String::from_utf8_lossy(answer));
        Ok(())
    }
}

/// The request for a pod of this one image.
pub fn pod(image: &str) -> Vec<u8> {
    request(PATH, &review(&[], &[image]))
}

/// Posts a review, and sees that its answer pins this many images.
pub async fn pinned(connection: &mut Connection, request: &[u8], images: usize) -> Result<Duration> {
    let start = Instant::now();
    let answer: Value = serde_json::from_slice(connection.exchange(request).await?)?;
    let time = start.elapsed();
    let patch = STANDARD.decode(answer["response"]["patch"].as_str().with_context(|| answer.to_string())?)?;
    let pins = String::from_utf8_lossy(&patch).matches("@sha256:").count();
    ensure!(pins == images, "not every image was pinned: {}", String::from_utf8_lossy(&patch));
    Ok(time)
}

/// Posts a review.
pub async fn posted(connection: &mut Connection, request: &[u8], expected: Expected) -> Result<Duration> {
    let start = Instant::now();
    let answer = connection.exchange(request).await?;
    let time = start.elapsed();
    expected.check(answer)?;
    Ok(time)
}

/// Posts reviews in rotation over this many connections, for so long.
pub async fn steadily(
    server: &Server,
    requests: &Arc<Vec<Vec<u8>>>,
    connections: usize,
    time: Duration,
    expected: Expected,
) -> Result<Times> {
    let opened = open(server, connections).await?;
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
                let time = posted(&mut connection, request, expected).await?;
                if sent >= counted_from {
                    times.push(time);
                }
            }
            Ok(times)
        })
    });
    joined(tasks.collect()).await
}

/// Posts each of these reviews once, over this many connections, as fast as they are answered; the
/// second time is that of all.
pub async fn burst(
    server: &Server,
    requests: &Arc<Vec<Vec<u8>>>,
    connections: usize,
    expected: Expected,
) -> Result<(Times, Duration)> {
    let (opened, next) = (open(server, connections).await?, Arc::new(AtomicUsize::new(0)));
    let start = Instant::now();
    let tasks = opened.into_iter().map(|mut connection| {
        let (requests, next) = (Arc::clone(requests), Arc::clone(&next));
        tokio::spawn(async move {
            let mut times = Vec::new();
            while let Some(request) = requests.get(next.fetch_add(1, Ordering::Relaxed)) {
                times.push(posted(&mut connection, request, expected).await?);
            }
            Ok(times)
        })
    });
    let times = joined(tasks.collect()).await?;
    Ok((times, start.elapsed()))
}

async fn open(server: &Server, connections: usize) -> Result<Vec<Connection>> {
    let mut opened = Vec::new();
    for _ in 0..connections {
        opened.push(Connection::open(server.port, &server.ca_pem).await?);
    }
    Ok(opened)
}

async fn joined(tasks: Vec<JoinHandle<Result<Vec<Duration>>>>) -> Result<Times> {
    let mut times = Vec::new();
    for task in tasks {
        times.extend(task.await??);
    }
    Ok(Times::of(times))
}
