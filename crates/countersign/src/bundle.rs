//! `countersign bundle`: what crosses the gap.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow, bail};
use countersign_bundle::{
    CreateError, Creator, Hosts, Image, Report, SEAL_FILE, Seal, Settings, Signed, contents, seal, verify,
};
use countersign_layout::Layout;
use countersign_reference::{Reference, Rewriter};
use countersign_registry::Class;
use countersign_signature::Trust;
use countersign_signature::sign::Signer;
use countersign_site::Site;
use countersign_verdict::{Attestors, text};
use serde_json::{Value, json};

use crate::cli::{BundleCommand, BundleCreate, BundleList, BundleTrust, BundleVerify, Exit, Output};
use crate::endpoints::Reach;
use crate::progress::Bar;
use crate::serve::talk;
use crate::site::{self, warn};
use crate::{policies, sources};

/// The logical registry where no Site names one: only paths matter in a bundle.
const REGISTRY: &str = "registry.local";
pub(crate) async fn run(command: &BundleCommand) -> Result<Exit> {
    match command {
        BundleCommand::Create(arguments) => create(arguments).await,
        BundleCommand::Verify(arguments) => verify_bundle(arguments),
        BundleCommand::List(arguments) => list(arguments),
    }
}

async fn create(arguments: &BundleCreate) -> Result<Exit> {
    let images = images(arguments)?;
    let (site, trust) = trust(&arguments.trust)?;
    let signer = match &arguments.sign_key {
        Some(path) => {
            let text = sources::text(path).map_err(anyhow::Error::msg)?;
            Some(Signer::from_pem(&text).with_context(|| format!("--sign-key {}", path.display()))?)
        }
        None => None,
    };
    let names = match &site {
        Some(site) => site.rewrite.rewriter.clone(),
        None => Rewriter::new(REGISTRY, &BTreeMap::new())?,
    };
    // An archive is made of a directory beside it, which a next run goes on with.
    let archive = arguments.to.extension().is_some_and(|extension| extension == "tar");
    let directory = if archive { with_suffix(&arguments.to, ".partial") } else { arguments.to.clone() };
    let layout = Layout::create(&directory).context("--to")?;
    let settings = Settings { platforms: arguments.platform.clone(), ..Settings::DEFAULT };
    let bar = Bar::new();
    let creator = Creator::new(&layout, hosts(arguments)?, &names, settings, &bar);
    let failed = creator.collect(&images).await?;
    bar.end();
    for (image, error) in &failed {
        warn(&format!("{image}: {error}"));
    }
    let report = contents(&layout, trust.as_ref())?;
    let unsigned = tell_signatures(&report);
    for problem in &report.problems {
        warn(&problem.to_string());
    }
    if !failed.is_empty() {
        talk(&format!("{} of {} images are missing: run this again to go on", failed.len(), images.len()));
        return Ok(failed.iter().map(|(_, error)| exit_of(error)).max().unwrap_or(Exit::Negative));
    }
    match &signer {
        Some(signer) => seal(&layout, signer)?,
        None => warn("the bundle is not sealed: --sign-key names the key to seal it with"),
    }
    if archive {
        layout.pack(&arguments.to, &[SEAL_FILE])?;
        std::fs::remove_dir_all(&directory)
            .with_context(|| format!("cannot remove {}", directory.display()))?;
    }
    talk(&format!("{} images in {}", report.images.len(), arguments.to.display()));
    let good = report.problems.is_empty() && (unsigned == 0 || trust.is_none());
    Ok(if good { Exit::Good } else { Exit::Negative })
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn exit_of(error: &CreateError) -> Exit {
    match error {
        CreateError::Registry { error, .. } if error.class() == Class::Unreachable => Exit::Unreachable,
        CreateError::NoHost(_) | CreateError::Name(_) | CreateError::Ambiguous { .. } => Exit::Usage,
        _ => Exit::Negative,
    }
}

/// Names every image without a good signature, and counts them.
fn tell_signatures(report: &Report) -> usize {
    let bad: Vec<&Image> = report.images.iter().filter(|image| !image.signed.is_good()).collect();
    for image in &bad {
        let name = &image.name;
        match &image.signed {
            Signed::Not => warn(&format!("{name} has no signature in any format")),
            Signed::Unjudged(0) => warn(&format!("{name} has no signature; no key was given to judge by")),
            Signed::Rejected(checks) => {
                let first = checks.first().map(|check| check.detail.clone()).unwrap_or_default();
                warn(&format!("{name} has signatures, and none by the keys given: {first}"));
            }
            Signed::By(_) | Signed::Unjudged(_) => {}
        }
    }
    bad.len()
}

fn images(arguments: &BundleCreate) -> Result<Vec<Reference>> {
    let mut texts = arguments.image.clone();
    if let Some(path) = &arguments.images {
        let text = sources::text(path).map_err(anyhow::Error::msg).context("cannot read --images")?;
        let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
        texts.extend(lines.filter(|line| !line.is_empty()).map(ToOwned::to_owned));
    }
    let parse = |text: &String| Reference::parse(text).with_context(|| format!("`{text}`"));
    let mut images: Vec<Reference> = texts.iter().map(parse).collect::<Result<_>>()?;
    images.sort();
    images.dedup();
    if images.is_empty() {
        bail!("there is no image in the list");
    }
    Ok(images)
}

/// The registries that may be asked, and no others.
fn hosts(arguments: &BundleCreate) -> Result<Hosts> {
    let reach = Reach::of(&arguments.ca, &arguments.allow_host, arguments.credentials.as_deref())?;
    let mut hosts = Hosts::new();
    for text in &arguments.registry {
        let (host, url) = text.split_once('=').unwrap_or((text, ""));
        let named = Reference::from_parts(host, "x", None, None);
        let host = named.with_context(|| format!("--registry {text}: `{host}` is no host"))?.host();
        // Where the hub's API is.
        let default = if host == "docker.io" { "registry-1.docker.io" } else { host.as_str() };
        let url = if url.is_empty() { format!("https://{default}") } else { url.to_owned() };
        let endpoint = reach.endpoint(&host, &url).with_context(|| format!("--registry {text}"))?;
        hosts.insert(host, Arc::new(endpoint));
    }
    reach.warn_unused();
    Ok(hosts)
}

/// The Site, and the keys that images have to be signed by.
fn trust(arguments: &BundleTrust) -> Result<(Option<Arc<Site>>, Option<Trust>)> {
    let site = arguments.site.as_deref().map(site::read).transpose()?;
    let keys = image_keys(&arguments.key, site.as_deref().zip(arguments.site.as_deref()))?;
    Ok((site, keys))
}

/// The keys that images have to be signed by: those given, and the Site's. Whoever puts bundles
/// together (`trust.bundleKeys`) signs no image by that.
pub(crate) fn image_keys(given: &[PathBuf], site: Option<(&Site, &Path)>) -> Result<Option<Trust>> {
    let mut pem = key_files(given, "--key")?;
    if let Some((site, path)) = site {
        let keys = policies::site_keys(site, &site::loader(path))?;
        pem.extend(keys.into_values().map(|key| key.pem));
        if pem.is_empty() && !site.trust.keys.is_empty() {
            bail!(
                "{}: every key is one of `trust.bundleKeys`, which sign no images: add the signer's key to \
                 `trust.keys`, under a name of its own where it is the same one, or give --key",
                path.display()
            );
        }
    }
    parsed(&pem, "--key")
}

fn key_files(paths: &[PathBuf], option: &str) -> Result<Vec<String>> {
    paths.iter().map(|path| sources::text(path).map_err(|error| anyhow!("{option} {error}"))).collect()
}

fn parsed(pem: &[String], option: &str) -> Result<Option<Trust>> {
    if pem.is_empty() {
        return Ok(None);
    }
    Ok(Some(Trust::new(&Attestors::any_of_keys(&pem.join("\n"))).with_context(|| option.to_owned())?))
}

/// The keys that may seal a bundle: those given, and the Site's.
pub(crate) fn bundle_keys(given: &[PathBuf], site: Option<(&Site, &Path)>) -> Result<Option<Trust>> {
    let mut pem = key_files(given, "--bundle-key")?;
    if let Some((site, path)) = site {
        let load = site::loader(path);
        for name in &site.trust.bundle_keys {
            let key = site.trust.keys.get(name);
            let key = key.with_context(|| format!("spec.trust.bundleKeys: there is no key `{name}`"))?;
            pem.push(load(&key.source).map_err(|why| anyhow!("spec.trust.keys.{name}: {why}"))?);
        }
    }
    parsed(&pem, "--bundle-key")
}

fn verify_bundle(arguments: &BundleVerify) -> Result<Exit> {
    let (site, images) = trust(&arguments.trust)?;
    let bundle_keys =
        bundle_keys(&arguments.bundle_key, site.as_deref().zip(arguments.trust.site.as_deref()))?;
    if images.is_none() {
        warn(
            "no key for images was given (--key, or `trust.keys` of a Site): nobody is asked who signed them",
        );
    }
    if bundle_keys.is_none() {
        warn("no key for the seal was given (--bundle-key, or `trust.bundleKeys` of a Site)");
    }
    let layout = Layout::open(&arguments.bundle).context("BUNDLE")?;
    let report = verify(&layout, images.as_ref(), bundle_keys.as_ref())?;
    print(&report, arguments.output)?;
    let unsigned = images.is_some() && report.images.iter().any(|image| !image.signed.is_good());
    let sealed = matches!(report.seal, None | Some(Seal::Holds(_)));
    Ok(if report.problems.is_empty() && sealed && !unsigned { Exit::Good } else { Exit::Negative })
}

fn list(arguments: &BundleList) -> Result<Exit> {
    let layout = Layout::open(&arguments.bundle).context("BUNDLE")?;
    let report = contents(&layout, None)?;
    print(&report, arguments.output)?;
    Ok(if report.problems.is_empty() { Exit::Good } else { Exit::Negative })
}

fn words(signed: &Signed) -> String {
    match signed {
        Signed::By(keys) => format!("signed by key {}", keys.join(", ")),
        Signed::Rejected(checks) => {
            let why = checks.first().map(|check| check.detail.clone()).unwrap_or_default();
            format!("REJECTED: {} signatures, {why}", checks.len())
        }
        Signed::Not => "NOT SIGNED".to_owned(),
        Signed::Unjudged(0) => "no signature".to_owned(),
        Signed::Unjudged(1) => "1 signature".to_owned(),
        Signed::Unjudged(count) => format!("{count} signatures"),
    }
}

fn print(report: &Report, output: Output) -> Result<()> {
    let mut out = std::io::stdout().lock();
    if output == Output::Json {
        let image = |image: &Image| {
            json!({
                "name": image.name, "digest": image.digest, "artifacts": image.artifacts,
                "platforms": image.platforms.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "leftOut": image.left_out.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "signed": image.signed.is_good(), "summary": words(&image.signed),
            })
        };
        let seal = report.seal.as_ref().map(|seal| match seal {
            Seal::Holds(key) => json!({ "holds": true, "key": key }),
            Seal::Broken(why) => json!({ "holds": false, "why": why }),
            Seal::Absent => json!({ "holds": false, "why": "there is none" }),
        });
        let problems = report.problems.iter().map(ToString::to_string);
        let data = json!({
            "images": report.images.iter().map(image).collect::<Vec<Value>>(),
            "problems": problems.collect::<Vec<_>>(), "seal": seal,
            "blobs": report.blobs, "bytes": report.bytes,
        });
        writeln!(out, "{}", serde_json::to_string_pretty(&data)?)?;
        return Ok(());
    }
    for image in &report.images {
        writeln!(out, "{}  {}  {}", image.name, text::shortened(&image.digest), words(&image.signed))?;
        let list = |platforms: &[countersign_manifest::Platform]| {
            platforms.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        };
        if !image.platforms.is_empty() {
            writeln!(out, "  for {}", list(&image.platforms))?;
        }
        if !image.left_out.is_empty() {
            writeln!(out, "  left out: {}", list(&image.left_out))?;
        }
    }
    for problem in &report.problems {
        writeln!(out, "PROBLEM  {problem}")?;
    }
    match &report.seal {
        None => {}
        Some(Seal::Holds(key)) => writeln!(out, "sealed by key {key}")?,
        Some(Seal::Broken(why)) => writeln!(out, "PROBLEM  the seal does not hold: {why}")?,
        Some(Seal::Absent) => writeln!(out, "PROBLEM  the bundle is not sealed")?,
    }
    if report.blobs > 0 {
        writeln!(out, "{} files, {} bytes read", report.blobs, report.bytes)?;
    }
    Ok(())
}
