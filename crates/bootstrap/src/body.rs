//! Content sent in chunks, read by a thread that may wait for the disk.

use std::io::Read as _;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use countersign_layout::Blob;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::mpsc;

/// Bytes of a chunk.
const CHUNK: usize = 128 << 10;
/// Chunks that are read ahead of the client: with [`CHUNK`] the most that a response holds.
const AHEAD: usize = 1;

pub(crate) struct Chunks {
    chunks: mpsc::Receiver<std::io::Result<Bytes>>,
    left: u64,
}

impl Chunks {
    pub(crate) fn of(mut blob: Blob) -> Self {
        let (sender, chunks) = mpsc::channel(AHEAD);
        let left = blob.length();
        tokio::task::spawn_blocking(move || {
            while blob.length() > 0 {
                let length = usize::try_from(blob.length()).unwrap_or(CHUNK).min(CHUNK);
                let mut chunk = vec![0; length];
                let read = blob.read_exact(&mut chunk).map(|()| Bytes::from(chunk));
                let failed = read.is_err();
                // The client is gone where nobody receives.
                if sender.blocking_send(read).is_err() || failed {
                    break;
                }
            }
        });
        Self { chunks, left }
    }
}

impl Body for Chunks {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        self.chunks.poll_recv(context).map(|chunk| {
            let chunk = chunk?;
            if let Ok(bytes) = &chunk {
                self.left = self.left.saturating_sub(bytes.len() as u64);
            }
            Some(chunk.map(Frame::data))
        })
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
