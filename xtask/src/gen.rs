//! `gen`: what is generated from published definitions, written where it is checked in.
//!
//! Merge keys of the Kubernetes types come from the OpenAPI document of the Kubernetes that the tests run
//! (`e2e/tools/kubernetes`). Types below which nothing merges by a key are left out.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Map, Value, json};

use crate::root;

const MERGE_KEYS: &str = "crates/policy/data/merge-keys.json";
/// What all names of types begin with; left out.
const PREFIX: &str = "io.k8s.";

/// Writes every generated file, or says which one is not what would be written.
pub(crate) fn generate(check: bool) -> Result<()> {
    let text = merge_keys()?;
    let path = root().join(MERGE_KEYS);
    if check {
        let is = std::fs::read_to_string(&path).with_context(|| MERGE_KEYS.to_owned())?;
        ensure!(is == text, "{MERGE_KEYS} is not what `cargo xtask gen` writes");
        return Ok(());
    }
    std::fs::write(&path, text).with_context(|| MERGE_KEYS.to_owned())
}

/// The directory of the pinned module, and its version.
fn kubernetes() -> Result<(PathBuf, String)> {
    let mut command = Command::new("go");
    command.args(["mod", "download", "-json", "k8s.io/kubernetes"]);
    let output =
        command.current_dir(root().join("e2e/tools/kubernetes")).output().context("cannot run go")?;
    if !output.status.success() {
        bail!("go mod download: {}", String::from_utf8_lossy(&output.stderr));
    }
    let said: Value = serde_json::from_slice(&output.stdout).context("go mod download")?;
    let word = |name: &str| said[name].as_str().map(ToOwned::to_owned).context("go mod download");
    Ok((word("Dir")?.into(), word("Version")?))
}

/// A type: its fields, each with the type below it and the keys that its list merges by.
type Fields = BTreeMap<String, (Option<String>, Option<Vec<String>>)>;

fn merge_keys() -> Result<String> {
    let (directory, version) = kubernetes()?;
    let file = directory.join("api/openapi-spec/swagger.json");
    let text = std::fs::read(&file).with_context(|| file.display().to_string())?;
    let document: Value = serde_json::from_slice(&text)?;
    let definitions = document["definitions"].as_object().context("no definitions")?;
    let mut types: BTreeMap<String, Fields> = BTreeMap::new();
    let mut kinds: BTreeMap<String, String> = BTreeMap::new();
    for (name, definition) in definitions {
        let name = short(name);
        for kind in definition["x-kubernetes-group-version-kind"].as_array().into_iter().flatten() {
            let word = |field: &str| kind[field].as_str().unwrap_or_default();
            let group = if word("group").is_empty() { String::new() } else { format!("{}/", word("group")) };
            kinds.insert(format!("{group}{}/{}", word("version"), word("kind")), name.clone());
        }
        types.insert(name, fields(definition));
    }
    keep_what_merges(&mut types);
    kinds.retain(|_, name| types.contains_key(name));
    keep_reachable(&mut types, &kinds);
    Ok(render(&version, &kinds, &types))
}

fn short(name: &str) -> String {
    name.strip_prefix(PREFIX).unwrap_or(name).to_owned()
}

fn fields(definition: &Value) -> Fields {
    let mut fields = Fields::new();
    let properties = definition["properties"].as_object().into_iter().flatten();
    for (name, field) in properties {
        let strategies = field["x-kubernetes-patch-strategy"].as_str().unwrap_or_default();
        let by = strategies.split(',').any(|strategy| strategy == "merge").then(|| keys(field));
        fields.insert(name.clone(), (below(field), by));
    }
    // Any name.
    if let Some(of) = below(&definition["additionalProperties"]) {
        fields.insert("*".to_owned(), (Some(of), None));
    }
    fields
}

/// The keys of a list; a list of scalars has none.
fn keys(field: &Value) -> Vec<String> {
    let texts = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(Value::as_str).map(ToOwned::to_owned).collect()
    };
    let several = texts(&field["x-kubernetes-list-map-keys"]);
    if several.is_empty() {
        field["x-kubernetes-patch-merge-key"].as_str().map(ToOwned::to_owned).into_iter().collect()
    } else {
        several
    }
}

