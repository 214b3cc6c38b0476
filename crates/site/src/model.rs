//! The Site as the rest of the program uses it.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use countersign_reference::{Digest, Reference, Rewriter};

use crate::document::{
    API_VERSION, EndpointDocument, KIND, NodesDocument, ObjectKey, SiteDocument, SourceDocument, Spec,
};
use crate::{HostPort, Problem, Problems, RegistryUrl, Scheme, Trust, parse_duration};

/// `tagFreshness` where none is written.
const DEFAULT_FRESHNESS: Duration = Duration::from_secs(10);
/// The most that `tagFreshness` may be.
const MAX_FRESHNESS: Duration = Duration::from_mins(5);
/// `stale` where none is written.
const DEFAULT_STALE: Duration = Duration::from_hours(168);

/// Characters of an endpoint's name.
const MAX_NAME: usize = 63;

/// Where images live and whom to trust.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// Whether Enforce rules enforce.
    pub mode: Mode,
    /// The logical registry and the endpoints that serve it.
    pub registry: Registry,
    /// How names are mapped into the logical registry.
    pub rewrite: Rewrite,
    /// Keys by name.
    pub trust: Trust,
    /// Digests that are never verified.
    pub revoked: BTreeSet<Digest>,
    /// How long the digest of a tag is reused before the registry is asked again.
    pub tag_freshness: Duration,
    /// How old a tag record may be when no endpoint answers.
    pub stale: Duration,
    /// Whether images are stored with their digest.
    pub pinning: Pinning,
    /// In which form.
    pub pin_form: PinForm,
    /// What exceptions may lift.
    pub exceptions: ExceptionMode,
    /// Where exceptions count.
    pub exception_namespaces: BTreeSet<String>,
    /// The tier that must not deadlock.
    pub bootstrap_namespaces: BTreeSet<String>,
    /// Mirror rules of the past, to be removed from nodes.
    pub obsolete: Vec<String>,
    /// What nodes have beside the rules for the logical registry.
    pub nodes: Nodes,
    /// What is legal and yet worth a word.
    pub warnings: Problems,
}

/// Whether Enforce rules enforce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Policies decide.
    Enforce,
    /// Every Enforce acts as Audit: the way out at 3 a.m.
    Audit,
}

/// Whether images are stored with their digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pinning {
    /// Every verified image is, and Enforce demands it.
    Always,
    /// As each policy's `mutateDigest` says; endpoints that disagree about a tag are refused.
    Policy,
    /// None is; endpoints that disagree about a tag are refused.
    Off,
}

/// What a pinned image looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PinForm {
    /// `name:tag@digest`.
    TagDigest,
    /// `name@digest`.
    Digest,
}

/// What exceptions may lift.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExceptionMode {
    /// Not image verification, if a pod's author could give it to himself.
    Strict,
    /// As Kyverno.
    Compatible,
}

/// The logical registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registry {
    /// The host that stored images name.
    pub name: String,
    /// Who serves it, in the order in which they are asked.
    pub endpoints: Vec<Endpoint>,
    /// Whether a pod's `imagePullSecrets` are used where an endpoint lets nobody else look.
    pub pull_secrets: bool,
}

/// A server of the logical registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// What people call it.
    pub name: String,
    /// Where it is.
    pub url: RegistryUrl,
    /// Where to dial; name resolution is used where there are none.
    pub addresses: Vec<IpAddr>,
    /// The CA certificates that its certificate is checked with.
    pub ca: Option<Source>,
    /// Who asks, as Docker's `config.json` keeps it; nobody in particular where there is none.
    pub credentials: Option<Source>,
    /// Hosts that it may send us to, for blobs and tokens.
    pub allow_hosts: Vec<HostPort>,
}

/// How names are mapped into the logical registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewrite {
    /// Whether `registry_rewrite` changes anything.
    pub enabled: bool,
    /// Whether images in bootstrap namespaces are renamed, too.
    pub bootstrap: bool,
    /// The mapping.
    pub rewriter: Rewriter,
}

