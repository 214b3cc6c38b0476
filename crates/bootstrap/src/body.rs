//! Content sent in chunks, each read by a thread that may wait for the disk.

use std::io::{self, Read as _};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use countersign_layout::Blob;
use http_body::{Body, Frame, SizeHint};
use tokio::task::{JoinHandle, spawn_blocking};

/// Bytes of a chunk.
const CHUNK: u64 = 192 << 10;
/// Chunks that a response holds at most to use them again: hyper keeps three until they are written.
const KEPT: usize = 4;

pub(crate) struct Chunks {
    /// What has not been read.
    rest: Blob,
    /// The chunk that is being read. Nothing is read ahead of the client, and no thread waits for it.
    reading: Option<JoinHandle<io::Result<BytesMut>>>,
    /// Chunks that were sent: the memory of those that are written is used again.
    sent: Vec<Bytes>,
}

impl Chunks {
    pub(crate) fn of(rest: Blob) -> Self {
        Self { rest, reading: None, sent: Vec::with_capacity(KEPT) }
    }

    /// Takes the next chunk off, to be read.
    fn next(&mut self) -> JoinHandle<io::Result<BytesMut>> {
        let mut chunk = self.rest.range(0, CHUNK);
        self.rest = self.rest.range(chunk.length(), u64::MAX);
        let length = usize::try_from(chunk.length()).unwrap_or_default();
        let free = self.sent.iter().position(Bytes::is_unique).map(|at| self.sent.swap_remove(at));
        // Made here: what threads that come and go allocate, each of them would keep.
        let mut buffer = free.and_then(|chunk| chunk.try_into_mut().ok()).unwrap_or_default();
        buffer.resize(length, 0);
        spawn_blocking(move || {
            // A file that was cut off: the client was told another length.
            chunk.read_exact(&mut buffer)?;
            Ok(buffer)
        })
    }
}

impl Body for Chunks {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let mut reading = match self.reading.take() {
            Some(reading) => reading,
            None if self.rest.length() == 0 => return Poll::Ready(None),
            None => self.next(),
        };
        match Pin::new(&mut reading).poll(context) {
            Poll::Pending => {
                self.reading = Some(reading);
                Poll::Pending
            }
            Poll::Ready(read) => {
                let chunk = read.unwrap_or_else(|error| Err(io::Error::other(error))).map(BytesMut::freeze);
                if let Ok(chunk) = &chunk
                    && self.sent.len() < KEPT
                {
                    self.sent.push(chunk.clone());
                }
                Poll::Ready(Some(chunk.map(Frame::data)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.reading.is_none() && self.rest.length() == 0
    }

    fn size_hint(&self) -> SizeHint {
        if self.reading.is_none() { SizeHint::with_exact(self.rest.length()) } else { SizeHint::default() }
    }
}
