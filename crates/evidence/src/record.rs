//! What makes a tag record believable where others can write to the store.

use std::fmt;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use countersign_reference::Reference;

use crate::{TagRecord, record_name};

/// Bytes of a key.
const LENGTH: usize = 32;

/// The secret that tag records of one cluster are authenticated with (HMAC-SHA-256).
#[derive(Clone)]
pub struct RecordKey {
    key: hmac::Key,
    bytes: Vec<u8>,
}

impl PartialEq for RecordKey {
    fn eq(&self, other: &Self) -> bool {
        verify_slices_are_equal(&self.bytes, &other.bytes).is_ok()
    }
}

/// The authenticity of a record, in hexadecimal; the empty one is of none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mac(pub String);

impl RecordKey {
    /// The text of a new key; `None` where the machine has no randomness to give.
    pub fn generate() -> Option<String> {
        let mut bytes = [0; LENGTH];
        SystemRandom::new().fill(&mut bytes).ok()?;
        Some(hex::encode(bytes))
    }

    /// A key by its text: at least 32 bytes in hexadecimal.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = hex::decode(text.trim()).ok().filter(|bytes| bytes.len() >= LENGTH)?;
        Some(Self { key: hmac::Key::new(hmac::HMAC_SHA256, &bytes), bytes })
    }

    /// The MAC of a record.
    pub fn mac(&self, image: &Reference, record: &TagRecord) -> Mac {
        Mac(hex::encode(hmac::sign(&self.key, &bytes(image, record))))
    }

    /// Whether a record is one that this key has made.
    pub fn holds(&self, image: &Reference, record: &TagRecord, mac: &Mac) -> bool {
        hex::decode(&mac.0).is_ok_and(|mac| hmac::verify(&self.key, &bytes(image, record), &mac).is_ok())
    }
}

impl fmt::Debug for RecordKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RecordKey")
    }
}

/// Everything that counts, each with its length: no two records have the same bytes.
fn bytes(image: &Reference, record: &TagRecord) -> Vec<u8> {
    let (digest, confirmed) = (record.digest.to_string(), record.confirmed.to_string());
    let mut bytes = b"countersign tag record v1".to_vec();
    for part in [&record_name(image), &digest, &confirmed, record.origin.word()] {
        bytes.extend((part.len() as u64).to_be_bytes());
        bytes.extend(part.as_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Origin;
    use countersign_reference::Digest;
    use jiff::Timestamp;

    #[test]
    fn a_record_counts_only_as_it_was_made() {
        let key = || RecordKey::parse(&RecordKey::generate().unwrap()).unwrap();
        let (own, other) = (key(), key());
        let image = |text: &str| Reference::parse(text).unwrap();
        let record = TagRecord {
            digest: Digest::sha256_of(b"a"),
            confirmed: Timestamp::UNIX_EPOCH,
            origin: Origin::Registry,
        };
        let db = image("registry.local/db:1");
        let mac = own.mac(&db, &record);
        assert!(own.holds(&db, &record, &mac));
        assert!(!other.holds(&db, &record, &mac), "another key");
        assert!(!own.holds(&image("registry.local/db:2"), &record, &mac), "another tag");
        for changed in [
            TagRecord { digest: Digest::sha256_of(b"b"), ..record.clone() },
            TagRecord { confirmed: Timestamp::MAX, ..record.clone() },
            TagRecord { origin: Origin::Bundle, ..record.clone() },
        ] {
            assert!(!own.holds(&db, &changed, &mac), "{changed:?}");
        }
        for text in ["", "00", "zz", &"0".repeat(62)] {
            assert!(RecordKey::parse(text).is_none(), "{text}");
        }
    }
}
