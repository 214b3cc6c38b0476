//! The changes that make a runtime read the rules, and nothing else.

use countersign_reference::Reference;
use toml_edit::{Array, DocumentMut, InlineTable, Item, Table, TableLike, Value};

use super::{CRI, CRI_IMAGES, ConfigError, ConfigFile, DEFAULT_IMPORTS, Parsed, RuntimeConfig};
use crate::release::Release;
use crate::render::WRITTEN;

/// What the configuration has to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The directory with the mirror rules.
    pub config_path: String,
    /// The sandbox image; nothing is said about it where there is none.
    pub sandbox_image: Option<Reference>,
}

/// Our own file for containerd 2.x.
pub fn drop_in(settings: &Settings) -> String {
    let mut text = format!(
        "{WRITTEN}version = 3\n\n[plugins.{CRI_IMAGES:?}.registry]\n  config_path = {:?}\n",
        settings.config_path
    );
    if let Some(image) = &settings.sandbox_image {
        text += &format!("\n[plugins.{CRI_IMAGES:?}.pinned_images]\n  sandbox = {:?}\n", image.to_string());
    }
    text
}

impl RuntimeConfig {
    /// The files that have to be written, each with its new text, so that the settings hold:
    /// `config` is the main file's path, `drop_in_path` that of our own. `matches` says whether a
    /// pattern of the first path's `imports` reads the second.
    ///
    /// # Errors
    ///
    /// A file cannot be changed without losing something, or another one would win over ours.
    pub fn changes(
        &self,
        settings: &Settings,
        config: &str,
        drop_in_path: &str,
        matches: impl Fn(&str, &str, &str) -> bool,
    ) -> Result<Vec<ConfigFile>, ConfigError> {
        let changed = if self.release.merges_imports() {
            self.changes_of_2(settings, config, drop_in_path, matches)?
        } else {
            self.changes_of_1(settings, config)?
        };
        self.hold(settings, &changed)?;
        Ok(changed)
    }

    /// The section that counts is changed where it is.
    fn changes_of_1(&self, settings: &Settings, config: &str) -> Result<Vec<ConfigFile>, ConfigError> {
        let empty;
        let file = match self.sections().next().map(|(file, _)| file).or(self.files.first()) {
            Some(file) => file,
            None => {
                empty = Parsed::of(config, "")?;
                &empty
            }
        };
        let mut editor = Editor::of(file)?;
        if self.files.iter().all(|file| file.version < 2) {
            if self.files.iter().any(|file| !file.document.is_empty()) {
                let why = "is of version 1: write it anew as `containerd config dump` shows it, then run this again";
                return Err(editor.error(why));
            }
            editor.document.insert("version", toml_edit::value(2));
        }
        editor.clean(CRI, self.release);
        editor.set(&["plugins", CRI, "registry"], "config_path", &settings.config_path)?;
        if let Some(image) = &settings.sandbox_image {
            editor.set(&["plugins", CRI], "sandbox_image", &image.to_string())?;
        }
        Ok(editor.done(file).into_iter().collect())
    }

    /// A file of our own, read last; what cannot stand beside it is taken out of the others.
    fn changes_of_2(
        &self,
        settings: &Settings,
        config: &str,
        own: &str,
        matches: impl Fn(&str, &str, &str) -> bool,
    ) -> Result<Vec<ConfigFile>, ConfigError> {
        let mut changed = Vec::new();
        let text = drop_in(settings);
        if self.files.iter().find(|file| file.path == own).is_none_or(|file| file.text != text) {
            changed.push(ConfigFile { path: own.to_owned(), text });
        }
        if self.files.is_empty() {
            let imported = if matches(config, DEFAULT_IMPORTS, own) { DEFAULT_IMPORTS } else { own };
            let text = format!("version = 3\nimports = [{imported:?}]\n");
            changed.push(ConfigFile { path: config.to_owned(), text });
            return Ok(changed);
        }
        let imported = self
            .files
            .iter()
            .any(|file| file.imports().iter().any(|pattern| matches(&file.path, pattern, own)));
        let mut after_own = false;
        for (index, file) in self.files.iter().enumerate() {
            if file.path == own {
                after_own = true;
                continue;
            }
            let mut editor = Editor::of(file)?;
            if index == 0 && !imported {
                editor.import(own)?;
            }
            let ids = self.ids(file);
            for id in &ids {
                editor.clean(id, self.release);
            }
            // A file that is read later wins; one that is not there yet is read where its name puts it.
            if after_own || (index > 0 && file.path.as_str() > own) {
                ids.iter().try_for_each(|id| editor.follow(id, settings))?;
            }
            changed.extend(editor.done(file));
        }
        Ok(changed)
    }

