//! The override of one name.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::ops::Range;

use jiff::Timestamp;

use crate::lexer::tokens;
use crate::tree::{Corefile, Directive, Item, Server, SyntaxError};

const BEGIN: &str = "# BEGIN countersign dns override of ";
const END: &str = "# END countersign dns override of ";
/// Stands at the end of the first line where the text before had no end of line.
const JOINED: &str = " (joined)";
/// Seconds that clients may keep the answer.
const TTL: u32 = 5;
/// Characters of an owner's name.
const MAX_OWNER: usize = 63;

/// That a name leads to these addresses, for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    /// The name, as `registry.local`.
    pub name: String,
    /// Where it leads.
    pub addresses: Vec<IpAddr>,
    /// Who has set it, and may change it.
    pub owner: String,
    /// When it ends.
    pub until: Timestamp,
}

/// A text with an override in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    /// The new text.
    pub text: String,
    /// Why it might not have the effect that is wanted.
    pub warnings: Vec<String>,
}

/// Why a text cannot be edited.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EditError {
    /// CoreDNS would refuse it as it is.
    #[error("the Corefile cannot be read: {0}")]
    Syntax(#[from] SyntaxError),
    /// What is wanted cannot be written.
    #[error("{0}")]
    Override(String),
    /// Somebody else has set one.
    #[error("`{owner}` has overridden the name until {until}: wait, or take it over by force")]
    Held {
        /// Who.
        owner: String,
        /// Until when.
        until: Timestamp,
    },
    /// The site answers for the name itself.
    #[error("line {line}: there is a server block for `{name}` already: put the record into its `hosts`")]
    Taken {
        /// The name.
        name: String,
        /// Where.
        line: usize,
    },
    /// A file of one block may have no braces, and then there is no room for another.
    #[error("line {0}: the only server block has no braces: put `{{` and `}}` around what is in it")]
    NoBraces(usize),
    /// Our marks are not as we leave them.
    #[error("line {line}: {why}: repair the marks by hand")]
    Marks {
        /// On which line.
        line: usize,
        /// What is wrong.
        why: String,
    },
}

/// An override as it stands in a text.
struct Found {
    /// All of it, and the end of line before it if that was put there for it.
    span: Range<usize>,
    said: Override,
}

/// The override of a name, if there is one.
pub fn find(text: &str, name: &str) -> Result<Option<Override>, EditError> {
    Ok(found(text)?.into_iter().map(|found| found.said).find(|said| said.name == name))
}

/// Takes the override of a name out; `None` where there is none. What is left is what was there
/// before it was set, byte for byte, unless others have changed it since.
pub fn clear(text: &str, name: &str) -> Result<Option<String>, EditError> {
    Ok(without(text, |said| said.name == name)?.map(|(text, _)| text))
}

/// Takes out what has ended; `None` where nothing has. The names are told.
pub fn expire(text: &str, now: Timestamp) -> Result<Option<(String, Vec<String>)>, EditError> {
    without(text, |said| said.until <= now)
}

fn without(text: &str, ends: impl Fn(&Override) -> bool) -> Result<Option<(String, Vec<String>)>, EditError> {
    let mut gone = found(text)?;
    gone.retain(|found| ends(&found.said));
    if gone.is_empty() {
        return Ok(None);
    }
    let mut left = text.to_owned();
    for found in gone.iter().rev() {
        left.replace_range(found.span.clone(), "");
    }
    // What is left is what was around it, read alike.
    let line_of = |at: usize| text[..at].matches('\n').count() + 1;
    let places: Vec<_> =
        gone.iter().map(|found| line_of(found.span.start)..=line_of(found.span.end - 1)).collect();
    let own = |line: usize| places.iter().any(|place| place.contains(&line));
    // A joined block begins on the line on which another one ends.
    let own = |server: &Server| {
        own(server.line)
            && server.keys.iter().all(|key| {
                Key::of(key).is_some_and(|key| gone.iter().any(|found| found.said.name == key.zone))
            })
    };
    let before = Corefile::parse(text).map(|file| others(file, own));
    if let Ok(before) = before
        && Corefile::parse(&left).map(|file| others(file, |_| false)).as_ref() != Ok(&before)
    {
        let why = "what stands beside it would be read otherwise without it";
        return Err(EditError::Marks { line: line_of(gone[0].span.start), why: why.to_owned() });
    }
    Ok(Some((left, gone.into_iter().map(|found| found.said.name).collect())))
}

