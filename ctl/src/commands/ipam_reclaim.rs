//! `weirctl ipam reclaim`

use std::collections::BTreeMap;

use clap::Args;
use weir_common::audit::engine::RepairOutcome;
use weir_common::audit::{AuditContext, DamageKind, Finding, hosts_gone};
use weir_common::ipam::reclaim::{EmptyBlock, plan, reclaim};
use weir_common::shell_word;

use super::change::ChangeArgs;
use super::repair::{GoneHostArgs, Scan, explain};
use crate::output::line;
use crate::session::{CommandResult, Failure, Session};

/// Arguments of `weirctl ipam reclaim`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "A node keeps one block in each enabled pool that selects it. What belongs to a host that is not \
                  registered is taken back only if the host is named with --gone-host.\n\n\
                  Examples:\n  weirctl ipam reclaim --dry-run\n  weirctl ipam reclaim\n  \
                  weirctl ipam reclaim --gone-host n9"
)]
pub struct ReclaimArgs {
    #[command(flatten)]
    gone: GoneHostArgs,
    #[command(flatten)]
    pub change: ChangeArgs,
}

/// Takes back what is of no use where it is: first what belongs to hosts that
/// are gone, then empty blocks.
///
/// # Errors
/// [`Failure`] when something cannot be taken back, or the datastore fails.
pub async fn run(arguments: ReclaimArgs, session: &Session<'_>) -> CommandResult {
    let gone = arguments.gone.names();
    let mut scan = Scan::run(session, &gone).await?;
    let (findings, unnamed): (Vec<Finding>, Vec<Finding>) = std::mem::take(&mut scan.findings)
        .into_iter()
        .filter(|finding| finding.kind == DamageKind::HostGone)
        .partition(|finding| finding.obstacle.is_none());
    let (mut output, mut failures) = (String::new(), Vec::new());
    for (finding, done) in scan.repair(findings, scan.snapshot.revision, session, &gone).await? {
        let problem = &finding.problem;
        match done {
            RepairOutcome::Repaired => output.push_str(&format!("{problem}: {}\n", finding.remedy)),
            RepairOutcome::Gone => {}
            RepairOutcome::Left(reason) => failures.push(format!("{problem}: left: {reason}")),
        }
    }
    let now = session.environment.now();
    let context = AuditContext { node: scan.node.as_ref(), gone: &gone, now };
    let plan = plan(&scan.snapshot, &hosts_gone(&scan.snapshot, &context));
    for (done, empty) in plan.iter().enumerate() {
        session.environment.progress(done, plan.len());
        if reclaim(session.datastore, empty).await.map_err(explain)? {
            output.push_str(&tell_block(empty));
        }
    }
    if output.is_empty() && failures.is_empty() {
        output.push_str("Nothing to reclaim\n");
    }
    output.push_str(&tell_unnamed(&unnamed));
    match failures.as_slice() {
        [] => Ok(output),
        failures => Err(Failure { output, message: failures.join("\n") }),
    }
}

fn tell_block(empty: &EmptyBlock) -> String {
    match &empty.host {
        Some(host) => line(&format!("block {} of host {host} is empty: take it back", empty.block)),
        None => format!("block {} of no host is empty: take it back\n", empty.block),
    }
}

/// A line for each host that may be gone.
fn tell_unnamed(findings: &[Finding]) -> String {
    let mut hosts: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for finding in findings {
        let (addresses, blocks) =
            hosts.entry(finding.host.as_deref().unwrap_or_default()).or_default();
        match finding.addresses.is_empty() {
            true => *blocks += 1,
            false => *addresses += 1,
        }
    }
    let described = |(host, (addresses, blocks)): (&str, (usize, usize))| {
        line(&format!(
            "host {host} is not registered; its {addresses} addresses and {blocks} blocks are left \
             to it; if it is gone for good: weirctl ipam reclaim --gone-host {}",
            shell_word(host)
        ))
    };
    hosts.into_iter().map(described).collect()
}
