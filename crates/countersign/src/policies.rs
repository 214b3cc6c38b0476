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

/// Whether a file of a directory of policies is one of them.
pub(crate) fn is_policy_file(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml")
}

/// The policies of a directory (`*.yaml`, `*.yml`) and their files, in the order of the names of these.
pub(crate) fn in_directory(directory: &Path, keys: &Keys) -> Result<Vec<(PathBuf, Policy)>> {
    let entries = std::fs::read_dir(directory);
    let entries = entries.with_context(|| format!("cannot read --policies {}", directory.display()))?;
    let entries: std::io::Result<Vec<_>> = entries.collect();
    let entries = entries.with_context(|| format!("cannot read --policies {}", directory.display()))?;
    let mut paths: Vec<_> = entries.into_iter().map(|entry| entry.path()).collect();
    paths.retain(|path| is_policy_file(path));
    paths.sort();
    let policies = in_files(&paths, keys)?;
    if policies.is_empty() {
        bail!("there is no policy in {}", directory.display());
    }
    Ok(policies)
}

/// The policies of these files, each with its own. What cannot be loaded is told; a name that stands twice is a mistake.
pub(crate) fn in_files(paths: &[PathBuf], keys: &Keys) -> Result<Vec<(PathBuf, Policy)>> {
    let mut policies: Vec<(PathBuf, Policy)> = Vec::new();
    for path in paths {
        let shown = path.display();
        let text = sources::text(path).map_err(anyhow::Error::msg)?;
        for document in countersign_yaml::documents(&text).with_context(|| shown.to_string())? {
            let Some(policy) = countersign_policy::load(&document, keys) else {
                warn(&format!("{shown}: a document that is no ClusterPolicy or Policy is left out"));
                continue;
            };
            if policies.iter().any(|(_, other)| other.name == policy.name) {
                bail!("{shown}: policy `{}` stands twice", policy.name);
            }
            for refusal in &policy.refusals {
                warn(&format!("{shown}: policy `{}`: refused: {refusal}", policy.name));
            }
            for warning in &policy.warnings {
                warn(&format!("{shown}: policy `{}`: {warning}", policy.name));
            }
            policies.push((path.clone(), policy));
        }
    }
    Ok(policies)
}
