//! Lists of which no more is kept than there may be.

use std::fmt;
use std::marker::PhantomData;

use countersign_manifest::MOST_LISTED;
use serde::de::{Deserialize, Deserializer, IgnoredAny, SeqAccess, Visitor};

/// A list as it is read: what is over [`MOST_LISTED`] is passed over, so that a long one costs no more
/// memory than its text.
#[derive(Debug)]
pub(crate) struct List<T> {
    kept: Vec<T>,
    cut: bool,
}

impl<T> List<T> {
    /// Whether there was more than is kept.
    pub(crate) fn is_cut(&self) -> bool {
        self.cut
    }

    /// What is kept.
    pub(crate) fn into_kept(self) -> Vec<T> {
        self.kept
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(Entries(PhantomData))
    }
}

struct Entries<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Entries<T> {
    type Value = List<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<List<T>, A::Error> {
        let mut kept = Vec::new();
        while kept.len() < MOST_LISTED {
            match list.next_element()? {
                Some(entry) => kept.push(entry),
                None => return Ok(List { kept, cut: false }),
            }
        }
        let mut cut = false;
        while list.next_element::<IgnoredAny>()?.is_some() {
            cut = true;
        }
        Ok(List { kept, cut })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_kept_than_there_may_be() {
        for (length, kept, cut) in
            [(0, 0, false), (MOST_LISTED, MOST_LISTED, false), (MOST_LISTED + 1, MOST_LISTED, true)]
        {
            let text = serde_json::to_string(&vec![1_u8; length]).unwrap();
            let list: List<u8> = serde_json::from_str(&text).unwrap();
            assert_eq!((list.is_cut(), list.into_kept().len()), (cut, kept), "{length}");
        }
        assert!(serde_json::from_str::<List<u8>>("{}").is_err());
    }
}
