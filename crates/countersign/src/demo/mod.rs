//! `countersign demo`: the whole decision on one machine, with nothing installed.
//!
//! Two TLS registries, keys and signatures made on the spot, the real webhook server with the
//! shipped policies, and real AdmissionReviews over TLS. Every line shown comes out of the
//! server's answer, and the command fails if one is not what it should be.

mod log;
mod table;
mod webhook;

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use countersign_https::{Authority, Body, full};
use countersign_sample::{SampleRegistry, Shape};
use countersign_signature::sign::{Scheme, Signer};
use hyper::Response;
use hyper::header::{CONTENT_TYPE, HeaderValue};

use crate::cli::Exit;
use log::Log;
use table::Table;
use webhook::Webhook;

/// The repository whose manifests the bootstrap registry swaps.
const SWAPPED: &str = "quay.io/acme/swapped";

/// The one lie: another manifest under a digest that was asked for.
fn swap(path: &str) -> Option<Response<Body>> {
    path.contains(&format!("{SWAPPED}/manifests/sha256:")).then(|| {
        let media_type = "application/vnd.oci.image.manifest.v1+json";
        let other = format!(r#"{{"schemaVersion":2,"mediaType":"{media_type}","layers":[]}}"#);
        let mut response = Response::new(full(other));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
        response
    })
}

/// Runs the demonstration.
pub(crate) async fn run() -> Result<Exit> {
    let log = Log::start();
    let authority = Authority::generate("demo")?;
    let (rsa, p256) = (Signer::generate(Scheme::Rsa2048)?, Signer::generate(Scheme::EcdsaP256)?);
    let stranger = Signer::generate(Scheme::EcdsaP256)?;
    let mut bootstrap = SampleRegistry::start(&authority, swap).await?;
    let mut cluster = SampleRegistry::start(&authority, |_| None).await?;
    for registry in [&bootstrap, &cluster] {
        registry.push_signed("quay.io/acme/rsa:1", "rsa", &rsa, Shape::Tag)?;
        registry.push_signed("quay.io/acme/p256:1", "p256", &p256, Shape::Bundle)?;
        registry.push_signed("quay.io/acme/web:2", "web", &rsa, Shape::Bundle)?;
        registry.push_signed("quay.io/acme/db:3", "db", &p256, Shape::Tag)?;
        registry.push("quay.io/acme/unsigned:1", "unsigned")?;
        registry.push_signed("quay.io/acme/stranger:1", "stranger", &stranger, Shape::Bundle)?;
    }
    let swapped = bootstrap.push_signed(&format!("{SWAPPED}:1"), "swapped", &p256, Shape::Tag)?;
    let keys = format!("{}{}", rsa.public_pem(), p256.public_pem());
    let ports = [bootstrap.port, cluster.port];
    let enforce = Webhook::start(&authority, &keys, ports, "enforce").await?;
    let audit = Webhook::start(&authority, &keys, ports, "audit").await?;

    let mut table = Table::start()?;
    let first = enforce.create("registry.local/quay.io/acme/rsa:1").await?;
    table.admitted("a signed image (RSA, `.sig`)", &first, "registry.local/quay.io/acme/rsa:1@sha256:")?;
    let answer = enforce.create("registry.local/quay.io/acme/p256:1").await?;
    table.admitted("another (P-256, bundle)", &answer, "registry.local/quay.io/acme/p256:1@sha256:")?;
    let answer = enforce.create("quay.io/acme/web:2").await?;
    table.admitted("an upstream name: rewritten", &answer, "registry.local/quay.io/acme/web:2@sha256:")?;
    let unsigned = enforce.create("quay.io/acme/unsigned:1").await?;
    table.denied("an unsigned image", &unsigned, "Unsigned")?;
    let answer = enforce.create("quay.io/acme/stranger:1").await?;
    table.denied("an image signed by another key", &answer, "Rejected")?;
    let answer = enforce.create(&format!("{SWAPPED}@{swapped}")).await?;
    table.denied("a manifest that the registry swaps", &answer, "content-mismatch")?;

    for registry in [&bootstrap, &cluster] {
        registry.push("quay.io/acme/rsa:1", "something else")?;
    }
    let pinned = first.image.clone().context("the first pod was stored with an image")?;
    let answer = enforce.validate(&pinned).await?;
    table.admitted("its tag moved after the check: the pin holds", &answer, &pinned)?;
    tokio::time::sleep(webhook::FRESHNESS).await;
    let answer = enforce.create("quay.io/acme/rsa:1").await?;
    table.denied("the moved tag itself, asked anew", &answer, "Unsigned")?;

    let answer = audit.create("quay.io/acme/unsigned:1").await?;
    table.admitted("an unsigned image, in Audit", &answer, "registry.local/quay.io/acme/unsigned:1")?;
    let report = log.reported("acme/unsigned").await.context("the decision log does not report it")?;

    bootstrap.stop().await;
    let answer = enforce.create("quay.io/acme/db:3").await?;
    table.admitted(
        "bootstrap registry off: the cluster's serves",
        &answer,
        "registry.local/quay.io/acme/db:3@sha256:",
    )?;
    cluster.stop().await;
    tokio::time::sleep(webhook::FRESHNESS).await;
    let stale = enforce.create("quay.io/acme/db:3").await?;
    ensure!(stale.warnings.contains("last confirmed"), "it is not marked as stale: {stale:#?}");
    table.admitted("both off, verified before: stale", &stale, "registry.local/quay.io/acme/db:3@sha256:")?;
    let answer = enforce.create("quay.io/acme/unknown:1").await?;
    ensure!(answer.time < Duration::from_secs(5), "the deadline was missed: {answer:#?}");
    table.denied("both off, unknown", &answer, "Undecided")?;

    table.more("The denial of the unsigned image, as its user sees it", &unsigned.message)?;
    table.more("The decision-log line that reports it in Audit", &report.to_string())?;
    table.more("The warning about the stale one", &stale.warnings)?;
    Ok(Exit::Good)
}
