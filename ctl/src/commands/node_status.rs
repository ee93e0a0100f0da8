//! `weirctl node status`

mod elsewhere;
mod status;
mod words;

use std::path::Path;

use clap::Args;
use serde_json::json;
use weir_common::ipam::Ownership;
use weir_common::network::ClusterSnapshot;

use super::bgp_peers;
use crate::agent_http::AGENT_ADDRESS;
use crate::bgp_status::BgpStatus;
use crate::output::json;
use crate::session::{CommandResult, Failure, Session};
pub use status::Status;

/// Arguments of `weirctl node status`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Exit status 1 when the kernel differs from what pools and nodes ask for, or a \
                  problem is listed.\n\n\
                  Examples:\n  weirctl node status\n  weirctl node status -o json"
)]
pub struct StatusArgs {
    /// This node's name, where `node run` was given one; or another node, whose BGP is then shown
    /// as far as a CalicoNodeStatus has it
    #[arg(long, value_name = "NAME")]
    pub node: Option<String>,
    /// Where this node's agent serves its metrics
    #[arg(long, value_name = "ADDRESS", default_value = AGENT_ADDRESS)]
    pub metrics_address: String,
    /// Print everything as JSON
    #[arg(short, long, value_name = "FORMAT", value_parser = ["json"])]
    pub output: Option<String>,
}

/// Shows this node's part in the cluster, and whether the kernel has it.
///
/// # Errors
/// [`Failure`] when something is wrong with it, or the datastore or the kernel
/// cannot be read.
pub async fn run(arguments: StatusArgs, session: &Session<'_>) -> CommandResult {
    let is_elsewhere = |name: &String| session.environment.own_name().is_ok_and(|own| own != *name);
    let is_elsewhere = arguments.node.as_ref().is_some_and(is_elsewhere);
    let name = match arguments.node {
        Some(node) => node,
        None => session.environment.own_name()?,
    };
    let inventory = ClusterSnapshot::read_whole(session.datastore).await?.state;
    let (underlay, present) = session.environment.cluster().await?;
    let mut status = Status::of(&name, &inventory, &underlay, &present);
    let (own, recorded) = (session.environment.machine(), inventory.machines.get(&name));
    let clash = Ownership::new(own.as_ref(), recorded).clash(&name);
    status.problems.extend(clash.map(|clash| clash.to_string()));
    let (filters, rules) = session.environment.foreign_rules().await?;
    status.judge_foreign_rules(&inventory, &filters, &rules);
    let release = session.environment.read_file(Path::new("/proc/sys/kernel/osrelease"));
    status.judge_checksums(&release.unwrap_or_default());
    if is_elsewhere {
        status.bgp = Some(elsewhere::bgp_of(&name, session.datastore).await?);
    } else if session.environment.agent_runs() {
        let bgp = bgp_peers::ask(&arguments.metrics_address).await.ok();
        status.bgp = bgp.filter(BgpStatus::is_of_interest);
    }
    let output = match arguments.output {
        // Serialising plain data does not fail.
        Some(_) => json::document(&serde_json::to_value(&status).unwrap_or_else(|_| json!({}))),
        None => words::text(&status, session.style),
    };
    match status.complaint() {
        None => Ok(output),
        Some(message) => Err(Failure { output, message }),
    }
}
