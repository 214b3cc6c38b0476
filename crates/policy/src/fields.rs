//! Walks a document field by field, so that nothing in it is passed over in silence.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

/// Something about a field of a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The field, as `spec.rules[0].validate.cel`.
    pub path: String,
    /// Why it is refused, or has no effect.
    pub reason: String,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.path, self.reason)
    }
}

/// What was noticed on the way.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    pub(crate) refusals: Vec<Refusal>,
    pub(crate) warnings: Vec<Refusal>,
    /// Whether somebody gives what a cluster would have to be asked for.
    pub(crate) given: bool,
    /// Every field that decides something, in the objects that were read: without indices.
    pub(crate) decisive: BTreeSet<String>,
}

impl Notes {
    pub(crate) fn refuse(&mut self, path: &str, reason: impl Into<String>) {
        self.refusals.push(Refusal { path: path.to_owned(), reason: reason.into() });
    }

    /// Takes up what was noticed of a part.
    pub(crate) fn extend(&mut self, part: Self) {
        self.refusals.extend(part.refusals);
        self.warnings.extend(part.warnings);
        self.decisive.extend(part.decisive);
    }

    pub(crate) fn warn(&mut self, path: &str, reason: impl Into<String>) {
        self.warnings.push(Refusal { path: path.to_owned(), reason: reason.into() });
    }
}

/// An object whose fields are taken one by one; what is left in the end is unknown.
pub(crate) struct Fields<'a> {
    object: &'a Map<String, Value>,
    path: String,
    /// What was taken, and whether it decides anything.
    taken: BTreeMap<&'static str, bool>,
}

static EMPTY: std::sync::LazyLock<Map<String, Value>> = std::sync::LazyLock::new(Map::new);

impl<'a> Fields<'a> {
    pub(crate) fn of(value: &'a Value, path: &str, notes: &mut Notes) -> Self {
        let object = value.as_object().unwrap_or_else(|| {
            notes.refuse(path, "expected an object");
            &EMPTY
        });
        Self { object, path: path.to_owned(), taken: BTreeMap::new() }
    }

    /// A map of texts; other values are refused, as a word that is dropped changes what is meant.
    pub(crate) fn strings(&mut self, name: &'static str, notes: &mut Notes) -> Vec<(String, String)> {
        let path = self.path_of(name);
        let map = match self.take(name) {
            None => return Vec::new(),
            Some(Value::Object(map)) => map,
            Some(_) => {
                notes.refuse(&path, "expected a map of texts");
                return Vec::new();
            }
        };
        let mut texts = Vec::new();
        for (key, value) in map {
            match value {
                Value::String(text) => texts.push((key.clone(), text.clone())),
                other => {
                    notes.refuse(&format!("{path}.{key}"), format!("`{other}` is no text: put it in quotes"));
                }
            }
        }
        texts
    }

    pub(crate) fn path_of(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// The value of a field, unless it is absent or null.
    pub(crate) fn take(&mut self, name: &'static str) -> Option<&'a Value> {
        self.taken.entry(name).or_insert(true);
        self.object.get(name).filter(|value| !value.is_null())
    }

    pub(crate) fn text(&mut self, name: &'static str, notes: &mut Notes) -> Option<&'a str> {
        let value = self.take(name)?;
        let text = value.as_str();
        if text.is_none() {
            notes.refuse(&self.path_of(name), "expected a string");
        }
        text
    }

    pub(crate) fn flag(&mut self, name: &'static str, notes: &mut Notes) -> Option<bool> {
        let value = self.take(name)?;
        let flag = value.as_bool();
        if flag.is_none() {
            notes.refuse(&self.path_of(name), "expected true or false");
        }
        flag
    }

    pub(crate) fn list(&mut self, name: &'static str, notes: &mut Notes) -> &'a [Value] {
        match self.take(name) {
            None => &[],
            Some(Value::Array(list)) => list,
            Some(_) => {
                notes.refuse(&self.path_of(name), "expected a list");
                &[]
            }
        }
    }

    pub(crate) fn texts(&mut self, name: &'static str, notes: &mut Notes) -> Vec<String> {
        let path = self.path_of(name);
        let mut texts = Vec::new();
        for (index, value) in self.list(name, notes).iter().enumerate() {
            match value.as_str() {
                Some(text) => texts.push(text.to_owned()),
                None => notes.refuse(&format!("{path}[{index}]"), "expected a string"),
            }
        }
        texts
    }

    /// Takes a field that is known and decides nothing.
    fn idle(&mut self, name: &'static str) -> Option<&'a Value> {
        self.taken.insert(name, false);
        self.take(name)
    }

    /// Fields that somebody else reads, or that only have to be what is expected.
    pub(crate) fn known(&mut self, names: &[&'static str]) {
        for name in names {
            self.idle(name);
        }
    }

    /// Fields that are known and not supported yet.
    pub(crate) fn not_yet(&mut self, names: &[&'static str], notes: &mut Notes) {
        for name in names {
            self.never(name, "not supported yet", notes);
        }
    }

    /// A field that is known and refused. `false` is what it would be without it.
    pub(crate) fn never(&mut self, name: &'static str, reason: &str, notes: &mut Notes) {
        if self.idle(name).is_some_and(|value| *value != Value::Bool(false)) {
            notes.refuse(&self.path_of(name), reason);
        }
    }

    /// A field that is answered where somebody gives the answer: whether it is there.
    pub(crate) fn given(&mut self, name: &'static str, reason: &str, notes: &mut Notes) -> bool {
        let is_there = self.idle(name).is_some();
        if is_there && !notes.given {
            notes.refuse(&self.path_of(name), reason);
        }
        is_there
    }

    /// Fields that are known and change nothing here.
    pub(crate) fn no_effect(&mut self, names: &[&'static str], reason: &str, notes: &mut Notes) {
        for name in names {
            if self.idle(name).is_some() {
                notes.warn(&self.path_of(name), reason);
            }
        }
    }

    /// Refuses whatever was not taken.
    pub(crate) fn finish(self, notes: &mut Notes) {
        for (name, _) in self.taken.iter().filter(|(_, decides)| **decides) {
            notes.decisive.insert(without_indices(&self.path_of(name)));
        }
        for name in self.object.keys().filter(|name| !self.taken.contains_key(name.as_str())) {
            notes.refuse(&self.path_of(name), "unknown field");
        }
    }
}

/// `spec.rules.match` of `spec.rules[0].match`.
fn without_indices(path: &str) -> String {
    let mut inside = false;
    let outside = |c: &char| {
        let was_inside = inside || *c == '[';
        inside = was_inside && *c != ']';
        !was_inside
    };
    path.chars().filter(outside).collect()
}
