//! A `WWW-Authenticate` header.
#![no_main]

use countersign_registry::Challenge;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(header) = std::str::from_utf8(bytes) else { return };
    let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    let Some(challenge) = Challenge::find([header]) else { return };

    let mut printed = format!("Bearer realm={}", quoted(&challenge.realm));
    for (name, value) in [("service", &challenge.service), ("scope", &challenge.scope)] {
        printed.extend(value.iter().map(|value| format!(",{name}={}", quoted(value))));
    }
    let found = |headers: &[&str]| Challenge::find(headers.iter().copied());
    assert_eq!(found(&[&printed]).as_ref(), Some(&challenge), "what is printed reads back");
    let beside = format!("Basic realm={}, {printed}, Digest realm=\"x\", service=\"y\"", quoted(header));
    assert_eq!(found(&[&beside]).as_ref(), Some(&challenge), "the words of others change nothing");
    assert_eq!(found(&["Basic realm=\"x\"", &printed]).as_ref(), Some(&challenge));

    let url = challenge.url();
    let Some(query) = url.strip_prefix(&challenge.realm) else { panic!("{url} is another realm") };
    assert!(query.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~:/%?&=".contains(&b)), "{query}");
    let given = challenge.service.iter().chain(&challenge.scope).count();
    assert_eq!(query.matches('=').count(), given, "a value adds no parameter of its own");
});
