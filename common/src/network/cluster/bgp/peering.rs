//! Who peers with whom (Calico: `confd/pkg/backends/calico/{client,bgp_processor}.go`).

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use super::super::cluster_state::{ClusterState, Peer};
use super::export::Exports;
use super::session::{BgpProblem, BgpSession, NextHop, Origin, StaticRoute};
use super::settings::{BGP_PORT, BgpSettings, is_about};
use crate::resources::bgp::{BgpPeer, NextHopMode, PeerNodes, PeerTarget};

/// A node's sessions, and what was found while they were made.
#[derive(Default)]
pub(super) struct Peerings {
    pub(super) sessions: BTreeMap<String, BgpSession>,
    pub(super) static_routes: BTreeSet<StaticRoute>,
    pub(super) problems: BTreeSet<BgpProblem>,
}

/// The other side of a session.
#[derive(Clone, Copy)]
struct Remote<'a> {
    /// The node that it is.
    node: Option<&'a str>,
    address: IpAddr,
    /// Its port, where one is configured.
    port: Option<u16>,
    as_number: u32,
    cluster_id: Option<Ipv4Addr>,
}

/// Makes the sessions of one node.
struct Peering<'a> {
    name: &'a str,
    own: &'a Peer,
    state: &'a ClusterState,
    settings: BgpSettings<'a>,
    exports: Exports<'a>,
    /// The nodes by their addresses.
    nodes: BTreeMap<IpAddr, Vec<(&'a str, &'a Peer)>>,
    /// The names of the sessions that BGPPeers have made, by address and configured port.
    explicit: BTreeMap<(IpAddr, Option<u16>), String>,
    made: Peerings,
}

/// The sessions of `node`; none where it is not registered.
pub(super) fn peerings(node: &str, state: &ClusterState) -> Peerings {
    let Some((name, own)) = state.nodes.get_key_value(node) else { return Peerings::default() };
    let settings = BgpSettings::new(state);
    let mut nodes = BTreeMap::<_, Vec<_>>::new();
    for (name, peer) in &state.nodes {
        for address in peer.addresses() {
            nodes.entry(address).or_default().push((name.as_str(), peer));
        }
    }
    let exports = Exports::new(name, state);
    let (explicit, made) = (BTreeMap::new(), Peerings::default());
    let mut peering = Peering { name, own, state, settings, exports, nodes, explicit, made };
    let all = &state.bgp.peers;
    let is_global = |peer: &BgpPeer| peer.nodes == PeerNodes::All;
    // Of two that want one session the earlier one counts: global, for some nodes, reverse.
    for (name, peer) in all.iter().filter(|(_, peer)| is_global(peer)) {
        peering.add_forward(name, peer, Origin::Global(name.clone()));
    }
    for (name, peer) in all.iter().filter(|(_, peer)| !is_global(peer)) {
        peering.add_forward(name, peer, Origin::Node(name.clone()));
    }
    for (name, peer) in all.iter().filter(|(_, peer)| peer.is_reversed) {
        peering.add_reverse(name, peer);
    }
    peering.add_mesh();
    peering.made
}

impl<'a> Peering<'a> {
    /// The sessions that a BGPPeer asks this node for.
    fn add_forward(&mut self, name: &str, peer: &BgpPeer, origin: Origin) {
        if !is_about(&peer.nodes, self.name, self.own) {
            return;
        }
        let remotes = match &peer.target {
            PeerTarget::Workloads => {
                let (resource, field) = (format!("BGPPeer {name}"), "localWorkloadSelector".into());
                self.made.problems.insert(BgpProblem::NotServed { resource, field });
                return;
            }
            PeerTarget::Nodes(selector) => {
                let selected =
                    self.state.nodes.iter().filter(|(_, it)| selector.matches(&it.labels));
                selected.flat_map(|(node, it)| self.remotes(node, it)).collect()
            }
            PeerTarget::Address { address, port } => {
                self.remote_at(name, peer, *address, *port).into_iter().collect::<Vec<_>>()
            }
        };
        for remote in remotes {
            if let Some(session) = self.session(peer, remote, &origin) {
                let route = |via| StaticRoute { peer: remote.address, via };
                self.made.static_routes.extend(peer.reachable_by.map(route));
                self.add(name, remote, session);
            }
        }
    }

