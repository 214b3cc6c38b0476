//! What signatures are made with: keys of every kind, and texts as the project's own signer writes them.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign_e2e::{Cosign, KeyPair, Layer, Pushed, Referrer};
use countersign_signature::sign::{Scheme, Signer};
use countersign_signature::{BUNDLE_MEDIA_TYPE, Material, SIGNATURE_ANNOTATION};
use serde_json::Value;

use crate::differences::Property;

const STATEMENT: &str = "application/vnd.in-toto+json";

/// A kind of key, and how it signs.
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    scheme: Scheme,
    /// Whether cosign 2 makes the signatures: over SHA-256 whatever the curve.
    by_cosign_2: bool,
    /// In what cosign may differ over every signature.
    pub(crate) property: Option<Property>,
    /// What a bundle is that cosign 3 itself makes with it; nothing where another kind shows that.
    pub(crate) by_cosign_3: Option<Made>,
}

/// With which hash cosign 3 signs: not always with the one that it verifies with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Made {
    /// With SHA-256, or what takes its place, as it verifies.
    AsVerified,
    /// With the hash that belongs to the curve.
    HashOfTheCurve,
    /// As Ed25519ph, which is another scheme than Ed25519.
    Prehashed,
}

const fn kind(name: &'static str, scheme: Scheme, by_cosign_3: Option<Made>) -> Kind {
    Kind { name, scheme, by_cosign_2: false, property: None, by_cosign_3 }
}

/// Every kind that `cosign verify --key` reads.
pub(crate) const KINDS: [Kind; 10] = [
    kind("P-256", Scheme::EcdsaP256, Some(Made::AsVerified)),
    Kind { by_cosign_2: true, ..kind("P-384 over SHA-256", Scheme::EcdsaP384, Some(Made::HashOfTheCurve)) },
    Kind { property: Some(Property::HashOfTheCurve), ..kind("P-384 over SHA-384", Scheme::EcdsaP384, None) },
    Kind { by_cosign_2: true, ..kind("P-521 over SHA-256", Scheme::EcdsaP521, Some(Made::HashOfTheCurve)) },
    Kind { property: Some(Property::HashOfTheCurve), ..kind("P-521 over SHA-512", Scheme::EcdsaP521, None) },
    kind("RSA-2048", Scheme::Rsa2048, Some(Made::AsVerified)),
    kind("RSA-3072", Scheme::Rsa3072Pss, Some(Made::AsVerified)),
    Kind { property: Some(Property::Pss), ..kind("RSA-3072 PSS", Scheme::Rsa3072Pss, None) },
    kind("RSA-4096", Scheme::Rsa4096, Some(Made::AsVerified)),
    kind("Ed25519", Scheme::Ed25519, Some(Made::Prehashed)),
];

/// A key of one kind.
pub(crate) struct Key {
    pub(crate) kind: &'static Kind,
    signer: Signer,
    /// The same key as cosign keeps it.
    pub(crate) pair: KeyPair,
}

impl Key {
    /// Makes one.
    pub(crate) fn new(kind: &'static Kind, directory: &Path) -> Self {
        let mut signer = Signer::generate(kind.scheme).unwrap();
        let pem = signer.private_pem().unwrap();
        if kind.property != Some(Property::Pss) {
            // A file does not say how an RSA key signs: the usual way is PKCS #1 v1.5.
            signer = Signer::from_pem(&pem).unwrap();
        }
        let pair = Cosign::V2.import(directory, &kind.name.replace(' ', "-").to_lowercase(), &pem);
        Self { kind, signer, pair }
    }
}

/// An image that is to be signed, by one key and not by the other.
#[derive(Clone, Copy)]
pub(crate) struct Bench<'a> {
    pub(crate) directory: &'a Path,
    pub(crate) image: &'a Pushed,
    pub(crate) key: &'a Key,
    pub(crate) other: &'a Signer,
}

