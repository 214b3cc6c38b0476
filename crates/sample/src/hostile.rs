//! Repositories that lie, each in one stated way.
//!
//! A [`SampleRegistry`](crate::SampleRegistry) that answers by [`Hostile::answer`] is good in all
//! repositories but those called `lies/…`: there the tag `1` is of an image like any other, and the
//! rest is as the name says. What is endless is sent for as long as somebody reads it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use countersign_https::{Body, full};
use countersign_manifest::{INDEX, MANIFEST};
use countersign_reference::Digest;
use countersign_signature::SIMPLE_SIGNING_MEDIA_TYPE;
use futures_util::{Stream, StreamExt as _, stream};
use http_body_util::{BodyExt, StreamBody};
use hyper::Response;
use hyper::body::Frame;
use hyper::header::{CONTENT_TYPE, LINK, LOCATION};

/// How a repository lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// The image's manifest has no end.
    EndlessManifest,
    /// The manifest comes a byte at a time.
    SlowDrip,
    /// The manifest is behind redirects that lead to one another.
    EndlessRedirects,
    /// The `.sig` manifest has layers without end.
    EndlessLayers,
    /// The `.sig` manifest has 12,000 layers.
    ManyLayers,
    /// One layer of the `.sig` manifest, of 300 bytes as it says, has no end.
    EndlessBlob,
    /// That layer is shorter than it says.
    ShortBlob,
    /// The list of referrers has pages without end, all of them empty.
    EndlessPages,
    /// The list of referrers has no end.
    EndlessReferrers,
    /// The list of referrers has 250 entries, none of which is a signature.
    OddReferrers,
}

impl Lie {
    /// Every one.
    pub const ALL: [Self; 10] = [
        Self::EndlessManifest,
        Self::SlowDrip,
        Self::EndlessRedirects,
        Self::EndlessLayers,
        Self::ManyLayers,
        Self::EndlessBlob,
        Self::ShortBlob,
        Self::EndlessPages,
        Self::EndlessReferrers,
        Self::OddReferrers,
    ];

    /// The repository in which it is told.
    pub const fn repository(self) -> &'static str {
        match self {
            Self::EndlessManifest => "lies/endless-manifest",
            Self::SlowDrip => "lies/slow-drip",
            Self::EndlessRedirects => "lies/endless-redirects",
            Self::EndlessLayers => "lies/endless-layers",
            Self::ManyLayers => "lies/many-layers",
            Self::EndlessBlob => "lies/endless-blob",
            Self::ShortBlob => "lies/short-blob",
            Self::EndlessPages => "lies/endless-pages",
            Self::EndlessReferrers => "lies/endless-referrers",
            Self::OddReferrers => "lies/odd-referrers",
        }
    }
}

/// The liar, who counts what it was asked and what it has sent.
#[derive(Clone, Debug, Default)]
pub struct Hostile {
    /// Requests that were answered with a lie, or with what belongs to one.
    pub requests: Arc<AtomicU64>,
    /// Bytes of endless answers that somebody took.
    pub sent: Arc<AtomicU64>,
}

/// The payload of signatures by nobody.
const PAYLOAD: &str = "{}";

