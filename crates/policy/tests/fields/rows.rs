//! A row for each field: a policy that admits a pod, and one that differs in the field and denies it.

use super::world::{Case, DENY, PODS, Row, World, enforced, if_marked, pod, policy, row};

/// A label selector: the field, what selects the labels of the pod and its namespace, and what does not.
fn labels() -> [(&'static str, String, &'static str, &'static str); 4] {
    let expression = |key: &str, operator: &str, values: &str| {
        format!("{{ matchExpressions: [{{ key: {key}, operator: {operator}, values: {values} }}] }}")
    };
    [
        ("matchLabels", "{ matchLabels: @ }".to_owned(), "{ app: db }", "{ app: web }"),
        ("matchExpressions.key", expression("@", "In", "[prod]"), "env", "app"),
        ("matchExpressions.operator", expression("env", "@", "[prod]"), "In", "NotIn"),
        ("matchExpressions.values", expression("env", "In", "@"), "[prod, test]", "[test]"),
    ]
}

/// The blocks of `match` and `exclude`, in all places.
pub(super) fn blocks() -> Vec<Row> {
    // The field in a block; what selects the pod, and what does not.
    let attributes = [
        ("resources.kinds", "resources: { kinds: @ }", "[Pod]", "[Job]"),
        ("resources.name", "resources: { kinds: [Pod], name: @ }", "db", "web"),
        ("resources.names", "resources: { kinds: [Pod], names: @ }", "['d*']", "['w*']"),
        ("resources.namespaces", "resources: { kinds: [Pod], namespaces: @ }", "[apps]", "[other]"),
        ("resources.operations", "resources: { kinds: [Pod], operations: @ }", "[CREATE]", "[UPDATE]"),
        (
            "resources.annotations",
            "resources: { kinds: [Pod], annotations: @ }",
            "{ owner: jane }",
            "{ owner: joe }",
        ),
        ("subjects.kind", "resources: { kinds: [Pod] }, subjects: [{ kind: @, name: dev }]", "Group", "User"),
        ("subjects.name", "resources: { kinds: [Pod] }, subjects: [{ kind: Group, name: @ }]", "dev", "ops"),
        (
            "subjects.namespace",
            "resources: { kinds: [Pod] }, subjects: [{ kind: ServiceAccount, name: bot, namespace: @ }]",
            "apps",
            "other",
        ),
        ("roles", "resources: { kinds: [Pod] }, roles: @", "['apps:edit']", "['apps:view']"),
        ("clusterRoles", "resources: { kinds: [Pod] }, clusterRoles: @", "[view]", "[edit]"),
    ];
    let mut rows = Vec::new();
    let selectors = ["selector", "namespaceSelector"].into_iter().flat_map(|name| {
        labels().map(|(field, selector, selects, not)| {
            let block = format!("resources: {{ kinds: [Pod], {name}: {selector} }}");
            (format!("resources.{name}.{field}"), block, selects, not)
        })
    });
    let attributes =
        attributes.map(|(field, block, selects, not)| (field.to_owned(), block.to_owned(), selects, not));
    let attributes: Vec<_> = attributes.into_iter().chain(selectors).collect();
    for part in ["match", "exclude"] {
        for place in ["any", "all", ""] {
            for (field, block, selects, not) in &attributes {
                let with = |value: &str| {
                    let block = block.replace('@', value);
                    let written = if place.is_empty() {
                        format!("{part}: {{ {block} }}")
                    } else {
                        format!("{part}: {{ {place}: [{{ {block} }}] }}")
                    };
                    let first = if part == "match" { String::new() } else { format!("{PODS}\n") };
                    enforced(&[&format!("{first}{written}\n{DENY}")])
                };
                let path = if place.is_empty() { part.to_owned() } else { format!("{part}.{place}") };
                let field = format!("spec.rules.{path}.{field}");
                // What selects denies under `match`, and admits under `exclude`.
                let (admits, denies) = if part == "match" { (not, selects) } else { (selects, not) };
                rows.push(row(field, with, admits, denies));
            }
        }
    }
    rows
}

/// A policy with this in its place.
type Place = fn(&str) -> String;

/// Rules with conditions or a context in every place that there is for one: by the path, and by what
/// stands in that place.
fn places() -> Vec<(&'static str, Place)> {
    vec![
        ("", |inner| enforced(&[&format!("{PODS}\n{inner}\n{DENY}")])),
        (".mutate.foreach", |inner| {
            if_marked(&format!(
                "{PODS}\nmutate:\n  foreach:\n    - list: request.object.spec.containers\n      {}\n      patchStrategicMerge: {{ metadata: {{ marked: x }} }}",
                inner.replace('\n', "\n      ")
            ))
        }),
        (".validate.foreach", |inner| {
            enforced(&[&format!(
                "{PODS}\nvalidate:\n  foreach:\n    - list: request.object.spec.containers\n      {}\n      deny: {{}}",
                inner.replace('\n', "\n      ")
            )])
        }),
    ]
}

/// Conditions and contexts, in all places.
pub(super) fn scopes() -> Vec<Row> {
    let mut rows = Vec::new();
    let condition = |list: &str, field: &str, value: &str| {
        let of =
            |own: &str, otherwise: &str| if own == field { value.to_owned() } else { otherwise.to_owned() };
        let (key, operator, wanted) =
            (of("key", "'{{ request.operation }}'"), of("operator", "Equals"), of("value", "CREATE"));
        format!("{{ {list}: [{{ key: {key}, operator: {operator}, value: {wanted} }}] }}")
    };
    let differing = [
        ("key", "'{{ request.namespace }}'", "'{{ request.operation }}'"),
        ("operator", "NotEquals", "Equals"),
        ("value", "UPDATE", "CREATE"),
    ];
    for (place, rule) in places() {
        for list in ["any", "all"] {
            for (field, admits, denies) in differing {
                let with = |value: &str| rule(&format!("preconditions: {}", condition(list, field, value)));
                rows.push(row(
                    format!("spec.rules{place}.preconditions.{list}.{field}"),
                    with,
                    admits,
                    denies,
                ));
            }
        }
        // A variable, whose value a precondition holds against `yes`.
        let with = |entry: &str| {
            rule(&format!(
                "context: [{entry}]\npreconditions: {{ any: [{{ key: \"{{{{ v }}}}\", operator: Equals, value: \"yes\" }}] }}"
            ))
        };
        let context = format!("spec.rules{place}.context");
        for (field, entry, admits, denies) in [
            ("variable.value", "{ name: v, variable: { value: @ } }", "'no'", "'yes'"),
            (
                "variable.jmesPath",
                "{ name: v, variable: { value: { a: 'yes', b: 'no' }, jmesPath: @ } }",
                "b",
                "a",
            ),
            (
                "variable.default",
                "{ name: v, variable: { jmesPath: request.none, default: @ } }",
                "'no'",
                "'yes'",
            ),
        ] {
            rows.push(row(
                format!("{context}.{field}"),
                |value| with(&entry.replace('@', value)),
                admits,
                denies,
            ));
        }
        let named = |name: &str| {
            with(&format!(
                "{{ name: {name}, variable: {{ value: 'yes' }} }}, {{ name: x, variable: {{ value: 'no' }} }}"
            ))
            .replace("{{ v }}", &format!("{{{{ {} }}}}", if name == "v" { "v" } else { "x" }))
        };
        rows.push(row(format!("{context}.name"), named, "w", "v"));
        let map = |name: &str, namespace: &str| {
            let entry = format!("{{ name: m, configMap: {{ name: {name}, namespace: {namespace} }} }}");
            with(&entry).replace("{{ v }}", "{{ m.data.x }}").replace("value: \"yes\"", "value: apps/one")
        };
        rows.push(row(format!("{context}.configMap.name"), |name| map(name, "apps"), "two", "one"));
        rows.push(row(
            format!("{context}.configMap.namespace"),
            |namespace| map("one", namespace),
            "ops",
            "apps",
        ));
    }
    for (place, rule) in [
        ("validate.deny", "validate: { deny: { conditions: @ } }"),
        (
            "validate.foreach.deny",
            "validate: { foreach: [{ list: request.object.spec.containers, deny: { conditions: @ } }] }",
        ),
    ] {
        for list in ["any", "all"] {
            for (field, admits, denies) in differing {
                let with = |value: &str| {
                    enforced(&[&format!("{PODS}\n{}", rule.replace('@', &condition(list, field, value)))])
                };
                rows.push(row(format!("spec.rules.{place}.conditions.{list}.{field}"), with, admits, denies));
            }
        }
    }
    rows
}

/// What changes objects, shown by a rule that denies what was changed.
pub(super) fn mutations() -> Vec<Row> {
    let mutate = |field: &str, body: &str, admits: &str, denies: &str| {
        let with = |value: &str| if_marked(&format!("{PODS}\nmutate: {}", body.replace('@', value)));
        row(format!("spec.rules.mutate.{field}"), with, admits, denies)
    };
    let lists = "request.object.spec.containers";
    vec![
        mutate(
            "patchStrategicMerge",
            "{ patchStrategicMerge: @ }",
            "{ metadata: { a: x } }",
            "{ metadata: { marked: x } }",
        ),
        mutate(
            "patchesJson6902",
            "{ patchesJson6902: '@' }",
            "- { op: add, path: /metadata/a, value: x }",
            "- { op: add, path: /metadata/marked, value: x }",
        ),
        mutate(
            "foreach.list",
            "{ foreach: [{ list: @, patchStrategicMerge: { metadata: { marked: x } } }] }",
            "'request.object.spec.initContainers || `[]`'",
            lists,
        ),
        mutate(
            "foreach.patchStrategicMerge",
            "{ foreach: [{ list: request.object.spec.containers, patchStrategicMerge: @ }] }",
            "{ metadata: { a: x } }",
            "{ metadata: { marked: x } }",
        ),
        mutate(
            "foreach.patchesJson6902",
            "{ foreach: [{ list: request.object.spec.containers, patchesJson6902: '@' }] }",
            "- { op: add, path: /metadata/a, value: x }",
            "- { op: add, path: /metadata/marked, value: x }",
        ),
        // The last one that writes counts.
        row(
            "spec.rules.mutate.foreach.order",
            |order| {
                enforced(&[
                    &format!(
                        "{PODS}\nmutate: {{ foreach: [{{ list: request.object.spec.containers, order: {order}, patchStrategicMerge: {{ metadata: {{ last: '{{{{ element.name }}}}' }} }} }}] }}"
                    ),
                    &format!("{PODS}\nvalidate: {{ pattern: {{ metadata: {{ last: a }} }} }}"),
                ])
            },
            "Descending",
            "Ascending",
        ),
        mutate(
            "foreach.foreach",
            "{ foreach: [{ list: request.object.spec.containers, foreach: [{ list: @, patchStrategicMerge: { metadata: { marked: x } } }] }] }",
            "'element.none || `[]`'",
            "'element.ports || `[]`'",
        ),
    ]
}

/// What judges objects.
pub(super) fn validations() -> Vec<Row> {
    let rule = |field: &str, body: &str, admits: &str, denies: &str| {
        let with = |value: &str| enforced(&[&format!("{PODS}\nvalidate: {}", body.replace('@', value))]);
        row(format!("spec.rules.validate.{field}"), with, admits, denies)
    };
    let over = "{ foreach: [{ list: request.object.spec.containers, @ }] }";
    let security = |field: &str, body: &str, admits: &str, denies: &str| {
        rule(&format!("podSecurity.{field}"), &format!("{{ podSecurity: {{ {body} }} }}"), admits, denies)
    };
    let excluded = "level: baseline, exclude: [{ controlName: Host Namespaces }, { controlName: Privileged Containers, images: ['*'] }";
    let mut rows = vec![
        rule("pattern", "{ pattern: @ }", "{ spec: { hostPID: true } }", "{ spec: { hostPID: false } }"),
        rule(
            "anyPattern",
            "{ anyPattern: [{ spec: { hostPID: false } }, @] }",
            "{ spec: { hostPID: true } }",
            "{ spec: { hostIPC: true } }",
        ),
        rule(
            "foreach.pattern",
            &over.replace('@', "pattern: @"),
            "{ image: 'registry.local/*' }",
            "{ name: a }",
        ),
        rule(
            "foreach.anyPattern",
            &over.replace('@', "anyPattern: [{ name: a }, @]"),
            "{ name: b }",
            "{ name: c }",
        ),
        rule(
            "foreach.list",
            "{ foreach: [{ list: @, pattern: { name: a } }] }",
            "request.object.spec.initContainers",
            "request.object.spec.containers",
        ),
        rule(
            "foreach.elementScope",
            &over.replace('@', "elementScope: @, pattern: { spec: { hostPID: true } }"),
            "false",
            "true",
        ),
        rule(
            "foreach.foreach",
            &over.replace('@', "foreach: [{ list: @, deny: {} }]"),
            "element.none",
            "element.ports",
        ),
        rule("failureAction", "{ failureAction: @, message: no, deny: {} }", "Audit", "Enforce"),
        rule(
            "failureActionOverrides.action",
            "{ failureAction: Audit, failureActionOverrides: [{ action: @, namespaces: [apps] }], deny: {} }",
            "Audit",
            "Enforce",
        ),
        rule(
            "failureActionOverrides.namespaces",
            "{ failureAction: Audit, failureActionOverrides: [{ action: Enforce, namespaces: @ }], deny: {} }",
            "[other]",
            "[apps]",
        ),
        security("level", "level: @", "privileged", "baseline"),
        // The sysctl is safe since 1.29.
        security("version", &format!("{excluded}], version: @"), "latest", "v1.0"),
        security(
            "exclude.controlName",
            "level: baseline, exclude: [{ controlName: Privileged Containers, images: ['*'] }, { controlName: @ }]",
            "Host Namespaces",
            "HostPath Volumes",
        ),
        security(
            "exclude.images",
            "level: baseline, exclude: [{ controlName: Host Namespaces }, { controlName: Privileged Containers, images: @ }]",
            "['*']",
            "['ghcr.io/*']",
        ),
        security(
            "exclude.restrictedField",
            "level: baseline, exclude: [{ controlName: Privileged Containers, images: ['*'] }, { controlName: Host Namespaces, restrictedField: @, values: ['true'] }]",
            "spec.hostPID",
            "spec.hostIPC",
        ),
        security(
            "exclude.values",
            "level: baseline, exclude: [{ controlName: Privileged Containers, images: ['*'] }, { controlName: Host Namespaces, restrictedField: spec.hostPID, values: @ }]",
            "['true']",
            "['false']",
        ),
    ];
    for (field, selector, selects, not) in labels() {
        let body = format!(
            "{{ failureAction: Audit, failureActionOverrides: [{{ action: Enforce, namespaceSelector: {selector} }}], deny: {{}} }}"
        );
        rows.push(rule(&format!("failureActionOverrides.namespaceSelector.{field}"), &body, not, selects));
    }
    // The object was as wrong before.
    let update = || Case { operation: "UPDATE", old: pod() };
    rows.push(Row {
        case: update(),
        ..rule("allowExistingViolations", "{ allowExistingViolations: @, deny: {} }", "true", "false")
    });
    rows
}

/// What a policy says of all its rules.
pub(super) fn specs() -> Vec<Row> {
    let deny = format!("{PODS}\n{DENY}");
    let spec = |field: &str, spec: &str, rules: &[&str], admits: &str, denies: &str| {
        row(format!("spec.{field}"), |value| policy(&spec.replace('@', value), rules), admits, denies)
    };
    let errs = format!(
        "{PODS}\nvalidate: {{ deny: {{ conditions: {{ any: [{{ key: '{{{{ divide(`1`, `0`) }}}}', operator: Equals, value: x }}] }} }} }}"
    );
    let passes = format!("{PODS}\nvalidate: {{ pattern: {{ kind: Pod }} }}");
    let mut rows = vec![
        spec("admission", "validationFailureAction: Enforce\n  admission: @", &[&deny], "false", "true"),
        spec(
            "applyRules",
            "validationFailureAction: Enforce\n  applyRules: @",
            &[&passes, &deny],
            "One",
            "All",
        ),
        spec(
            "failurePolicy",
            "validationFailureAction: Enforce\n  failurePolicy: @",
            &[&errs],
            "Ignore",
            "Fail",
        ),
        spec("validationFailureAction", "validationFailureAction: @", &[&deny], "Audit", "Enforce"),
        spec(
            "validationFailureActionOverrides.action",
            "validationFailureActionOverrides: [{ action: @, namespaces: [apps] }]",
            &[&deny],
            "Audit",
            "Enforce",
        ),
        spec(
            "validationFailureActionOverrides.namespaces",
            "validationFailureActionOverrides: [{ action: Enforce, namespaces: @ }]",
            &[&deny],
            "[other]",
            "[apps]",
        ),
    ];
    for (field, selector, selects, not) in labels() {
        let body = format!(
            "validationFailureActionOverrides: [{{ action: Enforce, namespaceSelector: {selector} }}]"
        );
        let field = format!("validationFailureActionOverrides.namespaceSelector.{field}");
        rows.push(spec(&field, &body, &[&deny], not, selects));
    }
    rows
}

/// What `verifyImages` asks.
pub(super) fn images(world: &World) -> Vec<Row> {
    let pem = |text: &str| text.trim().replace('\n', "\\n");
    let (other, stranger) = (pem(&world.own), pem(&world.stranger));
    let set = |more: &str, entries: &str| {
        format!("{{ imageReferences: ['*'], attestors: [{{ {more} entries: [{entries}] }}] }}")
    };
    let key = |name: &str| format!("{{ keys: {{ publicKeys: {name} }} }}");
    let (own, strange) = (key("OWN"), key("STRANGER"));
    let keys = |written: &str| set("", &format!("{{ keys: {{ {written} }} }}"));
    let entry = |more: &str, who: &str| {
        format!("{{ {more} imageReferences: ['*'], attestors: [{{ entries: [{who}] }}] }}")
    };
    // The field; an entry with it that admits, and one that differs in it alone and denies.
    let mut rows: Vec<(&str, String, String)> = vec![
        (
            "imageReferences",
            entry("", &strange).replace("['*']", "['ghcr.io/*']"),
            entry("", &strange).replace("['*']", "['quay.io/*']"),
        ),
        (
            "skipImageReferences",
            entry("skipImageReferences: ['quay.io/*'],", &strange),
            entry("skipImageReferences: ['ghcr.io/*'],", &strange),
        ),
        (
            "failureAction",
            entry("failureAction: Audit,", &strange),
            entry("failureAction: Enforce,", &strange),
        ),
        (
            "repository",
            entry("repository: registry.local/sigs,", &key(&format!("\"{other}\""))),
            entry("", &key(&format!("\"{other}\""))),
        ),
        (
            "attestors",
            format!("{{ imageReferences: ['*'], attestors: [{{ entries: [{own}] }}] }}"),
            format!(
                "{{ imageReferences: ['*'], attestors: [{{ entries: [{own}] }}, {{ entries: [{strange}] }}] }}"
            ),
        ),
        (
            "attestors.count",
            set("count: 1,", &format!("{own}, {strange}")),
            set("count: 2,", &format!("{own}, {strange}")),
        ),
        ("attestors.entries", set("", &own), set("", &format!("{own}, {strange}"))),
        (
            "attestors.entries.attestor",
            set("", &format!("{{ attestor: {{ entries: [{own}] }} }}")),
            set("", &format!("{{ attestor: {{ entries: [{strange}] }} }}")),
        ),
        (
            "attestors.entries.annotations",
            set("", "{ annotations: { env: prod }, keys: { publicKeys: OWN } }"),
            set("", "{ annotations: { env: test }, keys: { publicKeys: OWN } }"),
        ),
        ("attestors.entries.keys", keys("publicKeys: OWN"), keys("publicKeys: STRANGER")),
        (
            "attestors.entries.keys.publicKeys",
            keys("publicKeys: OWN"),
            keys(&format!("publicKeys: \"{stranger}\"")),
        ),
        (
            "attestors.entries.keys.publicKeys",
            keys("publicKeys: 'k8s://countersign/own'"),
            keys("publicKeys: 'k8s://countersign/stranger'"),
        ),
        ("attestors.entries.keys.publicKeys", keys("publicKeys: OWN"), keys("publicKeys: 'site://over'")),
        ("attestors.entries.keys.secret", keys("secret: { name: own }"), keys("secret: { name: stranger }")),
        (
            "attestors.entries.keys.signatureAlgorithm",
            keys("publicKeys: OWN, signatureAlgorithm: sha256"),
            keys("publicKeys: OWN, signatureAlgorithm: sha512"),
        ),
    ];
    rows.extend([(
        "attestors.entries.keys.secret.name",
        keys("secret: { name: own }"),
        keys("secret: { name: stranger }"),
    )]);
    let with = |entry: &str| {
        let entry = entry.replace("OWN", "site://own").replace("STRANGER", "site://stranger");
        // `mutateDigest` is shown by a rule that wants the digest.
        let digest = format!(
            "{PODS}\nvalidate: {{ pattern: {{ spec: {{ containers: [{{ image: '*@sha256:*' }}] }} }} }}"
        );
        let rules = [format!("{PODS}\nverifyImages: [{entry}]"), digest];
        let rules: Vec<&str> = rules.iter().map(String::as_str).collect();
        enforced(if entry.contains("mutateDigest") { &rules } else { &rules[..1] })
    };
    let mut rows: Vec<Row> = rows
        .into_iter()
        .map(|(field, admits, denies)| Row {
            field: format!("spec.rules.verifyImages.{field}"),
            admits: with(&admits),
            denies: with(&denies),
            case: Case::CREATE,
        })
        .collect();
    for (field, admits, denies) in [
        ("image", "{ image: '@', key: STRANGER }", ("ghcr.io/*", "quay.io/*")),
        ("key", "{ image: '*', key: @ }", ("OWN", "STRANGER")),
        ("annotations", "{ image: '*', key: OWN, annotations: { env: @ } }", ("prod", "test")),
        (
            "attestors.entries.signatureAlgorithm",
            "{ imageReferences: ['*'], attestors: [{ entries: [{ signatureAlgorithm: @, keys: { publicKeys: OWN } }] }] }",
            ("sha256", "sha512"),
        ),
    ]
    .map(|(field, entry, (admits, denies))| (field, entry.replace('@', admits), entry.replace('@', denies)))
    {
        let field = format!("spec.rules.verifyImages.{field}");
        rows.push(Row { field, admits: with(&admits), denies: with(&denies), case: Case::CREATE });
    }
    // Of an entry: the signatures of `other` are in a repository of their own.
    let repository = |value: &str| {
        with(&format!(
            "{{ imageReferences: ['*'], attestors: [{{ entries: [{{ repository: {value}, keys: {{ publicKeys: \"{other}\" }} }}] }}] }}"
        ))
    };
    rows.push(row(
        "spec.rules.verifyImages.attestors.entries.repository",
        repository,
        "registry.local/sigs",
        "registry.local",
    ));
    let digest = |value: &str| {
        with(&format!(
            "{{ mutateDigest: {value}, imageReferences: ['*'], attestors: [{{ entries: [{own}] }}] }}"
        ))
    };
    rows.push(row("spec.rules.verifyImages.mutateDigest", digest, "true", "false"));
    rows
}
