//! Every command and option there is: help and reference come from here.

mod cluster;
mod dns;
mod install;
mod node;
mod trial;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use countersign_cluster::Place;

pub(crate) use cluster::{
    EvidenceCommand, EvidenceExport, EvidenceImport, EvidenceList, EvidencePlace, EvidenceShow,
    WebhookCommand, WebhookPlace,
};
pub(crate) use dns::{DnsClear, DnsCommand, DnsOverride, DnsPlace, DnsSet, DnsStatus};
pub(crate) use install::{InstallCommand, InstallPlace, RetireBootstrap, SwitchOver};
pub(crate) use node::{NodeApply, NodeCheck, NodeCommand, NodePlace, NodeRender, NodeRules};
pub(crate) use trial::{ApplyArguments, Format, LintArguments, PolicyCommand, TestArguments};

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
    /// Hold policies against objects whose results are written down, as `kyverno test` does
    Test(TestArguments),
    /// Say what policies make of objects, as `kyverno apply` does
    Apply(ApplyArguments),
    /// Policies, before anybody applies them
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Serve the admission webhooks
    Serve(ServeArguments),
    /// Put images and their signatures into one file or directory that crosses the gap
    #[command(subcommand)]
    Bundle(BundleCommand),
    /// Fill a registry from a bundle, and prove that it is full
    #[command(subcommand)]
    Mirror(MirrorCommand),
    /// The bootstrap registry
    #[command(subcommand)]
    Registry(RegistryCommand),
    /// What nodes have to know
    #[command(subcommand)]
    Node(NodeCommand),
    /// The cluster's DNS
    #[command(subcommand)]
    Dns(DnsCommand),
    /// The kinds of objects that a cluster has to know
    #[command(subcommand)]
    Crds(CrdsCommand),
    /// The webhook configurations
    #[command(subcommand)]
    Webhook(WebhookCommand),
    /// Proofs that outlive outages
    #[command(subcommand)]
    Evidence(EvidenceCommand),
    /// The steps of an install that change where images come from
    #[command(subcommand)]
    Install(InstallCommand),
}

/// Which cluster.
#[derive(Args, Debug)]
pub(crate) struct Cluster {
    /// The kubeconfig file; as `kubectl` finds it where not given
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,

    /// The context of the kubeconfig
    #[arg(long, value_name = "NAME")]
    pub(crate) context: Option<String>,
}

/// Which cluster, and where the program is in it.
#[derive(Args, Debug)]
pub(crate) struct Home {
    #[command(flatten)]
    pub(crate) cluster: Cluster,

    /// The program's own namespace
    #[arg(long, value_name = "NAME", default_value = "countersign")]
    pub(crate) namespace: String,
}

/// Where CoreDNS keeps its Corefile, for commands that do more than that.
#[derive(Args, Debug)]
pub(crate) struct CoreDns {
    /// The namespace of CoreDNS's ConfigMap, from which overrides are taken out
    #[arg(long, value_name = "NAME", default_value = "kube-system")]
    coredns_namespace: String,

    /// The name of that ConfigMap
    #[arg(long, value_name = "NAME", default_value = "coredns")]
    coredns_config_map: String,
}

impl CoreDns {
    pub(crate) fn place(&self) -> Place {
        let (namespace, config_map) = (self.coredns_namespace.clone(), self.coredns_config_map.clone());
        Place { namespace, config_map, ..Place::default() }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum CrdsCommand {
    /// Make a cluster know Sites and policies, or bring what it knows up to date
    Apply(CrdsApply),
}

#[derive(Args, Debug)]
#[command(
    after_help = "No version in which objects may be stored is taken away. A kind of Kyverno's that somebody else has \
    brought is left as it is. Exit codes: 0 the cluster serves all of them, 1 one is not served in time, \
    2 wrong usage or no permission, 3 the API server could not be reached."
)]
pub(crate) struct CrdsApply {
    #[command(flatten)]
    pub(crate) cluster: Cluster,

