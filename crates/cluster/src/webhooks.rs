//! The webhook configurations: registered once somebody answers, and from then on there until
//! somebody takes them away on purpose.
//!
//! ```text
//! leader      every few seconds: is the Deployment there? is there an intent to remove? then restore
//! remove      intent (a ConfigMap, bound to the Deployment's UID) ─► the leader acknowledges ─► delete
//! ```
//!
//! What removes waits for whoever leads, for only the leader restores. A new installation has a
//! Deployment with another UID: an intent of the past means nothing to it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{
    ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, ObjectMeta, PostParams,
};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::kinds::{Rules, Tiers};

/// The name of both configurations.
pub const CONFIGURATION: &str = "countersign";
/// The ConfigMap that says that they are to go.
const INTENT: &str = "countersign-webhooks";
/// How often it is looked whether they may go, or are gone.
const ROUND: Duration = Duration::from_millis(500);
/// How often they have to be found gone before that is believed.
const GONE: u32 = 3;
/// The same where no installation was found, which may be somewhere else: for longer than two
/// rounds of a leader (3 s).
const GONE_UNSEEN: u32 = 14;
/// The API server's own time for a call, in seconds.
const TIMEOUT: u32 = 10;

/// Where the API server finds the webhooks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A Service in the program's namespace.
    Service {
        /// Its name.
        name: String,
        /// Its port.
        port: u16,
    },
    /// An address, for a program outside a cluster: `https://HOST:PORT`.
    Url(String),
}

/// One installation of the program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installation {
    /// Where it lives.
    pub namespace: String,
    /// The Deployment that it is.
    pub deployment: String,
    /// The Lease that its leader holds.
    pub lease: String,
}

/// What came of a round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Registered {
    /// They are there; whether something had to be done about it.
    Here(bool),
    /// They are not touched: why.
    Left(String),
    /// They are to go, and that is acknowledged.
    Removing,
}

/// What webhook configurations are made of.
#[derive(Clone, Copy, Debug)]
pub struct Configured<'a> {
    /// The authorities of the serving certificate (PEM).
    pub authorities: &'a str,
    /// Namespaces that must come up whatever is away.
    pub bootstrap: &'a BTreeSet<String>,
    /// What is asked about besides pods; `None` while that cannot be seen: what is registered stays.
    pub rules: Option<&'a Rules>,
}

/// Registers, restores and removes them.
pub struct Webhooks {
    client: Client,
    installation: Installation,
}

impl Webhooks {
    /// Those of this installation.
    pub fn new(client: &Client, installation: Installation) -> Self {
        Self { client: client.clone(), installation }
    }

