//! A Corefile: the tree says where everything stands, and an override goes without a trace.
#![no_main]

use std::net::{IpAddr, Ipv4Addr};

use countersign_corefile::{Corefile, EditError, Item, Override, clear, expire, find, set};
use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let file = Corefile::parse(text);
    if let Ok(file) = &file {
        spans(text, file);
    }

    let now = Timestamp::UNIX_EPOCH;
    let Ok(until) = Timestamp::from_second(60) else { return };
    let wanted = Override {
        name: "registry.local".to_owned(),
        addresses: vec![IpAddr::V4(Ipv4Addr::new(10, 1, 1, 2))],
        owner: "install-7".to_owned(),
        until,
    };
    // What is there of an earlier one goes first.
    let base = match clear(text, &wanted.name) {
        Ok(base) => base.unwrap_or_else(|| text.to_owned()),
        Err(_) => return,
    };
    let Ok(edit) = set(text, &wanted, now, true) else { return };
    assert!(Corefile::parse(&edit.text).is_ok(), "what is written reads");
    assert_eq!(find(&edit.text, &wanted.name).as_ref(), Ok(&Some(wanted.clone())));
    assert_eq!(clear(&edit.text, &wanted.name), Ok(Some(base.clone())), "byte for byte");
    assert_eq!(
        set(&edit.text, &wanted, now, false).map(|again| again.text).as_ref(),
        Ok(&edit.text),
        "twice is once"
    );
    let another = Override { owner: "somebody".to_owned(), ..wanted.clone() };
    assert!(matches!(set(&edit.text, &another, now, false), Err(EditError::Held { .. })));
    if expire(&base, until) == Ok(None) {
        assert_eq!(expire(&edit.text, until), Ok(Some((base, vec![wanted.name]))));
    }
});

/// Each directive stands where it is said to, and says the same by itself: an override takes them over as they stand.
fn spans(text: &str, file: &Corefile) {
    let mut end = 0;
    for item in &file.items {
        let directives = match item {
            Item::Server(server) if server.braces => &server.directives,
            Item::Snippet { directives, .. } => directives,
            // The last word of a file without braces may be a quote that nobody has closed.
            _ => continue,
        };
        for directive in directives {
            assert!(end <= directive.span.start && directive.span.start < directive.span.end);
            end = directive.span.end;
            let alone = Corefile::parse(&format!("x {{\n{}\n}}", &text[directive.span.clone()]));
            let words: Vec<_> = alone
                .iter()
                .flat_map(Corefile::servers)
                .flat_map(|server| &server.directives)
                .map(|directive| directive.words.as_slice())
                .collect();
            assert_eq!(words, [directive.words.as_slice()], "{alone:?}");
        }
    }
}
