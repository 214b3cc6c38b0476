use super::*;
use crate::plan::{Finding, Severity};

const CERTS: &str = "/etc/containerd/certs.d";

fn files(texts: &[(&str, &str)]) -> Vec<ConfigFile> {
    let file =
        |(path, text): &(&str, &str)| ConfigFile { path: (*path).to_owned(), text: (*text).to_owned() };
    texts.iter().map(file).collect()
}

fn settings() -> Settings {
    Settings { config_path: CERTS.to_owned(), sandbox_image: "registry.local/pause:3".parse().ok() }
}

/// Patterns as the tests write them: a path, or `*.toml` in a directory.
fn matches(_: &str, pattern: &str, path: &str) -> bool {
    match pattern.strip_suffix("*.toml") {
        Some(directory) => path.strip_prefix(directory).is_some_and(|name| !name.contains('/')),
        None => pattern == path,
    }
}

/// What is to be written, and that nothing is once it was.
fn change(release: Release, texts: &[(&str, &str)]) -> Result<Vec<(String, String)>, String> {
    let config = RuntimeConfig::read(release, &files(texts)).map_err(|error| error.to_string())?;
    let changed =
        config.changes(&settings(), CONFIG_FILE, DROP_IN, matches).map_err(|error| error.to_string())?;
    let mut after = files(texts);
    for file in &changed {
        match after.iter_mut().find(|old| old.path == file.path) {
            Some(old) => *old = file.clone(),
            None if file.path == CONFIG_FILE => after.insert(0, file.clone()),
            None => after.push(file.clone()),
        }
    }
    let config = RuntimeConfig::read(release, &after).unwrap();
    assert_eq!(config.changes(&settings(), CONFIG_FILE, DROP_IN, matches), Ok(Vec::new()), "a second run");
    assert_eq!(config.config_path(), Some(CERTS));
    assert_eq!(config.sandbox_image(), Some("registry.local/pause:3"));
    Ok(changed.into_iter().map(|file| (file.path, file.text)).collect())
}

const OF_1: &str = r#"# Site's own.
version = 2
root = "/var/lib/containerd" # a disk of its own

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "k8s.gcr.io/pause:3.2"   # old
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/libexec/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
    SystemdCgroup = true

  # Mirrors of the past.
  [plugins."io.containerd.grpc.v1.cri".registry.mirrors."docker.io"]
    endpoint = ["http://pit.nmn:5000", "dummy://docker.io"]
  [plugins."io.containerd.grpc.v1.cri".registry.configs."pit.nmn".tls]
    insecure_skip_verify = true

[metrics]
address = ""
"#;

