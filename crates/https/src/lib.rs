//! TLS material and the accept loop that every server here shares.
//!
//! All TLS is configured in this crate, always with the provider named, so a change of
//! provider or of rustls' interface is a change of one file. There are no native roots:
//! whom a client trusts is written in the Site.

mod identity;
mod serve;
mod tls;

pub use identity::{Authority, Identity, IdentityError, Validity};
pub use rustls::Error as RustlsError;
pub use serve::{Body, ServeLimits, full, serve};
pub use tls::{ClientTls, CurrentIdentity, TlsError, client, server, server_of};
