//! `countersign install`: where images come from, changed while everything goes on.

use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use countersign_bundle::check;
use countersign_clock::{Clock as _, SystemClock};
use countersign_cluster::{CONFIGURATION, Client, Dns, webhooks_registered};
use countersign_install::{Canaries, CanaryError, Node, Role, Seen, SiteError, SiteObject, mark, marked};
use countersign_layout::Layout;
use countersign_registry::Endpoint;
use countersign_site::Source;
use countersign_verdict::text;
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::cli::{Exit, InstallCommand, InstallPlace, RetireBootstrap, SwitchOver};
use crate::endpoints::Reach;
use crate::serve::talk;
use crate::site::warn;
use crate::sources;

pub(crate) async fn run(command: &InstallCommand) -> Result<Exit> {
    let result = match command {
        InstallCommand::SwitchOver(arguments) => switch_over(arguments).await,
        InstallCommand::RetireBootstrap(arguments) => retire(arguments).await,
    };
    match result {
        Err(error) if is_unreachable(&error) => {
            warn(&format!("{error:#}"));
            Ok(Exit::Unreachable)
        }
        result => result,
    }
}

fn is_unreachable(error: &anyhow::Error) -> bool {
    error.downcast_ref::<SiteError>().is_some_and(SiteError::is_unreachable)
        || error.downcast_ref::<CanaryError>().is_some_and(CanaryError::is_unreachable)
}

async fn switch_over(arguments: &SwitchOver) -> Result<Exit> {
    let SwitchOver { place, bundle, credentials, deep, .. } = arguments;
    let name = arguments.rollback.as_ref().unwrap_or(&arguments.to);
    let client = crate::crds::client(&place.home.cluster).await?;
    let mut site = SiteObject::read(&client, &place.home.namespace).await?;
    let endpoint = endpoint(&site, name, credentials.as_deref())?;
    verification_is_on(&client).await?;

    // The gate: everything that any bundle has, read back from there and from nowhere else.
    let mut exit = Exit::Good;
    for path in bundle {
        let layout = Layout::open(path).context("--bundle")?;
        exit = exit.max(crate::mirror::report(&check(&layout, &endpoint, *deep).await?, &endpoint)?);
    }
    if exit != Exit::Good {
        talk(&format!("nothing is changed: {} does not have everything", endpoint.url()));
        return Ok(exit);
    }
    let wanted = match arguments.rollback {
        None => mark(&endpoint).await?,
        // Back to the bootstrap machine, which shows its own by itself; or to another registry.
        Some(_) => match marked(&endpoint, Role::Bootstrap).await {
            Ok(digest) => digest,
            Err(_) => mark(&endpoint).await?,
        },
    };
    if site.is_first(name) {
        talk(&format!("`{name}` is asked first already"));
    } else {
        site.put_first(&client, name).await?;
        talk(&format!("`{name}` is asked first from now on; the other endpoints stay"));
    }
    // Whoever goes by the name finds it where DNS leads without it: also a node that asks the cluster's.
    if arguments.rollback.is_none() {
        clear_override(&client, place, &site).await;
    }
    let told = tell_nodes(&client, place, &site).await?;
    let nodes = canaries(&client, place, &site).until(&wanted, Duration::from_secs(place.timeout)).await?;
    let seen = report(&nodes, name)?;
    if seen != Exit::Good {
        talk("run this again once those nodes have their files, or go back with --rollback");
        return Ok(seen.max(told));
    }
    talk(&format!("every node asks `{name}` first"));
    Ok(told)
}

async fn retire(arguments: &RetireBootstrap) -> Result<Exit> {
    let RetireBootstrap { place, endpoint: name, node_reports } = arguments;
    let client = crate::crds::client(&place.home.cluster).await?;
    let mut site = SiteObject::read(&client, &place.home.namespace).await?;
    verification_is_on(&client).await?;
    let mut known = Exit::Good;
    let trust = match site.endpoint(name) {
        Err(SiteError::NoEndpoint(..)) => {
            let there = site.site.registry.endpoints.iter().map(|endpoint| endpoint.name.as_str());
            let there: Vec<&str> = there.collect();
            talk(&format!("the Site has no endpoint `{name}` (any more): it has {}", there.join(", ")));
            known = Exit::Negative;
            None
        }
        Err(error) => return Err(error.into()),
        Ok(endpoint) => {
            let trust = endpoint.ca.clone();
            if site.is_first(name) {
                return Err(SiteError::First(name.clone()).into());
            }
            // Every node has to ask the one that is first, as the other will not answer.
            let first = site.site.registry.endpoints[0].name.clone();
            let wanted = marked(&self::endpoint(&site, &first, None)?, Role::Cluster).await?;
            let patience = Duration::from_secs(place.timeout);
            let nodes = canaries(&client, place, &site).until(&wanted, patience).await?;
            let seen = report(&nodes, &first)?;
            if seen != Exit::Good {
                talk(&format!("nothing is changed: `{name}` is still needed"));
                return Ok(seen);
            }
            site.take_out(&client, name).await?;
            talk(&format!("the Site has no endpoint `{name}` any more, and nobody trusts it"));
            trust
        }
    };
    let shared = |source: &Source| {
        site.site.registry.endpoints.iter().any(|endpoint| endpoint.ca.as_ref() == Some(source))
    };
    if let Some(source @ (Source::Secret { name, .. } | Source::ConfigMap { name, .. })) = &trust
        && !shared(source)
    {
        talk(&format!("nothing of the Site names the CA in `{name}` any more: it can be deleted"));
    }
    let mut exit = tell_nodes(&client, place, &site).await?;
    clear_override(&client, place, &site).await;
    if let Some(directory) = node_reports {
        let nodes = canaries(&client, place, &site).nodes().await?;
        exit = exit.max(stragglers(directory, &nodes)?);
    } else {
        // It went with an earlier run, or it was never there: what nodes say would tell.
        exit = exit.max(known);
        talk("what nodes have in their files is known to them alone: --node-reports reads what they say");
    }
    Ok(exit)
}

