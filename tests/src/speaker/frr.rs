//! FRR: zebra, which makes routes in the kernel, bgpd, and bfdd where a test wants it.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::IpAddr;
use std::process::Child;

use ipnet::IpNet;
use serde_json::{Deserializer, Value};

use super::{ReceivedRoute, SpeakerOptions, spawn, until_it_answers};
use crate::node::Node;
use crate::place::Place;

/// The daemon that speaks.
pub(super) const BGPD: &str = "/usr/lib/frr/bgpd";
const ZEBRA: &str = "/usr/lib/frr/zebra";
const BFDD: &str = "/usr/lib/frr/bfdd";
/// Where the daemons have their sockets.
const DIRECTORY: &str = "/run/frr";

pub(super) fn start(node: &Node, configuration: &str, of_bfd: Option<&str>) -> Vec<Child> {
    // What the daemons would leave on the machine.
    node.run(&["mount", "-t", "tmpfs", "tmpfs", "/var/tmp"]);
    let bfdd = of_bfd.map(|text| (BFDD, text));
    let programs = [Some((ZEBRA, "")), bfdd, Some((BGPD, configuration))];
    let start = |(program, text): (&str, &str)| {
        let name = program.rsplit('/').next().unwrap_or_default();
        let file = format!("{DIRECTORY}/{name}.conf");
        node.write(&file, text);
        // The user of the package, which the daemons become.
        node.run(&["chown", "-R", "frr:frr", DIRECTORY]);
        // No port for terminals.
        let process = spawn(node, &[program, "-f", &file, "-P", "0", "--log", "stdout"]);
        until_it_answers(node, &["vtysh", "-d", name, "-c", "show version"]);
        process
    };
    programs.into_iter().flatten().map(start).collect()
}

pub(super) fn configuration(options: &SpeakerOptions) -> String {
    let (small, large) = options.communities();
    let tags = [("community", small), ("large-community", large)];
    let mut text = "route-map tagged permit 10\n".to_owned();
    for (kind, values) in tags.iter().filter(|(_, values)| !values.is_empty()) {
        let values: Vec<&str> = values.iter().map(|it| it.as_str()).collect();
        let _ = writeln!(text, " set {kind} {} additive", values.join(" "));
    }
    let SpeakerOptions { as_number, router_id, neighbours, .. } = options;
    let _ = write!(
        text,
        "router bgp {as_number}\n bgp router-id {router_id}\n no bgp ebgp-requires-policy\n \
         no bgp default ipv4-unicast\n no bgp network import-check\n"
    );
    let mut names = Vec::new();
    for (number, neighbour) in neighbours.iter().enumerate() {
        let name = match neighbour.is_dynamic() {
            true => format!("group{number}"),
            false => neighbour.address.addr().to_string(),
        };
        if neighbour.is_dynamic() {
            let _ = writeln!(text, " neighbor {name} peer-group");
        }
        let _ = writeln!(text, " neighbor {name} remote-as {}", neighbour.as_number);
        let _ = writeln!(text, " neighbor {name} timers connect 1");
        if let Some(password) = &neighbour.password {
            let _ = writeln!(text, " neighbor {name} password {password}");
        }
        if neighbour.is_dynamic() {
            let _ = writeln!(text, " bgp listen range {} peer-group {name}", neighbour.address);
        }
        names.push((neighbour.address.addr().is_ipv6(), name));
    }
    for v6 in [false, true] {
        let _ = writeln!(text, " address-family {} unicast", family(v6));
        for (_, name) in names.iter().filter(|(is, _)| *is == v6) {
            let _ = writeln!(text, "  neighbor {name} activate");
        }
        for range in options.announced_of(v6) {
            let _ = writeln!(text, "  network {range} route-map tagged");
        }
        text += " exit-address-family\n";
    }
    text
}

fn family(v6: bool) -> &'static str {
    if v6 { "ipv6" } else { "ipv4" }
}

/// What `show` says of these, one after the other.
pub(super) fn show(node: &Node, what: &[&str]) -> String {
    let commands: Vec<String> = what.iter().map(|what| format!("show {what}")).collect();
    let line = commands.iter().flat_map(|command| ["-c", command.as_str()]);
    node.run(&["vtysh", "-d", "bgpd"].into_iter().chain(line).collect::<Vec<_>>())
}

pub(super) fn is_established(node: &Node, neighbour: IpAddr) -> bool {
    let summary = show(node, &["bgp summary json"]);
    let summary: Value = serde_json::from_str(&summary).expect("vtysh prints JSON");
    let of_family = if neighbour.is_ipv6() { "ipv6Unicast" } else { "ipv4Unicast" };
    summary[of_family]["peers"][neighbour.to_string()]["state"] == "Established"
}

pub(super) fn received(node: &Node, neighbour: IpAddr) -> BTreeMap<IpNet, ReceivedRoute> {
    let unicast = format!("bgp {} unicast", family(neighbour.is_ipv6()));
    let listed = show(node, &[&format!("{unicast} neighbors {neighbour} routes json")]);
    let listed: Value = serde_json::from_str(&listed).expect("vtysh prints JSON");
    let ranges: Vec<&String> =
        listed["routes"].as_object().into_iter().flatten().map(|it| it.0).collect();
    // The list has no communities.
    let each: Vec<String> = ranges.iter().map(|range| format!("{unicast} {range} json")).collect();
    let each: Vec<&str> = each.iter().map(String::as_str).collect();
    let text = if each.is_empty() { String::new() } else { show(node, &each) };
    let details = Deserializer::from_str(&text).into_iter::<Value>();
    let details = details.map(|one| one.expect("vtysh prints JSON"));
    // One that went meanwhile says nothing.
    let routes = details.filter_map(|one| {
        let range = one["prefix"].as_str()?.parse().expect("FRR prints prefixes");
        let mut paths = one["paths"].as_array()?.iter();
        let path = paths.find(|path| path["peer"]["peerId"] == neighbour.to_string())?;
        Some((range, route(path)))
    });
    routes.collect()
}

fn route(path: &Value) -> ReceivedRoute {
    let mut next_hops = path["nexthops"].as_array().expect("FRR prints next hops").iter();
    let global = next_hops.find(|hop| hop["scope"] != "link-local").expect("a global next hop");
    let as_path = path["aspath"]["string"].as_str().unwrap_or_default();
    let number = |it: &str| it.parse().expect("FRR prints AS numbers");
    let communities = ["community", "largeCommunity"].map(|kind| path[kind]["list"].clone());
    let communities = communities.iter().filter_map(Value::as_array).flatten();
    ReceivedRoute {
        next_hop: global["ip"].as_str().and_then(|it| it.parse().ok()).expect("an address"),
        as_path: as_path.split_whitespace().filter(|it| *it != "Local").map(number).collect(),
        communities: communities.filter_map(Value::as_str).map(str::to_owned).collect(),
    }
}
