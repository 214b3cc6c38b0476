//! What a signature has to be besides made by a key: in time, and for an image of this name.

use std::collections::BTreeMap;

use countersign_reference::{Digest, Reference, Rewriter};
use countersign_verdict::Code;
use jiff::{SignedDuration, Timestamp};

use crate::Limits;

/// How long before its end a key's end is told.
pub const TOLD_AHEAD: SignedDuration = SignedDuration::from_hours(30 * 24);

/// What is asked of signatures besides the keys.
#[derive(Clone, Copy, Debug)]
pub struct Terms<'a> {
    /// How much is looked at.
    pub limits: Limits,
    /// What the periods of keys are held against.
    pub time: Time,
    /// Which image a signature may name.
    pub name: Option<&'a Naming>,
}

impl Terms<'_> {
    /// Whatever the time and the name.
    pub const fn within(limits: Limits) -> Self {
        Self { limits, time: Time::Unjudged, name: None }
    }
}

/// What the periods of keys are held against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Time {
    /// Nothing: what is verified is no pod.
    Unjudged,
    /// This moment.
    Judged(Timestamp),
    /// This moment, and a key that is not trusted at it is told and counts: where nothing may wait.
    Told(Timestamp),
    /// This moment, by a clock that is behind: a key that is not trusted yet counts. One whose time
    /// is over by it is over in truth as well.
    Behind(Timestamp),
}

impl Time {
    /// The moment, where there is one.
    pub fn moment(self) -> Option<Timestamp> {
        match self {
            Self::Unjudged => None,
            Self::Judged(moment) | Self::Told(moment) | Self::Behind(moment) => Some(moment),
        }
    }

    /// Whether what there is to say of a key keeps its signatures from counting.
    pub(crate) fn excludes(self, code: Code) -> bool {
        match self {
            Self::Unjudged | Self::Told(_) => false,
            Self::Judged(_) => matches!(code, Code::KeyExpired | Code::KeyNotYet),
            Self::Behind(_) => code == Code::KeyExpired,
        }
    }
}

/// Which names a signature of an image may carry.
///
/// A mirror has the image under a name of its own, while its signer wrote the name at the origin:
/// both are the same if the site's mapping takes them to the same place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Naming {
    image: Reference,
    identity: Identity,
}

/// How the names that signers write are held against the names of images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Whether a signature that names no image counts for nothing.
    pub required: bool,
    /// Prefixes of names as signers write them, and what each stands for.
    pub remap: BTreeMap<String, String>,
    /// The mapping into the site's registry.
    pub rewriter: Option<Rewriter>,
}

impl Naming {
    /// What signatures of this image may be called.
    pub fn new(image: Reference, identity: Identity) -> Self {
        Self { image, identity }
    }

    /// Whether a signature without a name is none.
    pub(crate) fn is_required(&self) -> bool {
        self.identity.required
    }

    /// Whether the image may be called this; else how it should be.
    pub(crate) fn allows(&self, signed: &str, digest: &Digest) -> Result<(), String> {
        let wrong = || {
            let shown: String = signed.chars().take(200).collect();
            Err(format!("it signs `{shown}`"))
        };
        let Ok(name) = Reference::parse(&self.remapped(signed)) else { return wrong() };
        let place = |name: &Reference| {
            let mapped = self.identity.rewriter.as_ref().and_then(|rewriter| rewriter.rewrite(name).ok());
            let name = mapped.as_ref().unwrap_or(name);
            (name.host(), name.path().to_owned())
        };
        let tags = match (name.tag(), self.image.effective_tag()) {
            (Some(signed), Some(asked)) => signed == asked,
            _ => true,
        };
        let digests = name.digest().is_none_or(|named| named == digest);
        if place(&name) == place(&self.image) && tags && digests { Ok(()) } else { wrong() }
    }

    /// The name with the longest prefix replaced that is there, whole parts of a path at a time.
    fn remapped(&self, signed: &str) -> String {
        let rest = |from: &str| {
            let rest = signed.strip_prefix(from.trim_end_matches('/'))?;
            (rest.is_empty() || rest.starts_with(['/', ':', '@'])).then(|| rest.to_owned())
        };
        let matching =
            self.identity.remap.iter().filter_map(|(from, to)| Some((from.len(), to, rest(from)?)));
        match matching.max_by_key(|(length, ..)| *length) {
            Some((_, to, rest)) => format!("{}{rest}", to.trim_end_matches('/')),
            None => signed.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_same_if_the_site_takes_them_to_the_same_place() {
        let aliases = [("dtr.example.com".to_owned(), "csm".to_owned())].into();
        let identity = Identity {
            required: false,
            remap: [
                ("build.example.com/release".to_owned(), "quay.io/acme/".to_owned()),
                ("build.example.com/release/odd".to_owned(), "quay.io/odd".to_owned()),
            ]
            .into(),
            rewriter: Some(Rewriter::new("registry.local", &aliases).unwrap()),
        };
        let digest = Digest::sha256_of(b"x");
        let other = format!("quay.io/acme/db@{}", Digest::sha256_of(b"y"));
        let same = format!("quay.io/acme/db@{digest}");
        for (image, signed, good) in [
            ("registry.local/quay.io/acme/db:1", "quay.io/acme/db", true),
            ("registry.local/quay.io/acme/db:1", "registry.local/quay.io/acme/db", true),
            ("registry.local/quay.io/acme/db:1", "build.example.com/release/db", true),
            ("registry.local/quay.io/acme/db:1", "build.example.com/release/db:1", true),
            ("registry.local/quay.io/acme/db:1", "build.example.com/release/db:2", false),
            ("registry.local/quay.io/acme/db:1", "build.example.com/releases/db", false),
            ("registry.local/quay.io/acme/db:1", "quay.io/acme/debug-shell", false),
            ("registry.local/quay.io/acme/db:1", "quay.io/acme/db/x", false),
            ("registry.local/quay.io/acme/db:1", "not a name", false),
            ("registry.local/quay.io/acme/db:1", &same, true),
            ("registry.local/quay.io/acme/db:1", &other, false),
            ("registry.local/quay.io/odd/x:1", "build.example.com/release/odd/x", true),
            ("registry.local/csm/tool:1", "dtr.example.com/tool", true),
            ("registry.local/docker.io/library/nginx:1", "index.docker.io/library/nginx", true),
            ("quay.io/acme/db:1", "quay.io/acme/db", true),
        ] {
            let naming = Naming::new(Reference::parse(image).unwrap(), identity.clone());
            assert_eq!(naming.allows(signed, &digest).is_ok(), good, "{image}: {signed}");
        }
    }
}
