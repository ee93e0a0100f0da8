//! The host's end of an attachment: what of it was lost, and the steps that bring it back.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::health::AttachmentState;
use super::host_routes::{routes_to, serves};
use super::plan::{
    Families, HOST_MAC, add_arp_source, add_gateway_v6, arp_announce, host_parameters,
    reverse_path_filter,
};
use super::step::{Side, Step};
use crate::link::MacAddress;
use crate::network::route::{Route, SourceAddresses};

/// The host's end of an attachment, as the kernel has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostEnd {
    /// The number of the link.
    pub index: u32,
    /// Whose it is, and the addresses that the node routes to it.
    pub state: AttachmentState,
    /// Its hardware address.
    pub mac: Option<MacAddress>,
    /// Whether it has the address that IPv6 containers have as their next hop.
    pub has_gateway_v6: bool,
    /// Whether it has the address that its ARP requests come from.
    pub has_arp_source: bool,
    /// Weir's routes by it.
    pub routes: Vec<Route>,
    /// The addresses that the node is registered with, as far as it has them.
    pub sources: SourceAddresses,
    /// Whether the filter of what containers send allows IPv4 sources by this link that do
    /// not route back to it.
    pub sends_more_v4: bool,
    /// The kernel's parameters of the link that Weir sets, as far as there are any.
    pub parameters: BTreeMap<String, String>,
}

impl HostEnd {
    /// The parameters that Weir may set of a link of this name.
    pub fn parameters_of(link: &str) -> Vec<String> {
        let all = Families { ipv4: true, ipv6: true };
        let mut wanted = host_parameters(all, link);
        wanted.extend([arp_announce(link), reverse_path_filter(link, "1")]);
        wanted.into_iter().map(|sysctl| sysctl.key).collect()
    }

    /// Whether nothing is missing, as far as the kernel alone tells: of an attachment with
    /// several addresses of one family, one may have lost its route.
    pub fn looks_whole(&self) -> bool {
        let is_waiting = !self.state.carrier && self.state.up;
        (is_waiting || self.state.unrouted().is_none())
            && self.repair(&self.state.addresses).is_empty()
    }

    /// The steps that bring back what is missing, where the attachment has these `addresses`
    /// in the datastore; none of them where they are not known.
    ///
    /// What the container's end lost is not seen from here. What was added stays.
    pub fn repair(&self, addresses: &[IpAddr]) -> Vec<Step> {
        let link = self.state.identity.host_interface();
        let families = self.families(addresses);
        let mut steps = Vec::new();
        if self.mac != Some(HOST_MAC) {
            steps.push(Step::SetMac { link: link.clone(), mac: HOST_MAC });
        }
        if !self.state.up {
            steps.push(Step::SetLinkUp { side: Side::Host, link: link.clone() });
        }
        let mut wanted = host_parameters(families, &link);
        let has_arp_source = families.ipv4 && self.was_given_arp_source(&link);
        if has_arp_source {
            wanted.push(arp_announce(&link));
        }
        if families.ipv4 && self.state.is_checked {
            let value = if self.sends_more_v4 { "0" } else { "1" };
            wanted.push(reverse_path_filter(&link, value));
        }
        wanted.retain(|sysctl| match self.parameters.get(&sysctl.key) {
            Some(value) => *value != sysctl.value,
            None => !sysctl.optional,
        });
        steps.extend(wanted.into_iter().map(Step::SetSysctl));
        if families.ipv6 && !self.has_gateway_v6 {
            steps.push(add_gateway_v6(&self.state.identity));
        }
        let missing = self.missing_routes(addresses).into_iter();
        steps.extend(missing.map(|route| Step::AddRoute {
            side: Side::Host,
            link: link.clone(),
            route,
        }));
        if has_arp_source && !self.has_arp_source {
            steps.push(add_arp_source(&self.state.identity));
        }
        steps
    }

