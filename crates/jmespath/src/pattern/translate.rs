//! From Go's syntax to that of the `regex` crate, token by token.

use std::fmt::Write as _;

/// A pattern in the syntax of the `regex` crate.
pub(crate) struct Translation {
    pub(crate) pattern: String,
    /// The names of the groups; the whole match is the first, without one.
    pub(crate) names: Vec<Option<String>>,
}

/// How often something may be repeated.
const MAX_REPEAT: u32 = 1000;
/// How deep groups may be nested.
const MAX_GROUPS: usize = 60;

const POSIX: [(&str, &str); 14] = [
    ("alnum", "0-9A-Za-z"),
    ("alpha", "A-Za-z"),
    ("ascii", "\\x00-\\x7F"),
    ("blank", "\\t\\x20"),
    ("cntrl", "\\x00-\\x1F\\x7F"),
    ("digit", "0-9"),
    ("graph", "\\x21-\\x7E"),
    ("lower", "a-z"),
    ("print", "\\x20-\\x7E"),
    ("punct", "\\x21-\\x2F\\x3A-\\x40\\x5B-\\x60\\x7B-\\x7E"),
    ("space", "\\t\\n\\x0B\\x0C\\r\\x20"),
    ("upper", "A-Z"),
    ("word", "0-9A-Za-z_"),
    ("xdigit", "0-9A-Fa-f"),
];

/// What may be repeated stands before, or nothing, or a repetition.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    Nothing,
    Something,
    Repetition,
}

pub(super) fn translate(text: &str) -> Result<Translation, String> {
    let mut translator =
        Translator { rest: text, out: String::new(), names: vec![None], open: 0, before: Before::Nothing };
    while !translator.rest.is_empty() {
        translator.token()?;
    }
    if translator.open > 0 {
        return Err("a group is not closed".to_owned());
    }
    Ok(Translation { pattern: translator.out, names: translator.names })
}

struct Translator<'a> {
    rest: &'a str,
    out: String,
    names: Vec<Option<String>>,
    open: usize,
    before: Before,
}

impl<'a> Translator<'a> {
    fn take(&mut self) -> Option<char> {
        let c = self.rest.chars().next()?;
        self.rest = &self.rest[c.len_utf8()..];
        Some(c)
    }

    fn taken(&mut self, text: &str) -> bool {
        let after = self.rest.strip_prefix(text);
        self.rest = after.unwrap_or(self.rest);
        after.is_some()
    }

