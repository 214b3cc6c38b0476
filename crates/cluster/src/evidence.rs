//! Evidence in the cluster: an `ImageEvidence` for each digest, watched by every replica.
//!
//! ```text
//! metadata.name   sha256-6c1f…               the digest
//! spec.signatures bundle | payload + annotations, base64    judged again by the keys in force
//! spec.index      base64                                    its own digest says that it is the one
//! spec.tags       image, confirmed, origin, mac             believed only with the cluster's own MAC
//! ```
//!
//! Whatever a replica verifies it puts in; what is there is never taken away by it. An object
//! that cannot be read is passed over, and so is a record whose MAC does not hold: both are findings.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use countersign_evidence::{AHEAD, Entry, Index, Known, Memory, RecordKey, Store, TagRecord};
use countersign_reference::{Digest, Reference};
use countersign_signature::{Material, Signatures, Verified};
use futures_util::StreamExt as _;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, DynamicObject, ObjectMeta, PostParams};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher as watch};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::mpsc;

use crate::api::{each, make_if_absent, texts_of};
use crate::crds::Kind;

/// The Secret with the key of tag records.
pub const EVIDENCE_SECRET: &str = "countersign-evidence";
/// The key in it.
const SECRET_KEY: &str = "hmac";
/// Objects that are kept in memory, far more than the leader leaves in a cluster.
const MOST_OBJECTS: usize = 20_000;
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
    let secret = || {
        let text = RecordKey::generate().ok_or(EvidenceError::Key("the machine has no randomness"))?;
        Ok::<_, EvidenceError>(Secret {
            metadata: ObjectMeta { name: Some(EVIDENCE_SECRET.to_owned()), ..ObjectMeta::default() },
            data: Some([(SECRET_KEY.to_owned(), ByteString(text.into_bytes()))].into()),
            ..Secret::default()
        })
    };
    make_if_absent(&api, EVIDENCE_SECRET, secret).await?;
    key_of(&texts_of(&api.get(EVIDENCE_SECRET).await?)).ok_or(EvidenceError::Key(NO_KEY))
}

/// The key of tag records, where there is one.
///
/// # Errors
///
/// The API server says no, or nothing; or there is something else in the Secret.
pub async fn known_record_key(client: &Client, namespace: &str) -> Result<Option<RecordKey>, EvidenceError> {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let Some(secret) = api.get_opt(EVIDENCE_SECRET).await? else { return Ok(None) };
    key_of(&texts_of(&secret)).map(Some).ok_or(EvidenceError::Key(NO_KEY))
}

/// What is said where something else is in the Secret.
const NO_KEY: &str =
    "there is no key under `hmac` in it: delete it, and another one is made (records of tags are made anew)";

fn key_of(texts: &BTreeMap<String, Option<String>>) -> Option<RecordKey> {
    RecordKey::parse(texts.get(SECRET_KEY)?.as_deref()?)
}

/// The objects of the cluster as a store.
#[derive(Debug)]
pub struct Evidence {
    key: SharedKey,
    state: Mutex<State>,
    writes: mpsc::Sender<Change>,
}

#[derive(Debug)]
struct State {
    /// What this replica has verified itself, written or not.
    own: Memory,
    objects: Known,
    /// How old a record may be before it is confirmed again.
    refresh: Duration,
}

/// The key of the moment.
type SharedKey = Arc<RwLock<RecordKey>>;

fn current(key: &SharedKey) -> RecordKey {
    key.read().unwrap_or_else(PoisonError::into_inner).clone()
}

#[derive(Debug)]
struct Change {
    digest: Digest,
    signatures: Vec<Material>,
    index: Option<Arc<Index>>,
    tag: Option<(Reference, TagRecord)>,
}

/// Writes what is verified: to be polled for as long as the store is used.
pub struct Writer {
    api: Api<DynamicObject>,
    key: SharedKey,
    changes: mpsc::Receiver<Change>,
}

impl Evidence {
    /// A store of this cluster with the key of its records, and who writes for it.
    pub fn new(client: &Client, key: RecordKey) -> (Arc<Self>, Writer) {
        let (writes, changes) = mpsc::channel(MOST_WAITING);
        let key = SharedKey::new(RwLock::new(key));
        let writer = Writer { api: objects(client), key: Arc::clone(&key), changes };
        let objects = Known::new(MOST_OBJECTS);
        let state = State { own: Memory::default(), objects, refresh: Duration::ZERO };
        (Arc::new(Self { key, state: Mutex::new(state), writes }), writer)
    }

    /// How long a record of a tag is good enough before it is confirmed again in the cluster.
    pub fn refresh_after(&self, refresh: Duration) {
        self.state().refresh = refresh;
    }

