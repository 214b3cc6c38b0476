//! What is wrong with a tree as a whole, on a node with a given release.

use std::collections::BTreeSet;

use countersign_reference::Reference;

use crate::plan::{Finding, Severity};
use crate::release::Release;
use crate::tree::{DEFAULT_DIRECTORY, DIAL_TIMEOUT, HOSTS_FILE, Tree};

/// A host that no rule is for: `.invalid` is nobody's (RFC 6761).
pub const NOBODY: &str = "no-rule-names-this.invalid";

impl Tree {
    /// The hosts that rules are for, as images name them.
    pub fn hosts(&self) -> BTreeSet<String> {
        let names = self.directories.keys().filter(|name| *name != DEFAULT_DIRECTORY);
        // `host_port_` is another spelling of `host:port`.
        let host = |name: &String| match name.strip_suffix('_').and_then(|name| name.rsplit_once('_')) {
            Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => format!("{host}:{port}"),
            _ => name.clone(),
        };
        names.map(host).collect()
    }

    /// What is wrong, worst first.
    pub fn findings(&self, release: Release) -> Vec<Finding> {
        let mut findings = Vec::new();
        for host in self.hosts().iter().map(String::as_str).chain([NOBODY]) {
            let plan = match Reference::from_parts(host, "x", None, None) {
                Ok(image) => self.plan(&image),
                Err(_) => {
                    let at = format!("{}/{host}", self.root);
                    let message = "is not the name of a host: no image leads here".to_owned();
                    findings.push(Finding {
                        severity: Severity::Warning,
                        at,
                        message,
                        until: None,
                        since: None,
                    });
                    continue;
                }
            };
            match plan {
                Ok(plan) => findings.extend(plan.findings),
                Err(error) => {
                    let severity = if error.undecodable { Severity::FailOpen } else { Severity::Warning };
                    let message = error.reason();
                    findings.push(Finding { severity, at: error.at, message, until: None, since: None });
                }
            }
        }
        findings.extend(self.names());
        if release >= DIAL_TIMEOUT {
            findings.extend(self.without_timeout());
        }
        let mut findings: Vec<_> =
            findings.into_iter().filter_map(|finding| finding.for_release(release)).collect();
        findings.sort_by(|a, b| {
            b.severity.cmp(&a.severity).then_with(|| (&a.at, &a.message).cmp(&(&b.at, &b.message)))
        });
        findings.dedup();
        findings
    }

    /// Names that images do not have.
    fn names(&self) -> impl Iterator<Item = Finding> {
        self.directories.keys().filter(|name| *name != DEFAULT_DIRECTORY).filter_map(|name| {
            let message = if name.bytes().any(|b| b.is_ascii_uppercase()) {
                "names are compared letter for letter, and images are usually written in lower case"
                    .to_owned()
            } else {
                let host = name.strip_suffix(":443").or_else(|| name.strip_suffix("_443_"))?;
                if self.directories.contains_key(host) {
                    return None;
                }
                format!("is for images that name the port; those of `{host}/…` do not lead here")
            };
            let at = format!("{}/{name}", self.root);
            Some(Finding { severity: Severity::Warning, at, message, until: None, since: None })
        })
    }

