//! An AdmissionReview, judged by the shipped policies: while nothing can be decided, no pod with an image gets
//! in, and what the mutating webhook makes of one that is verified, the validating one admits.
#![no_main]

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign_admission::{Answers, Limits, Service};
use countersign_policy::{Engine, IMAGE_PLACES, Keys, Phase};
use countersign_reference::Digest;
use countersign_site::Site;
use countersign_verdict::{Code, Format, Outcome, Proof, Question, Tier, Verdict};
use countersign_verifier::Purpose;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use tokio::runtime::Runtime;
use tokio::time::Instant;

const SITE: &str = "
apiVersion: countersign.dev/v1alpha1
kind: Site
spec:
  registry: { name: registry.local, endpoints: [{ name: a, url: 'http://127.0.0.1:1' }] }
  rewrite: { aliases: { old.example: '', other.example: vendor } }
  bootstrapNamespaces: [kube-system]
";
/// Covers by name, and denies nothing.
const BY_NAME: &str = "
apiVersion: kyverno.io/v1
kind: ClusterPolicy
metadata: { name: by-name }
spec:
  validationFailureAction: Audit
  rules:
    - name: vendor
      match: { any: [{ resources: { kinds: [Pod] } }] }
      verifyImages:
        - imageReferences: ['docker.io/library/*', 'quay.io/*', 'nginx*', '*:1']
          skipImageReferences: ['quay.io/skipped/*', 'old.example/*']
          attestors: [{ entries: [{ keys: { publicKeys: 'site://*' } }] }]
";
const BOOTSTRAP: &str = "kube-system";

/// Says the same of every image.
#[derive(Clone, Copy)]
struct Always(fn(&Question) -> Verdict);

impl Answers for Always {
    fn verify(&self, question: Question, _: Instant, _: Purpose) -> BoxFuture<'static, Verdict> {
        std::future::ready(self.0(&question)).boxed()
    }

    fn at_hand(&self, _: &Question) -> Option<Verdict> {
        None
    }
}

fn undecided(question: &Question) -> Verdict {
    Verdict::because(question.image.clone(), Outcome::Undecided, Code::Unreachable, "no registry answers")
}

fn verified(question: &Question) -> Verdict {
    let digest = question.image.digest().cloned().unwrap_or_else(|| Digest::sha256_of(b"image"));
    let proof = Proof {
        digest: digest.clone(),
        keys: vec!["key".to_owned()],
        format: Format::CosignSig,
        source: "https://a".to_owned(),
        name: None,
        index: None,
        stale_since: None,
    };
    Verdict {
        digest: Some(digest),
        ..Verdict::because(question.image.clone(), Outcome::Verified(proof), Code::SignatureValid, "")
    }
}

/// The webhook with each of the answers, and what runs it.
struct Webhooks {
    runtime: Runtime,
    undecided: Arc<Service<Always>>,
    verified: Arc<Service<Always>>,
}

impl Webhooks {
    fn new() -> Option<Self> {
        let site = Arc::new(Site::parse(SITE).ok()?);
        let keys = Keys::of_site([("vendor".to_owned(), countersign_fuzz::KEYS.to_owned())]);
        let texts = [
            include_str!("../../policies/check-image.yaml"),
            include_str!("../../policies/prepend-registry.yaml"),
            BY_NAME,
        ];
        let policies = texts
            .into_iter()
            .map(|text| countersign_policy::load(&countersign_yaml::document(text).ok()?, &keys));
        let engine = Engine::new(policies.collect::<Option<_>>()?, site);
        let service = |answers| Service::new(engine.clone(), Always(answers), Limits::DEFAULT);
        Some(Self {
            undecided: service(undecided),
            verified: service(verified),
            runtime: tokio::runtime::Builder::new_current_thread().enable_time().build().ok()?,
        })
    }