    fn own<K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>>(&self) -> Api<K>
    where
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), &self.installation.namespace)
    }

    /// The UID of the Deployment, if it is there to stay.
    async fn uid(&self) -> Result<Option<String>, kube::Error> {
        let deployment = self.own::<Deployment>().get_opt(&self.installation.deployment).await?;
        let metadata = deployment.map(|deployment| deployment.metadata);
        Ok(metadata
            .filter(|metadata| metadata.deletion_timestamp.is_none())
            .and_then(|metadata| metadata.uid))
    }

    /// Whether a replica is ready behind the Service.
    async fn somebody_answers(&self, target: &Target) -> Result<bool, kube::Error> {
        let Target::Service { name, .. } = target else { return Ok(true) };
        let of_service = ListParams::default().labels(&format!("kubernetes.io/service-name={name}"));
        let slices = self.own::<EndpointSlice>().list(&of_service).await?;
        let mut endpoints = slices.items.into_iter().flat_map(|slice| slice.endpoints);
        Ok(endpoints
            .any(|endpoint| endpoint.conditions.and_then(|conditions| conditions.ready).unwrap_or_default()))
    }

    /// One round of the leader: they are as they should be, or it is said why they are not. `by` is what
    /// they are made of, once it is known; an intent to remove them is acknowledged whatever is missing.
    ///
    /// # Errors
    ///
    /// The API server says no, or nothing.
    pub async fn keep(
        &self,
        leader: &str,
        target: &Target,
        by: Option<Configured<'_>>,
    ) -> Result<Registered, kube::Error> {
        let Some(uid) = self.uid().await? else {
            let Installation { namespace, deployment, .. } = &self.installation;
            return Ok(Registered::Left(format!("there is no Deployment `{deployment}` in `{namespace}`")));
        };
        if self.is_to_go(&uid, leader).await? {
            return Ok(Registered::Removing);
        }
        let Some(configured) = by else {
            return Ok(Registered::Left("there is no good Site, or no serving certificate, yet".to_owned()));
        };
        let mut done = false;
        let mut answers = None;
        for (kind, api) in configurations(&self.client) {
            let found = api.get_opt(CONFIGURATION).await?;
            let tiers = match (configured.rules, &found) {
                (Some(rules), _) => rules.of(kind == Kind::Mutating).clone(),
                (None, Some(found)) => registered(&found.data["webhooks"]),
                (None, None) => Tiers::default(),
            };
            let wanted = wanted(kind, target, &self.installation.namespace, configured, &tiers);
            match found {
                Some(found) if found.data["webhooks"] == wanted => {}
                Some(mut found) => {
                    found.data["webhooks"] = wanted;
                    api.replace(CONFIGURATION, &PostParams::default(), &found).await?;
                    done = true;
                }
                None => {
                    let answers = match answers {
                        Some(answers) => answers,
                        None => *answers.insert(self.somebody_answers(target).await?),
                    };
                    if !answers {
                        return Ok(Registered::Left("no replica is ready yet".to_owned()));
                    }
                    let mut object = DynamicObject::new(CONFIGURATION, &kind.resource());
                    let label = ("app.kubernetes.io/name".to_owned(), "countersign".to_owned());
                    object.metadata.labels = Some(BTreeMap::from([label]));
                    object.data["webhooks"] = wanted;
                    api.create(&PostParams::default(), &object).await?;
                    done = true;
                }
            }
        }
        Ok(Registered::Here(done))
    }

    /// Whether an intent to remove stands for this installation; the leader acknowledges it.
    async fn is_to_go(&self, uid: &str, leader: &str) -> Result<bool, kube::Error> {
        let maps = self.own::<ConfigMap>();
        let Some(mut map) = maps.get_opt(INTENT).await? else { return Ok(false) };
        let data = map.data.get_or_insert_default();
        if data.get("installation").map(String::as_str) != Some(uid) {
            return Ok(false);
        }
        if data.get("acknowledged").map(String::as_str) != Some(leader) {
            data.insert("acknowledged".to_owned(), leader.to_owned());
            maps.replace(INTENT, &PostParams::default(), &map).await?;
        }
        Ok(true)
    }

    /// Takes them away, and keeps them away for as long as this installation lasts.
    ///
    /// # Errors
    ///
    /// The API server says no or nothing, or whoever leads does not acknowledge it in time.
    pub async fn remove(&self, patience: Duration) -> Result<Removed, RemoveError> {
        let start = Instant::now();
        let installed = self.uid().await?;
        if let Some(uid) = &installed {
            self.intend(uid).await?;
        }
        let mut watched: Option<(Option<String>, Instant)> = None;
        let lost = loop {
            match self.may_go(installed.as_deref(), &mut watched).await? {
                None => break self.delete().await?,
                Some(holder) if start.elapsed() > patience => {
                    return Err(RemoveError::Unacknowledged(holder));
                }
                Some(_) => tokio::time::sleep(ROUND).await,
            }
        };
        // Nobody puts them back.
        let (mut quiet, long) = (0, if installed.is_some() { GONE } else { GONE_UNSEEN });
        while quiet < long {
            tokio::time::sleep(ROUND).await;
            if self.delete().await?.is_empty() {
                quiet += 1;
            } else if start.elapsed() > patience {
                return Err(RemoveError::Restored);
            } else {
                quiet = 0;
            }
        }
        Ok(Removed { configurations: lost, installed: installed.is_some() })
    }

    /// Lets them be registered again; whether they were to stay away.
    ///
    /// # Errors
    ///
    /// The API server says no, or nothing.
    pub async fn restore(&self) -> Result<bool, RemoveError> {
        match self.own::<ConfigMap>().delete(INTENT, &DeleteParams::default()).await {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    async fn intend(&self, uid: &str) -> Result<(), kube::Error> {
        let maps = self.own::<ConfigMap>();
        let data = BTreeMap::from([("installation".to_owned(), uid.to_owned())]);
        match maps.get_opt(INTENT).await? {
            Some(mut map) => {
                map.data = Some(data);
                maps.replace(INTENT, &PostParams::default(), &map).await?;
            }
            None => {
                let metadata = ObjectMeta { name: Some(INTENT.to_owned()), ..ObjectMeta::default() };
                let map = ConfigMap { metadata, data: Some(data), ..ConfigMap::default() };
                maps.create(&PostParams::default(), &map).await?;
            }
        }
        Ok(())
    }

    /// Nothing where nobody would restore them; else whoever leads and has not said so.
    async fn may_go(
        &self,
        uid: Option<&str>,
        watched: &mut Option<(Option<String>, Instant)>,
    ) -> Result<Option<String>, kube::Error> {
        // Without its Deployment nobody registers anything.
        let Some(uid) = uid else { return Ok(None) };
        let Some(lease) = self.own::<Lease>().get_opt(&self.installation.lease).await? else {
            return Ok(None);
        };
        let version = lease.metadata.resource_version;
        let spec = lease.spec.unwrap_or_default();
        let Some(holder) = spec.holder_identity.filter(|holder| !holder.is_empty()) else { return Ok(None) };
        let map = self.own::<ConfigMap>().get_opt(INTENT).await?.and_then(|map| map.data).unwrap_or_default();
        let said = |key: &str| map.get(key).map(String::as_str);
        if said("installation") == Some(uid) && said("acknowledged") == Some(holder.as_str()) {
            return Ok(None);
        }
        // A lease that nobody renews is nobody's: by our own clock, for we have seen it stand still.
        let lasts = u64::try_from(spec.lease_duration_seconds.unwrap_or_default()).unwrap_or_default();
        let since = match watched {
            Some((seen, since)) if *seen == version => *since,
            _ => watched.insert((version, Instant::now())).1,
        };
        Ok((since.elapsed() < Duration::from_secs(lasts)).then_some(holder))
    }

    /// Deletes both; those that were there.
    async fn delete(&self) -> Result<Vec<&'static str>, kube::Error> {
        let mut lost = Vec::new();
        for (kind, api) in configurations(&self.client) {
            match api.delete(CONFIGURATION, &DeleteParams::default()).await {
                Ok(_) => lost.push(kind.word()),
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => return Err(error),
            }
        }
        Ok(lost)
    }

    /// Configurations of Kyverno, which decides beside us: their names.
    ///
    /// # Errors
    ///
    /// The API server says no, or nothing.
    pub async fn of_others(&self) -> Result<Vec<String>, kube::Error> {
        let mut names = Vec::new();
        for (_, api) in configurations(&self.client) {
            let found = api.list_metadata(&ListParams::default()).await?;
            let found = found.items.into_iter().filter_map(|object| object.metadata.name);
            names.extend(found.filter(|name| name.starts_with("kyverno-")));
        }
        names.sort();
        names.dedup();
        Ok(names)
    }
}

