//! One of several who do the same leads: whoever holds a Lease (the rule of client-go).
//!
//! A candidate trusts no clock but its own, which never goes back: it counts from the moment at
//! which it has *seen* the lease change. The leader counts from before it asked for the renewal,
//! and stops earlier than anybody else may begin, whether the API server can be reached or not.

use std::sync::Arc;
use std::time::Duration;

use countersign_clock::Clock;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::time::Instant;

/// How long things take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseTiming {
    /// How long a lease that nobody renews is respected. Default 15 s.
    pub duration: Duration,
    /// How long a leader leads that cannot renew: less than that. Default 10 s.
    pub deadline: Duration,
    /// How often it is tried. Default 2 s.
    pub retry: Duration,
}

impl LeaseTiming {
    /// The defaults, which are client-go's.
    pub const DEFAULT: Self = Self {
        duration: Duration::from_secs(15),
        deadline: Duration::from_secs(10),
        retry: Duration::from_secs(2),
    };
}

/// How often it is tried to give a lease up.
const RELEASES: usize = 3;

/// One who would lead.
pub struct Candidate {
    api: Api<Lease>,
    name: String,
    identity: String,
    timing: LeaseTiming,
    clock: Arc<dyn Clock>,
}

/// The lease as it was last seen to change.
struct Seen {
    version: Option<String>,
    at: Instant,
}

impl Candidate {
    /// One who would hold this lease; no other may have this identity. The clock is for what people
    /// read in the object, and for nothing else.
    pub fn new(
        client: &Client,
        namespace: &str,
        name: &str,
        identity: &str,
        timing: LeaseTiming,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let api = Api::namespaced(client.clone(), namespace);
        Self { api, name: name.to_owned(), identity: identity.to_owned(), timing, clock }
    }

    /// Tries for ever to lead, and says whether it does.
    pub async fn run(&self, leading: &watch::Sender<bool>) {
        let LeaseTiming { deadline, retry, .. } = self.timing;
        let mut seen: Option<Seen> = None;
        // The moment before the request that was the last to succeed.
        let mut renewed: Option<Instant> = None;
        let say = |on: bool| {
            leading.send_if_modified(|now| {
                let changed = *now != on;
                *now = on;
                changed
            });
        };
        loop {
            let begun = Instant::now();
            // One request that is not answered leaves time for another one.
            let left = renewed.map_or(deadline, |at| deadline.saturating_sub(at.elapsed())).min(deadline / 2);
            match tokio::time::timeout(left, self.attempt(&mut seen)).await {
                Ok(Ok(true)) => renewed = Some(begun),
                Ok(Ok(false)) => renewed = None,
                // It is tried again, for as long as there is time.
                Ok(Err(error)) => tracing::warn!(%error, "the lease cannot be asked for"),
                Err(_) => tracing::warn!("the lease was not answered in time"),
            }
            renewed = renewed.filter(|at| at.elapsed() < deadline);
            say(renewed.is_some());
            let left = renewed.map_or(retry, |at| deadline.saturating_sub(at.elapsed()));
            tokio::time::sleep(retry.min(left)).await;
        }
    }

    /// Whether the lease is held now.
    async fn attempt(&self, seen: &mut Option<Seen>) -> Result<bool, kube::Error> {
        let Some(mut lease) = self.api.get_opt(&self.name).await? else {
            let metadata = ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
            let lease = Lease { metadata, spec: Some(self.renewed(LeaseSpec::default())) };
            return self.written(self.api.create(&PostParams::default(), &lease).await, seen);
        };
        let version = lease.metadata.resource_version.clone();
        let since = match seen.as_ref().filter(|seen| seen.version == version) {
            Some(seen) => seen.at,
            None => seen.insert(Seen { version, at: Instant::now() }).at,
        };
        let spec = lease.spec.take().unwrap_or_default();
        let holder = spec.holder_identity.as_deref().unwrap_or_default();
        // The holder may have a longer word than ours.
        let said = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
        let respected = said.map_or(self.timing.duration, Duration::from_secs).max(self.timing.duration);
        if !holder.is_empty() && holder != self.identity && since.elapsed() < respected {
            return Ok(false);
        }
        lease.spec = Some(self.renewed(spec));
        self.written(self.api.replace(&self.name, &PostParams::default(), &lease).await, seen)
    }

    /// Somebody else was faster where the object is another one by now.
    fn written(
        &self,
        result: Result<Lease, kube::Error>,
        seen: &mut Option<Seen>,
    ) -> Result<bool, kube::Error> {
        let lease = result?;
        *seen = Some(Seen { version: lease.metadata.resource_version, at: Instant::now() });
        Ok(lease.spec.and_then(|spec| spec.holder_identity).as_deref() == Some(self.identity.as_str()))
    }

    fn renewed(&self, before: LeaseSpec) -> LeaseSpec {
        let now = Some(MicroTime(self.clock.wall()));
        let own = before.holder_identity.as_deref() == Some(self.identity.as_str());
        let transitions = before.lease_transitions.unwrap_or_default();
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(i32::try_from(self.timing.duration.as_secs()).unwrap_or(i32::MAX)),
            acquire_time: if own { before.acquire_time } else { now.clone() },
            renew_time: now,
            lease_transitions: Some(if own { transitions } else { transitions.saturating_add(1) }),
            ..before
        }
    }

    /// Gives the lease up, if it is held: for whoever ends.
    pub async fn release(&self) {
        // A renewal may still be on its way.
        for _ in 0..RELEASES {
            let Ok(Some(mut lease)) = self.api.get_opt(&self.name).await else { return };
            let Some(spec) = &mut lease.spec else { return };
            if spec.holder_identity.as_deref() != Some(self.identity.as_str()) {
                return;
            }
            spec.holder_identity = None;
            match self.api.replace(&self.name, &PostParams::default(), &lease).await {
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                _ => return,
            }
        }
    }
}
