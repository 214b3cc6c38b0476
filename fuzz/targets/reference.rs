//! Image references and the one mapping of names.
//!
//! The first line is the logical registry, the last one a reference, those between are aliases: `host path`.
#![no_main]

use std::collections::BTreeMap;

use countersign_reference::{Reference, Rewriter};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let mut lines = text.split('\n');
    let (Some(registry), Some(written)) = (lines.next(), lines.next_back()) else { return };
    let Ok(reference) = Reference::parse(written) else { return };
    assert_eq!(
        Reference::parse(&reference.to_string()).as_ref(),
        Ok(&reference),
        "what is printed reads back"
    );
    assert_eq!(reference.clone().with_host().host(), reference.host(), "a host is its own form");
    assert!(reference.same_name_and_tag(&reference.clone().with_default_tag()));

    let aliases: BTreeMap<String, String> = lines
        .map(|line| line.split_once(' ').unwrap_or((line, "")))
        .map(|(host, path)| (host.to_owned(), path.to_owned()))
        .collect();
    let Ok(rewriter) = Rewriter::new(registry, &aliases) else { return };
    let Ok(stored) = rewriter.rewrite(&reference) else { return };
    assert_eq!(stored.domain(), rewriter.registry(), "it lands in the registry");
    assert!(rewriter.is_local(&stored));
    assert_eq!(Reference::parse(&stored.to_string()).as_ref(), Ok(&stored), "a runtime reads the same name");
    assert_eq!(rewriter.rewrite(&stored).as_ref(), Ok(&stored), "it is its own rewriting");
    assert_eq!((stored.digest(), stored.tag()), (reference.digest(), reference.effective_tag()));

    // Rewriting takes no coverage away: the name as written is among those that it may have had.
    let host = reference.host();
    let aliased = aliases
        .keys()
        .any(|alias| Reference::from_parts(alias, "x", None, None).is_ok_and(|alias| alias.host() == host));
    if !rewriter.is_local(&reference) && (aliased || host.contains(['.', ':']) || host == "localhost") {
        let origins = rewriter.origins(&stored);
        let same = |origin: &Reference| origin.host() == host && origin.path() == reference.path();
        assert!(origins.iter().any(same), "{reference} is stored as {stored}, which came from {origins:?}");
    }
});