    /// Take over Kyverno's kinds from whoever has brought them
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum MirrorCommand {
    /// Push what is not there yet, then read everything back
    Push(MirrorArguments),
    /// Read everything back, and name each image, platform or signature that is missing
    Check(MirrorArguments),
}

#[derive(Args, Debug)]
#[command(
    after_help = "Nothing but the endpoint is asked. Exit codes: 0 everything is there, 1 something is missing or \
    was not taken, 2 wrong usage or configuration, 3 the endpoint could not be reached."
)]
pub(crate) struct MirrorArguments {
    /// The bundle: a directory or a tar file
    #[arg(value_name = "BUNDLE")]
    pub(crate) bundle: PathBuf,

    /// The registry, found by name resolution: where nodes' rules or DNS lead a name elsewhere, give
    /// `--site` and `--endpoint`
    #[arg(long, value_name = "URL", required_unless_present = "site", conflicts_with = "site")]
    pub(crate) to: Option<String>,

    /// CA certificates (PEM) that its certificate is checked with
    #[arg(long, value_name = "FILE", requires = "to")]
    pub(crate) ca: Vec<PathBuf>,

    /// A host that the registry may send us to, for layers and tokens
    #[arg(long, value_name = "HOST", requires = "to")]
    pub(crate) allow_host: Vec<String>,

    /// The Site, one of whose endpoints it is: dialled at its addresses and nowhere else
    #[arg(long, value_name = "FILE", requires = "endpoint")]
    pub(crate) site: Option<PathBuf>,

    /// The name of that endpoint
    #[arg(long, value_name = "NAME", requires = "site")]
    pub(crate) endpoint: Option<String>,

    /// Users and passwords, as a Docker `config.json`
    #[arg(long, value_name = "FILE")]
    pub(crate) credentials: Option<PathBuf>,

    /// Read every byte of every layer back, not only its length
    #[arg(long)]
    pub(crate) deep: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BundleCommand {
    /// Collect images, all their platforms and everything that belongs to them
    Create(BundleCreate),
    /// Check every byte and every signature, without a registry
    Verify(BundleVerify),
    /// Say what is in a bundle
    List(BundleList),
}

#[derive(Args, Debug)]
#[command(
    after_help = "Goes on where an earlier run was interrupted. Exit codes: 0 complete, 1 an image is not there, \
    is not given to us or has no signature by the keys given, 2 wrong usage or configuration, 3 \
    something could not be reached."
)]
pub(crate) struct BundleCreate {
    /// Images, by the names that pods give them
    #[arg(value_name = "IMAGE", required_unless_present = "images")]
    pub(crate) image: Vec<String>,

    /// A file with an image on each line; `#` begins a comment
    #[arg(long, value_name = "FILE")]
    pub(crate) images: Option<PathBuf>,

    /// The bundle: a directory, or a file that ends in `.tar`
    #[arg(long, value_name = "PATH")]
    pub(crate) to: PathBuf,

    /// A registry that may be asked, as `HOST` or `HOST=URL`; may be given more than once
    #[arg(long, value_name = "HOST[=URL]", required = true)]
    pub(crate) registry: Vec<String>,

    /// CA certificates (PEM) that the registries' are checked with
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Vec<PathBuf>,

    /// A host that the registries may send us to, for layers and tokens
    #[arg(long, value_name = "HOST")]
    pub(crate) allow_host: Vec<String>,

    /// Users and passwords, as a Docker `config.json`
    #[arg(long, value_name = "FILE")]
    pub(crate) credentials: Option<PathBuf>,

    /// For which platforms, as `linux/amd64`; all where not given
    #[arg(long, value_name = "PLATFORM")]
    pub(crate) platform: Vec<countersign_manifest::Platform>,

    /// The private key (PKCS #8, PEM) that seals the bundle
    #[arg(long, value_name = "FILE")]
    pub(crate) sign_key: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) trust: BundleTrust,
}

