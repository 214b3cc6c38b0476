//! What a directory's files are brought to, by a thread of its own.
//!
//! What waits is digests, each once: its file is made of what is known when its turn comes. So a disk
//! that is slow falls behind in files, not in memory, and what it refuses is tried again.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use countersign_reference::Digest;
use serde_json::json;

use super::{DOCUMENT, UNFINISHED, name_of};
use crate::{Entry, Known};

/// When what could not be written is tried again.
const AGAIN: Duration = if cfg!(test) { Duration::from_millis(20) } else { Duration::from_secs(5) };

/// What is known, and what of it the files do not say yet.
#[derive(Debug)]
pub(super) struct State {
    pub(super) known: Known,
    dirty: BTreeSet<Digest>,
    closing: bool,
}

impl State {
    /// What changed: a file is written, or taken away where nothing is known any more.
    pub(super) fn changed(&mut self, digests: impl IntoIterator<Item = Digest>) {
        self.dirty.extend(digests);
    }
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes until it is dropped, which waits for the rest.
#[derive(Debug)]
pub(super) struct Writer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub(super) fn new(directory: &Path, known: Known) -> Self {
        let state = State { known, dirty: BTreeSet::new(), closing: false };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let (own, directory) = (Arc::clone(&shared), directory.to_owned());
        let thread = std::thread::spawn(move || write_all(&directory, &own));
        Self { shared, thread: Some(thread) }
    }

    /// What is known, to look at.
    pub(super) fn known(&self) -> MutexGuard<'_, State> {
        self.shared.lock()
    }

    /// Changes what is known.
    pub(super) fn change<T>(&self, by: impl FnOnce(&mut State) -> T) -> T {
        let result = by(&mut self.shared.lock());
        self.shared.changed.notify_one();
        result
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.change(|state| state.closing = true);
        if let Some(thread) = self.thread.take() {
            _ = thread.join();
        }
    }
}

fn write_all(directory: &Path, shared: &Shared) {
    // Behind all others, or one that can never be written would keep them waiting.
    let mut refused = BTreeSet::new();
    loop {
        let mut state = shared.lock();
        while state.dirty.is_empty() {
            if state.closing && refused.is_empty() {
                return;
            }
            if !state.closing {
                let wait = if refused.is_empty() { Duration::MAX } else { AGAIN };
                let waited = shared.changed.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner);
                state = waited.0;
                if !waited.1.timed_out() {
                    continue;
                }
            }
            state.dirty.append(&mut refused);
        }
        let Some(digest) = state.dirty.pop_first() else { continue };
        let entry = state.known.entry(&digest).cloned();
        let closing = state.closing;
        drop(state);
        if let Err(error) = bring(directory, &digest, entry.as_ref()) {
            // The verdict stands; only the next outage is less well covered.
            tracing::warn!(directory = %directory.display(), %digest, %error, "evidence was not kept");
            if !closing {
                refused.insert(digest);
            }
        }
    }
}

/// Brings the file of a digest to what is known of it.
fn bring(directory: &Path, digest: &Digest, entry: Option<&Entry>) -> io::Result<()> {
    let name = name_of(digest);
    let Some(entry) = entry else {
        return match fs::remove_file(directory.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        };
    };
    let (api_version, kind) = DOCUMENT;
    let document = json!({
        "apiVersion": api_version, "kind": kind,
        "metadata": { "name": digest.to_string().replacen(':', "-", 1) },
        "spec": entry.write(digest),
    });
    // Beside its place, synced, then into its place.
    let beside = directory.join(format!("{name}{UNFINISHED}"));
    let mut file = File::create(&beside)?;
    file.write_all(document.to_string().as_bytes())?;
    file.sync_all()?;
    fs::rename(&beside, directory.join(name))?;
    File::open(directory)?.sync_all()
}