fn configurations(client: &Client) -> [(Kind, Api<DynamicObject>); 2] {
    [Kind::Mutating, Kind::Validating].map(|kind| (kind, Api::all_with(client.clone(), &kind.resource())))
}

/// Whether both configurations are there, with a webhook in each.
///
/// # Errors
///
/// The API server says no, or nothing.
pub async fn webhooks_registered(client: &Client) -> Result<bool, kube::Error> {
    for (_, api) in configurations(client) {
        let found = api.get_opt(CONFIGURATION).await?;
        if found.is_none_or(|found| found.data["webhooks"].as_array().is_none_or(Vec::is_empty)) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removed {
    /// The kinds of configurations that were there.
    pub configurations: Vec<&'static str>,
    /// Whether there is an installation, which leaves them alone from now on.
    pub installed: bool,
}

/// Why they are there still.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RemoveError {
    /// The API server says no, or nothing.
    #[error("the webhook configurations: {0}")]
    Api(Box<kube::Error>),
    /// The leader has not said that it leaves them alone.
    #[error(
        "`{0}` leads and has not acknowledged the intent, which stands: it would restore them. \
         Delete the Deployment, or end that replica, and say this again"
    )]
    Unacknowledged(String),
    /// Somebody puts them back.
    #[error("somebody puts them back: another installation, or a tool that applies them")]
    Restored,
}

impl RemoveError {
    /// Whether nobody answered, or somebody who could not.
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Api(error) if crate::is_unreachable(error))
    }
}

impl From<kube::Error> for RemoveError {
    fn from(error: kube::Error) -> Self {
        Self::Api(Box::new(error))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Mutating,
    Validating,
}

impl Kind {
    const fn word(self) -> &'static str {
        match self {
            Self::Mutating => "MutatingWebhookConfiguration",
            Self::Validating => "ValidatingWebhookConfiguration",
        }
    }

