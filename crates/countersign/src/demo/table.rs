//! The table that is shown: what was asked, what the server answered, and how long it took.

use std::io::{StdoutLock, Write as _};

use anyhow::{Result, ensure};

use super::webhook::Answer;

pub(super) struct Table(StdoutLock<'static>);

impl Table {
    pub(super) fn start() -> Result<Self> {
        let mut out = std::io::stdout().lock();
        writeln!(out, "{:<46} {:<9} {:>9}  stored as, or why not", "a pod with", "is", "after")?;
        Ok(Self(out))
    }

    /// A row for a pod that is admitted, stored with an image that begins like this.
    pub(super) fn admitted(&mut self, what: &str, answer: &Answer, image: &str) -> Result<()> {
        let stored = answer.image.as_deref().unwrap_or_default();
        ensure!(answer.allowed && stored.starts_with(image), "{what}: should be stored: {answer:#?}");
        self.row(what, "admitted", answer, &shortened(stored))
    }

    /// A row for a pod that is denied, with these words in the denial.
    pub(super) fn denied(&mut self, what: &str, answer: &Answer, words: &str) -> Result<()> {
        let said = !answer.allowed && answer.message.contains(words);
        ensure!(said, "{what}: should be denied with `{words}`: {answer:#?}");
        self.row(what, "denied", answer, answer.verdict().unwrap_or_default())
    }

    /// A text below the table.
    pub(super) fn more(&mut self, what: &str, text: &str) -> Result<()> {
        Ok(writeln!(self.0, "\n{what}:\n{text}")?)
    }

    fn row(&mut self, what: &str, word: &str, answer: &Answer, detail: &str) -> Result<()> {
        let milliseconds = answer.time.as_secs_f64() * 1e3;
        Ok(writeln!(self.0, "{what:<46} {word:<9} {milliseconds:>6.1} ms  {detail}")?)
    }
}

/// Cuts a digest down to what can be recognised.
fn shortened(image: &str) -> String {
    match image.split_once("@sha256:") {
        Some((name, hex)) if hex.len() == 64 => format!("{name}@sha256:{}…{}", &hex[..8], &hex[60..]),
        _ => image.to_owned(),
    }
}
