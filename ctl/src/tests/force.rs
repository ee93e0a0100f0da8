//! Deleting pools by force, and nodes.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use serde_json::json;
use weir_common::datastore::keys;
use weir_common::ipam::{Affinity, Attribute, Block, Handle, affinity_of_host};
use weir_datastore::memory::{CommitFault, MemoryCall};

use super::*;

pub(super) type Dump = BTreeMap<String, Vec<u8>>;

pub(super) fn blocks(dump: &Dump) -> Vec<Block> {
    let blocks = dump.iter().filter(|(key, _)| key.starts_with(keys::BLOCKS));
    blocks.map(|(_, value)| Block::from_json(value).unwrap()).collect()
}

/// Blocks and handles count the same addresses, and every affinity has its
/// block, which names its host.
pub(super) fn assert_consistent(dump: &Dump) {
    let mut counted: BTreeMap<(String, IpNet), u64> = BTreeMap::new();
    for block in blocks(dump) {
        for index in block.allocations.iter().flatten() {
            if let Some(id) = &block.attributes[*index].handle_id {
                *counted.entry((id.clone(), block.cidr)).or_default() += 1;
            }
        }
    }
    let mut named = BTreeMap::new();
    for (key, value) in dump {
        if let Some(id) = keys::parse_handle(key) {
            for (cidr, count) in Handle::from_json(value).unwrap().block {
                named.insert((id.to_owned(), cidr.parse().unwrap()), count);
            }
        }
        if let Some((host, cidr)) = keys::parse_affinity(key) {
            let block = Block::from_json(&dump[&keys::block(cidr)]).unwrap();
            assert_eq!(block.host(), Some(host), "{key}");
        }
    }
    assert_eq!(counted, named);
}

/// A pool with a block of 256 addresses, `used` of them in use, each by a
/// container of its own, one of which has an address in another pool, too.
fn large_block(memory: &Memory, used: usize) {
    let cidr: IpNet = "10.1.0.0/24".parse().unwrap();
    let other: IpNet = "10.2.0.0/30".parse().unwrap();
    let holder = |id: &str| Attribute { handle_id: Some(id.to_owned()), ..Attribute::default() };
    let (mut block, mut elsewhere) = (Block::new(cidr, "n1", 7), Block::new(other, "n1", 7));
    elsewhere.assign(0, holder("net.0"));
    let mut entries = vec![];
    for ordinal in 0..used {
        let id = format!("net.{ordinal}");
        block.assign(ordinal, holder(&id));
        let mut handle = Handle::default();
        handle.set(cidr, 1);
        if ordinal == 0 {
            handle.set(other, 1);
        }
        entries.push((keys::handle(&id), handle.to_json()));
    }
    for block in [block, elsewhere] {
        entries.push((keys::affinity("n1", block.cidr), Affinity::default().to_json()));
        entries.push((keys::block(block.cidr), block.to_json()));
    }
    let pool = r#"{"kind":"IPPool","apiVersion":"projectcalico.org/v3","metadata":{"name":"p"},"spec":{"cidr":"10.1.0.0/16","blockSize":24}}"#;
    entries.push((keys::pool("p"), pool.into()));
    memory.seed(entries);
}

#[tokio::test]
async fn force_releases_what_is_in_the_pool_and_nothing_else() {
    for (name, range) in [("blue", "10.7.0.0/27"), ("solo", "10.10.0.0/28"), ("six", "fd00:7::/64")]
    {
        let memory = recorded_store("busy");
        let before = memory.dump();
        assert_consistent(&before);
        let range: IpNet = range.parse().unwrap();
        let (inside, outside): (Vec<_>, Vec<_>) =
            blocks(&before).into_iter().partition(|block| range.contains(&block.cidr));
        let used: usize =
            inside.iter().map(|block| block.allocations.iter().flatten().count()).sum();
        let answer = call(&memory, &format!("delete ippool {name} --force")).await;
        assert_eq!(
            answer.output,
            format!(
                "Successfully deleted 1 'IPPool' resource(s)\n\
                 IPPool({name}): released {used} address(es), deleted {} block(s)\n",
                inside.len()
            )
        );
        let after = memory.dump();
        assert_consistent(&after);
        assert_eq!(blocks(&after), outside);
        assert!(!after.contains_key(&keys::pool(name)));
        let is_other = |key: &str| keys::parse_handle(key).is_none() && after.contains_key(key);
        for (key, value) in before.iter().filter(|(key, _)| is_other(key)) {
            assert_eq!(&after[key], value, "{key}");
        }
    }
}

