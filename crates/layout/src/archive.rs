//! A layout in one tar file, read where it lies: nothing is ever unpacked.
//!
//! Only regular files under the names of a layout count. A link, a device, an absolute or
//! climbing name, a sparse file, a name that stands twice, a header of any length: the archive is
//! refused (T-45).

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Component, Path};
use std::sync::Arc;

use tar::{EntryType, Header};

use crate::{Blob, LayoutError, io_error};

/// Files in one archive.
const MAX_FILES: usize = 1_000_000;

/// Bytes that are read to come from one file to the next: headers, and the headers of long names.
const MAX_HEADERS: u64 = 64 << 10;

/// Reads headers, and nothing that is larger: what an archive calls a long name is read whole.
struct Headers<'a> {
    file: &'a File,
    left: Cell<u64>,
}

impl Read for &Headers<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut file = self.file;
        let read = file.read(buffer)?;
        let left = self.left.get().checked_sub(read as u64);
        self.left.set(left.ok_or_else(|| io::Error::other("a header that no image layout needs"))?);
        Ok(read)
    }
}

impl Seek for &Headers<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let mut file = self.file;
        file.seek(to)
    }
}

/// Where each file of an archive lies.
#[derive(Debug)]
pub(crate) struct Archive {
    file: Arc<File>,
    files: BTreeMap<String, (u64, u64)>,
}

impl Archive {
    pub(crate) fn open(path: &Path) -> Result<Self, LayoutError> {
        let malformed = |why: String| LayoutError::Malformed { path: path.display().to_string(), why };
        let file = File::open(path).map_err(|error| io_error(path, error))?;
        let length = file.metadata().map_err(|error| io_error(path, error))?.len();
        let mut files = BTreeMap::new();
        let headers = Headers { file: &file, left: Cell::new(MAX_HEADERS) };
        let mut archive = tar::Archive::new(&headers);
        let entries = archive.entries_with_seek().map_err(|error| io_error(path, error))?;
        for entry in entries {
            headers.left.set(MAX_HEADERS);
            let entry =
                entry.map_err(|error| malformed(format!("not a tar archive, or cut off: {error}")))?;
            let name = entry.path().map_err(|error| malformed(error.to_string()))?.into_owned();
            let shown = name.display().to_string();
            let Some(plain) = plain_name(&name) else {
                return Err(malformed(format!("`{shown}` is not a name below the archive's root")));
            };
            match entry.header().entry_type() {
                EntryType::Directory => continue,
                EntryType::Regular => {}
                other => {
                    return Err(malformed(format!(
                        "`{shown}` is no regular file ({other:?}), which no image layout has"
                    )));
                }
            }
            let (start, size) = (entry.raw_file_position(), entry.size());
            if start.checked_add(size).is_none_or(|end| end > length) {
                return Err(malformed(format!("`{shown}` goes on beyond the end: the archive is cut off")));
            }
            if files.len() == MAX_FILES {
                return Err(malformed(format!("more than {MAX_FILES} files")));
            }
            if files.insert(plain, (start, size)).is_some() {
                return Err(malformed(format!("`{shown}` stands twice")));
            }
        }
        Ok(Self { file: Arc::new(file), files })
    }

    pub(crate) fn file(&self, name: &str) -> Option<Blob> {
        let (start, size) = self.files.get(name)?;
        Some(Blob::new(Arc::clone(&self.file), *start, *size))
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }
}

/// A name of plain parts, without a leading `./`.
fn plain_name(path: &Path) -> Option<String> {
    let mut parts = Vec::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::Normal(part) => parts.push(part.to_str()?),
            _ => return None,
        }
    }
    Some(parts.join("/"))
}

/// Writes files into a tar archive, the same bytes for the same files: no times, no owners.
pub(crate) struct Packer<W: io::Write>(tar::Builder<W>);

impl<W: io::Write> Packer<W> {
    pub(crate) fn new(to: W) -> Self {
        Self(tar::Builder::new(to))
    }

    pub(crate) fn add(&mut self, name: &str, content: Blob) -> io::Result<()> {
        self.append(name, content.length(), content)
    }

    pub(crate) fn add_text(&mut self, name: &str, text: &[u8]) -> io::Result<()> {
        self.append(name, text.len() as u64, text)
    }

    fn append(&mut self, name: &str, length: u64, content: impl Read) -> io::Result<()> {
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0o644);
        header.set_size(length);
        header.set_mtime(0);
        self.0.append_data(&mut header, name, content)
    }

    pub(crate) fn finish(self) -> io::Result<W> {
        self.0.into_inner()
    }
}
