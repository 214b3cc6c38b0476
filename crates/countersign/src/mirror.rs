//! `countersign mirror`: a registry filled from a bundle, and proven to be full.

use std::io::Write as _;

use anyhow::{Context as _, Result};
use countersign_bundle::{Filled, PushError, PushSettings, Pusher, check};
use countersign_layout::Layout;
use countersign_registry::{Class, Endpoint};

use crate::cli::{Exit, MirrorArguments, MirrorCommand};
use crate::endpoints::Reach;
use crate::progress::Bar;
use crate::serve::talk;
use crate::site::{self, warn};

pub(crate) async fn run(command: &MirrorCommand) -> Result<Exit> {
    let (MirrorCommand::Push(arguments) | MirrorCommand::Check(arguments)) = command;
    let layout = Layout::open(&arguments.bundle).context("BUNDLE")?;
    let endpoint = endpoint(arguments)?;
    let mut pushed = Exit::Good;
    if matches!(command, MirrorCommand::Push(_)) {
        let bar = Bar::new();
        let failed = Pusher::new(&layout, &endpoint, PushSettings::DEFAULT, &bar).push().await;
        bar.end();
        match failed {
            Err(error @ PushError::Sparse) => return Err(error.into()),
            Err(error) => {
                warn(&error.to_string());
                return Ok(exit_of(&error));
            }
            Ok(failed) => {
                for (name, error) in &failed {
                    warn(&format!("{name}: {error}"));
                }
                pushed = failed.iter().map(|(_, error)| exit_of(error)).max().unwrap_or(Exit::Good);
            }
        }
    }
    // What could not be pushed may be there all the same, and is not what was asked for: another
    // registry may answer to a name.
    let filled = check(&layout, &endpoint, arguments.deep).await?;
    Ok(report(&filled, &endpoint)?.max(pushed))
}

fn exit_of(error: &PushError) -> Exit {
    match error {
        PushError::Registry { error, .. } if error.class() == Class::Unreachable => Exit::Unreachable,
        _ => Exit::Negative,
    }
}

fn endpoint(arguments: &MirrorArguments) -> Result<Endpoint> {
    let reach = Reach::of(&arguments.ca, &arguments.allow_host, arguments.credentials.as_deref())?;
    match (&arguments.to, &arguments.site, &arguments.endpoint) {
        (Some(url), ..) => {
            let endpoint = reach.endpoint("registry", url).with_context(|| format!("--to {url}"))?;
            reach.warn_unused();
            Ok(endpoint)
        }
        (None, Some(path), Some(name)) => {
            let site = site::read(path)?;
            let found = site.registry.endpoints.iter().find(|endpoint| endpoint.name == *name);
            let found = found.with_context(|| format!("--endpoint: the Site has no endpoint `{name}`"))?;
            reach.of_site(found, &site::loader(path))
        }
        _ => anyhow::bail!("--to, or --site and --endpoint, say which registry it is"),
    }
}

/// Names what is missing, and what follows from it.
pub(crate) fn report(filled: &Filled, endpoint: &Endpoint) -> Result<Exit> {
    let mut out = std::io::stdout().lock();
    for missing in &filled.missing {
        let word = if missing.known { "MISSING" } else { "UNKNOWN" };
        writeln!(out, "{word}  {}  {}", missing.name, missing.what)?;
    }
    let (entries, found, lacking) = (filled.entries, filled.found, filled.missing.len());
    talk(&format!("{}: {entries} names, {found} parts read back, {lacking} missing", endpoint.url()));
    Ok(if filled.missing.is_empty() {
        Exit::Good
    } else if filled.missing.iter().all(|missing| !missing.known) {
        Exit::Unreachable
    } else {
        Exit::Negative
    })
}
