//! OCI image layouts on disk (OCI image-spec, `image-layout.md`).
//!
//! ```text
//! oci-layout            {"imageLayoutVersion":"1.0.0"}
//! index.json            one descriptor for each name that content is known by
//! blobs/sha256/<hex>    content, under its digest
//! ```
//!
//! Content is written beside its place and renamed into it, after a sync: a file under its
//! digest is whole, whenever the writer was killed. What is read back is hashed again.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use countersign_reference::{Algorithm, Digest};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// The annotation under which a layout names its entries.
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// Bytes of an `index.json` that are read.
const MAX_INDEX: u64 = 64 << 20;

/// Content and what it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Descriptor {
    /// Its media type.
    #[serde(rename = "mediaType")]
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// What is said about it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// A directory that is an image layout.
#[derive(Debug)]
pub struct Layout {
    root: PathBuf,
    temporary: AtomicU64,
    /// The index as it was last read: another process may replace the file at any time.
    index: Mutex<Option<Known>>,
}

/// An index that was read. The file stays open, so that no other can get its inode.
#[derive(Debug)]
struct Known {
    stamp: Stamp,
    entries: Arc<[Descriptor]>,
    _file: File,
}

/// Tells one state of the index from another, as it is only ever replaced whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    length: u64,
    modified: (i64, i64),
}

impl Stamp {
    fn of(data: &Metadata) -> Self {
        Self { inode: data.ino(), length: data.len(), modified: (data.mtime(), data.mtime_nsec()) }
    }
}

/// A layout that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LayoutError {
    /// The disk says no.
    #[error("{path}: {error}")]
    Io {
        /// Which file.
        path: String,
        /// What went wrong.
        error: io::Error,
    },
    /// A file is not what it should be.
    #[error("{path}: {why}")]
    Malformed {
        /// Which file.
        path: String,
        /// What is wrong.
        why: String,
    },
    /// Content is not what its name says.
    #[error("{digest} is damaged: its content is of {found}")]
    Damaged {
        /// The name.
        digest: Digest,
        /// What the content hashes to.
        found: Digest,
    },
    /// There is no such content.
    #[error("{0} is not in the layout")]
    Absent(Digest),
}

#[derive(Serialize, Deserialize)]
struct Index {
    #[serde(rename = "schemaVersion")]
    schema_version: u32,
    manifests: Vec<Descriptor>,
}

fn io_error(path: &Path, error: io::Error) -> LayoutError {
    LayoutError::Io { path: path.display().to_string(), error }
}

impl Layout {
    fn at(root: &Path) -> Self {
        Self { root: root.to_owned(), temporary: AtomicU64::new(0), index: Mutex::default() }
    }

    /// Opens a directory, and makes it a layout where it is none yet.
    pub fn create(root: &Path) -> Result<Self, LayoutError> {
        let layout = Self::at(root);
        for name in ["sha256", "sha512"] {
            let directory = root.join("blobs").join(name);
            fs::create_dir_all(&directory).map_err(|error| io_error(&directory, error))?;
        }
        if !root.join("oci-layout").exists() {
            let version = json!({ "imageLayoutVersion": "1.0.0" }).to_string();
            layout.write(&root.join("oci-layout"), version.as_bytes())?;
        }
        if !root.join("index.json").exists() {
            layout.save(Vec::new())?;
        }
        Ok(layout)
    }

    /// Opens a directory that has to be a layout.
    pub fn open(root: &Path) -> Result<Self, LayoutError> {
        let layout = Self::at(root);
        layout.entries()?;
        Ok(layout)
    }

    /// Keeps content under its digest. What is there already is not written again.
    pub fn put(&self, content: &[u8]) -> Result<Digest, LayoutError> {
        let digest = Digest::sha256_of(content);
        let path = self.path(&digest);
        if !path.exists() {
            self.write(&path, content)?;
        }
        Ok(digest)
    }

