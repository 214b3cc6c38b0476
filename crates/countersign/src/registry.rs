//! `countersign registry serve`: the bootstrap registry.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use countersign_bootstrap::Bootstrap;
use countersign_https::{Authority, Identity, ServeLimits};
use countersign_layout::Layout;
use tokio::net::TcpListener;

use crate::cli::{Exit, RegistryServe};
use crate::serve::{asked_to_end, talk};
use crate::sources;

/// Serves until the process is asked to end.
pub(crate) async fn run(arguments: &RegistryServe) -> Result<Exit> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(tracing::Level::WARN).init();
    if arguments.http && !arguments.listen.ip().is_loopback() {
        bail!("--http is for loopback alone, and {} is not: leave it out for TLS", arguments.listen);
    }
    let layout = Layout::open(&arguments.bundle).context("BUNDLE")?;
    let images = layout.index()?.manifests.len();
    let tls = if arguments.http {
        None
    } else {
        Some(Arc::new(countersign_https::server(&identity(arguments)?).context("the certificate")?))
    };
    let listener = TcpListener::bind(arguments.listen)
        .await
        .with_context(|| format!("cannot listen on {}", arguments.listen))?;
    let scheme = if arguments.http { "http" } else { "https" };
    talk(&format!("serving {images} names on {scheme}://{}", listener.local_addr()?));
    let registry = Bootstrap::new(layout);
    let handler = move |request| registry.clone().answer(request);
    countersign_https::serve(listener, tls, ServeLimits::DEFAULT, handler, asked_to_end()?).await;
    Ok(Exit::Good)
}

fn identity(arguments: &RegistryServe) -> Result<Identity> {
    let read = |path: &Path| sources::text(path).map_err(anyhow::Error::msg);
    if let (Some(chain), Some(key)) = (&arguments.tls_cert, &arguments.tls_key) {
        return Ok(Identity { chain_pem: read(chain)?, key_pem: read(key)? });
    }
    let authority = match (&arguments.ca_cert, &arguments.ca_key) {
        (Some(certificate), Some(key)) => {
            Authority::from_pem(&read(certificate)?, &read(key)?).context("--ca-cert and --ca-key")?
        }
        _ if arguments.ca_out.is_none() => bail!(
            "nobody could check the certificate that is made: --ca-out says where to write its CA, \
             --ca-cert and --ca-key name a CA that nodes know"
        ),
        _ => Authority::generate("countersign bootstrap registry")?,
    };
    if let Some(path) = &arguments.ca_out {
        std::fs::write(path, authority.pem())
            .with_context(|| format!("cannot write --ca-out {}", path.display()))?;
    }
    let mut names: Vec<String> = arguments.name.clone();
    names.push(arguments.listen.ip().to_string());
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    Ok(authority.issue(&names)?)
}
