//! Registries that a command names, and how they may be reached.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use countersign_clock::SystemClock;
use countersign_https::ClientTls;
use countersign_mirrors::Mirror;
use countersign_registry::{DockerConfig, Endpoint as Client, EndpointSettings, Limits, Places, Timing};
use countersign_site::{Endpoint, HostPort, RegistryUrl, Source};
use countersign_verifier::SourceLoader;

use crate::site::warn;
use crate::sources;

/// Connecting and single requests may take longer here than on the way of a pod.
const TIMING: Timing = Timing {
    dial: Duration::from_secs(10),
    request: Duration::from_mins(1),
    // One connection that fails does not end what goes over others.
    hold_off: Duration::ZERO,
    patience: Duration::from_secs(30),
};

/// Whom registries have to prove themselves to be, where they may send us, and as whom we come.
pub(crate) struct Reach {
    ca_pem: Vec<String>,
    allow_hosts: Vec<HostPort>,
    credentials: DockerConfig,
    /// Whether anything of the credentials was for one of the registries.
    used: Cell<bool>,
}

impl Reach {
    pub(crate) fn of(ca: &[PathBuf], allow_hosts: &[String], credentials: Option<&Path>) -> Result<Self> {
        let read = |path: &PathBuf| sources::text(path).map_err(|error| anyhow!("--ca {error}"));
        let allow =
            |host: &String| HostPort::parse(host, 443).with_context(|| format!("--allow-host {host}"));
        let credentials = match credentials {
            None => DockerConfig::default(),
            Some(path) => {
                let text = sources::text(path).map_err(|error| anyhow!("--credentials {error}"))?;
                DockerConfig::parse(&text).with_context(|| format!("--credentials {}", path.display()))?
            }
        };
        Ok(Self {
            ca_pem: ca.iter().map(read).collect::<Result<_>>()?,
            allow_hosts: allow_hosts.iter().map(allow).collect::<Result<_>>()?,
            credentials,
            used: Cell::new(false),
        })
    }

    /// Says so where the credentials are for none of the registries that were made.
    pub(crate) fn warn_unused(&self) {
        if !self.credentials.is_empty() && !self.used.get() {
            warn("--credentials has no entry for any registry that is asked: they are asked without");
        }
    }

    /// A registry at this URL.
    pub(crate) fn endpoint(&self, name: &str, url: &str) -> Result<Client> {
        let mirror =
            Mirror { allow_hosts: self.allow_hosts.clone(), ..Mirror::new(name, RegistryUrl::parse(url)?) };
        self.client(&mirror)
    }

    /// An endpoint of a Site, dialled at its addresses.
    pub(crate) fn of_site(mut self, endpoint: &Endpoint, load: &SourceLoader) -> Result<Client> {
        let read = |source: &Source| load(source).map_err(|why| anyhow!("endpoint {}: {why}", endpoint.name));
        self.ca_pem = endpoint.ca.iter().map(read).collect::<Result<_>>()?;
        let mirror = Mirror {
            addresses: endpoint.addresses.clone(),
            allow_hosts: endpoint.allow_hosts.clone(),
            ..Mirror::new(&endpoint.name, endpoint.url.clone())
        };
        let client = self.client(&mirror)?;
        self.warn_unused();
        Ok(client)
    }

    fn client(&self, mirror: &Mirror) -> Result<Client> {
        let credentials = self.credentials.of(&mirror.url.at).context("--credentials")?.cloned();
        self.used.set(self.used.get() || credentials.is_some());
        let settings = EndpointSettings {
            tls: ClientTls { ca_pem: self.ca_pem.clone(), ..ClientTls::default() },
            limits: Limits::DEFAULT,
            timing: TIMING,
            credentials,
            places: Places::new(&Limits::DEFAULT),
        };
        Ok(Client::new(mirror, settings, Arc::new(SystemClock::default()))?)
    }
}
