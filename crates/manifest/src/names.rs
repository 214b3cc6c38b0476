//! A look at a document before it is read, of which nothing is kept: how long its lists are, and names
//! that Go reads and others do not (`encoding/json` compares them folded).

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// The names that are read, of documents and of descriptors.
const NAMES: [&str; 17] = [
    "mediaType",
    "schemaVersion",
    "manifests",
    "layers",
    "config",
    "fsLayers",
    "subject",
    "artifactType",
    "annotations",
    "digest",
    "size",
    "platform",
    "urls",
    "data",
    "os",
    "architecture",
    "variant",
];
/// Characters of a name that are passed on.
const MAX_NAME: usize = 40;
/// How deep the names that are read lie: document, list, descriptor, platform.
const NAMED_DEPTH: usize = 4;

/// What is seen.
#[derive(Default)]
pub(crate) struct Look {
    /// The first name that Go would take for one of those, and that is written otherwise.
    pub(crate) misspelt: Option<String>,
    /// Entries of the longest list.
    pub(crate) longest: usize,
}

impl Look {
    fn add(&mut self, other: Self) {
        self.longest = self.longest.max(other.longest);
        self.misspelt = self.misspelt.take().or(other.misspelt);
    }
}

/// Looks at all of a text.
pub(crate) fn look(text: &[u8]) -> Result<Look, serde_json::Error> {
    Within(0).deserialize(&mut serde_json::Deserializer::from_slice(text))
}

fn is_misspelt(name: &str) -> bool {
    let folded = name.replace('\u{17f}', "s").replace('\u{212a}', "k");
    NAMES.iter().any(|known| known.eq_ignore_ascii_case(&folded) && *known != name)
}

/// A value so deep in the document.
struct Within(usize);

impl Within {
    fn inner(&self) -> Option<Self> {
        (self.0 < NAMED_DEPTH).then_some(Self(self.0 + 1))
    }
}

impl<'de> DeserializeSeed<'de> for Within {
    type Value = Look;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Look, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Within {
    type Value = Look;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Look, E> {
        Ok(Look::default())
    }

    fn visit_i64<E>(self, _: i64) -> Result<Look, E> {
        Ok(Look::default())
    }

    fn visit_u64<E>(self, _: u64) -> Result<Look, E> {
        Ok(Look::default())
    }

    fn visit_f64<E>(self, _: f64) -> Result<Look, E> {
        Ok(Look::default())
    }

    fn visit_str<E>(self, _: &str) -> Result<Look, E> {
        Ok(Look::default())
    }

    fn visit_unit<E>(self) -> Result<Look, E> {
        Ok(Look::default())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Look, A::Error> {
        let (mut look, mut length) = (Look::default(), 0);
        loop {
            match self.inner() {
                Some(inner) => match list.next_element_seed(inner)? {
                    Some(entry) => look.add(entry),
                    None => break,
                },
                None if list.next_element::<IgnoredAny>()?.is_none() => break,
                None => {}
            }
            length += 1;
        }
        look.longest = look.longest.max(length);
        Ok(look)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Look, A::Error> {
        let mut look = Look::default();
        while let Some(name) = fields.next_key::<String>()? {
            if look.misspelt.is_none() && is_misspelt(&name) {
                look.misspelt = Some(name.chars().take(MAX_NAME).collect());
            }
            // What is said in annotations has names of its own.
            match self.inner().filter(|_| name != "annotations") {
                Some(inner) => look.add(fields.next_value_seed(inner)?),
                None => _ = fields.next_value::<IgnoredAny>()?,
            }
        }
        Ok(look)
    }
}
