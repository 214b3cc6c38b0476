//! What is kept of one digest, as it is written: the `spec` of an `ImageEvidence`.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign_reference::{Digest, Reference};
use countersign_signature::Material;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};

use crate::{Index, Mac, Origin, TagRecord, record_name};

/// Signatures of one digest that are kept.
const MOST_SIGNATURES: usize = 64;
/// Tag records of one digest that are kept: the latest.
pub(crate) const MOST_TAGS: usize = 64;
/// How much younger than a new record another one may be and still stay in its place.
pub const AHEAD: SignedDuration = SignedDuration::from_mins(5);
/// Bytes of an object, far below what etcd takes.
const MOST_BYTES: usize = 512 << 10;

/// What is known of one digest.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Entry {
    /// Its signatures, which nobody has judged.
    pub signatures: Vec<Material>,
    /// The index itself, where the digest is of one: by its bytes it is known which digests it lists.
    pub index: Option<Arc<Index>>,
    /// The names and tags that stood for it.
    pub tags: Vec<(Reference, TagRecord, Mac)>,
}

impl Entry {
    /// What an object says, and what is wrong with it: what cannot be read is passed over, and what
    /// speaks of another digest is dropped.
    pub fn read(spec: &Value, digest: &Digest) -> (Self, Vec<String>) {
        let mut findings = Vec::new();
        let mut signatures = Vec::new();
        for (number, entry) in list(spec, "signatures").take(MOST_SIGNATURES).enumerate() {
            let Some(material) = material(entry) else { continue };
            match material.speaks_of(digest) {
                Ok(()) => signatures.push(material),
                Err(why) => findings.push(format!("signature {}: {why}", number + 1)),
            }
        }
        let mut index = None;
        if let Some(text) = spec["index"].as_str() {
            let read = STANDARD.decode(text).ok().and_then(|bytes| Index::read(bytes.into()));
            match read.filter(|index| index.digest == *digest) {
                Some(read) => index = Some(Arc::new(read)),
                None => findings.push("the index is not the one with this digest".to_owned()),
            }
        }
        let tags = list(spec, "tags").take(MOST_TAGS).filter_map(|tag| record(tag, digest)).collect();
        (Self { signatures, index, tags }, findings)
    }

    /// What an object for it says.
    pub fn write(&self, digest: &Digest) -> Value {
        let mut spec = json!({ "digest": digest.to_string(), "signatures": [], "tags": [] });
        self.add_to(&mut spec, digest);
        spec
    }

    /// Adds a signature that is not there yet, where there is room for it.
    pub(crate) fn add(&mut self, new: &Material) {
        let bytes: usize = self.signatures.iter().map(size).sum();
        let room = self.signatures.len() < MOST_SIGNATURES && bytes + size(new) <= MOST_BYTES;
        if room && !self.signatures.contains(new) {
            self.signatures.push(new.clone());
        }
    }

    /// Adds it to what an object says, whose other entries stay as they are; whether that changed
    /// anything.
    pub fn add_to(&self, spec: &mut Value, digest: &Digest) -> bool {
        let mut changed = false;
        let mut bytes = spec.to_string().len();
        let entries = |spec: &mut Value, key: &str| -> Vec<Value> {
            spec[key].as_array_mut().map(std::mem::take).unwrap_or_default()
        };
        let mut signatures = entries(spec, "signatures");
        for new in &self.signatures {
            let entry = written(new);
            let with_it = bytes + entry.to_string().len();
            let known = signatures.iter().any(|known| material(known).as_ref() == Some(new));
            if !known && signatures.len() < MOST_SIGNATURES && with_it <= MOST_BYTES {
                (bytes, changed) = (with_it, true);
                signatures.push(entry);
            }
        }
        let mut tags = entries(spec, "tags");
        for (image, new, mac) in self.tags.iter().rev() {
            let same = |known: &Value| {
                record(known, digest).filter(|(of, known, _)| {
                    record_name(of) == record_name(image) && known.origin == new.origin
                })
            };
            // One that is younger and has come to be known stays; one from a time to come does not.
            let fresher = |known: &TagRecord| {
                let ahead = known.confirmed.duration_since(new.confirmed);
                !ahead.is_negative() && ahead < AHEAD
            };
            if tags.iter().filter_map(same).any(|(_, known, _)| fresher(&known)) {
                continue;
            }
            tags.retain(|known| same(known).is_none());
            // The latest first: that is the one that is shown.
            tags.insert(
                0,
                json!({
                    "image": record_name(image),
                    "confirmed": new.confirmed.to_string(),
                    "origin": new.origin.word(),
                    "mac": mac.0,
                }),
            );
            while tags.len() > MOST_TAGS {
                // What a registry has said can be asked again.
                let of_registry = |tag: &Value| tag["origin"] == Origin::Registry.word();
                // The one that was put in is the last to go.
                let last = tags[1..].iter().rposition(of_registry).map_or(tags.len() - 1, |at| at + 1);
                tags.remove(last);
            }
            changed = true;
        }
        if let Some(index) = &self.index {
            let text = STANDARD.encode(&index.bytes);
            if spec["index"].as_str() != Some(&text) && bytes + text.len() <= MOST_BYTES {
                spec["index"] = json!(text);
                changed = true;
            }
        }
        spec["signatures"] = Value::Array(signatures);
        spec["tags"] = Value::Array(tags);
        changed
    }
}

fn list<'a>(spec: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    spec[key].as_array().into_iter().flatten()
}

/// Bytes of a signature.
fn size(material: &Material) -> usize {
    match material {
        Material::Bundle { json } => json.len(),
        Material::CosignSig { payload, annotations } => {
            payload.len() + annotations.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>()
        }
    }
}

