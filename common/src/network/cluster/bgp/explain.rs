//! A node's BGP in words: why there is each session, and what it tells of a prefix. No daemon is
//! asked: it is what the plan says.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::Serialize;

use super::super::cluster_state::ClusterState;
use super::super::plan::{RouteKind, host_of, plan_cluster};
use super::super::underlay::Underlay;
use super::filter_match::{Announced, FilterVerdict, judge_export};
use super::plan::plan_bgp;
use super::session::{BgpPlan, BgpSession, ExportedOthers, Origin};
use crate::resources::bgp::{FilterAction, PeerType};

/// How many blocks of a wider prefix are named.
const BLOCKS_NAMED: usize = 8;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BgpQuestion {
    /// All sessions.
    Sessions,
    /// Those with an address, or else what is told of it as a prefix; likewise of a range.
    Range(IpNet),
    /// Those of this name, with this node, or by the BGPPeer of this name.
    Named(String),
}

/// The answer. As JSON it is described in `docs/weirctl.md`.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BgpExplanation {
    /// The node.
    pub node: String,
    /// Why it needs a daemon; `None` where it needs none.
    pub need: Option<String>,
    /// Its router id.
    pub router_id: String,
    /// Its AS number.
    pub as_number: u32,
    /// The port that it listens on.
    pub listen_port: u16,
    /// The sessions that are asked for.
    pub sessions: Vec<ExplainedSession>,
    /// What is said of a prefix, where one is asked for.
    pub prefix: Option<ExplainedPrefix>,
    /// What cannot be done as configured.
    pub problems: Vec<String>,
}

/// One session.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ExplainedSession {
    /// The name of its protocol.
    pub name: String,
    /// The peer's address.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// The node that it is.
    pub node: Option<String>,
    /// What made it.
    pub why: String,
    /// The peer's AS number.
    pub as_number: u32,
    /// The own one.
    pub local_as: u32,
    /// Whether this node waits for the peer to connect.
    pub is_passive: bool,
    /// What the peer is told.
    pub told: String,
    /// Everything else that is configured, in words.
    pub settings: Vec<String>,
}

/// A prefix.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ExplainedPrefix {
    /// What is announced of what was asked for.
    pub announced: Option<IpNet>,
    /// The node that announces it.
    pub announced_by: Option<String>,
    /// Why, or why nobody does.
    pub because: String,
    /// How this node reaches it.
    pub reached: String,
    /// What this node tells its peers of it.
    pub peers: Vec<ToldPeer>,
}

/// What a peer is told of a prefix.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ToldPeer {
    /// The name of the session.
    pub session: String,
    /// Whether it is told; `None` where only the daemon knows.
    pub is_told: Option<bool>,
    /// Why.
    pub because: String,
}

/// Explains `node`'s BGP.
pub fn explain_bgp(
    node: &str,
    state: &ClusterState,
    underlay: &Underlay,
    question: &BgpQuestion,
) -> BgpExplanation {
    let plan = plan_bgp(node, state, underlay);
    let is_asked_for = |name: &str, session: &BgpSession| match question {
        BgpQuestion::Sessions => true,
        BgpQuestion::Range(range) => IpNet::from(session.address) == *range,
        BgpQuestion::Named(asked) => {
            let names = [Some(name), session.node.as_deref(), session.origin.peer()];
            names.contains(&Some(asked.as_str()))
        }
    };
    let asked_for = plan.sessions.iter().filter(|(name, session)| is_asked_for(name, session));
    let sessions: Vec<_> = asked_for.map(|(name, it)| explained_session(name, it)).collect();
    let prefix = match question {
        BgpQuestion::Range(range) if sessions.is_empty() => {
            Some(explained_prefix(node, state, underlay, &plan, *range))
        }
        _ => None,
    };
    BgpExplanation {
        node: node.to_owned(),
        need: plan.need.as_ref().map(ToString::to_string),
        router_id: plan.router_id.to_string(),
        as_number: plan.as_number,
        listen_port: plan.listen_port,
        sessions,
        prefix,
        problems: plan.problems.iter().map(ToString::to_string).collect(),
    }
}

