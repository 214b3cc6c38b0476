//! A containerd `certs.d` tree, as data.

use std::collections::BTreeMap;

use countersign_reference::Reference;
use countersign_site::{RegistryUrl, Scheme, Source};
use toml_edit::{DocumentMut, Item, TableLike};

use crate::dialect::{TOML_1_1, newer_toml};
use crate::plan::{Finding, Mirror, Plan, Severity, namespace};
use crate::release::Release;
use crate::render::WRITTEN;

/// The first release that knows `dial_timeout`.
pub(crate) const DIAL_TIMEOUT: Release = Release(2, 1);

/// The file with a host's mirror rules.
pub const HOSTS_FILE: &str = "hosts.toml";
/// The directory for hosts without one of their own.
pub const DEFAULT_DIRECTORY: &str = "_default";

/// Where a runtime is sent for a registry that no rule names: nobody listens on the discard
/// port of loopback, and the error that the runtime then shows has the reason in its URL.
pub const SINK: &str = "http://127.0.0.1:9/no-mirror-rule-names-this-registry";

/// The directory that `config_path` names, read into memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    /// Its path, for messages and for relative paths in its files.
    pub root: String,
    /// Its directories by name.
    pub directories: BTreeMap<String, Directory>,
}

/// The rules for one host: files by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Directory {
    /// Text of each file.
    pub files: BTreeMap<String, String>,
}

/// Rules that are not followed here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{at}: {}", self.reason())]
pub struct TreeError {
    /// Which file.
    pub at: String,
    /// What is wrong with it.
    pub message: String,
    /// Whether the runtime would pass over them in silence, and go to the upstream.
    pub undecodable: bool,
}

const IGNORED: &str = "containerd would ignore the file and ask the upstream registry";
const FOLLOWED: &str = "containerd would follow it, Countersign does not";

impl TreeError {
    /// What is wrong, and what follows from it.
    pub fn reason(&self) -> String {
        format!("{} ({})", self.message, if self.undecodable { IGNORED } else { FOLLOWED })
    }
}

/// Why one host of a file is not followed.
struct Wrong {
    message: String,
    undecodable: bool,
}

impl From<String> for Wrong {
    /// What does not decode.
    fn from(message: String) -> Self {
        Self { message, undecodable: true }
    }
}

impl From<&str> for Wrong {
    fn from(message: &str) -> Self {
        message.to_owned().into()
    }
}

/// What decodes, and is nothing that this program does.
fn unfollowed(message: impl Into<String>) -> Wrong {
    Wrong { message: message.into(), undecodable: false }
}

impl Directory {
    /// Whether `countersign node` wrote it.
    pub fn is_ours(&self) -> bool {
        self.files.get(HOSTS_FILE).is_some_and(|text| text.starts_with(WRITTEN))
    }
}

impl Tree {
    /// What containerd asks for this image, in order.
    ///
    /// The first directory that exists decides, even an empty one: `host_port_`, `host:port`,
    /// `_default`; names are compared letter for letter.
    pub fn plan(&self, image: &Reference) -> Result<Plan, TreeError> {
        let host = image.domain();
        let underscored = host.contains(':').then(|| format!("{}_", host.replace(':', "_")));
        let names = underscored.iter().map(String::as_str).chain([host, DEFAULT_DIRECTORY]);
        let found = names.into_iter().find_map(|name| Some((name, self.directories.get(name)?)));
        let Some((name, directory)) = found else {
            let finding =
                fail_open(&self.root, format!("there is no rule for `{host}`, and no `{DEFAULT_DIRECTORY}`"));
            return Ok(Plan {
                falls_back_to: Some(upstream(host)),
                findings: vec![finding],
                ..Plan::default()
            });
        };
        let path = format!("{}/{name}", self.root);
        match directory.files.get(HOSTS_FILE).filter(|text| !text.is_empty()) {
            Some(text) => hosts_file(text, &path, host),
            None => Ok(certificates(directory, &path, host)),
        }
    }
}

/// Whether a URL is where rules end that lead nowhere.
fn is_sink(url: &RegistryUrl) -> bool {
    RegistryUrl::parse(SINK).is_ok_and(|sink| sink == *url)
}

fn fail_open(at: &str, message: String) -> Finding {
    Finding { severity: Severity::FailOpen, at: at.to_owned(), message, until: None, since: None }
}

/// Where containerd goes for a host that no rule names.
fn upstream(host: &str) -> String {
    let name = host.split(':').next().unwrap_or(host);
    let local = name == "localhost" || name.starts_with("127.");
    match host {
        "docker.io" => "https://registry-1.docker.io".to_owned(),
        _ if local && host.contains(':') && !host.ends_with(":443") => format!("http://{host}"),
        _ => format!("https://{host}"),
    }
}

