//! `countersign install`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{CoreDns, Home};

#[derive(Debug, Subcommand)]
pub(crate) enum InstallCommand {
    /// Ask another endpoint first from now on, once it is proven to have everything
    SwitchOver(SwitchOver),
    /// Take the bootstrap machine's endpoint out, and say who still names it
    RetireBootstrap(RetireBootstrap),
}

/// Which cluster, and how its nodes get their files.
#[derive(Args, Debug)]
pub(crate) struct InstallPlace {
    #[command(flatten)]
    pub(crate) home: Home,

    #[command(flatten)]
    pub(crate) coredns: CoreDns,

    /// Run for each node, by `sh`: `$NODE` is its name, and the Site is on stdin, with every CA in it, as in
    /// `ssh "$NODE" countersign node apply --site /dev/stdin`
    #[arg(long, value_name = "COMMAND")]
    pub(crate) node_command: Option<String>,

    /// Write the Site for nodes to this file, for whoever brings it to them
    #[arg(long, value_name = "FILE")]
    pub(crate) node_site: Option<PathBuf>,

    /// Seconds after which nodes that still pull elsewhere are named, and after which the command for a
    /// node is given up
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    pub(crate) timeout: u64,
}

#[derive(Args, Debug)]
#[command(
    after_help = "Verification is on throughout, and running it again goes on where it stopped. Nothing is asked but the \
    endpoint and the API server. Exit codes: 0 every node asks the endpoint first, 1 something is \
    missing there or a node asks elsewhere, 2 wrong usage or configuration, 3 something could not be \
    reached."
)]
pub(crate) struct SwitchOver {
    #[command(flatten)]
    pub(crate) place: InstallPlace,

    /// The bundles whose images have to be there, with every signature; may be given more than once
    #[arg(long, value_name = "BUNDLE", required = true)]
    pub(crate) bundle: Vec<PathBuf>,

    /// The endpoint of the Site that is asked first from now on
    #[arg(long, value_name = "NAME", default_value = "cluster", conflicts_with = "rollback")]
    pub(crate) to: String,

    /// Back to this endpoint: the same steps in the other direction
    #[arg(long, value_name = "NAME", num_args = 0..=1, default_missing_value = "bootstrap")]
    pub(crate) rollback: Option<String>,

    /// Users and passwords for the endpoint, as a Docker `config.json`
    #[arg(long, value_name = "FILE")]
    pub(crate) credentials: Option<PathBuf>,

    /// Read every byte of every layer back, not only its length
    #[arg(long)]
    pub(crate) deep: bool,
}

#[derive(Args, Debug)]
#[command(
    after_help = "It is refused while a node asks the endpoint first; once the endpoint is switched off that cannot be seen, \
    and --node-reports says it. Exit codes: 0 the Site names it no more, and no report does, 1 a node does, or \
    has not said, or there is no such endpoint, 2 wrong usage or configuration, 3 something could not be \
    reached."
)]
pub(crate) struct RetireBootstrap {
    #[command(flatten)]
    pub(crate) place: InstallPlace,

    /// The endpoint that goes
    #[arg(long, value_name = "NAME", default_value = "bootstrap")]
    pub(crate) endpoint: String,

    /// What nodes say of themselves: a file `NODE.json` for each, by `countersign node check --output json`
    /// with the Site for nodes
    #[arg(long, value_name = "DIR")]
    pub(crate) node_reports: Option<PathBuf>,
}
