//! The host's end of an attachment: what of it was lost, and the steps that bring it back.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::health::AttachmentState;
use super::plan::{
    Families, GATEWAY_V6, HOST_MAC, gateway_address, host_parameters, reverse_path_filter,
};
use super::step::{Side, Step};
use crate::link::MacAddress;
use crate::network::route::Route;

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
        wanted.push(reverse_path_filter(link, "1"));
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
            let address = gateway_address();
            steps.push(Step::AddAddress { side: Side::Host, link: link.clone(), address });
        }
        let missing = addresses.iter().filter(|it| !self.state.addresses.contains(it));
        steps.extend(missing.map(|&address| Step::AddRoute {
            side: Side::Host,
            link: link.clone(),
            route: Route::on_link(address.into()),
        }));
        steps
    }

    /// The IP versions that it should be ready for.
    fn families(&self, addresses: &[IpAddr]) -> Families {
        let ready = self.state.ready_for;
        Families {
            ipv4: ready.ipv4 || addresses.iter().any(IpAddr::is_ipv4),
            ipv6: ready.ipv6 || addresses.iter().any(IpAddr::is_ipv6),
        }
    }

    /// Whether an address of a link is the one of [`HostEnd::has_gateway_v6`].
    pub fn is_gateway_v6(address: IpAddr) -> bool {
        address == IpAddr::V6(GATEWAY_V6)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::super::AttachmentIdentity;
    use super::*;

    const ADDRESSES: [&str; 3] = ["10.0.0.1", "10.0.0.2", "fd00::1"];

    fn addresses() -> Vec<IpAddr> {
        ADDRESSES.iter().map(|address| address.parse().unwrap()).collect()
    }

    fn whole() -> HostEnd {
        let identity = AttachmentIdentity::new("pods", "c1", "eth0").unwrap();
        let link = identity.host_interface();
        let both = Families { ipv4: true, ipv6: true };
        let mut wanted = host_parameters(both, &link);
        wanted.push(reverse_path_filter(&link, "1"));
        HostEnd {
            index: 7,
            state: AttachmentState {
                identity,
                up: true,
                carrier: true,
                is_checked: true,
                allowed_sources: BTreeSet::new(),
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
            Step::AddAddress { .. } => end.has_gateway_v6 = true,
            Step::AddRoute { route, .. } => end.state.addresses.push(route.destination.addr()),
            other => panic!("{other}"),
        }
    }

    proptest! {
        /// Whatever was lost, the steps bring all of it back, each step is needed, and then
        /// there is nothing more to do.
        #[test]
        fn a_repair_makes_it_whole(
            up: bool, mac: bool, gateway: bool, routes in 0u8..8, parameters in 0u16..1024,
        ) {
            let mut end = whole();
            end.state.up = up;
            end.mac = mac.then_some(HOST_MAC);
            end.has_gateway_v6 = gateway;
            let mut place = 0;
            end.state.addresses.retain(|_| { place += 1; routes & 1 << (place - 1) == 0 });
            for (place, value) in end.parameters.values_mut().enumerate() {
                if parameters & 1 << place != 0 {
                    "7".clone_into(value);
                }
            }
            let steps = end.repair(&addresses());
            let lost = usize::from(!up) + usize::from(!mac) + usize::from(!gateway)
                + (3 - end.state.addresses.len())
                + end.parameters.values().filter(|value| *value == "7").count();
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
        assert!(broken(&|end| end.state.addresses.retain(IpAddr::is_ipv6)));
        assert!(!broken(&|end| _ = end.state.addresses.remove(0)), "it has another of IPv4");
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
