//! `weirctl ipam check`

use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::json;
use weir_common::ipam::Error;
use weir_common::ipam::audit::engine::{self, Repaired};
use weir_common::ipam::audit::{Finding, Kind, Listing, Report, ThisNode, audit};

use crate::output::json;
use crate::session::{CommandResult, Failure, Session};

/// Arguments of `weirctl ipam check`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Exit status 0 when nothing is damaged, or all of it was mended; else 1.\n\n\
                  Examples:\n  weirctl ipam check\n  weirctl ipam check --repair\n  \
                  weirctl ipam check -o json > report.json"
)]
pub struct CheckArgs {
    /// Mend what is safe to mend
    #[arg(long)]
    pub repair: bool,
    /// How the report is printed
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    pub output: Option<OutputFormat>,
}

/// How a report is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// For people
    Text,
    /// For scripts; docs/audit.md has the fields
    Json,
}

/// What Calico does step by step looks like damage for some milliseconds: a
/// repair waits this long before it looks again.
const SETTLING_TIME: Duration = Duration::from_secs(2);

/// How often a repair looks again after it has mended something; what one
/// finding hides shows after one or two times.
const MAX_ROUNDS: usize = 8;

/// One look at everything.
struct Look {
    listing: Listing,
    node: Option<ThisNode>,
    findings: Vec<Finding>,
}

/// Compares everything, and mends it if asked to.
///
/// # Errors
/// [`Failure`] when something is damaged still, or the datastore fails.
pub async fn run(arguments: CheckArgs, session: &Session<'_>) -> CommandResult {
    let mut look = look(session).await?;
    let report = Report::new(&look.listing, &look.findings);
    let mut repaired = Vec::new();
    if arguments.repair && !look.findings.is_empty() {
        session.surroundings.pause(SETTLING_TIME).await;
        look = self::look(session).await?;
        repaired = repair(&mut look, session).await?;
    }
    let output = match arguments.output {
        Some(OutputFormat::Json) => in_json(&report, arguments.repair.then_some(&repaired)),
        _ => in_words(&report, &look, &repaired, arguments.repair),
    };
    if look.findings.is_empty() {
        return Ok(output);
    }
    Err(Failure { output, message: advise(&look.findings, arguments.repair) })
}

/// Lists, reads the kernel, compares, and confirms what was found.
async fn look(session: &Session<'_>) -> Result<Look, Failure> {
    let engine::Listed { listing, steady } =
        engine::list(session.datastore).await.map_err(explain)?;
    let node = session.surroundings.this_node().await?;
    let now = session.surroundings.now();
    let mut findings = audit(&listing, node.as_ref(), now);
    // What the kernel has was read a moment later than the store.
    let of_kernel = |finding: &Finding| finding.kind() == Kind::AttachmentWithoutAddress;
    if !steady || findings.iter().any(of_kernel) {
        findings = engine::confirm(session.datastore, &listing, findings, node.as_ref(), now)
            .await
            .map_err(explain)?;
    }
    Ok(Look { listing, node, findings })
}

/// Mends until nothing is mended any more; `look` then has what is left.
async fn repair(
    look: &mut Look,
    session: &Session<'_>,
) -> Result<Vec<(Finding, Repaired)>, Failure> {
    let mut all = Vec::new();
    for _ in 0..MAX_ROUNDS {
        let Look { listing, node, findings } = look;
        let now = session.surroundings.now();
        let findings = std::mem::take(findings);
        let done = engine::repair(session.datastore, listing, findings, node.as_ref(), now)
            .await
            .map_err(explain)?;
        let mended = done.iter().any(|(_, done)| *done == Repaired::Mended);
        all.extend(done.into_iter().filter(|(_, done)| !matches!(done, Repaired::Left(_))));
        *look = self::look(session).await?;
        if !mended || look.findings.is_empty() {
            break;
        }
    }
    Ok(all)
}

fn explain(error: Error) -> Failure {
    Failure::caused_by(&error)
}

fn in_words(
    report: &Report,
    look: &Look,
    repaired: &[(Finding, Repaired)],
    was_asked: bool,
) -> String {
    let mut text = format!(
        "Looked at {} pools, {} blocks, {} affinities, {} handles and {} addresses",
        report.pools, report.blocks, report.affinities, report.handles, report.addresses
    );
    match &look.node {
        None => text.push_str("; no containers on this machine to compare with\n"),
        Some(node) => text.push_str(&format!(
            ", and at {} containers' interfaces on node {}\n",
            node.attachments.len(),
            node.host
        )),
    }
    if was_asked {
        for (finding, done) in repaired {
            let done = match done {
                Repaired::Mended => finding.remedy(),
                _ => "gone by itself".to_owned(),
            };
            text.push_str(&format!("{}\n  mended: {done}\n", heading(finding)));
        }
    }
    for finding in &look.findings {
        text.push_str(&format!("{}\n", heading(finding)));
        match finding.obstacle() {
            Some(obstacle) => text.push_str(&format!("  not repaired: {obstacle}\n")),
            None => text.push_str(&format!("  repair: {}\n", finding.remedy())),
        }
    }
    text + &format!("Check complete; found {} problems.\n", look.findings.len())
}

fn heading(finding: &Finding) -> String {
    format!("[{}] {}", finding.kind(), finding.problem())
}

/// The report as it was before a repair, and what the repair did.
fn in_json(report: &Report, repaired: Option<&Vec<(Finding, Repaired)>>) -> String {
    // Serialising plain data does not fail.
    let mut value = serde_json::to_value(report).unwrap_or_default();
    if let Some(repaired) = repaired {
        let entry = |(finding, done): &(Finding, Repaired)| {
            let done = if *done == Repaired::Mended { "mended" } else { "gone" };
            json!({"kind": finding.kind().name(), "keys": finding.keys(), "done": done})
        };
        value["repairs"] = repaired.iter().map(entry).collect();
    }
    json::document(&value)
}

fn advise(findings: &[Finding], was_asked: bool) -> String {
    let safe = findings.iter().filter(|finding| finding.obstacle().is_none()).count();
    match (safe, was_asked) {
        (0, _) => format!("{} problems are not safe to mend; see above", findings.len()),
        (safe, false) => format!("{safe} of them can be mended: weirctl ipam check --repair"),
        (_, true) => {
            "others change the same things meanwhile; try again: weirctl ipam check --repair"
                .to_owned()
        }
    }
}
