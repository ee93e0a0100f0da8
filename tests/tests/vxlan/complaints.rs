//! What people complain of in other implementations, each as a test.

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use serde_json::json;
use weir_tests::{Capture, Container, Fleet, Place, Pod, Subnet, UPLINK, VXLAN_PORT, until};

use crate::{DEVICE, dual, pair, pool, registered};

/// A tunnel address out of another node's block is reached by a route of its own (Calico 5595).
#[test]
fn a_borrowed_tunnel_address_is_reached() {
    let mut fleet = Fleet::new(&[Subnet::First, Subnet::Second]);
    // One block, which the first node takes.
    fleet.apply_pool(
        "blue",
        json!({"cidr": "10.61.0.0/28", "blockSize": 28, "vxlanMode": "Always"}),
    );
    fleet.register(0);
    fleet.register(1);
    let first = fleet.pod(0, "blue");
    fleet.start_agents();
    let second = fleet.pod(1, "blue");
    fleet.until_connected(&first, &second);
    let address = |member| {
        registered(&fleet, member)["spec"]["ipv4VXLANTunnelAddr"].as_str().map(str::to_owned)
    };
    fleet.until("both have addresses", || address(0).is_some() && address(1).is_some());
    let borrowed = address(1).expect("an address");
    fleet.until("the node itself is reached", || fleet.members[0].node().reaches(&borrowed));
    let own = address(0).expect("an address");
    fleet.until("and the other way", || fleet.members[1].node().reaches(&own));
}

/// A disabled pool gives no new addresses, and its containers keep their ways (Calico 3672).
#[test]
fn a_disabled_pool_keeps_its_ways() {
    let fleet = pair();
    let pods = fleet.connected_pods("blue");
    let before = registered(&fleet, 0);
    pods[0].without_a_loss(&pods[1], || {
        let spec = json!({"cidr": "10.61.0.0/24", "blockSize": 28, "vxlanMode": "Always",
            "disabled": true});
        fleet.apply_pool("blue", spec);
        // Every agent has taken that in when it knows of a later pool.
        pool(&fleet, "marker", 63, "Never");
        fleet.pod(0, "marker");
        let member = &fleet.members[0];
        fleet.until("the marker", || member.routes().join("\n").contains("10.63.0."));
    });
    let address = |node: &serde_json::Value| node["spec"]["ipv4VXLANTunnelAddr"].clone();
    assert_eq!(address(&registered(&fleet, 0)), address(&before));
}

/// Masquerading never chooses VXLAN's port as a source port: the answer would be taken for a
/// packet of the tunnel (Calico 12244).
#[test]
fn nat_never_chooses_the_port_of_vxlan() {
    let mut fleet = Fleet::new(&[Subnet::First, Subnet::Second]);
    let spec = json!({"cidr": "10.61.0.0/24", "blockSize": 28, "vxlanMode": "Always",
        "natOutgoing": true});
    fleet.apply_pool("blue", spec);
    fleet.start_agents();
    let pod = fleet.pod(0, "blue");
    let outside = fleet.underlay.outside();
    let server = outside.node.enter(|| {
        let socket = std::net::UdpSocket::bind((outside.address, 5353)).expect("a socket");
        socket.set_read_timeout(Some(std::time::Duration::from_secs(10))).expect("a time limit");
        socket
    });
    // The port that a container sends from is kept where it can be.
    let ports: BTreeSet<u16> = [4789, 4788, 4790, 53]
        .into_iter()
        .map(|port| {
            let client = pod.container.enter(|| {
                let client = std::net::UdpSocket::bind(("0.0.0.0", port)).expect("a socket");
                client.set_read_timeout(Some(std::time::Duration::from_secs(10))).expect("a limit");
                client.send_to(b"question", (outside.address, 5353)).expect("sending");
                client
            });
            let mut buffer = [0; 16];
            let (_, from) = server.recv_from(&mut buffer).expect("the question");
            assert_eq!(from.ip(), std::net::IpAddr::V4(fleet.members[0].host.address));
            server.send_to(b"answer", from).expect("sending");
            let (length, _) = client.recv_from(&mut buffer).expect("the answer");
            assert_eq!(&buffer[..length], b"answer", "from port {port}");
            from.port()
        })
        .collect();
    assert!(!ports.contains(&4789), "{ports:?}");
    assert!(ports.contains(&4790), "a free port is kept: {ports:?}");
}

