//! The dashboard's server over HTTP, as a browser asks it, on both datastores.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use weir_common::ipam::{Attribute, Block};
use weir_tests::{
    Cluster, Entries, Etcd, Families, Fleet, Node, Place, Store, Subnet, binaries, until,
};

/// Where it listens.
const ADDRESS: &str = "127.0.0.1:9092";

/// The longest wait for a line of a stream, which has one each 15 seconds.
const PATIENCE: Duration = Duration::from_secs(30);

/// The longest wait for what must come.
const LONGEST: Duration = Duration::from_secs(120);

/// A running `weirctl dashboard`, which ends with this.
struct Dashboard {
    node: Node,
    child: Child,
}

impl Dashboard {
    /// Starts it, and waits until it says that it is ready.
    fn start(node: &Node, store: &Store, arguments: &[&str]) -> Self {
        let mut command = Command::new(binaries().join("weirctl"));
        command.arg("dashboard").args(arguments).envs(store.environment()).stdout(Stdio::piped());
        let mut child = node.spawn(&mut command);
        let mut line = String::new();
        let output = child.stdout.take().expect("its output");
        BufReader::new(output).read_line(&mut line).expect("a line");
        assert_eq!(line, format!("ready at http://{ADDRESS}/ (Ctrl-C ends it)\n"));
        Self { node: node.clone(), child }
    }

    fn connect(&self) -> TcpStream {
        let address: SocketAddr = ADDRESS.parse().expect("an address");
        let stream = self.node.enter(|| TcpStream::connect(address)).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a limit");
        stream
    }

    /// The status, head and body of the answer to a request of this method, path and host.
    fn ask(&self, method: &str, path: &str, host: &str) -> (u16, String, String) {
        let mut stream = self.connect();
        write!(stream, "{method} {path} HTTP/1.1\r\nHost: {host}\r\n\r\n").expect("a request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        let status = head.split(' ').nth(1).expect("a status").parse().expect("a number");
        (status, head.to_lowercase(), body.to_owned())
    }

    fn get(&self, path: &str) -> Value {
        let (status, _, body) = self.ask("GET", path, ADDRESS);
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).expect("JSON")
    }

    /// What it refuses a request with.
    fn refusal(&self, method: &str, path: &str, host: &str) -> (u16, String) {
        let (status, _, body) = self.ask(method, path, host);
        let body: Value = serde_json::from_str(&body).expect("JSON");
        (status, body["error"].as_str().expect("why").to_owned())
    }

    fn events(&self) -> Events {
        let mut stream = self.connect();
        write!(stream, "GET /api/events HTTP/1.1\r\nHost: {ADDRESS}\r\n\r\n").expect("a request");
        Events { lines: BufReader::new(stream) }
    }

    /// How much memory it has, in kB.
    fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.expect("its status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// Ends it by SIGTERM, which must succeed.
    fn stop(mut self) {
        let process = Pid::from_raw(i32::try_from(self.child.id()).expect("a process id"));
        kill(process, Signal::SIGTERM).expect("ending it");
        assert!(self.child.wait().expect("waiting for it").success());
    }
}

impl Drop for Dashboard {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A stream of events.
struct Events {
    lines: BufReader<TcpStream>,
}

impl Events {
    /// The name and the data of the next event.
    fn next(&mut self) -> (String, Value) {
        let (mut name, begin) = (None, Instant::now());
        loop {
            let mut line = String::new();
            self.lines.read_line(&mut line).expect("an event in time");
            if let Some(event) = line.strip_prefix("event: ") {
                name = Some(event.trim_end().to_owned());
            }
            assert!(begin.elapsed() < LONGEST, "no event");
            if let (Some(name), Some(data)) = (&name, line.strip_prefix("data: ")) {
                return (name.clone(), serde_json::from_str(data).expect("JSON"));
            }
        }
    }

    /// Reads until an event of this name; its data.
    fn until(&mut self, wanted: &str) -> Value {
        loop {
            let (name, data) = self.next();
            if name == wanted {
                return data;
            }
        }
    }

