//! Whatever comes over a socket is answered, and the next call is, too.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use weir_tests::{Cluster, DockerDriver, Families, Place, PluginSocket, allocations, call_on};

const REQUEST_ADDRESS: &str = "/IpamDriver.RequestAddress";
const RELEASE_ADDRESS: &str = "/IpamDriver.ReleaseAddress";

/// A driver without a dockerd.
struct World {
    driver: DockerDriver,
    cluster: Cluster,
}

impl World {
    fn new(arguments: &[&str]) -> Self {
        let cluster = Cluster::embedded().with_pools(Families::Dual);
        let environment = cluster.store.environment();
        let environment: Vec<_> =
            environment.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let driver = DockerDriver::start(&cluster.node, &environment, arguments);
        Self { driver, cluster }
    }

    fn socket(&self) -> PluginSocket {
        self.driver.socket("weir")
    }

    /// Requires that the driver still answers.
    fn assert_alive(&self) {
        let answer = self.socket().succeeds("/Plugin.Activate", &json!({}));
        assert_eq!(answer, json!({"Implements": ["NetworkDriver", "IpamDriver"]}));
    }
}

/// The status in the first line of an answer.
fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or_default()
}

#[test]
fn sockets_are_roots_alone() {
    let world = World::new(&["--calico-names"]);
    for name in ["weir", "calico", "calico-ipam"] {
        let path = world.driver.socket(name).path().to_owned();
        let rights = world.cluster.node.run(&["stat", "--format", "%F %a %U", &path]);
        assert_eq!(rights.trim(), "socket 600 root", "{path}");
    }
}

#[test]
fn each_name_has_its_own_calls() {
    let world = World::new(&["--calico-names"]);
    let implements = |name: &str| {
        let answer = world.driver.socket(name).succeeds("/Plugin.Activate", &Value::Null);
        answer["Implements"].clone()
    };
    assert_eq!(implements("weir"), json!(["NetworkDriver", "IpamDriver"]));
    assert_eq!(implements("calico"), json!(["NetworkDriver"]));
    assert_eq!(implements("calico-ipam"), json!(["IpamDriver"]));
    let (status, answer) =
        world.driver.socket("calico").call("/IpamDriver.RequestPool", &json!({}));
    assert_eq!(status, 404, "{answer}");
    assert!(answer["Err"].as_str().is_some_and(|it| it.contains("calico")), "{answer}");
}

#[test]
fn capabilities_are_what_the_driver_relies_on() {
    let world = World::new(&[]);
    let socket = world.socket();
    let answer = |method: &str| socket.succeeds(method, &Value::Null);
    assert_eq!(
        answer("/IpamDriver.GetCapabilities"),
        json!({"RequiresMACAddress": true, "RequiresRequestReplay": false})
    );
    assert_eq!(
        answer("/NetworkDriver.GetCapabilities"),
        json!({"Scope": "local", "ConnectivityScope": "global"})
    );
    let spaces = answer("/IpamDriver.GetDefaultAddressSpaces");
    assert_ne!(spaces["LocalDefaultAddressSpace"], spaces["GlobalDefaultAddressSpace"]);
    for method in ["DiscoverNew", "DiscoverDelete", "AllocateNetwork", "FreeNetwork"] {
        assert_eq!(answer(&format!("/NetworkDriver.{method}")), json!({}));
    }
}

#[test]
fn unknown_paths_and_other_methods_are_told() {
    let world = World::new(&[]);
    for path in ["/", "/nothing", "/IpamDriver.Nothing", "/NetworkDriver", "/../etc/passwd"] {
        let (status, answer) = world.socket().call(path, &json!({}));
        assert_eq!(status, 404, "{path}: {answer}");
        assert!(answer["Err"].as_str().is_some_and(|it| it.contains(path)), "{path}: {answer}");
    }
    let request = "GET /Plugin.Activate HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let answer = world.socket().send(request.as_bytes());
    assert_eq!(status(&answer), "405", "{answer}");
    assert!(answer.contains("POST"), "{answer}");
    world.assert_alive();
}

