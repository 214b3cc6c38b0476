//! Documents with two meanings, named after the attack of `docs/attacks.md`.
#![allow(clippy::unwrap_used, reason = "tests")]

use countersign_manifest::{
    DOCKER_LIST, DOCKER_MANIFEST, Document, DocumentError, INDEX, MANIFEST, MOST_LISTED,
};
use countersign_reference::{Algorithm, Digest};
use proptest::prelude::*;

/// What a document is, or why it is none; `<d>` stands for a descriptor.
fn check(text: &str, media_type: &str) -> String {
    let descriptor = format!(r#"{{"mediaType":"m","digest":"{}","size":1}}"#, Digest::sha256_of(b"x"));
    match Document::parse(text.replace("<d>", &descriptor).as_bytes(), media_type) {
        Ok(document) => format!("{} children, {} blobs", document.children().len(), document.blobs().count()),
        Err(error) => error.to_string(),
    }
}

#[test]
fn t_08_a_document_has_one_meaning() {
    let (both, other) = ("a manifest and an index in one", "the Content-Type is not that of the document");
    let old = "not a manifest of schema version 2";
    for (text, media_type, found) in [
        (r#"{"schemaVersion":2,"manifests":[<d>]}"#, INDEX, "1 children, 0 blobs"),
        (r#"{"schemaVersion":2,"manifests":[<d>]}"#, DOCKER_LIST, "1 children, 0 blobs"),
        (r#"{"schemaVersion":2,"config":<d>,"layers":[<d>,<d>]}"#, MANIFEST, "0 children, 3 blobs"),
        (r#"{"schemaVersion":2,"layers":[<d>]}"#, DOCKER_MANIFEST, "0 children, 1 blobs"),
        (r#"{"schemaVersion":2,"manifests":[],"layers":[]}"#, INDEX, both),
        (r#"{"schemaVersion":2,"manifests":[<d>],"layers":[<d>]}"#, MANIFEST, both),
        (r#"{"schemaVersion":2,"manifests":[],"config":<d>}"#, INDEX, both),
        (r#"{"schemaVersion":2,"manifests":[],"config":<d>}"#, MANIFEST, both),
        (r#"{"schemaVersion":2,"manifests":[]}"#, MANIFEST, other),
        (r#"{"schemaVersion":2,"layers":[]}"#, INDEX, other),
        (r#"{"schemaVersion":2,"layers":[]}"#, DOCKER_LIST, other),
        (r#"{"schemaVersion":2}"#, MANIFEST, other),
        (r#"{"schemaVersion":1,"layers":[]}"#, MANIFEST, old),
        (r#"{"layers":[]}"#, MANIFEST, old),
        (r#"{"schemaVersion":2,"layers":[],"fsLayers":[]}"#, MANIFEST, old),
    ] {
        assert_eq!(check(text, media_type), found, "{text} as {media_type}");
    }
    let typed = format!(r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","layers":[]}}"#);
    assert_eq!(check(&typed, MANIFEST), "0 children, 0 blobs");
    for served in [DOCKER_MANIFEST, INDEX, "text/plain", ""] {
        assert_eq!(check(&typed, served), "the manifest's mediaType is not its Content-Type", "{served}");
    }
    for text in ["<html>", "{", "[]", "[null,2,null,[<d>]]"] {
        assert!(check(text, MANIFEST).starts_with("not a manifest: "), "{text}");
    }
    // Names that Go takes for others, and names that stand twice.
    for text in [
        r#"{"schemaVersion":2,"layers":[],"Layers":[<d>]}"#,
        r#"{"schemaVersion":2,"layers":[],"layerſ":[<d>]}"#,
        r#"{"schemaVersion":2,"config":<d>,"CONFIG":<d>}"#,
        r#"{"schemaVersion":2,"layers":[{"mediaType":"m","digest":"<x>","size":1,"Digest":"<x>"}]}"#,
    ] {
        let text = text.replace("<x>", &Digest::sha256_of(b"x").to_string());
        assert!(check(&text, MANIFEST).contains("a case of its own"), "{text}");
    }
    let annotated = r#"{"schemaVersion":2,"layers":[],"annotations":{"Layers":"x","Size":"y"}}"#;
    assert_eq!(check(annotated, MANIFEST), "0 children, 0 blobs");
    for twice in [
        r#"{"schemaVersion":2,"layers":[],"layers":[<d>]}"#,
        r#"{"schemaVersion":2,"mediaType":"a","mediaType":"b","layers":[]}"#,
    ] {
        assert!(check(twice, MANIFEST).contains("duplicate field"), "{twice}");
    }
}

#[test]
fn t_40_lists_have_an_end() {
    let digest = Digest::sha256_of(b"x");
    let entry = format!(r#"{{"mediaType":"m","digest":"{digest}","size":1}}"#);
    for (length, good) in [(MOST_LISTED, true), (MOST_LISTED + 1, false)] {
        let list = vec![entry.as_str(); length].join(",");
        for (name, media_type) in [("layers", MANIFEST), ("manifests", INDEX)] {
            let text = format!(r#"{{"schemaVersion":2,"{name}":[{list}]}}"#);
            let answer = Document::parse(text.as_bytes(), media_type);
            assert_eq!(answer.is_ok(), good, "{name}: {length}");
            assert!(good || answer == Err(DocumentError::TooMany), "{name}: {length}");
        }
    }
}

#[test]
fn t_08_a_digest_is_no_path_and_of_a_known_hash() {
    let hex = "0123456789abcdef".repeat(4);
    let good = format!("sha256:{hex}");
    let list = |digest: &str| {
        let index = format!(
            r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"m","digest":"{digest}","size":1}}]}}"#
        );
        Document::parse(index.as_bytes(), INDEX).is_ok()
    };
    for digest in [good.clone(), format!("sha512:{hex}{hex}")] {
        assert!(Digest::parse(&digest).is_ok() && list(&digest), "{digest}");
    }
    for bad in [
        String::new(),
        "sha256".to_owned(),
        "sha256:".to_owned(),
        hex.clone(),
        "sha256:../../x".to_owned(),
        // As long as a digest is.
        format!("sha256:{}x", "../".repeat(21)),
        format!("sha256:{}/{}", &hex[..31], &hex[..32]),
        format!("sha256:{}.", &hex[..63]),
        format!("sha256:{}", hex.to_uppercase()),
        format!("sha256:{}", &hex[..63]),
        format!("sha256:{hex}0"),
        format!("sha512:{hex}"),
        format!("sha384:{hex}{}", &hex[..32]),
        format!("md5:{}", &hex[..32]),
        format!("SHA256:{hex}"),
        format!("sha256+b64:{hex}"),
        format!("../sha256:{hex}"),
        format!(" {good}"),
        format!("{good}@{good}"),
    ] {
        assert!(Digest::parse(&bad).is_err(), "{bad}");
        assert!(!list(&bad), "{bad}");
    }
}

proptest! {
    #[test]
    fn what_is_a_digest_is_written_in_one_way(text in "(sha256|sha512|sha1|[a-z]{0,4}):[0-9a-fA-F./]{60,130}|.{0,80}") {
        if let Ok(digest) = Digest::parse(&text) {
            prop_assert_eq!(digest.to_string(), text);
            let length = if digest.algorithm() == Algorithm::Sha256 { 64 } else { 128 };
            prop_assert_eq!(digest.hex().len(), length);
            prop_assert!(digest.hex().bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')));
        }
    }
}
