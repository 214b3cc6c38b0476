//! Collects images and everything that belongs to them.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::sync::{Arc, Mutex};

use countersign_layout::{Descriptor, Index, Layout, LayoutError, REF_NAME};
use countersign_manifest::{Document, Platform, is_index};
use countersign_reference::{Digest, Reference, RewriteError, Rewriter};
use countersign_registry::{Endpoint, Error, Manifest, Referrers};
use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _, stream};
use tokio::sync::Semaphore;

use crate::turns::{Turns, lock};
use crate::walk::{MAX_DEPTH, MAX_DOCUMENTS, children, has_none_of, is_foreign, platforms};
use crate::{PLATFORMS, walk};

/// Characters of a tag (distribution-spec, "Pulling manifests").
const MAX_TAG: usize = 128;

/// Registries that may be asked, by the host that references name.
pub type Hosts = BTreeMap<String, Arc<Endpoint>>;

/// How a bundle is made.
#[derive(Clone, Debug)]
pub struct Settings {
    /// For which platforms; all where empty.
    pub platforms: Vec<Platform>,
    /// Images at a time.
    pub images: usize,
    /// Layers at a time.
    pub downloads: usize,
}

impl Settings {
    /// All platforms, 4 images and 8 layers at a time.
    pub const DEFAULT: Self = Self { platforms: Vec::new(), images: 4, downloads: 8 };
}

/// Is told how far things are.
pub trait Progress: Send + Sync {
    /// So many more bytes will have to come.
    fn expect(&self, bytes: u64);
    /// So many have come, or were here already.
    fn done(&self, bytes: u64);
    /// An image is complete.
    fn image(&self, name: &str);
    /// Something that whoever runs this should know.
    fn warn(&self, what: &str);
}

/// Why an image could not be put into a bundle.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CreateError {
    /// No registry was named for it.
    #[error("no registry is named for `{0}`")]
    NoHost(String),
    /// It has no name in the site's registry.
    #[error(transparent)]
    Name(#[from] RewriteError),
    /// A registry has it not, or says so.
    #[error("{what} at {at}: {error}")]
    Registry {
        /// What was asked for.
        what: String,
        /// Which endpoint.
        at: String,
        /// What went wrong.
        error: Error,
    },
    /// The layout does not take it.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// More than one image should have.
    #[error("more than {0} documents belong to it")]
    TooMany(usize),
    /// It is for other platforms.
    #[error("it is for none of the platforms asked for, but for {0}")]
    Platform(String),
    /// Two references of one run name it, and mean different content.
    #[error("`{name}` is {this} here and {other} by another reference: give one of them without the tag")]
    Ambiguous {
        /// The name in the bundle.
        name: String,
        /// What it is by this reference.
        this: Digest,
        /// What it is by another.
        other: Digest,
    },
    /// Indexes within indexes within indexes.
    #[error("indexes are nested more than {0} deep")]
    Depth(usize),
}

/// Makes a bundle, or goes on with one: what is there is not fetched again.
pub struct Creator<'a> {
    layout: &'a Layout,
    hosts: Hosts,
    names: &'a Rewriter,
    settings: Settings,
    progress: &'a dyn Progress,
    downloads: Semaphore,
    entries: Mutex<BTreeMap<String, Descriptor>>,
    /// One download at a time of the same content.
    turns: Turns<Digest>,
}

/// One image on its way.
struct Image<'a> {
    endpoint: &'a Endpoint,
    /// The repository there.
    remote: &'a str,
    /// The repository in the site's registry.
    repository: String,
    /// Documents whose own artifacts have been looked for.
    documents: Mutex<BTreeSet<Digest>>,
}

impl<'a> Creator<'a> {
    /// Collects into a layout; `names` says what things are called in the site's registry.
    pub fn new(
        layout: &'a Layout,
        hosts: Hosts,
        names: &'a Rewriter,
        settings: Settings,
        progress: &'a dyn Progress,
    ) -> Self {
        let downloads = Semaphore::new(settings.downloads.max(1));
        let (entries, turns) = (Mutex::default(), Turns::default());
        Self { layout, hosts, names, settings, progress, downloads, entries, turns }
    }

    /// Collects these images and names what is complete in the layout's index. What failed is
    /// told for each; once it is mended, the next run goes on from there.
    pub async fn collect(&self, images: &[Reference]) -> Result<Vec<(Reference, CreateError)>, LayoutError> {
        let results: Vec<_> = stream::iter(images)
            .map(|image| async move { (image, self.image(image).await) })
            .buffer_unordered(self.settings.images.max(1))
            .collect()
            .await;
        self.save()?;
        let failed = results.into_iter().filter_map(|(image, result)| Some((image.clone(), result.err()?)));
        Ok(failed.collect())
    }

