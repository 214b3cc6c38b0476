//! Evidence in a directory: one file for each digest, the same document as in a cluster.
//!
//! ```text
//! DIR/record.key                 the secret that tag records are authenticated with, for the owner alone
//! DIR/lock                       locked by the process that writes
//! DIR/sha256-6c1f….json          an `ImageEvidence`: signatures, index, tag records with their MACs
//! ```
//!
//! A file is written beside its place, synced, and put into its place: whenever the process ends,
//! what is there is whole. Nothing in it is believed: signatures are judged by the keys in force
//! when they are used, records count only with their MAC, and what is neither is a finding.

mod writer;

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Arc;

use countersign_reference::{Digest, Reference};
use countersign_signature::{Material, Signatures, Verified};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use self::writer::Writer;
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
/// The file that is locked; never the key, which an operator may remove.
const LOCK_FILE: &str = "lock";

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
    /// Another process has it open.
    #[error("{0} is in use by another process: `evidence list`, `show` and `export` read it all the same")]
    InUse(String),
    /// The secret is none.
    #[error("{0} has no key in it: remove it, and another one is made (records of tags are made anew)")]
    Key(String),
}

/// A store whose entries outlive the process.
#[derive(Debug)]
pub struct Directory {
    key: RecordKey,
    writer: Writer,
    /// Its lock is this process's for as long as it is open: behind the writer, which ends first.
    _lock: File,
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
        make_key(path)?;
        let key = read_key(path)?;
        let at = path.join(LOCK_FILE);
        // Written to as well: some network file systems lock nothing else for one alone.
        let mut options = OpenOptions::new();
        let lock =
            options.read(true).write(true).create(true).truncate(false).open(&at).map_err(failed(&at))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(DirectoryError::InUse(path.display().to_string())),
            Err(TryLockError::Error(error)) => return Err(failed(path)(error)),
        }
        for entry in fs::read_dir(path).map_err(failed(path))? {
            let entry = entry.map_err(failed(path))?;
            if entry.file_name().to_string_lossy().ends_with(UNFINISHED) {
                // Of a process that ended before it was done.
                _ = fs::remove_file(entry.path());
            }
        }
        let (known, gone) = read_all(path, most, &key)?;
        for gone in gone {
            _ = fs::remove_file(path.join(name_of(&gone)));
        }
        for finding in known.findings() {
            tracing::warn!(directory = %path.display(), "evidence: {finding}");
        }
        Ok(Self { key, writer: Writer::new(path, known), _lock: lock })
    }

    /// What is in a directory, whoever has it open: nothing is made, written or removed.
    ///
    /// # Errors
    ///
    /// It is not there, cannot be read, or its key cannot be used.
    pub fn look(path: &Path) -> Result<Known, DirectoryError> {
        let key = read_key(path)?;
        read_all(path, usize::MAX, &key).map(|(known, _)| known)
    }

    /// Adds an entry that somebody else has made; whether there was anything new in it. Records are
    /// authenticated anew: whoever calls this stands behind them.
    pub fn import(&self, digest: &Digest, entry: &Entry) -> bool {
        self.writer.change(|state| {
            let mut spec = state.known.entry(digest).cloned().unwrap_or_default().write(digest);
            let tags = entry
                .tags
                .iter()
                .map(|(image, record, _)| (image.clone(), record.clone(), self.key.mac(image, record)));
            let own = Entry { tags: tags.collect(), ..entry.clone() };
            if !own.add_to(&mut spec, digest) {
                return false;
            }
            let (entry, findings) = Entry::read(&spec, digest);
            let gone = state.known.put(digest, entry, findings, Some(&self.key));
            state.changed(gone.into_iter().chain([digest.clone()]));
            true
        })
    }

    /// All that is in it.
    pub fn all(&self) -> Known {
        self.writer.known().known.clone()
    }
}

impl Store for Directory {
    fn signatures(&self, digest: &Digest) -> Vec<Material> {
        self.writer.known().known.signatures(digest).to_vec()
    }

    fn index(&self, digest: &Digest) -> Option<Arc<Index>> {
        self.writer.known().known.index(digest)
    }

    fn indexes_of(&self, listed: &Digest) -> Vec<Digest> {
        self.writer.known().known.indexes_of(listed)
    }

    fn keep(&self, proof: &Verified<Signatures>, index: Option<&Arc<Index>>) {
        let (proof, key) = (proof.get(), Some(&self.key));
        self.writer.change(|state| {
            if let Some(gone) = state.known.add(&proof.digest, &proof.materials, index, key) {
                state.changed(gone.into_iter().chain([proof.digest.clone()]));
            }
        });
    }

    fn tag(&self, image: &Reference, now: Timestamp) -> Option<TagRecord> {
        TagRecord::latest(self.writer.known().known.records(image), now)
    }

    fn record_tag(&self, image: &Reference, record: TagRecord) {
        let lately = |of: &TagRecord| {
            let age = record.confirmed.duration_since(of.confirmed);
            of.digest == record.digest && of.origin == record.origin && !age.is_negative() && age < REFRESH
        };
        self.writer.change(|state| {
            // A tag is confirmed with every pod, and written once in a while.
            if !state.known.records(image).iter().any(lately) {
                let gone = state.known.record(image, record.clone(), Some(&self.key));
                state.changed(gone.into_iter().chain([record.digest.clone()]));
            }
        });
    }

    fn newest(&self) -> Option<Timestamp> {
        self.writer.known().known.newest()
    }