fn below(field: &Value) -> Option<String> {
    let places = [field, &field["items"], &field["additionalProperties"]];
    let reference = places.into_iter().find_map(|place| place["$ref"].as_str())?;
    Some(short(reference.strip_prefix("#/definitions/")?))
}

/// Leaves the types and fields below which something merges by a key.
fn keep_what_merges(types: &mut BTreeMap<String, Fields>) {
    let mut merging: BTreeSet<String> = BTreeSet::new();
    loop {
        let before = merging.len();
        for (name, fields) in &*types {
            let merges = |(of, by): &(Option<String>, Option<Vec<String>>)| {
                by.is_some() || of.as_ref().is_some_and(|of| merging.contains(of))
            };
            if fields.values().any(merges) {
                merging.insert(name.clone());
            }
        }
        if merging.len() == before {
            break;
        }
    }
    types.retain(|name, _| merging.contains(name));
    for fields in types.values_mut() {
        for (of, _) in fields.values_mut() {
            of.take_if(|of| !merging.contains(of));
        }
        fields.retain(|_, (of, by)| of.is_some() || by.is_some());
    }
}

fn keep_reachable(types: &mut BTreeMap<String, Fields>, kinds: &BTreeMap<String, String>) {
    let mut todo: Vec<String> = kinds.values().cloned().collect();
    let mut reached = BTreeSet::new();
    while let Some(name) = todo.pop() {
        if reached.insert(name.clone()) {
            let fields = types.get(&name).into_iter().flat_map(BTreeMap::values);
            todo.extend(fields.filter_map(|(of, _)| of.clone()));
        }
    }
    types.retain(|name, _| reached.contains(name));
}

/// JSON with a kind or type in each line.
fn render(version: &str, kinds: &BTreeMap<String, String>, types: &BTreeMap<String, Fields>) -> String {
    let mut text =
        format!("{{\n\"source\": {},\n", json!(format!("k8s.io/kubernetes {version}, by `cargo xtask gen`")));
    let kinds: Vec<String> =
        kinds.iter().map(|(kind, name)| format!("{}: {}", json!(kind), json!(name))).collect();
    _ = writeln!(text, "\"kinds\": {{\n{}\n}},", kinds.join(",\n"));
    let types = types.iter().map(|(name, fields)| {
        let mut shown = Map::new();
        for (field, (of, by)) in fields {
            let mut entry = Map::new();
            entry.extend(of.as_ref().map(|of| ("of".to_owned(), json!(of))));
            entry.extend(by.as_ref().map(|by| ("by".to_owned(), json!(by))));
            shown.insert(field.clone(), entry.into());
        }
        format!("{}: {}", json!(name), Value::Object(shown))
    });
    let types: Vec<String> = types.collect();
    _ = writeln!(text, "\"types\": {{\n{}\n}}\n}}", types.join(",\n"));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_merges_is_kept() {
        let field = |of: Option<&str>, by: Option<&[&str]>| {
            let by = by.map(|by| by.iter().map(ToString::to_string).collect());
            (of.map(ToOwned::to_owned), by)
        };
        let mut types = BTreeMap::from([
            (
                "A".to_owned(),
                Fields::from([
                    ("b".to_owned(), field(Some("B"), None)),
                    ("c".to_owned(), field(Some("C"), None)),
                ]),
            ),
            ("B".to_owned(), Fields::from([("list".to_owned(), field(Some("C"), Some(&["name"])))])),
            ("C".to_owned(), Fields::from([("c".to_owned(), field(Some("C"), None))])),
            ("D".to_owned(), Fields::from([("b".to_owned(), field(Some("B"), None))])),
        ]);
        keep_what_merges(&mut types);
        let kinds = BTreeMap::from([("v1/A".to_owned(), "A".to_owned())]);
        keep_reachable(&mut types, &kinds);
        assert_eq!(
            render("v1", &kinds, &types),
            "{\n\"source\": \"k8s.io/kubernetes v1, by `cargo xtask gen`\",\n\"kinds\": {\n\"v1/A\": \"A\"\n},\n\"types\": {\n\
             \"A\": {\"b\":{\"of\":\"B\"}},\n\"B\": {\"list\":{\"by\":[\"name\"]}}\n}\n}\n"
        );
    }
}
