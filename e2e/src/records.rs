//! Tag records as a cluster itself would have made them, some time ago.

use base64::Engine as _;
use countersign_clock::{Clock as _, SystemClock};
use countersign_evidence::{Origin, RecordKey, TagRecord};
use countersign_reference::{Digest, Reference};
use hyper::Method;
use jiff::SignedDuration;
use serde_json::{Value, json};

use crate::{ControlPlane, SECRETS};

/// A record of so many days ago.
pub async fn tag_record(
    plane: &ControlPlane,
    image: &str,
    digest: &Digest,
    days: i64,
    origin: Origin,
) -> Value {
    let secret = plane.call(Method::GET, &format!("{SECRETS}/countersign-evidence"), None).await.1;
    let key = secret["data"]["hmac"].as_str().unwrap();
    let key = base64::engine::general_purpose::STANDARD.decode(key).unwrap();
    let key = RecordKey::parse(std::str::from_utf8(&key).unwrap()).unwrap();
    let record = TagRecord {
        digest: digest.clone(),
        confirmed: SystemClock::default().wall() - SignedDuration::from_hours(24 * days),
        origin,
    };
    let mac = key.mac(&Reference::parse(image).unwrap(), &record);
    json!({ "image": image, "confirmed": record.confirmed.to_string(), "origin": origin.word(), "mac": mac.0 })
}
