//! Containers send with their own addresses only, and never to the node's loopback.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use serde_json::{Value, json};
use weir_tests::{
    Agent, Cluster, Container, Families, Network, Place, host_interface, rebound, uninterrupted,
    until,
};

/// How long nothing must come for a packet to count as dropped: what comes, comes at once.
const SILENCE: Duration = Duration::from_millis(300);

const PORT: u16 = 4000;

/// The addresses of a result, of IPv4 first.
fn addresses(result: &Value) -> Vec<IpAddr> {
    let ips = result["ips"].as_array().expect("a result lists addresses");
    let address = |ip: &Value| {
        let text = ip["address"].as_str().expect("an address").split('/').next();
        text.expect("an address").parse().expect("an address")
    };
    ips.iter().map(address).collect()
}

/// Whether what `sender` sends with this source reaches `receiver`. The sender takes the
/// source on its loopback first, as whoever means to deceive would.
fn arrives(
    (sender, source): (&impl Place, IpAddr),
    (receiver, destination): (&impl Place, IpAddr),
) -> bool {
    let prefix = if source.is_ipv4() { 32 } else { 128 };
    let on_loopback = format!("{source}/{prefix}");
    sender.run(&["ip", "address", "replace", &on_loopback, "dev", "lo", "nodad"]);
    let to = SocketAddr::new(destination, PORT);
    let listening = rebound(|| receiver.enter(|| UdpSocket::bind(to)));
    listening.set_read_timeout(Some(SILENCE)).expect("a time limit");
    let sending = sender.enter(|| UdpSocket::bind(SocketAddr::new(source, 0)));
    sending.expect("a port to send from").send_to(b"hello", to).expect("sending");
    let received = uninterrupted(|| listening.recv_from(&mut [0; 16]));
    match received {
        Ok((_, from)) => from.ip() == source,
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => false,
        Err(error) => panic!("{error}"),
    }
}

/// Two containers and their addresses.
fn pair(cluster: &Cluster) -> [(Container, Vec<IpAddr>); 2] {
    ["one", "two"].map(|name| {
        let container = cluster.node.container(name);
        let result = cluster.weir(Families::Dual, &container).add(&cluster.node);
        (container, addresses(&result))
    })
}

#[test]
fn a_container_sends_with_its_own_addresses_only() {
    let cluster = Cluster::embedded().with_pools(Families::Dual);
    let [(one, own), (two, others)] = pair(&cluster);
    let third = cluster.node.container("three");
    let victims = addresses(&cluster.weir(Families::Dual, &third).add(&cluster.node));
    // The node's defaults are the loosest.
    cluster.node.run(&["sysctl", "-w", "net.ipv4.conf.all.rp_filter=0"]);
    for family in 0..2 {
        let to = (&two, others[family]);
        assert!(arrives((&one, own[family]), to), "{}", own[family]);
        assert!(!arrives((&one, victims[family]), to), "{}", victims[family]);
    }
    // Nor to the node itself, nor as the node.
    let node_v4: IpAddr = "172.31.9.1".parse().unwrap();
    cluster.node.run(&["ip", "address", "add", "172.31.9.1/32", "dev", "lo"]);
    assert!(arrives((&one, own[0]), (&cluster.node, node_v4)));
    assert!(!arrives((&one, victims[0]), (&cluster.node, node_v4)));
    assert!(!arrives((&one, "172.31.9.1".parse().unwrap()), (&two, others[0])));
    assert!(!arrives((&one, "fd00:99::1".parse().unwrap()), (&two, others[1])));
}

#[test]
fn where_the_check_is_off_any_source_passes() {
    let cluster = Cluster::embedded().with_pools(Families::Dual);
    let [_, (two, others)] = pair(&cluster);
    let free = cluster.node.container("free");
    let call = cluster.weir(Families::Dual, &free).configure("/source_check", "off".into());
    call.add(&cluster.node);
    cluster.node.run(&["sysctl", "-w", "net.ipv4.conf.all.rp_filter=0"]);
    assert!(arrives((&free, "192.0.2.7".parse().unwrap()), (&two, others[0])));
    assert!(arrives((&free, "2001:db8::7".parse().unwrap()), (&two, others[1])));
    let refused = cluster.weir(Families::Dual, &free).configure("/source_check", "of".into());
    refused.run(&cluster.node, "ADD").failure().expect(7, &["source_check", "\"of\"", "strict"]);
}

