//! What there is to say of a node's part in the cluster, as data. Its form as
//! JSON is described in `docs/weirctl.md`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::Serialize;
use weir_common::datastore::keys;
use weir_common::network::{
    ActualState, ActualTunnel, Change, ClusterPlan, ClusterState, Families, ForwardFilters, Peer,
    PolicyRule, Problem, RouteKind, TunnelPlan, Underlay, diff, find_firewalls, find_policy_rules,
    plan_cluster,
};
use weir_common::tunnel::TunnelKind;

use crate::bgp_status::BgpStatus;
use crate::commands::bgp_peers;
use crate::kernel_modules::checksum_notes;

/// A node's part in the cluster.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The node's name.
    pub node: String,
    /// Whether it is registered, or no node is.
    pub known: bool,
    /// The addresses it is registered with.
    pub addresses: Vec<Address>,
    /// The tunnels that it should have.
    pub tunnels: Vec<Tunnel>,
    /// The MTU in bytes for containers.
    #[serde(rename = "containerMTU")]
    pub container_mtu: u32,
    /// The other nodes.
    pub peers: Vec<PeerStatus>,
    /// The blocks, and addresses away from their block's node, in order.
    pub ranges: Vec<Range>,
    /// Its BGP sessions, where it has a daemon or needs one and its agent runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bgp: Option<BgpStatus>,
    /// What the kernel lacks besides routes, as commands.
    pub missing: Vec<String>,
    /// What cannot be as the pools ask, and what to do.
    pub problems: Vec<String>,
    /// What may keep packets from containers and cannot be told for sure, and what the node
    /// cannot reach because it has no address of an IP version.
    pub notes: Vec<String>,
}

/// An address that this node is registered with.
#[derive(Debug, Serialize)]
pub struct Address {
    /// The address with the prefix length of its subnet.
    pub address: IpNet,
    /// The link that has it.
    pub link: Option<String>,
}

/// A tunnel of this node, as it should be.
#[derive(Debug, Serialize)]
pub struct Tunnel {
    /// Its kind.
    pub kind: TunnelKind,
    /// The device.
    pub device: &'static str,
    /// Its address; none as long as none is assigned.
    pub address: Option<IpAddr>,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Whether the device is there, Weir's, and up.
    pub up: bool,
    /// What VXLAN has besides.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub vxlan: Option<Vxlan>,
}

/// What a tunnel of VXLAN has besides.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Vxlan {
    /// The network identifier.
    pub vni: u32,
    /// The UDP port.
    pub port: u16,
    /// The hardware address of the device.
    pub hardware_address: String,
}

/// Another node.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerStatus {
    /// Its name.
    pub node: String,
    /// Its addresses.
    pub addresses: Vec<IpNet>,
    /// Its tunnel addresses, by kind.
    pub tunnel_addresses: BTreeMap<TunnelKind, IpAddr>,
    /// Whether its IPv4 address lies in this node's subnet.
    pub same_subnet: bool,
    /// How many blocks it has.
    pub blocks: usize,
}

/// A block, or an address away from its block's node.
#[derive(Debug, Serialize)]
pub struct Range {
    /// Its addresses.
    pub range: IpNet,
    /// The nodes that have it; more than one is a problem, and none is what the
    /// kernel alone knows of.
    pub nodes: Vec<String>,
    /// The pool it lies in.
    pub pool: Option<String>,
    /// The way to it; none where there is no way.
    pub way: Option<WayThere>,
    /// Whether the kernel has that way.
    pub kernel: InKernel,
}

/// How packets get to a range.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "camelCase")]
pub enum WayThere {
    /// They are dropped, unless their address has a route of its own.
    Blackhole,
    /// By the other node's address on a link.
    #[serde(rename_all = "camelCase")]
    Direct {
        /// The other node's address.
        next_hop: IpAddr,
        /// The link.
        link: String,
    },
    /// Through a tunnel.
    #[serde(rename_all = "camelCase")]
    Tunnel {
        /// Its kind.
        kind: TunnelKind,
        /// The next hop: the other node's address, or that of its tunnel device.
        next_hop: IpAddr,
    },
}

/// Whether the kernel has the way to a range.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum InKernel {
    /// It has it, or there is none to have.
    #[default]
    Agrees,
    /// It has none.
    Missing,
    /// It has another one.
    Differs,
    /// It has one, and there should be none.
    Superfluous,
    /// Another program's route is in its place, or leads there where Weir has no
    /// way.
    Foreign,
}

