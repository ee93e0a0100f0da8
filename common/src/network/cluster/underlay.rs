//! The links by which nodes reach each other.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::link::DEFAULT_MTU;
use crate::resources::is_link_local;

/// The links of a node by which it may reach other nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Underlay {
    /// Those that are up and have an address; neither loopback, nor the tunnel
    /// device, nor host ends of attachments.
    pub links: Vec<UnderlayLink>,
    /// The next hops of other programs' routes in the main table.
    pub next_hops: BTreeSet<IpAddr>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnderlayLink {
    /// Its name.
    pub name: String,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Its addresses of global scope, with the prefix lengths of their subnets.
    pub addresses: Vec<IpNet>,
}

impl Underlay {
    /// The link by which an address is reached without a router, and this
    /// node's own address there: that with the longest prefix that contains
    /// `next_hop`; of several the `registered` one, by which others know this node,
    /// or else the first, which is the link's primary one.
    pub(super) fn towards(
        &self,
        next_hop: IpAddr,
        registered: Option<IpNet>,
    ) -> Option<(&UnderlayLink, IpAddr)> {
        let addresses = self
            .links
            .iter()
            .flat_map(|link| link.addresses.iter().map(move |address| (link, address)));
        let is_registered =
            |address: &IpNet| Some(address.addr()) == registered.map(|it| it.addr());
        addresses
            .filter(|(_, address)| address.contains(&next_hop) && address.addr() != next_hop)
            .min_by_key(|(_, address)| (Reverse(address.prefix_len()), !is_registered(address)))
            .map(|(link, address)| (link, address.addr()))
    }

    /// The address that packets to the subnet of `address` are sent from, where that
    /// is another one: of several in one subnet the link's first.
    pub(super) fn primary_to(&self, address: IpNet) -> Option<(IpNet, IpAddr)> {
        let link = self.owner(address.addr())?;
        let own = link.addresses.iter().find(|own| own.addr() == address.addr())?;
        let primary = link.addresses.iter().find(|other| other.trunc() == own.trunc())?;
        (primary != own).then(|| (address, primary.addr()))
    }

    /// The link that has `address`.
    pub(super) fn owner(&self, address: IpAddr) -> Option<&UnderlayLink> {
        self.links.iter().find(|link| link.addresses.iter().any(|own| own.addr() == address))
    }

    /// The subnets of the links, each with its link.
    pub(super) fn subnets(&self) -> impl Iterator<Item = (IpNet, &UnderlayLink)> {
        let of_link =
            |link: &'_ UnderlayLink| link.addresses.iter().map(IpNet::trunc).collect::<Vec<_>>();
        let shared = |subnet: &IpNet| subnet.prefix_len() < subnet.max_prefix_len();
        let all = self.links.iter().flat_map(move |link| {
            of_link(link).into_iter().filter(shared).map(move |subnet| (subnet, link))
        });
        all.filter(|(subnet, _)| !is_link_local(*subnet))
    }

    /// Whether a blackhole of `block` would keep the node from others: it would be narrower
    /// than a subnet around it, or stand in the way to a next hop.
    pub(super) fn is_hidden_by(&self, block: IpNet) -> bool {
        self.subnets().any(|(subnet, _)| subnet.contains(&block)) || self.has_next_hop_in(block)
    }

    /// Whether a next hop of the node's, or an address of its own, lies in `range`.
    pub(super) fn has_hosts_in(&self, range: IpNet) -> bool {
        let mut own = self.links.iter().flat_map(|link| &link.addresses);
        self.has_next_hop_in(range) || own.any(|own| range.contains(&own.addr()))
    }

    fn has_next_hop_in(&self, range: IpNet) -> bool {
        self.next_hops.iter().any(|next_hop| range.contains(next_hop))
    }

    /// The smallest MTU of the links, in bytes.
    pub(super) fn smallest_mtu(&self) -> u32 {
        self.links.iter().map(|link| link.mtu).min().unwrap_or(DEFAULT_MTU)
    }
}
