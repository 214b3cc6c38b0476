//! What is known of many digests, in memory: the part that all stores have in common.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use countersign_reference::{Digest, Reference};
use countersign_signature::Material;
use jiff::Timestamp;

use crate::entry::MOST_TAGS;
use crate::{Entry, Index, Mac, Origin, RecordKey, TagRecord, record_name};

/// Entries by digest, found by the names that stood for them and by what their indexes list.
#[derive(Clone, Debug)]
pub struct Known {
    entries: HashMap<Digest, Held>,
    /// Which digests have records of a name and tag that count.
    names: BTreeMap<String, BTreeSet<Digest>>,
    /// Which indexes list a digest.
    listed: BTreeMap<Digest, BTreeSet<Digest>>,
    /// The moments at which records that count were confirmed, and how many at each.
    confirmed: BTreeMap<Timestamp, usize>,
    most: usize,
    moment: u64,
}

#[derive(Clone, Debug)]
struct Held {
    entry: Entry,
    /// The records of it that count, by their names.
    records: Vec<(String, TagRecord)>,
    findings: Vec<String>,
    /// When it was last asked for.
    used: u64,
}

impl Known {
    /// Nothing yet, and never more than so many digests: who was asked for longest ago goes.
    pub fn new(most: usize) -> Self {
        Self {
            entries: HashMap::new(),
            names: BTreeMap::new(),
            listed: BTreeMap::new(),
            confirmed: BTreeMap::new(),
            most,
            moment: 0,
        }
    }

    /// How many digests there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The digests, in no order.
    pub fn digests(&self) -> impl Iterator<Item = &Digest> {
        self.entries.keys()
    }

    /// What is known of a digest.
    pub fn entry(&self, digest: &Digest) -> Option<&Entry> {
        self.entries.get(digest).map(|held| &held.entry)
    }

    /// What is wrong with what was put in, a line for each thing.
    pub fn findings(&self) -> Vec<String> {
        let of = |(digest, held): (&Digest, &Held)| -> Vec<String> {
            held.findings.iter().map(|finding| format!("{digest}: {finding}")).collect()
        };
        let mut findings: Vec<String> = self.entries.iter().flat_map(of).collect();
        findings.sort();
        findings
    }

    /// What is wrong with what was put in for this digest.
    pub fn findings_of(&self, digest: &Digest) -> &[String] {
        self.entries.get(digest).map_or(&[], |held| held.findings.as_slice())
    }

    /// The latest moment at which a record was confirmed.
    pub fn newest(&self) -> Option<Timestamp> {
        self.confirmed.last_key_value().map(|(moment, _)| *moment)
    }

    /// Takes an entry for a digest in place of the one before; of its records those count that the
    /// key has made, or all where there is none. Answers with the digests that had to go for it.
    pub fn put(
        &mut self,
        digest: &Digest,
        entry: Entry,
        mut findings: Vec<String>,
        key: Option<&RecordKey>,
    ) -> Vec<Digest> {
        let used = self.remove(digest).map_or_else(|| self.next(), |held| held.used);
        let mut records = Vec::new();
        for (image, record, mac) in &entry.tags {
            let name = record_name(image);
            if key.is_none_or(|key| key.holds(image, record, mac)) {
                self.names.entry(name.clone()).or_default().insert(digest.clone());
                *self.confirmed.entry(record.confirmed).or_default() += 1;
                records.push((name, record.clone()));
            } else {
                findings.push(format!("the record of {name} was not made with the key in force"));
            }
        }
        for listed in entry.index.iter().flat_map(|index| &index.lists) {
            self.listed.entry(listed.clone()).or_default().insert(digest.clone());
        }
        self.entries.insert(digest.clone(), Held { entry, records, findings, used });
        let mut gone = Vec::new();
        while self.entries.len() > self.most {
            let oldest = self.entries.iter().filter(|(other, _)| *other != digest);
            let Some(oldest) = oldest.min_by_key(|(_, held)| held.used).map(|(oldest, _)| oldest.clone())
            else {
                break;
            };
            self.remove(&oldest);
            gone.push(oldest);
        }
        gone
    }

    /// Forgets a digest.
    pub fn forget(&mut self, digest: &Digest) {
        self.remove(digest);
    }

    fn remove(&mut self, digest: &Digest) -> Option<Held> {
        let held = self.entries.remove(digest)?;
        for (name, record) in &held.records {
            without(&mut self.names, name, digest);
            let left = self.confirmed.get_mut(&record.confirmed).map(|count| {
                *count -= 1;
                *count
            });
            if left == Some(0) {
                self.confirmed.remove(&record.confirmed);
            }
        }
        for listed in held.entry.index.iter().flat_map(|index| &index.lists) {
            without(&mut self.listed, listed, digest);
        }
        Some(held)
    }

    /// Judges all records by another key.
    pub fn rekey(&mut self, key: &RecordKey) {
        let digests: Vec<Digest> = self.entries.keys().cloned().collect();
        for digest in digests {
            let Some(Held { entry, mut findings, .. }) = self.remove(&digest) else { continue };
            findings.retain(|finding| !finding.starts_with("the record of "));
            self.put(&digest, entry, findings, Some(key));
        }
    }

    /// The signatures of a digest.
    pub fn signatures(&mut self, digest: &Digest) -> &[Material] {
        let now = self.next();
        self.entries.get_mut(digest).map_or(&[], |held| {
            held.used = now;
            held.entry.signatures.as_slice()
        })
    }

    /// The index with this digest.
    pub fn index(&self, digest: &Digest) -> Option<Arc<Index>> {
        self.entries.get(digest)?.entry.index.clone()
    }

