//! Writing into a directory: beside its place, synced, then into its place.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use countersign_reference::{Algorithm, Digest, Hasher};
use serde_json::json;

use crate::archive::Packer;
use crate::{
    Descriptor, INDEX_FILE, IndexDocument, Layout, LayoutError, Place, REF_NAME, VERSION, VERSION_FILE,
    io_error, name_of,
};

impl Layout {
    /// Opens a directory, and makes it a layout where it is none yet.
    pub fn create(root: &Path) -> Result<Self, LayoutError> {
        let layout = Self::at(Place::Directory(root.to_owned()));
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let directory = root.join("blobs").join(algorithm.name());
            fs::create_dir_all(&directory).map_err(|error| io_error(&directory, error))?;
        }
        remove_abandoned(root);
        if !root.join(VERSION_FILE).exists() {
            let version = json!({ "imageLayoutVersion": VERSION }).to_string();
            layout.put_file(VERSION_FILE, version.as_bytes())?;
        }
        if !root.join(INDEX_FILE).exists() {
            layout.set_index(Vec::new(), BTreeMap::new())?;
        }
        Ok(layout)
    }

    fn root(&self) -> Result<&Path, LayoutError> {
        match &self.place {
            Place::Directory(root) => Ok(root),
            Place::Archive { path, .. } => Err(LayoutError::ReadOnly(path.display().to_string())),
        }
    }

    /// Keeps content under its SHA-256 digest. What is there already is not written again.
    pub fn put(&self, content: &[u8]) -> Result<Digest, LayoutError> {
        let digest = Digest::sha256_of(content);
        self.put_as(&digest, content)?;
        Ok(digest)
    }

    /// Keeps content under this digest of it.
    ///
    /// # Errors
    ///
    /// [`LayoutError::Damaged`] where it is of another.
    pub fn put_as(&self, digest: &Digest, content: &[u8]) -> Result<(), LayoutError> {
        if !self.has(digest) {
            let mut incoming = self.incoming(digest)?;
            incoming.write_all(content).map_err(|error| io_error(self.path(), error))?;
            incoming.finish()?;
        }
        Ok(())
    }

    /// Content that arrives piece by piece, to be kept under this digest if it is of it.
    pub fn incoming(&self, digest: &Digest) -> Result<Incoming, LayoutError> {
        let root = self.root()?;
        let beside = self.beside(root);
        let file = File::create(&beside).map_err(|error| io_error(&beside, error))?;
        let target = root.join(crate::blob_name(digest));
        let hasher = Some(Hasher::new(digest.algorithm()));
        Ok(Incoming { digest: digest.clone(), beside, target, file: Some(file), hasher, length: 0 })
    }

    fn beside(&self, root: &Path) -> PathBuf {
        let number = self.temporary.fetch_add(1, Ordering::Relaxed);
        root.join(format!(".{}-{number}.tmp", std::process::id()))
    }

    /// Writes a file beside the content.
    pub fn put_file(&self, name: &str, content: &[u8]) -> Result<(), LayoutError> {
        let root = self.root()?;
        let (path, beside) = (root.join(name), self.beside(root));
        let write = || -> io::Result<()> {
            let mut file = File::create(&beside)?;
            file.write_all(content)?;
            file.sync_all()?;
            fs::rename(&beside, &path)
        };
        write().map_err(|error| io_error(&path, error))
    }

    /// Names content in the index; an entry of the same name is replaced.
    pub fn name(&self, name: &str, mut descriptor: Descriptor) -> Result<(), LayoutError> {
        descriptor.annotations.insert(REF_NAME.to_owned(), name.to_owned());
        // Read, changed and written by one at a time.
        let _turn = self.naming.lock().unwrap_or_else(PoisonError::into_inner);
        let index = self.index()?;
        let mut entries = index.manifests.clone();
        entries.retain(|entry| name_of(entry) != Some(name));
        entries.push(descriptor);
        self.set_index(entries, index.annotations.clone())
    }

    /// Replaces the index; entries are put in the order of their names.
    pub fn set_index(
        &self,
        mut manifests: Vec<Descriptor>,
        annotations: BTreeMap<String, String>,
    ) -> Result<(), LayoutError> {
        manifests.sort_by(|a, b| name_of(a).cmp(&name_of(b)).then_with(|| a.digest.cmp(&b.digest)));
        let media_type = Some(countersign_manifest::INDEX.to_owned());
        let index = IndexDocument { schema_version: 2, media_type, manifests, annotations };
        let text = serde_json::to_vec(&index).map_err(|error| LayoutError::Malformed {
            path: self.path().join(INDEX_FILE).display().to_string(),
            why: error.to_string(),
        })?;
        self.put_file(INDEX_FILE, &text)
    }

    /// Packs all of it into a tar file: the same bytes for the same content.
    pub fn pack(&self, to: &Path, beside: &[&str]) -> Result<(), LayoutError> {
        let mut partial = to.as_os_str().to_owned();
        partial.push(".tmp");
        let partial = PathBuf::from(partial);
        let file = File::create(&partial).map_err(|error| io_error(&partial, error))?;
        let mut packer = Packer::new(BufWriter::new(file));
        let mut names: Vec<String> = vec![VERSION_FILE.to_owned(), INDEX_FILE.to_owned()];
        names.extend(beside.iter().map(|name| (*name).to_owned()));
        names.extend(self.digests()?.0.iter().map(crate::blob_name));
        for name in names {
            if let Some(content) = self.file(&name)? {
                packer.add(&name, content).map_err(|error| io_error(&partial, error))?;
            }
        }
        let finish = || -> io::Result<()> {
            let file = packer.finish()?.into_inner().map_err(io::IntoInnerError::into_error)?;
            file.sync_all()?;
            fs::rename(&partial, to)
        };
        finish().map_err(|error| io_error(to, error))
    }
}

