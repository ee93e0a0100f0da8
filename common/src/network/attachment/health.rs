//! What keeps containers that are attached from their network.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use super::firewall::{FirewallProblem, ForwardFilters, find_firewalls};
use super::identity::AttachmentIdentity;
use super::node_needs::NodeState;
use super::plan::Families;
use super::sandbox::ContainerKey;
use crate::ipam::Family;
use crate::network::cluster::{ActualTunnel, Problem, TunnelNeeds};
use crate::network::nat::{NatPool, needs_nat};
use crate::tunnel::TunnelKind;

/// An attachment as the node's kernel has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachmentState {
    /// Which it is.
    pub identity: AttachmentIdentity,
    /// Whether the host's end is up.
    pub up: bool,
    /// The MTU of the host's end in bytes; the container's end was made with the same.
    pub mtu: u32,
    /// Whether the container's end is up: without, nothing is expected to pass. An
    /// ADD brings it up after it has given the node its routes.
    pub carrier: bool,
    /// Whether the container may send from its own addresses only (`source_check`).
    pub is_checked: bool,
    /// What it may send from besides its addresses (`allowed_source_prefixes`).
    pub allowed_sources: BTreeSet<IpNet>,
    /// The sandbox that it is in, where that and not its container id tells which other
    /// interfaces its container has.
    pub sandbox: Option<String>,
    /// The addresses that the node routes to it.
    pub addresses: Vec<IpAddr>,
    /// The IP versions that its link was made ready for. Of interest only where a route
    /// may be missing.
    pub ready_for: Families,
}

impl AttachmentState {
    /// The container that it is an interface of.
    pub fn container(&self) -> ContainerKey<'_> {
        match &self.sandbox {
            Some(sandbox) => ContainerKey::Sandbox(sandbox),
            None => ContainerKey::Id(self.identity.container_id()),
        }
    }

    /// The IP versions that the node routes to it.
    pub fn routed(&self) -> Families {
        Families {
            ipv4: self.addresses.iter().any(IpAddr::is_ipv4),
            ipv6: self.addresses.iter().any(IpAddr::is_ipv6),
        }
    }

    /// The IP versions of which no route leads to it and one should: of those that ADD
    /// made it ready for. There is no attachment without any address.
    pub(super) fn unrouted(&self) -> Option<&'static str> {
        let (routed, ready) = (self.routed(), self.ready_for);
        match (ready.ipv4 && !routed.ipv4, ready.ipv6 && !routed.ipv6) {
            _ if self.addresses.is_empty() => Some("no"),
            (true, _) => Some("no IPv4"),
            (_, true) => Some("no IPv6"),
            (false, false) => None,
        }
    }
}

/// Something that keeps containers from their network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HealthProblem {
    /// The node does not forward what comes from and goes to them.
    NotForwarding {
        /// The kernel's parameter.
        parameter: &'static str,
    },
    /// The host's end of a veth is down.
    LinkDown(AttachmentIdentity),
    /// No route leads to the container, or none of an IP version.
    RouteMissing {
        /// Whose it is.
        identity: AttachmentIdentity,
        /// Which routes there are: `no`, `no IPv4` or `no IPv6`.
        which: &'static str,
    },
    /// Another program drops what the node forwards.
    Firewall(FirewallProblem),
    /// The node has no address of a family that its containers have.
    NotRegistered(Problem),
    /// Pools of containers ask for NAT, and the node has none.
    NatMissing,
    /// Containers may send from their own addresses only, and the filter is gone.
    SourceFilterMissing,
    /// A pool tunnels, and there is no tunnel device.
    TunnelMissing(TunnelKind),
    /// The tunnel device is down.
    TunnelDown(TunnelKind),
    /// The tunnel device has not the address that it should have.
    TunnelWithoutAddress(TunnelKind, IpAddr),
}

