//! Weir's plugins in company: the chained plugins of other people after
//! `weir`, their IPAM plugins under it, `weir-ipam` under their main plugins.
//! Each is added, checked, used and removed twice by cnitool.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};
use weir_tests::{
    Call, Cluster, CniTool, Container, Families, Network, Place, Snapshot, address, allocations,
    cni_path, find_program, host_interface, merge, rebound,
};

/// What sbr 1.1.1 says to a second DEL, behind any main plugin: it wants the link
/// that is gone.
const SBR_WITHOUT_LINK: &str = "plugin type=\"sbr\" failed (delete): Failed to get link";

/// What a node keeps when its last container is gone: it goes on forwarding
/// (docs/attachment.md, "Undo"), for which the kernel adds anycast addresses of routers,
/// and takes router advertisements all the same; it has its blocks, and the filter of what
/// containers send.
const KEPT_BY_WEIR: &[&str] = &[
    "/forwarding = ",
    "/ip_forward = ",
    "/accept_ra = ",
    r#""type":"anycast""#,
    r#""type":"blackhole""#,
    "weir-sources",
];

/// The chains that portmap shares among containers, and those of the kernel's hooks from
/// which they are called. (Those of a container are called CNI-DN-….)
const KEPT_BY_PORTMAP: &[&str] = &[
    "CNI-HOSTPORT-",
    r#""name":"PREROUTING""#,
    r#""name":"POSTROUTING""#,
    r#""name":"OUTPUT""#,
    r#"{"table":{"family":"ip","name":"nat"}}"#,
];

/// The chains that firewall shares among containers, likewise.
const KEPT_BY_FIREWALL: &[&str] = &[
    "CNI-ADMIN",
    "CNI-FORWARD",
    r#""name":"FORWARD""#,
    r#"{"table":{"family":"ip","name":"filter"}}"#,
];

/// A node with a network around it, and a container.
struct World {
    network: Network,
    cluster: Cluster,
    container: Container,
}

impl World {
    fn new() -> Self {
        let network = Network::new();
        let cluster = Cluster::embedded_on(network.node(1));
        // Containers are reached from outside without NAT.
        for line in [
            "ip route add 10.7.0.0/24 via 172.30.0.11",
            "ip route add fd00:7::/112 via fd00:30::11",
        ] {
            network.router().run(&line.split(' ').collect::<Vec<_>>());
        }
        let container = cluster.node.container("web");
        Self { network, cluster, container }
    }

    /// cnitool for a list of these plugins, asked to publish port 80 of the
    /// container at port 8080.
    fn tool(&self, plugins: Value) -> CniTool {
        self.tool_with(plugins, &cni_path())
    }

