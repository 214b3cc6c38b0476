//! What several parts ask of the API server in the same way.

use std::collections::BTreeMap;
use std::fmt::Debug;

use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{DynamicObject, ListParams, PostParams};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Objects that are asked for at a time.
const PAGE: u32 = 500;

/// Makes an object where there is none: whoever is first wins.
pub(crate) async fn make_if_absent<K, E>(
    api: &Api<K>,
    name: &str,
    object: impl FnOnce() -> Result<K, E>,
) -> Result<(), E>
where
    K: Clone + Debug + DeserializeOwned + Serialize,
    E: From<kube::Error>,
{
    if api.get_opt(name).await?.is_some() {
        return Ok(());
    }
    match api.create(&PostParams::default(), &object()?).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Looks at every object, page by page.
pub(crate) async fn each(
    api: &Api<DynamicObject>,
    mut visit: impl FnMut(DynamicObject),
) -> Result<(), kube::Error> {
    let mut page = ListParams::default().limit(PAGE);
    loop {
        let list = api.list(&page).await?;
        list.items.into_iter().for_each(&mut visit);
        match list.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page = page.continue_token(&token),
            None => return Ok(()),
        }
    }
}

/// What a Secret holds, by key; `None` where it is no text.
pub(crate) fn texts_of(secret: &Secret) -> BTreeMap<String, Option<String>> {
    let texts = secret.data.iter().flatten();
    texts.map(|(key, bytes)| (key.clone(), String::from_utf8(bytes.0.clone()).ok())).collect()
}
