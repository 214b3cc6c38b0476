//! The override of a name in the cluster's DNS.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use countersign_corefile::{Edit, EditError, Override, clear, expire, find, set};
use futures_util::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{ConfigMap, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::time::Instant;

use crate::question::{Answer, ask};

/// How often an edit is begun anew because somebody else was faster.
const TRIES: usize = 16;
/// How long between two rounds of questions.
const ROUND: Duration = Duration::from_millis(500);
/// Who asks the API server to change something.
const MANAGER: &str = "countersign";
/// The ConfigMap and the DaemonSet of NodeLocal DNSCache.
const NODE_LOCAL: &str = "node-local-dns";
/// Labels and annotations of those who put a ConfigMap back as they want it.
const RECONCILERS: &[(&str, &str)] = &[
    ("addonmanager.kubernetes.io/mode", "the addon manager"),
    ("objectset.rio.cattle.io/id", "k3s or RKE2"),
    ("meta.helm.sh/release-name", "Helm"),
    ("argocd.argoproj.io/instance", "Argo CD"),
    ("kustomize.toolkit.fluxcd.io/name", "Flux"),
];

/// Where CoreDNS is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The namespace of all of it.
    pub namespace: String,
    /// The ConfigMap with the Corefile.
    pub config_map: String,
    /// The key of the Corefile in it.
    pub key: String,
    /// The Service whose endpoints answer.
    pub service: String,
}

impl Default for Place {
    /// As kubeadm has it.
    fn default() -> Self {
        let [namespace, config_map, key, service] =
            ["kube-system", "coredns", "Corefile", "kube-dns"].map(ToOwned::to_owned);
        Self { namespace, config_map, key, service }
    }
}

/// Why the cluster's DNS could not be changed or asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DnsError {
    /// The API server says no, or nothing.
    #[error("{what}: {error}")]
    Api {
        /// What was asked of it.
        what: String,
        /// What went wrong.
        error: Box<kube::Error>,
    },
    /// There is no Corefile where it should be.
    #[error("the ConfigMap {namespace}/{name} has no key `{key}`")]
    NoCorefile {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// The key.
        key: String,
    },
    /// It cannot be edited.
    #[error(transparent)]
    Edit(#[from] EditError),
    /// Others write it without end.
    #[error("the ConfigMap was changed by others {TRIES} times while it was edited")]
    Contended,
}

impl DnsError {
    /// Whether nobody answered, or somebody who could not.
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Api { error, .. } if crate::is_unreachable(error))
    }
}

/// How waiting for the endpoints ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waited {
    /// Every one answers as it should.
    Good,
    /// These do not.
    Bad(Vec<(SocketAddr, Answer)>),
    /// There is none.
    Nobody,
    /// Time was over before each was asked.
    Late,
}

/// CoreDNS of one cluster.
pub struct Dns {
    client: Client,
    place: Place,
}

impl Dns {
    /// CoreDNS where it is said to be.
    pub fn new(client: Client, place: Place) -> Self {
        Self { client, place }
    }

