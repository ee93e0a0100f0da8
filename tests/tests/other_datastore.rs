//! Agents and plugins of one node on different datastores: an agent that knows none of the pools
//! of the node's networks would take away what their containers need.

use std::process::Command;

use serde_json::{Value, json};
use weir_tests::{Answer, Call, Fleet, Place, Subnet, binaries};

const LIST: &str = "/etc/cni/net.d/10-pods.conflist";
const OTHER: [&str; 4] = ["--datastore-type", "embedded", "--datastore-path", "/run/other.db"];
const POOL: &str = "{apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {name: blue}, \
                    spec: {cidr: 10.8.0.0/24}}";

/// A node whose containers have NAT.
fn fleet() -> Fleet {
    let fleet = Fleet::new(&[Subnet::First]);
    fleet.apply_pool("blue", json!({"cidr": "10.7.0.0/24", "natOutgoing": true}));
    fleet.register(0);
    fleet
}

fn weirctl(node: &impl Place, arguments: &[&[&str]], input: &str) -> Answer {
    let mut command = Command::new(binaries().join("weirctl"));
    command.args(arguments.concat());
    Answer::of(&node.output(&mut command, input))
}

#[test]
fn an_agent_does_not_start_on_another_than_the_nodes_networks() {
    let fleet = fleet();
    let node = fleet.members[0].node();
    let container = node.container("web");
    let call = fleet.call(0, "blue", &container);
    call.add(node);
    let plugin = call.configuration();
    let list = json!({ "cniVersion": "1.0.0", "name": plugin["name"], "plugins": [plugin] });
    let list = list.to_string();
    node.write(LIST, &list);
    let table = || node.run(&["nft", "list", "table", "inet", "weir"]);
    let before = table();
    let run = ["node", "run", "--node", "n1", "--once"];
    let answer = weirctl(node, &[&run, &OTHER], "");
    assert!(!answer.succeeded, "{answer:?}");
    for words in [LIST, "/run/other.db", "give both one datastore"] {
        assert!(answer.stderr.contains(words), "{answer:?}");
    }
    assert_eq!(table(), before);
    // Nor is the default taken where the file is broken.
    node.write(LIST, &list.replace("]}", ",]}"));
    let answer = weirctl(node, &[&run], "");
    assert!(
        !answer.succeeded && answer.stderr.contains("is not a network with a plugin"),
        "{answer:?}"
    );
    assert_eq!(table(), before);
    node.write(LIST, &list);
    let answer = weirctl(node, &[&run], "");
    assert!(answer.succeeded, "the datastore that the file names: {answer:?}");
}

#[test]
fn an_add_on_another_than_the_agents_is_refused() {
    let mut fleet = fleet();
    fleet.start_agents();
    let node = fleet.members[0].node();
    let created = weirctl(node, &[&["create", "-f", "-"], &OTHER], POOL);
    assert!(created.succeeded, "{created:?}");
    let configuration = |datastore: Value| {
        let mut configuration = json!({
            "cniVersion": "1.1.0", "name": "pods", "type": "weir", "nodename": "n1",
            "ipam": { "type": "weir-ipam", "ipv4_pools": ["blue"] },
        });
        weir_tests::merge(&mut configuration, datastore);
        configuration
    };
    let embedded = json!({"datastore_type": "embedded", "datastore_path": "/run/other.db"});
    let container = node.container("other");
    let other = Call::new("weir", configuration(embedded)).container(&container);
    other.run(node, "ADD").failure().expect(7, &["/run/other.db", "another cluster"]);
    let status = other.clone().without("CNI_IFNAME").run(node, "STATUS");
    status.failure().expect(50, &["/run/other.db", "another cluster"]);
    // The same datastore, spelt in another way.
    let mut same = fleet.store.configuration();
    let endpoints = same["etcd_endpoints"].as_str().expect("endpoints").to_owned();
    same["etcd_endpoints"] = format!("{endpoints}/").into();
    Call::new("weir", configuration(same)).container(&container).add(node);
}
