//! The one mapping from the names that people write to the site's logical registry.

use std::collections::BTreeMap;

use crate::digest::shown;
use crate::parse::{HUB, ipv6, looks_like_domain};
use crate::{ParseError, Reference};

/// Maps references into one logical registry and back.
///
/// | written | stored |
/// |---|---|
/// | `quay.io/a/b:1` | `registry.local/quay.io/a/b:1` |
/// | `nginx` | `registry.local/docker.io/library/nginx:latest` |
/// | `host:5000/x:1` | `registry.local/host_5000/x:1` |
/// | `[::1]:5000/x:1` | `registry.local/ip6_0_0_0_0_0_0_0_1_5000/x:1` |
/// | `registry.local/a/b:1` | unchanged |
///
/// An alias replaces the host by a path of its own: with `dtr.dev.cray.com: ""` the image
/// `dtr.dev.cray.com/x/y:1` is stored as `registry.local/x/y:1`. A host that is another
/// spelling of the logical registry (`registry.local:5000`) is such an alias, too.
///
/// A domain may not contain `_`, so the written forms of ports and addresses collide with
/// no host name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewriter {
    registry: String,
    aliases: BTreeMap<String, String>,
}

impl Rewriter {
    /// `registry` is the logical name; `aliases` maps a host to the path that stands for it,
    /// an empty path being the root of the registry.
    pub fn new(registry: &str, aliases: &BTreeMap<String, String>) -> Result<Self, RewriterError> {
        let host = |text: &str| {
            Reference::from_parts(text, "x", None, None)
                .map(|r| r.host())
                .map_err(|error| RewriterError::Host { host: shown(text), error })
        };
        let registry = host(registry)?;
        if !looks_like_domain(&registry) {
            return Err(RewriterError::HubName(registry));
        }
        let mut mapped = BTreeMap::new();
        for (from, path) in aliases {
            let key = host(from)?;
            if key == registry {
                return Err(RewriterError::AliasOfItself(key));
            }
            if path.is_empty() && registry == HUB {
                return Err(RewriterError::HubRoot(key));
            }
            if !path.is_empty() {
                Reference::from_parts(&registry, path, None, None).map_err(|error| RewriterError::Path {
                    host: shown(from),
                    path: shown(path),
                    error,
                })?;
            }
            if mapped.insert(key.clone(), path.clone()).is_some() {
                return Err(RewriterError::Twice(key));
            }
        }
        Ok(Self { registry, aliases: mapped })
    }

    /// The logical registry's name.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// Whether the reference is already in the logical registry.
    pub fn is_local(&self, reference: &Reference) -> bool {
        reference.host() == self.registry
    }

    /// The reference under which the site serves this image.
    ///
    /// Tag and digest are kept, `latest` is written out, and the result is its own rewriting.
    pub fn rewrite(&self, reference: &Reference) -> Result<Reference, RewriteError> {
        let host = reference.host();
        let path = if host == self.registry {
            reference.path().to_owned()
        } else {
            let prefix = self.aliases.get(&host).cloned().unwrap_or_else(|| path_of_host(&host));
            if prefix.is_empty() {
                reference.path().to_owned()
            } else {
                format!("{prefix}/{}", reference.path())
            }
        };
        // Where the hub is the registry and one of its other names is written, which get no `library/`.
        let path = if self.registry == HUB && !path.contains('/') { format!("library/{path}") } else { path };
        Reference::from_parts(&self.registry, &path, reference.tag(), reference.digest().cloned())
            .map(Reference::with_default_tag)
            .map_err(|error| RewriteError { reference: reference.to_string(), error })
    }

    /// The names that a reference of the logical registry may have stood for before it was
    /// rewritten: `registry.local/quay.io/a` came from `quay.io/a`, or from `quay.io/a` of a host
    /// whose alias is the root of the registry. Those that say most about the path come first.
    pub fn origins(&self, reference: &Reference) -> Vec<Reference> {
        self.ranked(reference).into_iter().map(|(_, origin)| origin).collect()
    }

    /// Those of the [`Rewriter::origins`] that say most about the path; several, where several
    /// hosts share one.
    pub fn likeliest_origins(&self, reference: &Reference) -> Vec<Reference> {
        let ranked = self.ranked(reference);
        let most = ranked.first().map_or(0, |(length, _)| *length);
        ranked.into_iter().take_while(|(length, _)| *length == most).map(|(_, origin)| origin).collect()
    }

    /// Origins with the length of the path that stands for their host, longest first.
    fn ranked(&self, reference: &Reference) -> Vec<(usize, Reference)> {
        if !self.is_local(reference) {
            return Vec::new();
        }
        let path = reference.path();
        let aliased = self.aliases.iter().filter_map(|(host, prefix)| {
            let rest = match prefix.as_str() {
                "" => path,
                prefix => path.strip_prefix(prefix)?.strip_prefix('/')?,
            };
            Some((prefix.len(), host.clone(), rest))
        });
        let by_path = path.split_once('/').and_then(|(first, rest)| {
            let host = host_of_path(first)?;
            // A host with an alias is written by its alias alone.
            (!self.aliases.contains_key(&host)).then_some((first.len(), host, rest))
        });
        let found = aliased.chain(by_path).filter_map(|(length, host, rest)| {
            let origin = Reference::from_parts(&host, rest, reference.tag(), reference.digest().cloned());
            Some((length, origin.ok()?))
        });
        let mut found: Vec<_> = found.collect();
        found.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
        found
    }
}

