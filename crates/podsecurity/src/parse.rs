//! `validate.podSecurity` of a rule and `podSecurity` of an exception, field by field.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::control::{Scope, controls, named};
use crate::exclusion::Exclusion;
use crate::level::{Level, Version};
use crate::pod::LISTS;
use crate::policy::{PodSecurity, all_names};
use crate::problem::Problem;
use crate::text::clip;

/// The most exclusions of a rule or an exception.
pub const MAX_EXCLUSIONS: usize = 1024;

/// What was read, and what has no effect in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed<T> {
    /// What was read.
    pub value: T,
    /// Exclusions that lift nothing.
    pub warnings: Vec<Problem>,
}

/// Reads the `podSecurity` of a rule; `path` is where it stands. Every problem is an error: none
/// of it is read in part.
pub fn parse(value: &Value, path: &str) -> Result<Parsed<PodSecurity>, Vec<Problem>> {
    let mut notes = Notes::default();
    let mut fields = Fields::of(value, path, &mut notes);
    let level = match fields.text("level", &mut notes) {
        Some(text) => Level::parse(text).or_else(|| {
            let reason =
                format!("`{}` is no level: write `privileged`, `baseline` or `restricted`", clip(text));
            notes.refuse(&fields.path_of("level"), reason);
            None
        }),
        None => {
            if fields.take("level").is_none() {
                let reason = "missing: write `privileged`, `baseline` or `restricted`";
                notes.refuse(&fields.path_of("level"), reason);
            }
            None
        }
    };
    let written = match fields.take("version") {
        Some(number @ Value::Number(_)) => {
            let reason = format!("expected a string: write `\"v{number}\"`, or `latest`");
            notes.refuse(&fields.path_of("version"), reason);
            ""
        }
        _ => fields.text("version", &mut notes).unwrap_or_default(),
    };
    let version = match written {
        "" => Version::LATEST,
        text => Version::parse(text).unwrap_or_else(|reason| {
            notes.refuse(&fields.path_of("version"), reason);
            Version::LATEST
        }),
    };
    let excluded = fields.take("exclude").unwrap_or(&Value::Null);
    let exclusions = read_exclusions(excluded, &fields.path_of("exclude"), level, &mut notes);
    fields.finish(&mut notes);
    match level {
        Some(level) if notes.refusals.is_empty() => Ok(Parsed {
            value: PodSecurity { level, version, written: written.to_owned(), exclusions },
            warnings: notes.warnings,
        }),
        _ => Err(notes.refusals),
    }
}

/// Reads the list of exclusions of an exception, its `podSecurity`; `path` is where it stands.
pub fn parse_exclusions(value: &Value, path: &str) -> Result<Parsed<Vec<Exclusion>>, Vec<Problem>> {
    let mut notes = Notes::default();
    let value = read_exclusions(value, path, None, &mut notes);
    if notes.refusals.is_empty() {
        Ok(Parsed { value, warnings: notes.warnings })
    } else {
        Err(notes.refusals)
    }
}

fn read_exclusions(value: &Value, path: &str, level: Option<Level>, notes: &mut Notes) -> Vec<Exclusion> {
    let list = match value {
        Value::Null => return Vec::new(),
        Value::Array(list) => list,
        _ => {
            notes.refuse(path, "expected a list of exclusions, each with its `controlName`");
            return Vec::new();
        }
    };
    if list.len() > MAX_EXCLUSIONS {
        notes.refuse(path, format!("expected at most {MAX_EXCLUSIONS} exclusions, not {}", list.len()));
        return Vec::new();
    }
    let read = |(index, value)| read_exclusion(value, &format!("{path}[{index}]"), level, notes);
    list.iter().enumerate().filter_map(read).collect()
}

fn read_exclusion(value: &Value, path: &str, level: Option<Level>, notes: &mut Notes) -> Option<Exclusion> {
    let mut fields = Fields::of(value, path, notes);
    let name = fields.text("controlName", notes);
    if fields.take("controlName").is_none() {
        notes.refuse(&fields.path_of("controlName"), format!("missing: write one of {}", all_names()));
    }
    let images = fields.texts("images", notes);
    let field = fields.text("restrictedField", notes).filter(|field| !field.is_empty());
    let values = fields.texts("values", notes);
    let name_path = fields.path_of("controlName");
    let [images_path, field_path, values_path] =
        ["images", "restrictedField", "values"].map(|name| fields.path_of(name));
    fields.finish(notes);
    let name = name?;
    if named(name).next().is_none() {
        let close = controls()
            .iter()
            .find(|control| control.id.eq_ignore_ascii_case(name) || control.name.eq_ignore_ascii_case(name));
        let cure =
            close.map_or_else(|| format!("one of {}", all_names()), |control| format!("`{}`", control.name));
        notes.refuse(&name_path, format!("`{}` is no control: write {cure}", clip(name)));
        return None;
    }
    let scope = scope(name);
    match scope {
        Scope::Container if images.is_empty() => {
            let reason = format!("missing: `{name}` is of containers, name their images, `\"*\"` for all");
            notes.refuse(&images_path, reason);
        }
        Scope::Pod if !images.is_empty() => {
            notes.refuse(&images_path, format!("take them out: `{name}` is of the pod"));
        }
        _ => {}
    }
    if level == Some(Level::Baseline) && named(name).all(|control| control.level > Level::Baseline) {
        notes.refuse(&name_path, format!("take it out: `{name}` is no control of `baseline`"));
    }
    match field {
        Some(field) => {
            read_field(name, field, &field_path, notes);
            if values.is_empty() {
                notes.refuse(&values_path, "missing: write the values to allow, `\"*\"` for all");
            }
            warn(scope, !images.is_empty(), field, &field_path, notes);
        }
        None if !values.is_empty() => {
            let reason = format!("missing: write which field has the values, {}", known_fields(name));
            notes.refuse(&field_path, reason);
        }
        None => {}
    }
    let field = field.map(|field| (field.to_owned(), values));
    Some(Exclusion { control: name.to_owned(), images, field })
}

