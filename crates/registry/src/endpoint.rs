//! One registry server.

use std::sync::Arc;

use bytes::Bytes;
use countersign_clock::Clock;
use countersign_https::{ClientTls, TlsError};
use countersign_manifest::{ACCEPT, Document, DocumentError, INDEX, MOST_LISTED};
use countersign_mirrors::Mirror;
use countersign_reference::Digest;
use countersign_site::HostPort;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LINK};
use serde::Deserialize;
use tokio::sync::Semaphore;

use crate::connect::Connector;
use crate::credentials::Credentials;
use crate::exchange::{Exchange, Pieces, resolve};
use crate::list::List;
use crate::{Error, Health, Limits, Timing};

/// What an endpoint is made with.
#[derive(Clone, Debug)]
pub struct EndpointSettings {
    /// Whom it has to prove itself to be.
    pub tls: ClientTls,
    /// How much is taken in.
    pub limits: Limits,
    /// How long things may take.
    pub timing: Timing,
    /// Who asks, where the endpoint wants to know; sent to it, and to the token services that
    /// are named for it, and only over TLS or loopback.
    pub credentials: Option<Credentials>,
    /// What it shares with other endpoints.
    pub places: Places,
}

/// The requests that several endpoints together may have under way. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Places(pub(crate) Arc<Semaphore>);

impl Places {
    /// As many as [`Limits::all_requests`].
    pub fn new(limits: &Limits) -> Self {
        Self(Arc::new(Semaphore::new(limits.all_requests)))
    }
}

/// One registry server that may be asked.
pub struct Endpoint {
    name: String,
    url: String,
    root: String,
    resolve: bool,
    namespace: Option<String>,
    pub(crate) limits: Limits,
    pub(crate) exchange: Exchange,
}

/// A manifest or index: its bytes, what they say, and the digest computed over them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// What the bytes say.
    pub document: Document,
    /// As received.
    pub bytes: Bytes,
    /// Computed over the bytes.
    pub digest: Digest,
    /// Content type without parameters.
    pub media_type: String,
}

/// A blob on its way.
pub struct BlobPieces(Pieces);

impl BlobPieces {
    /// The next piece, which may take as long as a request; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        self.0.next().await
    }
}

/// A list of referrers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Referrers {
    /// The digests and artifact types that the endpoint lists: claims, until each is fetched.
    Listed(Vec<(Digest, String)>),
    /// The endpoint has no referrers API: the fallback tag has to be asked.
    Unsupported,
}

impl Endpoint {
    /// An endpoint as a plan names it.
    pub fn new(mirror: &Mirror, settings: EndpointSettings, clock: Arc<dyn Clock>) -> Result<Self, TlsError> {
        let limits = settings.limits;
        let connector = Connector::new(
            mirror.url.scheme,
            mirror.url.at.clone(),
            mirror.addresses.clone(),
            mirror.allow_hosts.clone(),
            settings.timing.dial,
        );
        let header = |(name, value): &(String, String)| {
            Some((name.parse::<HeaderName>().ok()?, value.parse::<HeaderValue>().ok()?))
        };
        let headers = mirror.headers.iter().filter_map(header).collect();
        Ok(Self {
            name: mirror.name.clone(),
            url: mirror.url.origin(),
            root: mirror.url.root.clone(),
            resolve: mirror.resolve,
            namespace: mirror.namespace.clone(),
            limits,
            exchange: Exchange::new(connector, headers, settings, clock)?,
        })
    }

    /// The same endpoint, asked by somebody else: connections and places are shared, and nothing of
    /// what either is given.
    #[must_use]
    pub fn on_behalf(&self, credentials: Credentials) -> Self {
        Self {
            name: self.name.clone(),
            url: self.url.clone(),
            root: self.root.clone(),
            resolve: self.resolve,
            namespace: self.namespace.clone(),
            limits: self.limits,
            exchange: self.exchange.on_behalf(credentials),
        }
    }

    /// The host and port that credentials are for.
    pub fn host(&self) -> &HostPort {
        self.exchange.host()
    }

    /// What people call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Scheme and authority: how messages name it.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// How it does.
    pub fn health(&self) -> Health {
        self.exchange.health(&self.name)
    }

    /// Whether tags are resolved here.
    pub fn resolves_tags(&self) -> bool {
        self.resolve
    }

    /// The manifest of a tag.
    pub async fn manifest_of_tag(&self, repository: &str, tag: &str) -> Result<Manifest, Error> {
        self.manifest(repository, tag).await
    }

    /// The manifest with this digest; what is received is it, or an error.
    pub async fn manifest_of_digest(&self, repository: &str, digest: &Digest) -> Result<Manifest, Error> {
        let manifest = self.manifest(repository, &digest.to_string()).await?;
        if digest.is_of(&manifest.bytes) {
            return Ok(Manifest { digest: digest.clone(), ..manifest });
        }
        Err(Error::Mismatch { wanted: digest.clone(), found: manifest.digest })
    }

