//! Events: what `kubectl describe` shows to whoever owns a pod that was denied.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use countersign_clock::Clock;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Who says it.
const CONTROLLER: &str = "countersign.dev";
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
    pub fn new(
        client: &Client,
        instance: &str,
        clock: Arc<dyn Clock>,
    ) -> (Self, impl Future<Output = ()> + use<>) {
        let (sender, messages) = mpsc::channel(MOST_WAITING);
        (Self(sender), publish(client.clone(), instance.to_owned(), clock, messages))
    }

    /// Says something about an object.
    pub fn say(&self, about: About, reason: &'static str, note: &str) {
        let note = note[..note.floor_char_boundary(MAX_NOTE)].to_owned();
        _ = self.0.try_send(Message { about, reason, note });
    }
}

async fn publish(
    client: Client,
    instance: String,
    clock: Arc<dyn Clock>,
    mut messages: mpsc::Receiver<Message>,
) {
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
            metadata: ObjectMeta { generate_name: Some("countersign-".to_owned()), ..ObjectMeta::default() },
            action: Some("Admission".to_owned()),
            event_time: Some(MicroTime(clock.wall())),
            note: Some(note.clone()),
            reason: Some(reason.to_owned()),
            regarding: Some(regarding),
            reporting_controller: Some(CONTROLLER.to_owned()),
            reporting_instance: Some(instance.clone()),
            type_: Some("Warning".to_owned()),
            ..Event::default()
        };
        // Events of what is of no namespace are there.
        let of_none = about.namespace.is_empty() || about.kind == "Namespace";
        let namespace = if of_none { "default" } else { &about.namespace };
        let api: Api<Event> = Api::namespaced(client.clone(), namespace);
        if let Err(error) = api.create(&PostParams::default(), &event).await {
            tracing::debug!(%error, "an event could not be written");
        }
        said.insert((about, note), Instant::now());
        tokio::time::sleep(PACE).await;
    }
}
