//! What dockerd knows of its own.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use super::digits;
use crate::link::MacAddress;

/// How many digits a hardware address has in a handle; an endpoint's id has more.
const MAC_DIGITS: usize = 12;

/// What a dockerd knows of the addresses that Weir assigned for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DockerKnowledge {
    /// The networks that Weir drives, by their ids.
    pub networks: BTreeSet<String>,
    /// The endpoints of the networks that Weir drives, by their ids.
    pub endpoints: BTreeSet<String>,
    /// The hardware addresses of endpoints that another driver wires (`bridge`, `macvlan`): it
    /// names no endpoint to Weir, and their addresses stay under the handles of
    /// [`super::wired_by_another`].
    pub macs: BTreeSet<MacAddress>,
    /// Whether there are also endpoints whose hardware address it does not tell (`ipvlan`): then
    /// any of the addresses that wait may be one's.
    pub has_unnamed: bool,
    /// The subnets of the networks with addresses of Weir's. dockerd does not tell the gateway
    /// that it asked for by itself. Of a network without a subnet of its own, the addresses that
    /// it was made with.
    pub subnets: BTreeSet<IpNet>,
}

impl DockerKnowledge {
    /// Whether it knows what a handle of Docker's names ([`super::named_by`]): then its address is in
    /// use.
    pub fn knows(&self, named: &str) -> bool {
        if let Ok(address) = named.parse::<IpAddr>() {
            return self.subnets.iter().any(|subnet| subnet.contains(&address));
        }
        let first = named.split_once('-').map_or(named, |(digits, _)| digits);
        self.endpoints.contains(named)
            || self.has_unnamed && first.len() == MAC_DIGITS
            || self.macs.iter().any(|mac| digits(*mac) == first)
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::super::{endpoint, named_by, of_network, waiting, wired_by_another};
    use super::*;
    use crate::ipam::Assignee;

    #[test]
    fn a_dockerd_knows_endpoints_and_what_has_none() {
        let mac: MacAddress = "02:42:0a:09:00:02".parse().unwrap();
        let endpoint_id = "61d4".repeat(16);
        let known = DockerKnowledge {
            endpoints: [endpoint_id.clone()].into(),
            macs: [mac].into(),
            networks: BTreeSet::new(),
            has_unnamed: false,
            subnets: ["10.9.0.0/24", "fd00:9::/64"].map(|it| it.parse().unwrap()).into(),
        };
        let knows = |assignee: Assignee| known.knows(named_by(&assignee.handle_id).unwrap());
        assert!(knows(endpoint("n1", &endpoint_id)));
        assert!(!knows(endpoint("n1", &"61d5".repeat(16))));
        assert!(knows(waiting("n1", mac, 1)) && knows(waiting("n1", mac, 3)));
        assert!(knows(wired_by_another("n1", mac, Timestamp::UNIX_EPOCH)));
        assert!(!knows(waiting("n1", "02:42:0a:09:00:03".parse().unwrap(), 1)));
        for (address, is_known) in
            [("10.9.0.1", true), ("fd00:9::1", true), ("10.9.1.1", false), ("fd00::1", false)]
        {
            assert_eq!(knows(of_network("n1", address.parse().unwrap())), is_known, "{address}");
        }
        assert_eq!(named_by("dockerd.c1"), None);
        let unnamed = DockerKnowledge { has_unnamed: true, ..DockerKnowledge::default() };
        let knows = |assignee: Assignee| unnamed.knows(named_by(&assignee.handle_id).unwrap());
        assert!(knows(waiting("n1", mac, 1)) && knows(waiting("n1", mac, 2)));
        assert!(!knows(endpoint("n1", &endpoint_id)), "its id would be told");
        assert!(!knows(of_network("n1", "10.9.0.1".parse().unwrap())));
        assert!(!knows(of_network("n1", "fd00:9::1:2:3".parse().unwrap())));
    }
}
