//! Several etcd servers, TLS and passwords.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use weir_tests::{
    Call, Certificates, Entries, Etcd, EtcdOptions, Families, Node, Place, allocations,
};

/// Nobody listens here.
const DEAD: &str = "http://127.0.0.1:1";

fn put_pool(etcd: &Etcd) {
    let pool = json!({
        "kind": "IPPool",
        "apiVersion": "projectcalico.org/v3",
        "metadata": {"name": "blue"},
        "spec": {
            "cidr": "10.7.0.0/24", "ipipMode": "Never", "vxlanMode": "Never", "blockSize": 26,
            "nodeSelector": "all()", "allowedUses": ["Workload", "Tunnel"],
            "assignmentMode": "Automatic",
        },
    });
    etcd.put("/calico/resources/v3/projectcalico.org/ippools/blue", &pool.to_string());
}

fn call(keys: Value) -> Call {
    let mut configuration = json!({
        "cniVersion": "1.0.0",
        "name": "pods",
        "type": "weir",
        "datastore_type": "etcdv3",
        "nodename": "n1",
        "ipam": Families::V4.ipam(),
    });
    weir_tests::merge(&mut configuration, keys);
    Call::new("weir-ipam", configuration)
        .with("CNI_CONTAINERID", "web")
        .with("CNI_NETNS", "/run/netns/none")
}

/// ADD and DEL must work, and change this etcd.
fn assert_works(etcd: &Etcd, call: &Call) {
    let taken = |entries: Entries| allocations(&entries).len();
    call.add(etcd.node());
    assert_eq!(taken(etcd.entries()), 1);
    call.delete(etcd.node());
    assert_eq!(taken(etcd.entries()), 0);
}

#[test]
fn a_dead_server_is_passed_over() {
    let node = Node::bare("n1");
    let etcd = Etcd::start(&node);
    put_pool(&etcd);
    let live = etcd.endpoint();
    for endpoints in [format!("{DEAD},{live}"), format!("{live},{DEAD}"), live] {
        assert_works(&etcd, &call(json!({"etcd_endpoints": endpoints})));
    }
}

#[test]
fn a_hung_server_is_passed_over() {
    let node = Node::bare("n1");
    let hung = Etcd::start_with(&node, EtcdOptions { port: 3379, ..Default::default() });
    let etcd = Etcd::start(&node);
    put_pool(&etcd);
    hung.freeze();
    let endpoints = format!("{},{}", hung.endpoint(), etcd.endpoint());
    let begin = Instant::now();
    assert_works(&etcd, &call(json!({"etcd_endpoints": endpoints})));
    assert!(begin.elapsed() < Duration::from_secs(30), "{:?}", begin.elapsed());
}

#[test]
fn all_servers_dead_or_hung_means_later() {
    let node = Node::bare("n1");
    let hung = Etcd::start(&node);
    hung.freeze();
    let endpoints = format!("{DEAD},{}", hung.endpoint());
    let begin = Instant::now();
    let answer = call(json!({"etcd_endpoints": endpoints})).run(&node, "ADD");
    answer.failure().expect(11, &["127.0.0.1:1", "127.0.0.1:2379"]);
    assert!(begin.elapsed() < Duration::from_secs(30), "{:?}", begin.elapsed());
}

#[test]
fn tls_with_a_clients_certificate() {
    let node = Node::bare("n1");
    let certificates = Arc::new(Certificates::new());
    let options =
        EtcdOptions { certificates: Some(Arc::clone(&certificates)), ..Default::default() };
    let etcd = Etcd::start_with(&node, options);
    put_pool(&etcd);
    let trusting = json!({
        "etcd_endpoints": etcd.endpoint(),
        "etcd_ca_cert_file": certificates.file("ca.pem"),
    });
    let certificate = json!({
        "etcd_cert_file": certificates.file("client.pem"),
        "etcd_key_file": certificates.file("client.key"),
    });
    let mut complete = trusting.clone();
    weir_tests::merge(&mut complete, certificate.clone());
    assert_works(&etcd, &call(complete));
    let mut untrusting = json!({"etcd_endpoints": etcd.endpoint()});
    weir_tests::merge(&mut untrusting, certificate);
    // A server hangs up on those who show no certificate, without a word.
    let wanted = "the server wants a client certificate and none is configured";
    for (keys, words) in [(trusting, wanted), (untrusting, "certificate")] {
        let failure = call(keys).run(&node, "ADD").failure();
        assert!([7, 11].contains(&failure.code), "{failure:?}");
        assert!(failure.text.contains(words), "{failure:?}");
    }
}

#[test]
fn user_and_password() {
    let node = Node::bare("n1");
    let options = EtcdOptions { password: Some("secret".to_owned()), ..Default::default() };
    let etcd = Etcd::start_with(&node, options);
    put_pool(&etcd);
    let keys = |password: &str| {
        json!({
            "etcd_endpoints": etcd.endpoint(),
            "etcd_username": "root",
            "etcd_password": password,
        })
    };
    assert_works(&etcd, &call(keys("secret")));
    let answer = call(keys("guess-what")).run(&node, "ADD");
    answer.failure().expect(7, &["password"]);
    let told = format!("{}{}", answer.stdout, answer.stderr);
    assert!(!told.contains("guess-what"), "no password is ever told: {told}");
    let anonymous = call(json!({"etcd_endpoints": etcd.endpoint()})).run(&node, "ADD");
    anonymous.failure().expect(7, &["user"]);
}

#[test]
fn etcd_can_be_reached_from_other_nodes() {
    let network = weir_tests::Network::new();
    let etcd = Etcd::start(network.router());
    put_pool(&etcd);
    let endpoint = json!({"etcd_endpoints": etcd.endpoint_at("172.30.0.1")});
    let addresses = [1, 2].map(|number| {
        let call = call(endpoint.clone()).configure("/nodename", format!("n{number}").into());
        let call = call.with("CNI_CONTAINERID", &format!("web{number}"));
        let node = network.node(number);
        assert!(node.reaches("172.30.0.1"));
        call.add(&node)["ips"][0]["address"].to_string()
    });
    assert_ne!(addresses[0], addresses[1]);
    let hosts = etcd.entries();
    for host in ["n1", "n2"] {
        let prefix = format!("/calico/ipam/v2/host/{host}/");
        assert!(hosts.keys().any(|key| key.starts_with(&prefix)), "{host}");
    }
}