/// Without a `hosts.toml`, `*.crt` files are CAs and `*.cert` with `*.key` client pairs for
/// the host itself (Docker's layout); without those there is no rule at all.
fn certificates(directory: &Directory, path: &str, host: &str) -> Plan {
    let file = |name: &str| Source::File(format!("{path}/{name}"));
    let with = |suffix: &'static str| directory.files.keys().filter(move |name| name.ends_with(suffix));
    let ca: Vec<Source> = with(".crt").map(|name| file(name)).collect();
    let pairs = with(".cert").map(|name| {
        let key = name.replace(".cert", ".key");
        let key = if directory.files.contains_key(&key) { &key } else { name };
        (file(name), file(key))
    });
    let client: Vec<_> = pairs.collect();
    let url = RegistryUrl::parse(&upstream(host));
    match url {
        Ok(url) if !(ca.is_empty() && client.is_empty()) => {
            let mirror = Mirror { ca, client, ..plain(url, host, true) };
            let message = format!("there are certificates and no `{HOSTS_FILE}`: the host itself is asked");
            let finding = Finding {
                severity: Severity::Warning,
                at: path.to_owned(),
                message,
                until: None,
                since: None,
            };
            Plan { mirrors: vec![mirror], findings: vec![finding], ..Plan::default() }
        }
        _ => {
            let message =
                "the directory is empty: it hides `_default` and sends pulls to the upstream".to_owned();
            Plan {
                falls_back_to: Some(upstream(host)),
                findings: vec![fail_open(path, message)],
                ..Plan::default()
            }
        }
    }
}

fn plain(url: RegistryUrl, host: &str, resolve: bool) -> Mirror {
    Mirror { namespace: namespace(&url, host), resolve, ..Mirror::new(url.origin(), url) }
}

/// Reads one file and notes what is odd about it.
struct Reader<'a> {
    path: &'a str,
    host: &'a str,
    findings: Vec<Finding>,
}

fn hosts_file(text: &str, path: &str, host: &str) -> Result<Plan, TreeError> {
    let mut reader = Reader { path, host, findings: Vec::new() };
    let at = format!("{path}/{HOSTS_FILE}");
    let error = |message: String| TreeError { at: at.clone(), message, undecodable: true };
    let of = |what: String, wrong: Wrong| TreeError {
        at: at.clone(),
        message: format!("{what}: {}", wrong.message),
        undecodable: wrong.undecodable,
    };
    let document: DocumentMut =
        text.parse().map_err(|e: toml_edit::TomlError| error(e.message().to_owned()))?;
    let mut mirrors: Vec<Mirror> = Vec::new();
    for (url, table) in reader.hosts(&document).map_err(error)? {
        let mirror = reader.mirror(&url, table).map_err(|wrong| of(format!("host `{url}`"), wrong))?;
        mirrors.push(mirror);
    }
    if mirrors.is_empty() {
        reader.warn_until(Release(2, 0), "there is no `[host.\"…\"]` table: before containerd 2.0 the whole file is ignored then; add one for the `server`");
    }
    let server = match document.get("server") {
        None => None,
        Some(item) => Some(item.as_str().ok_or_else(|| error("`server` is not a string".to_owned()))?),
    };
    if let Some(what) = newer_toml(&document) {
        reader.warn_until(TOML_1_1, &format!("{what}: before containerd 2.4 the whole file is ignored then"));
    }
    let at_root: Vec<&str> = ["ca", "client", "skip_verify", "header"]
        .into_iter()
        .filter(|key| document.contains_key(key) && mirrors_lack(&document, key))
        .collect();
    if let [first, ..] = at_root.as_slice() {
        reader.warn(&format!(
            "`{first}` at the top is for the `server` alone, and no `[host.\"…\"]` table has it"
        ));
    }
    let mut falls_back_to = None;
    if let Some(server) = server.filter(|server| !server.is_empty()) {
        let mirror = reader.mirror(server, document.as_table());
        mirrors.push(mirror.map_err(|wrong| of(format!("server `{server}`"), wrong))?);
    } else {
        falls_back_to = Some(upstream(host));
        let message =
            "there is no `server`: the upstream is asked last; set `server` to the last mirror".to_owned();
        reader.findings.push(fail_open(&at, message));
    }
    // A server that is also a host is written twice for the sake of containerd 1.x.
    mirrors.dedup_by(|second, first| second.url == first.url);
    mirrors.retain(|mirror| !is_sink(&mirror.url));
    Ok(Plan { mirrors, falls_back_to, findings: reader.findings })
}

