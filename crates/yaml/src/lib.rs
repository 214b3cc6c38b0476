//! YAML documents as JSON values, within a budget.
//!
//! Site files and policies are read here, so all of them are read alike: as the API server's
//! own YAML library reads them (`yes` is a boolean, `0777` is octal, `<<` merges), except that
//! a key that stands twice is an error rather than a silent choice, and that aliases cannot
//! make a small text large.

use serde_json::Value;

/// Bytes of one text.
pub const MAX_BYTES: usize = 4 << 20;

/// Every document of a text; empty documents are left out.
pub fn documents(text: &str) -> Result<Vec<Value>, YamlError> {
    if text.len() > MAX_BYTES {
        return Err(YamlError::TooLarge);
    }
    let budget = serde_saphyr::budget! {
        max_depth: 64,
        max_aliases: 1_000,
        max_anchors: 1_000,
        max_documents: 2_000,
        max_nodes: 500_000,
        max_events: 1_000_000,
    };
    let options = serde_saphyr::options! {
        duplicate_keys: serde_saphyr::options::DuplicateKeyPolicy::Error,
        legacy_octal_numbers: true,
        budget: budget,
    };
    let documents: Vec<Value> = serde_saphyr::from_multiple_with_options(text, options)
        .map_err(|error| YamlError::Syntax(error.to_string()))?;
    Ok(documents.into_iter().filter(|document| !document.is_null()).collect())
}

/// The one document of a text.
pub fn document(text: &str) -> Result<Value, YamlError> {
    let mut documents = documents(text)?;
    match (documents.pop(), documents.len()) {
        (Some(document), 0) => Ok(document),
        (None, _) => Err(YamlError::Empty),
        (Some(_), more) => Err(YamlError::Several(more + 1)),
    }
}

/// A value as one document, for people.
pub fn text(value: &Value) -> Result<String, YamlError> {
    serde_saphyr::to_string(value).map_err(|error| YamlError::Syntax(error.to_string()))
}

/// Why a text is not what was expected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum YamlError {
    /// Not YAML, or beyond the budget; the text says where.
    #[error("{0}")]
    Syntax(String),
    /// Larger than [`MAX_BYTES`].
    #[error("the text is larger than {MAX_BYTES} bytes")]
    TooLarge,
    /// There is nothing in it.
    #[error("there is no document in it")]
    Empty,
    /// One was expected.
    #[error("there are {0} documents in it, one is expected")]
    Several(usize),
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn reads_as_the_api_server_does() {
        assert_eq!(document("a: yes\nb: 0777\nc: '1'").unwrap(), json!({"a": true, "b": 511, "c": "1"}));
        assert_eq!(documents("---\na: 1\n---\n---\nb: 2\n").unwrap().len(), 2);
        assert_eq!(document("base: &b {x: 1}\nuse: {<<: *b, y: 2}").unwrap()["use"], json!({"x": 1, "y": 2}));
    }

    #[test]
    fn what_is_written_is_read_again() {
        let value = json!({"a": [{"b": "yes", "c": "0777"}, "x: y\nz\n"], "d": null, "e": {}, "f": 1.5});
        assert_eq!(document(&text(&value).unwrap()).unwrap(), value);
    }

    #[test]
    fn refuses_what_is_ambiguous_or_a_bomb() {
        assert!(document("a: 1\na: 2").unwrap_err().to_string().contains('a'));
        assert_eq!(document("").unwrap_err(), YamlError::Empty);
        assert_eq!(document("a: 1\n---\nb: 1").unwrap_err(), YamlError::Several(2));
        let mut bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
        for i in 1..12 {
            let aliases = vec![format!("*a{}", i - 1); 10].join(",");
            bomb += &format!("a{i}: &a{i} [{aliases}]\n");
        }
        assert!(matches!(document(&bomb), Err(YamlError::Syntax(_))));
        assert!(matches!(document(&"[".repeat(10_000)), Err(YamlError::Syntax(_))));
    }
}
