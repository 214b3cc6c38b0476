//! What is done to a cluster by hand, or by a chart's hooks.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Home;

#[derive(Debug, Subcommand)]
pub(crate) enum WebhookCommand {
    /// Take the webhook configurations away, and keep them away: nothing is verified from then on
    Remove(WebhookPlace),
    /// Let a removed installation register them again
    Restore(WebhookPlace),
}

#[derive(Args, Debug)]
#[command(
    after_help = "It needs no pod of the program: whoever may write webhook configurations can say it from anywhere. \
    Exit codes: 0 done, 1 whoever leads has not acknowledged it in time, or somebody puts them back, \
    2 wrong usage or no permission, 3 the API server could not be reached."
)]
pub(crate) struct WebhookPlace {
    #[command(flatten)]
    pub(crate) home: Home,

    /// Its Deployment
    #[arg(long, value_name = "NAME", default_value = "countersign")]
    pub(crate) deployment: String,

    /// Seconds after which it is given up
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub(crate) timeout: u64,
}

#[derive(Debug, Subcommand)]
pub(crate) enum EvidenceCommand {
    /// Put the proofs of a bundle into a cluster, before anything is installed there
    Import(EvidenceImport),
}

#[derive(Args, Debug)]
#[command(
    after_help = "The namespace is made where there is none. Proofs are judged again by the keys in force whenever they are used. Which name and tag stands for which \
    digest is taken only from a bundle that one of the Site's `trust.bundleKeys`, or `--bundle-key`, has sealed. \
    Exit codes: 0 done, 1 an image has no signature, the seal is not good, or a tag stands for another digest, 2 wrong usage or no \
    permission, 3 the API server could not be reached."
)]
pub(crate) struct EvidenceImport {
    /// The bundle: a directory or a tar file
    #[arg(value_name = "BUNDLE")]
    pub(crate) bundle: PathBuf,

    #[command(flatten)]
    pub(crate) home: Home,

    /// The Site: its names and its keys count
    #[arg(long, value_name = "FILE")]
    pub(crate) site: PathBuf,

    /// Public keys (PEM), one of which must have sealed the bundle; the Site's `trust.bundleKeys`
    /// where not given
    #[arg(long, value_name = "FILE")]
    pub(crate) bundle_key: Vec<PathBuf>,

    /// Take the bundle's word for a tag that stands for another digest in the cluster
    #[arg(long)]
    pub(crate) force: bool,
}
