//! Templates of pods, judged early as the pod that they would make.
//!
//! Whoever applies a Deployment hears at once what its pods would be told: as a denial where the
//! policy's own autogen speaks of that kind, as a warning elsewhere. What the pods themselves are told
//! does not depend on it.

use serde_json::{Value, json};

use crate::Review;

/// What has the template of a pod: group, kind, and where the template is.
pub const TEMPLATES: [(&str, &str, &str); 7] = [
    ("apps", "DaemonSet", "/spec/template"),
    ("apps", "Deployment", "/spec/template"),
    ("apps", "ReplicaSet", "/spec/template"),
    ("apps", "StatefulSet", "/spec/template"),
    ("", "ReplicationController", "/spec/template"),
    ("batch", "CronJob", "/spec/jobTemplate/spec/template"),
    ("batch", "Job", "/spec/template"),
];

impl Review {
    /// The creation of a pod by what the request creates or changes, if that has a template which is new.
    /// What a controller makes of a template was judged with that one.
    pub fn of_template_pod(&self) -> Option<Self> {
        let group = self.request["kind"]["group"].as_str().unwrap_or_default();
        let (_, kind, place) =
            TEMPLATES.into_iter().find(|(of, kind, _)| *of == group && *kind == self.kind)?;
        let is_whole = self.request["subResource"].as_str().is_none_or(str::is_empty);
        let owners = self.object()["metadata"]["ownerReferences"].as_array();
        let is_made = owners.is_some_and(|owners| owners.iter().any(|owner| owner["controller"] == true));
        let template = self.object().pointer(place)?;
        let before = self.old().and_then(|old| old.pointer(place));
        if !is_whole || is_made || before == Some(template) {
            return None;
        }
        let pod = |template: &Value| {
            let mut metadata = template["metadata"].clone();
            if !metadata.is_object() {
                metadata = json!({});
            }
            metadata["generateName"] = json!(format!("{}-", self.object_name()));
            metadata["namespace"] = json!(self.namespace);
            json!({ "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"] })
        };
        let mut request = self.request.clone();
        request["operation"] = json!("CREATE");
        request["kind"] = json!({ "group": "", "version": "v1", "kind": "Pod" });
        request["resource"] = json!({ "group": "", "version": "v1", "resource": "pods" });
        request["name"] = json!("");
        request["object"] = pod(template);
        // Images that stay as they are were judged before.
        request["oldObject"] = before.map_or(Value::Null, pod);
        let review = Self::of(request);
        Some(Self { template_of: Some(kind), given: self.given.clone(), moment: self.moment, ..review })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_is_judged_once_as_its_pod() {
        let object = |kind: &str, image: &str| {
            let template = json!({ "metadata": { "labels": { "app": "db" } }, "spec": { "containers": [{ "name": "c", "image": image }] } });
            let spec = if kind == "CronJob" {
                json!({ "jobTemplate": { "spec": { "template": template } } })
            } else {
                json!({ "template": template })
            };
            json!({ "kind": kind, "metadata": { "name": "db" }, "spec": spec })
        };
        let review = |group: &str, kind: &str, object: Value, old: Value| {
            Review::of(
                json!({ "operation": "UPDATE", "namespace": "apps", "kind": { "group": group, "kind": kind },
                "object": object, "oldObject": old }),
            )
        };
        for (group, kind, _) in TEMPLATES {
            let (new, old) = (object(kind, "a:2"), object(kind, "a:1"));
            let pod = review(group, kind, new.clone(), old.clone()).of_template_pod().unwrap();
            assert_eq!(
                (pod.operation.as_str(), pod.kind.as_str(), pod.template_of),
                ("CREATE", "Pod", Some(kind))
            );
            assert_eq!(pod.shown(), "Pod/apps/db-");
            let images = [pod.object(), pod.old().unwrap()].map(|pod| &pod["spec"]["containers"][0]["image"]);
            assert_eq!(images, [&json!("a:2"), &json!("a:1")]);
            assert_eq!(pod.object()["metadata"]["labels"]["app"], "db");
            assert!(review(group, kind, new.clone(), new.clone()).of_template_pod().is_none(), "scaled");
            assert!(review("example.org", kind, new.clone(), old.clone()).of_template_pod().is_none());
            let mut made = new;
            made["metadata"]["ownerReferences"] = json!([{ "controller": true, "kind": "Deployment" }]);
            assert!(review(group, kind, made, old).of_template_pod().is_none());
        }
    }
}