/// Whether there are host tables, and none of them has this key.
fn mirrors_lack(document: &DocumentMut, key: &str) -> bool {
    let hosts = document.get("host").and_then(Item::as_table_like);
    let mut hosts = hosts.into_iter().flat_map(|hosts| hosts.iter()).peekable();
    hosts.peek().is_some() && hosts.all(|(_, item)| item.get(key).is_none())
}

impl Reader<'_> {
    fn warn(&mut self, message: &str) {
        let at = format!("{}/{HOSTS_FILE}", self.path);
        let message = message.to_owned();
        self.findings.push(Finding { severity: Severity::Warning, at, message, until: None, since: None });
    }

    /// What hits only releases before this one.
    fn warn_until(&mut self, until: Release, message: &str) {
        self.warn(message);
        if let Some(finding) = self.findings.last_mut() {
            finding.until = Some(until);
        }
    }

    /// The `[host."…"]` tables in the order of their headers.
    fn hosts<'d>(&mut self, document: &'d DocumentMut) -> Result<Vec<(String, &'d dyn TableLike)>, String> {
        let Some(item) = document.get("host") else { return Ok(Vec::new()) };
        let Item::Table(hosts) = item else {
            self.warn("`host` is not written as `[host.\"…\"]` tables: containerd never asks such hosts");
            return if item.is_inline_table() {
                Ok(Vec::new())
            } else {
                Err("`host` is not a table".to_owned())
            };
        };
        let mut tables = Vec::new();
        for (url, item) in hosts {
            match item {
                Item::Table(table) if !table.is_dotted() && !hosts.is_dotted() => {
                    let header = (!table.is_implicit()).then(|| table.position()).flatten();
                    let inner = table.iter().filter_map(|(_, item)| item.as_table()?.position()).min();
                    tables.push((
                        header.or(inner).unwrap_or(isize::MAX),
                        url.to_owned(),
                        table as &dyn TableLike,
                    ));
                }
                Item::Table(_) | Item::Value(_) => {
                    let message = format!(
                        "host `{url}` is not written as a `[host.\"{url}\"]` table: containerd never asks it"
                    );
                    self.warn(&message);
                }
                _ => return Err(format!("host `{url}` is not a table")),
            }
        }
        tables.sort_by_key(|(position, _, _)| *position);
        Ok(tables.into_iter().map(|(_, url, table)| (url, table)).collect())
    }

    /// One host, or the server with the keys at the root.
    fn mirror(&mut self, url: &str, table: &dyn TableLike) -> Result<Mirror, Wrong> {
        let flag = |key: &str| match table.get(key) {
            None => Ok(false),
            Some(item) => item.as_bool().ok_or_else(|| format!("`{key}` is not true or false")),
        };
        if let Some(item) = table.get("dial_timeout")
            && !item.as_str().is_some_and(|text| text.is_empty() || is_duration(text))
        {
            let at = format!("{}/{HOSTS_FILE}", self.path);
            let message = "`dial_timeout` is not a duration, as \"5s\": the whole file is ignored then, and the upstream asked";
            let since = Some(DIAL_TIMEOUT);
            self.findings.push(Finding { since, ..fail_open(&at, message.to_owned()) });
        }
        let full = if url.contains("://") {
            url.to_owned()
        } else if url.starts_with("http") {
            let why =
                "the scheme is missing, and containerd does not add one to a name that starts with `http`";
            return Err(why.into());
        } else {
            format!("https://{url}")
        };
        let url = RegistryUrl::parse_with(&full, flag("override_path")?).map_err(|error| Wrong {
            message: error.to_string(),
            // What Go's reader of URLs makes something of is asked.
            undecodable: !go_finds_a_host(&full),
        })?;
        if !flag("override_path")? && url.root.trim_end_matches("/v2").contains("/v2/") {
            let root = &url.root;
            self.warn(&format!("`{full}` is asked below `{root}`: set `override_path = true`"));
        }
        let resolve = self.resolves(table)?;
        let mut mirror = plain(url, self.host, resolve);
        mirror.skip_verify = flag("skip_verify")?;
        mirror.ca = self.sources(table.get("ca"))?;
        mirror.client = self.client(table.get("client"))?;
        mirror.headers = headers(table.get("header"))?;
        if mirror.skip_verify {
            self.warn(&format!("`{full}`: `skip_verify` lets anybody on the way answer for it"));
        }
        let tls = !mirror.ca.is_empty() || !mirror.client.is_empty() || mirror.skip_verify;
        if mirror.url.scheme == Scheme::Http {
            if tls {
                let why =
                    "an `http` URL with TLS settings: containerd tries https first; write one or the other";
                return Err(unfollowed(why));
            }
            if !mirror.url.at.is_loopback() {
                self.warn(&format!("`{full}`: plain http beyond loopback"));
            }
        }
        Ok(mirror)
    }

    /// Whether tags are resolved here. An unknown capability makes the whole file undecodable.
    fn resolves(&mut self, table: &dyn TableLike) -> Result<bool, String> {
        let Some(item) = table.get("capabilities") else { return Ok(true) };
        let list = item.as_array().ok_or("`capabilities` is not a list")?;
        let (mut pull, mut resolve) = (list.is_empty(), list.is_empty());
        for capability in list {
            match capability.as_str().map(str::to_ascii_lowercase).as_deref() {
                Some("pull") => pull = true,
                Some("resolve") => resolve = true,
                Some("push") => {}
                Some("referrers") => {
                    self.warn_until(
                        Release(2, 2),
                        "capability `referrers`: before containerd 2.2 the whole file is ignored then",
                    );
                }
                _ => return Err(format!("capability {capability} is not known")),
            }
        }
        Ok(pull && resolve)
    }

    fn source(&self, file: &str) -> Source {
        let absolute = file.starts_with('/');
        Source::File(if absolute { file.to_owned() } else { format!("{}/{file}", self.path) })
    }

    fn sources(&self, item: Option<&Item>) -> Result<Vec<Source>, String> {
        let Some(item) = item else { return Ok(Vec::new()) };
        if let Some(file) = item.as_str() {
            return Ok(vec![self.source(file)]);
        }
        let wrong = || "`ca` is not a path or a list of paths".to_owned();
        let list = item.as_array().ok_or_else(wrong)?;
        list.iter().map(|file| Ok(self.source(file.as_str().ok_or_else(wrong)?))).collect()
    }

    fn client(&self, item: Option<&Item>) -> Result<Vec<(Source, Source)>, String> {
        let wrong = || "`client` is not a path, a list of paths or a list of pairs".to_owned();
        let Some(item) = item else { return Ok(Vec::new()) };
        if let Some(file) = item.as_str() {
            return Ok(vec![(self.source(file), self.source(file))]);
        }
        let mut pairs = Vec::new();
        for entry in item.as_array().ok_or_else(wrong)? {
            if let Some(file) = entry.as_str() {
                pairs.push((self.source(file), self.source(file)));
                continue;
            }
            let pair: Option<Vec<&str>> =
                entry.as_array().ok_or_else(wrong)?.iter().map(|file| file.as_str()).collect();
            let [cert, key] = pair.as_deref().ok_or_else(wrong)? else {
                return Err("a `client` pair has two entries, certificate and key".to_owned());
            };
            let key = if key.is_empty() { cert } else { key };
            pairs.push((self.source(cert), self.source(key)));
        }
        Ok(pairs)
    }
}

