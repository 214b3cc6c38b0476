//! The text of a Site: what parses has only usable parts, and nodes get rules that lead where it says.
#![no_main]

use std::collections::BTreeSet;
use std::time::Duration;

use countersign_mirrors::{Release, of_site, render};
use countersign_reference::Reference;
use countersign_site::{HostPort, RegistryUrl, Scheme, Site};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let site = match Site::parse(text) {
        Ok(site) => site,
        Err(problems) => {
            assert!(!problems.0.is_empty() && problems.0.iter().all(|problem| !problem.message.is_empty()));
            return;
        }
    };
    parts(&site);
    let rewriter = &site.rewrite.rewriter;
    assert_eq!(rewriter.registry(), site.registry.name);
    for written in ["nginx", "quay.io/a/b:1"] {
        let Ok(image) = Reference::parse(written) else { panic!("{written}") };
        let Ok(stored) = rewriter.rewrite(&image) else { continue };
        assert_eq!(
            Reference::parse(&stored.to_string()).as_ref(),
            Ok(&stored),
            "a runtime reads the same name"
        );
        assert_eq!(rewriter.rewrite(&stored).as_ref(), Ok(&stored));
        rules(&site, &stored);
    }
});

fn parts(site: &Site) {
    assert!(!site.registry.endpoints.is_empty());
    let names: BTreeSet<&str> =
        site.registry.endpoints.iter().map(|endpoint| endpoint.name.as_str()).collect();
    assert_eq!(names.len(), site.registry.endpoints.len(), "one name, one endpoint");
    for endpoint in &site.registry.endpoints {
        assert_eq!(RegistryUrl::parse(&endpoint.url.to_string()).as_ref(), Ok(&endpoint.url));
        assert_eq!(endpoint.ca.is_some(), endpoint.url.scheme == Scheme::Https, "TLS has its CA");
        for host in &endpoint.allow_hosts {
            assert_eq!(HostPort::parse(&host.to_string(), 1).as_ref(), Ok(host));
        }
    }
    assert!(site.trust.bundle_keys.iter().all(|name| site.trust.keys.contains_key(name)));
    assert!(site.tag_freshness <= Duration::from_mins(5));
    for image in &site.nodes.images {
        assert_eq!(Reference::parse(&image.to_string()).as_ref(), Ok(image));
    }
    assert!(site.nodes.hosts.iter().all(|host| Reference::from_parts(host, "x", None, None).is_ok()));
}

/// The rules that a node gets lead to the Site's endpoints, and nowhere else.
fn rules(site: &Site, stored: &Reference) {
    let tree = match render(site, "/certs.d", &site.nodes.hosts, |_| Some("a CA".to_owned())) {
        Ok(tree) => tree,
        Err(error) => panic!("{error}"),
    };
    for release in [Release(1, 7), Release(2, 4)] {
        _ = tree.findings(release);
    }
    for (name, directory) in &tree.directories {
        let mut files = directory.files.keys().chain([name]);
        assert!(files.all(|file| !file.contains('/') && file != ".."), "{tree:?}");
    }
    let endpoints = of_site(site, stored).mirrors;
    let upstream = site.nodes.hosts.iter().map(|host| Reference::from_parts(host, "x", None, None).ok());
    for image in upstream.chain([Some(stored.clone())]).flatten() {
        let plan = match tree.plan(&image) {
            Ok(plan) => plan,
            Err(error) => panic!("{error}"),
        };
        assert_eq!(plan.falls_back_to, None, "{plan:?}");
        let asked: BTreeSet<&HostPort> = plan.mirrors.iter().map(|mirror| &mirror.url.at).collect();
        let named: BTreeSet<&HostPort> = endpoints.iter().map(|mirror| &mirror.url.at).collect();
        assert_eq!(asked, named, "{image}");
        assert_eq!(
            plan.mirrors.first().map(|mirror| &mirror.url.at),
            endpoints.first().map(|mirror| &mirror.url.at)
        );
    }
}
