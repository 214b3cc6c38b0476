//! `mutate` rules (Kyverno `pkg/engine/handlers/mutation`): patches, once or for each element of lists.

use countersign_jmespath::{Error, Expression};
use serde_json::Value;

use crate::JsonPatch;
use crate::conditions::Conditions;
use crate::context::{self, Entry};
use crate::fields::{Fields, Notes};
use crate::merge::{MAX_MERGE_STEPS, merge_in_place};
use crate::merge_keys::Shape;
use crate::references;
use crate::template::Template;
use crate::validate::{Lacking, OBJECT, Scene, elements, read_list};

/// Loops within loops.
const MAX_DEPTH: usize = 8;

/// A patch, or a loop of patches.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Merge(Template),
    /// A patch by operations, as it is written: JSON or YAML.
    Operations(Template),
    Loop(Box<Loop>),
}

/// Patches for each element of a list.
#[derive(Clone, Debug)]
pub(crate) struct Loop {
    list: Expression,
    context: Vec<Entry>,
    preconditions: Conditions,
    /// From the last element to the first.
    descending: bool,
    steps: Vec<Step>,
}

/// What is known under `mutate` and not done.
const NOT_DONE: [(&str, &str); 2] = [
    ("targets", "objects that are there already are not changed"),
    ("mutateExistingOnPolicyUpdate", "objects that are there already are not changed"),
];

pub(crate) fn read(value: &Value, path: &str, notes: &mut Notes) -> Vec<Step> {
    let mut fields = Fields::of(value, path, notes);
    let mut steps = read_patches(&mut fields, path, notes);
    let loops = fields.list("foreach", notes);
    for (index, value) in loops.iter().enumerate() {
        steps.extend(Loop::read(value, &format!("{path}.foreach[{index}]"), 0, notes));
    }
    for (field, why) in NOT_DONE {
        fields.never(field, why, notes);
    }
    fields.finish(notes);
    if steps.is_empty() && notes.refusals.is_empty() {
        notes.refuse(path, "has none of `patchStrategicMerge`, `patchesJson6902` and `foreach`");
    }
    steps
}

fn read_patches(fields: &mut Fields<'_>, path: &str, notes: &mut Notes) -> Vec<Step> {
    let mut steps = Vec::new();
    for (field, step) in
        [("patchStrategicMerge", Step::Merge as fn(Template) -> Step), ("patchesJson6902", Step::Operations)]
    {
        let Some(value) = fields.take(field) else { continue };
        // One without variables is known to be a patch, or to be none, before anybody needs it.
        let fixed = value.as_str().filter(|text| field == "patchesJson6902" && !text.contains("{{"));
        if let Some(Err(error)) = fixed.map(JsonPatch::parse) {
            notes.refuse(&format!("{path}.{field}"), error.to_string());
            continue;
        }
        let resolved = match field {
            "patchStrategicMerge" => references::resolved(value, OBJECT),
            _ => Ok(value.clone()),
        };
        let value = match resolved {
            Ok(value) => value,
            Err(why) => {
                notes.refuse(&format!("{path}.{field}"), why);
                continue;
            }
        };
        match Template::of(&value) {
            Ok(template) => steps.push(step(template)),
            Err(error) => notes.refuse(&format!("{path}.{field}"), error.to_string()),
        }
    }
    steps
}

impl Loop {
    fn read(value: &Value, path: &str, depth: usize, notes: &mut Notes) -> Option<Step> {
        if depth == MAX_DEPTH {
            notes.refuse(path, format!("loops are nested more than {MAX_DEPTH} deep"));
            return None;
        }
        let mut fields = Fields::of(value, path, notes);
        let list = read_list(&mut fields, path, notes);
        let context = Entry::read_all(fields.list("context", notes), &format!("{path}.context"), notes);
        let preconditions =
            Conditions::read_untold(fields.take("preconditions"), &format!("{path}.preconditions"), notes);
        let mut steps = read_patches(&mut fields, path, notes);
        // Upstream goes from the last to the first where it merges.
        let merges = matches!(steps.as_slice(), [Step::Merge(_)]);
        let descending = match fields.text("order", notes) {
            None => merges,
            Some("Ascending") => false,
            Some("Descending") => true,
            Some(other) => {
                notes.refuse(
                    &format!("{path}.order"),
                    format!("`{other}` is not `Ascending` or `Descending`"),
                );
                false
            }
        };
        for (index, inner) in fields.list("foreach", notes).iter().enumerate() {
            steps.extend(Self::read(inner, &format!("{path}.foreach[{index}]"), depth + 1, notes));
        }
        fields.finish(notes);
        Some(Step::Loop(Box::new(Self { list: list?, context, preconditions, descending, steps })))
    }
}

