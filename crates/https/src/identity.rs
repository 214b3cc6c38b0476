//! Certificates made on the spot.

use rcgen::ExtendedKeyUsagePurpose::ServerAuth;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};

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

/// A certificate could not be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot make a certificate: {0}")]
pub struct IdentityError(#[from] rcgen::Error);

impl Authority {
    /// A new authority.
    pub fn generate(common_name: &str) -> Result<Self, IdentityError> {
        let mut params = CertificateParams::default();
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

    /// A serving certificate for these host names and addresses.
    pub fn issue(&self, names: &[&str]) -> Result<Identity, IdentityError> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names.clone())?;
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
