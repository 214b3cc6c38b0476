//! Makes webhooks of what a cluster says: from what is good of the present and, where it is not, of
//! the past.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use countersign_admission::{Around, Limits, Service};
use countersign_clock::SystemClock;
use countersign_cluster::{ObjectId, Snapshot, Stored};
use countersign_evidence::Store;
use countersign_policy::{Engine, Exception, Interest, Keys, Policy, SECRET_KEY, SecretKeys, SiteKey};
use countersign_signature::Trust;
use countersign_site::{Mode, Site, Source};
use countersign_verdict::Attestors;
use countersign_verifier::{Rules, SecretReader, Settings, SourceLoader, Verifier};
use serde_json::Value;

use super::kept::{self, Kept, Version};
use super::live::{Found, Taken, Webhook};
use crate::{policies, site};

/// What came of a snapshot.
pub(crate) enum Made {
    Service(Arc<Webhook>),
    /// There is no good Site yet: why.
    Nothing(String),
    /// Nothing that counts has changed.
    Same,
}

/// Compiles a policy with the Site's keys; `None` for a document of another kind.
pub(crate) type Reader = fn(&Value, &Keys) -> Option<Policy>;

/// Makes webhooks, each from what is good of the present and, where it is not, of the past.
pub(crate) struct Maker {
    /// The program's own namespace.
    namespace: String,
    reader: Reader,
    /// Who reads the Secrets of pods, for a Site that lets them be used.
    pull_secrets: Option<Arc<dyn SecretReader>>,
    store: Arc<dyn Store>,
    around: Around,
    /// The last good Site.
    site: Option<Good>,
    /// What is wrong with the one of this moment.
    site_is: Result<(), String>,
    /// The last version of each policy that was good as a whole, as it was written: it is read with
    /// the keys of the present.
    policies: BTreeMap<ObjectId, (Version, Value)>,
    /// What was found about the policies of this moment.
    policies_are: BTreeMap<ObjectId, (Result<(), String>, bool)>,
    /// The policies and exceptions of last time, each by its UID; `None` where that did not come to its end.
    documents: Option<Vec<(String, Value)>>,
    /// The keys in Secrets, as policies were read with them at last.
    secrets: SecretKeys,
    /// What is kept and cannot be used: said once.
    unusable: BTreeSet<String>,
    /// The mode in force.
    mode: Option<Mode>,
    /// What the policies in force have an interest in.
    interests: BTreeSet<Interest>,
}

/// A Site with all that it names, and who verifies by it.
#[derive(Clone)]
struct Good {
    document: Value,
    version: Version,
    texts: BTreeMap<Source, String>,
    site: Arc<Site>,
    keys: BTreeMap<String, SiteKey>,
    verifier: Arc<Verifier>,
}

impl Maker {
    pub(crate) fn new(
        namespace: &str,
        store: Arc<dyn Store>,
        reader: Reader,
        around: Around,
        pull_secrets: Option<Arc<dyn SecretReader>>,
    ) -> Self {
        Self {
            pull_secrets,
            namespace: namespace.to_owned(),
            reader,
            store,
            around,
            site: None,
            site_is: Ok(()),
            policies: BTreeMap::new(),
            policies_are: BTreeMap::new(),
            documents: None,
            secrets: SecretKeys::default(),
            unusable: BTreeSet::new(),
            mode: None,
            interests: BTreeSet::new(),
        }
    }

    pub(crate) fn make(&mut self, snapshot: &Snapshot) -> Made {
        self.remember(snapshot);
        let mut why = String::new();
        // Put back only where all of it was taken up.
        let before = self.documents.take();
        let changed = match self.good(snapshot) {
            Ok(None) => {
                self.site_is = Ok(());
                false
            }
            Ok(Some(good)) => {
                self.site = Some(good);
                self.site_is = Ok(());
                true
            }
            Err(error) => {
                why = format!("{error:#}");
                let stays = if self.site.is_some() {
                    "the last one that was stays in force"
                } else {
                    "there is none yet"
                };
                // Once is enough.
                if self.site_is.as_ref().err() != Some(&why) {
                    tracing::error!(error = why, "the Site is not good: {stays}");
                }
                self.site_is = Err(why.clone());
                false
            }
        };
        let Some(Good { site, keys, verifier, .. }) = self.site.clone() else { return Made::Nothing(why) };
        // The way out at 3 a.m. counts whatever else is wrong with the Site.
        let mode = snapshot.site.as_ref().and_then(|stored| mode(&stored.document)).unwrap_or(site.mode);
        let site = if mode == site.mode { site } else { Arc::new(Site { mode, ..Site::clone(&site) }) };
        let changed = self.mode.replace(mode) != Some(mode) || changed;
        let documents = snapshot.policies.iter();
        let documents = documents.chain(&snapshot.exceptions);
        let documents: Vec<_> =
            documents.map(|stored| (stored.uid.clone(), stored.document.clone())).collect();
        let secrets = self.secret_keys(snapshot);
        let changed = std::mem::replace(&mut self.secrets, secrets.clone()) != secrets || changed;
        if !changed && before.as_ref() == Some(&documents) {
            self.documents = before;
            return Made::Same;
        }
        let keys = Keys { site: keys, secrets: Some(secrets), stand_in: None };
        let policies = self.policies(&snapshot.policies, &keys);
        tracing::info!(policies = policies.len(), mode = ?site.mode, "policies and Site are in force");
        let exceptions = exceptions(&snapshot.exceptions, &site);
        let engine = Engine::new(policies, site).with_exceptions(exceptions);
        self.interests = engine.interests();
        let service = Service::within(engine, verifier, Limits::DEFAULT, self.around.clone());
        self.documents = Some(documents);
        Made::Service(service)
    }

