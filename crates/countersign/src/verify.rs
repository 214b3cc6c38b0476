//! `countersign verify`: one-off verdicts.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use countersign_clock::SystemClock;
use countersign_evidence::Memory;
use countersign_mirrors::Severity;
use countersign_reference::Reference;
use countersign_site::Site;
use countersign_verdict::{Attestors, Code, Outcome, Question, Verdict, text};
use countersign_verifier::{Rules, Settings, Verifier};
use tokio::time::Instant;

use crate::cli::{Exit, Output, VerifyArguments};
use crate::site::{self, warn};
use crate::{hosts_dir, sources};

/// Verifies the images and prints what was found.
pub(crate) async fn run(arguments: &VerifyArguments) -> Result<Exit> {
    let mut pem = String::new();
    for path in &arguments.key {
        pem.push_str(&sources::text(path).map_err(anyhow::Error::msg).context("cannot read --key")?);
        pem.push('\n');
    }
    let attestors = Attestors::any_of_keys(&pem);
    countersign_verifier::check_attestors(&attestors).context("--key")?;
    let (verifier, rewrite) = verifier(arguments)?;
    let deadline = Instant::now() + Duration::from_secs(arguments.timeout);
    let verdicts = arguments.images.iter().map(|image| {
        let (verifier, attestors) = (&verifier, attestors.clone());
        let rewrite = rewrite.as_ref();
        async move {
            let image = match Reference::parse(image) {
                Ok(image) => image.with_default_tag(),
                Err(error) => return Err((image.clone(), error.to_string())),
            };
            // The name that a pod would be stored with.
            let image = rewrite.map_or(Ok(image.clone()), |site| site.rewrite.rewriter.rewrite(&image));
            let image = image.map_err(|error| (error.reference.clone(), error.to_string()))?;
            Ok(verifier.verify(&Question { image, attestors, repository: None }, deadline).await)
        }
    });
    let verdicts = futures_util::future::join_all(verdicts).await;
    print(arguments, &verdicts)?;
    Ok(verdicts.iter().map(exit).max().unwrap_or(Exit::Good))
}

/// The verifier, and the Site if names are to be rewritten by it.
fn verifier(arguments: &VerifyArguments) -> Result<(Arc<Verifier>, Option<Arc<Site>>)> {
    let clock = Arc::new(SystemClock::default());
    let store = Arc::new(Memory::default());
    if let Some(directory) = &arguments.hosts_dir {
        let tree = hosts_dir::read(directory)?;
        for image in &arguments.images {
            warn_of_findings(&tree, image);
        }
        let load = Arc::new(sources::loader(PathBuf::from("/")));
        return Ok((Verifier::new(Rules::Tree(tree), Settings::default(), load, store, clock), None));
    }
    let path = arguments.site.as_deref().unwrap_or(Path::new("site.yaml"));
    let site = site::read(path)?;
    let load = Arc::new(site::loader(path));
    let rules = Rules::Site(Arc::clone(&site));
    let verifier = Verifier::new(rules, site::settings(&site), load, store, clock);
    let rewrites = site.rewrite.enabled;
    Ok((verifier, rewrites.then_some(site)))
}

fn warn_of_findings(tree: &countersign_mirrors::Tree, image: &str) {
    let Ok(image) = Reference::parse(image) else { return };
    for finding in tree.plan(&image).map(|plan| plan.findings).unwrap_or_default() {
        let word = if finding.severity == Severity::FailOpen { " (pulls leave the site)" } else { "" };
        warn(&format!("{}: {}{word}", finding.at, finding.message));
    }
}

type Answer = std::result::Result<Verdict, (String, String)>;

/// A malformed reference is a negative verdict: such a pod would be denied.
fn exit(answer: &Answer) -> Exit {
    match answer {
        Ok(verdict) => match verdict.outcome {
            Outcome::Verified(_) => Exit::Good,
            Outcome::Undecided | Outcome::Forbidden => Exit::Unreachable,
            _ => Exit::Negative,
        },
        Err(_) => Exit::Negative,
    }
}

fn print(arguments: &VerifyArguments, answers: &[Answer]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    if arguments.output == Output::Json {
        let data: Vec<_> = answers
            .iter()
            .map(|answer| match answer {
                Ok(verdict) => text::data(verdict),
                Err((image, why)) => serde_json::json!({
                    "image": image, "verdict": "Refused", "summary": why,
                    "checks": [{ "code": Code::BadReference, "detail": why }],
                }),
            })
            .collect();
        writeln!(out, "{}", serde_json::to_string_pretty(&data)?)?;
        return Ok(());
    }
    for answer in answers {
        match answer {
            Ok(verdict) if arguments.explain => write!(out, "{}", text::explanation(verdict))?,
            Ok(verdict) => {
                writeln!(
                    out,
                    "{:<10} {}  {}",
                    verdict.outcome.word(),
                    verdict.image,
                    text::summary(verdict)
                )?;
            }
            Err((image, why)) => writeln!(out, "{:<10} {image}  {why}", "Refused")?,
        }
    }
    Ok(())
}
