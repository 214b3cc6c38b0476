//! What a rule brings into its own scope: values of its own, and ConfigMaps.

use countersign_jmespath::{Error, Expression};
use serde_json::{Value, json};

use crate::engine::{Fact, Facts, Want};
use crate::fields::{Fields, Notes};
use crate::names::Names;
use crate::template::Template;

/// What an expression calls the value that it speaks of; no policy can write such a name without quotes.
const VALUE: &str = "__value";
/// Entries of a rule's context.
const MAX_ENTRIES: usize = 64;

/// One entry of a rule's context.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    name: String,
    source: Source,
}

#[derive(Clone, Debug)]
enum Source {
    Variable {
        value: Option<Template>,
        path: Option<Expression>,
        default: Option<Template>,
    },
    ConfigMap {
        name: Template,
        namespace: Option<Template>,
    },
    /// Known by name, and answered in tests alone: there it is given.
    Given,
}

/// What is known as a source and is not asked here.
const ELSEWHERE: [(&str, &str); 3] = [
    ("apiCall", "the API server is not asked for policies yet"),
    ("globalReference", "there are no GlobalContextEntries yet"),
    ("imageRegistry", "registries are asked for signatures alone"),
];

impl Entry {
    pub(crate) fn read_all(list: &[Value], path: &str, notes: &mut Notes) -> Vec<Self> {
        if list.len() > MAX_ENTRIES {
            notes.refuse(path, format!("more than {MAX_ENTRIES} entries"));
        }
        let read = |(index, value): (usize, &Value)| Self::read(value, &format!("{path}[{index}]"), notes);
        list.iter().take(MAX_ENTRIES).enumerate().filter_map(read).collect()
    }

    fn read(value: &Value, path: &str, notes: &mut Notes) -> Option<Self> {
        let mut fields = Fields::of(value, path, notes);
        let name = fields.text("name", notes).unwrap_or_default().to_owned();
        if name.is_empty() {
            notes.refuse(&format!("{path}.name"), "a name is required");
        }
        let mut source = None;
        if let Some(variable) = fields.take("variable") {
            let path = format!("{path}.variable");
            let mut variable = Fields::of(variable, &path, notes);
            let value = template(variable.take("value"), &format!("{path}.value"), notes);
            let default = template(variable.take("default"), &format!("{path}.default"), notes);
            let expression = variable.text("jmesPath", notes).map(|text| {
                // It speaks of the value, where there is one.
                let text = if value.is_some() { format!("{VALUE} | ({text})") } else { text.to_owned() };
                crate::expression(&text)
            });
            let expression = expression.transpose().unwrap_or_else(|error| {
                notes.refuse(&format!("{path}.jmesPath"), error.to_string());
                None
            });
            variable.finish(notes);
            source = Some(Source::Variable { value, path: expression, default });
        }
        if let Some(map) = fields.take("configMap") {
            let path = format!("{path}.configMap");
            let mut map = Fields::of(map, &path, notes);
            let name = template(map.take("name"), &format!("{path}.name"), notes);
            let namespace = template(map.take("namespace"), &format!("{path}.namespace"), notes);
            map.finish(notes);
            match name {
                Some(name) => source = Some(Source::ConfigMap { name, namespace }),
                None => notes.refuse(&path, "the name of a ConfigMap is required"),
            }
        }
        for (field, why) in ELSEWHERE {
            if fields.given(field, why, notes) {
                source = Some(Source::Given);
            }
        }
        fields.finish(notes);
        if source.is_none() {
            notes.refuse(path, "expected `variable` or `configMap`");
        }
        Some(Self { name, source: source? })
    }