    /// What policies may name by `k8s://`.
    fn secret_keys(&self, snapshot: &Snapshot) -> SecretKeys {
        let key = |(name, texts): (&String, &BTreeMap<String, Option<String>>)| {
            Some((name.clone(), texts.get(SECRET_KEY)?.clone()?))
        };
        let keys = snapshot.secrets.iter().filter_map(key).collect();
        SecretKeys { namespace: self.namespace.clone(), keys }
    }

    /// What the cluster keeps of the past and this process has not seen: what it has missed, or what
    /// was before it began.
    fn remember(&mut self, snapshot: &Snapshot) {
        // Of one that is gone, or was made again since, nothing is remembered.
        let here = |id: &ObjectId, version: &Version| {
            let stored = snapshot.policies.iter().find(|stored| stored.id() == *id);
            stored.is_some_and(|stored| stored.uid == version.uid)
        };
        for (name, text) in kept::of(&snapshot.secrets) {
            let Some(kept) = Kept::parse(&text) else {
                self.cannot_use(&name, "it is not what was kept");
                continue;
            };
            let id = ObjectId::of(&kept.document);
            if id.kind != "Site" {
                let later = |(known, _): &(Version, Value)| kept.version.is_after(known);
                if here(&id, &kept.version) && self.policies.get(&id).is_none_or(later) {
                    self.policies.insert(id, (kept.version, kept.document));
                }
                continue;
            }
            if self.site.as_ref().is_some_and(|good| !kept.version.is_after(&good.version)) {
                continue;
            }
            let built = read_site(&kept.document, |source| kept.load(source))
                .and_then(|(site, texts)| self.build(&kept.document, kept.version.clone(), site, texts));
            match built {
                Ok(good) => self.site = Some(good),
                Err(error) => self.cannot_use(&name, &format!("{error:#}")),
            }
        }
    }

    fn cannot_use(&mut self, secret: &str, why: &str) {
        if self.unusable.insert(format!("{secret}: {why}")) {
            tracing::warn!(secret, why, "the last good version in this Secret cannot be used");
        }
    }

    /// The Site of this moment, if it and all that it names is good; `None` if it is the last one.
    fn good(&self, snapshot: &Snapshot) -> Result<Option<Good>> {
        let stored = snapshot.site.as_ref().context("there is no Site `default`")?;
        let (site, texts) = read_site(&stored.document, |source| snapshot.text(source))?;
        let same = |last: &Good| last.document == stored.document && last.texts == texts;
        if self.site.as_ref().is_some_and(same) {
            return Ok(None);
        }
        let good = self.build(&stored.document, Version::of(stored), site, texts)?;
        for warning in &good.site.warnings.0 {
            tracing::warn!(path = warning.path, "Site: {}", warning.message);
        }
        Ok(Some(good))
    }

    /// Who verifies by a Site and all that it names.
    fn build(
        &self,
        document: &Value,
        version: Version,
        site: Arc<Site>,
        texts: BTreeMap<Source, String>,
    ) -> Result<Good> {
        let known = texts.clone();
        let load: Arc<SourceLoader> = Arc::new(move |source: &Source| {
            known.get(source).cloned().ok_or_else(|| "it is not named by the Site".to_owned())
        });
        let keys = policies::site_keys(&site, &*load)?;
        for (name, key) in &policies::all_keys(&site, &*load)? {
            Trust::new(&Attestors::any_of_keys(&key.pem))
                .with_context(|| format!("spec.trust.keys.{name}"))?;
        }
        let (rules, clock) = (Rules::Site(Arc::clone(&site)), Arc::new(SystemClock::default()));
        let pull_secrets = self.pull_secrets.clone().filter(|_| site.registry.pull_secrets);
        let settings = Settings { pull_secrets, ..site::settings(&site) };
        let verifier = Verifier::new(rules, settings, load, Arc::clone(&self.store), clock);
        verifier.prepare(&site.registry.name).context("the Site's endpoints")?;
        Ok(Good { document: document.clone(), version, texts, site, keys, verifier })
    }