    /// Goes on with what the Secret says now; records of another key count no more.
    pub fn read_key(&self, texts: &BTreeMap<String, Option<String>>) {
        let Some(key) = key_of(texts) else { return };
        let mut current = self.key.write().unwrap_or_else(PoisonError::into_inner);
        if *current != key {
            tracing::warn!("Secret `{EVIDENCE_SECRET}` has changed: records of tags are made anew");
            self.state().objects.rekey(&key);
            *current = key;
        }
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
                        self.state().objects.forget(&digest);
                    }
                }
                Err(error) => tracing::warn!(kind = "imageevidences", %error, "cannot be watched"),
            }
        }
    }

    fn take(&self, object: &DynamicObject) -> Option<Digest> {
        let digest = digest_of(object)?;
        let (entry, findings) = Entry::read(&object.data["spec"], &digest);
        let key = current(&self.key);
        let mut state = self.state();
        let told = state.objects.findings_of(&digest).to_vec();
        state.objects.put(&digest, entry, findings, Some(&key));
        for finding in state.objects.findings_of(&digest).iter().filter(|finding| !told.contains(finding)) {
            tracing::warn!(%digest, "evidence: {finding}");
        }
        Some(digest)
    }

    fn retain(&self, there: &BTreeSet<Digest>) {
        let mut state = self.state();
        let gone: Vec<Digest> =
            state.objects.digests().filter(|digest| !there.contains(digest)).cloned().collect();
        for digest in &gone {
            state.objects.forget(digest);
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

impl Store for Evidence {
    fn signatures(&self, digest: &Digest) -> Vec<Material> {
        let mut state = self.state();
        let mut known = state.own.signatures(digest);
        for material in state.objects.signatures(digest) {
            if !known.contains(material) {
                known.push(material.clone());
            }
        }
        known
    }

    fn index(&self, digest: &Digest) -> Option<Arc<Index>> {
        let state = self.state();
        state.own.index(digest).or_else(|| state.objects.index(digest))
    }

    fn indexes_of(&self, listed: &Digest) -> Vec<Digest> {
        let state = self.state();
        let both: BTreeSet<Digest> =
            state.own.indexes_of(listed).into_iter().chain(state.objects.indexes_of(listed)).collect();
        both.into_iter().collect()
    }

    fn keep(&self, proof: &Verified<Signatures>, index: Option<&Arc<Index>>) {
        let state = self.state();
        state.own.keep(proof, index);
        let proof = proof.get();
        let entry = state.objects.entry(&proof.digest);
        let known = entry.map(|entry| entry.signatures.as_slice()).unwrap_or_default();
        let signatures: Vec<Material> =
            proof.materials.iter().filter(|material| !known.contains(material)).cloned().collect();
        let index = index.filter(|_| entry.is_none_or(|entry| entry.index.is_none())).cloned();
        drop(state);
        if !signatures.is_empty() || index.is_some() {
            self.write(Change { digest: proof.digest.clone(), signatures, index, tag: None });
        }
    }

    fn tag(&self, image: &Reference, now: Timestamp) -> Option<TagRecord> {
        let state = self.state();
        TagRecord::latest(state.objects.records(image).into_iter().chain(state.own.tag(image, now)), now)
    }

    fn record_tag(&self, image: &Reference, record: TagRecord) {
        let state = self.state();
        state.own.record_tag(image, record.clone());
        let records = state.objects.records(image);
        // What counts has to say so, and somebody has to have seen it lately.
        let says = TagRecord::latest(records.clone(), record.confirmed);
        let good_enough = says.is_some_and(|says| says.digest == record.digest)
            && records.iter().any(|known| {
                known.origin == record.origin
                    && known.digest == record.digest
                    && is_fresh(known, &record, state.refresh)
            });
        if !good_enough {
            let digest = record.digest.clone();
            // What makes the record count is there as well, or a tag is all that outlives this process.
            let entry = state.objects.entry(&digest);
            let known = entry.map(|entry| entry.signatures.as_slice()).unwrap_or_default();
            let mut signatures = state.own.signatures(&digest);
            signatures.retain(|material| !known.contains(material));
            let index = state.own.index(&digest).filter(|_| entry.is_none_or(|entry| entry.index.is_none()));
            drop(state);
            let tag = Some((image.clone(), record));
            self.write(Change { digest, signatures, index, tag });
        }
    }

    fn newest(&self) -> Option<Timestamp> {
        let state = self.state();
        state.own.newest().max(state.objects.newest())
    }

    fn findings(&self) -> Vec<String> {
        self.state().objects.findings()
    }
}

/// Whether what is known is not older than that.
fn is_fresh(known: &TagRecord, record: &TagRecord, refresh: Duration) -> bool {
    let age = record.confirmed.duration_since(known.confirmed);
    // One from the future is none that was made lately; clocks of two replicas are a little apart.
    age > -AHEAD && age < SignedDuration::try_from(refresh).unwrap_or(SignedDuration::MAX)
}

impl Writer {
    /// Writes for as long as there is somebody to write for.
    pub async fn run(mut self) {
        let mut waiting = Vec::new();
        while self.changes.recv_many(&mut waiting, MOST_WAITING).await > 0 {
            let key = current(&self.key);
            let mut by_digest: BTreeMap<Digest, Entry> = BTreeMap::new();
            for change in waiting.drain(..) {
                let kept = by_digest.entry(change.digest).or_default();
                kept.signatures.extend(change.signatures);
                kept.index = change.index.or(kept.index.take());
                kept.tags.extend(change.tag.map(|(image, record)| {
                    let mac = key.mac(&image, &record);
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

/// All that is in the cluster, judged by the key of its records.
///
/// # Errors
///
/// The API server says no, or nothing.
pub async fn all(client: &Client, key: &RecordKey) -> Result<Known, EvidenceError> {
    let mut known = Known::new(usize::MAX);
    let read = |object: DynamicObject| {
        let Some(digest) = digest_of(&object) else { return };
        let (entry, findings) = Entry::read(&object.data["spec"], &digest);
        known.put(&digest, entry, findings, Some(key));
    };
    each(&objects(client), read).await?;
    Ok(known)
}

/// Puts evidence of an image into the cluster; whether there was anything new in it. Records are
/// authenticated anew: whoever calls this stands behind them.
///
/// # Errors
///
/// The API server says no, or nothing.
pub async fn import(
    client: &Client,
    key: &RecordKey,
    digest: &Digest,
    entry: Entry,
) -> Result<bool, EvidenceError> {
    let tags = entry.tags.into_iter().map(|(image, record, _)| {
        let mac = key.mac(&image, &record);
        (image, record, mac)
    });
    let kept = Entry { tags: tags.collect(), ..entry };
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

/// How many objects the leader leaves in a cluster.
pub const MOST_KEPT: usize = 10_000;

/// Takes out those that were confirmed longest ago, where there are more than so many, and never
/// one that is in use; how many.
///
/// # Errors
///
/// The API server says no, or nothing.
pub async fn sweep(client: &Client, most: usize, used: &BTreeSet<Digest>) -> Result<usize, EvidenceError> {
    let mut found: Vec<(Option<Timestamp>, Digest)> = Vec::new();
    let read = |object: DynamicObject| {
        let Some(digest) = digest_of(&object) else { return };
        let (entry, _) = Entry::read(&object.data["spec"], &digest);
        let confirmed = entry.tags.iter().map(|(_, record, _)| record.confirmed).max();
        let index = entry.index.iter().flat_map(|index| &index.lists);
        if !std::iter::once(&digest).chain(index).any(|digest| used.contains(digest)) {
            let made = object.metadata.creation_timestamp.map(|made| made.0);
            found.push((confirmed.or(made), digest));
        }
    };
    let mut all = 0_usize;
    let mut read = read;
    each(&objects(client), |object| {
        all += 1;
        read(object);
    })
    .await?;
    found.sort();
    let api = objects(client);
    let mut gone = 0;
    for (_, digest) in found.into_iter().take(all.saturating_sub(most)) {
        match api.delete(&object_name(&digest), &DeleteParams::default()).await {
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            result => {
                result?;
                gone += 1;
            }
        }
    }
    Ok(gone)
}

/// Adds to what an object holds; whether that changed anything.
async fn add(api: &Api<DynamicObject>, digest: &Digest, more: &Entry) -> Result<bool, kube::Error> {
    let name = object_name(digest);
    let Some(mut object) = api.get_opt(&name).await? else {
        let mut object = DynamicObject::new(&name, &Kind::ImageEvidence.resource());
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

fn objects(client: &Client) -> Api<DynamicObject> {
    Api::all_with(client.clone(), &Kind::ImageEvidence.resource())
}

/// A digest as the name of an object.
fn object_name(digest: &Digest) -> String {
    digest.to_string().replacen(':', "-", 1)
}

/// The digest whose name an object has: whatever else it says of itself.
fn digest_of(object: &DynamicObject) -> Option<Digest> {
    Digest::parse(&object.metadata.name.as_ref()?.replacen('-', ":", 1)).ok()
}
