//! Signatures that are in a layout, judged without a registry.

use countersign_layout::{Catalog, Layout};
use countersign_manifest::Document;
use countersign_reference::Digest;
use countersign_signature::{
    BUNDLE_MEDIA_TYPE_PREFIX, Judge, Limits, Located, Material, SIMPLE_SIGNING_MEDIA_TYPE, Trust,
};
use countersign_verdict::{Check, Code};

/// What the signatures of an image say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signed {
    /// By these keys, which are trusted.
    By(Vec<String>),
    /// There are signatures, and none is good: why not.
    Rejected(Vec<Check>),
    /// There is none.
    Not,
    /// Nobody was named to judge by; so many signatures there are.
    Unjudged(usize),
}

impl Signed {
    /// Whether a trusted key stands behind the image.
    pub fn is_good(&self) -> bool {
        matches!(self, Self::By(_))
    }
}

/// Judges the signatures of a digest in a repository.
pub(crate) fn judge(
    layout: &Layout,
    catalog: &Catalog,
    repository: &str,
    digest: &Digest,
    trust: Option<&Trust>,
) -> Signed {
    let materials = materials(layout, catalog, repository, digest);
    let Some(trust) = trust else { return Signed::Unjudged(materials.len()) };
    let mut judge = Judge::new(trust, digest, Limits::DEFAULT);
    let mut unread = Vec::new();
    for (artifact, material) in materials {
        let at = "bundle".to_owned();
        match material {
            Ok(material) => {
                if let Some(proof) = judge.add(&Located { at, artifact, material }) {
                    return Signed::By(proof.get().keys.clone());
                }
            }
            Err(why) => unread.push(Check::new(at, artifact, Code::Malformed, why)),
        }
    }
    if judge.seen() == 0 && unread.is_empty() {
        return Signed::Not;
    }
    Signed::Rejected(judge.checks().iter().cloned().chain(unread).collect())
}

/// Every signature of a digest, with the words that name it.
fn materials(
    layout: &Layout,
    catalog: &Catalog,
    repository: &str,
    digest: &Digest,
) -> Vec<(String, Result<Material, String>)> {
    let mut found = Vec::new();
    let read = |digest: &Digest| layout.get(digest).map_err(|error| error.to_string());
    if let Some(entry) = catalog.tagged(repository, &digest.signature_tag()) {
        match document(layout, &entry.digest, &entry.media_type) {
            Ok(document) => {
                let layers = document.layers().iter().enumerate();
                for (index, layer) in
                    layers.filter(|(_, layer)| layer.media_type == SIMPLE_SIGNING_MEDIA_TYPE)
                {
                    let annotations = layer.annotations.clone();
                    let material =
                        read(&layer.digest).map(|payload| Material::CosignSig { payload, annotations });
                    found.push((format!("signature {}", index + 1), material));
                }
            }
            Err(why) => found.push(("tag `.sig`".to_owned(), Err(why))),
        }
    }
    for entry in catalog.referrers(repository, digest) {
        let Ok(document) = document(layout, &entry.digest, &entry.media_type) else { continue };
        let [layer] = document.layers() else { continue };
        if layer.media_type.starts_with(BUNDLE_MEDIA_TYPE_PREFIX) {
            let material = read(&layer.digest).map(|json| Material::Bundle { json });
            found.push(("referrer".to_owned(), material));
        }
    }
    found
}

pub(crate) fn document(layout: &Layout, digest: &Digest, media_type: &str) -> Result<Document, String> {
    let content = layout.get(digest).map_err(|error| error.to_string())?;
    Document::parse(&content, media_type).map_err(|error| error.to_string())
}

/// Whether a document is a signature or an attestation rather than an image.
pub(crate) fn is_artifact(document: &Document) -> bool {
    let of_signature = |media_type: &str| {
        media_type == SIMPLE_SIGNING_MEDIA_TYPE
            || media_type.starts_with(BUNDLE_MEDIA_TYPE_PREFIX)
            || media_type == "application/vnd.dsse.envelope.v1+json"
    };
    document.subject.is_some() || document.layers().iter().any(|layer| of_signature(&layer.media_type))
}
