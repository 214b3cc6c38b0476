//! Reads a containerd `certs.d` tree from disk.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use countersign_mirrors::Tree;

/// The tree below this directory.
pub(crate) fn read(root: &Path) -> Result<Tree> {
    let shown = root.display().to_string();
    if shown.contains(':') && !root.exists() {
        bail!(
            "--hosts-dir {shown}: a list of directories with colons is ignored by containerd's transfer service \
             (2.1 and later), which then asks upstream registries: name one directory"
        );
    }
    countersign_node::tree(root, &shown).context("--hosts-dir")
}
