//! Each field of `verifyImages` that is supported can deny (T-15): a field that is read and then
//! ignored looks like one that works.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use countersign_policy::{
    Engine, Evaluation, Fact, Facts, Keys, Phase, Review, SecretKeys, SiteKey, VERIFY_FIELDS, Want, load,
};
use countersign_reference::Digest;
use countersign_signature::sign::{Scheme, Signer};
use countersign_signature::{Judge, Limits, Located, Material, Terms, Time, Trust};
use countersign_site::Site;
use countersign_verdict::{Code, Outcome, Period, Proof, Tier, Verdict};
use serde_json::json;

const IMAGE: &str = "registry.local/quay.io/acme/db:1";

/// One image, signed by `own` with an annotation beside it, and by `other` in a repository of its own.
struct World {
    digest: Digest,
    beside: Vec<Material>,
    elsewhere: Vec<Material>,
    keys: Keys,
    own: String,
    stranger: String,
}

impl World {
    fn new() -> Self {
        let [own, other, stranger] = [(); 3].map(|()| Signer::generate(Scheme::EcdsaP256).unwrap());
        let digest = Digest::sha256_of(b"an image");
        let annotations = BTreeMap::from([("env".to_owned(), "prod".to_owned())]);
        let until = |text: &str| Period { from: None, until: Some(text.parse().unwrap()) };
        let always = Period::default();
        let site = [
            ("own", &own, always),
            ("stranger", &stranger, always),
            ("over", &own, until("2026-01-01T00:00:00Z")),
        ];
        let site =
            site.map(|(name, key, period)| (name.to_owned(), SiteKey { pem: key.public_pem(), period }));
        let secrets = [("own", &own), ("stranger", &stranger)];
        let keys = secrets.map(|(name, key)| (name.to_owned(), key.public_pem())).into();
        let secrets = Some(SecretKeys { namespace: "countersign".to_owned(), keys });
        Self {
            beside: vec![own.bundle(&digest, &annotations).unwrap()],
            elsewhere: vec![other.bundle(&digest, &annotations).unwrap()],
            keys: Keys { site: site.into(), secrets, stand_in: None },
            own: other.public_pem(),
            stranger: stranger.public_pem(),
            digest,
        }
    }

    /// What a verifier would say.
    fn answer(&self, want: &Want) -> Verdict {
        let (question, _) = want.question().unwrap();
        let trust = Trust::new(&question.attestors).unwrap();
        let time = Time::Judged("2026-06-01T00:00:00Z".parse().unwrap());
        let mut judge = Judge::new(&trust, &self.digest, Terms { time, ..Terms::within(Limits::DEFAULT) });
        let materials = if question.repository.is_some() { &self.elsewhere } else { &self.beside };
        let located = |material: &Material| Located {
            at: "test".to_owned(),
            artifact: "signature".to_owned(),
            material: material.clone(),
        };
        let image = question.image.clone();
        let verdict = Verdict::because(image, Outcome::Rejected, Code::KeyMismatch, "not by these");
        match materials.iter().find_map(|material| judge.add(&located(material))) {
            None => verdict,
            Some(proof) => {
                let proof = Proof {
                    digest: self.digest.clone(),
                    keys: proof.get().keys.clone(),
                    format: proof.get().format,
                    source: "test".to_owned(),
                    name: None,
                    index: None,
                    stale_since: None,
                };
                Verdict { outcome: Outcome::Verified(proof), checks: Vec::new(), ..verdict }
            }
        }
    }

    /// Whether a pod with the image is admitted by a rule with this entry.
    fn admits(&self, entry: &str) -> bool {
        let entry = entry.replace("OWN", "site://own").replace("STRANGER", "site://stranger");
        let text = format!(
            "apiVersion: kyverno.io/v1\nkind: ClusterPolicy\nmetadata: {{ name: p, annotations: \
             {{ pod-policies.kyverno.io/autogen-controllers: none }} }}\nspec:\n  validationFailureAction: Enforce\n  \
             rules:\n  - name: r\n    match: {{ any: [{{ resources: {{ kinds: [Pod] }} }}] }}\n    verifyImages: [{entry}]\n"
        );
        let policy = load(&countersign_yaml::document(&text).unwrap(), &self.keys).unwrap();
        assert_eq!(policy.refusals, [], "{entry}");
        let site = "apiVersion: countersign.dev/v1alpha1\nkind: Site\nspec:\n  registry: { name: registry.local, \
                    endpoints: [{ name: a, url: 'http://127.0.0.1:5000' }] }\n";
        let engine = Engine::new(vec![policy], Arc::new(Site::parse(site).unwrap()));
        let review = Review::of(json!({
            "operation": "CREATE", "namespace": "apps", "kind": { "kind": "Pod" },
            "object": { "metadata": {}, "spec": { "containers": [{ "name": "c", "image": IMAGE }] } },
        }));
        let mut facts = Facts::default();
        loop {
            match engine.evaluate(&review, Phase::Mutate, Tier::Fail, &facts) {
                Evaluation::Done(outcome) => return outcome.denials.is_empty(),
                Evaluation::Needs(wants) => {
                    for want in wants {
                        let verdict = self.answer(&want);
                        facts.add(want, Fact::Verdict(Some(verdict)));
                    }
                }
            }
        }
    }
}