impl Hostile {
    /// The answer of a repository that lies; `None` for the others. Below the repository's name there
    /// may be more: `lies/slow-drip/7` lies as well, and is another repository.
    pub fn answer(&self, path: &str) -> Option<Response<Body>> {
        let rest = path.strip_prefix("/v2/")?;
        let lie = Lie::ALL
            .into_iter()
            .find(|lie| rest.strip_prefix(lie.repository()).is_some_and(|rest| rest.starts_with('/')))?;
        self.requests.fetch_add(1, Ordering::Relaxed);
        let (_, asked) = rest.split_once("/manifests/").unwrap_or_default();
        let of_tag = asked == "1";
        let signatures = asked.strip_suffix(".sig").is_some();
        Some(match lie {
            Lie::EndlessManifest if of_tag => {
                self.endless(MANIFEST, "{\"schemaVersion\":2", " ".repeat(8192))
            }
            Lie::SlowDrip if of_tag => self.stream(MANIFEST, drip()),
            Lie::EndlessRedirects if of_tag => {
                Response::builder().status(307).header(LOCATION, path).body(full("")).unwrap_or_default()
            }
            Lie::EndlessLayers if signatures => {
                self.endless(MANIFEST, head("layers"), format!("{},", layer(PAYLOAD.len())))
            }
            Lie::ManyLayers if signatures => {
                let layers = vec![layer(PAYLOAD.len()); 12_000].join(",");
                document(MANIFEST, &format!("{}{layers}]}}", head("layers")))
            }
            Lie::EndlessBlob | Lie::ShortBlob if signatures => {
                document(MANIFEST, &format!("{}{}]}}", head("layers"), layer(300)))
            }
            Lie::EndlessBlob if rest.contains("/blobs/") => {
                self.endless("application/octet-stream", "", "x".repeat(8192))
            }
            Lie::EndlessPages if rest.contains("/referrers/") => {
                let mut page = document(INDEX, &format!("{}]}}", head("manifests")));
                let next = format!("<{path}>; rel=\"next\"");
                page.headers_mut().extend(next.parse().ok().map(|next| (LINK, next)));
                page
            }
            Lie::EndlessReferrers if rest.contains("/referrers/") => {
                self.endless(INDEX, head("manifests"), format!("{},", referrer(0)))
            }
            Lie::OddReferrers if rest.contains("/referrers/") => {
                let list: Vec<String> = (0..250).map(referrer).collect();
                document(INDEX, &format!("{}{}]}}", head("manifests"), list.join(",")))
            }
            Lie::OddReferrers if asked.starts_with("sha256:") && asked != image().to_string() => {
                let number = (0..250).find(|number| odd(*number).0.to_string() == asked).unwrap_or_default();
                document(MANIFEST, &odd(number).1)
            }
            _ if of_tag || asked == image().to_string() => document(MANIFEST, IMAGE),
            _ if rest.contains("/blobs/") => full_response("application/octet-stream", PAYLOAD),
            _ => Response::builder().status(404).body(full("")).unwrap_or_default(),
        })
    }

    fn endless(&self, media_type: &str, first: impl Into<Bytes>, again: impl Into<Bytes>) -> Response<Body> {
        let (first, again): (Bytes, Bytes) = (first.into(), again.into());
        self.stream(media_type, stream::once(async move { first }).chain(stream::repeat(again)))
    }

    fn stream(
        &self,
        media_type: &str,
        pieces: impl Stream<Item = Bytes> + Send + Sync + 'static,
    ) -> Response<Body> {
        let sent = Arc::clone(&self.sent);
        let frames = pieces.map(move |piece| {
            sent.fetch_add(piece.len() as u64, Ordering::Relaxed);
            Ok(Frame::data(piece))
        });
        let response = Response::builder().header(CONTENT_TYPE, media_type);
        response.body(BodyExt::boxed(StreamBody::new(frames))).unwrap_or_default()
    }
}

/// A byte twenty times a second.
fn drip() -> impl Stream<Item = Bytes> + Send + Sync + 'static {
    stream::unfold((), |()| async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        Some((Bytes::from_static(b" "), ()))
    })
}

/// The image of every repository that lies.
const IMAGE: &str =
    r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","layers":[]}"#;

/// Its digest.
fn image() -> Digest {
    Digest::sha256_of(IMAGE.as_bytes())
}

fn head(list: &str) -> String {
    format!("{{\"schemaVersion\":2,\"{list}\":[")
}

fn layer(size: usize) -> String {
    let digest = Digest::sha256_of(PAYLOAD.as_bytes());
    let annotations = "{\"dev.cosignproject.cosign/signature\":\"AAAA\"}";
    format!(
        "{{\"mediaType\":\"{SIMPLE_SIGNING_MEDIA_TYPE}\",\"digest\":\"{digest}\",\"size\":{size},\"annotations\":{annotations}}}"
    )
}

/// A referrer that is no signature, by its number.
fn odd(number: usize) -> (Digest, String) {
    let text = format!("{{\"schemaVersion\":2,\"layers\":[],\"annotations\":{{\"number\":\"{number}\"}}}}");
    (Digest::sha256_of(text.as_bytes()), text)
}

fn referrer(number: usize) -> String {
    let (digest, text) = odd(number);
    format!("{{\"mediaType\":\"{MANIFEST}\",\"digest\":\"{digest}\",\"size\":{}}}", text.len())
}

fn document(media_type: &str, text: &str) -> Response<Body> {
    full_response(media_type, text)
}

fn full_response(media_type: &str, text: &str) -> Response<Body> {
    let response = Response::builder().header(CONTENT_TYPE, media_type);
    response.body(full(text.to_owned())).unwrap_or_default()
}
