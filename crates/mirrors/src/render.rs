//! The tree that makes a runtime ask what the Site says, and nobody else.
//!
//! | directory | leads to |
//! |---|---|
//! | the logical registry | the Site's endpoints, in their order |
//! | each upstream host that is named | the same endpoints, below the path that its images have there: for what no webhook sees |
//! | `_default` | nowhere: [`SINK`] |
//!
//! The text is valid for containerd 1.6 to 2.4. The last endpoint is the `server`, which leaves
//! no room for an upstream; it is also the last `host`, because containerd 1.x ignores a file
//! without a host table. `dial_timeout` acts from 2.1 on, and is passed over before.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use countersign_reference::Reference;
use countersign_site::{RegistryUrl, Site, Source};

use crate::tree::{DEFAULT_DIRECTORY, Directory, HOSTS_FILE, SINK, Tree};

/// How long a runtime waits for an endpoint that does not answer, for each object that it pulls.
const DIAL_TIMEOUT: &str = "5s";

/// The first line of what is written for nodes.
pub(crate) const WRITTEN: &str = "# Written by `countersign node`: changes are lost.\n";

/// A host that rules cannot be written for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{host}`: {why}")]
pub struct RenderError {
    host: String,
    why: String,
}

/// The rules of a Site, also for these upstream hosts.
///
/// `ca` gives the text of a CA; it is written beside `hosts.toml` under the endpoint's name.
///
/// # Errors
///
/// A host is none, or has no path in the site's registry.
pub fn render(
    site: &Site,
    root: &str,
    hosts: &[String],
    mut ca: impl FnMut(&Source) -> Option<String>,
) -> Result<Tree, RenderError> {
    let mut directories = BTreeMap::new();
    directories.insert(site.registry.name.clone(), rules(site, "", &mut ca));
    for host in hosts {
        let prefix = path_of(site, host)?;
        directories.insert(host.clone(), rules(site, &prefix, &mut ca));
    }
    let text = format!(
        "{WRITTEN}# A registry that no rule names is not asked: this leads nowhere.\n\
         server = {SINK:?}\n\n[host.{SINK:?}]\n  capabilities = [\"pull\", \"resolve\"]\n"
    );
    let sink = Directory { files: [(HOSTS_FILE.to_owned(), text)].into() };
    directories.insert(DEFAULT_DIRECTORY.to_owned(), sink);
    Ok(Tree { root: root.to_owned(), directories })
}

/// The path below which images of a host are in the site's registry; empty for its root.
fn path_of(site: &Site, host: &str) -> Result<String, RenderError> {
    let error = |why: String| RenderError { host: host.chars().take(80).collect(), why };
    let image = Reference::from_parts(host, "x", None, None).map_err(|e| error(e.to_string()))?;
    if site.rewrite.rewriter.is_local(&image) {
        return Err(error("is the site's registry itself".to_owned()));
    }
    let stored = site.rewrite.rewriter.rewrite(&image).map_err(|e| error(e.to_string()))?;
    Ok(stored.path().strip_suffix('x').unwrap_or_default().trim_end_matches('/').to_owned())
}

fn rules(site: &Site, prefix: &str, ca: &mut impl FnMut(&Source) -> Option<String>) -> Directory {
    let mut files = BTreeMap::new();
    // One table for each URL, whatever the addresses of those who share it: a second one would make
    // containerd ignore the file.
    let mut entries: Vec<(RegistryUrl, Vec<String>)> = Vec::new();
    for endpoint in &site.registry.endpoints {
        let url = below(&endpoint.url, prefix);
        let file = endpoint.ca.as_ref().and_then(&mut *ca).map(|content| {
            let name = format!("{}.pem", endpoint.name);
            files.insert(name.clone(), content);
            name
        });
        match entries.iter_mut().find(|(known, _)| *known == url) {
            Some((_, authorities)) => authorities.extend(file),
            None => entries.push((url, file.into_iter().collect())),
        }
    }
    let keys = |indent: &str, url: &RegistryUrl, authorities: &[String]| {
        let mut text = String::new();
        match authorities {
            [] => {}
            [file] => _ = writeln!(text, "{indent}ca = {file:?}"),
            several => _ = writeln!(text, "{indent}ca = {several:?}"),
        }
        if url.to_string() != url.origin() {
            _ = writeln!(text, "{indent}override_path = true");
        }
        _ = writeln!(text, "{indent}dial_timeout = {DIAL_TIMEOUT:?}");
        text
    };
    let mut text = WRITTEN.to_owned();
    if let Some((url, authorities)) = entries.last() {
        _ = write!(text, "server = {:?}\n{}", url.to_string(), keys("", url, authorities));
    }
    for (url, authorities) in &entries {
        _ = write!(text, "\n[host.{:?}]\n  capabilities = [\"pull\", \"resolve\"]\n", url.to_string());
        text.push_str(&keys("  ", url, authorities));
    }
    files.insert(HOSTS_FILE.to_owned(), text);
    Directory { files }
}

