//! What the leader writes about objects: their conditions, and texts that are kept in Secrets.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, DynamicObject, ObjectMeta, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};

use crate::ObjectId;
use crate::crds::Kind;

/// Bytes of a condition's message; the API takes 32 KiB.
const MAX_MESSAGE: usize = 4096;

/// Bytes of a text that is kept: a Secret takes 1 MiB, its keys included.
const MAX_TEXT: usize = 1_000_000;

/// Something that holds of an object, or does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Its name: `Ready`.
    pub kind: &'static str,
    /// Whether it holds.
    pub holds: bool,
    /// Why, in one word.
    pub reason: &'static str,
    /// Why, in words that help.
    pub message: String,
}

/// Says in an object's status what holds of it; whether that was news. Conditions of others are
/// left alone.
///
/// # Errors
///
/// The API server says no, or nothing.
pub async fn write(
    client: &Client,
    id: &ObjectId,
    generation: i64,
    there: &Value,
    wanted: &[Condition],
    now: Timestamp,
) -> Result<bool, kube::Error> {
    let Some(conditions) = merged(there, wanted, generation, now) else { return Ok(false) };
    let kind = match id.kind.as_str() {
        "Site" => Kind::Site,
        "ClusterPolicy" => Kind::ClusterPolicy,
        _ => Kind::Policy,
    };
    let kind = kind.resource();
    let api: Api<DynamicObject> = if id.namespace.is_empty() {
        Api::all_with(client.clone(), &kind)
    } else {
        Api::namespaced_with(client.clone(), &id.namespace, &kind)
    };
    let change = json!({ "status": { "conditions": conditions } });
    api.patch_status(&id.name, &PatchParams::default(), &Patch::Merge(&change)).await?;
    Ok(true)
}

/// The conditions as they should be; `None` where they are.
fn merged(there: &Value, wanted: &[Condition], generation: i64, now: Timestamp) -> Option<Value> {
    let there = there.as_array().cloned().unwrap_or_default();
    let mut conditions: Vec<Value> =
        there.iter().filter(|known| wanted.iter().all(|own| known["type"] != own.kind)).cloned().collect();
    let mut news = false;
    for own in wanted {
        let mut message = own.message.as_str();
        if message.len() > MAX_MESSAGE {
            message = &message[..message.floor_char_boundary(MAX_MESSAGE)];
        }
        let mut condition = json!({
            "type": own.kind,
            "status": if own.holds { "True" } else { "False" },
            "reason": own.reason,
            "message": message,
            "observedGeneration": generation,
        });
        let before = there.iter().find(|known| known["type"] == own.kind);
        let same = |key: &str| before.is_some_and(|before| before[key] == condition[key]);
        news |= !["status", "reason", "message", "observedGeneration"].into_iter().all(same);
        condition["lastTransitionTime"] = match before {
            Some(before) if same("status") => before["lastTransitionTime"].clone(),
            _ => json!(Timestamp::from_second(now.as_second()).unwrap_or(now).to_string()),
        };
        conditions.push(condition);
    }
    news.then_some(Value::Array(conditions))
}

/// Keeps texts in Secrets, one in each under this key: makes and changes what differs, and takes
/// away what is not wanted any more. Answers with the names of those that are too large to be kept.
///
/// # Errors
///
/// The last that the API server has said no to; the others are done all the same.
pub async fn keep_texts(
    client: &Client,
    namespace: &str,
    key: &str,
    wanted: &BTreeMap<String, String>,
    kept: &BTreeMap<String, String>,
) -> Result<Vec<String>, kube::Error> {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let (mut result, mut too_large) = (Ok(()), Vec::new());
    for (name, text) in wanted.iter().filter(|(name, text)| kept.get(*name) != Some(text)) {
        // The API server would not take it, and the others are not its fault.
        if text.len() > MAX_TEXT {
            too_large.push(name.clone());
            continue;
        }
        let secret = Secret {
            metadata: ObjectMeta { name: Some(name.clone()), ..ObjectMeta::default() },
            data: Some([(key.to_owned(), ByteString(text.clone().into_bytes()))].into()),
            ..Secret::default()
        };
        let parameters = PatchParams::apply("countersign").force();
        if let Err(error) = api.patch(name, &parameters, &Patch::Apply(&secret)).await {
            result = Err(error);
        }
    }
    for name in kept.keys().filter(|name| !wanted.contains_key(*name)) {
        match api.delete(name, &DeleteParams::default()).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => result = Err(error),
        }
    }
    result.map(|()| too_large)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_is_written_once_and_changes_its_time_with_its_status() {
        let now = |second: i64| Timestamp::from_second(second).unwrap();
        let ready = |holds, message: &str| Condition {
            kind: "Ready",
            holds,
            reason: "Valid",
            message: message.to_owned(),
        };
        let of_others = json!([{ "type": "Other", "status": "True" }]);
        let first = merged(&of_others, &[ready(true, "a")], 1, now(1)).unwrap();
        assert_eq!(first[0]["type"], "Other");
        assert_eq!(first[1]["lastTransitionTime"], "1970-01-01T00:00:01Z");
        assert!(merged(&first, &[ready(true, "a")], 1, now(2)).is_none());
        let second = merged(&first, &[ready(true, "b")], 1, now(3)).unwrap();
        assert_eq!(second[1]["lastTransitionTime"], "1970-01-01T00:00:01Z");
        let third = merged(&second, &[ready(false, "b")], 2, now(4)).unwrap();
        assert_eq!(third[1]["lastTransitionTime"], "1970-01-01T00:00:04Z");
        assert_eq!(third.as_array().unwrap().len(), 2);
    }
}
