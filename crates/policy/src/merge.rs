//! Strategic merge patches with the anchors of `mutate` (Kyverno `pkg/engine/mutate/patch`, kustomize).
//!
//! ```text
//! patch with anchors ── resolve, against the target ─► plain patch ── merge ─► target
//! ```
//!
//! Lists merge by the keys of the published types ([`crate::merge_keys`]): elements of the patch come first, as
//! kustomize puts them, and then the others of the target. Other lists are replaced. null removes a
//! field; `$patch`, `$retainKeys`, `$setElementOrder/…` and `$deleteFromPrimitiveList/…` are Kubernetes' own.
//! Nothing is changed unless the whole patch can be merged.

mod resolve;

use serde_json::{Map, Value};

use crate::merge_keys::Shape;
use crate::scalar::{go_type, show_short};
use resolve::{Resolve, Unmet};

/// How deep a patch may be nested.
pub const MAX_MERGE_DEPTH: usize = 128;
/// Steps of one merge: a step is a value visited or copied, or two elements compared.
pub const MAX_MERGE_STEPS: usize = 1_000_000;

/// Why a patch cannot be merged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MergeError {
    /// The patch has another kind of value than the target.
    #[error("{path}: the patch has {patch} where the object has {target}")]
    Kind {
        /// Where, as a JSON pointer.
        path: String,
        /// What the patch has.
        patch: &'static str,
        /// What the object has.
        target: &'static str,
    },
    /// A directive that is none.
    #[error("{path}: `{directive}` is not what this directive can say")]
    Directive {
        /// Where, as a JSON pointer.
        path: String,
        /// The directive and its value.
        directive: String,
    },
    /// An element of a list that merges by keys has none of them: nobody can say which one it is.
    #[error("{path}: an element of this list needs `{keys}`")]
    Key {
        /// Where, as a JSON pointer.
        path: String,
        /// The keys.
        keys: String,
    },
    /// `$patch: delete` for the whole object.
    #[error("a patch cannot delete the object that it is for")]
    Root,
    /// Too deep, or too much work.
    #[error("the patch is beyond its limits: {0}")]
    Limit(&'static str),
}

/// Merges a patch into an object; `false` if a condition of the patch is not met, so that nothing was
/// to be changed. Keys of lists are those of the `apiVersion` and `kind` of the object.
pub fn merge_patch(target: &mut Value, patch: &Value) -> Result<bool, MergeError> {
    let mut merged = target.clone();
    let met = merge_in_place(&mut merged, patch, Shape::default(), &mut MAX_MERGE_STEPS.clone())?;
    *target = merged;
    Ok(met)
}

/// The same for an object whose shape may be known already, in at most so many steps; what is left of the
/// object after an error is of no use.
pub(crate) fn merge_in_place(
    target: &mut Value,
    patch: &Value,
    shape: Shape,
    steps: &mut usize,
) -> Result<bool, MergeError> {
    let shape = shape.at(target);
    let mut resolve = Resolve { steps: &mut *steps };
    let plain = match resolve.value(patch, Some(target), shape, MAX_MERGE_DEPTH) {
        Ok(Some(plain)) => plain,
        // Nothing but conditions.
        Ok(None) => return Ok(true),
        Err(Unmet::Condition | Unmet::Global) => return Ok(false),
        Err(Unmet::Error(error)) => return Err(error),
    };
    let mut merge = Merge { steps: *steps };
    let stays = merge.value(target, plain, shape, "", MAX_MERGE_DEPTH);
    *steps = merge.steps;
    if stays? { Ok(true) } else { Err(MergeError::Root) }
}

/// Takes steps from what is left.
fn spend(steps: &mut usize, taken: usize) -> Result<(), MergeError> {
    *steps = steps.saturating_sub(taken);
    if *steps == 0 { Err(MergeError::Limit("too many steps")) } else { Ok(()) }
}

/// One level deeper.
fn deeper(depth: usize) -> Result<usize, MergeError> {
    depth.checked_sub(1).ok_or(MergeError::Limit("nested too deep"))
}

