//! Image references and digests: parse, normalise, compare, rewrite.
//!
//! A policy that matches one spelling of a name while the runtime pulls another
//! is a hole, so every spelling goes through one parser, and names are mapped by
//! one function:
//!
//! ```text
//! "nginx"  ── Reference::parse ──►  docker.io / library/nginx : latest
//!                                        │ Rewriter::rewrite
//!                                        ▼
//!              registry.local / docker.io/library/nginx : latest
//!                                        │ Rewriter::origin
//!                                        ▼
//!                     docker.io / library/nginx : latest
//! ```
//!
//! * [`Reference`] follows the grammar of distribution/reference v0.6, which is
//!   the one that containerd's CRI uses. What that library and containerd parse
//!   differently is an error here.
//! * [`Digest`] is `sha256` or `sha512`, lower-case hexadecimal, of the right length.
//! * [`Rewriter`] is the only code that maps names. Domain and path are compared as
//!   parts, never as string prefixes: `registry.local.evil/x` is not in `registry.local`.
//! * [`kyverno`] reproduces how Kyverno splits an image for its `images` variable,
//!   which is not how anybody pulls it.
//!
//! Everything here is a pure function of its arguments.

mod digest;
pub mod kyverno;
mod parse;
mod rewrite;
mod wildcard;

pub use digest::{Algorithm, Digest, DigestError, Hasher};
pub use parse::{ParseError, Reference};
pub use rewrite::{RewriteError, Rewriter, RewriterError};
pub use wildcard::wildcard_match;
