//! rustls configurations, the provider always named.

use std::sync::{Arc, PoisonError, RwLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use crate::Identity;

/// Whom a client trusts and as whom it appears.
#[derive(Clone, Debug, Default)]
pub struct ClientTls {
    /// PEM texts, each with one or more CA certificates.
    pub ca_pem: Vec<String>,
    /// A client certificate chain with its key, as PEM.
    pub client_pem: Option<(String, String)>,
    /// Whether the server's certificate is not checked. Only what a node's own rules say.
    pub skip_verify: bool,
}

/// TLS material is unusable.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A PEM text has no certificate or key in it, or is none.
    #[error("{what}: {why}")]
    Pem {
        /// Which text.
        what: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// rustls does not take it.
    #[error("{0}")]
    Rustls(#[from] rustls::Error),
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn certificates(what: &'static str, pem: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let found = found.map_err(|error| TlsError::Pem { what, why: error.to_string() })?;
    if found.is_empty() {
        return Err(TlsError::Pem { what, why: "there is no certificate in it".to_owned() });
    }
    Ok(found)
}

fn private_key(what: &'static str, pem: &str) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(pem.as_bytes())
        .map_err(|error| TlsError::Pem { what, why: error.to_string() })
}

/// A client that trusts these CAs and nobody else.
#[expect(clippy::disallowed_methods, reason = "this is the place")]
pub fn client(tls: &ClientTls) -> Result<ClientConfig, TlsError> {
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    let mut roots = RootCertStore::empty();
    for pem in &tls.ca_pem {
        for certificate in certificates("CA", pem)? {
            roots.add(certificate)?;
        }
    }
    let builder = if tls.skip_verify {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(NoCheck(provider())))
    } else {
        builder.with_root_certificates(roots)
    };
    Ok(match &tls.client_pem {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => builder.with_client_auth_cert(
            certificates("client certificate", chain)?,
            private_key("client key", key)?,
        )?,
    })
}

/// A server with this identity, for HTTP/1.1.
pub fn server(identity: &Identity) -> Result<ServerConfig, TlsError> {
    let current = CurrentIdentity::new(identity)?;
    server_of(&Arc::new(current))
}

/// A server whose identity may be replaced while it serves, for HTTP/1.1.
#[expect(clippy::disallowed_methods, reason = "this is the place")]
pub fn server_of(identity: &Arc<CurrentIdentity>) -> Result<ServerConfig, TlsError> {
    let resolver = Arc::clone(identity) as Arc<dyn ResolvesServerCert>;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(resolver);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// The identity that new connections are served with.
#[derive(Debug)]
pub struct CurrentIdentity(RwLock<Arc<CertifiedKey>>);

impl CurrentIdentity {
    /// Begins with this one.
    pub fn new(identity: &Identity) -> Result<Self, TlsError> {
        Ok(Self(RwLock::new(certified(identity)?)))
    }

    /// Goes on with another one; the old one stays where that is unusable.
    pub fn replace(&self, identity: &Identity) -> Result<(), TlsError> {
        let key = certified(identity)?;
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = key;
        Ok(())
    }
}

impl ResolvesServerCert for CurrentIdentity {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

/// A chain with the key that belongs to it.
fn certified(identity: &Identity) -> Result<Arc<CertifiedKey>, TlsError> {
    let chain = certificates("certificate", &identity.chain_pem)?;
    let key = private_key("private key", &identity.key_pem)?;
    Ok(Arc::new(CertifiedKey::from_der(chain, key, &provider())?))
}

/// `skip_verify`: the handshake is checked, the certificate is not.
#[derive(Debug)]
struct NoCheck(Arc<CryptoProvider>);

impl ServerCertVerifier for NoCheck {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
