//! Bearer challenges and the tokens that they ask for (distribution `spec/auth/token.md`).

use serde::Deserialize;

use crate::Error;

/// Bytes of a token response.
pub(crate) const MAX_TOKEN_BYTES: usize = 64 * 1024;

/// What a registry asks for before it answers: a token of the service at its realm.
///
/// Whether that service may be asked at all is the connector's to decide.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Challenge {
    /// The URL of the token service.
    pub realm: String,
    /// How the service knows the registry.
    pub service: Option<String>,
    /// What the token has to allow.
    pub scope: Option<String>,
}

impl Challenge {
    /// The first Bearer challenge of these `WWW-Authenticate` headers.
    pub fn find<'a>(headers: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        headers.into_iter().find_map(Self::parse)
    }

    fn parse(header: &str) -> Option<Self> {
        let (mut bearer, mut realm, mut service, mut scope) = (false, None, None, None);
        let mut rest = header;
        loop {
            rest = rest.trim_start_matches([' ', '\t', ',']);
            let end = rest.find([' ', '\t', ',', '=', '"']).unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            if let Some(value) = after.trim_start().strip_prefix('=') {
                let (value, after) = parameter(value)?;
                match word.to_ascii_lowercase().as_str() {
                    "realm" if bearer => realm = Some(value),
                    "service" if bearer => service = Some(value),
                    "scope" if bearer => scope = Some(value),
                    _ => {}
                }
                rest = after;
                continue;
            }
            // A word without a value is the scheme of the next challenge.
            if let Some(realm) = realm {
                return Some(Self { realm, service, scope });
            }
            if word.is_empty() {
                return None;
            }
            bearer = word.eq_ignore_ascii_case("bearer");
            (service, scope) = (None, None);
            rest = after;
        }
    }

    /// Where the token is asked for.
    pub fn url(&self) -> String {
        let mut url = self.realm.clone();
        let mut join = if url.contains('?') { '&' } else { '?' };
        for (name, value) in [("service", &self.service), ("scope", &self.scope)] {
            if let Some(value) = value {
                url.push_str(&format!("{join}{name}={}", percent_encoded(value)));
                join = '&';
            }
        }
        url
    }
}

/// A quoted string with its escapes, or a bare token.
fn parameter(text: &str) -> Option<(String, &str)> {
    let text = text.trim_start();
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ']).unwrap_or(text.len());
        return Some((text[..end].to_owned(), &text[end..]));
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => value.push(chars.next()?.1),
            c => value.push(c),
        }
    }
    None
}

fn percent_encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~:/".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[derive(Deserialize)]
struct Answer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

/// The token of a response and how many seconds it lasts (60 where nothing is said).
pub(crate) fn read(body: &[u8]) -> Result<(String, u64), Error> {
    let answer: Answer = serde_json::from_slice(body)
        .map_err(|error| Error::Malformed(format!("the token service's answer: {error}")))?;
    let token = answer.token.or(answer.access_token).filter(|token| !token.is_empty());
    let token = token.ok_or_else(|| Error::Malformed("the token service sent no token".to_owned()))?;
    if token.bytes().all(|b| b.is_ascii_graphic()) {
        Ok((token, answer.expires_in.unwrap_or(60)))
    } else {
        Err(Error::Malformed("the token is not one".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read_as_written() {
        let header = r#"Basic realm="x", BEARER realm="https://a/t?x=1",service="re\"g",scope="repository:a/b:pull,push""#;
        let challenge = Challenge::find([header]).unwrap();
        assert_eq!(challenge.service.as_deref(), Some("re\"g"));
        assert_eq!(challenge.url(), "https://a/t?x=1&service=re%22g&scope=repository:a/b:pull%2Cpush");
        let realm = |header| Challenge::find([header]).map(|challenge| challenge.realm);
        for (header, found) in [
            (r#"Basic realm="the bearer pays", Bearer realm="https://a""#, Some("https://a")),
            (r#"Basic realm="Bearer realm=https://b""#, None),
            (r"Negotiate YWJjZA==, Bearer realm = https://a , x", Some("https://a")),
            (r#"Bearer service="x", Bearer realm="https://a""#, Some("https://a")),
            (r#"Basic realm="x", Bearer"#, None),
        ] {
            assert_eq!(realm(header).as_deref(), found, "{header}");
        }
        let beside = Challenge::find([r#"Bearer realm="https://a", Digest realm="x", service="y""#]).unwrap();
        assert_eq!((beside.realm.as_str(), beside.service), ("https://a", None), "each has its own");
        assert_eq!(Challenge::find(["Basic realm=\"x\"", "Bearer service=\"x\"", "Bearer realm=\"x"]), None);
    }

    #[test]
    fn tokens_have_two_names() {
        assert_eq!(read(br#"{"access_token":"x"}"#).unwrap(), ("x".to_owned(), 60));
        assert_eq!(read(br#"{"token":"x","expires_in":5}"#).unwrap(), ("x".to_owned(), 5));
        assert!(read(b"{}").is_err() && read(br#"{"token":"a\nb"}"#).is_err() && read(b"<html>").is_err());
    }
}
