//! What the API server has to ask about: the kinds and operations that rules speak of.

use std::collections::BTreeSet;

use countersign_reference::wildcard_match;
use countersign_site::Mode;
use countersign_verdict::FailurePolicy;

use crate::engine::Engine;
use crate::kinds::KindPattern;
use crate::load::{Body, Policy, Rule};
use crate::template_pod::TEMPLATES;

/// Parts of objects that the API server is asked to connect to.
pub const CONNECTIONS: [&str; 4] = ["attach", "exec", "portforward", "proxy"];
/// Requests that some rule may have something to say about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Interest {
    /// Patterns for the kind: its group, its version, and the kind itself.
    pub group: String,
    /// `v1`, or `*`.
    pub version: String,
    /// `Deployment`, or with wildcards.
    pub kind: String,
    /// The part of an object, or nothing for the object itself.
    pub subresource: String,
    /// `CREATE`, `UPDATE`, `DELETE` or `CONNECT`.
    pub operation: &'static str,
    /// Whether it is the object that may be changed, or the answer.
    pub mutates: bool,
    /// Whether it is a Policy's, of one namespace: it has no say in which version of a kind all others see.
    pub namespaced: bool,
    /// Whether no rule would deny the request where nobody can answer: its policies audit, or say
    /// `failurePolicy: Ignore`.
    pub lenient: bool,
}

impl Interest {
    /// Whether it is in a part that is asked for as an object of this kind. Which group and version that
    /// is of is not known.
    pub fn is_in_part(&self, kind: &str, subresource: &str) -> bool {
        wildcard_match(&self.kind, kind) && wildcard_match(&self.subresource, subresource)
    }

    /// Whether it is in objects of this kind, or in a part of one.
    pub fn is_in(&self, group: &str, version: &str, kind: &str, subresource: &str) -> bool {
        wildcard_match(&self.group, group)
            && wildcard_match(&self.version, version)
            && wildcard_match(&self.kind, kind)
            && wildcard_match(&self.subresource, subresource)
    }
}

impl Engine {
    /// What all rules together have an interest in. Where a rule that is strict and one that is lenient
    /// have an interest in the same, it is there twice.
    pub fn interests(&self) -> BTreeSet<Interest> {
        let mut found = BTreeSet::new();
        for policy in self.policies() {
            for rule in &policy.rules {
                self.of_rule(policy, rule, &mut found);
            }
        }
        // Templates are judged early; the pods are judged in any case.
        let verifies = |rule: &Rule| matches!(rule.body, Body::Verify(_));
        if self.site().mode == Mode::Enforce
            && self.policies().iter().any(|policy| policy.rules.iter().any(verifies))
        {
            for ((group, kind, _), operation) in
                TEMPLATES.into_iter().flat_map(|kind| [(kind, "CREATE"), (kind, "UPDATE")])
            {
                found.insert(Interest {
                    group: group.to_owned(),
                    version: "v1".to_owned(),
                    kind: kind.to_owned(),
                    subresource: String::new(),
                    operation,
                    mutates: false,
                    namespaced: false,
                    lenient: true,
                });
            }
        }
        found
    }

    fn of_rule(&self, policy: &Policy, rule: &Rule, found: &mut BTreeSet<Interest>) {
        let (mutates, enforces, deletions) = match &rule.body {
            Body::Mutate(_) => (true, true, false),
            Body::Validate(_) if !policy.admission => return,
            Body::Validate(own) => (false, own.action.may_enforce(&policy.action), !own.is_of_object()),
            // Both webhooks are asked about pods in any case.
            Body::Verify(_) => return,
            Body::Refused { enforce, .. } => (false, *enforce, false),
        };
        // What one namespace wants keeps no other from anything.
        let lenient = policy.failure_policy == FailurePolicy::Ignore
            || policy.namespace.is_some()
            || !enforces
            || self.site().mode == Mode::Audit;
        for (kind, operations) in rule.select.interests() {
            // It would not be judged: see `Policy::speaks_of`.
            if policy.namespace.is_some() && kind.kind == "Namespace" {
                continue;
            }
            let part = kind.subresource.as_str();
            let known: &[&'static str] = match (mutates, deletions) {
                _ if CONNECTIONS.contains(&part) => &["CONNECT"],
                // What parts a wildcard means is not known here.
                (false, true) if part.contains(['*', '?']) => &["CREATE", "UPDATE", "DELETE", "CONNECT"],
                (false, false) if part.contains(['*', '?']) => &["CREATE", "UPDATE", "CONNECT"],
                (false, true) => &["CREATE", "UPDATE", "DELETE"],
                (true, _) | (false, false) => &["CREATE", "UPDATE"],
            };
            let named = |operation: &&&str| operations.contains(*operation);
            let wanted: Vec<&'static str> = if operations.is_empty() {
                known.to_vec()
            } else {
                ["CREATE", "UPDATE", "DELETE", "CONNECT"].iter().filter(named).copied().collect()
            };
            for operation in wanted {
                let KindPattern { group, version, kind, subresource } = kind.clone();
                let namespaced = policy.namespace.is_some();
                found.insert(Interest {
                    group,
                    version,
                    kind,
                    subresource,
                    operation,
                    mutates,
                    namespaced,
                    lenient,
                });
            }
        }
    }
}
