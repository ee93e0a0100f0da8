//! ADD and DEL of whole main plugins, beside the deletion of a bare veth.

use std::process::Command;
use std::time::{Duration, Instant};

use nix::net::if_::if_nametoindex;
use serde_json::{Value, json};
use weir_tests::{Call, Cluster, Container, Families, Node, Place};

use crate::samples::{Table, in_turn};
use crate::{run, timed};

pub const REFERENCE: &str = "ptp + host-local";
pub const EMBEDDED: &str = "weir, embedded";
pub const ETCD: &str = "weir, etcd";
const BARE: &str = "bare veth, deletion over netlink";
const BARE_BY_IP: &str = "bare veth, deletion by a process (ip link delete)";

/// One plugin on a node of its own.
struct Subject {
    name: &'static str,
    call: Call,
    container: Container,
    /// Kept, because its datastore goes with it.
    _cluster: Option<Cluster>,
}

impl Subject {
    fn reference() -> Self {
        let container = Node::new("n1").container("web");
        let call = Call::reference("ptp", reference_configuration()).container(&container);
        Self { name: REFERENCE, call, container, _cluster: None }
    }

    fn weir(name: &'static str, cluster: Cluster) -> Self {
        let cluster = cluster.with_pools(Families::V4);
        let container = cluster.node.container("web");
        let call = cluster.weir(Families::V4, &container);
        Self { name, call, container, _cluster: Some(cluster) }
    }

    fn node(&self) -> &Node {
        self.container.node()
    }
}

/// Measures all subjects in turn.
pub fn measure(rounds: usize) -> Table {
    let subjects = [
        Subject::reference(),
        Subject::weir(EMBEDDED, Cluster::embedded()),
        Subject::weir(ETCD, Cluster::etcd()),
    ];
    let bare = Node::new("n1");
    let peer = bare.container("web");
    // The first call sets up the node and its datastore.
    for subject in &subjects {
        subject.call.add(subject.node());
        subject.call.delete(subject.node());
    }
    let mut table = Table::default();
    for round in 0..rounds {
        for subject in in_turn(&subjects, round) {
            for command in ["ADD", "DEL"] {
                let time = timed(subject.node(), &subject.call, command);
                table.add(&format!("{}: {command}", subject.name), time);
            }
        }
        table.add(BARE, time_of_bare_deletion(&bare, &peer));
        table.add(BARE_BY_IP, time_of_deletion_by_ip(&bare, &peer));
    }
    let row = |name: &str, command: &str| format!("{name}: {command}");
    table.compare(&row(EMBEDDED, "ADD"), &row(REFERENCE, "ADD"), Some(0.33));
    table.compare(&row(ETCD, "ADD"), &row(REFERENCE, "ADD"), Some(0.4));
    for name in [EMBEDDED, ETCD] {
        table.compare(&row(name, "DEL"), BARE, Some(1.1));
        table.compare(&row(name, "DEL"), BARE_BY_IP, None);
        table.compare(&row(name, "DEL"), &row(REFERENCE, "DEL"), None);
    }
    table
}

fn make_bare_veth(node: &Node, peer: &Container) {
    node.run(&["ip", "link", "add", "bare", "type", "veth", "peer", "eth0", "netns", "web"]);
    node.run(&["ip", "link", "set", "bare", "up"]);
    peer.run(&["ip", "link", "set", "eth0", "up"]);
}

/// How long a process takes that does nothing else than have the kernel delete such a veth.
fn time_of_deletion_by_ip(node: &Node, peer: &Container) -> Duration {
    make_bare_veth(node, peer);
    let mut delete = Command::new("ip");
    let (elapsed, answer) = node.enter(|| run(delete.args(["link", "delete", "bare"]), ""));
    assert!(answer.succeeded, "{answer:?}");
    elapsed
}

/// How long the kernel takes to delete a veth whose ends are up, the peer in
/// another namespace, asked by one netlink message on an open socket.
fn time_of_bare_deletion(node: &Node, peer: &Container) -> Duration {
    make_bare_veth(node, peer);
    node.enter(|| {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_all().build().expect("starting a runtime");
        runtime.block_on(async {
            let (connection, handle, _) = rtnetlink::new_connection().expect("a netlink socket");
            tokio::spawn(connection);
            let index = if_nametoindex("bare").expect("the veth was just made");
            let begin = Instant::now();
            handle.link().del(index).execute().await.expect("deleting a veth");
            begin.elapsed()
        })
    })
}

/// The configuration of the reference plugins.
pub fn reference_configuration() -> Value {
    json!({
        "cniVersion": "1.0.0",
        "name": "pods",
        "type": "ptp",
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": "10.7.0.0/24"}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        },
    })
}
