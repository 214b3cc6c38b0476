//! Policies, a pod and a few facts, for tests of rules.
#![allow(dead_code, reason = "no test needs all of it")]

use std::sync::Arc;

use countersign_policy::{
    Engine, Evaluation, Exception, Fact, Facts, Keys, Outcome, Phase, Review, Status, Want, load_given,
};
use countersign_site::Site;
use countersign_verdict::{Code, Outcome as Found, Tier, Verdict};
use serde_json::{Value, json};

/// A policy with these rules.
pub(crate) fn policy(name: &str, spec: &str, rules: &str) -> String {
    format!(
        "apiVersion: kyverno.io/v1\nkind: ClusterPolicy\nmetadata: {{ name: {name} }}\nspec:\n  {spec}\n  rules:\n{rules}"
    )
}

pub(crate) const ENFORCE: &str = "validationFailureAction: Enforce";

pub(crate) fn site(more: &str) -> Arc<Site> {
    let text = format!(
        "apiVersion: countersign.dev/v1alpha1\nkind: Site\nspec:\n  registry: {{ name: registry.local, \
         endpoints: [{{ name: a, url: 'http://127.0.0.1:5000' }}] }}\n  exceptionNamespaces: [safe]\n{more}"
    );
    Arc::new(Site::parse(&text).unwrap())
}

pub(crate) fn engine_in(site: Arc<Site>, policies: &[String], exceptions: &[&str]) -> Engine {
    let read = |text: &String| {
        let policy = load_given(&countersign_yaml::document(text).unwrap(), &Keys::default()).unwrap();
        assert_eq!(policy.refusals, [], "{text}");
        policy
    };
    let exceptions = exceptions.iter().map(|text| {
        let exception = Exception::load(&countersign_yaml::document(text).unwrap()).unwrap();
        assert_eq!(exception.refusals, [], "{text}");
        exception
    });
    Engine::new(policies.iter().map(read).collect(), site).with_exceptions(exceptions.collect())
}

pub(crate) fn engine(policies: &[String]) -> Engine {
    engine_in(site(""), policies, &[])
}

#[expect(clippy::needless_pass_by_value, reason = "reads better where it is called")]
pub(crate) fn pod(spec: Value) -> Value {
    json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "db", "namespace": "apps" }, "spec": spec })
}

pub(crate) fn review(operation: &str, object: &Value, old: Option<&Value>) -> Review {
    let api = object["apiVersion"].as_str().unwrap();
    let (group, version) = api.split_once('/').unwrap_or(("", api));
    Review::of(json!({
        "operation": operation, "namespace": "apps",
        "kind": { "group": group, "version": version, "kind": object["kind"] },
        "object": object, "oldObject": old, "userInfo": { "username": "jane", "groups": ["dev"] },
    }))
}

/// Evaluates to the end; of facts there are a ConfigMap and labels of the namespace.
pub(crate) fn run(engine: &Engine, review: &Review, phase: Phase) -> Outcome {
    let mut facts = Facts::default();
    for _ in 0..8 {
        match engine.evaluate(review, phase, Tier::Fail, &facts) {
            Evaluation::Done(outcome) => return *outcome,
            Evaluation::Needs(wants) => {
                for want in wants {
                    let fact = match &want {
                        Want::ConfigMap { namespace, name }
                            if (&**namespace, &**name) == ("apps", "allowed") =>
                        {
                            Fact::Value(Ok(
                                json!({ "data": { "registry": "registry.local" }, "metadata": {} }),
                            ))
                        }
                        Want::ConfigMap { .. } => Fact::Value(Err("there is none".to_owned())),
                        Want::Namespace { .. } => Fact::Value(Ok(json!({ "tier": "gold" }))),
                        Want::Roles { username, .. } => Fact::Value(match username.as_str() {
                            "jane" => Ok(json!({ "roles": ["apps:edit"], "clusterRoles": ["view"] })),
                            _ => Err("nobody can say".to_owned()),
                        }),
                        Want::Verdict { question, .. } => {
                            let image = question.image.clone();
                            Fact::Verdict(Some(Verdict::because(
                                image,
                                Found::Unsigned,
                                Code::NoSignature,
                                "none",
                            )))
                        }
                    };
                    facts.add(want, fact);
                }
            }
        }
    }
    panic!("no end")
}

pub(crate) fn validate(engine: &Engine, object: &Value) -> Outcome {
    run(engine, &review("CREATE", object, None), Phase::Validate)
}

/// Status and message of the one rule that has something to say.
pub(crate) fn one(outcome: &Outcome) -> (Status, &str) {
    let [response] = outcome.responses.as_slice() else { panic!("{:#?}", outcome.responses) };
    (response.status, &response.message)
}
