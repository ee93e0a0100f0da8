//! Bad input: each kind gets the right error code, the field, the value and
//! what to do about it, and changes nothing.

use serde_json::{Value, json};
use weir_tests::{Answer, Call, Cluster, Container, Families, Place, Snapshot};

/// Error codes of the CNI specification.
const UNSUPPORTED_VERSION: u64 = 1;
const UNSUPPORTED_FIELD: u64 = 2;
const INVALID_ENVIRONMENT: u64 = 4;
const DECODE: u64 = 6;
const INVALID_CONFIGURATION: u64 = 7;
const INVALID_NAMESPACE: u64 = 8;
const TRY_AGAIN_LATER: u64 = 11;
/// Weir's own (README.md, "Troubleshooting").
const NO_ADDRESS: u64 = 101;
const ADDRESS_REFUSED: u64 = 102;
const INTERFACE_EXISTS: u64 = 104;

/// A node with one container to be, and what was there before.
struct World {
    cluster: Cluster,
    container: Container,
}

impl World {
    fn new() -> Self {
        Self::of(Cluster::embedded().with_pools(Families::V4))
    }

    fn of(cluster: Cluster) -> Self {
        let container = cluster.node.container("web");
        Self { cluster, container }
    }

    fn call(&self) -> Call {
        self.cluster.weir(Families::V4, &self.container)
    }

    /// The call must fail so and change nothing.
    fn refuses(&self, call: &Call, code: u64, words: &[&str]) {
        self.unchanged(|| call.run(&self.cluster.node, "ADD").failure().expect(code, words));
    }

    fn unchanged<T>(&self, work: impl FnOnce() -> T) -> T {
        // The filter of what containers send stays on the node, as it does after a DEL.
        let node = || Snapshot::of(&self.cluster.node).without(&["weir-sources"]);
        let look = || (node(), Snapshot::of(&self.container));
        let (before, entries) = (look(), self.cluster.store.entries());
        let answer = work();
        let after = look();
        before.0.assert_unchanged(&after.0);
        before.1.assert_unchanged(&after.1);
        assert_eq!(entries, self.cluster.store.entries());
        answer
    }
}

#[test]
fn there_is_no_pool() {
    for cluster in [Cluster::embedded(), Cluster::etcd()] {
        let world = World::of(cluster);
        world.refuses(&world.call(), NO_ADDRESS, &["pool", "weirctl create -f"]);
    }
}

#[test]
fn the_pool_asked_for_does_not_exist() {
    let world = World::new();
    for (asked, named) in [("green", "green"), ("10.99.0.0/16", "10.99.0.0/16")] {
        let call = world.call().configure("/ipam/ipv4_pools", json!([asked]));
        world.refuses(&call, INVALID_CONFIGURATION, &[named, "blue", "weirctl get ippool"]);
    }
}

#[test]
fn the_pool_asked_for_is_disabled() {
    let world = World::new();
    world.cluster.create_pool("off", json!({"cidr": "10.8.0.0/24", "disabled": true}));
    for asked in ["off", "10.8.0.0/24"] {
        let call = world.call().configure("/ipam/ipv4_pools", json!([asked]));
        world.refuses(&call, INVALID_CONFIGURATION, &["off", "disabled"]);
    }
}

#[test]
fn the_address_asked_for_is_in_no_pool() {
    let world = World::new();
    let call = world.call().with("CNI_ARGS", "IP=192.0.2.7");
    world.refuses(&call, ADDRESS_REFUSED, &["192.0.2.7", "blue"]);
}

#[test]
fn the_address_asked_for_is_no_address() {
    let world = World::new();
    let by_argument = world.call().with("CNI_ARGS", "IP=10.7.0.300");
    let by_runtime = world.call().configure("/runtimeConfig", json!({"ips": ["10.7.0.300"]}));
    for call in [by_argument, by_runtime] {
        let failure = world.unchanged(|| call.run(&world.cluster.node, "ADD").failure());
        assert!([INVALID_ENVIRONMENT, INVALID_CONFIGURATION].contains(&failure.code));
        assert!(failure.text.contains("10.7.0.300"), "{failure:?}");
    }
}

