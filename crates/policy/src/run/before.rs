//! What a rule would have said of the object that an update replaces (Kyverno `validateOldObject`).

use serde_json::{Value, json};

use super::Run;
use crate::context;
use crate::load::{Policy, Rule};
use crate::respond::Status;
use crate::selector::Against;
use crate::validate::{Lacking, MAX_ELEMENTS, Scene, Validate};
use crate::{Facts, Review, Want};

impl Run<'_> {
    /// Whether the rule would have failed for the object that is stored, were it created now: a rule that
    /// does not speak of creations, or whose preconditions are not met then, would not.
    ///
    /// The rule's own scope is spent afterwards.
    pub(super) fn failed_before(
        &mut self,
        own: &Validate,
        (policy, rule): (&Policy, &Rule),
        facts: &Facts,
        wants: &mut Vec<Want>,
    ) -> Result<bool, Lacking> {
        let Some(old) = self.review.old() else { return Ok(false) };
        self.names.begin(&policy.name, &rule.name);
        let created = |request: &Value| {
            let mut request = request.clone();
            request["object"] = old.clone();
            request["oldObject"] = Value::Null;
            request["operation"] = json!("CREATE");
            request
        };
        let review = Review {
            operation: "CREATE".to_owned(),
            request: created(&self.review.request),
            ..Review::clone(self.review)
        };
        let now = self.names.swap_request(created(self.names.request()));
        let failed = self.would_fail(&review, own, (policy, rule), facts, wants);
        self.names.swap_request(now);
        failed
    }

    fn would_fail(
        &mut self,
        review: &Review,
        own: &Validate,
        (policy, rule): (&Policy, &Rule),
        facts: &Facts,
        wants: &mut Vec<Want>,
    ) -> Result<bool, Lacking> {
        let mut lacking = |want| {
            wants.push(want);
            Lacking
        };
        let selected = rule.select.selects(&Against { review, facts, excludes: false });
        let excluded = rule.exclude.selects(&Against { review, facts, excludes: true });
        if !selected.map_err(&mut lacking)? || excluded.map_err(&mut lacking)? {
            return Ok(false);
        }
        let place = policy.namespace.as_deref();
        if let Err(error) = context::load(&rule.context, &mut self.names, facts, wants, place) {
            return unless_lacking(&error);
        }
        match rule.preconditions.hold(&self.names) {
            Ok(true) => {}
            Ok(false) => return Ok(false),
            Err(error) => return unless_lacking(&error),
        }
        let names = &mut self.names;
        let mut scene = Scene { names, facts, wants, own: place, left: MAX_ELEMENTS };
        Ok(own.answer(&rule.name, &mut scene, &[])?.0 == Status::Fail)
    }
}

/// What could not be evaluated has not failed.
fn unless_lacking(error: &countersign_jmespath::Error) -> Result<bool, Lacking> {
    if matches!(error, countersign_jmespath::Error::Missing(_)) { Err(Lacking) } else { Ok(false) }
}
