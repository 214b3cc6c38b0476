//! A webhook that goes by files: changes to the Site, to what it names and to policies act within
//! seconds, and what is not good changes nothing.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use anyhow::{Result, anyhow, bail, ensure};
use countersign_admission::{Limits, Service};
use countersign_evidence::Store;
use countersign_https::Body;
use countersign_policy::{Engine, Policy};
use countersign_site::Site;
use countersign_verifier::{SourceLoader, Verifier};
use hyper::body::Incoming;
use hyper::{Request, Response};

use super::live::Webhook;
use super::verifier;
use crate::policies::{self, Files, Loaded};
use crate::{site, sources};

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
    policies: Result<Files, String>,
}

/// What is in force.
struct Made {
    /// What it was made of.
    said: Said,
    site: Arc<Site>,
    load: Arc<SourceLoader>,
    verifier: Arc<Verifier>,
}

impl Standalone {
    /// Reads the files for the first time: all of them have to be good.
    pub(crate) fn new(site: &Path, policies: &Path, store: Arc<dyn Store>) -> Result<(Arc<Self>, Follow)> {
        let said = Said::read(site, policies);
        let made = Made::of(site, said.site, &store)?;
        let stand = made.policies(&said.policies)?;
        stand.tell();
        let made = Made { said: Said { policies: said.policies, ..made.said }, ..made };
        let webhook = made.webhook(stand);
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
        // What was looked at last, and what was taken up or told last.
        let (mut before, mut seen) = (made.said.clone(), made.said.clone());
        loop {
            tokio::time::sleep(LOOK).await;
            let reader = Arc::clone(&this);
            let read = move || Said::read(&reader.site, &reader.policies);
            let Ok(said) = tokio::task::spawn_blocking(read).await else { continue };
            let settled = said == before;
            before = said.clone();
            if !settled || said == seen {
                continue;
            }
            seen = said.clone();
            // Beside those who answer; what panics is no good file either.
            let (maker, was) = (Arc::clone(&this), Arc::clone(&made));
            let made_anew =
                tokio::task::spawn_blocking(move || was.anew(said, &maker.site, &maker.store)).await;
            match made_anew.map_err(anyhow::Error::from).and_then(|made| made) {
                Ok((webhook, new, wrong)) => {
                    for error in &wrong {
                        let error = format!("{error:#}");
                        tracing::error!(error, "changed files are not good: what was good stays in force");
                    }
                    if new.said != made.said {
                        tracing::info!("changed files are in force");
                    }
                    *this.current.write().unwrap_or_else(PoisonError::into_inner) = webhook;
                    made = Arc::new(new);
                }
                Err(error) => {
                    let error = format!("{error:#}");
                    tracing::error!(error, "changed files are not good: what was good stays in force");
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
        let policies = policies::in_directory(policies).map(|paths| policies::of_files(&paths));
        let policies = policies.map_err(|error| format!("cannot read --policies: {error}"));
        Self { site: std::iter::once(text).chain(named).collect(), policies }
    }
}

impl Made {
    /// What a Site says, without policies.
    fn of(path: &Path, said: Vec<Result<String, String>>, store: &Arc<dyn Store>) -> Result<Self> {
        let site = site::read(path)?;
        let load: Arc<SourceLoader> = Arc::new(site::loader(path));
        let verifier = verifier(&site, Arc::clone(&load), Arc::clone(store))?;
        let made = Self { said: Said { site: said, policies: Ok(Files::new()) }, site, load, verifier };
        policies::keys(&made.site, &*made.load)?;
        Ok(made)
    }

    /// The policies of these files, by the keys of this Site.
    fn policies(&self, said: &Result<Files, String>) -> Result<Loaded> {
        let files = said.as_ref().map_err(|error| anyhow!("{error}"))?;
        let loaded = policies::load(files, &policies::keys(&self.site, &*self.load)?)?;
        ensure!(!loaded.policies.is_empty(), "there is no policy in the directory of --policies");
        Ok(loaded)
    }

    fn webhook(&self, loaded: Loaded) -> Arc<Webhook> {
        let (policies, exceptions) = loaded.apart();
        let engine = Engine::new(policies, Arc::clone(&self.site)).with_exceptions(exceptions);
        Service::new(engine, Arc::clone(&self.verifier), Limits::DEFAULT)
    }

    /// What the files say now, and what of it is not good. The Site and the policies are taken up apart:
    /// what is wrong with one keeps back nothing of the other. Where the Site says the same as before, its
    /// verifier, with all that it remembers, goes on; the last good policies go by the keys of the Site
    /// that is in force, so that a key that is gone is gone.
    fn anew(
        &self,
        said: Said,
        path: &Path,
        store: &Arc<dyn Store>,
    ) -> Result<(Arc<Webhook>, Self, Vec<anyhow::Error>)> {
        let mut wrong = Vec::new();
        let same = || Self {
            said: self.said.clone(),
            site: Arc::clone(&self.site),
            load: Arc::clone(&self.load),
            verifier: Arc::clone(&self.verifier),
        };
        let mut made = if said.site == self.said.site {
            same()
        } else {
            Self::of(path, said.site, store).unwrap_or_else(|error| {
                wrong.push(error);
                same()
            })
        };
        let last = made.policies(&self.said.policies)?;
        let new = if said.policies == self.said.policies {
            None
        } else {
            let new = made.policies(&said.policies).and_then(|new| {
                nothing_is_lost(&last.policies, &new.policies)?;
                Ok(new)
            });
            new.map_err(|error| wrong.push(error)).ok()
        };
        made.said.policies = if new.is_some() { said.policies } else { self.said.policies.clone() };
        let stand = new.unwrap_or(last);
        stand.tell();
        Ok((made.webhook(stand), made, wrong))
    }
}

/// A policy goes with its file, and one that could be loaded stays so: a file that was emptied or
/// broken by mistake takes none away. One that says something else is a change.
fn nothing_is_lost(before: &[(PathBuf, Policy)], now: &[(PathBuf, Policy)]) -> Result<()> {
    for (file, policy) in before {
        let name = &policy.name;
        match now.iter().find(|(_, other)| other.name == *name) {
            None if file.exists() => bail!(
                "{}: policy `{name}` is not in it any more: remove the file, or move the policy to another, if that is meant",
                file.display()
            ),
            Some((file, other)) if policy.refusals.is_empty() && !other.refusals.is_empty() => {
                bail!("{}: policy `{name}`: refused: {}", file.display(), other.refusals[0])
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use countersign_signature::sign::{Scheme, Signer};

    const SITE: &str = "apiVersion: countersign.dev/v1alpha1\nkind: Site\nspec:\n  registry: { name: registry.local, endpoints: [{ name: a, url: 'http://127.0.0.1:5000' }] }\n  trust: { keys: { KEYS } }\n";

    fn policy(name: &str, more: &str) -> String {
        format!(
            "apiVersion: kyverno.io/v1\nkind: ClusterPolicy\nmetadata: {{ name: {name} }}\nspec:\n  validationFailureAction: Enforce\n  rules:\n    - name: r\n      match: {{ any: [{{ resources: {{ kinds: [Pod] }} }}] }}\n      verifyImages: [{{ imageReferences: ['*'], attestors: [{{ entries: [{{ keys: {{ publicKeys: 'site://vendor' }} }}] }}] {more} }}]\n"
        )
    }

    #[test]
    fn what_is_good_is_taken_up_and_what_is_not_takes_nothing_away() {
        let directory = tempfile::tempdir().unwrap();
        let (site, policies) = (directory.path().join("site.yaml"), directory.path().join("policies"));
        std::fs::create_dir(&policies).unwrap();
        let (one, two) = (policies.join("one.yaml"), policies.join("two.yaml"));
        let key = |name: &str| {
            let signer = Signer::generate(Scheme::EcdsaP256).unwrap().public_pem();
            std::fs::write(directory.path().join(format!("{name}.pub")), signer).unwrap();
            format!("{name}: {{ file: {name}.pub }}")
        };
        let (vendor, other) = (key("vendor"), key("other"));
        let of_keys = |keys: &str| SITE.replace("KEYS", keys);
        let both = of_keys(&format!("{vendor}, {other}"));
        for (path, text) in [(&site, &both), (&one, &policy("one", "")), (&two, &policy("two", ""))] {
            std::fs::write(path, text).unwrap();
        }
        let store: Arc<dyn Store> = Arc::new(countersign_evidence::Memory::default());
        let (_, follow) = Standalone::new(&site, &policies, Arc::clone(&store)).unwrap();
        let mut made = follow.made;
        // What is in force after a change: keys of the Site, policies, what of these is refused; and
        // whether something was not good.
        let mut after = || {
            let (_, new, wrong) = made.anew(Said::read(&site, &policies), &site, &store).unwrap();
            made = Arc::new(new);
            let stand = made.policies(&made.said.policies).unwrap();
            let stand = stand.policies;
            let refused = stand.iter().filter(|(_, policy)| !policy.refusals.is_empty()).count();
            (made.site.trust.keys.len(), stand.len(), refused, !wrong.is_empty())
        };
        assert_eq!(after(), (2, 2, 0, false));
        for broken in ["", "{", "# nothing", &policy("one", ", attestations: [{}]"), &policy("renamed", "")] {
            std::fs::write(&one, broken).unwrap();
            assert_eq!(after(), (2, 2, 0, true), "{broken}");
        }
        // A key that is gone is gone, whatever is wrong with policies, and although they name it.
        std::fs::write(&site, of_keys(&other)).unwrap();
        assert_eq!(after(), (1, 2, 2, true));
        std::fs::write(&one, policy("one", "")).unwrap();
        assert_eq!(after(), (1, 2, 2, false));
        // A Site that is no good keeps no policy back.
        std::fs::write(&site, "{").unwrap();
        std::fs::remove_file(&two).unwrap();
        assert_eq!(after(), (1, 1, 1, true));
        std::fs::write(&site, &both).unwrap();
        assert_eq!(after(), (2, 1, 0, false));
    }
}
