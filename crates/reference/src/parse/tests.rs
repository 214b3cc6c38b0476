//! The edges of the grammar; names that are tricky are in `tests/attacks.rs`.

use super::*;
use proptest::prelude::*;

#[test]
fn a_path_has_255_bytes_with_library_in_it() {
    for (name, fits) in [
        ("a".repeat(247), true),
        ("a".repeat(248), false),
        (format!("registry.local/{}", "a".repeat(255)), true),
        (format!("registry.local/{}", "a".repeat(256)), false),
    ] {
        assert_eq!(Reference::parse(&name).is_ok(), fits, "{name}");
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
