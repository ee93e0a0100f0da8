//! The life of pools, as the article about them walks through it, on both
//! datastores and with the command lines that people copy.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use weir_common::datastore::keys;
use weir_tests::{Answer, Cluster, Families, Place, address, masked};

/// An error has to come at once: nothing is waited for.
const AT_ONCE: Duration = Duration::from_secs(3);

fn weirctl(cluster: &Cluster, line: &str) -> Answer {
    cluster.weirctl(&line.split(' ').collect::<Vec<_>>())
}

/// Runs a line, which must succeed: what it prints.
fn succeed(cluster: &Cluster, line: &str) -> String {
    let answer = weirctl(cluster, line);
    assert!(answer.succeeded, "weirctl {line}: {answer:?}");
    assert_eq!(answer.stderr, "", "weirctl {line}");
    answer.stdout
}

/// Runs a line, which must fail with status 1: what it says.
fn fail(cluster: &Cluster, line: &str) -> String {
    let begun = Instant::now();
    let answer = weirctl(cluster, line);
    assert_eq!(answer.status, Some(1), "weirctl {line}: {answer:?}");
    assert!(begun.elapsed() < AT_ONCE, "weirctl {line} took {:?}", begun.elapsed());
    answer.stderr
}

/// Puts an example file where the article has it.
fn write_my_pool(cluster: &Cluster, example: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../conf/pools").join(example);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    cluster.node.write("/run/myPool.yaml", &text);
}

fn back_up_and_restore(cluster: &Cluster) {
    succeed(cluster, "init");
    let backup = succeed(cluster, "get ipp -o yaml");
    assert!(backup.contains("name: default-ipv4-ippool"), "{backup}");
    cluster.node.write("/run/backup.yaml", &backup);
    let deleted = succeed(cluster, "delete ipPool default-ipv4-ippool");
    assert_eq!(deleted, "Successfully deleted 1 'IPPool' resource(s)\n");
    assert!(left(cluster).is_empty(), "nothing is left");
    let created = succeed(cluster, "create -f backup.yaml");
    assert_eq!(created, "Successfully created 1 'IPPool' resource(s)\n");
    assert_eq!(masked(&succeed(cluster, "get ipp -o yaml")), masked(&backup));
    succeed(cluster, "delete ipPool 192.168.0.0/16");
}

/// Creates, looks at and deletes the pool of one example, each way there is.
fn one_pool(cluster: &Cluster, example: &str, cidr: &str, mode: &str) {
    write_my_pool(cluster, example);
    assert!(succeed(cluster, "validate -f myPool.yaml").starts_with("Successfully validated"));
    succeed(cluster, "create -f myPool.yaml");
    let wide = succeed(cluster, "get ipp -o wide");
    let row = wide.lines().nth(1).expect("a row").split_whitespace().collect::<Vec<_>>();
    assert_eq!((row[1], row[3]), (cidr, mode), "{wide}");
    succeed(cluster, "delete -f myPool.yaml");
    assert!(left(cluster).is_empty(), "nothing is left of {example}");
    succeed(cluster, "apply -f myPool.yaml");
    succeed(cluster, "replace -f myPool.yaml");
    succeed(cluster, &format!("delete ipPool {cidr}"));
    assert!(fail(cluster, "replace -f myPool.yaml").contains("resource does not exist"));
}

fn twice(cluster: &Cluster) {
    write_my_pool(cluster, "ipPool-ipip-cross-subnet.yaml");
    succeed(cluster, "create -f myPool.yaml");
    let before = cluster.store.entries();
    let error = fail(cluster, "create -f myPool.yaml");
    assert!(error.contains("resource already exists: IPPool(10-254-0-0-24)"), "{error}");
    cluster.node.write(
        "/run/other.yaml",
        "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: other}\n\
         spec: {cidr: 10.254.0.0/24}\n",
    );
    let error = fail(cluster, "create -f other.yaml");
    assert!(error.contains("overlaps with IPPool(10-254-0-0-24) CIDR 10.254.0.0/24"), "{error}");
    assert_eq!(cluster.store.entries(), before);
    let call = cluster.ipam(Families::V4, "c1");
    let result = call.add(&cluster.node);
    assert!(address(&result, 0).starts_with("10.254.0."), "{result}");
    let error = fail(cluster, "delete ipPool 10.254.0.0/24");
    assert!(error.contains("1 address(es) in use"), "{error}");
    let (_, listing) = error.split_once("list them with: weirctl ").expect("a command");
    let (listing, _) = listing.split_once(';').expect("more to do");
    let listed = succeed(cluster, listing);
    assert!(listed.contains(address(&result, 0).trim_end_matches("/32")), "{listed}");
    call.delete(&cluster.node);
    succeed(cluster, "delete ipPool 10.254.0.0/24");
    assert_eq!(left(cluster), [MACHINE], "blocks and affinities go with their pool");
    succeed(cluster, "create -f myPool.yaml");
}

/// A pool from which nothing but this node's tunnel has an address.
fn with_a_tunnel(cluster: &Cluster) {
    succeed(cluster, "create -f myPool.yaml");
    cluster.node.write(
        "/run/n2.yaml",
        "apiVersion: projectcalico.org/v3\nkind: Node\nmetadata: {name: n2}\n\
         spec: {bgp: {ipv4Address: 172.31.2.12/24}}\n",
    );
    succeed(cluster, "create -f n2.yaml");
    // Fails where the kernel has no ipip; the address is taken before.
    weirctl(cluster, "node run --once --node n1 --metrics-address none");
    let taken = succeed(cluster, "get node n1 -o yaml");
    assert!(taken.contains("ipv4IPIPTunnelAddr: 10.254.0."), "{taken}");
    let deleted = succeed(cluster, "delete -f myPool.yaml");
    assert!(deleted.contains("released 1 tunnel address(es)"), "{deleted}");
    let node = succeed(cluster, "get node n1 -o yaml");
    assert!(!node.contains("ipv4IPIPTunnelAddr"), "{node}");
    succeed(cluster, "delete node n1 n2");
    assert!(left(cluster).is_empty(), "nothing is left, not even handles");
}