/// A host as one part of a path: `:5000` becomes `_5000`, an IPv6 address its eight groups.
fn path_of_host(host: &str) -> String {
    let Some((address, port)) = ipv6(host) else { return host.replace(':', "_") };
    let groups = address.segments().map(|group| format!("{group:x}")).join("_");
    format!("ip6_{groups}{}", port.replace(':', "_"))
}

/// The inverse of [`path_of_host`], where the part can have come from a host.
fn host_of_path(part: &str) -> Option<String> {
    if let Some(groups) = part.strip_prefix("ip6_") {
        let groups: Vec<&str> = groups.split('_').collect();
        let (address, port) = groups.split_at_checked(8)?;
        let mut segments = [0_u16; 8];
        for (segment, text) in segments.iter_mut().zip(address) {
            *segment = u16::from_str_radix(text, 16).ok()?;
        }
        let address = std::net::Ipv6Addr::from(segments);
        return match port {
            [] => Some(format!("[{address}]")),
            [port] => Some(format!("[{address}]:{port}")),
            _ => None,
        };
    }
    match part.rsplit_once('_') {
        Some((host, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => {
            Some(format!("{host}:{port}"))
        }
        Some(_) => None,
        None => (part.contains('.') || part == "localhost").then(|| part.to_owned()),
    }
}

/// Why the names of a mapping are not usable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RewriterError {
    /// Not a registry host.
    #[error("`{host}` is not a registry host: {error}")]
    Host {
        /// As written.
        host: String,
        /// What is wrong with it.
        error: ParseError,
    },
    /// The path of an alias is not one.
    #[error("alias `{host}`: `{path}` is not a repository path: {error}")]
    Path {
        /// The alias.
        host: String,
        /// As written.
        path: String,
        /// What is wrong with it.
        error: ParseError,
    },
    /// The logical registry maps to itself already.
    #[error("alias `{0}` is the logical registry itself")]
    AliasOfItself(String),
    /// A host without a dot or a port; 443 is left out.
    #[error(
        "`{0}` in front of a path is a user of docker.io to every runtime: a registry's name has a dot, or a port other than 443"
    )]
    HubName(String),
    /// The hub has no images at its root.
    #[error("alias `{0}`: what stands at the root of docker.io is read as `library/…`: give it a path")]
    HubRoot(String),
    /// Two spellings of one host.
    #[error("alias `{0}` stands twice")]
    Twice(String),
}

/// The rewritten name would not be a reference; today only because it is too long.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{reference}` cannot be named in the site's registry: {error}")]
pub struct RewriteError {
    /// As it was asked for.
    pub reference: String,
    /// What is wrong with the result.
    pub error: ParseError,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rewriter() -> Rewriter {
        let aliases = [("dtr.dev.cray.com", ""), ("registry.local:5000", ""), ("old.example", "vendor/old")];
        let aliases = aliases.map(|(a, b)| (a.to_owned(), b.to_owned())).into();
        Rewriter::new("registry.local", &aliases).unwrap()
    }

    fn check(written: &str, stored: &str) {
        let digest = format!("sha256:{}", "0".repeat(64));
        let (written, stored) = (written.replace("<D>", &digest), stored.replace("<D>", &digest));
        let found = rewriter().rewrite(&Reference::parse(&written).unwrap()).unwrap();
        assert_eq!(found.to_string(), stored, "{written}");
    }

    #[test]
    fn the_wanted_column() {
        check("quay.io/a/b:1", "registry.local/quay.io/a/b:1");
        check("registry.local/quay.io/a/b:1", "registry.local/quay.io/a/b:1");
        check("nginx", "registry.local/docker.io/library/nginx:latest");
        check("docker.io/library/alpine:3", "registry.local/docker.io/library/alpine:3");
        check("index.docker.io/alpine:3", "registry.local/docker.io/library/alpine:3");
        check("dtr.dev.cray.com/x/y:1", "registry.local/x/y:1");
        check("old.example/x:1", "registry.local/vendor/old/x:1");
        check("a.b/c:1@<D>", "registry.local/a.b/c:1@<D>");
        check("a.b/c@<D>", "registry.local/a.b/c@<D>");
        check("host:5000/x:1", "registry.local/host_5000/x:1");
        check("registry.local:5000/x:1", "registry.local/x:1");
        check("[::1]:5000/x:1", "registry.local/ip6_0_0_0_0_0_0_0_1_5000/x:1");
        check("localhost/x:1", "registry.local/localhost/x:1");
    }

