//! Nodes that pull from the site and from nowhere else: real containerd, 1.7 and 2.x.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;
use std::process::{Command, Stdio};

use countersign_e2e::{
    Containerd, ContainerdRelease, Cosign, Outside, Process, Registry, RegistryKind, assert_isolated,
    countersign, free_port, run, succeed,
};
use serde_json::Value;

/// The discard port, where rules end that lead nowhere.
const SINK: u16 = 9;

/// A site with nothing but a bundle and keys: the bootstrap registry, and an empty one.
struct Gap {
    outside: Outside,
    bootstrap: Option<Process>,
    ports: [u16; 2],
    cluster: Registry,
    /// Images as pods name them after rewriting.
    images: Vec<String>,
}

impl Gap {
    async fn new() -> Self {
        let mut outside = Outside::new().await;
        let (seal_key, _) = outside.seal_key();
        let bundle = outside.path("bundle");
        let images: Vec<_> = outside.images.iter().collect();
        let seal = ["--sign-key", seal_key.to_str().unwrap()];
        let (code, _, err) = run(&mut outside.create(&bundle, &images, &seal));
        assert_eq!(code, 0, "{err}");
        let images: Vec<String> =
            images.iter().map(|image| format!("registry.local/{}", outside.written(image))).collect();
        // Only the bundle crosses.
        outside.registries.iter_mut().for_each(Registry::stop);
        let site = ["--key", outside.key.public.to_str().unwrap(), "--bundle-key"];
        let mut verify = Command::new(countersign());
        let verify = verify.args(["bundle", "verify"]).arg(&bundle).args(site).arg(outside.path("seal.pub"));
        let (code, out, err) = run(verify);
        assert_eq!(code, 0, "{out}{err}");

        let cluster = Registry::start(RegistryKind::Distribution);
        let mut gap = Self { bootstrap: None, ports: [free_port(), cluster.port], cluster, images, outside };
        let mut serve = Command::new(countersign());
        serve.args(["registry", "serve"]).arg(&bundle);
        serve.args(["--listen", &format!("127.0.0.1:{}", gap.ports[0]), "--ca-out"]).arg(gap.path("ca.pem"));
        let serve = serve.stdout(Stdio::null()).stderr(Stdio::null());
        gap.bootstrap = Some(Process::listening(serve, gap.ports[0]));
        let [bootstrap, cluster] = gap.ports;
        let (old, multi) = (&gap.images[0], gap.images[1].trim_start_matches("registry.local/"));
        let host = multi.split('/').next().unwrap();
        let site = format!(
            "apiVersion: countersign.dev/v1alpha1\nkind: Site\nmetadata: {{ name: default }}\nspec:\n  registry:\n    name: registry.local\n    endpoints:\n      - {{ name: bootstrap, url: \"https://127.0.0.1:{bootstrap}\", ca: {{ file: ca.pem }} }}\n      - {{ name: cluster, url: \"http://127.0.0.1:{cluster}\" }}\n  trust:\n    keys: {{ vendor: {{ file: vendor.pub }}, seal: {{ file: seal.pub }} }}\n    bundleKeys: [seal]\n  nodes:\n    sandboxImage: {old}\n    images: [\"{multi}\"]\n    hosts: [{host}]\n  obsolete: [docker.example]\n"
        );
        std::fs::write(gap.path("site.yaml"), site).unwrap();
        gap
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.outside.path(name)
    }

    fn mirror(&self, command: &str) -> (i32, String, String) {
        let mut mirror = Command::new(countersign());
        mirror.args(["mirror", command, "--endpoint", "cluster", "--site"]).arg(self.path("site.yaml"));
        run(mirror.arg(self.path("bundle")))
    }

