//! BGPPeer: which nodes peer with whom, besides the mesh.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::read::{self, Annotations, KEEPALIVE_SECONDS, RESTART_SECONDS};
use super::values::{Bfd, SecretReference};
use crate::resources::as_number;
use crate::resources::error::{Error, FieldError};
use crate::resources::fields::{self, Fields, Problems, is_subdomain};
use crate::resources::selector::Selector;

/// A BGP peering.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BgpPeer {
    /// The nodes that it is about.
    pub nodes: PeerNodes,
    /// Whom they peer with.
    pub target: PeerTarget,
    /// The peer's AS number; only with an address.
    pub as_number: Option<u32>,
    /// The AS number that the nodes speak as in this peering, where it is not their own.
    pub local_as_number: Option<u32>,
    /// Where the password is.
    pub password: Option<SecretReference>,
    /// Whether connections are made from the node's registered address (`sourceAddress`), or
    /// from the one that the kernel chooses.
    pub from_node_address: bool,
    /// What becomes of next hops.
    pub next_hop: NextHopMode,
    /// How long in seconds the routes of a peer that restarts are kept.
    pub restart_time: Option<u32>,
    /// The interval between keepalives in seconds; a peer is held for three of them.
    pub keepalive_time: Option<u32>,
    /// How often the own AS number may occur in what is received.
    pub allowed_own_as: Option<u8>,
    /// Over how many hops packets may come (GTSM, RFC 5082); 1 to 255.
    pub ttl_security: Option<u8>,
    /// The router through which the peer is reached.
    pub reachable_by: Option<IpAddr>,
    /// The names of the filters, all of which count.
    pub filters: Vec<String>,
    /// Whether the nodes that are meant by the target peer back (`reversePeering`).
    pub is_reversed: bool,
    /// How quickly a lost peer is noticed (annotation `weir/bfd`).
    pub bfd: Option<Bfd>,
}

/// The nodes that a peering is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PeerNodes {
    /// All of them.
    All,
    /// The one of this name.
    Named(String),
    /// Those that are selected.
    Selected(Selector),
}

/// Whom the nodes peer with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PeerTarget {
    /// A router or node by its address.
    Address {
        /// The address.
        address: IpAddr,
        /// Its TCP port, where one is given.
        port: Option<u16>,
    },
    /// Nodes that are selected.
    Nodes(Selector),
    /// Workloads (`localWorkloadSelector`), which Weir does not peer with.
    Workloads,
}

/// What becomes of the next hops of what is announced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum NextHopMode {
    /// As BGP has it: a router of another AS is told this node, one of the same AS what was
    /// learned.
    #[default]
    Auto,
    /// This node.
    Itself,
    /// What was learned.
    Keep,
    /// What was learned, to peers of another AS alone (`keepOriginalNextHop`).
    KeepExternal,
}

impl BgpPeer {
    /// Reads a peering from its stored JSON (v3). Unknown fields are passed over.
    ///
    /// # Errors
    /// [`Error::NotJson`], [`Error::NotAnObject`], or [`Error::Invalid`] with
    /// everything that is wrong.
    pub fn from_json(value: &[u8]) -> Result<Self, Error> {
        Self::from_object(&fields::object("BGPPeer", value)?)
    }

    /// As [`BgpPeer::from_json`], from JSON that is parsed already.
    ///
    /// # Errors
    /// [`Error::Invalid`] with everything that is wrong.
    pub fn from_object(object: &Map<String, Value>) -> Result<Self, Error> {
        let mut problems = Problems::default();
        let resource = Fields::new(object, "");
        fields::name(&resource, &mut problems);
        let spec = resource.object("spec", "BGPPeer.Spec", &mut problems);
        let annotations = Annotations::of(&resource, &mut problems);
        let peer = Self::read(&spec, &annotations, &mut problems);
        problems.into_result(peer)
    }