#[test]
fn a_container_with_two_interfaces_sends_with_the_addresses_of_both_by_each() {
    let cluster = Cluster::embedded().with_pools(Families::Dual);
    let [(one, first), (two, others)] = pair(&cluster);
    let second = cluster.weir(Families::Dual, &one).with("CNI_IFNAME", "net1");
    let result = second.add(&cluster.node);
    let more = addresses(&result);
    for (family, address) in more.iter().enumerate() {
        let to = (&two, others[family]);
        // By the first interface, as its routes have it.
        let link = one.run(&["ip", "route", "get", &others[family].to_string()]);
        assert!(link.contains("eth0"), "{link}");
        assert!(arrives((&one, *address), to), "{address}");
        assert!(arrives((&one, first[family]), to), "{}", first[family]);
    }
    // Another program flushes all tables: the next ADD brings everything back.
    cluster.node.run(&["nft", "flush", "ruleset"]);
    let status = cluster.weir(Families::Dual, &one).configure("/cniVersion", "1.1.0".into());
    let status = status.run(&cluster.node, "STATUS");
    status.failure().expect(51, &["weir-sources"]);
    let third = cluster.node.container("three");
    let victims = addresses(&cluster.weir(Families::Dual, &third).add(&cluster.node));
    assert!(arrives((&one, more[1]), (&two, others[1])));
    assert!(!arrives((&one, victims[1]), (&two, others[1])));
    // Once the second interface is gone its address is as strange as any.
    second.delete(&cluster.node);
    assert!(!arrives((&one, more[1]), (&two, others[1])));
}

/// The elements of both sets of the filter.
fn allowed(cluster: &Cluster) -> Vec<String> {
    let table = cluster.node.run(&["nft", "-j", "list", "table", "inet", "weir-sources"]);
    let table: Value = serde_json::from_str(&table).expect("nft prints JSON");
    let objects = table["nftables"].as_array().expect("a list").iter();
    let elements = objects.filter_map(|object| object["set"]["elem"].as_array()).flatten();
    elements.map(Value::to_string).collect()
}

#[test]
fn a_container_sends_from_the_prefixes_that_it_is_allowed_too() {
    let cluster = Cluster::embedded().with_pools(Families::Dual);
    cluster.node.run(&["sysctl", "-w", "net.ipv4.conf.all.rp_filter=0"]);
    let [(one, own), (two, others)] = pair(&cluster);
    let router = cluster.node.container("router");
    let call = cluster
        .weir(Families::Dual, &router)
        .configure("/cniVersion", "1.1.0".into())
        .configure("/allowed_source_prefixes", json!(["10.99.0.0/24", "10.99.0.7"]));
    let asked = json!({"cni": {"allowed_source_prefixes": ["fd99::/64"]}});
    let call = call.configure("/args", asked);
    let result = call.add(&cluster.node);
    let vips: [IpAddr; 2] = ["10.99.0.7", "fd99::7"].map(|it| it.parse().unwrap());
    let strange: [IpAddr; 2] = ["10.98.0.7", "fd98::7"].map(|it| it.parse().unwrap());
    let holds = || {
        for family in 0..2 {
            let to = (&two, others[family]);
            assert!(arrives((&router, vips[family]), to), "{}", vips[family]);
            assert!(!arrives((&router, strange[family]), to), "{}", strange[family]);
            // Nobody else may.
            assert!(!arrives((&one, vips[family]), to), "{}", vips[family]);
        }
    };
    holds();
    call.check(&cluster.node, &result).silence();
    // The table is lost.
    cluster.node.run(&["nft", "flush", "ruleset"]);
    call.run(&cluster.node, "STATUS").failure().expect(51, &["weir-sources"]);
    call.check(&cluster.node, &result).failure().expect(107, &["weir-sources"]);
    assert!(arrives((&one, vips[1]), (&two, others[1])), "nothing is dropped without");
    cluster.weir(Families::Dual, &cluster.node.container("next")).add(&cluster.node);
    holds();
    assert_eq!(call.add(&cluster.node), result, "a second ADD changes nothing");
    // A configuration that allows less than it did.
    let less = call.clone().configure("/allowed_source_prefixes", json!(null));
    less.check(&cluster.node, &result).failure().expect(107, &["10.99.0.0/24", "[fd99::/64]"]);
    less.add(&cluster.node);
    assert!(!arrives((&router, vips[0]), (&two, others[0])));
    assert!(arrives((&router, vips[1]), (&two, others[1])));
    assert!(arrives((&one, own[0]), (&two, others[0])));
    assert_eq!(allowed(&cluster).len(), 1);
    call.delete(&cluster.node);
    assert_eq!(allowed(&cluster), [] as [String; 0]);
}