fn scope(name: &str) -> Scope {
    let mut scopes = named(name).map(crate::Control::scope);
    let first = scopes.next().unwrap_or(Scope::Both);
    if scopes.all(|scope| scope == first) { first } else { Scope::Both }
}

fn read_field(name: &str, field: &str, path: &str, notes: &mut Notes) {
    if named(name).any(|control| control.restricts(field)) {
        return;
    }
    let other = controls().iter().find(|control| control.restricts(field));
    let of = other.map(|control| format!(" but of `{}`", control.name)).unwrap_or_default();
    let reason = format!("`{}` is no field of `{name}`{of}: write {}", clip(field), known_fields(name));
    notes.refuse(path, reason);
}

fn known_fields(name: &str) -> String {
    let fields: BTreeSet<_> = named(name).flat_map(crate::Control::restricted_fields).collect();
    let fields: Vec<_> = fields.iter().map(|field| format!("`{field}`")).collect();
    if fields.len() == 1 { fields.concat() } else { format!("one of {}", fields.join(", ")) }
}

/// Says where a field of one kind stands beside the images of another: nothing is lifted.
fn warn(scope: Scope, has_images: bool, field: &str, path: &str, notes: &mut Notes) {
    let of_containers = LISTS.iter().any(|list| field.starts_with(&format!("spec.{list}[")));
    if scope == Scope::Both && of_containers != has_images {
        let reason = if has_images {
            "lifts nothing: it is a field of the pod, and `images` stand for containers"
        } else {
            "lifts no value: it is a field of containers, write the `images` that it is for"
        };
        notes.warnings.push(Problem::new(path, reason));
    }
}

#[derive(Default)]
struct Notes {
    refusals: Vec<Problem>,
    warnings: Vec<Problem>,
}

impl Notes {
    fn refuse(&mut self, path: &str, reason: impl Into<String>) {
        self.refusals.push(Problem::new(path, reason));
    }
}

/// An object whose fields are taken one by one; what is left in the end is unknown.
struct Fields<'a> {
    object: Option<&'a Map<String, Value>>,
    path: String,
    taken: BTreeSet<&'static str>,
}

impl<'a> Fields<'a> {
    fn of(value: &'a Value, path: &str, notes: &mut Notes) -> Self {
        let object = value.as_object();
        if object.is_none() {
            notes.refuse(path, "expected an object");
        }
        Self { object, path: path.to_owned(), taken: BTreeSet::new() }
    }

    fn path_of(&self, name: &str) -> String {
        format!("{}.{}", self.path, clip(name))
    }

    /// The value of a field, unless it is absent or null.
    fn take(&mut self, name: &'static str) -> Option<&'a Value> {
        self.taken.insert(name);
        self.object?.get(name).filter(|value| !value.is_null())
    }

    fn text(&mut self, name: &'static str, notes: &mut Notes) -> Option<&'a str> {
        let value = self.take(name)?;
        if !value.is_string() {
            notes.refuse(&self.path_of(name), "expected a string");
        }
        value.as_str()
    }

    fn texts(&mut self, name: &'static str, notes: &mut Notes) -> Vec<String> {
        let path = self.path_of(name);
        let list = match self.take(name) {
            None => return Vec::new(),
            Some(Value::Array(list)) => list,
            Some(_) => {
                notes.refuse(&path, "expected a list of strings");
                return Vec::new();
            }
        };
        let mut texts = Vec::new();
        for (index, value) in list.iter().enumerate() {
            if !value.is_string() {
                notes.refuse(&format!("{path}[{index}]"), "expected a string: put it in quotes");
            }
            texts.push(value.as_str().unwrap_or_default().to_owned());
        }
        texts
    }

    fn finish(self, notes: &mut Notes) {
        for name in self.object.into_iter().flat_map(Map::keys) {
            if !self.taken.contains(name.as_str()) {
                notes.refuse(&self.path_of(name), "unknown field");
            }
        }
    }
}
