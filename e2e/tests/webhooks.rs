//! The webhook configurations: registered, kept, taken away, and closed where nobody answers.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use countersign_e2e::{Fate, Injector, Installed, SITES, assert_isolated, pod};
use hyper::Method;
use serde_json::{Value, json};

const CONFIGURATIONS: [&str; 2] = [
    "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations",
    "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations",
];
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/countersign/deployments";

async fn there(cluster: &Installed) -> [bool; 2] {
    let mut there = [false; 2];
    for (path, there) in CONFIGURATIONS.iter().zip(&mut there) {
        *there = cluster.plane.call(Method::GET, &format!("{path}/countersign"), None).await.0 == 200;
    }
    there
}

async fn until(cluster: &Installed, what: &str, wanted: bool) {
    cluster.plane.until(what, async || there(cluster).await == [wanted; 2]).await;
}

async fn condition(cluster: &Installed, kind: &str) -> Value {
    let site = cluster.plane.call(Method::GET, &format!("{SITES}/default"), None).await.1;
    let conditions = site["status"]["conditions"].as_array().cloned().unwrap_or_default();
    conditions.into_iter().find(|condition| condition["type"] == kind).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn they_stay_until_somebody_takes_them_away_on_purpose() {
    assert_isolated();
    let mut cluster = Installed::start().await;
    cluster.more();
    cluster.more();
    assert_eq!(there(&cluster).await, [true; 2]);

    // What somebody changes or deletes comes back.
    for path in CONFIGURATIONS {
        let own = format!("{path}/countersign");
        let before = cluster.plane.call(Method::GET, &own, None).await.1["webhooks"].clone();
        assert_eq!(before[0]["failurePolicy"], "Fail");
        let mut changed = before.clone();
        changed[0]["failurePolicy"] = json!("Ignore");
        cluster.patch(&own, &json!({ "webhooks": changed })).await;
        let restored = async || cluster.plane.call(Method::GET, &own, None).await.1["webhooks"] == before;
        cluster.plane.until("a change is undone", restored).await;
        assert_eq!(cluster.plane.call(Method::DELETE, &own, None).await.0, 200);
        cluster.plane.until("what was deleted is there", restored).await;
    }
    let registered = async || condition(&cluster, "WebhooksRegistered").await["status"] == "True";
    cluster.plane.until("the Site says that they are there", registered).await;

    // Taken away under load, twenty times, with three replicas: nothing comes back.
    for round in 0..20 {
        let (code, _, err) = cluster.run(&["webhook", "remove"]).await;
        assert_eq!(code, 0, "round {round}: {err}");
        assert!(err.contains("MutatingWebhookConfiguration, ValidatingWebhookConfiguration"), "{err}");
        for _ in 0..8 {
            assert_eq!(there(&cluster).await, [false; 2], "round {round}");
            assert_eq!(cluster.fate("unsigned").await, Fate::Admitted);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        if round == 19 {
            break;
        }
        assert_eq!(cluster.run(&["webhook", "restore"]).await.0, 0);
        until(&cluster, "they are back", true).await;
    }
    let said = async || condition(&cluster, "WebhooksRegistered").await["reason"] == "Removed";
    cluster.plane.until("the Site says that nothing is verified", said).await;
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert_eq!(there(&cluster).await, [false; 2], "the intent stands");

    // A new installation is another one; what was intended for the old one means nothing to it.
    assert_eq!(cluster.plane.call(Method::DELETE, &format!("{DEPLOYMENTS}/countersign"), None).await.0, 200);
    cluster.plane.install("countersign").await;
    until(&cluster, "a new installation registers", true).await;
    cluster.plane.until_called().await;

    // Without an installation nobody restores them, and whoever has the right takes them away.
    assert_eq!(cluster.plane.call(Method::DELETE, &format!("{DEPLOYMENTS}/countersign"), None).await.0, 200);
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(there(&cluster).await, [true; 2], "absence of the program is not absence of validation");
    let (code, _, err) = cluster.run(&["webhook", "remove"]).await;
    assert_eq!(code, 0, "{err}");
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert_eq!(there(&cluster).await, [false; 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_wants_them_gone_is_heard_where_there_is_no_site() {
    assert_isolated();
    let cluster = Installed::without_site().await;
    let leads = async || cluster.log().contains("this replica leads");
    cluster.plane.until("a replica leads", leads).await;
    // What an installation of before has left behind.
    let webhook = json!([{
        "name": "left.countersign.dev", "admissionReviewVersions": ["v1"], "sideEffects": "None",
        "clientConfig": { "url": "https://127.0.0.1:1/" },
        "rules": [{ "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"] }],
    }]);
    for path in CONFIGURATIONS {
        let left = json!({ "metadata": { "name": "countersign" }, "webhooks": webhook });
        assert_eq!(cluster.plane.call(Method::POST, path, Some(&left)).await.0, 201);
    }
    let (code, _, err) = cluster.run(&["webhook", "remove", "--timeout", "30"]).await;
    assert_eq!(code, 0, "{err}");
    assert_eq!(there(&cluster).await, [false; 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_there_is_closed_for_most_and_open_for_what_must_not_wait() {
    assert_isolated();
    let mut cluster = Installed::start().await;
    let bootstrap = json!({ "spec": { "bootstrapNamespaces": ["kube-system", "countersign"] } });
    cluster.patch(&format!("{SITES}/default"), &bootstrap).await;
    for namespace in ["kube-system", "countersign"] {
        let account = json!({ "metadata": { "name": "default" } });
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts");
        assert_eq!(cluster.plane.call(Method::POST, &path, Some(&account)).await.0, 201);
    }
    let tiers = async || {
        let own = format!("{}/countersign", CONFIGURATIONS[0]);
        cluster.plane.call(Method::GET, &own, None).await.1["webhooks"].as_array().unwrap().len() == 2
    };
    cluster.plane.until("there are two tiers", tiers).await;
    // What is known to be unsigned starts in neither.
    let denied = async || cluster.fate_in("kube-system", "unsigned").await == Fate::Denied;
    cluster.plane.until("the second tier is in force", denied).await;

    // The Deployment goes, and its replicas with it.
    assert_eq!(cluster.plane.call(Method::DELETE, &format!("{DEPLOYMENTS}/countersign"), None).await.0, 200);
    tokio::time::sleep(Duration::from_secs(4)).await;
    cluster.replicas.clear();
    for image in ["signed", "unsigned"] {
        assert_eq!(cluster.fate(image).await, Fate::Closed, "{image}");
        assert_eq!(cluster.fate_in("kube-system", image).await, Fate::Admitted, "{image}");
        assert_eq!(cluster.fate_in("countersign", image).await, Fate::Admitted, "{image}");
    }
    // Its return needs no hand.
    cluster.plane.install("countersign").await;
    cluster.restart().await;
    cluster.soon("it is back", Fate::Pinned, Fate::Denied).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn t23_a_sidecar_that_comes_after_ours_is_pinned_or_denied() {
    assert_isolated();
    let cluster = Installed::start().await;
    let create = async |name: &str| cluster.plane.create_pod(&pod(name, &["quay.io/acme/signed:1"])).await;
    let injector = Injector::register(&cluster.plane, "quay.io/acme/signed:1").await;
    let pinned = format!("registry.local/quay.io/acme/signed:1@{}", cluster.signed.digest);
    // Once it is in force: we are asked again, and pin what was added.
    let injected = async || {
        injector.add(1);
        let (status, stored) = create("injected").await;
        let path = "/api/v1/namespaces/default/pods/injected?gracePeriodSeconds=0";
        cluster.plane.call(Method::DELETE, path, None).await;
        let containers = &stored["spec"]["containers"];
        status == 201
            && containers[1]["image"] == pinned.as_str()
            && containers[0]["image"] == pinned.as_str()
    };
    cluster.plane.until("a sidecar is verified and pinned", injected).await;
    // What is added after we were asked again has no digest, whoever has signed it.
    injector.add(2);
    let (status, body) = create("twice").await;
    assert_eq!(status, 403, "{body:#}");
    let message = body["message"].as_str().unwrap();
    assert!(message.contains("was not pinned: added or changed after Countersign's mutation"), "{message}");
    assert!(message.contains("quay.io/acme/signed:1"), "{message}");

    // One that nobody has signed is denied the first time.
    let path = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/zzz-injector";
    assert_eq!(cluster.plane.call(Method::DELETE, path, None).await.0, 200);
    let injector = Injector::register(&cluster.plane, "quay.io/acme/unsigned:1").await;
    let denied = async || {
        injector.add(1);
        let (status, body) = create("bad-sidecar").await;
        let path = "/api/v1/namespaces/default/pods/bad-sidecar?gracePeriodSeconds=0";
        cluster.plane.call(Method::DELETE, path, None).await;
        status == 403 && body["message"].as_str().unwrap().contains("Unsigned")
    };
    cluster.plane.until("a sidecar that nobody has signed is denied", denied).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_decides_besides_and_what_was_denied_is_told_where_people_look() {
    assert_isolated();
    let cluster = Installed::start().await;
    // Somebody else's webhooks.
    let foreign =
        json!({ "metadata": { "name": "kyverno-resource-validating-webhook-cfg" }, "webhooks": [] });
    assert_eq!(cluster.plane.call(Method::POST, CONFIGURATIONS[1], Some(&foreign)).await.0, 201);
    let told = async || {
        let condition = condition(&cluster, "OnlyVerifier").await;
        condition["status"] == "False" && condition["message"].as_str().unwrap().contains("kyverno-resource")
    };
    cluster.plane.until("the Site says that Kyverno is there", told).await;
    assert!(cluster.log().contains("Kyverno's webhooks stand beside ours"));

    // Whoever owns denied pods finds each reason with `kubectl describe`.
    for image in ["quay.io/acme/unsigned:1", "quay.io/acme/none:1"] {
        let mut denied = pod("db-1", &[image]);
        let owner = json!({
            "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "db", "uid": "u-1", "controller": true,
        });
        denied["metadata"]["ownerReferences"] = json!([owner]);
        assert_eq!(cluster.plane.create_pod(&denied).await.0, 403);
        let event = async || {
            let path = "/apis/events.k8s.io/v1/namespaces/default/events";
            let list = cluster.plane.call(Method::GET, path, None).await.1;
            list["items"].as_array().unwrap().iter().any(|event| {
                event["regarding"]["kind"] == "ReplicaSet"
                    && event["regarding"]["uid"] == "u-1"
                    && event["reason"] == "ImageDenied"
                    && event["note"].as_str().unwrap().contains(image)
            })
        };
        cluster.plane.until("an event on the owner", event).await;
    }

    let metrics = cluster.metrics().await;
    for line in [
        "countersign_admission_seconds_count{phase=\"mutate\",tier=\"fail\",result=\"denied\"}",
        "countersign_verdicts_total{verdict=\"Unsigned\",format=\"none\",enforce=\"true\"}",
        "countersign_endpoint_requests_total{endpoint=\"cluster\",outcome=\"ok\"}",
        "countersign_endpoint_up{endpoint=\"cluster\"} 1",
        "countersign_leader 1",
        "countersign_certificate_expiry_seconds ",
        "countersign_ready 1",
    ] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
    assert!(!metrics.contains("acme"), "nothing of a request is in a label: {metrics}");
}
