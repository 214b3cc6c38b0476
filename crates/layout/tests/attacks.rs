//! Layouts that reach out of themselves, named after the attack of `docs/attacks.md`.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::Path;

use countersign_layout::Layout;
use countersign_reference::Digest;
use tar::EntryType;

const VERSION: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;
const INDEX: &[u8] = br#"{"schemaVersion":2,"manifests":[]}"#;

/// A tar file of these entries, names as they are: the library's own writer refuses such ones.
fn pack(path: &Path, entries: &[(&str, EntryType, &[u8])]) {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, kind, content) in entries {
        let mut header = tar::Header::new_ustar();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(*kind);
        header.set_size(content.len() as u64);
        if matches!(kind, EntryType::Symlink | EntryType::Link) {
            header.set_link_name("/etc/passwd").unwrap();
        }
        header.set_cksum();
        builder.append(&header, *content).unwrap();
    }
    fs::write(path, builder.into_inner().unwrap()).unwrap();
}

#[test]
fn t_45_an_archive_stays_within_itself() {
    use EntryType::{Block, Char, Directory, Fifo, GNUSparse, Link, Regular, Symlink};
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("layout.tar");
    let whole = [("oci-layout", Regular, VERSION), ("index.json", Regular, INDEX)];
    pack(&path, &[&whole[..], &[("./blobs/", Directory, b"")]].concat());
    Layout::open(&path).unwrap();
    let blob = "blobs/sha256/0";
    for (name, kind, why) in [
        ("../x", Regular, "is not a name below"),
        ("../layout.tar", Regular, "is not a name below"),
        ("/etc/x", Regular, "is not a name below"),
        ("//etc/x", Regular, "is not a name below"),
        ("blobs/../../x", Regular, "is not a name below"),
        ("blobs/sha256/../../../x", Regular, "is not a name below"),
        ("..", Directory, "is not a name below"),
        (blob, Symlink, "is no regular file"),
        (blob, Link, "is no regular file"),
        (blob, Block, "is no regular file"),
        (blob, Char, "is no regular file"),
        (blob, Fifo, "is no regular file"),
        (blob, GNUSparse, ""),
        ("./index.json", Regular, "stands twice"),
        ("index.json", Regular, "stands twice"),
    ] {
        pack(&path, &[&whole[..], &[(name, kind, b"")]].concat());
        let error = Layout::open(&path).unwrap_err().to_string();
        assert!(error.contains(why), "{name} {kind:?}: {error}");
    }
    let left: Vec<_> =
        fs::read_dir(directory.path()).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(left, ["layout.tar"], "nothing is unpacked");

    // A name of a gigabyte, as GNU tar would write one: it would be read whole.
    let mut header = tar::Header::new_gnu();
    header.as_old_mut().name[..13].copy_from_slice(b"././@LongLink");
    header.set_entry_type(EntryType::GNULongName);
    header.set_size(1 << 30);
    header.set_cksum();
    fs::write(&path, header.as_bytes()).unwrap();
    fs::File::options().append(true).open(&path).unwrap().set_len(512 + (1 << 30)).unwrap();
    assert!(Layout::open(&path).unwrap_err().to_string().contains("no image layout needs"));
    fs::write(&path, b"\x1f\x8b\x08 a compressed one").unwrap();
    assert!(Layout::open(&path).is_err());

    // A digest that is a path is no digest, in the index as little as anywhere.
    let index = format!(
        r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"m","digest":"sha256:{}","size":1}}]}}"#,
        "../".repeat(21) + "x"
    );
    pack(&path, &[whole[0], ("index.json", Regular, index.as_bytes())]);
    assert!(Layout::open(&path).unwrap_err().to_string().contains("is not lower-case hexadecimal"));
}

#[test]
fn t_45_a_directory_stays_within_itself() {
    let directory = tempfile::tempdir().unwrap();
    let layout = Layout::create(&directory.path().join("layout")).unwrap();
    let (secret, content) = (directory.path().join("secret"), b"of somebody else");
    fs::write(&secret, content).unwrap();
    let digest = Digest::sha256_of(content);
    let blob = layout.path().join("blobs/sha256").join(digest.hex());
    std::os::unix::fs::symlink(&secret, &blob).unwrap();
    let error = layout.get(&digest).unwrap_err().to_string();
    assert!(error.contains("not a regular file"), "{error}");
    assert!(!layout.has(&digest) && layout.blob(&digest).is_err() && layout.check(&digest).is_err());
    // Writing goes into its place, not through the link.
    layout.put(content).unwrap();
    assert!(fs::symlink_metadata(&blob).unwrap().is_file());
    assert_eq!(layout.get(&digest).unwrap(), content);
}
