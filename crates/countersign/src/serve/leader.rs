//! What one of all replicas does: certificates, webhook configurations, conditions, what is kept of
//! the past, the end of DNS overrides, and records of tags that must not grow old.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use countersign_clock::Clock;
use countersign_cluster::status::{Condition, keep_texts, write};
use countersign_cluster::{
    Certificates, Client, Configured, Dns, Kinds, ObjectId, Registered, Rules, Target, Webhooks, evidence,
    in_use,
};
use countersign_policy::Review;
use futures_util::FutureExt as _;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::Instant;

use super::kept::{self, Kept};
use super::live::{Found, Live, Taken, refresh};
use super::metrics::Metrics;
use super::trusted;

/// How often the leader looks after everything.
const ROUND: Duration = Duration::from_secs(3);
/// How often it looks whether an override has ended, and who else decides.
const SELDOM: Duration = Duration::from_secs(10);
/// How soon images in use are listed again after that went wrong.
const AGAIN: Duration = Duration::from_mins(1);
/// How long the confirmation of one image's tag may take.
const CONFIRM: Duration = Duration::from_secs(30);

/// One who leads when its turn comes.
pub(crate) struct Leader {
    pub(crate) client: Client,
    pub(crate) namespace: String,
    pub(crate) identity: String,
    pub(crate) target: Target,
    pub(crate) webhooks: Webhooks,
    pub(crate) certificates: Certificates,
    pub(crate) dns: Dns,
    pub(crate) live: Arc<Live>,
    pub(crate) metrics: Metrics,
    pub(crate) clock: Arc<dyn Clock>,
}

/// What was seen and said in earlier rounds.
#[derive(Default)]
struct Memory {
    /// The last words on each subject: nothing is said twice.
    said: BTreeMap<&'static str, String>,
    seldom: Option<Instant>,
    /// When images in use are confirmed next.
    confirm: Option<Instant>,
    others: Vec<String>,
    registered: Option<Condition>,
    kinds: Option<(Instant, Kinds)>,
}

impl Memory {
    /// Says what is wrong with a subject, once.
    fn say(&mut self, subject: &'static str, error: &str) {
        if self.said.insert(subject, error.to_owned()).as_deref() != Some(error) {
            tracing::warn!(error, "{subject}");
        }
    }

    fn well(&mut self, subject: &'static str) {
        self.said.remove(subject);
    }

    /// What came of it, or what is wrong, which is said once.
    fn take<T, E: std::fmt::Display>(&mut self, subject: &'static str, result: Result<T, E>) -> Option<T> {
        match result {
            Ok(value) => {
                self.well(subject);
                Some(value)
            }
            Err(error) => {
                self.say(subject, &error.to_string());
                None
            }
        }
    }
}

impl Leader {
    /// Leads for as long as it is polled, whenever it is told to.
    pub(crate) async fn run(&self, mut leading: watch::Receiver<bool>) {
        let mut taken = self.live.taken.subscribe();
        while leading.wait_for(|leading| *leading).await.is_ok() {
            self.metrics.leads.set(1);
            tracing::info!(identity = self.identity, "this replica leads");
            let (mut memory, mut confirmations) = (Memory::default(), Memory::default());
            let look_after = async {
                loop {
                    let now = Arc::clone(&taken.borrow_and_update());
                    self.round(&now, &mut memory).await;
                    _ = tokio::time::timeout(ROUND, taken.changed()).await;
                }
            };
            // A registry that does not answer keeps nothing else waiting.
            let confirm = async {
                loop {
                    let now = Arc::clone(&self.live.taken.borrow());
                    self.confirm(&now, &mut confirmations).await;
                    tokio::time::sleep(ROUND).await;
                }
            };
            tokio::select! {
                () = look_after => {}
                () = confirm => {}
                // Whatever it is at: somebody else may lead.
                _ = leading.wait_for(|leading| !leading) => {}
            }
            self.metrics.leads.set(0);
            tracing::info!(identity = self.identity, "this replica leads no more");
        }
    }

