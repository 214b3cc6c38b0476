//! From findings to the answer.

use std::collections::BTreeMap;

use countersign_site::{PinForm, Pinning};
use countersign_verdict::{Decision, Outcome as Found, Verdict, text};
use serde_json::Value;

use super::{Case, Run};
use crate::respond::{Kind, Response, Status};
use crate::{Finding, Outcome, Phase, RuleResult};

impl Run<'_> {
    /// The answer, once something was found of every case.
    pub(super) fn conclude(&mut self, findings: Vec<Finding>) -> Outcome {
        let mut outcome = Outcome {
            object: Value::Null,
            denials: std::mem::take(&mut self.denials),
            warnings: std::mem::take(&mut self.warnings),
            results: Vec::with_capacity(findings.len()),
            responses: std::mem::take(&mut self.responses),
        };
        let mut pins: BTreeMap<String, String> = BTreeMap::new();
        for (case, finding) in std::mem::take(&mut self.cases).into_iter().zip(findings) {
            let mut decision = Decision::Admit;
            if let Some(verdict) = finding.verdict() {
                if case.enforce {
                    decision = verdict.outcome.decide(case.policy.failure_policy, self.tier);
                }
                // An image may be there, or be known of, by the time that the pods are.
                let early = self.review.template_of.is_some()
                    && matches!(verdict.outcome, Found::Undecided | Found::NotFound);
                if early || self.only_warns(case.policy) {
                    decision = Decision::Admit;
                }
                self.tell(&case, verdict, decision, &mut outcome);
                if let Some(pin) = self.pin(&case, verdict) {
                    pins.insert(case.pointer.clone(), pin);
                }
            }
            outcome.responses.extend(self.response(&case, &finding, decision));
            outcome.results.push(RuleResult {
                policy: case.policy.name.clone(),
                rule: case.rule.name.clone(),
                written: case.written,
                finding,
                enforce: case.enforce,
                decision,
            });
        }
        outcome.object = self.names.object_mut().take();
        if self.phase == Phase::Mutate {
            for (pointer, pinned) in pins {
                if let Some(slot) = outcome.object.pointer_mut(&pointer) {
                    *slot = Value::String(pinned);
                }
            }
        }
        outcome
    }

    /// What the rule says of the image.
    #[expect(clippy::unused_self, reason = "reads like its neighbours")]
    fn response(&self, case: &Case<'_>, finding: &Finding, decision: Decision) -> Option<Response> {
        let verdict = finding.verdict()?;
        let image = &verdict.image;
        let (status, message) = match &verdict.outcome {
            Found::Verified(_) => (Status::Pass, format!("verified image signatures for {image}")),
            Found::NotCovered | Found::Excepted => (Status::Skip, text::summary(verdict)),
            Found::Refused | Found::Undecided | Found::Forbidden => {
                (Status::Error, format!("failed to verify image {image}: {}", text::summary(verdict)))
            }
            _ => (Status::Fail, format!("failed to verify image {image}: {}", text::summary(verdict))),
        };
        Some(Response {
            policy: case.policy.name.clone(),
            rule: case.rule.name.clone(),
            kind: Kind::ImageVerify,
            status,
            message,
            enforce: case.enforce,
            denies: decision == Decision::Deny,
        })
    }

    /// What whoever made the request is told.
    fn tell(&self, case: &Case<'_>, verdict: &Verdict, decision: Decision, outcome: &mut Outcome) {
        let (policy, rule, image) = (&case.policy.name, &case.rule.name, &verdict.image);
        if decision == Decision::Deny {
            outcome.denials.push(text::denial(verdict, &case.written, policy, rule));
        } else if case.enforce && verdict.proof().is_none() && self.review.template_of.is_some() {
            let why = text::summary(verdict);
            outcome.warnings.push(format!("its pods would be denied by {policy}/{rule}: {image}: {why}"));
        } else if case.enforce && verdict.proof().is_none() {
            outcome.warnings.push(format!("{policy}/{rule}: {image}: {}", text::summary(verdict)));
        }
        let told = verdict
            .warnings()
            .map(|check| format!("{policy}/{rule}: {image}: {} [{}]", check.detail, check.code));
        outcome.warnings.extend(told);
        if let Some(since) = verdict.proof().and_then(|proof| proof.stale_since) {
            let stale = format!("no registry answers: the tag was last confirmed at {since}");
            outcome.warnings.push(format!("{policy}/{rule}: {image}: {stale}"));
        }
    }

    /// The image with its verified digest, where it is to be pinned.
    fn pin(&self, case: &Case<'_>, verdict: &Verdict) -> Option<String> {
        let site = self.engine.site();
        let pinning = match site.pinning {
            Pinning::Always => true,
            Pinning::Policy => case.entry.pin,
            Pinning::Off => false,
        };
        // Audit pins only from a mapping that is fresh.
        let proof = verdict.proof().filter(|proof| case.enforce || proof.stale_since.is_none())?;
        let pinned = pinning.then(|| case.reference.clone().with_digest(proof.digest.clone()))?;
        let pinned = if site.pin_form == PinForm::Digest { pinned.without_tag() } else { pinned };
        Some(pinned.to_string())
    }
}
