//! Patching, labelling, validating, and trying out.

use super::*;

const DRY_RUN: &str = "Dry run: nothing was changed\n";

async fn pool_in(spec: &str) -> Memory {
    let memory = Memory::new();
    assert_eq!(create(&memory, &pool("p", spec)).await.exit, 0);
    memory
}

#[tokio::test]
async fn each_form_of_patch_changes_the_pool() {
    let memory = pool_in("cidr: 10.1.0.0/16").await;
    let patches = [
        ("strategic", r#"{"spec":{"natOutgoing":true}}"#, "true"),
        ("merge", r#"{"spec":{"natOutgoing":null}}"#, "false"),
        ("json", r#"[{"op":"add","path":"/spec/natOutgoing","value":true}]"#, "true"),
        ("strategic", "spec: {natOutgoing: false}", "false"),
    ];
    for (form, patch, nat) in patches {
        let arguments = ["patch", "ipp", "10.1.0.0/16", "-t", form, "-p", patch];
        let answer = call_with_input(&memory, &arguments, "").await;
        assert_eq!(answer.output, "Successfully patched 1 'IPPool' resource\n", "{patch}");
        let shown = call(&memory, "get ipp p -o custom-columns=NAT").await.output;
        assert!(shown.contains(nat), "{patch}: {shown}");
    }
}

#[tokio::test]
async fn a_patch_that_breaks_a_rule_changes_nothing() {
    let memory = pool_in("cidr: 10.1.0.0/16").await;
    let before = memory.dump();
    let cases = [
        (r#"{"spec":{"cidr":"10.2.0.0/16"}}"#, "IPPool CIDR cannot be modified"),
        (r#"{"spec":{"ipipMode":"always"}}"#, "'always'"),
        (r#"{"spec":{"nat":true}}"#, "not recognized or is in the wrong location: nat"),
        (r#"{"metadata":{"resourceVersion":"99"}}"#, "resourceVersion 1, the document has 99"),
        ("[]", "a list instead of a part of the resource"),
    ];
    for (patch, reason) in cases {
        let answer = call_with_input(&memory, &["patch", "ipp", "p", "-p", patch], "").await;
        assert_eq!(answer.exit, 1, "{patch}");
        assert!(answer.output.starts_with("failed to patch 'IPPool' resource: ["));
        assert!(answer.output.contains(reason), "{}", answer.output);
    }
    let answer = call(&memory, "patch ipp q -p {}").await;
    assert!(answer.output.contains("resource does not exist: IPPool(q)"), "{}", answer.output);
    assert_eq!(memory.dump(), before);
}

#[tokio::test]
async fn a_stored_pool_that_breaks_a_rule_keeps_its_addresses() {
    let stored = |spec: &str| {
        let metadata =
            r#""kind":"IPPool","apiVersion":"projectcalico.org/v3","metadata":{"name":"p"}"#;
        format!(r#"{{{metadata},"spec":{spec}}}"#).into_bytes()
    };
    let broken = r#"{"cidr":"10.1.0.0/16","blockSize":26,"ipipMode":"always"}"#;
    let cases = [
        (broken, "cidr: 10.1.0.0/16", None),
        (broken, "cidr: 10.2.0.0/16", Some("CIDR cannot be modified")),
        (broken, "cidr: 10.1.0.0/16, blockSize: 28", Some("BlockSize cannot be modified")),
        (r#"{"cidr":"ten"}"#, "cidr: 10.2.0.0/16", None),
        (r#"{"cidr":"ten"}"#, "cidr: 10.3.1.0/24", Some("overlaps with IPPool(q)")),
    ];
    for (before, after, refused) in cases {
        let memory = Memory::new();
        create(&memory, &pool("q", "cidr: 10.3.0.0/16")).await;
        memory.seed([(weir_common::datastore::keys::pool("p"), stored(before))]);
        let answer = call_with_input(&memory, &["replace", "-f", "-"], &pool("p", after)).await;
        assert_eq!(answer.exit == 0, refused.is_none(), "{before} {after}: {}", answer.output);
        assert!(answer.output.contains(refused.unwrap_or_default()), "{}", answer.output);
    }
}

#[tokio::test]
async fn labels_are_changed_in_calicoctls_words() {
    let memory = recorded_store("busy");
    let steps = [
        ("label node n1 rack=7", 0, "Successfully set label rack on node n1\n"),
        ("label nodes n1 rack=7", 0, "Successfully updated label rack on nodes n1\n"),
        (
            "label node n1 rack=8",
            1,
            "failed to update label of node n1, key rack is already present with value '7'; \
             use '--overwrite' to set a new value\n",
        ),
        ("label node n1 rack=8 --overwrite", 0, "Successfully updated label rack on node n1\n"),
        ("label node n1 rack --remove", 0, "Successfully removed label rack from node n1\n"),
    ];
    for (line, exit, output) in steps {
        let answer = call(&memory, line).await;
        assert_eq!((answer.exit, answer.output.as_str()), (exit, output), "{line}");
    }
    for (line, words) in [
        ("label node n1 rack --remove", "cannot remove label of node n1, key rack does not exist"),
        ("label node n99 a=b", "failed to get node n99, error resource does not exist"),
        ("label node n1 rack", "invalid label 'rack'; write KEY=VALUE"),
        ("label ipamconfig default a=b", "IPAMConfiguration has no labels"),
    ] {
        let answer = call(&memory, line).await;
        assert_eq!(answer.exit, 1, "{line}");
        assert!(answer.output.contains(words), "{}", answer.output);
    }
}

#[tokio::test]
async fn a_label_moves_a_node_into_a_pool_and_keeps_the_rest_of_it() {
    let memory = recorded_store("busy");
    let before = call(&memory, "get node n1 -o json").await.output;
    assert_eq!(call(&memory, "label node n1 rack=7").await.exit, 0);
    let after = call(&memory, "get node n1 -o json").await.output;
    let parse = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    let (mut before, after) = (parse(&before), parse(&after));
    before["metadata"]["labels"]["rack"] = "7".into();
    before["metadata"]["resourceVersion"] = after["metadata"]["resourceVersion"].clone();
    assert_eq!(before, after);
}

#[tokio::test]
async fn validation_sees_each_document_and_all_together() {
    let memory = Memory::new();
    let validate = |text: String| {
        let memory = memory.clone();
        async move { call_with_input(&memory, &["validate", "-f", "-"], &text).await }
    };
    let good = pool("a", "cidr: 10.1.0.0/16");
    let answer = validate(good.clone()).await;
    assert_eq!(answer.output, "Successfully validated 1 'IPPool' resource(s)\n");
    let answer = validate(format!("{good}---\n{}", pool("b", "cidr: 10.1.2.0/24"))).await;
    assert_eq!(answer.exit, 1);
    assert!(answer.output.starts_with("Partial success: validated 1 out of 2 'IPPool' resources"));
    assert!(answer.output.contains("overlaps with IPPool(a)"), "{}", answer.output);
    let answer = validate(pool("a", "cidr: 10.1.0.1/16")).await;
    assert!(answer.output.starts_with("failed to validate 'IPPool' resource: [error with field"));
    assert!(memory.dump().is_empty());
}

#[tokio::test]
async fn a_dry_run_says_the_same_and_changes_nothing() {
    let memory = recorded_store("busy");
    let before = memory.dump();
    let two =
        format!("{}---\n{}", pool("x", "cidr: 10.99.0.0/16"), pool("y", "cidr: 10.99.1.0/24"));
    let answer = call_with_input(&memory, &["create", "--dry-run", "-f", "-"], &two).await;
    assert_eq!(answer.exit, 1);
    assert!(answer.output.starts_with("Partial success: created 1 out of 2"), "{}", answer.output);
    assert!(answer.output.contains("overlaps with IPPool(x)"), "the second sees the first");
    for (line, output) in [
        ("delete ippool manual --dry-run", None),
        ("delete ippool blue --dry-run", None),
        ("label node n1 a=b --dry-run", Some("Successfully set label a on node n1\n")),
        ("patch ipp blue -p spec: --dry-run", None),
    ] {
        let tried = call(&memory, line).await;
        assert!(tried.output.contains(DRY_RUN), "{line}: {}", tried.output);
        if let Some(output) = output {
            assert_eq!(tried.output, format!("{output}{DRY_RUN}"));
        }
    }
    assert_eq!(memory.dump(), before);
}

#[tokio::test]
async fn resources_named_by_a_file_are_shown() {
    let memory = recorded_store("busy");
    let text = "- {apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {name: edge}}\n\
                - {apiVersion: projectcalico.org/v3, kind: Node, metadata: {name: n1}}\n\
                - {apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {name: blue}}\n";
    let arguments = |format| ["get", "-f", "-", "-o", format];
    let names = call_with_input(&memory, &arguments("name"), text).await.output;
    assert_eq!(names, "ippool/edge\nippool/blue\nnode/n1\n");
    let json = call_with_input(&memory, &arguments("json"), text).await.output;
    let items: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(items.as_array().map(Vec::len), Some(3));
}