    async fn manifest(&self, repository: &str, reference: &str) -> Result<Manifest, Error> {
        let url = self.at(repository, &format!("manifests/{reference}"));
        let answer = self.exchange.get(&url, repository, ACCEPT, self.limits.manifest_bytes).await?;
        let media_type = content_type(&answer.headers);
        let document = Document::parse(&answer.body, &media_type).map_err(|error| match error {
            DocumentError::TooMany => Error::Limit(error.to_string()),
            _ => Error::Malformed(error.to_string()),
        })?;
        let (digest, bytes) = (Digest::sha256_of(&answer.body), answer.body.clone());
        Ok(Manifest { document, bytes, digest, media_type })
    }

    /// The blob with this digest, of at most this many bytes.
    pub async fn blob(&self, repository: &str, digest: &Digest, most: usize) -> Result<Bytes, Error> {
        let url = self.at(repository, &format!("blobs/{digest}"));
        let body = self.exchange.get(&url, repository, "*/*", most).await?.body;
        if digest.is_of(&body) {
            return Ok(body);
        }
        Err(Error::Mismatch { wanted: digest.clone(), found: Digest::of(digest.algorithm(), &body) })
    }

    /// The blob with this digest piece by piece: hashing it is for whoever puts it together.
    pub async fn blob_in_pieces(&self, repository: &str, digest: &Digest) -> Result<BlobPieces, Error> {
        let url = self.at(repository, &format!("blobs/{digest}"));
        Ok(BlobPieces(self.exchange.open(&url, repository).await?))
    }

    /// What the endpoint's referrers API lists for this digest, every page of it.
    pub async fn referrers(&self, repository: &str, digest: &Digest) -> Result<Referrers, Error> {
        let mut url = self.at(repository, &format!("referrers/{digest}"));
        let mut found = Vec::new();
        for page in 0.. {
            if page == self.limits.referrers_pages {
                return Err(Error::Limit(format!("more than {page} pages of referrers")));
            }
            let answer = match self.exchange.get(&url, repository, INDEX, self.limits.manifest_bytes).await {
                // 404 and 405 say that there is no such API; an empty list is a 200.
                Err(Error::Absent | Error::Status(400 | 405 | 406)) if page == 0 => {
                    return Ok(Referrers::Unsupported);
                }
                other => other?,
            };
            // A proxy's HTML page is not an empty list.
            if content_type(&answer.headers) != INDEX {
                return if page == 0 {
                    Ok(Referrers::Unsupported)
                } else {
                    Err(Error::Malformed("a page of referrers that is not an index".to_owned()))
                };
            }
            found.extend(Self::entries(&answer.body, &self.url)?);
            if found.len() > self.limits.referrers {
                return Err(Error::Limit(format!("more than {} referrers", self.limits.referrers)));
            }
            let Some(next) = next_page(&answer.headers) else { break };
            let base = url.parse().map_err(|_| Error::Malformed("a link that is not a URL".to_owned()))?;
            url = resolve(&base, &next)?.to_string();
        }
        Ok(Referrers::Listed(found))
    }

    /// The same list as the fallback tag keeps it; no such tag, or a tag that is no index: none.
    pub async fn referrers_by_tag(
        &self,
        repository: &str,
        digest: &Digest,
    ) -> Result<Vec<(Digest, String)>, Error> {
        match self.manifest(repository, &digest.referrers_tag()).await {
            Ok(manifest) if manifest.media_type == INDEX => {
                let found = Self::entries(&manifest.bytes, &self.url)?;
                if found.len() > self.limits.referrers {
                    return Err(Error::Limit(format!("more than {} referrers", self.limits.referrers)));
                }
                Ok(found)
            }
            Ok(_) | Err(Error::Absent) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    fn entries(index: &[u8], url: &str) -> Result<Vec<(Digest, String)>, Error> {
        let index: Index = serde_json::from_slice(index)
            .map_err(|error| Error::Malformed(format!("a list of referrers from {url}: {error}")))?;
        if index.manifests.is_cut() {
            return Err(Error::Limit(format!("more than {MOST_LISTED} referrers")));
        }
        let entries = index.manifests.into_kept().into_iter();
        Ok(entries.map(|entry| (entry.digest, entry.artifact_type.unwrap_or_default())).collect())
    }

    pub(crate) fn at(&self, repository: &str, rest: &str) -> String {
        let namespace = self.namespace.as_ref().map(|host| format!("?ns={host}")).unwrap_or_default();
        format!("{}{}/{repository}/{rest}{namespace}", self.url, self.root)
    }
}

#[derive(Deserialize)]
struct Index {
    manifests: List<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    digest: Digest,
    #[serde(rename = "artifactType")]
    artifact_type: Option<String>,
}

fn content_type(headers: &HeaderMap) -> String {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// The target of `Link: <…>; rel="next"`.
fn next_page(headers: &HeaderMap) -> Option<String> {
    headers.get_all(LINK).iter().filter_map(|value| value.to_str().ok()).find_map(|value| {
        let (target, parameters) = value.trim().strip_prefix('<')?.split_once('>')?;
        let next = parameters.split(';').any(|p| p.trim().replace('"', "").eq_ignore_ascii_case("rel=next"));
        next.then(|| target.to_owned())
    })
}
