//! Manifests and indexes: one document has one meaning, whoever reads it.
#![no_main]

use countersign_manifest::{DOCKER_LIST, DOCKER_MANIFEST, Descriptor, Document, INDEX, MANIFEST, is_index};
use libfuzzer_sys::fuzz_target;
use serde_json::{Map, Value};

fuzz_target!(|bytes: &[u8]| {
    let types = [INDEX, DOCKER_LIST, MANIFEST, DOCKER_MANIFEST];
    let read: Vec<(&str, Document)> =
        types.into_iter().filter_map(|kind| Some((kind, Document::parse(bytes, kind).ok()?))).collect();
    let Some((kind, document)) = read.first() else {
        let why = Document::parse(bytes, MANIFEST).map_err(|error| error.to_string().chars().count());
        assert!(why.is_err_and(|length| length <= 400), "what is quoted has an end");
        return;
    };
    for (other, again) in &read {
        assert_eq!(is_index(kind), is_index(other), "a manifest and an index in one");
        assert_eq!(document, again);
    }
    let untyped = Document::parse(bytes, "application/json").is_ok_and(|untyped| untyped != *document);
    assert!(!untyped, "another meaning under a type that is none of these");
    assert!(document.children().is_empty() || document.blobs().next().is_none());

    let Ok(Value::Object(fields)) = serde_json::from_slice(bytes) else { panic!("no JSON object") };
    let printed = Value::Object(fields.clone()).to_string();
    assert_eq!(
        Document::parse(printed.as_bytes(), kind).as_ref(),
        Ok(document),
        "printed anew it says the same"
    );

    // As Go reads it: names folded.
    let list = |name: &str| go(&fields, name).and_then(Value::as_array).cloned().unwrap_or_default();
    let named = |descriptor: &Descriptor| Some(descriptor.digest.to_string());
    let digests = |list: Vec<Value>| -> Vec<Option<String>> {
        let digest = |value: &Value| Some(go(value.as_object()?, "digest")?.as_str()?.to_owned());
        list.iter().map(digest).collect()
    };
    assert_eq!(document.children().iter().map(named).collect::<Vec<_>>(), digests(list("manifests")));
    assert_eq!(document.layers().iter().map(named).collect::<Vec<_>>(), digests(list("layers")));
    let config = go(&fields, "config").filter(|config| !config.is_null()).cloned();
    assert_eq!(document.config().map(named), config.map(|config| digests(vec![config]).remove(0)));
});

/// The field that Go's `encoding/json` takes for this name; the last of them, if there are several.
fn go<'a>(fields: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    let folded = |text: &str| -> String { text.to_uppercase().to_lowercase() };
    fields.iter().filter(|(key, _)| folded(key) == folded(name)).map(|(_, value)| value).next_back()
}