    fn save(&self) -> Result<(), LayoutError> {
        let index: Arc<Index> = self.layout.index()?;
        let mut entries: BTreeMap<String, Descriptor> =
            index.named().map(|(name, entry)| (name.to_owned(), entry.clone())).collect();
        for (name, mut entry) in lock(&self.entries).clone() {
            entry.annotations.insert(REF_NAME.to_owned(), name.clone());
            let mut chosen = self.settings.platforms.clone();
            if let Some(before) = entries.get(&name).filter(|before| before.digest == entry.digest) {
                // What an earlier run collected is still there.
                let before = platforms(before);
                if before.is_empty() {
                    chosen.clear();
                } else if !chosen.is_empty() {
                    chosen.extend(before);
                }
            }
            chosen.sort();
            chosen.dedup();
            if !chosen.is_empty() && is_index(&entry.media_type) {
                let chosen: Vec<_> = chosen.iter().map(ToString::to_string).collect();
                entry.annotations.insert(PLATFORMS.to_owned(), chosen.join(","));
            }
            entries.insert(name, entry);
        }
        self.layout.set_index(entries.into_values().collect(), index.annotations.clone())
    }

    async fn image(&self, reference: &Reference) -> Result<(), CreateError> {
        let host = reference.host();
        let endpoint = self.hosts.get(&host).ok_or(CreateError::NoHost(host))?;
        let stored = self.names.rewrite(reference)?;
        let image = Image {
            endpoint,
            remote: reference.path(),
            repository: stored.path().to_owned(),
            documents: Mutex::default(),
        };
        let manifest = match (reference.digest(), reference.effective_tag()) {
            (Some(digest), _) => endpoint.manifest_of_digest(reference.path(), digest).await,
            (None, tag) => endpoint.manifest_of_tag(reference.path(), tag.unwrap_or("latest")).await,
        };
        let manifest = manifest.map_err(image.failed("the image"))?;
        if has_none_of(&self.settings.platforms, &manifest.document) {
            let all = manifest.document.children().iter().filter_map(|child| child.platform.as_ref());
            let all: BTreeSet<_> = all.map(ToString::to_string).collect();
            return Err(CreateError::Platform(all.into_iter().collect::<Vec<_>>().join(", ")));
        }
        let top = self.document(&image, manifest, 0).await?;
        self.artifacts(&image).await?;
        // By its digest where it is asked for so; by its tag, too, where it has one.
        let tag = reference.effective_tag().map(|tag| format!("{}:{tag}", image.repository));
        let digest = reference.digest().map(|digest| format!("{}@{digest}", image.repository));
        for name in [tag, digest].into_iter().flatten() {
            self.name(name, &top)?;
        }
        Ok(())
    }

    /// Names an image; a name means one thing in a run.
    fn name(&self, name: String, entry: &Descriptor) -> Result<(), CreateError> {
        let mut entries = lock(&self.entries);
        match entries.get(&name) {
            Some(other) if other.digest != entry.digest => {
                let (this, other) = (entry.digest.clone(), other.digest.clone());
                Err(CreateError::Ambiguous { name, this, other })
            }
            _ => {
                self.progress.image(&name);
                entries.insert(name, entry.clone());
                Ok(())
            }
        }
    }

