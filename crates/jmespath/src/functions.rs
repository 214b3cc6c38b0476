//! The functions: which there are, what they take, and how they are called.

use std::borrow::Cow;

use serde_json::{Map, Value};

use crate::Error;
use crate::budget::Budget;
use crate::evaluate::{Answer, At, Interpreter, forgiven, shown};
use crate::parser::Node;
use crate::pattern::Pattern;

mod arithmetic;
mod documents;
mod lists;
mod patterns;
mod texts;
mod times;

/// What an argument may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Any,
    Text,
    Number,
    List,
    Object,
    /// A list of numbers alone.
    Numbers,
    /// A list of strings alone.
    Texts,
    /// `&expression`.
    Reference,
}

/// One function.
#[derive(Debug)]
pub(crate) struct Function {
    pub(crate) name: &'static str,
    arguments: &'static [&'static [Kind]],
    /// Whether the last argument may be repeated.
    variadic: bool,
    moment: bool,
    pattern: bool,
    run: Run,
}

#[derive(Clone, Copy, Debug)]
enum Run {
    /// Builds a value.
    Build(fn(&mut Arguments<'_, '_, '_>) -> Result<Value, Error>),
    /// Passes on one of its arguments, or a part of one.
    Pass(for<'v> fn(&mut Arguments<'_, '_, 'v>) -> Answer<'v>),
    /// There is such a function upstream, and here is why not.
    Refused(&'static str),
}

const TABLES: [&[Function]; 6] = [
    lists::FUNCTIONS,
    texts::FUNCTIONS,
    patterns::FUNCTIONS,
    arithmetic::FUNCTIONS,
    documents::FUNCTIONS,
    times::FUNCTIONS,
];

/// A function that can be called.
pub(crate) fn find(name: &str) -> Result<&'static Function, Error> {
    let known = TABLES.into_iter().flatten().find(|function| function.name == name);
    let function = known.ok_or_else(|| Error::UnknownFunction(name.to_owned()))?;
    match function.run {
        Run::Refused(why) => Err(Error::call(name, format!("is not supported: {why}"))),
        _ => Ok(function),
    }
}

/// What can be called, each as `join(string, array[string])`, in alphabetical order.
pub fn signatures() -> Vec<String> {
    let callable = |function: &&Function| !matches!(function.run, Run::Refused(_));
    let mut all: Vec<_> = TABLES.into_iter().flatten().filter(callable).map(Function::signature).collect();
    all.sort_unstable();
    all
}

impl Function {
    const fn build(
        name: &'static str,
        arguments: &'static [&'static [Kind]],
        run: fn(&mut Arguments<'_, '_, '_>) -> Result<Value, Error>,
    ) -> Self {
        Self { name, arguments, variadic: false, moment: false, pattern: false, run: Run::Build(run) }
    }

    const fn pass(
        name: &'static str,
        arguments: &'static [&'static [Kind]],
        run: for<'v> fn(&mut Arguments<'_, '_, 'v>) -> Answer<'v>,
    ) -> Self {
        Self { name, arguments, variadic: false, moment: false, pattern: false, run: Run::Pass(run) }
    }

    const fn refused(name: &'static str, why: &'static str) -> Self {
        Self { name, arguments: &[], variadic: false, moment: false, pattern: false, run: Run::Refused(why) }
    }

    const fn variadic(self) -> Self {
        Self { variadic: true, ..self }
    }

    const fn with_moment(self) -> Self {
        Self { moment: true, ..self }
    }

    const fn with_pattern(self) -> Self {
        Self { pattern: true, ..self }
    }

    /// Whether it asks for the time or for randomness.
    pub(crate) fn needs_moment(&self) -> bool {
        self.moment
    }

    /// Whether its first argument is a regular expression.
    pub(crate) fn takes_pattern(&self) -> bool {
        self.pattern
    }

