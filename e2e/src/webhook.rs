//! `countersign serve --standalone` as a process of its own, and the API server's part before it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use countersign_https::ClientTls;
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::{Process, countersign, free_port, pod};

/// Between two pods of a [`Probe`].
const PERIOD: Duration = Duration::from_millis(50);

/// The process, and a client that posts reviews to it. It is killed when it is dropped.
pub struct Webhook {
    process: Process,
    caller: Caller,
    log: PathBuf,
}

/// What became of a pod.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// Whether both webhooks admit it.
    pub allowed: bool,
    /// Why not.
    pub message: String,
    /// Those of both.
    pub warnings: Vec<String>,
    /// The images as they are stored.
    pub images: Vec<String>,
    /// How long both took.
    pub took: Duration,
}

impl Answer {
    /// Whether it was admitted by what is known of the time before an outage.
    pub fn is_stale(&self) -> bool {
        self.allowed && self.warnings.iter().any(|warning| warning.contains("the tag was last confirmed at"))
    }
}

impl Webhook {
    /// Starts one that goes by this Site and the policies that are shipped, and waits until it listens.
    pub fn start(site: &Path, more: &[&str]) -> Self {
        let port = free_port();
        let (ca, log) =
            (site.with_extension(format!("{port}.pem")), site.with_extension(format!("{port}.log")));
        let policies = concat!(env!("CARGO_MANIFEST_DIR"), "/../policies");
        let mut command = Command::new(countersign());
        command.args(["serve", "--standalone", "--policies", policies, "--site"]).arg(site).args(more);
        command.arg("--listen").arg(format!("127.0.0.1:{port}")).arg("--ca-out").arg(&ca);
        command.stdout(std::fs::File::create(&log).unwrap()).stderr(Stdio::null());
        let process = Process::listening(&mut command, port);
        let tls = ClientTls { ca_pem: vec![std::fs::read_to_string(&ca).unwrap()], ..ClientTls::default() };
        let https = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(countersign_https::client(&tls).unwrap())
            .https_only()
            .enable_http1()
            .build();
        let client = Client::builder(TokioExecutor::new()).build(https);
        Self { process, caller: Caller { client, port }, log }
    }

    /// Creates a pod with these images.
    pub async fn pod(&self, images: &[&str]) -> Answer {
        self.caller.pod(images).await.expect("an answer")
    }

    /// The same, whether or not the process is there until the end.
    pub fn caller(&self) -> Caller {
        self.caller.clone()
    }

    /// A pod of this image twenty times a second, until [`Probe::end`].
    pub fn probe(&self, image: &str) -> Probe {
        let (caller, image, ended) = (self.caller(), image.to_owned(), Arc::new(AtomicBool::new(false)));
        let end = Arc::clone(&ended);
        let task = tokio::spawn(async move {
            let (mut answers, mut clock) = (Vec::new(), tokio::time::interval(PERIOD));
            clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            while !end.load(Ordering::Relaxed) {
                clock.tick().await;
                answers.push(caller.pod(&[&image]).await.expect("an answer"));
            }
            answers
        });
        Probe { ended, task }
    }

    /// Creates pods of this image until one is as it should be; how long that took.
    pub async fn until(
        &self,
        what: &str,
        within: Duration,
        image: &str,
        holds: impl Fn(&Answer) -> bool,
    ) -> Duration {
        let start = Instant::now();
        loop {
            let answer = self.pod(&[image]).await;
            if holds(&answer) {
                return start.elapsed();
            }
            assert!(start.elapsed() < within, "not within {within:?}: {what}: {answer:#?}");
            tokio::time::sleep(PERIOD).await;
        }
    }

    /// The decision log.
    pub fn decisions(&self) -> Vec<Value> {
        self.lines().filter(|line| line["target"] == "decision").collect()
    }

