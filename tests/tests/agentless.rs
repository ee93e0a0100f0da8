//! Clusters without a running agent: each ADD sees to its node's routes, if something
//! has changed.

use nix::sys::signal::{Signal, kill};
use serde_json::json;
use weir_tests::{Answer, Call, Fleet, Place, Pod, Subnet};

const STATE: &str = "/run/weir/state.json";

/// Nodes in one subnet, registered by hand.
fn fleet(count: usize) -> Fleet {
    let fleet = Fleet::new(&vec![Subnet::First; count]);
    for member in 0..count {
        fleet.register(member);
    }
    fleet
}

fn pool(fleet: &Fleet, mode: &str) {
    fleet.apply_pool("blue", json!({"cidr": "10.7.0.0/24", "blockSize": 28, "ipipMode": mode}));
}

/// An ADD of a new container with all that it logs.
fn add(fleet: &Fleet, member: usize, name: &str) -> Answer {
    let node = fleet.members[member].node();
    let call = fleet.call(member, "blue", &node.container(name));
    let answer = call.configure("/log_level", "debug".into()).run(node, "ADD");
    assert!(answer.succeeded, "{answer:?}");
    answer
}

fn took(answer: &Answer, step: &str) -> bool {
    answer.stderr.contains(&format!("step=\"{step}\""))
}

/// Whether the whole cluster was read.
fn listed(answer: &Answer) -> bool {
    took(answer, "inventory")
}

#[test]
fn containers_reach_each_other_after_each_nodes_next_add() {
    let fleet = fleet(3);
    pool(&fleet, "Never");
    let pods: Vec<Pod> = (0..3).map(|member| fleet.pod(member, "blue")).collect();
    for member in 0..3 {
        fleet.named_pod(member, "blue", &format!("next-{member}"));
    }
    for (from, to) in (0..3).flat_map(|from| (0..3).map(move |to| (from, to))) {
        let address = pods[to].address.to_string();
        assert!(from == to || pods[from].container.reaches(&address), "n{from} to {address}");
    }
    for member in &fleet.members {
        let routes = member.routes();
        assert_eq!(routes.len(), 3, "{routes:?}");
        assert!(routes.iter().any(|route| route.starts_with("blackhole 10.7.0.")), "{routes:?}");
        assert!(member.has_no_tunnel());
    }
}

#[test]
fn the_cluster_is_read_only_if_something_changed() {
    let fleet = fleet(2);
    pool(&fleet, "Never");
    let first = add(&fleet, 0, "first");
    assert!(listed(&first), "{first:?}");
    assert_eq!(fleet.members[0].routes().len(), 1, "the block that this ADD claimed");
    let second = add(&fleet, 0, "second");
    assert!(took(&second, "changes") && !listed(&second), "{second:?}");
    assert!(!took(&second, "cluster"), "the kernel is not looked at: {second:?}");
    // Another node's block; its further addresses; the node's end.
    fleet.pod(1, "blue");
    assert!(listed(&add(&fleet, 0, "third")));
    assert_eq!(fleet.members[0].routes().len(), 2);
    fleet.named_pod(1, "blue", "another");
    assert!(!listed(&add(&fleet, 0, "fourth")));
    let answer = fleet.weirctl(0, &["delete", "node", "n2"]);
    assert!(answer.succeeded, "{answer:?}");
    let fifth = add(&fleet, 0, "fifth");
    assert!(listed(&fifth), "a deletion is a change: {fifth:?}");
    assert_eq!(fleet.members[0].routes().len(), 1);
    assert!(fifth.stderr.contains("which has no address to reach it by"), "{fifth:?}");
}

/// The block's range may be given to somebody else: the node's blackhole for it must not
/// stay. No ADD can see to that, for there is no pool any more.
#[test]
fn a_collection_removes_the_routes_of_blocks_that_are_gone() {
    for list in [Some(json!([])), None] {
        let fleet = fleet(1);
        pool(&fleet, "Never");
        let node = fleet.members[0].node();
        let call = fleet.call(0, "blue", &node.container("web"));
        call.add(node);
        call.delete(node);
        let collect = |call: &Call| {
            let call = call.clone().configure("/cniVersion", "1.1.0".into());
            match &list {
                Some(list) => call.configure("/cni.dev~1valid-attachments", list.clone()),
                None => call,
            }
            .run(node, "GC")
        };
        let routes = || fleet.members[0].routes().len();
        collect(&call).silence();
        assert_eq!(routes(), 1, "the block is the node's still");
        let answer = fleet.weirctl(0, &["delete", "ippool", "blue"]);
        assert!(answer.succeeded, "{answer:?}");
        // A datastore that cannot be read says nothing.
        let away = call.clone().configure("/etcd_endpoints", "http://127.0.0.1:1".into());
        collect(&away).failure().expect(11, &["127.0.0.1:1"]);
        assert_eq!(routes(), 1);
        collect(&call).silence();
        assert_eq!(routes(), 0, "{:?}", fleet.members[0].routes());
    }
}

