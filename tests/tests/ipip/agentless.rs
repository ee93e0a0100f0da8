//! Tunnels without a running agent: ADD alone makes them.

use std::collections::BTreeSet;

use serde_json::json;
use weir_tests::{Capture, Fleet, Header, ICMP, IPIP, Packet, Place, Pod, Subnet, UPLINK};

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
    // Each learns of the other's block, and tries again what took longer than an ADD waits for
    // on a busy machine: its tunnel address.
    let _next = [fleet.named_pod(0, "always", "next-1"), fleet.named_pod(1, "always", "next-2")];
    assert!(fleet.members.iter().all(|member| member.has_tunnel()));
    assert_eq!(pods[0].container.link("eth0")["mtu"], 1480);
    let capture = Capture::start(fleet.members[0].node(), UPLINK);
    let address = pods[1].address.to_string();
    assert!(pods[0].container.passes(&address, 1480));
    assert!(!pods[0].container.passes(&address, 1481));
    let [source, destination] = [0, 1].map(|member: usize| fleet.members[member].host.address);
    let seen = capture.headers_of(pods[0].address, pods[1].address);
    assert_eq!(seen, [Header::new(source, destination, IPIP)].into());
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

/// Strict filters drop what comes in by another link than the answer would take: what
/// comes out of a tunnel by `tunl0`, and where one node tunnels and the other does not.
#[test]
fn packets_pass_strict_reverse_path_filters() {
    for (subnet, prefixes) in [(Subnet::Second, [24, 24]), (Subnet::First, [24, 32])] {
        let fleet = Fleet::new(&[Subnet::First, subnet]);
        for (member, prefix) in prefixes.into_iter().enumerate() {
            for link in ["all", "default", UPLINK] {
                let key = format!("/proc/sys/net/ipv4/conf/{link}/rp_filter");
                fleet.members[member].node().write(&key, "1");
            }
            fleet.register_with(member, prefix);
        }
        let spec = json!({"cidr": "10.63.0.0/24", "blockSize": 28, "ipipMode": "CrossSubnet"});
        fleet.apply_pool("cross", spec);
        let pods = [fleet.pod(0, "cross"), fleet.pod(1, "cross")];
        // n1 learns of n2's block.
        fleet.named_pod(0, "cross", "next");
        let capture = Capture::start(fleet.members[0].node(), UPLINK);
        for (from, to) in [(0, 1), (1, 0)] {
            assert!(pods[from].container.reaches(&pods[to].address.to_string()), "{prefixes:?}");
        }
        let protocols = |from: &Packet| (from.original().source, from.outer.protocol);
        let packets = capture.packets().into_iter();
        let seen: BTreeSet<_> = packets
            .filter(|packet| packet.original().protocol == ICMP)
            .map(|packet| protocols(&packet))
            .collect();
        // Whoever is registered with /32 has no neighbours, and tunnels.
        let there = if subnet == Subnet::First { ICMP } else { IPIP };
        let wanted = [(pods[0].address.into(), there), (pods[1].address.into(), IPIP)];
        assert_eq!(seen, wanted.into(), "{prefixes:?}");
    }
}

/// Every mode's largest packet passes whole, and no larger one, on links of any MTU.
#[test]
fn packets_are_as_large_as_the_underlay_lets_them_be() {
    for mtu in [1400, 9000] {
        let fleet = Fleet::with_mtu(&[Subnet::First, Subnet::First, Subnet::Second], mtu.into());
        (0..3).for_each(|member| fleet.register(member));
        let pools = [("bgp", 61, "Never"), ("always", 62, "Always"), ("cross", 63, "CrossSubnet")];
        for (name, number, mode) in pools {
            let cidr = format!("10.{number}.0.0/24");
            fleet.apply_pool(name, json!({"cidr": cidr, "blockSize": 28, "ipipMode": mode}));
            if mode == "Never" {
                let alone =
                    [0, 1].map(|member| fleet.named_pod(member, name, &format!("alone-{member}")));
                fleet.named_pod(0, name, "next");
                assert_largest(&alone[0], &alone[1], mtu);
            }
        }
        let largest = mtu - 20;
        let pods = pools.map(|(name, ..)| [1, 2, 0].map(|member| fleet.pod(member, name)));
        // The others learn of n1's last block.
        for member in [1, 2] {
            fleet.named_pod(member, "always", &format!("last-{member}"));
        }
        for member in &fleet.members {
            assert_eq!(member.node().link("tunl0")["mtu"], largest, "{}", member.name);
        }
        let capture = Capture::start(fleet.members[0].node(), UPLINK);
        for (pool, ways) in pods.iter().zip([[ICMP, 0], [IPIP, IPIP], [ICMP, IPIP]]) {
            for (to, protocol) in pool[..2].iter().zip(ways).filter(|(_, protocol)| *protocol > 0) {
                capture.packets();
                assert_largest(&pool[2], to, largest);
                let packets = capture.packets().into_iter();
                let of_echo = |packet: &Packet| packet.original().protocol == ICMP;
                let outer = packets.filter(of_echo).map(|packet| {
                    assert!(!packet.is_fragment);
                    (packet.outer.protocol, packet.length)
                });
                let length = if protocol == IPIP { mtu } else { largest };
                assert_eq!(outer.collect::<Vec<_>>(), vec![(protocol, length.into()); 2]);
            }
        }
        // The node's own packets may be just as large.
        let [_, far, _] = &pods[1];
        assert!(fleet.members[0].node().passes(&far.address.to_string(), largest));
        assert!(!fleet.members[0].node().passes(&far.address.to_string(), largest + 1));
    }
}

/// Requires that packets of this length pass and that none of one byte more does.
fn assert_largest(from: &Pod, to: &Pod, length: u16) {
    let address = to.address.to_string();
    assert!(from.container.passes(&address, length), "{length} to {address}");
    assert!(!from.container.passes(&address, length + 1), "more than {length} to {address}");
}
