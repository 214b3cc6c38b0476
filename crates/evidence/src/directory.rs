//! Proofs in a directory, as an OCI image layout.

use std::path::Path;

use countersign_layout::{Descriptor, Layout, LayoutError};
use countersign_reference::{Digest, Reference};
use countersign_signature::{Material, Signatures, Verified};
use jiff::Timestamp;

use crate::{Memory, Store, TagRecord};

/// Media type of a kept signature.
const MEDIA_TYPE: &str = "application/vnd.countersign.signature.v1+json";

/// A store whose proofs outlive the process.
///
/// Nothing in it is believed: signatures are judged again when they are read, and a damaged or
/// foreign file is passed over. Tag records do not prove themselves, so they stay in memory.
#[derive(Debug)]
pub struct Directory {
    layout: Layout,
    memory: Memory,
}

impl Directory {
    /// Opens a directory, and makes it where it is not there.
    pub fn open(path: &Path) -> Result<Self, LayoutError> {
        Ok(Self { layout: Layout::create(path)?, memory: Memory::default() })
    }
}

impl Store for Directory {
    fn signatures(&self, digest: &Digest) -> Vec<Material> {
        let mut known = self.memory.signatures(digest);
        let prefix = format!("{digest}/");
        let Ok(index) = self.layout.index() else { return known };
        let of_this = index.named().filter(|(name, _)| name.starts_with(&prefix));
        let read = |(_, entry): (&str, &Descriptor)| {
            serde_json::from_slice(&self.layout.get(&entry.digest).ok()?).ok()
        };
        for material in of_this.filter_map(read) {
            if !known.contains(&material) {
                known.push(material);
            }
        }
        known
    }

    fn keep(&self, proof: &Verified<Signatures>) {
        self.memory.keep(proof);
        for material in &proof.get().materials {
            let Ok(content) = serde_json::to_vec(material) else { continue };
            let kept = self.layout.put(&content).and_then(|digest| {
                let name = format!("{}/{digest}", proof.get().digest);
                self.layout.name(&name, Descriptor::new(MEDIA_TYPE, digest, content.len() as u64))
            });
            if let Err(error) = kept {
                // The verdict stands; only the next outage is less well covered.
                tracing::warn!(%error, "a proof could not be kept");
            }
        }
    }

    fn tag(&self, image: &Reference, now: Timestamp) -> Option<TagRecord> {
        self.memory.tag(image, now)
    }

    fn record_tag(&self, image: &Reference, record: TagRecord) {
        self.memory.record_tag(image, record);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use countersign_signature::sign::{Scheme, Signer};
    use countersign_signature::{Judge, Limits, Located, Trust};
    use countersign_verdict::Attestors;

    #[test]
    fn a_proof_is_there_after_a_restart_and_is_judged_again() {
        let (directory, image) = (tempfile::tempdir().unwrap(), Digest::sha256_of(b"an image"));
        let signer = Signer::generate(Scheme::EcdsaP256).unwrap();
        let judge = |trust: &Trust, material: Material| {
            let located = Located { at: "test".to_owned(), artifact: "signature".to_owned(), material };
            Judge::new(trust, &image, Limits::DEFAULT).add(&located)
        };
        let trust = Trust::new(&Attestors::any_of_keys(&signer.public_pem())).unwrap();
        let material = signer.bundle(&image, &std::collections::BTreeMap::new()).unwrap();
        let proof = judge(&trust, material.clone()).unwrap();
        Directory::open(directory.path()).unwrap().keep(&proof);

        let again = Directory::open(directory.path()).unwrap();
        assert_eq!(again.signatures(&image), std::slice::from_ref(&material));
        assert!(again.signatures(&Digest::sha256_of(b"another")).is_empty());
        let other = Signer::generate(Scheme::EcdsaP256).unwrap();
        let other = Trust::new(&Attestors::any_of_keys(&other.public_pem())).unwrap();
        assert!(judge(&other, again.signatures(&image).remove(0)).is_none(), "a removed key counts no more");
    }
}