/// What nodes have beside the rules for the logical registry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Nodes {
    /// The sandbox image, by the name that the runtime's configuration gives it.
    pub sandbox_image: Option<Reference>,
    /// Images that have to be on every node before there is a registry, by the names that pods
    /// and static pods give them. The sandbox image is one of them.
    pub images: Vec<Reference>,
    /// Upstream hosts that images may name which no webhook sees: their rules lead to the
    /// endpoints of the logical registry.
    pub hosts: Vec<String>,
}

impl Nodes {
    fn check(document: &NodesDocument, rewriter: Option<&Rewriter>, problems: &mut Problems) -> Self {
        let sandbox_image = document.sandbox_image.as_ref().and_then(|text| {
            let image = Reference::parse(text).map(Reference::with_default_tag);
            problems.take("spec.nodes.sandboxImage", image)
        });
        let mut images: Vec<Reference> = sandbox_image.iter().cloned().collect();
        for (index, text) in document.images.iter().enumerate() {
            let image = Reference::parse(text).map(Reference::with_default_tag);
            images.extend(problems.take(&format!("spec.nodes.images[{index}]"), image));
        }
        images.sort();
        images.dedup();
        let mut hosts = Vec::new();
        for (index, host) in document.hosts.iter().enumerate() {
            let path = format!("spec.nodes.hosts[{index}]");
            let Some(image) = problems.take(&path, Reference::from_parts(host, "x", None, None)) else {
                continue;
            };
            if rewriter.is_some_and(|rewriter| rewriter.is_local(&image)) {
                problems.add(path, "is the logical registry, which has its rule anyway");
            } else if let Some(Err(error)) = rewriter.map(|rewriter| rewriter.rewrite(&image)) {
                problems.add(path, error);
            } else if hosts.contains(host) {
                problems.add(path, format!("`{host}` stands twice"));
            } else {
                hosts.push(host.clone());
            }
        }
        Self { sandbox_image, images, hosts }
    }
}

/// Where some text is read from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// A path; a relative one is relative to the Site's own file.
    File(String),
    /// The text itself.
    Inline(String),
    /// A Secret in the program's namespace.
    Secret {
        /// Its name.
        name: String,
        /// The key in it, the usual one where absent.
        key: Option<String>,
    },
    /// A ConfigMap in the program's namespace.
    ConfigMap {
        /// Its name.
        name: String,
        /// The key in it, the usual one where absent.
        key: Option<String>,
    },
}

impl Site {
    /// Everything that it names to be read elsewhere: CAs, credentials and keys.
    pub fn sources(&self) -> impl Iterator<Item = &Source> {
        let endpoints = self.registry.endpoints.iter();
        let of_endpoints = endpoints.flat_map(|endpoint| endpoint.ca.iter().chain(&endpoint.credentials));
        of_endpoints.chain(self.trust.keys.values().map(|key| &key.source))
    }

    /// Reads the text of a Site: one YAML document.
    pub fn parse(text: &str) -> Result<Self, Problems> {
        let one = |path: &str, message: String| Problems(vec![Problem { path: path.to_owned(), message }]);
        let value = countersign_yaml::document(text).map_err(|error| one("(document)", error.to_string()))?;
        let document: SiteDocument = serde_path_to_error::deserialize(value).map_err(|error| {
            let path = error.path().to_string();
            one(if path == "." { "(document)" } else { &path }, error.into_inner().to_string())
        })?;
        Self::check(document)
    }

