//! Weir keeps every clause of the CNI contract; the suite that says so has a
//! check for each and finds what is wrong with other plugins.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Mutex, PoisonError};

use serde_json::Value;

/// The suite runs two checks at once; that is as much as is asked of a machine.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn conformance(arguments: &[&str]) -> Output {
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let mut program = Command::new(env!("CARGO_BIN_EXE_conformance"));
    program.args(arguments).output().expect("cargo has built it")
}

/// What the suite found, as (name of the check, plugin, outcome, evidence).
fn findings(arguments: &[&str]) -> Vec<[String; 4]> {
    let output = conformance(&[arguments, &["--output", "json"]].concat());
    let report: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("the report is JSON: {error}: {output:?}"));
    let checks = report["checks"].as_array().expect("a report lists checks");
    let failed = checks.iter().any(|check| check["outcome"] == "fail");
    assert_eq!(output.status.code(), Some(i32::from(failed)), "the exit status says it");
    let texts = |check: &Value| {
        ["check", "plugin", "outcome", "evidence"]
            .map(|member| check[member].as_str().expect("a text").to_owned())
    };
    checks.iter().map(texts).collect()
}

/// The checks with this outcome, as `check plugin`.
fn with_outcome(findings: &[[String; 4]], wanted: &str) -> BTreeSet<String> {
    let chosen = findings.iter().filter(|[_, _, outcome, _]| outcome == wanted);
    chosen.map(|[check, plugin, ..]| format!("{check} {plugin}")).collect()
}

fn docs() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/cni-conformance.md");
    fs::read_to_string(path).expect("docs/cni-conformance.md is there")
}

/// The rows of the suite's own list: clause, what it is about, checks, tests.
fn rows(table: &str) -> Vec<Vec<&str>> {
    // Below the head and its rule, up to the next table.
    let lines = table.lines().skip(2).take_while(|line| !line.is_empty());
    lines
        .map(|line| line.trim_matches('|'))
        .map(|line| line.split('|').map(str::trim).collect())
        .collect()
}

#[test]
fn every_clause_has_a_check() {
    let output = conformance(&["--document"]);
    let table = String::from_utf8(output.stdout).expect("the list is UTF-8");
    let rows = rows(&table);
    let clauses: Vec<String> = [("P", 13), ("M", 11), ("I", 7)]
        .iter()
        .flat_map(|(letter, count)| (1..=*count).map(move |number| format!("{letter}{number}")))
        .collect();
    assert_eq!(rows.iter().map(|row| row[0]).collect::<Vec<_>>(), clauses);
    for row in &rows {
        assert!(row[2].contains('`'), "{} has no check", row[0]);
        for file in row[3].split(", ").filter(|file| !file.is_empty()) {
            let path =
                Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(file.trim_matches('`'));
            assert!(path.is_file(), "{} names {file}, which is not there", row[0]);
        }
    }
}

#[test]
fn the_document_has_the_suites_list() {
    let output = conformance(&["--document"]);
    let table = String::from_utf8(output.stdout).expect("the list is UTF-8");
    assert!(
        docs().contains(&table),
        "docs/cni-conformance.md should have what scripts/conformance.sh --document prints:\n{table}"
    );
}

#[test]
fn weir_keeps_every_clause() {
    let findings = findings(&[]);
    let failed: Vec<_> = findings.iter().filter(|[_, _, outcome, _]| outcome == "fail").collect();
    assert!(failed.is_empty(), "{failed:#?}");
    let not_offered = with_outcome(&findings, "not offered");
    assert_eq!(not_offered, BTreeSet::from(NOT_FOR_WEIR.map(str::to_owned)));
}

/// Checks that have no meaning for one of Weir's plugins.
const NOT_FOR_WEIR: [&str; 3] = [
    // The container is the main plugin's.
    "P8.never-unknown-container weir-ipam",
    "P9.no-address weir-ipam",
    "P12.mac weir-ipam",
];

/// What ptp and host-local were found to lack, whatever their version.
const KNOWN_GAPS: [&str; 11] = [
    "I1.no-section host-local",
    "I5.other-address host-local",
    "M4.no-address ptp",
    "M4.no-result ptp",
    "M7.kept ptp",
    "M8.delegate-fails ptp",
    "M9.others-tolerated ptp",
    "P6.echo host-local",
    "P6.echo ptp",
    "P7.error-version host-local",
    "P7.error-version ptp",
];