    /// Brings it into scope. What a test has given stays.
    fn load(
        &self,
        names: &mut Names<'_>,
        facts: &Facts,
        wants: &mut Vec<Want>,
        own: Option<&str>,
    ) -> Result<(), Error> {
        if names.is_given(&self.name) {
            return Ok(());
        }
        let value = match &self.source {
            Source::Variable { value, path, default } => {
                variable(names, value.as_ref(), path.as_ref(), default.as_ref())?
            }
            Source::ConfigMap { name, namespace } => {
                let name = text(&name.fill(names)?);
                let namespace = namespace.as_ref().map(|namespace| namespace.fill(names)).transpose()?;
                let namespace = namespace.map_or_else(|| "default".to_owned(), |namespace| text(&namespace));
                if own.is_some_and(|own| own != namespace) {
                    let message =
                        format!("a Policy reads ConfigMaps of its own namespace, not of `{namespace}`");
                    return Err(Error::Call { function: "configMap".to_owned(), message });
                }
                // What fills them may be an author's: they lead to no other object.
                for (what, text) in [("name", &name), ("namespace", &namespace)] {
                    if !is_object_name(text) {
                        let message = format!("`{text}` is no {what} of an object");
                        return Err(Error::Call { function: "configMap".to_owned(), message });
                    }
                }
                let want = Want::ConfigMap { namespace, name };
                match facts.get(&want) {
                    None => {
                        wants.push(want);
                        return Err(Error::Missing(self.name.clone()));
                    }
                    Some(Fact::Value(Ok(map))) => {
                        names.fuel().copy(map)?;
                        json!({ "data": map["data"], "metadata": map["metadata"] })
                    }
                    Some(Fact::Value(Err(why))) => {
                        return Err(Error::Call { function: "configMap".to_owned(), message: why.clone() });
                    }
                    Some(Fact::Verdict(_)) => Value::Null,
                }
            }
            Source::Given => {
                let message = format!("nothing says what `{}` is", self.name);
                return Err(Error::Call { function: "context".to_owned(), message });
            }
        };
        names.set(&self.name, value);
        Ok(())
    }
}

/// Whether it is a name as Kubernetes has them (RFC 1123 subdomain).
fn is_object_name(text: &str) -> bool {
    let part = |part: &str| {
        let ends = part.starts_with('-') || part.ends_with('-');
        let known = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
        !part.is_empty() && !ends && part.bytes().all(known)
    };
    text.len() <= 253 && text.split('.').all(part)
}

/// Brings all of them into scope. Where something is lacking it goes on: what the others need is asked for
/// at once.
pub(crate) fn load(
    entries: &[Entry],
    names: &mut Names<'_>,
    facts: &Facts,
    wants: &mut Vec<Want>,
    own: Option<&str>,
) -> Result<(), Error> {
    let mut lacking = None;
    for entry in entries {
        match entry.load(names, facts, wants, own) {
            Err(error @ Error::Missing(_)) => {
                lacking.get_or_insert(error);
            }
            // It may speak of what is lacking.
            Err(error) if lacking.is_none() => return Err(error),
            _ => {}
        }
    }
    lacking.map_or(Ok(()), Err)
}

fn template(value: Option<&Value>, path: &str, notes: &mut Notes) -> Option<Template> {
    Template::of(value?).map_err(|error| notes.refuse(path, error.to_string())).ok()
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// The value, or what the expression makes of it; the default where that is nothing.
fn variable(
    names: &mut Names<'_>,
    value: Option<&Template>,
    path: Option<&Expression>,
    default: Option<&Template>,
) -> Result<Value, Error> {
    let value = value.map(|value| value.fill(names)).transpose();
    let found = match (value, path) {
        (Err(error), _) => Err(error),
        (Ok(Some(value)), None) => Ok(value),
        (Ok(Some(value)), Some(path)) => {
            let mark = names.mark();
            names.set(VALUE, value);
            let found = path.evaluate(names).map(std::borrow::Cow::into_owned);
            names.reset(mark);
            found
        }
        (Ok(None), Some(path)) => path.evaluate(names).map(std::borrow::Cow::into_owned),
        (Ok(None), None) => Ok(Value::Null),
    };
    match (found, default) {
        (Ok(Value::Null) | Err(Error::NotFound(_)), Some(default)) => default.fill(names),
        (found, _) => found,
    }
}
