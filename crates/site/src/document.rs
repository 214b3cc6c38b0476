//! The Site as it is written. Unknown fields are errors; what the values mean is decided in
//! [`crate::model`].

use std::collections::BTreeMap;

use serde::Deserialize;

pub(crate) const API_VERSION: &str = "countersign.dev/v1alpha1";
pub(crate) const KIND: &str = "Site";

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct SiteDocument {
    pub(crate) api_version: String,
    pub(crate) kind: String,
    #[serde(default)]
    pub(crate) metadata: Metadata,
    pub(crate) spec: Spec,
    /// Written by the controller in a cluster, of no meaning in a file.
    #[serde(default, rename = "status")]
    _status: serde_json::Value,
}

/// Only the name is read; the rest belongs to the API server.
#[derive(Default, Deserialize)]
pub(crate) struct Metadata {
    #[serde(default)]
    pub(crate) name: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Spec {
    pub(crate) mode: Option<String>,
    pub(crate) registry: RegistryDocument,
    #[serde(default)]
    pub(crate) rewrite: RewriteDocument,
    #[serde(default)]
    pub(crate) trust: TrustDocument,
    #[serde(default)]
    pub(crate) revoked: Vec<String>,
    pub(crate) tag_freshness: Option<String>,
    pub(crate) stale: Option<String>,
    #[serde(default, deserialize_with = "word")]
    pub(crate) pinning: Option<String>,
    pub(crate) pin_form: Option<String>,
    pub(crate) exceptions: Option<String>,
    #[serde(default)]
    pub(crate) exception_namespaces: Vec<String>,
    #[serde(default)]
    pub(crate) bootstrap_namespaces: Vec<String>,
    #[serde(default)]
    pub(crate) obsolete: Vec<String>,
    #[serde(default)]
    pub(crate) nodes: NodesDocument,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct NodesDocument {
    pub(crate) sandbox_image: Option<String>,
    #[serde(default)]
    pub(crate) images: Vec<String>,
    #[serde(default)]
    pub(crate) hosts: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct RegistryDocument {
    pub(crate) name: String,
    pub(crate) endpoints: Vec<EndpointDocument>,
    #[serde(default)]
    pub(crate) image_pull_secrets: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct EndpointDocument {
    pub(crate) name: String,
    pub(crate) url: String,
    #[serde(default)]
    pub(crate) addresses: Vec<String>,
    pub(crate) ca: Option<SourceDocument>,
    pub(crate) credentials: Option<SourceDocument>,
    #[serde(default)]
    pub(crate) allow_hosts: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct RewriteDocument {
    pub(crate) enabled: Option<bool>,
    #[serde(default)]
    pub(crate) bootstrap: bool,
    #[serde(default)]
    pub(crate) aliases: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct TrustDocument {
    #[serde(default)]
    pub(crate) keys: BTreeMap<String, KeyDocument>,
    #[serde(default)]
    pub(crate) bundle_keys: Vec<String>,
    #[serde(default)]
    pub(crate) identity: IdentityDocument,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct IdentityDocument {
    #[serde(default, deserialize_with = "word")]
    pub(crate) check: Option<String>,
    #[serde(default)]
    pub(crate) remap: BTreeMap<String, String>,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct SourceDocument {
    pub(crate) file: Option<String>,
    pub(crate) pem: Option<String>,
    pub(crate) secret: Option<ObjectKey>,
    pub(crate) config_map: Option<ObjectKey>,
}

/// A source with the time of a key: each field by name, as a flattened struct would take any.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct KeyDocument {
    file: Option<String>,
    pem: Option<String>,
    secret: Option<ObjectKey>,
    config_map: Option<ObjectKey>,
    pub(crate) trusted_from: Option<String>,
    pub(crate) trusted_until: Option<String>,
}

impl KeyDocument {
    pub(crate) fn source(&self) -> SourceDocument {
        let Self { file, pem, secret, config_map, .. } = self;
        SourceDocument {
            file: file.clone(),
            pem: pem.clone(),
            secret: secret.clone(),
            config_map: config_map.clone(),
        }
    }
}

/// An object by name, or by name and key.
#[derive(Clone, Deserialize)]
#[serde(untagged)]
pub(crate) enum ObjectKey {
    Name(String),
    #[serde(rename_all = "camelCase")]
    Key {
        name: String,
        key: Option<String>,
    },
}

/// A word, where YAML reads an unquoted `off` as false.
fn word<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Word {
        Text(String),
        Flag(bool),
    }
    Ok(Option::<Word>::deserialize(deserializer)?.map(|word| match word {
        Word::Text(text) => text,
        Word::Flag(on) => if on { "on" } else { "off" }.to_owned(),
    }))
}
