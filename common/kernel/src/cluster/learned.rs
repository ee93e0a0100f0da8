//! What the node has learned by BGP, as the kernel has it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_route::route::RouteProtocol;

use super::route_message::next_hops;
use crate::Kernel;
use crate::error::Error;

/// What a node tells others by BGP, and what it has from them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BgpRoutes {
    /// What it announces: Weir's routes in `ANNOUNCE_TABLE`.
    pub announced: BTreeSet<IpNet>,
    /// What BIRD has put into the main table, with the next hops.
    pub learned: BTreeMap<IpNet, BTreeSet<IpAddr>>,
}

impl Kernel {
    /// Reads them.
    ///
    /// # Errors
    /// The kernel refuses a list.
    pub async fn bgp_routes(&self) -> Result<BgpRoutes, Error> {
        let links = self.links_and_addresses().await?.links;
        let announced = self.announced(&links).await?.all_of_weir();
        let main = self.main_table(&links).await?;
        let learned = main.of_protocol(RouteProtocol::Bird);
        let learned = learned.map(|(range, route)| (range, next_hops(route)));
        Ok(BgpRoutes { announced, learned: learned.collect() })
    }
}