#[test]
fn what_a_container_was_allowed_goes_with_gc() {
    let cluster = Cluster::embedded().with_pools(Families::V4);
    let [kept, lost] = ["kept", "lost"].map(|name| cluster.node.container(name));
    let allowing = |container: &Container| {
        let call = cluster.weir(Families::V4, container).configure("/cniVersion", "1.1.0".into());
        call.configure("/allowed_source_prefixes", json!(["10.99.0.0/24"]))
    };
    for container in [&kept, &lost] {
        allowing(container).add(&cluster.node);
    }
    assert_eq!(allowed(&cluster).len(), 2);
    let valid = json!([{"containerID": "kept", "ifname": "eth0"}]);
    let gc = allowing(&kept).configure("/cni.dev~1valid-attachments", valid);
    let gc = gc.without("CNI_CONTAINERID").without("CNI_IFNAME").without("CNI_NETNS");
    gc.run(&cluster.node, "GC").silence();
    assert_eq!(allowed(&cluster).len(), 1);
    allowing(&kept).delete(&cluster.node);
    assert_eq!(allowed(&cluster), [] as [String; 0]);
}

/// An nft that refuses the NAT's table.
const WITHOUT_NAT: &str = r#"#!/bin/sh
input=$(cat)
case $input in *'"table":"weir"'*) exit 1 ;; esac
printf %s "$input" | exec /usr/sbin/nft "$@"
"#;

#[test]
fn what_a_container_was_allowed_goes_with_an_add_that_fails() {
    let cluster = Cluster::embedded();
    cluster.create_pool("blue", json!({"cidr": "10.7.0.0/24", "natOutgoing": true}));
    cluster.node.write("/run/refusing/nft", WITHOUT_NAT);
    cluster.node.run(&["chmod", "+x", "/run/refusing/nft"]);
    let call = cluster.weir(Families::V4, &cluster.node.container("web"));
    let call = call.configure("/allowed_source_prefixes", json!(["10.99.0.0/24"]));
    let refused = call.clone().with("PATH", "/run/refusing:/usr/bin:/bin");
    refused.run(&cluster.node, "ADD").failure().expect(105, &["nft replace table inet weir"]);
    assert_eq!(allowed(&cluster), [] as [String; 0]);
    call.add(&cluster.node);
    assert_eq!(allowed(&cluster).len(), 1);
}

#[test]
fn the_agent_brings_the_filter_back_with_what_it_allows() {
    let network = Network::new();
    let cluster = Cluster::embedded_on(network.node(1)).with_pools(Families::V4);
    cluster.node.run(&["sysctl", "-w", "net.ipv4.conf.all.rp_filter=0"]);
    let _agent = Agent::start(&cluster.node, &cluster.store, "n1", &[]);
    let [router, other] = ["router", "other"].map(|name| cluster.node.container(name));
    let allowed_more = json!(["10.99.0.0/24"]);
    let call = cluster.weir(Families::V4, &router);
    call.configure("/allowed_source_prefixes", allowed_more).add(&cluster.node);
    let to = addresses(&cluster.weir(Families::V4, &other).add(&cluster.node))[0];
    let sends = |source: &str| arrives((&router, source.parse().unwrap()), (&other, to));
    assert!(sends("10.99.0.7") && !sends("10.98.0.7"));
    cluster.node.run(&["nft", "flush", "ruleset"]);
    until("the filter is back", || !sends("10.98.0.7"));
    until("with what it allows", || sends("10.99.0.7"));
}

