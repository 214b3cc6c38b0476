//! Proofs in the cluster: what was verified once is known when no registry answers.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::process::Command;

use countersign_e2e::{
    Fate, Installed, Outside, SECRETS, SITES, assert_isolated, countersign, pod, run, tag_record,
};
use countersign_evidence::Origin;
use countersign_reference::Digest;
use hyper::Method;
use serde_json::{Value, json};

const EVIDENCE: &str = "/apis/countersign.dev/v1alpha1/imageevidences";

fn object_of(digest: &Digest) -> String {
    format!("{EVIDENCE}/{}", digest.to_string().replacen(':', "-", 1))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_verified_is_known_after_a_restart_without_a_registry() {
    assert_isolated();
    let mut cluster = Installed::start().await;
    let digest = cluster.signed.digest.clone();
    let object = object_of(&digest);
    // A dry run leaves nothing behind; a pod does.
    assert_eq!(cluster.fate("signed").await, Fate::Pinned);
    assert_eq!(cluster.plane.call(Method::GET, &object, None).await.0, 404);
    assert_eq!(cluster.plane.create_pod(&pod("first", &["quay.io/acme/signed:1"])).await.0, 201);
    let written = async || {
        let spec = cluster.plane.call(Method::GET, &object, None).await.1["spec"].clone();
        spec["tags"][0]["image"] == "registry.local/quay.io/acme/signed:1"
            && spec["signatures"].as_array().is_some_and(|list| list.len() == 1)
    };
    cluster.plane.until("there is evidence of the image", written).await;

    cluster.registry.stop();
    cluster.restart().await;
    cluster.soon("from evidence", Fate::Pinned, Fate::Denied).await;
    let (status, stored) = cluster.plane.create_pod(&pod("second", &["quay.io/acme/signed:1"])).await;
    assert_eq!(status, 201, "{stored:#}");
    assert_eq!(
        stored["spec"]["containers"][0]["image"],
        format!("registry.local/quay.io/acme/signed:1@{digest}")
    );

    // Sixty days later, a record that only a registry has confirmed is too old; one of a bundle is not,
    // and what names a digest needs none.
    let good = cluster.plane.call(Method::GET, &object, None).await.1["spec"]["tags"].clone();
    let image = "registry.local/quay.io/acme/signed:1";
    let old = tag_record(&cluster.plane, image, &digest, 60, Origin::Registry).await;
    cluster.patch(&object, &json!({ "spec": { "tags": [old] } })).await;
    cluster.restart().await;
    cluster.soon("an old record", Fate::Denied, Fate::Denied).await;
    let pinned = pod("third", &[&format!("quay.io/acme/signed@{digest}")]);
    assert_eq!(cluster.plane.create_pod(&pinned).await.0, 201);
    let of_bundle = tag_record(&cluster.plane, image, &digest, 60, Origin::Bundle).await;
    cluster.patch(&object, &json!({ "spec": { "tags": [of_bundle.clone()] } })).await;
    cluster.soon("an old record of a bundle", Fate::Pinned, Fate::Denied).await;

    // A record that somebody has changed counts for nothing.
    let mut forged = of_bundle.clone();
    forged["image"] = json!("registry.local/quay.io/acme/unsigned:1");
    cluster.patch(&object, &json!({ "spec": { "tags": [of_bundle, forged] } })).await;
    cluster.stays("a forged record", Fate::Pinned, Fate::Denied).await;
    cluster.patch(&object, &json!({ "spec": { "tags": good } })).await;

    // A signature that somebody has changed is none, and a key that is gone is gone.
    let trust = |keys: Value| json!({ "spec": { "trust": { "keys": keys } } });
    cluster.patch(&format!("{SITES}/default"), &trust(json!({ "vendor": null }))).await;
    cluster.soon("no key", Fate::Denied, Fate::Denied).await;
    let key = json!({ "vendor": { "secret": { "name": "keys", "key": "vendor.pub" } } });
    cluster.patch(&format!("{SITES}/default"), &trust(key)).await;
    cluster.soon("the key again", Fate::Pinned, Fate::Denied).await;
    let mut signatures = cluster.plane.call(Method::GET, &object, None).await.1["spec"]["signatures"].clone();
    assert!(signatures[0]["bundle"].is_string(), "{signatures:#}");
    signatures[0]["bundle"] = json!("e30=");
    cluster.patch(&object, &json!({ "spec": { "signatures": signatures } })).await;
    cluster.restart().await;
    cluster.soon("a signature that is none", Fate::Denied, Fate::Denied).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_is_known_before_any_registry_is_there() {
    assert_isolated();
    let outside = Outside::new().await;
    let (private, public) = outside.seal_key();
    let [old, multi] = [&outside.images[0], &outside.images[1]];
    let bundle = outside.path("bundle.tar");
    let seal = private.to_str().unwrap();
    let (code, _, err) = run(&mut outside.create(&bundle, &[old, multi], &["--sign-key", seal]));
    assert_eq!(code, 0, "{err}");

    let mut cluster = Installed::start().await;
    let vendor = std::fs::read_to_string(&outside.key.public).unwrap();
    cluster.patch(&format!("{SECRETS}/keys"), &Installed::keys(&vendor)).await;
    cluster.registry.stop();
    let site = outside.path("site.yaml");
    let text = format!(
        "apiVersion: countersign.dev/v1alpha1\nkind: Site\nmetadata: {{ name: default }}\nspec:\n  registry:\n    \
         name: registry.local\n    endpoints:\n      - {{ name: cluster, url: \"http://{}\" }}\n  trust:\n    keys:\n      \
         seal: {{ file: {} }}\n    bundleKeys: [seal]\n",
        cluster.registry.host(),
        public.display()
    );
    std::fs::write(&site, &text).unwrap();
    let import = async |site: &std::path::Path| {
        let arguments = ["evidence", "import", bundle.to_str().unwrap(), "--site", site.to_str().unwrap()];
        cluster.run(&arguments).await
    };
    let create = async |name: &str| {
        let images = [outside.written(old), outside.written(multi)];
        let pod = pod(name, &[&images[0], &images[1]]);
        cluster.plane.create_pod(&pod).await
    };
    assert_eq!(create("before").await.0, 403, "nobody has seen it");

    // Without the seal there are proofs and no names.
    let unsealed = outside.path("unsealed.yaml");
    std::fs::write(&unsealed, text.replace("    bundleKeys: [seal]\n", "")).unwrap();
    let (code, _, err) = import(&unsealed).await;
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("nobody is named who may seal bundles"), "{err}");
    assert_eq!(create("unsealed").await.0, 403);

    let (code, _, err) = import(&site).await;
    assert_eq!(code, 0, "{err}");
    let (code, _, err) = import(&site).await;
    assert_eq!(code, 0, "{err}");
    let admitted = async || create("after").await.0 == 201;
    cluster.plane.until("what the bundle knows is admitted", admitted).await;
    let stored = cluster.plane.call(Method::GET, "/api/v1/namespaces/default/pods/after", None).await.1;
    for (index, image) in [old, multi].into_iter().enumerate() {
        let name = stored["spec"]["containers"][index]["image"].as_str().unwrap();
        assert!(name.ends_with(&format!("@{}", image.digest)), "{name}");
    }

    // Meanwhile a registry has said that the tag is of another image: the bundle does not turn it back.
    let (moved, image) = (Digest::sha256_of(b"moved"), format!("registry.local/{}", outside.written(old)));
    for (days, code, words) in [(-1, 0, "evidence of 2 images"), (0, 1, "the tag stands for")] {
        let record = tag_record(&cluster.plane, &image, &moved, days, Origin::Registry).await;
        let object = json!({
            "apiVersion": "countersign.dev/v1alpha1", "kind": "ImageEvidence",
            "metadata": { "name": moved.to_string().replacen(':', "-", 1) },
            "spec": { "digest": moved.to_string(), "signatures": [], "tags": [record] },
        });
        let (status, body) = cluster.plane.call(Method::POST, EVIDENCE, Some(&object)).await;
        assert_eq!(status, 201, "{body:#}");
        // One from the future is some clock's mistake, and stands in nobody's way.
        let (found, _, err) = import(&site).await;
        assert_eq!(found, code, "{err}");
        assert!(err.contains(words), "{err}");
        if code == 0 {
            assert_eq!(cluster.plane.call(Method::DELETE, &object_of(&moved), None).await.0, 200);
        }
    }
    let arguments =
        ["evidence", "import", bundle.to_str().unwrap(), "--site", site.to_str().unwrap(), "--force"];
    assert_eq!(cluster.run(&arguments).await.0, 0);
}

/// The command says what is missing, and where.
#[tokio::test(flavor = "multi_thread")]
async fn importing_into_nothing_says_so() {
    assert_isolated();
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new(countersign());
    command.args(["evidence", "import", "nowhere.tar", "--site"]).arg(directory.path().join("site.yaml"));
    let (code, _, err) = run(&mut command);
    assert_eq!(code, 2, "{err}");
    assert!(err.contains("site.yaml"), "{err}");
}
