//! `fuzz`: the targets of `fuzz/`, one after another, on the stable toolchain.
//!
//! libFuzzer needs no more of the compiler than the coverage counters of a pass that stable has; the sanitizers
//! that need nightly look for what code without `unsafe` cannot do.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{cargo, root, run};

/// The one platform that is built for; named, so that build scripts and macros get no counters.
const PLATFORM: &str = "x86_64-unknown-linux-gnu";
/// What cargo-fuzz passes for `--sanitizer none`, each after an `-llvm-args=`.
const COVERAGE: [&str; 5] = [
    "-sanitizer-coverage-level=4",
    "-sanitizer-coverage-inline-8bit-counters",
    "-sanitizer-coverage-pc-table",
    "-sanitizer-coverage-trace-compares",
    "-simplifycfg-branch-fold-threshold=0",
];
/// Seconds for each target where nothing is said.
const SECONDS: u32 = 60;

/// The targets, each with the longest input that is worth trying.
const TARGETS: [(&str, u32); 13] = [
    ("reference", 1024),
    ("hosts", 2048),
    ("corefile", 2048),
    ("manifest", 4096),
    ("payload", 4096),
    ("bundle", 4096),
    ("review", 4096),
    ("challenge", 1024),
    ("site", 4096),
    ("jmespath", 2048),
    ("pattern", 4096),
    ("merge", 4096),
    ("policy", 4096),
];

/// Runs `[--seconds N] [TARGET…]`, all of them where none is named.
#[expect(clippy::print_stdout, reason = "this is a command line")]
pub(crate) fn fuzz(arguments: &[&str]) -> Result<()> {
    let (seconds, names) = match arguments {
        ["--seconds", seconds, names @ ..] => {
            (seconds.parse().with_context(|| format!("`{seconds}` is no number of seconds"))?, names)
        }
        names => (SECONDS, names),
    };
    // To libFuzzer, 0 is for ever.
    ensure!(seconds > 0, "a target needs at least a second");
    if let Some(unknown) = names.iter().find(|name| TARGETS.iter().all(|(target, _)| target != *name)) {
        let known = TARGETS.map(|(target, _)| target).join(", ");
        bail!("there is no target `{unknown}`: there is {known}");
    }
    let targets = TARGETS.iter().filter(|(target, _)| names.is_empty() || names.contains(target));
    let targets: Vec<_> = targets.collect();
    build(targets.iter().map(|(target, _)| *target))?;
    let mut found = Vec::new();
    for (target, length) in targets {
        let said = attack(target, *length, seconds)?;
        println!("{target:<10} {said}");
        found.extend(said.input.map(|input| format!("{target}: {input}")));
    }
    if found.is_empty() { Ok(()) } else { bail!("inputs that break a promise:\n  {}", found.join("\n  ")) }
}

/// Whether the targets are formatted and compile, without the fuzzer and its counters.
pub(crate) fn check() -> Result<()> {
    let manifest = ["--manifest-path", "fuzz/Cargo.toml"];
    run(cargo().arg("fmt").args(manifest).args(["--", "--check"]))?;
    // Beside the workspace's own, whose dependencies are the same.
    run(cargo().arg("clippy").args(manifest).args([
        "--locked",
        "--no-default-features",
        "--target-dir",
        "target",
        "--",
        "-D",
        "warnings",
    ]))
}

fn directory() -> PathBuf {
    root().join("target/fuzz")
}

fn build<'a>(targets: impl Iterator<Item = &'a str>) -> Result<()> {
    let flags: Vec<String> = COVERAGE.iter().map(|flag| format!("-Cllvm-args={flag}")).collect();
    let mut command = cargo();
    command
        .args(["build", "--manifest-path", "fuzz/Cargo.toml", "--locked", "--release"])
        .args(["--target", PLATFORM, "--target-dir"])
        .arg(directory())
        .args(targets.flat_map(|target| ["--bin", target]))
        .env("RUSTFLAGS", format!("-Cpasses=sancov-module {}", flags.join(" ")))
        .env("CARGO_INCREMENTAL", "0");
    run(&mut command)
}

