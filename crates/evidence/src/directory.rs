//! Evidence in a directory: one file for each digest, the same document as in a cluster.
//!
//! ```text
//! DIR/record.key                 the secret that tag records are authenticated with, for the owner alone
//! DIR/sha256-6c1f….json          an `ImageEvidence`: signatures, index, tag records with their MACs
//! ```
//!
//! A file is written beside its place, synced, and put into its place: whenever the process ends,
//! what is there is whole. Nothing in it is believed: signatures are judged by the keys in force
//! when they are used, records count only with their MAC, and what is neither is a finding.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use countersign_reference::{Digest, Reference};
use countersign_signature::{Material, Signatures, Verified};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::{Entry, Index, Known, RecordKey, Store, TagRecord};

/// The file with the secret of tag records.
pub const KEY_FILE: &str = "record.key";
/// How many digests a directory keeps; who was asked for longest ago goes.
pub const MOST_KEPT: usize = 10_000;
/// `apiVersion` and `kind` of a file.
pub const DOCUMENT: (&str, &str) = ("countersign.dev/v1alpha1", "ImageEvidence");
/// Bytes of a file.
const MOST_BYTES: u64 = 2 << 20;
/// How old a record may be before it is written again.
const REFRESH: SignedDuration = SignedDuration::from_mins(10);
/// What waits to be written; more is dropped, and written when it is verified again.
const MOST_WAITING: usize = 1024;

/// A directory that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DirectoryError {
    /// Something cannot be read or written.
    #[error("{path}: {error}")]
    Io {
        /// What.
        path: String,
        /// Why.
        error: io::Error,
    },
    /// Others may read the secret.
    #[error(
        "{0}: others may read it: `chmod 600` it, and remove it first if somebody has (records are made anew)"
    )]
    Open(String),
    /// The secret is none.
    #[error("{0} has no key in it: remove it, and another one is made (records of tags are made anew)")]
    Key(String),
}

/// A store whose entries outlive the process.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    key: RecordKey,
    known: Mutex<Known>,
    writer: Option<(SyncSender<Change>, JoinHandle<()>)>,
}

#[derive(Debug)]
enum Change {
    Write(Digest, Box<Entry>),
    Remove(Digest),
}

impl Directory {
    /// Opens a directory, and makes it where it is not there.
    ///
    /// # Errors
    ///
    /// It cannot be read or written, or its key cannot be used.
    pub fn open(path: &Path) -> Result<Self, DirectoryError> {
        Self::open_with(path, MOST_KEPT)
    }

    /// The same with room for so many digests.
    ///
    /// # Errors
    ///
    /// As [`Directory::open`].
    pub fn open_with(path: &Path, most: usize) -> Result<Self, DirectoryError> {
        let failed = |path: &Path| {
            let path = path.display().to_string();
            move |error| DirectoryError::Io { path, error }
        };
        fs::create_dir_all(path).map_err(failed(path))?;
        let key = key(path)?;
        let mut files = Vec::new();
        for entry in fs::read_dir(path).map_err(failed(path))? {
            let entry = entry.map_err(failed(path))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.ends_with(UNFINISHED) {
                // Of a process that ended before it was done.
                _ = fs::remove_file(entry.path());
            } else if let Some(digest) = digest_of(&name) {
                let used = entry.metadata().and_then(|found| found.modified()).ok();
                files.push((used, digest, entry.path()));
            }
        }
        // What was written last is the last to go.
        files.sort();
        let mut known = Known::new(most);
        for (_, digest, file) in files {
            let (entry, findings) = match read(&file) {
                Ok(document) => Entry::read(&document["spec"], &digest),
                Err(why) => (Entry::default(), vec![why]),
            };
            for gone in known.put(&digest, entry, findings, Some(&key)) {
                _ = fs::remove_file(path.join(name_of(&gone)));
            }
        }
        for finding in known.findings() {
            tracing::warn!(directory = %path.display(), "evidence: {finding}");
        }
        let (changes, waiting) = sync_channel(MOST_WAITING);
        let into = path.to_owned();
        let writer = std::thread::spawn(move || write_all(&into, &waiting));
        Ok(Self { path: path.to_owned(), key, known: Mutex::new(known), writer: Some((changes, writer)) })
    }

