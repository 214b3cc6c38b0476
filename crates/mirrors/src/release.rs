//! Releases of containerd, by what differs between them.

use std::fmt;
use std::str::FromStr;

/// A release of containerd: major and minor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Release(pub u32, pub u32);

impl Release {
    /// The highest `version` of a configuration file that it reads; a higher one keeps it from
    /// starting (RELEASES.md, "Daemon Configuration").
    pub(crate) fn config_version(self) -> i64 {
        match self {
            Self(0 | 1, _) => 2,
            Self(2, 0..=2) => 3,
            _ => 4,
        }
    }

    /// Whether an imported file adds to the sections of the file that imports it; before, it
    /// takes the place of a whole section.
    pub(crate) fn merges_imports(self) -> bool {
        self.0 >= 2
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// A text that names no release.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no release of containerd: expected one as `1.7.28`")]
pub struct ReleaseError(String);

impl FromStr for Release {
    type Err = ReleaseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.trim().trim_start_matches('v').split('.');
        let number = |part: Option<&str>| part.and_then(|part| part.parse().ok());
        match (number(parts.next()), number(parts.next())) {
            (Some(major), Some(minor)) => Ok(Self(major, minor)),
            _ => Err(ReleaseError(text.chars().take(80).collect())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_read_as_containerd_prints_them() {
        for (text, release) in
            [("v1.7.28", Release(1, 7)), ("2.4.2-rc.1", Release(2, 4)), ("1.6", Release(1, 6))]
        {
            assert_eq!(text.parse(), Ok(release));
        }
        for text in ["", "1", "x.y", "containerd"] {
            assert!(text.parse::<Release>().is_err(), "{text}");
        }
    }
}
