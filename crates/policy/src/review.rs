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
    /// All of it, as policies see it under `request`.
    pub request: Value,
}

impl Review {
    /// Reads the `request` of an AdmissionReview.
    pub fn of(request: Value) -> Self {
        let text =
            |pointer: &str| request.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        Self {
            operation: text("/operation"),
            kind: text("/kind/kind"),
            namespace: text("/namespace"),
            request,
        }
    }

    /// The object as the request has it; null where there is none.
    pub fn object(&self) -> &Value {
        &self.request["object"]
    }

    /// The object as it is stored.
    pub fn old(&self) -> Option<&Value> {
        Some(&self.request["oldObject"]).filter(|old| !old.is_null())
    }

    /// The object that is there, or the one that was.
    pub(crate) fn current(&self) -> &Value {
        match self.old() {
            Some(old) if self.object().is_null() => old,
            _ => self.object(),
        }
    }

    /// The object's name, or the beginning of a name yet to be made.
    pub(crate) fn object_name(&self) -> &str {
        let metadata = &self.current()["metadata"];
        let name = metadata["name"].as_str().or(metadata["generateName"].as_str());
        name.unwrap_or_default()
    }
}