/// A patch without anchors on its way into an object. Each step says whether the value stays.
struct Merge {
    steps: usize,
}

/// What `$patch` says.
enum Directive {
    Merge,
    Replace,
    Delete,
}

impl Merge {
    fn value(
        &mut self,
        target: &mut Value,
        patch: Value,
        shape: Shape,
        path: &str,
        depth: usize,
    ) -> Result<bool, MergeError> {
        spend(&mut self.steps, 1)?;
        let depth = deeper(depth)?;
        let (is, has) = (go_type(&patch), go_type(target));
        let other = || MergeError::Kind { path: path.to_owned(), patch: is, target: has };
        match patch {
            Value::Null => Ok(false),
            Value::Object(patch) => {
                if target.is_null() {
                    *target = Value::Object(Map::new());
                }
                let shape = shape.at(target);
                let Value::Object(fields) = target else { return Err(other()) };
                self.map(fields, patch, shape, path, depth)
            }
            Value::Array(patch) => {
                if target.is_null() {
                    *target = Value::Array(Vec::new());
                }
                let Value::Array(items) = target else { return Err(other()) };
                self.list(items, patch, shape, path, depth)
            }
            _ if target.is_object() || target.is_array() => Err(other()),
            scalar => {
                *target = scalar;
                Ok(true)
            }
        }
    }

    fn map(
        &mut self,
        target: &mut Map<String, Value>,
        mut patch: Map<String, Value>,
        shape: Shape,
        path: &str,
        depth: usize,
    ) -> Result<bool, MergeError> {
        match directive(&mut patch, path)? {
            Directive::Merge => {}
            Directive::Delete => return Ok(false),
            Directive::Replace => target.clear(),
        }
        if let Some(keep) = patch.remove("$retainKeys") {
            let keep = texts(&keep).ok_or_else(|| wrong(path, "$retainKeys", &keep))?;
            target.retain(|name, _| keep.contains(&name.as_str()));
        }
        let (mut orders, mut dropped) = (Vec::new(), Vec::new());
        for (name, value) in patch {
            if let Some(list) = name.strip_prefix("$setElementOrder/") {
                orders.push((list.to_owned(), value));
                continue;
            }
            if let Some(list) = name.strip_prefix("$deleteFromPrimitiveList/") {
                dropped.push((list.to_owned(), value));
                continue;
            }
            let path = format!("{path}/{name}");
            let mut below = target.remove(&name).unwrap_or_default();
            if self.value(&mut below, value, shape.field(&name), &path, depth)? {
                target.insert(name, below);
            }
        }
        for (list, values) in dropped {
            let Value::Array(values) = values else {
                return Err(wrong(path, "$deleteFromPrimitiveList", &values));
            };
            if let Some(Value::Array(items)) = target.get_mut(&list) {
                spend(&mut self.steps, items.len().saturating_mul(values.len()))?;
                items.retain(|item| !values.contains(item));
            }
        }
        for (list, order) in orders {
            let Value::Array(order) = order else { return Err(wrong(path, "$setElementOrder", &order)) };
            if let Some(Value::Array(items)) = target.get_mut(&list) {
                self.sort(items, &order, shape.field(&list).keys().unwrap_or_default())?;
            }
        }
        Ok(true)
    }

    fn list(
        &mut self,
        target: &mut Vec<Value>,
        patch: Vec<Value>,
        shape: Shape,
        path: &str,
        depth: usize,
    ) -> Result<bool, MergeError> {
        let (mut elements, mut directives) = (Vec::with_capacity(patch.len()), Vec::new());
        for element in patch {
            match element {
                Value::Object(mut alone) if alone.len() == 1 && alone.contains_key("$patch") => {
                    directives.push(directive(&mut alone, path)?);
                }
                element => elements.push(element),
            }
        }
        if directives.iter().any(|directive| matches!(directive, Directive::Delete)) {
            return Ok(false);
        }
        if directives.iter().any(|directive| matches!(directive, Directive::Replace)) {
            target.clear();
        }
        match shape.keys() {
            None => *target = elements,
            Some([]) => {
                spend(&mut self.steps, elements.len().saturating_mul(elements.len() + target.len()))?;
                let old = std::mem::take(target);
                for item in elements.into_iter().chain(old) {
                    if !target.contains(&item) {
                        target.push(item);
                    }
                }
            }
            Some(keys) => self.keyed(target, elements, (keys, shape.element()), path, depth)?,
        }
        Ok(true)
    }

