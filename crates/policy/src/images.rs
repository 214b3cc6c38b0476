//! Every place in a pod that names an image.

use countersign_reference::kyverno::ImageInfo;
use serde_json::{Map, Value, json};

/// An image as it stands in a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// `containers`, `initContainers`, `ephemeralContainers` or `volumes`.
    pub(crate) list: &'static str,
    /// The name of the container or volume.
    pub(crate) name: String,
    /// JSON pointer to the text.
    pub(crate) pointer: String,
    /// The text.
    pub(crate) image: String,
}

/// The images of a pod, in the order of its fields.
pub(crate) fn of_pod(pod: &Value) -> Vec<Found> {
    let mut found = Vec::new();
    for list in ["initContainers", "containers", "ephemeralContainers", "volumes"] {
        let suffix = if list == "volumes" { "/image/reference" } else { "/image" };
        for (index, item) in pod["spec"][list].as_array().into_iter().flatten().enumerate() {
            if let Some(image) = item.pointer(suffix).and_then(Value::as_str) {
                found.push(Found {
                    list,
                    name: item["name"].as_str().unwrap_or_default().to_owned(),
                    pointer: format!("/spec/{list}/{index}{suffix}"),
                    image: image.to_owned(),
                });
            }
        }
    }
    found
}

/// The `images` variable: by list and name; images that are none are left out, as no rule can
/// speak of their parts.
pub(crate) fn variable(pod: &Value) -> Value {
    let mut lists: Map<String, Value> = Map::new();
    for found in of_pod(pod) {
        let Ok(info) = ImageInfo::parse(&found.image) else { continue };
        let mut entry = json!({
            "registry": info.registry,
            "name": info.name,
            "path": info.path,
            "reference": info.reference(),
            "referenceWithTag": info.reference_with_tag(),
            "jsonPointer": found.pointer,
        });
        if let Some(tag) = &info.tag {
            entry["tag"] = json!(tag);
        }
        if let Some(digest) = &info.digest {
            entry["digest"] = json!(digest.to_string());
        }
        let list = lists.entry(found.list).or_insert_with(|| json!({}));
        list[found.name] = entry;
    }
    Value::Object(lists)
}