/// Whether Go's `url.Parse` takes a text and finds a host in it.
fn go_finds_a_host(url: &str) -> bool {
    let Some((_, rest)) = url.split_once("://") else { return false };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let at = authority.rsplit_once('@').map_or(authority, |(_, at)| at);
    let (host, port) = at.rsplit_once(':').filter(|(host, _)| !host.contains(':')).unwrap_or((at, ""));
    let odd = |c: char| c.is_whitespace() || c.is_control() || "\"<>\\^`{|}%".contains(c);
    !host.is_empty() && !host.contains(odd) && port.bytes().all(|b| b.is_ascii_digit())
}

/// A duration as Go writes it (`time.ParseDuration`): `5s`, `1m30s`, `0`.
fn is_duration(text: &str) -> bool {
    let mut rest = text.strip_prefix(['+', '-']).unwrap_or(text);
    if rest == "0" {
        return true;
    }
    let mut any = false;
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (digits, after) = rest.split_at(number);
        let unit =
            ["ns", "us", "µs", "μs", "ms", "s", "m", "h"].iter().find(|unit| after.starts_with(**unit));
        let Some(unit) = unit.filter(|_| digits.parse::<f64>().is_ok()) else { return false };
        // `ms` is no `m`.
        let unit = if after.starts_with("ms") { "ms" } else { unit };
        rest = &after[unit.len()..];
        any = true;
    }
    any
}

fn headers(item: Option<&Item>) -> Result<Vec<(String, String)>, String> {
    let wrong = || "`header` is not a table of strings".to_owned();
    let Some(item) = item else { return Ok(Vec::new()) };
    let mut headers = Vec::new();
    for (name, value) in item.as_table_like().ok_or_else(wrong)?.iter() {
        if let Some(value) = value.as_str() {
            headers.push((name.to_owned(), value.to_owned()));
            continue;
        }
        for value in value.as_array().ok_or_else(wrong)? {
            headers.push((name.to_owned(), value.as_str().ok_or_else(wrong)?.to_owned()));
        }
    }
    Ok(headers)
}

#[cfg(test)]
mod tests;
