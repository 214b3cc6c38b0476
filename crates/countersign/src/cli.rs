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
    /// Verify images where a node would pull them from, and say what was found
    Verify(VerifyArguments),
}

/// Exit codes: 0 every image is verified, 1 one is not, 2 wrong usage or configuration,
/// 3 no verdict because something could not be reached.
#[derive(Args, Debug)]
pub(crate) struct VerifyArguments {
    /// Images, as a pod would name them
    #[arg(required = true, value_name = "IMAGE")]
    pub(crate) images: Vec<String>,

    /// Public keys (PEM, one or more), any of which may have signed; may be given more than once
    #[arg(long, value_name = "FILE", required = true)]
    pub(crate) key: Vec<PathBuf>,

    /// The Site that says which endpoints serve which registry
    #[arg(long, value_name = "FILE", required_unless_present = "hosts_dir")]
    pub(crate) site: Option<PathBuf>,

    /// A containerd `certs.d` tree to read the mirror rules from, as a node does
    #[arg(long, value_name = "DIR", conflicts_with = "site")]
    pub(crate) hosts_dir: Option<PathBuf>,

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
