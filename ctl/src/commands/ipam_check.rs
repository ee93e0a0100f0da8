//! `weirctl ipam check`

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;
use weir_common::audit::engine::{RepairOutcome, SETTLING_TIME, seen_twice};
use weir_common::audit::{AuditContext, Finding, Report, Unjudged};

use super::repair::{GoneHostArgs, Scan};
use super::{ipam_show, report};
use crate::output::{json, line};
use crate::session::{CommandResult, Failure, Session};

/// Arguments of `weirctl ipam check`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Exit status 0 when nothing is damaged, or all of it was repaired; else 1. What \
                  is not judged is counted, and does not change the status.\n\n\
                  Examples:\n  weirctl ipam check\n  weirctl ipam check --repair\n  \
                  weirctl ipam check --repair --gone-host n9 --dry-run\n  \
                  weirctl ipam check -o report.json"
)]
pub struct CheckArgs {
    /// Repair what is safe to repair
    #[arg(long)]
    pub repair: bool,
    /// Report what a repair would change, but change nothing
    #[arg(long, requires = "repair")]
    pub dry_run: bool,
    #[command(flatten)]
    gone: GoneHostArgs,
    /// How the report is printed: text, or json for scripts (docs/audit.md has
    /// the fields); or a FILE with a '.' or '/' in its name, to write the JSON to
    /// while the text is printed
    #[arg(short, long, value_name = "text|json|FILE", value_parser = parse_output)]
    pub output: Option<Output>,
    /// Show all addresses in use as well, as ipam show --show-addresses does
    #[arg(long)]
    pub show_all_ips: bool,
    /// calicoctl's flag for what is always shown here.
    #[arg(long, hide = true)]
    pub show_problem_ips: bool,
}

/// How a report is printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// For people.
    Text,
    /// For scripts.
    Json,
    /// For people, and for scripts into this file.
    File(PathBuf),
}

fn parse_output(text: &str) -> Result<Output, String> {
    match text {
        "text" => Ok(Output::Text),
        "json" => Ok(Output::Json),
        file if file.contains(['.', '/']) => Ok(Output::File(file.into())),
        other => Err(format!("write text, json, or a file's name with its path: ./{other}")),
    }
}

/// How often a repair scans again after it has repaired something; what one
/// finding hides shows after one or two times.
const MAX_ROUNDS: usize = 8;

/// Why something is left that only the last scan found.
const APPEARED: &str = "it appeared during the repair";

/// Compares everything, and repairs it if asked to.
///
/// # Errors
/// [`Failure`] when something is damaged still, or the datastore fails.
pub async fn run(arguments: CheckArgs, session: &Session<'_>) -> CommandResult {
    let gone = arguments.gone.names();
    let mut scan = Scan::run(session, &gone).await?;
    let context =
        AuditContext { node: scan.node.as_ref(), gone: &gone, now: session.environment.now() };
    let report = Report::new(&scan.snapshot, &scan.findings, &context);
    let mut repairs = Repairs::default();
    if arguments.repair {
        (scan, repairs) = repair(scan, session, &gone).await?;
    }
    let words = || in_words(&report, &scan, &repairs, arguments.repair);
    let json = || in_json(&report, &repairs, &arguments);
    let mut output = match &arguments.output {
        Some(Output::Json) => json(),
        Some(Output::File(file)) => {
            write(session, file, &json())?;
            words()
        }
        Some(Output::Text) | None => words(),
    };
    if arguments.show_all_ips && arguments.output != Some(Output::Json) {
        let addresses = ipam_show::addresses::show(session, None, false).await;
        let addresses = addresses.map_err(|error| Failure::new(report::with_advice(&error)))?;
        output.insert_str(0, &addresses);
    }
    if scan.findings.is_empty() {
        return Ok(output);
    }
    Err(Failure { output, message: advise(&scan.findings, arguments.repair) })
}

fn write(session: &Session<'_>, file: &Path, report: &str) -> Result<(), Failure> {
    session.environment.write_file(file, report).map_err(|error| {
        let file = file.display();
        Failure::new(format!("{file} cannot be written: {error}; name a file that can be, with -o"))
    })
}

/// What a repair did.
#[derive(Default)]
struct Repairs {
    /// What it repaired, or found gone by itself.
    done: Vec<(Finding, RepairOutcome)>,
    /// What it left at last, and why.
    left: Vec<(Finding, String)>,
}

impl Repairs {
    /// Takes in what became of the findings of one round; returns whether one was
    /// repaired.
    fn learn(&mut self, round: Vec<(Finding, RepairOutcome)>) -> bool {
        self.left.clear();
        let is_repaired =
            |(_, outcome): &(Finding, RepairOutcome)| *outcome == RepairOutcome::Repaired;
        let any = round.iter().any(is_repaired);
        for (finding, outcome) in round {
            match outcome {
                RepairOutcome::Left(reason) => self.left.push((finding, reason)),
                done => self.done.push((finding, done)),
            }
        }
        any
    }

