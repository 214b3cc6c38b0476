//! `countersign test` and `countersign apply`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::Output;

#[derive(Args, Debug)]
#[command(
    after_help = "No cluster and no registry is asked: rules about signatures count as `skip`. Exit codes: 0 \
    every result is as expected, 1 one is not, 2 wrong usage, or a test that cannot be read."
)]
pub(crate) struct TestArguments {
    /// A directory with tests somewhere below it, or a test's own file
    #[arg(value_name = "DIR")]
    pub(crate) path: PathBuf,

    /// What files of tests are called
    #[arg(short, long, value_name = "NAME", default_value = "kyverno-test.yaml")]
    pub(crate) file_name: String,

    /// Only some results: `policy=…,rule=…,resource=…`, each with wildcards
    #[arg(short, long, value_name = "SELECTOR")]
    pub(crate) test_case_selector: Option<String>,

    /// Show only what failed
    #[arg(long)]
    pub(crate) fail_only: bool,

    /// That there is no test at all is a mistake
    #[arg(long)]
    pub(crate) require_tests: bool,

    /// The Site by which names are rewritten, and whose keys policies may name; without it names stay
    /// as they are
    #[arg(long, value_name = "FILE")]
    pub(crate) site: Option<PathBuf>,

    /// How to print results
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Say what would be refused or ignored, can never match, or lifts more than was meant
    Lint(LintArguments),
}

#[derive(Args, Debug)]
#[command(
    after_help = "No cluster is asked. Policies and exceptions are looked through together. Exit codes: 0 nothing is \
    wrong, or there are but warnings, 1 something is, 2 wrong usage or a file that cannot be read."
)]
pub(crate) struct LintArguments {
    /// Policies and exceptions: files, or directories of `*.yaml` and `*.yml`
    #[arg(value_name = "PATH", required = true)]
    pub(crate) paths: Vec<PathBuf>,

    /// The Site whose keys policies may name, and whose `exceptionNamespaces` exceptions count from;
    /// without it all that is named is taken to be there
    #[arg(long, value_name = "FILE")]
    pub(crate) site: Option<PathBuf>,

    /// Warnings count as errors
    #[arg(long)]
    pub(crate) strict: bool,

    /// How to print what was found
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
}

#[derive(Args, Debug)]
#[command(
    after_help = "No cluster and no registry is asked: rules about signatures say nothing. Changed objects go to \
    stdout as YAML. Exit codes: 0 no rule failed, 1 one failed or could not be evaluated, or whatever \
    `--warn-exit-code` says where there are but warnings, 2 wrong usage or a file that cannot be read."
)]
pub(crate) struct ApplyArguments {
    /// Policies: files, or directories of `*.yaml` and `*.yml`
    #[arg(value_name = "POLICY", required = true)]
    pub(crate) policies: Vec<PathBuf>,

    /// Objects: files, or directories of `*.yaml` and `*.yml`; may be given more than once
    #[arg(
        short,
        long = "resource",
        visible_alias = "resources",
        value_name = "RESOURCE",
        value_delimiter = ','
    )]
    pub(crate) resource: Vec<PathBuf>,

    /// Read objects from stdin, too
    #[arg(short = 'i', long)]
    pub(crate) stdin: bool,

    /// Values for names that policies use
    #[arg(short = 'f', long, value_name = "FILE")]
    pub(crate) values_file: Option<PathBuf>,

    /// A value for a name, for every policy; may be given more than once
    #[arg(short, long, value_name = "NAME=VALUE", value_delimiter = ',', value_parser = pair)]
    pub(crate) set: Vec<(String, String)>,

    /// Who makes the requests
    #[arg(short, long, value_name = "FILE")]
    pub(crate) userinfo: Option<PathBuf>,

    /// PolicyExceptions; may be given more than once
    #[arg(
        short,
        long = "exception",
        visible_alias = "exceptions",
        value_name = "FILE",
        value_delimiter = ','
    )]
    pub(crate) exception: Vec<PathBuf>,

    /// Print a policy report instead
    #[arg(short, long, conflicts_with = "table")]
    pub(crate) policy_report: bool,

    /// Print a table instead
    #[arg(short, long)]
    pub(crate) table: bool,

    /// In a table, what rules say as well
    #[arg(long, requires = "table")]
    pub(crate) detailed_results: bool,

    /// Failures of rules that do not enforce are warnings
    #[arg(long)]
    pub(crate) audit_warn: bool,

    /// The exit code where there are but warnings
    #[arg(long, value_name = "CODE", default_value_t = 0)]
    pub(crate) warn_exit_code: u8,

    /// That no rule passed is worth that exit code as well
    #[arg(long)]
    pub(crate) warn_no_pass: bool,

    /// Leave out files that cannot be read, with a warning
    #[arg(long)]
    pub(crate) continue_on_fail: bool,

    /// The form of changed objects and of the report
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Yaml)]
    pub(crate) output_format: Format,

    /// A file that changed objects are written to, and not stdout
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,

    /// The Site by which names are rewritten, and whose keys policies may name; without it names stay
    /// as they are
    #[arg(long, value_name = "FILE")]
    pub(crate) site: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// YAML documents
    Yaml,
    /// JSON documents
    Json,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| format!("`{text}` is not `name=value`"))?;
    Ok((name.to_owned(), value.to_owned()))
}
