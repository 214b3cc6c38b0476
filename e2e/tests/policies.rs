//! Policies as their users wrote them, through a real API server: what is stored, denied, warned and
//! told.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;

use countersign_e2e::{Fate, Installed, NAMESPACED, POLICIES, SITES, assert_isolated, pod};
use hyper::Method;
use serde_json::{Value, json};

const EXCEPTIONS: &str = "/apis/kyverno.io/v2/namespaces/kyverno/policyexceptions";

/// The documents of an example.
fn example(file: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/kyverno").join(file);
    let text = std::fs::read_to_string(path).unwrap();
    countersign_yaml::documents(&text).unwrap()
}

/// A ClusterPolicy with one rule.
fn policy(name: &str, spec: &str, rule: &str) -> Value {
    let text = format!(
        "apiVersion: kyverno.io/v1\nkind: ClusterPolicy\nmetadata: {{ name: {name} }}\nspec:\n  {spec}\n  rules:\n    - name: r\n      {rule}\n"
    );
    countersign_yaml::document(&text).unwrap()
}

/// Where objects of a document are made.
fn collection(object: &Value, namespace: &str) -> String {
    let api = object["apiVersion"].as_str().unwrap();
    let root = if api == "v1" { "/api/v1".to_owned() } else { format!("/apis/{api}") };
    let plural = format!("{}s", object["kind"].as_str().unwrap().to_lowercase());
    format!("{root}/namespaces/{namespace}/{plural}?dryRun=All")
}

struct World {
    cluster: Installed,
}

impl World {
    async fn start() -> Self {
        let cluster = Installed::start().await;
        for namespace in ["services", "other", "kyverno", "kube-system"] {
            let object = json!({ "metadata": { "name": namespace, "labels": { "tier": namespace } } });
            _ = cluster.plane.call(Method::POST, "/api/v1/namespaces", Some(&object)).await;
            let account = json!({ "metadata": { "name": "default" } });
            cluster.post(&format!("/api/v1/namespaces/{namespace}/serviceaccounts"), &account).await;
        }
        // Images are another test's.
        for name in ["check-image", "prepend-registry"] {
            let (status, _) = cluster.plane.call(Method::DELETE, &format!("{POLICIES}/{name}"), None).await;
            assert_eq!(status, 200);
        }
        let world = Self { cluster };
        world.soon("no policy", (&pod("plain", &["quay.io/acme/unsigned:1"]), "other"), admitted).await;
        world
    }

    /// What comes of making an object: status, the object or the answer, warnings.
    async fn make(&self, object: &Value, namespace: &str) -> (u16, Value, Vec<String>) {
        let mut object = object.clone();
        object["metadata"]["namespace"] = json!(namespace);
        self.cluster.plane.warned(Method::POST, &collection(&object, namespace), Some(&object)).await
    }

