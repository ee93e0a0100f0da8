//! A node keeps its name, unless it is renamed.

use serde_json::{Value, json};
use weir_tests::{
    Agent, Answer, Call, Cluster, Families, Place, address, allocations, assert_consistent, merge,
    until,
};

const FILE: &str = "/var/lib/weir/nodename";
/// Where an administrator gives the machine an identity.
const MACHINE: &str = "/var/lib/weir/machine";
const HOSTS: &str = "/calico/ipam/v2/host/";

/// A call of `weir-ipam` that names no node, for this container id.
fn nameless(cluster: &Cluster, id: &str) -> Call {
    let mut plugin = cluster.plugin(Families::V4);
    plugin.as_object_mut().expect("an object").remove("nodename");
    merge(&mut plugin, json!({"cniVersion": "1.0.0", "name": "pods"}));
    let call = Call::new("weir-ipam", plugin).with("CNI_NETNS", "/run/netns/none");
    call.with("CNI_CONTAINERID", id)
}

/// ADD, which must succeed, with all that it logs.
fn add(cluster: &Cluster, call: &Call) -> Answer {
    let answer = call.run(&cluster.node, "ADD");
    assert!(answer.succeeded, "{answer:?}");
    answer
}

/// The hosts that have blocks.
fn hosts(cluster: &Cluster) -> Vec<String> {
    let entries = cluster.store.entries();
    let affinities = entries.keys().filter_map(|key| key.strip_prefix(HOSTS));
    let mut hosts: Vec<_> =
        affinities.filter_map(|key| Some(key.split_once('/')?.0.to_owned())).collect();
    hosts.dedup();
    hosts
}

fn set_host_name(cluster: &Cluster, name: &str) {
    cluster.node.run(&["hostname", name]);
}

fn kept_name(cluster: &Cluster) -> String {
    cluster.node.read(FILE).lines().next().unwrap_or_default().to_owned()
}

fn is_kept(cluster: &Cluster) -> bool {
    cluster.node.succeeds(&["test", "-e", FILE])
}

#[test]
fn a_host_that_gets_a_longer_name_stays_the_same_node() {
    for cluster in [Cluster::embedded(), Cluster::etcd()] {
        let cluster = cluster.with_pools(Families::V4);
        cluster.node.write(MACHINE, "m1");
        // As earlier versions made it.
        cluster.node.run(&["chmod", "700", "/var/lib/weir"]);
        let calls = ["c1", "c2"].map(|id| nameless(&cluster, id));
        add(&cluster, &calls[0]);
        let kept = cluster.node.read(FILE);
        let [name, machine] = kept.lines().collect::<Vec<_>>()[..] else { panic!("{kept}") };
        assert_eq!((name, machine.len()), ("n1", "machine ".len() + 16));
        let modes = cluster.node.run(&["stat", "-c", "%a", "/var/lib/weir", FILE]);
        assert_eq!(modes, "755\n644\n");
        set_host_name(&cluster, "n1.example.org");
        add(&cluster, &calls[1]);
        assert_eq!((hosts(&cluster), cluster.node.read(FILE)), (vec!["n1".into()], kept));
        calls.iter().for_each(|call| call.delete(&cluster.node));
        cluster.assert_nothing_allocated();
    }
}

/// The database's directory is for everybody to read, the database is not.
#[test]
fn the_database_stays_private_beside_the_name() {
    let cluster = Cluster::embedded().with_pools(Families::V4);
    add(&cluster, &nameless(&cluster, "c1"));
    let modes = cluster.node.run(&["sh", "-c", "stat -c '%n %a' /var/lib/weir /var/lib/weir/*"]);
    for line in modes.lines() {
        let expected = match line.rsplit_once(' ').unwrap().0 {
            "/var/lib/weir" => "755",
            FILE => "644",
            _ => "600",
        };
        assert!(line.ends_with(expected), "{modes}");
    }
}

#[test]
fn on_another_machine_the_file_does_not_count() {
    let cluster = Cluster::embedded().with_pools(Families::V4);
    cluster.node.write(MACHINE, "m1");
    for text in ["golden\nmachine 0123456789abcdef\n", "golden\n", ""] {
        cluster.node.write(FILE, text);
        add(&cluster, &nameless(&cluster, "c1"));
        assert_eq!((hosts(&cluster), kept_name(&cluster)), (vec!["n1".into()], "n1".into()));
    }
    cluster.node.write(MACHINE, "m2");
    set_host_name(&cluster, "n2");
    add(&cluster, &nameless(&cluster, "c2"));
    assert_eq!(kept_name(&cluster), "n2");
}

