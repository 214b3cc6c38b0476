//! Writing to an endpoint (OCI distribution-spec 1.1, "Push").

use std::time::Duration;

use bytes::Bytes;
use countersign_manifest::{Descriptor, INDEX};
use countersign_reference::Digest;
use hyper::Method;
use hyper::header::{
    CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LOCATION,
};
use serde_json::{Value, json};

use crate::exchange::{Ask, content, resolve};
use crate::{Endpoint, Error};

/// Bytes of a chunk of an upload.
const CHUNK: u64 = 8 << 20;
/// How long another writer may take from reading a fallback tag to writing it.
const SETTLE: Duration = Duration::from_millis(150);
/// How often a fallback tag is written again because another writer was faster.
const TRIES: usize = 16;

/// Content that can be read in parts, as often as is needed.
pub trait Payload: Send + Sync {
    /// All of its bytes.
    fn length(&self) -> u64;
    /// These bytes of it.
    fn part(&self, start: u64, length: u64) -> std::io::Result<Bytes>;
}

/// What an endpoint did with the `subject` of a manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// It lists the manifest among the referrers by itself.
    Listed,
    /// It said nothing: whoever pushes has to keep the fallback tag.
    Ignored,
}

impl Endpoint {
    /// Whether a blob is there.
    pub async fn has_blob(&self, repository: &str, digest: &Digest) -> Result<Option<u64>, Error> {
        self.head(repository, &format!("blobs/{digest}")).await
    }

    /// Whether a manifest is there.
    pub async fn has_manifest(&self, repository: &str, digest: &Digest) -> Result<bool, Error> {
        Ok(self.head(repository, &format!("manifests/{digest}")).await?.is_some())
    }

