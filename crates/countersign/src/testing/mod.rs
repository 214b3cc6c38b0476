//! `countersign test`: policies held against objects whose results somebody has written down
//! (`kyverno-test.yaml`).

mod case;
mod expected;

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use crate::cli::{Exit, Output, TestArguments};
use crate::trial::table;
use case::{Case, Row};

/// Directories below the one that is given.
const MAX_DEPTH: usize = 32;

/// Runs every test of a directory.
pub(crate) async fn run(arguments: &TestArguments) -> Result<Exit> {
    let selector = Selector::parse(arguments.test_case_selector.as_deref())?;
    let mut files = Vec::new();
    if arguments.path.is_dir() {
        walk(&arguments.path, &arguments.file_name, 0, &mut files)?;
    } else {
        files.push(arguments.path.clone());
    }
    if files.is_empty() && arguments.require_tests {
        bail!("there is no `{}` in {}", arguments.file_name, arguments.path.display());
    }
    let mut done = Vec::new();
    for file in &files {
        done.push((file, Case::run(file, arguments.site.as_deref(), &selector).await));
    }
    let rows = || done.iter().filter_map(|(_, case)| case.as_ref().ok()).flat_map(|case| &case.rows);
    let passed = rows().filter(|row| row.passed).count();
    let failed = rows().count() - passed;
    match arguments.output {
        Output::Json => print_json(&done, passed, failed)?,
        Output::Table => print_tables(&done, arguments.fail_only, passed, failed)?,
    }
    Ok(if done.iter().any(|(_, case)| case.is_err()) {
        Exit::Usage
    } else if failed > 0 {
        Exit::Negative
    } else {
        Exit::Good
    })
}

/// The files of this name, in order.
fn walk(directory: &Path, name: &str, depth: usize, found: &mut Vec<PathBuf>) -> Result<()> {
    if depth == MAX_DEPTH {
        bail!("{}: more than {MAX_DEPTH} directories deep", directory.display());
    }
    let entries = std::fs::read_dir(directory).with_context(|| directory.display().to_string())?;
    let entries: std::io::Result<Vec<_>> = entries.collect();
    let mut entries = entries.with_context(|| directory.display().to_string())?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let kind = entry.file_type().with_context(|| entry.path().display().to_string())?;
        if kind.is_dir() {
            walk(&entry.path(), name, depth + 1, found)?;
        } else if entry.file_name() == name {
            found.push(entry.path());
        }
    }
    Ok(())
}

/// Which results are looked at: `policy=…,rule=…,resource=…`, with wildcards.
pub(crate) struct Selector([(&'static str, String); 3]);

impl Selector {
    fn parse(text: Option<&str>) -> Result<Self> {
        let mut own = ["policy", "rule", "resource"].map(|part| (part, "*".to_owned()));
        for part in text.unwrap_or_default().split(',').filter(|part| !part.is_empty()) {
            let slot = part.split_once('=').and_then(|(name, pattern)| {
                let slot = own.iter_mut().find(|(known, _)| *known == name.trim())?;
                Some((slot, pattern.trim()))
            });
            let Some((slot, pattern)) = slot else {
                bail!("`{part}` is not `policy=…`, `rule=…` or `resource=…`");
            };
            pattern.clone_into(&mut slot.1);
        }
        Ok(Self(own))
    }

    fn selects(&self, row: &Row) -> bool {
        let name = row.resource.rsplit('/').next().unwrap_or_default();
        [&row.policy, &row.rule, name]
            .into_iter()
            .zip(&self.0)
            .all(|(text, (_, pattern))| countersign_reference::wildcard_match(pattern, text))
    }
}

fn print_tables(
    done: &[(&PathBuf, Result<Case>)],
    fail_only: bool,
    passed: usize,
    failed: usize,
) -> Result<()> {
    let mut out = std::io::stdout().lock();
    for (file, case) in done {
        let rows = match case {
            Ok(case) => &case.rows,
            Err(error) => {
                writeln!(out, "{}: {error:#}\n", file.display())?;
                continue;
            }
        };
        let shown = rows.iter().enumerate().filter(|(_, row)| !fail_only || !row.passed);
        let shown: Vec<Vec<String>> = shown
            .map(|(index, row)| {
                let word = if row.passed { "Pass" } else { "Fail" };
                let number = (index + 1).to_string();
                let reason = row.told();
                vec![
                    number,
                    row.policy.clone(),
                    row.rule.clone(),
                    row.resource.clone(),
                    word.to_owned(),
                    reason,
                ]
            })
            .collect();
        if !shown.is_empty() {
            let heading = ["ID", "POLICY", "RULE", "RESOURCE", "RESULT", "REASON"];
            writeln!(out, "{}\n{}", file.display(), table(&heading, &shown))?;
        }
    }
    Ok(writeln!(out, "Test Summary: {passed} tests passed and {failed} tests failed")?)
}

fn print_json(done: &[(&PathBuf, Result<Case>)], passed: usize, failed: usize) -> Result<()> {
    let tests: Vec<Value> = done
        .iter()
        .map(|(file, case)| match case {
            Ok(case) => {
                let rows: Vec<Value> = case.rows.iter().map(Row::data).collect();
                json!({ "file": file, "name": case.name, "results": rows })
            }
            Err(error) => json!({ "file": file, "error": format!("{error:#}"), "results": [] }),
        })
        .collect();
    let all = json!({ "tests": tests, "passed": passed, "failed": failed });
    Ok(writeln!(std::io::stdout().lock(), "{}", serde_json::to_string_pretty(&all)?)?)
}
