//! What happens to the neighbours and forwarding entries of tunnel devices.

use std::collections::BTreeSet;
use std::io;
use std::task::Context;

use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::neighbour::NeighbourState;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{AsyncSocket, TokioSocket};
use nix::net::if_::if_nametoindex;
use rtnetlink::MulticastGroup;
use weir_common::tunnel::TunnelKind;

use crate::listen::{drain, listen};
use crate::nfnetlink::split_message;

/// The group that tells of neighbours and forwarding entries.
const GROUP: u32 = MulticastGroup::Neigh as u32;

/// Listens to the neighbours and forwarding entries of the devices that carry Ethernet frames.
///
/// The kernel tells of those of all links at once, and containers have many that come and go. So
/// it has a socket of its own, which is told something only while there is such a device.
pub(crate) struct TunnelEntries {
    socket: TokioSocket,
    /// The numbers of the devices.
    devices: BTreeSet<u32>,
}

impl TunnelEntries {
    pub(crate) fn open() -> io::Result<Self> {
        let mut entries = Self { socket: listen(NETLINK_ROUTE, &[])?, devices: BTreeSet::new() };
        entries.find_devices()?;
        Ok(entries)
    }

    /// Looks which devices there are. What happens to their entries from then on is told.
    pub(crate) fn find_devices(&mut self) -> io::Result<()> {
        let with_entries = TunnelKind::ALL.into_iter().filter(|kind| kind.row().frames().is_some());
        let devices: BTreeSet<u32> =
            with_entries.filter_map(|kind| if_nametoindex(kind.device()).ok()).collect();
        let was_listening = !self.devices.is_empty();
        self.devices = devices;
        match (was_listening, self.devices.is_empty()) {
            (false, false) => self.socket.socket_mut().add_membership(GROUP),
            (true, true) => self.socket.socket_mut().drop_membership(GROUP),
            _ => Ok(()),
        }
    }

    /// Reads what has happened, and says whether anything may be wrong with an entry now.
    /// Changes of neighbours that the socket of the number `ignored` asked for do not count.
    pub(crate) fn have_changed(
        &self,
        context: &mut Context<'_>,
        ignored: Option<u32>,
    ) -> io::Result<bool> {
        let mut told = false;
        let take_in = |datagram: &[u8]| told |= tells_of(datagram, &self.devices, ignored);
        let overrun = drain(&self.socket, context, take_in)?;
        Ok(told || (overrun && !self.devices.is_empty()))
    }
}

/// Whether a datagram tells of an entry of one of these devices. One that cannot be read does.
fn tells_of(datagram: &[u8], devices: &BTreeSet<u32>, ignored: Option<u32>) -> bool {
    let mut rest = datagram;
    while let Some((.., next)) = split_message(rest) {
        let message = std::mem::replace(&mut rest, next);
        let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(message) else {
            return true;
        };
        let is_own = Some(message.header.port_number) == ignored;
        let is_meant = match &message.payload {
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNeighbour(entry)) => {
                devices.contains(&entry.header.ifindex) && !is_passing(entry.header.state)
            }
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelNeighbour(entry)) => {
                devices.contains(&entry.header.ifindex)
            }
            _ => false,
        };
        if is_meant && !is_own {
            return true;
        }
    }
    false
}

/// Whether the kernel only asks for a neighbour's hardware address, or finds none: what was
/// permanent is told to be gone besides.
fn is_passing(state: NeighbourState) -> bool {
    matches!(
        state,
        NeighbourState::Incomplete
            | NeighbourState::Delay
            | NeighbourState::Probe
            | NeighbourState::Failed
    )
}
