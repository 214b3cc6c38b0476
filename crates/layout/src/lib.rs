//! OCI image layouts on disk (OCI image-spec, `image-layout.md`), as a directory or a tar file.
//!
//! ```text
//! oci-layout            {"imageLayoutVersion":"1.0.0"}
//! index.json            one descriptor for each name that content is known by
//! blobs/sha256/<hex>    content, under its digest
//! ```
//!
//! Content is written beside its place and renamed into it, after a sync: a file under its
//! digest is whole, whenever the writer was killed. A tar file is read where it lies, and not
//! written to.

mod archive;
mod blob;
pub mod canary;
mod catalog;
mod write;

pub use blob::Blob;
pub use catalog::Catalog;
pub use countersign_manifest::Descriptor;
pub use write::Incoming;

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use countersign_reference::{Algorithm, Digest, Hasher};
use serde::{Deserialize, Serialize};

use archive::Archive;

/// The annotation under which a layout names its entries.
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// Bytes of an `index.json` that are read.
const MAX_INDEX: u64 = 64 << 20;
/// Bytes of content that is read whole: documents and signatures, not layers.
pub const MAX_WHOLE: u64 = 16 << 20;
/// Bytes that are read and written at a time.
const CHUNK: usize = 256 << 10;
const INDEX_FILE: &str = "index.json";
const VERSION_FILE: &str = "oci-layout";
const VERSION: &str = "1.0.0";
/// Bytes of the file that names the version.
const MAX_VERSION: u64 = 4096;

/// An image layout.
#[derive(Debug)]
pub struct Layout {
    place: Place,
    temporary: AtomicU64,
    /// A directory's index as it was last read: another process may replace it at any time.
    known: Mutex<Option<Known>>,
    /// Held while an entry is added to the index.
    naming: Mutex<()>,
}

#[derive(Debug)]
enum Place {
    Directory(PathBuf),
    Archive { path: PathBuf, archive: Archive, index: Arc<Index> },
}

/// What a layout holds, by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    /// One entry for each name, with the name in its annotation [`REF_NAME`].
    pub manifests: Vec<Descriptor>,
    /// What is said about the whole.
    pub annotations: BTreeMap<String, String>,
    /// The digest of the bytes that this was read from.
    pub digest: Digest,
}

#[derive(Serialize, Deserialize)]
struct Version {
    #[serde(rename = "imageLayoutVersion")]
    version: String,
}

#[derive(Serialize, Deserialize)]
struct IndexDocument {
    #[serde(rename = "schemaVersion")]
    schema_version: u32,
    #[serde(rename = "mediaType", default, skip_serializing_if = "Option::is_none")]
    media_type: Option<String>,
    manifests: Vec<Descriptor>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
}

impl Index {
    fn parse(path: &Path, text: &[u8]) -> Result<Self, LayoutError> {
        let malformed = |why: String| LayoutError::Malformed { path: path.display().to_string(), why };
        let read: IndexDocument =
            serde_json::from_slice(text).map_err(|error| malformed(error.to_string()))?;
        if read.schema_version != 2 {
            return Err(malformed("not of schema version 2".to_owned()));
        }
        let (manifests, annotations) = (read.manifests, read.annotations);
        Ok(Self { manifests, annotations, digest: Digest::sha256_of(text) })
    }

    /// Entries with the name that each is known by.
    pub fn named(&self) -> impl Iterator<Item = (&str, &Descriptor)> {
        self.manifests.iter().filter_map(|entry| Some((name_of(entry)?, entry)))
    }
}

fn name_of(entry: &Descriptor) -> Option<&str> {
    entry.annotations.get(REF_NAME).map(String::as_str)
}

/// An index that was read. The file stays open, so that no other can get its inode.
#[derive(Debug)]
struct Known {
    stamp: Stamp,
    index: Arc<Index>,
    _file: Arc<File>,
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
    /// More than is read whole.
    #[error("{digest} has {length} bytes, more than is read at once")]
    TooLarge {
        /// Which content.
        digest: Digest,
        /// Its length.
        length: u64,
    },
    /// A tar file is only read.
    #[error("{0} is an archive, which cannot be added to: use a directory")]
    ReadOnly(String),
}