    /// Whether ADD gave it an address to ask for its container from: earlier versions did not,
    /// and their containers may not answer to it.
    fn was_given_arp_source(&self, link: &str) -> bool {
        let announce = arp_announce(link);
        self.has_arp_source || self.parameters.get(&announce.key) == Some(&announce.value)
    }

    /// Whether an address of it may be known to the datastore alone.
    pub fn may_lack_an_address(&self) -> bool {
        self.state.unrouted().is_some()
    }

    /// The routes that it should have and has not: to the addresses that it has routes to, and
    /// to those of `addresses` that no other program has given it a route to.
    fn missing_routes(&self, addresses: &[IpAddr]) -> Vec<Route> {
        let is_own = |address: &IpAddr| {
            self.routes.iter().any(|route| route.destination == IpNet::from(*address))
        };
        let is_new = |address: &&IpAddr| !self.state.addresses.contains(address);
        let own = self.state.addresses.iter().filter(|address| is_own(address));
        let wanted = own.chain(addresses.iter().filter(is_new));
        let wanted = wanted.flat_map(|&address| routes_to(address, self.sources));
        let is_there = |wanted: &Route| self.routes.iter().any(|found| serves(found, wanted));
        wanted.filter(|route| !is_there(route)).collect()
    }

    /// The IP versions that it should be ready for.
    fn families(&self, addresses: &[IpAddr]) -> Families {
        let ready = self.state.ready_for;
        Families {
            ipv4: ready.ipv4 || addresses.iter().any(IpAddr::is_ipv4),
            ipv6: ready.ipv6 || addresses.iter().any(IpAddr::is_ipv6),
        }
    }

