//! Blocks, as far as `weirctl` looks into them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::Deserialize;
use weir_common::datastore::{Datastore, Revision, keys};

use super::StoreError;

/// How many blocks are read at once.
const PAGE: usize = 500;

/// No block is larger than this: the bits that are the same in a block's
/// address and in all addresses in it.
const SHORTEST_IPV4_BLOCK: u8 = 20;

/// A block and where it is stored.
#[derive(Clone, Debug)]
pub struct Block {
    /// The key.
    pub key: String,
    /// When it was last written.
    pub revision: Revision,
    /// Its addresses.
    pub cidr: IpNet,
    /// The host that it belongs to.
    pub host: Option<String>,
    attributes: Vec<Attributes>,
    allocations: Vec<Option<usize>>,
}

/// Who has an address.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Attributes {
    /// The handle that holds it.
    #[serde(default)]
    pub handle_id: Option<String>,
    /// What else is known: `node`, `namespace`, `pod`, `timestamp`.
    #[serde(default)]
    pub secondary: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct Stored {
    cidr: IpNet,
    #[serde(default)]
    affinity: Option<String>,
    allocations: Vec<Option<usize>>,
    #[serde(default)]
    attributes: Vec<Attributes>,
}

impl Block {
    fn from_json(key: String, revision: Revision, value: &[u8]) -> Result<Self, StoreError> {
        let stored: Stored = serde_json::from_slice(value)
            .map_err(|cause| StoreError::Unreadable { key: key.clone(), cause: Box::new(cause) })?;
        let affinity = stored.affinity.as_deref();
        let host = affinity.map(|text| text.strip_prefix("host:").unwrap_or(text).to_owned());
        let (attributes, allocations) = (stored.attributes, stored.allocations);
        Ok(Self { key, revision, cidr: stored.cidr, host, attributes, allocations })
    }

    /// How many of its addresses are in use.
    pub fn in_use(&self) -> usize {
        self.allocations.iter().flatten().count()
    }

    /// The addresses in use, and by whom.
    pub fn allocated(&self) -> impl Iterator<Item = (IpAddr, Attributes)> + '_ {
        self.allocations.iter().enumerate().filter_map(|(ordinal, allocation)| {
            let attributes = self.attributes.get((*allocation)?).cloned().unwrap_or_default();
            Some((nth_address(self.cidr, ordinal), attributes))
        })
    }
}

fn nth_address(cidr: IpNet, ordinal: usize) -> IpAddr {
    match cidr {
        IpNet::V4(net) => {
            let ordinal = u32::try_from(ordinal).unwrap_or(u32::MAX);
            IpAddr::V4(u32::from(net.network()).wrapping_add(ordinal).into())
        }
        IpNet::V6(net) => {
            IpAddr::V6(u128::from(net.network()).wrapping_add(ordinal as u128).into())
        }
    }
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
) -> Result<(Vec<Block>, Revision), StoreError> {
    let prefix = range.map_or_else(|| keys::BLOCKS.to_owned(), key_prefix);
    let mut blocks = Vec::new();
    let mut after = None;
    let mut first_revision = None;
    loop {
        let page = datastore.list(&prefix, after.as_deref(), PAGE).await?;
        first_revision.get_or_insert(page.revision);
        for entry in page.entries {
            let cidr = keys::parse_block(&entry.key);
            if range.is_none_or(|range| cidr.is_none_or(|cidr| overlap(range, cidr))) {
                blocks.push(Block::from_json(entry.key, entry.revision, &entry.value)?);
            }
        }
        after = page.next;
        if after.is_none() {
            return Ok((blocks, first_revision.unwrap_or_default()));
        }
    }
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

    #[test]
    fn addresses_are_counted_and_named() {
        let value = br#"{"cidr":"10.7.0.4/30","affinity":"host:n3","allocations":[null,1,0,null],"unallocated":[0,3],"attributes":[{"handle_id":"a"},{"handle_id":"b","secondary":{"node":"n3"}}]}"#;
        let block = Block::from_json("k".into(), Revision(1), value).unwrap();
        assert_eq!((block.in_use(), block.host.as_deref()), (2, Some("n3")));
        let handles: Vec<_> = block
            .allocated()
            .map(|(address, attributes)| (address.to_string(), attributes.handle_id.unwrap()))
            .collect();
        assert_eq!(handles, [("10.7.0.5".into(), "b".into()), ("10.7.0.6".into(), "a".into())]);
    }
}
