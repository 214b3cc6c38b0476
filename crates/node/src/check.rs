//! What is wrong with a node.

use std::collections::BTreeSet;
use std::fs;

use countersign_mirrors::{Finding, Release, RuntimeConfig, Severity, Tree};
use countersign_reference::Reference;
use countersign_site::{RegistryUrl, Site};

use crate::{NodeError, Paths};

/// Reads the runtime's configuration and rules, and says what is wrong with them: for a node
/// with this release, and for this Site where there is one. Worst first.
///
/// # Errors
///
/// The node's files cannot be read.
pub fn check(paths: &Paths, release: Release, site: Option<&Site>) -> Result<Vec<Finding>, NodeError> {
    let config = RuntimeConfig::read(release, &paths.config_files()?)?;
    let mut findings = config.findings();
    let programs = paths.on_disk(&config.verifiers().directory);
    findings.extend(config.findings_of_verifiers(fs::read_dir(programs).ok().map(Iterator::count)));
    // Of a list, the first directory is what most readers take.
    let root = config.config_path().and_then(|path| path.split(':').next()).map(ToOwned::to_owned);
    let tree = root.as_deref().map(|root| paths.tree(root)).transpose()?;
    if let Some(tree) = &tree {
        findings.extend(tree.findings(release));
    }
    if let Some(site) = site {
        let empty = Tree::default();
        let tree = tree.as_ref().unwrap_or(&empty);
        findings.extend(of_rules(site, tree));
        findings.extend(of_config(site, &config, &paths.config));
    }
    if let Some(image) = config.sandbox_image() {
        findings.extend(tree.as_ref().and_then(|tree| of_sandbox(image, tree, &paths.config)));
    }
    findings.sort_by(|a, b| {
        b.severity.cmp(&a.severity).then_with(|| (&a.at, &a.message).cmp(&(&b.at, &b.message)))
    });
    findings.dedup();
    Ok(findings)
}

fn finding(severity: Severity, at: impl Into<String>, message: String) -> Finding {
    Finding { severity, at: at.into(), message, until: None }
}

/// Rules of the past, and rules that lead elsewhere than the Site says.
fn of_rules(site: &Site, tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let wanted: Vec<&RegistryUrl> = site.registry.endpoints.iter().map(|endpoint| &endpoint.url).collect();
    let shown =
        |urls: &[&RegistryUrl]| urls.iter().map(|url| url.origin()).collect::<Vec<_>>().join(", then ");
    let logical: BTreeSet<String> = [site.registry.name.clone()].into();
    let hosts = tree.hosts();
    for host in hosts.iter().chain(logical.difference(&hosts)) {
        let at = format!("{}/{host}", tree.root);
        if site.obsolete.contains(host) {
            let message = "a rule of the past (spec.obsolete): `node apply` removes it".to_owned();
            findings.push(finding(Severity::Warning, at, message));
            continue;
        }
        let image = Reference::from_parts(host, "x", None, None);
        let Some(plan) = image.ok().and_then(|image| tree.plan(&image).ok()) else { continue };
        let found: Vec<&RegistryUrl> = plan.mirrors.iter().map(|mirror| &mirror.url).collect();
        if found.iter().map(|url| &url.at).eq(wanted.iter().map(|url| &url.at)) {
            continue;
        }
        let elsewhere = found.iter().any(|url| wanted.iter().all(|wanted| wanted.at != url.at));
        let severity = if elsewhere { Severity::FailOpen } else { Severity::Warning };
        let leads = if found.is_empty() { "nowhere".to_owned() } else { format!("to {}", shown(&found)) };
        let message = format!("leads {leads}; the Site says {}", shown(&wanted));
        findings.push(finding(severity, at, message));
    }
    findings
}

fn of_config(site: &Site, config: &RuntimeConfig, path: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for host in config.legacy_hosts().iter().filter(|host| site.obsolete.contains(host)) {
        let message =
            format!("`mirrors.\"{host}\"` is a rule of the past (spec.obsolete): `node apply` removes it");
        findings.push(finding(Severity::Warning, path, message));
    }
    if let Some(wanted) = site.nodes.sandbox_image.as_ref().map(ToString::to_string) {
        let found = config.sandbox_image();
        if found != Some(&wanted) {
            let found = found.map_or("the runtime's own default".to_owned(), |image| format!("`{image}`"));
            let message = format!("the sandbox image is {found}; the Site says `{wanted}`");
            findings.push(finding(Severity::Warning, path, message));
        }
    }
    findings
}

/// The sandbox image is pulled before any pod is.
fn of_sandbox(image: &str, tree: &Tree, path: &str) -> Option<Finding> {
    let reference = Reference::parse(image).ok()?;
    let upstream = tree.plan(&reference).ok()?.falls_back_to?;
    let message = format!("the sandbox image `{image}` is asked for at {upstream}");
    Some(finding(Severity::FailOpen, path, message))
}
