//! The MTU of a container's interface where the configuration names none.

/// The MTU where the node tells nothing: Ethernet's.
pub const DEFAULT_MTU: u32 = 1500;

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
