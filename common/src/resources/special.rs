//! Ranges that are not for containers, whatever a pool says.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::cidr::overlap;

const fn v4(a: u8, b: u8, c: u8, d: u8, length: u8) -> IpNet {
    IpNet::new_assert(IpAddr::V4(Ipv4Addr::new(a, b, c, d)), length)
}

const fn v6(first: u16, sixth: u16, last: u16, length: u8) -> IpNet {
    let address = Ipv6Addr::new(first, 0, 0, 0, 0, sixth, 0, last);
    IpNet::new_assert(IpAddr::V6(address), length)
}

/// The ranges that no network hands out, each with what it is for (RFC 6890 and the RFCs that
/// it names). The narrower ones come first.
const SPECIAL: [(IpNet, &str); 10] = [
    (v4(255, 255, 255, 255, 32), "limited broadcast"),
    (v4(0, 0, 0, 0, 8), "this network"),
    (v4(127, 0, 0, 0, 8), "loopback"),
    (v4(169, 254, 0, 0, 16), "link local"),
    (v4(224, 0, 0, 0, 4), "multicast"),
    (v6(0, 0, 0, 128), "the unspecified address"),
    (v6(0, 0, 1, 128), "loopback"),
    (v6(0, 0xffff, 0, 96), "IPv4 addresses as IPv6"),
    (v6(0xfe80, 0, 0, 10), "link local"),
    (v6(0xff00, 0, 0, 8), "multicast"),
];

/// Ranges that work in a cluster, and surprise people or programs, each with what it is for.
const UNUSUAL: [(IpNet, &str); 5] = [
    (v4(240, 0, 0, 0, 4), "reserved for the future (RFC 1112); many systems refuse it"),
    (v4(192, 0, 2, 0, 24), "for documentation (RFC 5737)"),
    (v4(198, 51, 100, 0, 24), "for documentation (RFC 5737)"),
    (v4(203, 0, 113, 0, 24), "for documentation (RFC 5737)"),
    (
        IpNet::new_assert(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0)), 32),
        "for documentation (RFC 3849)",
    ),
];

/// The ranges in `cidr`, or around it, that are no container's, each with what it is for.
pub fn special_ranges(cidr: IpNet) -> impl Iterator<Item = (IpNet, &'static str)> {
    SPECIAL.into_iter().filter(move |(range, _)| overlap(cidr, *range))
}

/// The same for ranges that may be used, and hardly are meant.
pub fn unusual_ranges(cidr: IpNet) -> impl Iterator<Item = (IpNet, &'static str)> {
    UNUSUAL.into_iter().filter(move |(range, _)| overlap(cidr, *range))
}

/// Whether a range is of addresses that are good on one link only.
pub fn is_link_local(range: IpNet) -> bool {
    match range {
        IpNet::V4(range) => range.addr().is_link_local(),
        IpNet::V6(range) => range.addr().is_unicast_link_local(),
    }
}
