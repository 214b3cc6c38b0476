//! A registry filled from a bundle, read back, and found wanting where something is taken out.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use countersign_clock::SystemClock;
use countersign_e2e::{
    Cosign, Outside, Process, Registry, RegistryKind, assert_isolated, chance, countersign, free_port, layer,
    push_image, run,
};
use countersign_manifest::{Descriptor, MANIFEST};
use countersign_mirrors::Mirror;
use countersign_reference::Digest;
use countersign_registry::{Endpoint, EndpointSettings, Limits, Places, Timing};
use countersign_site::RegistryUrl;

fn mirror(command: &str, bundle: &Path, url: &str, more: &[&str]) -> (i32, String, String) {
    run(Command::new(countersign()).args(["mirror", command]).arg(bundle).args(["--to", url]).args(more))
}

fn bundle(outside: &Outside, more: &[&str]) -> std::path::PathBuf {
    let path = outside.path(if more.is_empty() { "bundle" } else { "chosen" });
    let images: Vec<_> = outside.images.iter().collect();
    let (code, _, err) = run(&mut outside.create(&path, &images, more));
    assert_eq!(code, 0, "{err}");
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filled_registry_has_everything_that_cosign_asks_for() {
    assert_isolated();
    let outside = Outside::new().await;
    let bundle = bundle(&outside, &[]);
    for kind in [RegistryKind::Distribution, RegistryKind::WithReferrers] {
        let registry = Registry::start(kind);
        let url = format!("http://{}", registry.host());
        let (code, out, _) = mirror("check", &bundle, &url, &[]);
        assert_eq!(code, 1, "an empty one");
        assert!(out.lines().count() > 8 && out.lines().all(|line| line.starts_with("MISSING")), "{out}");
        // The second run finds everything in its place.
        for _ in 0..2 {
            let (code, out, err) = mirror("push", &bundle, &url, &["--deep"]);
            assert_eq!((code, out.as_str()), (0, ""), "{kind:?}: {err}");
        }
        for image in &outside.images {
            let written = outside.written(image);
            let (name, _) = written.rsplit_once(':').unwrap();
            let local = format!("{}/{name}@{}", registry.host(), image.digest);
            let cosign = if name.ends_with("old") { Cosign::V2 } else { Cosign::V3 };
            assert!(cosign.verifies(outside.directory.path(), &outside.key, &local), "{kind:?} {local}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_taken_out_is_named() {
    assert_isolated();
    let outside = Outside::new().await;
    let bundle = bundle(&outside, &[]);
    let mut registry = Registry::start(RegistryKind::Distribution);
    let url = format!("http://{}", registry.host());
    assert_eq!(mirror("push", &bundle, &url, &[]).0, 0);
    let [old, multi] = [&outside.images[0], &outside.images[1]];
    let repository = |image| outside.written(image).rsplit_once(':').unwrap().0.to_owned();
    let manifests =
        |image| registry.storage().join("repositories").join(repository(image)).join("_manifests");
    let (signature, list) = (old.digest.signature_tag(), multi.digest.referrers_tag());
    let blob = |digest: &Digest| {
        registry.storage().join("blobs/sha256").join(&digest.hex()[..2]).join(digest.hex()).join("data")
    };
    // The first layer of the old image, and the arm64 half of the other.
    let layer = Digest::sha256_of(&layer("old 0"));
    let index = std::fs::read_to_string(blob(&multi.digest)).unwrap();
    let index: serde_json::Value = serde_json::from_str(&index).unwrap();
    let arm64 = Digest::parse(index["manifests"][1]["digest"].as_str().unwrap()).unwrap();
    for (path, words) in [
        (manifests(old).join("tags").join(&signature), format!("{signature}  the manifest")),
        (manifests(multi).join("tags").join(&list), "is not listed for".to_owned()),
        (blob(&layer), format!("the layer {layer} is missing")),
        (blob(&arm64), format!("{arm64} (linux/arm64)")),
    ] {
        let aside = outside.path("aside");
        std::fs::rename(&path, &aside).unwrap();
        let (code, out, err) = mirror("check", &bundle, &url, &[]);
        assert_eq!(code, 1, "{words}: {out}{err}");
        assert!(out.contains(&words), "{words}: {out}");
        std::fs::rename(&aside, &path).unwrap();
        assert_eq!(mirror("check", &bundle, &url, &[]).0, 0, "{words}");
    }
    registry.stop();
    let (code, out, _) = mirror("check", &bundle, &url, &[]);
    assert_eq!(code, 3, "nothing is known of a registry that does not answer: {out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gate_asks_at_the_endpoints_addresses_and_nowhere_else() {
    assert_isolated();
    let outside = Outside::new().await;
    let bundle = bundle(&outside, &[]);
    // The name leads to a full registry, as a DNS override would have it; the cluster's is empty.
    let full = Registry::start(RegistryKind::Distribution);
    assert_eq!(mirror("push", &bundle, &format!("http://{}", full.host()), &[]).0, 0);
    let _empty = Registry::start_with(RegistryKind::Distribution, "127.0.0.2", full.port, "");
    let site = outside.path("site.yaml");
    let text = format!(
        "apiVersion: countersign.dev/v1alpha1\nkind: Site\nspec:\n  registry:\n    name: registry.local\n    endpoints:\n      - {{ name: bootstrap, url: \"http://localhost:{0}\", addresses: [127.0.0.1] }}\n      - {{ name: cluster, url: \"http://localhost:{0}\", addresses: [127.0.0.2] }}\n",
        full.port
    );
    std::fs::write(&site, text).unwrap();
    for (endpoint, expected) in [("bootstrap", 0), ("cluster", 1)] {
        let mut command = Command::new(countersign());
        command.args(["mirror", "check"]).arg(&bundle).arg("--site").arg(&site);
        let (code, out, err) = run(command.args(["--endpoint", endpoint]));
        assert_eq!(code, expected, "{endpoint}: {out}{err}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_push_is_gone_on_with() {
    assert_isolated();
    let outside = Outside::new().await;
    let bundle = bundle(&outside, &[]);
    let registry = Registry::start(RegistryKind::Distribution);
    let url = format!("http://{}", registry.host());
    for number in 0..10 {
        let mut push = Command::new(countersign());
        push.args(["mirror", "push"]).arg(&bundle).args(["--to", &url]);
        let mut process = push.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // Within the time that a run takes, and a little later each time.
        let delay = Duration::from_millis(3 + chance(40) + number * 19);
        std::thread::sleep(delay);
        process.kill().unwrap();
        process.wait().unwrap();
    }
    let (code, out, err) = mirror("push", &bundle, &url, &["--deep"]);
    assert_eq!((code, out.as_str()), (0, ""), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_taken_is_no_success_though_all_can_be_read() {
    assert_isolated();
    let outside = Outside::new().await;
    let bundle = bundle(&outside, &[]);
    // The bootstrap registry, as a DNS override would put it in the cluster registry's place.
    let port = free_port();
    let mut serve = Command::new(countersign());
    serve.args(["registry", "serve", "--http", "--listen", &format!("127.0.0.1:{port}")]).arg(&bundle);
    let _serve = Process::listening(serve.stdout(Stdio::null()).stderr(Stdio::null()), port);
    let url = format!("http://127.0.0.1:{port}");
    assert_eq!(mirror("check", &bundle, &url, &[]).0, 0);
    let (code, out, err) = mirror("push", &bundle, &url, &[]);
    assert_eq!((code, out.as_str()), (1, ""), "{err}");
    assert!(err.contains("it does not take it (405"), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_that_lacks_something_fills_no_registry() {
    assert_isolated();
    let outside = Outside::new().await;
    let bundle = bundle(&outside, &[]);
    let registry = Registry::start(RegistryKind::Distribution);
    let url = format!("http://{}", registry.host());
    let layer = Digest::sha256_of(&layer("old 0"));
    std::fs::remove_file(bundle.join("blobs/sha256").join(layer.hex())).unwrap();
    let (code, out, err) = mirror("push", &bundle, &url, &[]);
    assert_eq!(code, 1, "{out}{err}");
    let words = format!("the layer {layer} is missing");
    assert!(err.contains(&words) && out.contains(&format!("the bundle itself: {words}")), "{out}{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_wants_every_platform_says_so_before_the_upload() {
    assert_isolated();
    let outside = Outside::new().await;
    let chosen = bundle(&outside, &["--platform", "linux/amd64"]);
    let strict = Registry::start(RegistryKind::Distribution);
    let (code, _, err) = mirror("push", &chosen, &format!("http://{}", strict.host()), &[]);
    assert_eq!(code, 2, "{err}");
    assert!(err.contains("validation.manifests.indexes.platforms"), "{err}");
    assert!(!strict.storage().join("blobs").exists(), "nothing was uploaded");
    let more = "validation: { manifests: { indexes: { platforms: none } } }\n";
    let lax = Registry::start_with(RegistryKind::Distribution, "127.0.0.1", free_port(), more);
    let (code, out, err) = mirror("push", &chosen, &format!("http://{}", lax.host()), &[]);
    assert_eq!(code, 0, "{out}{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_is_told_to_the_host_that_it_is_for() {
    assert_isolated();
    let outside = Outside::new().await;
    let bundle = bundle(&outside, &[]);
    let users = outside.path("users");
    // bcrypt of `a secret`.
    std::fs::write(&users, "installer:$2a$04$1KiQZ2As55lf08oAVNBeQuH18DMX6/JFchcDUCk8PWryzBeq7Els6\n")
        .unwrap();
    let more = format!("auth: {{ htpasswd: {{ realm: test, path: \"{}\" }} }}\n", users.display());
    let registry = Registry::start_with(RegistryKind::Distribution, "127.0.0.1", free_port(), &more);
    let url = format!("http://{}", registry.host());
    let config = outside.path("config.json");
    let credentials = ["--credentials", config.to_str().unwrap()];
    for (host, password, expected) in [
        (registry.host(), "a secret", 0),
        (registry.host(), "another", 1),
        ("127.0.0.1:1".to_owned(), "a secret", 1),
    ] {
        let auths =
            serde_json::json!({ "auths": { host: { "username": "installer", "password": password } } });
        std::fs::write(&config, auths.to_string()).unwrap();
        let (code, out, err) = mirror("push", &bundle, &url, &credentials);
        assert_eq!(code, expected, "{password}: {out}{err}");
        assert!(!err.contains("secret"), "{err}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_writers_of_a_fallback_tag_lose_nothing() {
    assert_isolated();
    let registry = Registry::start(RegistryKind::Distribution);
    let image = push_image(&registry.host(), "acme/app", "1", "app").await;
    let mut referrers = Vec::new();
    for number in 0..8 {
        let pushed =
            push_image(&registry.host(), "acme/app", &format!("r{number}"), &number.to_string()).await;
        referrers.push(Descriptor::new(MANIFEST, pushed.digest, 1));
    }
    let endpoint = || {
        let url = RegistryUrl::parse(&format!("http://{}", registry.host())).unwrap();
        let mirror = Mirror::new("registry", url);
        let settings = EndpointSettings {
            tls: countersign_https::ClientTls::default(),
            limits: Limits::DEFAULT,
            timing: Timing::DEFAULT,
            credentials: None,
            places: Places::new(&Limits::DEFAULT),
        };
        Endpoint::new(&mirror, settings, Arc::new(SystemClock::default())).unwrap()
    };
    let write = async |own: &[Descriptor]| {
        let endpoint = endpoint();
        for referrer in own {
            endpoint
                .add_to_referrers_tag("acme/app", &image.digest, std::slice::from_ref(referrer))
                .await
                .unwrap();
        }
    };
    let (first, second) = referrers.split_at(4);
    tokio::join!(write(first), write(second));
    let listed = endpoint().referrers_by_tag("acme/app", &image.digest).await.unwrap();
    for referrer in &referrers {
        assert!(listed.iter().any(|(digest, _)| *digest == referrer.digest), "{listed:#?}");
    }
}
