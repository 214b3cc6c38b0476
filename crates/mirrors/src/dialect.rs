//! What later versions of TOML allow, and the runtimes of today do not read.

use toml_edit::{Decor, DocumentMut, InlineTable, Item, RawString, TableLike, Value};

use crate::release::Release;

/// The first release whose reader knows TOML 1.1 (go-toml 2.4).
pub(crate) const TOML_1_1: Release = Release(2, 4);

/// What in a document only TOML 1.1 allows; `None` if nothing.
pub(crate) fn newer_toml(document: &DocumentMut) -> Option<&'static str> {
    in_table(document.as_table())
}

fn in_table(table: &dyn TableLike) -> Option<&'static str> {
    table.iter().find_map(|(_, item)| match item {
        Item::Value(value) => in_value(value),
        Item::Table(table) => in_table(table),
        Item::ArrayOfTables(tables) => tables.iter().find_map(|table| in_table(table)),
        Item::None => None,
    })
}

fn in_value(value: &Value) -> Option<&'static str> {
    match value {
        Value::InlineTable(table) => in_inline(table),
        Value::Array(values) => values.iter().find_map(in_value),
        Value::String(text) => {
            let raw = text.as_repr().and_then(|repr| repr.as_raw().as_str()).unwrap_or_default();
            let mut escaped = false;
            let newer = raw.starts_with('"')
                && raw.chars().any(|c| {
                    let hit = escaped && matches!(c, 'e' | 'x');
                    escaped = !escaped && c == '\\';
                    hit
                });
            newer.then_some("an escape of TOML 1.1 in a string (`\\e`, `\\x`)")
        }
        _ => None,
    }
}

fn in_inline(table: &InlineTable) -> Option<&'static str> {
    if table.trailing_comma() {
        return Some("an inline table with a comma at its end (TOML 1.1)");
    }
    let breaks =
        |text: Option<&RawString>| text.and_then(RawString::as_str).is_some_and(|text| text.contains('\n'));
    let around = |decor: &Decor| breaks(decor.prefix()) || breaks(decor.suffix());
    let lines = table.iter().any(|(name, value)| {
        around(value.decor())
            || table.key(name).is_some_and(|key| around(key.leaf_decor()) || around(key.dotted_decor()))
    });
    if lines || breaks(Some(table.trailing())) {
        return Some("an inline table of several lines (TOML 1.1)");
    }
    table.iter().find_map(|(_, value)| in_value(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_some_read() {
        for (text, newer) in [
            ("a = { b = \"x\", }", true),
            ("a = { b = \"x\",\n c = \"y\" }", true),
            ("a = { b = \"x\", } # why", true),
            ("a = { b = 1 } # x,", false),
            ("a = { b = [\"x\"],\n c = [1] }", true),
            ("a = { b = [\n 1,\n] }", false),
            ("a = \"\\e[0m\"", true),
            ("a = \"\\\\e\"", false),
            ("a = '\\e'", false),
            ("a = { b = \"x\", c = [1, 2,] }", false),
            ("a = [\n 1,\n 2,\n]\n[b]\nc = \"\"\"x\ny\"\"\"", false),
        ] {
            let document = text.parse::<DocumentMut>().unwrap();
            assert_eq!(newer_toml(&document).is_some(), newer, "{text}");
        }
    }
}