#[tokio::test]
async fn a_block_with_more_handles_than_a_transaction_holds_is_released() {
    for used in [1, 50, 51, 256] {
        let memory = Memory::new();
        large_block(&memory, used);
        let answer = call(&memory, "delete ippool p --force").await;
        assert!(answer.output.contains(&format!("released {used} address")), "{}", answer.output);
        let after = memory.dump();
        assert_consistent(&after);
        let left: BTreeSet<_> = after.keys().cloned().collect();
        let other = "10.2.0.0/30".parse().unwrap();
        let expected = [keys::handle("net.0"), keys::block(other), keys::affinity("n1", other)];
        assert_eq!(left, expected.into());
    }
}

#[tokio::test]
async fn an_interrupted_release_is_consistent_and_finished_by_the_next() {
    for nth in 1..=9 {
        for fault in [CommitFault::CrashBefore, CommitFault::CrashAfter] {
            let memory = Memory::new();
            large_block(&memory, 256);
            memory.fail_commit(nth, fault);
            let first = call(&memory, "delete ippool p --force").await;
            let next = memory.another_process();
            assert_consistent(&next.dump());
            if first.exit != 0 && nth > 1 {
                let pool = next.dump().get(&keys::pool("p")).cloned().unwrap_or_default();
                let text = String::from_utf8(pool).unwrap();
                assert!(text.is_empty() || text.contains("\"disabled\":true"), "{text}");
            }
            let second = call(&next, "delete ippool p --force --skip-not-exists").await;
            assert_eq!(second.exit, 0, "{first:?} {second:?}");
            assert_consistent(&next.dump());
            assert_eq!(next.dump().len(), 3, "only the other pool's block is left");
        }
    }
}

#[tokio::test]
async fn a_deleted_node_leaves_only_addresses_in_use() {
    let (mut kept, mut removed) = (0, 0);
    for node in ["n1", "n2", "n3", "n4", "n5", "n6"] {
        let memory = recorded_store("busy");
        let before = memory.dump();
        let host = affinity_of_host(node);
        let of_node = |block: &&Block| block.affinity.as_deref() == Some(host.as_str());
        let held: Vec<_> = blocks(&before).into_iter().filter(|block| of_node(&block)).collect();
        let answer = call(&memory, &format!("delete node {node}")).await;
        assert_eq!(answer.exit, 0, "{}", answer.output);
        let after = memory.dump();
        assert_consistent(&after);
        assert!(!after.keys().any(|key| key.starts_with(&keys::affinities_of(node))));
        assert!(blocks(&after).iter().all(|block| !of_node(&block)));
        for block in held {
            let left = after.get(&keys::block(block.cidr));
            let left = left.map(|value| Block::from_json(value).unwrap());
            match left {
                Some(left) => {
                    assert_eq!(left.allocations, block.allocations, "{}", block.cidr);
                    assert_eq!((left.affinity.as_deref(), left.is_empty()), (None, false));
                    kept += 1;
                }
                None => {
                    assert!(block.is_empty(), "{}", block.cidr);
                    removed += 1;
                }
            }
        }
    }
    assert!(kept > 0 && removed > 0, "{kept} blocks kept, {removed} removed");
}

#[tokio::test]
async fn a_nodes_tunnel_address_goes_with_it() {
    let memory = recorded_store("busy");
    let cidr: IpNet = "10.8.0.240/28".parse().unwrap();
    let id = "ipip-tunnel-addr-n1";
    let mut block = Block::new(cidr, "n1", 7);
    block.assign(3, Attribute { handle_id: Some(id.into()), ..Attribute::default() });
    let mut handle = Handle::default();
    handle.set(cidr, 1);
    memory.seed([
        (keys::block(cidr), block.to_json()),
        (keys::handle(id), handle.to_json()),
        (keys::affinity("n1", cidr), Affinity::default().to_json()),
    ]);
    let tried = call(&memory, "delete node n1 --dry-run").await;
    assert!(memory.dump().contains_key(&keys::handle(id)));
    let answer = call(&memory, "delete node n1").await;
    assert!(answer.output.contains("released 1 tunnel address(es)"), "{}", answer.output);
    assert_eq!(tried.output, format!("{}Dry run: nothing was changed\n", answer.output));
    let after = memory.dump();
    assert_consistent(&after);
    for key in [keys::block(cidr), keys::handle(id), keys::affinity("n1", cidr)] {
        assert!(!after.contains_key(&key), "{key}");
    }
}