/// What is in a file, without some of its blocks: of each its words, wherever they stand.
fn others(file: Corefile, is_gone: impl Fn(&Server) -> bool) -> Vec<Vec<String>> {
    let words =
        |directives: &[Directive]| directives.iter().flat_map(|it| it.words.clone()).collect::<Vec<_>>();
    let item = |item: Item| match item {
        Item::Server(server) => (!is_gone(&server))
            .then(|| server.keys.iter().cloned().chain(words(&server.directives)).collect()),
        Item::Snippet { name, directives } => Some([name].into_iter().chain(words(&directives)).collect()),
        Item::Import { pattern, .. } => Some(vec![pattern]),
    };
    file.items.into_iter().filter_map(item).collect()
}

/// Sets an override, in the place of one of the same name. `force` takes over what somebody else
/// has set and what has not ended.
///
/// # Errors
///
/// The text is not one that CoreDNS reads, or has no room for it.
pub fn set(text: &str, wanted: &Override, now: Timestamp, force: bool) -> Result<Edit, EditError> {
    check(wanted)?;
    if let Some(before) = find(text, &wanted.name)?
        && before.owner != wanted.owner
        && before.until > now
        && !force
    {
        return Err(EditError::Held { owner: before.owner, until: before.until });
    }
    let base = clear(text, &wanted.name)?.unwrap_or_else(|| text.to_owned());
    let file = Corefile::parse(&base)?;
    if let Some(server) = file.servers().find(|server| !server.braces) {
        return Err(EditError::NoBraces(server.line));
    }
    let mut warnings = Vec::new();
    let blocks = blocks(&base, &file, wanted, &mut warnings)?;
    // Where the text has no end of line, the block takes the one before it, and has none after it.
    let joined = !base.is_empty() && !base.ends_with('\n');
    let block = format!(
        "{BEGIN}{}{}\n# owner {}, until {}; `countersign dns override clear` takes it out.\n{blocks}{END}{}",
        wanted.name,
        if joined { JOINED } else { "" },
        wanted.owner,
        wanted.until,
        wanted.name
    );
    let mut block = if joined { format!("\n{block}") } else { format!("{block}\n") };
    // The line ends of the file.
    if base.contains("\r\n") {
        block = block.replace("\r\n", "\n").replace('\n', "\r\n");
    }
    let text = format!("{base}{block}");
    // The others' blocks are still what they were, and ours is one.
    let after = Corefile::parse(&text)?;
    let same = |(before, after): (&Item, &Item)| before == after;
    let kept = file.items.len() < after.items.len() && file.items.iter().zip(&after.items).all(same);
    if !kept
        || find(&text, &wanted.name)?.as_ref() != Some(wanted)
        || clear(&text, &wanted.name)?.as_ref() != Some(&base)
    {
        return Err(EditError::Override("the override cannot be written into this Corefile".to_owned()));
    }
    Ok(Edit { text, warnings })
}

fn check(wanted: &Override) -> Result<(), EditError> {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    let word = |b: u8| b.is_ascii_alphanumeric() || b"._/@-".contains(&b);
    let why = if wanted.name.len() > 253 || !wanted.name.split('.').all(label) {
        format!("`{}` is not a host name in lower case", wanted.name)
    } else if wanted.addresses.is_empty() {
        "there is no address for the name to lead to".to_owned()
    } else if wanted.owner.is_empty() || wanted.owner.len() > MAX_OWNER || !wanted.owner.bytes().all(word) {
        format!("`{}` is no owner: letters, digits and `._/@-`, {MAX_OWNER} at most", wanted.owner)
    } else {
        return Ok(());
    };
    Err(EditError::Override(why))
}

