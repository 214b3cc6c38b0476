//! The tree that makes a runtime ask what the Site says.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use countersign_site::{Endpoint, Site, Source};

use crate::tree::{Directory, HOSTS_FILE, Tree};

/// The rules for the logical registry, valid for containerd 1.6 to 2.4.
///
/// `ca` gives the text of a CA; it is written beside `hosts.toml` under the endpoint's name.
/// The last endpoint is the `server`, which leaves no room for an upstream; it is also the
/// last `host`, because containerd 1.x ignores a file without a host table.
pub fn render(site: &Site, root: &str, mut ca: impl FnMut(&Source) -> Option<String>) -> Tree {
    let mut files = BTreeMap::new();
    let mut text = String::new();
    let mut ca_file = |endpoint: &Endpoint| {
        let content = ca(endpoint.ca.as_ref()?)?;
        let name = format!("{}.pem", endpoint.name);
        files.insert(name.clone(), content);
        Some(name)
    };
    let endpoints = &site.registry.endpoints;
    if let Some(last) = endpoints.last() {
        _ = writeln!(text, "server = {:?}", last.url.to_string());
        if let Some(file) = ca_file(last) {
            _ = writeln!(text, "ca = {file:?}");
        }
        if last.url.to_string() != last.url.origin() {
            _ = writeln!(text, "override_path = true");
        }
    }
    for endpoint in endpoints {
        _ = writeln!(text, "\n[host.{:?}]", endpoint.url.to_string());
        _ = writeln!(text, "  capabilities = [\"pull\", \"resolve\"]");
        if let Some(file) = ca_file(endpoint) {
            _ = writeln!(text, "  ca = {file:?}");
        }
        if endpoint.url.to_string() != endpoint.url.origin() {
            _ = writeln!(text, "  override_path = true");
        }
    }
    files.insert(HOSTS_FILE.to_owned(), text);
    let directories = [(site.registry.name.clone(), Directory { files })].into();
    Tree { root: root.to_owned(), directories }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::of_site;
    use countersign_reference::Reference;
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

    proptest! {
        #[test]
        fn a_rendered_tree_reads_back_to_the_sites_own_plan(
            urls in proptest::collection::btree_set("https?://[a-z]{1,8}(\\.[a-z]{1,4})?(:[1-9][0-9]{0,3})?(/[a-z]{1,4}){0,2}(/v2)?", 1..4),
            logical in "[a-z]{1,6}\\.local(:[1-9][0-9]{2})?",
        ) {
            let urls: Vec<String> = urls.into_iter().collect();
            let site = site(&urls, &logical);
            let image = Reference::parse(&format!("{logical}/a/b:1")).unwrap();
            let tree = render(&site, "/etc/containerd/certs.d", |source| match source {
                Source::Inline(text) => Some(text.clone()),
                _ => None,
            });
            let mut read = tree.plan(&image).unwrap();
            prop_assert_eq!(&read.falls_back_to, &None);
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
        }
    }
}
