//! Pools without tunnels across subnets: containers of all nodes reach each other through a router
//! that Weir's nodes tell their blocks, whichever program it runs.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use serde_json::{Value, json};
use weir_tests::{
    Container, Fleet, Member, Neighbour, Place, Speaker, SpeakerOptions, SpeakerProgram, Subnet,
    address, until_reporting,
};

const ROUTER_AS: u32 = 65000;
const NODES_AS: u32 = 64512;
const POOLS: [(&str, &str); 2] = [("plain", "10.244.0.0/16"), ("six", "fd44::/64")];

/// A cluster, its router, and a container on each node with an address of each family.
struct Laboratory {
    fleet: Fleet,
    router: Speaker,
    pods: Vec<(Container, [IpAddr; 2])>,
}

impl Laboratory {
    /// Three nodes, the last of them in another subnet, which are a mesh and tell the router of
    /// their subnet what they have.
    fn new(program: SpeakerProgram) -> Self {
        let mut fleet = Fleet::dual(&[Subnet::First, Subnet::First, Subnet::Second]);
        fleet.agent_arguments.extend(["--ip6-autodetection-method", "first-found"]);
        for (name, cidr) in POOLS {
            fleet.apply_pool(name, json!({"cidr": cidr, "ipipMode": "Never"}));
        }
        for (number, member) in fleet.members.iter().enumerate() {
            for (family, peer) in routers(number).iter().enumerate() {
                let spec = json!({"node": member.name, "peerIP": peer, "asNumber": ROUTER_AS});
                fleet.apply("BGPPeer", &format!("{}-{family}", member.name), spec);
            }
        }
        let router = Speaker::start(program, fleet.underlay.router(), &options(program, &fleet));
        fleet.start_agents();
        let pods = (0..3).map(|member| pod(&fleet, member)).collect();
        Self { fleet, router, pods }
    }

    /// Waits until something holds, and fails with what all say if it never does.
    fn until(&self, what: &str, holds: impl Fn() -> bool) {
        until_reporting(holds, || format!("{what}\n{}\n{}", self.fleet.report(), self.router));
    }

    /// The blocks that a node has, of IPv4 and IPv6, once it announces both.
    fn blocks(&self, member: usize) -> [IpNet; 2] {
        let member = &self.fleet.members[member];
        let announced = || -> Vec<IpNet> {
            let lines = member.announced();
            let ranges = lines.iter().filter_map(|line| line.split(' ').nth(1));
            ranges.map(|range| range.parse().expect("a prefix")).collect()
        };
        self.until(&format!("{} announces", member.name), || announced().len() == 2);
        announced().try_into().expect("one of each family")
    }
}

fn addresses(member: &Member) -> [IpAddr; 2] {
    let v6 = member.host.address_v6.expect("the underlay has IPv6");
    [member.host.address.into(), v6.into()]
}

/// The addresses of the router in the subnet of a node.
fn routers(member: usize) -> [IpAddr; 2] {
    let subnet = if member == 2 { 2 } else { 1 };
    [format!("172.31.{subnet}.1"), format!("fd31:{subnet}::1")].map(|it| it.parse().expect("one"))
}

/// The router takes whoever is in the nodes' subnets.
fn options(program: SpeakerProgram, fleet: &Fleet) -> SpeakerOptions {
    let known = fleet.members.iter().flat_map(addresses).map(|it| it.to_string());
    let ranges = ["172.31.1.0/24", "172.31.2.0/24", "fd31:1::/64", "fd31:2::/64"];
    let whom: Vec<IpNet> = match program {
        SpeakerProgram::GoBgp => {
            known.map(|it| it.parse::<IpAddr>().expect("one").into()).collect()
        }
        _ => ranges.iter().map(|it| it.parse().expect("a prefix")).collect(),
    };
    let neighbour = |address| Neighbour { address, as_number: NODES_AS, password: None };
    SpeakerOptions {
        as_number: ROUTER_AS,
        router_id: Ipv4Addr::new(172, 31, 1, 1),
        neighbours: whom.into_iter().map(neighbour).collect(),
        announced: Vec::new(),
        communities: Vec::new(),
    }
}

