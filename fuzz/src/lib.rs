//! What several targets share.

use std::sync::OnceLock;

use countersign_reference::Digest;
use countersign_signature::{Judge, Limits, Located, Material, Terms, Trust, sealed_by};
use countersign_verdict::{Attestors, Code, MAX_DETAIL};

/// Public keys of each kind, whose private halves nobody has.
pub const KEYS: &str = include_str!("../keys/trusted.pub");

/// Whether a text is short enough for logs, events and answers; a mark says that it was cut.
fn is_short(text: &str) -> bool {
    text.chars().count() <= MAX_DETAIL + 1
}

/// The image that signatures are judged for.
pub fn image() -> &'static Digest {
    static IMAGE: OnceLock<Digest> = OnceLock::new();
    IMAGE.get_or_init(|| Digest::sha256_of(b"image"))
}

/// Any one of the [`KEYS`].
fn trust() -> &'static Trust {
    static TRUST: OnceLock<Trust> = OnceLock::new();
    TRUST.get_or_init(|| match Trust::new(&Attestors::any_of_keys(KEYS)) {
        Ok(trust) => trust,
        Err(error) => panic!("{error}"),
    })
}

/// Nothing that was made without a key is a signature, and what is said of it is short.
///
/// # Panics
///
/// It was taken for one.
pub fn never_verified(material: Material) {
    let located = Located { at: "https://a".to_owned(), artifact: "signature".to_owned(), material };
    let mut judge = Judge::new(trust(), image(), Terms::within(Limits::DEFAULT));
    for _ in 0..2 {
        assert!(judge.add(&located).is_none(), "verified: {:?}", judge.checks());
    }
    let [first, second] = judge.checks() else { panic!("two were seen: {:?}", judge.checks()) };
    assert!(first.code != Code::SignatureValid && !judge.too_few(), "a good signature: {first:?}");
    assert_eq!(second.code, Code::SeenBefore);
    assert!(is_short(&first.detail), "{} bytes about one signature", first.detail.len());
}

/// Nor is it the seal of a bundle.
///
/// # Panics
///
/// It was taken for one.
pub fn never_sealed(json: &[u8]) {
    let sealed = sealed_by(trust(), image(), json);
    let Err(error) = sealed else { panic!("sealed by {sealed:?}") };
    let said = error.to_string();
    assert!(is_short(&said), "{} bytes about one seal", said.len());
}
