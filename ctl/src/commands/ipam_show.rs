//! `weirctl ipam show`

use std::net::IpAddr;

use clap::Args;
use ipnet::IpNet;
use serde_json::{Value, json};
use weir_common::datastore::{Datastore, Selection, keys};
use weir_common::ipam::audit::engine;
use weir_common::ipam::release_one::holder;
use weir_common::ipam::{Attribute, Block, Stored, map};
use weir_common::resources::{IpPool, IpamConfig};

use super::report;
use crate::output::{boxed, json, number};
use crate::session::{CommandResult, Failure, Session};
use crate::store::{self, StoreError, in_use};

/// Arguments of `weirctl ipam show`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:\n  weirctl ipam show\n  weirctl ipam show --show-blocks\n  \
                  weirctl ipam show --ip=10.7.0.4\n  weirctl ipam show --map")]
pub struct ShowArgs {
    /// Say whether this address is in use, and by whom
    #[arg(long, value_name = "ADDRESS", group = "view")]
    pub ip: Option<String>,
    /// Show each pool's blocks too
    #[arg(long, group = "view")]
    pub show_blocks: bool,
    /// Show addresses that a node took from another node's block
    #[arg(long, group = "view")]
    pub show_borrowed: bool,
    /// Show how addresses are assigned
    #[arg(long, group = "view")]
    pub show_configuration: bool,
    /// Draw each pool's blocks: who holds them, how full
    #[arg(long, group = "view")]
    pub map: bool,
    /// Print the use of addresses as JSON
    #[arg(
        short, long, value_name = "FORMAT", value_parser = ["json"],
        conflicts_with_all = ["ip", "show_borrowed", "show_configuration", "map"]
    )]
    pub output: Option<String>,
}

/// Shows how addresses are used.
///
/// # Errors
/// [`Failure`] when the address is none or the datastore fails.
pub async fn run(arguments: ShowArgs, session: &Session<'_>) -> CommandResult {
    if arguments.map {
        return draw_map(session).await;
    }
    if let Some(text) = &arguments.ip {
        let address = text.parse().map_err(|_| {
            Failure::new(format!("'{text}' is no IP address; write for example --ip=10.7.0.4"))
        })?;
        return show_address(session.datastore, address).await;
    }
    let shown = match arguments {
        _ if arguments.show_borrowed => show_borrowed(session).await,
        _ if arguments.show_configuration => show_configuration(session).await,
        _ if arguments.output.is_some() => use_as_json(session, arguments.show_blocks).await,
        _ => show_use(session, arguments.show_blocks).await,
    };
    shown.map_err(|error| Failure::new(report::with_advice(&error)))
}

async fn draw_map(session: &Session<'_>) -> CommandResult {
    let listed = engine::list(session.datastore).await;
    let listing = listed.map_err(|error| Failure::caused_by(&error))?.listing;
    let width = session.style.width.unwrap_or_else(|| session.surroundings.width());
    Ok(map::draw(&listing, width, |host, cell| session.style.tint(host, cell)))
}

async fn show_use(session: &Session<'_>, with_blocks: bool) -> Result<String, StoreError> {
    let mut snapshot = session.datastore.read(&[Selection::Prefix(keys::POOLS.to_owned())]).await?;
    let entries = snapshot.selected.pop().unwrap_or_default();
    let pools: Vec<IpPool> = entries.iter().filter_map(store::read_stored_pool).collect();
    let (blocks, _) = store::blocks_in(session.datastore, None).await?;
    let mut rows = Vec::new();
    for pool in &pools {
        let inside = blocks.iter().filter(|block| pool.cidr.contains(&block.value.cidr));
        let used: usize = inside.clone().map(|block| in_use(&block.value)).sum();
        rows.push(use_row("IP Pool", pool.cidr, used));
        if with_blocks {
            rows.extend(inside.map(block_row));
        }
    }
    let in_no_pool = blocks
        .iter()
        .filter(|block| !pools.iter().any(|pool| pool.cidr.contains(&block.value.cidr)));
    if with_blocks {
        rows.extend(in_no_pool.map(block_row));
    }
    let header = ["GROUPING", "CIDR", "IPS TOTAL", "IPS IN USE", "IPS FREE"];
    Ok(boxed::table(&header, &rows, session.style))
}

