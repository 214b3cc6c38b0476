//! Functions that match: regular expressions, wildcards, labels, versions, images.

use std::borrow::Cow;

use countersign_reference::kyverno::ImageInfo;
use countersign_reference::wildcard_match;
use serde_json::Value;

use super::Kind::{Number, Object, Text};
use super::texts::plain;
use super::{Arguments, Function};
use crate::evaluate::equal;
use crate::pattern::Pattern;
use crate::{Error, random, versions};

/// Steps that compiling a pattern takes.
const COMPILING: usize = 1_000;

pub(super) const FUNCTIONS: &[Function] = &[
    Function::build("image_normalize", &[&[Text]], |a| match ImageInfo::parse(a.text(0)?) {
        Ok(image) => Ok(image.reference().into()),
        Err(error) => Err(a.fail(error.to_string())),
    }),
    Function::refused("is_external_url", "it asks DNS, and an evaluation asks nobody"),
    Function::build("label_match", &[&[Object], &[Object]], label_match),
    Function::build("pattern_match", &[&[Text], &[Text, Number]], |a| {
        let (pattern, text) = (a.text(0)?.to_owned(), plain(a.value(1)));
        // Each star may go over the whole text.
        let stars = pattern.matches('*').count() + 1;
        a.budget().read(stars.saturating_mul(text.len()))?;
        Ok(wildcard_match(&pattern, &text).into())
    }),
    Function::build("random", &[&[Text]], |a| {
        let pattern = a.text(0)?.to_owned();
        let Some(moment) = &mut a.interpreter.moment else {
            return Err(a.fail("there is no randomness here"));
        };
        let mut numbers = moment.numbers();
        a.budget().work(COMPILING)?;
        random::text(&pattern, &mut numbers).map(Value::from).map_err(|error| a.fail(error))
    })
    .with_moment(),
    Function::build("regex_match", &[&[Text], &[Text, Number]], |a| {
        let text = plain(a.value(1));
        Ok(pattern(a)?.is_match(&text).into())
    })
    .with_pattern(),
    Function::build("regex_replace_all", &[&[Text], &[Text, Number], &[Text, Number]], |a| replace(a, true))
        .with_pattern(),
    Function::build("regex_replace_all_literal", &[&[Text], &[Text, Number], &[Text, Number]], |a| {
        replace(a, false)
    })
    .with_pattern(),
    Function::build("semver_compare", &[&[Text], &[Text]], |a| {
        let Some(version) = versions::version(a.text(0)?) else { return Err(a.wrong(0, "a version")) };
        let Some(range) = versions::Range::parse(a.text(1)?) else {
            return Err(a.wrong(1, "a range of versions"));
        };
        Ok(range.contains(&version).into())
    }),
];

/// The pattern that is the first argument, compiled before if it is a literal.
fn pattern<'v>(a: &mut Arguments<'_, '_, 'v>) -> Result<Cow<'v, Pattern>, Error> {
    if let Some(pattern) = a.pattern {
        return Ok(Cow::Borrowed(pattern));
    }
    a.budget().work(COMPILING)?;
    Pattern::compile(a.text(0)?).map(Cow::Owned).map_err(|error| a.fail(error))
}

fn replace(a: &mut Arguments<'_, '_, '_>, expand: bool) -> Result<Value, Error> {
    let pattern = pattern(a)?;
    let (text, by) = (plain(a.value(1)), plain(a.value(2)));
    // Each match costs more than the byte that it may be.
    a.budget().read(text.len().saturating_mul(16))?;
    let replaced = pattern.replace(&text, &by, expand, crate::MAX_BUILT);
    replaced.map(|text| text.into_owned().into()).ok_or(Error::Limit("too much is built"))
}

/// Whether the second object has every field of the first.
fn label_match(a: &mut Arguments<'_, '_, '_>) -> Result<Value, Error> {
    let (wanted, found) = (a.take(0), a.take(1));
    for (name, value) in wanted.as_object().into_iter().flatten() {
        a.budget().work(1)?;
        match found.get(name) {
            Some(found) if equal(found, value, a.budget())? => {}
            _ => return Ok(Value::Bool(false)),
        }
    }
    Ok(Value::Bool(true))
}
