//! What the node itself sends to its containers: how it asks for them, and from which address.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use weir_tests::{
    Agent, Cluster, Container, Families, Network, Place, host_interface, rebound, uninterrupted,
    until, until_reporting,
};

/// The address of a result in a family.
fn address(result: &Value, family: usize) -> String {
    let text = result["ips"][family]["address"].as_str().expect("an address");
    text.split('/').next().expect("an address").to_owned()
}

/// The node asks its containers from an address that each of them answers, whatever its
/// reverse path filter and however narrow its routes.
#[test]
fn a_container_answers_whatever_it_filters() {
    let cluster = Cluster::embedded().with_pools(Families::V4);
    let other = cluster.node.container("other");
    let other_address = address(&cluster.weir(Families::V4, &other).add(&cluster.node), 0);
    for filter in ["0", "1", "2"] {
        for is_narrow in [false, true] {
            let case = format!("rp_filter {filter}, narrow: {is_narrow}");
            let container = cluster.node.container(&format!("filters-{filter}-{is_narrow}"));
            for which in ["all", "default"] {
                let parameter = format!("net.ipv4.conf.{which}.rp_filter={filter}");
                container.run(&["sysctl", "-qw", &parameter]);
            }
            let mut call = cluster.weir(Families::V4, &container);
            if is_narrow {
                call = call.configure("/ipam/routes", json!([{ "dst": "10.7.0.0/16" }]));
            }
            let result = call.add(&cluster.node);
            assert!(other.reaches(&address(&result, 0)), "{case}");
            assert!(container.reaches(&other_address), "{case}");
            // What the node sends has its own address, which narrow routes do not lead to.
            assert_eq!(cluster.node.reaches(&address(&result, 0)), !is_narrow, "{case}");
            let check = call.check(&cluster.node, &result);
            assert!(check.succeeded, "{case}: {check:?}");
            call.delete(&cluster.node);
        }
    }
}

/// A later interface with narrow routes takes nothing away from the first one.
#[test]
fn a_container_with_two_interfaces_answers_by_both() {
    let cluster = Cluster::embedded().with_pools(Families::V4);
    let container = cluster.node.container("two");
    container.run(&["sysctl", "-qw", "net.ipv4.conf.all.rp_filter=1"]);
    let first = cluster.weir(Families::V4, &container).add(&cluster.node);
    let call = cluster.weir(Families::V4, &container).with("CNI_IFNAME", "net1");
    let call = call.configure("/ipam/routes", json!([{ "dst": "192.0.2.0/24" }]));
    let second = call.add(&cluster.node);
    assert!(cluster.node.reaches(&address(&first, 0)));
    // Its answers leave by the first interface, but it can be found.
    for result in [&first, &second] {
        cluster.node.reaches(&address(result, 0));
        let neighbours = ["ip", "neighbour", "show", "dev", host_interface(result)];
        let known = cluster.node.run(&neighbours);
        assert!(known.contains("lladdr") && !known.contains("FAILED"), "{known}");
    }
}

/// A gateway of its own changes nothing about it.
#[test]
fn a_container_with_a_gateway_of_its_own_answers_too() {
    let cluster = Cluster::embedded().with_pools(Families::V4);
    let other = cluster.node.container("other");
    cluster.weir(Families::V4, &other).add(&cluster.node);
    let container = cluster.node.container("gateway");
    container.run(&["sysctl", "-qw", "net.ipv4.conf.all.rp_filter=1"]);
    let call = cluster.weir(Families::V4, &container);
    let call = call
        .configure("/ipam/gateways", json!(["10.7.0.1/16"]))
        .configure("/ipam/routes", json!([{ "dst": "10.7.0.0/16" }]));
    let result = call.add(&cluster.node);
    assert!(other.reaches(&address(&result, 0)));
}

/// The node learns of a container's new hardware address at once.
#[test]
fn a_container_may_change_its_hardware_address() {
    let cluster = Cluster::embedded().with_pools(Families::Dual);
    let container = cluster.node.container("web");
    let result = cluster.weir(Families::Dual, &container).add(&cluster.node);
    let known = || cluster.node.run(&["ip", "neighbour", "show", "dev", host_interface(&result)]);
    for mac in ["02:00:00:00:00:07", "02:00:00:00:00:08"] {
        (0..2).for_each(|family| assert!(cluster.node.reaches(&address(&result, family))));
        container.run(&["ip", "link", "set", "eth0", "address", mac]);
        until("both neighbours are true", || known().matches(mac).count() >= 2);
        (0..2).for_each(|family| assert!(cluster.node.reaches(&address(&result, family))));
    }
}

