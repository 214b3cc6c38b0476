//! `validate` rules (Kyverno `pkg/engine/handlers/validation`).

use std::borrow::Cow;

use countersign_jmespath::{Error, Expression};
use countersign_podsecurity::{self as podsecurity, Exclusion, Parsed, Place, PodSecurity, Problem};
use serde_json::Value;

use crate::action::Action;
use crate::conditions::Conditions;
use crate::context::{self, Entry};
use crate::engine::{Facts, Want};
use crate::fields::{Fields, Notes};
use crate::names::Names;
use crate::pattern::{Judgement, MAX_PATTERN_STEPS, judge_any_pattern, judge_pattern};
use crate::references;
use crate::respond::Status;
use crate::template::Template;

/// Loops within loops.
const MAX_DEPTH: usize = 8;
/// Where the object is that is judged.
pub(crate) const OBJECT: &str = "request.object";
/// Elements that one rule is evaluated for, over all its loops.
pub(crate) const MAX_ELEMENTS: usize = 10_000;

/// What a rule asks of an object.
#[derive(Clone, Debug)]
pub(crate) struct Validate {
    pub(crate) action: Action,
    message: Option<Template>,
    check: Check,
    /// An object that was as wrong before may stay so.
    pub(crate) allow_existing: bool,
}

#[derive(Clone, Debug)]
enum Check {
    Pattern(Template),
    AnyPattern(Vec<Template>),
    Deny(Conditions),
    Loops(Vec<Loop>),
    PodSecurity(Box<PodSecurity>),
}

/// A check of each element of a list.
#[derive(Clone, Debug)]
struct Loop {
    list: Expression,
    context: Vec<Entry>,
    preconditions: Conditions,
    /// Whether a pattern is for the element rather than for the object.
    element_scope: Option<bool>,
    check: Box<Check>,
}

/// What a rule says of itself.
#[derive(Clone, Copy)]
struct Words<'w> {
    rule: &'w str,
    /// The words for what does not hold.
    message: &'w str,
    /// The same as written: in a loop it may speak of an element.
    template: Option<&'w Template>,
}

/// How a rule came out, and why.
pub(crate) type Answer = (Status, String);

/// What is lacking ends a rule without an answer.
pub(crate) struct Lacking;

/// What an evaluation goes by.
pub(crate) struct Scene<'s, 'a> {
    pub(crate) names: &'s mut Names<'a>,
    pub(crate) facts: &'s Facts,
    pub(crate) wants: &'s mut Vec<Want>,
    /// The namespace of a namespaced policy.
    pub(crate) own: Option<&'s str>,
    pub(crate) left: usize,
}

impl Validate {
    pub(crate) fn read(value: &Value, path: &str, notes: &mut Notes) -> Option<Self> {
        let mut fields = Fields::of(value, path, notes);
        let action = Action::read(&mut fields, ("failureAction", "failureActionOverrides"), notes);
        let message =
            fields.take("message").and_then(|text| template(text, &format!("{path}.message"), notes));
        let allow_existing = fields.flag("allowExistingViolations", notes).unwrap_or(true);
        let mut checks = Vec::new();
        checks.extend(Check::read(&mut fields, path, OBJECT, notes));
        if let Some(list) = fields.take("foreach") {
            let list = filled_list(list, &format!("{path}.foreach"), notes);
            checks.push(Check::Loops(read_loops(list, &format!("{path}.foreach"), 0, notes)));
        }
        if let Some(rule) = fields.take("podSecurity") {
            let path = format!("{path}.podSecurity");
            match countersign_podsecurity::parse(rule, &path) {
                Ok(Parsed { value, warnings }) => {
                    checks.push(Check::PodSecurity(Box::new(value)));
                    for Problem { path, reason } in warnings {
                        notes.warn(&path, reason);
                    }
                }
                Err(problems) => {
                    for Problem { path, reason } in problems {
                        notes.refuse(&path, reason);
                    }
                }
            }
        }
        for (field, why) in [
            ("cel", "CEL is not evaluated yet"),
            ("manifests", "signatures in manifests are not verified"),
            ("assert", "assertions are not evaluated"),
        ] {
            fields.never(field, why, notes);
        }
        fields.finish(notes);
        if checks.len() > 1 {
            notes.refuse(
                path,
                "only one of `pattern`, `anyPattern`, `deny`, `foreach` and `podSecurity` is evaluated",
            );
        }
        let check = checks.pop();
        if check.is_none() && notes.refusals.is_empty() {
            notes.refuse(path, "has none of `pattern`, `anyPattern`, `deny`, `foreach` and `podSecurity`");
        }
        Some(Self { action, message, check: check?, allow_existing })
    }

