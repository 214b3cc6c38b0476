use proptest::prelude::*;

use super::*;

const KUBEADM: &str = ".:53 {
    errors
    health {
       lameduck 5s
    }
    ready
    kubernetes cluster.local in-addr.arpa ip6.arpa {
       pods insecure
       fallthrough in-addr.arpa ip6.arpa
       ttl 30
    }
    prometheus :9153
    forward . /etc/resolv.conf {
       max_concurrent 1000
    }
    cache 30 {
       disable success cluster.local
       disable denial cluster.local
    }
    loop
    reload
    loadbalance
}
";

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn now() -> Timestamp {
    at("2026-11-25T12:00:00Z")
}

fn wanted() -> Override {
    Override {
        name: "registry.local".to_owned(),
        addresses: vec!["10.1.1.2".parse().unwrap()],
        owner: "install-7".to_owned(),
        until: at("2026-11-26T12:00:00Z"),
    }
}

/// Sets, finds, replaces and clears; every other byte is kept on the way.
fn edit(text: &str) -> Result<Edit, EditError> {
    let edit = set(text, &wanted(), now(), false)?;
    assert!(edit.text.starts_with(text), "nothing before it is touched");
    assert_eq!(find(&edit.text, "registry.local").unwrap(), Some(wanted()));
    let moved = Override { addresses: vec!["10.9.9.9".parse().unwrap()], ..wanted() };
    let again = set(&edit.text, &moved, now(), false)?;
    assert_eq!(find(&again.text, "registry.local").unwrap(), Some(moved));
    assert!(!again.text.contains("10.1.1.2"), "a new address takes the place of the old one");
    for text_with in [&edit.text, &again.text] {
        assert_eq!(clear(text_with, "registry.local").unwrap().as_deref(), Some(text), "byte for byte");
    }
    Ok(edit)
}

