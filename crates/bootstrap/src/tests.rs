use super::*;
use countersign_manifest::MANIFEST;
use std::io::Read as _;

struct Fixture {
    registry: Bootstrap,
    _directory: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let registry = Bootstrap::new(Layout::create(directory.path()).unwrap());
        Self { registry, _directory: directory }
    }

    fn put(&self, name: Option<&str>, content: &Value) -> Digest {
        let content = content.to_string();
        let digest = self.registry.layout().put(content.as_bytes()).unwrap();
        if let Some(name) = name {
            let descriptor = Descriptor::new(MANIFEST, digest.clone(), content.len() as u64);
            self.registry.layout().name(name, descriptor).unwrap();
        }
        digest
    }

    fn get(&self, path: &str) -> Result<(String, Value, Option<String>), Failure> {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        match self.registry.0.reply(path, query, None)? {
            Reply::Whole { media_type, content, next, .. } => {
                Ok((media_type, serde_json::from_slice(&content).unwrap(), next))
            }
            Reply::Blob { .. } => panic!("{path} is a blob"),
        }
    }

    fn blob(&self, digest: &Digest, range: Option<&str>) -> Result<(String, bool), Failure> {
        match self.registry.0.reply(&format!("/v2/a/b/blobs/{digest}"), "", range)? {
            Reply::Blob { mut blob, partial, .. } => {
                let mut text = String::new();
                blob.read_to_string(&mut text).unwrap();
                Ok((text, partial))
            }
            Reply::Whole { .. } => panic!("{digest} is no blob"),
        }
    }
}

#[test]
fn serves_manifests_by_tag_and_digest_and_what_is_added_later() {
    let fixture = Fixture::new();
    assert_eq!(fixture.get("/v2/").unwrap().1, json!({}));
    let image = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "layers": [] });
    assert_eq!(fixture.get("/v2/a/b/manifests/1").unwrap_err(), UNKNOWN_MANIFEST);
    let digest = fixture.put(Some("a/b:1"), &image);
    for reference in ["1".to_owned(), digest.to_string()] {
        let (media_type, content, _) = fixture.get(&format!("/v2/a/b/manifests/{reference}")).unwrap();
        assert_eq!((media_type.as_str(), &content), (MANIFEST, &image));
    }
    // A child has no entry, and need not say what it is: its index does.
    let child = fixture.put(None, &json!({ "schemaVersion": 2, "layers": [] }));
    assert_eq!(fixture.get(&format!("/v2/a/b/manifests/{child}")).unwrap_err(), UNKNOWN_MANIFEST);
    let manifests = [Descriptor::new(MANIFEST, child.clone(), 1)];
    let index = json!({ "schemaVersion": 2, "manifests": manifests }).to_string();
    let layout = fixture.registry.layout();
    let entry = Descriptor::new(INDEX, layout.put(index.as_bytes()).unwrap(), index.len() as u64);
    layout.name("a/b:many", entry).unwrap();
    assert_eq!(fixture.get(&format!("/v2/a/b/manifests/{child}")).unwrap().0, MANIFEST);
    let config = fixture.put(None, &json!({ "os": "linux" }));
    for (path, expected) in [
        (format!("/v2/a/b/manifests/{config}"), UNKNOWN_MANIFEST),
        ("/v2/a/b/manifests/2".to_owned(), UNKNOWN_MANIFEST),
        ("/v2/a/b/manifests/../../x".to_owned(), UNKNOWN_NAME),
        ("/v2/a/b/blobs/sha256:../../x".to_owned(), UNKNOWN_NAME),
        ("/v2/a/b/blobs/sha256:x".to_owned(), INVALID_DIGEST),
        (format!("/v2/a/b/blobs/{}", Digest::sha256_of(b"none")), UNKNOWN_BLOB),
        ("/elsewhere".to_owned(), UNKNOWN_NAME),
    ] {
        assert_eq!(fixture.registry.0.reply(&path, "", None).unwrap_err(), expected, "{path}");
    }
}

#[test]
fn referrers_are_of_their_repository_and_their_subject() {
    let fixture = Fixture::new();
    let image = fixture.put(Some("a/b:1"), &json!({ "schemaVersion": 2, "layers": [] }));
    let subject = Descriptor::new(MANIFEST, image.clone(), 1);
    let referrer = json!({ "schemaVersion": 2, "artifactType": "x", "layers": [], "subject": subject,
        "annotations": { "k": "v" } });
    let referrer = fixture.put(Some("a/b@sha256:x"), &referrer);
    let (media_type, list, _) = fixture.get(&format!("/v2/a/b/referrers/{image}")).unwrap();
    assert_eq!(media_type, INDEX);
    let entry = &list["manifests"][0];
    assert_eq!((&entry["digest"], &entry["artifactType"]), (&json!(referrer), &json!("x")));
    assert_eq!(entry["annotations"], json!({ "k": "v" }));
    for path in [format!("/v2/a/referrers/{image}"), format!("/v2/a/b/referrers/{referrer}")] {
        assert_eq!(fixture.get(&path).unwrap().1["manifests"], json!([]), "{path}");
    }
}

#[test]
fn lists_come_in_pages() {
    let fixture = Fixture::new();
    for name in ["b/x:3", "b/x:1", "b/x:2", "a:1", "c@sha256:y"] {
        fixture.put(Some(name), &json!({ "schemaVersion": 2, "layers": [] }));
    }
    assert_eq!(fixture.get("/v2/_catalog").unwrap().1["repositories"], json!(["a", "b/x", "c"]));
    let (_, list, next) = fixture.get("/v2/b/x/tags/list?n=2").unwrap();
    assert_eq!((&list["tags"], next.as_deref()), (&json!(["1", "2"]), Some("/v2/b/x/tags/list?n=2&last=2")));
    let (_, list, next) = fixture.get(&next.unwrap()).unwrap();
    assert_eq!((&list["tags"], next), (&json!(["3"]), None));
    assert_eq!(fixture.get("/v2/_catalog?n=9&last=b%2Fx").unwrap().1["repositories"], json!(["c"]));
    assert_eq!(fixture.get("/v2/none/tags/list").unwrap_err(), UNKNOWN_NAME);
}

#[test]
fn parts_of_blobs() {
    let fixture = Fixture::new();
    let digest = fixture.registry.layout().put(b"0123456789").unwrap();
    for (range, text, partial) in [
        (None, "0123456789", false),
        (Some("bytes=2-4"), "234", true),
        (Some("bytes=7-"), "789", true),
        (Some("bytes=-3"), "789", true),
        (Some("bytes=8-99"), "89", true),
        // What is no single range of bytes is ignored.
        (Some("bytes=4-2"), "0123456789", false),
        (Some("bytes=0-1,3-4"), "0123456789", false),
        (Some("lines=1-2"), "0123456789", false),
    ] {
        assert_eq!(fixture.blob(&digest, range).unwrap(), (text.to_owned(), partial), "{range:?}");
    }
    for range in ["bytes=10-", "bytes=-0"] {
        assert_eq!(fixture.blob(&digest, Some(range)).unwrap_err().0, StatusCode::RANGE_NOT_SATISFIABLE);
    }
}