/// What came of a run.
struct Said {
    executions: u64,
    seconds: u32,
    /// Edges of the code, and what was seen to happen on them.
    coverage: Option<(u64, u64)>,
    /// The file that broke something.
    input: Option<String>,
}

impl std::fmt::Display for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { executions, seconds, .. } = self;
        write!(f, "{executions:>9} executions, {:>6}/s", executions / u64::from(*seconds))?;
        if let Some((edges, features)) = self.coverage {
            write!(f, ", {edges:>5} edges, {features:>5} features")?;
        }
        f.write_str(if self.input.is_none() { ": good" } else { ": FAILED" })
    }
}

/// Runs one target: seeds are read where they are checked in, finds go below `target/`.
fn attack(target: &str, length: u32, seconds: u32) -> Result<Said> {
    let place = |kind: &str| -> Result<PathBuf> {
        let place = directory().join(kind).join(target);
        std::fs::create_dir_all(&place).with_context(|| place.display().to_string())?;
        Ok(place)
    };
    let (finds, artifacts) = (place("corpus")?, place("artifacts")?);
    let log = artifacts.join("log");
    let status = Command::new(directory().join(PLATFORM).join("release").join(target))
        .arg(&finds)
        .arg(root().join("fuzz/corpus").join(target))
        .arg(format!("-dict={}", root().join("fuzz/dictionaries").join(target).display()))
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-max_len={length}"))
        .arg(format!("-artifact_prefix={}/", artifacts.display()))
        .args(["-rss_limit_mb=1024", "-timeout=5", "-print_final_stats=1"])
        .current_dir(root())
        .stdout(Stdio::null())
        .stderr(File::create(&log)?)
        .status()
        .with_context(|| format!("cannot run {target}"))?;
    let text = String::from_utf8_lossy(&std::fs::read(&log)?).into_owned();
    let said = read(&text, seconds, status.success(), &log);
    Ok(said)
}

/// Reads what libFuzzer says of a run.
fn read(log: &str, seconds: u32, good: bool, place: &Path) -> Said {
    let after =
        |line: &str, word: &str| line.split_once(word)?.1.split_whitespace().next()?.parse::<u64>().ok();
    let stated = |word: &str| log.lines().rev().find_map(|line| after(line, word));
    let coverage = log.lines().rev().find_map(|line| Some((after(line, " cov: ")?, after(line, " ft: ")?)));
    let written = log.lines().find_map(|line| line.split_once("Test unit written to ")).map(|(_, file)| file);
    // Where it ended without a word about an input, the log says why.
    let input = (!good).then(|| written.map_or_else(|| place.display().to_string(), ToOwned::to_owned));
    Said { executions: stated("stat::number_of_executed_units:").unwrap_or(0), seconds, coverage, input }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_fuzzer_says_is_read() {
        let good = "#2\tINITED cov: 5 ft: 6 corp: 1/1b\n#2027189\tDONE   cov: 355 ft: 1643 corp: 594/152Kb\n\
                    stat::number_of_executed_units: 2027189\n";
        let read = |text: &str, good| read(text, 10, good, Path::new("/log"));
        assert_eq!(
            read(good, true).to_string(),
            "  2027189 executions, 202718/s,   355 edges,  1643 features: good"
        );
        let bad = "artifact_prefix='/a/'; Test unit written to /a/crash-1\nBase64: eA==\n";
        assert_eq!(read(bad, false).input.as_deref(), Some("/a/crash-1"));
        assert_eq!(read("Killed", false).input.as_deref(), Some("/log"));
    }

    #[test]
    fn every_target_has_seeds_and_words() {
        for (target, length) in TARGETS {
            let seeds = std::fs::read_dir(root().join("fuzz/corpus").join(target)).unwrap();
            let sizes: Vec<u64> = seeds.map(|seed| seed.unwrap().metadata().unwrap().len()).collect();
            assert!(
                sizes.len() >= 12 && sizes.iter().all(|size| *size <= u64::from(length)),
                "{target}: {sizes:?}"
            );
            assert!(root().join("fuzz/dictionaries").join(target).exists(), "{target}");
            assert!(root().join("fuzz/targets").join(target).with_extension("rs").exists(), "{target}");
        }
    }
}