/// Counts what passes the filter: packets of IPv6 that a host end has and that match.
fn count(cluster: &Cluster, host_end: &str, counters: &[(&str, &str)]) -> impl Fn(&str) -> u64 {
    let mut table = "table inet watch {\n".to_owned();
    for (name, _) in counters {
        table += &format!("counter {name} {{}}\n");
    }
    table += "chain passed {\ntype filter hook prerouting priority -290;\n";
    for (name, what) in counters {
        table += &format!("iifname {host_end} {what} counter name {name}\n");
    }
    cluster.node.run_with(&["nft", "-f", "-"], &(table + "}\n}\n"));
    move |name| {
        let counter = ["nft", "-j", "list", "counter", "inet", "watch", name];
        let counter: Value = serde_json::from_str(&cluster.node.run(&counter)).expect("JSON");
        counter["nftables"][1]["counter"]["packets"].as_u64().expect("a number of packets")
    }
}

#[test]
fn neighbour_discovery_and_multicast_groups_of_ipv6_work() {
    let cluster = Cluster::embedded().with_pools(Families::Dual);
    let container = cluster.node.container("web");
    let result = cluster.weir(Families::Dual, &container).add(&cluster.node);
    // Type 135 is a neighbour solicitation (RFC 4861).
    let counters = [
        ("detection", "ip6 saddr :: icmpv6 type 135"),
        ("solicitation", "ip6 saddr fe80::/10 icmpv6 type 135"),
        ("report", "ip6 saddr fe80::/10 icmpv6 type mld2-listener-report"),
        ("spoofed", "ip6 saddr fd00:98::1"),
    ];
    let passed = count(&cluster, host_interface(&result), &counters);
    // A second address, with duplicate address detection, which Weir's own do without.
    container.run(&["sysctl", "-w", "net.ipv6.conf.eth0.accept_dad=1"]);
    container.run(&["ip", "address", "add", "fd00:98::7/128", "dev", "eth0"]);
    let tentative = || container.run(&["ip", "-6", "address", "show", "tentative"]);
    until("the address is usable", || tentative().is_empty());
    assert!(!container.run(&["ip", "-6", "address", "show", "dadfailed"]).contains("fd00:98"));
    assert!(passed("detection") > 0);
    // A group that it joins.
    let joined = container.enter(|| UdpSocket::bind("[::]:0")).expect("a socket");
    let index = container.link("eth0")["ifindex"].as_u64().expect("a number") as u32;
    let group = "ff05::77".parse().unwrap();
    container.enter(|| joined.join_multicast_v6(&group, index)).expect("a group");
    until("a report comes", || passed("report") > 0);
    // It looks for a neighbour.
    container.succeeds(&["ping", "-n", "-q", "-c1", "-W1", "fe80::1%eth0"]);
    until("a solicitation comes", || passed("solicitation") > 0);
    let spoofed = "fd00:98::1".parse().unwrap();
    cluster.node.run(&["ip", "address", "add", "fd00:97::1/128", "dev", "lo", "nodad"]);
    assert!(!arrives((&container, spoofed), (&cluster.node, "fd00:97::1".parse().unwrap())));
    assert_eq!(passed("spoofed"), 0);
}

#[test]
fn a_dhcp_client_reaches_a_server_on_the_node() {
    let cluster = Cluster::embedded().with_pools(Families::V4);
    let container = cluster.node.container("client");
    cluster.weir(Families::V4, &container).add(&cluster.node);
    let server = cluster.node.enter(|| UdpSocket::bind("0.0.0.0:67")).expect("a server");
    server.set_read_timeout(Some(Duration::from_secs(3))).expect("a time limit");
    // A client has no address yet.
    container.run(&["ip", "-4", "address", "flush", "dev", "eth0"]);
    container.run(&["ip", "route", "add", "255.255.255.255", "dev", "eth0"]);
    let client = container.enter(|| UdpSocket::bind("0.0.0.0:68")).expect("a client");
    client.set_broadcast(true).expect("broadcasts");
    client.send_to(b"discover", "255.255.255.255:67").expect("sending");
    let received = uninterrupted(|| server.recv_from(&mut [0; 16]));
    let (_, from) = received.expect("what the client sends");
    assert_eq!(from, "0.0.0.0:68".parse().unwrap());
}

