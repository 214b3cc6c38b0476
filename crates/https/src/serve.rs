//! The accept loop: handshake timeout, connection cap, graceful end.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::TlsAcceptor;

/// The body of a response.
pub type Body = BoxBody<Bytes, std::io::Error>;

/// A body that is all there.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed()
}

/// How much a server takes on.
#[derive(Clone, Copy, Debug)]
pub struct ServeLimits {
    /// Connections at a time. Default 1024.
    pub connections: usize,
    /// Time for a TLS handshake and for the head of a request. Default 10 s.
    pub handshake: Duration,
    /// How long a client may take nothing of what is sent to it. Default 60 s.
    pub stalled: Duration,
    /// How long open requests may go on after the end was asked for. Default 15 s.
    pub drain: Duration,
}

impl ServeLimits {
    /// The defaults.
    pub const DEFAULT: Self = Self {
        connections: 1024,
        handshake: Duration::from_secs(10),
        stalled: Duration::from_mins(1),
        drain: Duration::from_secs(15),
    };
}

/// Serves HTTP/1.1 on this listener, with TLS where a configuration is given, until `end`
/// completes; then lets open requests finish.
pub async fn serve<H, F>(
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    limits: ServeLimits,
    handler: H,
    end: impl Future<Output = ()>,
) where
    H: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let acceptor = tls.map(TlsAcceptor::from);
    let slots = Arc::new(Semaphore::new(limits.connections));
    let graceful = GracefulShutdown::new();
    let mut end = std::pin::pin!(end);
    loop {
        let slot = tokio::select! {
            slot = Arc::clone(&slots).acquire_owned() => match slot {
                Ok(slot) => slot,
                Err(_) => break,
            },
            () = &mut end => break,
        };
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of file descriptors, or the peer was gone already: neither ends the server.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
            () = &mut end => break,
        };
        _ = stream.set_nodelay(true);
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(limits.stalled));
        let stream = Box::pin(stream);
        let (handler, acceptor, watcher) = (handler.clone(), acceptor.clone(), graceful.watcher());
        tokio::spawn(async move {
            let _slot = slot;
            let service = service_fn(move |request| {
                let response = handler(request);
                async move { Ok::<_, Infallible>(response.await) }
            });
            let mut http = hyper::server::conn::http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(limits.handshake).half_close(false);
            let result = match acceptor {
                Some(acceptor) => {
                    let Ok(Ok(stream)) =
                        tokio::time::timeout(limits.handshake, acceptor.accept(stream)).await
                    else {
                        return;
                    };
                    watcher.watch(http.serve_connection(TokioIo::new(stream), service)).await
                }
                None => watcher.watch(http.serve_connection(TokioIo::new(stream), service)).await,
            };
            if let Err(error) = result {
                tracing::debug!(%error, "connection ended");
            }
        });
    }
    drop(listener);
    _ = tokio::time::timeout(limits.drain, graceful.shutdown()).await;
}

#[cfg(test)]
mod tests;
