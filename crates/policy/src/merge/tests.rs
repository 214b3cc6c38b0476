#![expect(clippy::needless_pass_by_value, reason = "the cases read better without `&`")]

use super::*;
use serde_json::json;

fn pod(spec: Value) -> Value {
    json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "p" }, "spec": spec })
}

#[track_caller]
fn check(target: Value, patch: Value, expected: Value) {
    let mut merged = target;
    merge_patch(&mut merged, &patch).unwrap();
    assert_eq!(merged, expected, "{patch}");
}

#[track_caller]
fn of_spec(target: Value, patch: Value, expected: Value) {
    check(pod(target), json!({ "spec": patch }), pod(expected));
}

#[track_caller]
fn fails(target: Value, patch: Value, expected: &str) {
    let mut merged = pod(target.clone());
    assert_eq!(merge_patch(&mut merged, &json!({ "spec": patch })).unwrap_err().to_string(), expected);
    assert_eq!(merged, pod(target), "nothing changes");
}

#[test]
fn plain_patches() {
    of_spec(
        json!({ "a": { "b": 1 } }),
        json!({ "a": { "c": 2 }, "d": { "e": null, "f": {} } }),
        json!({ "a": { "b": 1, "c": 2 }, "d": { "f": {} } }),
    );
    of_spec(json!({ "a": 1, "b": [1] }), json!({ "a": null, "b": null, "c": null }), json!({}));
    of_spec(json!({ "a": null }), json!({ "a": { "b": 1 } }), json!({ "a": { "b": 1 } }));
    of_spec(
        json!({ "tolerations": [{ "key": "a" }] }),
        json!({ "tolerations": [{ "key": "b" }] }),
        json!({ "tolerations": [{ "key": "b" }] }),
    );
    of_spec(
        json!({ "containers": [{ "name": "a", "image": "x" }, { "name": "b", "image": "y" }] }),
        json!({ "containers": [{ "name": "b", "image": "z" }, { "name": "c" }] }),
        json!({ "containers": [{ "name": "b", "image": "z" }, { "name": "c" }, { "name": "a", "image": "x" }] }),
    );
    of_spec(
        json!({ "containers": [{ "name": "a", "ports": [{ "containerPort": 80, "protocol": "TCP" }, { "containerPort": 81 }] }] }),
        json!({ "containers": [{ "name": "a", "ports": [{ "containerPort": 80, "protocol": "UDP" }, { "containerPort": 81, "name": "x" }] }] }),
        json!({ "containers": [{ "name": "a", "ports": [
            { "containerPort": 80, "protocol": "UDP" }, { "containerPort": 81, "name": "x" }, { "containerPort": 80, "protocol": "TCP" }] }] }),
    );
    of_spec(
        json!({ "topologySpreadConstraints": [{ "topologyKey": "z", "whenUnsatisfiable": "A" }] }),
        json!({ "topologySpreadConstraints": [{ "topologyKey": "z", "whenUnsatisfiable": "A", "maxSkew": 1 }] }),
        json!({ "topologySpreadConstraints": [{ "topologyKey": "z", "whenUnsatisfiable": "A", "maxSkew": 1 }] }),
    );
    check(
        json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "finalizers": ["a", "b"] } }),
        json!({ "metadata": { "finalizers": ["b", "c"] } }),
        json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "finalizers": ["b", "c", "a"] } }),
    );
    let deployment = |containers: Value| json!({ "apiVersion": "apps/v1", "kind": "Deployment", "spec": { "template": { "spec": { "containers": containers } } } });
    check(
        deployment(json!([{ "name": "a" }])),
        deployment(json!([{ "name": "a", "tty": true }])),
        deployment(json!([{ "name": "a", "tty": true }])),
    );
    // Nothing is known of the lists of custom resources.
    let custom = |containers: Value| json!({ "apiVersion": "x/v1", "kind": "X", "spec": { "containers": containers } });
    check(
        custom(json!([{ "name": "a" }, { "name": "b" }])),
        custom(json!([{ "name": "b" }])),
        custom(json!([{ "name": "b" }])),
    );
}

