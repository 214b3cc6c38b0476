//! The webhook server: AdmissionReview in, AdmissionResponse out.
//!
//! `/mutate/{fail,ignore}` rewrites, verifies and pins; `/validate/{fail,ignore}` decides again
//! on the final object. An HTTP error would be a *webhook failure*, which `failurePolicy: Ignore`
//! admits; so whatever happens to a review that can be read is answered with 200 and its uid,
//! overload and our own panics included: denied if an Enforce rule could have matched, else
//! admitted with a warning.
//!
//! Audit never waits: it takes what is at hand, and what is not is found out afterwards and
//! reported in the decision log.

mod around;
mod observer;
mod service;
mod wire;

pub use around::{Around, Cluster, NoCluster};
pub use observer::{Observer, Owner, Report, Subject, Unobserved};
pub use service::{Answers, Limits, Service};
