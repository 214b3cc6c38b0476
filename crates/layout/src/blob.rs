//! Content that is read piece by piece.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

/// Content of a layout, or a part of it: a stretch of a file.
///
/// What is read is not hashed: that is for whoever needs all of it to be right.
#[derive(Clone, Debug)]
pub struct Blob {
    file: Arc<File>,
    offset: u64,
    length: u64,
}

impl Blob {
    pub(crate) fn new(file: Arc<File>, offset: u64, length: u64) -> Self {
        Self { file, offset, length }
    }

    /// How many bytes are left to read.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The bytes from `start` on, at most so many.
    #[must_use]
    pub fn range(&self, start: u64, length: u64) -> Self {
        let start = start.min(self.length);
        let length = length.min(self.length - start);
        Self { file: Arc::clone(&self.file), offset: self.offset + start, length }
    }
}

impl Read for Blob {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.length).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.file.read_at(&mut buffer[..most], self.offset)?;
        self.offset += read as u64;
        self.length -= read as u64;
        Ok(read)
    }
}
