//! `/metrics`: what the program does, in OpenMetrics text. No label is taken from a request.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use countersign_admission::{Observer, Owner, Report, Subject};
use countersign_cluster::{About, Events, Evidence};
use countersign_evidence::Store as _;
use countersign_policy::Phase;
use countersign_site::Site;
use countersign_verdict::{Decision, Format, Tier, Verdict};
use countersign_verifier::Verifier;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::live::Live;

/// Seconds: warm decisions take tenths of a millisecond, the deadline is five seconds.
const BUCKETS: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answer {
    phase: &'static str,
    tier: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    verdict: &'static str,
    format: &'static str,
    enforce: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    code: &'static str,
}

/// Counts what is decided, and tells owners of pods by events.
#[derive(Clone)]
pub(crate) struct Metrics {
    answers: Family<Answer, Histogram, fn() -> Histogram>,
    verdicts: Family<Kind, Counter>,
    reasons: Family<Reason, Counter>,
    events: Events,
    /// Whether this replica leads.
    pub(crate) leads: Gauge,
    /// When the serving certificate ends, as a Unix time.
    pub(crate) certificate_ends: Gauge,
}

impl Metrics {
    pub(crate) fn new(events: Events) -> Self {
        Self {
            answers: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
            verdicts: Family::default(),
            reasons: Family::default(),
            events,
            leads: Gauge::default(),
            certificate_ends: Gauge::default(),
        }
    }

    /// All that `/metrics` shows.
    pub(crate) fn registry(&self, live: Arc<Live>, evidence: Arc<Evidence>) -> Registry {
        let mut registry = Registry::with_prefix("countersign");
        registry.register(
            "admission_seconds",
            "How long reviews took to answer, by webhook and result",
            self.answers.clone(),
        );
        registry.register(
            "verdicts",
            "Verdicts that counted, one for each image and rule that covers it",
            self.verdicts.clone(),
        );
        registry.register(
            "reasons",
            "What decided verdicts that were not `Verified`, and what was told of those that were, by code",
            self.reasons.clone(),
        );
        registry.register("leader", "Whether this replica leads", self.leads.clone());
        registry.register(
            "certificate_expiry_seconds",
            "When the serving certificate ends, as a Unix time",
            self.certificate_ends.clone(),
        );
        registry.register_collector(Box::new(State { live, evidence }));
        registry
    }
}

const fn word(format: Format) -> &'static str {
    match format {
        Format::CosignSig => "cosign",
        Format::SigstoreBundle => "bundle",
    }
}

/// As text.
pub(crate) fn text(registry: &Registry) -> Result<String, fmt::Error> {
    let mut text = String::new();
    encode(&mut text, registry)?;
    Ok(text)
}

impl Observer for Metrics {
    fn answered(&self, phase: Phase, tier: Tier, allowed: bool, took: Duration) {
        let answer = Answer {
            phase: if phase == Phase::Mutate { "mutate" } else { "validate" },
            tier: if tier == Tier::Fail { "fail" } else { "ignore" },
            result: if allowed { "allowed" } else { "denied" },
        };
        self.answers.get_or_create(&answer).observe(took.as_secs_f64());
    }

    fn verdict(&self, verdict: &Verdict, enforce: bool, _: Decision) {
        let kind = Kind {
            verdict: verdict.outcome.word(),
            format: verdict.proof().map_or("none", |proof| word(proof.format)),
            enforce: if enforce { "true" } else { "false" },
        };
        self.verdicts.get_or_create(&kind).inc();
        let deciding = verdict.deciding().filter(|_| verdict.proof().is_none());
        for check in deciding.into_iter().chain(verdict.warnings()) {
            self.reasons.get_or_create(&Reason { code: check.code.as_str() }).inc();
        }
    }

    fn report(&self, subject: &Subject, report: Report, message: &str) {
        let namespace = subject.namespace.clone();
        let about = match &subject.owner {
            Some(Owner { api_version, kind, name, uid }) => About {
                api_version: api_version.clone(),
                kind: kind.clone(),
                namespace,
                name: name.clone(),
                uid: uid.clone(),
            },
            None => About {
                api_version: subject.api_version.clone(),
                kind: subject.kind.clone(),
                namespace,
                name: subject.name.clone(),
                uid: String::new(),
            },
        };
        self.events.say(about, report.reason(), message);
    }
}

/// What is asked for when somebody looks.
struct State {
    live: Arc<Live>,
    evidence: Arc<Evidence>,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("State")
    }
}

