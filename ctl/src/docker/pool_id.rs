//! The name that a range of addresses has between RequestPool and the calls after it.
//!
//! dockerd keeps it and gives it back, so that nothing need be remembered here. It names pools by
//! their CIDRs: a pool that is made again under another name is still the network's, and what
//! comes out of it is of one family. Whatever is read is text that anybody can have written.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use weir_common::ipam::assign::Want;
use weir_common::ipam::docker::WantedAddress;
use weir_common::ipam::{Family, PoolReference};
use weir_common::resources::parse_cidr;

use super::front::Front;

/// The names for all pools of a family: Weir's, then those of Calico's driver
/// (libnetwork-plugin's `driver/ipam_driver.go`).
const ANY: [(Family, [&str; 2]); 2] = [
    (Family::V4, ["weir-any-v4", "CalicoPoolIPv4"]),
    (Family::V6, ["weir-any-v6", "CalicoPoolIPv6"]),
];

const RANGE: &str = "range=";
const GATEWAY: &str = "gateway=";

/// Which pools a network's addresses come from, and what narrows them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolId {
    pools: Pools,
    /// The part of the pool from which addresses are given that nobody asks for (`--ip-range`).
    range: Option<IpNet>,
    /// The gateway with the prefix length of its subnet, for networks of other drivers.
    gateway: Option<IpNet>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Pools {
    /// Those that serve the node, as for a CNI network that names none.
    Any { family: Family, is_calicos: bool },
    /// These, by their CIDRs, which are of one family; at least one.
    These(Vec<IpNet>),
}

/// A text that is not such a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "PoolID {0:?} is not one that Weir gave; remove the network (docker network rm) and make it \
     again"
)]
pub struct InvalidPoolId(String);

impl PoolId {
    /// That of all pools of a family that serve the node.
    pub fn any(family: Family, front: Front) -> Self {
        let pools = Pools::Any { family, is_calicos: front.is_calicos() };
        Self { pools, range: None, gateway: None }
    }

    /// That of these pools. `range` and `gateway` need a single pool that they lie in.
    ///
    /// `None` where the pools are none or of two families, or those do not fit.
    pub fn of(pools: Vec<IpNet>, range: Option<IpNet>, gateway: Option<IpNet>) -> Option<Self> {
        let first = pools.first()?;
        let is_of_family = |pool: &IpNet| Family::of(pool.addr()) == Family::of(first.addr());
        let narrowed = [range, gateway].into_iter().flatten();
        let fits = |inner: IpNet| pools.len() == 1 && first.contains(&inner);
        let fits = pools.iter().all(is_of_family) && narrowed.into_iter().all(fits);
        fits.then_some(Self { pools: Pools::These(pools), range, gateway })
    }

    /// The family of its addresses.
    pub fn family(&self) -> Family {
        match &self.pools {
            Pools::Any { family, .. } => *family,
            Pools::These(pools) => Family::of(pools[0].addr()),
        }
    }

    /// The CIDR that dockerd is told: that of the pool if there is one, else all addresses.
    pub fn cidr(&self) -> IpNet {
        match &self.pools {
            Pools::These(pools) if pools.len() == 1 => pools[0],
            _ => everything(self.family()),
        }
    }

    /// The gateway that dockerd is told: one that is none (`0.0.0.0/0`), so that it does not
    /// ask for one, unless the network's maker chose it.
    pub fn gateway(&self) -> IpNet {
        self.gateway.unwrap_or(everything(self.family()))
    }

    /// The network's gateways, which no container gets.
    pub fn gateways(&self) -> Vec<IpNet> {
        self.gateway.into_iter().collect()
    }

    /// Whether another driver wires the network's containers: Weir's has no gateways.
    pub fn is_wired_by_another(&self) -> bool {
        self.gateway.is_some()
    }

    /// The part of the pool from which addresses are given that nobody asks for.
    pub fn within(&self) -> Option<IpNet> {
        self.range
    }

    /// Whether an address is one of the network's.
    pub fn contains(&self, address: IpAddr) -> bool {
        let pools = self.pools();
        Family::of(address) == self.family()
            && (pools.is_empty() || pools.iter().any(|pool| pool.contains(&address)))
    }

