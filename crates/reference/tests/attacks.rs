//! Names of images that are not what they seem, each test named after the attack of
//! `docs/attacks.md`.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::sync::mpsc;
use std::time::Duration;

use countersign_reference::{ParseError, Reference, Rewriter, wildcard_match};
use proptest::prelude::*;

fn rewriter() -> Rewriter {
    let aliases = BTreeMap::from([("dtr.dev.cray.com".to_owned(), String::new())]);
    Rewriter::new("registry.local", &aliases).unwrap()
}

#[test]
fn t_21_no_host_is_another_by_a_part_of_its_name() {
    let rewriter = rewriter();
    for (written, stored) in [
        ("registry.local.evil.com/x:1", "registry.local/registry.local.evil.com/x:1"),
        ("registry.local.evil.com:443/x:1", "registry.local/registry.local.evil.com/x:1"),
        ("registry.localevil/x:1", "registry.local/registry.localevil/x:1"),
        ("evil.registry.local/x:1", "registry.local/evil.registry.local/x:1"),
        ("evilregistry.local/x:1", "registry.local/evilregistry.local/x:1"),
        ("registry.loc/x:1", "registry.local/registry.loc/x:1"),
        ("registry/x:1", "registry.local/docker.io/registry/x:1"),
        ("registry.local-/x:1", ""),
        ("xdtr.dev.cray.com/x:1", "registry.local/xdtr.dev.cray.com/x:1"),
        ("dtr.dev.cray.com.evil/x:1", "registry.local/dtr.dev.cray.com.evil/x:1"),
        // A port is part of a host, save the one that https has anyway.
        ("registry.local:443/x:1", "registry.local/x:1"),
        ("registry.local:8443/x:1", "registry.local/registry.local_8443/x:1"),
        ("registry.local:4430/x:1", "registry.local/registry.local_4430/x:1"),
        ("dtr.dev.cray.com:5000/x:1", "registry.local/dtr.dev.cray.com_5000/x:1"),
        // Case is none.
        ("Registry.Local/x:1", "registry.local/x:1"),
        ("REGISTRY.LOCAL:443/x:1", "registry.local/x:1"),
        ("DTR.dev.cray.com/x:1", "registry.local/x:1"),
        // What looks like the name and is another, or none.
        ("xn--regstry-j1a.local/x:1", "registry.local/xn--regstry-j1a.local/x:1"),
        ("reg\u{131}stry.local/x:1", ""),
        ("registry.local\u{2024}evil/x:1", ""),
        ("registry.local./x:1", ""),
        ("registry.local:5000@evil/x", ""),
        ("registry.local@evil.com/x", ""),
        ("user@registry.local/x", ""),
        ("registry.local:443:443/x", ""),
        ("registry.local%2fevil/x", ""),
        ("https://registry.local/x", ""),
        ("registry.local\\evil/x", ""),
        (" registry.local/x", ""),
        // The registry's name in a path is a path.
        ("evil.com/registry.local/x:1", "registry.local/evil.com/registry.local/x:1"),
        ("registry.local/registry.local/x:1", "registry.local/registry.local/x:1"),
    ] {
        match Reference::parse(written) {
            Ok(reference) => {
                let found = rewriter.rewrite(&reference).unwrap();
                assert_eq!(found.to_string(), stored, "{written}");
                assert_eq!(rewriter.is_local(&reference), reference.host() == "registry.local", "{written}");
            }
            Err(error) => assert_eq!(stored, "", "{written}: {error}"),
        }
    }
}

proptest! {
    #[test]
    fn whatever_is_written_is_stored_in_our_registry_or_is_an_error(
        before in "[a-zA-Z0-9.:@_-]{0,6}",
        after in "[a-zA-Z0-9.:@_-]{0,6}",
        path in "[a-z0-9/:@_.-]{1,12}",
    ) {
        let written = format!("{before}registry.local{after}/{path}");
        if let Ok(reference) = Reference::parse(&written) {
            let stored = rewriter().rewrite(&reference).unwrap();
            prop_assert_eq!(stored.domain(), "registry.local");
            let read = Reference::parse(&stored.to_string()).unwrap();
            prop_assert_eq!(&read, &stored);
            prop_assert_eq!(&rewriter().rewrite(&read).unwrap(), &stored);
            // Only our own host keeps its path.
            let own = before.is_empty() && (after.is_empty() || after == ":443");
            prop_assert_eq!(stored.path() == reference.path(), own, "{}", written);
        }
    }
}

