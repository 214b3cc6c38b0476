//! `countersign serve`: the admission webhooks.

mod kept;
mod leader;
mod live;
mod lookups;
mod maker;
mod metrics;
mod pull;
pub(crate) mod replica;
mod standalone;
mod trusted;

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use countersign_admission::{Limits, Service};
use countersign_clock::SystemClock;
use countersign_evidence::{Directory, Memory, Store};
use countersign_https::{Authority, Identity, ServeLimits};
use countersign_policy::{Engine, Policy};
use countersign_site::Site;
use countersign_verifier::{Rules, SourceLoader, Verifier};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use self::standalone::Standalone;
use crate::cli::{Exit, ServeArguments};
use crate::{site, sources};

/// Serves until the process is asked to end.
pub(crate) async fn run(arguments: &ServeArguments) -> Result<Exit> {
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_current_span(false)
        .with_writer(std::io::stdout)
        .init();
    let listener = async || {
        let listener = TcpListener::bind(arguments.listen).await;
        listener.with_context(|| format!("cannot listen on {}", arguments.listen))
    };
    let (Some(site_path), Some(directory)) = (&arguments.site, &arguments.policies) else {
        let client = crate::crds::client(&arguments.cluster).await?;
        return replica::serve(&arguments.replica, client, listener().await?).await;
    };
    let store: Arc<dyn Store> = match &arguments.evidence {
        Some(path) => Arc::new(Directory::open(path).context("--evidence")?),
        None => Arc::new(Memory::default()),
    };
    let tls = Arc::new(countersign_https::server(&identity(arguments)?).context("the serving certificate")?);
    let (standalone, follow) = Standalone::new(site_path, directory, store)?;
    let listener = listener().await?;
    talk(&format!("serving {} on https://{}", directory.display(), listener.local_addr()?));
    let handler = move |request| Arc::clone(&standalone).answer(request);
    let asked = asked_to_end()?;
    let end = async {
        tokio::select! {
            () = asked => {}
            () = follow.run() => {}
        }
    };
    countersign_https::serve(listener, Some(tls), ServeLimits::DEFAULT, handler, end).await;
    Ok(Exit::Good)
}

/// Completes when the process is asked to end.
pub(crate) fn asked_to_end() -> Result<impl Future<Output = ()>> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// The webhook of a Site and its policies.
pub(crate) fn webhook(
    site: &Arc<Site>,
    policies: Vec<Policy>,
    load: Arc<SourceLoader>,
    store: Arc<dyn Store>,
) -> Result<Arc<Service<Arc<Verifier>>>> {
    let verifier = verifier(site, load, store)?;
    Ok(Service::new(Engine::new(policies, Arc::clone(site)), verifier, Limits::DEFAULT))
}

/// Who verifies by a Site.
fn verifier(site: &Arc<Site>, load: Arc<SourceLoader>, store: Arc<dyn Store>) -> Result<Arc<Verifier>> {
    let (rules, clock) = (Rules::Site(Arc::clone(site)), Arc::new(SystemClock::default()));
    let verifier = Verifier::new(rules, site::settings(site), load, store, clock);
    verifier.prepare(&site.registry.name).context("the Site's endpoints")?;
    Ok(verifier)
}

/// The certificate given, or one made for the address that is listened on.
fn identity(arguments: &ServeArguments) -> Result<Identity> {
    if let (Some(chain), Some(key)) = (&arguments.tls_cert, &arguments.tls_key) {
        let read = |path: &Path| sources::text(path).map_err(anyhow::Error::msg);
        return Ok(Identity { chain_pem: read(chain)?, key_pem: read(key)? });
    }
    let authority = Authority::generate("countersign")?;
    let address = arguments.listen.ip().to_string();
    let mut names: Vec<&str> = arguments.name.iter().map(String::as_str).collect();
    names.extend([address.as_str(), "localhost"]);
    if let Some(path) = &arguments.ca_out {
        std::fs::write(path, authority.pem())
            .with_context(|| format!("cannot write --ca-out {}", path.display()))?;
    }
    Ok(authority.issue(&names)?)
}

#[expect(clippy::print_stderr, reason = "stderr is where a command line talks")]
pub(crate) fn talk(message: &str) {
    eprintln!("{message}");
}