    /// The indexes that list a digest.
    pub fn indexes_of(&self, listed: &Digest) -> Vec<Digest> {
        self.listed.get(listed).into_iter().flatten().cloned().collect()
    }

    /// The records of a name and tag that count.
    pub fn records(&self, image: &Reference) -> Vec<TagRecord> {
        let name = record_name(image);
        let of_digest = |digest| self.entries.get(digest).into_iter().flat_map(|held| &held.records);
        let records = self.names.get(&name).into_iter().flatten().flat_map(of_digest);
        records.filter(|(of, _)| *of == name).map(|(_, record)| record.clone()).collect()
    }

    /// The names and tags that stood for a digest, by records that count.
    pub fn names_of(&self, digest: &Digest) -> Vec<String> {
        let records = self.entries.get(digest).into_iter().flat_map(|held| &held.records);
        let mut names: Vec<String> = records.map(|(name, _)| name.clone()).collect();
        names.sort();
        names.dedup();
        names
    }

    /// Adds signatures and an index to what is known of a digest; `None` if all of it was.
    pub fn add(
        &mut self,
        digest: &Digest,
        signatures: &[Material],
        index: Option<&Arc<Index>>,
        key: Option<&RecordKey>,
    ) -> Option<Vec<Digest>> {
        let mut entry = self.entry(digest).cloned().unwrap_or_default();
        let before = (entry.signatures.len(), entry.index.is_some(), self.entries.contains_key(digest));
        for material in signatures {
            entry.add(material);
        }
        entry.index = entry.index.or_else(|| index.cloned());
        if before == (entry.signatures.len(), entry.index.is_some(), true) {
            return None;
        }
        Some(self.put(digest, entry, Vec::new(), key))
    }

    /// Notes a record in place of the one of the same name and origin.
    pub fn record(&mut self, image: &Reference, record: TagRecord, key: Option<&RecordKey>) -> Vec<Digest> {
        let digest = record.digest.clone();
        let mut entry = self.entry(&digest).cloned().unwrap_or_default();
        let name = record_name(image);
        entry.tags.retain(|(of, known, _)| known.origin != record.origin || record_name(of) != name);
        let mac = key.map_or_else(|| Mac(String::new()), |key| key.mac(image, &record));
        // The latest first: that one stays, and what a registry has said can be asked again.
        entry.tags.insert(0, (image.clone(), record, mac));
        while entry.tags.len() > MOST_TAGS {
            let of_registry = |(_, known, _): &(_, TagRecord, _)| known.origin == Origin::Registry;
            let last = entry.tags[1..].iter().rposition(of_registry);
            entry.tags.remove(last.map_or(entry.tags.len() - 1, |at| at + 1));
        }
        self.put(&digest, entry, Vec::new(), key)
    }

    fn next(&mut self) -> u64 {
        self.moment += 1;
        self.moment
    }
}

fn without<K: Ord + Clone>(map: &mut BTreeMap<K, BTreeSet<Digest>>, key: &K, digest: &Digest) {
    let empty = map.get_mut(key).is_some_and(|digests| {
        digests.remove(digest);
        digests.is_empty()
    });
    if empty {
        map.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(digest: &Digest, second: i64) -> TagRecord {
        let confirmed = Timestamp::from_second(second).unwrap();
        TagRecord { digest: digest.clone(), confirmed, origin: Origin::Registry }
    }

    #[test]
    fn a_record_counts_by_the_key_in_force() {
        let key = || RecordKey::parse(&RecordKey::generate().unwrap()).unwrap();
        let (own, other, digest) = (key(), key(), Digest::sha256_of(b"an image"));
        let image = Reference::parse("registry.local/quay.io/acme/db:1").unwrap();
        let mut known = Known::new(10);
        known.record(&image, record(&digest, 7), Some(&own));
        assert_eq!(known.records(&image), [record(&digest, 7)]);
        known.rekey(&other);
        assert!(known.records(&image).is_empty());
        assert_eq!(known.findings().len(), 1, "{:?}", known.findings());
        known.rekey(&own);
        assert_eq!((known.records(&image).len(), known.findings().len()), (1, 0));
        assert_eq!(known.newest(), Timestamp::from_second(7).ok());
        known.forget(&digest);
        assert!(known.records(&image).is_empty() && known.names.is_empty() && known.is_empty());
        assert_eq!(known.newest(), None, "what was forgotten holds no clock to anything");
    }

    #[test]
    fn a_digest_has_so_many_names_and_the_latest_stays() {
        let digest = Digest::sha256_of(b"an image");
        let image = |number: i64| Reference::parse(&format!("a.b/c:{number}")).unwrap();
        let mut known = Known::new(3);
        for number in 0..=i64::try_from(MOST_TAGS).unwrap() {
            known.record(&image(number), record(&digest, number), None);
        }
        assert_eq!(known.names_of(&digest).len(), MOST_TAGS);
        assert!(known.records(&image(0)).is_empty() && known.records(&image(64)).len() == 1);
        let (read, _) = Entry::read(&known.entry(&digest).unwrap().write(&digest), &digest);
        assert_eq!(read.tags.first().map(|(image, ..)| image.clone()), Some(image(64)));
    }

    #[test]
    fn who_was_asked_for_longest_ago_goes() {
        let digest = |number: u8| Digest::sha256_of(&[number]);
        let image = |number: u8| Reference::parse(&format!("a.b/c:{number}")).unwrap();
        let mut known = Known::new(3);
        for number in 0..3 {
            assert!(known.record(&image(number), record(&digest(number), 1), None).is_empty());
        }
        known.signatures(&digest(0));
        assert_eq!(known.record(&image(3), record(&digest(3), 1), None), [digest(1)]);
        assert_eq!((known.records(&image(0)).len(), known.records(&image(1)).len(), known.len()), (1, 0, 3));
    }
}