    /// Adds an entry that somebody else has made; whether there was anything new in it. Records are
    /// authenticated anew: whoever calls this stands behind them.
    pub fn import(&self, digest: &Digest, entry: &Entry) -> bool {
        let mut known = self.known();
        let mut spec = known.entry(digest).cloned().unwrap_or_default().write(digest);
        let tags = entry
            .tags
            .iter()
            .map(|(image, record, _)| (image.clone(), record.clone(), self.key.mac(image, record)));
        let own = Entry { tags: tags.collect(), ..entry.clone() };
        if !own.add_to(&mut spec, digest) {
            return false;
        }
        let (entry, findings) = Entry::read(&spec, digest);
        let gone = known.put(digest, entry, findings, Some(&self.key));
        self.changed(&known, digest, gone, true);
        true
    }

    /// All that is in it.
    pub fn all(&self) -> Known {
        self.known().clone()
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has written what has changed; `wait`: even if that takes a moment.
    fn changed(&self, known: &Known, digest: &Digest, gone: Vec<Digest>, wait: bool) {
        let Some((writer, _)) = &self.writer else { return };
        let entry = known.entry(digest).cloned().unwrap_or_default();
        let write = std::iter::once(Change::Write(digest.clone(), Box::new(entry)));
        for change in write.chain(gone.into_iter().map(Change::Remove)) {
            let sent = if wait { writer.send(change).is_ok() } else { writer.try_send(change).is_ok() };
            if !sent {
                // It will be verified again.
                tracing::warn!(directory = %self.path.display(), "evidence was not kept: too much waits to be written");
            }
        }
    }
}

impl Drop for Directory {
    /// Waits until everything is written.
    fn drop(&mut self) {
        if let Some((changes, writer)) = self.writer.take() {
            drop(changes);
            _ = writer.join();
        }
    }
}

impl Store for Directory {
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
        let (mut known, proof) = (self.known(), proof.get());
        if let Some(gone) = known.add(&proof.digest, &proof.materials, index, Some(&self.key)) {
            self.changed(&known, &proof.digest, gone, false);
        }
    }

    fn tag(&self, image: &Reference, now: Timestamp) -> Option<TagRecord> {
        TagRecord::latest(self.known().records(image), now)
    }

    fn record_tag(&self, image: &Reference, record: TagRecord) {
        let (mut known, digest) = (self.known(), record.digest.clone());
        let lately = |of: &TagRecord| {
            let age = record.confirmed.duration_since(of.confirmed);
            of.digest == record.digest && of.origin == record.origin && !age.is_negative() && age < REFRESH
        };
        // A tag is confirmed with every pod, and written once in a while.
        if known.records(image).iter().any(lately) {
            return;
        }
        let gone = known.record(image, record, Some(&self.key));
        self.changed(&known, &digest, gone, false);
    }

    fn newest(&self) -> Option<Timestamp> {
        self.known().newest()
    }

    fn findings(&self) -> Vec<String> {
        self.known().findings()
    }
}

/// The ending of a file that is not in its place yet.
const UNFINISHED: &str = ".unfinished";

fn name_of(digest: &Digest) -> String {
    format!("{}.json", digest.to_string().replacen(':', "-", 1))
}

fn digest_of(name: &str) -> Option<Digest> {
    Digest::parse(&name.strip_suffix(".json")?.replacen('-', ":", 1)).ok()
}

fn read(file: &Path) -> Result<Value, String> {
    let length = file.metadata().map_err(|error| error.to_string())?.len();
    if length > MOST_BYTES {
        return Err(format!("the file is larger than {MOST_BYTES} bytes"));
    }
    let bytes = fs::read(file).map_err(|error| error.to_string())?;
    serde_json::from_slice(&bytes).map_err(|error| format!("the file is no JSON: {error}"))
}

