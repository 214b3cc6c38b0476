//! The table of tricky references: what distribution/reference's own code answers.

use super::*;
use proptest::prelude::*;

/// `domain · path · tag · digest`, or `error`.
fn check(input: &str, expected: &str) {
    let expand = |text: &str| {
        text.replace("<H>", &"a1".repeat(32))
            .replace("<HU>", &"A1".repeat(32))
            .replace("<H512>", &"b2".repeat(64))
            .replace("<A254>", &"a".repeat(247))
            .replace("<A255>", &"a".repeat(255))
            .replace("<A256>", &"a".repeat(256))
            .replace("<T128>", &"t".repeat(128))
            .replace("<T129>", &"t".repeat(129))
    };
    let (input, expected) = (expand(input), expand(expected));
    let found = match Reference::parse(&input) {
        Ok(r) => {
            let digest = r.digest().map_or("-".to_owned(), ToString::to_string);
            format!("{} · {} · {} · {digest}", r.domain(), r.path(), r.tag().unwrap_or("-"))
        }
        Err(_) => "error".to_owned(),
    };
    assert_eq!(found, expected, "{input}");
}

#[test]
fn tricky_references() {
    for (input, expected) in [
        ("nginx", "docker.io · library/nginx · - · -"),
        ("nginx:1.25", "docker.io · library/nginx · 1.25 · -"),
        ("library/nginx", "docker.io · library/nginx · - · -"),
        ("docker.io/nginx", "docker.io · library/nginx · - · -"),
        ("index.docker.io/nginx:1", "docker.io · library/nginx · 1 · -"),
        ("registry-1.docker.io/library/nginx", "registry-1.docker.io · library/nginx · - · -"),
        ("docker.io/library/library/nginx", "docker.io · library/library/nginx · - · -"),
        ("docker.io/library/nginx:1@sha256:<H>", "docker.io · library/nginx · 1 · sha256:<H>"),
        ("nginx@sha256:<H>", "docker.io · library/nginx · - · sha256:<H>"),
        ("localhost", "docker.io · library/localhost · - · -"),
        ("localhost:5000", "docker.io · library/localhost · 5000 · -"),
        ("localhost/foo", "localhost · foo · - · -"),
        ("localhost:5000/foo", "localhost:5000 · foo · - · -"),
        ("LOCALHOST/foo", "LOCALHOST · foo · - · -"),
        ("registry.local", "docker.io · library/registry.local · - · -"),
        ("registry.local:5000", "docker.io · library/registry.local · 5000 · -"),
        ("registry.local/nginx", "registry.local · nginx · - · -"),
        ("registry.local:5000/a/b/c:1.0", "registry.local:5000 · a/b/c · 1.0 · -"),
        (
            "registry.local/artifactory.algol60.net/csm/foo:1",
            "registry.local · artifactory.algol60.net/csm/foo · 1 · -",
        ),
        ("registry/foo", "docker.io · registry/foo · - · -"),
        ("registry:5000/foo", "registry:5000 · foo · - · -"),
        ("Registry.Local/foo", "Registry.Local · foo · - · -"),
        ("REGISTRY/foo", "REGISTRY · foo · - · -"),
        ("registry.local/Foo", "error"),
        ("127.0.0.1:5000/foo:bar", "127.0.0.1:5000 · foo · bar · -"),
        ("[::1]:5000/foo", "[::1]:5000 · foo · - · -"),
        ("[fe80::1%25eth0]/foo", "error"),
        ("::1/foo", "error"),
        ("registry.local/foo:tag@sha256:<H>", "registry.local · foo · tag · sha256:<H>"),
        ("registry.local/foo@sha256:<H>:tag", "error"),
        ("registry.local/foo@sha512:<H512>", "registry.local · foo · - · sha512:<H512>"),
        ("registry.local/foo@sha384:<H>", "error"),
        ("registry.local/foo@sha256:<HU>", "error"),
        ("registry.local/foo@sha256:abcd", "error"),
        ("registry.local/foo:", "error"),
        ("registry.local/foo@", "error"),
        ("registry.local//foo", "error"),
        ("registry.local/foo/", "error"),
        ("/foo", "error"),
        ("docker.io/", "error"),
        ("foo__bar", "docker.io · library/foo__bar · - · -"),
        ("foo___bar", "error"),
        ("foo._bar", "error"),
        ("foo..bar", "error"),
        ("foo--bar", "docker.io · library/foo--bar · - · -"),
        ("foo-", "error"),
        ("_foo", "error"),
        ("foo.bar", "docker.io · library/foo.bar · - · -"),
        ("foo.bar/baz", "foo.bar · baz · - · -"),
        ("registry.local/foo:.tag", "error"),
        ("registry.local/foo:_tag", "registry.local · foo · _tag · -"),
        ("registry.local/foo:TAG", "registry.local · foo · TAG · -"),
        ("registry.local/foo:v1+build", "error"),
        ("registry.local/foo:<T128>", "registry.local · foo · <T128> · -"),
        ("registry.local/foo:<T129>", "error"),
        ("<A254>", "docker.io · library/<A254> · - · -"),
        ("<A255>", "error"),
        ("registry.local/<A255>", "registry.local · <A255> · - · -"),
        ("registry.local/<A256>", "error"),
        ("<H>", "error"),
        ("library/<H>", "docker.io · library/<H> · - · -"),
        ("sha256:<H>", "docker.io · library/sha256 · <H> · -"),
        ("https://registry.local/foo", "error"),
        ("registry.local./foo", "error"),
        ("registry_local/foo", "docker.io · registry_local/foo · - · -"),
        // distribution answers with an empty domain, containerd pulls from registry_local.x: refused.
        ("registry_local.x/foo", "error"),
        ("registry-.local/foo", "error"),
        ("registry.local:99999/foo", "registry.local:99999 · foo · - · -"),
        ("registry.local:/foo", "error"),
        ("registry.local:abc/foo", "error"),
        ("user@registry.local/foo", "error"),
        ("registry.local/pit.nmn:5000/foo", "error"),
        ("gcr.io/p/img:tag:extra", "error"),
        ("nginx ", "error"),
        ("nginx\n", "error"),
        ("registry.local/föö", "error"),
        ("1.2/foo", "1.2 · foo · - · -"),
        ("1/foo", "docker.io · 1/foo · - · -"),
        ("*.local/foo", "error"),
    ] {
        check(input, expected);
    }
}

#[test]
fn hosts_compare_without_case_port_443_and_hub_names() {
    for (spelling, host) in [
        ("Registry.Local/x", "registry.local"),
        ("registry.local:443/x", "registry.local"),
        ("registry.local:8443/x", "registry.local:8443"),
        ("registry-1.docker.io/library/x", "docker.io"),
        ("x", "docker.io"),
    ] {
        assert_eq!(Reference::parse(spelling).unwrap().host(), host);
    }
}

proptest! {
    #[test]
    fn what_parses_reads_back(text in "[a-zA-Z0-9._:/@\\[\\]-]{0,60}") {
        if let Ok(reference) = Reference::parse(&text) {
            prop_assert_eq!(&Reference::parse(&reference.to_string()).unwrap(), &reference);
        }
    }

    #[test]
    fn nothing_panics(text in any::<String>()) {
        let _ = Reference::parse(&text);
    }
}
