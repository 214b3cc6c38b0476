//! The charts, as helm renders them.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;
use std::process::Command;

use countersign_e2e::{run, tool};
use countersign_policy::{Exception, Keys};
use serde_json::{Value, json};

/// What helm makes of a chart with these values files, or what it says against it.
fn template(chart: &str, values: &[&str]) -> Result<Vec<Value>, String> {
    let directory = tempfile::tempdir().unwrap();
    let charts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts");
    let mut helm = Command::new(tool("helm"));
    helm.args(["template", "release"]).arg(charts.join(chart)).args(["--namespace", "countersign"]);
    helm.env("HOME", directory.path());
    for (number, text) in values.iter().enumerate() {
        let file = directory.path().join(format!("{number}.yaml"));
        std::fs::write(&file, text).unwrap();
        helm.arg("--values").arg(file);
    }
    let (code, out, err) = run(&mut helm);
    if code != 0 {
        return Err(err);
    }
    let documents = countersign_yaml::documents(&out).unwrap();
    Ok(documents.into_iter().filter(|document| !document.is_null()).collect())
}

fn named<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    objects.iter().find(|object| object["kind"] == kind && object["metadata"]["name"] == name).unwrap()
}

#[test]
fn no_role_has_a_wildcard_and_no_pod_a_privilege() {
    let objects = template("countersign", &[]).unwrap();
    let mut rules = 0;
    for role in
        objects.iter().filter(|object| ["Role", "ClusterRole"].iter().any(|kind| object["kind"] == *kind))
    {
        for rule in role["rules"].as_array().unwrap() {
            rules += 1;
            assert!(!rule.to_string().contains('*'), "{rule}");
            let whole = |list: &str| rule[list].as_array().is_some_and(|list| !list.is_empty());
            assert!(whole("apiGroups") && whole("resources") && whole("verbs"), "{rule}");
        }
    }
    assert!(rules > 10);
    let pods = [
        &named(&objects, "Deployment", "countersign")["spec"]["template"]["spec"],
        &named(&objects, "Job", "countersign-webhook-remove")["spec"]["template"]["spec"],
    ];
    for pod in pods {
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true, "{pod}");
        assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
        let container = &pod["containers"][0]["securityContext"];
        assert_eq!(container["allowPrivilegeEscalation"], false);
        assert_eq!(container["readOnlyRootFilesystem"], true);
        assert_eq!(container["capabilities"]["drop"][0], "ALL");
        assert!(pod["volumes"].is_null(), "nothing of the host");
        // Reachable while the CNI is down.
        assert_eq!(pod["hostNetwork"], true);
    }
    let anywhere = template("countersign", &["placement: anywhere"]).unwrap();
    assert!(
        named(&anywhere, "Deployment", "countersign")["spec"]["template"]["spec"]["hostNetwork"].is_null()
    );
}

#[test]
fn the_image_is_named_by_tag_or_by_digest() {
    let image = |values: &[&str]| {
        let objects = template("countersign", values).unwrap();
        let pod = &named(&objects, "Deployment", "countersign")["spec"]["template"]["spec"];
        pod["containers"][0]["image"].as_str().unwrap().to_owned()
    };
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(image(&[]), format!("registry.local/countersign/countersign:{version}"));
    let digest = format!("sha256:{}", "a".repeat(64));
    let pinned = image(&[&format!("image: {{ tag: x, digest: '{digest}' }}")]);
    assert_eq!(pinned, format!("registry.local/countersign/countersign:x@{digest}"));
}

#[test]
fn secrets_of_other_namespaces_are_read_only_where_somebody_says_so() {
    let reads = |values: &[&str]| {
        let objects = template("countersign", values).unwrap();
        let rules = named(&objects, "ClusterRole", "countersign")["rules"].clone();
        let of_secrets = |rule: &&Value| rule["resources"][0] == "secrets";
        let rules: Vec<Value> = rules.as_array().unwrap().iter().filter(of_secrets).cloned().collect();
        rules.iter().map(|rule| rule["verbs"].to_string()).collect::<Vec<_>>()
    };
    assert_eq!(reads(&[]), Vec::<String>::new());
    assert_eq!(reads(&["imagePullSecrets: true"]), ["[\"get\"]"], "by name: not listed, not watched");
}