#[test]
fn of_1_the_file_itself_is_changed_and_nothing_else_in_it() {
    let changed = change(Release(1, 7), &[(CONFIG_FILE, OF_1)]).unwrap();
    let [(path, text)] = changed.as_slice() else { panic!("{changed:?}") };
    assert_eq!(path, CONFIG_FILE);
    insta::assert_snapshot!(text, @r#"
    # Site's own.
    version = 2
    root = "/var/lib/containerd" # a disk of its own

    [plugins."io.containerd.grpc.v1.cri"]
      sandbox_image = "registry.local/pause:3"   # old
      [plugins."io.containerd.grpc.v1.cri".cni]
        bin_dir = "/usr/libexec/cni"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = true

    [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "/etc/containerd/certs.d"

    [metrics]
    address = ""
    "#);
    // The same with the line ends of another system.
    let windows = OF_1.replace('\n', "\r\n");
    let changed = change(Release(1, 7), &[(CONFIG_FILE, &windows)]).unwrap();
    assert_eq!(changed[0].1, text.replace('\n', "\r\n"));
}

#[test]
fn of_1_the_file_whose_section_counts_is_changed() {
    let main = "version = 2\nimports = [\"/etc/containerd/conf.d/*.toml\"]\n[plugins.\"io.containerd.grpc.v1.cri\"]\nmax_container_log_line_size = 1\n";
    let imported =
        "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\n  config_path = \"/elsewhere\"\n";
    let site = "/etc/containerd/conf.d/site.toml";
    let changed = change(Release(1, 6), &[(CONFIG_FILE, main), (site, imported)]).unwrap();
    assert_eq!(changed.len(), 1);
    assert_eq!(changed[0].0, site);
    assert!(changed[0].1.contains("\n  config_path = \"/etc/containerd/certs.d\"\n"), "{}", changed[0].1);
}

#[test]
fn of_1_where_there_is_little_to_change() {
    for (text, expected) in [
        (
            None,
            "version = 2\n\n[plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = \"registry.local/pause:3\"\n\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\nconfig_path = \"/etc/containerd/certs.d\"\n",
        ),
        (
            Some(
                "version = 2\nplugins.\"io.containerd.grpc.v1.cri\" = { registry = { config_path = '' } } # short\n",
            ),
            "version = 2\nplugins.\"io.containerd.grpc.v1.cri\" = { registry = { config_path = \"/etc/containerd/certs.d\" } , sandbox_image = \"registry.local/pause:3\" } # short\n",
        ),
    ] {
        let texts: Vec<_> = text.iter().map(|text| (CONFIG_FILE, *text)).collect();
        assert_eq!(change(Release(1, 7), &texts).unwrap()[0].1, expected);
    }
    let old = "[plugins.cri.registry]\nconfig_path = \"/x\"\n";
    assert!(change(Release(1, 7), &[(CONFIG_FILE, old)]).unwrap_err().contains("`containerd config dump`"));
    let broken = "version = 2\n[plugins";
    assert!(change(Release(1, 7), &[(CONFIG_FILE, broken)]).unwrap_err().contains("does not start"));
    let mixed = "version = 2\r\nroot = \"/x\"\n";
    assert!(change(Release(1, 7), &[(CONFIG_FILE, mixed)]).unwrap_err().contains("line ends are mixed"));
}

#[test]
fn of_2_a_file_of_our_own_is_added() {
    let default = "version = 3\nimports = [\"/etc/containerd/conf.d/*.toml\"]\n[plugins.\"io.containerd.cri.v1.images\".registry]\nconfig_path = \"/etc/containerd/certs.d:/etc/docker/certs.d\"\n";
    let changed = change(Release(2, 2), &[(CONFIG_FILE, default)]).unwrap();
    let [(path, text)] = changed.as_slice() else { panic!("{changed:?}") };
    assert_eq!(path, DROP_IN);
    insta::assert_snapshot!(text, @r#"
    # Written by `countersign node`: changes are lost.
    version = 3

    [plugins."io.containerd.cri.v1.images".registry]
      config_path = "/etc/containerd/certs.d"

    [plugins."io.containerd.cri.v1.images".pinned_images]
      sandbox = "registry.local/pause:3"
    "#);
    // Nothing imports it, or there is nothing yet.
    let changed = change(Release(2, 0), &[(CONFIG_FILE, OF_1)]).unwrap();
    assert!(changed[1].1.contains(&format!("imports = [{DROP_IN:?}]")), "{}", changed[1].1);
    assert!(!changed[1].1.contains("mirrors.") && changed[1].1.contains("SystemdCgroup = true"));
    let changed = change(Release(2, 4), &[]).unwrap();
    assert_eq!(changed[1].1, "version = 3\nimports = [\"/etc/containerd/conf.d/*.toml\"]\n");
}

#[test]
fn of_2_what_is_read_later_says_the_same() {
    let main = "version = 3\nimports = [\"/etc/containerd/conf.d/*.toml\"]\n";
    let late = "/etc/containerd/conf.d/99-site.toml";
    let text = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = \"x/pause:1\"\nregistry.config_path = \"/a:/b\"\n";
    let changed = change(Release(2, 3), &[(CONFIG_FILE, main), (late, text)]).unwrap();
    let late = &changed.iter().find(|(path, _)| path == late).unwrap().1;
    assert_eq!(*late, text.replace("/a:/b", CERTS).replace("x/pause:1", "registry.local/pause:3"));
}

fn findings(release: Release, texts: &[(&str, &str)]) -> Vec<Finding> {
    RuntimeConfig::read(release, &files(texts)).unwrap().findings()
}

#[test]
fn planted_mistakes_are_found() {
    use Severity::{Broken, FailOpen, Warning};
    let images =
        |text: &str| format!("version = 3\n[plugins.\"io.containerd.cri.v1.images\".registry]\n{text}\n");
    let cri = |text: &str| format!("version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\n{text}\n");
    let good = "config_path = \"/etc/containerd/certs.d\"";
    let list = "config_path = \"/etc/containerd/certs.d:/etc/docker/certs.d\"";
    let mirrors = "mirrors.\"quay.io\".endpoint = [\"https://m.example\"]";
    let dummy = "mirrors.\"quay.io\".endpoint = [\"http://m.example/x\", \"dummy://quay.io\"]";
    for (fact, release, text, severity, words) in [
        ("1", Release(2, 1), images(list), FailOpen, "name one directory"),
        ("1", Release(1, 7), cri(list), Warning, "name one directory"),
        ("1", Release(2, 2), images(""), FailOpen, "list of directories that is the default since 2.2"),
        ("1", Release(1, 7), cri(""), FailOpen, "`config_path` is not set"),
        ("5", Release(1, 7), cri(mirrors), FailOpen, "the upstream is asked last"),
        ("5", Release(1, 7), cri(dummy), FailOpen, "hosts without an entry"),
        ("7", Release(1, 7), cri(dummy), Warning, "without `/v2`"),
        ("11", Release(1, 7), cri(&format!("{good}\n{mirrors}")), Broken, "stands beside `config_path`"),
        ("11", Release(2, 3), images(&format!("{good}\n{mirrors}")), Broken, "stands beside `config_path`"),
        ("11", Release(2, 3), images(mirrors), Warning, "deprecated since containerd 1.5"),
        ("version", Release(1, 7), images(good), Broken, "it does not start"),
        (
            "version",
            Release(2, 2),
            cri(good).replace("version = 2", "version = 4"),
            Broken,
            "it does not start",
        ),
        (
            "version",
            Release(2, 0),
            cri(good).replace("version = 2", "version = 3"),
            FailOpen,
            "is not read by containerd 2.0",
        ),
        ("insecure", Release(1, 7), cri(dummy), Warning, "plain http"),
        (
            "insecure",
            Release(1, 7),
            cri(&format!("{good}\nconfigs.\"a\".tls.insecure_skip_verify = true")),
            Broken,
            "`tls` stands beside",
        ),
        (
            "insecure",
            Release(1, 7),
            cri("configs.\"a\".tls.insecure_skip_verify = true"),
            Warning,
            "anybody on the way",
        ),
    ] {
        let found = findings(release, &[(CONFIG_FILE, &text)]);
        let hit = |finding: &&Finding| finding.message.contains(words) && finding.severity == severity;
        assert!(found.iter().any(|finding| hit(&finding)), "fact {fact}: {text}: {found:#?}");
    }
    for (release, text) in
        [(Release(1, 7), cri(good)), (Release(2, 4), images(good)), (Release(2, 0), cri(good))]
    {
        assert_eq!(findings(release, &[(CONFIG_FILE, &text)]), [], "{text}");
    }
    // Files that are migrated are read under the old names, too, and one file may be for both releases.
    let both = format!("{}{}", cri(good), images("").replace("version = 3\n", ""));
    for (release, text) in [
        (Release(2, 3), cri(good).replace("version = 2", "version = 3")),
        (Release(2, 0), images(good).replace("version = 3", "version = 2")),
        (Release(1, 7), both.clone()),
        (Release(2, 4), both),
    ] {
        assert_eq!(findings(release, &[(CONFIG_FILE, &text)]), [], "{release}: {text}");
    }
    // Where a file is migrated, the old table takes the place of the new one.
    let lost =
        format!("{}{}", cri("configs.\"x\".auth.auth = \"x\""), images(good).replace("version = 3\n", ""));
    assert!(findings(Release(2, 4), &[(CONFIG_FILE, &lost)])[0].message.contains("`config_path` is not set"));
    // An empty text takes back what was said before.
    let later = [(CONFIG_FILE, images(good)), ("/etc/containerd/conf.d/a.toml", images("config_path = ''"))];
    let later: Vec<_> = later.iter().map(|(path, text)| (*path, text.as_str())).collect();
    assert!(findings(Release(2, 0), &later)[0].message.contains("`config_path` is not set"));
    let newer = "version = 2\nplugins.a = { b = 1, }\n";
    assert!(findings(Release(1, 7), &[(CONFIG_FILE, newer)])[0].message.contains("does not start"));
    let twice = [(CONFIG_FILE, cri("")), ("/etc/containerd/conf.d/a.toml", cri(good))];
    let twice: Vec<_> = twice.iter().map(|(path, text)| (*path, text.as_str())).collect();
    assert!(findings(Release(1, 7), &twice)[0].message.contains("the cgroup driver, paths of CNI"));
    assert_eq!(findings(Release(2, 0), &twice), [], "2.x merges them");
}

#[test]
fn facts_12_and_13_verifiers_that_are_not_called() {
    let plugin = |more: &str| {
        format!(
            "version = 3\n[plugins.\"io.containerd.image-verifier.v1.bindir\"]\nmax_verifiers = 1\n{more}"
        )
    };
    let check = |release: Release, text: &str, programs: Option<usize>| -> Vec<String> {
        let config = RuntimeConfig::read(release, &files(&[(CONFIG_FILE, text)])).unwrap();
        config.findings_of_verifiers(programs).into_iter().map(|finding| finding.message).collect()
    };
    let images = |text: &str| format!("[plugins.\"io.containerd.cri.v1.images\"]\n{text}\n");
    for (release, text, programs, words) in [
        (Release(1, 7), plugin("").replace('3', "2"), Some(1), "2.1 is the first that does"),
        (Release(2, 0), plugin(""), Some(1), "2.1 is the first that does"),
        (Release(2, 1), plugin(""), None, "every image passes"),
        (Release(2, 1), plugin(""), Some(0), "every image passes"),
        (Release(2, 1), plugin(""), Some(2), "`max_verifiers` is 1"),
        (
            Release(2, 1),
            plugin(&images("max_concurrent_downloads = 5")),
            Some(1),
            "`max_concurrent_downloads`",
        ),
        (
            Release(2, 1),
            plugin(&images("discard_unpacked_layers = true")),
            Some(1),
            "`discard_unpacked_layers`",
        ),
        (Release(2, 1), plugin(&images("use_local_image_pull = true")), Some(1), "`use_local_image_pull`"),
        (Release(2, 1), plugin(&images("registry.auths.\"a\".auth = \"x\"")), Some(1), "`registry.auths`"),
    ] {
        let found = check(release, &text, programs);
        assert!(found.len() == 1 && found[0].contains(words), "{text}: {found:?}");
    }
    assert_eq!(check(Release(2, 1), &plugin(""), Some(1)), [""; 0]);
    assert_eq!(check(Release(1, 7), "version = 2\n", None), [""; 0], "nobody wants any");
    let default = plugin("bin_dir = \"/opt/containerd/image-verifier/bin\"").replace("= 1", "= 10");
    assert_eq!(check(Release(2, 4), &default, None), [""; 0], "as `containerd config default` writes it");
    assert_eq!(check(Release(2, 4), &default, Some(0)).len(), 1, "somebody made the directory");
}