    /// Whether it asks about the object itself, which a deletion does not have.
    pub(crate) fn is_of_object(&self) -> bool {
        !matches!(self.check, Check::Deny(_))
    }

    /// Holds the object in scope against the rule; `lifted` are controls that an exception lifts.
    pub(crate) fn answer(
        &self,
        rule: &str,
        scene: &mut Scene<'_, '_>,
        lifted: &[Exclusion],
    ) -> Result<Answer, Lacking> {
        let message = match self.message.as_ref().map(|message| message.fill(scene.names)).transpose() {
            Ok(message) => message.as_ref().map(shown).unwrap_or_default(),
            Err(Error::Missing(_)) => return Err(Lacking),
            // The words are lost, and not what they are about: they may speak of an element.
            Err(_) => self.message.as_ref().map(Template::written).unwrap_or_default(),
        };
        let words = Words { rule, message: message.trim(), template: self.message.as_ref() };
        match self.check.answer(words, scene, lifted) {
            Ok(answer) => Ok(answer),
            Err(Error::Missing(_)) => Err(Lacking),
            Err(error) => Ok((Status::Error, error.to_string())),
        }
    }
}

impl Check {
    /// Reads the one of them that is there, and all that are too many; `root` is where patterns begin.
    fn read(fields: &mut Fields<'_>, path: &str, root: &str, notes: &mut Notes) -> Vec<Self> {
        let mut checks = Vec::new();
        if let Some(pattern) = fields.take("pattern") {
            checks.extend(pattern_of(pattern, &format!("{path}.pattern"), root, notes).map(Self::Pattern));
        }
        if let Some(list) = fields.take("anyPattern") {
            let list = filled_list(list, &format!("{path}.anyPattern"), notes);
            let read = |pattern| pattern_of(pattern, &format!("{path}.anyPattern"), root, notes);
            checks.push(Self::AnyPattern(list.iter().filter_map(read).collect()));
        }
        if let Some(deny) = fields.take("deny") {
            let path = format!("{path}.deny");
            let mut deny = Fields::of(deny, &path, notes);
            let conditions = Conditions::read(deny.take("conditions"), &format!("{path}.conditions"), notes);
            deny.finish(notes);
            checks.push(Self::Deny(conditions));
        }
        checks
    }

    fn answer(
        &self,
        words: Words<'_>,
        scene: &mut Scene<'_, '_>,
        lifted: &[Exclusion],
    ) -> Result<Answer, Error> {
        match self {
            Self::PodSecurity(own) => Ok(pod_security(own, words.rule, scene.names.current(), lifted)),
            Self::Loops(loops) => Ok(match answer_loops(loops, words, scene)? {
                (Status::Fail, why) => (Status::Fail, format!("validation failure: {why}")),
                answer => answer,
            }),
            simple => simple.of(None, words, scene),
        }
    }

