//! The addresses of one block.

use ipnet::IpNet;
use serde::Serialize;

use super::address::AddressRow;
use super::{BadQuestion, ClusterView};

/// A block with its addresses, but for those that are free.
#[derive(Debug, Serialize)]
pub struct BlockDocument {
    cidr: IpNet,
    pool: Option<String>,
    node: Option<String>,
    pub addresses: Vec<AddressRow>,
}

impl BlockDocument {
    /// The block that `text` names by its CIDR.
    ///
    /// # Errors
    /// [`BadQuestion`] where it names none that is known.
    pub fn of(text: &str, view: &ClusterView) -> Result<Self, BadQuestion> {
        let cidr: IpNet = text.parse().map_err(|_| {
            BadQuestion(format!("block {text:?} is not a CIDR; write for example cidr=10.7.0.0/26"))
        })?;
        let block = view.block(cidr.trunc()).ok_or_else(|| {
            BadQuestion(format!(
                "block {cidr} is not there; those that are: weirctl ipam show --show-blocks"
            ))
        })?;
        let reserved: Vec<&IpNet> = view
            .cluster
            .reservations
            .values()
            .flatten()
            .filter(|range| range.contains(&block.cidr) || block.cidr.contains::<&IpNet>(range))
            .collect();
        let row = |ordinal| {
            let address = block.address(ordinal);
            let is_reserved = || reserved.iter().any(|range| range.contains(&address));
            AddressRow::of(&block, ordinal)
                .or_else(|| is_reserved().then(|| AddressRow::reserved(address)))
        };
        Ok(Self {
            cidr: block.cidr,
            pool: view.cluster.pool_of(block.cidr).map(|(name, _)| name.to_owned()),
            node: block.host().map(str::to_owned),
            addresses: (0..block.allocations.len()).filter_map(row).collect(),
        })
    }
}
