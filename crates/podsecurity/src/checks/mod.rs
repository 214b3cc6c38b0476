//! What each control looks at, by where the fields are.

pub(crate) mod containers;
pub(crate) mod contexts;
pub(crate) mod pods;

use crate::control::Check;
use crate::pod::Container;
use crate::text::{clip_to, containers as named};
use crate::violation::{BadValue, FieldError, MAX_DETAIL, Violation};

impl<'p, 'a> Check<'p, 'a> {
    /// Whether the version is `v1.<minor>` or newer.
    fn since(&self, minor: u32) -> bool {
        self.version >= crate::Version::minor(minor)
    }

    /// Pods of Windows are exempt since v1.25: the API server refuses those that set what it ignores.
    fn exempts_windows(&self) -> bool {
        self.since(25) && self.pod.windows
    }

    /// Pods with users of their own are exempt since v1.35: root in them is nobody on the node.
    fn exempts_own_users(&self) -> bool {
        self.since(35) && self.pod.own_users
    }

    fn containers(&self) -> impl Iterator<Item = (usize, &'p Container<'a>)> {
        self.pod.containers.iter().enumerate()
    }

    fn violation(
        &self,
        reason: impl Into<String>,
        detail: &str,
        errors: Vec<FieldError>,
    ) -> Option<Violation> {
        (!errors.is_empty()).then(|| Violation {
            control: self.control,
            reason: reason.into(),
            detail: clip_to(detail, MAX_DETAIL),
            errors,
            behind: None,
        })
    }
}

/// `pod and containers "a", "b"`: those who set what they must not.
fn setters(pod: bool, containers: &[&str]) -> String {
    match (pod, containers) {
        (true, []) => "pod".to_owned(),
        (true, containers) => format!("pod and {}", named(containers)),
        (false, containers) => named(containers),
    }
}

fn text(text: &str) -> BadValue {
    BadValue::Text(text.to_owned())
}
