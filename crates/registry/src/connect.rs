//! The one place that opens a connection to a registry.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use countersign_site::{HostPort, Scheme};
use hyper::Uri;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::Error;

/// Connects to the hosts that are named, and to no other.
#[derive(Clone, Debug)]
pub(crate) struct Connector(Arc<Named>);

#[derive(Debug)]
struct Named {
    scheme: Scheme,
    own: HostPort,
    /// Where to dial the endpoint itself; empty: ask name resolution.
    addresses: Vec<IpAddr>,
    others: Vec<HostPort>,
    dial: Duration,
}

impl Connector {
    pub(crate) fn new(
        scheme: Scheme,
        own: HostPort,
        addresses: Vec<IpAddr>,
        others: Vec<HostPort>,
        dial: Duration,
    ) -> Self {
        Self(Arc::new(Named { scheme, own, addresses, others, dial }))
    }

    /// The host of a URI, if it is one that may be asked; never with less protection than the endpoint has.
    pub(crate) fn allowed(&self, uri: &Uri) -> Result<HostPort, Error> {
        let scheme = match uri.scheme_str() {
            Some("http") => Scheme::Http,
            Some("https") => Scheme::Https,
            _ => return Err(Error::Malformed("a URL that is neither http nor https".to_owned())),
        };
        let authority = uri.authority().ok_or_else(|| Error::Malformed("a URL without a host".to_owned()))?;
        if authority.as_str().contains('@') {
            return Err(Error::Malformed("a URL with a user in it".to_owned()));
        }
        let host = HostPort::parse(authority.as_str(), scheme.default_port())
            .map_err(|_| Error::Malformed("a URL with a malformed host".to_owned()))?;
        let named = host == self.0.own || self.0.others.contains(&host);
        let downgrade = scheme == Scheme::Http && self.0.scheme == Scheme::Https;
        if named && !downgrade { Ok(host) } else { Err(Error::HostNotListed(host)) }
    }

    /// The endpoint itself.
    pub(crate) fn own(&self) -> &HostPort {
        &self.0.own
    }

    /// Scheme and authority of the endpoint.
    pub(crate) fn base(&self) -> String {
        let scheme = if self.0.scheme == Scheme::Https { "https" } else { "http" };
        format!("{scheme}://{}", self.0.own)
    }

    /// Whether it is the endpoint itself, not a host named for it.
    pub(crate) fn is_own(&self, host: &HostPort) -> bool {
        *host == self.0.own
    }

    /// Whether what is sent to the endpoint is read by nobody on the way.
    pub(crate) fn is_private(&self) -> bool {
        self.0.scheme == Scheme::Https || self.0.own.is_loopback()
    }

    /// Whether what is sent to this URL is.
    pub(crate) fn is_private_to(&self, uri: &Uri) -> bool {
        let loopback = || self.allowed(uri).is_ok_and(|host| host.is_loopback());
        uri.scheme_str() == Some("https") || loopback()
    }

    async fn dial(self, uri: Uri) -> Result<TcpStream, Error> {
        let host = self.allowed(&uri)?;
        let fixed = if host == self.0.own { self.0.addresses.as_slice() } else { &[] };
        let connect = async {
            let addresses: Vec<SocketAddr> = match (fixed, host.address()) {
                ([], Some(address)) => vec![SocketAddr::new(address, host.port)],
                ([], None) => tokio::net::lookup_host((host.host.as_str(), host.port))
                    .await
                    .map_err(|error| Error::Dial(format!("{}: {error}", host.host)))?
                    .collect(),
                (fixed, _) => fixed.iter().map(|address| SocketAddr::new(*address, host.port)).collect(),
            };
            let mut last = Error::Dial(format!("{} has no address", host.host));
            for address in addresses {
                match TcpStream::connect(address).await {
                    Ok(stream) => return Ok(stream),
                    Err(error) => last = Error::Dial(format!("{address}: {error}")),
                }
            }
            Err(last)
        };
        let stream = tokio::time::timeout(self.0.dial, connect)
            .await
            .map_err(|_| Error::Dial(format!("{host}: no answer within {} ms", self.0.dial.as_millis())))??;
        _ = stream.set_nodelay(true);
        Ok(stream)
    }
}

impl tower_service::Service<Uri> for Connector {
    type Response = TokioIo<TcpStream>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move { connector.dial(uri).await.map(TokioIo::new) })
    }
}
