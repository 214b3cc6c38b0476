//! The last good versions of Site and policies, kept in the cluster, so that every replica has the
//! same and a restart changes nothing.
//!
//! Each is a Secret of the program's namespace: a Site's comes with the texts that it names, some of
//! which are from Secrets.

use std::collections::BTreeMap;

use countersign_cluster::{ObjectId, Stored, Texts};
use countersign_reference::Digest;
use countersign_site::Source;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// How their names begin.
const PREFIX: &str = "countersign-good-";
/// The key in each.
pub(crate) const KEY: &str = "document";

/// A last good version.
#[derive(Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Kept {
    /// As it was written.
    pub(crate) document: Value,
    /// What it names, by [`name_of`].
    #[serde(default)]
    pub(crate) texts: BTreeMap<String, String>,
    /// Which version of the object it is.
    #[serde(default)]
    pub(crate) version: Version,
}

/// A version of an object: of one that was deleted and made again there are others.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub(crate) struct Version {
    pub(crate) uid: String,
    pub(crate) generation: i64,
}

impl Version {
    pub(crate) fn of(stored: &Stored) -> Self {
        Self { uid: stored.uid.clone(), generation: stored.generation }
    }

    /// Whether it is a later one of the same object.
    pub(crate) fn is_after(&self, other: &Self) -> bool {
        self.uid == other.uid && self.generation > other.generation
    }
}

impl Kept {
    pub(crate) fn text(document: &Value, texts: BTreeMap<String, String>, version: &Version) -> String {
        let kept = Self { document: document.clone(), texts, version: version.clone() };
        serde_json::to_string(&kept).unwrap_or_default()
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// What a source held.
    pub(crate) fn load(&self, source: &Source) -> Result<String, String> {
        match source {
            Source::Inline(text) => Ok(text.clone()),
            source => self.texts.get(&name_of(source)).cloned().ok_or_else(|| "it is not kept".to_owned()),
        }
    }
}

/// The Secret of an object.
pub(crate) fn secret(id: &ObjectId) -> String {
    let ObjectId { kind, namespace, name } = id;
    let digest = Digest::sha256_of(format!("{kind}/{namespace}/{name}").as_bytes()).to_string();
    let hex = digest.rsplit(':').next().unwrap_or_default();
    format!("{PREFIX}{}", &hex[..hex.len().min(32)])
}

/// What is kept, by the name of its Secret.
pub(crate) fn of(secrets: &Texts) -> BTreeMap<String, String> {
    let kept = secrets.iter().filter(|(name, _)| name.starts_with(PREFIX));
    kept.filter_map(|(name, texts)| Some((name.clone(), texts.get(KEY)?.clone()?))).collect()
}

/// What a source is called there.
pub(crate) fn name_of(source: &Source) -> String {
    let with_key = |kind: &str, name: &str, key: &Option<String>| {
        format!("{kind}/{name}/{}", key.as_deref().unwrap_or_default())
    };
    match source {
        Source::File(path) => format!("file/{path}"),
        Source::Inline(text) => format!("pem/{text}"),
        Source::Secret { name, key } => with_key("secret", name, key),
        Source::ConfigMap { name, key } => with_key("configMap", name, key),
    }
}
