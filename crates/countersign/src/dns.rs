//! `countersign dns override`: one name in the cluster's DNS, for a while.

use std::io::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use countersign_clock::{Clock as _, SystemClock};
use countersign_cluster::{Answer, Dns, DnsError, Place, Waited};
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
    let client = crate::crds::client(&place.cluster).await?;
    let [namespace, config_map, key, service] =
        [&place.namespace, &place.config_map, &place.key, &place.service].map(Clone::clone);
    Ok(Dns::new(client, Place { namespace, config_map, key, service }))
}

fn name(place: &DnsPlace) -> Result<String> {
    match (&place.name, &place.site) {
        (Some(name), _) => Ok(name.trim_end_matches('.').to_ascii_lowercase()),
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
    let port = site
        .registry
        .name
        .split_once(':')
        .map_or(found.url.scheme.default_port().to_string(), |(_, port)| port.to_owned());
    if found.url.at.port.to_string() != port {
        warn(&format!(
            "--endpoint {name} listens on port {}, and clients of the name will ask port {port}",
            found.url.at.port
        ));
    }
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
    // As they are answered: an IPv4 address in the form of an IPv6 one is answered as the former.
    let mut addresses: Vec<IpAddr> = addresses(arguments)?.iter().map(IpAddr::to_canonical).collect();
    addresses.sort();
    addresses.dedup();
    let wanted = Override { name, addresses, owner, until };
    let dns = dns(place).await?;
    obstacles(&dns).await;
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
    talk("nodes, and pods in the network of their host, do not ask CoreDNS: for them nothing changes");
    let good = |answer: &Answer| matches!(answer, Answer::Addresses(found) if found == addresses);
    let waited = dns.until(name, has_six(addresses), Duration::from_secs(place.wait), good).await?;
    Ok(end_of(name, waited, "every DNS endpoint answers with it"))
}

/// What might be in the way is looked for, and whoever may not look is not kept from anything.
async fn obstacles(dns: &Dns) {
    match dns.obstacles().await {
        Ok(found) => found.iter().for_each(|obstacle| warn(obstacle)),
        Err(error) => warn(&format!("what may be in its way cannot be looked for: {error}")),
    }
}

async fn clear(arguments: &DnsClear) -> Result<Exit> {
    let place = &arguments.place;
    let (dns, name) = (dns(place).await?, name(place)?);
    let now = SystemClock::default().wall();
    let Some(said) = dns.clear(&name, &arguments.owner, now, arguments.force).await? else {
        talk(&format!("{name} is not overridden; no endpoint was asked: `status` says what each answers"));
        return Ok(Exit::Good);
    };
    talk(&format!("the override of {name} is taken out; waiting for every DNS endpoint"));
    let good = |answer: &Answer| match answer {
        Answer::Addresses(found) => *found != said.addresses,
        Answer::Code(_) => true,
        // Who does not answer may answer with it.
        Answer::None(_) => false,
    };
    let six = has_six(&said.addresses);
    let waited = dns.until(&name, six, Duration::from_secs(place.wait), good).await?;
    Ok(end_of(&name, waited, "no DNS endpoint answers with it any more"))
}

/// Says how the waiting ended.
fn end_of(name: &str, waited: Waited, good: &str) -> Exit {
    match waited {
        Waited::Good => {
            talk(good);
            Exit::Good
        }
        Waited::Bad(bad) => {
            for (endpoint, answer) in &bad {
                warn(&format!("{endpoint} says of {name}: {answer}"));
            }
            Exit::Negative
        }
        Waited::Late => {
            warn("the time of --wait was over before every endpoint was asked");
            Exit::Negative
        }
        Waited::Nobody => {
            warn("the Service has no endpoint: nobody answers in this cluster; --service names another one");
            Exit::Negative
        }
    }
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
    obstacles(&dns).await;
    let six = said.as_ref().is_some_and(|said| has_six(&said.addresses));
    let answers = dns.answers(&name, six).await?;
    if answers.is_empty() {
        warn("the Service has no endpoint: nobody answers in this cluster; --service names another one");
        exit = if said.is_some() { Exit::Negative } else { exit };
    }
    for (endpoint, answer) in answers {
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
