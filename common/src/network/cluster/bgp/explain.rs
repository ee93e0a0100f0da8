//! A node's BGP in words: why there is each session, and what it tells of a prefix. No daemon is
//! asked: it is what the plan says.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::Serialize;

use super::super::announcement::Silence;
use super::super::cluster_state::ClusterState;
use super::super::plan::{ClusterPlan, Planner, RouteKind, plan_cluster};
use super::super::underlay::Underlay;
use super::bird::{BirdConfiguration, is_usable};
use super::filter_match::{Announced, FilterVerdict, judge};
use super::plan::plan_bgp;
use super::session::{BgpPlan, BgpSession, ExportedOthers, Flow, Origin};
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
        problems: problems(&plan),
    }
}

/// What cannot be done as configured, and what BIRD cannot be told. Passwords are in files, which
/// are not looked at.
fn problems(plan: &BgpPlan) -> Vec<String> {
    let secrets = plan.sessions.values().filter_map(|session| session.password.clone());
    let passwords = secrets.map(|secret| (secret, "any".to_owned())).collect();
    let of_bird = BirdConfiguration::of(plan, &passwords).problems;
    let of_bird = of_bird.iter().filter(|_| plan.need.is_some()).map(ToString::to_string);
    plan.problems.iter().map(ToString::to_string).chain(of_bird).collect()
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

/// A range that can be announced: a block, or an address in use away from its block's node.
struct Subject {
    range: IpNet,
    /// The node that it is on.
    node: String,
    /// What it is.
    what: String,
}

/// All that is asked about a prefix.
struct Explainer<'a> {
    node: &'a str,
    state: &'a ClusterState,
    planner: Planner<'a>,
    cluster: ClusterPlan,
    plan: &'a BgpPlan,
}

fn explained_prefix(
    node: &str,
    state: &ClusterState,
    underlay: &Underlay,
    plan: &BgpPlan,
    range: IpNet,
) -> ExplainedPrefix {
    let planner = Planner::new(node, state, underlay);
    let cluster = plan_cluster(node, state, underlay);
    Explainer { node, state, planner, cluster, plan }.prefix(range)
}

