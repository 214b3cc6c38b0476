//! `countersign node`: what nodes have to know.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use countersign_layout::Layout;
use countersign_mirrors::Severity;
use countersign_reference::Reference;
use countersign_site::{Site, Source};

use crate::cli::{Exit, NodeRender};
use crate::hosts_dir;
use crate::serve::talk;
use crate::site::{self, warn};

/// Writes the tree, and reads it back.
pub(crate) fn render(arguments: &NodeRender) -> Result<Exit> {
    let site = site::read(&arguments.site)?;
    let load = site::loader(&arguments.site);
    let mut hosts: BTreeSet<String> = arguments.host.iter().cloned().collect();
    if let Some(path) = &arguments.bundle {
        hosts.extend(hosts_of(path, &site).context("--bundle")?);
    }
    let hosts: Vec<String> = hosts.into_iter().collect();
    let unread: RefCell<Option<String>> = RefCell::default();
    let ca = |source: &Source| match load(source) {
        Ok(text) => Some(text),
        Err(why) => {
            *unread.borrow_mut() = Some(why);
            None
        }
    };
    let root = arguments.to.display().to_string();
    let tree = countersign_mirrors::render(&site, &root, &hosts, ca).context("--host")?;
    if let Some(why) = unread.into_inner() {
        bail!("{}: a CA cannot be read: {why}", arguments.site.display());
    }
    for (name, directory) in &tree.directories {
        for (file, text) in &directory.files {
            let path = arguments.to.join(name).join(file);
            write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
    }
    read_back(arguments, &site, &hosts)?;
    for past in site.obsolete.iter().filter(|past| arguments.to.join(past).exists()) {
        let path = arguments.to.join(past);
        warn(&format!("{}: a rule of the past (spec.obsolete): remove it from the nodes", path.display()));
    }
    talk(&format!("rules for {} hosts in {root}", hosts.len() + 1));
    Ok(Exit::Good)
}

/// The hosts that images of a bundle came from.
fn hosts_of(path: &Path, site: &Site) -> Result<BTreeSet<String>> {
    let index = Layout::open(path)?.index()?;
    let stored = |(name, _)| Reference::parse(&format!("{}/{name}", site.registry.name)).ok();
    let origins = index.named().filter_map(stored).flat_map(|stored| site.rewrite.rewriter.origins(&stored));
    // A host that is the logical registry by another spelling has no images of its own.
    Ok(origins.map(|origin| origin.domain().to_owned()).filter(|host| *host != site.registry.name).collect())
}

/// Beside its place first: a runtime reads these files on every pull.
fn write(path: &Path, text: &str) -> std::io::Result<()> {
    let Some(directory) = path.parent() else { return Ok(()) };
    fs::create_dir_all(directory)?;
    let beside = directory.join(format!(".{}.tmp", std::process::id()));
    let mut file = fs::File::create(&beside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&beside, path)
}

/// What was written says what was meant, with whatever else is in the directory.
fn read_back(arguments: &NodeRender, site: &Site, hosts: &[String]) -> Result<()> {
    let tree = hosts_dir::read(&arguments.to)?;
    let servers: Vec<_> = site.registry.endpoints.iter().map(|endpoint| &endpoint.url.at).collect();
    for host in hosts.iter().chain([&site.registry.name]) {
        let plan = tree.plan(&Reference::from_parts(host, "x", None, None)?)?;
        let found: Vec<_> = plan.mirrors.iter().map(|mirror| &mirror.url.at).collect();
        let open = plan.findings.iter().find(|finding| finding.severity == Severity::FailOpen);
        ensure!(
            found == servers && plan.falls_back_to.is_none() && open.is_none(),
            "{}: `{host}` does not lead to the Site's endpoints: a directory of another spelling comes before",
            arguments.to.display()
        );
    }
    let nobody = tree.plan(&Reference::from_parts("no-rule-names-this.invalid", "x", None, None)?)?;
    ensure!(nobody.mirrors.is_empty() && nobody.falls_back_to.is_none(), "`_default` leads somewhere");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

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
        assert!(error.contains("`host:5000` does not lead to the Site's endpoints"), "{error}");
        assert!(run(directory.path(), &["--host", "registry.local"]).is_err());
    }
}
