//! One replica of `countersign serve` in a cluster.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use countersign_admission::Around;
use countersign_clock::SystemClock;
use countersign_cluster::{
    Candidate, Certificates, Client, Dns, Events, Evidence, Installation, LeaseTiming, Objects, Target,
    Webhooks, evidence,
};
use countersign_https::{Authority, CurrentIdentity, ServeLimits, full};
use countersign_verifier::SecretReader;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::leader::Leader;
use super::live::{self, Live};
use super::lookups::InCluster;
use super::metrics::{self, Metrics};
use super::pull::PodSecrets;
use super::{asked_to_end, talk};
use crate::cli::{Exit, Replica};

/// The lease that one of all replicas holds.
pub(crate) const LEASE: &str = "countersign";
/// How long giving it up may take.
const RELEASE: Duration = Duration::from_secs(2);
/// How long it goes on serving after it was asked to end: until nobody sends it anything.
const LINGER: Duration = Duration::from_secs(15);
/// How long until what the API server refused is asked for again.
const AGAIN: Duration = Duration::from_secs(2);

/// What is said of an installation on the command line.
pub(crate) fn installation(namespace: &str, deployment: &str) -> Installation {
    Installation {
        namespace: namespace.to_owned(),
        deployment: deployment.to_owned(),
        lease: LEASE.to_owned(),
    }
}

/// Serves until the process is asked to end.
pub(crate) async fn serve(arguments: &Replica, client: Client, listener: TcpListener) -> Result<Exit> {
    let Replica { namespace, deployment, service, service_port, webhook_url, .. } = arguments;
    let (target, names) = match webhook_url {
        None => {
            let names =
                [service.clone(), format!("{service}.{namespace}"), format!("{service}.{namespace}.svc")];
            (Target::Service { name: service.clone(), port: *service_port }, names.to_vec())
        }
        Some(url) => {
            let url = url.trim_end_matches('/');
            let uri: hyper::Uri = url.parse().context("--webhook-url")?;
            let host = uri.host().filter(|_| uri.scheme_str() == Some("https"));
            let host = host.context("--webhook-url: `https://HOST:PORT` is needed")?;
            (Target::Url(url.to_owned()), vec![host.to_owned()])
        }
    };
    let identity = identity_of_this();
    let clock = Arc::new(SystemClock::default());
    let certificates = Certificates::new(&client, namespace, names.clone(), clock.clone());
    talk(&format!("serving what the cluster says on https://{}", listener.local_addr()?));

    // Until the Secret is read, probes are answered with what nobody has to trust.
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let current = Arc::new(CurrentIdentity::new(&Authority::generate("countersign")?.issue(&names)?)?);
    let tls = Arc::new(countersign_https::server_of(&current)?);
    let (events, say) = Events::new(&client, &identity, clock.clone());
    let metrics = Metrics::new(events);
    let around = Around {
        observer: Arc::new(metrics.clone()),
        cluster: Arc::new(InCluster::new(&client)),
        clock: clock.clone(),
    };
    let live = Arc::new(Live::new(current, around));
    let (leading, leads) = watch::channel(false);
    let candidate =
        Arc::new(Candidate::new(&client, namespace, LEASE, &identity, LeaseTiming::DEFAULT, clock.clone()));

    // All that goes on beside serving; none of it ends by itself.
    let mut tasks: JoinSet<anyhow::Error> = JoinSet::new();
    tasks.spawn(never(say));
    // Whoever is asked to end leads no more, from that moment on, and serves for a while.
    let (end, ended) = watch::channel(false);
    let leader = Leader {
        client: client.clone(),
        namespace: namespace.clone(),
        identity,
        target,
        webhooks: Webhooks::new(&client, installation(namespace, deployment)),
        certificates,
        dns: Dns::new(client.clone(), arguments.coredns.place()),
        live: Arc::clone(&live),
        metrics: metrics.clone(),
        clock,
    };
    let follower = {
        let (client, namespace, live) = (client.clone(), namespace.clone(), Arc::clone(&live));
        let campaign = lead_until(Arc::clone(&candidate), leading, ended);
        async move { Box::pin(follow(&client, &namespace, (leader, leads, campaign), metrics, live)).await }
    };
    tasks.spawn(follower);

    let mut result = Ok(Exit::Good);
    let asked = asked_to_end()?;
    let ending = Arc::clone(&live);
    let until = async {
        tokio::select! {
            () = asked => {
                // Whoever asks whether it is ready is told no, and the rest is served for a while.
                ending.end();
                end.send_replace(true);
                tokio::time::sleep(LINGER).await;
            }
            ended = tasks.join_next() => result = Err(match ended {
                Some(Ok(error)) => error,
                Some(Err(error)) => error.into(),
                None => anyhow::anyhow!("nothing is followed any more"),
            }),
        }
    };
    let handler = move |request| Arc::clone(&live).answer(request);
    countersign_https::serve(listener, Some(tls), ServeLimits::DEFAULT, handler, until).await;
    tasks.shutdown().await;
    _ = tokio::time::timeout(RELEASE, candidate.release()).await;
    result
}

