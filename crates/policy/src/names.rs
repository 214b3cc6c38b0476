//! The names and functions that expressions may use.

use std::cell::OnceCell;

use countersign_jmespath::{Error, Fuel, Moment, Scope};
use countersign_reference::Reference;
use serde_json::{Value, json};

use crate::{Engine, Review, images};

/// Loops within loops that have names of their own: `element0`, `elementIndex0` and so on.
const MAX_LOOPS: usize = 8;

/// `request`, `images`, `element` and `elementIndex`, the service account, what a rule's context
/// brings, and the site's one rewriter.
pub(crate) struct Names<'a> {
    engine: &'a Engine,
    review: &'a Review,
    /// The request, with the object as the rules before have left it.
    request: Value,
    /// Made when a rule speaks of it.
    images: OnceCell<Value>,
    /// Mutate rules see the images that were written, as upstream; others those that will be stored.
    mutating: bool,
    /// The user of the request, where that is a service account: its name and namespace.
    account: [Value; 2],
    /// What the context of the rule under way has brought so far; the last of a name counts.
    variables: Vec<(String, Value)>,
    /// The elements of the loops under way, the innermost last, with their indices.
    elements: Vec<(Value, Value)>,
    /// What the request said before the rule under way was given something else, the last first to be put back.
    before: Vec<(Vec<String>, Value)>,
    /// What is left for all rules together.
    fuel: Fuel,
}

impl<'a> Names<'a> {
    pub(crate) fn new(engine: &'a Engine, review: &'a Review, fuel: Fuel) -> Self {
        let user = review.request["userInfo"]["username"].as_str().unwrap_or_default();
        let account = user.strip_prefix("system:serviceaccount:").and_then(|account| account.split_once(':'));
        let (namespace, name) = account.unwrap_or_default();
        Self {
            engine,
            review,
            request: review.request.clone(),
            images: OnceCell::new(),
            mutating: true,
            account: [json!(name), json!(namespace)],
            variables: Vec::new(),
            elements: Vec::new(),
            before: Vec::new(),
            fuel,
        }
    }

    /// What is left for all rules together.
    pub(crate) fn fuel(&self) -> &Fuel {
        &self.fuel
    }

    /// The object as it is now.
    pub(crate) fn object(&self) -> &Value {
        &self.request["object"]
    }

    /// The object that is there, or the one that was.
    pub(crate) fn current(&self) -> &Value {
        let object = self.object();
        if object.is_null() { &self.request["oldObject"] } else { object }
    }

    pub(crate) fn object_mut(&mut self) -> &mut Value {
        &mut self.request["object"]
    }

    /// Goes on with another request: a rule is held against what was stored before.
    pub(crate) fn swap_request(&mut self, request: Value) -> Value {
        self.images.take();
        std::mem::replace(&mut self.request, request)
    }

    pub(crate) fn request(&self) -> &Value {
        &self.request
    }

    /// From here on the object is the one that will be stored.
    pub(crate) fn mutated(&mut self) {
        self.mutating = false;
        self.images.take();
    }

    /// Begins a rule: what the one before has brought is gone.
    pub(crate) fn begin(&mut self, policy: &str, rule: &str) {
        self.variables.clear();
        self.elements.clear();
        while let Some((path, value)) = self.before.pop() {
            let path: Vec<&str> = path.iter().map(String::as_str).collect();
            put(&mut self.request, &path, value);
        }
        let given = self.review.given.as_ref().map(|given| given.of(policy, rule));
        for (name, value) in given.into_iter().flatten() {
            self.give(&name, value);
        }
    }

    /// Puts a value where a dotted name leads: into the request, or under a name of its own.
    fn give(&mut self, name: &str, value: Value) {
        let mut parts = name.split('.');
        let root = parts.next().unwrap_or_default();
        let rest: Vec<&str> = parts.collect();
        if root == "request" {
            let said = rest.iter().try_fold(&self.request, |value, name| value.get(name));
            let path = rest.iter().map(|name| (*name).to_owned()).collect();
            self.before.push((path, said.cloned().unwrap_or_default()));
            put(&mut self.request, &rest, value);
            return;
        }
        let at = self.variables.iter().position(|(known, _)| known == root).unwrap_or_else(|| {
            self.variables.push((root.to_owned(), Value::Null));
            self.variables.len() - 1
        });
        put(&mut self.variables[at].1, &rest, value);
    }

    /// Whether a test has said what a name stands for.
    pub(crate) fn is_given(&self, name: &str) -> bool {
        self.variables.iter().any(|(known, _)| known == name)
    }

    /// Adds a variable of the rule's context.
    pub(crate) fn set(&mut self, name: &str, value: Value) {
        self.variables.push((name.to_owned(), value));
    }

    /// Where the context stands, so that what a loop adds can be taken away.
    pub(crate) fn mark(&self) -> usize {
        self.variables.len()
    }

    /// Takes away what was added since.
    pub(crate) fn reset(&mut self, mark: usize) {
        self.variables.truncate(mark);
    }

    /// Enters an element of a loop; `false` where there are too many loops.
    pub(crate) fn enter(&mut self, element: Value, index: usize) -> bool {
        if self.elements.len() == MAX_LOOPS {
            return false;
        }
        self.elements.push((element, json!(index)));
        true
    }

    /// Leaves it.
    pub(crate) fn leave(&mut self) {
        self.elements.pop();
    }

    /// The element of the innermost loop, or of the one with this number.
    fn element(&self, number: &str) -> Option<&(Value, Value)> {
        if number.is_empty() {
            self.elements.last()
        } else {
            self.elements.get(number.parse::<usize>().ok()?)
        }
    }
}

/// Sets what is below a value, along these names.
fn put(place: &mut Value, path: &[&str], value: Value) {
    match path {
        [] => *place = value,
        [first, rest @ ..] => {
            if !place.is_object() {
                *place = json!({});
            }
            put(&mut place[*first], rest, value);
        }
    }
}

impl Scope for Names<'_> {
    fn fuel(&self) -> Option<&Fuel> {
        Some(&self.fuel)
    }

    fn moment(&self) -> Option<Moment> {
        self.review.moment
    }

    fn lookup(&self, name: &str) -> Result<Option<&Value>, Error> {
        if let Some((_, value)) = self.variables.iter().rev().find(|(known, _)| known == name) {
            return Ok(Some(value));
        }
        let images = || {
            let object = if self.mutating { self.review.object() } else { self.object() };
            images::variable(object)
        };
        Ok(match name {
            "request" => Some(&self.request),
            "images" => Some(self.images.get_or_init(images)),
            "serviceAccountName" => Some(&self.account[0]),
            "serviceAccountNamespace" => Some(&self.account[1]),
            _ => match (name.strip_prefix("elementIndex"), name.strip_prefix("element")) {
                (Some(number), _) => self.element(number).map(|(_, index)| index),
                (None, Some(number)) => self.element(number).map(|(element, _)| element),
                (None, None) => None,
            },
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