    /// What was changed is read again, and says what it should.
    fn hold(&self, settings: &Settings, changed: &[ConfigFile]) -> Result<(), ConfigError> {
        let mut files: Vec<ConfigFile> = Vec::new();
        for file in &self.files {
            let new = changed.iter().find(|new| new.path == file.path);
            let old = || ConfigFile { path: file.path.clone(), text: file.text.clone() };
            files.push(new.cloned().unwrap_or_else(old));
        }
        // What is new is read where its name puts it, after the main file.
        for new in changed.iter().filter(|new| self.files.iter().all(|file| file.path != new.path)) {
            let at = files.iter().skip(1).position(|file| file.path > new.path).map(|at| at + 1);
            files.insert(at.unwrap_or(files.len()), new.clone());
        }
        let after = Self::read(self.release, &files)?;
        let image = settings.sandbox_image.as_ref().map(ToString::to_string);
        let good = after.config_path() == Some(&settings.config_path)
            && (image.is_none() || after.sandbox_image() == image.as_deref())
            && after.sections().all(|(_, section)| mirrors_of(section).is_none());
        if good {
            return Ok(());
        }
        let path = changed.first().map(|file| file.path.clone()).unwrap_or_default();
        let why = "the change would not hold: another file of the configuration says otherwise".to_owned();
        Err(ConfigError { path, why })
    }
}

fn mirrors_of(section: &dyn TableLike) -> Option<&dyn TableLike> {
    section.get("registry")?.get("mirrors")?.as_table_like().filter(|mirrors| !mirrors.is_empty())
}

/// Changes one file, key by key.
struct Editor {
    path: String,
    document: DocumentMut,
    crlf: bool,
}

impl Editor {
    fn of(file: &Parsed) -> Result<Self, ConfigError> {
        let lines = file.text.matches('\n').count();
        let crlf = lines > 0 && file.text.matches("\r\n").count() == lines;
        // The library writes lines that end in `\n`.
        let document = if crlf {
            Parsed::of(&file.path, &file.text.replace("\r\n", "\n"))?.document
        } else {
            file.document.clone()
        };
        let editor = Self { path: file.path.clone(), document, crlf };
        if editor.text() == file.text {
            Ok(editor)
        } else {
            Err(editor
                .error("cannot be changed without changing more than is meant: its line ends are mixed"))
        }
    }

    fn error(&self, why: &str) -> ConfigError {
        ConfigError { path: self.path.clone(), why: why.to_owned() }
    }

    fn text(&self) -> String {
        let text = self.document.to_string();
        if self.crlf { text.replace('\n', "\r\n") } else { text }
    }

    /// The file, if anything in it is another than before.
    fn done(self, before: &Parsed) -> Option<ConfigFile> {
        let text = self.text();
        (text != before.text).then_some(ConfigFile { path: self.path, text })
    }

