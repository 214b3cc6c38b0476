//! Which images pods and what makes pods name.

use std::collections::BTreeSet;

use countersign_reference::Reference;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams};
use kube::{Api, Client};
use serde_json::Value;

/// Objects that are asked for at a time.
const PAGE: u32 = 500;

/// What holds a pod's `spec`, and where.
const KINDS: [(&str, &str, &str, &str); 7] = [
    ("", "v1", "Pod", "/spec"),
    ("apps", "v1", "Deployment", "/spec/template/spec"),
    ("apps", "v1", "StatefulSet", "/spec/template/spec"),
    ("apps", "v1", "DaemonSet", "/spec/template/spec"),
    ("batch", "v1", "Job", "/spec/template/spec"),
    ("batch", "v1", "CronJob", "/spec/jobTemplate/spec/template/spec"),
    ("", "v1", "ReplicationController", "/spec/template/spec"),
];

/// Names with tags, by namespace: what a new pod may ask for again. A digest beside a tag is left
/// away, and what has only a digest is left out.
///
/// # Errors
///
/// The API server says no, or nothing.
pub async fn images_in_use(client: &Client) -> Result<BTreeSet<(String, String)>, kube::Error> {
    let mut used = BTreeSet::new();
    for (group, version, kind, spec) in KINDS {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
        let mut page = ListParams::default().limit(PAGE);
        loop {
            let list = api.list(&page).await?;
            for object in &list.items {
                let namespace = object.metadata.namespace.clone().unwrap_or_default();
                let images = object.data.pointer(spec).into_iter().flat_map(images);
                used.extend(images.map(|image| (namespace.clone(), image)));
            }
            match list.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => page = page.continue_token(&token),
                None => break,
            }
        }
    }
    Ok(used)
}

fn images(spec: &Value) -> impl Iterator<Item = String> {
    let lists = ["initContainers", "containers", "ephemeralContainers"];
    let containers = lists.into_iter().flat_map(|list| spec[list].as_array().into_iter().flatten());
    let volumes = spec["volumes"].as_array().into_iter().flatten();
    let texts = containers.map(|container| &container["image"]);
    let texts = texts.chain(volumes.map(|volume| &volume["image"]["reference"]));
    texts.filter_map(Value::as_str).filter_map(tagged)
}

/// The name and tag of an image.
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
    use serde_json::json;

    #[test]
    fn every_place_of_a_pod_counts_and_digests_do_not() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let spec = json!({
            "initContainers": [{ "image": "quay.io/a/init" }],
            "containers": [{ "image": format!("registry.local/a/b:1@{digest}") }, { "image": format!("a/c@{digest}") }],
            "volumes": [{ "image": { "reference": "a/data:2" } }, { "emptyDir": {} }],
        });
        let found: Vec<String> = images(&spec).collect();
        assert_eq!(found, ["quay.io/a/init", "registry.local/a/b:1", "a/data:2"]);
    }
}
