//! `docs/attacks.md`, held against the code: each attack has a test, and the test fails without the
//! defence.
//!
//! ```text
//! docs/attacks.md          | T-21 | attack | `countersign-reference::attacks::t_21_…` | what stops it |
//! e2e/defences/T-21.patch  takes what stops it out of the product's code
//! ```
//!
//! All of it happens in a copy, `target/defences/tree`, with a build directory of its own that is kept
//! from one run to the next. First every test has to pass as it is; then, for each attack, the patch is
//! applied, and each test of its row has to run and to fail: one that does not compile, or is not
//! there, proves nothing. `lint` holds that rows, patches and tests belong together and that every
//! patch applies.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::{cargo_path, root, run, tools};

const TABLE: &str = "docs/attacks.md";
const PATCHES: &str = "e2e/defences";
/// The package whose tests run the real programs.
const END_TO_END: &str = "countersign-e2e";

/// An attack of the table.
#[derive(Debug, PartialEq, Eq)]
struct Attack {
    id: String,
    tests: Vec<Test>,
}

/// A test as the table names it: `package::target::name`.
#[derive(Debug, PartialEq, Eq)]
struct Test {
    package: String,
    /// `lib` or `bin` for tests beside the code, else the file below `tests/`.
    target: String,
    name: String,
}

impl Attack {
    fn patch(&self) -> PathBuf {
        root().join(PATCHES).join(format!("{}.patch", self.id))
    }

    /// A line of the table. Lines that begin with no id are none of it.
    fn read(line: &str) -> Option<Result<Self>> {
        let cells: Vec<&str> =
            line.trim().strip_prefix('|')?.strip_suffix('|')?.split('|').map(str::trim).collect();
        let id = cells.first().filter(|id| id.starts_with("T-"))?;
        let [_, _, tests, _] = cells.as_slice() else {
            return Some(Err(anyhow::anyhow!("{TABLE}: {id} has {} columns, not 4", cells.len())));
        };
        let tests: Option<Vec<Test>> = tests.split('`').skip(1).step_by(2).map(Test::read).collect();
        Some(match tests {
            Some(tests) if !tests.is_empty() => Ok(Self { id: (*id).to_owned(), tests }),
            _ => Err(anyhow::anyhow!("{TABLE}: {id} names no test as `package::target::name`")),
        })
    }
}

impl Test {
    fn read(text: &str) -> Option<Self> {
        let (package, rest) = text.split_once("::")?;
        let (target, name) = rest.split_once("::")?;
        Some(Self { package: package.to_owned(), target: target.to_owned(), name: name.to_owned() })
    }

    fn function(&self) -> &str {
        self.name.rsplit("::").next().unwrap_or(&self.name)
    }

    /// The sources that it may stand in.
    fn sources(&self) -> Result<Vec<PathBuf>> {
        let directory = match self.package.strip_prefix("countersign-") {
            Some("e2e") => root().join("e2e"),
            Some(name) => root().join("crates").join(name),
            None => root().join("crates").join(&self.package),
        };
        match self.target.as_str() {
            "lib" | "bin" => {
                let mut files = Vec::new();
                below(&directory.join("src"), &mut files)?;
                Ok(files)
            }
            file => Ok(vec![directory.join("tests").join(format!("{file}.rs"))]),
        }
    }
}

/// Every attack of the table, in its order.
fn table() -> Result<Vec<Attack>> {
    let text = std::fs::read_to_string(root().join(TABLE)).context(TABLE)?;
    text.lines().filter_map(Attack::read).collect()
}

/// Rows, patches and tests that do not belong together.
pub(crate) fn breaches() -> Result<Vec<String>> {
    let (mut breaches, mut ids) = (Vec::new(), BTreeSet::new());
    for attack in table()? {
        let id = &attack.id;
        if !ids.insert(format!("{id}.patch")) {
            breaches.push(format!("{TABLE}: {id} stands twice"));
        }
        let patch = attack.patch();
        if !patch.exists() {
            breaches.push(format!("{TABLE}: {id} has no {PATCHES}/{id}.patch"));
        } else if let Err(error) = apply(&patch, None, &["--check"]) {
            breaches.push(format!("{PATCHES}/{id}.patch does not apply: {error}"));
        }
        let prefix = format!("t_{}_", id.trim_start_matches("T-"));
        for test in &attack.tests {
            let function = test.function();
            let defined = [format!("fn {function}("), format!("fn {function}<")];
            let stands = |file: &PathBuf| {
                std::fs::read_to_string(file).is_ok_and(|text| defined.iter().any(|line| text.contains(line)))
            };
            if !function.starts_with(&prefix) {
                breaches.push(format!("{TABLE}: the test `{function}` of {id} is not named {prefix}…"));
            } else if !test.sources()?.iter().any(stands) {
                breaches.push(format!("{TABLE}: there is no test `{function}` in {}", test.package));
            }
        }
    }
    for entry in std::fs::read_dir(root().join(PATCHES)).context(PATCHES)? {
        let name = entry?.file_name().display().to_string();
        if !ids.contains(&name) {
            breaches.push(format!("{PATCHES}/{name} is of no row of {TABLE}"));
        }
    }
    Ok(breaches)
}