/// The port of zones that name none, where CoreDNS was not started with another (`-dns.port`).
const DEFAULT_PORT: &str = "53";

/// A zone and the port that it is served on.
struct Key<'a> {
    zone: String,
    /// The server's default where none is written.
    port: Option<&'a str>,
}

impl<'a> Key<'a> {
    /// `[scheme://]zone[:port]`; `None` for what is no plain DNS or no zone of names.
    fn of(key: &'a str) -> Option<Self> {
        let rest = match key.split_once("://") {
            Some(("dns", rest)) => rest,
            Some(_) => return None,
            None => key,
        };
        let (zone, port) = match rest.rsplit_once(':') {
            Some((zone, port)) => (zone, Some(port)),
            None => (rest, None),
        };
        if zone.contains([':', '/', '{']) {
            return None;
        }
        Some(Self { zone: zone.trim_matches('.').to_ascii_lowercase(), port })
    }

    fn answers(&self, name: &str) -> bool {
        self.zone.is_empty() || self.zone == name || is_below(name, &self.zone)
    }
}

/// Whether a name lies below another one.
fn is_below(name: &str, zone: &str) -> bool {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    name.strip_suffix(zone).is_some_and(|rest| rest.ends_with('.'))
}

/// What is taken over from the block that answered until now, in this order; `hosts` in part.
const TAKEN_OVER: [&str; 5] = ["root", "bind", "acl", "dns64", "forward"];
/// What says nothing of its own about names.
const WITHOUT_ANSWERS: &[&str] = &[
    "any",
    "bufsize",
    "cache",
    "cancel",
    "chaos",
    "debug",
    "dnstap",
    "errors",
    "header",
    "health",
    "hosts",
    "import",
    "kubernetes",
    "loadbalance",
    "local",
    "log",
    "loop",
    "metadata",
    "minimal",
    "multisocket",
    "nsid",
    "pprof",
    "prometheus",
    "ready",
    "reload",
    "timeouts",
    "tls",
    "trace",
    "whoami",
];