    /// What we say of every image, and cosign at the endpoint that serves now.
    fn agree(&self, endpoint: &str) {
        for (image, pushed) in self.images.iter().zip(&self.outside.images) {
            let mut command = Command::new(countersign());
            command.args(["verify", "--output", "json", image, "--site"]).arg(self.path("site.yaml"));
            let (code, out, err) = run(command.arg("--key").arg(&self.outside.key.public));
            let found: Value = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {err}"));
            assert_eq!((code, &found[0]["digest"]), (0, &pushed.digest.to_string().into()), "{found:#}");
            assert_eq!(found[0]["endpoint"], endpoint, "{found:#}");
            let (name, _) = image.trim_start_matches("registry.local/").rsplit_once(':').unwrap();
            let (_, at) = endpoint.split_once("://").unwrap();
            let name = format!("{at}/{name}@{}", pushed.digest);
            let cosign = if name.contains("/old@") { Cosign::V2 } else { Cosign::V3 };
            let (directory, key) = (self.outside.directory.path(), &self.outside.key);
            let good = if endpoint.starts_with("https") {
                cosign.verifies_by_ca(directory, key, &name, &self.path("ca.pem"))
            } else {
                cosign.verifies(directory, key, &name)
            };
            assert!(good, "{name}");
        }
    }
}

/// `countersign node COMMAND` on a node whose files are below a directory.
fn node(command: &str, gap: &Gap, release: ContainerdRelease, directory: &Path) -> Command {
    let mut node = Command::new(countersign());
    node.args(["node", command, "--site"]).arg(gap.path("site.yaml"));
    node.arg("--config").arg(directory.join("config.toml"));
    node.arg("--drop-in").arg(directory.join("conf.d/90-countersign.toml"));
    node.arg("--containerd").arg(release.program());
    if command == "apply" {
        node.arg("--certs-dir").arg(directory.join("certs.d")).arg("--backup").arg(directory.join("backup"));
    }
    node
}

