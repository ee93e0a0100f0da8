//! A network that connects nodes.

use crate::node::{Node, connect};
use crate::place::Place;

/// An Ethernet segment, 172.30.0.0/24 and fd00:30::/64, with a router at .1
/// and ::1 that is also the world outside: a good place for an etcd or for a
/// server that is on no node.
pub struct Network {
    router: Node,
}

impl Network {
    /// A network without nodes.
    pub fn new() -> Self {
        let router = Node::bare("router");
        let lines = "link add br0 type bridge\n\
                     address add 172.30.0.1/24 dev br0\n\
                     address add fd00:30::1/64 dev br0 nodad\n\
                     link set br0 up\n";
        router.run_with(&["ip", "-batch", "-"], lines);
        Self { router }
    }

    /// The router.
    pub fn router(&self) -> &Node {
        &self.router
    }

    /// A new node `n<number>` at 172.30.0.(10 + number) and
    /// fd00:30::(10 + number), with the router as its default gateway.
    /// `number` is 1 to 200 and used once.
    pub fn node(&self, number: u8) -> Node {
        let name = format!("n{number}");
        let node = Node::bare(&name);
        connect(self.router.namespaces(), &name, &node);
        self.router.run(&["ip", "link", "set", &name, "master", "br0"]);
        node.configure_uplink(10 + number, 1500);
        node
    }
}

impl Default for Network {
    fn default() -> Self {
        Self::new()
    }
}
