//! Images and their signatures across the gap: real registries, real cosign, and the bundle between.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use countersign_e2e::{
    Cosign, Outside, Process, Pushed, Registry, RegistryKind, assert_isolated, chance, countersign,
    free_port, push_image, run, succeed, tool,
};
use countersign_reference::Digest;
use countersign_signature::sign::{Scheme, Signer};
use serde_json::Value;

fn verify(bundle: &Path, arguments: &[&Path]) -> (i32, Value) {
    let mut command = Command::new(countersign());
    command.args(["bundle", "verify", "--output", "json"]).arg(bundle);
    for (option, file) in ["--key", "--bundle-key"].iter().zip(arguments) {
        command.arg(option).arg(file);
    }
    let (code, out, err) = run(&mut command);
    (code, serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}{err}")))
}

/// Every file of a directory, with its bytes.
fn files(root: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let (mut todo, mut found) = (vec![root.to_owned()], Vec::new());
    while let Some(directory) = todo.pop() {
        for entry in std::fs::read_dir(&directory).unwrap().flatten() {
            if entry.path().is_dir() {
                todo.push(entry.path());
            } else {
                let path = entry.path();
                found.push((path.strip_prefix(root).unwrap().to_owned(), std::fs::read(path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn what_crosses_is_whole_signed_and_served() {
    assert_isolated();
    let outside = Outside::new().await;
    let (seal_key, seal_pub) = outside.seal_key();
    let bundle = outside.path("bundle.tar");
    let images: Vec<&Pushed> = outside.images.iter().collect();
    let more = ["--sign-key", seal_key.to_str().unwrap()];
    let (code, _, err) = run(&mut outside.create(&bundle, &images, &more));
    assert_eq!(code, 0, "{err}");
    assert!(!outside.path("bundle.tar.partial").exists());

    // From here on there is nothing but the bundle and the keys.
    let Outside { directory, registries, key, images } = outside;
    drop(registries);
    let (code, report) = verify(&bundle, &[&key.public, &seal_pub]);
    assert_eq!((code, &report["seal"]["holds"]), (0, &Value::Bool(true)), "{report:#}");
    assert_eq!(report["images"].as_array().unwrap().len(), 4, "{report:#}");
    let multi =
        report["images"].as_array().unwrap().iter().find(|i| i["name"].as_str().unwrap().contains("multi"));
    assert_eq!(multi.unwrap()["platforms"], serde_json::json!(["linux/amd64", "linux/arm64"]));

    let (port, ca) = (free_port(), directory.path().join("ca.pem"));
    let mut serve = Command::new(countersign());
    serve.args(["registry", "serve"]).arg(&bundle).arg("--listen").arg(format!("127.0.0.1:{port}"));
    serve.args(["--name", "pit.nmn", "--name", "registry.local", "--ca-out"]).arg(&ca);
    let _serve = Process::listening(serve.stdout(Stdio::null()).stderr(Stdio::null()), port);
    let site = directory.path().join("site.yaml");
    let text = format!(
        "apiVersion: countersign.dev/v1alpha1\nkind: Site\nspec:\n  registry:\n    name: registry.local\n    endpoints:\n      - {{ name: bootstrap, url: \"https://pit.nmn:{port}\", addresses: [127.0.0.1], ca: {{ file: ca.pem }} }}\n"
    );
    std::fs::write(&site, text).unwrap();
    for image in &images {
        let (host, path) = image.name.split_once('/').unwrap();
        let written = format!("r{}.example/{path}:{}", host.split_once(':').unwrap().1, image.tag);
        let mut command = Command::new(countersign());
        command.args(["verify", "--output", "json", &written, "--site"]).arg(&site);
        let (code, out, err) = run(command.arg("--key").arg(&key.public));
        let found: Value = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {err}"));
        assert_eq!((code, &found[0]["digest"]), (0, &image.digest.to_string().into()), "{found:#}");
        assert_eq!(found[0]["endpoint"], format!("https://pit.nmn:{port}"));
        // What cosign makes of it: the same image, at the bootstrap registry.
        let name =
            format!("127.0.0.1:{port}/r{}.example/{path}@{}", host.split_once(':').unwrap().1, image.digest);
        let cosign = if path.ends_with("old") { Cosign::V2 } else { Cosign::V3 };
        assert!(cosign.verifies_by_ca(directory.path(), &key, &name, &ca), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_damaged_missing_or_not_signed_is_named() {
    assert_isolated();
    let outside = Outside::new().await;
    let host = outside.registries[1].host();
    let unsigned = push_image(&host, "acme/unsigned", "1", "unsigned").await;
    let bundle = outside.path("bundle");

    let (code, _, err) = run(&mut outside.create(&bundle, &[&unsigned], &[]));
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("acme/unsigned:1 has no signature"), "{err}");
    let (code, _, err) = run(outside.create(&bundle, &[], &[]).arg("other.example/x:1"));
    assert_eq!(code, 2, "{err}");
    assert!(err.contains("no registry is named for `other.example`"), "{err}");
    let gone = format!("r{}.example/acme/none:1", outside.registries[0].port);
    let (code, _, err) = run(outside.create(&bundle, &[], &[]).arg(gone));
    assert_eq!(code, 1, "{err}");

    // A name means one thing.
    let [old, multi] = [&outside.images[0], &outside.images[1]];
    let other = format!("{}@{}", outside.written(old), multi.digest);
    let moved = push_image(&outside.registries[0].host(), "acme/old", "2", "another").await;
    let other = other.replace(&multi.digest.to_string(), &moved.digest.to_string());
    let (code, _, err) = run(outside.create(&outside.path("two"), &[old], &[]).arg(&other));
    assert_eq!(code, 2, "{err}");
    assert!(err.contains("give one of them without the tag"), "{err}");
    let by_digest = format!("{}@{}", outside.written(old).trim_end_matches(":1"), moved.digest);
    let (code, _, err) = run(outside.create(&outside.path("two"), &[old], &[]).arg(&by_digest));
    assert!(code == 1 && err.contains(&moved.digest.to_string()), "unsigned, and there: {code} {err}");
    let (code, _, err) =
        run(&mut outside.create(&outside.path("none"), &[multi], &["--platform", "linux/s390x"]));
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("none of the platforms asked for, but for linux/amd64, linux/arm64"), "{err}");
    // Platforms of two runs are there both.
    let both = outside.path("both");
    for platform in ["linux/amd64", "linux/arm64"] {
        assert_eq!(run(&mut outside.create(&both, &[multi], &["--platform", platform])).0, 0);
    }
    let (code, report) = verify(&both, &[&outside.key.public]);
    assert_eq!((code, &report["images"][0]["leftOut"]), (0, &serde_json::json!([])), "{report:#}");
    std::fs::remove_dir_all(both).unwrap();

    let images: Vec<&Pushed> = outside.images.iter().collect();
    let (seal_key, seal_pub) = outside.seal_key();
    let amd64 = ["--platform", "linux/amd64", "--sign-key", seal_key.to_str().unwrap()];
    let chosen = outside.path("chosen");
    assert_eq!(run(&mut outside.create(&chosen, &images, &amd64)).0, 0);
    let keys = [outside.key.public.as_path(), seal_pub.as_path()];
    let (code, report) = verify(&chosen, &keys);
    assert_eq!(code, 0, "{report:#}");
    let multi =
        report["images"].as_array().unwrap().iter().find(|i| i["name"].as_str().unwrap().contains("multi"));
    assert_eq!(multi.unwrap()["leftOut"], serde_json::json!(["linux/arm64"]));

    // A flipped byte anywhere, an absent file.
    for (path, content) in files(&chosen) {
        let file = chosen.join(&path);
        let mut flipped = content.clone();
        let at = flipped.len() / 2;
        flipped[at] ^= 1;
        let without = |file: &Path| std::fs::remove_file(file).unwrap();
        let with = |file: &Path| std::fs::write(file, &flipped).unwrap();
        for damage in [&with as &dyn Fn(&Path), &without] {
            damage(&file);
            let mut command = Command::new(countersign());
            command.args(["bundle", "verify"]).arg(&chosen).arg("--key").arg(keys[0]);
            let (code, out, err) = run(command.arg("--bundle-key").arg(keys[1]));
            // What is no layout any more is an error of its own.
            assert!(code == 1 || (code == 2 && !path.starts_with("blobs")), "{path:?}: {code}: {out}{err}");
        }
        std::fs::write(&file, content).unwrap();
    }
    assert_eq!(verify(&chosen, &keys).0, 0);
    let stranger = Signer::generate(Scheme::EcdsaP256).unwrap();
    let other = outside.path("other.pub");
    std::fs::write(&other, stranger.public_pem()).unwrap();
    assert_eq!(verify(&chosen, &[keys[0], &other]).0, 1, "sealed by somebody else");
    assert_eq!(verify(&chosen, &[&other, keys[1]]).0, 1, "signed by somebody else");

    // Of a Site's keys, those for bundles sign no image.
    let site = outside.path("site.yaml");
    let verify_by_site = |bundle_key: &str| {
        let text = format!(
            "apiVersion: countersign.dev/v1alpha1\nkind: Site\nspec:\n  registry: {{ name: registry.local, endpoints: [{{ name: a, url: \"http://127.0.0.1:1\" }}] }}\n  trust:\n    keys: {{ vendor: {{ file: {} }}, seal: {{ file: seal.pub }} }}\n    bundleKeys: [{bundle_key}]\n",
            keys[0].display()
        );
        std::fs::write(&site, text).unwrap();
        let mut command = Command::new(countersign());
        run(command.args(["bundle", "verify"]).arg(&chosen).arg("--site").arg(&site))
    };
    let (code, out, err) = verify_by_site("seal");
    assert_eq!(code, 0, "{out}{err}");
    let (code, out, err) = verify_by_site("vendor");
    assert!(code == 1 && out.contains("REJECTED"), "{out}{err}");

    // A certificate that nobody can check is not made.
    let mut serve = Command::new(countersign());
    let (code, _, err) = run(serve.args(["registry", "serve", "--listen", "127.0.0.1:0"]).arg(&chosen));
    assert!(code == 2 && err.contains("--ca-out"), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_run_is_gone_on_with() {
    assert_isolated();
    let outside = Outside::new().await;
    let images: Vec<&Pushed> = outside.images.iter().collect();
    let whole = outside.path("whole");
    assert_eq!(run(&mut outside.create(&whole, &images, &[])).0, 0);
    let expected = files(&whole);
    let broken = outside.path("broken");
    for number in 0..10 {
        let mut process = outside.create(&broken, &images, &[]).stderr(Stdio::null()).spawn().unwrap();
        // Within the time that a run takes, and a little later each time.
        let delay = Duration::from_millis(3 + chance(20) + number * 10);
        std::thread::sleep(delay);
        process.kill().unwrap();
        process.wait().unwrap();
    }
    let (code, _, err) = run(&mut outside.create(&broken, &images, &[]));
    assert_eq!(code, 0, "{err}");
    let found = files(&broken);
    let names = |files: &[(PathBuf, Vec<u8>)]| files.iter().map(|(path, _)| path.clone()).collect::<Vec<_>>();
    assert_eq!(names(&found), names(&expected));
    assert!(found == expected, "the same bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn crane_reads_what_was_made() {
    assert_isolated();
    let outside = Outside::new().await;
    let images: Vec<&Pushed> = outside.images.iter().collect();
    let bundle = outside.path("bundle");
    assert_eq!(run(&mut outside.create(&bundle, &images, &[])).0, 0);
    // All of the layout, pushed as one index; every image in it is whole.
    let registry = Registry::start(RegistryKind::Distribution);
    let all = format!("{}/all", registry.host());
    let crane = |arguments: &[&str]| succeed(Command::new(tool("crane")).args(arguments));
    crane(&["push", "--index", bundle.to_str().unwrap(), &format!("{all}:1")]);
    let index = Digest::sha256_of(&std::fs::read(bundle.join("index.json")).unwrap());
    let found = String::from_utf8(crane(&["digest", &format!("{all}:1")]).stdout).unwrap();
    assert_eq!(found.trim(), index.to_string());
    for image in images {
        crane(&["validate", "--fast", "--remote", &format!("{all}@{}", image.digest)]);
    }
}
