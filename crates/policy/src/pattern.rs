//! Patterns of `validate` rules (Kyverno `pkg/engine/validate`).
//!
//! ```text
//! match_pattern(resource, pattern)        ─► Matched
//! judge_pattern, judge_any_pattern        ─► Judgement: the status and message of a rule
//! ```
//!
//! Of a map, its anchors come first, in the order of their names; then what has anchors below; then
//! the rest. A condition that is not met takes its map out of what is judged; a list of maps is
//! skipped where that happens to all of its elements, and the rule where it happens to the root.
//! Why something does not match is kept as a kind, never read out of a message: a value that has
//! upstream's words in it turns no failure into a skip.
//!
//! Variables are filled in before: nothing here looks for `{{`.

use std::borrow::Borrow;
use std::borrow::Cow;
use std::collections::BTreeMap;

use countersign_reference::wildcard_match;
use serde_json::{Map, Value};

use crate::anchor::{Anchor, Kind};
use crate::respond::Status;
use crate::scalar::{go_type, matches, shorten, show_list, show_short};

/// How deep a pattern may be nested.
pub const MAX_PATTERN_DEPTH: usize = 128;
/// Steps of one match: a step is a node visited, or 64 pairs of characters compared.
pub const MAX_PATTERN_STEPS: usize = 1_000_000;
/// Characters of what is said about one match.
const MAX_MESSAGE: usize = 4096;

static NOTHING: Value = Value::Null;

/// What came of a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Matched {
    /// The resource matches.
    Pass,
    /// A condition of the pattern is not met: it says nothing about this resource. The text says which.
    Skip(String),
    /// The resource does not match.
    Fail {
        /// Where, as Kyverno writes it: `/spec/containers/0/image/`.
        path: String,
        /// Why.
        reason: String,
    },
    /// The resource does not match, and nobody can say where: upstream makes it an error of the rule
    /// if the key of a condition or existence anchor is nowhere in the resource. So is a pattern
    /// beyond its limits.
    Error(String),
}

/// The status of a rule and what is said of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// What came of it.
    pub status: Status,
    /// In upstream's words.
    pub message: String,
}

/// Matches a resource against a pattern from its root.
pub fn match_pattern(resource: &Value, pattern: &Value) -> Matched {
    let mut steps = MAX_PATTERN_STEPS;
    match_within(resource, pattern, &mut steps)
}

/// The same with what is left of the steps of something larger.
pub(crate) fn match_within(resource: &Value, pattern: &Value, steps: &mut usize) -> Matched {
    let mut walk = Walk { steps, seen: BTreeMap::new() };
    let Err(miss) = walk.element(resource, pattern, "/", MAX_PATTERN_DEPTH) else { return Matched::Pass };
    match miss.why {
        Why::Condition | Why::Global => Matched::Skip(miss.message),
        Why::Differs if miss.path.is_empty() || walk.seen.values().any(|seen| !seen) => {
            Matched::Error(miss.message)
        }
        Why::Negation | Why::Differs => Matched::Fail { path: miss.path, reason: miss.message },
        Why::Limit => Matched::Error(miss.message),
    }
}

/// Judges a resource by the `pattern` of a rule; `message` is the rule's own, its variables filled in.
///
/// It takes at most `steps`, and leaves what is left of them.
pub fn judge_pattern(
    rule: &str,
    message: &str,
    resource: &Value,
    pattern: &Value,
    steps: &mut usize,
) -> Judgement {
    let colon =
        |stop: &str| if message.is_empty() { String::new() } else { format!("{}{stop}", stopped(message)) };
    let own = colon(" ");
    match match_within(resource, pattern, steps) {
        Matched::Pass => {
            Judgement { status: Status::Pass, message: format!("validation rule '{rule}' passed.") }
        }
        Matched::Skip(reason) => Judgement { status: Status::Skip, message: reason },
        Matched::Fail { path, .. } => Judgement {
            status: Status::Fail,
            message: format!("validation error: {own}rule {rule} failed at path {path}"),
        },
        Matched::Error(reason) => Judgement {
            status: Status::Error,
            message: format!("validation error: {own}rule {rule} execution error: {reason}"),
        },
    }
}