#[test]
fn the_nodes_loopback_is_out_of_reach() {
    let cluster = Cluster::embedded().with_pools(Families::V4);
    let container = cluster.node.container("web");
    let result = cluster.weir(Families::V4, &container).add(&cluster.node);
    let host_end = host_interface(&result);
    let parameter = format!("/proc/sys/net/ipv4/conf/{host_end}/route_localnet");
    assert_eq!(cluster.node.run(&["cat", &parameter]).trim(), "0");
    let own = addresses(&result)[0];
    let loopback: IpAddr = "127.0.0.1".parse().unwrap();
    let send = |container: &Container| {
        // A container can make its own kernel send to it.
        container.run(&["sysctl", "-w", "net.ipv4.conf.all.route_localnet=1"]);
        container.run(&["ip", "rule", "add", "priority", "0", "to", "127.0.0.1", "lookup", "100"]);
        let gateway = ["via", "169.254.1.1", "dev", "eth0", "table", "100"];
        container.run(&[&["ip", "route", "add", "127.0.0.1/32"][..], &gateway].concat());
        container.run(&["ip", "rule", "add", "priority", "1", "lookup", "local"]);
        container.run(&["ip", "rule", "delete", "priority", "0", "lookup", "local"]);
    };
    send(&container);
    assert!(!arrives((&container, own), (&cluster.node, loopback)));
    // Another program (portmap) may have it routed.
    cluster.node.run(&["sysctl", "-w", &format!("net.ipv4.conf.{host_end}.route_localnet=1")]);
    assert!(!arrives((&container, own), (&cluster.node, loopback)));
    cluster.node.run(&["nft", "delete", "table", "inet", "weir-sources"]);
    assert!(arrives((&container, own), (&cluster.node, loopback)), "the test reaches it without");
}

/// Sends one packet from a container, by a raw socket of this family and protocol.
fn send_raw(container: &Container, family: &str, protocol: u8, bytes: &str, to: &str) {
    let program = format!(
        "import socket; s = socket.socket(socket.{family}, socket.SOCK_RAW, {protocol}); \
         s.sendto(bytes.fromhex('{bytes}'), ('{to}', 0))"
    );
    container.run(&["python3", "-c", &program]);
}

/// A packet in a packet would be taken out by the tunnel of another node, whoever sent the inner
/// one; a router advertisement would give the node routes.
#[test]
fn neither_packets_in_packets_nor_router_advertisements_pass() {
    let cluster = Cluster::embedded().with_pools(Families::Dual);
    let counters = [("inner", "ip protocol 4"), ("routes", "icmpv6 type 134")];
    // The inner packet is a header alone, from 10.7.0.99 to 10.7.0.98.
    let inner = "450000140000000040110000 0a070063 0a070062".replace(' ', "");
    let pair = ["strict", "off"].map(|check| {
        let container = cluster.node.container(check);
        let call = cluster.weir(Families::Dual, &container);
        let result = call.configure("/source_check", check.into()).add(&cluster.node);
        (container, host_interface(&result).to_owned())
    });
    cluster.node.run(&["ip", "address", "add", "172.31.9.1/32", "dev", "lo"]);
    for (container, host_end) in &pair {
        let passed = count(&cluster, host_end, &counters);
        send_raw(container, "AF_INET", 4, &inner, "172.31.9.1");
        send_raw(container, "AF_INET6", 58, "8600000040000708000000000000000000", "ff02::1%eth0");
        container.run(&["ping", "-n", "-q", "-c1", "-W1", "172.31.9.1"]);
        assert_eq!(passed("routes"), 0);
        assert_eq!(passed("inner") > 0, container.name() == "off", "{}", container.name());
        cluster.node.run(&["nft", "delete", "table", "inet", "watch"]);
    }
}
