//! One node, end to end: containers get addresses and reach each other, with
//! both datastores and every combination of address families.

use serde_json::{Value, json};
use weir_tests::{
    Call, Cluster, CniTool, Container, Families, Place, Snapshot, address, allocations,
    assert_consistent, cni_path,
};

/// The node's own addresses.
const NODE_ADDRESSES: [&str; 2] = ["172.30.0.11", "fd00:30::11"];

/// Add, check, ping and remove two containers with cnitool, twice, and look at
/// what is left.
fn life_cycle(cluster: Cluster, families: Families) {
    let cluster = cluster.with_pools(families);
    let tool = CniTool::new(&cluster.node, &cluster.list(cluster.plugin(families)));
    let containers = ["web", "db"].map(|name| cluster.node.container(name));
    let inside = Snapshot::of(&containers[0]);
    let after: [Snapshot; 2] = std::array::from_fn(|_| {
        let addresses = containers.each_ref().map(|container| {
            let result = tool.add(container);
            tool.check(container);
            addresses_of(&result, families)
        });
        assert_recorded(&cluster, &addresses.concat());
        assert_reachable(&cluster, &containers, &addresses);
        containers.iter().for_each(|container| tool.delete(container));
        cluster.assert_nothing_allocated();
        assert_eq!(cluster.interfaces(), ["lo", "eth0"]);
        inside.assert_unchanged(&Snapshot::of(&containers[0]));
        Snapshot::of(&cluster.node)
    });
    after[0].assert_unchanged(&after[1]);
}

/// The addresses of a result, which must be whole addresses of the families'
/// pools on the container's interface.
fn addresses_of(result: &Value, families: Families) -> Vec<String> {
    let ips = result["ips"].as_array().expect("a result has addresses");
    assert_eq!(ips.len(), families.pools().len(), "{result}");
    let address = |(ip, (_, pool)): (&Value, &(&str, &str))| {
        let text = ip["address"].as_str().expect("an address is text");
        let whole = if pool.contains(':') { "/128" } else { "/32" };
        let (network, _) = pool.rsplit_once(['.', ':']).expect("a CIDR");
        assert!(text.starts_with(network) && text.ends_with(whole), "{text} should be in {pool}");
        let interface = usize::try_from(ip["interface"].as_u64().expect("an index"));
        let interface = interface.expect("a small index");
        assert_eq!(result["interfaces"][interface]["name"], "eth0");
        text.trim_end_matches(whole).to_owned()
    };
    ips.iter().zip(families.pools()).map(address).collect()
}

fn assert_recorded(cluster: &Cluster, addresses: &[String]) {
    let entries = cluster.store.entries();
    assert_consistent(&entries);
    let mut recorded: Vec<String> = allocations(&entries).keys().map(ToString::to_string).collect();
    let mut expected = addresses.to_vec();
    recorded.sort();
    expected.sort();
    assert_eq!(recorded, expected);
}

/// Every container reaches the other and the node, and the node both.
fn assert_reachable(cluster: &Cluster, containers: &[Container; 2], addresses: &[Vec<String>; 2]) {
    for (from, to) in [(0, 1), (1, 0)] {
        for address in &addresses[to] {
            assert!(containers[from].reaches(address), "{} -> {address}", containers[from].name());
            assert!(cluster.node.reaches(address), "node -> {address}");
        }
        let of_node = NODE_ADDRESSES.iter().filter(|node| {
            addresses[from].iter().any(|address| address.contains(':') == node.contains(':'))
        });
        for address in of_node {
            assert!(containers[from].reaches(address), "{} -> {address}", containers[from].name());
        }
    }
}

macro_rules! life_cycles {
    ($($name:ident: $store:ident, $families:ident;)*) => {
        $(#[test]
        fn $name() {
            life_cycle(Cluster::$store(), Families::$families);
        })*
    };
}

life_cycles! {
    embedded_ipv4: embedded, V4;
    embedded_ipv6: embedded, V6;
    embedded_dual_stack: embedded, Dual;
    etcd_ipv4: etcd, V4;
    etcd_ipv6: etcd, V6;
    etcd_dual_stack: etcd, Dual;
}

