//! The kinds of resources that people manage, their names and their keys.

use crate::datastore::keys;

/// A kind of resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// [`IpPool`](super::IpPool)
    IpPool,
    /// [`IpReservation`](super::IpReservation)
    IpReservation,
    /// [`Node`](super::Node)
    Node,
    /// [`IpamConfig`](super::IpamConfig)
    IpamConfig,
    /// [`BgpConfiguration`](super::bgp::BgpConfiguration)
    BgpConfiguration,
    /// [`BgpPeer`](super::bgp::BgpPeer)
    BgpPeer,
    /// [`BgpFilter`](super::bgp::BgpFilter)
    BgpFilter,
    /// [`CalicoNodeStatus`](super::bgp::CalicoNodeStatus)
    CalicoNodeStatus,
    /// [`FelixConfiguration`](super::FelixConfiguration)
    FelixConfiguration,
}

/// The only name that the one IPAM configuration has.
pub const IPAM_CONFIG_NAME: &str = "default";

impl Kind {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::IpPool,
        Self::IpReservation,
        Self::Node,
        Self::IpamConfig,
        Self::BgpConfiguration,
        Self::BgpPeer,
        Self::BgpFilter,
        Self::CalicoNodeStatus,
        Self::FelixConfiguration,
    ];

    /// The name in documents and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::IpPool => "IPPool",
            Self::IpReservation => "IPReservation",
            Self::Node => "Node",
            Self::IpamConfig => "IPAMConfiguration",
            Self::BgpConfiguration => "BGPConfiguration",
            Self::BgpPeer => "BGPPeer",
            Self::BgpFilter => "BGPFilter",
            Self::CalicoNodeStatus => "CalicoNodeStatus",
            Self::FelixConfiguration => "FelixConfiguration",
        }
    }

    /// What the command line calls it, in lower case; the first one is the
    /// usual one (`calicoctl/calicoctl/resourcemgr`).
    pub fn aliases(self) -> &'static [&'static str] {
        match self {
            Self::IpPool => &["ippool", "ippools", "ipp", "ipps", "pool", "pools"],
            Self::IpReservation => {
                &["ipreservation", "ipreservations", "reservation", "reservations"]
            }
            Self::Node => &["node", "nodes", "no", "nos"],
            Self::IpamConfig => {
                &["ipamconfig", "ipamconfigs", "ipamconfiguration", "ipamconfigurations"]
            }
            Self::BgpConfiguration => {
                &["bgpconfig", "bgpconfigs", "bgpconfiguration", "bgpconfigurations"]
            }
            Self::BgpPeer => &["bgppeer", "bgppeers", "bgpp", "bgpps", "bp", "bps"],
            Self::BgpFilter => &["bgpfilter", "bgpfilters", "bgpf", "bgpfs", "bf", "bfs"],
            Self::CalicoNodeStatus => {
                &["caliconodestatus", "caliconodestatuses", "nodestatus", "nodestatuses"]
            }
            Self::FelixConfiguration => {
                &["felixconfig", "felixconfigs", "felixconfiguration", "felixconfigurations"]
            }
        }
    }

    /// What the command line usually calls it.
    pub fn alias(self) -> &'static str {
        self.aliases()[0]
    }

    /// The kind that the command line means, in any case.
    pub fn from_alias(alias: &str) -> Option<Self> {
        let alias = alias.to_ascii_lowercase();
        Self::ALL.into_iter().find(|kind| kind.aliases().contains(&alias.as_str()))
    }

    /// The kind of that name in a document: exact, as Calico has it, or
    /// `IPAMConfig` for short.
    pub fn from_name(name: &str) -> Option<Self> {
        let exact = Self::ALL.into_iter().find(|kind| kind.name() == name);
        exact.or((name == "IPAMConfig").then_some(Self::IpamConfig))
    }

    /// The key under which a resource of this kind and name is stored; the one
    /// IPAM configuration has the same whatever the name.
    pub fn key(self, name: &str) -> String {
        match self {
            Self::IpamConfig => keys::IPAM_CONFIG.to_owned(),
            _ => format!("{}{name}", self.prefix()),
        }
    }

    /// What the keys of all resources of this kind begin with.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::IpPool => keys::POOLS,
            Self::IpReservation => keys::RESERVATIONS,
            Self::Node => keys::NODES,
            Self::IpamConfig => keys::IPAM_CONFIG,
            Self::BgpConfiguration => keys::BGP_CONFIGURATIONS,
            Self::BgpPeer => keys::BGP_PEERS,
            Self::BgpFilter => keys::BGP_FILTERS,
            Self::CalicoNodeStatus => keys::NODE_STATUSES,
            Self::FelixConfiguration => keys::FELIX_CONFIGURATIONS,
        }
    }

    /// The name of the resource under this key of this kind.
    pub fn name_of(self, key: &str) -> Option<&str> {
        match self {
            Self::IpamConfig => (key == keys::IPAM_CONFIG).then_some(IPAM_CONFIG_NAME),
            _ => key.strip_prefix(self.prefix()),
        }
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aliases_lead_to_one_kind_in_any_case() {
        for kind in Kind::ALL {
            for alias in kind.aliases() {
                assert_eq!(Kind::from_alias(&alias.to_uppercase()), Some(kind));
            }
            assert_eq!(Kind::from_name(kind.name()), Some(kind));
            assert_eq!(kind.name_of(&kind.key("default")), Some("default"));
        }
        assert_eq!(Kind::from_alias("ippoool"), None);
        assert_eq!(Kind::from_name("IPPol"), None);
    }
}
