//! Every byte and every signature of a bundle, without a registry.

use std::collections::BTreeSet;
use std::fmt;

use countersign_layout::{Catalog, Descriptor, Index, Layout, LayoutError};
use countersign_manifest::Platform;
use countersign_reference::Digest;
use countersign_signature::Trust;

use crate::judge::{self, Signed};
use crate::{PLATFORMS, Seal, check_seal, is_artifact_tag};

/// How deep indexes may be nested.
pub(crate) const MAX_DEPTH: usize = 4;

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
#[derive(Clone, Debug, PartialEq, Eq)]
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
    for digest in layout.digests()? {
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
/// # Errors
///
/// The layout itself cannot be read.
pub fn contents(layout: &Layout, trust: Option<&Trust>) -> Result<Report, LayoutError> {
    let index = layout.index()?;
    let catalog = Catalog::of(layout, &index);
    let mut reader = Reader { layout, chosen: chosen(&index), seen: BTreeSet::new(), problems: Vec::new() };
    let mut images = Vec::new();
    for (name, entry) in index.named() {
        let mut image = Image {
            name: name.to_owned(),
            digest: entry.digest.clone(),
            platforms: Vec::new(),
            left_out: Vec::new(),
            signed: Signed::Not,
            artifacts: 0,
        };
        reader.document(name, entry, &mut image, 0);
        let Some((repository, rest)) = split(name) else {
            reader.problem(name, "is not `repository:tag` or `repository@digest`");
            continue;
        };
        let referrer = judge::document(layout, &entry.digest, &entry.media_type)
            .is_ok_and(|document| document.subject.is_some());
        if referrer || is_artifact_tag(rest) {
            continue;
        }
        image.signed = judge::judge(layout, &catalog, repository, &entry.digest, trust);
        let tags = [".sig", ".att", ".sbom"].iter().filter(|suffix| {
            let tag = format!("{}{suffix}", entry.digest.referrers_tag());
            catalog.tagged(repository, &tag).is_some()
        });
        image.artifacts = catalog.referrers(repository, &entry.digest).len() + tags.count();
        images.push(image);
    }
    Ok(Report { images, problems: reader.problems, seal: None, blobs: 0, bytes: 0 })
}

pub(crate) fn split(name: &str) -> Option<(&str, &str)> {
    name.split_once('@').or_else(|| name.rsplit_once(':'))
}

/// The platforms that a bundle was made for; all of them where it does not say.
fn chosen(index: &Index) -> Vec<Platform> {
    let text = index.annotations.get(PLATFORMS).map(String::as_str).unwrap_or_default();
    text.split(',').filter_map(|platform| platform.trim().parse().ok()).collect()
}

struct Reader<'a> {
    layout: &'a Layout,
    chosen: Vec<Platform>,
    seen: BTreeSet<Digest>,
    problems: Vec<Problem>,
}

impl Reader<'_> {
    fn problem(&mut self, name: &str, what: impl Into<String>) {
        self.problems.push(Problem { name: name.to_owned(), what: what.into() });
    }

    fn document(&mut self, name: &str, entry: &Descriptor, image: &mut Image, depth: usize) {
        if depth > MAX_DEPTH {
            return self.problem(name, format!("indexes are nested more than {MAX_DEPTH} deep"));
        }
        let document = match judge::document(self.layout, &entry.digest, &entry.media_type) {
            Ok(document) => document,
            Err(why) => return self.problem(name, format!("{}: {why}", entry.digest)),
        };
        for child in document.children() {
            if self.layout.has(&child.digest) {
                image.platforms.extend(child.platform.clone());
                self.document(name, child, image, depth + 1);
            } else if self.is_left_out(child) {
                image.left_out.extend(child.platform.clone());
            } else {
                let platform = child.platform.as_ref().map(|at| format!(" ({at})")).unwrap_or_default();
                self.problem(name, format!("the manifest {}{platform} is missing", child.digest));
            }
        }
        for blob in document.blobs() {
            if !self.seen.insert(blob.digest.clone()) {
                continue;
            }
            let foreign = is_foreign(blob);
            match self.layout.blob(&blob.digest) {
                Ok(found) if found.length() != blob.size => {
                    let (digest, found, size) = (&blob.digest, found.length(), blob.size);
                    self.problem(name, format!("{digest} has {found} bytes, its descriptor says {size}"));
                }
                Ok(_) => {}
                Err(LayoutError::Absent(_)) if foreign => {}
                Err(LayoutError::Absent(digest)) => {
                    self.problem(name, format!("the layer {digest} is missing"));
                }
                Err(error) => self.problem(name, error.to_string()),
            }
        }
    }

    /// Whether a child of an index is for none of the platforms that the bundle was made for.
    fn is_left_out(&self, child: &Descriptor) -> bool {
        !self.chosen.is_empty() && !wanted(&self.chosen, child)
    }
}

/// Whether a child of an index is for one of these platforms; all are where none is named.
pub(crate) fn wanted(platforms: &[Platform], child: &Descriptor) -> bool {
    let of = |platform: &Platform| platforms.iter().any(|chosen| chosen.matches(platform));
    // What names no platform is taken along; BuildKit's attestations name `unknown/unknown`.
    platforms.is_empty() || child.platform.as_ref().is_none_or(of)
}

/// A layer that a registry need not have (OCI image-spec, "Non-Distributable Layers").
pub(crate) fn is_foreign(layer: &Descriptor) -> bool {
    layer.media_type.contains("nondistributable") || layer.media_type.contains(".foreign.")
}