impl Collector for State {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let webhook = self.live.webhook();
        let ready = ConstGauge::new(i64::from(webhook.is_ok()));
        ready.encode(encoder.encode_descriptor(
            "ready",
            "Whether there is a Site and all has been read",
            None,
            ready.metric_type(),
        )?)?;
        let digests = ConstGauge::new(i64::try_from(self.evidence.digests()).unwrap_or(i64::MAX));
        digests.encode(encoder.encode_descriptor(
            "evidence_digests",
            "Images that there is evidence of in the cluster",
            None,
            digests.metric_type(),
        )?)?;
        let findings = ConstGauge::new(i64::try_from(self.evidence.findings().len()).unwrap_or(i64::MAX));
        findings.encode(encoder.encode_descriptor(
            "evidence_findings",
            "Things in the evidence that were not put there, and do not count",
            None,
            findings.metric_type(),
        )?)?;
        if let Some(site) = &self.live.taken.borrow().site {
            trust(site, &mut encoder)?;
        }
        let Ok(webhook) = webhook else { return Ok(()) };
        let verifier: &Arc<Verifier> = webhook.answers();
        // Verifiers come and go with the Site: counters begin anew.
        let hits = ConstCounter::new(verifier.evidence_hits());
        hits.encode(encoder.encode_descriptor(
            "evidence_hits",
            "Proofs that were found in the evidence",
            None,
            hits.metric_type(),
        )?)?;
        let mut endpoints = verifier.endpoints();
        endpoints.sort_by(|a, b| a.name.cmp(&b.name));
        endpoints.dedup_by(|a, b| {
            // Several hosts may lead to one endpoint.
            let same = a.name == b.name;
            if same {
                b.held_off |= a.held_off;
                for ((_, count), (_, more)) in b.requests.iter_mut().zip(&a.requests) {
                    *count += more;
                }
            }
            same
        });
        let counter = ConstCounter::new(0_u64);
        let mut requests = encoder.encode_descriptor(
            "endpoint_requests",
            "Requests to an endpoint by what came of them",
            None,
            counter.metric_type(),
        )?;
        for endpoint in &endpoints {
            for (outcome, count) in &endpoint.requests {
                let labels = [("endpoint", endpoint.name.as_str()), ("outcome", *outcome)];
                ConstCounter::new(*count).encode(requests.encode_family(&labels)?)?;
            }
        }
        let gauge = ConstGauge::new(0_i64);
        let mut up = encoder.encode_descriptor(
            "endpoint_up",
            "Whether an endpoint is asked: not while it could not be reached a moment ago",
            None,
            gauge.metric_type(),
        )?;
        for endpoint in &endpoints {
            let labels = [("endpoint", endpoint.name.as_str())];
            ConstGauge::new(i64::from(!endpoint.held_off)).encode(up.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

/// Whom the Site trusts. The names of keys are the Site's own.
fn trust(site: &Site, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
    let number = |count: usize| ConstGauge::new(i64::try_from(count).unwrap_or(i64::MAX));
    let keys = number(site.trust.keys.len());
    let help = "Keys that the Site names";
    keys.encode(encoder.encode_descriptor("site_keys", help, None, keys.metric_type())?)?;
    let revoked = number(site.revoked.len());
    let help = "Digests that the Site has revoked";
    revoked.encode(encoder.encode_descriptor("revoked_digests", help, None, revoked.metric_type())?)?;
    let gauge = ConstGauge::new(0_i64);
    let help = "Until when a key is trusted, as a Unix time; those without an end are left out";
    let mut ends = encoder.encode_descriptor("key_trusted_until_seconds", help, None, gauge.metric_type())?;
    for (name, key) in &site.trust.keys {
        if let Some(until) = key.period.until {
            let labels = [("key", name.as_str())];
            ConstGauge::new(until.as_second()).encode(ends.encode_family(&labels)?)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use countersign_clock::SystemClock;
    use countersign_cluster::{Client, Config};
    use countersign_reference::{Digest, Reference};
    use countersign_verdict::{Code, Outcome, Proof};

    use super::*;

    /// A client of nobody: nothing is sent until events are polled.
    fn events() -> Events {
        let config = Config::new(hyper::Uri::from_static("http://127.0.0.1:1"));
        let client = Client::try_from(config).unwrap();
        Events::new(&client, "test", Arc::new(SystemClock::default())).0
    }

    #[tokio::test]
    async fn t_43_nothing_that_is_asked_for_makes_a_series_of_its_own() {
        let metrics = Metrics::new(events());
        let mut registry = Registry::default();
        registry.register("answers", "", metrics.answers.clone());
        registry.register("verdicts", "", metrics.verdicts.clone());
        registry.register("reasons", "", metrics.reasons.clone());
        let series = || -> BTreeSet<String> {
            let text = text(&registry).unwrap();
            text.lines().filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned())).collect()
        };
        let ask = |marked: &str| {
            let image = Reference::parse(&format!("{marked}.example/{marked}/x:{marked}")).unwrap();
            let digest = Digest::sha256_of(marked.as_bytes());
            let proof = Proof {
                digest: digest.clone(),
                keys: vec![marked.to_owned()],
                format: Format::SigstoreBundle,
                source: marked.to_owned(),
                name: Some(marked.to_owned()),
                index: None,
                stale_since: None,
            };
            let because = |outcome| Verdict::because(image.clone(), outcome, Code::Internal, marked);
            let verdicts = [
                Verdict { outcome: Outcome::Verified(proof), ..because(Outcome::Refused) },
                because(Outcome::Unsigned),
                because(Outcome::Rejected),
                because(Outcome::NotFound),
                because(Outcome::Refused),
                because(Outcome::Undecided),
                because(Outcome::Forbidden),
            ];
            for verdict in verdicts {
                let endpoint = Some(format!("https://{marked}.example"));
                let verdict = Verdict { endpoint, digest: Some(digest.clone()), ..verdict };
                for enforce in [true, false] {
                    metrics.verdict(&verdict, enforce, Decision::Deny);
                }
            }
            let owner = Owner { kind: marked.to_owned(), name: marked.to_owned(), ..Owner::default() };
            let subject = Subject {
                api_version: marked.to_owned(),
                kind: marked.to_owned(),
                namespace: marked.to_owned(),
                name: marked.to_owned(),
                owner: Some(owner),
            };
            metrics.report(&subject, Report::ImageDenied, marked);
            for (phase, tier) in [(Phase::Mutate, Tier::Fail), (Phase::Validate, Tier::Ignore)] {
                metrics.answered(phase, tier, marked.len().is_multiple_of(2), Duration::from_millis(1));
            }
        };
        ask("marked1");
        ask("marked10");
        let first = series();
        assert!(first.len() > 14, "{first:#?}");
        for number in 100..1100 {
            ask(&format!("marked{number}"));
        }
        assert_eq!(series(), first);
        assert!(first.iter().all(|line| !line.contains("marked")), "{first:#?}");
    }
}