    /// The address of a container as it is told: by itself, since each is reached by a route of
    /// its own; in the subnet of the gateway where there is one.
    pub fn told(&self, address: IpAddr) -> IpNet {
        let subnet = self.gateway.filter(|gateway| gateway.contains(&address));
        subnet.map_or(address.into(), |gateway| IpNet::new_assert(address, gateway.prefix_len()))
    }

    /// What IPAM is asked for: this address, or any.
    pub fn want(&self, address: Option<IpAddr>) -> Want {
        let pools = self.pools().iter().map(|pool| PoolReference::Cidr(*pool)).collect();
        let any = Want::Any { family: self.family(), pools };
        address.map_or(any, Want::Exactly)
    }

    /// By what an address that waits already is known as the one that is asked for.
    pub fn wanted(&self, address: Option<IpAddr>) -> WantedAddress<'_> {
        let ranges = self.range.as_ref().map_or(self.pools(), std::slice::from_ref);
        let any = WantedAddress::Any { family: self.family(), ranges };
        address.map_or(any, WantedAddress::Exactly)
    }

    /// The pools that are named.
    fn pools(&self) -> &[IpNet] {
        match &self.pools {
            Pools::Any { .. } => &[],
            Pools::These(pools) => pools,
        }
    }
}

/// All addresses of a family.
fn everything(family: Family) -> IpNet {
    match family {
        Family::V4 => IpNet::V4(Default::default()),
        Family::V6 => IpNet::V6(Default::default()),
    }
}

impl fmt::Display for PoolId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.pools {
            Pools::Any { family, is_calicos } => {
                let names = ANY.iter().find(|(of, _)| of == family).map(|(_, names)| names);
                formatter.write_str(names.map_or("", |names| names[usize::from(*is_calicos)]))?;
            }
            Pools::These(pools) => {
                let pools: Vec<String> = pools.iter().map(IpNet::to_string).collect();
                formatter.write_str(&pools.join(","))?;
            }
        }
        for (key, value) in [(RANGE, self.range), (GATEWAY, self.gateway)] {
            if let Some(value) = value {
                write!(formatter, ";{key}{value}")?;
            }
        }
        Ok(())
    }
}

impl FromStr for PoolId {
    type Err = InvalidPoolId;

    /// Reads exactly what its `Display` writes, and nothing else.
    fn from_str(text: &str) -> Result<Self, InvalidPoolId> {
        let read = read(text).filter(|read| read.to_string() == text);
        read.ok_or_else(|| InvalidPoolId(text.chars().take(200).collect()))
    }
}