/// Names, each with what Go's code makes of it: distribution's `ParseNormalizedNamed` as domain,
/// path, tag and digest, and what containerd's CRI (`ParseDockerRef`) pulls.
///
/// `<H>` are 64 hexadecimal digits, `<HU>` the same in upper case, `<H512>` 128 of them; `<A…>`
/// and `<T…>` are that many letters.
const TRICKY: &[(&str, &str, &str)] = &[
    ("nginx", "docker.io · library/nginx · - · -", "docker.io/library/nginx:latest"),
    ("nginx:1.25", "docker.io · library/nginx · 1.25 · -", "docker.io/library/nginx:1.25"),
    ("library/nginx", "docker.io · library/nginx · - · -", "docker.io/library/nginx:latest"),
    ("docker.io/nginx", "docker.io · library/nginx · - · -", "docker.io/library/nginx:latest"),
    ("index.docker.io/nginx:1", "docker.io · library/nginx · 1 · -", "docker.io/library/nginx:1"),
    (
        "registry-1.docker.io/library/nginx",
        "registry-1.docker.io · library/nginx · - · -",
        "registry-1.docker.io/library/nginx:latest",
    ),
    (
        "docker.io/library/library/nginx",
        "docker.io · library/library/nginx · - · -",
        "docker.io/library/library/nginx:latest",
    ),
    (
        "docker.io/library/nginx:1@sha256:<H>",
        "docker.io · library/nginx · 1 · sha256:<H>",
        "docker.io/library/nginx@sha256:<H>",
    ),
    ("nginx@sha256:<H>", "docker.io · library/nginx · - · sha256:<H>", "docker.io/library/nginx@sha256:<H>"),
    ("localhost", "docker.io · library/localhost · - · -", "docker.io/library/localhost:latest"),
    ("localhost:5000", "docker.io · library/localhost · 5000 · -", "docker.io/library/localhost:5000"),
    ("localhost/foo", "localhost · foo · - · -", "localhost/foo:latest"),
    ("localhost:5000/foo", "localhost:5000 · foo · - · -", "localhost:5000/foo:latest"),
    ("LOCALHOST/foo", "LOCALHOST · foo · - · -", "LOCALHOST/foo:latest"),
    (
        "registry.local",
        "docker.io · library/registry.local · - · -",
        "docker.io/library/registry.local:latest",
    ),
    (
        "registry.local:5000",
        "docker.io · library/registry.local · 5000 · -",
        "docker.io/library/registry.local:5000",
    ),
    ("registry.local/nginx", "registry.local · nginx · - · -", "registry.local/nginx:latest"),
    (
        "registry.local:5000/a/b/c:1.0",
        "registry.local:5000 · a/b/c · 1.0 · -",
        "registry.local:5000/a/b/c:1.0",
    ),
    (
        "registry.local/artifactory.algol60.net/csm/foo:1",
        "registry.local · artifactory.algol60.net/csm/foo · 1 · -",
        "registry.local/artifactory.algol60.net/csm/foo:1",
    ),
    ("registry/foo", "docker.io · registry/foo · - · -", "docker.io/registry/foo:latest"),
    ("registry:5000/foo", "registry:5000 · foo · - · -", "registry:5000/foo:latest"),
    ("Registry.Local/foo", "Registry.Local · foo · - · -", "Registry.Local/foo:latest"),
    ("REGISTRY/foo", "REGISTRY · foo · - · -", "REGISTRY/foo:latest"),
    ("registry.local/Foo", "error", "error"),
    ("127.0.0.1:5000/foo:bar", "127.0.0.1:5000 · foo · bar · -", "127.0.0.1:5000/foo:bar"),
    ("[::1]:5000/foo", "[::1]:5000 · foo · - · -", "[::1]:5000/foo:latest"),
    ("[fe80::1%25eth0]/foo", "error", "error"),
    ("::1/foo", "error", "error"),
    (
        "registry.local/foo:tag@sha256:<H>",
        "registry.local · foo · tag · sha256:<H>",
        "registry.local/foo@sha256:<H>",
    ),
    ("registry.local/foo@sha256:<H>:tag", "error", "error"),
    (
        "registry.local/foo@sha512:<H512>",
        "registry.local · foo · - · sha512:<H512>",
        "registry.local/foo@sha512:<H512>",
    ),
    ("registry.local/foo@sha384:<H>", "error", "error"),
    ("registry.local/foo@sha256:<HU>", "error", "error"),
    ("registry.local/foo@sha256:abcd", "error", "error"),
    ("registry.local/foo:", "error", "error"),
    ("registry.local/foo@", "error", "error"),
    ("registry.local//foo", "error", "error"),
    ("registry.local/foo/", "error", "error"),
    ("/foo", "error", "error"),
    ("docker.io/", "error", "error"),
    ("foo__bar", "docker.io · library/foo__bar · - · -", "docker.io/library/foo__bar:latest"),
    ("foo___bar", "error", "error"),
    ("foo._bar", "error", "error"),
    ("foo..bar", "error", "error"),
    ("foo--bar", "docker.io · library/foo--bar · - · -", "docker.io/library/foo--bar:latest"),
    ("foo-", "error", "error"),
    ("_foo", "error", "error"),
    ("foo.bar", "docker.io · library/foo.bar · - · -", "docker.io/library/foo.bar:latest"),
    ("foo.bar/baz", "foo.bar · baz · - · -", "foo.bar/baz:latest"),
    ("registry.local/foo:.tag", "error", "error"),
    ("registry.local/foo:_tag", "registry.local · foo · _tag · -", "registry.local/foo:_tag"),
    ("registry.local/foo:TAG", "registry.local · foo · TAG · -", "registry.local/foo:TAG"),
    ("registry.local/foo:v1+build", "error", "error"),
    ("registry.local/foo:<T128>", "registry.local · foo · <T128> · -", "registry.local/foo:<T128>"),
    ("registry.local/foo:<T129>", "error", "error"),
    ("<A255>", "error", "error"),
    ("registry.local/<A255>", "registry.local · <A255> · - · -", "registry.local/<A255>:latest"),
    ("registry.local/<A256>", "error", "error"),
    ("<H>", "error", "error"),
    ("library/<H>", "docker.io · library/<H> · - · -", "docker.io/library/<H>:latest"),
    ("sha256:<H>", "docker.io · library/sha256 · <H> · -", "docker.io/library/sha256:<H>"),
    ("https://registry.local/foo", "error", "error"),
    ("registry.local./foo", "error", "error"),
    ("registry_local/foo", "docker.io · registry_local/foo · - · -", "docker.io/registry_local/foo:latest"),
    ("registry_local.x/foo", "∅ · registry_local.x/foo · - · -", "registry_local.x/foo:latest"),
    ("registry-.local/foo", "error", "error"),
    ("registry.local:99999/foo", "registry.local:99999 · foo · - · -", "registry.local:99999/foo:latest"),
    ("registry.local:/foo", "error", "error"),
    ("registry.local:abc/foo", "error", "error"),
    ("user@registry.local/foo", "error", "error"),
    ("registry.local/pit.nmn:5000/foo", "error", "error"),
    ("gcr.io/p/img:tag:extra", "error", "error"),
    ("nginx ", "error", "error"),
    ("nginx\n", "error", "error"),
    ("registry.local/föö", "error", "error"),
    ("1.2/foo", "1.2 · foo · - · -", "1.2/foo:latest"),
    ("1/foo", "docker.io · 1/foo · - · -", "docker.io/1/foo:latest"),
    ("*.local/foo", "error", "error"),
];