async fn a_node_pulls_from_the_site_and_from_nowhere_else(release: ContainerdRelease) {
    assert_isolated();
    let mut gap = Gap::new().await;
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let config = directory.join("config.toml");
    let before = release.config(directory);
    std::fs::write(&config, &before).unwrap();
    // A rule of the past, and one that somebody else wrote.
    let rule = "server = \"https://docker.example\"\n[host.\"https://docker.example\"]\n";
    for host in ["docker.example", "other.example"] {
        std::fs::create_dir_all(directory.join("certs.d").join(host)).unwrap();
        std::fs::write(directory.join("certs.d").join(host).join("hosts.toml"), rule).unwrap();
    }

    // What is wrong is said, the change is shown, and nothing is done yet.
    let (code, out, err) = run(&mut node("check", &gap, release, directory));
    assert_eq!(code, 1, "{err}");
    let mistake =
        if release == ContainerdRelease::One { "plain http beyond loopback" } else { "name one directory" };
    for words in [mistake, "FAIL-OPEN", "the sandbox image is the runtime's own default"] {
        assert!(out.contains(words), "{words}: {out}");
    }
    let (code, out, err) = run(node("apply", &gap, release, directory).arg("--dry-run"));
    assert_eq!(code, 0, "{err}");
    for words in [
        "+server = \"http://127.0.0.1:",
        "-server = \"https://docker.example\"",
        "+++ /dev/null",
        "config_path",
    ] {
        assert!(out.contains(words), "{words}: {out}");
    }
    assert!(err.contains("would have to be restarted") && err.contains("other.example: not ours"), "{err}");
    assert_eq!(std::fs::read_to_string(&config).unwrap(), before);

    // It is done, what was there is kept, and a second run changes nothing.
    let (code, _, err) = run(&mut node("apply", &gap, release, directory));
    assert_eq!(code, 0, "{err}");
    assert!(err.contains("containerd has to be restarted"), "{err}");
    let kept = std::fs::read_dir(directory.join("backup")).unwrap().next().unwrap().unwrap().path();
    let kept = kept.join(directory.join("certs.d/docker.example/hosts.toml").strip_prefix("/").unwrap());
    assert_eq!(std::fs::read_to_string(kept).unwrap(), rule);
    assert!(!directory.join("certs.d/docker.example").exists());
    let (code, out, err) = run(&mut node("apply", &gap, release, directory));
    assert_eq!((code, out.as_str()), (0, ""), "{err}");
    assert!(err.contains("nothing to change"), "{err}");
    let (code, out, _) = run(&mut node("check", &gap, release, directory));
    assert_eq!((code, out.lines().count()), (1, 1), "the rule of somebody else: {out}");
    assert!(out.contains("other.example  leads to https://docker.example"), "{out}");
    std::fs::remove_dir_all(directory.join("certs.d/other.example")).unwrap();
    let (code, out, err) = run(&mut node("check", &gap, release, directory));
    assert_eq!(code, 0, "{out}{err}");

    // containerd reads what was meant, and what was the site's own is still there.
    let dump = succeed(Command::new(release.program()).arg("--config").arg(&config).args(["config", "dump"]));
    let dump = String::from_utf8(dump.stdout).unwrap().replace('\'', "\"");
    let certs = format!("config_path = \"{}\"", directory.join("certs.d").display());
    let bin = directory.join("cni/bin").display().to_string();
    for words in [certs.as_str(), bin.as_str(), "snapshotter = \"native\"", &gap.images[0]] {
        assert!(dump.contains(words), "{words}: {dump}");
    }
    assert!(release == ContainerdRelease::Two || dump.contains("SystemdCgroup = true"), "{dump}");

    // The bootstrap registry first; the cluster's is empty.
    let mut containerd = Containerd::start(release, directory, &config);
    let only = |seen: &[(String, u16)], ports: &[u16]| {
        let found: Vec<u16> = seen.iter().map(|(_, port)| *port).collect();
        assert!(seen.iter().all(|(address, _)| address == "127.0.0.1"), "{seen:?}");
        assert_eq!(found, ports, "{seen:?}");
    };
    let forms = |gap: &Gap| -> Vec<String> {
        let images = gap.images.iter().zip(&gap.outside.images);
        images
            .flat_map(|(image, pushed)| {
                let (name, _) = image.rsplit_once(':').unwrap();
                // By tag, by digest, by both, and one by its upstream name where there is a rule for it.
                [image.clone(), format!("{name}@{}", pushed.digest), format!("{image}@{}", pushed.digest)]
            })
            .chain([gap.images[1].replace("registry.local/", "")])
            .collect()
    };
    gap.agree(&format!("https://127.0.0.1:{}", gap.ports[0]));
    containerd.watch();
    for image in forms(&gap) {
        let (code, _, err) = containerd.cri(&["pull", &image]);
        assert_eq!(code, 0, "{image}: {err}");
    }
    only(&containerd.seen(), &[gap.ports[0]]);

    // A host that nothing names leads nowhere.
    containerd.watch();
    for image in ["quay.example/acme/app:1", "nginx", "registry.local:443/acme/app:1"] {
        assert_ne!(containerd.cri(&["pull", image]).0, 0, "{image}");
    }
    only(&containerd.seen(), &[SINK]);
    // Without that rule it would ask for the address of the host: that can be seen here.
    let (default, aside) = (directory.join("certs.d/_default"), directory.join("aside"));
    std::fs::rename(&default, &aside).unwrap();
    containerd.watch();
    assert_ne!(containerd.cri(&["pull", "quay.example/acme/app:1"]).0, 0);
    assert!(containerd.seen().iter().any(|(_, port)| *port == 53));
    std::fs::rename(&aside, &default).unwrap();

    // The cluster's registry is filled, the bootstrap registry dies, the store is emptied.
    assert_eq!(gap.mirror("check").0, 1);
    let (code, out, err) = gap.mirror("push");
    assert_eq!(code, 0, "{out}{err}");
    gap.bootstrap = None;
    containerd.empty();
    containerd.watch();
    for image in forms(&gap) {
        let (code, _, err) = containerd.cri(&["pull", &image]);
        assert_eq!(code, 0, "{image}: {err}");
    }
    let mut ports = gap.ports;
    ports.sort_unstable();
    only(&containerd.seen(), &ports);
    gap.agree(&format!("http://127.0.0.1:{}", gap.ports[1]));

    // Images that have to be there before any registry is come from the bundle, and stay.
    gap.cluster.stop();
    containerd.empty();
    let import = |gap: &Gap| {
        let mut apply = node("apply", gap, release, directory);
        apply.arg("--bundle").arg(gap.path("bundle")).arg("--ctr").arg(release.client());
        run(apply.arg("--address").arg(containerd.socket()))
    };
    let (code, _, err) = import(&gap);
    assert_eq!(code, 0, "{err}");
    assert_eq!(err.matches("is imported and pinned").count(), 2, "{err}");
    let (_, listed, _) = containerd.cri(&["list"]);
    for name in [&gap.images[0], gap.images[1].trim_start_matches("registry.local/")] {
        let line = listed.lines().find(|line| line.contains(&format!(" {name} ")));
        assert!(
            line.is_some_and(|line| line.contains(" pinned ") && line.contains("@sha256:")),
            "{name}: {listed}"
        );
    }
    let (code, _, err) = import(&gap);
    assert!(code == 0 && err.matches("is there").count() == 2, "{err}");
    // What nobody trusted has signed is not, nor what is revoked.
    let site = std::fs::read_to_string(gap.path("site.yaml")).unwrap();
    let revoked = format!("{site}  revoked: [\"{}\"]\n", gap.outside.images[0].digest);
    std::fs::write(gap.path("site.yaml"), revoked).unwrap();
    let (code, _, err) = import(&gap);
    assert!(code == 1 && err.contains("is revoked by the Site"), "{err}");
    std::fs::write(gap.path("site.yaml"), site.replace("vendor.pub", "seal.pub")).unwrap();
    let (code, _, err) = import(&gap);
    assert_eq!(code, 1, "{err}");
    assert_eq!(err.matches("it is not signed by any key given").count(), 2, "{err}");
}

