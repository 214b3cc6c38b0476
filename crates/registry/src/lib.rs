//! The OCI client and the one connector.
//!
//! An [`Endpoint`] is one registry server as a Site or a node's rules name it: what is read from
//! it and written to it goes over connections that one connector opens, and it opens none to a
//! host that is not named: the endpoint itself and its `allowHosts`, where a redirect, an upload
//! or a token realm may point. Passwords and what they buy go to the endpoint and to token
//! services named for it, never to where a redirect or an upload points.
//!
//! * The digest of what is received is computed here, over the bytes received; a digest in a
//!   header is a claim and is not used.
//! * Absent, denied, unreachable and malformed are different [`Error`]s. Only a 404 is absent.
//! * Every body, list and wait has a limit with a name ([`Limits`]).
//! * What one image may cost is bounded over all endpoints ([`Budget`]), and how many requests are
//!   under way, for each endpoint and for all.
//! * An endpoint that cannot be dialled is held off until it answers a probe; a bad answer for one
//!   path never holds off the endpoint.
//!
//! Source: OCI distribution-spec 1.1.

mod body;
mod budget;
mod connect;
mod credentials;
mod endpoint;
mod error;
mod exchange;
mod health;
mod limits;
mod list;
mod push;
mod reach;
mod token;

pub use budget::Budget;
pub use credentials::{Credentials, CredentialsError, DockerConfig};
pub use endpoint::{BlobPieces, Endpoint, EndpointSettings, Manifest, Places, Referrers};
pub use error::{Class, Error};
pub use health::Health;
pub use limits::{Limits, Timing};
pub use push::{Payload, Subject};
pub use token::Challenge;