#[test]
fn the_usual_file() {
    let edit = edit(KUBEADM).unwrap();
    assert_eq!(edit.warnings, [""; 0]);
    insta::assert_snapshot!(&edit.text[KUBEADM.len()..], @r"
    # BEGIN countersign dns override of registry.local
    # owner install-7, until 2026-11-26T12:00:00Z; `countersign dns override clear` takes it out.
    registry.local:53 {
        errors
        forward . /etc/resolv.conf {
           max_concurrent 1000
        }
        hosts /dev/null {
            10.1.1.2 registry.local
            ttl 5
            fallthrough
        }
    }
    # END countersign dns override of registry.local
    ");
}

#[test]
fn s11_a_site_of_its_own() {
    for (what, text) in [
        (
            "hosts of the site",
            ". {\n hosts {\n  10.5.5.5 ntp.site db.registry.local other.site\n  fallthrough\n }\n forward . 10.0.0.1\n reload\n}\n",
        ),
        ("one-line form", ". { \n hosts { 10.5.5.5 ntp.site fallthrough }\n reload\n}"),
        (
            "several zones",
            ".:53 cluster.local:53 {\n errors\n reload\n}\ncorp.example:53 {\n hosts {\n 10.6.6.6 a.corp.example\n }\n}\n",
        ),
        ("zones by comma", ".:53,\n corp.example:53 {\n reload\n}\n"),
        ("a brace on its own line", ".:53\n{\n reload\n}\n"),
        ("line ends of another system", ".:53 {\r\n    reload\r\n    forward . 10.0.0.1\r\n}\r\n"),
        ("no end of line", ".:53 {\n reload\n}"),
        ("no end of line, and a comment", ".:53 {\n reload\n} # the end"),
        ("no end of line, of another system", ".:53 {\r\n reload\r\n}"),
        ("comments that look like blocks", "# hosts {\n.:53 { # } hosts {\n reload # }\n}\n# .:53 {\n"),
        ("snippets", "(common) {\n forward . 10.0.0.7\n reload\n}\n. {\n import common\n}\n"),
        ("quotes", ". {\n template IN A { \n answer \"{{ .Name }} 60 IN A 10.0.0.1 # }\"\n }\n reload\n}\n"),
        (
            "a mark in quotes",
            ". {\n log . \"\n# BEGIN countersign dns override of registry.local\n\"\n reload\n}\n",
        ),
        ("a byte order mark", "\u{feff}.:53 {\n reload\n}\n"),
        ("nothing at its end but space", ".:53 {\n reload\n}\n  \t"),
    ] {
        let edit = edit(text).unwrap_or_else(|error| panic!("{what}: {error}"));
        let expected: &[&str] = if what == "quotes" {
            &["line 2: `template` does not count for names below `registry.local`"]
        } else {
            &[]
        };
        assert_eq!(edit.warnings, expected, "{what}");
        assert_eq!(text.contains("\r\n"), edit.text[text.len()..].contains("\r\n"), "{what}");
    }
    let hosts = ". {\n hosts {\n  10.5.5.5 ntp.site db.registry.local\n  fallthrough\n }\n bind 10.0.0.9\n reload\n}\n";
    let text = edit(hosts).unwrap().text;
    let own = &text[hosts.len()..];
    assert!(own.contains("        10.5.5.5 db.registry.local\n") && !own.contains("ntp.site"), "{own}");
    assert!(own.contains("    bind 10.0.0.9\n"), "{own}");
    let snippet = "(common) {\n forward . 10.0.0.7\n reload\n}\n. {\n import common\n}\n";
    assert!(edit(snippet).unwrap().text[snippet.len()..].contains("    forward . 10.0.0.7\n"));
}

#[test]
fn it_answers_on_the_ports_on_which_the_name_is_asked_for_now() {
    for (text, keys) in [
        (".:5353 {\n reload\n}\n", vec!["registry.local:5353 {"]),
        ("dns://.:53 {\n reload\n}\n", vec!["registry.local:53 {"]),
        (".:53 .:5353 {\n reload\n}\n", vec!["registry.local:53 registry.local:5353 {"]),
        // The longest match decides whose `forward` is taken over.
        (
            ".:53 {\n forward . 1.1.1.1\n reload\n}\nlocal:53 {\n forward . 2.2.2.2\n}\n",
            vec!["registry.local:53 {", "forward . 2.2.2.2"],
        ),
        ("local. {\n reload\n}\n", vec!["registry.local {"]),
        (".:{$PORT} {\n reload\n}\n", vec!["registry.local:{$PORT} {"]),
        (
            ".:53 {\n forward . 1.1.1.1\n reload\n}\nlocal:54 {\n forward . 2.2.2.2\n}\n",
            vec!["registry.local:53 {", "registry.local:54 {", "1.1.1.1", "2.2.2.2"],
        ),
        ("10.0.0.0/24 try.local:53 . {\n reload\n}\n", vec!["registry.local {"]),
        (
            ". {\n forward . 1.1.1.1\n reload\n}\nlocal:53 {\n forward . 2.2.2.2\n}\n",
            vec!["registry.local:53 {", "2.2.2.2"],
        ),
    ] {
        let own = edit(text).unwrap().text[text.len()..].to_owned();
        for key in keys {
            assert!(own.contains(key), "{text}: {key}: {own}");
        }
    }
}

#[test]
fn what_cannot_work_is_said() {
    for (text, words) in [
        (".:53 {\n forward . 1.1.1.1\n}\n", "there is no `reload`"),
        (".:53 {\n reload\n}\nimport custom/*.server\n", "line 4: `custom/*.server` is imported"),
        (
            ".:53 {\n reload\n import custom/*.override\n}\n",
            "line 3: what `import custom/*.override` brings along",
        ),
        ("cluster.local:53 {\n reload\n}\n", "no server block answers for `registry.local` now"),
        ("tls://.:853 {\n reload\n}\n", "`tls://.:853` is not looked into"),
    ] {
        let edit = edit(text).unwrap();
        assert!(edit.warnings.iter().any(|warning| warning.contains(words)), "{text}: {:?}", edit.warnings);
    }
}

#[test]
fn what_cannot_be_done_is_refused_with_the_line() {
    for (text, words) in [
        (
            ".:53 {\n reload\n}\nregistry.local {\n}\n",
            "line 4: there is a server block for `registry.local` already",
        ),
        (".:53 {\n reload\n}\nother Registry.Local.:53 {\n}\n", "line 4: there is a server block"),
        (".:53\nreload\n", "line 1: the only server block has no braces"),
        (".:53 {\n reload\n", "cannot be read: line 2"),
        ("# BEGIN countersign dns override of a.b\n.:53 {\n}\n", "line 2: owner and expiry cannot be read"),
        (
            "# BEGIN countersign dns override of a.b\n# owner x, until 2026-11-26T12:00:00Z;\n.:53 {\n}\n",
            "line 1: the override does not end",
        ),
        ("# END countersign dns override of a.b\n.:53 {\n}\n", "line 1: an override ends that did not begin"),
    ] {
        let error = edit(text).unwrap_err().to_string();
        assert!(error.contains(words), "{text}: {error}");
    }
    for wrong in [
        Override { name: "Registry.local".to_owned(), ..wanted() },
        Override { name: "registry.local {".to_owned(), ..wanted() },
        Override { name: format!("{}.local", "a".repeat(64)), ..wanted() },
        Override { addresses: Vec::new(), ..wanted() },
        Override { owner: "me\n}".to_owned(), ..wanted() },
    ] {
        assert!(matches!(set(KUBEADM, &wrong, now(), false), Err(EditError::Override(_))), "{wrong:?}");
    }
}

#[test]
fn in_whatever_order_they_come_and_go() {
    let other = Override { name: "other.local".to_owned(), ..wanted() };
    for base in [".:53 {\n reload\n}", ".:53 {\n reload\n} # the end", ".:53 {\r\n reload\r\n}", KUBEADM] {
        let one = set(base, &wanted(), now(), false).unwrap().text;
        let two = set(&one, &other, now(), false).unwrap().text;
        for (first, second) in [("registry.local", "other.local"), ("other.local", "registry.local")] {
            let left = clear(&two, first).unwrap().unwrap();
            assert!(find(&left, second).unwrap().is_some() && Corefile::parse(&left).is_ok(), "{left}");
            assert_eq!(clear(&left, second).unwrap().as_deref(), Some(base));
        }
        // Somebody adds a zone of his own on a line of its own.
        let more = format!("{one}\nmore.site {{\n}}\n");
        let left = clear(&more, "registry.local").unwrap().unwrap();
        let joined = if base.ends_with('\n') { "" } else { "\n" };
        assert!(
            left.ends_with(&format!("{joined}more.site {{\n}}\n")) && Corefile::parse(&left).is_ok(),
            "{left}"
        );
    }
}

#[test]
fn a_site_that_answers_for_the_name_itself_by_now() {
    let text = set(KUBEADM, &wanted(), now(), false).unwrap().text;
    for own in ["registry.local:5353 {\n}\n", "registry.local:53 {\n errors\n}\n"] {
        let both = format!("{text}{own}");
        assert_eq!(clear(&both, "registry.local").unwrap(), Some(format!("{KUBEADM}{own}")));
        assert!(expire(&both, wanted().until).unwrap().is_some());
        assert!(matches!(set(&both, &wanted(), now(), false), Err(EditError::Taken { .. })));
    }
}

#[test]
fn what_the_new_block_does_not_do_is_said_or_refused() {
    let with = |line: &str| format!(".:53 {{\n {line}\n reload\n}}\n");
    for (line, words) in [
        (
            "template IN A x.registry.local {\n  rcode NXDOMAIN\n }",
            "`template` does not count for names below",
        ),
        ("hosts /etc/coredns/NodeHosts {\n  fallthrough\n }", "in files of `hosts`"),
        ("hosts {\n  import entries\n }", "in files of `hosts`"),
        ("autopath @kubernetes", "passes the override by"),
    ] {
        let found = edit(&with(line)).unwrap().warnings;
        assert!(found.iter().any(|warning| warning.contains(words)), "{line}: {found:?}");
    }
    let own = |line: &str| edit(&with(line)).unwrap().text[with(line).len()..].to_owned();
    for line in ["root /etc/coredns", "acl {\n  allow net 10.0.0.0/8\n }", "dns64", "forward . tls://9.9.9.9"]
    {
        assert!(own(line).contains(&format!("    {line}\n")), "{line}: {}", own(line));
    }
    let dotted = own("hosts {\n  10.5.5.5 DB.registry.local.\n  fallthrough\n }");
    assert!(dotted.contains("        10.5.5.5 DB.registry.local.\n"), "{dotted}");
    let all = Override { name: "local".to_owned(), ..wanted() };
    let error = set(KUBEADM, &all, now(), false).unwrap_err().to_string();
    assert!(error.contains("`cluster.local` of the cluster lies below `local`"), "{error}");
    for text in [with("view x {\n  expr true\n }"), ".:53 {\n reload\n}\nlocal:{$PORT} {\n}\n".to_owned()] {
        assert!(matches!(set(&text, &wanted(), now(), false), Err(EditError::Override(_))), "{text}");
    }
    // Two listeners of one zone are overridden both.
    let two = ".:53 {\n bind 10.0.0.1\n reload\n}\n.:53 {\n bind 10.0.0.2\n}\n";
    let text = edit(two).unwrap().text;
    assert_eq!(text[two.len()..].matches("registry.local:53 {").count(), 2);
}

#[test]
fn an_owner_keeps_what_he_has_set_until_it_ends() {
    let text = set(KUBEADM, &wanted(), now(), false).unwrap().text;
    let other = Override { owner: "somebody".to_owned(), until: at("2027-01-01T00:00:00Z"), ..wanted() };
    let error = set(&text, &other, now(), false).unwrap_err();
    assert_eq!(error, EditError::Held { owner: "install-7".to_owned(), until: wanted().until });
    for (when, force) in [(now(), true), (wanted().until, false)] {
        let text = set(&text, &other, when, force).unwrap().text;
        assert_eq!(find(&text, "registry.local").unwrap().unwrap().owner, "somebody");
        assert_eq!(clear(&text, "registry.local").unwrap().as_deref(), Some(KUBEADM));
    }
}

#[test]
fn what_has_ended_is_taken_out_and_nothing_else() {
    let one = set(KUBEADM, &wanted(), now(), false).unwrap().text;
    let later = Override { name: "other.local".to_owned(), until: at("2026-11-27T12:00:00Z"), ..wanted() };
    let both = set(&one, &later, now(), false).unwrap().text;
    assert_eq!(expire(&both, now()).unwrap(), None);
    let (left, gone) = expire(&both, wanted().until).unwrap().unwrap();
    assert_eq!(gone, ["registry.local"]);
    assert_eq!(find(&left, "other.local").unwrap(), Some(later.clone()));
    assert_eq!(clear(&left, "other.local").unwrap().as_deref(), Some(KUBEADM));
    let (left, gone) = expire(&both, later.until).unwrap().unwrap();
    assert_eq!((left.as_str(), gone.len()), (KUBEADM, 2));
}

#[test]
fn what_others_change_around_it_stays() {
    let text = set(KUBEADM, &wanted(), now(), false).unwrap().text;
    let changed = text.replace("cache 30 {", "cache 60 {").replace("}\n# BEGIN", "}\nnew.site {\n}\n# BEGIN")
        + "more.site {\n}\n";
    let left = clear(&changed, "registry.local").unwrap().unwrap();
    assert_eq!(left, KUBEADM.replace("cache 30 {", "cache 60 {") + "new.site {\n}\nmore.site {\n}\n");
}

proptest! {
    #[test]
    fn no_text_makes_it_panic_or_lose_a_byte(text in "(\\.:53 \\{\n reload\n\\}[ \n])?([ \\t\\r\\n#\"{}.:,a-z0-9/()\\\\]|hosts|import|errors|reload|fallthrough){0,60}") {
        if let Ok(edit) = set(&text, &wanted(), now(), false) {
            prop_assert_eq!(clear(&edit.text, "registry.local").unwrap(), Some(text));
        }
    }

    #[test]
    fn blocks_of_any_shape_are_kept(
        blocks in proptest::collection::vec("[a-z]{1,5}\\.site(:5[0-9])? \\{\n( (errors|reload|hosts \\{\n 10\\.0\\.0\\.1 [a-z]{3}\n \\}|# [a-z}{]{0,9})\n){0,4}\\}( # [a-z]{0,5})?", 1..5),
        end in "(\n|\r\n|  |)",
    ) {
        let text = blocks.join("\n") + &end;
        let edit = set(&text, &wanted(), now(), false);
        // The same zone twice is the site's own mistake, and not ours to find.
        let edit = edit.unwrap();
        prop_assert!(edit.text.starts_with(&text));
        prop_assert_eq!(clear(&edit.text, "registry.local").unwrap(), Some(text));
    }
}
