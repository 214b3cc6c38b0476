//! What is asked of the engine.

use serde_json::Value;

/// The request of an AdmissionReview.
#[derive(Clone, Debug, Default)]
pub struct Review {
    /// `CREATE`, `UPDATE`, `DELETE` or `CONNECT`.
    pub operation: String,
    /// The object's kind.
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
    /// The object as the request has it.
    pub object: Value,
    /// The object as it is stored.
    pub old: Option<Value>,
    /// The request without its objects, as policies see it under `request`.
    pub request: Value,
}

impl Review {
    /// Takes apart the `request` of an AdmissionReview.
    pub fn of(mut request: Value) -> Self {
        let mut take = |name: &str| request.get_mut(name).map(Value::take).unwrap_or_default();
        let (object, old) = (take("object"), take("oldObject"));
        let text =
            |pointer: &str| request.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        Self {
            operation: text("/operation"),
            kind: text("/kind/kind"),
            namespace: text("/namespace"),
            object,
            old: Some(old).filter(|old| !old.is_null()),
            request,
        }
    }

    /// The object that is there, or the one that was.
    pub(crate) fn current(&self) -> &Value {
        match &self.old {
            Some(old) if self.object.is_null() => old,
            _ => &self.object,
        }
    }

    /// The object's name, or the beginning of a name yet to be made.
    pub(crate) fn object_name(&self) -> String {
        let metadata = &self.current()["metadata"];
        let name = metadata["name"].as_str().or(metadata["generateName"].as_str());
        name.unwrap_or_default().to_owned()
    }
}