impl Status {
    /// Plans the node's part in the cluster, and compares it with the kernel's.
    pub fn of(
        name: &str,
        inventory: &ClusterState,
        underlay: &Underlay,
        present: &ActualState,
    ) -> Self {
        let mut plan = plan_cluster(name, inventory, underlay);
        let difference = diff(&plan, present);
        plan.problems.extend(difference.problems);
        Self::new(name, inventory, underlay, &plan, (present, &difference.changes))
    }

    /// Puts together what the datastore, the plan made of it, and the kernel and
    /// the changes that it needs say.
    fn new(
        name: &str,
        inventory: &ClusterState,
        underlay: &Underlay,
        plan: &ClusterPlan,
        (present, changes): (&ActualState, &[Change]),
    ) -> Self {
        let own = inventory.nodes.get(name).cloned().unwrap_or_default();
        let tunnels =
            plan.tunnels.iter().map(|(kind, plan)| tunnel(*kind, plan, present.tunnels.get(kind)));
        let (of_routes, others): (Vec<_>, Vec<_>) =
            changes.iter().partition(|change| range_of(change).is_some());
        let (notes, problems): (Vec<_>, Vec<_>) = plan
            .problems
            .iter()
            .partition(|problem| problem.is_mere_lack(inventory.nodes.get(name)));
        Self {
            node: name.to_owned(),
            known: is_known(name, inventory),
            addresses: addresses(&own).map(|address| located(address, underlay)).collect(),
            tunnels: tunnels.collect(),
            container_mtu: plan.pod_mtu,
            peers: peers(name, &own, inventory),
            ranges: ranges(inventory, plan, present, &of_routes),
            bgp: None,
            missing: others.into_iter().map(Change::to_string).collect(),
            problems: problems.into_iter().map(Problem::to_string).collect(),
            notes: notes.into_iter().map(Problem::to_string).collect(),
        }
    }

    /// Adds what other programs' rules do to packets of containers.
    pub fn judge_foreign_rules(
        &mut self,
        inventory: &ClusterState,
        filters: &ForwardFilters,
        rules: &[PolicyRule],
    ) {
        let pools: Vec<IpNet> = inventory.pools.values().map(|pool| pool.cidr).collect();
        let own = self.addresses.iter().map(|it| IpNet::from(it.address.addr()));
        let sources: Vec<IpNet> = pools.iter().copied().chain(own).collect();
        let has = |ipv4: bool| pools.iter().any(|pool| pool.addr().is_ipv4() == ipv4);
        let families = Families { ipv4: has(true), ipv6: has(false) };
        let mut found = find_firewalls(filters, families);
        found.extend(find_policy_rules(rules, &sources, &pools));
        for problem in found {
            let list = if problem.is_certain() { &mut self.problems } else { &mut self.notes };
            list.push(problem.to_string());
        }
    }

    /// Adds what a kernel of this release may do to packets in the tunnels.
    pub fn judge_checksums(&mut self, release: &str) {
        self.notes.extend(checksum_notes(release, self.tunnels.iter().map(|it| it.kind)));
    }

    /// What is wrong, in one line; `None` when nothing is.
    pub fn complaint(&self) -> Option<String> {
        let routes = self.ranges.iter().filter(|range| range.kernel.is_to_be_put_right()).count();
        let differing = routes + self.missing.len();
        let in_kernel = (differing > 0).then(|| {
            format!(
                "the kernel differs in {} from what pools and nodes ask for; \"weirctl node \
                 run\" puts that right",
                counted(differing, "place")
            )
        });
        let problems = self.problems.len();
        let listed = (problems > 0).then(|| format!("{} listed", counted(problems, "problem")));
        let of_bgp = self.bgp.as_ref().and_then(bgp_peers::complaint);
        let all: Vec<String> = [in_kernel, listed, of_bgp].into_iter().flatten().collect();
        (!all.is_empty()).then(|| all.join("; "))
    }
}

fn tunnel(kind: TunnelKind, plan: &TunnelPlan, present: Option<&ActualTunnel>) -> Tunnel {
    let vxlan = plan.vxlan.as_ref().map(|vxlan| Vxlan {
        vni: vxlan.device.vni,
        port: vxlan.device.port,
        hardware_address: vxlan.device.mac.to_string(),
    });
    Tunnel {
        kind,
        device: kind.device(),
        address: plan.address,
        mtu: plan.mtu,
        up: present.is_some_and(|present| present.claimed && present.up),
        vxlan,
    }
}

