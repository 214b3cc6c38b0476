//! The reviews that are posted.

use serde_json::{Value, json};

/// A review of a new pod with these init containers and containers, of the size that API
/// servers send: managed fields, a token volume, the usual defaults.
pub fn review(init: &[&str], containers: &[&str]) -> Vec<u8> {
    let list = |images: &[&str], kind: &str| -> Vec<Value> {
        images.iter().enumerate().map(|(index, image)| container(&format!("{kind}-{index}"), image)).collect()
    };
    let labels = json!({ "app.kubernetes.io/name": "shop", "app.kubernetes.io/instance": "shop-7", "pod-template-hash": "7d4b9c6f5" });
    json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
            "kind": { "group": "", "version": "v1", "kind": "Pod" },
            "resource": { "group": "", "version": "v1", "resource": "pods" },
            "requestKind": { "group": "", "version": "v1", "kind": "Pod" },
            "requestResource": { "group": "", "version": "v1", "resource": "pods" },
            "name": "", "namespace": "shop", "operation": "CREATE", "dryRun": false, "oldObject": null,
            "userInfo": {
                "username": "system:serviceaccount:kube-system:replicaset-controller",
                "uid": "3f5e0e1a-7a7b-4f1c-9a50-6c1b8f0f3a11",
                "groups": ["system:serviceaccounts", "system:serviceaccounts:kube-system", "system:authenticated"],
            },
            "options": { "kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1" },
            "object": {
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {
                    "generateName": "shop-7d4b9c6f5-", "namespace": "shop", "creationTimestamp": null,
                    "labels": labels,
                    "ownerReferences": [{
                        "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "shop-7d4b9c6f5",
                        "uid": "0f3c2b5e-6f0b-4f7e-9a51-5b1a7f5d9c10", "controller": true, "blockOwnerDeletion": true,
                    }],
                },
                "spec": {
                    "initContainers": list(init, "init"), "containers": list(containers, "app"),
                    "volumes": [{ "name": "kube-api-access-x7k2p", "projected": { "defaultMode": 420, "sources": [
                        { "serviceAccountToken": { "expirationSeconds": 3607, "path": "token" } },
                        { "configMap": { "name": "kube-root-ca.crt", "items": [{ "key": "ca.crt", "path": "ca.crt" }] } },
                    ] } }],
                    "restartPolicy": "Always", "terminationGracePeriodSeconds": 30, "dnsPolicy": "ClusterFirst",
                    "serviceAccountName": "shop", "serviceAccount": "shop", "schedulerName": "default-scheduler",
                    "securityContext": {}, "enableServiceLinks": true, "preemptionPolicy": "PreemptLowerPriority",
                    "tolerations": [
                        { "key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300 },
                        { "key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300 },
                    ],
                },
                "status": {},
            },
        },
    })
    .to_string()
    .into_bytes()
}

fn container(name: &str, image: &str) -> Value {
    json!({
        "name": name, "image": image, "imagePullPolicy": "IfNotPresent",
        "resources": { "requests": { "cpu": "100m", "memory": "128Mi" }, "limits": { "memory": "256Mi" } },
        "volumeMounts": [{
            "name": "kube-api-access-x7k2p", "readOnly": true,
            "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount",
        }],
        "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
    })
}
