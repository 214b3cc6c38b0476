//! What is wrong with a runtime's configuration.

use std::collections::BTreeSet;

use countersign_site::RegistryUrl;
use toml_edit::{Item, TableLike};

use super::{CRI, CRI_IMAGES, Parsed, RuntimeConfig};
use crate::dialect::{TOML_1_1, newer_toml};
use crate::plan::{Finding, Severity};
use crate::release::Release;

/// The plugin that runs programs which judge images.
const BINDIR: &str = "io.containerd.image-verifier.v1.bindir";
/// Where those programs are, where nothing is said.
const DEFAULT_BIN_DIR: &str = "/opt/containerd/image-verifier/bin";
/// How many of them are run, where nothing is said.
const DEFAULT_MAX_VERIFIERS: i64 = 10;
/// The first release in which they see what the kubelet pulls.
const VERIFIES: Release = Release(2, 1);

/// The programs that a runtime calls to judge images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verifiers {
    /// Their directory.
    pub directory: String,
    /// Whether the configuration says something of its own about them.
    pub configured: bool,
    /// How many of them are run at most.
    pub most: i64,
}

impl RuntimeConfig {
    /// What is wrong, worst first.
    pub fn findings(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        self.versions(&mut findings);
        self.paths(&mut findings);
        self.legacy(&mut findings);
        findings.sort_by(|a, b| b.severity.cmp(&a.severity).then_with(|| a.at.cmp(&b.at)));
        findings
    }

    fn main(&self) -> &str {
        self.files.first().map_or(super::CONFIG_FILE, |file| &file.path)
    }

    /// Facts about `version`, identifiers and imports.
    fn versions(&self, findings: &mut Vec<Finding>) {
        let release = self.release;
        for file in &self.files {
            if file.version > release.config_version() {
                let (found, most) = (file.version, release.config_version());
                let message = format!(
                    "`version = {found}`, and containerd {release} reads {most} at most: it does not start; \
                     `version = 2` is read by all"
                );
                findings.push(finding(Severity::Broken, &file.path, message));
            }
            if let Some(what) = newer_toml(&file.document).filter(|_| release < TOML_1_1) {
                let message = format!("{what}: containerd {release} does not read that, and does not start");
                findings.push(finding(Severity::Broken, &file.path, message));
            }
            let has = |id: &str| file.plugin(id).is_some_and(|section| section.contains_key("registry"));
            let ids = self.ids(file);
            let Some(unread) = [CRI, CRI_IMAGES].into_iter().find(|id| !ids.contains(id) && has(id)) else {
                continue;
            };
            if ids.iter().any(|id| has(id)) {
                // A file for both.
                continue;
            }
            let wanted = ids.last().copied().unwrap_or(CRI);
            let message = format!(
                "`plugins.\"{unread}\"` is not read by containerd {release} in a file of version {}: write `plugins.\"{wanted}\"`",
                file.version
            );
            findings.push(finding(Severity::FailOpen, &file.path, message));
        }
        if !release.merges_imports() {
            let counts = |file: &&Parsed| self.ids(file).iter().any(|id| file.plugin(id).is_some());
            let with: Vec<&Parsed> = self.files.iter().filter(counts).collect();
            if let [lost @ .., last] = with.as_slice() {
                for file in lost {
                    let message = format!(
                        "all of `plugins.\"{CRI}\"` is replaced by that of {}: what stands here and not there \
                         (the cgroup driver, paths of CNI) is lost; keep one of the two",
                        last.path
                    );
                    findings.push(finding(Severity::Warning, &file.path, message));
                }
            }
        }
    }

