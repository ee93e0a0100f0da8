//! Nodes whose kernel makes no tunnel: one error says what to do, and all that needs
//! no tunnel goes on.

use std::cell::Cell;

use serde_json::json;
use weir_tests::{Fleet, Node, Place, Pod, Subnet};

const LIMITED_CONNECTIVITY: u64 = 51;

/// Two nodes in one subnet that can make no tunnel, one pool that asks for it and one
/// that does not; and what is said of the tunnel.
fn fleet() -> (Fleet, [&'static str; 2]) {
    let fleet = Fleet::new(&[Subnet::First, Subnet::First]);
    let [words, _] = [0, 1].map(|member| deny_tunnels(fleet.members[member].node()));
    for (name, cidr, mode) in
        [("direct", "10.7.0.0/24", "Never"), ("always", "10.8.0.0/24", "Always")]
    {
        fleet.apply_pool(name, json!({"cidr": cidr, "blockSize": 28, "ipipMode": mode}));
    }
    (fleet, words)
}

/// Sees to it that the kernel refuses to make a tunnel device on a node, and returns
/// words of what is said then. A kernel with ipip refuses where something else has the
/// device's name.
fn deny_tunnels(node: &Node) -> [&'static str; 2] {
    let tunnel = "ip link add probe type ipip local 192.0.2.1 remote 192.0.2.2";
    if !node.succeeds(&tunnel.split(' ').collect::<Vec<_>>()) {
        return ["the kernel has no IPIP", "load it with \"modprobe ipip\""];
    }
    for line in ["link delete probe", "link set tunl0 name spare", "link add tunl0 type bridge"] {
        node.run_with(&["ip", "-batch", "-"], line);
    }
    ["tunl0 is bridge", "delete or rename it"]
}

/// Pods of both pools on both nodes, `direct` first.
fn pods(fleet: &Fleet) -> [Pod; 4] {
    let pods = [(0, "direct"), (1, "direct"), (0, "always"), (1, "always")];
    pods.map(|(member, pool)| fleet.pod(member, pool))
}

fn assert_without_tunnel_routes(fleet: &Fleet) {
    for member in &fleet.members {
        let routes = || member.routes().join("\n");
        let has_the_rest =
            |text: &str| text.contains("10.7.0.") && text.contains("blackhole 10.8.0.");
        fleet.until("the other routes are there", || has_the_rest(&routes()));
        let routes = routes();
        assert!(!routes.contains("tunl0") && !routes.contains("10.8.0.0/28 via"), "{routes}");
    }
}

#[test]
fn the_agent_says_once_what_to_load_and_does_the_rest() {
    let (mut fleet, words) = fleet();
    (0..2).for_each(|member| fleet.start_agent(member));
    let pods = pods(&fleet);
    fleet.until_connected(&pods[0], &pods[1]);
    assert_eq!(pods[2].container.link("eth0")["mtu"], 1480, "room is left for the tunnel");
    let health = || fleet.members[0].agent().answer("/health").unwrap_or_default();
    fleet.until("the agent is not well", || health().contains(words[0]));
    let health = health();
    for word in words {
        assert_eq!(health.matches(word).count(), 1, "{health}");
    }
    assert_without_tunnel_routes(&fleet);
    // What cannot be done is tried again, and counts as no change.
    let seen = Cell::new((Some(-1.0), 0.0));
    fleet.until("nothing more is changed", || {
        let metric = |name: &str| fleet.members[0].agent().metric(name);
        let changes = metric("weir_node_changes_total");
        let comparisons = metric("weir_node_converge_seconds_count").unwrap_or_default();
        if seen.get().0 != changes {
            seen.set((changes, comparisons));
        }
        comparisons > seen.get().1 + 1.0
    });
    let status = fleet.weirctl(0, &["node", "status", "--node", "n1"]);
    assert!(status.stdout.contains("10.8.0.") && status.stdout.contains("tunl0"), "{status:?}");
    let failure = fleet.status(0, "direct").failure();
    failure.expect(LIMITED_CONNECTIVITY, &["tunl0", "ipipMode", "modprobe ipip"]);
    // Nobody asks for tunnels any more.
    let spec = json!({"cidr": "10.8.0.0/24", "blockSize": 28, "ipipMode": "Never"});
    fleet.apply_pool("always", spec);
    fleet.until_connected(&pods[2], &pods[3]);
    fleet.until("the agents are well", || {
        fleet.members.iter().all(|member| member.agent().is_well())
    });
    fleet.status(0, "direct").silence();
}

#[test]
fn an_add_says_once_what_to_load_and_goes_on() {
    let (fleet, words) = fleet();
    (0..2).for_each(|member| fleet.register(member));
    let pods = pods(&fleet);
    // Each node learns of the other's blocks.
    for member in 0..2 {
        let node = fleet.members[member].node();
        let answer = fleet.call(member, "direct", &node.container("next")).run(node, "ADD");
        assert!(answer.succeeded, "{answer:?}");
        for word in words {
            assert_eq!(answer.stderr.matches(word).count(), 1, "{answer:?}");
        }
    }
    assert!(pods[0].container.reaches(&pods[1].address.to_string()));
    assert!(pods[1].container.reaches(&pods[0].address.to_string()));
    assert_without_tunnel_routes(&fleet);
    let failure = fleet.status(0, "direct").failure();
    failure.expect(LIMITED_CONNECTIVITY, &["tunl0", "ipipMode", "modprobe ipip"]);
}

#[test]
fn a_tunnel_that_is_half_in_service_is_neither_in_service_nor_out_of_it() {
    let fleet = Fleet::new(&[Subnet::First]);
    let member = &fleet.members[0];
    let state = || (member.has_tunnel(), member.has_no_tunnel());
    assert_eq!(state(), (false, true));
    // The module's own device does as well.
    member.node().succeeds(&["ip", "link", "add", "tunl0", "type", "bridge"]);
    assert_eq!(state(), (false, true));
    let after = |line: &str| {
        member.node().run_with(&["ip", "-batch", "-"], line);
        state()
    };
    assert_eq!(after("address add 10.7.0.1/32 dev tunl0"), (false, false));
    assert_eq!(after("link set tunl0 up"), (true, false));
    assert_eq!(after("address delete 10.7.0.1/32 dev tunl0"), (false, false));
}
