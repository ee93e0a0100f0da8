//! What the node remembers of a container's connections goes with the container's address: the
//! next owner gets no packet of them, whichever call gives the address back.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use serde_json::{Value, json};
use weir_tests::{
    Call, Cluster, Container, Families, Network, Place, host_interface, rebound, uninterrupted,
    until,
};

/// The address that one container has after the other.
const RELEASED: &str = "10.7.0.5";
const NODE: &str = "172.30.0.11";
const PEER: &str = "172.30.0.1";

/// Ports: of the containers, and of the node for each of the two.
const PORT: u16 = 5000;
const PUBLISHED: u16 = 5001;
const OTHERS: u16 = 5002;
/// From which the peer sends what no connection belongs to.
const UNRELATED: u16 = 4999;

struct World {
    network: Network,
    cluster: Cluster,
    other: Container,
    /// The IPAM that gives one address.
    ipam: Value,
}

/// What a container got, and from where.
type Packet = (String, SocketAddr);

impl World {
    fn new() -> Self {
        let mut ipam = Families::V4.ipam();
        ipam["ipv4_pools"] = json!(["one"]);
        Self::with(ipam)
    }

    fn with(ipam: Value) -> Self {
        let network = Network::new();
        let cluster = Cluster::embedded_on(network.node(1));
        let one = json!({"cidr": format!("{RELEASED}/32"), "blockSize": 32, "natOutgoing": true});
        cluster.create_pool("one", one);
        cluster.create_pool("others", json!({"cidr": "10.8.0.0/24", "natOutgoing": true}));
        network.router().run(&["ip", "route", "add", "10.7.0.0/24", "via", NODE]);
        // None expires before it is looked at.
        for limit in ["nf_conntrack_udp_timeout", "nf_conntrack_udp_timeout_stream"] {
            cluster.node.write(&format!("/proc/sys/net/netfilter/{limit}"), "3600");
        }
        let other = cluster.node.container("other");
        let call = cluster.weir(Families::V4, &other);
        let result = call.configure("/ipam/ipv4_pools", json!(["others"])).add(&cluster.node);
        let others = weir_tests::address(&result, 0);
        // What portmap does for a container with a port of the node.
        let rules = format!(
            "table ip ports {{ chain nat {{ type nat hook prerouting priority -100;\n\
             udp dport {PUBLISHED} dnat to {RELEASED}:{PORT};\n\
             udp dport {OTHERS} dnat to {others}:{PORT} comment \"stays\"; }}; }}"
        );
        cluster.node.run_with(&["nft", "-f", "-"], &rules);
        Self { network, cluster, other, ipam }
    }

    fn call(&self, container: &Container) -> Call {
        self.cluster.weir(Families::V4, container).configure("/ipam", self.ipam.clone())
    }

    /// A socket of the peer outside.
    fn peer(&self, port: u16) -> UdpSocket {
        bound(self.network.router(), PEER, port)
    }

    /// Takes the port of the node from the container that is gone, as portmap does at its DEL.
    fn unpublish(&self) {
        let listing = self.cluster.node.run(&["nft", "-a", "list", "chain", "ip", "ports", "nat"]);
        let rule = listing.lines().find(|line| line.contains(RELEASED)).expect("the rule");
        let handle = rule.rsplit(' ').next().expect("a handle");
        let rule = ["nft", "delete", "rule", "ip", "ports", "nat", "handle", handle];
        self.cluster.node.run(&rule);
    }
}

fn bound(place: &impl Place, address: &str, port: u16) -> UdpSocket {
    let socket = rebound(|| place.enter(|| UdpSocket::bind((address, port))));
    socket.set_read_timeout(Some(Duration::from_secs(10))).expect("a limit");
    socket
}

fn send(socket: &UdpSocket, text: &str, to: (&str, u16)) {
    socket.send_to(text.as_bytes(), to).expect("sending");
}

fn receive(socket: &UdpSocket) -> Packet {
    let mut buffer = [0; 64];
    let (length, from) = uninterrupted(|| socket.recv_from(&mut buffer)).expect("a packet");
    (String::from_utf8_lossy(&buffer[..length]).into_owned(), from)
}

