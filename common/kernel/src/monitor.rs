//! What happens to the node's network, as it happens.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};

use ipnet::IpNet;
use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::address::{AddressAttribute, AddressMessage, AddressScope};
use netlink_packet_route::link::LinkFlags;
use netlink_packet_route::route::{RouteAttribute, RouteMessage, RouteProtocol};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::TokioSocket;
use netlink_sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use rtnetlink::MulticastGroup;
use weir_common::network::{
    ANNOUNCE_TABLE, HOST_MAC, HostEnd, NatTable, NftTable, ROUTE_PROTOCOL, SourceFilter,
    TunnelFilter,
};
use weir_common::tunnel::TunnelKind;

use crate::Kernel;
use crate::cluster::is_of_cluster;
use crate::error::Error;
use crate::link::Link;
use crate::listen::{drain, listen};
use crate::message::{destination, output, table_of};
use crate::netconf::{Drift, drift, is_netconf};
use crate::nfnetlink::split_message;
use crate::nft;
use crate::occupied::MAIN_TABLE;
use crate::tunnel_entries::TunnelEntries;

/// The groups that tell of links, addresses, routes and parameters.
const GROUPS: [MulticastGroup; 7] = [
    MulticastGroup::Link,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
    MulticastGroup::Ipv4Netconf,
    MulticastGroup::Ipv6Netconf,
];

/// The group that tells of nftables (`NFNLGRP_NFTABLES`,
/// `linux/netfilter/nfnetlink.h`).
const NFTABLES_GROUP: u32 = 7;

/// What has happened to the node's network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkChange {
    /// Whether it may concern the node's part in the cluster.
    pub cluster: bool,
    /// The numbers of links that may be host ends of attachments and have lost something.
    pub host_ends: BTreeSet<u32>,
    /// Whether any of them may have: an address of the node came or went, or more has
    /// happened than the kernel keeps.
    pub any_host_end: bool,
}

/// Listens to the kernel for what may make a node's part in the cluster another
/// one than it should be.
pub struct Monitor {
    routes: TokioSocket,
    /// `None` where the kernel has no nftables.
    tables: Option<TokioSocket>,
    tunnel_entries: TunnelEntries,
    /// The socket whose changes of routes and neighbours are left out.
    ignored: Option<u32>,
}

impl Monitor {
    /// Begins to listen in the namespace that the thread is in. Needs a tokio
    /// runtime with I/O.
    ///
    /// # Errors
    /// No netlink socket can be had.
    pub fn open() -> Result<Self, Error> {
        let failed = |cause| Error::refused("listen to changes of the network", cause);
        let groups = GROUPS.map(|group| group as u32);
        Ok(Self {
            routes: listen(NETLINK_ROUTE, &groups).map_err(failed)?,
            tables: listen(NETLINK_NETFILTER, &[NFTABLES_GROUP]).ok(),
            tunnel_entries: TunnelEntries::open().map_err(failed)?,
            ignored: None,
        })
    }

    /// Leaves out the changes of routes and neighbours that `kernel` makes.
    #[must_use]
    pub fn ignoring(mut self, kernel: &Kernel) -> Self {
        self.ignored = Some(kernel.host.port);
        self
    }

    /// Waits until something has happened that may concern the node's part in the cluster (to
    /// a link, to an address of global scope or of a tunnel device, to a route in the main table or that of what is
    /// announced, to a neighbour or a forwarding entry of a tunnel device,
    /// or to Weir's tables of nftables), or that may have cost a host end something. What attachments
    /// come and go with does not concern the cluster, nor do changes of routes and neighbours by
    /// [`Monitor::ignoring`]'s kernel.
    ///
    /// All that has happened until then counts as one. What was lost, because more happened
    /// than the kernel keeps, counts as well. Nothing is missed when the future is dropped
    /// before it is done.
    ///
    /// # Errors
    /// The kernel refuses to tell more.
    pub async fn changed(&mut self) -> Result<NetworkChange, Error> {
        let happened = poll_fn(|context| self.poll_changed(context)).await;
        happened.map_err(|cause| Error::refused("listen to changes of the network", cause))
    }

    fn poll_changed(&mut self, context: &mut Context<'_>) -> Poll<io::Result<NetworkChange>> {
        let mut changed = NetworkChange::default();
        let routes = drain(&self.routes, context, |it| changed.take_in(it, self.ignored))?;
        changed.any_host_end |= routes;
        changed.cluster |= routes;
        if changed.cluster {
            // Whoever is told reads their entries after this.
            self.tunnel_entries.find_devices()?;
        }
        changed.cluster |= self.tunnel_entries.have_changed(context, self.ignored)?;
        if let Some(tables) = &self.tables {
            let mut told = false;
            let overrun = drain(tables, context, |it| told |= concerns_tables(it))?;
            changed.cluster |= told || overrun;
        }
        if changed == NetworkChange::default() { Poll::Pending } else { Poll::Ready(Ok(changed)) }
    }
}