/// The use of addresses for scripts (`docs/weirctl.md` has the fields).
async fn use_as_json(session: &Session<'_>, with_blocks: bool) -> Result<String, StoreError> {
    let mut snapshot = session.datastore.read(&[Selection::Prefix(keys::POOLS.to_owned())]).await?;
    let entries = snapshot.selected.pop().unwrap_or_default();
    let (blocks, _) = store::blocks_in(session.datastore, None).await?;
    let pools = entries.iter().filter_map(store::read_stored_pool).map(|pool| {
        let inside = || blocks.iter().filter(|block| pool.cidr.contains(&block.value.cidr));
        let mut json = use_object(pool.cidr, inside().map(|block| in_use(&block.value)).sum());
        json["name"] = pool.name.clone().into();
        if with_blocks {
            let blocks = inside().map(|block| use_object(block.value.cidr, in_use(&block.value)));
            json["blocks"] = blocks.collect();
        }
        json
    });
    Ok(json::document(&json!({ "pools": pools.collect::<Value>() })))
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

async fn show_borrowed(session: &Session<'_>) -> Result<String, StoreError> {
    let (blocks, _) = store::blocks_in(session.datastore, None).await?;
    let rows: Vec<_> = blocks.iter().flat_map(|stored| borrowed_rows(&stored.value)).collect();
    let header = ["IP", "BORROWING-NODE", "BLOCK", "BLOCK OWNER", "TYPE", "ALLOCATED-TO"];
    Ok(boxed::table(&header, &rows, session.style))
}

/// The addresses of a block that another node than its owner holds. Of a
/// block without an owner these are all.
fn borrowed_rows(block: &Block) -> Vec<Vec<String>> {
    let owner = block.host().unwrap_or_default();
    let borrowed = (0..block.allocations.len()).filter_map(|ordinal| {
        let holder = block.holder(ordinal)?;
        let node = holder.fact("node").filter(|node| *node != owner)?;
        let (kind, name) = kind_and_name(holder);
        let (address, cidr) = (block.address(ordinal).to_string(), block.cidr.to_string());
        Some(vec![address, node.to_owned(), cidr, owner.to_owned(), kind, name])
    });
    borrowed.collect()
}

/// What has an address, and its name.
fn kind_and_name(holder: &Attribute) -> (String, String) {
    match holder.fact("pod") {
        Some(pod) => {
            let namespace = holder.fact("namespace").unwrap_or_default();
            ("pod".to_owned(), format!("{namespace}/{pod}"))
        }
        None => (holder.fact("type").unwrap_or_default().to_owned(), String::new()),
    }
}

async fn show_configuration(session: &Session<'_>) -> Result<String, StoreError> {
    let config = match session.datastore.get(keys::IPAM_CONFIG).await? {
        Some(entry) => IpamConfig::from_json(&entry.value)?,
        None => IpamConfig::default(),
    };
    let rows = [
        ("StrictAffinity", config.strict_affinity.to_string()),
        ("AutoAllocateBlocks", config.auto_allocate_blocks.to_string()),
        ("MaxBlocksPerHost", config.max_blocks_per_host.to_string()),
    ];
    let rows: Vec<_> = rows.into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect();
    Ok(boxed::table(&["PROPERTY", "VALUE"], &rows, session.style))
}

async fn show_address(datastore: &dyn Datastore, address: IpAddr) -> CommandResult {
    let holder = holder(datastore, address).await.map_err(|error| Failure::caused_by(&error))?;
    Ok(match holder {
        Some(holder) => describe(address, &holder),
        None => format!("{address} is not assigned\n"),
    })
}

fn describe(address: IpAddr, holder: &Attribute) -> String {
    let mut text = format!("IP {address} is in use\n");
    let handle = holder.handle_id.as_deref().unwrap_or("<none>");
    text.push_str(&format!("Handle ID: {handle}\n"));
    let secondary = holder.secondary.clone().unwrap_or_default();
    text.push_str(if secondary.is_empty() { "No attributes defined\n" } else { "Attributes:\n" });
    for (name, value) in secondary {
        text.push_str(&format!("  {name}: {value}\n"));
    }
    text
}
