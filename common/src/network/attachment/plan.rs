//! The plan of one attachment.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv6Net};

use super::allowed_source::allowed_source_name;
use super::host_routes::routes_to;
use super::identity::{AttachmentIdentity, GATEWAY_V6};
use super::mtu::{InvalidMtu, Mtu};
use super::step::{ContainerEnd, Side, Step, Sysctl, Veth};
use crate::link::{MacAddress, SourceCheck};
use crate::network::route::{Route, RouteScope, SourceAddresses};

/// The next hop of every IPv4 route in a container, Calico's. Nobody holds it:
/// the host's end answers for it (proxy_arp), and the container knows its
/// hardware address beforehand.
pub const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// The hardware address of the host's end of every veth, Calico's. Every veth
/// is a link of its own, so it need not be unique.
pub const HOST_MAC: MacAddress = MacAddress([0xee; 6]);

/// What is asked for, before it is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachmentRequest {
    /// Whose interface it is.
    pub identity: AttachmentIdentity,
    /// The container's addresses, of either family; at least one.
    pub addresses: Vec<IpAddr>,
    /// The MTU of both ends.
    pub mtu: Mtu,
    /// The hardware address of the container's end; derived from the identity
    /// if `None`.
    pub mac: Option<MacAddress>,
    /// Whether the container may forward between its interfaces (Calico's
    /// `container_settings.allow_ip_forwarding`); `None` to leave that as it is, where
    /// its namespace is the node's own.
    pub allow_ip_forwarding: Option<bool>,
    /// What the container may give as the source of its packets.
    pub source_check: SourceCheck,
    /// What it may give besides its addresses.
    pub allowed_sources: BTreeSet<IpNet>,
    /// Routes of the IPAM result. Those of a family that the container has no
    /// address of are left out.
    pub routes: Vec<RequestedRoute>,
    /// Whether each family gets a default route when `routes` hold none. Calico
    /// adds it when the IPAM configuration names no routes, or
    /// `include_default_routes` is set.
    pub default_routes: bool,
    /// The gateways that the IPAM result names, which are the container's next hops
    /// instead of Weir's own. Those that no host can have, and
    /// those of a family that the container has no address of, are left out.
    pub gateways: Vec<IpAddr>,
}

/// A route that the IPAM result asks for. Its next hop is not used: the
/// container has one neighbour only, the host's end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestedRoute {
    /// Where it leads; host bits are ignored.
    pub destination: IpNet,
    /// The path MTU in bytes that it imposes.
    pub mtu: Option<u32>,
    /// The maximum segment size in bytes that it tells TCP to advertise.
    pub advmss: Option<u32>,
    /// Its metric.
    pub priority: Option<u32>,
    /// The routing table; the main one if `None`.
    pub table: Option<u32>,
    /// The scope: 0 if `None`. From 253 (link) on it has no next hop at all.
    pub scope: Option<u8>,
    /// Whether the result names a next hop.
    pub has_next_hop: bool,
}

impl RequestedRoute {
    /// Why its scope cannot be installed. With a next hop, the kernel takes none from
    /// 253 on, and in no case 255 (`net/ipv4/fib_semantics.c`, fib_check_nh and
    /// fib_create_info); of an IPv6 route it passes over the scope
    /// (`net/ipv6/route.c`).
    fn scope_flaw(&self) -> Option<&'static str> {
        match (self.scope.unwrap_or_default(), self.destination) {
            (0, _) => None,
            (_, IpNet::V6(_)) => Some("IPv6 routes have none; leave scope out"),
            (255, _) => Some("it is the scope of no route (nowhere); leave scope out"),
            (253.., _) if self.has_next_hop => {
                Some("the destination is on the link or the host then; leave gw or scope out")
            }
            _ => None,
        }
    }
}

/// An attachment that can be planned: an [`AttachmentRequest`] found sound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    pub(super) request: AttachmentRequest,
    /// The routes of the container by its other interfaces.
    pub(super) others: Vec<Route>,
    /// The addresses that the node sends to the container from, as far as they are known.
    pub(super) sources: SourceAddresses,
}

