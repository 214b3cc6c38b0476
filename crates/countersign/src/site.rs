//! The Site from a file.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use countersign_signature::Identity;
use countersign_site::{IdentityCheck, Pinning, Site, Source};
use countersign_verifier::Settings;

use crate::sources;

/// Reads a Site and tells its warnings.
pub(crate) fn read(path: &Path) -> Result<Arc<Site>> {
    let text = sources::text(path).map_err(anyhow::Error::msg).context("cannot read --site")?;
    let site = Site::parse(&text).with_context(|| format!("{} is not a Site", path.display()))?;
    for warning in &site.warnings.0 {
        warn(&format!("{}: {}: {}", path.display(), warning.path, warning.message));
    }
    Ok(Arc::new(site))
}

/// What a Site says to the verifier besides its endpoints.
pub(crate) fn settings(site: &Site) -> Settings {
    Settings {
        tag_freshness: site.tag_freshness,
        stale: site.stale,
        // What might not be pinned must not be another image at the next endpoint.
        compare_endpoints: site.pinning != Pinning::Always,
        revoked: site.revoked.clone(),
        identity: (site.trust.identity != IdentityCheck::Off).then(|| Identity {
            required: site.trust.identity == IdentityCheck::Required,
            remap: site.trust.remap.clone(),
            rewriter: Some(site.rewrite.rewriter.clone()),
        }),
        ..Settings::default()
    }
}

/// Reads what the Site's sources name; relative paths are relative to its file.
pub(crate) fn loader(path: &Path) -> impl Fn(&Source) -> Result<String, String> + Send + Sync + use<> {
    sources::loader(path.parent().map(Path::to_owned).unwrap_or_default())
}

#[expect(clippy::print_stderr, reason = "stderr is where a command line talks")]
pub(crate) fn warn(message: &str) {
    eprintln!("warning: {message}");
}
