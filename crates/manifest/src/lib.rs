//! What registries and layouts keep: descriptors, manifests and indexes
//! (OCI image-spec 1.1; Docker schema 2, which is the same by other names).
//!
//! One document has one meaning: what could be read as a manifest and as an index is neither
//! (CVE-2021-41190), and its `mediaType` must be the type that it is served or listed under.
//! Runtimes are written in Go, which takes `Layers` for `layers`: a name that is one of ours but for
//! its case is refused, so that nobody reads something else from the same bytes.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use countersign_reference::Digest;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

mod names;

/// Media type of an image index.
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Media type of an image manifest.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Docker's name for an index.
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Docker's name for a manifest.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Every type there is, as an `Accept` header: where one is left out, a registry may convert,
/// and the digest is another.
pub const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";
/// The config of a manifest that has none (OCI image-spec, "Guidance for an empty descriptor").
pub const EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// The config of an image that runs.
const IMAGE_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// Docker's name for one.
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

/// Whether a media type is that of a config by which a runtime unpacks an image.
pub fn is_image_config(media_type: &str) -> bool {
    media_type == IMAGE_CONFIG || media_type == DOCKER_CONFIG
}

/// Whether a media type is that of a layer of a root file system (containerd `images.IsLayerType`).
pub fn is_rootfs_layer(media_type: &str) -> bool {
    [
        "application/vnd.oci.image.layer.",
        "application/vnd.docker.image.rootfs.",
        "application/vnd.erofs.layer.",
    ]
    .iter()
    .any(|kind| media_type.starts_with(kind))
}

/// Whether a media type is that of an index.
pub fn is_index(media_type: &str) -> bool {
    media_type == INDEX || media_type == DOCKER_LIST
}

/// Whether a media type is that of an index or a manifest.
pub fn is_document(media_type: &str) -> bool {
    is_index(media_type) || media_type == MANIFEST || media_type == DOCKER_MANIFEST
}

/// Content and what it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Descriptor {
    /// Its media type.
    #[serde(rename = "mediaType")]
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// For which machines it is, in an index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// What kind of artifact it is, in a list of referrers: a claim.
    #[serde(rename = "artifactType", default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// Where else it is: such a layer need not be in the registry.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    /// What is said about it.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// `null` as Go writes it for what is empty.
fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl Descriptor {
    /// A descriptor that says no more than it has to.
    pub fn new(media_type: impl Into<String>, digest: Digest, size: u64) -> Self {
        let annotations = BTreeMap::new();
        let media_type = media_type.into();
        Self { media_type, digest, size, platform: None, artifact_type: None, urls: Vec::new(), annotations }
    }
}

/// For which machines an image is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Platform {
    /// As Go's `GOOS`.
    #[serde(default)]
    pub os: String,
    /// As Go's `GOARCH`.
    #[serde(default)]
    pub architecture: String,
    /// `v8`, `v7`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl Platform {
    /// Whether an image for `other` is what is asked for here: a variant counts where one is
    /// asked for, and `arm64` is `arm64/v8` (containerd/platforms).
    pub fn matches(&self, other: &Self) -> bool {
        let variant = |platform: &Self| match (platform.architecture.as_str(), platform.variant.as_deref()) {
            ("arm64", None) => Some("v8".to_owned()),
            (_, variant) => variant.map(ToOwned::to_owned),
        };
        self.os == other.os
            && self.architecture == other.architecture
            && (self.variant.is_none() || variant(self) == variant(other))
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.iter().try_for_each(|variant| write!(f, "/{variant}"))
    }
}

/// A platform is written `os/architecture[/variant]`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a platform: expected `os/architecture` or `os/architecture/variant`, as `linux/arm64`")]
pub struct PlatformError(String);

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts: Vec<&str> = text.split('/').collect();
        let word = |part: &&str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric());
        match parts.as_slice() {
            [os, architecture, variant @ ..] if variant.len() < 2 && parts.iter().all(word) => Ok(Self {
                os: (*os).to_owned(),
                architecture: (*architecture).to_owned(),
                variant: variant.first().map(|variant| (*variant).to_owned()),
            }),
            _ => Err(PlatformError(text.chars().take(80).collect())),
        }
    }
}

/// A manifest or an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// Which of the two, and what it names.
    pub content: Content,
    /// What it refers to.
    pub subject: Option<Descriptor>,
    /// What kind of artifact it says it is; for a manifest that says nothing, its config's type.
    pub artifact_type: Option<String>,
    /// What is said about it.
    pub annotations: BTreeMap<String, String>,
}

/// What a document names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Other documents, usually one for each platform.
    Index(Vec<Descriptor>),
    /// A config and layers.
    Manifest {
        /// The config; some old artifacts have none.
        config: Option<Descriptor>,
        /// In order.
        layers: Vec<Descriptor>,
    },
}

/// A document that is not read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DocumentError {
    /// It has no one meaning.
    #[error("{0}")]
    Malformed(String),
    /// Its list is longer than any that is needed.
    #[error("more than {MOST_LISTED} entries in a manifest or an index")]
    TooMany,
}

