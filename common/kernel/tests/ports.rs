//! Published ports on a real kernel: who reaches them, who does not, and what is left of them.

#![allow(clippy::unwrap_used)]

mod support;

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::ops::RangeInclusive;
use std::process::Command;
use std::thread;
use std::time::Duration;

use support::{Other, attachment, identity, ip, on_a_node, open, run, until};
use weir_common::network::{
    AttachmentIdentity, MAX_OF_CONTAINER, NatPool, NatTable, NodeNeeds, PortChange, PortProtocol,
    PortRefused, PortRequest, PortUse, PublishedPort, Step, plan_attachment, plan_node, plan_ports,
};
use weir_kernel::Kernel;

const NODE: [&str; 2] = ["198.51.100.1", "fd00:198::1"];
const OUTSIDE: [&str; 2] = ["198.51.100.9", "fd00:198::9"];
const ONE: [&str; 2] = ["10.1.0.1", "fd00:1::1"];
const TWO: [&str; 2] = ["10.1.0.2", "fd00:1::2"];

/// How long an answer is waited for: for ever, when none comes.
const PATIENCE: Duration = Duration::from_secs(10);
/// The same where none should come.
const SHORT: Duration = Duration::from_millis(700);

/// A node with pools that are masqueraded, two containers, and a host outside.
struct World {
    kernel: Kernel,
    one: Other,
    two: Other,
    outside: Other,
}

impl World {
    async fn new() -> Self {
        let [one, two, outside] = [(); 3].map(|()| Other::new());
        ip("link add uplink type veth peer name eth0");
        ip(&format!("link set eth0 netns {}", outside.path().display()));
        for (address, peer) in NODE.iter().zip(OUTSIDE) {
            let (length, nodad) = if address.contains(':') { (64, "nodad") } else { (24, "") };
            ip(&format!("address add {address}/{length} dev uplink {nodad}"));
            outside.ip(&format!("address add {peer}/{length} dev eth0 {nodad}"));
        }
        ip("link set uplink up");
        outside.ip("link set eth0 up");
        let pool = |cidr: &str| NatPool { cidr: cidr.parse().unwrap(), nat_outgoing: true };
        let nat = NatTable::from_pools(&[pool("10.1.0.0/16"), pool("fd00:1::/64")], None);
        for (container, id, addresses) in [(&one, "one", ONE), (&two, "two", TWO)] {
            let kernel = open(container);
            let attachment = attachment(id, &addresses);
            let needs = NodeNeeds { ipv4: true, ipv6: true, ..NodeNeeds::default() };
            let mut steps = plan_attachment(&attachment);
            steps.extend(plan_node(&needs, &kernel.node_state(true).unwrap()));
            steps.push(Step::EnsureNat(nat.clone()));
            let _ = kernel.apply(&steps).await.unwrap();
        }
        let kernel = Kernel::open().unwrap();
        kernel.ensure_source_filter().await.unwrap();
        until("the host outside is reached", || outside.reaches(NODE[0].parse().unwrap()));
        Self { kernel, one, two, outside }
    }

    /// Publishes what is asked for, and nothing else, for a container.
    async fn publish(&self, id: &str, requests: &[PortRequest]) -> Result<PortChange, PortRefused> {
        let identity = identity(id);
        let published = self.kernel.published_ports().unwrap();
        let states = self.kernel.attachment_states().await.unwrap();
        let own = states.iter().find(|it| it.identity == identity).unwrap();
        let used = |port: &PublishedPort| self.kernel.port_use(port);
        let change = plan_ports(id, requests, &own.addresses, &published, used)?;
        self.kernel.change_ports(&identity, &change, &published).await.unwrap();
        Ok(change)
    }

    async fn forget(&self, id: &str) {
        let published = self.kernel.published_ports().unwrap();
        let change = PortChange::without(id, &published);
        self.kernel.change_ports(&identity(id), &change, &published).await.unwrap();
    }

    fn published(&self) -> Vec<String> {
        self.kernel.published_ports().unwrap().iter().map(ToString::to_string).collect()
    }
}

fn request(host: Option<&str>, ports: RangeInclusive<u16>, container_port: u16) -> PortRequest {
    PortRequest {
        host: host.map(|host| host.parse().unwrap()),
        protocol: PortProtocol::Tcp,
        host_ports: Some(ports),
        container_port,
    }
}

/// Answers everyone at a TCP port with who they are.
fn serve(listener: TcpListener) {
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut stream = stream;
            let peer = stream.peer_addr().unwrap().ip();
            let _ = write!(stream, "{peer}");
        }
    });
}