    /// The content of a digest, hashed again.
    pub fn get(&self, digest: &Digest) -> Result<Vec<u8>, LayoutError> {
        let path = self.path(digest);
        let content = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(LayoutError::Absent(digest.clone()));
            }
            other => other.map_err(|error| io_error(&path, error))?,
        };
        if digest.is_of(&content) {
            return Ok(content);
        }
        Err(LayoutError::Damaged { digest: digest.clone(), found: Digest::of(digest.algorithm(), &content) })
    }

    /// The entries of the index, as they are at this moment.
    pub fn entries(&self) -> Result<Arc<[Descriptor]>, LayoutError> {
        let path = self.root.join("index.json");
        let malformed = |why: String| LayoutError::Malformed { path: path.display().to_string(), why };
        let mut file = File::open(&path).map_err(|error| io_error(&path, error))?;
        let stamp = Stamp::of(&file.metadata().map_err(|error| io_error(&path, error))?);
        if let Some(known) = self.known().as_ref().filter(|known| known.stamp == stamp) {
            return Ok(Arc::clone(&known.entries));
        }
        if stamp.length > MAX_INDEX {
            return Err(malformed(format!("larger than {MAX_INDEX} bytes")));
        }
        let mut text = Vec::new();
        file.read_to_end(&mut text).map_err(|error| io_error(&path, error))?;
        let index: Index = serde_json::from_slice(&text).map_err(|error| malformed(error.to_string()))?;
        if index.schema_version != 2 {
            return Err(malformed("not of schema version 2".to_owned()));
        }
        let entries: Arc<[Descriptor]> = index.manifests.into();
        *self.known() = Some(Known { stamp, entries: Arc::clone(&entries), _file: file });
        Ok(entries)
    }

    fn known(&self) -> MutexGuard<'_, Option<Known>> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Names content in the index; an entry of the same name is replaced.
    pub fn name(&self, name: &str, mut descriptor: Descriptor) -> Result<(), LayoutError> {
        descriptor.annotations.insert(REF_NAME.to_owned(), name.to_owned());
        let mut entries = self.entries()?.to_vec();
        entries.retain(|entry| entry.annotations.get(REF_NAME).map(String::as_str) != Some(name));
        entries.push(descriptor);
        self.save(entries)
    }

    fn save(&self, manifests: Vec<Descriptor>) -> Result<(), LayoutError> {
        let index = Index { schema_version: 2, manifests };
        let malformed = |error: serde_json::Error| LayoutError::Malformed {
            path: self.root.join("index.json").display().to_string(),
            why: error.to_string(),
        };
        self.write(&self.root.join("index.json"), &serde_json::to_vec(&index).map_err(malformed)?)
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        let algorithm = match digest.algorithm() {
            Algorithm::Sha256 => "sha256",
            Algorithm::Sha512 => "sha512",
        };
        self.root.join("blobs").join(algorithm).join(digest.hex())
    }

    /// Beside its place first, then synced, then into its place.
    fn write(&self, path: &Path, content: &[u8]) -> Result<(), LayoutError> {
        let number = self.temporary.fetch_add(1, Ordering::Relaxed);
        let beside = self.root.join(format!(".{}-{number}.tmp", std::process::id()));
        let write = || -> io::Result<()> {
            let mut file = File::create(&beside)?;
            file.write_all(content)?;
            file.sync_all()?;
            fs::rename(&beside, path)
        };
        write().map_err(|error| io_error(path, error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor(digest: Digest, size: usize) -> Descriptor {
        Descriptor {
            media_type: "text/plain".to_owned(),
            digest,
            size: size as u64,
            annotations: BTreeMap::new(),
        }
    }

    #[test]
    fn what_is_put_is_there_and_damage_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::create(directory.path()).unwrap();
        let digest = layout.put(b"content").unwrap();
        layout.name("a/b:1", descriptor(digest.clone(), 7)).unwrap();
        layout.name("a/b:1", descriptor(digest.clone(), 7)).unwrap();
        let layout = Layout::open(directory.path()).unwrap();
        assert_eq!(layout.entries().unwrap().len(), 1);
        assert_eq!(layout.get(&digest).unwrap(), b"content");
        fs::write(layout.path(&digest), b"other").unwrap();
        assert!(matches!(layout.get(&digest), Err(LayoutError::Damaged { .. })));
        assert!(matches!(layout.get(&Digest::sha256_of(b"x")), Err(LayoutError::Absent(_))));
    }

    #[test]
    fn what_is_no_layout_is_said_with_its_file() {
        let directory = tempfile::tempdir().unwrap();
        assert!(Layout::open(directory.path()).unwrap_err().to_string().contains("index.json"));
        fs::write(directory.path().join("index.json"), "{").unwrap();
        assert!(matches!(Layout::open(directory.path()), Err(LayoutError::Malformed { .. })));
    }

    #[test]
    fn what_another_writer_adds_is_seen() {
        let directory = tempfile::tempdir().unwrap();
        let (reader, writer) =
            (Layout::create(directory.path()).unwrap(), Layout::create(directory.path()).unwrap());
        assert_eq!(reader.entries().unwrap().len(), 0);
        for number in 1..=20 {
            let digest = writer.put(b"content").unwrap();
            writer.name(&format!("a:{number}"), descriptor(digest, 7)).unwrap();
            assert_eq!(reader.entries().unwrap().len(), number);
        }
    }
}