    /// Every policy; of one that is not good as a whole the last version that was, read with the keys
    /// of the present: a key that is gone is gone.
    fn policies(&mut self, stored: &[Stored], keys: &Keys) -> Vec<Policy> {
        let mut found = Vec::new();
        self.policies_are.clear();
        for stored in stored {
            let document = &stored.document;
            let id = ObjectId::of(document);
            let policy = match self.read(document, keys) {
                Ok(Some(policy)) => Some(policy),
                Ok(None) => continue,
                Err(Broken) => None,
            };
            for warning in policy.iter().flat_map(|policy| &policy.warnings) {
                tracing::warn!(policy = id.name, "{warning}");
            }
            let wrong = match &policy {
                None => "the reader of policies breaks on it: change it, and report it".to_owned(),
                Some(policy) => {
                    policy.refusals.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
                }
            };
            if wrong.is_empty() {
                self.policies_are.insert(id.clone(), (Ok(()), false));
                self.policies.insert(id, (Version::of(stored), document.clone()));
                found.extend(policy);
                continue;
            }
            // Where a key of it is gone by now, it denies what it selects.
            let before = self.policies.get(&id).and_then(|(_, good)| self.read(good, keys).ok().flatten());
            let stays = match (&before, &policy) {
                (Some(_), _) => "the last version that was good stays in force",
                (None, Some(_)) => "it denies what it selects, where it enforces",
                (None, None) => "it is left out",
            };
            tracing::error!(policy = id.name, "refused: {wrong}: {stays}");
            self.policies_are.insert(id, (Err(wrong), before.is_some()));
            found.extend(before.or(policy));
        }
        self.policies.retain(|id, _| self.policies_are.contains_key(id));
        found
    }

    /// Reads a policy; the others go on where the reader breaks on one.
    fn read(&self, document: &Value, keys: &Keys) -> Result<Option<Policy>, Broken> {
        let reader = self.reader;
        std::panic::catch_unwind(|| reader(document, keys)).map_err(|_| Broken)
    }

    /// What is in force, and what was found about the objects of this moment.
    pub(crate) fn taken(&self, snapshot: &Snapshot) -> Taken {
        let found = |stored: &Stored, ready: Result<(), String>, replaced| Found {
            id: stored.id(),
            generation: stored.generation,
            conditions: stored.conditions.clone(),
            ready,
            replaced,
        };
        let replaced = self.site_is.is_err() && self.site.is_some();
        let site = snapshot.site.iter().map(|stored| found(stored, self.site_is.clone(), replaced));
        let policies = snapshot.policies.iter().filter_map(|stored| {
            let (ready, replaced) = self.policies_are.get(&stored.id())?.clone();
            Some(found(stored, ready, replaced))
        });
        let mut good: BTreeMap<String, String> = BTreeMap::new();
        let mut keep = |document: &Value, texts, version: &Version| {
            good.insert(kept::secret(&ObjectId::of(document)), Kept::text(document, texts, version));
        };
        if let Some(Good { document, texts, version, .. }) = &self.site {
            let texts = texts.iter().filter(|(source, _)| !matches!(source, Source::Inline(_)));
            let texts = texts.map(|(source, text)| (kept::name_of(source), text.clone())).collect();
            keep(document, texts, version);
        }
        self.policies.values().for_each(|(version, document)| keep(document, BTreeMap::new(), version));
        Taken {
            site: self.site.as_ref().map(|good| Arc::clone(&good.site)),
            interests: self.interests.clone(),
            found: site.chain(policies).collect(),
            good,
            kept: kept::of(&snapshot.secrets),
        }
    }
}

/// The exceptions from policies; what is wrong with one is told, and it does not apply.
fn exceptions(stored: &[Stored], site: &Site) -> Vec<Exception> {
    let read = stored.iter().filter_map(|stored| {
        let read = std::panic::catch_unwind(|| Exception::load(&stored.document));
        let Ok(read) = read else {
            tracing::error!(exception = stored.id().name, "the reader of exceptions breaks on it: report it");
            return None;
        };
        read
    });
    let mut found = Vec::new();
    for exception in read {
        let name = &exception.name;
        for refusal in &exception.refusals {
            tracing::error!(exception = name, "refused, and does not apply: {refusal}");
        }
        for warning in &exception.warnings {
            tracing::warn!(exception = name, "{warning}");
        }
        if !site.exception_namespaces.contains(&exception.namespace) {
            tracing::warn!(
                exception = name,
                "does not apply: the Site's exceptionNamespaces do not name `{}`",
                exception.namespace
            );
        }
        found.push(exception);
    }
    found
}

