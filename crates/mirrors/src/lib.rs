//! Mirror rules: what would this runtime ask, in which order?
//!
//! The verifier looks where the node will pull from, so both read the same rules: rendered
//! from the Site ([`render`]), or found on a node ([`Tree::plan`]). Either way the answer is a
//! [`Plan`], and a property test holds that the tree rendered from a Site reads back to the
//! Site's own plan.
//!
//! containerd is lenient where a mistake sends pulls to the Internet. Here the same mistake is
//! a [`TreeError`] or a [`Finding`]:
//!
//! | on a node | containerd | here |
//! |---|---|---|
//! | `hosts.toml` that does not decode | logs, then asks the upstream | error |
//! | `config_path` with a colon list | one code path ignores every rule | error (whoever reads it) |
//! | a host as dotted key or inline table | never asked | finding |
//! | no `server` | the upstream is asked last | finding, and never dialled |
//! | an empty directory | hides `_default`, the upstream is asked | finding, and never dialled |
//! | `server` without a `host` table | not decodable before 2.0 | finding |
//! | capability `referrers` | not decodable before 2.2 | finding |
//!
//! A node's own configuration decides whether any of it is read: [`RuntimeConfig`].
//!
//! Sources: containerd `core/remotes/docker/config/{hosts,config_unix}.go` and `docs/hosts.md`,
//! releases 1.6 to 2.4.

mod check;
mod dialect;
mod plan;
mod release;
mod render;
mod runtime;
mod tree;

pub use check::NOBODY;
pub use plan::{Finding, Mirror, Plan, Severity, of_site};
pub use release::{Release, ReleaseError};
pub use render::{RenderError, legacy, render};
pub use runtime::{
    CONFIG_FILE, ConfigError, ConfigFile, DROP_IN, RuntimeConfig, Settings, Verifiers, drop_in, imports,
};
pub use tree::{DEFAULT_DIRECTORY, Directory, HOSTS_FILE, SINK, Tree, TreeError};