    /// Waits until it has taken up so many changes to its files; how long that took.
    pub async fn changed(&self, times: usize, within: Duration) -> Duration {
        let start = Instant::now();
        let taken_up = |line: &Value| line["message"] == "changed files are in force";
        while self.lines().filter(taken_up).count() < times {
            assert!(start.elapsed() < within, "change {times} does not act within {within:?}");
            tokio::time::sleep(PERIOD).await;
        }
        start.elapsed()
    }

    fn lines(&self) -> impl Iterator<Item = Value> {
        let log = std::fs::read_to_string(&self.log).unwrap();
        // The last line may be half written.
        let lines: Vec<Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        lines.into_iter()
    }

    /// The latest decision on this image.
    pub fn decision(&self, image: &str) -> Value {
        self.decisions().into_iter().rfind(|line| line["image"] == image).unwrap_or_default()
    }

    /// Resident memory in kB: `VmRSS`, what there is, or `VmHWM`, the most that there was.
    pub fn memory(&self, field: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }
}

/// What posts reviews to one webhook. Cheap to clone.
#[derive(Clone)]
pub struct Caller {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    port: u16,
}

impl Caller {
    /// Creates a pod as an API server does: what the mutating webhook made of it goes to the
    /// validating one. `None` if the webhook is not there.
    pub async fn pod(&self, images: &[&str]) -> Option<Answer> {
        let (start, mut object) = (Instant::now(), pod("pod", images));
        let mut answer = Answer::default();
        for phase in ["mutate", "validate"] {
            let response = self.post(phase, &object).await?;
            let warnings = response["warnings"].as_array().into_iter().flatten();
            answer.warnings.extend(warnings.filter_map(|warning| warning.as_str().map(ToOwned::to_owned)));
            answer.allowed = response["allowed"] == true;
            if !answer.allowed {
                let message = response["status"]["message"].as_str();
                message.unwrap_or_default().clone_into(&mut answer.message);
                break;
            }
            if let Some(patch) = response["patch"].as_str() {
                let patch = base64::engine::general_purpose::STANDARD.decode(patch).unwrap();
                json_patch::patch(&mut object, &serde_json::from_slice::<json_patch::Patch>(&patch).unwrap())
                    .unwrap();
            }
        }
        let containers = object["spec"]["containers"].as_array().into_iter().flatten();
        answer.images =
            containers.filter_map(|container| container["image"].as_str().map(ToOwned::to_owned)).collect();
        answer.took = start.elapsed();
        Some(answer)
    }

    async fn post(&self, phase: &str, object: &Value) -> Option<Value> {
        let review = json!({
            "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
            "request": {
                "uid": "1", "kind": { "group": "", "version": "v1", "kind": "Pod" },
                "resource": { "group": "", "version": "v1", "resource": "pods" },
                "namespace": "default", "operation": "CREATE", "dryRun": false, "object": object,
            },
        });
        let request = Request::post(format!("https://127.0.0.1:{}/{phase}/fail?timeout=10s", self.port))
            .header("content-type", "application/json")
            .body(Full::new(review.to_string().into()))
            .unwrap();
        let response = self.client.request(request).await.ok()?;
        let body = response.into_body().collect().await.ok()?.to_bytes();
        Some(serde_json::from_slice::<Value>(&body).unwrap()["response"].take())
    }
}

/// Pods that are created all the time.
pub struct Probe {
    ended: Arc<AtomicBool>,
    task: JoinHandle<Vec<Answer>>,
}

impl Probe {
    /// What became of each of them.
    pub async fn end(self) -> Vec<Answer> {
        self.ended.store(true, Ordering::Relaxed);
        self.task.await.unwrap()
    }

    /// Ends it; none of them may have been denied. How many there were, and how many of them by what
    /// was known before.
    pub async fn never_denied(self) -> (usize, usize) {
        let answers = self.end().await;
        let denied: Vec<_> = answers.iter().filter(|answer| !answer.allowed).collect();
        assert!(denied.is_empty(), "{} of {}: {:#?}", denied.len(), answers.len(), denied.first());
        (answers.len(), answers.iter().filter(|answer| answer.is_stale()).count())
    }
}