#[test]
fn what_is_misspelt_is_refused_by_name() {
    for (chart, values, words) in [
        ("countersign", "replica: 3", "replica"),
        ("countersign", "placement: somewhere", "placement"),
        ("countersign", "image: { digest: sha256:x }", "digest"),
        ("countersign-policies", "checkImage: { acton: Audit }", "acton"),
        ("countersign-policies", "checkImage: { keys: [a] }", "keys"),
        ("countersign-policies", "exceptions: { db: { spec: { match: {} } } }", "exceptions"),
        ("countersign-policies", "exceptions: { db: { expire: '2027-01-01', spec: {} } }", "expire"),
        ("countersign-policies", "checkImage: { siteKeys: { '*': false } }", "name at least one key"),
        (
            "countersign-policies",
            "checkImage: { imageReferences: { all: null } }",
            "name at least one pattern",
        ),
    ] {
        let error = template(chart, &[values]).unwrap_err();
        assert!(error.contains(words), "{values}: {error}");
    }
}

/// R28: what a release says and what a site adds come together by name.
#[test]
fn keys_of_a_site_and_of_a_release_come_together_by_name() {
    let release = "checkImage: { keys: { vendor: 'PEM of the vendor', old: 'PEM of the past' } }";
    let site =
        "checkImage: { keys: { own: 'PEM of the site', old: null }, siteKeys: { '*': null, second: true } }";
    let objects = template("countersign-policies", &[release, site]).unwrap();
    let policy = named(&objects, "ClusterPolicy", "check-image");
    let attestors = &policy["spec"]["rules"][0]["verifyImages"][0]["attestors"];
    let keys: Vec<&str> = attestors[0]["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["keys"]["publicKeys"].as_str().unwrap())
        .collect();
    assert_eq!(keys, ["site://second", "PEM of the site", "PEM of the vendor"]);
    assert_eq!(attestors[0]["count"], 1);
}

#[test]
fn exceptions_of_a_site_and_of_a_release_come_together_by_name() {
    let spec = "spec: { match: { any: [{ resources: { kinds: [Pod], namespaces: [apps] } }] }, exceptions: [{ policyName: check-image, ruleNames: ['*'] }] }";
    let release = format!("exceptions: {{ old: {{ {spec} }}, db: {{ expires: '2027-01-01', {spec} }} }}");
    let site = format!("exceptions: {{ old: null, own: {{ namespace: safe, owner: 7, {spec} }} }}");
    let error = template("countersign-policies", &[&release, &site]).unwrap_err();
    assert!(error.contains("owner"), "{error}");
    let objects =
        template("countersign-policies", &[&release, &site.replace("owner: 7", "owner: ops")]).unwrap();
    let exceptions: Vec<Exception> = objects.iter().filter_map(Exception::load).collect();
    assert_eq!(exceptions.iter().map(|exception| &*exception.refusals).collect::<Vec<_>>(), [&[], &[]]);
    let names: Vec<&str> = exceptions.iter().map(|exception| exception.name.as_str()).collect();
    assert_eq!(names, ["countersign/db", "safe/own"]);
    assert!(exceptions[0].expires.is_some() && exceptions[1].expires.is_none());
    assert_eq!(
        named(&objects, "PolicyException", "own")["metadata"]["annotations"],
        json!({ "countersign.dev/owner": "ops" })
    );
}

/// R29: what a policy's own language says is not Helm's.
#[test]
fn policies_are_what_the_files_say() {
    let objects = template("countersign-policies", &[]).unwrap();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies");
    for (name, whole) in [("prepend-registry", true), ("check-image", false)] {
        let text = std::fs::read_to_string(path.join(format!("{name}.yaml"))).unwrap();
        let file = countersign_yaml::document(&text).unwrap();
        let rendered = named(&objects, "ClusterPolicy", name);
        if whole {
            assert_eq!(*rendered, file);
        }
        // Loaded without a word against it, with the Site's keys.
        let signer =
            countersign_signature::sign::Signer::generate(countersign_signature::sign::Scheme::EcdsaP256);
        let keys = Keys::of_site([("vendor".to_owned(), signer.unwrap().public_pem())]);
        let policy = countersign_policy::load(rendered, &keys).unwrap();
        assert!(policy.refusals.is_empty(), "{:?}", policy.refusals);
    }
    let off = template(
        "countersign-policies",
        &["prependRegistry: { enabled: false }\ncheckImage: { enabled: false }"],
    );
    assert!(off.unwrap().is_empty());
}