#[test]
fn localhost_is_used_but_not_kept() {
    let cluster = Cluster::embedded().with_pools(Families::V4);
    for name in ["localhost", "localhost.localdomain"] {
        set_host_name(&cluster, name);
        add(&cluster, &nameless(&cluster, name));
        assert!(!is_kept(&cluster));
        assert!(hosts(&cluster).contains(&name.to_owned()));
    }
    set_host_name(&cluster, "n1");
    add(&cluster, &nameless(&cluster, "c1"));
    assert_eq!(kept_name(&cluster), "n1");
}

#[test]
fn a_file_that_cannot_be_written_is_only_warned_of() {
    let cluster = Cluster::etcd().with_pools(Families::V4);
    cluster.node.run(&["mkdir", "-p", "/var/lib/weir"]);
    cluster.node.run(&["mount", "--bind", "/var/lib/weir", "/var/lib/weir"]);
    cluster.node.run(&["mount", "-o", "remount,bind,ro", "/var/lib/weir"]);
    let answer = add(&cluster, &nameless(&cluster, "c1"));
    assert!(answer.stderr.contains("the node's name cannot be kept"), "{answer:?}");
    assert!(!is_kept(&cluster));
    assert_eq!(hosts(&cluster), ["n1"]);
}

#[test]
fn a_name_that_is_given_wins_and_the_file_stays() {
    let cluster = Cluster::embedded().with_pools(Families::V4);
    let quiet = add(&cluster, &nameless(&cluster, "c1"));
    assert!(!quiet.stderr.contains("WARN"), "{quiet:?}");
    cluster.node.write("/etc/weir/named", "n7\n");
    for (id, key, value, source) in [
        ("c2", "/nodename", "n2", "n2 by nodename in the network configuration"),
        ("c3", "/nodename_file", "/etc/weir/named", "n7 by the file /etc/weir/named"),
    ] {
        let call = nameless(&cluster, id).configure(key, value.into());
        let answer = add(&cluster, &call);
        let warning = format!("this node is called {source}, but n1 in {FILE}");
        assert!(answer.stderr.contains(&warning), "{answer:?}");
        assert_eq!(kept_name(&cluster), "n1");
        // Only ADD and the agent say so.
        let answer = call.run(&cluster.node, "DEL");
        assert!(answer.succeeded && !answer.stderr.contains("called"), "{answer:?}");
    }
    assert_eq!(hosts(&cluster), ["n1", "n2", "n7"]);
}

#[test]
fn the_agent_keeps_the_name_too_and_other_commands_do_not() {
    let cluster = Cluster::etcd().with_pools(Families::V4);
    cluster.weirctl(&["node", "status", "--node", "n9"]);
    cluster.weirctl(&["ipam", "explain"]);
    nameless(&cluster, "c1").delete(&cluster.node);
    assert!(!is_kept(&cluster));
    let answer = cluster.weirctl(&["node", "run", "--once", "--node", "n4"]);
    assert!(answer.succeeded, "{answer:?}");
    assert_eq!(kept_name(&cluster), "n4");
    let answer = cluster.weirctl(&["node", "run", "--once", "--node", "n5"]);
    let warning = format!("this node is called n5 by --node or NODENAME, but n4 in {FILE}");
    assert!(answer.stderr.contains(&warning), "{answer:?}");
    let answer = cluster.weirctl(&["node", "run", "--once"]);
    assert!(answer.stderr.contains("the file /var/lib/weir/nodename"), "{answer:?}");
    assert!(!answer.stderr.contains("is called"), "{answer:?}");
    add(&cluster, &nameless(&cluster, "c1"));
    assert_eq!(hosts(&cluster), ["n4"]);
}

/// Registers a node, as its agent would.
fn register(cluster: &Cluster, name: &str) {
    let node = json!({
        "apiVersion": "projectcalico.org/v3", "kind": "Node", "metadata": {"name": name},
        "spec": {"bgp": {"ipv4Address": "172.30.0.11/24"}},
    });
    cluster.store.put(&format!("/calico/resources/v3/projectcalico.org/nodes/{name}"), &node);
}

fn check(cluster: &Cluster) -> String {
    let answer = cluster.weirctl(&["ipam", "check"]);
    assert!(answer.succeeded, "{answer:?}");
    answer.stdout
}

