//! Fills a registry from a bundle: every platform, every signature, whatever refers to them.

use std::collections::{BTreeMap, HashMap};
use std::io::Read as _;
use std::sync::Mutex;

use bytes::Bytes;
use countersign_layout::{Blob, Descriptor, Layout, LayoutError};
use countersign_manifest::{Document, INDEX};
use countersign_reference::Digest;
use countersign_registry::{Endpoint, Error, Payload, Subject};
use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _, stream};
use serde_json::json;
use tokio::sync::Semaphore;

use crate::turns::{Turns, lock};
use crate::verify::{MAX_DEPTH, is_foreign, split};
use crate::{Progress, judge};

/// How much is pushed at a time.
#[derive(Clone, Copy, Debug)]
pub struct PushSettings {
    /// Entries of the index.
    pub entries: usize,
    /// Layers.
    pub uploads: usize,
}

impl PushSettings {
    /// 4 entries and 8 layers at a time.
    pub const DEFAULT: Self = Self { entries: 4, uploads: 8 };
}

/// Why something could not be pushed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PushError {
    /// The registry does not take it.
    #[error("{what}: {error}")]
    Registry {
        /// What was pushed.
        what: String,
        /// What went wrong.
        error: Error,
    },
    /// The bundle does not give it.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// A document of the bundle cannot be read.
    #[error("{0}")]
    Document(String),
    /// The registry refuses an index some of whose platforms are not in the bundle.
    #[error(
        "the registry refuses an index whose platforms are not all there, and the bundle leaves some out: \
         make the bundle with all platforms, or let the registry take such an index \
         (distribution: `validation.manifests.indexes.platforms: none`)"
    )]
    Sparse,
}

/// Pushes a bundle to an endpoint.
pub struct Pusher<'a> {
    layout: &'a Layout,
    endpoint: &'a Endpoint,
    settings: PushSettings,
    progress: &'a dyn Progress,
    uploads: Semaphore,
    /// A repository of the endpoint that has the content.
    placed: Mutex<HashMap<Digest, String>>,
    turns: Turns<(String, Digest)>,
    /// Referrers that the endpoint does not list by itself: by repository and subject.
    unlisted: Mutex<BTreeMap<(String, Digest), Vec<Descriptor>>>,
}

impl<'a> Pusher<'a> {
    /// Pushes this layout to this endpoint.
    pub fn new(
        layout: &'a Layout,
        endpoint: &'a Endpoint,
        settings: PushSettings,
        progress: &'a dyn Progress,
    ) -> Self {
        let uploads = Semaphore::new(settings.uploads.max(1));
        let (placed, turns, unlisted) = (Mutex::default(), Turns::default(), Mutex::default());
        Self { layout, endpoint, settings, progress, uploads, placed, turns, unlisted }
    }

    /// Pushes everything that is not there yet. What failed is told for each name; the next run
    /// goes on from there.
    ///
    /// # Errors
    ///
    /// The layout cannot be read, or the registry refuses what the bundle is ([`PushError::Sparse`]).
    pub async fn push(&self) -> Result<Vec<(String, PushError)>, PushError> {
        let index = self.layout.index()?;
        let entries: Vec<(&str, &Descriptor)> = index.named().collect();
        self.try_sparse(&entries).await?;
        let results: Vec<_> = stream::iter(entries)
            .map(|(name, entry)| async move { (name.to_owned(), self.entry(name, entry).await) })
            .buffer_unordered(self.settings.entries.max(1))
            .collect()
            .await;
        let mut failed: Vec<_> =
            results.into_iter().filter_map(|(name, result)| Some((name, result.err()?))).collect();
        let unlisted = std::mem::take(&mut *lock(&self.unlisted));
        let tags = stream::iter(unlisted)
            .map(|((repository, subject), referrers)| async move {
                let added = self.endpoint.add_to_referrers_tag(&repository, &subject, &referrers).await;
                let what = format!("the referrers of {subject}");
                (repository, added.map_err(|error| PushError::Registry { what, error }))
            })
            .buffer_unordered(self.settings.entries.max(1))
            .collect::<Vec<_>>()
            .await;
        failed.extend(tags.into_iter().filter_map(|(repository, result)| Some((repository, result.err()?))));
        failed.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(failed)
    }

    /// Before anything is uploaded: an index of nothing but platforms that the bundle leaves out
    /// is taken by a registry that would take the bundle's own, too.
    async fn try_sparse(&self, entries: &[(&str, &Descriptor)]) -> Result<(), PushError> {
        for (name, entry) in entries {
            let Some((repository, _)) = split(name) else { continue };
            let document = self.document(&entry.digest, &entry.media_type)?;
            let missing: Vec<&Descriptor> =
                document.children().iter().filter(|child| !self.layout.has(&child.digest)).collect();
            if missing.is_empty() || self.is_there(repository, &entry.digest).await? {
                continue;
            }
            let probe = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": missing }).to_string();
            let (digest, probe) = (Digest::sha256_of(probe.as_bytes()), Bytes::from(probe));
            let pushed = self.endpoint.push_manifest(repository, &digest.to_string(), INDEX, &probe).await;
            return match pushed {
                Ok(_) => {
                    // Nobody names it; where it may not be removed, the registry's own cleaning does it.
                    _ = self.endpoint.delete_manifest(repository, &digest).await;
                    Ok(())
                }
                Err(Error::Status(400..=499) | Error::Absent) => Err(PushError::Sparse),
                Err(error) => Err(PushError::Registry { what: format!("an index in {repository}"), error }),
            };
        }
        Ok(())
    }