/// The secret of the directory, which is made where there is none.
fn key(directory: &Path) -> Result<RecordKey, DirectoryError> {
    let path = directory.join(KEY_FILE);
    let shown = path.display().to_string();
    let failed = |error| DirectoryError::Io { path: shown.clone(), error };
    let mut options = OpenOptions::new();
    match options.write(true).create_new(true).mode(0o600).open(&path) {
        Ok(mut file) => {
            let text = RecordKey::generate()
                .ok_or_else(|| failed(io::Error::other("the machine has no randomness to give")))?;
            file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(failed(error)),
    }
    let mode = path.metadata().map_err(failed)?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(DirectoryError::Open(shown));
    }
    let text = fs::read_to_string(&path).map_err(failed)?;
    RecordKey::parse(&text).ok_or(DirectoryError::Key(shown))
}

fn write_all(directory: &Path, changes: &Receiver<Change>) {
    for change in changes {
        let (digest, result) = match change {
            Change::Write(digest, entry) => {
                let (api_version, kind) = DOCUMENT;
                let document = json!({
                    "apiVersion": api_version, "kind": kind,
                    "metadata": { "name": digest.to_string().replacen(':', "-", 1) },
                    "spec": entry.write(&digest),
                });
                let result = put(directory, &name_of(&digest), document.to_string().as_bytes());
                (digest, result)
            }
            Change::Remove(digest) => {
                let result = fs::remove_file(directory.join(name_of(&digest)));
                (digest, result)
            }
        };
        if let Err(error) = result {
            // The verdict stands; only the next outage is less well covered.
            tracing::warn!(directory = %directory.display(), %digest, %error, "evidence was not kept");
        }
    }
}

