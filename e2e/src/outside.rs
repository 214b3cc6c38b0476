//! The connected side of a gap.

use std::path::{Path, PathBuf};
use std::process::Command;

use countersign_signature::sign::{Scheme, Signer};
use tempfile::TempDir;

use crate::{
    Cosign, KeyPair, KeyType, Pushed, Registry, RegistryKind, countersign, push_image, push_image_for,
    push_index,
};

/// The connected side: two registries with images of every sort, and who signed them.
pub struct Outside {
    /// For files of the test.
    pub directory: TempDir,
    /// With the referrers API, and without.
    pub registries: [Registry; 2],
    /// Who signs.
    pub key: KeyPair,
    /// What is to be taken along, as pods name it.
    pub images: Vec<Pushed>,
}

impl Outside {
    /// Pushes and signs: by cosign 2 and 3, one of them for two platforms.
    pub async fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let registries =
            [Registry::start(RegistryKind::WithReferrers), Registry::start(RegistryKind::Distribution)];
        let key = Cosign::V3.key_pair(directory.path(), "vendor", KeyType::EcdsaP256);
        let mut images = Vec::new();
        for (number, registry) in registries.iter().enumerate() {
            let host = registry.host();
            let old = push_image(&host, "acme/old", "1", &format!("old {number}")).await;
            Cosign::V2.sign(directory.path(), &key, &old.by_digest());
            let amd64 = push_image(&host, "acme/multi", "amd64", &format!("amd64 {number}")).await;
            let arm64 =
                push_image_for("arm64", &host, "acme/multi", "arm64", &format!("arm64 {number}")).await;
            let multi = push_index(&host, "acme/multi", "2", &[("amd64", &amd64), ("arm64", &arm64)]).await;
            Cosign::V3.sign(directory.path(), &key, &multi.by_digest());
            images.extend([old, multi]);
        }
        Self { directory, registries, key, images }
    }

    /// A file of the test.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// `countersign bundle create` with these images and more arguments.
    pub fn create(&self, to: &Path, images: &[&Pushed], more: &[&str]) -> Command {
        let mut command = Command::new(countersign());
        command.args(["bundle", "create", "--to"]).arg(to).arg("--key").arg(&self.key.public);
        for registry in &self.registries {
            // The hosts of a real list, each served by a registry of this machine.
            command.arg("--registry").arg(format!("{}=http://{}", name(registry), registry.host()));
        }
        for image in images {
            command.arg(self.written(image));
        }
        command.args(more);
        command
    }

    /// A key to seal bundles with, and its public half.
    pub fn seal_key(&self) -> (PathBuf, PathBuf) {
        let signer = Signer::generate(Scheme::Ed25519).unwrap();
        let (private, public) = (self.path("seal.pem"), self.path("seal.pub"));
        std::fs::write(&private, signer.private_pem().unwrap()).unwrap();
        std::fs::write(&public, signer.public_pem()).unwrap();
        (private, public)
    }

    /// The name that pods would give an image.
    pub fn written(&self, image: &Pushed) -> String {
        let (host, path) = image.name.split_once('/').unwrap();
        let registry = self.registries.iter().find(|registry| registry.host() == host).unwrap();
        format!("{}/{path}:{}", name(registry), image.tag)
    }
}

fn name(registry: &Registry) -> String {
    format!("r{}.example", registry.port)
}

/// Runs to the end: exit code, stdout, stderr.
pub fn run(command: &mut Command) -> (i32, String, String) {
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

/// A number below `most` that nobody can foresee.
pub fn chance(most: u64) -> u64 {
    use std::hash::{BuildHasher as _, Hasher as _, RandomState};
    RandomState::new().build_hasher().finish() % most
}
