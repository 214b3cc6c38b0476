//! Verdicts as they are put into words.

use std::time::Duration;

use countersign_reference::Digest;
use countersign_signature::TrustError;
use countersign_verdict::{Check, Code, Outcome, Proof, Question, Verdict};

use crate::proofs::Proven;

/// Why there is no proof.
pub(crate) fn failed(question: &Question, outcome: Outcome, checks: Vec<Check>) -> Verdict {
    let digest = question.image.digest().cloned();
    Verdict { image: question.image.clone(), outcome, digest, endpoint: None, checks }
}

/// Keys that nobody can be judged by.
pub(crate) fn refused_trust(question: &Question, error: &TrustError) -> Verdict {
    let code = if *error == TrustError::NoKeys { Code::NoKeys } else { Code::Malformed };
    Verdict::because(question.image.clone(), Outcome::Refused, code, error.to_string())
}

/// That the time for a question was over.
pub(crate) fn too_long(most: Duration) -> Check {
    Check::new("", "", Code::Deadline, format!("no end within {} s", most.as_secs()))
}

/// That something went wrong here.
pub(crate) fn internal(question: &Question) -> Verdict {
    let why = "verification failed unexpectedly";
    Verdict::because(question.image.clone(), Outcome::Refused, Code::Internal, why)
}

/// What is proven, as of its digest.
pub(crate) fn verified(
    question: &Question,
    digest: &Digest,
    proven: &Proven,
    endpoint: Option<String>,
    mut checks: Vec<Check>,
) -> Verdict {
    let signatures = proven.proof.get();
    checks.extend(proven.remarks.iter().cloned());
    let proof = Proof {
        digest: digest.clone(),
        keys: signatures.keys.clone(),
        format: signatures.format,
        source: signatures.source.clone(),
        name: signatures.name.clone(),
        index: proven.index.clone(),
        stale_since: None,
    };
    Verdict {
        image: question.image.clone(),
        digest: Some(digest.clone()),
        outcome: Outcome::Verified(proof),
        endpoint,
        checks,
    }
}
