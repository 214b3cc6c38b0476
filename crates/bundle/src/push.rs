//! Fills a registry from a bundle: every platform, every signature, whatever refers to them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::Read as _;
use std::sync::Mutex;

use bytes::Bytes;
use countersign_layout::{Blob, Descriptor, Layout, LayoutError, REF_NAME};
use countersign_manifest::INDEX;
use countersign_reference::Digest;
use countersign_registry::{Endpoint, Error, Payload, Subject};
use futures_util::{StreamExt as _, stream};
use serde_json::json;
use tokio::sync::Semaphore;

use crate::Progress;
use crate::turns::{Turns, lock};
use crate::walk::{self, Documents, Name, Tree, is_foreign};

/// What a registry says that refuses an index for other reasons than what it lacks
/// (distribution-spec, "Error Codes").
const OTHERWISE: [&str; 6] =
    ["DENIED", "NAME_INVALID", "NAME_UNKNOWN", "SIZE_INVALID", "TAG_INVALID", "UNSUPPORTED"];

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
    documents: Documents<'a>,
    endpoint: &'a Endpoint,
    settings: PushSettings,
    progress: &'a dyn Progress,
    uploads: Semaphore,
    /// A repository of the endpoint that has the content.
    placed: Mutex<HashMap<Digest, String>>,
    /// Documents whose layers are in a repository of the endpoint.
    placed_documents: Mutex<HashSet<(String, Digest)>>,
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
        let (placed, placed_documents) = (Mutex::default(), Mutex::default());
        let (turns, unlisted) = (Turns::default(), Mutex::default());
        let documents = Documents::of(layout);
        Self {
            layout,
            documents,
            endpoint,
            settings,
            progress,
            uploads,
            placed,
            placed_documents,
            turns,
            unlisted,
        }
    }

    /// Pushes everything that is not there yet. What failed is told for each name; the next run
    /// goes on from there.
    ///
    /// # Errors
    ///
    /// The layout cannot be read, or the registry refuses what the bundle is ([`PushError::Sparse`]).
    pub async fn push(&self) -> Result<Vec<(String, PushError)>, PushError> {
        let index = self.layout.index()?;
        let name = |entry: &Descriptor| entry.annotations.get(REF_NAME).cloned().unwrap_or_default();
        let entries: Vec<_> = index.manifests.iter().map(|entry| (name(entry), entry)).collect();
        self.try_sparse(&entries).await?;
        let results: Vec<_> = stream::iter(entries)
            .map(|(name, entry)| async move {
                let result = self.entry(&name, entry).await;
                (name, result)
            })
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

    /// Whether the registry takes an index whose platforms are not all there, where the bundle has one:
    /// asked before anything large is sent. An index of nothing but what the bundle leaves out is taken
    /// by a registry that would take the bundle's own, too.
    async fn try_sparse(&self, entries: &[(String, &Descriptor)]) -> Result<(), PushError> {
        for (text, entry) in entries {
            let Ok(name) = Name::of(text, entry) else { continue };
            let repository = name.repository();
            let left_out = Tree::of(&self.documents, entry).left_out;
            if left_out.is_empty() || self.is_there(repository, &entry.digest).await? {
                continue;
            }
            let probe = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": left_out }).to_string();
            let (digest, probe) = (Digest::sha256_of(probe.as_bytes()), Bytes::from(probe));
            let pushed = self.endpoint.push_manifest(repository, &digest.to_string(), INDEX, &probe).await;
            return match pushed {
                Ok(_) => {
                    // Nobody names it; where it may not be removed, the registry's own cleaning does it.
                    _ = self.endpoint.delete_manifest(repository, &digest).await;
                    Ok(())
                }
                Err(Error::Refused { status: 400 | 404 | 422, code, .. })
                    if !OTHERWISE.contains(&code.as_str()) =>
                {
                    Err(PushError::Sparse)
                }
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

    async fn entry(&self, text: &str, entry: &Descriptor) -> Result<(), PushError> {
        let name = Name::of(text, entry).map_err(PushError::Document)?;
        let repository = name.repository();
        let tree = Tree::of(&self.documents, entry);
        if !tree.flaws.is_empty() {
            return Err(PushError::Document(tree.flaws.join("; ")));
        }
        for (descriptor, document) in &tree.documents {
            let digest = descriptor.digest.to_string();
            let of_tree = (repository.to_owned(), descriptor.digest.clone());
            if !lock(&self.placed_documents).contains(&of_tree) {
                // A fallback tag of the outside is not copied: the list is made anew from what is here.
                let blobs: Vec<_> = document.blobs().map(|blob| self.blob(repository, blob)).collect();
                for result in futures_util::future::join_all(blobs).await {
                    result?;
                }
            }
            let own = descriptor.digest == entry.digest;
            if !own && self.is_there(repository, &descriptor.digest).await? {
                continue;
            }
            let reference = match name {
                Name::Tag { tag, .. } if own => tag,
                _ => digest.as_str(),
            };
            let bytes = Bytes::from(self.layout.get(&descriptor.digest)?);
            let pushed = self.endpoint.push_manifest(repository, reference, &descriptor.media_type, &bytes);
            let what = || format!("the manifest {digest}{}", walk::platform(descriptor));
            let subject = pushed.await.map_err(|error| PushError::Registry { what: what(), error })?;
            lock(&self.placed_documents).insert(of_tree);
            if let (true, Some(of), Subject::Ignored) = (own, &document.subject, subject) {
                let listed = Descriptor {
                    artifact_type: document.artifact_type.clone(),
                    annotations: document.annotations.clone(),
                    ..Descriptor::new(&entry.media_type, entry.digest.clone(), entry.size)
                };
                let key = (repository.to_owned(), of.digest.clone());
                lock(&self.unlisted).entry(key).or_default().push(listed);
            }
        }
        self.progress.image(text);
        Ok(())
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
