//! `weirctl ipam reclaim`

use clap::Args;
use weir_common::ipam::Error;
use weir_common::ipam::audit::engine::{self, Repaired};
use weir_common::ipam::audit::{Finding, Kind, audit};
use weir_common::ipam::reclaim::{EmptyBlock, plan, reclaim};

use crate::session::{CommandResult, Failure, Session};

/// Arguments of `weirctl ipam reclaim`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "A node keeps one block in each enabled pool. Hosts that are not among the \
                  registered nodes count as gone, if any node is registered.\n\n\
                  Examples:\n  weirctl ipam reclaim --dry-run\n  weirctl ipam reclaim"
)]
pub struct ReclaimArgs {
    /// Say what would be taken back, and change nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// Takes back what is of no use where it is: first what belongs to hosts that
/// are gone, then empty blocks.
///
/// # Errors
/// [`Failure`] when something cannot be taken back, or the datastore fails.
pub async fn run(arguments: ReclaimArgs, session: &Session<'_>) -> CommandResult {
    let node = session.surroundings.this_node().await?;
    let now = session.surroundings.now();
    let listing = engine::list(session.datastore).await.map_err(explain)?.listing;
    let mut findings = audit(&listing, node.as_ref(), now);
    findings.retain(|finding| finding.kind() == Kind::HostGone);
    let (mut output, mut failures) = (String::new(), Vec::new());
    if arguments.dry_run {
        findings.iter().for_each(|finding| tell_finding(finding, &mut output, &mut failures));
    } else {
        let done = engine::repair(session.datastore, &listing, findings, node.as_ref(), now)
            .await
            .map_err(explain)?;
        for (finding, done) in &done {
            match done {
                Repaired::Gone => {}
                _ => tell_finding(finding, &mut output, &mut failures),
            }
        }
    }
    for empty in plan(&listing, node.as_ref()) {
        if arguments.dry_run || reclaim(session.datastore, &empty).await.map_err(explain)? {
            output.push_str(&tell_block(&empty));
        }
    }
    if output.is_empty() && failures.is_empty() {
        output.push_str("Nothing to reclaim\n");
    } else if arguments.dry_run {
        output.push_str("Nothing was changed (--dry-run)\n");
    }
    match failures.as_slice() {
        [] => Ok(output),
        failures => Err(Failure { output, message: failures.join("\n") }),
    }
}

fn tell_finding(finding: &Finding, output: &mut String, failures: &mut Vec<String>) {
    match finding.obstacle() {
        None => output.push_str(&format!("{}: {}\n", finding.problem(), finding.remedy())),
        Some(obstacle) => failures.push(format!("{}: {obstacle}", finding.problem())),
    }
}

fn tell_block(empty: &EmptyBlock) -> String {
    match &empty.host {
        Some(host) => format!("block {} of host {host} is empty: take it back\n", empty.block),
        None => format!("block {} of no host is empty: take it back\n", empty.block),
    }
}

fn explain(error: Error) -> Failure {
    Failure::caused_by(&error)
}
