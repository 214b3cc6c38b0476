//! `countersign evidence`: what is proven, in a cluster or in a directory.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use countersign_bundle::{Seal, check_seal, evidence};
use countersign_clock::{Clock as _, SystemClock};
use countersign_cluster::evidence::{self as objects, EvidenceError, known_record_key, record_key};
use countersign_cluster::{Client, make_namespace};
use countersign_evidence::{
    DOCUMENT, Directory, Entry, Index, Known, Mac, Origin, RecordKey, TagRecord, record_name,
};
use countersign_layout::Layout;
use countersign_reference::{Digest, Reference};
use countersign_signature::Material;
use countersign_site::Site;
use countersign_verdict::text::shortened;
use serde_json::{Value, json};

use crate::bundle::bundle_keys;
use crate::cli::{
    EvidenceCommand, EvidenceExport, EvidenceImport, EvidenceList, EvidencePlace, EvidenceShow, Exit, Output,
};
use crate::serve::talk;
use crate::site::{self, warn};

const NOT_KNOWN: &str = "ImageEvidence (`countersign crds apply` makes a cluster know it)";
/// Bytes of an exported file.
const MOST_BYTES: u64 = 256 << 20;

pub(crate) async fn run(command: &EvidenceCommand) -> Result<Exit> {
    let done = match command {
        EvidenceCommand::Import(arguments) => import(arguments).await,
        EvidenceCommand::List(arguments) => list(arguments).await,
        EvidenceCommand::Show(arguments) => show(arguments).await,
        EvidenceCommand::Export(arguments) => export(arguments).await,
    };
    match done {
        Err(error) if error.downcast_ref::<EvidenceError>().is_some_and(EvidenceError::is_unreachable) => {
            warn(&format!("{error:#}"));
            Ok(Exit::Unreachable)
        }
        result => result,
    }
}

/// Where evidence is kept.
enum Place {
    Cluster(Client, RecordKey),
    Directory(Directory),
}

impl Place {
    /// All that is there; nothing is made for it.
    async fn known(arguments: &EvidencePlace) -> Result<Known> {
        if let Some(path) = &arguments.dir {
            return Directory::look(path).context("--dir");
        }
        let client = crate::crds::client(&arguments.home.cluster).await?;
        let key = known_record_key(&client, &arguments.home.namespace).await?;
        // Without a key there is no record that counts.
        let none = || RecordKey::generate().and_then(|text| RecordKey::parse(&text));
        let key = key.or_else(none).context("the machine has no randomness to give")?;
        objects::all(&client, &key).await.context(NOT_KNOWN)
    }

    async fn of(arguments: &EvidencePlace) -> Result<Self> {
        if let Some(path) = &arguments.dir {
            return Ok(Self::Directory(Directory::open(path).context("--dir")?));
        }
        let client = crate::crds::client(&arguments.home.cluster).await?;
        make_namespace(&client, &arguments.home.namespace).await.map_err(EvidenceError::from)?;
        let key = record_key(&client, &arguments.home.namespace).await?;
        Ok(Self::Cluster(client, key))
    }

    /// All that is there.
    async fn all(&self) -> Result<Known> {
        match self {
            Self::Cluster(client, key) => objects::all(client, key).await.context(NOT_KNOWN),
            Self::Directory(directory) => Ok(directory.all()),
        }
    }

    /// Puts an entry in; whether there was anything new in it.
    async fn put(&self, digest: &Digest, entry: Entry) -> Result<bool> {
        match self {
            Self::Cluster(client, key) => {
                objects::import(client, key, digest, entry).await.context(NOT_KNOWN)
            }
            Self::Directory(directory) => Ok(directory.import(digest, &entry)),
        }
    }

    fn word(&self) -> &'static str {
        match self {
            Self::Cluster(..) => "in the cluster",
            Self::Directory(_) => "in the directory",
        }
    }
}

