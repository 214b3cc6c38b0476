//! CoreDNS's Corefile, edited without touching anybody else's byte, and the one edit that there
//! is: an override of one name, for the time of an install.
//!
//! ```text
//! .:53 { … }                                 the site's own, whatever it is
//! # BEGIN countersign dns override of registry.local
//! # owner install-7, until 2026-11-26T12:00:00Z; …
//! registry.local:53 { hosts { … } forward … } a block of our own: the longest match answers
//! # END countersign dns override of registry.local
//! ```
//!
//! A block of its own needs nothing of the site's: it cannot be the second `hosts` of a block, it
//! is found by its marks, and taking it out leaves the file as it was, byte for byte. Names
//! below the overridden one go on as before: `forward`, `bind` and the entries of `hosts` that
//! are for them are taken over from the block that answered until now.
//!
//! Source: CoreDNS 1.15 and its Caddyfile parser (`caddyfile/{lexer,parse}.go`, `plugin/hosts`).

mod lexer;
mod overrides;
mod tree;

pub use overrides::{Edit, EditError, Override, clear, expire, find, set};
pub use tree::{Corefile, Directive, Item, Server, SyntaxError};
