//! Prints what was found.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::{Value, json};

use crate::bench::{Bench, Role, VERSIONS};
use crate::checks::{self, Check};
use crate::clauses::CLAUSES;
use crate::run::{Finding, Report};
use crate::verdict::Fault;

/// The word for what came out, and the evidence.
fn outcome(finding: &Finding) -> (&'static str, &str) {
    match &finding.verdict {
        Ok(evidence) => ("pass", evidence),
        Err(Fault::Failed(evidence)) => ("fail", evidence),
        Err(Fault::NotOffered(reason)) => ("not offered", reason),
    }
}

/// What came out for a whole clause: it fails with one of its checks, and is
/// offered with one.
fn together<'a>(findings: impl Iterator<Item = &'a Finding>) -> &'static str {
    let mut whole = "not offered";
    for finding in findings {
        match outcome(finding).0 {
            "fail" => return "fail",
            "pass" => whole = "pass",
            _ => {}
        }
    }
    whole
}

fn plugin(report: &Report, role: Role) -> &str {
    report.benches[usize::from(role == Role::Ipam)].name()
}

/// A table for people: a line for each check, then how many.
pub fn table(report: &Report) -> String {
    let mut text = String::new();
    for bench in &report.benches {
        line(&mut text, &versions(bench));
    }
    let name_width = column(report, |finding| finding.check.name.len());
    let plugin_width = column(report, |finding| plugin(report, finding.role).len());
    for finding in &report.findings {
        let (word, evidence) = outcome(finding);
        let plugin = plugin(report, finding.role);
        let name = finding.check.name;
        let asks = finding.check.asks;
        line(
            &mut text,
            &format!("\n{name:name_width$}  {plugin:plugin_width$}  {word:11}  {asks}"),
        );
        line(&mut text, &format!("{:1$}  {evidence}", "", name_width + plugin_width + 15));
    }
    let mut counts = BTreeMap::new();
    for finding in &report.findings {
        *counts.entry(outcome(finding).0).or_insert(0) += 1;
    }
    let counts: Vec<String> =
        counts.iter().map(|(word, count)| format!("{count} {word}")).collect();
    line(&mut text, &format!("\n{}", counts.join(", ")));
    text
}

fn column(report: &Report, width: impl Fn(&Finding) -> usize) -> usize {
    report.findings.iter().map(width).max().unwrap_or_default()
}

/// Which versions a plugin claims, and which not.
fn versions(bench: &Bench) -> String {
    let missing: Vec<&str> =
        VERSIONS.into_iter().filter(|version| !bench.claimed.contains(version)).collect();
    let mut text = format!("{} claims {}", bench.name(), bench.claimed.join(" "));
    if !missing.is_empty() {
        text += &format!("; not offered: {}", missing.join(" "));
    }
    text
}

/// The same for programs.
pub fn json(report: &Report) -> String {
    let plugins: Vec<Value> = report
        .benches
        .iter()
        .map(|bench| json!({"plugin": bench.name(), "versions": bench.claimed}))
        .collect();
    let checks: Vec<Value> = report
        .findings
        .iter()
        .map(|finding| {
            let (word, evidence) = outcome(finding);
            json!({
                "check": finding.check.name,
                "clause": finding.check.clause(),
                "plugin": plugin(report, finding.role),
                "asks": finding.check.asks,
                "outcome": word,
                "evidence": evidence,
            })
        })
        .collect();
    format!("{:#}\n", json!({"plugins": plugins, "checks": checks}))
}

/// The clauses with their checks and tests, for docs/cni-conformance.md.
pub fn document() -> String {
    let checks = checks::all();
    let mut text =
        "| clause | what it is about | checks | deeper, for Weir |\n|---|---|---|---|\n".to_owned();
    for clause in CLAUSES {
        let own = checks.iter().filter(|check| check.clause() == clause.name);
        let names: Vec<String> = own.map(|check| format!("`{}`", short(check))).collect();
        let deeper: Vec<String> = clause.deeper.iter().map(|file| format!("`{file}.rs`")).collect();
        let (name, about) = (clause.name, clause.about);
        line(
            &mut text,
            &format!("| {name} | {about} | {} | {} |", names.join(", "), deeper.join(", ")),
        );
    }
    line(&mut text, "\n| check | what must hold |\n|---|---|");
    for check in &checks {
        line(&mut text, &format!("| `{}` | {} |", check.name, check.asks));
    }
    text
}

/// The name of a check without its clause.
fn short(check: &Check) -> &'static str {
    check.name.split_once('.').map_or(check.name, |(_, short)| short)
}

/// Several pairs side by side, clause by clause, and then what failed.
pub fn comparison(reports: &[Report]) -> String {
    let mut text = String::from("| clause |");
    for report in reports {
        write_to(
            &mut text,
            &format!(" {} + {} |", report.benches[0].name(), report.benches[1].name()),
        );
    }
    line(&mut text, &format!("\n|---|{}", "---|".repeat(reports.len())));
    for clause in CLAUSES {
        write_to(&mut text, &format!("| {} {} |", clause.name, clause.about));
        for report in reports {
            write_to(&mut text, &format!(" {} |", cell(report, clause.name)));
        }
        text.push('\n');
    }
    for report in reports {
        failures(&mut text, report);
    }
    text
}

/// What came out for a clause of a pair: for each plugin, if it is about both.
fn cell(report: &Report, clause: &str) -> String {
    let of = |role: Role| {
        let own = |it: &&Finding| it.check.clause() == clause && it.role == role;
        let findings: Vec<&Finding> = report.findings.iter().filter(own).collect();
        (!findings.is_empty()).then(|| {
            let passed = findings.iter().filter(|it| it.verdict.is_ok()).count();
            let failed =
                findings.iter().filter(|it| matches!(it.verdict, Err(Fault::Failed(_)))).count();
            match together(findings.iter().copied()) {
                "not offered" => "not offered".to_owned(),
                "pass" => format!("pass {passed}"),
                word => format!("**{word} {failed}** of {}", passed + failed),
            }
        })
    };
    let both: Vec<String> = [Role::Main, Role::Ipam].into_iter().filter_map(of).collect();
    both.join(" / ")
}

fn failures(text: &mut String, report: &Report) {
    let [main, ipam] = &report.benches;
    line(
        text,
        &format!(
            "\n### {} + {}\n\n{}. {}.\n",
            main.name(),
            ipam.name(),
            versions(main),
            versions(ipam)
        ),
    );
    let mut none = true;
    for finding in &report.findings {
        let (word, evidence) = outcome(finding);
        if word == "fail" {
            none = false;
            let plugin = plugin(report, finding.role);
            let asks = finding.check.asks;
            let evidence = evidence.replace('|', "\\|");
            line(
                text,
                &format!("- `{}`, {plugin}: {asks}. Came out: {evidence}", finding.check.name),
            );
        }
    }
    if none {
        line(text, "No check failed.");
    }
}

fn line(text: &mut String, line: &str) {
    write_to(text, line);
    text.push('\n');
}

fn write_to(text: &mut String, part: &str) {
    // Writing to a string succeeds.
    let _ = text.write_str(part);
}
