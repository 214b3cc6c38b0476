//! Images that a node has to hold before there is any registry.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use countersign_bundle::{Signed, Single, single};
use countersign_layout::{Layout, LayoutError};
use countersign_reference::{Digest, Reference};
use countersign_signature::Trust;
use countersign_site::Site;

/// The namespace of the images that the kubelet knows.
const NAMESPACE: &str = "k8s.io";
/// The label that keeps an image from being cleaned away (containerd `internal/cri/labels`).
const PINNED: &str = "io.cri-containerd.pinned=pinned";

/// How long containerd may take for one command: an image of several GiB is unpacked onto a slow
/// disk in this time, and an install does not wait for ever.
const PATIENCE: &str = "30m";

/// containerd's own client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ctr {
    /// The program: `ctr`.
    pub program: PathBuf,
    /// containerd's socket, where it is not the usual one.
    pub address: Option<PathBuf>,
}

/// Why an image is not on a node.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// It has no name in the site's registry.
    #[error("it has no name in the site's registry: {0}")]
    Name(#[from] countersign_reference::RewriteError),
    /// The bundle does not have it.
    #[error("the bundle has no `{0}`")]
    NotInBundle(String),
    /// The bundle has another one under this name.
    #[error("the bundle has {found} under this name")]
    Other {
        /// What it has.
        found: Digest,
    },
    /// The Site has revoked it.
    #[error("{0} is revoked by the Site")]
    Revoked(Digest),
    /// It is damaged or incomplete.
    #[error("{0}")]
    Damaged(String),
    /// No trusted key has signed it.
    #[error("it is not signed by any key given: {0}")]
    NotSigned(String),
    /// The bundle cannot be read.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The runtime's client cannot be started.
    #[error("cannot run {program}: {error}")]
    NoClient {
        /// Which program.
        program: String,
        /// Why not.
        error: io::Error,
    },
    /// The runtime does not take it.
    #[error("{command}: {why}")]
    Refused {
        /// What was asked of it.
        command: String,
        /// What it said.
        why: String,
    },
}

/// What was done for an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Imported {
    /// It is there now.
    Now,
    /// It was there, and is pinned.
    Before,
}

/// Puts an image of a bundle where pods find it, by its tag and by its digest, and pins it. Its
/// signature is judged first.
pub fn import(
    layout: &Layout,
    site: &Site,
    image: &Reference,
    trust: &Trust,
    ctr: &Ctr,
) -> Result<Imported, ImageError> {
    let stored = site.rewrite.rewriter.rewrite(image)?;
    let found = match stored.effective_tag() {
        Some(tag) => single(layout, &format!("{}:{tag}", stored.path()), Some(trust))?,
        None => None,
    };
    let by_digest = || match stored.digest() {
        Some(digest) => single(layout, &format!("{}@{digest}", stored.path()), Some(trust)),
        None => Ok(None),
    };
    let found = match found.filter(|found| stored.digest().is_none_or(|digest| *digest == found.entry.digest))
    {
        Some(found) => found,
        None => {
            by_digest()?.ok_or_else(|| ImageError::NotInBundle(stored.clone().with_host().to_string()))?
        }
    };
    if site.revoked.contains(&found.entry.digest) {
        return Err(ImageError::Revoked(found.entry.digest));
    }
    if !found.flaws.is_empty() {
        return Err(ImageError::Damaged(found.flaws.join("; ")));
    }
    match &found.signed {
        Signed::By(_) => {}
        Signed::Rejected(checks) => {
            let why = checks.first().map(|check| check.detail.clone()).unwrap_or_default();
            return Err(ImageError::NotSigned(why));
        }
        Signed::Not | Signed::Unjudged(_) => {
            return Err(ImageError::NotSigned("it has no signature in any format".to_owned()));
        }
    }
    let digest = &found.entry.digest;
    let tagged = image.clone().without_digest();
    let named = image.clone().without_tag().with_digest(digest.clone());
    let names: Vec<String> =
        image.tag().map(|_| tagged.to_string()).into_iter().chain([named.to_string()]).collect();
    let known: Vec<bool> = names.iter().map(|name| ctr.has(name, digest)).collect::<Result<_, _>>()?;
    if known.iter().all(|known| *known) {
        return Ok(Imported::Before);
    }
    ctr.import(layout, &found, &names)?;
    for name in &names {
        ctr.run(&["images", "label", name, PINNED])?;
    }
    Ok(Imported::Now)
}

impl Ctr {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        if let Some(address) = &self.address {
            command.arg("--address").arg(address);
        }
        command.args(["--timeout", PATIENCE, "--namespace", NAMESPACE]).args(arguments);
        command
    }

    fn run(&self, arguments: &[&str]) -> Result<String, ImageError> {
        let output = self.command(arguments).stdin(Stdio::null()).output();
        self.answer(arguments, &output.map_err(|error| self.no_client(error))?)
    }

    fn no_client(&self, error: io::Error) -> ImageError {
        ImageError::NoClient { program: self.program.display().to_string(), error }
    }

    fn answer(&self, arguments: &[&str], output: &Output) -> Result<String, ImageError> {
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let command = format!("{} {}", self.program.display(), arguments.join(" "));
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        let why = if said.is_empty() { output.status.to_string() } else { said };
        Err(ImageError::Refused { command, why })
    }

    /// Whether an image is there, is this one, and is pinned.
    fn has(&self, name: &str, digest: &Digest) -> Result<bool, ImageError> {
        let listed = self.run(&["images", "list", &format!("name=={name}")])?;
        let digest = digest.to_string();
        let line = listed.lines().find(|line| line.split_whitespace().next() == Some(name));
        Ok(line.is_some_and(|line| {
            let mut words = line.split_whitespace();
            let labels = words.clone().next_back().unwrap_or_default();
            words.any(|word| word == digest) && labels.split(',').any(|label| label == PINNED)
        }))
    }

    /// Hands an image over in the form that containerd imports.
    fn import(&self, layout: &Layout, image: &Single, names: &[String]) -> Result<(), ImageError> {
        let arguments = ["images", "import", "-"];
        let mut child = self
            .command(&arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| self.no_client(error))?;
        let written = child.stdin.take().map(|stdin| {
            let mut stdin = io::BufWriter::new(stdin);
            let written = layout.export(&image.named(names), &image.content, &mut stdin);
            stdin.flush().map(|()| written)
        });
        let output = child.wait_with_output().map_err(|error| self.no_client(error))?;
        // What it says of itself comes before what was seen of it here.
        self.answer(&arguments, &output)?;
        match written {
            Some(Ok(Err(error))) => Err(error.into()),
            _ => Ok(()),
        }
    }
}
