use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;

mod functions;
mod language;
mod limits;

struct Roots {
    names: BTreeMap<&'static str, Value>,
    moment: Option<Moment>,
}

impl Scope for Roots {
    fn lookup(&self, name: &str) -> Result<Option<&Value>, Error> {
        if name == "unknown_yet" { Err(Error::Missing(name.to_owned())) } else { Ok(self.names.get(name)) }
    }

    fn call(&self, name: &str, arguments: &[Value]) -> Option<Result<Value, Error>> {
        (name == "twice").then(|| Ok(json!([arguments[0], arguments[0]])))
    }

    fn moment(&self) -> Option<Moment> {
        self.moment
    }
}

fn roots() -> Roots {
    let names = BTreeMap::from([
        ("a", json!({ "b": { "c": 1 }, "list": [1, 2, 3], "null": null, "text": "x", "empty": [] })),
        ("people", json!([{ "name": "b", "age": 2 }, { "name": "a", "age": 1 }, { "name": "c" }])),
        ("nested", json!([[1, 2], 3, [4, [5]]])),
        ("places", json!({ "x": { "at": { "id": 1 } }, "y": { "at": { "id": 2 } }, "z": 3 })),
        ("long", json!("é".repeat(1_000_000))),
    ]);
    let now = "2024-03-01T10:20:30.5Z".parse().unwrap();
    Roots { names, moment: Some(Moment { now, seed: 7 }) }
}

fn evaluate(expression: &str) -> Result<Value, Error> {
    Expression::parse(expression, &["twice"])?.evaluate(&roots()).map(Cow::into_owned)
}

fn check(table: &[(&str, Value)]) {
    for (expression, expected) in table {
        assert_eq!(evaluate(expression).as_ref(), Ok(expected), "{expression}");
    }
}

fn check_failing(expressions: &[&str]) {
    for expression in expressions {
        let found = evaluate(expression);
        assert!(matches!(found, Err(Error::Call { .. })), "{expression}: {found:?}");
    }
}