/// The address that a packet of the node to this address in the container comes from.
fn seen_source(node: &impl Place, container: &Container, to: &str) -> IpAddr {
    let to = SocketAddr::new(to.parse().expect("an address"), 4000);
    let listening = rebound(|| container.enter(|| UdpSocket::bind(to)));
    listening.set_read_timeout(Some(Duration::from_secs(5))).expect("a time limit");
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let sending = node.enter(|| UdpSocket::bind(any)).expect("a port to send from");
    sending.send_to(b"hello", to).expect("sending");
    let (_, from) = uninterrupted(|| listening.recv_from(&mut [0; 16])).expect("a packet");
    from.ip()
}

/// How long no packet of the node comes through while `act` happens.
fn interruption(
    node: &impl Place,
    container: &Container,
    to: &str,
    act: impl FnOnce(),
) -> Duration {
    let to = SocketAddr::new(to.parse().expect("an address"), 4001);
    let listening = rebound(|| container.enter(|| UdpSocket::bind(to)));
    let sending = node.enter(|| UdpSocket::bind("0.0.0.0:0")).expect("a port to send from");
    listening.set_read_timeout(Some(Duration::from_millis(100))).expect("a time limit");
    let passes = || {
        // Without a route it cannot be sent at all.
        sending.send_to(b"hello", to).is_ok()
            && uninterrupted(|| listening.recv_from(&mut [0; 16])).is_ok()
    };
    assert!(passes());
    act();
    let since = Instant::now();
    until("packets pass", passes);
    since.elapsed()
}

/// A node that has another address first, and is registered with a later one.
fn registered_node() -> (Network, Cluster, Agent, [IpAddr; 2]) {
    let network = Network::new();
    let node = network.node(1);
    node.run(&["ip", "link", "add", "first", "type", "bridge"]);
    node.run(&["ip", "address", "add", "10.99.0.1/24", "dev", "first"]);
    node.run(&["ip", "link", "set", "first", "up"]);
    let cluster = Cluster::embedded_on(node).with_pools(Families::Dual);
    let agent = Agent::start(
        &cluster.node,
        &cluster.store,
        "n1",
        &["--ip6-autodetection-method", "first-found"],
    );
    until("the agent is well", || agent.is_well());
    let state = || cluster.node.run(&["head", "-n1", "/run/weir/state.json"]);
    until("ADD knows the address", || state().contains("\"sources\":{\"ipv4\":\"172.30"));
    let registered = |field: &str| {
        let shown = cluster.weirctl(&["get", "node", "n1", "-o", "json"]);
        let node: Value = serde_json::from_str(&shown.stdout).expect("a node");
        let text = node["spec"]["bgp"][field].as_str().expect("an address");
        text.split('/').next().expect("an address").parse().expect("an address")
    };
    let sources = [registered("ipv4Address"), registered("ipv6Address")];
    (network, cluster, agent, sources)
}

#[test]
fn the_node_sends_from_its_registered_address() {
    let (_network, cluster, _agent, sources) = registered_node();
    let container = cluster.node.container("web");
    let call = cluster.weir(Families::Dual, &container);
    let result = call.add(&cluster.node);
    for (family, source) in sources.into_iter().enumerate() {
        let seen = || seen_source(&cluster.node, &container, &address(&result, family));
        until_reporting(|| seen() == source, || format!("{}", seen()));
    }
    // What the node answers for others comes from there too.
    let answer = container.run(&["sh", "-c", "ping -n -c1 -t1 192.0.2.1; true"]);
    assert!(answer.contains(&format!("From {}", sources[0])), "{answer}");
}

/// The kernel takes routes away with the address that is their source.
#[test]
fn a_container_is_reached_while_the_nodes_address_goes_and_comes() {
    let (_network, cluster, _agent, sources) = registered_node();
    let container = cluster.node.container("web");
    let result = cluster.weir(Families::Dual, &container).add(&cluster.node);
    let to = address(&result, 0);
    let listed = cluster.node.run(&["ip", "-o", "-4", "address", "show"]);
    let is_it = |line: &&str| line.contains(&format!(" {}/", sources[0]));
    let line = listed.lines().find(is_it).expect("the node's address");
    let words: Vec<&str> = line.split_whitespace().collect();
    let (link, with_prefix) = (words[1], words[3]);
    let routes = || cluster.node.run(&["ip", "route", "show", &to]);
    let with_source = format!("src {}", sources[0]);
    until("the source is there", || routes().contains(&with_source));
    let gone = || _ = cluster.node.run(&["ip", "address", "delete", with_prefix, "dev", link]);
    let gone = interruption(&cluster.node, &container, &to, gone);
    assert!(gone < Duration::from_secs(1), "{gone:?}");
    let back = || _ = cluster.node.run(&["ip", "address", "add", with_prefix, "dev", link]);
    let back = interruption(&cluster.node, &container, &to, back);
    assert!(back < Duration::from_secs(1), "{back:?}");
    until("the source is back", || routes().contains(&with_source));
    assert_eq!(routes().lines().count(), 2, "{}", routes());
    until("so it is", || seen_source(&cluster.node, &container, &to) == sources[0]);
}
