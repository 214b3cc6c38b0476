//! `countersign verify` beside `cosign verify`, over signatures that are made here.
//!
//! ```text
//! plans() ─► push (own signer; some by cosign itself) ─► cosign 2 ┐
//!                                                       cosign 3 ├─► agree, or a line of DIFFERENCES
//!                                                  countersign ┘
//! ```
//!
//! Every case knows whether it has a good signature, and we have to say just that. cosign has to say the
//! same, save for the differences that are listed with their reasons. Both versions read `.sig` tags; bundles
//! are read by cosign 3 alone (cosign 2.6 has a flag for it), so cosign 2 is not asked where there is no
//! `.sig` tag.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use countersign_e2e::{
    Cosign, Layer, Pushed, Referrer, Registry, RegistryKind, assert_isolated, countersign, push_image,
    push_referrers, push_signature_tag,
};
use countersign_signature::sign::{Scheme, Signer};
use tempfile::TempDir;

use bench::{Bench, KINDS, Key, Kind, Made};
use bundles::{BUNDLES, BUNDLES_CORE};
use differences::{DIFFERENCES, Property, table};
use sig::{SIG, SIG_CORE};
use variation::Variation;

#[path = "agreement/bench.rs"]
mod bench;
#[path = "agreement/bundles.rs"]
mod bundles;
#[path = "agreement/differences.rs"]
mod differences;
#[path = "agreement/sig.rs"]
mod sig;
#[path = "agreement/variation.rs"]
mod variation;

use RegistryKind::{Distribution, WithReferrers};

/// How many processes of cosign, and pushes, go on at a time.
const AT_A_TIME: usize = 4;
/// cosign's words for signatures that it does not accept. Anything else is an accident.
const REFUSALS: [&str; 3] = ["no matching signatures", "no signatures found", "no matching attestations"];
/// The verdicts that refuse an image, and are not for want of an answer.
const VERDICTS: [&str; 3] = ["Rejected", "Unsigned", "Refused"];

