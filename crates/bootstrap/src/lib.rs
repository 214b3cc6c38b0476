//! The read-only registry that serves a layout.
//!
//! The pull half of OCI distribution-spec 1.1, referrers, tag lists and the catalog included,
//! straight from the files of an image layout. Names in the layout's index are
//! `repository:tag` or `repository@digest`. The layout may be added to while it is served.
//!
//! Documents are hashed before they are sent; layers are sent as they lie, in bounded chunks,
//! and whoever receives them hashes them anyway.

mod body;

use std::sync::{Arc, Mutex, PoisonError};

use countersign_https::{Body, full};
use countersign_layout::{Blob, Catalog, Descriptor, Index, Layout, LayoutError, canary};
use countersign_manifest::INDEX;
use countersign_reference::Digest;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::header::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, LINK, RANGE};
use hyper::http::response::Builder;
use hyper::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};

use body::Chunks;

/// The most entries of a page of tags or repositories.
const MAX_PAGE: usize = 1000;

/// Answers registry requests from a layout.
#[derive(Clone, Debug)]
pub struct Bootstrap(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    layout: Layout,
    catalog: Mutex<Option<(Arc<Index>, Arc<Catalog>)>>,
}

/// What is sent.
#[derive(Debug)]
enum Reply {
    /// A document or a list, with its digest where it has one.
    Whole { media_type: String, digest: Option<Digest>, content: Vec<u8>, next: Option<String> },
    /// A part of some content that is so long in all.
    Blob { digest: Digest, blob: Blob, start: u64, total: u64, partial: bool },
}