fn explained_session(name: &str, session: &BgpSession) -> ExplainedSession {
    let set = |what: Option<String>| what.into_iter();
    let seconds = |what: &str, time: Option<u32>| time.map(|it| format!("{what} {it} s"));
    let settings = set(session.reflects_as.map(|id| format!("reflector client, cluster id {id}")))
        .chain(set(session.password.as_ref().map(|it| format!("password {it}"))))
        .chain(set(session.local_address.map(|it| format!("from {it}"))))
        .chain(set(session.ttl_security.map(|hops| format!("at most {hops} hops (GTSM)"))))
        .chain(set(seconds("restart time", session.restart_time)))
        .chain(set(seconds("keepalive", session.keepalive_time)))
        .chain(set(session.allowed_own_as.map(|it| format!("own AS number allowed {it} times"))))
        .chain(set(session.bfd.map(|bfd| format!("BFD {bfd}"))))
        .chain(session.filters.iter().map(|filter| format!("BGPFilter {filter}")));
    ExplainedSession {
        name: name.to_owned(),
        address: session.address,
        port: session.port,
        node: session.node.clone(),
        why: match &session.origin {
            Origin::Mesh => "the mesh of all nodes".to_owned(),
            Origin::Global(peer) => format!("BGPPeer {peer}, for all nodes"),
            Origin::Node(peer) => format!("BGPPeer {peer}, which selects this node"),
            Origin::Reverse(peer) => format!("the other side of BGPPeer {peer}"),
        },
        as_number: session.as_number,
        local_as: session.local_as,
        is_passive: session.is_passive,
        told: match &session.exports_others {
            ExportedOthers::None => "own ranges".to_owned(),
            ExportedOthers::All if session.is_external() => "own ranges and all others".to_owned(),
            ExportedOthers::All => "own ranges and what is reflected".to_owned(),
            ExportedOthers::Of(addresses) => {
                format!("own ranges and those of {} nodes without a router", addresses.len())
            }
        },
        settings: settings.collect(),
    }
}

/// Where a range comes from.
struct RangeSource {
    announced: IpNet,
    node: String,
    because: String,
}

fn explained_prefix(
    node: &str,
    state: &ClusterState,
    underlay: &Underlay,
    plan: &BgpPlan,
    range: IpNet,
) -> ExplainedPrefix {
    let source = match source(state, range) {
        Ok(source) => source,
        Err(because) => {
            let (reached, peers) = ("nobody announces it".to_owned(), Vec::new());
            let (announced, announced_by) = (None, None);
            return ExplainedPrefix { announced, announced_by, because, reached, peers };
        }
    };
    let of_family = plan
        .sessions
        .iter()
        .filter(|(_, session)| session.address.is_ipv4() == range.addr().is_ipv4());
    let peers = of_family.map(|(name, session)| {
        let (is_told, because) = told(node, state, plan, session, &source);
        ToldPeer { session: name.clone(), is_told, because }
    });
    ExplainedPrefix {
        reached: reached(node, state, underlay, plan, &source),
        peers: peers.collect(),
        announced: Some(source.announced),
        announced_by: Some(source.node),
        because: source.because,
    }
}

