//! Tag → digest, the one step in which a registry is believed.

use std::sync::Arc;

use countersign_evidence::Index;
use countersign_reference::{Digest, Reference};
use countersign_registry::{Class, Error, Manifest};
use countersign_verdict::{Check, Code, Outcome};

use crate::route::Route;

/// Manifests that an index may list: answers are held for a while, many at a time.
const MOST_LISTED: usize = 256;

/// What the endpoints say about an image, in their order.
#[derive(Clone, Debug)]
pub(crate) enum Resolved {
    /// The digest, which of the endpoints has it, and the index where it is one.
    Found { digest: Digest, at: usize, index: Option<Arc<Index>>, checks: Vec<Check> },
    /// Why there is none.
    Failed { outcome: Outcome, checks: Vec<Check> },
}

/// Asks the endpoints as the node would: the first that has it decides; an error moves on,
/// except for content that contradicts itself, where a node's pull fails as well.
pub(crate) async fn resolve(route: &Route, image: &Reference, compare: bool) -> Resolved {
    let mut checks = Vec::new();
    let mut found: Option<(Manifest, usize)> = None;
    let mut classes = Vec::new();
    for (index, server) in route.endpoints.iter().enumerate() {
        let endpoint = &server.endpoint;
        let answer = match (image.digest(), image.effective_tag()) {
            (Some(digest), _) => endpoint.manifest_of_digest(image.path(), digest).await,
            (None, tag) if endpoint.resolves_tags() => {
                endpoint.manifest_of_tag(image.path(), tag.unwrap_or("latest")).await
            }
            _ => continue,
        };
        match answer {
            Ok(manifest) => match &found {
                Some((first, _)) if first.digest != manifest.digest => {
                    let detail =
                        format!("it has {}, an endpoint before it {}", manifest.digest, first.digest);
                    checks.push(Check::new(endpoint.url(), "manifest", Code::EndpointsDisagree, detail));
                    return Resolved::Failed { outcome: Outcome::Refused, checks };
                }
                Some(_) => {}
                None => found = Some((manifest, index)),
            },
            Err(error) => {
                checks.push(failed(endpoint.url(), "manifest", &error));
                match error.class() {
                    Class::Malformed | Class::Refused => {
                        return Resolved::Failed { outcome: Outcome::Refused, checks };
                    }
                    class => classes.push(class),
                }
            }
        }
        if found.is_some() && !compare {
            break;
        }
    }
    if let Some((manifest, at)) = found {
        let Manifest { document, bytes, digest, .. } = manifest;
        if document.children().len() > MOST_LISTED {
            let detail = format!("the index lists more than {MOST_LISTED} manifests");
            checks.push(Check::new(
                route.endpoints[at].endpoint.url(),
                "manifest",
                Code::LimitReached,
                detail,
            ));
            return Resolved::Failed { outcome: Outcome::Refused, checks };
        }
        let index = Index::of(&document, digest.clone(), bytes).map(Arc::new);
        return Resolved::Found { digest, at, index, checks };
    }
    let outcome = if classes.contains(&Class::Unreachable) {
        Outcome::Undecided
    } else if classes.contains(&Class::Denied) {
        Outcome::Forbidden
    } else if let Some(upstream) = &route.falls_back_to {
        let detail = format!("the node would go on to {upstream}, which no rule names");
        checks.push(Check::new("", "", Code::HostNotListed, detail));
        Outcome::Refused
    } else {
        checks.push(Check::new("", "manifest", Code::ImageNotFound, "no endpoint has it"));
        Outcome::NotFound
    };
    Resolved::Failed { outcome, checks }
}

/// A check that says what an endpoint's error means.
pub(crate) fn failed(at: &str, artifact: &str, error: &Error) -> Check {
    let code = match error {
        Error::Absent => Code::NotPresent,
        Error::Denied(_) => Code::Unauthorized,
        Error::Tls(_) => Code::TlsFailed,
        // What is to be done about a certificate is no matter of seconds.
        Error::HeldOff(why) | Error::Elsewhere { why, .. } if matches!(**why, Error::Tls(_)) => {
            Code::TlsFailed
        }
        Error::HeldOff(_) => Code::HeldOff,
        Error::Timeout => Code::Deadline,
        Error::Mismatch { .. } => Code::ContentMismatch,
        Error::Malformed(_) => Code::Malformed,
        Error::HostNotListed(_) => Code::RedirectRefused,
        Error::Limit(_) => Code::LimitReached,
        _ => Code::Unreachable,
    };
    Check::new(at, artifact, code, error.to_string())
}
