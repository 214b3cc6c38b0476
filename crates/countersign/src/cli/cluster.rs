//! What is done to a cluster by hand, or by a chart's hooks.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{Home, Output};

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
    /// Put the proofs of a bundle, or what was exported, into a cluster: before anything is installed there
    Import(EvidenceImport),
    /// Say which digests there is evidence of, and what of it does not count
    List(EvidenceList),
    /// Say all that is known of a digest, or of what a name and tag stood for
    Show(EvidenceShow),
    /// Write all evidence into a file
    Export(EvidenceExport),
}

/// Where evidence is.
#[derive(Args, Debug)]
pub(crate) struct EvidencePlace {
    #[command(flatten)]
    pub(crate) home: Home,

    /// A directory of `serve --evidence`, and no cluster
    #[arg(long, value_name = "DIR", conflicts_with_all = ["kubeconfig", "context"])]
    pub(crate) dir: Option<PathBuf>,
}

#[derive(Args, Debug)]
#[command(
    after_help = "Exit codes: 0 all of it counts, 1 something in it was not put there, 2 wrong usage or no permission, \
    3 the API server could not be reached."
)]
pub(crate) struct EvidenceList {
    #[command(flatten)]
    pub(crate) place: EvidencePlace,

    /// How to print it
    #[arg(long, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
}

#[derive(Args, Debug)]
#[command(
    after_help = "Exit codes: 0 there is evidence, 1 there is none, 2 wrong usage or no permission, 3 the API server could \
    not be reached."
)]
pub(crate) struct EvidenceShow {
    /// A digest, or an image by its name in the site's registry
    #[arg(value_name = "DIGEST|IMAGE")]
    pub(crate) what: String,

    #[command(flatten)]
    pub(crate) place: EvidencePlace,
}

#[derive(Args, Debug)]
#[command(
    after_help = "The file is a List of `ImageEvidence` objects. Its proofs count wherever they are imported; which tag \
    stands for which digest counts only where it was said. Exit codes: 0 done, 2 wrong usage or no permission, 3 the API \
    server could not be reached."
)]
pub(crate) struct EvidenceExport {
    /// The file
    #[arg(value_name = "FILE")]
    pub(crate) to: PathBuf,

    #[command(flatten)]
    pub(crate) place: EvidencePlace,
}

#[derive(Args, Debug)]
#[command(
    after_help = "The namespace is made where there is none. Proofs are judged again by the keys in force whenever they are used. Which name and tag stands for which \
    digest is taken only from a bundle that one of the Site's `trust.bundleKeys`, or `--bundle-key`, has sealed. \
    Exit codes: 0 done, 1 an image has no signature, the seal is not good, or a tag stands for another digest, 2 wrong usage or no \
    permission, 3 the API server could not be reached."
)]
pub(crate) struct EvidenceImport {
    /// The bundle: a directory or a tar file; or a file of `evidence export` (`.json`)
    #[arg(value_name = "BUNDLE|FILE")]
    pub(crate) bundle: PathBuf,

    #[command(flatten)]
    pub(crate) place: EvidencePlace,

    /// The Site: its names and its keys count; a bundle needs it
    #[arg(long, value_name = "FILE")]
    pub(crate) site: Option<PathBuf>,

    /// Public keys (PEM), one of which must have sealed the bundle; the Site's `trust.bundleKeys`
    /// where not given
    #[arg(long, value_name = "FILE")]
    pub(crate) bundle_key: Vec<PathBuf>,

    /// Take the bundle's word for a tag that stands for another digest in the cluster
    #[arg(long)]
    pub(crate) force: bool,
}
