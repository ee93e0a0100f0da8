//! BIRD 2.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::IpAddr;
use std::process::Child;

use ipnet::IpNet;

use super::{Neighbour, ReceivedRoute, SpeakerOptions, spawn, until_it_answers};
use crate::node::Node;
use crate::place::Place;

const CONFIGURATION: &str = "/run/router.conf";
const SOCKET: &str = "/run/router.ctl";

pub(super) fn start(node: &Node, configuration: &str) -> Child {
    node.write(CONFIGURATION, configuration);
    let process = spawn(node, &["bird", "-f", "-c", CONFIGURATION, "-s", SOCKET]);
    until_it_answers(node, &["birdc", "-s", SOCKET, "show", "status"]);
    process
}

pub(super) fn configuration(options: &SpeakerOptions) -> String {
    let mut text = format!(
        "router id {};\nlog stderr all;\nprotocol device {{}}\nprotocol direct {{ ipv4; ipv6; }}\n",
        options.router_id
    );
    let (small, large) = options.communities();
    let tuple = |text: &String| text.replace(':', ",");
    let tags = small.iter().map(|it| format!("bgp_community.add(({}));", tuple(it)));
    let large = large.iter().map(|it| format!("bgp_large_community.add(({}));", tuple(it)));
    let tags: String = tags.chain(large).collect();
    for v6 in [false, true] {
        let family = family(v6);
        let routes: String = options
            .announced_of(v6)
            .map(|range| format!(" route {range} blackhole {{ {tags} }};"))
            .collect();
        let exported = "export where source = RTS_BGP;";
        let _ = writeln!(text, "protocol kernel {{ {family} {{ {exported} }}; }}");
        let _ = writeln!(text, "protocol static {{ {family};{routes} }}");
    }
    for neighbour in &options.neighbours {
        text += &session(options.as_number, neighbour);
    }
    text
}

fn session(own: u32, neighbour: &Neighbour) -> String {
    let Neighbour { address, as_number, password } = neighbour;
    let family = family(address.addr().is_ipv6());
    let whom = match neighbour.is_dynamic() {
        true => format!("range {address}"),
        false => address.addr().to_string(),
    };
    let password = password.as_ref().map(|it| format!(" password \"{it}\";")).unwrap_or_default();
    format!(
        "protocol bgp {{ local as {own}; neighbor {whom} as {as_number};{password} \
         connect delay time 1; connect retry time 2; error wait time 1,2; \
         {family} {{ import all; export where source ~ [RTS_BGP, RTS_STATIC]; }}; }}\n"
    )
}

fn family(v6: bool) -> &'static str {
    if v6 { "ipv6" } else { "ipv4" }
}

/// What `show` says of something.
pub(super) fn show(node: &Node, what: &str) -> String {
    let line = ["birdc", "-s", SOCKET, "show"].into_iter().chain(what.split(' '));
    node.run(&line.collect::<Vec<_>>())
}

pub(super) fn is_established(node: &Node, neighbour: IpAddr) -> bool {
    let all = show(node, "protocols all");
    let wanted = format!("Neighbor address: {neighbour}");
    all.split("\n\n").any(|one| {
        one.lines().any(|line| line.trim() == wanted)
            && one.lines().any(|line| line.trim().ends_with("Established"))
    })
}

pub(super) fn received(node: &Node, neighbour: IpAddr) -> BTreeMap<IpNet, ReceivedRoute> {
    let table = if neighbour.is_ipv6() { "master6" } else { "master4" };
    routes(&show(node, &format!("route all table {table} where from = {neighbour}")))
}

/// Reads routes as BIRD prints them.
fn routes(text: &str) -> BTreeMap<IpNet, ReceivedRoute> {
    let (mut routes, mut range) = (BTreeMap::new(), None);
    for line in text.lines() {
        let first = line.split_whitespace().next().unwrap_or_default();
        if let Ok(next) = first.parse::<IpNet>() {
            range = Some(next);
            let (next_hop, as_path) = (next.addr(), Vec::new());
            let route = ReceivedRoute { next_hop, as_path, communities: BTreeSet::new() };
            assert_eq!(routes.insert(next, route), None, "{next} twice:\n{text}");
        }
        let Some(route) = range.and_then(|range| routes.get_mut(&range)) else { continue };
        let Some((attribute, value)) = line.trim().split_once(": ") else { continue };
        match attribute {
            "BGP.next_hop" => {
                let first = value.split(' ').next().unwrap_or_default();
                route.next_hop = first.parse().expect("BIRD prints an address");
            }
            "BGP.as_path" => {
                let number = |it: &str| it.parse().expect("BIRD prints AS numbers");
                route.as_path = value.split_whitespace().map(number).collect();
            }
            "BGP.community" | "BGP.large_community" => {
                // `(64512,120) (64512, 1, 2)`
                let tuples = value.replace(", ", ":").replace(',', ":").replace(['(', ')'], "");
                route.communities.extend(tuples.split_whitespace().map(str::to_owned));
            }
            _ => {}
        }
    }
    routes
}
