//! Levels and versions of the Pod Security Standards.

use std::fmt;

/// The newest version whose standards are known here.
pub const NEWEST: Version = Version(37);

/// How strict a standard is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Everything is allowed.
    Privileged,
    /// What is known to lead out of a container is not.
    Baseline,
    /// Baseline, and hardened.
    Restricted,
}

impl Level {
    /// All of them, the laxest first.
    pub const ALL: [Self; 3] = [Self::Privileged, Self::Baseline, Self::Restricted];

    /// By its name, as policies write it.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.name() == text)
    }

    /// `privileged`, `baseline` or `restricted`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Privileged => "privileged",
            Self::Baseline => "baseline",
            Self::Restricted => "restricted",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A version of the standards, which is one of Kubernetes: `v1.24`, or `latest`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(u32);

impl Version {
    /// Newer than any other.
    pub const LATEST: Self = Self(u32::MAX);

    /// `v1.<minor>`.
    pub const fn minor(minor: u32) -> Self {
        Self(minor)
    }

    /// Reads `latest` and `v1.0` to [`NEWEST`]; the reason if it is neither, with what to write.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text == "latest" {
            return Ok(Self::LATEST);
        }
        let digits = text.strip_prefix("v1.").filter(|digits| {
            !digits.is_empty() && digits.len() < 5 && digits.bytes().all(|byte| byte.is_ascii_digit())
        });
        let canonical = digits.filter(|digits| *digits == "0" || !digits.starts_with('0'));
        match canonical.and_then(|digits| digits.parse().ok()) {
            Some(minor) if minor <= NEWEST.0 => Ok(Self(minor)),
            Some(_) => Err(format!(
                "the standards of `{text}` are not known here: write `latest`, or at most `{NEWEST}`"
            )),
            None => Err(format!(
                "`{}` is no version: write `latest`, or `v1.0` to `{NEWEST}`",
                crate::text::clip(text)
            )),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::LATEST { f.write_str("latest") } else { write!(f, "v1.{}", self.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::{Level, NEWEST, Version};

    #[test]
    fn versions_are_read_at_their_edges() {
        for (text, version) in [
            ("latest", Version::LATEST),
            ("v1.0", Version::minor(0)),
            ("v1.9", Version::minor(9)),
            ("v1.37", NEWEST),
        ] {
            assert_eq!(Version::parse(text), Ok(version), "{text}");
            assert_eq!(version.to_string(), text);
        }
        for text in ["", "v1", "v1.", "v1.01", "v1.00", "1.24", "v2.0", "v1.-1", "v1.+1", "Latest", "v1.24.0"]
        {
            let reason = Version::parse(text).unwrap_err();
            assert!(reason.contains("no version") && reason.contains("`v1.37`"), "{text}: {reason}");
        }
        assert!(Version::parse("v1.38").unwrap_err().contains("not known here"));
        assert!(Version::parse("v1.99999").unwrap_err().contains("no version"));
    }

    #[test]
    fn latest_is_the_newest() {
        assert!(Version::LATEST > NEWEST && NEWEST > Version::minor(9));
        assert_eq!(Level::parse("Baseline"), None);
        assert!(Level::ALL.into_iter().all(|level| Level::parse(level.name()) == Some(level)));
    }
}
