//! Who asks: user and password for a host, as Docker's `config.json` keeps them.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign_site::HostPort;
use serde::Deserialize;

/// A user and a password.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    user: String,
    password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({}, …)", self.user)
    }
}

impl Credentials {
    /// A user and a password.
    pub fn new(user: impl Into<String>, password: impl Into<String>) -> Self {
        Self { user: user.into(), password: password.into() }
    }

    /// The value of an `Authorization` header (RFC 7617).
    pub(crate) fn basic(&self) -> String {
        format!("Basic {}", STANDARD.encode(format!("{}:{}", self.user, self.password)))
    }
}

/// Credentials by host.
#[derive(Clone, Debug, Default)]
pub struct DockerConfig(BTreeMap<HostPort, Known>);

/// What a file has for a host.
#[derive(Clone, Debug)]
struct Known {
    credentials: Credentials,
    /// Whether the entry is for all of the host.
    whole: bool,
    /// Whether another entry for parts of the host has others.
    ambiguous: bool,
}

/// A file with credentials that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CredentialsError(String);

#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    auths: BTreeMap<String, Auth>,
}

#[derive(Deserialize)]
struct Auth {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
}

impl DockerConfig {
    /// Reads a `config.json`, or the `.dockerconfigjson` of a Secret.
    ///
    /// # Errors
    ///
    /// It is no such document, or an entry has no user and password. No error shows a value.
    pub fn parse(text: &str) -> Result<Self, CredentialsError> {
        let error = |why: String| CredentialsError(why);
        if !text.trim_start().starts_with('{') {
            return Err(error("not a Docker config.json: not a JSON object".to_owned()));
        }
        // A parse error of serde quotes what it found, which may be a password.
        let document: Document = serde_json::from_str(text)
            .map_err(|found| error(format!("not a Docker config.json (line {})", found.line())))?;
        let mut hosts = BTreeMap::new();
        for (key, entry) in document.auths {
            // Keys may have a scheme and a path: `https://index.docker.io/v1/`.
            let host = key.split_once("://").map_or(key.as_str(), |(_, rest)| rest);
            let (host, path) = host.split_once('/').unwrap_or((host, ""));
            let host = HostPort::parse(host, 443).map_err(|_| error(format!("auths: `{key}` is no host")))?;
            let pair = match (entry.username, entry.password, entry.auth) {
                (Some(user), Some(password), _) => Some((user, password)),
                (_, _, Some(auth)) => decoded(&auth),
                _ => None,
            };
            let Some((user, password)) = pair else {
                let why = if entry.identitytoken.is_some() {
                    "an identity token is not supported: give a user and a password"
                } else {
                    "there is no user and password; credential helpers are not asked"
                };
                return Err(error(format!("auths.{key}: {why}")));
            };
            let whole = ["", "v1", "v2"].contains(&path.trim_end_matches('/'));
            let known = Known { credentials: Credentials { user, password }, whole, ambiguous: false };
            match hosts.entry(canonical(host)) {
                Entry::Vacant(entry) => _ = entry.insert(known),
                // What is for the whole host counts; Docker keeps tokens of its own beside it.
                Entry::Occupied(mut entry) if whole && !entry.get().whole => _ = entry.insert(known),
                Entry::Occupied(mut entry) if whole == entry.get().whole => {
                    let before = entry.get_mut();
                    before.ambiguous |= before.credentials != known.credentials;
                }
                Entry::Occupied(_) => {}
            }
        }
        Ok(Self(hosts))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What is for this host, letter for letter and with its port; the Docker Hub has several names.
    ///
    /// # Errors
    ///
    /// Several entries are for it, and they differ.
    pub fn of(&self, host: &HostPort) -> Result<Option<&Credentials>, CredentialsError> {
        match self.0.get(&canonical(host.clone())) {
            Some(Known { ambiguous: true, .. }) => {
                let why = "several entries are for it, and they differ: give one for the host itself";
                Err(CredentialsError(format!("auths: {host}: {why}")))
            }
            known => Ok(known.map(|known| &known.credentials)),
        }
    }
}

/// `docker login` writes `index.docker.io`, references say `docker.io`, the API is at
/// `registry-1.docker.io`.
fn canonical(mut host: HostPort) -> HostPort {
    if ["docker.io", "index.docker.io"].contains(&host.host.as_str()) {
        "registry-1.docker.io".clone_into(&mut host.host);
    }
    host
}

fn decoded(auth: &str) -> Option<(String, String)> {
    let text = String::from_utf8(STANDARD.decode(auth.trim()).ok()?).ok()?;
    let (user, password) = text.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_binds_credentials_to_hosts() {
        let text = r#"{"auths":{
            "https://a.example/v1/":{"auth":"dTpwOnc="},
            "b.example:5000":{"username":"x","password":"y"}},"credsStore":"z"}"#;
        let config = DockerConfig::parse(text).unwrap();
        let of = |host: &str| {
            let found = config.of(&HostPort::parse(host, 443).unwrap()).unwrap();
            found.map(Credentials::basic)
        };
        assert_eq!(of("a.example").as_deref(), Some("Basic dTpwOnc="), "a password may hold a colon");
        assert!(of("b.example:5000").is_some() && of("b.example").is_none() && of("c.a.example").is_none());
        let hub = r#"{"auths":{"https://index.docker.io/v1/":{"auth":"dTpwOnc="},
            "https://index.docker.io/v1/access-token":{"auth":"dTp4"},
            "https://index.docker.io/v1/refresh-token":{"auth":"dTp5"}}}"#;
        let hub = DockerConfig::parse(hub).unwrap();
        let found = hub.of(&HostPort::parse("registry-1.docker.io", 443).unwrap()).unwrap();
        assert_eq!(found.map(Credentials::basic).as_deref(), Some("Basic dTpwOnc="));
        let parts = r#"{"auths":{"a.example/x":{"auth":"dTpw"},"a.example/y":{"auth":"dTpx"}}}"#;
        let parts = DockerConfig::parse(parts).unwrap();
        assert!(parts.of(&HostPort::parse("a.example", 443).unwrap()).is_err());
        assert_eq!(parts.of(&HostPort::parse("b.example", 443).unwrap()), Ok(None));
        for (text, why) in [
            ("[]", "not a Docker config.json"),
            (r#"{"auths":{"a":{}}}"#, "auths.a: there is no user and password"),
            (r#"{"auths":{"a":{"identitytoken":"secret"}}}"#, "auths.a: an identity token"),
            (r#"{"auths":{"a b":{"auth":"dTpw"}}}"#, "`a b` is no host"),
            (r#"{"auths":{"a":{"auth":7}}}"#, "line 1"),
        ] {
            let error = DockerConfig::parse(text).unwrap_err().to_string();
            assert!(error.contains(why) && !error.contains("secret"), "{text}: {error}");
        }
        assert!(!format!("{:?}", Credentials::new("u", "secret")).contains("secret"));
    }
}