/// What is pushed beside an image.
#[derive(Clone, Copy)]
enum Part {
    Sig(&'static Variation<Vec<Layer>>),
    Bundle(&'static Variation<Referrer>),
    /// Signed by this cosign itself.
    By(Cosign),
}

/// An image and what is beside it.
struct Plan {
    registry: RegistryKind,
    /// Index into [`KINDS`].
    key: usize,
    parts: Vec<Part>,
}

/// What was said of an image.
#[derive(Clone, Debug, Default)]
struct Answers {
    /// By cosign 2 (where there is something that it reads) and by cosign 3.
    cosign: [Option<Result<(), String>>; 2],
    ours: String,
}

/// Everything that a plan is carried out with.
struct Site {
    directory: TempDir,
    registries: [Registry; 2],
    keys: Vec<Key>,
    other: Signer,
}

impl Part {
    fn is_sig(self) -> bool {
        matches!(self, Self::Sig(_) | Self::By(Cosign::V2))
    }

    fn name(self) -> String {
        match self {
            Self::Sig(variation) => format!("`.sig`: {}", variation.name),
            Self::Bundle(variation) => format!("bundle: {}", variation.name),
            Self::By(Cosign::V2) => "`.sig` by cosign 2 itself".to_owned(),
            Self::By(Cosign::V3) => "bundle by cosign 3 itself".to_owned(),
        }
    }

    fn good(self, kind: &Kind) -> bool {
        match self {
            Self::Sig(variation) => variation.good,
            Self::Bundle(variation) => variation.good,
            Self::By(Cosign::V2) => true,
            Self::By(Cosign::V3) => kind.by_cosign_3 != Some(Made::Prehashed),
        }
    }

    fn property(self, kind: &Kind) -> Option<Property> {
        match self {
            Self::Sig(variation) => variation.property,
            Self::Bundle(variation) => variation.property,
            Self::By(Cosign::V3) if kind.by_cosign_3 == Some(Made::HashOfTheCurve) => {
                Some(Property::HashOfTheCurve)
            }
            Self::By(_) => None,
        }
    }
}

impl Plan {
    fn kind(&self) -> &'static Kind {
        &KINDS[self.key]
    }

    fn name(&self) -> String {
        let parts: Vec<_> = self.parts.iter().map(|part| part.name()).collect();
        format!("{:?}, {}, {}", self.registry, self.kind().name, parts.join(" + "))
    }

    /// Whether the image is signed.
    fn good(&self) -> bool {
        self.parts.iter().any(|part| part.good(self.kind()))
    }

    fn properties(&self) -> BTreeSet<Property> {
        let both = self.has_sig() && self.parts.iter().any(|part| !part.is_sig());
        let parts = self.parts.iter().filter_map(|part| part.property(self.kind()));
        parts.chain(self.kind().property).chain(both.then_some(Property::Both)).collect()
    }

    fn has_sig(&self) -> bool {
        self.parts.iter().any(|part| part.is_sig())
    }
}

/// Every case that there is.
fn plans() -> Vec<Plan> {
    let mut plans = Vec::new();
    let mut add = |registry, key, parts: &[Part]| plans.push(Plan { registry, key, parts: parts.to_vec() });
    let (good_sig, good_bundle) = (Part::Sig(&SIG_CORE[0]), Part::Bundle(&BUNDLES_CORE[0]));
    for (key, kind) in KINDS.iter().enumerate() {
        for part in SIG_CORE.iter().map(Part::Sig) {
            add(Distribution, key, &[part]);
        }
        for part in BUNDLES_CORE.iter().map(Part::Bundle) {
            add(Distribution, key, &[part]);
            add(WithReferrers, key, &[part]);
        }
        if kind.by_cosign_3.is_some() {
            add(Distribution, key, &[Part::By(Cosign::V2)]);
            add(WithReferrers, key, &[Part::By(Cosign::V3)]);
        }
    }
    // How things are read does not depend on the kind of key.
    for part in SIG.iter().map(Part::Sig) {
        add(Distribution, 0, &[part]);
    }
    for part in BUNDLES.iter().map(Part::Bundle) {
        add(Distribution, 0, &[part]);
        // An API lists what names the image as its subject, and that of this registry tells no types.
        let by_tag = [Some(Property::Subject), Some(Property::ArtifactType)];
        if !by_tag.contains(&part.property(&KINDS[0])) {
            add(WithReferrers, 0, &[part]);
        }
    }
    let sigs = SIG_CORE.iter().chain(SIG).map(|part| (Part::Sig(part), good_sig));
    let bundles = BUNDLES_CORE.iter().chain(BUNDLES).map(|part| (Part::Bundle(part), good_bundle));
    for (bad, good) in sigs.chain(bundles).filter(|(part, _)| !part.good(&KINDS[0])) {
        // Beyond their number nothing is looked at.
        if bad.property(&KINDS[0]) != Some(Property::Count) {
            add(Distribution, 0, &[bad, good]);
            add(Distribution, 0, &[good, bad]);
        }
    }
    for registry in [Distribution, WithReferrers] {
        add(registry, 0, &[good_sig, good_sig]);
        add(registry, 0, &[good_bundle, good_bundle]);
        add(registry, 0, &SIG_CORE[1..].iter().map(Part::Sig).collect::<Vec<_>>());
        add(registry, 0, &BUNDLES_CORE[1..].iter().map(Part::Bundle).collect::<Vec<_>>());
        let named = |name: &str| Part::Bundle(BUNDLES.iter().find(|bundle| bundle.name == name).unwrap());
        for sig in [good_sig, Part::Sig(&SIG_CORE[1])] {
            for bundle in [
                good_bundle,
                Part::Bundle(&BUNDLES_CORE[1]),
                named("an attestation"),
                named("an attestation by another key"),
                named("a bundle that was cut off"),
                named("a layer of another type"),
            ] {
                add(registry, 0, &[sig, bundle]);
            }
        }
    }
    plans
}

impl Site {
    fn start() -> Self {
        let directory = TempDir::new().unwrap();
        let keys = KINDS.iter().map(|kind| Key::new(kind, directory.path())).collect();
        let registries = [Distribution, WithReferrers].map(Registry::in_memory);
        Self { directory, registries, keys, other: Signer::generate(Scheme::EcdsaP256).unwrap() }
    }

