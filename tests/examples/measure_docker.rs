//! How long a `docker run` takes with Weir's network, beside Docker's bridge and no network at all,
//! and how much of that is the driver's own part, asked as dockerd asks it.
//!
//! `scripts/bench-docker.sh` builds and runs it.
#![expect(clippy::print_stdout, reason = "what is measured is printed")]

use std::collections::BTreeMap;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use weir_tests::{DockerHosts, DockerOptions, Firewall, Place, call_on};

/// How many endpoints the driver makes.
const ENDPOINTS: u64 = 200;
/// How many containers are run in each network.
const RUNS: usize = 20;
/// The identifier of the network that this program makes beside dockerd.
const NETWORK: &str = "beefbeefbeefbeefbeefbeefbeefbeefbeefbeefbeefbeefbeefbeefbeefbeef";
/// The calls that a `docker run` waits for.
const OWN_PART: [&str; 3] =
    ["IpamDriver.RequestAddress", "NetworkDriver.CreateEndpoint", "NetworkDriver.Join"];
/// What the driver's own part may take in the median.
const LIMIT: Duration = Duration::from_millis(5);

/// Times by what was measured.
type Samples = BTreeMap<String, Vec<Duration>>;

fn main() {
    for agents in [false, true] {
        let firewall = Firewall::Dockers;
        let options = DockerOptions { firewall, agents, ..DockerOptions::default() };
        let world = DockerHosts::new(1, &options);
        world.create_pool("blue", json!({"cidr": "10.7.0.0/20", "natOutgoing": true}));
        println!("\n{}:\n", if agents { "With an agent" } else { "Without an agent" });
        println!("| what | median | 95th of 100 |\n|---|--:|--:|");
        measure_driver(&world);
        measure_runs(&world);
    }
}

/// dockerd's side of the driver's socket.
struct Caller {
    stream: UnixStream,
    samples: Samples,
}

impl Caller {
    fn call(&mut self, method: &str, body: &Value) -> Value {
        let (path, body) = (format!("/{method}"), body.to_string());
        let begin = Instant::now();
        let answered = call_on(&mut self.stream, &path, body.as_bytes());
        let time = begin.elapsed();
        let (status, answer) = answered.expect("an answer");
        assert_eq!(status, 200, "{method} {body}: {answer}");
        self.samples.entry(method.to_owned()).or_default().push(time);
        answer
    }
}

/// Makes endpoints and removes them again, as dockerd does it.
fn measure_driver(world: &DockerHosts) {
    let host = &world.hosts[0];
    let stream = host.driver.socket("weir").connect().expect("the driver listens");
    let mut caller = Caller { stream, samples: Samples::new() };
    let pool = caller.call("IpamDriver.RequestPool", &json!({"Pool": "10.7.0.0/20"}));
    let id = pool["PoolID"].clone();
    let range =
        json!([{"AddressSpace": "WeirLocal", "Pool": "10.7.0.0/20", "Gateway": "0.0.0.0/0"}]);
    let network = json!({"NetworkID": NETWORK, "Options": {}, "IPv4Data": range, "IPv6Data": []});
    caller.call("NetworkDriver.CreateNetwork", &network);
    let sandbox = host.node.container("sandbox");
    let mut whole = Vec::new();
    for number in 1..=ENDPOINTS {
        let mac = format!("02:42:0a:07:{:02x}:{:02x}", number >> 8, number & 0xff);
        let endpoint = format!("{number:064x}");
        let options = json!({"com.docker.network.endpoint.macaddress": mac});
        let request = json!({"PoolID": id, "Address": "", "Options": options});
        let address = caller.call(OWN_PART[0], &request)["Address"].clone();
        let interface = json!({"Address": address, "AddressIPv6": "", "MacAddress": mac});
        let ids = |more: Value| {
            let mut call = json!({"NetworkID": NETWORK, "EndpointID": endpoint});
            weir_tests::merge(&mut call, more);
            call
        };
        let options = json!({"com.docker.network.endpoint.exposedports": [],
                             "com.docker.network.portmap": []});
        caller.call(OWN_PART[1], &ids(json!({"Interface": interface, "Options": options})));
        let key = sandbox.path();
        let joined = caller.call(OWN_PART[2], &ids(json!({"SandboxKey": key, "Options": {}})));
        let own = OWN_PART.iter().filter_map(|method| caller.samples[*method].last());
        whole.push(own.sum());
        move_link(world, joined["InterfaceName"]["SrcName"].as_str().expect("a link's name"));
        let mut end =
            |method: &str| caller.call(&format!("NetworkDriver.{method}"), &ids(json!({})));
        end("ProgramExternalConnectivity");
        end("RevokeExternalConnectivity");
        end("Leave");
        end("DeleteEndpoint");
        let address = address.as_str().expect("an address").split('/').next().unwrap_or_default();
        caller.call("IpamDriver.ReleaseAddress", &json!({"PoolID": id, "Address": address}));
    }
    caller.call("NetworkDriver.DeleteNetwork", &json!({"NetworkID": NETWORK}));
    let median = row("the driver's part: RequestAddress, CreateEndpoint and Join", &mut whole);
    for method in
        OWN_PART.into_iter().chain(["NetworkDriver.DeleteEndpoint", "IpamDriver.ReleaseAddress"])
    {
        row(&format!("`{method}`"), caller.samples.get_mut(method).expect("it was called"));
    }
    let verdict = if median < LIMIT { "met" } else { "MISSED" };
    println!("| (at most {LIMIT:?}: {verdict}) | | |");
}

/// Moves a link into the sandbox, as dockerd does it, and takes it away.
fn move_link(world: &DockerHosts, link: &str) {
    let node = &world.hosts[0].node;
    node.run(&["ip", "link", "set", link, "netns", "sandbox", "name", "eth0", "up"]);
    // Else it would go a moment later, with the next call.
    node.run(&["ip", "-n", "sandbox", "link", "delete", "eth0"]);
}

/// Runs containers in networks of each kind, in turn.
fn measure_runs(world: &DockerHosts) {
    let docker = &world.hosts[0].docker;
    let create = ["network", "create", "--driver"];
    docker.succeeds(&[&create[..], &["bridge", "bridged"]].concat());
    docker.succeeds(&[&create[..], &["weir", "--ipam-driver", "weir", "pooled"]].concat());
    let mut samples = Samples::new();
    for _ in 0..RUNS {
        for network in ["none", "bridged", "pooled"] {
            let begin = Instant::now();
            docker.start_container("measured", network, &[]);
            samples.entry(network.to_owned()).or_default().push(begin.elapsed());
            docker.remove(&["measured"]);
        }
    }
    let names = [
        ("none", "a whole `docker run --detach` without a network"),
        ("bridged", "the same in a network of Docker's bridge"),
        ("pooled", "the same in a network of Weir's"),
    ];
    for (network, what) in names {
        row(what, samples.get_mut(network).expect("it was measured"));
    }
}

/// Prints the median and the 95th of 100 of these times; the median.
fn row(what: &str, times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    let at = |part: usize| times[(times.len() * part / 100).min(times.len() - 1)];
    let milliseconds = |time: Duration| time.as_secs_f64() * 1000.0;
    println!("| {what} | {:.2} ms | {:.2} ms |", milliseconds(at(50)), milliseconds(at(95)));
    at(50)
}