/// A container has connections from and to the outside, ends by `release`, and another one gets
/// its address.
fn next_owner(world: &World, release: impl FnOnce(&World, Call, Value, Container)) {
    let node = &world.cluster.node;
    let first = node.container("first");
    let call = world.call(&first);
    let result = call.add(node);
    assert!(result["ips"][0]["address"].as_str().is_some_and(|ip| ip.starts_with(RELEASED)));
    let peer = world.peer(0);
    let others = bound(&world.other, "0.0.0.0", PORT);
    {
        let inside = bound(&first, RELEASED, PORT);
        send(&peer, "in", (NODE, PUBLISHED));
        let (text, from) = receive(&inside);
        assert_eq!(text, "in");
        // An answer makes the connection a lasting one.
        inside.send_to(b"answer", from).expect("answering");
        assert_eq!(
            receive(&peer),
            ("answer".to_owned(), SocketAddr::new(NODE.parse().expect("an address"), PUBLISHED))
        );
        send(&peer, "other", (NODE, OTHERS));
        let (text, from) = receive(&others);
        assert_eq!(text, "other");
        others.send_to(b"answer", from).expect("answering");
        assert_eq!(receive(&peer).0, "answer");
    }
    let outside = world.peer(6000);
    let hidden = {
        let inside = bound(&first, RELEASED, PORT + 1);
        send(&inside, "out", (PEER, 6000));
        let hidden = receive(&outside).1;
        outside.send_to(b"answer", hidden).expect("answering");
        assert_eq!(receive(&inside).0, "answer");
        hidden
    };
    assert_eq!(hidden.ip().to_string(), NODE, "masqueraded");
    release(world, call, result, first);
    world.unpublish();
    let second = node.container("second");
    let result = world.call(&second).add(node);
    assert!(result["ips"][0]["address"].as_str().is_some_and(|ip| ip.starts_with(RELEASED)));
    let sockets = [PORT, PORT + 1].map(|port| bound(&second, RELEASED, port));
    // All packets go one way, so what comes first was sent first.
    send(&peer, "stale", (NODE, PUBLISHED));
    outside.send_to(b"stale", hidden).expect("sending");
    let unrelated = world.peer(UNRELATED);
    for (socket, port) in sockets.iter().zip([PORT, PORT + 1]) {
        send(&unrelated, "fresh", (RELEASED, port));
        assert_eq!(receive(socket).0, "fresh", "to port {port}");
    }
    // Connections of others go on, though the rule that they began by is gone.
    node.run(&["nft", "flush", "chain", "ip", "ports", "nat"]);
    send(&peer, "still", (NODE, OTHERS));
    assert_eq!(receive(&others).0, "still");
}

fn gc(world: &World, call: &Call) {
    let call = call.clone().configure("/cniVersion", "1.1.0".into()).configure(
        "/cni.dev~1valid-attachments",
        json!([{"containerID": "other", "ifname": "eth0"}]),
    );
    let nothing = ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"];
    let call = nothing.iter().fold(call, |call, variable| call.with(variable, ""));
    call.run(&world.cluster.node, "GC").silence();
}

#[test]
fn del_ends_the_connections_of_an_address() {
    next_owner(&World::new(), |world, call, _, _first| call.delete(&world.cluster.node));
}

#[test]
fn del_ends_them_of_a_container_that_is_gone() {
    next_owner(&World::new(), |world, call, _, first| {
        first.remove();
        call.delete(&world.cluster.node);
    });
}

#[test]
fn gc_ends_them_too() {
    next_owner(&World::new(), |world, call, _, _first| gc(world, &call));
}

#[test]
fn gc_ends_them_of_a_container_that_is_gone() {
    next_owner(&World::new(), |world, call, _, first| {
        first.remove();
        gc(world, &call);
    });
}

/// The runtime says what another IPAM plugin had assigned.
#[test]
fn del_ends_them_under_another_ipam_plugin() {
    let range = json!({"subnet": "10.7.0.0/24", "rangeStart": RELEASED, "rangeEnd": RELEASED});
    let ipam = json!({"type": "host-local", "ranges": [[range]]});
    next_owner(&World::with(ipam), |world, call, result, first| {
        let link = host_interface(&result).to_owned();
        first.remove();
        // Then the result alone tells.
        until("its link is gone", || !world.cluster.node.succeeds(&["ip", "link", "show", &link]));
        call.configure("/prevResult", result).delete(&world.cluster.node);
    });
}
