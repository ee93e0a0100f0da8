//! The MTU of a container's interface: where it comes from, and whether it will do.

use std::fmt;

use crate::link::{DEFAULT_MTU, MAXIMUM_MTU, MINIMUM_MTU_V4, MINIMUM_MTU_V6};
use crate::tunnel::TunnelKind;

/// An MTU for a container's interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mtu {
    /// How many bytes.
    pub bytes: u32,
    /// Where it comes from.
    pub source: MtuSource,
}

/// Where an MTU comes from, as errors name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MtuSource {
    /// The key `mtu` of the configuration.
    Configured,
    /// The node's uplink.
    Uplink,
    /// The node's uplink and the cluster's pools, as who sees to the cluster says.
    Cluster,
}

impl fmt::Display for MtuSource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Configured => formatter.write_str("the configuration's"),
            Self::Uplink => formatter.write_str("that of the node's uplink"),
            Self::Cluster => {
                let adds = |kind: TunnelKind| format!("{kind} {}", kind.row().overhead);
                write!(
                    formatter,
                    "that of the node's uplink, less what the tunnels of pools add: {} (ipipMode, \
                     vxlanMode)",
                    TunnelKind::ALL.map(adds).join(", ")
                )
            }
        }
    }
}

impl MtuSource {
    /// How another one is had.
    fn remedy(self) -> &'static str {
        match self {
            Self::Configured => "correct the key mtu",
            Self::Uplink | Self::Cluster => "raise the MTU of the node's uplink",
        }
    }
}

/// An MTU that a container's interface cannot have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "mtu {} ({}) cannot be used: it must lie between {minimum} and {MAXIMUM_MTU}{}; {}{}",
    .mtu.bytes,
    .mtu.source,
    if *.minimum == MINIMUM_MTU_V6 { " for IPv6" } else { "" },
    .mtu.source.remedy(),
    if *.minimum == MINIMUM_MTU_V6 { ", or leave IPv6 out (ipam.assign_ipv6)" } else { "" }
)]
pub struct InvalidMtu {
    /// The MTU.
    pub mtu: Mtu,
    /// The smallest for the IP versions asked for, in bytes.
    pub minimum: u32,
}

impl Mtu {
    /// One that the configuration has, of so many bytes.
    pub fn configured(bytes: u32) -> Self {
        Self { bytes, source: MtuSource::Configured }
    }

    /// Checks that an interface can have it, with IPv6 or without.
    ///
    /// # Errors
    /// It is larger than a veth takes, or smaller than the IP versions do: the kernel
    /// takes IPv6 off an interface with less than [`MINIMUM_MTU_V6`].
    pub fn check(self, with_ipv6: bool) -> Result<(), InvalidMtu> {
        let minimum = if with_ipv6 { MINIMUM_MTU_V6 } else { MINIMUM_MTU_V4 };
        if (minimum..=MAXIMUM_MTU).contains(&self.bytes) {
            Ok(())
        } else {
            Err(InvalidMtu { mtu: self, minimum })
        }
    }
}

/// What decides whether a link of the node gives its MTU to containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MtuCandidate {
    /// The link's name.
    pub name: String,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Whether it is administratively up.
    pub up: bool,
    /// Whether it is a loopback link.
    pub loopback: bool,
    /// Its kind as `ip -details link` shows it (`veth`, `bridge`); `None` for
    /// links of hardware.
    pub kind: Option<String>,
}

impl MtuCandidate {
    /// Whether packets may leave the node by it: up, and either of hardware or
    /// named as hardware is (inside virtual machines and nested containers the
    /// uplink may be of any kind). The names are those that Calico's Felix
    /// takes MTUs from (`int_dataplane.go`, the MTU interface pattern).
    fn is_uplink(&self) -> bool {
        self.up && !self.loopback && (self.kind.is_none() || has_uplink_name(&self.name))
    }
}

fn has_uplink_name(name: &str) -> bool {
    if ["eth", "wlan", "wwan"].iter().any(|prefix| name.starts_with(prefix)) {
        return true;
    }
    let mut rest = name.chars().skip(2);
    ["en", "wl", "ww", "sl", "ib"].iter().any(|prefix| name.starts_with(prefix))
        && rest.next().is_some_and(|c| "Pcopsvx".contains(c))
}

/// The MTU for a container: that of the link which `default_route` leaves by;
/// without one, the smallest among the node's uplinks; without any,
/// [`DEFAULT_MTU`].
pub fn choose_mtu(default_route: Option<u32>, links: &[MtuCandidate]) -> u32 {
    let smallest = || links.iter().filter(|link| link.is_uplink()).map(|link| link.mtu).min();
    default_route.or_else(smallest).unwrap_or(DEFAULT_MTU)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(name: &str, mtu: u32, kind: Option<&str>) -> MtuCandidate {
        MtuCandidate {
            name: name.to_owned(),
            mtu,
            up: true,
            loopback: false,
            kind: kind.map(str::to_owned),
        }
    }

    #[test]
    fn an_mtu_that_will_not_do_says_where_it_is_from() {
        for (source, words) in [
            (MtuSource::Configured, ["configuration", "key mtu"]),
            (MtuSource::Uplink, ["uplink", "raise the MTU"]),
            (MtuSource::Cluster, ["vxlanMode", "raise the MTU"]),
        ] {
            let of = |bytes| Mtu { bytes, source };
            assert_eq!((of(1280).check(true), of(68).check(false)), (Ok(()), Ok(())));
            let six = of(1279).check(true).unwrap_err().to_string();
            let named = ["1279", "1280", "assign_ipv6"].into_iter().chain(words);
            assert!(named.into_iter().all(|word| six.contains(word)), "{six}");
            let four = of(67).check(false).unwrap_err().to_string();
            assert!(four.contains("between 68 and 65535;"), "{four}");
            assert!(of(65536).check(false).is_err());
        }
    }

    #[test]
    fn the_default_route_decides() {
        assert_eq!(choose_mtu(Some(9000), &[link("eth0", 1400, None)]), 9000);
    }

    #[test]
    fn otherwise_the_smallest_uplink_decides() {
        let down = MtuCandidate { up: false, ..link("eth9", 576, None) };
        let loopback = MtuCandidate { loopback: true, ..link("lo", 600, None) };
        let links = [
            link("ens3", 1450, None),
            link("eth0", 1400, Some("veth")),
            link("enp1s0", 9000, None),
            link("weir00000000000", 1300, Some("veth")),
            link("docker0", 1250, Some("bridge")),
            down,
            loopback,
        ];
        assert_eq!(choose_mtu(None, &links), 1400);
        assert_eq!(choose_mtu(None, &links[3..4]), DEFAULT_MTU);
    }
}