impl Bench<'_> {
    /// A payload as cosign writes it.
    pub(crate) fn payload(&self) -> String {
        let made = self.key.signer.cosign_sig(&self.image.digest, &self.image.name, &[].into()).unwrap();
        let Material::CosignSig { payload, .. } = made else { unreachable!("a layer of a `.sig` tag") };
        String::from_utf8(payload).unwrap()
    }

    /// A statement as cosign writes it.
    pub(crate) fn statement(&self) -> String {
        let made = self.key.signer.bundle(&self.image.digest, &[].into()).unwrap();
        let Material::Bundle { json } = made else { unreachable!("a bundle") };
        let bundle: Value = serde_json::from_slice(&json).unwrap();
        String::from_utf8(decoded(&bundle["dsseEnvelope"]["payload"])).unwrap()
    }

    /// The layer of a `.sig` tag with this payload, signed.
    pub(crate) fn layer(&self, payload: impl AsRef<[u8]>) -> Layer {
        let payload = payload.as_ref();
        let mut layer = Layer::from(self.key.signer.cosign_sig_of(payload.to_vec()).unwrap());
        if self.key.kind.by_cosign_2 {
            let signature = Cosign::V2.sign_blob(self.directory, &self.key.pair, payload);
            layer.annotations.insert(SIGNATURE_ANNOTATION.to_owned(), signature);
        }
        layer
    }

    /// A bundle with this statement, signed.
    pub(crate) fn bundle(&self, statement: impl AsRef<[u8]>) -> Value {
        self.bundle_of_type(STATEMENT, statement.as_ref())
    }

    /// A bundle with anything in its envelope, signed.
    pub(crate) fn bundle_of_type(&self, payload_type: &str, body: &[u8]) -> Value {
        let mut bundle = parsed(self.key.signer.bundle_over(payload_type, body).unwrap());
        if self.key.kind.by_cosign_2 {
            let head = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), body.len());
            let signed = [head.as_bytes(), body].concat();
            bundle["dsseEnvelope"]["signatures"][0]["sig"] =
                Cosign::V2.sign_blob(self.directory, &self.key.pair, &signed).into();
        }
        bundle
    }

    /// What the other key makes of a good payload.
    pub(crate) fn layer_of_other(&self) -> Layer {
        self.other.cosign_sig_of(self.payload().into_bytes()).unwrap().into()
    }

    /// What the other key makes of a statement.
    pub(crate) fn bundle_of_other(&self, statement: &str) -> Value {
        parsed(self.other.bundle_over(STATEMENT, statement.as_bytes()).unwrap())
    }

    /// A good bundle with something done to its JSON.
    pub(crate) fn edited(&self, edit: fn(&mut Value)) -> Referrer {
        let mut bundle = self.bundle(self.statement());
        edit(&mut bundle);
        referrer(&bundle)
    }

    /// A good `.sig` layer with something done to its signature in base64.
    pub(crate) fn signature(&self, edit: impl Fn(&str) -> String) -> Vec<Layer> {
        let mut layer = self.layer(self.payload());
        let signature = layer.annotations.get_mut(SIGNATURE_ANNOTATION).unwrap();
        *signature = edit(signature);
        vec![layer]
    }

    /// A signature whose base64 has this in it: those of ECDSA differ each time.
    pub(crate) fn layer_with(&self, characters: [char; 2]) -> Layer {
        let payload = self.payload();
        let mut made = std::iter::repeat_with(|| self.layer(&payload));
        made.find(|layer| layer.annotations[SIGNATURE_ANNOTATION].contains(characters)).unwrap()
    }

    /// Another digest than the image's.
    pub(crate) fn another_digest(&self, text: &str) -> String {
        text.replace(self.image.digest.hex(), &"ab".repeat(32))
    }
}

fn parsed(material: Material) -> Value {
    let Material::Bundle { json } = material else { unreachable!("a bundle") };
    serde_json::from_slice(&json).unwrap()
}

/// What stands there in base64.
pub(crate) fn decoded(text: &Value) -> Vec<u8> {
    STANDARD.decode(text.as_str().unwrap()).unwrap()
}

/// The same text in base64 with one bit of the bytes flipped.
pub(crate) fn flipped(text: &str, at: fn(usize) -> usize) -> String {
    let mut bytes = STANDARD.decode(text).unwrap();
    let at = at(bytes.len());
    bytes[at] ^= 1;
    STANDARD.encode(bytes)
}

/// The manifest of a bundle, as cosign 3 writes it.
pub(crate) fn referrer(bundle: &Value) -> Referrer {
    referrer_of(bundle.to_string())
}

/// The same with any text for a bundle.
pub(crate) fn referrer_of(text: impl Into<String>) -> Referrer {
    let content = text.into().into_bytes();
    Referrer::from(Layer { media_type: BUNDLE_MEDIA_TYPE.to_owned(), content, annotations: [].into() })
}
