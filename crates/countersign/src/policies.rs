//! Policies from files, with the keys of a Site.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail};
use countersign_policy::{Exception, Keys, Policy, SiteKey};
use countersign_site::{Key, Site};
use countersign_verifier::SourceLoader;

use crate::site::warn;
use crate::sources;

/// The Site's keys for images by name: policies refer to them. Those that seal bundles
/// (`trust.bundleKeys`) sign no image by that.
pub(crate) fn site_keys(site: &Site, load: &SourceLoader) -> Result<BTreeMap<String, SiteKey>> {
    let mut keys = all_keys(site, load)?;
    keys.retain(|name, _| !site.trust.bundle_keys.contains(name));
    Ok(keys)
}

/// The keys that policies may name where there is no cluster.
pub(crate) fn keys(site: &Site, load: &SourceLoader) -> Result<Keys> {
    Ok(Keys { site: site_keys(site, load)?, ..Keys::default() })
}

/// Every key of the Site.
pub(crate) fn all_keys(site: &Site, load: &SourceLoader) -> Result<BTreeMap<String, SiteKey>> {
    let read = |(name, key): (&String, &Key)| -> Result<(String, SiteKey)> {
        let pem = load(&key.source).map_err(|why| anyhow!("spec.trust.keys.{name}: {why}"))?;
        Ok((name.clone(), SiteKey { pem, period: key.period }))
    };
    site.trust.keys.iter().map(read).collect()
}

/// Files and what they say.
pub(crate) type Files = Vec<(PathBuf, Result<String, String>)>;

/// The policy files of a directory (`*.yaml`, `*.yml`), in the order of their names.
pub(crate) fn in_directory(directory: &Path) -> std::io::Result<Vec<PathBuf>> {
    let paths = std::fs::read_dir(directory)?.map(|entry| entry.map(|entry| entry.path()));
    let mut paths = paths.collect::<std::io::Result<Vec<PathBuf>>>()?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml"));
    paths.sort();
    Ok(paths)
}

/// What these files say.
pub(crate) fn of_files(paths: &[PathBuf]) -> Files {
    paths.iter().map(|path| (path.clone(), sources::text(path))).collect()
}

/// What files hold, each with its own.
#[derive(Default)]
pub(crate) struct Loaded {
    pub(crate) policies: Vec<(PathBuf, Policy)>,
    pub(crate) exceptions: Vec<(PathBuf, Exception)>,
}

impl Loaded {
    /// Tells what of it cannot be loaded or has no effect.
    pub(crate) fn tell(&self) {
        let policies = self.policies.iter();
        let policies =
            policies.map(|(path, policy)| (path, "policy", &policy.name, &policy.refusals, &policy.warnings));
        let exceptions = self.exceptions.iter().map(|(path, exception)| {
            (path, "exception", &exception.name, &exception.refusals, &exception.warnings)
        });
        for (path, what, name, refusals, warnings) in policies.chain(exceptions) {
            let shown = path.display();
            for refusal in refusals {
                warn(&format!("{shown}: {what} `{name}`: refused: {refusal}"));
            }
            for warning in warnings {
                warn(&format!("{shown}: {what} `{name}`: {warning}"));
            }
        }
    }

    /// Only these.
    pub(crate) fn apart(self) -> (Vec<Policy>, Vec<Exception>) {
        let policies = self.policies.into_iter().map(|(_, policy)| policy).collect();
        (policies, self.exceptions.into_iter().map(|(_, exception)| exception).collect())
    }
}

/// The policies and exceptions of these files; a name that stands twice is a mistake.
pub(crate) fn load(files: &Files, keys: &Keys) -> Result<Loaded> {
    let Loaded { mut policies, mut exceptions } = Loaded::default();
    for (path, text) in files {
        let shown = path.display();
        let text = text.as_ref().map_err(|error| anyhow!("{error}"))?;
        for document in countersign_yaml::documents(text).with_context(|| shown.to_string())? {
            if let Some(exception) = Exception::load(&document) {
                if exceptions.iter().any(|(_, other)| other.name == exception.name) {
                    bail!("{shown}: exception `{}` stands twice", exception.name);
                }
                exceptions.push((path.clone(), exception));
                continue;
            }
            let Some(policy) = countersign_policy::load(&document, keys) else {
                warn(&format!(
                    "{shown}: a document that is no ClusterPolicy, Policy or PolicyException is left out"
                ));
                continue;
            };
            if policies.iter().any(|(_, other)| other.name == policy.name) {
                bail!("{shown}: policy `{}` stands twice", policy.name);
            }
            policies.push((path.clone(), policy));
        }
    }
    Ok(Loaded { policies, exceptions })
}
