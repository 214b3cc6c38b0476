//! Makes keys, seals of bundles, and signatures in both shapes: for bundles, the demo, tests and benchmarks.
//!
//! The output is what cosign writes; the end-to-end tests hold it beside the real one.

use std::collections::BTreeMap;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    self as alg, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _, RsaEncoding, RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign_reference::Digest;
use serde_json::json;

use crate::bundle::{SIGN_PREDICATE, STATEMENT_MEDIA_TYPE, STATEMENT_TYPES, pae};
use crate::material::{BUNDLE_MEDIA_TYPE, Material, SIGNATURE_ANNOTATION};
use crate::payload::TYPE;
use crate::seal::SEAL_PREDICATE;

/// What to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// ECDSA P-256 with SHA-256.
    EcdsaP256,
    /// ECDSA P-384 with SHA-384.
    EcdsaP384,
    /// ECDSA P-521 with SHA-512.
    EcdsaP521,
    /// RSA-2048, PKCS #1 v1.5, SHA-256.
    Rsa2048,
    /// RSA-4096, PKCS #1 v1.5, SHA-256.
    Rsa4096,
    /// RSA-3072, PSS, SHA-256.
    Rsa3072Pss,
    /// Ed25519.
    Ed25519,
}

enum Pair {
    Ecdsa(EcdsaKeyPair),
    Rsa(RsaKeyPair, &'static dyn RsaEncoding),
    Ed25519(Ed25519KeyPair),
}

/// A private key.
pub struct Signer {
    pair: Pair,
    spki: Vec<u8>,
}

/// A key or a signature that could not be made or read.
#[derive(Debug, thiserror::Error)]
#[error("cannot {0}")]
pub struct SignError(&'static str);

impl Signer {
    /// Makes a key. RSA-4096 takes up to a few seconds.
    pub fn generate(scheme: Scheme) -> Result<Self, SignError> {
        let failed = |_| SignError("make a key");
        let ecdsa = |algorithm: &'static EcdsaSigningAlgorithm| {
            EcdsaKeyPair::generate(algorithm).map(Pair::Ecdsa).map_err(failed)
        };
        let rsa = |size, encoding: &'static dyn RsaEncoding| {
            RsaKeyPair::generate(size).map(|pair| Pair::Rsa(pair, encoding)).map_err(failed)
        };
        let pair = match scheme {
            Scheme::EcdsaP256 => ecdsa(&alg::ECDSA_P256_SHA256_ASN1_SIGNING)?,
            Scheme::EcdsaP384 => ecdsa(&alg::ECDSA_P384_SHA384_ASN1_SIGNING)?,
            Scheme::EcdsaP521 => ecdsa(&alg::ECDSA_P521_SHA512_ASN1_SIGNING)?,
            Scheme::Rsa2048 => rsa(KeySize::Rsa2048, &alg::RSA_PKCS1_SHA256)?,
            Scheme::Rsa4096 => rsa(KeySize::Rsa4096, &alg::RSA_PKCS1_SHA256)?,
            Scheme::Rsa3072Pss => rsa(KeySize::Rsa3072, &alg::RSA_PSS_SHA256)?,
            Scheme::Ed25519 => Pair::Ed25519(Ed25519KeyPair::generate().map_err(failed)?),
        };
        Self::of(pair)
    }

    fn of(pair: Pair) -> Result<Self, SignError> {
        let failed = |_| SignError("make a key");
        let der = |key: Result<PublicKeyX509Der<'_>, _>| key.map(|der| der.as_ref().to_vec()).map_err(failed);
        let spki = match &pair {
            Pair::Ecdsa(pair) => der(pair.public_key().as_der())?,
            Pair::Rsa(pair, _) => der(pair.public_key().as_der())?,
            Pair::Ed25519(pair) => der(pair.public_key().as_der())?,
        };
        Ok(Self { pair, spki })
    }

