//! Tokens and comments, with where they stand.

use std::ops::Range;

/// A word of a Corefile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    /// What it says, without quotes.
    pub(crate) text: String,
    /// Where it stands, with quotes.
    pub(crate) span: Range<usize>,
    /// The line on which it begins, from 1.
    pub(crate) line: usize,
    /// The line on which it ends: quoted words may go on.
    pub(crate) last_line: usize,
}

/// Everything from a `#` to the end of its line, or of the word that it stands in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Comment {
    pub(crate) span: Range<usize>,
    pub(crate) line: usize,
    /// Whether nothing but spaces stands before it on its line.
    pub(crate) alone: bool,
}

/// Splits a text as the Caddyfile lexer does: `"` counts as the first character of a word only,
/// `#` anywhere outside quotes, braces as whole words only.
pub(crate) fn tokens(text: &str) -> (Vec<Token>, Vec<Comment>) {
    let (mut tokens, mut comments) = (Vec::new(), Vec::new());
    let mut word: Option<Token> = None;
    let (mut quoted, mut escaped) = (false, false);
    let mut comment: Option<Comment> = None;
    let mut line = 1;
    let mut alone = true;
    let mut finish = |word: &mut Option<Token>| tokens.extend(word.take());
    for (at, c) in text.char_indices() {
        let end = at + c.len_utf8();
        if quoted {
            let Some(token) = word.as_mut() else { continue };
            token.span.end = end;
            if !escaped && c == '\\' {
                escaped = true;
                continue;
            }
            if !escaped && c == '"' {
                quoted = false;
                token.last_line = line;
                finish(&mut word);
                continue;
            }
            if c == '\n' {
                line += 1;
            }
            // Only quotes are escaped.
            if escaped && c != '"' {
                token.text.push('\\');
            }
            token.text.push(c);
            escaped = false;
            continue;
        }
        if c.is_whitespace() {
            if c == '\r' {
                continue;
            }
            // A comment that begins within a word ends with it, not with the line.
            if c == '\n' || word.is_some() {
                comments.extend(comment.take());
            }
            finish(&mut word);
            if c == '\n' {
                line += 1;
                alone = true;
            }
            continue;
        }
        // A byte order mark is not part of the first word.
        if at == 0 && c == '\u{feff}' {
            continue;
        }
        if let Some(comment) = comment.as_mut() {
            comment.span.end = end;
            continue;
        }
        if c == '#' {
            comment = Some(Comment { span: at..end, line, alone });
            continue;
        }
        alone = false;
        match word.as_mut() {
            None => {
                quoted = c == '"';
                let text = if quoted { String::new() } else { c.to_string() };
                word = Some(Token { text, span: at..end, line, last_line: line });
            }
            Some(token) => {
                token.text.push(c);
                token.span.end = end;
            }
        }
    }
    // At the end, a quote that was not closed counts as closed.
    finish(&mut word);
    comments.extend(comment);
    (tokens, comments)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        tokens(text).0.into_iter().map(|token| token.text).collect()
    }

    #[test]
    fn words_are_split_as_the_original_splits_them() {
        for (text, expected) in [
            (".:53 {\r\n  errors\r\n}\r\n", vec![".:53", "{", "errors", "}"]),
            ("a#b c\nd", vec!["a", "c", "d"]),
            ("a #b c\nd", vec!["a", "d"]),
            ("hosts#x {\ny", vec!["hosts", "{", "y"]),
            ("}# the end", vec!["}", "the", "end"]),
            (".:53{ x", vec![".:53{", "x"]),
            ("\"a b\" \"\" \"{\" a\"b\" \"x\\\"y\\z\"", vec!["a b", "", "{", "a\"b\"", "x\"y\\z"]),
            ("\"two\nlines\" x", vec!["two\nlines", "x"]),
            ("\u{feff}.:53 \u{a0}x", vec![".:53", "x"]),
            ("\"open", vec!["open"]),
        ] {
            assert_eq!(words(text), expected, "{text:?}");
        }
    }

    #[test]
    fn every_word_and_comment_has_its_place() {
        let text = "x # one\n  # two\n\"a\n# b\" y";
        let (tokens, comments) = tokens(text);
        assert!(tokens.iter().all(|token| text[token.span.clone()].trim_matches('"') == token.text));
        let found: Vec<_> = comments.iter().map(|c| (&text[c.span.clone()], c.line, c.alone)).collect();
        assert_eq!(found, [("# one", 1, false), ("# two", 2, true)], "not what stands in quotes");
        assert_eq!((tokens[1].line, tokens[1].last_line, tokens[2].line), (3, 4, 4));
    }
}