impl NetworkChange {
    /// Takes in a datagram of rtnetlink. One that cannot be read concerns the cluster.
    /// Changes of routes that the socket of the number `ignored` asked for do not count.
    fn take_in(&mut self, datagram: &[u8], ignored: Option<u32>) {
        let mut rest = datagram;
        while let Some((kind, _, _, next)) = split_message(rest) {
            let message = std::mem::replace(&mut rest, next);
            if is_netconf(kind) {
                match drift(message) {
                    Some(Drift::Node) => self.cluster = true,
                    Some(Drift::Link(index)) => _ = self.host_ends.insert(index),
                    None => {}
                }
                continue;
            }
            let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(message) else {
                self.cluster = true;
                continue;
            };
            if let NetlinkPayload::InnerMessage(payload) = message.payload
                && (!is_route(&payload) || Some(message.header.port_number) != ignored)
            {
                self.cluster |= is_of_concern(&payload);
                self.any_host_end |= is_node_address(&payload);
                self.host_ends.extend(bereaved_host_end(&payload));
            }
        }
    }
}

/// The number of the link that has lost what containers need, where it may be a host end.
fn bereaved_host_end(message: &RouteNetlinkMessage) -> Option<u32> {
    match message {
        RouteNetlinkMessage::NewLink(message) => {
            let (flags, changed) = (message.header.flags, message.header.change_mask);
            // A new link has all of its flags changed.
            let was_switched = changed.contains(LinkFlags::Up) && changed.bits() != u32::MAX;
            let link = Link::from_message(message.clone());
            let is_lost = !flags.contains(LinkFlags::Up) || was_switched;
            (link.identity().is_some() && (is_lost || link.mac != Some(HOST_MAC)))
                .then_some(link.index)
        }
        RouteNetlinkMessage::DelRoute(route) => {
            // A second route of IPv4 without source is there in any case.
            let is_first = route.header.address_family == AddressFamily::Inet
                && route.attributes.iter().any(|it| matches!(it, RouteAttribute::PrefSource(_)));
            let is_loss = table_of(route) == MAIN_TABLE && is_to_container(route) && !is_first;
            output(route).filter(|_| is_loss)
        }
        RouteNetlinkMessage::DelAddress(message) => {
            let is_own = |attribute: &AddressAttribute| match attribute {
                AddressAttribute::Address(address) => HostEnd::may_be_own_address(*address),
                _ => false,
            };
            message.attributes.iter().any(is_own).then_some(message.header.index)
        }
        _ => None,
    }
}

fn is_route(message: &RouteNetlinkMessage) -> bool {
    matches!(message, RouteNetlinkMessage::NewRoute(_) | RouteNetlinkMessage::DelRoute(_))
}

fn is_of_concern(message: &RouteNetlinkMessage) -> bool {
    match message {
        RouteNetlinkMessage::NewLink(link) | RouteNetlinkMessage::DelLink(link) => {
            !Link::from_message(link.clone()).is_host_end()
        }
        RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route) => {
            let table = table_of(route);
            table == ANNOUNCE_TABLE || (table == MAIN_TABLE && !comes_with_attachments(route))
        }
        RouteNetlinkMessage::NewAddress(address) | RouteNetlinkMessage::DelAddress(address) => {
            is_node_address(message) || is_of_tunnel(address)
        }
        _ => false,
    }
}

/// Whether an IPv4 address is on a tunnel device, of whatever scope: the kernel labels it with the
/// name of its link.
fn is_of_tunnel(address: &AddressMessage) -> bool {
    let is_device = |name: &str| TunnelKind::of_device(name).is_some();
    address.attributes.iter().any(|it| matches!(it, AddressAttribute::Label(it) if is_device(it)))
}

/// Whether an address of the node came or went; the host ends of attachments have addresses of
/// the link only.
fn is_node_address(message: &RouteNetlinkMessage) -> bool {
    match message {
        RouteNetlinkMessage::NewAddress(address) | RouteNetlinkMessage::DelAddress(address) => {
            address.header.scope == AddressScope::Universe
        }
        _ => false,
    }
}

/// Weir's route to a container, or the kernel's own to the neighbours on a link.
fn comes_with_attachments(route: &RouteMessage) -> bool {
    let to_link = match destination(route) {
        IpNet::V6(net) => net.addr().is_unicast_link_local(),
        IpNet::V4(_) => false,
    };
    is_to_container(route) || to_link
}

fn is_to_container(route: &RouteMessage) -> bool {
    route.header.protocol == RouteProtocol::Other(ROUTE_PROTOCOL) && !is_of_cluster(route)
}

/// Whether a datagram of nftables tells of a table of Weir's.
fn concerns_tables(datagram: &[u8]) -> bool {
    [NatTable::NAME, TunnelFilter::NAME, SourceFilter::NAME]
        .iter()
        .any(|table| nft::tells_of(datagram, table))
}
