//! Registries that lie about what a tag is of and about signatures, each test named after the
//! attack of `docs/attacks.md`.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use countersign_clock::ManualClock;
use countersign_evidence::{Memory, Store};
use countersign_https::{Authority, Body, full};
use countersign_reference::{Digest, Reference};
use countersign_sample::{SampleRegistry, Shape};
use countersign_signature::sign::{Scheme, Signer};
use countersign_signature::{BUNDLE_MEDIA_TYPE, Material, SIMPLE_SIGNING_MEDIA_TYPE};
use countersign_site::{Site, Source};
use countersign_verdict::{Attestors, Code, Outcome, Question, Verdict};
use countersign_verifier::{Purpose, Rules, Settings, Verifier};
use hyper::Response;
use hyper::header::CONTENT_TYPE;
use serde_json::{Value, json};
use tokio::time::Instant;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// A registry that tells these lies: by the end of a path, one answer after the other, the last
/// for good. `None` is the truth.
struct Liar {
    registry: SampleRegistry,
    lies: Arc<Mutex<Lies>>,
    asked: Arc<Mutex<Vec<String>>>,
}

/// Answers that are left, each a media type and a content.
type Lies = HashMap<String, Vec<Option<(&'static str, String)>>>;

impl Liar {
    async fn start(authority: &Authority) -> Self {
        let (lies, asked) = (Arc::new(Mutex::new(Lies::new())), Arc::new(Mutex::new(Vec::new())));
        let (told, noted) = (Arc::clone(&lies), Arc::clone(&asked));
        let lie = move |path: &str| -> Option<Response<Body>> {
            noted.lock().unwrap().push(path.to_owned());
            let mut told = told.lock().unwrap();
            let (_, answers) = told.iter_mut().find(|(end, _)| path.ends_with(end.as_str()))?;
            let answer = if answers.len() > 1 { answers.remove(0) } else { answers.first()?.clone() };
            let (media_type, content) = answer?;
            Some(Response::builder().header(CONTENT_TYPE, media_type).body(full(content)).unwrap())
        };
        Self { registry: SampleRegistry::start(authority, lie).await.unwrap(), lies, asked }
    }

    fn lie(&self, end: impl Into<String>, answers: &[Option<(&'static str, &str)>]) {
        let answers = answers.iter().map(|answer| answer.map(|(kind, text)| (kind, text.to_owned())));
        self.lies.lock().unwrap().insert(end.into(), answers.collect());
    }

    /// What was asked for since the last time, without the repository.
    fn asked(&self) -> Vec<String> {
        let asked = std::mem::take(&mut *self.asked.lock().unwrap());
        asked.into_iter().map(|path| path.trim_start_matches("/v2/a/b/").to_owned()).collect()
    }
}

fn manifest(layers: &Value) -> String {
    json!({ "schemaVersion": 2, "mediaType": MANIFEST, "layers": layers }).to_string()
}

fn descriptor(media_type: &str, content: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": Digest::sha256_of(content), "size": content.len() })
}

fn signer() -> (Signer, Attestors) {
    let signer = Signer::generate(Scheme::EcdsaP256).unwrap();
    let attestors = Attestors::any_of_keys(&signer.public_pem());
    (signer, attestors)
}

fn verifier(
    authority: &Authority,
    ports: &[u16],
    settings: Settings,
    store: Arc<dyn Store>,
) -> Arc<Verifier> {
    let ca = authority.pem().replace('\n', "\\n");
    let endpoints = ports.iter().enumerate().map(|(number, port)| {
        format!("{{ name: e{number}, url: \"https://127.0.0.1:{port}\", addresses: [127.0.0.1], ca: {{ pem: \"{ca}\" }} }}")
    });
    let endpoints = endpoints.collect::<Vec<_>>().join(", ");
    let text = format!(
        "apiVersion: countersign.dev/v1alpha1\nkind: Site\nspec:\n  registry: {{ name: registry.local, endpoints: [{endpoints}] }}\n"
    );
    let load = Arc::new(|source: &Source| match source {
        Source::Inline(text) => Ok(text.clone()),
        other => Err(format!("{other:?}")),
    });
    let clock = Arc::new(ManualClock::at("2026-01-01T00:00:00Z".parse().unwrap()));
    Verifier::new(Rules::Site(Arc::new(Site::parse(&text).unwrap())), settings, load, store, clock)
}

/// Every tag is asked for anew, and nothing is known yet.
fn fresh(authority: &Authority, ports: &[u16]) -> Arc<Verifier> {
    let settings = Settings { tag_freshness: Duration::ZERO, ..Settings::default() };
    verifier(authority, ports, settings, Arc::new(Memory::default()))
}

async fn ask(verifier: &Arc<Verifier>, attestors: &Attestors, image: &str) -> Verdict {
    let question = Question::new(Reference::parse(image).unwrap(), attestors.clone());
    verifier.verify(&question, Instant::now() + Duration::from_secs(5), Purpose::Decision).await
}

fn codes(verdict: &Verdict) -> Vec<Code> {
    verdict.checks.iter().map(|check| check.code).collect()
}

/// The digest that would be pinned.
fn pinned(verdict: &Verdict) -> Option<&Digest> {
    verdict.proof().map(|proof| &proof.digest)
}

#[tokio::test(flavor = "multi_thread")]
async fn t_01_a_tag_that_flips_between_two_requests() {
    let (authority, (signer, attestors)) = (Authority::generate("site").unwrap(), signer());
    let liar = Liar::start(&authority).await;
    let signed = liar.registry.push_signed("a/b:1", "signed", &signer, Shape::Tag).unwrap();
    let evil = manifest(&json!([]));
    // The truth first, then what nobody has signed.
    liar.lie("/manifests/1", &[None, Some((MANIFEST, &evil))]);
    let verifier = fresh(&authority, &[liar.registry.port]);
    let verdict = ask(&verifier, &attestors, "registry.local/a/b:1").await;
    assert_eq!(pinned(&verdict), Some(&signed), "the one that was verified: {verdict:#?}");
    assert_eq!(verdict.digest.as_ref(), Some(&signed));
    let tag = |liar: &Liar| liar.asked().iter().filter(|path| *path == "manifests/1").count();
    assert_eq!(tag(&liar), 1, "a verdict rests on one answer");
    // The other way about: what was hashed is not what is good.
    liar.lie("/manifests/1", &[Some((MANIFEST, &evil)), None]);
    let verdict = ask(&verifier, &attestors, "registry.local/a/b:1").await;
    assert_eq!(verdict.outcome, Outcome::Unsigned, "{verdict:#?}");
    assert_eq!(verdict.digest, Some(Digest::sha256_of(evil.as_bytes())));
    assert_eq!(tag(&liar), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn t_03_signatures_of_another_image() {
    let (authority, (signer, attestors)) = (Authority::generate("site").unwrap(), signer());
    let liar = Liar::start(&authority).await;
    let good = Digest::sha256_of(b"another image");
    let bad = liar.registry.push("a/b:1", "bad").unwrap();
    let verifier = fresh(&authority, &[liar.registry.port]);
    let none = std::collections::BTreeMap::new();

    // A signature manifest that is another image's, under the tag of this one.
    let Material::CosignSig { payload, annotations } = signer.cosign_sig(&good, "a/b", &none).unwrap() else {
        unreachable!()
    };
    let mut layer = descriptor(SIMPLE_SIGNING_MEDIA_TYPE, &payload);
    layer["annotations"] = json!(annotations);
    let of_tag = manifest(&json!([layer]));
    let payload = String::from_utf8(payload).unwrap();
    liar.lie(Digest::sha256_of(payload.as_bytes()).to_string(), &[Some(("text/plain", &payload))]);
    liar.lie(format!("/manifests/{}", bad.signature_tag()), &[Some((MANIFEST, &of_tag))]);
    let verdict = ask(&verifier, &attestors, "registry.local/a/b:1").await;
    assert_eq!(verdict.outcome, Outcome::Rejected, "{verdict:#?}");
    assert!(codes(&verdict).contains(&Code::DigestMismatch), "{verdict:#?}");
    liar.lies.lock().unwrap().clear();

    // Bundles of the other image among the referrers of this one: a manifest that says whose it
    // is, one that says that it is this one's, and one whose content is not what was listed.
    let Material::Bundle { json: bundle } = signer.bundle(&good, &none).unwrap() else { unreachable!() };
    let bundle = String::from_utf8(bundle).unwrap();
    let referring = |to: &Digest| {
        let subject = json!({ "mediaType": MANIFEST, "digest": to, "size": 1 });
        let layers = json!([descriptor(BUNDLE_MEDIA_TYPE, bundle.as_bytes())]);
        json!({ "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": BUNDLE_MEDIA_TYPE,
            "config": descriptor("application/vnd.oci.empty.v1+json", b"{}"), "layers": layers, "subject": subject })
        .to_string()
    };
    let (honest, forged) = (referring(&good), referring(&bad));
    for (listed, served, outcome, code) in [
        (&honest, &honest, Outcome::Unsigned, Code::DigestMismatch),
        (&forged, &forged, Outcome::Rejected, Code::DigestMismatch),
        (&honest, &forged, Outcome::Refused, Code::ContentMismatch),
    ] {
        let listed = Digest::sha256_of(listed.as_bytes());
        let list = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests":
            [{ "mediaType": MANIFEST, "digest": listed, "size": served.len(), "artifactType": BUNDLE_MEDIA_TYPE }] });
        liar.lie(format!("/referrers/{bad}"), &[Some((INDEX, &list.to_string()))]);
        liar.lie(format!("/manifests/{listed}"), &[Some((MANIFEST, served))]);
        liar.lie(Digest::sha256_of(bundle.as_bytes()).to_string(), &[Some(("text/plain", &bundle))]);
        // Another verifier: the last answer is held for a while.
        let verdict =
            ask(&fresh(&authority, &[liar.registry.port]), &attestors, "registry.local/a/b:1").await;
        assert_eq!(verdict.outcome, outcome, "{verdict:#?}");
        assert!(codes(&verdict).contains(&code), "{verdict:#?}");
        liar.lies.lock().unwrap().clear();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t_04_a_tag_that_moves_after_its_image_was_verified() {
    let (authority, (signer, attestors)) = (Authority::generate("site").unwrap(), signer());
    let liar = Liar::start(&authority).await;
    let signed = liar.registry.push_signed("a/b:1", "signed", &signer, Shape::Tag).unwrap();
    let store: Arc<dyn Store> = Arc::new(Memory::default());
    let ports = [liar.registry.port];
    let settings = Settings { tag_freshness: Duration::ZERO, ..Settings::default() };
    let always_asks = verifier(&authority, &ports, settings, Arc::clone(&store));
    let holds = verifier(&authority, &ports, Settings::default(), Arc::clone(&store));
    for verifier in [&always_asks, &holds] {
        let verdict = ask(verifier, &attestors, "registry.local/a/b:1").await;
        assert_eq!(pinned(&verdict), Some(&signed), "{verdict:#?}");
    }
    let moved = liar.registry.push("a/b:1", "unsigned").unwrap();
    assert_eq!(liar.registry.push("a/b:before", "signed").unwrap(), signed);
    let verdict = ask(&always_asks, &attestors, "registry.local/a/b:1").await;
    assert_eq!((verdict.outcome, verdict.digest), (Outcome::Unsigned, Some(moved.clone())));
    let held = ask(&holds, &attestors, "registry.local/a/b:1").await;
    assert_eq!(pinned(&held), Some(&signed), "while the tag counts as fresh: what was verified");
    let verdict = ask(&holds, &attestors, &format!("registry.local/a/b:1@{moved}")).await;
    assert_eq!(verdict.outcome, Outcome::Unsigned, "{verdict:#?}");
    // What one policy accepts, another one does not, though it is known: here or from the store.
    let (_, others) = self::signer();
    for verifier in [holds, verifier(&authority, &ports, Settings::default(), store)] {
        let verdict = ask(&verifier, &others, &format!("registry.local/a/b@{signed}")).await;
        assert_eq!(verdict.outcome, Outcome::Rejected, "{verdict:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t_05_a_tag_beside_a_digest_says_nothing() {
    let (authority, (signer, attestors)) = (Authority::generate("site").unwrap(), signer());
    let liar = Liar::start(&authority).await;
    let signed = liar.registry.push_signed("a/b:good", "signed", &signer, Shape::Tag).unwrap();
    let unsigned = liar.registry.push("a/b:bad", "unsigned").unwrap();
    for (image, good) in [
        (format!("registry.local/a/b:good@{unsigned}"), None),
        (format!("registry.local/a/b:bad@{signed}"), Some(&signed)),
        (format!("registry.local/a/b:nothing@{signed}"), Some(&signed)),
    ] {
        let verdict = ask(&fresh(&authority, &[liar.registry.port]), &attestors, &image).await;
        assert_eq!(pinned(&verdict), good, "{image}: {verdict:#?}");
        assert!(good.is_some() || verdict.outcome == Outcome::Unsigned, "{image}: {verdict:#?}");
        let asked = liar.asked();
        let by_tag = ["manifests/good", "manifests/bad", "manifests/nothing"];
        let by_tag = asked.iter().position(|path| by_tag.contains(&path.as_str()));
        // Only for an unsigned digest, after all else, and only for an index that might list it:
        // nothing of what the tag is of is looked at.
        assert!(by_tag.is_none_or(|at| good.is_none() && at + 1 == asked.len()), "{image}: {asked:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t_06_mirrors_that_disagree_about_a_tag() {
    let (authority, (signer, attestors)) = (Authority::generate("site").unwrap(), signer());
    let mut liars = Vec::new();
    for _ in 0..3 {
        liars.push(Liar::start(&authority).await);
    }
    let push = |index: usize, text: &str| {
        liars[index].registry.push_signed("a/b:1", text, &signer, Shape::Tag).unwrap()
    };
    let (one, two) = (push(0, "one"), push(1, "two"));
    let unsigned = liars[2].registry.push("a/b:1", "three").unwrap();
    let port = |index: usize| liars[index].registry.port;
    // The first that the node would ask decides, and what it has is what gets verified and pinned.
    for (order, digest, good) in [
        ([0, 1, 2], &one, true),
        ([1, 0, 2], &two, true),
        ([2, 0, 1], &unsigned, false),
        ([0, 2, 1], &one, true),
    ] {
        let verdict = ask(&fresh(&authority, &order.map(port)), &attestors, "registry.local/a/b:1").await;
        assert_eq!(verdict.digest.as_ref(), Some(digest), "{order:?}: {verdict:#?}");
        assert_eq!(pinned(&verdict), good.then_some(digest), "{order:?}: {verdict:#?}");
        // Where nothing will be pinned, the node may get any of them.
        let settings = Settings { compare_endpoints: true, ..Settings::default() };
        let compares = verifier(&authority, &order.map(port), settings, Arc::new(Memory::default()));
        let verdict = ask(&compares, &attestors, "registry.local/a/b:1").await;
        assert_eq!(verdict.outcome, Outcome::Refused, "{order:?}: {verdict:#?}");
        assert!(codes(&verdict).contains(&Code::EndpointsDisagree), "{order:?}: {verdict:#?}");
    }
}