#[test]
fn anchors() {
    let two = || json!({ "containers": [{ "name": "a", "image": "x", "tty": true }, { "name": "b", "image": "y" }] });
    let patch = |element: Value| json!({ "containers": [element] });
    of_spec(
        two(),
        patch(json!({ "(name)": "*", "stdin": true })),
        json!({ "containers": [{ "name": "a", "image": "x", "tty": true, "stdin": true }, { "name": "b", "image": "y", "stdin": true }] }),
    );
    // Each element by itself.
    of_spec(
        two(),
        patch(json!({ "(name)": "?", "+(tty)": false })),
        json!({ "containers": [{ "name": "b", "image": "y", "tty": false }, { "name": "a", "image": "x", "tty": true }] }),
    );
    of_spec(
        two(),
        patch(json!({ "(image)": "y", "tty": false })),
        json!({ "containers": [{ "name": "b", "image": "y", "tty": false }, { "name": "a", "image": "x", "tty": true }] }),
    );
    // Who names its key is meant alone, and added where it is not there.
    of_spec(two(), patch(json!({ "name": "a", "+(tty)": false })), two());
    of_spec(
        two(),
        patch(json!({ "name": "c", "+(tty)": false })),
        json!({ "containers": [{ "name": "c", "tty": false }, { "name": "a", "image": "x", "tty": true }, { "name": "b", "image": "y" }] }),
    );
    of_spec(two(), json!({ "initContainers": [{ "(name)": "*", "tty": true }] }), two());
    of_spec(two(), patch(json!({ "(name)": "z", "tty": true })), two());
    of_spec(two(), patch(json!({ "(name)": "*" })), two());
    of_spec(two(), json!({ "+(containers)": [], "+(hostNetwork)": false }), {
        let mut expected = two();
        expected["hostNetwork"] = json!(false);
        expected
    });
    // Conditions of maps are those of the whole patch.
    of_spec(two(), json!({ "(hostNetwork)": true, "x": 1 }), two());
    of_spec(
        json!({ "hostNetwork": true }),
        json!({ "(hostNetwork)": true, "x": 1 }),
        json!({ "hostNetwork": true, "x": 1 }),
    );
    of_spec(json!({ "n": 5 }), json!({ "(n)": ">4", "x": 1 }), json!({ "n": 5, "x": 1 }));
    check(pod(json!({})), json!({ "(kind)": "Job", "spec": { "x": 1 } }), pod(json!({})));
    check(
        pod(json!({})),
        json!({ "(metadata)": { "name": "p*" }, "spec": { "x": 1 } }),
        pod(json!({ "x": 1 })),
    );
    of_spec(
        json!({ "securityContext": { "a": 1 } }),
        json!({ "(securityContext)": { "+(a)": 2, "+(b)": 2 } }),
        json!({ "securityContext": { "a": 1, "b": 2 } }),
    );
    of_spec(json!({}), json!({ "(securityContext)": { "+(b)": 2 } }), json!({}));
    // A global condition in a list: some element meets it, and it edits none.
    of_spec(two(), json!({ "containers": [{ "<(image)": "y" }], "imagePullSecrets": [{ "name": "s" }] }), {
        let mut expected = two();
        expected["imagePullSecrets"] = json!([{ "name": "s" }]);
        expected
    });
    of_spec(two(), json!({ "containers": [{ "<(image)": "z" }], "x": 1 }), two());
    of_spec(two(), json!({ "volumes": [{ "<(emptyDir)": "*" }], "x": 1 }), two());
    // Lists of other keys, and lists without any.
    of_spec(
        json!({ "hostAliases": [{ "ip": "1", "hostnames": ["a"] }, { "ip": "2" }] }),
        json!({ "hostAliases": [{ "(ip)": "2", "hostnames": ["b"] }] }),
        json!({ "hostAliases": [{ "ip": "2", "hostnames": ["b"] }, { "ip": "1", "hostnames": ["a"] }] }),
    );
    of_spec(
        json!({ "tolerations": [{ "key": "a", "x": 1 }, { "key": "b" }] }),
        json!({ "tolerations": [{ "(key)": "b", "effect": "E" }] }),
        json!({ "tolerations": [{ "key": "a", "x": 1 }, { "key": "b", "effect": "E" }] }),
    );
    of_spec(
        json!({ "tolerations": [{ "key": "a" }] }),
        json!({ "tolerations": [{ "(key)": "b", "effect": "E" }] }),
        json!({ "tolerations": [{ "key": "a" }] }),
    );
    // Lists in lists.
    of_spec(
        json!({ "containers": [{ "name": "a", "env": [{ "name": "X", "value": "1" }, { "name": "Y" }] }, { "name": "b" }] }),
        patch(json!({ "(name)": "*", "env": [{ "(name)": "X", "value": "2" }] })),
        json!({ "containers": [{ "name": "a", "env": [{ "name": "X", "value": "2" }, { "name": "Y" }] }, { "name": "b" }] }),
    );
}

#[test]
fn whether_the_conditions_were_met() {
    let merged = |patch: Value| merge_patch(&mut pod(json!({ "containers": [{ "name": "a" }] })), &patch);
    assert_eq!(merged(json!({ "(kind)": "Pod" })), Ok(true));
    assert_eq!(merged(json!({ "(kind)": "Job" })), Ok(false));
    assert_eq!(merged(json!({ "spec": { "containers": [{ "(name)": "z", "x": 1 }] } })), Ok(true));
    assert_eq!(merged(json!({ "spec": { "containers": [{ "<(name)": "z" }] } })), Ok(false));
}

