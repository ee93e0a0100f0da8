//! Creating, applying and replacing.

use super::*;

#[tokio::test]
async fn a_pool_is_stored_as_calico_stores_it() {
    let memory = Memory::new();
    let text = pool("blue", "natOutgoing: true, cidr: 10.7.0.0/16, ipipMode: CrossSubnet");
    assert_eq!(create(&memory, &text).await.exit, 0);
    let stored = memory.dump();
    assert_eq!(
        String::from_utf8_lossy(&stored["/calico/resources/v3/projectcalico.org/ippools/blue"]),
        r#"{"kind":"IPPool","apiVersion":"projectcalico.org/v3","metadata":{"name":"blue","uid":"uid-0","creationTimestamp":"2026-01-02T03:04:05Z"},"spec":{"cidr":"10.7.0.0/16","vxlanMode":"Never","ipipMode":"CrossSubnet","natOutgoing":true,"blockSize":26,"nodeSelector":"all()","allowedUses":["Workload","Tunnel"],"assignmentMode":"Automatic"}}"#
    );
    assert_eq!(stored.len(), 2, "the pool, and the cluster's information");
}

#[tokio::test]
async fn each_example_file_goes_through_its_life() {
    for name in ["ipPool-bgp", "ipPool-ipip-always", "ipPool-ipip-cross-subnet", "ippool-v3"] {
        let memory = Memory::new();
        let file = path_in_tree(&format!("conf/pools/{name}.yaml"));
        let file = file.to_str().unwrap();
        for (command, expected) in [
            ("create", 0),
            ("create", 1),
            ("apply", 0),
            ("replace", 0),
            ("delete", 0),
            ("delete", 1),
            ("replace", 1),
            ("apply", 0),
        ] {
            let answer = call_with_input(&memory, &[command, "-f", file], "").await;
            assert_eq!(answer.exit, expected, "{command} {name}: {}", answer.output);
        }
    }
}

#[tokio::test]
async fn a_v1_file_means_the_pool_with_its_cidr() {
    let memory = recorded_store("small");
    let file = path_in_tree("conf/pools/ipPool-bgp.yaml");
    let file = file.to_str().unwrap();
    let answer = call_with_input(&memory, &["create", "-f", file], "").await;
    assert!(answer.output.contains("overlaps with IPPool(default-ipv4-ippool)"));
    let answer = call_with_input(&memory, &["apply", "-f", file], "").await;
    assert_eq!(answer.output, "Successfully applied 1 'IPPool' resource(s)\n");
    assert_eq!(call(&memory, "get ipp -o name").await.output, "ippool/default-ipv4-ippool\n");
}

#[tokio::test]
async fn a_backup_restores_the_pool() {
    let memory = recorded_store("seed");
    let before = call(&memory, "get ipp -o yaml").await.output;
    for name in ["pool-bgp", "pool-cross", "pool-always"] {
        memory.seed([(format!("/calico/resources/v3/projectcalico.org/ippools/{name}"), vec![])]);
    }
    let memory = Memory::new();
    let answer = create(&memory, &before).await;
    assert_eq!(answer.output, "Successfully created 4 'IPPool' resource(s)\n");
    assert_eq!(masked(&call(&memory, "get ipp -o yaml").await.output), masked(&before));
    let json = call(&memory, "get ipp -o json").await.output;
    let memory = Memory::new();
    assert_eq!(create(&memory, &json).await.exit, 0);
}

#[tokio::test]
async fn blocks_of_another_size_are_in_the_way() {
    let memory = Memory::new();
    let block = r#"{"cidr":"10.1.0.64/28","affinity":null,"allocations":[],"unallocated":[],"attributes":[]}"#;
    memory.seed([(
        "/calico/ipam/v2/assignment/ipv4/block/10.1.0.64-28".into(),
        block.as_bytes().to_vec(),
    )]);
    let answer = create(&memory, &pool("p", "cidr: 10.1.0.0/24")).await;
    assert_eq!(answer.exit, 1);
    assert!(answer.output.contains("IPPool.Spec.BlockSize = '26' (IPPool blocksSize conflicts"));
    assert!(answer.output.contains("block 10.1.0.64/28 is there already"), "{}", answer.output);
    let answer = create(&memory, &pool("p", "cidr: 10.1.0.0/24, blockSize: 28")).await;
    assert_eq!(answer.exit, 0);
}

