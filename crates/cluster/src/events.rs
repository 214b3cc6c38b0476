//! Events: what `kubectl describe` shows to whoever owns a pod that was denied.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Events that wait; more are dropped, for the decision log has them.
const MOST_WAITING: usize = 256;
/// How long the same event for the same object is not said again.
const AGAIN: Duration = Duration::from_mins(5);
/// Events that are remembered for that.
const MOST_REMEMBERED: usize = 2048;
/// Bytes of a note; the API takes 1 KiB.
const MAX_NOTE: usize = 1000;
/// At most one in this time.
const PACE: Duration = Duration::from_millis(20);

/// Whom an event is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct About {
    /// `apps/v1`.
    pub api_version: String,
    /// `ReplicaSet`.
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID, or nothing where it has none yet.
    pub uid: String,
}

struct Message {
    about: About,
    reason: &'static str,
    note: String,
}

/// Takes events; never waits.
#[derive(Clone, Debug)]
pub struct Events(mpsc::Sender<Message>);

impl Events {
    /// A way to say something, and who says it: to be polled.
    pub fn new(client: &Client, instance: &str) -> (Self, impl Future<Output = ()> + use<>) {
        let (sender, messages) = mpsc::channel(MOST_WAITING);
        let reporter =
            Reporter { controller: "countersign.dev".to_owned(), instance: Some(instance.to_owned()) };
        (Self(sender), publish(Recorder::new(client.clone(), reporter), messages))
    }

    /// Says something about an object.
    pub fn say(&self, about: About, reason: &'static str, note: &str) {
        let note = note[..note.floor_char_boundary(MAX_NOTE)].to_owned();
        _ = self.0.try_send(Message { about, reason, note });
    }
}

async fn publish(recorder: Recorder, mut messages: mpsc::Receiver<Message>) {
    let mut said: BTreeMap<(About, String), Instant> = BTreeMap::new();
    while let Some(Message { about, reason, note }) = messages.recv().await {
        said.retain(|_, at| at.elapsed() < AGAIN);
        if said.len() >= MOST_REMEMBERED || said.contains_key(&(about.clone(), note.clone())) {
            continue;
        }
        let text = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
        let regarding = ObjectReference {
            api_version: text(&about.api_version),
            kind: text(&about.kind),
            namespace: text(&about.namespace),
            name: text(&about.name),
            uid: text(&about.uid),
            ..ObjectReference::default()
        };
        let event = Event {
            type_: EventType::Warning,
            reason: reason.to_owned(),
            note: Some(note.clone()),
            action: "Admission".to_owned(),
            secondary: None,
        };
        if let Err(error) = recorder.publish(&event, &regarding).await {
            tracing::debug!(%error, "an event could not be written");
        }
        said.insert((about, note), Instant::now());
        tokio::time::sleep(PACE).await;
    }
}
