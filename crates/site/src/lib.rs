//! The Site: where images live and whom to trust.
//!
//! One object, the same YAML in a cluster and in a file. [`Site::parse`] answers with a Site
//! whose every part is usable, or with every problem that it has, each with its path. What a
//! part refers to (a file, a Secret) is named by a [`Source`] and read by whoever does I/O.
//!
//! Nothing here has a default that grants trust: no key, no CA and no host comes from anywhere
//! but the text.

mod document;
mod duration;
mod model;
mod problem;
mod trust;
mod url;

pub use duration::{DurationError, parse_duration};
pub use model::{Endpoint, ExceptionMode, Mode, PinForm, Pinning, Registry, Rewrite, Site, Source};
pub use problem::{Problem, Problems};
pub use trust::{IdentityCheck, Key, Trust};
pub use url::{HostPort, RegistryUrl, Scheme, UrlError};
