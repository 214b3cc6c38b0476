//! Pushes small images the way any client does.

use bytes::Bytes;
use countersign_reference::Digest;
use http_body_util::{BodyExt as _, Full};
use hyper::header::{CONTENT_TYPE, LOCATION};
use hyper::{Method, Request, Response, body::Incoming};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::json;

pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// An image in a registry.
#[derive(Clone, Debug)]
pub struct Pushed {
    /// `host/repository`.
    pub name: String,
    /// Its tag.
    pub tag: String,
    /// What was pushed.
    pub digest: Digest,
    size: usize,
}

impl Pushed {
    /// One that is there already.
    pub fn there(host: &str, repository: &str, tag: &str, digest: &str) -> Self {
        let digest = Digest::parse(digest).unwrap();
        Self { name: format!("{host}/{repository}"), tag: tag.to_owned(), digest, size: 0 }
    }

    /// By the name that it has at another host.
    pub fn named(&self, host: &str) -> String {
        format!("{host}/{}:{}", self.name.split_once('/').unwrap().1, self.tag)
    }

    /// As a list of manifests or a `subject` names it.
    pub(crate) fn descriptor(&self) -> serde_json::Value {
        json!({ "mediaType": MANIFEST, "digest": self.digest.to_string(), "size": self.size })
    }

    /// `host/repository@digest`, as signers want it.
    pub fn by_digest(&self) -> String {
        format!("{}@{}", self.name, self.digest)
    }
}

async fn send(method: Method, url: &str, content_type: &str, body: Vec<u8>) -> Response<Incoming> {
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let request = Request::builder().method(method).uri(url).header(CONTENT_TYPE, content_type);
    let response = client.request(request.body(Full::new(body.into())).unwrap()).await.unwrap();
    if response.status().is_success() {
        return response;
    }
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    panic!("{url}: {status}: {}", String::from_utf8_lossy(&body));
}

pub(crate) async fn blob(host: &str, repository: &str, content: &[u8]) -> serde_json::Value {
    let digest = Digest::sha256_of(content);
    let start =
        send(Method::POST, &format!("http://{host}/v2/{repository}/blobs/uploads/"), "text/plain", vec![])
            .await;
    let location = start.headers()[LOCATION].to_str().unwrap();
    let location =
        if location.starts_with('/') { format!("http://{host}{location}") } else { location.to_owned() };
    let join = if location.contains('?') { '&' } else { '?' };
    let url = format!("{location}{join}digest={digest}");
    send(Method::PUT, &url, "application/octet-stream", content.to_vec()).await;
    json!({ "digest": digest.to_string(), "size": content.len() })
}

pub(crate) async fn manifest(
    host: &str,
    repository: &str,
    tag: &str,
    media_type: &str,
    content: &serde_json::Value,
) -> Pushed {
    let content = content.to_string().into_bytes();
    let (digest, size) = (Digest::sha256_of(&content), content.len());
    send(Method::PUT, &format!("http://{host}/v2/{repository}/manifests/{tag}"), media_type, content).await;
    Pushed { name: format!("{host}/{repository}"), tag: tag.to_owned(), digest, size }
}

/// A layer that a runtime can unpack: an archive with one file.
pub fn layer(content: &str) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    let mut builder = tar::Builder::new(Vec::new());
    builder.append_data(&mut header, "content", content.as_bytes()).unwrap();
    builder.into_inner().unwrap()
}

/// Pushes an image of one small layer, whose content makes its digest.
pub async fn push_image(host: &str, repository: &str, tag: &str, content: &str) -> Pushed {
    push_image_for("amd64", host, repository, tag, content).await
}

/// The same for machines of this architecture.
pub async fn push_image_for(
    architecture: &str,
    host: &str,
    repository: &str,
    tag: &str,
    content: &str,
) -> Pushed {
    let archive = layer(content);
    let rootfs = json!({ "type": "layers", "diff_ids": [Digest::sha256_of(&archive).to_string()] });
    let config = json!({ "architecture": architecture, "os": "linux", "rootfs": rootfs });
    let mut config = blob(host, repository, config.to_string().as_bytes()).await;
    config["mediaType"] = json!("application/vnd.oci.image.config.v1+json");
    let mut layer = blob(host, repository, &archive).await;
    layer["mediaType"] = json!("application/vnd.oci.image.layer.v1.tar");
    let content = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer] });
    manifest(host, repository, tag, MANIFEST, &content).await
}

/// Pushes an image that runs: one program, with the arguments that it has where a pod gives none.
pub async fn push_program(
    host: &str,
    repository: &str,
    tag: &str,
    program: &std::path::Path,
    arguments: &[&str],
) -> Pushed {
    let content = std::fs::read(program).unwrap();
    let mut header = tar::Header::new_ustar();
    header.set_size(content.len() as u64);
    header.set_mode(0o755);
    let mut builder = tar::Builder::new(Vec::new());
    builder.append_data(&mut header, "program", content.as_slice()).unwrap();
    // One that no other image has: layers of images that are removed go, too.
    let mark = format!("{repository}:{tag} {}", arguments.join(" "));
    let mut header = tar::Header::new_ustar();
    header.set_size(mark.len() as u64);
    header.set_mode(0o644);
    builder.append_data(&mut header, "mark", mark.as_bytes()).unwrap();
    let archive = builder.into_inner().unwrap();
    let rootfs = json!({ "type": "layers", "diff_ids": [Digest::sha256_of(&archive).to_string()] });
    let run = json!({ "Entrypoint": ["/program"], "Cmd": arguments });
    let config = json!({ "architecture": "amd64", "os": "linux", "config": run, "rootfs": rootfs });
    let mut config = blob(host, repository, config.to_string().as_bytes()).await;
    config["mediaType"] = json!("application/vnd.oci.image.config.v1+json");
    let mut layer = blob(host, repository, &archive).await;
    layer["mediaType"] = json!("application/vnd.oci.image.layer.v1.tar");
    let content = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer] });
    manifest(host, repository, tag, MANIFEST, &content).await
}

/// Pushes an index over images that are there.
pub async fn push_index(host: &str, repository: &str, tag: &str, images: &[(&str, &Pushed)]) -> Pushed {
    let manifests: Vec<_> = images
        .iter()
        .map(|(architecture, image)| {
            let mut entry = image.descriptor();
            entry["platform"] = json!({ "architecture": architecture, "os": "linux" });
            entry
        })
        .collect();
    let content = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests });
    manifest(host, repository, tag, INDEX, &content).await
}
