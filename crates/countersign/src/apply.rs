//! `countersign apply`: what policies say of objects, and make of them.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use countersign_policy::Kind;
use serde_json::{Value, json};

use crate::cli::{ApplyArguments, Exit, Format};
use crate::trial::{self, Answer, Documents, Trial, Tried, User, Values, name_of, namespace_of, table};

/// Bytes of objects from stdin.
const MAX_STDIN: u64 = 4 << 20;
const WORDS: [&str; 5] = ["pass", "fail", "warn", "error", "skip"];

/// Evaluates every policy on every object and prints what came of it.
pub(crate) async fn run(arguments: &ApplyArguments) -> Result<Exit> {
    let trial = prepare(arguments)?;
    let mut tried = Vec::new();
    for object in trial.objects() {
        tried.push((object, trial.on(object, None).await?));
    }
    let mut counts: BTreeMap<&str, usize> = WORDS.into_iter().map(|word| (word, 0)).collect();
    for (_, outcome) in &tried {
        for answer in &outcome.answers {
            *counts.entry(answer.word(arguments.audit_warn)).or_default() += 1;
        }
    }
    if arguments.policy_report {
        print_reports(arguments, &tried)?;
    } else if arguments.table {
        print_table(arguments, &tried)?;
    } else {
        print_failures(arguments, &tried)?;
    }
    print_changed(arguments, &tried)?;
    let summary = WORDS.map(|word| format!("{word}: {}", counts[word])).join(", ");
    if !arguments.policy_report {
        writeln!(std::io::stdout().lock(), "\n{summary}")?;
    }
    Ok(if counts["fail"] > 0 || counts["error"] > 0 {
        Exit::Negative
    } else if counts["warn"] > 0 || (arguments.warn_no_pass && counts["pass"] == 0) {
        Exit::Warned(arguments.warn_exit_code)
    } else {
        Exit::Good
    })
}

fn prepare(arguments: &ApplyArguments) -> Result<Trial> {
    if arguments.resource.is_empty() && !arguments.stdin {
        bail!("there is nothing to apply policies to: give `--resource` or `--stdin`");
    }
    let mut documents = Documents::default();
    let keys = trial::keys(arguments.site.as_deref())?;
    let lenient = |result: Result<()>| match result {
        Err(error) if arguments.continue_on_fail => {
            crate::site::warn(&format!("{error:#}"));
            Ok(())
        }
        result => result,
    };
    for path in &arguments.policies {
        lenient(documents.read_policies(path, &keys))?;
    }
    if documents.policies.is_empty() {
        bail!("there is no policy to apply");
    }
    for path in &arguments.resource {
        lenient(documents.read_objects(path))?;
    }
    if arguments.stdin {
        let mut text = String::new();
        std::io::stdin().lock().take(MAX_STDIN).read_to_string(&mut text).context("stdin")?;
        documents.add_objects(countersign_yaml::documents(&text).context("stdin")?, "stdin")?;
    }
    for path in &arguments.exception {
        documents.read_exceptions(path)?;
    }
    let mut values = arguments.values_file.as_deref().map(Values::read).transpose()?.unwrap_or_default();
    for (name, value) in &arguments.set {
        values.set(name, value);
    }
    let user = arguments.userinfo.as_deref().map(User::read).transpose()?;
    let site = trial::site(arguments.site.as_deref(), &documents.exceptions)?;
    let (policies, objects) = (documents.policies.len(), documents.objects.len());
    let plural = |count, word: &str| format!("{count} {word}{}", if count == 1 { "" } else { "s" });
    if !arguments.policy_report {
        let policies = if policies == 1 { "1 policy".to_owned() } else { format!("{policies} policies") };
        let mut out = std::io::stdout().lock();
        writeln!(out, "Applying {policies} to {}...", plural(objects, "resource"))?;
    }
    Ok(Trial::new(documents, values, user, site, trial::moment()))
}

/// `namespace/Kind/name`.
fn shown(object: &Value) -> String {
    let (kind, name, namespace) =
        (object["kind"].as_str().unwrap_or_default(), name_of(object), namespace_of(object));
    if namespace.is_empty() { format!("{kind}/{name}") } else { format!("{namespace}/{kind}/{name}") }
}

