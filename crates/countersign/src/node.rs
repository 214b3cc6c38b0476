//! `countersign node`: what nodes have to know.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use countersign_clock::{Clock as _, SystemClock};
use countersign_layout::Layout;
use countersign_mirrors::{Finding, Release, Settings, Severity};
use countersign_node::{Ctr, Imported, Paths, write};
use countersign_reference::Reference;
use countersign_site::{Site, Source};
use serde_json::json;

use crate::bundle::image_keys;
use crate::cli::{Exit, NodeApply, NodeCheck, NodeCommand, NodePlace, NodeRender, NodeRules, Output};
use crate::serve::talk;
use crate::site::{self, warn};

pub(crate) fn run(command: &NodeCommand) -> Result<Exit> {
    match command {
        NodeCommand::Render(arguments) => render(arguments),
        NodeCommand::Apply(arguments) => apply(arguments),
        NodeCommand::Check(arguments) => check(arguments),
    }
}

/// The upstream hosts that rules are for.
fn hosts(rules: &NodeRules, site: &Site) -> BTreeSet<String> {
    let mut hosts: BTreeSet<String> = rules.host.iter().chain(&site.nodes.hosts).cloned().collect();
    // The sandbox image is pulled by the runtime itself.
    let sandbox = site.nodes.sandbox_image.iter().map(|image| image.domain().to_owned());
    hosts.extend(sandbox.filter(|host| *host != site.registry.name));
    hosts
}

/// Calls something with a reader of CA certificates; one that cannot be read is an error.
fn with_ca<T>(path: &Path, work: impl FnOnce(&mut dyn FnMut(&Source) -> Option<String>) -> T) -> Result<T> {
    let load = site::loader(path);
    let unread: RefCell<Option<String>> = RefCell::default();
    let mut ca = |source: &Source| match load(source) {
        Ok(text) => Some(text),
        Err(why) => {
            *unread.borrow_mut() = Some(why);
            None
        }
    };
    let result = work(&mut ca);
    match unread.into_inner() {
        Some(why) => bail!("{}: a CA cannot be read: {why}", path.display()),
        None => Ok(result),
    }
}

