//! What a node's BGP is like: the sessions that it should have and BIRD's word on each. The agent
//! serves it as JSON at `/bgp`; its form is described in `docs/weirctl.md`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use weir_bird::{BgpState, DaemonStatus, ProtocolState, ProtocolStatus};
use weir_common::network::{BgpPlan, BgpSession, Origin};

/// A node's BGP.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BgpStatus {
    /// Whether a daemon is wanted.
    pub is_needed: bool,
    /// The daemon, where it runs.
    pub daemon: Option<BgpDaemon>,
    /// How often a daemon that had died was started again.
    pub restarts: u64,
    /// The sessions, by protocol.
    pub sessions: Vec<SessionStatus>,
    /// What could not be done as configured, and what to do.
    pub problems: Vec<String>,
    /// What should be known and is not wrong.
    pub notes: Vec<String>,
}

impl BgpStatus {
    /// Whether there is anything to say.
    pub fn is_of_interest(&self) -> bool {
        self.is_needed || self.daemon.is_some() || !self.problems.is_empty()
    }
}

/// The BGP daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BgpDaemon {
    /// BIRD's version.
    pub version: String,
    /// Its router id.
    #[serde(rename = "routerID")]
    pub router_id: String,
    /// When it started, in the node's local time.
    pub last_boot: String,
    /// When it took its configuration.
    pub last_reconfiguration: String,
}

impl From<&DaemonStatus> for BgpDaemon {
    fn from(status: &DaemonStatus) -> Self {
        Self {
            version: status.version.clone(),
            router_id: status.router_id.clone(),
            last_boot: status.last_boot.clone(),
            last_reconfiguration: status.last_configured.clone(),
        }
    }
}

/// A session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionStatus {
    /// The name of its protocol in BIRD.
    pub protocol: String,
    /// The peer's address.
    pub peer: IpAddr,
    /// The node that the peer is, where it is one.
    pub node: Option<String>,
    /// What made it.
    #[serde(rename = "type")]
    pub kind: SessionKind,
    /// BIRD's word for the state of the protocol: `up`, `start`, `down`.
    pub state: String,
    /// Since when, in the node's local time.
    pub since: String,
    /// BIRD's summary: the state of the session, and its last error.
    pub info: String,
    /// The state of the session (RFC 4271), as `Established`.
    pub bgp_state: String,
    /// How many prefixes were taken from the peer.
    pub received: u64,
    /// How many it was told.
    pub announced: u64,
    /// Why it is not up, and what to look at; `None` when it is.
    pub why: Option<String>,
}

/// What made a session, in Calico's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SessionKind {
    /// The mesh.
    #[serde(rename = "node-to-node mesh")]
    Mesh,
    /// A BGPPeer for all nodes.
    #[serde(rename = "global")]
    Global,
    /// A BGPPeer for this node, selected nodes, or the other side of one.
    #[serde(rename = "node specific")]
    Node,
}

impl SessionKind {
    /// Calico's words in `node status`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Mesh => "node-to-node mesh",
            Self::Global => "global",
            Self::Node => "node specific",
        }
    }

    /// The one of this name in CalicoNodeStatus.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Mesh, Self::Global, Self::Node].into_iter().find(|kind| kind.name() == name)
    }

    /// Its name in CalicoNodeStatus.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mesh => "NodeMesh",
            Self::Global => "GlobalPeer",
            Self::Node => "NodePeer",
        }
    }
}

impl From<&Origin> for SessionKind {
    fn from(origin: &Origin) -> Self {
        match origin {
            Origin::Mesh => Self::Mesh,
            Origin::Global(_) => Self::Global,
            Origin::Node(_) | Origin::Reverse(_) => Self::Node,
        }
    }
}

impl SessionStatus {
    /// Whether prefixes are exchanged.
    pub fn is_established(&self) -> bool {
        self.bgp_state == BgpState::Established.word()
    }
}

/// The sessions of a plan, each with what BIRD says of it.
pub fn sessions(plan: &BgpPlan, protocols: &[ProtocolStatus]) -> Vec<SessionStatus> {
    let by_name: BTreeMap<&str, &ProtocolStatus> =
        protocols.iter().map(|protocol| (protocol.name.as_str(), protocol)).collect();
    let status = |(name, session): (&String, &BgpSession)| {
        let protocol = by_name.get(name.as_str()).copied();
        let channel = protocol.and_then(|it| it.channels.values().next()).copied();
        let channel = channel.unwrap_or_default();
        let state = protocol.map_or(ProtocolState::Down, |it| it.state);
        let bgp_state = protocol.and_then(|it| it.bgp_state).unwrap_or(BgpState::Idle);
        SessionStatus {
            protocol: name.clone(),
            peer: session.address,
            node: session.node.clone(),
            kind: SessionKind::from(&session.origin),
            state: state.word().to_owned(),
            since: protocol.map(|it| it.since.clone()).unwrap_or_default(),
            info: protocol.map(|it| it.info.clone()).unwrap_or_default(),
            bgp_state: bgp_state.word().to_owned(),
            received: channel.imported,
            announced: channel.exported,
            why: why(session, protocol),
        }
    };
    plan.sessions.iter().map(status).collect()
}

