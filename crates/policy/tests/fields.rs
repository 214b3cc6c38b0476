//! Each field of a policy that is supported can deny (T-15), or is shown where it tells: a field that is
//! read and then ignored looks like one that works.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "fields/rows.rs"]
mod rows;
#[path = "fields/world.rs"]
mod world;

use std::collections::BTreeSet;

use countersign_policy::decisive_fields;

use rows::{blocks, images, mutations, scopes, specs, validations};
use world::{Case, DENY, PODS, Row, World, enforced, policy};

#[test]
fn t_15_every_field_can_deny() {
    let world = World::new();
    let tables = [blocks(), scopes(), mutations(), validations(), specs(), images(&world)];
    let rows: Vec<Row> = tables.into_iter().flatten().collect();
    for Row { field, admits, denies, case } in &rows {
        let outcome = world.judge(admits, case);
        assert!(outcome.denials.is_empty(), "{field}: {:?}\n{admits}", outcome.denials);
        assert!(world.denies(denies, case), "{field}\n{denies}");
    }
    let shown: BTreeSet<String> = rows.iter().map(|row| row.field.clone()).chain(told()).collect();
    let document = countersign_yaml::document(include_str!("fields/every-object.yaml")).unwrap();
    let known = decisive_fields(&document);
    // A loop in a loop and attestors in attestors are read by the same reader; a namespace of a Secret is
    // the program's own, or refused.
    let once = |field: &String| {
        let field = field.replace(".attestor.entries", "").replace(".entries.attestor.count", ".count");
        let mut field = field.replace(".secret.namespace", ".secret.name");
        while field.contains(".foreach.foreach.") {
            field = field.replace(".foreach.foreach.", ".foreach.");
        }
        field
    };
    let is_object = |field: &String| {
        let inside = format!("{field}.");
        known.iter().any(|other| once(other).starts_with(&inside)) || field.ends_with("podSecurity")
    };
    let leaves: BTreeSet<String> = known.iter().map(once).filter(|field| !is_object(field)).collect();
    let missing: Vec<&String> = leaves.difference(&shown).collect();
    assert!(missing.is_empty(), "supported, and without a row: {missing:#?}");
}

/// Fields that decide what is told, each shown where it is.
fn told() -> Vec<String> {
    let world = World::new();
    let deny = |message: &str| {
        format!(
            "{PODS}\nvalidate: {{ message: '{message}', deny: {{ conditions: {{ any: [{{ key: a, operator: Equals, value: a, message: second }}] }} }} }}"
        )
    };
    let denial = world.judge(&enforced(&[&deny("first words")]), &Case::CREATE).denials.concat();
    assert!(denial.contains("r0: 'first words"), "{denial}");
    let warned = |emit: &str| {
        let text = policy(&format!("emitWarning: {emit}"), &[&deny("x")]);
        world.judge(&text, &Case::CREATE).warnings.len()
    };
    assert_eq!((warned("true"), warned("false")), (1, 0));
    let skipped = |list: &str| {
        let rule = format!(
            "{PODS}\npreconditions: {{ {list}: [{{ key: a, operator: Equals, value: b, message: not so }}] }}\n{DENY}"
        );
        world.judge(&enforced(&[&rule]), &Case::CREATE).responses[0].message.clone()
    };
    for list in ["any", "all"] {
        assert_eq!(skipped(list), "preconditions not met; not so");
    }
    let of_conditions = |list: &str, place: &str| {
        let conditions = format!(
            "{{ conditions: {{ {list}: [{{ key: a, operator: Equals, value: a, message: so }}] }} }}"
        );
        let rule = format!("{PODS}\nvalidate: {}", place.replace('@', &conditions));
        world.judge(&enforced(&[&rule]), &Case::CREATE).denials.concat()
    };
    for list in ["any", "all"] {
        for place in ["{ deny: @ }", "{ foreach: [{ list: request.object.spec.containers, deny: @ }] }"] {
            let denial = of_conditions(list, place);
            assert!(denial.contains("so"), "{list} {place}: {denial}");
        }
    }
    [
        "emitWarning",
        "rules.name",
        "rules.validate.message",
        "rules.preconditions.any.message",
        "rules.preconditions.all.message",
        "rules.validate.deny.conditions.any.message",
        "rules.validate.deny.conditions.all.message",
        "rules.validate.foreach.deny.conditions.any.message",
        "rules.validate.foreach.deny.conditions.all.message",
    ]
    .map(|field| format!("spec.{field}"))
    .to_vec()
}
