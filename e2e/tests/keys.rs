//! What a Site says of trust, in a cluster: keys in Secrets, their time, what is revoked, and who may pull.
#![allow(clippy::unwrap_used, reason = "tests")]

use countersign_clock::{Clock as _, SystemClock};
use countersign_e2e::{
    Cosign, Fate, Installed, KeyType, POLICIES, Registry, RegistryKind, SECRETS, SITES, assert_isolated,
    free_port, pod,
};
use hyper::Method;
use serde_json::{Value, json};

/// `user:secret`, as distribution's registry wants it (bcrypt).
const HTPASSWD: &str = "user:$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";

#[tokio::test(flavor = "multi_thread")]
async fn keys_have_a_place_a_time_and_an_end() {
    use Fate::{Denied, Pinned};
    assert_isolated();
    let cluster = Installed::start().await;
    let (site, check) = (format!("{SITES}/default"), format!("{POLICIES}/check-image"));
    cluster.soon("as the files have it", Pinned, Denied).await;
    cluster.says_of(&site, "KeysTrusted", "Trusted", "every key is trusted").await;
    cluster.says_of(&site, "NothingRevoked", "None", "no digest").await;

    // Revoked: everywhere, at once, and said.
    cluster.patch(&site, &json!({ "spec": { "revoked": [cluster.signed.digest.to_string()] } })).await;
    cluster.soon("revoked", Denied, Denied).await;
    cluster.says_of(&site, "NothingRevoked", "Revoked", "1 digest is revoked").await;
    let stored = json!(pod("refused", &["quay.io/acme/signed:1"]));
    let (status, body) =
        cluster.plane.call(Method::POST, "/api/v1/namespaces/default/pods", Some(&stored)).await;
    let said = body["message"].as_str().unwrap();
    assert!(
        status == 403 && said.contains("is revoked by the site") && said.contains("[revoked]"),
        "{body:#}"
    );
    let metrics = cluster.metrics().await;
    for line in [
        "countersign_revoked_digests 1",
        "countersign_reasons_total{code=\"revoked\"}",
        "countersign_site_keys 1",
    ] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
    assert!(cluster.log().contains("\"code\":\"revoked\""), "the decision log");
    cluster.patch(&site, &json!({ "spec": { "revoked": null } })).await;
    cluster.soon("not revoked", Pinned, Denied).await;

    // The key's time is over, is so soon, and is not.
    let until =
        |text: Value| json!({ "spec": { "trust": { "keys": { "vendor": { "trustedUntil": text } } } } });
    cluster.patch(&site, &until(json!("2026-01-01"))).await;
    cluster.soon("over", Denied, Denied).await;
    cluster.says_of(&site, "KeysTrusted", "KeyExpired", "`vendor` since 2026-01-01").await;
    let soon = SystemClock::default().wall() + jiff::SignedDuration::from_hours(24 * 7);
    cluster.patch(&site, &until(json!(soon.to_string()))).await;
    cluster.soon("for a week", Pinned, Denied).await;
    cluster.says_of(&site, "KeysTrusted", "KeyEndsSoon", "`vendor` until").await;
    let line = format!("countersign_key_trusted_until_seconds{{key=\"vendor\"}} {}", soon.as_second());
    assert!(cluster.metrics().await.contains(&line), "{line}");
    cluster.patch(&site, &until(Value::Null)).await;
    cluster.says_of(&site, "KeysTrusted", "Trusted", "every key").await;

    // A key in a Secret of the program's own namespace, named by the policy.
    let secret = |pem: &str| json!({ "metadata": { "name": "signer" }, "stringData": { "cosign.pub": pem } });
    let rules = |keys: &Value| {
        json!({ "spec": { "rules": [{
            "name": "signed", "match": { "any": [{ "resources": { "kinds": ["Pod"] } }] },
            "verifyImages": [{ "imageReferences": ["*"], "attestors": [{ "entries": [{ "keys": keys }] }] }],
        }] } })
    };
    cluster.post(SECRETS, &secret(&cluster.public())).await;
    cluster.patch(&check, &rules(&json!({ "publicKeys": "k8s://countersign/signer" }))).await;
    cluster.says(&check, "InForce", "in force").await;
    cluster.soon("a key in a Secret", Pinned, Denied).await;
    let other = Cosign::V3.key_pair(cluster.directory.path(), "other", KeyType::EcdsaP256);
    let other = std::fs::read_to_string(&other.public).unwrap();
    cluster.patch(&format!("{SECRETS}/signer"), &secret(&other)).await;
    cluster.soon("another key in it", Denied, Denied).await;
    cluster.patch(&format!("{SECRETS}/signer"), &secret(&cluster.public())).await;
    cluster.soon("the key again", Pinned, Denied).await;
    // Gone is gone, whatever was good before.
    assert_eq!(cluster.plane.call(Method::DELETE, &format!("{SECRETS}/signer"), None).await.0, 200);
    cluster.soon("no Secret", Denied, Denied).await;
    cluster
        .says(&check, "LastGoodInForce", "there is no Secret `signer` with `cosign.pub` in `countersign`")
        .await;

    // Nobody trusts nobody.
    cluster.patch(&site, &json!({ "spec": { "trust": null } })).await;
    cluster.says_of(&site, "KeysTrusted", "NoKeys", "has none for images").await;
    cluster.patch(&check, &rules(&json!({ "publicKeys": "site://*" }))).await;
    cluster.soon("no keys", Denied, Denied).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_wants_to_know_who_asks() {
    use Fate::{Denied, Pinned};
    assert_isolated();
    let cluster = Installed::start().await;
    cluster.soon("as the files have it", Pinned, Denied).await;
    // The same content behind a door.
    let (port, users) = (free_port(), cluster.directory.path().join("htpasswd"));
    std::fs::write(&users, HTPASSWD).unwrap();
    let door = format!("auth: {{ htpasswd: {{ realm: x, path: \"{}\" }} }}\n", users.display());
    let private =
        Registry::start_over(RegistryKind::Distribution, &cluster.registry, "127.0.0.1", port, &door);
    let site = format!("{SITES}/default");
    let endpoint = |more: Value| {
        let mut endpoint = json!({ "name": "private", "url": format!("http://{}", private.host()) });
        endpoint.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        endpoint
    };
    let registry = |endpoint: Value, pull: bool| {
        let registry = json!({ "name": "registry.local", "endpoints": [endpoint], "imagePullSecrets": pull });
        json!({ "spec": { "registry": registry } })
    };
    let config = |host: &str| {
        let text = json!({ "auths": { host: { "username": "user", "password": "secret" } } }).to_string();
        json!({
            "metadata": { "name": "pull" }, "type": "kubernetes.io/dockerconfigjson",
            "stringData": { ".dockerconfigjson": text },
        })
    };
    // Nothing of what is known counts here: it is another image.
    let image =
        countersign_e2e::push_image(&cluster.registry.host(), "quay.io/acme/signed", "1", "again").await;
    Cosign::V3.sign(cluster.directory.path(), &cluster.key, &image.by_digest());
    cluster.patch(&site, &registry(endpoint(json!({})), false)).await;
    cluster.soon("nobody may look", Denied, Denied).await;

    // The Site's own credentials, bound to their host.
    cluster.post(SECRETS, &config("127.0.0.1:1")).await;
    let own = endpoint(json!({ "credentials": { "secret": "pull" } }));
    cluster.patch(&site, &registry(own, false)).await;
    cluster.stays("a password for another host", Denied, Denied).await;
    cluster.patch(&format!("{SECRETS}/pull"), &config(&private.host())).await;
    cluster.soon("the Site's own", Pinned, Denied).await;

    // The pod's, where the Site lets them be used.
    let image =
        countersign_e2e::push_image(&cluster.registry.host(), "quay.io/acme/signed", "1", "third").await;
    Cosign::V3.sign(cluster.directory.path(), &cluster.key, &image.by_digest());
    cluster.post("/api/v1/namespaces/default/secrets", &config(&private.host())).await;
    let fate = async |secrets: Value| {
        let mut pod = pod("asked", &["quay.io/acme/signed:1"]);
        pod["spec"]["imagePullSecrets"] = secrets;
        let path = "/api/v1/namespaces/default/pods?dryRun=All";
        cluster.plane.call(Method::POST, path, Some(&pod)).await
    };
    cluster.patch(&site, &registry(endpoint(json!({})), false)).await;
    cluster.soon("nobody may look", Denied, Denied).await;
    let (status, body) = fate(json!([{ "name": "pull" }])).await;
    assert!(
        status == 403 && body.to_string().contains("[unauthorized]"),
        "not where the Site says nothing: {body:#}"
    );
    cluster.patch(&site, &registry(endpoint(json!({})), true)).await;
    cluster
        .plane
        .until("the pod's own secret is used", async || fate(json!([{ "name": "pull" }])).await.0 == 201)
        .await;
    let (status, body) = fate(json!([{ "name": "absent" }])).await;
    assert_eq!(status, 403, "{body:#}");
    assert!(!cluster.log().contains("secret"), "what a Secret holds is in no log: {}", cluster.log());
}
