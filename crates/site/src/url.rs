//! The URLs of registries, as `hosts.toml` and a Site write them.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use countersign_reference::Reference;

/// With or without TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scheme {
    /// Plain HTTP: loopback, or where it is written out.
    Http,
    /// TLS.
    Https,
}

impl Scheme {
    /// As in a URL.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The port that is meant where none is written.
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// A host and the port on it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPort {
    /// Name or address, lower case, IPv6 without brackets and as short as it goes.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl HostPort {
    /// Parses `host`, `host:port`, `[ipv6]:port`.
    pub fn parse(text: &str, default_port: u16) -> Result<Self, UrlError> {
        let bad = || UrlError(text.chars().take(80).collect());
        // The grammar of reference domains is the grammar of hosts, plus what a hub name implies.
        Reference::from_parts(text, "x", None, None).map_err(|_| bad())?;
        let lower = text.to_ascii_lowercase();
        let (host, port) = match lower.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, port.parse().map_err(|_| bad())?),
            _ => (lower.as_str(), default_port),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        // Written in several ways, compared as a text.
        let host = host.parse::<Ipv6Addr>().map_or_else(|_| host.to_owned(), |address| address.to_string());
        if port == 0 { Err(bad()) } else { Ok(Self { host, port }) }
    }

    /// The address, where the host is one.
    pub fn address(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    /// Whether the host can only be this machine.
    pub fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.address().is_some_and(|address| address.is_loopback())
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address() {
            Some(IpAddr::V6(address)) => write!(f, "[{address}]:{}", self.port),
            _ => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// Where a registry's API is rooted: `https://host:port/v2` or what a path makes of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RegistryUrl {
    /// With or without TLS.
    pub scheme: Scheme,
    /// Host and port.
    pub at: HostPort,
    /// The API's root, starting with `/`, without a `/` at its end: `/v2` in most cases.
    pub root: String,
}

impl RegistryUrl {
    /// Parses `https://host[:port][/path]`; `/v2` is appended to the path unless it ends in it.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        Self::parse_with(text, false)
    }

    /// The same, taking the path as it is (`override_path` of `hosts.toml`).
    pub fn parse_with(text: &str, override_path: bool) -> Result<Self, UrlError> {
        let bad = || UrlError(text.chars().take(80).collect());
        let (scheme, rest) = match text.split_once("://") {
            Some(("http", rest)) => (Scheme::Http, rest),
            Some(("https", rest)) => (Scheme::Https, rest),
            _ => return Err(bad()),
        };
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let at = HostPort::parse(host, scheme.default_port()).map_err(|_| bad())?;
        let part = |part: &&str| !part.is_empty() && *part != ".";
        let parts: Vec<&str> = path.split('/').filter(part).collect();
        let plain = |part: &&str| {
            part.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-~".contains(&b)) && *part != ".."
        };
        if !parts.iter().all(plain) {
            return Err(bad());
        }
        let mut root: String = parts.iter().map(|part| format!("/{part}")).collect();
        if !override_path && parts.last() != Some(&"v2") {
            root.push_str("/v2");
        }
        Ok(Self { scheme, at, root })
    }

    /// Scheme and authority, as in an `Origin`: what a message names an endpoint by.
    pub fn origin(&self) -> String {
        let port = if self.at.port == self.scheme.default_port() {
            String::new()
        } else {
            format!(":{}", self.at.port)
        };
        let host = match self.at.address() {
            Some(IpAddr::V6(address)) => format!("[{address}]"),
            _ => self.at.host.clone(),
        };
        format!("{}://{host}{port}", self.scheme.as_str())
    }
}

impl fmt::Display for RegistryUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let root = if self.root == "/v2" { "" } else { &self.root };
        write!(f, "{}{root}", self.origin())
    }
}

/// Not the URL of a registry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a registry URL: expected `https://host[:port][/path]`, without user, query and `..`")]
pub struct UrlError(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn api_roots_follow_containerd() {
        for (text, override_path, expected) in [
            ("https://m", false, "/v2"),
            ("https://m/us", false, "/us/v2"),
            ("https://m/v2/", false, "/v2"),
            ("https://m/v2/docker.io", false, "/v2/docker.io/v2"),
            ("https://m/v2/docker.io", true, "/v2/docker.io"),
            ("https://m//a/./b/", true, "/a/b"),
            ("https://m", true, ""),
        ] {
            assert_eq!(RegistryUrl::parse_with(text, override_path).unwrap().root, expected, "{text}");
        }
    }

    #[test]
    fn hosts_and_ports() {
        let url = |text| RegistryUrl::parse(text).unwrap();
        assert_eq!(url("https://Pit.NMN").origin(), "https://pit.nmn");
        assert_eq!(url("http://[::1]:5000").origin(), "http://[::1]:5000");
        assert_eq!(url("http://[0:0::1]:5000"), url("http://[::1]:5000"));
        assert!(url("http://127.0.0.2").at.is_loopback() && url("http://localhost:1").at.is_loopback());
        assert_eq!(url("https://m/us").to_string(), "https://m/us/v2");
        for bad in [
            "m",
            "ftp://m",
            "https://",
            "https://u@m",
            "https://m?x",
            "https://m/../x",
            "https://m:0",
            "https://m:99999",
            "https://m/%2e",
        ] {
            assert!(RegistryUrl::parse(bad).is_err(), "{bad}");
        }
    }
}
