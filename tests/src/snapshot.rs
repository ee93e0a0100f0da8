//! What a network namespace looks like.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::place::Place;

/// Queries whose answers, without [`VOLATILE`] members, make up a snapshot.
/// Neighbours that the kernel learnt by itself come and go, so only permanent
/// ones count.
const QUERIES: [&[&str]; 10] = [
    &["ip", "-d", "-j", "link", "show"],
    &["ip", "-j", "address", "show"],
    &["ip", "-j", "-4", "route", "show", "table", "all"],
    &["ip", "-j", "-6", "route", "show", "table", "all"],
    &["ip", "-j", "-4", "rule", "show"],
    &["ip", "-j", "-6", "rule", "show"],
    &["ip", "-j", "neighbor", "show", "nud", "permanent"],
    &["ip", "-j", "-4", "neighbor", "show", "proxy"],
    &["ip", "-j", "-6", "neighbor", "show", "proxy"],
    &["nft", "-j", "list", "ruleset"],
];

/// Members that differ between two equal worlds: numbers that the kernel
/// gives out, counters and times, and what it notes a moment later.
const VOLATILE: [&str; 18] = [
    "ifindex",
    "link_index",
    "link_netnsid",
    "iif_index",
    "handle",
    "index",
    "packets",
    "bytes",
    "metainfo",
    "preferred_life_time",
    "valid_life_time",
    "expires",
    "gc_timer",
    "hello_timer",
    "tcn_timer",
    "topology_change_timer",
    "operstate",
    "tentative",
];

/// Flags of a link, and of the routes by it, that follow its peer's with a delay.
const VOLATILE_FLAGS: [&str; 3] = ["NO-CARRIER", "LOWER_UP", "linkdown"];

/// Settings of each interface that a plugin may change, and the directories
/// they are in.
const INTERFACE_SYSCTLS: [(&str, &[&str]); 3] = [
    ("ipv4/conf", &["forwarding", "proxy_arp", "route_localnet", "rp_filter"]),
    (
        "ipv6/conf",
        &["accept_dad", "accept_ra", "addr_gen_mode", "disable_ipv6", "forwarding", "proxy_ndp"],
    ),
    ("ipv4/neigh", &["proxy_delay"]),
];

/// Links, addresses, routes of all tables, rules, permanent and proxy
/// neighbours, the nftables rule set and the settings of a namespace, one
/// fact a line. Two snapshots are equal when nothing that matters differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    facts: BTreeSet<String>,
}

impl Snapshot {
    /// Looks at the network namespace of a node or a container.
    pub fn of(place: &impl Place) -> Self {
        let mut facts = BTreeSet::new();
        for query in QUERIES {
            let answer = place.run(query);
            // Some versions of ip print nothing at all for an empty list.
            let text = if answer.trim().is_empty() { "[]" } else { &answer };
            let mut answer: Value = serde_json::from_str(text)
                .unwrap_or_else(|error| panic!("{} printed no JSON: {error}", query.join(" ")));
            remove_volatile(&mut answer);
            facts.extend(facts_in(&query.join(" "), &answer));
        }
        facts.extend(place.enter(sysctls));
        Self { facts }
    }

    /// Requires that `later` is equal, and otherwise says what came and went.
    pub fn assert_unchanged(&self, later: &Self) {
        let mut difference = String::new();
        for gone in self.facts.difference(&later.facts) {
            writeln!(difference, "- {gone}").expect("writing to a string succeeds");
        }
        for new in later.facts.difference(&self.facts) {
            writeln!(difference, "+ {new}").expect("writing to a string succeeds");
        }
        assert!(difference.is_empty(), "the namespace changed:\n{difference}");
    }

    /// The same without the facts that contain any of these texts.
    #[must_use]
    pub fn without(&self, texts: &[&str]) -> Self {
        let is_meant = |fact: &&String| !texts.iter().any(|text| fact.contains(text));
        Self { facts: self.facts.iter().filter(is_meant).cloned().collect() }
    }

    /// Whether some fact contains all of these texts.
    pub fn mentions(&self, texts: &[&str]) -> bool {
        self.facts.iter().any(|fact| texts.iter().all(|text| fact.contains(text)))
    }
}

/// One fact for each element of the list that a query answered with.
fn facts_in(query: &str, answer: &Value) -> Vec<String> {
    let elements = answer.as_array().or_else(|| answer["nftables"].as_array());
    let elements = elements.map(Vec::as_slice).unwrap_or_default();
    let counts = |element: &&Value| {
        element.as_object().is_none_or(|it| !it.is_empty()) && !is_link_local(element)
    };
    elements.iter().filter(counts).map(|element| format!("{query}: {element}")).collect()
}

/// Whether it is a route that the kernel makes by itself for a link's own address,
/// once it is sure of that: a second or two after the link is up.
fn is_link_local(element: &Value) -> bool {
    let destination = element["dst"].as_str().unwrap_or_default();
    element["protocol"] == "kernel"
        && ["fe80::", "ff00::"].iter().any(|prefix| destination.starts_with(prefix))
}

fn remove_volatile(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|name, _| !VOLATILE.contains(&name.as_str()));
            members.values_mut().for_each(remove_volatile);
        }
        Value::Array(elements) => {
            elements.retain(|it| it.as_str().is_none_or(|it| !VOLATILE_FLAGS.contains(&it)));
            elements.iter_mut().for_each(remove_volatile);
        }
        _ => {}
    }
}

/// The calling thread's namespace's settings, `path = value`.
fn sysctls() -> BTreeSet<String> {
    let root = Path::new("/proc/sys/net");
    let mut paths = vec![root.join("ipv4/ip_forward")];
    for (directory, settings) in INTERFACE_SYSCTLS {
        let interfaces = fs::read_dir(root.join(directory)).expect("the kernel has IPv4 and IPv6");
        for interface in interfaces {
            let interface = interface.expect("reading /proc/sys").path();
            paths.extend(settings.iter().map(|setting| interface.join(setting)));
        }
    }
    paths
        .iter()
        .map(|path| {
            let value = fs::read_to_string(path).unwrap_or_default();
            format!("{} = {}", path.display(), value.trim())
        })
        .collect()
}
