//! A policy's attestors with their keys parsed.

use std::collections::{BTreeMap, BTreeSet};

use countersign_reference::Digest;
use countersign_verdict::{Attestor, AttestorSet, Attestors, Period};

use crate::{KeyError, PublicKey};

/// How deep sets may be nested.
const MAX_DEPTH: usize = 4;

/// Attestors that can be judged by: every key parsed, every threshold within reach.
#[derive(Debug)]
pub struct Trust {
    pub(crate) keys: Vec<TrustedKey>,
    pub(crate) sets: Vec<Set>,
}

/// A key and what its signatures have to say besides.
#[derive(Debug)]
pub(crate) struct TrustedKey {
    pub(crate) key: PublicKey,
    pub(crate) annotations: BTreeMap<String, String>,
    /// What the Site calls it.
    pub(crate) name: Option<String>,
    pub(crate) period: Period,
}

impl TrustedKey {
    /// How it is called in messages.
    pub(crate) fn shown(&self) -> String {
        match &self.name {
            Some(name) => format!("`{name}`"),
            None => self.key.fingerprint().to_string(),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Set {
    pub(crate) count: usize,
    pub(crate) entries: Vec<Entry>,
}

#[derive(Debug)]
pub(crate) enum Entry {
    /// Index into [`Trust::keys`].
    Key(usize),
    Set(Set),
}

impl Trust {
    /// Parses and checks attestors. There is no trust without a key.
    pub fn new(attestors: &Attestors) -> Result<Self, TrustError> {
        let mut trust = Self { keys: Vec::new(), sets: Vec::new() };
        for (index, set) in attestors.sets().iter().enumerate() {
            let set = trust.set(set, &format!("attestors[{index}]"), 0)?;
            trust.sets.push(set);
        }
        if trust.sets.is_empty() { Err(TrustError::NoKeys) } else { Ok(trust) }
    }

    /// How many different keys there are.
    pub fn key_count(&self) -> usize {
        self.keys.iter().map(|trusted| trusted.key.fingerprint()).collect::<BTreeSet<_>>().len()
    }

    /// Whether some key is not trusted at all times.
    pub fn is_timed(&self) -> bool {
        self.keys.iter().any(|trusted| trusted.period != Period::default())
    }

    fn set(&mut self, set: &AttestorSet, path: &str, depth: usize) -> Result<Set, TrustError> {
        if depth >= MAX_DEPTH {
            return Err(TrustError::Depth { path: path.to_owned(), limit: MAX_DEPTH });
        }
        let mut entries = Vec::new();
        for (index, entry) in set.entries.iter().enumerate() {
            let path = format!("{path}.entries[{index}]");
            match entry {
                Attestor::Keys(keys) => {
                    let parsed = PublicKey::all_from_pem(&keys.pem, keys.hash)
                        .map_err(|error| TrustError::Key { path: format!("{path}.keys"), error })?;
                    for key in parsed {
                        entries.push(Entry::Key(self.keys.len()));
                        self.keys.push(TrustedKey {
                            key,
                            annotations: keys.annotations.clone(),
                            name: keys.name.clone(),
                            period: keys.period,
                        });
                    }
                }
                Attestor::Set(inner) => entries.push(Entry::Set(self.set(inner, &path, depth + 1)?)),
            }
        }
        let reachable = self.distinct(&entries);
        if reachable == 0 {
            return Err(TrustError::NoKeys);
        }
        let count = set.count.unwrap_or(reachable);
        if count == 0 || count > reachable {
            return Err(TrustError::Count { path: path.to_owned(), count, reachable });
        }
        self.check_overlap(&entries, count, path)?;
        Ok(Set { count, entries })
    }

    /// One key must not satisfy two entries of a threshold by way of a nested set (T-17).
    fn check_overlap(&self, entries: &[Entry], count: usize, path: &str) -> Result<(), TrustError> {
        let nested = entries.iter().any(|entry| matches!(entry, Entry::Set(_)));
        if count < 2 || !nested {
            return Ok(());
        }
        let mut seen: BTreeSet<&Digest> = BTreeSet::new();
        for entry in entries {
            let mut own = BTreeSet::new();
            self.keys_of(entry, &mut own);
            if !seen.is_disjoint(&own) {
                return Err(TrustError::Overlap { path: path.to_owned() });
            }
            seen.extend(own);
        }
        Ok(())
    }

    fn keys_of<'a>(&'a self, entry: &Entry, found: &mut BTreeSet<&'a Digest>) {
        match entry {
            Entry::Key(index) => _ = found.insert(self.keys[*index].key.fingerprint()),
            Entry::Set(set) => set.entries.iter().for_each(|entry| self.keys_of(entry, found)),
        }
    }

    /// How many entries can be satisfied independently: one key under two names is one.
    fn distinct(&self, entries: &[Entry]) -> usize {
        let mut keys: BTreeSet<&Digest> = BTreeSet::new();
        let mut sets = 0;
        for entry in entries {
            match entry {
                Entry::Key(index) => _ = keys.insert(self.keys[*index].key.fingerprint()),
                Entry::Set(_) => sets += 1,
            }
        }
        keys.len() + sets
    }
}

/// Why attestors cannot be judged by.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TrustError {
    /// There is no attestor.
    #[error("there is no key to verify with")]
    NoKeys,
    /// A key is unusable.
    #[error("{path}: {error}")]
    Key {
        /// Which entry.
        path: String,
        /// What is wrong with it.
        error: KeyError,
    },
    /// A threshold of zero, or one that nothing can meet.
    #[error("{path}: count is {count}, and there are {reachable} different keys or sets")]
    Count {
        /// Which set.
        path: String,
        /// The threshold.
        count: usize,
        /// What could be met.
        reachable: usize,
    },
    /// One key in two entries of which several have to be satisfied.
    #[error("{path}: one key stands in two of the sets of which several have to be satisfied")]
    Overlap {
        /// Which set.
        path: String,
    },
    /// Sets within sets within sets.
    #[error("{path}: sets are nested more than {limit} deep")]
    Depth {
        /// Which set.
        path: String,
        /// How deep they may be.
        limit: usize,
    },
}