    fn check(document: SiteDocument) -> Result<Self, Problems> {
        let mut problems = Problems::default();
        let mut warnings = Problems::default();
        if document.api_version != API_VERSION {
            problems.add("apiVersion", format!("expected `{API_VERSION}`"));
        }
        if document.kind != KIND {
            problems.add("kind", format!("expected `{KIND}`"));
        }
        if let Some(name) = document.metadata.name.filter(|name| name != "default") {
            problems.add("metadata.name", format!("the Site that counts is called `default`, not `{name}`"));
        }
        let Spec { registry, rewrite, trust, .. } = &document.spec;
        let mut endpoints = Vec::new();
        for (index, endpoint) in registry.endpoints.iter().enumerate() {
            let path = format!("spec.registry.endpoints[{index}]");
            if endpoints.iter().any(|other: &Endpoint| other.name == endpoint.name) {
                problems.add(format!("{path}.name"), format!("`{}` stands twice", endpoint.name));
            }
            if !is_name(&endpoint.name) {
                let name: String = endpoint.name.chars().take(80).collect();
                problems.add(
                    format!("{path}.name"),
                    format!("`{name}` is no name: up to {MAX_NAME} letters, digits, `.`, `_`, `-`, from a letter or digit on"),
                );
            }
            endpoints.extend(check_endpoint(endpoint, &path, &registry.name, &mut problems, &mut warnings));
        }
        if registry.endpoints.is_empty() {
            problems.add("spec.registry.endpoints", "at least one endpoint has to serve the registry");
        }
        let rewriter = Rewriter::new(&registry.name, &rewrite.aliases);
        let rewriter = problems.take("spec.registry.name, spec.rewrite.aliases", rewriter);
        if let Some(rewriter) = rewriter.as_ref().filter(|rewriter| rewriter.registry() != registry.name) {
            problems.add("spec.registry.name", format!("write it as `{}`", rewriter.registry()));
        }
        let trust = Trust::check(trust, &mut problems, &mut warnings);
        let mut revoked = BTreeSet::new();
        for (index, digest) in document.spec.revoked.iter().enumerate() {
            revoked.extend(problems.take(&format!("spec.revoked[{index}]"), Digest::parse(digest)));
        }
        let spec = &document.spec;
        let mut duration = |path: &str, text: &Option<String>, default, most| {
            let Some(text) = text else { return default };
            match problems.take(path, parse_duration(text)) {
                Some(value) if value > most => {
                    problems.add(path, format!("at most {} seconds", most.as_secs()));
                    default
                }
                value => value.unwrap_or(default),
            }
        };
        let tag_freshness =
            duration("spec.tagFreshness", &spec.tag_freshness, DEFAULT_FRESHNESS, MAX_FRESHNESS);
        let stale = duration("spec.stale", &spec.stale, DEFAULT_STALE, Duration::MAX);
        let mode = one_of(
            &mut problems,
            "spec.mode",
            spec.mode.as_deref(),
            &[("enforce", Mode::Enforce), ("audit", Mode::Audit)],
        );
        let pinning = one_of(
            &mut problems,
            "spec.pinning",
            spec.pinning.as_deref(),
            &[("always", Pinning::Always), ("policy", Pinning::Policy), ("off", Pinning::Off)],
        );
        let pin_form = one_of(
            &mut problems,
            "spec.pinForm",
            spec.pin_form.as_deref(),
            &[("tagDigest", PinForm::TagDigest), ("digest", PinForm::Digest)],
        );
        let exceptions = one_of(
            &mut problems,
            "spec.exceptions",
            spec.exceptions.as_deref(),
            &[("strict", ExceptionMode::Strict), ("compatible", ExceptionMode::Compatible)],
        );
        let nodes = Nodes::check(&spec.nodes, rewriter.as_ref(), &mut problems);
        let (Some(rewriter), true) = (rewriter, problems.0.is_empty()) else { return Err(problems) };
        Ok(Self {
            mode,
            registry: Registry {
                name: registry.name.clone(),
                endpoints,
                pull_secrets: registry.image_pull_secrets,
            },
            rewrite: Rewrite {
                enabled: rewrite.enabled.unwrap_or(true),
                bootstrap: rewrite.bootstrap,
                rewriter,
            },
            trust,
            revoked,
            tag_freshness,
            stale,
            pinning,
            pin_form,
            exceptions,
            exception_namespaces: spec.exception_namespaces.iter().cloned().collect(),
            bootstrap_namespaces: spec.bootstrap_namespaces.iter().cloned().collect(),
            obsolete: spec.obsolete.clone(),
            nodes,
            warnings,
        })
    }
}

