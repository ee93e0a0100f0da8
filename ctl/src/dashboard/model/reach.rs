//! How a node reaches the others.

use std::net::IpAddr;

use serde::Serialize;
use weir_common::ipam::Family;
use weir_common::network::{NextHopKind, NodeNextHop, Peer, RouteKind, Underlay, next_hops_from};
use weir_common::tunnel::TunnelKind;

use super::{BadQuestion, ClusterView};

/// The next hops from one node to all others.
#[derive(Debug, Default, Serialize)]
pub struct ReachDocument {
    from: Option<String>,
    pub to: Vec<NextHopRow>,
}

/// The next hop to another node, and the pools for whose addresses it is used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NextHopRow {
    pub node: String,
    pub family: u8,
    pub how: &'static str,
    pub next_hop: Option<IpAddr>,
    pub device: Option<String>,
    pub pools: Vec<String>,
    pub why: String,
}

impl ReachDocument {
    /// The next hops from the node `asked`, else from `here`, else from the first one.
    ///
    /// # Errors
    /// [`BadQuestion`] where no node of the name is registered.
    pub fn of(
        asked: Option<&str>,
        here: Option<&str>,
        view: &ClusterView,
    ) -> Result<Self, BadQuestion> {
        let nodes = &view.cluster.nodes;
        if let Some(unknown) = asked.filter(|name| !nodes.contains_key(*name)) {
            return Err(BadQuestion(format!(
                "node {unknown:?} is not registered; those that are: weirctl get nodes"
            )));
        }
        let here = here.filter(|name| nodes.contains_key(*name));
        let first = || nodes.keys().next().map(String::as_str);
        let Some(from) = asked.or(here).or_else(first) else { return Ok(Self::default()) };
        Ok(Self { from: Some(from.to_owned()), to: next_hops(from, view) })
    }
}

/// The next hops from a node, each once.
pub fn next_hops(from: &str, view: &ClusterView) -> Vec<NextHopRow> {
    let Some(own) = view.cluster.nodes.get(from) else { return Vec::new() };
    let underlay = Underlay::registered(own);
    let mut rows: Vec<NextHopRow> = Vec::new();
    for hop in next_hops_from(from, &view.cluster, &underlay) {
        let row = row(&hop, own, view);
        let alike =
            |it: &&mut NextHopRow| NextHopRow { pools: row.pools.clone(), ..(*it).clone() } == row;
        // Those to one node come one after another.
        let to_same = rows.iter_mut().rev().take_while(|it| it.node == row.node);
        match to_same.into_iter().find(|it| alike(it)) {
            Some(known) => known.pools.extend(row.pools),
            None => rows.push(row),
        }
    }
    rows
}

fn row(hop: &NodeNextHop<'_>, own: &Peer, view: &ClusterView) -> NextHopRow {
    let row = NextHopRow {
        node: hop.node.to_owned(),
        family: if hop.family == Family::V4 { 4 } else { 6 },
        how: "none",
        next_hop: None,
        device: None,
        pools: vec![hop.pool.to_owned()],
        why: String::new(),
    };
    let peer = view.cluster.nodes.get(hop.node);
    let like = view.cluster.pools.get(hop.pool).map(|pool| pool.cidr.addr());
    let subnet = like.and_then(|like| Some(own.address(like)?.trunc()));
    let theirs = like.and_then(|like| Some(peer?.address(like)?.addr()));
    let of_subnet = || subnet.map(|it| it.to_string()).unwrap_or_default();
    match &hop.kind {
        NextHopKind::Route(RouteKind::Direct { next_hop, .. }) => NextHopRow {
            how: "direct",
            next_hop: Some(*next_hop),
            why: format!("same subnet {}", of_subnet()),
            ..row
        },
        NextHopKind::Route(RouteKind::Tunnel { kind, next_hop, .. }) => {
            let is_cross =
                view.cluster.pools.get(hop.pool).is_some_and(|pool| pool.is_cross_subnet());
            let why = match (is_cross, theirs) {
                (true, Some(theirs)) => {
                    format!("CrossSubnet, and {theirs} is not in {}", of_subnet())
                }
                (true, None) => "CrossSubnet".to_owned(),
                (false, _) => "Always".to_owned(),
            };
            NextHopRow {
                how: short_name(*kind),
                next_hop: Some(*next_hop),
                device: Some(kind.device().to_owned()),
                why: format!("the pool says {why}"),
                ..row
            }
        }
        NextHopKind::Route(RouteKind::Blackhole) => row,
        NextHopKind::Bgp(address) => NextHopRow {
            how: "BGP",
            next_hop: Some(*address),
            why: format!(
                "no tunnel of the pool's leads there, and {address} is not in {}: its routes come \
                 by BGP",
                of_subnet()
            ),
            ..row
        },
        NextHopKind::None(problem) => NextHopRow { why: problem.to_string(), ..row },
    }
}

/// What a kind of tunnel is called where the family is told besides.
pub fn short_name(kind: TunnelKind) -> &'static str {
    let name = kind.row().name;
    name.split_once(' ').map_or(name, |(short, _)| short)
}
