//! The pages on installs, run as they stand there on a real node; and what is left after an uninstall.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use countersign_e2e::machine::{BOOTSTRAP, CLUSTER, on_a_machine_of_its_own};
use countersign_e2e::{Block, Daemon, Install, Planted, blocks, named, run};
use hyper::Method;

const CONFIGURATIONS: [&str; 2] = [
    "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/countersign",
    "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/countersign",
];

async fn registered(site: &Install) -> [bool; 2] {
    let mut there = [false; 2];
    for (path, there) in CONFIGURATIONS.iter().zip(&mut there) {
        *there = site.cluster.plane.call(Method::GET, path, None).await.0 == 200;
    }
    there
}

/// Runs a block of a page; it has to succeed.
async fn say(site: &Install, settings: &[(&str, String)], block: &Block) {
    let (code, out, err) = run(&mut site.shell(settings, &block.text));
    let told = if code == 0 { String::new() } else { site.cluster.told().await + &site.cluster.said() };
    assert_eq!(code, 0, "{}\n{out}{err}{told}", block.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pages_on_installs() {
    if !on_a_machine_of_its_own("the_pages_on_installs") {
        return;
    }
    let mut site = Install::prepare("enforce", Planted::Nothing).await;
    let charts = format!("{}/../charts", env!("CARGO_MANIFEST_DIR"));
    let settings = [
        ("SITE", "site.yaml".to_owned()),
        ("LISTEN", format!("{BOOTSTRAP}:443")),
        ("CA", "ca.pem".to_owned()),
        ("CA_KEY", "ca.key".to_owned()),
        ("NODE", String::new()),
        ("CHARTS", charts),
        ("HELM", "--set replicas=1".to_owned()),
        ("NODE_COMMAND", Install::NODE_COMMAND.to_owned()),
    ];
    let page = blocks("install.md");
    let (uninstall, page) = page.split_last().unwrap();
    assert!(uninstall.text.contains("helm uninstall") && page.len() >= 10, "the page has its commands");
    for block in page {
        match block.kind.as_str() {
            "settings" => named(block, &settings),
            "server" => {
                let mut serve = site.shell(&settings, &format!("exec {}", block.text));
                site.bootstrap = Some(Daemon::start(&mut serve, &site.path("bootstrap.log")));
                let answers = async || tokio::net::TcpStream::connect((BOOTSTRAP, 443)).await.is_ok();
                site.cluster.until("the bootstrap registry answers", answers).await;
            }
            "restart" => {
                site.cluster.start_containerd_again();
                site.cluster.start_kubelet().await;
            }
            "filled" => {
                site.registry_chart().await;
                let hosts = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
                std::fs::write("/etc/hosts", format!("{hosts}\n{CLUSTER} registry.local\n")).unwrap();
                say(&site, &settings, block).await;
            }
            "gone" => {
                site.bootstrap.take().unwrap().stop();
                say(&site, &settings, block).await;
            }
            "reports" => {
                std::fs::create_dir(site.path("reports")).unwrap();
                say(&site, &settings, block).await;
            }
            "" | "node" => say(&site, &settings, block).await,
            other => panic!("`sh {other}`"),
        }
    }
    site.namespace("apps").await;
    let denied = async || site.post_pod("apps", "evil", "quay.io/acme/evil:1").await.0 == 403;
    site.cluster.until("what is not signed is denied", denied).await;

    // The way out at 3 a.m., and what is left when everything is gone.
    let night = blocks("3am.md");
    let settings_of_night = [("NAMESPACE", "countersign".to_owned())];
    assert!(night.len() >= 8, "the page has its commands");
    for block in &night {
        match block.kind.as_str() {
            "settings" => named(block, &settings_of_night),
            _ => say(&site, &settings_of_night, block).await,
        }
        let (audit, enforce) = (block.text.contains("audit"), block.text.contains("enforce"));
        if audit || enforce {
            let wanted = if audit { 201 } else { 403 };
            let acts = async || {
                let path = "/api/v1/namespaces/apps/pods/evil?gracePeriodSeconds=0";
                let status = site.post_pod("apps", "evil", "quay.io/acme/evil:1").await.0;
                site.cluster.plane.call(Method::DELETE, path, None).await;
                status == wanted
            };
            let begun = tokio::time::Instant::now();
            site.cluster.until("the mode acts", acts).await;
            assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
        }
        if block.text.contains("webhook restore") {
            let back = async || registered(&site).await == [true; 2];
            site.cluster.until("they are back", back).await;
        }
        if block.kind == "no-hooks" {
            assert_eq!(registered(&site).await, [true; 2], "nobody has taken them away");
        }
    }
    assert_eq!(registered(&site).await, [false; 2]);

    // A new install is a new one, and an uninstall with hooks leaves no webhook behind.
    site.ours_again().await;
    say(&site, &settings, uninstall).await;
    assert_eq!(registered(&site).await, [false; 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_uninstall_under_load_leaves_no_webhook_behind() {
    if !on_a_machine_of_its_own("an_uninstall_under_load_leaves_no_webhook_behind") {
        return;
    }
    let mut site = Install::prepare("enforce", Planted::Nothing).await;
    site.serve();
    site.node().await;
    site.ours().await;
    let evidence = "/apis/countersign.dev/v1alpha1/imageevidences";
    let kept = async || {
        site.cluster.plane.call(Method::GET, evidence, None).await.1["items"].as_array().unwrap().len()
    };
    let before = kept().await;
    assert!(before > 0);
    let charts = format!("{}/../charts", env!("CARGO_MANIFEST_DIR"));
    let (end, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    for round in 0..20 {
        // Several replicas, as ordinary pods, where there is one node.
        site.sh(&format!(
            "helm upgrade --install countersign {charts}/countersign --namespace countersign \
             --set replicas=3,placement=anywhere --wait --timeout 60s"
        ))
        .await;
        let here = async || registered(&site).await == [true; 2];
        site.cluster.until("a new install registers", here).await;
        end.store(false, Ordering::Relaxed);
        let load = async {
            while !end.load(Ordering::Relaxed) {
                let name = format!("load-{}", asked.fetch_add(1, Ordering::Relaxed));
                site.post_pod_dry("apps", &name, "quay.io/acme/db:1.4").await;
            }
        };
        let uninstall = async {
            let mut command = site.shell(&[], "helm uninstall countersign --namespace countersign");
            let (code, out, err) = tokio::task::spawn_blocking(move || run(&mut command)).await.unwrap();
            end.store(true, Ordering::Relaxed);
            assert_eq!(code, 0, "round {round}: {out}{err}");
        };
        tokio::join!(load, uninstall);
        for _ in 0..10 {
            assert_eq!(registered(&site).await, [false; 2], "round {round}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(kept().await, before, "evidence stays");
        assert_eq!(
            site.cluster
                .plane
                .call(Method::GET, &format!("{}/default", countersign_e2e::SITES), None)
                .await
                .0,
            200
        );
    }
    assert!(asked.load(Ordering::Relaxed) > 100, "there was load");
}
