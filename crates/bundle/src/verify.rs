//! Every byte and every signature of a bundle, without a registry.

use std::collections::BTreeSet;
use std::fmt;

use bytes::Bytes;
use countersign_layout::{Catalog, Descriptor, Layout, LayoutError, REF_NAME};
use countersign_manifest::Platform;
use countersign_reference::Digest;
use countersign_signature::{Material, Trust};

use crate::judge::{self, Signed};
use crate::walk::{Documents, Name, Tree};
use crate::{Seal, check_seal};

/// The annotation by which containerd names what it imports.
const IMAGE_NAME: &str = "io.containerd.image.name";

/// What is in a bundle, and what is wrong with it.
#[derive(Clone, Debug)]
pub struct Report {
    /// Every image, in the order of names.
    pub images: Vec<Image>,
    /// What is damaged or missing.
    pub problems: Vec<Problem>,
    /// Who sealed it; `None` if nobody was named to judge by.
    pub seal: Option<Seal>,
    /// How many pieces of content there are.
    pub blobs: usize,
    /// Their bytes.
    pub bytes: u64,
}

/// An image of a bundle.
#[derive(Clone, Debug)]
pub struct Image {
    /// `repository:tag`, or `repository@digest`.
    pub name: String,
    /// Its digest.
    pub digest: Digest,
    /// The platforms that are here.
    pub platforms: Vec<Platform>,
    /// Those that its index names and that are not: the bundle was made without them.
    pub left_out: Vec<Platform>,
    /// What its signatures say.
    pub signed: Signed,
    /// How many documents refer to it: signatures, attestations, bills of material.
    pub artifacts: usize,
}

/// Something that is damaged or missing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The name of the entry, or nothing where it is content alone.
    pub name: String,
    /// What is the matter.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name.is_empty() { f.write_str(&self.what) } else { write!(f, "{}: {}", self.name, self.what) }
    }
}

/// Reads every byte of a bundle and judges every signature.
///
/// # Errors
///
/// The layout itself cannot be read; what is wrong inside it is in the report.
pub fn verify(
    layout: &Layout,
    trust: Option<&Trust>,
    bundle_keys: Option<&Trust>,
) -> Result<Report, LayoutError> {
    let mut report = contents(layout, trust)?;
    report.seal = bundle_keys.map(|keys| check_seal(layout, keys)).transpose()?;
    let (digests, strays) = layout.digests()?;
    let stray = |name| Problem { name, what: "is not named by a digest".to_owned() };
    report.problems.extend(strays.into_iter().map(stray));
    for digest in digests {
        report.blobs += 1;
        match layout.check(&digest) {
            Ok(length) => report.bytes += length,
            Err(error) => report.problems.push(Problem { name: String::new(), what: error.to_string() }),
        }
    }
    Ok(report)
}

/// What is in a bundle, as its documents say: layers are not read.
///
/// Every entry is an image that has to be signed, unless it belongs to one and is nothing that a
/// runtime would unpack.
///
/// # Errors
///
/// The layout itself cannot be read.
pub fn contents(layout: &Layout, trust: Option<&Trust>) -> Result<Report, LayoutError> {
    let index = layout.index()?;
    let catalog = Catalog::of(layout, &index);
    let documents = Documents::of(layout);
    let (mut images, mut problems) = (Vec::new(), BTreeSet::new());
    let mut problem =
        |name: &str, what: &str| problems.insert(Problem { name: name.to_owned(), what: what.to_owned() });
    if index.manifests.is_empty() {
        problem("", "there is nothing in the bundle");
    }
    let mut names = BTreeSet::new();
    for entry in &index.manifests {
        let text = entry.annotations.get(REF_NAME).map(String::as_str).unwrap_or_default();
        if text.is_empty() {
            problem("", &format!("the entry {} of index.json has no `{REF_NAME}`", entry.digest));
        } else if !names.insert(text) {
            problem(text, "stands twice in index.json");
        }
        let tree = Tree::of(&documents, entry);
        tree.flaws.iter().for_each(|flaw| _ = problem(text, flaw));
        let name = match Name::of(text, entry) {
            Ok(name) if tree.is_attached(layout, &name) => continue,
            Ok(name) => Some(name),
            Err(_) if text.is_empty() => None,
            Err(why) => {
                problem(text, &why);
                None
            }
        };
        let Some(repository) = name.map(|name| name.repository()) else { continue };
        let tags = [".sig", ".att", ".sbom"].iter().filter(|suffix| {
            let tag = format!("{}{suffix}", entry.digest.referrers_tag());
            catalog.tagged(repository, &tag).is_some()
        });
        images.push(Image {
            name: text.to_owned(),
            digest: entry.digest.clone(),
            signed: judge::judge(&documents, &catalog, repository, &entry.digest, trust),
            artifacts: catalog.referrers(repository, &entry.digest).len() + tags.count(),
            left_out: tree.left_out.into_iter().filter_map(|child| child.platform).collect(),
            platforms: tree.platforms,
        });
    }
    Ok(Report { images, problems: problems.into_iter().collect(), seal: None, blobs: 0, bytes: 0 })
}

