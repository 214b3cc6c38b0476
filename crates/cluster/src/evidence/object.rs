//! What one `ImageEvidence` says.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign_evidence::{Mac, Origin, TagRecord, record_name};
use countersign_reference::{Digest, Reference};
use countersign_signature::Material;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};

/// Signatures of one digest that are kept.
const MOST_SIGNATURES: usize = 64;
/// Tag records of one digest that are kept: the latest.
const MOST_TAGS: usize = 64;
/// How much younger than a new record another one may be and still stay in its place.
pub(super) const AHEAD: SignedDuration = SignedDuration::from_mins(5);
/// Bytes of an object, far below what etcd takes.
const MOST_BYTES: usize = 512 << 10;

/// What is known of one digest.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Kept {
    /// Its signatures, which nobody has judged.
    pub(super) signatures: Vec<Material>,
    /// The names and tags that stood for it.
    pub(super) tags: Vec<(Reference, TagRecord, Mac)>,
}

impl Kept {
    /// What an object says; what of it cannot be read is passed over.
    pub(super) fn read(spec: &Value, digest: &Digest) -> Self {
        let list = |key: &str| spec[key].as_array().into_iter().flatten();
        Self {
            signatures: list("signatures").take(MOST_SIGNATURES).filter_map(material).collect(),
            tags: list("tags").take(MOST_TAGS).filter_map(|tag| record(tag, digest)).collect(),
        }
    }

    /// Adds it to what an object says, whose other entries stay as they are; whether that changed
    /// anything.
    pub(super) fn add_to(&self, spec: &mut Value, digest: &Digest) -> bool {
        let mut changed = false;
        let mut bytes = spec.to_string().len();
        let entries = |spec: &mut Value, key: &str| -> Vec<Value> {
            spec[key].as_array_mut().map(std::mem::take).unwrap_or_default()
        };
        let mut signatures = entries(spec, "signatures");
        for new in &self.signatures {
            let entry = written(new);
            bytes += entry.to_string().len();
            let known = signatures.iter().any(|known| material(known).as_ref() == Some(new));
            if !known && signatures.len() < MOST_SIGNATURES && bytes <= MOST_BYTES {
                signatures.push(entry);
                changed = true;
            }
        }
        let mut tags = entries(spec, "tags");
        for (image, new, mac) in &self.tags {
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
        spec["signatures"] = Value::Array(signatures);
        spec["tags"] = Value::Array(tags);
        changed
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
    use countersign_evidence::RecordKey;

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
        let with = |record: TagRecord| Kept {
            signatures: vec![
                Material::Bundle { json: b"{}".to_vec() },
                Material::CosignSig {
                    payload: b"p".to_vec(),
                    annotations: [("a".to_owned(), "b".to_owned())].into(),
                },
            ],
            tags: vec![(image.clone(), record.clone(), key.mac(&image, &record))],
        };
        let mut spec = json!({ "signatures": [{ "of": "the future" }], "more": 1 });
        let first = with(record(10, Origin::Registry));
        assert!(first.add_to(&mut spec, &digest));
        assert_eq!(Kept::read(&spec, &digest), first);
        assert_eq!((&spec["signatures"][0]["of"], &spec["more"]), (&json!("the future"), &json!(1)));
        // The same and what is older changes nothing; a later one takes its place.
        assert!(!first.add_to(&mut spec, &digest));
        assert!(!with(record(9, Origin::Registry)).add_to(&mut spec, &digest));
        assert!(with(record(11, Origin::Registry)).add_to(&mut spec, &digest));
        assert!(with(record(5, Origin::Bundle)).add_to(&mut spec, &digest));
        let confirmed: Vec<i64> = Kept::read(&spec, &digest)
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
            Kept { signatures: vec![signature(number)], tags: vec![] }.add_to(&mut spec, &digest);
        }
        assert!(spec.to_string().len() <= MOST_BYTES);
        assert!(Kept::read(&spec, &digest).signatures.len() < MOST_SIGNATURES);
        let mut spec = json!({});
        for _ in 0..3 {
            let signatures = (0..2 * MOST_SIGNATURES).map(signature).map(|_| signature(0)).collect();
            Kept { signatures, tags: vec![] }.add_to(&mut spec, &digest);
        }
        assert_eq!(Kept::read(&spec, &digest).signatures.len(), 1);
    }
}
