//! The webhook by what a cluster says at the moment: a real API server, real registries and cosign.
#![allow(clippy::unwrap_used, reason = "tests")]

use countersign_e2e::{
    Cosign, Fate, Installed, KeyType, NAMESPACED, POLICIES, SECRETS, SITES, assert_isolated,
};
use hyper::Method;
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn what_the_cluster_says_acts_within_seconds_and_what_is_not_good_does_not() {
    use Fate::{Admitted, Denied, Pinned};
    assert_isolated();
    let mut cluster = Installed::start().await;
    let site = format!("{SITES}/default");
    let check = format!("{POLICIES}/check-image");
    cluster.soon("as the files have it", Pinned, Denied).await;

    // The way out at 3 a.m., and back.
    cluster.patch(&site, &json!({ "spec": { "mode": "audit" } })).await;
    // A dry run is answered from what is at hand, and leaves nothing behind.
    cluster.soon("audit", Admitted, Admitted).await;
    cluster.patch(&site, &json!({ "spec": { "mode": "enforce" } })).await;
    cluster.soon("enforce", Pinned, Denied).await;

    // Another key, and the old one again.
    let other = Cosign::V3.key_pair(cluster.directory.path(), "other", KeyType::EcdsaP256);
    let other = std::fs::read_to_string(&other.public).unwrap();
    cluster.patch(&format!("{SECRETS}/keys"), &Installed::keys(&other)).await;
    cluster.soon("another key", Denied, Denied).await;
    cluster.patch(&format!("{SECRETS}/keys"), &Installed::keys(&cluster.public())).await;
    cluster.soon("the key again", Pinned, Denied).await;

    // What is not good leaves what was good in force.
    cluster.patch(&site, &json!({ "spec": { "tagFreshness": "1h", "pinning": "off" } })).await;
    cluster.stays("a Site that is not good", Pinned, Denied).await;
    cluster.says(&site, "LastGoodInForce", "spec.tagFreshness: at most 300 seconds").await;
    // The way out at 3 a.m. does not ask what else is wrong.
    cluster.patch(&site, &json!({ "spec": { "mode": "audit" } })).await;
    cluster.soon("audit, and the rest is not good", Admitted, Admitted).await;
    cluster
        .patch(&site, &json!({ "spec": { "tagFreshness": "1s", "mode": "enforce", "pinning": "always" } }))
        .await;
    let rules = cluster.plane.call(Method::GET, &check, None).await.1["spec"]["rules"].clone();
    cluster
        .patch(&check, &json!({ "spec": { "rules": [{ "name": "site-keys", "verifyImages": 7 }] } }))
        .await;
    cluster.stays("a policy that is not good", Pinned, Denied).await;
    cluster.says(&check, "LastGoodInForce", "verifyImages").await;
    cluster.patch(&format!("{SECRETS}/keys"), &Installed::keys("no key")).await;
    cluster.stays("a key that is none", Pinned, Denied).await;
    cluster.patch(&format!("{SECRETS}/keys"), &Installed::keys(&cluster.public())).await;
    let (status, _) = cluster.plane.call(Method::DELETE, &format!("{SECRETS}/keys"), None).await;
    assert_eq!(status, 200);
    cluster.stays("no key", Pinned, Denied).await;
    cluster.says(&site, "LastGoodInForce", "there is no Secret `keys`").await;
    // What the cluster keeps of the past is in force after a restart, too.
    cluster.restart().await;
    cluster.soon("no key after a restart", Pinned, Denied).await;
    cluster.post(SECRETS, &Installed::keys(&cluster.public())).await;
    cluster.patch(&check, &json!({ "spec": { "rules": rules.clone() } })).await;
    cluster.soon("all is well again", Pinned, Denied).await;
    cluster.says(&site, "InForce", "in force as it is written").await;
    cluster.says(&check, "InForce", "in force as it is written").await;

    // A key that is taken out of the Site is gone, whatever a policy was before.
    cluster
        .patch(&check, &json!({ "spec": { "rules": [{ "name": "site-keys", "verifyImages": 7 }] } }))
        .await;
    cluster.stays("a policy that is not good", Pinned, Denied).await;
    cluster.patch(&site, &json!({ "spec": { "trust": null } })).await;
    cluster.soon("no key in the Site", Denied, Denied).await;
    let keys = json!({ "keys": { "vendor": { "secret": { "name": "keys", "key": "vendor.pub" } } } });
    cluster.patch(&site, &json!({ "spec": { "trust": keys } })).await;
    cluster.patch(&check, &json!({ "spec": { "rules": rules } })).await;
    cluster.soon("the key again", Pinned, Denied).await;

    // A policy that goes is gone; one of a namespace counts there.
    let checked = cluster.plane.call(Method::GET, &check, None).await.1;
    assert_eq!(cluster.plane.call(Method::DELETE, &check, None).await.0, 200);
    cluster.soon("no policy", Admitted, Admitted).await;
    let mut own = checked;
    own["kind"] = json!("Policy");
    own["metadata"] = json!({ "name": "own", "namespace": "default" });
    cluster.post(NAMESPACED, &own).await;
    cluster.soon("a policy of the namespace", Pinned, Denied).await;

    let log = cluster.log();
    for words in ["the last one that was stays in force", "the last version that was good stays in force"] {
        assert!(log.contains(words), "{words}: {log}");
    }
    let text = cluster.public();
    assert!(!log.contains(text.lines().nth(1).unwrap()), "what a Secret holds is in no log");
}