/// A node that cannot be read is registered all the same.
fn is_known(name: &str, inventory: &ClusterState) -> bool {
    inventory.nodes.is_empty()
        || inventory.nodes.contains_key(name)
        || inventory.unreadable.contains_key(&keys::node(name))
}

impl InKernel {
    /// Whether it is Weir's to change.
    fn is_to_be_put_right(&self) -> bool {
        self.fault().is_some()
    }

    /// What is wrong, where it is Weir's to change.
    pub fn fault(&self) -> Option<&'static str> {
        match self {
            Self::Missing => Some("the kernel lacks this route"),
            Self::Differs => Some("the kernel has another route to this range"),
            Self::Superfluous => Some("the kernel has a route to this range, and should have none"),
            Self::Agrees | Self::Foreign => None,
        }
    }
}

fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

fn addresses(peer: &Peer) -> impl Iterator<Item = IpNet> {
    [peer.ipv4, peer.ipv6].into_iter().flatten()
}

fn located(address: IpNet, underlay: &Underlay) -> Address {
    let has = |own: &IpNet| own.addr() == address.addr();
    let link = underlay.links.iter().find(|link| link.addresses.iter().any(has));
    Address { address, link: link.map(|link| link.name.clone()) }
}

fn peers(name: &str, own: &Peer, inventory: &ClusterState) -> Vec<PeerStatus> {
    let mut blocks: BTreeMap<&str, usize> = BTreeMap::new();
    for host in inventory.blocks.values().flatten() {
        *blocks.entry(host).or_default() += 1;
    }
    let others = inventory.nodes.iter().filter(|(peer, _)| *peer != name);
    let status = |(peer, known): (&String, &Peer)| PeerStatus {
        node: peer.clone(),
        addresses: addresses(known).collect(),
        tunnel_addresses: known.tunnels.clone(),
        same_subnet: own
            .ipv4
            .zip(known.ipv4)
            .is_some_and(|(own, theirs)| own.contains(&theirs.addr())),
        blocks: blocks.get(peer.as_str()).copied().unwrap_or_default(),
    };
    others.map(status).collect()
}

/// Every range that a node has, or that the kernel has a route to.
fn ranges(
    inventory: &ClusterState,
    plan: &ClusterPlan,
    present: &ActualState,
    changes: &[&Change],
) -> Vec<Range> {
    let mut nodes: BTreeMap<IpNet, Vec<String>> = BTreeMap::new();
    for (block, hosts) in &inventory.blocks {
        nodes.entry(*block).or_default().extend(hosts.iter().cloned());
    }
    for (address, host) in inventory.borrowed.values().flatten() {
        nodes.entry((*address).into()).or_default().push(host.clone());
    }
    let mut kernel: BTreeMap<IpNet, InKernel> = BTreeMap::new();
    let kept_out = plan.routes.iter().filter(|(range, way)| present.is_occupied(**range, way));
    kernel.extend(kept_out.map(|(range, _)| (*range, InKernel::Foreign)));
    let led = plan.left_to_others.keys().filter(|range| present.has_foreign_route(**range));
    kernel.extend(led.map(|range| (*range, InKernel::Foreign)));
    for (range, state) in changes.iter().filter_map(|change| range_of(change)) {
        nodes.entry(range).or_default();
        kernel.insert(range, state);
    }
    let range = |(range, nodes): (IpNet, Vec<String>)| Range {
        range,
        nodes,
        pool: inventory.pool_of(range).map(|(name, _)| name.to_owned()),
        way: plan.routes.get(&range).map(WayThere::from),
        kernel: kernel.remove(&range).unwrap_or_default(),
    };
    nodes.into_iter().map(range).collect()
}

/// The range that a change of a route concerns, and what it says of the kernel.
fn range_of(change: &Change) -> Option<(IpNet, InKernel)> {
    match change {
        Change::AddRoute(range, _) => Some((*range, InKernel::Missing)),
        Change::ReplaceRoute(range, _) => Some((*range, InKernel::Differs)),
        Change::DeleteRoute(range, _) => Some((*range, InKernel::Superfluous)),
        _ => None,
    }
}

impl From<&RouteKind> for WayThere {
    fn from(way: &RouteKind) -> Self {
        match way {
            RouteKind::Blackhole => Self::Blackhole,
            RouteKind::Direct { next_hop, link, .. } => {
                Self::Direct { next_hop: *next_hop, link: link.clone() }
            }
            RouteKind::Tunnel { kind, next_hop, .. } => {
                Self::Tunnel { kind: *kind, next_hop: *next_hop }
            }
        }
    }
}
