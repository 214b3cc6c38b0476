//! The real cosign, 2.x and 3.x, offline.

use std::path::{Path, PathBuf};
use std::process::Command;

use countersign_signature::sign::{Scheme, Signer};

use crate::{succeed, tool};

/// Which cosign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cosign {
    /// Writes `.sig` tags.
    V2,
    /// Writes sigstore bundles.
    V3,
}

/// Which kind of key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyType {
    /// cosign's own.
    EcdsaP256,
    /// Imported.
    Rsa4096,
}

/// Key files made by cosign.
#[derive(Clone, Debug)]
pub struct KeyPair {
    /// The encrypted private key.
    pub private: PathBuf,
    /// The public key, PEM.
    pub public: PathBuf,
}

impl Cosign {
    fn command(self, directory: &Path) -> Command {
        let mut command = Command::new(tool(if self == Self::V2 { "cosign2" } else { "cosign3" }));
        // A home of its own: nothing of the machine's configuration counts.
        command
            .current_dir(directory)
            .env("COSIGN_PASSWORD", "")
            .env("HOME", directory)
            .env("COSIGN_YES", "true");
        command
    }

    /// Makes a key pair in a directory.
    pub fn key_pair(self, directory: &Path, name: &str, kind: KeyType) -> KeyPair {
        let prefix = directory.join(name);
        match kind {
            KeyType::EcdsaP256 => {
                succeed(
                    self.command(directory).arg("generate-key-pair").arg("--output-key-prefix").arg(&prefix),
                );
            }
            KeyType::Rsa4096 => {
                let pair = Signer::generate(Scheme::Rsa4096).unwrap();
                return self.import(directory, name, &pair.private_pem().unwrap());
            }
        }
        KeyPair { private: prefix.with_extension("key"), public: prefix.with_extension("pub") }
    }

    /// Takes over a plain PKCS #8 key.
    pub fn import(self, directory: &Path, name: &str, pem: &str) -> KeyPair {
        let (file, prefix) = (directory.join(format!("{name}.pem")), directory.join(name));
        std::fs::write(&file, pem).unwrap();
        let mut command = self.command(directory);
        succeed(
            command.args(["import-key-pair", "--key"]).arg(&file).arg("--output-key-prefix").arg(&prefix),
        );
        KeyPair { private: prefix.with_extension("key"), public: prefix.with_extension("pub") }
    }

    /// Signs any bytes: base64 of the signature.
    pub fn sign_blob(self, directory: &Path, key: &KeyPair, content: &[u8]) -> String {
        let mut file = tempfile::NamedTempFile::new_in(directory).unwrap();
        std::io::Write::write_all(&mut file, content).unwrap();
        let mut command = self.command(directory);
        command.args(["sign-blob", "--tlog-upload=false", "-y", "--key"]).arg(&key.private).arg(file.path());
        String::from_utf8(succeed(&mut command).stdout).unwrap().trim().to_owned()
    }

    /// Signs `host/repository@digest`.
    pub fn sign(self, directory: &Path, key: &KeyPair, image: &str) {
        let mut command = self.command(directory);
        command
            .args(["sign", "--tlog-upload=false", "--allow-http-registry", "-y", "--key"])
            .arg(&key.private);
        if self == Self::V3 {
            command.arg("--use-signing-config=false");
        }
        succeed(command.arg(image));
    }

    /// Whether cosign itself verifies the image.
    pub fn verifies(self, directory: &Path, key: &KeyPair, image: &str) -> bool {
        self.verify(directory, &key.public, image).is_ok()
    }

    /// The same, with what it says where it does not.
    pub fn verify(self, directory: &Path, public: &Path, image: &str) -> Result<(), String> {
        let mut command = self.command(directory);
        command.args(["verify", "--insecure-ignore-tlog", "--allow-http-registry", "--key"]).arg(public);
        let output = command.arg(image).output().unwrap();
        if output.status.success() {
            return Ok(());
        }
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// The same at a registry with TLS, whose certificate this CA has signed.
    pub fn verifies_by_ca(self, directory: &Path, key: &KeyPair, image: &str, ca: &Path) -> bool {
        let mut command = self.command(directory);
        command.args(["verify", "--insecure-ignore-tlog", "--key"]).arg(&key.public);
        command.arg("--registry-cacert").arg(ca).arg(image).output().unwrap().status.success()
    }
}
