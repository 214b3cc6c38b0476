//! The kinds of objects, in a real API server.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::process::Command;

use countersign_e2e::{ControlPlane, assert_isolated, countersign, run};
use hyper::Method;
use serde_json::{Value, json};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

struct Cluster {
    plane: ControlPlane,
    directory: tempfile::TempDir,
}

impl Cluster {
    async fn start() -> Self {
        let (plane, directory) = (ControlPlane::start().await, tempfile::tempdir().unwrap());
        std::fs::write(directory.path().join("kubeconfig"), plane.kubeconfig()).unwrap();
        Self { plane, directory }
    }

    async fn apply(&self, more: &[&str]) -> String {
        let (code, err) = self.try_apply(more).await;
        assert_eq!(code, 0, "{err}");
        err
    }

    async fn try_apply(&self, more: &[&str]) -> (i32, String) {
        let mut crds = Command::new(countersign());
        crds.args(["crds", "apply", "--kubeconfig"]).arg(self.directory.path().join("kubeconfig")).args(more);
        let (code, _, err) = tokio::task::spawn_blocking(move || run(&mut crds)).await.unwrap();
        (code, err)
    }

    async fn post(&self, path: &str, object: &Value) -> Value {
        let (status, body) = self.plane.call(Method::POST, path, Some(object)).await;
        assert_eq!(status, 201, "{body:#}");
        body
    }
}

/// A definition as somebody else has it.
fn foreign(plural: &str, kind: &str, scope: &str, version: &str) -> Value {
    let open = json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": { "name": format!("{plural}.kyverno.io"), "labels": { "of": "another" } },
        "spec": {
            "group": "kyverno.io", "scope": scope,
            "names": { "kind": kind, "plural": plural, "singular": kind.to_lowercase(), "listKind": format!("{kind}List") },
            "versions": [{ "name": version, "served": true, "storage": true, "schema": { "openAPIV3Schema": open } }],
        },
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_learns_the_kinds_and_loses_nothing() {
    assert_isolated();
    let cluster = Cluster::start().await;
    // Another program has brought one of them, and an object is stored in a version that we do not know.
    cluster.post(DEFINITIONS, &foreign("policies", "Policy", "Namespaced", "v9")).await;
    let old = json!({ "apiVersion": "kyverno.io/v9", "kind": "Policy", "metadata": { "name": "old" }, "spec": { "x": 1 } });
    let of_old = "/apis/kyverno.io/v9/namespaces/default/policies";
    let served = async || cluster.plane.call(Method::GET, of_old, None).await.0 == 200;
    cluster.plane.until("v9 is served", served).await;
    cluster.post(of_old, &old).await;

    // It is somebody else's, and does not serve what is read.
    let (code, said) = cluster.try_apply(&[]).await;
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("policies.kyverno.io, version v1, is not served"), "{said}");
    let said = cluster.apply(&["--force"]).await;
    assert!(said.contains("policies.kyverno.io is brought up to date"), "{said}");
    let (_, found) =
        cluster.plane.call(Method::GET, &format!("{DEFINITIONS}/policies.kyverno.io"), None).await;
    let versions: Vec<&str> = found["spec"]["versions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|version| version["name"].as_str().unwrap())
        .collect();
    assert_eq!(versions, ["v1", "v2beta1", "v9"]);
    assert_eq!(found["metadata"]["labels"]["of"], "another");
    for version in ["v1", "v9"] {
        let path = format!("/apis/kyverno.io/{version}/namespaces/default/policies/old");
        let read = async || cluster.plane.call(Method::GET, &path, None).await.1["spec"]["x"] == 1;
        cluster.plane.until("the old object is there in both", read).await;
    }

    let said = cluster.apply(&[]).await;
    assert_eq!(said.matches(" is there").count(), 5, "{said}");
    // Somebody else's that serves stays as it is.
    let theirs = format!("{DEFINITIONS}/clusterpolicies.kyverno.io");
    assert_eq!(cluster.plane.call(Method::DELETE, &theirs, None).await.0, 200);
    let gone = async || cluster.plane.call(Method::GET, &theirs, None).await.0 == 404;
    cluster.plane.until("the definition is gone", gone).await;
    cluster.post(DEFINITIONS, &foreign("clusterpolicies", "ClusterPolicy", "Cluster", "v1")).await;
    let said = cluster.apply(&[]).await;
    assert!(said.contains("clusterpolicies.kyverno.io is somebody else's"), "{said}");
    cluster.apply(&["--force"]).await;

    // Nothing of a spec is taken away, whatever it says.
    for (path, kind) in [
        ("/apis/countersign.dev/v1alpha1/sites", "countersign.dev/v1alpha1 Site"),
        ("/apis/kyverno.io/v1/clusterpolicies", "kyverno.io/v1 ClusterPolicy"),
        ("/apis/kyverno.io/v2beta1/clusterpolicies", "kyverno.io/v2beta1 ClusterPolicy"),
    ] {
        let (version, kind) = kind.split_once(' ').unwrap();
        let spec = json!({ "of": { "next": [{ "year": null, "list": [1, "x"] }] } });
        let name = format!("a-{}", version.rsplit('/').next().unwrap());
        let object =
            json!({ "apiVersion": version, "kind": kind, "metadata": { "name": name }, "spec": spec });
        let made = cluster.post(path, &object).await;
        assert_eq!(made["spec"], object["spec"], "{path}");
        // Its status is for who has the right to write it.
        let status = json!({ "status": { "conditions": [{ "type": "Ready" }] } });
        let (code, body) =
            cluster.plane.call(Method::PATCH, &format!("{path}/{name}/status"), Some(&status)).await;
        assert_eq!((code, &body["status"]["conditions"][0]["type"]), (200, &json!("Ready")), "{body:#}");
    }
}
