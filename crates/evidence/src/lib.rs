//! Proofs and tag records that outlive restarts and outages.
//!
//! What is kept is not "we said yes" but the signatures themselves, per digest: they are
//! judged again by the keys in force whenever they are read, so nothing has to trust a store.
//! Absence of a signature elsewhere never deletes one here.
//!
//! An [`Index`] is kept with its signatures: they stand for everything that it lists.
//!
//! A [`TagRecord`] says which digest a name and tag stood for when a registry last confirmed
//! it. It proves nothing by itself, and is used only while no registry answers; where others can
//! write to the store, it counts only with the MAC of a [`RecordKey`].

mod directory;
mod entry;
mod index;
mod known;
mod record;

pub use directory::{DOCUMENT, Directory, DirectoryError, KEY_FILE, MOST_KEPT};
pub use entry::{AHEAD, Entry};
pub use index::Index;
pub use known::Known;
pub use record::{Mac, RecordKey};

use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use countersign_reference::{Digest, Reference};
use countersign_signature::{Material, Signatures, Verified};
use jiff::{SignedDuration, Timestamp};

/// Which digest a name and tag stood for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagRecord {
    /// The digest that was verified.
    pub digest: Digest,
    /// When that was last confirmed.
    pub confirmed: Timestamp,
    /// By whom.
    pub origin: Origin,
}

/// Who has confirmed a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// A registry that had the tag.
    Registry,
    /// A bundle whose index is signed by a key for bundles: it does not age.
    Bundle,
}

impl Origin {
    /// The word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Registry => "registry",
            Self::Bundle => "bundle",
        }
    }

    /// By its word.
    pub fn of(word: &str) -> Option<Self> {
        [Self::Registry, Self::Bundle].into_iter().find(|origin| origin.word() == word)
    }
}

impl TagRecord {
    /// Which of several counts: the latest says what the tag is of, and what a bundle says of the
    /// same digest takes its age away. One from the future counts only where there is no other: some
    /// clock was wrong then, or is wrong now.
    pub fn latest(records: impl IntoIterator<Item = Self>, now: Timestamp) -> Option<Self> {
        let records: Vec<Self> = records.into_iter().collect();
        let soon = now.checked_add(CLOCKS_APART).unwrap_or(now);
        let latest =
            records.iter().max_by_key(|record| (record.confirmed <= soon, record.confirmed))?.clone();
        let bundle = |record: &&Self| record.origin == Origin::Bundle && record.digest == latest.digest;
        let origin = records.iter().find(bundle).map_or(latest.origin, |record| record.origin);
        Some(Self { origin, ..latest })
    }
}

/// How far the clocks of two replicas may be apart.
const CLOCKS_APART: SignedDuration = SignedDuration::from_mins(5);

/// A store of proofs and tag records.
pub trait Store: Debug + Send + Sync {
    /// The signatures kept for a digest; to be judged, not believed.
    fn signatures(&self, digest: &Digest) -> Vec<Material>;
    /// The index with this digest.
    fn index(&self, digest: &Digest) -> Option<Arc<Index>>;
    /// The digests of the indexes that list this one.
    fn indexes_of(&self, listed: &Digest) -> Vec<Digest>;
    /// Keeps what has just been verified, and the index that it is, where it is one.
    fn keep(&self, proof: &Verified<Signatures>, index: Option<&Arc<Index>>);
    /// The record of a name and tag that counts at this time.
    fn tag(&self, image: &Reference, now: Timestamp) -> Option<TagRecord>;
    /// Notes what a name and tag stand for. Only for digests that were verified.
    fn record_tag(&self, image: &Reference, record: TagRecord);
    /// The latest moment at which a record was confirmed: no clock should be behind it.
    fn newest(&self) -> Option<Timestamp>;
    /// What is there and was not put there: a line for each thing.
    fn findings(&self) -> Vec<String>;
}

/// How many digests [`Memory`] keeps.
pub const MEMORY_ENTRIES: usize = 10_000;

/// A store that lasts as long as the process.
#[derive(Debug)]
pub struct Memory(Mutex<Known>);

impl Default for Memory {
    fn default() -> Self {
        Self(Mutex::new(Known::new(MEMORY_ENTRIES)))
    }
}

impl Memory {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The name and tag that a record is kept under.
pub fn record_name(image: &Reference) -> String {
    format!("{}/{}:{}", image.host(), image.path(), image.tag().unwrap_or("latest"))
}

impl Store for Memory {
    fn signatures(&self, digest: &Digest) -> Vec<Material> {
        self.known().signatures(digest).to_vec()
    }

    fn index(&self, digest: &Digest) -> Option<Arc<Index>> {
        self.known().index(digest)
    }

    fn indexes_of(&self, listed: &Digest) -> Vec<Digest> {
        self.known().indexes_of(listed)
    }

    fn keep(&self, proof: &Verified<Signatures>, index: Option<&Arc<Index>>) {
        let proof = proof.get();
        self.known().add(&proof.digest, &proof.materials, index, None);
    }

    fn tag(&self, image: &Reference, now: Timestamp) -> Option<TagRecord> {
        TagRecord::latest(self.known().records(image), now)
    }

    fn record_tag(&self, image: &Reference, record: TagRecord) {
        self.known().record(image, record, None);
    }

    fn newest(&self) -> Option<Timestamp> {
        self.known().newest()
    }

    fn findings(&self) -> Vec<String> {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_record_counts_and_a_bundle_takes_its_age_away() {
        let digest = |text: &str| Digest::sha256_of(text.as_bytes());
        let record = |text: &str, second: i64, origin| TagRecord {
            digest: digest(text),
            confirmed: Timestamp::from_second(second).unwrap(),
            origin,
        };
        use Origin::{Bundle, Registry};
        let latest = |records: &[TagRecord], now| {
            TagRecord::latest(records.to_vec(), Timestamp::from_second(now).unwrap())
        };
        assert_eq!(latest(&[], 2), None);
        let moved = [record("a", 1, Bundle), record("b", 2, Registry)];
        assert_eq!(latest(&moved, 2), Some(record("b", 2, Registry)));
        let same = [record("a", 2, Registry), record("a", 1, Bundle)];
        assert_eq!(latest(&same, 2), Some(record("a", 2, Bundle)));
        // A clock that was ahead for a moment, and one that has not been set yet.
        let ahead = [record("a", 1_000_000, Registry), record("b", 2, Registry)];
        assert_eq!(latest(&ahead, 3), Some(record("b", 2, Registry)));
        assert_eq!(latest(&ahead, -1_000_000), Some(record("a", 1_000_000, Registry)));
    }
}
