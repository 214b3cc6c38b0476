//! Server blocks, snippets and imports, with where they stand.

use std::ops::Range;

use crate::lexer::{Token, tokens};

/// A Corefile that CoreDNS would read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Corefile {
    /// What stands at the top level, in order.
    pub items: Vec<Item>,
}

/// Something at the top level.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// A server block.
    Server(Server),
    /// Directives under a name, for `import`.
    Snippet {
        /// Without its parentheses.
        name: String,
        /// What is in it.
        directives: Vec<Directive>,
    },
    /// `import` of files.
    Import {
        /// What is imported.
        pattern: String,
        /// On which line.
        line: usize,
    },
}

/// A server block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Zones with scheme and port, as written.
    pub keys: Vec<String>,
    /// What it does, in the order in which it is written; CoreDNS has an order of its own.
    pub directives: Vec<Directive>,
    /// On which line it begins.
    pub line: usize,
    /// Whether it has braces: a file of one block needs none.
    pub braces: bool,
}

/// A plugin and its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directive {
    /// Its words: the name, arguments, braces and what is between them.
    pub words: Vec<String>,
    /// The line of each word.
    pub lines: Vec<usize>,
    /// Where it stands in the text.
    pub span: Range<usize>,
}

impl Directive {
    /// The plugin, or `import`.
    pub fn name(&self) -> &str {
        self.words.first().map_or("", String::as_str)
    }

    /// The lines of its block, each as its words; none where it has no block.
    pub fn block(&self) -> Vec<&[String]> {
        let Some(open) = self.words.iter().position(|word| word == "{") else { return Vec::new() };
        let close = self.words.len() - usize::from(self.words.last().is_some_and(|word| word == "}"));
        let mut rest = open + 1;
        let mut block = Vec::new();
        while rest < close {
            let end = (rest..close).find(|at| self.lines[*at] != self.lines[rest]).unwrap_or(close);
            block.push(&self.words[rest..end]);
            rest = end;
        }
        block
    }
}

/// A text that CoreDNS would refuse.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {why}")]
pub struct SyntaxError {
    /// On which line.
    pub line: usize,
    /// What is wrong.
    pub why: String,
}

impl Corefile {
    /// Reads a text by the Caddyfile grammar. Imports stay as they are.
    ///
    /// # Errors
    ///
    /// CoreDNS would refuse it.
    pub fn parse(text: &str) -> Result<Self, SyntaxError> {
        let (tokens, _) = tokens(text);
        let mut parser = Parser { tokens: &tokens, next: 0 };
        let mut items = Vec::new();
        while parser.next < tokens.len() {
            items.push(parser.item()?);
        }
        let without = items.iter().any(|item| matches!(item, Item::Server(Server { braces: false, .. })));
        if without && items.len() > 1 {
            let line = items.iter().find_map(|item| match item {
                Item::Server(server) if !server.braces => Some(server.line),
                _ => None,
            });
            let why = "a server block without braces, and it is not the only one".to_owned();
            return Err(SyntaxError { line: line.unwrap_or(1), why });
        }
        Ok(Self { items })
    }

    /// Every server block.
    pub fn servers(&self) -> impl Iterator<Item = &Server> {
        self.items.iter().filter_map(|item| match item {
            Item::Server(server) => Some(server),
            _ => None,
        })
    }

    /// The directives of a block, with those of snippets that it imports in their place; what it
    /// imports from elsewhere stays an `import`.
    pub fn expanded<'a>(&'a self, server: &'a Server) -> Vec<&'a Directive> {
        let mut found = Vec::new();
        self.expand(&server.directives, 0, &mut found);
        found
    }

    fn expand<'a>(&'a self, directives: &'a [Directive], depth: usize, found: &mut Vec<&'a Directive>) {
        /// Snippets in snippets.
        const MAX_DEPTH: usize = 16;
        for directive in directives {
            let snippet = (directive.name() == "import").then(|| directive.words.get(1)).flatten();
            let named = self.items.iter().find_map(|item| match item {
                Item::Snippet { name, directives } if Some(name) == snippet => Some(directives),
                _ => None,
            });
            match named {
                Some(inner) if depth < MAX_DEPTH => self.expand(inner, depth + 1, found),
                _ => found.push(directive),
            }
        }
    }
}

