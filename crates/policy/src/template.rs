//! Texts with `{{ variables }}` (Kyverno `pkg/engine/variables`).
//!
//! Variables are replaced from the innermost outwards, so one may stand inside another. A text
//! that is one variable keeps the type of its value. A value that itself contains `{{` is an
//! error: data is never evaluated.

use std::sync::LazyLock;

use countersign_jmespath::{Error, Expression, Scope};
use regex::Regex;
use serde_json::{Map, Value};

use crate::FUNCTIONS;

/// An innermost variable: braces inside it come in single pairs.
static VARIABLE: LazyLock<Result<Regex, regex::Error>> =
    LazyLock::new(|| Regex::new(r"\{\{(?:\{[^{}]*\}|[^{}])*\}\}"));
/// How often a text is gone over, and how long it may grow.
const MAX_ROUNDS: usize = 16;
const MAX_TEXT: usize = 256 * 1024;

/// A JSON value with variables in its texts, ready to be filled in.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Template {
    Fixed(Value),
    /// One variable, nothing nested in it: parsed once.
    Variable(Expression),
    Text(String),
    List(Vec<Template>),
    Object(Vec<(Template, Template)>),
}

impl Template {
    pub(crate) fn of(value: &Value) -> Result<Self, Error> {
        Ok(match value {
            Value::String(text) => Self::of_text(text)?,
            Value::Array(list) => Self::List(list.iter().map(Self::of).collect::<Result<_, _>>()?),
            Value::Object(fields) => {
                let fields = fields.iter().map(|(name, value)| Ok((Self::of_text(name)?, Self::of(value)?)));
                Self::Object(fields.collect::<Result<_, Error>>()?)
            }
            other => Self::Fixed(other.clone()),
        })
    }

    fn of_text(text: &str) -> Result<Self, Error> {
        if !text.contains("{{") {
            return Ok(Self::Fixed(Value::String(text.to_owned())));
        }
        match whole(text) {
            Some(inner) => Expression::parse(inner, FUNCTIONS).map(Self::Variable),
            None => Ok(Self::Text(text.to_owned())),
        }
    }

    /// The value with every variable filled in.
    pub(crate) fn fill(&self, scope: &dyn Scope) -> Result<Value, Error> {
        Ok(match self {
            Self::Fixed(value) => value.clone(),
            Self::Variable(expression) => checked(expression.evaluate(scope)?.into_owned())?,
            Self::Text(text) => substitute(text, scope)?,
            Self::List(list) => {
                Value::Array(list.iter().map(|item| item.fill(scope)).collect::<Result<_, _>>()?)
            }
            Self::Object(fields) => {
                let mut filled = Map::new();
                for (name, value) in fields {
                    let name = match name.fill(scope)? {
                        Value::String(name) => name,
                        other => other.to_string(),
                    };
                    filled.insert(name, value.fill(scope)?);
                }
                Value::Object(filled)
            }
        })
    }
}

/// The inside of a text that is one variable with nothing nested in it.
fn whole(text: &str) -> Option<&str> {
    let trimmed = text.trim();
    let found = VARIABLE.as_ref().ok()?.find(trimmed)?;
    (found.start() == 0 && found.end() == trimmed.len()).then(|| inside(trimmed))
}

fn inside(variable: &str) -> &str {
    let inner = variable.trim_start_matches("{{").trim_end_matches("}}");
    inner.strip_prefix('-').unwrap_or(inner).trim()
}

/// Data is never evaluated.
fn checked(value: Value) -> Result<Value, Error> {
    match value.as_str() {
        Some(text) if text.contains("{{") => Err(Error::Call {
            function: "variable".to_owned(),
            message: "the value contains `{{`, which would be evaluated".to_owned(),
        }),
        _ => Ok(value),
    }
}

fn substitute(text: &str, scope: &dyn Scope) -> Result<Value, Error> {
    let pattern = VARIABLE.as_ref().map_err(|_| Error::Limit("the pattern of variables"))?;
    let mut text = text.to_owned();
    for _ in 0..MAX_ROUNDS {
        if let Some(inner) = whole(&text) {
            return checked(Expression::parse(inner, FUNCTIONS)?.evaluate(scope)?.into_owned());
        }
        let mut filled = String::new();
        let mut last = 0;
        for found in pattern.find_iter(&text) {
            // `\{{` is a literal.
            if text[..found.start()].ends_with('\\') {
                continue;
            }
            let value = Expression::parse(inside(found.as_str()), FUNCTIONS)?.evaluate(scope)?.into_owned();
            filled.push_str(&text[last..found.start()]);
            match checked(value)? {
                Value::String(text) => filled.push_str(&text),
                other => filled.push_str(&other.to_string()),
            }
            last = found.end();
        }
        if last == 0 {
            return Ok(Value::String(text.replace("\\{{", "{{")));
        }
        filled.push_str(&text[last..]);
        if filled.len() > MAX_TEXT {
            return Err(Error::Limit("a text grew too long"));
        }
        text = filled;
    }
    Err(Error::Limit("variables are nested too deep"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    struct Roots(Value);

    impl Scope for Roots {
        fn lookup(&self, name: &str) -> Result<Option<&Value>, Error> {
            Ok(self.0.get(name))
        }
    }

    fn fill(template: &str, roots: Value) -> Result<Value, Error> {
        Template::of(&json!(template))?.fill(&Roots(roots))
    }

    #[test]
    fn nested_variables_as_users_wrote_them() {
        let image = "{{ images.containers.\"{{ element.name }}\".registry != 'registry.local' && 'registry.local/' || '' }}\
             {{ regex_replace_all('^dtr.dev.cray.com/', '{{ regex_replace_all('^docker.io/', '{{element.image}}', '') }}', '') }}";
        for (written, registry, stored) in [
            ("docker.io/foo:1", "docker.io", "registry.local/foo:1"),
            ("dtr.dev.cray.com/x/y:1", "dtr.dev.cray.com", "registry.local/x/y:1"),
            ("registry.local/x:1", "registry.local", "registry.local/x:1"),
        ] {
            let roots = json!({
                "element": { "name": "a-b", "image": written },
                "images": { "containers": { "a-b": { "registry": registry } } },
            });
            assert_eq!(fill(image, roots).unwrap(), json!(stored));
        }
    }

    #[test]
    fn types_escapes_and_errors() {
        let roots = || json!({ "a": { "list": [1], "text": "x", "evil": "{{ a.text }}" } });
        assert_eq!(fill("{{ a.list }}", roots()).unwrap(), json!([1]));
        assert_eq!(fill("is {{ a.list }}", roots()).unwrap(), json!("is [1]"));
        assert_eq!(fill("{{- a.text }}", roots()).unwrap(), json!("x"));
        assert_eq!(fill(r"\{{ a.text }}", roots()).unwrap(), json!("{{ a.text }}"));
        assert!(matches!(fill("{{ a.none }}", roots()), Err(Error::NotFound(_))));
        for evil in ["{{ a.evil }}", "x {{ a.evil }}"] {
            assert!(matches!(fill(evil, roots()), Err(Error::Call { .. })), "{evil}");
        }
    }
}
