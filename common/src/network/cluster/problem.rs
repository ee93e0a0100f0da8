//! The problems of a node's part in the cluster, in words.

use std::fmt::{self, Write};
use std::net::IpAddr;

use ipnet::IpNet;

use super::cluster_state::Peer;
use crate::ipam::Family;
use crate::printable::{PrintableWriter, shell_word};
use crate::tunnel::TunnelKind;

/// Something that a plan could not do as the pools ask. The rest of the plan
/// holds all the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Problem {
    /// This node is not registered with an address, so that no node can reach it
    /// and it does not know its own subnet.
    NotRegistered {
        /// This node's name.
        node: String,
        /// The family in which it has none.
        family: Family,
    },
    /// The address that this node is registered with is on none of its links that are
    /// up.
    AddressNotHere {
        /// This node's name.
        node: String,
        /// The registered address.
        address: IpNet,
    },
    /// The address that this node is registered with is not the one it sends from,
    /// so that others drop what it sends through the tunnel.
    SecondaryAddress {
        /// This node's name.
        node: String,
        /// The registered address.
        address: IpNet,
        /// The one it sends from.
        primary: IpAddr,
    },
    /// Another node is registered with an address of this one, so that packets for
    /// either go to the one that answers first.
    AddressShared {
        /// This node's name.
        node: String,
        /// The address.
        address: IpNet,
        /// The other node.
        other: String,
    },
    /// A node has blocks, or addresses in use, and no address to reach it by.
    NoNextHop {
        /// The node that has them.
        node: String,
        /// One of the ranges concerned.
        range: IpNet,
    },
    /// Packets are to go to a node directly, and it is not on any of this
    /// node's links.
    NextHopNotOnLink {
        /// The node.
        node: String,
        /// Its address.
        next_hop: IpAddr,
        /// Whether the pool would tunnel to it (`CrossSubnet`) if it were not in
        /// the subnet that this node is registered with.
        cross_subnet: bool,
    },
    /// Packets are to go to a node through a tunnel for which it has no address yet.
    NoPeerTunnelAddress {
        /// The node.
        node: String,
        /// The kind of tunnel.
        kind: TunnelKind,
    },
    /// A pool asks for a kind of tunnel that the configuration switches off.
    TunnelSwitchedOff {
        /// The kind of tunnel.
        kind: TunnelKind,
    },
    /// Another program's device has the name of a tunnel's, and is made with something else.
    ForeignTunnelDevice {
        /// The kind of tunnel.
        kind: TunnelKind,
    },
    /// Several hosts have a confirmed affinity to one block.
    Contested {
        /// The block.
        block: IpNet,
        /// The hosts, separated by commas.
        hosts: String,
    },
    /// Only others have a confirmed affinity to a block than the host that it names.
    StaleAffinity {
        /// The block.
        block: IpNet,
        /// The host that it names.
        node: String,
        /// The others, separated by commas.
        hosts: String,
    },
    /// No host has a confirmed affinity to blocks that name a host.
    NoAffinity {
        /// The first of them.
        block: IpNet,
        /// The host that it names.
        node: String,
        /// How many more there are.
        more: usize,
    },
    /// Blocks lie in no pool, as when a pool's key alone is deleted.
    NoPool {
        /// The first of them.
        block: IpNet,
        /// How many more there are.
        more: usize,
    },
    /// A value in the datastore cannot be read.
    Unreadable {
        /// Its key.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Fields of a value in the datastore cannot be read that no way depends on.
    Flawed {
        /// Its key.
        key: String,
        /// What is wrong with them.
        reason: String,
    },
    /// No node is in the subnet of this one, as it is registered.
    AloneInSubnet {
        /// This node's name.
        node: String,
        /// The registered address.
        address: IpNet,
    },
    /// The node needs a tunnel address, and no pool gives it one. What that means for
    /// containers depends on the kind
    /// ([`TunnelRow::without_address`](crate::tunnel::TunnelRow::without_address)).
    NoTunnelAddress {
        /// The kind of tunnel.
        kind: TunnelKind,
        /// Why not.
        reason: String,
    },
    /// A block on another node has a node's address or a next hop in it, and it is not known
    /// which of its addresses are in use.
    BlockOverHosts {
        /// The block.
        block: IpNet,
    },
    /// A pool has addresses of a subnet that the node is in.
    PoolInSubnet {
        /// The pool's name.
        pool: String,
        /// The subnet.
        subnet: IpNet,
        /// The node's link there.
        link: String,
    },
    /// Another program has a route where Weir's belongs.
    ForeignRoute {
        /// Where it leads.
        destination: IpNet,
    },
    /// Another program's route leads to another node than that which has the range.
    Misrouted {
        /// The range.
        range: IpNet,
        /// The address of the node that has it.
        wanted: IpAddr,
        /// The route's destination: the range, or one around it.
        route: IpNet,
        /// The route's next hop.
        next_hop: IpAddr,
        /// The node that has this address.
        node: String,
    },
}

