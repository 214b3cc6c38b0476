//! An index as it is kept: the signature of an index is one of everything that it lists.

use bytes::Bytes;
use countersign_manifest::{DOCKER_LIST, Document, INDEX};
use countersign_reference::Digest;

/// Bytes of an index that is kept; larger ones are asked for again.
const MOST_KEPT: usize = 64 << 10;

/// An index: its bytes, their digest, and the digests that it lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    /// Computed over the bytes.
    pub digest: Digest,
    /// As a registry sent them; none of an index that is too large to be kept.
    pub bytes: Bytes,
    /// The digests of the manifests in it.
    pub lists: Vec<Digest>,
}

impl Index {
    /// Reads an index; `None` for everything else.
    pub fn read(bytes: Bytes) -> Option<Self> {
        let as_type = |media_type: &&str| Document::parse(&bytes, media_type).ok();
        let document = [INDEX, DOCKER_LIST].iter().find_map(as_type)?;
        Self::of(&document, Digest::sha256_of(&bytes), bytes)
    }

    /// Whether it is small enough to be kept.
    pub fn is_small(&self) -> bool {
        !self.bytes.is_empty()
    }

    /// The index of a document that was read already.
    pub fn of(document: &Document, digest: Digest, bytes: Bytes) -> Option<Self> {
        let lists: Vec<Digest> = document.children().iter().map(|child| child.digest.clone()).collect();
        let bytes = if bytes.len() <= MOST_KEPT { bytes } else { Bytes::new() };
        (!lists.is_empty()).then_some(Self { digest, bytes, lists })
    }
}
