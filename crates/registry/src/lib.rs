//! The OCI client and the one connector.
//!
//! An [`Endpoint`] is one registry server as a Site or a node's rules name it. It answers four
//! requests (manifest, blob, referrers, and the token that they may need) over connections
//! that one connector opens, and it opens none to a host that is not named: the endpoint
//! itself and its `allowHosts`, where a redirect or a token realm may point.
//!
//! * The digest of what is received is computed here, over the bytes received; a digest in a
//!   header is a claim and is not used.
//! * Absent, denied, unreachable and malformed are different [`Error`]s. Only a 404 is absent.
//! * Every body, list and wait has a limit with a name ([`Limits`]).
//! * An endpoint that cannot be dialled is held off for a moment; a bad answer for one path
//!   never holds off the endpoint.
//!
//! Source: OCI distribution-spec 1.1.

mod connect;
mod credentials;
mod endpoint;
mod error;
mod exchange;
mod push;
mod token;

pub use credentials::{Credentials, CredentialsError, DockerConfig};
pub use endpoint::{BlobPieces, Endpoint, EndpointSettings, Manifest, Referrers};
pub use error::{Class, Error};
pub use exchange::{Limits, Timing};
pub use push::{Payload, Subject};