#[test]
fn what_the_state_file_says_is_void_without_the_kernels_state() {
    let fleet = fleet(1);
    pool(&fleet, "Never");
    add(&fleet, 0, "first");
    let node = fleet.members[0].node();
    node.write(STATE, "{\"version\": 1, \"nonsense");
    let answer = add(&fleet, 0, "second");
    assert!(listed(&answer), "{answer:?}");
    assert!(!listed(&add(&fleet, 0, "third")));
    node.reboot("22222222-2222-4222-8222-222222222222");
    node.succeeds(&["ip", "route", "flush", "proto", "77"]);
    assert!(listed(&add(&fleet, 0, "fourth")));
    assert_eq!(fleet.members[0].routes().len(), 1);
}

#[test]
fn calls_at_once_do_not_undo_each_others_work() {
    let fleet = fleet(2);
    pool(&fleet, "Never");
    fleet.pod(1, "blue");
    let node = fleet.members[0].node();
    let calls: Vec<_> = (0..20)
        .map(|number| fleet.call(0, "blue", &node.container(&format!("c{number}"))))
        .collect();
    let running: Vec<_> = calls.iter().map(|call| call.start(node, "ADD")).collect();
    for running in running {
        running.finish().result();
    }
    // Two blocks of sixteen addresses here, and one there.
    assert_eq!(fleet.members[0].routes().len(), 3, "{:?}", fleet.members[0].routes());
    let settled = add(&fleet, 0, "later");
    assert!(!listed(&settled), "{settled:?}");
}

#[test]
fn the_agent_is_left_to_do_it() {
    let mut fleet = fleet(2);
    pool(&fleet, "Never");
    fleet.pod(1, "blue");
    fleet.start_agents();
    fleet.until("the route is there", || fleet.members[0].routes().len() == 1);
    // As good as absent, but its lock is held.
    kill(fleet.members[0].agent().process(), Signal::SIGSTOP).expect("stopping the agent");
    let answer = add(&fleet, 0, "first");
    for step in ["changes", "inventory", "cluster"] {
        assert!(!took(&answer, step), "{step}: {answer:?}");
    }
    assert_eq!(fleet.members[0].routes().len(), 1, "no blackhole");
    kill(fleet.members[0].agent().process(), Signal::SIGCONT).expect("continuing the agent");
    fleet.until("the agent sees to it", || fleet.members[0].routes().len() == 2);
    fleet.stop_agent(0);
    assert!(listed(&add(&fleet, 0, "second")));
    assert_eq!(fleet.members[0].routes().len(), 2);
}

#[test]
fn a_restored_datastore_takes_no_routes_away() {
    let mut fleet = fleet(2);
    pool(&fleet, "Never");
    fleet.pod(0, "blue");
    fleet.etcd().save("/run/before.db");
    fleet.pod(1, "blue");
    let next = fleet.named_pod(0, "blue", "next");
    fleet.call(0, "blue", &next.container).delete(fleet.members[0].node());
    assert_eq!(fleet.members[0].routes().len(), 2);
    fleet.etcd_mut().stop();
    fleet.etcd_mut().restore("/run/before.db");
    let answer = add(&fleet, 0, "after");
    assert!(answer.stderr.contains("has gone back in time"), "{answer:?}");
    let routes = fleet.members[0].routes().join("\n");
    assert!(routes.contains("via 172.31.1.12"), "{routes}");
    assert!(!listed(&add(&fleet, 0, "later")));
    let routes = fleet.members[0].routes().join("\n");
    assert!(routes.contains("via 172.31.1.12"), "{routes}");
}

#[test]
fn an_address_that_another_node_had_is_the_containers_at_once() {
    let fleet = fleet(2);
    let blue = json!({"cidr": "10.7.0.0/30", "blockSize": 30, "ipipMode": "Never"});
    fleet.apply_pool("blue", blue);
    let first = fleet.pod(0, "blue");
    // Of n1's block, the only one.
    let borrower = fleet.pod(1, "blue");
    let stale = format!("{} via 172.31.1.12", borrower.address);
    fleet.apply_pool("green", json!({"cidr": "10.8.0.0/24", "blockSize": 28}));
    for name in ["second", "third"] {
        add(&fleet, 0, name);
    }
    let routes = || fleet.members[0].routes().join("\n");
    assert!(routes().contains(&stale), "{}", routes());
    // Nothing tells n1 of that, and no other address is free.
    fleet.call(1, "blue", &borrower.container).delete(fleet.members[1].node());
    let last = fleet.named_pod(0, "blue", "last");
    assert_eq!(last.address, borrower.address);
    assert!(!routes().contains(&stale), "{}", routes());
    assert!(first.container.reaches(&last.address.to_string()));
    fleet.call(0, "blue", &last.container).delete(fleet.members[0].node());
    assert_eq!(fleet.members[0].node().run(&["ip", "route", "show", "10.7.0.1/32"]), "");
}

