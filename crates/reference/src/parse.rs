//! The grammar of distribution/reference v0.6 (`regexp.go`, `normalize.go`), by hand.

use std::fmt;
use std::str::FromStr;

use crate::digest::{Digest, DigestError, shown};

/// The registry of names without a host.
pub(crate) const HUB: &str = "docker.io";
/// Bytes of a path, `library/` included and the domain not (distribution/reference v0.6).
const MAX_PATH: usize = 255;
/// Characters of a tag.
const MAX_TAG: usize = 128;
/// Bytes of input that are looked at: domain, path, tag and a `sha512` digest fit with room to spare.
const MAX_INPUT: usize = 1024;

/// A normalised image reference: the domain is always present, `docker.io` for short names,
/// where `library/` is inserted as the hub does.
///
/// The domain keeps its spelling, because containerd looks a host up by it letter for letter;
/// [`Reference::host`] is the form to compare.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    domain: Box<str>,
    path: Box<str>,
    tag: Option<Box<str>>,
    digest: Option<Digest>,
}

impl Reference {
    /// Parses and normalises a reference as a pod may spell it.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        if text.is_empty() {
            return Err(ParseError::Empty);
        }
        if text.len() > MAX_INPUT {
            return Err(ParseError::TooLong { part: "reference", limit: MAX_INPUT });
        }
        if text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(ParseError::ImageId(text.to_owned()));
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(Digest::parse(digest)?)),
            None => (text, None),
        };
        let (domain, remote) = split_domain(rest)?;
        let (path, tag) = match remote.split_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (remote, None),
        };
        if let Some(tag) = tag {
            check_tag(tag)?;
        }
        let path = match domain {
            "docker.io" if !path.contains('/') => format!("library/{path}"),
            _ => path.to_owned(),
        };
        Self::from_parts(domain, &path, tag, digest)
    }

    /// Joins parts, each checked against the grammar.
    pub fn from_parts(
        domain: &str,
        path: &str,
        tag: Option<&str>,
        digest: Option<Digest>,
    ) -> Result<Self, ParseError> {
        check_domain(domain)?;
        check_path(path)?;
        if let Some(tag) = tag {
            check_tag(tag)?;
        }
        Ok(Self { domain: domain.into(), path: path.into(), tag: tag.map(Into::into), digest })
    }

    /// The registry's host and port as written; `index.docker.io` has become `docker.io`.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The domain in the form to compare and match: lower case, the hub's other names
    /// as `docker.io`, without the port 443 that https has anyway.
    pub fn host(&self) -> String {
        let lower = self.domain.to_ascii_lowercase();
        let host = lower.strip_suffix(":443").unwrap_or(&lower);
        if let Some((address, port)) = ipv6(host) {
            return format!("[{address}]{port}");
        }
        match host {
            "index.docker.io" | "registry-1.docker.io" => "docker.io".to_owned(),
            _ => host.to_owned(),
        }
    }

    /// The repository without its domain.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// `domain/path`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// The tag as written, if any.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The tag that a runtime would ask for: `latest` where neither tag nor digest is written.
    pub fn effective_tag(&self) -> Option<&str> {
        match (&self.tag, &self.digest) {
            (None, None) => Some("latest"),
            (tag, _) => tag.as_deref(),
        }
    }

    /// The digest as written, if any.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// The same image with `:latest` written out where neither tag nor digest was.
    #[must_use]
    pub fn with_default_tag(self) -> Self {
        match self.effective_tag().map(Box::from) {
            Some(tag) => Self { tag: Some(tag), ..self },
            None => self,
        }
    }

    /// The same name with this digest; the tag is kept for the reader.
    #[must_use]
    pub fn with_digest(self, digest: Digest) -> Self {
        Self { digest: Some(digest), ..self }
    }

    /// The same name without its tag.
    #[must_use]
    pub fn without_tag(self) -> Self {
        Self { tag: None, ..self }
    }

    /// The same name and tag without its digest.
    #[must_use]
    pub fn without_digest(self) -> Self {
        Self { digest: None, ..self }
    }

    /// The same reference with its domain in the form of [`Reference::host`].
    #[must_use]
    pub fn with_host(self) -> Self {
        Self { domain: self.host().into(), ..self }
    }

    /// Whether both name the same repository on the same host and the same tag.
    pub fn same_name_and_tag(&self, other: &Self) -> bool {
        self.host() == other.host()
            && self.path == other.path
            && self.effective_or_pinned_tag() == other.effective_or_pinned_tag()
    }

    fn effective_or_pinned_tag(&self) -> &str {
        self.tag.as_deref().unwrap_or("latest")
    }
}

