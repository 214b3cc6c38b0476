//! Looks for signatures of a digest, one source after another, until the attestors are satisfied.

use std::time::Duration;

use countersign_manifest::{Descriptor, EMPTY};
use countersign_reference::Digest;
use countersign_registry::{Class, Error, Referrers};
use countersign_signature::{
    BUNDLE_MEDIA_TYPE_PREFIX, Judge, Limits, Located, Material, SIGNATURE_ANNOTATION,
    SIMPLE_SIGNING_MEDIA_TYPE, Signatures, Terms, Trust, Verified,
};
use countersign_verdict::{Check, Code, Outcome};

use crate::resolve::failed;
use crate::route::{Kind, Route, Server};

/// How long an endpoint that seemed to have no referrers API is asked by tag first.
const OFFER_HELD: Duration = Duration::from_mins(10);

/// Layers of a `.sig` manifest that are looked at, readable or not.
const MOST_LAYERS: usize = 256;

/// What was found out about a digest.
#[derive(Clone, Debug)]
pub(crate) enum Found {
    Verified { proof: Verified<Signatures>, checks: Vec<Check> },
    Not { outcome: Outcome, checks: Vec<Check> },
}

/// Asks the endpoint that served the manifest, then the others: a signature proves itself
/// wherever it lies, but only the first endpoint's silence says that there is none.
pub(crate) async fn find(
    route: &Route,
    serving: usize,
    repository: &str,
    digest: &Digest,
    trust: &Trust,
    terms: Terms<'_>,
    now: Duration,
) -> Found {
    let (judge, limits) = (Judge::new(trust, digest, terms), terms.limits);
    let mut search = Search { digest, repository, limits, judge, notes: Vec::new(), errors: Vec::new(), now };
    let mut classes = Vec::new();
    let order = std::iter::once(serving).chain((0..route.endpoints.len()).filter(|index| *index != serving));
    for index in order {
        let server = &route.endpoints[index];
        for kind in order_of(server, now) {
            match search.source(server, kind, index == serving).await {
                Ok(Some(proof)) => {
                    server.remember(|offer| offer.last = Some(kind));
                    return Found::Verified { proof, checks: search.checks() };
                }
                Ok(None) => {}
                Err(error) => search.failed(server, kind.words(), &error),
            }
        }
        let errors = std::mem::take(&mut search.errors);
        if index == serving {
            classes = errors;
        }
        if search.judge.exhausted() {
            break;
        }
    }
    let outcome = if search.judge.exhausted()
        || classes.iter().any(|c| matches!(c, Class::Malformed | Class::Refused))
    {
        Outcome::Refused
    } else if classes.contains(&Class::Unreachable) {
        Outcome::Undecided
    } else if classes.contains(&Class::Denied) {
        Outcome::Forbidden
    } else if search.judge.seen() == 0 {
        let at = route.endpoints[serving].endpoint.url();
        search.notes.push(Check::new(at, "", Code::NoSignature, "no signature in any format"));
        Outcome::Unsigned
    } else {
        if search.judge.too_few() {
            let detail = "good signatures, and not by enough different attestors";
            search.notes.push(Check::new("", "", Code::TooFewAttestors, detail));
        }
        Outcome::Rejected
    };
    Found::Not { outcome, checks: search.checks() }
}

impl Kind {
    fn words(self) -> &'static str {
        match self {
            Self::SignatureTag => "tag `.sig`",
            Self::ReferrersApi => "referrers",
            Self::ReferrersTag => "referrers tag",
        }
    }
}

/// The source that answered last comes first, and one that the endpoint seemed to lack comes last:
/// that was said for another image, whose repository may have lied, so it leaves nothing out.
fn order_of(server: &Server, now: Duration) -> Vec<Kind> {
    let offer = server.offer();
    let by_tag_first = offer.no_referrers_until.is_some_and(|until| now < until);
    let [second, third] = if by_tag_first {
        [Kind::ReferrersTag, Kind::ReferrersApi]
    } else {
        [Kind::ReferrersApi, Kind::ReferrersTag]
    };
    let mut order: Vec<Kind> = offer.last.into_iter().collect();
    for kind in [Kind::SignatureTag, second, third] {
        if !order.contains(&kind) {
            order.push(kind);
        }
    }
    order
}

struct Search<'a> {
    digest: &'a Digest,
    repository: &'a str,
    limits: Limits,
    judge: Judge<'a>,
    notes: Vec<Check>,
    /// What went wrong at the endpoint under way: it counts only if nothing satisfies.
    errors: Vec<Class>,
    now: Duration,
}