#[tokio::test]
async fn a_node_with_many_blocks_is_deleted_in_batches() {
    for nth in 1..=5 {
        let memory = recorded_store("busy");
        let hosts = |dump: &Dump| dump.keys().filter(|key| key.contains("/host/n1/")).count();
        let entries = (0..130).flat_map(|number| {
            let cidr: IpNet = format!("10.66.{number}.0/28").parse().unwrap();
            let block = Block::new(cidr, "n1", 7);
            let affinity = Affinity::default().to_json();
            [(keys::block(cidr), block.to_json()), (keys::affinity("n1", cidr), affinity)]
        });
        memory.seed(entries);
        memory.fail_commit(nth, CommitFault::CrashAfter);
        call(&memory, "delete node n1").await;
        let next = memory.another_process();
        assert_consistent(&next.dump());
        assert_eq!(call(&next, "delete node n1 --skip-not-exists").await.exit, 0);
        assert_eq!(hosts(&next.dump()), 0);
        assert!(!next.dump().contains_key(&keys::node("n1")));
        assert!(blocks(&next.dump()).iter().all(|block| block.host() != Some("n1")));
    }
}

#[tokio::test]
async fn several_deletions_say_what_was_done_and_what_was_not() {
    let memory = Memory::new();
    create(&memory, &pool("a", "cidr: 10.1.0.0/16")).await;
    let answer = call(&memory, "delete ippool a b").await;
    assert_eq!(
        answer.output,
        "Partial success: deleted 1 out of 2 'IPPool' resources:\ndeleted: IPPool(a)\n\
         not deleted: IPPool(b)\nFailed to delete 'IPPool' resource: resource does not exist: \
         IPPool(b)\nlist what there is with: weirctl get ippool\n"
    );
}

/// Notes that hosts made about full blocks go with the blocks, so that they are
/// not believed of later ones.
#[tokio::test]
async fn notes_on_full_blocks_go_with_them() {
    for line in ["delete ippool p --force", "delete node n1"] {
        let memory = Memory::new();
        large_block(&memory, 256);
        let node = json!({"kind": "Node", "apiVersion": "projectcalico.org/v3",
            "metadata": {"name": "n1"}, "spec": {}});
        let full = keys::full("n1", "10.1.0.0/24".parse().unwrap());
        memory
            .seed([(keys::node("n1"), node.to_string().into_bytes()), (full.clone(), Vec::new())]);
        assert_eq!(call(&memory, line).await.exit, 0);
        assert!(!memory.dump().contains_key(&full), "{line}");
    }
    let memory = Memory::new();
    large_block(&memory, 0);
    let full = keys::full("n1", "10.1.0.0/24".parse().unwrap());
    memory.seed([(full.clone(), Vec::new())]);
    assert_eq!(call(&memory, "delete ippool p").await.exit, 0);
    assert!(!memory.dump().contains_key(&full));
}

/// A pool with a block in which a node's tunnel has 10.1.0.3, and the Node, which
/// names this address.
async fn tunnel_in_pool(named: &str) -> Memory {
    let memory = Memory::new();
    create(&memory, &super::pool("p", "cidr: 10.1.0.0/24, blockSize: 28")).await;
    let cidr: IpNet = "10.1.0.0/28".parse().unwrap();
    let mut block = Block::new(cidr, "n1", 7);
    let facts = [("node".to_owned(), "n1".to_owned()), ("type".into(), "ipipTunnelAddress".into())];
    block.assign(
        3,
        Attribute {
            handle_id: Some(TUNNEL.into()),
            secondary: Some(facts.into()),
            ..Attribute::default()
        },
    );
    let mut handle = Handle::default();
    handle.set(cidr, 1);
    let node = json!({"kind": "Node", "apiVersion": "projectcalico.org/v3",
        "metadata": {"name": "n1"}, "spec": {"bgp": {"ipv4IPIPTunnelAddr": named}}});
    memory.seed([
        (keys::block(cidr), block.to_json()),
        (keys::handle(TUNNEL), handle.to_json()),
        (keys::affinity("n1", cidr), Affinity::default().to_json()),
        (keys::node("n1"), node.to_string().into_bytes()),
    ]);
    memory
}

/// The handle of the tunnel in [`tunnel_in_pool`].
const TUNNEL: &str = "ipip-tunnel-addr-n1";

/// What the Node has in its `spec`.
fn spec_of_node(memory: &Memory) -> Value {
    let node: Value = serde_json::from_slice(&memory.dump()[&keys::node("n1")]).unwrap();
    node["spec"].clone()
}