    fn registry(&self, kind: RegistryKind) -> &Registry {
        &self.registries[usize::from(kind == WithReferrers)]
    }

    /// Pushes an image with all that is beside it.
    async fn push(&self, number: usize, plan: &Plan) -> Pushed {
        let host = self.registry(plan.registry).host();
        let image = push_image(&host, "team/cases", &number.to_string(), &format!("case {number}")).await;
        let (key, directory) = (&self.keys[plan.key], self.directory.path());
        let bench = Bench { directory, image: &image, key, other: &self.other };
        let (mut layers, mut referrers) = (Vec::new(), Vec::new());
        for part in &plan.parts {
            match part {
                Part::Sig(variation) => layers.extend((variation.make)(&bench)),
                Part::Bundle(variation) => referrers.push((variation.make)(&bench)),
                Part::By(version) => version.sign(directory, &key.pair, &image.by_digest()),
            }
        }
        if plan.parts.iter().any(|part| matches!(part, Part::Sig(_))) {
            push_signature_tag(&image, &layers).await;
        }
        if !referrers.is_empty() {
            push_referrers(&image, &referrers, plan.registry == Distribution).await;
        }
        image
    }

    /// Pushes them all.
    async fn push_all(self: &Arc<Self>, plans: &Arc<Vec<Plan>>) -> Vec<Pushed> {
        let workers: Vec<_> = (0..AT_A_TIME)
            .map(|worker| {
                let (site, plans) = (Arc::clone(self), Arc::clone(plans));
                tokio::spawn(async move {
                    let mut pushed = Vec::new();
                    for number in (worker..plans.len()).step_by(AT_A_TIME) {
                        pushed.push((number, site.push(number, &plans[number]).await));
                    }
                    pushed
                })
            })
            .collect();
        let mut all = Vec::new();
        for worker in workers {
            all.extend(worker.await.unwrap());
        }
        all.sort_by_key(|(number, _)| *number);
        all.into_iter().map(|(_, image)| image).collect()
    }

    /// What cosign says of an image.
    fn ask_cosign(&self, plan: &Plan, image: &Pushed) -> [Option<Result<(), String>>; 2] {
        let key = &self.keys[plan.key].pair.public;
        let ask = |version: Cosign| version.verify(self.directory.path(), key, &image.by_digest());
        [plan.has_sig().then(|| ask(Cosign::V2)), Some(ask(Cosign::V3))]
    }

    /// What we say of all images of one registry that are to be signed by one key.
    fn ask_ourselves(&self, registry: RegistryKind, key: usize, images: &[&Pushed]) -> Vec<String> {
        let file = self.directory.path().join("site.yaml");
        let endpoint = format!("{{ name: e, url: http://127.0.0.1:{} }}", self.registry(registry).port);
        let text = format!(
            "apiVersion: countersign.dev/v1alpha1\nkind: Site\nspec:\n  registry:\n    name: registry.local\n    \
             endpoints: [{endpoint}]\n"
        );
        std::fs::write(&file, text).unwrap();
        let mut command = Command::new(countersign());
        command.args(["verify", "--output", "json", "--timeout", "60", "--site"]).arg(&file);
        command.arg("--key").arg(&self.keys[key].pair.public);
        command.args(images.iter().map(|image| image.named("registry.local")));
        let output = command.output().unwrap();
        let data: serde_json::Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
        let verdicts =
            data.as_array().unwrap().iter().map(|line| line["verdict"].as_str().unwrap().to_owned());
        verdicts.collect()
    }

