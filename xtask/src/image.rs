//! The program's own image, as an OCI image layout: one static binary, no container engine.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use countersign_layout::{Descriptor, Layout, canary};
use serde_json::{Value, json};

use crate::{cargo, root, run};

/// Where the layout is, if nothing else is said.
pub(crate) const DIRECTORY: &str = "target/image/layout";
/// glibc's target: the one whose standard library is there. A target has to be named, or build
/// scripts and procedural macros would be linked statically, too, which they cannot be.
const TARGET: &str = "x86_64-unknown-linux-gnu";
/// Nobody, as in the images of others.
const USER: &str = "65532:65532";

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// The version of the program, which is the image's tag.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Builds the binary and puts it into a layout; where one is there, its image is replaced.
#[expect(clippy::print_stdout, reason = "the digest is the answer")]
pub(crate) fn build(to: &Path) -> Result<()> {
    let binary = binary(&root().join("target/image"))?;
    let digest = layout(&binary, to)?;
    println!("countersign/countersign:{VERSION}@{digest}  {}", to.display());
    Ok(())
}

/// Builds it again from nothing, elsewhere: the digest has to be the same.
pub(crate) fn check(to: &Path) -> Result<()> {
    let again = root().join("target/image-again");
    let digest = |directory: &Path, to: &Path| layout(&binary(directory)?, to);
    let first = digest(&root().join("target/image"), to)?;
    let second = digest(&again, &again.join("layout"))?;
    std::fs::remove_dir_all(&again)?;
    if first == second { Ok(()) } else { bail!("two builds, two digests: {first} and {second}") }
}

/// A static binary without a trace of where it was built.
fn binary(target: &Path) -> Result<PathBuf> {
    let home =
        std::env::var("CARGO_HOME").or_else(|_| std::env::var("HOME").map(|home| format!("{home}/.cargo")));
    let home = home.context("neither CARGO_HOME nor HOME is set")?;
    let (root, target_text) = (root().display().to_string(), target.display().to_string());
    // The last that fits counts.
    let prefixes = [(&home, "/cargo"), (&root, "/countersign"), (&target_text, "/target")];
    let rust: Vec<String> =
        prefixes.iter().map(|(from, to)| format!("--remap-path-prefix={from}={to}")).collect();
    let c: Vec<String> = prefixes.iter().map(|(from, to)| format!("-ffile-prefix-map={from}={to}")).collect();
    let mut command = cargo();
    command.args(["build", "--locked", "--profile", "image", "--package", "countersign", "--target", TARGET]);
    command.arg("--target-dir").arg(target);
    command.env("RUSTFLAGS", format!("-C target-feature=+crt-static {}", rust.join(" ")));
    command.env("CFLAGS", c.join(" ")).env("SOURCE_DATE_EPOCH", "0");
    run(&mut command)?;
    Ok(target.join(TARGET).join("image/countersign"))
}

fn layout(binary: &Path, to: &Path) -> Result<String> {
    let content = std::fs::read(binary).with_context(|| binary.display().to_string())?;
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(content.len() as u64);
    header.set_mode(0o755);
    header.set_mtime(0);
    tar.append_data(&mut header, "countersign", content.as_slice())?;
    let layer = tar.into_inner()?;

    let layout = Layout::create(to)?;
    let put = |media_type: &str, content: &[u8]| -> Result<Descriptor> {
        Ok(Descriptor::new(media_type, layout.put(content)?, content.len() as u64))
    };
    let layer = put(LAYER, &layer)?;
    let image = |labels: Value| -> Result<Descriptor> {
        let config = json!({
            "architecture": "amd64", "os": "linux",
            "config": { "User": USER, "Entrypoint": ["/countersign"], "WorkingDir": "/", "Labels": labels },
            "rootfs": { "type": "layers", "diff_ids": [layer.digest] },
            "history": [{ "created_by": "cargo xtask image" }],
        });
        let config = put(CONFIG, config.to_string().as_bytes())?;
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer], "annotations": labels,
        });
        put(MANIFEST, manifest.to_string().as_bytes())
    };
    let labels = json!({ "org.opencontainers.image.version": VERSION, "org.opencontainers.image.licenses": "Apache-2.0" });
    let own = image(labels)?;
    let digest = own.digest.to_string();
    layout.name(&format!("countersign/countersign:{VERSION}"), own)?;
    // The same program, and other digests: which of them a node pulls says whom it asks first.
    for tag in [canary::BOOTSTRAP, canary::CLUSTER] {
        let image = image(json!({ "dev.countersign.canary": tag }))?;
        layout.name(&format!("{}:{tag}", canary::REPOSITORY), image)?;
    }
    Ok(digest)
}
