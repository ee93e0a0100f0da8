//! `weirctl ipam configure`

use clap::{ArgAction, ArgGroup, Args};

use super::change::ChangeArgs;
use super::report;
use crate::session::{CommandResult, Failure, Session};
use crate::store;

/// Arguments of `weirctl ipam configure`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:\n  weirctl ipam configure --strictaffinity=true\n  \
                  weirctl ipam configure --strictaffinity=true --max-blocks-per-host=4")]
#[command(group = ArgGroup::new("settings").required(true).multiple(true))]
pub struct ConfigureArgs {
    /// Whether nodes take addresses from their own blocks only
    #[arg(
        long, value_name = "true|false", action = ArgAction::Set, group = "settings",
        value_parser = parse_flag
    )]
    pub strictaffinity: Option<bool>,
    /// The most blocks that a node may hold; 0 for no limit
    #[arg(long, value_name = "NUMBER", group = "settings")]
    pub max_blocks_per_host: Option<u32>,
    #[command(flatten)]
    pub change: ChangeArgs,
}

/// Reads true or false as Go does (`strconv.ParseBool`), and so calicoctl.
fn parse_flag(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("write true or false".to_owned()),
    }
}

/// Changes how addresses are assigned.
///
/// # Errors
/// [`Failure`] when the settings do not go together, or the datastore fails.
pub async fn run(arguments: ConfigureArgs, session: &Session<'_>) -> CommandResult {
    let ConfigureArgs { strictaffinity, max_blocks_per_host, change: _ } = arguments;
    store::configure(session.datastore, |config| {
        if let Some(strict) = strictaffinity {
            config.strict_affinity = strict;
        }
        if let Some(most) = max_blocks_per_host {
            config.max_blocks_per_host = most;
        }
    })
    .await
    .map_err(|error| Failure::new(report::with_advice(&error)))?;
    session.ensure_cluster_guid().await;
    let strict = strictaffinity
        .map(|strict| format!("Successfully set StrictAffinity to: {strict}\n"))
        .unwrap_or_default();
    let most = max_blocks_per_host
        .map(|most| format!("Successfully set MaxBlocksPerHost to: {most}\n"))
        .unwrap_or_default();
    Ok(strict + &most)
}