fn pod(fleet: &Fleet, member: usize) -> (Container, [IpAddr; 2]) {
    let node = fleet.members[member].node();
    let container = node.container(&format!("pod-{member}"));
    let call = fleet.call(member, POOLS[0].0, &container);
    let call = call.configure("/ipam/assign_ipv6", "true".into());
    let result = call.configure("/ipam/ipv6_pools", json!([POOLS[1].0])).add(node);
    (container, [0, 1].map(|index| address(&result, index).parse().expect("an address")))
}

/// The destinations and next hops of a place's routes of this protocol.
fn routes(place: &impl Place, family: usize, protocol: &str) -> BTreeSet<(IpNet, IpAddr)> {
    let family = ["-4", "-6"][family];
    let text = place.run(&["ip", "-j", family, "route", "show", "proto", protocol]);
    let listed: Vec<Value> = serde_json::from_str(&text).expect("ip prints JSON");
    let text = |route: &Value, key: &str| route[key].as_str().unwrap_or_default().to_owned();
    let route = |route: &Value| {
        let (range, next_hop) = (text(route, "dst"), text(route, "gateway"));
        let next_hop = next_hop.parse().unwrap_or_else(|_| panic!("no next hop: {route}"));
        (range.parse().unwrap_or_else(|_| panic!("no range: {route}")), next_hop)
    };
    listed.iter().map(route).collect()
}

fn containers_reach_each_other_through(program: SpeakerProgram) {
    let lab = Laboratory::new(program);
    let fleet = &lab.fleet;
    let blocks = [0, 1, 2].map(|member| lab.blocks(member));
    for family in [0, 1] {
        let own = [0, 1, 2].map(|member| addresses(&fleet.members[member])[family]);
        // The router is told by each node of its own block, and of nothing else.
        for member in 0..3 {
            let block = blocks[member][family];
            let seen = lab.router.until_received(own[member], &[block]);
            assert_eq!(seen[&block].as_path, [NODES_AS], "{}", lab.router);
            assert_eq!(seen[&block].next_hop, own[member], "{}", lab.router);
        }
        lab.router.install(&own);
        let protocol = if program == SpeakerProgram::Bird { "bird" } else { "bgp" };
        let wanted: BTreeSet<_> = (0..3).map(|it| (blocks[it][family], own[it])).collect();
        let router = fleet.underlay.router();
        let has = || routes(router, family, protocol) == wanted;
        lab.until(&format!("the router has {wanted:?}"), has);
        // Each node has a way to each other's block, by the node itself where it is on the link.
        for member in 0..3 {
            let others = (0..3).filter(|other| *other != member);
            let next_hop = |other| match routers(other) == routers(member) {
                true => own[other],
                false => routers(member)[family],
            };
            let wanted: BTreeSet<_> =
                others.map(|other| (blocks[other][family], next_hop(other))).collect();
            let node = fleet.members[member].node();
            let has = || routes(node, family, "bird") == wanted;
            lab.until(&format!("n{} has {wanted:?}", member + 1), has);
        }
        let pairs = (0..3).flat_map(|from| (0..3).map(move |to| (from, to)));
        for (from, to) in pairs.filter(|(from, to)| from != to) {
            let target = lab.pods[to].1[family].to_string();
            lab.until(&format!("n{} reaches {target}", from + 1), || {
                lab.pods[from].0.reaches(&target)
            });
        }
    }
}

#[test]
fn containers_reach_each_other_through_a_router_with_bird() {
    containers_reach_each_other_through(SpeakerProgram::Bird);
}

#[test]
fn containers_reach_each_other_through_a_router_with_frr() {
    containers_reach_each_other_through(SpeakerProgram::Frr);
}

#[test]
fn containers_reach_each_other_through_a_router_with_gobgp() {
    containers_reach_each_other_through(SpeakerProgram::GoBgp);
}
