//! What the load generators and the null handler share.
//!
//! ```text
//! load, cold, poisoned ──TLS, keep-alive──► countersign serve ──TLS──► a registry in their own process
//!   │   └────────────────TLS, keep-alive──► null       (the same accept loop; parses, admits)
//!   └─ fetch ──TLS, keep-alive──► the same registry    (what the verifier asked for, by a plain client)
//! ```

#[path = "../../e2e/src/black_hole.rs"]
pub mod black_hole;
pub mod client;
pub mod fetch;
pub mod pod_security;
pub mod post;
pub mod review;
pub mod server;
pub mod site;
pub mod statistics;
