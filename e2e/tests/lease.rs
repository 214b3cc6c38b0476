//! Who leads, by a real API server.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use countersign_clock::SystemClock;
use countersign_cluster::{Candidate, LeaseTiming, client};
use countersign_e2e::{ControlPlane, Process, assert_isolated, countersign, free_port, run};
use hyper::Method;
use serde_json::json;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

const TIMING: LeaseTiming = LeaseTiming {
    duration: Duration::from_secs(6),
    deadline: Duration::from_secs(4),
    retry: Duration::from_millis(200),
};

/// One who would lead, over a line that can be cut.
struct Runner {
    leads: watch::Receiver<bool>,
    line: Option<JoinHandle<()>>,
    task: JoinHandle<()>,
    candidate: Arc<Candidate>,
}

impl Runner {
    async fn start(plane: &ControlPlane, identity: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (port, to) = (listener.local_addr().unwrap().port(), plane.port());
        let line = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut near, _)) = listener.accept().await {
                connections.spawn(async move {
                    let mut far = TcpStream::connect(("127.0.0.1", to)).await.unwrap();
                    _ = copy_bidirectional(&mut near, &mut far).await;
                });
            }
        });
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("kubeconfig");
        std::fs::write(&file, plane.kubeconfig_at(port)).unwrap();
        let client = client(Some(&file), None).await.unwrap();
        let clock = Arc::new(SystemClock::default());
        let candidate = Arc::new(Candidate::new(&client, "default", "test", identity, TIMING, clock));
        let (leading, leads) = watch::channel(false);
        let own = Arc::clone(&candidate);
        let task = tokio::spawn(async move { own.run(&leading).await });
        Self { leads, line: Some(line), task, candidate }
    }

    fn leads(&self) -> bool {
        *self.leads.borrow()
    }

    async fn until(&mut self, leads: bool) {
        let changed = tokio::time::timeout(Duration::from_secs(20), self.leads.wait_for(|now| *now == leads));
        changed.await.unwrap_or_else(|_| panic!("not in time: {leads}")).unwrap();
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        self.task.abort();
        self.line.iter().for_each(JoinHandle::abort);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_leads_at_a_time_and_another_one_after_it() {
    assert_isolated();
    let plane = ControlPlane::start().await;
    let mut first = Runner::start(&plane, "first").await;
    first.until(true).await;
    let mut second = Runner::start(&plane, "second").await;
    for _ in 0..25 {
        assert!(!second.leads());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    first.until(true).await;
    // Cut off, it stops before another one begins.
    first.line.take().unwrap().abort();
    while first.leads() {
        assert!(!second.leads(), "two at a time");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(!second.leads(), "none in between");
    second.until(true).await;
    // Who gives it up is followed at once, and not after the time of the lease.
    let mut third = Runner::start(&plane, "third").await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    second.until(true).await;
    assert!(!third.leads());
    second.task.abort();
    _ = (&mut second.task).await;
    second.candidate.release().await;
    let soon = tokio::time::timeout(Duration::from_secs(4), third.until(true));
    assert!(soon.await.is_ok(), "it waits though nobody holds the lease");
    let lease = "/apis/coordination.k8s.io/v1/namespaces/default/leases/test";
    let (_, found) = plane.call(Method::GET, lease, None).await;
    assert_eq!(
        (&found["spec"]["holderIdentity"], &found["spec"]["leaseTransitions"]),
        (&json!("third"), &json!(3))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leader_takes_out_what_has_ended() {
    assert_isolated();
    let plane = ControlPlane::start().await;
    let directory = tempfile::tempdir().unwrap();
    let kubeconfig = directory.path().join("kubeconfig");
    std::fs::write(&kubeconfig, plane.kubeconfig()).unwrap();
    let corefile = ".:53 {\n    reload\n}\n";
    let map = json!({ "metadata": { "name": "coredns" }, "data": { "Corefile": corefile } });
    let maps = "/api/v1/namespaces/kube-system/configmaps";
    plane
        .until("kube-system is there", async || plane.call(Method::POST, maps, Some(&map)).await.0 == 201)
        .await;
    let text = async || {
        let found = plane.call(Method::GET, &format!("{maps}/coredns"), None).await.1;
        found["data"]["Corefile"].as_str().unwrap().to_owned()
    };
    let set = |name: &str, expires: &str| {
        let mut dns = Command::new(countersign());
        dns.args(["dns", "override", "set", "--address", "192.0.2.1", "--wait", "0", "--name", name]);
        dns.args(["--expires", expires, "--kubeconfig"]).arg(&kubeconfig);
        // There is no endpoint that could answer.
        assert_eq!(run(&mut dns).0, 1);
    };
    set("lasts.local", "1h");
    set("ends.local", "1s");
    assert!(text().await.contains("ends.local:53"));
    let namespace = json!({ "metadata": { "name": "countersign" } });
    assert_eq!(plane.call(Method::POST, "/api/v1/namespaces", Some(&namespace)).await.0, 201);
    // Who cannot read what there is leads nobody.
    let crds = run(Command::new(countersign()).args(["crds", "apply", "--kubeconfig"]).arg(&kubeconfig));
    assert_eq!(crds.0, 0, "{}", crds.2);
    let port = free_port();
    let mut serve = Command::new(countersign());
    serve.args(["serve", "--listen", &format!("127.0.0.1:{port}"), "--kubeconfig"]).arg(&kubeconfig);
    let _serve = Process::listening(serve.stdout(Stdio::null()).stderr(Stdio::null()), port);
    plane.until("what has ended is gone", async || !text().await.contains("ends.local")).await;
    assert!(text().await.starts_with(corefile) && text().await.contains("lasts.local:53"));
}
