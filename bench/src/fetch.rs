//! The bare fetch: what a registry is asked for, asked for by a plain client.

use std::time::Duration;

use anyhow::{Result, ensure};
use countersign_https::ClientTls;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Bytes;
use hyper::header::ACCEPT;
use hyper::{Request, StatusCode};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::time::Instant;

/// A client like the verifier's, without anything that the verifier does: the same library, TLS and
/// kept connections.
pub struct Fetch {
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
    base: String,
}

impl Fetch {
    /// A client of the registry at this port of 127.0.0.1, whose certificate this CA has signed.
    pub fn new(port: u16, ca_pem: &str) -> Result<Self> {
        let tls = ClientTls { ca_pem: vec![ca_pem.to_owned()], ..ClientTls::default() };
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(countersign_https::client(&tls)?)
            .https_only()
            .enable_http1()
            .wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Ok(Self { client, base: format!("https://127.0.0.1:{port}") })
    }

    /// GETs these one after another, whole; how long it took.
    pub async fn get_all(&self, paths: &[String]) -> Result<Duration> {
        let start = Instant::now();
        for path in paths {
            let request = Request::get(format!("{}{path}", self.base)).header(ACCEPT, "*/*");
            let response = self.client.request(request.body(Empty::new())?).await?;
            ensure!(response.status() == StatusCode::OK, "{path}: {}", response.status());
            response.into_body().collect().await?.to_bytes();
        }
        Ok(start.elapsed())
    }
}
