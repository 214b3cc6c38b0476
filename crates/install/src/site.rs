//! The Site of a cluster, with all that it names.

use std::collections::BTreeMap;

use countersign_cluster::crds::Kind;
use countersign_cluster::{Client, is_unreachable, named};
use countersign_site::{Endpoint, Site, Source};
use kube::Api;
use kube::api::{DynamicObject, PostParams};
use serde_json::{Value, json};

/// The Site that counts.
const NAME: &str = "default";

/// Why the Site is not what is needed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SiteError {
    /// The API server says no, or nothing.
    #[error("Site `default`: {0}")]
    Api(Box<kube::Error>),
    /// It is not good.
    #[error("Site `default`: {0}")]
    Site(#[from] countersign_site::Problems),
    /// What it names cannot be read.
    #[error("Site `default`: {0}")]
    Source(String),
    /// It is another one by now.
    #[error("Site `default`: somebody else has changed it meanwhile: say this again")]
    Changed,
    /// It has no endpoint of this name.
    #[error("the Site has no endpoint `{0}`, but {1}")]
    NoEndpoint(String, String),
    /// Two endpoints are one.
    #[error(
        "the endpoints `{0}` and `{1}` have one address ({2}): nobody could tell which of them has answered. \
         Give each its own `addresses`"
    )]
    Same(String, String, String),
    /// It is the one that nodes ask.
    #[error("`{0}` is asked first: switch over to another endpoint before it is retired")]
    First(String),
}

impl SiteError {
    /// Whether nobody answered, or somebody who could not.
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Api(error) if is_unreachable(error))
    }
}

impl From<kube::Error> for SiteError {
    fn from(error: kube::Error) -> Self {
        Self::Api(Box::new(error))
    }
}

/// The Site of a cluster.
#[derive(Clone, Debug)]
pub struct SiteObject {
    object: DynamicObject,
    /// What it says.
    pub site: Site,
    texts: BTreeMap<Source, String>,
}

impl SiteObject {
    /// Reads it, with what it names in the program's namespace.
    ///
    /// # Errors
    ///
    /// It or something that it names is not there, or not good.
    pub async fn read(client: &Client, namespace: &str) -> Result<Self, SiteError> {
        let object = sites(client).get(NAME).await?;
        let site = parsed(&object)?;
        let snapshot = named(client, namespace, site.sources()).await?;
        let read = |source: &Source| Ok((source.clone(), snapshot.text(source).map_err(SiteError::Source)?));
        let texts = site.sources().map(read).collect::<Result<_, SiteError>>()?;
        Ok(Self { object, site, texts })
    }

    /// What a source holds.
    ///
    /// # Errors
    ///
    /// The Site does not name it.
    pub fn text(&self, source: &Source) -> Result<String, String> {
        self.texts.get(source).cloned().ok_or_else(|| "the Site does not name it".to_owned())
    }

    /// The endpoint of this name; no two endpoints may be one.
    ///
    /// # Errors
    ///
    /// There is none, or it is the same as another one.
    pub fn endpoint(&self, name: &str) -> Result<&Endpoint, SiteError> {
        let endpoints = &self.site.registry.endpoints;
        for (index, one) in endpoints.iter().enumerate() {
            for other in &endpoints[index + 1..] {
                if let Some(address) = shared(one, other) {
                    return Err(SiteError::Same(one.name.clone(), other.name.clone(), address));
                }
            }
        }
        endpoints.iter().find(|endpoint| endpoint.name == name).ok_or_else(|| {
            let names: Vec<String> =
                endpoints.iter().map(|endpoint| format!("`{}`", endpoint.name)).collect();
            SiteError::NoEndpoint(name.to_owned(), names.join(", "))
        })
    }

    /// Whether it is asked first.
    pub fn is_first(&self, name: &str) -> bool {
        self.site.registry.endpoints.first().is_some_and(|endpoint| endpoint.name == name)
    }

    /// Asks this endpoint first from now on; the others stay, in their order.
    ///
    /// # Errors
    ///
    /// The API server says no, or somebody else has changed it meanwhile.
    pub async fn put_first(&mut self, client: &Client, name: &str) -> Result<(), SiteError> {
        let is_it = |endpoint: &Value| endpoint["name"] == name;
        let mut endpoints = self.endpoints();
        endpoints.sort_by_key(|endpoint| !is_it(endpoint));
        self.replace(client, endpoints).await
    }

    /// Takes this endpoint out.
    ///
    /// # Errors
    ///
    /// It is asked first; or the API server says no, or somebody else has changed it meanwhile.
    pub async fn take_out(&mut self, client: &Client, name: &str) -> Result<(), SiteError> {
        if self.is_first(name) {
            return Err(SiteError::First(name.to_owned()));
        }
        let mut endpoints = self.endpoints();
        endpoints.retain(|endpoint| endpoint["name"] != name);
        self.replace(client, endpoints).await
    }

    fn endpoints(&self) -> Vec<Value> {
        self.object.data["spec"]["registry"]["endpoints"].as_array().cloned().unwrap_or_default()
    }