/// What `containerd config default` writes is in order once it was applied to, and the same but for
/// what is ours.
#[test]
fn a_node_as_containerd_makes_it() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("site.yaml"), "apiVersion: countersign.dev/v1alpha1\nkind: Site\nspec:\n  registry:\n    name: registry.local\n    endpoints:\n      - { name: cluster, url: \"http://127.0.0.1:1\" }\n  nodes: { sandboxImage: \"registry.local/pause:3\" }\n").unwrap();
    for (release, version) in [(ContainerdRelease::One, "1.7.28"), (ContainerdRelease::Two, "2.4.2")] {
        let root = directory.path().join(version);
        let config = root.join("etc/containerd/config.toml");
        std::fs::create_dir_all(config.parent().unwrap()).unwrap();
        let default = succeed(Command::new(release.program()).args(["config", "default"])).stdout;
        std::fs::write(&config, &default).unwrap();
        let node = |command: &str| {
            let mut node = Command::new(countersign());
            node.args(["node", command, "--containerd-version", version, "--root"]).arg(&root);
            node.arg("--site").arg(directory.path().join("site.yaml"));
            if command == "apply" {
                node.arg("--backup").arg(directory.path().join("backup"));
            }
            run(&mut node)
        };
        let (code, out, err) = node("check");
        assert_eq!(code, 1, "{err}");
        assert!(!out.contains("BROKEN") && !out.contains("image verifier"), "{out}");
        let (code, _, err) = node("apply");
        assert_eq!(code, 0, "{err}");
        let (code, out, err) = node("check");
        assert_eq!((code, out.as_str()), (0, ""), "{version}: {err}");
        let (before, after) =
            (String::from_utf8(default).unwrap(), std::fs::read_to_string(&config).unwrap());
        let changed = before.lines().zip(after.lines()).filter(|(before, after)| before != after).count();
        assert_eq!(before.lines().count(), after.lines().count(), "{version}");
        assert_eq!(changed, if release == ContainerdRelease::One { 2 } else { 0 }, "{version}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_containerd_1() {
    a_node_pulls_from_the_site_and_from_nowhere_else(ContainerdRelease::One).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_containerd_2() {
    a_node_pulls_from_the_site_and_from_nowhere_else(ContainerdRelease::Two).await;
}