/// Status and code of an error (distribution-spec, "Error Codes").
type Failure = (StatusCode, &'static str);

const UNKNOWN_MANIFEST: Failure = (StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN");
const UNKNOWN_BLOB: Failure = (StatusCode::NOT_FOUND, "BLOB_UNKNOWN");
const UNKNOWN_NAME: Failure = (StatusCode::NOT_FOUND, "NAME_UNKNOWN");
const INVALID_DIGEST: Failure = (StatusCode::BAD_REQUEST, "DIGEST_INVALID");
const BROKEN: Failure = (StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN");

impl Bootstrap {
    /// A registry of this layout.
    pub fn new(layout: Layout) -> Self {
        Self(Arc::new(Shared { layout, catalog: Mutex::default() }))
    }

    /// The layout.
    pub fn layout(&self) -> &Layout {
        &self.0.layout
    }

    /// Answers one request.
    pub async fn answer(self, request: Request<Incoming>) -> Response<Body> {
        let head = request.method() == Method::HEAD;
        if !head && request.method() != Method::GET {
            return failure((StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED"));
        }
        let (path, query) = (request.uri().path().to_owned(), request.uri().query().map(ToOwned::to_owned));
        let range = request.headers().get(RANGE).and_then(|value| value.to_str().ok()).map(ToOwned::to_owned);
        // Files are read off the threads that answer others.
        let reply = tokio::task::spawn_blocking(move || {
            self.0.reply(&path, query.as_deref().unwrap_or_default(), range.as_deref())
        });
        match reply.await.unwrap_or(Err(BROKEN)) {
            Ok(reply) => send(reply, head).unwrap_or_else(|| failure(BROKEN)),
            Err(error) => failure(error),
        }
    }
}

fn send(reply: Reply, head: bool) -> Option<Response<Body>> {
    let response = Response::builder().header("docker-distribution-api-version", "registry/2.0");
    let with_digest = |response: Builder, digest: &Digest| {
        response.header("docker-content-digest", digest.to_string()).header("etag", format!("\"{digest}\""))
    };
    match reply {
        Reply::Whole { media_type, digest, content, next } => {
            let mut response =
                response.header(CONTENT_TYPE, media_type).header(CONTENT_LENGTH, content.len());
            if let Some(digest) = &digest {
                response = with_digest(response, digest);
            }
            if let Some(next) = next {
                response = response.header(LINK, format!("<{next}>; rel=\"next\""));
            }
            response.body(full(if head { Vec::new() } else { content })).ok()
        }
        Reply::Blob { digest, blob, start, total, partial } => {
            let length = blob.length();
            let mut response = with_digest(response, &digest)
                .header(CONTENT_TYPE, "application/octet-stream")
                .header(ACCEPT_RANGES, "bytes")
                .header(CONTENT_LENGTH, length);
            if partial {
                let last = start + length.saturating_sub(1);
                response = response
                    .status(StatusCode::PARTIAL_CONTENT)
                    .header(CONTENT_RANGE, format!("bytes {start}-{last}/{total}"));
            }
            response.body(if head { full("") } else { Chunks::of(blob).boxed() }).ok()
        }
    }
}

impl Shared {
    fn reply(&self, path: &str, query: &str, range: Option<&str>) -> Result<Reply, Failure> {
        let path = path.strip_prefix("/v2/").ok_or(UNKNOWN_NAME)?;
        let parts: Vec<&str> = path.rsplitn(3, '/').collect();
        match parts.as_slice() {
            [""] => Ok(json_reply("application/json", &json!({}), None)),
            ["_catalog"] => {
                let catalog = self.catalog()?;
                let (page, next) = page(catalog.repositories(), query);
                let next = next.map(|next| format!("/v2/_catalog?{next}"));
                Ok(json_reply("application/json", &json!({ "repositories": page }), next))
            }
            ["list", "tags", repository] => {
                let catalog = self.catalog()?;
                let tags = catalog.tags(repository).ok_or(UNKNOWN_NAME)?;
                let (page, next) = page(tags.iter().map(String::as_str), query);
                let next = next.map(|next| format!("/v2/{repository}/tags/list?{next}"));
                Ok(json_reply("application/json", &json!({ "name": repository, "tags": page }), next))
            }
            [reference, "manifests", repository] => self.manifest(repository, reference),
            [digest, "blobs", _] => self.blob(digest, range),
            [digest, "referrers", repository] => {
                let digest = Digest::parse(digest).map_err(|_| INVALID_DIGEST)?;
                let catalog = self.catalog()?;
                let manifests = catalog.referrers(repository, &digest);
                let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests });
                Ok(json_reply(INDEX, &index, None))
            }
            _ => Err(UNKNOWN_NAME),
        }
    }

    fn catalog(&self) -> Result<Arc<Catalog>, Failure> {
        let index = self.layout.index().map_err(|error| broken(&error))?;
        // Made by one request, for which the others wait.
        let mut known = self.catalog.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, catalog)) = known.as_ref().filter(|(of, _)| Arc::ptr_eq(of, &index)) {
            return Ok(Arc::clone(catalog));
        }
        let catalog = Arc::new(Catalog::of(&self.layout, &index));
        *known = Some((index, Arc::clone(&catalog)));
        Ok(catalog)
    }

    fn manifest(&self, repository: &str, reference: &str) -> Result<Reply, Failure> {
        let catalog = self.catalog()?;
        let found = match Digest::parse(reference) {
            Ok(digest) => catalog.with_digest(&digest),
            // A node that asks for this asks here first.
            Err(_) if (repository, reference) == (canary::REPOSITORY, canary::HERE) => {
                catalog.tagged(repository, canary::BOOTSTRAP)
            }
            Err(_) => catalog.tagged(repository, reference),
        };
        let Descriptor { media_type, digest, .. } = found.cloned().ok_or(UNKNOWN_MANIFEST)?;
        let content = self.layout.get(&digest).map_err(|error| match error {
            LayoutError::Absent(_) | LayoutError::TooLarge { .. } => UNKNOWN_MANIFEST,
            other => broken(&other),
        })?;
        Ok(Reply::Whole { media_type, digest: Some(digest), content, next: None })
    }

    fn blob(&self, digest: &str, range: Option<&str>) -> Result<Reply, Failure> {
        let digest = Digest::parse(digest).map_err(|_| INVALID_DIGEST)?;
        let blob = self.layout.blob(&digest).map_err(|error| match error {
            LayoutError::Absent(_) => UNKNOWN_BLOB,
            other => broken(&other),
        })?;
        let total = blob.length();
        match range.map_or(Wanted::All, |range| Wanted::of(range, total)) {
            Wanted::All => Ok(Reply::Blob { digest, blob, start: 0, total, partial: false }),
            Wanted::Nothing => Err((StatusCode::RANGE_NOT_SATISFIABLE, "SIZE_INVALID")),
            Wanted::Part { start, length } => {
                let blob = blob.range(start, length);
                Ok(Reply::Blob { digest, blob, start, total, partial: true })
            }
        }
    }
}

fn json_reply(media_type: &str, value: &Value, next: Option<String>) -> Reply {
    let content = value.to_string().into_bytes();
    Reply::Whole { media_type: media_type.to_owned(), digest: None, content, next }
}

/// A page of names in order, as `n` and `last` ask for it, and the query of the next page.
fn page<'a>(names: impl Iterator<Item = &'a str>, query: &str) -> (Vec<&'a str>, Option<String>) {
    let of = |name: &str| query.split('&').find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
    let count = of("n").and_then(|n| n.parse().ok()).unwrap_or(MAX_PAGE).min(MAX_PAGE);
    // Names need no escapes, save for the `/` that some clients escape.
    let last = of("last").map(|last| last.replace("%2F", "/").replace("%2f", "/")).unwrap_or_default();
    let mut rest = names.filter(|name| *name > last.as_str());
    let page: Vec<&str> = rest.by_ref().take(count).collect();
    let more = rest.next().and(page.last()).map(|last| format!("n={count}&last={last}"));
    (page, more)
}

/// What a `Range` header asks for (RFC 9110, 14.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    /// Everything: several ranges and other units are ignored.
    All,
    /// Bytes that are not there.
    Nothing,
    Part {
        start: u64,
        length: u64,
    },
}

impl Wanted {
    fn of(header: &str, total: u64) -> Self {
        let Some((first, last)) = header.strip_prefix("bytes=").and_then(|range| range.split_once('-'))
        else {
            return Self::All;
        };
        let (first, last) = match (first, first.parse::<u64>(), last, last.parse::<u64>()) {
            ("", _, _, Ok(0)) => return Self::Nothing,
            ("", _, _, Ok(length)) => (total.saturating_sub(length), total),
            (_, Ok(first), "", _) => (first, total),
            (_, Ok(first), _, Ok(last)) if first <= last => (first, last.saturating_add(1)),
            _ => return Self::All,
        };
        if first < total {
            Self::Part { start: first, length: last.min(total) - first }
        } else {
            Self::Nothing
        }
    }
}

fn broken(error: &LayoutError) -> Failure {
    tracing::error!(%error, "the layout cannot be read");
    BROKEN
}

fn failure((status, code): Failure) -> Response<Body> {
    let body = json!({ "errors": [{ "code": code, "message": code.to_lowercase().replace('_', " ") }] });
    let mut response = Response::new(full(body.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests;
