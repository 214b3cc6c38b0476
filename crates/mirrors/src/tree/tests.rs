use super::*;

fn tree(directories: &[(&str, &[(&str, &str)])]) -> Tree {
    let directories = directories.iter().map(|(name, files)| {
        let files = files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        ((*name).to_owned(), Directory { files })
    });
    Tree { root: "/certs.d".to_owned(), directories: directories.collect() }
}

fn plan(tree: &Tree, image: &str) -> Result<Plan, TreeError> {
    tree.plan(&Reference::parse(image).unwrap())
}

/// The URLs that are asked, and the findings.
fn check(hosts: &str) -> (Vec<String>, Option<String>, String) {
    let plan = plan(&tree(&[("registry.local", &[(HOSTS_FILE, hosts)])]), "registry.local/a").unwrap();
    let findings: Vec<_> = plan.findings.into_iter().map(|finding| finding.message).collect();
    (plan.mirrors.iter().map(|m| m.url.to_string()).collect(), plan.falls_back_to, findings.join("; "))
}

#[test]
fn the_required_mapping() {
    let text = r#"
server = "https://registry.local"
ca     = "/etc/containerd/certs.d/registry.local/registry-ca.crt"
[host."https://pit.nmn"]
  capabilities = ["pull", "resolve"]
  ca           = "pit-ca.crt"
  dial_timeout = "2s"
"#;
    let plan = plan(&tree(&[("registry.local", &[(HOSTS_FILE, text)])]), "registry.local/a").unwrap();
    let [pit, registry] = plan.mirrors.as_slice() else { panic!("{plan:?}") };
    assert_eq!(pit.ca, [Source::File("/certs.d/registry.local/pit-ca.crt".into())]);
    assert_eq!((pit.namespace.as_deref(), registry.namespace.as_deref()), (Some("registry.local"), None));
    assert_eq!(registry.ca, [Source::File("/etc/containerd/certs.d/registry.local/registry-ca.crt".into())]);
    assert!(plan.findings.is_empty() && plan.falls_back_to.is_none());
}

#[test]
fn fact_2_a_file_that_does_not_decode_is_an_error() {
    for text in [
        "server = ",
        "server = 1",
        "server = \"https://a\"\n[host.\"https://b\"]\ncapabilities = [\"fly\"]",
        "server = \"https://a\"\n[host.\"https://b\"]\nclient = [[\"a\", \"b\", \"c\"]]",
        "server = \"https://a\"\n[host.\"https://b\"]\nca = 1",
        "server = \"https://a\"\n[host.\"httpbin.org\"]",
        "server = \"https://a\"\n[host.\"http://a.example\"]\nca = \"x\"",
    ] {
        let error =
            plan(&tree(&[("registry.local", &[(HOSTS_FILE, text)])]), "registry.local/a").unwrap_err();
        assert!(error.to_string().starts_with("/certs.d/registry.local/hosts.toml: "), "{error}");
    }
}

#[test]
fn fact_3_the_referrers_capability_is_new() {
    let text =
        "server = \"https://a\"\n[host.\"https://b\"]\ncapabilities = [\"pull\", \"resolve\", \"referrers\"]";
    assert!(check(text).2.contains("before containerd 2.2"));
}

#[test]
fn fact_4_a_server_alone_is_ignored_by_1_x() {
    let (urls, upstream, findings) = check("server = \"https://a\"");
    assert_eq!((urls, upstream), (vec!["https://a".to_owned()], None));
    assert!(findings.contains("before containerd 2.0"), "{findings}");
}

#[test]
fn fact_5_no_server_means_the_upstream() {
    let (urls, upstream, findings) = check("[host.\"https://b\"]");
    assert_eq!((urls, upstream.as_deref()), (vec!["https://b".to_owned()], Some("https://registry.local")));
    assert!(findings.contains("set `server`"), "{findings}");
}