pub(crate) fn io_error(path: &Path, error: io::Error) -> LayoutError {
    LayoutError::Io { path: path.display().to_string(), error }
}

impl Layout {
    fn at(place: Place) -> Self {
        Self { place, temporary: AtomicU64::new(0), known: Mutex::default(), naming: Mutex::default() }
    }

    /// Opens what has to be a layout: a directory or a tar file.
    pub fn open(path: &Path) -> Result<Self, LayoutError> {
        if path.is_dir() {
            let layout = Self::at(Place::Directory(path.to_owned()));
            layout.index()?;
            layout.check_version()?;
            return Ok(layout);
        }
        let archive = Archive::open(path)?;
        let inside = path.join(INDEX_FILE);
        let why = "there is no index.json: this is no image layout".to_owned();
        let missing = || LayoutError::Malformed { path: path.display().to_string(), why };
        let text = whole(&inside, archive.file(INDEX_FILE).ok_or_else(missing)?, MAX_INDEX)?;
        let index = Arc::new(Index::parse(&inside, &text)?);
        let layout = Self::at(Place::Archive { path: path.to_owned(), archive, index });
        layout.check_version()?;
        Ok(layout)
    }

    /// The one version there is (image-layout.md, "oci-layout file").
    fn check_version(&self) -> Result<(), LayoutError> {
        let path = self.path().join(VERSION_FILE);
        let malformed =
            |why: &str| LayoutError::Malformed { path: path.display().to_string(), why: why.to_owned() };
        let file =
            self.file(VERSION_FILE)?.ok_or_else(|| malformed("there is none: this is no image layout"))?;
        let version: Version = serde_json::from_slice(&whole(&path, file, MAX_VERSION)?)
            .map_err(|error| malformed(&error.to_string()))?;
        if version.version == VERSION { Ok(()) } else { Err(malformed("expected imageLayoutVersion 1.0.0")) }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        match &self.place {
            Place::Directory(path) | Place::Archive { path, .. } => path,
        }
    }

    /// The index, as it is at this moment.
    pub fn index(&self) -> Result<Arc<Index>, LayoutError> {
        let root = match &self.place {
            Place::Archive { index, .. } => return Ok(Arc::clone(index)),
            Place::Directory(root) => root,
        };
        let path = root.join(INDEX_FILE);
        let file = Arc::new(open_regular(&path).map_err(|error| io_error(&path, error))?);
        let stamp = Stamp::of(&file.metadata().map_err(|error| io_error(&path, error))?);
        if let Some(known) = self.known().as_ref().filter(|known| known.stamp == stamp) {
            return Ok(Arc::clone(&known.index));
        }
        let text = whole(&path, Blob::new(Arc::clone(&file), 0, stamp.length), MAX_INDEX)?;
        let index = Arc::new(Index::parse(&path, &text)?);
        *self.known() = Some(Known { stamp, index: Arc::clone(&index), _file: file });
        Ok(index)
    }

    fn known(&self) -> MutexGuard<'_, Option<Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Content that is read piece by piece; it is not hashed.
    pub fn blob(&self, digest: &Digest) -> Result<Blob, LayoutError> {
        self.file(&blob_name(digest))?.ok_or_else(|| LayoutError::Absent(digest.clone()))
    }

    /// A file beside the content.
    pub fn file(&self, name: &str) -> Result<Option<Blob>, LayoutError> {
        let path = match &self.place {
            Place::Archive { archive, .. } => return Ok(archive.file(name)),
            Place::Directory(root) => root.join(name),
        };
        // A link would lead out of the layout, a pipe would never end (T-45).
        let opened = open_regular(&path).and_then(|file| Ok((file.metadata()?.len(), file)));
        match opened {
            Ok((length, file)) => Ok(Some(Blob::new(Arc::new(file), 0, length))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io_error(&path, error)),
        }
    }

