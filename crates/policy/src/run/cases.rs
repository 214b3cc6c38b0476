//! Images, and the cases that rules make of them.

use countersign_reference::{ParseError, Reference};
use countersign_site::Pinning;
use countersign_verdict::{Code, FailurePolicy, Outcome as Found, PullSecrets, Question, Tier, Verdict};

use super::{Case, MAX_PULL_SECRETS, MAX_WORKED_ON, NOT_PINNED, Run};
use crate::engine::covers;
use crate::images::{self, Image};
use crate::load::{Policy, Rule, Verify};
use crate::respond::{Kind, Status};
use crate::{Phase, Want};

/// An image that a request brings.
pub(super) struct New {
    pointer: String,
    /// As the request has it.
    written: String,
    /// As it will be stored, save for the pin.
    image: String,
    reference: Result<Reference, ParseError>,
}

impl<'a> Run<'a> {
    /// The images that the request brings, as they will be stored; each parsed once.
    pub(super) fn new_images(&self) -> Vec<New> {
        let stored = self.review.old().map(images::of_pod).unwrap_or_default();
        let written: Vec<Image<'_>> =
            images::of_pod(self.review.object()).into_iter().take(MAX_WORKED_ON).collect();
        let images = if self.review.kind == "Pod" { images::of_pod(self.names.object()) } else { vec![] };
        let unchanged =
            |image: &Image<'_>| stored.iter().any(|old| old.is_at(image) && old.image == image.image);
        let new = images.into_iter().take(MAX_WORKED_ON).filter(|image| !unchanged(image));
        new.map(|image| {
            let origin = written.iter().find(|written| written.is_at(&image));
            New {
                pointer: image.pointer(),
                written: origin.map_or(image.image, |origin| origin.image).to_owned(),
                reference: Reference::parse(image.image).map(Reference::with_default_tag),
                image: image.image.to_owned(),
            }
        })
        .collect()
    }

    pub(super) fn cases_of(
        &mut self,
        (policy, rule): (&'a Policy, &'a Rule),
        entries: &'a [Verify],
        images: &[New],
        too_many: bool,
    ) {
        for image in images {
            for entry in entries {
                match &image.reference {
                    Ok(reference) if !self.covers(entry, &image.image, reference) => {}
                    Ok(reference) => {
                        let case = self.case((policy, rule, entry), image, reference, too_many);
                        self.cases.push(case);
                    }
                    // Nobody can say which pattern it would match: any that is there covers it.
                    Err(error) => {
                        let shown: String = image.image.chars().take(200).collect();
                        let message = format!(
                            "image `{shown}` was denied by {}/{}: {error} [{}]",
                            policy.name,
                            rule.name,
                            Code::BadReference
                        );
                        let enforce = self.enforces(policy, entry) && !self.only_warns(policy);
                        let told = if enforce { &mut self.denials } else { &mut self.warnings };
                        told.push(message.clone());
                        self.respond(
                            (policy, rule, Kind::ImageVerify),
                            (Status::Error, message),
                            enforce,
                            enforce,
                        );
                    }
                }
            }
        }
    }

    /// The image as its node asks for it: a node's scoped rules send one that keeps its name to
    /// the site's endpoints.
    fn asked(&self, reference: &Reference) -> Reference {
        let rewrite = &self.engine.site().rewrite;
        if self.engine.is_bootstrap(&self.review.namespace) && rewrite.enabled {
            return rewrite.rewriter.rewrite(reference).unwrap_or_else(|_| reference.clone());
        }
        reference.clone()
    }

    /// The Secrets that a node would pull the pod's images with, where the site lets them be used.
    fn pull_secrets(&self) -> Option<PullSecrets> {
        if !self.engine.site().registry.pull_secrets {
            return None;
        }
        let secrets = self.review.object()["spec"]["imagePullSecrets"].as_array()?;
        let names = secrets.iter().take(MAX_PULL_SECRETS).filter_map(|secret| secret["name"].as_str());
        let names: Vec<String> = names.map(str::to_owned).collect();
        let namespace = self.review.namespace.clone();
        (!names.is_empty()).then_some(PullSecrets { namespace, names })
    }

    fn covers(&self, entry: &Verify, image: &str, reference: &Reference) -> bool {
        let asked = self.asked(reference);
        covers(self.engine, entry, image, reference)
            || (asked != *reference && covers(self.engine, entry, &asked.to_string(), &asked))
    }

    fn case(
        &self,
        (policy, rule, entry): (&'a Policy, &'a Rule, &'a Verify),
        image: &New,
        reference: &Reference,
        too_many: bool,
    ) -> Case<'a> {
        let site = self.engine.site();
        let enforce = self.enforces(policy, entry);
        let asked = self.asked(reference);
        let refused = |code, why: &str| Some(Verdict::because(asked.clone(), Found::Refused, code, why));
        let unpinned = self.phase == Phase::Validate
            && enforce
            && site.pinning == Pinning::Always
            && reference.digest().is_none();
        // Where what cannot be decided is admitted, it was admitted without a digest before.
        let strict = self.tier == Tier::Fail && policy.failure_policy == FailurePolicy::Fail;
        let settled = if too_many {
            refused(Code::TooManyImages, "a pod has more than 64 images")
        } else if unpinned && strict {
            refused(Code::NotPinned, NOT_PINNED)
        } else {
            None
        };
        let question = Question {
            image: asked,
            attestors: entry.attestors.clone(),
            repository: entry.repository.clone(),
            any_age: self.tier == Tier::Ignore,
            pull_secrets: self.pull_secrets(),
        };
        let want = Want::Verdict { question, wait: enforce };
        let (reference, written, pointer) = (reference.clone(), image.written.clone(), image.pointer.clone());
        Case { policy, rule, entry, enforce, pointer, written, reference, want, settled, unpinned }
    }
}