impl fmt::Display for HealthProblem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotForwarding { parameter } => write!(
                formatter,
                "containers are attached but the node does not forward; run: sysctl -w \
                 {parameter}=1, and look for what switched it off"
            ),
            Self::LinkDown(identity) => {
                let (link, container) = (identity.host_interface(), identity.container_id());
                write!(formatter, "link {link} of container {container} is down; {REPAIR}")
            }
            Self::RouteMissing { identity, which } => {
                let (link, container) = (identity.host_interface(), identity.container_id());
                write!(
                    formatter,
                    "{which} route leads to container {container} by link {link}; {REPAIR}"
                )
            }
            Self::Firewall(problem) => problem.fmt(formatter),
            Self::NotRegistered(problem) => problem.fmt(formatter),
            Self::NatMissing => write!(
                formatter,
                "pools ask for NAT (natOutgoing) and the node's is gone: their containers do not \
                 reach the world outside; {AGAIN}, and look for what removed \"table inet weir\" \
                 (nft flush ruleset?)"
            ),
            Self::SourceFilterMissing => write!(
                formatter,
                "the filter of what containers send is gone, so they can send with the addresses \
                 of others; {AGAIN}, and look for what removed \"table inet weir-sources\" (nft \
                 flush ruleset?)"
            ),
            Self::TunnelMissing(kind) => write!(
                formatter,
                "a pool tunnels to other nodes ({}) and there is no tunnel device {}; load the \
                 kernel's module with \"modprobe {}\", then {AGAIN}",
                kind.row().mode_field,
                kind.device(),
                kind.row().module
            ),
            Self::TunnelDown(kind) => write!(
                formatter,
                "a pool tunnels to other nodes ({}) and the tunnel device {device} is down; run \
                 \"ip link set {device} up\", then {AGAIN}",
                kind.row().mode_field,
                device = kind.device()
            ),
            Self::TunnelWithoutAddress(kind, address) => write!(
                formatter,
                "a pool tunnels to other nodes ({}) and the tunnel device {} is without its \
                 address {address}; {AGAIN}",
                kind.row().mode_field,
                kind.device()
            ),
        }
    }
}

/// The command that repairs what the node's side of a container has lost.
const REPAIR: &str = "run \"weirctl node repair\", and if that does not help delete and add the \
                      container again";

/// The command that repairs the node's part in the cluster.
const AGAIN: &str = "run \"weirctl node run --once\", or start the agent (weirctl node run)";

/// What keeps a node's tunnel from carrying what it should. That no pool gives it
/// an address is a problem of the pools', which the agent or ADD tells with what it means for
/// containers.
fn tunnel_trouble(
    kind: TunnelKind,
    address: Option<IpAddr>,
    device: Option<&ActualTunnel>,
) -> Option<HealthProblem> {
    let Some(device) = device else {
        return Some(HealthProblem::TunnelMissing(kind));
    };
    if !device.up {
        return Some(HealthProblem::TunnelDown(kind));
    }
    let missing = address.filter(|&it| !device.addresses.contains(&IpNet::from(it)));
    missing.map(|address| HealthProblem::TunnelWithoutAddress(kind, address))
}

/// What of the node's environment decides whether containers can be reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeHealth {
    /// What it forwards.
    pub state: NodeState,
    /// Which tunnels should be in service, as who sees to them says.
    pub needs: TunnelNeeds,
    /// The tunnel devices that there are.
    pub tunnels: BTreeMap<TunnelKind, ActualTunnel>,
    /// The pools for which its NAT was made; none where it has NAT, or somebody else
    /// sees to that.
    pub without_nat: Vec<NatPool>,
    /// Whether the filter of what containers send is gone.
    pub without_source_filter: bool,
    /// The filters of what it forwards.
    pub filters: ForwardFilters,
    /// In which families it is not registered, although others have containers of them.
    pub not_registered: Vec<Problem>,
}

/// What keeps addresses of these IP versions from the world because the node does not
/// forward it.
pub fn not_forwarding(families: Families, node: &NodeState) -> Vec<HealthProblem> {
    let parameters = [
        (families.ipv4 && !node.ipv4_forwarding, "net.ipv4.ip_forward"),
        (families.ipv6 && !node.ipv6_forwarding, "net.ipv6.conf.all.forwarding"),
    ];
    let off = parameters.into_iter().filter(|(off, _)| *off);
    off.map(|(_, parameter)| HealthProblem::NotForwarding { parameter }).collect()
}

