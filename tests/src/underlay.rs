//! The network beneath a cluster: two subnets, and what lies beyond them.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::etcd::{Etcd, Options};
use crate::node::{Node, UPLINK, connect, has_ipv6};
use crate::place::Place;

/// A subnet of the underlay, 172.31.`s`.0/24 with the router at .1, and where it has IPv6
/// fd31:`s`::/64 with the router at ::1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subnet {
    /// Nodes, `s` = 1.
    First = 1,
    /// Nodes, `s` = 2.
    Second = 2,
    /// The datastore's, `s` = 3.
    Datastore = 3,
    /// The world outside the cluster, `s` = 4.
    Outside = 4,
}

impl Subnet {
    const ALL: [Self; 4] = [Self::First, Self::Second, Self::Datastore, Self::Outside];

    fn address(self, host: u8) -> Ipv4Addr {
        Ipv4Addr::new(172, 31, self as u8, host)
    }

    fn address_v6(self, host: u8) -> Ipv6Addr {
        Ipv6Addr::new(0xfd31, self as u16, 0, 0, 0, 0, 0, host.into())
    }

    /// The router's interface in it: a bridge of the links to its hosts.
    fn bridge(self) -> String {
        format!("br{}", self as u8)
    }
}

/// A host of the underlay: a node of a cluster, or a server.
pub struct Host {
    /// The host itself.
    pub node: Node,
    /// The only IPv4 address of its [`UPLINK`].
    pub address: Ipv4Addr,
    /// Its only IPv6 address, if the underlay has IPv6.
    pub address_v6: Option<Ipv6Addr>,
}

/// Four subnets with a router between them. The router knows these
/// subnets and nothing else: neither a default route nor where containers are,
/// unless a test tells it (as BGP would).
pub struct Underlay {
    router: Node,
    mtu: u32,
    has_ipv6: bool,
}

impl Underlay {
    /// An underlay without hosts, all of whose links have an MTU of 1500 bytes. It has IPv4
    /// alone.
    pub fn new() -> Self {
        Self::with_mtu(1500)
    }

    /// As [`Underlay::new`], with this MTU in bytes.
    pub fn with_mtu(mtu: u32) -> Self {
        let router = Node::bare("router");
        let lines = Subnet::ALL.map(|subnet| {
            let (bridge, address) = (subnet.bridge(), subnet.address(1));
            // Of its own, or else it would change as hosts come, and those that know the old one
            // would not reach the router for a while.
            let hardware = format!("02:00:00:00:00:0{}", subnet as u8);
            format!(
                "link add {bridge} address {hardware} mtu {mtu} type bridge\n\
                 address add {address}/24 dev {bridge}\n\
                 link set {bridge} {silent} up\n",
                silent = no_link_local(),
            )
        });
        router.run_with(&["ip", "-batch", "-"], &lines.concat());
        router.write("/proc/sys/net/ipv4/ip_forward", "1");
        Self { router, mtu, has_ipv6: false }
    }

    /// As [`Underlay::new`], with IPv6 beside IPv4.
    pub fn dual() -> Self {
        let underlay = Self { has_ipv6: true, ..Self::new() };
        let line = |subnet: Subnet| {
            let (address, bridge) = (subnet.address_v6(1), subnet.bridge());
            format!(
                "address add fe80::1/64 dev {bridge} nodad\n\
                 address add {address}/64 dev {bridge} nodad\n"
            )
        };
        let lines = Subnet::ALL.map(line).concat();
        underlay.router.run_with(&["ip", "-batch", "-"], &lines);
        underlay.router.write("/proc/sys/net/ipv6/conf/all/forwarding", "1");
        underlay
    }

    /// The router. Each host's link ends there in an interface named after it.
    pub fn router(&self) -> &Node {
        &self.router
    }

    /// A new node `n<number>` at 172.31.`s`.(10 + number), and fd31:`s`::(10 + number). `number` is 1 to 200
    /// and used once in the whole underlay.
    pub fn node(&self, subnet: Subnet, number: u8) -> Host {
        self.host(&format!("n{number}"), subnet, 10 + number)
    }

    /// The host `outside` at 172.31.4.10, beyond the cluster. To be made once.
    pub fn outside(&self) -> Host {
        self.host("outside", Subnet::Outside, 10)
    }

    /// Starts an etcd on the host `etcd` at 172.31.3.10; its endpoint is good
    /// on every host. To be made once.
    pub fn etcd(&self) -> Etcd {
        let host = self.host("etcd", Subnet::Datastore, 10);
        let options = Options { address: host.address.into(), ..Options::default() };
        Etcd::start_with(&host.node, options)
    }

    /// Loses every packet from and to a host of this underlay from now on. The
    /// host does not see it: its link stays up.
    pub fn cut(&self, host: &Node) {
        self.set_port(host, "disabled");
    }

    /// Ends what [`Underlay::cut`] began.
    pub fn heal(&self, host: &Node) {
        self.set_port(host, "forwarding");
    }

    fn set_port(&self, host: &Node, state: &str) {
        self.router.run(&["bridge", "link", "set", "dev", host.name(), "state", state]);
    }

    fn host(&self, name: &str, subnet: Subnet, number: u8) -> Host {
        let node = Node::bare(name);
        connect(self.router.namespaces(), name, &node);
        let mtu = self.mtu.to_string();
        self.router.run(&["ip", "link", "set", name, "mtu", &mtu, "master", &subnet.bridge()]);
        let (address, gateway) = (subnet.address(number), subnet.address(1));
        let silent = no_link_local();
        let lines = format!(
            "link set {UPLINK} mtu {mtu} {silent} up\n\
             address add {address}/24 dev {UPLINK}\n\
             route add default via {gateway}\n"
        );
        node.run_with(&["ip", "-batch", "-"], &lines);
        let address_v6 = self.has_ipv6.then(|| subnet.address_v6(number));
        if let Some(address) = address_v6 {
            let lines = format!(
                "address add fe80::{number}/64 dev {UPLINK} nodad\n\
                 address add {address}/64 dev {UPLINK} nodad\n\
                 route add default via {}\n",
                subnet.address_v6(1)
            );
            node.run_with(&["ip", "-batch", "-"], &lines);
        }
        Host { node, address, address_v6 }
    }
}

impl Default for Underlay {
    fn default() -> Self {
        Self::new()
    }
}

/// What keeps the kernel from giving a link an IPv6 address; nothing where it has no IPv6.
fn no_link_local() -> &'static str {
    if has_ipv6() { "addrgenmode none" } else { "" }
}