#[test]
fn the_address_asked_for_is_taken() {
    let world = World::new();
    let holder = world.cluster.ipam(Families::V4, "holder").with("CNI_ARGS", "IP=10.7.0.9");
    holder.add(&world.cluster.node);
    let call = world.call().with("CNI_ARGS", "IP=10.7.0.9");
    world.refuses(&call, ADDRESS_REFUSED, &["10.7.0.9", "holder"]);
}

#[test]
fn the_pool_is_exhausted() {
    let world = World::of(Cluster::embedded());
    world.cluster.create_pool("tiny", json!({"cidr": "10.7.0.0/30", "blockSize": 30}));
    for number in 0..4 {
        world.cluster.ipam(Families::V4, &format!("c{number}")).add(&world.cluster.node);
    }
    world.refuses(&world.call(), NO_ADDRESS, &["tiny", "weirctl ipam show"]);
}

#[test]
fn one_family_of_two_is_exhausted() {
    let world = World::of(Cluster::embedded());
    world.cluster.create_pool("tiny", json!({"cidr": "10.7.0.0/32", "blockSize": 32}));
    world.cluster.create_pool("six", json!({"cidr": "fd00:7::/112"}));
    world.cluster.ipam(Families::Dual, "first").add(&world.cluster.node);
    let call = world.cluster.weir(Families::Dual, &world.container);
    world.refuses(&call, NO_ADDRESS, &["IPv4", "tiny"]);
}

#[test]
fn the_input_is_malformed() {
    let world = World::new();
    let call = world.call();
    let name_missing = json!({"cniVersion": "1.0.0", "type": "weir"}).to_string();
    let version_unknown =
        json!({"cniVersion": "9.9.9", "name": "pods", "type": "weir"}).to_string();
    for (input, code, words) in [
        ("", DECODE, [].as_slice()),
        ("{\"cniVersion\":", DECODE, &[]),
        ("[]", DECODE, &[]),
        (name_missing.as_str(), INVALID_CONFIGURATION, &["name"]),
        (version_unknown.as_str(), UNSUPPORTED_VERSION, &["9.9.9", "1.0.0"]),
    ] {
        let answer = world.unchanged(|| call.run_with(&world.cluster.node, "ADD", input));
        answer.failure().expect(code, words);
    }
}

#[test]
fn a_key_has_a_value_that_cannot_be() {
    let world = World::new();
    for (pointer, value, words) in [
        ("/mtu", json!(70000), ["mtu", "70000"]),
        ("/mtu", json!(-1), ["mtu", "-1"]),
        ("/mtu", json!("big"), ["mtu", "big"]),
        ("/nodename", json!("a/b"), ["nodename", "a/b"]),
        ("/log_level", json!("loud"), ["log_level", "loud"]),
        ("/datastore_type", json!("cloud"), ["datastore_type", "cloud"]),
        ("/etcd_endpoints", json!("ftp://x"), ["etcd_endpoints", "ftp://x"]),
        ("/ipam/assign_ipv4", json!("maybe"), ["assign_ipv4", "maybe"]),
        ("/ipam/type", json!("../weir-ipam"), ["ipam", "../weir-ipam"]),
    ] {
        let mut call = world.call();
        if pointer == "/etcd_endpoints" {
            call = call.configure("/datastore_type", "etcdv3".into());
        }
        let call = call.configure(pointer, value);
        let failure = world.unchanged(|| call.run(&world.cluster.node, "ADD").failure());
        assert!([2, DECODE, INVALID_CONFIGURATION].contains(&failure.code), "{failure:?}");
        let named = words.iter().all(|word| failure.text.contains(word));
        assert!(named, "{pointer}: {words:?} should be in {failure:?}");
    }
}

#[test]
fn the_command_is_unknown() {
    let world = World::new();
    for program in ["weir", "weir-ipam"] {
        let call = Call::new(program, world.call().configuration().clone());
        let call = call.container(&world.container);
        let answer = world.unchanged(|| call.run(&world.cluster.node, "ATTACH"));
        answer.failure().expect(INVALID_ENVIRONMENT, &["ATTACH"]);
    }
}

