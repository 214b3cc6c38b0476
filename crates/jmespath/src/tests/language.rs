//! The language, feature by feature.

use super::*;

#[test]
fn names_and_parts() {
    check(&[
        ("a.b.c", json!(1)),
        ("a.\"b\".c", json!(1)),
        (" a\n.\tb\r. c ", json!(1)),
        ("a.list[0]", json!(1)),
        ("a.list[-1]", json!(3)),
        ("a.list[-3]", json!(1)),
        ("a.list[3]", json!(null)),
        ("a.list[-4]", json!(null)),
        ("a.text[0]", json!(null)),
        ("a.b[0]", json!(null)),
        ("a.null.x.y", json!(null)),
        ("a.list.x", json!(null)),
        ("a | b | c", json!(1)),
        ("(a.b).c", json!(1)),
        ("a | @.b", json!({ "c": 1 })),
        ("`{\"x\": [1]}`.x[0]", json!(1)),
        ("twice(a.text)", json!(["x", "x"])),
        ("a.twice(text)", json!(["x", "x"])),
        ("a.length(list)", json!(3)),
    ]);
}

#[test]
fn literals() {
    check(&[
        (r"'it\'s'", json!("it's")),
        (r"'a\\b\n'", json!(r"a\\b\n")),
        ("''", json!("")),
        ("'é`\"'", json!("é`\"")),
        ("`1`", json!(1)),
        ("`1.0`", json!(1)),
        ("`[1.0, 1.5]`", json!([1, 1.5])),
        ("` \"x\" `", json!("x")),
        (r#"`"\u00e9\n"`"#, json!("é\n")),
        (r#"`"a\`b"`"#, json!("a`b")),
        ("`null`", json!(null)),
        ("`{}`", json!({})),
        (r#"{"\u0061 b": `1`}"#, json!({ "a b": 1 })),
        (r#"`{"a\"b": 1}`."a\"b""#, json!(1)),
    ]);
}

#[test]
fn slices() {
    check(&[
        ("a.list[1:]", json!([2, 3])),
        ("a.list[:1]", json!([1])),
        ("a.list[:]", json!([1, 2, 3])),
        ("a.list[::]", json!([1, 2, 3])),
        ("a.list[::2]", json!([1, 3])),
        ("a.list[::-1]", json!([3, 2, 1])),
        ("a.list[-2:]", json!([2, 3])),
        ("a.list[:-1]", json!([1, 2])),
        ("a.list[-9:9]", json!([1, 2, 3])),
        ("a.list[9:-9:-1]", json!([3, 2, 1])),
        ("a.list[2:0:-1]", json!([3, 2])),
        ("a.list[2:1]", json!([])),
        ("a.list[0:9223372036854775807:9223372036854775807]", json!([1])),
        ("a.text[1:]", json!(null)),
        ("people[:2].name", json!(["b", "a"])),
    ]);
    check_failing(&["a.list[::0]"]);
}

#[test]
fn projections() {
    check(&[
        ("a.list[*]", json!([1, 2, 3])),
        ("people[*].name", json!(["b", "a", "c"])),
        ("people[*].age", json!([2, 1])),
        ("people[*].name.x", json!([])),
        ("people[*].{n: name, a: age}[2:]", json!([{ "n": "c", "a": null }])),
        ("people[*].[age, name][] | [0]", json!(2)),
        ("people[*] | length(@)", json!(3)),
        ("people[*].name | [0]", json!("b")),
        ("people[*][0]", json!([])),
        ("nested[*][0]", json!([1, 4])),
        ("nested[*][*]", json!([[1, 2], [4, [5]]])),
        ("`[null, 1]`[*]", json!([1])),
        ("`[[null]]`[*][*]", json!([[]])),
        ("nested[]", json!([1, 2, 3, 4, [5]])),
        ("nested[][]", json!([1, 2, 3, 4, 5])),
        ("nested[*][]", json!([1, 2, 3, 4, [5]])),
        ("people[].name", json!(["b", "a", "c"])),
        ("[a.list, nested[0]][]", json!([1, 2, 3, 1, 2])),
        ("a.text[]", json!(null)),
        ("a.text[*]", json!(null)),
        ("a.list.*", json!(null)),
        ("a.b.*", json!([1])),
        ("places.*.at", json!([{ "id": 1 }, { "id": 2 }])),
        ("places.*.at.id", json!([1, 2])),
        ("places.*.*.id", json!([[1], [2]])),
        ("places.*[]", json!([{ "at": { "id": 1 } }, { "at": { "id": 2 } }, 3])),
        ("places.values(@) | [2]", json!(3)),
        ("[people][*].*", json!([])),
        ("[places][*].*.at.id", json!([[1, 2]])),
        ("[places].{l: [0].*.at.id}", json!({ "l": [1, 2] })),
        ("a.[b.c, text]", json!([1, "x"])),
        ("a.{x: b.c, \"y z\": text}", json!({ "x": 1, "y z": "x" })),
        ("a.null.[x]", json!(null)),
        ("a.null.{x: x}", json!(null)),
        ("a.text.[@, `1`]", json!(["x", 1])),
    ]);
}

#[test]
fn filters() {
    check(&[
        ("people[?age > `1`].name", json!(["b"])),
        ("people[?age >= `1` && name != 'b'].name", json!(["a"])),
        ("people[?name == 'a' || name == 'c'].name", json!(["a", "c"])),
        ("people[?name == 'a'] | [0].age", json!(1)),
        ("people[?!age].name", json!(["c"])),
        ("people[?age]", json!([{ "name": "b", "age": 2 }, { "name": "a", "age": 1 }])),
        ("people[?age < `2`][name, age][]", json!(["a", 1])),
        ("people[?age < `2`].[name, age][]", json!(["a", 1])),
        ("a.list[?@ > `1`]", json!([2, 3])),
        ("a.list[?@ > `1`][0]", json!([])),
        ("a.list[?@ > 'x']", json!([])),
        ("nested[?[0]]", json!([[1, 2], [4, [5]]])),
        ("a.text[?x]", json!(null)),
        ("`[null]`[?!@]", json!([])),
        ("map(&@, people[?age]) | length(@)", json!(2)),
    ]);
}

#[test]
fn logic_and_comparison() {
    check(&[
        ("a.text == 'x' && 'yes' || 'no'", json!("yes")),
        ("a.text != 'x' && 'yes' || 'no'", json!("no")),
        ("a.empty || 'none'", json!("none")),
        ("a.text && a.empty", json!([])),
        ("a.empty && a.nothing", json!([])),
        ("`0` && 'true'", json!("true")),
        ("`\"\"` || `{}` || `[]` || `false` || `null`", json!(null)),
        ("!(a.empty)", json!(true)),
        ("!!a", json!(true)),
        // `!` binds tighter than `.`: this is `(!a).empty`, a field of a boolean.
        ("!a.empty", json!(null)),
        ("`1` == `1.0`", json!(true)),
        ("`9007199254740993` == `9007199254740992`", json!(false)),
        ("`1` == '1'", json!(false)),
        ("`[1, {\"a\": 2.0}]` == `[1, {\"a\": 2}]`", json!(true)),
        ("`{\"a\": 1}` == `{\"b\": 1}`", json!(false)),
        ("`true` == `true`", json!(true)),
        ("a.list == a.list[*]", json!(true)),
        ("`1` < `2`", json!(true)),
        ("`2` <= `2`", json!(true)),
        ("`1` > `2`", json!(false)),
        ("'a' < 'b'", json!(null)),
        ("`1` < 'b'", json!(null)),
        ("`1` < `2` == `true`", json!(true)),
        ("a.b.c == `1` | !@", json!(false)),
    ]);
}

#[test]
fn a_missing_field_is_an_error_that_some_places_forgive() {
    for refused in
        ["a.nothing", "a.nothing.more", "nothing", "a.text && a.nothing", "a.nothing[0]", "(a.nothing)"]
    {
        let found = evaluate(refused);
        assert!(matches!(found, Err(Error::NotFound(_))), "{refused}: {found:?}");
    }
    assert_eq!(evaluate("a.nothing").unwrap_err().to_string(), "Unknown key \"nothing\" in path");
    check(&[
        ("a.nothing || 'default'", json!("default")),
        ("'' || a.nothing", json!(null)),
        ("a.text && a.nothing || 'default'", json!("default")),
        ("a.nothing && 'x'", json!(null)),
        // `null` is a name here, and there is none: both sides are forgiven.
        ("a.nothing == null", json!(true)),
        ("a.nothing == `null`", json!(true)),
        ("a.nothing < `1`", json!(null)),
        ("!(a.nothing)", json!(true)),
        ("a.nothing | @", json!(null)),
        ("a | nothing", json!(null)),
        ("a.nothing[*]", json!(null)),
        ("a.nothing[1:]", json!(null)),
        ("a.nothing[]", json!(null)),
        ("a.nothing[?x]", json!(null)),
        ("a.nothing.*", json!(null)),
        ("not_null(a.nothing, 'x')", json!("x")),
        ("[a.nothing]", json!([null])),
        ("{x: a.nothing}", json!({ "x": null })),
        ("map(&age, people)", json!([2, 1, null])),
        // The fork does not look at what fails on the left of these.
        ("to_upper(`1`)[?x]", json!(null)),
        ("to_upper(`1`)[]", json!(null)),
        ("to_upper(`1`).*", json!(null)),
    ]);
    check_failing(&["to_upper(`1`)[*]", "to_upper(`1`) || 'x'", "[to_upper(`1`)]", "sort_by(people, &age)"]);
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
        "unknown_yet[]",
        "unknown_yet.*",
        "length(unknown_yet || 'x')",
        "twice(unknown_yet)",
    ] {
        assert_eq!(evaluate(expression), Err(Error::Missing("unknown_yet".to_owned())), "{expression}");
    }
}

#[test]
fn what_is_no_expression() {
    for bad in [
        "",
        " ",
        "a.",
        ".a",
        "a[",
        "a[?",
        "a[?]",
        "a[?x",
        "'x",
        r"'x\'",
        "\"x",
        "`1",
        "a b",
        "a.b.",
        "f(",
        "f(a",
        "f(a,)",
        "f(,a)",
        "f(a b)",
        "a[0",
        "a[*",
        "[]a",
        "{x}",
        "{x:}",
        "{}",
        "{x: a,}",
        "{`1`: a}",
        "[a,]",
        "a..b",
        "a[1:2:3:4]",
        "a[:::]",
        "a[1 2]",
        "a[-]",
        "#",
        "a.1",
        "1",
        "a.'x'",
        "a.`1`",
        "a.(b)",
        "a.@",
        "99999999999999999999",
        "a[99999999999999999999]",
        "a = b",
        "a === b",
        "a &b",
        "&a",
        "[&a]",
        "length(&a)",
        "twice(&a)",
        "\"length\"(a)",
        "@(a)",
        "'x'(a)",
        "a[0](b)",
        "`foo`",
        "`{a: 1}`",
        "``",
        "\"\\x\"",
        "a ||",
        "|| a",
        "a == ",
        "*a",
        "a.*b",
        "é",
        "a\u{b}b",
        "!",
        "a!",
        ")",
        "]",
        "}",
        "a)",
        "[a}",
        "(a]",
    ] {
        let found = evaluate(bad);
        assert!(
            matches!(found, Err(Error::Syntax { .. } | Error::UnknownFunction(_) | Error::Call { .. })),
            "{bad}: {found:?}"
        );
    }
    assert_eq!(evaluate("no_such(a)"), Err(Error::UnknownFunction("no_such".to_owned())));
    assert_eq!(evaluate("a.b)").unwrap_err().to_string(), "syntax error at 3: unexpected `)`");
    assert_eq!(evaluate(r"a '\x\x'").unwrap_err().to_string(), "syntax error at 2: unexpected literal");
    // The root is the scope's own, and has no value.
    for root in ["@", "*", "[0]", "[]", "[?x]", "*[]", "@.*", "length(@)", "@ || a"] {
        assert!(matches!(evaluate(root), Err(Error::Root(_))), "{root}");
    }
}

#[test]
fn what_is_passed_through_is_borrowed() {
    let roots = roots();
    for expression in [
        "a",
        "a.list",
        "a.list[1]",
        "a.list[*]",
        "a.list[]",
        "a.nothing || a.list",
        "a | list",
        "not_null(a.nothing, a.list)",
        "max(a.list)",
        "lookup(a, 'list')",
        "to_array(a.list)",
        "to_string(a.text)",
    ] {
        let expression = Expression::parse(expression, &[]).unwrap();
        let value = expression.evaluate(&roots).unwrap();
        assert!(matches!(value, Cow::Borrowed(_)), "{}", expression.text());
    }
}