/// Who announces a range, or why nobody does.
fn source(state: &ClusterState, range: IpNet) -> Result<RangeSource, String> {
    let pool = state.pool_of(range).map(|(name, _)| format!("pool {name}"));
    let pool = pool.unwrap_or_else(|| "no pool".to_owned());
    let around = || std::iter::successors(Some(range), IpNet::supernet);
    let block = around().find(|it| state.blocks.contains_key(it));
    let is_single = range.prefix_len() == range.max_prefix_len();
    let borrower = around()
        .filter(|_| is_single)
        .find_map(|block| Some((block, state.borrowed.get(&block)?.get(&range.addr())?.clone())));
    if let Some((block, node)) = borrower {
        let because = format!("an address of block {block} (of {pool}) that is in use on {node}");
        return Ok(RangeSource { announced: range, node, because });
    }
    let Some(block) = block else {
        let inside: Vec<String> = state
            .blocks
            .iter()
            .filter(|(block, _)| range.contains(*block))
            .filter_map(|(block, hosts)| Some((block, host_of(*block, hosts, state)?)))
            .map(|(block, host)| format!("{block} by {host}"))
            .collect();
        let named = inside.iter().take(BLOCKS_NAMED).cloned().collect::<Vec<_>>().join(", ");
        return Err(match inside.len() {
            0 => format!("it is in {pool}, and no node has a block around or in it"),
            count if count > BLOCKS_NAMED => {
                format!("it is announced as {count} blocks: {named}, …")
            }
            count => format!("it is announced as {count} blocks: {named}"),
        });
    };
    let hosts = state.blocks.get(&block).into_iter().flatten().cloned().collect();
    let Some(host) = host_of(block, &hosts, state) else {
        return Err(format!("block {block} belongs to several hosts; see weirctl ipam check"));
    };
    // As `Planner::is_announced` has it.
    if state.pool_of(block).is_none() {
        return Err(format!("block {block} of {host} is in no pool"));
    }
    if state.has_node_in(block) {
        return Err(format!(
            "a node's address lies in block {block} of {host}, and peers would lose the way to that \
             node"
        ));
    }
    Ok(RangeSource { announced: block, node: host.clone(), because: format!("a block of {pool}") })
}

/// Whether a peer is told of a range, and why.
fn told(
    node: &str,
    state: &ClusterState,
    plan: &BgpPlan,
    session: &BgpSession,
    source: &RangeSource,
) -> (Option<bool>, String) {
    let is_own = source.node == node;
    let pool = state.pool_of(source.announced).filter(|(_, pool)| !pool.is_exported);
    if let Some((pool, _)) = pool {
        return (Some(false), format!("pool {pool} has disableBGPExport"));
    }
    if session.node.as_ref() == Some(&source.node) {
        return (Some(false), "it announces it itself".to_owned());
    }
    let filters = session.filters.iter().map(|name| (name.as_str(), plan.filters.get(name)));
    let advertised = plan.prefix_advertisements.iter();
    let advertised = advertised.filter(|it| it.cidr.contains(&source.announced));
    let communities = advertised.flat_map(|it| it.communities.clone()).collect();
    let announced = Announced {
        prefix: source.announced,
        is_from_peers: !is_own,
        peer: if session.is_external() { PeerType::External } else { PeerType::Internal },
        communities: is_own.then_some(communities),
    };
    let rule = |filter: &str, number: usize| format!("rule {number} of BGPFilter {filter}");
    match judge_export(filters, &announced) {
        FilterVerdict::Missing(filter) => {
            (Some(false), format!("BGPFilter {filter} does not exist"))
        }
        FilterVerdict::Decided(filter, number, action) => {
            (Some(action == FilterAction::Accept), rule(&filter, number))
        }
        FilterVerdict::Depends(filter, number) => {
            (None, format!("it depends on {}", rule(&filter, number)))
        }
        FilterVerdict::Unmatched if is_own => (Some(true), "it is this node's own".to_owned()),
        FilterVerdict::Unmatched => others_told(state, session, source),
    }
}

fn others_told(
    state: &ClusterState,
    session: &BgpSession,
    source: &RangeSource,
) -> (Option<bool>, String) {
    let owner = state.nodes.get(&source.node).and_then(|it| it.address(session.address));
    match &session.exports_others {
        ExportedOthers::All => (Some(true), "this node tells what it learns".to_owned()),
        ExportedOthers::Of(nodes) if owner.is_some_and(|it| nodes.contains(&it.addr())) => {
            (Some(true), format!("no router peers with {}", source.node))
        }
        ExportedOthers::Of(_) => (Some(false), format!("{} has a router of its own", source.node)),
        ExportedOthers::None => (Some(false), format!("it is {}'s to tell", source.node)),
    }
}

