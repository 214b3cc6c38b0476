//! What a policy or an exception takes out of a standard.

use countersign_reference::wildcard_match;

use crate::pod::{ORDINARY, Pod};
use crate::violation::{ErrorKind, FieldError, Violation};

/// What is allowed although a control forbids it; made by [`parse`](crate::parse) and
/// [`parse_exclusions`](crate::parse_exclusions).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exclusion {
    /// The name of the controls.
    pub(crate) control: String,
    /// Wildcards of the images of the containers that it is for; of the pod if there are none.
    pub(crate) images: Vec<String>,
    /// The one field and the wildcards of its values; each of the control's if absent.
    pub(crate) field: Option<(String, Vec<String>)>,
}

impl Exclusion {
    /// The name of the controls that it is of.
    pub fn control(&self) -> &str {
        &self.control
    }

    /// Takes out what it lifts.
    pub(crate) fn lift(&self, violations: Vec<Violation>, pod: &Pod<'_>) -> Vec<Violation> {
        let lift = |violation: Violation| {
            if violation.control.name != self.control {
                return Some(violation);
            }
            // A field that neither the pod nor the container has set is as much the pod's: without
            // images, it is lifted for the first ordinary container.
            let mut first = true;
            violation.without(|error| match error.container {
                Some(at) if !self.images.is_empty() => {
                    let container = &pod.containers[at];
                    matches_any(&self.images, container.image) && self.fits(error)
                }
                Some(at) => {
                    let unset = error.kind == ErrorKind::Required && pod.containers[at].list == ORDINARY;
                    unset && self.fits(error) && std::mem::take(&mut first)
                }
                None => self.images.is_empty() && self.fits(error),
            })
        };
        violations.into_iter().filter_map(lift).collect()
    }

    /// Whether it is of this field and of each of its values. An error without a value, as of a
    /// field that is absent, has none that could be another.
    fn fits(&self, error: &FieldError) -> bool {
        self.field.as_ref().is_none_or(|(field, values)| {
            // The path itself is what an annotation with a number in its name is called.
            let of_field = *field == error.pattern() || *field == error.path;
            of_field && error.values().iter().all(|value| matches_any(values, value))
        })
    }
}

fn matches_any(patterns: &[String], text: &str) -> bool {
    patterns.iter().any(|pattern| wildcard_match(pattern, text))
}