fn serve_in(container: &Other, address: &str, port: u16) {
    let address: IpAddr = address.parse().unwrap();
    serve(container.within(|| TcpListener::bind((address, port)).unwrap()));
}

/// Who the server sees, in the thread's namespace.
fn ask(address: &str, port: u16, patience: Duration) -> Option<String> {
    let address = SocketAddr::new(address.parse().unwrap(), port);
    let mut stream = TcpStream::connect_timeout(&address, patience).ok()?;
    stream.set_read_timeout(Some(patience)).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

fn tables() -> String {
    run("nft", &["list", "tables"])
}

fn local_networks(identity: &AttachmentIdentity) -> String {
    let host = identity.host_interface();
    let path = format!("/proc/sys/net/ipv4/conf/{host}/route_localnet");
    std::fs::read_to_string(path).unwrap().trim().to_owned()
}

#[test]
fn a_port_is_reached_from_everywhere() {
    on_a_node(|| async {
        let world = World::new().await;
        for address in ONE {
            serve_in(&world.one, address, 80);
        }
        world.publish("one", &[request(None, 8080..=8080, 80)]).await.unwrap();
        assert_eq!(world.published(), ["0.0.0.0:8080/tcp", "[::]:8080/tcp"]);
        for place in [0, 1] {
            let node = NODE[place];
            let from = |other: &Other| other.within(|| ask(node, 8080, PATIENCE));
            // Each is seen as who it is.
            assert_eq!(from(&world.outside).as_deref(), Some(OUTSIDE[place]));
            assert_eq!(from(&world.two).as_deref(), Some(TWO[place]));
            assert_eq!(ask(node, 8080, PATIENCE).as_deref(), Some(node));
            // A container cannot be asked by its own address.
            let hairpin = from(&world.one).unwrap();
            assert!(hairpin != ONE[place] && !hairpin.is_empty(), "{hairpin}");
        }
        let local = ask("127.0.0.1", 8080, PATIENCE).unwrap();
        assert!(!local.starts_with("127."), "{local}");
        // As nobody listens.
        assert_eq!(ask("::1", 8080, PATIENCE), None);
        // The container's own port is no business of this.
        assert_eq!(ask(NODE[0], 80, PATIENCE), None);
    });
}

#[test]
fn a_port_of_udp_is_reached() {
    on_a_node(|| async {
        let world = World::new().await;
        let server = world.one.within(|| UdpSocket::bind((ONE[0], 53)).unwrap());
        thread::spawn(move || {
            let mut buffer = [0; 16];
            while let Ok((_, peer)) = server.recv_from(&mut buffer) {
                let _ = server.send_to(peer.ip().to_string().as_bytes(), peer);
            }
        });
        let udp = PortRequest {
            protocol: PortProtocol::Udp,
            ..request(Some("0.0.0.0"), 5353..=5353, 53)
        };
        world.publish("one", &[udp]).await.unwrap();
        let ask = |address: &str| {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket.connect((address, 5353)).unwrap();
            socket.send(b"?").unwrap();
            let mut buffer = [0; 64];
            let length = socket.recv(&mut buffer).unwrap();
            String::from_utf8_lossy(&buffer[..length]).into_owned()
        };
        assert_eq!(world.outside.within(|| ask(NODE[0])), OUTSIDE[0]);
        assert_eq!(world.two.within(|| ask(NODE[0])), TWO[0]);
        assert!(!world.one.within(|| ask(NODE[0])).is_empty());
        assert!(!ask("127.0.0.1").is_empty());
    });
}

#[test]
fn a_port_on_one_address_is_not_on_another() {
    on_a_node(|| async {
        let world = World::new().await;
        serve_in(&world.one, ONE[0], 80);
        ip("address add 198.51.100.2/24 dev uplink");
        world.publish("one", &[request(Some("198.51.100.2"), 8080..=8080, 80)]).await.unwrap();
        let ask = |address| world.outside.within(|| ask(address, 8080, PATIENCE));
        assert_eq!(ask("198.51.100.2").as_deref(), Some(OUTSIDE[0]));
        assert_eq!(ask("198.51.100.1"), None);
        assert_eq!(local_networks(&identity("one")), "0");
    });
}

#[test]
fn a_port_on_the_loopback_is_the_nodes_alone_and_lets_no_container_in() {
    on_a_node(|| async {
        let world = World::new().await;
        serve_in(&world.one, ONE[0], 80);
        let published = world.one.within(|| UdpSocket::bind((ONE[0], 80)).unwrap());
        let nodes = UdpSocket::bind("127.0.0.1:7000").unwrap();
        let tcp = request(Some("127.0.0.1"), 8080..=8080, 80);
        let udp = PortRequest { protocol: PortProtocol::Udp, ..tcp.clone() };
        world.publish("one", &[tcp, udp]).await.unwrap();
        assert!(ask("127.0.0.1", 8080, PATIENCE).is_some());
        assert_eq!(ask(NODE[0], 8080, PATIENCE), None);
        assert_eq!(local_networks(&identity("one")), "1");
        // Without the filter that would drop it too.
        run("nft", &["delete", "table", "inet", "weir-sources"]);
        // Both can make their own kernels send to it.
        let lies = [(&world.outside, NODE[0]), (&world.one, "169.254.1.1")];
        for (other, next_hop) in lies {
            let parameter = "/proc/sys/net/ipv4/conf/all/route_localnet";
            other.within(|| std::fs::write(parameter, "1").unwrap());
            other.ip(&format!("route add 127.0.0.1 via {next_hop} dev eth0 table 100"));
            other.ip("rule add priority 0 to 127.0.0.1 lookup 100");
            other.ip("rule add priority 1 lookup local");
            other.ip("rule delete priority 0 lookup local");
        }
        let arrives = |from: (&Other, &str), port: u16, server: &UdpSocket| {
            let client = from.0.within(|| UdpSocket::bind((from.1, 0)).unwrap());
            client.send_to(b"?", ("127.0.0.1", port)).unwrap();
            server.set_read_timeout(Some(SHORT)).unwrap();
            server.recv(&mut [0; 8]).is_ok()
        };
        let (outside, one) = ((&world.outside, OUTSIDE[0]), (&world.one, ONE[0]));
        assert!(!arrives(outside, 8080, &published));
        assert!(!arrives(one, 7000, &nodes));
        // It is this table that keeps both out.
        run("nft", &["flush", "chain", "inet", "weir-ports", "input"]);
        let led = "ip daddr 127.0.0.1 udp dport 8080 dnat ip to 10.1.0.1:80";
        run("nft", &["flush", "chain", "inet", "weir-ports", "prerouting"]);
        run("nft", &["add", "rule", "inet", "weir-ports", "prerouting", led]);
        assert!(arrives(outside, 8080, &published));
        assert!(arrives(one, 7000, &nodes));
    });
}

#[test]
fn a_port_that_is_taken_is_refused_with_who_has_it() {
    on_a_node(|| async {
        let world = World::new().await;
        let listener = TcpListener::bind("127.0.0.1:8080").unwrap();
        let refused = world.publish("one", &[request(None, 8080..=8080, 80)]).await.unwrap_err();
        let PortRefused::Listening { port } = &refused else { panic!("{refused}") };
        let who = world.kernel.listener(port).unwrap();
        assert!(who.contains(&format!("(process {})", std::process::id())), "{who}");
        assert!(!tables().contains("weir-ports"));
        // An address beside it, a range, and the port once it is free.
        world.publish("one", &[request(Some(NODE[0]), 8080..=8080, 80)]).await.unwrap();
        world.publish("one", &[request(None, 8080..=8082, 80)]).await.unwrap();
        assert_eq!(world.published(), ["0.0.0.0:8081/tcp", "[::]:8081/tcp"]);
        drop(listener);
        // A process that another test is starting has the socket until it executes its program.
        let freed = async {
            while world.publish("one", &[request(None, 8080..=8080, 80)]).await.is_err() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, freed).await.unwrap();
        // Another container.
        let refused = world.publish("two", &[request(Some(NODE[0]), 8080..=8080, 80)]).await;
        let told = refused.unwrap_err().to_string();
        assert!(told.contains("198.51.100.1:8080/tcp") && told.contains("10.1.0.1"), "{told}");
        // One that the node has not got.
        let refused = world.publish("two", &[request(Some("203.0.113.9"), 90..=90, 80)]).await;
        let told = refused.unwrap_err().to_string();
        assert!(told.contains("203.0.113.9 is not an address of this node"), "{told}");
        assert_eq!(world.published(), ["0.0.0.0:8080/tcp", "[::]:8080/tcp"]);
    });
}

#[test]
fn what_a_container_has_published_is_taken_away_and_nothing_else() {
    on_a_node(|| async {
        let world = World::new().await;
        let many: Vec<_> = (8000..8100).map(|port| request(None, port..=port, 80)).collect();
        let any = PortRequest { host_ports: None, ..request(None, 1..=1, 81) };
        world.publish("one", &many).await.unwrap();
        let first = world.publish("two", &[any.clone(), request(None, 9000..=9001, 80)]).await;
        let first = first.unwrap();
        assert_eq!(first.add.len(), 4);
        // The same call again changes nothing, in whatever order.
        let before = run("nft", &["list", "table", "inet", "weir-ports"]);
        let again = world.publish("two", &[request(None, 9000..=9001, 80), any]).await.unwrap();
        assert!(again.is_empty(), "{again:?}");
        assert_eq!(run("nft", &["list", "table", "inet", "weir-ports"]), before);
        world.forget("one").await;
        let left = world.kernel.published_ports().unwrap();
        assert_eq!(left.len(), 4);
        assert!(left.iter().all(|port| first.add.contains(port)), "{left:?}");
        let table = run("nft", &["list", "table", "inet", "weir-ports"]);
        assert!(!table.contains("10.1.0.1") && !table.contains("\"one\""), "{table}");
        assert_eq!(local_networks(&identity("two")), "1");
        world.forget("two").await;
        world.forget("two").await;
        assert_eq!(world.published(), [""; 0]);
        assert!(!tables().contains("weir-ports"));
        assert_eq!(["one", "two"].map(|id| local_networks(&identity(id))), ["0", "0"]);
    });
}

/// Two drivers at once: the kernel refuses the later one.
#[test]
fn a_port_that_was_published_meanwhile_is_not_published_over() {
    on_a_node(|| async {
        let world = World::new().await;
        world.publish("one", &[request(None, 8080..=8080, 80)]).await.unwrap();
        let before = world.kernel.published_ports().unwrap();
        let wanted = [request(Some(NODE[0]), 8080..=8080, 80), request(None, 9000..=9000, 80)];
        let free = |_: &PublishedPort| PortUse::Free;
        let addresses = TWO.map(|address| address.parse().unwrap());
        let change = plan_ports("two", &wanted, &addresses, &[], free).unwrap();
        assert!(world.kernel.change_ports(&identity("two"), &change, &[]).await.is_err());
        assert_eq!(world.kernel.published_ports().unwrap(), before);
    });
}

/// A table that another program emptied comes back with the next port.
#[test]
fn lost_rules_come_back_beside_what_is_published() {
    on_a_node(|| async {
        let world = World::new().await;
        serve_in(&world.one, ONE[0], 80);
        world.publish("one", &[request(None, 8080..=8080, 80)]).await.unwrap();
        assert!(
            Command::new("nft")
                .args(["flush", "chain", "inet", "weir-ports", "output"])
                .status()
                .unwrap()
                .success()
        );
        world.publish("two", &[request(None, 9000..=9000, 80)]).await.unwrap();
        assert!(ask(NODE[0], 8080, PATIENCE).is_some());
        assert_eq!(world.published().len(), 4);
    });
}

/// Where the table cannot come back, the loopback is closed.
#[test]
fn a_table_that_is_gone_comes_back_and_closes_the_loopback_until_then() {
    on_a_node(|| async {
        let world = World::new().await;
        serve_in(&world.one, ONE[0], 80);
        let change = world.publish("one", &[request(None, 8080..=8080, 80)]).await.unwrap();
        assert_eq!(local_networks(&identity("one")), "1");
        run("nft", &["flush", "ruleset"]);
        // What nft refuses: an element twice.
        let mut wrong = PortChange { add: [&change.add[..]; 2].concat(), remove: Vec::new() };
        wrong.add[0].container_port = 81;
        assert!(world.kernel.change_ports(&identity("one"), &wrong, &[]).await.is_err());
        assert_eq!(local_networks(&identity("one")), "0");
        world.kernel.change_ports(&identity("one"), &change, &[]).await.unwrap();
        assert_eq!(local_networks(&identity("one")), "1");
        assert!(ask("127.0.0.1", 8080, PATIENCE).is_some());
        assert!(ask(NODE[0], 8080, PATIENCE).is_some());
    });
}

#[test]
fn as_many_ports_as_a_container_may_have_are_published_in_one_call() {
    on_a_node(|| async {
        let world = World::new().await;
        let any = PortRequest { host_ports: None, ..request(None, 1..=1, 80) };
        let many = vec![any; MAX_OF_CONTAINER];
        let change = world.publish("one", &many).await.unwrap();
        assert_eq!(change.add.len(), 2 * MAX_OF_CONTAINER);
        let again = world.publish("one", &many).await.unwrap();
        assert!(again.is_empty());
        world.forget("one").await;
        assert_eq!(world.published(), [""; 0]);
    });
}
