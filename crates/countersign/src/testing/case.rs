//! One `kyverno-test.yaml`: what should come of each rule and object, and what does.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use super::Selector;
use super::expected::{Expected, Object, Test};
use crate::trial::{
    self, Answer, Documents, PolicySource, Trial, Tried, User, Values, name_of, namespace_of,
};

/// The results of one file.
pub(super) struct Case {
    pub(super) name: String,
    pub(super) rows: Vec<Row>,
}

/// One result.
pub(super) struct Row {
    pub(super) policy: String,
    pub(super) rule: String,
    pub(super) resource: String,
    pub(super) passed: bool,
    expected: String,
    found: String,
    /// In a word or two, as upstream's table has it.
    reason: String,
    /// What the rule says itself.
    message: String,
    /// What the rule does, as `validate.deny`.
    rule_kind: String,
}

/// What a rule has said about an object.
struct Found {
    word: String,
    reason: Option<&'static str>,
    message: String,
}

impl Row {
    /// The reason, and for what failed what the rule says.
    pub(super) fn told(&self) -> String {
        let message = self.message.lines().next().unwrap_or_default();
        if self.passed || message.is_empty() {
            return self.reason.clone();
        }
        format!("{}: {message}", self.reason)
    }

    pub(super) fn data(&self) -> Value {
        json!({
            "policy": self.policy, "rule": self.rule, "resource": self.resource, "passed": self.passed,
            "expected": self.expected, "found": self.found, "reason": self.reason,
            "message": self.message, "ruleKind": self.rule_kind,
        })
    }
}

impl Case {
    /// Reads and runs a test.
    pub(super) async fn run(file: &Path, site: Option<&Path>, selector: &Selector) -> Result<Self> {
        let documents = trial::read(file)?;
        let [document] = documents.as_slice() else { bail!("expected one document") };
        let test = Test::read(document)?;
        let base = file.parent().unwrap_or(Path::new("."));
        let trial = prepare(&test, base, site)?;
        let mut tried: BTreeMap<(usize, Option<String>), Tried> = BTreeMap::new();
        let mut rows = Vec::new();
        for expected in &test.results {
            for (wanted, index) in objects(expected, &trial) {
                let mut row = Row {
                    policy: expected.policy.clone(),
                    rule: expected.rule.clone(),
                    resource: format!("{}/{wanted}", expected.kind),
                    passed: false,
                    expected: expected.word.clone(),
                    found: String::new(),
                    reason: "Not found".to_owned(),
                    message: String::new(),
                    rule_kind: rule_kind(&trial, expected),
                };
                if !selector.selects(&row) {
                    continue;
                }
                if let Some(index) = index {
                    let key = (index, expected.operation.clone());
                    if !tried.contains_key(&key) {
                        let outcome = trial.on(&trial.objects()[index], key.1.as_deref()).await?;
                        tried.insert(key.clone(), outcome);
                    }
                    row.compare(expected, &trial, &tried[&key], base)?;
                }
                rows.push(row);
            }
        }
        Ok(Self { name: test.name, rows })
    }
}

fn prepare(test: &Test, base: &Path, site: Option<&Path>) -> Result<Trial> {
    let mut documents = Documents::default();
    let keys = trial::keys(site)?;
    for path in &test.policies {
        documents.read_policies(&base.join(path), &keys)?;
    }
    for path in &test.objects {
        documents.read_objects(&base.join(path))?;
    }
    for path in &test.exceptions {
        documents.read_exceptions(&base.join(path))?;
    }
    let values = match (&test.variables, &test.values) {
        (Some(path), _) => Values::read(&base.join(path))?,
        (None, Some(values)) => values.clone(),
        (None, None) => Values::default(),
    };
    let user = test.user.as_ref().map(|path| User::read(&base.join(path))).transpose()?;
    let site = trial::site(site, &documents.exceptions)?;
    Ok(Trial::new(documents, values, user, site, trial::moment()))
}

/// The objects that a result is about, and where they are; an object that is nowhere has a name alone.
fn objects(expected: &Expected, trial: &Trial) -> Vec<(String, Option<usize>)> {
    let of_kind = |object: &Value| expected.kind.is_empty() || object["kind"] == *expected.kind;
    let is = |object: &Value, wanted: &Object| {
        name_of(object) == wanted.name
            && wanted.namespace.as_deref().is_none_or(|namespace| namespace_of(object) == namespace)
    };
    let all = || trial.objects().iter().enumerate().filter(|(_, object)| of_kind(object));
    if expected.objects.is_empty() {
        return all().map(|(index, object)| (name_of(object).to_owned(), Some(index))).collect();
    }
    let mut found = Vec::new();
    for wanted in &expected.objects {
        let before = found.len();
        let these = all().filter(|(_, object)| is(object, wanted));
        found.extend(these.map(|(index, _)| (wanted.shown(), Some(index))));
        if found.len() == before {
            found.push((wanted.shown(), None));
        }
    }
    found
}

fn rule_kind(trial: &Trial, expected: &Expected) -> String {
    let policy = trial.policies.iter().find(|policy| policy.is_called(&expected.policy));
    let rule = expected.rule.trim_start_matches("autogen-").trim_start_matches("cronjob-");
    policy.and_then(|policy| policy.kinds.get(rule)).cloned().unwrap_or_default()
}

