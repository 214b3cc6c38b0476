//! Reads a node's files.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use countersign_mirrors::{ConfigFile, Directory, HOSTS_FILE, Tree, imports};

use crate::NodeError;

/// Directories and files of a tree.
const MAX_ENTRIES: usize = 10_000;
/// Files of a configuration.
const MAX_CONFIGS: usize = 256;
/// Bytes of a file.
const MAX_BYTES: u64 = 1 << 20;

/// How the names end of what is being written.
pub(crate) const BESIDE: &str = ".countersign.tmp";

/// Where a node's files are. Paths are as the node has them; `root` is where its file system is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// `/` on the node itself.
    pub root: PathBuf,
    /// The runtime's main file.
    pub config: String,
    /// Our own file beside it.
    pub drop_in: String,
}

impl Paths {
    /// Where a path of the node is.
    pub fn on_disk(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// The text of a file; `None` where there is none.
    pub(crate) fn read(&self, path: &str) -> Result<Option<String>, NodeError> {
        text(&self.resolved(path)?)
    }

    /// Where a path of the node leads, links followed as far as there is something. A link that leaves
    /// the node's file system is an error: it would mean a file of this machine.
    pub(crate) fn resolved(&self, path: &str) -> Result<PathBuf, NodeError> {
        let failed = |error: io::Error| NodeError::Io { path: path.to_owned(), error };
        let on_disk = self.on_disk(path);
        let mut rest = Vec::new();
        for ancestor in on_disk.ancestors() {
            let resolved = match fs::canonicalize(ancestor) {
                // Nothing there, not even a link.
                Err(error) if error.kind() == io::ErrorKind::NotFound && !ancestor.is_symlink() => {
                    rest.extend(ancestor.file_name().map(ToOwned::to_owned));
                    continue;
                }
                other => other.map_err(failed)?,
            };
            let root = fs::canonicalize(&self.root).map_err(failed)?;
            if resolved.starts_with(&root) {
                return Ok(rest.iter().rev().fold(resolved, |path, name| path.join(name)));
            }
            let why =
                format!("is a link to {}, which is not below {}", resolved.display(), self.root.display());
            return Err(NodeError::Malformed { path: path.to_owned(), why });
        }
        Ok(on_disk)
    }

    /// The same for something that is a link itself, perhaps: only its directory is followed.
    pub(crate) fn place(&self, path: &str) -> Result<PathBuf, NodeError> {
        let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
        Ok(self.resolved(if directory.is_empty() { "/" } else { directory })?.join(name))
    }

    /// What runs that were killed have left in a directory.
    pub(crate) fn left_behind(&self, directory: &str) -> Result<Vec<String>, NodeError> {
        let entries = fs::read_dir(self.resolved(directory)?).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        Ok(names.filter(|name| name.starts_with('.') && name.ends_with(BESIDE)).collect())
    }

    /// Whether a path of the node is a link.
    pub(crate) fn is_link(&self, path: &str) -> bool {
        fs::symlink_metadata(self.on_disk(path)).is_ok_and(|data| data.is_symlink())
    }

    /// The runtime's configuration: the main file and what is imported, in containerd's order.
    pub(crate) fn config_files(&self) -> Result<Vec<ConfigFile>, NodeError> {
        let mut files: Vec<ConfigFile> = Vec::new();
        let mut pending = VecDeque::from([self.config.clone()]);
        while let Some(path) = pending.pop_front() {
            if files.iter().any(|file| file.path == path) {
                continue;
            }
            if files.len() == MAX_CONFIGS {
                let why = format!("more than {MAX_CONFIGS} files are imported");
                return Err(NodeError::Malformed { path, why });
            }
            let Some(text) = self.read(&path)? else {
                if files.is_empty() {
                    return Ok(files);
                }
                let why = "is imported, and is not there: containerd does not start".to_owned();
                return Err(NodeError::Malformed { path, why });
            };
            let file = ConfigFile { path, text };
            for pattern in imports(&file)? {
                pending.extend(self.imported(&file.path, &pattern)?);
            }
            files.push(file);
        }
        Ok(files)
    }

    /// The paths that a pattern of a file's `imports` means.
    fn imported(&self, from: &str, pattern: &str) -> Result<Vec<String>, NodeError> {
        let pattern = absolute(from, pattern);
        if !pattern.contains('*') {
            return Ok(vec![pattern]);
        }
        let malformed = |why: String| NodeError::Malformed { path: from.to_owned(), why };
        let on_disk = self.on_disk(&pattern);
        let found = glob::glob(&on_disk.to_string_lossy())
            .map_err(|error| malformed(format!("imports `{pattern}`: {error}")))?;
        let mut paths = Vec::new();
        for path in found {
            let path = path.map_err(|error| malformed(error.to_string()))?;
            let inside = path.strip_prefix(&self.root).map_err(|error| malformed(error.to_string()))?;
            paths.push(format!("/{}", inside.display()));
        }
        Ok(paths)
    }

    /// The tree below a directory of the node; empty where there is none.
    pub(crate) fn tree(&self, directory: &str) -> Result<Tree, NodeError> {
        let on_disk = self.resolved(directory)?;
        if !on_disk.exists() {
            return Ok(Tree { root: directory.to_owned(), ..Tree::default() });
        }
        tree(&on_disk, directory)
    }
}

/// Whether a pattern of a file's `imports` means a path.
pub(crate) fn is_imported(from: &str, pattern: &str, path: &str) -> bool {
    // Go's `*` stays within a directory.
    let options = glob::MatchOptions { require_literal_separator: true, ..glob::MatchOptions::new() };
    let pattern = absolute(from, pattern);
    glob::Pattern::new(&pattern).is_ok_and(|pattern| pattern.matches_with(path, options))
}

/// Paths are relative to the file that names them, and `..` is what its text says (Go's
/// `filepath.Clean`).
fn absolute(from: &str, path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    let directory = from.rsplit_once('/').map(|(directory, _)| directory).filter(|_| !path.starts_with('/'));
    for part in directory.unwrap_or_default().split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => _ = parts.pop(),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// Reads a tree of mirror rules; `shown` is what messages call its directory. Key files are
/// named, not read.
///
/// # Errors
///
/// It cannot be read, or is too large to be one.
pub fn tree(directory: &Path, shown: &str) -> Result<Tree, NodeError> {
    let failed = |error: io::Error| NodeError::Io { path: shown.to_owned(), error };
    let mut tree = Tree { root: shown.to_owned(), ..Tree::default() };
    let mut count = 0;
    for entry in fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        // No host begins with a dot.
        let hidden = entry.file_name().to_string_lossy().starts_with('.');
        if hidden || !entry.path().is_dir() {
            continue;
        }
        let mut found = Directory::default();
        for file in fs::read_dir(entry.path()).map_err(failed)? {
            let file = file.map_err(failed)?;
            count += 1;
            if count > MAX_ENTRIES {
                let why = format!("holds more than {MAX_ENTRIES} entries: is it the right directory?");
                return Err(NodeError::Malformed { path: shown.to_owned(), why });
            }
            let name = file.file_name().to_string_lossy().into_owned();
            let content =
                if name == HOSTS_FILE { text(&file.path())?.unwrap_or_default() } else { String::new() };
            found.files.insert(name, content);
        }
        tree.directories.insert(entry.file_name().to_string_lossy().into_owned(), found);
    }
    Ok(tree)
}

fn text(path: &Path) -> Result<Option<String>, NodeError> {
    let shown = path.display().to_string();
    match path.metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(NodeError::Io { path: shown, error }),
        Ok(data) if data.len() > MAX_BYTES => {
            return Err(NodeError::Malformed { path: shown, why: format!("larger than {MAX_BYTES} bytes") });
        }
        Ok(_) => {}
    }
    fs::read_to_string(path).map(Some).map_err(|error| NodeError::Io { path: shown, error })
}