/// The first port that masquerading chooses while VXLAN has its usual one.
const FIRST_PORT: u16 = VXLAN_PORT + 1;

/// How many packets are sent once nothing but VXLAN's port is free. The kernel tries 240 of 64,512
/// ports for each (`nf_nat_l4proto_unique_tuple`), so that all of them miss a port that is allowed
/// in one of three million runs.
const TRIES: u16 = 4000;

/// With every other port of the range in use, what needs one is dropped.
#[test]
fn nat_drops_what_only_the_port_of_vxlan_is_left_for() {
    let mut fleet = dual(&[Subnet::First, Subnet::Second]);
    for (name, cidr, block_size) in [("blue", "10.61.0.0/24", 28), ("blue6", "fd10:61::/112", 124)]
    {
        let spec = json!({"cidr": cidr, "blockSize": block_size, "vxlanMode": "Always",
            "natOutgoing": true});
        fleet.apply_pool(name, spec);
    }
    fleet.start_agents();
    let node = fleet.members[0].node();
    let first = fleet.dual_pod(0, ["blue", "blue6"]).0.container;
    let second = node.container("second");
    let call = fleet.call(0, "blue", &second).configure("/ipam/assign_ipv6", "true".into());
    call.configure("/ipam/ipv6_pools", json!(["blue6"])).add(node);
    let outside = fleet.underlay.outside();
    // None expires before all are there.
    node.write("/proc/sys/net/netfilter/nf_conntrack_udp_timeout", "3600");
    let capture = Capture::start(node, UPLINK);
    for target in [IpAddr::V4(outside.address), outside.address_v6.expect("IPv6").into()] {
        // Nothing that the sender would be told: somebody takes what arrives.
        let _server = outside.node.enter(|| UdpSocket::bind((target, 5353))).expect("a socket");
        let send = |container: &Container, ports: &[u16], content: &[u8]| {
            send_from(container, ports, target, content);
            let length = content.len() + if target.is_ipv4() { 28 } else { 48 };
            let left = capture.packets().into_iter();
            let left = left.filter(|it| it.outer.destination == target && it.length == length);
            left.filter_map(|packet| packet.source_port).collect::<BTreeSet<u16>>()
        };
        // The port that a container sends from is kept where it can be. A busy machine may lose
        // some of so many packets.
        let mut in_use = BTreeSet::new();
        until("the range is in use", || {
            let left: Vec<u16> =
                (FIRST_PORT..=u16::MAX).filter(|port| !in_use.contains(port)).collect();
            in_use.extend(send(&first, &left, b"one"));
            in_use.len() >= usize::from(u16::MAX - VXLAN_PORT)
        });
        assert!(in_use.into_iter().eq(FIRST_PORT..=u16::MAX), "to {target}");
        // Were they allowed, these would be kept as well.
        let below: Vec<u16> = (1024..VXLAN_PORT).collect();
        assert_eq!(send(&first, &below, b"second"), [].into(), "to {target}");
        let others: Vec<u16> = (FIRST_PORT..FIRST_PORT + TRIES).collect();
        assert_eq!(send(&second, &others, b"other"), [].into(), "to {target}");
    }
}

/// Sends a packet from each of these ports, and waits for an answer to one of another kind, which
/// comes when the node is done with them.
fn send_from(container: &Container, ports: &[u16], target: IpAddr, content: &[u8]) {
    let own: IpAddr = if target.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    container.enter(|| {
        for port in ports {
            let socket = UdpSocket::bind((own, *port)).expect("a socket");
            socket.send_to(content, (target, 5353)).expect("sending");
        }
    });
    assert!(container.reaches(&target.to_string()), "{target}");
}

