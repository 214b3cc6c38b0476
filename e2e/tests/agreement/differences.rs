//! Where cosign and we differ, and why: the one table, which `docs/cosign.md` shows.

use countersign_e2e::Cosign::{self, V2, V3};

/// What a case has that cosign may see otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Property {
    Type,
    LayerType,
    DuplicateNames,
    CaseOfNames,
    NotUnicode,
    Depth,
    Size,
    Count,
    Certificate,
    SignatureText,
    HashOfTheCurve,
    Pss,
    OtherPredicate,
    SignPredicate,
    StatementType,
    ArtifactType,
    Subject,
    ProtoJson,
    DigestOfSubject,
    TransparencyLog,
    /// A `.sig` tag and a bundle at one image.
    Both,
}

/// Cases with this property that these versions of cosign accept and we refuse, or the reverse.
#[derive(Clone, Copy)]
pub(crate) struct Difference {
    pub(crate) property: Property,
    pub(crate) versions: &'static [Cosign],
    pub(crate) cosign_accepts: bool,
    what: &'static str,
    why: &'static str,
}

/// Both versions read it, and accept it.
const fn accepted(property: Property, what: &'static str, why: &'static str) -> Difference {
    Difference { property, versions: &[V2, V3], cosign_accepts: true, what, why }
}

/// Both versions read it, and refuse it.
const fn refused(property: Property, what: &'static str, why: &'static str) -> Difference {
    Difference { property, versions: &[V2, V3], cosign_accepts: false, what, why }
}

/// By this version alone.
const fn by(version: Cosign, difference: Difference) -> Difference {
    let versions: &[Cosign] = match version {
        V2 => &[V2],
        V3 => &[V3],
    };
    Difference { versions, ..difference }
}

/// Every difference that there is.
pub(crate) const DIFFERENCES: &[Difference] = &[
    by(
        V3,
        accepted(
            Property::OtherPredicate,
            "a bundle with a statement of any other predicate type: an attestation",
            "cosign takes whatever the key has stated of the image for a signature. Who attests to vulnerabilities has \
             not said that the image may run.",
        ),
    ),
    by(
        V3,
        accepted(
            Property::SignPredicate,
            "a bundle with a signature's predicate type and something in the predicate",
            "cosign does not read the predicate. A signature has none, so this may be a statement with conditions.",
        ),
    ),
    by(
        V3,
        accepted(
            Property::StatementType,
            "a bundle whose payload is of another `_type` than an in-toto statement",
            "cosign does not read it. What another format means by these fields is not known.",
        ),
    ),
    accepted(
        Property::Type,
        "a `.sig` payload whose `critical.type` is missing or another",
        "cosign does not read it. It tells a signature of an image from any other JSON that the key has signed.",
    ),
    accepted(
        Property::DuplicateNames,
        "a `.sig` payload in which a name stands twice in an object that is read",
        "Go takes the last one or merges them, others take the first: one document, two meanings.",
    ),
    accepted(
        Property::CaseOfNames,
        "a `.sig` payload whose names are written in another case",
        "Go compares names without regard to case. No signer writes them so, and other verifiers do not read them.",
    ),
    accepted(
        Property::NotUnicode,
        "a `.sig` payload that is not Unicode",
        "Go puts a replacement character for what it cannot read; what was signed is then not what is compared.",
    ),
    accepted(
        Property::Depth,
        "a `.sig` payload with values nested more than 127 deep",
        "Every outside byte is bounded; cosign goes on to 10 000.",
    ),
    accepted(
        Property::Size,
        "a `.sig` payload or a bundle of more than 1 MiB",
        "Every outside byte is bounded; cosign reads 128 MiB of a payload, and of a bundle whatever there is.",
    ),
    accepted(
        Property::Count,
        "a good signature behind 64 others",
        "Every outside byte is bounded; cosign looks at 1000 layers. We refuse the image and name the limit.",
    ),
    accepted(
        Property::LayerType,
        "a layer of a `.sig` tag that is of another media type",
        "cosign takes every layer for a payload; we read those that say that they are one.",
    ),
    by(
        V3,
        accepted(
            Property::ArtifactType,
            "a bundle whose manifest is listed as an artifact of another type",
            "cosign fetches every referrer. We pass over what the list itself says is something else.",
        ),
    ),
    by(
        V3,
        accepted(
            Property::Subject,
            "a bundle that the fallback tag lists, and whose manifest does not name the image as its subject",
            "cosign does not read the subject. A referrers API would not list it, so it would be lost in the next copy.",
        ),
    ),
    by(
        V3,
        refused(
            Property::Both,
            "a good `.sig` tag beside bundles none of which is a good signature",
            "cosign 3 looks at bundles alone once one can be read, so any attestation hides a signature. We look at both.",
        ),
    ),
    by(
        V2,
        refused(
            Property::Both,
            "a good bundle beside a `.sig` tag without a good signature",
            "cosign 2 reads no bundles.",
        ),
    ),
    refused(
        Property::HashOfTheCurve,
        "ECDSA on P-384 over SHA-384, on P-521 over SHA-512",
        "cosign verifies with SHA-256 unless `--signature-digest-algorithm` is given, although cosign 3 itself signs \
         bundles with these. We try both.",
    ),
    refused(
        Property::Pss,
        "RSA with PSS",
        "cosign reads PKCS #1 v1.5 alone; sigstore's list of algorithms has both, and the padding is the signer's choice.",
    ),
    refused(
        Property::SignatureText,
        "a signature whose base64 has no padding, a space at its end or, in a `.sig` tag, the other alphabet",
        "The bytes are the same, and it is they that are verified.",
    ),
    refused(
        Property::Certificate,
        "a `.sig` layer with an annotation for a certificate that holds none",
        "Where a key is asked for, a certificate says nothing, and we do not read it.",
    ),
    by(
        V3,
        refused(
            Property::ProtoJson,
            "a bundle or a statement with a field that the schema does not have, or a certificate besides the key",
            "The signature covers the statement as it is, and what nobody reads changes nothing; newer signers add fields.",
        ),
    ),
    by(
        V3,
        refused(
            Property::DigestOfSubject,
            "a statement with more than 32 digests of a subject, or one that is not in hexadecimal digits",
            "Only the digest of the image counts.",
        ),
    ),
    by(
        V3,
        refused(
            Property::TransparencyLog,
            "a bundle with an incomplete entry of a transparency log",
            "Keys are trusted without a log here, and cosign was told so, too; we do not read the entries.",
        ),
    ),
];

impl Difference {
    /// Its line in the table.
    pub(crate) fn line(&self) -> String {
        let cosign = match (self.versions, self.cosign_accepts) {
            ([V2], true) => "2 accepts",
            ([V2], false) => "2 refuses",
            ([V3], true) => "3 accepts",
            ([V3], false) => "3 refuses",
            (_, true) => "both accept",
            (_, false) => "both refuse",
        };
        let we = if self.cosign_accepts { "refuses" } else { "accepts" };
        format!("| {} | {cosign} | {we} | {} |\n", self.what, self.why)
    }
}

/// The table as the page shows it.
pub(crate) fn table() -> String {
    let head = "| signature | cosign | Countersign | why |\n|---|---|---|---|\n";
    DIFFERENCES.iter().fold(head.to_owned(), |table, difference| table + &difference.line())
}