/// What is wrong with a request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAttachment {
    /// There is no address.
    #[error("the IPAM result holds no address; an attachment needs at least one")]
    NoAddress,
    /// An address that a container cannot have.
    #[error(
        "address {address} cannot be given to a container: {reason}; check the pool or the \
         address asked for"
    )]
    Address {
        /// The address.
        address: IpAddr,
        /// Why it cannot.
        reason: &'static str,
    },
    /// The MTU is outside what a veth or the addresses take.
    #[error(transparent)]
    Mtu(#[from] InvalidMtu),
    /// A route has a scope that it cannot have.
    #[error("route {destination}: scope {scope} cannot be installed: {reason}")]
    Scope {
        /// Where the route leads.
        destination: IpNet,
        /// Its scope.
        scope: u8,
        /// Why it cannot be.
        reason: &'static str,
    },
    /// The hardware address is one that no interface can have.
    #[error(
        "mac {mac} cannot be used: an interface needs a unicast address (first byte even, not all \
         bytes zero)"
    )]
    Mac {
        /// The hardware address.
        mac: MacAddress,
    },
}

impl Attachment {
    /// Checks a request.
    ///
    /// # Errors
    /// No address, one that is none of a host, one given twice, an MTU that
    /// the families or a veth cannot have, a route's scope that it cannot have, or a
    /// group hardware address.
    pub fn new(mut request: AttachmentRequest) -> Result<Self, InvalidAttachment> {
        if request.addresses.is_empty() {
            return Err(InvalidAttachment::NoAddress);
        }
        for (position, &address) in request.addresses.iter().enumerate() {
            if let Some(reason) = unusable(address, &request.addresses[..position]) {
                return Err(InvalidAttachment::Address { address, reason });
            }
        }
        request.mtu.check(request.addresses.iter().any(IpAddr::is_ipv6))?;
        let of_family = |route: &&RequestedRoute| {
            let is_v4 = route.destination.addr().is_ipv4();
            request.addresses.iter().any(|address| address.is_ipv4() == is_v4)
        };
        for route in request.routes.iter().filter(of_family) {
            if let Some(reason) = route.scope_flaw() {
                let scope = route.scope.unwrap_or_default();
                let destination = route.destination;
                return Err(InvalidAttachment::Scope { destination, scope, reason });
            }
        }
        match request.mac {
            Some(mac) if !mac.is_unicast() => Err(InvalidAttachment::Mac { mac }),
            _ => {
                request.gateways = next_hops(&request);
                Ok(Self { request, others: Vec::new(), sources: SourceAddresses::default() })
            }
        }
    }

    /// The same, to which the node sends from these addresses.
    pub fn seen_from(self, sources: SourceAddresses) -> Self {
        Self { sources, ..self }
    }

    /// Whose interface it is.
    pub fn identity(&self) -> &AttachmentIdentity {
        &self.request.identity
    }

    /// The container's addresses.
    pub fn addresses(&self) -> &[IpAddr] {
        &self.request.addresses
    }

    /// The MTU of both ends, in bytes.
    pub fn mtu(&self) -> u32 {
        self.request.mtu.bytes
    }

    /// The hardware address of the container's end.
    pub fn container_mac(&self) -> MacAddress {
        self.request.mac.unwrap_or_else(|| self.request.identity.container_mac())
    }

    /// The IP versions of its addresses.
    pub fn families(&self) -> Families {
        Families { ipv4: self.has_v4(), ipv6: self.has_v6() }
    }

    /// Whether it has an IPv4 address.
    pub fn has_v4(&self) -> bool {
        self.request.addresses.iter().any(IpAddr::is_ipv4)
    }

    /// Whether it has an IPv6 address.
    pub fn has_v6(&self) -> bool {
        self.request.addresses.iter().any(IpAddr::is_ipv6)
    }

    /// What the container may send from besides its addresses.
    pub fn allowed_sources(&self) -> &BTreeSet<IpNet> {
        &self.request.allowed_sources
    }

    /// Whether what it sends is checked.
    pub(super) fn source_check(&self) -> SourceCheck {
        self.request.source_check
    }