    /// Facts about `config_path`.
    fn paths(&self, findings: &mut Vec<Finding>) {
        let release = self.release;
        let mirrors = self.mirrors().next().is_some();
        match self.config_path() {
            None if mirrors => {}
            None => {
                let also = if release >= Release(2, 2) {
                    ", and the list of directories that is the default since 2.2 is ignored by its transfer service"
                } else {
                    ""
                };
                let message = format!(
                    "`config_path` is not set: no `hosts.toml` is read{also}; pulls go to the upstream"
                );
                findings.push(finding(Severity::FailOpen, self.main(), message));
            }
            Some(path) if path.contains(':') => {
                let (severity, why) = if release >= VERIFIES {
                    (
                        Severity::FailOpen,
                        "the transfer service does not split it: every `hosts.toml` is ignored, and pulls go to the upstream",
                    )
                } else {
                    (
                        Severity::Warning,
                        "the first one's `_default` comes before the second one's rule for a host; from 2.1 on every `hosts.toml` is ignored",
                    )
                };
                let message = format!("`config_path` is the list `{path}`: {why}; name one directory");
                findings.push(finding(severity, self.main(), message));
            }
            Some(_) => {}
        }
    }

    /// Facts about `mirrors`, `configs` and `auths`.
    fn legacy(&self, findings: &mut Vec<Finding>) {
        let mut seen = BTreeSet::new();
        for (file, host, table) in self.mirrors() {
            if !seen.insert(host) {
                continue;
            }
            let at = format!("{}, mirrors.\"{host}\"", file.path);
            if self.config_path().is_some() && seen.len() == 1 {
                let message = "`mirrors` stands beside `config_path`: the CRI plugin does not come up, and the node is \
                               not ready; take `mirrors` out"
                    .to_owned();
                findings.push(finding(Severity::Broken, &file.path, message));
            }
            let mut own = false;
            let endpoints = table.get("endpoint").and_then(Item::as_array);
            for endpoint in endpoints.into_iter().flatten().filter_map(|endpoint| endpoint.as_str()) {
                let (scheme, rest) = endpoint.split_once("://").unwrap_or(("", endpoint));
                let (server, path) = rest.split_once('/').map_or((rest, ""), |(server, path)| (server, path));
                own |= server == host;
                let url = RegistryUrl::parse(endpoint);
                if scheme == "http" && url.is_ok_and(|url| !url.at.is_loopback()) {
                    let message = format!("`{endpoint}`: plain http beyond loopback");
                    findings.push(finding(Severity::Warning, &at, message));
                }
                if !path.is_empty() && path != "v2" && !path.starts_with("v2/") {
                    let message = format!("`{endpoint}` is asked at that path as it stands, without `/v2`");
                    findings.push(finding(Severity::Warning, &at, message));
                }
            }
            if !own {
                let message =
                    "the upstream is asked last, because no endpoint has the host itself".to_owned();
                findings.push(finding(Severity::FailOpen, &at, message));
            }
            let message =
                "an old way to write mirror rules, deprecated since containerd 1.5: use `config_path`"
                    .to_owned();
            findings.push(finding(Severity::Warning, &at, message));
        }
        if !seen.is_empty() && !seen.contains("*") && self.config_path().is_none() {
            let message = "hosts without an entry in `mirrors` are asked at the upstream".to_owned();
            findings.push(finding(Severity::FailOpen, self.main(), message));
        }
        for (file, registry) in self.registries() {
            let configs = registry.get("configs").and_then(Item::as_table_like);
            for (host, item) in configs.into_iter().flat_map(TableLike::iter) {
                let at = format!("{}, configs.\"{host}\"", file.path);
                let Some(tls) = item.get("tls") else { continue };
                if self.release.0 < 2 && self.config_path().is_some() {
                    let message =
                        "`tls` stands beside `config_path`: the CRI plugin does not come up; take it out"
                            .to_owned();
                    findings.push(finding(Severity::Broken, &at, message));
                }
                if tls.get("insecure_skip_verify").and_then(Item::as_bool) == Some(true) {
                    let message = "`insecure_skip_verify` lets anybody on the way answer for it".to_owned();
                    findings.push(finding(Severity::Warning, &at, message));
                }
            }
        }
    }

    /// The hosts of `mirrors` tables that are not empty.
    fn mirrors(&self) -> impl Iterator<Item = (&Parsed, &str, &dyn TableLike)> {
        self.registries().flat_map(|(file, registry)| {
            let hosts =
                registry.get("mirrors").and_then(Item::as_table_like).into_iter().flat_map(TableLike::iter);
            hosts.filter_map(move |(host, item)| Some((file, host, item.as_table_like()?)))
        })
    }