struct Parser<'a> {
    tokens: &'a [Token],
    next: usize,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<&'a Token> {
        self.tokens.get(self.next)
    }

    /// Whether the next word begins a line.
    fn at_new_line(&self) -> bool {
        match (self.next.checked_sub(1).and_then(|at| self.tokens.get(at)), self.peek()) {
            (Some(before), Some(next)) => before.last_line < next.line,
            _ => true,
        }
    }

    fn error<T>(&self, why: &str) -> Result<T, SyntaxError> {
        let at = self.next.min(self.tokens.len().saturating_sub(1));
        let line = self.tokens.get(at).map_or(1, |token| token.line);
        Err(SyntaxError { line, why: why.to_owned() })
    }

    fn item(&mut self) -> Result<Item, SyntaxError> {
        let line = self.peek().map_or(1, |token| token.line);
        if self.peek().is_some_and(|token| token.text == "import") && self.at_new_line() {
            self.next += 1;
            let Some(pattern) = self.peek().filter(|_| !self.at_new_line()) else {
                return self.error("`import` without a file or snippet");
            };
            let pattern = pattern.text.clone();
            self.next += 1;
            if self.peek().is_some() && !self.at_new_line() {
                return self.error("`import` with more than one file or snippet");
            }
            return Ok(Item::Import { pattern, line });
        }
        let keys = self.keys()?;
        let Some(open) = self.peek() else { return self.error("a server block without anything in it") };
        let braces = open.text == "{";
        if braces {
            self.next += 1;
        }
        if let [key] = keys.as_slice()
            && let Some(name) = key.strip_prefix('(').and_then(|key| key.strip_suffix(')'))
            && braces
        {
            return Ok(Item::Snippet { name: name.to_owned(), directives: self.snippet()? });
        }
        let directives = self.directives(braces)?;
        Ok(Item::Server(Server { keys, directives, line, braces }))
    }

    /// What is in a snippet: everything up to its own brace, on however few lines.
    fn snippet(&mut self) -> Result<Vec<Directive>, SyntaxError> {
        let (first, mut nesting) = (self.next, 0_usize);
        while let Some(token) = self.peek() {
            match token.text.as_str() {
                "{" => nesting += 1,
                "}" if nesting == 0 => {
                    let mut inner = Parser { tokens: &self.tokens[first..self.next], next: 0 };
                    self.next += 1;
                    return inner.directives(false);
                }
                "}" => nesting -= 1,
                _ => {}
            }
            self.next += 1;
        }
        self.error("a `{` without its `}`")
    }

    fn keys(&mut self) -> Result<Vec<String>, SyntaxError> {
        let mut keys = Vec::new();
        let mut another = false;
        while let Some(token) = self.peek() {
            if token.text == "{" {
                if another {
                    return self.error("a `,` and no zone after it");
                }
                break;
            }
            if token.text == "}" {
                return self.error("a `}` without its `{`");
            }
            if !another && !keys.is_empty() && self.at_new_line() {
                break;
            }
            another = token.text.ends_with(',');
            let key = token.text.strip_suffix(',').unwrap_or(&token.text);
            if !key.is_empty() {
                keys.push(key.to_owned());
            }
            self.next += 1;
        }
        if keys.is_empty() { self.error("a server block without a zone") } else { Ok(keys) }
    }

    fn directives(&mut self, braces: bool) -> Result<Vec<Directive>, SyntaxError> {
        let mut directives = Vec::new();
        loop {
            let Some(token) = self.peek() else {
                return if braces { self.error("a `{` without its `}`") } else { Ok(directives) };
            };
            if token.text == "}" {
                if !braces {
                    return self.error("a `}` without its `{`");
                }
                self.next += 1;
                return Ok(directives);
            }
            directives.push(self.directive()?);
        }
    }

    fn directive(&mut self) -> Result<Directive, SyntaxError> {
        let (first, mut nesting) = (self.next, 0_usize);
        self.next += 1;
        while let Some(token) = self.peek() {
            match token.text.as_str() {
                "{" => nesting += 1,
                _ if nesting == 0 && self.at_new_line() => break,
                "}" if nesting == 0 => return self.error("a `}` without its `{`"),
                "}" => nesting -= 1,
                _ => {}
            }
            self.next += 1;
        }
        if nesting > 0 {
            return self.error("a `{` without its `}`");
        }
        let tokens = &self.tokens[first..self.next];
        let span = tokens[0].span.start..tokens[tokens.len() - 1].span.end;
        let words = tokens.iter().map(|token| token.text.clone()).collect();
        Ok(Directive { words, lines: tokens.iter().map(|token| token.line).collect(), span })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keys and directives of every block, or the error.
    fn check(text: &str) -> String {
        let file = match Corefile::parse(text) {
            Ok(file) => file,
            Err(error) => return error.to_string(),
        };
        let item = |item: &Item| match item {
            Item::Server(server) => {
                let names: Vec<_> = server.directives.iter().map(Directive::name).collect();
                format!("{}: {}", server.keys.join(" "), names.join(" "))
            }
            Item::Snippet { name, directives } => format!("({name}): {}", directives.len()),
            Item::Import { pattern, .. } => format!("import {pattern}"),
        };
        file.items.iter().map(item).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn files_are_read_as_the_original_reads_them() {
        for (text, expected) in [
            (".:53 {\n errors\n health { lameduck 5s }\n}\n", ".:53: errors health"),
            (".:53\n{\n errors\n}", ".:53: errors"),
            (".:53, a.example:53 {\n}", ".:53 a.example:53: "),
            (".:53,\na.example:53 {\n}", ".:53 a.example:53: "),
            (
                "dns://.:53 x:53 {\nhosts {\n1.2.3.4 a\nfallthrough\n}\nforward . 1.1.1.1\n}",
                "dns://.:53 x:53: hosts forward",
            ),
            (".:53\nerrors\nforward . 1.1.1.1\n", ".:53: errors forward"),
            (
                "(common) {\n errors\n}\n. {\n import common\n}\nimport custom/*.server\n",
                "(common): 1; .: import; import custom/*.server",
            ),
            ("(x) { errors }\n. {\n import x\n}\n", "(x): 1; .: import"),
            ("", ""),
            ("# nothing\n", ""),
            // What stands on the line of the directive belongs to it.
            (". {\n hosts { 1.2.3.4 registry.local fallthrough }\n errors\n}", ".: hosts errors"),
            // Errors of the original.
            (".:53{\n errors\n}", "line 3: a `}` without its `{`"),
            (". {\n errors\n", "line 2: a `{` without its `}`"),
            // CoreDNS refuses this one later: the brace has to be on the line of its plugin.
            (". {\n hosts\n {\n}\n}", ".: hosts"),
            (". {\n a {\n}\n", "line 3: a `{` without its `}`"),
            (". , {\n}", "line 1: a `,` and no zone after it"),
            ("}", "line 1: a `}` without its `{`"),
            ("import", "line 1: `import` without a file or snippet"),
        ] {
            assert_eq!(check(text), expected, "{text:?}");
        }
    }

    #[test]
    fn blocks_of_directives_have_lines() {
        let file =
            Corefile::parse(". {\n hosts /x {\n 1.2.3.4 a b # c\n\n ttl 5\n fallthrough\n }\n}").unwrap();
        let server = file.servers().next().unwrap();
        let lines: Vec<String> = server.directives[0].block().iter().map(|line| line.join(" ")).collect();
        assert_eq!(lines, ["1.2.3.4 a b", "ttl 5", "fallthrough"]);
    }
}