/// Takes out the defences against these attacks, or against all, one after another.
#[expect(clippy::print_stdout, clippy::print_stderr, reason = "this is a command line")]
pub(crate) fn check(ids: &[&str]) -> Result<()> {
    let mut attacks = table()?;
    if let Some(unknown) = ids.iter().find(|id| !attacks.iter().any(|attack| attack.id == **id)) {
        bail!("{TABLE} has no {unknown}");
    }
    attacks.retain(|attack| ids.is_empty() || ids.contains(&attack.id.as_str()));
    if attacks.iter().flat_map(|attack| &attack.tests).any(|test| test.package == END_TO_END) {
        tools::build_all()?;
        tools::of_the_system()?;
    }
    let copy =
        Copy { tree: root().join("target/defences/tree"), build: root().join("target/defences/build") };
    copy.renew()?;
    eprintln!("running every test as it is (the first time, that builds all of it)");
    copy.all_pass(&attacks)?;
    let mut without = Vec::new();
    for attack in &attacks {
        let patch = attack.patch();
        apply(&patch, Some(&copy.tree), &[]).with_context(|| patch.display().to_string())?;
        let (mut proven, mut said) = (true, Vec::new());
        for test in &attack.tests {
            let (answer, output) = copy.run(&test.package, &test.target, &[test])?;
            let answer = answer.get(test.name.as_str());
            proven &= answer == Some(&false);
            said.push(match answer {
                Some(false) => format!("fails without its defence, {}", place(&output)),
                Some(true) => format!("PASSES without its defence: {}", test.name),
                None => format!("DID NOT RUN: {}\n{}", test.name, last_lines(&output)),
            });
        }
        copy.renew()?;
        println!("{:<6} {}", attack.id, said.join("\n       "));
        if !proven {
            without.push(attack.id.as_str());
        }
    }
    if without.is_empty() { Ok(()) } else { bail!("nothing is proven of {}", without.join(", ")) }
}

/// A copy of the sources, and where they are built.
struct Copy {
    tree: PathBuf,
    build: PathBuf,
}

