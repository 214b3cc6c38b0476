//! Rules for pods, written anew for what makes pods (Kyverno `pkg/autogen/v1`).
//!
//! It is done on the document, before a rule is read: paths of a pod in expressions become paths of
//! its template, and patterns and patches are put where the template is.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::selector::blocks;
use crate::template_pod::TEMPLATES;

/// The annotation that says for which controllers rules are written.
pub(crate) const ANNOTATION: &str = "pod-policies.kyverno.io/autogen-controllers";
const CRON_JOB: &str = "CronJob";
/// The longest name of a rule.
const MAX_NAME: usize = 63;

/// The rules of a policy as they are evaluated: those written, and then those for controllers.
///
/// The second of each pair is the index of the rule that it was written from.
pub(crate) fn rules(document: &Value) -> Vec<(Value, usize)> {
    let written: Vec<Value> = document["spec"]["rules"].as_array().cloned().unwrap_or_default();
    let controllers = controllers(document, &written);
    let mut made = Vec::new();
    for (index, rule) in written.iter().enumerate() {
        // Images are verified in the pods that controllers make.
        if !kinds(rule, "match").contains("Pod") || rule.get("verifyImages").is_some() {
            continue;
        }
        let plain: Vec<&str> = controllers.iter().copied().filter(|kind| *kind != CRON_JOB).collect();
        if !plain.is_empty() {
            made.push((written_for(rule, "autogen-", &plain, &["template"]), index));
        }
        if controllers.contains(CRON_JOB) {
            let place = ["jobTemplate", "spec", "template"];
            made.push((written_for(rule, "autogen-cronjob-", &[CRON_JOB], &place), index));
        }
    }
    let written = written.into_iter().enumerate().map(|(index, rule)| (rule, index));
    written.chain(made).collect()
}

/// The controllers that a policy's rules for pods speak of as well.
pub(crate) fn covered(document: &Value) -> BTreeSet<&'static str> {
    controllers(document, document["spec"]["rules"].as_array().map_or(&[], Vec::as_slice))
}

/// The controllers that rules are written for: none, if any rule is one that cannot be.
fn controllers(document: &Value, rules: &[Value]) -> BTreeSet<&'static str> {
    let all = || TEMPLATES.into_iter().map(|(_, kind, _)| kind);
    let wanted: BTreeSet<&str> = match document["metadata"]["annotations"][ANNOTATION].as_str() {
        None | Some("all") => all().collect(),
        Some(list) => {
            let named: BTreeSet<&str> = list.split(',').map(str::trim).collect();
            all().filter(|kind| named.contains(kind)).collect()
        }
    };
    if rules.iter().any(stands_alone) { BTreeSet::new() } else { wanted }
}

/// Whether a rule speaks of more than what a template has.
fn stands_alone(rule: &Value) -> bool {
    let json_patch = |value: &Value| !value["patchesJson6902"].is_null();
    let loops = rule["mutate"]["foreach"].as_array().into_iter().flatten();
    let named = |block: &Value| {
        let resources = &block["resources"];
        ["name", "names", "selector", "annotations"].iter().any(|field| !resources[*field].is_null())
    };
    let mixed = |block: &Value| {
        let kinds = block["resources"]["kinds"].as_array();
        kinds.is_some_and(|kinds| kinds.len() > 1 && kinds.iter().any(|kind| kind == "Pod"))
    };
    !rule["generate"].is_null()
        || json_patch(&rule["mutate"])
        || loops.into_iter().any(json_patch)
        || ["match", "exclude"]
            .iter()
            .any(|part| blocks(&rule[*part], part).into_iter().any(|(block, _)| named(block) || mixed(block)))
}

pub(crate) fn kinds<'a>(rule: &'a Value, part: &str) -> BTreeSet<&'a str> {
    let kinds =
        blocks(&rule[part], part).into_iter().filter_map(|(block, _)| block["resources"]["kinds"].as_array());
    kinds.flatten().filter_map(Value::as_str).collect()
}

