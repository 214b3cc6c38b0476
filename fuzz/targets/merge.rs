//! An object and a patch, strategic or JSON: nothing changes by half, and a plain patch is merged once.
#![no_main]

use countersign_policy::{JsonPatch, merge_patch};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|bytes: &[u8]| {
    let Ok(Value::Array(values)) = serde_json::from_slice(bytes) else { return };
    let [target, patch] = values.as_slice() else { return };

    let mut merged = target.clone();
    match merge_patch(&mut merged, patch) {
        Ok(true) => {}
        Ok(false) | Err(_) => assert_eq!(&merged, target, "nothing changes by half"),
    }
    assert!(
        serde_json::from_str::<Value>(&merged.to_string()).is_ok(),
        "what was merged reads back: {merged}"
    );
    if is_plain(patch) {
        let mut again = merged.clone();
        if merge_patch(&mut again, patch).is_ok() {
            assert_eq!(again, merged, "twice is once");
        }
    }

    let Ok(patch) = JsonPatch::of(patch) else { return };
    let mut patched = target.clone();
    if let Err(error) = patch.apply(&mut patched) {
        assert!(&patched == target && !error.to_string().is_empty(), "{error}");
    }
});

/// Neither anchors nor directives.
fn is_plain(patch: &Value) -> bool {
    match patch {
        Value::Object(fields) => {
            let named = fields.keys().all(|key| !key.contains(['(', '$']));
            named && fields.values().all(is_plain)
        }
        Value::Array(list) => list.iter().all(is_plain),
        _ => true,
    }
}