/// Whether whoever may say which tag is of which digest has sealed the bundle.
fn is_sealed(layout: &Layout, arguments: &EvidenceImport, site: (&Site, &Path)) -> Result<bool> {
    let keys = if arguments.bundle_key.is_empty() {
        bundle_keys(&[], Some(site))?
    } else {
        bundle_keys(&arguments.bundle_key, None)?
    };
    let why = match keys.map(|keys| check_seal(layout, &keys)).transpose()? {
        Some(Seal::Holds(_)) => return Ok(true),
        Some(Seal::Broken(why)) => format!("the seal of the bundle does not hold: {why}"),
        Some(Seal::Absent) => "the bundle is not sealed".to_owned(),
        None => "nobody is named who may seal bundles (`spec.trust.bundleKeys`, or --bundle-key)".to_owned(),
    };
    warn(&why);
    Ok(false)
}

async fn import(arguments: &EvidenceImport) -> Result<Exit> {
    if arguments.bundle.extension().is_some_and(|extension| extension == "json") {
        return import_exported(arguments).await;
    }
    let path = arguments.site.as_deref().context("--site is needed for a bundle: its names count")?;
    let site = site::read(path)?;
    let layout = Layout::open(&arguments.bundle).context("BUNDLE")?;
    let mut exit = Exit::Good;
    let sealed = is_sealed(&layout, arguments, (&site, path))?;
    if !sealed {
        warn(
            "its proofs are taken, and not which name and tag stands for which digest: pods that name a tag \
             are verified once a registry answers",
        );
        exit = Exit::Negative;
    }
    let place = Place::of(&arguments.place).await?;
    let confirmed = SystemClock::default().wall();
    let known = place.all().await?;
    let (mut images, mut new) = (0, 0);
    for found in evidence(&layout)? {
        if found.signatures.is_empty() {
            warn(&format!("{} has no signature", found.name));
            exit = Exit::Negative;
            continue;
        }
        let image = Reference::parse(&format!("{}/{}", site.registry.name, found.name))
            .with_context(|| format!("the entry `{}` of the bundle", found.name))?;
        let record = TagRecord { digest: found.digest.clone(), confirmed, origin: Origin::Bundle };
        // A bundle of last year does not turn a tag back.
        let latest = TagRecord::latest(known.records(&image), confirmed);
        let other = latest.filter(|known| known.digest != found.digest);
        let turned = other.filter(|_| sealed && image.tag().is_some() && !arguments.force);
        if let Some(other) = &turned {
            warn(&format!(
                "{}: the tag stands for {} since {}, and not for {} as in the bundle: that stays (--force takes \
                 the bundle's word)",
                found.name,
                shortened(&other.digest),
                other.confirmed,
                shortened(&found.digest)
            ));
            exit = Exit::Negative;
        }
        let tag = (sealed && image.tag().is_some() && turned.is_none()).then_some((image, record));
        let entry = Entry {
            signatures: found.signatures,
            index: found.index.and_then(Index::read).filter(Index::is_small).map(Arc::new),
            tags: tag.into_iter().map(|(image, record)| (image, record, Mac::default())).collect(),
        };
        new += usize::from(place.put(&found.digest, entry).await?);
        images += 1;
    }
    talk(&format!("evidence of {images} images is {}, {new} of them changed", place.word()));
    Ok(exit)
}

/// Takes the proofs of an exported file: nobody stands behind what it says of tags.
async fn import_exported(arguments: &EvidenceImport) -> Result<Exit> {
    let path = &arguments.bundle;
    let shown = path.display();
    if path.metadata().with_context(|| shown.to_string())?.len() > MOST_BYTES {
        bail!("{shown}: larger than {MOST_BYTES} bytes");
    }
    let text = std::fs::read(path).with_context(|| shown.to_string())?;
    let list: Value = serde_json::from_slice(&text).with_context(|| format!("{shown} is no JSON"))?;
    let items =
        list["items"].as_array().with_context(|| format!("{shown} is no List of `{}`", DOCUMENT.1))?;
    let place = Place::of(&arguments.place).await?;
    let (mut exit, mut images, mut new) = (Exit::Good, 0, 0);
    for item in items {
        let digest = item["spec"]["digest"].as_str().and_then(|digest| Digest::parse(digest).ok());
        let Some(digest) = digest else {
            warn(&format!("{shown}: an item without a digest is left out"));
            exit = Exit::Negative;
            continue;
        };
        let (entry, findings) = Entry::read(&item["spec"], &digest);
        for finding in findings {
            warn(&format!("{shown}: {digest}: {finding}"));
            exit = Exit::Negative;
        }
        new += usize::from(place.put(&digest, Entry { tags: Vec::new(), ..entry }).await?);
        images += 1;
    }
    talk(&format!("proofs of {images} digests are {}, {new} of them changed", place.word()));
    Ok(exit)
}