#[test]
fn null_is_nothing_wherever_it_stands() {
    let world = World::new(&[]);
    let socket = world.socket();
    let pool = json!({"AddressSpace": "WeirLocal", "Pool": "10.7.0.0/24", "Options": null});
    let id = socket.succeeds("/IpamDriver.RequestPool", &pool)["PoolID"].clone();
    let said =
        socket.fails(REQUEST_ADDRESS, &json!({"PoolID": id, "Address": "", "Options": null}));
    assert!(said.contains("hardware address"), "{said}");
    let (address, options) = ("10.7.0.9", Value::Null);
    let request = json!({"PoolID": id, "Address": address, "Options": options});
    assert_eq!(socket.succeeds(REQUEST_ADDRESS, &request)["Address"], "10.7.0.9/32");
    assert!(allocations(&world.cluster.store.entries()).contains_key(&address.parse().unwrap()));
    socket.succeeds(RELEASE_ADDRESS, &json!({"PoolID": id, "Address": address}));
    world.cluster.assert_nothing_allocated();
    for method in ["CreateNetwork", "CreateEndpoint", "Join", "Leave", "DeleteEndpoint"] {
        let nulls = json!({"NetworkID": null, "EndpointID": null, "Interface": null,
                           "Options": null, "SandboxKey": null, "IPv4Data": null});
        let (_, answer) = socket.call(&format!("/NetworkDriver.{method}"), &nulls);
        assert!(answer.is_object(), "{method}: {answer}");
    }
    world.assert_alive();
}