    fn kinds(&self, index: usize) -> &'static [Kind] {
        let last = self.arguments.last().filter(|_| self.variadic);
        self.arguments.get(index).or(last).copied().unwrap_or_default()
    }

    /// Whether this argument may be of that kind.
    pub(crate) fn takes(&self, index: usize, kind: Kind) -> bool {
        self.kinds(index).contains(&kind)
    }

    /// Whether it takes so many arguments.
    pub(crate) fn check_count(&self, count: usize) -> Result<(), Error> {
        let expected = self.arguments.len();
        if count == expected || (self.variadic && count > expected) {
            return Ok(());
        }
        Err(Error::call(self.name, format!("takes {expected} arguments, not {count}")))
    }

    fn signature(&self) -> String {
        let arguments = self.arguments.iter().map(|kinds| names(kinds, " or "));
        let arguments = arguments.chain(self.variadic.then(|| "…".to_owned()));
        format!("{}({})", self.name, arguments.collect::<Vec<_>>().join(", "))
    }

    /// Calls it with arguments as many as it takes.
    pub(crate) fn call<'a: 'v, 'v>(&self, mut arguments: Arguments<'_, 'a, 'v>) -> Answer<'v> {
        for index in 0..arguments.values.len() {
            self.check(index, &mut arguments)?;
        }
        match self.run {
            Run::Build(run) => {
                let value = run(&mut arguments)?;
                arguments.budget().built(&value)?;
                Ok(Cow::Owned(value))
            }
            Run::Pass(run) => run(&mut arguments),
            Run::Refused(why) => Err(Error::call(self.name, why)),
        }
    }

    /// Whether an argument is what it has to be; what reading it costs is taken.
    fn check(&self, index: usize, arguments: &mut Arguments<'_, '_, '_>) -> Result<(), Error> {
        let kinds = self.kinds(index);
        let budget = &mut arguments.interpreter.budget;
        let value = &*arguments.values[index];
        let mut fits = false;
        for kind in kinds {
            fits |= match kind {
                Kind::Any | Kind::Reference => true,
                Kind::Text => value.is_string(),
                Kind::Number => value.is_number(),
                Kind::List => value.is_array(),
                Kind::Object => value.is_object(),
                Kind::Numbers => elements(value, Value::is_number, budget)?,
                Kind::Texts => elements(value, Value::is_string, budget)?,
            };
        }
        if let Value::String(text) = value {
            budget.read(text.len())?;
        }
        if fits { Ok(()) } else { Err(arguments.wrong(index, &names(kinds, " or "))) }
    }
}

fn names(kinds: &[Kind], between: &str) -> String {
    let name = |kind: &Kind| match kind {
        Kind::Any => "any",
        Kind::Text => "string",
        Kind::Number => "number",
        Kind::List => "array",
        Kind::Object => "object",
        Kind::Numbers => "array[number]",
        Kind::Texts => "array[string]",
        Kind::Reference => "&expression",
    };
    kinds.iter().map(name).collect::<Vec<_>>().join(between)
}

fn elements(value: &Value, test: fn(&Value) -> bool, budget: &mut Budget) -> Result<bool, Error> {
    let Value::Array(list) = value else { return Ok(false) };
    budget.work(list.len())?;
    budget.read_all(value)?;
    Ok(list.iter().all(test))
}

/// The arguments of one call, checked.
pub(crate) struct Arguments<'i, 'a: 'v, 'v> {
    pub(crate) name: &'static str,
    pub(crate) values: Vec<Cow<'v, Value>>,
    pub(crate) reference: Option<&'v Node>,
    pub(crate) pattern: Option<&'v Pattern>,
    pub(crate) interpreter: &'i mut Interpreter<'a>,
}

impl<'a: 'v, 'v> Arguments<'_, 'a, 'v> {
    fn budget(&mut self) -> &mut Budget {
        &mut self.interpreter.budget
    }

    fn fail(&self, message: impl Into<String>) -> Error {
        Error::call(self.name, message)
    }

    fn wrong(&self, index: usize, expected: &str) -> Error {
        let found = self.values.get(index).map_or_else(|| "nothing".to_owned(), |value| shown(value));
        self.fail(format!("argument {}: expected {expected}, found {found}", index + 1))
    }

    fn value(&self, index: usize) -> &Value {
        &self.values[index]
    }

    fn take(&mut self, index: usize) -> Cow<'v, Value> {
        std::mem::take(&mut self.values[index])
    }

    fn text(&self, index: usize) -> Result<&str, Error> {
        self.values[index].as_str().ok_or_else(|| self.wrong(index, "string"))
    }

    fn number(&self, index: usize) -> Result<f64, Error> {
        self.values[index].as_f64().ok_or_else(|| self.wrong(index, "number"))
    }

    fn list(&self, index: usize) -> Result<&[Value], Error> {
        self.values[index].as_array().map(Vec::as_slice).ok_or_else(|| self.wrong(index, "array"))
    }

    fn object(&self, index: usize) -> Result<&Map<String, Value>, Error> {
        self.values[index].as_object().ok_or_else(|| self.wrong(index, "object"))
    }

    /// What the reference comes to over a value; null where a field is missing.
    fn refer<'s>(&mut self, value: &'s Value) -> Answer<'s>
    where
        'v: 's,
    {
        let Some(node) = self.reference else { return Err(self.fail("takes an expression reference")) };
        forgiven(self.interpreter.node(node, At::Value(value)))
    }
}

/// A number that a function came to.
fn number(name: &str, value: f64) -> Result<Value, Error> {
    crate::numbers::number(value).ok_or_else(|| Error::call(name, "the result is out of range"))
}
