//! Texts that hold something: JSON, YAML, base64; and digests of texts.

use aws_lc_rs::digest::{Algorithm, SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{GeneralPurpose, GeneralPurposeConfig};
use serde_json::Value;

use super::Kind::Text;
use super::{Arguments, Function};
use crate::md5::md5;
use crate::numbers::whole;
use crate::{Error, MAX_YAML};

/// As Go's `StdEncoding` decodes: with padding, and with bits at the end that say nothing.
const BASE64: GeneralPurpose =
    GeneralPurpose::new(&STANDARD, GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true));

pub(super) const FUNCTIONS: &[Function] = &[
    Function::build("base64_decode", &[&[Text]], base64_decode),
    Function::build("base64_encode", &[&[Text]], |a| Ok(BASE64.encode(a.text(0)?).into())),
    Function::build("md5", &[&[Text]], |a| Ok(md5(a.text(0)?.as_bytes()).into())),
    Function::build("parse_json", &[&[Text]], |a| match serde_json::from_str(a.text(0)?) {
        Ok(value) => Ok(whole(value)),
        Err(error) => Err(a.fail(format!("not JSON: {error}"))),
    }),
    Function::build("parse_yaml", &[&[Text]], parse_yaml),
    Function::build("sha1", &[&[Text]], |a| hash(a, &SHA1_FOR_LEGACY_USE_ONLY)),
    Function::build("sha256", &[&[Text]], |a| hash(a, &SHA256)),
    Function::refused("x509_decode", "its result is a certificate in the form of Go's own structures"),
];

fn base64_decode(a: &mut Arguments<'_, '_, '_>) -> Result<Value, Error> {
    let text = a.text(0)?.replace(['\r', '\n'], "");
    let bytes = BASE64.decode(text).map_err(|error| a.fail(error.to_string()))?;
    String::from_utf8(bytes).map(Value::from).map_err(|_| a.fail("what was encoded is not UTF-8"))
}

/// The first document; null if there is none.
fn parse_yaml(a: &mut Arguments<'_, '_, '_>) -> Result<Value, Error> {
    let text = a.text(0)?;
    if text.len() > MAX_YAML {
        return Err(Error::Limit("too much YAML"));
    }
    let documents = countersign_yaml::documents(text).map_err(|error| a.fail(error.to_string()))?;
    Ok(documents.into_iter().next().map(whole).unwrap_or_default())
}

fn hash(a: &mut Arguments<'_, '_, '_>, algorithm: &'static Algorithm) -> Result<Value, Error> {
    Ok(hex::encode(digest(algorithm, a.text(0)?.as_bytes())).into())
}