#[derive(Args, Debug)]
#[command(
    after_help = "Exit codes: 0 all is well, 1 something is damaged, missing or not signed by the keys given, 2 \
    wrong usage or configuration."
)]
pub(crate) struct BundleVerify {
    /// The bundle: a directory or a tar file
    #[arg(value_name = "BUNDLE")]
    pub(crate) bundle: PathBuf,

    /// Public keys (PEM), one of which must have sealed the bundle
    #[arg(long, value_name = "FILE")]
    pub(crate) bundle_key: Vec<PathBuf>,

    #[command(flatten)]
    pub(crate) trust: BundleTrust,

    /// How to print what was found
    #[arg(long, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
}

#[derive(Args, Debug)]
pub(crate) struct BundleList {
    /// The bundle: a directory or a tar file
    #[arg(value_name = "BUNDLE")]
    pub(crate) bundle: PathBuf,

    /// How to print it
    #[arg(long, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
}

/// Whom images have to be signed by, and how they are named at the site.
#[derive(Args, Debug)]
pub(crate) struct BundleTrust {
    /// Public keys (PEM), one of which must have signed each image
    #[arg(long, value_name = "FILE")]
    pub(crate) key: Vec<PathBuf>,

    /// The Site: its names count, its `trust.bundleKeys` for the seal, and its other `trust.keys`
    /// for images
    #[arg(long, value_name = "FILE")]
    pub(crate) site: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RegistryCommand {
    /// Serve a bundle as a registry, read-only
    Serve(RegistryServe),
}

#[derive(Args, Debug)]
#[command(after_help = "A directory that is served may be added to. http is for loopback alone.")]
pub(crate) struct RegistryServe {
    /// The bundle: a directory or a tar file
    #[arg(value_name = "BUNDLE")]
    pub(crate) bundle: PathBuf,

    /// Where to listen
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:5000")]
    pub(crate) listen: std::net::SocketAddr,

    /// A name or address that clients use, for the certificate that is made: the machine's own
    /// and the logical one, as `pit.nmn` and `registry.local`; may be given more than once
    #[arg(long, value_name = "NAME", conflicts_with = "tls_cert")]
    pub(crate) name: Vec<String>,

    /// The CA (PEM) that the certificate is made with: for what outlives a run; one that ends with
    /// it is made where none is given
    #[arg(long, value_name = "FILE", requires = "ca_key", conflicts_with = "tls_cert")]
    pub(crate) ca_cert: Option<PathBuf>,

    /// Its private key (PEM)
    #[arg(long, value_name = "FILE", requires = "ca_cert")]
    pub(crate) ca_key: Option<PathBuf>,

    /// Where to write the CA that is made: what clients check the certificate with
    #[arg(long, value_name = "FILE", conflicts_with_all = ["ca_cert", "tls_cert"])]
    pub(crate) ca_out: Option<PathBuf>,

    /// A serving certificate (PEM) instead of one that is made
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub(crate) tls_cert: Option<PathBuf>,

    /// Its private key (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,

    /// Without TLS; on loopback only
    #[arg(long, conflicts_with_all = ["name", "ca_cert", "ca_out", "tls_cert"])]
    pub(crate) http: bool,
}

/// What a replica in a cluster is part of.
#[derive(Args, Debug)]
pub(crate) struct Replica {
    /// The program's own namespace, with the Secrets and ConfigMaps that the Site names
    #[arg(long, value_name = "NAME", default_value = "countersign", conflicts_with = "standalone")]
    pub(crate) namespace: String,

    /// The Deployment that it is part of: without it no webhook is registered
    #[arg(long, value_name = "NAME", default_value = "countersign", conflicts_with = "standalone")]
    pub(crate) deployment: String,

    /// The Service by which the API server finds the webhooks
    #[arg(long, value_name = "NAME", default_value = "countersign", conflicts_with = "standalone")]
    pub(crate) service: String,

