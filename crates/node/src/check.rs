//! What is wrong with a node.

use std::collections::BTreeSet;
use std::fs;

use countersign_mirrors::{Finding, NOBODY, Plan, Release, RuntimeConfig, Severity, Tree, render};
use countersign_reference::Reference;
use countersign_site::Site;

use crate::{NodeError, Paths};

/// Where containerd's own sandbox image comes from, where none is set.
const DEFAULT_SANDBOX: &str = "registry.k8s.io/pause";

/// Reads the runtime's configuration and rules, and says what is wrong with them: for a node
/// with this release, and for this Site where there is one. Worst first.
///
/// # Errors
///
/// The node's files cannot be read.
pub fn check(paths: &Paths, release: Release, site: Option<&Site>) -> Result<Vec<Finding>, NodeError> {
    let config = RuntimeConfig::read(release, &paths.config_files()?)?;
    let mut findings = config.findings();
    let programs = paths.resolved(&config.verifiers().directory)?;
    findings.extend(config.findings_of_verifiers(fs::read_dir(programs).ok().map(Iterator::count)));
    // Of a list, the first directory is what most readers take.
    let root = config.config_path().and_then(|path| path.split(':').next()).map(ToOwned::to_owned);
    let tree = root.as_deref().map(|root| paths.tree(root)).transpose()?;
    if let Some(tree) = &tree {
        findings.extend(tree.findings(release));
        findings.extend(of_sandbox(&config, tree, &paths.config));
    }
    if let Some(site) = site {
        let empty = Tree::default();
        findings.extend(of_rules(site, tree.as_ref().unwrap_or(&empty))?);
        findings.extend(of_config(site, &config, &paths.config));
    }
    findings.sort_by(|a, b| {
        b.severity.cmp(&a.severity).then_with(|| (&a.at, &a.message).cmp(&(&b.at, &b.message)))
    });
    findings.dedup();
    Ok(findings)
}

fn finding(severity: Severity, at: impl Into<String>, message: String) -> Finding {
    Finding { severity, at: at.into(), message, until: None, since: None }
}

/// Rules of the past, and rules that lead elsewhere than the Site says.
fn of_rules(site: &Site, tree: &Tree) -> Result<Vec<Finding>, NodeError> {
    let mut findings = Vec::new();
    let logical = site.registry.name.clone();
    let named = site.nodes.hosts.iter().chain([&logical]).cloned();
    let sandbox = site.nodes.sandbox_image.iter().map(|image| image.domain().to_owned());
    let hosts: BTreeSet<String> = tree.hosts().into_iter().chain(named).chain(sandbox).collect();
    for host in hosts.iter().map(String::as_str).chain([NOBODY]) {
        let at =
            if host == NOBODY { format!("{}/_default", tree.root) } else { format!("{}/{host}", tree.root) };
        if site.obsolete.iter().any(|past| past == host) {
            let message = "a rule of the past (spec.obsolete): `node apply` removes it".to_owned();
            findings.push(finding(Severity::Warning, at, message));
            continue;
        }
        let Ok(image) = Reference::from_parts(host, "x", None, None) else { continue };
        // What cannot be read is told of the tree itself.
        let Ok(found) = tree.plan(&image) else { continue };
        let of_host: Vec<String> = [host]
            .iter()
            .filter(|host| **host != logical && **host != NOBODY)
            .map(|host| (*host).to_owned())
            .collect();
        let wanted = render(site, &tree.root, &of_host, |_| None)?;
        let Ok(wanted) = wanted.plan(&image) else { continue };
        findings.extend(compared(&found, &wanted, at));
    }
    Ok(findings)
}

fn compared(found: &Plan, wanted: &Plan, at: String) -> Option<Finding> {
    let urls = |plan: &Plan| plan.mirrors.iter().map(|mirror| mirror.url.to_string()).collect::<Vec<_>>();
    let (leads, says) = (urls(found), urls(wanted));
    if leads == says && found.falls_back_to.is_none() {
        return None;
    }
    let shown = |urls: &[String]| {
        if urls.is_empty() { "nowhere".to_owned() } else { format!("to {}", urls.join(", then ")) }
    };
    let elsewhere = leads.iter().any(|url| !says.contains(url)) || found.falls_back_to.is_some();
    let severity = if elsewhere { Severity::FailOpen } else { Severity::Warning };
    let all: Vec<String> = leads.into_iter().chain(found.falls_back_to.clone()).collect();
    let message = format!("leads {}; the Site says {}", shown(&all), shown(&says));
    Some(finding(severity, at, message))
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
fn of_sandbox(config: &RuntimeConfig, tree: &Tree, path: &str) -> Option<Finding> {
    let image = config.sandbox_image().unwrap_or(DEFAULT_SANDBOX);
    let plan = tree.plan(&Reference::parse(image).ok()?).ok()?;
    match plan.falls_back_to {
        Some(upstream) => {
            let message = format!("the sandbox image `{image}` is asked for at {upstream}");
            Some(finding(Severity::FailOpen, path, message))
        }
        None if plan.mirrors.is_empty() => {
            let message = format!(
                "the sandbox image `{image}` leads nowhere: no pod starts unless it is on the node; name another \
                 (`nodes.sandboxImage`), or a rule for its host (`nodes.hosts`)"
            );
            Some(finding(Severity::Warning, path, message))
        }
        None => None,
    }
}
