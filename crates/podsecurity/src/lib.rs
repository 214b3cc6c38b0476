//! The Pod Security Standards over a pod, as Kyverno's `validate.podSecurity` asks for them.
//!
//! ```text
//! podSecurity ── parse ──► PodSecurity ── evaluate(metadata, spec, exceptions) ──► Verdict
//!                             controls ─► violations ─► exclusions ─► exceptions
//! ```
//!
//! ```
//! use countersign_podsecurity::{Place, Verdict, parse, passed};
//! use serde_json::json;
//!
//! let rule = json!({
//!     "level": "baseline",
//!     "version": "latest",
//!     "exclude": [{ "controlName": "Capabilities", "images": ["quay.io/acme/*"] }],
//! });
//! let rule = parse(&rule, "spec.rules[0].validate.podSecurity").unwrap().value;
//!
//! let metadata = json!({ "name": "db" });
//! let spec = json!({ "hostPID": true, "containers": [{ "name": "db", "image": "quay.io/acme/db:1" }] });
//! let Verdict::Violated(violations) = rule.evaluate(&metadata, &spec, []) else { panic!() };
//! assert_eq!(violations[0].control.name, "Host Namespaces");
//! assert_eq!(
//!     rule.failed("baseline", &violations, Place::Pod),
//!     "Validation rule 'baseline' failed. It violates PodSecurity \"baseline:latest\": \
//!      (Forbidden reason: host namespaces, field error list: \
//!      [spec.hostPID is forbidden, forbidden values found: true])"
//! );
//!
//! let spec = json!({ "containers": [{ "name": "db", "image": "quay.io/acme/db:1" }] });
//! assert_eq!(rule.evaluate(&metadata, &spec, []), Verdict::Passed);
//! assert_eq!(passed("baseline"), "Validation rule 'baseline' passed.");
//! ```
//!
//! # The standards
//!
//! Each control binds from its level on and since its version, and is asked in the form of the
//! version at hand ([`controls`]). In `restricted`, the controls of `baseline` are asked too, also
//! where a stricter one says the same: that is how Kyverno counts, and an exclusion of `Volume
//! Types` does not allow a `hostPath`. `hostUsers: false` relaxes what it does by default in
//! Kubernetes, since v1.35; pods of Windows are exempt where the API server sees to it that they
//! set nothing, since v1.25. `privileged` allows everything.
//!
//! # Exclusions
//!
//! One with images lifts errors of the containers whose image, as written, matches one of the
//! wildcards; one without lifts errors of the pod, and where neither the pod nor its containers
//! set what has to be set, that of the first ordinary container, as upstream. `restrictedField`
//! and `values` lift an error if each of its values matches. An error that has no value, as that
//! of an absent field or of a restricted volume type, is lifted whatever the values are.
//!
//! # What is no pod
//!
//! A null is an absent field. A value of another type than the API's, in any field that a control
//! reads, makes the pod unreadable, as it does upstream, where decoding fails before anything is
//! asked: [`Verdict::Unreadable`] is no pass. The API server lets no such object through; from
//! elsewhere, such a pod is nothing that could be judged. So is one with more than
//! [`MAX_CONTAINERS`] containers. Fields that no control reads are not looked at.
//!
//! Sources: Kubernetes 1.37 `pod-security-admission/policy`, Kyverno 1.19 `pkg/pss`.

mod checks;
mod control;
mod exclusion;
mod level;
mod parse;
mod place;
mod pod;
mod policy;
mod problem;
mod read;
mod text;
mod violation;

pub use control::{Control, Scope, controls};
pub use exclusion::Exclusion;
pub use level::{Level, NEWEST, Version};
pub use parse::{MAX_EXCLUSIONS, Parsed, parse, parse_exclusions};
pub use place::Place;
pub use pod::MAX_CONTAINERS;
pub use policy::{MAX_MESSAGE, PodSecurity, Verdict, passed, summary};
pub use problem::Problem;
pub use violation::{BadValue, ErrorKind, FieldError, MAX_DETAIL, Violation};
