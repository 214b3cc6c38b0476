//! Pods that are there, and pods that something may make again.

use std::collections::{BTreeMap, BTreeSet};

use countersign_policy::IMAGE_PLACES;
use countersign_reference::{Digest, Reference};
use kube::api::{ApiResource, DynamicObject, GroupVersionKind};
use kube::{Api, Client};
use serde_json::{Map, Value, json};

use crate::api::each;

/// What holds a pod, and where.
const KINDS: [(&str, &str, &str, &str); 7] = [
    ("", "v1", "Pod", ""),
    ("apps", "v1", "Deployment", "/spec/template"),
    ("apps", "v1", "StatefulSet", "/spec/template"),
    ("apps", "v1", "DaemonSet", "/spec/template"),
    ("batch", "v1", "Job", "/spec/template"),
    ("batch", "v1", "CronJob", "/spec/jobTemplate/spec/template"),
    ("", "v1", "ReplicationController", "/spec/template"),
];

/// What is in use.
#[derive(Clone, Debug, Default)]
pub struct InUse {
    /// Pods as they would be made again: images by their tags, without the digests that were pinned
    /// beside them. Those that are alike but for their names are there once.
    pub pods: Vec<Value>,
    /// The digests that pods and templates name, and those that nodes say they run.
    pub digests: BTreeSet<Digest>,
}

/// What is in use.
///
/// # Errors
///
/// The API server says no, or nothing.
pub async fn in_use(client: &Client) -> Result<InUse, kube::Error> {
    let mut used: BTreeMap<String, Value> = BTreeMap::new();
    let mut digests = BTreeSet::new();
    for (group, version, kind, place) in KINDS {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
        let note = |object: DynamicObject| {
            let Ok(object) = serde_json::to_value(object) else { return };
            digests.extend(object.pointer(place).into_iter().flat_map(named));
            digests.extend(run(&object["status"]));
            if let Some(pod) = object.pointer(place).and_then(|pod| again(pod, &object["metadata"])) {
                let key = json!([pod["metadata"]["namespace"], pod["metadata"]["labels"], pod["spec"]]);
                used.insert(key.to_string(), pod);
            }
        };
        each(&api, note).await?;
    }
    Ok(InUse { pods: used.into_values().collect(), digests })
}

/// The digests in the image names of a pod.
fn named(pod: &Value) -> impl Iterator<Item = Digest> {
    let of_list = |(list, place): (&str, &'static str)| {
        let items = pod["spec"][list].as_array().into_iter().flatten();
        items.filter_map(move |item| digest_in(item.pointer(place)?.as_str()?))
    };
    IMAGE_PLACES.into_iter().flat_map(of_list)
}

/// The digests that a node says it runs.
fn run(status: &Value) -> impl Iterator<Item = Digest> {
    let lists = ["initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses"];
    let of_list = |list| status[list].as_array().into_iter().flatten();
    lists.into_iter().flat_map(of_list).filter_map(|container| digest_in(container["imageID"].as_str()?))
}

/// The digest at the end of `name@sha256:…`.
fn digest_in(text: &str) -> Option<Digest> {
    Digest::parse(text.rsplit('@').next()?).ok()
}

/// A pod with what policies may select by and with its images; `None` where no tag is left.
fn again(pod: &Value, owner: &Value) -> Option<Value> {
    let mut spec = Map::new();
    for (list, place) in IMAGE_PLACES {
        let items = pod["spec"][list].as_array().into_iter().flatten().filter_map(|item| {
            let image = item.pointer(place).and_then(Value::as_str).and_then(tagged)?;
            let image = if list == "volumes" { json!({ "reference": image }) } else { json!(image) };
            Some(json!({ "name": item["name"], "image": image }))
        });
        let items: Vec<Value> = items.collect();
        if !items.is_empty() {
            spec.insert(list.to_owned(), Value::Array(items));
        }
    }
    let text = |key: &str| pod["metadata"][key].as_str().or(owner[key].as_str()).unwrap_or_default();
    (!spec.is_empty()).then(|| {
        json!({
            "apiVersion": "v1", "kind": "Pod", "spec": spec,
            "metadata": {
                "name": text("name"), "namespace": text("namespace"),
                "labels": pod["metadata"]["labels"], "annotations": pod["metadata"]["annotations"],
            },
        })
    })
}

/// The name and tag of an image; `None` where it has only a digest, which nothing can change.
fn tagged(text: &str) -> Option<String> {
    let image = Reference::parse(text).ok()?;
    if image.digest().is_some() && image.tag().is_none() {
        return None;
    }
    Some(text.split('@').next()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_of_a_pod_counts_and_digests_do_not() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let template = json!({
            "metadata": { "labels": { "app": "db" } },
            "spec": {
                "initContainers": [{ "name": "i", "image": "quay.io/a/init", "command": ["x"] }],
                "containers": [
                    { "name": "b", "image": format!("registry.local/a/b:1@{digest}") },
                    { "name": "c", "image": format!("a/c@{digest}") },
                ],
                "volumes": [{ "name": "v", "image": { "reference": "a/data:2" } }, { "name": "e", "emptyDir": {} }],
            },
        });
        let pod = again(&template, &json!({ "name": "db", "namespace": "apps" })).unwrap();
        assert_eq!(
            pod,
            json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": { "name": "db", "namespace": "apps", "labels": { "app": "db" }, "annotations": null },
                "spec": {
                    "initContainers": [{ "name": "i", "image": "quay.io/a/init" }],
                    "containers": [{ "name": "b", "image": "registry.local/a/b:1" }],
                    "volumes": [{ "name": "v", "image": { "reference": "a/data:2" } }],
                },
            })
        );
        let status = json!({ "containerStatuses": [{ "imageID": format!("registry.local/a/b@{digest}") }] });
        let found: Vec<String> =
            named(&template).chain(run(&status)).map(|found| found.to_string()).collect();
        assert_eq!(found, [digest.clone(), digest.clone(), digest.clone()]);
        let pinned = json!({ "spec": { "containers": [{ "name": "c", "image": format!("a/c@{digest}") }] } });
        assert!(again(&pinned, &json!({})).is_none());
    }
}
