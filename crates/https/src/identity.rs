//! Certificates made on the spot.

use jiff::Timestamp;
use rcgen::ExtendedKeyUsagePurpose::ServerAuth;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// A certificate authority of our own, for self-made serving certificates.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// A certificate chain and its private key, as PEM.
#[derive(Clone)]
pub struct Identity {
    /// Leaf first.
    pub chain_pem: String,
    /// PKCS #8.
    pub key_pem: String,
}

/// From when to when a certificate counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// The first second.
    pub from: Timestamp,
    /// The last second.
    pub until: Timestamp,
}

impl Validity {
    /// Of the first certificate of a PEM text.
    ///
    /// # Errors
    ///
    /// There is none in it.
    pub fn of(pem: &str) -> Result<Self, IdentityError> {
        let unread = |why: &str| IdentityError(format!("cannot be read: {why}"));
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|why| unread(&why.to_string()))?;
        let (_, certificate) = X509Certificate::from_der(&der).map_err(|error| unread(&error.to_string()))?;
        let time = |time: x509_parser::time::ASN1Time| {
            Timestamp::from_second(time.timestamp()).map_err(|error| unread(&error.to_string()))
        };
        let validity = certificate.validity();
        Ok(Self { from: time(validity.not_before)?, until: time(validity.not_after)? })
    }

    fn put(self, params: &mut CertificateParams) -> Result<(), IdentityError> {
        let time = |time: Timestamp| {
            OffsetDateTime::from_unix_timestamp(time.as_second())
                .map_err(|error| IdentityError(error.to_string()))
        };
        params.not_before = time(self.from)?;
        params.not_after = time(self.until)?;
        Ok(())
    }
}

/// A certificate could not be made or read.
#[derive(Debug, thiserror::Error)]
#[error("certificate: {0}")]
pub struct IdentityError(String);

impl From<rcgen::Error> for IdentityError {
    fn from(error: rcgen::Error) -> Self {
        Self(error.to_string())
    }
}

impl Authority {
    /// A new authority, which counts at all times: for what ends with the process.
    pub fn generate(common_name: &str) -> Result<Self, IdentityError> {
        Self::make(common_name, None)
    }

    /// A new authority for a time.
    pub fn generate_for(common_name: &str, validity: Validity) -> Result<Self, IdentityError> {
        Self::make(common_name, Some(validity))
    }

    fn make(common_name: &str, validity: Option<Validity>) -> Result<Self, IdentityError> {
        let mut params = CertificateParams::default();
        validity.map(|validity| validity.put(&mut params)).transpose()?;
        params.distinguished_name = named(common_name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate()?;
        let pem = params.self_signed(&key)?.pem();
        Ok(Self { issuer: Issuer::new(params, key), pem })
    }

    /// An authority that exists already: its certificate and private key, as PEM.
    pub fn from_pem(certificate_pem: &str, key_pem: &str) -> Result<Self, IdentityError> {
        let key = KeyPair::from_pem(key_pem)?;
        let issuer = Issuer::from_ca_cert_pem(certificate_pem, key)?;
        Ok(Self { issuer, pem: certificate_pem.to_owned() })
    }

    /// The authority's certificate: what clients are given as `ca` or `caBundle`.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// The authority's private key, PKCS #8.
    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// A serving certificate for these host names and addresses.
    pub fn issue(&self, names: &[&str]) -> Result<Identity, IdentityError> {
        self.sign(names, None)
    }

    /// The same for a time.
    pub fn issue_for(&self, names: &[&str], validity: Validity) -> Result<Identity, IdentityError> {
        self.sign(names, Some(validity))
    }

    fn sign(&self, names: &[&str], validity: Option<Validity>) -> Result<Identity, IdentityError> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names.clone())?;
        validity.map(|validity| validity.put(&mut params)).transpose()?;
        params.distinguished_name = named(names.first().map_or("countersign", String::as_str));
        params.extended_key_usages = vec![ServerAuth];
        let key = KeyPair::generate()?;
        let leaf = params.signed_by(&key, &self.issuer)?;
        Ok(Identity { chain_pem: format!("{}{}", leaf.pem(), self.pem), key_pem: key.serialize_pem() })
    }
}

fn named(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}
