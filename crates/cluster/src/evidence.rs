//! Evidence in the cluster: an `ImageEvidence` for each digest, watched by every replica.
//!
//! ```text
//! metadata.name   sha256-6c1f…               the digest
//! spec.signatures bundle | payload + annotations, base64    judged again by the keys in force
//! spec.tags       image, confirmed, origin, mac             believed only with the cluster's own MAC
//! ```
//!
//! Whatever a replica verifies it puts in; what is there is never taken away by it. An object
//! that cannot be read is passed over, and so is a record whose MAC does not hold.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign_evidence::{Mac, Memory, Origin, RecordKey, Store, TagRecord, record_name};
use countersign_reference::{Digest, Reference};
use countersign_signature::{Material, Signatures, Verified};
use futures_util::StreamExt as _;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ObjectMeta, PostParams};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher as watch};
use kube::{Api, Client};
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;

/// The Secret with the key of tag records.
pub const EVIDENCE_SECRET: &str = "countersign-evidence";
/// The key in it.
const SECRET_KEY: &str = "hmac";
/// Signatures of one digest that are kept.
const MOST_SIGNATURES: usize = 64;
/// Tag records of one digest that are kept: the latest.
const MOST_TAGS: usize = 64;
/// Bytes of an object, far below what etcd takes.
const MOST_BYTES: usize = 512 << 10;
/// What waits to be written; more is dropped, and written when it is verified again.
const MOST_WAITING: usize = 4096;
/// How often a write is tried again.
const TRIES: u32 = 5;
/// How soon the first time, and twice as long each time after.
const AGAIN: Duration = Duration::from_millis(200);
/// How long a watch lasts before it is begun anew, in seconds.
const WATCH: u32 = 30;

/// Why evidence cannot be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EvidenceError {
    /// The API server says no, or nothing.
    #[error("{0}")]
    Api(Box<kube::Error>),
    /// The Secret has no key for records in it, or the machine has none to give.
    #[error("Secret `{EVIDENCE_SECRET}`: {0}")]
    Key(&'static str),
}

impl EvidenceError {
    /// Whether nobody answered, or somebody who could not.
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Api(error) if crate::is_unreachable(error))
    }
}

impl From<kube::Error> for EvidenceError {
    fn from(error: kube::Error) -> Self {
        Self::Api(Box::new(error))
    }
}

/// The key of tag records, which is made where there is none: any replica may, the first one wins.
///
/// # Errors
///
/// The API server says no, or nothing; or there is something else in the Secret.
pub async fn record_key(client: &Client, namespace: &str) -> Result<RecordKey, EvidenceError> {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    if api.get_opt(EVIDENCE_SECRET).await?.is_none() {
        let text = RecordKey::generate().ok_or(EvidenceError::Key("the machine has no randomness"))?;
        let secret = Secret {
            metadata: ObjectMeta { name: Some(EVIDENCE_SECRET.to_owned()), ..ObjectMeta::default() },
            data: Some([(SECRET_KEY.to_owned(), ByteString(text.into_bytes()))].into()),
            ..Secret::default()
        };
        match api.create(&PostParams::default(), &secret).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => return Err(error.into()),
        }
    }
    let data = api.get(EVIDENCE_SECRET).await?.data.unwrap_or_default();
    let text = data.get(SECRET_KEY).and_then(|bytes| std::str::from_utf8(&bytes.0).ok());
    text.and_then(RecordKey::parse).ok_or(EvidenceError::Key("there is no key under `hmac` in it"))
}

/// The objects of the cluster as a store.
#[derive(Debug)]
pub struct Evidence {
    key: RecordKey,
    state: Mutex<State>,
    writes: mpsc::Sender<Change>,
}

#[derive(Debug, Default)]
struct State {
    /// What this replica has verified itself, written or not.
    own: Memory,
    objects: BTreeMap<Digest, Kept>,
    /// Which digests have records of a name and tag.
    names: BTreeMap<String, BTreeSet<Digest>>,
    /// How old a record may be before it is confirmed again.
    refresh: Duration,
}

/// What is known of one digest.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Kept {
    /// Its signatures, which nobody has judged.
    pub signatures: Vec<Material>,
    /// The names and tags that stood for it.
    pub tags: Vec<(Reference, TagRecord, Mac)>,
}

#[derive(Debug)]
struct Change {
    digest: Digest,
    signatures: Vec<Material>,
    tag: Option<(Reference, TagRecord)>,
}

/// Writes what is verified: to be polled for as long as the store is used.
pub struct Writer {
    api: Api<DynamicObject>,
    key: RecordKey,
    changes: mpsc::Receiver<Change>,
}

impl Evidence {
    /// A store of this cluster with the key of its records, and who writes for it.
    pub fn new(client: &Client, key: RecordKey) -> (Arc<Self>, Writer) {
        let (writes, changes) = mpsc::channel(MOST_WAITING);
        let writer = Writer { api: objects(client), key: key.clone(), changes };
        (Arc::new(Self { key, state: Mutex::default(), writes }), writer)
    }

