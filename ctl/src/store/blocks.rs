//! Reading blocks.

use ipnet::IpNet;
use weir_common::datastore::{Datastore, Entry, Pages, Revision, keys};
use weir_common::ipam::{Block, Stored, read_block};

use super::error::StoreError;

/// No IPv4 block is larger than this (Calico's rule for block sizes): all
/// addresses in one have this many bits in common.
const SHORTEST_IPV4_BLOCK: u8 = 20;

/// How many of a block's addresses are in use.
pub fn in_use(block: &Block) -> usize {
    block.allocations.iter().flatten().count()
}

/// The blocks that have addresses in `range`, or all of them, in key order,
/// and the revision since which they were read.
///
/// # Errors
/// [`StoreError::Unreadable`] for a block that is none;
/// [`StoreError::Datastore`].
pub async fn blocks_in(
    datastore: &dyn Datastore,
    range: Option<IpNet>,
) -> Result<(Vec<Stored<Block>>, Revision), StoreError> {
    let (entries, revision) = entries_in(datastore, range).await?;
    let blocks = entries.iter().map(|(_, entry)| read_block(entry));
    Ok((blocks.collect::<Result<_, _>>()?, revision))
}

/// As [`blocks_in`], by their keys alone.
pub(super) async fn entries_in(
    datastore: &dyn Datastore,
    range: Option<IpNet>,
) -> Result<(Vec<(IpNet, Entry)>, Revision), StoreError> {
    let prefix = range.map_or_else(|| keys::BLOCKS.to_owned(), key_prefix);
    let is_wanted = |cidr: &IpNet| range.is_none_or(|range| overlap(range, *cidr));
    let (mut found, mut first_revision) = (Vec::new(), None);
    let mut pages = Pages::new(datastore, prefix);
    while let Some(page) = pages.next().await? {
        first_revision.get_or_insert(page.revision);
        let named = |entry: Entry| Some((keys::parse_block(&entry.key)?, entry));
        let named = page.entries.into_iter().filter_map(named);
        found.extend(named.filter(|(cidr, _)| is_wanted(cidr)));
    }
    Ok((found, first_revision.unwrap_or_default()))
}

/// What the keys of all blocks with addresses in `range` begin with: for IPv4
/// the octets that all of them share, for IPv6 nothing but the family, since
/// its addresses are stored in short form.
pub(super) fn key_prefix(range: IpNet) -> String {
    match range {
        IpNet::V4(net) => {
            let shared = usize::from(net.prefix_len().min(SHORTEST_IPV4_BLOCK) / 8);
            let octets = net.network().octets();
            let octets: String = octets[..shared].iter().map(|octet| format!("{octet}.")).collect();
            format!("{}ipv4/block/{octets}", keys::BLOCKS)
        }
        IpNet::V6(_) => format!("{}ipv6/block/", keys::BLOCKS),
    }
}

/// Whether two networks have an address in common.
pub(super) fn overlap(left: IpNet, right: IpNet) -> bool {
    left.contains(&right) || right.contains(&left)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_cover_every_block_in_the_range() {
        let prefix = |range: &str| key_prefix(range.parse().unwrap());
        let ipv4 = "/calico/ipam/v2/assignment/ipv4/block/";
        assert_eq!(prefix("10.7.0.0/27"), format!("{ipv4}10.7."));
        assert_eq!(prefix("10.7.0.0/16"), format!("{ipv4}10.7."));
        assert_eq!(prefix("10.16.0.0/12"), format!("{ipv4}10."));
        assert_eq!(prefix("0.0.0.0/0"), ipv4);
        assert_eq!(prefix("fd00::/8"), "/calico/ipam/v2/assignment/ipv6/block/");
        let wide: IpNet = "10.7.16.0/20".parse().unwrap();
        assert!(keys::block(wide).starts_with(&prefix("10.7.31.192/26")));
    }
}
