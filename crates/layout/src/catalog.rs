//! What a layout offers, by repository: made anew when its index has changed.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use countersign_manifest::{Document, is_document, is_index};
use countersign_reference::Digest;

use crate::{Descriptor, Index, Layout};

/// Indexes within indexes.
const MAX_DEPTH: usize = 4;

/// Names in the index of a layout are `repository:tag`, or `repository@digest` for what has no tag.
#[derive(Debug, Default)]
pub struct Catalog {
    by_tag: HashMap<String, Descriptor>,
    /// Entries, and the children of indexes, which need not say themselves what they are.
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
        let mut read = HashMap::new();
        let mut named = HashSet::new();
        for (name, entry) in index.named() {
            let Some(at) = name.find('@').or_else(|| name.rfind(':')) else { continue };
            let (repository, rest) = (&name[..at], &name[at + 1..]);
            let tags = catalog.tags.entry(repository.to_owned()).or_default();
            if name[at..].starts_with(':') {
                tags.insert(rest.to_owned());
                catalog.by_tag.insert(name.to_owned(), entry.clone());
            }
            catalog.by_digest.insert(entry.digest.clone(), entry.clone());
            if !is_document(&entry.media_type) {
                continue;
            }
            // However many names it has, it is read once.
            let key = (entry.digest.clone(), entry.media_type.clone());
            let refers = read.entry(key).or_insert_with(|| catalog.read(layout, entry));
            if let Some((subject, listed)) = refers {
                let of = (repository.to_owned(), subject.clone());
                if named.insert((of.clone(), entry.digest.clone())) {
                    catalog.referrers.entry(of).or_default().push(listed.clone());
                }
            }
        }
        catalog
    }

    /// Notes the children of an entry; its subject, and how it is listed among what refers to that.
    fn read(&mut self, layout: &Layout, entry: &Descriptor) -> Option<(Digest, Descriptor)> {
        let document = Document::parse(&layout.get(&entry.digest).ok()?, &entry.media_type).ok()?;
        self.children(layout, &document, 0);
        let listed = Descriptor {
            artifact_type: document.artifact_type,
            annotations: document.annotations,
            ..Descriptor::new(&entry.media_type, entry.digest.clone(), entry.size)
        };
        Some((document.subject?.digest, listed))
    }

    fn children(&mut self, layout: &Layout, document: &Document, depth: usize) {
        for child in document.children().iter().filter(|child| is_document(&child.media_type)) {
            if self.by_digest.contains_key(&child.digest) {
                continue;
            }
            self.by_digest.insert(child.digest.clone(), child.clone());
            if is_index(&child.media_type) && depth < MAX_DEPTH {
                let content = layout.get(&child.digest).ok();
                let inner = content.and_then(|bytes| Document::parse(&bytes, &child.media_type).ok());
                if let Some(inner) = inner {
                    self.children(layout, &inner, depth + 1);
                }
            }
        }
    }

    /// What a tag names.
    pub fn tagged(&self, repository: &str, tag: &str) -> Option<&Descriptor> {
        self.by_tag.get(&format!("{repository}:{tag}"))
    }

    /// The document with this digest that the index or an index below it names, in whichever repository.
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
