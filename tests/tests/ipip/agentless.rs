//! Tunnels without a running agent: ADD alone makes them.

use serde_json::json;
use weir_tests::{Capture, Fleet, Header, IPIP, Place, Subnet, UPLINK};

const LIMITED_CONNECTIVITY: u64 = 51;

/// Two registered nodes in two subnets, and a pool that tunnels between them.
fn fleet() -> Fleet {
    let fleet = Fleet::new(&[Subnet::First, Subnet::Second]);
    (0..2).for_each(|member| fleet.register(member));
    let pool = json!({"cidr": "10.62.0.0/24", "blockSize": 28, "ipipMode": "Always"});
    fleet.apply_pool("always", pool);
    fleet
}

#[test]
fn add_alone_makes_the_tunnel() {
    let fleet = fleet();
    let pods = [fleet.pod(0, "always"), fleet.pod(1, "always")];
    assert!(fleet.members.iter().all(|member| member.has_tunnel()));
    assert_eq!(pods[0].container.link("eth0")["mtu"], 1480);
    // n1 learns of n2's block.
    fleet.named_pod(0, "always", "next");
    let capture = Capture::start(fleet.members[0].node(), UPLINK);
    let address = pods[1].address.to_string();
    assert!(pods[0].container.passes(&address, 1480));
    assert!(!pods[0].container.passes(&address, 1481));
    let [source, destination] = [0, 1].map(|member: usize| fleet.members[member].host.address);
    let seen = capture.headers_of(pods[0].address, pods[1].address);
    assert_eq!(seen, [Header { source, destination, protocol: IPIP }].into());
    // The node's own packets too: its filter and address are there.
    assert!(fleet.members[0].node().reaches(&address));
}

#[test]
fn status_tells_of_a_tunnel_out_of_service() {
    let fleet = fleet();
    let node = fleet.members[0].node();
    let pod = fleet.pod(0, "always");
    fleet.status(0, "always").silence();
    let told = |lines: &[&str], words: &[&str]| {
        lines.iter().for_each(|line| drop(node.run(&line.split(' ').collect::<Vec<_>>())));
        let failure = fleet.status(0, "always").failure();
        failure.expect(LIMITED_CONNECTIVITY, words);
    };
    told(&["ip link set tunl0 down"], &["tunl0 is down", "ip link set tunl0 up"]);
    let words = ["without its address 10.62.0.", "weirctl node run --once"];
    told(&["ip link set tunl0 up", "ip address flush dev tunl0"], &words);
    let answer = fleet.weirctl(0, &["node", "run", "--once", "--node", "n1"]);
    assert!(answer.succeeded, "{answer:?}");
    fleet.status(0, "always").silence();
    // A node without containers has nothing to lose.
    node.run(&["ip", "link", "set", "tunl0", "down"]);
    fleet.call(0, "always", &pod.container).delete(node);
    fleet.status(0, "always").silence();
}

#[test]
fn the_agent_says_which_tunnel_there_should_be() {
    let mut fleet = fleet();
    fleet.start_agents();
    fleet.until("there is a tunnel", || fleet.members[0].has_tunnel());
    fleet.pod(0, "always");
    fleet.status(0, "always").silence();
    let agent = fleet.members[0].agent().process();
    let signal = |signal| nix::sys::signal::kill(agent, signal).expect("signalling the agent");
    signal(nix::sys::signal::Signal::SIGSTOP);
    fleet.members[0].node().run(&["ip", "link", "set", "tunl0", "down"]);
    let failure = fleet.status(0, "always").failure();
    failure.expect(LIMITED_CONNECTIVITY, &["tunl0 is down"]);
    signal(nix::sys::signal::Signal::SIGCONT);
    fleet.until("STATUS is well", || fleet.status(0, "always").succeeded);
}
