//! The read-only registry that serves a layout.
//!
//! The pull half of OCI distribution-spec 1.1, referrers included, straight from the files of
//! an image layout. Names in the layout's index are `repository:tag` or `repository@digest`.
//! The layout may be added to while it is served: every request reads the index anew.

use std::sync::Arc;

use countersign_https::{Body, full};
use countersign_layout::{Descriptor, Layout, LayoutError, REF_NAME};
use countersign_reference::Digest;
use hyper::body::Incoming;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE};
use hyper::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// Answers registry requests from a layout.
#[derive(Clone, Debug)]
pub struct Bootstrap(Arc<Layout>);

/// What is sent, or the status and code of an error (distribution-spec, "Error Codes").
type Reply = Result<(String, Vec<u8>), (StatusCode, &'static str)>;

const UNKNOWN_MANIFEST: (StatusCode, &str) = (StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN");
const UNKNOWN_BLOB: (StatusCode, &str) = (StatusCode::NOT_FOUND, "BLOB_UNKNOWN");

impl Bootstrap {
    /// A registry of this layout.
    pub fn new(layout: Arc<Layout>) -> Self {
        Self(layout)
    }

    /// Answers one request.
    pub async fn answer(self, request: Request<Incoming>) -> Response<Body> {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        if method != Method::GET && method != Method::HEAD {
            return error(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED");
        }
        // Files are read off the threads that answer others.
        let reply = tokio::task::spawn_blocking(move || self.reply(&path)).await;
        match reply.unwrap_or(Err((StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN"))) {
            Err((status, code)) => error(status, code),
            Ok((media_type, content)) => {
                let response = Response::builder()
                    .header(CONTENT_TYPE, media_type)
                    .header(CONTENT_LENGTH, content.len());
                let body = if method == Method::HEAD { Vec::new() } else { content };
                response
                    .body(full(body))
                    .unwrap_or_else(|_| error(StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN"))
            }
        }
    }

    fn reply(&self, path: &str) -> Reply {
        let path = path.strip_prefix("/v2/").ok_or((StatusCode::NOT_FOUND, "NAME_UNKNOWN"))?;
        if path.is_empty() {
            return Ok(("application/json".to_owned(), b"{}".to_vec()));
        }
        let parts: Vec<&str> = path.rsplitn(3, '/').collect();
        match parts.as_slice() {
            [reference, "manifests", repository] => self.manifest(repository, reference),
            [digest, "blobs", _] => self.blob(digest),
            [digest, "referrers", repository] => self.referrers(repository, digest),
            _ => Err((StatusCode::NOT_FOUND, "NAME_UNKNOWN")),
        }
    }

    fn entries(&self) -> Result<Arc<[Descriptor]>, (StatusCode, &'static str)> {
        self.0.entries().map_err(|error| broken(&error))
    }

    fn manifest(&self, repository: &str, reference: &str) -> Reply {
        let (by_tag, digest) = (format!("{repository}:{reference}"), Digest::parse(reference).ok());
        let entries = self.entries()?;
        let mut named = named(&entries).filter(|(name, entry)| match &digest {
            Some(digest) => entry.digest == *digest && in_repository(name, repository),
            None => *name == by_tag,
        });
        if let Some((_, entry)) = named.next() {
            return Ok((entry.media_type.clone(), self.content(&entry.digest)?));
        }
        // The child of an index has no entry of its own, and says itself what it is.
        let content = self.content(&digest.ok_or(UNKNOWN_MANIFEST)?)?;
        let value: Value = serde_json::from_slice(&content).map_err(|_| UNKNOWN_MANIFEST)?;
        let media_type =
            value["mediaType"].as_str().filter(|_| value["schemaVersion"] == 2).ok_or(UNKNOWN_MANIFEST)?;
        Ok((media_type.to_owned(), content))
    }

    fn blob(&self, digest: &str) -> Reply {
        let digest = Digest::parse(digest).map_err(|_| (StatusCode::BAD_REQUEST, "DIGEST_INVALID"))?;
        Ok(("application/octet-stream".to_owned(), self.content(&digest).map_err(|_| UNKNOWN_BLOB)?))
    }

    fn referrers(&self, repository: &str, digest: &str) -> Reply {
        let digest = Digest::parse(digest).map_err(|_| (StatusCode::BAD_REQUEST, "DIGEST_INVALID"))?;
        let mut manifests = Vec::new();
        for (name, entry) in named(&self.entries()?) {
            if !in_repository(name, repository) {
                continue;
            }
            let Ok(manifest) = serde_json::from_slice::<Value>(&self.content(&entry.digest)?) else {
                continue;
            };
            if manifest["subject"]["digest"] == json!(digest.to_string()) {
                manifests.push(json!({
                    "mediaType": entry.media_type, "digest": entry.digest, "size": entry.size,
                    "artifactType": manifest["artifactType"], "annotations": manifest["annotations"],
                }));
            }
        }
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests });
        Ok((INDEX.to_owned(), index.to_string().into_bytes()))
    }

    fn content(&self, digest: &Digest) -> Result<Vec<u8>, (StatusCode, &'static str)> {
        self.0.get(digest).map_err(|error| match error {
            LayoutError::Absent(_) => UNKNOWN_MANIFEST,
            other => broken(&other),
        })
    }
}

/// Entries with the name that each is known by.
fn named(entries: &[Descriptor]) -> impl Iterator<Item = (&str, &Descriptor)> {
    entries.iter().filter_map(|entry| Some((entry.annotations.get(REF_NAME)?.as_str(), entry)))
}

fn in_repository(name: &str, repository: &str) -> bool {
    name.strip_prefix(repository).is_some_and(|rest| rest.starts_with([':', '@']))
}

fn broken(error: &LayoutError) -> (StatusCode, &'static str) {
    tracing::error!(%error, "the layout cannot be read");
    (StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN")
}

fn error(status: StatusCode, code: &str) -> Response<Body> {
    let body = json!({ "errors": [{ "code": code, "message": code.to_lowercase().replace('_', " ") }] });
    let mut response = Response::new(full(body.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

    #[test]
    fn serves_manifests_blobs_and_referrers() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Arc::new(Layout::create(directory.path()).unwrap());
        let put = |name: &str, content: &Value| {
            let content = content.to_string();
            let digest = layout.put(content.as_bytes()).unwrap();
            let descriptor = Descriptor {
                media_type: MANIFEST.to_owned(),
                digest: digest.clone(),
                size: content.len() as u64,
                annotations: BTreeMap::new(),
            };
            layout.name(name, descriptor).unwrap();
            digest
        };
        let image = put("a/b:1", &json!({ "schemaVersion": 2, "layers": [] }));
        let referrer = json!({ "schemaVersion": 2, "artifactType": "x", "subject": { "digest": image } });
        let referrer = put(&format!("a/b@{}", "r"), &referrer);
        let registry = Bootstrap::new(layout);
        let get = |path: &str| registry.reply(path);
        assert_eq!(get("/v2/").unwrap().1, b"{}");
        for reference in ["1".to_owned(), image.to_string()] {
            assert_eq!(get(&format!("/v2/a/b/manifests/{reference}")).unwrap().0, MANIFEST);
        }
        assert!(get(&format!("/v2/a/b/blobs/{image}")).is_ok());
        let list: Value =
            serde_json::from_slice(&get(&format!("/v2/a/b/referrers/{image}")).unwrap().1).unwrap();
        assert_eq!(list["manifests"][0]["digest"], json!(referrer.to_string()));
        let other: Value =
            serde_json::from_slice(&get(&format!("/v2/a/referrers/{image}")).unwrap().1).unwrap();
        assert_eq!(other["manifests"], json!([]));
        for (path, expected) in [
            ("/v2/a/b/manifests/2", UNKNOWN_MANIFEST),
            ("/v2/a/b/manifests/../../x", UNKNOWN_MANIFEST),
            ("/v2/a/b/blobs/sha256:../../x", (StatusCode::BAD_REQUEST, "DIGEST_INVALID")),
            ("/elsewhere", (StatusCode::NOT_FOUND, "NAME_UNKNOWN")),
        ] {
            let found = get(path).unwrap_err();
            assert!(found == expected || found.0 == StatusCode::NOT_FOUND, "{path}: {found:?}");
        }
    }
}