fn read(text: &str) -> Option<PoolId> {
    let named = |(family, names): &(Family, [&str; 2])| {
        let position = names.iter().position(|name| *name == text)?;
        Some(Pools::Any { family: *family, is_calicos: position == 1 })
    };
    if let Some(pools) = ANY.iter().find_map(named) {
        return Some(PoolId { pools, range: None, gateway: None });
    }
    let mut parts = text.split(';');
    let pools = parts.next()?.split(',').map(|pool| parse_cidr(pool).ok());
    let pools = pools.map(|pool| pool.filter(|pool| *pool == pool.trunc()));
    let pools: Vec<IpNet> = pools.collect::<Option<_>>()?;
    let (mut range, mut gateway) = (None, None);
    for part in parts {
        match part.strip_prefix(RANGE) {
            Some(text) => range = Some(parse_cidr(text).ok().filter(|it| *it == it.trunc())?),
            None => gateway = Some(parse_cidr(part.strip_prefix(GATEWAY)?).ok()?),
        }
    }
    PoolId::of(pools, range, gateway)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cidr(v6: bool) -> impl Strategy<Value = IpNet> {
        let v4 = (any::<u32>(), 0u8..=32)
            .prop_map(|(bits, length)| IpNet::new_assert(IpAddr::V4(bits.into()), length).trunc());
        let six = (any::<u128>(), 0u8..=128)
            .prop_map(|(bits, length)| IpNet::new_assert(IpAddr::V6(bits.into()), length).trunc());
        if v6 { six.boxed() } else { v4.boxed() }
    }

    fn pool_id() -> impl Strategy<Value = PoolId> {
        let all = (any::<bool>(), any::<bool>()).prop_map(|(v6, calicos)| {
            let family = if v6 { Family::V6 } else { Family::V4 };
            PoolId::any(family, if calicos { Front::CalicoIpam } else { Front::Weir })
        });
        let several = any::<bool>()
            .prop_flat_map(|v6| prop::collection::vec(cidr(v6), 1..4))
            .prop_filter_map("pools", |pools| PoolId::of(pools, None, None));
        let narrowed = (any::<bool>().prop_flat_map(cidr), any::<[bool; 2]>(), 0u8..=8);
        let narrowed = narrowed.prop_filter_map("narrowed", |(pool, has, longer)| {
            let length = pool.prefix_len().saturating_add(longer).min(pool.max_prefix_len());
            let range = IpNet::new_assert(pool.broadcast(), length).trunc();
            let gateway = IpNet::new_assert(pool.broadcast(), pool.prefix_len());
            PoolId::of(vec![pool], has[0].then_some(range), has[1].then_some(gateway))
        });
        prop_oneof![all, several, narrowed].prop_filter("IPv4 in IPv6 is no CIDR", |id| {
            id.pools().iter().all(|pool| parse_cidr(&pool.to_string()).is_ok())
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(id in pool_id()) {
            prop_assert_eq!(id.to_string().parse(), Ok(id));
        }

        /// Whatever is read means what it says, and has all that the calls rely on.
        #[test]
        fn hostile_text_is_refused_or_harmless(
            text in "([0-9a-f.:/,;=]|range=|gateway=|weir-any-v[46]|10\\.0\\.0\\.0/8){0,12}",
        ) {
            if let Ok(id) = text.parse::<PoolId>() {
                prop_assert_eq!(id.to_string(), text);
                for inner in id.within().into_iter().chain(id.gateways()) {
                    prop_assert!(id.cidr().contains(&inner), "{inner}");
                }
                prop_assert!(id.pools().iter().all(|it| Family::of(it.addr()) == id.family()));
            }
        }

        #[test]
        fn a_name_that_is_changed_is_another_or_refused(
            id in pool_id(),
            at in any::<prop::sample::Index>(),
            to in "[ -~]",
        ) {
            let mut text = id.to_string();
            let at = at.index(text.len());
            text.replace_range(at..=at, &to);
            if text != id.to_string() {
                prop_assert_ne!(text.parse(), Ok(id));
            }
        }
    }

    #[test]
    fn what_is_no_name_is_refused_with_what_to_do() {
        for text in [
            "",
            "any",
            "blue",
            "weir-any-v4;range=10.0.0.0/24",
            "weir-any-v4 ",
            "10.0.0.0",
            "10.0.0.1/8",
            "010.0.0.0/8",
            "10.0.0.0/8,fd00::/64",
            "10.0.0.0/8,",
            "10.0.0.0/8;",
            "10.0.0.0/8;range=11.0.0.0/16",
            "10.0.0.0/8;range=10.0.0.1/16",
            "10.0.0.0/16;range=10.0.0.0/8",
            "10.0.0.0/8;range=10.0.0.0/16;range=10.0.0.0/16",
            "10.0.0.0/8;gateway=10.0.0.1/8;range=10.0.0.0/16",
            "10.0.0.0/8;gateway=10.0.0.1",
            "10.0.0.0/8,11.0.0.0/8;range=10.0.0.0/16",
            "10.0.0.0/8;mtu=9000",
            "::ffff:10.0.0.0/104",
        ] {
            let refused = text.parse::<PoolId>().unwrap_err().to_string();
            assert!(refused.contains("docker network rm"), "{text}: {refused}");
        }
        let long = "x".repeat(1 << 20).parse::<PoolId>().unwrap_err().to_string();
        assert!(long.len() < 400, "{}", long.len());
    }

    #[test]
    fn a_gateway_brings_the_length_of_its_subnet_and_else_an_address_stands_alone() {
        let told = |id: &str, address: &str| {
            let id: PoolId = id.parse().unwrap();
            id.told(address.parse().unwrap()).to_string()
        };
        assert_eq!(told("10.7.0.0/24;gateway=10.7.0.1/24", "10.7.0.9"), "10.7.0.9/24");
        assert_eq!(told("10.7.0.0/24", "10.7.0.9"), "10.7.0.9/32");
        assert_eq!(told("weir-any-v6", "fd00::9"), "fd00::9/128");
        assert_eq!(told("CalicoPoolIPv4", "10.7.0.9"), "10.7.0.9/32");
    }
}
