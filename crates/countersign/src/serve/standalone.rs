//! A webhook that goes by files: changes to the Site, to what it names and to policies act within
//! seconds, and what is not good changes nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use countersign_admission::{Limits, Service};
use countersign_evidence::Store;
use countersign_https::Body;
use countersign_policy::Engine;
use countersign_site::Site;
use countersign_verifier::{SourceLoader, Verifier};
use hyper::body::Incoming;
use hyper::{Request, Response};

use super::live::Webhook;
use super::verifier;
use crate::{policies, site, sources};

/// How often files are looked at. What has changed is taken up once it has stayed the same for as
/// long: nobody goes by half a file.
const LOOK: Duration = Duration::from_secs(1);

/// The files, and the webhook of this moment.
pub(crate) struct Standalone {
    site: PathBuf,
    policies: PathBuf,
    store: Arc<dyn Store>,
    current: RwLock<Arc<Webhook>>,
}

/// All that the files say.
#[derive(Clone, PartialEq)]
struct Said {
    /// The Site and everything that it names.
    site: Vec<Result<String, String>>,
    policies: Vec<(PathBuf, Result<String, String>)>,
}

/// What was made of it.
struct Made {
    said: Said,
    site: Arc<Site>,
    load: Arc<SourceLoader>,
    verifier: Arc<Verifier>,
    /// Where each policy stands, and whether something of it is refused.
    policies: BTreeMap<String, (PathBuf, bool)>,
}

impl Standalone {
    /// Reads the files for the first time: all of them have to be good.
    pub(crate) fn new(site: &Path, policies: &Path, store: Arc<dyn Store>) -> Result<(Arc<Self>, Follow)> {
        let said = Said::read(site, policies);
        let (webhook, made) = make(site, policies, &store, said, None)?;
        let current = RwLock::new(webhook);
        let (site, policies) = (site.to_owned(), policies.to_owned());
        let this = Arc::new(Self { site, policies, store, current });
        Ok((Arc::clone(&this), Follow { this, made: Arc::new(made) }))
    }

    /// Answers as the webhook of this moment does.
    pub(crate) async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        let webhook = Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner));
        webhook.answer(request).await
    }
}

/// Follows the files.
pub(crate) struct Follow {
    this: Arc<Standalone>,
    made: Arc<Made>,
}

impl Follow {
    /// For ever.
    pub(crate) async fn run(self) {
        let Self { this, mut made } = self;
        let (mut before, mut refused) = (made.said.clone(), None);
        loop {
            tokio::time::sleep(LOOK).await;
            let reader = Arc::clone(&this);
            let read = move || Said::read(&reader.site, &reader.policies);
            let Ok(said) = tokio::task::spawn_blocking(read).await else { continue };
            let settled = said == before;
            before = said.clone();
            if !settled || said == made.said || refused.as_ref() == Some(&said) {
                continue;
            }
            // Beside those who answer; what panics is no good file either.
            let (maker, was, new) = (Arc::clone(&this), Arc::clone(&made), said.clone());
            let making = move || make(&maker.site, &maker.policies, &maker.store, new, Some(&was));
            let new = tokio::task::spawn_blocking(making).await;
            match new.map_err(anyhow::Error::from).and_then(|new| new) {
                Ok((webhook, new)) => {
                    tracing::info!("changed files are in force");
                    *this.current.write().unwrap_or_else(PoisonError::into_inner) = webhook;
                    (made, refused) = (Arc::new(new), None);
                }
                Err(error) => {
                    let error = format!("{error:#}");
                    tracing::error!(error, "changed files are not good: what was good stays in force");
                    refused = Some(said);
                }
            }
        }
    }
}

