//! The page on reason codes is made from their definition.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fmt::Write as _;

use countersign_verdict::Code;

const PAGE: &str = include_str!("../../../docs/reasons.md");
/// What stands above the table.
const BEGIN: &str = "| code | what it says | what to do |\n|---|---|---|\n";

#[test]
fn the_page_says_what_the_codes_say() {
    let mut table = BEGIN.to_owned();
    for code in Code::ALL {
        let hint = code.hint().unwrap_or("nothing is wrong");
        writeln!(table, "| `{code}` | {} | {hint} |", code.meaning()).unwrap();
    }
    let (_, rest) = PAGE.split_once(BEGIN).unwrap();
    let lines = rest.lines().take_while(|line| line.starts_with('|'));
    let there = lines.fold(BEGIN.to_owned(), |all, line| all + line + "\n");
    assert!(there == table, "docs/reasons.md has to have this table:\n{table}");
}