    /// The sessions with the nodes that a BGPPeer makes peer with this one: their mirror image.
    fn add_reverse(&mut self, name: &str, peer: &BgpPeer) {
        let [v4, v6] = match &peer.target {
            PeerTarget::Workloads => [false, false],
            PeerTarget::Nodes(selector) => [selector.matches(&self.own.labels); 2],
            PeerTarget::Address { address, port } => {
                let is_own = self.is_node_at(self.name, self.own, *address, *port, peer.as_number);
                [is_own && address.is_ipv4(), is_own && address.is_ipv6()]
            }
        };
        if !v4 && !v6 {
            return;
        }
        let about = self.state.nodes.iter().filter(|(node, it)| is_about(&peer.nodes, node, it));
        let remotes = about.flat_map(|(node, it)| self.remotes(node, it));
        let is_of_family = |it: &Remote<'_>| if it.address.is_ipv4() { v4 } else { v6 };
        let remotes: Vec<_> = remotes.filter(is_of_family).collect();
        let origin = Origin::Reverse(name.to_owned());
        for remote in remotes {
            let as_number = peer.local_as_number.unwrap_or(remote.as_number);
            let remote = Remote { as_number, ..remote };
            if let Some(session) = self.session(peer, remote, &origin) {
                self.add(name, remote, session);
            }
        }
    }

    /// The sessions with all other nodes that reflect no routes.
    fn add_mesh(&mut self) {
        if self.state.bgp.is_mesh_off() || self.own.route_reflector_cluster_id.is_some() {
            return;
        }
        let configuration = self.settings.of_cluster();
        let speaks_already: BTreeSet<IpAddr> =
            self.explicit.keys().map(|(address, _)| *address).collect();
        let is_in_it = |peer: &Peer| peer.route_reflector_cluster_id.is_none();
        for (node, peer) in self.state.nodes.iter().filter(|(_, peer)| is_in_it(peer)) {
            for remote in self.remotes(node, peer) {
                let Some(own) = self.own_address(remote.address) else { continue };
                if own == remote.address || speaks_already.contains(&remote.address) {
                    continue;
                }
                let session = BgpSession {
                    is_passive: is_later_text(remote.address, own),
                    local_address: Some(own),
                    restart_time: configuration.and_then(|it| it.mesh_restart_time),
                    password: configuration.and_then(|it| it.mesh_password.clone()),
                    bfd: configuration.and_then(|it| it.bfd),
                    ..self.plain_session(Origin::Mesh, remote)
                };
                let name = format!("Mesh_{}", underscored(remote.address));
                self.made.sessions.entry(name).or_insert(session);
            }
        }
    }

