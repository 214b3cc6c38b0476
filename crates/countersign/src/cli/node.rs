//! `countersign node`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Output;

#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// Write what nodes need into a directory: for images of nodes, or to look at
    Render(NodeRender),
    /// Make this node what the Site says: mirror rules, the runtime's configuration, images
    Apply(NodeApply),
    /// Say what is old, obsolete, insecure or leads out of the site on this node
    Check(NodeCheck),
}

#[derive(Args, Debug)]
#[command(
    after_help = "The tree is for containerd 1.6 to 2.4. It is read back before it is said to be good: every host \
    leads to the Site's endpoints, and no other host leads anywhere."
)]
pub(crate) struct NodeRender {
    #[command(flatten)]
    pub(crate) rules: NodeRules,

    /// A bundle whose images name such hosts
    #[arg(long, value_name = "BUNDLE")]
    pub(crate) bundle: Option<PathBuf>,

    /// The directory to write the mirror rules to: what `config_path` names on the nodes, or what
    /// is copied there
    #[arg(long, value_name = "DIR")]
    pub(crate) to: PathBuf,

    /// Where the rules will be on the nodes, for the files below
    #[arg(long, value_name = "DIR", default_value = "/etc/containerd/certs.d")]
    pub(crate) certs_dir: String,

    /// Also write the configuration that containerd 2.x imports (`conf.d/90-countersign.toml`)
    #[arg(long, value_name = "FILE")]
    pub(crate) drop_in: Option<PathBuf>,

    /// Also write the `mirrors` tables of a containerd before 1.5, to be put into its config.toml
    #[arg(long, value_name = "FILE")]
    pub(crate) mirrors: Option<PathBuf>,
}

/// Which hosts rules are for.
#[derive(Args, Debug)]
pub(crate) struct NodeRules {
    /// The Site
    #[arg(long, value_name = "FILE")]
    pub(crate) site: PathBuf,

    /// An upstream host whose images nodes may name although no webhook sees them (static pods,
    /// the sandbox image), beside the Site's `nodes.hosts`: its rule leads to the Site's
    /// endpoints; may be given more than once
    #[arg(long, value_name = "HOST")]
    pub(crate) host: Vec<String>,
}

/// Where the node is.
#[derive(Args, Debug)]
pub(crate) struct NodePlace {
    /// Where the node's file system is, if it is not the one that this runs on
    #[arg(long, value_name = "DIR", default_value = "/", requires = "containerd_version")]
    pub(crate) root: PathBuf,

    /// containerd's configuration on the node
    #[arg(long, value_name = "FILE", default_value = countersign_mirrors::CONFIG_FILE)]
    pub(crate) config: String,

    /// Our own file that containerd 2.x imports
    #[arg(long, value_name = "FILE", default_value = countersign_mirrors::DROP_IN)]
    pub(crate) drop_in: String,

    /// The program that is asked for its release
    #[arg(long, value_name = "PROGRAM", default_value = "containerd")]
    pub(crate) containerd: PathBuf,

    /// The release of containerd, as `1.7.28`, instead of asking
    #[arg(long, value_name = "VERSION")]
    pub(crate) containerd_version: Option<countersign_mirrors::Release>,
}

#[derive(Args, Debug)]
#[command(
    after_help = "Shows each change as a diff and makes it: what was there is kept, each file is replaced at once, \
    and a second run changes nothing. With a bundle, the images of the Site's `nodes` are imported \
    and pinned, if a key of the Site or of `--key` has signed them. Exit codes: 0 the node is what \
    the Site says, 1 an image could not be imported, 2 wrong usage or configuration."
)]
pub(crate) struct NodeApply {
    #[command(flatten)]
    pub(crate) rules: NodeRules,

    #[command(flatten)]
    pub(crate) place: NodePlace,

    /// Where mirror rules are; the directory that `config_path` names already, else
    /// `/etc/containerd/certs.d`
    #[arg(long, value_name = "DIR")]
    pub(crate) certs_dir: Option<String>,

    /// Show the changes, and make none
    #[arg(long)]
    pub(crate) dry_run: bool,

    /// Where files are kept as they were, below a directory for each run
    #[arg(long, value_name = "DIR", default_value = "/var/lib/countersign/backup")]
    pub(crate) backup: PathBuf,

    /// The bundle from which the images of the Site's `nodes` are imported
    #[arg(long, value_name = "BUNDLE")]
    pub(crate) bundle: Option<PathBuf>,

    /// Public keys (PEM), one of which must have signed each image that is imported, beside the
    /// Site's
    #[arg(long, value_name = "FILE", requires = "bundle")]
    pub(crate) key: Vec<PathBuf>,

    /// containerd's client, which imports images
    #[arg(long, value_name = "PROGRAM", default_value = "ctr")]
    pub(crate) ctr: PathBuf,

    /// containerd's socket
    #[arg(long, value_name = "SOCKET")]
    pub(crate) address: Option<PathBuf>,
}

#[derive(Args, Debug)]
#[command(
    after_help = "Reads files and asks nobody. Exit codes: 0 nothing is wrong, 1 something is, 2 wrong usage, or \
    the files cannot be read."
)]
pub(crate) struct NodeCheck {
    /// The Site that says where rules have to lead and what is obsolete
    #[arg(long, value_name = "FILE")]
    pub(crate) site: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) place: NodePlace,

    /// How to print what was found
    #[arg(long, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
}