    /// Why a finding is left.
    fn reason(&self, finding: &Finding) -> String {
        let left = self.left.iter().find(|(left, _)| left.is_alike(finding));
        let known = || left.map(|(_, reason)| reason.clone());
        finding.obstacle.clone().or_else(known).unwrap_or_else(|| APPEARED.to_owned())
    }
}

/// Repairs until nothing is repaired any more; returns the last scan.
async fn repair(
    mut scan: Scan,
    session: &Session<'_>,
    gone: &BTreeSet<String>,
) -> Result<(Scan, Repairs), Failure> {
    let mut repairs = Repairs::default();
    for _ in 0..MAX_ROUNDS {
        if scan.findings.is_empty() {
            break;
        }
        session.environment.pause(SETTLING_TIME).await;
        let (earlier, since) = (scan.findings, scan.snapshot.revision);
        let second = Scan::run(session, gone).await?;
        let settled = seen_twice(&earlier, &second.findings);
        let all_seen = settled.len() == second.findings.len();
        let repaired = repairs.learn(second.repair(settled, since, session, gone).await?);
        scan = Scan::run(session, gone).await?;
        if !repaired && all_seen {
            break;
        }
    }
    Ok((scan, repairs))
}

fn in_words(report: &Report, scan: &Scan, repairs: &Repairs, was_asked: bool) -> String {
    let mut text = format!(
        "Looked at {} pools, {} blocks, {} affinities, {} handles and {} addresses",
        report.pools, report.blocks, report.affinities, report.handles, report.addresses
    );
    match &scan.node {
        None => text.push_str("; no containers on this machine to compare with\n"),
        Some(node) => text.push_str(&format!(
            ", and at {} containers' interfaces on node {}\n",
            node.judged(),
            node.host
        )),
    }
    for unjudged in scan.node.iter().flat_map(|node| &node.unjudged) {
        text.push_str(&line(&not_judged(unjudged)));
    }
    if report.cooling_down > 0 {
        text.push_str(&format!(
            "Cooling down: {} addresses, released and not free before ipCooldownSeconds are over\n",
            report.cooling_down
        ));
    }
    for unjudged in &report.not_judged_addresses {
        text.push_str(&line(&unjudged.in_words(scan.node.as_ref())));
    }
    for (finding, outcome) in &repairs.done {
        let done = match outcome {
            RepairOutcome::Repaired => format!("repaired: {}", finding.remedy),
            _ => "gone by itself".to_owned(),
        };
        text.push_str(&format!("{}\n  {done}\n", heading(finding)));
    }
    for finding in &scan.findings {
        text.push_str(&format!("{}\n", heading(finding)));
        match finding.obstacle {
            None if !was_asked => text.push_str(&format!("  repair: {}\n", finding.remedy)),
            _ => text.push_str(&format!("  not repaired: {}\n", repairs.reason(finding))),
        }
    }
    text.push_str(&format!("Check complete; found {} problems.", scan.findings.len()));
    let unjudged: usize = report.not_judged_addresses.iter().map(|it| it.addresses).sum();
    if unjudged > 0 {
        text.push_str(&format!(" Not judged: {unjudged} of {} addresses.", report.addresses));
    }
    text + "\n"
}

fn not_judged(unjudged: &Unjudged) -> String {
    let of = unjudged.file.as_ref().map(|file| format!(" of {file}")).unwrap_or_default();
    let Unjudged { network, kinds, reason, .. } = unjudged;
    format!("Not judged: {} for network {network}{of}: {reason}", kinds.join(" and "))
}

fn heading(finding: &Finding) -> String {
    format!("[{}] {}", finding.kind, finding.problem)
}

/// The report as it was before a repair, and what the repair did.
fn in_json(report: &Report, repairs: &Repairs, arguments: &CheckArgs) -> String {
    // Serialising plain data does not fail.
    let mut value = serde_json::to_value(report).unwrap_or_default();
    if arguments.repair {
        let entry = |(finding, outcome): &(Finding, RepairOutcome)| {
            let done = if *outcome == RepairOutcome::Repaired { "repaired" } else { "gone" };
            json!({"kind": finding.kind.name(), "keys": finding.keys, "done": done})
        };
        let left = |(finding, reason): &(Finding, String)| {
            let kind = finding.kind.name();
            json!({"kind": kind, "keys": finding.keys, "done": "left", "reason": reason})
        };
        let done = repairs.done.iter().map(entry);
        value["repairs"] = done.chain(repairs.left.iter().map(left)).collect();
    }
    if arguments.dry_run {
        value["dryRun"] = true.into();
    }
    json::document(&value)
}

fn advise(findings: &[Finding], was_asked: bool) -> String {
    let safe = findings.iter().filter(|finding| finding.obstacle.is_none()).count();
    match (safe, was_asked) {
        (0, _) => format!("{} problems are not safe to repair; see above", findings.len()),
        (safe, false) => format!("{safe} of them can be repaired: weirctl ipam check --repair"),
        (safe, true) => format!(
            "{safe} problems are left for the reasons above; try again: weirctl ipam check --repair"
        ),
    }
}