/// Text before the first `/` is a domain iff it is `localhost`, has a `.` or a `:`, or has an
/// upper-case letter (`normalize.go`, splitDockerDomain). Without a `/` all of it is a hub name,
/// `registry.local:5000` included: there the port is a tag.
fn split_domain(text: &str) -> Result<(&str, &str), ParseError> {
    match text.split_once('/') {
        // distribution finds no domain in `registry_local.x/foo`, and containerd pulls from it.
        Some((first, _)) if first.contains('_') && first.contains('.') => {
            Err(ParseError::AmbiguousDomain(shown(first)))
        }
        Some(("index.docker.io", rest)) => Ok(("docker.io", rest)),
        Some((first, rest)) if looks_like_domain(first) => Ok((first, rest)),
        _ => Ok(("docker.io", text)),
    }
}

/// The rule by which the part before the first `/` is a host rather than a hub user.
pub(crate) fn looks_like_domain(first: &str) -> bool {
    first == "localhost" || first.contains(['.', ':']) || first.bytes().any(|b| b.is_ascii_uppercase())
}

fn check_domain(domain: &str) -> Result<(), ParseError> {
    let bad = || ParseError::Domain(shown(domain));
    if domain.starts_with('[') {
        let (_, port) = ipv6(domain).ok_or_else(bad)?;
        return check_port(port).ok_or_else(bad);
    }
    let host = domain.split_once(':').map_or(domain, |(host, _)| host);
    check_port(&domain[host.len()..]).ok_or_else(bad)?;
    let component = |part: &str| {
        let bytes = part.as_bytes();
        matches!((bytes.first(), bytes.last()), (Some(a), Some(z)) if a.is_ascii_alphanumeric() && z.is_ascii_alphanumeric())
            && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-')
    };
    if host.split('.').all(component) { Ok(()) } else { Err(bad()) }
}

/// The address between brackets and what follows it. distribution lets any run of hexadecimal
/// digits and colons pass here; nothing can be pulled from what is not an address.
pub(crate) fn ipv6(domain: &str) -> Option<(std::net::Ipv6Addr, &str)> {
    let (inside, after) = domain.strip_prefix('[')?.split_once(']')?;
    Some((inside.parse().ok()?, after))
}

/// Nothing, or `:` and decimal digits.
fn check_port(text: &str) -> Option<()> {
    let port = if text.is_empty() { return Some(()) } else { text.strip_prefix(':')? };
    (!port.is_empty() && port.bytes().all(|b| b.is_ascii_digit())).then_some(())
}

fn check_path(path: &str) -> Result<(), ParseError> {
    if path.len() > MAX_PATH {
        return Err(ParseError::TooLong { part: "repository name", limit: MAX_PATH });
    }
    if path.split('/').all(is_path_component) {
        return Ok(());
    }
    if path.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err(ParseError::UpperCase(shown(path)));
    }
    Err(ParseError::Path(shown(path)))
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_path_component(part: &str) -> bool {
    let bytes = part.as_bytes();
    let mut at = 0;
    loop {
        let start = at;
        while bytes.get(at).is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit()) {
            at += 1;
        }
        if at == start {
            return false;
        }
        match &bytes[at..] {
            [] => return true,
            [b'_', b'_', ..] => at += 2,
            [b'.' | b'_', ..] => at += 1,
            [b'-', ..] => {
                while bytes.get(at) == Some(&b'-') {
                    at += 1;
                }
            }
            _ => return false,
        }
    }
}

fn check_tag(tag: &str) -> Result<(), ParseError> {
    let mut bytes = tag.bytes();
    let first = bytes.next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_');
    if first
        && tag.len() <= MAX_TAG
        && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
    {
        Ok(())
    } else {
        Err(ParseError::Tag(shown(tag)))
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.domain, self.path)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Reference {
    type Err = ParseError;
    fn from_str(text: &str) -> Result<Self, ParseError> {
        Self::parse(text)
    }
}

/// Why a text is not an image reference.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseError {
    /// Nothing was written.
    #[error("an image reference is empty")]
    Empty,
    /// A part exceeds its limit.
    #[error("the {part} is longer than {limit} bytes")]
    TooLong {
        /// Which part.
        part: &'static str,
        /// Bytes it may have.
        limit: usize,
    },
    /// 64 hexadecimal characters look like an image id and name nothing in a registry.
    #[error("`{0}` is an image id, not a reference: write a repository name")]
    ImageId(String),
    /// The registry's host is malformed.
    #[error("`{0}` is not a registry host: expected a host name or address, with a port if need be")]
    Domain(String),
    /// Parsers of this ecosystem disagree about which host this is.
    #[error("host `{0}` has an underscore: runtimes disagree where to pull such an image from")]
    AmbiguousDomain(String),
    /// A repository name has upper-case letters.
    #[error("repository name `{0}` must be lower case")]
    UpperCase(String),
    /// A repository name is malformed.
    #[error("`{0}` is not a repository name")]
    Path(String),
    /// A tag is malformed.
    #[error("`{0}` is not a tag: 1 to 128 of letters, digits, `_`, `.`, `-`, not starting with `.` or `-`")]
    Tag(String),
    /// The part after `@` is malformed.
    #[error(transparent)]
    Digest(#[from] DigestError),
}

#[cfg(test)]
mod tests;