/// A signature as it is written.
fn written(material: &Material) -> Value {
    match material {
        Material::Bundle { json } => json!({ "bundle": STANDARD.encode(json) }),
        Material::CosignSig { payload, annotations } => {
            json!({ "payload": STANDARD.encode(payload), "annotations": annotations })
        }
    }
}

fn material(entry: &Value) -> Option<Material> {
    let bytes = |key: &str| STANDARD.decode(entry[key].as_str()?).ok();
    if let Some(json) = bytes("bundle") {
        return Some(Material::Bundle { json });
    }
    let empty = Map::new();
    let annotations = entry["annotations"].as_object().unwrap_or(&empty);
    let text = |(key, value): (&String, &Value)| Some((key.clone(), value.as_str()?.to_owned()));
    Some(Material::CosignSig {
        payload: bytes("payload")?,
        annotations: annotations.iter().filter_map(text).collect(),
    })
}

fn record(entry: &Value, digest: &Digest) -> Option<(Reference, TagRecord, Mac)> {
    let text = |key: &str| entry[key].as_str();
    let record = TagRecord {
        digest: digest.clone(),
        confirmed: text("confirmed")?.parse::<Timestamp>().ok()?,
        origin: Origin::of(text("origin")?)?,
    };
    Some((Reference::parse(text("image")?).ok()?, record, Mac(text("mac")?.to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RecordKey;
    use countersign_signature::sign::{Scheme, Signer};
    use std::collections::BTreeMap;

    #[test]
    fn an_object_keeps_what_it_has_and_says_what_was_put_in() {
        let digest = Digest::sha256_of(b"an image");
        let key = RecordKey::parse(&RecordKey::generate().unwrap()).unwrap();
        let image = Reference::parse("registry.local/quay.io/acme/db:1").unwrap();
        let record = |second: i64, origin| TagRecord {
            digest: digest.clone(),
            confirmed: Timestamp::from_second(second).unwrap(),
            origin,
        };
        let (signer, none) = (Signer::generate(Scheme::EcdsaP256).unwrap(), BTreeMap::new());
        let signatures = vec![
            signer.bundle(&digest, &none).unwrap(),
            signer.cosign_sig(&digest, "quay.io/acme/db", &none).unwrap(),
        ];
        let with = |record: TagRecord| Entry {
            signatures: signatures.clone(),
            index: None,
            tags: vec![(image.clone(), record.clone(), key.mac(&image, &record))],
        };
        let mut spec = json!({ "signatures": [{ "of": "the future" }], "more": 1 });
        let first = with(record(10, Origin::Registry));
        assert!(first.add_to(&mut spec, &digest));
        assert_eq!(Entry::read(&spec, &digest), (first.clone(), vec![]));
        assert_eq!((&spec["signatures"][0]["of"], &spec["more"]), (&json!("the future"), &json!(1)));
        // The same and what is older changes nothing; a later one takes its place.
        assert!(!first.add_to(&mut spec, &digest));
        assert!(!with(record(9, Origin::Registry)).add_to(&mut spec, &digest));
        assert!(with(record(11, Origin::Registry)).add_to(&mut spec, &digest));
        assert!(with(record(5, Origin::Bundle)).add_to(&mut spec, &digest));
        let confirmed: Vec<i64> = Entry::read(&spec, &digest)
            .0
            .tags
            .iter()
            .map(|(_, record, _)| record.confirmed.as_second())
            .collect();
        assert_eq!(confirmed, [5, 11]);
    }

    #[test]
    fn an_object_does_not_grow_without_end() {
        let digest = Digest::sha256_of(b"an image");
        let signature = |number: usize| Material::Bundle { json: vec![b'x'; 1 + number * 1000] };
        let mut spec = json!({});
        for number in 0..2 * MOST_SIGNATURES {
            Entry { signatures: vec![signature(number)], ..Entry::default() }.add_to(&mut spec, &digest);
        }
        assert!(spec.to_string().len() <= MOST_BYTES);
        assert!(spec["signatures"].as_array().unwrap().len() < MOST_SIGNATURES);
        let mut spec = json!({});
        for _ in 0..3 {
            let signatures = (0..2 * MOST_SIGNATURES).map(signature).map(|_| signature(0)).collect();
            Entry { signatures, ..Entry::default() }.add_to(&mut spec, &digest);
        }
        assert_eq!(spec["signatures"].as_array().unwrap().len(), 1);
        // Nor does what is held in memory.
        let mut entry = Entry::default();
        for number in 0..2 * MOST_SIGNATURES {
            entry.add(&signature(number));
        }
        assert!(entry.signatures.iter().map(size).sum::<usize>() <= MOST_BYTES);
        let mut entry = Entry::default();
        for number in 0..2 * MOST_SIGNATURES {
            entry.add(&Material::Bundle { json: number.to_be_bytes().to_vec() });
        }
        assert_eq!(entry.signatures.len(), MOST_SIGNATURES);
    }

    #[test]
    fn what_speaks_of_another_digest_is_dropped_and_told() {
        let (digest, other) = (Digest::sha256_of(b"an image"), Digest::sha256_of(b"another"));
        let signer = Signer::generate(Scheme::EcdsaP256).unwrap();
        let of = |digest: &Digest| signer.bundle(digest, &BTreeMap::new()).unwrap();
        let mut spec = Entry { signatures: vec![of(&digest), of(&other)], ..Entry::default() }.write(&digest);
        spec["index"] = json!(STANDARD.encode(b"{}"));
        let (entry, findings) = Entry::read(&spec, &digest);
        assert_eq!((entry.signatures.len(), entry.index), (1, None));
        assert_eq!(findings.len(), 2, "{findings:?}");
        assert!(findings[0].starts_with("signature 2: "), "{findings:?}");
    }
}