impl Explainer<'_> {
    fn prefix(&self, range: IpNet) -> ExplainedPrefix {
        let silent = |because, reached| {
            let (announced, announced_by, peers) = (None, None, Vec::new());
            ExplainedPrefix { announced, announced_by, because, reached, peers }
        };
        let subject = match self.subject(range) {
            Ok(subject) => subject,
            Err(because) => return silent(because, "nobody announces it".to_owned()),
        };
        if let Err(because) = self.announcement(&subject) {
            return silent(because, self.reached(&subject, false));
        }
        let of_family = self
            .plan
            .sessions
            .iter()
            .filter(|(_, session)| session.address.is_ipv4() == range.addr().is_ipv4());
        let peers = of_family.map(|(name, session)| {
            let (is_told, because) = self.told(name, session, &subject);
            ToldPeer { session: name.clone(), is_told, because }
        });
        ExplainedPrefix {
            reached: self.reached(&subject, true),
            peers: peers.collect(),
            announced: Some(subject.range),
            announced_by: Some(subject.node),
            because: subject.what,
        }
    }

    /// What a range is, or lies in; or why that is nothing with one node.
    fn subject(&self, range: IpNet) -> Result<Subject, String> {
        let pool = self.state.pool_of(range).map(|(name, _)| format!("pool {name}"));
        let pool = pool.unwrap_or_else(|| "no pool".to_owned());
        let is_with_block = || matches!(self.planner.announcer(range), Err(Silence::WithBlock(_)));
        let borrower = self.planner.borrower(range).filter(|_| !is_with_block());
        if let Some((block, node)) = borrower {
            let what = format!("an address of block {block} (of {pool}) that is in use on {node}");
            return Ok(Subject { range, node: node.clone(), what });
        }
        let mut around = std::iter::successors(Some(range), IpNet::supernet);
        let Some(block) = around.find(|it| self.state.blocks.contains_key(it)) else {
            return Err(self.blocks_in(range, &pool));
        };
        match self.planner.host(block) {
            Some(node) => {
                let what = format!("a block of {pool}");
                Ok(Subject { range: block, node: node.clone(), what })
            }
            None => Err(format!("block {block} belongs to several hosts; see weirctl ipam check")),
        }
    }

    /// What is announced of a range that is no block and in none.
    fn blocks_in(&self, range: IpNet, pool: &str) -> String {
        let inside = self.state.blocks.keys().filter(|block| range.contains(*block));
        let inside: Vec<IpNet> = inside.copied().collect();
        let announced = inside.iter().filter_map(|block| {
            Some(format!("{block} by {}", self.planner.announcer(*block).ok()?))
        });
        let announced: Vec<String> = announced.collect();
        let named = announced.iter().take(BLOCKS_NAMED).cloned().collect::<Vec<_>>().join(", ");
        match (announced.len(), inside.len()) {
            (0, 0) => format!("it is in {pool}, and no node has a block around or in it"),
            (0, count) => format!("none of the {count} blocks in it is announced"),
            (count, _) if count > BLOCKS_NAMED => {
                format!("it is announced as {count} blocks: {named}, …")
            }
            (count, _) => format!("it is announced as {count} blocks: {named}"),
        }
    }

    /// Whether a range is announced, as the planner has it; or why not.
    fn announcement(&self, subject: &Subject) -> Result<(), String> {
        let Subject { range, node, .. } = subject;
        let silence = match self.planner.announcer(*range) {
            Err(silence) => silence,
            Ok(_) if node == self.node && self.cluster.bgp_need.is_none() => {
                return Err(format!("node {node} needs no BGP daemon"));
            }
            Ok(_) => return Ok(()),
        };
        Err(match silence {
            Silence::NoPool => format!("block {range} of {node} is in no pool"),
            Silence::NotExported(pool) => format!("pool {pool} has disableBGPExport"),
            Silence::NodeInside => format!(
                "a node's address lies in block {range} of {node}, and peers would lose the way \
                 to that node"
            ),
            Silence::NextHopInside => format!(
                "a next hop of node {node} lies in block {range}, and peers would lose the way to \
                 it"
            ),
            Silence::WithBlock(block) => format!("it is announced with block {block}"),
            Silence::NoBlock => "no node has this block".to_owned(),
            Silence::Contested => format!("block {range} belongs to several hosts"),
        })
    }

    /// Whether a peer is told of a range, and why.
    fn told(&self, name: &str, session: &BgpSession, subject: &Subject) -> (Option<bool>, String) {
        let is_own = subject.node == self.node;
        if self.plan.need.is_none() {
            return (Some(false), "this node needs no BGP daemon".to_owned());
        }
        if !is_usable(self.plan, name, session) {
            return (Some(false), "BIRD cannot have this session".to_owned());
        }
        if session.node.as_ref() == Some(&subject.node) {
            return (Some(false), "it announces it itself".to_owned());
        }
        let rule = |filter: &str, number: usize| format!("rule {number} of BGPFilter {filter}");
        match self.verdict(Flow::Export, session, subject) {
            FilterVerdict::Missing(filter) => {
                (Some(false), format!("BGPFilter {filter} does not exist"))
            }
            FilterVerdict::Unusable(filter, number) => {
                (Some(false), format!("{} is not valid", rule(&filter, number)))
            }
            FilterVerdict::Decided(filter, number, action) => {
                (Some(action == FilterAction::Accept), rule(&filter, number))
            }
            FilterVerdict::Depends(filter, number) => {
                (None, format!("it depends on {}", rule(&filter, number)))
            }
            FilterVerdict::Unmatched if is_own => (Some(true), "it is this node's own".to_owned()),
            FilterVerdict::Unmatched => self.others_told(session, subject),
        }
    }

    /// What a session's filters make of a range.
    fn verdict(&self, flow: Flow, session: &BgpSession, subject: &Subject) -> FilterVerdict {
        let is_own = subject.node == self.node;
        let filters =
            session.filters.iter().map(|name| (name.as_str(), self.plan.filters.get(name)));
        let advertised = self.plan.prefix_advertisements.iter();
        let advertised = advertised.filter(|it| it.cidr.contains(&subject.range));
        let communities = advertised.flat_map(|it| it.communities.clone()).collect();
        let announced = Announced {
            prefix: subject.range,
            is_from_peers: !is_own,
            peer: if session.is_external() { PeerType::External } else { PeerType::Internal },
            communities: is_own.then_some(communities),
        };
        judge(flow, filters, &announced)
    }

    fn others_told(&self, session: &BgpSession, subject: &Subject) -> (Option<bool>, String) {
        let Subject { node, .. } = subject;
        let owner = self.state.nodes.get(node).and_then(|it| it.address(session.address));
        match (&session.exports_others, owner) {
            (ExportedOthers::All, _) if !session.is_external() => self.reflected(session, node),
            (ExportedOthers::All, _) => (Some(true), "this node tells what it learns".to_owned()),
            (ExportedOthers::Of(nodes), Some(owner)) if nodes.contains(&owner.addr()) => {
                (Some(true), format!("no router peers with {node}"))
            }
            (ExportedOthers::Of(_), Some(_)) => {
                (Some(false), format!("{node} has a router of its own"))
            }
            (ExportedOthers::Of(_), None) => {
                (Some(false), format!("{node} is not registered with an address of this family"))
            }
            (ExportedOthers::None, _) => (Some(false), format!("it is {node}'s to tell")),
        }
    }

    /// What a reflector tells a peer of its AS: clients everything, others what clients and other
    /// ASes have told it (RFC 4456).
    fn reflected(&self, session: &BgpSession, node: &str) -> (Option<bool>, String) {
        if session.reflects_as.is_some() {
            return (Some(true), "this node tells what it learns".to_owned());
        }
        let mut from = self.sessions_with(node, session.address.is_ipv4()).peekable();
        if from.peek().is_none() {
            return (None, format!("it depends on who tells this node of {node}"));
        }
        match from.any(|(_, it)| it.reflects_as.is_some() || it.is_external()) {
            true => (Some(true), format!("{node} is a client of this reflector")),
            false => (Some(false), "a reflector tells others of its clients alone".to_owned()),
        }
    }

    fn sessions_with(
        &self,
        node: &str,
        is_v4: bool,
    ) -> impl Iterator<Item = (&String, &BgpSession)> {
        let sessions = self.plan.sessions.iter();
        sessions.filter(move |(name, it)| {
            it.node.as_deref() == Some(node)
                && it.address.is_ipv4() == is_v4
                && is_usable(self.plan, name, it)
        })
    }

    /// How the node reaches a range.
    fn reached(&self, subject: &Subject, is_announced: bool) -> String {
        let Subject { range, node, .. } = subject;
        if node == self.node {
            return "on this node".to_owned();
        }
        match self.cluster.routes.get(range) {
            Some(RouteKind::Direct { next_hop, link, .. }) => {
                return format!("by the agent's route via {next_hop} on {link}");
            }
            Some(RouteKind::Tunnel { kind, next_hop, .. }) => {
                let device = kind.device();
                return format!("by the agent's {kind} tunnel, via {next_hop} on {device}");
            }
            Some(RouteKind::Blackhole) | None => {}
        }
        let is_within = |route: &IpNet| route != range && range.contains(route);
        let has_singles = self.cluster.routes.keys().any(is_within);
        let is_bgps = is_announced && !self.plan.of_agent.iter().any(|pool| pool.contains(range));
        if self.plan.need.is_none() || self.plan.sessions.is_empty() || !is_bgps {
            return match has_singles {
                true => "by the agent's routes to its addresses in use".to_owned(),
                false => "not at all: neither the agent nor BGP has a route".to_owned(),
            };
        }
        let mut taking = self
            .sessions_with(node, range.addr().is_ipv4())
            .filter(|(_, it)| !is_kept_back(&self.verdict(Flow::Import, it, subject)));
        match taking.next() {
            Some((session, _)) => format!("by BGP, from session {session}"),
            None => "by BGP, if a reflector or router tells of it".to_owned(),
        }
    }
}

/// Whether filters let nothing of a prefix pass.
fn is_kept_back(verdict: &FilterVerdict) -> bool {
    match verdict {
        FilterVerdict::Missing(_) | FilterVerdict::Unusable(..) => true,
        FilterVerdict::Decided(_, _, action) => *action == FilterAction::Reject,
        FilterVerdict::Unmatched | FilterVerdict::Depends(..) => false,
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
        if self.need.is_none() && !self.sessions.is_empty() {
            lines.push("Were one needed, it would have these sessions:".to_owned());
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
