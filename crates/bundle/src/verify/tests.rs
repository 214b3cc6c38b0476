use countersign_layout::Descriptor;
use countersign_manifest::{INDEX, MANIFEST};
use countersign_signature::Material;
use countersign_signature::sign::{Scheme, Signer};
use countersign_verdict::Attestors;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;

const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const SIGNATURE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";

/// A bundle with one image, `a/app:1`, that a vendor has signed.
struct Fixture {
    _directory: TempDir,
    layout: Layout,
    trust: Trust,
    signer: Signer,
    image: Descriptor,
}

impl Fixture {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::create(directory.path()).unwrap();
        let signer = Signer::generate(Scheme::EcdsaP256).unwrap();
        let trust = Trust::new(&Attestors::any_of_keys(&signer.public_pem())).unwrap();
        let image = put_image(&layout, "app", &json!({}));
        layout.name("a/app:1", image.clone()).unwrap();
        let fixture = Self { _directory: directory, layout, trust, signer, image };
        let signature = fixture.signature_of(&fixture.image.digest);
        fixture.name(&format!("a/app:{}", fixture.image.digest.signature_tag()), &signature);
        fixture
    }

    /// A `.sig` manifest.
    fn signature_of(&self, digest: &Digest) -> Descriptor {
        let Material::CosignSig { payload, annotations } =
            self.signer.cosign_sig(digest, "a/app", &std::collections::BTreeMap::new()).unwrap()
        else {
            panic!("not of cosign 2")
        };
        let layer = Descriptor { annotations, ..put(&self.layout, SIGNATURE, &payload) };
        let config = put(&self.layout, CONFIG, b"{}");
        document(&self.layout, MANIFEST, &json!({ "config": config, "layers": [layer] }))
    }

    fn name(&self, name: &str, entry: &Descriptor) {
        self.layout.name(name, entry.clone()).unwrap();
    }

    fn report(&self) -> (Vec<(String, bool)>, Vec<String>) {
        let report = contents(&self.layout, Some(&self.trust)).unwrap();
        let images = report.images.iter().map(|image| (image.name.clone(), image.signed.is_good()));
        (images.collect(), report.problems.iter().map(ToString::to_string).collect())
    }
}

fn put(layout: &Layout, media_type: &str, content: &[u8]) -> Descriptor {
    Descriptor::new(media_type, layout.put(content).unwrap(), content.len() as u64)
}

fn document(layout: &Layout, media_type: &str, content: &Value) -> Descriptor {
    let mut content = content.clone();
    content["schemaVersion"] = json!(2);
    put(layout, media_type, content.to_string().as_bytes())
}

