//! The commands of the documentation, run as they stand there.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;
use std::process::{Command, Stdio};

use countersign_e2e::{
    Outside, Process, Registry, RegistryKind, assert_isolated, countersign, free_port, run,
};

/// A block of commands, and the word after `sh` that says what is special about it.
struct Block {
    kind: String,
    text: String,
}

fn blocks(page: &str) -> Vec<Block> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(page);
    let page = std::fs::read_to_string(path).unwrap();
    let mut blocks = Vec::new();
    let mut parts = page.split("\n```");
    parts.next();
    while let Some(block) = parts.next() {
        let (head, text) = block.split_once('\n').unwrap();
        if let Some(kind) = head.strip_prefix("sh") {
            blocks.push(Block { kind: kind.trim().to_owned(), text: text.to_owned() });
        }
        // What stands between this block and the next.
        parts.next();
    }
    blocks
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_on_bundles() {
    assert_isolated();
    let outside = Outside::new().await;
    let (seal_key, seal_pub) = outside.seal_key();
    let mirror = Registry::start(RegistryKind::Distribution);
    let port = free_port();
    // One of the two registries is the page's.
    let registry = &outside.registries[0];
    let images: Vec<String> =
        outside.images[..2].iter().map(|image| format!("{}  # comment", outside.written(image))).collect();
    std::fs::write(outside.path("images.txt"), images.join("\n")).unwrap();
    let site = format!(
        "apiVersion: countersign.dev/v1alpha1\nkind: Site\nmetadata: {{ name: default }}\nspec:\n  registry:\n    \
         name: registry.local\n    endpoints:\n      - {{ name: cluster, url: \"http://{}\" }}\n",
        mirror.host()
    );
    std::fs::write(outside.path("site.yaml"), site).unwrap();
    let settings = [
        ("VENDOR_KEY", outside.key.public.display().to_string()),
        ("SEAL_KEY", seal_key.display().to_string()),
        ("SEAL_PUB", seal_pub.display().to_string()),
        ("REGISTRY", format!("r{}.example=http://{}", registry.port, registry.host())),
        ("SITE", "site.yaml".to_owned()),
        ("LISTEN", format!("127.0.0.1:{port}")),
    ];
    let program = countersign();
    let path = format!("{}:{}", program.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let shell = |text: &str| {
        let mut command = Command::new("sh");
        command.args(["-euc", text]).current_dir(outside.directory.path()).env("PATH", &path);
        command.envs(settings.iter().map(|(name, value)| (*name, value)));
        command
    };
    let mut servers = Vec::new();
    let blocks = blocks("bundle.md");
    assert!(blocks.len() >= 6, "the page has its commands");
    for block in &blocks {
        match block.kind.as_str() {
            "settings" => {
                for (name, _) in &settings {
                    assert!(block.text.contains(&format!("{name}=")), "the page names {name}");
                }
            }
            "server" => {
                let mut command = shell(&format!("exec {}", block.text));
                servers.push(Process::listening(command.stdout(Stdio::null()).stderr(Stdio::null()), port));
                assert!(outside.path("bootstrap-ca.pem").exists());
            }
            "" => {
                let (code, out, err) = run(&mut shell(&block.text));
                assert_eq!(code, 0, "{}\n{out}{err}", block.text);
            }
            other => panic!("`sh {other}`"),
        }
    }
    assert_eq!(servers.len(), 1);
}