/// How a node reaches a range.
fn reached(
    node: &str,
    state: &ClusterState,
    underlay: &Underlay,
    plan: &BgpPlan,
    source: &RangeSource,
) -> String {
    if source.node == node {
        return "on this node".to_owned();
    }
    let cluster = plan_cluster(node, state, underlay);
    match cluster.routes.get(&source.announced) {
        Some(RouteKind::Direct { next_hop, link, .. }) => {
            return format!("by the agent's route via {next_hop} on {link}");
        }
        Some(RouteKind::Tunnel { next_hop, .. }) => {
            return format!("by the agent's tunnel to {next_hop}");
        }
        Some(RouteKind::Blackhole) | None => {}
    }
    let owners = plan.sessions.iter().filter(|(_, it)| it.node.as_ref() == Some(&source.node));
    let mut of_family =
        owners.filter(|(_, it)| it.address.is_ipv4() == source.announced.addr().is_ipv4());
    let is_bgps = !plan.of_agent.iter().any(|pool| pool.contains(&source.announced));
    match of_family.next() {
        _ if plan.need.is_none() || plan.sessions.is_empty() || !is_bgps => {
            "not at all: neither the agent nor BGP has a route".to_owned()
        }
        Some((session, _)) => format!("by BGP, from session {session}"),
        None => "by BGP, if a reflector or router tells of it".to_owned(),
    }
}

impl BgpExplanation {
    /// The answer in lines.
    pub fn lines(&self) -> Vec<String> {
        let Self { node, as_number, router_id, listen_port, .. } = self;
        let mut lines = vec![
            format!("Node {node}: AS {as_number}, router id {router_id}, port {listen_port}"),
            match &self.need {
                Some(why) => format!("A BGP daemon is needed: {why}"),
                None => "No BGP daemon is needed: nothing asks for one".to_owned(),
            },
        ];
        if self.prefix.is_none() && self.sessions.is_empty() {
            lines.push("There are no sessions".to_owned());
        }
        lines.extend(self.sessions.iter().flat_map(ExplainedSession::lines));
        lines.extend(self.prefix.iter().flat_map(ExplainedPrefix::lines));
        lines.extend(self.problems.iter().map(|problem| format!("Problem: {problem}")));
        lines
    }
}

impl ExplainedSession {
    fn lines(&self) -> Vec<String> {
        let who = self.node.as_ref().map(|node| format!(" (node {node})")).unwrap_or_default();
        let kind = if self.as_number == self.local_as { "iBGP" } else { "eBGP" };
        let connects = if self.is_passive { "the peer connects" } else { "this node connects" };
        let Self { name, address, port, why, as_number, local_as, told, settings, .. } = self;
        let mut lines = vec![
            format!("{name}: {address} port {port}{who}"),
            format!("  because of {why}"),
            format!("  {kind}, AS {local_as} to AS {as_number}; {connects}"),
            format!("  told: {told}"),
        ];
        if !settings.is_empty() {
            lines.push(format!("  set: {}", settings.join(", ")));
        }
        lines
    }
}

impl ExplainedPrefix {
    fn lines(&self) -> Vec<String> {
        let mut lines = vec![match (&self.announced, &self.announced_by) {
            (Some(range), Some(node)) => {
                format!("{range} is announced by {node}: {}", self.because)
            }
            _ => format!("Not announced as such: {}", self.because),
        }];
        lines.push(format!("Reached: {}", self.reached));
        lines.extend(self.peers.iter().map(|peer| {
            let told = match peer.is_told {
                Some(true) => "told",
                Some(false) => "not told",
                None => "perhaps told",
            };
            format!("  {}: {told}; {}", peer.session, peer.because)
        }));
        lines
    }
}
