//! A node that its pool no longer selects gives up the pool's blocks: at DEL, and by
//! `weirctl ipam reclaim`.

use serde_json::json;
use weir_tests::{Cluster, Families, assert_consistent};

/// The blocks and affinities of Calico's that there are.
fn held(cluster: &Cluster) -> usize {
    let is_held = |key: &&String| key.contains("/assignment/") || key.contains("/ipam/v2/host/");
    cluster.store.entries().keys().filter(is_held).count()
}

fn labelled(cluster: &Cluster, zone: &str) {
    let node = json!({
        "kind": "Node", "apiVersion": "projectcalico.org/v3",
        "metadata": {"name": "n1", "labels": {"zone": zone}}, "spec": {},
    });
    cluster.store.put("/calico/resources/v3/projectcalico.org/nodes/n1", &node);
}

#[test]
fn blocks_of_a_pool_that_does_not_select_the_node_are_given_up() {
    for cluster in [Cluster::embedded(), Cluster::etcd()] {
        let pool = json!({
            "kind": "IPPool", "apiVersion": "projectcalico.org/v3", "metadata": {"name": "a"},
            "spec": {"cidr": "10.60.0.0/24", "blockSize": 28, "nodeSelector": "zone == 'a'"},
        });
        cluster.store.put("/calico/resources/v3/projectcalico.org/ippools/a", &pool);
        let call = cluster.ipam(Families::V4, "c");
        labelled(&cluster, "a");
        call.add(&cluster.node);
        call.delete(&cluster.node);
        assert_eq!(held(&cluster), 2, "the node keeps its empty block");
        call.add(&cluster.node);
        labelled(&cluster, "b");
        call.delete(&cluster.node);
        assert_eq!(held(&cluster), 0);

        labelled(&cluster, "a");
        call.add(&cluster.node);
        call.delete(&cluster.node);
        labelled(&cluster, "b");
        let reclaimed = cluster.weirctl(&["ipam", "reclaim"]);
        assert!(reclaimed.stdout.contains("of host n1 is empty: take it back"), "{reclaimed:?}");
        assert_eq!(held(&cluster), 0);
        assert_consistent(&cluster.store.entries());
    }
}