    /// The kernel's parameters of the host's end.
    pub fn host_parameters(&self) -> Vec<Sysctl> {
        host_parameters(self.families(), &self.identity().host_interface())
    }

    /// The neighbours of the container that are entered permanently. A whole network on
    /// the link has no hardware address: the host's end answers for those in it that the
    /// node routes (proxy_arp).
    pub fn neighbours(&self) -> Vec<(IpAddr, MacAddress)> {
        let is_single = |range: &IpNet| range.prefix_len() == range.max_prefix_len();
        let on_link = self.container_routes().into_iter().filter(|route| route.gateway.is_none());
        let single = on_link.map(|route| route.destination).filter(is_single);
        single.map(|range| (range.addr(), HOST_MAC)).collect()
    }

    /// The routes of the node to the container, by the host's end.
    pub fn host_routes(&self) -> Vec<Route> {
        let addresses = self.request.addresses.iter();
        addresses.flat_map(|&address| routes_to(address, self.sources)).collect()
    }
}

/// The gateways of a request that the host's end is to answer for, each once, besides
/// its own.
fn next_hops(request: &AttachmentRequest) -> Vec<IpAddr> {
    let own = [IpAddr::V4(GATEWAY_V4), IpAddr::V6(GATEWAY_V6)];
    let mut next_hops = Vec::new();
    for &gateway in &request.gateways {
        let of_family = |address: &IpAddr| address.is_ipv4() == gateway.is_ipv4();
        let is_host =
            !(gateway.is_unspecified() || gateway.is_loopback() || gateway.is_multicast());
        let is_known = [&own[..], &request.addresses, &next_hops].concat().contains(&gateway);
        if is_host && !is_known && request.addresses.iter().any(of_family) {
            next_hops.push(gateway);
        }
    }
    next_hops
}

fn unusable(address: IpAddr, before: &[IpAddr]) -> Option<&'static str> {
    let link_local = match address {
        IpAddr::V4(address) => address.is_link_local() || address.is_broadcast(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    if address.is_unspecified() || address.is_loopback() || address.is_multicast() || link_local {
        Some("it is not the address of one host that can be routed to")
    } else if before.contains(&address) {
        Some("it is there twice")
    } else {
        None
    }
}

/// The steps that make the veth pair of an attachment: with its addresses still
/// unknown, `mac` the container's hardware address if one is asked for,
/// `mtu` in bytes, and `allowed_sources` what it may send from besides its addresses. [`plan_parameters`] and [`plan_addresses`] go on from there.
pub fn plan_link(
    identity: &AttachmentIdentity,
    mac: Option<MacAddress>,
    mtu: u32,
    source_check: SourceCheck,
    allowed_sources: &BTreeSet<IpNet>,
) -> Vec<Step> {
    let container_mac = mac.unwrap_or_else(|| identity.container_mac());
    let identity = identity.clone();
    let container_end = ContainerEnd::InContainer;
    let veth =
        Veth { identity, host_mac: HOST_MAC, container_mac, mtu, source_check, container_end };
    let (link, alias) = (veth.identity.host_interface(), veth.identity.alias());
    let name = |prefix: &IpNet| allowed_source_name(&link, *prefix);
    let names: Vec<String> = allowed_sources.iter().map(name).collect();
    let names = (!names.is_empty()).then(|| Step::AddNames { link: link.clone(), names });
    [Step::CreateVeth(veth), Step::SetAlias { link, alias }].into_iter().chain(names).collect()
}

/// All steps that make `attachment`, in order.
pub fn plan_attachment(attachment: &Attachment) -> Vec<Step> {
    let (identity, mac) = (attachment.identity(), attachment.container_mac());
    let AttachmentRequest { allow_ip_forwarding, source_check, .. } = attachment.request;
    let allowed = &attachment.request.allowed_sources;
    let mut steps = plan_link(identity, Some(mac), attachment.mtu(), source_check, allowed);
    let families = attachment.families();
    steps.extend(plan_parameters(identity, families, allow_ip_forwarding, source_check));
    steps.extend(plan_addresses(attachment));
    steps
}

/// The host's side of [`plan_attachment`], step by step the same: the container's end is born
/// on the node as `container_end`, and who moves it into the container gives it addresses and
/// routes.
pub fn plan_host_side(attachment: &Attachment, container_end: &str) -> Vec<Step> {
    let on_node = |step| match step {
        Step::CreateVeth(veth) => {
            let container_end = ContainerEnd::OnNode(container_end.to_owned());
            Step::CreateVeth(Veth { container_end, ..veth })
        }
        other => other,
    };
    let of_host = plan_attachment(attachment).into_iter().filter(|it| it.side() == Side::Host);
    of_host.map(on_node).collect()
}

/// The IP versions of an attachment's addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Families {
    /// Whether there is an IPv4 address.
    pub ipv4: bool,
    /// Whether there is an IPv6 address.
    pub ipv6: bool,
}

