//! Reads a bundle back from a registry: whether everything is there that has to be.

use countersign_layout::{Catalog, Descriptor, Layout, LayoutError, REF_NAME};
use countersign_manifest::Document;
use countersign_reference::{Digest, Hasher};
use countersign_registry::{Class, Endpoint, Error, Referrers};
use futures_util::{StreamExt as _, stream};

use crate::judge;
use crate::walk::{self, Documents, Name, Tree};

/// Entries that are looked for at a time.
const AT_A_TIME: usize = 8;
/// Bytes of signature content that are read.
const MAX_SMALL: u64 = 1 << 20;

/// What has to be in a registry that is filled from a bundle, and is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The name of the entry.
    pub name: String,
    /// What is missing there, or differs.
    pub what: String,
    /// Whether that is known: the endpoint answered.
    pub known: bool,
}

/// What a registry was found to have of a bundle.
#[derive(Clone, Debug, Default)]
pub struct Filled {
    /// Entries that were looked for.
    pub entries: usize,
    /// Documents, signatures and layers that are there.
    pub found: usize,
    /// What is not.
    pub missing: Vec<Missing>,
}

/// Reads a bundle back from an endpoint: documents and what signatures consist of by their
/// bytes, layers by their length; by their bytes, too, where `deep`.
///
/// # Errors
///
/// The layout cannot be read; what the endpoint lacks is in the answer.
pub async fn check(layout: &Layout, endpoint: &Endpoint, deep: bool) -> Result<Filled, LayoutError> {
    let index = layout.index()?;
    let catalog = Catalog::of(layout, &index);
    let documents = Documents::of(layout);
    let checker = &Checker { layout, documents, endpoint, catalog: &catalog, deep };
    let name = |entry: &Descriptor| entry.annotations.get(REF_NAME).cloned().unwrap_or_default();
    let parts: Vec<Filled> = stream::iter(&index.manifests)
        .map(|entry| async move { checker.entry(&name(entry), entry).await })
        .buffer_unordered(AT_A_TIME)
        .collect()
        .await;
    let mut all = Filled::default();
    for part in parts {
        all.entries += part.entries;
        all.found += part.found;
        all.missing.extend(part.missing);
    }
    all.missing.sort_by(|a, b| (&a.name, &a.what).cmp(&(&b.name, &b.what)));
    all.missing.dedup();
    Ok(all)
}

struct Checker<'a> {
    layout: &'a Layout,
    documents: Documents<'a>,
    endpoint: &'a Endpoint,
    catalog: &'a Catalog,
    deep: bool,
}

impl Checker<'_> {
    async fn entry(&self, text: &str, entry: &Descriptor) -> Filled {
        let mut filled = Filled { entries: 1, ..Filled::default() };
        let lacks = |what: String| Missing { name: text.to_owned(), what, known: true };
        let name = match Name::of(text, entry) {
            Ok(name) => name,
            Err(why) => {
                filled.missing.push(lacks(why));
                return filled;
            }
        };
        let repository = name.repository();
        let tree = Tree::of(&self.documents, entry);
        let of_bundle = tree.flaws.iter().map(|flaw| lacks(format!("the bundle itself: {flaw}")));
        filled.missing.extend(of_bundle);
        for (descriptor, document) in &tree.documents {
            let what = format!("the manifest {}{}", descriptor.digest, walk::platform(descriptor));
            let found = match name {
                Name::Tag { tag, .. } if descriptor.digest == entry.digest => {
                    self.endpoint.manifest_of_tag(repository, tag).await
                }
                _ => self.endpoint.manifest_of_digest(repository, &descriptor.digest).await,
            };
            match found {
                Ok(found) if descriptor.digest.is_of(&found.bytes) => filled.found += 1,
                Ok(found) => filled
                    .missing
                    .push(lacks(format!("the tag is of {}, not of {}", found.digest, entry.digest))),
                Err(error) => missing(&mut filled, text, &what, &error),
            }
            for blob in document.blobs().filter(|blob| self.layout.has(&blob.digest)) {
                self.blob(text, repository, blob, document, &mut filled).await;
            }
            self.referrers(text, repository, &descriptor.digest, &mut filled).await;
        }
        filled
    }

    async fn blob(
        &self,
        name: &str,
        repository: &str,
        blob: &Descriptor,
        document: &Document,
        filled: &mut Filled,
    ) {
        // What signatures and attestations consist of is small, and all of it counts.
        let small = judge::is_artifact(document) && blob.size <= MAX_SMALL;
        let what = format!("the {} {}", if small { "signature content" } else { "layer" }, blob.digest);
        let found = if small || self.deep {
            self.read(repository, blob).await.map(Some)
        } else {
            self.endpoint.has_blob(repository, &blob.digest).await
        };
        match found {
            Ok(Some(length)) if length == blob.size => filled.found += 1,
            Ok(Some(length)) => {
                let what = format!("{what} has {length} bytes, not {}", blob.size);
                filled.missing.push(Missing { name: name.to_owned(), what, known: true });
            }
            Ok(None) => missing(filled, name, &what, &Error::Absent),
            Err(error) => missing(filled, name, &what, &error),
        }
    }

    /// All of a blob, hashed as it comes.
    async fn read(&self, repository: &str, blob: &Descriptor) -> Result<u64, Error> {
        let mut pieces = self.endpoint.blob_in_pieces(repository, &blob.digest).await?;
        let mut hasher = Hasher::new(blob.digest.algorithm());
        let mut length = 0_u64;
        while let Some(piece) = pieces.next().await? {
            length += piece.len() as u64;
            if length > blob.size {
                return Err(Error::Malformed(format!("more than the {} bytes it should have", blob.size)));
            }
            hasher.update(&piece);
        }
        let found = hasher.finish();
        if found == blob.digest {
            Ok(length)
        } else {
            Err(Error::Mismatch { wanted: blob.digest.clone(), found })
        }
    }

    /// A referrer that is there and that nobody finds is missing.
    async fn referrers(&self, name: &str, repository: &str, digest: &Digest, filled: &mut Filled) {
        let expected = self.catalog.referrers(repository, digest);
        if expected.is_empty() {
            return;
        }
        let listed = match self.endpoint.referrers(repository, digest).await {
            Ok(Referrers::Listed(list)) => Ok(list),
            Ok(Referrers::Unsupported) => self.endpoint.referrers_by_tag(repository, digest).await,
            Err(error) => Err(error),
        };
        match listed {
            Err(error) => missing(filled, name, &format!("the list of what refers to {digest}"), &error),
            Ok(listed) => {
                for entry in expected {
                    if listed.iter().any(|(digest, _)| *digest == entry.digest) {
                        filled.found += 1;
                    } else {
                        let what =
                            format!("the signature or artifact {} is not listed for {digest}", entry.digest);
                        filled.missing.push(Missing { name: name.to_owned(), what, known: true });
                    }
                }
            }
        }
    }
}

fn missing(filled: &mut Filled, name: &str, what: &str, error: &Error) {
    let known = error.class() != Class::Unreachable;
    let what =
        if *error == Error::Absent { format!("{what} is missing") } else { format!("{what}: {error}") };
    filled.missing.push(Missing { name: name.to_owned(), what, known });
}
