//! Published ports of a node: which ports lead to which containers, as data.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

/// How many ports of a node can be published in an IP version.
pub const MAX_PUBLISHED: usize = 65_536;

/// How many ports can be asked for in one container: what nft adds in a few seconds.
pub const MAX_OF_CONTAINER: usize = 2_048;

/// Where a host port is chosen from when none is asked for: the range that Linux chooses ports
/// from by default (`ip_local_port_range`).
const ANY_PORT: RangeInclusive<u16> = 32_768..=60_999;

/// A protocol with ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PortProtocol {
    /// TCP
    Tcp,
    /// UDP
    Udp,
    /// SCTP
    Sctp,
}

impl PortProtocol {
    pub(super) const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Sctp];

    /// Its number, as IANA has it.
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    /// The protocol of this number.
    pub fn of_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.number() == number)
    }

    /// Its name, as nft and docker have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

/// A port of the node that leads to one of a container.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PublishedPort {
    /// The node's address; unspecified for all that it has in this IP version.
    pub host: IpAddr,
    /// The protocol.
    pub protocol: PortProtocol,
    /// The node's port.
    pub host_port: u16,
    /// The container's address.
    pub container: IpAddr,
    /// The container's port.
    pub container_port: u16,
    /// Which endpoint of Docker's it is published for.
    pub endpoint: String,
}

impl PublishedPort {
    /// Whether a packet may be for both.
    fn overlaps(&self, other: &Self) -> bool {
        let same_host = self.host == other.host
            || self.host.is_ipv4() == other.host.is_ipv4()
                && (self.host.is_unspecified() || other.host.is_unspecified());
        same_host && self.protocol == other.protocol && self.host_port == other.host_port
    }
}

/// `0.0.0.0:8080/tcp`
impl fmt::Display for PublishedPort {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let socket = std::net::SocketAddr::new(self.host, self.host_port);
        write!(formatter, "{socket}/{}", self.protocol.name())
    }
}

/// A port that is to be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortRequest {
    /// The node's address; unspecified for all of its IP version, `None` for all of those IP
    /// versions that the container has.
    pub host: Option<IpAddr>,
    /// The protocol.
    pub protocol: PortProtocol,
    /// The node's port, one of a range, or any.
    pub host_ports: Option<RangeInclusive<u16>>,
    /// The container's port.
    pub container_port: u16,
}

impl PortRequest {
    fn is_for_one(&self) -> bool {
        self.host_ports.as_ref().is_some_and(|range| range.start() == range.end())
    }

    fn takes(&self, port: u16) -> bool {
        self.host_ports.as_ref().is_none_or(|range| range.contains(&port))
    }

    /// The ports to try, in order, behind the first `tried`. Where any will do, each endpoint
    /// begins elsewhere: a port that was just given up is not at once another container's.
    fn candidates(&self, endpoint: &str, tried: u32) -> impl Iterator<Item = u16> + use<> {
        let (first, last) = self.host_ports.clone().unwrap_or(ANY_PORT).into_inner();
        let count = u32::from(last.saturating_sub(first)) + 1;
        let seed = endpoint.get(..8).and_then(|digits| u32::from_str_radix(digits, 16).ok());
        let begin = if self.host_ports.is_some() { 0 } else { seed.unwrap_or_default() % count };
        // Below 65,536, as the range is.
        (tried..count).map(move |step| first + ((begin + step) % count) as u16)
    }
}

/// What the node itself does with a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortUse {
    /// Nothing.
    Free,
    /// A program listens on it.
    Listening,
    /// The node has not got the address.
    NotHere,
}

/// Why a port is not published.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PortRefused {
    /// The container has no address of the IP version.
    #[error(
        "port {port}/{} cannot be published on {host}: the container has no IPv{} address in this \
         network; leave the address out, or name one of the other IP version",
        protocol.name(), if host.is_ipv4() { 4 } else { 6 }
    )]
    NoAddress {
        /// The node's address.
        host: IpAddr,
        /// The protocol.
        protocol: PortProtocol,
        /// The container's port.
        port: u16,
    },
    /// `::1`
    #[error(
        "port {port}/{} cannot be published on ::1: the kernel leads nothing from IPv6's loopback \
         to containers; publish it on 127.0.0.1 or on an address of the node",
        protocol.name()
    )]
    LoopbackV6 {
        /// The protocol.
        protocol: PortProtocol,
        /// The container's port.
        port: u16,
    },
    /// The node has not got the address.
    #[error(
        "port {port} cannot be published: {} is not an address of this node; leave it out, or name \
         one that \"ip address\" shows", port.host
    )]
    NotHere {
        /// The port.
        port: PublishedPort,
    },
    /// Another container has it.
    #[error(
        "port {port} is published for the container with address {} already; choose another host \
         port, or remove that container (\"docker network inspect\" names it by endpoint {})",
        by.container, by.endpoint
    )]
    Published {
        /// The port.
        port: PublishedPort,
        /// What is published.
        by: Box<PublishedPort>,
    },
    /// A program of the node has it.
    #[error("a program listens on port {port} of the node")]
    Listening {
        /// The port.
        port: PublishedPort,
    },
    /// All of the range are taken.
    #[error(
        "none of the ports {}-{} is free for {}/{}; give a larger range",
        range.start(), range.end(), port, protocol.name()
    )]
    NoneFree {
        /// The range.
        range: RangeInclusive<u16>,
        /// The protocol.
        protocol: PortProtocol,
        /// The container's port.
        port: u16,
    },
    /// There are more than the table takes.
    #[error("this node publishes {MAX_PUBLISHED} ports at most; publish fewer")]
    TooMany,
    /// There are more than one call can publish.
    #[error("a container publishes {MAX_OF_CONTAINER} ports at most; publish fewer")]
    TooManyOfContainer,
}