    /// The same, with plugins in these directories.
    fn tool_with(&self, plugins: Value, path: &str) -> CniTool {
        let list = json!({"cniVersion": "1.0.0", "name": "pods", "plugins": plugins});
        let ports = json!({"portMappings": [
            {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
        ]});
        CniTool::with_path(&self.cluster.node, &list, path).with("CAP_ARGS", &ports.to_string())
    }

    /// Twice: adds and checks the container, has `verify` look at the result,
    /// deletes two times and requires that nothing is left but what is `kept` by
    /// design: facts of the node that mention one of these texts.
    fn life_cycle(&self, tool: &CniTool, kept: &[&str], verify: impl Fn(&Value)) {
        let node = &self.cluster.node;
        let before = Snapshot::of(node);
        let inside = Snapshot::of(&self.container);
        let after = [(); 2].map(|()| {
            let result = tool.add(&self.container);
            tool.check(&self.container);
            verify(&result);
            tool.check(&self.container);
            tool.delete(&self.container);
            let again = tool.run("del", &self.container);
            assert!(again.succeeded || again.stderr.contains(SBR_WITHOUT_LINK), "{again:?}");
            self.cluster.assert_nothing_allocated();
            inside.assert_unchanged(&Snapshot::of(&self.container));
            let after = Snapshot::of(node);
            // The node keeps its block, which may begin with the address.
            let whole = format!("\"{}\"", address(&result, 0));
            for own in [host_interface(&result), &whole] {
                assert!(!after.mentions(&[own]), "{own} is left on the node");
            }
            after
        });
        after[0].assert_unchanged(&after[1]);
        let kept = [KEPT_BY_WEIR, kept].concat();
        before.without(&kept).assert_unchanged(&after[1].without(&kept));
    }

    /// As [`World::life_cycle`], for `weir` with both families and a plugin
    /// after it. The container reaches the world outside, and the node the
    /// container.
    fn chained(self, next: Value, kept: &[&str], verify: impl Fn(&Self, &Value)) {
        let families = Families::Dual;
        for (name, cidr) in families.pools() {
            self.cluster.create_pool(name, json!({"cidr": cidr}));
        }
        let tool = self.tool(json!([self.cluster.plugin(families), next]));
        self.life_cycle(&tool, kept, |result| {
            for (index, outside) in ["172.30.0.1", "fd00:30::1"].into_iter().enumerate() {
                let inside = address(result, index);
                assert!(self.reaches_from(inside, outside), "container -> {outside}");
                assert!(self.cluster.node.reaches(inside), "node -> {inside}");
            }
            verify(&self, result);
        });
    }

    /// Whether `outside` answers to the container when it asks from its address
    /// `inside`. (After sbr there is no route but by the source.)
    fn reaches_from(&self, inside: &str, outside: &str) -> bool {
        self.container.succeeds(&["ping", "-n", "-q", "-c1", "-W2", "-I", inside, outside])
    }

    /// Requires that the world outside reaches both addresses of a result.
    fn assert_reached(&self, result: &Value) {
        for inside in [address(result, 0), address(result, 1)] {
            assert!(self.network.router().reaches(inside), "router -> {inside}");
        }
    }

    /// Whether a server at port 80 of the container can be reached from outside
    /// at port 8080 of this address of the node.
    fn is_published_at(&self, address: &str) -> bool {
        self.is_published_to(self.network.router(), address)
    }

    /// The same, from anywhere.
    fn is_published_to(&self, place: &impl Place, address: &str) -> bool {
        let _server = rebound(|| self.container.enter(|| TcpListener::bind("[::]:80")));
        let published = SocketAddr::new(address.parse().expect("an address"), 8080);
        let connect = || TcpStream::connect_timeout(&published, Duration::from_secs(3)).is_ok();
        place.enter(connect)
    }
}

/// portmap 1.1.1 looks at CHECK for the IPv4 rules among those of ip6tables, and
/// fails behind any main plugin, unless there is no ip6tables.
const WITHOUT_IP6TABLES: &str = "/run/no-ip6tables";

#[test]
fn portmap() {
    let world = World::new();
    world.cluster.create_pool("blue", json!({"cidr": "10.7.0.0/24"}));
    assert!(!world.is_published_at("172.30.0.11"), "nothing is published yet");
    let portmap = json!({"type": "portmap", "capabilities": {"portMappings": true}});
    let tool = world.tool(json!([world.cluster.plugin(Families::V4), portmap]));
    let iptables = find_program("iptables");
    let iptables = iptables.to_str().expect("a path in UTF-8");
    world.cluster.node.run(&["mkdir", WITHOUT_IP6TABLES]);
    world.cluster.node.run(&["ln", "-s", iptables, WITHOUT_IP6TABLES]);
    world.life_cycle(&tool.with("PATH", WITHOUT_IP6TABLES), KEPT_BY_PORTMAP, |_| {
        assert!(world.is_published_at("172.30.0.11"));
        assert!(world.is_published_to(&world.container, "172.30.0.11"), "the way back in");
        // By the loopback, for which portmap has the host end take 127.0.0.0/8.
        assert!(world.is_published_to(&world.cluster.node, "127.0.0.1"));
        assert!(world.is_published_to(&world.cluster.node, "172.30.0.11"));
    });
}

/// The chains of portmap's own table that containers share.
const KEPT_BY_PORTMAP_NFTABLES: &[&str] = &["cni_hostport"];

#[test]
fn portmap_by_nftables() {
    let world = World::new();
    world.cluster.create_pool("blue", json!({"cidr": "10.7.0.0/24"}));
    let portmap = json!({
        "type": "portmap-nftables",
        "backend": "nftables",
        "capabilities": {"portMappings": true},
    });
    let plugins = json!([world.cluster.plugin(Families::V4), portmap]);
    let directory = find_program("portmap-nftables");
    let directory = directory.parent().expect("a directory").to_str().expect("a path in UTF-8");
    let tool = world.tool_with(plugins, &format!("{}:{directory}", cni_path()));
    world.life_cycle(&tool, KEPT_BY_PORTMAP_NFTABLES, |_| {
        assert!(world.is_published_at("172.30.0.11"));
        assert!(world.is_published_to(&world.container, "172.30.0.11"), "the way back in");
        assert!(world.is_published_to(&world.cluster.node, "127.0.0.1"));
        assert!(world.is_published_to(&world.cluster.node, "172.30.0.11"));
    });
}

#[test]
fn portmap_of_both_families() {
    let world = World::new();
    let portmap = json!({"type": "portmap", "capabilities": {"portMappings": true}});
    for (name, cidr) in Families::Dual.pools() {
        world.cluster.create_pool(name, json!({"cidr": cidr}));
    }
    let tool = world.tool(json!([world.cluster.plugin(Families::Dual), portmap]));
    for _ in 0..2 {
        tool.add(&world.container);
        for address in ["172.30.0.11", "fd00:30::11"] {
            assert!(world.is_published_at(address), "{address} should be forwarded");
        }
        let complaint = tool.check_fails(&world.container);
        assert!(complaint.contains("could not check ipv6 dnat"), "{complaint}");
        tool.delete(&world.container);
        world.cluster.assert_nothing_allocated();
        assert!(!world.is_published_at("172.30.0.11"), "the port is still forwarded");
    }
}

#[test]
fn bandwidth() {
    let limits = json!({
        "type": "bandwidth",
        "ingressRate": 80_000_000, "ingressBurst": 800_000,
        "egressRate": 40_000_000, "egressBurst": 400_000,
    });
    World::new().chained(limits, &[], |world, result| {
        world.assert_reached(result);
        let host = host_interface(result);
        let queues = queues(world);
        let has = |kind: &str, device: &str, rate: Option<u64>| {
            queues.iter().any(|queue| {
                let limit = queue["options"]["rate"].as_u64();
                queue["kind"] == kind && queue["dev"] == device && limit == rate
            })
        };
        // tc counts bytes. What the container sends is limited on an ifb.
        assert!(has("tbf", host, Some(10_000_000)), "{queues:?}");
        assert!(has("ingress", host, None), "{queues:?}");
        let interfaces = world.cluster.interfaces();
        let other = interfaces.iter().find(|name| has("tbf", name, Some(5_000_000)));
        assert!(other.is_some(), "{queues:?}");
    });
}

/// What `tc` says about the node's queues.
fn queues(world: &World) -> Vec<Value> {
    let queues = world.cluster.node.run(&["tc", "-j", "qdisc", "show"]);
    serde_json::from_str(&queues).expect("tc prints JSON")
}

#[test]
fn tuning() {
    let settings = json!({
        "type": "tuning",
        "sysctl": {"net.core.somaxconn": "500"},
        "mtu": 1400,
        "mac": "02:00:00:00:00:07",
    });
    World::new().chained(settings, &[], |world, result| {
        world.assert_reached(result);
        let somaxconn = world.container.run(&["sysctl", "-n", "net.core.somaxconn"]);
        assert_eq!(somaxconn.trim(), "500");
        let link = world.container.link("eth0");
        assert_eq!(link["mtu"], 1400);
        assert_eq!(link["address"], "02:00:00:00:00:07");
        assert_eq!(result["interfaces"][1]["mac"], "02:00:00:00:00:07");
    });
}

#[test]
fn firewall() {
    let world = World::new();
    // Only what the plugin lets through can pass.
    for tables in ["iptables", "ip6tables"] {
        world.cluster.node.run(&[tables, "-w", "-P", "FORWARD", "DROP"]);
    }
    let firewall = json!({"type": "firewall", "backend": "iptables"});
    world.chained(firewall, KEPT_BY_FIREWALL, |world, result| {
        let rules = world.cluster.node.run(&["iptables", "-w", "-S"]);
        assert!(rules.contains(&format!("-s {}/32 -j ACCEPT", address(result, 0))), "{rules}");
        assert!(!world.network.router().reaches(address(result, 0)), "the firewall is open");
    });
}

#[test]
fn source_based_routing() {
    World::new().chained(json!({"type": "sbr"}), &[], |world, result| {
        let rules = world.container.run(&["ip", "rule", "show"]);
        assert!(rules.contains(address(result, 0)), "{rules}");
        assert_eq!(world.container.run(&["ip", "route", "show", "table", "main"]), "");
        world.assert_reached(result);
    });
}

#[test]
fn a_chain_of_them_all() {
    let world = World::new();
    world.cluster.create_pool("blue", json!({"cidr": "10.7.0.0/24"}));
    let plugins = json!([
        world.cluster.plugin(Families::V4),
        {"type": "tuning", "sysctl": {"net.core.somaxconn": "500"}},
        {"type": "bandwidth", "ingressRate": 80_000_000, "ingressBurst": 800_000},
        {"type": "firewall", "backend": "iptables"},
        {"type": "sbr"},
    ]);
    world.life_cycle(&world.tool(plugins), KEPT_BY_FIREWALL, |result| {
        assert!(world.reaches_from(address(result, 0), "172.30.0.1"));
    });
}

/// `weir` with addresses from another IPAM plugin.
fn weir_over(ipam: Value) {
    let world = World::new();
    let mut plugin = world.cluster.plugin(Families::V4);
    merge(&mut plugin, json!({"ipam": ipam}));
    world.life_cycle(&world.tool(json!([plugin])), &[], |result| {
        let given = result["ips"][0]["address"].as_str().expect("an address");
        assert!(given.starts_with("10.7.0.") && given.ends_with("/32"), "{given}");
        assert!(world.container.reaches("172.30.0.1"));
        assert!(world.network.router().reaches(address(result, 0)));
        assert_eq!(allocations(&world.cluster.store.entries()).len(), 0);
    });
}

#[test]
fn weir_over_host_local() {
    let ipam = json!({
        "type": "host-local",
        "ranges": [[{"subnet": "10.7.0.0/24"}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    });
    weir_over(ipam);
}

/// A later plugin of the chain adds a route to the result, which is its own to check.
#[test]
fn weir_over_host_local_before_a_plugin_with_routes() {
    let world = World::new();
    let ipam = json!({
        "type": "host-local",
        "ranges": [[{"subnet": "10.7.0.0/24"}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    });
    let call = world.cluster.weir(Families::V4, &world.container).configure("/ipam", ipam);
    let node = &world.cluster.node;
    let mut result = call.add(node);
    let added = json!({"dst": "192.0.2.0/24", "gw": "10.99.0.1"});
    result["routes"].as_array_mut().expect("a list of routes").push(added);
    call.check(node, &result).silence();
    world.container.run(&["ip", "route", "delete", "default"]);
    call.check(node, &result).failure().expect(107, &["default via 10.7.0.1"]);
    call.delete(node);
}

#[test]
fn weir_over_static() {
    let ipam = json!({
        "type": "static",
        "addresses": [{"address": "10.7.0.7/24"}],
        "routes": [{"dst": "172.30.0.0/24"}],
    });
    weir_over(ipam);
}

/// static compares the gateways of the result with its own at CHECK, and sbr routes
/// through them.
#[test]
fn weir_over_static_with_gateways() {
    let world = World::new();
    let mut plugin = world.cluster.plugin(Families::Dual);
    let addresses = json!([
        {"address": "10.7.0.7/24", "gateway": "10.7.0.1"},
        {"address": "fd00:7::7/112", "gateway": "fd00:7::1"},
    ]);
    merge(&mut plugin, json!({"ipam": {"type": "static", "addresses": addresses}}));
    for plugins in [json!([plugin]), json!([plugin, {"type": "sbr"}])] {
        world.life_cycle(&world.tool(plugins), &[], |result| {
            for (index, gateway) in ["10.7.0.1", "fd00:7::1"].into_iter().enumerate() {
                assert_eq!(result["ips"][index]["gateway"], gateway);
                assert!(world.network.router().reaches(address(result, index)));
            }
            assert!(world.reaches_from("10.7.0.7", "172.30.0.1"));
            assert!(world.reaches_from("fd00:7::7", "fd00:30::1"));
        });
    }
}

/// Two networks of Weir in one container, as a meta plugin (Multus) attaches them:
/// the first one has the default route, the second one answers for its own address.
#[test]
fn two_networks_in_one_container() {
    let world = World::new();
    let families = Families::Dual;
    for (name, cidr) in families.pools() {
        world.cluster.create_pool(name, json!({"cidr": cidr}));
    }
    let (node, container) = (&world.cluster.node, &world.container);
    let inside = Snapshot::of(container);
    let list = |name: &str, plugins: Value| {
        CniTool::new(node, &json!({"cniVersion": "1.0.0", "name": name, "plugins": plugins}))
    };
    let first = list("pods", json!([world.cluster.plugin(families)]));
    let second = json!([world.cluster.plugin(families), {"type": "sbr"}]);
    let second = list("second", second).with("CNI_IFNAME", "net1");
    let third = list("third", json!([world.cluster.plugin(families)])).with("CNI_IFNAME", "net2");
    let tools = [&first, &second, &third];
    for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2]] {
        let results = tools.map(|tool| tool.add(container));
        let default = container.run(&["ip", "route", "get", "192.0.2.1"]);
        assert!(default.contains("dev eth0"), "{default}");
        for (tool, result) in tools.iter().zip(&results) {
            tool.check(container);
            for index in [0, 1] {
                let address = address(result, index);
                assert!(node.reaches(address), "node -> {address}");
                assert!(world.network.router().reaches(address), "router -> {address}");
            }
        }
        for (index, outside) in ["172.30.0.1", "fd00:30::1"].into_iter().enumerate() {
            for result in &results[..2] {
                assert!(world.reaches_from(address(result, index), outside));
            }
        }
        let mut left = order.to_vec();
        while !left.is_empty() {
            tools[left.remove(0)].delete(container);
            left.iter().for_each(|&tool| tools[tool].check(container));
            // What is whole stays as it is, whatever metrics it would get now. (sbr takes
            // no second ADD.)
            for &tool in left.iter().filter(|&&tool| tool != 1) {
                let link = || container.link(["eth0", "net1", "net2"][tool])["ifindex"].clone();
                let before = link();
                tools[tool].add(container);
                assert_eq!(link(), before, "{tool}");
            }
        }
        world.cluster.assert_nothing_allocated();
        inside.assert_unchanged(&Snapshot::of(container));
        assert_eq!(world.cluster.interfaces(), ["lo", "eth0"]);
    }
}

/// A main plugin that is not Weir's over `weir-ipam`.
struct Under {
    main: Value,
    pool: &'static str,
    gateway: &'static str,
    /// Whether the node itself reaches the containers.
    from_node: bool,
}

impl Under {
    /// Adds two containers, looks whether they reach each other and the world,
    /// and removes them, twice.
    fn assert_works(self) {
        let world = World::new();
        let node = &world.cluster.node;
        world.cluster.create_pool("blue", json!({"cidr": self.pool}));
        let tool = world.tool(json!([self.plugin(&world)]));
        let containers = [&world.container, &node.container("db")];
        let inside = containers.map(Snapshot::of);
        let after = [(); 2].map(|()| {
            let results = containers.map(|container| tool.add(container));
            containers.iter().for_each(|container| tool.check(container));
            let addresses = results.each_ref().map(|result| address(result, 0));
            let taken = allocations(&world.cluster.store.entries());
            let taken: Vec<String> = taken.keys().map(ToString::to_string).collect();
            assert!(taken.len() == 2 && taken.iter().all(|it| addresses.contains(&it.as_str())));
            for (from, to) in [(0, 1), (1, 0)] {
                assert!(containers[from].reaches(addresses[to]), "container -> container");
                assert!(containers[from].reaches("172.30.0.1"), "container -> outside");
                assert!(world.network.router().reaches(addresses[to]), "outside -> container");
                assert_eq!(node.reaches(addresses[to]), self.from_node, "node -> container");
            }
            containers.iter().for_each(|container| tool.delete(container));
            containers.iter().for_each(|container| tool.delete(container));
            world.cluster.assert_nothing_allocated();
            for (before, container) in inside.iter().zip(containers) {
                before.assert_unchanged(&Snapshot::of(container));
            }
            Snapshot::of(node)
        });
        after[0].assert_unchanged(&after[1]);
    }

    fn plugin(&self, world: &World) -> Value {
        let mut plugin = world.cluster.plugin(Families::V4);
        merge(&mut plugin, self.main.clone());
        let ipam = json!({
            "type": "weir-ipam",
            "gateways": [self.gateway],
            "routes": [{"dst": "0.0.0.0/0"}],
        });
        merge(&mut plugin, json!({"ipam": ipam}));
        plugin
    }
}

#[test]
fn weir_ipam_under_ptp() {
    let main = json!({"type": "ptp"});
    Under { main, pool: "10.7.0.0/24", gateway: "10.7.0.1/24", from_node: true }.assert_works();
}

#[test]
fn weir_ipam_under_bridge() {
    let main = json!({"type": "bridge", "bridge": "cni0", "isGateway": true});
    Under { main, pool: "10.7.0.0/24", gateway: "10.7.0.1/24", from_node: true }.assert_works();
}

#[test]
fn weir_ipam_under_macvlan() {
    // The containers are on the nodes' own segment, a part of which is the pool.
    // The kernel lets nothing pass between a macvlan and the link below it.
    let main = json!({"type": "macvlan", "master": "eth0", "mode": "bridge"});
    let pool = "172.30.0.128/25";
    Under { main, pool, gateway: "172.30.0.1/24", from_node: false }.assert_works();
}

#[test]
fn weir_ipam_gives_no_gateway_away() {
    let world = World::new();
    // Both addresses that the pool's only block would give first.
    world.cluster.create_pool("blue", json!({"cidr": "10.7.0.0/30", "blockSize": 30}));
    let call = world
        .cluster
        .ipam(Families::V4, "one")
        .configure("/ipam/gateways", json!(["10.7.0.0/30", "10.7.0.1/30"]));
    let result = call.add(&world.cluster.node);
    assert_eq!(result["ips"][0], json!({"address": "10.7.0.2/30", "gateway": "10.7.0.0"}));
    let refused = |call: Call, gateway: &str| {
        let answer = call.run(&world.cluster.node, "ADD");
        answer.failure().expect(102, &[&format!("{gateway} is a gateway of the network")]);
    };
    let call = call.container(&world.container);
    refused(call.clone().configure("/runtimeConfig", json!({"ips": ["10.7.0.1"]})), "10.7.0.1");
    refused(call.clone().configure("/args", json!({"cni": {"ips": ["10.7.0.1/30"]}})), "10.7.0.1");
    refused(call.with("CNI_ARGS", "IP=10.7.0.0"), "10.7.0.0");
}
