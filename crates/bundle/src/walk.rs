//! What an entry of a bundle names and consists of.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use countersign_layout::{Descriptor, Layout, LayoutError};
use countersign_manifest::{Content, Document, Platform, is_image_config, is_index, is_rootfs_layer};
use countersign_reference::{Digest, Reference};

use crate::PLATFORMS;

/// How deep indexes may be nested.
pub(crate) const MAX_DEPTH: usize = 4;
/// Documents that may belong to one image.
pub(crate) const MAX_DOCUMENTS: usize = 1024;
/// Bytes of the documents of one entry.
const MAX_BYTES: u64 = 64 << 20;
/// Bytes of documents that are read of one bundle.
const MAX_READ: u64 = 1 << 30;
/// The annotation by which BuildKit says of which image in the same index something is.
const OF_DIGEST: &str = "vnd.docker.reference.digest";

/// The name of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Name<'a> {
    Tag { repository: &'a str, tag: &'a str },
    Digest { repository: &'a str },
}

impl<'a> Name<'a> {
    /// Reads `repository:tag`, or `repository@digest` with the digest of the entry.
    pub(crate) fn of(text: &'a str, entry: &Descriptor) -> Result<Self, String> {
        let wrong = || "is not `repository:tag` or `repository@digest`".to_owned();
        // Names have no host; with one they have to be as in a pod.
        let read = Reference::parse(&format!("site.invalid/{text}")).map_err(|_| wrong())?;
        match (text.split_once('@'), text.rsplit_once(':')) {
            (Some((repository, _)), _) if read.tag().is_some() || repository.contains(':') => Err(wrong()),
            (Some((repository, _)), _) if read.digest() == Some(&entry.digest) => {
                Ok(Self::Digest { repository })
            }
            (Some(_), _) => Err(format!("is the entry of {}", entry.digest)),
            (None, Some((repository, tag))) if read.tag() == Some(tag) => Ok(Self::Tag { repository, tag }),
            (None, _) => Err(wrong()),
        }
    }

    pub(crate) fn repository(&self) -> &'a str {
        match self {
            Self::Tag { repository, .. } | Self::Digest { repository } => repository,
        }
    }
}

/// The platforms that an entry was collected for; all of them where it does not say.
pub(crate) fn platforms(entry: &Descriptor) -> Vec<Platform> {
    let text = entry.annotations.get(PLATFORMS).map(String::as_str).unwrap_or_default();
    text.split(',').filter_map(|platform| platform.trim().parse().ok()).collect()
}

/// The children of an index, each with whether it is for one of these platforms; all are where
/// none is named.
pub(crate) fn children<'a>(
    platforms: &[Platform],
    document: &'a Document,
) -> impl Iterator<Item = (&'a Descriptor, bool)> {
    let of = |child: &Descriptor| {
        let named =
            |platform: &Platform| platforms.is_empty() || platforms.iter().any(|at| at.matches(platform));
        child.platform.as_ref().is_none_or(named)
    };
    let wanted: BTreeSet<String> =
        document.children().iter().filter(|child| of(child)).map(|child| child.digest.to_string()).collect();
    document.children().iter().map(move |child| {
        // BuildKit's attestations are for `unknown/unknown`, and name the image that they are of.
        let of_wanted = || child.annotations.get(OF_DIGEST).is_some_and(|digest| wanted.contains(digest));
        (child, wanted.contains(&child.digest.to_string()) || of_wanted())
    })
}

/// Whether an index is of images, and none of them is for these platforms.
pub(crate) fn has_none_of(platforms: &[Platform], document: &Document) -> bool {
    let is_image = |child: &Descriptor| child.platform.as_ref().is_none_or(|at| at.os != "unknown");
    let mut images = children(platforms, document).filter(|(child, _)| is_image(child)).peekable();
    images.peek().is_some() && images.all(|(_, wanted)| !wanted)
}

/// A layer that a registry need not have (OCI image-spec, "Non-Distributable Layers").
pub(crate) fn is_foreign(layer: &Descriptor) -> bool {
    layer.media_type.contains("nondistributable") || layer.media_type.contains(".foreign.")
}

/// Reads the documents of a layout, so many bytes of them in all: one document may have any number
/// of names.
pub(crate) struct Documents<'a> {
    pub(crate) layout: &'a Layout,
    read: AtomicU64,
}

impl<'a> Documents<'a> {
    pub(crate) fn of(layout: &'a Layout) -> Self {
        Self { layout, read: AtomicU64::new(0) }
    }

