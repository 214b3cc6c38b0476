use super::*;
use std::io::Write as _;

fn descriptor(digest: Digest, size: u64) -> Descriptor {
    Descriptor::new("text/plain", digest, size)
}

#[test]
fn what_is_put_is_there_and_damage_is_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let layout = Layout::create(directory.path()).unwrap();
    let digest = layout.put(b"content").unwrap();
    layout.name("a/b:1", descriptor(digest.clone(), 7)).unwrap();
    layout.name("a/b:1", descriptor(digest.clone(), 7)).unwrap();
    let layout = Layout::open(directory.path()).unwrap();
    assert_eq!(layout.index().unwrap().manifests.len(), 1);
    assert_eq!(
        (layout.get(&digest).unwrap().as_slice(), layout.check(&digest).unwrap()),
        (&b"content"[..], 7)
    );
    assert_eq!(layout.digests().unwrap(), (vec![digest.clone()], Vec::new()));
    fs::write(directory.path().join("blobs/sha256/stray"), b"").unwrap();
    assert_eq!(layout.digests().unwrap().1, ["blobs/sha256/stray"]);
    fs::create_dir(directory.path().join("blobs/md5")).unwrap();
    assert_eq!(layout.digests().unwrap().1, ["blobs/md5", "blobs/sha256/stray"]);
    let link = Digest::sha256_of(b"outside");
    std::os::unix::fs::symlink("/etc/passwd", directory.path().join(blob_name(&link))).unwrap();
    assert!(!layout.has(&link) && layout.blob(&link).is_err(), "T-45: a link leads nowhere");
    fs::remove_file(directory.path().join(blob_name(&link))).unwrap();
    let sha512 = Digest::of(Algorithm::Sha512, b"content");
    layout.put_as(&sha512, b"content").unwrap();
    assert_eq!(layout.get(&sha512).unwrap(), b"content");
    assert!(matches!(layout.put_as(&Digest::sha256_of(b"x"), b"y"), Err(LayoutError::Damaged { .. })));
    fs::write(directory.path().join(blob_name(&digest)), b"Content").unwrap();
    assert!(matches!(layout.get(&digest), Err(LayoutError::Damaged { .. })));
    assert!(matches!(layout.check(&digest), Err(LayoutError::Damaged { .. })));
    assert!(matches!(layout.get(&Digest::sha256_of(b"x")), Err(LayoutError::Absent(_))));
}

#[test]
fn what_is_no_layout_is_said_with_its_file() {
    let directory = tempfile::tempdir().unwrap();
    assert!(Layout::open(directory.path()).unwrap_err().to_string().contains("index.json"));
    fs::write(directory.path().join("index.json"), "{").unwrap();
    assert!(matches!(Layout::open(directory.path()), Err(LayoutError::Malformed { .. })));
    fs::remove_file(directory.path().join("index.json")).unwrap();
    Layout::create(directory.path()).unwrap();
    assert!(Layout::open(directory.path()).is_ok());
    fs::write(directory.path().join("oci-layout"), r#"{"imageLayoutVersion":"2"}"#).unwrap();
    assert!(Layout::open(directory.path()).unwrap_err().to_string().contains("oci-layout"));
}

#[test]
fn what_another_writer_adds_is_seen() {
    let directory = tempfile::tempdir().unwrap();
    let (reader, writer) =
        (Layout::create(directory.path()).unwrap(), Layout::create(directory.path()).unwrap());
    assert_eq!(reader.index().unwrap().manifests.len(), 0);
    for number in 1..=20 {
        let digest = writer.put(b"content").unwrap();
        writer.name(&format!("a:{number}"), descriptor(digest, 7)).unwrap();
        assert_eq!(reader.index().unwrap().manifests.len(), number);
    }
}

#[test]
fn names_that_are_given_at_the_same_time_are_all_there() {
    let directory = tempfile::tempdir().unwrap();
    let layout = Layout::create(directory.path()).unwrap();
    let digest = layout.put(b"content").unwrap();
    std::thread::scope(|scope| {
        for number in 0..16 {
            let (layout, digest) = (&layout, digest.clone());
            scope.spawn(move || layout.name(&format!("a:{number}"), descriptor(digest, 7)).unwrap());
        }
    });
    assert_eq!(layout.index().unwrap().manifests.len(), 16);
}

#[test]
fn what_arrives_in_part_or_is_something_else_is_not_kept() {
    let directory = tempfile::tempdir().unwrap();
    let layout = Layout::create(directory.path()).unwrap();
    let digest = Digest::sha256_of(b"content");
    let mut incoming = layout.incoming(&digest).unwrap();
    incoming.write_all(b"con").unwrap();
    drop(incoming);
    let mut incoming = layout.incoming(&digest).unwrap();
    incoming.write_all(b"contemt").unwrap();
    assert!(matches!(incoming.finish(), Err(LayoutError::Damaged { .. })));
    assert!(!layout.has(&digest));
    let left = fs::read_dir(directory.path()).unwrap().flatten().count();
    assert_eq!(left, 3, "nothing is left lying about");
    let mut incoming = layout.incoming(&digest).unwrap();
    incoming.write_all(b"con").unwrap();
    incoming.write_all(b"tent").unwrap();
    assert_eq!(incoming.finish().unwrap(), 7);
    assert!(layout.has(&digest));
}

#[test]
fn a_packed_layout_reads_the_same_and_packs_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let layout = Layout::create(&directory.path().join("layout")).unwrap();
    let digest = layout.put(b"content").unwrap();
    layout.name("a/b:1", descriptor(digest.clone(), 7)).unwrap();
    layout.put_file("seal", b"signed").unwrap();
    let tars = ["one.tar", "two.tar"].map(|name| directory.path().join(name));
    for tar in &tars {
        layout.pack(tar, &["seal"]).unwrap();
    }
    assert_eq!(fs::read(&tars[0]).unwrap(), fs::read(&tars[1]).unwrap());
    let packed = Layout::open(&tars[0]).unwrap();
    assert_eq!(packed.index().unwrap(), layout.index().unwrap());
    assert_eq!(packed.get(&digest).unwrap(), b"content");
    let mut text = String::new();
    packed.blob(&digest).unwrap().range(3, 2).read_to_string(&mut text).unwrap();
    assert_eq!(text, "te");
    assert!(packed.file("seal").unwrap().is_some());
    assert_eq!(packed.digests().unwrap().0, [digest]);
    assert!(matches!(packed.put(b"more"), Err(LayoutError::ReadOnly(_))));
    // Cut off.
    let bytes = fs::read(&tars[0]).unwrap();
    fs::write(&tars[1], &bytes[..bytes.len() - 3000]).unwrap();
    assert!(Layout::open(&tars[1]).is_err());
}
