//! A node's part in the cluster, for people.

use ipnet::IpNet;
use weir_common::network::TUNNEL_DEVICE;
use weir_common::printable;

use super::status::{InKernel, PeerStatus, Range, Status, WayThere};
use crate::commands::{bgp_peers, not_registered};
use crate::output::{Style, boxed, line};

/// Everything there is to say.
pub fn text(status: &Status, style: Style) -> String {
    let mut text = format!("{}\n", style.title(&printable(&format!("Node {}", status.node))));
    if !status.known {
        text.push_str(&not_registered(&status.node));
    }
    text.push_str(&line(&format!("Registered with: {}", registered(status))));
    text.push_str(&format!("Tunnel: {}\n", tunnel(status)));
    text.push_str(&format!("MTU for containers: {}\n", status.container_mtu));
    text.push_str(&table("Nodes", &PEERS, status.peers.iter().map(peer_row).collect(), style));
    // IPv6 blocks have long names: apart, they leave IPv4 ones their room.
    for (title, ipv4) in [("IPv4 blocks", true), ("IPv6 blocks", false)] {
        let of_family = status.ranges.iter().filter(|it| it.range.addr().is_ipv4() == ipv4);
        let rows = of_family.map(|range| range_row(range, &status.node)).collect();
        text.push_str(&table(title, &RANGES, rows, style));
    }
    if let Some(bgp) = &status.bgp {
        text.push_str(&format!("\n{}", bgp_peers::text(bgp, style)));
    }
    text.push_str(&list("The kernel needs besides routes", &status.missing, style));
    text.push_str(&list("Problems", &status.problems, style));
    text.push_str(&list("Notes", &status.notes, style));
    text
}

const PEERS: [&str; 5] = ["NODE", "ADDRESS", "TUNNEL ADDRESS", "SUBNET", "BLOCKS"];

const RANGES: [&str; 5] = ["BLOCK", "NODE", "POOL", "WAY", "KERNEL"];

fn registered(status: &Status) -> String {
    let addresses: Vec<String> = status
        .addresses
        .iter()
        .map(|it| match &it.link {
            Some(link) => format!("{} (on {link})", it.address),
            None => format!("{} (on none of this node's links)", it.address),
        })
        .collect();
    if addresses.is_empty() { "no address".to_owned() } else { addresses.join(", ") }
}

fn tunnel(status: &Status) -> String {
    match &status.tunnel {
        None => "none is needed".to_owned(),
        Some(tunnel) => {
            let address = tunnel
                .address
                .map_or_else(|| "no address yet".to_owned(), |address| address.to_string());
            format!("{address} on {}, MTU {}", tunnel.device, tunnel.mtu)
        }
    }
}

fn table(title: &str, header: &[&str], rows: Vec<Vec<String>>, style: Style) -> String {
    if rows.is_empty() {
        return String::new();
    }
    format!("\n{}\n{}", style.title(title), boxed::table(header, &rows, style))
}

fn list(title: &str, lines: &[String], style: Style) -> String {
    if lines.is_empty() {
        return String::new();
    }
    let lines: String = lines.iter().map(|text| line(&format!("- {text}"))).collect();
    format!("\n{}\n{lines}", style.title(title))
}

fn peer_row(peer: &PeerStatus) -> Vec<String> {
    let addresses: Vec<String> = peer.addresses.iter().map(IpNet::to_string).collect();
    vec![
        peer.node.clone(),
        addresses.join(", "),
        peer.tunnel_address.map(|address| address.to_string()).unwrap_or_default(),
        if peer.same_subnet { "same" } else { "other" }.to_owned(),
        peer.blocks.to_string(),
    ]
}

fn range_row(range: &Range, this_node: &str) -> Vec<String> {
    let name =
        |node: &String| if node == this_node { "this node".to_owned() } else { node.clone() };
    let nodes: Vec<String> = range.nodes.iter().map(name).collect();
    vec![
        range.range.to_string(),
        nodes.join(", "),
        range.pool.clone().unwrap_or_default(),
        way(range, this_node),
        kernel(range),
    ]
}

fn way(range: &Range, this_node: &str) -> String {
    match &range.way {
        Some(WayThere::Blackhole) => "blackhole".to_owned(),
        Some(WayThere::Direct { next_hop, link }) => format!("{link} via {next_hop}"),
        Some(WayThere::Tunnel { next_hop }) => format!("{TUNNEL_DEVICE} via {next_hop}"),
        None if range.kernel == InKernel::Foreign => "another program's route".to_owned(),
        None if range.nodes == [this_node] => "containers' own".to_owned(),
        None => "none".to_owned(),
    }
}

fn kernel(range: &Range) -> String {
    let text = match range.kernel {
        InKernel::Agrees if range.way.is_none() => "",
        InKernel::Foreign if range.way.is_none() => "has it",
        InKernel::Agrees => "has it",
        InKernel::Missing => "lacks it",
        InKernel::Differs => "has another",
        InKernel::Superfluous => "has one",
        InKernel::Foreign => "another program's",
    };
    text.to_owned()
}