#[test]
fn the_suite_finds_what_other_plugins_lack() {
    let findings = findings(&["--main", "ptp", "--ipam", "host-local"]);
    let failed = with_outcome(&findings, "fail");
    let unnoticed: Vec<_> = KNOWN_GAPS.iter().filter(|gap| !failed.contains(**gap)).collect();
    assert!(unnoticed.is_empty(), "not found: {unnoticed:?}; found: {failed:#?}");
    let passed = with_outcome(&findings, "pass");
    // No reference plugin collects garbage.
    assert!(!passed.contains("M10.drops-unlisted ptp"), "{passed:#?}");
    assert!(!passed.contains("I6.drops-unlisted host-local"), "{passed:#?}");
}

#[test]
fn the_suite_passes_what_other_plugins_do_right() {
    let right = ["P1", "P2", "P3", "P8", "P10", "P11", "P13", "M1", "M3", "M5", "I2", "I3"];
    let only = right.iter().flat_map(|clause| ["--only", clause]);
    let arguments: Vec<&str> =
        ["--main", "ptp", "--ipam", "host-local"].into_iter().chain(only).collect();
    let findings = findings(&arguments);
    let failed = with_outcome(&findings, "fail");
    assert!(failed.is_empty(), "{findings:#?}");
    let passed = with_outcome(&findings, "pass");
    for clause in right {
        let passes = passed.iter().any(|check| check.starts_with(&format!("{clause}.")));
        assert!(passes, "{clause}: {findings:#?}");
    }
}

/// A plugin that says yes to everything.
const YES: &str = r#"#!/bin/sh
[ "$CNI_COMMAND" != VERSION ] || echo "$VERSIONS"
"#;

/// A plugin that says no to everything, waits for its input whatever it is
/// asked, and has versions that there are not.
const NO: &str = r#"#!/bin/sh
[ -n "$CNI_PATH" ] || exit 1
cat >/dev/null
if [ "$CNI_COMMAND" = VERSION ]; then
    echo "$VERSIONS" | sed 's/"1.1.0"]/"1.1.0", "7.0.0"]/'
    exit 0
fi
echo '{"code": 3, "msg": "no"}'
exit 1
"#;

/// A plugin that gives any address that it is asked for, by CNI_ARGS first, and
/// knows nothing of CNI_NETNS_OVERRIDE.
const GIVES: &str = r#"#!/bin/sh
input=$(cat)
case $CNI_COMMAND:$CNI_NETNS in
VERSION:*)
    echo "$VERSIONS"
    exit 0 ;;
ADD:/run/netns/own | ADD:/proc/self/ns/net)
    echo '{"code": 8, "msg": "the own namespace"}'
    exit 1 ;;
ADD:*) ;;
*) exit 0 ;;
esac
asked=$(echo "$CNI_ARGS" | sed -n 's/^IP=//p')
[ -n "$asked" ] || asked=$(echo "$input" | sed -n 's/.*"ips":\["\([^"]*\)".*/\1/p')
ips=$(echo "$asked" | sed 's|[^,]*|{"address": "&/24", "gateway": "10.9.0.1"}|g')
echo "{\"cniVersion\": \"1.1.0\", \"ips\": [$ips]}"
"#;

const VERSIONS: &str = r#"VERSIONS='{"cniVersion": "9.9.9", "supportedVersions":
["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]}'"#;

#[test]
fn every_check_can_fail() {
    let mut never = BTreeSet::new();
    let mut sometimes = BTreeSet::new();
    for script in [YES, NO, GIVES] {
        let script = script.replacen('\n', &format!("\n{VERSIONS}\n"), 1);
        let directory = tempfile::tempdir().unwrap();
        // Weir's names, so that every kind of world can be made for them.
        for name in ["weir", "weir-ipam"] {
            let path = directory.path().join(name);
            fs::write(&path, &script).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let path = directory.path().to_str().expect("a UTF-8 path");
        let findings = findings(&["--plugin-path", path, "--call-limit", "2"]);
        never.extend(findings.iter().map(|[check, ..]| check.clone()));
        let failed = findings.into_iter().filter(|[_, _, outcome, _]| outcome == "fail");
        sometimes.extend(failed.map(|[check, ..]| check));
    }
    never.retain(|check| !sometimes.contains(check));
    assert!(never.is_empty(), "nothing makes these fail: {never:#?}");
}
