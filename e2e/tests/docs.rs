//! The commands of the documentation, run as they stand there.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::process::Stdio;

use countersign_e2e::dns::DnsCluster;
use countersign_e2e::{
    Containerd, ContainerdRelease, Outside, Process, Registry, RegistryKind, assert_isolated, blocks,
    free_port, named, run, shell,
};

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
    let mut servers = Vec::new();
    let blocks = blocks("bundle.md");
    assert!(blocks.len() >= 6, "the page has its commands");
    for block in &blocks {
        match block.kind.as_str() {
            "settings" => named(block, &settings),
            "server" => {
                let mut command = shell(outside.directory.path(), &settings, &format!("exec {}", block.text));
                servers.push(Process::listening(command.stdout(Stdio::null()).stderr(Stdio::null()), port));
                assert!(outside.path("bootstrap-ca.pem").exists());
            }
            "" => {
                let (code, out, err) = run(&mut shell(outside.directory.path(), &settings, &block.text));
                assert_eq!(code, 0, "{}\n{out}{err}", block.text);
            }
            other => panic!("`sh {other}`"),
        }
    }
    assert_eq!(servers.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_on_nodes() {
    assert_isolated();
    let outside = Outside::new().await;
    let bundle = outside.path("bundle.tar");
    let images: Vec<_> = outside.images[..2].iter().collect();
    assert_eq!(run(&mut outside.create(&bundle, &images, &[])).0, 0);
    let names: Vec<String> = images.iter().map(|image| outside.written(image)).collect();
    let host = names[0].split('/').next().unwrap();
    let site = format!(
        "apiVersion: countersign.dev/v1alpha1\nkind: Site\nspec:\n  registry:\n    name: registry.local\n    endpoints:\n      - {{ name: cluster, url: \"http://127.0.0.1:1\" }}\n  nodes: {{ sandboxImage: registry.local/{}, images: [\"{}\"], hosts: [{host}] }}\n",
        names[0], names[1]
    );
    std::fs::write(outside.path("site.yaml"), site).unwrap();
    let directory = outside.path("node");
    std::fs::create_dir(&directory).unwrap();
    let (release, config) = (ContainerdRelease::Two, directory.join("config.toml"));
    // What it has before: no rules, and a directory for them.
    let before =
        release.config(&directory).replace("/etc/containerd/certs.d:/etc/docker/certs.d", "/nowhere");
    let certs = directory.join("certs.d").display().to_string();
    std::fs::write(&config, before.replace("/nowhere", &certs)).unwrap();
    let node = [
        ("--config", config.clone()),
        ("--drop-in", directory.join("conf.d/90-countersign.toml")),
        ("--containerd", release.program()),
    ];
    let node = node.map(|(option, path)| format!("{option} {}", path.display())).join(" ");
    let socket = directory.join("containerd.sock");
    let settings = [
        ("SITE", "site.yaml".to_owned()),
        ("KEY", outside.key.public.display().to_string()),
        ("NODE", node),
        ("CTR", format!("--ctr {} --address {}", release.client().display(), socket.display())),
    ];
    let mut containerd = None;
    let blocks = blocks("nodes.md");
    assert!(blocks.len() >= 8, "the page has its commands");
    for block in &blocks {
        let shell = || {
            // Only that the copies of what was there go to a place of the test.
            let text = block
                .text
                .replace("node apply", &format!("node apply --backup {}", outside.path("kept").display()));
            shell(outside.directory.path(), &settings, &text)
        };
        match block.kind.as_str() {
            "settings" => named(block, &settings),
            "restart" => containerd = Some(Containerd::start(release, &directory, &config)),
            "finds" | "" => {
                let (code, out, err) = run(&mut shell());
                assert_eq!(code, i32::from(block.kind == "finds"), "{}\n{out}{err}", block.text);
            }
            other => panic!("`sh {other}`"),
        }
    }
    let (_, listed, _) = containerd.unwrap().cri(&["list"]);
    assert_eq!(listed.lines().filter(|line| line.contains(" pinned ")).count(), 2, "{listed}");
    assert!(outside.path("certs.d/_default/hosts.toml").exists() && outside.path("mirrors.toml").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_on_dns() {
    assert_isolated();
    let cluster = DnsCluster::start().await;
    let path = |name: &str| cluster.directory.path().join(name);
    let site = "apiVersion: countersign.dev/v1alpha1\nkind: Site\nspec:\n  registry:\n    name: registry.local\n    endpoints:\n      - { name: bootstrap, url: \"http://127.0.0.1:1\", addresses: [192.0.2.9] }\n";
    std::fs::write(path("site.yaml"), site).unwrap();
    let settings = [
        ("SITE", "site.yaml".to_owned()),
        ("KUBE", format!("--kubeconfig {}", cluster.kubeconfig().display())),
    ];
    let blocks = blocks("dns.md");
    assert!(blocks.len() >= 4, "the page has its commands");
    for block in &blocks {
        match block.kind.as_str() {
            "settings" => named(block, &settings),
            "" => {
                let mut command = shell(cluster.directory.path(), &settings, &block.text);
                let ran = tokio::task::spawn_blocking(move || run(&mut command));
                let (code, out, err) = ran.await.unwrap();
                assert_eq!(code, 0, "{}\n{out}{err}", block.text);
            }
            other => panic!("`sh {other}`"),
        }
    }
    assert_eq!(cluster.text().await, cluster.corefile);
}