/// A change of what is published.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortChange {
    /// What is published from now on.
    pub add: Vec<PublishedPort>,
    /// What is not any more.
    pub remove: Vec<PublishedPort>,
}

impl PortChange {
    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.add.is_empty() && self.remove.is_empty()
    }

    /// What takes all ports of an endpoint away.
    pub fn without(endpoint: &str, published: &[PublishedPort]) -> Self {
        let own = published.iter().filter(|port| port.endpoint == endpoint).cloned();
        Self { add: Vec::new(), remove: own.collect() }
    }

    /// What it leaves of what is published.
    pub fn left<'a>(&self, published: &'a [PublishedPort]) -> Vec<&'a PublishedPort> {
        let removed: BTreeSet<_> = self.remove.iter().collect();
        published.iter().filter(|port| !removed.contains(port)).collect()
    }
}

/// What makes the ports of an endpoint with these addresses those that are asked for, on a node
/// that publishes `published` already. What of it is the endpoint's own stays where it serves:
/// the same call again changes nothing.
///
/// # Errors
/// [`PortRefused`] when one cannot be published; then none is.
pub fn plan_ports(
    endpoint: &str,
    requests: &[PortRequest],
    addresses: &[IpAddr],
    published: &[PublishedPort],
    mut used: impl FnMut(&PublishedPort) -> PortUse,
) -> Result<PortChange, PortRefused> {
    if requests.len() > MAX_OF_CONTAINER {
        return Err(PortRefused::TooManyOfContainer);
    }
    let (left, others): (Vec<_>, Vec<_>) =
        published.iter().cloned().partition(|port| port.endpoint == endpoint);
    let mut left = BTreeSet::from_iter(left);
    let (mut choice, mut change) = (Choice::among(others), PortChange::default());
    // One that takes only a certain port has it before others choose.
    let mut requests: Vec<&PortRequest> = requests.iter().collect();
    requests.sort_by_key(|request| !request.is_for_one());
    for request in requests {
        let wanted = wanted(endpoint, request, addresses)?;
        let at = |port: u16| {
            wanted.iter().map(move |it| PublishedPort { host_port: port, ..it.clone() })
        };
        let kept = left
            .iter()
            .map(|port| port.host_port)
            .find(|port| request.takes(*port) && at(*port).all(|it| left.contains(&it)));
        if let Some(port) = kept {
            at(port).for_each(|kept| {
                left.remove(&kept);
                choice.take(kept);
            });
            continue;
        }
        let port = choice.choose(endpoint, request, &mut used, at)?;
        at(port).for_each(|port| choice.take(port));
        change.add.extend(at(port));
    }
    if choice.counts.iter().any(|count| *count > MAX_PUBLISHED) {
        return Err(PortRefused::TooMany);
    }
    change.remove = left.into_iter().collect();
    Ok(change)
}

/// What a request comes to, but for the host port: one for each IP version.
fn wanted(
    endpoint: &str,
    request: &PortRequest,
    addresses: &[IpAddr],
) -> Result<Vec<PublishedPort>, PortRefused> {
    let (protocol, port) = (request.protocol, request.container_port);
    if request.host == Some(Ipv6Addr::LOCALHOST.into()) {
        return Err(PortRefused::LoopbackV6 { protocol, port });
    }
    let unspecified = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
    let hosts = request.host.map_or(unspecified.to_vec(), |host| vec![host]);
    let of_host = |host: &IpAddr| {
        let container = addresses.iter().find(|it| it.is_ipv4() == host.is_ipv4());
        container.map(|container| PublishedPort {
            host: *host,
            protocol,
            host_port: 0,
            container: *container,
            container_port: port,
            endpoint: endpoint.to_owned(),
        })
    };
    let wanted: Vec<_> = hosts.iter().filter_map(of_host).collect();
    let missing = PortRefused::NoAddress { host: hosts[0], protocol, port };
    if wanted.is_empty() { Err(missing) } else { Ok(wanted) }
}

/// What host ports are chosen by.
#[derive(Default)]
struct Choice {
    /// What is taken. That of a protocol and a port is little: addresses of the node.
    taken: BTreeMap<(PortProtocol, u16), Vec<PublishedPort>>,
    /// How many these are in each IP version.
    counts: [usize; 2],
    /// How many candidates of a range the last request for it tried, the one that it got
    /// included: they are free for no other.
    tried: BTreeMap<(Option<IpAddr>, PortProtocol, u16, u16), u32>,
}

