//! A cluster without tunnels, whose nodes tell the router between their subnets what they have.

use std::net::Ipv4Addr;

use serde_json::json;

use crate::fleet::Fleet;
use crate::place::Place;
use crate::pod::Pod;
use crate::results::address;
use crate::rounds::rounds;
use crate::speaker::{Neighbour, Speaker, SpeakerOptions, SpeakerProgram};
use crate::underlay::Subnet;
use crate::until::until_reporting;

const ROUTER_AS: u32 = 65000;
const NODES_AS: u32 = 64512;

/// The programs of the routers that a test has one after the other: BIRD, and in the long form FRR,
/// too. GoBGP makes no routes in the kernel.
pub fn router_programs() -> &'static [SpeakerProgram] {
    &[SpeakerProgram::Bird, SpeakerProgram::Frr][..rounds(1, 2)]
}

/// The cluster, with its agents, and its router.
pub struct Routed {
    /// The cluster. Its nodes are a mesh as long as nothing else is written.
    pub fleet: Fleet,
    /// The router.
    pub router: Speaker,
}

impl Routed {
    /// Nodes in these subnets, which tell the router of their subnet what they have; a pool `direct`
    /// with this range and size of blocks; and what `first` does before all that. The router has
    /// BIRD.
    pub fn new(
        subnets: &[Subnet],
        cidr: &str,
        block_size: u8,
        first: impl FnOnce(&mut Fleet),
    ) -> Self {
        Self::with_router(SpeakerProgram::Bird, subnets, (cidr, block_size), first)
    }

    /// As [`Routed::new`], with this program on the router, which makes routes in the kernel itself.
    pub fn with_router(
        program: SpeakerProgram,
        subnets: &[Subnet],
        (cidr, block_size): (&str, u8),
        first: impl FnOnce(&mut Fleet),
    ) -> Self {
        let mut fleet = Fleet::new(subnets);
        first(&mut fleet);
        fleet.apply_pool(
            "direct",
            json!({"cidr": cidr, "blockSize": block_size, "ipipMode": "Never"}),
        );
        for (member, subnet) in fleet.members.iter().zip(subnets) {
            let peer = format!("172.31.{}.1", *subnet as u8);
            let spec = json!({"node": member.name, "peerIP": peer, "asNumber": ROUTER_AS});
            fleet.apply("BGPPeer", &format!("router-of-{}", member.name), spec);
        }
        let range = |text: &str| text.parse().expect("a range");
        let neighbour =
            |text| Neighbour { address: range(text), as_number: NODES_AS, password: None };
        let options = SpeakerOptions {
            as_number: ROUTER_AS,
            router_id: Ipv4Addr::new(172, 31, 1, 1),
            neighbours: ["172.31.1.0/24", "172.31.2.0/24"].map(neighbour).into(),
            announced: Vec::new(),
            communities: Vec::new(),
        };
        let router = Speaker::start(program, fleet.underlay.router(), &options);
        fleet.start_agents();
        let routed = Self { fleet, router };
        routed.until_established();
        routed
    }

    /// Waits until something holds, and fails with what all say if it never does.
    pub fn until(&self, what: &str, holds: impl Fn() -> bool) {
        until_reporting(holds, || format!("{what}\n{}\n{}", self.fleet.report(), self.router));
    }

    /// Waits until all sessions of all nodes are up.
    pub fn until_established(&self) {
        for member in &self.fleet.members {
            self.until(&format!("all sessions of {} are up", member.name), || {
                let sessions = member.sessions();
                !sessions.is_empty() && sessions.len() == member.established().len()
            });
        }
    }

    /// A container with this address, out of the pool `direct`.
    pub fn pod_at(&self, member: usize, wanted: Ipv4Addr) -> Pod {
        let node = self.fleet.members[member].node();
        let container = node.container(&format!("pod-{wanted}"));
        let call = self.fleet.call(member, "direct", &container);
        let result = call.with("CNI_ARGS", &format!("IP={wanted}")).add(node);
        Pod { container, address: address(&result, 0).parse().expect("an IPv4 address") }
    }

    /// Waits until all other nodes and the router have a route to a range of a node's.
    pub fn until_known(&self, owner: usize, range: &str) {
        let others = self.fleet.members.iter().enumerate().filter(|(member, _)| *member != owner);
        let nodes = others.map(|(_, member)| member.node()).chain([self.fleet.underlay.router()]);
        for node in nodes {
            self.until(&format!("{} knows {range}", node.name()), || {
                node.run(&["ip", "route", "show", range]).contains(" via ")
            });
        }
    }
}