fn expand(text: &str) -> String {
    text.replace("<HU>", &"A1".repeat(32))
        .replace("<H512>", &"b2".repeat(64))
        .replace("<H>", &"a1".repeat(32))
        .replace("<A255>", &"a".repeat(255))
        .replace("<A256>", &"a".repeat(256))
        .replace("<T128>", &"t".repeat(128))
        .replace("<T129>", &"t".repeat(129))
}

#[test]
fn t_22_a_name_means_what_the_runtime_pulls() {
    for (input, distribution, containerd) in TRICKY {
        let [input, distribution, containerd] = [input, distribution, containerd].map(|text| expand(text));
        let Ok(reference) = Reference::parse(&input) else {
            // What either refuses, or what the two read differently.
            assert!(
                [&distribution, &containerd].iter().any(|found| *found == "error")
                    || distribution.starts_with('∅'),
                "{input} is refused here alone"
            );
            continue;
        };
        let or_none = |part: Option<&str>| part.unwrap_or("-").to_owned();
        let digest = reference.digest().map(ToString::to_string);
        let parts = [
            reference.domain().to_owned(),
            reference.path().to_owned(),
            or_none(reference.tag()),
            or_none(digest.as_deref()),
        ];
        assert_eq!(parts.join(" · "), distribution, "{input}");
        // containerd leaves the tag out where there is a digest.
        let pulled = match &digest {
            Some(digest) => format!("{}@{digest}", reference.name()),
            None => format!("{}:{}", reference.name(), reference.effective_tag().unwrap()),
        };
        assert_eq!(pulled, containerd, "{input}");
    }
    let two_meanings = Reference::parse("registry_local.x/foo").unwrap_err();
    assert!(matches!(two_meanings, ParseError::AmbiguousDomain(_)), "{two_meanings}");
}

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "a match that does not end must not keep the test from failing"
)]
fn t_40_patterns_of_many_stars_are_matched_at_once() {
    let (done, end) = mpsc::channel();
    std::thread::spawn(move || {
        let text = format!("registry.local/{}", "a".repeat(1000));
        for pattern in [format!("{}b", "*a".repeat(50)), "*a?".repeat(50) + "b", "*".repeat(1000) + "b"] {
            assert!(!wildcard_match(&pattern, &text), "{pattern}");
        }
        assert!(wildcard_match(&"*a".repeat(50), &text));
        done.send(()).unwrap();
    });
    // Trying every way to divide the text among the stars would take longer than anybody waits.
    assert_eq!(end.recv_timeout(Duration::from_secs(10)), Ok(()));
}