/// What did not hold, by policy and object.
fn print_failures(arguments: &ApplyArguments, tried: &[(&Value, Tried)]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    for (object, outcome) in tried {
        let mut policies: Vec<&str> =
            outcome.answers.iter().map(|answer| answer.response.policy.as_str()).collect();
        policies.dedup();
        for policy in policies {
            let told = |answer: &&Answer| {
                answer.response.policy == policy
                    && matches!(answer.word(arguments.audit_warn), "fail" | "error" | "warn")
            };
            let told: Vec<&Answer> = outcome.answers.iter().filter(told).collect();
            if told.is_empty() {
                continue;
            }
            writeln!(out, "policy {policy} -> resource {} failed:", shown(object))?;
            for (index, answer) in told.iter().enumerate() {
                let (rule, word) = (&answer.response.rule, answer.word(arguments.audit_warn));
                writeln!(out, "{} - {rule} ({word}) {}", index + 1, answer.response.message.trim())?;
            }
        }
    }
    Ok(())
}

fn print_table(arguments: &ApplyArguments, tried: &[(&Value, Tried)]) -> Result<()> {
    let mut rows = Vec::new();
    for (object, outcome) in tried {
        for answer in &outcome.answers {
            let response = &answer.response;
            let word = answer.word(arguments.audit_warn).to_owned();
            let mut row = vec![
                (rows.len() + 1).to_string(),
                response.policy.clone(),
                response.rule.clone(),
                shown(object),
                word,
            ];
            if arguments.detailed_results {
                row.push(response.message.lines().next().unwrap_or_default().to_owned());
            }
            rows.push(row);
        }
    }
    let mut heading = vec!["ID", "POLICY", "RULE", "RESOURCE", "RESULT"];
    if arguments.detailed_results {
        heading.push("MESSAGE");
    }
    Ok(write!(std::io::stdout().lock(), "{}", table(&heading, &rows))?)
}

/// Objects that mutate rules have something to say about, as they would be stored.
fn print_changed(arguments: &ApplyArguments, tried: &[(&Value, Tried)]) -> Result<()> {
    let mutated =
        |outcome: &Tried| outcome.answers.iter().any(|answer| answer.response.kind == Kind::Mutation);
    let mut text = String::new();
    for (object, outcome) in tried.iter().filter(|(_, outcome)| mutated(outcome)) {
        if outcome.object != **object {
            text.push_str(&document(arguments.output_format, &outcome.object)?);
        }
    }
    if text.is_empty() {
        return Ok(());
    }
    match &arguments.output {
        Some(path) => write_file(path, &text),
        // A report is read by programs.
        None if arguments.policy_report => Ok(()),
        None => Ok(write!(std::io::stdout().lock(), "\n{text}")?),
    }
}

fn write_file(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn document(format: Format, value: &Value) -> Result<String> {
    Ok(match format {
        Format::Yaml => format!("---\n{}\n", countersign_yaml::text(value)?.trim_end()),
        Format::Json => format!("{}\n", serde_json::to_string_pretty(value)?),
    })
}

/// A PolicyReport for each namespace, and a ClusterPolicyReport for what is in none.
fn print_reports(arguments: &ApplyArguments, tried: &[(&Value, Tried)]) -> Result<()> {
    let mut results: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
    for (object, outcome) in tried {
        let own = results.entry(namespace_of(object)).or_default();
        own.extend(outcome.answers.iter().map(|answer| {
            let response = &answer.response;
            json!({
                "source": "kyverno", "policy": response.policy, "rule": response.rule,
                "message": response.message, "result": answer.word(arguments.audit_warn),
                "scored": answer.scored,
                "resources": [{
                    "apiVersion": object["apiVersion"], "kind": object["kind"],
                    "name": name_of(object), "namespace": object["metadata"]["namespace"],
                }],
            })
        }));
    }
    let mut out = std::io::stdout().lock();
    for (namespace, results) in results {
        let count = |word: &str| results.iter().filter(|result| result["result"] == word).count();
        let summary: BTreeMap<&str, usize> = WORDS.into_iter().map(|word| (word, count(word))).collect();
        let mut report = json!({
            "apiVersion": "wgpolicyk8s.io/v1alpha2", "kind": "ClusterPolicyReport",
            "metadata": { "name": "merged" }, "summary": summary, "results": results,
        });
        if !namespace.is_empty() {
            report["kind"] = json!("PolicyReport");
            report["metadata"]["namespace"] = json!(namespace);
        }
        write!(out, "{}", document(arguments.output_format, &report)?)?;
    }
    Ok(())
}