    /// The length of what is there.
    async fn head(&self, repository: &str, rest: &str) -> Result<Option<u64>, Error> {
        let url = self.at(repository, rest);
        let accept = HeaderValue::from_static(countersign_manifest::ACCEPT);
        let ask = Ask {
            headers: vec![(hyper::header::ACCEPT, accept)],
            ..Ask::new(Method::HEAD, &url, repository)
        };
        match self.exchange.ask(&ask).await {
            Ok(parts) => {
                let length = header(&parts.headers, &CONTENT_LENGTH).and_then(|text| text.parse().ok());
                Ok(Some(length.unwrap_or_default()))
            }
            Err(Error::Absent) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Pushes a blob; `from` names a repository of this endpoint that has it already.
    pub async fn push_blob(
        &self,
        repository: &str,
        digest: &Digest,
        payload: &dyn Payload,
        from: Option<&str>,
    ) -> Result<(), Error> {
        let mut url = self.at(repository, "blobs/uploads/");
        if let Some(from) = from {
            let join = if url.contains('?') { '&' } else { '?' };
            url = format!("{url}{join}mount={digest}&from={from}");
        }
        let parts = self.exchange.ask(&Ask::new(Method::POST, &url, repository)).await?;
        if parts.status == hyper::StatusCode::CREATED {
            return Ok(());
        }
        let mut location = next(&url, &parts.headers)?;
        let (length, mut start) = (payload.length(), 0);
        while length - start > CHUNK {
            let part = read(payload, start, CHUNK)?;
            let range = format!("{start}-{}", start + CHUNK - 1);
            let headers = vec![
                (CONTENT_TYPE, HeaderValue::from_static("application/octet-stream")),
                (CONTENT_RANGE, HeaderValue::from_str(&range).map_err(malformed)?),
            ];
            let body = move || content(part.clone());
            let ask = Ask { headers, body: &body, ..Ask::new(Method::PATCH, &location, repository) };
            let parts = self.exchange.ask(&ask).await?;
            location = next(&location, &parts.headers)?;
            start += CHUNK;
        }
        let join = if location.contains('?') { '&' } else { '?' };
        let url = format!("{location}{join}digest={digest}");
        let part = read(payload, start, length - start)?;
        let headers = vec![(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"))];
        let body = move || content(part.clone());
        self.exchange.ask(&Ask { headers, body: &body, ..Ask::new(Method::PUT, &url, repository) }).await?;
        Ok(())
    }

    /// Pushes a manifest or an index under a tag or its digest.
    pub async fn push_manifest(
        &self,
        repository: &str,
        reference: &str,
        media_type: &str,
        bytes: &Bytes,
    ) -> Result<Subject, Error> {
        let url = self.at(repository, &format!("manifests/{reference}"));
        let headers = vec![(CONTENT_TYPE, HeaderValue::from_str(media_type).map_err(malformed)?)];
        let bytes = bytes.clone();
        let body = move || content(bytes.clone());
        let ask = Ask { headers, body: &body, ..Ask::new(Method::PUT, &url, repository) };
        let parts = self.exchange.ask(&ask).await?;
        let listed = parts.headers.contains_key("oci-subject");
        Ok(if listed { Subject::Listed } else { Subject::Ignored })
    }

    /// Removes a manifest, where the endpoint lets us.
    pub async fn delete_manifest(&self, repository: &str, digest: &Digest) -> Result<(), Error> {
        let url = self.at(repository, &format!("manifests/{digest}"));
        self.exchange.ask(&Ask::new(Method::DELETE, &url, repository)).await.map(|_| ())
    }

    /// Adds referrers to the fallback tag of their subject (Referrers Tag Schema).
    ///
    /// A tag cannot be written on the condition that nobody else has: what was written is read
    /// again after another writer has had the time to put its own list in its place, and merged
    /// again until it stays.
    pub async fn add_to_referrers_tag(
        &self,
        repository: &str,
        subject: &Digest,
        referrers: &[Descriptor],
    ) -> Result<(), Error> {
        let tag = subject.referrers_tag();
        for _ in 0..TRIES {
            let mut manifests: Vec<Value> = match self.manifest_of_tag(repository, &tag).await {
                Ok(found) if found.media_type == INDEX => {
                    let index: Value = serde_json::from_slice(&found.bytes).map_err(malformed)?;
                    index["manifests"].as_array().cloned().unwrap_or_default()
                }
                Err(Error::Absent) => Vec::new(),
                Ok(_) => return Err(Error::Malformed(format!("the tag {tag} is no list of referrers"))),
                Err(error) => return Err(error),
            };
            let listed = |referrer: &&Descriptor| {
                manifests.iter().any(|entry| entry["digest"] == json!(referrer.digest))
            };
            let missing: Vec<Value> = referrers
                .iter()
                .filter(|referrer| !listed(referrer))
                .map(|referrer| json!(referrer))
                .collect();
            if missing.is_empty() {
                return Ok(());
            }
            manifests.extend(missing);
            // In one order, whoever writes: two writers of the same entries write the same bytes.
            manifests.sort_by(|a, b| a["digest"].as_str().cmp(&b["digest"].as_str()));
            let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests });
            self.push_manifest(repository, &tag, INDEX, &index.to_string().into()).await?;
            tokio::time::sleep(SETTLE).await;
        }
        Err(Error::Limit(format!("the tag {tag} is written by others without end")))
    }
}

fn malformed(error: impl std::fmt::Display) -> Error {
    Error::Malformed(error.to_string())
}

fn header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// Where an upload goes on.
fn next(base: &str, headers: &HeaderMap) -> Result<String, Error> {
    let location = header(headers, &LOCATION)
        .ok_or_else(|| Error::Malformed("an upload without a location".to_owned()))?;
    Ok(resolve(&base.parse().map_err(malformed)?, location)?.to_string())
}

fn read(payload: &dyn Payload, start: u64, length: u64) -> Result<Bytes, Error> {
    payload.part(start, length).map_err(|error| Error::Local(error.to_string()))
}
