//! What sites live through, against `serve` as a process of its own, real registries over TLS and real
//! cosign: outages, failing over, new certificates, new keys, false names, moved tags.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use countersign_e2e::{
    Answer, BlackHole, Cosign, KeyPair, KeyType, Layer, Process, Pushed, Registry, RegistryKind, Webhook,
    assert_isolated, countersign, free_port, push_image, push_signature_tag, run, succeed, tool,
};
use countersign_https::Authority;
use countersign_sample::{Hostile, Lie, SampleRegistry, Shape};
use countersign_signature::sign::{Scheme, Signer};
use tempfile::TempDir;
use tokio::net::TcpSocket;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

/// How long a change may take to act.
const SOON: Duration = Duration::from_secs(10);

/// A registry over TLS with images of one vendor, and the files of the Sites that name it.
struct Scene {
    directory: TempDir,
    authority: Authority,
    /// In the clear, for those who push.
    registry: Registry,
    port: u16,
    over_tls: Option<Process>,
    key: KeyPair,
}

impl Scene {
    fn new() -> Self {
        assert_isolated();
        let (directory, authority) = (TempDir::new().unwrap(), Authority::generate("site").unwrap());
        let registry = Registry::start(RegistryKind::Distribution);
        let port = free_port();
        let over_tls = Some(registry.over_tls(port, &authority));
        let key = Cosign::V2.key_pair(directory.path(), "vendor", KeyType::EcdsaP256);
        let scene = Self { directory, authority, registry, port, over_tls, key };
        scene.write("ca.pem", scene.authority.pem());
        scene
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a file as careful people do: whole or not at all.
    fn write(&self, name: &str, text: &str) -> PathBuf {
        let (beside, path) = (self.path(&format!("{name}.new")), self.path(name));
        std::fs::write(&beside, text).unwrap();
        std::fs::rename(beside, &path).unwrap();
        path
    }

    /// A Site with an endpoint at each of these ports, and more in its spec.
    fn site(&self, name: &str, ports: &[u16], more: &str) -> PathBuf {
        let endpoints: String = ports
            .iter()
            .map(|port| {
                let url = format!("https://127.0.0.1:{port}");
                format!("      - {{ name: e{port}, url: \"{url}\", ca: {{ file: ca.pem }} }}\n")
            })
            .collect();
        let text = format!(
            "apiVersion: countersign.dev/v1alpha1\nkind: Site\nspec:\n  registry:\n    name: registry.local\n    \
             endpoints:\n{endpoints}{more}"
        );
        self.write(name, &text)
    }

    async fn pushed(&self, name: &str) -> Pushed {
        push_image(&self.registry.host(), &format!("quay.io/acme/{name}"), "1", name).await
    }

    async fn signed(&self, cosign: Cosign, name: &str) -> Pushed {
        let image = self.pushed(name).await;
        cosign.sign(self.directory.path(), &self.key, &image.by_digest());
        image
    }

    fn stop(&mut self) {
        self.over_tls = None;
    }

    fn start(&mut self) {
        self.over_tls = None;
        self.over_tls = Some(self.registry.over_tls(self.port, &self.authority));
    }
}

/// Good images at the hostile registry.
const GOOD: usize = 20;

/// The Site's key, by a file.
const TRUST: &str = "  trust: { keys: { vendor: { file: vendor.pub } } }\n";

/// As pods name it.
fn written(image: &Pushed) -> String {
    format!("{}:{}", image.name.split_once('/').unwrap().1, image.tag)
}

/// As it is stored.
fn stored(image: &Pushed) -> String {
    format!("{}@{}", image.named("registry.local"), image.digest)
}

async fn admitted(webhook: &Webhook, image: &Pushed) -> Answer {
    let answer = webhook.pod(&[&written(image)]).await;
    assert!(answer.allowed, "{answer:#?}");
    assert_eq!(answer.images, [stored(image)]);
    answer
}

async fn denied(webhook: &Webhook, image: &str, words: &str) {
    let answer = webhook.pod(&[image]).await;
    assert!(!answer.allowed && answer.message.contains(words), "{words}: {answer:#?}");
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// Pods come and go while no registry answers.
async fn outage(webhook: &Webhook, known: &[Pushed], unknown: &Pushed) {
    for _ in 0..3 {
        for image in known {
            let answer = admitted(webhook, image).await;
            assert!(answer.is_stale(), "{answer:#?}");
        }
        denied(webhook, &written(unknown), "Undecided").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s5_pods_come_back_while_the_registry_is_down_and_after_a_restart() {
    let mut scene = Scene::new();
    let ours = Signer::generate(Scheme::EcdsaP256).unwrap();
    scene.write("ours.pub", &ours.public_pem());
    let trust =
        "  tagFreshness: 1s\n  trust: { keys: { vendor: { file: vendor.pub }, ours: { file: ours.pub } } }\n";
    let site = scene.site("site.yaml", &[scene.port], trust);
    let evidence = scene.path("evidence");
    let serve = || Webhook::start(&site, &["--evidence", evidence.to_str().unwrap()]);
    let mut known = Vec::new();
    for (name, cosign) in [("a", Cosign::V2), ("b", Cosign::V3), ("c", Cosign::V2)] {
        known.push(scene.signed(cosign, name).await);
    }
    let unknown = scene.signed(Cosign::V2, "unknown").await;
    let mut burst = Vec::new();
    for number in 0..60 {
        let image = scene.pushed(&format!("burst-{number}")).await;
        let signature = ours.cosign_sig(&image.digest, "quay.io/acme", &std::collections::BTreeMap::new());
        push_signature_tag(&image, &[Layer::from(signature.unwrap())]).await;
        burst.push(image);
    }

    let webhook = serve();
    for image in &known {
        assert!(!admitted(&webhook, image).await.is_stale());
    }
    scene.stop();
    sleep(Duration::from_millis(1100)).await;
    outage(&webhook, &known, &unknown).await;
    drop(webhook);
    let webhook = serve();
    outage(&webhook, &known, &unknown).await;

    // It is killed in the middle of new proofs.
    scene.start();
    webhook.until("the registry is back", SOON, &written(&burst[0]), |answer| answer.allowed).await;
    let mut pods = JoinSet::new();
    for part in burst.chunks(burst.len() / 6) {
        let (caller, images) = (webhook.caller(), part.iter().map(written).collect::<Vec<_>>());
        pods.spawn(async move {
            for image in images {
                let Some(answer) = caller.pod(&[&image]).await else { return };
                assert!(answer.allowed, "{answer:#?}");
            }
        });
    }
    // Those of known images, of the burst's first, and some more.
    let files = || std::fs::read_dir(&evidence).unwrap().count();
    let (start, enough) = (Instant::now(), known.len() + 12);
    while files() < enough {
        assert!(start.elapsed() < SOON, "{} files", files());
        sleep(Duration::from_millis(1)).await;
    }
    drop(webhook);
    pods.join_all().await;
    scene.stop();
    let mut list = Command::new(countersign());
    list.args(["evidence", "list", "--output", "json", "--dir"]).arg(&evidence);
    let (code, listed, stderr) = run(&mut list);
    assert_eq!(code, 0, "{listed}{stderr}");
    let webhook = serve();
    outage(&webhook, &known, &unknown).await;
    let mut kept = 0;
    for image in &burst {
        let answer = webhook.pod(&[&written(image)]).await;
        if answer.allowed {
            assert_eq!((answer.is_stale(), &answer.images), (true, &vec![stored(image)]));
            kept += 1;
        } else {
            assert!(answer.message.contains("Undecided"), "{answer:#?}");
        }
    }
    println!("{kept} of {} images were known after the process was killed", burst.len());
    assert!(kept > 1, "{kept}");
}

#[tokio::test(flavor = "multi_thread")]
async fn s6_a_dead_first_endpoint_costs_little_and_is_used_again_by_itself() {
    let scene = Scene::new();
    let mut images = Vec::new();
    for number in 0..9 {
        images.push(scene.signed(Cosign::V2, &format!("image-{number}")).await);
    }
    let first = Registry::start(RegistryKind::Distribution);
    let only_first = push_image(&first.host(), "quay.io/acme/first", "1", "only in the first").await;
    Cosign::V2.sign(scene.directory.path(), &scene.key, &only_first.by_digest());

    let hole = BlackHole::open().await.unwrap();
    // Bound and not listening: refuses, and nobody else gets the port.
    let refusing = TcpSocket::new_v4().unwrap();
    refusing.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let ports = [hole.port, refusing.local_addr().unwrap().port()];
    let serve = |name: &str, ports: &[u16]| Webhook::start(&scene.site(name, ports, TRUST), &[]);
    let alone = serve("alone.yaml", &[scene.port]);
    let holed = serve("holed.yaml", &[ports[0], scene.port]);
    let refused = serve("refused.yaml", &[ports[1], scene.port]);
    let mut times = [vec![], vec![], vec![]];
    for (number, image) in images.iter().enumerate() {
        let webhooks = [&alone, &holed, &refused];
        for turn in 0..3 {
            let which = (number + turn) % 3;
            times[which].push(admitted(webhooks[which], image).await.took);
        }
        // Probes of the dead one come in between.
        sleep(Duration::from_millis(250)).await;
    }
    println!("the first image: {:?}", times.each_ref().map(|times| times[0]));
    let [alone, holed_for, refused_for] = times.map(|times| median(times[1..].to_vec()));
    println!("the others, alone {alone:?}, behind a black hole {holed_for:?}, refused {refused_for:?}");
    for dead in [holed_for, refused_for] {
        assert!(dead <= alone * 3 + Duration::from_millis(100), "{dead:?}, alone {alone:?}");
    }

    drop((hole, refusing));
    for (webhook, port) in [(holed, ports[0]), (refused, ports[1])] {
        denied(&webhook, &written(&only_first), "Undecided").await;
        let _up = first.over_tls(port, &scene.authority);
        let within = Duration::from_secs(5);
        let took = webhook
            .until("the first is used again", within, &written(&only_first), |answer| answer.allowed)
            .await;
        println!("used again after {took:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s7_certificates_of_a_new_authority_deny_no_pod() {
    let mut scene = Scene::new();
    let image = scene.signed(Cosign::V2, "app").await;
    let mut cold = Vec::new();
    for number in 0..3 {
        cold.push(scene.signed(Cosign::V2, &format!("cold-{number}")).await);
    }
    let freshness = format!("  tagFreshness: 0s\n{TRUST}");
    let webhook = Webhook::start(&scene.site("site.yaml", &[scene.port], &freshness), &[]);
    admitted(&webhook, &image).await;
    let probe = webhook.probe(&written(&image));
    let (old, new) = (scene.authority.pem().to_owned(), Authority::generate("new").unwrap());
    scene.write("ca.pem", &format!("{old}{}", new.pem()));
    let both = webhook.changed(1, SOON).await;
    admitted(&webhook, &cold[0]).await;

    scene.authority = new;
    scene.start();
    let answers =
        webhook.until("the new certificate", SOON, &written(&image), |answer| !answer.is_stale()).await;
    admitted(&webhook, &cold[1]).await;
    scene.write("ca.pem", scene.authority.pem());
    let alone = webhook.changed(2, SOON).await;
    let fresh = webhook.until("the new CA", SOON, &written(&image), |answer| !answer.is_stale()).await;
    println!(
        "both act after {both:?}, the new one alone after {alone:?}; answers after {answers:?}, {fresh:?}"
    );

    // A wrong one: what is known goes on, and what is not says what is wrong.
    scene.write("ca.pem", &old);
    webhook.changed(3, SOON).await;
    webhook.until("the wrong CA", SOON, &written(&image), Answer::is_stale).await;
    denied(&webhook, &written(&cold[2]), "[tls-failed]").await;
    assert_eq!(webhook.decision(&cold[2].named("registry.local"))["code"], "tls-failed");
    scene.write("ca.pem", scene.authority.pem());
    webhook.changed(4, SOON).await;
    webhook.until("the right CA", SOON, &written(&cold[2]), |answer| answer.allowed).await;
    let (pods, stale) = probe.never_denied().await;
    println!("{pods} pods, none denied, {stale} by what was known before");
    assert!(stale < pods);
}

#[tokio::test(flavor = "multi_thread")]
async fn s8_keys_change_without_a_denial_and_a_removed_one_counts_no_more() {
    let scene = Scene::new();
    let new = Cosign::V2.key_pair(scene.directory.path(), "new", KeyType::EcdsaP256);
    let image = scene.signed(Cosign::V2, "app").await;
    let left = scene.signed(Cosign::V2, "left").await;
    let text = |key: &KeyPair| std::fs::read_to_string(&key.public).unwrap();
    let (old_text, new_text) = (text(&scene.key), text(&new));
    let trust = |more: &str| {
        format!("  tagFreshness: 0s\n  trust: {{ keys: {{ vendor: {{ file: keys.pub{more} }} }} }}\n")
    };
    scene.write("keys.pub", &old_text);
    let webhook = Webhook::start(&scene.site("site.yaml", &[scene.port], &trust("")), &[]);
    let probe = webhook.probe(&written(&image));
    admitted(&webhook, &left).await;

    let only_new = scene.pushed("later").await;
    Cosign::V2.sign(scene.directory.path(), &new, &only_new.by_digest());
    denied(&webhook, &written(&only_new), "[key-mismatch]").await;
    scene.write("keys.pub", &format!("{old_text}{new_text}"));
    let added = webhook.until("the new key", SOON, &written(&only_new), |answer| answer.allowed).await;
    Cosign::V2.sign(scene.directory.path(), &new, &image.by_digest());
    admitted(&webhook, &left).await;

    scene.write("keys.pub", &new_text);
    let removed = webhook.until("the old key goes", SOON, &written(&left), |answer| !answer.allowed).await;
    denied(&webhook, &written(&left), "[key-mismatch]").await;
    admitted(&webhook, &image).await;
    admitted(&webhook, &only_new).await;
    let (pods, _) = probe.never_denied().await;

    scene.site("site.yaml", &[scene.port], &trust(", trustedUntil: \"2026-01-01\""));
    let over = webhook.until("its time is over", SOON, &written(&image), |answer| !answer.allowed).await;
    denied(&webhook, &written(&image), "[key-expired]").await;
    println!(
        "{pods} pods, none denied; added after {added:?}, removed after {removed:?}, over after {over:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn s15_a_signed_image_under_another_name_is_denied_where_names_count() {
    let scene = Scene::new();
    let image = scene.signed(Cosign::V2, "debug-shell").await;
    let host = scene.registry.host();
    // As whoever may push does it: the image and its signature, under a name that others run.
    let other = Pushed::there(&host, "quay.io/acme/db", "1", &image.digest.to_string());
    for tag in ["1".to_owned(), image.digest.signature_tag()] {
        let (from, to) = (format!("{}:{tag}", image.name), format!("{}:{tag}", other.name));
        succeed(Command::new(tool("crane")).args(["copy", "--insecure", &from, &to]));
    }
    let named = format!(
        "  trust:\n    keys: {{ vendor: {{ file: vendor.pub }} }}\n    \
         identity: {{ check: named, remap: {{ \"{host}\": registry.local }} }}\n"
    );
    let checking = Webhook::start(&scene.site("named.yaml", &[scene.port], &named), &[]);
    admitted(&checking, &image).await;
    denied(&checking, &written(&other), "[name-mismatch]").await;
    admitted(&checking, &image).await;
    let lenient = Webhook::start(&scene.site("lenient.yaml", &[scene.port], TRUST), &[]);
    admitted(&lenient, &other).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s16_a_tag_that_moves_after_admission_changes_no_pod() {
    let scene = Scene::new();
    let image = scene.signed(Cosign::V3, "app").await;
    let freshness = format!("  tagFreshness: 2s\n{TRUST}");
    let webhook = Webhook::start(&scene.site("site.yaml", &[scene.port], &freshness), &[]);
    let stored = admitted(&webhook, &image).await.images.remove(0);

    let host = scene.registry.host();
    let moved = push_image(&host, "quay.io/acme/app", "1", "unsigned").await;
    assert_ne!(moved.digest, image.digest);
    let digest = |reference: &str| {
        let output = succeed(Command::new(tool("crane")).args(["digest", "--insecure", reference]));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    // What a node asks for is what was verified, wherever the tag is.
    let (_, by_digest) = stored.rsplit_once('@').unwrap();
    assert_eq!(digest(&format!("{}@{by_digest}", image.name)), image.digest.to_string());
    assert_eq!(digest(&format!("{}:1", image.name)), moved.digest.to_string());

    webhook.until("the tag is not fresh", SOON, &written(&image), |answer| !answer.allowed).await;
    denied(&webhook, &written(&image), "[no-signature]").await;
    let answer = webhook.pod(&[&stored]).await;
    assert_eq!((answer.allowed, answer.images), (true, vec![stored]), "made again as it was");
}

/// Memory as the kernel counts it, in kB: what there is, and the most that there was.
fn memory(webhook: &Webhook) -> [u64; 2] {
    ["VmRSS", "VmHWM"].map(|field| webhook.memory(field))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_registry_leaves_memory_flat() {
    assert_isolated();
    let (directory, authority) = (TempDir::new().unwrap(), Authority::generate("site").unwrap());
    let (hostile, signer) = (Hostile::default(), Signer::generate(Scheme::EcdsaP256).unwrap());
    let liar = hostile.clone();
    let registry = SampleRegistry::start(&authority, move |path| liar.answer(path)).await.unwrap();
    for number in 0..GOOD {
        let shape = if number % 2 == 0 { Shape::Tag } else { Shape::Bundle };
        registry.push_signed(&format!("good/{number}:1"), &number.to_string(), &signer, shape).unwrap();
    }
    let site = directory.path().join("site.yaml");
    std::fs::write(directory.path().join("ca.pem"), authority.pem()).unwrap();
    std::fs::write(directory.path().join("key.pub"), signer.public_pem()).unwrap();
    let text = format!(
        "apiVersion: countersign.dev/v1alpha1\nkind: Site\nspec:\n  registry:\n    name: registry.local\n    \
         endpoints: [{{ name: liar, url: \"https://127.0.0.1:{}\", ca: {{ file: ca.pem }} }}]\n  \
         tagFreshness: 0s\n  trust: {{ keys: {{ key: {{ file: key.pub }} }} }}\n",
        registry.port
    );
    std::fs::write(&site, text).unwrap();
    let webhook = Webhook::start(&site, &[]);
    let pods = async |at_a_time: usize, images: Vec<String>| {
        let (queue, mut tasks) = (Arc::new(Mutex::new(images)), JoinSet::new());
        for _ in 0..at_a_time {
            let (caller, queue) = (webhook.caller(), Arc::clone(&queue));
            tasks.spawn(async move {
                while let Some(image) = { queue.lock().unwrap().pop() } {
                    let answer = caller.pod(&[&image]).await.unwrap();
                    assert_eq!(answer.allowed, image.contains("/good/"), "{image}: {answer:#?}");
                }
            });
        }
        tasks.join_all().await;
    };
    let good =
        |rounds: usize| (0..rounds * GOOD).map(|number| format!("registry.local/good/{}:1", number % GOOD));
    // As many as an endpoint is asked for at a time: connections are no growth.
    pods(16, good(40).collect()).await;
    // Nor is the one place where an endpoint's large answers are read: 4 MiB, from the first of them on.
    let large = format!("registry.local/{}/first:1", Lie::EndlessManifest.repository());
    pods(1, vec![large]).await;
    let before = memory(&webhook);
    let start = Instant::now();
    for lie in Lie::ALL {
        let lies = (0..32).map(|number| format!("registry.local/{}/{number}:1", lie.repository()));
        pods(8, lies.zip(good(2)).flat_map(|(lie, good)| [lie, good]).collect()).await;
        println!("{lie:?}: {:?} kB", memory(&webhook));
    }
    let after = memory(&webhook);
    println!("{before:?} kB before, {after:?} kB after {:?}", start.elapsed());
    for (before, after) in before.into_iter().zip(after) {
        assert!(after <= before + 10_000, "{before} kB, then {after} kB");
    }
}
