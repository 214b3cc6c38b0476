//! `countersign evidence`: proofs are put into a cluster before anything is installed there.

use anyhow::{Context as _, Result};
use countersign_bundle::{Seal, check_seal, evidence};
use countersign_clock::{Clock as _, SystemClock};
use countersign_cluster::evidence::{EvidenceError, import, record_key, tags};
use countersign_cluster::make_namespace;
use countersign_evidence::{Origin, TagRecord, record_name};
use countersign_layout::Layout;
use countersign_reference::Reference;
use countersign_verdict::text::shortened;

use crate::bundle::bundle_keys;
use crate::cli::{EvidenceCommand, EvidenceImport, Exit};
use crate::serve::talk;
use crate::site::{self, warn};

const NOT_KNOWN: &str = "ImageEvidence (`countersign crds apply` makes a cluster know it)";

pub(crate) async fn run(command: &EvidenceCommand) -> Result<Exit> {
    let EvidenceCommand::Import(arguments) = command;
    match put(arguments).await {
        Err(error) if error.downcast_ref::<EvidenceError>().is_some_and(EvidenceError::is_unreachable) => {
            warn(&format!("{error:#}"));
            Ok(Exit::Unreachable)
        }
        result => result,
    }
}

async fn put(arguments: &EvidenceImport) -> Result<Exit> {
    let site = site::read(&arguments.site)?;
    let layout = Layout::open(&arguments.bundle).context("BUNDLE")?;
    let mut exit = Exit::Good;
    let keys = if arguments.bundle_key.is_empty() {
        bundle_keys(&[], Some((&site, &arguments.site)))?
    } else {
        bundle_keys(&arguments.bundle_key, None)?
    };
    let sealed = match keys.map(|keys| check_seal(&layout, &keys)).transpose()? {
        Some(Seal::Holds(_)) => true,
        Some(Seal::Broken(why)) => {
            warn(&format!("the seal of the bundle does not hold: {why}"));
            exit = Exit::Negative;
            false
        }
        Some(Seal::Absent) => {
            warn("the bundle is not sealed");
            exit = Exit::Negative;
            false
        }
        None => {
            warn("nobody is named who may seal bundles (`spec.trust.bundleKeys`, or --bundle-key)");
            exit = Exit::Negative;
            false
        }
    };
    if !sealed {
        warn(
            "its proofs are taken, and not which name and tag stands for which digest: pods that name a tag \
             are verified once a registry answers",
        );
    }
    let client = crate::crds::client(&arguments.home.cluster).await?;
    make_namespace(&client, &arguments.home.namespace).await.map_err(EvidenceError::from)?;
    let key = record_key(&client, &arguments.home.namespace).await?;
    let confirmed = SystemClock::default().wall();
    let known = tags(&client, &key, confirmed).await.context(NOT_KNOWN)?;
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
        let other = known.get(&record_name(&image)).filter(|known| known.digest != found.digest);
        let turned = other.filter(|_| sealed && image.tag().is_some() && !arguments.force);
        if let Some(other) = turned {
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
        let put = import(&client, &key, &found.digest, found.signatures, tag.into_iter().collect()).await;
        new += usize::from(put.context(NOT_KNOWN)?);
        images += 1;
    }
    talk(&format!("evidence of {images} images is in the cluster, {new} of them changed"));
    Ok(exit)
}
