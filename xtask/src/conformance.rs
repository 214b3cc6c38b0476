//! How many tests of somebody else's policies come out as they say.
//!
//! The directory is one of upstream's, such as a checkout of `kyverno/policies`; nothing of it is
//! kept here. Each `kyverno-test.yaml` in it is a case.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::{cargo, root, run};

/// Results by what they are of: those that came out as expected, and all.
type Counts = BTreeMap<String, (usize, usize)>;

/// Runs the cases of a directory, prints what came of them, and fails below `least`.
pub(crate) fn check(words: &[&str]) -> Result<()> {
    let (directory, least) = match words {
        [directory] => (directory, 0),
        [directory, "--least", least] | ["--least", least, directory] => {
            (directory, least.parse::<usize>().context("--least takes a number")?)
        }
        _ => bail!("usage: cargo xtask conformance DIR [--least N]"),
    };
    run(cargo().args(["build", "--package", "countersign"]))?;
    let data = results(Path::new(directory))?;
    let (mut cases, mut categories, mut kinds) = ((0, 0), Counts::new(), Counts::new());
    let mut misses = Vec::new();
    for case in data["tests"].as_array().into_iter().flatten() {
        let file = text(case, "file");
        let file = file.strip_prefix(directory).unwrap_or(file).trim_start_matches('/');
        let category = file.split('/').next().unwrap_or_default().to_owned();
        let mut good = true;
        if let Some(error) = case["error"].as_str() {
            misses.push((file.to_owned(), String::new(), error.to_owned()));
            good = false;
        }
        for row in case["results"].as_array().into_iter().flatten() {
            let passed = row["passed"] == true;
            note(&mut kinds, text(row, "ruleKind"), passed);
            if !passed {
                good = false;
                let what = format!("{}/{} {}", text(row, "policy"), text(row, "rule"), text(row, "resource"));
                let why = format!("{}: {}", text(row, "reason"), text(row, "message").trim());
                misses.push((file.to_owned(), what, why));
            }
        }
        note(&mut categories, &category, good);
        cases.0 += usize::from(good);
        cases.1 += 1;
    }
    print(cases, &categories, &kinds, &misses);
    if cases.0 < least {
        bail!("{} cases pass, and {least} should", cases.0);
    }
    Ok(())
}

fn results(directory: &Path) -> Result<Value> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), Into::into);
    let mut command = Command::new(target.join("debug/countersign"));
    let output = command.arg("test").arg(directory).args(["--output", "json"]).output();
    let output = output.context("cannot run `countersign test`")?;
    serde_json::from_slice(&output.stdout)
        .with_context(|| format!("no results: {}", String::from_utf8_lossy(&output.stderr)))
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

fn note(counts: &mut Counts, of: &str, good: bool) {
    let count = counts.entry(of.to_owned()).or_default();
    count.0 += usize::from(good);
    count.1 += 1;
}

#[expect(clippy::print_stdout, reason = "this is a command line")]
fn print(cases: (usize, usize), categories: &Counts, kinds: &Counts, misses: &[(String, String, String)]) {
    for (heading, counts) in [("cases by directory", categories), ("results by kind of rule", kinds)] {
        println!("{heading}");
        for (of, (good, all)) in counts {
            println!("  {of:<28} {good:>4} of {all:>4}");
        }
    }
    println!("misses");
    let mut last = "";
    for (file, what, why) in misses {
        if file != last {
            println!("  {file}");
            last = file;
        }
        let why: String = why.chars().take(300).collect();
        println!("    {what}  {}", why.replace('\n', " "));
    }
    println!("{} of {} cases pass", cases.0, cases.1);
}
