//! How Kyverno splits an image for its `images` variable (`pkg/utils/image/infos.go`).
//!
//! Policies were written against these values, so they are reproduced: no `library/` is
//! inserted, `index.docker.io` is kept, and `latest` is assumed only without a digest.
//! Nobody pulls by them; [`Reference`] is what a runtime asks for.

use crate::parse::looks_like_domain;
use crate::{Digest, ParseError, Reference};

/// The parts of an image as `images.containers.<name>` shows them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageInfo {
    /// Host and port, `docker.io` where none is written.
    pub registry: String,
    /// The repository without its host, as written.
    pub path: String,
    /// The last part of the path.
    pub name: String,
    /// As written; `latest` where neither tag nor digest is; absent with a digest alone.
    pub tag: Option<String>,
    /// As written.
    pub digest: Option<Digest>,
}

impl ImageInfo {
    /// Splits an image as Kyverno does.
    pub fn parse(image: &str) -> Result<Self, ParseError> {
        // The whole reference has to be one that the runtime accepts, too.
        let checked = Reference::parse(image)?;
        let written = image.split('@').next().unwrap_or_default();
        let (registry, rest) = match written.split_once('/') {
            Some((first, rest)) if looks_like_domain(first) => (first, rest),
            _ => ("docker.io", written),
        };
        let path = rest.split_once(':').map_or(rest, |(path, _)| path);
        Ok(Self {
            registry: registry.to_owned(),
            path: path.to_owned(),
            name: path.rsplit('/').next().unwrap_or(path).to_owned(),
            tag: checked.effective_tag().map(ToOwned::to_owned),
            digest: checked.digest().cloned(),
        })
    }

    /// `registry/path@digest`, else `registry/path:tag`: the form that `imageReferences` match.
    pub fn reference(&self) -> String {
        match &self.digest {
            Some(digest) => format!("{}/{}@{digest}", self.registry, self.path),
            None => self.reference_with_tag(),
        }
    }

    /// `registry/path:tag`.
    pub fn reference_with_tag(&self) -> String {
        format!("{}/{}:{}", self.registry, self.path, self.tag.as_deref().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_like_kyverno() {
        let digest = format!("sha256:{}", "0".repeat(64));
        for (image, registry, path, tag, reference) in [
            ("nginx", "docker.io", "nginx", Some("latest"), "docker.io/nginx:latest".to_owned()),
            (
                "library/nginx:1",
                "docker.io",
                "library/nginx",
                Some("1"),
                "docker.io/library/nginx:1".to_owned(),
            ),
            (
                "index.docker.io/nginx:1",
                "index.docker.io",
                "nginx",
                Some("1"),
                "index.docker.io/nginx:1".to_owned(),
            ),
            (
                "registry:5000/foo",
                "registry:5000",
                "foo",
                Some("latest"),
                "registry:5000/foo:latest".to_owned(),
            ),
            (&format!("a.b/c@{digest}"), "a.b", "c", None, format!("a.b/c@{digest}")),
            (&format!("a.b/c:1@{digest}"), "a.b", "c", Some("1"), format!("a.b/c@{digest}")),
        ] {
            let info = ImageInfo::parse(image).unwrap();
            assert_eq!(
                (info.registry.as_str(), info.path.as_str(), info.tag.as_deref()),
                (registry, path, tag)
            );
            assert_eq!(info.reference(), reference);
        }
        assert!(ImageInfo::parse("registry.local/Foo").is_err());
    }
}