    /// Several servers, and no word on how long a dead one is waited for.
    fn without_timeout(&self) -> impl Iterator<Item = Finding> {
        self.directories.iter().filter_map(|(name, directory)| {
            let text = directory.files.get(HOSTS_FILE)?;
            let image = Reference::from_parts(name, "x", None, None).ok()?;
            let several = self.plan(&image).is_ok_and(|plan| plan.mirrors.len() > 1);
            if !several || text.contains("dial_timeout") {
                return None;
            }
            let message =
                "there is no `dial_timeout`: a dead server costs 30 s for each object of a pull".to_owned();
            let at = format!("{}/{name}/{HOSTS_FILE}", self.root);
            Some(Finding { severity: Severity::Warning, at, message, until: None, since: None })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Directory;

    fn tree(directories: &[(&str, Option<&str>)]) -> Tree {
        let directories = directories.iter().map(|(name, text)| {
            let files = text.iter().map(|text| (HOSTS_FILE.to_owned(), (*text).to_owned())).collect();
            ((*name).to_owned(), Directory { files })
        });
        Tree { root: "/certs.d".to_owned(), directories: directories.collect() }
    }

    const SINK: &str = "server = \"http://127.0.0.1:9/no-mirror-rule-names-this-registry\"\n[host.\"http://127.0.0.1:9/no-mirror-rule-names-this-registry\"]\n";
    const GOOD: &str = "server = \"https://b\"\ndial_timeout = \"5s\"\n[host.\"https://a\"]\ndial_timeout = \"5s\"\n[host.\"https://b\"]\n";

    #[test]
    fn planted_mistakes_are_found() {
        use Severity::{FailOpen, Warning};
        let with = |capability: &str| {
            GOOD.replace(
                "[host.\"https://a\"]",
                &format!("[host.\"https://a\"]\ncapabilities = [\"pull\", {capability}]"),
            )
        };
        for (fact, name, text, release, expected) in [
            (
                "2",
                "a.example",
                Some("server = ".to_owned()),
                Release(2, 4),
                Some((FailOpen, "would ignore the file")),
            ),
            (
                "3",
                "a.example",
                Some(with("\"resolve\", \"referrers\"")),
                Release(2, 1),
                Some((FailOpen, "before containerd 2.2")),
            ),
            ("3", "a.example", Some(with("\"resolve\", \"referrers\"")), Release(2, 2), None),
            (
                "4",
                "a.example",
                Some("server = \"https://b\"".to_owned()),
                Release(1, 7),
                Some((FailOpen, "before containerd 2.0")),
            ),
            ("4", "a.example", Some("server = \"https://b\"".to_owned()), Release(2, 0), None),
            (
                "5",
                "a.example",
                Some(GOOD.replace("server = \"https://b\"", "")),
                Release(2, 0),
                Some((FailOpen, "there is no `server`")),
            ),
            (
                "6",
                "a.example",
                Some("server = \"https://b\"\nhost.\"https://a\".skip_verify = false".to_owned()),
                Release(2, 0),
                Some((Warning, "containerd never asks")),
            ),
            (
                "6",
                "a.example",
                Some(format!("ca = \"x.pem\"\n{GOOD}")),
                Release(2, 0),
                Some((Warning, "for the `server` alone")),
            ),
            (
                "7",
                "a.example",
                Some(GOOD.replace("https://a", "https://a/v2/foo")),
                Release(2, 0),
                Some((Warning, "set `override_path = true`")),
            ),
            ("8", "a.example", None, Release(2, 0), Some((FailOpen, "hides `_default`"))),
            ("8", "A.example", Some(GOOD.to_owned()), Release(2, 0), Some((Warning, "letter for letter"))),
            ("8", "a.example:443", Some(GOOD.to_owned()), Release(2, 0), Some((Warning, "name the port"))),
            ("8", "host_5000_", None, Release(2, 0), Some((FailOpen, "hides `_default`"))),
            (
                "10",
                "a.example",
                Some(GOOD.replace("dial_timeout = \"5s\"", "")),
                Release(2, 1),
                Some((Warning, "30 s for each object")),
            ),
            ("10", "a.example", Some(GOOD.replace("dial_timeout = \"5s\"", "")), Release(2, 0), None),
            (
                "insecure",
                "a.example",
                Some(GOOD.replace("https://a", "http://a")),
                Release(2, 0),
                Some((Warning, "plain http")),
            ),
            (
                "insecure",
                "a.example",
                Some(GOOD.replace("[host.\"https://a\"]", "[host.\"https://a\"]\nskip_verify = true")),
                Release(2, 0),
                Some((Warning, "anybody on the way")),
            ),
            (
                "2",
                "a.example",
                Some(GOOD.replacen("\"5s\"", "5", 1)),
                Release(2, 4),
                Some((FailOpen, "is not a duration")),
            ),
            (
                "2",
                "a.example",
                Some(GOOD.replacen("\"5s\"", "\"5\"", 1)),
                Release(2, 4),
                Some((FailOpen, "is not a duration")),
            ),
            (
                "2",
                "a.example",
                Some(format!("{GOOD}header = {{ a = \"b\", }}\n")),
                Release(2, 2),
                Some((FailOpen, "before containerd 2.4")),
            ),
            ("2", "a.example", Some(format!("{GOOD}header = {{ a = \"b\", }}\n")), Release(2, 4), None),
            ("2", "a.example", Some(GOOD.replacen("\"5s\"", "5", 1)), Release(2, 0), None),
            (
                "2",
                "a.example",
                Some(GOOD.replace("https://a", "https://a b")),
                Release(2, 4),
                Some((FailOpen, "would ignore")),
            ),
            (
                "2",
                "a.example",
                Some(GOOD.replace("https://a", "https://a:50o0")),
                Release(2, 4),
                Some((FailOpen, "would ignore")),
            ),
            (
                "5",
                "a.example",
                Some(GOOD.replace("https://b", "httpd.local")),
                Release(2, 4),
                Some((FailOpen, "the scheme is missing")),
            ),
            (
                "followed",
                "a.example",
                Some(GOOD.replace("https://a", "https://a/../b?x")),
                Release(2, 4),
                Some((Warning, "containerd would follow it")),
            ),
            (
                "followed",
                "a.example",
                Some(GOOD.replace("[host.\"https://a\"]", "[host.\"http://a\"]\nskip_verify = true")),
                Release(2, 0),
                Some((Warning, "containerd would follow it")),
            ),
            ("good", "a.example", Some(GOOD.to_owned()), Release(2, 4), None),
        ] {
            let found = tree(&[(name, text.as_deref()), (DEFAULT_DIRECTORY, Some(SINK))]).findings(release);
            let shown: Vec<_> =
                found.iter().map(|finding| (finding.severity, finding.message.as_str())).collect();
            match expected {
                None => assert_eq!(shown, [], "fact {fact}: {name}"),
                Some((severity, words)) => assert!(
                    shown.iter().any(|(found, message)| *found == severity && message.contains(words)),
                    "fact {fact}: {shown:?}"
                ),
            }
        }
        let found = tree(&[("a.example", Some(GOOD))]).findings(Release(2, 4));
        assert!(found[0].message.contains("no `_default`"), "{found:?}");
    }
}