    fn read(
        spec: &Fields<'_>,
        annotations: &Annotations<'_>,
        problems: &mut Problems,
    ) -> Option<Self> {
        let target = read_target(spec, problems);
        let reverses = [("Auto", true), ("Manual", false)];
        let reverses = spec.word("reversePeering", "ReversePeering", &reverses, problems);
        let sources = [("UseNodeIP", true), ("None", false)];
        let source = spec.word("sourceAddress", "SourceAddress", &sources, problems);
        let (restart, keepalive) = (RESTART_SECONDS, KEEPALIVE_SECONDS);
        let peer = Self {
            nodes: read_nodes(spec, problems),
            // Refused below without one.
            target: target.clone().unwrap_or(PeerTarget::Workloads),
            as_number: as_number::read(spec, "asNumber", "ASNumber", problems)
                .filter(|number| *number != 0),
            local_as_number: read_local_as_number(spec, problems),
            password: read::secret(spec, "password", "Password", problems),
            from_node_address: source.unwrap_or(true),
            next_hop: read_next_hop(spec, problems),
            restart_time: read::seconds(
                spec,
                "maxRestartTime",
                "MaxRestartTime",
                restart,
                problems,
            ),
            keepalive_time: read::seconds(
                spec,
                "keepaliveTime",
                "KeepaliveTime",
                keepalive,
                problems,
            ),
            allowed_own_as: spec.ranged(
                "numAllowedLocalASNumbers",
                "NumAllowedLocalASNumbers",
                0..=255,
                problems,
            ),
            ttl_security: spec.ranged("ttlSecurity", "TTLSecurity", 1..=255, problems),
            reachable_by: read_reachable_by(spec, target.as_ref(), problems),
            filters: read_filters(spec, problems),
            is_reversed: reverses.unwrap_or(true) && target != Some(PeerTarget::Workloads),
            bfd: annotations.bfd(problems),
        };
        check_as_number(&peer, target.as_ref(), spec, problems);
        target.map(|_| peer)
    }
}

fn read_nodes(spec: &Fields<'_>, problems: &mut Problems) -> PeerNodes {
    let node = spec.text("node", "Node", problems);
    let selector = spec.selector("nodeSelector", "NodeSelector", problems);
    if let (Some(node), Some(_)) = (node, written(spec, "nodeSelector")) {
        exclude(spec, "Node", node, "nodeSelector", problems);
    }
    match (node, selector) {
        (Some(node), _) => PeerNodes::Named(node.to_owned()),
        (None, Some(selector)) => PeerNodes::Selected(selector),
        (None, None) => PeerNodes::All,
    }
}

/// The text in field `key`, whether it can be read or not.
fn written<'a>(spec: &Fields<'a>, key: &str) -> Option<&'a str> {
    spec.any(key)?.as_str().filter(|text| !text.is_empty())
}

/// Says that a field is there together with one that it excludes.
fn exclude(spec: &Fields<'_>, display: &str, value: &str, other: &str, problems: &mut Problems) {
    let reason = format!("must be empty when {other} is specified");
    problems.add(
        FieldError::new(spec.path(display), reason).value(value).advice("leave out one of them"),
    );
}

/// Reads whom the nodes peer with. What excludes each other is refused even where only one of
/// both can be read.
fn read_target(spec: &Fields<'_>, problems: &mut Problems) -> Option<PeerTarget> {
    let [address, nodes, workloads] =
        ["peerIP", "peerSelector", "localWorkloadSelector"].map(|key| written(spec, key));
    if let (Some(address), Some(_)) = (address, nodes) {
        exclude(spec, "PeerIP", address, "peerSelector", problems);
    }
    if let Some(workloads) = workloads {
        for other in ["peerIP", "peerSelector"].into_iter().filter(|key| spec.is_set(key)) {
            exclude(spec, "LocalWorkloadSelector", workloads, other, problems);
        }
    }
    if address.or(nodes).or(workloads).is_none() {
        let reason = "a peer is specified by peerIP, or by peerSelector";
        problems.add(
            FieldError::new(spec.path("PeerIP"), reason)
                .advice("write for example peerIP: 10.0.0.1"),
        );
    }
    let address = read_peer_ip(spec, problems);
    let nodes = spec.selector("peerSelector", "PeerSelector", problems).map(PeerTarget::Nodes);
    let workloads = spec.selector("localWorkloadSelector", "LocalWorkloadSelector", problems);
    address.or(nodes).or(workloads.map(|_| PeerTarget::Workloads))
}

