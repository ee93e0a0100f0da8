//! What is said of prefixes.

use super::*;
use crate::network::plan_cluster;
use crate::resources::bgp::{BgpFilter, FilterAction, FilterRule};

/// Three nodes, of which `n3` is in another subnet and has borrowed an address of `n2`; a router
/// at `n1`; a block on each.
fn cluster() -> ClusterState {
    let mut state = nodes(&["10.0.0.1", "10.0.0.2", "10.0.1.3"]);
    pool(&mut state, "plain", "10.244.0.0/16", Never);
    for number in 1..=3 {
        let block = format!("10.244.{number}.0/26").parse().unwrap();
        state.blocks.insert(block, [format!("n{number}")].into());
    }
    let block = "10.244.2.0/26".parse().unwrap();
    state.borrowed.insert(block, [([10, 244, 2, 9].into(), "n3".to_owned())].into());
    let router = peering(PeerNodes::Named("n1".into()), address("10.0.0.254", None), Some(65000));
    add(&mut state, "tor", BgpPeer { filters: vec!["f".into()], ..router });
    state.bgp.filters.insert("f".into(), BgpFilter::default());
    state
}

fn explained(state: &ClusterState, range: &str) -> Vec<String> {
    let question = BgpQuestion::Range(range.parse().unwrap());
    let explained = explain_bgp("n1", state, &underlay("10.0.0.1/24"), &question);
    explained.lines().split_off(2)
}

#[test]
fn each_way_and_each_reason_has_its_words() {
    let mut state = cluster();
    assert_eq!(
        explained(&state, "10.244.1.0/26"),
        [
            "10.244.1.0/26 is announced by n1: a block of pool plain",
            "Reached: on this node",
            "  Mesh_10_0_0_2: told; it is this node's own",
            "  Mesh_10_0_1_3: told; it is this node's own",
            "  Node_10_0_0_254: told; it is this node's own",
        ]
    );
    let of_n2 = explained(&state, "10.244.2.0/26");
    assert_eq!(of_n2[1], "Reached: by the agent's route via 10.0.0.2 on eth0");
    assert_eq!(of_n2[4], "  Node_10_0_0_254: told; no router peers with n2");
    assert_eq!(
        explained(&state, "10.244.2.9/32")[..2],
        [
            "10.244.2.9/32 is announced by n3: an address of block 10.244.2.0/26 (of pool plain) \
             that is in use on n3",
            "Reached: by BGP, from session Mesh_10_0_1_3",
        ]
    );
    let rule = FilterRule {
        prefix: None,
        is_from_peers: true,
        interface: None,
        peer_type: None,
        communities: Vec::new(),
        as_path_prefix: vec![65000],
        priority: None,
        action: FilterAction::Reject,
        operations: Vec::new(),
    };
    let told = |state: &ClusterState| explained(state, "10.244.3.0/26")[4].clone();
    state.bgp.filters.get_mut("f").unwrap().export_v4 = vec![rule];
    assert_eq!(
        told(&state),
        "  Node_10_0_0_254: perhaps told; it depends on rule 1 of BGPFilter f"
    );
    state.bgp.filters.clear();
    assert_eq!(told(&state), "  Node_10_0_0_254: not told; BGPFilter f does not exist");
    state.pools.get_mut("plain").unwrap().is_exported = false;
    assert_eq!(
        explained(&state, "10.244.2.0/26")[..2],
        [
            "Not announced as such: pool plain has disableBGPExport",
            "Reached: by the agent's route via 10.0.0.2 on eth0",
        ]
    );
    assert_eq!(
        explained(&state, "10.244.3.0/26")[1],
        "Reached: not at all: neither the agent nor BGP has a route"
    );
    assert_eq!(
        explained(&state, "10.244.0.0/16")[0],
        "Not announced as such: none of the 3 blocks in it is announced"
    );
}

#[test]
fn what_nobody_announces_has_a_reason() {
    let mut state = cluster();
    assert_eq!(
        explained(&state, "10.244.0.0/16")[0],
        "Not announced as such: it is announced as 3 blocks: 10.244.1.0/26 by n1, 10.244.2.0/26 \
         by n2, 10.244.3.0/26 by n3"
    );
    let none =
        "Not announced as such: it is in pool plain, and no node has a block around or in it";
    assert_eq!(explained(&state, "10.244.9.1/32")[0], none);
    let block = "10.244.3.0/26".parse().unwrap();
    state.blocks.get_mut(&block).unwrap().insert("n2".to_owned());
    assert!(explained(&state, "10.244.3.1/32")[0].contains("belongs to several hosts"));
}

#[test]
fn what_the_plan_leaves_out_is_not_said_to_be_announced() {
    let mut state = cluster();
    let of_no_pool = "192.0.2.0/26".parse().unwrap();
    state.blocks.insert(of_no_pool, ["n1".to_owned()].into());
    assert!(explained(&state, "192.0.2.0/26")[0].ends_with("of n1 is in no pool"));
    pool(&mut state, "lan", "10.0.0.0/24", Never);
    state.blocks.insert("10.0.0.0/26".parse().unwrap(), ["n1".to_owned()].into());
    assert!(explained(&state, "10.0.0.0/26")[0].contains("a node's address lies in block"));
    let plan = plan_cluster("n1", &state, &underlay("10.0.0.1/24"));
    let announced: Vec<String> = plan.announced.iter().map(ToString::to_string).collect();
    assert_eq!(announced, ["10.244.1.0/26"]);
}
