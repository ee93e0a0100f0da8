//! The host's ends of the node's attachments, as the kernel has them.

use std::collections::{BTreeMap, HashSet};

use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::route::{RouteProtocol, RouteType};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::net::if_::if_nametoindex;
use weir_common::network::{
    AttachmentIdentity, AttachmentState, HostEnd, ROUTE_PROTOCOL, allowed_sources,
};

use crate::error::Error;
use crate::link::Link;
use crate::message::{all_routes, output};
use crate::occupied::MAIN_TABLE;
use crate::{Kernel, sysctl};

impl Kernel {
    /// The host's ends of the node's attachments, in the order in which they were made.
    ///
    /// # Errors
    /// The kernel refuses a list.
    pub async fn host_ends(&self) -> Result<Vec<HostEnd>, Error> {
        let attached = self.links_with_attachments().await?;
        let states: Vec<_> = attached.iter().map(|(_, state)| state.clone()).collect();
        let allowed = allowed_sources(&states);
        let with_gateway = self.links_with_gateway_v6().await?;
        let end = |(link, state): (Link, AttachmentState)| {
            let sends_more_v4 =
                allowed.iter().any(|(end, prefix)| *end == link.name && prefix.addr().is_ipv4());
            HostEnd {
                index: link.index,
                mac: link.mac,
                has_gateway_v6: with_gateway.contains(&link.index),
                sends_more_v4,
                parameters: parameters(&link.name),
                state,
            }
        };
        Ok(attached.into_iter().map(end).collect())
    }

    /// The names of host ends of attachments that no route of Weir's goes by. One list of
    /// routes, which the kernel filters, and none of links: cheap enough for each ADD.
    ///
    /// # Errors
    /// The kernel refuses a list.
    pub async fn unrouted_host_ends(&self) -> Result<Vec<String>, Error> {
        let directory = "/proc/sys/net/ipv4/conf";
        let failed = |cause| Error::refused(format!("list {directory}"), cause);
        let mut ends = BTreeMap::new();
        for entry in std::fs::read_dir(directory).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
            if AttachmentIdentity::may_name_host_interface(&name)
                && let Ok(index) = if_nametoindex(name.as_str())
            {
                ends.insert(index, name);
            }
        }
        for v6 in [false, true] {
            if !ends.is_empty() {
                let routed = self.links_routed_by_weir(v6).await?;
                ends.retain(|index, _| !routed.contains(index));
            }
        }
        let mut unrouted = Vec::new();
        for name in ends.into_values() {
            // What an ADD left unfinished has no routes yet.
            let link = self.host.link_by_name(&name).await?;
            unrouted.extend(link.is_some_and(|link| link.identity().is_some()).then_some(name));
        }
        Ok(unrouted)
    }

    async fn links_routed_by_weir(&self, v6: bool) -> Result<HashSet<u32>, Error> {
        let mut filter = all_routes(v6);
        filter.header.protocol = RouteProtocol::Other(ROUTE_PROTOCOL);
        filter.header.kind = RouteType::Unicast;
        filter.header.table = u8::try_from(MAIN_TABLE).unwrap_or_default();
        Ok(self.host.routes(filter).await?.iter().filter_map(output).collect())
    }

    async fn links_with_gateway_v6(&self) -> Result<HashSet<u32>, Error> {
        let mut filter = AddressMessage::default();
        filter.header.family = AddressFamily::Inet6;
        let listing = self.host.dump(RouteNetlinkMessage::GetAddress(filter)).await;
        let listing = listing.map_err(|cause| Error::refused("ip -6 address show", cause))?;
        let is_gateway = |attribute: &AddressAttribute| match attribute {
            AddressAttribute::Address(address) | AddressAttribute::Local(address) => {
                HostEnd::is_gateway_v6(*address)
            }
            _ => false,
        };
        let with_gateway = listing.into_iter().filter_map(|message| match message {
            RouteNetlinkMessage::NewAddress(message) => {
                message.attributes.iter().any(is_gateway).then_some(message.header.index)
            }
            _ => None,
        });
        Ok(with_gateway.collect())
    }
}

fn parameters(link: &str) -> BTreeMap<String, String> {
    let keys = HostEnd::parameters_of(link).into_iter();
    keys.filter_map(|key| sysctl::read(&key).ok().map(|value| (key, value))).collect()
}