    async fn replace(&mut self, client: &Client, endpoints: Vec<Value>) -> Result<(), SiteError> {
        let mut object = self.object.clone();
        object.data["spec"]["registry"]["endpoints"] = Value::Array(endpoints);
        let site = parsed(&object)?;
        // With the version that was read: what somebody else has written is not lost.
        let replaced = sites(client).replace(NAME, &PostParams::default(), &object).await;
        self.object = replaced.map_err(|error| match error {
            kube::Error::Api(status) if status.code == 409 => SiteError::Changed,
            error => error.into(),
        })?;
        self.site = site;
        Ok(())
    }

    /// The Site as a file for nodes, who can read neither Secrets nor ConfigMaps: every text is in it.
    pub fn for_nodes(&self) -> String {
        let mut spec = self.object.data["spec"].clone();
        let inline = |place: &mut Value, source: Option<&Source>| {
            if let Some(text) = source.and_then(|source| self.texts.get(source)) {
                *place = json!({ "pem": text });
            }
        };
        for endpoint in &self.site.registry.endpoints {
            let list = spec["registry"]["endpoints"].as_array_mut();
            let found = list.into_iter().flatten().find(|found| found["name"] == endpoint.name.as_str());
            if let Some(found) = found {
                if let Some(ca) = &endpoint.ca {
                    inline(&mut found["ca"], Some(ca));
                }
                // A runtime's own credentials are none of these.
                found.as_object_mut().map(|found| found.remove("credentials"));
            }
        }
        for (name, key) in &self.site.trust.keys {
            let place = &mut spec["trust"]["keys"][name];
            let times = ["trustedFrom", "trustedUntil"].map(|field| (field, place[field].clone()));
            inline(place, Some(&key.source));
            for (field, time) in times.into_iter().filter(|(_, time)| !time.is_null()) {
                place[field] = time;
            }
        }
        let document = json!({
            "apiVersion": "countersign.dev/v1alpha1", "kind": "Site", "metadata": { "name": NAME }, "spec": spec,
        });
        format!("{document:#}\n")
    }
}

fn sites(client: &Client) -> Api<DynamicObject> {
    Api::all_with(client.clone(), &Kind::Site.resource())
}

fn parsed(object: &DynamicObject) -> Result<Site, SiteError> {
    let document = json!({
        "apiVersion": "countersign.dev/v1alpha1", "kind": "Site", "metadata": { "name": NAME },
        "spec": object.data["spec"],
    });
    Ok(Site::parse(&document.to_string())?)
}

/// An address that both have, if there is one.
fn shared(one: &Endpoint, other: &Endpoint) -> Option<String> {
    let places = |endpoint: &Endpoint| -> Vec<String> {
        let port = endpoint.url.at.port;
        match (endpoint.addresses.as_slice(), endpoint.url.at.address()) {
            ([], Some(address)) => vec![format!("{}:{port}", address.to_canonical())],
            ([], None) => vec![format!("{}:{port}", endpoint.url.at.host)],
            (addresses, _) => {
                addresses.iter().map(|address| format!("{}:{port}", address.to_canonical())).collect()
            }
        }
    };
    let others = places(other);
    places(one).into_iter().find(|place| others.contains(place))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(endpoints: &Value) -> SiteObject {
        let mut object = DynamicObject::new(NAME, &Kind::Site.resource());
        object.data = json!({ "spec": {
            "registry": { "name": "registry.local", "endpoints": endpoints },
            "trust": { "keys": { "vendor": { "secret": { "name": "keys", "key": "a" } } } },
        } });
        let site = parsed(&object).unwrap();
        let texts = site.trust.keys.values().map(|key| (key.source.clone(), "a key".to_owned()));
        let cas = site.registry.endpoints.iter().filter_map(|endpoint| endpoint.ca.clone());
        let texts = texts.chain(cas.map(|source| (source, "a CA".to_owned()))).collect();
        SiteObject { object, site, texts }
    }

    #[test]
    fn two_endpoints_with_one_address_are_refused() {
        let endpoint = |name: &str, url: &str, addresses: &[&str]| json!({ "name": name, "url": url, "addresses": addresses, "ca": { "configMap": "ca" } });
        let cluster = endpoint("cluster", "https://registry.local", &["10.0.0.2"]);
        for (other, good) in [
            (endpoint("bootstrap", "https://pit.nmn", &["10.0.0.1"]), true),
            (endpoint("bootstrap", "https://pit.nmn", &["10.0.0.1", "::ffff:10.0.0.2"]), false),
            (endpoint("bootstrap", "https://pit.nmn:5000", &["10.0.0.2"]), true),
            (endpoint("bootstrap", "https://10.0.0.2", &[]), false),
            (endpoint("bootstrap", "https://pit.nmn", &[]), true),
        ] {
            let found = object(&json!([other, cluster]));
            let result = found.endpoint("cluster");
            assert_eq!(result.is_ok(), good, "{other}: {result:?}");
        }
        let error = object(&json!([cluster])).endpoint("other").unwrap_err().to_string();
        assert_eq!(error, "the Site has no endpoint `other`, but `cluster`");
    }

    #[test]
    fn nodes_get_every_text() {
        let endpoint = json!({ "name": "cluster", "url": "https://registry.local", "addresses": ["10.0.0.2"], "ca": { "configMap": "ca" } });
        let text = object(&json!([endpoint])).for_nodes();
        let site = Site::parse(&text).unwrap();
        assert_eq!(site.registry.endpoints[0].ca, Some(Source::Inline("a CA".to_owned())));
        assert_eq!(site.trust.keys["vendor"].source, Source::Inline("a key".to_owned()));
    }
}