/// Tries to lead until it is asked to end; then another one may at once.
async fn lead_until(
    candidate: Arc<Candidate>,
    leading: watch::Sender<bool>,
    mut ended: watch::Receiver<bool>,
) -> anyhow::Error {
    tokio::select! {
        () = candidate.run(&leading) => return anyhow::anyhow!("nobody asks for the lease any more"),
        _ = ended.wait_for(|ended| *ended) => {}
    }
    leading.send_replace(false);
    _ = tokio::time::timeout(RELEASE, candidate.release()).await;
    std::future::pending().await
}

/// Reads what the cluster has, and leads when its turn comes; it ends only with an error.
async fn follow(
    client: &Client,
    namespace: &str,
    (leader, leads, campaign): (Leader, watch::Receiver<bool>, impl Future<Output = anyhow::Error>),
    metrics: Metrics,
    live: Arc<Live>,
) -> anyhow::Error {
    let mut said = String::new();
    let key = loop {
        // Any replica may make what is not there yet; the first one wins.
        let made = async {
            leader.certificates.make().await?;
            anyhow::Ok(evidence::record_key(client, namespace).await?)
        };
        match made.await {
            Ok(key) => break key,
            Err(error) => {
                let error = format!("{error:#}");
                if error != said {
                    tracing::warn!(error, "Secrets cannot be made or read in `{namespace}`");
                    live.wait_for(&error);
                }
                said = error;
                tokio::time::sleep(AGAIN).await;
            }
        }
    };
    // Who cannot read what there is leads nobody.
    let mut read_once = live.taken.subscribe();
    let campaign = async move {
        _ = read_once.changed().await;
        campaign.await
    };
    let (store, writer) = Evidence::new(client, key);
    live.show(metrics.registry(Arc::clone(&live), Arc::clone(&store)));
    let (read, is_read) = watch::channel(false);
    let objects = Objects::watch(client, namespace);
    let own = (namespace, PodSecrets::new(client.clone()) as Arc<dyn SecretReader>);
    tokio::select! {
        ended = live::follow(own, objects, Arc::clone(&store), is_read, Arc::clone(&live)) => ended.into(),
        () = store.follow(client, &read) => anyhow::anyhow!("the watch of evidence has ended"),
        () = writer.run() => anyhow::anyhow!("nobody writes evidence any more"),
        () = leader.run(leads) => anyhow::anyhow!("nobody would lead any more"),
        error = campaign => error,
    }
}

async fn never(work: impl Future<Output = ()>) -> anyhow::Error {
    work.await;
    anyhow::anyhow!("nobody writes events any more")
}

/// `/metrics`.
pub(crate) fn shown(registry: &prometheus_client::registry::Registry) -> Response<countersign_https::Body> {
    let Ok(text) = metrics::text(registry) else {
        let mut response = Response::new(full("the metrics cannot be shown\n"));
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        return response;
    };
    let mut response = Response::new(full(text));
    let kind = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// A name that no other process has.
fn identity_of_this() -> String {
    let host = std::env::var("HOSTNAME").unwrap_or_else(|_| "countersign".to_owned());
    let random = RandomState::new().build_hasher().finish();
    format!("{host}-{random:016x}")
}