    fn findings(&self) -> Vec<String> {
        self.writer.known().known.findings()
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

/// What is in the files of a directory, and which of them are too many; what was written last is
/// the last to go.
fn read_all(path: &Path, most: usize, key: &RecordKey) -> Result<(Known, Vec<Digest>), DirectoryError> {
    let failed = |error| DirectoryError::Io { path: path.display().to_string(), error };
    let mut files = Vec::new();
    for entry in fs::read_dir(path).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if let Some(digest) = digest_of(&entry.file_name().to_string_lossy()) {
            let used = entry.metadata().and_then(|found| found.modified()).ok();
            files.push((used, digest, entry.path()));
        }
    }
    files.sort();
    let (mut known, mut gone) = (Known::new(most), Vec::new());
    for (_, digest, file) in files {
        let (entry, findings) = match read(&file) {
            Ok(document) => Entry::read(&document["spec"], &digest),
            Err(why) => (Entry::default(), vec![why]),
        };
        gone.extend(known.put(&digest, entry, findings, Some(key)));
    }
    Ok((known, gone))
}

fn read(file: &Path) -> Result<Value, String> {
    let length = file.metadata().map_err(|error| error.to_string())?.len();
    if length > MOST_BYTES {
        return Err(format!("the file is larger than {MOST_BYTES} bytes"));
    }
    let bytes = fs::read(file).map_err(|error| error.to_string())?;
    serde_json::from_slice(&bytes).map_err(|error| format!("the file is no JSON: {error}"))
}

/// Makes the secret of a directory where there is none: whole, or not at all.
fn make_key(directory: &Path) -> Result<(), DirectoryError> {
    let path = directory.join(KEY_FILE);
    let failed = |error| DirectoryError::Io { path: path.display().to_string(), error };
    if path.try_exists().map_err(failed)? {
        return Ok(());
    }
    let text = RecordKey::generate()
        .ok_or_else(|| failed(io::Error::other("the machine has no randomness to give")))?;
    let beside = directory.join(format!("{KEY_FILE}.{}{UNFINISHED}", std::process::id()));
    let mut options = OpenOptions::new();
    let mut file =
        options.write(true).create(true).truncate(true).mode(0o600).open(&beside).map_err(failed)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
    let linked = match fs::hard_link(&beside, &path) {
        // Whoever was first has made it.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        linked => linked,
    };
    _ = fs::remove_file(&beside);
    linked.and_then(|()| File::open(directory)?.sync_all()).map_err(failed)
}

/// The secret of a directory.
fn read_key(directory: &Path) -> Result<RecordKey, DirectoryError> {
    let path = directory.join(KEY_FILE);
    let shown = path.display().to_string();
    let failed = |error| DirectoryError::Io { path: shown.clone(), error };
    let mut file = File::open(&path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(DirectoryError::Open(shown));
    }
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(failed)?;
    RecordKey::parse(&text).ok_or(DirectoryError::Key(shown))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Origin;
    use countersign_signature::sign::{Scheme, Signer};
    use countersign_signature::{Judge, Limits, Located, Terms, Trust};
    use countersign_verdict::Attestors;
    use serde_json::json;
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
    fn one_process_has_it_open_and_others_look() {
        let directory = tempfile::tempdir().unwrap();
        let names = || {
            let entries = fs::read_dir(directory.path()).unwrap();
            let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        assert!(Directory::look(directory.path()).is_err() && names().is_empty(), "nothing is made");
        filled(directory.path());
        let store = Directory::open(directory.path()).unwrap();
        let unfinished = directory.path().join(format!("x{UNFINISHED}"));
        fs::write(&unfinished, "of the one that writes").unwrap();
        let before = names();
        let error = Directory::open(directory.path()).unwrap_err();
        assert!(matches!(error, DirectoryError::InUse(_)), "{error}");
        let looked = Directory::look(directory.path()).unwrap();
        assert_eq!((looked.records(&db("1")), looked.findings()), (vec![record(7)], vec![]));
        assert_eq!(names(), before);
        drop(store);
        Directory::open(directory.path()).unwrap();
    }

    #[test]
    fn what_cannot_be_written_is_written_when_it_can_and_nothing_waits_for_it() {
        let directory = tempfile::tempdir().unwrap();
        let digest = |number: usize| Digest::sha256_of(&number.to_be_bytes());
        let store = Directory::open(directory.path()).unwrap();
        // A file cannot take the place of a directory, which is first in the order of digests.
        let first = (0..50).map(digest).min().unwrap();
        let in_the_way = directory.path().join(name_of(&first));
        fs::create_dir(&in_the_way).unwrap();
        for number in 0..50 {
            store.record_tag(&db(&number.to_string()), TagRecord { digest: digest(number), ..record(7) });
        }
        let written = || {
            let files = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap());
            files
                .filter(|entry| {
                    entry.path().is_file() && digest_of(&entry.file_name().to_string_lossy()).is_some()
                })
                .count()
        };
        let until = |count: usize| {
            for _ in 0..4_000 {
                if written() == count {
                    return;
                }
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            panic!("{} of {count} are written", written());
        };
        until(49);
        fs::remove_dir(&in_the_way).unwrap();
        until(50);
        drop(store);
        assert_eq!(Directory::look(directory.path()).unwrap().len(), 50);
    }

    #[test]
    fn the_secret_may_be_removed_while_the_directory_is_in_use() {
        let directory = tempfile::tempdir().unwrap();
        filled(directory.path());
        let store = Directory::open(directory.path()).unwrap();
        fs::remove_file(directory.path().join(KEY_FILE)).unwrap();
        let error = Directory::open(directory.path()).unwrap_err();
        assert!(matches!(error, DirectoryError::InUse(_)), "{error}");
        drop(store);
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
