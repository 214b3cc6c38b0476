use super::*;
use serde_json::json;

#[track_caller]
fn check(names: &str, cases: &[(Value, Value, &str)]) {
    let operators: Vec<&str> = names.split(' ').collect();
    for (key, value, expected) in cases {
        let found: Vec<String> = operators
            .iter()
            .map(|name| i32::from(Operator::parse(name).unwrap().holds(key, value)).to_string())
            .collect();
        assert_eq!(found.join(""), *expected, "{names}: {key} and {value}");
    }
}

#[test]
fn equality() {
    check(
        "Equals NotEquals",
        &[
            (json!("a"), json!("a"), "10"),
            (json!("abc"), json!("a*"), "10"),
            (json!("a*"), json!("abc"), "01"),
            (json!("1h"), json!("60m"), "10"),
            (json!("60s"), json!(60), "10"),
            (json!(60), json!("1m"), "01"),
            (json!("1Gi"), json!("1024Mi"), "10"),
            (json!("1Gi"), json!("x"), "01"),
            (json!("1"), json!(""), "01"),
            (json!("5"), json!(5), "01"),
            (json!(5), json!("5"), "10"),
            (json!(5), json!(5.0), "10"),
            (json!(5), json!("x"), "01"),
            (json!(0.5), json!("0.5"), "10"),
            (json!(true), json!(true), "10"),
            (json!(true), json!("true"), "01"),
            (json!([1, "a"]), json!([1.0, "a"]), "10"),
            (json!([1]), json!([2]), "01"),
            (json!([1]), json!(1), "01"),
            (json!({ "a": 1 }), json!({ "a": 1 }), "10"),
            (json!({ "a": 1 }), json!({ "b": 1 }), "01"),
            (json!(null), json!(null), "00"),
            (json!(null), json!("a"), "00"),
            (json!(""), json!(""), "10"),
        ],
    );
}

#[test]
fn membership() {
    check(
        "AnyIn AllIn AnyNotIn AllNotIn In NotIn",
        &[
            (json!("a"), json!(["a", "b"]), "110010"),
            (json!("c"), json!(["a", "b"]), "001101"),
            (json!("abc"), json!(["a*"]), "110010"),
            (json!("a*"), json!(["abc"]), "110010"),
            (json!(5), json!([5, 6]), "110010"),
            (json!(true), json!([true]), "110010"),
            (json!("a"), json!("a*"), "110010"),
            (json!("b"), json!("a"), "001100"),
            (json!("a"), json!("[\"a\", \"b\"]"), "110010"),
            (json!("c"), json!("[\"a\", \"b\"]"), "001101"),
            (json!("a"), json!("[1]"), "000000"),
            (json!("5"), json!("1-10"), "110000"),
            (json!("50"), json!("1-10"), "001100"),
            (json!(5), json!(5), "000000"),
            (json!("a"), json!(null), "000000"),
            (json!(null), json!(["a"]), "000000"),
            (json!({}), json!(["a"]), "000000"),
            (json!(["a", "b"]), json!(["a", "b", "c"]), "110010"),
            (json!(["a", "x"]), json!(["a", "b"]), "101001"),
            (json!(["x", "y"]), json!(["a", "b"]), "001101"),
            (json!(["a1", "b"]), json!(["a*"]), "101001"),
            (json!([]), json!(["a"]), "010110"),
            (json!([1, 2]), json!([1]), "101000"),
            (json!([5]), json!(5), "100000"),
            (json!(["a"]), json!("a"), "110010"),
            (json!(["a", "b"]), json!("[\"a\",\"b\"]"), "110010"),
            (json!(["2", "3"]), json!("1-5"), "110000"),
            (json!(["2", "9"]), json!("1-5"), "101000"),
            (json!(["8", "9"]), json!("1-5"), "001100"),
            (json!(["x"]), json!("1-5"), "000100"),
            (json!(["1-5"]), json!("1-5"), "110010"),
            (json!(["a"]), json!({ "a": 1 }), "000000"),
        ],
    );
}

#[test]
fn order() {
    check(
        "GreaterThan GreaterThanOrEquals LessThan LessThanOrEquals",
        &[
            (json!(2), json!(1), "1100"),
            (json!(1), json!(1.0), "0101"),
            (json!(1), json!("2"), "0011"),
            (json!("2"), json!(1), "1100"),
            (json!("10"), json!("9"), "1100"),
            (json!("1h"), json!("30m"), "1100"),
            (json!("1h"), json!(3600), "0101"),
            (json!(30), json!("1m"), "0011"),
            (json!("30"), json!("1h"), "0011"),
            // Both are quantities, too: thousandths.
            (json!("30"), json!("1m"), "1100"),
            (json!("1Gi"), json!("1G"), "1100"),
            (json!("1.10.0"), json!("1.9.3"), "1100"),
            (json!("1.0.0-rc.1"), json!("1.0.0"), "0011"),
            (json!("1.0.0+a"), json!("1.0.0+b"), "0101"),
            (json!("1h"), json!("x"), "0000"),
            (json!("v1.0.0"), json!("1.0.0"), "0000"),
            (json!("a"), json!("b"), "0000"),
            (json!(1), json!("x"), "0000"),
            (json!(null), json!(1), "0000"),
            (json!(true), json!(1), "0000"),
            (json!([1]), json!(0), "0000"),
            (json!(1), json!(null), "0000"),
        ],
    );
    check(
        "DurationGreaterThan durationgreaterthanorequals DurationLessThan DURATIONLESSTHANOREQUALS",
        &[
            (json!("1h"), json!("30m"), "1100"),
            (json!("1h"), json!(3600), "0101"),
            (json!(5), json!("1m"), "0011"),
            (json!(5.9), json!(5), "0101"),
            (json!("1"), json!("1s"), "0000"),
            (json!("0"), json!("1s"), "0011"),
            (json!(null), json!("1s"), "0000"),
        ],
    );
}

#[test]
fn names() {
    assert_eq!(Operator::parse("EQUALS"), Operator::parse("equal"));
    assert_eq!(Operator::parse("notequal"), Some(Operator::NotEquals));
    assert_eq!(Operator::parse("anyin "), None);
    assert_eq!(Operator::parse(""), None);
}