/// Judges a resource by the `anyPattern` of a rule: one that matches is enough.
///
/// It takes at most `steps`, and leaves what is left of them.
pub fn judge_any_pattern(
    rule: &str,
    message: &str,
    resource: &Value,
    patterns: &[impl Borrow<Value>],
    steps: &mut usize,
) -> Judgement {
    let (mut skipped, mut failed) = (Vec::new(), Vec::new());
    for (index, pattern) in patterns.iter().enumerate() {
        match match_within(resource, pattern.borrow(), steps) {
            Matched::Pass => {
                let message = format!("validation rule '{rule}' anyPattern[{index}] passed.");
                return Judgement { status: Status::Pass, message };
            }
            Matched::Skip(reason) => skipped.push(format!("rule {rule}[{index}] skipped: {reason}")),
            Matched::Fail { path, .. } => failed.push(format!("rule {rule}[{index}] failed at path {path}")),
            Matched::Error(reason) => failed.push(format!("rule {rule}[{index}] failed: {reason}")),
        }
    }
    if patterns.is_empty() {
        return Judgement { status: Status::Error, message: format!("rule {rule} has no pattern") };
    }
    if failed.is_empty() {
        return Judgement { status: Status::Skip, message: shorten(skipped.join(" "), MAX_MESSAGE) };
    }
    let own = if message.is_empty() { String::new() } else { format!("{} ", stopped(message)) };
    let message = shorten(format!("validation error: {own}{}", failed.join(" ")), MAX_MESSAGE);
    Judgement { status: Status::Fail, message }
}

fn stopped(message: &str) -> String {
    if message.ends_with('.') { message.to_owned() } else { format!("{message}.") }
}

/// Why something does not match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    Differs,
    Condition,
    Global,
    Negation,
    Limit,
}

/// What does not match.
struct Miss {
    why: Why,
    /// Made of what was skipped below, and not of an anchor in this place.
    below: bool,
    path: String,
    message: String,
}

type Outcome = Result<(), Miss>;

impl Miss {
    fn new(why: Why, path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { why, below: false, path: path.into(), message: message.into() }
    }

    fn differs(path: &str, message: String) -> Self {
        Self::new(Why::Differs, path, message)
    }

    fn skips(&self) -> bool {
        matches!(self.why, Why::Condition | Why::Global)
    }

    /// All that was skipped in one place.
    fn all(path: &str, skips: &[Self]) -> Self {
        let mut message = String::new();
        for skip in skips {
            if !message.is_empty() {
                message.push_str("; ");
            }
            message.push_str(&skip.message);
            if message.len() > MAX_MESSAGE {
                message = shorten(message, MAX_MESSAGE);
                break;
            }
        }
        let why = skips.first().map_or(Why::Condition, |skip| skip.why);
        Self { why, below: true, path: path.to_owned(), message }
    }
}

/// One match under way.
struct Walk<'a> {
    steps: &'a mut usize,
    /// The keys with condition and existence anchors, and whether they were anywhere in the resource.
    seen: BTreeMap<String, bool>,
}

