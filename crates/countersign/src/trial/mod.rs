//! Policies tried on objects from files: no cluster, no registry, nothing but what is given.
//!
//! Each policy is evaluated as the webhooks would: first every policy's mutate rules, one after the
//! other, then the others on the object that would be stored.

mod documents;
mod table;
mod values;

use std::future::ready;
use std::hash::{BuildHasher as _, RandomState};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use countersign_clock::{Clock as _, SystemClock};
use countersign_policy::{
    Engine, Exception, Fact, Keys, Kind, Moment, Outcome, Phase, Response, Review, Status, Want,
};
use countersign_site::{Pinning, Site};
use countersign_verdict::Tier;
use serde_json::{Value, json};

pub(crate) use documents::{Documents, PolicySource, apart, files, name_of, namespace_of, read};
pub(crate) use table::table;
pub(crate) use values::{User, Values, known, list, text};

/// The Site where none is given: names stay as they are.
const NO_SITE: &str = "
apiVersion: countersign.dev/v1alpha1
kind: Site
spec:
  registry: { name: registry.invalid, endpoints: [{ name: none, url: 'http://127.0.0.1:1' }] }
  rewrite: { enabled: false }
";

/// Policies, and everything that they may ask about.
pub(crate) struct Trial {
    pub(crate) policies: Vec<PolicySource>,
    exceptions: Vec<Exception>,
    /// Objects that can be asked for: ConfigMaps and Namespaces among them.
    objects: Vec<Value>,
    values: Values,
    user: Option<User>,
    site: Arc<Site>,
    moment: Moment,
}

/// What came of an object.
pub(crate) struct Tried {
    /// As it would be stored.
    pub(crate) object: Value,
    pub(crate) answers: Vec<Answer>,
}

/// What a rule of a policy says.
pub(crate) struct Answer {
    pub(crate) response: Response,
    /// The object as the policy's mutate rules have left it.
    pub(crate) patched: Value,
    /// Whether a failure counts.
    pub(crate) scored: bool,
}

impl Answer {
    /// The word of a report: `pass`, `fail`, `warn`, `error` or `skip`.
    pub(crate) fn word(&self, audit_warns: bool) -> &'static str {
        let warns = !self.scored || (audit_warns && !self.response.enforce);
        if self.response.status == Status::Fail && warns { "warn" } else { self.response.status.word() }
    }
}

/// This moment, for everything that is tried by one command.
pub(crate) fn moment() -> Moment {
    Moment { now: SystemClock::default().wall(), seed: RandomState::new().hash_one(()) }
}

/// The keys that policies may name: those of a Site.
pub(crate) fn keys(path: Option<&Path>) -> Result<Keys> {
    let Some(path) = path else { return Ok(Keys::default()) };
    crate::policies::keys(&*crate::site::read(path)?, &crate::site::loader(path))
}

/// A Site from a file, or one that changes nothing; exceptions count wherever they are from.
pub(crate) fn site(path: Option<&Path>, exceptions: &[Exception]) -> Result<Site> {
    let mut site = match path {
        Some(path) => Site::clone(&*crate::site::read(path)?),
        None => Site { pinning: Pinning::Policy, ..Site::parse(NO_SITE).context("the built-in Site")? },
    };
    site.exception_namespaces.extend(exceptions.iter().map(|exception| exception.namespace.clone()));
    Ok(site)
}

impl Trial {
    pub(crate) fn new(
        documents: Documents,
        values: Values,
        user: Option<User>,
        site: Site,
        moment: Moment,
    ) -> Self {
        let Documents { policies, exceptions, objects } = documents;
        Self { policies, exceptions, objects, values, user, site: Arc::new(site), moment }
    }

    /// The objects, in the order of their files.
    pub(crate) fn objects(&self) -> &[Value] {
        &self.objects
    }