/// Why a session is not up, in one sentence; `None` when it is. The words in `last_error` are
/// BIRD's (`proto/bgp/bgp.c`, `bgp_err_classes` and `bgp_misc_errors`; `proto/bgp/packets.c`).
fn why(session: &BgpSession, protocol: Option<&ProtocolStatus>) -> Option<String> {
    let BgpSession { address, port, as_number, .. } = session;
    let Some(protocol) = protocol else {
        return Some("BIRD has no such session (yet): see the problems".to_owned());
    };
    if protocol.bgp_state == Some(BgpState::Established) {
        return None;
    }
    let error = protocol.last_error.as_deref().unwrap_or_default();
    let has = |words: &str| error.contains(words);
    let why = if has("Bad peer AS") {
        format!(
            "one side takes the other for another AS (here: {as_number} for the peer, {} for \
             this node): compare asNumber on both sides",
            session.local_as
        )
    } else if has("Connection refused") {
        format!("nothing listens at {address} port {port}: see whether its BGP daemon runs")
    } else if has("No route to host") || has("Network is unreachable") {
        format!("there is no route to {address}: see ip route get {address}, or set reachableBy")
    } else if has("No listening socket") {
        "this node's port is taken by another program: see ss -ltnp, or set listenPort".to_owned()
    } else if has("Neighbor lost") || has("Link down") {
        format!("the link that leads to {address} is down: see ip route get {address}, and ip link")
    } else if has("Hold timer expired") || has("BFD session down") {
        format!("{address} does not answer any more: it is cut off, or a firewall drops packets")
    } else if has("Administrative shutdown") || has("Peer de-configured") {
        format!("{address} has switched this session off")
    } else if has("Connection rejected") {
        format!("{address} does not know this node: see its neighbours")
    } else if session.password.is_some() && error.is_empty() {
        format!(
            "{address} does not answer: with another password, or none, it would not either; \
             compare both sides"
        )
    } else if session.is_passive {
        format!(
            "{address} has to connect to this node, whose address is the smaller text: see \
             whether its daemon runs and has a session with this node"
        )
    } else if error.is_empty() {
        format!("{address} port {port} does not answer (yet): see whether it is reached at all")
    } else {
        format!("BIRD says: {error}")
    };
    Some(why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> BgpSession {
        let at = ("10.0.0.1".parse().unwrap(), 179);
        BgpSession::plain(Origin::Global("tor".to_owned()), at, 65000, 64512)
    }

    fn protocol(state: BgpState, error: Option<&str>) -> ProtocolStatus {
        ProtocolStatus {
            name: "Global_10_0_0_1".to_owned(),
            kind: "BGP".to_owned(),
            state: ProtocolState::Start,
            since: "2026-11-28 23:00:00".to_owned(),
            info: state.word().to_owned(),
            bgp_state: Some(state),
            neighbour: None,
            neighbour_as: None,
            last_error: error.map(str::to_owned),
            channels: BTreeMap::new(),
        }
    }

    #[test]
    fn each_reason_is_told_in_words() {
        let told = |error: Option<&str>| {
            why(&session(), Some(&protocol(BgpState::Active, error))).unwrap()
        };
        for (error, words) in [
            (Some("Received: Bad peer AS"), "65000 for the peer"),
            (Some("Socket: Connection refused"), "nothing listens at 10.0.0.1 port 179"),
            (Some("Socket: No route to host"), "ip route get 10.0.0.1"),
            (Some("Error: No listening socket"), "listenPort"),
            (Some("Error: Hold timer expired"), "cut off"),
            (Some("Error: Neighbor lost"), "the link that leads to 10.0.0.1 is down"),
            (Some("Error: Link down"), "the link that leads to 10.0.0.1 is down"),
            (Some("Received: Administrative shutdown"), "switched this session off"),
            (Some("Something new"), "BIRD says: Something new"),
            (None, "does not answer"),
        ] {
            assert!(told(error).contains(words), "{error:?}: {}", told(error));
        }
        assert_eq!(why(&session(), Some(&protocol(BgpState::Established, None))), None);
        assert!(why(&session(), None).unwrap().contains("problems"));
        let passive = BgpSession { is_passive: true, ..session() };
        let told = why(&passive, Some(&protocol(BgpState::Active, None))).unwrap();
        assert!(told.contains("has to connect"), "{told}");
    }
}