#[test]
fn a_block_of_one_address_that_another_node_has_is_lent_to_a_container() {
    let fleet = fleet(2);
    pool(&fleet, "Never");
    fleet.apply_pool("solo", json!({"cidr": "10.9.0.1/32", "blockSize": 32, "ipipMode": "Never"}));
    let there = fleet.pod(1, "solo");
    let near = fleet.pod(0, "blue");
    let routes = || fleet.members[0].routes().join("\n");
    assert!(routes().contains("10.9.0.1 via 172.31.1.12"), "{}", routes());
    fleet.call(1, "solo", &there.container).delete(fleet.members[1].node());
    let here = fleet.pod(0, "solo");
    assert_eq!(here.address, there.address);
    assert!(near.container.reaches("10.9.0.1"));
    // What is planned for the block does not come in the way of the container.
    fleet.apply_pool("green", json!({"cidr": "10.8.0.0/24", "blockSize": 28}));
    let answer = add(&fleet, 0, "next");
    assert!(listed(&answer) && !answer.stderr.contains("level=warn"), "{answer:?}");
    assert!(near.container.reaches("10.9.0.1"));
}

/// As a routing daemon leaves it that was killed: n3 has the block no more.
#[test]
fn another_programs_route_to_a_blocks_node_of_before_is_told_and_left() {
    let fleet = fleet(3);
    pool(&fleet, "Never");
    let there = fleet.pod(1, "blue");
    let block = ipnet::Ipv4Net::new(there.address, 28).expect("a prefix").trunc().to_string();
    let node = fleet.members[0].node();
    let stale = ["ip", "route", "add", &block, "via", "172.31.1.13", "proto", "bird"];
    node.run(&stale);
    let before = node.run(&["ip", "route", "show", &block]);
    let answer = add(&fleet, 0, "first");
    let told = format!(
        "leads to node n3 (172.31.1.13) instead; look at it with \"ip route show {block}\""
    );
    assert!(answer.stderr.contains(&told), "{answer:?}");
    let status = fleet.weirctl(0, &["node", "status", "--node", "n1"]);
    assert_eq!((status.succeeded, status.stdout.contains(&told)), (false, true), "{status:?}");
    assert_eq!(node.run(&["ip", "route", "show", &block]), before);
    // By the right node it is as good as Weir's own.
    node.run(&["ip", "route", "replace", &block, "via", "172.31.1.12", "proto", "bird"]);
    fleet.apply_pool("green", json!({"cidr": "10.8.0.0/24", "blockSize": 28}));
    let answer = add(&fleet, 0, "second");
    assert!(listed(&answer) && !answer.stderr.contains("another program"), "{answer:?}");
}

#[test]
fn an_add_goes_on_without_a_tunnel_and_status_tells() {
    let fleet = fleet(2);
    pool(&fleet, "Always");
    let node = fleet.members[0].node();
    // No tunnel can be made beside this; where the kernel has one already, it goes
    // down later.
    node.succeeds(&["ip", "link", "add", "tunl0", "type", "bridge"]);
    let inside = ["first", "second"].map(|name| node.container(name));
    let calls = inside.each_ref().map(|container| fleet.call(0, "blue", container));
    for (container, call) in inside.iter().zip(&calls) {
        call.add(node);
        assert_eq!(container.link("eth0")["mtu"], 1480, "room is left for the tunnel");
    }
    node.run(&["ip", "link", "set", "tunl0", "down"]);
    let failure = fleet.status(0, "blue").failure();
    failure.expect(51, &["tunl0", "ipipMode", "weirctl node run --once"]);
}

#[test]
fn another_datastore_is_no_restored_one() {
    let fleet = fleet(1);
    pool(&fleet, "Never");
    for name in ["one", "two", "three"] {
        add(&fleet, 0, name);
    }
    let node = fleet.members[0].node();
    let green = json!({
        "apiVersion": "projectcalico.org/v3", "kind": "IPPool",
        "metadata": {"name": "green"}, "spec": {"cidr": "10.8.0.0/24"},
    });
    node.write("/run/green.yaml", &green.to_string());
    let place = ["--datastore-type", "embedded", "--datastore-path", "/run/other.db"];
    let created = fleet.weirctl(0, &[&place[..], &["create", "-f", "/run/green.yaml"]].concat());
    assert!(created.succeeded, "{created:?}");
    let call = fleet
        .call(0, "green", &node.container("four"))
        .configure("/datastore_type", "embedded".into())
        .configure("/datastore_path", "/run/other.db".into())
        .configure("/log_level", "debug".into());
    // Its revisions have only begun.
    let answer = call.run(node, "ADD");
    assert!(answer.succeeded && listed(&answer), "{answer:?}");
    assert!(!answer.stderr.contains("gone back in time"), "{answer:?}");
    let back = add(&fleet, 0, "five");
    assert!(listed(&back) && !back.stderr.contains("gone back in time"), "{back:?}");
}