#[test]
fn a_renamed_node_has_everything_under_its_new_name() {
    for cluster in [Cluster::embedded(), Cluster::etcd()] {
        cluster.create_pool("blue", json!({"cidr": "10.7.0.0/29", "blockSize": 30}));
        register(&cluster, "n1");
        register(&cluster, "n2");
        let container = cluster.node.container("web");
        let mut calls = vec![{
            let mut configuration = cluster.configuration(Families::V4);
            configuration.as_object_mut().unwrap().remove("nodename");
            Call::new("weir", configuration).container(&container)
        }];
        let result = calls[0].add(&cluster.node);
        // Another node's block, of which this node borrows when its own is full.
        let other = nameless(&cluster, "other").configure("/nodename", "n2".into());
        other.add(&cluster.node);
        for number in 0..4 {
            let call = nameless(&cluster, &format!("c{number}"));
            call.add(&cluster.node);
            calls.push(call);
        }
        let before = allocations(&cluster.store.entries());
        assert_eq!((before.len(), hosts(&cluster)), (6, vec!["n1".into(), "n2".into()]));
        cluster.node.write("/etc/cni/net.d/10.conflist", &list(&cluster).to_string());
        set_host_name(&cluster, "n1.example.org");
        let answer = cluster.weirctl(&["node", "rename", "n1", "n1.example.org"]);
        assert!(answer.succeeded, "{answer:?}");
        let told = "Renamed node n1 to n1.example.org: 1 block(s) and 5 address(es) in use";
        assert!(answer.stdout.contains(told), "{answer:?}");
        assert_eq!(kept_name(&cluster), "n1.example.org");
        let entries = cluster.store.entries();
        assert_consistent(&entries);
        assert_eq!(allocations(&entries), before);
        assert_eq!(hosts(&cluster), ["n1.example.org", "n2"]);
        let old = |text: &String| text.contains("\"n1\"") || text.contains("host:n1\"");
        assert!(!entries.values().any(old), "{entries:?}");
        assert!(!entries.keys().any(|key| key.ends_with("/n1") || key.contains("/n1/")));
        assert!(check(&cluster).contains("Check complete; found 0 problems."));
        calls[0].check(&cluster.node, &result).silence();
        assert!(container.reaches("172.30.0.11") && cluster.node.reaches(address(&result, 0)));
        calls.iter().for_each(|call| call.delete(&cluster.node));
        assert_eq!(allocations(&cluster.store.entries()).len(), 1, "the other node's");
        other.delete(&cluster.node);
        cluster.assert_nothing_allocated();
    }
}

/// A network without a node's name.
fn list(cluster: &Cluster) -> Value {
    let mut plugin = cluster.plugin(Families::V4);
    plugin.as_object_mut().expect("an object").remove("nodename");
    cluster.list(plugin)
}

#[test]
fn a_node_whose_agent_runs_is_not_renamed() {
    let cluster = Cluster::etcd().with_pools(Families::V4);
    let agent = Agent::start(&cluster.node, &cluster.store, "n1", &[]);
    until("the agent is well", || agent.is_well());
    let before = cluster.store.entries();
    let answer = cluster.weirctl(&["node", "rename", "n1", "n7"]);
    assert!(!answer.succeeded && answer.stderr.contains("systemctl stop weir-node"), "{answer:?}");
    assert_eq!(cluster.store.entries(), before);
    agent.stop();
    let answer = cluster.weirctl(&["node", "rename", "n1", "n7"]);
    assert!(answer.succeeded, "{answer:?}");
    let answer = cluster.weirctl(&["node", "run", "--once"]);
    assert!(answer.succeeded, "{answer:?}");
    let entries = cluster.store.entries();
    let nodes: Vec<_> = entries.keys().filter_map(|key| key.split_once("/nodes/")).collect();
    assert_eq!(nodes.iter().map(|(_, name)| *name).collect::<Vec<_>>(), ["n7"]);
}

/// Other nodes route to the agent's name: a container under another one would be cut off.
#[test]
fn an_add_under_another_name_than_the_agents_is_refused() {
    for cluster in [Cluster::embedded(), Cluster::etcd()] {
        let cluster = cluster.with_pools(Families::V4);
        let node = &cluster.node;
        let agent = Agent::start(node, &cluster.store, "n1", &[]);
        until("the agent is well", || agent.is_well());
        let (web, next) = (node.container("web"), node.container("next"));
        let call = cluster.weir(Families::V4, &web);
        let other = call.clone().configure("/nodename", "n1.example.org".into());
        let refused = other.run(node, "ADD").failure();
        refused.expect(
            7,
            &["n1.example.org (from nodename in the network", "as n1 (from --node or NODENAME)"],
        );
        cluster.assert_nothing_allocated();
        call.add(node);
        call.delete(node);
        agent.stop();
        let alone = cluster.weir(Families::V4, &next);
        let alone = alone.configure("/nodename", "n1.example.org".into());
        alone.add(node);
        alone.delete(node);
    }
}
