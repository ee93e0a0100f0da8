//! `weirctl ipam show`

pub mod addresses;
mod usage;

use clap::Args;
use serde_json::json;
use weir_common::datastore::keys;
use weir_common::ipam::{IpamSnapshot, map};
use weir_common::resources::IpamConfig;

use super::repair::explain;
use super::report;
use crate::output::{boxed, json};
use crate::session::{CommandResult, Failure, Session};
use crate::store::StoreError;

/// Arguments of `weirctl ipam show`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:\n  weirctl ipam show\n  weirctl ipam show --show-blocks\n  \
                  weirctl ipam show --ip=10.7.0.4\n  \
                  weirctl ipam show --show-addresses --pool=blue\n  weirctl ipam show --map")]
pub struct ShowArgs {
    /// Say whether this address is in use, and by whom
    #[arg(long, value_name = "ADDRESS", group = "view")]
    pub ip: Option<String>,
    /// Show each pool's blocks too
    #[arg(long, group = "view")]
    pub show_blocks: bool,
    /// Show the addresses in use, and who has them
    #[arg(long, group = "view")]
    pub show_addresses: bool,
    /// Of these addresses only those of this pool, given by name or CIDR
    #[arg(long, value_name = "POOL", requires = "show_addresses")]
    pub pool: Option<String>,
    /// Show addresses that a node took from another node's block
    #[arg(long, group = "view")]
    pub show_borrowed: bool,
    /// Show how addresses are assigned
    #[arg(long, group = "view")]
    pub show_configuration: bool,
    /// Draw each pool's blocks: who holds them, how full
    #[arg(long, group = "view")]
    pub map: bool,
    /// Print it as JSON; docs/weirctl.md has the fields
    #[arg(
        short, long, value_name = "FORMAT", value_parser = ["json"], conflicts_with = "map"
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
    let as_json = arguments.output.is_some();
    if let Some(text) = &arguments.ip {
        let address = text.parse().map_err(|_| {
            Failure::new(format!("'{text}' is not an IP address; write for example --ip=10.7.0.4"))
        })?;
        return addresses::show_one(session.datastore, address, as_json).await;
    }
    let shown = match &arguments {
        _ if arguments.show_addresses => {
            addresses::show(session, arguments.pool.as_deref(), as_json).await
        }
        _ if arguments.show_borrowed => addresses::show_borrowed(session, as_json).await,
        _ if arguments.show_configuration => show_configuration(session, as_json).await,
        _ if as_json => usage::in_json(session, arguments.show_blocks).await,
        _ => usage::in_words(session, arguments.show_blocks).await,
    };
    shown.map_err(|error| Failure::new(report::with_advice(&error)))
}

async fn draw_map(session: &Session<'_>) -> CommandResult {
    let told = |entries| session.environment.reading(entries);
    let snapshot = IpamSnapshot::list_telling(session.datastore, &told).await;
    let snapshot = snapshot.map_err(explain)?;
    let width = session.style.width.unwrap_or_else(|| session.environment.width());
    Ok(map::draw(&snapshot, width, |host, cell| session.style.tint(host, cell)))
}

async fn show_configuration(session: &Session<'_>, as_json: bool) -> Result<String, StoreError> {
    let config = match session.datastore.get(keys::IPAM_CONFIG).await? {
        Some(entry) => IpamConfig::from_json(&entry.value)?,
        None => IpamConfig::default(),
    };
    if as_json {
        return Ok(json::document(&json!({
            "strictAffinity": config.strict_affinity,
            "autoAllocateBlocks": config.auto_allocate_blocks,
            "maxBlocksPerHost": config.max_blocks_per_host,
        })));
    }
    let rows = [
        ("StrictAffinity", config.strict_affinity.to_string()),
        ("AutoAllocateBlocks", config.auto_allocate_blocks.to_string()),
        ("MaxBlocksPerHost", config.max_blocks_per_host.to_string()),
    ];
    let rows: Vec<_> = rows.into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect();
    Ok(boxed::table(&["PROPERTY", "VALUE"], &rows, session.style))
}