impl Layout {
    /// Writes a part of it as an archive of its own: these entries, and this content.
    pub fn export(
        &self,
        manifests: &[Descriptor],
        content: &[Digest],
        to: impl Write,
    ) -> Result<(), LayoutError> {
        let failed = |error| io_error(Path::new("the archive"), error);
        let index =
            json!({ "schemaVersion": 2, "mediaType": countersign_manifest::INDEX, "manifests": manifests });
        let version = json!({ "imageLayoutVersion": VERSION });
        let mut packer = Packer::new(to);
        for (name, text) in [(VERSION_FILE, version), (INDEX_FILE, index)] {
            packer.add_text(name, text.to_string().as_bytes()).map_err(failed)?;
        }
        for digest in content {
            packer.add(&crate::blob_name(digest), self.blob(digest)?).map_err(failed)?;
        }
        packer.finish().map(|_| ()).map_err(failed)
    }
}

/// Removes what writers left behind that are no more.
fn remove_abandoned(root: &Path) {
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        let name = entry.file_name().display().to_string();
        let parts = name.strip_prefix('.').and_then(|name| name.strip_suffix(".tmp")?.split_once('-'));
        if parts.is_some_and(|(writer, _)| {
            writer.parse::<u32>().is_ok() && !Path::new("/proc").join(writer).exists()
        }) {
            _ = fs::remove_file(entry.path());
        }
    }
}

/// Content on its way into a layout. Dropped before its end, nothing is kept.
pub struct Incoming {
    digest: Digest,
    beside: PathBuf,
    target: PathBuf,
    file: Option<File>,
    hasher: Option<Hasher>,
    length: u64,
}

impl Write for Incoming {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let ended = || io::Error::other("content goes on after its end");
        let written = self.file.as_mut().ok_or_else(ended)?.write(bytes)?;
        self.hasher.as_mut().ok_or_else(ended)?.update(&bytes[..written]);
        self.length += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Incoming {
    /// Keeps what has arrived, and says how many bytes it was.
    ///
    /// # Errors
    ///
    /// [`LayoutError::Damaged`] where it is not of the digest that was announced.
    pub fn finish(mut self) -> Result<u64, LayoutError> {
        let found = self.hasher.take().map(Hasher::finish);
        if let Some(found) = found.filter(|found| *found != self.digest) {
            return Err(LayoutError::Damaged { digest: self.digest.clone(), found });
        }
        let keep = |file: Option<File>| -> io::Result<()> {
            if let Some(file) = file {
                file.sync_all()?;
            }
            fs::rename(&self.beside, &self.target)
        };
        let file = self.file.take();
        keep(file).map_err(|error| io_error(&self.target, error))?;
        Ok(self.length)
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        _ = fs::remove_file(&self.beside);
    }
}