/// What keeps these attachments from their network, on a node in this state.
pub fn find_problems(attachments: &[AttachmentState], health: &NodeHealth) -> Vec<HealthProblem> {
    let node = &health.state;
    let has = |is_v4: bool| {
        let mut addresses = attachments.iter().flat_map(|attachment| &attachment.addresses);
        addresses.any(|address| address.is_ipv4() == is_v4)
    };
    let mut problems = Vec::new();
    let families = Families { ipv4: has(true), ipv6: has(false) };
    problems.extend(not_forwarding(families, node));
    let dropping = find_firewalls(&health.filters, families).into_iter();
    problems.extend(dropping.filter(FirewallProblem::is_certain).map(HealthProblem::Firewall));
    let needs = health.needs.iter().filter(|(kind, _)| has(!kind.row().is_ipv6));
    problems.extend(
        needs.filter_map(|(kind, address)| {
            tunnel_trouble(*kind, *address, health.tunnels.get(kind))
        }),
    );
    let lacks = health.not_registered.iter().filter(|problem| match problem {
        Problem::NotRegistered { family, .. } => has(*family == Family::V4),
        _ => false,
    });
    problems.extend(lacks.cloned().map(HealthProblem::NotRegistered));
    if health.without_source_filter && attachments.iter().any(|attachment| attachment.is_checked) {
        problems.push(HealthProblem::SourceFilterMissing);
    }
    let mut addresses = attachments.iter().flat_map(|attachment| &attachment.addresses);
    if addresses.any(|&address| needs_nat(&health.without_nat, address)) {
        problems.push(HealthProblem::NatMissing);
    }
    problems.extend(attachments.iter().filter_map(|attachment| {
        let identity = || attachment.identity.clone();
        if !attachment.up {
            Some(HealthProblem::LinkDown(identity()))
        } else {
            let which = attachment.unrouted().filter(|_| attachment.carrier)?;
            Some(HealthProblem::RouteMissing { identity: identity(), which })
        }
    }));
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attachment(addresses: &[&str]) -> AttachmentState {
        AttachmentState {
            identity: AttachmentIdentity::new("pods", "c1", "eth0").unwrap(),
            up: true,
            mtu: 1500,
            carrier: true,
            is_checked: true,
            allowed_sources: BTreeSet::new(),
            sandbox: None,
            addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
            ready_for: Families::default(),
        }
    }

    fn texts(attachment: AttachmentState, node: &NodeState) -> String {
        let health = NodeHealth { state: node.clone(), ..NodeHealth::default() };
        let problems = find_problems(&[attachment], &health);
        problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn each_trouble_is_told_apart() {
        let forwarding =
            NodeState { ipv4_forwarding: true, ipv6_forwarding: true, ..NodeState::default() };
        let whole = attachment(&["10.0.0.1", "fd00::1"]);
        assert_eq!(texts(whole.clone(), &forwarding), "");
        assert_eq!(find_problems(&[], &NodeHealth::default()), []);
        let off = texts(whole.clone(), &NodeState::default());
        assert!(
            off.contains("net.ipv4.ip_forward") && off.contains("net.ipv6.conf.all.forwarding")
        );
        let four = texts(attachment(&["10.0.0.1"]), &NodeState::default());
        assert!(!four.contains("ipv6"), "{four}");
        let down = texts(AttachmentState { up: false, ..whole.clone() }, &forwarding);
        assert!(down.contains("is down") && down.contains("c1"), "{down}");
        let lost = texts(attachment(&[]), &forwarding);
        assert!(lost.contains("no route") && lost.contains("weir"), "{lost}");
        for (routed, which, ipv4) in
            [("fd00::1", "no IPv4 route", true), ("10.0.0.1", "no IPv6 route", false)]
        {
            let ready_for = Families { ipv4, ipv6: !ipv4 };
            let half = AttachmentState { ready_for, ..attachment(&[routed]) };
            let told = texts(half.clone(), &forwarding);
            assert!(told.contains(which), "{told}");
            let waiting = AttachmentState { carrier: false, ..half };
            assert_eq!(texts(waiting, &forwarding), "");
        }
        // An ADD that waits for its addresses, or a container that was switched off.
        let waiting = AttachmentState { carrier: false, ..attachment(&[]) };
        assert_eq!(texts(waiting, &forwarding), "");
    }

    #[test]
    fn a_family_that_the_node_lacks_counts_where_its_containers_have_it() {
        let lack = |family| Problem::NotRegistered { node: "n1".to_owned(), family };
        let told = |family, addresses: &[&str]| {
            let state =
                NodeState { ipv4_forwarding: true, ipv6_forwarding: true, ..NodeState::default() };
            let not_registered = vec![lack(family)];
            let health = NodeHealth { state, not_registered, ..NodeHealth::default() };
            find_problems(&[attachment(addresses)], &health)
        };
        let both = &["10.0.0.1", "fd00::1"][..];
        for (family, own, other) in
            [(Family::V4, "10.0.0.1", "fd00::1"), (Family::V6, "fd00::1", "10.0.0.1")]
        {
            let wanted = [HealthProblem::NotRegistered(lack(family))];
            assert_eq!(told(family, both), wanted);
            assert_eq!(told(family, &[own]), wanted);
            assert_eq!(told(family, &[other]), []);
        }
    }

    #[test]
    fn nat_counts_where_a_containers_pool_asks_for_it() {
        let pool = |cidr: &str, nat_outgoing| NatPool { cidr: cidr.parse().unwrap(), nat_outgoing };
        let pools = vec![pool("10.0.0.0/24", true), pool("10.1.0.0/24", false)];
        let told = |address: &str, without_nat: &[NatPool]| {
            let state =
                NodeState { ipv4_forwarding: true, ipv6_forwarding: true, ..NodeState::default() };
            let without_nat = without_nat.to_vec();
            let health = NodeHealth { state, without_nat, ..NodeHealth::default() };
            find_problems(&[attachment(&[address])], &health)
        };
        assert_eq!(told("10.0.0.1", &pools), [HealthProblem::NatMissing]);
        assert_eq!(told("10.1.0.1", &pools), []);
        assert_eq!(told("fd00::1", &pools), []);
        assert_eq!(told("10.0.0.1", &[]), []);
        let text = HealthProblem::NatMissing.to_string();
        assert!(text.contains("natOutgoing") && text.contains("node run --once"), "{text}");
    }

    #[test]
    fn a_tunnel_counts_where_a_pool_needs_it() {
        let own: IpAddr = "10.0.0.9".parse().unwrap();
        let kind = TunnelKind::Ipip;
        let told = |needs, tunnel: Option<ActualTunnel>, addresses: &[&str]| {
            let state =
                NodeState { ipv4_forwarding: true, ipv6_forwarding: true, ..NodeState::default() };
            let tunnels = tunnel.into_iter().map(|tunnel| (kind, tunnel)).collect();
            find_problems(
                &[attachment(addresses)],
                &NodeHealth { state, needs, tunnels, ..NodeHealth::default() },
            )
        };
        let device = |up, addresses: &[IpAddr]| {
            let addresses = addresses.iter().map(|address| IpNet::from(*address)).collect();
            Some(ActualTunnel { claimed: true, up, mtu: 1480, addresses, vxlan: None })
        };
        let needs = |address| TunnelNeeds::from([(kind, address)]);
        let need = || needs(Some(own));
        let (v4, v6) = (&["10.0.0.1"][..], &["fd00::1"][..]);
        let missing = || HealthProblem::TunnelMissing(kind);
        let down = || HealthProblem::TunnelDown(kind);
        let bare = HealthProblem::TunnelWithoutAddress(kind, own);
        assert_eq!(told(need(), device(true, &[own]), v4), []);
        assert_eq!(told(TunnelNeeds::new(), None, v4), []);
        assert_eq!(told(need(), None, v6), [], "IPIP carries no IPv6");
        assert_eq!(told(need(), None, v4), [missing()]);
        assert_eq!(told(need(), device(false, &[own]), v4), [down()]);
        assert_eq!(told(need(), device(true, &[]), v4), [bare]);
        assert_eq!(told(needs(None), device(true, &[]), v4), []);
        assert_eq!(told(needs(None), None, v4), [missing()]);
        let of_v6 = TunnelNeeds::from([(TunnelKind::VxlanV6, None)]);
        assert_eq!(told(of_v6.clone(), None, v4), [], "there is no container with IPv6");
        assert_eq!(told(of_v6, None, v6), [HealthProblem::TunnelMissing(TunnelKind::VxlanV6)]);
        let texts = [missing(), down()].map(|it| it.to_string());
        assert!(texts[0].contains("modprobe ipip") && texts[1].contains("ip link set tunl0 up"));
    }
}