    /// Holds a value, or the object in scope, against a check that is no loop.
    fn of(
        &self,
        value: Option<&Value>,
        words: Words<'_>,
        scene: &mut Scene<'_, '_>,
    ) -> Result<Answer, Error> {
        let Words { rule, message, .. } = words;
        let passed = || format!("validation rule '{rule}' passed.");
        Ok(match self {
            Self::Pattern(pattern) => {
                let pattern = pattern.filled(scene.names)?;
                let value = value.unwrap_or(scene.names.current());
                let judge = |steps: &mut usize| judge_pattern(rule, message, value, &pattern, steps);
                judged(scene.names.fuel().within(MAX_PATTERN_STEPS, judge))
            }
            Self::AnyPattern(patterns) => {
                let patterns: Result<Vec<Cow<'_, Value>>, Error> =
                    patterns.iter().map(|pattern| pattern.filled(scene.names)).collect();
                let patterns = patterns?;
                let value = value.unwrap_or(scene.names.current());
                let judge = |steps: &mut usize| judge_any_pattern(rule, message, value, &patterns, steps);
                judged(scene.names.fuel().within(MAX_PATTERN_STEPS, judge))
            }
            Self::Deny(conditions) => {
                if conditions.hold(scene.names)? {
                    let why = if message.is_empty() {
                        format!("validation error: rule {rule} failed")
                    } else {
                        message.to_owned()
                    };
                    (Status::Fail, why)
                } else {
                    (Status::Pass, passed())
                }
            }
            Self::Loops(loops) => return answer_loops(loops, words, scene),
            Self::PodSecurity(_) => (Status::Error, "podSecurity stands in no loop".to_owned()),
        })
    }
}

fn read_loops(list: &[Value], path: &str, depth: usize, notes: &mut Notes) -> Vec<Loop> {
    if depth == MAX_DEPTH {
        notes.refuse(path, format!("loops are nested more than {MAX_DEPTH} deep"));
        return Vec::new();
    }
    let mut loops = Vec::new();
    for (index, value) in list.iter().enumerate() {
        let path = format!("{path}[{index}]");
        let mut fields = Fields::of(value, &path, notes);
        let list = read_list(&mut fields, &path, notes);
        let context = Entry::read_all(fields.list("context", notes), &format!("{path}.context"), notes);
        let preconditions =
            Conditions::read_untold(fields.take("preconditions"), &format!("{path}.preconditions"), notes);
        let element_scope = fields.flag("elementScope", notes);
        let root = if element_scope == Some(false) { OBJECT } else { "element" };
        let mut checks = Check::read(&mut fields, &path, root, notes);
        if let Some(inner) = fields.take("foreach") {
            let inner = filled_list(inner, &format!("{path}.foreach"), notes);
            checks.push(Check::Loops(read_loops(inner, &format!("{path}.foreach"), depth + 1, notes)));
        }
        fields.finish(notes);
        match (list, checks.pop()) {
            (Some(list), Some(check)) if checks.is_empty() => {
                loops.push(Loop { list, context, preconditions, element_scope, check: Box::new(check) });
            }
            (None, _) => {}
            _ => {
                notes.refuse(&path, "exactly one of `pattern`, `anyPattern`, `deny` and `foreach` is needed");
            }
        }
    }
    loops
}

/// A list with something in it: what is none would ask for nothing.
fn filled_list<'a>(value: &'a Value, path: &str, notes: &mut Notes) -> &'a [Value] {
    let list = value.as_array().map(Vec::as_slice).unwrap_or_default();
    if list.is_empty() {
        notes.refuse(path, "expected a list with something in it");
    }
    list
}

/// The expression of a loop's list.
pub(crate) fn read_list(fields: &mut Fields<'_>, path: &str, notes: &mut Notes) -> Option<Expression> {
    let text = fields.text("list", notes).unwrap_or_default();
    let list = crate::expression(text);
    list.map_err(|error| notes.refuse(&format!("{path}.list"), error.to_string())).ok()
}

/// The elements of a list; what is none is a list of itself.
pub(crate) fn elements(value: Value) -> Vec<Value> {
    match value {
        Value::Array(elements) => elements,
        Value::Null => Vec::new(),
        other => vec![other],
    }
}