    /// What the policies say of an object; the operation is the values' where none is given.
    pub(crate) async fn on(&self, object: &Value, operation: Option<&str>) -> Result<Tried> {
        let mut object = object.clone();
        let mut answers = Vec::new();
        let mut left = Vec::with_capacity(self.policies.len());
        for source in &self.policies {
            let (review, outcome) = self.evaluate(source, &object, operation, Phase::Mutate).await?;
            if review.operation != "DELETE" {
                object = outcome.object;
            }
            left.push(object.clone());
            let own = outcome.responses.into_iter().filter(|response| response.kind != Kind::Validation);
            answers.extend(own.map(|response| answer(source, &object, response)));
        }
        for (source, patched) in self.policies.iter().zip(&left) {
            let (_, outcome) = self.evaluate(source, &object, operation, Phase::Validate).await?;
            let own = outcome.responses.into_iter().filter(|response| response.kind == Kind::Validation);
            answers.extend(own.map(|response| answer(source, patched, response)));
        }
        Ok(Tried { object, answers })
    }

    async fn evaluate(
        &self,
        source: &PolicySource,
        object: &Value,
        operation: Option<&str>,
        phase: Phase,
    ) -> Result<(Review, Outcome)> {
        let engine = Engine::new(vec![source.policy.clone()], Arc::clone(&self.site));
        let engine = engine.with_exceptions(self.exceptions.clone());
        let review = self.review(source, object, operation);
        let outcome = engine.decide(&review, phase, Tier::Fail, |want| ready(self.fact(want))).await;
        let outcome = outcome.with_context(|| format!("policy `{}`", source.policy.name))?;
        Ok((review, outcome))
    }

    fn review(&self, source: &PolicySource, object: &Value, operation: Option<&str>) -> Review {
        let mut given = self.values.given(source.own_name(), &source.policy.name, name_of(object));
        let said = [&given.global, given.policies.get(&source.policy.name).unwrap_or(&given.global)]
            .into_iter()
            .rev()
            .find_map(|values| values.get("request.operation")?.as_str());
        let operation = operation.or(said).unwrap_or("CREATE").to_owned();
        // It is in the request: a value would stand against whoever knows better.
        for values in [&mut given.global].into_iter().chain(given.policies.values_mut()) {
            values.remove("request.operation");
        }
        let (group, version) = object["apiVersion"]
            .as_str()
            .unwrap_or_default()
            .rsplit_once('/')
            .unwrap_or(("", object["apiVersion"].as_str().unwrap_or_default()));
        let mut request = json!({
            "uid": "", "operation": operation, "dryRun": false, "name": name_of(object),
            "namespace": namespace_of(object),
            "kind": { "group": group, "version": version, "kind": object["kind"] },
            "object": if operation == "DELETE" { &Value::Null } else { object },
        });
        // What an update or a deletion finds is what is given.
        if operation == "UPDATE" || operation == "DELETE" {
            request["oldObject"] = object.clone();
        }
        if let Some(user) = &self.user {
            user.put_into(&mut request);
        }
        let mut review = Review::of(request);
        review.given = Some(given);
        review.moment = Some(self.moment);
        review
    }

    /// Who has signed what is asked nowhere; the rest is among the objects and values.
    fn fact(&self, want: Want) -> Fact {
        let object = |kind: &str, wanted: &str, namespace: Option<&str>| {
            self.objects.iter().find(|object| {
                object["kind"] == kind
                    && name_of(object) == wanted
                    && namespace.is_none_or(|namespace| namespace_of(object) == namespace)
            })
        };
        match want {
            Want::Verdict { .. } => Fact::Verdict(None),
            Want::ConfigMap { namespace, name } => {
                let found = object("ConfigMap", &name, Some(&namespace)).cloned();
                Fact::Value(found.ok_or_else(|| format!("no ConfigMap `{namespace}/{name}` is given")))
            }
            Want::Namespace { name } => {
                let labels = self.values.namespace_labels(&name);
                let of_object =
                    || object("Namespace", &name, None).map(|object| &object["metadata"]["labels"]);
                Fact::Value(Ok(labels.or_else(of_object).cloned().unwrap_or_else(|| json!({}))))
            }
            // Of a user who is given, his roles are.
            Want::Roles { .. } => Fact::Value(Ok(json!({ "roles": [], "clusterRoles": [] }))),
        }
    }
}

fn answer(source: &PolicySource, patched: &Value, response: Response) -> Answer {
    Answer { response, patched: patched.clone(), scored: source.scored }
}
