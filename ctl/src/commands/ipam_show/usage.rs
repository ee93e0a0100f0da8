//! `weirctl ipam show`: how many addresses are in use.

use ipnet::IpNet;
use serde_json::{Value, json};
use weir_common::ipam::{Block, Stored};
use weir_common::resources::IpPool;

use super::addresses::read_pools;
use crate::output::{boxed, json, number};
use crate::session::Session;
use crate::store::{self, StoreError, in_use};

/// The pools and blocks there are.
struct Usage {
    pools: Vec<IpPool>,
    blocks: Vec<Stored<Block>>,
}

impl Usage {
    async fn read(session: &Session<'_>) -> Result<Self, StoreError> {
        let pools = read_pools(session).await?;
        let (blocks, _) = store::blocks_in(session.datastore, None).await?;
        Ok(Self { pools, blocks })
    }

    fn blocks_of(&self, pool: &IpPool) -> impl Iterator<Item = &Stored<Block>> + Clone {
        self.blocks.iter().filter(|block| pool.cidr.contains(&block.value.cidr))
    }

    fn blocks_in_no_pool(&self) -> impl Iterator<Item = &Stored<Block>> {
        let is_in = |block: &Block| self.pools.iter().any(|pool| pool.cidr.contains(&block.cidr));
        self.blocks.iter().filter(move |block| !is_in(&block.value))
    }
}

/// How many addresses of each pool, and of each block, are in use.
///
/// # Errors
/// [`StoreError`] when the datastore fails.
pub async fn in_words(session: &Session<'_>, with_blocks: bool) -> Result<String, StoreError> {
    let usage = Usage::read(session).await?;
    let mut rows = Vec::new();
    for pool in &usage.pools {
        let inside = usage.blocks_of(pool);
        let used: usize = inside.clone().map(|block| in_use(&block.value)).sum();
        rows.push(use_row("IP Pool", pool.cidr, used));
        if with_blocks {
            rows.extend(inside.map(block_row));
        }
    }
    if with_blocks {
        rows.extend(usage.blocks_in_no_pool().map(block_row));
    }
    let header = ["GROUPING", "CIDR", "IPS TOTAL", "IPS IN USE", "IPS FREE"];
    Ok(boxed::table(&header, &rows, session.style))
}

/// The same for scripts (`docs/weirctl.md` has the fields).
///
/// # Errors
/// As [`in_words`].
pub async fn in_json(session: &Session<'_>, with_blocks: bool) -> Result<String, StoreError> {
    let usage = Usage::read(session).await?;
    let block = |block: &Stored<Block>| use_object(block.value.cidr, in_use(&block.value));
    let pools = usage.pools.iter().map(|pool| {
        let inside = usage.blocks_of(pool);
        let used = inside.clone().map(|block| in_use(&block.value)).sum();
        let mut json = use_object(pool.cidr, used);
        json["name"] = pool.name.clone().into();
        if with_blocks {
            json["blocks"] = inside.map(block).collect();
        }
        json
    });
    let mut document = json!({ "pools": pools.collect::<Value>() });
    if with_blocks {
        document["blocksInNoPool"] = usage.blocks_in_no_pool().map(block).collect();
    }
    Ok(json::document(&document))
}

/// Numbers of addresses are texts: those of IPv6 are too large for many readers
/// of JSON. A range of all IPv6 addresses has one more than can be counted.
fn use_object(cidr: IpNet, used: usize) -> Value {
    let total = 1_u128.checked_shl(u32::from(cidr.max_prefix_len() - cidr.prefix_len()));
    let (total, used) = (total.unwrap_or(u128::MAX), used as u128);
    let free = total.saturating_sub(used).to_string();
    json!({"cidr": cidr, "total": total.to_string(), "inUse": used.to_string(), "free": free})
}

fn block_row(stored: &Stored<Block>) -> Vec<String> {
    use_row("Block", stored.value.cidr, in_use(&stored.value))
}

#[expect(clippy::cast_precision_loss, reason = "five digits are shown")]
fn use_row(grouping: &str, cidr: IpNet, used: usize) -> Vec<String> {
    let total = 2_f64.powi(i32::from(cidr.max_prefix_len() - cidr.prefix_len()));
    let used = used as f64;
    vec![
        grouping.to_owned(),
        cidr.to_string(),
        number::short(total),
        number::share(used, total),
        number::share(total - used, total),
    ]
}