/// Another program's device with the same network identifier and port is told by name.
#[test]
fn a_foreign_device_with_the_same_identifier_is_named() {
    let mut fleet = Fleet::new(&[Subnet::First, Subnet::Second]);
    let node = fleet.members[0].node();
    let line = format!("ip link add flannel.1 type vxlan id 4096 dstport 4789 dev {UPLINK}");
    node.run(&line.split(' ').collect::<Vec<_>>());
    pool(&fleet, "blue", 61, "Always");
    (0..2).for_each(|member| fleet.start_agent(member));
    let health =
        |member: usize| fleet.members[member].agent().answer("/health").unwrap_or_default();
    fleet.until("the device is named", || {
        let health = health(0);
        ["flannel.1", "4096", "vxlanVNI"].iter().all(|word| health.contains(word))
    });
    // Once it is gone all is well, without a restart.
    fleet.members[0].node().run(&["ip", "link", "delete", "flannel.1"]);
    fleet.until("all is well", || fleet.members.iter().all(|it| it.agent().is_well()));
    fleet.connected_pods("blue");
}

/// Large answers over TCP, and many small ones over UDP, through the tunnel; from a container, and
/// from the node's own address, which is masqueraded there (Calico 3145).
#[test]
fn tcp_and_udp_lose_nothing_through_the_tunnel() {
    let fleet = pair();
    let pods = fleet.connected_pods("blue");
    let member = &fleet.members[0];
    fleet.until("the node reaches it", || member.node().reaches(&pods[1].address.to_string()));
    let [of_pod, of_node] = [pods[0].address, member.host.address];
    assert_eq!(loses_nothing(&pods[0].container, of_pod, &pods[1]), of_pod);
    let seen = loses_nothing(member.node(), of_node, &pods[1]);
    assert_ne!(seen, of_node, "it comes from the tunnel's address");
    assert!(fleet.members.iter().all(|member| member.has_device(DEVICE)));
}

/// How much is sent over TCP, in bytes.
const LOAD: u64 = 100 << 20;

/// Requires that nothing is lost between a client and a pod. The client's address as the pod sees it.
fn loses_nothing(client: &impl Place, own: Ipv4Addr, pod: &Pod) -> Ipv4Addr {
    let server = pod.container.enter(|| TcpListener::bind((pod.address, 0))).expect("a socket");
    let target = server.local_addr().expect("a bound socket");
    thread::scope(|scope| {
        let sending = scope.spawn(|| {
            let (mut stream, _) = server.accept().expect("a connection");
            io::copy(&mut io::repeat(7).take(LOAD), &mut stream).expect("sending")
        });
        let mut stream = client.enter(|| TcpStream::connect(target)).expect("connecting");
        let received = io::copy(&mut stream, &mut io::sink()).expect("receiving");
        assert_eq!((received, sending.join().expect("sending")), (LOAD, LOAD));
    });
    let server = udp_socket(&pod.container, pod.address);
    let client = udp_socket(client, own);
    let target = server.local_addr().expect("a bound socket");
    let (mut buffer, mut seen) = ([0; 1024], own);
    for number in 0..10_000_u32 {
        client.send_to(&number.to_be_bytes(), target).expect("sending");
        let (length, from) = server.recv_from(&mut buffer).expect("a question");
        assert_eq!(&buffer[..length], &number.to_be_bytes());
        server.send_to(&[9; 512], from).expect("sending");
        assert_eq!(client.recv_from(&mut buffer).expect("an answer").0, 512);
        if let IpAddr::V4(address) = from.ip() {
            seen = address;
        }
    }
    seen
}

fn udp_socket(place: &impl Place, address: Ipv4Addr) -> UdpSocket {
    let socket = place.enter(|| UdpSocket::bind((address, 0))).expect("a socket");
    socket.set_read_timeout(Some(Duration::from_secs(10))).expect("a time limit");
    socket
}
