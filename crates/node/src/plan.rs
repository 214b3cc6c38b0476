//! What has to change on a node.

use std::fmt;

use countersign_mirrors::{
    CONFIG_FILE, DEFAULT_DIRECTORY, HOSTS_FILE, Release, RuntimeConfig, Settings, Severity, Tree, render,
};
use countersign_reference::Reference;
use countersign_site::{Site, Source};
use similar::TextDiff;

use crate::files::is_imported;
use crate::{NodeError, Paths};

/// Where mirror rules are, if the runtime names no directory yet.
const CERTS: &str = "/etc/containerd/certs.d";
/// Lines around a change that are shown.
const CONTEXT: usize = 3;

/// A file as it is and as it has to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its path on the node.
    pub path: String,
    /// What is in it; `None` where there is none.
    pub before: Option<String>,
    /// What has to be in it; `None` where it has to go.
    pub after: Option<String>,
}

impl fmt::Display for Change {
    /// As `diff -u` shows it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [before, after] = [&self.before, &self.after].map(|text| text.as_deref().unwrap_or_default());
        let name = |text: &Option<String>| if text.is_some() { self.path.as_str() } else { "/dev/null" };
        let diff = TextDiff::from_lines(before, after);
        let mut unified = diff.unified_diff();
        unified.context_radius(CONTEXT).header(name(&self.before), name(&self.after));
        unified.fmt(f)
    }
}

/// Something that is done at once: a runtime that reads in between sees it done, or not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A file gets its content.
    Write(Change),
    /// A directory of rules comes to be, with all its files: one without its rules leads to the
    /// upstream.
    Make {
        /// Its path on the node.
        directory: String,
        /// Its files.
        files: Vec<Change>,
    },
    /// A directory of rules goes, with whatever is in it; or a link to one.
    Remove {
        /// Its path on the node.
        directory: String,
        /// Its rules, to be shown: what else is in it is nobody's business.
        rules: Option<String>,
    },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Write(change) => change.fmt(f),
            Self::Make { files, .. } => files.iter().try_for_each(|change| change.fmt(f)),
            Self::Remove { directory, rules } => {
                let path = format!("{directory}/{HOSTS_FILE}");
                let change = Change { path, before: rules.clone(), after: None };
                write!(f, "removed: {directory}\n{change}")
            }
        }
    }
}

/// All that has to change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// In the order in which it is done: rules and what they name first, the runtime's
    /// configuration last.
    pub steps: Vec<Step>,
    /// Files that the runtime reads only when it starts.
    pub restart: Vec<String>,
    /// Rules for hosts that the Site does not know and that somebody else wrote: they stay.
    pub foreign: Vec<String>,
}

/// Compares a node with what the Site says, and with rules for these upstream hosts beside it.
/// `certs` is where rules shall be, if that is not for the node to say; `ca` reads a CA certificate.
///
/// # Errors
///
/// The node cannot be read, or its files cannot be made to say what the Site says without
/// losing something of others.
pub fn plan(
    paths: &Paths,
    release: Release,
    site: &Site,
    certs: Option<&str>,
    hosts: &[String],
    ca: impl FnMut(&Source) -> Option<String>,
) -> Result<Plan, NodeError> {
    let config = RuntimeConfig::read(release, &paths.config_files()?)?;
    // A single directory that is in use stays the one.
    let in_use = config.config_path().filter(|path| !path.contains(':'));
    let certs = certs.or(in_use).unwrap_or(CERTS);
    let wanted = render(site, certs, hosts, ca)?;
    let mut plan = Plan::default();
    plan.rules(paths, site, &wanted, hosts)?;
    let settings =
        Settings { config_path: certs.to_owned(), sandbox_image: site.nodes.sandbox_image.clone() };
    for file in config.changes(&settings, &paths.config, &paths.drop_in, is_imported)? {
        plan.restart.push(file.path.clone());
        let before = paths.read(&file.path)?;
        plan.steps.push(Step::Write(Change { path: file.path, before, after: Some(file.text) }));
    }
    Ok(plan)
}

