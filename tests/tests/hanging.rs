//! Programs and files that never answer: every wait of Weir's has an end.

use std::io::Read;
use std::process::Stdio;

use serde_json::{Value, json};
use weir_tests::{Agent, Cluster, Families, Network, Node, Place, until};

/// Puts a program `nft` that never ends before the real one; answers the PATH that leads to it.
fn hanging_nft(node: &Node) -> String {
    node.run(&["mkdir", "-p", "/run/bin"]);
    node.write("/run/bin/nft", "#!/bin/sh\nexec sleep 1000\n");
    node.run(&["chmod", "755", "/run/bin/nft"]);
    format!("/run/bin:{}", std::env::var("PATH").expect("a PATH"))
}

#[test]
fn nft_is_ended_and_the_add_can_be_tried_again() {
    let cluster = Cluster::embedded().with_pools(Families::V4);
    let path = hanging_nft(&cluster.node);
    let container = cluster.node.container("web");
    let call = cluster.weir(Families::V4, &container);
    let answer = call.clone().with("PATH", &path).run(&cluster.node, "ADD");
    answer.failure().expect(11, &["nft", "took longer than 10 s"]);
    cluster.assert_nothing_allocated();
    call.add(&cluster.node);
}

#[test]
fn the_agent_answers_while_nft_hangs() {
    let network = Network::new();
    let cluster = Cluster::embedded_on(network.node(1));
    cluster.create_pool("nat", json!({"cidr": "10.9.0.0/24", "natOutgoing": true}));
    let path = hanging_nft(&cluster.node);
    let mut environment = cluster.store.environment();
    environment.push(("PATH", path));
    let programs = weir_tests::binaries();
    let agent = Agent::start_with(&programs, &cluster.node, environment, "n1", &[]);
    let health = || agent.answer("/health").unwrap_or_default();
    until("it says what hangs", || health().contains("the program nft took longer than 10 s"));
    // The next try hangs again.
    for _ in 0..3 {
        assert!(agent.answer("/liveness").expect("an answer").contains("200 OK"));
    }
    cluster.node.run(&["rm", "/run/bin/nft"]);
    until("it is well once nft is", || agent.is_well());
}

/// Whoever opens a fifo waits for its other end.
#[test]
fn what_is_no_regular_file_is_not_opened() {
    let cluster = Cluster::embedded().with_pools(Families::V4);
    cluster.node.run(&["mkfifo", "/run/fifo"]);
    let container = cluster.node.container("web");
    let call = cluster.weir(Families::V4, &container);
    let namespace = call.clone().with("CNI_NETNS", "/run/fifo");
    namespace.run(&cluster.node, "ADD").failure().expect(8, &["/run/fifo"]);
    namespace.run(&cluster.node, "DEL").silence();
    let fifo = || Value::from("/run/fifo");
    let lock = call.clone().configure("/ipam_lock_file", fifo());
    lock.run(&cluster.node, "ADD").failure().expect(5, &["/run/fifo", "not a regular file"]);
    let name = call.clone().configure("/nodename_file", fifo()).configure("/nodename", Value::Null);
    name.run(&cluster.node, "ADD").failure().expect(7, &["/run/fifo", "not a regular file"]);
    let etcd = call
        .configure("/datastore_type", "etcdv3".into())
        .configure("/etcd_endpoints", "https://127.0.0.1:1".into());
    for key in ["etcd_ca_cert_file", "etcd_cert_file", "etcd_key_file"] {
        let both = ["etcd_cert_file", "etcd_key_file"].into_iter().filter(|_| !key.contains("ca"));
        let keys = both.chain([key]);
        let etcd = keys.fold(etcd.clone(), |call, key| call.configure(&format!("/{key}"), fifo()));
        etcd.run(&cluster.node, "ADD").failure().expect(7, &["/run/fifo", "not a regular file"]);
    }
    cluster.assert_nothing_allocated();
}

#[test]
fn a_standard_input_without_end_is_not_waited_for() {
    let cluster = Cluster::embedded().with_pools(Families::V4);
    let container = cluster.node.container("web");
    for program in ["weir", "weir-ipam"] {
        let call = match program {
            "weir" => cluster.weir(Families::V4, &container),
            _ => cluster.ipam(Families::V4, "web"),
        };
        let mut command = call.with("CNI_COMMAND", "ADD").command();
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = cluster.node.spawn(&mut command);
        let input = child.stdin.take();
        let mut answer = String::new();
        let output = child.stdout.as_mut().expect("a pipe");
        output.read_to_string(&mut answer).expect("an answer");
        assert!(answer.contains("no end after 10 s"), "{answer}");
        assert!(!child.wait().expect("it ends").success());
        drop(input);
    }
    cluster.assert_nothing_allocated();
}
