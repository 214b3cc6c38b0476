//! AdmissionReview v1 on the wire.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};

/// The message that a denied user sees is cut at this many bytes.
const MAX_MESSAGE: usize = 16 * 1024;

/// A review as it arrives.
#[derive(Deserialize)]
pub(crate) struct Envelope {
    #[serde(rename = "apiVersion")]
    pub(crate) api_version: String,
    pub(crate) kind: String,
    pub(crate) request: Value,
}

/// An answer yet to be put on the wire.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) denials: Vec<String>,
    pub(crate) warnings: Vec<String>,
    pub(crate) patch: Option<Vec<u8>>,
}

impl Answer {
    pub(crate) fn bytes(self, uid: &str) -> Vec<u8> {
        let mut response = json!({ "uid": uid, "allowed": self.denials.is_empty() });
        if !self.denials.is_empty() {
            let mut message = self.denials.join("\n");
            if message.len() > MAX_MESSAGE {
                message.truncate(message.floor_char_boundary(MAX_MESSAGE));
                message.push_str("\n… and more");
            }
            // A leading line break sets the denial apart from what the API server puts before it.
            response["status"] =
                json!({ "code": 403, "reason": "Forbidden", "message": format!("\n{message}") });
        } else if let Some(patch) = self.patch {
            response["patchType"] = json!("JSONPatch");
            response["patch"] = json!(STANDARD.encode(patch));
        }
        if !self.warnings.is_empty() {
            let warnings: Vec<String> = self.warnings.iter().take(16).map(|text| one_line(text)).collect();
            response["warnings"] = json!(warnings);
        }
        let review =
            json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response });
        review.to_string().into_bytes()
    }
}

/// Warnings are header values: no line breaks, and the API server cuts long ones.
fn one_line(text: &str) -> String {
    let flat: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let words: Vec<&str> = flat.split_whitespace().collect();
    words.join(" ").chars().take(250).collect()
}
