//! What the site has revoked, and which digests list it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use countersign_clock::Clock;
use countersign_evidence::{Index, Store};
use countersign_reference::Digest;
use countersign_verdict::{Code, Outcome, Question, Verdict};

use crate::{HELD_NEGATIVE, Settings};

/// Digests of which is remembered whether they list something that is revoked.
const MOST_SHAPES: usize = 10_000;

/// What is known of what a digest lists.
#[derive(Clone, Debug)]
enum Shape {
    /// It was looked at: what it lists that is revoked.
    Seen(Option<Digest>),
    /// Nobody had it to show, and until this moment nobody is asked again.
    Unseen(Duration),
}

/// What is revoked, and what is known of who lists it.
pub(crate) struct Revocation {
    settings: Arc<Settings>,
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    /// What endpoints have shown of digests, where something is revoked.
    shapes: Mutex<HashMap<Digest, Shape>>,
}

impl Revocation {
    pub(crate) fn new(settings: Arc<Settings>, store: Arc<dyn Store>, clock: Arc<dyn Clock>) -> Self {
        Self { settings, store, clock, shapes: Mutex::default() }
    }

    /// Whether it is known what a digest lists, where that counts.
    pub(crate) fn knows(&self, digest: &Digest) -> bool {
        self.settings.revoked.is_empty()
            || self.store.index(digest).is_some()
            || lock(&self.shapes).get(digest).is_some_and(|shape| match shape {
                Shape::Seen(_) => true,
                Shape::Unseen(until) => self.clock.monotonic() < *until,
            })
    }

    /// What an endpoint has shown of a digest.
    pub(crate) fn saw(&self, digest: &Digest, index: Option<&Index>) {
        self.note(digest, Shape::Seen(index.and_then(|index| self.listed(index))));
    }

    fn note(&self, digest: &Digest, shape: Shape) {
        if self.settings.revoked.is_empty() {
            return;
        }
        let mut shapes = lock(&self.shapes);
        if shapes.len() >= MOST_SHAPES {
            shapes.clear();
        }
        shapes.insert(digest.clone(), shape);
    }

    /// That nobody has this digest to show.
    pub(crate) fn is_unseen(&self, digest: &Digest) {
        self.note(digest, Shape::Unseen(self.clock.monotonic() + HELD_NEGATIVE));
    }

    /// A digest that the site has revoked is refused, and so is an index from which a node may take one.
    pub(crate) fn refuses(
        &self,
        question: &Question,
        digest: &Digest,
        index: Option<&Index>,
    ) -> Option<Verdict> {
        if self.settings.revoked.is_empty() {
            return None;
        }
        self.refuses_itself(question, digest).or_else(|| {
            let known = self.store.index(digest).filter(|_| index.is_none());
            let revoked = match (index.or(known.as_deref()), lock(&self.shapes).get(digest)) {
                (Some(index), _) => self.listed(index),
                (None, Some(Shape::Seen(revoked))) => revoked.clone(),
                (None, _) => None,
            }?;
            Some(refused(question, digest, format!("{digest} lists {revoked}, which is revoked by the site")))
        })
    }

    /// The same whatever it lists: where a node takes something else of it.
    pub(crate) fn refuses_itself(&self, question: &Question, digest: &Digest) -> Option<Verdict> {
        let revoked = self.settings.revoked.contains(digest);
        revoked.then(|| refused(question, digest, format!("{digest} is revoked by the site")))
    }

    fn listed(&self, index: &Index) -> Option<Digest> {
        index.lists.iter().find(|listed| self.settings.revoked.contains(listed)).cloned()
    }
}

fn refused(question: &Question, digest: &Digest, detail: String) -> Verdict {
    let verdict = Verdict::because(question.image.clone(), Outcome::Refused, Code::Revoked, detail);
    Verdict { digest: Some(digest.clone()), ..verdict }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