#[expect(clippy::print_stdout, reason = "this is a command line")]
async fn list(arguments: &EvidenceList) -> Result<Exit> {
    let known = Place::known(&arguments.place).await?;
    let digests = sorted(&known);
    if arguments.output == Output::Json {
        let all: Vec<Value> = digests.iter().filter_map(|digest| data(&known, digest)).collect();
        println!("{}", serde_json::to_string_pretty(&all)?);
    } else {
        for digest in &digests {
            let Some(entry) = known.entry(digest) else { continue };
            let names = known.names_of(digest);
            let names = if names.is_empty() { "no name".to_owned() } else { names.join(", ") };
            let kind = if entry.index.is_some() { "index" } else { "image" };
            let count = entry.signatures.len();
            println!("{digest}  {kind}  {count} signature{}  {names}", if count == 1 { "" } else { "s" });
        }
    }
    let findings = known.findings();
    for finding in &findings {
        warn(finding);
    }
    Ok(if findings.is_empty() { Exit::Good } else { Exit::Negative })
}

#[expect(clippy::print_stdout, reason = "this is a command line")]
async fn show(arguments: &EvidenceShow) -> Result<Exit> {
    let known = Place::known(&arguments.place).await?;
    let digests = match Digest::parse(&arguments.what) {
        Ok(digest) => vec![digest],
        Err(_) => {
            let image = Reference::parse(&arguments.what).context("neither a digest nor an image")?;
            let of_tag = known.records(&image).into_iter().map(|record| record.digest);
            image.digest().cloned().into_iter().chain(of_tag).collect()
        }
    };
    let found: Vec<Value> = digests.iter().filter_map(|digest| data(&known, digest)).collect();
    if found.is_empty() {
        warn(&format!("there is no evidence of {}", arguments.what));
        return Ok(Exit::Negative);
    }
    println!("{}", serde_json::to_string_pretty(&found)?);
    Ok(Exit::Good)
}

async fn export(arguments: &EvidenceExport) -> Result<Exit> {
    let known = Place::known(&arguments.place).await?;
    let (api_version, kind) = DOCUMENT;
    let object = |digest: &Digest| {
        Some(json!({
            "apiVersion": api_version, "kind": kind,
            "metadata": { "name": digest.to_string().replacen(':', "-", 1) },
            "spec": known.entry(digest)?.write(digest),
        }))
    };
    let items: Vec<Value> = sorted(&known).iter().filter_map(object).collect();
    let count = items.len();
    let list = json!({ "apiVersion": api_version, "kind": format!("{kind}List"), "items": items });
    std::fs::write(&arguments.to, format!("{list:#}\n"))
        .with_context(|| arguments.to.display().to_string())?;
    talk(&format!("evidence of {count} digests is in {}", arguments.to.display()));
    Ok(Exit::Good)
}

fn sorted(known: &Known) -> Vec<Digest> {
    let mut digests: Vec<Digest> = known.digests().cloned().collect();
    digests.sort();
    digests
}

/// All that is known of a digest, for people and programs: signatures by their format, not their bytes.
fn data(known: &Known, digest: &Digest) -> Option<Value> {
    let entry = known.entry(digest)?;
    let tags = entry.tags.iter().map(|(image, record, _)| {
        json!({
            "image": record_name(image), "confirmed": record.confirmed.to_string(),
            "origin": record.origin.word(), "counts": known.records(image).contains(record),
        })
    });
    Some(json!({
        "digest": digest.to_string(),
        "signatures": entry.signatures.iter().map(Material::format).collect::<Vec<_>>(),
        "lists": entry.index.as_ref().map(|index| index.lists.iter().map(ToString::to_string).collect::<Vec<_>>()),
        "tags": tags.collect::<Vec<_>>(),
        "findings": known.findings_of(digest),
    }))
}
