//! The steps of an air-gapped install that change where a cluster's images come from.
//!
//! ```text
//! switch-over       gate: the registry has everything ─► Site: it comes first ─► nodes ─► a canary on each
//! retire-bootstrap  gate: no node asks it first any more ─► Site: it is gone ─► nodes ─► who still names it
//! ```
//!
//! Nothing here turns verification off: the Site has every endpoint at every moment, and only
//! their order changes.
//!
//! * [`SiteObject`]: the Site of a cluster with all that it names, and its next version.
//! * [`mark`], [`marked`], [`Canaries`]: which registry a node asks first, seen by the digest that it pulls.

mod canary;
mod site;

pub use canary::{Canaries, CanaryError, Node, Role, Seen, mark, marked};
pub use site::{SiteError, SiteObject};