impl Walk<'_> {
    fn spend(&mut self, steps: usize) -> Outcome {
        *self.steps = self.steps.saturating_sub(steps);
        if *self.steps > 0 {
            return Ok(());
        }
        Err(Miss::new(Why::Limit, "", "the pattern is beyond its limits: too many steps"))
    }

    fn element(&mut self, resource: &Value, pattern: &Value, path: &str, depth: usize) -> Outcome {
        self.spend(1 + path.len() / 64)?;
        let Some(depth) = depth.checked_sub(1) else {
            return Err(Miss::new(Why::Limit, "", "the pattern is beyond its limits: nested too deep"));
        };
        match (pattern, resource) {
            (Value::Object(pattern), Value::Object(resource)) => self.map(resource, pattern, path, depth),
            (Value::Object(_), _) => {
                let (expected, found) = (go_type(pattern), go_type(resource));
                let message = format!(
                    "pattern and resource have different structures. Path: {path}. Expected {expected}, found {found}"
                );
                Err(Miss::differs(path, message))
            }
            (Value::Array(pattern), Value::Array(resource)) => self.list(resource, pattern, path, depth),
            (Value::Array(_), _) => {
                let message = format!(
                    "validation rule failed at path {path}, resource does not satisfy the expected overlay pattern"
                );
                Err(Miss::differs(path, message))
            }
            (_, value) => self.scalar(value, pattern, path),
        }
    }

    /// A scalar stands for each element of a list.
    fn scalar(&mut self, value: &Value, pattern: &Value, path: &str) -> Outcome {
        let items = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
        self.scalars(items, || show_short(value), pattern, path)
    }

    fn scalars(
        &mut self,
        items: &[Value],
        shown: impl FnOnce() -> String,
        pattern: &Value,
        path: &str,
    ) -> Outcome {
        let length = |value: &Value| value.as_str().map_or(16, str::len);
        for item in items {
            self.spend(1 + length(item).saturating_mul(length(pattern)) / 64)?;
            if !matches(item, pattern) {
                let (value, pattern) = (shown(), show_short(pattern));
                let message = format!("resource value '{value}' does not match '{pattern}' at path {path}");
                return Err(Miss::differs(path, message));
            }
        }
        Ok(())
    }

    fn map(
        &mut self,
        resource: &Map<String, Value>,
        pattern: &Map<String, Value>,
        path: &str,
        depth: usize,
    ) -> Outcome {
        for key in pattern.keys() {
            if let Some(Anchor { kind: Kind::Condition | Kind::Existence, key: name }) = Anchor::parse(key) {
                *self.seen.entry(key.clone()).or_default() |= resource.contains_key(name);
            }
        }
        let pattern = self.without_wildcards(pattern, resource)?;
        let mut fields: Vec<_> =
            pattern.iter().map(|(key, value)| (key.as_str(), Anchor::parse(key), value)).collect();
        fields.sort_unstable_by_key(|(key, ..)| *key);
        self.spend(fields.len())?;
        let (anchored, plain): (Vec<_>, Vec<_>) = fields.into_iter().partition(|(_, anchor, _)| {
            anchor.is_some_and(|anchor| !matches!(anchor.kind, Kind::Global | Kind::IfAbsent))
        });

        let (mut skips, mut held) = (Vec::new(), false);
        let here = |skips: &[Miss]| skips.iter().any(|skip| !skip.below);
        for (key, anchor, value) in anchored {
            match self.field(resource, (key, anchor, value), path, depth) {
                Ok(()) => held = true,
                Err(miss) if miss.skips() => skips.push(miss),
                Err(miss) if miss.why == Why::Limit || !here(&skips) => return Err(miss),
                Err(_) => {}
            }
        }
        if !skips.is_empty() && (!held || here(&skips)) {
            return Err(Miss::all(path, &skips));
        }

        // Who has anchors below goes first, the last of them at the very front.
        let (mut first, mut rest) = (Vec::new(), Vec::new());
        for field in plain {
            let global = field.1.is_some_and(|anchor| anchor.kind == Kind::Global);
            let front = global || self.has_anchors(field.2)?;
            if front { first.push(field) } else { rest.push(field) }
        }
        for field in first.into_iter().rev().chain(rest) {
            self.field(resource, field, path, depth)?;
        }
        Ok(())
    }

    fn field(
        &mut self,
        resource: &Map<String, Value>,
        (key, anchor, pattern): (&str, Option<Anchor<'_>>, &Value),
        path: &str,
        depth: usize,
    ) -> Outcome {
        let anchor = anchor.filter(|anchor| anchor.kind != Kind::IfAbsent);
        let name = anchor.map_or(key, |anchor| anchor.key);
        let below = format!("{path}{name}/");
        let value = resource.get(name);
        let Some(Anchor { kind, .. }) = anchor else {
            let value = value.unwrap_or(&NOTHING);
            if pattern == "*" {
                let missing = || Miss::differs(path, format!("{path}/{key} not found"));
                return if value.is_null() { Err(missing()) } else { Ok(()) };
            }
            return self.element(value, pattern, &below, depth);
        };
        match (kind, value) {
            (Kind::Negation, Some(_)) => {
                let message = format!("negation anchor matched in resource: {below} is not allowed");
                Err(Miss::new(Why::Negation, below, message))
            }
            (Kind::Condition, None) => {
                let message =
                    "conditional anchor mismatch: conditional anchor key doesn't exist in the resource";
                Err(Miss::new(Why::Condition, below, message))
            }
            (_, None) => Ok(()),
            (Kind::Existence, Some(value)) => self.existence(value, pattern, &below, depth),
            (kind, Some(value)) => {
                let (why, prefix) = match kind {
                    Kind::Condition => (Why::Condition, "conditional anchor mismatch"),
                    Kind::Global => (Why::Global, "global anchor mismatch"),
                    _ => return self.element(value, pattern, &below, depth),
                };
                self.element(value, pattern, &below, depth).map_err(|miss| match miss.why {
                    Why::Limit => miss,
                    _ => {
                        Miss::new(why, miss.path, shorten(format!("{prefix}: {}", miss.message), MAX_MESSAGE))
                    }
                })
            }
        }
    }

    /// Each pattern matches some element.
    fn existence(&mut self, value: &Value, pattern: &Value, path: &str, depth: usize) -> Outcome {
        let Value::Array(items) = value else {
            let message = format!(
                "invalid resource type {}: Existence ^ () anchor can be used only on list/array type resource",
                go_type(value)
            );
            return Err(Miss::differs(path, message));
        };
        let wrong = |rest: &str| {
            Miss::differs(
                path,
                format!("invalid pattern type {}: Pattern has to be of {rest}", go_type(pattern)),
            )
        };
        let Value::Array(patterns) = pattern else {
            return Err(wrong("list to compare against resource"));
        };
        for pattern in patterns {
            if !pattern.is_object() {
                return Err(wrong("type map to compare against items in resource"));
            }
            let mut found = false;
            for (index, item) in items.iter().enumerate() {
                match self.element(item, pattern, &format!("{path}{index}/"), depth) {
                    Ok(()) => {
                        found = true;
                        break;
                    }
                    Err(miss) if miss.why == Why::Limit => return Err(miss),
                    Err(_) => {}
                }
            }
            if !found {
                return Err(Miss::differs(
                    path,
                    format!("existence anchor validation failed at path {path}"),
                ));
            }
        }
        Ok(())
    }

    fn list(&mut self, resource: &[Value], pattern: &[Value], path: &str, depth: usize) -> Outcome {
        let pairs: Vec<(&Value, &Value)> = match pattern.first() {
            None => return Err(Miss::differs(path, "pattern Array empty".to_owned())),
            // One map stands for all elements.
            Some(map @ Value::Object(_)) => resource.iter().map(|item| (item, map)).collect(),
            Some(Value::Array(_)) if resource.len() < pattern.len() => {
                let (found, wanted) = (resource.len(), pattern.len());
                let message = format!(
                    "validate Array failed, array length mismatch, resource Array len is {found} and pattern Array len is {wanted}"
                );
                return Err(Miss::differs("", message));
            }
            Some(Value::Array(_)) => resource.iter().zip(pattern).collect(),
            Some(scalar) => return self.scalars(resource, || show_list(resource), scalar, path),
        };
        let (mut skips, mut held) = (Vec::new(), false);
        for (index, (item, pattern)) in pairs.into_iter().enumerate() {
            match self.element(item, pattern, &format!("{path}{index}/"), depth) {
                Ok(()) => held = true,
                Err(miss) if miss.skips() => skips.push(miss),
                Err(miss) => return Err(miss),
            }
        }
        if held || skips.is_empty() { Ok(()) } else { Err(Miss::all(path, &skips)) }
    }

    fn has_anchors(&mut self, pattern: &Value) -> Result<bool, Miss> {
        let mut todo = vec![pattern];
        while let Some(value) = todo.pop() {
            self.spend(1)?;
            match value {
                Value::Object(fields) => {
                    for (key, value) in fields {
                        if Anchor::parse(key).is_some_and(|anchor| anchor.kind != Kind::IfAbsent) {
                            return Ok(true);
                        }
                        todo.push(value);
                    }
                }
                Value::Array(list) => todo.extend(list),
                _ => {}
            }
        }
        Ok(false)
    }

    /// A key with wildcards below `metadata.labels` and `metadata.annotations` is the first key of
    /// the resource that it matches.
    fn without_wildcards<'p>(
        &mut self,
        pattern: &'p Map<String, Value>,
        resource: &Map<String, Value>,
    ) -> Result<Cow<'p, Map<String, Value>>, Miss> {
        let mut pattern = Cow::Borrowed(pattern);
        let Some(metadata) = key_of(&pattern, "metadata").map(ToOwned::to_owned) else { return Ok(pattern) };
        for list in ["labels", "annotations"] {
            let own =
                resource.get("metadata").and_then(|metadata| metadata.get(list)).and_then(Value::as_object);
            let below = pattern.get(&metadata).and_then(Value::as_object);
            let (Some(own), Some(below)) = (own, below) else { continue };
            let Some(key) = key_of(below, list).map(ToOwned::to_owned) else { continue };
            let Some(fields) = below.get(&key).and_then(Value::as_object) else { continue };
            if !fields.keys().any(|key| key.contains(['*', '?'])) {
                continue;
            }
            let mut names: Vec<&String> = own.keys().collect();
            names.sort_unstable();
            let mut expanded = Map::new();
            for (key, value) in fields {
                let anchor = Anchor::parse(key);
                let name = anchor.map_or(key.as_str(), |anchor| anchor.key);
                let mut found = None;
                for own in &names {
                    self.spend(1 + name.len() * own.len() / 64)?;
                    if wildcard_match(name, own) {
                        found = Some(own.as_str());
                        break;
                    }
                }
                let name = found.unwrap_or(name);
                let key = anchor.map_or_else(|| name.to_owned(), |anchor| anchor.around(name));
                expanded.insert(key, value.clone());
            }
            if let Some(Value::Object(below)) = pattern.to_mut().get_mut(&metadata) {
                below.insert(key, Value::Object(expanded));
            }
        }
        Ok(pattern)
    }
}

/// The key of a pattern that speaks of a name, with or without an anchor.
fn key_of<'a>(pattern: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    if let Some((key, _)) = pattern.get_key_value(name) {
        return Some(key);
    }
    let named = |key: &&String| Anchor::parse(key).is_some_and(|anchor| anchor.key == name);
    pattern.keys().filter(named).min().map(String::as_str)
}

#[cfg(test)]
mod tests;