/// What a runtime unpacks, with more fields.
fn put_image(layout: &Layout, text: &str, more: &Value) -> Descriptor {
    let config = put(layout, CONFIG, br#"{"rootfs":{"diff_ids":["x"]}}"#);
    let layer = put(layout, LAYER, text.as_bytes());
    let mut content = more.clone();
    content["config"] = json!(config);
    content["layers"] = json!([layer]);
    document(layout, MANIFEST, &content)
}

#[test]
fn a_signed_image_and_its_signature_are_one_image() {
    assert_eq!(Fixture::new().report(), (vec![("a/app:1".to_owned(), true)], Vec::new()));
}

#[test]
fn what_would_run_is_judged_whatever_it_is_called() {
    let fixture = Fixture::new();
    let (layout, signed) = (&fixture.layout, &fixture.image);
    let other = Digest::sha256_of(b"not in the bundle");
    let evil = put_image(layout, "evil", &json!({}));
    // Says that it refers to the signed image.
    let claims = put_image(layout, "evil", &json!({ "subject": signed }));
    let of_nothing = Descriptor::new(MANIFEST, other.clone(), 1);
    let empty = put(layout, countersign_manifest::EMPTY, b"{}");
    let orphan = json!({ "config": empty, "layers": [], "subject": of_nothing });
    let orphan = document(layout, MANIFEST, &orphan);
    // A config under another name, and the real one among the layers: containerd takes that one.
    let config = put(layout, CONFIG, br#"{"rootfs":{"diff_ids":["x"]}}"#);
    let other_name = Descriptor { media_type: "application/x".to_owned(), ..config.clone() };
    let layers = json!([config, put(layout, LAYER, b"evil")]);
    let hidden = json!({ "config": other_name, "layers": layers, "subject": signed });
    let hidden = document(layout, MANIFEST, &hidden);
    // The same behind the config of what has none.
    let layers = json!([config, put(layout, LAYER, b"evil")]);
    let empty_config = json!({ "config": empty, "layers": layers, "subject": signed });
    let behind = document(layout, MANIFEST, &empty_config);
    let erofs = put(layout, "application/vnd.erofs.layer.v1", b"evil");
    let erofs = json!({ "config": config, "layers": [erofs], "subject": signed });
    let erofs = document(layout, MANIFEST, &erofs);
    let list = document(layout, INDEX, &json!({ "manifests": [evil] }));
    let tag = signed.digest.referrers_tag();
    for (name, entry) in [
        ("a/app:2".to_owned(), &claims),
        (format!("a/app@{}", claims.digest), &claims),
        (format!("a/app@{}", orphan.digest), &orphan),
        (format!("a/app@{}", hidden.digest), &hidden),
        (format!("b/app:{tag}.sbom"), &hidden),
        (format!("a/app@{}", behind.digest), &behind),
        (format!("a/app@{}", erofs.digest), &erofs),
        (format!("b/app:{}", signed.digest.signature_tag()), &erofs),
        (format!("b/app:{}", signed.digest.signature_tag()), &evil),
        (format!("b/app:{tag}.att"), &evil),
        (format!("b/app:{tag}"), &list),
        (format!("b/app:{tag}.sbom"), &list),
        (format!("a/app:{}", other.signature_tag()), &fixture.signature_of(&other)),
    ] {
        fixture.name(&name, entry);
        let (images, problems) = fixture.report();
        assert!(images.contains(&(name.clone(), false)), "{name}: {images:?}");
        assert_eq!(problems, [""; 0], "{name}");
    }
    // What belongs to an image and does not run needs no signature of its own.
    let sbom = json!({ "config": empty, "layers": [put(layout, "text/spdx", b"sbom")], "subject": signed });
    let sbom = document(layout, MANIFEST, &sbom);
    let list = document(layout, INDEX, &json!({ "manifests": [sbom] }));
    let before = fixture.report().0;
    fixture.name(&format!("a/app@{}", sbom.digest), &sbom);
    fixture.name(&format!("c/app:{tag}"), &list);
    assert_eq!(fixture.report().0, before);
}

#[test]
fn entries_without_a_good_name_are_problems() {
    let fixture = Fixture::new();
    let mut entries = fixture.layout.index().unwrap().manifests.clone();
    let mut second = entries[0].clone();
    second.digest = fixture.signature_of(&Digest::sha256_of(b"x")).digest;
    let nameless = Descriptor::new(MANIFEST, fixture.image.digest.clone(), fixture.image.size);
    entries.extend([nameless, second]);
    fixture.layout.set_index(entries, std::collections::BTreeMap::new()).unwrap();
    fixture.name("a/APP", &fixture.image);
    let problems = fixture.report().1;
    for words in
        ["has no `org.opencontainers.image.ref.name`", "stands twice", "a/APP: is not `repository:tag`"]
    {
        assert!(problems.iter().any(|problem| problem.contains(words)), "{words}: {problems:?}");
    }
    fixture.layout.set_index(Vec::new(), std::collections::BTreeMap::new()).unwrap();
    assert_eq!(fixture.report(), (Vec::new(), vec!["there is nothing in the bundle".to_owned()]));
}

#[test]
fn a_platform_that_is_lost_is_not_one_that_was_left_out() {
    let fixture = Fixture::new();
    let children: Vec<Descriptor> = ["amd64", "arm64"]
        .iter()
        .map(|architecture| {
            let platform = Some(format!("linux/{architecture}").parse().unwrap());
            // Only the first is there.
            let image = match *architecture {
                "amd64" => put_image(&fixture.layout, architecture, &json!({})),
                _ => Descriptor::new(MANIFEST, Digest::sha256_of(b"gone"), 9),
            };
            Descriptor { platform, ..image }
        })
        .collect();
    let index = document(&fixture.layout, INDEX, &json!({ "manifests": children }));
    let found = |chosen: &str| {
        let annotations = [(crate::PLATFORMS.to_owned(), chosen.to_owned())].into();
        fixture.name("a/multi:1", &Descriptor { annotations, ..index.clone() });
        let report = contents(&fixture.layout, None).unwrap();
        let image = report.images.iter().find(|image| image.name == "a/multi:1").unwrap();
        (image.left_out.len(), report.problems.len())
    };
    assert_eq!(found("linux/amd64"), (1, 0));
    assert_eq!(found("linux/arm64"), (0, 1), "it is what was asked for");
    assert_eq!(found(""), (0, 1), "everything was asked for");
}

#[test]
fn t37_a_bundle_with_signatures_without_end_is_not_read_to_its_end() {
    let fixture = Fixture::new();
    // An image whose `.sig` has a layer for every number, none of them a signature, one of them large.
    let image = put_image(&fixture.layout, "many", &json!({}));
    let mut layers: Vec<_> =
        (0..200).map(|number: u32| put(&fixture.layout, SIGNATURE, number.to_string().as_bytes())).collect();
    layers[0] = put(&fixture.layout, SIGNATURE, &vec![b' '; 2 << 20]);
    let config = put(&fixture.layout, CONFIG, b"{}");
    let signature = document(&fixture.layout, MANIFEST, &json!({ "config": config, "layers": layers }));
    fixture.name("a/many:1", &image);
    fixture.name(&format!("a/many:{}", image.digest.signature_tag()), &signature);
    let report = contents(&fixture.layout, Some(&fixture.trust)).unwrap();
    let found = report.images.iter().find(|image| image.name == "a/many:1").unwrap();
    let Signed::Rejected(checks) = &found.signed else { panic!("{:?}", found.signed) };
    assert_eq!(checks.len(), 65, "64 of them and that there are more");
    let words: Vec<&str> = checks.iter().map(|check| check.detail.as_str()).collect();
    assert!(words.contains(&"larger than 1048576 bytes") && words.contains(&"more than 64 signatures"));
}

#[test]
fn t38_indexes_that_name_each_other_over_and_over_are_read_once() {
    let fixture = Fixture::new();
    // Four levels of a thousand times the same child: a million million ways down.
    let mut child = put_image(&fixture.layout, "child", &json!({}));
    for _ in 0..4 {
        child = document(&fixture.layout, INDEX, &json!({ "manifests": vec![child; 1000] }));
    }
    fixture.name("a/deep:1", &child);
    assert_eq!(fixture.report().1, [""; 0]);
    let deeper = document(&fixture.layout, INDEX, &json!({ "manifests": [child] }));
    fixture.name("a/deep:1", &deeper);
    assert_eq!(fixture.report().1, ["a/deep:1: indexes are nested more than 4 deep"]);
}