impl Row {
    fn compare(&mut self, expected: &Expected, trial: &Trial, tried: &Tried, base: &Path) -> Result<()> {
        if !trial.policies.iter().any(|policy| policy.is_called(&expected.policy)) {
            "there is no such policy".clone_into(&mut self.message);
            return Ok(());
        }
        if !trial
            .policies
            .iter()
            .any(|policy| policy.is_called(&expected.policy) && has_rule(policy, &expected.rule))
        {
            "there is no such rule".clone_into(&mut self.message);
            return Ok(());
        }
        let answers: Vec<&Answer> =
            tried.answers.iter().filter(|answer| is_about(answer, expected, trial)).collect();
        if answers.is_empty() {
            "Excluded".clone_into(&mut self.reason);
            "skip".clone_into(&mut self.found);
            self.passed = expected.word == "skip";
            return Ok(());
        }
        let mut worst: Option<Found> = None;
        for answer in answers {
            let found = found(expected, answer, base)?;
            if worst.as_ref().is_none_or(|worst| worst.word == expected.word) {
                worst = Some(found);
            }
        }
        let found = worst.context("no answer")?;
        self.passed = found.word == expected.word;
        self.reason = match (self.passed, found.reason) {
            (true, _) => "Ok".to_owned(),
            (false, Some(reason)) => reason.to_owned(),
            (false, None) => format!("Want {}, got {}", expected.word, found.word),
        };
        (self.found, self.message) = (found.word, found.message);
        Ok(())
    }
}

/// Whether a policy has a rule of this name, or one that such a rule is written from for controllers.
fn has_rule(policy: &PolicySource, rule: &str) -> bool {
    let written = rule.strip_prefix("autogen-cronjob-").or(rule.strip_prefix("autogen-"));
    // The name of a rule that is written is cut where it is too long.
    let is = |name: &String| {
        name == rule || written.is_some_and(|written| !written.is_empty() && name.starts_with(written))
    };
    rule.is_empty() || policy.kinds.keys().any(is)
}

/// Whether an answer is of the rule that is meant, or of one that was written from it for controllers.
fn is_about(answer: &Answer, expected: &Expected, trial: &Trial) -> bool {
    let (policy, rule) = (&answer.response.policy, answer.response.rule.as_str());
    let policy = trial.policies.iter().find(|source| source.policy.name == *policy);
    let written = rule.strip_prefix("autogen-cronjob-").or(rule.strip_prefix("autogen-"));
    policy.is_some_and(|policy| policy.is_called(&expected.policy))
        && (expected.rule.is_empty() || expected.rule == rule || written == Some(&expected.rule))
}

fn found(expected: &Expected, answer: &Answer, base: &Path) -> Result<Found> {
    let word = answer.word(false).to_owned();
    let message = answer.response.message.clone();
    if expected.generated && word == "pass" {
        let message = "objects are not made".to_owned();
        return Ok(Found { word: "error".to_owned(), reason: Some("Resource diff"), message });
    }
    let Some(path) = expected.patched.as_ref().filter(|_| word != "error") else {
        return Ok(Found { word, reason: None, message });
    };
    let documents = trial::read(&base.join(path))?;
    let object = &answer.patched;
    let same = |other: &&Value| {
        other["kind"] == object["kind"]
            && name_of(other) == name_of(object)
            && namespace_of(other) == namespace_of(object)
    };
    let objects: Vec<Value> = documents.into_iter().flat_map(trial::apart).collect();
    let wanted = objects.iter().find(same);
    let path = path.display();
    let message = match wanted {
        None => format!("it is not in {path}"),
        Some(wanted) => match difference(&tidy(wanted), &tidy(object), "") {
            None => return Ok(Found { word, reason: None, message }),
            Some(at) => format!("differs from {path} at {at}"),
        },
    };
    Ok(Found { word: "fail".to_owned(), reason: Some("Resource diff"), message })
}

/// Without what says nothing: nulls, empty maps and lists.
fn tidy(value: &Value) -> Value {
    let empty = |value: &Value| match value {
        Value::Null => true,
        Value::Object(map) => map.is_empty(),
        Value::Array(list) => list.is_empty(),
        _ => false,
    };
    match value {
        Value::Object(map) => {
            let kept = map.iter().map(|(name, value)| (name.clone(), tidy(value)));
            Value::Object(kept.filter(|(_, value)| !empty(value)).collect())
        }
        Value::Array(list) => Value::Array(list.iter().map(tidy).filter(|value| !empty(value)).collect()),
        other => other.clone(),
    }
}

/// Where two values are not the same, and what stands there.
fn difference(wanted: &Value, found: &Value, at: &str) -> Option<String> {
    match (wanted, found) {
        (Value::Object(one), Value::Object(other)) => {
            let names = one.keys().chain(other.keys().filter(|name| !one.contains_key(*name)));
            names.into_iter().find_map(|name| {
                let (one, other) = (one.get(name), other.get(name));
                let null = &Value::Null;
                difference(one.unwrap_or(null), other.unwrap_or(null), &format!("{at}/{name}"))
            })
        }
        (Value::Array(one), Value::Array(other)) if one.len() == other.len() => one
            .iter()
            .zip(other)
            .enumerate()
            .find_map(|(index, (one, other))| difference(one, other, &format!("{at}/{index}"))),
        _ if wanted == found => None,
        _ => Some(format!("{at}: want {wanted}, got {found}")),
    }
}
