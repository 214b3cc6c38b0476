//! Which endpoints serve an image.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use countersign_clock::Clock;
use countersign_https::{ClientTls, TlsError};
use countersign_mirrors::{Mirror, Plan, Tree, TreeError};
use countersign_reference::{Digest, Reference};
use countersign_registry::{
    Credentials, CredentialsError, DockerConfig, Endpoint, EndpointSettings, Health, Limits, Places, Timing,
};
use countersign_site::{Site, Source};

/// Hosts whose endpoints are kept ready.
const MOST_ROUTES: usize = 256;

/// Whose mirror rules are followed.
#[derive(Clone, Debug)]
pub enum Rules {
    /// A Site's.
    Site(Arc<Site>),
    /// A node's own.
    Tree(Tree),
}

impl Rules {
    fn plan(&self, image: &Reference) -> Result<Plan, TreeError> {
        match self {
            Self::Site(site) => Ok(countersign_mirrors::of_site(site, image)),
            Self::Tree(tree) => tree.plan(image),
        }
    }
}

/// Reads the text that a source names.
pub type SourceLoader = dyn Fn(&Source) -> Result<String, String> + Send + Sync;

/// The endpoints for one host, in order.
#[derive(Default)]
pub(crate) struct Route {
    pub(crate) endpoints: Vec<Arc<Server>>,
    /// Where a node would go last, and nobody here does.
    pub(crate) falls_back_to: Option<String>,
}

/// An endpoint and what is remembered of what it offers.
pub(crate) struct Server {
    pub(crate) endpoint: Endpoint,
    pub(crate) offer: Mutex<Offer>,
}

/// What an endpoint was found to offer.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Offer {
    /// Until this moment its fallback tag is asked before its referrers API, which it seemed to lack.
    pub(crate) no_referrers_until: Option<Duration>,
    /// The source that last satisfied a policy: asked first.
    pub(crate) last: Option<Kind>,
}

/// The places where signatures are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    SignatureTag,
    ReferrersApi,
    ReferrersTag,
}

