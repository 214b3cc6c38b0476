//! A registry with signed images, and `countersign serve` in front of it.

use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use countersign_https::{Authority, Body};
use countersign_reference::Digest;
use countersign_sample::{SampleRegistry, Shape};
use countersign_signature::sign::{Scheme, Signer};
use hyper::Response;
use serde_json::json;
use tempfile::TempDir;

use crate::fetch::Fetch;
use crate::server::{Server, beside};

/// A registry with signed images in this process, and whom to trust.
pub struct Site {
    directory: TempDir,
    /// The CA of the registry's certificate.
    pub authority: Authority,
    /// Whose signatures count.
    pub signer: Signer,
    /// The registry.
    pub registry: SampleRegistry,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Site {
    /// One whose registry tells the truth.
    pub async fn start() -> Result<Self> {
        Self::answering(|_| None).await
    }

    /// One in whose registry this may answer instead, by path.
    pub async fn answering(
        lie: impl Fn(&str) -> Option<Response<Body>> + Clone + Send + Sync + 'static,
    ) -> Result<Self> {
        let (authority, asked) = (Authority::generate("bench")?, Arc::<Mutex<Vec<String>>>::default());
        let noted = Arc::clone(&asked);
        let note = move |path: &str| {
            let lie = lie(path);
            if lie.is_none() {
                noted.lock().unwrap_or_else(PoisonError::into_inner).push(path.to_owned());
            }
            lie
        };
        let registry = SampleRegistry::start(&authority, note).await?;
        let signer = Signer::generate(Scheme::EcdsaP256)?;
        Ok(Self { directory: TempDir::new()?, authority, signer, registry, asked })
    }

    /// The paths that the registry was asked for since this was last called, in order.
    pub fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Has the registry read anew what is in it, so that no image which is measured pays for that.
    pub async fn settle(&self) -> Result<()> {
        let fetch = Fetch::new(self.registry.port, self.authority.pem())?;
        fetch.get_all(&["/v2/_catalog".to_owned()]).await?;
        self.asked();
        Ok(())
    }

    /// Pushes an image that is signed in this shape.
    pub fn push(&self, name: &str, shape: Shape) -> Result<Digest> {
        Ok(self.registry.push_signed(name, name, &self.signer, shape)?)
    }

    /// Pushes signed images, half of them with a `.sig` tag and half with a bundle.
    pub fn push_all(&self, names: &[String]) -> Result<()> {
        for (name, shape) in names.iter().zip([Shape::Tag, Shape::Bundle].into_iter().cycle()) {
            self.push(name, shape)?;
        }
        Ok(())
    }

    /// Pushes an image without a signature.
    pub fn push_unsigned(&self, name: &str) -> Result<Digest> {
        Ok(self.registry.push(name, name)?)
    }

    /// `countersign serve` with the shipped policies and this many keys, the signer's the last.
    pub fn serve(&self, keys: usize) -> Result<Server> {
        self.serve_at(&[self.registry.port], keys)
    }

    /// The same, with an endpoint at each of these ports, in this order.
    pub fn serve_at(&self, ports: &[u16], keys: usize) -> Result<Server> {
        self.serve_with(ports, keys, &[])
    }

    /// The same, with further policies.
    pub fn serve_with(&self, ports: &[u16], keys: usize, more: &[String]) -> Result<Server> {
        let mut pem = String::new();
        for _ in 1..keys {
            pem += &Signer::generate(Scheme::EcdsaP256)?.public_pem();
        }
        pem += &self.signer.public_pem();
        let endpoint = |port: &u16| {
            let ca = json!({ "pem": self.authority.pem() });
            json!({ "name": format!("at-{port}"), "url": format!("https://127.0.0.1:{port}"), "ca": ca })
        };
        let endpoints: Vec<_> = ports.iter().map(endpoint).collect();
        let site = json!({
            "apiVersion": "countersign.dev/v1alpha1", "kind": "Site",
            "spec": {
                "registry": { "name": "registry.local", "endpoints": endpoints },
                "trust": { "keys": { "vendor": { "pem": pem } } },
            },
        });
        // A file for each server: they go by what is in it as long as they run.
        let file = tempfile::Builder::new().suffix(".yaml").tempfile_in(&self.directory)?;
        let (_, file) = file.keep()?;
        std::fs::write(&file, site.to_string())?;
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies");
        let policies = if more.is_empty() {
            shipped
        } else {
            let directory = tempfile::Builder::new().prefix("policies").tempdir_in(&self.directory)?.keep();
            for entry in std::fs::read_dir(shipped)? {
                let entry = entry?;
                std::fs::copy(entry.path(), directory.join(entry.file_name()))?;
            }
            for (index, text) in more.iter().enumerate() {
                std::fs::write(directory.join(format!("more-{index}.yaml")), text)?;
            }
            directory
        };
        let mut command = Command::new(beside("countersign")?);
        command.args(["serve", "--standalone", "--policies"]).arg(policies).arg("--site").arg(&file);
        Server::start(&mut command, self.directory())
    }

    /// The null handler.
    pub fn null(&self) -> Result<Server> {
        Server::start(&mut Command::new(beside("null")?), self.directory())
    }

    fn directory(&self) -> &Path {
        self.directory.path()
    }
}