    async fn round(&self, taken: &Taken, memory: &mut Memory) {
        let serving = self.certificates.keep().await;
        let serving = memory.take("the serving certificate cannot be kept", serving);
        if let Some(ends) = serving.as_ref().and_then(countersign_cluster::Serving::ends) {
            self.metrics.certificate_ends.set(ends.as_second());
        }
        // Whoever wants them to go is heard whatever is missing here.
        let site = taken.site.as_ref().filter(|_| self.live.webhook().is_ok());
        let wanted = serving.as_ref().zip(site);
        let rules = self.rules(taken, memory).await;
        let wanted = wanted.map(|(serving, site)| Configured {
            authorities: &serving.authorities,
            bootstrap: &site.bootstrap_namespaces,
            rules: rules.as_ref(),
        });
        let unknown = wanted.is_none();
        let kept = self.webhooks.keep(&self.identity, &self.target, wanted).await;
        if let Ok(Registered::Here(true)) = kept {
            tracing::info!("the webhook configurations are registered");
        }
        // One round without a certificate says nothing of what is there.
        if !(unknown && matches!(kept, Ok(Registered::Left(_))) && memory.registered.is_some()) {
            memory.registered = Some(registered(&kept));
        }
        memory.take("the webhook configurations cannot be kept", kept);
        if memory.seldom.is_none_or(|at| at.elapsed() >= SELDOM) {
            memory.seldom = Some(Instant::now());
            let others = self.webhooks.of_others().await;
            if let Some(others) = memory.take("it cannot be seen whose webhooks there are", others) {
                let subject = "Kyverno's webhooks stand beside ours";
                if others.is_empty() {
                    memory.well(subject);
                } else {
                    memory.say(subject, &others.join(", "));
                }
                memory.others = others;
            }
            let ended = self.dns.expire(self.clock.wall()).await;
            let subject = "it cannot be seen whether an override in the cluster's DNS has ended";
            for name in memory.take(subject, ended).unwrap_or_default() {
                tracing::info!(
                    name,
                    "the override of the name in the cluster's DNS has ended, and is taken out"
                );
            }
        }
        let kept = keep_texts(&self.client, &self.namespace, kept::KEY, &taken.good, &taken.kept).await;
        let too_large = memory.take("the last good versions cannot be kept", kept).unwrap_or_default();
        let subject = "a last good version is too large to be kept: it will not outlive a restart";
        if too_large.is_empty() {
            memory.well(subject);
        } else {
            let of = |name: &String| taken.good.get(name).and_then(|text| Kept::parse(text));
            let names = too_large.iter().filter_map(of).map(|kept| ObjectId::of(&kept.document).name);
            memory.say(subject, &names.collect::<Vec<_>>().join(", "));
        }
        for found in &taken.found {
            let trust = taken.site.as_ref().filter(|_| found.id.kind == "Site");
            let trust = trust.map(|site| [trusted::keys(site, self.clock.wall()), trusted::revoked(site)]);
            let conditions = conditions(found, memory, trust.into_iter().flatten());
            if conditions.is_empty() {
                continue;
            }
            let Found { id, generation, conditions: there, .. } = found;
            let written = write(&self.client, id, *generation, there, &conditions, self.clock.wall()).await;
            memory.take("conditions cannot be written", written);
        }
    }

    /// What webhooks are asked about besides pods. Where it cannot be seen which kinds there are, nothing
    /// that is registered is taken away.
    async fn rules(&self, taken: &Taken, memory: &mut Memory) -> Option<Rules> {
        if taken.interests.is_empty() {
            return Some(Rules::default());
        }
        // Definitions come and go.
        if memory.kinds.as_ref().is_none_or(|(at, _)| at.elapsed() >= SELDOM) {
            let found = Kinds::discover(&self.client).await;
            if let Some(found) = memory.take("it cannot be seen which kinds there are", found) {
                memory.kinds = Some((Instant::now(), found));
            }
        }
        let rules = memory.kinds.as_ref()?.1.rules(&taken.interests);
        let subject = "policies speak of kinds that are not there";
        if rules.unknown.is_empty() {
            memory.well(subject);
        } else {
            let unknown: Vec<&str> = rules.unknown.iter().map(String::as_str).collect();
            memory.say(subject, &unknown.join(", "));
        }
        Some(rules)
    }