#[derive(Deserialize)]
struct Raw {
    #[serde(rename = "mediaType")]
    media_type: Option<String>,
    #[serde(rename = "schemaVersion")]
    schema_version: Option<u64>,
    manifests: Option<Vec<Descriptor>>,
    layers: Option<Vec<Descriptor>>,
    config: Option<Descriptor>,
    #[serde(rename = "fsLayers")]
    fs_layers: Option<IgnoredAny>,
    subject: Option<Descriptor>,
    #[serde(rename = "artifactType")]
    artifact_type: Option<String>,
    annotations: Option<BTreeMap<String, String>>,
}

/// Entries of a list in a document. Images that run have fewer than 128 layers.
pub const MOST_LISTED: usize = 1024;
/// Characters of an error that are passed on.
const MAX_QUOTED: usize = 300;
impl Document {
    /// Reads a document that is served or listed under this media type.
    ///
    /// # Errors
    ///
    /// It is not JSON of schema version 2, is both or neither, or is not what the media type says.
    pub fn parse(bytes: &[u8], media_type: &str) -> Result<Self, DocumentError> {
        let malformed = |why: &str| DocumentError::Malformed(why.to_owned());
        // A list would be read as the fields in their order.
        if !bytes.trim_ascii_start().starts_with(b"{") {
            return Err(malformed("not a manifest: not a JSON object"));
        }
        let unreadable = |error: serde_json::Error| {
            // It quotes what it has found.
            let error: String = error.to_string().chars().take(MAX_QUOTED).collect();
            DocumentError::Malformed(format!("not a manifest: {error}"))
        };
        // Nothing of it is kept before it is known to be of a good size.
        let look = names::look(bytes).map_err(unreadable)?;
        if look.longest > MOST_LISTED {
            return Err(DocumentError::TooMany);
        }
        let raw: Raw = serde_json::from_slice(bytes).map_err(unreadable)?;
        if let Some(name) = look.misspelt {
            return Err(DocumentError::Malformed(format!(
                "`{name}` is read by some and not by others: a case of its own"
            )));
        }
        if raw.schema_version != Some(2) || raw.fs_layers.is_some() {
            return Err(malformed("not a manifest of schema version 2"));
        }
        if raw.media_type.is_some_and(|own| own != media_type) {
            return Err(malformed("the manifest's mediaType is not its Content-Type"));
        }
        let content = match (raw.manifests, raw.layers, raw.config) {
            (Some(manifests), None, None) if is_index(media_type) => Content::Index(manifests),
            (None, layers, config) if !is_index(media_type) && (layers.is_some() || config.is_some()) => {
                Content::Manifest { config, layers: layers.unwrap_or_default() }
            }
            (Some(_), None, None) | (None, _, _) => {
                return Err(malformed("the Content-Type is not that of the document"));
            }
            (Some(_), _, _) => return Err(malformed("a manifest and an index in one")),
        };
        let of_config = match &content {
            Content::Manifest { config: Some(config), .. } => Some(config.media_type.clone()),
            _ => None,
        };
        Ok(Self {
            content,
            subject: raw.subject,
            artifact_type: raw.artifact_type.or(of_config),
            annotations: raw.annotations.unwrap_or_default(),
        })
    }

    /// The config, where there is one.
    pub fn config(&self) -> Option<&Descriptor> {
        match &self.content {
            Content::Index(_) => None,
            Content::Manifest { config, .. } => config.as_ref(),
        }
    }

    /// The config and the layers.
    pub fn blobs(&self) -> impl Iterator<Item = &Descriptor> {
        self.config().into_iter().chain(self.layers())
    }

    /// The layers.
    pub fn layers(&self) -> &[Descriptor] {
        match &self.content {
            Content::Index(_) => &[],
            Content::Manifest { layers, .. } => layers,
        }
    }

    /// The documents that an index names.
    pub fn children(&self) -> &[Descriptor] {
        match &self.content {
            Content::Index(children) => children,
            Content::Manifest { .. } => &[],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_quoted_has_an_end() {
        let long = format!(r#"{{"layers":"{}"}}"#, "ü".repeat(1000));
        let error = Document::parse(long.as_bytes(), MANIFEST).unwrap_err().to_string();
        assert!(error.chars().count() < 400, "{error}");
    }

    #[test]
    fn platforms_match_as_runtimes_match_them() {
        let platform = |text: &str| text.parse::<Platform>().unwrap();
        for (asked, offered, matches) in [
            ("linux/amd64", "linux/amd64", true),
            ("linux/arm64", "linux/arm64/v8", true),
            ("linux/arm64/v8", "linux/arm64", true),
            ("linux/arm/v7", "linux/arm/v6", false),
            ("linux/arm", "linux/arm/v6", true),
            ("linux/amd64", "windows/amd64", false),
        ] {
            assert_eq!(platform(asked).matches(&platform(offered)), matches, "{asked} {offered}");
            assert_eq!(platform(asked).to_string(), asked);
        }
        for bad in ["linux", "linux/", "linux/arm64/v8/x", "linux/arm 64"] {
            assert!(bad.parse::<Platform>().is_err(), "{bad}");
        }
    }
}