/// The reader came to no end.
struct Broken;

/// A Site with all that it names: nothing else of a cluster counts or is kept.
fn read_site(
    document: &Value,
    load: impl Fn(&Source) -> Result<String, String>,
) -> Result<(Arc<Site>, BTreeMap<Source, String>)> {
    let site = Arc::new(Site::parse(&document.to_string()).context("Site `default`")?);
    let read = |source: &Source| Ok((source.clone(), load(source).map_err(anyhow::Error::msg)?));
    let texts = site.sources().map(read).collect::<Result<_>>()?;
    Ok((site, texts))
}

/// The mode that a Site says, good or not.
fn mode(document: &Value) -> Option<Mode> {
    match document["spec"]["mode"].as_str()? {
        "audit" => Some(Mode::Audit),
        "enforce" => Some(Mode::Enforce),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use countersign_cluster::Texts;
    use countersign_evidence::Memory;
    use serde_json::json;

    #[test]
    fn a_policy_that_the_reader_breaks_on_leaves_its_last_good_version_in_force() {
        let reader: Reader = |document, keys| {
            assert!(document["spec"]["odd"].is_null(), "the reader breaks");
            countersign_policy::load(document, keys)
        };
        let document = |name: &str| {
            json!({
                "apiVersion": "kyverno.io/v1",
                "kind": "ClusterPolicy",
                "metadata": { "name": name },
                "spec": { "rules": [] },
            })
        };
        let broken = |name: &str| {
            let mut document = document(name);
            document["spec"]["odd"] = json!(true);
            document
        };
        let mut maker = Maker::new("own", Arc::new(Memory::default()), reader, Around::default(), None);
        let mut names = |documents: &[Value]| -> Vec<String> {
            let stored = |document: &Value| Stored {
                document: document.clone(),
                uid: "u".to_owned(),
                generation: 1,
                conditions: Value::Null,
            };
            let stored: Vec<Stored> = documents.iter().map(stored).collect();
            let found = maker.policies(&stored, &Keys::default());
            found.into_iter().map(|policy| policy.name).collect()
        };
        assert_eq!(names(&[document("a"), document("b")]), ["a", "b"]);
        for _ in 0..2 {
            assert_eq!(names(&[broken("a"), document("b")]), ["a", "b"]);
        }
        // Another object has no part in it, and what is gone is gone.
        assert_eq!(names(&[broken("c"), document("b")]), ["b"]);
        assert_eq!(names(&[broken("a"), document("b")]), ["b"]);
    }

    #[test]
    fn of_what_was_good_the_later_version_counts() {
        let document = |words: &str| {
            json!({
                "apiVersion": "kyverno.io/v1", "kind": "ClusterPolicy",
                "metadata": { "name": "p", "annotations": { "words": words } }, "spec": { "rules": [] },
            })
        };
        let id = ObjectId::of(&document(""));
        // What is kept beside the object that is there.
        let snapshot = |words: &str, kept: (&str, i64), uid: &str| {
            let version = Version { uid: kept.0.to_owned(), generation: kept.1 };
            let text = Kept::text(&document(words), BTreeMap::new(), &version);
            let conditions = Value::Null;
            Snapshot {
                secrets: Texts::from([(kept::secret(&id), [(kept::KEY.to_owned(), Some(text))].into())]),
                policies: vec![Stored {
                    document: document("now"),
                    uid: uid.to_owned(),
                    generation: 9,
                    conditions,
                }],
                ..Snapshot::default()
            }
        };
        let mut maker =
            Maker::new("own", Arc::new(Memory::default()), countersign_policy::load, Around::default(), None);
        for (words, kept, uid, expected) in [
            ("of another one", ("z", 9), "a", None),
            ("first", ("a", 1), "a", Some("first")),
            ("third", ("a", 3), "a", Some("third")),
            ("second", ("a", 2), "a", Some("third")),
            ("of the one before", ("z", 9), "a", Some("third")),
        ] {
            maker.remember(&snapshot(words, kept, uid));
            let found = maker.policies.get(&id);
            let found = found.and_then(|(_, document)| document["metadata"]["annotations"]["words"].as_str());
            assert_eq!(found, expected, "{words}");
        }
    }
}