    /// Records of tags that are in use are confirmed while registries answer, so that the next outage
    /// finds them fresh.
    async fn confirm(&self, taken: &Taken, memory: &mut Memory) {
        let (Some(site), Ok(webhook)) = (&taken.site, self.live.webhook()) else { return };
        let every = refresh(site.stale) / 2;
        if memory.confirm.is_some_and(|at| Instant::now() < at) {
            return;
        }
        let used = in_use(&self.client).await;
        let Some(used) = memory.take("pods cannot be listed", used) else {
            memory.confirm = Some(Instant::now() + AGAIN.min(every));
            return;
        };
        memory.confirm = Some(Instant::now() + every);
        for pod in used.pods {
            let namespace = pod["metadata"]["namespace"].clone();
            let request = json!({
                "operation": "CREATE", "namespace": namespace,
                "kind": { "group": "", "version": "v1", "kind": "Pod" }, "object": pod,
            });
            let confirm = webhook.confirm(Review::of(request), Instant::now() + CONFIRM);
            // What anybody has written into a pod ends nobody who leads.
            if AssertUnwindSafe(confirm).catch_unwind().await.is_err() {
                tracing::error!(%namespace, "the images of a pod cannot be confirmed");
            }
        }
        let swept = evidence::sweep(&self.client, evidence::MOST_KEPT, &used.digests).await;
        let subject = "evidence that nobody uses cannot be taken out";
        if let Some(gone @ 1..) = memory.take(subject, swept) {
            tracing::info!(gone, "evidence of images that nobody uses was taken out: there was too much");
        }
    }
}

fn registered(kept: &Result<Registered, impl std::fmt::Display>) -> Condition {
    let (holds, reason, message) = match kept {
        Ok(Registered::Here(_)) => (true, "Registered", "the webhook configurations are there".to_owned()),
        Ok(Registered::Removing) => {
            let message = "`countersign webhook remove` has taken the webhook configurations away: nothing is \
                           verified. `countersign webhook restore` brings them back";
            (false, "Removed", message.to_owned())
        }
        Ok(Registered::Left(why)) => (false, "Waiting", why.clone()),
        Err(error) => (false, "Failed", error.to_string()),
    };
    Condition { kind: "WebhooksRegistered", holds, reason, message }
}

/// What is said in an object's status.
fn conditions(found: &Found, memory: &Memory, trust: impl IntoIterator<Item = Condition>) -> Vec<Condition> {
    let of_site = found.id.kind == "Site";
    // Kyverno writes its own about policies.
    if !of_site && !memory.others.is_empty() {
        return Vec::new();
    }
    let ready = match (&found.ready, found.replaced) {
        (Ok(()), _) => (true, "InForce", "in force as it is written".to_owned()),
        (Err(why), true) => {
            (false, "LastGoodInForce", format!("the last version that was good is in force: {why}"))
        }
        (Err(why), false) => (false, "Refused", why.clone()),
    };
    let (holds, reason, message) = ready;
    let mut conditions = vec![Condition { kind: "Ready", holds, reason, message }];
    conditions.extend(trust);
    if of_site {
        conditions.extend(memory.registered.clone());
        let others = &memory.others;
        let (holds, reason, message) = if others.is_empty() {
            (true, "Alone", "no other verifier's webhooks are registered".to_owned())
        } else {
            let message = format!(
                "Kyverno decides beside Countersign and may deny what it admits: {}",
                others.join(", ")
            );
            (false, "KyvernoRegistered", message)
        };
        conditions.push(Condition { kind: "OnlyVerifier", holds, reason, message });
    }
    conditions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_site_says_what_stands_in_its_way() {
        let found = |kind: &str, ready| Found {
            id: ObjectId { kind: kind.to_owned(), namespace: String::new(), name: "default".to_owned() },
            generation: 1,
            conditions: serde_json::Value::Null,
            ready,
            replaced: true,
        };
        let mut memory = Memory { others: vec!["kyverno-resource".to_owned()], ..Memory::default() };
        memory.registered = Some(registered(&Ok::<_, String>(Registered::Removing)));
        let said = conditions(&found("Site", Err("spec.mode: x".to_owned())), &memory, None);
        let said: Vec<_> = said.iter().map(|own| (own.kind, own.holds, own.reason)).collect();
        let expected = [
            ("Ready", false, "LastGoodInForce"),
            ("WebhooksRegistered", false, "Removed"),
            ("OnlyVerifier", false, "KyvernoRegistered"),
        ];
        assert_eq!(said, expected);
        assert!(conditions(&found("ClusterPolicy", Ok(())), &memory, None).is_empty(), "Kyverno's own");
        memory.others.clear();
        let said = conditions(&found("ClusterPolicy", Ok(())), &memory, None);
        assert_eq!((said.len(), said[0].holds), (1, true));
    }
}
