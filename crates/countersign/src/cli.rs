//! Every command and option there is: help and reference come from here.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Only images that somebody trusted has signed.
#[derive(Debug, Parser)]
#[command(name = "countersign", version, max_term_width = 100)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// See it work: everything on this machine, nothing installed, nothing but loopback
    Demo,
    /// Verify images where a node would pull them from, and say what was found
    Verify(VerifyArguments),
    /// Serve the admission webhooks
    Serve(ServeArguments),
}

/// The decision log goes to stdout, one JSON line for each verdict.
#[derive(Args, Debug)]
pub(crate) struct ServeArguments {
    /// Read Site and policies from files instead of a cluster; the one way there is so far
    #[arg(long, required = true)]
    pub(crate) standalone: bool,

    /// The Site
    #[arg(long, value_name = "FILE")]
    pub(crate) site: PathBuf,

    /// A directory of policies (`*.yaml`)
    #[arg(long, value_name = "DIR")]
    pub(crate) policies: PathBuf,

    /// Where proofs are kept, so that they outlive a restart; in memory where not given
    #[arg(long, value_name = "DIR")]
    pub(crate) evidence: Option<PathBuf>,

    /// Where to listen
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8443")]
    pub(crate) listen: std::net::SocketAddr,

    /// The serving certificate (PEM); one is made where none is given
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub(crate) tls_cert: Option<PathBuf>,

    /// Its private key (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,

    /// Where to write the CA of a certificate that is made: the webhook's `caBundle`
    #[arg(long, value_name = "FILE", conflicts_with = "tls_cert")]
    pub(crate) ca_out: Option<PathBuf>,
}

/// Exit codes: 0 every image is verified, 1 one is not, 2 wrong usage or configuration,
/// 3 no verdict because something could not be reached.
#[derive(Args, Debug)]
pub(crate) struct VerifyArguments {
    /// Images, as a pod would name them
    #[arg(required = true, value_name = "IMAGE")]
    pub(crate) images: Vec<String>,

    /// Public keys (PEM, one or more), any of which may have signed; may be given more than once
    #[arg(long, value_name = "FILE", required_unless_present = "policy")]
    pub(crate) key: Vec<PathBuf>,

    /// Policies that say who must have signed what, as for a new pod; may be given more than once
    #[arg(long, value_name = "FILE", conflicts_with = "key", requires = "site")]
    pub(crate) policy: Vec<PathBuf>,

    /// The Site that says which endpoints serve which registry, and how names are rewritten
    #[arg(long, value_name = "FILE", required_unless_present = "hosts_dir")]
    pub(crate) site: Option<PathBuf>,

    /// A containerd `certs.d` tree to read the mirror rules from, as a node does; they take the
    /// place of the Site's endpoints
    #[arg(long, value_name = "DIR")]
    pub(crate) hosts_dir: Option<PathBuf>,

    /// The namespace of the pod that policies are asked about
    #[arg(long, value_name = "NAME", default_value = "default", requires = "policy")]
    pub(crate) namespace: String,

    /// Show every check
    #[arg(long)]
    pub(crate) explain: bool,

    /// Seconds after which there is no verdict
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    pub(crate) timeout: u64,

    /// How to print verdicts
    #[arg(long, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people
    Table,
    /// One JSON array
    Json,
}

/// What the exit code says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Exit {
    /// All is well.
    Good,
    /// Something could not be reached: no verdict.
    Unreachable,
    /// A negative verdict.
    Negative,
    /// Wrong usage or configuration.
    Usage,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Good => 0,
            Exit::Negative => 1,
            Exit::Usage => 2,
            Exit::Unreachable => 3,
        })
    }
}