/// A node must not go on using an address that others may get.
#[tokio::test]
async fn a_tunnels_address_that_goes_with_its_pool_is_taken_from_the_node() {
    for (named, left) in
        [("10.1.0.3", json!({})), ("10.1.0.9", json!({"bgp": {"ipv4IPIPTunnelAddr": "10.1.0.9"}}))]
    {
        for line in ["delete ippool p", "delete ippool p --force"] {
            let memory = tunnel_in_pool(named).await;
            // Cut off at any commit, address and node go together.
            for nth in 1..4 {
                let copy = Memory::new();
                copy.seed(memory.dump());
                copy.fail_commit(nth, CommitFault::CrashAfter);
                call(&copy, line).await;
                let released = !copy.dump().contains_key(&keys::handle(TUNNEL));
                let spec = spec_of_node(&copy);
                assert_eq!(spec == left, released || named == "10.1.0.9", "{nth}: {spec}");
            }
            assert_eq!(call(&memory, line).await.exit, 0, "{line}");
            assert_eq!(spec_of_node(&memory), left);
            let keys = [keys::CLUSTER_INFORMATION, &keys::node("n1")];
            assert_eq!(memory.dump().keys().collect::<Vec<_>>(), keys);
        }
    }
}

/// Nor one that is released by its number.
#[tokio::test]
async fn a_released_tunnels_address_is_taken_from_the_node() {
    for (named, left) in
        [("10.1.0.3", json!({})), ("10.1.0.9", json!({"bgp": {"ipv4IPIPTunnelAddr": "10.1.0.9"}}))]
    {
        let memory = tunnel_in_pool(named).await;
        let answer = call(&memory, "ipam release --ip=10.1.0.3").await;
        assert_eq!(answer.output, "Successfully released IP address 10.1.0.3\n");
        assert_eq!(spec_of_node(&memory), left);
        assert_consistent(&memory.dump());
    }
}

#[tokio::test]
async fn a_pool_with_nothing_but_tunnels_addresses_needs_no_force() {
    let memory = tunnel_in_pool("10.1.0.3").await;
    let before = memory.dump();
    let tried = call(&memory, "delete ippool p --dry-run").await;
    assert_eq!(memory.dump(), before);
    let answer = call(&memory, "delete ippool p").await;
    assert_eq!(
        answer.output,
        "Successfully deleted 1 'IPPool' resource(s)\nIPPool(p): released 1 tunnel address(es)\n"
    );
    assert_eq!(tried.output, format!("{}Dry run: nothing was changed\n", answer.output));
}

#[tokio::test]
async fn tunnels_and_containers_are_told_apart() {
    let cidr: IpNet = "10.1.0.0/28".parse().unwrap();
    // The second one is a container's of a network with a name like that.
    for id in ["net.c1", "ipip-tunnel-addr-net.c1"] {
        let memory = tunnel_in_pool("10.1.0.3").await;
        let mut block = blocks(&memory.dump()).remove(0);
        block.assign(5, Attribute { handle_id: Some(id.into()), ..Attribute::default() });
        let mut handle = Handle::default();
        handle.set(cidr, 1);
        memory.seed([(keys::block(cidr), block.to_json()), (keys::handle(id), handle.to_json())]);
        let before = memory.dump();
        let answer = call(&memory, "delete ippool p").await;
        assert_eq!(
            (answer.exit, answer.output.as_str()),
            (
                1,
                "Failed to delete 'IPPool' resource: IPPool(p) 10.1.0.0/24 has 1 address(es) in \
                 use, besides 1 of nodes' tunnels\n\
                 list them with: weirctl ipam show --show-addresses --pool=p; remove the containers \
                 that use them, then delete the pool again (the tunnels' addresses go with it); or release \
                 them with it: weirctl delete ippool p --force\n"
            )
        );
        assert_eq!(memory.dump(), before);
    }
}

/// A program that does not compare pools (Calico) takes an address for a container.
fn take(memory: &Memory) {
    let mut block = blocks(&memory.dump()).remove(0);
    block.assign(5, Attribute { handle_id: Some("net.c1".into()), ..Attribute::default() });
    let mut handle = Handle::default();
    handle.set(block.cidr, 1);
    let taken =
        [(keys::block(block.cidr), block.to_json()), (keys::handle("net.c1"), handle.to_json())];
    memory.seed(taken);
}

#[tokio::test]
async fn a_container_that_comes_meanwhile_keeps_its_address_and_the_pool() {
    // While the pool is disabled, the tunnel's address released, the block deleted.
    for nth in 1..=3 {
        let memory = tunnel_in_pool("10.1.0.3").await;
        let pool = memory.dump()[&keys::pool("p")].clone();
        memory.before_each(MemoryCall::Commit, move |commit, other| async move {
            if commit == nth {
                take(&other);
            }
        });
        let answer = call(&memory, "delete ippool p").await;
        assert_eq!(answer.exit, 1, "{nth}: {}", answer.output);
        assert!(answer.output.contains("1 address(es) in use"), "{}", answer.output);
        let after = memory.dump();
        assert_consistent(&after);
        assert!(after.contains_key(&keys::handle("net.c1")));
        assert_eq!(after[&keys::pool("p")], pool, "the pool is what it was");
    }
}