/// Whether a text can stand for an endpoint wherever its name goes: in files, as one, in messages.
fn is_name(text: &str) -> bool {
    text.len() <= MAX_NAME
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

/// The value of a word; the first of the list where none is written.
pub(crate) fn one_of<T: Copy>(
    problems: &mut Problems,
    path: &str,
    text: Option<&str>,
    words: &[(&str, T)],
) -> T {
    let found = text.and_then(|text| words.iter().find(|(word, _)| *word == text));
    if let (Some(text), None) = (text, found) {
        let words: Vec<_> = words.iter().map(|(word, _)| format!("`{word}`")).collect();
        problems.add(path, format!("`{text}` is not one of {}", words.join(", ")));
    }
    found.unwrap_or(&words[0]).1
}

fn check_endpoint(
    document: &EndpointDocument,
    path: &str,
    logical: &str,
    problems: &mut Problems,
    warnings: &mut Problems,
) -> Option<Endpoint> {
    let url = problems.take(&format!("{path}.url"), RegistryUrl::parse(&document.url));
    let mut addresses = Vec::new();
    for (index, text) in document.addresses.iter().enumerate() {
        let address = text.parse::<IpAddr>().map_err(|_| format!("`{text}` is not an IP address"));
        addresses.extend(problems.take(&format!("{path}.addresses[{index}]"), address));
    }
    let ca = document.ca.as_ref().and_then(|ca| check_source(ca, &format!("{path}.ca"), problems));
    let credentials = document.credentials.as_ref();
    let credentials =
        credentials.and_then(|source| check_source(source, &format!("{path}.credentials"), problems));
    let url = url?;
    let mut allow_hosts = Vec::new();
    for (index, text) in document.allow_hosts.iter().enumerate() {
        let host = HostPort::parse(text, url.scheme.default_port());
        allow_hosts.extend(problems.take(&format!("{path}.allowHosts[{index}]"), host));
    }
    let logical = HostPort::parse(logical, url.scheme.default_port()).ok();
    if logical.is_some_and(|logical| logical.host == url.at.host) && document.addresses.is_empty() {
        let message = "the host is the logical registry's name: give the `addresses` to dial, or a DNS override would answer for this endpoint";
        problems.add(format!("{path}.addresses"), message);
    }
    if url.scheme == Scheme::Http {
        if document.ca.is_some() {
            problems.add(format!("{path}.ca"), "an `http` endpoint has no certificate to check");
        }
        if !url.at.is_loopback() {
            warnings.add(
                format!("{path}.url"),
                "plain `http` beyond loopback: anybody on the way can change what is read",
            );
            if document.credentials.is_some() {
                problems.add(format!("{path}.credentials"), "no password goes over plain `http`");
            }
        }
    }
    if url.scheme == Scheme::Https && document.ca.is_none() {
        problems.add(
            format!("{path}.ca"),
            "an `https` endpoint needs the CA that its certificate is checked with",
        );
    }
    Some(Endpoint { name: document.name.clone(), url, addresses, ca, credentials, allow_hosts })
}

pub(crate) fn check_source(document: &SourceDocument, path: &str, problems: &mut Problems) -> Option<Source> {
    let object = |object: &ObjectKey| match object {
        ObjectKey::Name(name) => (name.clone(), None),
        ObjectKey::Key { name, key } => (name.clone(), key.clone()),
    };
    let sources = [
        document.file.clone().map(Source::File),
        document.pem.clone().map(Source::Inline),
        document.secret.as_ref().map(object).map(|(name, key)| Source::Secret { name, key }),
        document.config_map.as_ref().map(object).map(|(name, key)| Source::ConfigMap { name, key }),
    ];
    let mut sources = sources.into_iter().flatten();
    match (sources.next(), sources.next()) {
        (Some(source), None) => Some(source),
        _ => {
            problems.add(path, "exactly one of `file`, `pem`, `secret` and `configMap` is needed");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SITE: &str = r"
apiVersion: countersign.dev/v1alpha1
kind: Site
metadata: { name: default }
spec:
  mode: enforce
  registry:
    name: registry.local
    endpoints:
      - { name: bootstrap, url: https://pit.nmn, addresses: [10.1.1.2], ca: { configMap: platform-ca } }
      - { name: cluster, url: https://registry.local, addresses: [10.92.100.71], ca: { configMap: platform-ca }, allowHosts: [] }
  rewrite: { enabled: true, bootstrap: false, aliases: { dtr.dev.cray.com: '' } }
  trust:
    keys:
      vendor-2026: { secret: { name: keys, key: vendor.pub } }
      seal-2026: { secret: { name: keys, key: seal.pub } }
    bundleKeys: [seal-2026]
  revoked: []
  tagFreshness: 10s
  stale: 7d
  pinning: always
  exceptions: strict
  exceptionNamespaces: [countersign]
  bootstrapNamespaces: [kube-system]
  obsolete: [artifactory.algol60.net]
  nodes: { sandboxImage: 'registry.k8s.io/pause:3.10', images: ['registry.local/countersign/countersign:1'], hosts: [quay.io] }
";

    /// Replaces a part of the good Site and shows what is said about it.
    fn check(from: &str, to: &str) -> String {
        assert!(SITE.contains(from), "{from}");
        match Site::parse(&SITE.replace(from, to)) {
            Ok(site) => format!("warning {}", site.warnings),
            Err(problems) => problems.to_string(),
        }
    }

    #[test]
    fn the_documented_site_is_good() {
        let site = Site::parse(SITE).unwrap();
        assert_eq!(site.registry.endpoints[1].addresses, ["10.92.100.71".parse::<IpAddr>().unwrap()]);
        assert_eq!(
            site.trust.keys["vendor-2026"].source,
            Source::Secret { name: "keys".into(), key: Some("vendor.pub".into()) }
        );
        assert_eq!((site.tag_freshness.as_secs(), site.stale.as_secs()), (10, 604_800));
        assert!(site.warnings.0.is_empty());
    }

    #[test]
    fn every_problem_names_its_path_and_the_cure() {
        for (from, to, expected) in [
            ("mode: enforce", "mood: enforce", "spec.mood: unknown field `mood`"),
            ("mode: enforce", "mode: on", "spec.mode: "),
            ("mode: enforce", "mode: loud", "spec.mode: `loud` is not one of `enforce`, `audit`"),
            ("https://pit.nmn", "pit.nmn", "spec.registry.endpoints[0].url: `pit.nmn` is not a registry URL"),
            ("[10.1.1.2]", "[pit]", "spec.registry.endpoints[0].addresses[0]: `pit` is not an IP address"),
            (
                "addresses: [10.92.100.71], ",
                "",
                "spec.registry.endpoints[1].addresses: the host is the logical",
            ),
            ("name: cluster", "name: bootstrap", "spec.registry.endpoints[1].name: `bootstrap` stands twice"),
            ("name: bootstrap", "name: ../../x", "spec.registry.endpoints[0].name: `../../x` is no name"),
            (
                "name: bootstrap",
                "name: \"a\\u200Bb\"",
                "spec.registry.endpoints[0].name: `a\u{200b}b` is no name",
            ),
            (
                "ca: { configMap: platform-ca } }",
                "ca: { file: a, pem: b } }",
                "spec.registry.endpoints[0].ca: exactly one of",
            ),
            (
                ", ca: { configMap: platform-ca } }",
                "}",
                "spec.registry.endpoints[0].ca: an `https` endpoint needs",
            ),
            ("https://pit.nmn", "http://pit.nmn", "spec.registry.endpoints[0].ca: an `http` endpoint has no"),
            (
                "bundleKeys: [seal-2026]",
                "bundleKeys: [other]",
                "spec.trust.bundleKeys[0]: there is no key `other`",
            ),
            (
                "key: vendor.pub }",
                "key: vendor.pub }, trustedUntil: soon",
                "spec.trust.keys.vendor-2026.trustedUntil: `soon` is not a date",
            ),
            (
                "key: vendor.pub }",
                "key: vendor.pub }, trustedFrom: 2028-01-01, trustedUntil: 2028-01-01",
                "spec.trust.keys.vendor-2026.trustedUntil: is not after `trustedFrom`",
            ),
            (
                "bundleKeys: [seal-2026]",
                "identity: { check: maybe }",
                "spec.trust.identity.check: `maybe` is not one of `off`, `named`, `required`",
            ),
            ("revoked: []", "revoked: [sha256:x]", "spec.revoked[0]: a sha256 digest has 64"),
            ("tagFreshness: 10s", "tagFreshness: 1h", "spec.tagFreshness: at most 300 seconds"),
            ("pinning: always", "pinning: on", "spec.pinning: `on` is not one of `always`, `policy`, `off`"),
            ("stale: 7d", "stale: soon", "spec.stale: `soon` is not a duration"),
            (
                "name: registry.local\n",
                "name: Registry.Local\n",
                "spec.registry.name: write it as `registry.local`",
            ),
            (
                "name: registry.local\n",
                "name: registry.local/x\n",
                "`registry.local/x` is not a registry host",
            ),
            ("pause:3.10", "pause:3.10 x", "spec.nodes.sandboxImage: "),
            ("countersign:1'", "Countersign:1'", "spec.nodes.images[0]: "),
            ("hosts: [quay.io]", "hosts: [a b]", "spec.nodes.hosts[0]: "),
            ("hosts: [quay.io]", "hosts: [registry.local]", "spec.nodes.hosts[0]: is the logical registry"),
            (
                "hosts: [quay.io]",
                "hosts: ['registry.local:443']",
                "spec.nodes.hosts[0]: is the logical registry",
            ),
            (
                "name: registry.local\n",
                "name: registry\n",
                "spec.rewrite.aliases: `registry` in front of a path",
            ),
            ("name: default", "name: other", "metadata.name: the Site that counts is called `default`"),
            ("v1alpha1", "v1", "apiVersion: expected `countersign.dev/v1alpha1`"),
        ] {
            let found = check(from, to);
            assert!(found.contains(expected), "{from} -> {to}: {found}");
        }
    }

    #[test]
    fn an_unquoted_off_is_off() {
        let site = Site::parse(&SITE.replace("pinning: always", "pinning: off")).unwrap();
        assert_eq!(site.pinning, Pinning::Off);
    }

    #[test]
    fn all_problems_are_told_at_once() {
        let text = SITE.replace("mode: enforce", "mode: x").replace("pinning: always", "pinning: x");
        assert_eq!(Site::parse(&text).unwrap_err().0.len(), 2);
    }

    #[test]
    fn keys_that_only_seal_are_a_warning() {
        let said = check("bundleKeys: [seal-2026]", "bundleKeys: [seal-2026, vendor-2026]");
        assert!(said.starts_with("warning spec.trust.bundleKeys: every key is one for bundles"), "{said}");
    }

    #[test]
    fn plain_http_beyond_loopback_is_a_warning() {
        let endpoint = "https://pit.nmn, addresses: [10.1.1.2], ca: { configMap: platform-ca } }";
        assert!(
            check(endpoint, "http://pit.nmn }")
                .starts_with("warning spec.registry.endpoints[0].url: plain `http`")
        );
        assert_eq!(check(endpoint, "http://127.0.0.1:5000 }"), "warning ");
    }
}
