//! The names of two images by which it is seen which registry a node asks first.
//!
//! Both are in a bundle, and [`HERE`] is not: the bootstrap registry serves [`BOOTSTRAP`] under it,
//! and the registry that a cluster is switched over to has [`CLUSTER`] under it.

/// The repository of both.
pub const REPOSITORY: &str = "countersign/canary";
/// The tag of the image that the bootstrap registry shows.
pub const BOOTSTRAP: &str = "bootstrap";
/// The tag of the image that the cluster's registry shows.
pub const CLUSTER: &str = "cluster";
/// The tag under which each shows its own.
pub const HERE: &str = "here";
