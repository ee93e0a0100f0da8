//! Who may send packets of VXLAN to a node: no container, and no stranger.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};

use serde_json::json;
use weir_tests::{Capture, Fleet, Member, Place, Pod, Subnet, UDP, VXLAN_PORT};

use crate::{DEVICE, DEVICE_V6, dual, pair, pool, pool_v6};

/// The address that hand-made packets are from.
const FORGED: &str = "10.61.0.250";
const FORGED_V6: &str = "fd10:61::f0";

/// A packet of UDP without content, as a frame of VXLAN to the device with this hardware address:
/// what follows the UDP header on the wire (RFC 7348, section 5).
fn frame(device: &str, source: IpAddr, target: IpAddr) -> Vec<u8> {
    let hardware = |text: &str| -> Vec<u8> {
        text.split(':').map(|byte| u8::from_str_radix(byte, 16).expect("a byte")).collect()
    };
    let network = 4096_u32 << 8;
    let mut frame = vec![0x08, 0, 0, 0];
    frame.extend(network.to_be_bytes());
    frame.extend(hardware(device));
    frame.extend(hardware("66:00:00:00:00:09"));
    match (source, target) {
        (IpAddr::V4(source), IpAddr::V4(target)) => {
            frame.extend([0x08, 0x00]);
            frame.extend(header_v4(source, target));
        }
        (IpAddr::V6(source), IpAddr::V6(target)) => {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 8, UDP, 64]);
            frame.extend(source.octets());
            frame.extend(target.octets());
        }
        _ => unreachable!("a packet has addresses of one family"),
    }
    // From and to port 7, eight bytes, without a checksum: it only passes through.
    frame.extend([0, 7, 0, 7, 0, 8, 0, 0]);
    frame
}

/// An IPv4 header with its checksum (RFC 1071).
fn header_v4(source: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let mut header = vec![0x45, 0, 0, 28, 0, 0, 0, 0, 64, UDP, 0, 0];
    header.extend(source.octets());
    header.extend(target.octets());
    let words = header.chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !u16::try_from((folded & 0xffff) + (folded >> 16)).expect("folded");
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
    header
}

/// Sends a frame to port 4789 of these addresses, a few times, each followed by a ping to a node
/// on the same way: when that is answered, the node has had the frame.
fn send(from: &impl Place, to: &[IpAddr], near: IpAddr, frame: &[u8]) {
    let any = if near.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = from.enter(|| UdpSocket::bind(any)).expect("a socket");
    socket.set_broadcast(true).expect("leave to broadcast");
    for _ in 0..3 {
        for address in to {
            socket.send_to(frame, (*address, VXLAN_PORT)).expect("sending");
        }
        assert!(from.reaches(&near.to_string()), "{} reaches {near}", from.name());
    }
}

/// A container that is watched, and the frame that somebody forges for it.
struct Target {
    inside: Capture,
    node: IpAddr,
    source: IpAddr,
    frame: Vec<u8>,
}

impl Target {
    fn new(member: &Member, pod: &Pod) -> Self {
        let node = member.host.address.into();
        Self::at(member, pod, (DEVICE, node), (FORGED, pod.address.into()))
    }

    fn at(member: &Member, pod: &Pod, by: (&str, IpAddr), inner: (&str, IpAddr)) -> Self {
        let hardware = member.node().link(by.0);
        let hardware = hardware["address"].as_str().expect("an address");
        let source: IpAddr = inner.0.parse().expect("an address");
        let frame = frame(hardware, source, inner.1);
        Self { inside: Capture::start(&pod.container, "eth0"), node: by.1, source, frame }
    }

    /// Whether the container gets a frame that is sent to its node.
    fn is_hit_from(&self, from: &impl Place) -> bool {
        self.is_hit_by(from, &[self.node])
    }

    /// The same of one that is sent to these addresses.
    fn is_hit_by(&self, from: &impl Place, to: &[IpAddr]) -> bool {
        self.inside.packets();
        send(from, to, self.node, &self.frame);
        self.inside.packets().iter().any(|packet| packet.outer.source == self.source)
    }
}

/// NAT gives what a container sends to a node its own node's address, which every node takes
/// packets of VXLAN from.
#[test]
fn containers_send_no_vxlan() {
    let mut fleet = Fleet::new(&[Subnet::First, Subnet::Second]);
    let spec = json!({"cidr": "10.61.0.0/24", "blockSize": 28, "vxlanMode": "Always",
        "natOutgoing": true});
    fleet.apply_pool("blue", spec);
    fleet.start_agents();
    let pods = fleet.connected_pods("blue");
    let targets = [0, 1].map(|member: usize| Target::new(&fleet.members[member], &pods[member]));
    let node = fleet.members[0].node();
    // The frame is good: it gets in from a node, and from a container that may do anything.
    assert!(targets[1].is_hit_from(node));
    let trusted = node.container("trusted");
    fleet.call(0, "blue", &trusted).configure("/source_check", "off".into()).add(node);
    assert!(targets[1].is_hit_from(&trusted));
    assert!(!targets[1].is_hit_from(&pods[0].container), "to another node");
    let beside = fleet.named_pod(0, "blue", "beside");
    assert!(!targets[0].is_hit_from(&beside.container), "to the node that it is on");
    // Other ports are theirs.
    let server = fleet.members[1].node().enter(|| UdpSocket::bind("0.0.0.0:4790")).expect("a port");
    server.set_read_timeout(Some(std::time::Duration::from_secs(10))).expect("a time limit");
    let client = pods[0].container.enter(|| UdpSocket::bind("0.0.0.0:0")).expect("a socket");
    client.send_to(b"other", (fleet.members[1].host.address, 4790)).expect("sending");
    assert_eq!(server.recv_from(&mut [0; 8]).expect("the packet").0, 5);
}

