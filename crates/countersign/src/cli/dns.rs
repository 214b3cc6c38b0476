//! `countersign dns`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Cluster;

#[derive(Debug, Subcommand)]
pub(crate) enum DnsCommand {
    /// Lead one name elsewhere for a while, in CoreDNS, for clients in the cluster
    #[command(subcommand)]
    Override(DnsOverride),
}

#[derive(Debug, Subcommand)]
pub(crate) enum DnsOverride {
    /// Set it, and wait until every DNS endpoint answers with it
    Set(DnsSet),
    /// Take it out, and wait until no DNS endpoint answers with it any more
    Clear(DnsClear),
    /// Say whether it is set, by whom and until when, and what each DNS endpoint answers
    Status(DnsStatus),
}

/// Which cluster, and where its CoreDNS is.
#[derive(Args, Debug)]
pub(crate) struct DnsPlace {
    #[command(flatten)]
    pub(crate) cluster: Cluster,

    /// The namespace of CoreDNS
    #[arg(long, value_name = "NAME", default_value = "kube-system")]
    pub(crate) namespace: String,

    /// The ConfigMap with the Corefile
    #[arg(long, value_name = "NAME", default_value = "coredns")]
    pub(crate) config_map: String,

    /// The key of the Corefile in it
    #[arg(long, value_name = "KEY", default_value = "Corefile")]
    pub(crate) key: String,

    /// The Service whose endpoints answer
    #[arg(long, value_name = "NAME", default_value = "kube-dns")]
    pub(crate) service: String,

    /// The Site: its logical registry is the name
    #[arg(long, value_name = "FILE", required_unless_present = "name")]
    pub(crate) site: Option<PathBuf>,

    /// The name, where it is not the Site's logical registry
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,

    /// Seconds to wait for the DNS endpoints, which are asked at their own addresses: a kubelet takes up to 90 to bring an edit to
    /// CoreDNS, which reads it within 40
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    pub(crate) wait: u64,
}

#[derive(Args, Debug)]
#[command(
    after_help = "The record is a server block of its own, marked with owner and expiry; everything else in the \
    Corefile stays as it is. The verifier and nodes never need it. Exit codes: 0 every endpoint \
    answers with it, 1 one does not in time, 2 wrong usage or a Corefile that has no room for it, 3 \
    the API server could not be reached."
)]
pub(crate) struct DnsSet {
    #[command(flatten)]
    pub(crate) place: DnsPlace,

    /// Where the name shall lead: an address; may be given more than once
    #[arg(long, value_name = "ADDRESS", required_unless_present = "endpoint")]
    pub(crate) address: Vec<std::net::IpAddr>,

    /// Or the endpoint of the Site that has the addresses
    #[arg(long, value_name = "NAME", requires = "site", conflicts_with = "address")]
    pub(crate) endpoint: Option<String>,

    /// Who sets it: nobody else changes it before it ends
    #[arg(long, value_name = "NAME", default_value = "countersign")]
    pub(crate) owner: String,

    /// After which time it ends, as `4h`
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = countersign_site::parse_duration)]
    pub(crate) expires: std::time::Duration,

    /// Take over what another owner has set
    #[arg(long)]
    pub(crate) force: bool,

    /// Show the change, and do not make it
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Args, Debug)]
#[command(
    after_help = "The Corefile is then what it was before, byte for byte, unless others have changed it since. \
    Exit codes: 0 it is gone, or there was none; 1 an endpoint still answers with it; 2 wrong usage; \
    3 the API server could not be reached."
)]
pub(crate) struct DnsClear {
    #[command(flatten)]
    pub(crate) place: DnsPlace,

    /// Who has set it
    #[arg(long, value_name = "NAME", default_value = "countersign")]
    pub(crate) owner: String,

    /// Take out what another owner has set
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Args, Debug)]
#[command(
    after_help = "Exit codes: 0 there is none, or every endpoint answers with it; 1 it has ended, or an endpoint \
    does not answer with it; 2 wrong usage; 3 the API server could not be reached."
)]
pub(crate) struct DnsStatus {
    #[command(flatten)]
    pub(crate) place: DnsPlace,
}