#[test]
fn directives() {
    let two = || json!({ "containers": [{ "name": "a", "image": "x" }, { "name": "b" }] });
    of_spec(
        two(),
        json!({ "containers": [{ "name": "a", "$patch": "delete" }] }),
        json!({ "containers": [{ "name": "b" }] }),
    );
    of_spec(two(), json!({ "containers": [{ "name": "z", "$patch": "delete" }] }), two());
    of_spec(
        two(),
        json!({ "containers": [{ "name": "a", "tty": true, "$patch": "replace" }] }),
        json!({ "containers": [{ "name": "a", "tty": true }, { "name": "b" }] }),
    );
    of_spec(
        two(),
        json!({ "containers": [{ "name": "c" }, { "$patch": "replace" }] }),
        json!({ "containers": [{ "name": "c" }] }),
    );
    of_spec(two(), json!({ "containers": [{ "$patch": "delete" }] }), json!({}));
    of_spec(
        two(),
        json!({ "containers": [{ "$patch": "merge" }, { "name": "b", "$patch": "merge", "x": 1 }] }),
        json!({ "containers": [{ "name": "b", "x": 1 }, { "name": "a", "image": "x" }] }),
    );
    of_spec(
        json!({ "a": { "b": 1 } }),
        json!({ "a": { "$patch": "replace", "c": 2 } }),
        json!({ "a": { "c": 2 } }),
    );
    of_spec(json!({ "a": { "b": 1 } }), json!({ "a": { "$patch": "delete" } }), json!({}));
    of_spec(
        json!({ "a": { "b": 1, "c": 1 } }),
        json!({ "a": { "$retainKeys": ["c", "d"], "d": 2 } }),
        json!({ "a": { "c": 1, "d": 2 } }),
    );
    of_spec(
        two(),
        json!({ "$setElementOrder/containers": [{ "name": "a" }, { "name": "c" }, { "name": "b" }], "containers": [{ "name": "c" }] }),
        json!({ "containers": [{ "name": "a", "image": "x" }, { "name": "c" }, { "name": "b" }] }),
    );
    check(
        json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "finalizers": ["a", "b", "c"] } }),
        json!({ "metadata": { "$deleteFromPrimitiveList/finalizers": ["b"], "$setElementOrder/finalizers": ["c", "a"] } }),
        json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "finalizers": ["c", "a"] } }),
    );
    fails(
        json!({ "a": {} }),
        json!({ "a": { "$patch": "drop" } }),
        "/spec/a: `$patch: drop` is not what this directive can say",
    );
    fails(
        json!({ "a": {} }),
        json!({ "a": { "$retainKeys": [1] } }),
        "/spec/a: `$retainKeys: [1]` is not what this directive can say",
    );
    fails(
        json!({}),
        json!({ "$setElementOrder/x": 1 }),
        "/spec: `$setElementOrder: 1` is not what this directive can say",
    );
    assert_eq!(merge_patch(&mut pod(json!({})), &json!({ "$patch": "delete" })), Err(MergeError::Root));
}

#[test]
fn kinds_and_limits() {
    fails(
        json!({ "a": { "b": 1 } }),
        json!({ "a": 5 }),
        "/spec/a: the patch has int64 where the object has map[string]interface {}",
    );
    fails(
        json!({ "a": 5 }),
        json!({ "a": { "b": 1 } }),
        "/spec/a: the patch has map[string]interface {} where the object has int64",
    );
    fails(
        json!({ "a": 5 }),
        json!({ "a": [] }),
        "/spec/a: the patch has []interface {} where the object has int64",
    );
    fails(
        json!({ "containers": [{ "name": "a", "image": {} }] }),
        json!({ "containers": [{ "name": "a", "image": "x" }] }),
        "/spec/containers/0/image: the patch has string where the object has map[string]interface {}",
    );
    for element in [json!({ "image": "x" }), json!("a"), json!({ "$patch": "delete", "x": 1 })] {
        fails(
            json!({ "containers": [{ "name": "a" }] }),
            json!({ "containers": [element] }),
            "/spec/containers: an element of this list needs `name`",
        );
    }
    let deep = (0..MAX_MERGE_DEPTH).fold(json!(1), |value, _| json!({ "a": value }));
    fails(json!({}), deep, "the patch is beyond its limits: nested too deep");
    let many: Vec<Value> = (0..2_000).map(|n| json!({ "name": n.to_string() })).collect();
    fails(
        json!({ "containers": many }),
        json!({ "containers": many }),
        "the patch is beyond its limits: too many steps",
    );
    let edits: Vec<Value> = (0..2_000).map(|n| json!({ "(name)": "*", "x": n })).collect();
    fails(
        json!({ "containers": many }),
        json!({ "containers": edits }),
        "the patch is beyond its limits: too many steps",
    );
}
