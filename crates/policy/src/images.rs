//! Every place in a pod that names an image.

use countersign_reference::kyverno::ImageInfo;
use serde_json::{Map, Value, json};

/// The lists of a pod whose items name images, each with the pointer from an item to the name.
pub const IMAGE_PLACES: [(&str, &str); 4] = [
    ("initContainers", "/image"),
    ("containers", "/image"),
    ("ephemeralContainers", "/image"),
    ("volumes", "/image/reference"),
];

/// An image as it stands in a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Image<'a> {
    /// One of [`IMAGE_PLACES`].
    list: &'static str,
    place: &'static str,
    index: usize,
    /// The name of the container or volume.
    name: &'a str,
    /// The text.
    pub(crate) image: &'a str,
}

impl Image<'_> {
    /// Whether it is the image of the same container or volume.
    pub(crate) fn is_at(&self, other: &Image<'_>) -> bool {
        self.list == other.list && self.name == other.name
    }

    /// JSON pointer to the text.
    pub(crate) fn pointer(&self) -> String {
        format!("/spec/{}/{}{}", self.list, self.index, self.place)
    }
}

/// The images of a pod, in the order of its fields.
pub(crate) fn of_pod(pod: &Value) -> Vec<Image<'_>> {
    let mut found = Vec::new();
    for (list, place) in IMAGE_PLACES {
        for (index, item) in pod["spec"][list].as_array().into_iter().flatten().enumerate() {
            if let Some(image) = item.pointer(place).and_then(Value::as_str) {
                found.push(Image {
                    list,
                    place,
                    index,
                    name: item["name"].as_str().unwrap_or_default(),
                    image,
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
        let Ok(info) = ImageInfo::parse(found.image) else { continue };
        let mut entry = json!({
            "registry": info.registry,
            "name": info.name,
            "path": info.path,
            "reference": info.reference(),
            "referenceWithTag": info.reference_with_tag(),
            "jsonPointer": found.pointer(),
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