impl Search<'_> {
    fn checks(&self) -> Vec<Check> {
        self.judge.checks().iter().chain(&self.notes).cloned().collect()
    }

    fn note(&mut self, server: &Server, artifact: &str, code: Code, detail: impl Into<String>) {
        self.notes.push(Check::new(server.endpoint.url(), artifact, code, detail));
    }

    /// One bad entry hides no other: it is noted, and the next is looked at.
    fn failed(&mut self, server: &Server, artifact: &str, error: &Error) {
        self.notes.push(failed(server.endpoint.url(), artifact, error));
        self.errors.push(error.class());
    }

    async fn source(
        &mut self,
        server: &Server,
        kind: Kind,
        serving: bool,
    ) -> Result<Option<Verified<Signatures>>, Error> {
        match kind {
            Kind::SignatureTag => self.signature_tag(server).await,
            Kind::ReferrersApi => match server.endpoint.referrers(self.repository, self.digest).await? {
                Referrers::Listed(list) => {
                    server.remember(|offer| offer.no_referrers_until = None);
                    self.bundles(server, kind, list).await
                }
                Referrers::Unsupported => {
                    // Elsewhere a 404 may be of the repository.
                    if serving {
                        let until = self.now + OFFER_HELD;
                        server.remember(|offer| offer.no_referrers_until = Some(until));
                    }
                    self.note(server, kind.words(), Code::NotPresent, "the endpoint has no referrers API");
                    Ok(None)
                }
            },
            Kind::ReferrersTag => {
                let list = server.endpoint.referrers_by_tag(self.repository, self.digest).await?;
                self.bundles(server, kind, list).await
            }
        }
    }

    async fn signature_tag(&mut self, server: &Server) -> Result<Option<Verified<Signatures>>, Error> {
        let tag = self.digest.signature_tag();
        let manifest = match server.endpoint.manifest_of_tag(self.repository, &tag).await {
            Err(Error::Absent) => {
                self.note(server, Kind::SignatureTag.words(), Code::NotPresent, "there is no such tag");
                return Ok(None);
            }
            answer => answer?.document,
        };
        let of_signatures =
            manifest.layers().iter().filter(|layer| layer.media_type == SIMPLE_SIGNING_MEDIA_TYPE);
        // The rest of a long list is not kept while these are fetched.
        let layers: Vec<Descriptor> = of_signatures.take(MOST_LAYERS + 1).cloned().collect();
        drop(manifest);
        for (index, layer) in layers.iter().enumerate() {
            if index == MOST_LAYERS {
                return Err(Error::Limit(format!("more than {MOST_LAYERS} signatures of one image")));
            }
            let payload = match self.layer(server, layer).await {
                Ok(payload) => payload,
                Err(error) if error.class() == Class::Unreachable => return Err(error),
                Err(error) => {
                    self.failed(server, Kind::SignatureTag.words(), &error);
                    continue;
                }
            };
            // Nobody reads the others, and they would be kept.
            let signature = layer.annotations.get_key_value(SIGNATURE_ANNOTATION);
            let annotations =
                signature.map(|(name, value)| (name.clone(), value.clone())).into_iter().collect();
            let material = Material::CosignSig { payload, annotations };
            if let Some(proof) = self.judge(server, format!("signature {}", index + 1), material) {
                return Ok(Some(proof));
            }
            if self.judge.exhausted() {
                break;
            }
        }
        Ok(None)
    }

    async fn bundles(
        &mut self,
        server: &Server,
        kind: Kind,
        list: Vec<(Digest, String)>,
    ) -> Result<Option<Verified<Signatures>>, Error> {
        // The type in a list is a claim: some registries leave it out, others give the config's
        // type, which is the empty one. Those have to be looked at.
        let bundles = list.iter().filter(|(_, kind)| {
            kind.is_empty() || kind == EMPTY || kind.starts_with(BUNDLE_MEDIA_TYPE_PREFIX)
        });
        let mut any = false;
        for (digest, _) in bundles {
            let manifest = match server.endpoint.manifest_of_digest(self.repository, digest).await {
                Err(Error::Absent) => {
                    self.note(
                        server,
                        kind.words(),
                        Code::NotPresent,
                        format!("{digest} is listed and not there"),
                    );
                    continue;
                }
                Err(error) if error.class() != Class::Unreachable => {
                    self.failed(server, kind.words(), &error);
                    any = true;
                    continue;
                }
                answer => answer?.document,
            };
            let of_this = manifest.subject.as_ref().is_some_and(|subject| subject.digest == *self.digest);
            let [layer] = manifest.layers() else { continue };
            if !layer.media_type.starts_with(BUNDLE_MEDIA_TYPE_PREFIX) {
                continue;
            }
            any = true;
            if !of_this {
                let detail = format!("{digest} is listed and refers to another image");
                self.note(server, kind.words(), Code::DigestMismatch, detail);
                continue;
            }
            let json = match self.layer(server, layer).await {
                Ok(json) => json,
                Err(error) if error.class() == Class::Unreachable => return Err(error),
                Err(error) => {
                    self.failed(server, kind.words(), &error);
                    continue;
                }
            };
            let artifact = format!("referrer {}", countersign_verdict::text::shortened(digest));
            if let Some(proof) = self.judge(server, artifact, Material::Bundle { json }) {
                return Ok(Some(proof));
            }
            if self.judge.exhausted() {
                break;
            }
        }
        if !any {
            self.note(server, kind.words(), Code::NotPresent, "no bundle among them");
        }
        Ok(None)
    }

    async fn layer(&self, server: &Server, layer: &Descriptor) -> Result<Vec<u8>, Error> {
        let most = self.limits.material_bytes;
        if usize::try_from(layer.size).map_or(true, |size| size > most) {
            return Err(Error::Limit(format!("a signature of more than {most} bytes")));
        }
        // Not a byte more than is said to be there.
        let said = usize::try_from(layer.size).unwrap_or(most);
        let blob = match server.endpoint.blob(self.repository, &layer.digest, said).await {
            // What a manifest names has to be there.
            Err(Error::Absent) => return Err(Error::Malformed(format!("{} is not there", layer.digest))),
            other => other?,
        };
        if blob.len() as u64 == layer.size {
            Ok(blob.to_vec())
        } else {
            Err(Error::Malformed("a layer is not as large as its descriptor says".to_owned()))
        }
    }

    fn judge(
        &mut self,
        server: &Server,
        artifact: String,
        material: Material,
    ) -> Option<Verified<Signatures>> {
        self.judge.add(&Located { at: server.endpoint.url().to_owned(), artifact, material })
    }
}