/// Which machine has the node's name: it stays when pools go.
const MACHINE: &str = "/calico/weir/v1/machines/n1";

/// The keys that are left, besides that of the cluster itself.
fn left(cluster: &Cluster) -> Vec<String> {
    let keys = cluster.store.entries().into_keys();
    keys.filter(|key| key != keys::CLUSTER_INFORMATION).collect()
}

fn by_force(cluster: &Cluster) {
    for container in ["c2", "c3"] {
        cluster.ipam(Families::V4, container).add(&cluster.node);
    }
    let output = succeed(cluster, "delete -f myPool.yaml --force");
    assert!(output.contains("released 2 address(es), deleted 1 block(s)"), "{output}");
    assert_eq!(left(cluster), [MACHINE], "nothing is left, not even handles");
    cluster.ipam(Families::V4, "c2").delete(&cluster.node);
}

fn walk(cluster: &Cluster) {
    back_up_and_restore(cluster);
    one_pool(cluster, "ipPool-bgp.yaml", "192.168.0.0/16", "Never");
    one_pool(cluster, "ipPool-ipip-always.yaml", "10.254.0.0/24", "Always");
    one_pool(cluster, "ipPool-ipip-cross-subnet.yaml", "10.254.0.0/24", "CrossSubnet");
    let slip = fail(cluster, "get ipp -yaml");
    assert!(slip.contains("weirctl get ipp -o yaml"), "{slip}");
    with_a_tunnel(cluster);
    twice(cluster);
    by_force(cluster);
}

#[test]
fn the_article_can_be_followed_on_the_embedded_store() {
    walk(&Cluster::embedded());
}

#[test]
fn the_article_can_be_followed_on_etcd() {
    walk(&Cluster::etcd());
}

#[test]
fn a_new_clusters_pool_takes_nothing_from_the_node() {
    let cluster = Cluster::embedded();
    let node = &cluster.node;
    // The node's own subnet, a route, and what neither touches.
    let error = fail(&cluster, "init --cidr 172.30.0.0/16");
    assert!(error.contains("this node's address 172.30.0.11/24 of eth0"), "{error}");
    node.run(&["ip", "route", "add", "192.168.128.0/24", "via", "172.30.0.1"]);
    let error = fail(&cluster, "init");
    assert!(error.contains("this node's route 192.168.128.0/24 by eth0"), "{error}");
    assert!(error.contains("weirctl init --cidr CIDR"), "{error}");
    let error = fail(&cluster, "init --cidr 10.244.0.0/16 --ipv6-cidr fd00::/16");
    assert!(error.contains("fd00:30::11/64 of eth0"), "{error}");
    assert!(cluster.store.entries().is_empty());
    let made = succeed(&cluster, "init --cidr 10.244.0.0/16 --ipv6-cidr fd00:10:244::/48");
    assert!(made.starts_with("Successfully created 2 'IPPool'"), "{made}");
    assert!(succeed(&cluster, "init").starts_with("Nothing to do"));
    let result = cluster.ipam(Families::Dual, "c1").add(node);
    assert!(address(&result, 0).starts_with("10.244."), "{result}");
    assert!(address(&result, 1).starts_with("fd00:10:244:"), "{result}");
}

#[test]
fn what_needs_no_datastore_asks_none() {
    let cluster = Cluster::embedded();
    write_my_pool(&cluster, "ippool-v3.yaml");
    for line in ["validate -f myPool.yaml", "convert -f myPool.yaml"] {
        succeed(&cluster, &format!("{line} --etcd-endpoints http://127.0.0.1:1"));
    }
    for shell in ["bash", "zsh", "fish"] {
        let code = succeed(&cluster, &format!("completion {shell}"));
        for word in ["weirctl", "patch", "dry-run"] {
            assert!(code.contains(word), "{shell}: no {word}");
        }
    }
    // Bash at least takes what it is given.
    let code = succeed(&cluster, "completion bash");
    cluster.node.run_with(&["bash", "-n"], &code);
}

/// A path with a slip in it is not an empty cluster, and nothing is made there.
#[test]
fn a_datastore_that_is_not_there_is_made_only_by_what_creates() {
    let cluster = Cluster::embedded();
    let pool = r#"{"apiVersion": "projectcalico.org/v3", "kind": "IPPool",
        "metadata": {"name": "blue"}, "spec": {"cidr": "10.7.0.0/24"}}"#;
    let call = |arguments: &[&str]| {
        let place = ["--datastore-path", "/run/slip/weir.db"];
        cluster.weirctl_with(&[arguments, &place].concat(), pool)
    };
    for arguments in
        [&["get", "ippool"][..], &["ipam", "check"], &["ipam", "show"], &["node", "status"]]
    {
        let answer = call(arguments);
        assert!(answer.succeeded, "{arguments:?}: {answer:?}");
        let says = "there is no datastore at /run/slip/weir.db (named by the command line)";
        assert!(answer.stderr.contains(says), "{arguments:?}: {answer:?}");
    }
    let dry = call(&["create", "-f", "-", "--dry-run"]);
    assert!(dry.succeeded, "{dry:?}");
    assert!(
        !cluster
            .node
            .output(std::process::Command::new("ls").arg("/run/slip"), "")
            .status
            .success()
    );
    assert!(call(&["create", "-f", "-"]).succeeded);
    assert!(call(&["get", "ippool"]).stdout.contains("blue"));
}