impl Said {
    fn read(site: &Path, policies: &Path) -> Self {
        let text = sources::text(site);
        // Sources are read even where the Site is not good: it may be for their sake.
        let named = text.as_ref().ok().and_then(|text| Site::parse(text).ok());
        let load = site::loader(site);
        let named = named.iter().flat_map(Site::sources).map(load).collect::<Vec<_>>();
        let mut files: Vec<(PathBuf, Result<String, String>)> = std::fs::read_dir(policies)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| policies::is_policy_file(path))
            .map(|path| (path.clone(), sources::text(&path)))
            .collect();
        files.sort_by(|a, b| a.0.cmp(&b.0));
        Self { site: std::iter::once(text).chain(named).collect(), policies: files }
    }
}

/// The webhook of what the files say; its verifier, with all that it remembers, goes on where the
/// Site says the same as before.
fn make(
    site_path: &Path,
    policies_path: &Path,
    store: &Arc<dyn Store>,
    said: Said,
    before: Option<&Made>,
) -> Result<(Arc<Webhook>, Made)> {
    let (site, load, verifier) = match before.filter(|before| before.said.site == said.site) {
        Some(Made { site, load, verifier, .. }) => (Arc::clone(site), Arc::clone(load), Arc::clone(verifier)),
        None => {
            let site = site::read(site_path)?;
            let load: Arc<SourceLoader> = Arc::new(site::loader(site_path));
            let verifier = verifier(&site, Arc::clone(&load), Arc::clone(store))?;
            (site, load, verifier)
        }
    };
    let policies = policies::in_directory(policies_path, &policies::keys(&site, &*load)?)
        .with_context(|| policies_path.display().to_string())?;
    let stand: BTreeMap<_, _> = policies
        .iter()
        .map(|(file, policy)| (policy.name.clone(), (file.clone(), !policy.refusals.is_empty())))
        .collect();
    if let Some(before) = before {
        nothing_is_lost(&before.policies, &stand)?;
    }
    let engine = Engine::new(policies.into_iter().map(|(_, policy)| policy).collect(), Arc::clone(&site));
    let webhook = Service::new(engine, Arc::clone(&verifier), Limits::DEFAULT);
    Ok((webhook, Made { said, site, load, verifier, policies: stand }))
}

/// A policy goes with its file, and what was good of it stays good: a file that was cut short or
/// that says something else now by mistake takes none away.
fn nothing_is_lost(
    before: &BTreeMap<String, (PathBuf, bool)>,
    now: &BTreeMap<String, (PathBuf, bool)>,
) -> Result<()> {
    for (name, (file, was_refused)) in before {
        match now.get(name) {
            None if file.exists() => bail!(
                "{}: policy `{name}` is not in it any more: remove the file, or move the policy to another, if that is meant",
                file.display()
            ),
            Some((file, true)) if !was_refused => {
                bail!("{}: something of policy `{name}` is refused now, and was not before", file.display())
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_goes_with_its_file_and_stays_good() {
        let directory = tempfile::tempdir().unwrap();
        let (file, other) = (directory.path().join("a.yaml"), directory.path().join("b.yaml"));
        std::fs::write(&file, "").unwrap();
        std::fs::write(&other, "").unwrap();
        let stand = |policies: &[(&str, &PathBuf, bool)]| {
            let stand =
                policies.iter().map(|(name, file, wrong)| ((*name).to_owned(), ((*file).clone(), *wrong)));
            stand.collect::<BTreeMap<_, _>>()
        };
        let before = stand(&[("one", &file, false), ("odd", &other, true)]);
        for (now, good) in [
            (stand(&[("one", &file, false), ("odd", &other, true), ("new", &other, true)]), true),
            (stand(&[("one", &other, false), ("odd", &other, false)]), true),
            // What was cut short.
            (stand(&[("odd", &other, true)]), false),
            // What cannot be loaded any more.
            (stand(&[("one", &file, true), ("odd", &other, true)]), false),
        ] {
            assert_eq!(nothing_is_lost(&before, &now).is_ok(), good, "{now:?}");
        }
        std::fs::remove_file(&file).unwrap();
        assert!(nothing_is_lost(&before, &stand(&[("odd", &other, true)])).is_ok(), "its file has gone");
    }
}