    async fn is_there(&self, repository: &str, digest: &Digest) -> Result<bool, PushError> {
        let what = format!("the manifest {digest}");
        let found = self.endpoint.has_manifest(repository, digest).await;
        found.map_err(|error| PushError::Registry { what, error })
    }

    fn document(&self, digest: &Digest, media_type: &str) -> Result<Document, PushError> {
        judge::document(self.layout, digest, media_type).map_err(PushError::Document)
    }

    async fn entry(&self, name: &str, entry: &Descriptor) -> Result<(), PushError> {
        let Some((repository, reference)) = split(name) else {
            return Err(PushError::Document("is not `repository:tag` or `repository@digest`".to_owned()));
        };
        let digest = entry.digest.to_string();
        // A fallback tag of the outside is not copied: the list is made anew from what is here.
        let document = self.place(repository, entry, 0).await?;
        let reference = if name.contains('@') { digest.as_str() } else { reference };
        let bytes = Bytes::from(self.layout.get(&entry.digest)?);
        let pushed = self.endpoint.push_manifest(repository, reference, &entry.media_type, &bytes).await;
        let subject =
            pushed.map_err(|error| PushError::Registry { what: format!("the manifest {digest}"), error })?;
        if let (Some(of), Subject::Ignored) = (&document.subject, subject) {
            let listed = Descriptor {
                artifact_type: document.artifact_type.clone(),
                annotations: document.annotations.clone(),
                ..Descriptor::new(&entry.media_type, entry.digest.clone(), entry.size)
            };
            let key = (repository.to_owned(), of.digest.clone());
            lock(&self.unlisted).entry(key).or_default().push(listed);
        }
        self.progress.image(name);
        Ok(())
    }

    /// Puts all that a document names where the document is going to be.
    fn place<'b>(
        &'b self,
        repository: &'b str,
        entry: &'b Descriptor,
        depth: usize,
    ) -> BoxFuture<'b, Result<Document, PushError>> {
        async move {
            let document = self.document(&entry.digest, &entry.media_type)?;
            for child in document.children().iter().filter(|child| self.layout.has(&child.digest)) {
                if depth > MAX_DEPTH {
                    return Err(PushError::Document("indexes are nested too deep".to_owned()));
                }
                self.place(repository, child, depth + 1).await?;
                if !self.is_there(repository, &child.digest).await? {
                    let bytes = Bytes::from(self.layout.get(&child.digest)?);
                    let reference = child.digest.to_string();
                    let pushed =
                        self.endpoint.push_manifest(repository, &reference, &child.media_type, &bytes).await;
                    let what = format!("the manifest {reference}");
                    pushed.map_err(|error| PushError::Registry { what, error })?;
                }
            }
            let blobs: Vec<_> = document.blobs().map(|blob| self.blob(repository, blob)).collect();
            for result in futures_util::future::join_all(blobs).await {
                result?;
            }
            Ok(document)
        }
        .boxed()
    }

    async fn blob(&self, repository: &str, blob: &Descriptor) -> Result<(), PushError> {
        let _turn = self.turns.take((repository.to_owned(), blob.digest.clone())).await;
        self.progress.expect(blob.size);
        if !self.layout.has(&blob.digest) && is_foreign(blob) {
            self.progress.done(blob.size);
            return Ok(());
        }
        let failed = |error| PushError::Registry { what: format!("the layer {}", blob.digest), error };
        let _slot = self.uploads.acquire().await;
        if self.endpoint.has_blob(repository, &blob.digest).await.map_err(failed)?.is_none() {
            let from = lock(&self.placed).get(&blob.digest).cloned();
            let payload = Stored(self.layout.blob(&blob.digest)?);
            let pushed = self.endpoint.push_blob(repository, &blob.digest, &payload, from.as_deref()).await;
            pushed.map_err(failed)?;
        }
        lock(&self.placed).insert(blob.digest.clone(), repository.to_owned());
        self.progress.done(blob.size);
        Ok(())
    }
}

/// Content of a layout on its way out.
struct Stored(Blob);

impl Payload for Stored {
    fn length(&self) -> u64 {
        self.0.length()
    }

    fn part(&self, start: u64, length: u64) -> std::io::Result<Bytes> {
        let mut part = Vec::new();
        self.0.range(start, length).read_to_end(&mut part)?;
        Ok(Bytes::from(part))
    }
}