    /// Takes out what keeps `config_path` from being read.
    fn clean(&mut self, id: &str, release: Release) {
        // `Item::get_mut` would put in what is not there.
        fn inner<'a>(table: Option<&'a mut dyn TableLike>, key: &str) -> Option<&'a mut dyn TableLike> {
            table?.get_mut(key)?.as_table_like_mut()
        }
        let plugins = inner(Some(self.document.as_table_mut()), "plugins");
        let Some(registry) = inner(inner(plugins, id), "registry") else { return };
        let empty = |item: &Item| item.as_table_like().is_some_and(TableLike::is_empty);
        // What is empty, as the default configuration has it, is in nobody's way.
        if registry.get("mirrors").is_some_and(|mirrors| !empty(mirrors)) {
            registry.remove("mirrors");
        }
        if release.0 >= 2 {
            return;
        }
        // 1.x does not come up where `config_path` stands beside these.
        let Some(configs) = registry.get_mut("configs").and_then(Item::as_table_like_mut) else { return };
        let mut gone = Vec::new();
        for (name, item) in configs.iter_mut() {
            let Some(host) = item.as_table_like_mut() else { continue };
            if host.remove("tls").is_some() && host.is_empty() {
                gone.push(name.get().to_owned());
            }
        }
        for host in &gone {
            configs.remove(host);
        }
        if configs.is_empty() && !gone.is_empty() {
            registry.remove("configs");
        }
    }

    /// Says in a file that is read after ours what ours says, where it says anything.
    fn follow(&mut self, id: &str, settings: &Settings) -> Result<(), ConfigError> {
        let section = self.document.get("plugins").and_then(|plugins| plugins.get(id));
        let (mut path, mut old, mut new) = (false, false, false);
        if let Some(section) = section {
            let has = |table: Option<&Item>, key: &str| table.and_then(|table| table.get(key)).is_some();
            path = has(section.get("registry"), "config_path");
            old = has(Some(section), "sandbox_image");
            new = has(section.get("pinned_images"), "sandbox");
        }
        if path {
            self.set(&["plugins", id, "registry"], "config_path", &settings.config_path)?;
        }
        if let Some(image) = settings.sandbox_image.as_ref().map(ToString::to_string) {
            if old {
                self.set(&["plugins", id], "sandbox_image", &image)?;
            }
            if new {
                self.set(&["plugins", id, "pinned_images"], "sandbox", &image)?;
            }
        }
        Ok(())
    }

    /// Adds a path to `imports`.
    fn import(&mut self, path: &str) -> Result<(), ConfigError> {
        if !self.document.contains_key("imports") {
            self.document.insert("imports", toml_edit::value(Array::new()));
        }
        match self.document.get_mut("imports").and_then(Item::as_array_mut) {
            Some(list) => {
                list.push(path);
                Ok(())
            }
            None => Err(self.error("`imports` is not a list")),
        }
    }

    /// Sets a key, in tables that are made where they are not there.
    fn set(&mut self, tables: &[&str], key: &str, text: &str) -> Result<(), ConfigError> {
        let wrong =
            |name: &str| ConfigError { path: self.path.clone(), why: format!("`{name}` is not a table") };
        let mut item = self.document.as_item_mut();
        for name in tables {
            let inline = item.is_inline_table();
            let table = item.as_table_like_mut().ok_or_else(|| wrong(name))?;
            item = table.entry(name).or_insert_with(|| {
                if inline {
                    return toml_edit::value(InlineTable::new());
                }
                let mut table = Table::new();
                table.set_implicit(true);
                Item::Table(table)
            });
        }
        let table = item.as_table_like_mut().ok_or_else(|| wrong(key))?;
        let value = Value::from(text);
        if let Some(old) = table.get_mut(key) {
            match old.as_value_mut() {
                Some(old) if old.as_str() == Some(text) => {}
                Some(old) => {
                    let decor = old.decor().clone();
                    *old = value;
                    *old.decor_mut() = decor;
                }
                None => return Err(wrong(key)),
            }
            return Ok(());
        }
        let indent = indent_of(table);
        table.insert(key, Item::Value(value));
        if let Some(mut key) = table.key_mut(key).filter(|_| !indent.is_empty()) {
            key.leaf_decor_mut().set_prefix(indent);
        }
        Ok(())
    }
}

/// How the keys of a table are indented.
fn indent_of(table: &dyn TableLike) -> String {
    let first = table.iter().find(|(_, item)| item.is_value()).and_then(|(name, _)| table.key(name));
    let prefix = first.and_then(|key| key.leaf_decor().prefix()?.as_str());
    let line = prefix.map(|text| text.rsplit('\n').next().unwrap_or(text)).unwrap_or_default();
    if line.trim().is_empty() { line.to_owned() } else { String::new() }
}