/// A block for each block that answers for the name until now, on the same ports.
fn blocks(
    text: &str,
    file: &Corefile,
    wanted: &Override,
    warnings: &mut Vec<String>,
) -> Result<String, EditError> {
    let servers: Vec<&Server> = file.servers().collect();
    // Those with the longest zone on each port; several of them listen at different addresses.
    let mut by_port: BTreeMap<Option<&str>, (usize, Vec<usize>)> = BTreeMap::new();
    let keys = || servers.iter().flat_map(|server| &server.keys).filter_map(|key| Key::of(key));
    let says_53 = keys().any(|key| key.port == Some(DEFAULT_PORT) && key.answers(&wanted.name));
    for (index, server) in servers.iter().enumerate() {
        for key in &server.keys {
            let Some(mut read) = Key::of(key) else {
                if key.contains('{') || key.contains("://") {
                    warnings.push(format!(
                        "line {}: `{key}` is not looked into: whom it answers is not known",
                        server.line
                    ));
                }
                continue;
            };
            if read.zone == wanted.name {
                return Err(EditError::Taken { name: wanted.name.clone(), line: server.line });
            }
            if says_53 {
                // The same port, written and not.
                read.port = read.port.or(Some(DEFAULT_PORT));
            }
            if read.answers(&wanted.name) {
                let (length, best) = by_port.entry(read.port).or_default();
                match read.zone.len().cmp(length) {
                    std::cmp::Ordering::Greater => (*length, *best) = (read.zone.len(), vec![index]),
                    std::cmp::Ordering::Equal if !best.contains(&index) => best.push(index),
                    _ => {}
                }
            }
        }
    }
    if by_port.len() > 1 && by_port.keys().any(|port| port.is_some_and(|port| port.contains('{'))) {
        let why = "the name is answered on several ports, one of which only the environment knows: it may be another one of them";
        return Err(EditError::Override(why.to_owned()));
    }
    let mut by_server: BTreeMap<usize, Vec<Option<&str>>> = BTreeMap::new();
    for (port, (_, best)) in by_port {
        for index in best {
            by_server.entry(index).or_default().push(port);
        }
    }
    if by_server.is_empty() {
        warnings.push(format!("no server block answers for `{}` now: one is made", wanted.name));
    }
    for item in &file.items {
        if let Item::Import { pattern, line } = item {
            warnings.push(format!(
                "line {line}: `{pattern}` is imported and not looked into: if it has a block for `{}`, CoreDNS \
                 refuses the whole",
                wanted.name
            ));
        }
    }
    let has =
        |name: &str| servers.iter().any(|server| file.expanded(server).iter().any(|it| it.name() == name));
    if !has("reload") {
        warnings.push("there is no `reload`: CoreDNS reads a change only when it starts".to_owned());
    }
    if has("autopath") {
        warnings.push(
            "there is `autopath`: for short names it goes on in its own block and passes the override by"
                .to_owned(),
        );
    }
    let mut written = String::new();
    let mut all: Vec<_> = by_server.into_iter().map(|(index, ports)| (Some(servers[index]), ports)).collect();
    if all.is_empty() {
        all.push((None, vec![None]));
    }
    for (server, ports) in all {
        let key = |port: Option<&str>| match port {
            Some(port) => format!("{}:{port}", wanted.name),
            None => wanted.name.clone(),
        };
        let keys: Vec<String> = ports.into_iter().map(key).collect();
        let taken = server.map(|server| file.expanded(server)).unwrap_or_default();
        lost(&taken, wanted, warnings)?;
        block(&mut written, text, &keys.join(" "), &taken, wanted);
    }
    Ok(written)
}

/// What the block that answered until now does for names below the overridden one, and the new one
/// does not.
fn lost(taken: &[&Directive], wanted: &Override, warnings: &mut Vec<String>) -> Result<(), EditError> {
    let name = &wanted.name;
    for directive in taken {
        let (line, words) = (directive.lines[0], directive.words.join(" "));
        let plugin = directive.name();
        let before_block = directive.words.iter().skip(1).take_while(|word| *word != "{");
        match plugin {
            "view" => {
                let why = format!(
                    "line {line}: the block has a `view`: the override would be for other clients, too"
                );
                return Err(EditError::Override(why));
            }
            "import" => warnings.push(format!(
                "line {line}: what `{words}` brings along does not count for `{name}` and names below it"
            )),
            "hosts" => {
                let within =
                    directive.block().iter().any(|line| line.first().is_some_and(|word| word == "import"));
                if before_block.count() > 0 || within {
                    warnings
                        .push(format!("line {line}: names below `{name}` in files of `hosts` do not count"));
                }
            }
            "kubernetes" => {
                let mut zones = before_block;
                if let Some(zone) = zones.find(|zone| *zone == name || is_below(zone, name)) {
                    let why = format!(
                        "line {line}: `{zone}` of the cluster lies below `{name}`, and would not be answered"
                    );
                    return Err(EditError::Override(why));
                }
            }
            _ if TAKEN_OVER.contains(&plugin) || WITHOUT_ANSWERS.contains(&plugin) => {}
            _ => warnings.push(format!("line {line}: `{plugin}` does not count for names below `{name}`")),
        }
    }
    Ok(())
}