#[test]
fn chunked_bodies_are_read_and_missing_ones_told() {
    let world = World::new(&[]);
    let body = r#"{"AddressSpace":"WeirLocal","Pool":"10.7.0.0/24"}"#;
    let (first, second) = body.split_at(20);
    let request = format!(
        "POST /IpamDriver.RequestPool HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\
         Connection: close\r\n\r\n{:x}\r\n{first}\r\n{:x}\r\n{second}\r\n0\r\n\r\n",
        first.len(),
        second.len()
    );
    let answer = world.socket().send(request.as_bytes());
    assert_eq!(status(&answer), "200", "{answer}");
    assert!(answer.contains(r#""Pool":"10.7.0.0/24""#), "{answer}");
    let request =
        "POST /IpamDriver.GetCapabilities HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    assert_eq!(status(&world.socket().send(request.as_bytes())), "200");
    // dockerd repeats a call without its body when the driver died at it. A network that asked for
    // a pool must not get any.
    let request = "POST /IpamDriver.RequestPool HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\
                   Connection: close\r\n\r\n";
    let answer = world.socket().send(request.as_bytes());
    assert_eq!(status(&answer), "500", "{answer}");
    assert!(answer.contains("do again what failed"), "{answer}");
}

#[test]
fn garbage_is_refused_and_changes_nothing() {
    let world = World::new(&[]);
    let socket = world.socket();
    let garbage: Vec<u8> = (0..1 << 20).map(|number: u32| (number % 251) as u8).collect();
    let larger = vec![b'{'; (1 << 20) + 1];
    let methods = ["/IpamDriver.RequestPool", REQUEST_ADDRESS, "/NetworkDriver.CreateEndpoint"];
    for method in methods {
        for body in [
            &garbage[..],
            b"{",
            b"[]",
            b"\"text\"",
            br#"{"Pool":7,"PoolID":7,"NetworkID":7}"#,
            b"\xff\xfe",
        ] {
            let (status, answer) = socket.exchange(method, body).expect("an answer");
            assert_eq!(status, 500, "{method}: {answer}");
            let said = answer["Err"].as_str().expect("a message");
            assert!(said.len() < 1000, "{method}: {} bytes", said.len());
        }
        let nested = [&b"{\"Options\":"[..], &[b'['; 100_000]].concat();
        assert_eq!(socket.exchange(method, &nested).expect("an answer").0, 500);
        let request = format!(
            "POST {method} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n",
            larger.len()
        );
        let answer = socket.send(&[request.as_bytes(), &larger].concat());
        // Whoever goes on sending may not see the answer.
        assert!(answer.is_empty() || status(&answer) == "413", "{answer}");
    }
    let line_noise = socket.send(&garbage);
    assert!(line_noise.is_empty() || status(&line_noise) == "400", "{line_noise}");
    world.assert_alive();
    world.cluster.assert_nothing_allocated();
}

#[test]
fn hostile_values_stay_values() {
    let world = World::new(&[]);
    let socket = world.socket();
    let hostile = ["../../etc/passwd", "a\u{1b}[31mb\n\0", "; rm -rf /", "10.7.0.0/33", "🐙", "-"];
    for value in hostile {
        for (method, body) in [
            ("/IpamDriver.RequestPool", json!({"Pool": value})),
            ("/IpamDriver.RequestPool", json!({"SubPool": value})),
            (REQUEST_ADDRESS, json!({"PoolID": value})),
            (REQUEST_ADDRESS, json!({"PoolID": "weir-any-v4", "Address": value})),
            (RELEASE_ADDRESS, json!({"PoolID": "weir-any-v4", "Address": value})),
            ("/NetworkDriver.CreateNetwork", json!({"NetworkID": value})),
            ("/NetworkDriver.CreateEndpoint", json!({"NetworkID": value, "EndpointID": value})),
            ("/NetworkDriver.Join", json!({"NetworkID": value, "EndpointID": value})),
        ] {
            let (status, answer) = socket.call(method, &body);
            assert!(status == 500, "{method} {body}: {answer}");
            let said = answer["Err"].as_str().expect("a message");
            assert!(!said.contains('\u{1b}') && !said.contains('\0'), "{method}: {said:?}");
        }
    }
    world.assert_alive();
    world.cluster.assert_nothing_allocated();
    assert!(world.cluster.interfaces() == ["lo", "eth0"], "{:?}", world.cluster.interfaces());
}

#[test]
fn slow_and_silent_callers_hold_nobody_up() {
    let world = World::new(&[]);
    let socket = world.socket();
    let silent: Vec<_> = (0..50).map(|_| socket.connect().expect("connecting")).collect();
    let mut slow = socket.connect().expect("connecting");
    let head = "POST /IpamDriver.RequestPool HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{";
    slow.write_all(head.as_bytes()).expect("sending");
    let begin = Instant::now();
    world.assert_alive();
    assert!(begin.elapsed() < Duration::from_secs(5), "others are answered meanwhile");
    let mut answer = String::new();
    // The driver ends the call, or the connection.
    slow.read_to_string(&mut answer).ok();
    assert!(answer.is_empty() || status(&answer) == "408", "{answer}");
    for mut stream in silent {
        let mut rest = String::new();
        stream.read_to_string(&mut rest).expect("the driver ends the connection");
    }
}

#[test]
fn a_caller_that_hangs_up_leaves_a_whole_call() {
    let world = World::new(&[]);
    let socket = world.socket();
    let body = json!({"PoolID": "weir-any-v4",
                      "Options": {"com.docker.network.endpoint.macaddress": "02:42:0a:07:00:99"}});
    let body = body.to_string();
    let mut stream = socket.connect().expect("connecting");
    let head = format!(
        "POST {REQUEST_ADDRESS} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).expect("sending");
    stream.shutdown(Shutdown::Both).expect("hanging up");
    // Called again, it gives the address that the first call took, or takes one.
    let mut stream = socket.connect().expect("connecting");
    let call =
        |stream: &mut _| call_on(stream, REQUEST_ADDRESS, body.as_bytes()).expect("an answer");
    let (status, first) = call(&mut stream);
    assert_eq!(status, 200, "{first}");
    assert_eq!(call(&mut stream).1, first, "the connection stays, and so does the address");
    weir_tests::until("there is one allocation", || {
        allocations(&world.cluster.store.entries()).len() == 1
    });
}