#[tokio::test]
async fn nothing_is_written_while_the_datastore_is_moved() {
    let memory = recorded_store("small");
    let key = "/calico/resources/v3/projectcalico.org/clusterinformations/default";
    memory.seed([(key.into(), br#"{"spec":{"datastoreReady":false}}"#.to_vec())]);
    let before = memory.dump();
    let text = pool("p", "cidr: 10.1.0.0/16");
    for command in ["create", "apply", "delete"] {
        let answer = call_with_input(&memory, &[command, "-f", "-"], &text).await;
        assert_eq!(answer.exit, 1);
        assert!(answer.output.contains("the datastore is locked"), "{}", answer.output);
    }
    assert_eq!(memory.dump(), before);
}

#[tokio::test]
async fn an_old_version_is_not_written_over_a_new_one() {
    let memory = Memory::new();
    create(&memory, &pool("p", "cidr: 10.1.0.0/16")).await;
    let read = call(&memory, "get ippool p -o yaml").await.output;
    let apply = |text: String| {
        let memory = memory.clone();
        async move { call_with_input(&memory, &["apply", "-f", "-"], &text).await }
    };
    let changed = read.replace("all()", "has(a)");
    assert_eq!(apply(changed.clone()).await.exit, 0);
    for command in ["apply", "replace", "delete"] {
        let answer = call_with_input(&memory, &[command, "-f", "-"], &changed).await;
        assert_eq!(answer.exit, 1, "{command}");
        assert!(answer.output.contains("update conflict: IPPool(p)"), "{}", answer.output);
    }
}

#[tokio::test]
async fn fields_that_weir_does_not_know_survive_a_change() {
    let memory = Memory::new();
    let key = "/calico/resources/v3/projectcalico.org/ippools/p";
    let stored = r#"{"kind":"IPPool","apiVersion":"projectcalico.org/v3","metadata":{"name":"p","uid":"u","creationTimestamp":"t"},"spec":{"cidr":"10.1.0.0/16","blockSize":26,"future":7}}"#;
    memory.seed([(key.into(), stored.as_bytes().to_vec())]);
    let text = pool("p", "cidr: 10.1.0.0/16, disabled: true");
    assert_eq!(call_with_input(&memory, &["apply", "-f", "-"], &text).await.exit, 0);
    let value: Value = serde_json::from_slice(&memory.dump()[key]).unwrap();
    assert_eq!((&value["spec"]["future"], &value["spec"]["disabled"]), (&7.into(), &true.into()));
    assert_eq!(value["metadata"]["uid"], "u");
}

#[tokio::test]
async fn files_and_directories_are_read_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let nested = directory.path().join("nested");
    std::fs::create_dir(&nested).unwrap();
    std::fs::write(directory.path().join("a.yaml"), pool("a", "cidr: 10.1.0.0/16")).unwrap();
    std::fs::write(directory.path().join("b.txt"), "no resource").unwrap();
    std::fs::write(nested.join("c.yml"), pool("c", "cidr: 10.3.0.0/16")).unwrap();
    let path = directory.path().to_str().unwrap();
    let memory = Memory::new();
    let answer = call_with_input(&memory, &["create", "-f", path], "").await;
    assert_eq!(answer.output, "Successfully created 1 'IPPool' resource(s)\n");
    let answer = call_with_input(&memory, &["apply", "-R", "-f", path], "").await;
    assert_eq!(answer.output, "Successfully applied 2 'IPPool' resource(s)\n");
    std::fs::write(nested.join("d.yaml"), "").unwrap();
    let answer = call_with_input(&memory, &["apply", "-R", "-f", path], "").await;
    assert!(answer.output.starts_with("no resources specified in file"), "{}", answer.output);
    let answer = call_with_input(&memory, &["apply", "--skip-empty", "-f", "-"], "").await;
    assert_eq!(answer, Answer { exit: 0, output: "No resources specified\n".into() });
    let absent = nested.join("absent.yaml");
    let absent = absent.to_str().unwrap();
    let answer = call_with_input(&memory, &["apply", "-f", absent], "").await;
    let told = format!("{absent} cannot be read");
    assert!(answer.output.contains(&told), "{}", answer.output);
}

#[tokio::test]
async fn the_ipam_configuration_is_a_resource_too() {
    let memory = recorded_store("small");
    let text = "apiVersion: projectcalico.org/v3\nkind: IPAMConfiguration\n\
                metadata: {name: default}\nspec: {strictAffinity: true, maxBlocksPerHost: 4}\n";
    let answer = call_with_input(&memory, &["apply", "-f", "-"], text).await;
    assert_eq!(answer.output, "Successfully applied 1 'IPAMConfiguration' resource(s)\n");
    assert_eq!(
        String::from_utf8_lossy(&memory.dump()["/calico/ipam/v2/config"]),
        r#"{"auto_allocate_blocks":true,"strict_affinity":true,"maxBlocksPerHost":4}"#
    );
}

/// A stored pool without a name has that of its key, and is called unusable.
#[tokio::test]
async fn a_nameless_pool_shows_under_its_key() {
    let memory = Memory::new();
    memory.seed([(weir_common::datastore::keys::pool("odd"), b"{}".to_vec())]);
    let environment = Prepared::new("", None);
    let answer = call_in(&memory, &["get", "ippool"], &environment, Style::default()).await;
    assert!(answer.exit == 0 && answer.output.contains("odd"), "{}", answer.output);
    let warnings = environment.warnings.into_inner().unwrap();
    let says = "warning: IPPool(odd) cannot be used: error with field IPPool.Spec.CIDR";
    assert!(warnings.len() == 1 && warnings[0].starts_with(says), "{warnings:?}");
}

/// A number without room in any field is told by its field.
#[tokio::test]
async fn a_number_out_of_range_is_called_so() {
    let memory = Memory::new();
    let number = "99999999999999999999999";
    let yaml = pool("blue", &format!("cidr: 10.1.0.0/24, blockSize: {number}"));
    let json = format!(
        r#"{{"apiVersion": "projectcalico.org/v3", "kind": "IPPool", "metadata": {{"name": "a"}},
            "spec": {{"cidr": "10.1.0.0/24", "blockSize": {number}}}}}"#
    );
    for text in [yaml, json] {
        let answer = call_with_input(&memory, &["create", "-f", "-"], &text).await;
        let output = answer.output.to_lowercase();
        assert!(output.contains("out of range") && output.contains("blocksize"), "{output}");
    }
}
