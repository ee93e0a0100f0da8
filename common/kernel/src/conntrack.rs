//! The node's memory of connections (`nf_conntrack`), and forgetting those of addresses that are
//! released: packets of an old connection would reach the next container with that address, or
//! go where a rule that is gone by now once sent them.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

use nix::errno::Errno;

use crate::Kernel;
use crate::error::Error;
use crate::link::is;
use crate::nfnetlink::{FAMILY_HEADER, attribute, change, find, list};
use crate::sysctl;

/// Numbers of `linux/netfilter/nfnetlink_conntrack.h`, and families of `linux/netfilter.h`.
mod abi {
    pub(super) const GET: u16 = 1 << 8 | 1;
    pub(super) const DELETE: u16 = 1 << 8 | 2;
    pub(super) const FAMILY_IPV4: u8 = 2;
    pub(super) const FAMILY_IPV6: u8 = 10;
    pub(super) const NESTED: u16 = 0x8000;
    /// The packets of a connection in the direction of its first one.
    pub(super) const ORIGINAL: u16 = 1;
    /// Those of the other direction, as they arrive at the node.
    pub(super) const REPLY: u16 = 2;
    pub(super) const ID: u16 = 12;
    /// Of a connection that has it both ways.
    pub(super) const ZONE: u16 = 18;
    pub(super) const FILTER: u16 = 25;
    /// In one direction: its addresses.
    pub(super) const ADDRESSES: u16 = 1;
    /// Of a direction that alone has it.
    pub(super) const ZONE_OF_WAY: u16 = 3;
    /// Source and destination.
    pub(super) const IPV4: [u16; 2] = [1, 2];
    pub(super) const IPV6: [u16; 2] = [3, 4];
    /// Of a filter: only the source counts.
    pub(super) const COMPARE_SOURCE: u32 = 1;
}

/// From this number of connections on the kernel looks for them itself, where it can. It then
/// goes through its table twice, which takes longer than a list of fewer.
const MANY: u64 = 5_000;

impl Kernel {
    /// Forgets the connections from, to, or translated to these addresses, whichever way, and
    /// returns how many there were. On a thread of its own: the kernel goes through a table of
    /// hundreds of thousands of places.
    ///
    /// A kernel that tracks no connections, or does not let Weir see them, has none.
    ///
    /// # Errors
    /// The kernel refuses, or takes longer than 2 s to list them.
    pub async fn forget_connections(&self, addresses: BTreeSet<IpAddr>) -> Result<usize, Error> {
        let refused = |cause| Error::refused("conntrack --delete", cause);
        if addresses.is_empty() {
            return Ok(0);
        }
        // The new thread is born in the namespace of this one.
        let forgetting = tokio::task::spawn_blocking(move || forget(&addresses)).await;
        match forgetting.map_err(|error| refused(error.into()))? {
            Err(cause) if [Errno::EPERM, Errno::EINVAL].iter().any(|it| is(&cause, *it)) => Ok(0),
            outcome => outcome.map_err(refused),
        }
    }
}

fn forget(addresses: &BTreeSet<IpAddr>) -> io::Result<usize> {
    // Those of this network namespace.
    let count = sysctl::read("net/netfilter/nf_conntrack_count");
    let count = count.ok().and_then(|count| count.parse::<u64>().ok()).unwrap_or_default();
    if count == 0 {
        return Ok(0);
    }
    let mut found = BTreeSet::new();
    for request in requests(addresses, count) {
        let (family, attributes) = request;
        found.extend(list(abi::GET, family, &attributes, |body| concerns(body, addresses))?);
    }
    change(abi::DELETE, found.iter().map(|body| deletion(body)))?;
    Ok(found.len())
}

/// What is asked for, as family and attributes. What is listed is looked at again: kernels
/// before 5.8 do not filter.
fn requests(addresses: &BTreeSet<IpAddr>, count: u64) -> Vec<(u8, Vec<u8>)> {
    let (ipv4, ipv6): (Vec<_>, Vec<_>) = addresses.iter().partition(|address| address.is_ipv4());
    let mut requests = match ipv4.as_slice() {
        [address] if count >= MANY => filters(address),
        [] => Vec::new(),
        _ => vec![(abi::FAMILY_IPV4, Vec::new())],
    };
    // Kernels up to 6.18 at least filter IPv6 the wrong way round: they list what does not match
    // (`ctnetlink_filter_match_tuple`).
    requests.extend((!ipv6.is_empty()).then(|| (abi::FAMILY_IPV6, Vec::new())));
    requests
}

/// A filter for the connections that a container with the IPv4 address began, and one for those
/// that came to it: whatever was translated, it is the source of packets in one direction.
fn filters(address: &IpAddr) -> Vec<(u8, Vec<u8>)> {
    let [source, _] = abi::IPV4;
    let filter = |way: u16| {
        let address = attribute(source, &octets(address));
        let addresses = attribute(abi::NESTED | abi::ADDRESSES, &address);
        let compared = attribute(way, &abi::COMPARE_SOURCE.to_ne_bytes());
        let filter = [
            attribute(abi::NESTED | way, &addresses),
            attribute(abi::NESTED | abi::FILTER, &compared),
        ];
        (abi::FAMILY_IPV4, filter.concat())
    };
    [abi::ORIGINAL, abi::REPLY].into_iter().map(filter).collect()
}

/// Whether a listed connection has one of the addresses anywhere. One in a zone is of another
/// program's network, where the same addresses are others: Weir uses no zones.
fn concerns(body: &[u8], addresses: &BTreeSet<IpAddr>) -> bool {
    let attributes = body.get(FAMILY_HEADER..).unwrap_or_default();
    let ways = [abi::ORIGINAL, abi::REPLY];
    let has_zone =
        |way| find(attributes, way).and_then(|way| find(way, abi::ZONE_OF_WAY)).is_some();
    if find(attributes, abi::ZONE).is_some() || ways.into_iter().any(has_zone) {
        return false;
    }
    let has = |way: u16| {
        let ends = find(attributes, way).and_then(|way| find(way, abi::ADDRESSES));
        let mut kinds = abi::IPV4.into_iter().chain(abi::IPV6);
        let is_among = |end: &[u8]| address(end).is_some_and(|end| addresses.contains(&end));
        ends.is_some_and(|ends| kinds.any(|kind| find(ends, kind).is_some_and(is_among)))
    };
    ways.into_iter().any(has)
}

/// What names a listed connection, and no other that took its place since, as family and
/// attributes.
fn deletion(body: &[u8]) -> (u8, Vec<u8>) {
    let attributes = body.get(FAMILY_HEADER..).unwrap_or_default();
    let named = [(abi::ORIGINAL, abi::NESTED), (abi::ID, 0)];
    let same = |(kind, flags): (u16, u16)| {
        find(attributes, kind).map(|value| attribute(flags | kind, value))
    };
    let named: Vec<_> = named.into_iter().filter_map(same).flatten().collect();
    (body.first().copied().unwrap_or_default(), named)
}

fn octets(address: &IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn address(octets: &[u8]) -> Option<IpAddr> {
    let ipv4 = <[u8; 4]>::try_from(octets).map(IpAddr::from);
    ipv4.or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from)).ok()
}
