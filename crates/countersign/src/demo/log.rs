//! Keeps the decision log, to show a line of it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;

/// How long a line is waited for.
const PATIENCE: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(20);

/// Where the decision log goes while the demonstration runs.
#[derive(Clone, Default)]
pub(super) struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// Begins to keep it.
    pub(super) fn start() -> Self {
        let log = Self::default();
        let writer = log.clone();
        tracing_subscriber::fmt().json().flatten_event(true).with_writer(move || writer.clone()).init();
        log
    }

    /// The line about this image that is not of an Enforce rule, once there is one.
    pub(super) async fn reported(&self, image: &str) -> Option<Value> {
        let found = async {
            loop {
                let text = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
                let mut lines =
                    text.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok());
                let about = |line: &Value| {
                    line["enforce"] == false && line["image"].as_str().is_some_and(|at| at.contains(image))
                };
                if let Some(line) = lines.find(about) {
                    return line;
                }
                tokio::time::sleep(PAUSE).await;
            }
        };
        tokio::time::timeout(PATIENCE, found).await.ok()
    }
}