    /// Takes up to that text, which has to be there.
    fn until(&mut self, end: &str, what: &str) -> Result<&'a str, String> {
        let (inner, after) = self.rest.split_once(end).ok_or_else(|| format!("{what} is not closed"))?;
        self.rest = after;
        Ok(inner)
    }

    fn write(&mut self, text: &str) {
        self.out.push_str(text);
        self.before = Before::Something;
    }

    fn literal(&mut self, c: char) {
        self.write(&code_point(c));
    }

    fn token(&mut self) -> Result<(), String> {
        let Some(c) = self.take() else { return Ok(()) };
        match c {
            '(' => return self.group(),
            ')' => {
                self.open = self.open.checked_sub(1).ok_or("a group ends that was not begun")?;
                self.write(")");
            }
            '|' => {
                self.out.push('|');
                self.before = Before::Nothing;
            }
            '*' | '+' | '?' => return self.repeat(&c.to_string()),
            '{' => match self.bounds() {
                Some(bounds) => return self.repeat(&bounds?),
                None => self.literal('{'),
            },
            '[' => return self.class(),
            '\\' => return self.escape(),
            '.' | '^' | '$' => self.write(&c.to_string()),
            c => self.literal(c),
        }
        Ok(())
    }

    fn repeat(&mut self, operator: &str) -> Result<(), String> {
        match self.before {
            Before::Nothing => return Err(format!("nothing stands before `{operator}`")),
            Before::Repetition => return Err(format!("`{operator}` repeats a repetition")),
            Before::Something => {}
        }
        self.out.push_str(operator);
        if self.taken("?") {
            self.out.push('?');
        }
        self.before = Before::Repetition;
        Ok(())
    }

    /// `{2}`, `{2,}` or `{2,3}` after the brace; any other brace is one.
    fn bounds(&mut self) -> Option<Result<String, String>> {
        let (inner, after) = self.rest.split_once('}')?;
        let (least, most) = inner.split_once(',').map_or((inner, None), |(least, most)| (least, Some(most)));
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        if !digits(least) || most.is_some_and(|most| !most.is_empty() && !digits(most)) {
            return None;
        }
        self.rest = after;
        let count = |text: &str| text.parse().ok().filter(|count: &u32| *count <= MAX_REPEAT);
        let least_count = count(least);
        let most_count = most.filter(|most| !most.is_empty()).map(count);
        let wrong = least_count.is_none() || most_count.is_some_and(|most| most < least_count);
        Some(if wrong { Err(format!("`{{{inner}}}` is out of range")) } else { Ok(format!("{{{inner}}}")) })
    }

    fn group(&mut self) -> Result<(), String> {
        self.open += 1;
        if self.open > MAX_GROUPS {
            return Err("groups are nested too deep".to_owned());
        }
        self.before = Before::Nothing;
        if !self.taken("?") {
            self.names.push(None);
            self.out.push('(');
            return Ok(());
        }
        if self.taken("P<")
            || (self.rest.starts_with('<')
                && !self.rest.starts_with("<=")
                && !self.rest.starts_with("<!")
                && self.taken("<"))
        {
            let name = self.until(">", "a name")?;
            let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
            if name.is_empty() || !name.bytes().all(word) {
                return Err(format!("`{name}` is no name"));
            }
            if self.names.iter().any(|known| known.as_deref() == Some(name)) {
                return Err(format!("two groups are named `{name}`"));
            }
            self.names.push(Some(name.to_owned()));
            self.out.push('(');
            return Ok(());
        }
        self.flags()
    }

    /// `(?i)`, `(?i-s:`.
    fn flags(&mut self) -> Result<(), String> {
        let (mut flags, mut needed) = (String::new(), false);
        loop {
            match self.take() {
                Some(c @ ('i' | 'm' | 's' | 'U')) => {
                    flags.push(c);
                    needed = false;
                }
                Some('-') if !flags.contains('-') => {
                    flags.push('-');
                    needed = true;
                }
                Some(':') if !needed => {
                    _ = write!(self.out, "(?{flags}:");
                    return Ok(());
                }
                Some(')') if !needed => {
                    self.open -= 1;
                    if !flags.is_empty() {
                        _ = write!(self.out, "(?{flags})");
                    }
                    return Ok(());
                }
                _ => return Err("`(?` is followed by no flags that Go has".to_owned()),
            }
        }
    }

    fn escape(&mut self) -> Result<(), String> {
        if self.taken("Q") {
            let (inner, after) = self.rest.split_once("\\E").unwrap_or((self.rest, ""));
            self.rest = after;
            for c in inner.chars() {
                self.literal(c);
            }
            return Ok(());
        }
        let next = self.rest.chars().next();
        match next {
            Some('A') => self.assertion("\\A"),
            Some('z') => self.assertion("\\z"),
            Some('b') => self.assertion("(?-u:\\b)"),
            Some('B') => self.assertion("(?-u:\\B)"),
            Some('C') => return Err("`\\C` is a byte of a character".to_owned()),
            _ => {
                if let Some(class) = self.perl_class()? {
                    self.write(&class);
                } else {
                    let c = self.escaped()?;
                    self.literal(c);
                }
            }
        }
        Ok(())
    }

    fn assertion(&mut self, text: &str) {
        _ = self.take();
        self.write(text);
    }

    /// `\d`, `\pL`, `\p{Greek}`, after the backslash.
    fn perl_class(&mut self) -> Result<Option<String>, String> {
        let Some(c) = self.rest.chars().next() else { return Err("it ends with `\\`".to_owned()) };
        let class = match c {
            'd' => "[0-9]",
            'D' => "[^0-9]",
            's' => "[\\t\\n\\x0C\\r\\x20]",
            'S' => "[^\\t\\n\\x0C\\r\\x20]",
            'w' => "[0-9A-Za-z_]",
            'W' => "[^0-9A-Za-z_]",
            'p' | 'P' => return self.unicode_class().map(Some),
            _ => return Ok(None),
        };
        _ = self.take();
        Ok(Some(class.to_owned()))
    }

    fn unicode_class(&mut self) -> Result<String, String> {
        let mut negated = self.take() == Some('P');
        let name = match self.take() {
            Some('{') => self.until("}", "a class")?.to_owned(),
            Some(c) => c.to_string(),
            None => return Err("a class has no name".to_owned()),
        };
        let plain = name.strip_prefix('^').unwrap_or(&name);
        negated ^= plain.len() < name.len();
        if plain.is_empty() || !plain.bytes().all(|b| b.is_ascii_alphabetic() || b == b'_') {
            return Err(format!("`{name}` is no class of characters"));
        }
        Ok(format!("\\{}{{{plain}}}", if negated { 'P' } else { 'p' }))
    }

    /// One escaped character, after the backslash.
    fn escaped(&mut self) -> Result<char, String> {
        let c = self.take().ok_or("it ends with `\\`")?;
        Ok(match c {
            'a' => '\u{7}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\u{b}',
            'x' => {
                let hex = if self.taken("{") {
                    self.until("}", "a code point")?
                } else {
                    let hex = self.rest.get(..2).ok_or("`\\x` needs two digits")?;
                    self.rest = &self.rest[2..];
                    hex
                };
                let digits = !hex.is_empty() && hex.bytes().all(|b| b.is_ascii_hexdigit());
                let code = u32::from_str_radix(hex, 16).ok().filter(|_| digits);
                code.and_then(char::from_u32).ok_or_else(|| format!("`{hex}` is no code point"))?
            }
            '0'..='7' => {
                let more = self.rest.bytes().take(2).take_while(|b| matches!(b, b'0'..=b'7')).count();
                if c != '0' && more == 0 {
                    return Err(format!("`\\{c}` refers back, which takes more than linear time"));
                }
                let octal = format!("{c}{}", &self.rest[..more]);
                self.rest = &self.rest[more..];
                u32::from_str_radix(&octal, 8).ok().and_then(char::from_u32).ok_or("no code point")?
            }
            c if c.is_ascii() && !c.is_ascii_alphanumeric() => c,
            c => return Err(format!("`\\{c}` means nothing")),
        })
    }

    /// A class after its bracket.
    fn class(&mut self) -> Result<(), String> {
        let mut out = String::from(if self.taken("^") { "[^" } else { "[" });
        let mut first = true;
        while first || !self.rest.starts_with(']') {
            first = false;
            if let Some(name) =
                self.rest.strip_prefix("[:").and_then(|rest| rest.split_once(":]")).map(|(name, _)| name)
            {
                let plain = name.strip_prefix('^').unwrap_or(name);
                let found = POSIX.iter().find(|(known, _)| *known == plain);
                let (_, ranges) = found.ok_or_else(|| format!("`[:{name}:]` is no class"))?;
                let negated = if plain.len() < name.len() { "^" } else { "" };
                _ = write!(out, "[{negated}{ranges}]");
                self.rest = &self.rest[name.len() + 4..];
                continue;
            }
            if self.rest.starts_with('\\') {
                let before = self.rest;
                _ = self.take();
                if let Some(class) = self.perl_class()? {
                    out.push_str(&class);
                    continue;
                }
                self.rest = before;
            }
            let low = self.class_character()?;
            let range = self.rest.starts_with('-') && !self.rest[1..].starts_with(']') && self.rest.len() > 1;
            out.push_str(&code_point(low));
            if range {
                _ = self.take();
                let high = self.class_character()?;
                if high < low {
                    return Err("a range ends before it begins".to_owned());
                }
                _ = write!(out, "-{}", code_point(high));
            }
        }
        _ = self.take();
        out.push(']');
        self.write(&out);
        Ok(())
    }

    fn class_character(&mut self) -> Result<char, String> {
        match self.take() {
            None => Err("a class is not closed".to_owned()),
            Some('\\') => self.escaped(),
            Some(c) => Ok(c),
        }
    }
}

/// A character that stands for nothing but itself.
fn code_point(c: char) -> String {
    if c.is_ascii_alphanumeric() { c.to_string() } else { format!("\\x{{{:X}}}", u32::from(c)) }
}