impl Plan {
    fn rules(
        &mut self,
        paths: &Paths,
        site: &Site,
        wanted: &Tree,
        hosts: &[String],
    ) -> Result<(), NodeError> {
        let found = paths.tree(&wanted.root)?;
        let mut after = found.clone();
        for (name, directory) in &wanted.directories {
            let at = format!("{}/{name}", wanted.root);
            if paths.is_link(&at) {
                let why = "is a link to the rules of another host: remove it".to_owned();
                return Err(NodeError::Malformed { path: at, why });
            }
            // What the rules name comes before the rules.
            let mut files: Vec<_> = directory.files.iter().collect();
            files.sort_by_key(|(file, _)| *file == HOSTS_FILE);
            let mut changes = Vec::new();
            for (file, text) in files {
                let path = format!("{at}/{file}");
                if paths.is_link(&path) {
                    let why = "is a link, perhaps to the rules of another host: remove it".to_owned();
                    return Err(NodeError::Malformed { path, why });
                }
                let before = paths.read(&path)?;
                if before.as_ref() != Some(text) {
                    changes.push(Change { path, before, after: Some(text.clone()) });
                }
                let into = after.directories.entry(name.clone()).or_default();
                into.files.insert(file.clone(), text.clone());
            }
            if found.directories.contains_key(name) {
                self.steps.extend(changes.into_iter().map(Step::Write));
            } else {
                self.steps.push(Step::Make { directory: at, files: changes });
            }
        }
        for name in paths.left_behind(&wanted.root)? {
            self.steps.push(Step::Remove { directory: format!("{}/{name}", wanted.root), rules: None });
        }
        for (name, directory) in &found.directories {
            if wanted.directories.contains_key(name) {
                continue;
            }
            let at = format!("{}/{name}", wanted.root);
            // Rules that a link leads to are somebody's own, whatever they say.
            let ours = directory.is_ours() && !paths.is_link(&at);
            if !site.obsolete.contains(name) && !ours {
                self.foreign.push(at);
                continue;
            }
            after.directories.remove(name);
            self.steps.push(Step::Remove { directory: at, rules: directory.files.get(HOSTS_FILE).cloned() });
        }
        holds(site, &after, hosts)
    }
}

/// Whether rules say what was meant, with whatever else is in their directory: the Site's registry
/// and each of these upstream hosts lead to the Site's endpoints and to nothing after them, and any
/// other host leads nowhere.
///
/// # Errors
///
/// They do not: [`NodeError::Malformed`] names the host and the cure.
pub fn holds(site: &Site, tree: &Tree, hosts: &[String]) -> Result<(), NodeError> {
    let servers: Vec<_> = site.registry.endpoints.iter().map(|endpoint| &endpoint.url.at).collect();
    let malformed = |why: String| NodeError::Malformed { path: tree.root.clone(), why };
    for host in hosts.iter().chain([&site.registry.name]) {
        let image =
            Reference::from_parts(host, "x", None, None).map_err(|error| malformed(error.to_string()))?;
        let plan = tree.plan(&image).map_err(|error| malformed(error.to_string()))?;
        let found: Vec<_> = plan.mirrors.iter().map(|mirror| &mirror.url.at).collect();
        let open = plan.findings.iter().any(|finding| finding.severity == Severity::FailOpen);
        if found != servers || plan.falls_back_to.is_some() || open {
            let why = format!(
                "`{host}` would not lead to the Site's endpoints: a directory of another spelling comes before \
                 (`{}_`); remove it",
                host.replace(':', "_")
            );
            return Err(malformed(why));
        }
    }
    match tree.directories.get(DEFAULT_DIRECTORY) {
        Some(directory) if directory.is_ours() => Ok(()),
        _ => Err(malformed(format!("`{DEFAULT_DIRECTORY}` leads somewhere: remove it"))),
    }
}

impl Default for Paths {
    /// The node that this runs on.
    fn default() -> Self {
        Self {
            root: "/".into(),
            config: CONFIG_FILE.to_owned(),
            drop_in: countersign_mirrors::DROP_IN.to_owned(),
        }
    }
}