fn block(to: &mut String, text: &str, keys: &str, taken: &[&Directive], wanted: &Override) {
    _ = writeln!(to, "{keys} {{\n    errors");
    for name in TAKEN_OVER {
        for directive in taken.iter().filter(|directive| directive.name() == name) {
            _ = writeln!(to, "    {}", &text[directive.span.clone()]);
        }
    }
    // Without a file it would read the machine's own, and answer with both.
    _ = writeln!(to, "    hosts /dev/null {{");
    for address in &wanted.addresses {
        _ = writeln!(to, "        {address} {}", wanted.name);
    }
    for line in taken.iter().filter(|directive| directive.name() == "hosts").flat_map(|hosts| hosts.block()) {
        let [address, names @ ..] = line else { continue };
        let names = names.iter().map(String::as_str);
        let names: Vec<&str> = names.filter(|name| is_below(name, &wanted.name)).collect();
        if address.parse::<IpAddr>().is_ok() && !names.is_empty() {
            _ = writeln!(to, "        {address} {}", names.join(" "));
        }
    }
    // Last: what follows it in a block is refused.
    _ = writeln!(to, "        ttl {TTL}\n        fallthrough\n    }}\n}}");
}

/// Every override, in the order of the text.
fn found(text: &str) -> Result<Vec<Found>, EditError> {
    let (_, comments) = tokens(text);
    let marks = |line: usize, why: &str| EditError::Marks { line, why: why.to_owned() };
    let mut comments = comments.iter().filter(|comment| comment.alone).peekable();
    let mut all = Vec::new();
    while let Some(begin) = comments.next() {
        let said = text[begin.span.clone()].trim_end();
        if said.starts_with(END) {
            return Err(marks(begin.line, "an override ends that did not begin"));
        }
        let Some(name) = said.strip_prefix(BEGIN) else { continue };
        let joined = name.ends_with(JOINED);
        let name = name.trim_end_matches(JOINED);
        let terms = comments.next().map(|comment| text[comment.span.clone()].trim_end()).unwrap_or_default();
        let (owner, until) =
            terms_of(terms).ok_or_else(|| marks(begin.line + 1, "owner and expiry cannot be read"))?;
        let closing = format!("{END}{name}");
        let end = loop {
            let Some(comment) = comments.next() else {
                return Err(marks(begin.line, "the override does not end"));
            };
            let said = text[comment.span.clone()].trim_end();
            if said == closing {
                break comment;
            }
            if said.starts_with(BEGIN) || said.starts_with(END) {
                return Err(marks(begin.line, "the override does not end before another one"));
            }
        };
        let start = text[..begin.span.start].rfind('\n').map_or(0, |at| at + 1);
        let start = if joined { before_line_end(text, start) } else { start };
        let stop = match text[end.span.end..].find('\n') {
            // The end of line before it is its own, the one after it is not.
            _ if joined => end.span.end,
            Some(at) => end.span.end + at + 1,
            None => text.len(),
        };
        let addresses = addresses(&text[begin.span.start..end.span.end], name);
        let said = Override { name: name.to_owned(), addresses, owner, until };
        all.push(Found { span: start..stop, said });
    }
    Ok(all)
}

/// Where the line before ends.
fn before_line_end(text: &str, start: usize) -> usize {
    let before = &text[..start];
    before.strip_suffix("\r\n").or_else(|| before.strip_suffix('\n')).map_or(start, str::len)
}

/// `# owner NAME, until TIME; …`
fn terms_of(line: &str) -> Option<(String, Timestamp)> {
    let (owner, rest) = line.strip_prefix("# owner ")?.split_once(", until ")?;
    let (until, _) = rest.split_once(';')?;
    Some((owner.to_owned(), until.parse().ok()?))
}

/// Where the name leads by what stands between the marks.
fn addresses(text: &str, name: &str) -> Vec<IpAddr> {
    let Ok(file) = Corefile::parse(text) else { return Vec::new() };
    let mut addresses = Vec::new();
    for hosts in file.servers().flat_map(|server| &server.directives).filter(|it| it.name() == "hosts") {
        for line in hosts.block() {
            let [address, names @ ..] = line else { continue };
            let address = address.parse::<IpAddr>().ok().filter(|_| names.iter().any(|named| named == name));
            addresses.extend(address.filter(|address| !addresses.contains(address)));
        }
    }
    addresses
}

#[cfg(test)]
mod tests;