    /// Reads until the state is as wanted.
    ///
    /// # Panics
    /// It does not become so within [`LONGEST`].
    fn until_state(&mut self, dashboard: &Dashboard, holds: impl Fn(&Value) -> bool) -> Value {
        let begin = Instant::now();
        loop {
            let state = dashboard.get("/api/state");
            if holds(&state) {
                return state;
            }
            assert!(begin.elapsed() < LONGEST, "{state}");
            self.next();
        }
    }
}

/// A container comes and goes, and the page follows.
fn follows(cluster: Cluster) {
    let cluster = cluster.with_pools(Families::Dual);
    let dashboard = Dashboard::start(&cluster.node, &cluster.store, &["--node", "n1"]);
    let mut events = dashboard.events();
    let (first, data) = events.next();
    assert!(first == "changed" && data["generation"].as_u64() > Some(0), "{first} {data}");
    let state = dashboard.get("/api/state");
    assert_eq!(state["pools"][0]["name"], "blue");
    assert_eq!((&state["pools"][0]["used"], &state["offline"]), (&json!("0"), &Value::Null));
    let container = cluster.node.container("web");
    let result = cluster.weir(Families::Dual, &container).add(&cluster.node);
    let addresses = ["0", "1"].map(|index| {
        let text = result.pointer(&format!("/ips/{index}/address")).expect("an address");
        text.as_str().expect("text").split('/').next().expect("an address").to_owned()
    });
    let used = |state: &Value, count: &str| {
        state["pools"].as_array().is_some_and(|pools| pools.iter().all(|it| it["used"] == count))
    };
    let state = events.until_state(&dashboard, |state| used(state, "1"));
    assert_eq!(state["here"], "n1");
    let node = state["nodes"].as_array().expect("nodes").iter().position(|it| it["name"] == "n1");
    for (pool, address) in state["pools"].as_array().expect("pools").iter().zip(&addresses) {
        let block = &pool["blocks"][0];
        assert_eq!(
            (block[1].as_u64(), &block[2], &block[3]),
            (node.map(|it| it as u64), &json!(1), &json!(64))
        );
        let cidr = block[0].as_str().expect("a CIDR");
        let shown = dashboard.get(&format!("/api/block?cidr={}", cidr.replace('/', "%2F")));
        assert_eq!((&shown["pool"], &shown["node"]), (&pool["name"], &json!("n1")));
        let row = &shown["addresses"][0];
        assert_eq!(
            (&row["address"], &row["state"], &row["interface"]),
            (&json!(address), &json!("used"), &json!("eth0"))
        );
        assert!(row["since"].as_str().is_some_and(|since| since.starts_with("20")), "{row}");
        for query in [address.as_str(), row["container"].as_str().expect("a container"), cidr] {
            let found = dashboard.get(&format!("/api/search?q={query}"));
            let answers = found["answers"].as_array().expect("answers");
            let is_here = |it: &Value| it["block"] == cidr && it["node"] == "n1";
            assert!(answers.iter().any(is_here), "{query}: {found}");
        }
    }
    let shown = cluster.weirctl(&["ipam", "show", "-o", "json"]).stdout;
    let shown: Value = serde_json::from_str(&shown).expect("JSON");
    for (pool, expected) in state["pools"]
        .as_array()
        .expect("pools")
        .iter()
        .zip(shown["pools"].as_array().expect("pools"))
    {
        let names = [("name", "name"), ("total", "total"), ("used", "inUse"), ("free", "free")];
        for (ours, theirs) in names {
            assert_eq!(pool[ours], expected[theirs], "{ours}");
        }
    }
    cluster.weir(Families::Dual, &container).delete(&cluster.node);
    events.until_state(&dashboard, |state| used(state, "0"));
    events.until_state(&dashboard, |state| !state["checked"].is_null());
    dashboard.stop();
}

#[test]
fn the_page_follows_etcd() {
    follows(Cluster::etcd());
}

#[test]
fn the_page_follows_the_embedded_datastore() {
    follows(Cluster::embedded());
}

#[test]
fn what_is_not_the_pages_is_refused() {
    let cluster = Cluster::embedded().with_pools(Families::V4);
    let dashboard = Dashboard::start(&cluster.node, &cluster.store, &[]);
    let (status, head, body) = dashboard.ask("GET", "/", ADDRESS);
    assert_eq!(status, 200, "{head}");
    assert!(body.starts_with("<!doctype html>"), "{body}");
    for header in [
        "content-security-policy: default-src 'none'; connect-src 'self';",
        "x-content-type-options: nosniff",
        "referrer-policy: no-referrer",
        "cache-control: no-store",
        "cross-origin-resource-policy: same-origin",
    ] {
        assert!(head.contains(header), "{header}: {head}");
    }
    for host in ["localhost:9092", "localhost", "127.0.0.1:8080"] {
        assert_eq!(dashboard.ask("GET", "/api/state", host).0, 200, "{host}");
    }
    for host in ["weir.example:9092", "127.0.0.2:9092", "localhost.example", ""] {
        let (status, why) = dashboard.refusal("GET", "/api/state", host);
        assert!(status == 421 && why.contains("is not the address"), "{host}: {status} {why}");
    }
    for (site, path, expected) in [
        ("cross-site", "/api/search?q=web", 403),
        ("same-site", "/api/state", 403),
        ("same-origin", "/api/state", 200),
        ("cross-site", "/", 200),
    ] {
        let host = format!("{ADDRESS}\r\nSec-Fetch-Site: {site}");
        assert_eq!(dashboard.ask("GET", path, &host).0, expected, "{path} for {site}");
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        let (status, why) = dashboard.refusal(method, "/api/state", ADDRESS);
        assert!(status == 405 && why.contains("only shows"), "{method}: {status} {why}");
    }
    let (status, head, body) = dashboard.ask("HEAD", "/api/state", ADDRESS);
    assert!(status == 200 && body.is_empty() && head.contains("etag: "), "{head}");
    let long = "x".repeat(257);
    let endless = "x".repeat(2000);
    for (path, expected) in [
        (format!("/api/search?q={long}"), 400),
        ("/api/search".to_owned(), 400),
        (format!("/api/search?q={endless}"), 414),
        ("/api/block?cidr=10.7.0.0".to_owned(), 404),
        ("/api/block?cidr=10.9.0.0/26".to_owned(), 404),
        ("/api/reach?from=n9".to_owned(), 404),
        ("/api/other".to_owned(), 404),
    ] {
        let (status, why) = dashboard.refusal("GET", &path, ADDRESS);
        assert!(status == expected && !why.is_empty(), "{path}: {status} {why}");
    }
    // As many streams as there may be, and one more.
    let mut streams: Vec<Events> = (0..32).map(|_| dashboard.events()).collect();
    streams.iter_mut().for_each(|stream| assert_eq!(stream.next().0, "changed"));
    let (status, why) = dashboard.refusal("GET", "/api/events", ADDRESS);
    assert!(status == 503 && why.contains("32 pages are open"), "{status} {why}");
    drop(streams);
    until("a stream is free again", || {
        let mut events = dashboard.events();
        let mut line = String::new();
        events.lines.read_line(&mut line).is_ok() && line.contains("200")
    });
    let refused = cluster.weirctl(&["dashboard", "--listen", "0.0.0.0:9093"]);
    assert!(!refused.succeeded && refused.stderr.contains("--allow-remote"), "{refused:?}");
    let refused = cluster.weirctl(&["dashboard"]);
    assert!(!refused.succeeded && refused.stderr.contains("--listen"), "in use: {refused:?}");
}

#[test]
fn a_datastore_that_is_away_is_told_and_what_was_known_stays() {
    let node = Node::new("n1");
    let cluster = Cluster { store: Store::Etcd(Etcd::start(&node)), node };
    let mut cluster = cluster.with_pools(Families::V4);
    let dashboard = Dashboard::start(&cluster.node, &cluster.store, &[]);
    let mut events = dashboard.events();
    events.until("changed");
    let Store::Etcd(etcd) = &mut cluster.store else { unreachable!("it is an etcd") };
    etcd.stop();
    let told = events.until("offline");
    assert!(told["since"].is_string() && told["error"].is_string(), "{told}");
    let state = dashboard.get("/api/state");
    assert_eq!(state["offline"]["since"], told["since"]);
    assert_eq!(state["pools"][0]["name"], "blue", "it stays known");
    // Whoever comes now is told of it, too.
    assert_eq!(dashboard.events().next().0, "offline");
    etcd.restart();
    events.until("changed");
    assert_eq!(dashboard.get("/api/state")["offline"], Value::Null);
    cluster.create_pool("red", json!({"cidr": "10.8.0.0/24"}));
    events.until_state(&dashboard, |state| state["pools"][1]["name"] == "red");
}

#[test]
fn damage_is_found_and_goes_with_its_repair() {
    let cluster = Cluster::embedded().with_pools(Families::V4);
    let handle = "/calico/ipam/v2/handle/pods.nobody";
    let value = r#"{"handleID":"pods.nobody","block":{"10.7.0.0/26":1},"deleted":false}"#;
    cluster.store.load(&Entries::from([(handle.to_owned(), value.to_owned())]));
    let dashboard = Dashboard::start(&cluster.node, &cluster.store, &[]);
    let mut events = dashboard.events();
    let state = events.until_state(&dashboard, |state| !state["checked"].is_null());
    let found = &state["problems"][0];
    assert_eq!(found["cure"], "weirctl ipam check --repair", "{state}");
    assert!(found["what"].as_str().is_some_and(|what| what.contains("pods.nobody")), "{found}");
    cluster.weirctl(&["ipam", "check", "--repair"]);
    assert!(cluster.store.entries().keys().all(|key| *key != handle));
    // The page looks at most twice a minute.
    events.until_state(&dashboard, |state| state["problems"] == json!([]));
}

#[test]
fn next_hops_are_those_of_the_nodes_kernels() {
    let mut fleet = Fleet::new(&[Subnet::First, Subnet::First, Subnet::Second]);
    fleet.apply_pool("blue", json!({"cidr": "10.7.0.0/24", "vxlanMode": "CrossSubnet"}));
    fleet.start_agents();
    let pods = [0, 1, 2].map(|member| fleet.pod(member, "blue"));
    fleet.until_reached(&pods[0], &pods[2]);
    let dashboard = Dashboard::start(fleet.members[0].node(), &fleet.store, &["--node", "n1"]);
    let mut events = dashboard.events();
    let next_hops = |from: &str| dashboard.get(&format!("/api/reach?from={from}"))["to"].clone();
    events.until_state(&dashboard, |_| next_hops("n1").as_array().is_some_and(|it| it.len() == 2));
    let [near, far] = [0, 1].map(|index| next_hops("n1")[index].clone());
    let address = |member: usize| fleet.members[member].host.address.to_string();
    assert_eq!((&near["node"], &near["how"]), (&json!("n2"), &json!("direct")));
    assert_eq!(near["nextHop"], address(1));
    assert_eq!((&far["how"], &far["device"]), (&json!("VXLAN"), &json!("vxlan.calico")));
    for (from, member) in [("n1", 0), ("n2", 1), ("n3", 2)] {
        let routes = fleet.members[member].routes().join("\n");
        for row in next_hops(from).as_array().expect("next hops") {
            let next_hop = row["nextHop"].as_str().expect("a next hop");
            let device = row["device"].as_str().map(|it| format!(" dev {it}")).unwrap_or_default();
            assert!(routes.contains(&format!(" via {next_hop}{device}")), "{from} {row}: {routes}");
        }
    }
    let found = dashboard.get(&format!("/api/search?q={}", pods[2].address));
    let lines = found["answers"][0]["lines"].to_string();
    assert!(lines.contains("reached from n1") && lines.contains("over vxlan.calico"), "{lines}");
}

/// A block of a node's with 20 addresses in use, as a store has it.
fn full_block(number: usize, nodes: usize, attributes: usize) -> (String, String) {
    let cidr = format!("10.{}.{}.{}/26", number >> 10, number >> 2 & 255, (number & 3) << 6);
    let node = format!("node-{:04}", number % nodes);
    let mut block = Block::new(cidr.parse().expect("a CIDR"), &node, 1);
    for ordinal in 0..attributes {
        let holder: Attribute = serde_json::from_value(json!({
            "handle_id": format!("k8s-pod-network.{number:032x}{ordinal:032x}"),
            "secondary": {
                "namespace": "default", "pod": format!("web-{number}-{ordinal}"), "node": node,
                "timestamp": "2026-11-23 03:40:17.28409748 +0000 UTC", "interface": "eth0",
            },
        }))
        .expect("a holder");
        block.assign(ordinal, holder);
    }
    let key = format!("/calico/ipam/v2/assignment/ipv4/block/{}", cidr.replace('/', "-"));
    (key, String::from_utf8(block.to_json()).expect("UTF-8"))
}

/// Prints how large and how quick it is.
#[test]
#[expect(clippy::print_stdout, reason = "what is measured is printed")]
fn ten_thousand_blocks_of_a_thousand_nodes_are_shown() {
    let cluster = Cluster::etcd();
    cluster.create_pool("large", json!({"cidr": "10.0.0.0/8", "ipipMode": "CrossSubnet"}));
    let mut entries: Entries = (0..10_000).map(|number| full_block(number, 1000, 20)).collect();
    for node in 0..1000 {
        let name = format!("node-{node:04}");
        let address = format!("172.{}.{}.{}/24", 16 + node / 250, node % 250 / 50, 1 + node % 50);
        let value = json!({"kind": "Node", "apiVersion": "projectcalico.org/v3",
            "metadata": {"name": name}, "spec": {"bgp": {"ipv4Address": address}}});
        let key = format!("/calico/resources/v3/projectcalico.org/nodes/{name}");
        entries.insert(key, value.to_string());
    }
    cluster.store.load(&entries);
    let began = Instant::now();
    let dashboard = Dashboard::start(&cluster.node, &cluster.store, &["--node", "node-0001"]);
    println!("ready after {:?}", began.elapsed());
    let timed = |path: &str| {
        let began = Instant::now();
        let answer = dashboard.get(path);
        (began.elapsed(), answer)
    };
    let mut events = dashboard.events();
    events.until("changed");
    let (first, state) = timed("/api/state");
    let (again, _) = timed("/api/state");
    assert_eq!(state["pools"][0]["used"], "200000");
    assert_eq!(state["pools"][0]["blocks"].as_array().map(Vec::len), Some(10_000));
    assert_eq!(state["nodes"].as_array().map(Vec::len), Some(1000));
    let size = dashboard.ask("GET", "/api/state", ADDRESS).2.len();
    println!("state: {size} bytes, {first:?}, again {again:?}");
    println!("memory: {} kB", dashboard.memory());
    for path in
        ["/api/reach", "/api/search?q=web-9999-19", "/api/search?q=node", "/api/search?q=10.39.3.1"]
    {
        let (time, answer) = timed(path);
        println!("{path}: {time:?}, {} bytes", answer.to_string().len());
    }
    assert_eq!(
        dashboard.get("/api/search?q=web-9999-19")["answers"][0]["title"],
        "default/web-9999-19"
    );
    for attributes in 21..26 {
        let (key, value) = full_block(7, 1000, attributes);
        let began = Instant::now();
        cluster.store.load(&Entries::from([(key, value)]));
        let written = began.elapsed();
        let used = format!("{}", 200_000 + attributes - 20);
        events.until("changed");
        let told = began.elapsed();
        let state = events.until_state(&dashboard, |state| state["pools"][0]["used"] == used);
        println!(
            "written after {written:?}, told after {told:?}, read after {:?}, generation {}",
            began.elapsed(),
            state["generation"]
        );
    }
    println!("memory: {} kB", dashboard.memory());
}