/// The steps that make a veth pair ready for addresses of these `families`.
///
/// The veth came first, so that one undo takes nearly everything back. Its
/// host end is born up but has no carrier, and so no IPv6 of its own, until the
/// container's end is up: its parameters are in place by then (a container
/// must not be able to give the node a default route by router advertisement:
/// CVE-2020-13597).
/// (Calico's steps: `dataplane_linux.go`, `DoWorkloadNetnsSetUp` and
/// `configureSysctls`.)
pub fn plan_parameters(
    identity: &AttachmentIdentity,
    families: Families,
    allow_ip_forwarding: Option<bool>,
    source_check: SourceCheck,
) -> Vec<Step> {
    let container = identity.interface();
    let host = identity.host_interface();
    let mut parameters = host_parameters(families, &host);
    if families.ipv4 {
        parameters.push(arp_announce(&host));
    }
    if families.ipv4 && source_check == SourceCheck::Strict {
        // The filter decides; this holds where another program flushes nftables.
        parameters.push(reverse_path_filter(&host, "1"));
    }
    let steps = parameters.into_iter().map(Step::SetSysctl);
    steps.chain(container_sysctls(families, allow_ip_forwarding, container)).collect()
}

/// The steps that give a veth pair that is ready the attachment's routes and
/// addresses, and bring its container's end up, in order.
///
/// The host's routes come first: a link with a carrier and without them is then
/// never an ADD at work, so that STATUS can tell what is broken ([`super::find_problems`]).
/// The kernel takes them as soon as the host's end is up, carrier or not. The
/// container's own routes need its end up.
pub fn plan_addresses(attachment: &Attachment) -> Vec<Step> {
    let identity = attachment.identity();
    let host = identity.host_interface();
    let container = identity.interface();
    let host_route = |route| Step::AddRoute { side: Side::Host, link: host.clone(), route };
    let mut steps: Vec<Step> = attachment.host_routes().into_iter().map(host_route).collect();
    if attachment.has_v4() {
        steps.push(add_arp_source(identity));
    }
    steps.push(Step::SetLinkUp { side: Side::Container, link: container.to_owned() });
    if attachment.has_v6() {
        steps.push(add_gateway_v6(identity));
    }
    steps.extend(attachment.addresses().iter().map(|&address| Step::AddAddress {
        side: Side::Container,
        link: container.to_owned(),
        address: address.into(),
        scope: RouteScope::UNIVERSE,
    }));
    steps.extend(container_reach(attachment, container));
    steps
}

/// Gives a host end the address that IPv6 containers have as their next hop.
pub(super) fn add_gateway_v6(identity: &AttachmentIdentity) -> Step {
    let address = IpNet::V6(Ipv6Net::new_assert(identity.gateway_v6(), 64));
    let scope = RouteScope::UNIVERSE;
    Step::AddAddress { side: Side::Host, link: identity.host_interface(), address, scope }
}

/// Gives a host end the address that its ARP requests come from. Of the scope of the link, it
/// is the source of nothing else.
pub(super) fn add_arp_source(identity: &AttachmentIdentity) -> Step {
    let (address, scope) = (IpNet::from(IpAddr::V4(identity.arp_source())), RouteScope::LINK);
    Step::AddAddress { side: Side::Host, link: identity.host_interface(), address, scope }
}

