//! A node's files: mirror rules, the runtime's configuration, the images that it has to hold.
//!
//! ```text
//! Site ──► Plan: each file as it is and as it has to be ──► diff ──► apply (backup, then each file at once)
//! Site, bundle ──► images that must be there before any registry is, imported and pinned
//! node ──► check: what is old, obsolete, insecure, or leads pulls out of the site
//! ```
//!
//! Nothing is written that was not read back from the plan and found to mean what the Site says;
//! what has the right content is not written again, so a second run changes nothing. A runtime
//! that reads in between, or a run that is killed, finds each step done or not done: a directory
//! of rules comes and goes with all that is in it, for one without its rules leads to the upstream.

mod apply;
mod check;
mod files;
mod images;
mod plan;

pub use apply::{apply, write, write_tree};
pub use check::check;
pub use files::{Paths, tree};
pub use images::{Ctr, ImageError, Imported, import};
pub use plan::{Change, Plan, Step, holds, plan};

use countersign_mirrors::{ConfigError, RenderError};

/// Why a node's files cannot be read, or cannot be what they should be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// The disk says no.
    #[error("{path}: {error}")]
    Io {
        /// Which file.
        path: String,
        /// What went wrong.
        error: std::io::Error,
    },
    /// The runtime's configuration cannot be read or changed.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A host that rules cannot be written for.
    #[error(transparent)]
    Render(#[from] RenderError),
    /// A file that is not what it should be.
    #[error("{path}: {why}")]
    Malformed {
        /// Which file.
        path: String,
        /// What is wrong, and the cure.
        why: String,
    },
}

#[cfg(test)]
mod tests;
