//! `countersign verify`: one-off verdicts.

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use countersign_clock::SystemClock;
use countersign_evidence::Memory;
use countersign_mirrors::Severity;
use countersign_policy::{Engine, Fact, Finding, Phase, Review, Want};
use countersign_reference::Reference;
use countersign_site::Site;
use countersign_verdict::{Attestors, Code, Decision, Outcome, Question, Tier, Verdict, text};
use countersign_verifier::{Purpose, Rules, Settings, SourceLoader, Verifier};
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::cli::{Exit, Output, VerifyArguments};
use crate::site::{self, warn};
use crate::{hosts_dir, policies, sources};

/// What was found about an image, by one rule where policies were asked.
struct Line {
    rule: Option<String>,
    answer: Answer,
}

/// A verdict; or the image as written, and why there can be none.
enum Answer {
    Verdict(Box<Verdict>),
    Refused { image: String, code: Code, why: String },
}

/// What answers are found by.
struct Setup {
    verifier: Arc<Verifier>,
    site: Option<Arc<Site>>,
    load: Arc<SourceLoader>,
    deadline: Instant,
}

/// Verifies the images and prints what was found.
pub(crate) async fn run(arguments: &VerifyArguments) -> Result<Exit> {
    let setup = Setup::of(arguments)?;
    let lines = match &setup.site {
        Some(site) if !arguments.policy.is_empty() => {
            let keys = policies::keys(site, &*setup.load)?;
            let loaded = policies::load(&policies::of_files(&arguments.policy), &keys)?;
            loaded.tell();
            let (policies, exceptions) = loaded.apart();
            let engine = Engine::new(policies, Arc::clone(site)).with_exceptions(exceptions);
            let lines = arguments.images.iter().map(|image| {
                let (setup, engine) = (&setup, &engine);
                async move { setup.by_policies(engine, &arguments.namespace, image).await }
            });
            join_all(lines).await.into_iter().flatten().collect()
        }
        _ => {
            let attestors = attestors(&arguments.key)?;
            join_all(arguments.images.iter().map(|image| setup.by_keys(&attestors, image))).await
        }
    };
    print(arguments, &lines)?;
    Ok(lines.iter().map(|line| line.answer.exit()).max().unwrap_or(Exit::Good))
}

fn attestors(keys: &[PathBuf]) -> Result<Attestors> {
    let mut pem = String::new();
    for path in keys {
        pem.push_str(&sources::text(path).map_err(anyhow::Error::msg).context("cannot read --key")?);
        pem.push('\n');
    }
    let attestors = Attestors::any_of_keys(&pem);
    countersign_verifier::check_attestors(&attestors).context("--key")?;
    Ok(attestors)
}

impl Setup {
    fn of(arguments: &VerifyArguments) -> Result<Self> {
        let site = arguments.site.as_deref().map(site::read).transpose()?;
        let settings = site.as_deref().map_or_else(Settings::default, site::settings);
        let load: Arc<SourceLoader> = match &arguments.site {
            Some(path) => Arc::new(site::loader(path)),
            None => Arc::new(sources::loader(PathBuf::new())),
        };
        let rules = match (&arguments.hosts_dir, &site) {
            (Some(directory), _) => {
                let tree = hosts_dir::read(directory)?;
                for image in &arguments.images {
                    warn_of_findings(&tree, image);
                }
                Rules::Tree(tree)
            }
            (None, Some(site)) => Rules::Site(Arc::clone(site)),
            (None, None) => anyhow::bail!("--site or --hosts-dir is needed: one of them names the endpoints"),
        };
        let (store, clock) = (Arc::new(Memory::default()), Arc::new(SystemClock::default()));
        let verifier = Verifier::new(rules, settings, Arc::clone(&load), store, clock);
        if let Some(site) = site.as_ref().filter(|_| arguments.hosts_dir.is_none()) {
            verifier.prepare(&site.registry.name).context("the Site's endpoints")?;
        }
        let deadline = Instant::now() + Duration::from_secs(arguments.timeout);
        Ok(Self { verifier, site, load, deadline })
    }

    /// Whether any of the keys has signed the image, under the name that a pod would be stored with.
    async fn by_keys(&self, attestors: &Attestors, written: &str) -> Line {
        let bad = |why: String| {
            let answer = Answer::Refused { image: written.to_owned(), code: Code::BadReference, why };
            Line { rule: None, answer }
        };
        let image = match Reference::parse(written) {
            Ok(image) => image.with_default_tag(),
            Err(error) => return bad(error.to_string()),
        };
        let rewrites = self.site.as_ref().filter(|site| site.rewrite.enabled);
        let image = match rewrites.map(|site| site.rewrite.rewriter.rewrite(&image)) {
            None => image,
            Some(Ok(image)) => image,
            Some(Err(error)) => return bad(error.to_string()),
        };
        let question = Question::new(image, attestors.clone());
        let verdict = self.verifier.verify(&question, self.deadline, Purpose::Decision).await;
        Line { rule: None, answer: Answer::Verdict(Box::new(verdict)) }
    }