/// The same as the `mirrors` of old, for a containerd that knows no `hosts.toml` (before 1.5):
/// a part of its `config.toml`. The CA certificates are where [`render`] puts them below `root`.
///
/// It has no way to say that a host without an entry is not asked at its upstream.
pub fn legacy(site: &Site, root: &str, hosts: &[String]) -> Result<String, RenderError> {
    let section = "plugins.\"io.containerd.grpc.v1.cri\".registry";
    let mut text = format!(
        "{WRITTEN}# For containerd before 1.5. Never beside `config_path`; a host that is not named here is asked\n\
         # at its upstream.\nversion = 2\n"
    );
    let logical = (site.registry.name.clone(), String::new());
    let upstream = hosts.iter().map(|host| Ok((host.clone(), path_of(site, host)?)));
    for entry in [Ok(logical)].into_iter().chain(upstream) {
        let (host, prefix) = entry?;
        let urls = site.registry.endpoints.iter().map(|endpoint| below(&endpoint.url, &prefix));
        let own = |url: &RegistryUrl| url.origin().split_once("://").is_some_and(|(_, at)| at == host);
        let urls: Vec<RegistryUrl> = urls.collect();
        let mut endpoints: Vec<String> = urls.iter().map(verbatim).collect();
        if !urls.iter().any(own) {
            // The upstream is left out where an endpoint has its name; nobody speaks this scheme.
            endpoints.push(format!("dummy://{host}"));
        }
        _ = write!(text, "\n[{section}.mirrors.{host:?}]\n  endpoint = {endpoints:?}\n");
    }
    let mut named = BTreeSet::new();
    for endpoint in site.registry.endpoints.iter().filter(|endpoint| endpoint.ca.is_some()) {
        let origin = endpoint.url.origin();
        let at = origin.split_once("://").map_or(origin.as_str(), |(_, at)| at);
        if named.insert(at.to_owned()) {
            let file = format!("{root}/{}/{}.pem", site.registry.name, endpoint.name);
            _ = write!(text, "\n[{section}.configs.{at:?}.tls]\n  ca_file = {file:?}\n");
        }
    }
    Ok(text)
}

/// The paths of `mirrors` are used as they stand.
fn verbatim(url: &RegistryUrl) -> String {
    if url.root == "/v2" { url.origin() } else { format!("{}{}", url.origin(), url.root) }
}