    /// Its port
    #[arg(long, value_name = "PORT", default_value_t = 443, conflicts_with = "standalone")]
    pub(crate) service_port: u16,

    #[command(flatten)]
    pub(crate) coredns: CoreDns,

    /// Where the API server finds the webhooks of a program outside the cluster, in place of a Service
    #[arg(long, value_name = "URL", conflicts_with = "standalone")]
    pub(crate) webhook_url: Option<String>,
}

#[derive(Args, Debug)]
#[command(after_help = "The decision log goes to stdout, one JSON line for each verdict.")]
pub(crate) struct ServeArguments {
    /// Read Site and policies from files, and not from a cluster
    #[arg(long, requires_all = ["site", "policies"], conflicts_with_all = [
        "kubeconfig", "context", "coredns_namespace", "coredns_config_map",
    ])]
    pub(crate) standalone: bool,

    /// The Site
    #[arg(long, value_name = "FILE", requires = "standalone")]
    pub(crate) site: Option<PathBuf>,

    /// A directory of policies (`*.yaml`, `*.yml`)
    #[arg(long, value_name = "DIR", requires = "standalone")]
    pub(crate) policies: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) cluster: Cluster,

    #[command(flatten)]
    pub(crate) replica: Replica,

    /// Where proofs are kept, so that they outlive a restart; in memory where not given. In a cluster
    /// they are kept there
    #[arg(long, value_name = "DIR", requires = "standalone")]
    pub(crate) evidence: Option<PathBuf>,

    /// Where to listen
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8443")]
    pub(crate) listen: std::net::SocketAddr,

    /// A name or address that the API server uses, for the certificate that is made; may be
    /// given more than once
    #[arg(long, value_name = "NAME", requires = "standalone", conflicts_with = "tls_cert")]
    pub(crate) name: Vec<String>,

    /// The serving certificate (PEM); one is made where none is given. In a cluster it is made and kept there
    #[arg(long, value_name = "FILE", requires_all = ["standalone", "tls_key"])]
    pub(crate) tls_cert: Option<PathBuf>,

    /// Its private key (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,

    /// Where to write the CA of a certificate that is made: the webhook's `caBundle`
    #[arg(long, value_name = "FILE", requires = "standalone", conflicts_with = "tls_cert")]
    pub(crate) ca_out: Option<PathBuf>,
}

#[derive(Args, Debug)]
#[command(
    after_help = "Exit codes: 0 every image is verified, 1 one is not, 2 wrong usage or configuration, 3 no \
    verdict because something could not be reached."
)]
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
    /// Nothing but warnings: whoever called has said which code that is.
    Warned(u8),
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
            Exit::Warned(code) => code,
            Exit::Negative => 1,
            Exit::Usage => 2,
            Exit::Unreachable => 3,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    /// Every command that decides something says in its help what its exit codes mean.
    #[test]
    fn exit_codes_are_told() {
        fn leaves(command: &clap::Command, path: &str, found: &mut Vec<(String, bool)>) {
            let path = format!("{path} {}", command.get_name());
            if command.get_subcommands().next().is_none() {
                let told =
                    command.get_after_help().is_some_and(|help| help.to_string().contains("Exit codes: 0"));
                found.push((path.clone(), told));
            }
            command.get_subcommands().for_each(|inner| leaves(inner, &path, found));
        }
        let mut found = Vec::new();
        leaves(&Arguments::command(), "", &mut found);
        let silent: Vec<&str> =
            found.iter().filter(|(_, told)| !told).map(|(path, _)| path.as_str()).collect();
        // These run until they are ended, show something, or only write files.
        let expected = [
            " countersign demo",
            " countersign serve",
            " countersign bundle list",
            " countersign registry serve",
            " countersign node render",
        ];
        assert_eq!(silent, expected);
        Arguments::command().debug_assert();
    }
}