    /// Hosts that have rules of the old sort.
    pub fn legacy_hosts(&self) -> BTreeSet<String> {
        self.mirrors().map(|(_, host, _)| host.to_owned()).collect()
    }

    /// The programs that judge images, as the configuration has them.
    pub fn verifiers(&self) -> Verifiers {
        let sections = || self.files.iter().rev().filter_map(|file| file.plugin(BINDIR));
        let directory = sections().find_map(|section| section.get("bin_dir")?.as_str());
        let most = sections().find_map(|section| section.get("max_verifiers")?.as_integer());
        Verifiers {
            directory: directory.unwrap_or(DEFAULT_BIN_DIR).to_owned(),
            // `containerd config default` writes what is so anyway.
            configured: directory.is_some_and(|directory| directory != DEFAULT_BIN_DIR)
                || most.is_some_and(|most| most != DEFAULT_MAX_VERIFIERS),
            most: most.unwrap_or(DEFAULT_MAX_VERIFIERS),
        }
    }

    /// What keeps those programs from judging what the kubelet pulls; `programs` is how many are in
    /// their directory, `None` where there is no such directory.
    pub fn findings_of_verifiers(&self, programs: Option<usize>) -> Vec<Finding> {
        let Verifiers { directory, configured, most } = self.verifiers();
        if !configured && programs.is_none() {
            return Vec::new();
        }
        let mut findings = Vec::new();
        let mut add = |message: String| findings.push(finding(Severity::FailOpen, &directory, message));
        let release = self.release;
        if release < VERIFIES {
            add(format!(
                "image verifiers are not called for what the kubelet pulls by containerd {release}: 2.1 is the first that does"
            ));
        }
        match programs {
            None | Some(0) => add("there is no image verifier here: every image passes".to_owned()),
            Some(programs) if most >= 0 && i64::try_from(programs).is_ok_and(|programs| programs > most) => {
                add(format!(
                    "there are {programs} image verifiers, and `max_verifiers` is {most}: the rest is passed over"
                ));
            }
            Some(_) => {}
        }
        if release >= VERIFIES
            && let Some(key) = self.local_pull()
        {
            add(format!("`{key}` makes containerd pull by itself, which calls no image verifier"));
        }
        findings
    }

    /// The setting that makes 2.1 and later pull without the transfer service.
    fn local_pull(&self) -> Option<&'static str> {
        type Test = fn(&dyn TableLike) -> bool;
        let found = |test: Test| self.sections().any(|(_, section)| test(section));
        let keys: [(&str, Test); 8] = [
            ("use_local_image_pull", |section| is(section, "use_local_image_pull", true)),
            ("disable_snapshot_annotations = false", |section| {
                is(section, "disable_snapshot_annotations", false)
            }),
            ("discard_unpacked_layers", |section| is(section, "discard_unpacked_layers", true)),
            ("image_pull_with_sync_fs", |section| is(section, "image_pull_with_sync_fs", true)),
            ("max_concurrent_downloads", |section| {
                section
                    .get("max_concurrent_downloads")
                    .and_then(Item::as_integer)
                    .is_some_and(|most| most != 3)
            }),
            ("registry.mirrors", |section| has(section, "mirrors")),
            ("registry.configs", |section| has(section, "configs")),
            ("registry.auths", |section| has(section, "auths")),
        ];
        keys.into_iter().find(|(_, test)| found(*test)).map(|(key, _)| key)
    }
}

/// Settings of snapshots stand below `containerd` in the old section.
fn is(section: &dyn TableLike, key: &str, wanted: bool) -> bool {
    let old = || section.get("containerd").and_then(|inner| inner.get(key));
    section.get(key).or_else(old).and_then(Item::as_bool) == Some(wanted)
}

fn has(section: &dyn TableLike, key: &str) -> bool {
    let table = section.get("registry").and_then(|registry| registry.get(key));
    table.and_then(Item::as_table_like).is_some_and(|table| !table.is_empty())
}

fn finding(severity: Severity, at: &str, message: String) -> Finding {
    Finding { severity, at: at.to_owned(), message, until: None, since: None }
}
