//! Content sent in chunks, each read by a thread that may wait for the disk.

use std::io::{self, Read as _};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use countersign_layout::Blob;
use http_body::{Body, Frame, SizeHint};
use tokio::task::{JoinHandle, spawn_blocking};

/// Bytes of a chunk: the most that a response holds.
const CHUNK: u64 = 128 << 10;

pub(crate) struct Chunks {
    /// What has not been read.
    rest: Blob,
    /// The chunk that is being read. Nothing is read ahead of the client, and no thread waits for it.
    reading: Option<JoinHandle<io::Result<Bytes>>>,
}

impl Chunks {
    pub(crate) fn of(rest: Blob) -> Self {
        Self { rest, reading: None }
    }

    /// Takes the next chunk off, to be read.
    fn next(&mut self) -> JoinHandle<io::Result<Bytes>> {
        let mut chunk = self.rest.range(0, CHUNK);
        let length = chunk.length();
        self.rest = self.rest.range(length, u64::MAX);
        spawn_blocking(move || {
            let mut content = Vec::with_capacity(usize::try_from(length).unwrap_or_default());
            chunk.read_to_end(&mut content)?;
            // A file that was cut off: the client was told another length.
            if content.len() as u64 == length {
                Ok(content.into())
            } else {
                Err(io::ErrorKind::UnexpectedEof.into())
            }
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
                let chunk = read.unwrap_or_else(|error| Err(io::Error::other(error)));
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
