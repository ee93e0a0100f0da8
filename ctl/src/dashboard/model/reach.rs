//! How a node reaches the others.

use std::net::IpAddr;

use serde::Serialize;
use weir_common::ipam::Family;
use weir_common::network::{NodeWay, Peer, RouteKind, Underlay, Way, ways_from};
use weir_common::tunnel::TunnelKind;

use super::{BadQuestion, ClusterView};

/// The ways from one node to all others.
#[derive(Debug, Default, Serialize)]
pub struct ReachDocument {
    from: Option<String>,
    pub to: Vec<WayRow>,
}

/// A way to another node, and the pools for whose addresses it is taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WayRow {
    pub node: String,
    pub family: u8,
    pub how: &'static str,
    pub next_hop: Option<IpAddr>,
    pub device: Option<String>,
    pub pools: Vec<String>,
    pub why: String,
}

impl ReachDocument {
    /// The ways from the node `asked`, else from `here`, else from the first one.
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
        Ok(Self { from: Some(from.to_owned()), to: ways(from, view) })
    }
}

/// The ways from a node, each once.
pub fn ways(from: &str, view: &ClusterView) -> Vec<WayRow> {
    let Some(own) = view.cluster.nodes.get(from) else { return Vec::new() };
    let underlay = Underlay::registered(own);
    let mut rows: Vec<WayRow> = Vec::new();
    for way in ways_from(from, &view.cluster, &underlay) {
        let row = row(&way, own, view);
        let alike = |it: &&mut WayRow| WayRow { pools: row.pools.clone(), ..(*it).clone() } == row;
        // Those to one node come one after another.
        let to_same = rows.iter_mut().rev().take_while(|it| it.node == row.node);
        match to_same.into_iter().find(|it| alike(it)) {
            Some(known) => known.pools.extend(row.pools),
            None => rows.push(row),
        }
    }
    rows
}

fn row(way: &NodeWay<'_>, own: &Peer, view: &ClusterView) -> WayRow {
    let row = WayRow {
        node: way.node.to_owned(),
        family: if way.family == Family::V4 { 4 } else { 6 },
        how: "none",
        next_hop: None,
        device: None,
        pools: vec![way.pool.to_owned()],
        why: String::new(),
    };
    let peer = view.cluster.nodes.get(way.node);
    let like = view.cluster.pools.get(way.pool).map(|pool| pool.cidr.addr());
    let subnet = like.and_then(|like| Some(own.address(like)?.trunc()));
    let theirs = like.and_then(|like| Some(peer?.address(like)?.addr()));
    let of_subnet = || subnet.map(|it| it.to_string()).unwrap_or_default();
    match &way.way {
        Way::Route(RouteKind::Direct { next_hop, .. }) => WayRow {
            how: "direct",
            next_hop: Some(*next_hop),
            why: format!("same subnet {}", of_subnet()),
            ..row
        },
        Way::Route(RouteKind::Tunnel { kind, next_hop, .. }) => {
            let is_cross =
                view.cluster.pools.get(way.pool).is_some_and(|pool| pool.is_cross_subnet());
            let why = match (is_cross, theirs) {
                (true, Some(theirs)) => {
                    format!("CrossSubnet, and {theirs} is not in {}", of_subnet())
                }
                (true, None) => "CrossSubnet".to_owned(),
                (false, _) => "Always".to_owned(),
            };
            WayRow {
                how: short_name(*kind),
                next_hop: Some(*next_hop),
                device: Some(kind.device().to_owned()),
                why: format!("the pool says {why}"),
                ..row
            }
        }
        Way::Route(RouteKind::Blackhole) => row,
        Way::Bgp { next_hop } => WayRow {
            how: "BGP",
            next_hop: Some(*next_hop),
            why: format!(
                "no tunnel of the pool's leads there, and {next_hop} is not in {}: its routes come \
                 by BGP",
                of_subnet()
            ),
            ..row
        },
        Way::None(problem) => WayRow { why: problem.to_string(), ..row },
    }
}

/// What a kind of tunnel is called where the family is told besides.
pub fn short_name(kind: TunnelKind) -> &'static str {
    let name = kind.row().name;
    name.split_once(' ').map_or(name, |(short, _)| short)
}
