//! A node's part in the cluster, for people.

use ipnet::IpNet;
use weir_common::printable;

use super::status::{InKernel, PeerStatus, Range, Status, Tunnel, Vxlan, WayThere};
use crate::commands::{bgp_peers, not_registered};
use crate::output::{Style, boxed, line};

/// Everything there is to say.
pub fn text(status: &Status, style: Style) -> String {
    let mut text = format!("{}\n", style.title(&printable(&format!("Node {}", status.node))));
    if !status.known {
        text.push_str(&not_registered(&status.node));
    }
    text.push_str(&line(&format!("Registered with: {}", registered(status))));
    if status.tunnels.is_empty() {
        text.push_str("Tunnels: none is needed\n");
    }
    text.push_str(&format!("MTU for containers: {}\n", status.container_mtu));
    text.push_str(&tunnels(&status.tunnels, style));
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

const TUNNELS: [&str; 8] =
    ["KIND", "DEVICE", "ADDRESS", "MTU", "UP", "VNI", "PORT", "HARDWARE ADDRESS"];

/// How many of [`TUNNELS`] every kind has.
const COMMON_COLUMNS: usize = 5;

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

/// The last columns are those of VXLAN, which are there where any tunnel is of it.
fn tunnels(tunnels: &[Tunnel], style: Style) -> String {
    let is_any_vxlan = tunnels.iter().any(|tunnel| tunnel.vxlan.is_some());
    let columns = if is_any_vxlan { TUNNELS.len() } else { COMMON_COLUMNS };
    let rows = tunnels.iter().map(|tunnel| tunnel_row(tunnel)[..columns].to_vec()).collect();
    table("Tunnels", &TUNNELS[..columns], rows, style)
}

fn tunnel_row(tunnel: &Tunnel) -> [String; TUNNELS.len()] {
    let address = tunnel.address.map(|address| address.to_string());
    let vxlan = tunnel.vxlan.as_ref();
    let of_vxlan = |field: fn(&Vxlan) -> String| vxlan.map(field).unwrap_or_default();
    [
        tunnel.kind.to_string(),
        tunnel.device.to_owned(),
        address.unwrap_or_else(|| "none yet".to_owned()),
        tunnel.mtu.to_string(),
        if tunnel.up { "yes" } else { "no" }.to_owned(),
        of_vxlan(|vxlan| vxlan.vni.to_string()),
        of_vxlan(|vxlan| vxlan.port.to_string()),
        of_vxlan(|vxlan| vxlan.hardware_address.clone()),
    ]
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
    let tunnel_addresses: Vec<String> =
        peer.tunnel_addresses.values().map(ToString::to_string).collect();
    vec![
        peer.node.clone(),
        addresses.join(", "),
        tunnel_addresses.join(", "),
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
        Some(WayThere::Tunnel { kind, next_hop }) => format!("{} via {next_hop}", kind.device()),
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