    /// A node as the other side of sessions, one in each family.
    fn remotes(&self, node: &'a str, peer: &'a Peer) -> Vec<Remote<'a>> {
        let remote = |address| Remote {
            node: Some(node),
            address,
            port: self.settings.listen_port(node),
            as_number: self.settings.as_number(peer.as_number),
            cluster_id: peer.route_reflector_cluster_id,
        };
        peer.addresses().map(remote).collect()
    }

    /// What a BGPPeer means by an address: a node, or a router.
    fn remote_at(
        &mut self,
        name: &str,
        peer: &BgpPeer,
        address: IpAddr,
        port: Option<u16>,
    ) -> Option<Remote<'a>> {
        let nodes = self.nodes.get(&address).cloned().unwrap_or_default();
        let same = nodes
            .iter()
            .find(|(node, it)| self.is_node_at(node, it, address, port, peer.as_number));
        let of_node = same.map(|(_, it)| self.settings.as_number(it.as_number));
        let Some(as_number) = peer.as_number.or(of_node) else {
            let problem = BgpProblem::NoAsNumber { peer: name.to_owned(), address };
            self.made.problems.insert(problem);
            return None;
        };
        if self.own_address(address).is_none() {
            let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
            let problem = BgpProblem::NoAddress { peer: name.to_owned(), family };
            self.made.problems.insert(problem);
        }
        Some(Remote {
            node: nodes.first().map(|(node, _)| *node),
            address,
            port: port.or_else(|| same.and_then(|(node, _)| self.settings.listen_port(node))),
            as_number,
            cluster_id: same.and_then(|(_, it)| it.route_reflector_cluster_id),
        })
    }

    /// Whether a node is meant by an address, a port and an AS number.
    fn is_node_at(
        &self,
        node: &str,
        peer: &Peer,
        address: IpAddr,
        port: Option<u16>,
        as_number: Option<u32>,
    ) -> bool {
        let listens = self.settings.listen_port(node);
        peer.addresses().any(|own| own == address)
            && as_number.is_none_or(|number| number == self.settings.as_number(peer.as_number))
            && (port.is_none() || listens.is_none() || port == listens)
    }

    /// The session that a BGPPeer asks for; `None` with this node itself, and in a family that
    /// the node has no address of.
    fn session(&self, peer: &BgpPeer, remote: Remote<'a>, origin: &Origin) -> Option<BgpSession> {
        let own = self.own_address(remote.address).filter(|own| *own != remote.address)?;
        let own_as = self.settings.as_number(self.own.as_number);
        let local_as = match origin {
            Origin::Reverse(_) => own_as,
            _ => peer.local_as_number.unwrap_or(own_as),
        };
        let is_external = remote.as_number != local_as;
        let is_global = matches!(origin, Origin::Global(_));
        let cluster_id = self.own.route_reflector_cluster_id;
        Some(BgpSession {
            local_as,
            local_address: peer.from_node_address.then_some(own),
            is_passive: is_global && remote.node.is_some() && is_later_text(remote.address, own),
            reflects_as: cluster_id.filter(|_| !is_external && remote.cluster_id != cluster_id),
            next_hop: match peer.next_hop {
                NextHopMode::Itself => NextHop::Itself,
                NextHopMode::Keep => NextHop::Keep,
                NextHopMode::KeepExternal if is_external => NextHop::Keep,
                NextHopMode::Auto | NextHopMode::KeepExternal => NextHop::Auto,
            },
            ttl_security: peer.ttl_security,
            restart_time: peer.restart_time,
            keepalive_time: peer.keepalive_time,
            allowed_own_as: peer.allowed_own_as,
            password: peer.password.clone(),
            bfd: peer.bfd,
            filters: peer.filters.clone(),
            exports_others: self.exports.others(is_external, remote.address),
            ..self.plain_session(origin.clone(), remote)
        })
    }

    /// A session about which nothing is configured.
    fn plain_session(&self, origin: Origin, remote: Remote<'a>) -> BgpSession {
        let local_as = self.settings.as_number(self.own.as_number);
        let at = (remote.address, remote.port.unwrap_or(BGP_PORT));
        BgpSession {
            node: remote.node.map(str::to_owned),
            ..BgpSession::plain(origin, at, remote.as_number, local_as)
        }
    }

    /// Adds the session of a BGPPeer, unless an earlier one has the address.
    fn add(&mut self, peer: &str, remote: Remote<'a>, session: BgpSession) {
        let key = (remote.address, remote.port);
        let first = self.explicit.get(&key).and_then(|name| self.made.sessions.get(name));
        if let Some(first) = first {
            let is_same = BgpSession { origin: first.origin.clone(), ..session.clone() } == *first;
            let is_implied = matches!(session.origin, Origin::Reverse(_));
            if let Some(first) =
                first.origin.peer().filter(|it| *it != peer && !is_same && !is_implied)
            {
                self.made.problems.insert(BgpProblem::AlreadyPeered {
                    peer: peer.to_owned(),
                    first: first.to_owned(),
                    address: remote.address,
                });
            }
            return;
        }
        let kind = if matches!(session.origin, Origin::Global(_)) { "Global" } else { "Node" };
        let port = remote.port.map(|port| format!("_port_{port}")).unwrap_or_default();
        let name = format!("{kind}_{}{port}", underscored(remote.address));
        for filter in session.filters.iter().filter(|it| !self.state.bgp.filters.contains_key(*it))
        {
            let (peer, filter) = (peer.to_owned(), filter.clone());
            self.made.problems.insert(BgpProblem::NoFilter { peer, filter });
        }
        self.explicit.insert(key, name.clone());
        self.made.sessions.insert(name, session);
    }

    fn own_address(&self, like: IpAddr) -> Option<IpAddr> {
        self.own.address(like).map(|address| address.addr())
    }
}

/// Whether an address is later as text: `10.0.0.9` is later than `10.0.0.10`. Calico's nodes
/// compare so, and of two nodes of one mesh exactly one has to wait.
fn is_later_text(address: IpAddr, than: IpAddr) -> bool {
    address.to_string() > than.to_string()
}

fn underscored(address: IpAddr) -> String {
    address.to_string().replace(['.', ':'], "_")
}