    /// Waits until what comes of it is so.
    async fn soon(
        &self,
        what: &str,
        (object, namespace): (&Value, &str),
        holds: impl Fn(u16, &Value, &[String]) -> bool,
    ) {
        let mut last = (0, Value::Null, vec![]);
        for _ in 0..100 {
            last = self.make(object, namespace).await;
            if holds(last.0, &last.1, &last.2) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        panic!("not within 10 s: {what}: {} {:?}\n{:#}\n{}", last.0, last.2, last.1, self.cluster.log());
    }

    async fn add(&self, documents: &[Value]) {
        for document in documents {
            let namespace = document["metadata"]["namespace"].as_str().unwrap_or("default");
            let path = match document["kind"].as_str().unwrap() {
                "ClusterPolicy" => POLICIES.to_owned(),
                "Policy" => NAMESPACED.replace("/default/", &format!("/{namespace}/")),
                "PolicyException" => EXCEPTIONS.to_owned(),
                other => panic!("{other}"),
            };
            self.cluster.post(&path, document).await;
        }
    }

    async fn remove(&self, name: &str) {
        let (status, _) = self.cluster.plane.call(Method::DELETE, &format!("{POLICIES}/{name}"), None).await;
        assert_eq!(status, 200, "{name}");
    }
}

fn message(body: &Value) -> &str {
    body["message"].as_str().unwrap_or_default()
}

fn admitted(status: u16, _: &Value, _: &[String]) -> bool {
    status == 201
}

fn denied(status: u16, _: &Value, _: &[String]) -> bool {
    status == 403
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_of_users_act_on_what_an_api_server_stores() {
    assert_isolated();
    let world = World::start().await;

    // Policies of one namespace change the pods of one application.
    world.add(&example("security-context/policies.yaml")).await;
    let pods = example("security-context/resources.yaml");
    let patched = example("security-context/patched.yaml");
    let is_patched = |containers: usize| {
        let (patched, wanted) = (patched.clone(), containers);
        move |status: u16, stored: &Value, _: &[String]| {
            let of = |pod: &Value, at: usize| pod["spec"]["containers"][at]["securityContext"].clone();
            status == 201 && (0..2).all(|at| of(stored, at) == of(&patched[wanted], at))
        }
    };
    world.soon("boot has a security context", (&pods[0], "services"), is_patched(0)).await;
    world.soon("git as well", (&pods[1], "services"), is_patched(1)).await;
    let (status, stored, _) = world.make(&pods[3], "other").await;
    assert!(status == 201 && stored["spec"]["containers"][0]["securityContext"].is_null(), "{stored:#}");
    // Audit denies nothing, and what it finds is an event and a line of the log.
    let (status, _, warnings) = world.make(&pods[2], "services").await;
    assert_eq!((status, warnings), (201, vec![]));
    let power = collection(&pods[2], "services").replace("?dryRun=All", "");
    assert_eq!(world.cluster.plane.call(Method::POST, &power, Some(&pods[2])).await.0, 201);
    world
        .cluster
        .plane
        .until("the violation is an event", async || {
            let path = "/apis/events.k8s.io/v1/namespaces/services/events";
            let events = world.cluster.plane.call(Method::GET, path, None).await.1;
            events["items"].as_array().unwrap().iter().any(|event| {
                event["reason"] == "PolicyViolation"
                    && event["regarding"]["name"] == "power"
                    && event["note"].as_str().unwrap().contains("validation error: power runs as nobody.")
            })
        })
        .await;

    // Objects of other kinds are asked about once a policy speaks of them.
    world.add(&example("job-ttl/policy.yaml")).await;
    let jobs = example("job-ttl/resources.yaml");
    let ttl = |expected: Value| {
        move |status: u16, stored: &Value, _: &[String]| {
            status == 201 && stored["spec"]["ttlSecondsAfterFinished"] == expected
        }
    };
    world.soon("jobs end", (&jobs[0], "services"), ttl(json!(259_200))).await;
    for (job, expected) in [(&jobs[1], json!(60)), (&jobs[2], Value::Null), (&jobs[3], Value::Null)] {
        let (status, stored, _) = world.make(job, "services").await;
        assert_eq!((status, &stored["spec"]["ttlSecondsAfterFinished"]), (201, &expected));
    }

    // Loops, nested variables and `images`, with an exception by name and by label.
    world.add(&example("prepend-registry/policy.yaml")).await;
    let pods = example("prepend-registry/resources.yaml");
    let first = |image: &'static str| {
        move |status: u16, stored: &Value, _: &[String]| {
            status == 201 && stored["spec"]["containers"][0]["image"] == image
        }
    };
    world.soon("it is rewritten", (&pods[0], "services"), first("registry.local/acme/app:1")).await;
    world.soon("so is this", (&pods[2], "services"), first("registry.local/acme/db:1")).await;
    world.add(&example("prepend-registry/exceptions.yaml")).await;
    // Nobody has said that exceptions of that namespace count.
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    world.soon("it is no exception yet", (&pods[2], "services"), first("registry.local/acme/db:1")).await;
    let site = format!("{SITES}/default");
    world.cluster.patch(&site, &json!({ "spec": { "exceptionNamespaces": ["kyverno"] } })).await;
    world.soon("it is an exception", (&pods[2], "services"), first("docker.io/acme/db:1")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pod_security_holds_but_for_its_exceptions() {
    assert_isolated();
    let world = World::start().await;
    let site = format!("{SITES}/default");
    world.cluster.patch(&site, &json!({ "spec": { "exceptionNamespaces": ["kyverno"] } })).await;
    world.add(&example("pod-security/policy.yaml")).await;
    let objects = example("pod-security/resources.yaml");
    let of = |name: &str, kind: &str| {
        let found =
            objects.iter().find(|object| object["metadata"]["name"] == name && object["kind"] == kind);
        let found = found.unwrap();
        (found, found["metadata"]["namespace"].as_str().unwrap())
    };
    let namespace = json!({ "metadata": { "name": "sysmgmt-health" } });
    world.cluster.post("/api/v1/namespaces", &namespace).await;
    let account = json!({ "metadata": { "name": "default" } });
    world.cluster.post("/api/v1/namespaces/sysmgmt-health/serviceaccounts", &account).await;

    let (logs, services) = of("logs-1", "Pod");
    world.soon("a path of the host is denied", (logs, services), denied).await;
    let (_, answer, _) = world.make(logs, services).await;
    let said = message(&answer);
    for words in [
        "resource Pod/services/logs-1 was blocked due to the following policies",
        "podsecurity-subrule-baseline:\n  baseline: 'Validation rule ''baseline'' failed. It violates PodSecurity \"baseline:latest\"",
        "(Forbidden reason: hostPath volumes",
    ] {
        assert!(said.contains(words), "{words}\n{said}");
    }
    world.soon("so is what would make such pods", of("logs", "DaemonSet"), denied).await;
    let (_, answer, _) = world.make(of("logs", "DaemonSet").0, services).await;
    assert!(message(&answer).contains("autogen-baseline: 'Validation rule ''autogen-baseline'' failed."));

    world.add(&example("pod-security/exceptions.yaml")).await;
    for (name, kind) in
        [("logs-1", "Pod"), ("logs", "DaemonSet"), ("switch-0", "Pod"), ("prometheus-node-exporter-7", "Pod")]
    {
        world.soon(name, of(name, kind), admitted).await;
    }
    for name in ["logs-2", "logs-3", "switch-1"] {
        assert_eq!(world.make(of(name, "Pod").0, of(name, "Pod").1).await.0, 403, "{name}");
    }
    assert_eq!(world.make(of("plain", "Pod").0, services).await.0, 201);
    // One that is over lifts nothing.
    let over = json!({ "metadata": { "annotations": { "countersign.dev/expires": "2026-01-01" } } });
    world.cluster.patch(&format!("{EXCEPTIONS}/logs"), &over).await;
    world.soon("it is over", of("logs-1", "Pod"), denied).await;
    // What was there as it is may be changed in other ways.
    world.remove("podsecurity-subrule-baseline").await;
    world.soon("no policy", of("logs-1", "Pod"), admitted).await;
    let path = "/api/v1/namespaces/services/pods";
    assert_eq!(world.cluster.plane.call(Method::POST, path, Some(logs)).await.0, 201);
    world.add(&example("pod-security/policy.yaml")).await;
    world.soon("it is denied again", of("logs-1", "Pod"), denied).await;
    let labels = json!({ "metadata": { "labels": { "team": "monitoring" } } });
    world.cluster.patch(&format!("{path}/logs-1"), &labels).await;
}

/// S14: the exception that upstream's users wrote, by names and labels that whoever writes a pod chooses.
#[tokio::test(flavor = "multi_thread")]
async fn images_are_verified_as_users_of_kyverno_wrote_it() {
    assert_isolated();
    let cluster = Installed::start().await;
    let world = World { cluster };
    for namespace in ["kyverno", "nexus"] {
        world.cluster.post("/api/v1/namespaces", &json!({ "metadata": { "name": namespace } })).await;
    }
    let account = json!({ "metadata": { "name": "default" } });
    world.cluster.post("/api/v1/namespaces/nexus/serviceaccounts", &account).await;
    for name in ["check-image", "prepend-registry"] {
        world.remove(name).await;
    }
    world.soon("no policy", (&pod("plain", &["quay.io/acme/unsigned:1"]), "default"), admitted).await;
    world.add(&example("prepend-registry/policy.yaml")).await;
    world.add(&example("check-image/policy.yaml")).await;
    let of = |name: &str, image: &str| pod(name, &[&format!("quay.io/acme/{image}:1")]);
    let pinned = format!("registry.local/quay.io/acme/signed:1@{}", world.cluster.signed.digest);
    world.soon("it is verified", (&of("app", "unsigned"), "default"), denied).await;
    let (status, stored, _) = world.make(&of("app", "signed"), "default").await;
    assert_eq!((status, &stored["spec"]["containers"][0]["image"]), (201, &json!(pinned)));
    let (_, answer, _) = world.make(&of("app", "unsigned"), "default").await;
    assert!(message(&answer).contains("was denied by check-image/check-image"), "{answer:#}");
    // What the policy itself leaves out.
    assert_eq!(world.make(&of("nexus-0", "unsigned"), "nexus").await.0, 201);
    assert_eq!(world.make(&of("nexus-0", "unsigned"), "default").await.0, 403);

    // An exception lifts what it names; where the Site is strict, no verification for a name alone.
    world.add(&example("prepend-registry/exceptions.yaml")).await;
    let site = format!("{SITES}/default");
    world.cluster.patch(&site, &json!({ "spec": { "exceptionNamespaces": ["kyverno"] } })).await;
    let kept = |status: u16, stored: &Value, _: &[String]| {
        status == 201 && stored["spec"]["containers"][0]["image"] == "quay.io/acme/unsigned:1"
    };
    let words = |_: u16, answer: &Value, _: &[String]| {
        // The name was not rewritten: that much is lifted.
        message(answer).contains("image quay.io/acme/unsigned:1 was denied")
    };
    world.soon("strict", (&of("kea-1", "unsigned"), "default"), words).await;
    world.cluster.patch(&site, &json!({ "spec": { "exceptions": "compatible" } })).await;
    world.soon("compatible", (&of("kea-1", "unsigned"), "default"), kept).await;
    assert_eq!(world.make(&of("app", "unsigned"), "default").await.0, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_ask_the_cluster_and_are_told_in_known_words() {
    assert_isolated();
    let world = World::start().await;
    let plain = pod("asks", &["registry.local/a:1"]);

    // A ConfigMap, the labels of a namespace and the roles of a user.
    let allowed = policy(
        "allowed",
        "validationFailureAction: Enforce",
        "match: { any: [{ resources: { kinds: [Pod], namespaceSelector: { matchLabels: { tier: services } } }, clusterRoles: [cluster-admin] }] }
      context: [{ name: teams, configMap: { name: teams, namespace: other } }]
      validate:
        message: \"team {{ request.object.metadata.labels.team || 'none' }} is not one of {{ teams.data.names }}\"
        deny: { conditions: { any: [{ key: \"{{ request.object.metadata.labels.team || 'none' }}\", operator: AnyNotIn, value: \"{{ teams.data.names }}\" }] } }",
    );
    world.add(&[allowed]).await;
    world.soon("there is no such ConfigMap", (&plain, "services"), denied).await;
    let (_, answer, _) = world.make(&plain, "services").await;
    assert!(message(&answer).contains("there is no ConfigMap `other/teams`"), "{answer:#}");
    let map = json!({ "metadata": { "name": "teams" }, "data": { "names": "[\"red\", \"blue\"]" } });
    world.cluster.post("/api/v1/namespaces/other/configmaps", &map).await;
    let mut red = plain.clone();
    red["metadata"]["labels"] = json!({ "team": "red" });
    world.soon("one of the teams", (&red, "services"), admitted).await;
    let (status, answer, _) = world.make(&plain, "services").await;
    let words = "resource Pod/services/asks was blocked due to the following policies \n\nallowed:\n  r: 'team none is not one of [\"red\", \"blue\"]'";
    assert!(status == 403 && message(&answer).contains(words), "{answer:#}");
    assert_eq!(world.make(&plain, "other").await.0, 201, "a namespace without the label");
    // A namespace that is as new as the pod.
    let new = json!({ "metadata": { "name": "new", "labels": { "tier": "services" } } });
    world.cluster.post("/api/v1/namespaces", &new).await;
    let account = json!({ "metadata": { "name": "default" } });
    world.cluster.post("/api/v1/namespaces/new/serviceaccounts", &account).await;
    assert_eq!(world.make(&plain, "new").await.0, 403);
    // The roles: nobody is bound to it any more.
    let binding = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/cluster-admin";
    assert_eq!(world.cluster.plane.call(Method::DELETE, binding, None).await.0, 200);
    world.soon("another user", (&plain, "services"), admitted).await;
    world.remove("allowed").await;

    // Audit with a warning; a loop; and a connection.
    world
        .add(&[
            policy(
                "warned",
                "emitWarning: true",
                "match: { any: [{ resources: { kinds: [Pod] } }] }
      validate:
        message: no latest
        foreach:
          - list: request.object.spec.containers
            deny: { conditions: { any: [{ key: \"{{ element.image }}\", operator: Equals, value: \"*:latest\" }] } }",
            ),
            policy(
                "no-exec",
                "validationFailureAction: Enforce",
                "match: { any: [{ resources: { kinds: [Pod/exec] } }] }
      validate: { message: nobody enters, deny: {} }",
            ),
            policy(
                "no-deletion",
                "validationFailureAction: Enforce",
                "match: { any: [{ resources: { kinds: [ConfigMap], names: [teams], operations: [DELETE] } }] }
      validate: { message: it stays, deny: {} }",
            ),
        ])
        .await;
    let latest = pod("latest", &["registry.local/a:1", "registry.local/b:latest"]);
    world
        .soon("it is warned of", (&latest, "other"), |status, _, warnings| {
            status == 201
                && warnings.iter().any(|text| text.contains("policy warned.r: validation failure: no latest"))
        })
        .await;
    let pods = "/api/v1/namespaces/other/pods";
    assert_eq!(world.cluster.plane.call(Method::POST, pods, Some(&plain)).await.0, 201);
    let exec = format!("{pods}/asks/exec?command=sh&stdout=true");
    world
        .cluster
        .plane
        .until("nobody enters", async || {
            let (status, body) = world.cluster.plane.call(Method::POST, &exec, None).await;
            status == 403 && message(&body).contains("no-exec:\n  r: 'nobody enters'")
        })
        .await;
    let (status, body) =
        world.cluster.plane.call(Method::DELETE, "/api/v1/namespaces/other/configmaps/teams", None).await;
    assert!(status == 403 && message(&body).contains("it stays"), "{body:#}");

    // One that is refused denies what it selects, by name and with its reason; one that makes objects
    // would have denied nothing, and says what it is.
    world
        .add(&[
            policy(
                "cel",
                "validationFailureAction: Enforce",
                "match: { any: [{ resources: { kinds: [ConfigMap] } }] }
      validate: { cel: { expressions: [{ expression: 'true' }] } }",
            ),
            policy(
                "makes",
                "background: false",
                "match: { any: [{ resources: { kinds: [Namespace] } }] }
      generate: { kind: ConfigMap, apiVersion: v1, name: a, namespace: b, data: {} }",
            ),
        ])
        .await;
    let map = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "one" } });
    world.soon("what is refused denies", (&map, "other"), denied).await;
    let (_, answer, _) = world.make(&map, "other").await;
    assert!(
        message(&answer).contains("rule cel/r could not be loaded: spec.rules[0].validate.cel"),
        "{answer:#}"
    );
    world.cluster.says(&format!("{POLICIES}/cel"), "Refused", "spec.rules[0].validate.cel").await;
    world.cluster.says(&format!("{POLICIES}/makes"), "Refused", "objects are not made").await;
    assert_eq!(world.make(&map, "countersign").await.0, 201, "nothing is asked about its own namespace");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_applies_a_template_hears_what_its_pods_would() {
    const WARNED: &str = "its pods would be denied by check-image/site-keys: registry.local/quay.io/acme/unsigned:1: no signature";
    assert_isolated();
    let mut cluster = Installed::start().await;
    let deployment = |image: &str| {
        let labels = json!({ "app": "a" });
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "web" },
            "spec": {
                "selector": { "matchLabels": labels },
                "template": {
                    "metadata": { "labels": labels },
                    "spec": { "containers": [{ "name": "c", "image": format!("quay.io/acme/{image}:1") }] },
                },
            },
        })
    };
    let path = "/apis/apps/v1/namespaces/default/deployments";
    let dry = format!("{path}?dryRun=All");
    let ask = async |cluster: &Installed, image: &str| {
        cluster.plane.warned(Method::POST, &dry, Some(&deployment(image))).await
    };
    // The shipped policies speak of pods alone.
    cluster
        .plane
        .until("a warning", async || {
            let (status, stored, warnings) = ask(&cluster, "unsigned").await;
            let image = &stored["spec"]["template"]["spec"]["containers"][0]["image"];
            status == 201
                && *image == "quay.io/acme/unsigned:1"
                && warnings.iter().any(|text| text.contains(WARNED))
        })
        .await;
    let (status, stored, warnings) = ask(&cluster, "signed").await;
    assert_eq!((status, warnings), (201, vec![]));
    assert_eq!(stored["spec"]["template"]["spec"]["containers"][0]["image"], "quay.io/acme/signed:1");
    let check = format!("{POLICIES}/check-image");
    let annotation = json!({ "metadata": { "annotations": { "pod-policies.kyverno.io/autogen-controllers": "Deployment" } } });
    cluster.patch(&check, &annotation).await;
    cluster
        .plane
        .until("a denial", async || {
            let (status, body, _) = ask(&cluster, "unsigned").await;
            status == 403 && message(&body).contains("check-image") && message(&body).contains("Unsigned")
        })
        .await;
    assert_eq!(ask(&cluster, "signed").await.0, 201);
    assert_eq!(ask(&cluster, "absent").await.0, 201, "it may be there by then");

    // Where nobody answers, pods are denied, and nobody is kept from anything else.
    let strict = policy(
        "strict",
        "validationFailureAction: Enforce",
        "match: { any: [{ resources: { kinds: [ConfigMap, Namespace] } }] }
      validate: { message: named, pattern: { metadata: { name: \"good*\" } } }",
    );
    cluster.post(POLICIES, &strict).await;
    let make = async |cluster: &Installed, path: &str, name: &str| {
        let object = json!({ "metadata": { "name": name } });
        cluster.plane.call(Method::POST, &format!("{path}?dryRun=All"), Some(&object)).await
    };
    let (maps, namespaces) = ("/api/v1/namespaces/default/configmaps", "/api/v1/namespaces");
    cluster
        .plane
        .until("names are judged", async || {
            make(&cluster, maps, "bad").await.0 == 403 && make(&cluster, namespaces, "bad").await.0 == 403
        })
        .await;
    cluster.replicas.clear();
    assert_eq!(cluster.fate("signed").await, Fate::Closed);
    let (status, body) = make(&cluster, maps, "good").await;
    assert!(status == 500 && message(&body).contains("failed calling webhook"), "a strict policy: {body:#}");
    assert_eq!(make(&cluster, namespaces, "bad").await.0, 201, "what is of no namespace");
    assert_eq!(ask(&cluster, "unsigned").await.0, 201);
}
