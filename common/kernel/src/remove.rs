//! Removing an attachment.

use std::collections::BTreeSet;
use std::net::IpAddr;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::LinkMessage;
use netlink_packet_route::route::{RouteHeader, RouteMessage, RouteProtocol};
use weir_common::network::{AttachmentIdentity, ROUTE_PROTOCOL};

use crate::Kernel;
use crate::error::Error;
use crate::link::{Link, unless_gone};
use crate::message::{output, routes_by, single_address};
use crate::netlink::request_aside;

/// The host link of an attachment, found and known to be Weir's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnLink {
    pub(crate) index: u32,
    pub(crate) name: String,
}

impl OwnLink {
    pub(crate) fn of(link: Link) -> Self {
        Self { index: link.index, name: link.name }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Kernel {
    /// The first half of a removal: deletes the node's routes to the container
    /// and returns the link that is left to delete and the addresses that were routed to it;
    /// `None` when the attachment has no link (it was removed before, or never made). From then
    /// on nothing goes to its addresses any more, so they can be released. The container's
    /// namespace may be gone.
    ///
    /// # Errors
    /// The link of that name is not this attachment's (it is left alone), or
    /// the kernel refuses.
    pub async fn remove_routes(
        &self,
        identity: &AttachmentIdentity,
    ) -> Result<Option<(OwnLink, BTreeSet<IpAddr>)>, Error> {
        let Some(link) = self.host.link_by_name(&identity.host_interface()).await? else {
            return Ok(None);
        };
        if !link.belongs_to(identity) {
            return Err(link.foreign());
        }
        let mut addresses = BTreeSet::new();
        for v6 in [false, true] {
            let routes = self.host.routes(own_routes_by(v6, link.index)).await?;
            // Looked at again: not every kernel filters as it is asked to.
            for route in routes.into_iter().filter(|route| is_own_by(route, link.index)) {
                addresses.extend(single_address(&route));
                self.host.delete_route(route).await?;
            }
        }
        Ok(Some((OwnLink::of(link), addresses)))
    }

    /// The second half: deletes the link, and with it the container's end and
    /// all that hangs on both. A link that is gone by now is not an error. Other futures of the
    /// runtime (the release of the addresses) go on meanwhile.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn remove_link(&self, link: OwnLink) -> Result<(), Error> {
        let mut message = LinkMessage::default();
        message.header.index = link.index;
        unless_gone(request_aside(RouteNetlinkMessage::DelLink(message), 0).await, &link.name)
    }
}

pub(crate) fn is_own_by(route: &RouteMessage, index: u32) -> bool {
    route.header.protocol == RouteProtocol::Other(ROUTE_PROTOCOL) && output(route) == Some(index)
}

/// A filter for Weir's routes of a family by the link of that number.
fn own_routes_by(v6: bool, index: u32) -> RouteMessage {
    let mut filter = routes_by(v6, index);
    filter.header.protocol = RouteProtocol::Other(ROUTE_PROTOCOL);
    filter.header.table = RouteHeader::RT_TABLE_MAIN;
    filter
}