/// The object as the steps leave it; `None` where none of them changed anything. Expressions speak of the
/// object as it was before the rule, and a rule that fails changes nothing.
pub(crate) fn apply(
    steps: &[Step],
    scene: &mut Scene<'_, '_>,
) -> Result<Result<Option<Value>, Error>, Lacking> {
    let mut work = scene.names.object().clone();
    let done = steps.iter().try_for_each(|step| step.apply(scene, &mut work));
    match done {
        Ok(()) => Ok(Ok((work != *scene.names.object()).then_some(work))),
        Err(Error::Missing(_)) => Err(Lacking),
        Err(error) => Ok(Err(error)),
    }
}

impl Step {
    fn apply(&self, scene: &mut Scene<'_, '_>, work: &mut Value) -> Result<(), Error> {
        match self {
            Self::Merge(patch) => {
                let patch = patch.fill(scene.names)?;
                let shape = Shape::of_kind(&scene.names.request()["kind"]);
                let merge = |steps: &mut usize| merge_in_place(work, &patch, shape, steps);
                let merged = scene.names.fuel().within(MAX_MERGE_STEPS, merge);
                merged.map(|_| ()).map_err(|why| failed("patchStrategicMerge", why))
            }
            Self::Operations(patch) => {
                let patch = patch.fill(scene.names)?;
                // It is applied to a copy.
                scene.names.fuel().copy(work)?;
                let patch = match &patch {
                    Value::String(text) => JsonPatch::parse(text),
                    other => JsonPatch::of(other),
                };
                let patched = patch.and_then(|patch| patch.apply(work));
                patched.map_err(|why| failed("patchesJson6902", why))
            }
            Self::Loop(own) => own.apply(scene, work),
        }
    }
}

fn failed(what: &str, why: impl std::fmt::Display) -> Error {
    Error::Call { function: what.to_owned(), message: why.to_string() }
}

impl Loop {
    fn apply(&self, scene: &mut Scene<'_, '_>, work: &mut Value) -> Result<(), Error> {
        let list = elements(self.list.evaluate(scene.names)?.into_owned());
        let mut list: Vec<(usize, Value)> = list.into_iter().enumerate().collect();
        if self.descending {
            list.reverse();
        }
        let mut lacking = None;
        for (index, element) in list {
            if element.is_null() {
                continue;
            }
            scene.left = scene.left.checked_sub(1).ok_or(Error::Limit("too many elements"))?;
            let mark = scene.names.mark();
            if !scene.names.enter(element, index) {
                return Err(Error::Limit("loops are nested too deep"));
            }
            let done = self.apply_to_element(scene, work);
            scene.names.leave();
            scene.names.reset(mark);
            match done {
                // The others may lack something, too.
                Err(error @ Error::Missing(_)) => {
                    lacking.get_or_insert(error);
                }
                done if lacking.is_none() => done?,
                _ => {}
            }
        }
        lacking.map_or(Ok(()), Err)
    }

    fn apply_to_element(&self, scene: &mut Scene<'_, '_>, work: &mut Value) -> Result<(), Error> {
        context::load(&self.context, scene.names, scene.facts, scene.wants, scene.own)?;
        if !self.preconditions.hold(scene.names)? {
            return Ok(());
        }
        self.steps.iter().try_for_each(|step| step.apply(scene, work))
    }
}