/// What each node says of itself: whoever has not said anything may name it still.
fn stragglers(directory: &Path, nodes: &[String]) -> Result<Exit> {
    let mut out = std::io::stdout().lock();
    let mut exit = Exit::Good;
    for node in nodes {
        let path = directory.join(format!("{node}.json"));
        if !path.exists() {
            writeln!(out, "UNKNOWN  {node}  has not said what it has")?;
            exit = Exit::Negative;
            continue;
        }
        let text = sources::text(&path).map_err(anyhow::Error::msg).context("--node-reports")?;
        let findings: Vec<Value> = serde_json::from_str(&text)
            .with_context(|| format!("{} is not what `node check --output json` prints", path.display()))?;
        for finding in &findings {
            let text = |key: &str| finding[key].as_str().unwrap_or_default().to_owned();
            writeln!(out, "{}  {node}  {}  {}", text("severity"), text("at"), text("message"))?;
            exit = Exit::Negative;
        }
    }
    Ok(exit)
}

fn canaries(client: &Client, place: &InstallPlace, site: &SiteObject) -> Canaries {
    Canaries::new(client, &place.home.namespace, &site.site.registry.name)
}

/// The endpoint of this name, dialled at its addresses and nowhere else.
fn endpoint(site: &SiteObject, name: &str, credentials: Option<&Path>) -> Result<Endpoint> {
    let found = site.endpoint(name)?;
    let reader = site.clone();
    let load = move |source: &Source| reader.text(source);
    Reach::of(&[], &[], credentials)?.of_site(found, &load)
}

/// Neither step is for a cluster in which nothing is verified.
async fn verification_is_on(client: &Client) -> Result<()> {
    if !webhooks_registered(client).await.context("the webhook configurations")? {
        bail!(
            "the webhook configurations `{CONFIGURATION}` are not registered: nothing is verified. `kubectl \
             describe site default` says why"
        );
    }
    Ok(())
}

/// Brings the Site to every node, as far as there is a command that does.
async fn tell_nodes(client: &Client, place: &InstallPlace, site: &SiteObject) -> Result<Exit> {
    let text = site.for_nodes();
    if let Some(path) = &place.node_site {
        std::fs::write(path, &text).with_context(|| format!("--node-site {}", path.display()))?;
        talk(&format!("{}: for `countersign node apply --site` on every node", path.display()));
    }
    let Some(command) = &place.node_command else { return Ok(Exit::Good) };
    let mut exit = Exit::Good;
    for node in canaries(client, place, site).nodes().await? {
        talk(&format!("{node}: {command}"));
        let patience = Duration::from_secs(place.timeout);
        let told = tokio::time::timeout(patience, for_node(command, &node, &text)).await;
        let late = || bail!("--node-command: no end within {} s", patience.as_secs());
        if let Err(why) = told.unwrap_or_else(|_| late()) {
            warn(&format!("{node}: {why:#}"));
            exit = Exit::Negative;
        }
    }
    Ok(exit)
}

/// Runs the command for one node; it ends with whoever waits for it.
async fn for_node(command: &str, node: &str, site: &str) -> Result<()> {
    let mut shell = Command::new("sh");
    shell.args(["-c", command]).env("NODE", node).stdin(Stdio::piped()).kill_on_drop(true);
    let mut child = shell.spawn().context("sh")?;
    if let Some(mut stdin) = child.stdin.take() {
        // Whoever does not read it says so by its exit code.
        _ = stdin.write_all(site.as_bytes()).await;
    }
    let status = child.wait().await?;
    if status.success() { Ok(()) } else { bail!("--node-command: {status}") }
}

fn report(nodes: &[Node], name: &str) -> Result<Exit> {
    let mut out = std::io::stdout().lock();
    let mut exit = Exit::Good;
    for Node { name: node, seen } in nodes {
        match seen {
            Seen::There => writeln!(out, "OK  {node}  asks `{name}` first")?,
            Seen::Elsewhere(digest) => {
                let digest = text::shortened(digest);
                writeln!(out, "ELSEWHERE  {node}  asks another endpoint first: it pulled {digest}")?;
                exit = Exit::Negative;
            }
            Seen::Nothing(why) => {
                writeln!(out, "UNKNOWN  {node}  {why}")?;
                exit = Exit::Negative;
            }
        }
    }
    if nodes.is_empty() {
        bail!("the cluster has no node");
    }
    Ok(exit)
}

/// The override of the logical name, where there is one.
async fn clear_override(client: &Client, place: &InstallPlace, site: &SiteObject) {
    let name = site.site.registry.name.split(':').next().unwrap_or_default();
    let dns = Dns::new(client.clone(), place.coredns.place());
    match dns.find(name).await {
        Ok(Some(found)) => match dns.clear(name, &found.owner, SystemClock::default().wall(), false).await {
            Ok(_) => talk(&format!("the override of {name} in the cluster's DNS is gone")),
            Err(error) => warn(&format!("the override of {name} in the cluster's DNS stays: {error}")),
        },
        Ok(None) => {}
        Err(error) => {
            warn(&format!("whether {name} is overridden in the cluster's DNS cannot be seen: {error}"));
        }
    }
}
