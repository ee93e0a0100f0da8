//! What a store says reaches a terminal as text only, and an advised command as one word.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::{Value, json};
use weir_tests::Cluster;

/// A name that clears the screen, ends its line, leaves its quotes and runs a program. The last
/// part would begin a line.
const HOSTILE: &str =
    "x\u{1b}[2J\u{7}\r\nBEGUN '\"`id` $(id) \\ ; & \u{9b}31m\u{7f}\u{202e}\u{2066}z";

/// A damaged store in which every name is the hostile one.
fn entries() -> Vec<(String, Value)> {
    let resource = |kind: &str, name: &str, spec: Value| {
        json!({"kind": kind, "apiVersion": "projectcalico.org/v3",
            "metadata": {"name": name, "labels": {HOSTILE: HOSTILE}}, "spec": spec})
    };
    let key =
        |kind: &str, name: &str| format!("/calico/resources/v3/projectcalico.org/{kind}/{name}");
    let pool = |cidr: &str| json!({"cidr": cidr, "blockSize": 28});
    let bgp = |address: &str| json!({"bgp": {"ipv4Address": address}});
    let mut wrong = pool("10.63.0.0/24");
    wrong["ipipMode"] = HOSTILE.into();
    let mut elsewhere = pool("10.62.0.0/24");
    elsewhere["nodeSelector"] = format!("zone == \"{}\"", HOSTILE.replace('"', "")).into();
    let block = "/calico/ipam/v2/assignment/ipv4/block";
    let affinity =
        |host: &str, block: &str| format!("/calico/ipam/v2/host/{host}/ipv4/block/{block}");
    let holder = |handle: &str| {
        json!({"handle_id": handle, "secondary": {"node": HOSTILE, "pod": HOSTILE,
            "namespace": HOSTILE, HOSTILE: HOSTILE}})
    };
    let mut allocations = vec![json!(0), json!(0), json!(1)];
    allocations.resize(16, Value::Null);
    let content = |cidr: &str, host: Value| {
        json!({"cidr": cidr, "affinity": host, "allocations": allocations,
            "unallocated": (3..16).collect::<Vec<_>>(), "sequenceNumber": 1,
            "attributes": [holder(HOSTILE), holder("alone")], "deleted": false})
    };
    let host = || json!(format!("host:{HOSTILE}"));
    vec![
        (key("ippools", HOSTILE), resource("IPPool", HOSTILE, pool("10.60.0.0/24"))),
        (key("ippools", "good"), resource("IPPool", "good", pool("10.61.0.0/28"))),
        (key("ippools", "elsewhere"), resource("IPPool", "elsewhere", elsewhere)),
        (key("ippools", "wrong"), resource("IPPool", "wrong", wrong)),
        (
            key("ipreservations", HOSTILE),
            resource(
                "IPReservation",
                HOSTILE,
                json!({
            "reservedCIDRs": ["10.61.0.5"]}),
            ),
        ),
        (key("nodes", HOSTILE), resource("Node", HOSTILE, bgp("172.16.1.11/24"))),
        (key("nodes", "n1"), resource("Node", "n1", bgp("172.16.1.11/24"))),
        (key("nodes", "n2"), resource("Node", "n2", bgp(HOSTILE))),
        (format!("{block}/10.60.0.0-28"), content("10.60.0.0/28", host())),
        (format!("{block}/10.60.0.16-28"), content("10.60.0.16/28", Value::Null)),
        (
            format!("{block}/10.61.0.0-28"),
            content("10.61.0.0/28", json!(format!("host:gone{HOSTILE}"))),
        ),
        (format!("{block}/10.62.0.0-28"), json!(HOSTILE)),
        (affinity(HOSTILE, "10.60.0.0-28"), json!({"state": "confirmed"})),
        (affinity("other", "10.60.0.0-28"), json!({"state": "confirmed"})),
        (affinity(HOSTILE, "10.60.0.32-28"), json!({"state": "pending"})),
        (affinity(HOSTILE, "10.60.0.48-28"), json!({"state": HOSTILE})),
        (format!("/calico/ipam/v2/handle/{HOSTILE}"), json!({"block": {"10.60.0.0/28": 9}})),
        (format!("/calico/ipam/v2/handle/{HOSTILE}2"), json!({"block": {"10.60.0.0/28": 1}})),
        (format!("/calico/ipam/v2/handle/{HOSTILE}3"), json!({"block": {HOSTILE: 1}})),
        (format!("/calico/weir/v1/renames/{HOSTILE}"), json!({"to": HOSTILE})),
    ]
}

