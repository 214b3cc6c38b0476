//! Images, and signatures beside them as cosign leaves them.

use std::collections::BTreeMap;

use countersign_layout::Descriptor;
use countersign_manifest::{INDEX, MANIFEST};
use countersign_reference::Digest;
use countersign_signature::sign::Signer;
use countersign_signature::{BUNDLE_MEDIA_TYPE, Material, SIMPLE_SIGNING_MEDIA_TYPE};
use serde_json::{Value, json};

use crate::{SampleError, SampleRegistry};

const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// Where a signature is put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A `sha256-….sig` tag, as cosign 2 does it.
    Tag,
    /// A bundle that refers to the image, as cosign 3 does it.
    Bundle,
}

impl SampleRegistry {
    /// Pushes an image (`repository:tag`) whose one layer is this text.
    pub fn push(&self, name: &str, text: &str) -> Result<Digest, SampleError> {
        Ok(self.push_image(name, text)?.digest)
    }

    /// Pushes an image and its signature.
    pub fn push_signed(
        &self,
        name: &str,
        text: &str,
        signer: &Signer,
        shape: Shape,
    ) -> Result<Digest, SampleError> {
        let (repository, _) = name.rsplit_once(':').ok_or_else(|| SampleError::Name(name.to_owned()))?;
        let subject = self.push_image(name, text)?;
        let none = BTreeMap::new();
        let material = match shape {
            Shape::Tag => signer.cosign_sig(&subject.digest, repository, &none)?,
            Shape::Bundle => signer.bundle(&subject.digest, &none)?,
        };
        self.attach(repository, &subject, material)?;
        Ok(subject.digest)
    }

    /// Puts a signature beside an image, in the place that its shape has.
    pub fn attach(
        &self,
        repository: &str,
        subject: &Descriptor,
        material: Material,
    ) -> Result<(), SampleError> {
        let config = self.blob(CONFIG, b"{}")?;
        let (name, manifest) = match material {
            Material::CosignSig { payload, annotations } => {
                let mut layer = self.blob(SIMPLE_SIGNING_MEDIA_TYPE, &payload)?;
                layer["annotations"] = json!(annotations);
                let name = format!("{repository}:{}", subject.digest.signature_tag());
                (name, plain(&config, &layer))
            }
            Material::Bundle { json: bundle } => {
                let layer = self.blob(BUNDLE_MEDIA_TYPE, &bundle)?;
                let name = format!("{repository}@{}", Digest::sha256_of(&bundle));
                let mut manifest = plain(&config, &layer);
                manifest["artifactType"] = json!(BUNDLE_MEDIA_TYPE);
                manifest["subject"] = json!(subject);
                (name, manifest)
            }
        };
        self.manifest(&name, MANIFEST, &manifest)?;
        Ok(())
    }

    /// Pushes an index of these images.
    pub fn push_index(&self, name: &str, images: &[Descriptor]) -> Result<Descriptor, SampleError> {
        self.manifest(name, INDEX, &json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": images }))
    }

    /// The manifest that a signature of this image is in, where it is a bundle.
    pub fn referrer_of(&self, repository: &str, image: &Digest) -> Result<Option<Digest>, SampleError> {
        let prefix = format!("{repository}@");
        for (_, entry) in
            self.registry.layout().index()?.named().filter(|(name, _)| name.starts_with(&prefix))
        {
            let manifest: Value =
                serde_json::from_slice(&self.registry.layout().get(&entry.digest)?).unwrap_or_default();
            if manifest["subject"]["digest"] == json!(image) {
                return Ok(Some(entry.digest.clone()));
            }
        }
        Ok(None)
    }

    /// Pushes an image (`repository:tag`) whose one layer is this text; its descriptor.
    pub fn push_image(&self, name: &str, text: &str) -> Result<Descriptor, SampleError> {
        let config = self.blob(CONFIG, b"{}")?;
        let layer = self.blob(LAYER, text.as_bytes())?;
        self.manifest(name, MANIFEST, &plain(&config, &layer))
    }

    fn manifest(&self, name: &str, media_type: &str, manifest: &Value) -> Result<Descriptor, SampleError> {
        let content = manifest.to_string();
        let digest = self.registry.layout().put(content.as_bytes())?;
        let descriptor = Descriptor::new(media_type, digest, content.len() as u64);
        self.registry.layout().name(name, descriptor.clone())?;
        Ok(descriptor)
    }

    fn blob(&self, media_type: &str, content: &[u8]) -> Result<Value, SampleError> {
        let digest = self.registry.layout().put(content)?;
        Ok(json!({ "mediaType": media_type, "digest": digest, "size": content.len() }))
    }
}

fn plain(config: &Value, layer: &Value) -> Value {
    json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer] })
}
