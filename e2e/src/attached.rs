//! Pushes signatures that were made elsewhere, where cosign would put them.

use std::collections::BTreeMap;

use countersign_manifest::EMPTY;
use countersign_signature::{BUNDLE_MEDIA_TYPE, Material, SIMPLE_SIGNING_MEDIA_TYPE};
use serde_json::{Value, json};

use crate::image::{INDEX, MANIFEST, Pushed, blob, manifest};

/// A layer of a manifest that holds signatures.
#[derive(Clone, Debug)]
pub struct Layer {
    /// What it says that it is.
    pub media_type: String,
    /// The blob.
    pub content: Vec<u8>,
    /// Beside the blob.
    pub annotations: BTreeMap<String, String>,
}

/// A manifest that refers to an image.
#[derive(Clone, Debug)]
pub struct Referrer {
    /// What it says that it is.
    pub artifact_type: Option<String>,
    /// One, where it is a bundle.
    pub layers: Vec<Layer>,
    /// Whether it names the image itself: a fallback tag lists what does not, too.
    pub subject: bool,
}

impl From<Material> for Layer {
    fn from(material: Material) -> Self {
        let (media_type, content, annotations) = match material {
            Material::CosignSig { payload, annotations } => (SIMPLE_SIGNING_MEDIA_TYPE, payload, annotations),
            Material::Bundle { json } => (BUNDLE_MEDIA_TYPE, json, BTreeMap::new()),
        };
        Self { media_type: media_type.to_owned(), content, annotations }
    }
}

impl From<Layer> for Referrer {
    fn from(layer: Layer) -> Self {
        Self { artifact_type: Some(BUNDLE_MEDIA_TYPE.to_owned()), layers: vec![layer], subject: true }
    }
}

/// Pushes the image's `.sig` tag.
pub async fn push_signature_tag(image: &Pushed, layers: &[Layer]) {
    let (host, repository) = image.name.split_once('/').unwrap();
    let content = artifact(host, repository, "application/vnd.oci.image.config.v1+json", layers).await;
    manifest(host, repository, &image.digest.signature_tag(), MANIFEST, &content).await;
}

/// Pushes manifests that refer to the image; with `tag`, also the fallback tag that lists them, as
/// clients do at a registry without a referrers API.
pub async fn push_referrers(image: &Pushed, referrers: &[Referrer], tag: bool) {
    let (host, repository) = image.name.split_once('/').unwrap();
    let mut list = Vec::new();
    for referrer in referrers {
        let mut content = artifact(host, repository, EMPTY, &referrer.layers).await;
        if let Some(artifact_type) = &referrer.artifact_type {
            content["artifactType"] = json!(artifact_type);
        }
        if referrer.subject {
            content["subject"] = image.descriptor();
        }
        let digest = countersign_reference::Digest::sha256_of(content.to_string().as_bytes());
        let pushed = manifest(host, repository, &digest.to_string(), MANIFEST, &content).await;
        let mut entry = pushed.descriptor();
        if let Some(artifact_type) = &referrer.artifact_type {
            entry["artifactType"] = json!(artifact_type);
        }
        list.push(entry);
    }
    if tag {
        let content = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": list });
        manifest(host, repository, &image.digest.referrers_tag(), INDEX, &content).await;
    }
}

async fn artifact(host: &str, repository: &str, config_type: &str, layers: &[Layer]) -> Value {
    let mut config = blob(host, repository, b"{}").await;
    config["mediaType"] = json!(config_type);
    let mut listed = Vec::new();
    for layer in layers {
        let mut entry = blob(host, repository, &layer.content).await;
        entry["mediaType"] = json!(layer.media_type);
        entry["annotations"] = json!(layer.annotations);
        listed.push(entry);
    }
    json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": listed })
}