/// What a bundle has to prove an image with.
#[derive(Clone, Debug)]
pub struct Evidence {
    /// `repository:tag`, or `repository@digest`.
    pub name: String,
    /// Its digest.
    pub digest: Digest,
    /// Its signatures, which nobody has judged.
    pub signatures: Vec<Material>,
    /// The index itself, where it is one.
    pub index: Option<Bytes>,
}

/// The signatures of every image of a bundle.
///
/// # Errors
///
/// The layout itself cannot be read.
pub fn evidence(layout: &Layout) -> Result<Vec<Evidence>, LayoutError> {
    let index = layout.index()?;
    let (catalog, documents) = (Catalog::of(layout, &index), Documents::of(layout));
    let mut found = Vec::new();
    for image in contents(layout, None)?.images {
        let of = index.named().find(|(name, _)| *name == image.name);
        let Some(repository) = of.and_then(|(name, entry)| Name::of(name, entry).ok()) else { continue };
        let signatures = judge::materials(&documents, &catalog, repository.repository(), &image.digest);
        let is_index = of.is_some_and(|(_, entry)| countersign_manifest::is_index(&entry.media_type));
        let index = is_index.then(|| layout.get(&image.digest).ok().map(Bytes::from)).flatten();
        found.push(Evidence { name: image.name, digest: image.digest, signatures, index });
    }
    Ok(found)
}

/// One image of a bundle, as it is handed to a runtime.
#[derive(Clone, Debug)]
pub struct Single {
    /// Its entry in the index.
    pub entry: Descriptor,
    /// What its signatures say.
    pub signed: Signed,
    /// What is damaged or missing.
    pub flaws: Vec<String>,
    /// All that it consists of, once each.
    pub content: Vec<Digest>,
}

impl Single {
    /// Its entry under these names, in the form that containerd imports.
    pub fn named(&self, names: &[String]) -> Vec<Descriptor> {
        let named = |name: &String| {
            let annotations = [(IMAGE_NAME.to_owned(), name.clone())].into();
            Descriptor { annotations, ..self.entry.clone() }
        };
        names.iter().map(named).collect()
    }
}

/// Looks for an image by its name in a bundle; `None` where the bundle has none of that name.
///
/// # Errors
///
/// The layout itself cannot be read.
pub fn single(layout: &Layout, name: &str, trust: Option<&Trust>) -> Result<Option<Single>, LayoutError> {
    let index = layout.index()?;
    let Some((_, entry)) = index.named().find(|(found, _)| *found == name) else { return Ok(None) };
    let documents = Documents::of(layout);
    let tree = Tree::of(&documents, entry);
    let mut flaws = tree.flaws;
    let signed = match Name::of(name, entry) {
        Ok(read) => {
            let catalog = Catalog::of(layout, &index);
            judge::judge(&documents, &catalog, read.repository(), &entry.digest, trust)
        }
        Err(why) => {
            flaws.push(why);
            Signed::Not
        }
    };
    let mut content = BTreeSet::new();
    for (descriptor, document) in &tree.documents {
        content.insert(descriptor.digest.clone());
        content.extend(document.blobs().map(|blob| blob.digest.clone()).filter(|digest| layout.has(digest)));
    }
    let content = content.into_iter().collect();
    Ok(Some(Single { entry: entry.clone(), signed, flaws, content }))
}

#[cfg(test)]
mod tests;
