//! `countersign demo`, where there is nothing but loopback.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::process::Command;
use std::time::Duration;

use countersign_e2e::{assert_isolated, countersign};
use tokio::time::Instant;

#[test]
fn the_demonstration_shows_every_outcome_in_under_ten_seconds() {
    assert_isolated();
    let start = Instant::now();
    let output = Command::new(countersign()).arg("demo").output().unwrap();
    let (time, shown) = (start.elapsed(), String::from_utf8_lossy(&output.stdout));
    assert!(output.status.success(), "{shown}{}", String::from_utf8_lossy(&output.stderr));
    assert!(time < Duration::from_secs(10), "{time:?}");
    for (word, what) in [
        ("admitted", "registry.local/quay.io/acme/rsa:1@sha256:"),
        ("admitted", "registry.local/quay.io/acme/p256:1@sha256:"),
        ("admitted", "registry.local/quay.io/acme/web:2@sha256:"),
        ("denied", "Unsigned: "),
        ("denied", "Rejected: "),
        ("denied", "Refused: "),
        ("admitted", "registry.local/quay.io/acme/unsigned:1"),
        ("admitted", "registry.local/quay.io/acme/db:3@sha256:"),
        ("denied", "Undecided: "),
    ] {
        let found = shown.lines().any(|line| line.contains(&format!(" {word} ")) && line.contains(what));
        assert!(found, "{word}, {what}:\n{shown}");
    }
    for words in ["was denied by check-image/site-keys", "\"verdict\":\"Unsigned\"", "last confirmed at"] {
        assert!(shown.contains(words), "{words}:\n{shown}");
    }
}
