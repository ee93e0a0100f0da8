//! The pools of a new cluster.

use serde_json::json;
use weir_common::datastore::keys;

use super::*;

#[tokio::test]
async fn a_new_cluster_gets_calicos_default_pool() {
    let memory = Memory::new();
    let answer = call(&memory, "init").await;
    assert_eq!(
        answer.output,
        "Successfully created 1 'IPPool' resource(s): default-ipv4-ippool (192.168.0.0/16)\n"
    );
    let recorded = recorded_store("small").dump();
    let key = "/calico/resources/v3/projectcalico.org/ippools/default-ipv4-ippool";
    let spec = |value: &[u8]| serde_json::from_slice::<Value>(value).unwrap()["spec"].clone();
    assert_eq!(spec(&memory.dump()[key]), spec(&recorded[key]));
    let answer = call(&memory, "init --cidr 10.0.0.0/8").await;
    assert_eq!(answer.exit, 0);
    assert_eq!(answer.output, "Nothing to do: there is a pool already (default-ipv4-ippool)\n");
    assert_eq!(memory.dump().len(), 2, "the pool, and the cluster's information");
}

/// Calico's programs refuse to work without the flag, and tell clusters by the GUID.
#[tokio::test]
async fn the_first_writer_gives_the_cluster_a_guid() {
    let information = |memory: &Memory| -> Value {
        serde_json::from_slice(&memory.dump()[keys::CLUSTER_INFORMATION]).unwrap()
    };
    let memory = Memory::new();
    assert_eq!(call(&memory, "init --dry-run").await.exit, 0);
    assert!(memory.dump().is_empty());
    call(&memory, "init").await;
    let made = information(&memory);
    assert_eq!(
        (&made["kind"], &made["metadata"]["name"]),
        (&json!("ClusterInformation"), &json!("default"))
    );
    assert_eq!(made["spec"]["datastoreReady"], true);
    assert!(made["spec"]["clusterGUID"].as_str().is_some_and(|guid| !guid.contains('-')), "{made}");
    call(&memory, "ipam configure --strictaffinity true").await;
    assert_eq!(information(&memory), made, "it stays");
    // An earlier version made pools alone, and Calico may have written other things.
    for line in ["init", "ipam configure --strictaffinity true"] {
        let memory = recorded_store("small");
        let old = json!({"metadata": {"name": "default"}, "spec": {"calicoVersion": "v3"}});
        memory.seed([(keys::CLUSTER_INFORMATION.to_owned(), old.to_string().into_bytes())]);
        assert_eq!(call(&memory, line).await.exit, 0);
        let made = information(&memory);
        assert!(made["spec"]["clusterGUID"].is_string(), "{line}: {made}");
        assert_eq!(made["spec"]["calicoVersion"], "v3");
    }
}

#[tokio::test]
async fn flags_decide_about_the_pools() {
    let memory = Memory::new();
    let line = "init --cidr 10.244.0.0/16 --ipip-mode crosssubnet --block-size 28 \
                --ipv6-cidr fd00:10::/48 --ipv6-block-size 120 --no-nat";
    assert_eq!(call(&memory, line).await.exit, 0);
    let shown = call(&memory, "get ipp -o custom-columns=NAME,CIDR,NAT,IPIPMODE").await.output;
    assert_eq!(
        shown,
        "NAME                  CIDR            NAT     IPIPMODE      \n\
         default-ipv4-ippool   10.244.0.0/16   false   CrossSubnet   \n\
         default-ipv6-ippool   fd00:10::/48    false   Never         \n\n"
    );
    let json = call(&memory, "get ipp -o json").await.output;
    assert!(json.contains("\"blockSize\": 28") && json.contains("\"blockSize\": 120"));
}

#[tokio::test]
async fn the_mode_of_vxlan_counts_for_both_pools() {
    let memory = Memory::new();
    let line = "init --vxlan-mode crosssubnet --ipv6-cidr fd00:10::/48";
    assert_eq!(call(&memory, line).await.exit, 0);
    let columns = "get ipp -o custom-columns=CIDR,IPIPMODE,VXLANMODE";
    let shown = call(&memory, columns).await.output;
    assert_eq!(shown.matches("Never      CrossSubnet").count(), 2, "{shown}");
}

#[tokio::test]
async fn what_the_node_uses_is_left_to_it() {
    let memory = Memory::new();
    for line in ["init --cidr 172.16.0.0/12", "init --cidr 172.16.1.128/26"] {
        let answer = call(&memory, line).await;
        assert_eq!(answer.exit, 1);
        assert!(answer.output.contains("overlap this node's address 172.16.1.11/24 of eth0"));
        assert!(answer.output.contains("weirctl init --cidr CIDR"), "{}", answer.output);
    }
    for (line, words) in [
        ("init --cidr 10.0.0.1/8", "not strictly masked"),
        ("init --cidr fd00::/48 --block-size 122", "--cidr fd00::/48 is of the other family"),
        ("init --block-size 19", "must be between 20 and 32"),
        ("init --ipip-mode Always --vxlan-mode Always", "cannot be used with"),
        ("init --ipip-mode maybe", "[possible values: Never, Always, CrossSubnet]"),
    ] {
        let answer = call(&memory, line).await;
        assert_eq!(answer.exit, 1);
        assert!(answer.output.contains(words), "{}", answer.output);
    }
    assert!(memory.dump().is_empty());
    let used = recorded_store("busy");
    let before = used.dump();
    assert_eq!(call(&used, "init --cidr 172.16.0.0/12").await.exit, 0, "it has pools");
    assert_eq!(used.dump(), before);
}
