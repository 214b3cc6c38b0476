//! The wildcards of `kyverno.io` policies.

/// Whether `text` matches `pattern`, where `*` stands for any run of characters, `/`
/// included, and `?` for exactly one character (go-wildcard v1.0.3).
///
/// Linear in the text for each star, without recursion and without allocation.
pub fn wildcard_match(pattern: &str, text: &str) -> bool {
    let (mut p, mut t) = (pattern.chars(), text.chars());
    // Where to go on after the last star, should the present attempt fail.
    let mut retry: Option<(std::str::Chars<'_>, std::str::Chars<'_>)> = None;
    loop {
        let mut next = p.clone();
        match next.next() {
            Some('*') => {
                retry = Some((next.clone(), t.clone()));
                p = next;
                continue;
            }
            Some(c) => {
                let mut rest = t.clone();
                if rest.next().is_some_and(|x| c == '?' || c == x) {
                    (p, t) = (next, rest);
                    continue;
                }
            }
            None if t.as_str().is_empty() => return true,
            None => {}
        }
        let Some((after_star, mut from)) = retry.take() else { return false };
        if from.next().is_none() {
            return false;
        }
        (p, t) = (after_star.clone(), from.clone());
        retry = Some((after_star, from));
    }
}

#[cfg(test)]
mod tests {
    use super::wildcard_match;

    #[test]
    fn matches_like_go_wildcard() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("*", "anything/at/all", true),
            ("", "", true),
            ("", "a", false),
            ("?", "", false),
            ("?", "é", true),
            ("a?c", "abc", true),
            ("quay.io/*", "quay.io/a/b:1", true),
            ("quay.io/*", "quay.io.evil/a", false),
            ("*nexus*", "x-nexus-y", true),
            ("*a*b", "aab", true),
            ("*a*b", "aabc", false),
            ("a*a*a*b", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", false),
            ("*:latest", "a/b:latest", true),
            ("**", "x", true),
        ] {
            assert_eq!(wildcard_match(pattern, text), expected, "{pattern} ~ {text}");
        }
    }
}