    /// How long a record of a tag is good enough before it is confirmed again in the cluster.
    pub fn refresh_after(&self, refresh: Duration) {
        self.state().refresh = refresh;
    }

    /// How many digests there is evidence of.
    pub fn digests(&self) -> usize {
        self.state().objects.len()
    }

    /// Follows the objects, for ever; `read` is told once all of them are known.
    pub async fn follow(&self, client: &Client, read: &tokio::sync::watch::Sender<bool>) {
        let config = watcher::Config::default().timeout(WATCH);
        let mut events = std::pin::pin!(watch(objects(client), config).default_backoff());
        let mut fresh = BTreeSet::new();
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Init) => fresh.clear(),
                Ok(Event::InitApply(object)) => fresh.extend(self.take(&object)),
                Ok(Event::InitDone) => {
                    self.retain(&fresh);
                    read.send_replace(true);
                }
                Ok(Event::Apply(object)) => _ = self.take(&object),
                Ok(Event::Delete(object)) => {
                    if let Some(digest) = digest_of(&object) {
                        self.state().put(&digest, None);
                    }
                }
                Err(error) => tracing::warn!(kind = "imageevidences", %error, "cannot be watched"),
            }
        }
    }

    fn take(&self, object: &DynamicObject) -> Option<Digest> {
        let digest = digest_of(object)?;
        let kept = Kept::read(&object.data["spec"], &digest);
        self.state().put(&digest, Some(kept));
        Some(digest)
    }

    fn retain(&self, there: &BTreeSet<Digest>) {
        let mut state = self.state();
        let gone: Vec<Digest> =
            state.objects.keys().filter(|digest| !there.contains(digest)).cloned().collect();
        for digest in &gone {
            state.put(digest, None);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, change: Change) {
        // It will be verified again.
        if self.writes.try_send(change).is_err() {
            tracing::warn!("a proof could not be kept: too many are waiting to be written");
        }
    }
}

impl State {
    fn put(&mut self, digest: &Digest, kept: Option<Kept>) {
        for (image, ..) in self.objects.remove(digest).iter().flat_map(|kept| &kept.tags) {
            let name = record_name(image);
            let empty = self.names.get_mut(&name).is_some_and(|digests| {
                digests.remove(digest);
                digests.is_empty()
            });
            if empty {
                self.names.remove(&name);
            }
        }
        if let Some(kept) = kept {
            for (image, ..) in &kept.tags {
                self.names.entry(record_name(image)).or_default().insert(digest.clone());
            }
            self.objects.insert(digest.clone(), kept);
        }
    }

    /// The records of a name and tag in the cluster that are its own.
    fn records(&self, image: &Reference, key: &RecordKey) -> Vec<TagRecord> {
        let name = record_name(image);
        let of_digest = |digest: &Digest| self.objects.get(digest).into_iter().flat_map(|kept| &kept.tags);
        let records = self.names.get(&name).into_iter().flatten().flat_map(of_digest);
        records
            .filter(|(of, record, mac)| record_name(of) == name && key.holds(of, record, mac))
            .map(|(_, record, _)| record.clone())
            .collect()
    }
}

impl Store for Evidence {
    fn signatures(&self, digest: &Digest) -> Vec<Material> {
        let state = self.state();
        let mut known = state.own.signatures(digest);
        for material in state.objects.get(digest).iter().flat_map(|kept| &kept.signatures) {
            if !known.contains(material) {
                known.push(material.clone());
            }
        }
        known
    }

    fn keep(&self, proof: &Verified<Signatures>) {
        let state = self.state();
        state.own.keep(proof);
        let proof = proof.get();
        let known =
            state.objects.get(&proof.digest).map(|kept| kept.signatures.as_slice()).unwrap_or_default();
        let signatures: Vec<Material> =
            proof.materials.iter().filter(|material| !known.contains(material)).cloned().collect();
        drop(state);
        if !signatures.is_empty() {
            self.write(Change { digest: proof.digest.clone(), signatures, tag: None });
        }
    }

    fn tag(&self, image: &Reference) -> Option<TagRecord> {
        let state = self.state();
        TagRecord::latest(state.records(image, &self.key).into_iter().chain(state.own.tag(image)))
    }

    fn record_tag(&self, image: &Reference, record: TagRecord) {
        let state = self.state();
        state.own.record_tag(image, record.clone());
        let records = state.records(image, &self.key).into_iter();
        let of_origin = records.filter(|known| known.origin == record.origin);
        let good_enough = of_origin
            .max_by_key(|known| known.confirmed)
            .is_some_and(|known| known.digest == record.digest && is_fresh(&known, &record, state.refresh));
        drop(state);
        if !good_enough {
            let digest = record.digest.clone();
            self.write(Change { digest, signatures: Vec::new(), tag: Some((image.clone(), record)) });
        }
    }
}

