//! What the load generator and the null handler share.
//!
//! ```text
//! load ──TLS, keep-alive──► countersign serve ──TLS──► a registry in load's own process
//!   └────TLS, keep-alive──► null              (the same accept loop; parses, admits)
//! ```

pub mod client;
pub mod review;
pub mod server;
pub mod statistics;
