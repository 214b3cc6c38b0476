use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use countersign_mirrors::{Release, Severity};
use countersign_site::{Site, Source};

use super::*;

const SITE: &str = "
apiVersion: countersign.dev/v1alpha1
kind: Site
spec:
  registry:
    name: registry.local
    endpoints:
      - { name: bootstrap, url: https://pit.nmn, addresses: [10.1.1.2], ca: { pem: 'a CA' } }
      - { name: cluster, url: https://registry.local, addresses: [10.92.100.71], ca: { pem: 'another' } }
  obsolete: [past.example]
";
const CERTS: &str = "etc/containerd/certs.d";
const CRI: &str = "plugins.\"io.containerd.grpc.v1.cri\"";

struct Node {
    directory: tempfile::TempDir,
    paths: Paths,
    site: Site,
}

impl Node {
    fn new(files: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let paths = Paths { root: directory.path().join("root"), ..Paths::default() };
        fs::create_dir(&paths.root).unwrap();
        let node = Self { directory, paths, site: Site::parse(SITE).unwrap() };
        for (path, text) in files {
            node.write(path, text);
        }
        node
    }

    fn path(&self, path: &str) -> std::path::PathBuf {
        self.paths.root.join(path)
    }

    fn write(&self, path: &str, text: &str) {
        fs::create_dir_all(self.path(path).parent().unwrap()).unwrap();
        fs::write(self.path(path), text).unwrap();
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap()
    }

    fn plan(&self, release: Release, hosts: &[&str]) -> Result<Plan, NodeError> {
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let ca = |source: &Source| match source {
            Source::Inline(text) => Some(text.clone()),
            _ => None,
        };
        plan(&self.paths, release, &self.site, None, &hosts, ca)
    }

    fn apply(&self, release: Release, hosts: &[&str]) -> Plan {
        let plan = self.plan(release, hosts).unwrap();
        apply(&self.paths, &plan, &self.backup()).unwrap();
        assert_eq!(self.plan(release, hosts).unwrap().steps, [], "a second run");
        plan
    }

    fn backup(&self) -> std::path::PathBuf {
        self.directory.path().join("backup")
    }
}

#[test]
fn a_node_becomes_what_the_site_says_and_stays_so() {
    let config = format!("version = 2\n[{CRI}.containerd.runtimes.runc.options]\nSystemdCgroup = true\n");
    let node = Node::new(&[
        ("etc/containerd/config.toml", &config),
        ("etc/containerd/certs.d/past.example/hosts.toml", "server = \"https://a\""),
        ("etc/containerd/certs.d/past.example/ca.crt", "a CA"),
        ("etc/containerd/certs.d/other.example/hosts.toml", "server = \"https://a\""),
    ]);
    // Who may read a file does not change, and a link stays one.
    let real = node.path("etc/containerd/real.toml");
    fs::rename(node.path("etc/containerd/config.toml"), &real).unwrap();
    std::os::unix::fs::symlink("real.toml", node.path("etc/containerd/config.toml")).unwrap();
    fs::set_permissions(&real, fs::Permissions::from_mode(0o600)).unwrap();
    let plan = node.apply(Release(1, 7), &["quay.io"]);
    assert_eq!(plan.restart, ["/etc/containerd/config.toml"]);
    assert_eq!(plan.foreign, ["/etc/containerd/certs.d/other.example"]);
    assert!(node.path("etc/containerd/config.toml").is_symlink());
    assert_eq!(fs::metadata(&real).unwrap().permissions().mode() & 0o777, 0o600);
    let text = node.read("etc/containerd/config.toml");
    assert!(
        text.starts_with(&config) && text.contains("config_path = \"/etc/containerd/certs.d\""),
        "{text}"
    );
    for file in [
        "registry.local/hosts.toml",
        "registry.local/bootstrap.pem",
        "quay.io/hosts.toml",
        "_default/hosts.toml",
    ] {
        assert!(node.path(CERTS).join(file).is_file(), "{file}");
    }
    assert!(!node.path(CERTS).join("past.example").exists(), "an empty directory would lead to the upstream");
    let kept = |path: &str| fs::read_to_string(node.backup().join(path)).unwrap();
    assert_eq!(kept("etc/containerd/config.toml"), config);
    assert_eq!(kept("etc/containerd/certs.d/past.example/hosts.toml"), "server = \"https://a\"");
    // A host that is no longer named has no rule of ours any more; nothing else changes.
    let plan = node.apply(Release(1, 7), &[]);
    let [Step::Remove { directory, .. }] = plan.steps.as_slice() else { panic!("{:?}", plan.steps) };
    assert_eq!(directory, "/etc/containerd/certs.d/quay.io");
    assert!(plan.restart.is_empty() && !node.path(CERTS).join("quay.io").exists());
    // Nothing is left lying about.
    let left = fs::read_dir(node.path(CERTS)).unwrap().flatten();
    assert!(left.into_iter().all(|entry| !entry.file_name().to_string_lossy().starts_with('.')));
}

#[test]
fn links_are_no_ones_rules_but_their_owners() {
    let node = Node::new(&[]);
    node.apply(Release(2, 4), &[]);
    std::os::unix::fs::symlink("registry.local", node.path(CERTS).join("alias.example")).unwrap();
    for _ in 0..2 {
        let plan = node.apply(Release(2, 4), &[]);
        assert_eq!(plan.foreign, ["/etc/containerd/certs.d/alias.example"]);
    }
    assert!(node.path(CERTS).join("registry.local/hosts.toml").is_file());
    // Obsolete, the link goes, and not what it leads to.
    std::os::unix::fs::symlink("registry.local", node.path(CERTS).join("past.example")).unwrap();
    node.apply(Release(2, 4), &[]);
    assert!(!node.path(CERTS).join("past.example").is_symlink());
    assert!(node.path(CERTS).join("registry.local/hosts.toml").is_file());
    let error = node.plan(Release(2, 4), &["alias.example"]).unwrap_err().to_string();
    assert!(error.contains("alias.example: is a link"), "{error}");
    // Out of the node's file system it is somebody else's.
    let outside = node.directory.path().join("outside.toml");
    fs::write(&outside, "version = 3\n").unwrap();
    fs::remove_file(node.path("etc/containerd/config.toml")).unwrap();
    std::os::unix::fs::symlink(&outside, node.path("etc/containerd/config.toml")).unwrap();
    let error = node.plan(Release(2, 4), &[]).unwrap_err().to_string();
    assert!(error.contains("which is not below"), "{error}");
}

#[test]
fn nothing_outside_of_the_root_is_read_or_written() {
    for link in ["etc/containerd", "etc/containerd/certs.d", "etc/containerd/conf.d"] {
        let node = Node::new(&[("etc/keep", "")]);
        let outside = node.directory.path().join("outside");
        fs::create_dir_all(outside.join("past.example")).unwrap();
        fs::create_dir_all(node.path(link).parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(&outside, node.path(link)).unwrap();
        let done = node.plan(Release(2, 4), &[]).and_then(|plan| apply(&node.paths, &plan, &node.backup()));
        assert!(done.unwrap_err().to_string().contains("which is not below"), "{link}");
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 1, "{link}");
    }
    // Within the root, links lead on.
    let node = Node::new(&[("srv/certs/keep", "")]);
    fs::create_dir_all(node.path("etc/containerd")).unwrap();
    std::os::unix::fs::symlink("../../srv/certs", node.path(CERTS)).unwrap();
    node.apply(Release(2, 4), &[]);
    assert!(node.path("srv/certs/registry.local/hosts.toml").is_file());
    // A file that is a link would be another host's, too.
    fs::remove_file(node.path("srv/certs/registry.local/hosts.toml")).unwrap();
    std::os::unix::fs::symlink("../_default/hosts.toml", node.path("srv/certs/registry.local/hosts.toml"))
        .unwrap();
    let error = node.plan(Release(2, 4), &[]).unwrap_err().to_string();
    assert!(error.contains("registry.local/hosts.toml: is a link"), "{error}");
}

#[test]
fn what_a_killed_run_left_is_cleaned_up() {
    let node = Node::new(&[("etc/containerd/certs.d/.quay.io.countersign.tmp/client.key", "secret")]);
    assert_eq!(node.apply(Release(2, 4), &[]).foreign, [""; 0]);
    assert!(!node.path(CERTS).join(".quay.io.countersign.tmp").exists());
    assert!(
        check(&node.paths, Release(2, 4), None).unwrap().iter().all(|finding| !finding.at.contains(".tmp"))
    );
}

#[test]
fn what_is_removed_goes_whole_and_is_kept_whole() {
    let node = Node::new(&[
        ("etc/containerd/certs.d/past.example/deep/er", "x"),
        ("etc/containerd/certs.d/past.example/client.key", "secret"),
    ]);
    fs::write(node.path(CERTS).join("past.example/ca.der"), [0xff, 0xfe]).unwrap();
    let plan = node.apply(Release(1, 7), &[]);
    assert!(!plan.steps.iter().any(|step| step.to_string().contains("secret")), "{plan:?}");
    let kept = node.backup().join(CERTS).join("past.example");
    assert_eq!(fs::read(kept.join("ca.der")).unwrap(), [0xff, 0xfe]);
    assert_eq!(fs::read_to_string(kept.join("deep/er")).unwrap(), "x");
    // An empty directory is a rule, too: it leads to the upstream.
    fs::create_dir(node.path(CERTS).join("past.example")).unwrap();
    let plan = node.plan(Release(1, 7), &[]).unwrap();
    assert!(matches!(plan.steps.as_slice(), [Step::Remove { .. }]), "{plan:?}");
}

#[test]
fn a_directory_of_rules_is_never_there_without_them() {
    let node = Node::new(&[]);
    let plan = node.plan(Release(2, 4), &["quay.io"]).unwrap();
    let made = |step: &&Step| matches!(step, Step::Make { files, .. } if files.iter().any(|file| file.path.ends_with("/hosts.toml")));
    assert_eq!(plan.steps.iter().filter(made).count(), 3, "{plan:?}");
    // Killed at any point: what is there is whole.
    for count in 0..plan.steps.len() {
        let part = Plan { steps: plan.steps[..count].to_vec(), ..Plan::default() };
        let node = Node::new(&[]);
        apply(&node.paths, &part, &node.backup()).unwrap();
        for entry in fs::read_dir(node.path(CERTS)).into_iter().flatten().flatten() {
            assert!(entry.path().join("hosts.toml").is_file(), "{entry:?}");
        }
    }
}

#[test]
fn a_change_is_shown_as_a_diff() {
    let change = Change {
        path: "/etc/x".to_owned(),
        before: Some("a\nb\n".to_owned()),
        after: Some("a\nc\n".to_owned()),
    };
    assert_eq!(change.to_string(), "--- /etc/x\n+++ /etc/x\n@@ -1,2 +1,2 @@\n a\n-b\n+c\n");
    let gone = Change { after: None, ..change };
    assert!(gone.to_string().starts_with("--- /etc/x\n+++ /dev/null\n"), "{gone}");
}

#[test]
fn what_others_would_undo_is_not_begun() {
    // containerd looks for this spelling first.
    let node = Node::new(&[("etc/containerd/certs.d/host_5000_/hosts.toml", "server = \"https://a\"")]);
    let error = node.plan(Release(2, 4), &["host:5000"]).unwrap_err().to_string();
    assert!(error.contains("`host:5000` would not lead to the Site's endpoints"), "{error}");
    let node = Node::new(&[("etc/containerd/config.toml", "version = 3\nimports = [\"gone.toml\"]\n")]);
    let error = node.plan(Release(2, 4), &[]).unwrap_err().to_string();
    assert!(error.starts_with("/etc/containerd/gone.toml: is imported, and is not there"), "{error}");
}

#[test]
fn imports_are_read_as_containerd_reads_them() {
    let main = "version = 3\nimports = [\"conf.d/*.toml\", \"/etc/containerd/more.toml\"]\n";
    let node = Node::new(&[
        ("etc/containerd/config.toml", main),
        ("etc/containerd/conf.d/b.toml", "version = 3\nimports = [\"../config.toml\", \"c/*.toml\"]\n"),
        ("etc/containerd/conf.d/a.toml", "version = 3\n"),
        ("etc/containerd/conf.d/c/d.toml", "version = 3\n"),
        ("etc/containerd/conf.d/not", "version = 3\n"),
        ("etc/containerd/more.toml", "version = 3\n"),
    ]);
    let files = node.paths.config_files().unwrap();
    let names: Vec<_> =
        files.iter().map(|file| Path::new(&file.path).file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(names[..4], ["config.toml", "a.toml", "b.toml", "more.toml"]);
    let own = &node.paths.drop_in;
    assert!(files::is_imported("/etc/containerd/config.toml", "conf.d/*.toml", own));
    assert!(!files::is_imported("/etc/containerd/config.toml", "/etc/containerd/*.toml", own));
}

#[test]
fn a_check_joins_what_files_and_the_site_say() {
    let config = format!(
        "version = 2\n[{CRI}]\nsandbox_image = \"k8s.gcr.io/pause:3.2\"\n[{CRI}.registry]\nconfig_path = \"/etc/containerd/certs.d\"\n[plugins.\"io.containerd.image-verifier.v1.bindir\"]\nbin_dir = \"/opt/verifiers\"\n"
    );
    let mut node = Node::new(&[
        ("etc/containerd/config.toml", &config),
        ("etc/containerd/certs.d/past.example/hosts.toml", "server = \"https://a\"\n[host.\"https://a\"]\n"),
        (
            "etc/containerd/certs.d/registry.local/hosts.toml",
            "server = \"https://pit.nmn\"\n[host.\"https://pit.nmn\"]\n",
        ),
    ]);
    let found = check(&node.paths, Release(2, 0), Some(&node.site)).unwrap();
    for (severity, words) in [
        (Severity::FailOpen, "no `_default`"),
        (Severity::FailOpen, "the sandbox image `k8s.gcr.io/pause:3.2` is asked for at https://k8s.gcr.io"),
        (Severity::FailOpen, "there is no image verifier here"),
        (Severity::FailOpen, "2.1 is the first that does"),
        (
            Severity::Warning,
            "leads to https://pit.nmn; the Site says to https://pit.nmn, then https://registry.local",
        ),
        (Severity::Warning, "a rule of the past"),
    ] {
        let hit = |finding: &&countersign_mirrors::Finding| {
            finding.severity == severity && finding.message.contains(words)
        };
        assert!(found.iter().any(|finding| hit(&finding)), "{words}: {found:#?}");
    }
    assert!(found.is_sorted_by(|a, b| a.severity >= b.severity), "worst first");
    // Rules that lead elsewhere, or are not there.
    let elsewhere = "server = \"https://proxy.corp\"\n[host.\"https://proxy.corp\"]\n";
    node.write("etc/containerd/certs.d/_default/hosts.toml", elsewhere);
    let found = check(&node.paths, Release(2, 0), Some(&node.site)).unwrap();
    let hit = |finding: &countersign_mirrors::Finding| {
        finding.severity == Severity::FailOpen
            && finding.message.contains("leads to https://proxy.corp; the Site says nowhere")
    };
    assert!(found.iter().any(hit), "{found:#?}");
    // What an application has put right is not found again.
    fs::create_dir_all(node.path("opt/verifiers")).unwrap();
    fs::write(node.path("opt/verifiers/judge"), "").unwrap();
    fs::write(node.path("etc/containerd/config.toml"), config.replace("k8s.gcr.io", "registry.local"))
        .unwrap();
    node.apply(Release(2, 1), &[]);
    assert_eq!(check(&node.paths, Release(2, 1), Some(&node.site)).unwrap(), []);
    // Verifiers that a link leads out of the node to are those of this machine.
    fs::remove_dir_all(node.path("opt/verifiers")).unwrap();
    let outside = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(outside.path(), node.path("opt/verifiers")).unwrap();
    let error = check(&node.paths, Release(2, 1), Some(&node.site)).unwrap_err().to_string();
    assert!(error.contains("/opt/verifiers: is a link to "), "{error}");
    fs::remove_file(node.path("opt/verifiers")).unwrap();
    // A host that the Site wants a rule for, and the sandbox image that nobody has named.
    node.site.nodes.hosts.push("quay.io".to_owned());
    fs::write(node.path("etc/containerd/config.toml"), config.replace("sandbox_image", "ignored")).unwrap();
    let found = check(&node.paths, Release(2, 1), Some(&node.site)).unwrap();
    for words in [
        "leads nowhere; the Site says to https://pit.nmn/v2/quay.io",
        "`registry.k8s.io/pause` leads nowhere",
    ] {
        assert!(found.iter().any(|finding| finding.message.contains(words)), "{words}: {found:#?}");
    }
}
