//! Whoever wants to know what was decided: metrics, events.

use std::time::Duration;

use countersign_policy::{Phase, Review};
use countersign_verdict::{Decision, Tier, Verdict};
use serde_json::Value;

/// Is told what was decided. It must not wait.
pub trait Observer: Send + Sync {
    /// A review was answered.
    fn answered(&self, phase: Phase, tier: Tier, allowed: bool, took: Duration);
    /// A verdict counts: one for each image and rule that covers it.
    fn verdict(&self, verdict: &Verdict, enforce: bool, decision: Decision);
    /// Something became of an object, or will under Enforce, that its owner should know. Not told of dry
    /// runs.
    fn report(&self, subject: &Subject, report: Report, message: &str);
}

/// What is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// A pod was denied for an image.
    ImageDenied,
    /// A pod was admitted with an image that will be denied under Enforce.
    ImageViolation,
    /// An object was denied for what it is.
    PolicyDenied,
    /// An object was admitted, as the rule that it breaks does not enforce.
    PolicyViolation,
}

impl Report {
    /// The reason of an event that says so.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::ImageDenied => "ImageDenied",
            Self::ImageViolation => "ImageViolation",
            Self::PolicyDenied => "PolicyDenied",
            Self::PolicyViolation => "PolicyViolation",
        }
    }
}

/// Whom a review is about, as the request has it: to find people by, and nothing to be believed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    /// `v1`, `apps/v1`.
    pub api_version: String,
    /// `Pod`.
    pub kind: String,
    /// The namespace.
    pub namespace: String,
    /// The object's name, or the beginning of a name yet to be made.
    pub name: String,
    /// Who made it, if that was a controller.
    pub owner: Option<Owner>,
}

/// The controller of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Owner {
    /// `apps/v1`.
    pub api_version: String,
    /// `ReplicaSet`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
}

impl Subject {
    /// What may be told to whoever reads events or the log: words of a rule may repeat what the object has,
    /// and not everybody reads Secrets.
    pub(crate) fn to_tell<'a>(&self, words: &'a str) -> &'a str {
        if self.kind == "Secret" {
            "what it says of a Secret is told to whoever made the request alone"
        } else {
            words
        }
    }

    pub(crate) fn of(review: &Review) -> Self {
        let metadata = &review.object()["metadata"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let owners = metadata["ownerReferences"].as_array();
        let owner = owners.into_iter().flatten().find(|owner| owner["controller"] == true);
        let (group, version) =
            (text(&review.request["kind"]["group"]), text(&review.request["kind"]["version"]));
        Self {
            api_version: if group.is_empty() { version } else { format!("{group}/{version}") },
            kind: review.kind.clone(),
            namespace: review.namespace.clone(),
            name: metadata["name"]
                .as_str()
                .map_or_else(|| text(&metadata["generateName"]), ToOwned::to_owned),
            owner: owner.map(|owner| Owner {
                api_version: text(&owner["apiVersion"]),
                kind: text(&owner["kind"]),
                name: text(&owner["name"]),
                uid: text(&owner["uid"]),
            }),
        }
    }
}

/// Nobody wants to know.
#[derive(Clone, Copy, Debug)]
pub struct Unobserved;

impl Observer for Unobserved {
    fn answered(&self, _: Phase, _: Tier, _: bool, _: Duration) {}
    fn verdict(&self, _: &Verdict, _: bool, _: Decision) {}
    fn report(&self, _: &Subject, _: Report, _: &str) {}
}
