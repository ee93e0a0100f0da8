//! The network around a node: which of its addresses no container may have, whatever the
//! datastore says.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

/// A range from which no address is handed out by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reserved {
    /// The range.
    pub range: IpNet,
    /// What reserves it.
    pub by: ReservedBy,
}

/// What keeps an address from being handed out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReservedBy {
    /// An `IPReservation` of this name. A container may still ask for the address.
    Reservation(String),
    /// It is a gateway of the network.
    Gateway,
    /// It is outside of the range that the network is restricted to. A container may still
    /// ask for the address.
    OutsideRange(IpNet),
    /// It is in a range that is no container's anywhere; what that range is for.
    Special(&'static str),
    /// A link of the node has it.
    OwnAddress {
        /// The link.
        link: String,
    },
    /// A route of the node leads to this very address by a link: a container's, or the other
    /// end of a line.
    Reached {
        /// The link.
        link: String,
    },
    /// A route of the node leads by it.
    NextHop {
        /// The link.
        link: String,
    },
    /// A node is registered with it.
    NodeAddress {
        /// The node.
        node: String,
    },
    /// It is the network or broadcast address of a subnet.
    SubnetEdge {
        /// The subnet.
        subnet: IpNet,
    },
}

impl ReservedBy {
    /// Whether a container may still ask for the address by name.
    pub fn may_be_asked_for(&self) -> bool {
        matches!(self, Self::Reservation(_) | Self::OutsideRange(_))
    }

    /// What such an address is, to be read after "is".
    pub fn what_it_is(&self) -> String {
        match self {
            Self::Reservation(name) => format!("reserved by IPReservation {name}"),
            Self::Gateway => "a gateway of the network (ipam.gateways)".to_owned(),
            Self::OutsideRange(range) => format!("outside of the network's --ip-range {range}"),
            Self::Special(purpose) => format!("never a container's: {purpose}"),
            Self::OwnAddress { link } => format!("an address of this node (link {link})"),
            Self::Reached { link } => format!("in use behind this node's link {link}"),
            Self::NextHop { link } => {
                format!("a next hop of this node's routes (link {link})")
            }
            Self::NodeAddress { node } => format!("an address of node {node}"),
            Self::SubnetEdge { subnet } => {
                format!("the network or broadcast address of {subnet}")
            }
        }
    }
}

impl fmt::Display for ReservedBy {
    /// What reserves addresses, as one of a list.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reservation(name) => write!(formatter, "IPReservation {name}"),
            Self::Gateway => formatter.write_str("the network's gateways"),
            Self::OutsideRange(range) => write!(formatter, "the network's --ip-range {range}"),
            Self::Special(purpose) => write!(formatter, "the range's purpose: {purpose}"),
            Self::OwnAddress { link } | Self::Reached { link } => {
                write!(formatter, "this node's link {link}")
            }
            Self::NextHop { .. } => formatter.write_str("next hops of this node's routes"),
            Self::NodeAddress { node } => write!(formatter, "node {node}"),
            Self::SubnetEdge { subnet } => write!(formatter, "the edges of subnet {subnet}"),
        }
    }
}

/// What a node's kernel says of the addresses around it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalNetwork {
    /// The addresses of its links, and ranges that are local as a whole, with the link.
    pub own: Vec<(IpNet, String)>,
    /// The single addresses that its routes lead to by a link, without a next hop, with the
    /// link.
    pub reached: Vec<(IpAddr, String)>,
    /// The next hops of its routes, with the link.
    pub next_hops: Vec<(IpAddr, String)>,
    /// The broadcast addresses of its links.
    pub broadcast: BTreeSet<IpAddr>,
    /// The ranges of several addresses that its links reach without a next hop; not those of
    /// link-local addresses.
    pub connected: BTreeSet<IpNet>,
}

impl LocalNetwork {
    /// What no container is given here, when other `nodes` have these addresses.
    pub fn reserved(&self, nodes: &BTreeMap<IpAddr, String>) -> Vec<Reserved> {
        let own = self.own.iter().map(|(range, link)| {
            let link = link.clone();
            Reserved { range: *range, by: ReservedBy::OwnAddress { link } }
        });
        let single = |address: &IpAddr, by| Reserved { range: (*address).into(), by };
        let reached = self.reached.iter().map(|(address, link)| {
            let link = link.clone();
            single(address, ReservedBy::Reached { link })
        });
        let nodes = nodes.iter().map(|(address, node)| {
            let node = node.clone();
            single(address, ReservedBy::NodeAddress { node })
        });
        let next_hops = self.next_hops.iter().map(|(address, link)| {
            let link = link.clone();
            single(address, ReservedBy::NextHop { link })
        });
        let edges = self.connected.iter().flat_map(|subnet| edges_of(*subnet));
        let is_edge = |address: &&IpAddr| {
            !self.connected.iter().any(|it| it.contains(*address) && it.broadcast() == **address)
        };
        let broadcast =
            self.broadcast.iter().filter(is_edge).map(|address| {
                single(address, ReservedBy::SubnetEdge { subnet: (*address).into() })
            });
        own.chain(reached).chain(nodes).chain(next_hops).chain(edges).chain(broadcast).collect()
    }
}

/// The network and the broadcast address of a subnet: none where every address is a host's
/// (RFC 3021), and the first alone with IPv6, which is the routers' (RFC 4291, 2.6.1).
pub fn edges_of(subnet: IpNet) -> Vec<Reserved> {
    let host_bits = subnet.max_prefix_len() - subnet.prefix_len();
    let edges = match subnet {
        _ if host_bits < 2 => Vec::new(),
        IpNet::V4(_) => vec![subnet.network(), subnet.broadcast()],
        IpNet::V6(_) => vec![subnet.network()],
    };
    let subnet = subnet.trunc();
    let edge =
        |address: IpAddr| Reserved { range: address.into(), by: ReservedBy::SubnetEdge { subnet } };
    edges.into_iter().map(edge).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reserved_in(network: &LocalNetwork, nodes: &[(&str, &str)]) -> Vec<String> {
        let node = |(address, node): &(&str, &str)| (address.parse().unwrap(), (*node).to_owned());
        let reserved = network.reserved(&nodes.iter().map(node).collect());
        reserved.iter().map(|it| format!("{} is {}", it.range.addr(), it.by.what_it_is())).collect()
    }

    #[test]
    fn a_lan_has_its_router_its_nodes_and_its_edges() {
        let network = LocalNetwork {
            own: vec![("192.168.1.10/32".parse().unwrap(), "eth0".to_owned())],
            next_hops: vec![("192.168.1.1".parse().unwrap(), "eth0".to_owned())],
            connected: BTreeSet::from(["192.168.1.0/24".parse().unwrap()]),
            ..LocalNetwork::default()
        };
        let nodes = [("192.168.1.11", "n2")];
        assert_eq!(
            reserved_in(&network, &nodes),
            [
                "192.168.1.10 is an address of this node (link eth0)",
                "192.168.1.11 is an address of node n2",
                "192.168.1.1 is a next hop of this node's routes (link eth0)",
                "192.168.1.0 is the network or broadcast address of 192.168.1.0/24",
                "192.168.1.255 is the network or broadcast address of 192.168.1.0/24",
            ]
        );
    }

    #[test]
    fn links_between_two_have_no_edges() {
        for subnet in ["10.0.0.0/31", "10.0.0.1/32", "fd00::/127"] {
            assert_eq!(edges_of(subnet.parse().unwrap()), [], "{subnet}");
        }
        assert_eq!(edges_of("fd00::/64".parse().unwrap()).len(), 1);
    }
}
