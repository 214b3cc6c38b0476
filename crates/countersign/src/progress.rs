//! Shows how far things are, where somebody looks.

use std::io::IsTerminal as _;

use countersign_bundle::Progress;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::site::warn;

/// A bar on stderr, if that is a terminal.
pub(crate) struct Bar(ProgressBar);

impl Bar {
    pub(crate) fn new() -> Self {
        let bar = ProgressBar::no_length();
        if !std::io::stderr().is_terminal() {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        let style = "{bytes}/{total_bytes} {wide_bar} {bytes_per_sec} {eta}";
        bar.set_style(ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self(bar)
    }

    /// Leaves the terminal as it was.
    pub(crate) fn end(&self) {
        self.0.finish_and_clear();
    }
}

impl Progress for Bar {
    fn expect(&self, bytes: u64) {
        self.0.inc_length(bytes);
    }

    fn done(&self, bytes: u64) {
        self.0.inc(bytes);
    }

    fn image(&self, name: &str) {
        self.0.println(name);
    }

    fn warn(&self, what: &str) {
        self.0.suspend(|| warn(what));
    }
}