/// A rule for these controllers, whose templates are there below `spec`.
fn written_for(rule: &Value, prefix: &str, controllers: &[&str], place: &[&str]) -> Value {
    let mut rule = rule.clone();
    let name: String =
        format!("{prefix}{}", rule["name"].as_str().unwrap_or_default()).chars().take(MAX_NAME).collect();
    // Templates are wrapped after the expressions in them were led elsewhere.
    lead(&mut rule, &place.join("."));
    rule["name"] = json!(name);
    for part in ["match", "exclude"] {
        rename(&mut rule[part], controllers);
    }
    if rule["exclude"].is_null() {
        rule.as_object_mut().map(|rule| rule.remove("exclude"));
    }
    for pointer in ["/mutate/patchStrategicMerge", "/validate/pattern"] {
        if let Some(value) = rule.pointer_mut(pointer) {
            *value = wrapped(value.take(), place);
        }
    }
    for list in ["/validate/anyPattern", "/mutate/foreach"] {
        for item in rule.pointer_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            if list.ends_with("anyPattern") {
                *item = wrapped(item.take(), place);
            } else {
                wrap_loop(item, place);
            }
        }
    }
    rule
}

/// The patches of a loop, and of those in it.
fn wrap_loop(item: &mut Value, place: &[&str]) {
    if let Some(patch) = item.get_mut("patchStrategicMerge") {
        *patch = wrapped(patch.take(), place);
    }
    for inner in item.get_mut("foreach").and_then(Value::as_array_mut).into_iter().flatten() {
        wrap_loop(inner, place);
    }
}

fn wrapped(value: Value, place: &[&str]) -> Value {
    let inner = place.iter().rev().fold(value, |inner, name| json!({ *name: inner }));
    json!({ "spec": inner })
}

fn rename(part: &mut Value, controllers: &[&str]) {
    let rename_block = |block: &mut Value| {
        if let Some(kinds) = block.pointer_mut("/resources/kinds")
            && kinds.as_array().is_some_and(|kinds| kinds.iter().any(|kind| kind == "Pod"))
        {
            *kinds = json!(controllers);
        }
    };
    for list in ["any", "all"] {
        part.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten().for_each(rename_block);
    }
    if !part["resources"].is_null() {
        rename_block(part);
    }
}