fn container_reach(attachment: &Attachment, container: &str) -> Vec<Step> {
    let link = || container.to_owned();
    let neighbours = attachment.neighbours().into_iter().map(|(address, mac)| Step::AddNeighbour {
        side: Side::Container,
        link: link(),
        address,
        mac,
    });
    let routes = attachment.container_routes().into_iter().chain(attachment.arp_source_route());
    let routes = routes.map(|route| Step::AddRoute { side: Side::Container, link: link(), route });
    neighbours.chain(routes).collect()
}

/// The parameters that the host's end has for these `families`.
pub(super) fn host_parameters(families: Families, host: &str) -> Vec<Sysctl> {
    let v4 = [
        (format!("net/ipv4/neigh/{host}/proxy_delay"), "0"),
        (format!("net/ipv4/conf/{host}/proxy_arp"), "1"),
        (format!("net/ipv4/conf/{host}/forwarding"), "1"),
    ];
    let v6 = [
        (format!("net/ipv6/conf/{host}/disable_ipv6"), "0"),
        (format!("net/ipv6/conf/{host}/accept_dad"), "0"),
        // No address but the one that the plan gives: another mode (stable
        // privacy) or a delay would leave the container without its next hop.
        (format!("net/ipv6/conf/{host}/addr_gen_mode"), "1"),
        (format!("net/ipv6/conf/{host}/proxy_ndp"), "1"),
        (format!("net/ipv6/conf/{host}/forwarding"), "1"),
    ];
    let mut parameters = Vec::new();
    if families.ipv4 {
        parameters.extend(v4.map(|(key, value)| of_veth(Side::Host, key, value, false)));
    }
    // Also where the container has no IPv6: the node may have it.
    let accept_ra = format!("net/ipv6/conf/{host}/accept_ra");
    parameters.push(of_veth(Side::Host, accept_ra, "0", !families.ipv6));
    if families.ipv6 {
        parameters.extend(v6.map(|(key, value)| of_veth(Side::Host, key, value, false)));
    }
    parameters
}

/// The reverse path filter of a host's end.
pub(super) fn reverse_path_filter(host: &str, value: &str) -> Sysctl {
    of_veth(Side::Host, format!("net/ipv4/conf/{host}/rp_filter"), value, false)
}

/// Makes a host end ask for its container from an address of its own. From one that the
/// container does not route back by its link, as where its routes are narrower than the
/// default, a reverse path filter of the container, strict or loose, drops the request
/// (`net/ipv4/arp.c`, arp_process; `net/ipv4/fib_frontend.c`, fib_validate_source).
pub(super) fn arp_announce(host: &str) -> Sysctl {
    of_veth(Side::Host, format!("net/ipv4/conf/{host}/arp_announce"), "2", false)
}

fn container_sysctls(
    families: Families,
    allow_ip_forwarding: Option<bool>,
    container: &str,
) -> Vec<Step> {
    let forwarding = allow_ip_forwarding.map(|allowed| if allowed { "1" } else { "0" });
    let forward = |key| forwarding.map(|value| Step::sysctl(Side::Container, key, value));
    // Where its hardware address changes, the container tells the node.
    let notify = |key| Step::SetSysctl(of_veth(Side::Container, key, "1", true));
    let mut steps = Vec::new();
    if families.ipv4 {
        steps.extend(forward("net/ipv4/ip_forward"));
        steps.push(notify(format!("net/ipv4/conf/{container}/arp_notify")));
    }
    if families.ipv6 {
        steps.extend(forward("net/ipv6/conf/all/forwarding"));
        for (name, value) in [("disable_ipv6", "0"), ("accept_dad", "0")] {
            let key = format!("net/ipv6/conf/{container}/{name}");
            steps.push(Step::SetSysctl(of_veth(Side::Container, key, value, false)));
        }
        steps.push(notify(format!("net/ipv6/conf/{container}/ndisc_notify")));
    }
    steps
}

fn of_veth(side: Side, key: String, value: &str, optional: bool) -> Sysctl {
    Sysctl { side, key, value: value.to_owned(), of_veth: true, optional }
}
