use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;

struct Roots(BTreeMap<&'static str, Value>);

impl Scope for Roots {
    fn lookup(&self, name: &str) -> Result<Option<&Value>, Error> {
        if name == "unknown_yet" { Err(Error::Missing(name.to_owned())) } else { Ok(self.0.get(name)) }
    }

    fn call(&self, name: &str, arguments: &[Value]) -> Option<Result<Value, Error>> {
        (name == "twice").then(|| Ok(json!([arguments[0], arguments[0]])))
    }
}

fn evaluate(expression: &str) -> Result<Value, Error> {
    let roots = Roots(BTreeMap::from([
        ("a", json!({ "b": { "c": 1 }, "list": [1, 2, 3], "null": null, "text": "x", "empty": [] })),
        ("people", json!([{ "name": "b", "age": 2 }, { "name": "a", "age": 1 }, { "name": "c" }])),
        ("nested", json!([[1, 2], 3, [4, [5]]])),
    ]));
    let expression = Expression::parse(expression, &["twice"])?;
    expression.evaluate(&roots).map(std::borrow::Cow::into_owned)
}

#[test]
fn the_language() {
    for (expression, expected) in [
        ("a.b.c", json!(1)),
        ("a.\"b\".c", json!(1)),
        ("a.list[0]", json!(1)),
        ("a.list[-1]", json!(3)),
        ("a.list[5]", json!(null)),
        ("a.list[1:]", json!([2, 3])),
        ("a.list[::-1]", json!([3, 2, 1])),
        ("a.list[*]", json!([1, 2, 3])),
        ("people[*].name", json!(["b", "a", "c"])),
        ("people[*].age", json!([2, 1])),
        ("people[?age > `1`].name", json!(["b"])),
        ("people[?name == 'a'] | [0].age", json!(1)),
        ("people[].name", json!(["b", "a", "c"])),
        ("nested[]", json!([1, 2, 3, 4, [5]])),
        ("a.b.*", json!([1])),
        ("a.[b.c, text]", json!([1, "x"])),
        ("a.{x: b.c, y: text}", json!({ "x": 1, "y": "x" })),
        ("a.text == 'x' && 'yes' || 'no'", json!("yes")),
        ("a.text != 'x' && 'yes' || 'no'", json!("no")),
        ("!(a.empty)", json!(true)),
        // go-jmespath binds `!` tighter than `.`: this is `(!a).empty`, a field of a boolean.
        ("!a.empty", json!(null)),
        ("`{\"x\": [1]}`.x[0]", json!(1)),
        ("'it\\'s'", json!("it's")),
        ("`1` == `1.0`", json!(true)),
        ("'a' < 'b'", json!(null)),
        ("length(a.list)", json!(3)),
        ("sort_by(people[?age], &age)[0].name", json!("a")),
        ("max_by(people[?age], &age).name", json!("b")),
        ("map(&name, people)", json!(["b", "a", "c"])),
        ("join('-', ['x', 'y'])", json!("x-y")),
        ("twice(a.text)", json!(["x", "x"])),
        ("regex_replace_all('^docker.io/', 'docker.io/a', '')", json!("a")),
        ("regex_replace_all('(x)(y)', 'xy', '$2$1')", json!("yx")),
        ("regex_replace_all_literal('x', 'xy', '$1')", json!("$1y")),
        ("to_upper('x') | @", json!("X")),
        ("trim('--x-', '-')", json!("x")),
    ] {
        assert_eq!(evaluate(expression), Ok(expected), "{expression}");
    }
}

#[test]
fn a_missing_field_is_an_error_that_some_places_forgive() {
    for refused in ["a.nothing", "a.nothing.more", "nothing", "a.text && a.nothing"] {
        let found = evaluate(refused);
        assert!(matches!(found, Err(Error::NotFound(_))), "{refused}: {found:?}");
    }
    for (forgiven, expected) in [
        ("a.null.x", json!(null)),
        ("a.text.x", json!(null)),
        ("a.nothing || 'default'", json!("default")),
        ("a.text && a.nothing || 'default'", json!("default")),
        // `null` is a name here, and there is none: both sides are forgiven.
        ("a.nothing == null", json!(true)),
        ("a.nothing == `null`", json!(true)),
        ("!(a.nothing)", json!(true)),
        ("a.nothing | @", json!(null)),
        ("not_null(a.nothing, 'x')", json!("x")),
        ("[a.nothing]", json!([null])),
    ] {
        assert_eq!(evaluate(forgiven), Ok(expected), "{forgiven}");
    }
}

#[test]
fn a_fact_that_is_not_known_yet_is_never_swallowed() {
    for expression in [
        "unknown_yet",
        "unknown_yet.x",
        "unknown_yet || 'default'",
        "a.nothing || unknown_yet",
        "!unknown_yet",
        "unknown_yet && 'x'",
        "unknown_yet == 'x'",
        "unknown_yet | @",
        "not_null(unknown_yet, 'x')",
        "[unknown_yet]",
        "{x: unknown_yet}",
        "unknown_yet[*].x",
        "unknown_yet[?x]",
        "length(unknown_yet || 'x')",
    ] {
        assert_eq!(evaluate(expression), Err(Error::Missing("unknown_yet".to_owned())), "{expression}");
    }
}

#[test]
fn what_is_no_expression() {
    for bad in [
        "",
        "a.",
        "a[",
        "a[?",
        "'x",
        "a b",
        "a.b.",
        "f(",
        "a[0",
        "{x}",
        "a..b",
        "a[1:2:3:4]",
        "#",
        "99999999999999999999",
    ] {
        assert!(matches!(evaluate(bad), Err(Error::Syntax { .. })), "{bad}: {:?}", evaluate(bad));
    }
    assert_eq!(evaluate("no_such(a)"), Err(Error::UnknownFunction("no_such".to_owned())));
    assert!(matches!(evaluate("length(a, a)"), Err(Error::Call { .. })));
    assert!(matches!(evaluate("length(`1`)"), Err(Error::Call { .. })));
    assert!(matches!(evaluate("regex_match('(', 'x')"), Err(Error::Call { .. })));
    assert!(matches!(evaluate("regex_match('[[a]]', 'x')"), Err(Error::Call { .. })));
}

#[test]
fn limits_hold_at_their_edge() {
    let deep = |depth: usize| format!("{}'x'{}", "(".repeat(depth), ")".repeat(depth));
    assert!(evaluate(&deep(MAX_DEPTH - 1)).is_ok());
    assert_eq!(evaluate(&deep(MAX_DEPTH)), Err(Error::Limit("nested too deep")));
    assert_eq!(evaluate(&"[".repeat(5000)), Err(Error::Limit("nested too deep")));
    assert_eq!(evaluate(&" ".repeat(MAX_LENGTH + 1)), Err(Error::Limit("too long")));
}