/// Reads `10.0.0.1`, `10.0.0.1:179`, `fd00::1` or `[fd00::1]:179`.
fn read_peer_ip(spec: &Fields<'_>, problems: &mut Problems) -> Option<PeerTarget> {
    let text = spec.text("peerIP", "PeerIP", problems)?;
    let path = spec.path("PeerIP");
    let with_port = || {
        let socket: SocketAddr = text.parse().ok()?;
        let is_zoned = matches!(socket, SocketAddr::V6(v6) if v6.scope_id() != 0);
        (!is_zoned && socket.port() != 0).then(|| (socket.ip(), Some(socket.port())))
    };
    let parsed = text.parse().ok().map(|address: IpAddr| (address, None)).or_else(with_port);
    let Some((address, port)) = parsed else {
        problems.add(
            FieldError::new(path, "must be an address, with or without a port")
                .value(text)
                .advice("write it as 10.0.0.1, 10.0.0.1:179, fd00::1 or [fd00::1]:179"),
        );
        return None;
    };
    let address = read::check_address(address, path, problems)?;
    Some(PeerTarget::Address { address, port })
}

/// Nodes say their AS number themselves; of anything else it has to be said.
fn check_as_number(
    peer: &BgpPeer,
    target: Option<&PeerTarget>,
    spec: &Fields<'_>,
    problems: &mut Problems,
) {
    let path = spec.path("ASNumber");
    match (target, peer.as_number) {
        (Some(PeerTarget::Nodes(_)), Some(number)) => problems.add(
            FieldError::new(path, "must be empty when peerSelector is specified")
                .value(number)
                .advice("leave it out: nodes have their own"),
        ),
        (Some(PeerTarget::Workloads), None) => problems
            .add(FieldError::new(path, "must be specified together with localWorkloadSelector")),
        _ => {}
    }
}

fn read_local_as_number(spec: &Fields<'_>, problems: &mut Problems) -> Option<u32> {
    let number = as_number::read(spec, "localASNumber", "LocalASNumber", problems)?;
    if number == 0 {
        let reason = "must be an AS number, which 0 is not";
        problems.add(FieldError::new(spec.path("LocalASNumber"), reason).value(0));
    }
    Some(number)
}

fn read_next_hop(spec: &Fields<'_>, problems: &mut Problems) -> NextHopMode {
    let keeps = spec.boolean("keepOriginalNextHop", "KeepOriginalNextHop", problems);
    let modes =
        [("Auto", NextHopMode::Auto), ("Self", NextHopMode::Itself), ("Keep", NextHopMode::Keep)];
    let mode = spec.word("nextHopMode", "NextHopMode", &modes, problems);
    match (keeps == Some(true), mode) {
        (true, Some(_)) => {
            exclude(spec, "KeepOriginalNextHop", "true", "nextHopMode", problems);
            NextHopMode::default()
        }
        (true, None) => NextHopMode::KeepExternal,
        (false, mode) => mode.unwrap_or_default(),
    }
}

fn read_reachable_by(
    spec: &Fields<'_>,
    target: Option<&PeerTarget>,
    problems: &mut Problems,
) -> Option<IpAddr> {
    let gateway = read::address(spec, "reachableBy", "ReachableBy", problems)?;
    let reason = match target {
        Some(PeerTarget::Address { address, .. }) if address.is_ipv4() == gateway.is_ipv4() => {
            return Some(gateway);
        }
        Some(PeerTarget::Address { .. }) => "must be of the same IP version as peerIP",
        _ if spec.is_set("peerIP") => return None,
        _ => "needs peerIP",
    };
    problems.add(FieldError::new(spec.path("ReachableBy"), reason).value(gateway));
    None
}

fn read_filters(spec: &Fields<'_>, problems: &mut Problems) -> Vec<String> {
    let names = spec.texts("filters", "Filters", problems);
    for name in names.iter().filter(|name| !is_subdomain(name)) {
        let reason = "must be the name of a BGPFilter";
        problems.add(FieldError::new(spec.path("Filters"), reason).value(name));
    }
    names.into_iter().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests;