impl Copy {
    /// Makes the copy what the working tree is. A file that is the same keeps its time, so that cargo
    /// builds only what has changed.
    fn renew(&self) -> Result<()> {
        let mut command = Command::new("git");
        command.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]).current_dir(root());
        let listed = command.output().context("git")?;
        if !listed.status.success() {
            bail!("git ls-files: {}", String::from_utf8_lossy(&listed.stderr));
        }
        let listed = String::from_utf8(listed.stdout)?;
        let names: BTreeSet<&str> = listed.split('\0').filter(|name| root().join(name).is_file()).collect();
        std::fs::create_dir_all(&self.tree)?;
        let mut there = Vec::new();
        below(&self.tree, &mut there)?;
        for file in there {
            let name = file.strip_prefix(&self.tree)?.to_str().context("a name that is not UTF-8")?;
            if !names.contains(name) {
                std::fs::remove_file(&file)?;
            }
        }
        for name in names {
            let (from, to) = (root().join(name), self.tree.join(name));
            let content = std::fs::read(&from).with_context(|| from.display().to_string())?;
            if std::fs::read(&to).ok().as_ref() != Some(&content) {
                std::fs::create_dir_all(to.parent().unwrap_or(&self.tree))?;
                std::fs::copy(&from, &to)?;
            }
        }
        Ok(())
    }

    /// A test that fails as it is would fail without any defence, too.
    fn all_pass(&self, attacks: &[Attack]) -> Result<()> {
        let mut targets: BTreeMap<(&str, &str), Vec<&Test>> = BTreeMap::new();
        for test in attacks.iter().flat_map(|attack| &attack.tests) {
            targets.entry((&test.package, &test.target)).or_default().push(test);
        }
        for ((package, target), tests) in targets {
            let (answers, output) = self.run(package, target, &tests)?;
            let bad = tests.iter().find(|test| answers.get(test.name.as_str()) != Some(&true));
            if let Some(bad) = bad {
                bail!("{package}::{target}::{} does not pass as it is:\n{}", bad.name, last_lines(&output));
            }
        }
        Ok(())
    }

    /// Which of these tests passed and which failed, of those that ran; and what was said.
    fn run<'a>(
        &self,
        package: &str,
        target: &str,
        tests: &[&'a Test],
    ) -> Result<(BTreeMap<&'a str, bool>, String)> {
        let end_to_end = package == END_TO_END;
        let cargo = |program: Option<PathBuf>, verb: &str, package: &str| {
            let mut command = match program {
                None => Command::new(cargo_path()),
                Some(program) => {
                    let mut command = Command::new(program);
                    command.arg(cargo_path());
                    command
                }
            };
            command.args([verb, "--offline", "--quiet", "--all-features", "--package", package]);
            command
                .current_dir(&self.tree)
                .env("CARGO_TARGET_DIR", &self.build)
                .env("CARGO_INCREMENTAL", "0");
            command
        };
        if end_to_end {
            // The program itself, which these tests run.
            run(&mut cargo(None, "build", "countersign"))?;
        }
        let mut command = cargo(end_to_end.then(|| tools::path("netns")), "test", package);
        match target {
            "lib" => command.arg("--lib"),
            "bin" => command.arg("--bins"),
            file => command.args(["--test", file]),
        };
        command.args(["--", "--exact", "--format=pretty", "--color=never"]);
        command.args(tests.iter().map(|test| &test.name));
        let output = command.env("COUNTERSIGN_TOOLS", tools::directory()).output()?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let answer = |test: &&'a Test| {
            let line = |end: &str| said.lines().any(|line| line == format!("test {} ... {end}", test.name));
            if line("ok") {
                Some((test.name.as_str(), true))
            } else {
                line("FAILED").then_some((test.name.as_str(), false))
            }
        };
        let answers = tests.iter().filter_map(answer).collect();
        Ok((answers, format!("{said}{}", String::from_utf8_lossy(&output.stderr))))
    }
}

/// Applies a patch: to the working tree, or to a copy below it.
fn apply(patch: &Path, copy: Option<&Path>, options: &[&str]) -> Result<()> {
    let mut command = Command::new("git");
    command.arg("apply").args(options).current_dir(root());
    if let Some(below) = copy.and_then(|copy| copy.strip_prefix(root()).ok()) {
        command.arg("--directory").arg(below);
    }
    let output = command.arg(patch).output().context("git")?;
    if output.status.success() { Ok(()) } else { bail!("{}", String::from_utf8_lossy(&output.stderr).trim()) }
}

/// Every file below a directory.
fn below(directory: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(directory).with_context(|| directory.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() { below(&path, files)? } else { files.push(path) }
    }
    Ok(())
}

/// Where a test has failed.
fn place(output: &str) -> &str {
    output
        .lines()
        .find_map(|line| Some(line.split_once(" panicked at ")?.1.trim_end_matches(':')))
        .unwrap_or("somehow")
}

/// What somebody needs to see of a build that broke.
fn last_lines(output: &str) -> String {
    let lines: Vec<&str> = output.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read() {
        let read = |line: &str| Attack::read(line).map(|row| row.map_err(|error| error.to_string()));
        let row = "| T-19b | a, b | `p::attacks::t_19b_x`, `q::lib::m::tests::t_19b_y` | `q` |";
        let attack = read(row).unwrap().unwrap();
        let names: Vec<_> =
            attack.tests.iter().map(|test| (test.target.as_str(), test.name.as_str())).collect();
        assert_eq!(attack.id, "T-19b");
        assert_eq!(names, [("attacks", "t_19b_x"), ("lib", "m::tests::t_19b_y")]);
        assert_eq!(attack.tests[1].function(), "t_19b_y");
        for other in [
            "",
            "| id | attack | test | what stops it |",
            "| --- |",
            "T-01 is an attack",
            "| certificates | T-14 |",
        ] {
            assert!(read(other).is_none(), "{other}");
        }
        for bad in ["| T-01 | a | none | b |", "| T-01 | a | `p::t_01_x` | b |", "| T-01 | a |"] {
            assert!(read(bad).unwrap().is_err(), "{bad}");
        }
    }
}
