//! Each limit, at its edge.

use super::*;

const DEEP: Error = Error::Limit("nested too deep");
const WORK: Error = Error::Limit("too much work");
const BUILT: Error = Error::Limit("too much is built");

#[test]
fn of_the_text() {
    let padded = |length: usize| format!("'x'{}", " ".repeat(length - 3));
    assert!(evaluate(&padded(MAX_LENGTH)).is_ok());
    assert_eq!(evaluate(&padded(MAX_LENGTH + 1)), Err(Error::Limit("too long")));
}

#[test]
fn of_the_depth() {
    let deep = |depth: usize| format!("{}'x'{}", "(".repeat(depth), ")".repeat(depth));
    assert!(evaluate(&deep(MAX_DEPTH - 1)).is_ok());
    assert_eq!(evaluate(&deep(MAX_DEPTH)), Err(DEEP));
    // Chains are as deep as they are long.
    let chain = |link: &str, links: usize| format!("a{}", link.repeat(links));
    for link in [
        ".b", "[0]", "[]", "[*]", ".*", " || a", " && a", "|a", "==a", "[1:]", ".[a]", "[?a]", ".{a: a}",
        "[].a",
    ] {
        let found = evaluate(&chain(link, 20));
        assert!(!matches!(found, Err(Error::Limit(_))), "{link}: {found:?}");
        let longest = (MAX_LENGTH - 1) / link.len();
        assert_eq!(evaluate(&chain(link, longest)), Err(DEEP), "{link}");
    }
    assert!(!matches!(evaluate(&chain(".b", MAX_DEPTH - 1)), Err(Error::Limit(_))));
    assert_eq!(evaluate(&chain(".b", MAX_DEPTH)), Err(DEEP));
    for opening in ["[", "(", "{a:", "!", "a[?", "length(", "a.[", "map(&", "*.", "a || (", "[*]["] {
        let text = opening.repeat(MAX_LENGTH / opening.len());
        assert!(evaluate(&text).is_err(), "{opening}");
    }
    // Within each level as much as its limit allows.
    let level = format!("a{}", ".b".repeat(MAX_DEPTH / 2));
    let text = (0..MAX_DEPTH / 2).fold(level.clone(), |inner, _| format!("{level} || ({inner})"));
    assert!(text.len() > MAX_LENGTH / 4 && !matches!(evaluate(&text), Err(Error::Syntax { .. })));
}

#[test]
fn of_the_work() {
    let work = |depth: usize| {
        evaluate(&(0..depth).fold("`1`".to_owned(), |inner, _| format!("`[1, 2, 3, 4]`[?!({inner})]")))
    };
    assert!(work(4).is_ok());
    assert_eq!(work(12), Err(WORK));
    // Two million bytes take more than 30,000 steps.
    let scans = |count: usize| evaluate(&format!("[{}]", vec!["contains(long, 'x')"; count].join(", ")));
    assert!(scans(6).is_ok());
    assert_eq!(scans(7), Err(WORK));
    assert_eq!(evaluate(&format!("[{}]", ["long == long"; 8].join(", "))), Err(WORK));
    let patterns = "map(&regex_match(@, 'x'), ['a', 'a', 'a', 'a', 'a', 'a', 'a', 'a', 'a', 'a'])";
    let all = format!("[{}]", [patterns; 20].join(", "));
    assert_eq!(evaluate(&all), Err(WORK));
}

#[test]
fn of_what_is_built() {
    let doubled = |times: usize| format!("'{}'{}", "x".repeat(1000), " | join('', [@, @])".repeat(times));
    assert!(evaluate(&doubled(10)).is_ok());
    assert_eq!(evaluate(&doubled(20)), Err(BUILT));
    for exploding in [
        "replace_all(long, '', long)",
        "replace(long, 'é', long, `1000000`)",
        "regex_replace_all('', truncate(long, `1000`), truncate(long, `100000`))",
        "regex_replace_all('é', truncate(long, `1000`), join('', ['$0-', truncate(long, `100000`)]))",
        "join(long, ['a', 'b', 'c', 'd', 'e', 'f'])",
        "items(`[1, 2, 3, 4, 5]`, long, 'v')",
        "[long, long, long, long, long]",
        "[long, long, long, long] | [@, @]",
        "{a: long, b: long, c: long, d: long, e: long}",
        "twice(twice(twice(long)))",
    ] {
        let found = evaluate(exploding);
        assert!(
            matches!(found, Err(BUILT | WORK)),
            "{exploding}: {:?}",
            found.map(|value| value.to_string().len())
        );
    }
    assert!(matches!(evaluate(&format!("a.list{}", " | [@, @, @, @]".repeat(20))), Err(BUILT | WORK)));
    let nested = (0..MAX_NESTING).fold(json!(1), |inner, _| json!([inner]));
    let mut deep = roots();
    deep.names.insert("deep", nested);
    let copied = Expression::parse("[deep]", &[]).unwrap();
    assert_eq!(copied.evaluate(&deep).unwrap_err(), Error::Limit("a value is nested too deep"));
    let large = format!("parse_yaml('{}')", "x".repeat(MAX_LENGTH - 20));
    assert!(evaluate(&large).is_ok());
    assert_eq!(evaluate("parse_yaml(long)"), Err(Error::Limit("too much YAML")));
}
