//! The override of a name: a real API server, and the real CoreDNS on two addresses.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use countersign_cluster::{Answer, Dns, Place, ask, client};
use countersign_corefile::{Override, clear, set};
use countersign_e2e::dns::{CONFIG_MAP, CoreDns, DnsCluster, NAMES, SITE, until_answers};
use countersign_e2e::{assert_isolated, free_port};
use hyper::Method;
use jiff::Timestamp;
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn every_server_answers_with_it_and_the_site_is_as_before() {
    assert_isolated();
    let cluster = DnsCluster::start().await;
    let site = async || {
        for (server, name) in
            DnsCluster::servers().into_iter().flat_map(|server| NAMES.map(|name| (server, name)))
        {
            until_answers(server, name, Some(SITE)).await;
        }
    };
    site().await;
    let (code, out, err) = cluster.command("status", &[]).await;
    assert_eq!(code, 0, "{err}");
    assert!(out.starts_with("registry.local is not overridden\n") && out.lines().count() == 3, "{out}");

    let (code, out, _) = cluster.command("set", &["--address", "192.0.2.1", "--dry-run"]).await;
    assert!(code == 0 && out.contains("+        192.0.2.1 registry.local\n"), "{out}");
    assert_eq!(cluster.text().await, cluster.corefile);
    for address in ["192.0.2.1", "192.0.2.99"] {
        let (code, _, err) = cluster.command("set", &["--address", address, "--owner", "install-7"]).await;
        assert_eq!(code, 0, "{err}");
        for server in DnsCluster::servers() {
            assert_eq!(
                ask(server, "registry.local", false).await,
                Answer::Addresses(vec![address.parse().unwrap()])
            );
        }
        site().await;
    }
    let (code, _, err) = cluster.command("set", &["--address", "192.0.2.1", "--owner", "another"]).await;
    assert!(code == 2 && err.contains("`install-7` has overridden the name"), "{code}: {err}");
    let (code, out, _) = cluster.command("status", &[]).await;
    assert!(code == 0 && out.contains("192.0.2.99, set by install-7, until "), "{out}");
    let map = cluster.map().await;
    assert_eq!((&map["data"]["other"], &map["metadata"]["labels"]["site"]), (&json!("kept"), &json!("kept")));

    let (code, _, err) = cluster.command("clear", &[]).await;
    assert!(code == 2 && err.contains("`install-7` has overridden the name"), "{code}: {err}");
    let (code, _, err) = cluster.command("clear", &["--owner", "install-7"]).await;
    assert_eq!(code, 0, "{err}");
    assert_eq!(cluster.text().await, cluster.corefile, "byte for byte");
    for server in DnsCluster::servers() {
        until_answers(server, "registry.local", None).await;
    }
    site().await;
    let (code, _, err) = cluster.command("clear", &[]).await;
    assert!(code == 0 && err.contains("is not overridden"), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn others_who_edit_at_the_same_time_lose_nothing() {
    assert_isolated();
    let cluster = DnsCluster::start().await;
    let dns = Dns::new(client(Some(&cluster.kubeconfig()), None).await.unwrap(), Place::default());
    let now: Timestamp = "2026-11-25T12:00:00Z".parse().unwrap();
    let wanted = Override {
        name: "registry.local".to_owned(),
        addresses: vec!["192.0.2.1".parse().unwrap()],
        owner: "install-7".to_owned(),
        until: "2026-11-25T13:00:00Z".parse().unwrap(),
    };
    // An editor who reads all of it, adds a zone, and writes all of it on its condition.
    let editor = async {
        for number in 0..20 {
            loop {
                let mut map = cluster.map().await;
                let text = map["data"]["Corefile"].as_str().unwrap();
                map["data"]["Corefile"] = json!(format!("{text}zone{number}.site:53 {{\n    errors\n}}\n"));
                if cluster.plane.call(Method::PUT, CONFIG_MAP, Some(&map)).await.0 == 200 {
                    break;
                }
            }
        }
    };
    let overrider = async {
        for number in 0..20_u8 {
            let wanted = Override { addresses: vec![IpAddr::from([192, 0, 2, number])], ..wanted.clone() };
            dns.set(&wanted, now, false).await.unwrap();
            if number % 3 == 0 {
                dns.clear("registry.local", "install-7", now, false).await.unwrap();
            }
        }
    };
    tokio::join!(editor, overrider);
    let text = cluster.text().await;
    for number in 0..20 {
        assert_eq!(text.matches(&format!("zone{number}.site:53 {{")).count(), 1, "zone{number}: {text}");
    }
    assert_eq!(dns.find("registry.local").await.unwrap().unwrap().addresses, [IpAddr::from([192, 0, 2, 19])]);

    // It ends by the clock of whoever executes that.
    assert_eq!(dns.expire(now).await.unwrap(), [""; 0]);
    assert_eq!(dns.expire(wanted.until).await.unwrap(), ["registry.local"]);
    assert_eq!(dns.find("registry.local").await.unwrap(), None);
    assert!(cluster.text().await.starts_with(&cluster.corefile));

    // What keeps it from having an effect is said.
    let meta = json!({ "app": "x" });
    let daemon = json!({
        "metadata": { "name": "node-local-dns" },
        "spec": { "selector": { "matchLabels": meta }, "template": { "metadata": { "labels": meta },
            "spec": { "containers": [{ "name": "c", "image": "x" }] } } },
    });
    let sets = "/apis/apps/v1/namespaces/kube-system/daemonsets";
    assert_eq!(cluster.plane.call(Method::POST, sets, Some(&daemon)).await.0, 201);
    let kubelet = json!({ "metadata": { "name": "kubelet-config" }, "data": { "kubelet": "clusterDNS:\n- 169.254.20.10\n" } });
    let maps = "/api/v1/namespaces/kube-system/configmaps";
    assert_eq!(cluster.plane.call(Method::POST, maps, Some(&kubelet)).await.0, 201);
    let (_, _, err) = cluster.command("status", &[]).await;
    for words in ["NodeLocal DNSCache runs", "pods to ask 169.254.20.10"] {
        assert!(err.contains(words), "{words}: {err}");
    }
    // No endpoint, and no API server.
    let slice = "/apis/discovery.k8s.io/v1/namespaces/kube-system/endpointslices/kube-dns-1";
    assert_eq!(cluster.plane.call(Method::DELETE, slice, None).await.0, 200);
    let (code, _, err) = cluster.command("set", &["--address", "192.0.2.1", "--wait", "1"]).await;
    assert!(code == 1 && err.contains("the Service has no endpoint"), "{code}: {err}");
    let config = cluster.plane.kubeconfig_at(free_port());
    std::fs::write(cluster.kubeconfig(), config).unwrap();
    assert_eq!(cluster.command("status", &[]).await.0, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn s11_real_coredns_reads_what_was_made_of_any_site() {
    assert_isolated();
    let hosts = format!("hosts {{\n  {SITE} {}\n  fallthrough\n }}", NAMES.join(" "));
    let forms = [
        (
            "several zones",
            format!(
                ".:PORT cluster.local:PORT {{\n {hosts}\n reload 2s 0s\n}}\ncorp.example:PORT {{\n errors\n}}\n"
            ),
        ),
        ("zones by comma", format!(".:PORT,\n corp.example:PORT {{\n {hosts}\n reload 2s 0s\n}}\n")),
        ("a brace on its own line", format!(".:PORT\n{{\n {hosts}\n reload 2s 0s\n}}\n")),
        (
            "everything else elsewhere",
            format!(
                ".:PORT {{\n {hosts}\n forward . UPSTREAM {{\n  max_concurrent 10\n }}\n reload 2s 0s\n}}\n"
            ),
        ),
        ("a comment within a word", format!(".:PORT {{\n {hosts}\n reload#soon 2s 0s\n}}\n")),
        (
            "a one-line form",
            format!(".:PORT {{\n hosts {{ {SITE} {} fallthrough }}\n reload 2s 0s\n}}\n", NAMES.join(" ")),
        ),
        (
            "line ends of another system",
            format!(".:PORT {{\n {hosts}\n reload 2s 0s\n}}\n").replace('\n', "\r\n"),
        ),
        (
            "no end of line, and a comment",
            format!("# hosts {{\n.:PORT {{ # }} hosts {{\n {hosts}\n reload 2s 0s # }}\n}} # the end"),
        ),
        ("snippets", format!("(common) {{\n {hosts}\n reload 2s 0s\n}}\n.:PORT {{\n import common\n}}\n")),
        (
            "quotes",
            format!(
                ".:PORT {{\n template IN A t.site {{ \n answer \"{{{{ .Name }}}} 60 IN A 10.0.0.1 # }}\"\n }}\n {hosts}\n reload 2s 0s\n}}\n"
            ),
        ),
        (
            "imports",
            format!("import DIR/*.server\n.:PORT {{\n {hosts}\n import DIR/*.override\n reload 2s 0s\n}}\n"),
        ),
    ];
    let now: Timestamp = "2026-11-25T12:00:00Z".parse().unwrap();
    let wanted = Override {
        name: "registry.local".to_owned(),
        addresses: vec!["192.0.2.1".parse().unwrap()],
        owner: "install-7".to_owned(),
        until: "2026-11-26T12:00:00Z".parse().unwrap(),
    };
    // Where everything else is asked.
    let (upstream, directory) = (free_port(), tempfile::tempdir().unwrap());
    let file = directory.path().join("Corefile");
    let text = format!(".:{upstream} {{\n hosts /dev/null {{\n 192.0.2.88 api.registry.local\n }}\n}}\n");
    std::fs::write(&file, text).unwrap();
    let _upstream = CoreDns::start(&file, "");
    let checks = forms.map(|(what, form)| {
        let wanted = wanted.clone();
        tokio::spawn(async move {
            let directory = tempfile::tempdir().unwrap();
            let port = free_port();
            let text = form
                .replace("PORT", &port.to_string())
                .replace("DIR", &directory.path().display().to_string())
                .replace("UPSTREAM", &format!("127.0.0.1:{upstream}"));
            std::fs::write(directory.path().join("a.server"), format!("b.example:{port} {{\n errors\n}}\n"))
                .unwrap();
            let (file, server) =
                (directory.path().join("Corefile"), SocketAddr::from(([127, 0, 0, 1], port)));
            std::fs::write(&file, &text).unwrap();
            let _server = CoreDns::start(&file, "");
            let forwards = text.contains("forward");
            let site = async || {
                for name in NAMES {
                    until_answers(server, name, Some(SITE)).await;
                }
                if forwards {
                    until_answers(server, "api.registry.local", Some("192.0.2.88")).await;
                }
            };
            tokio::time::sleep(Duration::from_secs(1)).await;
            let log = std::fs::read_to_string(file.with_extension("log")).unwrap();
            assert!(log.contains("CoreDNS-"), "{what}: {log}");
            site().await;
            until_answers(server, "registry.local", None).await;
            let edit = set(&text, &wanted, now, false).unwrap_or_else(|error| panic!("{what}: {error}"));
            std::fs::write(&file, &edit.text).unwrap();
            until_answers(server, "registry.local", Some("192.0.2.1")).await;
            site().await;
            let back = clear(&edit.text, "registry.local").unwrap().unwrap();
            assert_eq!(back, text, "{what}");
            std::fs::write(&file, back).unwrap();
            until_answers(server, "registry.local", None).await;
            site().await;
        })
    });
    for check in checks {
        check.await.unwrap();
    }
}
