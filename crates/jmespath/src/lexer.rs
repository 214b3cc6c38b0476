//! Tokens.

use serde_json::Value;

use crate::Error;
use crate::numbers::whole;

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Token {
    Identifier(String),
    Quoted(String),
    /// `'raw'` or `` `json` ``.
    Literal(Value),
    Number(i64),
    Symbol(&'static str),
    End,
}

/// Longest first, so that `||` is not two `|`.
const SYMBOLS: &[&str] = &[
    "||", "&&", "==", "!=", "<=", ">=", "[?", "[]", ".", "*", ",", ":", "(", ")", "[", "]", "{", "}", "|",
    "!", "<", ">", "@", "&",
];

/// The tokens of a text, each with its byte offset.
pub(crate) fn tokens(text: &str) -> Result<Vec<(usize, Token)>, Error> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(c) = text[at..].chars().next() {
        let rest = &text[at..];
        if matches!(c, ' ' | '\t' | '\n' | '\r') {
            at += 1;
            continue;
        }
        let (token, length) = if c.is_ascii_alphabetic() || c == '_' {
            let length = rest.bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count();
            (Token::Identifier(rest[..length].to_owned()), length)
        } else if c.is_ascii_digit() || (c == '-' && rest[1..].starts_with(|d: char| d.is_ascii_digit())) {
            let length = 1 + rest[1..].bytes().take_while(u8::is_ascii_digit).count();
            let number = rest[..length].parse().map_err(|_| syntax(at, "a number is out of range"))?;
            (Token::Number(number), length)
        } else if matches!(c, '"' | '\'' | '`') {
            quoted(rest, c, at)?
        } else {
            let symbol = SYMBOLS.iter().find(|symbol| rest.starts_with(**symbol));
            let symbol = symbol.ok_or_else(|| syntax(at, &format!("unexpected character `{c}`")))?;
            (Token::Symbol(symbol), symbol.len())
        };
        found.push((at, token));
        at += length;
    }
    found.push((at, Token::End));
    Ok(found)
}

pub(crate) fn syntax(at: usize, message: &str) -> Error {
    Error::Syntax { at, message: message.to_owned() }
}

/// `"identifier"` in JSON's escapes, `'raw'` where `\'` is a quote and nothing else is escaped, or
/// `` `json` ``.
fn quoted(rest: &str, quote: char, at: usize) -> Result<(Token, usize), Error> {
    let raw = quote == '\'';
    let mut escaped = false;
    let end = rest[1..].char_indices().find(|(_, c)| {
        let ends = *c == quote && !escaped;
        escaped = *c == '\\' && (raw || !escaped);
        ends
    });
    let (inner, _) = end.ok_or_else(|| syntax(at, &format!("`{quote}` is not closed")))?;
    let text = &rest[1..=inner];
    let token = match quote {
        '"' => {
            let name: Result<String, _> = serde_json::from_str(&rest[..inner + 2]);
            Token::Quoted(name.map_err(|_| syntax(at, "a quoted identifier is not a JSON string"))?)
        }
        '\'' => Token::Literal(Value::String(text.replace("\\'", "'"))),
        _ => {
            let value = serde_json::from_str(&text.replace("\\`", "`"));
            Token::Literal(whole(value.map_err(|_| syntax(at, "a literal is not JSON"))?))
        }
    };
    Ok((token, inner + 2))
}