    /// Its Corefile, and the version of the object that it was read from.
    async fn read(&self) -> Result<(String, Option<String>), DnsError> {
        let Place { namespace, config_map, key, .. } = &self.place;
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), namespace);
        let found =
            api.get(config_map).await.map_err(failed(format!("the ConfigMap {namespace}/{config_map}")))?;
        let version = found.metadata.resource_version;
        match found.data.unwrap_or_default().remove(key) {
            Some(text) => Ok((text, version)),
            None => Err(DnsError::NoCorefile {
                namespace: namespace.clone(),
                name: config_map.clone(),
                key: key.clone(),
            }),
        }
    }

    /// The Corefile as it is.
    pub async fn corefile(&self) -> Result<String, DnsError> {
        Ok(self.read().await?.0)
    }

    /// Changes the Corefile and nothing else, on the condition that nobody has changed the object
    /// since it was read; begins anew where somebody has.
    async fn edit<T>(
        &self,
        change: impl Fn(&str) -> Result<Option<(String, T)>, EditError>,
    ) -> Result<Option<T>, DnsError> {
        let Place { namespace, config_map, key, .. } = &self.place;
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), namespace);
        for _ in 0..TRIES {
            let (text, version) = self.read().await?;
            let Some((after, result)) = change(&text)? else { return Ok(None) };
            if after == text {
                return Ok(Some(result));
            }
            let data: BTreeMap<&str, &str> = [(key.as_str(), after.as_str())].into();
            let patch = json!({ "metadata": { "resourceVersion": version }, "data": data });
            let parameters =
                PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
            match api.patch(config_map, &parameters, &Patch::Merge(&patch)).await {
                Ok(_) => return Ok(Some(result)),
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                Err(error) => return Err(failed(format!("the ConfigMap {namespace}/{config_map}"))(error)),
            }
        }
        Err(DnsError::Contended)
    }

    /// What a Corefile would be with an override; nothing is written.
    pub async fn would_set(
        &self,
        wanted: &Override,
        now: Timestamp,
        force: bool,
    ) -> Result<(String, Edit), DnsError> {
        let text = self.corefile().await?;
        let edit = set(&text, wanted, now, force)?;
        Ok((text, edit))
    }

    /// Sets an override; the answer is why it might not have the effect that is wanted.
    pub async fn set(&self, wanted: &Override, now: Timestamp, force: bool) -> Result<Vec<String>, DnsError> {
        let change = |text: &str| set(text, wanted, now, force).map(|edit| Some((edit.text, edit.warnings)));
        Ok(self.edit(change).await?.unwrap_or_default())
    }

    /// Takes the override of a name out, and says what it was: its owner does, or anybody once it
    /// has ended, or by force.
    pub async fn clear(
        &self,
        name: &str,
        owner: &str,
        now: Timestamp,
        force: bool,
    ) -> Result<Option<Override>, DnsError> {
        self.edit(|text| {
            let Some(said) = find(text, name)? else { return Ok(None) };
            if said.owner != owner && said.until > now && !force {
                return Err(EditError::Held { owner: said.owner, until: said.until });
            }
            Ok(clear(text, name)?.zip(Some(said)))
        })
        .await
    }

    /// Takes out what has ended by this time; the names are told. For whoever leads in the
    /// cluster, again and again.
    pub async fn expire(&self, now: Timestamp) -> Result<Vec<String>, DnsError> {
        Ok(self.edit(|text| expire(text, now)).await?.unwrap_or_default())
    }

    /// The override of a name.
    pub async fn find(&self, name: &str) -> Result<Option<Override>, DnsError> {
        Ok(find(&self.corefile().await?, name)?)
    }

    /// Every endpoint that answers DNS by UDP, ready or not: what is not ready now may answer next.
    pub async fn endpoints(&self) -> Result<Vec<SocketAddr>, DnsError> {
        let Place { namespace, service, .. } = &self.place;
        let api: Api<EndpointSlice> = Api::namespaced(self.client.clone(), namespace);
        let of_service = ListParams::default().labels(&format!("kubernetes.io/service-name={service}"));
        let what = format!("the endpoints of {namespace}/{service}");
        let slices = api.list(&of_service).await.map_err(failed(what))?;
        let mut endpoints = Vec::new();
        for slice in slices {
            let ports = slice.ports.unwrap_or_default();
            let udp = ports.iter().filter(|port| port.protocol.as_deref() == Some("UDP"));
            let ports: Vec<u16> = udp.filter_map(|port| u16::try_from(port.port?).ok()).collect();
            for endpoint in slice.endpoints {
                // One that is not ready may answer next, with what its node has now.
                let gone = endpoint.conditions.is_some_and(|conditions| {
                    conditions.terminating == Some(true) && conditions.serving == Some(false)
                });
                let addresses =
                    endpoint.addresses.iter().filter_map(|address| address.parse::<IpAddr>().ok());
                for address in addresses.filter(|_| !gone) {
                    endpoints.extend(ports.iter().map(|port| SocketAddr::new(address, *port)));
                }
            }
        }
        endpoints.sort();
        endpoints.dedup();
        Ok(endpoints)
    }

    /// What each endpoint says of a name.
    pub async fn answers(&self, name: &str, six: bool) -> Result<Vec<(SocketAddr, Answer)>, DnsError> {
        let endpoints = self.endpoints().await?;
        let questions =
            endpoints.into_iter().map(|endpoint| async move { (endpoint, ask(endpoint, name, six).await) });
        Ok(join_all(questions).await)
    }

    /// Waits until what every endpoint says of a name is good, for as long as there is patience.
    ///
    /// # Errors
    ///
    /// The API server did not answer to the end.
    pub async fn until(
        &self,
        name: &str,
        six: bool,
        patience: Duration,
        good: impl Fn(&Answer) -> bool,
    ) -> Result<Waited, DnsError> {
        let end = Instant::now() + patience;
        let mut last = Ok(Waited::Late);
        loop {
            // One round that fails, or that takes too long, does not end the waiting.
            match tokio::time::timeout_at(end.max(Instant::now() + ROUND), self.answers(name, six)).await {
                Err(_) => return last,
                Ok(Err(error)) => last = Err(error),
                Ok(Ok(answers)) if answers.is_empty() => last = Ok(Waited::Nobody),
                Ok(Ok(answers)) => {
                    let bad: Vec<_> = answers.into_iter().filter(|(_, answer)| !good(answer)).collect();
                    if bad.is_empty() {
                        return Ok(Waited::Good);
                    }
                    last = Ok(Waited::Bad(bad));
                }
            }
            if Instant::now() >= end {
                return last;
            }
            tokio::time::sleep(ROUND).await;
        }
    }

    /// Why an override would not reach those who ask.
    pub async fn obstacles(&self) -> Result<Vec<String>, DnsError> {
        let Place { namespace, config_map, service, .. } = &self.place;
        let mut found = Vec::new();
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), namespace);
        let sets: Api<DaemonSet> = Api::namespaced(self.client.clone(), namespace);
        if sets.get_opt(NODE_LOCAL).await.map_err(failed("DaemonSets".to_owned()))?.is_some() {
            found.push(format!(
                "NodeLocal DNSCache runs (DaemonSet {namespace}/{NODE_LOCAL}): it asks the nodes' resolvers for names outside the \
                 cluster, not CoreDNS; give it the name as a stub domain"
            ));
        }
        let what = format!("the ConfigMap {namespace}/{config_map}");
        let metadata = maps.get(config_map).await.map_err(failed(what))?.metadata;
        let marks = metadata.labels.into_iter().chain(metadata.annotations).flatten();
        for (mark, _) in marks {
            if let Some((_, who)) = RECONCILERS.iter().find(|(label, _)| *label == mark) {
                found.push(format!(
                    "{who} keeps {namespace}/{config_map} (`{mark}`), and may put it back as it was"
                ));
            }
        }
        let services: Api<Service> = Api::namespaced(self.client.clone(), namespace);
        let what = format!("the Service {namespace}/{service}");
        let own = services.get_opt(service).await.map_err(failed(what))?;
        let own = own.and_then(|own| own.spec?.cluster_ips).unwrap_or_default();
        // kubeadm's record of what every kubelet tells pods.
        let kubelet = maps.get_opt("kubelet-config").await.map_err(failed("kubelet-config".to_owned()))?;
        let text = kubelet.and_then(|map| map.data?.remove("kubelet")).unwrap_or_default();
        for address in cluster_dns(&text) {
            if !own.is_empty() && !own.contains(&address) {
                found.push(format!(
                    "kubelets tell pods to ask {address} (`clusterDNS`), and {namespace}/{service} is {}",
                    own.join(", ")
                ));
            }
        }
        Ok(found)
    }
}

/// The addresses of `clusterDNS` in a kubelet's configuration; none where it cannot be read.
fn cluster_dns(text: &str) -> Vec<String> {
    let document = countersign_yaml::document(text).unwrap_or_default();
    let list = document["clusterDNS"].as_array().into_iter().flatten();
    list.filter_map(|address| address.as_str().map(ToOwned::to_owned)).collect()
}

fn failed(what: String) -> impl FnOnce(kube::Error) -> DnsError {
    move |error| DnsError::Api { what, error: Box::new(error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_kubelets_tell_pods() {
        let text =
            "cgroupDriver: systemd\nclusterDNS:\n- 10.96.0.10\n- \"fd00::a\"\nclusterDomain: cluster.local\n";
        assert_eq!(cluster_dns(text), ["10.96.0.10", "fd00::a"]);
        assert_eq!(cluster_dns("clusterDNS: [10.96.0.10]\n"), ["10.96.0.10"]);
        assert_eq!(cluster_dns("a: b\n"), [""; 0]);
        assert_eq!(cluster_dns(": {"), [""; 0]);
    }
}