#[test]
fn t_15_every_field_can_deny() {
    let world = World::new();
    let pem = |text: &str| text.trim().replace('\n', "\\n");
    let (other, stranger) = (pem(&world.own), pem(&world.stranger));
    let set = |more: &str, entries: &str| {
        format!("{{ imageReferences: ['*'], attestors: [{{ {more} entries: [{entries}] }}] }}")
    };
    let key = |name: &str| format!("{{ keys: {{ publicKeys: {name} }} }}");
    let (own, strange) = (key("OWN"), key("STRANGER"));
    let keys = |written: &str| set("", &format!("{{ keys: {{ {written} }} }}"));
    let entry = |more: &str, who: &str| {
        format!("{{ {more} imageReferences: ['*'], attestors: [{{ entries: [{who}] }}] }}")
    };
    // The field; an entry with it that admits, and one that differs in it alone and denies.
    let rows: Vec<(&str, String, String)> = vec![
        (
            "imageReferences",
            entry("", &strange).replace("['*']", "['ghcr.io/*']"),
            entry("", &strange).replace("['*']", "['quay.io/*']"),
        ),
        (
            "skipImageReferences",
            entry("skipImageReferences: ['quay.io/*'],", &strange),
            entry("skipImageReferences: ['ghcr.io/*'],", &strange),
        ),
        (
            "failureAction",
            entry("failureAction: Audit,", &strange),
            entry("failureAction: Enforce,", &strange),
        ),
        (
            "repository",
            entry("repository: registry.local/sigs,", &key(&format!("\"{other}\""))),
            entry("", &key(&format!("\"{other}\""))),
        ),
        (
            "attestors",
            format!("{{ imageReferences: ['*'], attestors: [{{ entries: [{own}] }}] }}"),
            format!(
                "{{ imageReferences: ['*'], attestors: [{{ entries: [{own}] }}, {{ entries: [{strange}] }}] }}"
            ),
        ),
        (
            "attestors.count",
            set("count: 1,", &format!("{own}, {strange}")),
            set("count: 2,", &format!("{own}, {strange}")),
        ),
        ("attestors.entries", set("", &own), set("", &format!("{own}, {strange}"))),
        (
            "attestors.entries.attestor",
            set("", &format!("{{ attestor: {{ entries: [{own}] }} }}")),
            set("", &format!("{{ attestor: {{ entries: [{strange}] }} }}")),
        ),
        (
            "attestors.entries.annotations",
            set("", "{ annotations: { env: prod }, keys: { publicKeys: OWN } }"),
            set("", "{ annotations: { env: test }, keys: { publicKeys: OWN } }"),
        ),
        ("attestors.entries.keys", keys("publicKeys: OWN"), keys("publicKeys: STRANGER")),
        (
            "attestors.entries.keys.publicKeys",
            keys("publicKeys: OWN"),
            keys(&format!("publicKeys: \"{stranger}\"")),
        ),
        (
            "attestors.entries.keys.publicKeys",
            keys("publicKeys: 'k8s://countersign/own'"),
            keys("publicKeys: 'k8s://countersign/stranger'"),
        ),
        ("attestors.entries.keys.publicKeys", keys("publicKeys: OWN"), keys("publicKeys: 'site://over'")),
        ("attestors.entries.keys.secret", keys("secret: { name: own }"), keys("secret: { name: stranger }")),
        (
            "attestors.entries.keys.signatureAlgorithm",
            keys("publicKeys: OWN, signatureAlgorithm: sha256"),
            keys("publicKeys: OWN, signatureAlgorithm: sha512"),
        ),
    ];
    for (field, admits, denies) in &rows {
        assert!(world.admits(admits), "{field}: {admits}");
        assert!(!world.admits(denies), "{field}: {denies}");
    }
    let shown: BTreeSet<&str> = rows.iter().map(|(field, ..)| *field).collect();
    let supported: BTreeSet<&str> = VERIFY_FIELDS.into_iter().collect();
    assert_eq!(shown, supported, "each supported field has a row");
}