    /// Whether there is content under this digest: what is there is whole.
    pub fn has(&self, digest: &Digest) -> bool {
        match &self.place {
            Place::Archive { archive, .. } => archive.file(&blob_name(digest)).is_some(),
            Place::Directory(root) => {
                fs::symlink_metadata(root.join(blob_name(digest))).is_ok_and(|data| data.is_file())
            }
        }
    }

    /// The content of a digest, hashed again; a document or a signature, not a layer.
    pub fn get(&self, digest: &Digest) -> Result<Vec<u8>, LayoutError> {
        let blob = self.blob(digest)?;
        if blob.length() > MAX_WHOLE {
            return Err(LayoutError::TooLarge { digest: digest.clone(), length: blob.length() });
        }
        let content = whole(&self.path().join(blob_name(digest)), blob, MAX_WHOLE)?;
        if digest.is_of(&content) {
            return Ok(content);
        }
        Err(LayoutError::Damaged { digest: digest.clone(), found: Digest::of(digest.algorithm(), &content) })
    }

    /// Reads all of some content, and says how many bytes there are.
    ///
    /// # Errors
    ///
    /// [`LayoutError::Absent`], or [`LayoutError::Damaged`] where it is not what its name says.
    pub fn check(&self, digest: &Digest) -> Result<u64, LayoutError> {
        let mut blob = self.blob(digest)?;
        let length = blob.length();
        let mut hasher = Hasher::new(digest.algorithm());
        let mut buffer = vec![0; CHUNK];
        loop {
            let read = blob.read(&mut buffer).map_err(|error| io_error(self.path(), error))?;
            if read == 0 {
                break;
            }
            hasher.update(&buffer[..read]);
        }
        let found = hasher.finish();
        if found == *digest {
            Ok(length)
        } else {
            Err(LayoutError::Damaged { digest: digest.clone(), found })
        }
    }

    /// Every digest that there is content under, in order; and the files beside it that are named
    /// otherwise, for whoever wants nothing unaccounted for.
    pub fn digests(&self) -> Result<(Vec<Digest>, Vec<String>), LayoutError> {
        let mut names = Vec::new();
        match &self.place {
            Place::Archive { archive, .. } => {
                names
                    .extend(archive.names().filter(|name| name.starts_with("blobs/")).map(ToOwned::to_owned));
            }
            Place::Directory(root) => {
                let known = [Algorithm::Sha256, Algorithm::Sha512].map(Algorithm::name);
                for name in names_in(&root.join("blobs"))? {
                    if known.contains(&name.as_str()) {
                        let inner = names_in(&root.join("blobs").join(&name))?;
                        names.extend(inner.into_iter().map(|file| format!("blobs/{name}/{file}")));
                    } else {
                        names.push(format!("blobs/{name}"));
                    }
                }
            }
        }
        names.sort();
        let (mut digests, mut strays) = (Vec::new(), Vec::new());
        for name in names {
            let text = name.strip_prefix("blobs/").map(|rest| rest.replacen('/', ":", 1));
            match text.and_then(|text| Digest::parse(&text).ok()) {
                Some(digest) => digests.push(digest),
                None => strays.push(name),
            }
        }
        Ok((digests, strays))
    }
}

fn open_regular(path: &Path) -> io::Result<File> {
    if fs::symlink_metadata(path)?.is_file() {
        File::open(path)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"))
    }
}

/// The names in a directory; none where there is none.
fn names_in(path: &Path) -> Result<Vec<String>, LayoutError> {
    let failed = |error| io_error(path, error);
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(failed)?,
    };
    entries.map(|entry| Ok(entry.map_err(failed)?.file_name().display().to_string())).collect()
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().name(), digest.hex())
}

fn whole(path: &Path, mut blob: Blob, most: u64) -> Result<Vec<u8>, LayoutError> {
    if blob.length() > most {
        let why = format!("larger than {most} bytes");
        return Err(LayoutError::Malformed { path: path.display().to_string(), why });
    }
    let mut content = Vec::with_capacity(usize::try_from(blob.length()).unwrap_or_default());
    blob.read_to_end(&mut content).map_err(|error| io_error(path, error))?;
    Ok(content)
}

#[cfg(test)]
mod tests;