/// Every command that prints text, with what it reads.
fn lines() -> Vec<(Vec<&'static str>, &'static str)> {
    let split = |line: &'static str| {
        line.split(' ').map(|word| if word == "HOSTILE" { HOSTILE } else { word }).collect()
    };
    let read = |line| (split(line), "");
    let mut lines: Vec<_> = [
        "get ippool",
        "get ippool -o wide",
        "get ippool -o name",
        "get ippool -o yaml",
        "get ippool -o json",
        "get ippool HOSTILE",
        "get ippool missing HOSTILE -o custom-columns=NAME,SELECTOR",
        "get node -o wide",
        "get node -o name",
        "get node HOSTILE -o yaml",
        "get ipreservation -o wide",
        "get ipamconfig",
        "ipam show",
        "ipam show --show-blocks",
        "ipam show --show-addresses",
        "ipam show --show-addresses -o json",
        "ipam show --show-addresses --pool HOSTILE",
        "ipam show --show-borrowed",
        "ipam show --show-configuration",
        "ipam show --map",
        "ipam show --ip=10.60.0.0",
        "ipam check",
        "ipam check -o json",
        "ipam check --show-all-ips",
        "ipam check --gone-host HOSTILE",
        "ipam check --repair --dry-run",
        "ipam explain --node n1",
        "ipam explain --node HOSTILE",
        "ipam explain --node n1 --pool HOSTILE",
        "ipam explain --node n1 --pool good --pool elsewhere",
        "ipam explain --node n1 --pool missing",
        "ipam release --ip=10.60.0.2 --dry-run",
        "ipam reclaim --dry-run",
        "ipam configure --strictaffinity=true --dry-run",
        "init",
        "label node HOSTILE a=b --dry-run",
        "label node HOSTILE missing --remove",
        "patch ippool HOSTILE -p spec:",
        "patch ippool wrong -p {}",
        "patch ippool HOSTILE -p {\"spec\":{\"nat\":true}}",
        "patch ippool 10.60.0.0/24 -p {\"spec\":{\"cidr\":\"10.9.0.0/24\"}}",
        "delete ippool HOSTILE",
        "delete ippool 10.60.0.0/24",
        "delete ippool HOSTILE --force --dry-run",
        "delete node HOSTILE --dry-run",
        "delete ipreservation HOSTILE missing --dry-run",
        "node status --node n1",
        "node status --node HOSTILE",
        "node status --node n1 -o json",
        "node rename HOSTILE n7 --dry-run",
        "node rename n1 n8 --dry-run",
        "node adopt HOSTILE --dry-run",
    ]
    .map(read)
    .into();
    for (line, input) in [
        ("create -f -", OVERLAPPING),
        ("create -f -", NAMED),
        ("apply -f - --dry-run", OUTDATED),
        ("replace -f -", OUTDATED),
        ("validate -f -", NAMED),
        ("delete -f -", NAMED),
    ] {
        lines.push((split(line), input));
    }
    lines
}

const OVERLAPPING: &str = "{apiVersion: projectcalico.org/v3, kind: IPPool, \
                           metadata: {name: p}, spec: {cidr: 10.60.0.0/16}}";
const NAMED: &str = r#"{"apiVersion": "projectcalico.org/v3", "kind": "IPPool",
    "metadata": {"name": "x\u001b[2J\r\nBEGUN", "labels": {"\u202e\nBEGUN": "\u009b"}},
    "spec": {"cidr": "x\u001b\nBEGUN", "ipipMode": "x\u001b\nBEGUN"}}"#;
const OUTDATED: &str = "{apiVersion: projectcalico.org/v3, kind: Node, \
                        metadata: {name: n1, resourceVersion: \"x\\e\\nBEGUN\"}}";

/// Whether a terminal obeys a character instead of showing it.
fn is_obeyed(character: char) -> bool {
    character != '\n' && character.is_control()
        || ('\u{2028}'..='\u{202e}').contains(&character)
        || ('\u{2066}'..='\u{2069}').contains(&character)
}

/// The words that a shell makes of the start of a text, up to the end of its first word in `$'…'`.
fn words(text: &str) -> Option<Vec<String>> {
    let start = text.find("$'")? + 2;
    let mut escaped = false;
    let length = text[start..].find(|character| {
        let ends = character == '\'' && !escaped;
        escaped = character == '\\' && !escaped;
        ends
    })?;
    let command = &text[..=start + length];
    let script = format!("set -f; printf '%s\\0' {command}");
    let output = Command::new("bash").args(["-c", &script]).output().expect("bash runs");
    assert!(output.status.success(), "{command}");
    let printed = String::from_utf8(output.stdout).expect("the words are text");
    Some(printed.split_terminator('\0').map(str::to_owned).collect())
}

fn check(cluster: &Cluster) {
    let loaded = entries().into_iter().map(|(key, value)| (key, value.to_string())).collect();
    let (mut advised, mut raw) = (BTreeSet::new(), Vec::new());
    for (arguments, input) in lines() {
        cluster.store.clear();
        cluster.store.load(&loaded);
        let answer = cluster.weirctl_with(&arguments, input);
        for text in [&answer.stdout, &answer.stderr] {
            let begun = text.lines().any(|line| line.trim_start().starts_with("BEGUN"));
            if begun || text.contains(is_obeyed) {
                raw.push(format!("{arguments:?}: {text:?}"));
            }
            // In JSON a command has JSON's escapes as well.
            for line in text.lines().filter(|_| !arguments.contains(&"json")) {
                for (at, _) in line.match_indices("weirctl ") {
                    // Up to the next command, or the end of this one.
                    let rest = &line[at..];
                    let end = rest[1..].find("weirctl ").map_or(rest.len(), |next| next + 1);
                    let Some(words) = words(&rest[..end]) else { continue };
                    let name = words.last().expect("a command has words");
                    assert!(name.ends_with(HOSTILE), "{arguments:?}: {words:?}");
                    let command = words[..words.len() - 1].join(" ");
                    advised.insert(format!("{command} {}", name.trim_end_matches(HOSTILE)));
                }
            }
        }
    }
    assert!(raw.is_empty(), "{}", raw.join("\n\n"));
    let expected = [
        "weirctl delete ippool ",
        "weirctl delete node ",
        "weirctl get ippool ",
        "weirctl ipam reclaim --gone-host gone",
        "weirctl ipam show --show-addresses --pool=",
        "weirctl node rename ",
    ];
    let missing: Vec<_> = expected.iter().filter(|it| !advised.contains(**it)).collect();
    assert!(missing.is_empty(), "{missing:?} of {advised:?}");
}

#[test]
fn names_are_only_text_on_the_embedded_store() {
    check(&Cluster::embedded());
}

#[test]
fn names_are_only_text_on_etcd() {
    check(&Cluster::etcd());
}