impl Problem {
    /// Whether it says no more than that the node has no address of an IP version, where it is
    /// registered with one of the other version: nothing is wrong with it then.
    pub fn is_mere_lack(&self, own: Option<&Peer>) -> bool {
        let is_registered = own.is_some_and(|own| own.ipv4.is_some() || own.ipv6.is_some());
        is_registered && matches!(self, Self::NotRegistered { .. })
    }

    /// Whether no other node can reach this one, because of what it is registered with.
    pub fn isolates_node(&self) -> bool {
        matches!(
            self,
            Self::NotRegistered { .. } | Self::AddressNotHere { .. } | Self::AddressShared { .. }
        )
    }
}

impl fmt::Display for Problem {
    /// One line.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let formatter = &mut PrintableWriter(formatter);
        match self {
            Self::NotRegistered { node, family } => write!(
                formatter,
                "node {node} is not registered with an {family} address, so it has no way to \
                 other nodes' {family} blocks; if it has one, start \"weirctl node run{}\", or \
                 restart it where it runs, or write a Node resource with {} in spec.bgp",
                match family {
                    Family::V4 => "",
                    Family::V6 => " --ip6-autodetection-method first-found",
                },
                field(*family)
            ),
            Self::AddressNotHere { node, address } => write!(
                formatter,
                "node {node} is registered with {address}, which is on none of its links \
                 that are up; look at \"ip address\", or correct spec.bgp.{} of the Node",
                field(Family::of(address.addr()))
            ),
            Self::SecondaryAddress { node, address, primary } => write!(
                formatter,
                "node {node} is registered with {address} and sends from {primary}, so other \
                 nodes drop what comes through its tunnel; register it with {primary} \
                 (--ip-autodetection-method {primary})"
            ),
            Self::AddressShared { node, address, other } => write!(
                formatter,
                "node {node} is registered with {}, and so is node {other}; give one of them \
                 another address, or \"weirctl delete node {}\" if it is gone",
                address.addr(),
                shell_word(other)
            ),
            Self::NoNextHop { node, range } => write!(
                formatter,
                "{range} is on node {node}, which has no address to reach it by; register the \
                 node with its address, or \"weirctl delete node {}\" if it is gone",
                shell_word(node)
            ),
            Self::NextHopNotOnLink { node, next_hop, cross_subnet } => write!(
                formatter,
                "node {node} ({next_hop}) is not on a link of this node and its pool does not \
                 tunnel to it; its routes come by BGP, and there is none: see \"weirctl bgp \
                 peers\"{}",
                match next_hop {
                    IpAddr::V6(_) if *cross_subnet => {
                        ", or give spec.bgp.ipv6Address of this Node the prefix length of its \
                         link's subnet, so that CrossSubnet tunnels"
                            .to_owned()
                    }
                    IpAddr::V4(_) if *cross_subnet => {
                        ", or give spec.bgp.ipv4Address of this Node the prefix length of its \
                         link's subnet, so that CrossSubnet tunnels"
                            .to_owned()
                    }
                    next_hop => {
                        let kinds = TunnelKind::ALL.into_iter().filter(|it| it.carries(*next_hop));
                        let modes: Vec<_> = kinds.map(|kind| kind.row().mode_field).collect();
                        format!(", or set {} of the pool to CrossSubnet", modes.join(" or "))
                    }
                }
            ),
            Self::NoPeerTunnelAddress { node, kind } => write!(
                formatter,
                "node {node} has no {kind} address yet, so nothing goes to or from it through {}; look at \
                 \"weirctl node status\" there: its agent, or its next ADD, takes one out of a pool \
                 with {} and the use Tunnel",
                kind.device(),
                kind.row().mode_field
            ),
            Self::TunnelSwitchedOff { kind } => write!(
                formatter,
                "a pool asks for {kind} ({}), and {enabled} of FelixConfiguration is false, so \
                 its blocks on other nodes are not routed; take {enabled} out, or choose \
                 another mode",
                kind.row().mode_field,
                enabled = kind.row().enabled_field.unwrap_or_default()
            ),
            Self::ForeignTunnelDevice { kind } => write!(
                formatter,
                "device {device} is another program's (its alias is not \"weir\") and has other \
                 parameters than pools and FelixConfiguration ask for, so Weir leaves it and sends \
                 nothing by it; stop that program and run \"ip link delete {device}\"",
                device = kind.device()
            ),
            Self::Contested { block, hosts } => write!(
                formatter,
                "block {block} belongs to several hosts ({hosts}) and is not routed; run \
                 \"weirctl ipam check --repair\""
            ),
            Self::StaleAffinity { block, node, hosts } => write!(
                formatter,
                "block {block} belongs to host {node}, where it is routed to, and only {hosts} has \
                 a confirmed affinity to it; run \"weirctl ipam check --repair\""
            ),
            Self::NoAffinity { block, node, more } => write!(
                formatter,
                "block {block} belongs to host {node}, which has no confirmed affinity to it, and \
                 is not routed{}; run \"weirctl ipam check --repair\"",
                and_more(*more)
            ),
            Self::NoPool { block, more } => write!(
                formatter,
                "block {block}{} lies in no pool, so that packets to it go without tunnel and NAT \
                 treats it as outside; make a pool around it, as it was, or see \"weirctl ipam \
                 check\"",
                and_more(*more)
            ),
            Self::Unreadable { key, reason } => write!(
                formatter,
                "the value of {key} cannot be read ({}); what it was before still counts",
                on_one_line(reason)
            ),
            Self::Flawed { key, reason } => write!(
                formatter,
                "the value of {key} has an error; the rest of it counts: {}",
                on_one_line(reason)
            ),
            Self::AloneInSubnet { node, address } => write!(
                formatter,
                "node {node} is registered with {address}, so no node is in its subnet and \
                 cross-subnet pools tunnel to all of them; if nodes share a subnet, give \
                 spec.bgp.{} of the Node its prefix length, as {}/{}",
                field(Family::of(address.addr())),
                address.addr(),
                if address.addr().is_ipv6() { 64 } else { 24 }
            ),
            Self::NoTunnelAddress { kind, reason } => {
                write!(formatter, "{reason}; {}", kind.row().without_address())
            }
            Self::BlockOverHosts { block } => write!(
                formatter,
                "block {block} on another node has the address of a node or of a next hop in it, \
                 so it is not routed as a whole, and its addresses in use are not known here; \
                 start the agent (weirctl node run), or move its containers to another pool"
            ),
            Self::PoolInSubnet { pool, subnet, link } => write!(
                formatter,
                "pool {pool} has addresses of {subnet}, the subnet of this node's link {link}; \
                 containers get those that no node and no router has there, and other machines \
                 of the subnet reach them only through a node that answers for them (proxy ARP); \
                 choose another range unless this is meant"
            ),
            Self::ForeignRoute { destination } => write!(
                formatter,
                "another program has a route to {destination} and Weir leaves it; look at it \
                 with \"ip route show {destination}\""
            ),
            Self::Misrouted { range, wanted, route, next_hop, node } => write!(
                formatter,
                "{range} is on the node at {wanted}, and another program's route leads to node \
                 {node} ({next_hop}) instead; look at it with \"ip route show {route}\", and \
                 restart the program that its \"proto\" names, or delete it if that is gone"
            ),
        }
    }
}

/// What may be a list of wrong fields.
fn on_one_line(reason: &str) -> String {
    reason.trim_end().replace('\n', " ")
}

fn and_more(more: usize) -> String {
    if more > 0 { format!(" (and {more} more)") } else { String::new() }
}

/// Where a Node names its address, in `spec.bgp`.
fn field(family: Family) -> &'static str {
    match family {
        Family::V4 => "ipv4Address",
        Family::V6 => "ipv6Address",
    }
}
