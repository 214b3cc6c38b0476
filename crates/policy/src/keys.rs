//! The keys that policies may name.

use std::collections::BTreeMap;

use countersign_verdict::{HashAlgorithm, KeyAttestor, Period};
use serde_json::Value;

use crate::fields::{Fields, Notes};

/// The prefix by which a policy names keys of the Site: `site://*` or `site://NAME`.
const SITE_KEYS: &str = "site://";
/// The prefix by which a policy names a Secret: `k8s://NAMESPACE/NAME`.
const SECRETS: &str = "k8s://";
/// The key in such a Secret, as cosign writes it (`cosign generate-key-pair k8s://…`).
pub const SECRET_KEY: &str = "cosign.pub";

/// Keys that policies may name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keys {
    /// The Site's, by name.
    pub site: BTreeMap<String, SiteKey>,
    /// Those of Secrets; none where there is no cluster.
    pub secrets: Option<SecretKeys>,
    /// What stands for a key that is named and not known here: to look through a policy where its Site and
    /// its Secrets are not at hand. PEM; without it such a key is refused.
    pub stand_in: Option<String>,
}

/// A key of the Site: one or more PEM blocks, and when it is trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SiteKey {
    /// One or more PEM blocks.
    pub pem: String,
    /// When it is trusted.
    pub period: Period,
}

/// What the Secrets of one namespace have under [`SECRET_KEY`].
///
/// A policy's author may be somebody who must not read Secrets, so no policy makes the program
/// read those of other namespaces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecretKeys {
    /// The program's own namespace.
    pub namespace: String,
    /// PEM text by the name of the Secret.
    pub keys: BTreeMap<String, String>,
}

impl Keys {
    /// Keys of a Site that are trusted at all times, by name.
    pub fn of_site(keys: impl IntoIterator<Item = (String, String)>) -> Self {
        let always = |(name, pem)| (name, SiteKey { pem, period: Period::default() });
        Self { site: keys.into_iter().map(always).collect(), ..Self::default() }
    }

    /// What `keys` of an attestor stands for: one attestor for each name, with these annotations and, where
    /// they do not say themselves, this `signatureAlgorithm`.
    pub(crate) fn read(
        &self,
        value: &Value,
        path: &str,
        annotations: &BTreeMap<String, String>,
        otherwise: Option<&str>,
        notes: &mut Notes,
    ) -> Vec<KeyAttestor> {
        let mut fields = Fields::of(value, path, notes);
        let text = fields.text("publicKeys", notes).map(str::trim);
        let secret = fields.take("secret").and_then(|secret| {
            let path = format!("{path}.secret");
            let mut secret = Fields::of(secret, &path, notes);
            let (name, namespace) = (secret.text("name", notes), secret.text("namespace", notes));
            secret.finish(notes);
            if name.is_none() {
                notes.refuse(&path, "the name of a Secret is required");
            }
            Some((namespace.unwrap_or_default(), name?))
        });
        let hash = match fields.text("signatureAlgorithm", notes).or(otherwise) {
            None | Some("sha256") => HashAlgorithm::Sha256,
            Some("sha384") => HashAlgorithm::Sha384,
            Some("sha512") => HashAlgorithm::Sha512,
            Some(other) => {
                notes.refuse(&format!("{path}.signatureAlgorithm"), format!("`{other}` is not supported"));
                HashAlgorithm::Sha256
            }
        };
        // Offline unless a log's public key is given: then the policy wants what is not here yet.
        for (name, key) in [("rekor", "pubkey"), ("ctlog", "pubkey"), ("ctlog", "tsaCertChain")] {
            if value[name].get(key).is_some_and(|value| !value.is_null()) {
                notes.refuse(&format!("{path}.{name}.{key}"), "transparency logs are not supported yet");
            }
        }
        fields.no_effect(&["rekor", "ctlog"], "no log is asked: keys are verified offline", notes);
        fields.not_yet(&["kms"], notes);
        fields.finish(notes);
        let found = match (text, secret) {
            (Some(_), Some(_)) => Err("`publicKeys` and `secret` are two ways to say one thing".to_owned()),
            (None, Some((namespace, name))) => self.of_secret(namespace, name).map(|key| vec![key]),
            (Some(text), None) => self.named(text),
            (None, None) => Err("keys are required".to_owned()),
        };
        let keys = found.unwrap_or_else(|why| {
            let field = if text.is_some() { format!("{path}.publicKeys") } else { path.to_owned() };
            notes.refuse(&field, why);
            Vec::new()
        });
        let with = |key| KeyAttestor { hash, annotations: annotations.clone(), ..key };
        keys.into_iter().map(with).collect()
    }

    fn named(&self, text: &str) -> Result<Vec<KeyAttestor>, String> {
        let site = |(name, key): (&String, &SiteKey)| KeyAttestor {
            name: Some(name.clone()),
            period: key.period,
            ..KeyAttestor::of(&key.pem)
        };
        if let Some(secret) = text.strip_prefix(SECRETS) {
            let (namespace, name) = secret.split_once('/').ok_or("expected `k8s://NAMESPACE/NAME`")?;
            return Ok(vec![self.of_secret(namespace, name)?]);
        }
        match text.strip_prefix(SITE_KEYS) {
            None => Ok(vec![KeyAttestor::of(text)]),
            Some("*") => {
                let assumed = self.stand_in.as_deref().map(KeyAttestor::of);
                Ok(self.site.iter().map(site).chain(assumed).collect())
            }
            Some(name) => match (self.site.get_key_value(name), &self.stand_in) {
                (Some(key), _) => Ok(vec![site(key)]),
                (None, Some(pem)) => Ok(vec![KeyAttestor::of(pem)]),
                (None, None) => Err(format!("the Site has no key `{name}`")),
            },
        }
    }

    fn of_secret(&self, namespace: &str, name: &str) -> Result<KeyAttestor, String> {
        if let Some(pem) = &self.stand_in {
            return Ok(KeyAttestor::of(pem));
        }
        let Some(SecretKeys { namespace: own, keys }) = &self.secrets else {
            return Err(format!(
                "Secret `{name}` can only be read in a cluster: give the keys themselves, or name one of the Site's as `site://NAME`"
            ));
        };
        if namespace != own && !namespace.is_empty() {
            return Err(format!(
                "Secrets of `{namespace}` are not read for policies: put the key into a Secret in `{own}`, or into the Site"
            ));
        }
        let pem = keys.get(name);
        let pem = pem.ok_or_else(|| format!("there is no Secret `{name}` with `{SECRET_KEY}` in `{own}`"))?;
        Ok(KeyAttestor { name: Some(format!("{SECRETS}{own}/{name}")), ..KeyAttestor::of(pem) })
    }
}
