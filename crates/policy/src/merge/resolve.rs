//! From a patch with anchors to a plain one, against the object that it is for.
//!
//! A condition that is not met takes the nearest element of a list out of the patch, or the whole patch
//! where there is none; a global one always the whole. An anchored element stands for each element of
//! the target's list that it holds for, each looked at by itself; one that names its keys stands for that
//! one alone. What a condition holds is no part of the patch, unless `+(key)` stands directly in it:
//! then it is a patch for what is there.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::{Merge, MergeError, deeper, spend};
use crate::anchor::{Anchor, Kind, of_kind};
use crate::merge_keys::Shape;
use crate::pattern::{Matched, match_within};
use crate::scalar::show;

/// Why nothing comes of a part of a patch.
pub(super) enum Unmet {
    Condition,
    Global,
    Error(MergeError),
}

impl From<MergeError> for Unmet {
    fn from(error: MergeError) -> Self {
        Self::Error(error)
    }
}

/// A part of a patch, or `None` if there was nothing in it but anchors.
type Resolved<T> = Result<Option<T>, Unmet>;

/// A patch that is being resolved.
pub(super) struct Resolve<'a> {
    pub(super) steps: &'a mut usize,
}

impl Resolve<'_> {
    pub(super) fn value(
        &mut self,
        patch: &Value,
        target: Option<&Value>,
        shape: Shape,
        depth: usize,
    ) -> Resolved<Value> {
        spend(self.steps, 1)?;
        let depth = deeper(depth)?;
        match patch {
            Value::Object(fields) => {
                let shape = target.map_or(shape, |target| shape.at(target));
                Ok(self.map(fields, target, shape, depth)?.map(Value::Object))
            }
            Value::Array(items) => self.list(items, target, shape, depth),
            scalar => Ok(Some(scalar.clone())),
        }
    }

    fn map(
        &mut self,
        patch: &Map<String, Value>,
        target: Option<&Value>,
        shape: Shape,
        depth: usize,
    ) -> Resolved<Map<String, Value>> {
        for kind in [Kind::Global, Kind::Condition] {
            for (key, pattern) in patch {
                let Some(name) = of_kind(key, kind) else { continue };
                let value = target.and_then(|target| target.get(name));
                if !self.holds(pattern, value)? {
                    return Err(if kind == Kind::Global { Unmet::Global } else { Unmet::Condition });
                }
            }
        }
        let mut resolved = Map::new();
        for (key, value) in patch {
            let anchor = Anchor::parse(key);
            let name = anchor.map_or(key.as_str(), |anchor| anchor.key);
            let below = target.and_then(|target| target.get(name));
            let below = match anchor.map(|anchor| anchor.kind) {
                Some(Kind::IfAbsent) if below.is_some() => continue,
                Some(Kind::Condition | Kind::Global) if !adds(value) => continue,
                Some(Kind::Condition | Kind::Global | Kind::IfAbsent) | None => below,
                // The anchors of `validate` are keys like others here, as upstream.
                Some(Kind::Negation | Kind::Equality | Kind::Existence) => {
                    resolved.extend(
                        self.value(value, None, Shape::default(), depth)?.map(|value| (key.clone(), value)),
                    );
                    continue;
                }
            };
            if let Some(value) = self.value(value, below, shape.field(name), depth)? {
                resolved.insert(name.to_owned(), value);
            }
        }
        Ok((patch.is_empty() || !resolved.is_empty()).then_some(resolved))
    }

    /// Whether what is there meets a condition; scalars are compared by their texts.
    fn holds(&mut self, pattern: &Value, value: Option<&Value>) -> Result<bool, MergeError> {
        let Some(value) = value else { return Ok(false) };
        if adds(pattern) {
            return Ok(true);
        }
        let (pattern, value) = (as_text(pattern), as_text(value));
        match match_within(&value, &pattern, self.steps) {
            Matched::Pass => Ok(true),
            _ if *self.steps == 0 => Err(MergeError::Limit("too many steps")),
            _ => Ok(false),
        }
    }

    fn list(
        &mut self,
        patch: &[Value],
        target: Option<&Value>,
        shape: Shape,
        depth: usize,
    ) -> Resolved<Value> {
        let items = target.and_then(Value::as_array);
        let (mut plain, mut edits, mut edited) = (Vec::new(), Vec::new(), Vec::new());
        for element in patch {
            if !self.has(element, |kind| matches!(kind, Kind::Condition | Kind::Global | Kind::IfAbsent))? {
                plain.push(element.clone());
            } else if self.has(element, |kind| kind == Kind::Global)? {
                self.some_holds(element, target, shape.element(), depth)?;
            } else if let (true, Some(keys)) = (names_itself(element, shape), shape.keys()) {
                let own = items.into_iter().flatten().find(|item| super::same(item, element, keys));
                match self.value(element, own, shape.element(), depth) {
                    Ok(own) => edited.extend(own),
                    Err(Unmet::Condition) => {}
                    Err(unmet) => return Err(unmet),
                }
            } else {
                edits.push(element);
            }
        }
        // A list without keys is replaced: by itself, with what is edited in it.
        let whole_list = shape.keys().is_none() && !edits.is_empty();
        let mut changed = !edited.is_empty();
        for item in items.into_iter().flatten() {
            let mut whole = whole_list.then(|| item.clone());
            for edit in &edits {
                let resolved = match self.value(edit, Some(item), shape.element(), depth) {
                    Ok(Some(Value::Object(resolved))) => resolved,
                    Ok(_) | Err(Unmet::Condition) => continue,
                    Err(unmet) => return Err(unmet),
                };
                changed = true;
                if let Some(whole) = &mut whole {
                    let mut merge = Merge { steps: *self.steps };
                    merge.value(whole, resolved.into(), shape.element(), "", depth)?;
                    *self.steps = merge.steps;
                } else {
                    edited.extend(keyed(resolved, item, shape.keys().unwrap_or_default()));
                }
            }
            edited.extend(whole);
        }
        if plain.is_empty() && !changed && !patch.is_empty() {
            return Ok(None);
        }
        plain.append(&mut edited);
        Ok(Some(Value::Array(plain)))
    }

    /// A condition on the whole patch: some element meets it.
    fn some_holds(
        &mut self,
        element: &Value,
        target: Option<&Value>,
        shape: Shape,
        depth: usize,
    ) -> Result<(), Unmet> {
        let mut unmet = target.is_none();
        for item in target.and_then(Value::as_array).into_iter().flatten() {
            match self.value(element, Some(item), shape, depth) {
                Ok(_) => return Ok(()),
                Err(Unmet::Global) => unmet = true,
                Err(Unmet::Condition) => {}
                Err(error) => return Err(error),
            }
        }
        if unmet { Err(Unmet::Global) } else { Ok(()) }
    }

    /// Whether an anchor of some kind stands anywhere in a value.
    fn has(&mut self, value: &Value, of: fn(Kind) -> bool) -> Result<bool, MergeError> {
        let mut todo = vec![value];
        while let Some(value) = todo.pop() {
            spend(self.steps, 1)?;
            match value {
                Value::Object(fields) => {
                    for (key, value) in fields {
                        if Anchor::parse(key).is_some_and(|anchor| of(anchor.kind)) {
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
}

/// Whether `+(key)` stands directly in a map.
fn adds(value: &Value) -> bool {
    value.as_object().is_some_and(|fields| fields.keys().any(|key| of_kind(key, Kind::IfAbsent).is_some()))
}

fn as_text(value: &Value) -> Cow<'_, Value> {
    match value {
        Value::Null => Cow::Owned(Value::String("null".to_owned())),
        Value::Bool(_) | Value::Number(_) => Cow::Owned(Value::String(show(value))),
        other => Cow::Borrowed(other),
    }
}

/// Whether an element has a key of its list without an anchor.
fn names_itself(element: &Value, shape: Shape) -> bool {
    shape.keys().unwrap_or_default().iter().any(|key| element.get(key).is_some())
}

/// An edit with the keys of the element that it is for; `None` if that has none.
fn keyed(mut edit: Map<String, Value>, item: &Value, keys: &[String]) -> Option<Value> {
    let mut found = false;
    for key in keys {
        if let Some(value) = item.get(key) {
            found = true;
            edit.insert(key.clone(), value.clone());
        }
    }
    found.then_some(Value::Object(edit))
}