    /// What everybody says of all images.
    fn ask(&self, plans: &[Plan], images: &[Pushed]) -> Vec<Answers> {
        let answers = Mutex::new(vec![Answers::default(); plans.len()]);
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..AT_A_TIME {
                scope.spawn(|| {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        let Some(plan) = plans.get(number) else { return };
                        let answer = self.ask_cosign(plan, &images[number]);
                        answers.lock().unwrap()[number].cosign = answer;
                    }
                });
            }
        });
        let mut answers = answers.into_inner().unwrap();
        for registry in [Distribution, WithReferrers] {
            for key in 0..KINDS.len() {
                let of_these = |plan: &Plan| plan.registry == registry && plan.key == key;
                let numbers: Vec<_> = (0..plans.len()).filter(|number| of_these(&plans[*number])).collect();
                let asked: Vec<_> = numbers.iter().map(|number| &images[*number]).collect();
                let verdicts = self.ask_ourselves(registry, key, &asked);
                assert_eq!(verdicts.len(), numbers.len());
                for (number, verdict) in numbers.into_iter().zip(verdicts) {
                    answers[number].ours = verdict;
                }
            }
        }
        answers
    }
}

/// A case in one line: how it was made, and what cosign 2, cosign 3 and we say.
fn row(plan: &Plan, answers: &Answers) -> String {
    let cosign = answers.cosign.each_ref().map(|answer| match answer {
        None => "-",
        Some(Ok(())) => "accepts",
        Some(Err(_)) => "refuses",
    });
    format!("{} | {} | {} | {}", plan.name(), cosign[0], cosign[1], answers.ours)
}

/// What is wrong with a case, and which differences it shows.
fn judged(plan: &Plan, answers: &Answers, shown: &mut BTreeSet<(usize, usize)>) -> Vec<String> {
    let mut problems = Vec::new();
    let accepted = answers.ours == "Verified";
    if accepted != plan.good() || !(accepted || VERDICTS.contains(&answers.ours.as_str())) {
        problems.push(format!("we have to say that it is {}", if plan.good() { "good" } else { "bad" }));
    }
    let properties = plan.properties();
    for (index, version) in [Cosign::V2, Cosign::V3].into_iter().enumerate() {
        let Some(answer) = &answers.cosign[index] else { continue };
        if let Err(words) = answer
            && !REFUSALS.iter().any(|refusal| words.contains(refusal))
        {
            problems.push(format!("{version:?} fails: {words}"));
        }
        if answer.is_ok() == accepted {
            continue;
        }
        let listed = DIFFERENCES.iter().position(|difference| {
            properties.contains(&difference.property)
                && difference.versions.contains(&version)
                && difference.cosign_accepts == answer.is_ok()
        });
        match listed {
            Some(listed) => _ = shown.insert((listed, index)),
            None => {
                let words = answer.as_ref().err().map(String::as_str).unwrap_or_default();
                problems.push(format!("{version:?} differs: {words}"));
            }
        }
    }
    problems
}

#[tokio::test(flavor = "multi_thread")]
async fn cosign_agrees_or_the_difference_is_listed() {
    assert_isolated();
    let (site, plans) = (Arc::new(Site::start()), Arc::new(plans()));
    let images = site.push_all(&plans).await;
    let answers = site.ask(&plans, &images);

    let (mut rows, mut problems, mut shown) = (String::new(), String::new(), BTreeSet::new());
    for (plan, answers) in plans.iter().zip(&answers) {
        let row = row(plan, answers);
        _ = writeln!(rows, "{row}");
        for problem in judged(plan, answers, &mut shown) {
            _ = writeln!(problems, "{row}\n    {problem}");
        }
    }
    std::fs::write(Path::new(env!("CARGO_TARGET_TMPDIR")).join("agreement.txt"), rows).unwrap();
    for (listed, difference) in DIFFERENCES.iter().enumerate() {
        for version in difference.versions {
            if !shown.contains(&(listed, usize::from(*version == Cosign::V3))) {
                _ = writeln!(problems, "no case shows it with {version:?}: {}", difference.line());
            }
        }
    }
    assert!(problems.is_empty(), "\n{problems}");
}

#[test]
fn the_page_shows_the_same_table_and_the_number_of_cases() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/cosign.md");
    let page = std::fs::read_to_string(page).unwrap();
    assert!(page.contains(&format!("\n\n{}\n", table())), "docs/cosign.md has to show:\n{}", table());
    let count = format!("**{} cases**", plans().len());
    assert!(page.contains(&count), "docs/cosign.md has to say: {count}");
}
