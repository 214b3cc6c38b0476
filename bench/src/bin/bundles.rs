//! `bundle create` and `mirror push` beside `crane`, in one run.
//!
//! `bundles [--images N]`: a registry of CNCF distribution holds 50 images of 5 layers of 1 MiB;
//! both fetch them into an image layout, and push what they fetched into an empty registry.
//! `mirror push` reads everything back besides. See BENCHMARKS.md.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use countersign_bench::server::{Server, beside, free_port, tool};
use countersign_layout::{Descriptor, Layout};
use countersign_manifest::MANIFEST;
use serde_json::json;
use tempfile::TempDir;
use tokio::time::Instant;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const LAYERS: usize = 5;
/// Bytes of a layer.
const LAYER: usize = 1 << 20;
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const TAR: &str = "application/vnd.oci.image.layer.v1.tar";
/// How often the system counts a second of processor time (`getconf CLK_TCK`).
const TICKS: f64 = 100.0;

#[expect(clippy::print_stdout, reason = "this is a command line")]
fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let images = match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => 50,
        ["--images", images] => images.parse().context("--images")?,
        _ => anyhow::bail!("usage: bundles [--images N]"),
    };
    let directory = TempDir::new()?;
    let path = |name: &str| directory.path().join(name);
    fill(&path("source"), images)?;
    let source = registry(&path("registry"))?;
    let at = |server: &Server| format!("127.0.0.1:{}", server.port);
    let mut push = Command::new(beside("countersign")?);
    push.args(["mirror", "push"]).arg(path("source")).args(["--to", &format!("http://{}", at(&source))]);
    timed(&mut push)?;

    println!("{images} images of {LAYERS} layers of 1 MiB");
    println!("{:<28} {:>8} {:>14}", "", "seconds", "CPU seconds");
    let names: Vec<String> =
        (0..images).map(|number| format!("{}/acme/app-{number}:1", at(&source))).collect();
    let mut crane = Command::new(tool("crane")?);
    crane.args(["pull", "--format", "oci"]).args(&names).arg(path("by-crane"));
    let mut own = Command::new(beside("countersign")?);
    own.args(["bundle", "create", "--to"]).arg(path("by-countersign"));
    own.args(["--registry", &format!("{}=http://{}", at(&source), at(&source))]).args(&names);
    let targets = [registry(&path("target-1"))?, registry(&path("target-2"))?];
    let mut crane_push = Command::new(tool("crane")?);
    crane_push.args(["push", "--index"]).arg(path("by-crane")).arg(format!("{}/all:1", at(&targets[0])));
    let mut own_push = Command::new(beside("countersign")?);
    own_push.args(["mirror", "push"]).arg(path("by-countersign"));
    own_push.args(["--to", &format!("http://{}", at(&targets[1]))]);
    for (name, command) in [
        ("crane pull --format oci", &mut crane),
        ("countersign bundle create", &mut own),
        ("crane push --index", &mut crane_push),
        ("countersign mirror push", &mut own_push),
    ] {
        let (wall, processor) = timed(command)?;
        println!("{name:<28} {wall:>8.2} {processor:>14.2}");
    }
    Ok(())
}

/// Seconds, and seconds of processor time, of a command.
fn timed(command: &mut Command) -> Result<(f64, f64)> {
    let (start, before) = (Instant::now(), children()?);
    let output = command.stdin(Stdio::null()).output()?;
    let program = command.get_program().display().to_string();
    // Images that nobody has signed end with 1.
    let ended = output.status.code().is_some_and(|code| code < 2);
    ensure!(ended, "{program}: {}", String::from_utf8_lossy(&output.stderr));
    Ok((start.elapsed().as_secs_f64(), children()? - before))
}

/// Processor time of all children that have ended (`proc_pid_stat(5)`: `cutime`, `cstime`).
fn children() -> Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let after = stat.rsplit_once(')').map(|(_, after)| after).context("/proc/self/stat")?;
    let fields: Vec<&str> = after.split_whitespace().collect();
    let ticks = |at: usize| -> Result<f64> { Ok(fields.get(at).context("/proc/self/stat")?.parse::<f64>()?) };
    Ok((ticks(13)? + ticks(14)?) / TICKS)
}

/// Images that share no layer.
fn fill(bundle: &Path, images: usize) -> Result<()> {
    let layout = Layout::create(bundle)?;
    for image in 0..images {
        let config = layout.put(format!("{{\"image\":{image}}}").as_bytes())?;
        let length = layout.blob(&config)?.length();
        let mut layers = Vec::new();
        for number in 0..LAYERS {
            let mut content = vec![0_u8; LAYER];
            for (at, byte) in content.iter_mut().enumerate() {
                *byte = u8::try_from((at / 7 + at / 4096 * (image * LAYERS + number + 3)) % 251)?;
            }
            layers.push(Descriptor::new(TAR, layout.put(&content)?, LAYER as u64));
        }
        let config = Descriptor::new(CONFIG, config, length);
        let manifest =
            json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers });
        let manifest = manifest.to_string();
        let entry = Descriptor::new(MANIFEST, layout.put(manifest.as_bytes())?, manifest.len() as u64);
        layout.name(&format!("acme/app-{image}:1"), entry)?;
    }
    Ok(())
}

fn registry(directory: &Path) -> Result<Server> {
    std::fs::create_dir_all(directory)?;
    countersign_bench::server::distribution(directory, free_port()?)
}