    /// What is wrong with one is told with its digest.
    pub(crate) fn read(&self, entry: &Descriptor) -> Result<Document, String> {
        let wrong = |why: &dyn fmt::Display| format!("the manifest {}: {why}", entry.digest);
        let failed = |error: LayoutError| match error {
            LayoutError::Absent(digest) => format!("the manifest {digest}{} is missing", platform(entry)),
            error => error.to_string(),
        };
        let length = self.layout.blob(&entry.digest).map_err(failed)?.length();
        if length != entry.size {
            return Err(wrong(&format!("it has {length} bytes, its descriptor says {}", entry.size)));
        }
        // What is there counts, not what is said.
        if self.read.fetch_add(length.min(MAX_READ), Ordering::Relaxed) > MAX_READ {
            return Err(wrong(&format!("more than {MAX_READ} bytes of documents are named, over and over")));
        }
        let content = self.layout.get(&entry.digest).map_err(failed)?;
        Document::parse(&content, &entry.media_type).map_err(|error| wrong(&error))
    }
}

/// For which machines something is, in words that follow its name.
pub(crate) fn platform(entry: &Descriptor) -> String {
    entry.platform.as_ref().map(|at| format!(" ({at})")).unwrap_or_default()
}

/// What an entry consists of.
#[derive(Default)]
pub(crate) struct Tree {
    /// Its documents, each once; what others name comes before them, and the entry's own is last.
    pub(crate) documents: Vec<(Descriptor, Document)>,
    /// The platforms that are here.
    pub(crate) platforms: Vec<Platform>,
    /// Children for platforms that the entry was not collected for.
    pub(crate) left_out: Vec<Descriptor>,
    /// What is damaged or missing, in words.
    pub(crate) flaws: Vec<String>,
    seen: BTreeSet<Digest>,
    blobs: BTreeSet<(Digest, u64)>,
    bytes: u64,
}

impl Tree {
    /// Reads the documents of an entry, and looks whether their layers are there.
    pub(crate) fn of(documents: &Documents<'_>, entry: &Descriptor) -> Self {
        let mut tree = Self::default();
        tree.document(documents, &platforms(entry), entry, 0);
        tree
    }

    fn document(
        &mut self,
        documents: &Documents<'_>,
        platforms: &[Platform],
        entry: &Descriptor,
        depth: usize,
    ) {
        let layout = documents.layout;
        if !self.seen.insert(entry.digest.clone()) {
            return;
        }
        if depth > MAX_DEPTH {
            return self.flaws.push(format!("indexes are nested more than {MAX_DEPTH} deep"));
        }
        self.bytes = self.bytes.saturating_add(entry.size);
        if self.seen.len() > MAX_DOCUMENTS || self.bytes > MAX_BYTES {
            let most =
                format!("more than {MAX_DOCUMENTS} documents or {MAX_BYTES} bytes of them belong to it");
            if !self.flaws.contains(&most) {
                self.flaws.push(most);
            }
            return;
        }
        let document = match documents.read(entry) {
            Ok(document) => document,
            Err(why) => return self.flaws.push(why),
        };
        for (child, wanted) in children(platforms, &document) {
            let here = layout.has(&child.digest);
            if wanted || here {
                self.platforms.extend(child.platform.clone().filter(|_| here));
                self.document(documents, platforms, child, depth + 1);
            } else {
                self.left_out.push(child.clone());
            }
        }
        for blob in document.blobs() {
            if self.blobs.insert((blob.digest.clone(), blob.size)) {
                self.flaws.extend(flaw_of_layer(layout, blob));
            }
        }
        self.documents.push((entry.clone(), document));
    }

    /// Whether the entry belongs to an image of the bundle, and is none itself: nothing that a
    /// runtime would unpack passes for a signature.
    pub(crate) fn is_attached(&self, layout: &Layout, name: &Name<'_>) -> bool {
        let Some((entry, document)) = self.documents.last() else { return false };
        let to = |subject: &Descriptor| layout.has(&subject.digest);
        match name {
            Name::Digest { .. } => document.subject.as_ref().is_some_and(to) && runs_nowhere(document),
            Name::Tag { tag, .. } => match artifact_tag(tag) {
                None => false,
                // The list of referrers in a registry without their API.
                Some((of, "")) => {
                    is_index(&entry.media_type)
                        && layout.has(&of)
                        && self.documents.iter().rev().skip(1).all(|(_, child)| {
                            runs_nowhere(child)
                                && child.subject.as_ref().is_some_and(|subject| subject.digest == of)
                        })
                }
                Some((of, _)) => layout.has(&of) && runs_nowhere(document),
            },
        }
    }
}

