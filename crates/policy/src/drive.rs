//! Evaluation to its end, for whoever can find facts out.

use std::collections::HashSet;

use countersign_verdict::Tier;
use futures_util::future::join_all;

use crate::{Engine, Evaluation, Fact, Facts, Outcome, Phase, Review, Want};

/// How often an evaluation may ask for more facts.
pub const MAX_ROUNDS: usize = 16;

/// An evaluation that asks for facts without end, or for the same one twice: `Refused`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("its rules ask for facts without end")]
pub struct Endless;

impl Engine {
    /// Evaluates a review, and finds out what that needs: all wants of a round at once.
    ///
    /// That there is none at hand is an answer, where it is not worth waiting for.
    ///
    /// # Errors
    ///
    /// [`Endless`] after [`MAX_ROUNDS`], or when a fact is asked for that was given.
    pub async fn decide<F>(
        &self,
        review: &Review,
        phase: Phase,
        tier: Tier,
        find_out: impl Fn(Want) -> F,
    ) -> Result<Outcome, Endless>
    where
        F: Future<Output = Fact>,
    {
        let mut run = self.begin(review, phase, tier);
        drive(|facts| run.evaluate(facts), find_out).await
    }
}

async fn drive<F>(
    mut evaluate: impl FnMut(&Facts) -> Evaluation,
    find_out: impl Fn(Want) -> F,
) -> Result<Outcome, Endless>
where
    F: Future<Output = Fact>,
{
    let (mut facts, mut asked) = (Facts::default(), HashSet::new());
    for _ in 0..MAX_ROUNDS {
        let wants = match evaluate(&facts) {
            Evaluation::Done(outcome) => return Ok(*outcome),
            Evaluation::Needs(wants) => wants,
        };
        if wants.iter().any(|want| !asked.insert(want.clone())) {
            return Err(Endless);
        }
        let answers = join_all(wants.iter().map(|want| find_out(want.clone()))).await;
        for (want, answer) in wants.into_iter().zip(answers) {
            facts.add(want, answer);
        }
    }
    Err(Endless)
}

#[cfg(test)]
mod tests {
    use super::*;
    use countersign_reference::Reference;
    use countersign_verdict::{Attestors, Question};
    use futures_util::FutureExt as _;
    use serde_json::Value;

    fn want(number: usize) -> Want {
        let image = Reference::parse(&format!("registry.local/a:{number}")).unwrap();
        let question = Question::new(image, Attestors::any_of_keys("key"));
        Want::Verdict { question, wait: true }
    }

    /// Asks for one more fact in each of so many rounds.
    fn rounds(count: usize, same: bool) -> (Result<Outcome, Endless>, usize) {
        let mut round = 0;
        let evaluate = |_: &Facts| {
            round += 1;
            if round > count {
                let outcome = Outcome {
                    object: Value::Null,
                    denials: vec![],
                    warnings: vec![],
                    results: vec![],
                    responses: vec![],
                };
                return Evaluation::Done(Box::new(outcome));
            }
            Evaluation::Needs(vec![want(if same { 0 } else { round })])
        };
        let end = drive(evaluate, |_| async { Fact::Verdict(None) }).now_or_never().unwrap();
        (end, round)
    }

    #[test]
    fn there_is_an_end_to_asking() {
        assert!(rounds(MAX_ROUNDS - 1, false).0.is_ok());
        let (end, rounds_taken) = rounds(MAX_ROUNDS, false);
        assert_eq!((end.unwrap_err(), rounds_taken), (Endless, MAX_ROUNDS));
        assert_eq!(rounds(2, true).1, 2, "the same fact twice ends it at once");
        assert!(rounds(2, true).0.is_err());
    }
}
