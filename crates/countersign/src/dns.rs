//! `countersign dns override`: one name in the cluster's DNS, for a while.

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use countersign_clock::{Clock as _, SystemClock};
use countersign_cluster::{Answer, Dns, DnsError, Place};
use countersign_corefile::Override;
use jiff::Timestamp;
use similar::TextDiff;

use crate::cli::{DnsClear, DnsOverride, DnsPlace, DnsSet, DnsStatus, Exit};
use crate::serve::talk;
use crate::site::{self, warn};

pub(crate) async fn run(command: &DnsOverride) -> Result<Exit> {
    let result = match command {
        DnsOverride::Set(arguments) => set(arguments).await,
        DnsOverride::Clear(arguments) => clear(arguments).await,
        DnsOverride::Status(arguments) => status(arguments).await,
    };
    match result {
        Err(error) if error.downcast_ref::<DnsError>().is_some_and(DnsError::is_unreachable) => {
            warn(&format!("{error:#}"));
            Ok(Exit::Unreachable)
        }
        other => other,
    }
}

async fn dns(place: &DnsPlace) -> Result<Dns> {
    let client = countersign_cluster::client(place.kubeconfig.as_deref(), place.context.as_deref());
    let client = client.await.context("the cluster")?;
    let [namespace, config_map, key, service] =
        [&place.namespace, &place.config_map, &place.key, &place.service].map(Clone::clone);
    Ok(Dns::new(client, Place { namespace, config_map, key, service }))
}

fn name(place: &DnsPlace) -> Result<String> {
    match (&place.name, &place.site) {
        (Some(name), _) => Ok(name.clone()),
        (None, Some(path)) => {
            let registry = site::read(path)?.registry.name.clone();
            // The port is none of DNS's.
            Ok(registry.split(':').next().unwrap_or_default().to_owned())
        }
        (None, None) => bail!("--site or --name says which name it is"),
    }
}

fn addresses(arguments: &DnsSet) -> Result<Vec<IpAddr>> {
    let (Some(name), Some(path)) = (&arguments.endpoint, &arguments.place.site) else {
        return Ok(arguments.address.clone());
    };
    let site = site::read(path)?;
    let found = site.registry.endpoints.iter().find(|endpoint| endpoint.name == *name);
    let found = found.with_context(|| format!("--endpoint: the Site has no endpoint `{name}`"))?;
    match (found.addresses.as_slice(), found.url.at.address()) {
        ([], Some(address)) => Ok(vec![address]),
        ([], None) => bail!("--endpoint {name}: it has no `addresses` in the Site: give --address"),
        (addresses, _) => Ok(addresses.to_vec()),
    }
}

async fn set(arguments: &DnsSet) -> Result<Exit> {
    let place = &arguments.place;
    let now = SystemClock::default().wall();
    // Whole seconds: that is what is written down.
    let seconds = i64::try_from(arguments.expires.as_secs()).unwrap_or(i64::MAX);
    let end = now.as_second().saturating_add(seconds);
    let until = Timestamp::from_second(end).context("--expires")?;
    let (name, owner) = (name(place)?, arguments.owner.clone());
    let mut addresses = addresses(arguments)?;
    addresses.sort();
    addresses.dedup();
    let wanted = Override { name, addresses, owner, until };
    let dns = dns(place).await?;
    for obstacle in dns.obstacles().await? {
        warn(&obstacle);
    }
    if arguments.dry_run {
        let (before, edit) = dns.would_set(&wanted, now, arguments.force).await?;
        edit.warnings.iter().for_each(|warning| warn(warning));
        let diff = TextDiff::from_lines(&before, &edit.text);
        write!(std::io::stdout(), "{}", diff.unified_diff().header(&place.key, &place.key))?;
        return Ok(Exit::Good);
    }
    for warning in dns.set(&wanted, now, arguments.force).await? {
        warn(&warning);
    }
    let Override { name, addresses, .. } = &wanted;
    talk(&format!("{name} leads to {} until {until}; waiting for every DNS endpoint", shown(addresses)));
    let good = |answer: &Answer| matches!(answer, Answer::Addresses(found) if found == addresses);
    let bad = dns.until(name, has_six(addresses), Duration::from_secs(place.wait), good).await?;
    end_of(&dns, name, bad, "every DNS endpoint answers with it").await
}

async fn clear(arguments: &DnsClear) -> Result<Exit> {
    let place = &arguments.place;
    let (dns, name) = (dns(place).await?, name(place)?);
    let Some(said) = dns.clear(&name).await? else {
        talk(&format!("{name} is not overridden"));
        return Ok(Exit::Good);
    };
    talk(&format!("the override of {name} is taken out; waiting for every DNS endpoint"));
    let good = |answer: &Answer| !matches!(answer, Answer::Addresses(found) if *found == said.addresses);
    let six = has_six(&said.addresses);
    let bad = dns.until(&name, six, Duration::from_secs(place.wait), good).await?;
    end_of(&dns, &name, bad, "no DNS endpoint answers with it any more").await
}

/// Says how the waiting ended.
async fn end_of(dns: &Dns, name: &str, bad: Vec<(SocketAddr, Answer)>, good: &str) -> Result<Exit> {
    for (endpoint, answer) in &bad {
        warn(&format!("{endpoint} says of {name}: {answer}"));
    }
    if bad.is_empty() && dns.endpoints().await?.is_empty() {
        warn("the Service has no endpoint: nobody answers in this cluster");
        return Ok(Exit::Negative);
    }
    if bad.is_empty() {
        talk(good);
    }
    Ok(if bad.is_empty() { Exit::Good } else { Exit::Negative })
}

async fn status(arguments: &DnsStatus) -> Result<Exit> {
    let place = &arguments.place;
    let (dns, name) = (dns(place).await?, name(place)?);
    let mut out = std::io::stdout().lock();
    let said = dns.find(&name).await?;
    let mut exit = Exit::Good;
    match &said {
        None => writeln!(out, "{name} is not overridden")?,
        Some(Override { addresses, owner, until, .. }) => {
            writeln!(out, "{name} leads to {}, set by {owner}, until {until}", shown(addresses))?;
            if *until <= SystemClock::default().wall() {
                writeln!(out, "ENDED  it has ended: `countersign dns override clear` takes it out")?;
                exit = Exit::Negative;
            }
        }
    }
    for obstacle in dns.obstacles().await? {
        warn(&obstacle);
    }
    let six = said.as_ref().is_some_and(|said| has_six(&said.addresses));
    for (endpoint, answer) in dns.answers(&name, six).await? {
        let agrees = said.as_ref().is_none_or(|said| answer == Answer::Addresses(said.addresses.clone()));
        let word = if agrees { "" } else { "OTHER  " };
        writeln!(out, "{word}{endpoint}  {answer}")?;
        exit = if agrees { exit } else { Exit::Negative };
    }
    Ok(exit)
}

fn has_six(addresses: &[IpAddr]) -> bool {
    addresses.iter().any(IpAddr::is_ipv6)
}

fn shown(addresses: &[IpAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
