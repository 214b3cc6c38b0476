//! The answer: mirrors in order.

use std::net::IpAddr;

use countersign_reference::Reference;
use countersign_site::{HostPort, RegistryUrl, Scheme, Site, Source};

use crate::release::Release;

/// What a runtime asks for images of one host, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Who is asked, first to last.
    pub mirrors: Vec<Mirror>,
    /// Where the runtime goes last although nothing names it: the image's own host. Nobody
    /// here ever dials it.
    pub falls_back_to: Option<String>,
    /// What is wrong with the rules.
    pub findings: Vec<Finding>,
}

/// A server that is asked for images of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// What people call it.
    pub name: String,
    /// Where its API is rooted.
    pub url: RegistryUrl,
    /// Whether tags are resolved here; content is fetched from every mirror.
    pub resolve: bool,
    /// CA certificates that its own is checked with.
    pub ca: Vec<Source>,
    /// Client certificates, each with its key.
    pub client: Vec<(Source, Source)>,
    /// Whether its certificate is not checked at all.
    pub skip_verify: bool,
    /// Headers of every request.
    pub headers: Vec<(String, String)>,
    /// Where to dial; name resolution is used where there are none.
    pub addresses: Vec<IpAddr>,
    /// Hosts that it may send us to, for blobs and tokens.
    pub allow_hosts: Vec<HostPort>,
    /// Who asks, as Docker's `config.json` keeps it.
    pub credentials: Option<Source>,
    /// The `ns` query: the host that the image names, where it is another one.
    pub namespace: Option<String>,
}

impl Mirror {
    /// A server that is asked for tags and content, anonymously, by name resolution, and that
    /// may send us nowhere.
    pub fn new(name: impl Into<String>, url: RegistryUrl) -> Self {
        Self {
            name: name.into(),
            url,
            resolve: true,
            ca: Vec::new(),
            client: Vec::new(),
            skip_verify: false,
            headers: Vec::new(),
            addresses: Vec::new(),
            allow_hosts: Vec::new(),
            credentials: None,
            namespace: None,
        }
    }
}

/// Something about mirror rules that an operator should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad.
    pub severity: Severity,
    /// Which file or directory.
    pub at: String,
    /// What is the matter, and the cure.
    pub message: String,
    /// The first release of containerd that this does not hit; those before it go to the upstream.
    pub until: Option<Release>,
    /// The first release that it hits, if not all do.
    pub since: Option<Release>,
}

impl Finding {
    /// What it is for a node with this release; `None` if nothing.
    #[must_use]
    pub fn for_release(mut self, release: Release) -> Option<Self> {
        match self.until {
            _ if self.since.is_some_and(|since| release < since) => return None,
            Some(until) if release >= until => return None,
            Some(_) => self.severity = Severity::FailOpen,
            None => {}
        }
        Some(self)
    }
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Some release of the runtime, or some reader, will be surprised.
    Warning,
    /// Pulls leave the site.
    FailOpen,
    /// The runtime does not come up.
    Broken,
}

/// The plan of a Site for images of this host; no mirrors where the Site does not name it.
pub fn of_site(site: &Site, image: &Reference) -> Plan {
    if !site.rewrite.rewriter.is_local(image) {
        return Plan::default();
    }
    let mirrors = site.registry.endpoints.iter().map(|endpoint| Mirror {
        ca: endpoint.ca.iter().cloned().collect(),
        addresses: endpoint.addresses.clone(),
        allow_hosts: endpoint.allow_hosts.clone(),
        credentials: endpoint.credentials.clone(),
        namespace: namespace(&endpoint.url, &site.registry.name),
        ..Mirror::new(&endpoint.name, endpoint.url.clone())
    });
    Plan { mirrors: mirrors.collect(), falls_back_to: None, findings: Vec::new() }
}

/// `ns` is sent iff the server is not the host that the image names (containerd `addNamespace`).
pub(crate) fn namespace(url: &RegistryUrl, host: &str) -> Option<String> {
    let own = match (url.at.port, url.scheme) {
        (443, Scheme::Https) | (80, Scheme::Http) => host == url.at.host || host == url.at.to_string(),
        _ => host == url.at.to_string(),
    };
    let hub = host == "docker.io" && url.at.host == "registry-1.docker.io";
    (!own && !hub).then(|| host.to_owned())
}
