//! The null handler: the webhook's accept loop and TLS, a parser, and "admitted".
//!
//! What it takes is what any webhook in this program would take. Takes the two arguments of
//! `countersign serve` that the load generator gives: `--listen ADDRESS:PORT --ca-out FILE`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use countersign_https::{Authority, Body, ServeLimits, full};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Request, Response};
use serde_json::{Value, json};
use tokio::net::TcpListener;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> Result<()> {
    let (mut listen, mut ca_out) = (None, None);
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments.next().with_context(|| format!("{name} needs a value"))?;
        match name.as_str() {
            "--listen" => listen = Some(value.parse::<SocketAddr>()?),
            "--ca-out" => ca_out = Some(PathBuf::from(value)),
            _ => anyhow::bail!("usage: null --listen ADDRESS:PORT --ca-out FILE"),
        }
    }
    let authority = Authority::generate("null")?;
    std::fs::write(ca_out.context("--ca-out is needed")?, authority.pem())?;
    let tls = Arc::new(countersign_https::server(&authority.issue(&["127.0.0.1"])?)?);
    let listener = TcpListener::bind(listen.context("--listen is needed")?).await?;
    let end = std::future::pending();
    countersign_https::serve(listener, Some(tls), ServeLimits::DEFAULT, answer, end).await;
    Ok(())
}

async fn answer(request: Request<Incoming>) -> Response<Body> {
    let body = match request.into_body().collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => return Response::new(full("")),
    };
    let review: Value = serde_json::from_slice(&body).unwrap_or_default();
    let answer = json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "response": { "uid": review["request"]["uid"], "allowed": true },
    });
    let mut response = Response::new(full(answer.to_string()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
