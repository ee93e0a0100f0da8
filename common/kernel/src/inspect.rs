//! What the kernel has of an attachment.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use netlink_packet_route::route::{RouteAttribute, RouteMessage, RouteType};
use weir_common::network::{
    ANNOUNCE_TABLE, AttachmentIdentity, Expected, Families, Found, FoundLink, Route,
};

use crate::error::Error;
use crate::link::Link;
use crate::message::{all_routes, output, routes_by, single_address, table_of};
use crate::netlink::Netlink;
use crate::route::in_plan_terms;
use crate::{Kernel, sysctl};

impl Kernel {
    /// Whether the container has the attachment's interface already, made whole
    /// or left half-made by an interrupted ADD. The container must be open.
    ///
    /// # Errors
    /// [`Error::InterfaceExists`] when an interface of that name is something
    /// else; the kernel refuses.
    pub async fn is_attached(&self, identity: &AttachmentIdentity) -> Result<bool, Error> {
        let interface = identity.interface();
        let Some(container) = self.container()?.netlink.link_by_name(interface).await? else {
            return Ok(false);
        };
        match self.host.link_by_name(&identity.host_interface()).await? {
            Some(host)
                if host.belongs_to(identity)
                    && host.peer_index == Some(container.index)
                    && container.peer_index == Some(host.index) =>
            {
                Ok(true)
            }
            _ => Err(Error::InterfaceExists { interface: interface.to_owned() }),
        }
    }

    /// The addresses that the node routes to its links, by their numbers.
    pub(crate) async fn addresses_by_link(&self) -> Result<HashMap<u32, Vec<IpAddr>>, Error> {
        let mut addresses: HashMap<u32, Vec<IpAddr>> = HashMap::new();
        for v6 in [false, true] {
            for route in self.host.routes(all_routes(v6)).await? {
                if let Some((link, address)) = routed_address(&route) {
                    let of_link = addresses.entry(link).or_default();
                    // Several routes may lead to one.
                    if !of_link.contains(&address) {
                        of_link.push(address);
                    }
                }
            }
        }
        Ok(addresses)
    }

    /// Every single address that the node has or has a route to, in any routing
    /// table but that of what it announces, whoever set it up.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn routed_addresses(&self) -> Result<BTreeSet<IpAddr>, Error> {
        let mut addresses = BTreeSet::new();
        for v6 in [false, true] {
            let routes = self.host.routes(all_routes(v6)).await?;
            let leads = |route: &&RouteMessage| table_of(route) != ANNOUNCE_TABLE;
            addresses.extend(routes.iter().filter(leads).filter_map(single_address));
        }
        Ok(addresses)
    }

    /// Those of these addresses that the node has not, and routes to no link.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn unrouted(
        &self,
        mut addresses: BTreeSet<IpAddr>,
    ) -> Result<BTreeSet<IpAddr>, Error> {
        if addresses.is_empty() {
            return Ok(addresses);
        }
        for v6 in [false, true] {
            let routes = self.host.routes(all_routes(v6)).await?;
            let by_link = routes.iter().filter(|route| route.header.kind != RouteType::BlackHole);
            for routed in by_link.filter_map(single_address) {
                addresses.remove(&routed);
            }
        }
        Ok(addresses)
    }

    /// Whether the node has the host's end of the attachment, made whole or not.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn has_host_end(&self, identity: &AttachmentIdentity) -> Result<bool, Error> {
        let link = self.host.link_by_name(&identity.host_interface()).await?;
        Ok(link.is_some_and(|link| link.belongs_to(identity)))
    }

    /// The routes of these families that the container has by other interfaces than this
    /// attachment's, in all tables, for `weir_common::network::Attachment::beside`. The
    /// container must be open; `present` says whether it has the attachment's interface.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn routes_beside(
        &self,
        identity: &AttachmentIdentity,
        present: bool,
        families: Families,
    ) -> Result<Vec<Route>, Error> {
        let container = &self.container()?.netlink;
        let own = match present {
            true => container.link_by_name(identity.interface()).await?.map(|link| link.index),
            false => None,
        };
        let mut beside = Vec::new();
        let wanted = [(false, families.ipv4), (true, families.ipv6)];
        for (v6, _) in wanted.into_iter().filter(|(_, wanted)| *wanted) {
            let routes = container.routes(all_routes(v6)).await?;
            let others = routes.iter().filter(|route| own.is_none() || output(route) != own);
            beside.extend(others.filter_map(in_plan_terms));
        }
        Ok(beside)
    }

    /// Reports both ends of an attachment, with all that is `expected` of them, for
    /// `weir_common::network::compare`. The container must be open.
    ///
    /// # Errors
    /// The kernel refuses; what is missing is not an error but not in the report.
    pub async fn inspect(&self, expected: &Expected) -> Result<Found, Error> {
        let container = &self.container()?.netlink;
        let identity = &expected.identity;
        let keys = expected.host_parameters.iter().map(|sysctl| &sysctl.key);
        let value = |key: &String| Some((key.clone(), sysctl::read(key).ok()?));
        Ok(Found {
            host: report(&self.host, &identity.host_interface()).await?,
            container: report(container, identity.interface()).await?,
            host_parameters: keys.filter_map(value).collect(),
        })
    }
}

/// The link and the address of a route to one address.
fn routed_address(message: &RouteMessage) -> Option<(u32, IpAddr)> {
    let destination = in_plan_terms(message)?.destination;
    let link = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    })?;
    (destination.prefix_len() == destination.max_prefix_len()).then(|| (link, destination.addr()))
}

async fn report(netlink: &Netlink, name: &str) -> Result<Option<FoundLink>, Error> {
    let Some(link) = netlink.link_by_name(name).await? else {
        return Ok(None);
    };
    let (source_check, allowed_sources) = (link.source_check(), link.allowed_sources());
    let Link { index, name, kind, alias, mac, mtu, up, peer_index, .. } = link;
    let addresses = netlink.addresses(index).await?;
    let mut routes = Vec::new();
    for v6 in [false, true] {
        routes.extend(netlink.routes(routes_by(v6, index)).await?.iter().filter_map(in_plan_terms));
    }
    let neighbours = netlink.permanent_neighbours(index).await?;
    Ok(Some(FoundLink {
        name,
        index,
        peer_index,
        kind,
        alias,
        mac,
        mtu,
        up,
        source_check,
        allowed_sources,
        addresses,
        routes,
        neighbours,
    }))
}
