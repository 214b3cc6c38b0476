//! One at a time for each key: two who want the same content do not both fetch it.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

/// Turns by key; they last as long as the collection that they serve.
pub(crate) struct Turns<K>(Mutex<HashMap<K, Arc<AsyncMutex<()>>>>);

impl<K> Default for Turns<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash> Turns<K> {
    /// Waits for one's turn.
    pub(crate) async fn take(&self, key: K) -> OwnedMutexGuard<()> {
        let turn = Arc::clone(lock(&self.0).entry(key).or_default());
        turn.lock_owned().await
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
