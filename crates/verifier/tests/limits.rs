//! The page on limits says what the defaults are.

use std::time::Duration;

use countersign_registry::{Limits as RegistryLimits, Timing};
use countersign_signature::Limits;
use countersign_verifier::{HELD_NEGATIVE, Settings};

const PAGE: &str = include_str!("../../../docs/limits.md");

fn bytes(count: usize) -> String {
    match count {
        _ if count.is_multiple_of(1 << 20) => format!("{} MiB", count >> 20),
        _ if count.is_multiple_of(1 << 10) => format!("{} KiB", count >> 10),
        _ => format!("{count} bytes"),
    }
}

fn time(duration: Duration) -> String {
    format!("{} s", duration.as_secs_f64())
}

#[test]
fn the_page_says_what_the_defaults_are() {
    let (registry, timing) = (RegistryLimits::DEFAULT, Timing::DEFAULT);
    let RegistryLimits {
        manifest_bytes,
        referrers_pages,
        referrers,
        redirects,
        image_requests,
        image_bytes,
        endpoint_requests,
        all_requests,
    } = registry;
    let Limits { material_bytes, signatures, operations, subjects } = Limits::DEFAULT;
    let Timing { dial, request, hold_off, patience: _ } = timing;
    let rows = [
        ("manifest_bytes", bytes(manifest_bytes)),
        ("referrers_pages", referrers_pages.to_string()),
        ("referrers", referrers.to_string()),
        ("redirects", redirects.to_string()),
        ("material_bytes", bytes(material_bytes)),
        ("signatures", signatures.to_string()),
        ("operations", operations.to_string()),
        ("subjects", subjects.to_string()),
        ("image_requests", image_requests.to_string()),
        ("image_bytes", bytes(image_bytes)),
        ("image_time", time(Settings::default().image_time)),
        ("endpoint_requests", endpoint_requests.to_string()),
        ("all_requests", all_requests.to_string()),
        ("dial", time(dial)),
        ("request", time(request)),
        ("hold_off", time(hold_off)),
        ("HELD_NEGATIVE", time(HELD_NEGATIVE)),
    ];
    for (name, default) in &rows {
        let row = format!("| `{name}` | {default} |");
        assert!(PAGE.contains(&row), "docs/limits.md has to say {row}");
    }
    let said = PAGE.lines().filter(|line| line.starts_with("| `")).count();
    assert_eq!(said, rows.len(), "docs/limits.md has a row that nothing stands behind");
}
