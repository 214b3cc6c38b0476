//! What a layout offers, by repository: made anew when its index has changed.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use countersign_manifest::Document;
use countersign_reference::Digest;

use crate::{Descriptor, Index, Layout};

/// Names in the index of a layout are `repository:tag`, or `repository@digest` for what has no tag.
#[derive(Debug, Default)]
pub struct Catalog {
    by_tag: HashMap<String, Descriptor>,
    by_digest: HashMap<Digest, Descriptor>,
    tags: BTreeMap<String, BTreeSet<String>>,
    /// By repository and subject.
    referrers: HashMap<(String, Digest), Vec<Descriptor>>,
}

impl Catalog {
    /// Reads every document that may refer to another; one that cannot be read is passed over
    /// here, and is an error to whoever asks for it.
    pub fn of(layout: &Layout, index: &Index) -> Self {
        let mut catalog = Self::default();
        for (name, entry) in index.named() {
            let Some(at) = name.find('@').or_else(|| name.rfind(':')) else { continue };
            let (repository, rest) = (&name[..at], &name[at + 1..]);
            let tags = catalog.tags.entry(repository.to_owned()).or_default();
            if name[at..].starts_with(':') {
                tags.insert(rest.to_owned());
                catalog.by_tag.insert(name.to_owned(), entry.clone());
            }
            catalog.by_digest.insert(entry.digest.clone(), entry.clone());
            let content = layout.get(&entry.digest);
            let document = content.ok().and_then(|bytes| Document::parse(&bytes, &entry.media_type).ok());
            if let Some((document, subject)) =
                document.and_then(|document| Some((document.clone(), document.subject?.digest)))
            {
                let listed = Descriptor {
                    artifact_type: document.artifact_type,
                    annotations: document.annotations,
                    ..Descriptor::new(&entry.media_type, entry.digest.clone(), entry.size)
                };
                let all = catalog.referrers.entry((repository.to_owned(), subject)).or_default();
                if !all.contains(&listed) {
                    all.push(listed);
                }
            }
        }
        catalog
    }

    /// What a tag names.
    pub fn tagged(&self, repository: &str, tag: &str) -> Option<&Descriptor> {
        self.by_tag.get(&format!("{repository}:{tag}"))
    }

    /// The entry with this digest, in whichever repository.
    pub fn with_digest(&self, digest: &Digest) -> Option<&Descriptor> {
        self.by_digest.get(digest)
    }

    /// What refers to a digest in a repository.
    pub fn referrers(&self, repository: &str, subject: &Digest) -> &[Descriptor] {
        self.referrers.get(&(repository.to_owned(), subject.clone())).map_or(&[], Vec::as_slice)
    }

    /// The tags of a repository; `None` if there is no such repository.
    pub fn tags(&self, repository: &str) -> Option<&BTreeSet<String>> {
        self.tags.get(repository)
    }

    /// Every repository, in order.
    pub fn repositories(&self) -> impl Iterator<Item = &str> {
        self.tags.keys().map(String::as_str)
    }
}
