//! What the node itself is like: forwarding, and the MTU of its uplink.

use std::io;
use std::net::IpAddr;

use futures_util::StreamExt;
use netlink_packet_route::route::{RouteAttribute, RouteFlags, RouteMessage};
use weir_common::network::{
    AttachmentIdentity, MtuCandidate, NodeState, OUTSIDE_V4, OUTSIDE_V6, choose_mtu,
};

use crate::error::Error;
use crate::link::Link;
use crate::message::{all_routes, output};
use crate::netlink::into_io;
use crate::route::is_unreachable;
use crate::{Kernel, sysctl};

impl Kernel {
    /// What `weir_common::network::plan_node` decides by. IPv6 is looked at only
    /// where it is wanted, since that takes longer the more links there are.
    /// What a kernel without IPv6 has no parameters for counts as off.
    ///
    /// # Errors
    /// `/proc/sys` cannot be read.
    pub fn node_state(&self, ipv6: bool) -> Result<NodeState, Error> {
        let ipv6_forwarding = ipv6 && is_set("net/ipv6/conf/all/forwarding", "1")?;
        let taking_advertisements =
            if ipv6 && !ipv6_forwarding { taking_advertisements()? } else { Vec::new() };
        Ok(NodeState {
            ipv4_forwarding: is_set("net/ipv4/ip_forward", "1")?,
            ipv6_forwarding,
            taking_advertisements,
        })
    }

    /// The MTU in bytes for containers where the configuration names none: that
    /// of the link by which the node reaches the outside (its default route),
    /// of IPv4 or else of IPv6; else as `weir_common::network::choose_mtu` has
    /// it.
    ///
    /// # Errors
    /// The kernel refuses a lookup.
    pub async fn uplink_mtu(&self) -> Result<u32, Error> {
        for destination in [OUTSIDE_V4, OUTSIDE_V6] {
            if let Some(index) = self.link_towards(destination).await?
                && let Some(link) = self.host.link_by_index(index).await?
                && !link.loopback
            {
                return Ok(choose_mtu(Some(link.mtu), &[]));
            }
        }
        let candidates: Vec<MtuCandidate> =
            self.host.links().await?.into_iter().map(candidate).collect();
        Ok(choose_mtu(None, &candidates))
    }

    /// The link that the kernel would send to `destination` by.
    async fn link_towards(&self, destination: IpAddr) -> Result<Option<u32>, Error> {
        let route = self.route_towards(destination, true).await?;
        Ok(route.as_ref().and_then(output))
    }

    /// How the kernel would send to `destination`; the route itself
    /// (`fib_match`), or what it comes to, with the source address. One lookup,
    /// and not a listing, which would grow with the number of containers.
    pub(crate) async fn route_towards(
        &self,
        destination: IpAddr,
        fib_match: bool,
    ) -> Result<Option<RouteMessage>, Error> {
        let mut request = all_routes(destination.is_ipv6());
        request.header.destination_prefix_length = if destination.is_ipv6() { 128 } else { 32 };
        if fib_match {
            request.header.flags = RouteFlags::FibMatch;
        }
        request.attributes.push(RouteAttribute::Destination(destination.into()));
        let mut answers = std::pin::pin!(self.host.handle().route().get(request).execute());
        match answers.next().await {
            None => Ok(None),
            Some(Ok(route)) => Ok(Some(route)),
            Some(Err(error)) => match into_io(error) {
                cause if is_unreachable(&cause) => Ok(None),
                cause => Err(Error::refused(format!("ip route get {destination}"), cause)),
            },
        }
    }
}

fn candidate(link: Link) -> MtuCandidate {
    let Link { name, mtu, up, loopback, kind, .. } = link;
    MtuCandidate { name, mtu, up, loopback, kind }
}

/// The interfaces with `accept_ra` 1; not the templates for all and new ones.
fn taking_advertisements() -> Result<Vec<String>, Error> {
    let directory = "/proc/sys/net/ipv6/conf";
    let failed = |cause| Error::refused(format!("list {directory}"), cause);
    let entries = match std::fs::read_dir(directory) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed)?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
        // A host end that is being made has the default until its own parameters are set.
        let is_interface = !["all", "default", "lo"].contains(&name.as_str())
            && !AttachmentIdentity::may_name_host_interface(&name);
        if is_interface && is_set(&format!("net/ipv6/conf/{name}/accept_ra"), "1")? {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

fn is_set(key: &str, value: &str) -> Result<bool, Error> {
    match sysctl::read(key) {
        Ok(found) => Ok(found == value),
        // No IPv6, or an interface that has gone meanwhile.
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(cause) => Err(Error::refused(format!("sysctl {key}"), cause)),
    }
}
