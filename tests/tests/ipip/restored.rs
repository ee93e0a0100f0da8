//! A datastore that is restored from before its nodes had tunnels: what it calls free may
//! be a container's.

use std::net::Ipv4Addr;

use serde_json::json;
use weir_tests::{Fleet, Member, Place, Pod, Subnet};

/// Where the snapshot is that a datastore is restored from.
const SNAPSHOT: &str = "/run/before.db";

const FIRST: [Subnet; 3] = [Subnet::First, Subnet::First, Subnet::Second];

fn pool(fleet: &Fleet) {
    let spec = json!({"cidr": "10.66.0.0/24", "blockSize": 28, "ipipMode": "CrossSubnet"});
    fleet.apply_pool("cross", spec);
}

/// The addresses of a node's tunnel device, as `ip` prints them.
fn tunnel(member: &Member) -> String {
    member.node().run(&["ip", "-4", "-o", "address", "show", "dev", "tunl0"])
}

/// The address that a node names for its tunnel.
fn named(fleet: &Fleet, name: &str) -> Option<Ipv4Addr> {
    let key = format!("/calico/resources/v3/projectcalico.org/nodes/{name}");
    let node = fleet.etcd().entries().get(&key).cloned()?;
    let node: serde_json::Value = serde_json::from_str(&node).expect("a Node is JSON");
    node["spec"]["bgp"]["ipv4IPIPTunnelAddr"].as_str()?.parse().ok()
}

/// Requires that no container's address is a node's own, and that all reach each other.
fn assert_untouched(fleet: &Fleet, pods: &[(usize, &Pod)]) {
    for (member, pod) in pods {
        let address = pod.address.to_string();
        let way = fleet.members[*member].node().run(&["ip", "route", "get", &address]);
        assert!(!way.starts_with("local"), "{way}");
    }
    let all = || pods.iter().map(|(_, pod)| *pod);
    for (from, to) in all().flat_map(|from| all().map(move |to| (from, to))) {
        if from.address == to.address {
            continue;
        }
        assert!(from.container.reaches(&to.address.to_string()), "{} {}", from.address, to.address);
    }
}

/// Puts the datastore back to the snapshot, with the nodes cut off meanwhile.
fn restore(fleet: &mut Fleet) {
    let server = fleet.etcd().node().clone();
    fleet.etcd_mut().stop();
    fleet.underlay.cut(&server);
    fleet.etcd_mut().restore(SNAPSHOT);
    fleet.underlay.heal(&server);
}

#[test]
fn nodes_keep_their_tunnel_addresses_and_containers_theirs() {
    let mut fleet = Fleet::new(&FIRST[..2]);
    pool(&fleet);
    fleet.start_agents();
    let first = fleet.named_pod(0, "cross", "before");
    fleet.etcd().save(SNAPSHOT);
    let pods = fleet.connected_pods("cross");
    fleet.join(Subnet::Second);
    fleet.start_agents();
    fleet.until("all have a tunnel", || fleet.members.iter().all(|member| member.has_tunnel()));
    let third = fleet.pod(2, "cross");
    pods.iter().for_each(|pod| fleet.until_connected(pod, &third));
    let names = ["n1", "n2", "n3"];
    let before = names.map(|name| named(&fleet, name));
    let devices: Vec<String> = fleet.members.iter().map(tunnel).collect();
    pods[0].without_a_loss(&third, || {
        restore(&mut fleet);
        fleet.until("the tunnel addresses are recorded again", || {
            names.map(|name| named(&fleet, name)) == before
        });
    });
    assert_eq!(fleet.members.iter().map(tunnel).collect::<Vec<_>>(), devices);
    let all = [(0, &first), (0, &pods[0]), (1, &pods[1]), (2, &third)];
    assert_untouched(&fleet, &all);
    // The next agents go on so.
    (0..3).for_each(|member| fleet.stop_agent(member));
    fleet.start_agents();
    assert_eq!(fleet.members.iter().map(tunnel).collect::<Vec<_>>(), devices);
    assert_untouched(&fleet, &all);
}

/// Each ADD reads the restored datastore and sees to its node.
#[test]
fn without_an_agent_too() {
    let mut fleet = Fleet::new(&FIRST[..2]);
    (0..2).for_each(|member| fleet.register(member));
    pool(&fleet);
    let first = fleet.named_pod(0, "cross", "before");
    fleet.etcd().save(SNAPSHOT);
    let gone = fleet.named_pod(0, "cross", "gone");
    fleet.join(Subnet::Second);
    fleet.register(2);
    let third = fleet.pod(2, "cross");
    let last = fleet.named_pod(0, "cross", "last");
    fleet.until_connected(&last, &third);
    fleet.call(0, "cross", &gone.container).delete(fleet.members[0].node());
    let (device, before) = (tunnel(&fleet.members[0]), named(&fleet, "n1"));
    assert!(before.is_some());
    restore(&mut fleet);
    // It has the address of the one that is gone; the next free one is that of a container.
    let again = fleet.named_pod(0, "cross", "again");
    assert_eq!(again.address, gone.address);
    assert_eq!((tunnel(&fleet.members[0]), named(&fleet, "n1")), (device, before));
    assert_untouched(&fleet, &[(0, &first), (0, &last), (0, &again)]);
}
