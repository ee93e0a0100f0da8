//! GoBGP.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::IpAddr;
use std::process::Child;

use ipnet::IpNet;
use serde_json::Value;

use super::{ReceivedRoute, SpeakerOptions, spawn, until_it_answers};
use crate::node::Node;
use crate::place::Place;

const CONFIGURATION: &str = "/run/gobgpd.toml";

/// Attributes of a path by their type (RFC 4271, 1997, 4760, 8092).
const AS_PATH: u64 = 2;
const NEXT_HOP: u64 = 3;
const COMMUNITIES: u64 = 8;
const MULTIPROTOCOL_REACH: u64 = 14;
const LARGE_COMMUNITIES: u64 = 32;

pub(super) fn start(node: &Node, options: &SpeakerOptions) -> Child {
    node.write(CONFIGURATION, &configuration(options));
    let interface = ["--api-hosts", "127.0.0.1:50051", "--log-plain"];
    let process = spawn(node, &[&["gobgpd", "-f", CONFIGURATION][..], &interface].concat());
    until_it_answers(node, &["gobgp", "global"]);
    let (small, large) = options.communities();
    let joined = |all: Vec<&String>| all.into_iter().cloned().collect::<Vec<_>>().join(",");
    let tags = [("community", joined(small)), ("large-community", joined(large))];
    for range in &options.announced {
        let range = (range.to_string(), family(range.addr().is_ipv6()));
        let mut line = vec!["gobgp", "global", "rib", "add", &range.0];
        for (kind, values) in tags.iter().filter(|(_, values)| !values.is_empty()) {
            line.extend([*kind, values]);
        }
        line.extend(["-a", range.1]);
        node.run(&line);
    }
    process
}

fn configuration(options: &SpeakerOptions) -> String {
    let SpeakerOptions { as_number, router_id, neighbours, .. } = options;
    let mut text = format!("[global.config]\nas = {as_number}\nrouter-id = \"{router_id}\"\n");
    for (number, neighbour) in neighbours.iter().enumerate() {
        let (address, peer) = (neighbour.address, neighbour.as_number);
        let table = if neighbour.is_dynamic() { "peer-groups" } else { "neighbors" };
        let _ = writeln!(text, "[[{table}]]\n[{table}.config]\npeer-as = {peer}");
        if let Some(password) = &neighbour.password {
            let _ = writeln!(text, "auth-password = \"{password}\"");
        }
        let _ = match neighbour.is_dynamic() {
            true => writeln!(text, "peer-group-name = \"group{number}\""),
            false => writeln!(text, "neighbor-address = \"{}\"", address.addr()),
        };
        let _ = writeln!(
            text,
            "[{table}.timers.config]\nconnect-retry = 1\nidle-hold-time-after-reset = 1"
        );
        let family = format!("{}-unicast", family(address.addr().is_ipv6()));
        let _ = writeln!(
            text,
            "[[{table}.afi-safis]]\n[{table}.afi-safis.config]\nafi-safi-name = \"{family}\""
        );
        if neighbour.is_dynamic() {
            let _ = writeln!(
                text,
                "[[dynamic-neighbors]]\n[dynamic-neighbors.config]\nprefix = \"{address}\"\n\
                 peer-group = \"group{number}\""
            );
        }
    }
    text
}

fn family(v6: bool) -> &'static str {
    if v6 { "ipv6" } else { "ipv4" }
}

/// What the client says.
pub(super) fn show(node: &Node, what: &[&str]) -> String {
    node.run(&[&["gobgp"][..], what].concat())
}

pub(super) fn is_established(node: &Node, neighbour: IpAddr) -> bool {
    let all = show(node, &["neighbor", "-j"]);
    let all: Value = serde_json::from_str(&all).expect("gobgp prints JSON");
    let states = all.as_array().into_iter().flatten().map(|one| &one["state"]);
    let mut of_neighbour = states.filter(|it| it["neighbor_address"] == neighbour.to_string());
    of_neighbour.any(|state| state["session_state"] == 6)
}

pub(super) fn received(node: &Node, neighbour: IpAddr) -> BTreeMap<IpNet, ReceivedRoute> {
    let table = show(node, &["global", "rib", "-j", "-a", family(neighbour.is_ipv6())]);
    let table: Value = serde_json::from_str(&table).expect("gobgp prints JSON");
    let paths = table.as_object().into_iter().flatten().flat_map(|(range, paths)| {
        let range: IpNet = range.parse().expect("gobgp prints prefixes");
        paths.as_array().into_iter().flatten().map(move |path| (range, path))
    });
    let of_neighbour = paths.filter(|(_, path)| path["neighbor-ip"] == neighbour.to_string());
    of_neighbour.map(|(range, path)| (range, route(path))).collect()
}

fn route(path: &Value) -> ReceivedRoute {
    let attributes = path["attrs"].as_array().expect("gobgp prints attributes");
    let of = |kind: u64| attributes.iter().find(|it| it["type"] == kind);
    let list = |value: Option<&Value>| value.and_then(Value::as_array).cloned().unwrap_or_default();
    let next_hop = of(NEXT_HOP).or(of(MULTIPROTOCOL_REACH)).map(|it| &it["nexthop"]);
    let segments = list(of(AS_PATH).map(|it| &it["as_paths"]));
    let numbers = segments.iter().flat_map(|it| list(Some(&it["asns"])));
    let small = list(of(COMMUNITIES).map(|it| &it["communities"]));
    let small = small.iter().filter_map(Value::as_u64);
    let small = small.map(|it| format!("{}:{}", it >> 16, it & 0xffff));
    let large = list(of(LARGE_COMMUNITIES).map(|it| &it["value"]));
    let part = |of: &Value, name: &str| of[name].as_u64().unwrap_or_default();
    let large = large.iter().map(|it| {
        format!("{}:{}:{}", part(it, "ASN"), part(it, "LocalData1"), part(it, "LocalData2"))
    });
    ReceivedRoute {
        next_hop: next_hop
            .and_then(Value::as_str)
            .and_then(|it| it.parse().ok())
            .expect("an address"),
        as_path: numbers.filter_map(|it| u32::try_from(it.as_u64()?).ok()).collect(),
        communities: small.chain(large).collect::<BTreeSet<_>>(),
    }
}
