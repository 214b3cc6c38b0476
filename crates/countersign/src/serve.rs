//! `countersign serve`: the admission webhooks.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use countersign_admission::{Limits, Service};
use countersign_clock::SystemClock;
use countersign_evidence::{Directory, Memory, Store};
use countersign_https::{Authority, Identity, ServeLimits};
use countersign_policy::{Engine, Policy};
use countersign_verifier::{Rules, Verifier};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::{Exit, ServeArguments};
use crate::site::warn;
use crate::{site, sources};

/// Serves until the process is asked to end.
pub(crate) async fn run(arguments: &ServeArguments) -> Result<Exit> {
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_current_span(false)
        .with_writer(std::io::stdout)
        .init();
    let site = site::read(&arguments.site)?;
    let load = Arc::new(site::loader(&arguments.site));
    let mut keys = BTreeMap::new();
    for (name, source) in &site.trust.keys {
        let text = load(source).map_err(|why| anyhow::anyhow!("spec.trust.keys.{name}: {why}"))?;
        keys.insert(name.clone(), text);
    }
    let policies = read_policies(&arguments.policies, &keys)?;
    let count = policies.len();
    let rules = Rules::Site(Arc::clone(&site));
    let clock = Arc::new(SystemClock::default());
    let store: Arc<dyn Store> = match &arguments.evidence {
        Some(path) => Arc::new(Directory::open(path).context("--evidence")?),
        None => Arc::new(Memory::default()),
    };
    let verifier = Verifier::new(rules, site::settings(&site), load, store, clock);
    let bootstrap = site.bootstrap_namespaces.iter().cloned().collect();
    let service =
        Service::new(Engine::new(policies, Arc::clone(&site)), bootstrap, verifier, Limits::DEFAULT);

    let tls = Arc::new(countersign_https::server(&identity(arguments)?).context("the serving certificate")?);
    let listener = TcpListener::bind(arguments.listen)
        .await
        .with_context(|| format!("cannot listen on {}", arguments.listen))?;
    talk(&format!("serving {count} policies on https://{}", listener.local_addr()?));
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let end = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let handler = move |request| Arc::clone(&service).answer(request);
    countersign_https::serve(listener, Some(tls), ServeLimits::DEFAULT, handler, end).await;
    Ok(Exit::Good)
}

/// The policies of a directory. What cannot be loaded is told; a directory without one is a mistake.
fn read_policies(directory: &Path, keys: &BTreeMap<String, String>) -> Result<Vec<Policy>> {
    let entries = std::fs::read_dir(directory);
    let entries = entries.with_context(|| format!("cannot read --policies {}", directory.display()))?;
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml"));
    paths.sort();
    let mut policies: Vec<Policy> = Vec::new();
    for path in paths {
        let text = sources::text(&path).map_err(anyhow::Error::msg)?;
        let documents = countersign_yaml::documents(&text).with_context(|| path.display().to_string())?;
        for document in documents {
            let Some(policy) = countersign_policy::load(&document, keys) else {
                warn(&format!(
                    "{}: a document that is no ClusterPolicy or Policy is left out",
                    path.display()
                ));
                continue;
            };
            if policies.iter().any(|other| other.name == policy.name) {
                bail!("{}: policy `{}` stands twice", path.display(), policy.name);
            }
            for refusal in &policy.refusals {
                warn(&format!("{}: policy `{}`: refused: {refusal}", path.display(), policy.name));
            }
            for warning in &policy.warnings {
                warn(&format!("{}: policy `{}`: {warning}", path.display(), policy.name));
            }
            policies.push(policy);
        }
    }
    if policies.is_empty() {
        bail!("there is no policy in {}", directory.display());
    }
    Ok(policies)
}

/// The certificate given, or one made for the address that is listened on.
fn identity(arguments: &ServeArguments) -> Result<Identity> {
    if let (Some(chain), Some(key)) = (&arguments.tls_cert, &arguments.tls_key) {
        let read = |path: &Path| sources::text(path).map_err(anyhow::Error::msg);
        return Ok(Identity { chain_pem: read(chain)?, key_pem: read(key)? });
    }
    let authority = Authority::generate("countersign")?;
    let address = arguments.listen.ip().to_string();
    if let Some(path) = &arguments.ca_out {
        std::fs::write(path, authority.pem())
            .with_context(|| format!("cannot write --ca-out {}", path.display()))?;
    }
    Ok(authority.issue(&[&address, "localhost"])?)
}

#[expect(clippy::print_stderr, reason = "stderr is where a command line talks")]
fn talk(message: &str) {
    eprintln!("{message}");
}
