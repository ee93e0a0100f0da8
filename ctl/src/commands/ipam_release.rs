//! `weirctl ipam release`

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use clap::{ArgGroup, Args};
use weir_common::audit::engine::RepairOutcome;
use weir_common::audit::release_one::{Release, SeenAddress, look_up, release};
use weir_common::audit::{Attached, DamageKind, Finding, ReportToRelease};
use weir_common::printable;

use super::change::ChangeArgs;
use super::repair::{Scan, explain};
use crate::session::{CommandResult, Failure, Session};

/// Arguments of `weirctl ipam release`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "An address is released only as long as it has the holder that it had when it \
                  was looked at.\nSeveral reports release what is in all of them.\n\n\
                  Examples:\n  weirctl ipam release --ip=10.7.0.4\n  \
                  weirctl ipam check -o json > report.json; weirctl ipam release --from-report=report.json"
)]
#[command(group = ArgGroup::new("what").required(true))]
pub struct ReleaseArgs {
    /// The address to release
    #[arg(long, value_name = "ADDRESS", group = "what")]
    pub ip: Option<String>,
    /// A report of `weirctl ipam check -o json`, whose addresses without a
    /// container are released
    #[arg(long, value_name = "FILE", group = "what")]
    pub from_report: Vec<PathBuf>,
    /// calicoctl's flag for reports that are out of date. Here each address is
    /// compared with its report by itself, with the flag or without.
    #[arg(long, hide = true, requires = "from_report")]
    pub force: bool,
    #[command(flatten)]
    pub change: ChangeArgs,
}

/// Releases addresses.
///
/// # Errors
/// [`Failure`] when one is not released, or the datastore fails.
pub async fn run(arguments: ReleaseArgs, session: &Session<'_>) -> CommandResult {
    match &arguments.ip {
        Some(text) => release_address(text, session).await,
        None => release_reported(&arguments.from_report, session).await,
    }
}

async fn release_address(text: &str, session: &Session<'_>) -> CommandResult {
    let address: IpAddr = text.parse().map_err(|_| {
        Failure::new(format!("'{text}' is not an IP address; write for example --ip=10.7.0.4"))
    })?;
    let found = look_up(session.datastore, address)
        .await
        .map_err(explain)?
        .ok_or_else(|| not_assigned(address))?;
    match release(session.datastore, &SeenAddress::from(&found)).await.map_err(explain)? {
        Release::Released => {
            warn_of_users(address, session).await;
            Ok(released(address))
        }
        Release::NotInUse => Err(not_assigned(address)),
        Release::Reassigned(now) => Err(Failure::new(reassigned(&now))),
    }
}

/// Warns of containers of this node that go on using an address that was released. A
/// node that cannot be looked at has none that could be named.
async fn warn_of_users(address: IpAddr, session: &Session<'_>) {
    let Ok(Some(node)) = session.environment.this_node().await else { return };
    let uses = |it: &&Attached| {
        it.addresses.contains(&address) && !node.other_networks.contains(it.identity.network())
    };
    for Attached { identity, .. } in node.attachments.iter().filter(uses) {
        session.environment.warn(&format!(
            "warning: {address} is still in use on this node: by interface {} of container {} in \
             network {}; the next ADD that draws it fails until that container is gone",
            identity.interface(),
            identity.container_id(),
            identity.network()
        ));
    }
}

/// Releases what the reports name and what is found unused once more, by the
/// repair of these findings.
async fn release_reported(files: &[PathBuf], session: &Session<'_>) -> CommandResult {
    let mut reports = Vec::new();
    for file in files {
        reports.push(read(file, session)?);
    }
    let (wanted, gone) = in_all(&reports);
    let scan = Scan::run(session, &gone).await?;
    let is_unused = |finding: &&Finding| {
        matches!(finding.kind, DamageKind::AddressWithoutAttachment | DamageKind::HostGone)
    };
    let findings = || scan.findings.iter().filter(is_unused);
    let found = |seen: &SeenAddress| findings().find(|it| it.addresses.contains(seen));
    let still: Vec<Finding> = wanted.iter().filter_map(found).cloned().collect();
    let repaired = scan.repair(still, scan.snapshot.revision, session, &gone).await?;
    let (mut output, mut failures) = (String::new(), Vec::new());
    for seen in &wanted {
        let is_of = |(finding, _): &&(Finding, _)| finding.addresses.contains(seen);
        match repaired.iter().find(is_of).map(|(_, outcome)| outcome) {
            Some(RepairOutcome::Repaired) => output.push_str(&released(seen.address)),
            Some(RepairOutcome::Left(reason)) => failures.push(not_released(seen.address, reason)),
            Some(RepairOutcome::Gone) | None => match why_not(seen, session).await? {
                Ok(line) => output.push_str(&line),
                Err(line) => failures.push(line),
            },
        }
    }
    if output.is_empty() && failures.is_empty() {
        output.push_str("No addresses to release\n");
    }
    if failures.is_empty() {
        return Ok(output);
    }
    Err(Failure { output, message: failures.join("\n") })
}

/// The addresses that are in all reports, and the hosts that all call gone.
fn in_all(reports: &[ReportToRelease]) -> (Vec<SeenAddress>, BTreeSet<String>) {
    let releasable: Vec<Vec<SeenAddress>> =
        reports.iter().map(ReportToRelease::addresses).collect();
    let is_in_all = |seen: &&SeenAddress| releasable.iter().all(|all| all.contains(seen));
    let wanted = releasable.first().into_iter().flatten().filter(is_in_all).cloned().collect();
    let mut gone = reports.first().map(|report| report.gone_hosts.clone()).unwrap_or_default();
    gone.retain(|host| reports.iter().all(|report| report.gone_hosts.contains(host)));
    (wanted, gone)
}

fn read(file: &Path, session: &Session<'_>) -> Result<ReportToRelease, Failure> {
    let shown = file.display();
    let text = session.environment.read_file(file).map_err(|error| {
        Failure::new(format!("{shown} cannot be read: {error}; name a file that can be"))
    })?;
    serde_json::from_str(&text).map_err(|error| {
        Failure::new(format!(
            "{shown} is not a report: {error}; make one: weirctl ipam check -o json > report.json"
        ))
    })
}

/// What became of an address that is not found unused any more: a line of
/// output, or of failure.
async fn why_not(
    seen: &SeenAddress,
    session: &Session<'_>,
) -> Result<Result<String, String>, Failure> {
    let address = seen.address;
    Ok(match look_up(session.datastore, address).await.map_err(explain)? {
        None => Ok(format!("IP address {address} is released already\n")),
        Some(now) if *seen != SeenAddress::from(&now) => Err(reassigned(&SeenAddress::from(&now))),
        Some(now) => {
            let node = printable(now.node().unwrap_or("its holder"));
            Err(not_released(
                address,
                &format!("nothing here shows that it is unused; run the same command on {node}"),
            ))
        }
    })
}

fn not_assigned(address: IpAddr) -> Failure {
    Failure::new(format!(
        "IP address {address} is not assigned\n\
         list those that are with: weirctl ipam show --show-addresses"
    ))
}

fn released(address: IpAddr) -> String {
    format!("Successfully released IP address {address}\n")
}

fn reassigned(now: &SeenAddress) -> String {
    let address = now.address;
    let handle = printable(now.handle.as_deref().unwrap_or("none"));
    not_released(
        address,
        &format!(
            "it was assigned again, to handle {handle}; look at it with: weirctl ipam show --ip={address}"
        ),
    )
}

fn not_released(address: IpAddr, reason: &str) -> String {
    format!("IP address {address} is not released: {reason}")
}