/// Leads paths of a pod in every text to its template.
fn lead(value: &mut Value, place: &str) {
    match value {
        Value::String(text) if text.contains("request.") => {
            for object in ["request.object", "request.oldObject"] {
                for part in ["spec", "metadata"] {
                    *text =
                        text.replace(&format!("{object}.{part}"), &format!("{object}.spec.{place}.{part}"));
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(|item| lead(item, place)),
        Value::Object(fields) => {
            let led: Map<String, Value> = std::mem::take(fields)
                .into_iter()
                .map(|(name, mut value)| {
                    let mut name = Value::String(name);
                    lead(&mut name, place);
                    lead(&mut value, place);
                    (name.as_str().unwrap_or_default().to_owned(), value)
                })
                .collect();
            *fields = led;
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(annotation: Option<&str>, rules: &Value) -> Value {
        let annotations = annotation.map(|value| json!({ ANNOTATION: value })).unwrap_or_default();
        json!({ "metadata": { "annotations": annotations }, "spec": { "rules": rules } })
    }

    fn names(document: &Value) -> Vec<String> {
        rules(document).iter().map(|(rule, _)| rule["name"].as_str().unwrap().to_owned()).collect()
    }

    fn pods(name: &str, more: &Value) -> Value {
        let mut rule = json!({ "name": name, "match": { "any": [{ "resources": { "kinds": ["Pod"] } }] } });
        rule.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        rule
    }

    #[test]
    fn rules_for_pods_are_written_for_controllers() {
        let rule = pods(
            "r",
            &json!({
                "preconditions": { "all": [{ "key": "{{ request.object.metadata.labels.a }}", "operator": "Equals", "value": "x" }] },
                "validate": { "pattern": { "spec": { "containers": [{ "image": "*:*" }] } } },
            }),
        );
        let made = rules(&policy(None, &json!([rule])));
        assert_eq!(made.iter().map(|(_, index)| *index).collect::<Vec<_>>(), [0, 0, 0]);
        let (plain, cron) = (&made[1].0, &made[2].0);
        assert_eq!((&plain["name"], &cron["name"]), (&json!("autogen-r"), &json!("autogen-cronjob-r")));
        let kinds = ["DaemonSet", "Deployment", "Job", "ReplicaSet", "ReplicationController", "StatefulSet"];
        assert_eq!(plain["match"]["any"][0]["resources"]["kinds"], json!(kinds));
        assert_eq!(cron["match"]["any"][0]["resources"]["kinds"], json!(["CronJob"]));
        assert_eq!(
            plain["preconditions"]["all"][0]["key"],
            "{{ request.object.spec.template.metadata.labels.a }}"
        );
        let image = |rule: &Value, pointer: &str| rule["validate"]["pattern"].pointer(pointer).cloned();
        assert_eq!(image(plain, "/spec/template/spec/containers/0/image"), Some(json!("*:*")));
        assert_eq!(
            image(cron, "/spec/jobTemplate/spec/template/spec/containers/0/image"),
            Some(json!("*:*"))
        );
    }

    #[test]
    fn what_cannot_be_written_for_controllers_is_not() {
        let plain = || pods("r", &json!({ "validate": { "pattern": {} } }));
        let all = ["r", "autogen-r", "autogen-cronjob-r"];
        assert_eq!(names(&policy(None, &json!([plain()]))), all);
        assert_eq!(names(&policy(Some("none"), &json!([plain()]))), ["r"]);
        assert_eq!(names(&policy(Some("CronJob"), &json!([plain()]))), ["r", "autogen-cronjob-r"]);
        assert_eq!(names(&policy(Some("Deployment, Job"), &json!([plain()]))), ["r", "autogen-r"]);
        for alone in [
            json!({ "generate": {} }),
            json!({ "mutate": { "patchesJson6902": "[]" } }),
            json!({ "mutate": { "foreach": [{ "patchesJson6902": "[]" }] } }),
            json!({ "match": { "resources": { "kinds": ["Pod"], "selector": {} } } }),
            json!({ "exclude": { "any": [{ "resources": { "names": ["x"] } }] } }),
            json!({ "match": { "any": [{ "resources": { "kinds": ["Pod", "Deployment"] } }] } }),
        ] {
            let document = policy(None, &json!([plain(), pods("other", &alone)]));
            assert_eq!(names(&document), ["r", "other"], "for the whole policy: {alone}");
        }
        let of_others =
            json!({ "name": "d", "match": { "any": [{ "resources": { "kinds": ["Deployment"] } }] } });
        assert_eq!(names(&policy(None, &json!([of_others]))), ["d"]);
        let long = pods(&"n".repeat(63), &json!({}));
        assert!(names(&policy(None, &json!([long]))).iter().all(|name| name.len() <= MAX_NAME));
    }

    #[test]
    fn loops_and_old_objects_are_led_to_the_template() {
        let rule = pods(
            "r",
            &json!({ "mutate": { "foreach": [{
                "list": "request.object.spec.containers",
                "patchStrategicMerge": { "spec": { "containers": [{ "(name)": "{{ element.name }}" }] } },
                "foreach": [{ "list": "request.oldObject.spec.x", "patchStrategicMerge": { "spec": {} } }],
            }] } }),
        );
        let made = rules(&policy(None, &json!([rule])));
        let of = &made[1].0["mutate"]["foreach"][0];
        assert_eq!(of["list"], "request.object.spec.template.spec.containers");
        assert!(of.pointer("/patchStrategicMerge/spec/template/spec/containers").is_some());
        assert_eq!(of["foreach"][0]["list"], "request.oldObject.spec.template.spec.x");
        assert!(of.pointer("/foreach/0/patchStrategicMerge/spec/template/spec").is_some());
    }
}