    /// A document and all that it names.
    fn document<'b>(
        &'b self,
        image: &'b Image<'_>,
        manifest: Manifest,
        depth: usize,
    ) -> BoxFuture<'b, Result<Descriptor, CreateError>> {
        async move {
            if depth > MAX_DEPTH {
                return Err(CreateError::Depth(MAX_DEPTH));
            }
            let Manifest { document, bytes, digest, media_type } = manifest;
            let own = Descriptor::new(media_type, digest, bytes.len() as u64);
            if !image.note(&own)? {
                return Ok(own);
            }
            for (child, wanted) in children(&self.settings.platforms, &document) {
                if wanted && !image.has(&child.digest) {
                    let found = self.manifest(image, child).await?;
                    self.document(image, found, depth + 1).await?;
                }
            }
            self.blobs(image, &document).await?;
            // Last, so that a document in the layout has all that it names beside it.
            self.layout.put_as(&own.digest, &bytes)?;
            Ok(own)
        }
        .boxed()
    }

    async fn manifest(&self, image: &Image<'_>, child: &Descriptor) -> Result<Manifest, CreateError> {
        let found = image.endpoint.manifest_of_digest(image.remote, &child.digest).await;
        let what = format!("the manifest {}{}", child.digest, walk::platform(child));
        found.map_err(image.failed(&what))
    }

    async fn blobs(&self, image: &Image<'_>, document: &Document) -> Result<(), CreateError> {
        let blobs: Vec<_> = document.blobs().map(|blob| self.blob(image, blob)).collect();
        for result in futures_util::future::join_all(blobs).await {
            result?;
        }
        Ok(())
    }

    async fn blob(&self, image: &Image<'_>, blob: &Descriptor) -> Result<(), CreateError> {
        self.progress.expect(blob.size);
        let _turn = self.turns.take(blob.digest.clone()).await;
        if self.layout.has(&blob.digest) {
            self.progress.done(blob.size);
            return Ok(());
        }
        let _slot = self.downloads.acquire().await;
        match self.download(image, blob).await {
            Err(CreateError::Registry { error: Error::Absent, .. }) if is_foreign(blob) => {
                self.progress.done(blob.size);
                Ok(())
            }
            other => other,
        }
    }

    async fn download(&self, image: &Image<'_>, blob: &Descriptor) -> Result<(), CreateError> {
        let failed = image.failed(&format!("the layer {}", blob.digest));
        let mut pieces = image.endpoint.blob_in_pieces(image.remote, &blob.digest).await.map_err(&failed)?;
        let mut incoming = self.layout.incoming(&blob.digest)?;
        let mut length = 0_u64;
        let wrong =
            |length: u64| Error::Malformed(format!("{length} bytes, and its descriptor says {}", blob.size));
        while let Some(piece) = pieces.next().await.map_err(&failed)? {
            length += piece.len() as u64;
            if length > blob.size {
                return Err(failed(wrong(length)));
            }
            incoming
                .write_all(&piece)
                .map_err(|error| LayoutError::Io { path: self.layout.path().display().to_string(), error })?;
            self.progress.done(piece.len() as u64);
        }
        if length != blob.size {
            return Err(failed(wrong(length)));
        }
        incoming.finish()?;
        Ok(())
    }

    /// What belongs to the documents that were noted, and to what is found so, and so on.
    async fn artifacts(&self, image: &Image<'_>) -> Result<(), CreateError> {
        let mut done: BTreeSet<Digest> = BTreeSet::new();
        // It ends: an image has no more than so many documents.
        loop {
            let todo: Vec<Digest> = lock(&image.documents).difference(&done).cloned().collect();
            if todo.is_empty() {
                return Ok(());
            }
            for digest in todo {
                self.artifacts_of(image, &digest).await?;
                done.insert(digest);
            }
        }
    }

    async fn artifacts_of(&self, image: &Image<'_>, digest: &Digest) -> Result<(), CreateError> {
        for suffix in [".sig", ".att", ".sbom"] {
            let tag = format!("{}-{}{suffix}", digest.algorithm().name(), digest.hex());
            if tag.len() > MAX_TAG {
                // No registry has it: cosign keeps nothing beside what is named by SHA-512.
                continue;
            }
            match image.endpoint.manifest_of_tag(image.remote, &tag).await {
                Err(Error::Absent) => {}
                found => {
                    let found = found.map_err(image.failed(&format!("the tag {tag}")))?;
                    let entry = self.document(image, found, 0).await?;
                    lock(&self.entries).insert(format!("{}:{tag}", image.repository), entry);
                }
            }
        }
        let failed = image.failed(&format!("the referrers of {digest}"));
        let mut listed = match image.endpoint.referrers(image.remote, digest).await.map_err(&failed)? {
            Referrers::Listed(list) => list,
            Referrers::Unsupported => Vec::new(),
        };
        // Writers that did not know of the API left a tag, which registries may keep beside it.
        listed.extend(image.endpoint.referrers_by_tag(image.remote, digest).await.map_err(&failed)?);
        listed.sort();
        listed.dedup_by(|a, b| a.0 == b.0);
        for (referrer, _) in listed {
            let found = match image.endpoint.manifest_of_digest(image.remote, &referrer).await {
                // A registry's own cleaning may leave a list that names it still.
                Err(Error::Absent) => {
                    let of = format!("{}@{digest}", image.repository);
                    self.progress.warn(&format!("{of}: the referrer {referrer} is listed, and not there"));
                    continue;
                }
                found => found.map_err(image.failed(&format!("the referrer {referrer}")))?,
            };
            if found.document.subject.as_ref().is_none_or(|subject| subject.digest != *digest) {
                continue;
            }
            let entry = self.document(image, found, 0).await?;
            lock(&self.entries).insert(format!("{}@{referrer}", image.repository), entry);
        }
        Ok(())
    }
}

impl Image<'_> {
    fn failed(&self, what: &str) -> impl Fn(Error) -> CreateError + use<> {
        let (what, at) = (what.to_owned(), self.endpoint.url().to_owned());
        move |error| CreateError::Registry { what: what.clone(), at: at.clone(), error }
    }

    /// Whether it is new.
    fn note(&self, document: &Descriptor) -> Result<bool, CreateError> {
        let mut documents = lock(&self.documents);
        let new = documents.insert(document.digest.clone());
        if documents.len() > MAX_DOCUMENTS { Err(CreateError::TooMany(MAX_DOCUMENTS)) } else { Ok(new) }
    }

    fn has(&self, digest: &Digest) -> bool {
        lock(&self.documents).contains(digest)
    }
}
