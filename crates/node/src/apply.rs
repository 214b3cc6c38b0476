//! Writes what was planned.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::{Change, NodeError, Paths, Plan};

/// Makes every change of a plan, each file at once; what was there before is kept below `backup`
/// under its own path.
///
/// # Errors
///
/// The disk says no. What was done until then stays, and the next plan has the rest.
pub fn apply(paths: &Paths, plan: &Plan, backup: &Path) -> Result<(), NodeError> {
    for change in &plan.changes {
        let failed = |error| NodeError::Io { path: change.path.clone(), error };
        // A link stays, and leads to the new content.
        let path = paths.on_disk(&change.path);
        let path = fs::canonicalize(&path).unwrap_or(path);
        if change.before.is_some() {
            keep(&path, &backup.join(change.path.trim_start_matches('/'))).map_err(failed)?;
        }
        make(change, &path).map_err(failed)?;
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

fn make(change: &Change, path: &Path) -> io::Result<()> {
    let Some(directory) = path.parent() else { return Err(io::ErrorKind::InvalidInput.into()) };
    let Some(text) = &change.after else {
        // The rules of a host go with their directory: an empty one would lead to the upstream.
        let last = fs::read_dir(directory)?.count() == 1;
        if last {
            let aside = beside(directory);
            fs::rename(directory, &aside)?;
            fs::remove_dir_all(aside)?;
        } else {
            fs::remove_file(path)?;
        }
        return sync(directory.parent().filter(|_| last).unwrap_or(directory));
    };
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
    path.with_file_name(format!(".{name}.{}.tmp", std::process::id()))
}

/// A rename lasts once its directory is written.
fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}
