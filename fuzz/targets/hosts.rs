//! A `hosts.toml`: the first line is an image, the rest is the file.
#![no_main]

use countersign_mirrors::{DEFAULT_DIRECTORY, Directory, HOSTS_FILE, Release, SINK, Severity, Tree};
use countersign_reference::Reference;
use countersign_site::RegistryUrl;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Some((image, rules)) = text.split_once('\n') else { return };
    let Ok(image) = Reference::parse(image) else { return };
    let directory = Directory { files: [(HOSTS_FILE.to_owned(), rules.to_owned())].into() };
    let of = |name: &str| Tree {
        root: "/certs.d".to_owned(),
        directories: [(name.to_owned(), directory.clone())].into(),
    };

    let tree = of(DEFAULT_DIRECTORY);
    for release in [Release(1, 6), Release(2, 0), Release(2, 1), Release(2, 2), Release(2, 4)] {
        _ = tree.findings(release);
    }
    _ = of(image.domain()).findings(Release(2, 4));

    let plan = tree.plan(&image);
    let by_name = of(image.domain()).plan(&image);
    assert_eq!(plan.is_ok(), by_name.is_ok(), "the directory's name makes no difference to what is in it");
    let Ok(plan) = plan else { return };
    assert_eq!(by_name.map(|plan| plan.mirrors.len()), Ok(plan.mirrors.len()));
    assert!(plan.mirrors.len() <= rules.matches('[').count() + 1, "a mirror for each table, and the server");
    assert!(plan.findings.len() <= rules.len() + 8);
    let asked = image.domain();
    for mirror in &plan.mirrors {
        let text = format!("{}{}", mirror.url.origin(), mirror.url.root);
        assert_eq!(RegistryUrl::parse_with(&text, true).as_ref(), Ok(&mirror.url));
        assert!(RegistryUrl::parse(SINK).is_ok_and(|sink| sink != mirror.url), "nobody listens there");
        let host = mirror.url.at.to_string();
        assert!(Reference::from_parts(&host, "x", None, None).is_ok(), "`{host}` is no host");
        assert!(mirror.namespace.as_deref().is_none_or(|host| host == asked));
    }
    let told = plan.findings.iter().any(|finding| finding.severity == Severity::FailOpen);
    assert!(plan.falls_back_to.is_none() || told, "that pulls may leave the site is told");
});