/// Beside its place, synced, then into its place.
fn put(directory: &Path, name: &str, content: &[u8]) -> io::Result<()> {
    let beside = directory.join(format!("{name}{UNFINISHED}"));
    let mut file = File::create(&beside)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&beside, directory.join(name))?;
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Origin;
    use countersign_signature::sign::{Scheme, Signer};
    use countersign_signature::{Judge, Limits, Located, Terms, Trust};
    use countersign_verdict::Attestors;
    use std::collections::BTreeMap;

    fn image() -> Digest {
        Digest::sha256_of(b"an image")
    }

    fn judge(trust: &Trust, material: Material) -> Option<Verified<Signatures>> {
        let located = Located { at: "test".to_owned(), artifact: "signature".to_owned(), material };
        Judge::new(trust, &image(), Terms::within(Limits::DEFAULT)).add(&located)
    }

    fn trust(signer: &Signer) -> Trust {
        Trust::new(&Attestors::any_of_keys(&signer.public_pem())).unwrap()
    }

    fn db(tag: &str) -> Reference {
        Reference::parse(&format!("registry.local/quay.io/acme/db:{tag}")).unwrap()
    }

    fn record(second: i64) -> TagRecord {
        let confirmed = Timestamp::from_second(second).unwrap();
        TagRecord { digest: image(), confirmed, origin: Origin::Registry }
    }

    /// A directory with one proof and one record.
    fn filled(directory: &Path) -> (Signer, Material) {
        let signer = Signer::generate(Scheme::EcdsaP256).unwrap();
        let material = signer.bundle(&image(), &BTreeMap::new()).unwrap();
        let store = Directory::open(directory).unwrap();
        store.keep(&judge(&trust(&signer), material.clone()).unwrap(), None);
        store.record_tag(&db("1"), record(7));
        (signer, material)
    }

    /// Changes the file as somebody would who has no key.
    fn tamper(directory: &Path, change: impl Fn(&mut Value)) -> Vec<String> {
        let file = directory.join(name_of(&image()));
        let mut document: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        change(&mut document["spec"]);
        fs::write(&file, document.to_string()).unwrap();
        Directory::open(directory).unwrap().findings()
    }

    #[test]
    fn a_proof_is_there_after_a_restart_and_is_judged_again() {
        let directory = tempfile::tempdir().unwrap();
        let (_, material) = filled(directory.path());
        let again = Directory::open(directory.path()).unwrap();
        assert_eq!(again.signatures(&image()), std::slice::from_ref(&material));
        assert!(again.signatures(&Digest::sha256_of(b"another")).is_empty());
        assert_eq!(again.tag(&db("1"), Timestamp::MAX), Some(record(7)));
        assert_eq!((again.newest(), again.findings()), (Some(record(7).confirmed), vec![]));
        let other = Signer::generate(Scheme::EcdsaP256).unwrap();
        assert!(judge(&trust(&other), again.signatures(&image()).remove(0)).is_none(), "a removed key");
    }

    #[test]
    fn records_that_were_not_put_there_are_dropped_with_a_finding() {
        for (what, change) in [
            (
                "moved",
                (|spec| spec["tags"][0]["image"] = json!(crate::record_name(&db("2")))) as fn(&mut Value),
            ),
            ("re-dated", |spec| spec["tags"][0]["confirmed"] = json!("2030-01-01T00:00:00Z")),
            ("of another origin", |spec| spec["tags"][0]["origin"] = json!("bundle")),
            ("of a foreign secret", |spec| {
                let other = RecordKey::parse(&RecordKey::generate().unwrap()).unwrap();
                spec["tags"][0]["mac"] = json!(other.mac(&db("1"), &record(7)).0);
            }),
        ] {
            let directory = tempfile::tempdir().unwrap();
            filled(directory.path());
            let findings = tamper(directory.path(), change);
            assert_eq!(findings.len(), 1, "{what}: {findings:?}");
            assert!(findings[0].contains("was not made with the key in force"), "{what}: {findings:?}");
            let store = Directory::open(directory.path()).unwrap();
            let found = ["1", "2"].map(|tag| store.tag(&db(tag), Timestamp::MAX));
            assert_eq!(found, [None, None], "{what}");
        }
        // Replayed: the record of one digest in the file of another.
        let directory = tempfile::tempdir().unwrap();
        filled(directory.path());
        let other = Digest::sha256_of(b"another image");
        fs::copy(directory.path().join(name_of(&image())), directory.path().join(name_of(&other))).unwrap();
        let store = Directory::open(directory.path()).unwrap();
        assert_eq!(store.tag(&db("1"), Timestamp::MAX), Some(record(7)));
        assert!(store.signatures(&other).is_empty());
        assert_eq!(store.findings().len(), 2, "the signature and the record: {:?}", store.findings());
    }

    #[test]
    fn what_is_no_evidence_hides_none() {
        let directory = tempfile::tempdir().unwrap();
        filled(directory.path());
        let broken = Digest::sha256_of(b"broken");
        fs::write(directory.path().join(name_of(&broken)), "{").unwrap();
        fs::write(directory.path().join(format!("x{UNFINISHED}")), "half").unwrap();
        fs::write(directory.path().join("README"), "not ours").unwrap();
        let store = Directory::open(directory.path()).unwrap();
        assert_eq!(store.signatures(&image()).len(), 1);
        assert_eq!(store.findings().len(), 1, "{:?}", store.findings());
        assert!(!directory.path().join(format!("x{UNFINISHED}")).exists());
        assert!(directory.path().join("README").exists());
    }

    #[test]
    fn the_secret_is_for_its_owner_alone() {
        let directory = tempfile::tempdir().unwrap();
        filled(directory.path());
        let key = directory.path().join(KEY_FILE);
        assert_eq!(key.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
        let error = Directory::open(directory.path()).unwrap_err().to_string();
        assert!(error.contains("chmod 600"), "{error}");
    }

    #[test]
    fn a_directory_does_not_grow_without_end() {
        let directory = tempfile::tempdir().unwrap();
        let digest = |number: u8| Digest::sha256_of(&[number]);
        let store = Directory::open_with(directory.path(), 3).unwrap();
        for number in 0..5 {
            let record = TagRecord { digest: digest(number), ..record(7) };
            store.record_tag(&db(&number.to_string()), record);
        }
        drop(store);
        let store = Directory::open_with(directory.path(), 3).unwrap();
        let mut left: Vec<Digest> = store.all().digests().cloned().collect();
        let mut expected: Vec<Digest> = (2..5).map(digest).collect();
        left.sort();
        expected.sort();
        assert_eq!(left, expected);
    }
}