    /// What each rule that covers the image says, were it in a new pod.
    async fn by_policies(&self, engine: &Engine, namespace: &str, written: &str) -> Vec<Line> {
        let mut review = Review::of(json!({
            "operation": "CREATE", "namespace": namespace, "kind": { "version": "v1", "kind": "Pod" },
            "object": {
                "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "verify", "namespace": namespace },
                "spec": { "containers": [{ "name": "verify", "image": written }] },
            },
        }));
        review.moment = Some(crate::trial::moment());
        let find_out = async |want: Want| match want {
            Want::Verdict { question, .. } => {
                Fact::Verdict(Some(self.verifier.verify(&question, self.deadline, Purpose::Decision).await))
            }
            Want::ConfigMap { .. } | Want::Namespace { .. } | Want::Roles { .. } => {
                Fact::Value(Err("there is no cluster to ask".to_owned()))
            }
        };
        let decided = engine.decide(&review, Phase::Mutate, Tier::Fail, &find_out).await;
        let refused = |code, why: String| {
            let image = written.to_owned();
            Line { rule: None, answer: Answer::Refused { image, code, why } }
        };
        let outcome = match decided {
            Ok(outcome) => outcome,
            Err(error) => return vec![refused(Code::LimitReached, error.to_string())],
        };
        let (mut lines, mut told) = (Vec::new(), Vec::new());
        for result in outcome.results {
            let Finding::Known(verdict) = result.finding else { continue };
            if result.decision == Decision::Deny {
                told.push(text::denial(&verdict, &result.written, &result.policy, &result.rule));
            }
            let rule = Some(format!("{}/{}", result.policy, result.rule));
            lines.push(Line { rule, answer: Answer::Verdict(Box::new(verdict)) });
        }
        // What is denied without a verdict: no reference, a rule that could not be loaded.
        let others = outcome.denials.into_iter().filter(|denial| !told.contains(denial));
        lines.extend(others.map(|why| {
            let bad = Reference::parse(written).is_err();
            refused(if bad { Code::BadReference } else { Code::RuleNotLoaded }, why)
        }));
        if lines.is_empty() {
            let stored = outcome.object.pointer("/spec/containers/0/image").and_then(Value::as_str);
            lines.push(match Reference::parse(stored.unwrap_or(written)) {
                Err(error) => refused(Code::BadReference, error.to_string()),
                Ok(image) => {
                    let digest = image.digest().cloned();
                    let outcome = Outcome::NotCovered;
                    let verdict = Verdict { image, outcome, digest, endpoint: None, checks: Vec::new() };
                    Line { rule: None, answer: Answer::Verdict(Box::new(verdict)) }
                }
            });
        }
        lines
    }
}

fn warn_of_findings(tree: &countersign_mirrors::Tree, image: &str) {
    let Ok(image) = Reference::parse(image) else { return };
    for finding in tree.plan(&image).map(|plan| plan.findings).unwrap_or_default() {
        let word = if finding.severity == Severity::FailOpen { " (pulls leave the site)" } else { "" };
        warn(&format!("{}: {}{word}", finding.at, finding.message));
    }
}

impl Answer {
    /// What can have no verdict is a negative one: such a pod would be denied.
    fn exit(&self) -> Exit {
        match self {
            Self::Verdict(verdict) => match verdict.outcome {
                Outcome::Verified(_) | Outcome::NotCovered | Outcome::Excepted => Exit::Good,
                Outcome::Undecided | Outcome::Forbidden => Exit::Unreachable,
                _ => Exit::Negative,
            },
            Self::Refused { .. } => Exit::Negative,
        }
    }

    fn data(&self) -> Value {
        match self {
            Self::Verdict(verdict) => text::data(verdict),
            Self::Refused { image, code, why } => json!({
                "image": image, "verdict": Outcome::Refused.word(), "summary": why,
                "checks": [{ "code": code, "detail": why }], "hint": code.hint(),
            }),
        }
    }
}

fn print(arguments: &VerifyArguments, lines: &[Line]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    if arguments.output == Output::Json {
        let data = |line: &Line| {
            let mut data = line.answer.data();
            if let Some(rule) = &line.rule {
                data["rule"] = json!(rule);
            }
            data
        };
        let data: Vec<_> = lines.iter().map(data).collect();
        writeln!(out, "{}", serde_json::to_string_pretty(&data)?)?;
        return Ok(());
    }
    for line in lines {
        let rule = line.rule.as_ref().map(|rule| format!("  {rule}:")).unwrap_or_default();
        match &line.answer {
            Answer::Verdict(verdict) if arguments.explain => {
                if let Some(rule) = &line.rule {
                    writeln!(out, "rule  {rule}")?;
                }
                write!(out, "{}", text::explanation(verdict))?;
            }
            Answer::Verdict(verdict) => {
                let (word, image) = (verdict.outcome.word(), &verdict.image);
                writeln!(out, "{word:<10} {image}{rule}  {}", text::summary(verdict))?;
            }
            Answer::Refused { image, why, .. } => {
                writeln!(out, "{:<10} {image}{rule}  {why}", Outcome::Refused.word())?;
            }
        }
    }
    Ok(())
}