    /// The private key of a PKCS #8 PEM block (`openssl genpkey`): ECDSA on P-256, P-384 or P-521,
    /// RSA or Ed25519.
    ///
    /// # Errors
    ///
    /// It is no such block; among them the encrypted keys that cosign keeps.
    pub fn from_pem(text: &str) -> Result<Self, SignError> {
        let block = pem::parse(text).map_err(|_| SignError("read the key: it is not PEM"))?;
        if block.tag().starts_with("ENCRYPTED") {
            return Err(SignError(
                "read the key: it is encrypted; `openssl pkcs8` and `cosign` keep such keys, give a plain PKCS #8 one",
            ));
        }
        let der = block.contents();
        let ecdsa = [
            &alg::ECDSA_P256_SHA256_ASN1_SIGNING,
            &alg::ECDSA_P384_SHA384_ASN1_SIGNING,
            &alg::ECDSA_P521_SHA512_ASN1_SIGNING,
        ];
        let pair = ecdsa
            .into_iter()
            .find_map(|algorithm| EcdsaKeyPair::from_pkcs8(algorithm, der).ok().map(Pair::Ecdsa))
            .or_else(|| RsaKeyPair::from_pkcs8(der).ok().map(|pair| Pair::Rsa(pair, &alg::RSA_PKCS1_SHA256)))
            .or_else(|| Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).ok().map(Pair::Ed25519))
            .ok_or(SignError("read the key: it is not a PKCS #8 key of ECDSA, RSA or Ed25519"))?;
        Self::of(pair)
    }

    /// The public key as a PEM block.
    pub fn public_pem(&self) -> String {
        pem::encode(&pem::Pem::new("PUBLIC KEY", self.spki.clone()))
    }

    /// The private key as a PKCS #8 PEM block.
    pub fn private_pem(&self) -> Result<String, SignError> {
        let failed = |_| SignError("write the key");
        let der: Vec<u8> = match &self.pair {
            Pair::Ecdsa(pair) => pair.to_pkcs8v1().map_err(failed)?.as_ref().to_vec(),
            Pair::Ed25519(pair) => pair.to_pkcs8v1().map_err(failed)?.as_ref().to_vec(),
            Pair::Rsa(pair, _) => {
                let der: Pkcs8V1Der<'_> = pair.as_der().map_err(failed)?;
                der.as_ref().to_vec()
            }
        };
        Ok(pem::encode(&pem::Pem::new("PRIVATE KEY", der)))
    }

    /// A raw signature over these bytes.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        let failed = |_| SignError("sign");
        let random = SystemRandom::new();
        match &self.pair {
            Pair::Ecdsa(pair) => Ok(pair.sign(&random, message).map_err(failed)?.as_ref().to_vec()),
            Pair::Ed25519(pair) => Ok(pair.sign(message).as_ref().to_vec()),
            Pair::Rsa(pair, encoding) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(*encoding, &random, message, &mut signature).map_err(failed)?;
                Ok(signature)
            }
        }
    }

    /// A layer of a `.sig` manifest, as cosign 2.x writes it.
    pub fn cosign_sig(
        &self,
        image: &Digest,
        repository: &str,
        annotations: &BTreeMap<String, String>,
    ) -> Result<Material, SignError> {
        let optional = if annotations.is_empty() { serde_json::Value::Null } else { json!(annotations) };
        let payload = json!({
            "critical": {
                "identity": { "docker-reference": repository },
                "image": { "docker-manifest-digest": image.to_string() },
                "type": TYPE,
            },
            "optional": optional,
        });
        self.cosign_sig_of(payload.to_string().into_bytes())
    }

    /// A layer of a `.sig` manifest over any payload, for tests of what must not pass.
    pub fn cosign_sig_of(&self, payload: Vec<u8>) -> Result<Material, SignError> {
        let signature = STANDARD.encode(self.sign(&payload)?);
        Ok(Material::CosignSig {
            payload,
            annotations: [(SIGNATURE_ANNOTATION.to_owned(), signature)].into(),
        })
    }

    /// A bundle with a `cosign/sign/v1` statement, as cosign 3.x writes it.
    pub fn bundle(
        &self,
        image: &Digest,
        annotations: &BTreeMap<String, String>,
    ) -> Result<Material, SignError> {
        let mut subject = json!({ "digest": { image.algorithm().name(): image.hex() } });
        if !annotations.is_empty() {
            subject["annotations"] = json!(annotations);
        }
        self.bundle_of(&json!({
            "_type": STATEMENT_TYPES[0],
            "subject": [subject],
            "predicateType": SIGN_PREDICATE,
            "predicate": {},
        }))
    }

    /// A seal over the index of a bundle.
    pub fn seal(&self, index: &Digest) -> Result<Vec<u8>, SignError> {
        let sealed = self.bundle_of(&json!({
            "_type": STATEMENT_TYPES[0],
            "subject": [{ "digest": { index.algorithm().name(): index.hex() } }],
            "predicateType": SEAL_PREDICATE,
            "predicate": {},
        }))?;
        match sealed {
            Material::Bundle { json } => Ok(json),
            Material::CosignSig { .. } => Err(SignError("make a seal")),
        }
    }

    /// A bundle with any statement, for attestations and for tests of what must not pass.
    pub fn bundle_of(&self, statement: &serde_json::Value) -> Result<Material, SignError> {
        self.bundle_over(STATEMENT_MEDIA_TYPE, statement.to_string().as_bytes())
    }

    /// A bundle with any bytes in its envelope, for tests of what must not pass.
    pub fn bundle_over(&self, payload_type: &str, body: &[u8]) -> Result<Material, SignError> {
        let signature = self.sign(&pae(payload_type, body))?;
        let fingerprint = hex::decode(Digest::sha256_of(&self.spki).hex()).unwrap_or_default();
        let bundle = json!({
            "mediaType": BUNDLE_MEDIA_TYPE,
            "verificationMaterial": {
                "publicKey": { "hint": STANDARD.encode(fingerprint) },
                "tlogEntries": [],
                "timestampVerificationData": null,
            },
            "dsseEnvelope": {
                "payload": STANDARD.encode(body),
                "payloadType": payload_type,
                "signatures": [{ "sig": STANDARD.encode(signature), "keyid": "" }],
            },
        });
        Ok(Material::Bundle { json: bundle.to_string().into_bytes() })
    }
}
