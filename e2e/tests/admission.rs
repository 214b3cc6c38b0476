//! Pods through a real kube-apiserver, verified against a real registry, signed by real cosign.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::process::{Command, Stdio};

use countersign_e2e::{
    ControlPlane, Cosign, KeyType, Process, Registry, RegistryKind, assert_isolated, countersign, free_port,
    pod, push_image,
};
use hyper::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

fn image(pod: &Value, list: &str) -> String {
    pod["spec"][list][0]["image"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_are_stored_with_the_verified_digest_or_not_at_all() {
    assert_isolated();
    let directory = TempDir::new().unwrap();
    // The bootstrap registry has the referrers API, the cluster's has not.
    let (mut bootstrap, mut cluster) =
        (Registry::start(RegistryKind::WithReferrers), Registry::start(RegistryKind::Distribution));
    let key = Cosign::V3.key_pair(directory.path(), "vendor", KeyType::EcdsaP256);
    let rsa = Cosign::V2.key_pair(directory.path(), "rsa", KeyType::Rsa4096);
    let app = push_image(&bootstrap.host(), "quay.io/acme/app", "1", "app").await;
    Cosign::V3.sign(directory.path(), &rsa, &app.by_digest());
    let tool = push_image(&cluster.host(), "quay.io/acme/tool", "1", "tool").await;
    Cosign::V2.sign(directory.path(), &rsa, &tool.by_digest());
    let side = push_image(&cluster.host(), "quay.io/acme/side", "1", "side").await;
    Cosign::V3.sign(directory.path(), &key, &side.by_digest());
    push_image(&cluster.host(), "quay.io/acme/unsigned", "1", "unsigned").await;

    let site = directory.path().join("site.yaml");
    let text = format!(
        "apiVersion: countersign.dev/v1alpha1\nkind: Site\nspec:\n  registry:\n    name: registry.local\n    endpoints:\n      - {{ name: bootstrap, url: http://{} }}\n      - {{ name: cluster, url: http://{} }}\n  trust: {{ keys: {{ vendor: {{ file: vendor.pub }}, rsa: {{ file: rsa.pub }} }} }}\n  tagFreshness: 1s\n",
        bootstrap.host(),
        cluster.host()
    );
    std::fs::write(&site, text).unwrap();
    let (port, ca) = (free_port(), directory.path().join("ca.pem"));
    let policies = concat!(env!("CARGO_MANIFEST_DIR"), "/../policies");
    let mut serve = Command::new(countersign());
    serve.args(["serve", "--standalone", "--policies", policies, "--site"]).arg(&site);
    serve.arg("--listen").arg(format!("127.0.0.1:{port}")).arg("--ca-out").arg(&ca);
    let log = std::fs::File::create(directory.path().join("decisions")).unwrap();
    let _serve = Process::listening(serve.stdout(log).stderr(Stdio::null()), port);
    let plane = ControlPlane::start().await;
    plane.register(port, &std::fs::read_to_string(&ca).unwrap()).await;

    // Rewritten, verified, pinned; an image volume as well.
    let mut good = pod("good", &["quay.io/acme/app:1", "quay.io/acme/side:1"]);
    good["spec"]["volumes"] = json!([{ "name": "v", "image": { "reference": "quay.io/acme/tool:1" } }]);
    let (status, stored) = plane.create_pod(&good).await;
    assert_eq!(status, 201, "{stored:#}");
    let pinned = format!("registry.local/quay.io/acme/app:1@{}", app.digest);
    assert_eq!(image(&stored, "containers"), pinned);
    let side = format!("registry.local/quay.io/acme/side:1@{}", side.digest);
    assert_eq!(stored["spec"]["containers"][1]["image"], json!(side));
    let volumes = stored["spec"]["volumes"].as_array().unwrap();
    let reference = volumes.iter().find_map(|volume| volume.pointer("/image/reference")).unwrap();
    assert_eq!(reference, &json!(format!("registry.local/quay.io/acme/tool:1@{}", tool.digest)));

    // Refused, with words that say what and why.
    let (status, denial) =
        plane.create_pod(&pod("bad", &["quay.io/acme/app:1", "quay.io/acme/unsigned:1"])).await;
    let message = denial["message"].as_str().unwrap();
    assert_eq!(status, 403, "{denial:#}");
    for words in [
        "image registry.local/quay.io/acme/unsigned:1 was denied by check-image/site-keys",
        "written    quay.io/acme/unsigned:1",
        "verdict    Unsigned: no signature in any format",
        "hint: ",
    ] {
        assert!(message.contains(words), "{words}: {message}");
    }

    // A debug container is decided like any other.
    let debug =
        |image: &str| json!({ "spec": { "ephemeralContainers": [{ "name": "debug", "image": image }] } });
    let path = "/api/v1/namespaces/default/pods/good/ephemeralcontainers";
    let (status, denial) = plane.call(Method::PATCH, path, Some(&debug("quay.io/acme/unsigned:1"))).await;
    assert_eq!(status, 403, "{denial:#}");
    let (status, stored) = plane.call(Method::PATCH, path, Some(&debug("quay.io/acme/tool:1"))).await;
    assert_eq!(status, 200, "{stored:#}");
    assert_eq!(
        image(&stored, "ephemeralContainers"),
        format!("registry.local/quay.io/acme/tool:1@{}", tool.digest)
    );

    // The registries are gone: labels still change, the same pod can be made again, nothing unknown starts.
    bootstrap.stop();
    cluster.stop();
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    let labels = json!({ "metadata": { "labels": { "role": "master" } } });
    let (status, stored) =
        plane.call(Method::PATCH, "/api/v1/namespaces/default/pods/good", Some(&labels)).await;
    assert_eq!((status, image(&stored, "containers")), (200, pinned.clone()), "{stored:#}");
    let (status, stored) = plane.create_pod(&pod("again", &["quay.io/acme/app:1"])).await;
    assert_eq!((status, image(&stored, "containers")), (201, pinned), "{stored:#}");
    let (status, denial) = plane.create_pod(&pod("unknown", &["quay.io/acme/other:1"])).await;
    assert_eq!(status, 403);
    assert!(denial["message"].as_str().unwrap().contains("Undecided"), "{denial:#}");

    let decisions = std::fs::read_to_string(directory.path().join("decisions")).unwrap();
    let lines: Vec<Value> = decisions.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let told = |verdict: &str, denied: bool| {
        lines.iter().any(|line| line["verdict"] == verdict && line["denied"] == denied)
    };
    assert!(told("Verified", false) && told("Unsigned", true) && told("Undecided", true), "{decisions}");
}