#[test]
fn an_attachment_is_added_and_removed_again_and_again() {
    let cluster = Cluster::embedded().with_pools(Families::Dual);
    let container = cluster.node.container("web");
    let call = cluster.weir(Families::Dual, &container);
    let first = call.add(&cluster.node);
    let second = call.add(&cluster.node);
    assert_eq!(first["ips"], second["ips"]);
    assert_eq!(first["interfaces"], second["interfaces"]);
    call.check(&cluster.node, &second).silence();
    assert_eq!(allocations(&cluster.store.entries()).len(), 2);
    for _ in 0..2 {
        call.delete(&cluster.node);
        cluster.assert_nothing_allocated();
    }
    let never_added = cluster.weir(Families::Dual, &cluster.node.container("other"));
    never_added.delete(&cluster.node);
}

#[test]
fn two_interfaces_of_one_container_have_an_address_each() {
    for cluster in [Cluster::embedded(), Cluster::etcd()] {
        let cluster = cluster.with_pools(Families::V4);
        let first = cluster.ipam(Families::V4, "web");
        let second = first.clone().with("CNI_IFNAME", "net1");
        let results = [&first, &second].map(|call| call.add(&cluster.node));
        let addresses = results.each_ref().map(|result| address(result, 0));
        assert_ne!(addresses[0], addresses[1]);
        first.delete(&cluster.node);
        let left = allocations(&cluster.store.entries());
        assert_eq!(left.keys().map(ToString::to_string).collect::<Vec<_>>(), [addresses[1]]);
        second.check(&cluster.node, &results[1]).silence();
        second.delete(&cluster.node);
        cluster.assert_nothing_allocated();
    }
}

#[test]
fn delete_works_without_the_namespace() {
    let cluster = Cluster::embedded().with_pools(Families::Dual);
    let container = cluster.node.container("web");
    let call = cluster.weir(Families::Dual, &container);
    call.add(&cluster.node);
    container.remove();
    call.delete(&cluster.node);
    cluster.assert_nothing_allocated();
    assert_eq!(cluster.interfaces(), ["lo", "eth0"]);
    call.without("CNI_NETNS").delete(&cluster.node);
}

#[test]
fn the_node_forwards() {
    for (families, sysctl) in [
        (Families::V4, "/proc/sys/net/ipv4/ip_forward"),
        (Families::V6, "/proc/sys/net/ipv6/conf/all/forwarding"),
    ] {
        let cluster = Cluster::embedded().with_pools(families);
        let container = cluster.node.container("web");
        assert_eq!(cluster.node.read(sysctl).trim(), "0");
        cluster.weir(families, &container).add(&cluster.node);
        assert_eq!(cluster.node.read(sysctl).trim(), "1", "{families:?}");
    }
}

#[test]
fn weir_ipam_serves_other_main_plugins() {
    let cluster = Cluster::embedded().with_pools(Families::V4);
    let container = cluster.node.container("web");
    let configuration = cluster.weir(Families::V4, &container).configuration().clone();
    let bridge = Call::reference("bridge", configuration)
        .configure("/bridge", "cni0".into())
        .with("CNI_PATH", &cni_path())
        .container(&container);
    let result = bridge.add(&cluster.node);
    let given = result["ips"][0]["address"].as_str().expect("an address");
    assert!(given.ends_with("/26"), "{given} should have its block's prefix length");
    bridge.check(&cluster.node, &result).silence();
    bridge.delete(&cluster.node);
    cluster.assert_nothing_allocated();
}

#[test]
fn weir_takes_addresses_from_other_ipam_plugins() {
    let cluster = Cluster::embedded();
    let container = cluster.node.container("web");
    let host_local = json!({"type": "host-local", "subnet": "10.9.0.0/24"});
    let call = cluster.weir(Families::V4, &container).configure("/ipam", host_local);
    let result = call.add(&cluster.node);
    assert_eq!(result["ips"][0]["address"], "10.9.0.2/32");
    assert!(cluster.node.reaches("10.9.0.2"));
    call.check(&cluster.node, &result).silence();
    call.delete(&cluster.node);
    assert_eq!(cluster.interfaces(), ["lo", "eth0"]);
}
