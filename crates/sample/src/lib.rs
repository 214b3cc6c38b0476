//! Registries with images that are signed on the spot: for the demonstration and the benchmarks.
//!
//! The registries are the real ones of `bootstrap`, over TLS on loopback, each serving a layout
//! of its own that goes when it does. Images are one layer of text; their signatures have the
//! two shapes that cosign writes. A [`Hostile`] one has repositories that lie.

mod hostile;
mod image;

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use countersign_bootstrap::Bootstrap;
use countersign_https::{Authority, Body, IdentityError, ServeLimits, TlsError};
use countersign_layout::{Layout, LayoutError};
use countersign_signature::sign::SignError;
use hyper::body::Incoming;
use hyper::{Request, Response};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub use hostile::{Hostile, Lie};
pub use image::Shape;

/// How long open requests may go on after a registry was switched off.
const DRAIN: Duration = Duration::from_millis(200);

/// A TLS registry on a free port of 127.0.0.1.
pub struct SampleRegistry {
    /// Where it listens.
    pub port: u16,
    registry: Bootstrap,
    running: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
    _directory: TempDir,
}

/// A sample could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SampleError {
    /// No directory, no port.
    #[error("a sample registry: {0}")]
    Io(#[from] std::io::Error),
    /// The layout does not take it.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// No serving certificate.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// An unusable one.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// No signature.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// A name without a tag.
    #[error("`{0}` has no tag")]
    Name(String),
}

impl SampleRegistry {
    /// Starts one, with a certificate of this authority for 127.0.0.1 and `registry.local`.
    ///
    /// `lie` may answer in the registry's stead: for showing what a false answer leads to.
    pub async fn start(
        authority: &Authority,
        lie: impl Fn(&str) -> Option<Response<Body>> + Clone + Send + Sync + 'static,
    ) -> Result<Self, SampleError> {
        let directory = TempDir::new()?;
        let registry = Bootstrap::new(Layout::create(directory.path())?);
        let tls = countersign_https::server(&authority.issue(&["127.0.0.1", "registry.local"])?)?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = listener.local_addr()?.port();
        let (stop, stopped) = oneshot::channel();
        let answering = registry.clone();
        let handler = move |request: Request<Incoming>| {
            let (registry, lie) = (answering.clone(), lie(request.uri().path()));
            async move {
                match lie {
                    Some(response) => response,
                    None => registry.answer(request).await,
                }
            }
        };
        let limits = ServeLimits { drain: DRAIN, ..ServeLimits::DEFAULT };
        let end = async { _ = stopped.await };
        let serve = countersign_https::serve(listener, Some(Arc::new(tls)), limits, handler, end);
        Ok(Self { port, registry, running: Some((stop, tokio::spawn(serve))), _directory: directory })
    }

    /// Switches it off for good.
    pub async fn stop(&mut self) {
        if let Some((stop, task)) = self.running.take() {
            _ = stop.send(());
            _ = task.await;
        }
    }
}
