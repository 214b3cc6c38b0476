//! Stable reason codes, each with the hint that goes with it.

use std::fmt;

use serde::Serialize;

/// What to do about a reason, for the person who reads it.
pub type Hint = &'static str;

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $variant:ident = $code:literal, $hint:expr;)+) => {
        /// Why a check came out as it did. The text form is stable: it is what alerts match.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Code {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Code {
            /// Every code there is, in the order of the reference documentation.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The stable text form.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $code,)+ }
            }

            /// What it means, as the reference documentation has it.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),+).trim_ascii(),)+ }
            }

            /// What to do about it; `None` where nothing is wrong.
            pub const fn hint(self) -> Option<Hint> {
                match self { $(Self::$variant => $hint,)+ }
            }
        }
    };
}

codes! {
    /// A signature satisfies the policy.
    SignatureValid = "signature-valid", None;
    /// Looked for and, by a definite answer, not there.
    NotPresent = "not-present", None;
    /// A copy of a signature that was looked at already.
    SeenBefore = "seen-before", None;
    /// No signature in any format at the endpoint that serves the image.
    NoSignature = "no-signature", Some("sign the digest with `cosign sign --key …`, or copy its signatures along: plain image copies drop them");
    /// The signature was not made by any key of the policy.
    KeyMismatch = "key-mismatch", Some("a re-signed image needs its new key in the policy first");
    /// The signature was made by a key that is not trusted any more.
    KeyExpired = "key-expired", Some("the Site's `trustedUntil` of this key is over: sign the image with its successor, or move the date");
    /// The signature was made by a key that is not trusted yet.
    KeyNotYet = "key-not-yet", Some("the Site's `trustedFrom` of this key is still to come: check the clock, or the date");
    /// The key that the image is verified by will not be trusted much longer.
    KeyEndsSoon = "key-ends-soon", Some("sign with the next key, and have the Site trust both, before `trustedUntil` of this one");
    /// The clock is behind what it must have shown already, so a key that is not trusted yet counts.
    ClockBehind = "clock-behind", Some("set the clock (NTP): until then keys are trusted before their time");
    /// The signature is for an image of another name.
    NameMismatch = "name-mismatch", Some("the image was signed under another name: pull it by that one, or add the mapping to the Site's `trust.identity.remap`");
    /// The signature names no image, and the Site wants every one to.
    NoName = "no-name", Some("sign it in the `.sig` form, which names the image: bundles do so only where the signer puts a name in");
    /// The index that the tag stands for does not list the digest.
    ForeignManifest = "foreign-manifest", Some("the digest belongs to another image or another build: use the digest of the index, or one that it lists");
    /// An index that is signed lists the digest.
    ListedByIndex = "listed-by-index", None;
    /// The signed payload names another digest.
    DigestMismatch = "digest-mismatch", Some("the signature belongs to another image: sign this digest");
    /// The bytes that the registry sent do not hash to the digest that was asked for.
    ContentMismatch = "content-mismatch", Some("the registry or a proxy before it alters content: compare the digest at its source");
    /// A signed document is an attestation of another type, which never counts as a signature.
    WrongPredicate = "wrong-predicate", Some("an attestation is not a signature: run `cosign sign` as well");
    /// The signed payload is not a cosign container image signature.
    WrongType = "wrong-type", Some("the key has signed something else, such as a blob: sign the image with `cosign sign`");
    /// The signed payload lacks annotations that the policy demands.
    AnnotationMismatch = "annotation-mismatch", Some("sign with `-a key=value` as the policy's annotations ask");
    /// Not enough different attestors have signed.
    TooFewAttestors = "too-few-attestors", Some("the policy's `count` asks for signatures by several different keys");
    /// A document is not in the format it claims.
    Malformed = "malformed", Some("inspect the artifact at the registry; a proxy that answers with HTML looks like this");
    /// A signature format or version that cannot be judged here.
    UnsupportedFormat = "unsupported-format", Some("supported are cosign `.sig` and sigstore bundle v0.3, both signed by a key");
    /// Every endpoint answered, none has the image.
    ImageNotFound = "image-not-found", Some("push the image to the registry, or correct its name or tag");
    /// The endpoint does not let us look.
    Unauthorized = "unauthorized", Some("allow anonymous pulls of this repository, or configure credentials for the endpoint");
    /// The endpoint cannot be reached, or failed.
    Unreachable = "unreachable", Some("check address, name resolution, port and firewall of the endpoint from where Countersign runs");
    /// TLS could not be established with the endpoint.
    TlsFailed = "tls-failed", Some("the endpoint's certificate must be issued by the CA that the site names for it, for the name in its URL");
    /// The endpoint failed a moment ago and is not asked again yet.
    HeldOff = "held-off", Some("the endpoint failed a moment ago; it is tried again within seconds");
    /// The time for this request was over before an answer came.
    Deadline = "deadline", Some("an endpoint is slow or drops packets: check it from where Countersign runs");
    /// The site names no endpoint for this registry.
    HostNotListed = "host-not-listed", Some("rewrite the image to the site's registry, or name this registry in the Site or the hosts directory");
    /// The endpoint points to a host that the site does not name for it.
    RedirectRefused = "redirect-refused", Some("add the host to `allowHosts` of the endpoint if it belongs to the registry");
    /// A limit on size, count or work was reached.
    LimitReached = "limit-reached", Some("the registry offers more than an image needs: look at its signatures and referrers");
    /// The image reference is malformed.
    BadReference = "bad-reference", Some("correct the image reference");
    /// No key to verify with.
    NoKeys = "no-keys", Some("give the policy a key, or the Site one under `trust.keys`");
    /// Endpoints disagree about a tag, and `pinning` is off.
    EndpointsDisagree = "endpoints-disagree", Some("mirror the tag again, use a digest, or turn pinning on");
    /// The digest is revoked by the site.
    Revoked = "revoked", Some("the site's `revoked` list names this digest: use a newer image");
    /// The image carries no digest although the site pins every image.
    NotPinned = "not-pinned", Some("another webhook adds or changes images after Countersign; have it run before, or use digests there");
    /// A rule of a policy could not be loaded.
    RuleNotLoaded = "rule-not-loaded", Some("correct the policy at the path in the message, or remove the rule");
    /// More images in one pod than are verified.
    TooManyImages = "too-many-images", Some("split the pod");
    /// The answer comes from memory, as no endpoint can be asked.
    Stale = "stale", Some("no endpoint answers: the digest last verified for this very tag is used until the site's `stale` is over");
    /// Evidence that is not what was put there.
    BadEvidence = "bad-evidence", Some("somebody has changed the store: `countersign evidence list` names the entries that count");
    /// Something here failed that should not.
    Internal = "internal", Some("this is a fault of Countersign: please report it with the log around this line");
}

impl Code {
    /// Whether it says what is wrong with a signature that is there.
    pub const fn is_of_signature(self) -> bool {
        matches!(
            self,
            Self::KeyMismatch
                | Self::KeyExpired
                | Self::KeyNotYet
                | Self::DigestMismatch
                | Self::WrongPredicate
                | Self::WrongType
                | Self::AnnotationMismatch
                | Self::NameMismatch
                | Self::NoName
                | Self::UnsupportedFormat
        )
    }

    /// Whether it is worth a word about an image that is verified.
    pub const fn is_warning(self) -> bool {
        matches!(self, Self::KeyExpired | Self::KeyNotYet | Self::KeyEndsSoon | Self::ClockBehind)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Code {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::Code;

    #[test]
    fn codes_are_distinct_kebab_case_and_explained() {
        let mut seen = std::collections::BTreeSet::new();
        for code in Code::ALL {
            assert!(seen.insert(code.as_str()), "{code} stands twice");
            assert!(code.as_str().bytes().all(|b| b.is_ascii_lowercase() || b == b'-'), "{code}");
            assert!(code.meaning().ends_with('.'), "{code}");
        }
    }
}
