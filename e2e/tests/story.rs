//! The first pods of an air-gapped install, on a real node; then the bootstrap machine disappears.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use countersign_e2e::machine::{CLUSTER, on_a_machine_of_its_own};
use countersign_e2e::{Install, succeed};
use countersign_layout::Layout;
use hyper::Method;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::Instant;

#[tokio::test(flavor = "multi_thread")]
async fn in_enforce() {
    if on_a_machine_of_its_own("in_enforce") {
        let mut site = Install::begin("enforce").await;
        first_pods(&site).await;
        switch_over(&site).await;
        bootstrap_is_gone(&mut site).await;
        cold_start(&mut site).await;
        site.nobody_else_was_asked();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn in_audit() {
    if on_a_machine_of_its_own("in_audit") {
        let mut site = Install::begin("audit").await;
        first_pods(&site).await;
        switch_over(&site).await;
        bootstrap_is_gone(&mut site).await;
        site.nobody_else_was_asked();
    }
}

/// Charts whose pods name upstream hosts, and pods that somebody has planted.
async fn first_pods(site: &Install) {
    let digest = &site.carried.db.digest;
    site.install("db", "apps", "quay.io/acme/db:1.4").await;
    site.install("web", "apps", "ghcr.io/acme/web:2").await;
    let running = site.until_running("apps", &["db", "web"]).await;
    if site.enforce {
        assert_eq!(running["db"], format!("registry.local/quay.io/acme/db:1.4@{digest}"));
        assert!(running["web"].starts_with("registry.local/ghcr.io/acme/web:2@sha256:"), "{running:?}");
    } else {
        // A tag is not at hand before a registry has been asked for it.
        assert_eq!(running["db"], "registry.local/quay.io/acme/db:1.4");
        let next = async || {
            let (status, stored) = site.post_pod("apps", "next", "quay.io/acme/db:1.4").await;
            let image = stored["spec"]["containers"][0]["image"].clone();
            let path = "/api/v1/namespaces/apps/pods/next?gracePeriodSeconds=0";
            site.cluster.plane.call(Method::DELETE, path, None).await;
            status == 201 && image == format!("registry.local/quay.io/acme/db:1.4@{digest}")
        };
        site.cluster.until("the next pod of the same image is pinned", next).await;
    }

    let (status, body) = site.post_pod("apps", "evil", "quay.io/acme/evil:1").await;
    if site.enforce {
        assert_eq!(status, 403, "{body:#}");
        let message = body["message"].as_str().unwrap();
        let words = "image registry.local/quay.io/acme/evil:1 was denied by check-image/keys";
        assert!(message.contains(words) && message.contains("Unsigned"), "{message}");
    } else {
        assert_eq!(status, 201, "{body:#}");
        site.until_running("apps", &["evil"]).await;
        let reported = async || {
            let path = "/apis/events.k8s.io/v1/namespaces/apps/events";
            let events = site.cluster.plane.call(Method::GET, path, None).await.1;
            events["items"].as_array().unwrap().iter().any(|event| {
                event["reason"] == "ImageViolation"
                    && event["note"].as_str().unwrap().contains("quay.io/acme/evil:1 would be denied")
            })
        };
        site.cluster.until("what runs unsigned is reported", reported).await;
    }
    let (status, stored) = site.post_pod("apps", "by-digest", &format!("quay.io/acme/db@{digest}")).await;
    assert_eq!(status, 201, "{stored:#}");
    let kept = format!("registry.local/quay.io/acme/db@{digest}");
    assert_eq!(stored["spec"]["containers"][0]["image"], kept, "a digest is kept");
    site.until_running("apps", &["by-digest"]).await;
}

/// The cluster's own registry comes up, is filled and proven, and is asked first from then on.
async fn switch_over(site: &Install) {
    site.registry_chart().await;
    let switch = format!(
        "countersign install switch-over --bundle bundle.tar --timeout 60 --node-command '{}'",
        Install::NODE_COMMAND
    );
    // The name leads to the bootstrap machine, which has everything; the registry that is meant is empty.
    let (code, out, err) = site.try_sh(&switch);
    assert_eq!(code, 1, "{out}{err}");
    assert!(out.contains("MISSING  quay.io/acme/db:1.4  the manifest"), "{out}");
    assert!(err.contains("nothing is changed"), "{err}");

    // From here on the name leads where it belongs.
    let mut hosts = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
    hosts += &format!("\n{CLUSTER} registry.local\n");
    std::fs::write("/etc/hosts", hosts).unwrap();

    site.sh("countersign mirror push bundle.tar --site site.yaml --endpoint cluster").await;
    // Without one signature, and without one layer, it is refused by name.
    let storage = Path::new("/var/lib/nexus/docker/registry/v2");
    let blob = |digest: &str| {
        let hex = digest.strip_prefix("sha256:").unwrap();
        storage.join("blobs/sha256").join(&hex[..2]).join(hex).join("data")
    };
    let layer = {
        let layout = Layout::open(&site.carried.bundle).unwrap();
        let manifest = layout.get(&site.carried.db.digest).unwrap();
        let manifest: Value = serde_json::from_slice(&manifest).unwrap();
        manifest["layers"][0]["digest"].as_str().unwrap().to_owned()
    };
    let signature = {
        let tag = site.carried.db.digest.to_string().replacen(':', "-", 1);
        let tags = storage.join("repositories/quay.io/acme/db/_manifests/tags");
        let index = std::fs::read_to_string(tags.join(&tag).join("current/link")).unwrap();
        let index: Value = serde_json::from_slice(&std::fs::read(blob(&index)).unwrap()).unwrap();
        index["manifests"][0]["digest"].as_str().unwrap().to_owned()
    };
    for digest in [&signature, &layer] {
        let (file, aside) = (blob(digest), site.path("aside"));
        succeed(Command::new("mv").arg(&file).arg(&aside));
        let (code, out, err) = site.try_sh(&switch);
        assert_eq!(code, 1, "{out}{err}");
        let named = |line: &str| {
            line.starts_with("MISSING") && line.contains("acme/db") && line.contains(digest.as_str())
        };
        assert!(out.lines().any(named), "{digest}: {out}");
        succeed(Command::new("mv").arg(&aside).arg(&file));
    }

    let done = site.sh(&switch).await;
    assert!(done.contains("OK  node-1  asks `cluster` first"), "{done}");
    // There and back again: it is the node that says whom it asks.
    let back = site.sh(&format!("{switch} --rollback")).await;
    assert!(back.contains("OK  node-1  asks `bootstrap` first"), "{back}");
    let done = site.sh(&switch).await;
    assert!(done.contains("every node asks `cluster` first"), "{done}");
}

/// The bootstrap machine is gone for good, and every pod is made anew.
async fn bootstrap_is_gone(site: &mut Install) {
    site.bootstrap.take().unwrap().stop();
    let retire = format!(
        "countersign install retire-bootstrap --timeout 60 --node-site node-site.yaml --node-command '{}'",
        Install::NODE_COMMAND
    );
    site.sh(&retire).await;
    // What only the node knows.
    std::fs::create_dir_all(site.path("reports")).unwrap();
    let (code, out, err) = site.try_sh(&format!("{retire} --node-reports reports"));
    assert_eq!(code, 1, "{out}{err}");
    assert!(out.contains("UNKNOWN  node-1"), "{out}");
    site.sh("countersign node check --site node-site.yaml --output json > reports/node-1.json").await;
    let (code, out, err) = site.try_sh(&format!("{retire} --node-reports reports"));
    assert_eq!(code, 0, "{out}{err}");
    let rules = std::fs::read_to_string("/etc/containerd/certs.d/registry.local/hosts.toml").unwrap();
    assert!(!rules.contains("pit.nmn"), "{rules}");

    let before = site.running("apps").await;
    assert!(before.contains_key("by-digest"), "{before:?}");
    // Layers are fetched again only where nothing uses them any more.
    site.scale("apps", &["db", "web"], 0).await;
    site.delete_all("apps").await;
    let gone = async || site.cluster.pods("apps").await.is_empty();
    site.cluster.until("the old pods are gone", gone).await;
    site.cluster.empty();
    site.scale("apps", &["db", "web"], 1).await;
    let image = format!("quay.io/acme/db@{}", site.carried.db.digest);
    assert_eq!(site.post_pod("apps", "by-digest", &image).await.0, 201);
    let after = site.until_running("apps", &["db", "web", "by-digest"]).await;
    for (app, image) in &after {
        let part = if site.enforce { "@sha256:" } else { "registry.local/" };
        assert!(image.contains(part), "{app}: {image}");
    }
}

/// Sixty days later everything comes up at once, and no registry answers.
async fn cold_start(site: &mut Install) {
    site.scale("nexus", &["registry"], 0).await;
    let down = async || TcpStream::connect((CLUSTER, 443)).await.is_err();
    site.cluster.until("no registry answers", down).await;
    site.age_records(60).await;
    // Nothing that runs on the node survives.
    site.cluster.power_off();
    site.cluster.start_containerd();
    site.cluster.start_kubelet().await;
    let back = async || {
        site.cluster.pods("countersign").await.iter().any(|pod| {
            let status = &pod["status"]["containerStatuses"][0];
            status["ready"] == true && status["restartCount"].as_u64().unwrap_or_default() > 0
        })
    };
    site.cluster.until("our replica is back", back).await;
    let known = async || site.post_pod("apps", "known", "quay.io/acme/db:1.4").await.0 == 201;
    site.cluster.until("what is known is admitted", known).await;
    let path = "/api/v1/namespaces/apps/pods/known";
    let stored = site.cluster.plane.call(Method::GET, path, None).await.1;
    let expected = format!("registry.local/quay.io/acme/db:1.4@{}", site.carried.db.digest);
    assert_eq!(stored["spec"]["containers"][0]["image"], expected);
    let (status, body) = site.post_pod("apps", "unknown", "quay.io/acme/unknown:1").await;
    assert_eq!(status, 403, "{body:#}");
    assert!(body["message"].as_str().unwrap().contains("Undecided"), "{body:#}");
    // What must not wait does not.
    site.namespace("kube-system").await;
    let begun = Instant::now();
    let (status, body) = site.post_pod("kube-system", "must-start", "quay.io/acme/unknown:1").await;
    assert_eq!(status, 201, "{body:#}");
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    site.scale("nexus", &["registry"], 1).await;
    let running = site.until_running("nexus", &["registry"]).await;
    assert!(running["registry"].starts_with("quay.io/acme/registry:3"), "{running:?}");
    let up = async || TcpStream::connect((CLUSTER, 443)).await.is_ok();
    site.cluster.until("the registry answers", up).await;
    site.until_running("apps", &["known", "db", "web"]).await;
}
