//! Reads what a Site's sources name, where there is no cluster.

use std::path::{Path, PathBuf};

use countersign_site::Source;

/// Bytes of a key or CA file.
const MAX_BYTES: u64 = 1 << 20;

/// Reads a text file of bounded size.
pub(crate) fn text(path: &Path) -> Result<String, String> {
    let length = path.metadata().map_err(|error| format!("{}: {error}", path.display()))?.len();
    if length > MAX_BYTES {
        return Err(format!("{}: larger than {MAX_BYTES} bytes", path.display()));
    }
    std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

/// Reads files relative to this directory, and refuses what only a cluster has.
pub(crate) fn loader(base: PathBuf) -> impl Fn(&Source) -> Result<String, String> + Send + Sync {
    move |source| match source {
        Source::Inline(text) => Ok(text.clone()),
        Source::File(path) => text(&base.join(path)),
        Source::Secret { name, .. } => {
            Err(format!("Secret `{name}` can only be read in a cluster: use `file` or `pem`"))
        }
        Source::ConfigMap { name, .. } => {
            Err(format!("ConfigMap `{name}` can only be read in a cluster: use `file` or `pem`"))
        }
    }
}