#[test]
fn vxlan_from_strangers_is_dropped_over_ipv6() {
    let mut fleet = dual(&[Subnet::First, Subnet::Second]);
    pool(&fleet, "blue", 61, "Always");
    pool_v6(&fleet, "blue6", 61, "Always");
    fleet.start_agents();
    let (pod, address) = fleet.dual_pod(0, ["blue", "blue6"]);
    let member = &fleet.members[0];
    fleet.until("there is a tunnel", || member.has_device(DEVICE_V6));
    let node = IpAddr::V6(member.host.address_v6.expect("the underlay has IPv6"));
    let target = Target::at(member, &pod, (DEVICE_V6, node), (FORGED_V6, address.into()));
    let stranger = fleet.underlay.outside();
    assert!(!target.is_hit_from(&stranger.node));
    let own = stranger.address_v6.expect("the underlay has IPv6");
    let spec = json!({"bgp": {"ipv4Address": format!("{}/24", stranger.address),
        "ipv6Address": format!("{own}/64")}});
    fleet.apply("Node", "stranger", spec);
    fleet.until("a registered node is let in", || target.is_hit_from(&stranger.node));
    let answer = fleet.weirctl(0, &["delete", "node", "stranger"]);
    assert!(answer.succeeded, "{answer:?}");
    fleet.until("a node that is gone is a stranger again", || !target.is_hit_from(&stranger.node));
}

#[test]
fn the_list_of_external_nodes_lets_a_stranger_in() {
    let fleet = pair();
    let pod = fleet.pod(0, "blue");
    fleet.until("there is a tunnel", || fleet.members[0].has_device(DEVICE));
    let target = Target::new(&fleet.members[0], &pod);
    let stranger = fleet.underlay.outside();
    let allow = |list: serde_json::Value| {
        fleet.apply("FelixConfiguration", "default", json!({"externalNodesList": list}));
    };
    assert!(!target.is_hit_from(&stranger.node));
    allow(json!(["172.31.4.11", "172.31.5.0/24"]));
    // The agent has taken that in when the filter has it.
    let set = |range: &str| {
        let rules = fleet.members[0].node().run(&["nft", "list", "table", "inet", "weir-tunnel"]);
        rules.contains(range)
    };
    fleet.until("others are let in", || set("172.31.5.0/24"));
    assert!(!target.is_hit_from(&stranger.node), "another address");
    for list in [json!([stranger.address]), json!(["172.31.4.8/29"])] {
        allow(list.clone());
        fleet.until(&format!("{list} lets it in"), || target.is_hit_from(&stranger.node));
        allow(json!([]));
        fleet.until("it is kept out again", || !target.is_hit_from(&stranger.node));
    }
    // The nodes reach each other all the while, and without the configuration.
    let other = fleet.pod(1, "blue");
    fleet.until_connected(&pod, &other);
    let answer = fleet.weirctl(0, &["delete", "felixconfiguration", "default"]);
    assert!(answer.succeeded, "{answer:?}");
    assert!(!target.is_hit_from(&stranger.node));
    fleet.until_connected(&pod, &other);
}

/// VXLAN's socket takes what is for all hosts of the link, too.
#[test]
fn vxlan_from_strangers_to_all_hosts_of_the_link_is_dropped() {
    let fleet = pair();
    let pod = fleet.pod(0, "blue");
    fleet.until("there is a tunnel", || fleet.members[0].has_device(DEVICE));
    let target = Target::new(&fleet.members[0], &pod);
    let stranger = fleet.underlay.node(Subnet::First, 99);
    assert!(!target.is_hit_from(&stranger.node), "to the node itself");
    let is_hit_by =
        |group: &&str| target.is_hit_by(&stranger.node, &[group.parse().expect("an address")]);
    let groups = ["224.0.0.1", "172.31.1.255", "255.255.255.255"];
    let hits: Vec<&str> = groups.into_iter().filter(is_hit_by).collect();
    assert!(hits.is_empty(), "a packet gets in by {hits:?}");
    let address = format!("{}/24", stranger.address);
    fleet.apply("Node", "stranger", json!({"bgp": {"ipv4Address": address}}));
    fleet.until("a registered node is let in", || target.is_hit_from(&stranger.node));
}
