//! One signed image, a pod with it, and what a policy says of that.

use std::collections::BTreeMap;
use std::sync::Arc;

use countersign_policy::{
    Engine, Evaluation, Fact, Facts, Keys, Outcome as Answered, Phase, Review, SecretKeys, SiteKey, Want,
    load,
};
use countersign_reference::Digest;
use countersign_signature::sign::{Scheme, Signer};
use countersign_signature::{Judge, Limits, Located, Material, Terms, Time, Trust};
use countersign_site::Site;
use countersign_verdict::{Code, Outcome, Period, Proof, Tier, Verdict};
use serde_json::{Value, json};

pub(super) const IMAGE: &str = "registry.local/quay.io/acme/db:1";

/// One image, signed by `own` with an annotation beside it, and by `other` in a repository of its own.
pub(super) struct World {
    digest: Digest,
    beside: Vec<Material>,
    elsewhere: Vec<Material>,
    keys: Keys,
    pub(super) own: String,
    pub(super) stranger: String,
}

impl World {
    pub(super) fn new() -> Self {
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

    /// What the policy, and one that holds against what it leaves, say of a request.
    pub(super) fn judge(&self, text: &str, case: &Case) -> Answered {
        let document = countersign_yaml::document(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        let policy = load(&document, &self.keys).unwrap();
        assert_eq!(policy.refusals, [], "{text}");
        let site = "apiVersion: countersign.dev/v1alpha1\nkind: Site\nspec:\n  registry: { name: registry.local, \
                    endpoints: [{ name: a, url: 'http://127.0.0.1:5000' }] }\n  pinning: policy\n";
        let engine = Engine::new(vec![policy], Arc::new(Site::parse(site).unwrap()));
        let request = |object: &Value| {
            Review::of(json!({
                "operation": case.operation, "namespace": "apps", "kind": { "group": "", "version": "v1", "kind": "Pod" },
                "object": if case.operation == "DELETE" { &Value::Null } else { object }, "oldObject": case.old,
                "userInfo": { "username": "system:serviceaccount:apps:bot", "groups": ["dev"] },
            }))
        };
        let mut object = pod();
        let mut told = Vec::new();
        for phase in [Phase::Mutate, Phase::Validate] {
            let mut outcome = self.run(&engine, &request(&object), phase);
            object.clone_from(&outcome.object);
            told.append(&mut outcome.warnings);
            if phase == Phase::Validate || !outcome.denials.is_empty() {
                return Answered { warnings: told, ..outcome };
            }
        }
        unreachable!("the second phase is the last")
    }

    fn run(&self, engine: &Engine, review: &Review, phase: Phase) -> Answered {
        let mut facts = Facts::default();
        loop {
            match engine.evaluate(review, phase, Tier::Fail, &facts) {
                Evaluation::Done(outcome) => return *outcome,
                Evaluation::Needs(wants) => {
                    for want in wants {
                        let fact = match &want {
                            Want::Verdict { .. } => Fact::Verdict(Some(self.answer(&want))),
                            Want::ConfigMap { namespace, name } => {
                                let value = json!({ "data": { "x": format!("{namespace}/{name}") } });
                                Fact::Value(Ok(value))
                            }
                            Want::Namespace { .. } => Fact::Value(Ok(json!({ "app": "db", "env": "prod" }))),
                            Want::Roles { .. } => {
                                Fact::Value(Ok(json!({ "roles": ["apps:edit"], "clusterRoles": ["view"] })))
                            }
                        };
                        facts.add(want, fact);
                    }
                }
            }
        }
    }

    pub(super) fn denies(&self, text: &str, case: &Case) -> bool {
        !self.judge(text, case).denials.is_empty()
    }
}

/// The pod that is asked about: of these containers, one has no limits.
pub(super) fn pod() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": "db", "namespace": "apps", "labels": { "app": "db", "env": "prod" }, "annotations": { "owner": "jane" },
        },
        "spec": {
            "hostPID": true,
            "securityContext": { "sysctls": [{ "name": "net.ipv4.tcp_keepalive_time", "value": "1" }] },
            "containers": [
                { "name": "a", "image": IMAGE, "ports": [{ "containerPort": 1 }, { "containerPort": 2 }] },
                { "name": "b", "image": IMAGE, "securityContext": { "privileged": true } },
            ],
        },
    })
}

/// What is asked.
pub(super) struct Case {
    pub(super) operation: &'static str,
    pub(super) old: Value,
}

impl Case {
    pub(super) const CREATE: Self = Self { operation: "CREATE", old: Value::Null };
}

/// A field, a policy that admits the pod, and one that differs in the field alone and denies it.
pub(super) struct Row {
    pub(super) field: String,
    pub(super) admits: String,
    pub(super) denies: String,
    pub(super) case: Case,
}

pub(super) fn row(
    field: impl Into<String>,
    policy: impl Fn(&str) -> String,
    admits: &str,
    denies: &str,
) -> Row {
    Row { field: field.into(), admits: policy(admits), denies: policy(denies), case: Case::CREATE }
}

pub(super) const PODS: &str = "match: { any: [{ resources: { kinds: [Pod] } }] }";
pub(super) const DENY: &str = "validate: { message: no, deny: {} }";

/// A policy with these rules, each without its name.
pub(super) fn policy(spec: &str, rules: &[&str]) -> String {
    let rules: String = rules
        .iter()
        .enumerate()
        .map(|(index, rule)| format!("    - name: r{index}\n      {}\n", rule.replace('\n', "\n      ")))
        .collect();
    format!(
        "apiVersion: kyverno.io/v1\nkind: ClusterPolicy\nmetadata: {{ name: p, annotations: \
         {{ pod-policies.kyverno.io/autogen-controllers: none }} }}\nspec:\n  {spec}\n  rules:\n{rules}"
    )
}

pub(super) fn enforced(rules: &[&str]) -> String {
    policy("validationFailureAction: Enforce", rules)
}

/// Denies what was marked by a rule before it.
pub(super) fn if_marked(rule: &str) -> String {
    enforced(&[
        rule,
        &format!("{PODS}\nvalidate: {{ message: marked, pattern: {{ metadata: {{ X(marked): x }} }} }}"),
    ])
}
