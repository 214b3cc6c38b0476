//! Which registry is which: by the tag that each shows its own image under.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::process::{Command, Stdio};
use std::sync::Arc;

use countersign_clock::SystemClock;
use countersign_e2e::{
    Process, Registry, RegistryKind, assert_isolated, countersign, free_port, push_image, succeed,
};
use countersign_https::ClientTls;
use countersign_install::{CanaryError, Role, mark, marked};
use countersign_mirrors::Mirror;
use countersign_registry::{Endpoint, EndpointSettings, Limits, Places, Timing};
use countersign_site::RegistryUrl;

fn endpoint(port: u16) -> Endpoint {
    let mirror = Mirror::new("a", RegistryUrl::parse(&format!("http://127.0.0.1:{port}")).unwrap());
    let settings = EndpointSettings {
        tls: ClientTls::default(),
        limits: Limits::DEFAULT,
        timing: Timing::DEFAULT,
        credentials: None,
        places: Places::new(&Limits::DEFAULT),
    };
    Endpoint::new(&mirror, settings, Arc::new(SystemClock::default())).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_registry_shows_its_own_image_and_says_so_where_it_has_none() {
    assert_isolated();
    let registry = Registry::start(RegistryKind::Distribution);
    let cluster = endpoint(registry.port);
    let error = mark(&cluster).await.unwrap_err().to_string();
    assert!(error.contains("`countersign/canary:cluster` at http://127.0.0.1:"), "{error}");
    assert!(error.contains("have to be in the bundle and in the registry"), "{error}");

    let host = registry.host();
    let of_bootstrap = push_image(&host, "countersign/canary", "bootstrap", "of the bootstrap machine").await;
    let of_cluster = push_image(&host, "countersign/canary", "cluster", "of the cluster").await;
    assert!(marked(&cluster, Role::Cluster).await.is_err(), "nobody has marked it yet");
    for _ in 0..2 {
        assert_eq!(mark(&cluster).await.unwrap(), of_cluster.digest);
    }
    assert_eq!(marked(&cluster, Role::Cluster).await.unwrap(), of_cluster.digest);
    // What shows another one's image is not it: going back to a second registry marks that one.
    let error = marked(&cluster, Role::Bootstrap).await.unwrap_err();
    assert!(matches!(&error, CanaryError::Another { found, .. } if *found == of_cluster.digest), "{error}");

    // The bootstrap registry shows its own by itself, and takes no other.
    let (directory, port) = (tempfile::tempdir().unwrap(), free_port());
    let bundle = directory.path().join("bundle.tar");
    let mut create = Command::new(countersign());
    create.args(["bundle", "create", "--to"]).arg(&bundle);
    create.arg("--registry").arg(format!("registry.local=http://{host}"));
    create.args(["bootstrap", "cluster"].map(|tag| format!("registry.local/countersign/canary:{tag}")));
    succeed(&mut create);
    let mut serve = Command::new(countersign());
    serve.args(["registry", "serve", "--http", "--listen", &format!("127.0.0.1:{port}")]).arg(&bundle);
    let _serve = Process::listening(serve.stderr(Stdio::null()), port);
    let bootstrap = endpoint(port);
    assert_eq!(marked(&bootstrap, Role::Bootstrap).await.unwrap(), of_bootstrap.digest);
    assert!(marked(&bootstrap, Role::Cluster).await.is_err());
    assert!(mark(&bootstrap).await.is_err(), "it takes nothing");
    assert_eq!(marked(&bootstrap, Role::Bootstrap).await.unwrap(), of_bootstrap.digest);
}