    /// Elements of the patch come first, each merged into the one that it stands for.
    fn keyed(
        &mut self,
        target: &mut Vec<Value>,
        patch: Vec<Value>,
        (keys, shape): (&[String], Shape),
        path: &str,
        depth: usize,
    ) -> Result<(), MergeError> {
        let (mut front, mut rest) = (Vec::with_capacity(patch.len()), std::mem::take(target));
        for element in patch {
            spend(&mut self.steps, 1 + front.len() + rest.len())?;
            if keys.iter().all(|key| element.get(key).is_none()) {
                return Err(MergeError::Key { path: path.to_owned(), keys: keys.join("` or `") });
            }
            let before = front.iter().position(|other| same(other, &element, keys));
            let mut merged = match (before, rest.iter().position(|other| same(other, &element, keys))) {
                (Some(before), _) => std::mem::take(&mut front[before]),
                (None, Some(at)) => rest.remove(at),
                (None, None) => Value::Null,
            };
            let path = format!("{path}/{}", before.unwrap_or(front.len()));
            match (self.value(&mut merged, element, shape, &path, depth)?, before) {
                (true, Some(before)) => front[before] = merged,
                (true, None) => front.push(merged),
                (false, Some(before)) => _ = front.remove(before),
                (false, None) => {}
            }
        }
        front.append(&mut rest);
        *target = front;
        Ok(())
    }

    /// Puts the elements that an order names into it; the others keep their places.
    fn sort(&mut self, items: &mut [Value], order: &[Value], keys: &[String]) -> Result<(), MergeError> {
        spend(&mut self.steps, items.len().saturating_mul(order.len()))?;
        let rank = |item: &Value| {
            order
                .iter()
                .position(|other| if keys.is_empty() { item == other } else { same(item, other, keys) })
        };
        let (places, mut named): (Vec<usize>, Vec<(usize, Value)>) = items
            .iter()
            .enumerate()
            .filter_map(|(place, item)| Some((place, (rank(item)?, item.clone()))))
            .unzip();
        named.sort_by_key(|(rank, _)| *rank);
        for (place, (_, item)) in places.into_iter().zip(named) {
            items[place] = item;
        }
        Ok(())
    }
}

/// Whether two elements stand for the same: no key differs, and some key is in both. One that only
/// one of them has is taken to be the other's, as that is often a default (`protocol`).
fn same(left: &Value, right: &Value, keys: &[String]) -> bool {
    let mut common = false;
    for key in keys {
        if let (Some(left), Some(right)) = (left.get(key), right.get(key)) {
            if left != right {
                return false;
            }
            common = true;
        }
    }
    common
}

fn directive(patch: &mut Map<String, Value>, path: &str) -> Result<Directive, MergeError> {
    match patch.remove("$patch") {
        None => Ok(Directive::Merge),
        Some(Value::String(text)) if text == "merge" => Ok(Directive::Merge),
        Some(Value::String(text)) if text == "replace" => Ok(Directive::Replace),
        Some(Value::String(text)) if text == "delete" => Ok(Directive::Delete),
        Some(other) => Err(wrong(path, "$patch", &other)),
    }
}

fn texts(value: &Value) -> Option<Vec<&str>> {
    value.as_array()?.iter().map(Value::as_str).collect()
}

fn wrong(path: &str, directive: &str, value: &Value) -> MergeError {
    MergeError::Directive { path: path.to_owned(), directive: format!("{directive}: {}", show_short(value)) }
}

#[cfg(test)]
mod tests;