/// Writes the tree, and reads it back.
fn render(arguments: &NodeRender) -> Result<Exit> {
    let site = site::read(&arguments.rules.site)?;
    let mut hosts = hosts(&arguments.rules, &site);
    if let Some(path) = &arguments.bundle {
        hosts.extend(hosts_of(path, &site).context("--bundle")?);
    }
    let hosts: Vec<String> = hosts.into_iter().collect();
    let root = arguments.to.display().to_string();
    let tree = with_ca(&arguments.rules.site, |ca| countersign_mirrors::render(&site, &root, &hosts, ca))?;
    countersign_node::write_tree(&arguments.to, &tree.context("--host")?)?;
    // With whatever else was in the directory.
    countersign_node::holds(&site, &countersign_node::tree(&arguments.to, &root)?, &hosts)?;
    if let Some(path) = &arguments.drop_in {
        let config_path = arguments.certs_dir.clone();
        let sandbox_image = site.nodes.sandbox_image.clone();
        let text = countersign_mirrors::drop_in(&Settings { config_path, sandbox_image });
        write(path, &text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    if let Some(path) = &arguments.mirrors {
        let text = countersign_mirrors::legacy(&site, &arguments.certs_dir, &hosts).context("--host")?;
        write(path, &text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    for past in site.obsolete.iter().filter(|past| arguments.to.join(past).exists()) {
        let path = arguments.to.join(past);
        warn(&format!("{}: a rule of the past (spec.obsolete): remove it from the nodes", path.display()));
    }
    talk(&format!("rules for {} hosts in {root}", hosts.len() + 1));
    Ok(Exit::Good)
}

fn place(arguments: &NodePlace) -> Result<(Paths, Release)> {
    let NodePlace { root, config, drop_in, .. } = arguments;
    for path in [config, drop_in] {
        ensure!(path.starts_with('/'), "`{path}`: the node's own path is needed, from `/` on");
    }
    let paths = Paths { root: root.clone(), config: config.clone(), drop_in: drop_in.clone() };
    let release = match arguments.containerd_version {
        Some(release) => release,
        None => release_of(&arguments.containerd)?,
    };
    Ok((paths, release))
}

/// What the program says of itself: `containerd github.com/containerd/containerd v1.7.28 …`.
fn release_of(program: &Path) -> Result<Release> {
    let output = Command::new(program).arg("--version").stdin(Stdio::null()).output();
    let output =
        output.with_context(|| format!("cannot run {}: give --containerd-version", program.display()))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let found = said.split_whitespace().nth(2).and_then(|word| word.parse().ok());
    found.with_context(|| format!("`{}` is no release: give --containerd-version", said.trim()))
}

fn apply(arguments: &NodeApply) -> Result<Exit> {
    let (paths, release) = place(&arguments.place)?;
    let site_path = &arguments.rules.site;
    let site = site::read(site_path)?;
    let hosts: Vec<String> = hosts(&arguments.rules, &site).into_iter().collect();
    if let Some(certs) = &arguments.certs_dir {
        let good = certs.starts_with('/') && !certs.contains(':');
        ensure!(good, "--certs-dir `{certs}`: one directory is needed, from `/` on");
    }
    let certs = arguments.certs_dir.as_deref();
    let plan = with_ca(site_path, |ca| countersign_node::plan(&paths, release, &site, certs, &hosts, ca))??;
    let mut out = std::io::stdout().lock();
    for step in &plan.steps {
        write!(out, "{step}")?;
    }
    for path in &plan.foreign {
        warn(&format!("{path}: not ours, and it stays: `spec.obsolete` names what has to go"));
    }
    let count = plan.steps.len();
    if arguments.dry_run {
        talk(&format!("{count} changes would be made"));
    } else if count > 0 {
        let now = SystemClock::default().wall();
        let backup = arguments.backup.join(now.strftime("%Y%m%dT%H%M%SZ").to_string());
        countersign_node::apply(&paths, &plan, &backup)?;
        talk(&format!("{count} changes made; what was there before is in {}", backup.display()));
    } else {
        talk("nothing to change");
    }
    for path in &plan.restart {
        let verb = if arguments.dry_run { "would have" } else { "has" };
        talk(&format!(
            "containerd {verb} to be restarted for {path}; mirror rules count from the next pull on"
        ));
    }
    match &arguments.bundle {
        Some(bundle) if !arguments.dry_run => import(arguments, &site, bundle),
        _ => Ok(Exit::Good),
    }
}

/// Imports what the Site wants on every node.
fn import(arguments: &NodeApply, site: &Site, bundle: &Path) -> Result<Exit> {
    if site.nodes.images.is_empty() {
        return Ok(Exit::Good);
    }
    ensure!(
        arguments.place.root == Path::new("/") || arguments.address.is_some(),
        "--bundle with --root: --address says whose containerd it is"
    );
    let keys = image_keys(&arguments.key, Some((site, &arguments.rules.site)))?;
    let keys =
        keys.context("images are imported if they are signed: --key or the Site's `trust.keys` say by whom")?;
    let layout = Layout::open(bundle).context("--bundle")?;
    let ctr = Ctr { program: arguments.ctr.clone(), address: arguments.address.clone() };
    let mut exit = Exit::Good;
    for image in &site.nodes.images {
        match countersign_node::import(&layout, site, image, &keys, &ctr) {
            Ok(Imported::Now) => talk(&format!("{image} is imported and pinned")),
            Ok(Imported::Before) => talk(&format!("{image} is there")),
            Err(error) => {
                warn(&format!("{image}: {error}"));
                exit = Exit::Negative;
            }
        }
    }
    Ok(exit)
}

fn check(arguments: &NodeCheck) -> Result<Exit> {
    let (paths, release) = place(&arguments.place)?;
    let site = arguments.site.as_deref().map(site::read).transpose()?;
    let findings = countersign_node::check(&paths, release, site.as_deref())?;
    let word = |finding: &Finding| match finding.severity {
        Severity::Broken => "BROKEN",
        Severity::FailOpen => "FAIL-OPEN",
        Severity::Warning => "WARNING",
    };
    let mut out = std::io::stdout().lock();
    if arguments.output == Output::Json {
        let list = findings.iter().map(
            |finding| json!({ "severity": word(finding), "at": finding.at, "message": finding.message }),
        );
        writeln!(out, "{}", serde_json::to_string_pretty(&list.collect::<Vec<_>>())?)?;
    } else {
        for finding in &findings {
            writeln!(out, "{}  {}  {}", word(finding), finding.at, finding.message)?;
        }
    }
    talk(&format!("{} findings on a node with containerd {release}", findings.len()));
    Ok(if findings.is_empty() { Exit::Good } else { Exit::Negative })
}

/// The hosts that images of a bundle came from.
fn hosts_of(path: &Path, site: &Site) -> Result<BTreeSet<String>> {
    let index = Layout::open(path)?.index()?;
    let stored = |(name, _)| Reference::parse(&format!("{}/{name}", site.registry.name)).ok();
    let origins = index.named().filter_map(stored).flat_map(|stored| site.rewrite.rewriter.origins(&stored));
    // A host that is the logical registry by another spelling has no images of its own.
    Ok(origins.map(|origin| origin.domain().to_owned()).filter(|host| *host != site.registry.name).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;
    use std::fs;

    fn run(directory: &Path, more: &[&str]) -> Result<Exit> {
        let (site, to) = (directory.join("site.yaml"), directory.join("certs.d"));
        let mut words = vec!["countersign", "node", "render", "--site", site.to_str().unwrap(), "--to"];
        words.push(to.to_str().unwrap());
        words.extend(more);
        let arguments = crate::cli::Arguments::try_parse_from(words).unwrap();
        let crate::cli::Command::Node(crate::cli::NodeCommand::Render(arguments)) = arguments.command else {
            unreachable!()
        };
        render(&arguments)
    }

    #[test]
    fn a_tree_is_written_read_back_and_written_again() {
        let directory = tempfile::tempdir().unwrap();
        let site = "apiVersion: countersign.dev/v1alpha1\nkind: Site\nspec:\n  registry:\n    name: registry.local\n    endpoints:\n      - { name: bootstrap, url: https://pit.nmn, addresses: [10.1.1.2], ca: { file: ca.pem } }\n      - { name: cluster, url: https://registry.local, addresses: [10.92.100.71], ca: { file: ca.pem } }\n  obsolete: [artifactory.example]\n";
        fs::write(directory.path().join("site.yaml"), site).unwrap();
        assert!(run(directory.path(), &[]).unwrap_err().to_string().contains("a CA cannot be read"));
        fs::write(directory.path().join("ca.pem"), "a CA").unwrap();
        let hosts = ["--host", "quay.io", "--host", "host:5000"];
        for _ in 0..2 {
            assert_eq!(run(directory.path(), &hosts).unwrap(), Exit::Good);
        }
        let tree = directory.path().join("certs.d");
        for file in ["registry.local/hosts.toml", "registry.local/bootstrap.pem", "quay.io/hosts.toml"] {
            assert!(tree.join(file).is_file(), "{file}");
        }
        // What another hand left there, and what containerd prefers to ours.
        fs::create_dir(tree.join("host_5000_")).unwrap();
        let error = run(directory.path(), &hosts).unwrap_err().to_string();
        assert!(error.contains("`host:5000` would not lead to the Site's endpoints"), "{error}");
        assert!(run(directory.path(), &["--host", "registry.local"]).is_err());
    }
}
