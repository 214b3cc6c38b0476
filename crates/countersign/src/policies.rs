//! Policies from files, with the keys of a Site.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail};
use countersign_policy::{Keys, Policy, SiteKey};
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
    Ok(Keys { site: site_keys(site, load)?, secrets: None })
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

/// The policies of these files, each with its own; a name that stands twice is a mistake.
pub(crate) fn load(files: &Files, keys: &Keys) -> Result<Vec<(PathBuf, Policy)>> {
    let mut policies: Vec<(PathBuf, Policy)> = Vec::new();
    for (path, text) in files {
        let shown = path.display();
        let text = text.as_ref().map_err(|error| anyhow!("{error}"))?;
        for document in countersign_yaml::documents(text).with_context(|| shown.to_string())? {
            let Some(policy) = countersign_policy::load(&document, keys) else {
                warn(&format!("{shown}: a document that is no ClusterPolicy or Policy is left out"));
                continue;
            };
            if policies.iter().any(|(_, other)| other.name == policy.name) {
                bail!("{shown}: policy `{}` stands twice", policy.name);
            }
            policies.push((path.clone(), policy));
        }
    }
    Ok(policies)
}

/// Tells what of these policies cannot be loaded or has no effect.
pub(crate) fn tell(policies: &[(PathBuf, Policy)]) {
    for (path, policy) in policies {
        let shown = path.display();
        for refusal in &policy.refusals {
            warn(&format!("{shown}: policy `{}`: refused: {refusal}", policy.name));
        }
        for warning in &policy.warnings {
            warn(&format!("{shown}: policy `{}`: {warning}", policy.name));
        }
    }
}
