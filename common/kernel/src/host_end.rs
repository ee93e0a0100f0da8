//! The host's ends of the node's attachments, as the kernel has them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;

use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::route::{RouteMessage, RouteProtocol, RouteType};
use rustix::net::netdevice::name_to_index;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use weir_common::network::{
    AttachmentIdentity, AttachmentState, HostEnd, ROUTE_PROTOCOL, Route, SourceAddresses,
    allowed_sources,
};

use crate::cluster::is_usable;
use crate::error::Error;
use crate::link::Link;
use crate::message::{all_routes, output};
use crate::occupied::{MAIN_TABLE, subnet};
use crate::route::in_plan_terms;
use crate::{Kernel, sysctl};

impl Kernel {
    /// The host's ends of the node's attachments, in the order in which they were made.
    /// `registered` are the node's addresses by which it should send to them.
    ///
    /// # Errors
    /// The kernel refuses a list.
    pub async fn host_ends(&self, registered: SourceAddresses) -> Result<Vec<HostEnd>, Error> {
        let attached = self.links_with_attachments().await?;
        let states: Vec<_> = attached.iter().map(|(_, state)| state.clone()).collect();
        let allowed = allowed_sources(&states);
        let listed = self.all_addresses().await?;
        let with_link = |it: &AddressMessage| Some((it.header.index, subnet(it)?.addr()));
        let addresses: HashSet<_> = listed.iter().filter_map(with_link).collect();
        let usable = listed.iter().filter(|it| is_usable(it)).filter_map(subnet);
        let usable: HashSet<IpAddr> = usable.map(|subnet| subnet.addr()).collect();
        let is_present = |address: IpAddr| usable.contains(&address);
        let sources = SourceAddresses {
            ipv4: registered.ipv4.filter(|address| is_present((*address).into())),
            ipv6: registered.ipv6.filter(|address| is_present((*address).into())),
        };
        let mut routes = self.routes_of_weir().await?;
        let end = |(link, state): (Link, AttachmentState)| {
            let sends_more_v4 =
                allowed.iter().any(|(end, prefix)| *end == link.name && prefix.addr().is_ipv4());
            HostEnd {
                index: link.index,
                mac: link.mac,
                has_gateway_v6: addresses
                    .contains(&(link.index, state.identity.gateway_v6().into())),
                has_arp_source: addresses
                    .contains(&(link.index, state.identity.arp_source().into())),
                routes: routes.remove(&link.index).unwrap_or_default(),
                sources,
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
        // One socket for all questions: a node has hundreds of containers.
        let flags = SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None);
        let socket = socket.map_err(|errno| Error::refused("open a socket", errno.into()))?;
        let mut ends = BTreeMap::new();
        for entry in std::fs::read_dir(directory).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
            if AttachmentIdentity::may_name_host_interface(&name)
                && let Ok(index) = name_to_index(&socket, &name)
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
        Ok(self.host.routes(weirs_routes(v6)).await?.iter().filter_map(output).collect())
    }

    /// Weir's routes by a link alone, by the link's number.
    async fn routes_of_weir(&self) -> Result<HashMap<u32, Vec<Route>>, Error> {
        let mut routes: HashMap<u32, Vec<Route>> = HashMap::new();
        for v6 in [false, true] {
            let listed = self.host.routes(weirs_routes(v6)).await?;
            for (index, route) in listed.iter().filter_map(|it| output(it).zip(in_plan_terms(it))) {
                routes.entry(index).or_default().push(route);
            }
        }
        Ok(routes)
    }
}

/// A filter for Weir's routes of a family to containers and other nodes.
fn weirs_routes(v6: bool) -> RouteMessage {
    let mut filter = all_routes(v6);
    filter.header.protocol = RouteProtocol::Other(ROUTE_PROTOCOL);
    filter.header.kind = RouteType::Unicast;
    filter.header.table = u8::try_from(MAIN_TABLE).unwrap_or_default();
    filter
}

fn parameters(link: &str) -> BTreeMap<String, String> {
    let keys = HostEnd::parameters_of(link).into_iter();
    keys.filter_map(|key| sysctl::read(&key).ok().map(|value| (key, value))).collect()
}