/// Whether no runtime makes a container of it. containerd looks for a config among all that a
/// manifest names, whatever it is called there, and needs a layer for each that the config counts.
fn runs_nowhere(document: &Document) -> bool {
    let Content::Manifest { config, layers } = &document.content else { return false };
    // `oras attach` calls any file a layer, with this for a config, which counts none.
    let nothing = config.as_ref().is_some_and(|config| config.digest == Digest::sha256_of(b"{}"));
    let types = || layers.iter().map(|layer| layer.media_type.as_str());
    !types().any(is_image_config) && (nothing || !types().any(is_rootfs_layer))
}

fn flaw_of_layer(layout: &Layout, blob: &Descriptor) -> Option<String> {
    let digest = &blob.digest;
    match layout.blob(digest) {
        Ok(found) if found.length() == blob.size => None,
        Ok(found) => {
            let (found, size) = (found.length(), blob.size);
            Some(format!("{digest} has {found} bytes, its descriptor says {size}"))
        }
        Err(LayoutError::Absent(_)) if is_foreign(blob) => None,
        Err(LayoutError::Absent(_)) => Some(format!("the layer {digest} is missing")),
        Err(error) => Some(error.to_string()),
    }
}

/// What a tag belongs to under which cosign 2 keeps something, with its ending; the fallback tag
/// of referrers has none. None of them names an image.
fn artifact_tag(tag: &str) -> Option<(Digest, &str)> {
    let (algorithm, rest) = tag.split_once('-')?;
    let (hex, suffix) = rest.split_at(rest.find('.').unwrap_or(rest.len()));
    let digest = Digest::parse(&format!("{algorithm}:{hex}")).ok()?;
    ["", ".sig", ".att", ".sbom"].contains(&suffix).then_some((digest, suffix))
}

#[cfg(test)]
mod tests {
    use countersign_manifest::{INDEX, MANIFEST};

    use super::*;

    #[test]
    fn tags_of_artifacts() {
        let hex = "0".repeat(64);
        for (tag, suffix) in [
            (format!("sha256-{hex}.sig"), Some(".sig")),
            (format!("sha256-{hex}"), Some("")),
            (format!("sha256-{hex}.txt"), None),
            ("sha256-abc.sig".to_owned(), None),
            ("1.4".to_owned(), None),
        ] {
            assert_eq!(artifact_tag(&tag).map(|(_, suffix)| suffix), suffix, "{tag}");
        }
    }

    #[test]
    fn names_are_read_as_they_are_served() {
        let entry = Descriptor::new(MANIFEST, Digest::sha256_of(b"x"), 1);
        let (digest, other) = (&entry.digest, Digest::sha256_of(b"y"));
        for (text, good) in [
            ("a/b:1".to_owned(), true),
            (format!("a/b@{digest}"), true),
            (format!("a/b@{other}"), false),
            (format!("a/b:1@{digest}"), false),
            ("a/b".to_owned(), false),
            ("a/B:1".to_owned(), false),
            ("../b:1".to_owned(), false),
            (String::new(), false),
            ("a/b:".to_owned(), false),
        ] {
            assert_eq!(Name::of(&text, &entry).is_ok(), good, "{text}");
        }
        assert_eq!(Name::of("a/b:1", &entry), Ok(Name::Tag { repository: "a/b", tag: "1" }));
    }

    #[test]
    fn attestations_go_with_their_image() {
        let digest = |name: &str| Digest::sha256_of(name.as_bytes());
        let child = |name: &str, platform: &str, of: Option<&str>| {
            let annotations: Vec<_> =
                of.iter().map(|of| (OF_DIGEST.to_owned(), digest(of).to_string())).collect();
            Descriptor {
                platform: Some(platform.parse().unwrap()),
                annotations: annotations.into_iter().collect(),
                ..Descriptor::new(MANIFEST, digest(name), 1)
            }
        };
        let index = |children: &[Descriptor]| {
            let text = serde_json::json!({ "schemaVersion": 2, "manifests": children }).to_string();
            Document::parse(text.as_bytes(), INDEX).unwrap()
        };
        let document = index(&[
            child("amd64", "linux/amd64", None),
            child("arm64", "linux/arm64", None),
            child("of amd64", "unknown/unknown", Some("amd64")),
            child("of arm64", "unknown/unknown", Some("arm64")),
        ]);
        let wanted = |platform: &[&str]| -> Vec<bool> {
            let platforms: Vec<_> = platform.iter().map(|platform| platform.parse().unwrap()).collect();
            children(&platforms, &document).map(|(_, wanted)| wanted).collect()
        };
        assert_eq!(wanted(&["linux/amd64"]), [true, false, true, false]);
        assert_eq!(wanted(&[]), [true; 4]);
        let s390x = ["linux/s390x".parse().unwrap()];
        assert!(has_none_of(&s390x, &document) && !has_none_of(&[], &document));
        assert!(!has_none_of(&s390x, &index(&[])), "an index of nothing is for all");
    }
}