/// Where the images of a host are at an endpoint.
fn below(url: &RegistryUrl, prefix: &str) -> RegistryUrl {
    if prefix.is_empty() {
        return url.clone();
    }
    RegistryUrl { root: format!("{}/{prefix}", url.root), ..url.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Plan, Severity, of_site};
    use proptest::prelude::*;

    fn site(urls: &[String], logical: &str) -> Site {
        let mut text = format!(
            "apiVersion: countersign.dev/v1alpha1\nkind: Site\nspec:\n  registry:\n    name: {logical:?}\n    endpoints:\n"
        );
        for (index, url) in urls.iter().enumerate() {
            let ca = if url.starts_with("https") {
                format!(", ca: {{ pem: 'ca {index}' }}")
            } else {
                String::new()
            };
            text += &format!("      - {{ name: e{index}, url: {url:?}, addresses: [192.0.2.1]{ca} }}\n");
        }
        Site::parse(&text).unwrap()
    }

    const ROOT: &str = "/etc/containerd/certs.d";

    fn inline(source: &Source) -> Option<String> {
        match source {
            Source::Inline(text) => Some(text.clone()),
            _ => None,
        }
    }

    #[test]
    fn no_host_falls_back_to_an_upstream() {
        let urls = ["https://pit.nmn", "https://registry.local"].map(ToOwned::to_owned);
        let site = site(&urls, "registry.local");
        let hosts = ["quay.io", "docker.io", "host:5000"].map(ToOwned::to_owned);
        let tree = render(&site, ROOT, &hosts, inline).unwrap();
        for (image, roots) in [
            ("registry.local/a/b:1", vec!["pit.nmn /v2", "registry.local /v2"]),
            ("quay.io/a/b:1", vec!["pit.nmn /v2/quay.io", "registry.local /v2/quay.io"]),
            ("nginx", vec!["pit.nmn /v2/docker.io", "registry.local /v2/docker.io"]),
            ("host:5000/x:1", vec!["pit.nmn /v2/host_5000", "registry.local /v2/host_5000"]),
            // Nobody at all.
            ("ghcr.io/a/b:1", vec![]),
            ("registry.local:443/a/b:1", vec![]),
            ("localhost:5000/a/b:1", vec![]),
        ] {
            let plan = tree.plan(&Reference::parse(image).unwrap()).unwrap();
            let found: Vec<String> = plan
                .mirrors
                .iter()
                .map(|mirror| format!("{} {}", mirror.url.at.host, mirror.url.root))
                .collect();
            assert_eq!(
                (found, &plan.falls_back_to),
                (roots.into_iter().map(String::from).collect(), &None),
                "{image}"
            );
            assert_eq!(plan.findings, [], "{image}");
        }
        for (host, why) in [("registry.local", "itself"), ("a b", "")] {
            let error = render(&site, ROOT, &[host.to_owned()], inline).unwrap_err().to_string();
            assert!(error.contains(why), "{host}: {error}");
        }
    }

    #[test]
    fn the_text_is_for_every_release() {
        let site =
            site(&["https://pit.nmn".to_owned(), "https://registry.local".to_owned()], "registry.local");
        let tree = render(&site, ROOT, &["quay.io".to_owned()], inline).unwrap();
        let text = |host: &str| tree.directories[host].files[HOSTS_FILE].clone();
        insta::assert_snapshot!(text("registry.local"), @r#"
        # Written by `countersign node`: changes are lost.
        server = "https://registry.local"
        ca = "e1.pem"
        dial_timeout = "5s"

        [host."https://pit.nmn"]
          capabilities = ["pull", "resolve"]
          ca = "e0.pem"
          dial_timeout = "5s"

        [host."https://registry.local"]
          capabilities = ["pull", "resolve"]
          ca = "e1.pem"
          dial_timeout = "5s"
        "#);
        insta::assert_snapshot!(text("quay.io"), @r#"
        # Written by `countersign node`: changes are lost.
        server = "https://registry.local/v2/quay.io"
        ca = "e1.pem"
        override_path = true
        dial_timeout = "5s"

        [host."https://pit.nmn/v2/quay.io"]
          capabilities = ["pull", "resolve"]
          ca = "e0.pem"
          override_path = true
          dial_timeout = "5s"

        [host."https://registry.local/v2/quay.io"]
          capabilities = ["pull", "resolve"]
          ca = "e1.pem"
          override_path = true
          dial_timeout = "5s"
        "#);
        insta::assert_snapshot!(text(DEFAULT_DIRECTORY), @r#"
        # Written by `countersign node`: changes are lost.
        # A registry that no rule names is not asked: this leads nowhere.
        server = "http://127.0.0.1:9/no-mirror-rule-names-this-registry"

        [host."http://127.0.0.1:9/no-mirror-rule-names-this-registry"]
          capabilities = ["pull", "resolve"]
        "#);
    }

    #[test]
    fn endpoints_that_share_a_url_are_one_host() {
        let urls =
            ["https://registry.local", "https://pit.nmn", "https://registry.local"].map(ToOwned::to_owned);
        let site = site(&urls, "registry.local");
        let tree = render(&site, ROOT, &[], inline).unwrap();
        let text = &tree.directories["registry.local"].files[HOSTS_FILE];
        assert_eq!(text.matches(r#"[host."https://registry.local"]"#).count(), 1, "{text}");
        let plan = tree.plan(&Reference::parse("registry.local/a:1").unwrap()).unwrap();
        let of: Vec<_> = plan.mirrors.iter().map(|mirror| (mirror.url.origin(), mirror.ca.len())).collect();
        assert_eq!(of, [("https://registry.local".to_owned(), 2), ("https://pit.nmn".to_owned(), 1)]);
        assert_eq!((plan.falls_back_to, plan.findings), (None, vec![]));
    }

    #[test]
    fn rules_of_the_old_sort() {
        let site =
            site(&["https://pit.nmn:5000".to_owned(), "https://registry.local".to_owned()], "registry.local");
        let text = legacy(&site, ROOT, &["quay.io".to_owned()]).unwrap();
        insta::assert_snapshot!(text, @r#"
        # Written by `countersign node`: changes are lost.
        # For containerd before 1.5. Never beside `config_path`; a host that is not named here is asked
        # at its upstream.
        version = 2

        [plugins."io.containerd.grpc.v1.cri".registry.mirrors."registry.local"]
          endpoint = ["https://pit.nmn:5000", "https://registry.local"]

        [plugins."io.containerd.grpc.v1.cri".registry.mirrors."quay.io"]
          endpoint = ["https://pit.nmn:5000/v2/quay.io", "https://registry.local/v2/quay.io", "dummy://quay.io"]

        [plugins."io.containerd.grpc.v1.cri".registry.configs."pit.nmn:5000".tls]
          ca_file = "/etc/containerd/certs.d/registry.local/e0.pem"

        [plugins."io.containerd.grpc.v1.cri".registry.configs."registry.local".tls]
          ca_file = "/etc/containerd/certs.d/registry.local/e1.pem"
        "#);
    }

    proptest! {
        #[test]
        fn a_rendered_tree_reads_back_to_the_sites_own_plan(
            urls in proptest::collection::btree_set("https?://[a-z]{1,8}(\\.[a-z]{1,4})?(:[1-9][0-9]{0,3})?(/[a-z]{1,4}){0,2}(/v2)?", 1..4),
            logical in "[a-z]{1,6}\\.local(:5[0-9]{3})?",
        ) {
            let urls: Vec<String> = urls.into_iter().collect();
            let site = site(&urls, &logical);
            let image = Reference::parse(&format!("{logical}/a/b:1")).unwrap();
            let tree = render(&site, ROOT, &["quay.io".to_owned()], inline).unwrap();
            let mut read = tree.plan(&image).unwrap();
            prop_assert_eq!(&read.falls_back_to, &None);
            prop_assert_eq!(&read.findings.iter().filter(|f| f.severity == Severity::FailOpen).count(), &0);
            let directory = &tree.directories[&logical];
            for mirror in &mut read.mirrors {
                // What hosts.toml cannot say, or says by file, is put in its Site form.
                mirror.name = site.registry.endpoints.iter().find(|e| e.url == mirror.url).unwrap().name.clone();
                mirror.addresses = vec!["192.0.2.1".parse().unwrap()];
                for ca in &mut mirror.ca {
                    let Source::File(path) = &*ca else { panic!("{ca:?}") };
                    *ca = Source::Inline(directory.files[path.rsplit('/').next().unwrap()].clone());
                }
            }
            prop_assert_eq!(read.mirrors, of_site(&site, &image).mirrors);
            // An upstream name leads to the same servers, below its path there.
            let upstream = tree.plan(&Reference::parse("quay.io/a/b:1").unwrap()).unwrap();
            let servers = |plan: &Plan| plan.mirrors.iter().map(|mirror| mirror.url.at.clone()).collect::<Vec<_>>();
            prop_assert_eq!(servers(&upstream), servers(&of_site(&site, &image)));
            prop_assert!(upstream.mirrors.iter().all(|mirror| mirror.url.root.ends_with("/quay.io")));
            prop_assert_eq!(upstream.falls_back_to, None);
        }
    }
}