impl Server {
    pub(crate) fn offer(&self) -> Offer {
        *self.offer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn remember(&self, change: impl FnOnce(&mut Offer)) {
        change(&mut self.offer.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Rules or TLS material that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SetupError {
    /// A node's rules are broken.
    #[error(transparent)]
    Rules(#[from] TreeError),
    /// A CA or client certificate cannot be read.
    #[error("endpoint {endpoint}: {why}")]
    Source {
        /// Whose.
        endpoint: String,
        /// What went wrong.
        why: String,
    },
    /// Credentials cannot be used.
    #[error("endpoint {endpoint}: credentials: {error}")]
    Credentials {
        /// Whose.
        endpoint: String,
        /// What is wrong.
        error: CredentialsError,
    },
    /// A CA or client certificate is unusable.
    #[error("endpoint {endpoint}: {error}")]
    Tls {
        /// Whose.
        endpoint: String,
        /// What is wrong.
        error: TlsError,
    },
}

/// Makes endpoints from rules and keeps them, with their connections.
pub(crate) struct Routes {
    rules: Rules,
    load: Arc<SourceLoader>,
    limits: Limits,
    timing: Timing,
    clock: Arc<dyn Clock>,
    places: Places,
    made: Mutex<HashMap<String, Arc<Route>>>,
    /// The same routes for those whose pods' credentials are used.
    on_behalf: Mutex<HashMap<(String, Digest), Arc<Route>>>,
}

/// Who asks, where it is not this program itself.
#[derive(Clone, Debug)]
pub(crate) struct Who {
    /// Tells one from another, and says nothing of what is in it.
    pub(crate) id: Digest,
    /// In the order in which they are tried.
    pub(crate) configs: Arc<[DockerConfig]>,
}

impl Who {
    fn credentials_for(&self, endpoint: &Endpoint) -> Option<Credentials> {
        self.configs.iter().find_map(|config| config.of(endpoint.host()).ok().flatten().cloned())
    }
}

impl Routes {
    pub(crate) fn new(
        rules: Rules,
        load: Arc<SourceLoader>,
        limits: Limits,
        timing: Timing,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let places = Places::new(&limits);
        let (made, on_behalf) = (Mutex::default(), Mutex::default());
        Self { rules, load, limits, timing, clock, places, made, on_behalf }
    }

    /// The route for an image as this one may go it; `None` if the credentials are for none of its
    /// endpoints.
    pub(crate) fn on_behalf(&self, image: &Reference, who: &Who) -> Result<Option<Arc<Route>>, SetupError> {
        let route = self.of(image)?;
        let key = (image.domain().to_owned(), who.id.clone());
        let mut made = self.on_behalf.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(route) = made.get(&key) {
            return Ok(Some(Arc::clone(route)));
        }
        let mut any = false;
        let endpoints = route.endpoints.iter().map(|server| match who.credentials_for(&server.endpoint) {
            None => Arc::clone(server),
            Some(credentials) => {
                any = true;
                let endpoint = server.endpoint.on_behalf(credentials);
                Arc::new(Server { endpoint, offer: Mutex::new(server.offer()) })
            }
        });
        let endpoints = endpoints.collect();
        if !any {
            return Ok(None);
        }
        let route = Arc::new(Route { endpoints, falls_back_to: route.falls_back_to.clone() });
        if made.len() >= MOST_ROUTES {
            made.clear();
        }
        made.insert(key, Arc::clone(&route));
        Ok(Some(route))
    }

    pub(crate) fn of(&self, image: &Reference) -> Result<Arc<Route>, SetupError> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(route) = made.get(image.domain()) {
            return Ok(Arc::clone(route));
        }
        let plan = self.rules.plan(image)?;
        if plan.mirrors.is_empty() {
            // Not kept: names that lead nowhere are for anybody to invent.
            return Ok(Arc::new(Route { falls_back_to: plan.falls_back_to, ..Route::default() }));
        }
        let endpoints: Result<_, _> = plan.mirrors.iter().map(|mirror| self.server(mirror)).collect();
        let route = Arc::new(Route { endpoints: endpoints?, falls_back_to: plan.falls_back_to });
        if made.len() >= MOST_ROUTES {
            made.clear();
        }
        made.insert(image.domain().to_owned(), Arc::clone(&route));
        Ok(route)
    }

    /// How every endpoint does that is known.
    pub(crate) fn health(&self) -> Vec<Health> {
        let made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        made.values().flat_map(|route| &route.endpoints).map(|server| server.endpoint.health()).collect()
    }

    fn server(&self, mirror: &Mirror) -> Result<Arc<Server>, SetupError> {
        let name = || mirror.url.origin();
        let load =
            |source: &Source| (self.load)(source).map_err(|why| SetupError::Source { endpoint: name(), why });
        let ca_pem: Result<Vec<String>, _> = mirror.ca.iter().map(load).collect();
        let client_pem = match mirror.client.first() {
            Some((certificate, key)) => Some((load(certificate)?, load(key)?)),
            None => None,
        };
        let tls = ClientTls { ca_pem: ca_pem?, client_pem, skip_verify: mirror.skip_verify };
        let credentials = match &mirror.credentials {
            None => None,
            Some(source) => DockerConfig::parse(&load(source)?)
                .and_then(|config| config.of(&mirror.url.at).map(Option::<&_>::cloned))
                .map_err(|error| SetupError::Credentials { endpoint: name(), error })?,
        };
        let settings = EndpointSettings {
            tls,
            limits: self.limits,
            timing: self.timing,
            credentials,
            places: self.places.clone(),
        };
        let endpoint = Endpoint::new(mirror, settings, Arc::clone(&self.clock))
            .map_err(|error| SetupError::Tls { endpoint: name(), error })?;
        Ok(Arc::new(Server { endpoint, offer: Mutex::default() }))
    }
}