    #[test]
    fn origins() {
        let roots =
            |path: &str| vec![format!("dtr.dev.cray.com/{path}"), format!("registry.local:5000/{path}")];
        for (stored, origin) in [
            ("registry.local/quay.io/a/b:1", vec!["quay.io/a/b:1".to_owned()]),
            ("registry.local/docker.io/library/nginx:1", vec!["docker.io/library/nginx:1".to_owned()]),
            ("registry.local/host_5000/x:1", vec!["host:5000/x:1".to_owned()]),
            ("registry.local/ip6_0_0_0_0_0_0_0_1_5000/x:1", vec!["[::1]:5000/x:1".to_owned()]),
            ("registry.local/vendor/old/x:1", vec!["old.example/x:1".to_owned()]),
            ("registry.local/localhost/x:1", vec!["localhost/x:1".to_owned()]),
            // The root stands for two hosts.
            ("registry.local/csm/x:1", roots("csm/x:1")),
            ("quay.io/quay.io/x", vec![]),
        ] {
            let stored = Reference::parse(stored).unwrap();
            let text = |found: Vec<Reference>| found.iter().map(ToString::to_string).collect::<Vec<_>>();
            assert_eq!(text(rewriter().likeliest_origins(&stored)), origin, "{stored}");
            let all = text(rewriter().origins(&stored));
            let (rest, local) = (stored.to_string(), rewriter().is_local(&stored));
            let rest = rest.strip_prefix("registry.local/").unwrap_or_default();
            assert!(!local || roots(rest).iter().all(|root| all.contains(root)), "{stored}: {all:?}");
        }
    }

    #[test]
    fn too_long_is_an_error_with_the_name_in_it() {
        let long = Reference::parse(&format!("quay.io/{}", "a".repeat(255))).unwrap();
        let error = rewriter().rewrite(&long).unwrap_err().to_string();
        assert!(error.contains("255 bytes") && error.contains("quay.io/aaa"), "{error}");
    }

    #[test]
    fn a_registry_is_what_runtimes_take_for_one() {
        let registry = |name: &str, aliases| Rewriter::new(name, &aliases);
        for name in ["registry", "Registry", "registry:443"] {
            assert_eq!(
                registry(name, BTreeMap::new()),
                Err(RewriterError::HubName("registry".to_owned())),
                "{name}"
            );
        }
        for name in ["localhost", "registry:5000", "[::1]"] {
            assert!(registry(name, BTreeMap::new()).is_ok(), "{name}");
        }
        let root = BTreeMap::from([("a.b".to_owned(), String::new())]);
        assert_eq!(registry("docker.io", root), Err(RewriterError::HubRoot("a.b".to_owned())));
        let hub = registry("docker.io", BTreeMap::new()).unwrap();
        let stored = hub.rewrite(&Reference::parse("index.docker.io:443/nginx").unwrap()).unwrap();
        assert_eq!(stored.to_string(), "docker.io/library/nginx:latest");
    }

    #[test]
    fn aliases_are_checked() {
        let check = |from: &str, to: &str| {
            Rewriter::new("registry.local", &[(from.to_owned(), to.to_owned())].into())
        };
        assert!(matches!(check("registry.local:443", ""), Err(RewriterError::AliasOfItself(_))));
        assert!(matches!(check("a.b/c", ""), Err(RewriterError::Host { .. })));
        assert!(matches!(check("a.b", "/x"), Err(RewriterError::Path { .. })));
    }

    proptest! {
        /// R1, T-21: every result is in our registry, is its own rewriting and keeps tag and digest.
        #[test]
        fn rewriting_is_idempotent_and_local(
            host in "([a-zA-Z0-9]([a-zA-Z0-9-]{0,5}[a-zA-Z0-9])?\\.){0,2}[a-zA-Z0-9]{1,8}(:[0-9]{1,5})?|\\[[0-9a-f:]{2,12}\\]|",
            path in "[a-z0-9]{1,8}(/[a-z0-9]{1,8}(_|-{1,2}|\\.)[a-z0-9]{1,4}){0,2}",
            tag in proptest::option::of("[A-Za-z0-9_][A-Za-z0-9_.-]{0,10}"),
            digest in any::<bool>(),
        ) {
            let mut text = if host.is_empty() { path } else { format!("{host}/{path}") };
            if let Some(tag) = &tag { text = format!("{text}:{tag}"); }
            if digest { text = format!("{text}@sha256:{}", "0".repeat(64)); }
            if let Ok(reference) = Reference::parse(&text) {
                let rewriter = rewriter();
                let once = rewriter.rewrite(&reference).unwrap();
                prop_assert_eq!(once.domain(), "registry.local");
                prop_assert_eq!(once.digest(), reference.digest());
                prop_assert_eq!(once.tag(), reference.effective_tag());
                let read = Reference::parse(&once.to_string()).unwrap();
                prop_assert_eq!(&read, &once);
                prop_assert_eq!(&rewriter.rewrite(&read).unwrap(), &once);
                if !rewriter.is_local(&reference) && !rewriter.aliases.contains_key(&reference.host()) && reference.host().contains(['.', ':']) {
                    let origins = rewriter.origins(&once);
                    prop_assert!(origins.iter().any(|origin| origin.path() == reference.path()));
                }
            }
        }
    }
}
