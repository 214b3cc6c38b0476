//! The names and functions that expressions may use.

use std::cell::OnceCell;

use countersign_jmespath::{Error, Scope};
use countersign_reference::Reference;
use serde_json::{Value, json};

use crate::{Engine, Review, images};

/// `request`, `images`, `element` and `elementIndex`, and the site's one rewriter.
pub(crate) struct Names<'a> {
    engine: &'a Engine,
    review: &'a Review,
    /// The request, with the object as the rules before have left it.
    request: Value,
    /// Made when a rule speaks of it.
    images: OnceCell<Value>,
    /// Mutate rules see the images that were written, as upstream; others those that will be stored.
    mutating: bool,
    element: Option<(Value, Value)>,
}

impl<'a> Names<'a> {
    pub(crate) fn new(engine: &'a Engine, review: &'a Review) -> Self {
        let request = review.request.clone();
        Self { engine, review, request, images: OnceCell::new(), mutating: true, element: None }
    }

    /// The object as it is now.
    pub(crate) fn object(&self) -> &Value {
        &self.request["object"]
    }

    pub(crate) fn object_mut(&mut self) -> &mut Value {
        &mut self.request["object"]
    }

    /// From here on the object is the one that will be stored.
    pub(crate) fn mutated(&mut self) {
        self.mutating = false;
        self.images.take();
    }

    /// What `element` and `elementIndex` stand for; nothing outside of a loop.
    pub(crate) fn set_element(&mut self, element: Option<(Value, usize)>) {
        self.element = element.map(|(element, index)| (element, json!(index)));
    }
}

impl Scope for Names<'_> {
    fn lookup(&self, name: &str) -> Result<Option<&Value>, Error> {
        let images = || {
            let object = if self.mutating { self.review.object() } else { self.object() };
            images::variable(object)
        };
        Ok(match name {
            "request" => Some(&self.request),
            "images" => Some(self.images.get_or_init(images)),
            "element" => self.element.as_ref().map(|(element, _)| element),
            "elementIndex" => self.element.as_ref().map(|(_, index)| index),
            _ => None,
        })
    }

    fn call(&self, name: &str, arguments: &[Value]) -> Option<Result<Value, Error>> {
        (name == "registry_rewrite").then(|| {
            let failed = |message: String| Error::Call { function: name.to_owned(), message };
            let [Value::String(image)] = arguments else {
                return Err(failed("takes one image".to_owned()));
            };
            let rewrite = &self.engine.site().rewrite;
            let keeps_names = self.engine.is_bootstrap(&self.review.namespace) && !rewrite.bootstrap;
            if !rewrite.enabled || keeps_names {
                return Ok(json!(image));
            }
            let reference = Reference::parse(image).map_err(|error| failed(error.to_string()))?;
            let rewritten =
                rewrite.rewriter.rewrite(&reference).map_err(|error| failed(error.to_string()))?;
            Ok(json!(rewritten.to_string()))
        })
    }
}
