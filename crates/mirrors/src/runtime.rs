//! The part of containerd's own configuration that decides whether mirror rules are read at
//! all: `config_path`, what stands in its way, and the sandbox image.
//!
//! | | containerd 1.x | 2.x |
//! |---|---|---|
//! | section | `plugins."io.containerd.grpc.v1.cri"` (`plugins.cri` of version 1) | `plugins."io.containerd.cri.v1.images"`; in a file that is migrated, the old ones, too, and they win |
//! | an imported file | takes the place of the whole section | adds to it, and wins |
//! | so it is changed | in the file whose section counts | by a file of our own ([`DROP_IN`]) |
//!
//! Nothing but these keys is touched, and every other byte stays.
//!
//! Sources: containerd `cmd/containerd/server/config/config.go` (1.7: `services/server/config`),
//! `internal/cri/config/config.go`, `plugins/cri/images/plugin.go`, releases 1.6 to 2.4.

mod edit;
mod findings;

pub use edit::{Settings, drop_in};
pub use findings::Verifiers;

use toml_edit::{DocumentMut, Item, TableLike};

use crate::release::Release;

/// Where containerd looks for its configuration.
pub const CONFIG_FILE: &str = "/etc/containerd/config.toml";
/// Our own file beside it, for containerd 2.x.
pub const DROP_IN: &str = "/etc/containerd/conf.d/90-countersign.toml";
/// The files that the generated configuration of containerd 2.x imports.
const DEFAULT_IMPORTS: &str = "/etc/containerd/conf.d/*.toml";

const CRI_OF_1: &str = "cri";
const CRI: &str = "io.containerd.grpc.v1.cri";
const CRI_IMAGES: &str = "io.containerd.cri.v1.images";

/// A file of containerd's configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigFile {
    /// Its path.
    pub path: String,
    /// What is in it.
    pub text: String,
}

/// A configuration that cannot be read, or cannot be changed as it has to be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {why}")]
pub struct ConfigError {
    /// Which file.
    pub path: String,
    /// What is wrong, and the cure.
    pub why: String,
}

/// The configuration of one node: the main file first, then what is imported, in the order in
/// which containerd reads it.
#[derive(Debug)]
pub struct RuntimeConfig {
    release: Release,
    files: Vec<Parsed>,
}

#[derive(Clone, Debug)]
struct Parsed {
    path: String,
    text: String,
    document: DocumentMut,
    version: i64,
}

impl RuntimeConfig {
    /// Reads the files of a node; none where there is no `config.toml`.
    pub fn read(release: Release, files: &[ConfigFile]) -> Result<Self, ConfigError> {
        let files = files.iter().map(|file| Parsed::of(&file.path, &file.text)).collect::<Result<_, _>>()?;
        Ok(Self { release, files })
    }

    /// The directory that `config_path` names.
    pub fn config_path(&self) -> Option<&str> {
        // The last who says it counts, and says nothing with an empty text.
        let said = self.registries().find_map(|(_, registry)| registry.get("config_path")?.as_str());
        said.filter(|path| !path.is_empty())
    }

    /// The sandbox image that is set.
    pub fn sandbox_image(&self) -> Option<&str> {
        let said = self.sections().find_map(|(_, section)| {
            let old = section.get("sandbox_image").and_then(Item::as_str);
            old.or_else(|| section.get("pinned_images")?.get("sandbox")?.as_str())
        });
        said.filter(|image| !image.is_empty())
    }

    /// The sections that count: of 1.x the last one alone, of 2.x all of them, the last first.
    fn sections(&self) -> impl Iterator<Item = (&Parsed, &dyn TableLike)> {
        let sections = self.files.iter().rev().flat_map(|file| {
            let ids = self.ids(file).into_iter();
            ids.filter_map(move |id| Some((file, file.plugin(id)?)))
        });
        sections.take(if self.release.merges_imports() { usize::MAX } else { 1 })
    }

    /// The names under which a file's settings of images are read, the one that wins first.
    fn ids(&self, file: &Parsed) -> Vec<&'static str> {
        if !self.release.merges_imports() {
            // One version for all files: the last that is said.
            let version = self.files.iter().rev().find(|file| file.document.contains_key("version"));
            let version = version.map_or(1, |file| file.version);
            return vec![if version < 2 { CRI_OF_1 } else { CRI }];
        }
        let migrated = file.version < self.release.config_version();
        let old = [(CRI_OF_1, file.version < 2), (CRI, migrated), (CRI_IMAGES, true)];
        old.into_iter().filter_map(|(id, read)| read.then_some(id)).collect()
    }

    /// The `registry` tables that count, the last first: where a file is migrated, the old one takes
    /// the place of the new one.
    fn registries(&self) -> impl Iterator<Item = (&Parsed, &dyn TableLike)> {
        let mut last = None;
        self.sections().filter_map(move |(file, section)| {
            if last == Some(file.path.as_str()) {
                return None;
            }
            let registry = section.get("registry")?.as_table_like()?;
            last = Some(file.path.as_str());
            Some((file, registry))
        })
    }
}

/// The patterns of a file's `imports`.
///
/// # Errors
///
/// It is no TOML: containerd does not start with it.
pub fn imports(file: &ConfigFile) -> Result<Vec<String>, ConfigError> {
    Ok(Parsed::of(&file.path, &file.text)?.imports())
}

impl Parsed {
    fn of(path: &str, text: &str) -> Result<Self, ConfigError> {
        let error = |why: String| ConfigError { path: path.to_owned(), why };
        let document: DocumentMut = text.parse().map_err(|found: toml_edit::TomlError| {
            error(format!("{} (containerd does not start with this)", found.to_string().trim_end()))
        })?;
        let version = match document.get("version") {
            None => 1,
            Some(item) => item.as_integer().ok_or_else(|| error("`version` is not a number".to_owned()))?,
        };
        Ok(Self { path: path.to_owned(), text: text.to_owned(), document, version })
    }

    fn imports(&self) -> Vec<String> {
        let list = self.document.get("imports").and_then(Item::as_array);
        list.into_iter().flatten().filter_map(|path| path.as_str().map(ToOwned::to_owned)).collect()
    }

    fn plugin(&self, id: &str) -> Option<&dyn TableLike> {
        self.document.get("plugins")?.as_table_like()?.get(id)?.as_table_like()
    }
}

#[cfg(test)]
mod tests;