fn answer_loops(loops: &[Loop], words: Words<'_>, scene: &mut Scene<'_, '_>) -> Result<Answer, Error> {
    let (mut applied, mut lacking) = (0, None);
    for own in loops {
        let list = match own.list.evaluate(scene.names) {
            // What is not there has no elements.
            Err(Error::NotFound(_)) => continue,
            found => elements(found?.into_owned()),
        };
        for (index, element) in list.into_iter().enumerate() {
            if element.is_null() {
                continue;
            }
            scene.left = scene.left.checked_sub(1).ok_or(Error::Limit("too many elements"))?;
            let mark = scene.names.mark();
            if !scene.names.enter(element.clone(), index) {
                return Err(Error::Limit("loops are nested too deep"));
            }
            let answer = own.answer(words, &element, scene);
            scene.names.leave();
            scene.names.reset(mark);
            match answer {
                // The others may lack something, too.
                Err(error @ Error::Missing(_)) => {
                    lacking.get_or_insert(error);
                }
                answer if lacking.is_some() => drop(answer),
                Err(error) => return Err(error),
                Ok((Status::Fail, why)) => return Ok((Status::Fail, why)),
                Ok((Status::Error, why)) => return Ok((Status::Error, why)),
                Ok((Status::Pass, _)) => applied += 1,
                Ok((Status::Skip, _)) => {}
            }
        }
    }
    if let Some(lacking) = lacking {
        return Err(lacking);
    }
    Ok(if applied == 0 {
        (Status::Skip, "rule skipped: no element was applied".to_owned())
    } else {
        (Status::Pass, "rule passed".to_owned())
    })
}

impl Loop {
    fn answer(&self, words: Words<'_>, element: &Value, scene: &mut Scene<'_, '_>) -> Result<Answer, Error> {
        context::load(&self.context, scene.names, scene.facts, scene.wants, scene.own)?;
        match self.preconditions.hold(scene.names) {
            Ok(true) => {}
            Ok(false) => return Ok((Status::Skip, String::new())),
            // An element that cannot be asked about is not left out: whoever wrote it may have seen to that.
            Err(error) => return Err(error),
        }
        let of_element = self.element_scope.unwrap_or(element.is_object());
        // The object, where it is not the element that is asked about; conditions speak of what is in scope.
        let value = of_element.then_some(element);
        let message = words.template.and_then(|template| template.fill(scene.names).ok());
        let message = message.as_ref().map(shown);
        let words = Words { message: message.as_deref().map_or(words.message, str::trim), ..words };
        self.check.of(value, words, scene)
    }
}

fn template(value: &Value, path: &str, notes: &mut Notes) -> Option<Template> {
    Template::of(value).map_err(|error| notes.refuse(path, error.to_string())).ok()
}

/// A pattern, whose references to its own places are filled in.
fn pattern_of(value: &Value, path: &str, root: &str, notes: &mut Notes) -> Option<Template> {
    let value = references::resolved(value, root).map_err(|why| notes.refuse(path, why)).ok()?;
    template(&value, path, notes)
}

fn judged(judgement: Judgement) -> Answer {
    (judgement.status, judgement.message)
}

/// Holds a pod, or what makes pods, against the Pod Security Standards.
fn pod_security(own: &PodSecurity, rule: &str, object: &Value, lifted: &[Exclusion]) -> Answer {
    let kind = object["kind"].as_str().unwrap_or_default();
    let Some(place) = Place::of_kind(kind) else {
        return (Status::Skip, format!("a {kind} has no pod in it"));
    };
    let [metadata, spec] = place.pointers();
    let at = |pointer: &str| object.pointer(pointer).unwrap_or(&Value::Null);
    match own.evaluate(at(metadata), at(spec), lifted) {
        podsecurity::Verdict::Passed | podsecurity::Verdict::Excepted => {
            (Status::Pass, podsecurity::passed(rule))
        }
        podsecurity::Verdict::Violated(violations) => (Status::Fail, own.failed(rule, &violations, place)),
        podsecurity::Verdict::Unreadable(problem) => {
            (Status::Error, format!("{}: {}", problem.path, problem.reason))
        }
    }
}

fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
