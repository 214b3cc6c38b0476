//! Texts with `{{ variables }}` (Kyverno `pkg/engine/variables`).
//!
//! A variable may stand inside another: its value becomes a part of that expression, and may not
//! contain what would end the part. A text that is one variable keeps the type of its value.
//! What was filled in is never gone over again, and a value that itself contains `{{` is an
//! error: data is never evaluated.

use std::borrow::Cow;
use std::sync::LazyLock;

use countersign_jmespath::{Error, Expression, Scope};
use regex::Regex;
use serde_json::{Map, Value};

/// An innermost variable: braces inside it come in single pairs.
static VARIABLE: LazyLock<Result<Regex, regex::Error>> =
    LazyLock::new(|| Regex::new(r"\{\{(?:\{[^{}]*\}|[^{}])*\}\}"));
/// How deep variables may be nested, and how long a text may grow.
const MAX_DEPTH: usize = 8;
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
        let is_fixed = |part: &Self| matches!(part, Self::Fixed(_));
        Ok(match value {
            Value::String(text) => Self::of_text(text)?,
            Value::Array(list) => {
                let list: Vec<Self> = list.iter().map(Self::of).collect::<Result<_, _>>()?;
                // What has no variables in it is one piece.
                if list.iter().all(is_fixed) { Self::Fixed(value.clone()) } else { Self::List(list) }
            }
            Value::Object(fields) => {
                let fields = fields.iter().map(|(name, value)| Ok((Self::of_text(name)?, Self::of(value)?)));
                let fields: Vec<(Self, Self)> = fields.collect::<Result<_, Error>>()?;
                if fields.iter().all(|(name, value)| is_fixed(name) && is_fixed(value)) {
                    Self::Fixed(value.clone())
                } else {
                    Self::Object(fields)
                }
            }
            other => Self::Fixed(other.clone()),
        })
    }

    /// The value with every variable filled in; itself, where there is none.
    pub(crate) fn filled(&self, scope: &dyn Scope) -> Result<Cow<'_, Value>, Error> {
        match self {
            Self::Fixed(value) => Ok(Cow::Borrowed(value)),
            other => other.fill(scope).map(Cow::Owned),
        }
    }

    fn of_text(text: &str) -> Result<Self, Error> {
        if !text.contains("{{") {
            return Ok(Self::Fixed(Value::String(text.to_owned())));
        }
        match whole(text) {
            Some(inner) => crate::expression(inner).map(Self::Variable),
            None => Ok(Self::Text(text.to_owned())),
        }
    }

    /// As it was written, where it is a text.
    pub(crate) fn written(&self) -> String {
        match self {
            Self::Fixed(Value::String(text)) | Self::Text(text) => text.clone(),
            _ => String::new(),
        }
    }

    /// The value with every variable filled in.
    pub(crate) fn fill(&self, scope: &dyn Scope) -> Result<Value, Error> {
        Ok(match self {
            Self::Fixed(value) => {
                charge(scope, value)?;
                value.clone()
            }
            Self::Variable(expression) => {
                let value = expression.evaluate(scope)?;
                charge(scope, &value)?;
                checked(value.into_owned())?
            }
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

/// Takes what a copy costs.
fn charge(scope: &dyn Scope, value: &Value) -> Result<(), Error> {
    scope.fuel().map_or(Ok(()), |fuel| fuel.copy(value))
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

/// Fills in the variables of a text. What is filled in is never looked at again.
fn substitute(text: &str, scope: &dyn Scope) -> Result<Value, Error> {
    let pieces = pieces(text)?;
    if let [Piece::Variable(inner)] = pieces.as_slice() {
        return variable(inner, scope, 0);
    }
    let mut filled = String::new();
    for piece in pieces {
        match piece {
            Piece::Text(text) => filled.push_str(&text.replace("\\{{", "{{")),
            Piece::Variable(inner) => filled.push_str(&shown(&variable(inner, scope, 0)?)),
        }
        if filled.len() > MAX_TEXT {
            return Err(Error::Limit("a text grew too long"));
        }
    }
    Ok(Value::String(filled))
}

/// The value of a variable, in which others may stand.
fn variable(inner: &str, scope: &dyn Scope, depth: usize) -> Result<Value, Error> {
    if depth == MAX_DEPTH {
        return Err(Error::Limit("variables are nested too deep"));
    }
    let inner = inner.strip_prefix('-').unwrap_or(inner).trim();
    let mut expression = String::new();
    for piece in pieces(inner)? {
        match piece {
            Piece::Text(text) => expression.push_str(text),
            Piece::Variable(inner) => {
                let value = shown(&variable(inner, scope, depth + 1)?);
                // It becomes a part of an expression: it must not end what it stands in.
                if value.contains(['\'', '"', '`', '\\', '{', '}']) {
                    return Err(Error::Call {
                        function: "variable".to_owned(),
                        message: "a value with quotes, braces or `\\` cannot stand inside an expression"
                            .to_owned(),
                    });
                }
                expression.push_str(&value);
            }
        }
    }
    checked(crate::expression(&expression)?.evaluate(scope)?.into_owned())
}

fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned)
}

/// A part of a text.
enum Piece<'a> {
    Text(&'a str),
    /// The inside of the outermost pair of double braces.
    Variable(&'a str),
}

/// Takes a text apart. Single braces inside a variable come in pairs (JMESPath's hashes), and
/// `\{{` is text.
fn pieces(text: &str) -> Result<Vec<Piece<'_>>, Error> {
    let bytes = text.as_bytes();
    let (mut pieces, mut last, mut at) = (Vec::new(), 0, 0);
    while at + 1 < bytes.len() {
        if &bytes[at..at + 2] != b"{{" || (at > 0 && bytes[at - 1] == b'\\') {
            at += 1;
            continue;
        }
        // `true` for a pair of double braces, `false` for a single one.
        let (start, mut open, mut end) = (at + 2, vec![true], at + 2);
        while !open.is_empty() {
            let rest = bytes.get(end..).unwrap_or_default();
            match (open.last(), rest) {
                (_, []) => return Err(Error::Limit("a variable without its end")),
                (_, [b'{', b'{', ..]) => {
                    open.push(true);
                    end += 2;
                }
                (Some(true), [b'}', b'}', ..]) => {
                    open.pop();
                    end += 2;
                }
                (_, [b'{', ..]) => {
                    open.push(false);
                    end += 1;
                }
                (Some(false), [b'}', ..]) => {
                    open.pop();
                    end += 1;
                }
                _ => end += 1,
            }
        }
        if at > last {
            pieces.push(Piece::Text(&text[last..at]));
        }
        pieces.push(Piece::Variable(&text[start..end - 2]));
        (last, at) = (end, end);
    }
    if last < text.len() || pieces.is_empty() {
        pieces.push(Piece::Text(&text[last..]));
    }
    Ok(pieces)
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
        assert!(fill("{{ a.text", roots()).is_err());
        // Nobody has said when it is.
        for timeless in ["{{ time_now() }}", "x {{ random('[a-z]') }}"] {
            assert!(matches!(fill(timeless, roots()), Err(Error::Call { .. })), "{timeless}");
        }
        assert_eq!(fill("{{ {x: a.text} }}", roots()).unwrap(), json!({ "x": "x" }));
        let split = json!({ "a": "a{", "b": "{ secret }}", "secret": "told", "quote": "x', '') || 'y" });
        assert_eq!(fill("{{ a }}{{ b }}", split.clone()).unwrap(), json!("a{{ secret }}"));
        assert!(
            fill("{{ regex_replace_all('z', '{{ quote }}', '') }}", split).is_err(),
            "no way out of a text"
        );
        for evil in ["{{ a.evil }}", "x {{ a.evil }}"] {
            assert!(matches!(fill(evil, roots()), Err(Error::Call { .. })), "{evil}");
        }
    }
}