/// Whether what is known is not older than that.
fn is_fresh(known: &TagRecord, record: &TagRecord, refresh: Duration) -> bool {
    let age = record.confirmed.duration_since(known.confirmed);
    age < SignedDuration::try_from(refresh).unwrap_or(SignedDuration::MAX)
}

impl Writer {
    /// Writes for as long as there is somebody to write for.
    pub async fn run(mut self) {
        let mut waiting = Vec::new();
        while self.changes.recv_many(&mut waiting, MOST_WAITING).await > 0 {
            let mut by_digest: BTreeMap<Digest, Kept> = BTreeMap::new();
            for change in waiting.drain(..) {
                let kept = by_digest.entry(change.digest).or_default();
                kept.signatures.extend(change.signatures);
                kept.tags.extend(change.tag.map(|(image, record)| {
                    let mac = self.key.mac(&image, &record);
                    (image, record, mac)
                }));
            }
            for (digest, more) in by_digest {
                let mut pause = AGAIN;
                for left in (0..TRIES).rev() {
                    match add(&self.api, &digest, &more).await {
                        Ok(_) => break,
                        // The verdict stands; only the next outage is less well covered.
                        Err(error) if left == 0 => tracing::warn!(%digest, %error, "evidence is not kept"),
                        Err(_) => tokio::time::sleep(pause).await,
                    }
                    pause *= 2;
                }
            }
        }
    }
}

/// Puts evidence of an image into the cluster; whether there was anything new in it.
///
/// # Errors
///
/// The API server says no, or nothing.
pub async fn import(
    client: &Client,
    key: &RecordKey,
    digest: &Digest,
    signatures: Vec<Material>,
    tags: Vec<(Reference, TagRecord)>,
) -> Result<bool, EvidenceError> {
    let tags = tags.into_iter().map(|(image, record)| {
        let mac = key.mac(&image, &record);
        (image, record, mac)
    });
    let kept = Kept { signatures, tags: tags.collect() };
    let api = objects(client);
    let mut tries = TRIES;
    loop {
        tries -= 1;
        match add(&api, digest, &kept).await {
            Err(kube::Error::Api(status)) if status.code == 409 && tries > 0 => {}
            result => return Ok(result?),
        }
    }
}

/// Adds to what an object holds; whether that changed anything.
async fn add(api: &Api<DynamicObject>, digest: &Digest, more: &Kept) -> Result<bool, kube::Error> {
    let name = object_name(digest);
    let Some(mut object) = api.get_opt(&name).await? else {
        let mut object = DynamicObject::new(&name, &kind());
        object.data = json!({ "spec": { "digest": digest.to_string(), "signatures": [], "tags": [] } });
        more.add_to(&mut object.data["spec"], digest);
        api.create(&PostParams::default(), &object).await?;
        return Ok(true);
    };
    if !object.data["spec"].is_object() {
        object.data["spec"] = json!({ "digest": digest.to_string() });
    }
    if !more.add_to(&mut object.data["spec"], digest) {
        return Ok(false);
    }
    api.replace(&name, &PostParams::default(), &object).await?;
    Ok(true)
}

impl Kept {
    /// What an object says; what of it cannot be read is passed over.
    fn read(spec: &Value, digest: &Digest) -> Self {
        let list = |key: &str| spec[key].as_array().into_iter().flatten();
        Self {
            signatures: list("signatures").take(MOST_SIGNATURES).filter_map(material).collect(),
            tags: list("tags").take(MOST_TAGS).filter_map(|tag| record(tag, digest)).collect(),
        }
    }

    /// Adds it to what an object says, whose other entries stay as they are; whether that changed
    /// anything.
    fn add_to(&self, spec: &mut Value, digest: &Digest) -> bool {
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
            if tags.iter().filter_map(same).any(|(_, known, _)| known.confirmed >= new.confirmed) {
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
            tags.truncate(MOST_TAGS);
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

fn kind() -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk("countersign.dev", "v1alpha1", "ImageEvidence"))
}

fn objects(client: &Client) -> Api<DynamicObject> {
    Api::all_with(client.clone(), &kind())
}

/// A digest as the name of an object.
fn object_name(digest: &Digest) -> String {
    digest.to_string().replacen(':', "-", 1)
}

/// The digest whose name an object has: whatever else it says of itself.
fn digest_of(object: &DynamicObject) -> Option<Digest> {
    Digest::parse(&object.metadata.name.as_ref()?.replacen('-', ":", 1)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let state = {
            let mut state = State::default();
            state.put(&digest, Some(Kept::read(&spec, &digest)));
            state
        };
        assert_eq!(state.records(&image, &key).len(), 2);
        let other = RecordKey::parse(&RecordKey::generate().unwrap()).unwrap();
        assert!(state.records(&image, &other).is_empty(), "a record of another cluster");
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