#[test]
fn variables_are_missing() {
    let world = World::new();
    let call = world.call();
    let bare = ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"]
        .iter()
        .fold(call, |call, variable| call.without(variable));
    let missing = ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"];
    world.refuses(&bare, INVALID_ENVIRONMENT, &missing);
    let answer = world.unchanged(|| bare.run(&world.cluster.node, "DEL"));
    answer.failure().expect(INVALID_ENVIRONMENT, &["CNI_CONTAINERID", "CNI_IFNAME"]);
}

#[test]
fn variables_cannot_be() {
    let world = World::new();
    for (variable, value) in [
        ("CNI_CONTAINERID", "../../etc"),
        ("CNI_IFNAME", "a/b"),
        ("CNI_IFNAME", "longer-than-15-bytes"),
        ("CNI_ARGS", "IP=10.7.0.9=2"),
    ] {
        world.refuses(&world.call().with(variable, value), INVALID_ENVIRONMENT, &[variable]);
    }
}

/// ADD refuses what does not fit in a link's alias, so that there is nothing to remove.
#[test]
fn names_are_too_long_together() {
    let world = World::new();
    let call = world.call().with("CNI_CONTAINERID", &"c".repeat(250));
    world.refuses(&call, INVALID_CONFIGURATION, &["254", "shorten"]);
    world.unchanged(|| call.run(&world.cluster.node, "DEL").silence());
}

/// What fits is what the kernel takes.
#[test]
fn names_are_as_long_together_as_they_can_be() {
    let world = World::new();
    let alias = |id: usize| "weir:pods::eth0".len() + id;
    let longest = 254 - alias(0);
    let call = |length| world.call().with("CNI_CONTAINERID", &"c".repeat(length));
    world.refuses(&call(longest + 1), INVALID_CONFIGURATION, &["255 bytes", "254", "shorten"]);
    let result = call(longest).add(&world.cluster.node);
    let link = world.cluster.node.link(weir_tests::host_interface(&result));
    assert_eq!(link["ifalias"].as_str().map(str::len), Some(alias(longest)));
    call(longest).delete(&world.cluster.node);
}

/// serde would take the list for the struct's fields in order.
#[test]
fn a_list_stands_where_an_object_belongs() {
    let world = World::new();
    for (pointer, value) in [
        ("/ipam", json!(["weir-ipam"])),
        ("/prevResult", json!([])),
        ("/prevResult", json!({"ips": [["10.7.0.1/32"]]})),
        ("/dns", json!([])),
        ("/args", json!([])),
        ("/args", json!({"cni": []})),
        ("/runtimeConfig", json!([])),
        ("/container_settings", json!([true])),
    ] {
        let key = pointer.trim_start_matches('/');
        world.refuses(&world.call().configure(pointer, value), DECODE, &[key]);
    }
}

#[test]
fn a_route_cannot_have_its_scope() {
    let world = World::new();
    for (route, words) in [
        (json!({"dst": "192.0.2.0/24", "scope": 253, "gw": "10.7.0.1"}), ["253", "gw"]),
        (json!({"dst": "192.0.2.0/24", "scope": 255}), ["255", "nowhere"]),
    ] {
        let call = world.call().configure("/ipam/routes", json!([route]));
        let before = Snapshot::of(&world.container);
        let failure = call.run(&world.cluster.node, "ADD").failure();
        failure.expect(UNSUPPORTED_FIELD, &[&["192.0.2.0/24", "scope"], &words[..]].concat());
        before.assert_unchanged(&Snapshot::of(&world.container));
        world.cluster.assert_nothing_allocated();
    }
}

#[test]
fn the_namespace_is_not_there() {
    let world = World::new();
    world.cluster.node.write("/run/a-file", "");
    for path in ["/run/netns/nobody", "/run/a-file"] {
        world.refuses(&world.call().with("CNI_NETNS", path), INVALID_NAMESPACE, &[path]);
    }
}

#[test]
fn the_namespace_is_the_nodes_own() {
    let world = World::new();
    let call = world.call().with("CNI_NETNS", "/proc/self/ns/net");
    world.refuses(&call, INVALID_NAMESPACE, &["/proc/self/ns/net"]);
}

