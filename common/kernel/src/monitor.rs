//! What happens to the node's network, as it happens.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};

use ipnet::IpNet;
use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressMessage, AddressScope};
use netlink_packet_route::route::{RouteMessage, RouteProtocol};
use netlink_sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use netlink_sys::{AsyncSocket, SocketAddr, TokioSocket};
use nix::errno::Errno;
use rtnetlink::MulticastGroup;
use weir_common::network::{NatTable, NftTable, ROUTE_PROTOCOL, SourceFilter, TunnelFilter};

use crate::Kernel;
use crate::cluster::is_of_cluster;
use crate::error::Error;
use crate::link::{Link, is};
use crate::message::{destination, table_of};
use crate::nft;
use crate::occupied::MAIN_TABLE;

/// The groups that tell of links, addresses and routes.
const GROUPS: [MulticastGroup; 5] = [
    MulticastGroup::Link,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
];

/// The group that tells of nftables (`NFNLGRP_NFTABLES`,
/// `linux/netfilter/nfnetlink.h`).
const NFTABLES_GROUP: u32 = 7;

/// Listens to the kernel for what may make a node's part in the cluster another
/// one than it should be.
pub struct Monitor {
    routes: TokioSocket,
    /// `None` where the kernel has no nftables.
    tables: Option<TokioSocket>,
    /// The socket whose changes of routes are left out.
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
            ignored: None,
        })
    }

    /// Leaves out the changes of routes that `kernel` makes.
    #[must_use]
    pub fn ignoring(mut self, kernel: &Kernel) -> Self {
        self.ignored = Some(kernel.host.port);
        self
    }

    /// Waits until something has happened that may concern the node's part in
    /// the cluster: to a link, to an address of global scope, to a route in the
    /// main table, or to Weir's tables of nftables. What attachments come and go
    /// with does not count, nor do changes of routes by [`Monitor::ignoring`]'s kernel.
    ///
    /// All that has happened until then counts as one. So does what was lost,
    /// because more happened than the kernel keeps. Nothing is missed when the
    /// future is dropped before it is done.
    ///
    /// # Errors
    /// The kernel refuses to tell more.
    pub async fn changed(&mut self) -> Result<(), Error> {
        let happened = poll_fn(|context| self.poll_changed(context)).await;
        happened.map_err(|cause| Error::refused("listen to changes of the network", cause))
    }

    fn poll_changed(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let routes = drain(&self.routes, context, |it| concerns_routes(it, self.ignored))?;
        let tables = match &self.tables {
            Some(tables) => drain(tables, context, concerns_tables)?,
            None => false,
        };
        if routes || tables { Poll::Ready(Ok(())) } else { Poll::Pending }
    }
}

fn listen(protocol: isize, groups: &[u32]) -> io::Result<TokioSocket> {
    let mut socket = TokioSocket::new(protocol)?;
    socket.socket_mut().bind(&SocketAddr::new(0, 0))?;
    for group in groups {
        socket.socket_mut().add_membership(*group)?;
    }
    Ok(socket)
}

/// Reads all that is there, and says whether any of it `concerns` Weir. The
/// context is woken when there is more.
fn drain(
    socket: &TokioSocket,
    context: &mut Context<'_>,
    concerns: impl Fn(&[u8]) -> bool,
) -> io::Result<bool> {
    let mut changed = false;
    loop {
        match socket.poll_recv_from_full(context) {
            Poll::Pending => return Ok(changed),
            Poll::Ready(Ok((datagram, _))) => changed = changed || concerns(&datagram),
            // Something was lost.
            Poll::Ready(Err(cause)) if is(&cause, Errno::ENOBUFS) => changed = true,
            Poll::Ready(Err(cause)) => return Err(cause),
        }
    }
}

/// Whether a datagram of rtnetlink tells of something that counts; also if it cannot be read.
/// Changes of routes that the socket of the number `ignored` asked for do not count.
fn concerns_routes(datagram: &[u8], ignored: Option<u32>) -> bool {
    let mut rest = datagram;
    while !rest.is_empty() {
        let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest) else {
            return true;
        };
        let length = (message.header.length as usize).next_multiple_of(4);
        rest = rest.get(length..).unwrap_or_default();
        if let NetlinkPayload::InnerMessage(payload) = message.payload
            && (!is_route(&payload) || Some(message.header.port_number) != ignored)
            && is_of_concern(&payload)
        {
            return true;
        }
    }
    false
}

fn is_route(message: &RouteNetlinkMessage) -> bool {
    matches!(message, RouteNetlinkMessage::NewRoute(_) | RouteNetlinkMessage::DelRoute(_))
}

fn is_of_concern(message: &RouteNetlinkMessage) -> bool {
    match message {
        RouteNetlinkMessage::NewLink(link) | RouteNetlinkMessage::DelLink(link) => {
            !Link::from_message(link.clone()).is_host_end()
        }
        RouteNetlinkMessage::NewAddress(address) | RouteNetlinkMessage::DelAddress(address) => {
            is_global(address)
        }
        RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route) => {
            table_of(route) == MAIN_TABLE && !comes_with_attachments(route)
        }
        _ => false,
    }
}

/// The host ends of attachments have addresses of the link only.
fn is_global(address: &AddressMessage) -> bool {
    address.header.scope == AddressScope::Universe
}

/// Weir's route to a container, or the kernel's own to the neighbours on a link.
fn comes_with_attachments(route: &RouteMessage) -> bool {
    let to_container =
        route.header.protocol == RouteProtocol::Other(ROUTE_PROTOCOL) && !is_of_cluster(route);
    let to_link = match destination(route) {
        IpNet::V6(net) => net.addr().is_unicast_link_local(),
        IpNet::V4(_) => false,
    };
    to_container || to_link
}

/// Whether a datagram of nftables tells of a table of Weir's.
fn concerns_tables(datagram: &[u8]) -> bool {
    [NatTable::NAME, TunnelFilter::NAME, SourceFilter::NAME]
        .iter()
        .any(|table| nft::tells_of(datagram, table))
}
