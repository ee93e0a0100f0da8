//! `weirctl ipam explain` foretells what the next ADD of a network returns, with
//! both datastores and for networks that ask in different ways.

use serde_json::{Value, json};
use weir_common::datastore::keys;
use weir_tests::{Answer, Cluster, CniTool, merge};

/// Where cnitool finds the network.
const LIST: &str = "/etc/cni/net.d/10-pods.conflist";

/// How many containers are added to each network.
const CONTAINERS: usize = 3;

fn cluster_with_pools(cluster: Cluster) -> Cluster {
    for (name, spec) in [
        ("blue", json!({"cidr": "10.7.0.0/24"})),
        ("far", json!({"cidr": "10.8.0.0/24", "nodeSelector": "zone == 'far'"})),
        ("hand", json!({"cidr": "10.9.0.0/24", "assignmentMode": "Manual"})),
        ("tiny", json!({"cidr": "10.10.0.0/31", "blockSize": 32, "assignmentMode": "Manual"})),
        ("six", json!({"cidr": "fd00:7::/112"})),
        ("six-hand", json!({"cidr": "fd00:8::/112", "assignmentMode": "Manual"})),
    ] {
        cluster.create_pool(name, spec);
    }
    let reserved = json!({
        "apiVersion": "projectcalico.org/v3", "kind": "IPReservation",
        "metadata": {"name": "kept"}, "spec": {"reservedCIDRs": ["10.9.0.0/25"]},
    });
    let created = cluster.weirctl_with(&["create", "-f", "-"], &reserved.to_string());
    assert!(created.succeeded, "{created:?}");
    cluster
}

/// A network with these keys in its plugin's `ipam` section, and these beside it.
fn network(cluster: &Cluster, ipam: Value, besides: Value) -> CniTool {
    let mut section = json!({"type": "weir-ipam"});
    merge(&mut section, ipam);
    let mut plugin = json!({"type": "weir", "nodename": "n1", "ipam": section});
    merge(&mut plugin, cluster.store.configuration());
    merge(&mut plugin, besides);
    CniTool::new(&cluster.node, &cluster.list(plugin))
}

/// What is foretold of the network: with its file named, and without, as the
/// node has no other.
fn explain(cluster: &Cluster) -> Answer {
    let before = cluster.store.entries();
    let named = cluster.weirctl(&["ipam", "explain", "--conflist", LIST]);
    assert_eq!(named.stdout, cluster.weirctl(&["ipam", "explain"]).stdout);
    assert_eq!(cluster.store.entries(), before, "explaining changes nothing");
    named
}

/// The addresses in an explanation.
fn foretold(answer: &Answer) -> Vec<String> {
    assert!(answer.succeeded, "{answer:?}");
    assert!(answer.stdout.starts_with(&format!("Asked for by {LIST}: ")), "{answer:?}");
    let next = answer.stdout.lines().filter_map(|line| line.strip_prefix("Next: "));
    next.map(|next| next.split(' ').next().expect("an address").to_owned()).collect()
}

/// The addresses in a result.
fn given(result: &Value) -> Vec<String> {
    let ips = result["ips"].as_array().expect("a result has addresses");
    let address = |ip: &Value| ip["address"].as_str().expect("text").to_owned();
    ips.iter().map(|ip| address(ip).split('/').next().expect("an address").to_owned()).collect()
}

/// Networks that get addresses, and how the first of each begins.
fn shapes() -> [(Value, &'static str); 7] {
    [
        (json!({}), "10.7.0."),
        (json!({"ipv4_pools": ["tiny", "10.9.0.0/24"]}), "10.10.0."),
        (json!({"ipv4_pools": ["hand"]}), "10.9.0."),
        (json!({"subnet": "10.8.0.0/24"}), "10.8.0."),
        (json!({"assign_ipv4": "false", "assign_ipv6": "true"}), "fd00:7::"),
        (json!({"assign_ipv6": "true", "ipv6_pools": ["fd00:8::/112"]}), "10.7.0."),
        (json!({"assign_ipv6": true, "ipv4_pools": ["far"], "ipv6_pools": ["six"]}), "10.8.0."),
    ]
}

fn foretells(cluster: Cluster) {
    let cluster = cluster_with_pools(cluster);
    for (number, (ipam, begins)) in shapes().into_iter().enumerate() {
        let tool = network(&cluster, ipam.clone(), json!({}));
        for count in 0..CONTAINERS {
            let container = cluster.node.container(&format!("c{number}-{count}"));
            let next = foretold(&explain(&cluster));
            assert_eq!(given(&tool.add(&container)), next, "container {count} of {ipam}");
            assert!(count > 0 || next[0].starts_with(begins), "{ipam}: {next:?}");
        }
    }
    an_address_asked_for(&cluster);
    for ipam in [
        json!({"ipv4_pools": ["six"]}),
        json!({"ipv4_pools": ["blue", "nothing"]}),
        json!({"subnet": "10.7.0.0/25"}),
        json!({"ipv4_pools": ["tiny"]}),
        json!({"assign_ipv4": "maybe"}),
    ] {
        refusal(&cluster, ipam);
    }
    // A pool that cannot be read stops the others too.
    cluster.store.put(&keys::pool("zz"), &json!([]));
    refusal(&cluster, json!({"ipv4_pools": ["blue"]}));
}

fn an_address_asked_for(cluster: &Cluster) {
    let asked = json!({"args": {"cni": {"ips": ["10.9.0.77"]}}});
    let tool = network(cluster, json!({}), asked);
    let next = foretold(&explain(cluster));
    assert_eq!(next, ["10.9.0.77"]);
    assert_eq!(given(&tool.add(&cluster.node.container("asks"))), next);
    let refused = explain(cluster);
    assert!(refused.stderr.contains("10.9.0.77 is taken by"), "{refused:?}");
}

/// What an ADD says when it fails was foretold.
fn refusal(cluster: &Cluster, ipam: Value) {
    let tool = network(cluster, ipam.clone(), json!({}));
    let foretold = explain(cluster);
    assert_eq!(foretold.status, Some(1), "{ipam}: {foretold:?}");
    let why = foretold.stderr.trim().strip_prefix("the next container gets no address: ");
    let why = why.unwrap_or_else(|| panic!("{foretold:?}"));
    let why = why.split(" (asked for by").next().expect("a reason");
    let why = why.split("; looked in").next().expect("a reason");
    let container = cluster.node.container("refused");
    let told = tool.run("add", &container);
    assert!(!told.succeeded, "{ipam}: {told:?}");
    // cnitool tells with its own quotes around it.
    let plain = |text: &str| text.replace(['\\', '"'], "");
    assert!(plain(&told.stderr).contains(&plain(why)), "{why}: {told:?}");
    container.remove();
}

#[test]
fn the_next_address_is_foretold_on_the_embedded_store() {
    foretells(Cluster::embedded());
}

#[test]
fn the_next_address_is_foretold_on_etcd() {
    foretells(Cluster::etcd());
}