    const fn phase(self) -> &'static str {
        match self {
            Self::Mutating => "mutate",
            Self::Validating => "validate",
        }
    }

    fn resource(self) -> ApiResource {
        ApiResource::from_gvk(&GroupVersionKind::gvk("admissionregistration.k8s.io", "v1", self.word()))
    }
}

/// The webhooks of a configuration, with every field as the API server stores it.
///
/// ```text
/// fail      ordinary namespaces          pods, and what strict policies speak of        Fail
/// lenient   ordinary namespaces          what else policies speak of, and what is of    Ignore
///                                        no namespace
/// ignore    the bootstrap namespaces     all of it                                      Ignore
/// ```
fn wanted(
    kind: Kind,
    target: &Target,
    namespace: &str,
    configured: Configured<'_>,
    Tiers { strict, lenient }: &Tiers,
) -> Value {
    let Configured { authorities, bootstrap, .. } = configured;
    // Its own pods must start without it: the scanner and the evidence cover them.
    let bootstrap: Vec<&str> =
        bootstrap.iter().map(String::as_str).filter(|name| *name != namespace).collect();
    let others: Vec<&str> = bootstrap.iter().copied().chain([namespace]).collect();
    let with = |more: &[Value]| -> Vec<Value> { pods().into_iter().chain(more.iter().cloned()).collect() };
    let one = |name, tier, failure_policy, namespaces, rules| {
        let webhook = Webhook { kind, name, tier, failure_policy, namespaces, rules };
        webhook.written(target, namespace, authorities)
    };
    let mut webhooks = vec![one("fail", "fail", "Fail", ("NotIn", others.as_slice()), with(strict))];
    if !lenient.is_empty() {
        webhooks.push(one("lenient", "fail", "Ignore", ("NotIn", &others), lenient.clone()));
    }
    if !bootstrap.is_empty() {
        // What is of no namespace is asked about by the lenient one, wherever it is; but a Namespace is
        // of itself.
        let of_namespaces = |rule: &&Value| {
            rule["scope"] == "Namespaced"
                || rule["resources"]
                    .as_array()
                    .is_some_and(|resources| resources.contains(&json!("namespaces")))
        };
        let all = strict.iter().chain(lenient).filter(of_namespaces).cloned().map(|mut rule| {
            if rule["scope"] == "Cluster" {
                rule["resources"] = json!(["namespaces"]);
            }
            rule
        });
        let all: Vec<Value> = all.collect();
        webhooks.push(one("ignore", "ignore", "Ignore", ("In", &bootstrap), with(&all)));
    }
    Value::Array(webhooks)
}

/// What webhooks are asked about besides pods, as they are registered.
fn registered(webhooks: &Value) -> Tiers {
    let rules = |name: &str| -> Vec<Value> {
        let mut all = webhooks.as_array().into_iter().flatten();
        let is = |webhook: &&Value| webhook["name"].as_str().is_some_and(|own| own.starts_with(name));
        let rules = all.find(is).and_then(|webhook| webhook["rules"].as_array()).into_iter().flatten();
        rules.filter(|rule| !pods().contains(rule)).cloned().collect()
    };
    Tiers { strict: rules("fail."), lenient: rules("lenient.") }
}

/// Pods are asked about in any case.
fn pods() -> [Value; 2] {
    let rule = |operations: &[&str], resource: &str| {
        json!({
            "apiGroups": [""], "apiVersions": ["v1"], "operations": operations, "resources": [resource],
            "scope": "Namespaced",
        })
    };
    [rule(&["CREATE", "UPDATE"], "pods"), rule(&["UPDATE"], "pods/ephemeralcontainers")]
}

