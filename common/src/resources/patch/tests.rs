use super::*;
use crate::resources::Kind;
use serde_json::json;

fn pool() -> Resource {
    let object = json!({
        "kind": "IPPool", "apiVersion": "projectcalico.org/v3",
        "metadata": {"name": "p", "labels": {"a": "1", "b/c": "2"}},
        "spec": {"cidr": "10.1.0.0/16", "natOutgoing": true, "future": 7,
            "allowedUses": ["Workload", "Tunnel"]},
    });
    Resource::new(Kind::IpPool, object.as_object().unwrap().clone())
}

fn patched(form: PatchType, text: &str) -> Result<Value, String> {
    let patch = Patch::parse(text, form).map_err(|error| error.to_string())?;
    let resource = patch.apply(&pool()).map_err(|error| error.to_string())?;
    Ok(resource.object.into())
}

#[test]
fn parts_are_merged_and_lists_replaced() {
    for form in [PatchType::Strategic, PatchType::Merge] {
        let text = r#"{"metadata": {"labels": {"a": null, "n": "3"}},
            "spec": {"natOutgoing": null, "allowedUses": ["Tunnel"], "disabled": true}}"#;
        let value = patched(form, text).unwrap();
        assert_eq!(value["metadata"]["labels"], json!({"b/c": "2", "n": "3"}));
        assert_eq!(
            value["spec"],
            json!({"cidr": "10.1.0.0/16", "future": 7, "allowedUses": ["Tunnel"], "disabled": true})
        );
    }
    let value = patched(PatchType::Strategic, "spec:\n  disabled: true\n").unwrap();
    assert_eq!(value["spec"]["disabled"], true, "YAML is understood as well");
}

#[test]
fn directives_replace_and_retain() {
    let labels = |text: &str| {
        let text = format!(r#"{{"metadata": {{"labels": {text}}}}}"#);
        patched(PatchType::Strategic, &text).map(|value| value["metadata"]["labels"].clone())
    };
    assert_eq!(labels(r#"{"$patch": "replace", "x": "1"}"#).unwrap(), json!({"x": "1"}));
    assert_eq!(labels(r#"{"$patch": "delete"}"#).unwrap(), json!({}));
    assert_eq!(labels(r#"{"$retainKeys": ["a"]}"#).unwrap(), json!({"a": "1"}));
    for wrong in [r#"{"$patch": "mix"}"#, r#"{"$setElementOrder/x": []}"#, r#"{"$retainKeys": 1}"#]
    {
        let error = labels(wrong).unwrap_err();
        assert!(error.contains("the directive $"), "{error}");
    }
}

#[test]
fn operations_are_carried_out_in_order() {
    let text = r#"[
        {"op": "test", "path": "/spec/cidr", "value": "10.1.0.0/16"},
        {"op": "replace", "path": "/spec/natOutgoing", "value": false},
        {"op": "add", "path": "/spec/allowedUses/-", "value": "LoadBalancer"},
        {"op": "add", "path": "/spec/allowedUses/1", "value": "Workload"},
        {"op": "remove", "path": "/spec/allowedUses/0"},
        {"op": "copy", "from": "/metadata/labels/a", "path": "/metadata/labels/d~1~0e"},
        {"op": "move", "from": "/metadata/labels/b~1c", "path": "/metadata/labels/b"}
    ]"#;
    let value = patched(PatchType::Json, text).unwrap();
    assert_eq!(value["spec"]["natOutgoing"], false);
    assert_eq!(value["spec"]["allowedUses"], json!(["Workload", "Tunnel", "LoadBalancer"]));
    assert_eq!(value["metadata"]["labels"], json!({"a": "1", "d/~e": "1", "b": "2"}));
}

#[test]
fn an_operation_that_cannot_be_carried_out_is_named() {
    let cases = [
        (r#"{"op": "test", "path": "/spec/cidr", "value": 1}"#, "is \"10.1.0.0/16\" instead of 1"),
        (r#"{"op": "remove", "path": "/spec/none"}"#, "there is nothing at '/spec/none'"),
        (r#"{"op": "replace", "path": "/no/way", "value": 1}"#, "there is nothing at '/no/way'"),
        (r#"{"op": "add", "path": "/spec/allowedUses/9", "value": 1}"#, "nothing at"),
        (r#"{"op": "add", "path": "/spec/allowedUses/00", "value": 1}"#, "nothing at"),
        (r#"{"op": "add", "path": "spec", "value": 1}"#, "'spec' is not a path"),
        (r#"{"op": "swap", "path": "/spec"}"#, "is not one of RFC 6902's: unknown variant `swap`"),
        (r#"{"op": "add", "path": "/spec/x"}"#, "missing field `value`"),
    ];
    for (operation, expected) in cases {
        let error = patched(PatchType::Json, &format!("[{operation}]")).unwrap_err();
        assert!(error.starts_with("operation 1 of the patch"), "{error}");
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn what_is_no_patch_is_refused() {
    let cases = [
        (PatchType::Strategic, "[]", "the patch is a list instead of a part of the resource"),
        (PatchType::Merge, "", "the patch is null instead of"),
        (PatchType::Json, "{}", "an object instead of a list of operations"),
        (PatchType::Json, r#"[{"op": "add", "path": "", "value": 1}]"#, "a number instead of"),
        (PatchType::Merge, "{", "error parsing document"),
        (PatchType::Merge, r#"{"spec": {"natOutgoin": true}}"#, "natOutgoin; did you mean"),
        (PatchType::Merge, r#"{"metadata": {"name": "q"}}"#, "Metadata.Name = 'q' (cannot be"),
        (PatchType::Merge, r#"{"kind": "Node"}"#, "Kind = 'Node' (cannot be modified)"),
    ];
    for (form, text, expected) in cases {
        let error = patched(form, text).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_boolean_in_quotes_is_text_in_operations_too() {
    let operations = |value: &str| {
        let text = format!(r#"[{{"op": "add", "path": "/spec/disabled", "value": {value}}}]"#);
        patched(PatchType::Json, &text)
    };
    assert_eq!(operations("true").unwrap()["spec"]["disabled"], true);
    let error = operations(r#""yes""#).unwrap_err();
    assert!(error.contains("disabled") && error.contains("yes"), "{error}");
    // Without quotes YAML's words are booleans.
    let yaml = "- {op: replace, path: /spec/natOutgoing, value: no}";
    assert_eq!(patched(PatchType::Json, yaml).unwrap()["spec"]["natOutgoing"], false);
}