#[test]
fn fact_6_order_is_that_of_headers_and_other_spellings_are_never_asked() {
    let text = "server = \"https://z\"\n[host.\"https://b\"]\n[host.\"https://a\"]\n[host.\"https://c\".header]\nx = \"y\"\n";
    assert_eq!(check(text).0, ["https://b", "https://a", "https://c", "https://z"]);
    for text in [
        "server = \"https://z\"\nhost.\"https://a\".capabilities = [\"pull\"]",
        "server = \"https://z\"\nhost = { \"https://a\" = { capabilities = [\"pull\"] } }",
        "server = \"https://z\"\n[host]\n\"https://a\" = { capabilities = [\"pull\"] }",
    ] {
        let (urls, _, findings) = check(text);
        assert_eq!(urls, ["https://z"], "{text}");
        assert!(findings.contains("never asks"), "{text}: {findings}");
    }
}

#[test]
fn fact_7_paths_become_api_roots() {
    let text =
        "server = \"https://z\"\n[host.\"https://m/us\"]\n[host.\"https://m/v2/x\"]\noverride_path = true\n";
    let plan = plan(&tree(&[("registry.local", &[(HOSTS_FILE, text)])]), "registry.local/a").unwrap();
    let roots: Vec<_> = plan.mirrors.iter().map(|mirror| mirror.url.root.as_str()).collect();
    assert_eq!(roots, ["/us/v2", "/v2/x", "/v2"]);
}

#[test]
fn fact_8_directories_are_chosen_by_name_and_an_empty_one_hides_the_default() {
    let good: &[(&str, &str)] = &[(HOSTS_FILE, "server = \"https://m\"\n[host.\"https://m\"]")];
    let urls = |tree: &Tree, image: &str| {
        let plan = plan(tree, image).unwrap();
        (plan.mirrors.iter().map(|m| m.url.to_string()).collect::<Vec<_>>(), plan.falls_back_to)
    };
    let with_default = tree(&[(DEFAULT_DIRECTORY, good)]);
    assert_eq!(urls(&with_default, "quay.io/a"), (vec!["https://m".to_owned()], None));
    let hidden = tree(&[(DEFAULT_DIRECTORY, good), ("quay.io", &[])]);
    assert_eq!(urls(&hidden, "quay.io/a"), (vec![], Some("https://quay.io".to_owned())));
    assert_eq!(urls(&tree(&[("h_5000_", good)]), "h:5000/a").0, ["https://m"]);
    assert_eq!(urls(&tree(&[("h:5000", good)]), "h:5000/a").0, ["https://m"]);
    // Letter for letter: another case and a written 443 are other hosts.
    let exact = tree(&[("registry.local", good)]);
    assert_eq!(urls(&exact, "Registry.Local/a").1.as_deref(), Some("https://Registry.Local"));
    assert_eq!(urls(&exact, "registry.local:443/a").1.as_deref(), Some("https://registry.local:443"));
    assert_eq!(urls(&exact, "nginx").1.as_deref(), Some("https://registry-1.docker.io"));
    assert_eq!(urls(&exact, "localhost:5000/a").1.as_deref(), Some("http://localhost:5000"));
}

#[test]
fn certificate_files_name_the_host_itself() {
    let tree = tree(&[("registry.local", &[("ca.crt", "x"), ("c.cert", "x"), ("c.key", "x")])]);
    let plan = plan(&tree, "registry.local/a").unwrap();
    assert_eq!(plan.mirrors[0].url.to_string(), "https://registry.local");
    assert_eq!(plan.mirrors[0].ca, [Source::File("/certs.d/registry.local/ca.crt".into())]);
    assert_eq!(plan.mirrors[0].client.len(), 1);
}

#[test]
fn a_mirror_without_resolve_is_not_asked_for_tags() {
    let text = "server = \"https://z\"\n[host.\"https://b\"]\ncapabilities = [\"pull\"]\n[host.\"https://c\"]\ncapabilities = []";
    let plan = plan(&tree(&[("registry.local", &[(HOSTS_FILE, text)])]), "registry.local/a").unwrap();
    let resolve: Vec<_> = plan.mirrors.iter().map(|mirror| mirror.resolve).collect();
    assert_eq!(resolve, [false, true, true]);
}