#[test]
fn the_interface_is_there_already() {
    let world = World::new();
    world.container.run(&["ip", "link", "add", "eth0", "type", "bridge"]);
    world.refuses(&world.call(), INTERFACE_EXISTS, &["eth0"]);
}

#[test]
fn the_ipam_plugin_is_not_found() {
    let world = World::new();
    let call = world.call().configure("/ipam/type", "nowhere".into());
    let failure = world.unchanged(|| call.run(&world.cluster.node, "ADD").failure());
    assert!(failure.text.contains("nowhere") && failure.text.contains("CNI_PATH"), "{failure:?}");
}

#[test]
fn there_is_no_ipam_section() {
    let world = World::new();
    let call = world.call().configure("/ipam", Value::Null);
    world.refuses(&call, INVALID_CONFIGURATION, &["ipam"]);
}

/// The configuration of weir-ipam with these keys for its datastore.
fn ipam_with(world: &World, keys: Value) -> Answer {
    let mut configuration = world.call().configuration().clone();
    weir_tests::merge(&mut configuration, json!({"datastore_type": "etcdv3"}));
    weir_tests::merge(&mut configuration, keys);
    let call = Call::new("weir-ipam", configuration).container(&world.container);
    world.unchanged(|| call.run(&world.cluster.node, "ADD"))
}

#[test]
fn a_certificate_cannot_be_read() {
    let world = World::new();
    world.cluster.node.write("/etc/weir/nonsense.pem", "no certificate");
    for (key, path) in [
        ("etcd_ca_cert_file", "/etc/weir/nowhere.pem"),
        ("etcd_ca_cert_file", "/etc/weir/nonsense.pem"),
        ("etcd_cert_file", "/etc/weir/nowhere.pem"),
    ] {
        let mut keys = json!({"etcd_endpoints": "https://127.0.0.1:2379", key: path});
        if key == "etcd_cert_file" {
            keys["etcd_key_file"] = "/etc/weir/nowhere.key".into();
        }
        ipam_with(&world, keys).failure().expect(INVALID_CONFIGURATION, &[key, path]);
    }
}

#[test]
fn there_is_no_etcd() {
    let world = World::new();
    let answer = ipam_with(&world, json!({"etcd_endpoints": "http://127.0.0.1:1"}));
    answer.failure().expect(TRY_AGAIN_LATER, &["127.0.0.1:1"]);
    let answer = ipam_with(&world, json!({"etcd_endpoints": ""}));
    answer.failure().expect(INVALID_CONFIGURATION, &["etcd_endpoints"]);
}

/// A mistake that was made since ADD keeps DEL from nothing that it does not need for
/// it: the container's link goes, and with the key corrected the address.
#[test]
fn a_key_of_the_datastore_is_mistyped_when_the_container_goes() {
    let world = World::of(Cluster::etcd().with_pools(Families::V4));
    let node = &world.cluster.node;
    let call = world.call();
    call.add(node);
    let mistyped = call.clone().configure("/etcd_key_file", json!(["/key.pem"]));
    mistyped.run(node, "DEL").failure().expect(DECODE, &["etcd_key_file"]);
    assert_eq!(world.cluster.interfaces(), ["lo", "eth0"]);
    call.delete(node);
    world.cluster.assert_nothing_allocated();
}

/// What a Go program makes of lists that it never filled.
#[test]
fn lists_that_are_null_are_empty() {
    let world = World::new();
    let node = &world.cluster.node;
    let nulls = json!({"type": "weir-ipam", "ipv4_pools": null, "gateways": null, "routes": null});
    let call = world
        .call()
        .configure("/ipam", nulls)
        .configure("/runtimeConfig", json!({"ips": null}))
        .configure("/args", json!({"cni": {"ips": null}}))
        .configure("/dns", Value::Null)
        .configure("/prevResult", Value::Null);
    let mut result = call.add(node);
    result["routes"] = Value::Null;
    result["dns"] = Value::Null;
    call.check(node, &result).silence();
    call.clone().configure("/cniVersion", Value::Null).run(node, "DEL").silence();
    world.cluster.assert_nothing_allocated();
}