    /// The response, if the review could be read.
    fn ask(&self, service: &Arc<Service<Always>>, body: &[u8], phase: Phase, tier: Tier) -> Option<Value> {
        let answer = self.runtime.block_on(async {
            let answer = service.review(body, phase, tier, Instant::now() + Duration::from_secs(5)).await;
            // What Audit finds out afterwards.
            tokio::task::yield_now().await;
            answer
        });
        let Ok(answer) = serde_json::from_slice::<Value>(&answer.ok()?) else {
            panic!("an answer that is not JSON")
        };
        assert_eq!(answer["kind"], "AdmissionReview");
        let response = answer["response"].clone();
        let allowed = response["allowed"].as_bool();
        assert!(allowed.is_some() && response["uid"].is_string(), "{answer}");
        assert!(allowed != Some(false) || response["patch"].is_null(), "a patch of what is denied");
        assert!(allowed != Some(false) || response["status"]["message"].is_string(), "denied without a word");
        Some(response)
    }
}

fuzz_target!(|bytes: &[u8]| {
    static WEBHOOKS: OnceLock<Webhooks> = OnceLock::new();
    let webhooks = WEBHOOKS.get_or_init(|| Webhooks::new().unwrap_or_else(|| panic!("no webhook")));
    let Ok(review) = serde_json::from_slice::<Value>(bytes) else {
        // What is beside the request may be anything.
        _ = webhooks.ask(&webhooks.undecided, bytes, Phase::Validate, Tier::Fail);
        return;
    };
    for (phase, tier) in [
        (Phase::Validate, Tier::Fail),
        (Phase::Mutate, Tier::Fail),
        (Phase::Validate, Tier::Ignore),
        (Phase::Mutate, Tier::Ignore),
    ] {
        let Some(response) = webhooks.ask(&webhooks.undecided, bytes, phase, tier) else { return };
        let request = &review["request"];
        assert_eq!(response["uid"], request["uid"].as_str().unwrap_or_default());
        let may_pass = tier == Tier::Ignore && request["namespace"] == BOOTSTRAP;
        if may_pass || response["allowed"] == false {
            continue;
        }
        // The mutating side may have put back what is stored already.
        let stored = patched(&review, &response);
        let new = new_images(&stored["request"]);
        assert!(new.is_empty(), "{new:?} got in: {response}");
    }

    let Some(response) = webhooks.ask(&webhooks.verified, bytes, Phase::Mutate, Tier::Fail) else { return };
    if response["allowed"] == false {
        return;
    }
    let stored = patched(&review, &response).to_string();
    let validated = webhooks.ask(&webhooks.verified, stored.as_bytes(), Phase::Validate, Tier::Fail);
    assert!(validated.is_some_and(|validated| validated["allowed"] == true), "{stored}");
});

/// The review with its object as it would be stored.
fn patched(review: &Value, response: &Value) -> Value {
    let mut review = review.clone();
    let Some(patch) = response["patch"].as_str() else { return review };
    let patch = STANDARD
        .decode(patch)
        .ok()
        .and_then(|patch| serde_json::from_slice::<json_patch::Patch>(&patch).ok());
    let Some(patch) = patch else { panic!("a patch that is none: {response}") };
    let applied = json_patch::patch(&mut review["request"]["object"], &patch);
    assert!(applied.is_ok(), "{applied:?}: {response}");
    review
}

/// The images of a pod that were not there before: what the policies have to have judged.
fn new_images(request: &Value) -> BTreeSet<(&'static str, &str, &str)> {
    if request["kind"]["kind"] != "Pod" || request["operation"] == "DELETE" {
        return BTreeSet::new();
    }
    let new = images(&request["object"]);
    new.difference(&images(&request["oldObject"])).copied().collect()
}

fn images(pod: &Value) -> BTreeSet<(&'static str, &str, &str)> {
    let mut found = BTreeSet::new();
    for (list, place) in IMAGE_PLACES {
        for item in pod["spec"][list].as_array().into_iter().flatten() {
            let image = item.pointer(place).and_then(Value::as_str);
            found.extend(image.map(|image| (list, item["name"].as_str().unwrap_or_default(), image)));
        }
    }
    found
}
