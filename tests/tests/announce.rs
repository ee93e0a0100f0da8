//! What nodes announce by BGP, with and without agents: their own blocks and what they have
//! borrowed, in a routing table that holds nothing else.

use serde_json::{Value, json};
use weir_tests::{Fleet, Place, Subnet};

/// A pool of two blocks, with these additions.
fn pool(fleet: &Fleet, additions: Value) {
    let mut spec = json!({"cidr": "10.7.0.0/29", "blockSize": 30});
    weir_tests::merge(&mut spec, additions);
    fleet.apply_pool("plain", spec);
}

/// Three nodes, the last of them in another subnet.
fn three_nodes() -> Fleet {
    Fleet::new(&[Subnet::First, Subnet::First, Subnet::Second])
}

fn until_announced(fleet: &Fleet, wanted: [&[String]; 3]) {
    for (member, wanted) in fleet.members.iter().zip(wanted) {
        let what = || format!("{} announces {wanted:?}, not {:?}", member.name, member.announced());
        fleet.until(&what(), || member.announced() == wanted);
    }
}

fn announcement(range: impl std::fmt::Display) -> String {
    format!("blackhole {range} proto 77")
}

/// The announcement of the block that `member` has by its own routes.
fn block(fleet: &Fleet, member: usize) -> String {
    let routes = fleet.members[member].routes();
    let blocks: Vec<&String> = routes.iter().filter(|it| it.starts_with("blackhole")).collect();
    assert_eq!(blocks.len(), 1, "{routes:?}");
    announcement(blocks[0].trim_start_matches("blackhole "))
}

#[test]
fn blocks_and_borrowed_addresses_are_announced_as_long_as_they_are_in_use() {
    let mut fleet = three_nodes();
    pool(&fleet, json!({}));
    fleet.start_agents();
    until_announced(&fleet, [&[], &[], &[]]);
    fleet.pod(0, "plain");
    fleet.until("n1 has its block", || fleet.members[0].routes().len() == 1);
    let first = [block(&fleet, 0)];
    until_announced(&fleet, [&first, &[], &[]]);
    fleet.pod(1, "plain");
    fleet.until("n2 has its block", || fleet.members[1].routes().len() == 2);
    let second = [block(&fleet, 1)];
    // No block is left for the third.
    let borrower = fleet.pod(2, "plain");
    let borrowed = [announcement(borrower.address)];
    until_announced(&fleet, [&first, &second, &borrowed]);
    fleet.call(2, "plain", &borrower.container).delete(fleet.members[2].node());
    until_announced(&fleet, [&first, &second, &[]]);

    let node = fleet.members[0].node();
    let table = ["table", "1465207154"];
    let ip = |line: &str| {
        let arguments = line.split(' ').chain(table);
        node.run(&["ip", "route"].into_iter().chain(arguments).collect::<Vec<_>>())
    };
    // Each is repaired when the kernel tells of it; the last is another program's.
    ip("flush proto 77");
    until_announced(&fleet, [&first, &second, &[]]);
    ip("add blackhole 10.7.0.128/26 proto 77");
    until_announced(&fleet, [&first, &second, &[]]);
    ip("add blackhole 10.99.0.0/16 proto static");
    ip("add blackhole 10.7.0.128/26 proto 77");
    let theirs = announcement("10.99.0.0/16").replace("77", "static");
    until_announced(&fleet, [&[first[0].clone(), theirs], &second, &[]]);
    ip("delete blackhole 10.99.0.0/16 proto static");

    for (hidden, shown) in [
        (json!({"disableBGPExport": true}), json!({"disableBGPExport": false})),
        (json!({"ipipMode": "Always"}), json!({"ipipMode": "Never"})),
    ] {
        pool(&fleet, hidden);
        until_announced(&fleet, [&[], &[], &[]]);
        pool(&fleet, shown);
        until_announced(&fleet, [&first, &second, &[]]);
    }
}

#[test]
fn nothing_is_announced_where_all_nodes_share_a_subnet() {
    let mut fleet = Fleet::new(&[Subnet::First, Subnet::First]);
    pool(&fleet, json!({}));
    fleet.start_agents();
    fleet.connected_pods("plain");
    fleet.until_routed(2);
    for member in &fleet.members {
        assert_eq!(member.announced(), [""; 0]);
    }
}

/// An ADD reads no BGPPeers, and the daemon outlives the agent.
#[test]
fn what_a_peer_is_told_is_kept_while_the_agent_is_away() {
    let mut fleet = Fleet::new(&[Subnet::First]);
    pool(&fleet, json!({}));
    fleet.apply("BGPPeer", "router", json!({"peerIP": "172.31.1.1", "asNumber": 65000}));
    fleet.start_agent(0);
    fleet.until("the agent is there", || fleet.members[0].agent().answer("/health").is_some());
    fleet.pod(0, "plain");
    fleet.until("its block is announced", || fleet.members[0].announced().len() == 1);
    fleet.stop_agent(0);
    fleet.apply_pool("second", json!({"cidr": "10.8.0.0/30", "blockSize": 30}));
    fleet.pod(0, "second");
    let announced = fleet.members[0].announced();
    assert_eq!(announced.len(), 2, "{announced:?}");
    assert!(announced.contains(&announcement("10.8.0.0/30")), "{announced:?}");
}

#[test]
fn without_agents_an_add_announces_and_a_collection_withdraws() {
    let fleet = three_nodes();
    (0..3).for_each(|member| fleet.register(member));
    pool(&fleet, json!({}));
    let pods = [0, 1, 2].map(|member| fleet.pod(member, "plain"));
    let borrowed = announcement(pods[2].address);
    let announced = |member: usize| fleet.members[member].announced();
    assert_eq!([announced(0), announced(1)], [[block(&fleet, 0)], [block(&fleet, 1)]]);
    assert_eq!(announced(2), [borrowed]);
    for (member, pod) in pods.iter().enumerate() {
        fleet.call(member, "plain", &pod.container).delete(fleet.members[member].node());
    }
    let answer = fleet.weirctl(0, &["delete", "ippool", "plain"]);
    assert!(answer.succeeded, "{answer:?}");
    for (member, pod) in pods.iter().enumerate() {
        let call = fleet.call(member, "plain", &pod.container);
        call.configure("/cniVersion", "1.1.0".into())
            .run(fleet.members[member].node(), "GC")
            .silence();
        assert_eq!(announced(member), [""; 0]);
    }
}
