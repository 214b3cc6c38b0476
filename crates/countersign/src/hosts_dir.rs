//! Reads a containerd `certs.d` tree from disk.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use countersign_mirrors::{Directory, Tree};

use crate::sources::text;

/// Directories and files that are looked at.
const MAX_ENTRIES: usize = 10_000;

/// The tree below this directory. Key files are named, not read.
pub(crate) fn read(root: &Path) -> Result<Tree> {
    let shown = root.display().to_string();
    if shown.contains(':') && !root.exists() {
        bail!(
            "--hosts-dir {shown}: a list of directories with colons is ignored by containerd's transfer service \
             (2.1 and later), which then asks upstream registries: name one directory"
        );
    }
    let mut tree = Tree { root: shown.clone(), ..Tree::default() };
    let mut count = 0;
    for entry in std::fs::read_dir(root).with_context(|| format!("cannot read --hosts-dir {shown}"))? {
        let entry = entry?;
        if !entry.path().is_dir() {
            continue;
        }
        let mut directory = Directory::default();
        for file in std::fs::read_dir(entry.path())? {
            let file = file?;
            count += 1;
            if count > MAX_ENTRIES {
                bail!(
                    "--hosts-dir {shown} holds more than {MAX_ENTRIES} entries: is it the right directory?"
                );
            }
            let name = file.file_name().to_string_lossy().into_owned();
            let content = if name == countersign_mirrors::HOSTS_FILE {
                text(&file.path()).map_err(anyhow::Error::msg)?
            } else {
                String::new()
            };
            directory.files.insert(name, content);
        }
        tree.directories.insert(entry.file_name().to_string_lossy().into_owned(), directory);
    }
    Ok(tree)
}
