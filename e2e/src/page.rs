//! The commands of the documentation.

use std::path::Path;
use std::process::Command;

use crate::countersign;

/// A block of commands, and the word after `sh` that says what is special about it.
pub struct Block {
    /// The word.
    pub kind: String,
    /// The commands.
    pub text: String,
}

/// The blocks of a page below `docs/`.
pub fn blocks(page: &str) -> Vec<Block> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(page);
    let page = std::fs::read_to_string(path).unwrap();
    let mut blocks = Vec::new();
    let mut parts = page.split("\n```");
    parts.next();
    while let Some(block) = parts.next() {
        let (head, text) = block.split_once('\n').unwrap();
        if let Some(kind) = head.strip_prefix("sh") {
            blocks.push(Block { kind: kind.trim().to_owned(), text: text.to_owned() });
        }
        // What stands between this block and the next.
        parts.next();
    }
    blocks
}

/// A command of a page, with the page's names set.
pub fn shell(directory: &Path, settings: &[(&str, String)], text: &str) -> Command {
    let program = countersign();
    let path = format!("{}:{}", program.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let mut command = Command::new("sh");
    command.args(["-euc", text]).current_dir(directory).env("PATH", path);
    command.envs(settings.iter().map(|(name, value)| (*name, value)));
    command
}

/// The page names what the test sets.
pub fn named(block: &Block, settings: &[(&str, String)]) {
    for (name, _) in settings {
        assert!(block.text.contains(&format!("{name}=")), "the page names {name}");
    }
}
