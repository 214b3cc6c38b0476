//! Chores of this repository: `cargo xtask tools | test | lint | gen | fuzz | defences | conformance | image | bench | ci`.

mod conformance;
mod defences;
mod fuzz;
mod r#gen;
mod image;
mod invariants;
mod tools;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail};

const USAGE: &str = "usage: cargo xtask COMMAND

  tools   build the real programs that tests run, into target/tools/
  test    every test: builds the tools, then runs in a network namespace with only loopback
  lint    formatting, clippy, licences and bans, invariants, documentation
  defences [T-xx …]
          takes each defence out, in a copy, and sees the test of its attack fail (docs/attacks.md)
  conformance DIR [--least N]
          runs upstream's tests of its policies (a checkout of kyverno/policies) and counts what passes
  gen     write what is generated from published definitions; --check: is it what is checked in?
  fuzz    coverage-guided fuzzing (see fuzz/README.md) [--seconds N] [TARGET…]; 60 s for each target
  image   the program's own image as an OCI image layout [DIRECTORY]; --check: two builds, one digest
  bench   benchmarks (see BENCHMARKS.md) [NAME…]: all, or decision, load, cold, poisoned, …
  ci      lint and test";

#[expect(clippy::print_stderr, reason = "this is a command line")]
fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["tools"] => tools::build_all(),
        ["test", rest @ ..] => test(rest),
        ["lint"] => lint(),
        ["defences", ids @ ..] => defences::check(ids),
        ["conformance", rest @ ..] => conformance::check(rest),
        ["gen"] => r#gen::generate(false),
        ["gen", "--check"] => r#gen::generate(true),
        ["fuzz", rest @ ..] => fuzz::fuzz(rest),
        ["image"] => image::build(&root().join(image::DIRECTORY)),
        ["image", "--check"] => image::check(&root().join(image::DIRECTORY)),
        ["image", to] => image::build(Path::new(to)),
        ["bench", names @ ..] => bench(names),
        ["ci"] => lint().and_then(|()| test(&[])),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Builds first, with the network at hand, and runs without it.
fn test(rest: &[&str]) -> Result<()> {
    tools::build_all()?;
    r#gen::generate(true)?;
    tools::of_the_system()?;
    image::build(&root().join(image::DIRECTORY))?;
    // The program itself, which end-to-end tests run, and then the tests.
    run(cargo().args(["build", "--workspace", "--all-features"]))?;
    run(cargo().args(["test", "--workspace", "--all-features", "--no-run"]))?;
    let mut command = Command::new(tools::path("netns"));
    command.args([&cargo_path(), "test", "--offline", "--workspace", "--all-features"]).args(rest);
    run(command.env("COUNTERSIGN_TOOLS", tools::directory()).current_dir(root()))
}

fn lint() -> Result<()> {
    run(cargo().args(["fmt", "--all", "--check"]))?;
    run(cargo().args(["clippy", "--workspace", "--all-targets", "--all-features", "--", "-D", "warnings"]))?;
    fuzz::check()?;
    invariants::check()?;
    let deny = tools::cargo_deny()?;
    run(Command::new(deny).args(["--offline", "check", "licenses", "bans", "sources"]).current_dir(root()))?;
    run(cargo()
        .args(["doc", "--workspace", "--no-deps", "--all-features"])
        .env("RUSTDOCFLAGS", "-D warnings"))
}

/// Programs of the benchmarks; what the later ones stand beside is a tool.
const BENCHES: &[&str] = &["load", "cold", "poisoned", "registries", "bundles", "evidence"];
const WITH_TOOLS: &[&str] = &["registries", "bundles", "evidence"];
/// The benchmark of single steps.
const STEPS: &str = "decision";

/// These benchmarks, or all of them.
fn bench(names: &[&str]) -> Result<()> {
    if let Some(unknown) = names.iter().find(|name| **name != STEPS && !BENCHES.contains(name)) {
        bail!("there is no benchmark `{unknown}`: it is {STEPS}, {}", BENCHES.join(", "));
    }
    let wanted = |name: &&str| names.is_empty() || names.contains(name);
    if WITH_TOOLS.iter().any(wanted) {
        tools::build_all()?;
    }
    run(cargo().args(["build", "--release", "--package", "countersign", "--package", "countersign-bench"]))?;
    if wanted(&STEPS) {
        run(cargo().args(["bench", "--package", "countersign-bench", "--bench", STEPS]))?;
    }
    for program in BENCHES.iter().copied().filter(wanted) {
        let mut command = cargo();
        command.args(["run", "--release", "--package", "countersign-bench", "--bin", program]);
        run(command.env("COUNTERSIGN_TOOLS", tools::directory()))?;
    }
    Ok(())
}

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_owned()
}

pub(crate) fn cargo_path() -> String {
    std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned())
}

/// A cargo command at the root.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(cargo_path());
    command.current_dir(root());
    command
}

/// Runs a command and fails if it does.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status =
        command.status().with_context(|| format!("cannot run {}", command.get_program().display()))?;
    if !status.success() {
        let arguments: Vec<_> = command.get_args().map(|a| a.to_string_lossy().into_owned()).collect();
        bail!("`{} {}` failed", command.get_program().display(), arguments.join(" "));
    }
    Ok(())
}
