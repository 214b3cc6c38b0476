//! Signatures that are in a layout, judged without a registry.

use countersign_layout::{Catalog, Descriptor, Layout, LayoutError};
use countersign_manifest::Document;
use countersign_reference::Digest;
use countersign_signature::{
    BUNDLE_MEDIA_TYPE_PREFIX, Judge, Limits, Located, Material, SIMPLE_SIGNING_MEDIA_TYPE, Terms, Trust,
};
use countersign_verdict::{Check, Code};

use crate::walk::Documents;

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
    documents: &Documents<'_>,
    catalog: &Catalog,
    repository: &str,
    digest: &Digest,
    trust: Option<&Trust>,
) -> Signed {
    let limits = Limits::DEFAULT;
    let layout = documents.layout;
    let found = signatures(documents, catalog, repository, digest);
    let Some(trust) = trust else { return Signed::Unjudged(found.take(limits.signatures).count()) };
    let mut judge = Judge::new(trust, digest, Terms::within(limits));
    let mut unread = Vec::new();
    let at = || "bundle".to_owned();
    for (number, found) in found.enumerate() {
        if number == limits.signatures {
            let detail = format!("more than {} signatures", limits.signatures);
            unread.push(Check::new(at(), "signatures", Code::LimitReached, detail));
            break;
        }
        match found.material.and_then(|material| material.read(layout, &limits)) {
            Ok(material) => {
                let located = Located { at: at(), artifact: found.artifact, material };
                if let Some(proof) = judge.add(&located) {
                    return Signed::By(proof.get().keys.clone());
                }
                if judge.exhausted() {
                    break;
                }
            }
            Err((code, why)) => unread.push(Check::new(at(), found.artifact, code, why)),
        }
    }
    if judge.seen() == 0 && unread.is_empty() {
        return Signed::Not;
    }
    Signed::Rejected(judge.checks().iter().cloned().chain(unread).collect())
}

/// The signatures of a digest that can be read, which nobody has judged.
pub(crate) fn materials(
    documents: &Documents<'_>,
    catalog: &Catalog,
    repository: &str,
    digest: &Digest,
) -> Vec<Material> {
    let limits = Limits::DEFAULT;
    let found = signatures(documents, catalog, repository, digest).take(limits.signatures);
    found.filter_map(|found| found.material.ok()?.read(documents.layout, &limits).ok()).collect()
}

/// A signature that is listed; what it consists of is read when its turn comes.
struct Found {
    /// The words that name it.
    artifact: String,
    material: Result<Listed, (Code, String)>,
}

/// Where the content of a signature is.
enum Listed {
    CosignSig { payload: Descriptor },
    Bundle { json: Descriptor },
}

impl Listed {
    fn read(self, layout: &Layout, limits: &Limits) -> Result<Material, (Code, String)> {
        let (Self::CosignSig { payload: layer } | Self::Bundle { json: layer }) = &self;
        let failed = |error: LayoutError| (Code::Malformed, error.to_string());
        if layout.blob(&layer.digest).map_err(failed)?.length() > limits.material_bytes as u64 {
            return Err((Code::LimitReached, format!("larger than {} bytes", limits.material_bytes)));
        }
        let content = layout.get(&layer.digest).map_err(failed)?;
        Ok(match self {
            Self::CosignSig { payload } => {
                Material::CosignSig { payload: content, annotations: payload.annotations }
            }
            Self::Bundle { .. } => Material::Bundle { json: content },
        })
    }
}

/// Every signature of a digest.
fn signatures<'a>(
    documents: &'a Documents<'_>,
    catalog: &'a Catalog,
    repository: &str,
    digest: &Digest,
) -> impl Iterator<Item = Found> + use<'a> {
    let tagged = match catalog.tagged(repository, &digest.signature_tag()) {
        None => Vec::new(),
        Some(entry) => match documents.read(entry) {
            Ok(document) => {
                let layers = document.layers().iter().enumerate();
                let layers = layers.filter(|(_, layer)| layer.media_type == SIMPLE_SIGNING_MEDIA_TYPE);
                layers
                    .map(|(index, layer)| Found {
                        artifact: format!("signature {}", index + 1),
                        material: Ok(Listed::CosignSig { payload: layer.clone() }),
                    })
                    .collect()
            }
            Err(why) => {
                vec![Found { artifact: "tag `.sig`".to_owned(), material: Err((Code::Malformed, why)) }]
            }
        },
    };
    let referrers = catalog.referrers(repository, digest).iter().filter_map(|entry| {
        let document = documents.read(entry).ok()?;
        let [layer] = document.layers() else { return None };
        let is_bundle = layer.media_type.starts_with(BUNDLE_MEDIA_TYPE_PREFIX);
        is_bundle.then(|| Found {
            artifact: "referrer".to_owned(),
            material: Ok(Listed::Bundle { json: layer.clone() }),
        })
    });
    tagged.into_iter().chain(referrers)
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
