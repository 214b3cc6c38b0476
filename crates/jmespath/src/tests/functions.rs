//! The functions, kind by kind.

use super::*;

#[test]
fn of_lists_and_objects() {
    check(&[
        ("abs(`-1.5`)", json!(1.5)),
        ("avg(a.list)", json!(2)),
        ("avg(`[1, 2]`)", json!(1.5)),
        ("avg(`[]`)", json!(null)),
        ("ceil(`1.2`)", json!(2)),
        ("floor(`-1.2`)", json!(-2)),
        ("contains(a.list, `2.0`)", json!(true)),
        ("contains(a.list, '2')", json!(false)),
        ("contains('abc', 'b')", json!(true)),
        ("contains('abc', `1`)", json!(false)),
        ("contains(nested, `[1, 2]`)", json!(true)),
        ("starts_with('abc', 'ab') && ends_with('abc', 'bc')", json!(true)),
        ("items(a.b, 'k', 'v')", json!([{ "k": "c", "v": 1 }])),
        ("items(a.list, 'k', 'v')[1]", json!({ "k": 1, "v": 2 })),
        ("items(a.b, 'k', 'k')", json!([{ "k": 1 }])),
        ("join('-', ['x', 'y'])", json!("x-y")),
        ("join('-', `[]`)", json!("")),
        ("keys(a.b)", json!(["c"])),
        ("values(a.b)", json!([1])),
        ("length(a.list)", json!(3)),
        ("length('é')", json!(1)),
        ("length(a)", json!(5)),
        ("lookup(a, 'text')", json!("x")),
        ("lookup(a, 'none')", json!(null)),
        ("lookup({x: `1`}, 'x')", json!(1)),
        ("lookup(a.list, `2`)", json!(3)),
        ("lookup(a.list, `3`)", json!(null)),
        ("lookup(a.list, `-1`)", json!(null)),
        ("map(&[name], people)[0]", json!(["b"])),
        ("map(&to_upper(name), people)", json!(["B", "A", "C"])),
        ("max(a.list)", json!(3)),
        ("max(`[\"a\", \"b\"]`)", json!("b")),
        ("max(`[]`)", json!(null)),
        ("min(`[2, 1.5]`)", json!(1.5)),
        ("min(`[9007199254740993, 9007199254740992]`)", json!(9_007_199_254_740_992_i64)),
        ("max_by(people[?age], &age).name", json!("b")),
        ("max_by(people, &`1`).name", json!("b")),
        ("min_by(people, &name).name", json!("a")),
        ("min_by(people, &`1`).name", json!("b")),
        ("max_by(`[]`, &x)", json!(null)),
        ("max_by(`[{}]`, &x)", json!({})),
        ("merge(a.b, `{\"c\": 2, \"d\": 3}`)", json!({ "c": 2, "d": 3 })),
        ("not_null(a.null, a.nothing, `false`)", json!(false)),
        ("not_null(a.null)", json!(null)),
        ("object_from_lists(['a', `1`, `true`], [`1`, 'x'])", json!({ "a": 1, "1": "x", "true": null })),
        ("reverse(a.list)", json!([3, 2, 1])),
        ("reverse('aé')", json!("éa")),
        ("sort(`[3, 1.5, 2]`)", json!([1.5, 2, 3])),
        ("sort(['b', 'B', 'a'])", json!(["B", "a", "b"])),
        ("sort(`[]`)", json!([])),
        ("sort_by(people[?age], &age)[*].name", json!(["a", "b"])),
        ("sort_by(people, &`1`)[*].name", json!(["b", "a", "c"])),
        ("sort_by(`[{}]`, &x)", json!([{}])),
        ("to_array(a.text)", json!(["x"])),
        ("to_array(a.nothing)", json!([null])),
        ("to_number('1e3')", json!(1000)),
        ("to_number('9007199254740993')", json!(9_007_199_254_740_993_i64)),
        ("to_number('x')", json!(null)),
        ("to_number('1e999')", json!(null)),
        ("to_number(a.list)", json!(null)),
        ("to_string(`{\"b\": 1.0, \"a\": \"<\"}`)", json!(r#"{"a":"\u003c","b":1}"#)),
        ("to_string(a.nothing)", json!("null")),
        (
            "map(&type(@), [a, a.list, `1`, 'x', `true`, `null`])",
            json!(["object", "array", "number", "string", "boolean", "null"]),
        ),
    ]);
    check_failing(&[
        "abs('1')",
        "avg(['x'])",
        "contains(`1`, `1`)",
        "items(`1`, 'a', 'b')",
        "join('-', [`1`])",
        "keys(a.list)",
        "length(`1`)",
        "length(a.nothing)",
        "length(a, a)",
        "lookup(a.list, `0.5`)",
        "lookup(a, `1`)",
        "lookup(a.list, 'x')",
        "map(&x, a)",
        "map(a.list, &x)",
        "map(`1`, a.list)",
        "max(`[1, \"x\"]`)",
        "max_by(people, &age)",
        "merge(a, `1`)",
        "merge()",
        "not_null()",
        "sort(nested)",
        "sort_by(people, &nothing)",
        "object_from_lists(nested, a.list)",
        "values('x')",
        "sort_by(people, name)",
    ]);
}

#[test]
fn of_texts() {
    check(&[
        ("compare('a', 'b')", json!(-1)),
        ("compare('a', 'a')", json!(0)),
        ("compare('b', 'a') == `1`", json!(true)),
        ("equal_fold('Straße', 'STRAßE')", json!(true)),
        ("equal_fold('k', '\u{212a}')", json!(true)),
        ("equal_fold('σ', 'ς')", json!(true)),
        ("equal_fold('i', 'İ')", json!(false)),
        ("equal_fold('ss', 'ß')", json!(false)),
        ("to_upper('aßé')", json!("AßÉ")),
        ("to_lower('AΣİ')", json!("aσi")),
        ("replace('aaa', 'a', 'b', `2`)", json!("bba")),
        ("replace('aaa', 'a', 'b', `-1`)", json!("bbb")),
        ("replace('ab', '', '-', `2`)", json!("-a-b")),
        ("replace_all('ab', '', '-')", json!("-a-b-")),
        ("replace_all('aaa', 'aa', 'b')", json!("ba")),
        ("split('a,b,', ',')", json!(["a", "b", ""])),
        ("split('aé', '')", json!(["a", "é"])),
        ("split('', '')", json!([])),
        ("split('', ',')", json!([""])),
        ("trim('--x-', '-')", json!("x")),
        ("trim('éxa', 'aé')", json!("x")),
        ("trim('x', '')", json!("x")),
        ("trim_prefix('aab', 'a')", json!("ab")),
        ("truncate('aéb', `2`)", json!("aé")),
        ("truncate('ab', `-1`)", json!("")),
        ("truncate('ab', `1.9`)", json!("a")),
        ("to_boolean('True')", json!(true)),
        ("to_boolean('false')", json!(false)),
        ("path_canonicalize('../../a/./b/../c//')", json!("../../a/c")),
        ("path_canonicalize('/../a/..')", json!("/")),
        ("path_canonicalize('a/..')", json!(".")),
        ("path_canonicalize('')", json!("")),
    ]);
    check_failing(&[
        "compare('a', `1`)",
        "to_boolean('yes')",
        "replace('a', 'b', 'c', 'd')",
        "split('a')",
        "to_upper(a.nothing)",
    ]);
}

#[test]
fn of_patterns() {
    check(&[
        ("regex_match('^[1-7]$', `3`)", json!(true)),
        ("regex_match('^1000650001$', `1000650001`)", json!(true)),
        (r"regex_match('^\d+\.\d+$', '1.2')", json!(true)),
        ("regex_match(join('', ['^', 'a']), 'ab')", json!(true)),
        ("regex_replace_all('^docker.io/', 'docker.io/a', '')", json!("a")),
        ("regex_replace_all('(x)(y)', 'xy', '$2$1')", json!("yx")),
        ("regex_replace_all('2', `123`, `4`)", json!("143")),
        ("regex_replace_all_literal('x', 'xy', '$1')", json!("$1y")),
        ("pattern_match('a*', 'abc')", json!(true)),
        ("pattern_match('1?', `12`)", json!(true)),
        ("pattern_match('a?', 'abc')", json!(false)),
        ("label_match(`{\"a\": \"b\"}`, `{\"a\": \"b\", \"c\": \"d\"}`)", json!(true)),
        ("label_match(`{\"a\": \"b\"}`, `{\"a\": \"c\"}`)", json!(false)),
        ("label_match(`{\"a\": null}`, `{}`)", json!(false)),
        ("semver_compare('1.2.3', '>=1.0.0 <2.0.0')", json!(true)),
        ("semver_compare('1.2.3', '1.3.x')", json!(false)),
        ("image_normalize('nginx')", json!("docker.io/nginx:latest")),
        ("image_normalize('ghcr.io/a/b:1')", json!("ghcr.io/a/b:1")),
    ]);
    check_failing(&[
        "regex_match('(', 'x')",
        "regex_match(join('', ['(']), 'x')",
        "regex_match('a', `true`)",
        "semver_compare('v1.2.3', '<2.0.0')",
        "semver_compare('1.2.3', '^1.0.0')",
        "image_normalize('A B')",
        "random('')",
        "random('(')",
    ]);
    // A literal that is no pattern is found when the expression is parsed.
    assert!(Expression::parse("regex_match('(', a)", &[]).is_err());
}

#[test]
fn of_numbers() {
    check(&[
        ("add(`1`, `2`)", json!(3)),
        ("add(`0.5`, `0.5`)", json!(1)),
        ("add('1Ki', '1')", json!("1025")),
        ("add('1h', '30s')", json!("1h0m30s")),
        ("subtract('1Gi', '1Mi')", json!("1023Mi")),
        ("subtract('1s', '1h')", json!("-59m59s")),
        ("multiply(`0.1`, `3`)", json!(0.300_000_000_000_000_04)),
        ("multiply('1Gi', `1.5`)", json!("1536Mi")),
        ("multiply(`2`, '90s')", json!("3m0s")),
        ("divide('1h', '7m30s')", json!(8)),
        ("divide('1h', `7`)", json!("8m34.285714285s")),
        ("divide('10Mi', '3Mi')", json!(10.0 / 3.0)),
        ("divide('10', `3`)", json!("3")),
        ("divide(`1`, `4`)", json!(0.25)),
        ("modulo(`-7`, `3`)", json!(-1)),
        ("modulo('10', '3')", json!("1")),
        ("modulo('1h', '25m0s')", json!("10m0s")),
        ("round(`2.5`, `0`)", json!(3)),
        ("round(`-2.345`, `2`)", json!(-2.35)),
        ("round(`1234.5`, `1`)", json!(1234.5)),
        ("sum(a.list)", json!(6)),
        ("sum(['1Ki', '1Mi'])", json!("1025Ki")),
        ("sum([a.b])", json!({ "c": 1 })),
    ]);
    check_failing(&[
        "add(`1`, '1')",
        "add('1Gi', '1h')",
        "add('x', `1`)",
        "add(a, `1`)",
        "add('2562047h', '2562047h')",
        "subtract('1h', '1m')",
        "multiply('1', '1')",
        "multiply('2562047h', `2`)",
        "divide(`1`, '1')",
        "divide(`1`, `0`)",
        "divide('1', '0')",
        "divide('1h', '0s')",
        "modulo(`1`, `0`)",
        "modulo(`1.5`, `1`)",
        "modulo('1.5', '1')",
        "modulo('1h', '0s')",
        "modulo('1h', `1`)",
        "round(`1`, `-1`)",
        "round(`1`, `0.5`)",
        "round(`1`, `999`)",
        "sum(`[]`)",
        "sum([`1`, '1'])",
        "multiply(`1e300`, `1e300`)",
        "multiply('1000E', `1000000000`)",
    ]);
}

#[test]
fn of_documents() {
    check(&[
        ("base64_encode('hello')", json!("aGVsbG8=")),
        ("base64_decode('aGVs\nbG8=')", json!("hello")),
        ("base64_decode('aGVsbG9=')", json!("hello")),
        ("parse_json('{\"a\": 1.0}').a", json!(1)),
        ("parse_yaml('a: yes')", json!({ "a": true })),
        ("parse_yaml('')", json!(null)),
        ("parse_yaml(`\"a: 1\\n---\\nb: 2\"`)", json!({ "a": 1 })),
        ("sha256('')", json!("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")),
        ("sha1('abc')", json!("a9993e364706816aba3e25717850c26c9cd0d89d")),
        ("md5('abc')", json!("900150983cd24fb0d6963f7d28e17f72")),
    ]);
    check_failing(&[
        "base64_decode('aGVsbG8')",
        "base64_decode('_w==')",
        "base64_decode('/w==')",
        "parse_json('{')",
        "parse_yaml('[')",
        "sha256(`1`)",
    ]);
}

#[test]
fn of_times() {
    check(&[
        ("time_now()", json!("2024-03-01T10:20:30Z")),
        ("time_now_utc()", json!("2024-03-01T10:20:30Z")),
        ("time_since('', '2024-03-01T10:20:30Z', '')", json!("500ms")),
        ("time_since('2006-01-02', '2024-02-28', '2024-03-01')", json!("48h0m0s")),
        ("time_since('', '2021-01-02T15:04:05-07:00', '2021-01-10T03:14:05-07:00')", json!("180h10m0s")),
        ("time_add('2023-01-12T12:37:56+05:30', '-1h')", json!("2023-01-12T11:37:56+05:30")),
        ("time_diff('2023-01-12T12:00:00Z', '2023-01-12T11:30:00Z')", json!("-30m0s")),
        ("time_before('2023-01-12T12:00:00+01:00', '2023-01-12T11:30:00Z')", json!(true)),
        ("time_after('2023-01-12T12:00:00Z', '2023-01-12T12:00:00Z')", json!(false)),
        ("time_between('2023-01-02T00:00:00Z', '2023-01-01T00:00:00Z', '2023-01-03T00:00:00Z')", json!(true)),
        (
            "time_between('2023-01-01T00:00:00Z', '2023-01-01T00:00:00Z', '2023-01-03T00:00:00Z')",
            json!(false),
        ),
        ("time_truncate('2023-01-12T12:37:56+05:30', '24h')", json!("2023-01-12T05:30:00+05:30")),
        ("time_truncate('2023-01-12T12:37:56Z', '0s')", json!("2023-01-12T12:37:56Z")),
        ("time_utc('2023-01-12T12:37:56+05:30')", json!("2023-01-12T07:07:56Z")),
        ("time_to_cron('2023-01-15T12:37:56+05:30')", json!("37 12 15 1 0")),
        ("time_parse('2006-01-02', '2024-02-29')", json!("2024-02-29T00:00:00Z")),
        ("time_parse('123', '1709288430')", json!("2024-03-01T10:20:30Z")),
    ]);
    check_failing(&[
        "time_now('x')",
        "time_add('now', '1h')",
        "time_add('2023-01-12T12:37:56Z', '1')",
        "time_parse('2006', 'x')",
        "time_parse('1', 'x')",
        "time_utc('2023-01-12')",
        "time_since('', '', '')",
    ]);
}

#[test]
fn time_and_randomness_belong_to_the_request() {
    let of = |text: &str, moment| {
        let expression = Expression::parse(text, &[]).unwrap();
        assert!(expression.needs_moment(), "{text}");
        expression.evaluate(&Roots { moment, ..roots() }).map(Cow::into_owned)
    };
    let moment = |seed| Some(Moment { now: "2024-03-01T10:20:30Z".parse().unwrap(), seed });
    let drawn = of("random('[a-z]{12}')", moment(1)).unwrap();
    assert_eq!(of("random('[a-z]{12}')", moment(1)), Ok(drawn.clone()));
    assert_ne!(of("random('[a-z]{12}')", moment(2)), Ok(drawn.clone()));
    assert_ne!(of("random('[a-y]{12}')", moment(1)), Ok(drawn));
    let two = of("[random('[a-z]{12}'), random('[a-z]{12}')]", moment(1)).unwrap();
    assert_ne!(two[0], two[1]);
    for text in ["time_now()", "time_now_utc()", "random('a')", "time_since('', '2024-03-01T10:20:30Z', '')"]
    {
        assert!(matches!(of(text, None), Err(Error::Call { .. })), "{text}");
    }
    assert!(!Expression::parse("time_utc('x')", &[]).unwrap().needs_moment());
}

#[test]
fn what_is_refused_says_why() {
    for (text, why) in [
        (
            "is_external_url('x')",
            "is_external_url(): is not supported: it asks DNS, and an evaluation asks nobody",
        ),
        (
            "x509_decode('x')",
            "x509_decode(): is not supported: its result is a certificate in the form of Go's own structures",
        ),
    ] {
        assert_eq!(Expression::parse(text, &[]).unwrap_err().to_string(), why);
    }
    let message = |text| evaluate(text).unwrap_err().to_string();
    assert_eq!(message("join('-', a.b)"), "join(): argument 2: expected array[string], found an object");
    assert_eq!(message("length(`1`)"), "length(): argument 1: expected string or array or object, found 1");
    assert!(message("time_utc(long)").len() < 350);
    assert_eq!(message("abs(long)").chars().count(), "abs(): argument 1: expected number, found ".len() + 43);
}

#[test]
fn the_document_lists_the_functions_that_there_are() {
    let document = include_str!("../../../../docs/jmespath.md");
    let (table, _) = document.split_once("## Limits").unwrap();
    let mut listed: Vec<_> = table
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once(")` |"))
        .map(|(name, _)| format!("{name})"))
        .collect();
    listed.sort_unstable();
    assert_eq!(listed, signatures());
    for refused in ["is_external_url", "x509_decode"] {
        assert!(document.contains(&format!("| `{refused}` |")), "{refused}");
    }
    for (name, limit) in [
        ("MAX_LENGTH", MAX_LENGTH),
        ("MAX_DEPTH", MAX_DEPTH),
        ("MAX_FUEL", MAX_FUEL),
        ("MAX_BUILT", MAX_BUILT),
        ("MAX_NESTING", MAX_NESTING),
        ("MAX_PATTERN", MAX_PATTERN),
        ("MAX_YAML", MAX_YAML),
    ] {
        assert!(document.contains(&format!("| `{name}` | {limit} |")), "{name} is {limit}");
    }
}