/// One webhook of a configuration.
struct Webhook<'a> {
    kind: Kind,
    name: &'a str,
    /// How it is judged: the path's end.
    tier: &'a str,
    failure_policy: &'a str,
    namespaces: (&'a str, &'a [&'a str]),
    rules: Vec<Value>,
}

impl Webhook<'_> {
    fn written(self, target: &Target, namespace: &str, authorities: &str) -> Value {
        let Self { kind, name, tier, failure_policy, namespaces: (operator, namespaces), rules } = self;
        let path = format!("/{}/{tier}", kind.phase());
        let ca_bundle = STANDARD.encode(authorities);
        let client_config = match target {
            Target::Service { name, port } => json!({
                "caBundle": ca_bundle,
                "service": { "name": name, "namespace": namespace, "path": path, "port": port },
            }),
            Target::Url(url) => json!({ "caBundle": ca_bundle, "url": format!("{url}{path}") }),
        };
        let mut webhook = json!({
            "name": format!("{name}.{}.countersign.dev", kind.phase()),
            "admissionReviewVersions": ["v1"],
            "clientConfig": client_config,
            "failurePolicy": failure_policy,
            "matchPolicy": "Equivalent",
            "namespaceSelector": { "matchExpressions": [
                { "key": "kubernetes.io/metadata.name", "operator": operator, "values": namespaces },
            ] },
            "objectSelector": {},
            "rules": rules,
            "sideEffects": "NoneOnDryRun",
            "timeoutSeconds": TIMEOUT,
        });
        if kind == Kind::Mutating {
            // A sidecar that somebody adds after us is seen again.
            webhook["reinvocationPolicy"] = json!("IfNeeded");
        }
        webhook
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_namespace_but_its_own_is_of_one_tier() {
        let bootstrap = ["kube-system", "nexus", "countersign"].map(str::to_owned).into();
        let target = Target::Service { name: "countersign".to_owned(), port: 443 };
        for kind in [Kind::Mutating, Kind::Validating] {
            let configured = Configured { authorities: "pem", bootstrap: &bootstrap, rules: None };
            let webhooks = wanted(kind, &target, "countersign", configured, &Tiers::default());
            let selects = |index: usize, namespace: &str| {
                let expression = &webhooks[index]["namespaceSelector"]["matchExpressions"][0];
                let named = expression["values"].as_array().unwrap().contains(&json!(namespace));
                named == (expression["operator"] == "In")
            };
            for (namespace, tiers) in
                [("default", [true, false]), ("kube-system", [false, true]), ("countersign", [false, false])]
            {
                assert_eq!([selects(0, namespace), selects(1, namespace)], tiers, "{namespace}");
            }
            assert_eq!(webhooks[0]["failurePolicy"], "Fail");
            assert_eq!(webhooks[1]["failurePolicy"], "Ignore");
        }
        let none = BTreeSet::new();
        let configured = Configured { authorities: "pem", bootstrap: &none, rules: None };
        let count = wanted(Kind::Mutating, &target, "countersign", configured, &Tiers::default())
            .as_array()
            .unwrap()
            .len();
        assert_eq!(count, 1);
    }

    #[test]
    fn only_what_strict_policies_speak_of_is_denied_where_nobody_answers() {
        let rule = |resources: &[&str], scope: &str| json!({ "resources": resources, "scope": scope });
        let (jobs, scale) = (rule(&["jobs"], "Namespaced"), rule(&["deployments/scale"], "Namespaced"));
        let cluster = rule(&["namespaces", "nodes"], "Cluster");
        let tiers = Tiers { strict: vec![jobs], lenient: vec![scale, cluster] };
        let bootstrap = BTreeSet::from(["kube-system".to_owned()]);
        let target = Target::Url("https://127.0.0.1:1".to_owned());
        let configured = Configured { authorities: "pem", bootstrap: &bootstrap, rules: None };
        let webhooks = wanted(Kind::Validating, &target, "countersign", configured, &tiers);
        assert_eq!(registered(&webhooks), tiers, "what is registered can stay as it is");
        let shown: Vec<String> = webhooks
            .as_array()
            .unwrap()
            .iter()
            .map(|webhook| {
                let rules = webhook["rules"].as_array().unwrap().iter();
                let resources: Vec<_> = rules.map(|rule| rule["resources"].to_string()).collect();
                format!("{} {} {}", webhook["name"], webhook["failurePolicy"], resources.concat())
                    .replace('"', "")
            })
            .collect();
        assert_eq!(
            shown,
            [
                "fail.validate.countersign.dev Fail [pods][pods/ephemeralcontainers][jobs]",
                "lenient.validate.countersign.dev Ignore [deployments/scale][namespaces,nodes]",
                "ignore.validate.countersign.dev Ignore [pods][pods/ephemeralcontainers][jobs][deployments/scale][namespaces]",
            ]
        );
        // A pod's node must come up whatever is away.
        assert!(webhooks[1]["clientConfig"]["url"].as_str().unwrap().ends_with("/validate/fail"));
    }
}