impl Choice {
    fn among(taken: Vec<PublishedPort>) -> Self {
        let mut choice = Self::default();
        taken.into_iter().for_each(|port| choice.take(port));
        choice
    }

    fn take(&mut self, port: PublishedPort) {
        self.counts[usize::from(!port.host.is_ipv4())] += 1;
        self.taken.entry((port.protocol, port.host_port)).or_default().push(port);
    }

    /// The first host port of the request that is free.
    fn choose<P: Iterator<Item = PublishedPort>>(
        &mut self,
        endpoint: &str,
        request: &PortRequest,
        used: &mut impl FnMut(&PublishedPort) -> PortUse,
        at: impl Fn(u16) -> P,
    ) -> Result<u16, PortRefused> {
        let mut check = |port: PublishedPort| {
            let beside = self.taken.get(&(port.protocol, port.host_port));
            if let Some(by) = beside.into_iter().flatten().find(|it| it.overlaps(&port)) {
                return Err(PortRefused::Published { port, by: Box::new(by.clone()) });
            }
            match used(&port) {
                PortUse::Free => Ok(()),
                PortUse::Listening => Err(PortRefused::Listening { port }),
                PortUse::NotHere => Err(PortRefused::NotHere { port }),
            }
        };
        let range = request.host_ports.clone().unwrap_or(ANY_PORT);
        let key = (request.host, request.protocol, *range.start(), *range.end());
        let tried = self.tried.entry(key).or_default();
        // For a certain port it is to be told who has it.
        let before = if request.is_for_one() { 0 } else { *tried };
        for port in request.candidates(endpoint, before) {
            *tried += 1;
            match at(port).try_for_each(&mut check) {
                Ok(()) => return Ok(port),
                // Another port would not help.
                Err(refused @ PortRefused::NotHere { .. }) => return Err(refused),
                Err(refused) if request.is_for_one() => return Err(refused),
                Err(_) => {}
            }
        }
        let (protocol, port) = (request.protocol, request.container_port);
        Err(PortRefused::NoneFree { range, protocol, port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESSES: [IpAddr; 1] = [IpAddr::V4(Ipv4Addr::new(10, 1, 0, 1))];

    fn any(container_port: u16) -> PortRequest {
        PortRequest { host: None, protocol: PortProtocol::Tcp, host_ports: None, container_port }
    }

    #[test]
    fn a_port_is_asked_about_once_however_many_are_chosen() {
        let requests: Vec<_> = (1..=1000).map(any).collect();
        let mut asked = 0;
        let used = |port: &PublishedPort| {
            asked += 1;
            if port.host_port.is_multiple_of(2) { PortUse::Free } else { PortUse::Listening }
        };
        let change = plan_ports("0000", &requests, &ADDRESSES, &[], used).unwrap();
        let chosen: BTreeSet<_> = change.add.iter().map(|port| port.host_port).collect();
        assert_eq!(chosen.len(), 1000);
        assert_eq!(asked, 1999);
        // The same again, and one more.
        let again = [requests.clone(), vec![any(2000)]].concat();
        let used = |_: &PublishedPort| PortUse::Free;
        let more = plan_ports("0000", &again, &ADDRESSES, &change.add, used).unwrap();
        assert_eq!((more.add.len(), more.remove.len()), (1, 0));
        assert!(!chosen.contains(&more.add[0].host_port));
    }

    #[test]
    fn ports_of_a_range_are_those_that_other_addresses_and_protocols_leave() {
        let host = |host: &str| Some(host.parse().unwrap());
        let ranged = |host| PortRequest { host, host_ports: Some(80..=81), ..any(1) };
        let (one, two) = (ranged(host("198.51.100.1")), ranged(host("198.51.100.2")));
        let udp = PortRequest { protocol: PortProtocol::Udp, ..one.clone() };
        let plan = |requests: &[PortRequest]| {
            plan_ports("e", requests, &ADDRESSES, &[], |_| PortUse::Free)
        };
        let requests = [one.clone(), one.clone(), two.clone(), udp];
        let ports: Vec<_> = plan(&requests).unwrap().add.iter().map(|it| it.host_port).collect();
        assert_eq!(ports, [80, 81, 80, 80]);
        let refused = plan(&[one.clone(), one, two, ranged(None)]).unwrap_err();
        assert!(matches!(refused, PortRefused::NoneFree { .. }), "{refused}");
    }

    #[test]
    fn a_container_publishes_no_more_than_one_call_adds() {
        let requests = vec![any(1); MAX_OF_CONTAINER + 1];
        let plan =
            |requests| plan_ports("e", requests, &ADDRESSES, &[], |_| PortUse::Free).map(|_| ());
        assert_eq!(plan(&requests[1..]), Ok(()));
        assert_eq!(plan(&requests), Err(PortRefused::TooManyOfContainer));
    }
}
