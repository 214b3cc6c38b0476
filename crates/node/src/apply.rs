//! Writes what was planned.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use countersign_mirrors::{HOSTS_FILE, Tree};

use crate::files::BESIDE;
use crate::{Change, NodeError, Paths, Plan, Step};

/// Makes every step of a plan, each at once; what was there before is kept below `backup` under
/// its own path.
///
/// # Errors
///
/// The disk says no. What was done until then stays, and the next plan has the rest.
pub fn apply(paths: &Paths, plan: &Plan, backup: &Path) -> Result<(), NodeError> {
    for step in &plan.steps {
        let kept = |path: &str| backup.join(path.trim_start_matches('/'));
        let failed = |path: &str| {
            let path = path.to_owned();
            move |error| NodeError::Io { path, error }
        };
        match step {
            Step::Write(change) => {
                // A link stays, and leads to the new content.
                let path = paths.resolved(&change.path)?;
                let write = || {
                    if change.before.is_some() {
                        keep(&path, &kept(&change.path))?;
                    }
                    write(&path, change.after.as_deref().unwrap_or_default())
                };
                write().map_err(failed(&change.path))?;
            }
            Step::Make { directory, files } => {
                let files = files.iter().map(|Change { path, after, .. }| {
                    let name = path.rsplit('/').next().unwrap_or_default();
                    (name, after.as_deref().unwrap_or_default())
                });
                make(&paths.place(directory)?, files).map_err(failed(directory))?;
            }
            Step::Remove { directory, .. } => {
                remove(&paths.place(directory)?, &kept(directory)).map_err(failed(directory))?;
            }
        }
    }
    Ok(())
}

/// Writes a tree of rules into a directory, each host's at once.
///
/// # Errors
///
/// The disk says no.
pub fn write_tree(to: &Path, tree: &Tree) -> Result<(), NodeError> {
    for (name, directory) in &tree.directories {
        let at = to.join(name);
        let failed = |error| NodeError::Io { path: at.display().to_string(), error };
        let files = directory.files.iter().map(|(file, text)| (file.as_str(), text.as_str()));
        if !at.exists() {
            make(&at, files).map_err(failed)?;
            continue;
        }
        let mut files: Vec<_> = files.collect();
        files.sort_by_key(|(file, _)| *file == HOSTS_FILE);
        for (file, text) in files {
            write(&at.join(file), text).map_err(failed)?;
        }
    }
    Ok(())
}

fn keep(path: &Path, to: &Path) -> io::Result<()> {
    if let Some(directory) = to.parent() {
        fs::create_dir_all(directory)?;
    }
    fs::copy(path, to)?;
    File::open(to)?.sync_all()
}

/// A directory that is there with all its files, or not at all.
fn make<'a>(directory: &Path, files: impl Iterator<Item = (&'a str, &'a str)>) -> io::Result<()> {
    let Some(parent) = directory.parent() else { return Err(io::ErrorKind::InvalidInput.into()) };
    fs::create_dir_all(parent)?;
    let beside = beside(directory);
    if beside.exists() {
        // Of a run that was killed.
        fs::remove_dir_all(&beside)?;
    }
    fs::create_dir(&beside)?;
    for (name, text) in files {
        let mut file = File::create(beside.join(name))?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
    }
    sync(&beside)?;
    fs::rename(&beside, directory)?;
    sync(parent)
}

/// Takes a directory away at once, and keeps a copy of it.
fn remove(directory: &Path, kept: &Path) -> io::Result<()> {
    let Some(parent) = directory.parent() else { return Err(io::ErrorKind::InvalidInput.into()) };
    copy(directory, kept)?;
    if fs::symlink_metadata(directory)?.is_symlink() {
        fs::remove_file(directory)?;
    } else {
        let aside = beside(directory);
        if aside != *directory {
            if aside.exists() {
                // Of a run that was killed.
                fs::remove_dir_all(&aside)?;
            }
            fs::rename(directory, &aside)?;
        }
        fs::remove_dir_all(aside)?;
    }
    sync(parent)
}

/// Copies what is there, links as links.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let data = fs::symlink_metadata(from)?;
    if data.is_symlink() {
        if let Some(directory) = to.parent() {
            fs::create_dir_all(directory)?;
        }
        return symlink(fs::read_link(from)?, to);
    }
    if !data.is_dir() {
        return keep(from, to);
    }
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let name = entry?.file_name();
        copy(&from.join(&name), &to.join(&name))?;
    }
    Ok(())
}

/// Writes a file beside its place first: a runtime reads it while it is written.
///
/// # Errors
///
/// The disk says no.
pub fn write(path: &Path, text: &str) -> io::Result<()> {
    let Some(directory) = path.parent() else { return Err(io::ErrorKind::InvalidInput.into()) };
    fs::create_dir_all(directory)?;
    let beside = beside(path);
    let mut file = File::create(&beside)?;
    file.write_all(text.as_bytes())?;
    // Who may read it stays as it is.
    if let Ok(data) = fs::metadata(path) {
        file.set_permissions(data.permissions())?;
    }
    file.sync_all()?;
    fs::rename(&beside, path)?;
    sync(directory)
}

/// A name that no runtime takes for a host's or imports.
fn beside(path: &Path) -> PathBuf {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    path.with_file_name(format!(".{}{BESIDE}", name.trim_start_matches('.').trim_end_matches(BESIDE)))
}

/// A rename lasts once its directory is written.
fn sync(directory: &Path) -> io::Result<()> {
    // Of a name alone, the parent is the empty path.
    let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_of_a_name_alone_is_the_current_one() {
        let directory = Path::new("rules.toml").parent().unwrap();
        assert_eq!(directory, Path::new(""));
        sync(directory).unwrap();
    }
}