    /// Whether an address of a link may be one that Weir gives host ends.
    pub fn may_be_own_address(address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => address.is_link_local(),
            IpAddr::V6(address) => address.is_unicast_link_local(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::super::AttachmentIdentity;
    use super::*;

    const ADDRESSES: [&str; 3] = ["10.0.0.1", "10.0.0.2", "fd00::1"];
    const SOURCES: SourceAddresses = SourceAddresses {
        ipv4: Some(Ipv4Addr::new(192, 0, 2, 1)),
        ipv6: Some(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
    };

    fn addresses() -> Vec<IpAddr> {
        ADDRESSES.iter().map(|address| address.parse().unwrap()).collect()
    }

    fn whole() -> HostEnd {
        let identity = AttachmentIdentity::new("pods", "c1", "eth0").unwrap();
        let link = identity.host_interface();
        let both = Families { ipv4: true, ipv6: true };
        let mut wanted = host_parameters(both, &link);
        wanted.extend([arp_announce(&link), reverse_path_filter(&link, "1")]);
        let to = |address| routes_to(address, SOURCES);
        HostEnd {
            routes: addresses().into_iter().flat_map(to).collect(),
            sources: SOURCES,
            has_arp_source: true,
            index: 7,
            state: AttachmentState {
                identity,
                mtu: 1500,
                up: true,
                carrier: true,
                is_checked: true,
                allowed_sources: BTreeSet::new(),
                sandbox: None,
                addresses: addresses(),
                ready_for: both,
            },
            mac: Some(HOST_MAC),
            has_gateway_v6: true,
            sends_more_v4: false,
            parameters: wanted.into_iter().map(|it| (it.key, it.value)).collect(),
        }
    }

    /// Carries a step out on the value.
    fn apply(end: &mut HostEnd, step: Step) {
        match step {
            Step::SetMac { mac, .. } => end.mac = Some(mac),
            Step::SetLinkUp { .. } => end.state.up = true,
            Step::SetSysctl(sysctl) => _ = end.parameters.insert(sysctl.key, sysctl.value),
            Step::AddAddress { address, .. } if address.addr().is_ipv4() => {
                end.has_arp_source = true;
            }
            Step::AddAddress { .. } => end.has_gateway_v6 = true,
            Step::AddRoute { route, .. } => {
                // The kernel has one route for each destination and metric.
                let place = |route: &Route| (route.destination, route.priority);
                end.routes.retain(|other| place(other) != place(&route));
                if !end.state.addresses.contains(&route.destination.addr()) {
                    end.state.addresses.push(route.destination.addr());
                }
                end.routes.push(route);
            }
            other => panic!("{other}"),
        }
    }

    proptest! {
        /// Whatever was lost, the steps bring all of it back, each step is needed, and then
        /// there is nothing more to do.
        #[test]
        fn a_repair_makes_it_whole(
            up: bool, mac: bool, gateway: bool, arp: bool, routes in 0u8..32,
            parameters in 0u16..2048, other_source: bool,
        ) {
            let mut end = whole();
            end.state.up = up;
            end.mac = mac.then_some(HOST_MAC);
            end.has_gateway_v6 = gateway;
            end.has_arp_source = arp;
            let mut place = 0;
            end.routes.retain(|_| { place += 1; routes & 1 << (place - 1) == 0 });
            let (left, routes) = (end.routes.len(), end.routes.clone());
            let is_routed = |it: &IpAddr| routes.iter().any(|to| to.destination.addr() == *it);
            end.state.addresses.retain(is_routed);
            let stale = end.routes.iter_mut().filter(|it| it.source.is_some() && other_source);
            let stale = stale.map(|route| route.source = Some("192.0.2.9".parse().unwrap())).count();
            for (place, value) in end.parameters.values_mut().enumerate() {
                if parameters & 1 << place != 0 {
                    "7".clone_into(value);
                }
            }
            let steps = end.repair(&addresses());
            let announce = arp_announce(&end.state.identity.host_interface()).key;
            let is_of_earlier_version = !arp && end.parameters[&announce] == "7";
            let lost = usize::from(!up) + usize::from(!mac) + usize::from(!gateway)
                + usize::from(!arp) + (5 - left) + stale
                + end.parameters.values().filter(|value| *value == "7").count()
                - if is_of_earlier_version { 2 } else { 0 };
            prop_assert_eq!(steps.len(), lost);
            steps.into_iter().for_each(|step| apply(&mut end, step));
            prop_assert_eq!(end.repair(&addresses()), vec![]);
            prop_assert!(end.looks_whole());
        }
    }

    #[test]
    fn what_the_kernel_alone_shows_as_lost() {
        let broken = |change: &dyn Fn(&mut HostEnd)| {
            let mut end = whole();
            change(&mut end);
            !end.looks_whole()
        };
        assert!(!broken(&|_| {}));
        assert!(broken(&|end| end.state.up = false));
        assert!(broken(&|end| {
            end.state.addresses.retain(IpAddr::is_ipv6);
            end.routes.retain(|route| route.destination.addr().is_ipv6());
        }));
        let lose_one = |end: &mut HostEnd| {
            let lost = IpNet::from(end.state.addresses.remove(0));
            end.routes.retain(|route| route.destination != lost);
        };
        assert!(!broken(&lose_one), "it has another of IPv4");
        // The kernel takes a route away with the address that is its source.
        assert!(broken(&|end| end.routes.retain(|route| route.source.is_none())));
        assert!(broken(&|end| end.routes.retain(|route| route.priority.is_none())));
        assert!(!broken(&|end| end.sources = SourceAddresses::default()), "the node is not told");
        assert!(broken(&|end| end.has_arp_source = false));
        assert!(broken(&|end| end.routes.iter_mut().for_each(|it| it.source = None)));
        // As earlier versions made it: its container may not answer to an address of the link.
        assert!(!broken(&|end| {
            end.has_arp_source = false;
            end.parameters.retain(|key, _| !key.ends_with("arp_announce"));
        }));
        assert!(broken(&|end| end.parameters.retain(|key, _| !key.contains("forwarding"))));
        // An ADD that waits for its addresses, or a container that is switched off.
        assert!(!broken(&|end| {
            end.state.carrier = false;
            end.state.addresses.clear();
            end.state.ready_for = Families::default();
        }));
        assert!(broken(&|end| end.sends_more_v4 = true), "its reverse path filter must go");
    }
}
